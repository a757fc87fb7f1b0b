"""The sentence a human reads in one breath: how wrong the clock is, and who says so."""

from collections import Counter

from ntpaudit.core.observation import Status
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Offset, Record
from ntpaudit.core.units import format_duration, plural

_OTHERS: dict[Status, tuple[str, str]] = {
    "falseticker": ("disagrees", "disagree"),
    "distant": ("is too distant", "are too distant"),
    "rejected": ("was rejected", "were rejected"),
    "unreachable": ("did not answer", "did not answer"),
    "skipped": ("was not asked", "were not asked"),
}
"""What is said of one server, and of several, that do not agree."""

_REASONS = {
    "interval": "asked too recently",
    "unanswered": "unanswered lately",
    "nts": "NTS is not supported",
    "name-unknown": "name not found",
    "name-failed": "name lookup failed",
    "name-timeout": "no answer from DNS in time",
    "before-release": "their time is before this release",
}
"""Reason codes that a word in passing needs spelt out."""


def summary(record: Record, since: str = "ago") -> str:
    """Say in a sentence how wrong the clock is, without the severity.

    `since` follows the age of the measurement, which is that at the moment of the record. Bounds are rounded up and
    least errors down. Where findings make it worse than the offset does, they are named.
    """
    if record.offset is None:
        sentence, severity = f"clock was not measured: {_why_unmeasured(record)}", Severity.UNKNOWN
    else:
        sentence, severity = _measured(record, record.offset, since)
    if not record.confirmed:
        sentence, severity = f"not confirmed yet: {sentence}", max(severity, Severity.UNKNOWN)
    return sentence if record.severity <= severity else f"{sentence}; {_worst_findings(record)}"


def _measured(record: Record, offset: Offset, since: str) -> tuple[str, Severity]:
    """Say how wrong a measured clock is, and how bad that is by itself."""
    profile, counts = record.profile, _votes(record, since)
    estimate, bound = format_duration(offset.estimate_s), format_duration(offset.bound_s, rounding="up")
    warning, critical = format_duration(profile.warning_s), format_duration(profile.critical_s)
    by_estimate = profile.judged_on == "offset"
    where, premise = f"clock is {estimate} {offset.direction}", _premise(record)
    match record.verdict:
        case "beyond":
            least = format_duration(max(offset.earliest_s, -offset.latest_s), rounding="down")
            said = f"clock is at least {least} {offset.direction} {premise}"
            return f"{said} (estimate {estimate}; {counts})", Severity.CRITICAL
        case "unproven" if not record.agreement.guaranteed:
            said = f"{where} by estimate, but too few servers gave a usable reply to prove it"
        case "unproven":
            turn, side = ("but", "within") if abs(offset.estimate_s) <= profile.critical_s else ("and", "more than")
            said = f"{where} by estimate, {turn} may be up to {bound} wrong: {side} {critical} is not proven"
        case _ if (abs(offset.estimate_s) if by_estimate else offset.bound_s) <= profile.warning_s:
            return f"{where}, at most {bound} wrong {premise} ({counts})", Severity.OK
        case _ if by_estimate:
            over = format_duration(
                offset.estimate_s, rounding="up"
            )  # so that it never reads as if it were the tolerance itself
            tolerance = f"over the warning tolerance of {warning}"
            said = f"clock is {over} {offset.direction}, {tolerance}, at most {bound} wrong {premise}"
        case _:
            said = f"{where} and may be up to {bound} wrong, over the warning tolerance of {warning}"
    return f"{said} ({counts})", Severity.WARNING


def _premise(record: Record) -> str:
    """Say on which condition the interval holds: how many of the servers asked may lie (R13)."""
    falsetickers, asked = record.agreement.max_falsetickers, plural(record.agreement.asked, "server")
    if record.age_s and record.kind == "network":  # the interval is an earlier one, of servers counted then
        asked = "the servers"
    match falsetickers:
        case 0:
            return "if no server lies"
        case 1:
            return f"if at most 1 of {asked} lies"
    return f"if at most {falsetickers} of {asked} lie"


def _votes(record: Record, since: str) -> str:
    """Say how many servers agree, or agreed when they were asked last, and whether those asked now do."""
    if not record.age_s:
        return _voted(record)
    ago = f"measured {format_duration(record.age_s)} {since}"
    if record.kind == "network":
        return f"{ago}, now {_voted(record)}"
    return f"{ago}, {record.agreement.agreeing} of {plural(record.agreement.sources, 'server')} agreed"


def _voted(record: Record) -> str:
    """Say how many servers agree, and account for the others."""
    counts = record.agreement
    if counts.sources == 1:
        return "one server only"
    if counts.usable == 1:
        return ", ".join([f"only 1 of {counts.sources} servers was usable", *_others(record)])
    return ", ".join([f"{counts.agreeing} of {counts.sources} servers agree", *_others(record)])


def _others(record: Record) -> list[str]:
    """Count the servers that do not agree by what is wrong with them."""
    counts = Counter(source.status for source in record.sources)
    return [f"{counts[status]} {words[counts[status] > 1]}" for status, words in _OTHERS.items() if counts[status]]


def _why_unmeasured(record: Record) -> str:
    """Say why there is no offset."""
    statuses = {source.status for source in record.sources}
    asked, usable = record.agreement.sources, record.agreement.usable
    if not asked:
        return "there is no server to ask"
    if usable:
        who = f"{asked} servers answered" if usable == asked else f"{usable} of {asked} servers were usable"
        return f"{who} and no majority of them agrees"
    if statuses == {"skipped"}:
        return f"no server was asked ({_reasons(record)})"
    if all((source.reason or "").startswith("name-") for source in record.sources):
        who = "the only server" if asked == 1 else f"none of {asked} servers"
        return f"{who} has {'no' if asked == 1 else 'a'} known address ({_reasons(record)})"
    if asked == 1:
        done = "did not answer" if statuses == {"unreachable"} else "was not usable"
        return f"the only server {done} ({_reasons(record)})"
    done = "answered" if statuses == {"unreachable"} else "was usable"
    return f"none of {asked} servers {done} ({_reasons(record)})"


def _reasons(record: Record) -> str:
    """List the reasons of failure, the commonest first; a lone one needs no count."""
    counts = Counter(_REASONS.get(source.reason or "", source.reason or source.status) for source in record.sources)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _worst_findings(record: Record) -> str:
    """Name the worst finding, and how many count beside it."""
    counted = [finding for finding in record.findings if finding.severity > Severity.OK]
    if not counted:
        return f"{record.severity.word} for a reason that this version does not know"
    worst = max(counted, key=lambda finding: finding.severity)
    return f"finding: {worst.id}" if len(counted) == 1 else f"{len(counted)} findings, worst {worst.id}"

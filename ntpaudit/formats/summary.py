"""One sentence for people: how wrong the clock is, and what that rests on."""

from collections import Counter

from ntpaudit.core.policy import Severity
from ntpaudit.core.record import OffsetRecord, Record
from ntpaudit.core.units import format_duration, plural

_OTHERS = {
    "falseticker": ("disagrees", "disagree"),
    "distant": ("is too distant", "are too distant"),
    "rejected": ("was rejected", "were rejected"),
    "unreachable": ("did not reply", "did not reply"),
    "refused": ("refused the query", "refused the query"),
    **dict.fromkeys(("forbidden", "net-unreachable"), ("could not be queried", "could not be queried")),
    **dict.fromkeys(("name-failed", "name-timeout", "name-unknown"), ("has no known address", "have no known address")),
    "skipped": ("was skipped", "were skipped"),
}
"""Words for one server, and for several, that do not agree; by the status, or the reason of an unreachable one."""

_REASONS = {
    "before-release": "time too early",
    "interval": "polled too recently",
    "name-failed": "name lookup failed",
    "name-timeout": "DNS timeout",
    "name-unknown": "name not found",
    "nts": "NTS is not supported",
    "unanswered": "no reply last time",
}
"""Words for the reason codes that are not plain enough in a sentence."""


def summary(record: Record, since: str = "ago") -> str:
    """Describe the clock's error in one sentence, without the severity.

    `since` follows the age of the measurement, counted at the time of the record. Maximum errors are rounded up and
    minimum errors down. Findings are named where they make the severity worse than the offset does, and accepted ones
    always: they are why the severity is not worse.
    """
    if record.offset is None:
        sentence, severity = f"clock was not measured: {_why_unmeasured(record)}", Severity.UNKNOWN
    else:
        sentence, severity = _measured(record, record.offset, since)
    if not record.confirmed:
        sentence, severity = f"not confirmed yet: {sentence}", max(severity, Severity.UNKNOWN)
    if record.severity > severity:
        sentence = f"{sentence}; {_worst_findings(record)}"
    accepted = ", ".join(finding.id for finding in record.accepted)
    return f"{sentence}; accepted: {accepted}" if accepted else sentence


def _measured(record: Record, offset: OffsetRecord, since: str) -> tuple[str, Severity]:
    profile, counts = record.profile, _agreement(record, since)
    estimate, bound = format_duration(offset.estimate_s), format_duration(offset.bound_s, rounding="up")
    warning, critical = format_duration(profile.warning_s), format_duration(profile.critical_s)
    by_estimate = profile.judged_on == "offset"
    position, premise = f"clock is {estimate} {offset.direction}", _premise(record)
    match record.verdict:
        case "beyond":
            least = format_duration(max(offset.earliest_s, -offset.latest_s), rounding="down")
            text = f"clock is at least {least} {offset.direction} {premise}"
            return f"{text} (estimate {estimate}; {counts})", Severity.CRITICAL
        case "unproven" if not record.agreement.guaranteed:
            text = f"{position} (estimate), not proven: too few servers gave a usable reply"
        case "unproven" if abs(offset.estimate_s) <= profile.critical_s:
            text = f"{position} (estimate), at most {bound} wrong: not proven to be within {critical}"
        case "unproven":
            text = f"{position} (estimate), at most {bound} wrong: neither within nor beyond {critical} is proven"
        case _ if (abs(offset.estimate_s) if by_estimate else offset.bound_s) <= profile.warning_s:
            return f"{position}, at most {bound} wrong {premise} ({counts})", Severity.OK
        case _ if by_estimate:
            # rounded up, so that it never reads as if it were the tolerance itself
            over = format_duration(offset.estimate_s, rounding="up")
            tolerance = f"over the warning tolerance of {warning}"
            text = f"clock is {over} {offset.direction}, {tolerance}, at most {bound} wrong {premise}"
        case _:
            text = f"{position}, at most {bound} wrong, over the warning tolerance of {warning}"
    return f"{text} ({counts})", Severity.WARNING


def _premise(record: Record) -> str:
    """State the assumption behind the interval: how many of the queried servers may be wrong (R13)."""
    falsetickers, servers = record.agreement.max_falsetickers, plural(record.agreement.asked, "server")
    if record.age_s and record.kind == "network":  # the interval is that of an earlier audit, with its servers
        servers = "the servers"
    if not falsetickers:
        return "if no server is wrong"
    return f"if at most {falsetickers} of {servers} {'is' if falsetickers == 1 else 'are'} wrong"


def _agreement(record: Record, since: str) -> str:
    """Count the servers that agree: now, and at the last agreement where the offset is from that one.

    A poll since then that gave no measurement is named beside it; one that queried no server says nothing.
    """
    if not record.age_s:
        return _counts(record)
    ago, poll = f"measured {format_duration(record.age_s)} {since}", record.last_poll
    if record.kind == "network" and any(source.status != "skipped" for source in record.sources):
        return f"{ago}; this poll gave no measurement: {_counts(record)}"
    # a suspend and the oscillator's error are in only one of the two ages
    if poll is not None and poll.age_s < 0.99 * record.age_s - 1:
        return f"{ago}; the poll {format_duration(poll.age_s)} {since} gave no measurement"
    if record.kind == "network":
        return f"{ago}; no server was queried now"
    return f"{ago}, {record.agreement.agreeing} of {plural(record.agreement.sources, 'server')} agreed"


def _counts(record: Record) -> str:
    counts = record.agreement
    if counts.sources == 1:
        return "one server only"
    agreeing = f"{counts.agreeing} of {counts.sources} servers agree"
    if counts.usable == 1:
        agreeing = f"only 1 of {counts.sources} servers was usable"
    found = Counter(_OTHERS.get(one.reason or "", _OTHERS.get(one.status)) for one in record.sources)
    others = (f"{found[words]} {words[found[words] > 1]}" for words in dict.fromkeys(_OTHERS.values()) if found[words])
    return ", ".join([agreeing, *others])


def _why_unmeasured(record: Record) -> str:
    statuses = {source.status for source in record.sources}
    sources, usable = record.agreement.sources, record.agreement.usable
    if not sources:
        return "there is no server to query"
    if usable:
        count = f"{sources} servers replied" if usable == sources else f"{usable} of {sources} servers were usable"
        return f"{count}, but no majority of them agrees"
    if {source.reason for source in record.sources} == {"unanswered"}:
        return "no server replied last time, so none was queried now"
    if statuses == {"skipped"}:
        return f"all servers were skipped ({_reasons(record)})"
    if all((source.reason or "").startswith("name-") for source in record.sources):
        servers = "the only server has no" if sources == 1 else f"none of {sources} servers has a"
        return f"{servers} known address ({_reasons(record)})"
    if sources == 1:
        result = "was not usable"
        if statuses == {"unreachable"}:
            result, _ = _OTHERS.get(record.sources[0].reason or "", _OTHERS["unreachable"])
        return f"the only server {result} ({_reasons(record)})"
    result = "replied" if statuses == {"unreachable"} else "was usable"
    return f"none of {sources} servers {result} ({_reasons(record)})"


def _reasons(record: Record) -> str:
    """List the reasons of failure, the most frequent first; a single reason needs no count."""
    counts = Counter(_REASONS.get(code, code) for source in record.sources if (code := source.reason or source.status))
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _worst_findings(record: Record) -> str:
    counted = [finding for finding in record.findings if finding.severity > Severity.OK]
    if not counted:
        return f"{record.severity.word} for a reason that this version does not know"
    worst = max(counted, key=lambda finding: finding.severity)
    return f"finding: {worst.id}" if len(counted) == 1 else f"{len(counted)} findings, worst {worst.id}"

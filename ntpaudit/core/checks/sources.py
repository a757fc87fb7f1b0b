"""Findings about single servers: no reply, no usable reply, refused or forged."""

from collections import Counter
from collections.abc import Sequence

from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.finding import Level
from ntpaudit.core.checks.quorum import before_release, from_before_release
from ntpaudit.core.checks.rule import PCI, SC45, Raised, Rule
from ntpaudit.core.selection import ClassifiedSource
from ntpaudit.core.units import NS_PER_S, format_duration, plural

SPOOFED_DATAGRAMS = 3
"""This many replies with a wrong origin timestamp are an attack, not an accident (V5, RFC 8633 §5.3)."""


def check_no_usable_source(context: AuditContext) -> Raised | None:
    """No source can be used, although not all of them are unreachable."""
    sources = context.selection.sources
    if not sources or context.selection.usable or all(classified.status == "unreachable" for classified in sources):
        return None
    is_skipped = all(classified.status == "skipped" for classified in sources)
    if len(sources) == 1:
        summary = f"the only source {'was not queried' if is_skipped else 'cannot be used'}"
    else:
        summary = f"none of {len(sources)} sources {'was queried' if is_skipped else 'can be used'}"
    old = from_before_release(context)
    if len(old) == len(sources):
        return Raised("medium", f"{summary}: {before_release(context)}")
    shown = ", ".join(f"{classified.source.name} ({_why_unusable(classified)})" for classified in sources[:4])
    more = f" and {len(sources) - 4} more" if len(sources) > 4 else ""
    return Raised("medium", f"{summary}: {shown}{more}" + (f"; {before_release(context)}" if old else ""))


def _why_unusable(classified: ClassifiedSource) -> str:
    if classified.status == "distant" and classified.candidate:
        width_s = classified.candidate.interval.half_width_ns / NS_PER_S
        return f"distant: maximum error {format_duration(width_s, rounding='up')}"
    return classified.reason or classified.status


NO_USABLE_SOURCE = Rule(
    "no-usable-source",
    check_no_usable_source,
    "check that these servers are synchronised (chronyc tracking, ntpq -p), or configure others; replace distant "
    "servers with nearer ones",
    (PCI, "CIS Controls 8.4"),
    raised_when={
        "medium": (
            "no source can be used, although not all are unreachable: each is distant, rejected, skipped or unreachable"
        ),
    },
    notes="The message gives the reason of each.",
    has_sample=lambda context, _: bool(context.selection.asked),
    message_id="0ecb7f80ee644c54a183a67e4e0a1b19",
)


def check_unreachable_sources(context: AuditContext) -> Raised | None:
    """Some sources did not reply, or their names have no known address."""
    unreachable = [classified for classified in context.selection.sources if classified.status == "unreachable"]
    if not unreachable:
        return None
    unresolved = [classified for classified in unreachable if (classified.reason or "").startswith("name-")]
    silent = [classified for classified in unreachable if classified not in unresolved]
    count = plural(len(context.selection.sources), "source")
    parts = []
    if silent:
        parts.append(f"{len(silent)} of {count} did not reply: {_listed(silent)}")
    if unresolved:
        have = "has" if len(unresolved) == 1 else "have"
        parts.append(f"{len(unresolved)} of {count} {have} no known address: {_listed(unresolved)}")
    level: Level = "medium" if 2 * len(unreachable) >= len(context.selection.sources) else "low"
    return Raised(level, "; ".join(parts))


def _listed(sources: Sequence[ClassifiedSource]) -> str:
    shown = ", ".join(f"{classified.source.name} ({classified.reason})" for classified in sources[:4])
    return f"{shown} and {len(sources) - 4} more" if len(sources) > 4 else shown


def _is_polled(context: AuditContext, raised: Raised | None) -> bool:
    return raised is not None or context.selection.skip_reasons.isdisjoint(("interval", "unanswered"))


UNREACHABLE_SOURCES = Rule(
    "unreachable-sources",
    check_unreachable_sources,
    "check DNS names, routes and firewalls (UDP 123 outbound); remove servers that no longer exist",
    (PCI, "CIS Controls 8.4"),
    raised_when={
        "medium": "at least half of the sources did not reply, or have no known address",
        "low": "the same, fewer sources",
    },
    has_sample=_is_polled,
    message_id="987b67e99ad8431b98eeb6edf87b3081",
)


def check_kiss_of_death(context: AuditContext) -> Raised | None:
    """A server limits or refuses our queries (K2, K3), or has no time to give (K4)."""
    kod_sources = [
        classified
        for classified in context.selection.sources
        if classified.reason and classified.reason.startswith("kod:")
    ]
    if not kod_sources:
        return None
    names = ", ".join(
        f"{classified.source.name} ({classified.reason.removeprefix('kod:')})"
        for classified in kod_sources
        if classified.reason
    )
    if any(classified.reason in ("kod:RATE", "kod:DENY", "kod:RSTR") for classified in kod_sources):
        return Raised("medium", f"kiss-o'-death from {names}: the server limits or refuses queries from this host")
    return Raised("low", f"kiss-o'-death instead of a time from {names}")


KISS_OF_DEATH = Rule(
    "kiss-of-death",
    check_kiss_of_death,
    "poll less often, or use servers that you may use; ntpaudit does not query this server for now",
    (),
    raised_when={
        "medium": "a server replied with kiss-o'-death RATE, DENY or RSTR",
        "low": "the same, with another code",
    },
    message_id="575fb3bd91da48048b91668c746e8d6b",
)


def check_suspected_spoofing(context: AuditContext) -> Raised | None:
    """Many replies match no query of ours: an attacker guesses (V5, RFC 8633 §5.3)."""
    forged: Counter[str] = Counter()
    for classified in context.selection.sources:
        forged[classified.source.name] += sum(
            classified.source.discarded.get(code, 0) for code in ("bogus", "zero-origin")
        )
    count = forged.total()
    if not count >= SPOOFED_DATAGRAMS:
        return None
    names = ", ".join(name for name, hits in forged.most_common(4) if hits)
    return Raised("high", f"{count} replies match no query of this host; they claim to come from {names}")


SUSPECTED_SPOOFING = Rule(
    "suspected-spoofing",
    check_suspected_spoofing,
    "check UDP port 123 traffic to this host for forged packets; use servers with authentication (NTS)",
    (PCI, SC45),
    raised_when={
        "high": "at least three replies match no query of this host",
    },
    message_id="c48e46b097b14e5eaaf5fcabc470f3f0",
)

RULES = (
    NO_USABLE_SOURCE,
    UNREACHABLE_SOURCES,
    KISS_OF_DEATH,
    SUSPECTED_SPOOFING,
)

"""Every rule, one small function each, and the list of them.

A check looks at a finished case and says None, or how bad it is and in which words. Adding one: a function, an entry in
`RULES`, a test, a paragraph in docs/findings.md.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from ntpaudit.core.findings import LEVEL_SEVERITY, Finding, Level
from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.core.observation import Daemon, KernelState, Observation, SourceObservation, Unavailable
from ntpaudit.core.policy import Profile, bound_s, least_s
from ntpaudit.core.selection import Selection, independent_groups
from ntpaudit.core.sources import NTP_PORT, is_loopback
from ntpaudit.core.wording import direction, plural, span

BOOT_GRACE_NS = 17 * 60 * NS_PER_S
"""A clock that was just started may still be on its way (INTEGRITY, NTPA-05)."""

SPOOFED_DATAGRAMS = 3
"""So many replies with a foreign origin are an attack and no accident (V5, RFC 8633 §5.3)."""

ZONE_STEP_S = 900
"""Time zones differ by multiples of a quarter of an hour."""

_ISO = "ISO/IEC 27001 A.8.17"
_PCI = "PCI DSS 10.6.2"
_AU8 = "NIST SP 800-53 AU-8"
_SC45 = "NIST SP 800-53 SC-45"


class Case(NamedTuple):
    """All that a check may look at."""

    observation: Observation
    selection: Selection
    profile: Profile


Raised = tuple[Level, str] | None


def check_offset_out(case: Case) -> Raised:
    """NTPA-01: the whole interval lies outside the critical tolerance, |offset| - bound > T."""
    agreement = case.selection.agreement
    if agreement is None or case.profile.verdict(agreement.interval) != "beyond":
        return None
    wrong_s = least_s(agreement.interval)
    message = (
        f"the clock is at least {span(wrong_s, rounding='down')} {direction(agreement.estimate_ns)}; "
        f"{span(case.profile.critical_s)} is allowed"
    )
    if wrong_s > 300:
        message += "; beyond 300 s logins by Kerberos and tokens fail too"
    elif wrong_s > 60:
        message += "; beyond 60 s correlation over 5 minutes loses a fifth of its pairs"
    return "critical", message


def check_not_demonstrable(case: Case) -> Raised:
    """NTPA-09: the bound is too wide to prove the tolerance kept, |offset| <= T < |offset| + bound, or broken."""
    agreement = case.selection.agreement
    if agreement is None or case.profile.verdict(agreement.interval) != "unproven":
        return None
    return "medium", (
        f"the clock may be up to {span(bound_s(agreement.interval), rounding='up')} wrong, so a tolerance of "
        f"{span(case.profile.critical_s)} is neither kept nor broken for certain"
    )


def check_source_quorum(case: Case) -> Raised:
    """NTPA-14: too few sources, no majority, a third or more lying, or all of them sharing one fate."""
    usable = case.selection.usable
    falsetickers = [judged.source.name for judged in usable if judged.status == "falseticker"]
    if usable and case.selection.agreement is None:
        return "medium", f"{plural(len(usable), 'source')} answered and no majority of them agrees"
    agreement = case.selection.agreement
    verb = "disagrees" if len(falsetickers) == 1 else "disagree"
    disagreeing = f"{len(falsetickers)} of {plural(len(usable), 'source')} {verb}: {', '.join(falsetickers)}"
    contradicted = agreement is not None and agreement.contradicted
    if falsetickers and (contradicted or 3 * len(falsetickers) >= len(usable)):
        return "medium", disagreeing
    if contradicted:  # more lie than were allowed for, and no overlap is deep enough to say who
        return "medium", f"the {plural(len(usable), 'source')} cannot all be right, and nobody can say which is wrong"
    if own := [judged.source.name for judged in usable if _is_this_host(judged.source)]:
        return "medium", f"{', '.join(own)} is this host itself: it compares the clock with its own daemon"
    if loops := [judged.source.name for judged in usable if judged.reason == "sync-loop"]:
        return "medium", f"{', '.join(loops)} says it follows this host: it would tell the host its own time"
    if len(usable) == 1:
        return "medium", "one source only, a single point of trust: nothing would notice if it were wrong"
    fates = [judged.candidate.fates for judged in usable if judged.candidate]
    if len(usable) > 1 and len(independent_groups(fates)) == 1:
        return "low", "all sources share one network or one upstream server, and so can be wrong together"
    if falsetickers:
        return "low", disagreeing
    if 1 < len(usable) < 4:
        return "low", f"{len(usable)} sources: it takes 4 to outvote one that is wrong (RFC 8633, section 3.2)"
    return None


def check_unsynced(case: Case) -> Raised:
    """NTPA-05: the kernel holds its clock for unsynchronised, and nothing contradicts it (A4, A5)."""
    kernel, daemons = case.observation.kernel, _disciplining(case)
    if isinstance(kernel, Unavailable) or kernel.is_synchronised or _is_booting(case):
        return None
    if any(daemon.name == "chronyd" for daemon in daemons):
        return None  # A5: chronyd clears STA_UNSYNC only when told to steer the RTC
    said = "the kernel says that its clock is not synchronised"
    if isinstance(case.observation.daemons, Unavailable):
        return "medium", f"{said}, and whether a time daemon runs cannot be seen from here"
    by = f"although {', '.join(daemon.name for daemon in daemons)} runs" if daemons else "and no time daemon steers it"
    return "high", f"{said}, {by}: at 50 ppm it is 1 s off in 5.6 h"


def check_daemon_count(case: Case) -> Raised:
    """NTPA-17: none or more than one time daemon disciplines this clock."""
    if isinstance(case.observation.daemons, Unavailable):
        return None
    daemons, kernel = _disciplining(case), case.observation.kernel
    if len(daemons) > 1:
        return "medium", "several time daemons run and fight over the clock: " + ", ".join(
            f"{daemon.name} (pid {daemon.pid})" for daemon in daemons
        )
    if daemons or _is_booting(case):
        return None
    if isinstance(kernel, KernelState) and kernel.is_synchronised:
        return None  # the daemon lives outside this container: somebody keeps the kernel synchronised
    return "medium", "no time daemon steers this clock: nothing corrects it"


def check_tz_or_rtc_fault(case: Case) -> Raised:
    """NTPA-15: the error is a multiple of a quarter of an hour within 15 s, or the hardware clock keeps local time."""
    agreement = case.selection.agreement
    if agreement is not None:
        wrong_s = abs(agreement.estimate_ns) / NS_PER_S
        zones = round(wrong_s / ZONE_STEP_S)
        if abs(wrong_s - ZONE_STEP_S * zones) < 15 and 885 <= wrong_s <= 14 * 3600 + 15:
            return "high", (
                f"the clock is {_quarters(zones)} {direction(agreement.estimate_ns)} almost exactly: "
                "a wrong time zone or a hardware clock in local time, not drift"
            )
    if case.observation.host.rtc_local:
        return "low", "the hardware clock keeps local time: each boot and each change to summer time may be wrong"
    return None


def check_unreachable_sources(case: Case) -> Raised:
    """Some of the sources did not answer at all."""
    silent = [judged for judged in case.selection.sources if judged.status == "unreachable"]
    if not silent:
        return None
    shown = ", ".join(f"{judged.source.name} ({judged.reason})" for judged in silent[:4])
    more = f" and {len(silent) - 4} more" if len(silent) > 4 else ""
    level: Level = "medium" if 2 * len(silent) >= len(case.selection.sources) else "low"
    return level, f"{len(silent)} of {plural(len(case.selection.sources), 'source')} did not answer: {shown}{more}"


def check_kiss_of_death(case: Case) -> Raised:
    """A server asked us to slow down or to go away (K2, K3), or has no time to give (K4)."""
    kissed = [judged for judged in case.selection.sources if judged.reason and judged.reason.startswith("kod:")]
    if not kissed:
        return None
    names = ", ".join(
        f"{judged.source.name} ({judged.reason.removeprefix('kod:')})" for judged in kissed if judged.reason
    )
    if any(judged.reason in ("kod:RATE", "kod:DENY", "kod:RSTR") for judged in kissed):
        return "medium", f"told to slow down or to stay away by {names}"
    return "low", f"answered with a kiss-o'-death instead of a time: {names}"


def check_suspected_spoofing(case: Case) -> Raised:
    """Many replies came that answer none of our requests: somebody is guessing (V5, RFC 8633 §5.3)."""
    forged: Counter[str] = Counter()
    for judged in case.selection.sources:
        forged[judged.source.name] += sum(judged.source.discarded.get(code, 0) for code in ("bogus", "zero-origin"))
    count = forged.total()
    if not count >= SPOOFED_DATAGRAMS:
        return None
    names = ", ".join(name for name, hits in forged.most_common(4) if hits)
    return "high", f"{count} replies answered no request of ours, in the name of {names}"


class Rule(NamedTuple):
    """A check with what is always said of it: the finding's id, the remedy, and the rules that it supports."""

    id: str
    check: Callable[[Case], Raised]
    remedy: str
    controls: tuple[str, ...]


RULES = (
    Rule(
        "offset-out",
        check_offset_out,
        "repair or restart the time daemon and check its sources; keep this record to correct the logs affected",
        (_ISO, _PCI, _AU8, "FINRA 4590", "ETSI EN 319 421"),
    ),
    Rule(
        "not-demonstrable",
        check_not_demonstrable,
        "use nearer servers or more samples, or choose a tolerance that these servers can prove",
        ("FINRA 4590(b)", "RTS 25 Art. 4", "ETSI EN 319 421"),
    ),
    Rule(
        "source-quorum",
        check_source_quorum,
        "name at least 4 servers that do not depend on each other, in two places",
        ("CIS Controls 8.4", "NIST SP 800-53 SC-45(2)", "FedRAMP SC-45"),
    ),
    Rule(
        "unsynced",
        check_unsynced,
        "let exactly one time daemon run, and let it reach its servers on UDP 123",
        (_ISO, _PCI, _AU8, _SC45),
    ),
    Rule(
        "daemon-count",
        check_daemon_count,
        "enable exactly one time daemon and mask the others",
        ("CIS Benchmark 2.3.1.1", "DISA STIG V-270645"),
    ),
    Rule(
        "tz-or-rtc-fault",
        check_tz_or_rtc_fault,
        "run 'timedatectl set-local-rtc 0', check the time zone, then correct the clock",
        (_AU8, "OWASP ASVS 16.2.2"),
    ),
    Rule(
        "unreachable-sources",
        check_unreachable_sources,
        "check names, routes and firewalls (UDP 123 out), or drop servers that are gone",
        (_PCI, "CIS Controls 8.4"),
    ),
    Rule(
        "kiss-of-death",
        check_kiss_of_death,
        "ask less often, or use servers that are meant for you; ntpaudit already keeps away from this one",
        (),
    ),
    Rule(
        "suspected-spoofing",
        check_suspected_spoofing,
        "look at UDP port 123 towards this host; use authenticated time (NTS) where it can be had",
        (_PCI, _SC45),
    ),
)


def findings_of(case: Case) -> tuple[Finding, ...]:
    """Run every rule; the worst finding first, equals in the order of the list."""
    found = [
        Finding(rule.id, LEVEL_SEVERITY[raised[0]], raised[0], raised[1], rule.remedy, rule.controls)
        for rule in RULES
        if (raised := rule.check(case)) is not None
    ]
    order = list(LEVEL_SEVERITY)
    return tuple(sorted(found, key=lambda finding: order.index(finding.level)))


def _disciplining(case: Case) -> tuple[Daemon, ...]:
    """Return the daemons that steer this clock."""
    return tuple(daemon for daemon in case.observation.known_daemons if daemon.disciplines)


def _quarters(count: int) -> str:
    """Write quarters of an hour exactly: 45 min, 12.75 h."""
    return f"{15 * count} min" if count < 8 else f"{count / 4:g} h"


def _is_booting(case: Case) -> bool:
    """The host is up for so short a time that its daemon may still be on its way."""
    return case.observation.taken.boottime_ns < BOOT_GRACE_NS


def _is_this_host(source: SourceObservation) -> bool:
    """The source is this host's own daemon. On loopback only NTP's port is; any other is somebody's test server."""
    address = source.address or ""
    return source.port == NTP_PORT if is_loopback(address) else source.is_own

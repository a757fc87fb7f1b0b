"""Fleets made by hand, for the tests of reports."""

from math import inf, sin

from ntpaudit.core.clock.readings import growth_ns
from ntpaudit.core.fleet.model import (
    Alarm,
    Coverage,
    Fleet,
    FleetFinding,
    Host,
    HostStatus,
    Offset,
    OrderingUncertainty,
    SeverityCounts,
    Site,
    TimeBucket,
)
from ntpaudit.core.policy import Severity, Verdict

S = 1_000_000_000
NOW_NS = 1_760_000_000 * S
HOUR_NS = 3600 * S
PERIOD_S = 86_400.0
SPANS = 96
SPAN_NS = 24 * HOUR_NS // SPANS
SITES = ("amsterdam", "frankfurt", "paris")


def member(
    name: str,
    severity: Severity = Severity.OK,
    estimate_s: float | None = 0.002,
    bound_s: float = 0.012,
    verdict: Verdict = "within",
    site: str | None = None,
    silent_s: float | None = None,
    kinds: tuple[str, ...] = (),
) -> HostStatus:
    """A host whose clock is so far behind, give or take half the interval; `kinds` are alarms raised two hours ago."""
    offset = None if estimate_s is None else Offset(estimate_s, estimate_s - bound_s, estimate_s + bound_s)
    last_ns = NOW_NS - round((silent_s or 20.0) * S)
    host = Host(name, site, None, last_ns, severity, verdict, offset, 1500.0, 12.5, 4, 0, len(kinds))
    alarms = tuple(Alarm(name, kind, severity, NOW_NS - 2 * HOUR_NS, estimate_s) for kind in kinds)
    return HostStatus(name, site, severity, host, silent_s, alarms, seen_s=(NOW_NS - last_ns) / S)


def fleet_of(members: tuple[HostStatus, ...], findings: tuple[FleetFinding, ...] = ()) -> Fleet:
    """Members as a fleet, worst first, its sites and coverage counted."""
    ordered = tuple(sorted(members, key=lambda one: -one.severity))
    names = sorted({one.site for one in members}, key=lambda name: name or "")
    sites = tuple(_site(name, [one for one in ordered if one.site == name]) for name in names)
    measured = sum(one.host is not None and one.host.offset is not None and one.silent_s is None for one in members)
    coverage = Coverage(len(members), measured, max(0, measured - 1), max(0, measured - 3))
    return Fleet(NOW_NS, ordered, findings, coverage, sites, _site(None, ordered))


def _site(name: str | None, members: list[HostStatus] | tuple[HostStatus, ...]) -> Site:
    counts = tuple(sum(one.severity is severity for one in members) for severity in Severity)
    reporting = [one.host for one in members if one.host and one.host.offset and one.silent_s is None]
    ends = [(host.offset, growth_ns(NOW_NS - host.last_ns) / S, host.name) for host in reporting if host.offset]
    ambiguity = None
    if len(ends) > 1:
        latest, first = max((offset.latest_s + growth_s, host) for offset, growth_s, host in ends)
        earliest, second = min((offset.earliest_s - growth_s, host) for offset, growth_s, host in ends)
        ambiguity = OrderingUncertainty(latest - earliest, (first, second))
    return Site(name, counts, ambiguity)  # type: ignore[arg-type]


def small() -> Fleet:
    """24 hosts of three sites, with one of everything that can be wrong."""
    bad = (
        member("db-03", Severity.CRITICAL, 3.2, 0.02, "beyond", SITES[0], kinds=("offset-out", "step-back")),
        member("app-11", Severity.CRITICAL, -3600.4, 0.03, "beyond", SITES[1], kinds=("offset-out", "tz-or-rtc-fault")),
        member("laptop-7", Severity.UNKNOWN, None, verdict="unmeasured", site=SITES[2], kinds=("unreachable-sources",)),
        member("edge-02", Severity.UNKNOWN, 0.004, 0.02, site=SITES[1], silent_s=11_000.0),
        HostStatus("web-99", None, Severity.UNKNOWN, None, inf),
        member("web-04", Severity.WARNING, 0.9, 0.3, "unproven", SITES[2], kinds=("not-demonstrable",)),
        member("web-05", Severity.WARNING, -0.18, 0.02, "within", SITES[0], kinds=("unsynced", "breach-forecast")),
    )
    good = tuple(
        member(f"node-{n:02}", estimate_s=0.03 * sin(n * 1.7) ** 3, bound_s=0.008 + 0.001 * n, site=SITES[n % 3])
        for n in range(17)
    )
    return fleet_of((*bad, *good), findings())


def findings() -> tuple[FleetFinding, ...]:
    """What is wrong with the small fleet as a whole."""
    return (
        FleetFinding(
            "ordering-risk",
            Severity.WARNING,
            "high",
            "events on app-11 and node-04 cannot be ordered unless they are more than 3600.5 s apart",
            "put the hosts of a site on the same sources; fix app-11 first",
            ("ISO 27001 A.8.17", "NIS2 3.2.6"),
            SITES[1],
            None,
            ("app-11", "node-04"),
            3600.5,
        ),
        FleetFinding(
            "evidence-gap",
            Severity.UNKNOWN,
            "medium",
            "2 of 24 hosts are silent: edge-02 for 3.06 h, web-99 never reported",
            "start the agents again, or take the hosts out of the inventory",
            ("NIS2 3.2.6", "PCI DSS 10.7.3"),
            hosts=("edge-02", "web-99"),
        ),
        FleetFinding(
            "shared-falseticker",
            Severity.WARNING,
            "high",
            "192.0.2.66 is called a falseticker by 14 of 19 hosts: it claims to be 820 ms behind",
            "take the source out of every host's configuration",
            ("PCI DSS 10.6.2", "CIS 8.4"),
            source="192.0.2.66",
            hosts=tuple(f"node-{n:02}" for n in range(14)),
            value_s=0.82,
        ),
    )


def host_series(fleet: Fleet, most: int = 50) -> dict[str, tuple[TimeBucket, ...]]:
    """A day of the worst hosts: wander, a gap, and a step where the clock is wrong now."""
    return {one.name: _series(one, seed) for seed, one in enumerate(fleet.members[:most]) if one.host}


def _series(one: HostStatus, seed: int) -> tuple[TimeBucket, ...]:
    offset = one.host.offset if one.host else None
    buckets = []
    for number in range(SPANS):
        begin_ns = NOW_NS - (SPANS - number) * SPAN_NS
        if 20 + seed <= number < 26 + seed or (one.silent_s and begin_ns > NOW_NS - one.silent_s * S):
            continue
        is_now = number >= 60
        estimate_s = (offset.estimate_s if offset and is_now else 0.0) + 0.006 * sin(number / 7 + seed)
        bound_s = 0.012 + 0.004 * (number % 5)
        known = None if offset is None and is_now else Offset(estimate_s, estimate_s - bound_s, estimate_s + bound_s)
        buckets.append(TimeBucket(begin_ns, one.severity if is_now else Severity.OK, known))
    return tuple(buckets)


def tallies(fleet: Fleet) -> tuple[SeverityCounts, ...]:
    """A day of the whole fleet: calm at first, what it is now from its middle on."""
    ok, warning, unknown, critical = fleet.whole.hosts
    reporting = ok + warning + critical
    return tuple(
        SeverityCounts(
            NOW_NS - (SPANS - number) * SPAN_NS,
            (reporting - critical - warning // 2, warning // 2, unknown // 2, critical)
            if number >= 60
            else (reporting + unknown // 2 - number % 3, number % 3, 0, 0),
        )
        for number in range(SPANS)
    )


def large(hosts: int = 10_000) -> Fleet:
    """Many hosts in twelve sites, one in forty of them flagged."""
    kinds = (
        (Severity.CRITICAL, 2.5, "beyond", ("offset-out",)),
        (Severity.WARNING, -0.3, "within", ("unsynced", "source-quorum")),
        (Severity.UNKNOWN, None, "unmeasured", ()),
        (Severity.WARNING, 0.95, "unproven", ("not-demonstrable",)),
    )
    members = []
    for n in range(hosts):
        name, site = f"host-{n:05}.example.net", f"site-{n % 12:02}"
        if n % 40 == 7:
            severity, estimate_s, verdict, raised = kinds[n // 40 % 4]
            grown = None if estimate_s is None else estimate_s * (1 + n / hosts)
            members.append(member(name, severity, grown, 0.02, verdict, site, kinds=raised))  # type: ignore[arg-type]
        else:
            members.append(member(name, estimate_s=0.02 * sin(n) ** 3, bound_s=0.01 + 0.00001 * (n % 999), site=site))
    return fleet_of(tuple(members), findings())

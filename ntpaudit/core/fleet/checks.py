"""The rules about a fleet: one function per finding, and the list of them.

They compare intervals. Each host's true offset lies in its interval; no rule claims more than that.
To add a rule, write a function, an entry in `RULES` and a test. `make docs` writes the documentation from the entry.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ntpaudit.core.checks.finding import LEVEL_SEVERITY, Level
from ntpaudit.core.fleet.clock_shift import MANY, ClockShift, SiteShift, compare, moved_sites
from ntpaudit.core.fleet.members import build_members, by_site, count, cover, is_covered, namesake, rank
from ntpaudit.core.fleet.model import (
    Coverage,
    DuplicateHost,
    Fleet,
    FleetFinding,
    FleetPolicy,
    HostStatus,
    Offset,
    Site,
    Snapshot,
)
from ntpaudit.core.fleet.ordering import Group, ambiguity, as_of, group_of, orderable
from ntpaudit.core.ntp.sources import is_pool_name
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import direction, format_duration, format_offset, plural

DAY_S = 86_400.0
"""A host that has been silent for this long is a gap of level high (NTPA-07)."""

FULL_SHARE = 0.95
"""If fewer of the hosts are measured by two sources, `coverage` has level medium."""

SITE_MOVED_SHARE = 0.1
"""Smallest shift of a site that counts, as a share of the warning tolerance."""

SLOW_WALK_SHARE = 0.02
"""Smallest shift of one host that counts, as a share of the warning tolerance."""

MAX_SLOW_WALKS = 5
"""More slow walks than this at one site become one finding."""

MAX_NAMES_SHOWN = 3
"""How many hosts a message names; the finding's `hosts` has all of them."""

_AU8 = "NIST SP 800-53 AU-8"
_ISO = "ISO/IEC 27001 A.8.17"
_ISO_GUIDE = "ISO/IEC 27002 8.17"
_NIS2 = "NIS2 2024/2690 3.2.6"
_PCI = "PCI DSS 10.6.2"
_SC45 = "NIST SP 800-53 SC-45"


class FleetContext(NamedTuple):
    """The input of every rule.

    `members` are the hosts that count, worst first. `groups` has the measured ones by site. `unlisted` hosts report
    but are not in the inventory. `shifts` are the clocks that moved, `site_shifts` the sites that moved.
    """

    snapshot: Snapshot
    policy: FleetPolicy
    members: tuple[HostStatus, ...]
    by_name: Mapping[str, HostStatus]
    unlisted: tuple[str, ...]
    coverage: Coverage
    groups: Mapping[str | None, Group]
    shifts: Sequence[ClockShift]
    site_shifts: Mapping[str, SiteShift]


class Raised(NamedTuple):
    """What a rule found in one case; the rest of the finding comes from its `Rule`."""

    level: Level
    message: str
    site: str | None = None
    source: str | None = None
    hosts: tuple[str, ...] = ()
    value_s: float | None = None
    remedy: str | None = None


class Rule(NamedTuple):
    """A check with the id of its finding, the fix for cases that name none, and the controls that it supports.

    `raised_when` says for each level (or several, such as "high, low") when the finding has it; `make docs` writes
    docs/findings.md from it. `is_of_each`: the finding makes the clock of every host that it names doubtful.
    """

    id: str
    check: Callable[[FleetContext], Iterable[Raised]]
    remedy: str
    controls: tuple[str, ...]
    raised_when: Mapping[str, str]
    is_of_each: bool = False


def judge_fleet(snapshot: Snapshot, policy: FleetPolicy) -> Fleet:
    """Judge a fleet: hosts and findings come worst first. The order of the input does not matter."""
    members, unlisted = build_members(snapshot, policy)
    groups = {site: group_of(hosts) for site, hosts in by_site(as_of(members, snapshot.now_ns))}
    compared = compare(snapshot, members)
    site_shifts = dict(moved_sites(compared, SITE_MOVED_SHARE * policy.warning_s))
    coverage = cover(_expected(members, unlisted))
    by_name = {one.name: one for one in members}
    context = FleetContext(snapshot, policy, members, by_name, unlisted, coverage, groups, compared.moved, site_shifts)
    sites = tuple(
        Site(site, count(hosts), groups[site].ambiguity if site in groups else None) for site, hosts in by_site(members)
    )
    whole = Site(None, count(members), ambiguity([one for group in groups.values() for one in group.extremes]))
    unlisted_count = None if policy.inventory is None else len(unlisted)
    findings = _findings(context)
    return Fleet(snapshot.now_ns, _suspect(members, findings), findings, coverage, sites, whole, unlisted_count)


def _suspect(members: tuple[HostStatus, ...], findings: Iterable[FleetFinding]) -> tuple[HostStatus, ...]:
    """Mark the hosts whose clocks the findings make doubtful, and put them before others of the same severity."""
    doubting = frozenset(rule.id for rule in RULES if rule.is_of_each)
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for finding in findings:
        if finding.id in doubting and finding.severity > Severity.OK:
            for name in finding.hosts:
                found[name][finding.id] = None
    marked = (one._replace(suspected=tuple(found[one.name])) if one.name in found else one for one in members)
    return tuple(sorted(marked, key=rank))  # a stable sort


def _expected(members: Iterable[HostStatus], unlisted: Iterable[str]) -> Iterator[HostStatus]:
    """Yield the hosts that should report."""
    others = frozenset(unlisted)
    return (one for one in members if one.name not in others)


def _findings(context: FleetContext) -> tuple[FleetFinding, ...]:
    """Run every rule. The worst findings come first; those of one level keep the order of `RULES`."""
    found = [
        FleetFinding(
            rule.id,
            LEVEL_SEVERITY[raised.level],
            raised.level,
            raised.message,
            raised.remedy or rule.remedy,
            rule.controls,
            raised.site,
            raised.source,
            raised.hosts,
            raised.value_s,
        )
        for rule in RULES
        for raised in rule.check(context)
    ]
    levels = list(LEVEL_SEVERITY)
    return tuple(sorted(found, key=lambda finding: levels.index(finding.level)))


def check_ordering_risk(context: FleetContext) -> Iterator[Raised]:
    """NTPA-10: the timestamps of two hosts cannot order events that are further apart than the limit."""
    limit_s = context.policy.ambiguity_s
    orderable_groups: list[Group] = []
    for site, group in context.groups.items():
        named = frozenset[str]()
        for raised in _ordering(context, group, f"Timestamps {'of hosts ' if site is None else ''}{_at(site)}", site):
            named = frozenset(raised.hosts)
            yield raised
        orderable_groups.append(group_of([one for one in group.hosts if one.name not in named]) if named else group)
    rest = group_of([one for group in orderable_groups for one in group.extremes])
    if rest.ambiguity is not None and not rest.ambiguity.within_s <= limit_s:  # though each site alone meets the limit
        everyone = [one for group in orderable_groups for one in group.hosts]
        yield from _ordering(context, rest._replace(hosts=everyone), "Timestamps of hosts at different sites", None)


def check_duplicate_host(context: FleetContext) -> Iterator[Raised]:
    """Several machines report under one name."""
    names = frozenset(one.name for one in context.members)
    for duplicate in sorted(context.snapshot.duplicate_hosts, key=lambda duplicate: duplicate.name):
        if duplicate.name in names:
            message = (
                f"several machines report as {duplicate.name}{_from(duplicate)}: its points come from different clocks"
            )
            yield Raised("high", message, None, None, (duplicate.name,))


def check_time_disputed(context: FleetContext) -> Iterator[Raised]:
    """The timestamps of a host's points and the database's clock contradict each other: one of the two is wrong."""
    disputed = [one for one in context.members if one.disputed_s and one.silent_s is None]
    reporting = sum(one.silent_s is None for one in context.members)
    remedy = _FIX_DATABASE_CLOCK if 2 * len(disputed) > reporting >= MANY else None
    for site, hosts in by_site(disputed):
        for is_ahead in (True, False):
            if group := [one for one in hosts if (one.disputed_s > 0) is is_ahead]:
                worst = max(group, key=lambda one: (abs(one.disputed_s), one.name))
                level: Level = "high" if abs(worst.disputed_s) > context.policy.critical_s else "medium"
                names = _sorted(one.name for one in group)
                yield Raised(level, _disputed(group, worst, site), site, None, names, worst.disputed_s, remedy)


def check_severity_disputed(context: FleetContext) -> Iterator[Raised]:
    """A point reports a better severity than its own interval, tolerance and age prove."""
    disputed = [one for one in context.members if one.contradicted is not None]
    for site, hosts in by_site(disputed):
        worst = max(hosts, key=lambda one: (one.severity, _max_error_s(one), one.name))
        assert worst.contradicted is not None
        level: Level = "high" if worst.severity is Severity.CRITICAL else "medium"
        message = f"{worst.name} reports {worst.contradicted.word}, but {_proved(worst)}"
        if hosts[1:]:
            message = f"{len(hosts)} hosts {_at(site)} report a better severity than their points prove; {message}"
        yield Raised(level, message, site, None, _sorted(one.name for one in hosts))


def _disputed(group: Sequence[HostStatus], worst: HostStatus, site: str | None) -> str:
    way = "ahead of" if worst.disputed_s > 0 else "behind"
    apart = f"{format_duration(worst.disputed_s, rounding='down')} {way} the database's clock"
    if len(group) == 1:
        return f"the timestamps of {worst.name} are {apart}"
    return f"the timestamps of {len(group)} hosts {_at(site)} are up to {apart} ({worst.name})"


def _proved(one: HostStatus) -> str:
    """Describe what the latest point of a host proves, in contrast to its severity."""
    offset = one.host.offset if one.host is not None else None
    if offset is None:
        return "its clock is unknown: its last point has no offset, or one that is more than a day old"
    if one.severity is Severity.CRITICAL:
        return (
            f"its clock is at least {format_duration(_min_error_s(offset), rounding='down')} "
            f"{direction(offset.estimate_s)}"
        )
    return f"its maximum error is {format_duration(_max_error_s(one), rounding='up')}"


def _min_error_s(offset: Offset) -> float:
    return max(offset.earliest_s, -offset.latest_s, 0.0)


def _max_error_s(one: HostStatus) -> float:
    """Return the maximum error of a clock, 0 if it is unknown."""
    offset = one.host.offset if one.host is not None else None
    return 0.0 if offset is None else max(-offset.earliest_s, offset.latest_s)


def check_shared_falseticker(context: FleetContext) -> Iterator[Raised]:
    """Several hosts now reject a source as a falseticker, with much the same error: it is wrong itself, or attacked."""
    hosts = {one.name: one.host for one in context.members if one.silent_s is None and one.host is not None}
    offsets: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
    for report in sorted(
        context.snapshot.falseticker_reports,
        key=lambda report: (report[:2], report.offset_s is not None, report.offset_s or 0.0),
    ):
        if report.host in hosts and _is_one_server(report.source):
            offsets[report.source][report.host] = report.offset_s
    for source, by_host in offsets.items():
        known = {name: offset_s for name, offset_s in by_host.items() if offset_s is not None}
        errors_s = [offset_s - own.estimate_s for name, offset_s in known.items() if (own := hosts[name].offset)]
        if len(by_host) >= MANY and _do_agree(errors_s, context.policy.warning_s):
            message = f"{source} is probably wrong: {_rejected(len(by_host), _median(errors_s))}"
            yield Raised("high", message, None, source, tuple(by_host), _median(known.values()))


def _rejected(hosts: int, error_s: float | None) -> str:
    """Describe how a source differs from the others on those hosts; its error is positive where it is ahead."""
    if error_s is None:
        return f"{hosts} hosts reject it as a falseticker"
    way = "ahead of" if error_s > 0 else "behind"
    return f"on {hosts} hosts it is {format_duration(error_s)} {way} the servers that agree (median)"


def check_site_moved(context: FleetContext) -> Iterator[Raised]:
    """Most hosts of a site moved, and one amount fits all of them: the cause is something that they share."""
    for site, shift in context.site_shifts.items():
        is_back = all(move.is_back for move in shift.moves)
        went = "moved back towards the true time" if is_back else _went(shift.least_s)
        message = (
            f"{len(shift.moves)} of {shift.compared} hosts {_at(site)} {went} within "
            f"{format_duration(max(move.span_s for move in shift.moves), rounding='up')}, each by at least "
            f"{format_duration(shift.least_s, rounding='down')}; "
            f"a common shift of about {format_duration(shift.amount_s)} fits all of them"
        )
        names = _sorted(move.name for move in shift.moves)
        remedy = _FIX_MOVED_BACK if is_back else None
        yield Raised("low" if is_back else "high", message, site, None, names, shift.amount_s, remedy)


def check_slow_walk(context: FleetContext) -> Iterator[Raised]:
    """A clock moves away from the true time, too slowly for its own agent to report it."""
    explained = {move.name for shift in context.site_shifts.values() for move in shift.moves}
    walks = [move for move in context.shifts if move.name not in explained and _is_walk(move, context.policy.warning_s)]
    for site, moves in by_site(walks):
        worst_first = sorted(moves, key=lambda move: (-abs(move.least_s), move.name))
        if len(moves) <= MAX_SLOW_WALKS:
            for move in worst_first:
                yield Raised("medium", _walked(move), site, None, (move.name,), move.least_s)
        else:
            message = f"{len(moves)} hosts {_at(site)} slowly move away from the true time; {_walked(worst_first[0])}"
            yield Raised("medium", message, site, None, _sorted(move.name for move in moves), worst_first[0].least_s)


def check_evidence_gap(context: FleetContext) -> Iterator[Raised]:
    """NTPA-07: hosts without current data (silent, expired, or never reported), and hosts that are not listed."""
    silent = [one for one in context.members if one.host is not None and one.silent_s is not None]
    for site, gaps in by_site(silent):
        for level in _GAP_LEVELS:
            if group := [one for one in gaps if _gap_level(one) == level]:
                yield _silence(group, site, level)._replace(remedy=_retire(_FIX_SILENT, context.policy))
    without_data = [one for one in context.members if one.host is None]
    for site, group in by_site(without_data):
        if expired := _sorted(one.name for one in group if one.is_expired):
            verb = "is in the database but has" if len(expired) == 1 else "are in the database but have"
            message = f"{_listed(expired)} {verb} no point in the last {format_duration(context.snapshot.look_back_s)}"
            yield Raised("high", message, site, None, expired, remedy=_retire(_FIX_EXPIRED, context.policy))
        if never := _sorted(one.name for one in group if not one.is_expired):
            yield _never(never, site, context.unlisted)
    if context.unlisted:
        verb = "reports but is" if len(context.unlisted) == 1 else "report but are"
        message = f"{_listed(context.unlisted)} {verb} not in the inventory"
        yield Raised("low", message, hosts=context.unlisted, remedy=_FIX_UNLISTED)
    yield from _misplaced(context)


def check_coverage(context: FleetContext) -> Iterator[Raised]:
    """Too few hosts are measured by two synchronised sources (CIS Controls 8.4); three are counted too (v7 6.1)."""
    hosts, measured, by_two, by_three = context.coverage
    if by_two == hosts:
        return
    listed = "" if context.policy.inventory is None else " in the inventory"
    message = (
        f"{measured} of {plural(hosts, 'host')}{listed} are measured ({share(measured, hosts)}); {by_two} by two or "
        f"more sources ({share(by_two, hosts)}), {by_three} by three or more ({share(by_three, hosts)})"
    )
    short = _sorted(one.name for one in _expected(context.members, context.unlisted) if not is_covered(one))
    yield Raised("low" if by_two >= FULL_SHARE * hosts else "medium", message, hosts=short)


_FIX_DATABASE_CLOCK = (
    "check the clock of the database's host first (run `ntpaudit check` there), because most hosts contradict it; then "
    "check the NTP servers"
)
_FIX_SILENT = "check the agent (systemctl status ntpaudit on the host) and the network path to the database"
_FIX_EXPIRED = "check whether the host still exists, then check its agent; --look-back searches further back"
_FIX_NEVER_REPORTED = (
    "install the agent there and let it deliver, or correct the name in the inventory: names are compared exactly"
)
_FIX_UNLISTED = "add your own hosts to the inventory; find out who runs the others"
_FIX_WRONG_SITE = "correct the site in the inventory, or host.site in the configuration of the host"

_FIX_MOVED_BACK = "it is over: find what these hosts share and what moved them; correct the logs of that time"

RULES = (
    Rule(
        "duplicate-host",
        check_duplicate_host,
        "give each of these machines its own name: host.name in its configuration",
        (_ISO, _NIS2),
        raised_when={
            "high": (
                "several machines report under one name at the same time. The host gets the worst of their severities, "
                "and its clock is not compared with that of an hour ago"
            ),
        },
        is_of_each=True,
    ),
    Rule(
        "time-disputed",
        check_time_disputed,
        "check the NTP servers of these hosts: compare them with independent servers",
        (_ISO, _PCI, _SC45),
        raised_when={
            "high": (
                "the timestamps of a host and the database's clock differ by more than the critical tolerance. Either "
                "the host's agent found this in the `Date` of the database's replies, or a point is stamped more than "
                "a minute ahead of now. One finding per site and direction. `value_s` is the largest difference, "
                "positive where the timestamps are ahead. Such a host is at least `warning`, its interval is widened "
                "so that either clock may be right, and it is not compared with an hour ago"
            ),
            "medium": "the same, by at most the critical tolerance",
        },
        is_of_each=True,
    ),
    Rule(
        "severity-disputed",
        check_severity_disputed,
        "run `ntpaudit status` on the host; if it agrees with this finding, find out what else writes points for it",
        (_ISO, _AU8),
        raised_when={
            "high": (
                "the severity in a host's latest point is better than its own interval proves, which is critical by "
                "the point's tolerance (or the fleet's, if the point has none). The host counts as critical. A point "
                "that its agent has not confirmed yet (`confirmed` is 0) is not disputed. One finding per site"
            ),
            "medium": (
                "the same, but the interval proves a warning, or nothing: the point has no offset, or one that is "
                "more than a day old"
            ),
        },
        is_of_each=True,
    ),
    Rule(
        "ordering-risk",
        check_ordering_risk,
        "give these hosts the same nearby sources; correct logs by each host's recorded offset before you order events",
        (_ISO, _NIS2),
        raised_when={
            "high": (
                "timestamps of two hosts at a site cannot order events that are `fleet.ambiguity` apart: the latest "
                "true offset of one host minus the earliest of the other is larger. `value_s` is that difference. The "
                "finding names the smallest set of hosts without which the others meet the limit; of several such "
                "sets, the one whose clocks are wrong. Hosts at different sites give one more finding, if it holds "
                "without the hosts already named. Each host's last interval is widened by 50 ppm (`max_drift_ppm` if "
                "larger) of its age; a step since then is not covered"
            ),
        },
    ),
    Rule(
        "shared-falseticker",
        check_shared_falseticker,
        "check whether this server is broken or compromised; remove it from the configuration until it is repaired",
        (_ISO, _PCI, _SC45),
        raised_when={
            "high": (
                "a source is a falseticker on three or more hosts that report now, and more than half of them show "
                "the same error of it, within the warning tolerance. The error is the offset by this source minus the "
                "host's own estimate; hosts without it do not count here. A place in a pool (`ZONE/2`, any name of the "
                "NTP pool) is a different server on each host and never counts. `value_s` is the median of the offsets "
                "by this source"
            ),
        },
    ),
    Rule(
        "site-moved",
        check_site_moved,
        "check what these hosts share: their servers, their network, the machines that they run on",
        (_ISO, _PCI, _SC45),
        raised_when={
            "high": (
                "three or more hosts of a site were measured now and `--before` (1 h) ago, and more than half of them "
                "certainly moved: each by at least a tenth of the warning tolerance, and one amount fits all. The "
                "message has the shift proved for each host, and the smallest amount that fits all. This amount is "
                "`value_s`, positive where the hosts fell behind. Hosts without a site are not compared"
            ),
            "low": "the same, but each of these hosts is certainly closer to the true time than before",
        },
        is_of_each=True,
    ),
    Rule(
        "slow-walk",
        check_slow_walk,
        "compare the host's time daemon and its servers with those of hosts that did not move",
        (_ISO, _ISO_GUIDE, _SC45),
        raised_when={
            "medium": (
                "a host certainly moved since `--before`, by a fiftieth of the warning tolerance or more, and "
                "certainly away from the true time (its smallest possible error now exceeds its maximum error then). "
                "Its estimate is still within that tolerance, its agent reports ok or warning, its drift (if known) "
                "continues in that direction, it did not step, and its site did not move. One finding per host, up to "
                "five at a site; otherwise one for the site"
            ),
        },
        is_of_each=True,
    ),
    Rule(
        "evidence-gap",
        check_evidence_gap,
        _FIX_SILENT,
        (_NIS2, "PCI DSS 10.7.3", "SOC 2 CC7"),
        raised_when={
            "high": (
                "hosts have been silent for a day; or the database knows them but has no point of them within "
                "`--look-back`; or the inventory lists them and they never reported"
            ),
            "medium": "hosts have been silent for `fleet.silent_after`",
            "low": "a host that reports is not in the inventory, or the inventory lists it at another site",
        },
    ),
    Rule(
        "coverage",
        check_coverage,
        "configure at least two sources, better four, on every host that should report",
        ("CIS Controls 8.4", "CIS Controls v7 6.1", _NIS2),
        raised_when={
            "medium": (
                "less than 95 % of the hosts that should report are measured by two usable sources that agree (CIS "
                "Controls 8.4). The message also counts those with three sources (CIS Controls v7 6.1). Percentages "
                "are rounded down"
            ),
            "low": "at least 95 % are, but not all",
        },
    ),
)
"""Findings of one level are listed in this order."""


def share(count: int, total: int) -> str:
    """Write a share in per cent, rounded down: only a complete count is 100 %."""
    return f"{1000 * count // total / 10:g} %" if total else "0 %"


def _from(duplicate: DuplicateHost) -> str:
    sites = _sorted({site for site in duplicate.sites if site is not None})
    return f" from {' and '.join(sites)}" if sites else ""


def _is_one_server(source: str) -> bool:
    """Whether a source is the same server on every host; a place in a pool is not."""
    zone, _, slot = source.rpartition("/")
    return not (slot.isdecimal() and zone) and not is_pool_name(source)


def _do_agree(errors_s: Sequence[float], within_s: float) -> bool:
    """Whether more than half of the errors lie within `within_s`. True if none is known: then none contradicts."""
    ordered = sorted(errors_s)
    most = len(ordered) // 2
    return not ordered or any(
        last_s - first_s <= within_s for first_s, last_s in zip(ordered, ordered[most:], strict=False)
    )


def _is_walk(move: ClockShift, warning_s: float) -> bool:
    """Whether a clock certainly moves away and goes on, unnoticed by its own agent, and did not step."""
    least_s, rate_ppm = move.least_s, move.host.frequency_ppm
    if not abs(least_s) >= SLOW_WALK_SHARE * warning_s:  # true of nearly all hosts
        return False
    goes_on = rate_ppm is None or rate_ppm * least_s > 0
    is_hidden = abs(move.now.estimate_s) <= warning_s and move.member.severity <= Severity.WARNING
    return move.is_away and is_hidden and goes_on and not move.stepped


def _walked(move: ClockShift) -> str:
    return (
        f"{move.name} {_went(move.least_s)} by at least {format_duration(move.least_s, rounding='down')} within "
        f"{format_duration(move.span_s, rounding='up')}, away from the true time and without a step; it is now "
        f"{format_offset(move.now.estimate_s)}, and its own agent reports {move.member.severity.word}"
    )


_GAP_LEVELS: tuple[Level, ...] = ("high", "medium")


def _gap_level(one: HostStatus) -> Level:
    return "high" if one.silent_s is not None and one.silent_s >= DAY_S else "medium"


def _silence(group: Sequence[HostStatus], site: str | None, level: Level) -> Raised:
    longest = max(group, key=lambda one: (one.silent_s or 0.0, one.name))
    silent_s = longest.silent_s or 0.0
    names = _sorted(one.name for one in group)
    if len(group) == 1:
        message = f"{longest.name} has been silent for {format_duration(silent_s)}; its clock is unknown since then"
    else:
        message = (
            f"{len(group)} hosts {_at(site)} are silent, {longest.name} for {format_duration(silent_s)}; their clocks "
            "are unknown since then"
        )
    return Raised(level, message, site, None, names, silent_s)


def _retire(remedy: str, policy: FleetPolicy) -> str:
    """Add what to do about a host that no longer exists."""
    if policy.inventory is None:
        return f"{remedy}; if the host is retired, use an inventory that does not list it (--inventory)"
    return f"{remedy}; if the host is retired, remove it from the inventory"


def _never(names: tuple[str, ...], site: str | None, unlisted: Sequence[str]) -> Raised:
    """Report hosts that never reported, with unlisted hosts of nearly the same name."""
    near = {name: other for name in names if (other := namesake(name, unlisted)) is not None}
    verb = "is in the inventory but has" if len(names) == 1 else "are in the inventory but have"
    message = f"{_listed(names)} {verb} never reported"
    if len(names) == 1 and near:
        message += f"; did you mean {near[names[0]]}?"
    elif near:
        few = [f"{other} for {name}" for name, other in near.items()]
        message += f"; did you mean {_listed(few)}?"
    return Raised("high", message, site, None, names, remedy=_FIX_NEVER_REPORTED)


def _misplaced(context: FleetContext) -> Iterator[Raised]:
    """Report hosts that the inventory lists at another site."""
    listed = frozenset(context.policy.inventory or ())
    sites = context.policy.sites
    misplaced = {
        one.name: f"{one.name} reports from {one.host.site}, but the inventory lists it at {sites[one.name]}"
        for one in context.members
        if one.host is not None and one.host.site is not None and one.silent_s is None and one.name in listed
        if sites.get(one.name, one.host.site) != one.host.site
    }
    if misplaced:
        names = _sorted(misplaced)
        shown = "; ".join(misplaced[name] for name in names[:MAX_NAMES_SHOWN])
        more = f"; and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
        yield Raised("low", f"{shown}{more}", hosts=names, remedy=_FIX_WRONG_SITE)


def _ordering(context: FleetContext, group: Group, subject: str, site: str | None) -> Iterator[Raised]:
    """Report hosts whose events cannot be ordered within the limit, and what holds without them."""
    worst, limit_s = group.ambiguity, context.policy.ambiguity_s
    if worst is None or worst.within_s <= limit_s:
        return
    kept = orderable(group.hosts, limit_s)
    rest = ambiguity([one for one in group.hosts if one.name in kept])
    named = _sorted(one.name for one in group.hosts if one.name not in kept)
    message = (
        f"{subject} cannot order events less than {format_duration(worst.within_s, rounding='up')} apart "
        f"(limit {format_duration(limit_s)}). "
    )
    if rest is not None:
        those = "it" if len(named) == 1 else "them"
        message += f"Cause: {_listed(named)}; without {those} {format_duration(rest.within_s, rounding='up')}"
    else:
        offsets = {one.name: one.offset for one in group.hosts if one.name in worst.hosts}
        message += "Cause: " + " and ".join(f"{name} ({_offset_and_error(offsets[name])})" for name in worst.hosts)
    yield Raised("high", message, site, None, named, worst.within_s, _ordering_fix(context, named))


def _offset_and_error(offset: Offset) -> str:
    """Return an offset, or the maximum error where most of it is the interval's width."""
    error_s = max(abs(offset.earliest_s), abs(offset.latest_s))
    if error_s > 2 * abs(offset.estimate_s):
        return f"maximum error {format_duration(error_s, rounding='up')}"
    return format_offset(offset.estimate_s)


def _ordering_fix(context: FleetContext, named: Sequence[str]) -> str | None:
    """Return the fix where clocks are wrong; None where the intervals are only too wide."""
    wrong = {name: one for name in named if _is_off(one := context.by_name[name], context.policy.warning_s)}
    if not wrong:
        return None
    kinds = dict.fromkeys(
        alarm.kind for name in _sorted(wrong) for alarm in wrong[name].alarms[:1] if alarm.severity > Severity.OK
    )
    why = f" ({', '.join(list(kinds)[:MAX_NAMES_SHOWN])})" if kinds else ""
    clocks = "the clock" if len(wrong) == 1 else "the clocks"
    return (
        f"fix {clocks} of {_listed(_sorted(wrong))} first{why}; correct logs by each host's recorded offset before "
        "you order events"
    )


def _is_off(one: HostStatus, warning_s: float) -> bool:
    """Whether a clock is wrong by its own agent's severity or by the tolerance."""
    offset = one.host.offset if one.host is not None else None
    return one.severity is Severity.CRITICAL or (offset is not None and not abs(offset.estimate_s) <= warning_s)


def _median(values: Iterable[float]) -> float | None:
    """Return the median, None if there are no values."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return (ordered[last // 2] + ordered[(last + 1) // 2]) / 2 if ordered else None


def _at(site: str | None) -> str:
    return "without a site" if site is None else f"at {site}"


def _went(movement_s: float) -> str:
    return "fell behind" if movement_s > 0 else "ran ahead"


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def _listed(names: Sequence[str]) -> str:
    """Name a few hosts, and count the others."""
    if len(names) > MAX_NAMES_SHOWN + 1:
        return f"{', '.join(names[:MAX_NAMES_SHOWN])} and {len(names) - MAX_NAMES_SHOWN} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))

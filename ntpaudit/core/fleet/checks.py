"""Every rule about a fleet, one small function each, and the list of them.

All of it is interval arithmetic: every host's true offset lies in its interval, and no more than that is claimed.
Adding a rule: a function, an entry in `RULES`, a test, and `make docs`, which writes its documentation from the entry.
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
"""A host that is silent for so long is a gap of level high (NTPA-07)."""

FULL_SHARE = 0.95
"""Below this share of the hosts, measured or by two sources, the coverage itself is a finding of level medium."""

SITE_MOVED_SHARE = 0.1
"""A site's movement counts from this share of the warning tolerance on."""

SLOW_WALK_SHARE = 0.02
"""A host's movement counts from this share of the warning tolerance on."""

SLOW_WALKS_TOLD = 5
"""More slow walks at one site are told as one finding."""

NAMES_TOLD = 3
"""So many hosts are named in a message; all of them are in the finding's `hosts`."""

_AU8 = "NIST SP 800-53 AU-8"
_ISO = "ISO/IEC 27001 A.8.17"
_ISO_GUIDE = "ISO/IEC 27002 8.17"
_NIS2 = "NIS2 2024/2690 3.2.6"
_PCI = "PCI DSS 10.6.2"
_SC45 = "NIST SP 800-53 SC-45"


class FleetContext(NamedTuple):
    """All that a rule may look at: the hosts that count, in order, the measured of them by site, and those that moved.

    `strangers` report, and are not in the inventory. `together` has the sites that moved.
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
    """What a rule found, without what is always said of it."""

    level: Level
    message: str
    site: str | None = None
    source: str | None = None
    hosts: tuple[str, ...] = ()
    value_s: float | None = None
    remedy: str | None = None


class Rule(NamedTuple):
    """A check with the finding's id, the remedy where the check names none, and the rules that it supports.

    `raised_when` says for each level, or for several such as "high, low", when the finding has it: docs/findings.md is
    written from it (`make docs`). What `is_of_each` says of every host that it names that this very clock is doubtful.
    """

    id: str
    check: Callable[[FleetContext], Iterable[Raised]]
    remedy: str
    controls: tuple[str, ...]
    raised_when: Mapping[str, str]
    is_of_each: bool = False


def judge_fleet(snapshot: Snapshot, policy: FleetPolicy) -> Fleet:
    """Judge a fleet: its hosts worst first, its findings worst first. The order of what was read never matters."""
    members, strangers = build_members(snapshot, policy)
    groups = {site: group_of(hosts) for site, hosts in by_site(as_of(members, snapshot.now_ns))}
    compared = compare(snapshot, members)
    together = dict(moved_sites(compared, SITE_MOVED_SHARE * policy.warning_s))
    coverage = cover(_due(members, strangers))
    by_name = {one.name: one for one in members}
    scene = FleetContext(snapshot, policy, members, by_name, strangers, coverage, groups, compared.moved, together)
    sites = tuple(
        Site(site, count(hosts), groups[site].ambiguity if site in groups else None) for site, hosts in by_site(members)
    )
    whole = Site(None, count(members), ambiguity([one for group in groups.values() for one in group.extremes]))
    unlisted = None if policy.inventory is None else len(strangers)
    findings = _findings(scene)
    return Fleet(snapshot.now_ns, _suspect(members, findings), findings, coverage, sites, whole, unlisted)


def _suspect(members: tuple[HostStatus, ...], findings: Iterable[FleetFinding]) -> tuple[HostStatus, ...]:
    """Mark the hosts whose clocks are doubtful by what the fleet shows; they come before others that are as bad."""
    told = frozenset(rule.id for rule in RULES if rule.is_of_each)
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for finding in findings:
        if finding.id in told and finding.severity > Severity.OK:
            for name in finding.hosts:
                found[name][finding.id] = None
    marked = (one._replace(suspected=tuple(found[one.name])) if one.name in found else one for one in members)
    return tuple(sorted(marked, key=rank))  # among equals it keeps the order that they are in


def _due(members: Iterable[HostStatus], strangers: Iterable[str]) -> Iterator[HostStatus]:
    """Yield the hosts that should report."""
    others = frozenset(strangers)
    return (one for one in members if one.name not in others)


def _findings(scene: FleetContext) -> tuple[FleetFinding, ...]:
    """Run every rule; the worst finding first, equals in the order of the list."""
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
        for raised in rule.check(scene)
    ]
    levels = list(LEVEL_SEVERITY)
    return tuple(sorted(found, key=lambda finding: levels.index(finding.level)))


def check_ordering_risk(scene: FleetContext) -> Iterator[Raised]:
    """NTPA-10: events on hosts of one site, or of several, can be too far apart and still not be orderable."""
    limit_s = scene.policy.ambiguity_s
    calm: list[Group] = []
    for site, group in scene.groups.items():
        named = frozenset[str]()
        for raised in _ordering(scene, group, f"hosts {_at(site)}", site):
            named = frozenset(raised.hosts)
            yield raised
        calm.append(group_of([one for one in group.hosts if one.name not in named]) if named else group)
    rest = group_of([one for group in calm for one in group.extremes])
    if rest.ambiguity is not None and not rest.ambiguity.within_s <= limit_s:  # of different sites: each is calm
        everyone = [one for group in calm for one in group.hosts]
        yield from _ordering(scene, rest._replace(hosts=everyone), "hosts of different sites", None)


def check_duplicate_host(scene: FleetContext) -> Iterator[Raised]:
    """Several machines report under one name."""
    names = frozenset(one.name for one in scene.members)
    for duplicate in sorted(scene.snapshot.duplicate_hosts, key=lambda duplicate: duplicate.name):
        if duplicate.name in names:
            message = (
                f"several machines report as {duplicate.name}{_from(duplicate)}: nothing said of it is of one clock"
            )
            yield Raised("high", message, None, None, (duplicate.name,))


def check_time_disputed(scene: FleetContext) -> Iterator[Raised]:
    """The time that a host's points carry and the database's clock contradict each other: one of the two is wrong."""
    disputed = [one for one in scene.members if one.disputed_s and one.silent_s is None]
    reporting = sum(one.silent_s is None for one in scene.members)
    remedy = _CHECK_DATABASE if 2 * len(disputed) > reporting >= MANY else None
    for site, hosts in by_site(disputed):
        for is_ahead in (True, False):
            if group := [one for one in hosts if (one.disputed_s > 0) is is_ahead]:
                worst = max(group, key=lambda one: (abs(one.disputed_s), one.name))
                level: Level = "high" if abs(worst.disputed_s) > scene.policy.critical_s else "medium"
                names = _sorted(one.name for one in group)
                yield Raised(level, _disputed(group, worst, site), site, None, names, worst.disputed_s, remedy)


def check_severity_disputed(scene: FleetContext) -> Iterator[Raised]:
    """A point says that a clock is better than its own interval, tolerance and age prove."""
    disputed = [one for one in scene.members if one.contradicted is not None]
    for site, hosts in by_site(disputed):
        worst = max(hosts, key=lambda one: (one.severity, _most_s(one), one.name))
        assert worst.contradicted is not None
        level: Level = "high" if worst.severity is Severity.CRITICAL else "medium"
        said = f"{worst.name} reports {worst.contradicted.word}, but {_proved(worst)}"
        if hosts[1:]:
            said = f"{len(hosts)} hosts {_at(site)} report less than their own measurements prove; {said}"
        yield Raised(level, said, site, None, _sorted(one.name for one in hosts))


def _disputed(group: Sequence[HostStatus], worst: HostStatus, site: str | None) -> str:
    """Say by how much time stamps and the database's clock differ."""
    way = "ahead of" if worst.disputed_s > 0 else "behind"
    apart = f"{format_duration(worst.disputed_s, rounding='down')} {way} the database's clock"
    if len(group) == 1:
        return f"the time in the points of {worst.name} is {apart}"
    return f"the time in the points of {len(group)} hosts {_at(site)} is up to {apart} ({worst.name})"


def _proved(one: HostStatus) -> str:
    """Say what the latest point of a host proves against its own severity."""
    offset = one.host.offset if one.host is not None else None
    if offset is None:
        return "its point has no offset, or one from more than a day ago: its clock is not known"
    if one.severity is Severity.CRITICAL:
        return (
            f"its clock is at least {format_duration(_least_s(offset), rounding='down')} {direction(offset.estimate_s)}"
        )
    return f"its clock may be up to {format_duration(_most_s(one), rounding='up')} wrong"


def _least_s(offset: Offset) -> float:
    """Return how wrong a clock is at least."""
    return max(offset.earliest_s, -offset.latest_s, 0.0)


def _most_s(one: HostStatus) -> float:
    """Return how wrong a clock is at most, 0 where that is not known."""
    offset = one.host.offset if one.host is not None else None
    return 0.0 if offset is None else max(-offset.earliest_s, offset.latest_s)


def check_shared_falseticker(scene: FleetContext) -> Iterator[Raised]:
    """A source that several hosts call a falseticker now, for much the same error, is itself wrong, or is attacked."""
    hosts = {one.name: one.host for one in scene.members if one.silent_s is None and one.host is not None}
    claims: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
    for lie in sorted(
        scene.snapshot.falseticker_reports, key=lambda lie: (lie[:2], lie.offset_s is not None, lie.offset_s or 0.0)
    ):
        if lie.host in hosts and _is_one_server(lie.source):
            claims[lie.source][lie.host] = lie.offset_s
    for source, claimed in claims.items():
        told = {name: offset_s for name, offset_s in claimed.items() if offset_s is not None}
        errors_s = [said_s - offset.estimate_s for name, said_s in told.items() if (offset := hosts[name].offset)]
        if len(claimed) >= MANY and _do_agree(errors_s, scene.policy.warning_s):
            middle_s = _median(told.values())
            said = "" if middle_s is None else f": it says that they are {format_offset(middle_s)} (median)"
            message = f"the other sources of {len(claimed)} hosts contradict {source}{said}"
            yield Raised("high", message, None, source, tuple(claimed), middle_s)


def check_site_moved(scene: FleetContext) -> Iterator[Raised]:
    """Most hosts of a site have moved, and may have by one and the same amount: what they have in common did it."""
    for site, together in scene.site_shifts.items():
        is_back = all(move.is_back for move in together.moves)
        went = "came back towards the true time" if is_back else _went(together.least_s)
        message = (
            f"{len(together.moves)} of {together.compared} hosts {_at(site)} {went} within "
            f"{format_duration(max(move.span_s for move in together.moves), rounding='up')}, each by at least "
            f"{format_duration(together.least_s, rounding='down')} and perhaps all by one amount, some "
            f"{format_duration(together.amount_s)}"
        )
        names = _sorted(move.name for move in together.moves)
        remedy = _SEE_BACK if is_back else None
        yield Raised("low" if is_back else "high", message, site, None, names, together.amount_s, remedy)


def check_slow_walk(scene: FleetContext) -> Iterator[Raised]:
    """A clock is led away from the true time, so slowly that its own agent does not tell of it."""
    explained = {move.name for together in scene.site_shifts.values() for move in together.moves}
    walks = [move for move in scene.shifts if move.name not in explained and _is_walk(move, scene.policy.warning_s)]
    for site, moves in by_site(walks):
        worst_first = sorted(moves, key=lambda move: (-abs(move.least_s), move.name))
        if len(moves) <= SLOW_WALKS_TOLD:
            for move in worst_first:
                yield Raised("medium", _walked(move), site, None, (move.name,), move.least_s)
        else:
            message = f"{len(moves)} hosts {_at(site)} are led away; most of all {_walked(worst_first[0])}"
            yield Raised("medium", message, site, None, _sorted(move.name for move in moves), worst_first[0].least_s)


def check_evidence_gap(scene: FleetContext) -> Iterator[Raised]:
    """NTPA-07: hosts of which nothing is known now: silent, forgotten or never heard of; and hosts nobody listed."""
    silent = [one for one in scene.members if one.host is not None and one.silent_s is not None]
    for site, gaps in by_site(silent):
        for level in _GAP_LEVELS:
            if group := [one for one in gaps if _gap_level(one) == level]:
                yield _silence(group, site, level)._replace(remedy=_retire(_MEND_AGENT, scene.policy))
    unheard = [one for one in scene.members if one.host is None]
    for site, group in by_site(unheard):
        if forgotten := _sorted(one.name for one in group if one.is_expired):
            verb = "is known to the database and has" if len(forgotten) == 1 else "are known to the database and have"
            said = f"{_listed(forgotten)} {verb} no point in the last {format_duration(scene.snapshot.look_back_s)}"
            yield Raised("high", said, site, None, forgotten, remedy=_retire(_MEND_LONG_SILENT, scene.policy))
        if never := _sorted(one.name for one in group if not one.is_expired):
            yield _never(never, site, scene.unlisted)
    if scene.unlisted:
        verb = "reports but is" if len(scene.unlisted) == 1 else "report but are"
        said = f"{_listed(scene.unlisted)} {verb} not in the inventory"
        yield Raised("low", said, hosts=scene.unlisted, remedy=_MEND_INVENTORY)
    yield from _misplaced(scene)


def check_coverage(scene: FleetContext) -> Iterator[Raised]:
    """Too few hosts are measured, by two synchronised sources (CIS Controls 8.4) or three (v7 6.1)."""
    hosts, measured, by_two, by_three = scene.coverage
    if by_two == hosts:
        return
    those = plural(hosts, "host") if scene.policy.inventory is None else f"{plural(hosts, 'host')} in the inventory"
    message = (
        f"of {those} {share(measured, hosts)} are measured, {share(by_two, hosts)} by two sources or more, "
        f"{share(by_three, hosts)} by three or more"
    )
    short = _sorted(one.name for one in _due(scene.members, scene.unlisted) if not is_covered(one))
    yield Raised("low" if by_two >= FULL_SHARE * hosts else "medium", message, hosts=short)


_CHECK_DATABASE = (
    "check the clock of the database's host first, with `ntpaudit check` there: most hosts contradict it; then check "
    "the NTP servers"
)
_MEND_AGENT = (
    "see why the agent is silent (systemctl status ntpaudit on the host), or what is between it and the database"
)
_MEND_LONG_SILENT = "see whether the host is still there, and then why its agent is silent; --look-back looks further"
_MEND_ABSENT = (
    "install the agent there and let it deliver, or mend the name in the inventory: it is compared as written"
)
_MEND_INVENTORY = "add what belongs to you to the inventory, and see who delivers the rest"
_MEND_PLACE = "mend the site in the inventory, or host.site in the configuration of the host"

_SEE_BACK = "it is over: see what these hosts share, and what led them away and back; correct logs of that time"

RULES = (
    Rule(
        "duplicate-host",
        check_duplicate_host,
        "give each of these machines a name of its own: host.name in its configuration",
        (_ISO, _NIS2),
        raised_when={
            "high": (
                "several machines report under one name at the same time. The host then has the worst severity of "
                "them, and its clock is not compared with that of an hour ago"
            ),
        },
        is_of_each=True,
    ),
    Rule(
        "time-disputed",
        check_time_disputed,
        "check the NTP servers of these hosts: compare them with servers that do not depend on them",
        (_ISO, _PCI, _SC45),
        raised_when={
            "high": (
                "the time in a host's points and the database's clock differ by more than the critical tolerance: the "
                "host's agent learnt so from the `Date` of the database's answers, or a point is stamped more than a "
                "minute ahead of now. One finding for each site and direction. `value_s` is the largest difference, "
                "positive where the points are ahead. These hosts are at least `warning`, their intervals count for "
                "the order of events as if either clock may be right, and they are not compared with an hour ago"
            ),
            "medium": "the same, by less",
        },
        is_of_each=True,
    ),
    Rule(
        "severity-disputed",
        check_severity_disputed,
        "look at the host with `ntpaudit status`; if it says the same as this, find out who else writes its points",
        (_ISO, _AU8),
        raised_when={
            "high": (
                "the severity in a host's latest point is better than its own interval proves: critical by its own "
                "tolerance (the fleet's, where the point has none). The host counts as what is proved. What its agent "
                "has not confirmed yet (`confirmed` is 0) is not disputed. One finding for each site"
            ),
            "medium": (
                "the same, where a warning is proved, or where nothing is: the point has no offset, or one that is "
                "more than a day old"
            ),
        },
        is_of_each=True,
    ),
    Rule(
        "ordering-risk",
        check_ordering_risk,
        "give these hosts the same sources, and sources that are near; correct logs by each host's recorded offset "
        "before you order events",
        (_ISO, _NIS2),
        raised_when={
            "high": (
                "two events on different hosts of a site must be further apart than `fleet.ambiguity` for their "
                "timestamps to show their order: the latest true offset of one host minus the earliest of the other "
                "is larger. The finding names the fewest hosts without which the intervals of the others lie that "
                "close together; of several such sets, the one whose clocks are wrong. Between sites it is one "
                "finding, if it holds without the hosts that a site's finding names. `value_s` is how far apart. The "
                "hosts' last intervals are widened by 50 ppm of their points' age, or by `max_drift_ppm` where it is "
                "more; a step since the last point is not covered"
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
                "for three or more hosts that report now, a source is a falseticker, and more than half of the known "
                "claims show the same error of it within the warning tolerance: its claim about a host minus that "
                "host's own estimate. A place in a pool (`ZONE/2`, any name of the NTP pool) is a different server on "
                "each host and does not count. `value_s` is the median of its claims"
            ),
        },
    ),
    Rule(
        "site-moved",
        check_site_moved,
        "look at what these hosts share: their servers, their network, the machines that they run on",
        (_ISO, _PCI, _SC45),
        raised_when={
            "high": (
                "three or more hosts of a site were measured now and `--before` (1 h) ago, and more than half have "
                "moved for certain: each by at least a tenth of the warning tolerance, and perhaps all by one amount. "
                "The message says what is proved of each, and the least amount that fits all; this is `value_s`, "
                "positive where they fell behind. Hosts without a site are not compared"
            ),
            "low": "the same, and each of these hosts is for certain nearer to the true time than before",
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
                "a host moved for certain since `--before`, by a fiftieth of the warning tolerance or more, and for "
                "certain away from the true time (its least error now is larger than its greatest error then). Its "
                "estimate is still within that tolerance, its own agent says ok or warning, its drift (where known) "
                "continues in that direction, it did not step, and its site did not move. One finding for each host, "
                "up to five at a site, else one for the site"
            ),
        },
        is_of_each=True,
    ),
    Rule(
        "evidence-gap",
        check_evidence_gap,
        _MEND_AGENT,
        (_NIS2, "PCI DSS 10.7.3", "SOC 2 CC7"),
        raised_when={
            "high": (
                "hosts have been silent for a day; the database knows them and they sent nothing in the time looked "
                "back on; or the inventory lists them and they never reported"
            ),
            "medium": "hosts have been silent for `fleet.silent_after`",
            "low": "a host reports that the inventory does not list, or from another site than the inventory says",
        },
    ),
    Rule(
        "coverage",
        check_coverage,
        "let every host that should report be measured by at least two sources, better four",
        ("CIS Controls 8.4", "CIS Controls v7 6.1", _NIS2),
        raised_when={
            "medium": (
                "less than 95 % of the hosts that should report are measured by two usable sources that agree (CIS "
                "Controls 8.4). The message has the shares with two and with three sources (CIS Controls v7 6.1), "
                "rounded down"
            ),
            "low": "at least 95 % are, but not all",
        },
    ),
)
"""In which order findings of one level stand."""


def share(count: int, total: int) -> str:
    """Write a share in per cent, rounded down, so that only all of them are 100 %."""
    return f"{1000 * count // total / 10:g} %" if total else "0 %"


def _from(duplicate: DuplicateHost) -> str:
    """Say where machines of one name report from."""
    sites = _sorted({site for site in duplicate.sites if site is not None})
    return f", from {' and from '.join(sites)}" if sites else ""


def _is_one_server(source: str) -> bool:
    """Whether a source is the same server on every host; a place in a pool is another one on each."""
    zone, _, slot = source.rpartition("/")
    return not (slot.isdecimal() and zone) and not is_pool_name(source)


def _do_agree(errors_s: Sequence[float], within_s: float) -> bool:
    """Whether more than half of what is known of an error lies that close together; nothing known is no difference."""
    ordered = sorted(errors_s)
    most = len(ordered) // 2
    return not ordered or any(
        last_s - first_s <= within_s for first_s, last_s in zip(ordered, ordered[most:], strict=False)
    )


def _is_walk(move: ClockShift, warning_s: float) -> bool:
    """Whether a clock is led away for certain and on, within the tolerance and its own agent's, and did not step."""
    least_s, rate_ppm = move.least_s, move.host.frequency_ppm
    if not abs(least_s) >= SLOW_WALK_SHARE * warning_s:  # which hardly any did
        return False
    goes_on = rate_ppm is None or rate_ppm * least_s > 0
    is_hidden = abs(move.now.estimate_s) <= warning_s and move.member.severity <= Severity.WARNING
    return move.is_away and is_hidden and goes_on and not move.stepped


def _walked(move: ClockShift) -> str:
    """Say how a clock moved, and that its own agent does not tell of it."""
    return (
        f"{move.name} {_went(move.least_s)} by at least {format_duration(move.least_s, rounding='down')} within "
        f"{format_duration(move.span_s, rounding='up')}, away from the true time and without a step; now "
        f"{format_offset(move.now.estimate_s)}, and its own agent says {move.member.severity.word}"
    )


_GAP_LEVELS: tuple[Level, ...] = ("high", "medium")


def _gap_level(one: HostStatus) -> Level:
    """Say how bad it is that a host is silent."""
    return "high" if one.silent_s is not None and one.silent_s >= DAY_S else "medium"


def _silence(group: Sequence[HostStatus], site: str | None, level: Level) -> Raised:
    """Tell of the silent hosts of a site."""
    longest = max(group, key=lambda one: (one.silent_s or 0.0, one.name))
    silent_s = longest.silent_s or 0.0
    names = _sorted(one.name for one in group)
    if len(group) == 1:
        message = f"{longest.name} has been silent for {format_duration(silent_s)}"
    else:
        message = f"{len(group)} hosts {_at(site)} are silent, {longest.name} for {format_duration(silent_s)}"
    return Raised(
        level, f"{message}: nothing is known of the clock{'s' if group[1:] else ''} since", site, None, names, silent_s
    )


def _retire(remedy: str, terms: FleetPolicy) -> str:
    """Say besides how a host that is gone is left out."""
    if terms.inventory is None:
        return f"{remedy}; one that is retired is left out by an inventory of those that should report"
    return f"{remedy}; one that is retired: take it off the inventory"


def _never(names: tuple[str, ...], site: str | None, strangers: Sequence[str]) -> Raised:
    """Tell of hosts that never reported, and of those that report under much the same name."""
    near = {name: other for name in names if (other := namesake(name, strangers)) is not None}
    message = f"{_listed(names)} should report and never did"
    if len(names) == 1 and near:
        message += f": did you mean {near[names[0]]}?"
    elif near:
        few = [f"{other} for {name}" for name, other in near.items()]
        message += f": did you mean {_listed(few)}?"
    return Raised("high", message, site, None, names, remedy=_MEND_ABSENT)


def _misplaced(scene: FleetContext) -> Iterator[Raised]:
    """Tell of hosts that report from another site than the inventory says."""
    listed = frozenset(scene.policy.inventory or ())
    places = {
        one.name: f"{one.name} reports from {one.host.site} and is listed at {scene.policy.sites[one.name]}"
        for one in scene.members
        if one.host is not None and one.host.site is not None and one.silent_s is None and one.name in listed
        if scene.policy.sites.get(one.name, one.host.site) != one.host.site
    }
    if places:
        names = _sorted(places)
        said = "; ".join(places[name] for name in names[:NAMES_TOLD])
        more = f"; and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
        yield Raised("low", f"{said}{more}", hosts=names, remedy=_MEND_PLACE)


def _ordering(scene: FleetContext, group: Group, where: str, site: str | None) -> Iterator[Raised]:
    """Tell of hosts that cannot be ordered within the limit, and who they would be without."""
    worst, limit_s = group.ambiguity, scene.policy.ambiguity_s
    if worst is None or worst.within_s <= limit_s:
        return
    kept = orderable(group.hosts, limit_s)
    rest = ambiguity([one for one in group.hosts if one.name in kept])
    named = _sorted(one.name for one in group.hosts if one.name not in kept)
    estimates = {one.name: one.offset.estimate_s for one in group.hosts if one.name in worst.hosts}
    pair = " and ".join(f"{name}, {format_offset(estimates[name])}" for name in worst.hosts)
    message = (
        f"events on {where} can be ordered by their stamps only if these are more than "
        f"{format_duration(worst.within_s, rounding='up')} apart ({pair}); {format_duration(limit_s)} is asked"
    )
    if rest is not None:
        message += f"; without {_listed(named)} it would be {format_duration(rest.within_s, rounding='up')}"
    yield Raised("high", message, site, None, named, worst.within_s, _reorder(scene, named))


def _reorder(scene: FleetContext, named: Sequence[str]) -> str | None:
    """Say that clocks which are wrong are mended first; None where those that cannot be ordered are not wrong."""
    wrong = {name: one for name in named if _is_off(one := scene.by_name[name], scene.policy.warning_s)}
    if not wrong:
        return None
    kinds = dict.fromkeys(
        alarm.kind for name in _sorted(wrong) for alarm in wrong[name].alarms[:1] if alarm.severity > Severity.OK
    )
    why = f" ({', '.join(list(kinds)[:NAMES_TOLD])})" if kinds else ""
    clocks = "the clock" if len(wrong) == 1 else "the clocks"
    return (
        f"mend {clocks} of {_listed(_sorted(wrong))} first{why}; correct logs by each host's recorded offset before "
        "you order events"
    )


def _is_off(one: HostStatus, warning_s: float) -> bool:
    """Whether a clock is wrong, by the word of its own agent or by the tolerance."""
    offset = one.host.offset if one.host is not None else None
    return one.severity is Severity.CRITICAL or (offset is not None and not abs(offset.estimate_s) <= warning_s)


def _median(values: Iterable[float]) -> float | None:
    """Return the middle value, or the mean of the middle two; None of none."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return (ordered[last // 2] + ordered[(last + 1) // 2]) / 2 if ordered else None


def _at(site: str | None) -> str:
    """Say where hosts are."""
    return "without a site" if site is None else f"at site {site}"


def _went(movement_s: float) -> str:
    """Say which way a clock moved."""
    return "fell behind" if movement_s > 0 else "ran ahead"


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    """Put names in order."""
    return tuple(sorted(names))


def _listed(names: Sequence[str]) -> str:
    """Name a few, and count the others."""
    if len(names) > NAMES_TOLD + 1:
        return f"{', '.join(names[:NAMES_TOLD])} and {len(names) - NAMES_TOLD} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))

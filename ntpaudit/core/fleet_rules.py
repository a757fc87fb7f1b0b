"""Every rule about a fleet, one small function each, and the list of them; and in which order two events came.

All of it is interval arithmetic: every host's true offset lies in its interval, and no more than that is claimed.
Adding a rule: a function, an entry in `RULES`, a test, a paragraph in docs/findings.md.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple, Protocol, TypeVar

from ntpaudit.core.clocks import growth_ns
from ntpaudit.core.findings import LEVEL_SEVERITY, Level
from ntpaudit.core.fleet import (
    Alarm,
    Ambiguity,
    Coverage,
    Fleet,
    FleetFinding,
    Host,
    Member,
    Offset,
    Order,
    Site,
    Snapshot,
    Terms,
)
from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.core.policy import Severity
from ntpaudit.core.wording import direction, plural, span

DAY_S = 86_400.0
"""A host that is silent for so long is a gap of level high (NTPA-07)."""

MANY = 3
"""So many hosts make a common source, or a site that can move."""

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

STEP_KINDS = ("step-back", "step-forward")

_ISO = "ISO/IEC 27001 A.8.17"
_ISO_GUIDE = "ISO/IEC 27002 8.17"
_NIS2 = "NIS2 2024/2690 3.2.6"
_PCI = "PCI DSS 10.6.2"
_SC45 = "NIST SP 800-53 SC-45"


class Placed(Protocol):
    """What stands at a site, or nobody knows where."""

    @property
    def site(self) -> str | None:
        """The name of the site."""


_Placed = TypeVar("_Placed", bound=Placed)


class Measured(NamedTuple):
    """A host that reports and has an offset: what two events on different hosts can be ordered by."""

    name: str
    site: str | None
    offset: Offset
    usable: int = 0
    frequency_ppm: float | None = None


class Group(NamedTuple):
    """Measured hosts of one place, those that are most behind and ahead, and the worst two to order, None below two."""

    hosts: Sequence[Measured]
    extremes: Sequence[Measured]
    ambiguity: Ambiguity | None


class Moved(NamedTuple):
    """How far a host's clock fell behind (positive) or ran ahead since the time before: for certain.

    It lies in the interval, which does not hold 0; `least_s` is the end that is nearer to that.
    """

    host: Measured
    then: Offset
    earliest_s: float
    latest_s: float
    least_s: float

    @property
    def site(self) -> str | None:
        """Where the host stands."""
        return self.host.site


class Together(NamedTuple):
    """The hosts of a site that may all have moved by one amount, of how many compared, and the least such amount."""

    moves: tuple[Moved, ...]
    compared: int
    least_s: float


class Scene(NamedTuple):
    """All that a rule may look at: the hosts that count, in order, the measured of them by site, and who moved.

    `strangers` report, and are not in the inventory. `together` has the sites that moved.
    """

    snapshot: Snapshot
    terms: Terms
    members: tuple[Member, ...]
    strangers: tuple[str, ...]
    coverage: Coverage
    groups: Mapping[str | None, Group]
    moves: tuple[Moved, ...]
    together: Mapping[str | None, Together]


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
    """A check with the finding's id, the remedy where the check names none, and the rules that it supports."""

    id: str
    check: Callable[[Scene], Iterable[Raised]]
    remedy: str
    controls: tuple[str, ...]


def judge_fleet(snapshot: Snapshot, terms: Terms) -> Fleet:
    """Judge a fleet: its hosts worst first, its findings worst first. The order of what was read never matters."""
    members, strangers = _gather(snapshot, terms)
    measured = _measured(members)
    groups = {site: _group(hosts) for site, hosts in _by_site(_measured(members, snapshot.now_ns))}
    moves = tuple(move for one in measured if (move := _move(one, snapshot.before.get(one.name))) is not None)
    together = _moved_sites(moves, groups, snapshot.before, terms.warning_s)
    coverage = _cover(len(members) - len(strangers), measured, frozenset(strangers))
    scene = Scene(snapshot, terms, members, strangers, coverage, groups, moves, together)
    sites = tuple(
        Site(site, _count(hosts), groups[site].ambiguity if site in groups else None)
        for site, hosts in _by_site(members)
    )
    whole = Site(None, _count(members), ambiguity([one for group in groups.values() for one in group.extremes]))
    unlisted = None if terms.inventory is None else len(strangers)
    return Fleet(snapshot.now_ns, members, _findings(scene), coverage, sites, whole, unlisted)


def _findings(scene: Scene) -> tuple[FleetFinding, ...]:
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


def order(a: Host, b: Host, now_ns: int | None = None) -> Order | None:
    """Say how far apart events on two hosts must be stamped to be ordered for certain; None where one has no offset.

    It is said of events at `now_ns`, to which the clocks may have drifted since the hosts' last points; without it of
    the times of these.

    An event that host a stamps with t_a happened at t_a + theta_a, with theta_a from earliest_a to latest_a, and so on
    b. It came before b's for certain when its latest true time is before the other's earliest: t_a + latest_a < t_b +
    earliest_b, which is t_b - t_a > latest_a - earliest_b. The other way round, t_a - t_b > latest_b - earliest_a. The
    same holds of stamps corrected by estimates e, t + e, whose true offset lies from earliest - e to latest - e.
    """
    if a.offset is None or b.offset is None:
        return None
    known_a, known_b = (
        offset if now_ns is None else _drifted(host, offset, now_ns) for host, offset in ((a, a.offset), (b, b.offset))
    )
    one, two = _residual(known_a), _residual(known_b)
    return Order(
        (a.name, b.name),
        known_a.latest_s - known_b.earliest_s,
        known_b.latest_s - known_a.earliest_s,
        one.latest_s - two.earliest_s,
        two.latest_s - one.earliest_s,
    )


def ambiguity(hosts: Sequence[Measured]) -> Ambiguity | None:
    """Find the two hosts whose events must be furthest apart to be in the order of their stamps; None below two hosts.

    For a pair that is max(latest_i - earliest_j, latest_j - earliest_i), as `order` derives. Over all pairs the
    greatest is the latest end of one host less the earliest of another: of the extremes, or where both are of one and
    the same host, of one extreme and the runner-up of the other. The host that is more behind comes first; of equals
    those that are given first.
    """
    return _group(hosts).ambiguity


def _group(hosts: Sequence[Measured]) -> Group:
    """Find the worst pair of hosts: of the two most behind one, and of the two most ahead another one."""
    behind = sorted(hosts, key=lambda one: -one.offset.latest_s)[:2]
    ahead = sorted(hosts, key=lambda one: one.offset.earliest_s)[:2]
    pairs = [
        Ambiguity(late.offset.latest_s - early.offset.earliest_s, (late.name, early.name))
        for late in behind
        for early in ahead
        if late is not early
    ]
    return Group(
        hosts,
        [*behind, *(one for one in ahead if one not in behind)],
        max(pairs, key=lambda pair: pair.within_s, default=None),
    )


def orderable(hosts: Sequence[Measured], within_s: float) -> frozenset[str]:
    """Name the most hosts whose intervals all lie within a span of each other, so that events can be ordered in it.

    Of several such sets it is the one nearest to the true time. None has a host whose own interval is wider. Of the
    others those from an earliest end L on, that end by L + span, are those that end by then less those that begin
    before L, for whoever begins before L ends in time too.
    """
    fitting = [one for one in hosts if one.offset.latest_s - one.offset.earliest_s <= within_s]
    ends = sorted(one.offset.latest_s for one in fitting)
    ended, best = 0, (0, 0.0, 0.0)
    for begun, floor_s in enumerate(sorted(one.offset.earliest_s for one in fitting)):
        while ended < len(ends) and ends[ended] - floor_s <= within_s:
            ended += 1
        best = max(best, (ended - begun, -abs(floor_s + ends[ended - 1]), floor_s))
    floor_s = best[2]
    return frozenset(
        one.name for one in fitting if one.offset.earliest_s >= floor_s and one.offset.latest_s - floor_s <= within_s
    )


def deepest(moves: Sequence[Moved]) -> tuple[tuple[Moved, ...], float]:
    """Return the movements that share the point which most of them cover (Marzullo), and that point.

    Where there are several such points it is the one that is nearest to no movement.
    """
    ends = sorted([(move.earliest_s, False) for move in moves] + [(move.latest_s, True) for move in moves])
    depth, begin_s, best = 0, 0.0, (0, 0.0, 0.0)
    for end_s, closes in ends:
        if closes:
            nearest_s = _nearest(begin_s, end_s)
            best = min(best, (-depth, abs(nearest_s), nearest_s))
            depth -= 1
        else:
            depth, begin_s = depth + 1, end_s
    return tuple(move for move in moves if move.earliest_s <= best[2] <= move.latest_s), best[2]


def check_ordering_risk(scene: Scene) -> Iterator[Raised]:
    """NTPA-10: events on hosts of one site, or of several, can be too far apart and still not be orderable."""
    limit_s = scene.terms.ambiguity_s
    calm: list[Group] = []
    for site, group in scene.groups.items():
        named = frozenset[str]()
        for raised in _ordering(scene, group, f"hosts {_at(site)}", site):
            named = frozenset(raised.hosts)
            yield raised
        calm.append(_group([one for one in group.hosts if one.name not in named]) if named else group)
    rest = _group([one for group in calm for one in group.extremes])
    if rest.ambiguity is not None and not rest.ambiguity.within_s <= limit_s:  # of different sites: each is calm
        everyone = [one for group in calm for one in group.hosts]
        yield from _ordering(scene, rest._replace(hosts=everyone), "hosts of different sites", None)


def check_common_source(scene: Scene) -> Iterator[Raised]:
    """A source that several hosts call a falseticker now is itself wrong, or is attacked."""
    reporting = {one.name for one in scene.members if one.silent_s is None}
    claims: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
    for lie in sorted(scene.snapshot.lies, key=lambda lie: (lie[:2], lie.offset_s is not None, lie.offset_s or 0.0)):
        if lie.host in reporting:
            claims[lie.source][lie.host] = lie.offset_s
    for source, claimed in claims.items():
        if len(claimed) >= MANY:
            middle_s = _median(offset_s for offset_s in claimed.values() if offset_s is not None)
            said = (
                "" if middle_s is None else f": it says that they are {span(middle_s)} {direction(middle_s)} (median)"
            )
            message = f"the other sources of {len(claimed)} hosts contradict {source}{said}"
            yield Raised("high", message, None, source, tuple(claimed), middle_s)


def check_site_moved(scene: Scene) -> Iterator[Raised]:
    """Most hosts of a site have moved by the same amount: what they have in common did it."""
    for site, (moves, compared, least_s) in scene.together.items():
        message = (
            f"{len(moves)} of {compared} hosts {_at(site)} {_went(least_s)} together, by at least "
            f"{span(least_s, rounding='down')} within {span(scene.snapshot.before_s)}"
        )
        yield Raised("high", message, site, None, _sorted(move.host.name for move in moves), least_s)


def check_slow_walk(scene: Scene) -> Iterator[Raised]:
    """A clock is led away from the true time, so slowly that no tolerance tells of it."""
    explained = {move.host.name for together in scene.together.values() for move in together.moves}
    explained |= _stepped(scene.snapshot)
    walks = [move for move in scene.moves if move.host.name not in explained and _is_walk(move, scene.terms.warning_s)]
    for site, moves in _by_site(walks):
        worst_first = sorted(moves, key=lambda move: (-abs(move.least_s), move.host.name))
        if len(moves) <= SLOW_WALKS_TOLD:
            for move in worst_first:
                yield Raised("medium", _walked(scene, move), site, None, (move.host.name,), move.least_s)
        else:
            message = f"{len(moves)} hosts {_at(site)} are led away; most of all {_walked(scene, worst_first[0])}"
            yield Raised(
                "medium", message, site, None, _sorted(move.host.name for move in moves), worst_first[0].least_s
            )


def check_evidence_gap(scene: Scene) -> Iterator[Raised]:
    """NTPA-07: hosts of which nothing is known now: silent, forgotten or never heard of; and hosts nobody listed."""
    silent = [one for one in scene.members if one.host is not None and one.silent_s is not None]
    for site, gaps in _by_site(silent):
        for level in _GAP_LEVELS:
            if group := [one for one in gaps if _gap_level(one) == level]:
                yield _silence(group, site, level)._replace(remedy=_retire(_MEND_AGENT, scene.terms))
    known = frozenset(scene.snapshot.forgotten)
    unheard = [one for one in scene.members if one.host is None]
    for site, group in _by_site(unheard):
        if forgotten := _sorted(one.name for one in group if one.name in known):
            verb = "is known to the database and has" if len(forgotten) == 1 else "are known to the database and have"
            said = f"{_listed(forgotten)} {verb} no point in the time that was looked back on"
            yield Raised("high", said, site, None, forgotten, remedy=_retire(_MEND_LONG_SILENT, scene.terms))
        if never := _sorted(one.name for one in group if one.name not in known):
            yield _never(never, site, scene.strangers)
    if scene.strangers:
        verb = "reports but is" if len(scene.strangers) == 1 else "report but are"
        said = f"{_listed(scene.strangers)} {verb} not in the inventory"
        yield Raised("low", said, hosts=scene.strangers, remedy=_MEND_INVENTORY)
    yield from _misplaced(scene)


def check_coverage(scene: Scene) -> Iterator[Raised]:
    """Too few hosts are measured, by two synchronised sources (CIS Controls 8.4) or three (v7 6.1)."""
    hosts, measured, by_two, by_three = scene.coverage
    if by_two == hosts:
        return
    those = plural(hosts, "host") if scene.terms.inventory is None else f"{plural(hosts, 'host')} in the inventory"
    message = (
        f"of {those} {share(measured, hosts)} are measured, {share(by_two, hosts)} by two sources or more, "
        f"{share(by_three, hosts)} by three or more"
    )
    strangers = frozenset(scene.strangers)
    short = _sorted(one.name for one in scene.members if not _is_covered(one) and one.name not in strangers)
    yield Raised("low" if by_two >= FULL_SHARE * hosts else "medium", message, hosts=short)


_MEND_AGENT = (
    "see why the agent is silent (systemctl status ntpaudit on the host), or what is between it and the database"
)
_MEND_LONG_SILENT = "see whether the host is still there, and then why its agent is silent; --look-back looks further"
_MEND_ABSENT = (
    "install the agent there and let it deliver, or mend the name in the inventory: it is compared as written"
)
_MEND_INVENTORY = "add what belongs to you to the inventory, and see who delivers the rest"
_MEND_PLACE = "mend the site in the inventory, or host.site in the configuration of the host"

RULES = (
    Rule(
        "ordering-risk",
        check_ordering_risk,
        "give these hosts the same sources, and sources that are near; correct logs by each host's recorded offset "
        "before you order events",
        (_ISO, _NIS2),
    ),
    Rule(
        "common-source",
        check_common_source,
        "look whether this server is broken or attacked, and take it out of the configuration until it is mended",
        (_ISO, _PCI, _SC45),
    ),
    Rule(
        "site-moved",
        check_site_moved,
        "look at what these hosts share: their servers, their network, the machines that they run on",
        (_ISO, _PCI, _SC45),
    ),
    Rule(
        "slow-walk",
        check_slow_walk,
        "compare the host's time daemon and its servers with those of hosts that did not move",
        (_ISO, _ISO_GUIDE, _SC45),
    ),
    Rule(
        "evidence-gap",
        check_evidence_gap,
        _MEND_AGENT,
        (_NIS2, "PCI DSS 10.7.3", "SOC 2 CC7"),
    ),
    Rule(
        "coverage",
        check_coverage,
        "let every host that should report be measured by at least two sources, better four",
        ("CIS Controls 8.4", "CIS Controls v7 6.1", _NIS2),
    ),
)
"""In which order findings of one level stand."""


def narrow(snapshot: Snapshot, terms: Terms, site: str) -> tuple[Snapshot, Terms]:
    """Return what is about one site alone. A host that never reported is there if the inventory says so."""
    hosts = tuple(host for host in snapshot.hosts if _place(host, terms) == site)
    names = {host.name for host in hosts}
    elsewhere = {host.name for host in snapshot.hosts} - names
    here = names | {name for name, place in terms.sites.items() if place == site} - elsewhere
    return snapshot._replace(
        hosts=hosts,
        alarms=tuple(alarm for alarm in snapshot.alarms if alarm.host in names),
        lies=tuple(lie for lie in snapshot.lies if lie.host in names),
        forgotten=tuple(name for name in snapshot.forgotten if name in here),
    ), terms._replace(
        inventory=None if terms.inventory is None else tuple(name for name in terms.inventory if name in here)
    )


def share(count: int, total: int) -> str:
    """Write a share in per cent, rounded down, so that only all of them are 100 %."""
    return f"{1000 * count // total / 10:g} %" if total else "0 %"


def _gather(snapshot: Snapshot, terms: Terms) -> tuple[tuple[Member, ...], tuple[str, ...]]:
    """Return the hosts that count, worst first, and those of them that no inventory lists.

    A silent host that the inventory does not list is retired; nobody waits for it.
    """
    alarms = _alarms(snapshot.alarms)
    listed = None if terms.inventory is None else frozenset(terms.inventory)
    members: list[Member] = []
    strangers: list[str] = []
    for host in snapshot.hosts:
        silent_s = (snapshot.now_ns - host.last_ns) / NS_PER_S
        reports = silent_s <= terms.silent_after_s
        if listed is not None and host.name not in listed:
            if not reports:
                continue
            strangers.append(host.name)
        severity = host.severity if reports else Severity.UNKNOWN
        site = host.site if host.site is not None else terms.sites.get(host.name)
        raised = alarms.get(host.name, ())
        members.append(Member(host.name, site, severity, host, None if reports else silent_s, raised))
    unheard = frozenset(snapshot.forgotten) if listed is None else listed
    for name in unheard.difference(host.name for host in snapshot.hosts):
        members.append(Member(name, terms.sites.get(name), Severity.UNKNOWN, None, inf, alarms.get(name, ())))
    return tuple(sorted(members, key=_gravity)), _sorted(strangers)


def _measured(members: Iterable[Member], now_ns: int | None = None) -> list[Measured]:
    """Return the hosts that report and have an offset: as of a moment, else each as of its last point."""
    return [
        Measured(
            one.name,
            one.site,
            host.offset if now_ns is None else _drifted(host, host.offset, now_ns),
            host.usable,
            host.frequency_ppm,
        )
        for one in members
        if one.silent_s is None and (host := one.host) is not None and host.offset is not None
    ]


def _place(host: Host, terms: Terms) -> str | None:
    """Return where a host stands, by its own word, else by the inventory's."""
    return host.site if host.site is not None else terms.sites.get(host.name)


def _gravity(one: Member) -> tuple[int, float, float, str]:
    """Return by what members are sorted: how bad, how long silent, how wrong in the worst case, and by name."""
    offset = one.host.offset if one.host is not None else None
    worst_s = 0.0 if offset is None else max(-offset.earliest_s, offset.latest_s)
    return -one.severity, -(one.silent_s or 0.0), -worst_s, one.name


def _alarms(alarms: Iterable[Alarm]) -> dict[str, tuple[Alarm, ...]]:
    """Group alarms by their host, the worst first."""
    found: defaultdict[str, list[Alarm]] = defaultdict(list)
    for alarm in alarms:
        found[alarm.host].append(alarm)
    return {host: tuple(sorted(own, key=_urgency)) for host, own in found.items()}


def _urgency(alarm: Alarm) -> tuple[int, str, int, float]:
    """Return by what the alarms of a host are sorted: how bad, which, since when, how much."""
    return -alarm.severity, alarm.kind, alarm.since_ns, -inf if alarm.value_s is None else alarm.value_s


def _cover(hosts: int, measured: Iterable[Measured], strangers: frozenset[str]) -> Coverage:
    """Count the hosts that should report, and how well they are measured."""
    usable = [one.usable for one in measured if one.name not in strangers]
    return Coverage(hosts, len(usable), sum(count >= 2 for count in usable), sum(count >= 3 for count in usable))


def _is_covered(one: Member) -> bool:
    """Whether a host is measured now, by two sources or more."""
    host = one.host
    return one.silent_s is None and host is not None and host.offset is not None and host.usable >= 2


def _count(members: Iterable[Member]) -> tuple[int, int, int, int]:
    """Count members by severity."""
    counts = [0, 0, 0, 0]
    for one in members:
        counts[one.severity] += 1
    ok, warning, unknown, critical = counts
    return ok, warning, unknown, critical


def _move(host: Measured, then: Offset | None) -> Moved | None:
    """Return how far a host moved; None where it is not known then, or the intervals overlap: it may not have moved."""
    now = host.offset
    if then is None or (now.earliest_s <= then.latest_s and then.earliest_s <= now.latest_s):
        return None
    earliest_s, latest_s = now.earliest_s - then.latest_s, now.latest_s - then.earliest_s
    return Moved(host, then, earliest_s, latest_s, _nearest(earliest_s, latest_s))


def _nearest(earliest_s: float, latest_s: float) -> float:
    """Return the point of an interval that is nearest to zero."""
    return max(earliest_s, 0.0) + min(latest_s, 0.0)


def _moved_sites(
    moves: Iterable[Moved], groups: Mapping[str | None, Group], before: Mapping[str, Offset], warning_s: float
) -> dict[str | None, Together]:
    """Find the sites of which most hosts that can be compared moved, and may all have moved by one amount."""
    found = {}
    for site, moved in _by_site(moves):
        together, least_s = deepest(moved)
        compared = sum(one.name in before for one in groups[site].hosts)
        is_most = compared >= MANY and 2 * len(together) > compared
        if is_most and abs(least_s) >= SITE_MOVED_SHARE * warning_s:
            found[site] = Together(together, compared, least_s)
    return found


def _is_walk(move: Moved, warning_s: float) -> bool:
    """Whether a host moved for certain, away from the true time, within its tolerance, and still does."""
    if not abs(move.least_s) >= SLOW_WALK_SHARE * warning_s:
        return False
    now_s, then_s, rate_ppm = move.host.offset.estimate_s, move.then.estimate_s, move.host.frequency_ppm
    goes_on = rate_ppm is None or rate_ppm * move.least_s > 0
    return abs(then_s) < abs(now_s) <= warning_s and goes_on


def _walked(scene: Scene, move: Moved) -> str:
    """Say how a host moved, and that no tolerance tells of it."""
    least, warning = span(move.least_s, rounding="down"), span(scene.terms.warning_s)
    now_s = move.host.offset.estimate_s
    return (
        f"{move.host.name} {_went(move.least_s)} by at least {least} within {span(scene.snapshot.before_s)}, without a "
        f"step; now {span(now_s)} {direction(now_s)}, below the {warning} that would warn"
    )


def _stepped(snapshot: Snapshot) -> frozenset[str]:
    """Name the hosts that stepped since the time before."""
    since_ns = snapshot.now_ns - round(snapshot.before_s * NS_PER_S)
    return frozenset(alarm.host for alarm in snapshot.alarms if alarm.kind in STEP_KINDS and alarm.since_ns >= since_ns)


_GAP_LEVELS: tuple[Level, ...] = ("high", "medium")


def _gap_level(one: Member) -> Level:
    """Say how bad it is that a host is silent."""
    return "high" if one.silent_s is not None and one.silent_s >= DAY_S else "medium"


def _silence(group: Sequence[Member], site: str | None, level: Level) -> Raised:
    """Tell of the silent hosts of a site."""
    longest = max(group, key=lambda one: (one.silent_s or 0.0, one.name))
    silent_s = longest.silent_s or 0.0
    names = _sorted(one.name for one in group)
    if len(group) == 1:
        message = f"{longest.name} has been silent for {span(silent_s)}"
    else:
        message = f"{len(group)} hosts {_at(site)} are silent, {longest.name} for {span(silent_s)}"
    return Raised(
        level, f"{message}: nothing is known of the clock{'s' if group[1:] else ''} since", site, None, names, silent_s
    )


def _retire(remedy: str, terms: Terms) -> str:
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


def namesake(name: str, others: Iterable[str]) -> str | None:
    """Return the only one of others that is the same name but for its case and its domain; None of none or several."""
    short = _short(name)
    found = [other for other in others if _short(other) == short]
    return found[0] if len(found) == 1 else None


def _short(name: str) -> str:
    """Return a host's name without its domain, in small letters; an address stays whole."""
    small = name.casefold().rstrip(".")
    first, _, _ = small.partition(".")
    return small if not first or first.isdecimal() or ":" in small else first


def _misplaced(scene: Scene) -> Iterator[Raised]:
    """Tell of hosts that report from another site than the inventory says."""
    listed = frozenset(scene.terms.inventory or ())
    places = {
        one.name: f"{one.name} reports from {one.host.site} and is listed at {scene.terms.sites[one.name]}"
        for one in scene.members
        if one.host is not None and one.host.site is not None and one.silent_s is None and one.name in listed
        if scene.terms.sites.get(one.name, one.host.site) != one.host.site
    }
    if places:
        names = _sorted(places)
        said = "; ".join(places[name] for name in names[:NAMES_TOLD])
        more = f"; and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
        yield Raised("low", f"{said}{more}", hosts=names, remedy=_MEND_PLACE)


def _ordering(scene: Scene, group: Group, where: str, site: str | None) -> Iterator[Raised]:
    """Tell of hosts that cannot be ordered within the limit, and who they would be without."""
    worst, limit_s = group.ambiguity, scene.terms.ambiguity_s
    if worst is None or worst.within_s <= limit_s:
        return
    kept = orderable(group.hosts, limit_s)
    rest = ambiguity([one for one in group.hosts if one.name in kept])
    named = _sorted(one.name for one in group.hosts if one.name not in kept)
    estimates = {one.name: one.offset.estimate_s for one in group.hosts if one.name in worst.hosts}
    pair = " and ".join(f"{name}, {span(estimates[name])} {direction(estimates[name])}" for name in worst.hosts)
    message = (
        f"events on {where} can be ordered by their stamps only if these are more than "
        f"{span(worst.within_s, rounding='up')} apart ({pair}); {span(limit_s)} is asked"
    )
    if rest is not None:
        message += f"; without {_listed(named)} it would be {span(rest.within_s, rounding='up')}"
    yield Raised("high", message, site, None, named, worst.within_s, _reorder(scene, named))


def _reorder(scene: Scene, named: Sequence[str]) -> str | None:
    """Say that clocks which are wrong are mended first; None where those that cannot be ordered are not wrong."""
    hosts = frozenset(named)
    wrong = {one.name: one for one in scene.members if one.name in hosts and _is_off(one, scene.terms.warning_s)}
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


def _is_off(one: Member, warning_s: float) -> bool:
    """Whether a clock is wrong, by the word of its own agent or by the tolerance."""
    offset = one.host.offset if one.host is not None else None
    return one.severity is Severity.CRITICAL or (offset is not None and not abs(offset.estimate_s) <= warning_s)


def _drifted(host: Host, offset: Offset, now_ns: int) -> Offset:
    """Return what is known of an offset at a moment: it may have drifted since the host's last point (B5)."""
    growth_s = growth_ns(now_ns - host.last_ns) / NS_PER_S
    return Offset(offset.estimate_s, offset.earliest_s - growth_s, offset.latest_s + growth_s)


def _residual(offset: Offset) -> Offset:
    """Return what may be left of an offset once stamps are corrected by its estimate."""
    return Offset(0.0, offset.earliest_s - offset.estimate_s, offset.latest_s - offset.estimate_s)


def _median(values: Iterable[float]) -> float | None:
    """Return the middle value, or the mean of the middle two; None of none."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return (ordered[last // 2] + ordered[(last + 1) // 2]) / 2 if ordered else None


def _by_site(placed: Iterable[_Placed]) -> list[tuple[str | None, list[_Placed]]]:
    """Group things by site in the order of its name; those without one come last."""
    groups: defaultdict[str | None, list[_Placed]] = defaultdict(list)
    for one in placed:
        groups[one.site].append(one)
    return sorted(groups.items(), key=lambda group: (group[0] is None, group[0] or ""))


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

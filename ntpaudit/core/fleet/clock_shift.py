"""Which clocks moved since a time before, for certain: each by itself, and those of a site by one amount."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ntpaudit.core.fleet.members import by_site, measured
from ntpaudit.core.fleet.model import STEP_KINDS, Bounded, Host, HostStatus, Offset, Snapshot
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S

MANY = 3
"""So many hosts make a site that can move."""

UNSTEERED = frozenset({"unsynced", "daemon-count", "daemon-stale", "breach-forecast"})
"""What the agent of a host finds whose clock nothing steers, or no one thing: that such a one moves is explained."""


class ClockShift(NamedTuple):
    """How far a host's clock fell behind (positive) or ran ahead since `since_ns`: from one offset to another.

    `stepped` says whether its own agent told of a step since then.
    """

    member: HostStatus
    host: Host
    since_ns: int
    then: Bounded
    now: Offset
    stepped: bool = False

    @property
    def name(self) -> str:
        """The host's name."""
        return self.member.name

    @property
    def site(self) -> str | None:
        """Where the host stands."""
        return self.member.site

    @property
    def span_s(self) -> float:
        """How long it took."""
        return (self.host.last_ns - self.since_ns) / NS_PER_S

    @property
    def earliest_s(self) -> float:
        """The one end of the interval that holds it for certain."""
        return self.now.earliest_s - self.then.latest_s

    @property
    def latest_s(self) -> float:
        """The other end of that."""
        return self.now.latest_s - self.then.earliest_s

    @property
    def least_s(self) -> float:
        """What is proved of it: the point of the interval that is nearest to 0."""
        return _nearest(self.earliest_s, self.latest_s)

    @property
    def is_away(self) -> bool:
        """Whether it is further from the true time than it was, wherever it was."""
        return _least(self.now) > _most(self.then)

    @property
    def is_back(self) -> bool:
        """Whether it is nearer to the true time than it was, wherever it was."""
        return _most(self.now) < _least(self.then)


class Compared(NamedTuple):
    """How many clocks of each site were compared with a time before, and those that moved for certain."""

    counts: Mapping[str | None, int]
    moved: Sequence[ClockShift]


class SiteShift(NamedTuple):
    """The hosts of a site that moved, and may all have moved by one amount, the least such; of how many compared."""

    moves: tuple[ClockShift, ...]
    compared: int
    amount_s: float

    @property
    def least_s(self) -> float:
        """By how much each of them moved at least."""
        return min((move.least_s for move in self.moves), key=abs)


def compare(snapshot: Snapshot, members: Iterable[HostStatus]) -> Compared:
    """Compare the clocks that something steers with a time before.

    A name that several machines have is left out, and so is a host whose time stamps the database's clock disputes.
    """
    clashing = {duplicate.name for duplicate in snapshot.duplicate_hosts}
    stepped_ns: dict[str, int] = {}
    for alarm in snapshot.alarms:
        if alarm.kind in STEP_KINDS:
            stepped_ns[alarm.host] = max(alarm.since_ns, stepped_ns.get(alarm.host, alarm.since_ns))
    counts: defaultdict[str | None, int] = defaultdict(int)
    moved: list[ClockShift] = []
    for one, host, now in measured(members):
        then = snapshot.baseline.get(one.name)
        if then is None or one.name in clashing or one.disputed_s or _is_unsteered(one):
            continue
        counts[one.site] += 1
        if has_moved(then, now):
            since_ns = _since_ns(snapshot, host)
            stepped = one.name in stepped_ns and stepped_ns[one.name] >= since_ns
            moved.append(ClockShift(one, host, since_ns, then, now, stepped))
    return Compared(counts, moved)


def has_moved(then: Bounded, now: Bounded) -> bool:
    """Whether a clock moved for certain: no one offset lies in both intervals."""
    return now.earliest_s > then.latest_s or now.latest_s < then.earliest_s


def moved_sites(compared: Compared, least_s: float) -> Iterator[tuple[str, SiteShift]]:
    """Yield the sites of which most hosts moved by that much at least for certain, and may have by one amount."""
    for site, moved in by_site(compared.moved):
        moves, amount_s = max_overlap([move for move in moved if abs(move.least_s) >= least_s])
        count = compared.counts[site]
        if site is not None and count >= MANY and 2 * len(moves) > count:
            yield site, SiteShift(moves, count, amount_s)


def max_overlap(moves: Sequence[ClockShift]) -> tuple[tuple[ClockShift, ...], float]:
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


def _since_ns(snapshot: Snapshot, host: Host) -> int:
    """Return when the point before was written, which is so long before the last one where nobody knows."""
    return snapshot.baseline_ns.get(host.name, host.last_ns - round(snapshot.baseline_s * NS_PER_S))


def _is_unsteered(one: HostStatus) -> bool:
    """Whether its agent says that nothing steers the clock, or no one thing."""
    return bool(one.alarms) and any(alarm.kind in UNSTEERED and alarm.severity > Severity.OK for alarm in one.alarms)


def _nearest(earliest_s: float, latest_s: float) -> float:
    """Return the point of an interval that is nearest to zero."""
    return max(earliest_s, 0.0) + min(latest_s, 0.0)


def _least(offset: Bounded) -> float:
    """Return how far from the true time a clock is at least."""
    return abs(_nearest(offset.earliest_s, offset.latest_s))


def _most(offset: Bounded) -> float:
    """Return how far from the true time a clock is at most."""
    return max(-offset.earliest_s, offset.latest_s)

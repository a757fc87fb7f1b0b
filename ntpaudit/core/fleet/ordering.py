"""The order of events on different hosts, by their timestamps and the intervals of the clocks."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ntpaudit.core.clock.readings import growth_ns
from ntpaudit.core.fleet.members import measured
from ntpaudit.core.fleet.model import Host, HostStatus, Offset, Order, OrderingUncertainty
from ntpaudit.core.fleet.severity import disputed_s
from ntpaudit.core.units import NS_PER_S


class Measured(NamedTuple):
    """A host that reports and has an offset."""

    name: str
    site: str | None
    offset: Offset


class Group(NamedTuple):
    """Measured hosts, those furthest behind and ahead, and the pair hardest to order; None with fewer than two."""

    hosts: Sequence[Measured]
    extremes: Sequence[Measured]
    ambiguity: OrderingUncertainty | None


def as_of(members: Iterable[HostStatus], now_ns: int) -> list[Measured]:
    """Return the hosts that report and have an offset, with their intervals widened to `now_ns`."""
    return [Measured(one.name, one.site, _drifted(host, offset, now_ns)) for one, host, offset in measured(members)]


def order(a: Host, b: Host, now_ns: int) -> Order | None:
    """Return how far apart the timestamps of two hosts must be for a certain order; None if one has no offset.

    The result is for events at `now_ns`: the clocks may have drifted since the hosts' last points.

    An event with timestamp t_a on host a happened at t_a + theta_a, where earliest_a <= theta_a <= latest_a; the same
    holds for b. It certainly came before b's event if its latest true time is before the earliest of the other: t_a +
    latest_a < t_b + earliest_b, that is, t_b - t_a > latest_a - earliest_b. The other way round: t_a - t_b > latest_b -
    earliest_a. With timestamps corrected by the estimate e, the offset lies between earliest - e and latest - e.
    """
    if a.offset is None or b.offset is None:
        return None
    known_a, known_b = _drifted(a, a.offset, now_ns), _drifted(b, b.offset, now_ns)
    limits = known_a.latest_s - known_b.earliest_s, known_b.latest_s - known_a.earliest_s
    one, two = _residual(known_a), _residual(known_b)
    corrected = one.latest_s - two.earliest_s, two.latest_s - one.earliest_s
    return Order((a.name, b.name), *limits, *corrected, max(limits), max(corrected))


def group_of(hosts: Sequence[Measured]) -> Group:
    """Find the pair of hosts that is hardest to order: one of the two furthest behind, one of the two furthest ahead.

    For a pair the limit is max(latest_i - earliest_j, latest_j - earliest_i), as `order` derives. The largest limit is
    the largest latest end minus the smallest earliest end. If both belong to one host, one of them is replaced by the
    next host's. The host that is further behind comes first; among equals the input order decides.
    """
    behind = sorted(hosts, key=lambda one: -one.offset.latest_s)[:2]
    ahead = sorted(hosts, key=lambda one: one.offset.earliest_s)[:2]
    pairs = [
        OrderingUncertainty(late.offset.latest_s - early.offset.earliest_s, (late.name, early.name))
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
    """Return the largest set of hosts whose intervals all fit into `within_s`, so that their events can be ordered.

    Of several such sets it is the one closest to the true time. Hosts with a wider interval are in none. For each
    earliest end L, count the intervals that end by L + within_s, and subtract those that begin before L: all of these
    end by then, because none is wider than within_s.
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


def _drifted(host: Host, offset: Offset, now_ns: int) -> Offset:
    """Widen an offset by the possible drift since the host's last point (B5)."""
    # of disputed time, either the database's clock or the host's servers may be right: it contains both offsets
    growth_s, wrong_s = growth_ns(now_ns - host.last_ns, host.max_drift_ppm) / NS_PER_S, disputed_s(host, now_ns)
    earliest_s, latest_s = offset.earliest_s - max(wrong_s, 0.0), offset.latest_s - min(wrong_s, 0.0)
    return Offset(offset.estimate_s, earliest_s - growth_s, latest_s + growth_s)


def _residual(offset: Offset) -> Offset:
    """Return the offset that may remain after timestamps are corrected by the estimate."""
    return Offset(0.0, offset.earliest_s - offset.estimate_s, offset.latest_s - offset.estimate_s)

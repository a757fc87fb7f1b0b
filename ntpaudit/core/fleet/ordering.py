"""In which order events on different hosts came, by their stamps and by what is known of the clocks."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ntpaudit.core.clock.readings import growth_ns
from ntpaudit.core.fleet.members import measured
from ntpaudit.core.fleet.model import Host, HostStatus, Offset, Order, OrderingUncertainty
from ntpaudit.core.fleet.severity import plausible
from ntpaudit.core.units import NS_PER_S


class Measured(NamedTuple):
    """A host that reports and has an offset: what two events on different hosts can be ordered by."""

    name: str
    site: str | None
    offset: Offset


class Group(NamedTuple):
    """Measured hosts of one place, those that are most behind and ahead, and the worst two to order, None below two."""

    hosts: Sequence[Measured]
    extremes: Sequence[Measured]
    ambiguity: OrderingUncertainty | None


def as_of(members: Iterable[HostStatus], now_ns: int) -> list[Measured]:
    """Return the hosts that report and have an offset, with what is known of that at a moment."""
    return [Measured(one.name, one.site, _drifted(host, offset, now_ns)) for one, host, offset in measured(members)]


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


def ambiguity(hosts: Sequence[Measured]) -> OrderingUncertainty | None:
    """Find the two hosts whose events must be furthest apart to be in the order of their stamps; None below two hosts.

    For a pair that is max(latest_i - earliest_j, latest_j - earliest_i), as `order` derives. Over all pairs the
    greatest is the latest end of one host less the earliest of another: of the extremes, or where both are of one and
    the same host, of one extreme and the runner-up of the other. The host that is more behind comes first; of equals
    those that are given first.
    """
    return group_of(hosts).ambiguity


def group_of(hosts: Sequence[Measured]) -> Group:
    """Find the worst pair of hosts: of the two most behind one, and of the two most ahead another one."""
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


def _drifted(host: Host, offset: Offset, now_ns: int) -> Offset:
    """Return what is known of an offset at a moment: it may have drifted since the host's last point (B5).

    Where the database's clock contradicts the host's servers, either may be right.
    """
    growth_s = growth_ns(now_ns - host.last_ns, host.max_drift_ppm) / NS_PER_S
    earliest_s, latest_s = plausible(host, offset, now_ns)
    return Offset(offset.estimate_s, earliest_s - growth_s, latest_s + growth_s)


def _residual(offset: Offset) -> Offset:
    """Return what may be left of an offset once stamps are corrected by its estimate."""
    return Offset(0.0, offset.earliest_s - offset.estimate_s, offset.latest_s - offset.estimate_s)

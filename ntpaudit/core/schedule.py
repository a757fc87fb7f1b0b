"""When to audit next, on CLOCK_BOOTTIME, which no step moves and no suspend stops; never at fixed times (P3)."""

from typing import NamedTuple

from ntpaudit.core.ntp.rate_limit import POOL_INTERVAL_S, SERVER_INTERVAL_S
from ntpaudit.core.units import NS_PER_S

FIRST_WITHIN_S = 10.0
"""A host's first audit comes within this, at random: many hosts that start at once do not ask at once."""

CONFIRM_S = 64.0
"""How soon servers are asked again to confirm what one sample said; never sooner than they may be."""

JITTER = 0.05
"""An interval is so much longer or shorter, at random (P3)."""

MARGIN = 0.01
"""Jitter keeps so far above the least distance: a server is marked as asked some time after its audit began."""


class Intervals(NamedTuple):
    """How often to ask servers of the site's own, and of public pools, and to look at the host alone, in seconds."""

    network_s: float
    pool_s: float
    local_s: float


class Schedule(NamedTuple):
    """The uptimes at which each kind of audit is due next; None where there is nobody of that kind to ask."""

    network_ns: int | None
    pool_ns: int | None
    local_ns: int

    @property
    def next_ns(self) -> int:
        """When something is due next."""
        return min(due for due in self if due is not None)


def first_schedule(
    now_ns: int, intervals: Intervals, *, has_servers: bool, has_pools: bool, has_estimate: bool, rand: float
) -> Schedule:
    """Return the first schedule of a run; `chance` is a random number from 0 to 1.

    Where an offset is known from before (`knows`), it is told at once; else servers are heard first.
    """

    def first_ns(interval_s: float) -> int:
        return now_ns + round(rand * min(interval_s, FIRST_WITHIN_S) * NS_PER_S)

    return Schedule(
        first_ns(intervals.network_s) if has_servers else None,
        first_ns(intervals.pool_s) if has_pools else None,
        now_ns if has_estimate else now_ns + round(intervals.local_s * NS_PER_S),
    )


def next_poll_ns(schedule: Schedule) -> int | None:
    """Return when sources are polled next; None where there are none."""
    return min((due for due in (schedule.network_ns, schedule.pool_ns) if due is not None), default=None)


def after_network(schedule: Schedule, now_ns: int, intervals: Intervals, rand: float) -> Schedule:
    """Return the schedule after servers were asked; pools only where they were due too."""
    pool_ns = schedule.pool_ns
    if pool_ns is not None and pool_ns <= now_ns:
        pool_ns = _later(now_ns, intervals.pool_s, rand, POOL_INTERVAL_S)
    network_ns = schedule.network_ns
    if network_ns is not None:
        network_ns = _later(now_ns, intervals.network_s, rand, SERVER_INTERVAL_S)
    return schedule._replace(network_ns=network_ns, pool_ns=pool_ns)


def after_local(schedule: Schedule, now_ns: int, intervals: Intervals, rand: float) -> Schedule:
    """Return the schedule after a look at the host."""
    return schedule._replace(local_ns=_later(now_ns, intervals.local_s, rand))


def advance_to(schedule: Schedule, asked_ns: int, now_ns: int, *, wait_s: float, least_s: float) -> Schedule:
    """Bring the next question to servers forward, to `wait_s` from now, never before `least_s` have passed since.

    Pools are left alone: their terms forbid it.
    """
    if schedule.network_ns is None:
        return schedule
    earliest_ns = earliest_allowed(asked_ns, least_s)
    wanted_ns = max(now_ns + round(wait_s * NS_PER_S), earliest_ns)
    return schedule._replace(network_ns=min(schedule.network_ns, wanted_ns))


def earliest_allowed(asked_ns: int, least_s: float) -> int:
    """Return when `least_s` will certainly have passed since servers were asked: they were, a little later."""
    return asked_ns + round(least_s * (1 + MARGIN) * NS_PER_S)


def missed(schedule: Schedule, now_ns: int, intervals: Intervals) -> int:
    """Count the network audits that were due and did not come, because the agent was stopped or starved."""
    due = [
        (due_ns, interval_s)
        for due_ns, interval_s in ((schedule.network_ns, intervals.network_s), (schedule.pool_ns, intervals.pool_s))
        if due_ns is not None
    ]
    late_s = max(((now_ns - due_ns) / NS_PER_S / interval_s for due_ns, interval_s in due), default=0.0)
    return max(0, int(late_s))


def after_suspend(schedule: Schedule, now_ns: int) -> Schedule:
    """Return the schedule after a suspend: what was due while the host slept was not missed, and is due now."""
    network_ns = None if schedule.network_ns is None else max(schedule.network_ns, now_ns)
    pool_ns = None if schedule.pool_ns is None else max(schedule.pool_ns, now_ns)
    return schedule._replace(network_ns=network_ns, pool_ns=pool_ns)


def _later(now_ns: int, interval_s: float, rand: float, least_s: float = 0.0) -> int:
    """Return an interval from now, give or take its jitter, which never brings it below the least (P2).

    An interval that is itself below the least, as loopback may have it, is left as it is.
    """
    shortest_s = interval_s * (1 - JITTER)
    if interval_s >= least_s:
        shortest_s = max(shortest_s, least_s * (1 + MARGIN))
    return now_ns + round((shortest_s + interval_s * 2 * JITTER * rand) * NS_PER_S)

"""When to audit next, on CLOCK_BOOTTIME, which no step moves and no suspend stops; never at fixed times (P3)."""

from typing import NamedTuple

from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.core.politeness import SERVER_INTERVAL_S

FIRST_WITHIN_S = 10.0
"""A host's first audit comes within this, at random: many hosts that start at once do not ask at once."""

CONFIRM_S = 64.0
"""How soon servers are asked again to confirm what one sample said; never sooner than they may be."""

JITTER = 0.05


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


def begin(
    now_ns: int, intervals: Intervals, *, has_servers: bool, has_pools: bool, knows: bool, chance: float
) -> Schedule:
    """Return the first schedule of a run; `chance` is a random number from 0 to 1.

    Where an offset is known from before (`knows`), it is told at once; else servers are heard first.
    """

    def first_ns(interval_s: float) -> int:
        return now_ns + round(chance * min(interval_s, FIRST_WITHIN_S) * NS_PER_S)

    return Schedule(
        first_ns(intervals.network_s) if has_servers else None,
        first_ns(intervals.pool_s) if has_pools else None,
        now_ns if knows else now_ns + round(intervals.local_s * NS_PER_S),
    )


def after_network(schedule: Schedule, now_ns: int, intervals: Intervals, chance: float) -> Schedule:
    """Return the schedule after servers were asked; pools only where they were due too."""
    pool_ns = schedule.pool_ns
    if pool_ns is not None and pool_ns <= now_ns:
        pool_ns = _later(now_ns, intervals.pool_s, chance)
    network_ns = None if schedule.network_ns is None else _later(now_ns, intervals.network_s, chance)
    return schedule._replace(network_ns=network_ns, pool_ns=pool_ns)


def after_local(schedule: Schedule, now_ns: int, intervals: Intervals, chance: float) -> Schedule:
    """Return the schedule after a look at the host."""
    return schedule._replace(local_ns=_later(now_ns, intervals.local_s, chance))


def sooner(schedule: Schedule, asked_ns: int, now_ns: int, *, wait_s: float, least_s: float) -> Schedule:
    """Bring the next question to servers forward, to `wait_s` from now, never below `least_s` after the last.

    Pools are left alone: their terms forbid it.
    """
    if schedule.network_ns is None:
        return schedule
    earliest_ns = asked_ns + round(least_s * NS_PER_S)
    wanted_ns = max(now_ns + round(wait_s * NS_PER_S), earliest_ns)
    return schedule._replace(network_ns=min(schedule.network_ns, wanted_ns))


def missed(schedule: Schedule, now_ns: int, intervals: Intervals) -> int:
    """Count the network audits that were due and did not come, because the agent was stopped or starved."""
    due = [
        (due_ns, interval_s)
        for due_ns, interval_s in ((schedule.network_ns, intervals.network_s), (schedule.pool_ns, intervals.pool_s))
        if due_ns is not None
    ]
    late_s = max(((now_ns - due_ns) / NS_PER_S / interval_s for due_ns, interval_s in due), default=0.0)
    return max(0, int(late_s))


def _later(now_ns: int, interval_s: float, chance: float) -> int:
    """Return an interval from now, give or take its jitter."""
    return now_ns + round(interval_s * (1 - JITTER + 2 * JITTER * chance) * NS_PER_S)


LEAST_AGAIN_S = float(SERVER_INTERVAL_S)
"""No server is asked again within this (RFC 4330); loopback may be."""


def resumed(schedule: Schedule, now_ns: int) -> Schedule:
    """Return the schedule after a suspend: what was due while the host slept was not missed, and is due now."""
    return Schedule(*(None if due_ns is None else max(due_ns, now_ns) for due_ns in schedule[:2]), schedule.local_ns)

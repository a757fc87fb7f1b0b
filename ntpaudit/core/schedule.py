"""When to audit next, on CLOCK_BOOTTIME, which steps and suspends do not change; never at fixed times (P3)."""

from typing import NamedTuple

from ntpaudit.core.ntp.rate_limit import POOL_INTERVAL_S, SERVER_INTERVAL_S
from ntpaudit.core.units import NS_PER_S

FIRST_WITHIN_S = 10.0  # the first audit is at random within this: hosts that start together must not poll together
CONFIRM_S = 64.0  # servers are polled again after this to confirm a pending finding, if rate limits allow it
JITTER = 0.05  # an interval is longer or shorter by up to this share, at random, but never below its minimum (P3)
MARGIN = 0.01  # jitter stays this share above the minimum interval: a query is sent some time after its audit begins
PUT_OFF_S = 0.5  # how long a local audit is postponed at a time while the first poll runs
POOL_RETRY_S = 300.0  # retry delay for a pool that is still inside its minimum interval


class Intervals(NamedTuple):
    """The polling intervals of the site's own servers and of public pools, and the local interval, in seconds."""

    network_s: float
    pool_s: float
    local_s: float


class Polls(NamedTuple):
    """The polls of this run. `servers_ns` and `pools_ns` are the uptimes of the last ones.

    - `is_running`: a poll is under way.
    - `has_polled`: one has ended, in this run and since the last suspend.
    - `missed`: how many were due and did not happen.
    """

    servers_ns: int | None = None
    pools_ns: int | None = None
    is_running: bool = False
    has_polled: bool = False
    missed: int = 0


class Schedule(NamedTuple):
    """The uptimes at which each kind of audit is due next; None without such sources."""

    network_ns: int | None
    pool_ns: int | None
    local_ns: int

    @property
    def next_ns(self) -> int:
        """The uptime of the next audit of any kind."""
        return min(due for due in self if due is not None)

    @property
    def next_poll_ns(self) -> int | None:
        """The uptime of the next poll of sources; None without sources."""
        return min((due for due in self[:2] if due is not None), default=None)

    def awaits_first_poll(self, polls: Polls, now_ns: int) -> bool:
        """Whether the first poll after a start or a suspend runs or is due soon."""
        due_ns = self.next_poll_ns
        is_soon = due_ns is not None and due_ns - now_ns <= FIRST_WITHIN_S * NS_PER_S
        return not polls.has_polled and (is_soon or polls.is_running)

    def after_network(self, now_ns: int, intervals: Intervals, rand: float) -> "Schedule":
        """Return the schedule after a network audit, which polls pools only if they are due too."""
        network_ns, pool_ns, _ = self
        if pool_ns is not None and pool_ns <= now_ns:
            pool_ns = _later(now_ns, intervals.pool_s, rand, POOL_INTERVAL_S)
        if network_ns is not None:
            network_ns = _later(now_ns, intervals.network_s, rand, SERVER_INTERVAL_S)
        return self._replace(network_ns=network_ns, pool_ns=pool_ns)

    def after_local(self, now_ns: int, intervals: Intervals, rand: float) -> "Schedule":
        """Return the schedule after a local audit."""
        return self._replace(local_ns=_later(now_ns, intervals.local_s, rand))

    def polling_sooner(self, polls: Polls, now_ns: int, wait_s: float, *, is_loopback: bool) -> "Schedule":
        """Poll `wait_s` from now, or as soon as rate limits allow (loopback has none); pools only without servers."""
        wanted_ns = now_ns + round(wait_s * NS_PER_S)
        if self.network_ns is not None:
            allowed_ns = earliest_allowed(polls.servers_ns, 0.0 if is_loopback else SERVER_INTERVAL_S, now_ns)
            return self._replace(network_ns=min(self.network_ns, max(wanted_ns, allowed_ns)))
        if self.pool_ns is not None:
            allowed_ns = earliest_allowed(polls.pools_ns, POOL_INTERVAL_S, now_ns)
            return self._replace(pool_ns=min(self.pool_ns, max(wanted_ns, allowed_ns)))
        return self

    def missed(self, now_ns: int, intervals: Intervals) -> int:
        """Count the network audits that were due and did not happen: the agent was stopped or had no CPU time."""
        due = ((self.network_ns, intervals.network_s), (self.pool_ns, intervals.pool_s))
        late = [(now_ns - due_ns) / NS_PER_S / interval_s for due_ns, interval_s in due if due_ns is not None]
        return max(0, *map(int, late)) if late else 0

    def after_suspend(self, now_ns: int) -> "Schedule":
        """Return the schedule after a suspend: an audit that was due during it was not missed, and is due now."""
        network_ns, pool_ns = (None if due is None else max(due, now_ns) for due in self[:2])
        return self._replace(network_ns=network_ns, pool_ns=pool_ns)


def first_schedule(
    now_ns: int, intervals: Intervals, *, has_servers: bool, has_pools: bool, has_estimate: bool, rand: float
) -> Schedule:
    """Return the first schedule: a local audit at once if `has_estimate`, else polls first; `rand` is from 0 to 1."""

    def first_ns(interval_s: float) -> int:
        return now_ns + round(rand * min(interval_s, FIRST_WITHIN_S) * NS_PER_S)

    return Schedule(
        first_ns(intervals.network_s) if has_servers else None,
        first_ns(intervals.pool_s) if has_pools else None,
        now_ns if has_estimate else now_ns + round(intervals.local_s * NS_PER_S),
    )


def earliest_allowed(polled_ns: int | None, least_s: float, now_ns: int) -> int:
    """Return when `least_s` has certainly passed since the query that was sent a little after `polled_ns`."""
    return now_ns if polled_ns is None else polled_ns + round(least_s * (1 + MARGIN) * NS_PER_S)


def _later(now_ns: int, interval_s: float, rand: float, least_s: float = 0.0) -> int:
    """Return the time one interval from now, with jitter, which never makes it shorter than `least_s` (P2).

    An interval that is itself below `least_s`, possible for loopback, keeps its length.
    """
    shortest_s = interval_s * (1 - JITTER)
    if interval_s >= least_s:
        shortest_s = max(shortest_s, least_s * (1 + MARGIN))
    return now_ns + round((shortest_s + interval_s * 2 * JITTER * rand) * NS_PER_S)

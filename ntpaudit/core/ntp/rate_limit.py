"""Rate limits: when a server may be queried again, and which addresses of a pool (P2 to P9, K2, K3).

The state of each server is stored, so one-shot runs obey the same limits as an agent.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from ntpaudit.core.units import NS_PER_S

POOL_INTERVAL_S = 1800  # the pool's terms of service: not more than once in thirty minutes (P2)
SERVER_INTERVAL_S = 15  # a client MUST NOT query a server more often than every 15 s (RFC 4330 §10)
MAX_BACKOFF_S = 8192  # the longest interval after RATE kiss-o'-deaths, unless longer by itself (K2, RFC 8633 §5.4)
MAX_TIMEOUT_BACKOFF_S = 1024  # the longest after timeouts of a site's own server: after an outage, hours are too long
DENIAL_S = 86_400  # how long a server that sent DENY or RSTR is not queried (K3)
MAX_POOL_SERVERS = 4  # of the public pool (P4)
MAX_TIMEOUTS = 3  # a pool's server is replaced after this many timeouts in a row (P8)
POOL_REFRESH_S = 14 * 86_400  # a pool's server is dropped if its name has not resolved to it for this long (P8, chrony)
SERVER_STATE_TTL_S = 14 * 86_400  # the state of a server is deleted after this time without a query (P9, K2, K3)


class Instant(NamedTuple):
    """A point in time that survives a wrong clock: uptime within a boot, and the host's own time across boots."""

    boot_id: str | None
    boottime_ns: int
    realtime_ns: int

    def since_s(self, then: "Instant") -> float:
        """Return the seconds passed since `then`; across boots at least this boot's uptime, whatever the clock says.

        If it is unknown whether the boots differ, the shorter of both results counts.
        """
        up_ns, passed_ns = self.boottime_ns - then.boottime_ns, self.realtime_ns - then.realtime_ns
        if self.boot_id is None or then.boot_id is None:
            return min((span_ns for span_ns in (up_ns, passed_ns) if span_ns >= 0), default=0) / NS_PER_S
        return (up_ns if self.boot_id == then.boot_id else max(self.boottime_ns, passed_ns)) / NS_PER_S


class ServerState(NamedTuple):
    """The stored state of one server.

    - `queried_at`: the last query; `consecutive_timeouts`: queries in a row without a reply.
    - `rate_kods`: RATE kiss-o'-deaths; `kod`, `kod_at`: the code and the time of the last kiss-o'-death.
    - `delay_ns`: the least round trip.
    - `zone`, `slot`: the pool, and the server's place in it.
    - `last_resolved`: when the pool's name last resolved to this address.
    """

    queried_at: Instant | None = None
    consecutive_timeouts: int = 0
    rate_kods: int = 0
    kod: str | None = None
    kod_at: Instant | None = None
    delay_ns: int | None = None
    zone: str | None = None
    slot: int | None = None
    last_resolved: Instant | None = None


ServerStates = dict[str, ServerState]
"""The states by `address port`; the public pool as a whole has one under its domain (P2 counts per client)."""


class BackOff(NamedTuple):
    """Why a server must not be queried now, and for how long."""

    reason: str
    wait_s: float

    @property
    def is_denial(self) -> bool:
        """Whether the server refuses us at this address; another of its addresses may reply (K3)."""
        return self.reason in ("kod:DENY", "kod:RSTR")


def back_off(state: ServerState, now: Instant, interval_s: float) -> BackOff | None:
    """Return why a server must not be queried now, or None. `interval_s` is 0 for loopback, which has no limit."""
    if state.kod_at is not None and state.kod in ("DENY", "RSTR"):
        left_s = DENIAL_S - now.since_s(state.kod_at)
        if left_s > 0:
            return BackOff(f"kod:{state.kod}", left_s)
    if state.queried_at is None:
        return None
    base_s = max(interval_s, SERVER_INTERVAL_S) if state.rate_kods else interval_s
    most_s = MAX_BACKOFF_S if state.rate_kods or base_s > MAX_TIMEOUT_BACKOFF_S else MAX_TIMEOUT_BACKOFF_S
    doubled_s = min(base_s * 2 ** min(state.rate_kods + state.consecutive_timeouts, 32), max(base_s, most_s))
    left_s = doubled_s - now.since_s(state.queried_at)
    if left_s <= 0:
        return None
    reason = "kod:RATE" if state.rate_kods else "unanswered" if state.consecutive_timeouts else "interval"
    return BackOff(reason, left_s)


def earliest_query_s(states: Iterable[ServerState], now: Instant) -> float | None:
    """Return the seconds until the first of these servers is queried again, if all wait after failed queries.

    None if one of them does not wait, or for another reason, or if it is a pool's.
    """
    holds = [None if state.zone is not None else back_off(state, now, SERVER_INTERVAL_S) for state in states]
    waits = [hold.wait_s for hold in holds if hold is not None and hold.reason == "unanswered"]
    return min(waits) if waits and len(waits) == len(holds) else None


def on_reply(state: ServerState, now: Instant, delay_ns: int) -> ServerState:
    """Store a good reply: it resets the timeouts at once, and the RATE count after a day without one."""
    best_ns = delay_ns if state.delay_ns is None else min(delay_ns, state.delay_ns)
    is_reset = state.kod_at is not None and now.since_s(state.kod_at) >= DENIAL_S
    rate_kods = 0 if is_reset else state.rate_kods
    return state._replace(queried_at=now, consecutive_timeouts=0, delay_ns=best_ns, rate_kods=rate_kods)


def on_kod(state: ServerState, now: Instant, code: str) -> ServerState:
    """Store a kiss-o'-death: each RATE doubles the interval, DENY and RSTR stop the queries (K2, K3).

    Any other code counts as a query without a reply: unknown codes must be ignored (K4).
    """
    if code not in ("RATE", "DENY", "RSTR"):
        return on_timeout(state, now)  # RFC 4330 §8: any stratum 0 reply is a reason to back off
    rate_kods = state.rate_kods + (code == "RATE")
    return state._replace(queried_at=now, consecutive_timeouts=0, rate_kods=rate_kods, kod=code, kod_at=now)


def on_timeout(state: ServerState, now: Instant) -> ServerState:
    """Store a query without a usable reply: the interval doubles each time (P9)."""
    return state._replace(queried_at=now, consecutive_timeouts=state.consecutive_timeouts + 1)


def is_stale(state: ServerState, now: Instant) -> bool:
    """Whether a state can be deleted: everything in it is older than `SERVER_STATE_TTL_S`."""
    times = (state.queried_at, state.kod_at, state.last_resolved)
    return all(now.since_s(then) > SERVER_STATE_TTL_S for then in times if then is not None)


def choose_pool_servers(
    offered: Sequence[Sequence[str]],
    known: Mapping[str, ServerState],
    now: Instant,
    *,
    interval_s: float = POOL_INTERVAL_S,
    count: int = MAX_POOL_SERVERS,
) -> tuple[str, ...]:
    """Choose at most four addresses of a pool that may be queried now.

    `offered` has the addresses of each of the zone's names, `known` the states of this zone. The nearest known servers
    are kept from poll to poll (P8). One place goes to a server that was never queried, so that the measured delay
    decides which are kept. The remaining places are filled from each name in turn (P6).
    """
    kept = sorted(
        (address for address, state in known.items() if _is_keeper(state, now, interval_s)),
        key=lambda address: (known[address].delay_ns or 0, address),
    )
    in_turn = dict.fromkeys(address for turn in zip_longest(*offered) for address in turn if address is not None)
    fresh = [
        address
        for address in in_turn
        if address not in kept and back_off(known.get(address, ServerState()), now, interval_s) is None
    ]
    untried = [address for address in fresh if known.get(address, ServerState()).queried_at is None]
    keep = kept[: max(1, count - 1)] if untried else kept[:count]
    return tuple([*keep, *untried, *(address for address in fresh if address not in untried)][:count])


def assign_slots(addresses: Sequence[str], known: Mapping[str, ServerState]) -> dict[str, int]:
    """Give each address a slot from 0 to 3, constant while the address is kept, because it names the series."""
    slots: dict[str, int] = {}
    for address in addresses:
        slot = known.get(address, ServerState()).slot
        if slot is not None and slot < MAX_POOL_SERVERS and slot not in slots.values():
            slots[address] = slot
    free = iter(sorted(set(range(MAX_POOL_SERVERS)) - set(slots.values())))
    return {address: slots[address] if address in slots else next(free) for address in addresses}


def _is_keeper(state: ServerState, now: Instant, interval_s: float) -> bool:
    """Whether a pool's server replies, is still in the DNS reply, and may be queried."""
    is_resolved = state.last_resolved is not None and now.since_s(state.last_resolved) <= POOL_REFRESH_S
    replies = state.delay_ns is not None and state.consecutive_timeouts < MAX_TIMEOUTS
    return replies and is_resolved and back_off(state, now, interval_s) is None

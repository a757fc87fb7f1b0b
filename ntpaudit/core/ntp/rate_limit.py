"""When a server may be asked again, and which of a pool's addresses to ask (MEASUREMENT P2 to P9, K2, K3).

What is remembered of a server outlives the process, so one-shot runs are as polite as an agent.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ntpaudit.core.units import NS_PER_S

POOL_INTERVAL_S = 1800
"""The pool's terms of service: not more than once in thirty minutes (P2)."""

SERVER_INTERVAL_S = 15
"""A client MUST NOT ask a server more often than every 15 s (RFC 4330 §10)."""

MAX_BACKOFF_S = 8192
"""The longest that RATE kisses make of an interval, unless it is longer by itself (K2, RFC 8633 §5.4)."""

MAX_TIMEOUT_BACKOFF_S = 1024
"""The longest that silence makes of the interval of a site's own server: NTP's slowest poll by default, 2**10 s.

When a network comes back, its hosts are to be measured again within this, not after hours. Pools may rest longer.
"""

DENIAL_S = 86_400
"""How long a server that denied us is left alone (K3)."""

MAX_POOL_SERVERS = 4
"""P4."""

MAX_TIMEOUTS = 3
"""A pool's server that missed so many times is replaced (P8)."""

POOL_REFRESH_S = 14 * 86_400
"""A pool's server is not kept longer than this without the name giving it again, chrony's `refresh` (P8)."""


SERVER_STATE_TTL_S = 14 * 86_400
"""Who was not asked for longer than this is forgotten: no reason to leave a server alone lasts as long (P9, K2, K3)."""


class Instant(NamedTuple):
    """A point in time that survives a wrong clock: uptime within a boot, and the host's own time across boots."""

    boot_id: str | None
    boottime_ns: int
    realtime_ns: int

    def since_s(self, then: "Instant") -> float:
        """Return the seconds passed since `then`; across boots at least this boot's uptime, whatever the clock says.

        Where the boots cannot be told apart the shorter of both answers counts.
        """
        up_ns, passed_ns = self.boottime_ns - then.boottime_ns, self.realtime_ns - then.realtime_ns
        if self.boot_id is None or then.boot_id is None:
            return min((span_ns for span_ns in (up_ns, passed_ns) if span_ns >= 0), default=0) / NS_PER_S
        return (up_ns if self.boot_id == then.boot_id else max(self.boottime_ns, passed_ns)) / NS_PER_S


class ServerState(NamedTuple):
    """What is remembered of one server.

    `misses` counts unanswered requests in a row, `rates` the RATE kisses; `kiss` is the code of the last kiss-o'-death
    and `kissed` when it came. `delay_ns` is the best round trip seen; `named` when a pool's name last gave the address.
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
"""What is remembered, by `address port`; the public pool as a whole under its domain (P2 counts per client)."""


class BackOff(NamedTuple):
    """Why a server must not be asked now, and for how long."""

    reason: str
    wait_s: float

    @property
    def is_denial(self) -> bool:
        """The server told us to stay away, by this address; another of its addresses may serve (K3)."""
        return self.reason in ("kod:DENY", "kod:RSTR")


def back_off(memory: ServerState, now: Instant, interval_s: float) -> BackOff | None:
    """Say whether a server must be left alone now; `interval_s` is 0 for loopback, which has no interval of its own."""
    if memory.kod_at is not None and memory.kod in ("DENY", "RSTR"):
        left_s = DENIAL_S - now.since_s(memory.kod_at)
        if left_s > 0:
            return BackOff(f"kod:{memory.kod}", left_s)
    if memory.queried_at is None:
        return None
    base_s = max(interval_s, SERVER_INTERVAL_S) if memory.rate_kods else interval_s
    most_s = MAX_BACKOFF_S if memory.rate_kods or base_s > MAX_TIMEOUT_BACKOFF_S else MAX_TIMEOUT_BACKOFF_S
    doubled_s = min(base_s * 2 ** min(memory.rate_kods + memory.consecutive_timeouts, 32), max(base_s, most_s))
    left_s = doubled_s - now.since_s(memory.queried_at)
    if left_s <= 0:
        return None
    reason = "kod:RATE" if memory.rate_kods else "unanswered" if memory.consecutive_timeouts else "interval"
    return BackOff(reason, left_s)


def on_reply(memory: ServerState, now: Instant, delay_ns: int) -> ServerState:
    """Remember a good answer: misses are forgiven at once, RATE kisses after a day without one."""
    best_ns = delay_ns if memory.delay_ns is None else min(delay_ns, memory.delay_ns)
    forgiven = memory.kod_at is not None and now.since_s(memory.kod_at) >= DENIAL_S
    return memory._replace(
        queried_at=now, consecutive_timeouts=0, delay_ns=best_ns, rate_kods=0 if forgiven else memory.rate_kods
    )


def on_kod(memory: ServerState, now: Instant, code: str) -> ServerState:
    """Remember a kiss-o'-death: every RATE halves our rate again, DENY and RSTR end it (K2, K3).

    Any other code changes nothing but that the request was made: unknown kisses are to be ignored (K4).
    """
    if code == "RATE":
        return memory._replace(
            queried_at=now, consecutive_timeouts=0, rate_kods=memory.rate_kods + 1, kod=code, kod_at=now
        )
    if code in ("DENY", "RSTR"):
        return memory._replace(queried_at=now, consecutive_timeouts=0, kod=code, kod_at=now)
    return on_timeout(memory, now)  # R4330 §8: any stratum 0 reply is a reason to back off


def on_timeout(memory: ServerState, now: Instant) -> ServerState:
    """Remember a request without a usable answer: the interval doubles each time (P9)."""
    return memory._replace(queried_at=now, consecutive_timeouts=memory.consecutive_timeouts + 1)


def is_stale(memory: ServerState, now: Instant) -> bool:
    """Whether a memory is of no use any longer: all that it tells of is more than two weeks old."""
    told = (memory.queried_at, memory.kod_at, memory.last_resolved)
    return all(now.since_s(then) > SERVER_STATE_TTL_S for then in told if then is not None)


def choose_pool_servers(
    offered: Sequence[Sequence[str]],
    known: Mapping[str, ServerState],
    now: Instant,
    *,
    interval_s: float = POOL_INTERVAL_S,
    count: int = MAX_POOL_SERVERS,
) -> tuple[str, ...]:
    """Choose at most four of a pool's addresses: the closest that are known, and one to be tried.

    `offered` are the addresses each of the zone's names gave, `known` the memories of this zone. The nearest known
    servers are kept from round to round (P8); one place goes to a server never asked, so that measured delay decides
    who is kept; any places left are filled from each name in turn (P6). Who must be left alone is passed over.
    """
    kept = sorted(
        (address for address, memory in known.items() if _is_keeper(memory, now, interval_s)),
        key=lambda address: (known[address].delay_ns or 0, address),
    )
    fresh = [
        address
        for address in _in_turn(offered)
        if address not in kept and back_off(known.get(address, ServerState()), now, interval_s) is None
    ]
    untried = [address for address in fresh if known.get(address, ServerState()).queried_at is None]
    keep = kept[: max(1, count - 1)] if untried else kept[:count]
    return tuple([*keep, *untried, *(address for address in fresh if address not in untried)][:count])


def assign_slots(
    addresses: Iterable[str], known: Mapping[str, ServerState], count: int = MAX_POOL_SERVERS
) -> dict[str, int]:
    """Give each address a place from 0 to 3 that stays the same while the address is kept: it names the series."""
    addresses = list(addresses)
    slots: dict[str, int] = {}
    for address in addresses:
        slot = known.get(address, ServerState()).slot
        if slot is not None and slot < count and slot not in slots.values():
            slots[address] = slot
    free = iter(sorted(set(range(count)) - set(slots.values())))
    return {address: slots[address] if address in slots else next(free) for address in addresses}


def _is_keeper(memory: ServerState, now: Instant, interval_s: float) -> bool:
    """A pool's server that answers, was named lately, and may be asked."""
    named_lately = memory.last_resolved is not None and now.since_s(memory.last_resolved) <= POOL_REFRESH_S
    answers = memory.delay_ns is not None and memory.consecutive_timeouts < MAX_TIMEOUTS
    return answers and named_lately and back_off(memory, now, interval_s) is None


def _in_turn(groups: Sequence[Sequence[str]]) -> list[str]:
    """Take one of each group in turn, each address once."""
    longest = max(map(len, groups), default=0)
    turns = (group[index] for index in range(longest) for group in groups if index < len(group))
    return list(dict.fromkeys(turns))

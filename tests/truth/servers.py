"""Simulated NTP servers: honest ones, wrong ones, and attackers who know what the honest ones say."""

import math
import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ntpaudit.core.ntp.measurement import ExchangeTimestamps, measure
from ntpaudit.core.ntp.packet import Reply, UnusableReply
from ntpaudit.core.observation import SourceFailure, SourceObservation
from tests.truth.clocks import NS_PER_S, PS_PER_NS, PS_PER_S, Clocks
from tests.truth.paths import Path, PathState

Behaviour = Literal[
    "honest", "at-limit", "jump", "walk", "inside", "outside", "middle", "delayed", "silent", "all-move"
]
"""What a server does.

- `honest`: its error stays within its root distance. `at-limit`: its error is all of its root distance.
- `jump`: it is wrong by `size_s`. `walk`: it goes wrong by `size_s` per second. `all-move`: as `jump`, of every server.
- `inside`, `outside`: falsetickers agree on the point furthest from the truth that the honest servers' intervals allow,
  or just beyond it. `middle`: they agree on a point half as far. All claim a tiny error.
- `delayed`: an attacker delays its replies by `size_s`. `silent`: an attacker drops its replies.
"""

FALSE_BEHAVIOURS = frozenset({"jump", "walk", "inside", "outside", "middle", "all-move"})
"""The behaviours by which a server is a falseticker."""

_NTP_EPOCH_S = 2_208_988_800
_SERVED_PS = 50_000_000
_SEND_PS = 8_000_000  # a client in user space reads its clock this long before its packet leaves, and after one arrives
_PRECISION = -23
_PRECISION_S = 2.0**_PRECISION
_TINY_S = 20e-6
_PHI = 15e-6


class ServerSpec(NamedTuple):
    """One server. Its behaviour other than `honest` begins at `from_s` of true time.

    The error of an honest one wanders by the share `wander` of its root dispersion.
    """

    path: Path
    behaviour: Behaviour = "honest"
    size_s: float = 0.0
    from_s: float = 0.0
    root_delay_s: float = 0.01
    root_dispersion_s: float = 0.005
    stratum: int = 2
    wander: float = 0.8


class Exchange(NamedTuple):
    """What any client learns from one exchange, in seconds: offset, delay, and the server's claims.

    `distance_s` is half the delay, the root distance and what clocks of 15 ppm add: RFC 5905's root distance. At its
    end, REALTIME - RAW was `level_ps`.
    """

    number: int
    offset_s: float
    delay_s: float
    root_delay_s: float
    root_dispersion_s: float
    is_false: bool
    level_ps: int = 0

    @property
    def distance_s(self) -> float:
        """The root distance, just after the reply (RFC 5905 §11.2.3)."""
        dispersion_s = self.root_dispersion_s + 2 * _PRECISION_S + _PHI * max(0.0, self.delay_s)
        return max(0.0, self.delay_s) / 2 + self.root_delay_s / 2 + dispersion_s

    @property
    def interval_s(self) -> tuple[float, float]:
        """The offsets that its root distance allows."""
        return self.offset_s - self.distance_s, self.offset_s + self.distance_s


class ServerState:
    """A server over time."""

    def __init__(self, spec: ServerSpec, number: int, rand: random.Random) -> None:
        self.spec = spec
        self.number = number
        self.path = PathState(spec.path, rand)
        self._turn, self._period_s = rand.random(), rand.uniform(2_000, 90_000)
        self._side = rand.choice((-1, 1))
        self.leap = 0

    def behaviour(self, now_s: float) -> Behaviour:
        """Return what it does at a moment of true time."""
        return self.spec.behaviour if now_s >= self.spec.from_s else "honest"

    def error_s(self, now_s: float) -> float:
        """Return how far its clock is ahead of UTC; of falsetickers that agree on a point, without that."""
        spec, behaviour = self.spec, self.behaviour(now_s)
        wander_s = spec.wander * spec.root_dispersion_s * math.sin(2 * math.pi * (now_s / self._period_s + self._turn))
        match behaviour:
            case "at-limit":
                return self._side * (spec.root_dispersion_s + spec.root_delay_s / 2)
            case "jump" | "all-move":
                return wander_s + spec.size_s
            case "walk":
                return wander_s + spec.size_s * (now_s - spec.from_s)
        return wander_s


def poll(clocks: Clocks, servers: Sequence[ServerState]) -> tuple[list[SourceObservation], list[Exchange]]:
    """Query every server; true time passes. Falsetickers that agree on a point reply last: they know the others."""
    now_s = clocks.now_ps / PS_PER_S
    falsetickers = [server for server in servers if server.behaviour(now_s) in ("inside", "outside", "middle")]
    observations: dict[int, SourceObservation] = {}
    exchanges = []
    for server in servers:
        if server not in falsetickers:
            observations[server.number], exchange = _query(clocks, server, None)
            exchanges += [exchange] if exchange else []
    if falsetickers:
        honest = [exchange.interval_s for exchange in exchanges if not exchange.is_false]
        truth_s = clocks.offset_ps / PS_PER_S
        point_s = _point(honest, len(servers), truth_s, falsetickers[0].behaviour(now_s))
        for server in falsetickers:
            observations[server.number], exchange = _query(clocks, server, point_s)
            exchanges += [exchange] if exchange else []
    return [observations[server.number] for server in servers], exchanges


def _point(honest: Sequence[tuple[float, float]], asked: int, truth_s: float, behaviour: Behaviour) -> float:
    """Return the offset that falsetickers agree on: the one furthest from the truth that enough honest servers allow.

    With f falsetickers assumed among those asked, a point counts if all but f of the usable servers allow it.
    """
    needed = max(0, len(honest) - (asked - 1) // 3)
    ends = [end for interval in honest for end in interval]
    covered = [end for end in ends if sum(low <= end <= high for low, high in honest) >= needed] or [truth_s]
    furthest_s = max(covered, key=lambda end: abs(end - truth_s))
    sign = 1 if furthest_s > truth_s else -1
    match behaviour:
        case "middle":
            return (furthest_s + truth_s) / 2
        case "outside":
            return furthest_s + sign * 3 * _TINY_S
    return furthest_s - sign * _TINY_S


def _query(clocks: Clocks, server: ServerState, point_s: float | None) -> tuple[SourceObservation, Exchange | None]:
    """Make one exchange; `point_s` is the offset that a falseticker lets the client see."""
    spec, now_s = server.spec, clocks.now_ps / PS_PER_S
    behaviour, delays = server.behaviour(now_s), server.path.delays(now_s)
    name, address = f"ntp{server.number}.example.net", f"10.{server.number}.1.1"
    if behaviour == "silent" or delays is None:
        failure = SourceFailure("unreachable", "timeout")
        return SourceObservation(name, address, 123, failure), None
    there_s, back_s = delays if point_s is None else (_TINY_S / 4, _TINY_S / 4)
    if behaviour == "delayed":
        back_s += spec.size_s
    before = clocks.read()
    sent_ns = before.realtime_ns
    clocks.advance(clocks.now_ps + _SEND_PS + round(there_s * PS_PER_S))
    error_s = server.error_s(now_s) if point_s is None else point_s - clocks.offset_ps / PS_PER_S
    received_ps = clocks.utc_ps + round(error_s * PS_PER_S)
    clocks.advance(clocks.now_ps + _SERVED_PS + round(back_s * PS_PER_S) + _SEND_PS)
    after = clocks.read()
    arrived_ns = after.realtime_ns + 1
    root_delay_s, root_dispersion_s = (0.0, 0.0) if point_s is not None else (spec.root_delay_s, spec.root_dispersion_s)
    reply = Reply(
        leap=server.leap,
        stratum=spec.stratum,
        poll=6,
        precision=_PRECISION,
        root_delay=math.ceil(root_delay_s * 65_536),
        root_dispersion=math.ceil(root_dispersion_s * 65_536),
        reference_id=bytes((192, 0, 2, server.number)),
        reference=_ntp(received_ps - 30 * PS_PER_S),
        received=_ntp(received_ps),
        transmitted=_ntp(received_ps + _SERVED_PS),
    )
    outcome = measure(reply, ExchangeTimestamps(sent_ns, arrived_ns, before, after, "user"))
    if isinstance(outcome, UnusableReply):
        return SourceObservation(name, address, 123, SourceFailure("rejected", outcome.reason)), None
    received_ns, transmitted_ns = received_ps / PS_PER_NS, (received_ps + _SERVED_PS) / PS_PER_NS
    forward_s, backward_s = (received_ns - sent_ns) / NS_PER_S, (transmitted_ns - arrived_ns) / NS_PER_S
    exchange = Exchange(
        server.number,
        (forward_s + backward_s) / 2,
        forward_s - backward_s,
        root_delay_s,
        root_dispersion_s,
        behaviour in FALSE_BEHAVIOURS,
        clocks.realtime_ps - clocks.raw_ps,
    )
    return SourceObservation(name, address, 123, (outcome,)), exchange


def _ntp(utc_ps: int) -> int:
    """Return the 64-bit NTP timestamp of a moment (RFC 5905 §6)."""
    seconds, rest_ps = divmod(utc_ps, PS_PER_S)
    return ((seconds + _NTP_EPOCH_S) % (1 << 32)) << 32 | (rest_ps << 32) // PS_PER_S

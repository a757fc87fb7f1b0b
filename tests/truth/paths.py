"""Network paths: one-way delays with heavy tails, asymmetry, congestion, route changes and loss."""

import random
from typing import NamedTuple


class Path(NamedTuple):
    """A kind of path between a host and a server. Delays are one-way, in seconds.

    - `least_s`: the shortest delay, drawn once per server between these two; `asymmetry`: how much of it differs
      between the two directions at most.
    - `queue_s`: the scale of the queueing delay, a Pareto distribution of shape `tail`, drawn for each packet.
    - `congested`: the share of time in which one direction has `congestion_s` more; such a time lasts minutes.
    - `routes_per_day`: how often the shortest delay is drawn again.
    - `loss`: the share of exchanges without a reply.
    """

    name: str
    least_s: tuple[float, float]
    asymmetry: float
    queue_s: float
    tail: float
    congested: float = 0.0
    congestion_s: float = 0.0
    routes_per_day: float = 0.0
    loss: float = 0.0


LAN = Path("LAN", (50e-6, 200e-6), 0.1, 20e-6, 2.5, 0.01, 1e-3, 0.0, 0.001)
WAN = Path("WAN", (5e-3, 40e-3), 0.3, 0.5e-3, 1.8, 0.05, 20e-3, 1.0, 0.01)
POOL = Path("pool", (5e-3, 80e-3), 0.4, 1e-3, 1.6, 0.05, 30e-3, 2.0, 0.02)
MOBILE = Path("mobile", (20e-3, 60e-3), 0.6, 10e-3, 1.3, 0.2, 150e-3, 20.0, 0.05)

_CONGESTION_S = 300.0
_MAX_QUEUE_S = 1.5


class PathState:
    """One path over time; `now_s` must not decrease."""

    def __init__(self, path: Path, rand: random.Random) -> None:
        self.path = path
        self._rand = rand
        self._route_ends_s = 0.0
        self._weather_ends_s = 0.0
        self._least_s = (0.0, 0.0)
        self._congestion_s = (0.0, 0.0)

    def delays(self, now_s: float) -> tuple[float, float] | None:
        """Return the delays there and back of one exchange; None if a packet is lost."""
        path, rand = self.path, self._rand
        if now_s >= self._route_ends_s:
            least_s, skew = rand.uniform(*path.least_s), rand.uniform(-path.asymmetry, path.asymmetry)
            self._least_s = least_s * (1 + skew / 2), least_s * (1 - skew / 2)
            per_day = path.routes_per_day
            self._route_ends_s = now_s + rand.expovariate(per_day / 86_400) if per_day else float("inf")
        if now_s >= self._weather_ends_s:
            is_congested, direction = rand.random() < path.congested, rand.randrange(2)
            extra_s = path.congestion_s * rand.random() if is_congested else 0.0
            self._congestion_s = (extra_s, 0.0) if direction else (0.0, extra_s)
            self._weather_ends_s = now_s + rand.expovariate(1 / _CONGESTION_S)
        if rand.random() < path.loss:
            return None
        return self._delay(0), self._delay(1)

    def _delay(self, direction: int) -> float:
        queue_s = self.path.queue_s * (self._rand.paretovariate(self.path.tail) - 1)
        return self._least_s[direction] + self._congestion_s[direction] + min(queue_s, _MAX_QUEUE_S)

"""Time daemons: how a host's clock is corrected."""

from collections.abc import Sequence
from typing import Protocol

from ntpaudit.core.observation import Daemon
from tests.truth.clocks import NS_PER_S, PS_PER_S, Clocks
from tests.truth.peers import chrony, chrony_regression
from tests.truth.servers import ServerState, poll

_MAX_FREQUENCY_PPM = 500.0
_MAX_SLEW_PPM = 83_333.0
_STEP_S = 1.0
_STEPS = 3
_KEPT = 64


class Discipline(Protocol):
    """Corrects a clock. `update_s` is the time between two updates, `process` what a process list shows."""

    update_s: float
    process: Daemon | None

    def update(self, clocks: Clocks, servers: Sequence[ServerState]) -> None:
        """Poll the servers and correct the clock."""

    def forget(self) -> None:
        """Start again, as after a boot or a suspend."""


class LikeChrony:
    """Select by the deepest overlap, fit a line by weighted regression, set the frequency, and slew the rest away."""

    process: Daemon | None = Daemon("chronyd", 611)

    def __init__(self, update_s: float) -> None:
        self.update_s = update_s
        self._samples: list[tuple[float, float, float]] = []
        self._updates = 0
        self._level_ps = 0
        self._tai_s = 37

    def forget(self) -> None:
        """Forget the samples: RAW has stopped since then."""
        self._samples = []

    def update(self, clocks: Clocks, servers: Sequence[ServerState]) -> None:
        """Poll the servers and correct the clock."""
        _, exchanges = poll(clocks, servers)
        statement = chrony(exchanges)
        if statement is None:
            return
        self._updates += 1
        if abs(statement.estimate_s) > _STEP_S and self._updates <= _STEPS:
            clocks.set_clock(round(statement.estimate_s * NS_PER_S))
            self._samples = []
            return
        if not self._samples:
            self._level_ps = clocks.realtime_ps - clocks.raw_ps
        if clocks.tai_s != self._tai_s:  # as chronyd, which corrects its samples for a leap second
            self._level_ps -= (clocks.tai_s - self._tai_s) * PS_PER_S
            self._tai_s = clocks.tai_s
        distance_s = (statement.high_s - statement.low_s) / 2
        utc_minus_raw_s = statement.estimate_s + (clocks.realtime_ps - clocks.raw_ps - self._level_ps) / PS_PER_S
        self._samples = [*self._samples, (clocks.raw_ps / PS_PER_S, utc_minus_raw_s, distance_s)][-_KEPT:]
        fitted = chrony_regression(self._samples)
        offset_s = statement.estimate_s
        if fitted is not None:
            slope, _, used = fitted
            clocks.frequency_ppm = max(-_MAX_FREQUENCY_PPM, min(_MAX_FREQUENCY_PPM, slope * 1e6))
            self._samples = self._samples[-max(used, 3) :]
            offset_s = _line_end_s(self._samples, slope) - (utc_minus_raw_s - statement.estimate_s)
        duration_s = max(3 * self.update_s, abs(offset_s) * 1e6 / _MAX_SLEW_PPM)
        clocks.slew(offset_s, duration_s)
        clocks.synchronise(distance_s)


class StepOnly:
    """Set the clock to the first server that replies, as a cron job with a client of SNTP does."""

    process: Daemon | None = None

    def __init__(self, update_s: float) -> None:
        self.update_s = update_s

    def forget(self) -> None:
        """It has no memory."""

    def update(self, clocks: Clocks, servers: Sequence[ServerState]) -> None:
        """Poll the servers and set the clock."""
        _, exchanges = poll(clocks, servers)
        if exchanges:
            clocks.set_clock(round(exchanges[0].offset_s * NS_PER_S))


def _line_end_s(samples: Sequence[tuple[float, float, float]], slope: float) -> float:
    """Return the offset of a line of that slope at the last sample, through the mean of the samples."""
    end = samples[-1][0]
    return sum(offset + slope * (end - time) for time, offset, _ in samples) / len(samples)

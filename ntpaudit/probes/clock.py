"""Read the system's clocks together, as close to one moment as possible (requirement T2)."""

import time
from typing import NamedTuple, Protocol

from ntpaudit.core.clock.readings import ClockReading


class Clock(Protocol):
    """The clocks of a host."""

    def read(self) -> ClockReading:
        """Return what all the clocks show now."""


class SystemClock(NamedTuple):
    """The clocks of this host. Of `tries` readings, at least one, the one that took least time is returned."""

    tries: int = 1

    def read(self) -> ClockReading:
        """Return what the kernel's clocks show now; `raw_ns` is the middle of the time that the reading took."""
        return min((_read_once() for _ in range(self.tries)), key=lambda reading: reading.width_ns)


def _read_once() -> ClockReading:
    # The realtime is read in the middle, so that the middle of the two raw readings is its best match; whatever
    # delays one of the calls shows as width.
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    monotonic = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    realtime = time.clock_gettime_ns(time.CLOCK_REALTIME)
    boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    width = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - before
    return ClockReading(realtime, monotonic, before + width // 2, boottime, width)

"""One reading of all the system's clocks, and what the differences between two readings mean."""

from typing import NamedTuple

MAX_DRIFT_PPM = 50
"""How far an undisciplined oscillator may be off: bounds grow by this in the RAW clock (B5, ClockBound's figure)."""


class ClockReading(NamedTuple):
    """What the clocks showed at one moment.

    `width_ns` is how long the reading took: the realtime and raw values belong together to within that.
    """

    realtime_ns: int
    monotonic_ns: int
    raw_ns: int
    boottime_ns: int
    width_ns: int

    @property
    def realtime_minus_raw_ns(self) -> int:
        """What the host has added to its free-running oscillator, by steps and slews alike (B6)."""
        return self.realtime_ns - self.raw_ns


def step_ns(before: ClockReading, after: ClockReading) -> int:
    """Return how far the host's clock was stepped between two readings; positive is forward (V14, J1).

    Slews act on REALTIME and MONOTONIC alike, so only a step (or a suspend) moves one against the other.
    """
    return (after.realtime_ns - before.realtime_ns) - (after.monotonic_ns - before.monotonic_ns)


def correction_ns(before: ClockReading, after: ClockReading) -> int:
    """Return how much the host's clock was moved against its own oscillator between two readings (B6)."""
    return after.realtime_minus_raw_ns - before.realtime_minus_raw_ns


def suspended_ns(before: ClockReading, after: ClockReading) -> int:
    """Return how long the host was suspended between two readings; MONOTONIC and RAW stand still then (J1, B6)."""
    return (after.boottime_ns - before.boottime_ns) - (after.monotonic_ns - before.monotonic_ns)


def growth_ns(elapsed_raw_ns: int) -> int:
    """Return how much an offset can have changed while the oscillator ran for that long, rounded up (B5)."""
    return -(-abs(elapsed_raw_ns) * MAX_DRIFT_PPM // 1_000_000)

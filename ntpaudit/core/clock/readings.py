"""One reading of all the system's clocks, and what the differences between two readings mean."""

from math import ceil
from typing import NamedTuple

MAX_DRIFT_PPM = 50.0
"""How far an oscillator is assumed to be off, unless its host shows that it is worse (B5, ClockBound's figure)."""

KERNEL_MARGIN_PPM = 15.0
"""How far a disciplined oscillator may be off the kernel's correction (R4): RFC 5905's PHI."""

MAX_KERNEL_PPM = 500.0
"""The largest frequency that a kernel corrects (MAXFREQ of linux/timex.h); a larger correction is a slew."""


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


def max_drift_ppm(kernel_ppm: float | None, assumed_ppm: float = MAX_DRIFT_PPM) -> float:
    """Return rho_max, how far this oscillator may be off by what is known of it (B5, R4).

    `kernel_ppm` is the kernel's correction: a time daemon that needs 80 ppm has an oscillator that is about 80 ppm off.
    None where it is not known; a correction beyond `MAX_KERNEL_PPM` is a slew, which says nothing of the oscillator.
    """
    if kernel_ppm is None or not abs(kernel_ppm) <= MAX_KERNEL_PPM:
        return assumed_ppm
    return max(assumed_ppm, abs(kernel_ppm) + KERNEL_MARGIN_PPM)


def growth_ns(elapsed_raw_ns: int, drift_ppm: float = MAX_DRIFT_PPM) -> int:
    """Return how much an offset can have changed while the oscillator ran for that long, rounded up (B5)."""
    return -(-abs(elapsed_raw_ns) * ceil(drift_ppm * 1000) // 1_000_000_000)

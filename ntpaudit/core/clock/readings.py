"""A reading of all system clocks, and the differences between two readings."""

from math import ceil
from typing import NamedTuple

MAX_DRIFT_PPM = 50.0
"""The assumed largest drift of an oscillator, unless its host shows a larger one (B5, ClockBound's value)."""

KERNEL_MARGIN_PPM = 15.0  # the largest difference of a drift from the kernel's correction: RFC 5905's PHI (R4)
MAX_KERNEL_PPM = 500.0  # the largest frequency that a kernel corrects (MAXFREQ of linux/timex.h); a larger is a slew


class ClockReading(NamedTuple):
    """The clocks at one moment, in ns; the realtime and raw values are simultaneous to within `width_ns`."""

    realtime_ns: int
    monotonic_ns: int
    raw_ns: int
    boottime_ns: int
    width_ns: int


def step_ns(before: ClockReading, after: ClockReading) -> int:
    """Return how far the host's clock was stepped between two readings; positive is forward (V14, J1).

    A slew changes REALTIME and MONOTONIC equally, so only a step (or a suspend) changes their difference.
    """
    return (after.realtime_ns - before.realtime_ns) - (after.monotonic_ns - before.monotonic_ns)


def correction_ns(before: ClockReading, after: ClockReading) -> int:
    """Return the host's corrections of its free oscillator between two readings (B6): positive lowers the offset."""
    return (after.realtime_ns - before.realtime_ns) - (after.raw_ns - before.raw_ns)


def suspended_ns(before: ClockReading, after: ClockReading) -> int:
    """Return how long the host was suspended between two readings; MONOTONIC and RAW stop then (J1, B6)."""
    return (after.boottime_ns - before.boottime_ns) - (after.monotonic_ns - before.monotonic_ns)


def max_drift_ppm(kernel_ppm: float | None, assumed_ppm: float = MAX_DRIFT_PPM) -> float:
    """Return rho_max, the largest possible drift of this oscillator (B5, R4).

    A time daemon that corrects by 80 ppm has an oscillator that is about 80 ppm off. A correction beyond
    `MAX_KERNEL_PPM` is a slew, which does not show the drift. `kernel_ppm` is None if unknown.
    """
    if kernel_ppm is None or not abs(kernel_ppm) <= MAX_KERNEL_PPM:
        return assumed_ppm
    return max(assumed_ppm, abs(kernel_ppm) + KERNEL_MARGIN_PPM)


def growth_ns(elapsed_raw_ns: int, drift_ppm: float = MAX_DRIFT_PPM) -> int:
    """Return the largest change of an offset by drift in that time, rounded up (B5)."""
    return -(-abs(elapsed_raw_ns) * ceil(drift_ppm * 1000) // 1_000_000_000)

"""Carry the last agreement of servers forward to a later moment (B5, B6)."""

from ntpaudit.core.clock.drift import Fit
from ntpaudit.core.clock.interval import MAX_STEP_NS, carry
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, MAX_KERNEL_PPM, ClockReading, correction_ns, suspended_ns
from ntpaudit.core.clock_state import ClockState, LastAgreement
from ntpaudit.core.leap import across_leap
from ntpaudit.core.selection import Agreement
from ntpaudit.core.units import NS_PER_S

MAX_CARRY_S = 86_400.0  # the longest holdover; after it the clock is unmeasured
_RAW_TOLERANCE = 0.15  # chrony slews MONOTONIC by at most a tenth against RAW; more means that RAW jumped (B6)


def holdover(state: ClockState, now: ClockReading) -> Agreement | None:
    """Carry the last agreement forward to `now` (B5, B6); None without one, or if RAW cannot be trusted.

    The interval grows by the largest possible drift of the oscillator (R4), or by the measured one if that is larger.
    The estimate moves with the measured frequency, or before that is known with the kernel's correction.
    """
    last = state.agreement
    if last is None:
        return None
    elapsed_ns = now.raw_ns - last.reading.raw_ns
    elapsed_mono_ns = now.monotonic_ns - last.reading.monotonic_ns
    is_sound = abs(elapsed_mono_ns - elapsed_ns) <= _RAW_TOLERANCE * abs(elapsed_ns) + MAX_STEP_NS
    is_sound = is_sound and abs(suspended_ns(last.reading, now)) <= MAX_STEP_NS
    if not (is_sound and 0 <= elapsed_ns <= MAX_CARRY_S * NS_PER_S):
        return None
    interval = carry(last.agreement.interval, last.reading, now, drift_bound_ppm(state.line, last.drift_ppm))
    drifted_ns = round(_rate_ppm(state) * elapsed_ns / 1e6)
    estimate_ns = last.agreement.estimate_ns - correction_ns(last.reading, now) + drifted_ns
    across = across_leap(interval, least_utc_ns(last), now, announced=last.leap, made=state.leapt)
    if across != interval:
        estimate_ns -= (state.leapt or last.leap) * NS_PER_S
    return last.agreement._replace(interval=across, estimate_ns=across.clamp(estimate_ns))


def utc_ns(state: ClockState, now: ClockReading) -> int | None:
    """Return the true time at a moment of this boot; None if unknown."""
    agreement = holdover(state, now)
    return None if agreement is None else now.realtime_ns + agreement.estimate_ns


def least_utc_ns(last: LastAgreement) -> int:
    """Return the earliest possible true time of an agreement."""
    return last.reading.realtime_ns + last.agreement.interval.earliest_ns


def _rate_ppm(state: ClockState) -> float:
    """Return the frequency that moves the estimate in holdover: the measured one, else the kernel's correction."""
    if state.line is not None and state.line.skew_ppm <= MAX_DRIFT_PPM:
        return state.line.frequency_ppm
    kernel_ppm = state.kernel_ppm or 0.0
    return kernel_ppm if abs(kernel_ppm) <= MAX_DRIFT_PPM else 0.0  # a slew


def drift_bound_ppm(line: Fit | None, drift_ppm: float) -> float:
    """Return the largest possible drift: the measured one if certainly larger, up to MAX_KERNEL_PPM (B5, R4)."""
    if line is None or not abs(line.frequency_ppm) - line.skew_ppm > drift_ppm:
        return drift_ppm
    return max(drift_ppm, min(abs(line.frequency_ppm) + line.skew_ppm, MAX_KERNEL_PPM))

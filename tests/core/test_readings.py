"""What the differences between two readings of all the clocks mean."""

from fractions import Fraction
from math import ceil, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.clock.readings import (
    MAX_DRIFT_PPM,
    ClockReading,
    correction_ns,
    growth_ns,
    max_drift_ppm,
    step_ns,
    suspended_ns,
)
from tests.core.hosts import LivingHost
from tests.core.worlds import DAY, HOUR, MS, NOON, YEAR, S

SPANS = st.integers(0, 30 * DAY)
STEPS = st.integers(-70 * YEAR, 70 * YEAR)
SLEWS = st.integers(-100_000, 100_000)


def test_bounds_grow_at_50_ppm() -> None:
    """The oscillator may be off by ClockBound's 50 ppm (B5)."""
    assert MAX_DRIFT_PPM == 50


def test_realtime_minus_raw() -> None:
    """What the host has added to its oscillator is REALTIME - RAW (B6)."""
    assert correction_ns(ClockReading(0, 0, 0, 0, 1), ClockReading(1_000, 70, 30, 90, 1)) == 970


@pytest.mark.parametrize("step", [-3 * S, -1, 0, 1, 3 * S])
def test_a_step_forward_is_positive(step: int) -> None:
    """A step moves REALTIME against MONOTONIC and RAW, forward for a positive one (V14, J1)."""
    before = ClockReading(NOON, 500, 400, 600, 1)
    after = ClockReading(NOON + S + step, 500 + S, 400 + S, 600 + S, 1)
    assert step_ns(before, after) == step
    assert correction_ns(before, after) == step


def test_a_slew_is_a_correction_and_no_step() -> None:
    """A slew moves REALTIME and MONOTONIC alike against RAW: a correction, but no step (J1, B6)."""
    before = ClockReading(NOON, 500, 400, 600, 1)
    after = ClockReading(NOON + S + 7, 500 + S + 7, 400 + S, 600 + S + 7, 1)
    assert step_ns(before, after) == 0
    assert correction_ns(before, after) == 7


@pytest.mark.parametrize("slept", [0, 1, HOUR])
def test_a_suspend_stops_monotonic_and_not_boottime(slept: int) -> None:
    """How long the host slept is what BOOTTIME went on while MONOTONIC stood still (J1)."""
    before = ClockReading(NOON, 500, 400, 600, 1)
    after = ClockReading(NOON + 9 * S, 500 + S, 400 + S, 600 + S + slept, 1)
    assert suspended_ns(before, after) == slept
    assert suspended_ns(after, before) == -slept


@given(SPANS, SLEWS, st.integers(-50, 50), STEPS)
@settings(max_examples=200, deadline=None)
def test_steps_and_slews_are_distinguished(span: int, slew_ppm: int, drift_ppm: int, step: int) -> None:
    """Whatever the oscillator does, the step is found exactly and the correction is step and slew together (J1, B6)."""
    host = LivingHost()
    host.poll_s = None
    before = host.read()
    host.run(span / S, drift_ppm=drift_ppm, slew_ppm=slew_ppm)
    host.step(step)
    after = host.read()
    slewed = span * slew_ppm / 10**6
    assert abs(step_ns(before, after) - step) <= 1
    assert abs(correction_ns(before, after) - step - slewed) <= 2  # their sum could be too large for a float


@pytest.mark.parametrize(
    ("elapsed", "growth"),
    [(0, 0), (1, 1), (20_000, 1), (20_001, 2), (S, 50_000), (HOUR, 180 * MS), (-S, 50_000), (-1, 1), (-20_001, 2)],
)
def test_growth_of_known_spans(elapsed: int, growth: int) -> None:
    """50 ppm is 50 us each second and 180 ms each hour, rounded up, forward and back (B5)."""
    assert growth_ns(elapsed) == growth


@given(st.integers(-(10**19), 10**19))
@settings(max_examples=200, deadline=None)
def test_growth_agrees_with_fractions(elapsed: int) -> None:
    """Growth is |elapsed| at 50 ppm, rounded up and never down (B5)."""
    assert growth_ns(elapsed) == ceil(Fraction(abs(elapsed) * 50, 10**6))


@pytest.mark.parametrize(
    ("kernel", "assumed", "worst"),
    [
        (0.0, 50.0, 50.0),
        (-3.5, 50.0, 50.0),
        (35.0, 50.0, 50.0),
        (35.5, 50.0, 50.5),
        (-80.0, 50.0, 95.0),
        (80.0, 200.0, 200.0),
        (20.0, 5.0, 35.0),
        (-500.0, 50.0, 515.0),
        (500.1, 50.0, 50.0),  # a slew
        (83_333.0, 50.0, 50.0),
        (None, 50.0, 50.0),
        (nan, 70.0, 70.0),
    ],
)
def test_how_far_an_oscillator_may_be_off(kernel: float | None, assumed: float, worst: float) -> None:
    """The assumption, or the kernel's correction and 15 ppm where that is more; a slew says nothing of it (R4)."""
    assert max_drift_ppm(kernel, assumed) == worst


@given(st.integers(0, 10**15), st.floats(0, 515))
def test_growth_is_never_less_than_the_rate(elapsed: int, drift_ppm: float) -> None:
    """Whatever the rate, it is rounded up, by a part per billion and a nanosecond at most."""
    exact = elapsed * Fraction(str(drift_ppm)) / 10**6  # of the number as it is written: 0.005 is 5 / 1000
    assert exact <= growth_ns(elapsed, drift_ppm) < exact + Fraction(elapsed, 10**9) + 1

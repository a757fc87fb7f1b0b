"""Steps and suspends, distinguished from each other and from noise."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.checks.steps import rule_of
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.clock.steps import MIN_STEP_NS, Step, find_step, find_suspend
from tests.core.hosts import LivingHost
from tests.core.worlds import DAY, ERA_1, HOUR, MS, NOON, US, YEAR, S

STEPS_NS = [
    3 * MS,
    -3 * MS,
    S,
    -S,
    HOUR,
    -HOUR,
    DAY,
    -DAY,
    42 * S - NOON,  # to 1970
    ERA_1 + 1 - NOON,
    14 * YEAR,  # to 2040
    150 * YEAR,
]
"""Sizes of steps: an hour back, a day forward, to 1970, past 2036, to 2040 and further than NTP knows."""

SPANS = st.floats(0, 1e6).map(lambda seconds: round(seconds, 6))
SLEWS = st.integers(-100_000, 100_000)


@pytest.mark.parametrize("size_ns", STEPS_NS)
def test_the_size_of_a_step_is_exact(size_ns: int) -> None:
    """Its size and direction, what the clock would have shown and what it shows are right to the nanosecond."""
    host = LivingHost()
    before = host.read(width_ns=0)
    host.run(60.25)
    undisturbed_ns = int(host.realtime)
    host.step(size_ns)
    after = host.read(width_ns=0)
    times = undisturbed_ns, undisturbed_ns + size_ns, after.boottime_ns
    assert find_step(before, after) == Step(size_ns, *times, False, after.monotonic_ns, after.monotonic_ns)
    gap = find_step(before, after, is_gap=True)
    assert gap == Step(size_ns, *times, True, before.monotonic_ns, after.monotonic_ns)
    assert find_suspend(before, after) is None


def test_each_direction_has_its_rule() -> None:
    """A step to an earlier time is back, one to a later time is forward."""
    assert [rule_of(Step(size_ns, 0, 0, 0)).id for size_ns in (-1, 1)] == ["step-back", "step-forward"]


@given(st.lists(st.tuples(SPANS, SLEWS, st.integers(-50, 50)), max_size=8), st.integers(0, MS), st.integers(0, MS))
@settings(max_examples=150, deadline=None)
def test_no_slew_is_a_step(life: list[tuple[float, int, int]], width_ns: int, other_ns: int) -> None:
    """However fast and long the clock is slewed, it was neither set nor did the host sleep."""
    host = LivingHost()
    before = host.read(width_ns=width_ns)
    for seconds, slew_ppm, drift_ppm in life:
        host.poll_s = None
        host.run(seconds, slew_ppm=slew_ppm, drift_ppm=drift_ppm)
    after = host.read(width_ns=other_ns)
    assert find_step(before, after) is None
    assert find_suspend(before, after) is None


def _late(reading: ClockReading, lateness_ns: tuple[int, int, int]) -> ClockReading:
    """Read the clocks one after the other, each some part of the width later than the one before."""
    monotonic, realtime, boottime = sorted(lateness_ns)
    return reading._replace(
        monotonic_ns=reading.monotonic_ns + monotonic,
        realtime_ns=reading.realtime_ns + realtime,
        boottime_ns=reading.boottime_ns + boottime,
    )


WIDTHS = st.integers(0, 5 * MS)


@given(WIDTHS, WIDTHS, st.data())
@settings(max_examples=300, deadline=None)
def test_the_width_of_a_reading_is_no_step(width_ns: int, other_ns: int, data: st.DataObject) -> None:
    """Whatever comes between the reads of one reading, within its width, is neither a step nor a suspend."""
    host = LivingHost()
    lateness = [data.draw(st.tuples(*[st.integers(0, width)] * 3)) for width in (width_ns, other_ns)]
    before = _late(host.read(width_ns=width_ns), lateness[0])
    host.run(1)
    after = _late(host.read(width_ns=other_ns), lateness[1])
    assert find_step(before, after) is None
    assert find_suspend(before, after) is None


@given(st.integers(1, 10**18), st.booleans(), st.integers(0, 100 * US), st.integers(0, 100 * US))
@settings(max_examples=300, deadline=None)
def test_no_step_beyond_the_noise_is_missed(size_ns: int, is_back: bool, width_ns: int, other_ns: int) -> None:
    """A step larger than the uncertainty of two readings is found, a smaller one is not reported."""
    host = LivingHost()
    before = host.read(width_ns=width_ns)
    host.step(-size_ns if is_back else size_ns)
    found = find_step(before, host.read(width_ns=other_ns))
    assert (found is not None) == (size_ns > MIN_STEP_NS + width_ns + other_ns)
    assert found is None or abs(found.size_ns) == size_ns


@given(st.integers(2, 10**7), st.integers(-HOUR, HOUR).filter(lambda ns: abs(ns) > MS))
@settings(max_examples=200, deadline=None)
def test_a_suspend_is_no_step_and_both_are_distinguished(asleep_s: int, size_ns: int) -> None:
    """A suspend moves the clock forward, which is no step; if the clock is set as well, both are reported."""
    host = LivingHost()
    before = host.read()
    host.suspend(asleep_s)
    host.run(1)
    slept = host.read()
    assert find_step(before, slept) is None
    assert find_suspend(before, slept) == asleep_s * S
    host.step(size_ns)
    stepped = host.read()
    both = find_step(before, stepped), find_suspend(before, stepped)
    assert both[0] is not None
    assert both[0].size_ns == size_ns
    assert both[1] == asleep_s * S


def test_what_the_hardware_clock_got_wrong_is_no_step() -> None:
    """The kernel sets all its clocks by how long the hardware clock says it slept, so that is part of the suspend."""
    host = LivingHost()
    before = host.read()
    host.suspend(3600, rtc_wrong_ns=-40 * S)
    after = host.read()
    assert find_step(before, after) is None
    assert find_suspend(before, after) == 3560 * S


def test_several_steps_are_their_sum() -> None:
    """Between two looks only the sum of the steps can be known; there and back is none."""
    host = LivingHost()
    before = host.read()
    host.step(HOUR)
    host.step(-S)
    found = find_step(before, host.read())
    assert found is not None
    assert found.size_ns == HOUR - S
    host.step(S - HOUR)
    assert find_step(before, host.read()) is None


def test_a_gap_is_said_to_be_one() -> None:
    """The text of a step found at the next start states that no agent was running (J3)."""
    host = LivingHost()
    before = host.read()
    host.step(S)
    found = find_step(before, host.read(), is_gap=True)
    assert found is not None
    assert found.is_gap


def test_the_level_is_realtime_minus_boottime() -> None:
    """Only what moves REALTIME against BOOTTIME is a step (J1)."""
    found = find_step(ClockReading(0, 0, 0, 0, 9), ClockReading(50 * MS, 1, 2, 30 * MS, 9))
    assert found is not None
    assert found.size_ns == 20 * MS

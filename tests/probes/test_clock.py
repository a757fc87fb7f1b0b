"""The clocks of this machine, read together."""

import time
from dataclasses import dataclass

from ntpaudit.core.clock.readings import ClockReading, step_ns
from ntpaudit.probes.clock import SystemClock
from tests.world.clocks import ShiftedClock


@dataclass(frozen=True, slots=True)
class _Stopped:
    """A clock that always shows the same."""

    reading: ClockReading

    def read(self) -> ClockReading:
        return self.reading


def _between(before: int, value: int, after: int) -> bool:
    return before <= value <= after


def test_every_clock_shows_the_time_of_the_call() -> None:
    """Each value lies between the same clock's values just before and just after the reading."""
    clocks = (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_MONOTONIC_RAW, time.CLOCK_BOOTTIME)
    before = [time.clock_gettime_ns(clock) for clock in clocks]
    reading = SystemClock().read()
    after = [time.clock_gettime_ns(clock) for clock in clocks]
    shown = (reading.realtime_ns, reading.monotonic_ns, reading.raw_ns, reading.boottime_ns)
    assert all(map(_between, before, shown, after))


def test_the_width_spans_the_reading() -> None:
    """The raw value is the middle of the width, and both lie within the time that the call took."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    reading = SystemClock().read()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    assert reading.width_ns > 0
    assert before <= reading.raw_ns - reading.width_ns // 2
    assert reading.raw_ns + reading.width_ns // 2 <= after


def test_more_tries_give_a_tighter_reading() -> None:
    """The best of nine readings is no wider than the median of single ones."""
    single = sorted(SystemClock().read().width_ns for _ in range(99))
    assert min(SystemClock(tries=9).read().width_ns for _ in range(9)) <= single[49]


def test_a_shifted_clock_is_off_by_its_constant() -> None:
    """Only the realtime moves, by the constant, ahead for a positive one; so two readings show no step."""
    reading = SystemClock().read()
    for offset_ns in (-5_000_000_000, 0, 1):
        shifted = ShiftedClock(_Stopped(reading), offset_ns)
        assert shifted.read() == reading._replace(realtime_ns=reading.realtime_ns + offset_ns)
        assert step_ns(shifted.read(), shifted.read()) == 0

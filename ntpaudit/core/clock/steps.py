"""Two clock readings to steps and suspends, told apart (J1, J3)."""

from typing import Literal, NamedTuple

from ntpaudit.core.clock.readings import ClockReading, suspended_ns
from ntpaudit.core.units import NS_PER_S

LEAST_STEP_NS = 10_000
"""A smaller jump of the level is no step but the noise of reading four clocks one after the other (J1)."""

LEAST_SUSPEND_NS = 1_000_000
"""A host that stood still for less was not suspended."""


class Step(NamedTuple):
    """The host's clock was set: `size_ns` is new minus old wall time, positive is forward.

    `before_ns` is what the clock would have shown at the moment of `after_ns`, had nobody set it. `is_gap` means that
    it happened at an unknown moment while nobody watched, before `boottime_ns`; else it was seen as it happened.
    """

    size_ns: int
    before_ns: int
    after_ns: int
    boottime_ns: int
    is_gap: bool = False

    @property
    def kind(self) -> Literal["step-back", "step-forward"]:
        """The id of the finding that this step is."""
        return "step-back" if self.size_ns < 0 else "step-forward"


class Suspend(NamedTuple):
    """The host slept for `duration_ns`; its clocks were set forward by as much when it woke, which is no step."""

    duration_ns: int
    boottime_ns: int


def level_ns(reading: ClockReading) -> int:
    """Return REALTIME - BOOTTIME, which only setting the clock changes: neither slews nor suspends do (J1)."""
    return reading.realtime_ns - reading.boottime_ns


def find_step(before: ClockReading, after: ClockReading, *, is_gap: bool = False) -> Step | None:
    """Return the step between two readings of one boot, if there was one.

    Several steps in between are seen as their sum.
    """
    size_ns = level_ns(after) - level_ns(before)
    if abs(size_ns) <= LEAST_STEP_NS + before.width_ns + after.width_ns:
        return None
    return Step(size_ns, after.realtime_ns - size_ns, after.realtime_ns, after.boottime_ns, is_gap)


def without_leap(step: Step, leap: int, now: ClockReading) -> Step | None:
    """Return what a step is beside a leap second, 1 inserted or -1 deleted; None where it is nothing else (R11)."""
    size_ns = step.size_ns + leap * NS_PER_S
    if abs(size_ns) <= LEAST_STEP_NS + 2 * now.width_ns:
        return None
    return step._replace(size_ns=size_ns, before_ns=step.after_ns - size_ns)


def find_suspend(before: ClockReading, after: ClockReading) -> Suspend | None:
    """Return how long the host was suspended between two readings of one boot, if it was."""
    duration_ns = suspended_ns(before, after)
    if duration_ns <= LEAST_SUSPEND_NS + before.width_ns + after.width_ns:
        return None
    return Suspend(duration_ns, after.boottime_ns)

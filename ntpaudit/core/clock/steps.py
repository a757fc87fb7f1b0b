"""Detect steps and suspends between two clock readings (J1, J3)."""

from typing import NamedTuple

from ntpaudit.core.clock.readings import ClockReading, suspended_ns
from ntpaudit.core.units import NS_PER_S

MIN_STEP_NS = 10_000  # a smaller change is not a step but the noise of reading four clocks one after the other (J1)
MIN_SUSPEND_NS = 1_000_000  # a shorter stop is not a suspend


class StepCause(NamedTuple):
    """What logs name as the cause of the step at the uptime `boottime_ns`; `name` is None if they name none.

    `by_person`: a command or a login session set the clock. `unread` is why the logs could not show a cause, and what
    would change that: then a `name` of None proves nothing.
    """

    boottime_ns: int
    name: str | None
    by_person: bool = False
    unread: str | None = None


class Step(NamedTuple):
    """The host's clock was set: `size_ns` is new minus old wall time, positive is forward.

    `before_ns` is the wall time without the step at the moment of `after_ns`. `is_gap`: it happened at an unknown
    moment before `boottime_ns`, while no agent was running.

    `since_ns` and `monotonic_ns`: it happened between these readings of CLOCK_MONOTONIC; None in stored states of
    earlier versions. `cause` is None until logs were searched for it.
    """

    size_ns: int
    before_ns: int
    after_ns: int
    boottime_ns: int
    is_gap: bool = False
    since_ns: int | None = None
    monotonic_ns: int | None = None
    cause: StepCause | None = None

    @property
    def is_back(self) -> bool:
        """Whether the clock was set back."""
        return self.size_ns < 0


def find_step(before: ClockReading, after: ClockReading, *, is_gap: bool = False) -> Step | None:
    """Return the step between two readings of one boot, if there was one; several steps give their sum.

    Only a step changes REALTIME - BOOTTIME, not a slew or a suspend (J1).
    """
    size_ns = (after.realtime_ns - after.boottime_ns) - (before.realtime_ns - before.boottime_ns)
    if abs(size_ns) <= MIN_STEP_NS + before.width_ns + after.width_ns:
        return None
    since_ns = before.monotonic_ns if is_gap else after.monotonic_ns  # an agent that runs detects it at once (J2)
    before_ns = after.realtime_ns - size_ns
    return Step(size_ns, before_ns, after.realtime_ns, after.boottime_ns, is_gap, since_ns, after.monotonic_ns)


def without_leap(step: Step, leap: int, now: ClockReading) -> Step | None:
    """Return a step without its leap second, 1 inserted or -1 deleted; None if nothing remains (R11)."""
    size_ns = step.size_ns + leap * NS_PER_S
    if abs(size_ns) <= MIN_STEP_NS + 2 * now.width_ns:
        return None
    return step._replace(size_ns=size_ns, before_ns=step.after_ns - size_ns)


def find_suspend(before: ClockReading, after: ClockReading) -> int | None:
    """Return how long the host was suspended between two readings of one boot, in ns; None if it was not."""
    duration_ns = suspended_ns(before, after)
    return duration_ns if duration_ns > MIN_SUSPEND_NS + before.width_ns + after.width_ns else None

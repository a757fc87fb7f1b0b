"""Leap seconds: how the kernel and the servers announce one, and its effect on an offset that is carried across (R11).

A leap second is 1 if inserted (23:59:60), -1 if deleted. UTC then loses or gains a second against CLOCK_MONOTONIC_RAW.
So does a clock that makes the leap second, so its offset does not change.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.clock.steps import Step
from ntpaudit.core.observation import KernelState, Unavailable
from ntpaudit.core.units import NS_PER_S

TIME_OOP, TIME_WAIT = 3, 4
"""adjtimex: a leap second is being inserted; one was inserted or deleted, and is still announced (A1)."""

_ANNOUNCED = {1: 1, 2: -1}  # LI: the last minute of the month has 61 seconds, or 59
_TICK_NS = 100_000_000  # the kernel makes it at its next tick, so a reading may already show the new month
_MOST_NS = 3 * NS_PER_S // 2
_LEAST_NS = NS_PER_S // 2
_UNIX_EPOCH = datetime(1970, 1, 1)  # naive on purpose: only ever used as arithmetic on UTC


def announced_leap(indicators: Iterable[int]) -> int:
    """Return the leap second that more than half of the agreeing sources announce for the end of the month (V20)."""
    leaps = [_ANNOUNCED.get(indicator, 0) for indicator in indicators]
    return next((leap for leap in (1, -1) if 2 * leaps.count(leap) > len(leaps)), 0)


def month_end_ns(utc_ns: int) -> int | None:
    """Return when the UTC month of a moment ends, the only time for a leap second; None outside the years 1 to 9999."""
    try:
        moment = _UNIX_EPOCH + timedelta(seconds=utc_ns // NS_PER_S)
        end = (moment.replace(day=28) + timedelta(days=4)).replace(day=1, hour=0, minute=0, second=0)
    except (OverflowError, ValueError):
        return None
    return (end - _UNIX_EPOCH) // timedelta(seconds=1) * NS_PER_S


def leap_of_step(
    step: Step | None,
    before: ClockReading,
    kernel: KernelState | Unavailable | None,
    tai_before_s: int | None,
    announced: int,
) -> int:
    """Return the leap second that a step since the reading `before` is; 0 if it is none.

    A month must have ended by the host's clock. Then the step is a leap second if the servers announced it, or if the
    kernel reports it: by its state, or by TAI - UTC, which stays changed after a time daemon has cleared the state.
    """
    if step is None or not _LEAST_NS <= abs(step.size_ns) <= _MOST_NS:  # perhaps together with a smaller step
        return 0
    leap = 1 if step.size_ns < 0 else -1
    end_ns = month_end_ns(before.realtime_ns - _TICK_NS)
    if end_ns is None or step.before_ns < end_ns - NS_PER_S:
        return 0
    is_kernel = isinstance(kernel, KernelState) and (
        kernel.state in (TIME_OOP, TIME_WAIT) or (tai_before_s is not None and kernel.tai_s - tai_before_s == leap)
    )
    return leap if is_kernel or announced == leap else 0


def across_leap(offset: Interval, since_utc_ns: int, now: ClockReading, *, announced: int, made: int) -> Interval:
    """Apply a leap second to an offset that was carried from `since_utc_ns` to now without it.

    `announced` is by the servers of that time, `made` by the host's own clock since. If only one of the two has it, or
    if it may be due just now, the interval contains both possibilities.
    """
    end_ns = month_end_ns(since_utc_ns)
    latest_utc_ns = now.realtime_ns + offset.latest_ns
    may_be = made or (announced if end_ns is not None and latest_utc_ns >= end_ns else 0)
    if not may_be:
        return offset
    moved = Interval(offset.earliest_ns - may_be * NS_PER_S, offset.latest_ns - may_be * NS_PER_S)
    if made == announced and end_ns is not None and now.realtime_ns + offset.earliest_ns >= end_ns:
        return moved
    return Interval(min(offset.earliest_ns, moved.earliest_ns), max(offset.latest_ns, moved.latest_ns))

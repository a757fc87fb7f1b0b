"""What is a leap second, and what it does to an offset that is carried across (R11)."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.clock.steps import Step
from ntpaudit.core.leap import across_leap, announced_leap, leap_of_step, month_end_ns
from ntpaudit.core.observation import Unavailable
from tests.core.worlds import DAY, MS, NOON, SYNCHRONISED, S, reading

END = 1_793_491_200 * S
"""2026-11-01T00:00:00Z, the end of October."""


@pytest.mark.parametrize(
    ("indicators", "leap"),
    [
        ([], 0),
        ([0, 0, 0], 0),
        ([1, 1, 0], 1),
        ([1, 0], 0),
        ([1, 1, 0, 0], 0),
        ([2, 2, 2], -1),
        ([1, 2, 0], 0),
        ([3, 3], 0),
    ],
)
def test_more_than_half_must_announce_it(indicators: list[int], leap: int) -> None:
    """V20: a leap second is believed where more than half of the agreeing sources announce it."""
    assert announced_leap(indicators) == leap


@given(st.integers(-62_000_000_000, 252_000_000_000))
def test_the_end_of_the_month(utc_s: int) -> None:
    """It is the first moment of the next month, and never more than 31 days away."""
    end_ns = month_end_ns(utc_s * S)
    assert end_ns is not None
    end = datetime(1970, 1, 1) + timedelta(seconds=end_ns // S)
    last = datetime(1970, 1, 1) + timedelta(seconds=end_ns // S - 1)
    now = datetime(1970, 1, 1) + timedelta(seconds=utc_s)
    assert (end.day, end.hour, end.minute, end.second, end_ns % S) == (1, 0, 0, 0, 0)
    assert (last.year, last.month) == (now.year, now.month)


@pytest.mark.parametrize("utc_ns", [-(10**21), 10**21, 253_402_300_799 * S])
def test_a_month_that_no_calendar_has(utc_ns: int) -> None:
    """Outside the years 1 to 9999 there is no leap second to look for."""
    assert month_end_ns(utc_ns) is None


@pytest.mark.parametrize(
    ("size_ns", "state", "tai", "announced", "leap"),
    [
        (-S, 3, 37, 0, 1),
        (-S, 4, 38, 0, 1),
        (S, 4, 37, 0, -1),
        (-S, 0, 38, 0, 1),
        (S, 0, 36, 0, -1),
        (S, 0, 38, 0, 0),
        (-S, 0, 37, 1, 1),
        (-S, 0, 37, -1, 0),
        (-S, 0, 37, 0, 0),
        (-2 * S, 3, 38, 1, 0),
        (-400 * MS, 3, 38, 1, 0),
        (-1003 * MS, 3, 38, 1, 1),
    ],
)
def test_what_makes_a_step_a_leap_second(size_ns: int, state: int, tai: int, announced: int, leap: int) -> None:
    """The kernel's state, TAI - UTC that counted on, or the servers; and about a second at the end of a month."""
    before, kernel = reading(END - 60 * S), SYNCHRONISED._replace(state=state, tai_s=tai)
    step = Step(size_ns, END + S, END + S + size_ns, DAY)
    assert leap_of_step(step, before, kernel, 37, announced) == leap
    assert leap_of_step(step, before, Unavailable("forbidden"), 37, announced) == (leap if announced else 0)
    earlier = Step(size_ns, END - 10 * S, END - 10 * S + size_ns, DAY)
    assert leap_of_step(earlier, before, kernel, 37, announced) == 0
    assert leap_of_step(None, before, kernel, 37, announced) == 0


def test_an_offset_across_a_leap_second() -> None:
    """It stays what it was where host and servers make it together, and may be either where only one of them does."""
    here, after = Interval(-5, 7), reading(END + 10 * S)
    moved = Interval(S - 5, S + 7)  # what the host's own leap second alone makes of it

    def across(offset: Interval, now_ns: int = END + 10 * S, **leaps: int) -> Interval:
        return across_leap(offset, NOON, after._replace(realtime_ns=now_ns), **leaps)

    assert across(here, announced=0, made=0) == here
    assert across(moved, announced=1, made=1) == here
    assert across(moved, announced=0, made=1) == Interval(-5, S + 7)
    assert across(here, announced=1, made=0) == Interval(-5 - S, 7)
    assert across(here, announced=-1, made=0) == Interval(-5, S + 7)
    assert across(here, END - 10 * S, announced=1, made=0) == here
    assert across(moved, END - S, announced=1, made=1) == Interval(-5, S + 7)  # due just now

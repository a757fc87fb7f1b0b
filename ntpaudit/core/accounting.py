"""The state of each second of a host: within, unproven, beyond, unmeasured, absent or off (AC1, AC2).

Time is partitioned, not sampled: over any period the six states add up to its length, to the second. Times are measured
UTC in whole seconds.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from ntpaudit.core.policy import Verdict
from ntpaudit.core.units import HOUR_S

State = Literal["within", "unproven", "beyond", "unmeasured", "absent", "off"]
"""A verdict while the agent ran, `absent` while only the host ran, `off` while the host did not run."""

GRACE = 3.3  # the time between two records has their verdicts if it is at most this many local intervals (AC2)

_WORST: tuple[Verdict, ...] = ("within", "unproven", "unmeasured", "beyond")  # from best to worst, by severity


class Moment(NamedTuple):
    """One record: its true time, uptime, suspended time in that uptime, verdict, and the local interval from then."""

    utc_s: int
    boot_id: str | None
    up_s: float
    slept_s: float
    verdict: Verdict
    local_s: float


class Stretch(NamedTuple):
    """A period [begin_s, end_s) in one state."""

    begin_s: int
    end_s: int
    state: State


class Spans(NamedTuple):
    """The seconds in each state."""

    within: int = 0
    unproven: int = 0
    beyond: int = 0
    unmeasured: int = 0
    absent: int = 0
    off: int = 0


def stretches(moments: Iterable[Moment], steps: Sequence[int] = (), until_s: int | None = None) -> Iterator[Stretch]:
    """Yield the time from the first moment to the last, and on to `until_s`, without a gap or an overlap.

    `steps` are the times at which the clock was set, in order. The time after the last moment has its verdict until a
    record is overdue; then it is `absent`.
    """
    before: Moment | None = None
    for moment in moments:
        if before is not None:
            if moment.utc_s < before.utc_s:  # the true time is known only within its bound
                moment = moment._replace(utc_s=before.utc_s)
            yield from _between(before, moment, steps)
        before = moment
    if before is not None and until_s is not None and until_s > before.utc_s:
        if until_s - before.utc_s > GRACE * before.local_s:
            yield Stretch(before.utc_s, until_s, "absent")
        else:
            yield from _parted(before.utc_s, until_s, steps, before.verdict, None)


def by_hour(parts: Iterable[Stretch], until_s: int) -> dict[int, Spans]:
    """Return the spans of every hour by its beginning, up to `until_s`; what precedes the first stretch is absent."""
    hours: dict[int, list[int]] = {}
    for part in parts:
        if not hours:
            _add(hours, Stretch(part.begin_s // HOUR_S * HOUR_S, part.begin_s, "absent"), until_s)
        _add(hours, part, until_s)
    return {hour_s: Spans(*seconds) for hour_s, seconds in hours.items()}


def _add(hours: dict[int, list[int]], part: Stretch, until_s: int) -> None:
    begin_s, end_s = part.begin_s, min(part.end_s, until_s)
    state = Spans._fields.index(part.state)
    while begin_s < end_s:
        hour_s = begin_s // HOUR_S * HOUR_S
        cut_s = min(end_s, hour_s + HOUR_S)
        hours.setdefault(hour_s, [0] * len(Spans._fields))[state] += cut_s - begin_s
        begin_s = cut_s


def _between(before: Moment, after: Moment, steps: Sequence[int]) -> Iterator[Stretch]:
    if after.utc_s == before.utc_s:
        return
    has_booted = before.boot_id != after.boot_id
    if before.boot_id is None or after.boot_id is None:  # a smaller uptime shows it
        has_booted = after.up_s < before.up_s
    if has_booted:
        booted_s = max(before.utc_s, after.utc_s - round(after.up_s))
        yield from _some(before.utc_s, booted_s, "off")
        yield from _some(booted_s, after.utc_s, "absent")
        return
    slept_s = round(after.slept_s - before.slept_s) if before.boot_id == after.boot_id else 0
    asleep_s = max(before.utc_s, after.utc_s - max(0, slept_s))  # a record is made at once after a suspend
    if asleep_s - before.utc_s > GRACE * before.local_s:  # the agent may have been stopped
        yield from _long(before, after, asleep_s)
    else:
        yield from _parted(before.utc_s, asleep_s, steps, before.verdict, after.verdict)
    yield from _some(asleep_s, after.utc_s, "off")


def _long(before: Moment, after: Moment, end_s: int) -> Iterator[Stretch]:
    """Yield a stretch that is too long for the agent to have run throughout.

    The uptime shows how long the agent was stopped. If the true time has advanced by more, the servers have changed
    their time, and the difference is unmeasured.
    """
    grace_s, stopped_s = GRACE * before.local_s, end_s - before.utc_s
    up_s = after.up_s - before.up_s - max(0.0, after.slept_s - before.slept_s)
    if stopped_s - up_s > grace_s:
        stopped_s = round(up_s) if up_s > grace_s else 0
    yield from _some(before.utc_s, before.utc_s + stopped_s, "absent")
    yield from _some(before.utc_s + stopped_s, end_s, "unmeasured")


def _parted(
    begin_s: int, end_s: int, steps: Sequence[int], before: Verdict, after: Verdict | None
) -> Iterator[Stretch]:
    """Yield the time between two verdicts: the worse of both, unless steps of the clock separate them.

    Nothing is proven between two steps, nor after a step without a later record (`after` is None).
    """
    inside = steps[bisect_right(steps, begin_s) : bisect_left(steps, end_s)]
    worse = before if after is None else _worse(before, after)
    if not inside:
        yield from _some(begin_s, end_s, worse)
        return
    unproven = _worse(worse, "unproven")
    yield from _some(begin_s, inside[0], before)
    yield from _some(inside[0], inside[-1], unproven)
    yield from _some(inside[-1], end_s, unproven if after is None else after)


def _worse(one: Verdict, other: Verdict) -> Verdict:
    return one if one == other else max(one, other, key=_WORST.index)


def _some(begin_s: int, end_s: int, state: State) -> Sequence[Stretch]:
    return (Stretch(begin_s, end_s, state),) if begin_s < end_s else ()

"""Every second of a host's time accounted for: within, unproven, beyond, unmeasured, absent or off (EVIDENCE A1, A2).

Time is partitioned, and no sample counted: over any period the six spans sum up to its length, to the second. Times are
UTC as measured, in whole seconds.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from ntpaudit.core.policy import Verdict

State = Literal["within", "unproven", "beyond", "unmeasured", "absent", "off"]
"""What a second was: a verdict while the agent ran, `absent` while only the host ran, `off` while the host did not."""

GRACE = 3.3
"""A stretch between two records has their verdicts if it is no longer than this many local intervals (A2)."""

HOUR_S = 3600

_WORST: tuple[Verdict, ...] = ("within", "unproven", "unmeasured", "beyond")
"""From the best to the worst, by the severity that each has."""


class Moment(NamedTuple):
    """One record of the agent: its true time and uptime in seconds, the sleep in that uptime, and its verdict.

    `local_s` is the local interval in force from then on.
    """

    utc_s: int
    boot_id: str | None
    up_s: float
    slept_s: float
    verdict: Verdict
    local_s: float


class Stretch(NamedTuple):
    """A span of time, [begin_s, end_s), in one state."""

    begin_s: int
    end_s: int
    state: State


class Spans(NamedTuple):
    """How many seconds were in each state."""

    within: int = 0
    unproven: int = 0
    beyond: int = 0
    unmeasured: int = 0
    absent: int = 0
    off: int = 0

    @property
    def length_s(self) -> int:
        """The length of the period."""
        return sum(self)


def stretches(moments: Iterable[Moment], steps: Sequence[int] = (), until_s: int | None = None) -> Iterator[Stretch]:
    """Yield the time from the first moment to the last, and on to `until_s`, without a gap or an overlap.

    `steps` are the times at which the clock was set, in order. What lies after the last moment has its verdict while a
    record may still come, as far as the clock was not set since, and is `absent` once it is late.
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
    """Return the spans of every hour, by its beginning, from that of the first stretch to `until_s`.

    Each hour sums up to 3600, the last one to what has passed of it. Before the first stretch nothing shows that an
    agent ran.
    """
    hours: dict[int, list[int]] = {}
    first = True
    for part in parts:
        if first:
            first, begin_s = False, part.begin_s // HOUR_S * HOUR_S
            _add(hours, Stretch(begin_s, part.begin_s, "absent"), until_s)
        _add(hours, part, until_s)
    return {hour_s: Spans(*seconds) for hour_s, seconds in hours.items()}


def _add(hours: dict[int, list[int]], part: Stretch, until_s: int) -> None:
    """Add a stretch to the hours that it touches."""
    begin_s, end_s = part.begin_s, min(part.end_s, until_s)
    state = Spans._fields.index(part.state)
    while begin_s < end_s:
        hour_s = begin_s // HOUR_S * HOUR_S
        cut_s = min(end_s, hour_s + HOUR_S)
        hours.setdefault(hour_s, [0] * len(Spans._fields))[state] += cut_s - begin_s
        begin_s = cut_s


def _between(before: Moment, after: Moment, steps: Sequence[int]) -> Iterator[Stretch]:
    """Yield what lies between two records."""
    if after.utc_s == before.utc_s:
        return
    if _has_booted(before, after):
        booted_s = max(before.utc_s, after.utc_s - round(after.up_s))
        yield from _some(before.utc_s, booted_s, "off")
        yield from _some(booted_s, after.utc_s, "absent")
        return
    slept_s = round(after.slept_s - before.slept_s) if before.boot_id == after.boot_id else 0
    asleep_s = max(before.utc_s, after.utc_s - max(0, slept_s))  # it is looked at once after the host woke up
    if asleep_s - before.utc_s > GRACE * before.local_s:  # the agent may have been gone
        yield from _long(before, after, asleep_s)
    else:
        yield from _parted(before.utc_s, asleep_s, steps, before.verdict, after.verdict)
    yield from _some(asleep_s, after.utc_s, "off")


def _has_booted(before: Moment, after: Moment) -> bool:
    """Whether the host was booted between two records; where it has no boot ids an uptime that is less shows it."""
    if before.boot_id is None or after.boot_id is None:
        return after.up_s < before.up_s
    return before.boot_id != after.boot_id


def _long(before: Moment, after: Moment, end_s: int) -> Iterator[Stretch]:
    """Yield a stretch that is too long for the agent to have been there throughout, if it was one.

    For how long the agent was gone the uptime says. Where the true time has moved by more, servers have changed their
    mind about it: what lies between is unmeasured, because it is not known how much of it there was.
    """
    grace_s, gone_s = GRACE * before.local_s, end_s - before.utc_s
    up_s = after.up_s - before.up_s - max(0.0, after.slept_s - before.slept_s)
    if gone_s - up_s > grace_s:
        gone_s = round(up_s) if up_s > grace_s else 0
    yield from _some(before.utc_s, before.utc_s + gone_s, "absent")
    yield from _some(before.utc_s + gone_s, end_s, "unmeasured")


def _parted(
    begin_s: int, end_s: int, steps: Sequence[int], before: Verdict, after: Verdict | None
) -> Iterator[Stretch]:
    """Yield what lies between two verdicts: the worse of both, unless steps of the clock part the one from the other.

    Between two steps the clock was at neither, so nothing is proven of that time; and nothing after one while there is
    no record since (`after` is None).
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
    """Return the worse of two verdicts."""
    return one if one == other else max(one, other, key=_WORST.index)


def _some(begin_s: int, end_s: int, state: State) -> Sequence[Stretch]:
    """Return a stretch, or nothing where it would be empty."""
    return (Stretch(begin_s, end_s, state),) if begin_s < end_s else ()

"""Excursions: the spans in which a host's clock was beyond its tolerance, or not proven to be within it (AC6)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from ntpaudit.core.accounting import Moment, Stretch
from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.events import Event
from ntpaudit.core.policy import Verdict, max_error_s, min_error_s
from ntpaudit.core.units import NS_PER_S, format_duration

CAUSE_NEAR_S = 300  # a step that a record saw can have happened this long before it

ExcursionState = Literal["beyond", "unproven"]
STATES: tuple[ExcursionState, ...] = ("beyond", "unproven")


class Excursion(NamedTuple):
    """A longest span [begin_s, end_s) that is `beyond`, or one that is `unproven`.

    - `is_open`: it was not over at `end_s`, the end of the period up to which it is known.
    - `earliest_s`, `latest_s`: all offsets that its records do not rule out, in seconds; positive is behind.
    - `proved_s`: the largest error that is proved; `possible_s`: the largest that is possible, None without a record.
    - `findings`: the ids of those that counted; `cause`: the largest step at its beginning or in it, with its cause
      where a log names one; None where no step explains it.
    - `is_accepted`: in each of its records a finding that states its verdict is accepted, or an exception covers it.
    """

    state: ExcursionState
    begin_s: int
    end_s: int
    is_open: bool
    earliest_s: float | None = None
    latest_s: float | None = None
    proved_s: float = 0.0
    possible_s: float | None = None
    findings: tuple[str, ...] = ()
    cause: str | None = None
    is_accepted: bool = False

    @property
    def duration_s(self) -> int:
        """How long it lasted, as far as it is known."""
        return self.end_s - self.begin_s


def find_excursions(
    parts: Sequence[Stretch],
    moments: Sequence[Moment],
    events: Sequence[Event],
    until_s: int,
    later: Verdict | None = None,
    earlier: Sequence[Excursion] = (),
) -> tuple[Excursion, ...]:
    """Return the excursions in stretches that end at `until_s` or later, each from its own beginning.

    `moments` are the records in the stretches, and `later` is the verdict of the next one after them. One of `earlier`
    that ends where the stretches begin continues.
    """
    going_on = {(one.state, one.end_s): one for one in earlier}
    found = []
    for state in STATES:
        for begin_s, end_s in _runs(parts, state):
            inside = [one for one in moments if one.verdict == state and begin_s <= one.utc_s < min(end_s, until_s)]
            before = going_on.get((state, begin_s))
            excursion = _excursion(state, begin_s, min(end_s, until_s), inside)
            is_open = end_s > until_s or (end_s == until_s and later in (state, None))
            cause = _cause((before and before.cause) or _largest_step(events, *excursion[1:3]), inside)
            excursion = excursion._replace(is_open=is_open, cause=cause)
            found.append(excursion if before is None else _joined(before, excursion))
    return tuple(sorted(found, key=lambda one: one.begin_s))


def merged(excursions: Iterable[Excursion]) -> tuple[Excursion, ...]:
    """Return each excursion once, as it is known last: the excursions of consecutive periods repeat what continues."""
    return tuple({(one.state, one.begin_s): one for one in excursions}.values())


def describe_logs(earliest_s: float | None, latest_s: float | None) -> str:
    """Return what timestamps of such a time are worth. Behind: they are too early; ahead: too late."""
    if earliest_s is None or latest_s is None:
        return "not known: no measurement"
    if earliest_s > 0 or latest_s < 0:
        least_s, most_s = sorted((abs(earliest_s), abs(latest_s)))
        size = f"{format_duration(least_s, rounding='down')} to {format_duration(most_s, rounding='up')}"
        return f"behind: {size} too early" if earliest_s > 0 else f"ahead: {size} too late"
    early, late = format_duration(latest_s, rounding="up"), format_duration(earliest_s, rounding="up")
    return f"from {early} too early to {late} too late"


def _runs(parts: Iterable[Stretch], state: ExcursionState) -> Iterator[tuple[int, int]]:
    begin_s = end_s = None
    for part in parts:
        if part.state == state:
            begin_s, end_s = (part.begin_s if begin_s is None else begin_s), part.end_s
        elif begin_s is not None and end_s is not None:
            yield begin_s, end_s
            begin_s = None
    if begin_s is not None and end_s is not None:
        yield begin_s, end_s


def _largest_step(events: Iterable[Event], begin_s: int, end_s: int) -> str | None:
    """Return the text of the largest step at the beginning of an excursion or in it."""
    steps = [
        one
        for one in events
        if one.kind in STEP_KINDS
        and one.raised
        and one.utc_ns is not None
        and begin_s - CAUSE_NEAR_S <= one.utc_ns // NS_PER_S < end_s
    ]
    step = max(steps, key=lambda event: abs(event.value_s or 0.0), default=None)
    return step and step.text


def _cause(step: str | None, records: Iterable[Moment]) -> str | None:
    """Return the text of a step, with its cause if a record has it: its message begins with the same text."""
    if step is None:
        return None
    messages = (message for one in records for _, message in one.facts.findings if message.startswith(step))
    return max(messages, key=len, default=step)


def _excursion(state: ExcursionState, begin_s: int, end_s: int, records: Sequence[Moment]) -> Excursion:
    measured = [(one.facts, interval) for one in records if (interval := one.facts.interval) is not None]
    return Excursion(
        state,
        begin_s,
        end_s,
        False,
        min((interval.earliest_ns / NS_PER_S for _, interval in measured), default=None),
        max((interval.latest_ns / NS_PER_S for _, interval in measured), default=None),
        max((min_error_s(interval) for facts, interval in measured if facts.is_guaranteed), default=0.0),
        max((max_error_s(interval) for _, interval in measured), default=None),
        tuple(sorted({name for one in records for name, _ in one.facts.findings})),
        is_accepted=bool(records) and all(one.facts.is_accepted for one in records),
    )


def _joined(before: Excursion, after: Excursion) -> Excursion:
    """Join an excursion with what continues it."""
    return after._replace(
        begin_s=before.begin_s,
        earliest_s=extreme(min, before.earliest_s, after.earliest_s),
        latest_s=extreme(max, before.latest_s, after.latest_s),
        proved_s=max(before.proved_s, after.proved_s),
        possible_s=extreme(max, before.possible_s, after.possible_s),
        findings=tuple(sorted({*before.findings, *after.findings})),
        is_accepted=before.is_accepted and after.is_accepted,
    )


def extreme(choose: Callable[[list[float]], float], *values: float | None) -> float | None:
    """Return the smallest or the largest of the values that are known, by `min` or `max`."""
    known = [value for value in values if value is not None]
    return choose(known) if known else None

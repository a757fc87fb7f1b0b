"""The account of an hour or a UTC day of a host: its time by state, and all that its records show of it (AC4)."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ntpaudit.core.accounting import InForce, Moment, Spans, Stretch, Unplaced, in_order, placed, stretches
from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.events import Event
from ntpaudit.core.excursions import Excursion, extreme, find_excursions, merged
from ntpaudit.core.units import DAY_S, HOUR_S, NS_PER_S

DAY = int(DAY_S)

_JUDGED = ("within", "unproven", "beyond")

Counts = tuple[tuple[int, int], ...]  # how often each number was found


class Account(NamedTuple):
    """What is known of a period of `length_s` seconds that begins at `begin_s`, in measured UTC.

    - `spans`: its seconds by state; they add up to `length_s`.
    - `audits`: the records in it. `earliest_s`, `latest_s`, `bound_s`: the extremes of the offsets in seconds and the
      largest maximum error, of these and of the records before and after it that its first and last seconds are judged
      by; None without a measurement.
    - `steps`, `step_s`: how often the clock was set, and the largest step; positive is forward.
    - `queried`, `usable`: each number of sources that were queried, or usable, in network audits, and how often.
    - `two_sources_s`, `three_sources_s`: the seconds with two, or three, or more usable sources.
    - `raised`, `cleared`: the findings that were raised and cleared, without steps.
    - `in_force`: what was in force at its beginning, and each change.
    - `excursions`: those in it, each from its own beginning, which may be earlier.
    - `chain_first`, `chain_last`: the first and the last entry of the chain in its time, and `chain_head` the head of
      the last; None without a chain.
    - `rows`: the ids of the first and the last audit that it follows from, before its beginning and after its end; the
      id of the first one that the next hour follows from; and the true time in ns at which the boot of that one began,
      if it is known. None for a day.
    """

    begin_s: int
    length_s: int
    spans: Spans
    audits: int = 0
    earliest_s: float | None = None
    latest_s: float | None = None
    bound_s: float | None = None
    steps: int = 0
    step_s: float | None = None
    queried: Counts = ()
    usable: Counts = ()
    two_sources_s: int = 0
    three_sources_s: int = 0
    raised: int = 0
    cleared: int = 0
    in_force: tuple[InForce, ...] = ()
    excursions: tuple[Excursion, ...] = ()
    chain_first: int | None = None
    chain_last: int | None = None
    chain_head: str | None = None
    rows: tuple[int, ...] | None = None

    @property
    def end_s(self) -> int:
        """The end of the period."""
        return self.begin_s + self.length_s


def least(counts: Counts) -> int | None:
    """Return the smallest number that was found."""
    return min((number for number, _ in counts), default=None)


def median(counts: Counts) -> int | None:
    """Return the median of the numbers that were found, the lower of two."""
    left = (sum(count for _, count in counts) + 1) // 2
    for number, count in counts:
        left -= count
        if left <= 0:
            return number
    return None


class Timeline(NamedTuple):
    """Records at their true times, the stretches between them, and the events of that time, all in order."""

    moments: Sequence[Moment]
    parts: Sequence[Stretch]
    events: Sequence[Event]


def timeline(rows: Iterable[Unplaced], events: Sequence[Event], now_s: int | None = None) -> Timeline:
    """Place records and divide the time between them; what follows the last one is accounted for until `now_s`."""
    moments = list(in_order(placed(rows)))
    return Timeline(moments, list(stretches(moments, _step_times(events), now_s)), events)


def ended_hours(
    rows: Sequence[Unplaced], ids: Sequence[int], events: Sequence[Event], begin_s: int, before: Account | None
) -> Iterator[Account]:
    """Yield the accounts of the hours from `begin_s` on that are over: a record after their end has a true time.

    `rows`, as `dated` returns them, begin with the last record that has a true time before `begin_s`, or with the first
    of all; `ids` are theirs. An hour's account depends on the records from the last one before it to the first one
    after it, and on nothing else: so it is the same whenever it is made. `events` are in the order of their true times.
    """
    start, last = 0, None
    times = [(event.utc_ns or 0) // NS_PER_S for event in events]
    for index, row in enumerate(rows):
        if row.utc_ns is None:
            continue
        end_s, around = row.utc_ns // NS_PER_S, None
        while end_s >= begin_s + HOUR_S:
            if around is None:
                part = rows[start : index + 1]
                known_s = next(one.utc_ns // NS_PER_S for one in part if one.utc_ns is not None)
                near = events[bisect_left(times, min(known_s, begin_s)) : bisect_right(times, end_s)]
                around, following = timeline(part, near), start if last is None else last
            used: tuple[int, ...] = (ids[start], ids[index], ids[following])
            if (following_ns := rows[following].utc_ns) is not None:
                used = (*used, following_ns - rows[following].boottime_ns)
            before = account_of(around, begin_s, begin_s + HOUR_S, before)._replace(rows=used)
            yield before
            begin_s += HOUR_S
            if last is not None and start != last:
                start, around = last, None
        last = index


def account_of(around: Timeline, begin_s: int, end_s: int, before: Account | None = None) -> Account:
    """Return the account of a period, by a timeline from the last record before it to the first one after it.

    `before` is the account of the time that ends where this one begins. Time without a stretch is absent.
    """
    moments, events = around.moments, around.events
    parts = list(_inside(around.parts, begin_s, end_s))
    first, last = (bisect_left(moments, at_s, key=lambda one: one.utc_s) for at_s in (begin_s, end_s))
    seen = moments[first:last]
    happened = [one for one in events if one.utc_ns is not None and begin_s <= one.utc_ns // NS_PER_S < end_s]
    sizes = [one.value_s for one in happened if is_step(one) and one.value_s is not None]
    findings = [one.raised for one in happened if one.kind not in STEP_KINDS]
    judging = [one.facts for one in _judging(moments, parts, first, last)]
    earliest_s = extreme(min, *(one.earliest_s for one in judging))
    latest_s = extreme(max, *(one.latest_s for one in judging))
    polls = [one.facts for one in seen if one.facts.queried is not None]
    later = None if last == len(moments) else moments[last].verdict
    known = moments[max(0, first - 1) : last]
    return Account(
        begin_s,
        end_s - begin_s,
        Spans(*(sum(_length(one, end_s) for one in parts if one.state == name) for name in Spans._fields)),
        len(seen),
        earliest_s,
        latest_s,
        None if earliest_s is None or latest_s is None else max(abs(earliest_s), abs(latest_s)),
        len(sizes),
        max(sizes, key=abs, default=None),
        _counted(one.queried for one in polls if one.queried is not None),
        _counted(one.usable for one in polls),
        sum(_length(one, end_s) for one in parts if one.usable >= 2),
        sum(_length(one, end_s) for one in parts if one.usable >= 3),
        findings.count(True),
        findings.count(False),
        tuple(_in_force(known or moments[:1], begin_s, before)),
        find_excursions(parts, seen, events, end_s, later, () if before is None else before.excursions),
    )


def day_of(begin_s: int, hours: Sequence[Account]) -> Account:
    """Return the account of a UTC day up to the last of its hours, as their sum; time before the first is absent."""
    spans, length_s = Spans(*map(sum, zip(*(hour.spans for hour in hours), strict=True))), hours[-1].end_s - begin_s
    spans = spans._replace(absent=spans.absent + length_s - sum(spans))
    sizes = [hour.step_s for hour in hours if hour.step_s is not None]
    chained = [number for hour in hours for number in (hour.chain_first, hour.chain_last) if number is not None]
    return Account(
        begin_s,
        length_s,
        spans,
        sum(hour.audits for hour in hours),
        extreme(min, *(hour.earliest_s for hour in hours)),
        extreme(max, *(hour.latest_s for hour in hours)),
        extreme(max, *(hour.bound_s for hour in hours)),
        sum(hour.steps for hour in hours),
        max(sizes, key=abs, default=None),
        _summed(hour.queried for hour in hours),
        _summed(hour.usable for hour in hours),
        sum(hour.two_sources_s for hour in hours),
        sum(hour.three_sources_s for hour in hours),
        sum(hour.raised for hour in hours),
        sum(hour.cleared for hour in hours),
        tuple(_changes(one for hour in hours for one in hour.in_force)),
        merged(one for hour in hours for one in hour.excursions),
        min(chained, default=None),
        max(chained, default=None),
        next((hour.chain_head for hour in reversed(hours) if hour.chain_head is not None), None),
    )


def judge_again(account: Account, critical_s: float) -> Spans:
    """Return the spans of an account by another critical tolerance, without its records (AC3).

    Nothing counts as within that was not, or if the largest maximum error of the period is larger. Exact is
    `judged_again`, for which the records must exist.
    """
    spans, tolerances = account.spans, [one.profile.critical_s for one in account.in_force]
    is_below = account.bound_s is not None and account.bound_s <= critical_s
    within_s = spans.within if is_below or (tolerances and critical_s >= max(tolerances)) else 0
    beyond_s = spans.beyond if tolerances and critical_s <= min(tolerances) else 0
    judged_s = spans.within + spans.unproven + spans.beyond
    return spans._replace(within=within_s, beyond=beyond_s, unproven=judged_s - within_s - beyond_s)


def is_step(event: Event) -> bool:
    """Whether an event is a step of the clock."""
    return event.kind in STEP_KINDS and event.raised


def _step_times(events: Iterable[Event]) -> list[int]:
    """Return when the clock was set, in order, without the steps of an unknown moment, while no agent watched."""
    known = [one.utc_ns for one in events if is_step(one) and not one.detail.get("while_down")]
    return sorted(utc_ns // NS_PER_S for utc_ns in known if utc_ns is not None)


def _inside(parts: Sequence[Stretch], begin_s: int, end_s: int) -> Iterator[Stretch]:
    """Yield the parts of a period, the last one to its own end; time before and after all of them is absent."""
    known_s = begin_s
    for part in parts[bisect_right(parts, begin_s, key=lambda one: one.end_s) :]:
        if part.begin_s >= end_s:
            break
        yield from _absent(known_s, part.begin_s)
        yield part._replace(begin_s=max(part.begin_s, begin_s))
        known_s = part.end_s
    yield from _absent(known_s, end_s)


def _absent(begin_s: int, end_s: int) -> Iterator[Stretch]:
    if begin_s < end_s:
        yield Stretch(begin_s, end_s, "absent")


def _judging(moments: Sequence[Moment], parts: Sequence[Stretch], first: int, last: int) -> Iterator[Moment]:
    """Yield the records of a period, and those before and after it whose verdicts its first and last seconds have."""
    begins = [part.begin_s for part in parts if part.state in _JUDGED]
    if first and begins and (first == len(moments) or begins[0] < moments[first].utc_s):
        yield moments[first - 1]
    yield from moments[first:last]
    if last < len(moments) and begins and (not last or begins[-1] >= moments[last - 1].utc_s):
        yield moments[last]


def _length(part: Stretch, end_s: int) -> int:
    return min(part.end_s, end_s) - part.begin_s


def _counted(numbers: Iterable[int]) -> Counts:
    return tuple(sorted(Counter(numbers).items()))


def _summed(counts: Iterable[Counts]) -> Counts:
    total = Counter[int]()
    for one in counts:
        total.update(dict(one))
    return tuple(sorted(total.items()))


def _in_force(moments: Sequence[Moment], begin_s: int, before: Account | None) -> Iterator[InForce]:
    """Yield what was in force at the beginning of a period, by the record before it, and what changed it."""
    known = [(one.utc_s, one.facts.in_force) for one in moments]
    if before is not None and before.in_force:
        known.insert(0, (begin_s, before.in_force[-1]))
    yield from _changes(one._replace(since_s=max(at_s, begin_s)) for at_s, one in known if one is not None)


def _changes(found: Iterable[InForce]) -> Iterator[InForce]:
    last: InForce | None = None
    for one in found:
        if last is None or one[1:] != last[1:]:
            yield one
            last = one

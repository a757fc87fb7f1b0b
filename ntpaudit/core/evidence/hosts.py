"""What the records of one host show of a period: its seconds by state, exceptions, and what limits the result."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, Literal

from ntpaudit.core.acceptance import HostAcceptance
from ntpaudit.core.accounting import InForce
from ntpaudit.core.accounts import Account, judge_again
from ntpaudit.core.checks.offset import NOT_DEMONSTRABLE, OFFSET_OUT
from ntpaudit.core.checks.records import EVIDENCE_GAP, UNMEASURED
from ntpaudit.core.evidence.model import (
    Balance,
    Change,
    Gap,
    HostRecords,
    HostResult,
    Period,
    State,
    Times,
)
from ntpaudit.core.units import NS_PER_S, format_duration, format_utc, joined, plural

COVERED: dict[str, tuple[State, ...]] = {
    OFFSET_OUT.id: ("beyond",),
    NOT_DEMONSTRABLE.id: ("unproven",),
    UNMEASURED.id: ("unmeasured",),
    EVIDENCE_GAP.id: ("unmeasured", "absent", "unaccounted"),
}
"""The states that an exception for a finding covers. One for any other finding is listed and covers no time."""


def judge_host(
    records: HostRecords,
    period: Period,
    exceptions: Sequence[HostAcceptance] = (),
    critical_s: float | None = None,
    *,
    is_listed: bool = True,
) -> HostResult:
    """Account for each second of the period. `critical_s` judges again by another tolerance (EV5)."""
    rows, faults = choose(records.accounts, period)
    holes = tuple(_holes(rows, period))
    parts = [(row.begin_s, row.end_s, _times(row, critical_s)) for row in rows]
    ends = [until_s for one in exceptions if (until_s := end_of(one)) is not None]
    parts += [(begin_s, end_s, Times(unaccounted=end_s - begin_s)) for begin_s, end_s in _cut(holes, ends)]
    here = [one.is_of(records.name, records.site) for one in exceptions]
    holding = [one for one, is_here in zip(exceptions, here, strict=True) if is_here]
    balance, covered = _balance(parts, exceptions, here)
    gaps = [*_gaps_of(rows), *(Gap(begin_s, end_s, "unaccounted", end_s - begin_s) for begin_s, end_s in holes)]
    excursions = tuple(
        one._replace(is_accepted=any(_covers(exception, one.state, one.end_s) for exception in holding))
        for one in records.excursions
        if one.begin_s < period.end_s and one.end_s > period.begin_s
    )
    worst = max((row for row in rows if row.bound_s is not None), key=lambda row: row.bound_s or 0.0, default=None)
    in_force = [one for row in rows for one in row.in_force]
    return HostResult(
        name=records.name,
        site=records.site,
        is_listed=is_listed,
        balance=balance,
        bound_s=worst and worst.bound_s,
        bound_at_s=worst and worst.begin_s,
        tolerances=tuple(sorted({one.profile.critical_s for one in in_force})),
        profiles=tuple(sorted({one.profile.name for one in in_force if one.profile.name})),
        two_sources_s=sum(row.two_sources_s for row in rows),
        longest_excursion=max(excursions, key=lambda one: one.duration_s, default=None),
        longest_gap=max(gaps, key=lambda one: one.seconds, default=None),
        excursions=excursions,
        gaps=tuple(sorted(gaps)),
        steps=tuple(one for one in records.steps if period.begin_s <= one.utc_s < period.end_s),
        step_count=sum(row.steps for row in rows),
        sources=records.sources,
        changes=tuple(_changes(in_force)),
        events=tuple(one for one in records.events if period.begin_s <= one.utc_s < period.end_s),
        raised=sum(row.raised for row in rows),
        statements=(*records.notes, *faults, *_statements(records, rows, in_force, holes, period)),
        covered_s=covered,
        chain_last=rows[-1].chain_last if rows else None,
    )


def _times(row: Account, critical_s: float | None) -> Times:
    return Times(*(row.spans if critical_s is None else judge_again(row, critical_s)))


def choose(accounts: Sequence[Account], period: Period) -> tuple[list[Account], list[str]]:
    """Return accounts of the period that do not overlap, in order, longer ones first; and what was wrong with others.

    An account that does not add up is left out. Of two of the same time, the one with less time within counts.
    """
    if _are_sound(accounts, period):
        return [*accounts], []
    inside = [one for one in accounts if period.begin_s <= one.begin_s and one.end_s <= period.end_s]
    sound = [one for one in inside if min(one.spans) >= 0 and sum(one.spans) == one.length_s > 0]
    sound.sort(key=lambda one: (-one.length_s, one.begin_s, one.spans.within))
    taken: list[Account] = []
    doubled = 0
    for _, group in groupby(sound, key=lambda one: one.length_s):
        left, last = [*_holes(taken, period)], None
        for one in group:
            if last is not None and one.begin_s < last.end_s:
                doubled += one.begin_s == last.begin_s and one.spans != last.spans
            elif any(begin_s <= one.begin_s and one.end_s <= end_s for begin_s, end_s in left):
                taken.append(one)
                last = one
        taken.sort(key=lambda one: one.begin_s)
    faults = []
    if damaged := len(inside) - len(sound):
        verb = "does" if damaged == 1 else "do"
        faults.append(f"{plural(damaged, 'account')} {verb} not add up and cannot be used: that time is unaccounted")
    if doubled:
        faults.append(
            f"two machines may use this name: {plural(doubled, 'account')} {'exists' if doubled == 1 else 'exist'} "
            "twice with different contents; the one with less time within is used"
        )
    return taken, faults


def _are_sound(accounts: Sequence[Account], period: Period) -> bool:
    """Whether accounts are in order, inside the period and add up: nearly all are, and many are read."""
    last_s = period.begin_s
    for one in accounts:
        if one.begin_s < last_s or sum(one.spans) != one.length_s or min(one.spans) < 0 or one.length_s <= 0:
            return False
        last_s = one.begin_s + one.length_s
    return last_s <= period.end_s


def _balance(
    parts: Sequence[tuple[int, int, Times]], exceptions: Sequence[HostAcceptance], here: Sequence[bool]
) -> tuple[Balance, tuple[int, ...]]:
    """Add up the parts of a period, and what each exception covers.

    An exception covers a state of a part if it holds until the end of it: when in the part that state was is not known.
    """
    covered = [0] * len(exceptions)
    excepted = dict.fromkeys(Times._fields, 0)
    for _, end_s, times in parts if any(here) else ():
        left = times._asdict()
        for number, one in enumerate(exceptions):
            for state in COVERED.get(one.acceptance.finding, ()) if here[number] else ():
                if _covers(one, state, end_s):
                    excepted[state] += left[state]
                    covered[number] += left[state]
                    left[state] = 0
    spans = Times(*map(sum, zip(*(times for _, _, times in parts), strict=True)))
    return Balance(spans, Times(**excepted)), tuple(covered)


def end_of(exception: HostAcceptance) -> int | None:
    """Return when an exception ends; None if it never does, and so counts for nothing."""
    until_ns = exception.acceptance.until_ns
    return None if until_ns is None else until_ns // NS_PER_S


def _covers(exception: HostAcceptance, state: State, end_s: int) -> bool:
    until_s = end_of(exception)
    return until_s is not None and end_s <= until_s and state in COVERED.get(exception.acceptance.finding, ())


def _holes(rows: Sequence[Account], period: Period) -> Iterator[tuple[int, int]]:
    """Yield the parts of the period without an account."""
    ends = [period.begin_s, *(row.end_s for row in rows)]
    begins = [*(row.begin_s for row in rows), period.end_s]
    yield from ((end_s, begin_s) for end_s, begin_s in zip(ends, begins, strict=True) if end_s < begin_s)


def _cut(holes: Sequence[tuple[int, int]], cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
    for begin_s, end_s in holes:
        yield from pairwise(sorted({begin_s, end_s, *(cut_s for cut_s in cuts if begin_s < cut_s < end_s)}))


def _gaps_of(rows: Sequence[Account]) -> Iterator[Gap]:
    """Yield the gaps of accounts; those of one state in accounts that follow each other are one."""
    states: tuple[Literal["unmeasured", "absent"], ...] = ("unmeasured", "absent")
    for state in states:
        last: Gap | None = None
        for row in rows:
            if not (seconds := getattr(row.spans, state)):
                continue
            if last is not None and last.end_s == row.begin_s:
                last = Gap(last.begin_s, row.end_s, state, last.seconds + seconds)
                continue
            if last is not None:
                yield last
            last = Gap(row.begin_s, row.end_s, state, seconds)
        if last is not None:
            yield last


def _changes(in_force: Sequence[InForce]) -> Iterator[Change]:
    for before, after in pairwise(in_force):
        if before[1:] == after[1:]:
            continue
        for what, old, new in (
            ("profile", before.profile.name, after.profile.name),
            ("critical tolerance", before.profile.critical_s, after.profile.critical_s),
            ("warning tolerance", before.profile.warning_s, after.profile.warning_s),
            ("configuration (SHA-256)", before.config_sha256, after.config_sha256),
            ("ntpaudit", before.version, after.version),
            ("machine id", before.machine_id, after.machine_id),
            ("host name", before.host, after.host),
            ("site", before.site, after.site),
        ):
            if old != new and old and new:
                yield Change(after.since_s, what, _text(old), _text(new))


def _text(value: Any) -> str:
    return format_duration(value) if isinstance(value, float) else str(value)


def _statements(
    records: HostRecords,
    rows: Sequence[Account],
    in_force: Sequence[InForce],
    holes: Sequence[tuple[int, int]],
    period: Period,
) -> Iterator[str]:
    machines = {one.machine_id for one in in_force} - {None}
    if len(machines) > 1:
        yield (
            f"{len(machines)} machine ids reported under this name: it was re-installed or replaced, or several "
            "machines use the name"
        )
    if other := sorted({one.host for one in in_force} - {records.name}):
        yield f"its name was {joined(other)} for a part of the period"
    if not rows:
        yield (
            "measurements were delivered, but no accounts of time: the agent is older than the accounts, or its "
            "history was lost before a period closed; update the agent" if records.has_points
            else "nothing is stored about this host in the period"
        )  # fmt: skip
        return
    for begin_s, end_s in holes:
        if begin_s == period.begin_s:
            yield f"no account exists before {utc(end_s)}: {format_duration(end_s - begin_s)} are unaccounted"
        elif end_s == period.end_s:
            yield f"no account exists after {utc(begin_s)}: {format_duration(end_s - begin_s)} are unaccounted"
        else:
            yield f"no account exists from {utc(begin_s)} to {utc(end_s)}"
    tolerances = [format_duration(one) for one in sorted({one.profile.critical_s for one in in_force})]
    if len(tolerances) > 1:
        yield f"its tolerance changed in the period ({joined(tolerances)}): each second is judged by that in force then"
    if unknown := sum(row.length_s for row in rows if not row.in_force and any(row.spans[:3])):
        yield f"the tolerance is not stored for {format_duration(unknown)}"


def utc(seconds: int) -> str:
    """Write a time for people, to the second."""
    return f"{format_utc(seconds * NS_PER_S)[:19].replace('T', ' ')} UTC"

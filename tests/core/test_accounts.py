"""Accounts of hours and days, compared with an oracle that looks at each second by itself."""

import random
from statistics import median_low

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.accounting import Facts, InForce, Moment, Spans, State, Unplaced, dated, judged_again, settled
from ntpaudit.core.accounts import Account, account_of, day_of, ended_hours, judge_again, least, median, timeline
from ntpaudit.core.checks.steps import STEP_FORWARD
from ntpaudit.core.events import Event
from ntpaudit.core.excursions import Excursion, describe_logs, merged
from ntpaudit.core.policy import PROFILES, Severity, Verdict
from ntpaudit.core.units import HOUR_S, NS_PER_S
from tests.core.test_accounting import T0, Turn, lived, turns

PROFILE = PROFILES["log-integrity"]
IN_FORCE = InForce(0, "web1", "ams", "prod", "4" * 32, "0.1.0", "c" * 64, PROFILE)
FIRST_S = T0 // HOUR_S * HOUR_S
_ENDS: dict[Verdict, tuple[float, float] | None] = {
    "within": (-0.01, 0.02),
    "unproven": (-0.5, 1.5),
    "beyond": (2.0, 3.0),
    "unmeasured": None,
}


def with_facts(moment: Moment, number: int) -> Moment:
    """Give a record the facts that its verdict follows from."""
    ends, queried = _ENDS[moment.verdict], None if number % 5 else 4
    facts = Facts(queried=queried, usable=number % 4, in_force=IN_FORCE)
    return moment._replace(facts=facts if ends is None else facts._replace(earliest_s=ends[0], latest_s=ends[1]))


def stored(moments: list[Moment], rand: random.Random | None = None) -> list[Unplaced]:
    """Return records as they are stored; some without a true time, but not the first and the last of a boot."""
    rows = []
    for number, moment in enumerate(moments):
        up_ns, neighbours = round(moment.up_s * NS_PER_S), moments[max(0, number - 1) : number + 2]
        is_inside = len(neighbours) == 3 and all(one.boot_id == moment.boot_id for one in neighbours)
        utc_ns = None if rand is not None and is_inside and rand.random() < 0.3 else moment.utc_s * NS_PER_S
        rows.append(Unplaced(utc_ns, 0, up_ns, moment._replace(utc_s=0)))
    return rows


def stepped(at_s: int, size_s: float = 3600.0, text: str = "set", *, while_down: bool = False) -> Event:
    """Return the event of a step."""
    detail = {"while_down": while_down}
    return Event(STEP_FORWARD.id, True, Severity.CRITICAL, "high", text, at_s * NS_PER_S, 0, 0, size_s, detail=detail)


def history(life: list[Turn]) -> tuple[list[Moment], list[Event], list[State]]:
    """Return the records, the steps and the seconds of a life, which begin with the first hour."""
    moments, steps, seconds = lived(life)
    before: list[State] = ["absent"]
    return (
        [with_facts(moment, number) for number, moment in enumerate(moments)],
        [stepped(at_s) for at_s in steps],
        before * (T0 - FIRST_S) + seconds,
    )


def all_hours(rows: list[Unplaced], events: list[Event]) -> list[Account]:
    """Return the account of every hour that is over."""
    return list(ended_hours(rows, range(len(rows)), events, FIRST_S, None))


@given(st.lists(turns(), max_size=40), st.integers())
def test_each_hour_is_what_its_seconds_were(life: list[Turn], seed: int) -> None:
    """Hours follow each other without a gap, and each adds up to 3600 s; so does each state."""
    moments, events, seconds = history(life)
    hours = all_hours(stored(moments, random.Random(seed)), events)
    assert [hour.begin_s for hour in hours] == list(range(FIRST_S, moments[-1].utc_s - HOUR_S + 1, HOUR_S))
    for hour in hours:
        inside = seconds[hour.begin_s - FIRST_S : hour.end_s - FIRST_S]
        assert hour.spans == Spans(*(inside.count(name) for name in Spans._fields))  # type: ignore[arg-type]
        assert sum(hour.spans) == hour.length_s == HOUR_S
        seen = [one for one in moments if hour.begin_s <= one.utc_s < hour.end_s]
        polls = [one.facts.usable for one in seen if one.facts.queried]
        assert hour.spans.beyond == 0 or (hour.bound_s is not None and hour.bound_s > PROFILE.critical_s)
        assert (hour.audits, least(hour.usable)) == (len(seen), min(polls, default=None))
        assert median(hour.usable) == (median_low(polls) if polls else None)
        assert hour.three_sources_s <= hour.two_sources_s <= HOUR_S


@given(st.lists(turns(), max_size=40), st.integers(0, 400), st.integers(1, 9000))
def test_parts_of_a_period_add_up(life: list[Turn], first: int, length_s: int) -> None:
    """A period is accounted for as its two halves are together, wherever it is split."""
    moments, events, _ = history(life)
    rows, begin_s = stored(moments), FIRST_S + first * 60
    end_s, middle_s = begin_s + length_s, begin_s + length_s // 2
    around = timeline(rows, events, max(end_s, moments[-1].utc_s + 60))
    whole, left = account_of(around, begin_s, end_s), account_of(around, begin_s, middle_s)
    right = account_of(around, middle_s, end_s, left)
    assert whole.spans == Spans(*map(sum, zip(left.spans, right.spans, strict=True)))
    assert sum(whole.spans) == length_s
    for name in ("audits", "steps", "two_sources_s", "three_sources_s", "raised", "cleared"):
        assert getattr(whole, name) == getattr(left, name) + getattr(right, name)
    assert merged([*left.excursions, *right.excursions]) == whole.excursions


@given(st.lists(turns(), max_size=40), st.integers(0, 40))
def test_hours_are_the_same_whenever_they_are_closed(life: list[Turn], cut: int) -> None:
    """An agent that closes each hour at its end, and one that catches up later, make the same accounts."""
    moments, events, _ = history(life)
    rows = stored(moments)
    whole = all_hours(rows, events)
    first = all_hours(rows[:cut], events)
    if not first or first[-1].rows is None:
        return
    start = max(first[-1].rows[1] - 1, 0)
    later = ended_hours(rows[start:], range(start, len(rows)), events, first[-1].end_s, first[-1])
    assert [*first, *later] == whole


@given(st.lists(turns(), max_size=40))
def test_excursions_are_the_longest_runs(life: list[Turn]) -> None:
    """Each span of beyond or unproven is one excursion, also across hours, and nothing else is."""
    moments, events, seconds = history(life)
    hours = all_hours(stored(moments), events)
    found = merged(one for hour in hours for one in hour.excursions)
    seconds = seconds[: HOUR_S * len(hours)]
    runs, at_s = [], FIRST_S
    while seconds:
        length = next((index for index, state in enumerate(seconds) if state != seconds[0]), len(seconds))
        if seconds[0] in ("beyond", "unproven"):
            runs.append((seconds[0], at_s, at_s + length))
        at_s, seconds = at_s + length, seconds[length:]
    assert sorted(one[:3] for one in found) == sorted(runs)
    assert sum(one.duration_s for one in found) == sum(hour.spans.beyond + hour.spans.unproven for hour in hours)


@given(st.lists(turns(), min_size=20, max_size=60))
def test_a_day_is_the_sum_of_its_hours(life: list[Turn]) -> None:
    """Every span and number of a day is the sum or the extreme of its hours; hours before the first are absent."""
    moments, events, _ = history(life)
    hours = all_hours(stored(moments), events)[:24]
    if not hours:
        return
    day = day_of(FIRST_S - HOUR_S, hours)
    assert sum(day.spans) == day.length_s == HOUR_S * (len(hours) + 1)
    for name in Spans._fields:
        expected = sum(getattr(hour.spans, name) for hour in hours)
        expected += HOUR_S * (name == "absent")
        assert getattr(day.spans, name) == expected
    assert day.audits == sum(hour.audits for hour in hours)
    assert day.bound_s == max((hour.bound_s for hour in hours if hour.bound_s is not None), default=None)


@given(st.lists(turns(), max_size=40), st.sampled_from([0.005, 0.05, 1.0, 1.7, 10.0]))
def test_another_tolerance(life: list[Turn], critical_s: float) -> None:
    """Judged again without its records, an hour is never better than with them, and adds up as before."""
    moments, events, _ = history(life)
    again = all_hours(stored([judged_again(one, critical_s) for one in moments]), events)
    for hour, exact in zip(all_hours(stored(moments), events), again, strict=True):
        rough = judge_again(hour, critical_s)
        assert sum(rough) == sum(exact.spans) == HOUR_S
        assert rough.within <= exact.spans.within
        assert rough.beyond <= exact.spans.beyond
        assert rough[4:] == exact.spans[4:]
        if critical_s == PROFILE.critical_s:
            assert exact.spans == hour.spans


def minutes(*verdicts: tuple[Verdict, int]) -> list[Moment]:
    """Return a record a minute from a full hour on: each verdict as often as it says."""
    found = [verdict for verdict, count in verdicts for _ in range(count)]
    moments = [Moment(FIRST_S + 60 * n, "0", 100.0 + 60 * n, 0.0, verdict, 60.0) for n, verdict in enumerate(found)]
    return [with_facts(moment, number) for number, moment in enumerate(moments)]


def test_an_excursion_across_hours() -> None:
    """It is open until it is over, is one, and shows what caused it and what the logs of that time are worth."""
    moments = minutes(("within", 50), ("beyond", 90), ("within", 60))
    message = "set; cause: a command"
    moments[60] = moments[60]._replace(
        facts=moments[60].facts._replace(findings=(("offset-out", "far"), (STEP_FORWARD.id, message)))
    )
    events = [stepped(FIRST_S + 49 * 60 + 30), stepped(FIRST_S + 139 * 60 + 30, -3600.0)]
    first, second, third = all_hours(stored(moments), events)
    begin_s = FIRST_S + 49 * 60 + 30
    expected = Excursion("beyond", begin_s, FIRST_S + HOUR_S, True, 2.0, 3.0, 2.0, 3.0, (), "set")
    assert first.excursions == (expected,)
    findings = ("offset-out", STEP_FORWARD.id)
    assert second.excursions == (expected._replace(end_s=FIRST_S + 2 * HOUR_S, findings=findings, cause=message),)
    (whole,) = third.excursions
    assert (whole.begin_s, whole.end_s, whole.is_open) == (begin_s, FIRST_S + 139 * 60 + 30, False)
    assert (first.steps, first.step_s, third.step_s) == (1, 3600.0, -3600.0)
    assert describe_logs(whole.earliest_s, whole.latest_s) == "behind: 2 s to 3 s too early"


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((None, None), "not known: no measurement"),
        ((-3.0, -2.0), "ahead: 2 s to 3 s too late"),
        ((-0.5, 1.5), "from 1.5 s too early to 500 ms too late"),
    ],
)
def test_what_logs_are_worth(ends: tuple[float | None, float | None], words: str) -> None:
    """Behind is too early, ahead too late; an interval that contains zero is both."""
    assert describe_logs(*ends) == words


def test_a_profile_and_a_name_that_changed() -> None:
    """What was in force at the beginning of an hour is stated, and each change with its time, in the day too."""
    moments, strict = minutes(("within", 200)), IN_FORCE._replace(host="web2", profile=PROFILES["finra-cat"])
    moments = [
        one._replace(facts=one.facts._replace(in_force=IN_FORCE if number < 70 else strict))
        for number, one in enumerate(moments)
    ]
    first, second, third = all_hours(stored(moments), [])
    assert first.in_force == (IN_FORCE._replace(since_s=FIRST_S),)
    changed = strict._replace(since_s=FIRST_S + 70 * 60)
    assert second.in_force == (IN_FORCE._replace(since_s=FIRST_S + HOUR_S), changed)
    assert third.in_force == (strict._replace(since_s=FIRST_S + 2 * HOUR_S),)
    assert day_of(FIRST_S, [first, second, third]).in_force == (first.in_force[0], changed)


@pytest.mark.parametrize("length_s", [0, 600])
def test_a_period_without_a_record(length_s: int) -> None:
    """Nothing is known of it: all of it is absent, whether it lies before the first record or there is none."""
    for rows in ([], stored(minutes(("within", 9)))):
        account = account_of(timeline(rows, []), FIRST_S - 1000, FIRST_S - 1000 + length_s)._replace(in_force=())
        assert account == Account(FIRST_S - 1000, length_s, Spans(absent=length_s))


def jumped(ahead_h: float, begin: int, end: int, count: int) -> list[Unplaced]:
    """Return a record a minute; those from `begin` to `end` have a true time that is so far ahead."""
    rows = stored(minutes(("within", count)))
    return [
        row
        if row.utc_ns is None or not begin <= number < end
        else row._replace(utc_ns=row.utc_ns + round(ahead_h * 3600) * NS_PER_S)
        for number, row in enumerate(rows)
    ]


@pytest.mark.parametrize("ahead_h", [26_000.0, 3.0, -3.0, -170_000.0])
def test_a_jump_of_the_true_time_that_does_not_last(ahead_h: float) -> None:
    """Servers that are wrong for half an hour account for no time but that, which is unmeasured."""
    rows = jumped(ahead_h, 70, 100, 250)
    for so_far in (90, 99):
        assert len(all_hours(list(dated(settled(rows[:so_far]))), [])) == 1
    hours = all_hours(list(dated(settled(rows))), [])
    assert [hour.begin_s for hour in hours] == [FIRST_S + HOUR_S * number for number in range(4)]
    assert [hour.spans.unmeasured for hour in hours] == [0, 31 * 60, 0, 0]
    assert all(hour.bound_s == 0.02 for hour in hours)


def test_a_jump_of_the_true_time_that_stays() -> None:
    """After a day the new time counts: the difference is unmeasured, and each second counts once."""
    rows = jumped(3.0, 70, 4000, 2000)
    assert len(all_hours(list(dated(settled(rows[: 70 + 1439]))), [])) == 1
    hours = all_hours(list(dated(settled(rows))), [])
    assert sum(hour.spans.unmeasured for hour in hours) == 3 * HOUR_S + 60
    assert len(hours) == 2000 // 60 + 3


@pytest.mark.parametrize(("accepted", "expected"), [(90, True), (89, False), (0, False)])
def test_an_accepted_excursion(accepted: int, expected: bool) -> None:
    """It is accepted if each of its records is."""
    moments = minutes(("within", 50), ("unproven", 90), ("within", 60))
    moments = [
        one._replace(facts=one.facts._replace(is_accepted=50 <= number < 50 + accepted))
        for number, one in enumerate(moments)
    ]
    found = merged(one for hour in all_hours(stored(moments), []) for one in hour.excursions)
    assert [one.is_accepted for one in found] == [expected]

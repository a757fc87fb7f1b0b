"""Every second is accounted for once: held against an oracle that looks at each second by itself."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.accounting import GRACE, Moment, Spans, State, Stretch, by_hour, stretches
from ntpaudit.core.policy import VERDICTS, Verdict
from ntpaudit.core.units import HOUR_S

T0 = 1_795_000_000


class Turn(NamedTuple):
    """What happens between two records of a simulated agent."""

    awake_s: int
    verdict: str
    local_s: float
    slept_s: int
    down_s: int
    boot_s: int
    step_at: float


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    """Draw one: mostly a record after a minute, now and then a gap, a sleep, a boot, a step of the clock."""
    rare = draw(st.sampled_from(["", "", "", "gap", "sleep", "boot", "step"]))
    return Turn(
        draw(st.integers(300, 9000) if rare == "gap" else st.integers(0, 90)),
        draw(st.sampled_from(VERDICTS)),
        draw(st.sampled_from([20.0, 60.0, 600.0])),
        draw(st.integers(1, 9000)) if rare == "sleep" else 0,
        draw(st.integers(1, 9000)) if rare == "boot" else 0,
        draw(st.integers(0, 300)),
        draw(st.floats(0.1, 0.9)) if rare == "step" else 0.0,
    )


def lived(life: list[Turn]) -> tuple[list[Moment], list[int], list[State]]:
    """Return the records of such a life, the steps in it, and the state of each of its seconds from T0 on."""
    moments, steps, seconds = [Moment(T0, "0", 100.0, 0.0, "within", 60.0)], [], list[State]()
    for number, turn in enumerate(life, 1):
        last, now_s = moments[-1], T0 + len(seconds)
        verdict = next(one for one in VERDICTS if one == turn.verdict)
        if turn.down_s:
            down: list[State] = ["off"]
            booting: list[State] = ["absent"]
            seconds += down * turn.down_s + booting * turn.boot_s
            moments.append(Moment(T0 + len(seconds), str(number), float(turn.boot_s), 0.0, verdict, turn.local_s))
            continue
        step_s = now_s + round(turn.awake_s * turn.step_at) if turn.step_at else None
        if step_s is not None and now_s < step_s < now_s + turn.awake_s:
            steps.append(step_s)
        for second_s in range(now_s, now_s + turn.awake_s):
            seconds.append(state_of(second_s, last, verdict, turn, step_s, now_s))
        seconds += ["off"] * turn.slept_s
        up_s, slept_s = last.up_s + turn.awake_s + turn.slept_s, last.slept_s + turn.slept_s
        moments.append(Moment(T0 + len(seconds), last.boot_id, up_s, slept_s, verdict, turn.local_s))
    return moments, steps, seconds


def state_of(second_s: int, last: Moment, verdict: State, turn: Turn, step_s: int | None, now_s: int) -> State:
    """Say what one second between two records of a boot was (AC2)."""
    if turn.awake_s > GRACE * last.local_s:
        return "absent"
    if step_s is not None and now_s < step_s < now_s + turn.awake_s:
        return last.verdict if second_s < step_s else verdict
    worst: tuple[State, ...] = ("beyond", "unmeasured", "unproven", "within")
    return next(state for state in worst if state in (last.verdict, verdict))


@given(st.lists(turns(), max_size=30))
def test_each_second_is_what_it_was(life: list[Turn]) -> None:
    """No second is missed, none counts twice, and each has its state."""
    moments, steps, seconds = lived(life)
    found: list[State] = []
    at_s = T0
    for part in stretches(moments, steps):
        assert part.begin_s == at_s
        at_s = part.end_s
        found += [part.state] * (part.end_s - part.begin_s)
    assert found == seconds


@given(st.lists(turns(), max_size=30), st.integers(0, 20_000))
def test_an_hour_has_3600_seconds(life: list[Turn], more_s: int) -> None:
    """Every hour from the first record on sums up exactly, the last to what has passed of it; so does every state."""
    moments, steps, seconds = lived(life)
    until_s = moments[-1].utc_s + more_s
    hours = by_hour(stretches(moments, steps, until_s), until_s)
    if until_s == T0:
        assert hours == {}
        return
    first_s = T0 // HOUR_S * HOUR_S
    assert sorted(hours) == list(range(first_s, until_s, HOUR_S))
    for hour_s, spans in hours.items():
        assert sum(spans) == min(HOUR_S, until_s - hour_s)
    for number, state in enumerate(Spans._fields):
        expected = seconds.count(state)  # type: ignore[arg-type]
        last, is_late = moments[-1], more_s > GRACE * moments[-1].local_s
        expected += more_s * (state == ("absent" if is_late else last.verdict))
        expected += (T0 - first_s) * (state == "absent")
        assert sum(spans[number] for spans in hours.values()) == expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (Moment(T0 + 60, "0", 160.0, 0.0, "unmeasured", 60.0), [Stretch(T0, T0 + 60, "unmeasured")]),
        (Moment(T0 + 199, "0", 299.0, 0.0, "within", 60.0), [Stretch(T0, T0 + 199, "absent")]),
        (Moment(T0 + 198, "0", 298.0, 0.0, "within", 60.0), [Stretch(T0, T0 + 198, "within")]),
        (Moment(T0 - 1, "0", 160.0, 0.0, "within", 60.0), []),
        (Moment(T0 + 60, None, 160.0, 0.0, "within", 60.0), [Stretch(T0, T0 + 60, "within")]),
        (Moment(T0 + 60, "1", 9999.0, 0.0, "within", 60.0), [Stretch(T0, T0 + 60, "absent")]),
        (
            Moment(T0 + 60, None, 20.0, 0.0, "within", 60.0),
            [Stretch(T0, T0 + 40, "off"), Stretch(T0 + 40, T0 + 60, "absent")],
        ),
    ],
)
def test_at_the_edges(after: Moment, expected: list[Stretch]) -> None:
    """A record that is late by a second, true times that overlap, boots that cannot be distinguished or do not fit."""
    assert list(stretches([Moment(T0, "0", 100.0, 0.0, "within", 60.0), after])) == expected


def minutes(*jumps: tuple[int, float]) -> list[Moment]:
    """Return a record a minute for an hour; from each minute named on, the true time is that many hours ahead."""
    moments, ahead_h = [], 0.0
    for minute in range(61):
        ahead_h = dict(jumps).get(minute, ahead_h)
        utc_s = T0 + 60 * minute + round(ahead_h * HOUR_S)
        moments.append(Moment(utc_s, "0", 100.0 + 60 * minute, 0.0, "beyond" if ahead_h else "within", 60.0))
    return moments


@pytest.mark.parametrize(
    ("jumps", "expected"),
    [
        ([(20, 3.0)], Spans(within=19 * 60, unmeasured=3 * HOUR_S + 60, beyond=40 * 60)),
        # What comes after the return lies before what was accounted for, until true time has come that far again.
        ([(20, 3.0), (40, 0.0)], Spans(within=19 * 60, unmeasured=3 * HOUR_S + 60, beyond=19 * 60)),
        ([(20, 0.5), (25, 0.0)], Spans(within=25 * 60, unmeasured=31 * 60, beyond=4 * 60)),
        ([(20, -3.0), (40, 0.0)], Spans(within=39 * 60, unmeasured=21 * 60)),
    ],
    ids=["ahead", "ahead and back", "ahead and back, and on", "behind and back"],
)
def test_a_jump_of_the_true_time_is_not_absence(jumps: list[tuple[int, float]], expected: Spans) -> None:
    """The uptime shows that the agent was there: the time that is skipped is unmeasured."""
    moments = minutes(*jumps)
    parts = list(stretches(moments))
    assert [part.begin_s for part in parts] == [T0, *(part.end_s for part in parts[:-1])]
    until_s = max(moment.utc_s for moment in moments)
    hours = by_hour(parts, until_s)
    assert all(sum(spans) == min(HOUR_S, until_s - hour_s) for hour_s, spans in hours.items())
    found = Spans(*(sum(spans) for spans in zip(*hours.values(), strict=True)))
    assert found == expected._replace(absent=T0 % HOUR_S)


def test_an_absence_is_as_long_as_the_uptime_says() -> None:
    """An agent that was gone for ten minutes, in which the true time jumped by an hour, was gone for ten minutes."""
    moments = [Moment(T0, "0", 100.0, 0.0, "within", 60.0), Moment(T0 + 4200, "0", 700.0, 0.0, "within", 60.0)]
    assert list(stretches(moments)) == [Stretch(T0, T0 + 600, "absent"), Stretch(T0 + 600, T0 + 4200, "unmeasured")]


@pytest.mark.parametrize(
    ("verdicts", "between"),
    [(("within", "within"), "unproven"), (("within", "unmeasured"), "unmeasured"), (("beyond", "within"), "beyond")],
)
def test_between_two_steps_nothing_is_proven(verdicts: tuple[Verdict, Verdict], between: State) -> None:
    """A clock that is set wrong and back between two records was not within its tolerance meanwhile."""
    first, last = verdicts
    moments = [Moment(T0, "0", 100.0, 0.0, first, 60.0), Moment(T0 + 60, "0", 160.0, 0.0, last, 60.0)]
    assert list(stretches(moments, [T0 + 10, T0 + 20, T0 + 50])) == [
        Stretch(T0, T0 + 10, first),
        Stretch(T0 + 10, T0 + 50, between),
        Stretch(T0 + 50, T0 + 60, last),
    ]


def test_after_a_step_the_last_verdict_holds_no_more() -> None:
    """What was proven before the clock was set says nothing of it since then, until the next record."""
    parts = stretches([Moment(T0, "0", 100.0, 0.0, "within", 60.0)], [T0 + 10], T0 + 60)
    assert list(parts) == [Stretch(T0, T0 + 10, "within"), Stretch(T0 + 10, T0 + 60, "unproven")]

"""Which clocks moved: the result holds wherever the true offsets lay in their intervals."""

from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.checks.daemons import UNSYNCED
from ntpaudit.core.fleet.clock_shift import (
    ClockShift,
    compare,
    max_overlap,
    moved_sites,
)
from ntpaudit.core.fleet.model import Alarm, DuplicateHost, HostStatus, Offset
from ntpaudit.core.policy import Severity
from tests.core.fleets import NOW_NS, host, offset, snapshot


def movement(name: str, then: Offset, now: Offset) -> ClockShift:
    """How a host moved in an hour."""
    one = host(name, 0.0)._replace(offset=now)
    return ClockShift(HostStatus(name, one.site, one.severity, one), one, 3600.0, then, now)


@st.composite
def points(draw: st.DrawFn) -> tuple[Offset, float]:
    """Draw an offset as it is known, and the true one."""
    earliest, width = draw(st.integers(-60, 60)), draw(st.integers(0, 25))
    truth = draw(st.integers(earliest, earliest + width))
    return Offset(earliest + width / 3, float(earliest), float(earliest + width)), float(truth)


@given(points(), points())
def test_what_is_said_of_a_movement_holds_of_the_true_one(
    then: tuple[Offset, float], now: tuple[Offset, float]
) -> None:
    """It lies in its interval, is no less than what is proved, and away and back are what the true clock did."""
    move, true = movement("a", then[0], now[0]), now[1] - then[1]
    assert move.earliest_s <= true <= move.latest_s
    assert abs(true) >= abs(move.least_s)
    assert true * move.least_s >= 0
    do_overlap = now[0].earliest_s <= then[0].latest_s and now[0].latest_s >= then[0].earliest_s
    assert do_overlap == (move.least_s == 0)
    assert not move.is_away or abs(now[1]) > abs(then[1])
    assert not move.is_back or abs(now[1]) < abs(then[1])


@given(points(), points())
def test_whether_a_clock_moved_away_is_sharp(then: tuple[Offset, float], now: tuple[Offset, float]) -> None:
    """Where it is not said, there are true offsets in the intervals for which it is not so."""
    move = movement("a", then[0], now[0])
    nearest = [abs(min(max(0.0, known.earliest_s), known.latest_s)) for known in (then[0], now[0])]
    furthest = [max(abs(known.earliest_s), abs(known.latest_s)) for known in (then[0], now[0])]
    assert move.is_away or nearest[1] <= furthest[0]
    assert move.is_back or furthest[1] >= nearest[0]


@given(st.lists(st.tuples(points(), points()), min_size=1, max_size=7), st.sampled_from([0.5, 10.0]))
def test_a_site_is_said_to_have_moved_no_more_than_it_did(
    world: list[tuple[tuple[Offset, float], tuple[Offset, float]]], least_s: float
) -> None:
    """Most of those compared moved that way, each by the least at least, and all may have by the amount."""
    moves = [movement(f"h{number}", then[0], now[0]) for number, (then, now) in enumerate(world)]
    true = {f"h{number}": now[1] - then[1] for number, (then, now) in enumerate(world)}
    for site, together in moved_sites(moves, least_s):
        assert site == "ams"
        assert together.compared == len(moves) >= 3
        assert 2 * len(together.moves) > len(moves)
        assert abs(together.least_s) >= least_s
        for move in together.moves:
            assert true[move.name] * together.least_s > 0
            assert abs(true[move.name]) >= abs(together.least_s)
            assert move.earliest_s <= together.amount_s <= move.latest_s


@given(st.lists(st.tuples(points(), points()).filter(lambda ends: movement("a", ends[0][0], ends[1][0]).least_s != 0)))
def test_the_deepest_point_is_covered_by_the_most_movements(
    world: list[tuple[tuple[Offset, float], tuple[Offset, float]]],
) -> None:
    """No point is in more intervals, and of such points it is the least movement."""
    moves = [movement(f"h{number}", then[0], now[0]) for number, (then, now) in enumerate(world)]
    together, point = max_overlap(moves)

    def covers(at: float) -> int:
        return sum(move.earliest_s <= at <= move.latest_s for move in moves)

    ends = [end for move in moves for end in (move.earliest_s, move.latest_s)]
    assert len(together) == (covers(point) if moves else 0)
    assert len(together) == max(map(covers, ends), default=0)
    assert abs(point) == min((abs(end) for end in ends if covers(end) == covers(point)), default=0.0)


def test_only_a_clock_that_is_one_and_steered_is_compared() -> None:
    """Not one whose agent says that nothing steers it, nor several of one name, nor one that is silent."""
    hosts = [host(name) for name in ("a", "free", "low", "stays", "two")]
    read = snapshot(
        *hosts,
        host("silent", ago_s=900),
        host("unmeasured", None),
        host("new"),
        before={name: offset(0.5) for name in ("a", "free", "low", "two", "silent", "unmeasured", "gone")}
        | {"stays": offset(0.0)},
        duplicates=[DuplicateHost("two", ("ams", "fra"))],
        alarms=[
            Alarm(name, kind, Severity.WARNING, NOW_NS - age_s * 10**9)
            for name, kind, age_s in (
                ("a", "step-back", 74 * 60),  # in force no longer, and since the point of then
                ("a", "step-forward", 80 * 60),
                ("low", "step-back", 3631),  # before the point of then
                ("low", "offset-out", 60),
            )
        ],
    )._replace(baseline_ns={"a": NOW_NS - 75 * 60 * 10**9})
    kind = UNSYNCED.id
    alarms = {"free": (Alarm("free", kind, Severity.WARNING, 0),), "low": (Alarm("low", kind, Severity.OK, 0),)}
    members = [
        HostStatus(
            one.name, one.site, one.severity, one, 900.0 if one.name == "silent" else None, alarms.get(one.name, ())
        )
        for one in read.hosts
    ]
    compared = compare(read, members)
    assert [(move.name, move.site) for move in compared] == [("a", "ams"), ("low", "ams"), ("stays", "ams")]
    moves = {move.name: move for move in compared if move.least_s}
    assert moves.keys() == {"a", "low"}
    assert (moves["a"].span_s, moves["low"].span_s) == (75 * 60 - 30, 3600.0)
    assert (moves["a"].stepped, moves["low"].stepped) == (True, False)

"""When audits are due: jitter, rate limits, and nothing but uptime."""

from ast import parse, walk
from inspect import getsource
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core import schedule as module
from ntpaudit.core.ntp.rate_limit import POOL_INTERVAL_S, SERVER_INTERVAL_S
from ntpaudit.core.schedule import (
    CONFIRM_S,
    FIRST_WITHIN_S,
    Intervals,
    Polls,
    Schedule,
    first_schedule,
)
from tests.core.worlds import DAY, HOUR, S

USUAL = Intervals(network_s=300.0, pool_s=3600.0, local_s=60.0)
CHANCES = st.floats(0, 1, exclude_max=True)
INTERVALS = st.builds(
    Intervals, st.floats(SERVER_INTERVAL_S, 1e6), st.floats(POOL_INTERVAL_S, 1e6), st.floats(1.0, 1e5)
)
NOW = st.integers(0, 10**17)


@given(NOW, INTERVALS, st.booleans(), st.booleans(), st.booleans(), CHANCES)
@settings(max_examples=200, deadline=None)
def test_the_first_audit_comes_soon_and_at_random(
    now_ns: int, intervals: Intervals, servers: bool, pools: bool, knows: bool, rand: float
) -> None:
    """Servers and pools are queried within ten seconds at random, the host is audited at once if possible."""
    first = first_schedule(now_ns, intervals, has_servers=servers, has_pools=pools, has_estimate=knows, rand=rand)
    for due_ns, is_there in ((first.network_ns, servers), (first.pool_ns, pools)):
        assert (due_ns is not None) == is_there
        assert due_ns is None or due_ns == now_ns + round(rand * FIRST_WITHIN_S * S)
    assert first.local_ns == (now_ns if knows else now_ns + round(intervals.local_s * S))
    assert first.next_ns == min(due_ns for due_ns in first if due_ns is not None)


@given(NOW, INTERVALS, CHANCES)
@settings(max_examples=200, deadline=None)
def test_jitter_is_bounded(now_ns: int, intervals: Intervals, rand: float) -> None:
    """The next audit comes an interval later, give or take a twentieth, or a tenth at the least distance."""
    due = Schedule(now_ns, now_ns, now_ns).after_network(now_ns, intervals, rand)
    due = due.after_local(now_ns, intervals, rand)
    assert due.network_ns is not None
    assert due.pool_ns is not None
    for due_ns, interval_s in zip((due.network_ns, due.pool_ns, due.local_ns), intervals, strict=True):
        assert 0.95 * interval_s * S - 1 <= due_ns - now_ns <= 1.11 * interval_s * S + 1
    if intervals.network_s > 20:
        assert due.network_ns - now_ns <= 1.05 * intervals.network_s * S + 1


@given(NOW, INTERVALS, CHANCES)
@settings(max_examples=300, deadline=None)
def test_jitter_goes_not_below_what_servers_allow(now_ns: int, intervals: Intervals, rand: float) -> None:
    """No pool is due again within 30 minutes (P2) and no server within 15 s, however short the interval may be set."""
    due = Schedule(now_ns, now_ns, now_ns).after_network(now_ns, intervals, rand)
    assert due.network_ns is not None
    assert due.pool_ns is not None
    assert due.network_ns - now_ns > SERVER_INTERVAL_S * S
    assert due.pool_ns - now_ns > (POOL_INTERVAL_S + 10) * S


def test_loopback_may_be_asked_as_often_as_wanted() -> None:
    """An interval below the least is jittered like any other: it is loopback's alone."""
    due = [Schedule(0, None, 0).after_network(0, USUAL._replace(network_s=1.0), rand) for rand in (0.0, 1.0)]
    assert [one.network_ns for one in due] == [950_000_000, 1_050_000_000]


def test_intervals_differ_by_chance() -> None:
    """Every chance leads to another moment, so that hosts that began together do not stay together (P3)."""
    due = {Schedule(0, 0, 0).after_network(0, USUAL, rand / 100) for rand in range(100)}
    assert len({one.network_ns for one in due}) == len({one.pool_ns for one in due}) == 100


def test_pools_rest_while_servers_are_asked() -> None:
    """An audit of the servers leaves the pool's turn where it was, unless it had come; both are asked together then."""
    before = Schedule(300 * S, 3600 * S, 60 * S)
    rested = before.after_network(300 * S, USUAL, 0.5)
    assert (rested.network_ns, rested.pool_ns) == (600 * S, 3600 * S)
    asked = before.after_network(3600 * S, USUAL, 0.5)
    assert (asked.network_ns, asked.pool_ns) == (3900 * S, 7200 * S)


@pytest.mark.parametrize("kind", ["servers", "pools"])
def test_without_servers_no_audit_is_due(kind: str) -> None:
    """Where there are no servers, or no pools, nothing of what happens makes them due."""
    due = first_schedule(
        0, USUAL, has_servers=kind == "pools", has_pools=kind == "servers", has_estimate=False, rand=0.5
    )
    for now_ns in range(0, 2 * HOUR, 600 * S):
        due = due.after_network(now_ns, USUAL, 0.3).after_local(now_ns, USUAL, 0.3)
        due = due.polling_sooner(Polls(now_ns), now_ns, 0.0, is_loopback=True).after_suspend(now_ns + 1)
        assert (due.network_ns if kind == "servers" else due.pool_ns) is None or kind != "servers"
        assert (due.pool_ns is None) == (kind == "pools")


TIMES = st.integers(0, DAY)


@given(
    TIMES | st.none(), TIMES | st.none(), TIMES | st.none(), TIMES | st.none(), TIMES, st.floats(0, 1e4), st.booleans()
)
@settings(max_examples=400, deadline=None)
def test_sooner_is_never_later_and_never_too_soon(
    network_ns: int | None,
    pool_ns: int | None,
    servers_ns: int | None,
    pools_ns: int | None,
    now_ns: int,
    wait_s: float,
    is_loopback: bool,
) -> None:
    """Hurry brings the servers forward only, never below the least distance; the pools only where they are alone."""
    before, polls = Schedule(network_ns, pool_ns, 0), Polls(servers_ns, pools_ns)
    after = before.polling_sooner(polls, now_ns, wait_s, is_loopback=is_loopback)
    assert after.local_ns == 0
    assert after.pool_ns == pool_ns or network_ns is None
    least_s = 0.0 if is_loopback else SERVER_INTERVAL_S
    for due_ns, soon_ns, polled_ns, rest_s in (
        (network_ns, after.network_ns, servers_ns, least_s),
        (pool_ns, after.pool_ns, pools_ns, POOL_INTERVAL_S),
    ):
        assert (soon_ns is None) == (due_ns is None)
        if due_ns is not None and soon_ns is not None and soon_ns != due_ns:
            assert soon_ns < due_ns
            assert soon_ns >= now_ns + round(wait_s * S)
            assert polled_ns is None or soon_ns >= polled_ns + round(rest_s * S)


@given(st.lists(st.tuples(st.sampled_from(["turn", "hurry", "confirm", "sleep"]), CHANCES), max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_history_queries_more_than_the_rate_limits_allow(life: list[tuple[str, float]]) -> None:
    """However often an agent is asked to hurry, wants to confirm or wakes, the minimum intervals are kept."""
    shortest = Intervals(float(SERVER_INTERVAL_S), float(POOL_INTERVAL_S), 1.0)
    due = first_schedule(0, shortest, has_servers=True, has_pools=True, has_estimate=False, rand=0.5)
    now_ns = 0
    servers: list[int] = []
    pools: list[int] = []
    for what, rand in life * 10:
        if what == "turn":
            now_ns = max(now_ns, due.next_ns)
        elif what == "sleep":
            now_ns += round(rand * HOUR)
            due = due.after_suspend(now_ns)
        if what in ("hurry", "sleep", "confirm") and servers:
            wait_s = CONFIRM_S if what == "confirm" else 0.0
            due = due.polling_sooner(Polls(servers[-1]), now_ns, wait_s, is_loopback=False)
        if min(due[:2]) <= now_ns:  # type: ignore[type-var, operator]
            pools += [now_ns] * (due.pool_ns is not None and due.pool_ns <= now_ns)
            servers += [now_ns] * (due.network_ns is not None and due.network_ns <= now_ns)
            due = due.after_network(now_ns, shortest, rand)
        if due.local_ns <= now_ns:
            due = due.after_local(now_ns, shortest, rand)
    assert all(after - before >= SERVER_INTERVAL_S * S for before, after in pairwise(servers))
    assert all(after - before >= POOL_INTERVAL_S * S for before, after in pairwise(pools))


@pytest.mark.parametrize(("late_s", "wanted"), [(-100, 0), (0, 0), (1, 0), (299, 0), (300, 1), (899, 2), (86_400, 288)])
def test_missed_audits_are_counted(late_s: float, wanted: int) -> None:
    """Each whole interval that passed since an audit was due is one that did not come."""
    assert Schedule(HOUR, None, 0).missed(HOUR + round(late_s * S), USUAL) == wanted
    assert Schedule(None, HOUR, 0).missed(HOUR + round(12 * late_s * S), USUAL) == wanted
    assert Schedule(HOUR + 30 * DAY, HOUR, 0).missed(HOUR + round(12 * late_s * S), USUAL) == wanted


def test_without_servers_no_audit_is_missed() -> None:
    """Without servers to query no audit is missed."""
    assert Schedule(None, None, 0).missed(DAY, USUAL) == 0


def test_what_was_due_while_the_host_slept_was_not_missed() -> None:
    """After a suspend all that was due in it is due at once and counts as missed nowhere; the rest stays."""
    after = Schedule(10 * S, 7200 * S, 60 * S).after_suspend(3600 * S)
    assert after == Schedule(3600 * S, 7200 * S, 60 * S)
    assert after.missed(3600 * S, USUAL) == 0
    assert Schedule(None, None, 5).after_suspend(10) == Schedule(None, None, 5)


def test_nothing_but_uptime_moves_a_schedule() -> None:
    """No function of the schedule takes, or names, a wall time: only `now_ns`, which is an uptime, and spans (P3)."""
    names = {node.id for node in walk(parse(getsource(module))) if hasattr(node, "id")}
    names |= {node.arg for node in walk(parse(getsource(module))) if hasattr(node, "arg")}
    assert not [name for name in names if name and ("real" in name or "utc" in name or "wall" in name)]

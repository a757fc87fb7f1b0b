"""The database's clock as a witness of the servers: true within its resolution, whatever the host's clock does."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.clock.database_clock import MAX_AGE_NS, DatabaseClock, carry_date, disputed_ns, read_date
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.policy import Severity
from tests.core.hosts import LivingHost
from tests.core.random_agents import Watch
from tests.core.worlds import HOUR, S


def answer(host: LivingHost, *, error_ns: int = 0, way_s: float = 0.2, cached_ns: int = 0) -> DatabaseClock:
    """Let a database whose clock is wrong by `error_ns` answer a write; its Date was written `cached_ns` before."""
    sent = host.read()
    host.run(way_s / 2)
    date_s = floor((host.utc + error_ns - cached_ns) / S)
    host.run(way_s / 2)
    database = read_date(date_s, sent, host.read())
    assert database is not None
    return database


@given(
    st.integers(-HOUR, HOUR),
    st.floats(0, 30),
    st.integers(0, S - 1),
    st.lists(st.tuples(st.integers(1, 4000), st.integers(-HOUR, HOUR), st.integers(-50, 50)), max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_a_right_database_never_contradicts_the_truth(
    offset_ns: int, way_s: float, cached_ns: int, life: list[tuple[int, int, int]]
) -> None:
    """However slow the answer, however old the Date's text within a second, whatever is done to the host's clock."""
    host = LivingHost(offset_ns=offset_ns)
    database = answer(host, way_s=way_s, cached_ns=cached_ns)
    for seconds, step_ns, drift_ppm in life:
        host.run(seconds, drift_ppm=drift_ppm)
        host.step(step_ns)
    now = host.read()
    carried = carry_date(database, now)
    assert carried is not None
    truth = host.utc - now.realtime_ns
    assert carried.earliest_ns <= truth <= carried.latest_ns
    assert disputed_ns(Interval(floor(truth), floor(truth) + 1), carried) == 0


@given(st.integers(-400 * 24 * HOUR, 400 * 24 * HOUR), st.floats(0, 2))
@settings(max_examples=200, deadline=None)
def test_a_dispute_is_never_larger_than_the_contradiction(wrong_ns: int, way_s: float) -> None:
    """What is claimed at least is so; what is lost to the resolution is 2 s and the way there and back."""
    host = LivingHost()
    database = answer(host, error_ns=wrong_ns, way_s=way_s)
    agreed = Interval(-S // 100, S // 100)  # the truth, within 10 ms
    disputed = disputed_ns(agreed, database.interval)
    ahead_ns = -wrong_ns  # where the database is behind, the servers' time is ahead of it
    assert disputed * ahead_ns >= 0
    assert abs(disputed) <= abs(ahead_ns)
    assert abs(disputed) >= abs(ahead_ns) - (3 + way_s) * S


def test_a_date_is_not_carried_over_a_suspend_or_for_ever() -> None:
    """RAW stands still while a host sleeps, so nothing is left of what was known; and after a day it is too old."""
    host = LivingHost()
    database = answer(host)
    host.run(MAX_AGE_NS / S + 1)
    assert carry_date(database, host.read()) is None
    database = answer(host)
    sent = host.read()
    host.suspend(60.0)
    assert carry_date(database, host.read()) is None
    assert read_date(floor(host.utc / S) - 60, sent, host.read()) is None


@pytest.mark.parametrize(("ahead_s", "level"), [(3 * 3600, "high"), (-3 * 3600, "high"), (60, "high")])
def test_an_agent_whose_servers_jump_raises_a_finding(ahead_s: int, level: str) -> None:
    """Host and servers agree and are both wrong: only the database's clock contradicts them, and nothing is ok."""
    host = LivingHost()
    watch = Watch(host)
    database = answer(host)  # before it happens: the very first audit after is already disputed
    assert watch.network(database=database).record.database_clock is not None
    host.step(ahead_s * S)
    first = watch.network(*host.sources(error_ns=[ahead_s * S] * 4), database=database).record
    assert first.database_clock is not None
    assert first.database_clock.disputed_s == pytest.approx(ahead_s, abs=3)
    for _ in range(4):
        host.run(60)
        watch.local(database=answer(host))
    last = watch.rounds[-1].record
    (finding,) = [finding for finding in last.findings if finding.id == "time-disputed"]
    assert (finding.level, last.severity) == (level, Severity.WARNING)
    way = "ahead of" if ahead_s > 0 else "behind"
    assert f" {way} the database's clock" in finding.message
    assert [event.value_s for event in watch.events if event.kind == "time-disputed"] == [pytest.approx(ahead_s, abs=3)]


def test_one_odd_answer_raises_nothing() -> None:
    """A Date that is carried forward is one sample, however often it is looked at."""
    host = LivingHost()
    watch = Watch(host)
    watch.network()
    odd = answer(host, error_ns=HOUR)
    for _ in range(20):
        host.run(60)
        record = watch.local(database=odd).record
        assert record.database_clock is not None
        assert record.database_clock.disputed_s == pytest.approx(-3600, abs=4)
    assert watch.changes("time-disputed") == []
    host.run(60)
    assert watch.local(database=answer(host)).record.database_clock == watch.rounds[-1].record.database_clock
    assert not [finding for finding in watch.rounds[-1].record.findings if finding.id == "time-disputed"]


def test_the_finding_is_cleared_once_both_agree() -> None:
    """Three answers in a row that contradict nothing end it."""
    host = LivingHost()
    watch = Watch(host)
    watch.network()
    for error_ns in [HOUR] * 3 + [0] * 3:
        host.run(60)
        watch.local(database=answer(host, error_ns=error_ns))
    assert watch.changes("time-disputed") == [True, False]
    assert Fraction(host.offset) == 0


@pytest.mark.parametrize("boots", [False, True])
def test_the_finding_does_not_outlive_the_database(boots: bool) -> None:
    """Once the database has said nothing for a day, or nothing since a start, nothing disputes the servers' time."""
    host = LivingHost()
    watch = Watch(host)
    watch.network()
    for _ in range(3):
        host.run(60)
        database = answer(host, error_ns=HOUR)
        watch.local(database=database)
    if boots:
        host.reboot()
        watch.restart()
        watch.spend(240)
    else:
        for _ in range(24):
            host.run(MAX_AGE_NS / S / 24)
            watch.network(database=database)
        assert watch.changes("time-disputed") == [True]
        for _ in range(3):
            host.run(60)
            watch.network(database=database)
    assert watch.changes("time-disputed") == [True, False]

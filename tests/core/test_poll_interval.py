"""How many poll intervals a gap lasts: each second counts by the interval that was in force in it."""

from math import isclose

from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.clock_state import PollInterval
from ntpaudit.core.units import NS_PER_S
from tests.histories import World, live

_STRETCHES = st.lists(st.tuples(st.integers(0, 5000), st.sampled_from([15.0, 300.0, 3600.0])), min_size=1, max_size=8)


@given(_STRETCHES)
def test_each_second_counts_by_its_own_interval(stretches: list[tuple[int, float]]) -> None:
    """Held against a count second by second, whatever the configuration changed to and from."""
    now_ns, polls = 7 * NS_PER_S, PollInterval(stretches[0][1], 7 * NS_PER_S)
    for seconds, interval_s in stretches:
        polls = polls.changed(now_ns, interval_s)
        now_ns += seconds * NS_PER_S
    counted = sum(1 / interval_s for seconds, interval_s in stretches for _ in range(seconds))
    assert isclose(polls.passed_at(now_ns), counted, rel_tol=1e-9, abs_tol=1e-9)
    assert polls.measured(now_ns).passed_at(now_ns) == 0.0


def gaps(world: World, minutes: int) -> list[int]:
    """Return the minutes at which a gap in the evidence is a finding."""
    kept = zip(range(minutes), live(world, range(minutes)), strict=True)
    return [minute for minute, one in kept if any(found.id == "evidence-gap" for found in one.record.findings)]


def test_a_reload_that_shortens_the_interval_raises_no_gap() -> None:
    """50 minutes without a poll were in order at one poll an hour; at one in 5 minutes they are not, from then on."""
    world = World(answers=lambda minute: minute == 0, interval_s=lambda minute: 3600.0 if minute < 50 else 300.0)
    found = gaps(world, 80)
    assert found[0] == 50 + 13  # 50 min at an hour are 0.83 intervals, and 12.3 min at 5 min the rest of 3.3
    assert gaps(world._replace(interval_s=lambda minute: 300.0), 80)[0] == 17


def test_a_reload_that_lengthens_the_interval_excuses_nothing() -> None:
    """15 minutes at one poll in 5 are three intervals: the third of an hour that is left is over at minute 33."""
    world = World(answers=lambda minute: minute == 0, interval_s=lambda minute: 300.0 if minute < 15 else 3600.0)
    assert gaps(world, 60)[0] == 15 + 19


def test_sources_that_stop_are_covered_no_more() -> None:
    """From the first poll without a reply, network and local records agree: no source is usable."""
    world = World(answers=lambda minute: minute < 20)
    usable = [one.record.coverage.usable for one in live(world, range(40))]
    assert usable == [4] * 20 + [0] * 20


def test_a_poll_is_good_for_its_interval_and_grace() -> None:
    """An agent that polls no more knows nothing of its sources after 3.3 intervals; how many they are, it does."""
    coverage = [one.record.coverage for one in live(World(ask_every=1000), range(40))]
    assert [one.usable for one in coverage] == [4] * 17 + [0] * 23
    assert {one.sources for one in coverage} == {4}
    assert isclose(coverage[20].age_s, 1200.0, rel_tol=1e-3)

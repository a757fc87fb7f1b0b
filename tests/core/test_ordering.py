"""In which order events came: in drawn worlds it is never said wrongly, and no less would do."""

from collections.abc import Iterable, Sequence
from itertools import combinations

import pytest
from hypothesis import given

from ntpaudit.core.fleet.model import Host
from ntpaudit.core.fleet.ordering import Measured, group_of, order, orderable
from tests.core.fleets import NOW_NS, SPANS, WIDTHS, host, offset, worlds


def measured(world: Iterable[tuple[Host, float]]) -> list[Measured]:
    """The hosts of a world as the arithmetic takes them."""
    return [Measured(one.name, one.site, one.offset) for one, _ in world if one.offset is not None]


@given(worlds(most=2), SPANS, SPANS)
def test_two_events_are_never_ordered_wrongly(world: list[tuple[Host, float]], t_a: float, t_b: float) -> None:
    """Wherever the true offsets lie in their intervals: what is called first happened first, by either stamp."""
    (a, theta_a), (b, theta_b) = world
    said = order(a, b, a.last_ns)
    assert said is not None
    assert a.offset is not None
    assert b.offset is not None
    a_is_first, b_is_first = t_a + theta_a < t_b + theta_b + 1e-9, t_b + theta_b < t_a + theta_a + 1e-9
    apart_s = t_b - t_a
    corrected_s = (t_b + b.offset.estimate_s) - (t_a + a.offset.estimate_s)
    for gap_s, first_s, second_s in (
        (apart_s, said.first_s, said.second_s),
        (corrected_s, said.corrected_first_s, said.corrected_second_s),
    ):
        assert a_is_first or not gap_s > first_s
        assert b_is_first or not -gap_s > second_s
    if abs(apart_s) > said.within_s:
        assert a_is_first if apart_s > 0 else b_is_first


@given(worlds(most=2))
def test_no_less_would_do_to_order_two_events(world: list[tuple[Host, float]]) -> None:
    """The limits are sharp: with the true offsets at the ends of their intervals, events that far apart coincide."""
    (a, _), (b, _) = world
    said = order(a, b, a.last_ns)
    assert said is not None
    assert a.offset is not None
    assert b.offset is not None
    assert said.first_s + b.offset.earliest_s == pytest.approx(a.offset.latest_s)
    assert said.second_s + a.offset.earliest_s == pytest.approx(b.offset.latest_s)
    widths_s = a.offset.latest_s - a.offset.earliest_s + b.offset.latest_s - b.offset.earliest_s
    assert said.first_s + said.second_s == pytest.approx(widths_s)
    assert said.corrected_first_s + said.corrected_second_s == pytest.approx(widths_s)


def test_hosts_that_were_not_measured_cannot_be_ordered() -> None:
    """Nothing is claimed about a clock whose offset is unknown."""
    assert order(host("a", None), host("b"), NOW_NS) is None
    assert order(host("a"), host("b", None), NOW_NS) is None


@given(worlds())
def test_the_ambiguity_of_several_hosts_is_that_of_their_worst_pair(world: list[tuple[Host, float]]) -> None:
    """The worst of all pairs is found without looking at all pairs."""
    hosts = [one for one, _ in world]
    every = [said.within_s for a, b in combinations(hosts, 2) if (said := order(a, b, a.last_ns)) is not None]
    worst = group_of(measured(world)).ambiguity
    assert worst is not None
    assert worst.within_s == pytest.approx(max(every))
    pair = {one.name: one for one in hosts}
    first, second = worst.hosts
    said = order(pair[first], pair[second], NOW_NS)
    assert said is not None
    assert said.within_s == worst.within_s


def test_one_host_is_in_order_with_itself() -> None:
    """Ambiguity takes two."""
    assert group_of([]).ambiguity is None
    assert group_of([Measured("a", None, offset(1.0))]).ambiguity is None


@given(worlds(), WIDTHS)
def test_the_most_hosts_are_kept_that_can_be_ordered_within_a_span(
    world: list[tuple[Host, float]], within_s: float
) -> None:
    """No larger set of hosts has all its intervals within the span, and the set that is found has."""
    hosts = measured(world)

    def fits(chosen: Sequence[Measured]) -> bool:
        return all(a.offset.latest_s - b.offset.earliest_s <= within_s for a in chosen for b in chosen)

    kept = orderable(hosts, within_s)
    assert fits([one for one in hosts if one.name in kept])
    most = max(size for size in range(len(hosts) + 1) if any(map(fits, combinations(hosts, size))))
    assert len(kept) == most


def test_of_equally_many_hosts_those_near_the_true_time_are_kept() -> None:
    """Two that are right stay, and two that are equally wrong are named."""
    hosts = [Measured(f"h{at}", None, offset(at)) for at in (5.0, 5.001, 0.001, -0.001)]
    assert orderable(hosts, 0.5) == {"h0.001", "h-0.001"}

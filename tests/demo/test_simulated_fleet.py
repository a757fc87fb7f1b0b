"""A simulated fleet runs to the end of its history, to the present, and on."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise

import pytest

from ntpaudit.core.units import NS_PER_S, format_utc
from ntpaudit.demo.fleet import LAG_NS, SimulatedFleet, days
from ntpaudit.demo.network import query_without_udp
from ntpaudit.demo.scenario import Scenario, StopAgent, build_scenario
from ntpaudit.demo.simulated_agent import SimulatedAudit
from tests.bench.load import main
from tests.tracing import untraced
from tests.world.flaky import Answer, FlakyDatabase

END_NS = 1_795_000_000 * NS_PER_S
HOUR_NS = 3600 * NS_PER_S


class Kept:
    """Keeps the audits themselves."""

    def __init__(self) -> None:
        self.audits: list[SimulatedAudit] = []
        self.flushed = 0

    def write(self, audit: SimulatedAudit) -> None:
        """Keep an audit."""
        self.audits.append(audit)

    def flush(self) -> None:
        """Count it."""
        self.flushed += 1


class Watch:
    """Counts, each time that a fleet lives on, the hosts that arrive."""

    def __init__(self) -> None:
        self.arrived: list[int] = []

    @contextmanager
    def once(self) -> Iterator[Callable[[], None]]:
        """Reset the counter."""
        arrived: list[None] = []
        yield lambda: arrived.append(None)
        self.arrived.append(len(arrived))


class Enough(Exception):  # noqa: N818 - raised by a test, caught by it
    """The user ends the demonstration."""


def make(scenario: Scenario, writer: Kept, written_ns: Mapping[str, int] | None = None) -> SimulatedFleet:
    """Return a fleet that is queried without UDP, at the end of its history."""
    fleet = SimulatedFleet(scenario, query_without_udp, writer, written_ns)
    with untraced():
        fleet.run(scenario.end_ns)
    return fleet


@pytest.mark.untraced
def test_each_host_reports_that_it_has_arrived() -> None:
    """A fleet counts its points, and calls back once for each host."""
    scenario = build_scenario(4, 6.0, 5, END_NS)
    arrived: list[None] = []
    kept = Kept()
    fleet = SimulatedFleet(scenario, query_without_udp, kept)
    fleet.run(END_NS, lambda: arrived.append(None))
    assert len(arrived) == 4
    assert fleet.points == sum(one.points for one in kept.audits) > 4 * 6 * 60


@pytest.mark.untraced
def test_processes_change_nothing() -> None:
    """The load generator's processes write the same lines, each host's in its order, as one process does."""
    hosts, hours, seed = 4, 6.0, 5
    lines: list[list[str]] = []
    with FlakyDatabase(choose=lambda request: Answer(204)) as database:
        for processes in (1, 2):
            database.requests.clear()
            words = ("--hosts", hosts, "--hours", hours, "--seed", seed, "--until", format_utc(END_NS))
            main([database.url, *map(str, words), "--processes", str(processes)])
            lines.append(sorted(line for request in database.requests for line in request.lines.splitlines()))
    assert len(lines[0]) > hosts * hours * 60
    assert lines[0] == lines[1]


def test_the_history_ends_at_the_present() -> None:
    """While hosts live through the past the present moves on; at the end every host has reported within its interval.

    One that fell silent has not.
    """
    scenario = build_scenario(24, 6.0, 1, END_NS)
    scenario = scenario._replace(
        hosts=tuple(part for part in scenario.hosts if part.fault.name in ("silent", "one-source"))
    )
    moments = iter([END_NS + 900 * NS_PER_S, END_NS + 960 * NS_PER_S, END_NS + 965 * NS_PER_S])
    kept, watch = Kept(), Watch()
    reached_ns, is_present = make(scenario, kept).catch_up(lambda: next(moments), watch.once)
    assert (reached_ns, is_present) == (END_NS + 960 * NS_PER_S - LAG_NS, True)
    assert watch.arrived == [len(scenario.hosts)] * 2
    for part in scenario.hosts:
        last_ns = [audit.record.utc_ns for audit in kept.audits if audit.record.host.name == part.name][-1]
        assert last_ns is not None
        is_silent = any(isinstance(event.what, StopAgent) for event in part.events)
        assert (reached_ns - last_ns < 70 * NS_PER_S) != is_silent


def test_a_fleet_that_lives_slower_than_time_passes_is_let_be() -> None:
    """Where each way to the present is about as long as the last one there is an end, and it is said."""
    scenario = build_scenario(3, 6.0, 1, END_NS)
    moments = iter([END_NS + LAG_NS + passed_s * NS_PER_S for passed_s in (600, 1000, 1301)])
    reached = make(scenario, Kept()).catch_up(lambda: next(moments), Watch().once)
    assert reached == (END_NS + 1000 * NS_PER_S, False)


def test_a_long_history_is_lived_day_by_day() -> None:
    """Progress is shown; the last portion ends with the history."""
    for hours, count in ((6.0, 1), (24.0, 1), (24.5, 2), (8784.0, 366)):
        scenario = build_scenario(3, hours, 1, END_NS)
        moments = (scenario.begin_ns, *days(scenario))
        assert len(moments) == count + 1
        assert moments[-1] == END_NS
        assert all(0 < later - earlier <= 24 * HOUR_NS for earlier, later in pairwise(moments))


def test_what_was_written_before_is_not_written_again() -> None:
    """A known host continues after its last point; an unknown one gets all of its history."""
    scenario = build_scenario(4, 6.0, 1, END_NS)
    known, new = (part.name for part in scenario.hosts[:2])
    kept = Kept()
    make(scenario, kept, {known: END_NS - HOUR_NS})
    at = {name: [audit.utc_ns for audit in kept.audits if audit.record.host.name == name] for name in (known, new)}
    assert END_NS - HOUR_NS < min(at[known]) < END_NS - HOUR_NS + 70 * NS_PER_S
    assert min(at[new]) < scenario.begin_ns + 300 * NS_PER_S


def test_a_fleet_goes_on_in_real_time() -> None:
    """What has become due is written after every pause, until it is interrupted."""
    scenario = build_scenario(3, 6.0, 1, END_NS)
    kept = Kept()
    pauses: list[float] = []
    reached: list[tuple[int, int]] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > 30:
            raise Enough

    fleet = make(scenario, kept)
    count = len(kept.audits)
    with pytest.raises(Enough):
        fleet.follow(
            lambda: END_NS + LAG_NS + round(sum(pauses) * NS_PER_S),
            pause,
            lambda points, until_ns: reached.append((points, until_ns)),
        )
    assert len(kept.audits) - count in range(3 * 2, 3 * 5)
    assert kept.flushed == 31
    assert len(reached) == 30
    points = sum(one.points for one in kept.audits)
    assert reached[-1] == (points, END_NS + round(sum(pauses[:-1]) * NS_PER_S))

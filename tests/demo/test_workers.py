"""A fleet lived by one process or by several, to the end of its story or to the present."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.scenario import Scenario, StopAgent, build_scenario
from ntpaudit.demo.simulated_agent import SimulatedAudit
from ntpaudit.demo.workers import (
    _END_S,
    LAG_NS,
    Absence,
    ParallelRunner,
    Reached,
    Work,
    _live,
    catch_up,
    follow,
    gather,
    live,
    portions,
)
from ntpaudit.demo.writers import StoreWriter, Waiting
from ntpaudit.errors import OutputError
from ntpaudit.fleet import open_reader
from ntpaudit.fleet.demo_store import DemoStore
from ntpaudit.fleet.reader import SnapshotOptions
from tests.waiting import until
from tests.world.flaky import Answer, FlakyDatabase

END_NS = 1_795_000_000 * NS_PER_S
HOUR_NS = 3600 * NS_PER_S
DEADLINE_S = 60.0


class Kept(StoreWriter):
    """Keeps the audits themselves."""

    def __init__(self) -> None:
        self.told: list[SimulatedAudit] = []
        self.flushed = 0

    def write(self, told: Iterable[SimulatedAudit]) -> None:
        """Keep audits."""
        self.told += told

    def flush(self) -> None:
        """Count it."""
        self.flushed += 1


class Watch:
    """Counts, each time that a fleet lives on, the hosts that arrive."""

    def __init__(self) -> None:
        self.arrived: list[int] = []

    @contextmanager
    def once(self) -> Iterator[Callable[[], None]]:
        """Count anew."""
        arrived: list[None] = []
        yield lambda: arrived.append(None)
        self.arrived.append(len(arrived))


class Enough(Exception):  # noqa: N818 - raised by a test, caught by it
    """Nobody wants to follow any further."""


def write(path: Path, scenario: Scenario, processes: int) -> Path:
    """Make a demonstration."""
    with DemoStore.create(str(path)) as store:
        with gather(Work(scenario, udp=False), processes, StoreWriter(store)) as crew:
            arrived: list[None] = []
            live(crew, scenario.end_ns, lambda: arrived.append(None))
            assert len(arrived) == len(scenario.hosts)
            assert crew.points > 100
        store.finish(scenario.end_ns)
    return path


def test_processes_change_nothing(tmp_path: Path) -> None:
    """The same seed and end give the same demonstration, whoever lives it, in one process or in three."""
    scenario = build_scenario(4, 6.0, 5, END_NS)
    alone, team = write(tmp_path / "alone", scenario, 1), write(tmp_path / "team", scenario, 3)
    with closing(open_reader(path=str(alone))) as one, closing(open_reader(path=str(team))) as other:
        snapshots = [reader.snapshot(END_NS, SnapshotOptions()) for reader in (one, other)]
        courses = [
            reader.host_series([part.name for part in scenario.hosts], scenario.begin_ns, END_NS, 500)
            for reader in (one, other)
        ]
    assert len(snapshots[0].hosts) == 4
    assert [sorted(part) for part in snapshots[0][1:3]] == [sorted(part) for part in snapshots[1][1:3]]
    assert courses[0] == courses[1]


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
    with gather(Work(scenario, udp=False), 1, kept) as crew:
        live(crew, scenario.end_ns)
        reached_ns, is_present = catch_up(crew, scenario, lambda: next(moments), watch.once)
    assert (reached_ns, is_present) == (END_NS + 960 * NS_PER_S - LAG_NS, True)
    assert watch.arrived == [len(scenario.hosts)] * 2
    for part in scenario.hosts:
        last_ns = [told.record.utc_ns for told in kept.told if told.record.host.name == part.name][-1]
        assert last_ns is not None
        is_silent = any(isinstance(event.what, StopAgent) for event in part.events)
        assert (reached_ns - last_ns < 70 * NS_PER_S) != is_silent


def test_a_fleet_that_lives_slower_than_time_passes_is_let_be() -> None:
    """Where each way to the present is about as long as the last one there is an end, and it is said."""
    scenario = build_scenario(3, 6.0, 1, END_NS)
    moments = iter([END_NS + LAG_NS + passed_s * NS_PER_S for passed_s in (600, 1000, 1301)])
    with gather(Work(scenario, udp=False), 1, Kept()) as crew:
        live(crew, scenario.end_ns)
        reached = catch_up(crew, scenario, lambda: next(moments), Watch().once)
    assert reached == Reached(END_NS + 1000 * NS_PER_S, is_present=False)


def test_a_long_history_is_lived_day_by_day() -> None:
    """So that whoever waits sees how far it is; the last portion ends with the history."""
    for hours, count in ((6.0, 1), (24.0, 1), (24.5, 2), (8784.0, 366)):
        scenario = build_scenario(3, hours, 1, END_NS)
        moments = (scenario.begin_ns, *portions(scenario))
        assert len(moments) == count + 1
        assert moments[-1] == END_NS
        assert all(0 < later - earlier <= 24 * HOUR_NS for earlier, later in pairwise(moments))


def test_what_was_told_before_is_not_told_again() -> None:
    """A host goes on from the moment until which it is known; one that nobody knows has all of its history."""
    scenario = build_scenario(4, 6.0, 1, END_NS)
    known, new = (part.name for part in scenario.hosts[:2])
    kept = Kept()
    with gather(Work(scenario, udp=False, told_ns={known: END_NS - HOUR_NS}), 1, kept) as crew:
        live(crew, END_NS)
    at = {name: [told.utc_ns for told in kept.told if told.record.host.name == name] for name in (known, new)}
    assert END_NS - HOUR_NS < min(at[known]) < END_NS - HOUR_NS + 70 * NS_PER_S
    assert min(at[new]) < scenario.begin_ns + 300 * NS_PER_S


def test_a_fleet_goes_on_in_real_time() -> None:
    """What has become due is told after every pause, until somebody has enough."""
    scenario = build_scenario(3, 6.0, 1, END_NS)
    kept = Kept()
    pauses: list[float] = []
    reached: list[tuple[int, int]] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > 30:
            raise Enough

    with gather(Work(scenario, udp=False), 1, kept) as crew:
        live(crew, scenario.end_ns)
        count = len(kept.told)
        with pytest.raises(Enough):
            follow(
                crew,
                lambda: END_NS + LAG_NS + round(sum(pauses) * NS_PER_S),
                pause,
                lambda points, until_ns: reached.append((points, until_ns)),
            )
    assert len(kept.told) - count in range(3 * 2, 3 * 5)
    assert kept.flushed == 31
    assert len(reached) == 30
    points = sum(1 + len(one.record.sources) + len(one.events) for one in kept.told)
    assert reached[-1] == (points, END_NS + round(sum(pauses[:-1]) * NS_PER_S))


def _children() -> list[psutil.Process]:
    """Return the processes that this one has started and that still live."""
    return [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]


@pytest.fixture
def team(tmp_path: Path) -> Iterator[ParallelRunner]:
    """Two processes with a long story before them."""
    work = Work(build_scenario(4, 24.0, 1, END_NS), udp=False)
    with DemoStore.create(str(tmp_path / "demo")) as store, gather(work, 2, StoreWriter(store)) as crew:
        assert isinstance(crew, ParallelRunner)
        yield crew
    assert _children() == []


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, r"was killed \(SIGKILL\), probably because memory ran out"),
        (signal.SIGABRT, "was ended by SIGABRT$"),
    ],
)
def test_a_process_that_dies_is_reported(team: ParallelRunner, number: signal.Signals, reason: str) -> None:
    """One that is killed ends the whole, with how it ended, and leaves none behind."""
    until(lambda: len(_children()) == 2, "both processes")
    os.kill(_children()[0].pid, number)
    with pytest.raises(OutputError, match=reason):
        live(team, END_NS)


def test_a_process_that_died_before_it_was_asked_is_reported(team: ParallelRunner) -> None:
    """One that has already ended is reported in the same way."""
    until(lambda: len(_children()) == 2, "both processes")
    first = _children()[0]
    first.kill()
    until(lambda: first.status() == psutil.STATUS_ZOMBIE, "the end of one")
    with pytest.raises(OutputError, match="was killed"):
        live(team, END_NS)


def test_no_process_outlives_a_crew_that_breaks_off(team: ParallelRunner) -> None:
    """Whoever stops in the middle is left by all."""
    next(team.advance(END_NS))


def test_what_stops_a_process_is_told_by_its_parent() -> None:
    """A database that nobody runs is named by the process that meets it, and told here."""
    work = Work(build_scenario(4, 6.0, 1, END_NS), udp=False, influx=InfluxConfig("http://127.0.0.1:9"))
    with (
        pytest.raises(OutputError, match=r"http://127\.0\.0\.1:9: no connection: .*; start it"),
        gather(work, 2, None) as crew,
    ):
        live(crew, END_NS)


def test_an_absence_is_told_once_at_each_end() -> None:
    """When the first process meets it, and when the last goes on."""
    said: list[str] = []
    absence = Absence(said.append)
    for number, reason in ((0, "no connection"), (1, "no connection"), (0, None), (0, "503"), (1, None), (0, None)):
        absence.hear(number, Waiting(reason))
    assert said == ["no connection; waiting for it", "the database accepts points again; continuing"]


@pytest.mark.alone
def test_whoever_waits_for_a_database_ends_at_once() -> None:
    """Processes that wait without end are gone soon after their crew breaks off, all by the same deadline."""
    scenario = build_scenario(4, 24.0, 1, END_NS)

    left: list[float] = []

    def leave(text: str) -> None:
        left.append(time.monotonic())
        assert text.endswith("; waiting for it")
        raise Enough

    def fill(work: Work) -> None:
        with gather(work, 2, None, leave) as crew:
            live(crew, scenario.begin_ns + HOUR_NS)
            live(crew, scenario.begin_ns + 2 * HOUR_NS)

    with FlakyDatabase(choose=lambda request: Answer(204 if len(database.requests) <= 2 else 503)) as database:
        work = Work(scenario, udp=False, influx=InfluxConfig(database.url), patient=True)
        with pytest.raises(Enough):
            fill(work)
        assert time.monotonic() - left[0] < 1.5 * _END_S
    assert _children() == []


def test_a_process_whose_failure_nobody_hears_ends_in_peace() -> None:
    """Of two that are refused at the same time one is heard, and the other finds nobody to tell."""
    ours, theirs = multiprocessing.Pipe()
    ours.send(END_NS)
    work = Work(build_scenario(3, 6.0, 1, END_NS), udp=False, influx=InfluxConfig("http://127.0.0.1:9"))
    process = multiprocessing.get_context("spawn").Process(target=_live, args=(theirs, work, 0, 3))
    process.start()
    theirs.close()
    assert ours.recv() is None  # it has begun, and before it has failed nobody listens any longer
    ours.close()
    process.join(DEADLINE_S)
    assert process.exitcode == 0

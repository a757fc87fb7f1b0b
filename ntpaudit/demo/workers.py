"""Runs the agents of a simulated fleet, with one process per core, until the present."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, NoReturn, Protocol

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.network import ask_directly, loopback
from ntpaudit.demo.scenario import Scenario
from ntpaudit.demo.simulated_agent import SimulatedAgent, SimulatedAudit
from ntpaudit.demo.writers import ATTEMPTS, InfluxWriter, PipeWriter, PointWriter, StoreWriter, Waiting
from ntpaudit.errors import NtpauditError, OutputError

LAG_NS = 3 * NS_PER_S
"""How far the simulation stays behind the present: the kernel cannot stamp a datagram with a future time."""

FOLLOW_S = 5.0
"""How often due audits run while a demo follows the present."""

SHRINK = 0.75
"""Each round towards the present must reduce the distance by this factor, or the demo gives up."""

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a demo: Ctrl-C, a service manager, a closed terminal."""

_END_S = 2.0
_DAY_NS = 86_400 * NS_PER_S


class Work(NamedTuple):
    """What to simulate: the scenario, whether queries go over UDP, and the database that gets the points, if any.

    `told_ns` says, by host, how far the database has points already: only later ones are sent. Where it is
    `patient` a database that has taken something is waited for without end.
    """

    scenario: Scenario
    udp: bool
    influx: InfluxConfig | None = None
    token: str | None = None
    told_ns: Mapping[str, int] = {}
    patient: bool = False


class Absence:
    """Reports once that a database is down, at the first process that notices, and once that all processes continue."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._waiting: set[int] = set()

    def hear(self, number: int, waiting: Waiting) -> None:
        """Handle a message of one process."""
        before = bool(self._waiting)
        if waiting.reason is None:
            self._waiting.discard(number)
        else:
            self._waiting.add(number)
        if self._waiting and not before:
            self._note(f"{waiting.reason}; waiting for it")
        elif before and not self._waiting:
            self._note("the database accepts points again; continuing")


class Arrived(NamedTuple):
    """The reply of a process when all its hosts have reached the requested time, with its number of points."""

    points: int


class Failed(NamedTuple):
    """Why a process ends."""

    reason: str


class Runner(Protocol):
    """Runs the simulated agents."""

    def advance(self, until_ns: int) -> Iterator[None]:
        """Run every host until that true time, and yield once for each that has reached it."""

    @property
    def points(self) -> int:
        """How many points were written so far."""


class SerialRunner:
    """Runs all hosts in this process. Points that a host has already written are not written again."""

    def __init__(self, lives: Sequence[SimulatedAgent], outlet: PointWriter, told_ns: Mapping[str, int]) -> None:
        self._lives = lives
        self._outlet = outlet
        self._told_ns = told_ns
        self._points = 0

    @property
    def points(self) -> int:
        """How many points were written so far."""
        return self._points

    def advance(self, until_ns: int) -> Iterator[None]:
        """Run one host after the other until then."""
        for life in self._lives:
            self._outlet.write(self._counted(filter(self._is_new, life.advance(until_ns))))
            yield
        self._outlet.flush()

    def _counted(self, audits: Iterable[SimulatedAudit]) -> Iterator[SimulatedAudit]:
        """Count the points of the audits."""
        for one in audits:
            self._points += 1 + len(one.record.sources) + len(one.events)
            yield one

    def _is_new(self, audit: SimulatedAudit) -> bool:
        """Whether the audit was not written before."""
        return audit.utc_ns > self._told_ns.get(audit.record.host.name, -1)


class ParallelRunner:
    """Runs the hosts in several processes, each with its share."""

    def __init__(
        self,
        pipes: Sequence[Connection],
        processes: Sequence[BaseProcess],
        store: StoreWriter | None,
        absence: Absence,
    ) -> None:
        self._pipes = pipes
        self._processes = processes
        self._store = store
        self._absence = absence
        self._points = [0] * len(pipes)

    @property
    def points(self) -> int:
        """How many points were written so far."""
        return sum(self._points)

    def advance(self, until_ns: int) -> Iterator[None]:
        """Run all processes until then. Raises OutputError if one of them stops."""
        for pipe in self._pipes:
            with suppress(BrokenPipeError, ConnectionResetError):  # it has ended: `_hear` says how
                pipe.send(until_ns)
        busy = list(self._pipes)
        while busy:
            ready = wait(busy)
            for pipe in [one for one in busy if one in ready]:
                number = self._pipes.index(pipe)
                match _hear(pipe, self._processes[number]):
                    case None:
                        yield
                    case Arrived(points):
                        self._points[number] = points
                        busy.remove(pipe)
                    case Failed(reason):
                        raise OutputError(reason)
                    case Waiting() as waiting:
                        self._absence.hear(number, waiting)
                    case parcels if self._store is not None:
                        self._store.take(parcels)


def _hear(pipe: Connection, process: BaseProcess) -> Any:
    """Return the next message of a process."""
    try:
        return pipe.recv()
    except (EOFError, ConnectionResetError):
        process.join(_END_S)
        return Failed(_why_ended(process.exitcode))


def _why_ended(exit_code: int | None) -> str:
    """Describe how a worker process ended early; only SIGKILL suggests a lack of memory."""
    what = "a process that simulates hosts"
    if exit_code is None:
        return f"{what} closed its pipe"
    if exit_code == -signal.SIGKILL:
        return f"{what} was killed (SIGKILL), probably because memory ran out: try fewer hosts"
    if exit_code < 0:
        return f"{what} was ended by {signal.Signals(-exit_code).name}"
    return f"{what} ended with exit status {exit_code}; its own messages are above"


@contextmanager
def gather(
    work: Work, processes: int, store: StoreWriter | None, note: Callable[[str], None] = lambda text: None
) -> Iterator[Runner]:
    """Gather a crew; what it has to tell goes to the store, or without one to the database that `work` names.

    `note` hears when the database is waited for.
    """
    processes = min(processes, len(work.scenario.hosts))
    absence = Absence(note)
    if processes > 1:
        with _team(work, processes, store, absence) as team:
            yield team
        return
    with _lives(work, 0, 1) as lives, ExitStack() as stack:
        outlet = store or _outlet(work, stack, lambda waiting: absence.hear(0, waiting), time.sleep)
        yield SerialRunner(lives, outlet, work.told_ns)


def live(crew: Runner, until_ns: int, arrived: Callable[[], None] = lambda: None) -> None:
    """Run a fleet until a true time, and report each host that has reached it."""
    for _ in crew.advance(until_ns):
        arrived()


def portions(scenario: Scenario) -> tuple[int, ...]:
    """Return times of a history, a day apart, with its end as the last one, to report progress."""
    return (*range(scenario.begin_ns + _DAY_NS, scenario.end_ns, _DAY_NS), scenario.end_ns)


class Reached(NamedTuple):
    """The time that a fleet has reached, and whether it is the present."""

    end_ns: int
    is_present: bool


Watch = Callable[[], AbstractContextManager[Callable[[], None]]]
"""Show whoever watches how far a fleet is that lives on: what it yields is called for each host that has arrived."""


def catch_up(crew: Runner, scenario: Scenario, now_ns: Callable[[], int], watch: Watch) -> Reached:
    """Live on from the end of the story until the present, which has moved on, is less than half of an interval away.

    Where living takes about as long as the time that is lived, it ends before.
    """
    reached_ns = scenario.end_ns
    before_ns: float = float("inf")
    while (behind_ns := now_ns() - LAG_NS - reached_ns) > scenario.intervals.local_s * NS_PER_S / 2:
        if behind_ns > SHRINK * before_ns:
            return Reached(reached_ns, is_present=False)
        with watch() as arrived:
            live(crew, reached_ns + behind_ns, arrived)
        reached_ns, before_ns = reached_ns + behind_ns, behind_ns
    return Reached(reached_ns, is_present=True)


def follow(
    crew: Runner,
    now_ns: Callable[[], int],
    pause: Callable[[float], None],
    reached: Callable[[int, int], None] = lambda points, until_ns: None,
) -> NoReturn:
    """Live on in real time, until whoever pauses has enough of it; `reached` hears how many points until when."""
    while True:
        pause(FOLLOW_S)
        until_ns = now_ns() - LAG_NS
        live(crew, until_ns)
        reached(crew.points, until_ns)


@contextmanager
def _lives(work: Work, first: int, each: int) -> Iterator[list[SimulatedAgent]]:
    """Yield every n-th agent, from the first on."""
    with ExitStack() as stack:
        ask = stack.enter_context(loopback(work.scenario.sources)) if work.udp else ask_directly
        yield [SimulatedAgent(part, work.scenario, ask) for part in work.scenario.hosts[first::each]]


def _outlet(
    work: Work, stack: ExitStack, say: Callable[[Waiting], None], pause: Callable[[float], None]
) -> InfluxWriter:
    """Open the database."""
    assert work.influx is not None
    attempts = None if work.patient else ATTEMPTS
    return stack.enter_context(closing(InfluxWriter(work.influx, work.token, attempts, say, pause)))


@contextmanager
def _team(work: Work, count: int, store: StoreWriter | None, absence: Absence) -> Iterator[ParallelRunner]:
    """Start the worker processes, and end them."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_live, args=(theirs, work, number, count), daemon=True)
            with _held_back():
                process.start()
            theirs.close()  # so that each end hears when the other is gone
            pipes.append(ours)
            processes.append(process)
        yield ParallelRunner(pipes, processes, store, absence)
    finally:
        with _ignored():
            _end(pipes, processes)


def _end(pipes: Sequence[Connection], processes: Sequence[BaseProcess]) -> None:
    """End all worker processes; each ends when its pipe is closed, or soon after."""
    for pipe in pipes:
        pipe.close()
    deadline_s = time.monotonic() + _END_S
    for process in processes:
        process.join(max(0.0, deadline_s - time.monotonic()))
    for process in processes:
        process.kill()
        process.join()


@contextmanager
def _held_back() -> Iterator[None]:
    """Let nothing end whoever is started meanwhile: we say when it is over. What would end us waits until after it."""
    resource_tracker.ensure_running()  # which takes the mask back when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _ignored() -> Iterator[None]:
    """Let nothing end us meanwhile, nor after it."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _live(pipe: Connection, work: Work, number: int, count: int) -> None:
    """Run a share of the hosts in a worker process, until the pipe is closed."""

    def pause(seconds: float) -> None:
        if pipe.poll(seconds):  # nothing is said to us before we have arrived: the other end is gone
            raise EOFError

    try:
        with _lives(work, number, count) as lives, ExitStack() as stack:
            outlet = PipeWriter(pipe.send) if work.influx is None else _outlet(work, stack, pipe.send, pause)
            crew = SerialRunner(lives, outlet, work.told_ns)
            while True:
                until_ns = pipe.recv()
                for _ in crew.advance(until_ns):
                    pipe.send(None)
                pipe.send(Arrived(crew.points))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except NtpauditError as error:
        with suppress(BrokenPipeError, ConnectionResetError):  # whoever heard of the first failure hears no second
            pipe.send(Failed(str(error)))

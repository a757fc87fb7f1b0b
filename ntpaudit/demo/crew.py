"""All lives of a simulated fleet, lived in as many processes as there are cores, and brought to the present."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, NoReturn, Protocol

from ntpaudit.config import InfluxConfig
from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.demo.asking import ask_directly, loopback
from ntpaudit.demo.life import Life, Told
from ntpaudit.demo.outlets import InfluxOutlet, Outlet, PipeOutlet, StoreOutlet
from ntpaudit.demo.story import Story
from ntpaudit.errors import NtpauditError, TellError

LAG_NS = 3 * NS_PER_S
"""A simulated world stays so far behind the present: the kernel stamps no datagram by a time that lies ahead."""

FOLLOW_S = 5.0
"""So often what has become due is done, where the present is followed."""

_END_S = 5.0


class Work(NamedTuple):
    """What a fleet lives by: its story, whether its audits go over UDP, and the database that they are told, if any.

    `told_ns` has until when the database knows hosts of that name already: only what comes after is told.
    """

    story: Story
    udp: bool
    influx: InfluxConfig | None = None
    token: str | None = None
    told_ns: Mapping[str, int] = {}


class Arrived(NamedTuple):
    """What a process answers when all its hosts have come to the moment that it was told."""


class Failed(NamedTuple):
    """Why a process ends."""

    reason: str


class Crew(Protocol):
    """Those who live the lives."""

    def advance(self, until_ns: int) -> Iterator[None]:
        """Let every host live until that moment of true time, and yield once for each that has come there."""


class Alone:
    """A crew of this process alone. What was told before, of each host until some moment, is not told again."""

    def __init__(self, lives: Sequence[Life], outlet: Outlet, told_ns: Mapping[str, int]) -> None:
        self._lives = lives
        self._outlet = outlet
        self._told_ns = told_ns

    def advance(self, until_ns: int) -> Iterator[None]:
        """Let one host after the other live until then."""
        for life in self._lives:
            self._outlet.write(filter(self._is_new, life.advance(until_ns)))
            yield
        self._outlet.flush()

    def _is_new(self, told: Told) -> bool:
        """Whether nobody was told of it before."""
        return told.utc_ns > self._told_ns.get(told.record.host.name, -1)


class Team:
    """A crew of several processes, each with its share of the hosts."""

    def __init__(self, pipes: Sequence[Connection], store: StoreOutlet | None) -> None:
        self._pipes = pipes
        self._store = store

    def advance(self, until_ns: int) -> Iterator[None]:
        """Let all processes work until then. TellError for what stops one of them."""
        for pipe in self._pipes:
            pipe.send(until_ns)
        busy = list(self._pipes)
        while busy:
            ready = wait(busy)
            for pipe in [one for one in busy if one in ready]:
                match _hear(pipe):
                    case None:
                        yield
                    case Arrived():
                        busy.remove(pipe)
                    case Failed(reason):
                        raise TellError(reason)
                    case parcels if self._store is not None:
                        self._store.take(parcels)


def _hear(pipe: Connection) -> Any:
    """Return what a process says next."""
    try:
        return pipe.recv()
    except (EOFError, ConnectionResetError):
        return Failed("a process that simulates hosts has ended, perhaps for want of memory; try fewer hosts")


@contextmanager
def gather(work: Work, processes: int, store: StoreOutlet | None) -> Iterator[Crew]:
    """Gather a crew; what it has to tell goes to the store, or without one to the database that `work` names."""
    processes = min(processes, len(work.story.parts))
    if processes > 1:
        with _team(work, processes, store) as team:
            yield team
        return
    with _lives(work, 0, 1) as lives, ExitStack() as stack:
        yield Alone(lives, _outlet(work, stack) if store is None else store, work.told_ns)


def live(crew: Crew, until_ns: int, arrived: Callable[[], None] = lambda: None) -> None:
    """Let a fleet live until a moment of true time, and tell of each host that has come there."""
    for _ in crew.advance(until_ns):
        arrived()


def catch_up(crew: Crew, story: Story, now_ns: Callable[[], int]) -> int:
    """Live on from the end of the story until the present, which has moved on, is less than half of an interval away.

    Return the moment that was reached.
    """
    reached_ns = story.end_ns
    while (present_ns := now_ns() - LAG_NS) - reached_ns > story.intervals.local_s * NS_PER_S / 2:
        live(crew, present_ns)
        reached_ns = present_ns
    return reached_ns


def follow(crew: Crew, now_ns: Callable[[], int], pause: Callable[[float], None]) -> NoReturn:
    """Live on in real time, until whoever pauses has enough of it."""
    while True:
        pause(FOLLOW_S)
        live(crew, now_ns() - LAG_NS)


@contextmanager
def _lives(work: Work, first: int, each: int) -> Iterator[list[Life]]:
    """Yield every so many of the lives, from the first on."""
    with ExitStack() as stack:
        ask = stack.enter_context(loopback(work.story.sources)) if work.udp else ask_directly
        yield [Life(part, work.story, ask) for part in work.story.parts[first::each]]


def _outlet(work: Work, stack: ExitStack) -> InfluxOutlet:
    """Open the database."""
    assert work.influx is not None
    return stack.enter_context(closing(InfluxOutlet(work.influx, work.token)))


@contextmanager
def _team(work: Work, count: int, store: StoreOutlet | None) -> Iterator[Team]:
    """Start processes, and end them."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_live, args=(theirs, work, number, count), daemon=True)
            with _uninterrupted():
                process.start()
            theirs.close()  # so that each end hears when the other is gone
            pipes.append(ours)
            processes.append(process)
        yield Team(pipes, store)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(_END_S)  # it ends when it finds nobody to tell
            process.kill()
            process.join()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let whoever is started meanwhile ignore Ctrl-C for good, and us for a moment: we say when it is over."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _live(pipe: Connection, work: Work, number: int, count: int) -> None:
    """Live a share of the lives, in a process of its own, until nobody is there any longer to be told."""
    try:
        with _lives(work, number, count) as lives, ExitStack() as stack:
            outlet = PipeOutlet(pipe.send) if work.influx is None else _outlet(work, stack)
            crew = Alone(lives, outlet, work.told_ns)
            while True:
                until_ns = pipe.recv()
                for _ in crew.advance(until_ns):
                    pipe.send(None)
                pipe.send(Arrived())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except NtpauditError as error:
        with suppress(BrokenPipeError, ConnectionResetError):  # whoever heard of the first failure hears no second
            pipe.send(Failed(str(error)))

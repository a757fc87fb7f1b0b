"""A world: one host, its oscillator, its time daemon, its servers, what goes wrong, and the real agent on it."""

import random
import zlib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ntpaudit import __version__
from ntpaudit.core.actions import ObserveHost, StartPoll, StoreAudit, StoreEvents
from ntpaudit.core.agent import handle
from ntpaudit.core.agent_events import AgentEvent, ClockSet, Observed, Started, TimePassed
from ntpaudit.core.agent_state import AgentSettings, first_state
from ntpaudit.core.evaluation import AuditSettings
from ntpaudit.core.events import Event
from ntpaudit.core.observation import Daemon, HostContext, HostFacts, Observation, SourceFailure, SourceObservation
from ntpaudit.core.policy import PROFILES
from ntpaudit.core.record import AuditKind, Labels, Record
from ntpaudit.core.schedule import Intervals
from tests.truth.clocks import NS_PER_S, PS_PER_NS, PS_PER_S, Clocks
from tests.truth.discipline import Discipline, LikeChrony, StepOnly
from tests.truth.oscillator import Oscillator, phase_ps
from tests.truth.servers import Exchange, ServerSpec, ServerState, poll

BEGIN_UTC_NS = 1_798_675_200 * NS_PER_S
"""2026-12-31 00:00:00 UTC: a leap second at the end of the year comes a day later."""

LEAP_AT_S = 86_400.0

DisciplineName = Literal["chrony", "step-only", "none"]
FaultName = Literal["step", "pause", "suspend", "outage", "dead-daemon", "leap", "missed-leap"]


class Fault(NamedTuple):
    """What happens to the host at `at_s`; `size` is in seconds."""

    at_s: float
    what: FaultName
    size: float = 0.0


class World(NamedTuple):
    """Everything that decides what happens, but the random numbers. `max_drift_ppm` is what the agent assumes.

    The oscillator is known for `extra_hours` more. The daemon polls `daemon_servers` if there are any, else those of
    the agent.
    """

    name: str
    hours: float
    oscillator: Oscillator
    servers: tuple[ServerSpec, ...]
    discipline: DisciplineName = "none"
    update_s: float = 1024.0
    intervals: Intervals = Intervals(3600.0, 3600.0, 900.0)
    behind_s: float = 0.0
    faults: tuple[Fault, ...] = ()
    max_drift_ppm: float = 50.0
    profile: str = "log-integrity"
    extra_hours: float = 0.0
    daemon_servers: tuple[ServerSpec, ...] = ()


class Moment(NamedTuple):
    """What is true at the moment of an audit.

    `exchanges` are the replies of a network audit, `offset_s` the true offset. `raw_ps` is RAW, `level_ps` REALTIME -
    RAW, `corrected_ps` the sum of all slews and steps so far.
    """

    now_s: float
    kind: AuditKind
    offset_s: float
    exchanges: Sequence[Exchange]
    raw_ps: int
    level_ps: int
    corrected_ps: int


class Audit(NamedTuple):
    """One audit of the agent: its record and events, and what was true."""

    record: Record
    events: tuple[Event, ...]
    true: Moment

    @property
    def age_s(self) -> float:
        """The age of what the record states; infinite if it states nothing."""
        return float("inf") if self.record.age_s is None else self.record.age_s

    @property
    def is_measured(self) -> bool:
        """Whether the record states what the servers replied just now."""
        return self.true.kind == "network" and self.record.age_s == 0.0


class Simulation:
    """One world over time."""

    def __init__(self, world: World, seed: int) -> None:
        key = zlib.crc32(world.name.encode())
        self.world = world
        self._seed = seed
        self._rand = random.Random(f"{seed} {world.name}")
        duration_s = (
            (world.hours + world.extra_hours) * 3600
            + 7200
            + sum(fault.size for fault in world.faults if fault.what in ("pause", "suspend"))
        )
        self.phase_ps = phase_ps(world.oscillator, duration_s, np.random.default_rng((seed, key)))
        self.clocks = Clocks(self.phase_ps, BEGIN_UTC_NS, behind_ns=round(world.behind_s * NS_PER_S))
        self.level_ps = self.clocks.realtime_ps - self.clocks.raw_ps
        """REALTIME - RAW at the begin."""

        self.servers = self._make_servers(world.servers, "server")
        self._daemon_servers = self._make_servers(world.daemon_servers, "daemon") or self.servers
        self._discipline = _discipline(world)
        self._update_s = float("inf") if self._discipline is None else self._rand.random() * self._discipline.update_s
        if world.discipline == "chrony":
            self.clocks.frequency_ppm = -world.oscillator.offset_ppm
            self.clocks.synchronise(0.01)
        self._faults = sorted(world.faults)
        self._is_cut_off = False
        self._audits: list[Audit] = []
        self._events: tuple[Event, ...] = ()
        judging = AuditSettings(
            PROFILES[world.profile], Labels(__version__), world.intervals.network_s, world.max_drift_ppm
        )
        settings = AgentSettings(judging, world.intervals)
        context = HostContext(self._facts, self._daemons)
        self.state = first_state(settings, context, self.clocks.read(), None)
        self._handle(Started(self.clocks.read(), self.clocks.kernel(), self._rand.random()))

    def _make_servers(self, specs: Sequence[ServerSpec], role: str) -> list[ServerState]:
        return [
            ServerState(spec, number, random.Random(f"{self._seed} {self.world.name} {role} {number}"))
            for number, spec in enumerate(specs, 1)
        ]

    @property
    def now_s(self) -> float:
        """True time since the begin."""
        return self.clocks.now_ps / PS_PER_S

    @property
    def _facts(self) -> HostFacts:
        return HostFacts("truth", None, "00000000-0000-4000-8000-000000000000", "UTC", 0, False, "tsc", None)

    @property
    def _daemons(self) -> tuple[Daemon, ...]:
        process = None if self._discipline is None else self._discipline.process
        return () if process is None else (process,)

    def audits(self) -> Iterator[Audit]:
        """Let the world run, and yield every audit."""
        end_s = self.world.hours * 3600
        while self.now_s < end_s:
            due_ps = self.clocks.now_ps + max(0, self.state.due_ns - self.clocks.boottime_ns) * PS_PER_NS + 1_000_000
            fault_s = self._faults[0].at_s if self._faults else float("inf")
            change_s = min(fault_s, self._update_s)
            if change_s * PS_PER_S < due_ps:
                self.clocks.advance(round(change_s * PS_PER_S))
                if change_s == fault_s:
                    self._happen(self._faults.pop(0))
                else:
                    self._update()
                continue
            self.clocks.advance(due_ps)
            self._handle(TimePassed(self.clocks.boottime_ns, self._rand.random()))
            yield from self._audits
            self._audits.clear()

    def _update(self) -> None:
        """Let the time daemon work."""
        assert self._discipline is not None
        if not self._is_cut_off:
            self._discipline.update(self.clocks, self._daemon_servers)
        self._update_s = self.now_s + self._discipline.update_s

    def _happen(self, fault: Fault) -> None:
        match fault.what:
            case "step":
                self.clocks.set_clock(round(fault.size * NS_PER_S))
            case "pause":
                self.clocks.pause(fault.size)
            case "suspend":
                self.clocks.suspend(fault.size)
                if self._discipline is not None:
                    self._discipline.forget()
            case "outage":
                self._is_cut_off = True
            case "dead-daemon":
                self._discipline, self._update_s = None, float("inf")
            case "leap":
                self.clocks.leap_s += 1
                self.clocks.make_leap_second()
            case "missed-leap":
                self.clocks.leap_s += 1
        if fault.what in ("step", "suspend", "leap"):  # what a timer of the kernel reports at once (J2)
            self._handle(ClockSet(self.clocks.read(), self.clocks.kernel()))

    def _handle(self, event: AgentEvent) -> None:
        """Let the agent decide, and do what it asks."""
        self.state, actions = handle(self.state, event)
        for action in actions:
            match action:
                case StartPoll():
                    for server in self.servers:
                        server.leap = int(self._announces_leap)
                    sources, exchanges = poll(self.clocks, self.servers)
                    if self._is_cut_off:
                        sources, exchanges = [_unreachable(source) for source in sources], []
                    self._observe("network", tuple(sources), exchanges)
                case ObserveHost():
                    self._observe("local", (), ())
                case StoreEvents(_, events):
                    self._events += events
                case StoreAudit(_, record, events):
                    self._audits.append(Audit(record, self._events + events, self._moment))
                    self._events = ()

    @property
    def _announces_leap(self) -> bool:
        return any(fault.what in ("leap", "missed-leap") and fault.at_s - self.now_s < 86_400 for fault in self._faults)

    def _observe(self, kind: AuditKind, sources: tuple[SourceObservation, ...], exchanges: Sequence[Exchange]) -> None:
        """Read the host, and let the agent judge."""
        clocks = self.clocks
        taken, offset_s = clocks.read(), clocks.offset_ps / PS_PER_S
        observation = Observation(self._facts, taken, sources, self.clocks.kernel(), self._daemons)
        level_ps = clocks.realtime_ps - clocks.raw_ps
        self._moment = Moment(self.now_s, kind, offset_s, exchanges, clocks.raw_ps, level_ps, clocks.corrected_ps)
        self._handle(Observed(observation, kind))


def _unreachable(source: SourceObservation) -> SourceObservation:
    return source._replace(outcome=SourceFailure("unreachable", "timeout"))


def _discipline(world: World) -> Discipline | None:
    match world.discipline:
        case "chrony":
            return LikeChrony(world.update_s)
        case "step-only":
            return StepOnly(world.update_s)
    return None

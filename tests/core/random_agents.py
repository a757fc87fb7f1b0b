"""The core of an agent, at work on a simulated host: every audit, and every event."""

import json
import random
from typing import Any, NamedTuple

from ntpaudit.core import actions
from ntpaudit.core.agent import handle
from ntpaudit.core.agent_events import AgentEvent, ClockSet, Observed, ShellReport, Started
from ntpaudit.core.agent_state import AgentSettings, AgentState, first_state
from ntpaudit.core.clock_state import ClockState
from ntpaudit.core.evaluation import AuditSettings
from ntpaudit.core.events import Event
from ntpaudit.core.observation import Observation, SourceObservation
from ntpaudit.core.policy import PROFILES, Profile
from ntpaudit.core.record import AuditKind, Labels, Record
from ntpaudit.core.schedule import CONFIRM_S, Intervals, Schedule
from ntpaudit.store.serialization import plain, revive
from tests.core.hosts import LivingHost
from tests.core.worlds import DAY, S, failed

LABELS = Labels("0.1.0", "c" * 64, "ams", "prod")
INTERVAL_S = 300


SILENT = tuple(failed(number) for number in (1, 2, 3, 4))
"""Four servers that do not answer."""


class Round(NamedTuple):
    """What came of one audit. `is_pending`: the agent wants to poll again soon to confirm a finding."""

    record: Record
    events: tuple[Event, ...]
    is_pending: bool


class Watch:
    """An agent at work on a living host, which audits when the test says so: every round and every event of it."""

    def __init__(
        self, host: LivingHost, *, profile: Profile = PROFILES["log-integrity"], interval_s: float = INTERVAL_S
    ) -> None:
        self.host = host
        self._settings = AgentSettings(AuditSettings(profile, LABELS, interval_s), Intervals(interval_s, 3600.0, 60.0))
        self.rounds: list[Round] = []
        self.events: list[Event] = []
        self.noticed: list[str] = []
        self.random = random.Random(1)
        self.state = self._first_state(None)

    def _first_state(self, stored: ClockState | None) -> AgentState:
        seen = self.host.observe()
        return first_state(self._settings, seen.context, seen.taken, stored)

    @property
    def clock_state(self) -> ClockState:
        """What it knows of the clock."""
        return self.state.clock

    @clock_state.setter
    def clock_state(self, clock: ClockState) -> None:
        self.state = self.state._replace(clock=clock)

    @property
    def terms(self) -> AuditSettings:
        """By what it judges."""
        return self.state.settings.judging

    @terms.setter
    def terms(self, terms: AuditSettings) -> None:
        self.state = self.state._replace(settings=self.state.settings._replace(judging=terms))

    def handle(self, event: AgentEvent) -> tuple[actions.Action, ...]:
        """Let the core decide, and keep the events of it."""
        self.state, done = handle(self.state, event)
        for action in done:
            match action:
                case actions.StoreEvents(_, events) | actions.StoreAudit(_, _, events):
                    self.events += events
                case actions.Log(message):
                    self.noticed.append(message)
        return done

    def look(self, *, width_ns: int = 60) -> bool:
        """Read the clocks; return whether a step or a suspend was found."""
        done = self.handle(ClockSet(self.host.read(width_ns=width_ns), self.host.read_kernel()))
        self.noticed += [event.kind for one in done if isinstance(one, actions.StoreEvents) for event in one.events]
        return actions.WakeDelivery() in done

    def local(self, **named: Any) -> Round:
        """Observe the host alone."""
        self.look()
        return self.conclude(self.host.observe(), "local", **named)

    def network(self, *sources: SourceObservation, **named: Any) -> Round:
        """Ask servers: the four honest ones, unless others are named."""
        self.look()
        return self.conclude(self.host.observe(*(sources or self.host.sources())), "network", **named)

    def conclude(self, observation: Observation, kind: AuditKind, **named: Any) -> Round:
        """Take in one observation."""
        never_ns = observation.taken.boottime_ns + DAY
        self.state = self.state._replace(schedule=Schedule(never_ns, None, never_ns))
        done = self.handle(Observed(observation, kind, ShellReport(**named)))
        (stored,) = (action for action in done if isinstance(action, actions.StoreAudit))
        assert self.state.schedule.network_ns is not None
        is_pending = self.state.schedule.network_ns <= observation.taken.boottime_ns + CONFIRM_S * S
        self.rounds.append(Round(stored.record, stored.events, is_pending))
        return self.rounds[-1]

    def spend(self, seconds: float, *, every_s: float = 60, network_every_s: float = INTERVAL_S, **asked: Any) -> None:
        """Let time pass, with an audit of the host every minute and of the servers every five."""
        asked_s = 0.0
        spent_s = 0.0
        while spent_s < seconds:
            self.host.run(every_s)
            spent_s += every_s
            asked_s += every_s
            if asked_s >= network_every_s:
                asked_s = 0.0
                self.network(*self.host.sources(**asked))
            else:
                self.local()

    def restart(self) -> None:
        """Restart the agent from its state in JSON, as another process would."""
        stored = json.loads(json.dumps(plain(self.clock_state), allow_nan=False))
        self.state = self._first_state(revive(ClockState, stored))
        self.handle(Started(self.host.read(), self.host.read_kernel(), 0.5))

    def changes(self, kind: str) -> list[bool]:
        """Return what was raised (True) and cleared of one kind, in its order."""
        return [event.raised for event in self.events if event.kind == kind]

"""The core of an agent, at work on a simulated host: every audit, and every event."""

import json
import random
from typing import Any, Literal

from ntpaudit.core.clock.steps import Step, Suspend
from ntpaudit.core.clock_state import ClockState, detect_clock_change, restored
from ntpaudit.core.evaluation import AuditResult, AuditSettings, evaluate, step_event
from ntpaudit.core.events import Event
from ntpaudit.core.observation import Observation, SourceObservation
from ntpaudit.core.policy import PROFILES, Profile
from ntpaudit.core.record import Health, Labels
from ntpaudit.store.serialization import plain, revive
from tests.core.hosts import LivingHost
from tests.core.worlds import failed

LABELS = Labels("0.1.0", "c" * 64, "ams", "prod")
INTERVAL_S = 300


SILENT = tuple(failed(number) for number in (1, 2, 3, 4))
"""Four servers that do not answer."""


class Watch:
    """An agent's core at work on a living host: every round and every event that came of it."""

    def __init__(
        self, host: LivingHost, *, profile: Profile = PROFILES["log-integrity"], interval_s: float = INTERVAL_S
    ) -> None:
        now = host.read()
        self.host, self.terms = host, AuditSettings(profile, LABELS, interval_s)
        self.mind = ClockState(host.boot_id, now, now.boottime_ns)
        self.rounds: list[AuditResult] = []
        self.events: list[Event] = []
        self.noticed: list[Step | Suspend] = []
        self.random = random.Random(1)

    def look(self, *, is_gap: bool = False, width_ns: int = 60) -> Step | Suspend | None:
        """Look for a step or a suspend."""
        now = self.host.read(width_ns=width_ns)
        self.mind, step, suspend = detect_clock_change(self.mind, now, is_gap=is_gap, kernel=self.host.read_kernel())
        if step is not None:
            self.events.append(step_event(self.mind, step, now))
        self.noticed += [one for one in (step, suspend) if one is not None]
        return step or suspend

    def local(self, **named: Any) -> AuditResult:
        """Look at the host alone."""
        self.look()
        return self.conclude(self.host.observe(), "local", **named)

    def network(self, *sources: SourceObservation, **named: Any) -> AuditResult:
        """Ask servers: the four honest ones, unless others are named."""
        self.look()
        return self.conclude(self.host.observe(*(sources or self.host.sources())), "network", **named)

    def conclude(self, observation: Observation, kind: Literal["network", "local"], **named: Any) -> AuditResult:
        """Take in one observation."""
        done = evaluate(self.mind, observation, kind, self.terms, Health(), **named)
        self.mind = done.state
        self.rounds.append(done)
        self.events += done.events
        return done

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
        stored = json.loads(json.dumps(plain(self.mind), allow_nan=False))
        self.mind = restored(revive(ClockState, stored), self.host.boot_id, self.host.read())
        self.look(is_gap=True)

    def told(self, kind: str) -> list[bool]:
        """Return what was raised (True) and cleared of one kind, in its order."""
        return [event.raised for event in self.events if event.kind == kind]

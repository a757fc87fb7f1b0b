"""The agent of a simulated host: the real core, driven by simulated time."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ntpaudit import __version__
from ntpaudit.core.accounts import Account
from ntpaudit.core.actions import CloseAccounts, ObserveHost, StartPoll, StoreAudit, StoreEvents
from ntpaudit.core.agent import handle
from ntpaudit.core.agent_events import AgentEvent, ClockSet, Observed, Started, TimePassed
from ntpaudit.core.agent_state import AgentSettings, first_state
from ntpaudit.core.clock_state import ClockState
from ntpaudit.core.evaluation import AuditSettings
from ntpaudit.core.events import Event
from ntpaudit.core.observation import Observation, SourceObservation
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES
from ntpaudit.core.record import Labels, Record
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.demo.accounts import SimulatedAccounts
from ntpaudit.demo.host import SimulatedHost, build_host
from ntpaudit.demo.scenario import ENV, HostSpec, Reboot, Scenario, Source

Query = Callable[[SimulatedHost, Sequence[Source]], tuple[SourceObservation, ...]]
"""Query every source; the host's time passes during the queries."""


class SimulatedAudit(NamedTuple):
    """The result of one audit, its true time, and how far the host's clock was behind at that time.

    `accounts` are those of the hours and days that it closes.
    """

    record: Record
    events: tuple[Event, ...]
    utc_ns: int
    behind_ns: int
    accounts: tuple[Account, ...] = ()

    @property
    def points(self) -> int:
        """How many points are written of it."""
        excursions = sum(len(account.excursions) for account in self.accounts if account.length_s == HOUR_S)
        return 1 + len(self.record.sources) + len(self.events) + len(self.accounts) + excursions


class SimulatedAgent:
    """One host with its agent and the agent's state."""

    def __init__(self, spec: HostSpec, scenario: Scenario, query: Query) -> None:
        self._rand = random.Random(f"life {scenario.seed} {spec.name}")
        self._spec = spec
        self._query = query
        labels = Labels(__version__, site=spec.site, env=ENV)
        judging = AuditSettings(PROFILES[DEFAULT_PROFILE], labels, scenario.intervals.network_s)
        self._settings = AgentSettings(judging, scenario.intervals)
        self._host = build_host(spec, scenario.begin_ns, self._rand)
        self._changes = [(scenario.end_ns - round(event.ago_s * NS_PER_S), event.what) for event in spec.events]
        self._audits: list[SimulatedAudit] = []
        self._unsent: tuple[Event, ...] = ()
        self._accounts = SimulatedAccounts()
        self._start(None)

    def _start(self, stored: ClockState | None) -> None:
        """Start an agent in this boot, with the state of the last run."""
        host = self._host
        self._state = first_state(self._settings, host.context, host.read(), stored)
        self._handle(Started(host.read(), host.kernel, self._rand.random()))

    def advance(self, until_ns: int) -> Iterator[SimulatedAudit]:
        """Live until that moment of true time, and yield every audit; what is due later stays due."""
        host = self._host
        while not host.is_silent:
            due_ns = host.utc_ns + max(0, self._state.due_ns - host.boottime_ns)
            if self._changes and self._changes[0][0] <= due_ns:
                if self._changes[0][0] > until_ns:
                    return
                self._change_host()
            elif due_ns > until_ns:
                return
            else:
                host.run_until(due_ns + 1000)  # the host's clock may be slow
                self._handle(TimePassed(host.boottime_ns, self._rand.random()))
                yield from self._audits
                self._audits.clear()

    def _change_host(self) -> None:
        """Apply the next event of the scenario; the agent detects it at once."""
        at_ns, what = self._changes.pop(0)
        self._host.run_until(at_ns)
        self._host.apply_event(what)
        if isinstance(what, Reboot):
            self._start(self._state.clock)
        else:
            self._handle(ClockSet(self._host.read(), self._host.kernel))

    def _handle(self, event: AgentEvent) -> None:
        self._state, actions = handle(self._state, event)
        for action in actions:
            match action:
                case StartPoll():
                    sources = self._query(self._host, self._spec.sources)
                    self._handle(Observed(self._observe(sources), "network", self._accounts.report))
                case ObserveHost():
                    self._handle(Observed(self._observe(()), "local", self._accounts.report))
                case StoreEvents(_, events):
                    self._unsent += events
                case StoreAudit(observation, record, events):
                    utc_ns, behind_ns = self._host.utc_ns, self._host.behind_ns
                    self._audits.append(SimulatedAudit(record, self._unsent + events, utc_ns, behind_ns))
                    self._accounts.store(observation.taken, record, self._audits[-1].events)
                    self._unsent = ()
                case CloseAccounts():
                    self._audits[-1] = self._audits[-1]._replace(accounts=self._accounts.close())

    def _observe(self, sources: tuple[SourceObservation, ...]) -> Observation:
        host = self._host
        taken = host.read()  # before the kernel, as in ntpaudit/agent.py
        return host.context.observation(taken, host.kernel, sources)

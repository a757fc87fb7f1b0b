"""The agent of a simulated host: schedule, queries, and evaluation by the real core, as in `audit_cycle.py`."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ntpaudit import __version__
from ntpaudit.core.agent import AuditSettings, ClockState, detect_clock_change, evaluate, reset_holdover, step_event
from ntpaudit.core.checks.debounce import of_new_boot
from ntpaudit.core.events import Event
from ntpaudit.core.ntp.rate_limit import SERVER_INTERVAL_S
from ntpaudit.core.observation import Observation, SourceObservation
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES
from ntpaudit.core.record import Health, Kind, Labels, Record
from ntpaudit.core.schedule import CONFIRM_S, advance_to, after_local, after_network, after_suspend, first_schedule
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.host import SimulatedHost, build_host
from ntpaudit.demo.scenario import ENV, HostSpec, Reboot, Scenario, Source

Ask = Callable[[SimulatedHost, Sequence[Source]], tuple[SourceObservation, ...]]
"""Query every source; the host's time passes during the queries."""


class SimulatedAudit(NamedTuple):
    """The result of one audit, its true time, and how far the host's clock was behind at that time."""

    record: Record
    events: tuple[Event, ...]
    utc_ns: int
    behind_ns: int


class SimulatedAgent:
    """One host with its agent and the agent's state."""

    def __init__(self, part: HostSpec, scenario: Scenario, ask: Ask) -> None:
        self._chance = random.Random(f"life {scenario.seed} {part.name}")
        self._part = part
        self._intervals = scenario.intervals
        self._ask = ask
        self._terms = AuditSettings(
            PROFILES[DEFAULT_PROFILE], Labels(__version__, site=part.site, env=ENV), scenario.intervals.network_s
        )
        self._host = build_host(part, scenario.begin_ns, self._chance)
        self._events = [(scenario.end_ns - round(event.ago_s * NS_PER_S), event.what) for event in part.events]
        self._untold: list[Event] = []
        self._start()

    def _start(self, before: ClockState | None = None) -> None:
        """Start an agent in this boot, with the state that survives a boot."""
        now = self._host.read()
        self._mind = ClockState(self._host.boot_id, now, now.boottime_ns)
        if before is not None:
            kept = self._mind._replace(
                back_test=before.back_test,
                measured_utc_ns=before.measured_utc_ns,
                debounce=of_new_boot(before.debounce),
            )
            self._mind = reset_holdover(kept)
        self._asked_ns = now.boottime_ns - SERVER_INTERVAL_S * NS_PER_S
        self._schedule = first_schedule(
            now.boottime_ns,
            self._intervals,
            has_servers=True,
            has_pools=False,
            has_estimate=False,
            rand=self._chance.random(),
        )

    def advance(self, until_ns: int) -> Iterator[SimulatedAudit]:
        """Live until that moment of true time, and yield every audit.

        What is due later stays due: so nothing depends on the portions in which time passes.
        """
        host = self._host
        while not host.is_silent:
            due_ns = host.utc_ns + max(0, self._schedule.next_ns - host.boottime_ns)
            if self._events and self._events[0][0] <= due_ns:
                if self._events[0][0] > until_ns:
                    return
                self._befall()
            elif due_ns > until_ns:
                return
            else:
                host.run_until(due_ns + 1000)  # the host's clock may be slow
                yield from self._do_what_is_due()

    def _befall(self) -> None:
        """Apply the next event; the agent detects it at once."""
        at_ns, what = self._events.pop(0)
        self._host.run_until(at_ns)
        self._host.apply_event(what)
        if isinstance(what, Reboot):
            self._start(self._mind)
        else:
            self._look()

    def _look(self) -> None:
        """Detect a step or a suspend; after either, the clock is measured again."""
        now = self._host.read()
        self._mind, step, suspend = detect_clock_change(self._mind, now)
        if step is not None:
            self._untold.append(step_event(self._mind, step, now))
        if suspend is not None:
            self._schedule = after_suspend(self._schedule, now.boottime_ns)
        if step is not None or suspend is not None:
            self._ask_sooner(0.0)

    def _do_what_is_due(self) -> Iterator[SimulatedAudit]:
        """Run a network or a local audit."""
        now_ns = self._host.boottime_ns
        if self._schedule.network_ns is not None and self._schedule.network_ns <= now_ns:
            self._asked_ns = now_ns
            self._schedule = after_network(self._schedule, now_ns, self._intervals, self._chance.random())
            yield self._conclude("network", self._ask(self._host, self._part.sources))
        if self._schedule.local_ns <= (now_ns := self._host.boottime_ns):
            self._schedule = after_local(self._schedule, now_ns, self._intervals, self._chance.random())
            yield self._conclude("local", ())

    def _conclude(self, kind: Kind, sources: tuple[SourceObservation, ...]) -> SimulatedAudit:
        """Evaluate an observation."""
        self._look()
        host = self._host
        taken = host.read()
        utc_ns, behind_ns = host.utc_ns, host.behind_ns
        observation = Observation(host.facts, taken, sources, host.kernel, host.daemons)
        concluded = evaluate(self._mind, observation, kind, self._terms, Health())
        self._mind = concluded.state
        if concluded.is_pending:
            self._ask_sooner(CONFIRM_S)
        events, self._untold = (*self._untold, *concluded.events), []
        return SimulatedAudit(concluded.record, events, utc_ns, behind_ns)

    def _ask_sooner(self, wait_s: float) -> None:
        """Advance the next network audit, as far as rate limits allow."""
        now_ns = self._host.boottime_ns
        self._schedule = advance_to(self._schedule, self._asked_ns, now_ns, wait_s=wait_s, least_s=SERVER_INTERVAL_S)

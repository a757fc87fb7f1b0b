"""The runtime of an agent on a simulated host: the real agent, and time that passes when it waits."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ntpaudit import audit
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.clock.steps import Step, StepCause
from ntpaudit.core.ntp.rate_limit import ServerStates
from ntpaudit.core.ntp.sources import Server
from ntpaudit.core.observation import Daemon, HostContext, KernelState, Observation
from ntpaudit.demo.host import SimulatedHost, TimeDaemon
from ntpaudit.demo.network import query_directly
from ntpaudit.demo.scenario import Source, What
from ntpaudit.polling import StateUpdater
from ntpaudit.runtime import SystemRuntime, Wakeup

S = 1_000_000_000


class Change(NamedTuple):
    """Something that happens to the host, or around it, at a moment of true time."""

    at_s: float
    what: Callable[["SimulatedRuntime"], None]


def happens(*events: What) -> Callable[["SimulatedRuntime"], None]:
    """Let events of the demonstration happen to the host."""

    def change(runtime: "SimulatedRuntime") -> None:
        for event in events:
            runtime.host.apply_event(event)

    return change


class SimulatedRuntime(SystemRuntime):
    """What an agent depends on, in a world where the truth is known; time passes when the agent waits.

    `server_error_s` is how far each server's own clock is ahead; `all_wrong_s` how far all are for the next poll.
    """

    def __init__(self, utc_ns: int, *, seed: int) -> None:
        super().__init__(handle_signals=False)
        rand = random.Random(seed)
        self.host = SimulatedHost(
            utc_ns, uptime_ns=40 * S, oscillator_ppm=12.0, daemon=TimeDaemon("ntpd", rand), rand=rand
        )
        self.start_ns = utc_ns
        self.has_boot_id = True
        self.server_error_s: dict[str, float] = {}
        self.all_wrong_s = 0.0
        self.changes: list[Change] = []
        self.ends: list[int] = []  # signals to the agent, until it ends
        self.signals: list[int] = []  # and those that it receives once
        self.truth: dict[tuple[str | None, int], int] = {}  # the true time of each reading, by boot and uptime
        self._answer: Observation | None = None
        self.clock = self

    @property
    def boot_id(self) -> str | None:
        """The id of the boot that lasts, None in a container that hides it."""
        return self.host.boot_id if self.has_boot_id else None

    def read(self) -> ClockReading:
        """Read all clocks, which takes its time."""
        reading = self.host.read()
        self.truth[self.boot_id, reading.boottime_ns] = self.host.utc_ns
        return reading

    def pass_time(self, true_ns: int) -> None:
        """Let true time pass."""
        self.host.run_until(self.host.utc_ns + true_ns)

    def host_context(self, name: str | None) -> HostContext:
        """Return who this host is."""
        context = self.host.context
        facts = context.host._replace(name=name or context.host.name, machine_id="m" * 32, boot_id=self.boot_id)
        return context._replace(host=facts)

    def with_claims(self, context: HostContext) -> HostContext:
        """Return the context with what its time daemons state now."""
        return context._replace(daemons=self.host.context.daemons)

    def causes_of(self, steps: Sequence[Step], context: HostContext) -> tuple[StepCause, ...]:
        """Return nothing: there are no logs."""
        return ()

    def has_ended(self, daemon: Daemon) -> bool:
        """Whether the time daemon has ended."""
        return daemon.pid not in {one.pid for one in self.host.context.known_daemons}

    def kernel(self) -> KernelState:
        """Return what the kernel believes."""
        return self.host.kernel

    def now_ns(self) -> int:
        """Return the uptime."""
        return self.host.boottime_ns

    def wait(self, seconds: float) -> Wakeup:
        """Pass time, until the agent wants to be woken or something happens to the host."""
        if self.ends:
            answer, self._answer = self._answer, None
            return Wakeup(signals=tuple(self.ends), observation=answer)
        if (answer := self._answer) is not None:
            self._answer = None
            self.pass_time(1_000_000)
            return Wakeup(observation=answer)
        before_zs = self.host.boottime_zs - self.host.realtime_zs
        before_asleep_zs = self.host.boottime_zs - self.host.monotonic_zs
        until_ns = self.host.utc_ns + round(max(seconds, 0.001) * S)
        if self.changes and self.start_ns + round(self.changes[0].at_s * S) <= until_ns:
            change = self.changes.pop(0)
            self.host.run_until(self.start_ns + round(change.at_s * S))
            change.what(self)
        else:
            self.host.run_until(until_ns)
        was_set = before_zs != self.host.boottime_zs - self.host.realtime_zs
        was_asleep = before_asleep_zs != self.host.boottime_zs - self.host.monotonic_zs
        signals, self.signals = tuple(self.signals), []
        return Wakeup(signals=signals, clock_set=was_set or was_asleep)

    def polling_s(self) -> float | None:
        """Say whether servers are being asked."""
        return None if self._answer is None else 0.0

    def poll(self, plan: audit.Plan, update: StateUpdater) -> None:
        """Ask every server of the plan, over a network that delays at random."""
        update(_remember_nothing)
        sources = tuple(
            query_directly(self.host, self._source(server, number))
            for number, server in enumerate(plan.sources, 1)
            if isinstance(server, Server)
        )
        self.all_wrong_s = 0.0
        self._answer = self.host_context(plan.host_name).observation(self.read(), self.kernel(), sources)

    def _source(self, server: Server, number: int) -> Source:
        """Return a server, as wrong as it is now."""
        error_s = self.server_error_s.get(server.name, 0.0) + self.all_wrong_s
        return Source(
            server.name, number, error_s, 0.0009, 0.0005, reference_id=bytes((192, 0, 2, number)), network_s=0.0016
        )


def _remember_nothing(states: ServerStates) -> ServerStates:
    return {}

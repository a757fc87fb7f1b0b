"""The real agent over a real history, on a host whose readings and observations the test gives."""

from collections.abc import Sequence
from pathlib import Path

from ntpaudit.agent import Agent, read_setup
from ntpaudit.audit import Plan
from ntpaudit.core.agent_events import Observed
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.clock.steps import Step, StepCause
from ntpaudit.core.observation import Daemon, HostContext, KernelState, Observation, Unavailable
from ntpaudit.core.record import Record
from ntpaudit.polling import StateUpdater
from ntpaudit.runtime import SystemRuntime


class PlayedHost(SystemRuntime):
    """A host that shows what it was last given."""

    def __init__(self) -> None:
        super().__init__(handle_signals=False)
        self.clock = self

    def turn(self, now: ClockReading, seen: Observation) -> None:
        """Come to a moment, in which this is seen."""
        self.now, self.seen = now, seen

    def read(self) -> ClockReading:
        """Return what the clocks show now."""
        return self.now

    def now_ns(self) -> int:
        """Return the uptime."""
        return self.now.boottime_ns

    def host_context(self, name: str | None) -> HostContext:
        """Return the host's identity and daemons."""
        return self.seen.context

    def with_claims(self, context: HostContext) -> HostContext:
        """Return the context with what its time daemons state now."""
        return context._replace(daemons=self.seen.daemons)

    def causes_of(self, steps: Sequence[Step], context: HostContext) -> tuple[StepCause, ...]:
        """Return nothing: there are no logs."""
        return ()

    def has_ended(self, daemon: Daemon) -> bool:
        """Return whether the time daemon has ended."""
        return daemon not in self.seen.known_daemons

    def kernel(self) -> KernelState | Unavailable:
        """Return the kernel's state."""
        return self.seen.kernel

    def poll(self, plan: Plan, update: StateUpdater) -> None:
        """Poll nothing: the test gives the observation."""


class PlayedAgent(Agent):
    """An agent that audits when the test says so. `rest` is added to its configuration."""

    def __init__(self, folder: Path, host: PlayedHost, rest: str = "") -> None:
        config = folder / "played.toml"
        config.write_text(f'[sources]\nservers = ["ntp1.example.net"]\n{rest}')
        environment = {"STATE_DIRECTORY": str(folder / "state")}
        super().__init__(read_setup(str(config), environment), host)

    def network(self, observation: Observation) -> Record:
        """Judge the observation of a poll."""
        self.take_observation(observation)
        return self._last

    def local(self) -> Record:
        """Observe the host and judge that."""
        self.handle(Observed(self.observe_host(None), "local", self._report()))
        return self._last

    @property
    def _last(self) -> Record:
        assert self.state.record is not None
        return self.state.record

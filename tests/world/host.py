"""A simulated host for the real agent: its clocks, its kernel, its time daemon, its network, and time that we pass."""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

from ntpaudit import audit
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.ntp.measurement import ExchangeTimestamps, Measurement, measure
from ntpaudit.core.ntp.packet import Reply
from ntpaudit.core.ntp.rate_limit import ServerStates
from ntpaudit.core.ntp.sources import Server
from ntpaudit.core.ntp.time import encode
from ntpaudit.core.observation import (
    Daemon,
    Failure,
    HostFacts,
    KernelState,
    Observation,
    SourceObservation,
    Unavailable,
)
from ntpaudit.polling import StateUpdater
from ntpaudit.runtime import HostContext, Wakeup

S = 1_000_000_000
CHRONYD = Daemon("chronyd", 4711)
CHRONYD_EVERY_S = 64.0
READ_NS = 50
"""How long a reading of the clocks takes."""


class Change(NamedTuple):
    """Something that happens to the host at a moment of true time."""

    at_s: float
    what: Callable[["SimulatedHost"], None]


class SimulatedHost:
    """The surroundings of an agent in a world where the truth is known; time passes when the agent waits.

    `utc_ns` is the true time. The oscillator is `oscillator_ppm` slow, wandering a little. A time daemon, while there
    is one, steers the frequency and slews the rest away. `server_error_s` is how far each server's own clock is ahead.
    """

    def __init__(self, utc_ns: int, *, seed: int, oscillator_ppm: float = 12.0) -> None:
        self.random = random.Random(seed)
        self.start_ns = self.utc_ns = utc_ns
        self.oscillator_ppm = oscillator_ppm
        self.realtime_ns = utc_ns
        self.raw_ns = self.monotonic_ns = self.boottime_ns = 40 * S
        self.boot = 0
        self.has_boot_id = True
        self.steering_ppm = 0.0
        self.has_daemon = self.has_network = True
        self.server_error_s: dict[str, float] = {}
        self.one_lie_s = 0.0
        self.corrected_ns = 0  # by MONOTONIC, when the daemon last looked
        self.maxerror_s = 0.01
        self.changes: list[Change] = []
        self.ends: list[int] = []  # signals to the agent, until it ends
        self.signals: list[int] = []  # and those that it hears once
        self.truth: dict[tuple[str | None, int], int] = {}  # the true time of each reading, by boot and uptime
        self._answer: Observation | None = None
        self.clock = self

    @property
    def offset_ns(self) -> int:
        """The true offset: positive is behind."""
        return self.utc_ns - self.realtime_ns

    @property
    def boot_id(self) -> str | None:
        """The id of the boot that lasts, None in a container that hides it."""
        return None if not self.has_boot_id else f"00000000-0000-4000-8000-{self.boot:012d}"

    def read(self) -> ClockReading:
        """Read all clocks, which takes its time."""
        self._run(READ_NS)
        self.truth[self.boot_id, self.boottime_ns] = self.utc_ns
        return ClockReading(self.realtime_ns, self.monotonic_ns, self.raw_ns, self.boottime_ns, READ_NS)

    def pass_time(self, true_ns: int) -> None:
        """Let so much true time pass, the daemon at work in it."""
        while true_ns > 0:
            part_ns = min(true_ns, int(CHRONYD_EVERY_S * S)) if self.has_daemon else true_ns
            self._run(part_ns)
            true_ns -= part_ns

    def _run(self, true_ns: int) -> None:
        raw_ns = round(true_ns * (1 - self.oscillator_ppm / 1e6))
        shown_ns = round(raw_ns * (1 + self.steering_ppm / 1e6))
        self.utc_ns += true_ns
        self.raw_ns += raw_ns
        for clock in ("realtime_ns", "monotonic_ns", "boottime_ns"):
            setattr(self, clock, getattr(self, clock) + shown_ns)
        self.oscillator_ppm += self.random.gauss(0.0, 0.002) * math.sqrt(true_ns / S / 64)
        self.maxerror_s = min(16.0, self.maxerror_s + 500e-6 * (true_ns / S))
        if self.has_daemon and self.monotonic_ns - self.corrected_ns >= CHRONYD_EVERY_S * S:
            self.corrected_ns = self.monotonic_ns
            if self.has_network:  # what chronyd makes of its own servers: noise of 50 us
                wrong_ns = self.offset_ns + self.random.gauss(0.0, 50_000)
                slew_ppm = max(-500.0, min(500.0, wrong_ns / (CHRONYD_EVERY_S * 1000) / 2))
                self.steering_ppm = self.oscillator_ppm + slew_ppm
                self.maxerror_s = 0.01

    def step(self, seconds: float) -> None:
        """Set the clock, forward if positive."""
        self.realtime_ns += round(seconds * S)

    def suspend(self, seconds: float) -> None:
        """Sleep; the hardware clock tells how long it was."""
        asleep_ns = round(seconds * S)
        self.utc_ns += asleep_ns
        self.realtime_ns += asleep_ns
        self.boottime_ns += asleep_ns

    def reboot(self, realtime_ns: int | None = None) -> None:
        """Start anew, at a time that a dead hardware clock gives, or a good one."""
        self.utc_ns += 40 * S
        self.realtime_ns = self.utc_ns if realtime_ns is None else realtime_ns
        self.raw_ns = self.monotonic_ns = self.boottime_ns = 5 * S
        self.boot += 1
        self.steering_ppm, self.corrected_ns, self.maxerror_s = 0.0, 0, 16.0

    # what the agent sees of it

    def host_context(self, name: str | None) -> HostContext:
        """Return who this host is."""
        host = HostFacts(name or "simulated", "m" * 32, self.boot_id, "UTC", 0, False, "tsc", None)
        return HostContext(host, (CHRONYD,) if self.has_daemon else ())

    def has_ended(self, daemon: Daemon) -> bool:
        """Whether the time daemon has ended."""
        return not self.has_daemon

    def kernel(self) -> KernelState | Unavailable:
        """Return what the kernel believes."""
        state, status = (0, 0) if self.maxerror_s < 16.0 else (5, 0x40)
        return KernelState(state, status, 0.0, self.steering_ppm, self.maxerror_s, self.maxerror_s / 10, 37)

    def now_ns(self) -> int:
        """Return the uptime."""
        return self.boottime_ns

    def wait(self, seconds: float) -> Wakeup:
        """Pass time, until the agent wants to be woken or something happens to the host."""
        if self.ends:
            answer, self._answer = self._answer, None
            return Wakeup(signals=tuple(self.ends), observation=answer)
        if (answer := self._answer) is not None:
            self._answer = None
            self.pass_time(1_000_000)
            return Wakeup(observation=answer)
        before = self.boottime_ns - self.realtime_ns
        until_ns = self.utc_ns + round(max(seconds, 0.001) * S)
        if self.changes and self.start_ns + round(self.changes[0].at_s * S) <= until_ns:
            change = self.changes.pop(0)
            self.pass_time(max(0, self.start_ns + round(change.at_s * S) - self.utc_ns))
            asleep_ns = self.boottime_ns - self.monotonic_ns
            change.what(self)
            was_set = asleep_ns != self.boottime_ns - self.monotonic_ns or self._was_set(before)
            signals, self.signals = tuple(self.signals), []
            return Wakeup(signals=signals, clock_set=was_set)
        self.pass_time(until_ns - self.utc_ns)
        return Wakeup(clock_set=self._was_set(before))

    def _was_set(self, before_ns: int) -> bool:
        return self.boottime_ns - self.realtime_ns != before_ns

    def polling_s(self) -> float | None:
        """Say whether servers are being asked."""
        return None if self._answer is None else 0.0

    def poll(self, plan: audit.Plan, update: StateUpdater) -> None:
        """Ask every server of the plan, over a network that delays at random."""
        update(_remember_nothing)
        sources = tuple(self._source(source) for source in plan.sources if isinstance(source, Server))
        self.one_lie_s = 0.0
        facts = self.host_context(plan.host_name)
        self._answer = Observation(facts.host, self.read(), sources, self.kernel(), facts.daemons)

    def _source(self, server: Server) -> SourceObservation:
        """Exchange packets with one server."""
        if not self.has_network:
            self._run(2 * S)
            return SourceObservation(server.name, server.host, server.port, Failure("unreachable", "timeout"))
        before = self.read()
        self._run(self._delay_ns())
        received_ns = self.utc_ns + round((self.server_error_s.get(server.name, 0.0) + self.one_lie_s) * S)
        self._run(20_000)
        transmitted_ns = received_ns + 20_000
        self._run(self._delay_ns())
        after = self.read()
        reply = Reply(
            0, 2, 6, -24, 60, 30, server.name.encode()[:4], 0, encode(received_ns), encode(transmitted_ns), ()
        )
        outcome = measure(reply, ExchangeTimestamps(before.realtime_ns, after.realtime_ns, before, after, "kernel"))
        assert isinstance(outcome, Measurement), outcome
        return SourceObservation(server.name, server.host, server.port, (outcome,))

    def _delay_ns(self) -> int:
        return 500_000 + round(self.random.expovariate(1 / 300_000))


def _remember_nothing(states: ServerStates) -> ServerStates:
    return {}

"""A simulated host: its clocks, the oscillator they run by, the kernel, and a time daemon that disciplines them."""

import math
import random
from collections.abc import Callable

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.observation import (
    PHASE_LIMIT_S,
    STA_UNSYNC,
    TIME_ERROR,
    Claim,
    Daemon,
    HiddenDaemons,
    HostContext,
    HostFacts,
    KernelState,
)
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo import scenario
from ntpaudit.probes.daemons import chronyd, ntpd, timesyncd

ZS_PER_NS = 10**12  # clocks count zeptoseconds: no rounding decides whether an interval contains the true offset
ZS_PER_S = NS_PER_S * ZS_PER_NS
READ_NS = 50  # the duration of a reading of the clocks
TICK_S = 64.0  # how often the oscillator's frequency changes and a time daemon polls its server, by the oscillator
_PPM = 10**9
_ONE = 10**6 * _PPM
_DAY_NS = 86_400 * NS_PER_S
_WANDER_PPM = 0.002
_DAEMON_NOISE_S = 50e-6
_DAEMON_ERROR_US = 10_000
_DAEMON_BOUND_S = 0.001  # half the root delay plus the root dispersion by the daemon's server, at an update
_DISPERSION_PPM = 15.0  # how fast a daemon's root dispersion grows (RFC 5905 §11.2)
_DAEMON_SERVER = "ntp.example.net"
_KERNEL_SLEW_PPM = 500.0  # the fastest slew of the kernel, which most daemons use
_CHRONYD_SLEW_PPM = 83_333.333  # chronyd's default `maxslewrate`
# an offset times the duration of its slew: `corrtimeratio` (3), half the noise, and the poll interval
_CHRONYD_SLEW_S2 = 3 * 0.5 * _DAEMON_NOISE_S * TICK_S
_MIN_SLEW_S = 1.0
_ERROR_LIMIT_US = round(PHASE_LIMIT_S * 1e6)
_ERROR_RATE_US = 500  # how much the kernel's maximum error grows in each second of its clock: MAXFREQ of linux/timex.h

_PROCESSES = {
    kind.name: kind.daemon(pid) for kind, pid in ((chronyd.KIND, 611), (ntpd.KIND, 702), (timesyncd.KIND, 388))
}


class SimulatedHost:
    """A host whose true time is known, and passes only on request.

    The oscillator is `oscillator_ppm` slow. The kernel lets the clock run `frequency_ppm` faster than the oscillator,
    and faster still during a slew. With a `rand` the oscillator wanders; without one nothing is random. `discipline`
    corrects the clock at each tick.
    """

    def __init__(
        self,
        utc_ns: int,
        *,
        name: str = "simulated",
        behind_ns: int = 0,
        uptime_ns: int = _DAY_NS,
        oscillator_ppm: float = 0.0,
        daemon: "TimeDaemon | None" = None,
        rand: random.Random | None = None,
    ) -> None:
        self.name = name
        self.utc_zs = utc_ns * ZS_PER_NS
        self.realtime_zs = (utc_ns - behind_ns) * ZS_PER_NS
        self.raw_zs = self.monotonic_zs = self.boottime_zs = uptime_ns * ZS_PER_NS
        self.oscillator_ppm = oscillator_ppm
        self.frequency_ppm = 0.0 if daemon is None else oscillator_ppm
        self.maxerror_us = _ERROR_LIMIT_US if daemon is None else _DAEMON_ERROR_US
        self.is_synchronised = daemon is not None
        self.discipline: Callable[[SimulatedHost], None] | None = None if daemon is None else daemon.update
        self.daemons: tuple[Daemon, ...] | HiddenDaemons = () if daemon is None else (daemon.process,)
        self.server_fault, self.server_fault_ns = scenario.ServerFault(), 0
        self.is_cut_off = self.is_silent = False
        self.boots = 0
        self._daemon = daemon
        self.rand = rand
        self._slew_ppm, self._slew_end_zs = 0.0, self.raw_zs
        self._slews_by_frequency = False
        self.tick_s = TICK_S
        self.tick_zs = self.raw_zs + _zs((1.0 if rand is None else rand.random()) * TICK_S)

    @property
    def utc_ns(self) -> int:
        """The true time."""
        return self.utc_zs // ZS_PER_NS

    @property
    def boottime_ns(self) -> int:
        """The uptime, including suspends."""
        return self.boottime_zs // ZS_PER_NS

    @property
    def behind_ns(self) -> int:
        """The true offset: positive is behind."""
        return self.utc_ns - self.realtime_zs // ZS_PER_NS

    @property
    def boot_id(self) -> str:
        """The id of the present boot."""
        return f"00000000-0000-4000-8000-{self.boots:012d}"

    @property
    def context(self) -> HostContext:
        """The identity of this host, and its time daemons with what they state now."""
        daemons = self.daemons
        if self._daemon is not None and daemons == (self._daemon.process,):
            daemons = (self._daemon.process._replace(claim=self._daemon.claim(self)),)
        return HostContext(HostFacts(self.name, None, self.boot_id, "UTC", 0, False, "tsc", None), daemons)

    @property
    def kernel(self) -> KernelState:
        """The kernel's state: chronyd slews by the frequency, other daemons give the kernel an offset to slew."""
        is_slewing = self._slew_end_zs > self.raw_zs
        frequency_ppm = self.frequency_ppm + (self._slew_ppm if is_slewing and self._slews_by_frequency else 0.0)
        offset_s = 0.0 if self._slews_by_frequency else self.slew_left_s
        maxerror_s = self.maxerror_us / 1e6
        state, status = (0, 0) if self.is_synchronised else (TIME_ERROR, STA_UNSYNC)
        return KernelState(state, status, offset_s, frequency_ppm, maxerror_s, maxerror_s / 10, 37)

    @property
    def slew_left_s(self) -> float:
        """The offset that is still to be corrected."""
        return self._slew_ppm * 1e-6 * max(0, self._slew_end_zs - self.raw_zs) / ZS_PER_S

    @property
    def reading(self) -> ClockReading:
        """What the clocks show."""
        return ClockReading(
            self.realtime_zs // ZS_PER_NS,
            self.monotonic_zs // ZS_PER_NS,
            self.raw_zs // ZS_PER_NS,
            self.boottime_zs // ZS_PER_NS,
            READ_NS,
        )

    def read(self) -> ClockReading:
        """Read all clocks, which takes its time."""
        self.run_until(self.utc_ns + READ_NS)
        return self.reading

    def run_until(self, utc_ns: int) -> None:
        """Let time pass until that true time."""
        while (left_zs := utc_ns * ZS_PER_NS - self.utc_zs) > 0:
            self._run(-(-left_zs * _ONE // _rate(self.oscillator_ppm)))

    def _run(self, raw_zs: int) -> None:
        """Run to the next tick (the frequency changes, the daemon polls) or end of a slew, at most for that time."""
        is_slewing = self._slew_end_zs > self.raw_zs
        end_zs = min(self.tick_zs, self._slew_end_zs) if is_slewing else self.tick_zs
        self._pass_time(max(0, min(raw_zs, end_zs - self.raw_zs)), self._slew_ppm if is_slewing else 0.0)
        if self.raw_zs >= self.tick_zs:
            self.tick_zs = self.raw_zs + _zs(self.tick_s)
            if self.rand is not None:
                self.oscillator_ppm += self.rand.gauss(0.0, _WANDER_PPM)
            if self.discipline is not None and not self.is_cut_off:
                self.discipline(self)

    def _pass_time(self, raw_zs: int, slew_ppm: float) -> None:
        """Let the clocks run at constant rates while the oscillator counts that time."""
        shown_zs = raw_zs * _rate(self.frequency_ppm + slew_ppm) // _ONE
        second = self.realtime_zs // ZS_PER_S
        self.utc_zs += raw_zs * _rate(self.oscillator_ppm) // _ONE
        self.raw_zs += raw_zs
        self.realtime_zs += shown_zs
        self.monotonic_zs += shown_zs
        self.boottime_zs += shown_zs
        if seconds := self.realtime_zs // ZS_PER_S - second:
            self.maxerror_us = min(_ERROR_LIMIT_US, self.maxerror_us + _ERROR_RATE_US * seconds)
            self.is_synchronised = self.is_synchronised and self.maxerror_us < _ERROR_LIMIT_US

    def synchronise(self, maxerror_us: int) -> None:
        """Set the kernel's maximum error, as a time daemon does at each update."""
        self.maxerror_us, self.is_synchronised = maxerror_us, True

    def slew(self, offset_s: float, duration_s: float, *, by_frequency: bool) -> None:
        """Begin to correct the clock by that offset, at a constant rate."""
        self._slew_ppm = offset_s * 1e6 / duration_s
        self._slew_end_zs = self.raw_zs + _zs(duration_s)
        self._slews_by_frequency = by_frequency

    def set_clock(self, ns: int) -> None:
        """Set the clock, forward if positive."""
        self.realtime_zs += ns * ZS_PER_NS

    def apply_event(self, what: scenario.What) -> None:
        """Change the host, or what is around it."""
        match what:
            case scenario.SetClock(size_s):
                self.set_clock(round(size_s * NS_PER_S))
            case scenario.Suspend(for_s):
                for_zs = _zs(for_s)  # MONOTONIC and RAW stop; the hardware clock corrects the others at the end
                self.utc_zs += for_zs
                self.realtime_zs += for_zs
                self.boottime_zs += for_zs
            case scenario.Reboot(off_ns, clock_ns):
                self._reboot(off_ns, clock_ns)
            case scenario.StopDaemon():
                self.discipline, self.daemons = None, ()
            case scenario.StartDaemon():
                self.realtime_zs = self.utc_zs
                self.discipline = None if self._daemon is None else self._daemon.update
                self.daemons = () if self._daemon is None else (self._daemon.process,)
            case scenario.BlockNtp():
                self.is_cut_off = True
            case scenario.ServerFault():
                self.server_fault, self.server_fault_ns = what, self.utc_ns
            case scenario.StopAgent():
                self.is_silent = True

    def _reboot(self, off_ns: int, clock_ns: int | None) -> None:
        """Start again with a kernel that no daemon has synchronised yet."""
        self.utc_zs += off_ns * ZS_PER_NS
        self.realtime_zs = self.realtime_zs + off_ns * ZS_PER_NS if clock_ns is None else clock_ns * ZS_PER_NS
        self.raw_zs = self.monotonic_zs = self.boottime_zs = 5 * ZS_PER_S
        self.boots += 1
        self.frequency_ppm, self._slew_end_zs = 0.0, 0
        self.maxerror_us, self.is_synchronised = _ERROR_LIMIT_US, False
        self.tick_zs = self.raw_zs + _zs(self.tick_s)


class TimeDaemon:
    """A time daemon: it assumes that its server is right, corrects the frequency, and slews the offset away."""

    def __init__(self, name: str, rand: random.Random) -> None:
        self.process = _PROCESSES[name]
        self._rand = rand
        self._updated: tuple[int, int] | None = None

    def claim(self, host: SimulatedHost) -> Claim:
        """Return what it states: its server's time, as far as it has not yet corrected the clock by it."""
        boots, updated_zs = self._updated or (host.boots, host.raw_zs)
        if boots != host.boots or not host.is_synchronised:
            return Claim(host.boottime_ns, is_synchronised=False, leap=3)
        age_s = (host.raw_zs - updated_zs) / ZS_PER_S
        bound_s = _DAEMON_BOUND_S + _DISPERSION_PPM * 1e-6 * age_s
        left_s = host.slew_left_s
        return Claim(host.boottime_ns, True, _DAEMON_SERVER, left_s, bound_s, age_s, host.tick_s, 3, 0, "none")

    def update(self, host: SimulatedHost) -> None:
        """Poll the server, whose fault is that of the host's events."""
        fault = host.server_fault
        walked_s = fault.walk_ppm * 1e-6 * (host.utc_ns - host.server_fault_ns) / NS_PER_S
        fault_s = fault.jump_s + math.copysign(min(abs(walked_s), fault.most_s), walked_s)
        offset_s = host.behind_ns / NS_PER_S + fault_s + self._rand.gauss(0.0, _DAEMON_NOISE_S)
        host.frequency_ppm = host.oscillator_ppm + (fault.walk_ppm if abs(walked_s) < fault.most_s else 0.0)
        if self.process.name == "chronyd":
            duration_s = max(_CHRONYD_SLEW_S2 / max(abs(offset_s), 1e-9), _MIN_SLEW_S)
            host.slew(offset_s, max(duration_s, abs(offset_s) * 1e6 / _CHRONYD_SLEW_PPM), by_frequency=True)
        else:
            host.slew(offset_s, max(2 * TICK_S, abs(offset_s) * 1e6 / _KERNEL_SLEW_PPM), by_frequency=False)
        host.synchronise(_DAEMON_ERROR_US)
        self._updated = host.boots, host.raw_zs


def build_host(spec: scenario.HostSpec, utc_ns: int, rand: random.Random) -> SimulatedHost:
    """Return a host of a scenario, at the beginning of its history."""
    return SimulatedHost(
        utc_ns,
        name=spec.name,
        behind_ns=round(spec.behind_s * NS_PER_S),
        uptime_ns=round(rand.uniform(1, 90) * _DAY_NS),
        oscillator_ppm=spec.oscillator_ppm,
        daemon=None if spec.daemon is None else TimeDaemon(spec.daemon, rand),
        rand=rand,
    )


def _zs(seconds: float) -> int:
    """Return a span, rounded to the nanosecond."""
    return round(seconds * NS_PER_S) * ZS_PER_NS


def _rate(ppm: float) -> int:
    """Return the rate of a clock that is that much faster, as a multiple of 1 / `_ONE`."""
    return _ONE + round(ppm * _PPM)

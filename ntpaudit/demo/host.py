"""A simulated host: four clocks and the oscillator they run by, the kernel, and a time daemon that steers it."""

import math
import random

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.observation import PHASE_LIMIT_S, STA_UNSYNC, TIME_ERROR, Daemon, HostFacts, KernelState
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.scenario import (
    BlockNtp,
    HostSpec,
    Reboot,
    ServerFault,
    SetClock,
    StartDaemon,
    StopAgent,
    StopDaemon,
    Suspend,
    What,
)

READ_NS = 50
"""How long a reading of the clocks takes."""

BOOT_NS = 40 * NS_PER_S
"""How long a boot takes until an agent runs."""

TICK_NS = 64 * NS_PER_S
"""So often the oscillator changes its mind, and a time daemon looks at its server."""

_WANDER_PPM = 0.002
_DAEMON_NOISE_S = 50e-6
_KERNEL_MOST_PPM = 500.0
"""Most daemons have the kernel slew, which it does at this rate at most."""

_CHRONYD_MOST_PPM = 83_333.333
"""chronyd's default `maxslewrate`."""

_CHRONYD_SLEW_S2 = 3 * 0.5 * _DAEMON_NOISE_S * TICK_NS / NS_PER_S
"""An offset times the duration of its slew: `corrtimeratio`, which is 3, by half the noise, by the poll interval."""

_LEAST_SLEW_S = 1.0
_MAXERROR_S = 0.01
_MAXERROR_RATE = 500e-6
_PIDS = {"chronyd": 611, "ntpd": 702, "systemd-timesyncd": 388}


class SimulatedHost:
    """A host in a world where the true time, `utc_ns`, is known, and passes only when it is told to.

    The free oscillator is `oscillator_ppm` slow, and wanders. A time daemon, while there is one, takes its server's
    time for true, steers the frequency and slews the rest away.
    """

    def __init__(self, part: HostSpec, utc_ns: int, rand: random.Random) -> None:
        self.utc_ns = utc_ns
        self.oscillator_ppm = part.oscillator_ppm
        self.realtime_ns = utc_ns - round(part.behind_s * NS_PER_S)
        self.raw_ns = self.monotonic_ns = self.boottime_ns = round(rand.uniform(1, 90) * 86_400 * NS_PER_S)
        self.frequency_ppm = 0.0 if part.daemon is None else part.oscillator_ppm
        self._slew_ppm, self._slew_end_ns = 0.0, utc_ns
        self.is_cut_off = self.is_silent = False
        self._part = part
        self._chance = rand
        self._boot = 0
        self._daemon = part.daemon
        self._tick_ns = utc_ns + round(rand.random() * TICK_NS)
        self._updated_ns = utc_ns
        self._maxerror_s = PHASE_LIMIT_S if part.daemon is None else _MAXERROR_S
        self._mislead = ServerFault()
        self._mislead_ns = 0

    @property
    def behind_ns(self) -> int:
        """The true offset: positive is behind."""
        return self.utc_ns - self.realtime_ns

    @property
    def boot_id(self) -> str:
        """The id of the boot that lasts."""
        return f"00000000-0000-4000-8000-{self._boot:012d}"

    @property
    def facts(self) -> HostFacts:
        """Who this host is."""
        return HostFacts(self._part.name, None, self.boot_id, "UTC", 0, False, "tsc", None)

    @property
    def daemons(self) -> tuple[Daemon, ...]:
        """The time daemons that run."""
        return () if self._daemon is None else (Daemon(self._daemon, _PIDS[self._daemon]),)

    @property
    def kernel(self) -> KernelState:
        """What the kernel believes: its error grows by 500 ppm until a daemon updates it.

        chronyd slews by the frequency (and the tick); others name the offset, which the kernel slews beside it.
        """
        left_ns = max(0, self._slew_end_ns - self.utc_ns)
        slew_ppm = self._slew_ppm if left_ns else 0.0
        by_frequency = self._daemon == "chronyd"
        frequency_ppm = self.frequency_ppm + (slew_ppm if by_frequency else 0.0)
        offset_s = 0.0 if by_frequency else slew_ppm * 1e-6 * left_ns / NS_PER_S
        grown_s = _MAXERROR_RATE * (self.utc_ns - self._updated_ns) / NS_PER_S
        maxerror_s = min(PHASE_LIMIT_S, self._maxerror_s + grown_s)
        state, status = (0, 0) if maxerror_s < PHASE_LIMIT_S else (TIME_ERROR, STA_UNSYNC)
        return KernelState(state, status, offset_s, frequency_ppm, maxerror_s, maxerror_s / 10, 37)

    def read(self) -> ClockReading:
        """Read all clocks, which takes its time."""
        self._run(READ_NS)
        return self.reading

    @property
    def reading(self) -> ClockReading:
        """What the clocks show."""
        return ClockReading(self.realtime_ns, self.monotonic_ns, self.raw_ns, self.boottime_ns, READ_NS)

    def run_until(self, utc_ns: int) -> None:
        """Let time pass until that moment of true time, the oscillator and the daemon at work in it."""
        while self._tick_ns <= utc_ns:
            self._run(self._tick_ns - self.utc_ns)
            self._tick_ns += TICK_NS
            self.oscillator_ppm += self._chance.gauss(0.0, _WANDER_PPM)
            if self._daemon is not None and not self.is_cut_off:
                self._steer()
        self._run(utc_ns - self.utc_ns)

    def draw_delay_ns(self, mean_s: float) -> int:
        """Return how long a packet of this host is under way, at random, half of the mean at least."""
        return round((0.5 + 0.5 * self._chance.expovariate(1.0)) * mean_s * NS_PER_S)

    def apply_event(self, what: What) -> None:
        """Let something happen."""
        match what:
            case SetClock(size_s):
                self.realtime_ns += round(size_s * NS_PER_S)
            case Suspend(for_s):
                self._sleep(round(for_s * NS_PER_S))
            case Reboot():
                self._reboot()
            case StopDaemon():
                self._daemon = None
            case StartDaemon():
                self.realtime_ns = self.utc_ns
                self._daemon = self._part.daemon
            case BlockNtp():
                self.is_cut_off = True
            case ServerFault():
                self._mislead, self._mislead_ns = what, self.utc_ns
            case StopAgent():
                self.is_silent = True

    def _run(self, true_ns: int) -> None:
        """Let the clocks run, by oscillator, frequency and slew as they are."""
        slewing_ns = max(0, min(true_ns, self._slew_end_ns - self.utc_ns))
        self._pass(slewing_ns, self.frequency_ppm + self._slew_ppm)
        self._pass(true_ns - slewing_ns, self.frequency_ppm)

    def _pass(self, true_ns: int, steering_ppm: float) -> None:
        """Let the clocks run while nothing changes."""
        if true_ns <= 0:
            return
        raw_ns = round(true_ns * (1 - self.oscillator_ppm / 1e6))
        shown_ns = round(raw_ns * (1 + steering_ppm / 1e6))
        self.utc_ns += true_ns
        self.raw_ns += raw_ns
        self.realtime_ns += shown_ns
        self.monotonic_ns += shown_ns
        self.boottime_ns += shown_ns

    def _steer(self) -> None:
        """Take the frequency of the daemon's server for right, and begin to slew to its time."""
        walked_s = self._mislead.walk_ppm * 1e-6 * (self.utc_ns - self._mislead_ns) / NS_PER_S
        misled_s = self._mislead.jump_s + math.copysign(min(abs(walked_s), self._mislead.most_s), walked_s)
        wrong_s = self.behind_ns / NS_PER_S + misled_s + self._chance.gauss(0.0, _DAEMON_NOISE_S)
        walk_ppm = self._mislead.walk_ppm if abs(walked_s) < self._mislead.most_s else 0.0
        self.frequency_ppm = self.oscillator_ppm + walk_ppm
        self._slew(wrong_s)
        self._updated_ns, self._maxerror_s = self.utc_ns, _MAXERROR_S

    def _slew(self, wrong_s: float) -> None:
        """Begin to slew an offset away: chronyd the faster the larger it is, the kernel within two ticks if it can."""
        if self._daemon == "chronyd":
            duration_s = _CHRONYD_SLEW_S2 / max(abs(wrong_s), 1e-9)
            duration_s = max(duration_s, _LEAST_SLEW_S, abs(wrong_s) * 1e6 / _CHRONYD_MOST_PPM)
        else:
            duration_s = max(2 * TICK_NS / NS_PER_S, abs(wrong_s) * 1e6 / _KERNEL_MOST_PPM)
        self._slew_ppm = wrong_s * 1e6 / duration_s
        self._slew_end_ns = self.utc_ns + round(duration_s * NS_PER_S)

    def _sleep(self, asleep_ns: int) -> None:
        """Stand still but for the hardware clock, by which the others are set at waking."""
        self.utc_ns += asleep_ns
        self.realtime_ns += asleep_ns
        self.boottime_ns += asleep_ns
        self._tick_ns += asleep_ns
        self._slew_end_ns += asleep_ns

    def _reboot(self) -> None:
        """Start anew, by a good hardware clock, nobody having told the kernel the time yet."""
        self.utc_ns += BOOT_NS
        self.realtime_ns += BOOT_NS
        self.raw_ns = self.monotonic_ns = self.boottime_ns = 5 * NS_PER_S
        self._boot += 1
        self.frequency_ppm, self._slew_end_ns = 0.0, self.utc_ns
        self._updated_ns, self._maxerror_s = self.utc_ns, PHASE_LIMIT_S
        self._tick_ns = self.utc_ns + TICK_NS

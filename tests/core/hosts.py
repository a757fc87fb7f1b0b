"""The simulated host as the tests of the core use it: changed by hand, with servers, and with leap seconds."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import ceil, floor

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.ntp.packet import Reply
from ntpaudit.core.observation import KernelState, Observation, SourceObservation, Unavailable
from ntpaudit.demo.host import ZS_PER_NS, ZS_PER_S, SimulatedHost
from ntpaudit.demo.scenario import Reboot, Suspend
from tests.core.worlds import CHRONYD, DAY, HOST, MS, NOON, S, answered, measurement, reply

NEVER_S = 1e9


class LivingHost(SimulatedHost):
    """A host whose clocks are known exactly, as fractions of a nanosecond, and change only as a test says.

    Its oscillator is `drift_ppm` slow; the kernel lets its clock run `slew_ppm` faster than that. A daemon updates
    the kernel's maximum error to `daemon_error_s` every `poll_s` seconds of the oscillator; None: it is dead.

    At `leap_at` UTC makes the leap second `leap`, 1 inserted, -1 deleted, 0 none, and the host's kernel makes the one
    that was announced to it, `kernel_leap`, when its own clock comes to that moment. Servers announce `indicator`.
    """

    def __init__(
        self, *, offset_ns: int = 0, drift_ppm: float = 0, slew_ppm: float = 0, uptime_ns: int = DAY, utc_ns: int = NOON
    ) -> None:
        super().__init__(utc_ns, behind_ns=offset_ns, uptime_ns=uptime_ns, oscillator_ppm=drift_ppm)
        self.frequency_ppm = slew_ppm
        self.daemon_error_s = 0.01
        self.updated_zs = self.raw_zs
        self.poll_s = 64.0
        self.synchronise(10_000)
        self.kernel_answers = True
        self.daemons = (CHRONYD,)
        self.container: str | None = None
        self.leap_at: int | None = None
        self.leap = self.kernel_leap = self.indicator = 0
        self.state, self.tai_s = 0, 37

    def update(self, host: SimulatedHost) -> None:
        """Update the kernel's maximum error, as the time daemon; a test corrects the clock."""
        self.synchronise(round(self.daemon_error_s * 1e6))
        self.updated_zs = self.raw_zs

    @property
    def poll_s(self) -> float | None:
        """How often the time daemon updates the kernel; None: never."""
        return None if self.discipline is None else self.tick_s

    @poll_s.setter
    def poll_s(self, seconds: float | None) -> None:
        self.discipline = None if seconds is None else self.update
        self.tick_s = NEVER_S if seconds is None else seconds
        self.tick_zs = self.updated_zs + round(self.tick_s * S) * ZS_PER_NS

    @property
    def utc(self) -> Fraction:
        """The true time in nanoseconds."""
        return Fraction(self.utc_zs, ZS_PER_NS)

    @property
    def realtime(self) -> Fraction:
        """What the clock shows, in nanoseconds."""
        return Fraction(self.realtime_zs, ZS_PER_NS)

    @property
    def offset(self) -> Fraction:
        """The true offset: reference - host."""
        return Fraction(self.utc_zs - self.realtime_zs, ZS_PER_NS)

    def run(self, seconds: float, *, drift_ppm: float | None = None, slew_ppm: float | None = None) -> None:
        """Let its oscillator count seconds."""
        if drift_ppm is not None:
            self.oscillator_ppm = drift_ppm
        if slew_ppm is not None:
            self.frequency_ppm = slew_ppm
        end_zs = self.raw_zs + round(seconds * S) * ZS_PER_NS
        while (left_zs := end_zs - self.raw_zs) > 0:
            self._run(min([left_zs, *self._until_leap()]))
            self._make_leap()

    def _until_leap(self) -> Iterator[int]:
        """Yield the oscillator's time until UTC and the host's clock come to the leap second."""
        if self.leap_at is not None:
            for now_zs, ppm in ((self.utc_zs, self.oscillator_ppm), (self.realtime_zs, self.frequency_ppm)):
                if (left_zs := self.leap_at * ZS_PER_NS - now_zs) > 0:
                    yield ceil(left_zs / (1 + Fraction(ppm) / 10**6))

    def _make_leap(self) -> None:
        """Let UTC, the kernel or both make their leap second, once each."""
        if self.leap and self.leap_at is not None and self.utc >= self.leap_at:
            self.utc_zs, self.leap = self.utc_zs - self.leap * ZS_PER_S, 0
        if self.kernel_leap and self.leap_at is not None and self.realtime >= self.leap_at:
            self.set_clock(-self.kernel_leap * S)
            self.tai_s += self.kernel_leap
            self.state, self.kernel_leap = 3 if self.kernel_leap > 0 else 4, 0

    def step(self, ns: int) -> None:
        """Set the clock forward; the kernel holds it for unsynchronised until a daemon says otherwise."""
        self.set_clock(ns)
        self.maxerror_us, self.is_synchronised = 16_000_000, False

    def suspend(self, seconds: float, *, rtc_wrong_ns: int = 0) -> None:
        """Sleep; the hardware clock says how long, and may be wrong."""
        self.apply_event(Suspend(seconds))
        self.boottime_zs += rtc_wrong_ns * ZS_PER_NS
        self.set_clock(rtc_wrong_ns)

    def pause(self, seconds: float) -> None:
        """Pause the virtual machine: true time goes on, and no clock of the host counts it (R7)."""
        self.utc_zs += round(seconds * S) * ZS_PER_NS

    def reboot(self, *, realtime_ns: int | None = None, off_s: float = 40) -> None:
        """Boot again, with a good hardware clock unless another time is given."""
        off_ns = round(off_s * S)
        self.apply_event(Reboot(off_ns, self.utc_ns + off_ns if realtime_ns is None else realtime_ns))
        self.updated_zs = self.raw_zs

    def read(self, *, width_ns: int = 60, lean: float = 0.0) -> ClockReading:
        """Read all clocks; RAW is read `lean` (-1 to 1) half widths away from the moment REALTIME is."""
        lean_zs = floor(Fraction(lean) * width_ns * ZS_PER_NS / 2) if lean else 0
        return self.reading._replace(raw_ns=(self.raw_zs + lean_zs) // ZS_PER_NS, width_ns=width_ns)

    def read_kernel(self) -> KernelState | Unavailable:
        """Ask the kernel."""
        if not self.kernel_answers:
            return Unavailable("Function not implemented")
        kernel = self.kernel
        return kernel._replace(state=self.state if self.is_synchronised else kernel.state, tai_s=self.tai_s)

    def sources(
        self, *, error_ns: Sequence[int] = (0, 0, 0, 0), half_width_ns: int = 10 * MS, taken: ClockReading | None = None
    ) -> tuple[SourceObservation, ...]:
        """Ask as many servers as there are errors; one that is wrong by no more than the half width is honest."""
        taken = taken or self.read()
        offset_ns = self.utc_ns - taken.realtime_ns
        return tuple(
            answered(number, measurement(offset_ns + error, half_width_ns, after=taken, said=self._reply(number)))
            for number, error in enumerate(error_ns, 1)
        )

    def _reply(self, number: int) -> Reply:
        """Return the reply of one server."""
        return reply(leap=self.indicator, reference_id=bytes((10, 0, 0, number)))

    def observe(self, *sources: SourceObservation, width_ns: int = 60) -> Observation:
        """See this host, with the sources that were asked."""
        host = HOST._replace(boot_id=self.boot_id, container=self.container)
        return Observation(host, self.read(width_ns=width_ns), sources, self.read_kernel(), self.daemons)

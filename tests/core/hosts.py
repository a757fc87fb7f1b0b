"""A host that goes through whatever a test does to it: its clocks, its kernel and its servers, all of them known.

All clocks are exact fractions, so that an interval that misses the truth by a nanosecond is found.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import ceil, floor

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.ntp.packet import Reply
from ntpaudit.core.observation import Daemon, HiddenDaemons, KernelState, Observation, SourceObservation, Unavailable
from tests.core.worlds import CHRONYD, DAY, HOST, MS, NOON, S, answered, measurement, reply


@cache
def _rate(ppm: Fraction) -> Fraction:
    """Return how fast something runs that is so much faster than another."""
    return 1 + ppm / 10**6


class LivingHost:
    """A host whose clocks are known exactly.

    Its oscillator is `drift_ppm` slow; the kernel lets its clock run `slew_ppm` faster than that. A `daemon` updates
    the kernel's maximum error to `daemon_error_s` every `poll_s` seconds of its own clock; None: it is dead.

    At `leap_at` UTC makes the leap second `leap`, 1 inserted, -1 deleted, 0 none, and the host's kernel makes the one
    that it was told of, `kernel_leap`, when its own clock comes to that moment. Servers announce `indicator`.
    """

    def __init__(self, *, offset_ns: int = 0, drift_ppm: float = 0, slew_ppm: float = 0, uptime_ns: int = DAY) -> None:
        self.utc = Fraction(NOON)
        self.realtime = self.utc - offset_ns
        self.raw = self.monotonic = self.boottime = Fraction(uptime_ns)
        self.drift_ppm, self.slew_ppm = Fraction(drift_ppm), Fraction(slew_ppm)
        self.maxerror_s = 0.01
        self.is_synchronised = True
        self.poll_s: float | None = 64.0
        self.daemon_error_s = 0.01
        self.updated = self.monotonic
        self.kernel_answers = True
        self.daemons: tuple[Daemon, ...] | HiddenDaemons = (CHRONYD,)
        self.container: str | None = None
        self.leap_at: int | None = None
        self.leap = self.kernel_leap = self.indicator = 0
        self.state, self.tai_s = 0, 37
        self.boot = 0

    @property
    def offset(self) -> Fraction:
        """The true offset: reference - host."""
        return self.utc - self.realtime

    def run(self, seconds: float, *, drift_ppm: float | None = None, slew_ppm: float | None = None) -> None:
        """Let its oscillator count so many seconds."""
        if drift_ppm is not None:
            self.drift_ppm = Fraction(drift_ppm)
        if slew_ppm is not None:
            self.slew_ppm = Fraction(slew_ppm)
        left = Fraction(round(seconds * S))
        while left > 0:
            part = left if self.poll_s is None else min(left, max(Fraction(1), self._until_update()))
            part = min(part, self._until_leap())
            self._run(part)
            self._make_leap()
            left -= part

    def _until_update(self) -> Fraction:
        assert self.poll_s is not None
        return Fraction(ceil((self.updated + round(self.poll_s * S) - self.monotonic) / _rate(self.slew_ppm)))

    def _until_leap(self) -> Fraction:
        """Return the oscillator's time until UTC or the host's clock comes to the leap second."""
        if self.leap_at is None:
            return Fraction(10**18)
        rates = ((self.utc, self.drift_ppm), (self.realtime, self.slew_ppm))
        due = [Fraction(ceil((self.leap_at - now) / _rate(ppm))) for now, ppm in rates if now < self.leap_at]
        return min(due, default=Fraction(10**18))

    def _make_leap(self) -> None:
        """Let UTC, the kernel or both make their leap second, once each."""
        if self.leap and self.leap_at is not None and self.utc >= self.leap_at:
            self.utc, self.leap = self.utc - self.leap * S, 0
        if self.kernel_leap and self.leap_at is not None and self.realtime >= self.leap_at:
            self.realtime -= self.kernel_leap * S
            self.tai_s += self.kernel_leap
            self.state, self.kernel_leap = 3 if self.kernel_leap > 0 else 4, 0

    def _run(self, raw: Fraction) -> None:
        shown = raw * _rate(self.slew_ppm)
        self.utc += raw * _rate(self.drift_ppm)
        self.raw += raw
        seconds = self.realtime // S
        for clock in ("monotonic", "boottime", "realtime"):
            setattr(self, clock, getattr(self, clock) + shown)
        self.maxerror_s = min(16.0, round(self.maxerror_s + 500e-6 * (self.realtime // S - seconds), 6))
        self.is_synchronised = self.is_synchronised and self.maxerror_s < 16.0
        if self.poll_s is not None and self.monotonic - self.updated >= round(self.poll_s * S):
            self.updated, self.maxerror_s, self.is_synchronised = self.monotonic, self.daemon_error_s, True

    def step(self, ns: int) -> None:
        """Set the clock forward; the kernel holds it for unsynchronised until a daemon says otherwise."""
        self.realtime += ns
        self.maxerror_s, self.is_synchronised = 16.0, False

    def suspend(self, seconds: float, *, rtc_wrong_ns: int = 0) -> None:
        """Sleep; the hardware clock says how long, and may be wrong."""
        asleep = round(seconds * S)
        self.utc += asleep
        self.boottime += asleep + rtc_wrong_ns
        self.realtime += asleep + rtc_wrong_ns

    def pause(self, seconds: float) -> None:
        """Pause the virtual machine: true time goes on, and no clock of the host counts it (R7)."""
        self.utc += round(seconds * S)

    def reboot(self, *, realtime_ns: int | None = None, off_s: float = 40) -> None:
        """Start anew."""
        self.utc += round(off_s * S)
        self.realtime = Fraction(realtime_ns) if realtime_ns is not None else self.utc
        self.raw = self.monotonic = self.boottime = Fraction(5 * S)
        self.updated, self.maxerror_s, self.is_synchronised = self.monotonic, 16.0, False
        self.boot += 1

    def read(self, *, width_ns: int = 60, lean: float = 0.0) -> ClockReading:
        """Read all clocks; RAW is read `lean` (-1 to 1) half widths away from the moment REALTIME is."""
        return ClockReading(
            floor(self.realtime),
            floor(self.monotonic),
            floor(self.raw + Fraction(lean) * width_ns / 2),
            floor(self.boottime),
            width_ns,
        )

    def kernel(self) -> KernelState | Unavailable:
        """Ask the kernel."""
        if not self.kernel_answers:
            return Unavailable("Function not implemented")
        state, status = (self.state, 0x2001) if self.is_synchronised else (5, 0x2041)
        return KernelState(state, status, 0.0, float(self.slew_ppm), self.maxerror_s, self.maxerror_s, self.tai_s)

    def sources(
        self, *, error_ns: Sequence[int] = (0, 0, 0, 0), half_width_ns: int = 10 * MS, taken: ClockReading | None = None
    ) -> tuple[SourceObservation, ...]:
        """Ask as many servers as there are errors; one that is wrong by no more than the half width is honest."""
        taken = taken or self.read()
        offset_ns = floor(self.utc) - taken.realtime_ns
        return tuple(
            answered(number, measurement(offset_ns + error, half_width_ns, after=taken, said=self._reply(number)))
            for number, error in enumerate(error_ns, 1)
        )

    def _reply(self, number: int) -> Reply:
        """Return what one server says of itself."""
        return reply(leap=self.indicator, reference_id=bytes((10, 0, 0, number)))

    def observe(self, *sources: SourceObservation, width_ns: int = 60) -> Observation:
        """See this host, with the sources that were asked."""
        host = HOST._replace(boot_id=f"boot-{self.boot}", container=self.container)
        return Observation(host, self.read(width_ns=width_ns), sources, self.kernel(), self.daemons)

"""The clocks of a simulated host, in whole picoseconds, so that no rounding decides whether a statement holds."""

import numpy as np
from numpy.typing import NDArray

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.observation import STA_UNSYNC, TIME_ERROR, KernelState
from tests.truth.oscillator import STEP_S

PS_PER_NS = 1000
PS_PER_S = 10**12
NS_PER_S = 10**9

_STEP_PS = STEP_S * PS_PER_S
_MAX_ERROR_S = 16.0
_ERROR_RATE = 500e-6
_PPT = 10**6  # parts per 10^12 in one ppm


class Clocks:
    """True time, and what CLOCK_REALTIME, MONOTONIC, MONOTONIC_RAW and BOOTTIME show.

    `phase_ps` is how far RAW is ahead at each `STEP_S` of true time. The kernel makes REALTIME and MONOTONIC run
    `frequency_ppm` faster than RAW, and faster still while it slews.
    """

    def __init__(self, phase_ps: NDArray[np.int64], begin_utc_ns: int, *, behind_ns: int = 0, uptime_s: int = 86_400):
        self._phase = phase_ps
        self.now_ps = 0
        self.leap_s = 0
        self._begin_ps = begin_utc_ns * PS_PER_NS
        self._phase_now_ps = int(phase_ps[0])
        self._raw_ps = self._mono_ps = uptime_s * PS_PER_S
        self._asleep_ps = 0
        self._wall_ps = self._begin_ps - behind_ns * PS_PER_NS - self._mono_ps  # REALTIME - MONOTONIC
        self.frequency_ppm = 0.0
        self._slew_ppm, self._slew_end_ps = 0.0, 0
        self.corrected_ps = 0
        """The sum of all slews and steps, without what the frequency does."""
        self._synchronised_ps: int | None = None
        self._synchronised_error_s = 0.0
        self.kernel_leap_state, self.tai_s = 0, 37

    @property
    def utc_ps(self) -> int:
        """The true UTC, as a count of seconds without leap seconds."""
        return self._begin_ps + self.now_ps - self.leap_s * PS_PER_S

    @property
    def realtime_ps(self) -> int:
        """What CLOCK_REALTIME shows."""
        return self._mono_ps + self._wall_ps

    @property
    def offset_ps(self) -> int:
        """The true offset: reference - host."""
        return self.utc_ps - self.realtime_ps

    @property
    def raw_ps(self) -> int:
        """What CLOCK_MONOTONIC_RAW shows."""
        return self._raw_ps

    @property
    def boottime_ns(self) -> int:
        """What CLOCK_BOOTTIME shows."""
        return (self._mono_ps + self._asleep_ps) // PS_PER_NS

    def phase_at(self, time_ps: int) -> int:
        """Return how far the oscillator is ahead at a moment of true time."""
        step, rest = divmod(time_ps, _STEP_PS)
        before = int(self._phase[step])
        return before + (int(self._phase[step + 1]) - before) * rest // _STEP_PS

    def advance(self, time_ps: int) -> None:
        """Let true time pass until `time_ps`."""
        if time_ps <= self.now_ps:
            return
        phase_ps = self.phase_at(time_ps)
        self._run(time_ps - self.now_ps + phase_ps - self._phase_now_ps)
        self.now_ps, self._phase_now_ps = time_ps, phase_ps

    def _run(self, raw_ps: int) -> None:
        slewing_ps = min(raw_ps, max(0, self._slew_end_ps - self._raw_ps))
        for part_ps, ppm in (
            (slewing_ps, self.frequency_ppm + self._slew_ppm),
            (raw_ps - slewing_ps, self.frequency_ppm),
        ):
            self._mono_ps += part_ps + part_ps * round(ppm * _PPT) // PS_PER_S
        self.corrected_ps += slewing_ps * round(self._slew_ppm * _PPT) // PS_PER_S
        self._raw_ps += raw_ps

    def read(self) -> ClockReading:
        """Read all clocks at one moment."""
        return ClockReading(
            self.realtime_ps // PS_PER_NS,
            self._mono_ps // PS_PER_NS,
            self._raw_ps // PS_PER_NS,
            self.boottime_ns,
            50,
        )

    def set_clock(self, forward_ns: int) -> None:
        """Set CLOCK_REALTIME; the kernel then reports an unsynchronised clock."""
        self._wall_ps += forward_ns * PS_PER_NS
        self.corrected_ps += forward_ns * PS_PER_NS
        self._synchronised_ps = None

    def make_leap_second(self) -> None:
        """Let the host's kernel insert the leap second."""
        self._wall_ps -= PS_PER_S
        self.kernel_leap_state, self.tai_s = 3, self.tai_s + 1

    def pause(self, duration_s: float) -> None:
        """Pause the virtual machine: no clock of the host counts this time (R7)."""
        self.now_ps += round(duration_s * PS_PER_S)
        self._phase_now_ps = self.phase_at(self.now_ps)

    def suspend(self, duration_s: float) -> None:
        """Suspend the host: RAW and MONOTONIC stop, and the hardware clock corrects the others at the end."""
        self.pause(duration_s)
        asleep_ps = round(duration_s * PS_PER_S)
        self._asleep_ps += asleep_ps
        self._wall_ps += asleep_ps

    def slew(self, offset_s: float, duration_s: float) -> None:
        """Begin to correct the clock by that offset, at a constant rate."""
        self._slew_ppm = offset_s * 1e6 / duration_s
        self._slew_end_ps = self._raw_ps + round(duration_s * PS_PER_S)

    def synchronise(self, max_error_s: float) -> None:
        """Let a time daemon set the kernel's maximum error."""
        self._synchronised_ps, self._synchronised_error_s = self._mono_ps, max_error_s

    def kernel(self) -> KernelState:
        """Return the kernel's state. As with chronyd, a slew is a part of the frequency."""
        error_s = _MAX_ERROR_S
        if self._synchronised_ps is not None:
            elapsed_s = (self._mono_ps - self._synchronised_ps) / PS_PER_S
            error_s = min(_MAX_ERROR_S, self._synchronised_error_s + _ERROR_RATE * elapsed_s)
        is_synchronised = error_s < _MAX_ERROR_S
        frequency_ppm = self.frequency_ppm + (self._slew_ppm if self._slew_end_ps > self._raw_ps else 0.0)
        state, status = (self.kernel_leap_state, 0) if is_synchronised else (TIME_ERROR, STA_UNSYNC)
        return KernelState(state, status, 0.0, frequency_ppm, error_s, error_s / 10, self.tai_s)

"""Clocks that are not this host's."""

from typing import NamedTuple

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.probes.clock import Clock


class ShiftedClock(NamedTuple):
    """A clock that is off by a constant: its realtime is `offset_ns` ahead of the base's; negative is behind."""

    base: Clock
    offset_ns: int

    def read(self) -> ClockReading:
        """Return a reading of the base with its realtime moved; the other clocks are left alone."""
        reading = self.base.read()
        return reading._replace(realtime_ns=reading.realtime_ns + self.offset_ns)

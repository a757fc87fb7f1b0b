"""An interval that contains the true offset, and how it grows while it is carried forward.

offset (theta) = reference - host. **Positive: the host is behind (slow). Negative: the host is ahead (fast).** True in
every value, field and output of ntpaudit.
"""

from typing import NamedTuple

from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, ClockReading, correction_ns, growth_ns
from ntpaudit.core.units import NS_PER_S

MAX_STEP_NS = 1_000_000  # a larger step or suspend makes an exchange, or a carried offset, useless (V14)
MAX_DISTANCE_NS = NS_PER_S  # RFC 5905 MAXDIST: a source with a larger half-width does not vote (V17)


class Interval(NamedTuple):
    """The true offset lies in `[earliest_ns, latest_ns]`."""

    earliest_ns: int
    latest_ns: int

    @property
    def half_width_ns(self) -> int:
        """Half of the width, rounded up: the error of the midpoint."""
        return (self.latest_ns - self.earliest_ns + 1) // 2

    def covers(self, offset_ns: int) -> bool:
        """Whether the interval contains this offset."""
        return self.earliest_ns <= offset_ns <= self.latest_ns

    def clamp(self, offset_ns: int) -> int:
        """Return the point of the interval nearest to `offset_ns`."""
        return min(max(offset_ns, self.earliest_ns), self.latest_ns)

    def intersect(self, other: "Interval") -> "Interval | None":
        """Return the common part, or None if the intervals contradict each other."""
        earliest, latest = max(self.earliest_ns, other.earliest_ns), min(self.latest_ns, other.latest_ns)
        return Interval(earliest, latest) if earliest <= latest else None


def carry(offset: Interval, taken: ClockReading, now: ClockReading, drift_ppm: float = MAX_DRIFT_PPM) -> Interval:
    """Carry an offset interval from one moment to another through the RAW clock (B5, B6).

    The host's own corrections of its clock since then move the interval exactly. The oscillator's error widens it by at
    most `drift_ppm`.
    """
    moved_ns = -correction_ns(taken, now)
    grown_ns = growth_ns(now.raw_ns - taken.raw_ns, drift_ppm) + taken.width_ns + now.width_ns
    return Interval(offset.earliest_ns + moved_ns - grown_ns, offset.latest_ns + moved_ns + grown_ns)

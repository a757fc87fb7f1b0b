"""The interface of every reader of a fleet, whatever the database and its language."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from ntpaudit.core.fleet.model import Alarm, SeverityCounts, Snapshot, TimeBucket

SKEW_S = 30.0
"""If this machine's clock differs from the database's by more, hosts seem silent, or silent hosts seem well."""


class SnapshotOptions(NamedTuple):
    """What to read: one site or all, how far back to look for the latest point, and how long ago the baseline is.

    Machines of one name are detected by their points of the last `silent_after_s`. Unless `in_full`, `verdict` and
    `findings` of hosts may be left out, and `frequency_ppm` of those that did not move: the evaluation does not need
    them, and every field takes time.
    """

    site: str | None = None
    look_back_s: float = 86_400.0
    baseline_s: float = 3600.0
    silent_after_s: float = 600.0
    in_full: bool = True


class Reader(Protocol):
    """A database of the points that agents deliver. Every method raises ReadError, with its fix."""

    def now_ns(self) -> int:
        """Return the time that is now for this database: the true time, or the end of a demonstration.

        The true time is that of this machine's clock, unless the database's differs from it by more than `SKEW_S`.
        """

    def skew_s(self) -> float | None:
        """Return how far the database's clock is ahead of this machine's, within a second; None if unknown."""

    def snapshot(self, now_ns: int, reach: SnapshotOptions) -> Snapshot:
        """Read the state of every host at a moment."""

    def host_series(
        self, hosts: Sequence[str], begin_ns: int, end_ns: int, count: int
    ) -> Mapping[str, tuple[TimeBucket, ...]]:
        """Read the time series of hosts in `count` intervals of equal length; those without a point are left out."""

    def tallies(self, begin_ns: int, end_ns: int, count: int, site: str | None = None) -> tuple[SeverityCounts, ...]:
        """Count the hosts by severity in `count` intervals of equal length. Slow for many hosts."""

    def steps(self, begin_ns: int, end_ns: int, site: str | None = None) -> tuple[Alarm, ...]:
        """Read every step that was reported in a period, wherever the hosts are now, sorted by time."""

    def close(self) -> None:
        """Close the connections."""

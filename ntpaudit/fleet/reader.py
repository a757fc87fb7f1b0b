"""Where a fleet is read from: one interface, whatever the database and its language."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from ntpaudit.core.fleet.model import Alarm, SeverityCounts, Snapshot, TimeBucket

SKEW_S = 30.0
"""By a clock that is so far from the database's, hosts look silent that are not, or look well as they were."""


class SnapshotOptions(NamedTuple):
    """What is looked at: one site or all, so far back for the latest point, and so long ago for the one before.

    Machines of one name are told apart by what they sent in the last `silent_after_s`. Unless it is wanted `in_full`,
    `verdict` and `findings` of each host may be left out, and `frequency_ppm` of those that did not move: nothing is
    judged by them, and every field costs its time.
    """

    site: str | None = None
    look_back_s: float = 86_400.0
    baseline_s: float = 3600.0
    silent_after_s: float = 600.0
    in_full: bool = True


class Reader(Protocol):
    """A database of the points that agents deliver. Every method raises ReadError, which says what would mend it."""

    def now_ns(self) -> int:
        """Return the moment that is now for this database: the true time, or where a demonstration ends.

        The true time is that of this machine's clock, unless the database's differs from it by more than `SKEW_S`.
        """

    def skew_s(self) -> float | None:
        """Return how far the database's clock is ahead of this machine's, within a second; None while nobody knows."""

    def snapshot(self, now_ns: int, reach: SnapshotOptions) -> Snapshot:
        """Read every host as it stood at a moment."""

    def host_series(
        self, hosts: Sequence[str], begin_ns: int, end_ns: int, count: int
    ) -> Mapping[str, tuple[TimeBucket, ...]]:
        """Read how hosts fared over a period in so many spans of equal length; spans without a point are left out."""

    def tallies(self, begin_ns: int, end_ns: int, count: int, site: str | None = None) -> tuple[SeverityCounts, ...]:
        """Read how the fleet fared over a period in so many spans of equal length. Slow over many hosts."""

    def steps(self, begin_ns: int, end_ns: int, site: str | None = None) -> tuple[Alarm, ...]:
        """Read every step that hosts told of in a period, wherever they stand now, in the order of time."""

    def close(self) -> None:
        """Let go of the connection."""

"""Steps of the clock and suspends in a journal, by the receive times of its entries (J4).

In one boot CLOCK_REALTIME - CLOCK_MONOTONIC is constant: a slew changes both clocks alike. It changes only when the
clock is set, by a leap second, and by a suspend, during which CLOCK_MONOTONIC stops. journald reads the two clocks one
after the other: REALTIME first, so that a delay between them makes the difference smaller.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from ntpaudit.core.attribution import (
    SLEEP_NEAR_US,
    Cause,
    LogLine,
    Moment,
    cause_of,
    reports_step,
    was_suspended,
)
from ntpaudit.core.checks.rule import LEVEL_SEVERITY, Level
from ntpaudit.core.checks.steps import level_of_step
from ntpaudit.core.clock.steps import Step
from ntpaudit.core.policy import Severity

NOISE_US = 1000  # 500 times what journald's two readings differ by on a busy host; findings begin at 10 ms
MAX_DELAY_US = 1_000_000  # a process can be delayed by less than this between the two readings
MIN_MOMENTS = 3  # a lower difference that so few readings show is a delay

Kind = Literal["step", "suspend", "step or suspend"]
_STEP: Kind = "step"

Row = tuple[bytes, bytes, bytes, bytes]
"""An entry as journalctl writes it: realtime and monotonic in µs, boot id, machine id (may be empty)."""


class _Run:
    """Consecutive entries of one boot with the same difference of the clocks, apart from noise."""

    __slots__ = ("first_us", "last_us", "level_us", "moments", "times")

    def __init__(self, level_us: int, monotonic_us: int) -> None:
        self.level_us = level_us
        self.first_us = self.last_us = monotonic_us
        self.moments = 1
        self.times = array("q")


class Jump(NamedTuple):
    """The difference of the clocks changed between two uptimes, from `level_us` to `level_us + size_us`."""

    boot_id: str
    machine_id: str
    from_us: int
    to_us: int
    level_us: int
    size_us: int

    @property
    def before_us(self) -> int:
        """The host's clock at the last entry before it."""
        return self.from_us + self.level_us

    @property
    def after_us(self) -> int:
        """The host's clock at the first entry after it."""
        return self.to_us + self.level_us + self.size_us

    @property
    def window_us(self) -> tuple[int, int]:
        """The host times that occur twice (set back), or are missing; as wide as it can be, for any moment between."""
        if self.size_us < 0:
            return self.before_us + self.size_us, self.after_us - self.size_us
        return self.before_us, self.after_us

    @property
    def moment(self) -> Moment:
        """When it was, to be compared with lines."""
        return Moment(self.boot_id, self.from_us, self.to_us, self.size_us)

    @property
    def step(self) -> Step:
        """The same as a step of the host's clock."""
        low, high = self.window_us
        times = (low, high) if self.size_us > 0 else (high, low)
        return Step(self.size_us * 1000, times[0] * 1000, times[1] * 1000, self.to_us * 1000)


class JournalChange(NamedTuple):
    """A step or a suspend, and what the journal reports about it. `entries` are those with a time in its window."""

    jump: Jump
    kind: Kind
    cause: Cause | None
    entries: int

    @property
    def level(self) -> Level | None:
        """The level of a step (NTPA-02, NTPA-03); None of a suspend."""
        if self.kind == "suspend":
            return None
        level = level_of_step(self.jump.step)
        return "critical" if level == "high" and self.kind == "step" and self.cause is None else level

    @property
    def severity(self) -> Severity:
        """The severity of its level."""
        return Severity.OK if self.level is None else LEVEL_SEVERITY[self.level]


class JournalTimes:
    """The receive times of a journal's entries, boot by boot. Eight bytes for each entry."""

    def __init__(self) -> None:
        self.entries = 0
        self._boots: dict[tuple[str, str], list[_Run]] = {}

    def add(self, rows: Iterable[Row]) -> None:
        """Add entries in the order of the journal, which is never that of their realtime."""
        boot, run = (b"", b""), None
        for realtime, monotonic, boot_id, machine_id in rows:
            self.entries += 1
            realtime_us, monotonic_us = int(realtime), int(monotonic)
            if run is None or boot != (boot_id, machine_id):
                boot = boot_id, machine_id
                runs = self._boots.setdefault((boot_id.decode(), machine_id.decode()), [])
                run = runs[-1] if runs else None
            level_us = realtime_us - monotonic_us
            if run is None or not -NOISE_US <= level_us - run.level_us <= NOISE_US:
                run = _Run(level_us, monotonic_us)
                runs.append(run)
            elif monotonic_us != run.last_us:
                run.moments += 1
                run.last_us = monotonic_us
                if level_us > run.level_us:
                    run.level_us = level_us
            run.times.append(realtime_us)

    @property
    def boots(self) -> int:
        """How many boots the journal has entries of."""
        return len(self._boots)

    @property
    def range_us(self) -> tuple[int, int] | None:
        """The smallest and the largest receive time; None for no entries."""
        ends = [(min(run.times), max(run.times)) for runs in self._boots.values() for run in runs]
        return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None

    def jumps(self) -> list[Jump]:
        """Return every change of the difference of the clocks that is no delay, in the order of the journal."""
        return [
            Jump(boot_id, machine_id, old.last_us, new.first_us, old.level_us, new.level_us - old.level_us)
            for (boot_id, machine_id), runs in self._boots.items()
            for old, new in pairwise(_without_delays(runs))
        ]

    def count(self, low_us: int, high_us: int, machine_id: str) -> int:
        """Return how many entries of a machine have a time in a window, its ends included."""
        return sum(
            bisect_right(run.times, high_us) - bisect_left(run.times, low_us)
            for (_, machine), runs in self._boots.items()
            if machine == machine_id
            for run in runs
        )


def _without_delays(runs: Sequence[_Run]) -> list[_Run]:
    """Drop runs that a delay between the two readings explains, and join those that it separated."""
    kept: list[_Run] = []
    for index, run in enumerate(runs):
        around = [*kept[-1:], *runs[index + 1 : index + 2]]
        if run.moments < MIN_MOMENTS and any(0 < one.level_us - run.level_us < MAX_DELAY_US for one in around):
            continue
        if kept and abs(kept[-1].level_us - run.level_us) <= NOISE_US:
            joined = _Run(max(kept[-1].level_us, run.level_us), kept[-1].first_us)
            joined.last_us, joined.moments = run.last_us, kept[-1].moments + run.moments
            kept[-1] = joined
        else:
            kept.append(run)
    return kept


def changes(
    times: JournalTimes, jumps: Sequence[Jump], lines: Iterable[LogLine], kernel_boots: Container[str]
) -> list[JournalChange]:
    """Return each jump as a step or a suspend, with the cause that the lines name.

    `kernel_boots` are the boots with kernel messages. The kernel reports each suspend: only in other boots can one be
    without a line.
    """
    by_boot: dict[str, list[LogLine]] = {}
    for line in sorted(lines, key=lambda line: line.monotonic_us):
        by_boot.setdefault(line.boot_id, []).append(line)
    found = []
    for jump in jumps:
        of_boot = by_boot.get(jump.boot_id, [])
        low, high = (
            bisect_left(of_boot, end_us, key=lambda line: line.monotonic_us)
            for end_us in (jump.from_us - SLEEP_NEAR_US, jump.to_us + SLEEP_NEAR_US + 1)
        )
        found.append(_change(times, jump, of_boot[low:high], has_kernel=jump.boot_id in kernel_boots))
    return found


def _change(times: JournalTimes, jump: Jump, lines: Sequence[LogLine], *, has_kernel: bool) -> JournalChange:
    cause, kind = cause_of(jump.moment, lines), _STEP
    low_us, high_us = jump.window_us
    if jump.size_us > 0:
        low_us, high_us = low_us + 1, high_us - 1  # the two entries themselves are no part of the gap
        if not reports_step(cause):
            if was_suspended(jump.moment, lines):
                kind, cause = "suspend", None
            elif cause is None and not has_kernel:
                kind = "step or suspend"
    return JournalChange(jump, kind, cause, times.count(low_us, high_us, jump.machine_id))


class NearLines:
    """Whether a line can belong to one of several jumps, or moments."""

    def __init__(self, jumps: Iterable[Jump | Moment]) -> None:
        self._bounds: dict[str, list[tuple[int, int]]] = {}  # of each boot, in order and without overlap
        for jump in sorted(jumps, key=lambda one: one.from_us):
            bounds = self._bounds.setdefault(jump.boot_id, [])
            low, high = jump.from_us - SLEEP_NEAR_US, jump.to_us + SLEEP_NEAR_US
            if bounds and low <= bounds[-1][1]:
                low, earlier = bounds.pop()
                high = max(high, earlier)
            bounds.append((low, high))

    @property
    def boot_ids(self) -> tuple[str, ...]:
        """The boots that have one."""
        return tuple(self._bounds)

    def has(self, boot_id: str, monotonic_us: int) -> bool:
        """Return whether a line of that boot and uptime is near a jump."""
        bounds = self._bounds.get(boot_id, [])
        index = bisect_right(bounds, monotonic_us, key=lambda one: one[0])
        return index > 0 and monotonic_us <= bounds[index - 1][1]

"""Steps and suspends of a history, each with its cause as far as logs name it."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from ntpaudit.core.attribution import NEAR_US, Cause, LogLine, Moment, at_step, cause_of, suspend_line
from ntpaudit.core.checks.rule import LEVEL_SEVERITY, Level
from ntpaudit.core.policy import Severity


class ClockChange(NamedTuple):
    """A step or a suspend. `size_ns` is positive for a suspend and a step forward; `level` is None for a suspend.

    `utc_ns` is the true time after it, None if unknown. `before_ns` and `after_ns` are the host's: of a step at one
    moment, without it and with it; of a suspend those of the audits around it. `boottime_ns` is the uptime after it.
    """

    kind: Literal["step", "suspend"]
    size_ns: int
    level: Level | None
    utc_ns: int | None
    before_ns: int
    after_ns: int
    boottime_ns: int
    moment: Moment
    cause: Cause | None = None

    @property
    def known_ns(self) -> int:
        """The true time after it, else the host's."""
        return self.after_ns if self.utc_ns is None else self.utc_ns

    @property
    def severity(self) -> Severity:
        """The severity of its level."""
        return Severity.OK if self.level is None else LEVEL_SEVERITY[self.level]


def explain(
    changes: Iterable[ClockChange], lines: Iterable[LogLine], host_lines: Sequence[LogLine]
) -> list[ClockChange]:
    """Return the changes with their causes: by `lines` of the journal, and by `host_lines`, which have no uptime."""
    by_boot: dict[str, list[LogLine]] = {}
    for line in lines:
        by_boot.setdefault(line.boot_id, []).append(line)
    return [
        change._replace(cause=_cause(change, by_boot.get(change.moment.boot_id, []), host_lines)) for change in changes
    ]


def _cause(change: ClockChange, lines: Sequence[LogLine], host_lines: Sequence[LogLine]) -> Cause | None:
    if change.kind == "suspend":
        return suspend_line(change.moment, lines)
    return step_cause(change.moment, change.before_ns, change.after_ns, lines, host_lines)


def step_cause(
    moment: Moment, before_ns: int, after_ns: int, lines: Iterable[LogLine], host_lines: Iterable[LogLine]
) -> Cause | None:
    """Return the cause of a step that set the host's time from `before_ns` to `after_ns`."""
    before_us, after_us = before_ns // 1000, after_ns // 1000
    near = [
        at_step(line, moment, before_us, after_us)
        for line in host_lines
        if min(abs(line.realtime_us - before_us), abs(line.realtime_us - after_us)) <= NEAR_US
    ]
    return cause_of(moment, [*lines, *near])

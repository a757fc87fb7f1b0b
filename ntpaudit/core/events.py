"""What happened at one moment: a finding raised or cleared, a step of the clock."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ntpaudit.core.checks.finding import Level
from ntpaudit.core.policy import Severity


class Event(NamedTuple):
    """One thing that began (`raised`) or ended, told once to whoever listens.

    `kind` is a finding's id. `utc_ns` is the corrected time, None where nobody knows it; `host_ns` what the host's
    clock showed, and `boottime_ns` its uptime with suspends. `value_s` is the size of it in seconds where it has one:
    a step (positive is forward), a gap, the time to a breach. `detail` holds what a kind has beside that, as JSON can.
    """

    kind: str
    raised: bool
    severity: Severity
    level: Level
    text: str
    utc_ns: int | None
    host_ns: int
    boottime_ns: int
    value_s: float | None = None
    remedy: str = ""
    detail: Mapping[str, Any] = MappingProxyType({})

    @property
    def title(self) -> str:
        """The event in a few words, such as `high: step-back` or `cleared: unsynced`."""
        return f"{self.level}: {self.kind}" if self.raised else f"cleared: {self.kind}"

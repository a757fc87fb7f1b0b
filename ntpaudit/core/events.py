"""Events: a finding raised or cleared, a step of the clock."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ntpaudit.core.checks.rule import Level
from ntpaudit.core.policy import Severity


class Event(NamedTuple):
    """A finding that was raised or cleared, sent once to each output.

    `kind` is the finding's id. `utc_ns` is the corrected time, None if unknown; `host_ns` is the host's clock, and
    `boottime_ns` its uptime with suspends. `value_s` is the size in seconds, if there is one: a step (positive is
    forward), a gap, the time to a breach. `detail` has further values of some kinds, as JSON.
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
        """A short title, for example `high: step-back` or `cleared: unsynced`."""
        return f"{self.level}: {self.kind}" if self.raised else f"cleared: {self.kind}"

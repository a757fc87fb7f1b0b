"""Events: a finding raised or cleared, a step of the clock."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ntpaudit.core.acceptance import Accepted
from ntpaudit.core.checks.rule import Level
from ntpaudit.core.policy import Severity


class Event(NamedTuple):
    """A finding that was raised or cleared, sent once to each output.

    `kind` is the finding's id. `utc_ns` is the corrected time, None if unknown; `host_ns` is the host's clock, and
    `boottime_ns` its uptime with suspends. `value_s` is the size in seconds, if there is one: a step (positive is
    forward), a gap, the time to a breach. `detail` has further values of some kinds, as JSON, and of an accepted
    finding who accepts it, until when and why.
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
        """A short title, for example `high: step-back`, `accepted: unsynced` or `cleared: unsynced`."""
        if not self.raised:
            return f"cleared: {self.kind}"
        return f"{'accepted' if self.is_accepted else self.level}: {self.kind}"

    @property
    def is_accepted(self) -> bool:
        """Whether somebody accepted the finding at that time."""
        return "accepted_by" in self.detail

    @property
    def text_with_fix(self) -> str:
        """The text, and the fix of what was raised and counts."""
        return f"{self.text}; fix: {self.remedy}" if self.raised and self.remedy and not self.is_accepted else self.text

    def accept(self, accepted: Accepted | None) -> "Event":
        """Return the event of a finding that is accepted, if it is: it does not count."""
        if accepted is None:
            return self
        more = {f"accepted_{name}": value for name, value in accepted._asdict().items()}
        text = f"{self.text}; {accepted.text}"
        return self._replace(severity=Severity.OK, text=text, detail={**self.detail, **more})

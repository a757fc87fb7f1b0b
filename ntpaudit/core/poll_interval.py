"""The length of a gap in polling intervals: each part counts by the interval valid then (A.4).

A reload that shortens the interval does not change how many polls were due before it.
"""

from typing import NamedTuple

from ntpaudit.core.units import NS_PER_S


class PollInterval(NamedTuple):
    """The interval valid since an uptime, and how many intervals had passed without a measurement until then.

    `before_boot_s` is the interval at the end of the previous boot, None if no agent ran then.
    """

    interval_s: float
    since_ns: int
    passed: float = 0.0
    before_boot_s: float | None = None

    def passed_at(self, now_ns: int) -> float:
        """Return how many intervals have passed without a measurement in this boot."""
        return self.passed + max(0, now_ns - self.since_ns) / NS_PER_S / self.interval_s

    def before_boot(self, span_s: float) -> float:
        """Return the length of a time before the agent's start in intervals."""
        return span_s / (self.before_boot_s or self.interval_s)

    def measured(self, now_ns: int) -> "PollInterval":
        """Return the state after a measurement."""
        return PollInterval(self.interval_s, now_ns)

    def changed(self, now_ns: int, interval_s: float) -> "PollInterval":
        """Return the state with another interval."""
        changed = self._replace(interval_s=interval_s, since_ns=now_ns, passed=self.passed_at(now_ns))
        return self if interval_s == self.interval_s else changed

"""Profiles as data, and the comparison of an interval with their tolerances (I1)."""

from enum import IntEnum
from typing import Literal, NamedTuple

from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.units import NS_PER_S

JudgedOn = Literal["offset", "bound"]
Verdict = Literal["within", "unproven", "beyond", "unmeasured"]
VERDICTS: tuple[Verdict, ...] = ("within", "unproven", "beyond", "unmeasured")
"""The index of a verdict is its number in the database."""


class Severity(IntEnum):
    """The severity, ordered so that the worst of several is their maximum."""

    OK = 0
    WARNING = 1
    UNKNOWN = 2
    CRITICAL = 3

    @property
    def exit_status(self) -> int:
        """The exit status by the monitoring plugins' convention: 0 ok, 1 warning, 2 critical, 3 unknown."""
        return (0, 1, 3, 2)[self]

    @property
    def word(self) -> str:
        """The word in records, for example `ok`."""
        return ("ok", "warning", "unknown", "critical")[self]


class Profile(NamedTuple):
    """Two tolerances, and what the warning is judged on: `offset`, the |estimate|, or `bound`, the maximum error.

    The critical tolerance is always judged on the whole interval.
    """

    name: str
    warning_s: float
    critical_s: float
    judged_on: JudgedOn

    def verdict(self, offset: Interval | None, *, guaranteed: bool = True) -> Verdict:
        """Compare the interval with the critical tolerance. One that is not `guaranteed` (R1) proves nothing."""
        if offset is None:
            return "unmeasured"
        if guaranteed and max_error_s(offset) <= self.critical_s:
            return "within"
        if guaranteed and min_error_s(offset) > self.critical_s:
            return "beyond"
        return "unproven"

    def severity(self, offset: Interval | None, estimate_ns: int, *, guaranteed: bool = True) -> Severity:
        """Return the severity of the offset alone, without findings."""
        if offset is None:
            return Severity.UNKNOWN
        verdict = self.verdict(offset, guaranteed=guaranteed)
        judged_s = abs(estimate_ns) / NS_PER_S if self.judged_on == "offset" else max_error_s(offset)
        if verdict == "within" and judged_s <= self.warning_s:
            return Severity.OK
        return Severity.CRITICAL if verdict == "beyond" else Severity.WARNING


def max_error_s(offset: Interval) -> float:
    """Return the maximum error W: the far end of the interval."""
    return max(abs(offset.earliest_ns), abs(offset.latest_ns)) / NS_PER_S


def min_error_s(offset: Interval) -> float:
    """Return the least error B: the near end of the interval, 0 if it contains zero."""
    return max(offset.earliest_ns, -offset.latest_ns, 0) / NS_PER_S


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("log-integrity", 0.1, 1.0, "offset"),
        Profile("ops-strict", 0.05, 0.25, "bound"),
        # These four standards give no number: the tolerance is the organisation's own, as the docs say.
        Profile("pci", 0.1, 1.0, "offset"),
        Profile("iso27001", 0.1, 1.0, "offset"),
        Profile("nis2", 0.1, 1.0, "offset"),
        Profile("dora", 0.1, 1.0, "offset"),
        Profile("fedramp", 0.1, 1.0, "offset"),
        Profile("stig", 0.25, 1.0, "offset"),
        Profile("finra-cat", 0.025, 0.05, "bound"),
        Profile("mifid-1ms", 0.0005, 0.001, "bound"),
        Profile("mifid-100us", 0.00005, 0.0001, "bound"),
        Profile("tsa-etsi", 0.5, 1.0, "bound"),
        Profile("cluster-ceph", 0.025, 0.05, "bound"),
        Profile("cluster-crdb", 0.2, 0.4, "bound"),
        Profile("cluster-etcd", 0.25, 1.0, "bound"),
        Profile("auth", 60.0, 240.0, "offset"),
    )
}
DEFAULT_PROFILE = "log-integrity"

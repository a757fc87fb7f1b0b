"""The values of a fleet: what the database has of each host at one moment, and what the evaluation concludes."""

from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from ntpaudit.core.acceptance import Accepted
from ntpaudit.core.checks.rule import Level
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM
from ntpaudit.core.fleet.policy import FleetPolicy as FleetPolicy
from ntpaudit.core.policy import Severity, Verdict

MIN_HOSTS = 3  # fewer hosts prove nothing about what they share
STEP_S = 3600.0  # how long a step counts as raised
_MS = 1_000_000


class TimeSpans(NamedTuple):
    """A number of consecutive intervals of equal length, in whole milliseconds; each excludes its end."""

    begin_ns: int
    width_ns: int
    spans: int

    @property
    def end_ns(self) -> int:
        """The end of the last interval."""
        return self.begin_ns + self.spans * self.width_ns


def split(begin_ns: int, end_ns: int, count: int) -> TimeSpans:
    """Divide a period into `count` intervals; they are rounded up to whole milliseconds."""
    begin_ms = begin_ns // _MS
    length_ms = max(1, -(-end_ns // _MS) - begin_ms)
    return TimeSpans(begin_ms * _MS, -(-length_ms // max(1, count)) * _MS, max(1, count))


class Offset(NamedTuple):
    """The offset of a host's clock in seconds, positive if behind, and the interval that contains the true one."""

    estimate_s: float
    earliest_s: float
    latest_s: float


class Bounds(NamedTuple):
    """The interval that contains the true offset of a host's clock, in seconds, positive if it is behind."""

    earliest_s: float
    latest_s: float


Bounded = Bounds | Offset


class DaemonClaim(NamedTuple):
    """What the latest point of a host has of its time daemon; None is what is not known or was not read.

    `offset_s` is positive if the host is behind by the daemon, `bound_s` its own bound of the error. VictoriaMetrics
    stores no texts, so it has neither `name` nor `follows`. `is_unapproved`: what it follows is against the policy of
    its site, as its agent has found. `excess_s` is how far the measured interval is from what the daemon allows, as its
    agent has computed it; 0 if both can be right.
    """

    name: str | None = None
    follows: str | None = None
    is_synchronised: bool | None = None
    offset_s: float | None = None
    bound_s: float | None = None
    is_unapproved: bool = False
    excess_s: float | None = None


def max_error_s(offset: Bounded) -> float:
    """Return the maximum error of a clock: the far end of its interval."""
    return max(-offset.earliest_s, offset.latest_s)


def min_error_s(offset: Bounded) -> float:
    """Return the least error of a clock: the near end of its interval, 0 if it contains zero."""
    return max(offset.earliest_s, -offset.latest_s, 0.0)


class Host(NamedTuple):
    """The latest point of a host. `last_ns` is its timestamp; without an `offset` the clock was not measured.

    `age_s` is the age of the measurement that the offset is based on. `usable` counts the usable sources,
    `falsetickers` the falsetickers, `findings` the findings of the host's own agent.

    `severity` and `verdict` are as reported; `critical_s` and `warning_s` are the tolerances behind them, None if they
    were not read. While not `is_confirmed`, the agent waits for more samples before it accepts a worse offset.
    `disputed_s` is how far the servers' time is at least ahead of the database's clock (negative: behind), by the
    database's replies to the agent; 0 if both may be right, or if it is unknown. `judged_on_bound`: the profile warns
    on the maximum error, not on the estimate. `max_drift_ppm` is the largest frequency error of its oscillator.
    `daemon` is None if the point has nothing of a time daemon.
    """

    name: str
    site: str | None
    env: str | None
    last_ns: int
    severity: Severity
    verdict: Verdict
    offset: Offset | None
    age_s: float | None = None
    frequency_ppm: float | None = None
    usable: int = 0
    falsetickers: int = 0
    findings: int = 0
    critical_s: float | None = None
    warning_s: float | None = None
    is_confirmed: bool = True
    disputed_s: float = 0.0
    judged_on_bound: bool = False
    max_drift_ppm: float = MAX_DRIFT_PPM
    daemon: DaemonClaim | None = None

    @property
    def agreeing(self) -> int:
        """How many usable sources agree."""
        return self.usable - self.falsetickers


class Alarm(NamedTuple):
    """A raised finding of a host's own agent, since when, and its size.

    `is_accepted`: it does not count, because the host's configuration accepts it, or an exception of the report, which
    is then `exception`.
    """

    host: str
    kind: str
    severity: Severity
    since_ns: int
    value_s: float | None = None
    is_accepted: bool = False
    exception: Accepted | None = None


class FalsetickerReport(NamedTuple):
    """A source that is a falseticker on a host, and the offset of the host by this source."""

    source: str
    host: str
    offset_s: float | None = None


class DuplicateHost(NamedTuple):
    """A name under which several machines report at the same time, and their sites."""

    name: str
    sites: tuple[str | None, ...]


class Snapshot(NamedTuple):
    """All that is read of a fleet at `now_ns`, in no order.

    `baseline` has the intervals of about `baseline_s` ago, `baseline_ns` the time of each, if known. `expired` names
    hosts that the database knows but has no point of in the last `look_back_s`; `sites` has their sites, if known. A
    host in `duplicate_hosts` has the worst severity of its machines. `alarms` also has older steps if they can explain
    a shift since the baseline. `looked_ahead`: points stamped after `now_ns` were read too, as for the present.
    """

    now_ns: int
    hosts: tuple[Host, ...]
    alarms: tuple[Alarm, ...] = ()
    falseticker_reports: tuple[FalsetickerReport, ...] = ()
    baseline: Mapping[str, Bounded] = MappingProxyType({})
    baseline_s: float = 3600.0
    expired: tuple[str, ...] = ()
    baseline_ns: Mapping[str, int] = MappingProxyType({})
    duplicate_hosts: tuple[DuplicateHost, ...] = ()
    look_back_s: float = 86_400.0
    sites: Mapping[str, str] = MappingProxyType({})
    looked_ahead: bool = False


class TimeBucket(NamedTuple):
    """A host in one interval of time: worst severity, mean offset (None: not measured), and hull of its intervals."""

    begin_ns: int
    severity: Severity
    offset: Offset | None


class SeverityCounts(NamedTuple):
    """How many hosts had ok, warning, unknown and critical as their worst severity in one interval of time."""

    begin_ns: int
    hosts: tuple[int, int, int, int]


class HostStatus(NamedTuple):
    """A host as the fleet evaluates it: by its interval, and unknown while it is silent.

    `silent_s` is None while it reports. `host` is None if it is expired (silent for more than `silent_s`) or never
    reported (`silent_s` is infinite). `suspected` has the ids of fleet findings about this clock, which its own agent
    cannot detect. `seen_s` is how long ago its latest point arrived, None without one. `contradicted` is the severity
    that its agent reports if its interval proves a worse one. `disputed_s` is how far its timestamps are ahead of the
    database's clock; 0 if both may be right. `exceptions` has the ids of all findings that are accepted for it now in
    this report, also of those that are not raised: its severity is that without them.
    """

    name: str
    site: str | None
    severity: Severity
    host: Host | None
    silent_s: float | None = None
    alarms: tuple[Alarm, ...] = ()
    suspected: tuple[str, ...] = ()
    seen_s: float | None = None
    contradicted: Severity | None = None
    disputed_s: float = 0.0
    exceptions: Mapping[str, Accepted] = MappingProxyType({})

    @property
    def offset(self) -> Offset | None:
        """The offset in the latest point; None without one."""
        return None if self.host is None else self.host.offset

    @property
    def current_offset(self) -> Offset | None:
        """The offset of a host that reports; None while it is silent."""
        return None if self.silent_s is not None else self.offset

    @property
    def is_expired(self) -> bool:
        """Whether the database knows the host but has no point of it within the look-back."""
        return self.host is None and self.silent_s != inf


class FleetFinding(NamedTuple):
    """A finding about a fleet, like `Finding` about a host, with its site, source and hosts.

    `accepted`: who accepts it for all of its hosts; it does not count. None if it is not accepted.
    """

    id: str
    severity: Severity
    level: Level
    message: str
    remedy: str
    controls: tuple[str, ...] = ()
    site: str | None = None
    source: str | None = None
    hosts: tuple[str, ...] = ()
    value_s: float | None = None
    accepted: Accepted | None = None


class Coverage(NamedTuple):
    """How many hosts should report, how many are measured now, and how many by two and three agreeing sources."""

    hosts: int
    measured: int
    by_two: int
    by_three: int


class OrderingUncertainty(NamedTuple):
    """Timestamps of these two hosts order events only if these are more than `within_s` apart."""

    within_s: float
    hosts: tuple[str, str]


class Order(NamedTuple):
    """How far apart the timestamps of two hosts must be so that the order of the events is certain, in seconds.

    The first host's event came first if the second's timestamp is later by more than `first_s`; the second host's event
    came first if the first's timestamp is later by more than `second_s`. A negative limit: even if the own timestamp is
    later, by less than that. `corrected_*` are the limits for timestamps corrected by the hosts' estimates.
    `within_s` is the larger limit: only events stamped further apart are certainly in the order of their timestamps.
    """

    hosts: tuple[str, str]
    first_s: float
    second_s: float
    corrected_first_s: float
    corrected_second_s: float
    within_s: float
    corrected_within_s: float


class Site(NamedTuple):
    """A site: its hosts by `Severity`, and the pair that is hardest to order, None with fewer than two measured."""

    name: str | None
    hosts: tuple[int, int, int, int]
    ambiguity: OrderingUncertainty | None


class Fleet(NamedTuple):
    """An evaluated fleet: hosts and findings, worst first, and the counts of each site and of the whole fleet.

    `unlisted` counts the hosts that report but are not in the inventory; None without an inventory.
    """

    now_ns: int
    members: tuple[HostStatus, ...]
    findings: tuple[FleetFinding, ...]
    coverage: Coverage
    sites: tuple[Site, ...]
    whole: Site
    unlisted: int | None = None

    @property
    def accepted(self) -> int:
        """How many findings do not count because they are accepted: of the hosts and of the fleet."""
        of_hosts = sum(alarm.is_accepted for one in self.members for alarm in one.alarms)
        return of_hosts + sum(finding.accepted is not None for finding in self.findings)

    @property
    def severity(self) -> Severity:
        """The worst severity of all hosts and findings; unknown without any host."""
        if not self.members:
            return Severity.UNKNOWN
        return max([*(one.severity for one in self.members), *(one.severity for one in self.findings)])

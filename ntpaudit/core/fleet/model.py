"""Every host at once, at one moment: what a time-series database holds of each."""

from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import NamedTuple, Protocol

from ntpaudit.core.checks.finding import Level
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM
from ntpaudit.core.policy import Severity, Verdict

_MS = 1_000_000


class TimeSpans(NamedTuple):
    """So many spans of equal length, in whole milliseconds: each holds its begin, and not its end."""

    begin_ns: int
    width_ns: int
    spans: int

    @property
    def end_ns(self) -> int:
        """Where the last one ends."""
        return self.begin_ns + self.spans * self.width_ns


def split(begin_ns: int, end_ns: int, count: int) -> TimeSpans:
    """Divide a period; what a millisecond cannot divide makes the spans a little longer."""
    begin_ms = begin_ns // _MS
    length_ms = max(1, -(-end_ns // _MS) - begin_ms)
    return TimeSpans(begin_ms * _MS, -(-length_ms // max(1, count)) * _MS, max(1, count))


STEP_KINDS = ("step-back", "step-forward")
"""Findings that nothing clears."""

STEP_S = 3600.0
"""So long a step is in force."""


class Offset(NamedTuple):
    """How far a host's clock is behind (positive) or ahead, and the interval that holds the truth, in seconds."""

    estimate_s: float
    earliest_s: float
    latest_s: float


class Bounds(NamedTuple):
    """The interval that holds how far a host's clock is behind (positive) or ahead, in seconds."""

    earliest_s: float
    latest_s: float


class Bounded(Protocol):
    """What has such an interval, whatever else it has."""

    @property
    def earliest_s(self) -> float:
        """The one end."""

    @property
    def latest_s(self) -> float:
        """The other end."""


class Host(NamedTuple):
    """The latest point of a host. `last_ns` is its true time; without an `offset` the clock was not measured.

    `age_s` is how old the measurement was that the offset rests on. `usable` counts the sources that gave a usable
    answer, `falsetickers` those that disagree with the others, `findings` what the host's own agent listed.

    `severity` and `verdict` are as reported; `critical_s` and `warning_s` the tolerances that they rest on, None where
    they were not read. While not `is_confirmed`, the agent waits for more samples before it believes a worse offset.
    `disputed_s` is by how much the servers' time is at least ahead of the database's clock (negative: behind), as the
    agent learnt from the database's answers; 0 where both may be right, or nothing is known. `judged_on_bound` says
    that its profile warns by the maximum error, not by the estimate; `max_drift_ppm` by what its oscillator may be off.
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


class Alarm(NamedTuple):
    """A finding of a host's own agent that is in force, since when, and the size of what it is about."""

    host: str
    kind: str
    severity: Severity
    since_ns: int
    value_s: float | None = None


class FalsetickerReport(NamedTuple):
    """A source that a host calls a falseticker, and the offset that it claims."""

    source: str
    host: str
    offset_s: float | None = None


class DuplicateHost(NamedTuple):
    """A name that several machines report under at the same time, and the sites that they give."""

    name: str
    sites: tuple[str | None, ...]


class Snapshot(NamedTuple):
    """All that is read of a fleet at `now_ns`, in no order.

    `before` holds the intervals of about `before_s` ago, `before_ns` when each was written, as far as it is known.
    `forgotten` names hosts that the database knows, but of which it has no point in the `look_back_s` that were looked
    back on; `places` has their sites, as far as it knows. A host in `clashes` has the worst severity of its machines.
    Among the `alarms` are steps that are in force no longer, where a clock may have moved by them since it was before.
    `looked_ahead` says that points stamped after `now_ns` were read too, as those of the present are.
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
    """What a host's points in a span of time say together: the hull of its intervals, the mean offset, the worst.

    The offsets are None where it was not measured.
    """

    begin_ns: int
    severity: Severity
    offset: Offset | None


class SeverityCounts(NamedTuple):
    """How many hosts were at worst ok, warning, unknown and critical in a span of time, by `Severity`."""

    begin_ns: int
    hosts: tuple[int, int, int, int]


class FleetPolicy(NamedTuple):
    """What a fleet is judged by.

    A host without a point for `silent_after_s` is silent. Two events on hosts of one site must be orderable within
    `ambiguity_s`. `warning_s` is the tolerance that a slow walk hides under; it and `critical_s` judge hosts that
    do not report their own. `inventory` names the hosts that should
    report, None where nobody says; `sites` tells where they stand, as far as it is known.
    """

    silent_after_s: float = 600.0
    ambiguity_s: float = 1.0
    warning_s: float = 0.1
    inventory: tuple[str, ...] | None = None
    sites: Mapping[str, str] = MappingProxyType({})
    critical_s: float = 1.0


class HostStatus(NamedTuple):
    """A host as the fleet sees it: judged anew by its interval, and unknown once it is silent, whatever it last was.

    `silent_s` is None while it reports. `host` is None for one that was forgotten, silent for longer than `silent_s`,
    and for one that never reported, for which that is infinite. `suspected` has the ids of what the fleet tells of this
    very clock, which its own agent cannot see. `seen_s` is how long ago its latest point came, None for none.
    `contradicted` is the severity that its agent reports where its own interval proves a worse one. `disputed_s` is by
    how much the time that its points carry is ahead of the database's clock; 0 where both may be right.
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

    @property
    def is_expired(self) -> bool:
        """Whether the database knows it, and has no point in the time that was looked back on."""
        return self.host is None and self.silent_s != inf


class FleetFinding(NamedTuple):
    """One thing that is wrong with a fleet, as `Finding` says it of a host; of which site, source and hosts."""

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


class Coverage(NamedTuple):
    """How many hosts there should be, how many of them are measured now, and by how many agreeing sources at least."""

    hosts: int
    measured: int
    by_two: int
    by_three: int


class OrderingUncertainty(NamedTuple):
    """Events of these two hosts cannot be ordered by their stamps unless they are further apart than `within_s`."""

    within_s: float
    hosts: tuple[str, str]


class Order(NamedTuple):
    """How far apart two events must be stamped, one on each of two hosts, to be ordered for certain, in seconds.

    That of the first host came first where the other's stamp is later than its own by more than `first_s`; that of
    the second did where the first's stamp is later by more than `second_s`. A negative one means that it did even where
    its stamp is later, by less than that. `corrected` are the same two for stamps corrected by the hosts' estimates.
    """

    hosts: tuple[str, str]
    first_s: float
    second_s: float
    corrected_first_s: float
    corrected_second_s: float

    @property
    def within_s(self) -> float:
        """Events stamped no further apart than this cannot be ordered by their stamps, or are not in their order."""
        return max(self.first_s, self.second_s)

    @property
    def corrected_within_s(self) -> float:
        """The same of corrected stamps."""
        return max(self.corrected_first_s, self.corrected_second_s)


class Site(NamedTuple):
    """The hosts of one place: how many at which `Severity`, and the worst pair to order; None below two measured."""

    name: str | None
    hosts: tuple[int, int, int, int]
    ambiguity: OrderingUncertainty | None


class Fleet(NamedTuple):
    """A fleet, judged: its hosts worst first, its findings worst first, and the same of each site and of all.

    `unlisted` counts the hosts that report and that the inventory does not list; None where there is no inventory.
    """

    now_ns: int
    members: tuple[HostStatus, ...]
    findings: tuple[FleetFinding, ...]
    coverage: Coverage
    sites: tuple[Site, ...]
    whole: Site
    unlisted: int | None = None

    @property
    def severity(self) -> Severity:
        """The worst of every host and finding; unknown where there is no host at all."""
        if not self.members:
            return Severity.UNKNOWN
        return max([*(one.severity for one in self.members), *(one.severity for one in self.findings)])

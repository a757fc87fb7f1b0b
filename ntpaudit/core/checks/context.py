"""The input of the checks about one host: the audit, and the state from before it."""

from collections.abc import Mapping
from typing import NamedTuple

from ntpaudit.core.acceptance import Accepted, accepted_at
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.clock.database_clock import disputed_ns
from ntpaudit.core.clock.drift import Drift
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM
from ntpaudit.core.clock.steps import Step
from ntpaudit.core.cross_check import CrossCheck, cross_check
from ntpaudit.core.observation import Observation
from ntpaudit.core.policy import Profile, Severity, Verdict
from ntpaudit.core.selection import Selection, SourceCounts
from ntpaudit.core.site_policy import SitePolicy
from ntpaudit.core.time_config import ConfigChange
from ntpaudit.core.units import NS_PER_S


class Contradiction(NamedTuple):
    """A larger, earlier agreement that contradicts this audit's: its number of servers, and its age."""

    agreeing: int
    age_s: float


class DroppedAgreement(NamedTuple):
    """Two agreements that do not overlap: proof that more than the host's clock changed (R6).

    `expected` is the earlier one, carried forward for `age_s`. `reported` is what at least `sources` servers report
    instead, at the uptime `boottime_ns`. Both are intervals of the offset at that moment.
    """

    expected: Interval
    reported: Interval
    sources: int
    age_s: float
    boottime_ns: int

    @property
    def gap_ns(self) -> int:
        """The least distance between the two; positive if the clock is further behind than expected."""
        ahead_ns = self.reported.latest_ns - self.expected.earliest_ns
        return ahead_ns if ahead_ns < 0 else self.reported.earliest_ns - self.expected.latest_ns


class DatabaseDate(NamedTuple):
    """The offset if the database's clock is right, and the age of its reply. `is_new`: no earlier audit has used it."""

    interval: Interval
    age_s: float
    is_new: bool = True


class Gap(NamedTuple):
    """A time without a measurement, until now or until this audit (`has_ended`); `intervals`: in polling intervals."""

    span_s: float
    intervals: float
    has_ended: bool = False


class SharedServers(NamedTuple):
    """How many servers of a time daemon's configuration gave us a usable reply, and to how many it authenticates.

    `is_split`: no majority of all servers that replied agrees.
    """

    daemon: str
    replying: int
    authenticated: int
    pid: int | None = None  # None in the state of an earlier version
    is_split: bool = False


def shared_servers(observation: Observation, replies: Selection) -> tuple[SharedServers, ...]:
    """Compare the configuration of each time daemon with the sources that gave a usable reply, by name or address."""
    usable = {name for one in replies.usable for name in (one.source.name.partition("/")[0], one.source.address)}
    is_split = all(one.reason == "no-majority" for one in replies.usable)
    found = []
    for daemon in observation.known_daemons:
        servers = daemon.configuration.servers if daemon.configuration else ()
        if replying := [one for one in servers if one.host in usable or f"{one.host}:{one.port}" in usable]:
            authenticated = sum(one.key or one.nts for one in replying)
            found.append(SharedServers(daemon.name, len(replying), authenticated, daemon.pid, is_split))
    return tuple(found)


class EarlierState(NamedTuple):
    """What an agent knows from before this observation; a one-shot check knows nothing but `shared_servers`.

    - `gap`: None without one, and in a one-shot check.
    - `steps`: the steps of the last hour.
    - `stale_s`: the time for which certainly no time daemon has updated the kernel's clock.
    - `dropped_records`: records that were lost before delivery.
    - `contradiction`: a larger agreement that the present one contradicts, so the present one is not a measurement.
    - `dropped_agreement`: the contradiction of the last hour in which the earlier agreement was discarded.
    - `database`: the offset by the database's clock.
    - `refusals`: writes that the database has refused since it last accepted one.
    - `failure`: why delivery failed last.
    - `vanished`: the time daemon that has stopped without a successor (R12).
    - `shared_servers`: for each time daemon that has servers which we query too, by the last poll; a one-shot check
      has those of its own poll.
    - `config_changes`: the listed changes of what decides how the host's time is set, newest last.
    - `usable_servers`: how many servers gave a usable reply at the last poll.
    """

    gap: Gap | None = None
    steps: tuple[Step, ...] = ()
    stale_s: float | None = None
    drift: Drift | None = None
    dropped_records: int = 0
    contradiction: Contradiction | None = None
    dropped_agreement: DroppedAgreement | None = None
    database: DatabaseDate | None = None
    refusals: int = 0
    failure: str | None = None
    vanished: str | None = None
    shared_servers: tuple[SharedServers, ...] = ()
    config_changes: tuple[ConfigChange, ...] = ()
    usable_servers: int = 0


class AuditContext(NamedTuple):
    """All inputs of a check.

    `counts` is of this poll, and in a local audit of the one that measured; `max_falsetickers` and `guaranteed` are
    those of the reported interval. `max_drift_ppm` is the assumed largest drift (R4). `site_policy` is what the site
    requires besides the tolerances of the profile.
    """

    observation: Observation
    selection: Selection
    profile: Profile
    earlier: EarlierState = EarlierState()
    counts: SourceCounts | None = None
    max_drift_ppm: float = MAX_DRIFT_PPM
    site_policy: SitePolicy = SitePolicy()

    @property
    def verdict(self) -> Verdict:
        """The verdict on the critical tolerance."""
        agreement = self.selection.agreement
        return self.profile.verdict(agreement and agreement.interval, guaranteed=not self.is_unguaranteed)

    @property
    def offset_severity(self) -> Severity:
        """The severity of the offset alone."""
        agreement = self.selection.agreement
        if agreement is None:
            return self.profile.severity(None, 0)
        return self.profile.severity(agreement.interval, agreement.estimate_ns, guaranteed=agreement.is_guaranteed)

    @property
    def utc_ns(self) -> int:
        """The corrected time; the host's own while that is unknown."""
        agreement = self.selection.agreement
        return self.observation.taken.realtime_ns + (agreement.estimate_ns if agreement else 0)

    @property
    def accepted(self) -> Mapping[str, Accepted]:
        """What is accepted now, by the ids of findings."""
        return accepted_at(self.site_policy.accepted, self.utc_ns) if self.site_policy.accepted else {}

    @property
    def is_unguaranteed(self) -> bool:
        """Whether there is an interval, but too few servers gave a usable reply for it to prove anything (R1)."""
        return self.selection.agreement is not None and not self.selection.agreement.is_guaranteed

    @property
    def cross_check(self) -> CrossCheck:
        """What the time daemon and the kernel state, compared with the interval."""
        return cross_check(self.observation, self.selection.agreement, self.max_drift_ppm)

    @property
    def disputed_s(self) -> float | None:
        """The least difference of the servers' time from the database's, positive if ahead; None if unknown."""
        agreement, database = self.selection.agreement, self.earlier.database
        if agreement is None or database is None:
            return None
        return disputed_ns(agreement.interval, database.interval) / NS_PER_S


HostRule = Rule[AuditContext, Raised | None]


def estimate_s(context: AuditContext) -> float | None:
    """Return the estimate of the offset."""
    agreement = context.selection.agreement
    return None if agreement is None else agreement.estimate_ns / NS_PER_S

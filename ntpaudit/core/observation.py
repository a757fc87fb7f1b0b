"""The observation of one audit, before it is judged."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.clock.steps import StepCause
from ntpaudit.core.ntp.measurement import Measurement
from ntpaudit.core.ntp.sources import NTP_PORT, is_pool_name

Status = Literal["agreeing", "falseticker", "distant", "rejected", "unreachable", "skipped"]
STATUSES: tuple[Status, ...] = ("agreeing", "falseticker", "distant", "rejected", "unreachable", "skipped")
"""Every source has exactly one of these; its index is the number in the database."""


class SourceFailure(NamedTuple):
    """Why a source gave no measurement: a status, a reason code, and a short text for a person."""

    status: Literal["rejected", "unreachable", "skipped"]
    reason: str
    detail: str = ""


class SourceObservation(NamedTuple):
    """The result of polling one source.

    `discarded` counts, by reason code, the datagrams that were not its reply (forged, stray, duplicate). `address` is
    None if the name did not resolve; `is_own`: the address belongs to this host.
    """

    name: str
    address: str | None
    port: int
    outcome: tuple[Measurement, ...] | SourceFailure
    discarded: Mapping[str, int] = MappingProxyType({})
    is_own: bool = False

    @property
    def is_public_pool(self) -> bool:
        """Whether it is a zone of the public NTP pool, or a server of one: `ZONE/0`."""
        return is_pool_name(self.name.partition("/")[0])

    @property
    def needs_nts(self) -> bool:
        """Whether it is never queried, because it needs authentication, which is not supported (N10)."""
        return isinstance(self.outcome, SourceFailure) and self.outcome.reason == "nts"


STA_UNSYNC = 0x40
TIME_ERROR = 5
PHASE_LIMIT_S = 16.0  # NTP_PHASE_LIMIT of linux/timex.h: from this maximum error on the clock is unsynchronised (A4)


class KernelState(NamedTuple):
    """The kernel's state of its clock, read by adjtimex (A1, A2).

    `state` is the return value (TIME_OK 0 … TIME_ERROR 5), `status` the STA_ bits (A3), durations in seconds.
    `frequency_ppm` is the whole correction, tick included; positive makes the clock run faster. `tai_s` 0 means unknown
    (A5).
    """

    state: int
    status: int
    offset_s: float
    frequency_ppm: float
    maxerror_s: float
    esterror_s: float
    tai_s: int

    @property
    def is_synchronised(self) -> bool:
        """Whether the kernel reports a synchronised clock: no STA_UNSYNC, a maximum error below 16 s (A3, A4)."""
        unsync = self.status & STA_UNSYNC or self.state == TIME_ERROR
        return not unsync and self.maxerror_s < PHASE_LIMIT_S


class Unavailable(NamedTuple):
    """A value that the system did not give, why, and the one setting, unit or user that would give it."""

    reason: str
    remedy: str | None = None


Authentication = Literal["nts", "key", "none"]


class ClaimedSource(NamedTuple):
    """A server as a time daemon reports it; None is what it does not report.

    `name` is that of the daemon's configuration, else the address. `offset_s` is positive if the host is behind.
    `is_followed`: the daemon follows it, alone or with others.
    """

    name: str
    address: str | None = None
    is_followed: bool | None = None
    authentication: Authentication | None = None
    stratum: int | None = None
    offset_s: float | None = None
    poll_s: float | None = None


class Claim(NamedTuple):
    """What a time daemon reports about itself at the uptime `boottime_ns`; None is what it does not report.

    - `is_synchronised`: it says that it follows a server or a reference clock.
    - `follows`: the server or reference clock that it follows.
    - `offset_s`: true time minus the host's clock by the daemon: positive if the host is behind, whatever sign the
      daemon itself uses.
    - `bound_s`: how far from `offset_s` the true offset can be by the daemon: half its root delay plus its root
      dispersion (B7).
    - `updated_s`: the age of its last update. `poll_s`: how often it queries the server that it follows.
    - `authentication`: of the server that it follows.
    - `sources`: its servers, only where they were asked for.
    """

    boottime_ns: int
    is_synchronised: bool | None = None
    follows: str | None = None
    offset_s: float | None = None
    bound_s: float | None = None
    updated_s: float | None = None
    poll_s: float | None = None
    stratum: int | None = None
    leap: int | None = None
    authentication: Authentication | None = None
    sources: tuple[ClaimedSource, ...] = ()


Enablement = Literal["enabled", "disabled", "masked", "static"]
"""Whether a boot starts a service of systemd, as `systemctl is-enabled` calls it; a static one cannot be enabled."""


class TimeUnit(NamedTuple):
    """A service of systemd that is a time daemon, and installed on this host.

    `enabled` is None in another state of `systemctl is-enabled`, or where it cannot be read. `running`: a visible
    daemon belongs to it; None if none does and daemons may be hidden.
    """

    name: str
    enabled: Enablement | None = None
    running: bool | None = None


class ConfiguredServer(NamedTuple):
    """A server that a time daemon is configured with. `pool`: a name of several servers.

    `nts`, `key`: it is authenticated with NTS, or with a symmetric key. `port` is not that of NTS's key exchange.
    """

    host: str
    port: int = NTP_PORT
    pool: bool = False
    nts: bool = False
    key: bool = False


class Configuration(NamedTuple):
    """The servers that a time daemon is configured with, and why there may be more of them."""

    servers: tuple[ConfiguredServer, ...]
    problems: tuple[str, ...] = ()


class Daemon(NamedTuple):
    """A visible program that sets clocks, or has the name of one that does. `pid` 0 is the kernel itself.

    `disciplines`: it disciplines the system clock. False if it cannot, or if its arguments exclude it; None if unknown.
    `reason` is why it is not True. `clears_unsync`: while it disciplines the clock, the kernel reports a synchronised
    one. `max_poll_s` is its longest polling interval. `unit` is the systemd service it belongs to, `enabled` as of
    `TimeUnit`.

    `claim` is what it reports about itself, or why that cannot be read; None where this kind reports nothing.
    `configuration` has its servers; None where it has no servers, or was not read.
    """

    name: str
    pid: int
    disciplines: bool | None = True
    reason: str | None = None
    clears_unsync: bool = True
    max_poll_s: float = 1024.0
    unit: str | None = None
    claim: Claim | Unavailable | None = None
    enabled: Enablement | None = None
    configuration: Configuration | None = None

    @property
    def label(self) -> str:
        """Its name with its pid and service."""
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.name} (pid {self.pid}{unit})"

    def summary(self) -> Mapping[str, Any]:
        """Return the part for the record: a property of all daemons of this name is not in it."""
        return {
            "name": self.name,
            "pid": self.pid,
            "disciplines": self.disciplines,
            "reason": self.reason,
            "unit": self.unit,
            "enabled": self.enabled,
            "claim": _claim(self.claim),
            "configuration": _configuration(self.configuration),
        }


def _claim(claim: Claim | Unavailable | None) -> Mapping[str, Any] | None:
    match claim:
        case Claim():
            sources = [source._asdict() for source in claim.sources]
            return {"available": True} | claim._asdict() | {"sources": sources}
        case Unavailable():
            return {"available": False} | claim._asdict()
    return None


def _configuration(found: Configuration | None) -> Mapping[str, Any] | None:
    if found is None:
        return None
    return {"servers": [server._asdict() for server in found.servers], "problems": list(found.problems)}


class HiddenDaemons(NamedTuple):
    """Why there may be hidden time daemons, and the visible ones."""

    reason: str
    seen: tuple[Daemon, ...] = ()


class HostFacts(NamedTuple):
    """The host's identity, and facts about its clock; None if unknown. `zone_offset_s` is local time minus UTC."""

    name: str
    machine_id: str | None
    boot_id: str | None
    timezone: str | None
    zone_offset_s: int
    rtc_local: bool | None
    clocksource: str | None
    container: str | None


class TimeSetting(NamedTuple):
    """A file or a systemd service that decides how the host's time is set. None is what is not known.

    - `path`: the path of the file, or the name of the service.
    - `value`: the text that counts instead of the content: the target of a link, the third line of /etc/adjtime,
      whether a boot starts the service.
    - `sha256`: of the content, in hex.
    - `reason`: why there is no hash; a change is then seen by `size` and `mtime_ns`, which are None with a hash.
    - `mode`: the permission bits. In a user namespace all other users than root and the own are 65534, and all other
      groups.
    """

    path: str
    value: str | None = None
    sha256: str | None = None
    reason: str | None = None
    mode: int | None = None
    owner: int | None = None
    group: int | None = None
    size: int | None = None
    mtime_ns: int | None = None


class Auditing(NamedTuple):
    """Whether Linux' audit system records changes of the time, on a host where auditd is installed.

    - `state`: `on` if the kernel audits and a program records it, `off` if not.
    - `missing`: the rules that are missing, as lines for a file of rules; None if they cannot be read.
    - `reason`: why it is off, or why something is not known; `remedy` is what would show it.
    """

    state: Literal["on", "off", "unknown"]
    missing: tuple[str, ...] | None = None
    reason: str | None = None
    remedy: str | None = None


class HostContext(NamedTuple):
    """A host's identity, its time daemons, and the services that are time daemons, whether they run or not.

    `time_config` are the files that decide how its time is set; None if they were not read. `auditing` is None where
    auditd is not installed.
    """

    host: HostFacts
    daemons: tuple[Daemon, ...] | HiddenDaemons
    units: tuple[TimeUnit, ...] = ()
    time_config: tuple[TimeSetting, ...] | None = None
    auditing: Auditing | None = None

    @property
    def known_daemons(self) -> tuple[Daemon, ...]:
        """The visible time daemons."""
        return self.daemons.seen if isinstance(self.daemons, HiddenDaemons) else self.daemons

    @property
    def is_disciplined(self) -> bool:
        """Whether a visible time daemon disciplines the clock."""
        return any(daemon.disciplines for daemon in self.known_daemons)

    def observation(
        self, taken: ClockReading, kernel: KernelState | Unavailable, sources: tuple[SourceObservation, ...] = ()
    ) -> "Observation":
        """Return the observation of an audit of this host; that of a local audit has no sources."""
        return Observation(self.host, taken, sources, kernel, self.daemons, self.units, self.time_config, self.auditing)


def host_label(name: str, machine_id: str | None) -> str:
    """Return the name of a host, else a part of its machine id, else `unnamed`: points without a name would mix."""
    if name.strip() and name != "(none)":  # Linux reports this before a name is set
        return name
    return f"machine-{machine_id[:12]}" if machine_id else "unnamed"


class Observation(NamedTuple):
    """The observation of one audit. `taken` is the common instant to which every interval is carried (S1)."""

    host: HostFacts
    taken: ClockReading
    sources: tuple[SourceObservation, ...]
    kernel: KernelState | Unavailable
    daemons: tuple[Daemon, ...] | HiddenDaemons
    units: tuple[TimeUnit, ...] = ()
    time_config: tuple[TimeSetting, ...] | None = None
    auditing: Auditing | None = None
    step_causes: tuple[StepCause, ...] = ()

    @property
    def kernel_ppm(self) -> float | None:
        """The kernel's correction, tick included; None if it cannot be read (A2)."""
        return None if isinstance(self.kernel, Unavailable) else self.kernel.frequency_ppm

    @property
    def context(self) -> HostContext:
        """What a local audit observes again only if it has changed."""
        return HostContext(self.host, self.daemons, self.units, self.time_config, self.auditing)

    @property
    def known_daemons(self) -> tuple[Daemon, ...]:
        """The visible time daemons."""
        return self.context.known_daemons

    @property
    def disciplining(self) -> tuple[Daemon, ...]:
        """The visible time daemons that certainly discipline the clock."""
        return tuple(daemon for daemon in self.known_daemons if daemon.disciplines)

    def name_of(self, daemon: Daemon) -> str:
        """Return the name of a daemon that disciplines the clock, with pid and service where several have this name."""
        return daemon.name if sum(one.name == daemon.name for one in self.disciplining) < 2 else daemon.label

    @property
    def daemons_hidden(self) -> str | None:
        """Why there may be hidden time daemons; None if all are visible."""
        return self.daemons.reason if isinstance(self.daemons, HiddenDaemons) else None

"""What one audit saw and concluded: a value, and to and from a plain dict with a schema name."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ntpaudit.core.checks.finding import Finding
from ntpaudit.core.checks.host import AuditContext, findings_of
from ntpaudit.core.clock.drift import Breach, Drift
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, max_drift_ppm
from ntpaudit.core.ntp.measurement import Timestamping
from ntpaudit.core.ntp.time import short_to_s
from ntpaudit.core.observation import KernelState, Observation, Status, Unavailable
from ntpaudit.core.policy import Profile, Severity, Verdict, max_error_s
from ntpaudit.core.selection import Agreement, ClassifiedSource, SourceCounts, count_sources, select
from ntpaudit.core.units import NS_PER_S, direction, format_utc, parse_utc

SCHEMA = "ntpaudit.record/1"


class HostIdentity(NamedTuple):
    """Which host, in the words of its operator (`name`, `site`, `env`) and of its system."""

    name: str
    site: str | None
    env: str | None
    machine_id: str | None
    boot_id: str | None


class Offset(NamedTuple):
    """How wrong the host's clock is, in seconds; positive is behind. True theta lies in [earliest_s, latest_s].

    That assumes an oscillator which is off by `max_drift_ppm` at most (R4); None where an older record does not say.
    """

    estimate_s: float
    earliest_s: float
    latest_s: float
    bound_s: float
    direction: str
    max_drift_ppm: float | None = None


class SourceRecord(NamedTuple):
    """What one source said, and its one status. Spans and offsets in seconds; None where it said nothing."""

    name: str
    address: str | None
    port: int
    status: Status
    reason: str | None
    offset_s: float | None = None
    earliest_s: float | None = None
    latest_s: float | None = None
    delay_s: float | None = None
    root_delay_s: float | None = None
    root_dispersion_s: float | None = None
    root_distance_s: float | None = None
    stratum: int | None = None
    leap: int | None = None
    reference_id: str | None = None
    precision_s: float | None = None
    timestamping: Timestamping | None = None
    authenticated: bool = False


class DatabaseOffset(NamedTuple):
    """Where the offset lies if the database's clock is right, by the Date of its answer to a write `age_s` ago.

    `disputed_s` is by how much the servers' time is at least ahead of that clock (negative: behind), 0 where both may
    be right, None where the servers gave no time.
    """

    earliest_s: float
    latest_s: float
    age_s: float
    disputed_s: float | None


class Health(NamedTuple):
    """How the agent itself fares. Spans in seconds; None where there is nothing to tell.

    `missed` counts network audits that were due and did not come, `backlog` records not delivered yet, `oldest_s` the
    age of the oldest of them, `failures` attempts to deliver that failed since the last good one, `refusals` answers
    since then that refused what was sent. `store` says what is wrong with the state, None where it is sound. `local_s`
    is how often the agent makes a record, by the schedule in force then.
    """

    missed: int = 0
    backlog: int = 0
    oldest_s: float | None = None
    failures: int = 0
    failure: str | None = None
    set_aside: int = 0
    store: str | None = None
    refusals: int = 0
    local_s: float | None = None


class LastPoll(NamedTuple):
    """What the latest audit that polled sources found, `age_s` ago: how many sources, how many usable and agreeing.

    The latter two are 0 where it is older than its interval and grace: whether a source answers is not known then.
    """

    age_s: float
    sources: int
    usable: int
    agreeing: int


Kind = Literal["network", "local"]


class Record(NamedTuple):
    """One audit, finished. `utc_ns` is the corrected time, None when unmeasured; `host_ns` what the host believed.

    A `network` audit asked servers; a `local` one carried the offset of the last that did, `age_s` ago, forward.
    `health` is None in a one-shot check. While not `confirmed`, the offset is worse than the severity says, and more
    samples are awaited before there is an alarm. `database_clock` is what the database's clock says of the offset, None
    where it has not answered a write of late. `last_poll` is None before sources were polled.
    """

    version: str
    config_sha256: str | None
    host: HostIdentity
    utc_ns: int | None
    host_ns: int
    boottime_ns: int
    severity: Severity
    verdict: Verdict
    profile: Profile
    offset: Offset | None
    agreement: SourceCounts
    sources: tuple[SourceRecord, ...]
    kernel: Mapping[str, Any]
    daemons: tuple[Mapping[str, Any], ...]
    host_clock: Mapping[str, Any]
    findings: tuple[Finding, ...]
    kind: Kind = "network"
    age_s: float | None = 0.0
    drift: Drift | None = None
    health: Health | None = None
    confirmed: bool = True
    database_clock: DatabaseOffset | None = None
    daemons_hidden: str | None = None
    last_poll: LastPoll | None = None

    @property
    def coverage(self) -> LastPoll:
        """What is known of the sources now, by the latest audit that polled any: nothing before the first."""
        return self.last_poll or LastPoll(0.0, 0, 0, 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as the JSON contract has it; never a NaN or an infinity."""
        return {
            "schema": SCHEMA,
            "software": {"version": self.version, "config_sha256": self.config_sha256},
            "host": self.host._asdict(),
            "time": {
                "utc": None if self.utc_ns is None else format_utc(self.utc_ns),
                "host": format_utc(self.host_ns),
                "boottime_ns": self.boottime_ns,
            },
            "kind": self.kind,
            "age_s": self.age_s,
            "severity": self.severity.word,
            "confirmed": self.confirmed,
            "verdict": self.verdict,
            "profile": self.profile._asdict(),
            "offset": None if self.offset is None else self.offset._asdict(),
            "agreement": self.agreement._asdict(),
            "last_poll": None if self.last_poll is None else self.last_poll._asdict(),
            "drift": None if self.drift is None else _drift(self.drift),
            "sources": [source._asdict() for source in self.sources],
            "kernel": dict(self.kernel),
            "daemons": [dict(daemon) for daemon in self.daemons],
            "daemons_hidden": self.daemons_hidden,
            "host_clock": dict(self.host_clock),
            "findings": [
                finding._asdict() | {"severity": finding.severity.word, "controls": list(finding.controls)}
                for finding in self.findings
            ],
            "agent": None if self.health is None else self.health._asdict(),
            "database_clock": None if self.database_clock is None else self.database_clock._asdict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Record":
        """Read a record that `to_dict` wrote; keys added by later versions are passed over.

        Raises ValueError for another schema and KeyError for a key that is missing.
        """
        if data.get("schema") != SCHEMA:
            raise ValueError(f"not a record of schema {SCHEMA}: {data.get('schema')!r}")
        time = data["time"]
        return cls(
            version=data["software"]["version"],
            config_sha256=data["software"]["config_sha256"],
            host=HostIdentity(**_known(HostIdentity, data["host"])),
            utc_ns=None if time["utc"] is None else parse_utc(time["utc"]),
            host_ns=parse_utc(time["host"]),
            boottime_ns=time["boottime_ns"],
            severity=Severity[data["severity"].upper()],
            verdict=data["verdict"],
            profile=Profile(**_known(Profile, data["profile"])),
            offset=None if data["offset"] is None else Offset(**_known(Offset, data["offset"])),
            agreement=_read_counts(data["agreement"]),
            sources=tuple(SourceRecord(**_known(SourceRecord, source)) for source in data["sources"]),
            kernel=data["kernel"],
            daemons=tuple(data["daemons"]),
            daemons_hidden=data.get("daemons_hidden"),
            host_clock=data["host_clock"],
            findings=tuple(
                Finding(
                    **_known(Finding, finding)
                    | {"severity": Severity[finding["severity"].upper()], "controls": tuple(finding["controls"])}
                )
                for finding in data["findings"]
            ),
            kind=data.get("kind", "network"),
            age_s=data.get("age_s", None if data["offset"] is None else 0.0),
            drift=None if data["drift"] is None else _read_drift(data["drift"]),
            confirmed=data.get("confirmed", True),
            last_poll=_read_last_poll(data),
            health=None if data.get("agent") is None else Health(**_known(Health, data["agent"])),
            database_clock=_read_database_offset(data.get("database_clock")),
        )


class Labels(NamedTuple):
    """What a record says of its making beside what was seen: the program, the configuration, the host's place."""

    version: str
    config_sha256: str | None = None
    site: str | None = None
    env: str | None = None


def conclude(observation: Observation, profile: Profile, labels: Labels, assumed_ppm: float = MAX_DRIFT_PPM) -> Record:
    """Select, estimate and judge: everything an observation proves under a profile.

    `assumed_ppm` is how far the oscillator may be off, unless the kernel's correction shows that it is worse (R4).
    """
    drift_ppm = max_drift_ppm(observation.kernel_ppm, assumed_ppm)
    selection = select(observation.sources, observation.taken, drift_ppm)
    context = AuditContext(observation, selection, profile, max_drift_ppm=drift_ppm)
    findings = findings_of(context)
    return write_record(context, labels, findings, severity_of(context, findings))


def severity_of(context: AuditContext, findings: Sequence[Finding]) -> Severity:
    """Return how bad it is: the worst of the offset and of all findings."""
    return max(context.offset_severity, *(finding.severity for finding in findings), Severity.OK)


def write_record(
    context: AuditContext,
    labels: Labels,
    findings: tuple[Finding, ...],
    severity: Severity,
    *,
    kind: Kind = "network",
    age_s: float | None = 0.0,
    drift: Drift | None = None,
    health: Health | None = None,
    confirmed: bool = True,
    last_poll: LastPoll | None = None,
) -> Record:
    """Write down what was seen and what it means. A local audit asked nobody, so it has no sources.

    A network audit is the latest poll itself, unless another one is given.
    """
    observation, agreement = context.observation, context.selection.agreement
    host, counts = observation.host, context.counts or count_sources(context.selection)
    return Record(
        version=labels.version,
        config_sha256=labels.config_sha256,
        host=HostIdentity(host.name, labels.site, labels.env, host.machine_id, host.boot_id),
        utc_ns=observation.taken.realtime_ns + agreement.estimate_ns if agreement else None,
        host_ns=observation.taken.realtime_ns,
        boottime_ns=observation.taken.boottime_ns,
        severity=severity,
        verdict=context.verdict,
        profile=context.profile,
        offset=_offset(agreement, context.max_drift_ppm) if agreement else None,
        agreement=counts,
        sources=tuple(map(_source, context.selection.sources)) if kind == "network" else (),
        kernel=_kernel(observation.kernel),
        daemons=tuple(daemon._asdict() for daemon in observation.known_daemons),
        daemons_hidden=observation.daemons_hidden,
        host_clock={
            "timezone": host.timezone,
            "zone_offset_s": host.zone_offset_s,
            "rtc_local": host.rtc_local,
            "clocksource": host.clocksource,
            "container": host.container,
        },
        findings=findings,
        kind=kind,
        age_s=age_s if agreement else None,
        drift=drift,
        health=health,
        confirmed=confirmed,
        database_clock=_database_offset(context),
        last_poll=_poll_now(counts) if last_poll is None and kind == "network" else last_poll,
    )


def _drift(drift: Drift) -> dict[str, Any]:
    """Write a drift, the breach inside it."""
    return drift._asdict() | {"breach": drift.breach._asdict()}


def _read_last_poll(data: Mapping[str, Any]) -> LastPoll | None:
    """Read what the latest poll found; earlier versions wrote it in the records of polls alone."""
    if (poll := data.get("last_poll")) is not None:
        return LastPoll(**_known(LastPoll, poll))
    if "last_poll" in data or data.get("kind", "network") == "local":
        return None
    return _poll_now(SourceCounts(**_known(SourceCounts, data["agreement"])))


def _poll_now(counts: SourceCounts) -> LastPoll:
    """Return what a poll finds that is made just now."""
    return LastPoll(0.0, counts.sources, counts.usable, counts.agreeing)


def _read_drift(data: Mapping[str, Any]) -> Drift:
    """Read a drift that was written."""
    return Drift(**_known(Drift, data) | {"breach": Breach(**_known(Breach, data["breach"]))})


def _read_counts(data: Mapping[str, Any]) -> SourceCounts:
    """Read the numbers of an agreement; where a record does not say how many were asked, all were."""
    return SourceCounts(**{"asked": data["sources"]} | _known(SourceCounts, data))


def _read_database_offset(data: Mapping[str, Any] | None) -> DatabaseOffset | None:
    """Read what the database's clock said; earlier versions wrote nothing of it."""
    return None if data is None else DatabaseOffset(**_known(DatabaseOffset, data))


def _database_offset(context: AuditContext) -> DatabaseOffset | None:
    """Write what the database's clock says in seconds."""
    heard = context.history.database if context.history else None
    if heard is None:
        return None
    earliest_ns, latest_ns = heard.interval
    disputed_ns = context.disputed_ns
    return DatabaseOffset(
        earliest_ns / NS_PER_S,
        latest_ns / NS_PER_S,
        heard.age_s,
        None if disputed_ns is None else disputed_ns / NS_PER_S,
    )


def _offset(agreement: Agreement, drift_ppm: float) -> Offset:
    """Write an agreement in seconds."""
    interval = agreement.interval
    return Offset(
        agreement.estimate_ns / NS_PER_S,
        interval.earliest_ns / NS_PER_S,
        interval.latest_ns / NS_PER_S,
        max_error_s(interval),
        direction(agreement.estimate_ns),
        drift_ppm,
    )


def _source(classified: ClassifiedSource) -> SourceRecord:
    """Write one judged source; its offset and interval are those at the common instant."""
    source, candidate, best = classified.source, classified.candidate, classified.best
    if candidate is None or best is None:
        return SourceRecord(source.name, source.address, source.port, classified.status, classified.reason)
    reply = best.reply
    return SourceRecord(
        source.name,
        source.address,
        source.port,
        classified.status,
        classified.reason,
        offset_s=candidate.offset_ns / NS_PER_S,
        earliest_s=candidate.interval.earliest_ns / NS_PER_S,
        latest_s=candidate.interval.latest_ns / NS_PER_S,
        delay_s=best.delay_ns / NS_PER_S,
        root_delay_s=short_to_s(reply.root_delay),
        root_dispersion_s=short_to_s(reply.root_dispersion),
        root_distance_s=best.interval.half_width_ns / NS_PER_S,
        stratum=reply.stratum,
        leap=reply.leap,
        reference_id=reference_id_text(reply.reference_id, reply.stratum),
        precision_s=2.0**reply.precision,
        timestamping=best.timestamps.timestamping,
    )


def reference_id_text(reference_id: bytes, stratum: int) -> str:
    """Write a reference id: letters that name a clock at stratum 1, else the dotted form of an address.

    From stratum 2 on it is the upstream's IPv4 address, or the first octets of the MD5 of its IPv6 address: both are
    written dotted, as chronyc and ntpq do, because nothing tells them apart (RFC 5905 §7.3).
    """
    entries = reference_id.rstrip(b"\0")
    if stratum == 1 and entries and all(0x21 <= byte <= 0x7E for byte in entries):
        return entries.decode("ascii")
    return ".".join(map(str, reference_id))


def _kernel(kernel: KernelState | Unavailable) -> dict[str, Any]:
    """Write what the kernel believes, or why it could not be asked."""
    if isinstance(kernel, Unavailable):
        return {"available": False, "reason": kernel.reason}
    return {"available": True, "synchronised": kernel.is_synchronised} | kernel._asdict()


def _known(cls: type[NamedTuple], data: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the entries that are fields of a value."""
    return {key: value for key, value in data.items() if key in cls._fields}

"""The record of one audit: a value, and its conversion to and from a plain dict with a schema name."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from ntpaudit.core.acceptance import Accepted
from ntpaudit.core.chain import ChainHead
from ntpaudit.core.checks.context import AuditContext, EarlierState, shared_servers
from ntpaudit.core.checks.host import findings_of
from ntpaudit.core.checks.rule import Finding
from ntpaudit.core.clock.drift import Breach, Drift
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, max_drift_ppm
from ntpaudit.core.cross_check import CrossCheck
from ntpaudit.core.ntp.measurement import Timestamping
from ntpaudit.core.ntp.time import short_to_s
from ntpaudit.core.observation import KernelState, Observation, Status, TimeSetting, Unavailable
from ntpaudit.core.policy import Profile, Severity, Verdict, max_error_s
from ntpaudit.core.selection import Agreement, ClassifiedSource, SourceCounts, count_sources, select
from ntpaudit.core.site_policy import NOTHING_REQUIRED, SitePolicy
from ntpaudit.core.units import NS_PER_S, direction, format_utc, parse_utc

SCHEMA = "ntpaudit.record/1"


class HostIdentity(NamedTuple):
    """The host, as its operator names it (`name`, `site`, `env`) and as its system does."""

    name: str
    site: str | None
    env: str | None
    machine_id: str | None
    boot_id: str | None


class OffsetRecord(NamedTuple):
    """The offset of the host's clock in seconds; positive is behind. The true offset is in [earliest_s, latest_s].

    This assumes a drift of the oscillator of at most `max_drift_ppm` (R4); None in older records.
    """

    estimate_s: float
    earliest_s: float
    latest_s: float
    bound_s: float
    direction: str
    max_drift_ppm: float | None = None


class SourceRecord(NamedTuple):
    """The status of one source and its reply. Durations and offsets in seconds; None without a reply."""

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
    """The interval of the offset if the database's clock is right, by the Date of its reply to a write `age_s` ago.

    `disputed_s` is the least difference of the servers' time from that clock: positive if ahead, 0 if both may be
    right, None if the servers gave no time.
    """

    earliest_s: float
    latest_s: float
    age_s: float
    disputed_s: float | None


class Health(NamedTuple):
    """The state of the agent itself. Durations in seconds; None if there is nothing to report.

    - `missed`: network audits that were due and did not happen.
    - `backlog`: records that are not delivered yet, and `oldest_s` the age of the oldest; `set_aside`: dead letters.
    - `failures`: failed attempts to deliver since the last successful one; `failure` is why the last one failed.
    - `refusals`: replies since then that refused the records.
    - `store`: what is wrong with the stored state; `local_s`: the local interval at that time.
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
    """The latest audit that polled a source, `age_s` ago: its numbers of sources, of usable and of agreeing ones.

    The latter two are 0 if it is older than its interval and grace: whether a source replies is then unknown.
    """

    age_s: float
    sources: int
    usable: int
    agreeing: int


AuditKind = Literal["network", "local"]


class Record(NamedTuple):
    """One judged audit. `utc_ns` is the corrected time, None if unmeasured; `host_ns` is the host's clock.

    `age_s` is the age of the measurement that the offset is based on: 0 if this audit made it. `health` is None in a
    one-shot check, `last_poll` before the first poll, `database_clock` without a recent reply of the database,
    `cross_check` in older records, and `chain` (the head after this record) in the history itself.
    While not `confirmed`, the severity of the offset alone is worse than that of the raised findings about it: more
    samples must confirm one.
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
    offset: OffsetRecord | None
    agreement: SourceCounts
    sources: tuple[SourceRecord, ...]
    kernel: Mapping[str, Any]
    daemons: tuple[Mapping[str, Any], ...]
    host_clock: Mapping[str, Any]
    findings: tuple[Finding, ...]
    kind: AuditKind = "network"
    age_s: float | None = 0.0
    drift: Drift | None = None
    health: Health | None = None
    confirmed: bool = True
    database_clock: DatabaseOffset | None = None
    daemons_hidden: str | None = None
    last_poll: LastPoll | None = None
    time_units: tuple[Mapping[str, Any], ...] = ()
    time_config: tuple[Mapping[str, Any], ...] | None = None
    audit: Mapping[str, Any] | None = None
    cross_check: CrossCheck | None = None
    chain: ChainHead | None = None

    @property
    def accepted(self) -> tuple[Finding, ...]:
        """The findings that somebody accepts, so that they do not count."""
        return tuple(finding for finding in self.findings if finding.accepted is not None)

    @property
    def claim(self) -> Mapping[str, Any] | None:
        """What the time daemon of the cross-check states, None if it states nothing or that cannot be read."""
        name = self.cross_check and self.cross_check.daemon
        claims = [daemon.get("claim") for daemon in self.daemons if daemon["name"] == name and daemon["disciplines"]]
        return next((claim for claim in claims if claim and claim["available"]), None)

    @property
    def coverage(self) -> LastPoll:
        """The sources by the latest audit that polled one; zeros before the first."""
        return self.last_poll or LastPoll(0.0, 0, 0, 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON defines it (docs/record.md), without NaN or infinity."""
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
            "offset": _plain(self.offset),
            "agreement": self.agreement._asdict(),
            "last_poll": _plain(self.last_poll),
            "drift": None if self.drift is None else self.drift._asdict() | {"breach": self.drift.breach._asdict()},
            "sources": [source._asdict() for source in self.sources],
            "kernel": dict(self.kernel),
            "daemons": [dict(daemon) for daemon in self.daemons],
            "daemons_hidden": self.daemons_hidden,
            "time_units": [dict(unit) for unit in self.time_units],
            "audit": None if self.audit is None else dict(self.audit),
            "time_config": None if self.time_config is None else [dict(one) for one in self.time_config],
            "cross_check": _plain(self.cross_check),
            "host_clock": dict(self.host_clock),
            "findings": [
                finding._asdict()
                | {
                    "severity": finding.severity.word,
                    "controls": list(finding.controls),
                    "numbers": dict(finding.numbers),
                    "accepted": _plain(finding.accepted),
                }
                for finding in self.findings
            ],
            "agent": _plain(self.health),
            "database_clock": _plain(self.database_clock),
            "chain": None if self.chain is None else self.chain.plain(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Record":
        """Read a record of `to_dict`, without later keys. ValueError for another schema, KeyError for a missing key."""
        if data.get("schema") != SCHEMA:
            raise ValueError(f"not a record of schema {SCHEMA}: {data.get('schema')!r}")
        time, drift = data["time"], data["drift"]
        return cls(
            version=data["software"]["version"],
            config_sha256=data["software"]["config_sha256"],
            host=_read(HostIdentity, data["host"]),
            utc_ns=None if time["utc"] is None else parse_utc(time["utc"]),
            host_ns=parse_utc(time["host"]),
            boottime_ns=time["boottime_ns"],
            severity=Severity[data["severity"].upper()],
            verdict=data["verdict"],
            profile=_read(Profile, data["profile"]),
            offset=_read(OffsetRecord, data["offset"]),
            agreement=_read(SourceCounts, data["agreement"]),
            sources=tuple(_read(SourceRecord, source) for source in data["sources"]),
            kernel=data["kernel"],
            daemons=tuple(data["daemons"]),
            daemons_hidden=data["daemons_hidden"],
            host_clock=data["host_clock"],
            findings=tuple(
                _read(Finding, finding)._replace(
                    severity=Severity[finding["severity"].upper()],
                    controls=tuple(finding["controls"]),
                    accepted=_read(Accepted, finding.get("accepted")),
                )
                for finding in data["findings"]
            ),
            kind=data["kind"],
            age_s=data["age_s"],
            drift=None if drift is None else _read(Drift, drift)._replace(breach=_read(Breach, drift["breach"])),
            confirmed=data["confirmed"],
            last_poll=_read(LastPoll, data["last_poll"]),
            health=_read(Health, data["agent"]),
            database_clock=_read(DatabaseOffset, data["database_clock"]),
            time_units=tuple(data.get("time_units", ())),
            audit=data.get("audit"),
            time_config=None if data.get("time_config") is None else tuple(data["time_config"]),
            cross_check=_read(CrossCheck, data.get("cross_check")),
            chain=None if data.get("chain") is None else ChainHead.of(data["chain"]),
        )


class Labels(NamedTuple):
    """The part of a record that is not observed: the program, the configuration, and the host's site."""

    version: str
    config_sha256: str | None = None
    site: str | None = None
    env: str | None = None


def conclude(
    observation: Observation,
    profile: Profile,
    labels: Labels,
    assumed_ppm: float = MAX_DRIFT_PPM,
    site_policy: SitePolicy = NOTHING_REQUIRED,
) -> Record:
    """Judge an observation without earlier ones: select sources, estimate the offset, run the rules.

    `assumed_ppm` is the assumed largest drift of the oscillator, unless the kernel's correction shows more (R4). It is
    not beside `evaluate`, because the imports of that would cost a check 4 ms, 6 % of its own.
    """
    drift_ppm = max_drift_ppm(observation.kernel_ppm, assumed_ppm)
    selection = select(observation.sources, observation.taken, drift_ppm)
    earlier = EarlierState(shared_servers=shared_servers(observation, selection))
    context = AuditContext(observation, selection, profile, earlier, max_drift_ppm=drift_ppm, site_policy=site_policy)
    findings = findings_of(context)
    severity = max(context.offset_severity, *(finding.severity for finding in findings), Severity.OK)
    return write_record(context, labels, findings, severity)


def write_record(
    context: AuditContext,
    labels: Labels,
    findings: tuple[Finding, ...],
    severity: Severity,
    *,
    kind: AuditKind = "network",
    age_s: float | None = 0.0,
    drift: Drift | None = None,
    health: Health | None = None,
    confirmed: bool = True,
    last_poll: LastPoll | None = None,
    time_config: tuple[TimeSetting, ...] | None = None,
) -> Record:
    """Make the record of a judged audit. A local audit has no sources; a network audit is itself the latest poll."""
    observation, agreement = context.observation, context.selection.agreement
    host, counts = observation.host, context.counts or count_sources(context.selection)
    if last_poll is None and kind == "network":
        last_poll = LastPoll(0.0, counts.sources, counts.usable, counts.agreeing)
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
        daemons=tuple(daemon.summary() for daemon in observation.known_daemons),
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
        last_poll=last_poll,
        time_units=tuple(unit._asdict() for unit in observation.units),
        audit=_plain(observation.auditing),
        time_config=None if time_config is None else tuple(map(_time_setting, time_config)),
        cross_check=context.cross_check,
    )


def _time_setting(setting: TimeSetting) -> Mapping[str, Any]:
    return setting._asdict() | {"mode": None if setting.mode is None else f"{setting.mode:04o}"}


def _database_offset(context: AuditContext) -> DatabaseOffset | None:
    date = context.earlier.database
    if date is None:
        return None
    earliest_ns, latest_ns = date.interval
    return DatabaseOffset(earliest_ns / NS_PER_S, latest_ns / NS_PER_S, date.age_s, context.disputed_s)


def _offset(agreement: Agreement, drift_ppm: float) -> OffsetRecord:
    estimate_s, (earliest_ns, latest_ns) = agreement.estimate_ns / NS_PER_S, agreement.interval
    ends_s, bound_s = (earliest_ns / NS_PER_S, latest_ns / NS_PER_S), max_error_s(agreement.interval)
    return OffsetRecord(estimate_s, *ends_s, bound_s, direction(estimate_s), drift_ppm)


def _source(classified: ClassifiedSource) -> SourceRecord:
    source, candidate, best = classified.source, classified.candidate, classified.best
    record = SourceRecord(source.name, source.address, source.port, classified.status, classified.reason)
    if candidate is None or best is None:
        return record
    reply = best.reply
    return record._replace(
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
    """Format a reference id: the name of a clock at stratum 1, else dotted, as in chronyc and ntpq (RFC 5905 §7.3).

    From stratum 2 on it is the upstream's IPv4 address or the start of the MD5 of its IPv6 address, which look alike.
    """
    name = reference_id.rstrip(b"\0")
    if stratum == 1 and name and all(0x21 <= byte <= 0x7E for byte in name):
        return name.decode("ascii")
    return ".".join(map(str, reference_id))


def _kernel(kernel: KernelState | Unavailable) -> dict[str, Any]:
    if isinstance(kernel, Unavailable):
        return {"available": False, "reason": kernel.reason}
    return {"available": True, "synchronised": kernel.is_synchronised} | kernel._asdict()


def _read(cls: Any, data: Mapping[str, Any] | None) -> Any:
    return None if data is None else cls(**{key: value for key, value in data.items() if key in cls._fields})


def _plain(value: Any) -> dict[str, Any] | None:
    return None if value is None else value._asdict()

"""Every key of the configuration, written once: its name, type, default, check, environment variable and help.

A table of the file is a NamedTuple, and each of its keys a field with a `Key`. The name of a key is that of its field,
without `_s` (seconds). A table that may be repeated ([[accept]]) is one too; a configuration has a tuple of them.
All else comes from here: loading, `ntpaudit config`, docs/configuration.md and the tests.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, get_args

from ntpaudit.config import values
from ntpaudit.core.checks.acceptances import ACCEPTANCE_EXPIRED
from ntpaudit.core.checks.daemons import UNSYNCED
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM
from ntpaudit.core.fleet.policy import FleetPolicy
from ntpaudit.core.ingest import PIPELINES
from ntpaudit.core.ntp.patterns import Pattern
from ntpaudit.core.ntp.rate_limit import POOL_INTERVAL_S
from ntpaudit.core.ntp.sources import Pool, Source
from ntpaudit.core.ntp.sources import pool as parse_pool
from ntpaudit.core.ntp.sources import region as parse_region
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES, Profile
from ntpaudit.core.site_policy import Role
from ntpaudit.core.units import parse_duration, parse_size


class Key(NamedTuple):
    """A key of the file.

    `read` turns a TOML value into the field's, or raises ValueError with what to write; `write` is its inverse.
    `unset` says what applies without a value, where the field's default does not say it. `example` defaults to the
    default. `variable` is an environment variable that sets the key. `measure` is `duration` or `size`; `least_s` is
    the shortest duration. `keys_of` sets `field` and `default`.
    """

    meaning: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = lambda value: value
    example: Any = None
    unset: str = ""
    variable: str | None = None
    read_variable: Callable[[str], Any] = str
    measure: str = ""
    least_s: float = 0.0
    field: str = ""
    default: Any = None
    """As it is written in a file; None if there is none."""

    @property
    def name(self) -> str:
        """The name in the file."""
        return self.field.removesuffix("_s")


def _label(meaning: str, **more: Any) -> Key:
    return Key(meaning, values.of_text(values.parse_label), **more)


def _path(meaning: str, example: str, **more: Any) -> Key:
    return Key(meaning, values.of_text(values.parse_path), example=example, **more)


def _url(meaning: str, **more: Any) -> Key:
    return Key(meaning, values.of_text(values.parse_url), example="http://127.0.0.1:8086", **more)


def _ca_file(unset: str, **more: Any) -> Key:
    meaning = "certificates (PEM) to trust instead of the system's"
    return _path(meaning, "/etc/ssl/site-ca.pem", unset=unset, **more)


def _duration(meaning: str, parse: Callable[[str], float] = values.parse_positive_duration, **more: Any) -> Key:
    return Key(meaning, values.of_text(parse), values.write_duration, measure="duration", **more)


def _at_least(least_s: float, meaning: str, why: str = "", **more: Any) -> Key:
    parse = values.from_least(least_s, why)
    return _duration(f"{meaning}; at least {values.write_duration(least_s)}", parse, least_s=least_s, **more)


class HostConfig(NamedTuple):
    """`[host]`: this host. `max_drift_ppm` is assumed unless the host shows a larger error (R4)."""

    name: Annotated[
        str | None, _label("name of this host in records", example="web1", unset="the system's host name")
    ] = None
    site: Annotated[str | None, _label("site, such as a data centre; a tag of its points", example="ams")] = None
    env: Annotated[str | None, _label("environment; a tag of its points", example="prod")] = None
    max_drift_ppm: Annotated[
        float,
        Key(
            "maximum oscillator error, 1 to 500; the kernel's correction + 15 ppm is used if that is more",
            values.read_ppm,
        ),
    ] = MAX_DRIFT_PPM


class SourcesConfig(NamedTuple):
    """`[sources]`: what to query. If empty, the caller decides."""

    servers: Annotated[
        tuple[Source, ...],
        Key(
            "NTP servers: HOST, HOST:PORT or [IPV6]:PORT; at least 4, so that the others outvote one that is wrong",
            values.read_servers,
            lambda servers: [values.write_source(server) for server in servers],
            example=["ntp1.example.net", "192.0.2.1:1123", "[2001:db8::1]:123"],
        ),
    ] = ()
    pool: Annotated[
        Pool | None,
        Key(
            "a zone of the NTP pool, or your own name with several addresses: 4 of them are queried",
            values.of_text(parse_pool),
            values.write_source,
            example="nl.pool.ntp.org",
        ),
    ] = None
    region: Annotated[
        Pool | None,
        Key(
            "the pool of a continent (by name, such as europe) or a country (by two-letter code)",
            values.of_text(parse_region),
            values.write_region,
            example="nl",
        ),
    ] = None
    from_host: Annotated[bool, Key("also query the servers of the running time daemon", values.read_flag)] = False
    approved: Annotated[
        tuple[Pattern, ...],
        Key(
            "sources that the time daemon and ntpaudit may use: names (* stands for any characters), addresses, "
            "networks, ids of reference clocks and of PTP grandmasters",
            values.read_patterns,
            lambda patterns: [pattern.text for pattern in patterns],
            example=["*.example.net", "192.0.2.0/24", "2001:db8::/32", "GPS"],
            unset="sources are not judged",
        ),
    ] = ()
    role: Annotated[
        Role | None,
        Key(
            "internal: this host must not use public NTP servers, except those that `approved` names; designated: it "
            "may (PCI DSS 10.6.2)",
            values.of_text(values.parse_role),
            example="internal",
            unset="not judged",
        ),
    ] = None
    require_authentication: Annotated[
        bool, Key("the time daemon must authenticate its servers, with NTS or a symmetric key", values.read_flag)
    ] = False

    @property
    def pools(self) -> tuple[Source, ...]:
        """The pool and the region, as far as set."""
        return tuple(source for source in (self.pool, self.region) if source is not None)

    @property
    def named(self) -> tuple[Source, ...]:
        """Every named source, servers first."""
        return self.servers + self.pools


class ScheduleConfig(NamedTuple):
    """`[schedule]`: the intervals at which the agent polls servers and pools, and of local audits."""

    network_s: Annotated[
        float,
        _duration(
            "poll interval of servers; at least 15s, or 1s if all are loopback addresses (127.0.0.1, not localhost)",
            values.from_least(1.0, ""),
        ),
    ] = 300.0
    pool_s: Annotated[
        float,
        _at_least(POOL_INTERVAL_S, "poll interval of the NTP pool", "the pool's terms of service"),  # P2: a hard error
    ] = 3600.0
    local_s: Annotated[
        float, _at_least(1.0, "interval of local audits (carry the offset forward, read the kernel; no query)")
    ] = 60.0


class PolicyConfig(NamedTuple):
    """`[policy]`: a profile, with tolerances overridden."""

    profile: Annotated[str, Key("named tolerances, from the list in docs/configuration.md", values.of_text(str))] = (
        DEFAULT_PROFILE
    )
    warning_s: Annotated[
        float | None,
        _duration(
            "warning tolerance",
            parse_duration,
            example="100ms",
            unset="that of the profile, or the critical one if that is smaller",
        ),
    ] = None
    critical_s: Annotated[
        float | None,
        _duration(
            "critical tolerance, which the verdict refers to", parse_duration, example="1s", unset="that of the profile"
        ),
    ] = None


class IngestConfig(NamedTuple):
    """`[ingest]`: where this host's logs go, and how late; for the finding `ingest-risk`."""

    pipelines: Annotated[
        tuple[str, ...],
        Key(
            f"log pipelines that this host's events go to: {', '.join(PIPELINES)}",
            values.read_pipelines,
            list,
            example=["loki", "elastic"],
            unset="not judged",
        ),
    ] = ()
    lag_s: Annotated[
        float | None,
        _duration("how long an event takes to reach a pipeline", example="30s", unset="not counted"),
    ] = None
    rule_interval_s: Annotated[
        float | None,
        _duration("how often detection rules run", example="5m", unset="that of the pipeline, if it has a usual one"),
    ] = None
    rule_lookback_s: Annotated[
        float | None,
        _duration(
            "how far back detection rules search", example="9m", unset="that of the pipeline, if it has a usual one"
        ),
    ] = None


class HistoryConfig(NamedTuple):
    """`[history]`: where records are stored, for how long, and in how many bytes."""

    path: Annotated[
        str | None,
        _path(
            "file with the records", "/var/lib/ntpaudit/history.sqlite3", unset="history.sqlite3 in the state folder"
        ),
    ] = None
    raw_s: Annotated[float, _at_least(3600.0, "retention of single records")] = 90 * values.DAY_S
    rollups_s: Annotated[float, _at_least(values.DAY_S, "retention of each hour: its extremes and its account")] = (
        400 * values.DAY_S
    )
    findings_s: Annotated[
        float, _at_least(values.DAY_S, "retention of findings, clock steps and the accounts of days")
    ] = 7 * values.YEAR_S
    max_size: Annotated[
        int,
        Key(
            "maximum size of the history, at least 1MiB; the oldest delivered records are deleted first",
            values.of_text(parse_size),
            values.write_size,
            measure="size",
        ),
    ] = 1 << 30


class InfluxConfig(NamedTuple):
    """`[influxdb]`: the database. `org` is empty for servers without organisations.

    `default_token_file` is read if `token_file` is None: SYSTEM_TOKEN_FILE for the system's own configuration.
    `written` has the names of the keys that the file sets: no variable overrides them.
    """

    url: Annotated[
        str,
        _url(
            "InfluxDB, or a database with its write protocol; without it nothing is delivered",
            variable="INFLUXDB_V2_URL",
            read_variable=values.parse_url,
        ),
    ]
    org: Annotated[
        str, _label("organisation, if the server has organisations", example="soc", variable="INFLUXDB_V2_ORG")
    ] = ""
    bucket: Annotated[str, _label("bucket or database", variable="INFLUXDB_V2_BUCKET")] = "ntpaudit"
    token_file: Annotated[
        str | None,
        _path(
            "file with the token, mode 0600",
            "/etc/ntpaudit/token",
            unset="systemd's credential influxdb-token, else /etc/ntpaudit/token, else INFLUXDB_V2_TOKEN",
        ),
    ] = None
    ca_file: Annotated[str | None, _ca_file("the system's certificates", variable="INFLUXDB_V2_SSL_CA_CERT")] = None
    timeout_s: Annotated[
        float,
        _at_least(
            0.1, "how long a reply may take", variable="INFLUXDB_V2_TIMEOUT", read_variable=values.parse_milliseconds
        ),
    ] = 10.0
    default_token_file: str | None = None
    written: frozenset[str] = frozenset()


_OTHER_FOLDERS = "as a systemd service, other folders need ReadWritePaths="


class OpenMetricsConfig(NamedTuple):
    """`[openmetrics]`: the file that node_exporter's textfile collector reads."""

    path: Annotated[
        str,
        _path(
            f"write gauges for the textfile collector of node_exporter; {_OTHER_FOLDERS}", "/run/ntpaudit/ntpaudit.prom"
        ),
    ]


class JsonlConfig(NamedTuple):
    """`[jsonl]`: the file that records are appended to."""

    path: Annotated[
        str,
        _path(
            f"append every record to this file as one line of JSON; {_OTHER_FOLDERS}", "/var/lib/ntpaudit/records.jsonl"
        ),
    ]


class SyslogConfig(NamedTuple):
    """`[syslog]`: a socket's path, or HOST[:PORT] or [IPV6][:PORT] for UDP."""

    address: Annotated[
        str,
        Key(
            "send events as RFC 5424 messages to this socket, or to UDP HOST:PORT",
            values.of_text(values.parse_syslog_address),
            example="/dev/log",
        ),
    ]


class JournalConfig(NamedTuple):
    """`[journal]`: whether entries go to systemd's journal. Its socket is no key of the file."""

    enabled: Annotated[
        bool,
        Key(
            "write events to systemd's journal",
            values.read_flag,
            example=True,
            unset="true if the journal takes the agent's output, else false",
        ),
    ] = True
    socket: str = "/run/systemd/journal/socket"


class OutputsConfig(NamedTuple):
    """The outputs besides the database: the settings of each, by the name of its table and of its module in `outputs`.

    None where the table is absent or empty: no such output. `journal` None means: where systemd's journal takes our
    output. A new output is registered here, with a NamedTuple of its keys.
    """

    openmetrics: OpenMetricsConfig | None = None
    jsonl: JsonlConfig | None = None
    syslog: SyslogConfig | None = None
    journal: JournalConfig | None = None


class FleetConfig(NamedTuple):
    """`[fleet]`: the database with the points of all hosts, and the limits for a fleet."""

    url: Annotated[str | None, _url("database that `ntpaudit fleet` reads", unset="that of [influxdb]")] = None
    language: Annotated[
        values.Language, Key("influxql for InfluxDB, promql for VictoriaMetrics", values.of_text(values.parse_language))
    ] = "influxql"
    database: Annotated[
        str | None,
        _label(
            "database or bucket",
            example="ntpaudit",
            unset="the bucket of [influxdb] if the url is the same, else ntpaudit",
        ),
    ] = None
    token_file: Annotated[
        str | None,
        _path(
            "file with the read token, sent only to this url, mode 0600",
            "/etc/ntpaudit/read-token",
            unset="the token of [influxdb] if the url is the same",
        ),
    ] = None
    ca_file: Annotated[
        str | None, _ca_file("that of [influxdb] if the url is the same, else the system's certificates")
    ] = None
    timeout_s: Annotated[float, _at_least(0.1, "how long a reply may take")] = 10.0
    silent_after_s: Annotated[float, _at_least(1.0, "a host is silent after this time without a point")] = (
        FleetPolicy().silent_after_s
    )
    ambiguity_s: Annotated[
        float, _duration("ordering limit: events on hosts of one site must be orderable if further apart than this")
    ] = FleetPolicy().ambiguity_s
    inventory: Annotated[
        str | None, _path("file with the hosts that must report, one per line", "/etc/ntpaudit/inventory")
    ] = None
    env: Annotated[
        str | None,
        _label("read only the hosts of this environment (host.env)", example="prod", unset="every environment"),
    ] = None


class EvidenceConfig(NamedTuple):
    """`[evidence]`: who signs the time of anchors, for `ntpaudit evidence anchor` on one machine."""

    tsa: Annotated[
        tuple[str, ...],
        Key(
            "time-stamp authorities (RFC 3161), each of which signs every anchor",
            values.read_authorities,
            list,
            example=["http://tsa.example.net/tsr"],
        ),
    ] = ()
    tsa_roots: Annotated[
        str | None,
        _path(
            "file with the root certificates (PEM) of these authorities: no others are trusted",
            "/etc/ntpaudit/tsa-roots.pem",
        ),
    ] = None
    roughtime: Annotated[
        tuple[values.RoughtimeAddress, ...],
        Key(
            "Roughtime servers (RFC 10049), HOST:PORT and public key in base64; each signs every anchor",
            values.read_roughtime,
            lambda servers: list(map(values.write_roughtime, servers)),
            example=["roughtime.example.net:5319 2O3mkkheDExCuhG+ZNIoWmO/IdCdLzADgUn8SnC4hME="],
        ),
    ] = ()


Reason = Annotated[
    str, Key("why", values.of_text(values.parse_sentence), example="container: the host's chronyd corrects the clock")
]
AcceptedBy = Annotated[str, _label("who accepts it", example="operations, ticket 1234")]
End = Annotated[
    int | None,
    Key(
        "end in UTC: a day, at its begin, or a time; without an end or after it the acceptance counts for nothing, "
        f"and is the finding `{ACCEPTANCE_EXPIRED.id}`",
        values.read_utc,
        values.write_utc,
        example="2027-06-30",
    ),
]


class AcceptConfig(NamedTuple):
    """`[[accept]]`: a finding that somebody accepts until a time in ns since 1970 (X1)."""

    finding: Annotated[
        str,
        Key(
            "id of a finding that is listed and does not count; repeat the table for each",
            values.of_text(values.parse_accepted),
            example=UNSYNCED.id,
        ),
    ]
    reason: Reason
    by: AcceptedBy
    until: End = None


_DEFAULT = PROFILES[DEFAULT_PROFILE]


class Config(NamedTuple):
    """A valid configuration. `policy` has the tolerances of `profile`. `sha256` is that of its file, if it has one."""

    host: HostConfig = HostConfig()
    sources: SourcesConfig = SourcesConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    policy: PolicyConfig = PolicyConfig(DEFAULT_PROFILE, _DEFAULT.warning_s, _DEFAULT.critical_s)
    profile: Profile = _DEFAULT
    ingest: IngestConfig = IngestConfig()
    history: HistoryConfig = HistoryConfig()
    influxdb: InfluxConfig | None = None
    outputs: OutputsConfig = OutputsConfig()
    fleet: FleetConfig = FleetConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    accept: tuple[AcceptConfig, ...] = ()
    sha256: str | None = None


OUTPUTS: Mapping[str, Any] = {name: get_args(hint)[0] for name, hint in OutputsConfig.__annotations__.items()}
"""The settings of every output besides the database, by the name of its table."""

TABLES: Mapping[str, Any] = {
    "host": HostConfig,
    "sources": SourcesConfig,
    "schedule": ScheduleConfig,
    "policy": PolicyConfig,
    "ingest": IngestConfig,
    "history": HistoryConfig,
    "influxdb": InfluxConfig,
    **OUTPUTS,
    "fleet": FleetConfig,
    "evidence": EvidenceConfig,
}
"""The NamedTuple of every table that a file has once."""

REPEATED: Mapping[str, Any] = {"accept": AcceptConfig}
"""The NamedTuple of every table that may be repeated."""


def keys_of(settings: Any) -> dict[str, Key]:
    """Return the keys of a table by their names, from its NamedTuple."""
    keys = {}
    for field, hint in settings.__annotations__.items():
        if hasattr(hint, "__metadata__"):
            key, default = hint.__metadata__[0], settings._field_defaults.get(field)
            written = None if default in (None, "", ()) or key.unset else key.write(default)
            example = written if key.example is None else key.example
            keys[field.removesuffix("_s")] = key._replace(field=field, default=written, example=example)
    return keys


KEYS: Mapping[str, Mapping[str, Key]] = {table: keys_of(settings) for table, settings in TABLES.items()}
"""Every key of a table that a file has once, by its table and name."""

REPEATED_KEYS: Mapping[str, Mapping[str, Key]] = {table: keys_of(settings) for table, settings in REPEATED.items()}
"""Every key of a table that may be repeated."""

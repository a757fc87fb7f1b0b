"""TOML to a frozen Config; all defaults; every error names its key."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, MAX_KERNEL_PPM
from ntpaudit.core.fleet.model import FleetPolicy
from ntpaudit.core.ntp.rate_limit import POOL_INTERVAL_S, SERVER_INTERVAL_S
from ntpaudit.core.ntp.sources import Server, Source, is_loopback, parse_source, pool, region
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES, Profile
from ntpaudit.core.units import format_duration, parse_duration, parse_size
from ntpaudit.errors import ConfigError

DAY_S = 86_400.0
YEAR_S = 365.25 * DAY_S
MOST_S = 100 * YEAR_S
"""The longest duration that a key accepts."""
Language = Literal["influxql", "promql"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
"""Query languages of a fleet's database: InfluxQL of InfluxDB, PromQL of VictoriaMetrics."""
_Read = TypeVar("_Read")
_Keys = Mapping[str, Callable[[Any], Any]]


class HostConfig(NamedTuple):
    """`[host]`: name, site and environment of this host; `name` None means the machine's host name.

    `max_drift_ppm` is the assumed maximum frequency error of its oscillator, unless the host shows a larger one (R4).
    """

    name: str | None = None
    site: str | None = None
    env: str | None = None
    max_drift_ppm: float = MAX_DRIFT_PPM


class SourcesConfig(NamedTuple):
    """`[sources]`: what to query. If empty, the caller decides."""

    servers: tuple[Source, ...] = ()
    pools: tuple[Source, ...] = ()
    from_host: bool = False

    @property
    def named(self) -> tuple[Source, ...]:
        """Every named source, servers first."""
        return self.servers + self.pools


class ScheduleConfig(NamedTuple):
    """`[schedule]`: the intervals at which the agent polls servers and pools, and of local audits."""

    network_s: float = 300.0
    pool_s: float = 3600.0
    local_s: float = 60.0


class HistoryConfig(NamedTuple):
    """`[history]`: where records are stored, for how long, and in how many bytes; `path` None: in the state folder."""

    path: str | None = None
    raw_s: float = 90 * DAY_S
    rollups_s: float = 400 * DAY_S
    findings_s: float = 7 * YEAR_S
    max_bytes: int = 1 << 30


class InfluxConfig(NamedTuple):
    """`[influxdb]`: the database. `org` is empty for servers without organisations.

    `default_token_file` is read if `token_file` is None: SYSTEM_TOKEN_FILE for the system's own configuration.
    """

    url: str
    org: str = ""
    bucket: str = "ntpaudit"
    token_file: str | None = None
    ca_file: str | None = None
    timeout_s: float = 10.0
    default_token_file: str | None = None


class OpenMetricsConfig(NamedTuple):
    """`[openmetrics]`: the file that node_exporter's textfile collector reads."""

    path: str


class JsonlConfig(NamedTuple):
    """`[jsonl]`: the file that records are appended to."""

    path: str


class SyslogConfig(NamedTuple):
    """`[syslog]`: a socket's path, or HOST[:PORT] or [IPV6][:PORT] for UDP."""

    address: str


class JournalConfig(NamedTuple):
    """`[journal]`: whether entries go to systemd's journal. Its socket is no key of the file."""

    enabled: bool = True
    socket: str = "/run/systemd/journal/socket"


class OutputsConfig(NamedTuple):
    """The other outputs: the settings of each, by the name of its table and of its module in `outputs`.

    None where the table is absent or empty: no such output. `journal` None means: where systemd's journal takes our
    output.
    """

    openmetrics: OpenMetricsConfig | None = None
    jsonl: JsonlConfig | None = None
    syslog: SyslogConfig | None = None
    journal: JournalConfig | None = None


class FleetConfig(NamedTuple):
    """`[fleet]`: the database with the points of all hosts, and the limits for a fleet.

    `url` and `database` None: those of `[influxdb]`. `env` None: every environment. `inventory` is a file with the
    names of the hosts that must report.
    """

    url: str | None = None
    language: Language = "influxql"
    database: str | None = None
    token_file: str | None = None
    ca_file: str | None = None
    timeout_s: float = 10.0
    silent_after_s: float = FleetPolicy().silent_after_s
    ambiguity_s: float = FleetPolicy().ambiguity_s
    inventory: str | None = None
    env: str | None = None


class Config(NamedTuple):
    """A valid configuration. `sha256` identifies the file's text, None without a file."""

    host: HostConfig = HostConfig()
    sources: SourcesConfig = SourcesConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    profile: Profile = PROFILES[DEFAULT_PROFILE]
    history: HistoryConfig = HistoryConfig()
    influxdb: InfluxConfig | None = None
    outputs: OutputsConfig = OutputsConfig()
    fleet: FleetConfig = FleetConfig()
    sha256: str | None = None


def read_config(tables: Mapping[str, Any]) -> Config:
    """Turn the tables of a configuration into a Config. Raises ConfigError with the key."""
    _refuse_unknown(tables, _TABLES, "")
    for table, content in tables.items():
        if not isinstance(content, dict):
            raise ConfigError(f"{table}: write it as a table, [{table}]", table)
    read = {table: _read_table(table, tables.get(table, {}), keys) for table, keys in _TABLES.items()}
    sources, policy, history, influxdb = (read[table] for table in ("sources", "policy", "history", "influxdb"))
    schedule = ScheduleConfig(**{f"{key}_s": value for key, value in read["schedule"].items()})
    servers = sources.get("servers", ())
    if not schedule.network_s >= SERVER_INTERVAL_S and not _are_loopback(servers, sources):
        least = f"at least {SERVER_INTERVAL_S} s between queries to a server (RFC 4330), except on loopback"
        raise ConfigError(f"schedule.network: too short: {least}", "schedule.network")
    durations = {f"{key}_s": value for key, value in history.items() if key in ("raw", "rollups", "findings")}
    if influxdb and "url" not in influxdb:
        raise ConfigError("influxdb.url: give the server's URL, such as http://127.0.0.1:8086", "influxdb")
    return Config(
        host=HostConfig(**read["host"]),
        sources=SourcesConfig(
            servers,
            tuple(sources[key] for key in ("pool", "region") if key in sources),
            sources.get("from_host", False),
        ),
        schedule=schedule,
        profile=choose_profile(policy.get("profile"), policy.get("warning"), policy.get("critical")),
        history=HistoryConfig(history.get("path"), **durations, **_kept(history, max_size="max_bytes")),
        influxdb=InfluxConfig(**_kept(influxdb, *_TABLES["influxdb"], timeout="timeout_s")) if influxdb else None,
        outputs=OutputsConfig(
            **{name: to_settings(name, output.settings, read[name]) for name, output in _OUTPUTS.items() if read[name]}
        ),
        fleet=_fleet(read["fleet"]),
    )


def to_settings(name: str, settings: Any, table: Mapping[str, Any]) -> Any:
    """Make the settings of an output, a NamedTuple, from its table. ConfigError where a key is missing."""
    for key in settings._fields:
        if key not in table and key not in settings._field_defaults:
            raise ConfigError(f"{name}.{key}: missing; [{name}] needs it", name)
    return settings(**table)


def _fleet(table: Mapping[str, Any]) -> FleetConfig:
    durations = {key: f"{key}_s" for key in ("timeout", "silent_after", "ambiguity")}
    return FleetConfig(**{durations.get(key, key): value for key, value in table.items()})


def choose_profile(
    name: str | None, warning_s: float | None, critical_s: float | None, base: Profile = PROFILES[DEFAULT_PROFILE]
) -> Profile:
    """Return the named profile, else `base`, with tolerances overridden. Raises ConfigError for invalid values."""
    if name is not None and name not in PROFILES:
        known = f"unknown profile {name!r}{_nearest(name, PROFILES)}; known: {', '.join(PROFILES)}"
        raise ConfigError(f"policy.profile: {known}", "policy.profile")
    profile = PROFILES[name] if name is not None else base
    critical = profile.critical_s if critical_s is None else critical_s
    # a critical tolerance below the profile's warning tolerance lowers the warning tolerance too
    warning = min(profile.warning_s, critical) if warning_s is None else warning_s
    if not 0 < warning <= critical < math.inf:
        written = f"warning ({warning:g} s) and critical ({critical:g} s): write 0 < warning <= critical"
        raise ConfigError(f"policy: {written}", "policy.warning" if warning_s is not None else "policy.critical")
    return profile._replace(warning_s=warning, critical_s=critical)


def _text(value: Any) -> str:
    """Return a string. Raises ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"write a string in quotes, not {value!r}")
    return value


def _by(read: Callable[[str], _Read]) -> Callable[[Any], _Read]:
    """Return a function that parses a string with `read`."""
    return lambda value: read(_text(value))


def _measure(read: Callable[[str], _Read], what: str, example: str) -> Callable[[Any], _Read]:
    """Return a function that parses a duration or a size; for a number its ValueError gives an example."""

    def check(value: Any) -> _Read:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f'write a {what} with its unit, in quotes, such as "{example}"')
        return read(_text(value))

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("write true or false")
    return value


def _ppm(value: Any) -> float:
    """Return an oscillator's maximum error: a kernel corrects 500 ppm at most."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= MAX_KERNEL_PPM:
        raise ValueError(f"write a number of ppm from 1 to {MAX_KERNEL_PPM:g}, such as 100")
    return float(value)


def _servers(value: Any) -> tuple[Source, ...]:
    if not (isinstance(value, list) and all(isinstance(server, str) for server in value)):
        raise ValueError('write a list of names, ["ntp1.example.net", "192.0.2.1:1123"]')
    return tuple(map(parse_source, value))


def _are_loopback(servers: Sequence[Source], sources: Mapping[str, Any]) -> bool:
    """Return whether only this machine itself is queried."""
    others = any(sources.get(key) for key in ("pool", "region", "from_host"))
    return not others and all(isinstance(server, Server) and is_loopback(server.host) for server in servers)


def _label(text: str) -> str:
    """Return a label. Raises ValueError if it is empty, too long or not printable."""
    if not text.strip() or not text.isprintable():
        raise ValueError("write a name of printable characters")
    if len(text) > MAX_LABEL:
        raise ValueError(f"the name has {len(text)} characters: write at most {MAX_LABEL}")
    return text


MAX_LABEL = 253
"""The longest name of a host (RFC 1035)."""


def _path(text: str) -> str:
    """Return an absolute path: the working directory of a service is undefined."""
    if not text.startswith("/") or not text.isprintable():
        raise ValueError(f"{text!r} is not an absolute path: begin it with /")
    return text


def _from(least_s: float, why: str, example: str) -> Callable[[Any], float]:
    """Return a function that parses a duration of at least `least_s`."""

    def read(text: str) -> float:
        seconds = parse_duration(text)
        if not least_s <= seconds <= MOST_S:
            what = "too short" if seconds < least_s else "too long"
            raise ValueError(
                f"{text!r} is {what} ({why}): write {format_duration(least_s)} to {format_duration(MOST_S)}"
            )
        return seconds

    return _measure(read, "duration", example)


def parse_url(text: str) -> str:
    """Return a server's URL without a trailing slash. Raises ValueError, also for a URL with a secret."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not text.isprintable():
        raise ValueError("write a URL such as http://127.0.0.1:8086")
    if parts.username is not None or parts.password is not None:
        raise ValueError("put the secret in token_file, not in the URL")
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError("write the URL without a query; bucket and org are separate keys")
    for path in _API_PATHS:
        if (base := text.rstrip("/").removesuffix(path)) != text.rstrip("/"):
            raise ValueError(f"write the server's URL without {path}, which ntpaudit adds: {base}")
    return text.rstrip("/")


_API_PATHS = (
    "/api/v2/write",
    "/api/v2/query",
    "/api/v2",
    "/api/v1/write",
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/import",
    "/api/v1/export",
    "/api/v1",
    "/write",
    "/query",
    "/federate",
)
"""API paths of the databases, which a copied URL may end with; longer ones first."""


def _language(text: str) -> Language:
    """Return a query language of a fleet's database."""
    for language in LANGUAGES:
        if text == language:
            return language
    raise ValueError(f"{text!r}: write {' or '.join(LANGUAGES)}")


def parse_positive_span(text: str) -> float:
    """Read a duration above 0. Raises ValueError."""
    if not 0 < (seconds := parse_duration(text)) <= MOST_S:
        raise ValueError(f"{text!r}: write a duration above 0, at most {format_duration(MOST_S)}")
    return seconds


def _syslog(text: str) -> str:
    """Return a syslog address: a path such as /dev/log, or HOST:PORT for UDP."""
    if text.startswith("/"):
        return _path(text)
    parse_source(text)
    return text


class _OutputTable(NamedTuple):
    """An output's settings, and how each of its keys is read."""

    settings: type
    keys: _Keys


_OUTPUTS: Mapping[str, _OutputTable] = {
    "openmetrics": _OutputTable(OpenMetricsConfig, {"path": _by(_path)}),
    "jsonl": _OutputTable(JsonlConfig, {"path": _by(_path)}),
    "syslog": _OutputTable(SyslogConfig, {"address": _by(_syslog)}),
    "journal": _OutputTable(JournalConfig, {"enabled": _flag}),
}
"""Every output but the database, by the name of its table. Each is a field of OutputsConfig."""
_TABLES: Mapping[str, _Keys] = {
    "host": {"name": _by(_label), "site": _by(_label), "env": _by(_label), "max_drift_ppm": _ppm},
    "sources": {"servers": _servers, "pool": _by(pool), "region": _by(region), "from_host": _flag},
    "schedule": {
        "network": _from(1.0, "a poll takes time", "5m"),
        "pool": _from(POOL_INTERVAL_S, "the pool's terms of service", "1h"),  # P2: a hard error
        "local": _from(1.0, "a local audit takes time", "1m"),
    },
    "policy": {
        "profile": _text,
        "warning": _measure(parse_duration, "duration", "100ms"),
        "critical": _measure(parse_duration, "duration", "1s"),
    },
    "history": {
        "path": _by(_path),
        "raw": _from(3600.0, "retention of records", "90d"),
        "rollups": _from(DAY_S, "retention of hourly rollups", "400d"),
        "findings": _from(DAY_S, "retention of findings", "7y"),
        "max_size": _measure(parse_size, "size", "1GiB"),
    },
    "influxdb": {
        "url": _by(parse_url),
        "org": _by(_label),
        "bucket": _by(_label),
        "token_file": _by(_path),
        "ca_file": _by(_path),
        "timeout": _from(0.1, "a reply takes time", "10s"),
    },
    **{name: output.keys for name, output in _OUTPUTS.items()},
    "fleet": {
        "url": _by(parse_url),
        "language": _by(_language),
        "database": _by(_label),
        "token_file": _by(_path),
        "ca_file": _by(_path),
        "timeout": _from(0.1, "a reply takes time", "10s"),
        "silent_after": _from(1.0, "hosts report at intervals", "10m"),
        "ambiguity": _measure(parse_positive_span, "duration", "1s"),
        "inventory": _by(_path),
        "env": _by(_label),
    },
}
"""Every table with its keys and their parsers, which raise ValueError with what to write instead."""
TABLES: Mapping[str, Sequence[str]] = {table: tuple(keys) for table, keys in _TABLES.items()}
"""Every table with the names of its keys."""


def _read_table(name: str, table: Mapping[str, Any], keys: _Keys) -> dict[str, Any]:
    _refuse_unknown(table, keys, f"{name}.")
    read = {}
    for key, value in table.items():
        try:
            read[key] = keys[key](value)
        except ValueError as error:
            raise ConfigError(f"{name}.{key}: {error}", f"{name}.{key}") from error
    return read


def _kept(table: Mapping[str, Any], *names: str, **renamed: str) -> dict[str, Any]:
    """Return the entries `names`, and those of `renamed` under their new names."""
    wanted = {name: name for name in names} | renamed
    return {wanted[key]: value for key, value in table.items() if key in wanted}


def _refuse_unknown(table: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> None:
    """Raise ConfigError for the first unknown key, with the nearest known one."""
    for key in table:
        if key not in known:
            text = f"{prefix}{key}: unknown{_nearest(key, known)}; known here: {', '.join(known)}"
            raise ConfigError(text, f"{prefix}{key}")


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    """Suggest the nearest known word."""
    import difflib

    near = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean {near[0]!r}?" if near else ""

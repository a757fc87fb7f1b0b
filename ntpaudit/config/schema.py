"""TOML to a frozen Config; all defaults; every error names its key."""

import math
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, MAX_KERNEL_PPM
from ntpaudit.core.fleet.model import FleetPolicy
from ntpaudit.core.ntp.rate_limit import POOL_INTERVAL_S, SERVER_INTERVAL_S
from ntpaudit.core.ntp.sources import Server, Source, is_loopback, parse_source, pool, region
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES, Profile
from ntpaudit.core.units import MAX_DIGITS, brief, format_duration, parse_duration, parse_size
from ntpaudit.errors import ConfigError
from ntpaudit.files import open_regular

SYSTEM_FILE = "/etc/ntpaudit/ntpaudit.toml"
SYSTEM_TOKEN_FILE = "/etc/ntpaudit/token"  # noqa: S105 - where a token is, not one
"""The token of SYSTEM_FILE's database, where that names no other; systemd hands it to the services as a credential."""
TOKEN_CREDENTIAL = "influxdb-token"  # noqa: S105 - the name of a credential, not one
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


class FleetDatabase(NamedTuple):
    """The database of a fleet, with the credentials to read it."""

    url: str
    language: Language
    database: str
    token: str | None
    ca_file: str | None
    timeout_s: float
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


def find_config(environment: Mapping[str, str]) -> str | None:
    """Return the user's own configuration file, else the system's, else None."""
    candidates = (user_file(environment), SYSTEM_FILE)
    return next((path for path in candidates if os.path.exists(path)), None)


def user_file(environment: Mapping[str, str]) -> str:
    """Return the path of the user's own configuration file, which may not exist."""
    base = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    return f"{base}/ntpaudit/ntpaudit.toml"


def load_config(path: str) -> Config:
    """Read a configuration file. Raises ConfigError with the file, the line, the key and what to write instead."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        fix = f"; `ntpaudit config init --output {path}` writes one" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{path}: {error.strerror}{fix}") from error
    config = parse_config(text, path)._replace(sha256=_sha256(text))
    if config.influxdb is not None and os.path.abspath(path) == SYSTEM_FILE:
        config = config._replace(influxdb=config.influxdb._replace(default_token_file=SYSTEM_TOKEN_FILE))
    return config


def load_tables(path: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the tables of a configuration file that `load_config` accepts."""
    import tomllib

    with open(path, encoding="utf-8-sig") as file:
        return tomllib.loads(file.read())


def _sha256(text: bytes) -> str:
    """Return the SHA-256 of a text, in hex.

    hashlib loads OpenSSL, 3 MiB of an agent that must stay below 26 MiB; Python's `random` avoids it the same way.
    """
    from importlib import import_module

    for name in ("_sha2", "_sha256", "hashlib"):  # of Python 3.12 and later, of 3.11, of any
        with suppress(ImportError):
            return str(import_module(name).sha256(text).hexdigest())
    raise AssertionError("hashlib is always there")


def parse_config(text: bytes, path: str) -> Config:
    """Read the text of a configuration file, `path` in messages. Raises ConfigError as `load_config`."""
    import tomllib

    try:
        written = text.decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not TOML: byte {error.start} is not UTF-8: save the file as UTF-8") from error
    try:
        tables = tomllib.loads(written)
    except (ValueError, RecursionError) as error:  # invalid TOML, or nested too deep
        # Python's own message about too many digits is about a setting of Python
        reason = "a number has too many digits" if "digits" in str(error) else error
        raise ConfigError(f"{path}: not TOML: {reason}") from error
    try:
        return read_config(tables)
    except ConfigError as error:
        raise ConfigError(f"{path}:{_line_of(error.key, written)}: {error}", error.key) from error


def locate(error: ConfigError, path: str) -> ConfigError:
    """Return an error about a key with the file and the line of that key, unless it names them already."""
    if error.key is None or str(error).startswith(f"{path}:"):
        return error
    with open(path, encoding="utf-8") as file:
        return ConfigError(f"{path}:{_line_of(error.key, file.read())}: {error}", error.key)


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


def with_environment(config: Config, environment: Mapping[str, str]) -> Config:
    """Return the configuration with InfluxDB's variables (INFLUXDB_V2_*) for what the file does not set.

    Raises ConfigError if they disable the verification of TLS, or are invalid.
    """
    given = {key: environment.get(f"INFLUXDB_V2_{key}") for key in ("URL", "ORG", "BUCKET", "SSL_CA_CERT", "TIMEOUT")}
    if environment.get("INFLUXDB_V2_VERIFY_SSL", "").lower() in ("0", "false", "no", "off"):
        raise ConfigError(
            "INFLUXDB_V2_VERIFY_SSL: certificates are always verified; give the CA file in INFLUXDB_V2_SSL_CA_CERT"
        )
    base = config.influxdb
    if base is None:
        if not given["URL"]:
            return config
        base = InfluxConfig(_environment_url(given["URL"]))
    filled = base._replace(
        org=base.org or given["ORG"] or "",
        bucket=base.bucket if config.influxdb else given["BUCKET"] or base.bucket,
        ca_file=base.ca_file or given["SSL_CA_CERT"],
        timeout_s=base.timeout_s if config.influxdb else _milliseconds(given["TIMEOUT"], base.timeout_s),
    )
    return config._replace(influxdb=filled)


class Token(NamedTuple):
    """The database's token, None if there is none, and its origin."""

    text: str | None
    origin: str


def find_token(influxdb: InfluxConfig, environment: Mapping[str, str]) -> Token:
    """Find the database's token: `token_file`, else systemd's credential, else the default file, else the environment.

    An empty credential or default file has no token: the units pass an empty one if there is no file. A file that this
    user may not read is skipped if there is a credential, which systemd made from it.
    Raises ConfigError if a file is unreadable, has no token, or can be read by others. No message contains the token.
    """
    folder = environment.get("CREDENTIALS_DIRECTORY")
    credential = os.path.join(folder, TOKEN_CREDENTIAL) if folder else ""
    has_credential = not _is_blank(credential)
    named, default = influxdb.token_file, influxdb.default_token_file or ""
    if named is not None and (os.access(named, os.R_OK) or not has_credential):
        return Token(_secret(named, "influxdb.token_file", guarded=True), named)
    if not _is_blank(default):
        _refuse_readable_by_others(os.stat(default).st_mode, default, "influxdb")
    if has_credential:  # systemd protects it by an ACL
        return Token(
            _secret(credential, f"credential {TOKEN_CREDENTIAL}", guarded=False), f"credential {TOKEN_CREDENTIAL}"
        )
    if not _is_blank(default) and os.access(default, os.R_OK):
        return Token(_secret(default, "influxdb", guarded=True), default)
    if (token := _environment_token(environment)) is not None:
        return Token(token, "INFLUXDB_V2_TOKEN")
    return Token(None, f"this user may not read {default}" if not _is_blank(default) else "")


def _environment_token(environment: Mapping[str, str]) -> str | None:
    """Return the token of the environment, under the same rules as that of a file."""
    token = environment.get("INFLUXDB_V2_TOKEN", "").strip()
    if token and (fault := _fault_of_token(token.encode(errors="surrogateescape"))) is not None:
        raise ConfigError(f"INFLUXDB_V2_TOKEN {fault}")
    return token or None


def _is_blank(path: str) -> bool:
    """Return whether the file does not exist or is empty but for a line end."""
    try:
        found = os.stat(path)
    except OSError:
        return True
    return stat.S_ISREG(found.st_mode) and found.st_size <= 1


def read_token(influxdb: InfluxConfig, environment: Mapping[str, str]) -> str | None:
    """Return the text of the token of `find_token`."""
    return find_token(influxdb, environment).text


class Inventory(NamedTuple):
    """The hosts that must report, in order, and their sites as far as given."""

    names: tuple[str, ...]
    sites: Mapping[str, str]


def read_inventory(path: str) -> Inventory:
    """Read a file with the hosts that must report; `-` is standard input. Raises ConfigError.

    One host per line: a name, or a name, a comma and its site. Blank lines, text after # and a byte order mark are
    ignored. A name may be repeated, but not with another site.
    """
    try:
        with open(0 if path == "-" else path, encoding="utf-8-sig", closefd=path != "-") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise ConfigError(f"fleet.inventory: {path}: {error.strerror}", "fleet.inventory") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"fleet.inventory: {path} is not UTF-8 text", "fleet.inventory") from error
    sites: dict[str, str] = {}
    placed: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if written := line.partition("#")[0].strip():
            name, *places = (word.strip() for word in written.split(","))
            if not name or not written.isprintable() or len(places) > 1:
                text = f"fleet.inventory: {path}:{number}: write a host's name, or its name, a comma and its site"
                raise ConfigError(text, "fleet.inventory")
            if (fault := _other_format(name, is_first=not sites)) is not None:
                raise ConfigError(f"fleet.inventory: {path}:{number}: {fault}", "fleet.inventory")
            place = places[0] if places else ""
            if place and sites.get(name, "") not in ("", place):
                text = f"{name} has site {place} here and {sites[name]} in line {placed[name]}: keep one of them"
                raise ConfigError(f"fleet.inventory: {path}:{number}: {text}", "fleet.inventory")
            if place:
                placed.setdefault(name, number)
            sites[name] = place or sites.get(name, "")
    if not sites:
        raise ConfigError(f"fleet.inventory: {path} names no host", "fleet.inventory")
    return Inventory(tuple(sites), {name: site for name, site in sites.items() if site})


_HEADERS = ("fqdn", "host", "host.name", "host_name", "hostname", "name")


def _other_format(name: str, *, is_first: bool) -> str | None:
    """Return the fault and fix of a line in another format, None for the name of a host."""
    if any(character in name for character in "[]="):
        return (
            "a line of an Ansible inventory, not a host's name: list its hosts with "
            "`ansible all --list-hosts | tail -n +2 | tr -d ' '`"
        )
    if ";" in name:
        return "a semicolon instead of a comma between a host and its site: fix it with `tr ';' ','`"
    if is_first and name.lower() in _HEADERS:
        return f"{name!r} is a table's header: remove it (`tail -n +2`), or move a host of that name to a later line"
    return None


def fleet_database(
    config: Config,
    environment: Mapping[str, str],
    url: str | None = None,
    language: Language | None = None,
    database: str | None = None,
    env: str | None = None,
) -> FleetDatabase:
    """Return the database of the fleet, by a configuration from `with_environment` or by the arguments.

    A token and a CA file are used only for the URL that they belong to: those of `[fleet]` for its own URL (by default
    that of `[influxdb]`), those of `[influxdb]` for its own, and the environment's token for INFLUXDB_V2_URL, else the
    URL of the file, else `url`. Raises ConfigError if no database is named, or if its token cannot be read.
    """
    fleet, influxdb = config.fleet, config.influxdb
    home = fleet.url or (influxdb.url if influxdb is not None else None)
    place = url or home
    if place is None:
        raise ConfigError(
            "fleet.url: no database is named: set url under [fleet] or [influxdb], or use --url; "
            "`ntpaudit demo`, then `ntpaudit fleet --demo`, show a simulated fleet",
            "fleet.url",
        )
    own = influxdb if influxdb is not None and influxdb.url == place else None
    return FleetDatabase(
        url=place,
        language=language or fleet.language,
        database=database or fleet.database or (own.bucket if own is not None else InfluxConfig("").bucket),
        token=_fleet_token(config, environment, place, home),
        ca_file=(fleet.ca_file if place == home else None) or (own.ca_file if own is not None else None),
        timeout_s=fleet.timeout_s,
        env=env or fleet.env,
    )


def _fleet_token(config: Config, environment: Mapping[str, str], place: str, home: str | None) -> str | None:
    """Return the token for the URL `place`; `home` is the configured URL of the fleet."""
    fleet, influxdb = config.fleet, config.influxdb
    if fleet.token_file is not None and place == home:
        return _secret(fleet.token_file, "fleet.token_file", guarded=True)
    claimed = environment.get("INFLUXDB_V2_URL", "").rstrip("/")
    owner = claimed or (influxdb.url if influxdb is not None else None) or fleet.url or place
    if owner != place:
        environment = {name: value for name, value in environment.items() if name != "INFLUXDB_V2_TOKEN"}
    if influxdb is not None and influxdb.url == place:
        return read_token(influxdb, environment)
    return _environment_token(environment)


_LONGEST_TOKEN = 4096
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def _secret(path: str, key: str, *, guarded: bool) -> str:
    """Read a secret, one line of printable ASCII; if `guarded`, only its owner may have access."""
    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
            if guarded:
                _refuse_readable_by_others(os.fstat(file.fileno()).st_mode, path, key)
            content = file.read(_LONGEST_TOKEN + 2)
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}", key) from error
    if (fault := _fault_of_token(content)) is not None:
        raise ConfigError(f"{key}: {path} {fault}", key)
    return content.strip().decode("ascii")


def _refuse_readable_by_others(mode: int, path: str, key: str) -> None:
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"{key}: {path} can be read by others: chmod 600 {path}", key)


def _fault_of_token(content: bytes) -> str | None:
    """Return why the content of a file is no token, None if it is one."""
    token = content.strip()
    if content.startswith(_BYTE_ORDER_MARKS):
        return "begins with a byte order mark: save it as plain ASCII text"
    if not token:
        return "is empty"
    if len(content) > _LONGEST_TOKEN:
        return f"has more than {_LONGEST_TOKEN} bytes: a token is one line"
    if len(lines := token.splitlines()) > 1:
        return f"has {len(lines)} lines: a token is one line"
    if not all(0x20 <= byte <= 0x7E for byte in token):
        return "has a control character or a non-ASCII character: no token has one"
    return None


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


def _environment_url(text: str) -> str:
    """Read INFLUXDB_V2_URL."""
    try:
        return parse_url(text)
    except ValueError as error:
        raise ConfigError(f"INFLUXDB_V2_URL: {error}") from error


def _milliseconds(text: str | None, default_s: float) -> float:
    """Read INFLUXDB_V2_TIMEOUT, which is in milliseconds."""
    if not text:
        return default_s
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS and 0 < int(text) <= 600_000):
        raise ConfigError(f"INFLUXDB_V2_TIMEOUT: {brief(text)} is not a number of milliseconds from 1 to 600000")
    return int(text) / 1000


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


def _line_of(key: str | None, text: str) -> int:
    """Return the line number of a key, else of its table; tomllib reports no lines."""
    table, _, name = (key or "").rpartition(".")
    inside, found = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].strip()
        if words.startswith("["):
            inside = words.strip("[]").strip().strip("\"'")
        written = words.partition("=")[0].strip().strip("\"'") if "=" in words else None
        if (inside, written) == (table, name) or (not inside and written == key):
            return number
        if inside in (table, name) and words.startswith("["):
            found = number
    return found

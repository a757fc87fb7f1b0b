"""A configuration as text: a commented file to start from, and the effective values without secrets."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from ntpaudit.config.schema import TABLES, Config, InfluxConfig, read_config
from ntpaudit.config.secrets import find_token
from ntpaudit.core.ntp.sources import POOL_DOMAIN, Pool, Source
from ntpaudit.core.policy import PROFILES
from ntpaudit.core.units import parse_duration
from ntpaudit.errors import ConfigError
from ntpaudit.render.text_safety import one_line
from ntpaudit.store.paths import FILE_NAME, state_folder

Tables = Mapping[str, Mapping[str, Any]]
"""The tables of a configuration file: keys with strings, lists of strings and booleans."""

HEADER = """\
# Configuration of ntpaudit. A line without # sets a value; a line with # shows the default, or an example.
# After a change: ntpaudit config check, then systemctl reload ntpaudit (without systemd: send SIGHUP to the agent).
# Durations: 100ms 64s 30m 12h 90d 7y. Sizes: 512MiB 1GiB.
"""


class _Key(NamedTuple):
    """A key: its meaning, and an example if it has no default."""

    meaning: str
    example: Any = None


_KEYS: Mapping[str, Mapping[str, _Key]] = {
    "host": {
        "name": _Key("name of this host in records; default: its host name", "web1"),
        "site": _Key("site, such as a data centre; a tag of its points", "ams"),
        "env": _Key("environment; a tag of its points", "prod"),
        "max_drift_ppm": _Key("maximum oscillator error; the kernel's correction + 15 ppm is used if that is more"),
    },
    "sources": {
        "servers": _Key(
            "NTP servers: HOST, HOST:PORT or [IPV6]:PORT; at least 4, so that the others outvote one that is wrong",
            ["ntp1.example.net", "192.0.2.1:1123", "[2001:db8::1]:123"],
        ),
        "pool": _Key(
            "a zone of the NTP pool, or your own name with several addresses: 4 of them are queried", "ntp.example.net"
        ),
        "region": _Key("the pool of a continent or country, by name or two-letter code", "nl"),
        "from_host": _Key("also query the servers that the running time daemon was started with"),
    },
    "schedule": {
        "network": _Key("poll interval of servers; at least 15s, or 1s if all are loopback"),
        "pool": _Key("poll interval of the NTP pool; at least 30m, by the pool's terms"),
        "local": _Key("interval of local audits: offset carried forward, kernel state, steps; no query is sent"),
    },
    "policy": {
        "profile": _Key("named tolerances; docs/configuration.md lists the profiles"),
        "warning": _Key("warning tolerance; default: that of the profile"),
        "critical": _Key("critical tolerance, which the verdict refers to; default: that of the profile"),
    },
    "history": {
        "path": _Key(
            "file with the records; default: history.sqlite3 in the state folder", "/var/lib/ntpaudit/history.sqlite3"
        ),
        "raw": _Key("retention of single records"),
        "rollups": _Key("retention of the extremes of each hour"),
        "findings": _Key("retention of findings and clock steps"),
        "max_size": _Key("maximum size of the history; the oldest delivered records are deleted first"),
    },
    "influxdb": {
        "url": _Key(
            "InfluxDB, or a database with its write protocol; without it nothing is delivered",
            "http://127.0.0.1:8086",
        ),
        "org": _Key("organisation, if the server has organisations", "soc"),
        "bucket": _Key("bucket or database"),
        "token_file": _Key(
            "file with the token, mode 0600; default: systemd's credential influxdb-token, else /etc/ntpaudit/token, "
            "else INFLUXDB_V2_TOKEN",
            "/etc/ntpaudit/token",
        ),
        "ca_file": _Key("certificates to trust instead of the system's", "/etc/ssl/site-ca.pem"),
        "timeout": _Key("how long an answer may take"),
    },
    "openmetrics": {
        "path": _Key("write gauges for the textfile collector of node_exporter", "/var/lib/node_exporter/ntpaudit.prom")
    },
    "jsonl": {"path": _Key("append every record to this file as one line of JSON", "/var/log/ntpaudit/records.jsonl")},
    "syslog": {"address": _Key("send events as RFC 5424 messages to this socket, or to UDP HOST:PORT", "/dev/log")},
    "journal": {"enabled": _Key("write events to systemd's journal; default: if it receives the agent's output", True)},
    "fleet": {
        "url": _Key("database that `ntpaudit fleet` reads; default: that of [influxdb]", "http://127.0.0.1:8086"),
        "language": _Key("influxql for InfluxDB, promql for VictoriaMetrics"),
        "database": _Key("database or bucket; default: that of [influxdb]", "ntpaudit"),
        "token_file": _Key(
            "file with the read token, sent only to this url, mode 0600; default: that of [influxdb] if the url is "
            "the same",
            "/etc/ntpaudit/read-token",
        ),
        "ca_file": _Key("certificates to trust instead of the system's", "/etc/ssl/site-ca.pem"),
        "timeout": _Key("how long an answer may take"),
        "silent_after": _Key("a host is silent after this time without a point"),
        "ambiguity": _Key("events on hosts of one site must be orderable if further apart than this"),
        "inventory": _Key("file with the hosts that must report, one per line", "/etc/ntpaudit/inventory"),
        "env": _Key("read only the hosts of this environment", "prod"),
    },
}


def write_file(given: Tables, why: str = "") -> str:
    """Write a complete file with the `given` values, all other keys commented out; `why` comments the sources.

    Raises ConfigError for invalid values.
    """
    config = read_config(given)
    shown = tables_of(config._replace(influxdb=config.influxdb or InfluxConfig("")))
    lines = [HEADER]
    for table, keys in _KEYS.items():
        lines.append(f"[{table}]")
        if table == "sources":
            lines += [f"# {line}" for line in why.splitlines()]
        for name, key in keys.items():
            chosen = given.get(table, {}).get(name)
            default = key.example if shown[table][name] in (None, "", []) else shown[table][name]
            line = f"{name} = {_literal(default if chosen is None else chosen)}"
            lines += [f"# {key.meaning}", line if chosen is not None else f"# {line}"]
        lines.append("")
    return "\n".join(lines)


def show_toml(config: Config, environment: Mapping[str, str], written: Tables) -> str:
    """Write the effective configuration as a file, each value with its origin, without secrets.

    `written` has the tables of the configuration file: any other value is from the environment, or a default.
    """
    lines = []
    for table, values in tables_of(config).items():
        if not values:
            lines += [f"# [{table}]: not set, no database is used", ""]
            continue
        lines.append(f"[{table}]")
        for name, value in values.items():
            if value in (None, []):
                lines.append(f"# {name}: {_unset(table, name, config, environment)}")
            else:
                lines.append(f"{name} = {_literal(value)}  # {_origin(table, name, config, written)}")
        if table == "influxdb" and config.influxdb is not None:
            lines.append(f"# token: {describe_token(config.influxdb, environment)}")
        lines.append("")
    return "\n".join(lines)


_SYSTEM_CERTIFICATES = "the system's certificates"
_VARIABLES = {"url": "URL", "org": "ORG", "bucket": "BUCKET", "ca_file": "SSL_CA_CERT", "timeout": "TIMEOUT"}


def _origin(table: str, name: str, config: Config, written: Tables) -> str:
    """Return the origin of a value."""
    is_other = tables_of(config)[table][name] != tables_of(Config(influxdb=InfluxConfig("")))[table][name]
    if name in written.get(table, {}):
        return "file"
    if table == "policy" and name != "profile":
        own = getattr(PROFILES[config.profile.name], f"{name}_s")
        return f"profile {config.profile.name}" if getattr(config.profile, f"{name}_s") == own else "as critical"
    if table == "influxdb" and is_other:
        return f"environment: INFLUXDB_V2_{_VARIABLES[name]}"
    return "file" if is_other else "default"  # a region in the file is shown as a pool


def _unset(table: str, name: str, config: Config, environment: Mapping[str, str]) -> str:
    """Describe the effective value of a key that is not set."""
    influxdb, fleet = config.influxdb, config.fleet
    own = influxdb if influxdb is not None and fleet.url in (None, influxdb.url) else None
    match table, name:
        case "host", "name":
            from ntpaudit.probes.host import host_facts

            return f"{one_line(host_facts().name)} (default: the name of this host)"
        case "history", "path":
            path = os.path.join(state_folder(environment), FILE_NAME)
            return f"{one_line(path)} (default for an agent started by this user)"
        case "journal", "enabled":
            return "true if systemd's journal takes the agent's output, else false (default)"
        case "fleet", "url" | "database" | "ca_file" if own is not None:
            values = {"url": own.url, "database": own.bucket, "ca_file": own.ca_file or _SYSTEM_CERTIFICATES}
            return f"{values[name]} (default: that of [influxdb])"
        case "fleet", "token_file" if own is not None:
            return "that of [influxdb] (default)"
        case "fleet", "database":
            return f"{InfluxConfig('').bucket} (default)"
        case "influxdb" | "fleet", "ca_file":
            return f"{_SYSTEM_CERTIFICATES} (default)"
        case "fleet", "env":
            return "every environment (default)"
    return "none"


def show_json(config: Config, environment: Mapping[str, str]) -> str:
    """Write the effective configuration as one JSON object, without secrets."""
    tables: dict[str, Any] = {table: dict(values) or None for table, values in tables_of(config).items()}
    if config.influxdb is not None:
        tables["influxdb"]["token"] = describe_token(config.influxdb, environment)
    return json.dumps(tables, indent=2) + "\n"


def describe_token(influxdb: InfluxConfig, environment: Mapping[str, str]) -> str:
    """Describe whether a token is set, and its origin; never the token itself."""
    try:
        token = find_token(influxdb, environment)
    except ConfigError as error:
        return f"not usable: {error}"
    if token.text is None:
        return f"not set ({token.origin})" if token.origin else "not set"
    return f"set (from {token.origin})"


def tables_of(config: Config) -> dict[str, dict[str, Any]]:
    """Return a configuration as the tables of a file; None for values that are not set."""
    schedule, policy, history, influxdb, outputs, fleet = config[2:8]
    return {
        "host": config.host._asdict(),
        "sources": {
            "servers": [_written(source) for source in config.sources.servers],
            **_pools(config.sources.pools),
            "from_host": config.sources.from_host,
        },
        "schedule": {
            "network": write_span(schedule.network_s),
            "pool": write_span(schedule.pool_s),
            "local": write_span(schedule.local_s),
        },
        "policy": {
            "profile": policy.name,
            "warning": write_span(policy.warning_s),
            "critical": write_span(policy.critical_s),
        },
        "history": {
            "path": history.path,
            "raw": write_span(history.raw_s),
            "rollups": write_span(history.rollups_s),
            "findings": write_span(history.findings_s),
            "max_size": _size(history.max_bytes),
        },
        "influxdb": {} if influxdb is None else _influxdb(influxdb),
        **{
            name: {key: getattr(settings, key, None) for key in TABLES[name]}
            for name, settings in outputs._asdict().items()
        },
        "fleet": {
            "url": fleet.url,
            "language": fleet.language,
            "database": fleet.database,
            "token_file": fleet.token_file,
            "ca_file": fleet.ca_file,
            "timeout": write_span(fleet.timeout_s),
            "silent_after": write_span(fleet.silent_after_s),
            "ambiguity": write_span(fleet.ambiguity_s),
            "inventory": fleet.inventory,
            "env": fleet.env,
        },
    }


def _influxdb(influxdb: InfluxConfig) -> dict[str, Any]:
    return {
        "url": influxdb.url,
        "org": influxdb.org or None,
        "bucket": influxdb.bucket,
        "token_file": influxdb.token_file,
        "ca_file": influxdb.ca_file,
        "timeout": write_span(influxdb.timeout_s),
    }


def _written(source: Source) -> str:
    """Return the text of a source in a file."""
    return source.zone if isinstance(source, Pool) else source.name


def _pools(pools: tuple[Source, ...]) -> dict[str, str | None]:
    """Return the keys of the pools: a region has a continent as its fallback, or comes second."""
    named: dict[str, str | None] = {"pool": None, "region": None}
    for source in pools:
        zone = _written(source)
        if named["pool"] is not None or (isinstance(source, Pool) and source.fallback is not None):
            named["region"] = zone.removesuffix(f".{POOL_DOMAIN}")
        else:
            named["pool"] = zone
    return named


_SUFFIXES = ("y", "d", "h", "m", "s", "ms", "us", "ns")


def write_span(seconds: float) -> str:
    """Write a duration for a configuration file, so that reading it back gives the same number."""
    for suffix in _SUFFIXES:
        count = round(seconds / parse_duration(f"1{suffix}"))
        if 0 < count < 10_000 and parse_duration(text := f"{count}{suffix}") == seconds:
            return text
    from decimal import Decimal

    return f"{Decimal(repr(seconds)):f}s"


def _size(octets: int) -> str:
    """Write a size in the largest unit that divides it."""
    units = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
    unit, scale = next((entry for entry in units if octets % entry[1] == 0), ("B", 1))
    return f"{octets // scale}{unit}"


def _literal(value: Any) -> str:
    """Write a value as TOML: the JSON form of a string is valid TOML if it has no control characters."""
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value, ensure_ascii=False)

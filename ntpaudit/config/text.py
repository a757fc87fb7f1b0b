"""A configuration as text: the commented file that an operator begins with, and the effective one, without secrets."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from ntpaudit.config.schema import TABLES, Config, InfluxConfig, find_token, read_config
from ntpaudit.core.ntp.sources import POOL_DOMAIN, Pool, Source
from ntpaudit.core.policy import PROFILES
from ntpaudit.core.units import parse_duration
from ntpaudit.errors import ConfigError
from ntpaudit.render.text_safety import one_line
from ntpaudit.store.paths import FILE_NAME, state_folder

Tables = Mapping[str, Mapping[str, Any]]
"""A configuration as its file has it: tables of keys with texts, lists of texts and truth values."""

HEADER = """\
# The configuration of ntpaudit. A line without a leading # is a choice; one with it shows the default, or an example.
# After a change: ntpaudit config check, then systemctl reload ntpaudit (without systemd: send SIGHUP to the agent).
# Durations: 100ms 64s 30m 12h 90d 7y. Sizes: 512MiB 1GiB.
"""


class _Key(NamedTuple):
    """A key: what it means, and an example for one that has no default."""

    meaning: str
    example: Any = None


_KEYS: Mapping[str, Mapping[str, _Key]] = {
    "host": {
        "name": _Key("what records call this host; default: its host name", "web1"),
        "site": _Key("where it stands, such as a data centre; a tag of its points", "ams"),
        "env": _Key("what it is for; a tag of its points", "prod"),
        "max_drift_ppm": _Key("its oscillator is off by no more than this, or than the kernel's correction + 15 ppm"),
    },
    "sources": {
        "servers": _Key(
            "NTP servers: HOST, HOST:PORT or [IPV6]:PORT; at least 4, so that one that is wrong is outvoted",
            ["ntp1.example.net", "192.0.2.1:1123", "[2001:db8::1]:123"],
        ),
        "pool": _Key(
            "a zone of the NTP pool, or a name of your own with many addresses: 4 of them are asked", "ntp.example.net"
        ),
        "region": _Key("the pool of a continent or of a country, by name or by two letters", "nl"),
        "from_host": _Key("ask also the servers that this host's running time daemon was started with"),
    },
    "schedule": {
        "network": _Key("how often servers are asked; 15s at least, 1s where all are loopback"),
        "pool": _Key("how often servers of the NTP pool are asked; 30m at least, by the pool's terms"),
        "local": _Key("how often this host alone is looked at: the offset carried on, kernel, steps; costs no packet"),
    },
    "policy": {
        "profile": _Key("the tolerances to judge by: docs/configuration.md lists the profiles"),
        "warning": _Key("warn beyond this error; default: the profile's"),
        "critical": _Key("the tolerance of the verdict; default: the profile's"),
    },
    "history": {
        "path": _Key(
            "where records are kept; default: history.sqlite3 in the state folder", "/var/lib/ntpaudit/history.sqlite3"
        ),
        "raw": _Key("how long every record is kept"),
        "rollups": _Key("how long the extremes of each hour are kept"),
        "findings": _Key("how long findings and steps of the clock are kept"),
        "max_size": _Key("how large the history may become; then the oldest delivered records go first"),
    },
    "influxdb": {
        "url": _Key(
            "the InfluxDB to deliver to, or what speaks its protocol; without it nothing is delivered",
            "http://127.0.0.1:8086",
        ),
        "org": _Key("the organisation, for servers that have them", "soc"),
        "bucket": _Key("the bucket, or the database"),
        "token_file": _Key(
            "a file with the token, mode 0600; default: systemd's credential influxdb-token, else /etc/ntpaudit/token, "
            "else INFLUXDB_V2_TOKEN",
            "/etc/ntpaudit/token",
        ),
        "ca_file": _Key("certificates to trust instead of the system's", "/etc/ssl/site-ca.pem"),
        "timeout": _Key("how long an answer may take"),
    },
    "openmetrics": {
        "path": _Key("write gauges for node_exporter's textfile collector", "/var/lib/node_exporter/ntpaudit.prom")
    },
    "jsonl": {"path": _Key("append every record to this file as a line of JSON", "/var/log/ntpaudit/records.jsonl")},
    "syslog": {"address": _Key("send events as RFC 5424 messages to this socket, or to HOST:PORT by UDP", "/dev/log")},
    "journal": {"enabled": _Key("write events to systemd's journal; default: where it takes the agent's output", True)},
    "fleet": {
        "url": _Key(
            "where `ntpaudit fleet` reads every host; default: the database of [influxdb]", "http://127.0.0.1:8086"
        ),
        "language": _Key("influxql for InfluxDB, promql for VictoriaMetrics"),
        "database": _Key("the database, or the bucket; default: that of [influxdb]", "ntpaudit"),
        "token_file": _Key(
            "a file with a token to read with, sent to this url alone, mode 0600; default: that of [influxdb] where it "
            "is the same url",
            "/etc/ntpaudit/read-token",
        ),
        "ca_file": _Key("certificates to trust instead of the system's", "/etc/ssl/site-ca.pem"),
        "timeout": _Key("how long an answer may take"),
        "silent_after": _Key("a host without a point for so long is silent"),
        "ambiguity": _Key("events further apart than this must be orderable on the hosts of a site"),
        "inventory": _Key("a file that names the hosts that should report, one a line", "/etc/ntpaudit/inventory"),
        "env": _Key("read the hosts of this environment alone, of those in the database", "prod"),
    },
}


def write_file(given: Tables, why: str = "") -> str:
    """Write a whole file with the choices given, every other key commented out; `why` is a comment on its sources.

    ConfigError where the choices are none that a configuration can have.
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
    """Write what is in force as a file would have it, each value with its origin; no secret is in it.

    `written` has the tables of the configuration file: a value that it lacks is the environment's or a default.
    """
    lines = []
    for table, values in tables_of(config).items():
        if not values:
            lines += [f"# [{table}]: not set: no database is used", ""]
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
    """Name what a value is from."""
    is_other = tables_of(config)[table][name] != tables_of(Config(influxdb=InfluxConfig("")))[table][name]
    if name in written.get(table, {}):
        return "file"
    if table == "policy" and name != "profile":
        own = getattr(PROFILES[config.profile.name], f"{name}_s")
        return f"profile {config.profile.name}" if getattr(config.profile, f"{name}_s") == own else "as critical"
    if table == "influxdb" and is_other:
        return f"environment: INFLUXDB_V2_{_VARIABLES[name]}"
    return "file" if is_other else "default"  # a region of the file is shown as the pool that it is


def _unset(table: str, name: str, config: Config, environment: Mapping[str, str]) -> str:
    """Say what holds for a key that has no value of its own."""
    influxdb, fleet = config.influxdb, config.fleet
    own = influxdb if influxdb is not None and fleet.url in (None, influxdb.url) else None
    match table, name:
        case "host", "name":
            from ntpaudit.probes.host import host_facts

            return f"{one_line(host_facts().name)} (default: the name of this host)"
        case "history", "path":
            path = os.path.join(state_folder(environment), FILE_NAME)
            return f"{one_line(path)} (default for an agent that this user starts)"
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
    """Write what is in force as one JSON object; no secret is in it."""
    tables: dict[str, Any] = {table: dict(values) or None for table, values in tables_of(config).items()}
    if config.influxdb is not None:
        tables["influxdb"]["token"] = describe_token(config.influxdb, environment)
    return json.dumps(tables, indent=2) + "\n"


def describe_token(influxdb: InfluxConfig, environment: Mapping[str, str]) -> str:
    """Say whether there is a token and where it is from, never what it is."""
    try:
        token = find_token(influxdb, environment)
    except ConfigError as error:
        return f"not usable: {error}"
    if token.text is None:
        return f"not set ({token.origin})" if token.origin else "not set"
    return f"set (from {token.origin})"


def tables_of(config: Config) -> dict[str, dict[str, Any]]:
    """Return the tables that a file would need to say all of a configuration; None for what is not set."""
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
    """Return the table of the database."""
    return {
        "url": influxdb.url,
        "org": influxdb.org or None,
        "bucket": influxdb.bucket,
        "token_file": influxdb.token_file,
        "ca_file": influxdb.ca_file,
        "timeout": write_span(influxdb.timeout_s),
    }


def _written(source: Source) -> str:
    """Return how a file names a source."""
    return source.zone if isinstance(source, Pool) else source.name


def _pools(pools: tuple[Source, ...]) -> dict[str, str | None]:
    """Return the keys that name pools: a region has a continent to fall back to, or comes second."""
    named: dict[str, str | None] = {"pool": None, "region": None}
    for source in pools:
        zone = _written(source)
        if named["pool"] is not None or (isinstance(source, Pool) and source.fallback is not None):
            named["region"] = zone.removesuffix(f".{POOL_DOMAIN}")
        else:
            named["pool"] = zone
    return named


_SPANS = ("y", "d", "h", "m", "s", "ms", "us", "ns")


def write_span(seconds: float) -> str:
    """Write a span as a configuration does, so that reading it back gives the very same number."""
    for suffix in _SPANS:
        count = round(seconds / parse_duration(f"1{suffix}"))
        if 0 < count < 10_000 and parse_duration(text := f"{count}{suffix}") == seconds:
            return text
    from decimal import Decimal

    return f"{Decimal(repr(seconds)):f}s"


def _size(octets: int) -> str:
    """Write a size, in the largest unit of which it is a multiple."""
    units = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
    unit, scale = next((entry for entry in units if octets % entry[1] == 0), ("B", 1))
    return f"{octets // scale}{unit}"


def _literal(value: Any) -> str:
    """Write a value as TOML; a text's JSON form is a TOML string too, as long as it has no control characters."""
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value, ensure_ascii=False)

"""Read a configuration file; every error names the file, the line and the key."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ntpaudit.config.location import SYSTEM_FILE, SYSTEM_TOKEN_FILE
from ntpaudit.config.profile import choose_profile
from ntpaudit.config.schema import (
    KEYS,
    OUTPUTS,
    REPEATED,
    REPEATED_KEYS,
    TABLES,
    AcceptConfig,
    Config,
    InfluxConfig,
    Key,
    OutputsConfig,
    SourcesConfig,
)
from ntpaudit.core.ntp.rate_limit import SERVER_INTERVAL_S
from ntpaudit.core.ntp.sources import Pool, Server, is_loopback
from ntpaudit.errors import ConfigError, nearest
from ntpaudit.files import sha256_hex

_Value = TypeVar("_Value")

_TOML_FIXES = {
    "Cannot overwrite a value": "a key is defined twice: remove one of the lines",
    "Invalid value": "invalid value: write a text in quotes",
}
"""What to do about the errors of tomllib whose words do not say it."""


def load_config(path: str) -> Config:
    """Read a configuration file. Raises ConfigError with the file, the line, the key and what to write instead."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        fix = f"; `ntpaudit config init --output {path}` writes one" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{path}: {error.strerror}{fix}") from error
    config = parse_config(text, path)._replace(sha256=sha256_hex(text))
    if config.influxdb is not None and os.path.abspath(path) == SYSTEM_FILE:
        config = config._replace(influxdb=config.influxdb._replace(default_token_file=SYSTEM_TOKEN_FILE))
    return config


def parse_config(text: bytes, path: str) -> Config:
    """Read the text of a configuration file, `path` in messages. Raises ConfigError as `load_config`."""
    return read_toml(text, path, read_config)


def read_toml(text: bytes, path: str, read: Callable[[Mapping[str, Any]], _Value]) -> _Value:
    """Read TOML by a function that takes its tables. Raises ConfigError with the file, and with the line of a key."""
    import tomllib

    try:
        written = text.decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not TOML: byte {error.start} is not UTF-8: save the file as UTF-8") from error
    try:
        tables = tomllib.loads(written)
    except (ValueError, RecursionError) as error:  # invalid TOML, or nested too deep
        # Python's own message about too many digits is about a setting of Python
        reason = "a number has too many digits" if "digits" in str(error) else str(error)
        reason, _, position = reason.partition(" (at line ")
        reason = _TOML_FIXES.get(reason, reason)
        place = f"{path}:{position.partition(',')[0]}" if position else path
        raise ConfigError(f"{place}: not TOML: {reason}") from error
    try:
        return read(tables)
    except ConfigError as error:
        raise ConfigError(f"{path}:{_line_of(error.key, written)}: {error}", error.key) from error


def read_config(tables: Mapping[str, Any]) -> Config:
    """Turn the tables of a configuration into a Config. Raises ConfigError with the key."""
    refuse_unknown(tables, {**KEYS, **REPEATED_KEYS}, "")
    settings = {name: read_table(name, tables.get(name, {})) for name in KEYS}
    for name in REPEATED:
        settings[name] = read_tables(name, tables.get(name, []), REPEATED[name], REPEATED_KEYS[name])
    _refuse_repeated(settings["accept"])
    if settings["influxdb"] is not None:
        settings["influxdb"] = settings["influxdb"]._replace(written=frozenset(tables["influxdb"]))
    _refuse_short_interval(settings["schedule"].network_s, settings["sources"])
    policy = settings["policy"]
    profile = choose_profile(policy.profile, policy.warning_s, policy.critical_s)
    settings["policy"] = policy._replace(warning_s=profile.warning_s, critical_s=profile.critical_s)
    outputs = OutputsConfig(**{name: settings.pop(name) for name in OUTPUTS})
    return Config(**settings, profile=profile, outputs=outputs)


def read_table(name: str, table: Any) -> Any:
    """Return the NamedTuple of a table, None for an empty one of an output. Raises ConfigError with the key."""
    if not isinstance(table, dict):
        raise ConfigError(f"{name}: write it as a table, [{name}]", name)
    if not table and (name == "influxdb" or name in OUTPUTS):
        return None
    return _read_keys(name, f"[{name}]", table, TABLES[name], KEYS[name])


def read_tables(name: str, tables: Any, settings: Any, keys: Mapping[str, Key]) -> tuple[Any, ...]:
    """Return a NamedTuple for each table of a name that may be repeated. Raises ConfigError with number and key."""
    if not (isinstance(tables, list) and all(isinstance(table, dict) for table in tables)):
        raise ConfigError(f"{name}: write each as a table, [[{name}]]", name)
    numbered = enumerate(tables, 1)
    return tuple(_read_keys(f"{name}[{number}]", f"[[{name}]]", one, settings, keys) for number, one in numbered)


def _read_keys(name: str, header: str, table: Mapping[str, Any], settings: Any, keys: Mapping[str, Key]) -> Any:
    refuse_unknown(table, keys, f"{name}.")
    for key in keys.values():
        if key.name not in table and key.field not in settings._field_defaults:
            missing = f'missing; {header} needs it, such as {key.name} = "{key.example}"'
            raise ConfigError(f"{name}.{key.name}: {missing}", name)
    return settings(**{keys[key].field: _read_value(f"{name}.{key}", keys[key], value) for key, value in table.items()})


def _refuse_repeated(accepted: tuple[AcceptConfig, ...]) -> None:
    """Refuse a second acceptance of a finding: which of the two counts would not be clear."""
    first: dict[str, int] = {}
    for number, one in enumerate(accepted, 1):
        if (other := first.setdefault(one.finding, number)) != number:
            key = f"accept[{number}].finding"
            raise ConfigError(f"{key}: accept[{other}] accepts {one.finding} too: keep one of them", key)


def _read_value(name: str, key: Key, value: Any) -> Any:
    if key.measure and isinstance(value, int | float) and not isinstance(value, bool):
        example = f'such as "{key.example}"'
        raise ConfigError(f"{name}: write a {key.measure} with its unit, in quotes, {example}", name)
    try:
        return key.read(value)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}", name) from error


def _refuse_short_interval(network_s: float, sources: SourcesConfig) -> None:
    """Refuse to query a server more often than RFC 4330 allows, except on loopback."""
    remote = [one.name for one in sources.servers if isinstance(one, Server) and not is_loopback(one.host)]
    has_others = sources.from_host or any(isinstance(source, Pool) for source in sources.named)
    if network_s < SERVER_INTERVAL_S and (remote or has_others):
        least = f"at least {SERVER_INTERVAL_S} s between queries to a server (RFC 4330), except on loopback"
        which = f"; not a loopback address: {', '.join(remote)}" if remote else ""
        raise ConfigError(f"schedule.network: too short: {least}{which}", "schedule.network")


def refuse_unknown(table: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> None:
    """Raise ConfigError for a key that is not known, with the nearest one that is."""
    for key in table:
        if key not in known:
            text = f"{prefix}{key}: unknown{nearest(key, known)}; known here: {', '.join(known)}"
            raise ConfigError(text, f"{prefix}{key}")


def locate(error: ConfigError, path: str) -> ConfigError:
    """Return an error about a key with the file and the line of that key, unless it names them already."""
    if error.key is None or str(error).startswith(f"{path}:"):
        return error
    with open(path, encoding="utf-8") as file:
        return ConfigError(f"{path}:{_line_of(error.key, file.read())}: {error}", error.key)


def with_environment(config: Config, environment: Mapping[str, str]) -> Config:
    """Fill what the file does not set from INFLUXDB_V2_*. ConfigError if one is invalid, or disables TLS checks."""
    if environment.get("INFLUXDB_V2_VERIFY_SSL", "").lower() in ("0", "false", "no", "off"):
        raise ConfigError(
            "INFLUXDB_V2_VERIFY_SSL: certificates are always verified; give the CA file in INFLUXDB_V2_SSL_CA_CERT"
        )
    influxdb = config.influxdb or InfluxConfig("")
    if not influxdb.url and not environment.get("INFLUXDB_V2_URL"):
        return config
    for key in KEYS["influxdb"].values():
        text = environment.get(key.variable or "")
        if text and key.name not in influxdb.written:
            try:
                influxdb = influxdb._replace(**{key.field: key.read_variable(text)})
            except ValueError as error:
                raise ConfigError(f"{key.variable}: {error}") from error
    return config._replace(influxdb=influxdb)


def _line_of(key: str | None, text: str) -> int:
    """Return the line number of a key, else of its table (`accept[2]`: the second); tomllib reports no lines."""
    table, _, name = (key or "").rpartition(".")
    inside, found = "", 1
    counts: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].strip()
        if words.startswith("["):
            inside = words.strip("[]").strip().strip("\"'")
        if words.startswith("[["):
            counts[inside] += 1
            inside = f"{inside}[{counts[inside]}]"
        written = words.partition("=")[0].strip().strip("\"'") if "=" in words else None
        if (inside, written) == (table, name) or (not inside and written == key):
            return number
        if inside in (table, name) and words.startswith("["):
            found = number
    return found

"""A configuration as text: a commented file to start from, and the effective values without secrets."""

import json
import os
from collections.abc import Mapping
from typing import Any

from ntpaudit.config.load import read_config
from ntpaudit.config.schema import KEYS, REPEATED_KEYS, Config, InfluxConfig, Key
from ntpaudit.config.secrets import find_token
from ntpaudit.core.policy import PROFILES
from ntpaudit.errors import ConfigError
from ntpaudit.render.text_safety import one_line
from ntpaudit.store.paths import FILE_NAME, state_folder

Tables = Mapping[str, Mapping[str, Any]]  # of a file: keys with strings, lists of strings and booleans

HEADER = """\
# Configuration of ntpaudit. A line without # sets a value; a line with # shows the default, or an example
# if the comment above it ends with the default.
# After a change: ntpaudit config check, then systemctl reload ntpaudit (without systemd: send SIGHUP to the agent).
# Durations: 100ms 64s 30m 12h 90d 7y. Sizes: 512MiB 1GiB.
"""


def write_file(given: Tables, why: str = "") -> str:
    """Write a file: the `given` values, other keys commented out; `why` comments the sources. Raises ConfigError."""
    tolerances = tables_of(read_config(given))["policy"]
    lines = [HEADER]
    for table, keys in KEYS.items():
        lines.append(f"[{table}]")
        if table == "sources":
            lines += [f"# {line}" for line in why.splitlines()]
        for name, key in keys.items():
            default = key.unset or ("none" if key.default is None else "")
            comment = f"{key.meaning}; default: {default}" if default else key.meaning
            example = tolerances[name] if table == "policy" else key.example
            chosen = given.get(table, {}).get(name)
            line = f"# {name} = {literal(example)}" if chosen is None else f"{name} = {literal(chosen)}"
            lines += [f"# {comment}", line]
        lines.append("")
    for table, keys in REPEATED_KEYS.items():  # an empty table would be one that lacks its keys
        lines.append(f"# [[{table}]]")
        lines += [
            part for key in keys.values() for part in (f"# {key.meaning}", f"# {key.name} = {literal(key.example)}")
        ]
        lines.append("")
    return "\n".join(lines)


def show_toml(config: Config, environment: Mapping[str, str], written: Tables) -> str:
    """Write the effective values without secrets, each with its origin; `written` has the tables of the file."""
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
                lines.append(f"{name} = {literal(value)}  # {_origin(table, name, config, written)}")
        if table == "influxdb" and config.influxdb is not None:
            lines.append(f"# token: {describe_token(config.influxdb, environment)}")
        lines.append("")
    for table, entries in repeated_of(config).items():
        for values in entries:
            lines.append(f"[[{table}]]")
            lines += [f"{name} = {literal(value)}  # file" for name, value in values.items() if value is not None]
            lines.append("")
        lines += [] if entries else [f"# [[{table}]]: none", ""]
    return "\n".join(lines)


def _origin(table: str, name: str, config: Config, written: Tables) -> str:
    key = KEYS[table][name]
    if name in written.get(table, {}):
        return "file"
    if table == "policy" and name != "profile":
        own = getattr(PROFILES[config.profile.name], key.field)
        return f"profile {config.profile.name}" if getattr(config.profile, key.field) == own else "as critical"
    if key.variable is not None and tables_of(config)[table][name] != key.default:
        return f"environment: {key.variable}"
    return "default"


def _unset(table: str, name: str, config: Config, environment: Mapping[str, str]) -> str:
    influxdb, fleet = config.influxdb, config.fleet
    unset = KEYS[table][name].unset
    own = influxdb if influxdb is not None and fleet.url in (None, influxdb.url) else None
    match table, name:
        case "host", "name":
            from ntpaudit.probes.host import host_facts

            return f"{one_line(host_facts().name)} (default: {unset})"
        case "history", "path":
            path = os.path.join(state_folder(environment), FILE_NAME)
            return f"{one_line(path)} (default for an agent started by this user)"
        case "fleet", "token_file" if own is not None:
            return "that of [influxdb] (default)"
        case "fleet", "url" | "database" | "ca_file" if own is not None:
            values = {"url": own.url, "database": own.bucket, "ca_file": own.ca_file or "the system's certificates"}
            return f"{values[name]} (default: that of [influxdb])"
        case "fleet", "url" | "token_file":
            return "none"
        case "fleet", "database":
            return f"{InfluxConfig('').bucket} (default)"
        case "fleet", "ca_file":
            return "the system's certificates (default)"
    return f"{unset} (default)" if unset else "none"


def show_json(config: Config, environment: Mapping[str, str]) -> str:
    """Write the effective configuration as one JSON object, without secrets."""
    tables: dict[str, Any] = {table: dict(values) or None for table, values in tables_of(config).items()}
    if config.influxdb is not None:
        tables["influxdb"]["token"] = describe_token(config.influxdb, environment)
    return json.dumps(tables | repeated_of(config), indent=2) + "\n"


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
    settings = {**config._asdict(), **config.outputs._asdict()}
    tables = {table: _values(keys, settings[table]) for table, keys in KEYS.items()}
    return tables if config.influxdb is not None else tables | {"influxdb": {}}


def repeated_of(config: Config) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of a configuration that may be repeated; None for values that are not set."""
    return {table: [_values(keys, one) for one in getattr(config, table)] for table, keys in REPEATED_KEYS.items()}


def _values(keys: Mapping[str, Key], settings: Any) -> dict[str, Any]:
    values = {name: getattr(settings, key.field, None) for name, key in keys.items()}
    return {name: None if value in (None, "") else keys[name].write(value) for name, value in values.items()}


def literal(value: Any) -> str:
    """Write a value as TOML: the JSON form of a string is valid TOML if it has no control characters."""
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return json.dumps(value, ensure_ascii=False)

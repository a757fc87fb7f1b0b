"""TOML to a frozen Config; every default; every refusal names its key."""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES, Profile
from ntpaudit.core.sources import Source, parse_source, pool, region
from ntpaudit.core.wording import parse_span
from ntpaudit.errors import ConfigError

SYSTEM_FILE = "/etc/ntpaudit/ntpaudit.toml"

_Read = TypeVar("_Read")


class HostConfig(NamedTuple):
    """`[host]`: what the operator calls this host and its place; `name` None means the machine's own."""

    name: str | None = None
    site: str | None = None
    env: str | None = None


class SourcesConfig(NamedTuple):
    """`[sources]`: whom to ask. Nothing named means that the caller decides."""

    servers: tuple[Source, ...] = ()
    pools: tuple[Source, ...] = ()
    from_host: bool = False

    @property
    def named(self) -> tuple[Source, ...]:
        """Every source named, servers first."""
        return self.servers + self.pools


class Config(NamedTuple):
    """A configuration, read and found sound. `sha256` identifies the file's text, None without a file."""

    host: HostConfig = HostConfig()
    sources: SourcesConfig = SourcesConfig()
    profile: Profile = PROFILES[DEFAULT_PROFILE]
    sha256: str | None = None


def find_config(environment: Mapping[str, str]) -> str | None:
    """Return the user's own configuration file, else the system's, else None."""
    base = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    candidates = (f"{base}/ntpaudit/ntpaudit.toml", SYSTEM_FILE)
    return next((path for path in candidates if os.path.exists(path)), None)


def load_config(path: str) -> Config:
    """Read a configuration file. ConfigError names the file and the key, and what to write instead."""
    import hashlib
    import tomllib

    try:
        with open(path, "rb") as file:
            text = file.read()
        tables = tomllib.loads(text.decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # what TOML refuses, and what it could not hold
        raise ConfigError(f"{path}: not TOML: {error}") from error
    try:
        config = read_config(tables)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return config._replace(sha256=hashlib.sha256(text).hexdigest())


def read_config(tables: Mapping[str, Any]) -> Config:
    """Turn the tables of a configuration into a Config; ConfigError names the key."""
    _refuse_unknown(tables, ("host", "sources", "policy"), "")
    for table, content in tables.items():
        if not isinstance(content, dict):
            raise ConfigError(f"{table}: write it as a table, [{table}]")
    host, sources, policy = (tables.get(table, {}) for table in ("host", "sources", "policy"))
    _refuse_unknown(host, HostConfig._fields, "host.")
    _refuse_unknown(sources, ("servers", "pool", "region", "from_host"), "sources.")
    _refuse_unknown(policy, ("profile", "warning", "critical"), "policy.")
    pools: list[Source] = []
    for key, read in (("pool", pool), ("region", region)):
        if key in sources:
            pools.append(_read(sources, key, "sources", read))
    servers = sources.get("servers", [])
    if not (isinstance(servers, list) and all(isinstance(server, str) for server in servers)):
        raise ConfigError('sources.servers: write a list of names, ["ntp1.example.net", "192.0.2.1:1123"]')
    if not isinstance(from_host := sources.get("from_host", False), bool):
        raise ConfigError("sources.from_host: write true or false")
    return Config(
        host=HostConfig(**{key: _read(host, key, "host", _label) for key in host}),
        sources=SourcesConfig(
            tuple(_read({"servers": server}, "servers", "sources", parse_source) for server in servers),
            tuple(pools),
            from_host,
        ),
        profile=choose_profile(
            _read(policy, "profile", "policy", str) if "profile" in policy else None,
            _read(policy, "warning", "policy", parse_span) if "warning" in policy else None,
            _read(policy, "critical", "policy", parse_span) if "critical" in policy else None,
        ),
    )


def choose_profile(
    name: str | None, warning_s: float | None, critical_s: float | None, base: Profile = PROFILES[DEFAULT_PROFILE]
) -> Profile:
    """Return a profile by name, else `base`, with its tolerances overridden; ConfigError where that makes no sense."""
    if name is not None and name not in PROFILES:
        raise ConfigError(
            f"policy.profile: no profile {name!r}{_nearest(name, PROFILES)}; known: {', '.join(PROFILES)}"
        )
    profile = PROFILES[name] if name is not None else base
    critical = profile.critical_s if critical_s is None else critical_s
    # a critical tolerance alone below the profile's warning draws the warning down with it
    warning = min(profile.warning_s, critical) if warning_s is None else warning_s
    if not 0 < warning <= critical < math.inf:
        raise ConfigError(
            f"policy: warning ({warning:g} s) and critical ({critical:g} s): write 0 < warning <= critical"
        )
    return profile._replace(warning_s=warning, critical_s=critical)


def _read(table: Mapping[str, Any], key: str, name: str, read: Callable[[str], _Read]) -> _Read:
    """Read one text value; ConfigError names its key."""
    value = table[key]
    if not isinstance(value, str):
        raise ConfigError(f"{name}.{key}: write a text in quotes, not {value!r}")
    try:
        return read(value)
    except ValueError as error:
        raise ConfigError(f"{name}.{key}: {error}") from error


def _label(text: str) -> str:
    """Return a label; ValueError where it is empty or does not fit on a line."""
    if not text.strip() or not text.isprintable():
        raise ValueError("write a name of printable characters")
    return text


def _refuse_unknown(table: Mapping[str, Any], known: Any, prefix: str) -> None:
    """Raise ConfigError for the first unknown key, with the nearest known one."""
    for key in table:
        if key not in known:
            raise ConfigError(f"{prefix}{key}: unknown{_nearest(key, known)}; known here: {', '.join(known)}")


def _nearest(word: str, known: Any) -> str:
    """Suggest the nearest known word."""
    import difflib

    near = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean {near[0]!r}?" if near else ""

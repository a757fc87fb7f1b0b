"""Find and read a configuration file; every error names the file, the line and the key."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ntpaudit.config.schema import Config, InfluxConfig, parse_url, read_config
from ntpaudit.core.units import MAX_DIGITS, brief
from ntpaudit.errors import ConfigError

SYSTEM_FILE = "/etc/ntpaudit/ntpaudit.toml"
SYSTEM_TOKEN_FILE = "/etc/ntpaudit/token"  # noqa: S105 - where a token is, not one
"""The token of SYSTEM_FILE's database, where that names no other; systemd hands it to the services as a credential."""


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

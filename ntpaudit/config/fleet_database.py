"""Which database `ntpaudit fleet` reads, and which of the credentials belong to it."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from ntpaudit.config.schema import Config, InfluxConfig
from ntpaudit.config.secrets import environment_token, find_token, read_secret
from ntpaudit.config.values import Language
from ntpaudit.errors import ConfigError


class FleetDatabase(NamedTuple):
    """The database of a fleet, with the credentials to read it."""

    url: str
    language: Language
    database: str
    token: str | None
    ca_file: str | None
    timeout_s: float
    env: str | None = None


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
    fleet, influxdb = config.fleet, config.influxdb
    if fleet.token_file is not None and place == home:
        # systemd protects a credential by an ACL, which looks as if others could read it
        is_credential = os.path.dirname(fleet.token_file) == environment.get("CREDENTIALS_DIRECTORY")
        return read_secret(fleet.token_file, "fleet.token_file", guarded=not is_credential)
    claimed = environment.get("INFLUXDB_V2_URL", "").rstrip("/")
    owner = claimed or (influxdb.url if influxdb is not None else None) or fleet.url or place
    if owner != place:
        environment = {name: value for name, value in environment.items() if name != "INFLUXDB_V2_TOKEN"}
    if influxdb is not None and influxdb.url == place:
        return find_token(influxdb, environment).text
    return environment_token(environment)

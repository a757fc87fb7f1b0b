"""Where the configuration file is."""

import os
from collections.abc import Mapping

SYSTEM_FILE = "/etc/ntpaudit/ntpaudit.toml"
SYSTEM_TOKEN_FILE = "/etc/ntpaudit/token"  # noqa: S105 - where a token is, not one
"""The token of SYSTEM_FILE's database, where that names no other; systemd hands it to the services as a credential."""


def find_config(environment: Mapping[str, str], named: str | None = None) -> str | None:
    """Return the named configuration file, else the user's own, else the system's, else None."""
    if named is not None:
        return named
    candidates = (user_file(environment), SYSTEM_FILE)
    return next((path for path in candidates if os.path.exists(path)), None)


def user_file(environment: Mapping[str, str]) -> str:
    """Return the path of the user's own configuration file, which may not exist."""
    base = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    return f"{base}/ntpaudit/ntpaudit.toml"

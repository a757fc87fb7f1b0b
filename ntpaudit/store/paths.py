"""Where this program may keep its state."""

import os
from collections.abc import Mapping

SYSTEM_FOLDER = "/var/lib/ntpaudit"
FILE_NAME = "history.sqlite3"


def state_folder(environment: Mapping[str, str]) -> str:
    """Return the state folder: `$STATE_DIRECTORY`, else the system's where we may write it, else the user's own."""
    if folder := environment.get("STATE_DIRECTORY"):
        return folder.partition(":")[0]  # systemd lists several, separated by colons
    parent = SYSTEM_FOLDER if os.path.isdir(SYSTEM_FOLDER) else os.path.dirname(SYSTEM_FOLDER)
    if os.access(parent, os.W_OK | os.X_OK):
        return SYSTEM_FOLDER
    base = environment.get("XDG_STATE_HOME") or os.path.join(environment.get("HOME") or "/", ".local/state")
    return os.path.join(base, "ntpaudit")

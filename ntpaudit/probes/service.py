"""How the agent runs on this host, so that a fix names what works here: systemd's unit, or the program itself."""

import os

_UNIT = "system/ntpaudit.service"
_FOLDERS = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd")


def has_unit(root: str = "/") -> bool:
    """Return whether systemd runs on the host whose files lie under `root`, and has the agent's unit."""
    is_booted = os.path.isdir(os.path.join(root, "run/systemd/system"))  # as sd_booted(3) finds out
    return is_booted and any(os.path.exists(os.path.join(root, folder, _UNIT)) for folder in _FOLDERS)


def start(root: str = "/") -> str:
    """Return the command that starts an agent."""
    return "systemctl enable --now ntpaudit" if has_unit(root) else "ntpaudit agent"


def restart(root: str = "/") -> str:
    """Say how to restart the agent."""
    return "systemctl restart ntpaudit" if has_unit(root) else "end `ntpaudit agent` and start it again"


def examine(root: str = "/") -> str:
    """Say how to find out why the agent is silent."""
    if has_unit(root):
        return "systemctl status ntpaudit; journalctl -u ntpaudit"
    return "does `ntpaudit agent` run, and what did it print?"

"""Namespaces of a command's own: as root, or in a user namespace where an ordinary user may make one."""

import os
from pathlib import Path

from tests.abilities import need

_ABILITIES = {"mount": "mount", "net": "netns", "pid": "pidns", "uts": "utsns"}
_MORE = {"pid": ("--fork", "--mount-proc")}


def unshared(*kinds: str) -> list[str]:
    """Words before a command that run it in new namespaces of these kinds, `mount`, `net`, `pid`, `uts`, as root."""
    need(*(_ABILITIES[kind] for kind in kinds))
    own_user = ["--user", "--map-root-user"] if os.geteuid() else []
    return ["unshare", *own_user, *(word for kind in kinds for word in (f"--{kind}", *_MORE.get(kind, ())))]


def entered(pid: int, *kinds: str) -> list[str]:
    """Words before a command that run it in the namespaces of another process, in the present folder."""
    own_user = ["--user", "--preserve-credentials"] if os.geteuid() else []
    folder = [f"--wd={Path.cwd()}"] if "mount" in kinds else []
    return ["nsenter", f"--target={pid}", *own_user, *(f"--{kind}" for kind in kinds), *folder, "--"]

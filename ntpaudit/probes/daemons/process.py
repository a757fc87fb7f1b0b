"""The processes with the name of a time daemon, and their state in /proc."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from ntpaudit.core.observation import Daemon
from ntpaudit.probes.daemons.kind import Process

if TYPE_CHECKING:
    import psutil

_CAP_SYS_TIME = 25
_ALL_IDS = "4294967295"
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # its inode, in every Linux (PROC_PID_INIT_INO, include/linux/proc_ns.h)
_SERVICE = re.compile(
    r"^(?:0:|\d+:name=systemd):/(?!user\.slice/)(?:[^/\n]+\.slice/)*([^/\n]+\.service)(?:/|$)", re.MULTILINE
)


def time_processes(names: Collection[str]) -> tuple[list[tuple[str, Process]], str | None]:
    """Return the processes of these names, with their helpers, and why there may be others that are hidden."""
    try:
        named, hidden = _named(names)
    except OSError as error:
        return [], f"the list of processes cannot be read: {error.strerror}"
    return _processes(named), hidden


def find_process(pid: int, names: Collection[str]) -> tuple[str, Process] | None:
    """Return one process and its name if it still has one of these names, without its helpers."""
    name = _read_or_empty(pid, "comm").rstrip("\n")
    found = _processes({pid: name}) if name in names else []
    return found[0] if found else None


def _processes(named: Mapping[int, str]) -> list[tuple[str, Process]]:
    statuses = {pid: status for pid in named if (status := _status(pid)) is not None}
    parents = {pid: int(_field(status, "PPid") or 0) for pid, status in statuses.items()}
    helpers = {pid for pid, parent in parents.items() if named.get(parent) == named[pid]}
    return [
        (named[pid], _process(pid, status, [one for one in helpers if parents[one] == pid]))
        for pid, status in statuses.items()
        if pid not in helpers
    ]


def _named(names: Collection[str]) -> tuple[Mapping[int, str], str | None]:
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    named, is_hidden = {}, 1 not in pids
    for pid in pids:
        try:
            if (name := _read(pid, "comm").rstrip("\n")) in names:
                named[pid] = name
        except PermissionError:
            is_hidden = True
        except OSError:
            pass  # it ended meanwhile
    if is_hidden:
        return named, "the processes of other users are hidden here"
    with suppress(OSError):  # a kernel without PID namespaces
        if os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE:
            return named, "this container has a PID namespace of its own, and daemons outside it cannot be seen"
    return named, None


def _status(pid: int) -> str | None:
    """Return /proc/PID/status, empty where it is hidden from us; None of a zombie and of a process that has ended."""
    try:
        status = _read(pid, "status")
    except PermissionError:
        return ""
    except OSError:
        return None
    return None if _field(status, "State").startswith("Z") else status


def _process(pid: int, status: str, helpers: Collection[int]) -> Process:
    users = _field(status, "Uid").split()  # real, effective, saved, file system (proc_pid_status(5))
    return Process(
        pid,
        _words(pid),
        can_set_clock=_can_set_clock(pid, status),
        is_root=users[:1] == ["0"],
        unit=service_of(_read_or_empty(pid, "cgroup")),
        helpers=tuple(map(_words, helpers)),
        root=_root(pid),
        folder=_working_folder(pid),
        is_ours=len(_field(status, "NSpid").split()) <= 1,
        uid=int(users[1]) if users else None,
    )


def service_of(cgroups: str) -> str | None:
    """Return the service that a process belongs to by /proc/PID/cgroup, in any slice of the system (`Slice=`).

    Users run services of their own in user.slice, under any name.
    """
    found = _SERVICE.search(cgroups)
    return found[1] if found else None


def _words(pid: int) -> tuple[str, ...]:
    """Return a command line, nothing if it is hidden; a title written over it (setproctitle(3)) is split at spaces."""
    words = _read_or_empty(pid, "cmdline").removesuffix("\0").split("\0")
    return tuple(words[0].split() if len(words) == 1 else words)


def _can_set_clock(pid: int, status: str) -> bool | None:
    """Whether a process holds CAP_SYS_TIME in the first user namespace; None where this cannot be seen.

    In a user namespace of his own every user has all capabilities, and none that sets the clock (user_namespaces(7)).
    Only the first one maps all ids; no other can be given them but by root.
    """
    capabilities = _field(status, "CapEff")
    if not capabilities:
        return None
    if not int(capabilities, 16) >> _CAP_SYS_TIME & 1:
        return False
    try:
        return _read(pid, "uid_map").split()[2:] == [_ALL_IDS]
    except FileNotFoundError:
        return True  # a kernel without user namespaces
    except OSError:
        return None


def _field(status: str, name: str) -> str:
    found = re.search(rf"^{name}:\s*(.*)$", status, re.MULTILINE)
    return found[1] if found else ""


def _root(pid: int) -> str | None:
    """Return under which folder we find the files that a process sees; None where they are out of reach."""
    root = f"/proc/{pid}/root"
    if os.path.isdir(f"{root}/"):  # only to root and to its own user
        return root
    ours = _root_mount("self")
    return "" if ours is not None and ours == _root_mount(pid) else None


def _root_mount(pid: int | str) -> tuple[str, str] | None:
    """Return the device and the folder on it that are a process's root: another container has another one."""
    mounts = [line.split() for line in _read_or_empty(pid, "mountinfo").splitlines()]
    roots = [(words[2], words[3]) for words in mounts if len(words) > 4 and words[4] == "/"]
    return roots[-1] if roots else None


def _working_folder(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def _read(pid: int | str, name: str) -> str:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        return file.readall().decode(errors="replace")


def _read_or_empty(pid: int | str, name: str) -> str:
    try:
        return _read(pid, name)
    except OSError:
        return ""


class WatchedProcesses:
    """Whether known time daemons still run (R12); a process id that another process has since is an end too."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process | None] = {}

    def update(self, daemons: Iterable[Daemon]) -> None:
        """Watch these daemons, and no others."""
        import psutil  # one-shot checks do without

        self._processes = {}
        for daemon in daemons:
            if daemon.pid > 0:  # 0 is the kernel itself
                self._processes[daemon.pid] = None
                with suppress(psutil.NoSuchProcess):
                    self._processes[daemon.pid] = psutil.Process(daemon.pid)

    def has_ended(self, daemon: Daemon) -> bool:
        """Return whether the process of a watched daemon has ended; of others nothing is known."""
        if daemon.pid not in self._processes:
            return False
        process = self._processes[daemon.pid]
        return process is None or not process.is_running()

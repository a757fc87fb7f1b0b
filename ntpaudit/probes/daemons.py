"""Find the time daemons that run on this host."""

import getopt
import os
from collections.abc import Mapping

from ntpaudit.core.observation import Daemon, Unavailable

_DAEMONS = {
    "chronyd": "chronyd",
    "ntpd": "ntpd",
    "openntpd": "openntpd",
    "systemd-timesyn": "systemd-timesyncd",  # the kernel keeps 15 characters of a process's name
    "ntp-daemon": "ntpd-rs",
    "ntpd-rs": "ntpd-rs",
}
"""Which daemon a process of that name is."""

_CHRONYD_OPTIONS = "46df:F:hl:L:mnpP:qQrRst:u:Uvx"


def running_daemons() -> tuple[Daemon, ...] | Unavailable:
    """Return the time daemons in sight, by name and pid; one that runs as several processes counts once."""
    try:
        names, hidden = _time_processes()
    except OSError as error:
        return Unavailable(f"the list of processes cannot be read: {error.strerror}")
    found = [daemon for pid, name in names.items() if (daemon := _daemon(pid, name, names))]
    if not found and hidden:  # "none runs" would be a guess
        return Unavailable("the processes of other users are hidden here")
    return tuple(sorted(found, key=lambda daemon: (daemon.name, daemon.pid)))


def _time_processes() -> tuple[dict[int, str], bool]:
    """Return the daemon that each process of a known name is, and whether some processes are hidden from us."""
    # psutil takes four times as long to name a process, and there may be thousands, of which a few are looked at.
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    names, hidden = {}, 1 not in pids
    for pid in pids:
        try:
            with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
                name = file.read()
        except PermissionError:
            hidden = True
        except OSError:  # it ended meanwhile
            continue
        else:
            if daemon := _DAEMONS.get(name.rstrip(b"\n").decode(errors="replace")):
                names[pid] = daemon
    return names, hidden


def _daemon(pid: int, name: str, names: Mapping[int, str]) -> Daemon | None:
    """Describe the daemon that a process is; None for another's helper, for a zombie, and for one that has ended."""
    import psutil  # costs more than everything else here, and is needed only where there is a daemon

    try:
        facts = psutil.Process(pid).as_dict(["status", "ppid", "cmdline"], ad_value=None)
    except psutil.NoSuchProcess:
        return None
    if facts["status"] == psutil.STATUS_ZOMBIE or names.get(facts["ppid"]) == name:
        return None
    words = facts["cmdline"] or []  # not everyone is told another user's arguments
    return Daemon(name, pid, disciplines=not (name == "chronyd" and _leaves_clock_alone(words[1:])))


def _leaves_clock_alone(words: list[str]) -> bool:
    """Whether chronyd's arguments keep it from the clock: -x is to serve only, -Q to print an offset and end."""
    try:
        options, _ = getopt.gnu_getopt(words, _CHRONYD_OPTIONS)
    except getopt.GetoptError:
        return False
    return any(option in ("-x", "-Q") for option, _ in options)

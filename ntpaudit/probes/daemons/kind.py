"""What one kind of time daemon is, to the rest of the program: each has a file of its own beside this one."""

import getopt
import os.path
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ntpaudit.core.observation import Claim, Daemon, Unavailable
from ntpaudit.core.observation import ConfiguredServer as ConfiguredServer
from ntpaudit.probes.daemons.files import Files

CLAIM_WITHIN_S = 0.5


class Role(NamedTuple):
    """Whether a daemon disciplines the system clock; None: that cannot be seen. `reason` says why it is not True."""

    disciplines: bool | None
    reason: str | None = None


class Process(NamedTuple):
    """A process that has the name of a time daemon.

    `words` is its command line. `can_set_clock`: it holds CAP_SYS_TIME where that counts; None where this cannot be
    seen. `unit` is the system service of systemd it belongs to. `helpers` are the command lines of its children of the
    same name. `root` is the folder under which we find the files that it sees; None where they are out of reach.
    `folder` is its working folder; None where it cannot be seen. `is_ours`: it runs in our PID namespace, and not in
    that of a container inside of it. `uid` is its effective user; None where it cannot be seen. `twins` are the PIDs of
    other time daemons of the same name, whose replies could be taken for its own.
    """

    pid: int
    words: tuple[str, ...]
    can_set_clock: bool | None = True
    is_root: bool = True
    unit: str | None = None
    helpers: tuple[tuple[str, ...], ...] = ()
    root: str | None = ""
    folder: str | None = "/"
    is_ours: bool = True
    uid: int | None = None
    twins: tuple[int, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command line without the program."""
        return self.words[1:]

    def absolute(self, path: str, files: Files) -> str | None:
        """Return a path of its command line from its root on; None, and a problem, if its folder cannot be seen."""
        if os.path.isabs(path):
            return path
        if self.folder is None:
            files.problems.append(f"{path} cannot be found: the folder it was started in cannot be seen")
            return None
        return os.path.normpath(os.path.join(self.folder, path))


class DaemonKind(NamedTuple):
    """A kind of daemon: its name, the names of its processes, its units, and how to read a process's configuration.

    `units` are the names of its services without `.service` and what follows an `@`. `servers` reads the NTP servers
    that a process is configured with; None where it has none. `clears_unsync` and `max_poll_s` are those of `Daemon`.

    `log_file` is the file of its own that a process logs to instead of syslog; None if there is none.

    `claim` asks a process for its report about itself, with its servers or without; None where there is none. It must
    not believe a reply of another user's process, nor wait longer than `CLAIM_WITHIN_S`.
    """

    name: str
    process_names: tuple[str, ...]
    units: tuple[str, ...]
    role: Callable[[Process, Files], Role]
    servers: Callable[[Process, Files], Iterator[ConfiguredServer]] | None = None
    clears_unsync: bool = True
    max_poll_s: float = 1024.0
    claim: Callable[[Process, Files, bool], Claim | Unavailable] | None = None
    log_file: Callable[[Process, Files], str | None] = lambda *_: None

    def daemon(
        self, pid: int, disciplines: bool | None = True, reason: str | None = None, unit: str | None = None
    ) -> Daemon:
        """Return the daemon of this kind that is that process."""
        return Daemon(self.name, pid, disciplines, reason, self.clears_unsync, self.max_poll_s, unit)

    def owns_unit(self, unit: str | None) -> bool:
        """Whether a service is of this kind."""
        return unit is not None and unit.removesuffix(".service").partition("@")[0] in self.units


def always(_process: Process, _files: Files) -> Role:
    """Discipline the clock, whatever the arguments."""
    return Role(True)


class Options(NamedTuple):
    """A command line, taken apart: options with their values, and the words that are none."""

    found: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()
    is_understood: bool = True

    def has(self, *names: str) -> bool:
        """Whether one of these is given."""
        return any(name in names for name, _ in self.found)

    def last(self, *names: str) -> str | None:
        """Return an option's value where it stands last, as programs take it; None where it is missing."""
        return next((value for name, value in reversed(self.found) if name in names), None)


def read_options(process: Process, short: str, long: Sequence[str] = ()) -> Options:
    """Read a command line as getopt(3) does."""
    try:
        found, words = getopt.gnu_getopt(list(process.arguments), short, list(long))
    except getopt.GetoptError:
        return Options(is_understood=False)
    return Options(tuple(found), tuple(words))


def config_path(process: Process, files: Files, given: Options, name: str, defaults: Sequence[str]) -> str | None:
    """Return the file that an option names, else the first default that exists; None, and a problem, if unknown."""
    if not given.is_understood or not process.words:
        files.problems.append(f"its command line is not understood: {' '.join(process.words)}")
        return None
    named = given.last(*name.split())
    if named is None:
        return files.first(defaults) or defaults[0]
    return process.absolute(named, files)

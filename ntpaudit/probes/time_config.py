"""Take the fingerprint of what decides how this host's time is set: the files of time daemons, zone, hardware clock."""

import glob
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from ntpaudit.core.observation import Daemon, TimeSetting
from ntpaudit.files import sha256_hex
from ntpaudit.probes.daemons import KINDS, read_configuration
from ntpaudit.probes.daemons.files import Files

MAX_FILES = 256
MAX_SIZE = 1 << 20  # a larger file is not hashed

_ADJTIME = "/etc/adjtime"
_LOCALTIME = "/etc/localtime"
_LINKS = "/run/systemd/netif/state"  # systemd-networkd rewrites it often; only the NTP servers of DHCP count
_PTP = ("/etc/linuxptp/*.conf", "/etc/ptp4l.conf", "/etc/phc2sys.conf", "/etc/timemaster.conf")
_OPTIONS = ("/etc/default", "/etc/sysconfig", "/etc/conf.d")  # options of a daemon's command line
_UNIT_FOLDERS = tuple(f"{folder}/systemd/system" for folder in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"))
_UNITS = tuple(sorted({unit for kind in KINDS for unit in kind.units}))
_PROGRAM = re.compile(r"(?:/usr)?/lib/systemd/systemd-\w+")  # read for its compiled-in servers
_KEY_FILES = re.compile(
    rb"""^[ \t]*(?:keyfile|keys|sa_file|ntstrustedcerts(?:[ \t]+\d+)?|nts[ \t]+ca|certificate-authority[ \t]*=)"""
    rb"""[ \t]+["']?(/[^"'\s#]+)""",
    re.MULTILINE | re.IGNORECASE,
)
"""The files of keys and trusted certificates that the configurations of all daemons name."""


class _Look(NamedTuple):
    """One reading: of which daemons, what `os.lstat` and `os.stat` returned for each path, and the result."""

    daemons: tuple[tuple[str, int], ...]
    statuses: Mapping[str, tuple[int, ...] | None]
    settings: tuple[TimeSetting, ...]


class TimeConfigWatch:
    """The fingerprint, reading by reading: a reading in which nothing changed costs one `stat` for each file."""

    def __init__(self, root: str = "") -> None:
        self._root = root
        self._last: _Look | None = None
        self._known: frozenset[str] = frozenset()

    def expect(self, settings: Iterable[TimeSetting]) -> None:
        """Read these files too, as long as they exist: the daemon that uses one may be stopped now."""
        self._known |= {setting.path for setting in settings if setting.path.startswith("/")}

    def read(self, daemons: Iterable[Daemon]) -> tuple[TimeSetting, ...]:
        """Return the settings by path. `daemons` are the time daemons that run."""
        running, last = tuple(daemons), self._last
        ids = tuple((daemon.name, daemon.pid) for daemon in running)
        if last is not None and last.daemons == ids and self._is_same(last):
            return last.settings
        self._last = last = self._look(ids, running)  # in one assignment: a poll reads in another thread
        return last.settings

    def _look(self, ids: tuple[tuple[str, int], ...], running: tuple[Daemon, ...]) -> _Look:
        files = _RecordingFiles(self._root)
        read_configuration(running, files)
        wanted = self._known | files.wanted({daemon.unit for daemon in running if daemon.unit})
        # before the files are read: what changes meanwhile is seen at the next reading
        statuses = {path: self._status(path) for path in (*files.looked, *wanted)}
        earlier = {} if self._last is None else {one.path: one for one in self._last.settings}
        unchanged = {} if self._last is None else self._last.statuses
        found, known = list[TimeSetting](), list[str]()
        for path in sorted(wanted):
            name = printable(path)
            is_same = name in earlier and unchanged.get(path) == statuses[path]
            setting = earlier[name] if is_same else read_setting(path, self._root)
            if setting is not None:
                found.append(setting)
                known.append(path)
        self._known = frozenset(known[:MAX_FILES])
        if len(found) > MAX_FILES:
            unread = f"{len(found) - MAX_FILES} more files are not read: {MAX_FILES} at most"
            found = [*found[:MAX_FILES], TimeSetting("more files", reason=unread)]
        return _Look(ids, statuses, tuple(found))

    def _is_same(self, last: _Look) -> bool:
        return all(self._status(path) == seen for path, seen in last.statuses.items())

    def _status(self, path: str) -> tuple[int, ...] | None:
        try:
            found = os.lstat(self._root + path)
            status = _identity(found)
            return (*status, *_identity(os.stat(self._root + path))) if stat.S_ISLNK(found.st_mode) else status
        except (OSError, ValueError):
            return None


def _identity(found: os.stat_result) -> tuple[int, ...]:
    owner = (found.st_mode, found.st_uid, found.st_gid)
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev, *owner)


class _RecordingFiles(Files):
    """Files that remember which paths were read or searched for, and the folders that were searched."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._texts: dict[str, bytes] = {}
        self.looked: set[str] = set()

    def octets(self, path: str, *, is_needed: bool = False) -> bytes:
        self.looked.add(path)
        self._texts[path] = super().octets(path, is_needed=is_needed)
        return self._texts[path]

    def first(self, paths: Collection[str]) -> str | None:
        self.looked.update(paths)
        return super().first(paths)

    def matching(self, pattern: str) -> list[str]:
        folder = os.path.dirname(f"/{pattern.lstrip('/')}")
        while folder != "/" and glob.has_magic(folder):
            folder = os.path.dirname(folder)
        self.looked.add(folder)
        return super().matching(pattern)

    def wanted(self, services: Iterable[str]) -> set[str]:
        """Return the paths whose settings count; `services` are those of the time daemons that run."""
        read = {path for path in self._texts if not _PROGRAM.fullmatch(path)}
        keys = {os.fsdecode(path) for one in read for path in _KEY_FILES.findall(self._texts[one])}
        self.looked.update(_OPTIONS)
        options = {path for folder in _OPTIONS for unit in _UNITS if self.exists(path := f"{folder}/{unit}")}
        ptp = {path for pattern in _PTP for path in self.matching(pattern)}
        return {_ADJTIME, _LOCALTIME, *read, *keys, *options, *ptp, *self._of_services(services)}

    def exists(self, path: str) -> bool:
        """Return whether there is something at a path."""
        return os.path.lexists(self.root + path)

    def _of_services(self, running: Iterable[str]) -> Iterator[str]:
        """Yield the files of services and their drop-ins; a link, which masks or enables one, is not among them."""
        services = {*running, *(f"{unit}{end}" for unit in _UNITS for end in (".service", "@.service"))}
        for folder in _UNIT_FOLDERS:
            if os.path.islink(f"{self.root}{folder.partition('/systemd')[0]}"):
                continue  # /lib is /usr/lib
            self.looked.add(folder)
            names = self._names(folder)  # in one call, instead of two for each service
            for service in sorted(services):
                path = f"{folder}/{service}"
                if service in names and not os.path.islink(self.root + path):
                    yield path
                if f"{service}.d" in names:
                    yield from self.matching(f"{path}.d/*.conf")

    def _names(self, folder: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self.root + folder))
        except OSError:
            return frozenset()


def printable(text: str) -> str:
    """Return a text without characters that cannot be printed or encoded."""
    return text if text.isprintable() else ascii(text)[1:-1]


def read_setting(path: str, root: str = "") -> TimeSetting | None:
    """Read one file; None if it does not exist, or if nothing in it counts."""
    where, path = root + path, printable(path)
    try:
        found = os.lstat(where)
        value = printable(os.readlink(where)) if stat.S_ISLNK(found.st_mode) else None
        if value is not None and path == _LOCALTIME:
            return TimeSetting(path, value.partition("zoneinfo/")[2] or value)
        found = os.stat(where)
    except (FileNotFoundError, NotADirectoryError):
        if path == _ADJTIME:
            return TimeSetting(path, "UTC")  # hwclock(8)
        return TimeSetting(path, reason="a link that leads nowhere") if os.path.islink(where) else None
    except (OSError, ValueError) as error:
        return TimeSetting(path, reason=_why(error))
    setting = TimeSetting(path, value, None, None, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
    try:
        text = _content(where)
    except OSError as error:
        return setting._replace(reason=_why(error), size=found.st_size, mtime_ns=found.st_mtime_ns)
    if path == _ADJTIME:  # its numbers change with each write of hwclock
        lines = text.decode("utf-8", "replace").splitlines()
        return setting._replace(value=printable(lines[2].strip()[:16]) if len(lines) > 2 else "UTC")
    if path == _LINKS:
        servers = re.search(rb"^NTP=(.+)$", text, re.MULTILINE)
        return None if servers is None else TimeSetting(path, printable(servers[1].decode("utf-8", "replace")[:1000]))
    return setting._replace(sha256=sha256_hex(text))


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):  # a NUL in it
        return "cannot be read: not a path"
    return f"cannot be read: {error.strerror}" if error.strerror else str(error)


def _content(path: str) -> bytes:
    """Return the content of a regular file of at most `MAX_SIZE` octets; OSError for any other."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # first: to open a device can have an effect
        raise OSError("not a regular file")
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("not a regular file")
        if found.st_size > MAX_SIZE:
            raise OSError(f"larger than {MAX_SIZE >> 20} MiB")
        return file.read(MAX_SIZE)

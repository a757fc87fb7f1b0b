"""Read configuration files as the daemons do, under any root; what cannot be read is counted as lacking."""

import glob
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator

from ntpaudit.core.ntp.sources import NTP_PORT, is_port

_LONGEST = 4 << 20  # no configuration is as long as this many octets, nor is a daemon's program
_MAX_DEPTH = 10  # of files that include files: chronyd's own limit; ntpd stops at five
Line = tuple[str, str]  # the path of a file, and a line of it


class Files:
    """The files under a root, by their paths there; `problems` says which could not be read, and why."""

    def __init__(self, root: str = "") -> None:
        self.root = root.rstrip("/")
        self.problems: list[str] = []
        self._included: set[str] = set()

    def text(self, path: str, *, is_needed: bool = False) -> str:
        """Return a file as text; a missing one is a problem only if it is needed."""
        data = self.octets(path, is_needed=is_needed)
        return data.decode("utf-8", "replace").replace("\0", "")  # a path with a NUL would be refused with a ValueError

    def octets(self, path: str, *, is_needed: bool = False) -> bytes:
        """Return the octets of a regular file, as anything else may never end; a missing one as for `text`."""
        try:
            if not stat.S_ISREG(os.stat(self.root + path).st_mode):  # first: to open a device can have an effect
                return b""
            # A FIFO that its owner has put there since then must not stop us.
            handle = os.open(self.root + path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            with open(handle, "rb") as file:
                return file.read(_LONGEST) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
        except OSError as error:
            if is_needed or not isinstance(error, FileNotFoundError | NotADirectoryError):
                self.problems.append(f"{path} cannot be read: {error.strerror}")
            return b""

    def lines(self, path: str, *, is_needed: bool = False) -> list[str]:
        """Return the lines of a file."""
        return self.text(path, is_needed=is_needed).split("\n")

    def lines_once(self, path: str, *, is_needed: bool = False) -> list[Line]:
        """Return the lines of a file the first time, and none later: it would name the same servers, or itself."""
        if path in self._included:
            return []
        self._included.add(path)
        return [(path, line) for line in self.lines(path, is_needed=is_needed)]

    def with_included(
        self, lines: Iterable[Line], included: Callable[["Files", str, str], Collection[str]], depth: int = _MAX_DEPTH
    ) -> Iterator[Line]:
        """Yield lines, and after each the lines of the files that it includes: `included(files, path, line)`."""
        for path, line in lines:
            yield path, line
            for inner in included(self, path, line) if depth else ():
                yield from self.with_included(self.lines_once(inner), included, depth - 1)

    def first(self, paths: Collection[str]) -> str | None:
        """Return the first of the paths at which there is something."""
        return next((path for path in paths if os.path.lexists(self.root + path)), None)

    def matching(self, pattern: str) -> list[str]:
        """Return the paths that match a shell pattern, sorted; a daemon's working folder is the root."""
        pattern = f"{glob.escape(self.root)}/{pattern.lstrip('/')}"
        return sorted(path[len(self.root) :] for path in glob.glob(pattern))

    def fragments(self, folders: Collection[str], suffix: str) -> list[str]:
        """Return the files of several folders by name; of those with the same name, the first folder's counts."""
        by_name: dict[str, str] = {}
        for folder in folders:
            for path in self.matching(f"{glob.escape(folder)}/*{suffix}"):
                by_name.setdefault(os.path.basename(path), path)
        return [by_name[name] for name in sorted(by_name)]


def split_port(text: str) -> tuple[str, int | None]:
    """Split `HOST[:PORT]` or `[IPv6]:PORT`; a bare IPv6 address has no port. None is a port that cannot be."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return host, read_port([port]) if port else NTP_PORT


def read_port(words: list[str]) -> int | None:
    """Read a port number; None if it is missing or cannot be one."""
    return int(words[0]) if len(words) == 1 and is_port(words[0]) else None

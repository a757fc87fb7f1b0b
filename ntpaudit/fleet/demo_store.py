"""The points of a demonstration in one SQLite file: written once, read as any other database of points is."""

import errno
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from ntpaudit.core.fleet.model import TimeSpans
from ntpaudit.core.fleet.severity import AHEAD_S
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import ReadError, StoreError
from ntpaudit.files import find, replacing, unwritable
from ntpaudit.fleet.decode import CLOCK, DAY, EVENT, EXCURSION, HOUR, SOURCE, Sighting, Table, names_of
from ntpaudit.fleet.reader import Reader, Window
from ntpaudit.formats.line_protocol import Point
from ntpaudit.render.text_safety import tag_value

_APPLICATION_ID = 0x6E747061  # "ntpa", in the header of the file (https://www.sqlite.org/fileformat.html, section 1.3)
_APPLICATION_ID_AT = 68
_MAGIC = b"SQLite format 3\0"
_HEADER_OCTETS = 100
_VERSION = 8
_BATCH = 5000
_TABLES = {table.name: table for table in (CLOCK, EVENT, SOURCE, HOUR, DAY, EXCURSION)}


def _short(table: Table) -> str:
    """Return the name of a table in the file."""
    return table.name.removeprefix("ntpaudit_")


class DemoStore:
    """A demonstration that is being written. It replaces the old one when it is closed, if it is finished.

    Until then the points are in a temporary file of SQLite without a name: nothing is left if the process is killed,
    and no other user can replace it. In a `with` block that fails nothing is written. Every method raises StoreError.
    """

    def __init__(self, path: str) -> None:
        """Begin a demonstration that will be at `path`, in a folder that exists; a link is followed.

        A file that exists and is not a demo database is refused.
        """
        self._path = path
        self._rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in _TABLES}
        self._is_finished = False
        with _write_errors(path):
            if not os.path.basename(path) or os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            _check_target(path)
            self._connection = sqlite3.connect("")
            self._connection.executescript(_schema())

    def write(self, points: Iterable[Point], arrived_ns: int) -> None:
        """Store points. One without a timestamp gets that of its arrival; the same point twice is one."""
        for measurement, tags, fields, stamp_ns in points:
            table = _TABLES[measurement]
            key = (tag_value(tags[tag] or "") for tag in table.key)
            values = (fields.get(name) for name in table.fields)
            self._rows[measurement].append((arrived_ns if stamp_ns is None else stamp_ns, *key, *values))
        if sum(map(len, self._rows.values())) >= _BATCH:
            self._flush()

    def finish(self, end_ns: int) -> None:
        """Mark the demonstration as complete, with the time that is now for its readers."""
        with _write_errors(self._path), self._connection:
            self._connection.execute("DELETE FROM ending")
            self._connection.execute("INSERT INTO ending VALUES (?)", (end_ns,))
        self._is_finished = True

    def close(self) -> None:
        """Put a finished demonstration in its place."""
        try:
            if self._is_finished:
                self._flush()
                with _write_errors(self._path), TemporaryDirectory(prefix="ntpaudit-") as private:
                    copy = os.path.join(private, "demo")
                    self._connection.execute("VACUUM INTO ?", (copy,))
                    _check_target(self._path)  # it may have become another file since
                    with open(copy, "rb") as source, replacing(self._path, 0o600) as target:
                        shutil.copyfileobj(source, target)
        finally:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_finished = self._is_finished and error is None
        self.close()

    def _flush(self) -> None:
        """Write the buffered rows."""
        with _write_errors(self._path), self._connection:
            for name, rows in self._rows.items():
                table = _TABLES[name]
                places = ",".join("?" * (1 + len(table.key) + len(table.fields)))
                statement = f"INSERT OR REPLACE INTO {_short(table)} VALUES ({places})"  # noqa: S608
                self._connection.executemany(statement, rows)
                rows.clear()


def _check_target(path: str) -> None:
    """Raise StoreError unless there is no file yet, or a demonstration. OSError if it cannot be written."""
    with find(path) as found:
        if not os.access(".", os.W_OK, dir_fd=found.folder, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        try:
            if not stat.S_ISREG(os.stat(found.name, dir_fd=found.folder).st_mode):
                raise StoreError(f"{path} is no file that could be replaced; name another with --store")
            handle = os.open(found.name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=found.folder)
        except FileNotFoundError:
            return
    if not _is_demo(handle):
        raise StoreError(f"{path} is not a demo database, and stays; remove it, or name another file with --store")


def _is_demo(handle: int) -> bool:
    """Whether a file, which is closed then, begins as a demonstration of any version does."""
    with open(handle, "rb", buffering=0) as file:
        header = file.read(_HEADER_OCTETS) or b""
    application = int.from_bytes(header[_APPLICATION_ID_AT : _APPLICATION_ID_AT + 4], "big")
    return header.startswith(_MAGIC) and application == _APPLICATION_ID


@contextmanager
def _write_errors(path: str) -> Iterator[None]:
    """Raise StoreError for each failure to write a demonstration."""
    try:
        yield
    except (OSError, sqlite3.Error, ValueError) as error:  # ValueError: a path that no file can have
        raise unwritten(path, error) from error


def _schema() -> str:
    tables = (
        f"CREATE TABLE {_short(table)} (stamp_ns INTEGER, {', '.join((*table.key, *table.fields))}, "
        f"PRIMARY KEY (stamp_ns, {', '.join(table.key)})) WITHOUT ROWID;"
        for table in _TABLES.values()
    )
    return (
        f"PRAGMA application_id={_APPLICATION_ID}; PRAGMA user_version={_VERSION};"
        f"CREATE TABLE ending (end_ns INTEGER NOT NULL); {' '.join(tables)}"
    )


def _one_of(hosts: Sequence[str]) -> str:
    """Write the condition that a host is one of these."""
    return f"host IN ({','.join('?' * len(hosts))})"


def unwritten(path: str, error: Exception) -> StoreError:
    """Return why a demonstration cannot be written, with the fix."""
    if isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return StoreError(f"cannot write {path}: no space for temporary files; make room in /var/tmp, or set TMPDIR")
    if isinstance(error, OSError) and error.errno in _FIXED_IN_PLACE:
        return StoreError(unwritable(path, error))
    reason = (isinstance(error, OSError) and error.strerror) or error
    return StoreError(f"cannot write {path}: {reason}; name another file with --store")


_FIXED_IN_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
"""These have the same fix as for every file; for others another file is the fix."""

_OTHER_FILE = "name another file with --store; `ntpaudit demo --store FILE` makes one"


class DemoReader(Reader):
    """A finished demonstration. The time at which it was finished is now."""

    def __init__(self, path: str, maker: str = "ntpaudit demo") -> None:
        """Open the file. ReadError if it is missing or no demonstration; `maker` is the command that makes one."""
        self._path = path
        self._again = f"create it again: {maker}"
        with self._errors():
            self._check(maker)
            self._connection = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True)
            try:
                self._end_ns = self._end()
            except BaseException:
                self._connection.close()
                raise

    def now_ns(self) -> int:
        """Return the time at which the demonstration ends."""
        return self._end_ns

    def skew_s(self) -> float | None:
        """Return None: a file has no clock."""
        return None

    def is_present(self, moment_ns: int) -> bool:
        """Whether a moment is about the end of the demonstration."""
        return moment_ns >= self._end_ns - round(AHEAD_S * NS_PER_S)

    def buckets(self, spans: TimeSpans, hosts: Sequence[str]) -> Iterable[Any]:
        """Read the number of an interval, a host, and its worst severity, mean, earliest and latest offset in it."""
        statement = f"""
            SELECT (stamp_ns - ?) / ? AS number, host, max(severity), avg(offset_s), min(earliest_s), max(latest_s)
            FROM clock WHERE stamp_ns >= ? AND stamp_ns < ? AND {_one_of(hosts)} GROUP BY number, host
            """  # noqa: S608
        return self._query(statement, (spans.begin_ns, spans.width_ns, spans.begin_ns, spans.end_ns, *hosts))

    def tally(self, spans: TimeSpans, site: str | None) -> Iterable[Any]:
        """Read the number of an interval, a severity, and of how many hosts it was the worst: of one at a time."""
        statement = """
            SELECT (stamp_ns - ?) / ? AS number, max(severity), 1 FROM clock
            WHERE stamp_ns >= ? AND stamp_ns < ? AND (? IS NULL OR site = ?) GROUP BY number, host
            """
        return self._query(statement, (spans.begin_ns, spans.width_ns, spans.begin_ns, spans.end_ns, site, site))

    def last(self, table: Table, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> list[Any]:
        """Read the last point of each series that has the first field."""
        # SQLite takes the other columns from the row of the maximum
        return self._points(table, window, hosts, fields[0], "max(stamp_ns)", f"GROUP BY {', '.join(table.key)}")

    def every(self, table: Table, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> list[Any]:
        """Read all points that have the first field."""
        return self._points(table, window, hosts, fields[0], "stamp_ns")

    def _points(
        self, table: Table, window: Window, hosts: Sequence[str] | None, first: str, stamp: str, end: str = ""
    ) -> list[Any]:
        """Read all fields: that takes no longer."""
        named = "" if hosts is None else f"AND {_one_of(hosts)}"
        rows = self._query(
            f"SELECT {', '.join((*table.tags, stamp, *table.fields))} FROM {_short(table)} "  # noqa: S608
            f"WHERE stamp_ns > ? AND stamp_ns <= ? AND (? IS NULL OR site = ?) AND {first} IS NOT NULL {named} {end}",
            (max(window.begin_ns, -(1 << 63)), window.end_ns, window.site, window.site, *(hosts or ())),
        )
        return [table.row._make(row) for row in rows]

    def origins(self, hosts: Sequence[str], end_ns: int) -> list[Sighting]:
        """Read from which places hosts ever reported."""
        statement = f"SELECT DISTINCT host, site, env, 0 FROM clock WHERE {_one_of(hosts)}"  # noqa: S608
        return [Sighting(*row) for row in self._query(statement, hosts)]

    def names(self, site: str | None) -> set[str]:
        """Read the names of all hosts."""
        rows = self._query("SELECT DISTINCT host FROM clock WHERE ? IS NULL OR site = ?", (site, site))
        return names_of(host for (host,) in rows)

    def sites(self) -> set[str]:
        """Read the names of all sites."""
        return names_of(site for (site,) in self._query("SELECT DISTINCT site FROM clock"))

    def no_hosts(self, site: str | None) -> ReadError:
        """Return the error that no host is known."""
        from ntpaudit.fleet.suggestion import nearest

        if site is None:
            return ReadError(f"{self._path} has no host", self._again)
        near = nearest(site, self.sites())
        fix = f"did you mean {near}?" if near else f"the sites are {', '.join(sorted(self.sites()))}"
        return ReadError(f"{self._path} has no host of site {site!r}", fix)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _end(self) -> int:
        """Return the time at which the demonstration ends. ReadError if it is of another version, or not finished."""
        ((version,),) = self._query("PRAGMA user_version")
        if version != _VERSION:
            raise ReadError(f"{self._path} was made by another version of ntpaudit", self._again)
        for (end_ns,) in self._query("SELECT end_ns FROM ending"):
            if isinstance(end_ns, int):
                return end_ns
        raise ReadError(f"the demo {self._path} is damaged", self._again)

    def _check(self, maker: str) -> None:
        """Raise ReadError with its fix unless there is a file that may be a demonstration."""
        try:
            if _is_demo(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)):  # without this a pipe would block
                return
        except FileNotFoundError:
            raise ReadError(f"there is no demo at {self._path}", f"create one: {maker}") from None
        except IsADirectoryError:
            raise ReadError(f"{self._path} is a folder", _OTHER_FILE) from None
        except OSError as error:
            is_forbidden = error.errno in (errno.EACCES, errno.EPERM)
            fix = f"let the user that runs ntpaudit read it, or {_OTHER_FILE}" if is_forbidden else _OTHER_FILE
            raise ReadError(f"cannot read the demo {self._path}: {error.strerror}", fix) from error
        raise ReadError(f"{self._path} is not a demo database", _OTHER_FILE)

    def _query(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        with self._errors():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, ValueError) as error:  # ValueError: a path that no file can have
            raise ReadError(f"cannot read the demo {self._path}: {error}", self._again) from error

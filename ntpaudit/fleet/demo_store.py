"""The points of a demonstration in one SQLite file: written once, read as any other database of points is."""

import errno
import fcntl
import os
import re
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from tempfile import mkstemp
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from ntpaudit.core.clock.database_clock import MAX_STAMP_DISPUTE_S
from ntpaudit.core.fleet.model import (
    Alarm,
    DuplicateHost,
    FalsetickerReport,
    Host,
    SeverityCounts,
    Snapshot,
    TimeBucket,
    split,
)
from ntpaudit.core.fleet.severity import AHEAD_S
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import ReadError, StoreError
from ntpaudit.files import find, unwritable
from ntpaudit.fleet.decode import (
    BASELINE_S,
    CLOCK_FIELDS,
    EVENTS_S,
    TOGETHER_NS,
    ClockRow,
    EventRow,
    Sighting,
    SourceRow,
    alarms_of,
    bucket_of,
    count_severities,
    current,
    duplicate_hosts_of,
    falseticker_reports_of,
    hosts_of,
    later,
    offsets_of,
    sites_of,
    steps_of,
    text,
    unsettled,
    worst_of,
)
from ntpaudit.fleet.reader import SnapshotOptions
from ntpaudit.formats.line_protocol import Point, Value
from ntpaudit.render.text_safety import tag_value

_APPLICATION_ID = 0x6E747061  # "ntpa": SQLite keeps it in the file's header, so that anybody can tell whose it is
_APPLICATION_ID_AT = 68
_MAGIC = b"SQLite format 3\0"
_HEADER_OCTETS = 100  # https://www.sqlite.org/fileformat.html, section 1.3
_VERSION = 4
_BATCH = 5000

_SCHEMA = """
CREATE TABLE series (id INTEGER PRIMARY KEY, host TEXT NOT NULL, site TEXT, env TEXT);
CREATE TABLE clock (
    series INTEGER NOT NULL,
    stamp_ns INTEGER NOT NULL,
    severity INTEGER, verdict INTEGER,
    offset_s REAL, earliest_s REAL, latest_s REAL,
    age_s REAL, frequency_ppm REAL,
    usable INTEGER, falsetickers INTEGER, findings INTEGER,
    critical_s REAL, warning_s REAL, confirmed INTEGER, judged_on_bound INTEGER, max_drift_ppm REAL,
    disputed_s REAL,
    PRIMARY KEY (series, stamp_ns)
) WITHOUT ROWID;
CREATE TABLE source (
    series INTEGER NOT NULL,
    stamp_ns INTEGER NOT NULL,
    source TEXT NOT NULL,
    status INTEGER, offset_s REAL,
    PRIMARY KEY (series, stamp_ns, source)
) WITHOUT ROWID;
CREATE TABLE event (
    series INTEGER NOT NULL,
    stamp_ns INTEGER NOT NULL,
    kind TEXT NOT NULL,
    severity INTEGER, raised INTEGER, value_s REAL, disputed_s REAL,
    PRIMARY KEY (series, stamp_ns, kind)
) WITHOUT ROWID;
CREATE TABLE ending (end_ns INTEGER NOT NULL);
"""

_TABLES: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "ntpaudit_clock": ("clock", (), CLOCK_FIELDS),
    "ntpaudit_source": ("source", ("source",), ("status", "offset_s")),
    "ntpaudit_event": ("event", ("kind",), ("severity", "raised", "value_s", "disputed_s")),
}
"""Of every measurement: its table, its tags beside the host's, and the fields that readers ask for."""

Row = tuple[Value, ...]


class DemoStore:
    """A demonstration while it is written, beside the old one, which it replaces when it is closed finished.

    In a `with` block it is closed, and thrown away where the block fails. Every method raises StoreError.
    """

    def __init__(self, path: str, writing: "_Writing", connection: sqlite3.Connection) -> None:
        """Hold an empty file that was opened; `create` makes one."""
        self._path = path
        self._writing = writing
        self._connection = connection
        self._series: dict[tuple[str | None, ...], int] = {}
        self._rows: dict[str, list[Row]] = {measurement: [] for measurement in _TABLES}
        self._is_finished = False

    @classmethod
    def create(cls, path: str) -> Self:
        """Begin an empty demonstration that will be at `path`, in a folder that is there; a link is followed.

        What is there already, and is not a demo database, is refused and stays.
        """
        with _telling(path):
            if not os.path.basename(path) or os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            with find(path) as place:
                target = place.path
            _spare(path, target)
            _sweep(target)
            writing = _claim(target)
            try:
                return cls(path, writing, _begin(writing))
            except BaseException:
                writing.drop()
                raise

    def write(self, points: Iterable[Point], arrived_ns: int) -> None:
        """Keep points. One without a stamp gets that of its arrival, as from a database; the same one twice is one."""
        for measurement, tags, fields, stamp_ns in points:
            _, own_tags, names = _TABLES[measurement]
            self._rows[measurement].append(
                (
                    self._series_of(tags),
                    arrived_ns if stamp_ns is None else stamp_ns,
                    *(tag_value(tags[tag] or "") for tag in own_tags),
                    *(fields.get(name) for name in names),
                )
            )
        if sum(map(len, self._rows.values())) >= _BATCH:
            self._flush()

    def finish(self, end_ns: int) -> None:
        """Say that all is written, and which moment is now for whoever reads it."""
        self._flush()
        with _telling(self._path):
            self._connection.execute("DELETE FROM ending")
            self._connection.execute("INSERT INTO ending VALUES (?)", (end_ns,))
        self._is_finished = True

    def close(self) -> None:
        """Put what was finished in its place, and throw away what was not."""
        with _telling(self._path):
            try:
                if self._is_finished:
                    self._flush()
                    self._connection.execute("COMMIT")
                    self._connection.close()
                    _spare(self._path, self._writing.target)  # which has had all the time to become another
                    os.replace(self._writing.path, self._writing.target)
            finally:
                self._connection.close()
                self._writing.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_finished = self._is_finished and error is None
        self.close()

    def _series_of(self, tags: Mapping[str, str | None]) -> int:
        """Return the number of a host at its place."""
        key = (tags["host"], tags["site"], tags["env"])
        if key not in self._series:
            self._series[key] = len(self._series) + 1
            host, site, env = (tag_value(value) if value else None for value in key)
            with _telling(self._path):
                self._connection.execute(
                    "INSERT INTO series VALUES (?, ?, ?, ?)", (self._series[key], host or "", site, env)
                )
        return self._series[key]

    def _flush(self) -> None:
        """Write the rows that wait."""
        with _telling(self._path):
            for measurement, rows in self._rows.items():
                if rows:
                    table, own_tags, names = _TABLES[measurement]
                    columns = ("series", "stamp_ns", *own_tags, *names)
                    self._connection.executemany(
                        f"INSERT OR REPLACE INTO {table} ({','.join(columns)}) "  # noqa: S608
                        f"VALUES ({','.join('?' * len(columns))})",
                        rows,
                    )
                    rows.clear()


class _Writing(NamedTuple):
    """A file that is written in place of another. It is locked, so that whoever finds it knows that its writer lives.

    The lock is the handle's (flock), which is none of those that SQLite takes.
    """

    path: str
    target: str
    handle: int

    def drop(self) -> None:
        """Remove it, where it has not taken its place, and let go of it."""
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        os.close(self.handle)


def _claim(target: str) -> _Writing:
    """Make an empty file beside another, and hold it. Raises OSError."""
    folder, name = os.path.split(target)
    while True:
        handle, path = mkstemp(prefix=f".{name}.", dir=folder)
        if _is_locked(handle) and os.fstat(handle).st_nlink:
            return _Writing(path, target, handle)
        os.close(handle)  # whoever swept the folder just now was faster, and removes it


def _is_locked(handle: int) -> bool:
    """Lock a file, where nobody else has. A file system that cannot is no reason not to write."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno in (errno.ENOLCK, errno.EOPNOTSUPP)
    return True


def _sweep(target: str) -> None:
    """Remove what runs that were killed have left beside a demonstration: no living one holds it."""
    folder, name = os.path.split(target)
    pattern = re.compile(rf"\.{re.escape(name)}\.[a-z0-9_]{{8}}")  # as mkstemp names them
    for left in filter(pattern.fullmatch, os.listdir(folder)):
        with suppress(OSError):  # it is another's, or gone
            _remove_if_left(os.path.join(folder, left))


def _remove_if_left(path: str) -> None:
    """Remove an unfinished demonstration that nobody writes any longer. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode) and (not found.st_size or _is_ours(handle)):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
    finally:
        os.close(handle)


def _spare(path: str, target: str) -> None:
    """Raise StoreError unless there is nothing yet, or a demonstration. OSError where that cannot be seen."""
    try:
        if not stat.S_ISREG(os.stat(target).st_mode):
            raise StoreError(f"{path} is no file that could be replaced; name another with --store")
        handle = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not _is_ours(handle):
            raise StoreError(f"{path} is not a demo database, and stays; remove it, or name another file with --store")
    finally:
        os.close(handle)


def _is_ours(handle: int) -> bool:
    """Whether a file's header says that it is a demonstration, finished or not, of whatever version."""
    header = os.pread(handle, _HEADER_OCTETS, 0)
    application = int.from_bytes(header[_APPLICATION_ID_AT : _APPLICATION_ID_AT + 4], "big")
    return header.startswith(_MAGIC) and application == _APPLICATION_ID


def _begin(writing: _Writing) -> sqlite3.Connection:
    """Open an empty file, and write the schema into it. OSError where its name led to another file."""
    connection = sqlite3.connect(writing.path, isolation_level=None)
    try:
        connection.execute("PRAGMA schema_version").fetchone()  # SQLite opens the file only now, and follows links
        if not _is_open_twice(writing.handle):
            raise OSError(errno.EBUSY, "another user of its folder replaced the new file")
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={_VERSION}")
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN")
    except BaseException:
        connection.close()
        raise
    return connection


def _is_open_twice(handle: int) -> bool:
    """Whether this process has the file of a handle open by another handle too."""
    ours, count = os.fstat(handle), 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the folder's own handle is closed by now
            count += os.path.samestat(os.fstat(int(name)), ours)
    return count > 1


@contextmanager
def _telling(path: str) -> Iterator[None]:
    """Raise StoreError for what goes wrong while a demonstration is written."""
    try:
        yield
    except (OSError, sqlite3.Error, ValueError) as error:  # ValueError: a path that no file can have
        raise unwritten(path, error) from error


def unwritten(path: str, error: Exception) -> StoreError:
    """Return why a demonstration cannot be written, in the words of every other file, and what would mend it."""
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if isinstance(error, OSError) and error.errno in _MENDED_IN_PLACE:
        return StoreError(unwritable(path, error))
    reason = (isinstance(error, OSError) and error.strerror) or error
    return StoreError(f"cannot write {path}: {reason}; name another file with --store")


_MENDED_IN_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
"""What is said of a file elsewhere fits; that it may not be written is mended by another one."""


_OTHER = "name another file with --store; `ntpaudit demo --store FILE` makes one"
"""What mends that a file is none of ours: it is not to be overwritten."""


class DemoReader:
    """A demonstration, read. It ends where it was finished, and that moment is now."""

    def __init__(self, path: str, maker: str = "ntpaudit demo") -> None:
        """Open the file. ReadError where there is none, or another; `maker` is the command that makes it."""
        self._path = path
        self._maker = maker
        with self._telling():
            self._look()
            self._connection = sqlite3.connect(
                f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True, check_same_thread=False
            )
            try:
                self._end_ns = self._end()
            except BaseException:
                self._connection.close()
                raise

    def now_ns(self) -> int:
        """Return the moment at which the demonstration ends."""
        return self._end_ns

    def skew_s(self) -> float | None:
        """A file has no clock."""
        return None

    def snapshot(self, now_ns: int, reach: SnapshotOptions) -> Snapshot:
        """Read every host as it stood at a moment."""
        begin_ns = now_ns - round(reach.look_back_s * NS_PER_S)
        lately_ns = max(begin_ns, now_ns - round(reach.silent_after_s * NS_PER_S))
        before_ns = now_ns - round(reach.baseline_s * NS_PER_S)
        site = reach.site
        rows = self._query("SELECT host FROM series WHERE ? IS NULL OR site = ?", (site, site))
        known = {name for (cell,) in rows if (name := text(cell)) is not None}
        if not known:
            if site is not None:
                from ntpaudit.fleet.suggestion import nearest

                near = nearest(site, (str(place) for (place,) in self._query("SELECT site FROM series") if place))
                guess = f"did you mean {near}?" if near else "check the name of the site"
                raise ReadError(f"{self._path} knows no host of site {site!r}", guess)
            raise ReadError(f"{self._path} knows no host", f"create it again: {self._maker}")
        is_present = now_ns >= self._end_ns - _AHEAD_NS
        until_ns = now_ns + _AHEAD_NS if is_present else now_ns
        latest = list(self._latest(begin_ns, until_ns))
        everywhere = self._current(latest, begin_ns, until_ns, now_ns, is_present=is_present)
        hosts = {name: host for name, host in everywhere.items() if site in (None, host.site)}
        duplicates = tuple(
            duplicate for duplicate in self._clashes(lately_ns, now_ns) if site is None or site in duplicate.sites
        )
        clashing = {duplicate.name for duplicate in duplicates}
        here = (row for row in latest if row.last_ns > lately_ns and site in (None, row.site))
        hosts |= worst_of(here, clashing, hosts, lately_ns)
        earlier = {
            name: one
            for name, one in offsets_of(
                self._latest(
                    before_ns - round(BASELINE_S * NS_PER_S), before_ns, "offset_s IS NOT NULL AND disputed_s IS NULL"
                )
            ).items()
            if name in hosts and name not in clashing
        }
        forgotten = known - everywhere.keys()
        alarms = self._alarms(now_ns, hosts, reach.baseline_s, is_present=is_present)
        return Snapshot(
            now_ns,
            tuple(hosts.values()),
            tuple(alarm for alarm in alarms if site is None or alarm.host in known),
            tuple(self._lies(tuple(hosts.values()), begin_ns, until_ns)),
            {name: one.bounds for name, one in earlier.items()},
            reach.baseline_s,
            tuple(sorted(forgotten)),
            {name: one.stamp_ns for name, one in earlier.items()},
            duplicates,
            reach.look_back_s,
            {name: place for name, place in self._places().items() if name in forgotten},
            is_present,
        )

    def _current(
        self, latest: Iterable[ClockRow], begin_ns: int, until_ns: int, now_ns: int, *, is_present: bool
    ) -> dict[str, Host]:
        """Return each host by the point that came last: its stamp may be ahead of now, or behind."""
        first_ns = begin_ns - round(MAX_STAMP_DISPUTE_S * NS_PER_S)
        disputed = hosts_of(self._latest(first_ns, until_ns, "disputed_s IS NOT NULL"))
        ahead = hosts_of(self._latest(until_ns, _LAST_NS)) if is_present else {}
        hosts = current(hosts_of(latest), disputed, ahead)
        for name in unsettled(hosts, disputed.keys() | ahead.keys(), now_ns - TOGETHER_NS):
            last_ns = until_ns + round(MAX_STAMP_DISPUTE_S * NS_PER_S) if is_present else until_ns
            hosts |= later({name: hosts[name]}, self._arrived(name, first_ns, until_ns, last_ns))
        return hosts

    def _arrived(self, host: str, begin_ns: int, until_ns: int, last_ns: int) -> Iterator[ClockRow]:
        """Read the point of a host that came last, of each place that it was at: its stamp may not be the latest."""
        rows = self._query(
            f"""
            SELECT host, site, env, stamp_ns, {", ".join(CLOCK_FIELDS)}, max(
                stamp_ns - CASE WHEN abs(disputed_s) <= ? THEN CAST(disputed_s * 1e9 AS INTEGER) ELSE 0 END
            ) FROM clock JOIN series ON series = id
            WHERE host = ? AND stamp_ns > ? AND stamp_ns <= CASE WHEN disputed_s IS NULL THEN ? ELSE ? END
            GROUP BY series
            """,  # noqa: S608
            (MAX_STAMP_DISPUTE_S, host, begin_ns, until_ns, last_ns),
        )
        return (ClockRow(*row[:-1]) for row in rows)

    def host_series(
        self, hosts: Sequence[str], begin_ns: int, end_ns: int, count: int
    ) -> Mapping[str, tuple[TimeBucket, ...]]:
        """Read how hosts fared over a period in so many spans of equal length; spans without a point are left out."""
        spans = split(begin_ns, end_ns, count)
        return {
            host: tuple(
                bucket_of(spans.begin_ns + place * spans.width_ns, *cells)
                for place, *cells in self._query(
                    """
                    SELECT (stamp_ns - ?) / ? AS place, max(severity), avg(offset_s), min(earliest_s), max(latest_s)
                    FROM clock WHERE series IN (SELECT id FROM series WHERE host = ?) AND stamp_ns >= ? AND stamp_ns < ?
                    GROUP BY place ORDER BY place
                    """,
                    (spans.begin_ns, spans.width_ns, host, spans.begin_ns, spans.end_ns),
                )
            )
            for host in hosts
        }

    def tallies(self, begin_ns: int, end_ns: int, count: int, site: str | None = None) -> tuple[SeverityCounts, ...]:
        """Read how the fleet fared over a period in so many spans of equal length."""
        spans = split(begin_ns, end_ns, count)
        rows = self._query(
            """
            SELECT (stamp_ns - ?) / ? AS place, max(severity), 1
            FROM clock JOIN series ON series = id
            WHERE stamp_ns >= ? AND stamp_ns < ? AND (? IS NULL OR site = ?)
            GROUP BY place, host
            """,
            (spans.begin_ns, spans.width_ns, spans.begin_ns, spans.end_ns, site, site),
        )
        return count_severities(spans, rows)

    def steps(self, begin_ns: int, end_ns: int, site: str | None = None) -> tuple[Alarm, ...]:
        """Read every step that hosts told of in a period."""
        rows = self._query(
            """
            SELECT host, kind, stamp_ns, raised, severity, value_s FROM event JOIN series ON series = id
            WHERE stamp_ns > ? AND stamp_ns <= ? AND (? IS NULL OR site = ?)
            """,
            (begin_ns, end_ns, site, site),
        )
        return steps_of(EventRow(*row) for row in rows)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _end(self) -> int:
        """Return where the demonstration ends. ReadError where the file is not one, or not finished."""
        (application,), *_ = self._query("PRAGMA application_id")
        (version,), *_ = self._query("PRAGMA user_version")
        if application != _APPLICATION_ID:
            raise ReadError(f"{self._path} is not a demo database", _OTHER)
        if version != _VERSION:
            raise ReadError(f"{self._path} was made by another version of ntpaudit", f"create it again: {self._maker}")
        for (end_ns,) in self._query("SELECT end_ns FROM ending"):
            if isinstance(end_ns, int):
                return end_ns
        raise ReadError(f"the demo {self._path} is damaged", f"create it again: {self._maker}")

    def _look(self) -> None:
        """Look whether there is a file that may be a demonstration. ReadError tells of each case what mends it."""
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
        except FileNotFoundError:
            raise ReadError(f"there is no demo at {self._path}", f"create one: {self._maker}") from None
        except OSError as error:
            is_shut = error.errno in (errno.EACCES, errno.EPERM)
            fix = f"let the user that runs ntpaudit read it, or {_OTHER}" if is_shut else _OTHER
            raise ReadError(f"cannot read the demo {self._path}: {error.strerror}", fix) from error
        try:
            mode = os.fstat(handle).st_mode
            if stat.S_ISDIR(mode):
                raise ReadError(f"{self._path} is a folder", _OTHER)
            if not stat.S_ISREG(mode) or os.read(handle, len(_MAGIC)) not in (b"", _MAGIC):
                raise ReadError(f"{self._path} is not a demo database", _OTHER)
        finally:
            os.close(handle)

    def _latest(self, begin_ns: int, end_ns: int, condition: str = "TRUE") -> Iterator[ClockRow]:
        """Read the latest point of every series in a time, its end within."""
        rows = self._query(
            f"""
            SELECT host, site, env, stamp_ns, {", ".join(CLOCK_FIELDS)}
            FROM series JOIN clock ON clock.series = series.id AND stamp_ns = (
                SELECT max(stamp_ns) FROM clock
                WHERE clock.series = series.id AND stamp_ns > ? AND stamp_ns <= ? AND {condition}
            )
            """,  # noqa: S608
            (begin_ns, end_ns),
        )
        return (ClockRow(*row) for row in rows)

    def _places(self) -> dict[str, str]:
        """Read where hosts reported from, of those that were never elsewhere."""
        return sites_of(Sighting(*row) for row in self._query("SELECT host, site, env, 0 FROM series"))

    def _clashes(self, begin_ns: int, end_ns: int) -> tuple[DuplicateHost, ...]:
        """Find the names under which several machines report."""
        rows = self._query(
            """
            SELECT host, site, env, stamp_ns FROM clock JOIN series ON series = id
            WHERE stamp_ns > ? AND stamp_ns <= ? AND host IN (SELECT host FROM series GROUP BY host HAVING count(*) > 1)
            """,
            (begin_ns, end_ns),
        )
        return duplicate_hosts_of(Sighting(*row) for row in rows)

    def _alarms(
        self, now_ns: int, hosts: Mapping[str, Host], before_s: float, *, is_present: bool
    ) -> tuple[Alarm, ...]:
        """Read what is in force: of each host until its latest point, and what is disputed, may be ahead of now."""
        ahead_ns = now_ns + round(MAX_STAMP_DISPUTE_S * NS_PER_S) if is_present else now_ns
        happened = (
            EventRow(*row)
            for row in self._query(
                """
                SELECT host, kind, stamp_ns, raised, severity, value_s, disputed_s
                FROM event JOIN series ON series = id WHERE stamp_ns > ?
                """,
                (now_ns - round(EVENTS_S * NS_PER_S),),
            )
        )
        until_ns = {name: max(host.last_ns, now_ns) for name, host in hosts.items()}
        rows = (
            row
            for row in happened
            if row.stamp_ns <= until_ns.get(str(row.host), now_ns)
            or (row.disputed_s is not None and row.stamp_ns <= ahead_ns)
        )
        return alarms_of(rows, now_ns, before_s)

    def _lies(self, hosts: Sequence[Host], begin_ns: int, end_ns: int) -> Iterator[FalsetickerReport]:
        """Read the falsetickers of the latest audit of those hosts that see any."""
        for host in hosts:
            if host.falsetickers:
                until_ns = max(end_ns, host.last_ns)
                rows = self._query(
                    """
                    SELECT host, source, stamp_ns, status, offset_s FROM source JOIN series ON series = id
                    WHERE series IN (SELECT id FROM series WHERE host = ?) AND stamp_ns > ? AND stamp_ns <= ?
                    ORDER BY stamp_ns DESC LIMIT ?
                    """,
                    (host.name, begin_ns, until_ns, _MOST_SOURCES),
                )
                yield from falseticker_reports_of(SourceRow(*row) for row in rows)

    def _query(self, statement: str, values: Sequence[object] = ()) -> Iterator[Any]:
        """Yield the rows of an answer."""
        with self._telling():
            yield from self._connection.execute(statement, values)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raise ReadError for what goes wrong while a demonstration is read."""
        try:
            yield
        except (OSError, sqlite3.Error, ValueError) as error:  # ValueError: a path that no file can have
            raise ReadError(f"cannot read the demo {self._path}: {error}", f"create it again: {self._maker}") from error


_MOST_SOURCES = 1000
_AHEAD_NS = round(AHEAD_S * NS_PER_S)
_LAST_NS = (1 << 63) - 1

"""The SQLite file: opened durably, created if missing, upgraded from an older version, renamed when damaged."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from ntpaudit.errors import StoreError
from ntpaudit.log import LazyLogger
from ntpaudit.store import chain

logger = LazyLogger(__name__)

SCHEMA = """
    CREATE TABLE servers (endpoint TEXT PRIMARY KEY, memory TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE audits (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        host_ns INTEGER NOT NULL,
        observation TEXT NOT NULL,
        record TEXT,
        kind TEXT,
        boot_id TEXT,
        boottime_ns INTEGER,
        suspended_ns INTEGER,
        raw_ns INTEGER,
        utc_ns INTEGER,
        severity INTEGER,
        verdict INTEGER,
        offset_ns INTEGER,
        earliest_ns INTEGER,
        latest_ns INTEGER,
        local_s REAL
    );
    CREATE INDEX audits_unjudged ON audits (boottime_ns) WHERE record IS NULL;
    CREATE INDEX audits_network ON audits (id) WHERE kind = 'network';
    CREATE TABLE rollups (
        hour_s INTEGER PRIMARY KEY,
        audits INTEGER NOT NULL,
        measured INTEGER NOT NULL,
        within INTEGER NOT NULL,
        unproven INTEGER NOT NULL,
        beyond INTEGER NOT NULL,
        severity INTEGER NOT NULL,
        least_offset_ns INTEGER,
        most_offset_ns INTEGER,
        most_bound_ns INTEGER
    );
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        raised INTEGER NOT NULL,
        severity INTEGER NOT NULL,
        level TEXT NOT NULL,
        text TEXT NOT NULL,
        utc_ns INTEGER,
        host_ns INTEGER NOT NULL,
        boot_id TEXT,
        boottime_ns INTEGER NOT NULL,
        value_s REAL,
        detail TEXT NOT NULL
    );
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        audit_id INTEGER,
        boot_id TEXT,
        boottime_ns INTEGER NOT NULL,
        host_ns INTEGER NOT NULL,
        stamp_ns INTEGER,
        lines TEXT NOT NULL
    );
    CREATE INDEX outbox_undated ON outbox (id) WHERE stamp_ns IS NULL;
    CREATE TABLE set_aside (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        audit_id INTEGER,
        stamp_ns INTEGER,
        lines TEXT NOT NULL,
        reason TEXT NOT NULL
    );
    CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

EVIDENCE_SCHEMA = """
    CREATE TABLE accounts (
        length_s INTEGER NOT NULL,
        begin_s INTEGER NOT NULL,
        account TEXT NOT NULL,
        PRIMARY KEY (length_s, begin_s)
    ) WITHOUT ROWID;
    CREATE TABLE notes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        utc_ns INTEGER,
        host_ns INTEGER NOT NULL,
        note TEXT NOT NULL
    );
    CREATE TABLE chain (
        sequence INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        row INTEGER NOT NULL,
        digest BLOB NOT NULL,
        head BLOB NOT NULL
    );
    CREATE TABLE segments (
        first INTEGER PRIMARY KEY,
        last INTEGER,
        day_s INTEGER NOT NULL,
        before BLOB NOT NULL,
        head BLOB
    );
"""
"""What version 5 added: accounts of hours and days, notes (what happened to the history), and the chain of all rows."""

VERSION = 5  # the `PRAGMA user_version` of a file of this schema
OLDEST_VERSION = 4  # of a file that `open_database` upgrades
WAIT_S = 5.0  # how long to wait for a lock, where nothing else is delayed
PAGE_BYTES = 1024  # the page size of a new file. A commit writes whole pages, and a record takes less than one.
_MEMORY = ":memory:"
_CACHE_KIB = 512  # of pages: an agent rarely reads what it wrote, and must stay small
_MAX_WAL_BYTES = 4 << 20  # larger only while another process reads, or for one large change


def open_database(path: str, wait_s: float = WAIT_S, *, setting: str = "history.path") -> sqlite3.Connection:
    """Open the file; create it and its folder (0700) if missing. A damaged file is renamed and logged, never deleted.

    `wait_s` is how long to wait for a lock, now and in every use. Raises StoreError with path and fix if the state
    folder cannot be used; `setting` is the setting that chooses another one.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        try:
            return _open(path, wait_s)
        except sqlite3.Error as error:
            if not (is_damage(error) and set_aside_damaged(path)):
                raise
            return _open(path, wait_s)
    except (OSError, sqlite3.Error) as error:
        reason, fix = why_unusable(path, error)
        raise StoreError(
            f"cannot store state in {path}: {reason}", f"{fix}choose another path with {setting}"
        ) from error


def why_unusable(path: str, error: OSError | sqlite3.Error) -> tuple[str, str]:
    """Return why a file cannot be used by this user, and the beginning of a sentence about what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, sqlite3.Error) and code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return str(error), ""
    folder = os.path.dirname(path) or "."
    place = folder
    while not os.path.lexists(place):
        place = os.path.dirname(place) or "."
    with suppress(OSError):  # the cause may be gone by now
        if os.path.isdir(path):
            return "it is a folder", "name a file in it, or "
        if not os.path.isdir(place):
            return f"{place} is not a folder", "remove it, or "
        if not os.access(place, os.W_OK | os.X_OK):
            why = _why_not_writable(f"folder {place}", place)
            if place != folder:
                return f"folder {folder} is missing, and {why}", "create it for that user, or "
            return why, "let that user write there, or "
        if os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
            return _why_not_writable("it", path), "give it to that user, or "
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)), ""


def _why_not_writable(what: str, path: str) -> str:
    found, user = os.stat(path), _user(os.geteuid())
    why = f"owner {_user(found.st_uid)}, mode {found.st_mode & 0o7777:04o}"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        why = "its file system is read-only here; in a systemd unit see ReadWritePaths="
    return f"user {user} may not write to {what} ({why})"


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _open(path: str, wait_s: float = WAIT_S) -> sqlite3.Connection:
    """Open one file, and create the tables of a new one, in one transaction."""
    connection = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
    try:
        with _detect_damage(connection):
            version = _version(connection)  # another program's file is not changed
            if version == 0:  # an existing file keeps its settings
                connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            _use_wal(connection, wait_s)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            connection.execute(f"PRAGMA journal_size_limit={_MAX_WAL_BYTES}")
            if version < VERSION:
                with _one_transaction(connection):
                    _create_tables(connection, has_chain=path != _MEMORY)
    except BaseException:
        connection.close()
        raise
    return connection


def _create_tables(connection: sqlite3.Connection, *, has_chain: bool) -> None:
    version = _version(connection)  # again: another process may have created or upgraded them
    for first_version, statements in ((OLDEST_VERSION, SCHEMA), (VERSION, EVIDENCE_SCHEMA)):
        if version < first_version:
            for statement in statements.split(";"):
                connection.execute(statement)
    if version < VERSION:
        connection.execute(f"PRAGMA user_version={VERSION}")
        if has_chain:
            chain.begin(connection)


def _use_wal(connection: sqlite3.Connection, wait_s: float) -> None:
    """Use a write-ahead log, so readers and a writer do not block each other. SQLite itself does not wait here."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _version(connection: sqlite3.Connection) -> int:
    """Return the schema version of the file. OperationalError if it is newer, or another program's."""
    version, tables = connection.execute(  # in one query: another process may be creating them
        "SELECT user_version, (SELECT COUNT(*) FROM sqlite_schema) FROM pragma_user_version"
    ).fetchone()
    if version > VERSION:
        raise sqlite3.OperationalError(f"written by a newer ntpaudit (schema {version}, known {VERSION})")
    if version == 0 and tables:
        raise sqlite3.OperationalError("it is another program's database")
    if version != 0 and version < OLDEST_VERSION:
        raise sqlite3.DatabaseError(f"no schema has version {version}")
    return int(version)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run one transaction. StoreError if the disk is full, or the file locked, read-only or damaged."""
    with store_errors(connection), _one_transaction(connection):
        yield


@contextmanager
def unsynced_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run one transaction that a power failure, but no crash of the process, can undo. StoreError as `transaction`."""
    with store_errors(connection):
        connection.execute("PRAGMA synchronous=NORMAL")
        try:
            with _one_transaction(connection):
                yield
        finally:
            connection.execute("PRAGMA synchronous=FULL")


@contextmanager
def store_errors(connection: sqlite3.Connection) -> Iterator[None]:
    """Turn an error of SQLite into a StoreError, and mark damage."""
    try:
        with _detect_damage(connection):
            yield
    except sqlite3.Error as error:
        raise StoreError(f"the state could not be used: {error}") from error


@contextmanager
def _one_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def open_memory() -> sqlite3.Connection:
    """Open an empty database of the current schema, in memory."""
    return _open(_MEMORY)


def is_damage(error: StoreError | sqlite3.Error) -> bool:
    """Return whether an error means a malformed file, for which SQLite uses exactly the class DatabaseError."""
    return type(error.__cause__ if isinstance(error, StoreError) else error) is sqlite3.DatabaseError


def is_locked(error: StoreError) -> bool:
    """Return whether an error means that another process held a lock for too long."""
    code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextmanager
def _detect_damage(connection: sqlite3.Connection) -> Iterator[None]:
    """Report as damage also a text that is not UTF-8, and missing tables or columns."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError(f"malformed name: {error}") from error
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", None)  # None if Python raised it, not SQLite
        is_text = code is None and "Could not decode to UTF-8" in str(error)
        if is_text or (code == sqlite3.SQLITE_ERROR and not _has_schema(connection)):
            raise sqlite3.DatabaseError(str(error)) from error
        raise


def _has_schema(connection: sqlite3.Connection) -> bool:
    columns = "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'"
    with closing(open_memory()) as reference, suppress(sqlite3.Error, UnicodeDecodeError):
        return {*reference.execute(columns)} <= {*connection.execute(columns)}
    return False


def set_aside_damaged(path: str) -> bool:
    """Rename a damaged file and its journal, which SQLite finds by its name; return False if that fails."""
    aside = f"{path}.damaged-{time.time_ns()}"
    try:
        for part in ("", "-wal", "-shm"):
            if os.path.exists(path + part):
                os.rename(path + part, aside + part)
    except OSError as error:
        logger.warning(f"{path} is damaged and cannot be renamed: {error}")
        return False
    logger.warning(f"{path} is damaged: renamed to {aside}; continuing with a new file")
    return True

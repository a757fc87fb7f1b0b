"""The SQLite file: opened durably, brought to the current schema, set aside when damaged."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ntpaudit.errors import StoreError

SCHEMA = (
    # 1: the memory of servers, and audits as they were seen and concluded
    """
    CREATE TABLE servers (endpoint TEXT PRIMARY KEY, memory TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE audits (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        host_ns INTEGER NOT NULL,
        observation TEXT NOT NULL,
        record TEXT
    );
    """,
    # 2: the agent's history, which is its outbox too
    """
    ALTER TABLE audits ADD COLUMN kind TEXT;
    ALTER TABLE audits ADD COLUMN boot_id TEXT;
    ALTER TABLE audits ADD COLUMN boottime_ns INTEGER;
    ALTER TABLE audits ADD COLUMN suspended_ns INTEGER;
    ALTER TABLE audits ADD COLUMN raw_ns INTEGER;
    ALTER TABLE audits ADD COLUMN utc_ns INTEGER;
    ALTER TABLE audits ADD COLUMN severity INTEGER;
    ALTER TABLE audits ADD COLUMN verdict INTEGER;
    ALTER TABLE audits ADD COLUMN offset_ns INTEGER;
    ALTER TABLE audits ADD COLUMN earliest_ns INTEGER;
    ALTER TABLE audits ADD COLUMN latest_ns INTEGER;
    ALTER TABLE audits ADD COLUMN distance_s REAL;
    CREATE INDEX audits_unjudged ON audits (id) WHERE record IS NULL;
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
    """,
)
"""Each entry takes the schema one version further; `PRAGMA user_version` counts those applied."""

_BUSY_TIMEOUT_S = 5.0


def open_database(path: str, note: Callable[[str], None]) -> sqlite3.Connection:
    """Open the file, making it and its folder (0700) where missing; a damaged one is set aside, noted, never deleted.

    Raises StoreError, naming path and fix, where the state folder cannot be used.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        try:
            return _open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            set_aside_damaged(path, note)
            return _open(path)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"cannot keep state in {path}: {error}; name a writable folder in STATE_DIRECTORY") from error


def _open(path: str) -> sqlite3.Connection:
    """Open one file and bring its schema up to date, in one transaction."""
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # of a new file only; others keep what they are
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL")
        if 0 <= (version := _version(connection)) < len(SCHEMA):
            with transaction(connection):
                version = _version(connection)  # another process may have been first
                for statements in SCHEMA[version:]:
                    for statement in filter(str.strip, statements.split(";")):
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version={len(SCHEMA)}")
        elif version > len(SCHEMA):
            raise sqlite3.OperationalError(f"written by a newer ntpaudit (schema {version}, known {len(SCHEMA)})")
        elif version < 0:
            raise sqlite3.DatabaseError(f"no schema has version {version}")
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Let readers and a writer not wait for each other; SQLite does not itself wait for its turn to change the mode."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _version(connection: sqlite3.Connection) -> int:
    """Return how many entries of the schema the file has."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do all or nothing; raises StoreError where the disk is full, the file locked or read-only."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise StoreError(f"the state could not be used: {error}") from error


def open_memory() -> sqlite3.Connection:
    """Open an empty database of the current schema that lives in memory only."""
    return _open(":memory:")


def is_damage(error: StoreError) -> bool:
    """Whether a use failed because the file is damaged: not locked, full or read-only."""
    cause = error.__cause__
    return isinstance(cause, sqlite3.DatabaseError) and not isinstance(cause, sqlite3.OperationalError)


def set_aside_damaged(path: str, note: Callable[[str], None]) -> None:
    """Rename a damaged file, with its journal, so that it can still be examined."""
    suffix = f".damaged-{time.time_ns()}"
    note(f"{path} is damaged and was set aside as {path}{suffix}; what it held of servers is forgotten")
    for part in (path, f"{path}-wal", f"{path}-shm"):
        if os.path.exists(part):
            os.rename(part, f"{part}{suffix}")

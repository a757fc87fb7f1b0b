"""The history opened for reading: never written, and whatever is wrong with it told in a line that says what to do."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ntpaudit.errors import StoreError
from ntpaudit.probes import service
from ntpaudit.store.database import SCHEMA
from ntpaudit.store.paths import FILE_NAME, SYSTEM_FOLDER, VOUCHER, state_folder

_BUSY_TIMEOUT_S = 5.0


def find_history(environment: Mapping[str, str], *, by_agent: bool) -> str:
    """Return where the history lies: in our own state folder, else the system's.

    Our own is passed over where it holds no audit (`by_agent`: no agent's) and the system has a state folder.
    """
    own = os.path.join(state_folder(environment), FILE_NAME)
    system = os.path.join(SYSTEM_FOLDER, FILE_NAME)
    if own == system or environment.get("STATE_DIRECTORY") or not os.path.lexists(SYSTEM_FOLDER):
        return own
    condition = "kind IS NOT NULL" if by_agent else "TRUE"
    try:
        with open_history(own) as history:
            kept = history.execute(f"SELECT 1 FROM audits WHERE {condition} LIMIT 1").fetchone()  # noqa: S608
    except StoreError:
        kept = None
    return own if kept else system


def agent_runs(path: str) -> bool | None:
    """Return whether an agent runs that keeps this history: it locks the folder. None where that is not seen."""
    return _is_held(os.path.dirname(path) or ".", os.O_DIRECTORY)


def agent_vouches(path: str) -> bool | None:
    """Return whether the agent that runs is the one of which this history says what the latest agent is (`Claim`).

    Ask before the history is read: then what it says is of that agent or of a later one. None where it is not seen.
    """
    runs = agent_runs(path)
    return runs and (_is_held(os.path.join(os.path.dirname(path), VOUCHER), os.O_NOFOLLOW | os.O_NONBLOCK) or False)


def _is_held(path: str, flags: int) -> bool | None:
    """Return whether a process holds this lock; None where that is not seen.

    The lock is tried for a moment, shared; an agent that starts just then tries again (`Claim`).
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except (OSError, ValueError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False


@contextmanager
def open_history(path: str) -> Iterator[sqlite3.Connection]:
    """Open a history for reading. StoreError where that cannot be done, or stops half-way: a line with what to do."""
    try:
        _check_readable(path)
        connection = _connect(path)
        try:
            _check_version(connection, path)
            yield connection
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise StoreError(_trouble(path, error)) from error


def _check_readable(path: str) -> None:
    """Raise StoreError where there is no file, or not for us."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for a writer
        try:
            empty = not os.read(handle, 1)
        finally:
            os.close(handle)
    except (FileNotFoundError, NotADirectoryError):
        empty = True
    except PermissionError as error:
        raise StoreError(f"{path} may be read by root only; put sudo before the command") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if empty:
        raise StoreError(_absence(path))


def no_record(path: str) -> str:
    """Say that no agent has kept a record, and what to do."""
    return f"no agent has kept a record in {path}; start one: {service.start()}"


def _absence(path: str) -> str:
    """Say that there is no history, and what to do."""
    if agent_runs(path):
        return f"an agent runs and has kept nothing in {path}; check {service.examine()}"
    return no_record(path)


def _connect(path: str) -> sqlite3.Connection:
    """Connect without the right to write; where SQLite cannot even share its lock file, as to a file that is frozen."""
    try:
        return _try(path, "mode=ro")
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode & 0xFF
        if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or _has_journal(path):
            raise
    return _try(path, "mode=ro&immutable=1")


def _try(path: str, mode: str) -> sqlite3.Connection:
    """Connect and read a first page, which is when SQLite finds out whether it can."""
    from urllib.parse import quote

    connection = sqlite3.connect(f"file:{quote(path)}?{mode}", uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _has_journal(path: str) -> bool:
    """Whether a part of the history is still in the write-ahead log, so that the file alone is not all of it."""
    try:
        return os.path.getsize(f"{path}-wal") > 0
    except OSError:
        return False


def _check_version(connection: sqlite3.Connection, path: str) -> None:
    """Raise StoreError where the file is of another schema than ours."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(SCHEMA):
        raise StoreError(
            f"{path} was written by a newer ntpaudit (schema {version}, this one knows {len(SCHEMA)}); upgrade this one"
        )
    if version == 0 and not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        raise StoreError(_absence(path))
    if version < len(SCHEMA):
        raise StoreError(
            f"{path} is of an older ntpaudit (schema {version}); an agent updates it at its start: {service.restart()}"
        )


def _trouble(path: str, error: sqlite3.DatabaseError) -> str:
    """Say in a line what is wrong with a file."""
    if not isinstance(error, sqlite3.OperationalError):
        return f"{path} is damaged ({error}); an agent sets it aside when it starts: {service.restart()}"
    match error.sqlite_errorcode & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"{path} is locked by another program; try again"
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY:
            return f"{path} was not closed, and its folder cannot be written; copy it with its -wal file, or use sudo"
    return f"{path} cannot be read: {error}"

"""The history opened for reading only; every problem is a StoreError of one line that names the fix."""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress

from ntpaudit.errors import StoreError
from ntpaudit.probes import service
from ntpaudit.store.database import OLDEST_VERSION, VERSION, WAIT_S, why_unusable
from ntpaudit.store.lock import agent_runs
from ntpaudit.store.paths import FILE_NAME, SYSTEM_FOLDER, state_folder


def find_history(environment: Mapping[str, str], *, by_agent: bool) -> str:
    """Return the path of the history: in the user's state folder, else in the system's.

    The user's is skipped if it has no audit (`by_agent`: none of an agent) and the system has a state folder.
    """
    own = os.path.join(state_folder(environment), FILE_NAME)
    system = os.path.join(SYSTEM_FOLDER, FILE_NAME)
    if own == system or environment.get("STATE_DIRECTORY") or not os.path.lexists(SYSTEM_FOLDER):
        return own
    condition = "kind IS NOT NULL" if by_agent else "TRUE"
    with suppress(StoreError), open_readonly(own) as connection:
        if connection.execute(f"SELECT 1 FROM audits WHERE {condition} LIMIT 1").fetchone():  # noqa: S608
            return own
    return system


@contextmanager
def open_readonly(path: str) -> Iterator[sqlite3.Connection]:
    """Open a history for reading. StoreError, with the fix, if that fails or reading stops half-way."""
    try:
        _check_readable(path)
        with closing(_connect(path)) as connection:
            _check_version(connection, path)
            yield connection
    except sqlite3.DatabaseError as error:
        raise StoreError(_describe_error(path, error)) from error


def _check_readable(path: str) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for a writer
        try:
            empty = not os.read(handle, 1)
        finally:
            os.close(handle)
    except FileNotFoundError:
        empty = True
    except NotADirectoryError as error:
        reason, fix = why_unusable(path, error)
        raise StoreError(f"{path} cannot be read: {reason}; {fix}choose another path with history.path") from error
    except PermissionError as error:
        raise StoreError(f"only root may read {path}; run the command with sudo") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if empty:
        raise StoreError(_no_history(path))


def no_record(path: str) -> str:
    """Return the message that no agent has stored a record, with the fix."""
    reason, fix = why_unusable(path, FileNotFoundError())
    user = f" as a user that may write there ({reason})" if fix else ""
    fix = f"if one runs already, read its log, else start one{user}: {service.start()}"
    return f"no agent has stored a record in {path}; {fix}"


def _no_history(path: str) -> str:
    if agent_runs(path):
        reason, fix = why_unusable(path, FileNotFoundError())
        why = f" ({reason})" if fix else ""
        return f"an agent runs but has stored nothing in {path}{why}; check {service.examine()}"
    return no_record(path)


def _connect(path: str) -> sqlite3.Connection:
    """Connect read-only; where SQLite cannot create its lock file, as to an immutable file."""
    try:
        return _try(path, "mode=ro")
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode & 0xFF
        wal = f"{path}-wal"
        has_journal = os.path.exists(wal) and os.path.getsize(wal) > 0
        if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or has_journal:
            raise
    return _try(path, "mode=ro&immutable=1")


def _try(path: str, mode: str) -> sqlite3.Connection:
    """Connect and read one page: only then SQLite detects that it cannot."""
    from urllib.parse import quote

    connection = sqlite3.connect(f"file:{quote(path)}?{mode}", uri=True, timeout=WAIT_S, isolation_level=None)
    try:
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _check_version(connection: sqlite3.Connection, path: str) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer ntpaudit (schema {version}, this one knows {VERSION}); upgrade this one"
        )
    if version == 0:
        if connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
            raise StoreError(f"{path} is another program's database; choose another path with history.path")
        raise StoreError(_no_history(path))
    if version < OLDEST_VERSION:
        raise sqlite3.DatabaseError(f"no schema has version {version}")


def _describe_error(path: str, error: sqlite3.DatabaseError) -> str:
    if not isinstance(error, sqlite3.OperationalError):
        return (
            f"{path} is damaged ({error}); an agent renames it and starts a new one at its start: {service.restart()}"
        )
    match error.sqlite_errorcode & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"{path} is locked by another program; try again"
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY:
            return f"{path} was not closed, and its folder cannot be written; copy it with its -wal file, or use sudo"
    return f"{path} cannot be read: {error}"

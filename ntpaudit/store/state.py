"""The agent's state: the history file, or a database in memory while the file cannot be used.

Nothing here stops the agent. A full, locked, read-only or damaged file is logged. Meanwhile records are stored in
memory and delivered from there; they are moved into the file as soon as it works again.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

from ntpaudit.core.chain import BEGIN, ChainHead
from ntpaudit.core.events import Event
from ntpaudit.core.ntp.rate_limit import ServerStates
from ntpaudit.core.observation import Observation
from ntpaudit.core.record import Record
from ntpaudit.core.units import plural
from ntpaudit.errors import StoreError
from ntpaudit.log import LazyLogger
from ntpaudit.store import audits, chain, database, outbox, retention, saved_state, transfer
from ntpaudit.store.outbox import OutboxEntry
from ntpaudit.store.readonly import open_readonly
from ntpaudit.store.unsaved import Unsaved, UnsavedFile

logger = LazyLogger(__name__)

RETRY_S = 30.0  # the first retry delay for a file that cannot be used; each failure doubles it, to 300 s at most
LOCKED_RETRY_S = 1.0  # the same for a locked file: most locks end soon, and records in memory are at risk
WAIT_S = 0.5  # how long to wait for a lock: the agent's loop must feed the watchdog
CLOSE_WAIT_S = 1.0  # the same when the agent stops and would lose the records in memory

MAX_MEMORY_RECORDS = 20_000  # audits in memory, one a minute for two weeks; the oldest beyond are dropped and counted
MAX_WAL_BYTES = 64 << 20  # a larger log is reported: another process reads without end, so SQLite cannot reset it
_CLOSES_SAFELY = (3, 40)  # from this SQLite on, closing a deleted file does not delete a new log of that name

_Identity = tuple[int, int] | None
_P = ParamSpec("_P")
_Done = TypeVar("_Done")
_Render = Callable[[ChainHead | None], str]
_Work = Callable[Concatenate[sqlite3.Connection, _P], _Done]


class StateStore:
    """The state of one agent, for several threads; problems are logged once. Row ids of file and memory differ."""

    def __init__(self, path: str, *, retry_s: float = RETRY_S) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._file: _Identity = None
        self._side_files: dict[str, _Identity] = {}
        self._removed: sqlite3.Connection | None = None  # a file that was deleted; its outbox is not carried over yet
        self._never_closed: list[sqlite3.Connection] = []
        self._unsaved = UnsavedFile(f"{path}-unsaved")
        self._left = Unsaved()  # lost by a run that was killed; not yet counted in the file
        self._first_retry_s = self._retry_s = retry_s
        self._retry_at_s = 0.0
        self._known_head = BEGIN  # of the chain: a new file continues it if this one is removed or damaged
        self._dropped_before = 0  # the total when the memory database was created
        self._wal_large_since_s: float | None = None
        self._wal_error: str | None = None
        self._file_error: str | None = None
        self._logged_error: str | None = None  # the last error of the file that was logged
        self.remedy = ""  # of the file's last problem
        self.is_in_memory = False
        """Records are stored in memory only."""

    @property
    def error(self) -> str | None:
        """The current problem of the file or of its log, None if it works."""
        return self._file_error or self._wal_error

    def read(self, work: "_Work[_P, _Done]", *args: _P.args, **kwargs: _P.kwargs) -> _Done:
        """Run a function of this package that only reads, on the file or on the memory database in use."""
        return self._use(database.store_errors, lambda connection: work(connection, *args, **kwargs))

    def write(self, work: "_Work[_P, _Done]", *args: _P.args, **kwargs: _P.kwargs) -> _Done:
        """Run a function of this package in one transaction.

        If the file fails, it runs again on a memory database, so it must change nothing but the connection's database.
        """
        return self._use(database.transaction, lambda connection: work(connection, *args, **kwargs))

    def update(self, change: Callable[[ServerStates], ServerStates]) -> None:
        """Call `change` once with the stored server states, and store the states it returns."""
        kept: list[ServerStates] = []  # `work` may run twice

        def work(connection: sqlite3.Connection) -> None:
            if not kept:
                kept.append(change(saved_state.load_server_states(connection)))
            saved_state.save_server_states(connection, kept[0])

        self.write(work)

    def store_audit(
        self,
        observation: Observation,
        record: Record,
        events: Sequence[Event],
        entry: OutboxEntry | None,
        states: Mapping[str, Any],
        render: "_Render | None" = None,
    ) -> ChainHead | None:
        """Store all of an audit in one transaction; `entry` is None without a database, `states` are the agent's.

        Return the head of the chain after it, None in memory; `render` makes the lines of the entry with that head.
        """

        def work(connection: sqlite3.Connection) -> ChainHead | None:
            audit_id = audits.keep_audit(connection, observation, record)
            audits.roll_up(connection, record)
            audits.keep_events(connection, events, record.host.boot_id)
            head = chain.last_head(connection)
            rendered = entry if entry is None or render is None else entry._replace(lines=render(head))
            _keep_entry_and_state(connection, rendered, states, audit_id)
            return head

        head = self.write(work)
        self._known_head = head or self._known_head
        return head

    def ack(self, entries: Sequence[OutboxEntry]) -> None:
        """Remove delivered entries, the oldest of the outbox. After a power failure they may be sent again."""
        self._use(database.unsynced_transaction, lambda connection: outbox.ack(connection, entries))

    def close(self) -> bool:
        """Move records in memory into the file if it works again, and close it; return False if records are lost."""
        with self._lock:
            if self.is_in_memory:
                self._return_to_file(CLOSE_WAIT_S)
            is_lost = self.is_in_memory
            if is_lost:
                lost = plural(self._unsaved_in(self._connection_in_use()).records, "record")
                why = "" if self._file_error == self._logged_error else f": {self._file_error}"
                logger.warning(
                    f"{lost} could not be written to {self._path}{why}; repair the folder, or set history.path"
                )
            if self._connection is not None:
                self._connection.close()
            if self._removed is not None:
                self._close_removed(self._removed)
            self._unsaved.close()
            self._connection = self._removed = None
            self.is_in_memory = False
            return not is_lost

    def _use(
        self, within: "Callable[[sqlite3.Connection], AbstractContextManager[None]]", work: "_Work[[], _Done]"
    ) -> _Done:
        with self._lock:
            if self._connection is not None and not self.is_in_memory:
                self._check_files()  # may change to memory
            if self.is_in_memory and time.monotonic() >= self._retry_at_s:
                self._return_to_file()
            if not self.is_in_memory:
                try:
                    connection = self._connection_in_use()
                    with within(connection):
                        done = work(connection)
                    self._check_wal_size()
                    return done
                except StoreError as error:
                    self._fall_back_to_memory(error)
            connection = self._connection_in_use()  # in memory
            with within(connection):
                done = work(connection)  # if it only reads, the next line finds nothing to drop
                retention.drop_beyond(connection, MAX_MEMORY_RECORDS)
            self._unsaved.write(self._unsaved_in(connection))
            return done

    def _connection_in_use(self) -> sqlite3.Connection:
        """Return the connection to the memory database or the file, which is opened if need be."""
        if self._connection is None:
            try:
                self._connection = database.open_database(self._path, WAIT_S)
            finally:
                self._left = self._unsaved.open()
            if self._known_head != BEGIN:
                with database.transaction(self._connection):
                    chain.resume(self._connection, self._known_head)
            self._remember_files()
            self._count_left(self._connection)
        return self._connection

    def _count_left(self, file: sqlite3.Connection) -> None:
        left = self._left
        if left.records:
            try:
                with database.transaction(file):
                    saved_state.count_dropped(file, left.undelivered)
            except StoreError:
                return  # it stays in the `-unsaved` file until the next start
            logger.warning(
                f"{plural(left.records, 'record')} of the last run were in memory only when it ended and are lost; "
                f"{left.undelivered} of them were not delivered"
            )
        self._left = Unsaved()
        self._unsaved.write(Unsaved())

    def _unsaved_in(self, memory: sqlite3.Connection) -> Unsaved:
        """Return how many records a crash would lose now, including those of a deleted file and of a killed run."""
        (stored, waiting), removed = audits.count_stored(memory), 0
        if self._removed is not None:
            with suppress(sqlite3.Error):
                removed = outbox.backlog(self._removed)[0]
        undelivered = waiting + self._dropped_of(memory) + removed
        return Unsaved(self._left.records + stored + removed, self._left.undelivered + undelivered)

    def _remember_files(self) -> None:
        self._file = _identity(self._path)
        self._side_files = {part: _identity(self._path + part) for part in ("-wal", "-shm")}

    def _check_files(self) -> None:
        """Detect that the file, its log or its index was deleted or replaced: further writes would be lost."""
        assert self._connection is not None
        if _identity(self._path) != self._file:
            self._fall_back_to_memory(StoreError(f"{self._path} was removed or replaced"))
            return
        for part, before in self._side_files.items():
            if before is not None and _identity(self._path + part) != before:
                self._reopen(self._path + part)
                return

    def _reopen(self, missing: str) -> None:
        """Checkpoint a deleted log into the file and reopen the file, which starts a new log."""
        assert self._connection is not None
        try:
            with database.store_errors(self._connection):
                (is_busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except StoreError as error:
            self._fall_back_to_memory(error)
            return
        if is_busy:
            return  # another process reads: the next use tries again
        self._connection.close()
        self._connection, self._side_files = None, {}
        logger.warning(f"{missing} was removed or replaced; its content is saved in {os.path.basename(self._path)}")

    def _check_wal_size(self) -> None:
        """Log a write-ahead log that stays large; after a single large change it soon shrinks."""
        try:
            is_large = os.stat(f"{self._path}-wal").st_size > MAX_WAL_BYTES
        except OSError:
            is_large = False
        now_s = time.monotonic()
        if not is_large:
            self._wal_large_since_s = self._wal_error = None
        elif self._wal_large_since_s is None:
            self._wal_large_since_s = now_s
        elif self._wal_error is None and now_s - self._wal_large_since_s > 10 * self._first_retry_s:
            self._wal_error = (
                f"{self._path}-wal keeps growing: another process has been reading the history for too long"
            )
            logger.warning(self._wal_error)

    def _fall_back_to_memory(self, error: StoreError) -> None:
        """Continue in memory, with the readable part of the file's state. A damaged file is renamed."""
        self._file_error, self.remedy = str(error), error.remedy
        self._logged_error = self._file_error
        logger.warning(f"{error}; continuing in memory")
        memory, file, at_once = database.open_memory(), self._connection, False
        if file is not None:
            with suppress(sqlite3.Error):
                self._known_head = chain.last_head(file) or self._known_head
        if file is None:
            with suppress(StoreError), open_readonly(self._path) as seen:
                transfer.copy_state(seen, memory)
        else:
            transfer.copy_state(file, memory)
            if at_once := _identity(self._path) != self._file:
                self._removed = file  # kept open until its outbox is carried over
                self._remove_side_files(file)
            else:
                file.close()
                at_once = database.is_damage(error) and database.set_aside_damaged(self._path)
        self._connection, self.is_in_memory, self._retry_s = memory, True, 0.0
        self._dropped_before = saved_state.dropped(memory)
        self._schedule_retry(error, at_once=at_once)

    def _remove_side_files(self, file: sqlite3.Connection) -> None:
        """Delete log and index of a file that was deleted: SQLite would apply them to the next file of that name."""
        with suppress(sqlite3.Error):  # the file may have been renamed, and the log is part of it
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        for part, identity in self._side_files.items():
            if identity is not None and _identity(self._path + part) == identity:
                with suppress(OSError):
                    os.unlink(self._path + part)

    def _schedule_retry(self, error: StoreError, *, at_once: bool) -> None:
        """Set the time of the next attempt: `at_once` if the file has left its path, so that a new one can be made."""
        first_s = min(self._first_retry_s, LOCKED_RETRY_S) if database.is_locked(error) else self._first_retry_s
        self._retry_s = max(first_s, min(2 * self._retry_s, 10 * first_s))
        self._retry_at_s = time.monotonic() + (0.0 if at_once else self._retry_s)

    def _return_to_file(self, wait_s: float = WAIT_S) -> None:
        assert self._connection is not None
        memory, is_set_aside = self._connection, False
        records, _ = audits.count_stored(memory)
        dropped = max(0, records - MAX_MEMORY_RECORDS)
        try:
            file = database.open_database(self._path, wait_s)
            self._unsaved.open()
            try:
                with database.transaction(file):
                    carried = ""
                    if self._removed is not None:
                        count, unread = transfer.carry_over(self._removed, file)
                        failed = f"; part of its outbox could not be read: {unread}" if unread else ""
                        carried = f", and {plural(count, 'undelivered record')} of the deleted file{failed}"
                    # a new file has dropped none; an unreadable one had another number
                    total = max(saved_state.dropped(file), self._dropped_before) + self._dropped_of(memory)
                    chain.resume(file, self._known_head)
                    chain.note(file, "memory", {"why": self._file_error, "records": records, "dropped": dropped})
                    transfer.move(memory, file)
                    if total:
                        saved_state.save_state(file, saved_state.DROPPED, total)
            except StoreError as error:
                file.close()
                is_set_aside = database.is_damage(error) and database.set_aside_damaged(self._path)
                raise
        except StoreError as error:
            self._file_error, self.remedy = str(error), error.remedy
            self._schedule_retry(error, at_once=is_set_aside)
            return
        memory.close()
        lost = f", except {plural(dropped, 'record')} dropped for lack of memory" if dropped else ""
        logger.warning(f"{self._path} works again; the records in memory are saved in it{lost}{carried}")
        self._connection, self.is_in_memory, self._file_error = file, False, None
        self._remember_files()
        if self._removed is not None:
            self._close_removed(self._removed)
            self._removed = None
        self._count_left(file)

    def _close_removed(self, file: sqlite3.Connection) -> None:
        """Close a deleted file without deleting the log of the file that has its name now."""
        if sqlite3.sqlite_version_info < _CLOSES_SAFELY:
            self._never_closed.append(file)
        else:
            file.close()

    def _dropped_of(self, memory: sqlite3.Connection) -> int:
        return saved_state.dropped(memory) - self._dropped_before


def keep_events_and_state(
    connection: sqlite3.Connection,
    events: Sequence[Event],
    boot_id: str | None,
    entry: OutboxEntry | None,
    states: Mapping[str, Any],
) -> ChainHead | None:
    """Store events, with the outbox entry and the agent's state; return the head of the chain, None in memory."""
    audits.keep_events(connection, events, boot_id)
    _keep_entry_and_state(connection, entry, states, None)
    return chain.last_head(connection)


def _keep_entry_and_state(
    connection: sqlite3.Connection, entry: OutboxEntry | None, states: Mapping[str, Any], audit_id: int | None
) -> None:
    if entry is not None:
        outbox.enqueue(connection, entry, audit_id)
    for key, state in states.items():
        saved_state.save_state(connection, key, state)


def _identity(path: str) -> _Identity:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino

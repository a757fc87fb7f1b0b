"""The agent's state: the history's file, or a stand-in in memory while the file cannot be used.

Nothing here stops the agent. A full, locked, read-only or damaged file is noted, what is kept meanwhile is delivered
from memory, and goes into the file as soon as it takes it.
"""

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from ntpaudit.core.events import Event
from ntpaudit.core.ntp.rate_limit import ServerStates
from ntpaudit.core.observation import Observation
from ntpaudit.core.record import Kind, Record
from ntpaudit.core.units import plural
from ntpaudit.errors import BusyError, StoreError
from ntpaudit.log import LazyLogger
from ntpaudit.store import history, servers
from ntpaudit.store.database import (
    is_damage,
    is_locked,
    looking,
    open_database,
    open_memory,
    set_aside_damaged,
    transaction,
    unsynced_transaction,
)
from ntpaudit.store.history import OutboxEntry
from ntpaudit.store.paths import VOUCHER
from ntpaudit.store.readonly import open_history
from ntpaudit.store.unsaved import Unsaved, UnsavedFile

logger = LazyLogger(__name__)

RETRY_S = 30.0
"""How long to wait before a file that could not be used is tried again; each failure doubles it, up to tenfold."""

LOCKED_RETRY_S = 1.0
"""The same where somebody else writes to the file: most are done soon, and what is in memory only is at risk."""

WAIT_S = 0.5
"""How long to wait for somebody else who writes: the agent's loop has a watchdog to feed."""

CLOSE_WAIT_S = 1.0
"""The same when the agent ends, and what is in memory would be lost."""

MAX_MEMORY_RECORDS = 20_000
"""How many audits the stand-in holds, two weeks of minutes; beyond that the oldest are dropped, and that is noted."""

MAX_WAL_BYTES = 64 << 20
"""A write-ahead log larger than this is told of: somebody reads without an end, and SQLite cannot begin it anew."""

LOCK_TRIES = 10
"""How often a folder's lock is tried before it counts as another agent's."""

_CLAIM_PAUSE_S = 0.05

_Done = TypeVar("_Done")
_Work = Callable[[sqlite3.Connection], _Done]


class AuditRow(NamedTuple):
    """All that one audit leaves behind, kept in one transaction. `letter` is None where nothing is to be delivered.

    `states` is what the agent itself has to know at its next start, by key, as JSON has it.
    """

    observation: Observation
    record: Record
    events: Sequence[Event] = ()
    entry: OutboxEntry | None = None
    distance_s: float | None = None
    states: Mapping[str, Any] = MappingProxyType({})


class StateStore:
    """The state of one agent; `note` is told what is wrong with it, once. It may be used from several threads.

    File and stand-in count their rows each for itself, so an id alone names nothing once the state has moved.
    """

    def __init__(self, path: str, note: Callable[[str], None] = logger.warning, *, retry_s: float = RETRY_S) -> None:
        self._path = path
        self._note = note
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._file: _Identity = None
        self._side_files: dict[str, _Identity] = {}
        self._removed: sqlite3.Connection | None = None  # a file without its name, whose outbox is not carried over yet
        self._kept_open: list[sqlite3.Connection] = []
        self._unsaved = UnsavedFile(f"{path}-unsaved")
        self._left = Unsaved()  # by a run that was killed, until the history's file knows it
        self._stands_in = False
        self._first_retry_s = self._retry_s = retry_s
        self._retry_at_s = 0.0
        self._dropped_before = 0  # what the stand-in's total was when it began
        self._log_large_at_s: float | None = None
        self._noted: str | None = None
        self.error: str | None = None
        """What is wrong with the file now, None where it is sound."""

    @property
    def stands_in(self) -> bool:
        """Whether all that is kept now is in memory only."""
        return self._stands_in

    def update(self, change: Callable[[ServerStates], ServerStates]) -> None:
        """Call `change` once with what is remembered of servers, and keep what it returns."""
        kept: list[ServerStates] = []

        def turn(connection: sqlite3.Connection) -> None:
            if not kept:
                kept.append(change(servers.load_server_states(connection)))
            servers.save_server_states(connection, kept[0])

        self._do(turn)

    def keep_observation(self, observation: Observation, kind: Kind) -> int:
        """Keep what an audit saw, before it is judged; return its id."""
        return self._do(lambda connection: history.keep_observation(connection, observation, kind))

    def keep_record(self, audit_id: int | None, concluded: AuditRow) -> None:
        """Keep what was concluded, its events, its place in the outbox and the agent's mind: all or nothing.

        `audit_id` is what `keep_observation` returned, None where the observation was not kept before.
        """
        observation, record = concluded.observation, concluded.record

        def work(connection: sqlite3.Connection) -> None:
            kept_id = None if audit_id is None else history.find_pending(connection, observation)
            if kept_id is None:
                kept_id = history.keep_audit(connection, observation, record, concluded.distance_s)
            else:
                history.keep_record(connection, kept_id, record, concluded.distance_s)
            history.roll_up(connection, record)
            history.keep_events(connection, concluded.events, record.host.boot_id)
            if concluded.entry is not None:
                history.enqueue(connection, concluded.entry, kept_id)
            for key, state in concluded.states.items():
                history.save_state(connection, key, state)

        self._do(work)

    def keep_events(
        self, events: Sequence[Event], boot_id: str | None, entry: OutboxEntry | None, states: Mapping[str, Any]
    ) -> None:
        """Keep what happened between two audits, at once."""

        def work(connection: sqlite3.Connection) -> None:
            history.keep_events(connection, events, boot_id)
            if entry is not None:
                history.enqueue(connection, entry, None)
            for key, state in states.items():
                history.save_state(connection, key, state)

        self._do(work)

    def read(self, work: "_Work[_Done]") -> _Done:
        """Do something that reads, or writes, all at once."""
        return self._do(work)

    def load(self, key: str) -> Any:
        """Return what was kept under a key, None where nothing was."""
        return self._look(lambda connection: history.load_state(connection, key))

    def save(self, key: str, value: Any) -> None:
        """Keep a value under a key."""
        self._do(lambda connection: history.save_state(connection, key, value))

    def unstamped(self) -> list[OutboxEntry]:
        """Return the letters of moments whose true time is not known, the oldest MAX_UNSTAMPED of them."""
        return self._look(history.unstamped)

    def waiting(self, count: int) -> list[OutboxEntry]:
        """Return the oldest letters to deliver."""
        return self._look(lambda connection: history.waiting(connection, count))

    def newest(self) -> OutboxEntry | None:
        """Return the newest letter to deliver."""
        return self._look(history.newest)

    def ack(self, entries: Sequence[OutboxEntry]) -> None:
        """Forget letters that have been delivered: the oldest that wait. A power failure may have them sent again."""
        self._use(unsynced_transaction, lambda connection: history.ack(connection, entries))

    def dead_letter(self, entry: OutboxEntry, reason: str) -> None:
        """Take a letter that will never be accepted, or that nobody can date, out of the way."""
        self._do(lambda connection: history.dead_letter(connection, entry, reason))

    def backlog(self) -> tuple[int, int | None, int]:
        """Return how many letters wait, the time of the oldest, and how many are set aside."""
        return self._look(history.backlog)

    def dropped(self) -> int:
        """Return how many records were given up so far because there was no room, in this run and in all before."""
        return self._look(history.dropped)

    def close(self) -> bool:
        """Write the stand-in to the file if that works by now, and close it; return False where something is lost."""
        with self._lock:
            if self._stands_in:
                self._return_to_file(CLOSE_WAIT_S)
            is_lost = self._stands_in
            if is_lost:
                lost = plural(self._unsaved_in(self._open()).records, "record")
                why = "" if self.error == self._noted else f": {self.error}"
                self._note(f"{lost} could not be written to {self._path}{why}")
            if self._connection is not None:
                self._connection.close()
            if self._removed is not None:
                self._close_removed(self._removed)
            self._unsaved.close()
            self._connection = self._removed = None
            self._stands_in = False
            return not is_lost

    def _do(self, work: "_Work[_Done]") -> _Done:
        """Do all of something or nothing."""
        return self._use(transaction, work)

    def _look(self, work: "_Work[_Done]") -> _Done:
        """Read, whoever writes."""
        return self._use(looking, work)

    def _use(
        self, within: "Callable[[sqlite3.Connection], AbstractContextManager[None]]", work: "_Work[_Done]"
    ) -> _Done:
        """Do something with the file, or with its stand-in where the file cannot be used."""
        with self._lock:
            if self._connection is not None and not self._stands_in:
                self._check_files()
            if self._stands_in and time.monotonic() >= self._retry_at_s:
                self._return_to_file()
            if not self._stands_in:
                try:
                    connection = self._open()
                    with within(connection):
                        done = work(connection)
                    self._watch_log()
                    return done
                except StoreError as error:
                    self._use_memory(error)
            connection = self._open()
            with within(connection):
                done = work(connection)
                history.count_dropped(connection, history.drop_beyond(connection, MAX_MEMORY_RECORDS))
            self._unsaved.write(self._unsaved_in(connection))
            return done

    def _open(self) -> sqlite3.Connection:
        """Return the connection in use. StoreError where the file cannot be opened."""
        if self._connection is None:
            try:
                self._connection = open_database(self._path, self._note, WAIT_S)
            finally:
                self._left = self._unsaved.open()
            self._remember_files()
            self._count_left(self._connection)
        return self._connection

    def _count_left(self, file: sqlite3.Connection) -> None:
        """Add to the file's count what a run that was killed had in memory only, and report it."""
        left = self._left
        if left.records:
            try:
                with transaction(file):
                    history.count_dropped(file, left.undelivered)
            except StoreError:
                return  # it stays in its own file, for the next time
            self._note(
                f"{plural(left.records, 'record')} of the last run were in memory only when it ended, and are lost; "
                f"{left.undelivered} of them were not delivered"
            )
        self._left = Unsaved()
        self._unsaved.write(Unsaved())

    def _unsaved_in(self, memory: sqlite3.Connection) -> Unsaved:
        """Return how many records would be lost now, those of a removed file and of a killed run included."""
        kept, waiting = history.count_kept(memory)
        dropped, removed = self._dropped_of(memory), 0
        if self._removed is not None:
            with suppress(sqlite3.Error):
                removed = history.backlog(self._removed)[0]
        more = dropped + removed
        return Unsaved(self._left.records + kept + more, self._left.undelivered + waiting + more)

    def _remember_files(self) -> None:
        """Remember what tells the file that is open, its log and its index from others of the same names."""
        self._file = _identity(self._path)
        self._side_files = {part: _identity(self._path + part) for part in _SIDE_FILES}

    def _check_files(self) -> None:
        """Notice that the file, its log or its index no longer has its name: what is written then has no future."""
        assert self._connection is not None
        if _identity(self._path) != self._file:
            self._use_memory(StoreError(f"{self._path} was removed or replaced"))
            return
        for part, before in self._side_files.items():
            if before is not None and _identity(self._path + part) != before:
                self._reopen(self._path + part)
                return

    def _reopen(self, missing: str) -> None:
        """Bring all that a log without a name holds into the file, which then begins another."""
        assert self._connection is not None
        try:
            with looking(self._connection):
                (is_busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except StoreError as error:
            self._use_memory(error)
            return
        if is_busy:
            return  # somebody reads: the next use tries again
        self._connection.close()
        self._connection, self._side_files = None, {}
        self._note(f"{missing} was removed or replaced; all that it held is in {os.path.basename(self._path)}")

    def _watch_log(self) -> None:
        """Tell of a write-ahead log that stays large: after one large change it is cut back soon."""
        try:
            is_large = os.stat(f"{self._path}-wal").st_size > MAX_WAL_BYTES
        except OSError:
            is_large = False
        now_s = time.monotonic()
        if not is_large:
            self._log_large_at_s = self.error = None
        elif self._log_large_at_s is None:
            self._log_large_at_s = now_s
        elif self.error is None and now_s - self._log_large_at_s > 10 * self._first_retry_s:
            self.error = f"{self._path}-wal grows without an end: somebody has been reading the history for too long"
            self._note(self.error)

    def _use_memory(self, error: StoreError) -> None:
        """Go on in memory, with what can be read of the file's state. A damaged file is set aside."""
        self.error = self._noted = str(error)
        self._note(f"{error}; going on in memory")
        memory, file = open_memory(), self._connection
        is_gone, is_damaged = file is not None and _identity(self._path) != self._file, is_damage(error)
        if file is None:
            with suppress(StoreError), open_history(self._path) as seen:
                history.copy_state(seen, memory)
        else:
            history.copy_state(file, memory)
        if file is not None and is_gone:
            self._removed = file  # until its outbox is carried over
            self._remove_side_files(file)
        elif file is not None:
            file.close()
            is_gone = is_damaged and set_aside_damaged(self._path, self._note)
        self._connection, self._stands_in, self._retry_s = memory, True, 0.0
        self._dropped_before = history.dropped(memory)
        self._put_off(error)
        if is_gone:
            self._retry_at_s = time.monotonic()

    def _remove_side_files(self, file: sqlite3.Connection) -> None:
        """Remove log and index of a file that lost its name: SQLite would apply them to the next file of that name.

        All that the log holds goes into the file first, which may have another name by now.
        """
        with suppress(sqlite3.Error):
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        for part, identity in self._side_files.items():
            if identity is not None and _identity(self._path + part) == identity:
                with suppress(OSError):
                    os.unlink(self._path + part)

    def _put_off(self, error: StoreError) -> None:
        """Decide when the file is tried again, after what it failed of this time."""
        first_s = min(self._first_retry_s, LOCKED_RETRY_S) if is_locked(error) else self._first_retry_s
        self._retry_s = max(first_s, min(2 * self._retry_s, 10 * first_s))
        self._retry_at_s = time.monotonic() + self._retry_s

    def _return_to_file(self, wait_s: float = WAIT_S) -> None:
        """Move what the stand-in holds into the file, if the file can be used by now."""
        assert self._connection is not None
        memory, is_gone = self._connection, False
        try:
            file = open_database(self._path, self._note, wait_s)
            self._unsaved.open()
            try:
                with transaction(file):
                    carried = self._carry_over(file)
                    self._move(memory, file)
            except StoreError as error:
                file.close()
                is_gone = is_damage(error) and set_aside_damaged(self._path, self._note)
                raise
        except StoreError as error:
            self.error = str(error)
            self._put_off(error)
            if is_gone:
                self._retry_at_s = 0.0
            return
        dropped = self._dropped_of(memory)
        memory.close()
        lost = f", but for {plural(dropped, 'record')} that were too many for it" if dropped else ""
        self._note(f"{self._path} can be used again; what was kept in memory is in it{lost}{carried}")
        self._connection, self._stands_in, self.error = file, False, None
        self._remember_files()
        if self._removed is not None:
            self._close_removed(self._removed)
            self._removed = None
        self._count_left(file)

    def _carry_over(self, file: sqlite3.Connection) -> str:
        """Add what a removed file had still to deliver; return what there is to say of it."""
        if self._removed is None:
            return ""
        carried, error = history.carry_over(self._removed, file)
        failed = f"; its outbox could not be read to its end: {error}" if error else ""
        return f", and {plural(carried, 'undelivered record')} of the file that was removed{failed}"

    def _close_removed(self, file: sqlite3.Connection) -> None:
        """Close a file without a name. It must not delete the log of the file that has its name now."""
        if hasattr(file, "setconfig"):  # Python 3.12
            file.setconfig(_NO_CHECKPOINT_ON_CLOSE, True)
        elif sqlite3.sqlite_version_info < _CLOSES_SAFELY:
            self._kept_open.append(file)
            return
        file.close()

    def _move(self, memory: sqlite3.Connection, file: sqlite3.Connection) -> None:
        """Add all that the stand-in holds to the file, and what it dropped to the file's own count."""
        before = max(history.dropped(file), self._dropped_before)  # a new file has none, one not read another
        history.move(memory, file)
        history.save_dropped(file, before + self._dropped_of(memory))

    def _dropped_of(self, memory: sqlite3.Connection) -> int:
        """Return how many records the stand-in dropped."""
        return history.dropped(memory) - self._dropped_before


_Identity = tuple[int, int] | None

_SIDE_FILES = ("-wal", "-shm")

_NO_CHECKPOINT_ON_CLOSE = 1006  # SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE

_CLOSES_SAFELY = (3, 40)
"""From this SQLite on, at the latest, a file that lost its name is closed without deleting a log by that name."""


def _identity(path: str) -> _Identity:
    """Return what tells a file from another of the same name, None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class AgentLock:
    """The right to be the one agent of a state folder, held until the process ends.

    It is a lock on the folder. A second one, on a file in it, says that the state is by now that of the agent that runs
    (`vouch`): until then it is that of an agent of before, whose uptimes may be those of another boot.
    """

    def __init__(self, folder: str) -> None:
        """Take it. BusyError where another agent holds it; a folder that cannot be opened can be claimed by nobody."""
        self._handle: int | None = None
        self._voucher: int | None = None
        self._folder = folder
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _lock(self._handle)
        except BlockingIOError as error:
            raise BusyError(f"another agent uses {folder}; stop it, or name another STATE_DIRECTORY") from error
        except OSError:
            return  # the ledger will tell why the folder is of no use

    def vouch(self) -> None:
        """Say that what the history says of the agent, it says of this one. Where that cannot be said, it is not."""
        if self._handle is None or self._voucher is not None:
            return
        path = os.path.join(self._folder, VOUCHER)
        with suppress(OSError):
            with suppress(FileNotFoundError):
                os.unlink(path)  # it may be another user's, after an agent was run by hand as root
            handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _lock(handle)
            except OSError:
                os.close(handle)  # the next audit tries again
                raise
            self._voucher = handle

    def release(self) -> None:
        """Give it up; the end of the process does so too."""
        for handle in (self._voucher, self._handle):
            if handle is not None:
                os.close(handle)
        self._handle = self._voucher = None


def _lock(handle: int) -> None:
    """Take a lock alone; `status` may hold it for a moment, to see whether an agent does (`_is_held`)."""
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_CLAIM_PAUSE_S)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

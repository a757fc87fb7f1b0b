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
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from ntpaudit.core.events import Event
from ntpaudit.core.observation import Observation
from ntpaudit.core.politeness import Memories
from ntpaudit.core.record import Kind, Record
from ntpaudit.errors import BusyError, StoreError
from ntpaudit.store import history, servers
from ntpaudit.store.database import is_damage, open_database, open_memory, set_aside_damaged, transaction
from ntpaudit.store.history import Letter

RETRY_S = 30.0
"""How long to wait before a file that could not be used is tried again."""

MAX_STAND_IN = 20_000
"""How many audits the stand-in holds, two weeks of minutes; beyond that the oldest are dropped, and that is noted."""

_Done = TypeVar("_Done")
_Work = Callable[[sqlite3.Connection], _Done]


class Concluded(NamedTuple):
    """All that one audit leaves behind, kept in one transaction. `letter` is None where nothing is to be delivered.

    `states` is what the agent itself has to know at its next start, by key, as JSON has it.
    """

    observation: Observation
    record: Record
    events: Sequence[Event] = ()
    letter: Letter | None = None
    distance_s: float | None = None
    states: Mapping[str, Any] = MappingProxyType({})


class Ledger:
    """The state of one agent; `note` is told what is wrong with it, once. It may be used from several threads."""

    def __init__(self, path: str, note: Callable[[str], None]) -> None:
        self._path = path
        self._note = note
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._stands_in = False
        self._retry_at_s = 0.0
        self._unfinished: list[int] = []  # ids in the file of observations whose record went to the stand-in
        self._dropped = 0
        self._place = self._read_place = 0  # counts the changes between file and stand-in, whose ids differ
        self.trouble: str | None = None
        """What is wrong with the file now, None where it is sound."""

    def update(self, change: Callable[[Memories], Memories]) -> None:
        """Call `change` once with what is remembered of servers, and keep what it returns."""
        kept: list[Memories] = []

        def turn(connection: sqlite3.Connection) -> None:
            if not kept:
                kept.append(change(servers.load_memories(connection)))
            servers.save_memories(connection, kept[0])

        self._do(turn)

    def keep_observation(self, observation: Observation, kind: Kind) -> int:
        """Keep what an audit saw, before it is judged; return its id."""
        return self._do(lambda connection: history.keep_observation(connection, observation, kind))

    def keep_record(self, audit_id: int | None, concluded: Concluded) -> None:
        """Keep what was concluded, its events, its place in the outbox and the agent's mind: all or nothing.

        `audit_id` is that of the observation, None where it was not kept before.
        """
        record = concluded.record

        def work(connection: sqlite3.Connection) -> None:
            kept_id = audit_id
            if kept_id is None or not history.keep_record(connection, kept_id, record, concluded.distance_s):
                if kept_id is not None:
                    self._unfinished.append(kept_id)  # it was seen while the file still took it
                kept_id = history.keep_observation(connection, concluded.observation, record.kind)
                history.keep_record(connection, kept_id, record, concluded.distance_s)
            history.roll_up(connection, record)
            history.keep_events(connection, concluded.events, record.host.boot_id)
            if concluded.letter is not None:
                history.post(connection, concluded.letter, kept_id)
            for key, state in concluded.states.items():
                history.save_state(connection, key, state)

        self._do(work)

    def keep_events(
        self, events: Sequence[Event], boot_id: str | None, letter: Letter | None, states: Mapping[str, Any]
    ) -> None:
        """Keep what happened between two audits, at once."""

        def work(connection: sqlite3.Connection) -> None:
            history.keep_events(connection, events, boot_id)
            if letter is not None:
                history.post(connection, letter, None)
            for key, state in states.items():
                history.save_state(connection, key, state)

        self._do(work)

    def read(self, work: "_Work[_Done]") -> _Done:
        """Do something that reads, or writes, all at once."""
        return self._do(work)

    def load(self, key: str) -> Any:
        """Return what was kept under a key, None where nothing was."""
        return self._do(lambda connection: history.load_state(connection, key))

    def save(self, key: str, value: Any) -> None:
        """Keep a value under a key."""
        self._do(lambda connection: history.save_state(connection, key, value))

    def date_letter(self, letter: Letter) -> None:
        """Replace the lines of a letter by dated ones."""
        self._do(lambda connection: history.date_letter(connection, letter))

    def waiting(self, count: int) -> list[Letter]:
        """Return the oldest letters to deliver."""

        def work(connection: sqlite3.Connection) -> list[Letter]:
            self._read_place = self._place
            return history.waiting(connection, count)

        return self._do(work)

    def confirm(self, letters: Sequence[Letter]) -> None:
        """Forget letters that have been delivered, the last that `waiting` returned, or the first of them.

        Where the state has moved meanwhile they are delivered once more, which changes no point.
        """

        def work(connection: sqlite3.Connection) -> None:
            if self._read_place == self._place:
                history.confirm(connection, letters[-1].id)

        self._do(work)

    def set_aside(self, letter: Letter, reason: str) -> None:
        """Take a letter that will never be accepted out of the way."""

        def work(connection: sqlite3.Connection) -> None:
            if self._read_place == self._place:
                history.set_aside(connection, letter.id, reason)

        self._do(work)

    def set_undated_aside(self, letter: Letter, reason: str) -> None:
        """Take a letter out of the way that nobody can date."""
        self._do(lambda connection: history.set_aside(connection, letter.id, reason))

    def backlog(self) -> tuple[int, int | None, int]:
        """Return how many letters wait, the time of the oldest, and how many were set aside."""
        return self._do(history.backlog)

    def close(self) -> None:
        """Write the stand-in to the file if that works by now, and close it."""
        with self._lock:
            if self._stands_in:
                self._return_to_file()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _do(self, work: "_Work[_Done]") -> _Done:
        """Do all of something or nothing, in the file, or in its stand-in where the file does not take it."""
        with self._lock:
            if self._stands_in and time.monotonic() >= self._retry_at_s:
                self._return_to_file()
            try:
                if self._connection is None:
                    self._connection = open_database(self._path, self._note)
                with transaction(self._connection):
                    return work(self._connection)
            except StoreError as error:
                if self._stands_in:
                    raise
                self._stand_in(error)
            connection = self._open()
            with transaction(connection):
                done = work(connection)
                self._dropped += history.drop_beyond(connection, MAX_STAND_IN)
                return done

    def _open(self) -> sqlite3.Connection:
        """Return the connection in use."""
        assert self._connection is not None
        return self._connection

    def _stand_in(self, error: StoreError) -> None:
        """Go on in memory, with what can be read of the file's state. A damaged file is set aside."""
        self.trouble = str(error)
        self._note(f"{error}; going on in memory")
        memory = open_memory()
        if self._connection is not None:
            history.copy_state(self._connection, memory)
            self._connection.close()
            if is_damage(error):
                set_aside_damaged(self._path, self._note)
        self._connection = memory
        self._stands_in = True
        self._place += 1
        self._retry_at_s = time.monotonic() + (0.0 if is_damage(error) else RETRY_S)

    def _return_to_file(self) -> None:
        """Move what the stand-in holds into the file, if the file can be used by now."""
        self._retry_at_s = time.monotonic() + RETRY_S
        memory = self._open()
        try:
            file = open_database(self._path, self._note)
        except StoreError as error:
            self.trouble = str(error)
            return
        try:
            with transaction(file):
                history.move(memory, file, self._unfinished)
        except StoreError as error:
            self.trouble = str(error)
            file.close()
            return
        memory.close()
        lost = f", {self._dropped} of the oldest records lost" if self._dropped else ""
        self._note(f"{self._path} can be used again; what was kept in memory is in it{lost}")
        self._connection, self._stands_in, self.trouble = file, False, None
        self._unfinished, self._dropped = [], 0
        self._place += 1


class Claim:
    """The right to be the one agent of a state folder, held until the process ends."""

    def __init__(self, folder: str) -> None:
        """Take it. BusyError where another agent holds it; a folder that cannot be opened can be claimed by nobody."""
        self._handle: int | None = None
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"another agent uses {folder}; stop it, or name another STATE_DIRECTORY") from error
        except OSError:
            return  # the ledger will tell why the folder is of no use

    def release(self) -> None:
        """Give it up; the end of the process does so too."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

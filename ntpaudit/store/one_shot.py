"""The state of one-shot audits, opened when first needed; a problem with it is logged, and stops no audit."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ntpaudit.core.ntp.rate_limit import ServerStates
from ntpaudit.core.observation import Observation
from ntpaudit.core.record import Record
from ntpaudit.errors import StoreError
from ntpaudit.log import LazyLogger

if TYPE_CHECKING:
    import sqlite3

logger = LazyLogger(__name__)

_Done = TypeVar("_Done")


class OneShotStore:
    """The state folder's database; its problems are logged."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def update(self, change: Callable[[ServerStates], ServerStates]) -> None:
        """Call `change` once with the stored server states, and store the states it returns, under an exclusive lock.

        `change` is called even if the state cannot be used. A file is created only if there is something to store.
        """
        changed: list[ServerStates] = []

        def work(connection: "sqlite3.Connection") -> None:
            from ntpaudit.store import saved_state

            if not changed:
                changed.append(change(saved_state.load_server_states(connection)))
            saved_state.save_server_states(connection, changed[0])

        if os.path.exists(self._path):
            self._do(work)
        if not changed:
            changed.append(change({}))
            if changed[0]:
                self._do(work)

    def keep_observation(self, observation: Observation) -> int | None:
        """Store an observation; return its id, None if that failed."""
        from ntpaudit.store.audits import keep_observation

        return self._do(lambda connection: keep_observation(connection, observation))

    def keep_record(self, audit_id: int, record: Record) -> None:
        """Store the record of a stored observation."""
        from ntpaudit.store.audits import keep_record

        self._do(lambda connection: keep_record(connection, audit_id, record))

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _do(self, work: "Callable[[sqlite3.Connection], _Done]") -> "_Done | None":
        """Run a function in a transaction; log why if that fails. After damage the next call creates a new file."""
        from ntpaudit.store.database import is_damage, open_database, set_aside_damaged, transaction

        try:
            if self._connection is None:
                self._connection = open_database(self._path, setting="STATE_DIRECTORY")
            with transaction(self._connection):
                return work(self._connection)
        except StoreError as error:
            logger.warning(str(error))
            if self._connection and is_damage(error):
                self.close()
                set_aside_damaged(self._path)
        return None

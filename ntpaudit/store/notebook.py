"""The state as an audit uses it: opened when first needed, so that an audit which needs none makes none.

Nothing here stops an audit: what is wrong with the state is noted for the operator, and the audit goes on without.
"""

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


class Notebook:
    """The state folder's database; `note` is told what is wrong with it."""

    def __init__(self, path: str, note: Callable[[str], None] = logger.warning) -> None:
        self._path = path
        self._note = note
        self._connection: sqlite3.Connection | None = None

    def update(self, change: Callable[[ServerStates], ServerStates]) -> None:
        """Call `change`, once and whatever the state, with what is remembered of servers; keep what it returns too.

        Nobody else reads or writes meanwhile. Where nothing was ever kept and nothing is to be kept, no file is made.
        """
        called = False

        def turn(connection: "sqlite3.Connection") -> None:
            nonlocal called
            states = servers.load_server_states(connection)
            called = True
            servers.save_server_states(connection, change(states))

        if os.path.exists(self._path):
            from ntpaudit.store import servers

            self._do(turn)
        if not called and (states := change({})):
            from ntpaudit.store import servers

            self._do(lambda connection: servers.save_server_states(connection, states))

    def keep_observation(self, observation: Observation) -> int | None:
        """Keep what an audit saw; return its id, None where it could not be kept."""
        from ntpaudit.store.history import keep_observation

        return self._do(lambda connection: keep_observation(connection, observation))

    def keep_record(self, audit_id: int, record: Record) -> None:
        """Keep what was concluded from a kept observation."""
        from ntpaudit.store.history import keep_record

        self._do(lambda connection: keep_record(connection, audit_id, record))

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _do(self, work: "Callable[[sqlite3.Connection], _Done]") -> "_Done | None":
        """Do all of something or nothing, alone; note why, where it cannot be done.

        A damaged file is set aside, and the next turn begins a new one.
        """
        from ntpaudit.store.database import is_damage, open_database, set_aside_damaged, transaction

        try:
            if self._connection is None:
                self._connection = open_database(self._path, self._note, setting="STATE_DIRECTORY")
            with transaction(self._connection):
                return work(self._connection)
        except StoreError as error:
            self._note(str(error))
            if self._connection and is_damage(error):
                self.close()
                set_aside_damaged(self._path, self._note)
        return None

"""The state as an audit uses it: opened when first needed, so that an audit which needs none makes none."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ntpaudit.core.observation import Observation
from ntpaudit.core.politeness import Memory
from ntpaudit.core.record import Record

if TYPE_CHECKING:
    import sqlite3


class Notebook:
    """The state folder's database. Every method raises StoreError where it cannot be used."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def _open(self) -> "sqlite3.Connection":
        if self._connection is None:
            from ntpaudit.store.database import open_database

            self._connection = open_database(self._path)
        return self._connection

    def memories(self) -> dict[str, Memory]:
        """Return what is remembered of servers; nothing where no state was ever kept."""
        if not os.path.exists(self._path):
            return {}
        from ntpaudit.store.servers import load_memories

        return load_memories(self._open())

    def remember(self, memories: Mapping[str, Memory]) -> None:
        """Keep these memories of servers beside the others."""
        if memories:
            from ntpaudit.store.servers import save_memories

            save_memories(self._open(), memories)

    def keep_observation(self, observation: Observation) -> int:
        """Keep what an audit saw; return its id."""
        from ntpaudit.store.history import keep_observation

        return keep_observation(self._open(), observation)

    def keep_record(self, audit_id: int, record: Record) -> None:
        """Keep what was concluded from a kept observation."""
        from ntpaudit.store.history import keep_record

        keep_record(self._open(), audit_id, record)

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

"""The state as an audit uses it: opened when first needed, so that an audit which needs none makes none."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from ntpaudit.core.observation import Observation
from ntpaudit.core.politeness import Memory
from ntpaudit.core.record import Record
from ntpaudit.errors import StoreError
from ntpaudit.store.database import open_database
from ntpaudit.store.history import keep_observation, keep_record
from ntpaudit.store.servers import load_memories, save_memories


class Notebook:
    """The state folder's database. Every method raises StoreError where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = open_database(self._path)
        return self._connection

    def memories(self) -> dict[str, Memory]:
        """Return what is remembered of servers; nothing where no state was ever kept."""
        if not self._path.exists():
            return {}
        try:
            return load_memories(self._open())
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self._path}: {error}") from error

    def remember(self, memories: Mapping[str, Memory]) -> None:
        """Keep these memories of servers beside the others."""
        if memories:
            save_memories(self._open(), memories)

    def keep_observation(self, observation: Observation) -> int:
        """Keep what an audit saw; return its id."""
        return keep_observation(self._open(), observation)

    def keep_record(self, audit_id: int, record: Record) -> None:
        """Keep what was concluded from a kept observation."""
        keep_record(self._open(), audit_id, record)

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

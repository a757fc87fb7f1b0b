"""The memory of servers, so that repeated one-shot runs stay polite (P9, K2, K3)."""

import json
import sqlite3
from collections.abc import Mapping

from ntpaudit.core.politeness import Memory, Moment
from ntpaudit.errors import StoreError
from ntpaudit.store.database import transaction
from ntpaudit.store.plain import plain


def load_memories(connection: sqlite3.Connection) -> dict[str, Memory]:
    """Return what is remembered, by endpoint (`address port`); an entry that makes no sense is forgotten.

    Raises StoreError where the file cannot be read.
    """
    try:
        rows = connection.execute("SELECT endpoint, memory FROM servers").fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"the state could not be read: {error}") from error
    memories = {}
    for endpoint, text in rows:
        try:
            memories[endpoint] = _memory(json.loads(text))
        except (ValueError, TypeError):
            continue
    return memories


def save_memories(connection: sqlite3.Connection, memories: Mapping[str, Memory]) -> None:
    """Write these memories, in one transaction."""
    rows = [(endpoint, json.dumps(plain(memory))) for endpoint, memory in memories.items()]
    with transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO servers VALUES (?, ?)", rows)


def _memory(data: dict[str, object]) -> Memory:
    """Read one memory; TypeError where its keys are not ours."""
    for key in ("asked", "kissed", "named"):
        if isinstance(moment := data.get(key), dict):
            data[key] = Moment(**moment)
    return Memory(**data)  # type: ignore[arg-type]

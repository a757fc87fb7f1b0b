"""The memory of servers, so that repeated one-shot runs stay polite (P9, K2, K3)."""

import json
import sqlite3
from collections.abc import Mapping

from ntpaudit.core.ntp.rate_limit import Memory
from ntpaudit.store.serialization import plain, revive, to_json


def load_memories(connection: sqlite3.Connection) -> dict[str, Memory]:
    """Return what is remembered, by endpoint (`address port`); an entry that makes no sense is forgotten."""
    memories = {}
    for endpoint, text in connection.execute("SELECT endpoint, memory FROM servers").fetchall():
        try:
            memories[endpoint] = revive(Memory, json.loads(text))
        except (ValueError, TypeError, RecursionError):
            continue
    return memories


def save_memories(connection: sqlite3.Connection, memories: Mapping[str, Memory]) -> None:
    """Write these memories beside the others; an endpoint whose memory is empty is forgotten."""
    rows = [(endpoint, to_json(plain(memory))) for endpoint, memory in memories.items() if memory != Memory()]
    connection.executemany("INSERT OR REPLACE INTO servers VALUES (?, ?)", rows)
    empty = [(endpoint,) for endpoint, memory in memories.items() if memory == Memory()]
    connection.executemany("DELETE FROM servers WHERE endpoint = ?", empty)

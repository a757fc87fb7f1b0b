"""The memory of servers, so that repeated one-shot runs stay polite (P9, K2, K3)."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from ntpaudit.core.politeness import Memory, Moment
from ntpaudit.store.plain import plain


def load_memories(connection: sqlite3.Connection) -> dict[str, Memory]:
    """Return what is remembered, by endpoint (`address port`); an entry that makes no sense is forgotten."""
    memories = {}
    for endpoint, text in connection.execute("SELECT endpoint, memory FROM servers").fetchall():
        try:
            memories[endpoint] = _read(Memory, json.loads(text))
        except (ValueError, TypeError, RecursionError):
            continue
    return memories


def save_memories(connection: sqlite3.Connection, memories: Mapping[str, Memory]) -> None:
    """Write these memories beside the others."""
    rows = [(endpoint, json.dumps(plain(memory))) for endpoint, memory in memories.items()]
    connection.executemany("INSERT OR REPLACE INTO servers VALUES (?, ?)", rows)


def _read(cls: type[Any], data: Any) -> Any:
    """Make a value of its parts; TypeError where one is missing, unknown or of another type."""
    if not isinstance(data, dict):
        raise TypeError(f"{cls.__name__} is made of names and values")
    hints = get_type_hints(cls)
    for name, part in data.items():
        kinds = get_args(hints[name]) or (hints[name],) if name in hints else ()
        if Moment in kinds and part is not None:
            data[name] = _read(Moment, part)
        elif type(part) not in kinds:
            raise TypeError(f"{cls.__name__}.{name} cannot be {part!r}")
    return cls(**data)

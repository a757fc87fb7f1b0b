"""The memory of servers, so that repeated one-shot runs stay polite (P9, K2, K3)."""

import json
import sqlite3
from collections.abc import Mapping

from ntpaudit.core.ntp.rate_limit import ServerState
from ntpaudit.store.serialization import plain, revive, to_json


def load_server_states(connection: sqlite3.Connection) -> dict[str, ServerState]:
    """Return what is remembered, by endpoint (`address port`); an entry that makes no sense is forgotten."""
    states = {}
    for endpoint, text in connection.execute("SELECT endpoint, memory FROM servers").fetchall():
        try:
            states[endpoint] = revive(ServerState, json.loads(text))
        except (ValueError, TypeError, RecursionError):
            continue
    return states


def save_server_states(connection: sqlite3.Connection, states: Mapping[str, ServerState]) -> None:
    """Write these memories beside the others; an endpoint whose memory is empty is forgotten."""
    rows = [(endpoint, to_json(plain(memory))) for endpoint, memory in states.items() if memory != ServerState()]
    connection.executemany("INSERT OR REPLACE INTO servers VALUES (?, ?)", rows)
    empty = [(endpoint,) for endpoint, memory in states.items() if memory == ServerState()]
    connection.executemany("DELETE FROM servers WHERE endpoint = ?", empty)

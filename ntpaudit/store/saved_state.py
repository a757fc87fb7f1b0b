"""State for later runs: of each server, so that repeated runs stay polite (P9, K2, K3), and of the agent, by key."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from ntpaudit.core.ntp.rate_limit import ServerState
from ntpaudit.store.compression import pack_text
from ntpaudit.store.rows import ROW_ERRORS, parse_json, read_json
from ntpaudit.store.serialization import plain, to_json


def load_server_states(connection: sqlite3.Connection) -> dict[str, ServerState]:
    """Return the state of each endpoint (`address port`); a damaged one is left out."""
    states = {}
    for endpoint, text in connection.execute("SELECT endpoint, memory FROM servers").fetchall():
        try:
            states[endpoint] = read_json(ServerState, text)
        except ROW_ERRORS:
            continue
    return states


def save_server_states(connection: sqlite3.Connection, states: Mapping[str, ServerState]) -> None:
    """Store these states beside the others; delete an endpoint whose state is empty."""
    for endpoint, state in states.items():
        if state == ServerState():
            connection.execute("DELETE FROM servers WHERE endpoint = ?", (endpoint,))
        else:
            connection.execute("INSERT OR REPLACE INTO servers VALUES (?, ?)", (endpoint, to_json(plain(state))))


def load_state(connection: sqlite3.Connection, key: str) -> Any:
    """Return the stored value of a key, None if there is none or it is damaged."""
    row = connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
    try:
        return None if row is None else parse_json(row[0])
    except ROW_ERRORS:
        return None


def save_state(connection: sqlite3.Connection, key: str, value: Any) -> None:
    """Store a JSON value under a key, compressed: the agent's state is written with every audit."""
    connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, pack_text(to_json(value))))


DROPPED = "dropped"


def dropped(connection: sqlite3.Connection) -> int:
    """Return how many undelivered records were ever dropped for lack of space, or lost with a run that was killed."""
    total = load_state(connection, DROPPED)
    return total if type(total) is int and total > 0 else 0


def count_dropped(connection: sqlite3.Connection, count: int) -> None:
    """Add to the number of undelivered records that were dropped."""
    if count:
        save_state(connection, DROPPED, dropped(connection) + count)

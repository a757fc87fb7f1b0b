"""Audits kept: first what was seen, then what was concluded from it."""

import json
import sqlite3

from ntpaudit.core.observation import Observation
from ntpaudit.core.record import Record
from ntpaudit.store.plain import plain


def keep_observation(connection: sqlite3.Connection, observation: Observation) -> int:
    """Store what an audit saw, before it is judged; return its id."""
    text = json.dumps(plain(observation), allow_nan=False)
    row = connection.execute(
        "INSERT INTO audits (host_ns, observation) VALUES (?, ?)", (observation.taken.realtime_ns, text)
    )
    return int(row.lastrowid or 0)


def keep_record(connection: sqlite3.Connection, audit_id: int, record: Record) -> None:
    """Store what was concluded from an observation that was kept."""
    text = json.dumps(record.to_dict(), allow_nan=False)
    connection.execute("UPDATE audits SET record = ? WHERE id = ?", (text, audit_id))

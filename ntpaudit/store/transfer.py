"""Rows taken from one database to another: from memory to the file, or from a deleted file."""

import sqlite3

from ntpaudit.core.chain import EntryKind
from ntpaudit.store import chain
from ntpaudit.store.audits import EVENT_COLUMNS, OBSERVATION_COLUMNS, RECORD_COLUMNS, add_rollup
from ntpaudit.store.rows import insert, marks

CARRY_BATCH = 1000  # outbox entries of a deleted file that are in memory at once
_TABLES: tuple[tuple[str, EntryKind | None, str], ...] = (
    ("events", "event", EVENT_COLUMNS),
    ("outbox", None, "audit_id, boot_id, boottime_ns, host_ns, stamp_ns, lines"),
    ("set_aside", "dead-letter", "audit_id, stamp_ns, lines, reason"),
    ("notes", "note", "kind, utc_ns, host_ns, note"),
)
"""The tables that are moved after the audits, with the kind of their entries and their columns."""

_OUTBOX_TABLES = {"outbox": "boot_id, boottime_ns, host_ns, stamp_ns, lines", "set_aside": "stamp_ns, lines, reason"}


def copy_state(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Copy the state and the server states, as far as the source can be read."""
    for table in ("state", "servers"):
        try:
            rows = source.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
        except sqlite3.Error:
            continue
        target.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", rows)  # noqa: S608


def move(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Add all rows of the source to the target, and what is evidence to its chain."""
    moved = _move_audits(source, target)
    for table, kind, columns in _TABLES:
        for values in source.execute(f"SELECT {columns} FROM {table} ORDER BY id"):  # noqa: S608
            if columns.startswith("audit_id"):
                values = (moved.get(values[0]), *values[1:])
            row = insert(target, table, columns, values)
            if kind is not None:
                chain.append(target, kind, row)
    for values in source.execute("SELECT * FROM rollups"):
        add_rollup(target, values)
    copy_state(source, target)


def _move_audits(source: sqlite3.Connection, target: sqlite3.Connection) -> dict[int, int]:
    """Move the audits; return their new ids. A record goes to its observation where the target has that already."""
    unjudged = "SELECT boottime_ns, boot_id, id FROM audits WHERE record IS NULL AND kind IS NOT NULL"
    pending = {(boottime_ns, boot_id): audit_id for boottime_ns, boot_id, audit_id in target.execute(unjudged)}
    moved = {}
    columns = f"{OBSERVATION_COLUMNS}, {RECORD_COLUMNS}"
    count = OBSERVATION_COLUMNS.count(",") + 1
    for audit_id, *values in source.execute(f"SELECT id, {columns} FROM audits ORDER BY id"):  # noqa: S608
        key, record = (values[3], values[2]), values[count:]
        if record[0] is not None and key in pending:
            row = pending[key]
            target.execute(f"UPDATE audits SET ({RECORD_COLUMNS}) = ({marks(record)}) WHERE id = ?", (*record, row))  # noqa: S608
        else:
            row = insert(target, "audits", columns, values)
            chain.append(target, "observation", row)
        chain.append(target, "record", row)
        moved[audit_id] = row
    return moved


def carry_over(source: sqlite3.Connection, target: sqlite3.Connection) -> tuple[int, sqlite3.Error | None]:
    """Copy the outbox and the dead letters; return the number of outbox entries, and the error that ended reading."""
    carried = 0
    for table, columns in _OUTBOX_TABLES.items():
        # the target may be an older copy of the source
        known = {hash(row) for row in target.execute(f"SELECT {columns} FROM {table}")}  # noqa: S608
        after_id = -1
        while True:
            try:
                rows = source.execute(
                    f"SELECT id, {columns} FROM {table} WHERE id > ? ORDER BY id LIMIT {CARRY_BATCH}",  # noqa: S608
                    (after_id,),
                ).fetchall()
            except sqlite3.Error as error:
                return carried, error
            if not rows:
                break
            after_id = rows[-1][0]
            new = [values for _, *values in rows if hash(tuple(values)) not in known]
            for values in new:
                row = insert(target, table, columns, values)
                if table == "set_aside":
                    chain.append(target, "dead-letter", row)
            carried += len(new) if table == "outbox" else 0
    return carried, None

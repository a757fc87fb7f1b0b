"""Rows taken from one database to another: from memory to the file, or from a deleted file."""

import sqlite3

from ntpaudit.store.audits import EVENT_COLUMNS, OBSERVATION_COLUMNS, RECORD_COLUMNS, add_rollup
from ntpaudit.store.rows import insert

CARRY_BATCH = 1000  # outbox entries of a deleted file that are in memory at once
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
    """Add all rows of the source to the target."""
    pending = target.execute("SELECT id, boottime_ns, boot_id FROM audits WHERE record IS NULL").fetchall()
    for audit_id, *moment in pending:  # memory may have the records of some
        finished = "SELECT 1 FROM audits WHERE record IS NOT NULL AND boottime_ns = ? AND boot_id IS ?"
        if source.execute(finished, moment).fetchone():
            target.execute("DELETE FROM audits WHERE id = ?", (audit_id,))
    moved = {}
    columns = f"{OBSERVATION_COLUMNS}, {RECORD_COLUMNS}"
    for audit_id, *values in source.execute(f"SELECT id, {columns} FROM audits ORDER BY id"):  # noqa: S608
        moved[audit_id] = insert(target, "audits", columns, values)
    for table, columns in (
        ("events", EVENT_COLUMNS),
        ("outbox", "audit_id, boot_id, boottime_ns, host_ns, stamp_ns, lines"),
        ("set_aside", "audit_id, stamp_ns, lines, reason"),
    ):
        for values in source.execute(f"SELECT {columns} FROM {table} ORDER BY id"):  # noqa: S608
            if columns.startswith("audit_id"):
                values = (moved.get(values[0]), *values[1:])
            insert(target, table, columns, values)
    for values in source.execute("SELECT * FROM rollups"):
        add_rollup(target, values)
    copy_state(source, target)


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
            target.executemany(f"INSERT INTO {table} ({columns}) VALUES (?{', ?' * columns.count(',')})", new)  # noqa: S608
            carried += len(new) if table == "outbox" else 0
    return carried, None

"""The outbox: lines that wait to be delivered, in order; what cannot be delivered becomes a dead letter."""

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from ntpaudit.store import chain
from ntpaudit.store.rows import ROW_ERRORS, clean_text, insert, keep_newest, read_row

MAX_UNSTAMPED = 500  # how many outbox entries without a stamp are read in one audit, or searched for the newest stamp
KEPT_DEAD_LETTERS = 10_000  # how many dead letters are kept, the newest: a database may refuse every record


class OutboxEntry(NamedTuple):
    """Lines of line protocol to deliver; `stamp_ns` is the true time, or the host's after a wait; None until then."""

    id: int
    lines: str
    stamp_ns: int | None
    boot_id: str | None
    boottime_ns: int
    host_ns: int


def enqueue(connection: sqlite3.Connection, entry: OutboxEntry, audit_id: int | None) -> None:
    """Add lines to the outbox."""
    _, *values = entry
    insert(connection, "outbox", f"{_VALUES}, audit_id", (*values, audit_id))


_VALUES = ", ".join(OutboxEntry._fields[1:])
_ENTRY = f"id, {_VALUES}"
_IS_ENTRY = "id = ? AND boottime_ns = ? AND host_ns = ?"


def _entry(row: tuple[Any, ...]) -> OutboxEntry:
    try:
        return read_row(OutboxEntry, row)
    except ROW_ERRORS as error:
        raise sqlite3.DatabaseError(f"an outbox entry is damaged: {error}") from error


def waiting(connection: sqlite3.Connection, count: int) -> list[OutboxEntry]:
    """Return the oldest entries, up to the first without a stamp, so that the order is kept."""
    rows = connection.execute(f"SELECT {_ENTRY} FROM outbox ORDER BY id LIMIT ?", (count,))  # noqa: S608
    entries: list[OutboxEntry] = []
    for entry in map(_entry, rows):
        if entries and entry.id <= entries[-1].id:
            raise sqlite3.DatabaseError("outbox entries are out of order")  # SQLite itself does not detect all damage
        if entry.stamp_ns is None:
            break
        entries.append(entry)
    return entries


def newest(connection: sqlite3.Connection) -> OutboxEntry | None:
    """Return the newest entry with a stamp, of the last MAX_UNSTAMPED."""
    row = connection.execute(
        f"SELECT * FROM (SELECT {_ENTRY} FROM outbox ORDER BY id DESC LIMIT ?)"  # noqa: S608
        " WHERE stamp_ns IS NOT NULL LIMIT 1",
        (MAX_UNSTAMPED,),
    ).fetchone()
    return None if row is None else _entry(row)


def unstamped(connection: sqlite3.Connection, count: int = MAX_UNSTAMPED) -> list[OutboxEntry]:
    """Return the oldest `count` entries without a stamp, oldest first."""
    rows = connection.execute(
        f"SELECT {_ENTRY} FROM outbox WHERE stamp_ns IS NULL ORDER BY id LIMIT ?",  # noqa: S608
        (count,),
    )
    return [_entry(row) for row in rows]


def _entry_key(entry: OutboxEntry) -> tuple[int, int, int]:
    return entry.id, entry.boottime_ns, entry.host_ns


def stamp_entries(
    connection: sqlite3.Connection, stamped: Sequence[OutboxEntry], refused: Sequence[OutboxEntry], reason: str
) -> None:
    """Replace entries by stamped ones, stamp their audits too, and move the refused ones to the dead letters."""
    boots: set[tuple[int, str | None]] = set()
    for entry in stamped:
        row = connection.execute(
            f"UPDATE outbox SET lines = ?, stamp_ns = ? WHERE {_IS_ENTRY} RETURNING audit_id",  # noqa: S608
            (entry.lines, entry.stamp_ns, *_entry_key(entry)),
        ).fetchone()
        if row is not None and entry.stamp_ns != entry.host_ns:  # the host's own time is no true time
            found = (
                "UPDATE audits SET utc_ns = ? WHERE utc_ns IS NULL AND id = ? RETURNING utc_ns - boottime_ns, boot_id"
            )
            boots.update(connection.execute(found, (entry.stamp_ns, row[0])).fetchall())
    for boot_ns, boot_id in boots:
        chain.note(connection, "stamps", {"boot_id": boot_id, "boot_ns": boot_ns})
    for entry in refused:
        dead_letter(connection, entry, reason)


def ack(connection: sqlite3.Connection, entries: Sequence[OutboxEntry]) -> None:
    """Remove delivered entries, the oldest of the outbox; none if the state has moved, so they are delivered again."""
    gone = connection.execute(
        f"DELETE FROM outbox WHERE id <= ? AND EXISTS (SELECT 1 FROM outbox WHERE {_IS_ENTRY})",  # noqa: S608
        (entries[-1].id, *_entry_key(entries[-1])),
    )
    _check_gone(connection, entries[0], gone.rowcount)


def dead_letter(connection: sqlite3.Connection, entry: OutboxEntry, reason: str) -> None:
    """Move an entry to the dead letters, with the reason."""
    added = connection.execute(
        "INSERT INTO set_aside (audit_id, stamp_ns, lines, reason)"  # noqa: S608
        f" SELECT audit_id, stamp_ns, lines, ? FROM outbox WHERE {_IS_ENTRY}",
        (clean_text(reason), *_entry_key(entry)),
    )
    if added.rowcount:
        chain.append(connection, "dead-letter", added.lastrowid or 0)
    gone = connection.execute(f"DELETE FROM outbox WHERE {_IS_ENTRY}", _entry_key(entry))  # noqa: S608
    _check_gone(connection, entry, gone.rowcount)
    removed = {"set_aside": keep_newest(connection, "set_aside", KEPT_DEAD_LETTERS)}
    chain.note_removed(connection, {"name": "count", "dead_letters": KEPT_DEAD_LETTERS}, removed)


def _check_gone(connection: sqlite3.Connection, entry: OutboxEntry, count: int) -> None:
    """Raise if a removed entry is still the first: in a damaged file it would be sent forever."""
    if not count:
        first = connection.execute("SELECT id, boottime_ns, host_ns FROM outbox ORDER BY id LIMIT 1").fetchone()
        if first == _entry_key(entry):
            raise sqlite3.DatabaseError("an outbox entry cannot be removed")


def backlog(connection: sqlite3.Connection) -> tuple[int, int | None, int]:
    """Return the number of entries, the stamp (else the host time) of the oldest, and the number of dead letters."""
    count, oldest_ns, aside = connection.execute(  # the ids have almost no gaps, so the entries are not counted
        "SELECT (SELECT IFNULL(MAX(id) + 1, 0) FROM outbox) - (SELECT IFNULL(MIN(id), 0) FROM outbox),"
        " (SELECT IFNULL(stamp_ns, host_ns) FROM outbox ORDER BY id LIMIT 1),"
        " (SELECT COUNT(*) FROM set_aside)"
    ).fetchone()
    if not isinstance(oldest_ns, int | None):
        raise sqlite3.DatabaseError(f"an outbox entry is damaged: {oldest_ns!r} is no time")
    return count, oldest_ns, aside

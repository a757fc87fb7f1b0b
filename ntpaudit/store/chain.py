"""The chain of all rows that count as evidence: an entry for each, written in the transaction that stores the row.

Rows in memory have none; they get one when they are moved into the file.
"""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ntpaudit import __version__
from ntpaudit.core.chain import BEGIN, ChainHead, EntryKind, canonical, linked
from ntpaudit.core.units import NS_PER_S
from ntpaudit.files import sha256
from ntpaudit.store.compression import pack_text, unpack_text
from ntpaudit.store.rows import ROW_ERRORS, insert, parse_json
from ntpaudit.store.serialization import to_json

_EVENT = "kind, raised, severity, level, text, utc_ns, host_ns, boot_id, boottime_ns, value_s, detail"
_OBSERVED = "host_ns, kind, boot_id, boottime_ns, suspended_ns, raw_ns"
_JUDGED = f"{_OBSERVED}, utc_ns, severity, verdict, offset_ns, earliest_ns, latest_ns, local_s"
_ROWS: Mapping[EntryKind, str] = {
    "observation": f"SELECT {_OBSERVED}, observation FROM audits WHERE observation <> '' AND id = ?",  # noqa: S608
    "record": f"SELECT {_JUDGED}, record FROM audits WHERE record IS NOT NULL AND id = ?",  # noqa: S608
    "event": f"SELECT {_EVENT}, '' FROM events WHERE id = ?",  # noqa: S608
    "hour": "SELECT length_s, begin_s, account FROM accounts WHERE length_s = 3600 AND begin_s = ?",
    "day": "SELECT length_s, begin_s, account FROM accounts WHERE length_s = 86400 AND begin_s = ?",
    "dead-letter": "SELECT stamp_ns, reason, lines FROM set_aside WHERE id = ?",
    "note": "SELECT kind, utc_ns, host_ns, note FROM notes WHERE id = ?",
}
"""How a row is read: the columns that are hashed, and last its text."""

_ADOPTED: Mapping[str, Sequence[EntryKind]] = {
    "audits": ("observation", "record"),
    "events": ("event",),
    "set_aside": ("dead-letter",),
}
"""The tables of a history of version 4, and the kinds of entries that their rows get."""

_DAY_S = 86_400
_MAX_SEQUENCE = 1 << 62  # far more than any history has: beyond it is damage
UTC_COLUMN = _JUDGED.split(", ").index("utc_ns")  # of a record


def read_row(connection: sqlite3.Connection, kind: EntryKind, row: int) -> tuple[Sequence[Any], str] | None:
    """Return the columns of a row that are hashed, and its text unpacked (as stored, if it cannot be unpacked)."""
    found = connection.execute(_ROWS[kind], (row,)).fetchone()
    if found is None:
        return None
    *columns, text = found
    try:
        return columns, unpack_text(text)
    except ROW_ERRORS:
        return columns, text.hex() if isinstance(text, bytes) else str(text)


def append(connection: sqlite3.Connection, kind: EntryKind, row: int) -> ChainHead | None:
    """Add a stored row to the chain, in the same transaction; return the new head. None in memory."""
    if _is_memory(connection) or (content := read_row(connection, kind, row)) is None:
        return None
    columns, text = content
    utc_ns = columns[UTC_COLUMN] if kind == "record" else None
    return _append(connection, kind, row, sha256(canonical(columns, text)), utc_ns)


def _append(
    connection: sqlite3.Connection, kind: EntryKind, row: int, digest: bytes, utc_ns: int | None = None
) -> ChainHead:
    before = last_head(connection)
    sequence = before.sequence + 1
    head = ChainHead(sequence, sha256(linked(before.head, sequence, kind, digest)))
    if isinstance(utc_ns, int):
        _begin_day(connection, before, utc_ns // NS_PER_S // _DAY_S * _DAY_S)
    connection.execute("INSERT INTO chain VALUES (?, ?, ?, ?, ?)", (sequence, kind, row, digest, head.head))
    return head


def last_head(connection: sqlite3.Connection) -> ChainHead:
    """Return the newest head; `BEGIN` where there is no entry yet."""
    row = connection.execute("SELECT sequence, head FROM chain ORDER BY sequence DESC LIMIT 1").fetchone()
    if row is None:
        return BEGIN
    sequence, head = row
    if not 0 < sequence < _MAX_SEQUENCE or type(head) is not bytes or len(head) != len(BEGIN.head):
        raise sqlite3.DatabaseError("the last entry of the chain is damaged")
    return ChainHead(sequence, head)


def _begin_day(connection: sqlite3.Connection, before: ChainHead, day_s: int) -> None:
    """Begin a segment if this is another day than that of the open one, which is then closed."""
    found = connection.execute("SELECT first, day_s FROM segments ORDER BY first DESC LIMIT 1").fetchone()
    first, open_day_s = found or (None, None)
    if open_day_s != day_s:
        connection.execute("UPDATE segments SET last = ?, head = ? WHERE first = ?", (*before, first))
        _open_segment(connection, before, day_s)


def _open_segment(connection: sqlite3.Connection, before: ChainHead, day_s: int) -> None:
    values = (before.sequence + 1, None, day_s, before.head, None)
    connection.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?)", values)


def note(connection: sqlite3.Connection, kind: str, content: Mapping[str, Any], utc_ns: int | None = None) -> None:
    """Store what happened to the history, and add it to the chain. `utc_ns` is the true time, if known."""
    values = (kind, utc_ns, time.time_ns(), pack_text(to_json(content)))
    append(connection, "note", insert(connection, "notes", "kind, utc_ns, host_ns, note", values))


def latest_note(connection: sqlite3.Connection, kind: str) -> Any:
    """Return the content of the newest note of a kind, None if there is none or it is damaged."""
    row = connection.execute("SELECT note FROM notes WHERE kind = ? ORDER BY id DESC LIMIT 1", (kind,)).fetchone()
    try:
        return None if row is None else parse_json(row[0])
    except ROW_ERRORS:
        return None


def begin(connection: sqlite3.Connection, before: ChainHead = BEGIN) -> None:
    """Begin the chain of a history: a note says what is in it, then follow the entries of these rows.

    `before` is the last head of the history that this one continues: its file was removed or damaged.
    """
    if _is_memory(connection):
        return
    _open_segment(connection, before, 0)
    found = {
        table: connection.execute(f"SELECT COUNT(*), MIN(id), MAX(id) FROM {table}").fetchone()  # noqa: S608
        for table in _ADOPTED
    }
    continues = {"sequence": before.sequence, "head": before.head.hex()}
    note(connection, "adopted", {"version": __version__, "rows": found, "continues": continues})
    with any_text(connection):
        for table, kinds in _ADOPTED.items():
            for (row,) in connection.execute(f"SELECT id FROM {table} ORDER BY id").fetchall():  # noqa: S608
                for kind in kinds:
                    append(connection, kind, row)


@contextmanager
def any_text(connection: sqlite3.Connection) -> Iterator[None]:
    """Let texts that are not UTF-8 be read: a damaged row must not end the reading of the others."""
    connection.text_factory = lambda data: data.decode(errors="surrogateescape")
    try:
        yield
    finally:
        connection.text_factory = str


def _is_memory(connection: sqlite3.Connection) -> bool:
    return not connection.execute("PRAGMA database_list").fetchone()[2]

"""The chain of all rows that count as evidence: an entry for each, written in the transaction that stores the row.

Rows in memory have none; they get one when they are moved into the file.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ntpaudit import __version__
from ntpaudit.core.chain import BEGIN, ChainHead, EntryKind, canonical, linked, ranges
from ntpaudit.core.units import NS_PER_S
from ntpaudit.files import sha256
from ntpaudit.store.compression import pack_text, unpack_text
from ntpaudit.store.rows import ROW_ERRORS, insert, parse_json
from ntpaudit.store.serialization import to_json

_OBSERVED = ("host_ns", "kind", "boot_id", "boottime_ns", "suspended_ns", "raw_ns")
_JUDGED = ("utc_ns", "severity", "verdict", "offset_ns", "earliest_ns", "latest_ns", "local_s")
_FOUND = (
    "kind",
    "raised",
    "severity",
    "level",
    "text",
    "utc_ns",
    "host_ns",
    "boot_id",
    "boottime_ns",
    "value_s",
    "detail",
)


class _Source(NamedTuple):
    """Where the rows of a kind are: the columns that are hashed, the column with the text, and which rows."""

    columns: tuple[str, ...]
    text: str
    table: str
    id: str = "id"
    condition: str = "TRUE"

    def query(self, what: str) -> str:
        """Return the query for something of its rows, to which a condition can be added."""
        return f"SELECT {what} FROM {self.table} WHERE {self.condition}"  # noqa: S608


SOURCES: Mapping[EntryKind, _Source] = {
    "observation": _Source(_OBSERVED, "observation", "audits", condition="observation <> ''"),
    "record": _Source(_OBSERVED + _JUDGED, "record", "audits", condition="record IS NOT NULL"),
    "event": _Source(_FOUND, "''", "events"),
    "hour": _Source(("length_s", "begin_s"), "account", "accounts", "begin_s", "length_s = 3600"),
    "day": _Source(("length_s", "begin_s"), "account", "accounts", "begin_s", "length_s = 86400"),
    "dead-letter": _Source(("stamp_ns", "reason"), "lines", "set_aside"),
    "note": _Source(("kind", "utc_ns", "host_ns"), "note", "notes"),
}
_ROWS = {
    kind: f"{source.query(', '.join((source.id, *source.columns, source.text)))} AND {source.id}"
    for kind, source in SOURCES.items()
}
_ROW = {kind: f"{rows} = ?" for kind, rows in _ROWS.items()}
UTC_COLUMN = SOURCES["record"].columns.index("utc_ns")

_ADOPTED: Mapping[str, Sequence[EntryKind]] = {
    "audits": ("observation", "record"),
    "events": ("event",),
    "set_aside": ("dead-letter",),
}
"""The tables of a history of version 4, and the kinds of entries that their rows get."""

_DAY_S = 86_400
MAX_REMOVED = 100_000  # entries that are removed at once for their age, about
MAX_SEGMENT = 5000  # entries; a day of audits each minute has 2000
MAX_SEQUENCE = 1 << 62  # far more than any history has: beyond it is damage
_LENGTH = len(BEGIN.head)
_TIP = """
    SELECT first, day_s, before, sequence, head
    FROM (SELECT first, day_s, before FROM segments ORDER BY first DESC LIMIT 1)
    LEFT JOIN (SELECT sequence, head FROM chain ORDER BY sequence DESC LIMIT 1) ON TRUE
"""
_OF_AUDITS: tuple[EntryKind, EntryKind] = ("observation", "record")


def read_row(connection: sqlite3.Connection, kind: EntryKind, row: int) -> tuple[Sequence[Any], str] | None:
    """Return the columns of a row that are hashed, and its text unpacked (as stored, if it cannot be unpacked)."""
    found = connection.execute(_ROW[kind], (row,)).fetchone()
    return None if found is None else _content(found)


def read_rows(
    connection: sqlite3.Connection, kind: EntryKind, first: int, last: int
) -> Iterator[tuple[int, tuple[Sequence[Any], str]]]:
    """Read the rows with ids from `first` to `last`, each with its id."""
    for row in connection.execute(f"{_ROWS[kind]} BETWEEN ? AND ?", (first, last)):
        yield row[0], _content(row)


def _content(row: Sequence[Any]) -> tuple[Sequence[Any], str]:
    text = row[-1]
    try:
        return row[1:-1], unpack_text(text)
    except ROW_ERRORS:
        return row[1:-1], text.hex() if isinstance(text, bytes) else str(text)


class _Tip(NamedTuple):
    """Where the chain goes on: its newest head, the first entry of the open segment, and the day of that."""

    head: ChainHead
    first: int
    day_s: int | None


def append(connection: sqlite3.Connection, kind: EntryKind, row: int) -> ChainHead | None:
    """Add a stored row to the chain, in the same transaction; return the new head. None in memory."""
    if (tip := _tip(connection)) is None or (content := read_row(connection, kind, row)) is None:
        return None
    columns, text = content
    utc_ns = columns[UTC_COLUMN] if kind == "record" else None
    return _add(connection, tip, kind, row, sha256(canonical(columns, text)), utc_ns)


def _add(
    connection: sqlite3.Connection, tip: _Tip, kind: EntryKind, row: int, digest: bytes, utc_ns: int | None = None
) -> ChainHead:
    _begin_segment_if_due(connection, tip, utc_ns)
    sequence = tip.head.sequence + 1
    head = ChainHead(sequence, sha256(linked(tip.head.head, sequence, kind, digest)))
    connection.execute("INSERT INTO chain VALUES (?, ?, ?, ?, ?)", (sequence, kind, row, digest, head.head))
    return head


def last_head(connection: sqlite3.Connection) -> ChainHead | None:
    """Return the newest head; before the first entry, the one that the chain continues. None in memory."""
    tip = _tip(connection)
    return None if tip is None else tip.head


def _tip(connection: sqlite3.Connection) -> _Tip | None:
    """Return where the chain goes on. None in memory, where no chain is begun; DatabaseError if it is damaged."""
    found = connection.execute(_TIP).fetchone()
    if found is None:  # in memory, or somebody deleted the headers
        found = connection.execute(
            "SELECT sequence + 1, NULL, head, sequence, head FROM chain ORDER BY 4 DESC LIMIT 1"
        ).fetchone()
        if found is None:
            return None
    first, day_s, before, sequence, head = found
    tip = _Tip(ChainHead(first - 1, before) if sequence is None else ChainHead(sequence, head), first, day_s)
    if not 0 <= tip.head.sequence < MAX_SEQUENCE or type(tip.head.head) is not bytes or len(tip.head.head) != _LENGTH:
        raise sqlite3.DatabaseError("the last entry of the chain is damaged")
    return tip


def _begin_segment_if_due(connection: sqlite3.Connection, tip: _Tip, utc_ns: int | None) -> None:
    """Begin a segment, and close the one before, for a record of another UTC day, or if that one is long."""
    if isinstance(utc_ns, int):
        day_s = utc_ns // NS_PER_S // _DAY_S * _DAY_S
    else:
        day_s = tip.day_s if isinstance(tip.day_s, int) else 0
    if day_s != tip.day_s or tip.head.sequence - tip.first >= MAX_SEGMENT:
        connection.execute("UPDATE segments SET last = ?, head = ? WHERE first = ?", (*tip.head, tip.first))
        _open_segment(connection, tip.head, day_s)


def _open_segment(connection: sqlite3.Connection, before: ChainHead, day_s: int) -> None:
    values = (before.sequence + 1, None, day_s, before.head, None)
    connection.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?)", values)


def note(connection: sqlite3.Connection, kind: str, content: Mapping[str, Any], utc_ns: int | None = None) -> None:
    """Store what happened to the history, and add it to the chain. `utc_ns` is the true time, if known."""
    values = (kind, utc_ns, time.time_ns(), pack_text(to_json(content)))
    append(connection, "note", insert(connection, "notes", "kind, utc_ns, host_ns, note", values))


def note_if_changed(connection: sqlite3.Connection, kind: str, content: Mapping[str, Any]) -> None:
    """Store a note, unless it says the same as the latest of its kind."""
    if latest_note(connection, kind) != content:
        note(connection, kind, content)


def note_removed(
    connection: sqlite3.Connection,
    rule: Mapping[str, Any],
    removed: Mapping[str, Iterable[int]],
    utc_ns: int | None = None,
) -> None:
    """Note the ids of the rows that were removed, by table, and the rule; nothing where none was, or in memory."""
    found = {table: parts for table, ids in removed.items() if (parts := ranges(ids))}
    if found and _tip(connection) is not None:
        note(connection, "retention", {"rule": rule, "removed": found}, utc_ns)


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
    _open_segment(connection, before, 0)
    found = {
        table: connection.execute(f"SELECT COUNT(*), MIN(id), MAX(id) FROM {table}").fetchone()  # noqa: S608
        for table in _ADOPTED
    }
    note(connection, "adopted", {"version": __version__, "rows": found, "continues": before.plain()})
    with any_text(connection):
        for table, kinds in _ADOPTED.items():
            for (row,) in connection.execute(f"SELECT id FROM {table} ORDER BY id").fetchall():  # noqa: S608
                for kind in kinds:
                    append(connection, kind, row)


def resume(connection: sqlite3.Connection, known: ChainHead) -> None:
    """Let the chain of a new file continue that of a file that was removed or damaged."""
    (last,) = connection.execute("SELECT MAX(sequence) FROM chain").fetchone()
    if last == 1 and known.sequence:
        for table in ("chain", "segments", "notes"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608
        begin(connection, known)


def remove_old_segments(connection: sqlite3.Connection, before_s: float) -> list[int]:
    """Remove the entries of all days before a time whose audits are gone; return their numbers. Headers stay."""
    removed: list[int] = []
    while (found := _oldest_segment(connection)) is not None:
        first, last, day_s = found
        later = (
            "SELECT day_s FROM segments WHERE first > ? AND day_s > 0 AND typeof(day_s) = 'integer'"
            " ORDER BY first LIMIT 1"
        )
        (next_day_s,) = connection.execute(later, (last,)).fetchone() or (before_s,)
        if max(day_s, next_day_s) >= before_s or len(removed) >= MAX_REMOVED:
            break
        if not (gone := _remove_segment(connection, first, last)):
            break
        removed += gone
    return removed


def remove_oldest_segment(connection: sqlite3.Connection) -> list[int]:
    """Remove the entries of the oldest closed segment if its audits are gone; return their numbers."""
    found = _oldest_segment(connection)
    return [] if found is None else _remove_segment(connection, *found[:2])


def _oldest_segment(connection: sqlite3.Connection) -> tuple[int, int, int] | None:
    """Return the first and the last entry, and the day, of the oldest closed segment that has entries."""
    found: tuple[int, int, int] | None = connection.execute(
        "SELECT first, last, day_s FROM segments WHERE last >= (SELECT MIN(sequence) FROM chain)"
        " AND typeof(first) = 'integer' AND typeof(last) = 'integer' AND typeof(day_s) = 'integer'"
        " ORDER BY first LIMIT 1"
    ).fetchone()
    return found


def _remove_segment(connection: sqlite3.Connection, first: int, last: int) -> list[int]:
    """Remove these entries, unless an audit of them exists. Other rows that still exist get a new entry each."""
    exists = connection.execute(
        "SELECT 1 FROM chain JOIN audits ON id = row WHERE sequence BETWEEN ? AND ? AND chain.kind IN (?, ?) LIMIT 1",
        (first, last, *_OF_AUDITS),
    ).fetchone()
    if exists:
        return []
    others = "SELECT kind, row, digest FROM chain WHERE kind NOT IN (?, ?) AND sequence"
    newer = {(kind, row) for kind, row, _ in connection.execute(f"{others} > ?", (*_OF_AUDITS, last))}
    found = connection.execute(f"{others} BETWEEN ? AND ? ORDER BY sequence", (*_OF_AUDITS, first, last))
    kept = {(kind, row): digest for kind, row, digest in found.fetchall() if (kind, row) not in newer}
    for (kind, row), digest in kept.items():
        if read_row(connection, kind, row) is not None:
            tip = _tip(connection)
            assert tip is not None
            _add(connection, tip, kind, row, digest)
    gone = connection.execute("DELETE FROM chain WHERE sequence BETWEEN ? AND ? RETURNING sequence", (first, last))
    return [sequence for (sequence,) in gone.fetchall()]


@contextmanager
def any_text(connection: sqlite3.Connection) -> Iterator[None]:
    """Let texts that are not UTF-8 be read: a damaged row must not end the reading of the others."""
    connection.text_factory = lambda data: data.decode(errors="surrogateescape")
    try:
        yield
    finally:
        connection.text_factory = str

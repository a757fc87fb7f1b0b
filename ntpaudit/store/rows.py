"""Rows written and read back: each value whole, or not at all."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from ntpaudit.core.observation import Claim, Daemon, KernelState, Unavailable
from ntpaudit.core.record import Record
from ntpaudit.store.compression import unpack_text
from ntpaudit.store.serialization import plain, revive, to_json

_Value = TypeVar("_Value")

ROW_ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError)
"""What reading a row raises if it is not what was written: SQLite itself does not detect all damage."""

Damage = Callable[[str], None]  # called for each damaged row, with what the row is: `audit`, `hour` or `event`

_parse = json.JSONDecoder().raw_decode
_INT64 = (-(1 << 63), (1 << 63) - 1)


def read_row(kind: type[_Value], row: Sequence[Any]) -> _Value:
    """Return a row as a named tuple of its columns. One of `ROW_ERRORS` if a column has another type."""
    return revive(kind, dict(zip(kind._fields, row, strict=True)))  # type: ignore[attr-defined]


def read_json(kind: type[_Value], text: Any) -> _Value:
    """Return a value of a stored text, compressed or not. One of `ROW_ERRORS` if it is none of that kind."""
    return revive(kind, parse_json(text))


def parse_json(text: Any) -> Any:
    """Return the JSON value of a stored text, compressed or not. One of `ROW_ERRORS` if it is none."""
    return json.loads(unpack_text(text))


def member(text: str, name: str) -> Any:
    """Return a member of a record, in a tenth of the time that reading all of it takes; ValueError if it has none.

    `name` has its quotes and its colon: within another text the quotes would be escaped.
    """
    value, _ = _parse(text, text.index(name) + len(name))
    return value


def whole_number(value: Any) -> int:
    """Return an integer of a row. TypeError if it is none."""
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def first_at(connection: sqlite3.Connection, table: str, low: int, high: int, time_ns: int) -> int:
    """Return the first id in [low, high) from which no row is before a time; by halving, as times grow."""
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(
            f"SELECT id, utc_ns FROM {table} WHERE id >= ? AND id < ? AND typeof(utc_ns) = 'integer'"  # noqa: S608
            " ORDER BY id LIMIT 1",
            (middle, high),
        ).fetchone()
        if row is None or row[1] >= time_ns:
            high = middle
        else:
            low = row[0] + 1
    return low


def read_rows(
    read: Callable[[tuple[Any, ...]], _Value], rows: Iterable[tuple[Any, ...]], damage: Damage, what: str
) -> Iterator[_Value]:
    """Read rows one by one; skip and report the damaged ones."""
    for row in rows:
        try:
            value = read(row)
        except ROW_ERRORS:
            damage(what)
        else:
            yield value


def read_record(value: Any) -> tuple[dict[str, Any], Record]:
    """Return a record of a row, as it is stored and read. ValueError where any part of it has another type."""
    try:
        stored = parse_json(value)
        return stored, checked_record(stored)
    except ROW_ERRORS as error:
        raise ValueError(f"no record: {type(error).__name__}: {error}") from error


def checked_record(stored: Any) -> Record:
    """Return the record that `Record.to_dict` made this of. One of `ROW_ERRORS` where any part has another type."""
    record = Record.from_dict(stored)
    values = plain(record)
    revive(Record, values)
    to_json(values)  # ValueError for a NaN or an infinity where any value is allowed
    if record.kernel["available"] is True:
        _check(KernelState, record.kernel)
        revive(bool, record.kernel["synchronised"])
    else:
        revive(str, record.kernel["reason"])
    for daemon in record.daemons:
        _check(Daemon, {**daemon, "claim": None})
        if (claim := daemon.get("claim")) is not None:
            _check(Claim if claim["available"] is True else Unavailable, claim)
    return record


def _check(kind: Any, data: Any) -> None:
    """Check that data have what a value needs, and more only of what later versions may have added."""
    revive(kind, {name: part for name, part in dict(data).items() if name in kind._fields})


def insert(connection: sqlite3.Connection, table: str, columns: str, values: Sequence[Any]) -> int:
    """Add a row and return its id."""
    row = connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks(values)})", values)  # noqa: S608
    return int(row.lastrowid or 0)


def marks(values: Sequence[Any]) -> str:
    """Return a placeholder for each value."""
    return ", ".join("?" * len(values))


def keep_newest(connection: sqlite3.Connection, table: str, count: int) -> list[int]:
    """Delete all rows but about the newest `count`; return the ids of those deleted."""
    is_old = f"id <= (SELECT MAX(id) FROM {table}) - ?"  # noqa: S608
    return deleted_ids(connection.execute(f"DELETE FROM {table} WHERE {is_old} RETURNING id", (count,)))  # noqa: S608


def deleted_ids(deletion: sqlite3.Cursor) -> list[int]:
    """Return what a deletion ... RETURNING id deleted."""
    return [number for (number,) in deletion.fetchall()]


def clean_text(text: str) -> str:
    """Replace invalid characters: names from outside may contain them."""
    return text.encode(errors="replace").decode()


def fit_int64(value_ns: int | None) -> int | None:
    """Return the nearest 64-bit value: a host's clock may show a year after 2262."""
    return None if value_ns is None else max(_INT64[0], min(_INT64[1], value_ns))

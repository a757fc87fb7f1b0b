"""Dead letters: records that the database refused for good, or whose time is not known."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ntpaudit.store.serialization import revive

DAMAGED = "damaged in the history, and cannot be sent"
"""The reason of a dead letter whose row is not what was written."""


class DeadLetter(NamedTuple):
    """A record that was not delivered. `stamp_ns` is its time, None where it is not known: it cannot be sent then."""

    id: int
    stamp_ns: int | None
    reason: str
    lines: str


class Resent(NamedTuple):
    """What became of dead letters that were to be sent again."""

    sent: int
    unstamped: int
    damaged: int = 0


def read_dead_letters(connection: sqlite3.Connection) -> Iterator[DeadLetter]:
    """Return every dead letter, the oldest first; a damaged one has no time and no lines, and DAMAGED as its reason."""
    return map(_dead_letter, connection.execute("SELECT id, stamp_ns, reason, lines FROM set_aside ORDER BY id"))


def _dead_letter(row: tuple[Any, ...]) -> DeadLetter:
    """Return the dead letter of a row."""
    try:
        return revive(DeadLetter, DeadLetter._make(row)._asdict())
    except (TypeError, ValueError):  # SQLite itself does not notice
        return DeadLetter(row[0], None, DAMAGED, "")


def missing(connection: sqlite3.Connection, ids: Sequence[int]) -> list[int]:
    """Return those of these ids that no dead letter has."""
    known = {row[0] for row in connection.execute("SELECT id FROM set_aside")}
    return [number for number in ids if number not in known]


def resend(connection: sqlite3.Connection, ids: Sequence[int] | None) -> Resent:
    """Move dead letters, all of them where `ids` is None, to the end of the outbox.

    One without a time stays, and so does a damaged one, which would make the whole outbox unreadable.
    """
    dated, undated, damaged = [], 0, 0
    for entry in read_dead_letters(connection):
        if _is_in(entry.id, ids):
            if entry.stamp_ns is not None:
                dated.append(entry.id)
            elif entry.reason == DAMAGED:
                damaged += 1
            else:
                undated += 1
    for letter_id in dated:
        connection.execute(
            "INSERT INTO outbox (audit_id, boottime_ns, host_ns, stamp_ns, lines)"
            " SELECT audit_id, 0, stamp_ns, stamp_ns, lines FROM set_aside WHERE id = ?",
            (letter_id,),
        )
    drop(connection, dated)
    return Resent(len(dated), undated, damaged)


def drop(connection: sqlite3.Connection, ids: Sequence[int] | None) -> int:
    """Delete dead letters, all of them where `ids` is None; return how many."""
    if ids is None:
        return connection.execute("DELETE FROM set_aside").rowcount
    return sum(connection.execute("DELETE FROM set_aside WHERE id = ?", (number,)).rowcount for number in ids)


def _is_in(number: int, ids: Sequence[int] | None) -> bool:
    """Whether a number is asked for."""
    return ids is None or number in ids

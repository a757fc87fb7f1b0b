"""Dead letters: records that the database refused for good, or whose time is not known."""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple

from ntpaudit.errors import StoreError
from ntpaudit.store import chain
from ntpaudit.store.database import open_database, transaction
from ntpaudit.store.readonly import open_readonly
from ntpaudit.store.rows import ROW_ERRORS, read_row

DAMAGED = "damaged in the history, and cannot be sent"  # the reason of a dead letter whose row is not what was written


class DeadLetter(NamedTuple):
    """A record that was not delivered. `stamp_ns` is its time, None if it is not known: then it cannot be sent."""

    id: int
    stamp_ns: int | None
    reason: str
    lines: str


class Resent(NamedTuple):
    """How many dead letters were put back into the outbox, and how many could not be."""

    sent: int
    unstamped: int
    damaged: int = 0


def read_dead_letters(connection: sqlite3.Connection) -> Iterator[DeadLetter]:
    """Return every dead letter, the oldest first; a damaged one has no time and no lines, and DAMAGED as its reason."""
    for row in connection.execute("SELECT id, stamp_ns, reason, lines FROM set_aside ORDER BY id"):
        try:
            yield read_row(DeadLetter, row)
        except ROW_ERRORS:
            yield DeadLetter(row[0], None, DAMAGED, "")


def resend(path: str, ids: Sequence[int] | None) -> Resent:
    """Move dead letters, all of them if `ids` is None, to the end of the outbox. StoreError for an unknown id.

    One without a time stays, and so does a damaged one, which would make the whole outbox unreadable.
    """
    with _changing(path, ids) as (connection, wanted):
        chosen = [entry for entry in read_dead_letters(connection) if entry.id in wanted]
        stamped = [entry.id for entry in chosen if entry.stamp_ns is not None]
        damaged = sum(entry.reason == DAMAGED for entry in chosen)
        for number in stamped:
            connection.execute(
                "INSERT INTO outbox (audit_id, boottime_ns, host_ns, stamp_ns, lines)"
                " SELECT audit_id, 0, stamp_ns, stamp_ns, lines FROM set_aside WHERE id = ?",
                (number,),
            )
        _drop(connection, stamped, "resent")
        return Resent(len(stamped), len(chosen) - len(stamped) - damaged, damaged)


def drop(path: str, ids: Sequence[int] | None) -> int:
    """Delete dead letters, all of them if `ids` is None; return how many. StoreError for an unknown id."""
    with _changing(path, ids) as (connection, wanted):
        return _drop(connection, wanted, "dropped")


@contextmanager
def _changing(path: str, ids: Sequence[int] | None) -> Iterator[tuple[sqlite3.Connection, Collection[int]]]:
    """Run one transaction on the ids of these dead letters, or of all."""
    with open_readonly(path) as connection:  # reports an unusable file, and creates none
        if unknown := sorted(set(ids or ()) - _ids(connection)):
            raise StoreError(f"{path} has no dead letter {', '.join(map(str, unknown))}")
    with closing(open_database(path)) as connection, transaction(connection):
        yield connection, _ids(connection) if ids is None else set(ids)


def _ids(connection: sqlite3.Connection) -> set[int]:
    return {number for (number,) in connection.execute("SELECT id FROM set_aside")}


def _drop(connection: sqlite3.Connection, ids: Collection[int], why: str) -> int:
    removed = [number for number in ids if connection.execute("DELETE FROM set_aside WHERE id = ?", (number,)).rowcount]
    chain.note_removed(connection, {"name": why}, {"set_aside": removed})
    return len(removed)

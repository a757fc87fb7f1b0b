"""Retention: delete what is too old, or too much."""

import sqlite3

from ntpaudit.core.accounts import DAY
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.store import chain
from ntpaudit.store.rows import deleted_ids, keep_newest
from ntpaudit.store.saved_state import count_dropped

MAX_AGED = 1000  # how many of the oldest rows may be deleted for their age at once
MAX_AGED_HOURS = 24  # the same for rollups and accounts
KEPT_EVENTS = 100_000  # how many events are kept at most, the newest: a clock may be set every second
SLICE = 250  # how many of the oldest audits are deleted at a time while the file is too large, at most MAX_SLICES times
MAX_SLICES = 40
MAX_PAGES = 4000  # how many free pages are returned to the file system at once


_WAITING = f"SELECT audit_id FROM (SELECT audit_id FROM outbox ORDER BY id LIMIT {2 * MAX_AGED})"  # noqa: S608
"""The audits of the oldest outbox entries: delivery is in order, so no older audit waits."""


def prune_by_age(
    connection: sqlite3.Connection, now_ns: int, raw_s: float, rollups_s: float, findings_s: float
) -> None:
    """Delete what is older than its retention.

    An audit is old if both its true time and its host time are. Undelivered audits stay; so do audits without a true
    time, which are deleted with the next one that has it. If `now_ns` is wrong, a call loses `MAX_AGED` rows at most.
    """
    raw_ns, findings_ns = (now_ns - round(kept_s * NS_PER_S) for kept_s in (raw_s, findings_s))
    removed = {
        "audits": _drop_old(connection, "audits", raw_ns, f"id NOT IN ({_WAITING} WHERE audit_id IS NOT NULL)"),
        "events": _drop_old(connection, "events", findings_ns, "TRUE"),
        "notes": _drop_old(connection, "notes", findings_ns, "TRUE"),
    }
    connection.execute(
        "DELETE FROM rollups WHERE hour_s < ? AND hour_s IN (SELECT hour_s FROM rollups ORDER BY hour_s LIMIT ?)",
        (now_ns / NS_PER_S - rollups_s, MAX_AGED_HOURS),
    )
    removed["hours"] = _drop_old_accounts(connection, HOUR_S, now_ns / NS_PER_S - rollups_s)
    removed["days"] = _drop_old_accounts(connection, DAY, now_ns / NS_PER_S - findings_s)
    removed["chain"] = chain.remove_old_segments(connection, now_ns / NS_PER_S - rollups_s)
    rule = {"name": "age", "raw_s": raw_s, "rollups_s": rollups_s, "findings_s": findings_s}
    chain.note_removed(connection, rule, removed, now_ns)


def _drop_old_accounts(connection: sqlite3.Connection, length_s: int, before_s: float) -> list[int]:
    """Delete the oldest accounts of one length, but never the newest: the next follow it. Return their beginnings."""
    deletion = connection.execute(
        "DELETE FROM accounts WHERE length_s = :length AND begin_s < :before"
        " AND begin_s < (SELECT MAX(begin_s) FROM accounts WHERE length_s = :length) AND begin_s IN"
        " (SELECT begin_s FROM accounts WHERE length_s = :length ORDER BY begin_s LIMIT :most) RETURNING begin_s",
        {"length": length_s, "before": before_s, "most": MAX_AGED_HOURS},
    )
    return deleted_ids(deletion)


def _drop_old(connection: sqlite3.Connection, table: str, before_ns: int, condition: str) -> list[int]:
    deletion = connection.execute(
        f"""
        DELETE FROM {table} WHERE {condition} AND id IN (
            WITH oldest AS (SELECT id, utc_ns, host_ns FROM {table} ORDER BY id LIMIT ?),
            old AS (SELECT id, utc_ns FROM oldest WHERE MAX(host_ns, IFNULL(utc_ns, host_ns)) < ?)
            SELECT id FROM old WHERE id <= (SELECT MAX(id) FROM old WHERE utc_ns IS NOT NULL)
        ) RETURNING id
        """,  # noqa: S608
        (MAX_AGED, before_ns),
    )
    return deleted_ids(deletion)


def size_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the database in bytes, without free pages."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def prune_by_size(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Delete the oldest audits while the database is too large, delivered ones first; count the others in `dropped`."""
    removed: dict[str, list[int]] = {
        "audits": [],
        "chain": [],
        "events": keep_newest(connection, "events", KEPT_EVENTS),
    }
    for _ in range(MAX_SLICES):
        if size_bytes(connection) <= max_bytes:
            break
        if entries := chain.remove_oldest_segment(connection):
            removed["chain"] += entries
        elif audits := _drop_delivered(connection) or _drop_undelivered(connection):
            removed["audits"] += audits
        else:
            break
    chain.note_removed(connection, {"name": "size", "max_size": max_bytes, "events": KEPT_EVENTS}, removed)
    pages, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    if free > pages // 8:
        for _ in range(min(free, MAX_PAGES)):
            connection.execute("PRAGMA incremental_vacuum(1)")  # of more, Python would take the first step only


def _drop_delivered(connection: sqlite3.Connection) -> list[int]:
    deletion = connection.execute(
        "DELETE FROM audits WHERE id IN (SELECT id FROM audits ORDER BY id LIMIT ?)"  # noqa: S608
        f" AND id NOT IN ({_WAITING} WHERE audit_id IS NOT NULL) RETURNING id",
        (SLICE,),
    )
    return deleted_ids(deletion)


def _drop_undelivered(connection: sqlite3.Connection) -> list[int]:
    entry_id, audit_id = connection.execute(
        "SELECT MAX(id), MAX(audit_id) FROM (SELECT id, audit_id FROM outbox ORDER BY id LIMIT ?)", (SLICE,)
    ).fetchone()
    audits = deleted_ids(connection.execute("DELETE FROM audits WHERE id <= ? RETURNING id", (audit_id,)))
    count_dropped(connection, connection.execute("DELETE FROM outbox WHERE id <= ?", (entry_id,)).rowcount)
    return audits


def drop_beyond(connection: sqlite3.Connection, count: int) -> None:
    """Delete all but the newest `count` audits; count their undelivered entries in `dropped`. Ids must have no gaps."""
    (last,) = connection.execute("SELECT IFNULL(MAX(id), 0) - ? FROM audits", (count,)).fetchone()
    entries = connection.execute(
        "DELETE FROM outbox WHERE audit_id <= ? AND id IN (SELECT id FROM outbox ORDER BY id LIMIT ?)", (last, MAX_AGED)
    ).rowcount
    keep_newest(connection, "events", 2 * count)
    count_dropped(connection, entries + len(keep_newest(connection, "outbox", 2 * count)))
    connection.execute("DELETE FROM audits WHERE id <= ?", (last,))

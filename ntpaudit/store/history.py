"""The tables of the history: audits, events, outbox, rollups, dead letters and state, and their retention."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from ntpaudit.core.events import Event
from ntpaudit.core.observation import Observation
from ntpaudit.core.policy import VERDICTS
from ntpaudit.core.record import Kind, Record
from ntpaudit.core.units import NS_PER_S
from ntpaudit.store.compression import pack_text, unpack_text
from ntpaudit.store.records import read_record
from ntpaudit.store.serialization import plain, revive, to_json

HOUR_S = 3600

KEPT_DEAD_LETTERS = 10_000
"""How many dead letters are kept, the newest: a database may refuse every record."""

MAX_STAMPED = 10_000
"""How many of the latest rows are stamped with their true time, once it is known."""

MAX_AGED = 1000
"""How many of the oldest rows may be deleted for their age at once."""

MAX_AGED_HOURS = 24
"""The same for rollups."""

KEPT_EVENTS = 100_000
"""How many events are kept at most, the newest: a clock may be set every second."""

SLICE = 250
"""How many of the oldest audits are deleted at a time while the file is too large, at most MAX_SLICES times."""

MAX_SLICES = 40

MAX_PAGES = 4000
"""How many free pages are returned to the file system at once."""

MAX_UNSTAMPED = 500
"""How many outbox entries without a stamp are read in one audit."""

_INT64 = (-(1 << 63), (1 << 63) - 1)


class OutboxEntry(NamedTuple):
    """Lines of line protocol to deliver; `stamp_ns` is None until the true time is known."""

    id: int
    lines: str
    stamp_ns: int | None
    boot_id: str | None
    boottime_ns: int
    host_ns: int


class PendingObservation(NamedTuple):
    """An observation without a record: the agent ended in between."""

    id: int
    kind: Kind
    observation: Observation


_OBSERVATION_COLUMNS = "host_ns, kind, boot_id, boottime_ns, suspended_ns, raw_ns, observation"
_RECORD_COLUMNS = "record, utc_ns, severity, verdict, offset_ns, earliest_ns, latest_ns, distance_s, local_s"


def keep_observation(connection: sqlite3.Connection, observation: Observation, kind: Kind | None = None) -> int:
    """Store an observation before it is judged; return its id. `kind` is None outside the agent."""
    return _insert(
        connection, "audits", _OBSERVATION_COLUMNS, (*_observation_values(observation, kind), _packed(observation))
    )


def keep_record(connection: sqlite3.Connection, audit_id: int, record: Record, distance_s: float | None = None) -> bool:
    """Store the record of a stored observation; return False if there is no such observation."""
    values = _record_values(record, distance_s)
    done = connection.execute(
        f"UPDATE audits SET ({_RECORD_COLUMNS}) = ({_marks(values)}) WHERE id = ?",  # noqa: S608
        (*values, audit_id),
    )
    return done.rowcount == 1


def keep_audit(
    connection: sqlite3.Connection, observation: Observation, record: Record, distance_s: float | None = None
) -> int:
    """Store an observation with its record; return its id.

    The observation of a local audit is complete in its record and columns, so it is not stored separately.
    """
    seen = "" if record.kind == "local" else _packed(observation)
    values = (*_observation_values(observation, record.kind), seen, *_record_values(record, distance_s))
    return _insert(connection, "audits", f"{_OBSERVATION_COLUMNS}, {_RECORD_COLUMNS}", values)


def _observation_values(observation: Observation, kind: Kind | None) -> tuple[Any, ...]:
    """Return the values of an observation's time and kind."""
    taken = observation.taken
    return (
        _fitting(taken.realtime_ns),
        kind,
        observation.host.boot_id,
        taken.boottime_ns,
        taken.boottime_ns - taken.monotonic_ns,
        taken.raw_ns,
    )


def _packed(observation: Observation) -> bytes:
    return pack_text(to_json(plain(observation)))


def _record_values(record: Record, distance_s: float | None) -> tuple[Any, ...]:
    """Return the values of a record's columns."""
    offset = record.offset
    edges = (offset.estimate_s, offset.earliest_s, offset.latest_s) if offset else (None, None, None)
    return (
        pack_text(to_json(record.to_dict())),
        _fitting(record.utc_ns),
        int(record.severity),
        VERDICTS.index(record.verdict),
        *map(_ns, edges),
        distance_s,
        None if record.health is None else record.health.local_s,
    )


def _insert(connection: sqlite3.Connection, table: str, columns: str, values: Sequence[Any]) -> int:
    """Add a row and return its id."""
    row = connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({_marks(values)})", values)  # noqa: S608
    return int(row.lastrowid or 0)


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _ns(span_s: float | None) -> int | None:
    return None if span_s is None else _fitting(round(span_s * NS_PER_S))


def _fitting(value_ns: int | None) -> int | None:
    """Return the nearest 64-bit value: a host's clock may show a year after 2262."""
    return None if value_ns is None else max(_INT64[0], min(_INT64[1], value_ns))


def find_pending(connection: sqlite3.Connection, observation: Observation) -> int | None:
    """Return the id of this observation if it is stored without a record."""
    row = connection.execute(
        "SELECT id FROM audits WHERE record IS NULL AND kind IS NOT NULL AND boottime_ns = ? AND boot_id IS ?",
        (observation.taken.boottime_ns, observation.host.boot_id),
    ).fetchone()
    return None if row is None else int(row[0])


def roll_up(connection: sqlite3.Connection, record: Record) -> None:
    """Add a record to the rollup of its hour; an unmeasured one by the host's time."""
    moment_ns = record.host_ns if record.utc_ns is None else record.utc_ns
    offset_ns = _ns(record.offset.estimate_s) if record.offset else None
    bound_ns = _ns(record.offset.bound_s) if record.offset else None
    _add_rollup(
        connection,
        (
            moment_ns // NS_PER_S // HOUR_S * HOUR_S,
            1,
            record.offset is not None,
            *(record.verdict == verdict for verdict in ("within", "unproven", "beyond")),
            int(record.severity),
            offset_ns,
            offset_ns,
            bound_ns,
        ),
    )


def _add_rollup(connection: sqlite3.Connection, values: Sequence[Any]) -> None:
    """Add to an hour's counts, and widen its extremes."""
    connection.execute(
        """
        INSERT INTO rollups VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (hour_s) DO UPDATE SET
            audits = audits + excluded.audits,
            measured = measured + excluded.measured,
            within = within + excluded.within,
            unproven = unproven + excluded.unproven,
            beyond = beyond + excluded.beyond,
            severity = MAX(severity, excluded.severity),
            least_offset_ns = MIN(IFNULL(least_offset_ns, excluded.least_offset_ns),
                                  IFNULL(excluded.least_offset_ns, least_offset_ns)),
            most_offset_ns = MAX(IFNULL(most_offset_ns, excluded.most_offset_ns),
                                 IFNULL(excluded.most_offset_ns, most_offset_ns)),
            most_bound_ns = MAX(IFNULL(most_bound_ns, excluded.most_bound_ns),
                                IFNULL(excluded.most_bound_ns, most_bound_ns))
        """,
        tuple(values),
    )


def keep_events(connection: sqlite3.Connection, events: Sequence[Event], boot_id: str | None) -> None:
    """Store events."""
    connection.executemany(
        "INSERT INTO events (kind, raised, severity, level, text, utc_ns, host_ns, boot_id, boottime_ns, value_s,"
        " detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                event.kind,
                event.raised,
                int(event.severity),
                event.level,
                _clean(event.text),
                _fitting(event.utc_ns),
                _fitting(event.host_ns),
                boot_id,
                event.boottime_ns,
                event.value_s,
                to_json(dict(event.detail)),
            )
            for event in events
        ],
    )


def _clean(text: str) -> str:
    """Replace invalid characters: names from outside may contain them."""
    return text.encode(errors="replace").decode()


def enqueue(connection: sqlite3.Connection, entry: OutboxEntry, audit_id: int | None) -> None:
    """Add lines to the outbox."""
    connection.execute(
        "INSERT INTO outbox (audit_id, boot_id, boottime_ns, host_ns, stamp_ns, lines) VALUES (?, ?, ?, ?, ?, ?)",
        (audit_id, entry.boot_id, entry.boottime_ns, entry.host_ns, entry.stamp_ns, entry.lines),
    )


_ENTRY = "id, lines, stamp_ns, boot_id, boottime_ns, host_ns"


def _entry(row: tuple[Any, ...]) -> OutboxEntry:
    """Return the entry of a row. DatabaseError for damage that SQLite itself does not detect."""
    try:
        return revive(OutboxEntry, OutboxEntry._make(row)._asdict())
    except (TypeError, ValueError) as error:
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
    """Return the oldest `count` entries without a true time, oldest first."""
    rows = connection.execute(
        f"SELECT {_ENTRY} FROM outbox WHERE stamp_ns IS NULL ORDER BY id LIMIT ?",  # noqa: S608
        (count,),
    )
    return [_entry(row) for row in rows]


_IS_ENTRY = "id = ? AND boottime_ns = ? AND host_ns = ?"


def _entry_key(entry: OutboxEntry) -> tuple[int, int, int]:
    """Return what identifies an entry, in the file and in memory."""
    return entry.id, entry.boottime_ns, entry.host_ns


def stamp_entry(connection: sqlite3.Connection, entry: OutboxEntry) -> None:
    """Replace the lines of an entry by stamped ones; stamp its audit too, unless with the host's own time."""
    row = connection.execute(
        f"UPDATE outbox SET lines = ?, stamp_ns = ? WHERE {_IS_ENTRY} RETURNING audit_id",  # noqa: S608
        (entry.lines, entry.stamp_ns, *_entry_key(entry)),
    ).fetchone()
    if row is not None and entry.stamp_ns != entry.host_ns:
        connection.execute("UPDATE audits SET utc_ns = ? WHERE utc_ns IS NULL AND id = ?", (entry.stamp_ns, row[0]))


def stamp_audits(connection: sqlite3.Connection, boot_id: str | None, boot_ns: int) -> None:
    """Stamp the latest audits and events of a boot; `boot_ns` is the true time of its start."""
    for table in ("audits", "events"):
        connection.execute(
            f"UPDATE {table} SET utc_ns = boottime_ns + ? WHERE utc_ns IS NULL AND boot_id = ?"  # noqa: S608
            f" AND id > (SELECT MAX(id) FROM {table}) - ?",
            (boot_ns, boot_id, MAX_STAMPED),
        )


def ack(connection: sqlite3.Connection, entries: Sequence[OutboxEntry]) -> None:
    """Remove delivered entries, the oldest of the outbox.

    If the state has moved meanwhile, nothing is removed: the entries are delivered again, which changes no point.
    """
    gone = connection.execute(
        f"DELETE FROM outbox WHERE id <= ? AND EXISTS (SELECT 1 FROM outbox WHERE {_IS_ENTRY})",  # noqa: S608
        (entries[-1].id, *_entry_key(entries[-1])),
    )
    _check_gone(connection, entries[0], gone.rowcount)


def dead_letter(connection: sqlite3.Connection, entry: OutboxEntry, reason: str) -> None:
    """Move an entry to the dead letters, with the reason."""
    connection.execute(
        "INSERT INTO set_aside (audit_id, stamp_ns, lines, reason)"  # noqa: S608
        f" SELECT audit_id, stamp_ns, lines, ? FROM outbox WHERE {_IS_ENTRY}",
        (_clean(reason), *_entry_key(entry)),
    )
    gone = connection.execute(f"DELETE FROM outbox WHERE {_IS_ENTRY}", _entry_key(entry))  # noqa: S608
    _check_gone(connection, entry, gone.rowcount)
    _keep_newest(connection, "set_aside", KEPT_DEAD_LETTERS)


def _check_gone(connection: sqlite3.Connection, entry: OutboxEntry, count: int) -> None:
    """Raise if a removed entry is still the first: in a damaged file it would be sent forever."""
    if not count:
        first = connection.execute("SELECT id, boottime_ns, host_ns FROM outbox ORDER BY id LIMIT 1").fetchone()
        if first == _entry_key(entry):
            raise sqlite3.DatabaseError("an outbox entry cannot be removed")


def backlog(connection: sqlite3.Connection) -> tuple[int, int | None, int]:
    """Return the number of entries, the stamp (else the host time) of the oldest, and the number of dead letters.

    The ids have almost no gaps, so the first and the last give the number without counting.
    """
    count, oldest_ns, aside = connection.execute(
        "SELECT (SELECT IFNULL(MAX(id) + 1, 0) FROM outbox) - (SELECT IFNULL(MIN(id), 0) FROM outbox),"
        " (SELECT IFNULL(stamp_ns, host_ns) FROM outbox ORDER BY id LIMIT 1),"
        " (SELECT COUNT(*) FROM set_aside)"
    ).fetchone()
    if not isinstance(oldest_ns, int | None):
        raise sqlite3.DatabaseError(f"an outbox entry is damaged: {oldest_ns!r} is no time")
    return count, oldest_ns, aside


def count_kept(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the number of audits and of outbox entries, for a memory database, whose ids have no gaps."""
    kept, waiting = connection.execute(
        "SELECT (SELECT IFNULL(MAX(id) - MIN(id) + 1, 0) FROM audits),"
        " (SELECT IFNULL(MAX(id) - MIN(id) + 1, 0) FROM outbox)"
    ).fetchone()
    return kept, waiting


def load_state(connection: sqlite3.Connection, key: str) -> Any:
    """Return the stored value of a key, None if there is none or it is damaged."""
    row = connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
    try:
        return None if row is None else json.loads(row[0])
    except (ValueError, RecursionError):
        return None


def save_state(connection: sqlite3.Connection, key: str, value: Any) -> None:
    """Store a JSON value under a key."""
    connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, to_json(value)))


_DROPPED = "dropped"


def dropped(connection: sqlite3.Connection) -> int:
    """Return how many records were ever dropped for lack of space."""
    total = load_state(connection, _DROPPED)
    return total if type(total) is int and total > 0 else 0


def count_dropped(connection: sqlite3.Connection, count: int) -> None:
    """Add to the number of dropped records."""
    save_dropped(connection, dropped(connection) + count)


def save_dropped(connection: sqlite3.Connection, total: int) -> None:
    """Store the number of dropped records, if it has changed."""
    if total != dropped(connection):
        save_state(connection, _DROPPED, total)


def find_damaged(connection: sqlite3.Connection, boot_id: str | None, count: int) -> list[int]:
    """Check the latest network audits of a boot, mark the damaged ones, and return the ids of all that are marked.

    They are kept for examination.
    """
    rows = connection.execute(
        "SELECT id, observation, record FROM audits"
        " WHERE kind = 'network' AND boot_id = ? AND record IS NOT NULL ORDER BY id DESC LIMIT ?",
        (boot_id, count),
    ).fetchall()
    for audit_id, observation, record in rows:
        try:
            revive(Observation, json.loads(unpack_text(observation)))
            read_record(record)
        except (ValueError, TypeError, RecursionError):
            _quarantine_audit(connection, audit_id)
    return [audit_id for (audit_id,) in connection.execute("SELECT id FROM audits WHERE kind = 'damaged' ORDER BY id")]


def pending_observations(connection: sqlite3.Connection) -> list[PendingObservation]:
    """Return the agent's observations without a record; a damaged one is marked as such."""
    rows = connection.execute(
        "SELECT id, kind, observation FROM audits INDEXED BY audits_unjudged"
        " WHERE record IS NULL AND kind IN ('network', 'local') ORDER BY id"
    ).fetchall()
    found = []
    for audit_id, kind, text in rows:
        try:
            found.append(PendingObservation(audit_id, kind, revive(Observation, json.loads(unpack_text(text)))))
        except (ValueError, TypeError, RecursionError):
            _quarantine_audit(connection, audit_id)
    return found


def _quarantine_audit(connection: sqlite3.Connection, audit_id: int) -> None:
    """Mark a row as damaged, so that it is not used any more."""
    connection.execute("UPDATE audits SET kind = 'damaged' WHERE id = ?", (audit_id,))


def give_up(connection: sqlite3.Connection, audit_id: int) -> None:
    """Never try to judge this observation again."""
    connection.execute("UPDATE audits SET kind = NULL WHERE id = ?", (audit_id,))


def drop_beyond(connection: sqlite3.Connection, count: int) -> int:
    """Delete all but the newest `count` audits, with their entries; return how many. Ids must have no gaps."""
    (last,) = connection.execute("SELECT IFNULL(MAX(id), 0) - ? FROM audits", (count,)).fetchone()
    connection.execute(
        "DELETE FROM outbox WHERE audit_id <= ? AND id IN (SELECT id FROM outbox ORDER BY id LIMIT ?)", (last, MAX_AGED)
    )
    for table in ("events", "outbox"):
        _keep_newest(connection, table, 2 * count)
    return connection.execute("DELETE FROM audits WHERE id <= ?", (last,)).rowcount


def _keep_newest(connection: sqlite3.Connection, table: str, count: int) -> None:
    """Delete all rows but about the newest `count`."""
    connection.execute(f"DELETE FROM {table} WHERE id <= (SELECT MAX(id) FROM {table}) - ?", (count,))  # noqa: S608


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
    _drop_finished(source, target)
    moved = {}
    columns = f"{_OBSERVATION_COLUMNS}, {_RECORD_COLUMNS}"
    for audit_id, *values in source.execute(f"SELECT id, {columns} FROM audits ORDER BY id"):  # noqa: S608
        moved[audit_id] = _insert(target, "audits", columns, values)
    for table, columns in (
        ("events", "kind, raised, severity, level, text, utc_ns, host_ns, boot_id, boottime_ns, value_s, detail"),
        ("outbox", "audit_id, boot_id, boottime_ns, host_ns, stamp_ns, lines"),
        ("set_aside", "audit_id, stamp_ns, lines, reason"),
    ):
        for values in source.execute(f"SELECT {columns} FROM {table} ORDER BY id"):  # noqa: S608
            if columns.startswith("audit_id"):
                values = (moved.get(values[0]), *values[1:])
            _insert(target, table, columns, values)
    for values in source.execute("SELECT * FROM rollups"):
        _add_rollup(target, values)
    copy_state(source, target)


CARRY_BATCH = 1000
"""How many outbox entries of a deleted file are in memory at once."""


def carry_over(source: sqlite3.Connection, target: sqlite3.Connection) -> tuple[int, sqlite3.Error | None]:
    """Copy the outbox and the dead letters; return the number of outbox entries, and the error that ended reading.

    The target may be an older copy of the source, so rows that it has already are skipped.
    """
    carried = 0
    for table, columns in _OUTBOX_TABLES.items():
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


_OUTBOX_TABLES = {
    "outbox": "boot_id, boottime_ns, host_ns, stamp_ns, lines",
    "set_aside": "stamp_ns, lines, reason",
}


def _drop_finished(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Delete observations of the target that the source has with their record."""
    pending = target.execute("SELECT id, boottime_ns, boot_id FROM audits WHERE record IS NULL").fetchall()
    for audit_id, *moment in pending:
        found = source.execute(
            "SELECT 1 FROM audits WHERE record IS NOT NULL AND boottime_ns = ? AND boot_id IS ?", moment
        )
        if found.fetchone():
            target.execute("DELETE FROM audits WHERE id = ?", (audit_id,))


class Pruned(NamedTuple):
    """How many audits retention deleted, and how many undelivered outbox entries."""

    audits: int = 0
    undelivered: int = 0


_WAITING = f"SELECT audit_id FROM (SELECT audit_id FROM outbox ORDER BY id LIMIT {2 * MAX_AGED})"  # noqa: S608
"""The audits of the oldest outbox entries: delivery is in order, so no older audit waits."""


def prune_by_age(connection: sqlite3.Connection, now_ns: int, raw_s: float, rollups_s: float, findings_s: float) -> int:
    """Delete what is older than its retention; return the number of audits.

    An audit is old if both its true time and its host time are. Undelivered audits stay; so do audits without a true
    time, which are deleted with the next one that has it. If `now_ns` is wrong, at most the oldest `MAX_AGED` are lost.
    """
    raw_ns, findings_ns = (now_ns - round(kept_s * NS_PER_S) for kept_s in (raw_s, findings_s))
    gone = _drop_old(connection, "audits", raw_ns, f"id NOT IN ({_WAITING} WHERE audit_id IS NOT NULL)")
    _drop_old(connection, "events", findings_ns, "TRUE")
    connection.execute(
        "DELETE FROM rollups WHERE hour_s < ? AND hour_s IN (SELECT hour_s FROM rollups ORDER BY hour_s LIMIT ?)",
        (now_ns / NS_PER_S - rollups_s, MAX_AGED_HOURS),
    )
    return gone


def _drop_old(connection: sqlite3.Connection, table: str, before_ns: int, condition: str) -> int:
    """Delete rows from before a time, among the oldest; return how many."""
    return connection.execute(
        f"""
        DELETE FROM {table} WHERE {condition} AND id IN (
            WITH oldest AS (SELECT id, utc_ns, host_ns FROM {table} ORDER BY id LIMIT ?),
            old AS (SELECT id, utc_ns FROM oldest WHERE MAX(host_ns, IFNULL(utc_ns, host_ns)) < ?)
            SELECT id FROM old WHERE id <= (SELECT MAX(id) FROM old WHERE utc_ns IS NOT NULL)
        )
        """,  # noqa: S608
        (MAX_AGED, before_ns),
    ).rowcount


def size_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the database in bytes, without free pages."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def prune_by_size(connection: sqlite3.Connection, max_bytes: int) -> Pruned:
    """Delete the oldest audits while the database is too large: delivered ones first.

    Undelivered ones are added to `dropped`.
    """
    pruned = Pruned()
    _keep_newest(connection, "events", KEPT_EVENTS)
    for _ in range(MAX_SLICES):
        if size_bytes(connection) <= max_bytes:
            break
        gone, entries = _drop_delivered(connection), 0
        if not gone:
            gone, entries = _drop_undelivered(connection)
        if not gone and not entries:
            break
        pruned = Pruned(pruned.audits + gone, pruned.undelivered + entries)
    count_dropped(connection, pruned.undelivered)
    _return_pages(connection)
    return pruned


def _drop_delivered(connection: sqlite3.Connection) -> int:
    """Delete delivered audits among the oldest; return how many."""
    return connection.execute(
        "DELETE FROM audits WHERE id IN (SELECT id FROM audits ORDER BY id LIMIT ?)"  # noqa: S608
        f" AND id NOT IN ({_WAITING} WHERE audit_id IS NOT NULL)",
        (SLICE,),
    ).rowcount


def _drop_undelivered(connection: sqlite3.Connection) -> tuple[int, int]:
    """Delete the oldest outbox entries with their audits; return how many audits and entries."""
    entry_id, audit_id = connection.execute(
        "SELECT MAX(id), MAX(audit_id) FROM (SELECT id, audit_id FROM outbox ORDER BY id LIMIT ?)", (SLICE,)
    ).fetchone()
    audits = connection.execute("DELETE FROM audits WHERE id <= ?", (audit_id,)).rowcount
    return audits, connection.execute("DELETE FROM outbox WHERE id <= ?", (entry_id,)).rowcount


def _return_pages(connection: sqlite3.Connection) -> None:
    """Return free pages to the file system, if there are many."""
    pages, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    if free > pages // 8:
        for _ in range(min(free, MAX_PAGES)):
            connection.execute("PRAGMA incremental_vacuum(1)")  # of more, Python would take the first step only

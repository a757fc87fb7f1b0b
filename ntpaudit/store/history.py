"""Audits kept: first what was seen, then what was concluded from it, with all that follows in the same transaction."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from ntpaudit.core.clock.readings import ClockReading
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
"""So many letters that were set aside are kept, the newest: a database may refuse every one."""

MAX_STAMPED = 10_000
"""Of so many of the latest rows those without a true time get one, once it is known."""

MAX_AGED = 1000
"""So many of the oldest rows are looked at, and may go for their age at once."""

MAX_AGED_HOURS = 24
"""And so many of the oldest rollups."""

KEPT_EVENTS = 100_000
"""So many events are kept, the newest, whatever their age: a clock may be set every second."""

SLICE = 250
"""So many of the oldest audits go at once while there are too many bytes, MAX_SLICES times at most."""

MAX_SLICES = 40

MAX_PAGES = 4000
"""So many free pages are given back at once."""

MAX_UNSTAMPED = 500
"""So many of the letters without a date are looked at in a round."""

_INT64 = (-(1 << 63), (1 << 63) - 1)


class OutboxEntry(NamedTuple):
    """What is to be delivered of one moment: lines of line protocol, dated or not yet (`stamp_ns` None)."""

    id: int
    lines: str
    stamp_ns: int | None
    boot_id: str | None
    boottime_ns: int
    host_ns: int


class PriorAudit(NamedTuple):
    """A network audit of this boot, as far as later ones build on it. `distance_s` is F2's of its nearest source."""

    reading: ClockReading
    record: Record
    distance_s: float


class PendingObservation(NamedTuple):
    """An observation that was kept, and whose record was not: the agent ended in between."""

    id: int
    kind: Kind
    observation: Observation


_SEEN = "host_ns, kind, boot_id, boottime_ns, suspended_ns, raw_ns, observation"
_CONCLUDED = "record, utc_ns, severity, verdict, offset_ns, earliest_ns, latest_ns, distance_s, local_s"


def keep_observation(connection: sqlite3.Connection, observation: Observation, kind: Kind | None = None) -> int:
    """Store what an audit saw, before it is judged; return its id. `kind` is None outside the agent."""
    return _insert(connection, "audits", _SEEN, (*_moment(observation, kind), _packed(observation)))


def keep_record(connection: sqlite3.Connection, audit_id: int, record: Record, distance_s: float | None = None) -> bool:
    """Store what was concluded from an observation that was kept; False where there is no such observation."""
    values = _concluded(record, distance_s)
    done = connection.execute(
        f"UPDATE audits SET ({_CONCLUDED}) = ({_marks(values)}) WHERE id = ?",  # noqa: S608
        (*values, audit_id),
    )
    return done.rowcount == 1


def keep_audit(
    connection: sqlite3.Connection, observation: Observation, record: Record, distance_s: float | None = None
) -> int:
    """Store what an audit saw and what was concluded from it, at once; return its id.

    All that a local one saw is in its record and in the columns, so its observation is not written out once more.
    """
    seen = "" if record.kind == "local" else _packed(observation)
    values = (*_moment(observation, record.kind), seen, *_concluded(record, distance_s))
    return _insert(connection, "audits", f"{_SEEN}, {_CONCLUDED}", values)


def _moment(observation: Observation, kind: Kind | None) -> tuple[Any, ...]:
    """Return the columns that say when an observation was made, and by whom."""
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
    """Write an observation out."""
    return pack_text(to_json(plain(observation)))


def _concluded(record: Record, distance_s: float | None) -> tuple[Any, ...]:
    """Return a record's columns."""
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
    """Write a question mark for each value."""
    return ", ".join("?" * len(values))


def _ns(span_s: float | None) -> int | None:
    """Turn seconds into nanoseconds."""
    return None if span_s is None else _fitting(round(span_s * NS_PER_S))


def _fitting(value_ns: int | None) -> int | None:
    """Return the nearest value that a column can hold: a host may believe in a year beyond 2262."""
    return None if value_ns is None else max(_INT64[0], min(_INT64[1], value_ns))


def find_pending(connection: sqlite3.Connection, observation: Observation) -> int | None:
    """Return the id of this observation, if it was kept and nothing was concluded from it yet."""
    row = connection.execute(
        "SELECT id FROM audits WHERE record IS NULL AND kind IS NOT NULL AND boottime_ns = ? AND boot_id IS ?",
        (observation.taken.boottime_ns, observation.host.boot_id),
    ).fetchone()
    return None if row is None else int(row[0])


def roll_up(connection: sqlite3.Connection, record: Record) -> None:
    """Count a record in its hour, which outlives it. Of an unmeasured one the hour is the host's."""
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
    """Add to an hour's counts, and stretch its extremes."""
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
    """Store what happened."""
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
    """Replace what is no character: names from outside may hold octets that are none."""
    return text.encode(errors="replace").decode()


def enqueue(connection: sqlite3.Connection, entry: OutboxEntry, audit_id: int | None) -> None:
    """Put lines in the outbox; they are rendered now, so that delivering them costs nothing but sending."""
    connection.execute(
        "INSERT INTO outbox (audit_id, boot_id, boottime_ns, host_ns, stamp_ns, lines) VALUES (?, ?, ?, ?, ?, ?)",
        (audit_id, entry.boot_id, entry.boottime_ns, entry.host_ns, entry.stamp_ns, entry.lines),
    )


_LETTER = "id, lines, stamp_ns, boot_id, boottime_ns, host_ns"


def _entry(row: tuple[Any, ...]) -> OutboxEntry:
    """Return a letter of a row; DatabaseError where it is not what was written, which SQLite itself does not notice."""
    try:
        return revive(OutboxEntry, OutboxEntry._make(row)._asdict())
    except (TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"a letter is damaged: {error}") from error


def waiting(connection: sqlite3.Connection, count: int) -> list[OutboxEntry]:
    """Return the oldest letters, up to the first that cannot be dated yet: the order is kept."""
    rows = connection.execute(f"SELECT {_LETTER} FROM outbox ORDER BY id LIMIT ?", (count,))  # noqa: S608
    entries: list[OutboxEntry] = []
    for entry in map(_entry, rows):
        if entries and entry.id <= entries[-1].id:
            raise sqlite3.DatabaseError("letters are out of order")  # SQLite itself does not notice all damage
        if entry.stamp_ns is None:
            break
        entries.append(entry)
    return entries


def newest(connection: sqlite3.Connection) -> OutboxEntry | None:
    """Return the newest letter that can be dated, of the last MAX_UNSTAMPED."""
    row = connection.execute(
        f"SELECT * FROM (SELECT {_LETTER} FROM outbox ORDER BY id DESC LIMIT ?)"  # noqa: S608
        " WHERE stamp_ns IS NOT NULL LIMIT 1",
        (MAX_UNSTAMPED,),
    ).fetchone()
    return None if row is None else _entry(row)


def unstamped(connection: sqlite3.Connection, count: int = MAX_UNSTAMPED) -> list[OutboxEntry]:
    """Return the letters of moments whose true time is not known, the oldest `count` of them, oldest first."""
    rows = connection.execute(
        f"SELECT {_LETTER} FROM outbox WHERE stamp_ns IS NULL ORDER BY id LIMIT ?",  # noqa: S608
        (count,),
    )
    return [_entry(row) for row in rows]


_THIS = "id = ? AND boottime_ns = ? AND host_ns = ?"


def _this(entry: OutboxEntry) -> tuple[int, int, int]:
    """Return what tells a letter from every other, wherever the state was moved to meanwhile."""
    return entry.id, entry.boottime_ns, entry.host_ns


def stamp_entry(connection: sqlite3.Connection, entry: OutboxEntry) -> None:
    """Replace the lines of a letter by dated ones, and date its audit, unless by the host's own clock."""
    row = connection.execute(
        f"UPDATE outbox SET lines = ?, stamp_ns = ? WHERE {_THIS} RETURNING audit_id",  # noqa: S608
        (entry.lines, entry.stamp_ns, *_this(entry)),
    ).fetchone()
    if row is not None and entry.stamp_ns != entry.host_ns:
        connection.execute("UPDATE audits SET utc_ns = ? WHERE utc_ns IS NULL AND id = ?", (entry.stamp_ns, row[0]))


def stamp_audits(connection: sqlite3.Connection, boot_id: str | None, boot_ns: int) -> None:
    """Date the latest audits and events of a boot whose true time was not known; `boot_ns` is when that boot began."""
    for table in ("audits", "events"):
        connection.execute(
            f"UPDATE {table} SET utc_ns = boottime_ns + ? WHERE utc_ns IS NULL AND boot_id = ?"  # noqa: S608
            f" AND id > (SELECT MAX(id) FROM {table}) - ?",
            (boot_ns, boot_id, MAX_STAMPED),
        )


def ack(connection: sqlite3.Connection, entries: Sequence[OutboxEntry]) -> None:
    """Forget letters that have been delivered, the oldest. This is the cursor, and it only moves on.

    Where the state has moved meanwhile, nothing is forgotten: they are delivered once more, which changes no point.
    """
    gone = connection.execute(
        f"DELETE FROM outbox WHERE id <= ? AND EXISTS (SELECT 1 FROM outbox WHERE {_THIS})",  # noqa: S608
        (entries[-1].id, *_this(entries[-1])),
    )
    _check_gone(connection, entries[0], gone.rowcount)


def dead_letter(connection: sqlite3.Connection, entry: OutboxEntry, reason: str) -> None:
    """Take a letter that will never be delivered out of the way of the others, and keep it with the reason."""
    connection.execute(
        "INSERT INTO set_aside (audit_id, stamp_ns, lines, reason)"  # noqa: S608
        f" SELECT audit_id, stamp_ns, lines, ? FROM outbox WHERE {_THIS}",
        (_clean(reason), *_this(entry)),
    )
    gone = connection.execute(f"DELETE FROM outbox WHERE {_THIS}", _this(entry))  # noqa: S608
    _check_gone(connection, entry, gone.rowcount)
    _keep_newest(connection, "set_aside", KEPT_DEAD_LETTERS)


def _check_gone(connection: sqlite3.Connection, entry: OutboxEntry, count: int) -> None:
    """Raise where a letter stays the first although it was removed: in a damaged file it would be sent for ever."""
    if not count:
        first = connection.execute("SELECT id, boottime_ns, host_ns FROM outbox ORDER BY id LIMIT 1").fetchone()
        if first == _this(entry):
            raise sqlite3.DatabaseError("a letter cannot be removed")


def backlog(connection: sqlite3.Connection) -> tuple[int, int | None, int]:
    """Return how many letters wait, the stamp (else the host time) of the oldest, and how many are set aside.

    Letters' ids have next to no holes, so the first and the last tell their number without counting.
    """
    count, oldest_ns, aside = connection.execute(
        "SELECT (SELECT IFNULL(MAX(id) + 1, 0) FROM outbox) - (SELECT IFNULL(MIN(id), 0) FROM outbox),"
        " (SELECT IFNULL(stamp_ns, host_ns) FROM outbox ORDER BY id LIMIT 1),"
        " (SELECT COUNT(*) FROM set_aside)"
    ).fetchone()
    return count, oldest_ns, aside


def count_kept(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many audits are kept, and how many letters wait: of the stand-in, whose ids have no holes."""
    kept, waiting = connection.execute(
        "SELECT (SELECT IFNULL(MAX(id) - MIN(id) + 1, 0) FROM audits),"
        " (SELECT IFNULL(MAX(id) - MIN(id) + 1, 0) FROM outbox)"
    ).fetchone()
    return kept, waiting


def load_state(connection: sqlite3.Connection, key: str) -> Any:
    """Return what the agent keeps under a key, None where there is nothing that can be read."""
    row = connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
    try:
        return None if row is None else json.loads(row[0])
    except (ValueError, RecursionError):
        return None


def save_state(connection: sqlite3.Connection, key: str, value: Any) -> None:
    """Keep a value, as JSON has it, under a key."""
    connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, to_json(value)))


_DROPPED = "dropped"


def dropped(connection: sqlite3.Connection) -> int:
    """Return how many records were given up so far because there was no room for them."""
    total = load_state(connection, _DROPPED)
    return total if type(total) is int and total > 0 else 0


def count_dropped(connection: sqlite3.Connection, count: int) -> None:
    """Add to the records that were given up."""
    save_dropped(connection, dropped(connection) + count)


def save_dropped(connection: sqlite3.Connection, total: int) -> None:
    """Keep how many records were given up, unless that is what is kept already."""
    if total != dropped(connection):
        save_state(connection, _DROPPED, total)


def prior_audits(connection: sqlite3.Connection, boot_id: str | None, count: int) -> list[PriorAudit]:
    """Return the latest measured network audits of this boot, oldest first; a damaged one is set aside."""
    rows = connection.execute(
        "SELECT id, observation, record, distance_s FROM audits"
        " WHERE kind = 'network' AND boot_id = ? AND distance_s IS NOT NULL ORDER BY id DESC LIMIT ?",
        (boot_id, count),
    ).fetchall()
    found = []
    for audit_id, observation, record, distance_s in rows:
        try:
            reading = revive(ClockReading, json.loads(unpack_text(observation))["taken"])
            found.append(PriorAudit(reading, read_record(record)[1], revive(float, distance_s)))
        except (ValueError, TypeError, KeyError, RecursionError):
            _quarantine_audit(connection, audit_id)
    return found[::-1]


def pending_observations(connection: sqlite3.Connection) -> list[PendingObservation]:
    """Return the agent's observations without a record; a damaged one is set aside."""
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


def damaged(connection: sqlite3.Connection) -> list[int]:
    """Return the ids of the audits that were set aside because their row is damaged: they stay for examination."""
    return [audit_id for (audit_id,) in connection.execute("SELECT id FROM audits WHERE kind = 'damaged' ORDER BY id")]


def _quarantine_audit(connection: sqlite3.Connection, audit_id: int) -> None:
    """Use a damaged row for nothing any more."""
    connection.execute("UPDATE audits SET kind = 'damaged' WHERE id = ?", (audit_id,))


def give_up(connection: sqlite3.Connection, audit_id: int) -> None:
    """Leave an observation without a record for good."""
    connection.execute("UPDATE audits SET kind = NULL WHERE id = ?", (audit_id,))


def drop_beyond(connection: sqlite3.Connection, count: int) -> int:
    """Drop the oldest audits beyond so many, with their letters; return how many. Only where all ids follow in turn."""
    (last,) = connection.execute("SELECT IFNULL(MAX(id), 0) - ? FROM audits", (count,)).fetchone()
    connection.execute(
        "DELETE FROM outbox WHERE audit_id <= ? AND id IN (SELECT id FROM outbox ORDER BY id LIMIT ?)", (last, MAX_AGED)
    )
    for table in ("events", "outbox"):
        _keep_newest(connection, table, 2 * count)
    return connection.execute("DELETE FROM audits WHERE id <= ?", (last,)).rowcount


def _keep_newest(connection: sqlite3.Connection, table: str, count: int) -> None:
    """Drop all rows but about so many."""
    connection.execute(f"DELETE FROM {table} WHERE id <= (SELECT MAX(id) FROM {table}) - ?", (count,))  # noqa: S608


def copy_state(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Copy the state and the memory of servers, as far as the source can be read."""
    for table in ("state", "servers"):
        try:
            rows = source.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
        except sqlite3.Error:
            continue
        target.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", rows)  # noqa: S608


def move(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Add all that the source holds to the target."""
    _drop_finished(source, target)
    moved = {}
    columns = f"{_SEEN}, {_CONCLUDED}"
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


CARRIED_AT_ONCE = 1000
"""So many letters of a removed file are in memory at once."""


def carry_over(source: sqlite3.Connection, target: sqlite3.Connection) -> tuple[int, sqlite3.Error | None]:
    """Add what the source has still to deliver, and its dead letters, to the target; return how many letters, and why
    no more could be read.

    The target may be an older copy of the source, so what it holds already is left out.
    """
    carried = 0
    for table, columns in _LETTERS.items():
        known = {hash(row) for row in target.execute(f"SELECT {columns} FROM {table}")}  # noqa: S608
        after_id = -1
        while True:
            try:
                rows = source.execute(
                    f"SELECT id, {columns} FROM {table} WHERE id > ? ORDER BY id LIMIT {CARRIED_AT_ONCE}",  # noqa: S608
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


_LETTERS = {
    "outbox": "boot_id, boottime_ns, host_ns, stamp_ns, lines",
    "set_aside": "stamp_ns, lines, reason",
}


def _drop_finished(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Remove observations of the target whose record went to the source, with the observation once more."""
    pending = target.execute("SELECT id, boottime_ns, boot_id FROM audits WHERE record IS NULL").fetchall()
    for audit_id, *moment in pending:
        found = source.execute(
            "SELECT 1 FROM audits WHERE record IS NOT NULL AND boottime_ns = ? AND boot_id IS ?", moment
        )
        if found.fetchone():
            target.execute("DELETE FROM audits WHERE id = ?", (audit_id,))


class Pruned(NamedTuple):
    """What retention removed: audits, and among them some that had not been delivered."""

    audits: int = 0
    undelivered: int = 0


_WAITING = f"SELECT audit_id FROM (SELECT audit_id FROM outbox ORDER BY id LIMIT {2 * MAX_AGED})"  # noqa: S608
"""The audits of the oldest letters: as long as letters go in their order, no older audit waits."""


def prune_by_age(connection: sqlite3.Connection, now_ns: int, raw_s: float, rollups_s: float, findings_s: float) -> int:
    """Remove what is older than it is to be kept; return how many audits.

    An audit is old when both the true time and the host's clock say so. What waits to be delivered stays, and so does
    what is not dated: it goes with the next dated one. Were `now_ns` wrong after all, the oldest `MAX_AGED` would be
    lost, and no more.
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
    """Remove the rows among the oldest that are from before a moment; return how many."""
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
    """Return how many bytes the database uses, without pages that are free to be used again."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def prune_by_size(connection: sqlite3.Connection, max_bytes: int) -> Pruned:
    """Remove the oldest audits while there are too many bytes: delivered ones as long as there are any.

    What goes undelivered is added to what `dropped` returns.
    """
    trimmed = Pruned()
    _keep_newest(connection, "events", KEPT_EVENTS)
    for _ in range(MAX_SLICES):
        if size_bytes(connection) <= max_bytes:
            break
        gone, entries = _drop_delivered(connection), 0
        if not gone:
            gone, entries = _drop_undelivered(connection)
        if not gone and not entries:
            break
        trimmed = Pruned(trimmed.audits + gone, trimmed.undelivered + entries)
    count_dropped(connection, trimmed.undelivered)
    _give_back(connection)
    return trimmed


def _drop_delivered(connection: sqlite3.Connection) -> int:
    """Drop those of the oldest audits that do not wait to be delivered; return how many."""
    return connection.execute(
        "DELETE FROM audits WHERE id IN (SELECT id FROM audits ORDER BY id LIMIT ?)"  # noqa: S608
        f" AND id NOT IN ({_WAITING} WHERE audit_id IS NOT NULL)",
        (SLICE,),
    ).rowcount


def _drop_undelivered(connection: sqlite3.Connection) -> tuple[int, int]:
    """Drop the oldest letters, and the audits up to theirs; return how many audits and how many letters."""
    letter_id, audit_id = connection.execute(
        "SELECT MAX(id), MAX(audit_id) FROM (SELECT id, audit_id FROM outbox ORDER BY id LIMIT ?)", (SLICE,)
    ).fetchone()
    audits = connection.execute("DELETE FROM audits WHERE id <= ?", (audit_id,)).rowcount
    return audits, connection.execute("DELETE FROM outbox WHERE id <= ?", (letter_id,)).rowcount


def _give_back(connection: sqlite3.Connection) -> None:
    """Give free pages back to the file system, some at a time, where they are many."""
    pages, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    if free > pages // 8:
        for _ in range(min(free, MAX_PAGES)):
            connection.execute("PRAGMA incremental_vacuum(1)")  # of more, Python would take the first step only

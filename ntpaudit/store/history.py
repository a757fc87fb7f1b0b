"""Audits kept: first what was seen, then what was concluded from it, with all that follows in the same transaction."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from ntpaudit.core.clocks import ClockReading
from ntpaudit.core.events import Event
from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.core.observation import Observation
from ntpaudit.core.policy import VERDICTS
from ntpaudit.core.record import Kind, Record
from ntpaudit.store.plain import plain, revive

HOUR_S = 3600


class Letter(NamedTuple):
    """What is to be delivered of one moment: lines of line protocol, dated or not yet (`stamp_ns` None)."""

    id: int
    lines: str
    stamp_ns: int | None
    boot_id: str | None
    boottime_ns: int
    host_ns: int


class Seen(NamedTuple):
    """A network audit of this boot, as far as later ones build on it. `distance_s` is F2's of its nearest source."""

    reading: ClockReading
    record: Record
    distance_s: float


class Unjudged(NamedTuple):
    """An observation that was kept, and whose record was not: the agent ended in between."""

    id: int
    kind: Kind
    observation: Observation


def keep_observation(connection: sqlite3.Connection, observation: Observation, kind: Kind | None = None) -> int:
    """Store what an audit saw, before it is judged; return its id. `kind` is None outside the agent."""
    text = json.dumps(plain(observation), allow_nan=False, separators=(",", ":"))
    taken = observation.taken
    row = connection.execute(
        "INSERT INTO audits (host_ns, observation, kind, boot_id, boottime_ns, suspended_ns, raw_ns)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            taken.realtime_ns,
            text,
            kind,
            observation.host.boot_id,
            taken.boottime_ns,
            taken.boottime_ns - taken.monotonic_ns,
            taken.raw_ns,
        ),
    )
    return int(row.lastrowid or 0)


def keep_record(connection: sqlite3.Connection, audit_id: int, record: Record, distance_s: float | None = None) -> bool:
    """Store what was concluded from an observation that was kept; False where there is no such observation."""
    offset = record.offset
    edges = (offset.estimate_s, offset.earliest_s, offset.latest_s) if offset else (None, None, None)
    text = json.dumps(record.to_dict(), allow_nan=False, separators=(",", ":"))
    done = connection.execute(
        "UPDATE audits SET record = ?, utc_ns = ?, severity = ?, verdict = ?,"
        " offset_ns = ?, earliest_ns = ?, latest_ns = ?, distance_s = ? WHERE id = ?",
        (
            text,
            record.utc_ns,
            int(record.severity),
            VERDICTS.index(record.verdict),
            *(None if edge is None else round(edge * NS_PER_S) for edge in edges),
            distance_s,
            audit_id,
        ),
    )
    return done.rowcount == 1


def roll_up(connection: sqlite3.Connection, record: Record) -> None:
    """Count a record in its hour, which outlives it. Of an unmeasured one the hour is the host's."""
    moment_ns = record.host_ns if record.utc_ns is None else record.utc_ns
    offset_ns = None if record.offset is None else round(record.offset.estimate_s * NS_PER_S)
    bound_ns = None if record.offset is None else round(record.offset.bound_s * NS_PER_S)
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
                event.text,
                event.utc_ns,
                event.host_ns,
                boot_id,
                event.boottime_ns,
                event.value_s,
                json.dumps(dict(event.detail), allow_nan=False),
            )
            for event in events
        ],
    )


def post(connection: sqlite3.Connection, letter: Letter, audit_id: int | None) -> None:
    """Put lines in the outbox; they are rendered now, so that delivering them costs nothing but sending."""
    connection.execute(
        "INSERT INTO outbox (audit_id, boot_id, boottime_ns, host_ns, stamp_ns, lines) VALUES (?, ?, ?, ?, ?, ?)",
        (audit_id, letter.boot_id, letter.boottime_ns, letter.host_ns, letter.stamp_ns, letter.lines),
    )


_LETTER = "id, lines, stamp_ns, boot_id, boottime_ns, host_ns"


def waiting(connection: sqlite3.Connection, count: int) -> list[Letter]:
    """Return the oldest letters, up to the first that cannot be dated yet: the order is kept."""
    rows = connection.execute(f"SELECT {_LETTER} FROM outbox ORDER BY id LIMIT ?", (count,))  # noqa: S608
    letters = []
    for letter in map(Letter._make, rows):
        if letter.stamp_ns is None:
            break
        letters.append(letter)
    return letters


def undated(connection: sqlite3.Connection) -> list[Letter]:
    """Return the letters of moments whose true time was not known."""
    rows = connection.execute(f"SELECT {_LETTER} FROM outbox WHERE stamp_ns IS NULL ORDER BY id")  # noqa: S608
    return [Letter._make(row) for row in rows]


def date_letter(connection: sqlite3.Connection, letter: Letter) -> None:
    """Replace the lines of a letter by dated ones, and date its audit."""
    connection.execute(
        "UPDATE outbox SET lines = ?, stamp_ns = ? WHERE id = ?", (letter.lines, letter.stamp_ns, letter.id)
    )
    connection.execute(
        "UPDATE audits SET utc_ns = ? WHERE utc_ns IS NULL AND id = (SELECT audit_id FROM outbox WHERE id = ?)",
        (letter.stamp_ns, letter.id),
    )


def confirm(connection: sqlite3.Connection, up_to: int) -> None:
    """Forget the letters up to this id: they have been delivered. This is the cursor, and it only moves on."""
    connection.execute("DELETE FROM outbox WHERE id <= ?", (up_to,))


def set_aside(connection: sqlite3.Connection, letter_id: int, reason: str) -> None:
    """Take a letter that the database will never accept out of the way of the others, and keep it with the reason."""
    connection.execute(
        "INSERT INTO set_aside (audit_id, stamp_ns, lines, reason)"
        " SELECT audit_id, stamp_ns, lines, ? FROM outbox WHERE id = ?",
        (reason, letter_id),
    )
    connection.execute("DELETE FROM outbox WHERE id = ?", (letter_id,))


def backlog(connection: sqlite3.Connection) -> tuple[int, int | None, int]:
    """Return how many letters wait, the stamp (else the host time) of the oldest, and how many were set aside.

    The ids of waiting letters have next to no holes, so the first and the last tell their number without counting.
    """
    first, last, stamp_ns, aside = connection.execute(
        "SELECT (SELECT MIN(id) FROM outbox), (SELECT MAX(id) FROM outbox),"
        " (SELECT IFNULL(stamp_ns, host_ns) FROM outbox ORDER BY id LIMIT 1), (SELECT COUNT(*) FROM set_aside)"
    ).fetchone()
    return (0, None, aside) if first is None else (last - first + 1, stamp_ns, aside)


def load_state(connection: sqlite3.Connection, key: str) -> Any:
    """Return what the agent keeps under a key, None where there is nothing that can be read."""
    row = connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
    try:
        return None if row is None else json.loads(row[0])
    except (ValueError, RecursionError):
        return None


def save_state(connection: sqlite3.Connection, key: str, value: Any) -> None:
    """Keep a value, as JSON has it, under a key."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, text))


def seen_this_boot(connection: sqlite3.Connection, boot_id: str | None, count: int) -> list[Seen]:
    """Return the latest measured network audits of this boot, oldest first, passing over what makes no sense."""
    rows = connection.execute(
        "SELECT json_extract(observation, '$.taken'), record, distance_s FROM audits"
        " WHERE kind = 'network' AND boot_id = ? AND offset_ns IS NOT NULL ORDER BY id DESC LIMIT ?",
        (boot_id, count),
    ).fetchall()
    found = []
    for taken, record, distance_s in rows:
        try:
            reading = revive(ClockReading, json.loads(taken))
            found.append(Seen(reading, Record.from_dict(json.loads(record)), distance_s or 0.0))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return found[::-1]


def unjudged(connection: sqlite3.Connection) -> list[Unjudged]:
    """Return the agent's observations without a record; one that makes no sense is given up."""
    rows = connection.execute(
        "SELECT id, kind, observation FROM audits WHERE record IS NULL AND kind IS NOT NULL ORDER BY id"
    ).fetchall()
    found = []
    for audit_id, kind, text in rows:
        try:
            found.append(Unjudged(audit_id, kind, revive(Observation, json.loads(text))))
        except (ValueError, TypeError, RecursionError):
            connection.execute("UPDATE audits SET kind = NULL WHERE id = ?", (audit_id,))
    return found


def drop_beyond(connection: sqlite3.Connection, count: int) -> int:
    """Drop the oldest audits, with their letters, beyond so many; return how many letters were among them."""
    (last,) = connection.execute(
        "SELECT IFNULL((SELECT id FROM audits ORDER BY id DESC LIMIT 1 OFFSET ?), 0)", (count,)
    ).fetchone()
    if not last:
        return 0
    connection.execute("DELETE FROM audits WHERE id <= ?", (last,))
    return connection.execute("DELETE FROM outbox WHERE audit_id <= ?", (last,)).rowcount


def copy_state(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Copy the state and the memory of servers, as far as the source can be read."""
    for table in ("state", "servers"):
        try:
            rows = source.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
        except sqlite3.Error:
            continue
        target.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", rows)  # noqa: S608


_AUDIT = (
    "host_ns, observation, record, kind, boot_id, boottime_ns, suspended_ns, raw_ns, utc_ns, severity, verdict,"
    " offset_ns, earliest_ns, latest_ns, distance_s"
)


def move(source: sqlite3.Connection, target: sqlite3.Connection, unfinished: Sequence[int]) -> None:
    """Add all that the source holds to the target. `unfinished` are observations there that the source finished."""
    target.executemany("DELETE FROM audits WHERE record IS NULL AND id = ?", [(audit_id,) for audit_id in unfinished])
    moved = {}
    for audit_id, *values in source.execute(f"SELECT id, {_AUDIT} FROM audits ORDER BY id"):  # noqa: S608
        row = target.execute(f"INSERT INTO audits ({_AUDIT}) VALUES ({_marks(values)})", values)  # noqa: S608
        moved[audit_id] = row.lastrowid
    for table, columns in (
        ("events", "kind, raised, severity, level, text, utc_ns, host_ns, boot_id, boottime_ns, value_s, detail"),
        ("outbox", "audit_id, boot_id, boottime_ns, host_ns, stamp_ns, lines"),
        ("set_aside", "audit_id, stamp_ns, lines, reason"),
    ):
        for values in source.execute(f"SELECT {columns} FROM {table} ORDER BY id"):  # noqa: S608
            if columns.startswith("audit_id"):
                values = (moved.get(values[0]), *values[1:])
            target.execute(f"INSERT INTO {table} ({columns}) VALUES ({_marks(values)})", values)  # noqa: S608
    for values in source.execute("SELECT * FROM rollups"):
        _add_rollup(target, values)
    copy_state(source, target)


def _marks(values: Sequence[Any]) -> str:
    """Write a question mark for each value."""
    return ", ".join("?" * len(values))


class Trimmed(NamedTuple):
    """What retention removed: audits, and among them some that had not been delivered."""

    audits: int = 0
    undelivered: int = 0


def trim_by_age(connection: sqlite3.Connection, now_ns: int, raw_s: float, rollups_s: float, findings_s: float) -> int:
    """Remove what is older than it is to be kept, by true time; return how many audits.

    What waits to be delivered stays, and so does what is not dated: it goes with the next dated one.
    """
    raw_ns, findings_ns = (now_ns - round(kept_s * NS_PER_S) for kept_s in (raw_s, findings_s))
    gone = connection.execute(
        "DELETE FROM audits WHERE id <= (SELECT MAX(id) FROM audits WHERE utc_ns < ?1)"
        " AND IFNULL(utc_ns, host_ns) < ?1 AND id NOT IN (SELECT audit_id FROM outbox WHERE audit_id IS NOT NULL)",
        (raw_ns,),
    ).rowcount
    connection.execute("DELETE FROM rollups WHERE hour_s < ?", (now_ns / NS_PER_S - rollups_s,))
    connection.execute("DELETE FROM events WHERE IFNULL(utc_ns, host_ns) < ?", (findings_ns,))
    connection.execute("DELETE FROM set_aside WHERE stamp_ns < ?", (findings_ns,))
    return gone


def size_bytes(connection: sqlite3.Connection) -> int:
    """Return how many bytes the database uses, without pages that are free to be used again."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def trim_by_size(connection: sqlite3.Connection, max_bytes: int) -> Trimmed:
    """Remove the oldest tenth of all audits while there are too many bytes: delivered ones as long as there are any."""
    trimmed = Trimmed()
    while size_bytes(connection) > max_bytes:
        tenth = 1 + connection.execute("SELECT COUNT(*) FROM audits").fetchone()[0] // 10
        gone = connection.execute(
            "DELETE FROM audits WHERE id IN (SELECT id FROM audits WHERE id NOT IN"
            " (SELECT audit_id FROM outbox WHERE audit_id IS NOT NULL) ORDER BY id LIMIT ?)",
            (tenth,),
        ).rowcount
        letters = 0
        if not gone:
            last = connection.execute("SELECT MAX(id) FROM (SELECT id FROM audits ORDER BY id LIMIT ?)", (tenth,))
            letters, gone = _drop_up_to(connection, last.fetchone()[0])
        if not gone and not letters:
            break
        trimmed = Trimmed(trimmed.audits + gone, trimmed.undelivered + letters)
    return trimmed


def _drop_up_to(connection: sqlite3.Connection, audit_id: int | None) -> tuple[int, int]:
    """Drop audits up to this one with their letters; return how many letters and how many audits."""
    letters = connection.execute("DELETE FROM outbox WHERE IFNULL(audit_id, 0) <= ?", (audit_id or 0,)).rowcount
    return letters, connection.execute("DELETE FROM audits WHERE id <= ?", (audit_id or 0,)).rowcount

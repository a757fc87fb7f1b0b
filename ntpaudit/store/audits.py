"""Audits, events and hourly rollups in the history."""

import sqlite3
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ntpaudit.core.checks.rule import LEVEL_SEVERITY
from ntpaudit.core.events import Event
from ntpaudit.core.observation import Observation
from ntpaudit.core.policy import VERDICTS, Severity
from ntpaudit.core.record import AuditKind, Record
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.store import chain
from ntpaudit.store.compression import pack_text
from ntpaudit.store.rows import (
    ROW_ERRORS,
    clean_text,
    fit_int64,
    insert,
    marks,
    parse_json,
    read_json,
    read_record,
    whole_number,
)
from ntpaudit.store.serialization import plain, to_json

MAX_STAMPED = 10_000  # how many of the latest rows are stamped with their true time, once it is known


class PendingObservation(NamedTuple):
    """An observation without a record: the agent ended in between."""

    id: int
    kind: AuditKind
    observation: Observation


class StoredEvent(NamedTuple):
    """An event of the history, with the boot that it happened in."""

    event: Event
    boot_id: str | None


OBSERVATION_COLUMNS = "host_ns, kind, boot_id, boottime_ns, suspended_ns, raw_ns, observation"
EVENT_COLUMNS = "kind, raised, severity, level, text, utc_ns, host_ns, boottime_ns, value_s, detail, boot_id"
RECORD_COLUMNS = "record, utc_ns, severity, verdict, offset_ns, earliest_ns, latest_ns, local_s"


def keep_observation(connection: sqlite3.Connection, observation: Observation, kind: AuditKind | None = None) -> int:
    """Store an observation before it is judged; return its id. `kind` is None outside the agent."""
    values = (*_observation_values(observation, kind), _packed(observation))
    audit_id = insert(connection, "audits", OBSERVATION_COLUMNS, values)
    chain.append(connection, "observation", audit_id)
    return audit_id


def keep_record(connection: sqlite3.Connection, audit_id: int, record: Record) -> bool:
    """Store the record of a stored observation; return False if there is no such observation."""
    values = record_values(record)
    done = connection.execute(
        f"UPDATE audits SET ({RECORD_COLUMNS}) = ({marks(values)}) WHERE id = ?",  # noqa: S608
        (*values, audit_id),
    )
    chain.append(connection, "record", audit_id)
    return done.rowcount == 1


def keep_audit(connection: sqlite3.Connection, observation: Observation, record: Record) -> int:
    """Store an audit's record, with its observation if that is not stored yet; return its id."""
    if (audit_id := find_pending(connection, observation)) is not None:
        keep_record(connection, audit_id, record)
        return audit_id
    # the observation of a local audit is complete in its record and columns
    seen = "" if record.kind == "local" else _packed(observation)
    values = (*_observation_values(observation, record.kind), seen, *record_values(record))
    audit_id = insert(connection, "audits", f"{OBSERVATION_COLUMNS}, {RECORD_COLUMNS}", values)
    if seen:
        chain.append(connection, "observation", audit_id)
    chain.append(connection, "record", audit_id)
    return audit_id


def _observation_values(observation: Observation, kind: AuditKind | None) -> tuple[Any, ...]:
    taken = observation.taken
    return (
        fit_int64(taken.realtime_ns),
        kind,
        observation.host.boot_id,
        taken.boottime_ns,
        taken.boottime_ns - taken.monotonic_ns,
        taken.raw_ns,
    )


def _packed(observation: Observation) -> bytes:
    """Pack an observation without what the next one compares as well; it would be twice as large."""
    return pack_text(to_json(plain(observation._replace(time_config=None))))


def record_values(record: Record) -> tuple[Any, ...]:
    """Return the values of `RECORD_COLUMNS`; all but the text follow from it."""
    offset = record.offset
    edges = (offset.estimate_s, offset.earliest_s, offset.latest_s) if offset else (None, None, None)
    return (
        pack_text(to_json(record.to_dict())),
        fit_int64(record.utc_ns),
        int(record.severity),
        VERDICTS.index(record.verdict),
        *map(_ns, edges),
        None if record.health is None else record.health.local_s,
    )


def _ns(span_s: float | None) -> int | None:
    return None if span_s is None else fit_int64(round(span_s * NS_PER_S))


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
    verdicts = (record.verdict == verdict for verdict in ("within", "unproven", "beyond"))
    counts = (1, record.offset is not None, *verdicts, int(record.severity))
    add_rollup(connection, (moment_ns // NS_PER_S // HOUR_S * HOUR_S, *counts, offset_ns, offset_ns, bound_ns))


def add_rollup(connection: sqlite3.Connection, values: Sequence[Any]) -> None:
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
        values,
    )


def keep_events(connection: sqlite3.Connection, events: Sequence[Event], boot_id: str | None) -> None:
    """Store events."""
    for event in events:
        moment = (fit_int64(event.utc_ns), fit_int64(event.host_ns), event.boottime_ns)
        finding = (event.kind, event.raised, int(event.severity), event.level, clean_text(event.text))
        values = (*finding, *moment, event.value_s, to_json(dict(event.detail)), boot_id)
        chain.append(connection, "event", insert(connection, "events", EVENT_COLUMNS, values))


def stamp_audits(connection: sqlite3.Connection, boot_id: str | None, boot_ns: int) -> tuple[int, int] | None:
    """Stamp the latest audits and events of a boot; `boot_ns` is the true time of its start.

    Return the least id of these audits (or one larger than all), and the earliest time in ns; None if there were none.
    """
    audits, events = (
        connection.execute(
            f"UPDATE {table} SET utc_ns = boottime_ns + ? WHERE utc_ns IS NULL AND boot_id = ?"  # noqa: S608
            f" AND id > (SELECT MAX(id) FROM {table}) - ? RETURNING id, utc_ns",
            (boot_ns, boot_id, MAX_STAMPED),
        ).fetchall()
        for table in ("audits", "events")
    )
    if not audits and not events:
        return None
    chain.note(connection, "stamps", {"boot_id": boot_id, "boot_ns": boot_ns})
    return min((audit_id for audit_id, _ in audits), default=1 << 62), min(utc_ns for _, utc_ns in audits + events)


def count_stored(memory: sqlite3.Connection) -> tuple[int, int]:
    """Return how many audits were ever stored in a memory database, and how many outbox entries it has now."""
    stored, waiting = memory.execute(  # the ids begin at 1 and have no gaps
        "SELECT (SELECT IFNULL(MAX(id), 0) FROM audits), (SELECT IFNULL(MAX(id) - MIN(id) + 1, 0) FROM outbox)"
    ).fetchone()
    return stored, waiting


def mark_damaged(connection: sqlite3.Connection, boot_id: str | None, count: int) -> list[int]:
    """Check the latest network audits of a boot, mark the damaged ones, and return the ids of all that are marked."""
    rows = connection.execute(
        "SELECT id, observation, record FROM audits"
        " WHERE kind = 'network' AND boot_id = ? AND record IS NOT NULL ORDER BY id DESC LIMIT ?",
        (boot_id, count),
    ).fetchall()
    for audit_id, observation, record in rows:
        try:
            read_json(Observation, observation)
            read_record(record)
        except ROW_ERRORS:
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
            found.append(PendingObservation(audit_id, kind, read_json(Observation, text)))
        except ROW_ERRORS:
            _quarantine_audit(connection, audit_id)
    return found


def _quarantine_audit(connection: sqlite3.Connection, audit_id: int) -> None:
    marked = connection.execute("UPDATE audits SET kind = 'damaged' WHERE kind <> 'damaged' AND id = ?", (audit_id,))
    if marked.rowcount:
        chain.note(connection, "damaged", {"audit": audit_id})


def give_up(connection: sqlite3.Connection, audit_id: int) -> None:
    """Never try to judge this observation again."""
    connection.execute("UPDATE audits SET kind = NULL WHERE id = ?", (audit_id,))
    chain.note(connection, "skipped", {"audit": audit_id})


def read_event(row: tuple[Any, ...]) -> StoredEvent:
    """Return an event of its `EVENT_COLUMNS`. One of `ROW_ERRORS` if it is damaged."""
    kind, raised, severity, level, text, utc_ns, host_ns, boottime_ns, value_s, detail, boot_id = row
    try:
        details = parse_json(detail)
    except ROW_ERRORS:
        details = {}
    event = Event(
        str(kind),
        bool(whole_number(raised)),
        Severity(severity),
        level,
        str(text),
        None if utc_ns is None else whole_number(utc_ns),
        whole_number(host_ns),
        whole_number(boottime_ns),
        None if value_s is None else float(value_s),
        detail=MappingProxyType(dict(details)),
    )
    if level not in LEVEL_SEVERITY:
        raise ValueError(f"no level {level!r}")
    return StoredEvent(event, boot_id)

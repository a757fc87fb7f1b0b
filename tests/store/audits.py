"""Audits by number, as the agent hands them to its store, and the numbers found in a file again."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ntpaudit.core.events import Event
from ntpaudit.core.observation import Observation
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import AuditKind, Health, Record
from ntpaudit.core.units import NS_PER_S
from ntpaudit.store import audits, outbox
from ntpaudit.store.compression import unpack_text
from ntpaudit.store.outbox import OutboxEntry
from ntpaudit.store.state import StateStore
from ntpaudit.store.verification import verify
from tests.records import NOW_NS, observation, reading, record, servers

MINUTE_NS = 60 * NS_PER_S
BOOT = "b" * 32

_NETWORK = observation(*servers(0.0019))
_LOCAL = _NETWORK._replace(sources=())
_RECORD = record(*servers(0.0019))._replace(health=Health())

_Done = TypeVar("_Done")


class AuditRow(NamedTuple):
    """The arguments of `store_audit`."""

    observation: Observation
    record: Record
    events: tuple[Event, ...]
    entry: OutboxEntry
    states: dict[str, Any]


def in_store(store: StateStore, work: Callable[[sqlite3.Connection], _Done]) -> _Done:
    """Run statements on the file or the memory in use, in a transaction: what only a test does to a store."""
    return store.write(work)


def audit(number: int, kind: AuditKind = "local") -> AuditRow:
    """Return all that the audit of a minute leaves behind, its number in every part of it."""
    seen: Observation = (_LOCAL if kind == "local" else _NETWORK)._replace(taken=reading(NOW_NS, number * MINUTE_NS))
    taken = seen.taken
    concluded: Record = _RECORD._replace(
        kind=kind, utc_ns=taken.realtime_ns + 1_900_000, host_ns=taken.realtime_ns, boottime_ns=taken.boottime_ns
    )
    if kind == "local":
        concluded = concluded._replace(sources=())
    return AuditRow(seen, concluded, (event(number),), entry(number), {"clock": number})


def event(number: int) -> Event:
    """Return an event of a minute."""
    taken = reading(NOW_NS, number * MINUTE_NS)
    text = f"the clock was set back at {number}"
    moment = (taken.realtime_ns, taken.realtime_ns, taken.boottime_ns)
    return Event("step-back", True, Severity.CRITICAL, "high", text, *moment, value_s=-1.5, detail={"number": number})


def entry(number: int, *, is_dated: bool = True) -> OutboxEntry:
    """Return the outbox entry of a minute."""
    taken = reading(NOW_NS, number * MINUTE_NS)
    stamp_ns = taken.realtime_ns + 1_900_000 if is_dated else None
    lines = f"ntpaudit_clock,host=web1 number={number}i" + (f" {stamp_ns}\n" if is_dated else "\n")
    return OutboxEntry(0, lines, stamp_ns, BOOT, taken.boottime_ns, taken.realtime_ns)


def number_of(lines: str) -> int:
    """Return the number in an entry."""
    return int(lines.partition("number=")[2].partition("i")[0])


def keep(store: StateStore, number: int, kind: AuditKind = "local") -> None:
    """Keep an audit as the agent does: a network one's observation before it is judged."""
    concluded = audit(number, kind)
    if kind == "network":
        store.write(audits.keep_observation, concluded.observation, kind)
    store.store_audit(*concluded)


class Found(NamedTuple):
    """The numbers in a file, each as often as it is there, oldest first; `audits` have a record, `unjudged` none."""

    audits: list[int]
    unjudged: list[int]
    rolled_up: int
    events: list[int]
    outbox: list[int]
    aside: list[int]
    states: dict[str, Any]


def find(path: Path) -> Found:
    """Read a file that must be sound and fit its chain, and return what is in it."""
    assert [check for check in verify(str(path)) if not check.fits] == []
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT boottime_ns, record, utc_ns FROM audits ORDER BY id").fetchall()
        for boottime_ns, text, _ in rows:
            assert text is None or json.loads(unpack_text(text))["time"]["boottime_ns"] == boottime_ns
        entries, aside = (
            [number_of(row[0]) for row in connection.execute(f"SELECT lines FROM {table} ORDER BY id")]
            for table in ("outbox", "set_aside")
        )
        return Found(
            [_minute(row[0]) for row in rows if row[1] is not None],
            [_minute(row[0]) for row in rows if row[1] is None],
            connection.execute("SELECT IFNULL(SUM(audits), 0) FROM rollups").fetchone()[0],
            [json.loads(row[0])["number"] for row in connection.execute("SELECT detail FROM events ORDER BY id")],
            entries,
            aside,
            {key: json.loads(unpack_text(value)) for key, value in connection.execute("SELECT * FROM state")},
        )


def _minute(boottime_ns: int) -> int:
    """Return the number of the audit of a moment."""
    return (boottime_ns - reading(NOW_NS).boottime_ns) // MINUTE_NS


def stamp_entry(store: StateStore, dated: OutboxEntry) -> None:
    """Replace the lines of an entry by stamped ones."""
    store.write(outbox.stamp_entries, [dated], [], "")


def deliver(store: StateStore, *, refused: frozenset[int] = frozenset(), count: int = 7) -> Iterator[int]:
    """Deliver all that waits in batches, as the worker does, and yield the numbers that arrive."""
    while entries := store.read(outbox.waiting, count):
        numbers = [number_of(entry.lines) for entry in entries]
        if numbers[0] in refused:
            store.write(outbox.dead_letter, entries[0], "400: field type conflict")
            continue
        good = next((place for place, number in enumerate(numbers) if number in refused), len(entries))
        yield from numbers[:good]
        store.ack(entries[:good])


def once(numbers: list[int]) -> set[int]:
    """Return numbers that must be there once each."""
    assert [number for number, times in Counter(numbers).items() if times > 1] == []
    return set(numbers)

"""A history compared with its chain: whether every row is as it was stored, and none is missing (CH1, CH2)."""

import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256  # not as in `files`: here speed matters, and 3 MiB do not
from operator import itemgetter
from typing import Any, NamedTuple

from ntpaudit.core.chain import BEGIN, ChainHead, Comparison, Delivered, EntryKind, Range, canonical, linked, merged
from ntpaudit.core.units import NS_PER_S, format_utc, plural
from ntpaudit.errors import StoreError
from ntpaudit.store import chain
from ntpaudit.store.audits import record_values
from ntpaudit.store.readonly import open_readonly
from ntpaudit.store.rows import ROW_ERRORS, checked_record, fit_int64, parse_json

PAGE = 2000  # entries that are read at once
UPTIME_SLACK_NS = 600 * NS_PER_S  # a poll's observation may be stored after a local audit that was made later

_TABLES: Mapping[str, str] = {
    "observation": "audits",
    "record": "audits",
    "event": "events",
    "dead-letter": "set_aside",
    "note": "notes",
    "hour": "hours",
    "day": "days",
}
"""By kind of entry, where its rows are, in the words of retention notes."""

_ROW_WORDS: Mapping[str, str] = {
    "observation": "audit",
    "record": "audit",
    "dead-letter": "dead letter",
    "hour": "hour of",
    "day": "day of",
}
_TIMES = itemgetter(*map(chain.SOURCES["record"].columns.index, ("kind", "boot_id", "boottime_ns", "utc_ns")))
_IN_ORDER: Mapping[str, str] = {"audits": "'observation', 'record'", "events": "'event'", "notes": "'note'"}
"""The tables from which retention removes the oldest rows, with the kinds of their entries."""

_UPDATED = ("hour", "day")  # kinds of rows that are computed again: the newest entry counts


class Check(NamedTuple):
    """The result of one check: what was checked, or the first thing that does not fit and how many do not."""

    name: str
    text: str
    fits: bool = True
    sequence: int | None = None


class _Entry(NamedTuple):
    sequence: int
    kind: EntryKind
    row: int
    digest: bytes
    head: bytes


class _Misfits:
    """What does not fit in one check: the first one, and how many there are."""

    def __init__(self, name: str) -> None:
        self._name, self._count = name, 0
        self._first: tuple[float, str] | None = None

    def add(self, text: str, sequence: int | None = None) -> None:
        self._count += 1
        place = float("inf") if sequence is None else sequence
        if self._first is None or place < self._first[0]:
            self._first = place, text

    def result(self, fitting: str) -> Check:
        if self._first is None:
            return Check(self._name, fitting)
        place, text = self._first
        more = f"; and {plural(self._count - 1, 'more')}" if self._count > 1 else ""
        return Check(self._name, text + more, fits=False, sequence=None if place == float("inf") else int(place))


class Verification:
    """One verification of an open history. Its results are in `checks`, in the order in which a reader wants them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._notes = _Notes(connection)
        self._counts: dict[str, int] = defaultdict(int)
        self._latest: dict[tuple[EntryKind, int], _Entry] = {}
        self._ahead: dict[tuple[EntryKind, int], tuple[Sequence[Any], str]] = {}
        self._boot: tuple[Any, int] | None = None
        self._utc_ns: int | None = None  # of the last record that was read
        self._removed = 0
        self._links, self._rows, self._gone, self._time = map(_Misfits, ("links", "rows", "missing", "time"))

    def run(self) -> list[Check]:
        """Read the whole chain and every row, in pages."""
        last = self._follow()
        for entry in self._latest.values():
            self._check_row(entry)
        for table, row_kinds in _IN_ORDER.items():
            self._check_order(table, row_kinds)
        entries = f"{sum(self._counts.values())} entries"
        return [
            self._links.result(f"{entries}, up to {last.sequence}; each continues the one before"),
            self._segments(),
            self._rows.result(self._described()),
            self._gone.result(f"{plural(self._removed, 'row')} removed{self._notes.rules}, none without its note"),
            self._unchained(),
            self._tail(),
            self._time.result("uptimes of audits never go back within a boot"),
        ]

    def _described(self) -> str:
        return "as they were stored: " + ", ".join(f"{count} {kind}" for kind, count in self._counts.items() if count)

    def _follow(self) -> ChainHead:
        """Follow the chain from its first entry that is left; return its last head."""
        before = self._before_first()
        for entry in self._entries():
            if entry.sequence != before.sequence + 1:
                self._links.add(
                    f"entry {before.sequence + 1} is missing; the next is {entry.sequence}{self._about()}",
                    entry.sequence,
                )
            elif entry.head != sha256(linked(before.head, entry.sequence, entry.kind, entry.digest)).digest():
                self._links.add(
                    f"entry {entry.sequence} ({_name(entry)}) does not continue entry {before.sequence}{self._about()}",
                    entry.sequence,
                )
            before = ChainHead(entry.sequence, entry.head)
            self._counts[entry.kind] += 1
            if entry.kind in _UPDATED:
                self._latest[entry.kind, entry.row] = entry
            else:
                self._check_row(entry)
        return before

    def _before_first(self) -> ChainHead:
        """Return what the first entry must continue: by the header of its segment, or the beginning."""
        row = self._connection.execute(
            "SELECT first - 1, before FROM segments WHERE first = (SELECT MIN(sequence) FROM chain)"
        ).fetchone()
        return ChainHead(*row) if row is not None and type(row[1]) is bytes else BEGIN

    def _entries(self) -> Iterator[_Entry]:
        after = -(1 << 63)
        query = "SELECT sequence, kind, row, digest, head FROM chain WHERE sequence > ? ORDER BY sequence LIMIT ?"
        while page := self._connection.execute(query, (after, PAGE)).fetchall():
            entries = [entry for entry in map(_Entry._make, page) if self._is_sound(entry)]
            self._read_ahead(entries)
            yield from entries
            after = page[-1][0]

    def _is_sound(self, entry: _Entry) -> bool:
        sequence, kind, row, digest, head = entry
        is_sound = 0 < sequence < chain.MAX_SEQUENCE and kind in _TABLES and type(row) is int
        if is_sound and type(digest) is type(head) is bytes and len(digest) == len(head) == len(BEGIN.head):
            return True
        self._links.add(f"entry {sequence} is not what an agent writes{self._about()}", sequence)
        return False

    def _read_ahead(self, entries: Sequence[_Entry]) -> None:
        """Read the rows of a page at once, by kind: most entries have the next row after the one before."""
        self._ahead.clear()
        for kind in {entry.kind for entry in entries}:
            rows = [entry.row for entry in entries if entry.kind == kind]
            first, last = min(rows), max(rows)
            if last - first < 2 * PAGE:
                found = chain.read_rows(self._connection, kind, first, last)
                self._ahead |= {(kind, row): content for row, content in found}

    def _check_row(self, entry: _Entry) -> None:
        content = self._read(entry)
        if content is None:
            self._removed += 1
            if not self._notes.explain_removal(entry):
                self._gone.add(
                    f"{_name(entry)} is gone (entry {entry.sequence}), and no retention note names it{self._about()}",
                    entry.sequence,
                )
            return
        columns, text = content
        if entry.kind == "record":
            self._take_time(entry, columns)
        if _digest(columns, text) != entry.digest and not self._notes.explain_change(entry, columns, text):
            self._rows.add(
                f"{_name(entry)}{_when(entry, columns)} was changed: {self._difference(entry, columns, text)}"
                f" (entry {entry.sequence})",
                entry.sequence,
            )

    def _check_order(self, table: str, kinds: str) -> None:
        """Check that retention removed the oldest rows only. A row whose true time is not known may outlast others.

        So may an old one that the host's clock, which was ahead, placed after the moment up to which rows were removed.
        """
        waiting = " AND id NOT IN (SELECT audit_id FROM outbox WHERE audit_id IS NOT NULL)" if table == "audits" else ""
        may_outlast = "utc_ns < :cut AND host_ns >= :cut"
        oldest = f"SELECT MIN(id) FROM {table} WHERE utc_ns IS NOT NULL AND NOT ({may_outlast}){waiting}"  # noqa: S608
        (kept,) = self._connection.execute(oldest, {"cut": self._notes.cut_ns(table)}).fetchone()
        removed = None if kept is None else self._notes.first_removed_after(table, kept)
        if removed is None:
            return
        noted = f"SELECT MIN(sequence) FROM chain WHERE row = ? AND kind IN ({kinds})"  # noqa: S608
        (sequence,) = self._connection.execute(noted, (removed,)).fetchone()
        self._gone.add(
            f"{table[:-1]} {removed} is gone (entry {sequence}) by a retention note, although {table[:-1]} {kept},"
            f" which is older, still exists",
            sequence,
        )

    def _read(self, entry: _Entry) -> tuple[Sequence[Any], str] | None:
        ahead = self._ahead.get((entry.kind, entry.row))
        return chain.read_row(self._connection, entry.kind, entry.row) if ahead is None else ahead

    def _take_time(self, entry: _Entry, columns: Sequence[Any]) -> None:
        """Compare the uptime of an agent's record with that of the record before it."""
        kind, boot_id, uptime_ns, utc_ns = _TIMES(columns)
        if kind not in ("network", "local") or type(uptime_ns) is not int:
            return
        if type(utc_ns) is int:
            self._utc_ns = utc_ns
        if self._boot is not None and self._boot[0] == boot_id and uptime_ns < self._boot[1] - UPTIME_SLACK_NS:
            self._time.add(
                f"{_name(entry)}{_when(entry, columns)} has an earlier uptime than the record before it"
                f" (entry {entry.sequence})",
                entry.sequence,
            )
        self._boot = boot_id, uptime_ns

    def _about(self) -> str:
        return "" if self._utc_ns is None else f", after {_second(self._utc_ns)}"

    def _difference(self, entry: _Entry, columns: Sequence[Any], text: str) -> str:
        """Say what differs in a row, as far as that can be known."""
        other = self._connection.execute(
            "SELECT kind, row FROM chain WHERE digest = ? LIMIT 1",
            (_digest(columns, text),),
        ).fetchone()
        if other is not None:
            return f"its content is that of {_ROW_WORDS.get(other[0], other[0])} {other[1]}"
        if entry.kind != "record":
            return "its text or one of its columns is not what was stored"
        try:
            expected = record_values(checked_record(parse_json(text)))[1:]
        except ROW_ERRORS:
            return "its text is not a record"
        names = chain.SOURCES["record"].columns[chain.UTC_COLUMN :]
        differing = [
            name
            for name, now, by_text in zip(names, columns[chain.UTC_COLUMN :], expected, strict=True)
            if now != by_text
        ]
        if differing:
            return f"{', '.join(differing)} do not follow from its text"
        return "its text or one of its columns is not what was stored"

    def _segments(self) -> Check:
        """Check that the headers of days follow each other, and fit the entries that are left."""
        misfits, count = _Misfits("days"), 0
        before: tuple[Any, ...] | None = None
        rows = self._connection.execute(
            "SELECT first, last, day_s, before, head FROM segments ORDER BY first"
        ).fetchall()
        (oldest,) = self._connection.execute("SELECT MIN(sequence) FROM chain").fetchone()
        for row in rows:
            first, last, _, head_before, head = row
            count += 1
            if type(last) not in (int, type(None)):
                misfits.add(f"the header that begins with entry {first} is not what an agent writes", first)
                last = None
            if before is not None and (before[0] is None or (before[0] + 1, before[1]) != (first, head_before)):
                misfits.add(f"the header that begins with entry {first} does not continue the one before", first)
            if last is not None and oldest is not None and last >= oldest:
                found = self._connection.execute("SELECT head FROM chain WHERE sequence = ?", (last,)).fetchone()
                if found != (head,):
                    misfits.add(f"the header of entries {first} to {last} does not end with the head of {last}", first)
            before = last, head
        if oldest is not None and not any(row[0] == oldest for row in rows):
            misfits.add(f"no header begins with entry {oldest}, the first that is left", oldest)
        return misfits.result(f"{plural(count, 'header')} of days, without a gap")

    def _unchained(self) -> Check:
        """Find the rows that no entry names: they were inserted by hand."""
        misfits = _Misfits("unchained")
        for kind, source in chain.SOURCES.items():
            chained = "SELECT row FROM chain WHERE kind = ?"
            for (row,) in self._connection.execute(f"{source.query(source.id)} EXCEPT {chained}", (kind,)):
                entry = _Entry(0, kind, row, b"", b"")
                content = self._read(entry)
                when = "" if content is None else _when(entry, content[0])
                misfits.add(f"{_name(entry)}{when} is in no entry: it was inserted")
        return misfits.result("no row without an entry")

    def _tail(self) -> Check:
        """Compare the greatest ids that SQLite ever gave with the last rows that are chained."""
        misfits = _Misfits("end")
        given = dict(self._connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
        for table, kinds in (("audits", "'observation', 'record'"), ("events", "'event'"), ("notes", "'note'")):
            newest = f"SELECT MAX(row) FROM chain WHERE kind IN ({kinds}) AND typeof(row) = 'integer'"  # noqa: S608
            (last,) = self._connection.execute(newest).fetchone()
            if last is not None and type(given.get(table)) is int and given[table] > last:
                misfits.add(
                    f"{table} had ids up to {given[table]}, and the last in the chain is {last}: the end was cut"
                )
        return misfits.result("the newest rows are there")


class _Notes:
    """What the notes of a history say about rows that were removed or changed later."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        removed: dict[str, list[Range]] = defaultdict(list)
        self._boots: set[tuple[Any, Any]] = set()
        self._audits: set[int] = set()
        self._cuts: dict[str, int | None] = {}
        rules: dict[str, None] = {}
        for kind, text, utc_ns in connection.execute("SELECT kind, note, utc_ns FROM notes ORDER BY id"):
            with suppress(*ROW_ERRORS):
                content = parse_json(text)
                match kind:
                    case "retention":
                        rule = content["rule"]
                        rules[str(rule["name"])] = None
                        for table, parts in content["removed"].items():
                            removed[table] += [(int(first), int(last)) for first, last in parts]
                        for table in content["removed"] if rule["name"] == "age" else ():
                            kept_s = rule["raw_s" if table == "audits" else "findings_s"]
                            self._cuts[table] = fit_int64(utc_ns - round(kept_s * NS_PER_S))
                    case "stamps":
                        self._boots.add((content["boot_id"], content["boot_ns"]))
                    case "damaged" | "skipped":
                        self._audits.add(content["audit"])
        self.rules = f" by {', '.join(rules)}" if rules else ""
        self._removed = {table: list(merged(parts)) for table, parts in removed.items()}

    def explain_removal(self, entry: _Entry) -> bool:
        """Whether a note says that this row was removed."""
        parts = self._removed.get(_TABLES[entry.kind], [])
        place = bisect_right(parts, (entry.row, 1 << 63)) - 1
        return place >= 0 and parts[place][0] <= entry.row <= parts[place][1]

    def cut_ns(self, table: str) -> int | None:
        """Return the moment up to which the last removal by age went, by measured time; below any time without one."""
        return self._cuts.get(table, -(1 << 63))

    def first_removed_after(self, table: str, row: int) -> int | None:
        """Return the least id above one that was removed, by the notes; None if none was."""
        return next((max(first, row + 1) for first, last in self._removed.get(table, []) if last > row), None)

    def explain_change(self, entry: _Entry, columns: Sequence[Any], text: str) -> bool:
        """Whether notes explain how this row differs: it got its true time later, or was marked as damaged."""
        named = dict(zip(chain.SOURCES[entry.kind].columns, columns, strict=True))
        forms = [named]
        has_times = entry.kind in ("record", "event") and type(named["utc_ns"]) is type(named["boottime_ns"]) is int
        if has_times and (named["boot_id"], named["utc_ns"] - named["boottime_ns"]) in self._boots:
            forms.append(named | {"utc_ns": None})
        if entry.kind in ("observation", "record") and entry.row in self._audits:
            forms += [form | {"kind": kind} for form in list(forms) for kind in ("network", "local")]
        return any(_digest([*form.values()], text) == entry.digest for form in forms)


def verify(path: str) -> list[Check]:
    """Verify a history. StoreError if it cannot be read, or has no chain."""
    with _open(path) as connection:
        connection.execute("BEGIN")  # of one moment, while the agent goes on
        try:
            return Verification(connection).run()
        except sqlite3.OperationalError as error:
            if "Could not decode" not in str(error):
                raise
            with chain.any_text(connection):  # slower
                return Verification(connection).run()


def compare(path: str, delivered: Iterable[Sequence[Delivered]], how: str = "delivered") -> Check | None:
    """Compare heads that were delivered, a batch at a time, with the chain as it is when a batch has arrived.

    None without any head. `how` they left the host is the name of the check. StoreError as `verify`.
    """
    found, count = Comparison(), 0
    with _open(path) as connection:
        for batch in delivered:
            (first,) = connection.execute("SELECT IFNULL(MIN(sequence), 0) FROM chain").fetchone()
            for one in batch:
                found, count = found.with_one(one, _head_at(connection, one.sequence), first), count + 1
        return _compared(connection, found, how) if count else None


def newest_host(path: str) -> tuple[str, str | None] | None:
    """Return host name and machine id of the newest record; None without one. StoreError as `verify`."""
    with _open(path) as connection:
        row = connection.execute(
            "SELECT record FROM audits WHERE record IS NOT NULL ORDER BY id DESC LIMIT 1"
        ).fetchone()
        try:
            host = parse_json(row[0])["host"]
            return host["name"], host["machine_id"]
        except ROW_ERRORS:
            return None


def newest_head(path: str) -> ChainHead:
    """Return the head of the last entry; `BEGIN` without one. StoreError as `verify`."""
    with _open(path) as connection:
        return chain.last_head(connection) or BEGIN


@contextmanager
def _open(path: str) -> Iterator[sqlite3.Connection]:
    with open_readonly(path) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'chain'").fetchone():
            raise StoreError(
                f"{path} has no chain: an older ntpaudit wrote it, and the next start of the agent begins the chain"
            )
        yield connection


def _head_at(connection: sqlite3.Connection, sequence: int) -> bytes | None:
    """Return the head of an entry, or of one that was removed if it was the last of its segment."""
    for query in ("SELECT head FROM chain WHERE sequence = ?", "SELECT head FROM segments WHERE last = ?"):
        row = connection.execute(query, (sequence,)).fetchone()
        if row is not None and type(row[0]) is bytes:
            return bytes(row[0])
    return None


def _compared(connection: sqlite3.Connection, found: Comparison, how: str) -> Check:
    removed = f"; {found.removed} older than the entries that are left" if found.removed else ""
    if found.other is not None:
        row = connection.execute(
            "SELECT sequence, kind, row, digest, head FROM chain WHERE sequence > ? ORDER BY sequence LIMIT 1",
            (min(found.last_fitting, found.other.sequence - 1),),
        ).fetchone()
        named = "" if row is None else f"; the first row that can differ is {_name(_Entry(*row))} (entry {row[0]})"
        text = (
            f"{plural(found.others, f'{how} head')} not those of this chain, the first of entry"
            f" {found.other.sequence}{_for(found.other)}{named}: rows were rewritten, or"
            f" this is another history of the host"
        )
        return Check(how, text, fits=False, sequence=found.other.sequence)
    if found.beyond is not None:
        last = (chain.last_head(connection) or BEGIN).sequence
        text = (
            f"{plural(found.missing, f'{how} head')} beyond the end of this chain, the first of entry"
            f" {found.beyond.sequence}{_for(found.beyond)}; the chain ends with entry"
            f" {last}: its end was cut, or this is an older copy"
        )
        return Check(how, text, fits=False, sequence=found.beyond.sequence)
    return Check(
        how,
        f"{plural(found.fitting, f'{how} head')} on this chain, up to entry {found.last_fitting}{removed}",
    )


def _for(one: Delivered) -> str:
    return f", delivered for {_second(one.stamp_ns)}" if one.stamp_ns else ""


def _digest(columns: Sequence[Any], text: str) -> bytes:
    return sha256(canonical(columns, text)).digest()


def _name(entry: _Entry) -> str:
    if type(entry.row) is not int:  # somebody else wrote it
        return f"{_ROW_WORDS.get(entry.kind, entry.kind)} {str(entry.row)[:40]!r}"
    if entry.kind in _UPDATED:
        return f"{_ROW_WORDS[entry.kind]} {_second(entry.row * NS_PER_S)}"
    if entry.kind in ("observation", "record"):
        return f"{entry.kind} of audit {entry.row}"
    return f"{_ROW_WORDS.get(entry.kind, entry.kind)} {entry.row}"


def _when(entry: _Entry, columns: Sequence[Any]) -> str:
    """Return the time of a row in brackets: the true one, else that of the host's clock."""
    named = dict(zip(chain.SOURCES[entry.kind].columns, columns, strict=True))
    for name in ("utc_ns", "stamp_ns", "host_ns"):
        if type(named.get(name)) is int:
            return f" ({_second(named[name])})"
    return ""


def _second(time_ns: int) -> str:
    try:
        return format_utc(time_ns)[:19] + "Z"
    except OverflowError:  # no year of the calendar
        return f"{time_ns} ns"

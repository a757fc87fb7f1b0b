"""The chain in the history: an entry for each row, by every way to store one (CH1)."""

import itertools
import sqlite3
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from ntpaudit.core.chain import BEGIN, ChainHead, canonical
from ntpaudit.core.units import NS_PER_S
from ntpaudit.store import accounts, audits, chain, outbox, retention
from ntpaudit.store.database import open_database, open_memory, transaction
from ntpaudit.store.dead_letters import drop, resend
from ntpaudit.store.state import StateStore
from ntpaudit.store.transfer import move
from ntpaudit.store.verification import verify
from tests.histories import World
from tests.histories import write as write_history
from tests.store.audits import audit, entry, event

ROWS = {
    "observation": "SELECT id FROM audits WHERE observation <> ''",
    "record": "SELECT id FROM audits WHERE record IS NOT NULL",
    "event": "SELECT id FROM events",
    "dead-letter": "SELECT id FROM set_aside",
    "note": "SELECT id FROM notes",
}


def check(connection: sqlite3.Connection) -> int:
    """Check by the rule that every row has exactly one entry which fits; return the number of entries."""
    before = BEGIN
    for sequence, kind, row, digest, head in connection.execute("SELECT * FROM chain ORDER BY sequence").fetchall():
        assert sequence == before.sequence + 1
        content = chain.read_row(connection, kind, row)
        assert content is not None
        assert sha256(canonical(*content)).digest() == digest
        assert sha256(before.head + sequence.to_bytes(8) + kind.encode() + digest).digest() == head
        before = ChainHead(sequence, head)
    for kind, rows in ROWS.items():
        chained = connection.execute("SELECT row FROM chain WHERE kind = ? ORDER BY row", (kind,)).fetchall()
        assert chained == connection.execute(rows).fetchall(), kind
    return before.sequence


def write(connection: sqlite3.Connection, number: int) -> None:
    """Store an audit as an agent does, with events, and every third time a dead letter."""
    one = audit(number, "network" if number % 5 == 0 else "local")
    if number % 10 == 0:
        audits.keep_observation(connection, one.observation, "network")
    audit_id = audits.keep_audit(connection, one.observation, one.record)
    audits.keep_events(connection, [event(number)], "b" * 32)
    outbox.enqueue(connection, entry(number), audit_id)
    if number % 3 == 0:
        outbox.dead_letter(connection, outbox.waiting(connection, 1)[0], "refused")


def test_every_row_has_an_entry(path: Path) -> None:
    """Of whatever kind it is; the first entry says that the history was begun."""
    with closing(open_database(str(path))) as connection:
        assert chain.latest_note(connection, "adopted")["rows"]["audits"] == [0, None, None]
        for number in range(30):
            with transaction(connection):
                write(connection, number)
        assert check(connection) == 1 + 30 + 6 + 30 + 10


def test_rows_in_memory_get_their_entries_in_the_file(path: Path) -> None:
    """A record whose observation the file has already goes to it."""
    with closing(open_memory()) as memory, closing(open_database(str(path))) as connection:
        with transaction(connection):
            write(connection, 1)
            audits.keep_observation(connection, audit(2, "network").observation, "network")
        with transaction(memory):
            for number in range(2, 12):
                write(memory, number)
        assert chain.last_head(memory) is None
        with transaction(connection):
            move(memory, connection)
        check(connection)
        assert connection.execute("SELECT COUNT(*) FROM audits").fetchone() == (11,)


def test_a_segment_for_each_day(path: Path) -> None:
    """Of measured time; they follow each other without a gap."""
    with closing(open_database(str(path))) as connection:
        for minute in range(0, 3 * 1440, 97):
            one = audit(minute)
            with transaction(connection):
                audits.keep_audit(connection, one.observation, one.record)
        found = connection.execute("SELECT * FROM segments ORDER BY first").fetchall()
        assert len(found) >= 4
        days = [day_s for _, _, day_s, _, _ in found]
        assert days[0] == 0
        assert days[1:] == list(range(days[1], days[-1] + 86_400, 86_400))
        for (_, last, _, _, head), (first, _, _, before, _) in itertools.pairwise(found):
            assert (last + 1, head) == (first, before)
            assert connection.execute("SELECT head FROM chain WHERE sequence = ?", (last,)).fetchone() == (head,)
        assert found[-1][1] is None


DAY = 86_400
OLD = World(begin_ns=1_790_000_000 * NS_PER_S)


@pytest.fixture
def days(path: Path) -> Path:
    """A history of five days, an audit each ten minutes, with steps of the clock, accounts and dead letters."""
    steps = OLD._replace(stepped_s=lambda minute: 3.0 * (minute // 1000), ask_every=30)
    write_history(path, steps, range(0, 5 * 1440, 10))
    with closing(open_database(str(path))) as connection, transaction(connection):
        accounts.close_hours(connection, None)
        for number in range(4):
            outbox.enqueue(connection, entry(number), None)
            outbox.dead_letter(connection, outbox.waiting(connection, 1)[0], "refused")
    assert fits(path)
    return path


def fits(path: Path) -> bool:
    """Whether a history fits its chain."""
    wrong = [check for check in verify(str(path)) if not check.fits]
    assert wrong == []
    return True


def prune(path: Path, day: float, *, raw: float = 900, rollups: float = 900, findings: float = 900) -> None:
    """Prune as at the beginning of that day, with retentions in days, until nothing more is removed."""
    with closing(open_database(str(path))) as connection:
        before = None
        while before != (before := chain.last_head(connection)):
            with transaction(connection):
                now_ns = OLD.begin_ns + round(day * DAY) * NS_PER_S
                retention.prune_by_age(connection, now_ns, raw * DAY, rollups * DAY, findings * DAY)


def count(path: Path, what: str) -> int:
    """Return the number of rows."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT COUNT(*) FROM {what}").fetchone()[0])


def test_rows_that_retention_removed_keep_their_entries(days: Path) -> None:
    """The notes that say so excuse exactly these rows."""
    before = count(days, "chain")
    prune(days, 5, raw=2)
    assert count(days, "audits") < 5 * 144 / 2
    assert count(days, "chain WHERE kind <> 'note'") > before - count(days, "notes") - 1
    assert fits(days)
    with closing(sqlite3.connect(days)) as connection, connection:
        connection.execute("DELETE FROM audits WHERE id = (SELECT MIN(id) FROM audits)")
    (wrong,) = [check for check in verify(str(days)) if not check.fits]
    assert wrong.name == "missing"


def test_entries_go_by_whole_days_and_headers_stay(days: Path) -> None:
    """What is kept longer gets a new entry: it can be verified as long as it exists."""
    headers, events = count(days, "segments"), count(days, "events")
    prune(days, 5, raw=2, rollups=3)
    with closing(sqlite3.connect(days)) as connection:
        (first,) = connection.execute("SELECT MIN(sequence) FROM chain").fetchone()
        assert connection.execute("SELECT 1 FROM segments WHERE first = ?", (first,)).fetchone()
        assert connection.execute("SELECT first FROM segments ORDER BY first LIMIT 1").fetchone() == (1,)
    assert first > 100
    assert (count(days, "segments"), count(days, "events")) == (headers, events)
    assert count(days, "accounts WHERE length_s = 86400") >= 3
    assert fits(days)
    for table, column in (("events", "text"), ("accounts", "account"), ("set_aside", "reason"), ("notes", "note")):
        with closing(sqlite3.connect(days)) as connection, connection:
            row = f"SELECT MIN(rowid) FROM {table}" if table != "accounts" else ""
            where = f"rowid = ({row})" if row else "length_s = 86400 AND begin_s = (SELECT MIN(begin_s) FROM accounts)"
            (kept,) = connection.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone() or (None,)
            changed = connection.execute(f"UPDATE {table} SET {column} = 'other' WHERE {where}").rowcount
        if changed:
            assert {check.name for check in verify(str(days)) if not check.fits} == {"rows"}, table
            with closing(sqlite3.connect(days)) as connection, connection:
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (kept,))
    assert fits(days)


def test_entries_of_audits_that_exist_stay(days: Path) -> None:
    """Whatever the retention of hours is."""
    before = count(days, "chain")
    prune(days, 8, raw=900, rollups=1)
    assert count(days, "chain") >= before
    assert fits(days)


def test_nothing_is_left_to_verify_after_all_retentions(days: Path) -> None:
    """Only the newest account of a day stays, and what was noted since."""
    prune(days, 2000, raw=1, rollups=2, findings=3)
    assert count(days, "audits") == count(days, "events") == 0
    assert fits(days)


def test_a_history_that_is_too_large_loses_entries_of_removed_audits(days: Path) -> None:
    """Never those of audits that it still has."""
    before, most = count(days, "chain"), 900_000
    for _ in range(20):
        with closing(open_database(str(days))) as connection, transaction(connection):
            retention.prune_by_size(connection, most)
            size = retention.size_bytes(connection)
        assert fits(days)
    assert size <= most
    assert count(days, "chain") < before - 300
    assert count(days, "audits") > 20


def test_dead_letters_that_are_resent_or_dropped_are_noted(days: Path) -> None:
    """By their ids."""
    assert resend(str(days), [1, 2]).sent == 2
    assert drop(str(days), None) == 2
    assert fits(days)
    with closing(sqlite3.connect(days)) as connection:
        assert chain.latest_note(connection, "retention") == {
            "rule": {"name": "dropped"},
            "removed": {"set_aside": [[3, 4]]},
        }


def damage_found_once() -> Callable[[sqlite3.Connection], None]:
    """Return what SQLite does with a damaged file; the file is then renamed."""
    errors = [sqlite3.DatabaseError("database disk image is malformed")]

    def work(connection: sqlite3.Connection) -> None:
        if errors:
            raise errors.pop()

    return work


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_new_file_continues_the_chain_of_the_one_before(is_damaged: bool, path: Path) -> None:
    """So heads that were delivered before do not contradict it."""
    store = StateStore(str(path), retry_s=0.0)
    heads = {}
    for number in range(9):
        if number == 5:
            if is_damaged:
                store.write(damage_found_once())
            for found in [] if is_damaged else [*path.parent.iterdir()]:
                found.unlink()
        head = store.store_audit(*audit(number))
        if head is not None:
            heads[number] = head
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        continues = chain.latest_note(connection, "adopted")["continues"]
    assert ChainHead.of(continues) == heads[4]
    assert fits(path)
    sequences = [head.sequence for head in heads.values()]
    assert sequences == sorted(sequences)
    assert 5 not in heads or heads[5].sequence > heads[4].sequence


def test_times_that_are_known_later_are_noted(path: Path) -> None:
    """The rows were hashed without; another time than that of the note is found."""
    with closing(open_database(str(path))) as connection, transaction(connection):
        for number in range(5):
            one = audit(number)
            audits.keep_audit(connection, one.observation, one.record._replace(utc_ns=None))
            audits.keep_events(connection, [event(number)._replace(utc_ns=None)], one.record.host.boot_id)
        audits.stamp_audits(connection, one.record.host.boot_id, 1_700_000_000 * NS_PER_S)
    assert fits(path)
    for table in ("audits", "events"):
        with closing(sqlite3.connect(path)) as connection, connection:
            assert connection.execute(f"SELECT COUNT(*) FROM {table} WHERE utc_ns IS NULL").fetchone() == (0,)
            connection.execute(f"UPDATE {table} SET utc_ns = utc_ns + 1 WHERE id = 3")
        assert [check.name for check in verify(str(path)) if not check.fits] == ["rows"]
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE {table} SET utc_ns = utc_ns - 1 WHERE id = 3")

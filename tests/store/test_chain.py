"""The chain in the history: an entry for each row, by every way to store one (CH1)."""

import itertools
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from ntpaudit.core.chain import BEGIN, ChainHead, canonical
from ntpaudit.store import audits, chain, outbox
from ntpaudit.store.database import open_database, open_memory, transaction
from ntpaudit.store.transfer import move
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
        assert chain.last_head(memory) == BEGIN
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

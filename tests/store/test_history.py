"""What is kept, what is removed when, and what no wrong clock and no database that is away can make of it."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.observation import Claim, ClaimedSource, Configuration, ConfiguredServer, Unavailable
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Record
from ntpaudit.core.units import NS_PER_S
from ntpaudit.store import audits, outbox, retention, saved_state, transfer
from ntpaudit.store.compression import pack_text, unpack_text
from ntpaudit.store.database import open_database, open_memory, transaction
from ntpaudit.store.retention import MAX_AGED
from ntpaudit.store.rows import read_record
from ntpaudit.store.serialization import plain, to_json
from tests.core.worlds import CHRONYD
from tests.records import CASES, NOW_NS, records
from tests.store.audits import BOOT, audit, entry, event, number_of

DAY_NS = 86_400 * NS_PER_S
RAW_S, ROLLUPS_S, FINDINGS_S = 90 * 86_400.0, 400 * 86_400.0, 7 * 365.25 * 86_400.0
TERMS = (RAW_S, ROLLUPS_S, FINDINGS_S)


@pytest.fixture
def memory() -> Iterator[sqlite3.Connection]:
    """An empty history."""
    with closing(open_memory()) as connection:
        yield connection


def ids(connection: sqlite3.Connection, table: str = "audits") -> list[int]:
    """Return the ids that a table has."""
    return [row[0] for row in connection.execute(f"SELECT id FROM {table} ORDER BY id")]


class Old(NamedTuple):
    """An audit in the model: its true time if it has one, the host's, and whether its entry waits."""

    utc_ns: int | None
    host_ns: int
    waits: bool = False


def insert(connection: sqlite3.Connection, audits: Sequence[Old]) -> None:
    """Write audits of a model; their ids are their places, from 1."""
    for number, (utc_ns, host_ns, waits) in enumerate(audits, 1):
        connection.execute(
            "INSERT INTO audits (host_ns, observation, record, utc_ns, kind) VALUES (?, '', 'x', ?, 'local')",
            (host_ns, utc_ns),
        )
        if waits:
            outbox.enqueue(connection, entry(number), number)


@st.composite
def _old(draw: st.DrawFn) -> Old:
    """Draw an audit of the last half year, by a clock that is right, wrong by decades, or not known to be either."""
    utc_ns = NOW_NS - draw(st.integers(0, 180)) * DAY_NS
    host_ns = draw(st.sampled_from([utc_ns, utc_ns + DAY_NS, 0, 2_200_000_000 * NS_PER_S]))
    stated_ns = draw(st.sampled_from([utc_ns, utc_ns, utc_ns, None, 0, 2_300_000_000 * NS_PER_S]))
    return Old(stated_ns, host_ns, draw(st.booleans()))


@given(st.lists(_old(), max_size=40))
def test_what_goes_for_its_age(audits: list[Old]) -> None:
    """An audit is deleted if both clocks call it old, or it has no time and a later one is deleted, unless it waits."""
    limit_ns = NOW_NS - 90 * DAY_NS
    old = [number for number, (utc_ns, host_ns, _) in enumerate(audits, 1) if max(utc_ns or 0, host_ns) < limit_ns]
    last = max((number for number in old if audits[number - 1].utc_ns is not None), default=0)
    gone = {number for number in old if number <= last and not audits[number - 1].waits}
    with closing(open_memory()) as connection:
        insert(connection, audits)
        retention.prune_by_age(connection, NOW_NS, *TERMS)
        assert set(ids(connection)) == set(range(1, len(audits) + 1)) - gone
        assert len(ids(connection, "outbox")) == sum(entry.waits for entry in audits)


@pytest.mark.parametrize("year", [1970, 2040])
def test_a_wrong_time_costs_little(year: int, memory: sqlite3.Connection) -> None:
    """With a wrong time retention removes nothing, or a limited number of the oldest."""
    insert(memory, [Old(NOW_NS + number, NOW_NS + number) for number in range(3 * MAX_AGED)])
    audits.keep_events(memory, [event(number) for number in range(20)], BOOT)
    now_ns = (year - 1970) * 365 * DAY_NS
    retention.prune_by_age(memory, now_ns, *TERMS)
    assert len(ids(memory)) == (3 * MAX_AGED if year == 1970 else 2 * MAX_AGED)
    assert ids(memory)[-1] == 3 * MAX_AGED


def test_an_event_of_a_host_that_believes_in_1970_is_kept(memory: sqlite3.Connection) -> None:
    """An audit without a known time is not old because the host's clock was wrong."""
    lost = event(1)._replace(utc_ns=None, host_ns=7 * NS_PER_S)
    old = event(2)._replace(utc_ns=NOW_NS - 8 * 365 * DAY_NS, host_ns=NOW_NS - 8 * 365 * DAY_NS)
    audits.keep_events(memory, [old, lost, event(3)], BOOT)
    retention.prune_by_age(memory, NOW_NS, *TERMS)
    assert ids(memory, "events") == [2, 3]


def test_an_entry_stamped_by_the_host_itself_does_not_stamp_its_audit(memory: sqlite3.Connection) -> None:
    """The host's own word is enough to deliver by, and not to remove by."""
    concluded = audit(1)
    for number, stamp_ns in ((1, concluded.observation.taken.realtime_ns), (2, NOW_NS + 7)):
        audit_id = audits.keep_audit(memory, concluded.observation, concluded.record._replace(utc_ns=None))
        outbox.enqueue(memory, entry(1, is_dated=False), audit_id)
        [*_, undated] = outbox.unstamped(memory)
        dated = undated._replace(lines=f"dated {stamp_ns}\n", stamp_ns=stamp_ns)
        outbox.stamp_entries(memory, [dated], [], "")
        assert audit_id == number
    assert memory.execute("SELECT utc_ns FROM audits ORDER BY id").fetchall() == [(None,), (NOW_NS + 7,)]
    assert [found.stamp_ns for found in outbox.waiting(memory, 9)] == [NOW_NS + 60 * NS_PER_S, NOW_NS + 7]


def test_hours_outlive_their_audits_and_events_both(memory: sqlite3.Connection) -> None:
    """Each kind has its own term."""
    for days in (3000, 500, 100, 1):
        then_ns = NOW_NS - days * DAY_NS
        concluded = audit(1)
        record = concluded.record._replace(utc_ns=then_ns, host_ns=then_ns)
        seen = concluded.observation._replace(taken=concluded.observation.taken._replace(realtime_ns=then_ns))
        audits.keep_audit(memory, seen, record)
        audits.roll_up(memory, record)
        audits.keep_events(memory, [event(1)._replace(utc_ns=then_ns, host_ns=then_ns)], BOOT)
    retention.prune_by_age(memory, NOW_NS, *TERMS)
    assert ids(memory) == [4]
    assert memory.execute("SELECT COUNT(*) FROM rollups").fetchone() == (2,)
    assert ids(memory, "events") == [2, 3, 4]


class Pile(NamedTuple):
    """A history of audits, of which the last ones wait; `loose` entries of events are among them."""

    delivered: int
    waiting: int
    loose: int


@settings(max_examples=60)
@given(
    st.builds(Pile, st.integers(0, 900), st.integers(0, 900), st.integers(0, 5)),
    st.integers(60_000, 1_500_000),
)
def test_what_goes_for_its_size(pile: Pile, max_bytes: int) -> None:
    """The oldest go first, and nothing that waits as long as something delivered can go; what went is counted."""
    count = pile.delivered + pile.waiting
    with closing(open_memory()) as connection:
        filler = "x" * 700
        for number in range(1, count + 1):
            connection.execute(
                "INSERT INTO audits (host_ns, observation, record, utc_ns) VALUES (?, ?, '', ?)",
                (number, filler, number),
            )
            if number > pile.delivered:
                outbox.enqueue(connection, entry(number), number)
            if number > count - pile.loose:
                outbox.enqueue(connection, entry(10_000 + number), None)
        entries = len(ids(connection, "outbox"))
        retention.prune_by_size(connection, max_bytes)
        left, waiting = ids(connection), ids(connection, "outbox")
        assert left == list(range(count - len(left) + 1, count + 1))
        assert entries - len(waiting) == saved_state.dropped(connection)
        if saved_state.dropped(connection):
            assert not left or left[0] > pile.delivered
        assert retention.size_bytes(connection) <= max_bytes or not left


def test_nothing_goes_while_there_is_room(memory: sqlite3.Connection) -> None:
    """Below the limit retention by size does nothing."""
    insert(memory, [Old(NOW_NS, NOW_NS)] * 10)
    retention.prune_by_size(memory, 1 << 20)
    assert (len(ids(memory)), saved_state.dropped(memory)) == (10, 0)


@pytest.mark.untraced
@pytest.mark.parametrize("is_delivered", [True, False])
def test_a_file_stays_within_its_size(is_delivered: bool, tmp_path: Path) -> None:
    """Over a simulated fortnight of minutes the file on the disk is no larger than it may be and an hour more."""
    path, max_bytes = tmp_path / "history.sqlite3", 2 << 20
    largest, number = 0, 0
    with closing(open_database(str(path))) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for _ in range(120):
            with transaction(connection):
                for number in range(number + 1, number + 61):  # noqa: B020
                    concluded = audit(number, "network" if number % 5 == 0 else "local")
                    audit_id = audits.keep_audit(connection, concluded.observation, concluded.record)
                    outbox.enqueue(connection, entry(number), audit_id)
                if is_delivered:
                    outbox.ack(connection, outbox.waiting(connection, 1000))
            with transaction(connection):
                retention.prune_by_size(connection, max_bytes)
            largest = max(largest, path.stat().st_size)
        left, waiting = ids(connection), outbox.waiting(connection, 10_000)
        dropped = saved_state.dropped(connection)
    assert max_bytes / 2 < largest < max_bytes + 200_000
    assert left[-1] == number
    if is_delivered:
        assert dropped == 0
    else:
        numbers = [number_of(entry.lines) for entry in waiting]
        assert numbers == list(range(dropped + 1, number + 1))


def test_free_pages_are_given_back(tmp_path: Path) -> None:
    """When a large backlog is delivered, or the limit lowered, the file gets smaller by and by."""
    path = tmp_path / "history.sqlite3"
    with closing(open_database(str(path))) as connection:
        with transaction(connection):
            for number in range(12_000):
                outbox.enqueue(connection, entry(number)._replace(lines="x" * 800), None)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = path.stat().st_size
        with transaction(connection):
            connection.execute("DELETE FROM outbox")
        for _ in range(5):
            with transaction(connection):
                retention.prune_by_size(connection, 1 << 30)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.stat().st_size < before / 10
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_dead_letters_are_bounded(memory: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that refuses everything fills no disk: the newest dead letters are kept."""
    monkeypatch.setattr(outbox, "KEPT_DEAD_LETTERS", 10)
    for number in range(50):
        outbox.enqueue(memory, entry(number), None)
        outbox.dead_letter(memory, outbox.waiting(memory, 1)[0], f"no \udcff {number}")
    assert ids(memory, "set_aside") == list(range(41, 51))
    assert outbox.backlog(memory) == (0, None, 10)


def test_a_clock_that_is_set_every_second_does_not_fill_the_disk(
    memory: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of events without an end the newest are kept, and no audit has to make room for them."""
    monkeypatch.setattr(retention, "KEPT_EVENTS", 30)
    insert(memory, [Old(NOW_NS, NOW_NS)])
    audits.keep_events(memory, [event(number) for number in range(100)], BOOT)
    retention.prune_by_size(memory, 1 << 30)
    assert (ids(memory), saved_state.dropped(memory)) == ([1], 0)
    assert ids(memory, "events") == list(range(71, 101))
    retention.drop_beyond(memory, 5)
    assert ids(memory, "events") == list(range(91, 101))


Step = Callable[[sqlite3.Connection], object]

MINUTE: dict[str, Step] = {
    "waiting": lambda connection: outbox.waiting(connection, 1000),
    "post": lambda connection: outbox.enqueue(connection, entry(7), 7),
    "backlog": outbox.backlog,
    "keep": lambda connection: audits.keep_audit(connection, audit(5).observation, audit(5).record),
    "undated": outbox.unstamped,
    "unjudged": audits.pending_observations,
    "find_unjudged": lambda connection: audits.find_pending(connection, audit(5, "network").observation),
    "set_aside": lambda connection: outbox.dead_letter(connection, outbox.waiting(connection, 1)[0], "no"),
    "confirm": lambda connection: outbox.ack(connection, outbox.waiting(connection, 1000)),
    "trim by age": lambda connection: retention.prune_by_age(connection, NOW_NS + 900 * DAY_NS, *TERMS),
    "trim by size": lambda connection: retention.prune_by_size(connection, 1 << 34),
    "trim by size, full": lambda connection: retention.prune_by_size(connection, 1 << 16),
}


@pytest.mark.untraced
@pytest.mark.parametrize("name", MINUTE)
def test_no_step_takes_longer_for_a_long_backlog(name: str) -> None:
    """What SQLite has to do in a minute of the agent's does not grow with the entries that wait."""
    work = []
    for backlog in (12_000, 60_000):
        with closing(open_memory()) as connection:
            insert(connection, [Old(NOW_NS, NOW_NS)] * 200)
            rows = (entry(number)[1:] for number in range(backlog))
            connection.executemany(
                "INSERT INTO outbox (audit_id, lines, stamp_ns, boot_id, boottime_ns, host_ns) VALUES (1,?,?,?,?,?)",
                rows,
            )
            connection.execute("UPDATE outbox SET audit_id = id")
            connection.executemany(
                "INSERT INTO audits (host_ns, observation, utc_ns, record) VALUES (?, '', ?, '')",
                ((NOW_NS, NOW_NS) for _ in range(backlog)),
            )
            steps = [0]

            def count(steps: list[int] = steps) -> int:
                steps[0] += 1
                return 0

            connection.set_progress_handler(count, 10)
            MINUTE[name](connection)
            work.append(steps[0])
    assert work[1] <= 1.2 * work[0] + 20


def test_the_number_that_waits_is_known_without_counting(memory: sqlite3.Connection) -> None:
    """The number, the age of the first, and the number of dead letters."""
    assert outbox.backlog(memory) == (0, None, 0)
    for number in range(1, 11):
        outbox.enqueue(memory, entry(number), None)
    first = entry(1)
    assert outbox.backlog(memory) == (10, first.stamp_ns, 0)
    outbox.ack(memory, outbox.waiting(memory, 4))
    outbox.dead_letter(memory, outbox.waiting(memory, 1)[0], "no")
    assert outbox.backlog(memory) == (5, entry(6).stamp_ns, 1)


def test_of_many_entries_without_a_time_an_audit_sees_the_oldest(memory: sqlite3.Connection) -> None:
    """What waits for weeks for a time costs a round no more than what waits for hours, and its turn comes."""
    for number in range(outbox.MAX_UNSTAMPED + 3):
        outbox.enqueue(memory, entry(number, is_dated=False), None)
    seen = outbox.unstamped(memory)
    assert [number.id for number in seen] == list(range(1, outbox.MAX_UNSTAMPED + 1))
    outbox.stamp_entries(memory, [undated._replace(stamp_ns=NOW_NS) for undated in seen], [], "")
    assert [number.id for number in outbox.unstamped(memory)] == [outbox.MAX_UNSTAMPED + n for n in (1, 2, 3)]
    assert [number.id for number in outbox.unstamped(memory, 1)] == [outbox.MAX_UNSTAMPED + 1]


@pytest.mark.parametrize("text", ["-3", '"many"', "true", "[", "1.5"])
def test_an_impossible_total_is_counted_again(text: str, memory: sqlite3.Connection) -> None:
    """What was given up is counted from nothing where what is kept is no count."""
    memory.execute("INSERT INTO state VALUES ('dropped', ?)", (text,))
    assert saved_state.dropped(memory) == 0
    saved_state.count_dropped(memory, 2)
    assert saved_state.dropped(memory) == 2


def test_entries_wait_behind_one_without_a_time(memory: sqlite3.Connection) -> None:
    """The order is kept; the time of the oldest is then the host's."""
    for number in (1, 2, 3):
        outbox.enqueue(memory, entry(number, is_dated=number != 2), None)
    assert [number_of(found.lines) for found in outbox.waiting(memory, 9)] == [1]
    outbox.ack(memory, outbox.waiting(memory, 9))
    assert outbox.waiting(memory, 9) == []
    assert outbox.backlog(memory)[1] == entry(2).host_ns


def test_damage_that_sqlite_does_not_notice_is_noticed(memory: sqlite3.Connection) -> None:
    """Entries without lines are damage, and not sent for ever."""
    memory.execute("PRAGMA ignore_check_constraints=ON")
    outbox.enqueue(memory, entry(1), None)
    memory.execute("UPDATE outbox SET lines = x'00'")
    with pytest.raises(sqlite3.DatabaseError, match="an outbox entry is damaged"):
        outbox.waiting(memory, 1)


@given(st.lists(records(), min_size=1, max_size=12), st.integers(0, 12))
def test_hours_count_every_audit(kept: list[Record], first: int) -> None:
    """An hour has the number, the worst and the extremes of its audits, however they came into the file."""
    with closing(open_memory()) as target, closing(open_memory()) as stand_in:
        for number, entry in enumerate(kept):
            audits.roll_up(target if number < first else stand_in, entry)
        transfer.move(stand_in, target)
        rows = {row[0]: row[1:] for row in target.execute("SELECT * FROM rollups")}
    expected: dict[int, list[Record]] = {}
    for entry in kept:
        moment_ns = entry.host_ns if entry.utc_ns is None else entry.utc_ns
        expected.setdefault(moment_ns // NS_PER_S // 3600 * 3600, []).append(entry)
    assert rows.keys() == expected.keys()
    for hour_s, entries in expected.items():
        offsets = [entry.offset for entry in entries if entry.offset]
        estimates = [round(offset.estimate_s * NS_PER_S) for offset in offsets]
        assert rows[hour_s] == (
            len(entries),
            len(offsets),
            *(sum(entry.verdict == verdict for entry in entries) for verdict in ("within", "unproven", "beyond")),
            max(entry.severity for entry in entries),
            min(estimates, default=None),
            max(estimates, default=None),
            max((round(offset.bound_s * NS_PER_S) for offset in offsets), default=None),
        )


@given(records())
def test_any_record_can_be_kept(entry: Record) -> None:
    """Whatever a record holds, a year beyond 2262 or a name that is no text, it is stored and comes back as it was."""
    seen = audit(1, "network").observation
    happened = event(1)._replace(text=f"of {entry.host.name}", utc_ns=entry.utc_ns, host_ns=entry.host_ns)
    with closing(open_memory()) as connection:
        audit_id = audits.keep_observation(
            connection, seen._replace(taken=seen.taken._replace(realtime_ns=entry.host_ns)), "network"
        )
        assert audits.keep_record(connection, audit_id, entry)
        audits.roll_up(connection, entry)
        audits.keep_events(connection, [happened], "\udcff".encode("ascii", "replace").decode())
        [(text,)] = connection.execute("SELECT record FROM audits")
    assert Record.from_dict(json.loads(unpack_text(text))) == Record.from_dict(entry.to_dict())


@pytest.mark.parametrize(
    "claim",
    [
        None,
        Claim(1, True, "ntp1", 0.1, 0.2, 3.0, 64.0, 2, 0, "nts", (ClaimedSource("ntp1"),)),
        Unavailable("it runs in a container", "run ntpaudit in that container"),
    ],
)
def test_a_record_with_a_claim_can_be_read(claim: Claim | Unavailable | None) -> None:
    """What a daemon reports, or why that is not known, is checked like all else: another type is damage."""
    configuration = Configuration((ConfiguredServer("ntp1"),), ("ntp.conf cannot be read",))
    daemon = CHRONYD._replace(claim=claim, configuration=configuration)
    stored = audit(1, "network").record._replace(daemons=(daemon.summary(),)).to_dict()
    text = json.dumps(stored)
    assert read_record(text)[1] == Record.from_dict(json.loads(text))
    for path in ("claim", "configuration"):
        if daemon.summary()[path] is not None:
            damaged = json.loads(text)
            damaged["daemons"][0][path] = {"available": True, "servers": "x"}
            with pytest.raises(ValueError, match="no record"):
                read_record(json.dumps(damaged))


def test_a_record_without_its_observation_is_not_kept(memory: sqlite3.Connection) -> None:
    """The caller gets an error, and nothing is made up."""
    assert not audits.keep_record(memory, 7, audit(7).record)
    assert ids(memory) == []


def test_what_is_damaged_in_this_boot_is_found(memory: sqlite3.Connection) -> None:
    """Of the latest network audits of this boot, whether stored compressed or plain; the others are not read."""
    for number in range(1, 8):
        concluded = audit(number, "network")
        audits.keep_audit(memory, concluded.observation, concluded.record)
    audits.keep_audit(memory, audit(8).observation, audit(8).record)
    plain_text = (to_json(plain(audit(2, "network").observation)), to_json(audit(2, "network").record.to_dict()))
    memory.execute("UPDATE audits SET observation = ?, record = ? WHERE id = 2", plain_text)
    memory.execute("UPDATE audits SET boot_id = 'another', record = 'nonsense' WHERE id = 3")
    memory.execute("UPDATE audits SET record = x'7801ffff' WHERE id IN (1, 4)")
    memory.execute("UPDATE audits SET observation = ? WHERE id = 5", (pack_text("[" * 100_000),))
    audits.keep_observation(memory, audit(9, "network").observation, "network")
    assert audits.mark_damaged(memory, BOOT, 2) == []  # 7 and 6
    assert audits.mark_damaged(memory, BOOT, 5) == [4, 5]
    assert audits.mark_damaged(memory, BOOT, 1) == [4, 5]  # they stay, and are used for nothing any more
    assert memory.execute("SELECT COUNT(*) FROM audits").fetchone() == (9,)


@pytest.mark.parametrize("text", ["[]", "nonsense", "[" * 100_000, '{"host": 5}', "{}", b"\x78\x01", 7])
def test_an_observation_that_makes_no_sense_is_given_up(text: str | bytes | int, memory: sqlite3.Connection) -> None:
    """It does not come back at every start, and those beside it are found."""
    for number in (1, 2):
        audits.keep_observation(memory, audit(number, "network").observation, "network")
    memory.execute("UPDATE audits SET observation = ? WHERE id = 1", (text,))
    assert [pending.id for pending in audits.pending_observations(memory)] == [2]
    assert [pending.id for pending in audits.pending_observations(memory)] == [2]
    assert audits.mark_damaged(memory, BOOT, 0) == [1]
    assert memory.execute("SELECT COUNT(*) FROM audits").fetchone() == (2,)


@pytest.mark.parametrize("value", ["nonsense", "[" * 100_000, b"\xff", 7.5])
def test_a_state_that_makes_no_sense_is_none(value: str | bytes | float, memory: sqlite3.Connection) -> None:
    """The agent then begins as if it were new."""
    memory.execute("INSERT INTO state VALUES ('clock', ?)", (value,))
    assert saved_state.load_state(memory, "clock") in (None, 7.5)
    assert saved_state.load_state(memory, "nothing") is None


def test_columns_have_what_the_record_has(memory: sqlite3.Connection) -> None:
    """A reader of the history need not unpack every record."""
    concluded = audit(3, "network")
    audits.keep_audit(memory, concluded.observation, concluded.record)
    assert concluded.record.offset is not None
    row = memory.execute(
        "SELECT kind, boot_id, boottime_ns, suspended_ns, host_ns, utc_ns, severity, verdict, offset_ns FROM audits"
    ).fetchone()
    taken = concluded.observation.taken
    assert row == (
        "network",
        BOOT,
        taken.boottime_ns,
        taken.boottime_ns - taken.monotonic_ns,
        taken.realtime_ns,
        concluded.record.utc_ns,
        Severity.OK,
        0,
        round(concluded.record.offset.estimate_s * NS_PER_S),
    )


def test_every_outcome_takes_little_room(tmp_path: Path) -> None:
    """A network audit takes less than 2 kB on the disk, a local one less than 900 octets, with findings and chain."""
    sizes = {}
    for kind in ("network", "local"):
        path = tmp_path / kind
        with closing(open_database(str(path))) as connection, transaction(connection):
            empty = retention.size_bytes(connection)
            count = 0
            for number in range(30):
                for entry in CASES.values():
                    concluded = audit(number, kind)
                    sources = entry.sources if kind == "network" else ()
                    record = entry._replace(kind=kind, sources=sources, boottime_ns=number)
                    audits.keep_audit(connection, concluded.observation, record)
                    count += 1
            sizes[kind] = (retention.size_bytes(connection) - empty) / count
    assert sizes["network"] < 2000
    assert sizes["local"] < 900

"""What a history holds: windows of it, found without a scan, and rows that make no sense."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.ntp.rate_limit import Instant
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Record
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.store.audits import keep_audit, roll_up
from ntpaudit.store.database import open_database, open_memory, transaction
from ntpaudit.store.queries import Window
from tests.histories import MINUTE_NS, World, stored, write
from tests.records import CASES, NOW_NS, observation, records

MINUTES = 240
WORLD = World(
    offset_s=lambda minute: 0.002,
    stepped_s=lambda minute: 1.5 if 100 <= minute < 110 else 0.0,
    answers=lambda minute: not 30 <= minute < 60,
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[sqlite3.Connection, list[Record]]]:
    """A history of four hours with a step and an outage, and its records."""
    path = tmp_path_factory.mktemp("past") / "history.sqlite3"
    records = write(path, WORLD, range(MINUTES))
    with closing(open_database(str(path))) as connection:
        yield connection, records


def test_audits_are_the_records_in_brief(kept: tuple[sqlite3.Connection, list[Record]]) -> None:
    """Every column says what the record says."""
    connection, records = kept
    audits = list(stored(connection).audits(stored(connection).window()))
    assert len(audits) == len(records) == MINUTES
    offsets = list(stored(connection).audits(stored(connection).window(), in_full=False))
    assert offsets == [audit._replace(age_s=None, findings=(), minor=frozenset()) for audit in audits]
    for audit, record in zip(audits, records, strict=True):
        assert record.offset
        assert (audit.time_ns, audit.host_ns, audit.is_dated) == (record.utc_ns, record.host_ns, True)
        assert (audit.kind, audit.severity, audit.verdict) == (record.kind, record.severity, record.verdict)
        assert audit.age_s == record.age_s
        assert audit.findings == tuple(finding.id for finding in record.findings)
        assert audit.minor == {finding.id for finding in record.findings if finding.severity is Severity.OK}
        for ours, theirs in (
            (audit.offset_s, record.offset.estimate_s),
            (audit.earliest_s, record.offset.earliest_s),
            (audit.latest_s, record.offset.latest_s),
            (audit.bound_s, record.offset.bound_s),
        ):
            assert ours == pytest.approx(theirs, abs=1e-9)


def test_records_are_the_very_texts(kept: tuple[sqlite3.Connection, list[Record]]) -> None:
    """Nothing is parsed or rewritten on the way."""
    connection, records = kept
    texts = [text for _, text in stored(connection).records(stored(connection).window(limit=7))]
    assert texts == [json.dumps(record.to_dict(), separators=(",", ":")) for record in records[-7:]]


def test_a_window_between_two_times(kept: tuple[sqlite3.Connection, list[Record]]) -> None:
    """Exactly those in between, both ends included; the limit takes the newest of them."""
    connection, records = kept
    times = [record.utc_ns for record in records]
    since, until = times[100], times[150]
    between = [audit.time_ns for audit in stored(connection).audits(stored(connection).window(since, until))]
    assert between == times[100:151]
    newest = [audit.time_ns for audit in stored(connection).audits(stored(connection).window(since, until, 3))]
    assert newest == times[148:151]
    assert list(stored(connection).audits(stored(connection).window(until_ns=1))) == []
    assert len(list(stored(connection).audits(stored(connection).window(since, None, 10_000)))) == MINUTES - 100


_GAPS = st.lists(st.integers(0, 2 * HOUR_S), min_size=1, max_size=40)


@given(_GAPS, st.lists(st.booleans(), min_size=40, max_size=40), st.integers(-HOUR_S, 40 * HOUR_S))
def test_halving_finds_what_a_scan_finds(gaps: list[int], dated: list[bool], since_s: int) -> None:
    """Whatever the gaps and wherever audits have no date, a window has every dated audit of its time, and no other."""
    connection = open_memory()
    time_s = 0
    for gap_s, is_dated in zip(gaps, dated, strict=False):
        time_s += gap_s
        connection.execute(
            "INSERT INTO audits (host_ns, observation, record, utc_ns, severity) VALUES (?, '', '{}', ?, 0)",
            (time_s, time_s * NS_PER_S if is_dated else None),
        )
    window = stored(connection).window(since_s * NS_PER_S, (since_s + 3 * HOUR_S) * NS_PER_S)
    found = {audit_id for audit_id, _ in stored(connection).records(window)}
    rows = connection.execute("SELECT id, utc_ns FROM audits WHERE utc_ns IS NOT NULL").fetchall()
    inside = {row[0] for row in rows if since_s <= row[1] / NS_PER_S <= since_s + 3 * HOUR_S}
    assert found & {row[0] for row in rows} == inside
    assert found <= set(range(window.first, window.last + 1))
    connection.close()


def test_an_empty_history_has_nothing() -> None:
    """No row anywhere: nothing found, and nothing raised."""
    connection = open_memory()
    window = stored(connection).window(0, 1, 5)
    assert (window.size, list(stored(connection).audits(window))) == (0, [])
    assert (
        stored(connection).oldest_ns(),
        stored(connection).newest_ns(),
        stored(connection).host_name(),
    ) == (None, None, None)
    assert stored(connection).corrected_now(Instant(None, 5, 7)) == 7
    assert (stored(connection).hours(None, None), stored(connection).events(None, None)) == ([], [])
    connection.close()


def test_the_time_is_counted_on_from_the_last_audit(kept: tuple[sqlite3.Connection, list[Record]]) -> None:
    """Of this boot by uptime, whatever the clock was set to; of another the clock, but never before the last audit."""
    connection, records = kept
    last = records[-1]
    assert last.utc_ns
    later = last.boottime_ns + 90 * NS_PER_S
    assert stored(connection).corrected_now(Instant(last.host.boot_id, later, 0)) == last.utc_ns + 90 * NS_PER_S
    assert stored(connection).corrected_now(Instant("another", later, last.utc_ns + 5)) == last.utc_ns + 5
    assert stored(connection).corrected_now(Instant("another", later, 0)) == last.utc_ns


def test_no_turn_lasts_while_a_reader_takes_his_time(tmp_path: Path) -> None:
    """Between two pages an agent writes, tidies up, and empties its write-ahead log."""
    path = tmp_path / "history.sqlite3"
    write(path, World(), range(10))
    connection = open_database(str(path))
    connection.executescript("".join("INSERT INTO audits SELECT NULL, host_ns, observation, record, kind, boot_id,"
        "boottime_ns, suspended_ns, raw_ns, utc_ns, severity, verdict, offset_ns, earliest_ns, latest_ns,"
        " local_s FROM audits;" for _ in range(8)))  # fmt: skip
    reader = open_database(str(path))
    audits = stored(reader).audits(stored(reader).window())
    next(audits)
    with transaction(connection):
        connection.execute("DELETE FROM audits WHERE id > 2000")
    assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    assert len(list(audits)) == 1999
    reader.close()
    connection.close()


NONSENSE = (
    b"",
    b"not compressed",
    '{"age_s": [',
    "[]",
    "null",
    "nonsense",
    '{"findings": 5}',
    '{"findings": [{}]}',
    '{"findings": [5], "age_s": 1}',
    '{"age_s":[',
    '{"age_s":[1],"findings":[]}',
    '{"age_s":1,"findings":5}',
    '{"age_s":1,"findings":[{}]}',
    '{"age_s":1,"findings":[5]}',
)


@pytest.mark.parametrize("text", NONSENSE)
def test_rows_that_make_no_sense_are_passed_over(text: str | bytes, tmp_path: Path) -> None:
    """A record that no ntpaudit wrote hides no other."""
    path = tmp_path / "history.sqlite3"
    write(path, World(), range(4))
    connection = open_database(str(path))
    connection.execute("UPDATE audits SET record = ? WHERE id = 2", (text,))
    connection.execute("UPDATE audits SET record = ?, severity = NULL WHERE id = 3", (text,))
    connection.execute("UPDATE audits SET record = ? WHERE id = 4", (text,))
    assert [audit.id for audit in stored(connection).audits(stored(connection).window())] == [1]
    connection.close()


_LOOKALIKES = ('"age_s":5', '","age_s":5,"', '"findings":[{"id":"none"}]', '\\","findings":[]', "findings", "age_s")


@given(records(), st.sampled_from(_LOOKALIKES) | st.text())
def test_age_and_findings_are_the_records_own(record: Record, text: str) -> None:
    """Whatever texts stand in a record, also such as look like its members."""
    named = record._replace(
        host=record.host._replace(name=text, site=text),
        sources=tuple(source._replace(name=text) for source in record.sources),
        findings=tuple(finding._replace(message=text) for finding in record.findings),
    )
    with closing(open_memory()) as connection:
        keep_audit(connection, observation(), named)
        (audit,) = stored(connection).audits(stored(connection).window())
    assert audit.age_s == record.age_s
    assert audit.findings == tuple(finding.id for finding in record.findings)


def test_hours_sum_their_audits_up(kept: tuple[sqlite3.Connection, list[Record]]) -> None:
    """Counts and extremes are those of the hour's records."""
    connection, records = kept
    hours = stored(connection).hours(None, None)
    assert sum(hour.audits for hour in hours) == MINUTES
    for hour in hours:
        inside = [r for r in records if r.utc_ns and hour.time_ns <= r.utc_ns < hour.time_ns + HOUR_S * NS_PER_S]
        offsets = [record.offset.estimate_s for record in inside if record.offset]
        assert (hour.audits, hour.measured) == (len(inside), len(offsets))
        assert hour.beyond == sum(record.verdict == "beyond" for record in inside)
        assert hour.severity == max(record.severity for record in inside)
        assert (hour.least_offset_s, hour.most_offset_s) == pytest.approx((min(offsets), max(offsets)), abs=1e-9)
        assert hour.bound_s == pytest.approx(max(r.offset.bound_s for r in inside if r.offset), abs=1e-9)
    times = [hour.time_ns for hour in hours]
    assert [hour.time_ns for hour in stored(connection).hours(times[1] + 5, times[3])] == times[1:3]
    assert [hour.time_ns for hour in stored(connection).hours(None, None, 2)] == times[-2:]


def test_an_hour_without_a_measurement_has_no_extremes() -> None:
    """Nothing measured is None, and not zero."""
    connection = open_memory()
    roll_up(connection, CASES["unmeasured, no reply"])
    [hour] = stored(connection).hours(None, None)
    assert (hour.audits, hour.measured) == (1, 0)
    assert (hour.least_offset_s, hour.most_offset_s, hour.bound_s) == (None, None, None)
    connection.close()


def test_events_are_read_as_they_were_kept(kept: tuple[sqlite3.Connection, list[Record]]) -> None:
    """Steps with their size and detail, findings raised and cleared, in order; between two times, and the newest."""
    connection, _ = kept
    happenings = stored(connection).events(None, None)
    steps = [event for event, _ in happenings if event.kind.startswith("step-")]
    assert [(step.kind, round(step.value_s or 0, 3)) for step in steps] == [("step-back", -1.5), ("step-forward", 1.5)]
    assert steps[0].detail["while_down"] is False
    assert {boot_id for _, boot_id in happenings} == {WORLD.boot_id}
    gaps = [event.raised for event, _ in happenings if event.kind == "evidence-gap"]
    assert gaps == [True, False]
    assert stored(connection).events(None, None, 2) == happenings[-2:]
    early = stored(connection).events(NOW_NS, NOW_NS + 99 * MINUTE_NS)
    assert early == [happening for happening in happenings if (happening.event.utc_ns or 0) <= NOW_NS + 99 * MINUTE_NS]


def test_an_events_detail_that_makes_no_sense_hides_nothing(tmp_path: Path) -> None:
    """The event is shown without it."""
    path = tmp_path / "history.sqlite3"
    write(path, WORLD, range(95, 105))
    connection = open_database(str(path))
    connection.execute("UPDATE events SET detail = 'nonsense'")
    assert [event.kind for event, _ in stored(connection).events(None, None)] == ["step-back"]
    connection.close()


def test_a_window_counts_without_looking() -> None:
    """About how many audits there are is known from the ids alone."""
    connection = open_memory()
    assert Window(3, 12).size == 10
    connection.close()

"""`ntpaudit evidence verify` on histories of the real agent: what is done to one is found and named (CH1 to CH3)."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from docs.verify_history import problems
from ntpaudit.agent import Agent, read_setup
from ntpaudit.core.chain import BEGIN, canonical, linked
from ntpaudit.demo.scenario import SetClock
from ntpaudit.files import sha256
from ntpaudit.store import chain, retention
from ntpaudit.store.compression import pack_text, unpack_text
from ntpaudit.store.database import open_database, transaction
from ntpaudit.store.serialization import to_json
from ntpaudit.store.verification import Check, verify
from tests.command import Ran, ntpaudit
from tests.waiting import WITHIN_S
from tests.world.flaky import FlakyDatabase
from tests.world.host import Change, S, SimulatedRuntime, happens
from tests.world.packages import REPOSITORY
from tests.world.servers import influxd, victoria_metrics

BEGIN_NS = time.time_ns() - 3 * 3600 * S  # a database would not believe a time that is far from its own
HOURS = 2.0


def live(folder: Path, hours: float = HOURS, *, url: str | None = None) -> Path:
    """Let the real agent run on a simulated host, whose clock is stepped half-way; return its history."""
    servers = [f"ntp{number}.example.net" for number in range(1, 5)]
    config = folder / "simulated.toml"
    database = "" if url is None else f'[influxdb]\nurl = "{url}"\n'
    config.write_text(f'[host]\nname = "web1"\n[sources]\nservers = {servers!r}\n{database}')
    setup = read_setup(str(config), {"STATE_DIRECTORY": str(folder)})
    runtime = SimulatedRuntime(BEGIN_NS, seed=3)
    runtime.changes = [
        Change(hours * 1800.0, happens(SetClock(-3.0))),
        Change(hours * 3600.0, lambda runtime: runtime.ends.append(signal.SIGTERM)),
    ]
    Agent(setup, runtime).run()
    Agent(setup, runtime).drain(WITHIN_S)
    return folder / "history.sqlite3"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history of two hours, with a step and its events."""
    return live(tmp_path_factory.mktemp("original"))


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return copied(original, tmp_path / "history.sqlite3")


def copied(original: Path, path: Path) -> Path:
    """Copy a history with what is in its journal."""
    with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)
    return path


def change(path: Path, *statements: str) -> None:
    """Change a history as root can; each statement changes something."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            assert connection.execute(statement).rowcount or "accounts" in statement, statement  # by the time of day


def repack(path: Path, table: str, column: str, row: int, old: str, new: str) -> None:
    """Replace a part of a compressed text, as somebody does who knows the format."""
    with closing(sqlite3.connect(path)) as connection, connection:
        (packed,) = connection.execute(f"SELECT {column} FROM {table} WHERE id = ?", (row,)).fetchone()
        text = unpack_text(packed)
        assert old in text
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (pack_text(text.replace(old, new)), row))


def rewrite(path: Path) -> None:
    """Compute the whole chain again, so that it fits the rows as they are now."""
    with closing(sqlite3.connect(path)) as connection, connection:
        head = BEGIN.head
        for sequence, kind, row in connection.execute("SELECT sequence, kind, row FROM chain ORDER BY 1").fetchall():
            content = chain.read_row(connection, kind, row)
            assert content is not None
            digest = sha256(canonical(*content))
            before, head = head, sha256(linked(head, sequence, kind, digest))
            connection.execute("UPDATE chain SET digest = ?, head = ? WHERE sequence = ?", (digest, head, sequence))
            connection.execute("UPDATE segments SET before = ? WHERE first = ?", (before, sequence))
            connection.execute("UPDATE segments SET head = ? WHERE last = ?", (head, sequence))


def cut(path: Path, count: int) -> int:
    """Remove some of the newest entries with their rows, and what SQLite remembers; return the last entry left."""
    with closing(sqlite3.connect(path)) as connection, connection:
        (last,) = connection.execute(
            "SELECT MAX(sequence) FROM chain"
            " WHERE kind = 'record' AND sequence <= (SELECT MAX(sequence) FROM chain) - ?",
            (count,),
        ).fetchone()
        for kind, row in connection.execute("SELECT kind, row FROM chain WHERE sequence > ?", (last,)).fetchall():
            source = chain.SOURCES[kind]
            connection.execute(f"DELETE FROM {source.table} WHERE {source.condition} AND {source.id} = ?", (row,))
        connection.execute("DELETE FROM chain WHERE sequence > ?", (last,))
        for table in ("audits", "events", "notes"):
            newest = connection.execute(f"SELECT MAX(id) FROM {table}").fetchone()
            connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (*newest, table))
        return int(last)


def first_misfit(path: Path) -> Check:
    """Return what the command names first. Another verifier agrees that something does not fit."""
    wrong = [check for check in verify(str(path)) if not check.fits]
    ran = ntpaudit("evidence", "verify", "--history", str(path), state=path.parent)
    assert ran.status == 2, ran
    first = min(wrong, key=lambda check: float("inf") if check.sequence is None else check.sequence)
    assert ran.out.splitlines()[-1] == f"The history does not fit its chain. First: {first.text}"
    return first


def test_what_an_agent_wrote_fits(original: Path) -> None:
    """All kinds of rows of an ordinary history have entries that fit; a verifier without ntpaudit agrees."""
    ran = ntpaudit("evidence", "verify", "--history", str(original), state=original.parent)
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * 7
    assert lines[-1] == "The history fits its chain."
    assert all(kind in ran.out for kind in ("observation", "record", "event", "note"))
    script = [sys.executable, str(REPOSITORY / "docs" / "verify_history.py"), str(original)]
    alone = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (alone.returncode, alone.stdout) == (0, "every row fits the chain\n")


def test_the_notes_say_what_ran(original: Path) -> None:
    """The first entry is how the chain began; start and configuration follow it."""
    with closing(sqlite3.connect(original)) as connection:
        notes = [kind for (kind,) in connection.execute("SELECT kind FROM notes ORDER BY id")]
        first = connection.execute("SELECT kind, row FROM chain ORDER BY sequence LIMIT 3").fetchall()
        configuration = chain.latest_note(connection, "configuration")
        assert chain.latest_note(connection, "start")["host"] == "web1"
    assert notes[:3] == ["adopted", "start", "configuration"]
    assert notes.count("configuration") == 1
    assert first == [("note", 1), ("note", 2), ("note", 3)]
    assert configuration["policy"]["critical"] == "1s"


def test_the_status_has_the_newest_head(original: Path) -> None:
    """As JSON, beside the record."""
    ran = ntpaudit(
        "status", "--format", "json", state=original.parent, environment={"STATE_DIRECTORY": str(original.parent)}
    )
    with closing(sqlite3.connect(original)) as connection:
        head = chain.last_head(connection)
    assert head is not None
    assert json.loads(ran.out)["chain"] == head.plain()


TAMPERING: dict[str, tuple[tuple[str, ...], str, str]] = {
    "a value": (("UPDATE audits SET offset_ns = 0 WHERE id = ROW",), "rows", "record of audit ROW (20"),
    "a time": (("UPDATE audits SET utc_ns = utc_ns - 60000000000 WHERE id = ROW",), "rows", "utc_ns do not follow"),
    "a verdict": (("UPDATE audits SET verdict = (verdict + 1) % 4 WHERE id = ROW",), "rows", "verdict do not follow"),
    "the host's time": (("UPDATE audits SET host_ns = host_ns + 1 WHERE id = ROW",), "rows", "record of audit ROW"),
    "who made it": (("UPDATE audits SET kind = NULL WHERE id = ROW",), "rows", "record of audit ROW"),
    "marked as damaged": (("UPDATE audits SET kind = 'damaged' WHERE id = ROW",), "rows", "record of audit ROW"),
    "a text cut off": (("UPDATE audits SET record = x'00' WHERE id = ROW",), "rows", "its text is not a record"),
    "the type of a value": (("UPDATE audits SET boot_id = x'ff' WHERE id = ROW",), "rows", "record of audit ROW"),
    "an event": (("UPDATE events SET text = 'nothing' WHERE id = 1",), "rows", "event 1 (20"),
    "a note": (("UPDATE notes SET kind = 'retention' WHERE id = 2",), "rows", "note 2"),
    "delete an audit": (("DELETE FROM audits WHERE id = ROW",), "missing", "record of audit ROW is gone"),
    "delete a record": (("UPDATE audits SET record = NULL WHERE id = ROW",), "missing", "record of audit ROW is gone"),
    "delete an event": (("DELETE FROM events WHERE id = 1",), "missing", "event 1 is gone"),
    "insert an event": (
        ("CREATE TEMP TABLE one AS SELECT * FROM events WHERE id = 1", "UPDATE one SET id = 999",
         "INSERT INTO events SELECT * FROM one"), "unchained", "event 999 (20",
    ),
    "duplicate an audit": (
        ("CREATE TEMP TABLE one AS SELECT * FROM audits WHERE id = ROW", "UPDATE one SET id = 999",
         "INSERT INTO audits SELECT * FROM one"), "unchained", "record of audit 999 (20",
    ),
    "swap two audits": (
        ("UPDATE audits SET id = -1 WHERE id = ROW", "UPDATE audits SET id = ROW WHERE id = NEXT",
         "UPDATE audits SET id = NEXT WHERE id = -1"), "rows", "record of audit ROW",
    ),
    "delete entries": (("DELETE FROM chain WHERE sequence = 70",), "links", "entry 70 is missing"),
    "delete the first entries": (("DELETE FROM chain WHERE sequence < 70",), "links", "entry 1 is missing"),
    "a digest": (("UPDATE chain SET digest = x'" + "00" * 32 + "' WHERE sequence = 70",), "links", "entry 70 "),
    "a head": (("UPDATE chain SET head = x'" + "00" * 32 + "' WHERE sequence = 70",), "links", "entry 70 "),
    "an entry of no kind": (("UPDATE chain SET kind = 'nothing' WHERE sequence = 70",), "links", "entry 70 "),
    "an entry that is no hash": (("UPDATE chain SET digest = 7 WHERE sequence = 70",), "links", "entry 70 "),
    "a header": (("UPDATE segments SET before = x'00' WHERE first > 1",), "days", "the header that begins with entry"),
    "delete a header": (("DELETE FROM segments WHERE first = 1",), "days", "no header begins with entry 1"),
    "cut the end": (
        ("DELETE FROM audits WHERE id > 100", "DELETE FROM events WHERE id > 1",
         "DELETE FROM chain WHERE sequence > (SELECT sequence FROM chain WHERE kind = 'record' AND row = 100)",
         "DELETE FROM accounts WHERE begin_s NOT IN (SELECT row FROM chain WHERE kind = 'hour')"),
        "end", "the end was cut",
    ),
}  # fmt: skip
"""What somebody does with SQL to an audit ROW or its NEXT, both local; the check that finds it, and what is named."""


def local_audits(path: Path) -> int:
    """Return the id of a local audit that is followed by another."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT a.id FROM audits a JOIN audits b ON b.id = a.id + 1 WHERE a.kind = 'local' AND b.kind = 'local'"
        (row,) = connection.execute(f"{query} AND a.id > 50 LIMIT 1").fetchone()
    return int(row)


def written(text: str, row: int) -> str:
    """Write the ids into a statement or a text."""
    return text.replace("ROW", str(row)).replace("NEXT", str(row + 1))


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_found_and_the_first_bad_row_is_named(what: str, copy: Path) -> None:
    """By SQL, without a change of the chain; a verifier without ntpaudit finds it too, except what it does not read."""
    statements, name, words = TAMPERING[what]
    row = local_audits(copy)
    change(copy, *(written(statement, row) for statement in statements))
    first = first_misfit(copy)
    assert (first.name, written(words, row) in first.text) == (name, True), first
    with closing(sqlite3.connect(copy)) as connection:
        assert problems(connection) or name in ("days", "end")


@pytest.mark.parametrize("column", ["record", "observation"])
def test_a_text_that_is_changed_and_packed_again_is_found(column: str, copy: Path) -> None:
    """And named as what does not follow from it, if that can be known."""
    with closing(sqlite3.connect(copy)) as connection:
        (row,) = connection.execute("SELECT id FROM audits WHERE kind = 'network' AND id > 50 LIMIT 1").fetchone()
    repack(copy, "audits", column, row, "ntp2", "ntp3")
    assert f"{column} of audit {row} (20" in first_misfit(copy).text


def test_a_swapped_row_is_recognised(copy: Path) -> None:
    """Its content is that of another row."""
    row = local_audits(copy)
    change(copy, *(written(statement, row) for statement in TAMPERING["swap two audits"][0]))
    assert f"its content is that of audit {row + 1}" in first_misfit(copy).text


def test_a_note_made_by_hand_excuses_nothing(copy: Path) -> None:
    """It has no entry; with an entry somewhere in the chain, the chain breaks there."""
    note = to_json({"rule": {"name": "age"}, "removed": {"audits": [[60, 60]]}})
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("DELETE FROM audits WHERE id = 60")
        connection.execute("INSERT INTO notes (kind, host_ns, note) VALUES ('retention', 1, ?)", (note,))
    checks = {check.name: check for check in verify(str(copy))}
    assert "audit 60 is gone" in checks["missing"].text
    assert "note 4 " in checks["unchained"].text
    change(copy, "UPDATE chain SET kind = 'note', row = 4 WHERE sequence = 90")
    assert "entry 90 " in {check.name: check for check in verify(str(copy))}["links"].text


@pytest.mark.parametrize("kept_s", [None, 0.0, 1800.0, 1e9, 1e300])
def test_a_note_that_hides_rows_among_others_is_found(kept_s: float | None, copy: Path) -> None:
    """Root can add a note to the end of the chain as an agent does, but retention removes the oldest rows only."""
    rule = {"name": "age"} | ({} if kept_s is None else {"raw_s": kept_s})
    with closing(open_database(str(copy))) as connection, transaction(connection):
        (utc_ns,) = connection.execute("SELECT utc_ns FROM audits WHERE id = 90").fetchone()
        connection.execute("DELETE FROM audits WHERE id BETWEEN 60 AND 70")
        chain.note_removed(connection, rule, {"audits": range(60, 71)}, utc_ns)
    first = first_misfit(copy)
    assert first.name == "missing"
    assert first.text.startswith("audit 60 is gone")
    assert first.text.endswith("by a retention note, although audit 1, which is older, still exists")


def test_a_rewritten_chain_fits_by_itself(copy: Path) -> None:
    """That is why heads leave the host: without one, nothing is found."""
    change(copy, "UPDATE audits SET verdict = 0, severity = 0", "DELETE FROM events WHERE id = 2")
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("DELETE FROM chain WHERE kind = 'event' AND row = 2")
        connection.execute("UPDATE chain SET sequence = -sequence")
        for place, (sequence,) in enumerate(
            connection.execute("SELECT sequence FROM chain ORDER BY 1 DESC").fetchall(), 1
        ):
            connection.execute("UPDATE chain SET sequence = ? WHERE sequence = ?", (place, sequence))
        connection.execute("DELETE FROM segments WHERE first > 1")
        connection.execute("UPDATE segments SET last = NULL, head = NULL")
        connection.execute("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'events'")
    rewrite(copy)
    assert [check.text for check in verify(str(copy)) if not check.fits] == []


class Stored(NamedTuple):
    """A history, and the database that has its points."""

    path: Path
    words: tuple[str, ...]


@pytest.fixture(scope="module", params=["influxql", "promql"])
def delivered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """A history whose agent has delivered all of it to a real InfluxDB, or VictoriaMetrics."""
    with ExitStack() as stack:
        if request.param == "influxql":
            url = stack.enter_context(FlakyDatabase(stack.enter_context(influxd()))).url
        else:
            url = stack.enter_context(victoria_metrics())
        path = live(tmp_path_factory.mktemp("delivered"), url=url)
        if request.param == "promql":
            urlopen(f"{url}/internal/force_flush", timeout=WITHIN_S).close()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT COUNT(*) FROM outbox").fetchone() == (0,)
        yield Stored(path, ("--against", url, "--language", request.param))


def against(stored: Stored, path: Path, *more: str) -> Ran:
    """Verify a history against the database."""
    return ntpaudit("evidence", "verify", "--history", str(path), *stored.words, *more, state=path.parent)


def test_delivered_heads_fit(delivered: Stored) -> None:
    """Each point of the agent carries the head after its record."""
    ran = against(delivered, delivered.path)
    assert (ran.status, ran.err) == (0, "")
    with closing(sqlite3.connect(delivered.path)) as connection:
        (count,) = connection.execute("SELECT COUNT(*) FROM audits WHERE utc_ns IS NOT NULL").fetchone()
    assert f"ok    delivered  {count} delivered heads on this chain" in ran.out


def test_a_rewritten_history_does_not_fit_delivered_heads(delivered: Stored, tmp_path: Path) -> None:
    """The first row that can differ is the one that was changed, or one that was stored with it."""
    copy = copied(delivered.path, tmp_path / "copy")
    change(copy, "UPDATE audits SET verdict = (verdict + 1) % 4 WHERE id = 60")
    rewrite(copy)
    assert ntpaudit("evidence", "verify", "--history", str(copy), state=tmp_path).status == 0
    ran = against(delivered, copy)
    assert ran.status == 2
    assert "not those of this chain" in ran.out
    assert "of audit 60 " in ran.out.splitlines()[-1]


@pytest.mark.parametrize("count", [3, 40])
def test_a_cut_or_older_history_does_not_fit_delivered_heads(count: int, delivered: Stored, tmp_path: Path) -> None:
    """Its end is missing, however cleanly it was removed."""
    copy = copied(delivered.path, tmp_path / "copy")
    last = cut(copy, count)
    assert ntpaudit("evidence", "verify", "--history", str(copy), state=tmp_path).status == 0
    ran = against(delivered, copy)
    assert ran.status == 2
    assert f"the chain ends with entry {last}: its end was cut, or this is an older copy" in ran.out


def test_an_older_copy_that_went_on_does_not_fit_delivered_heads(delivered: Stored, tmp_path: Path) -> None:
    """Its entries have the numbers of others that were delivered."""
    copy = copied(delivered.path, tmp_path / "copy")
    cut(copy, 40)
    with closing(open_database(str(copy))) as connection:
        for number in range(60):
            with transaction(connection):
                chain.note(connection, "start", {"number": number})
    ran = against(delivered, copy)
    assert ran.status == 2
    assert "not those of this chain" in ran.out


def test_heads_of_another_host_or_time_prove_nothing(delivered: Stored) -> None:
    """Then there is nothing to compare, which is no success."""
    for more in (("--host", "web2"), ("--since", "2099-01-01")):
        ran = against(delivered, delivered.path, *more)
        assert ran.status == 3
        assert "no head of this host to compare with" in ran.out


def test_a_database_that_cannot_be_read_is_no_success(original: Path) -> None:
    """The history itself was verified all the same."""
    words = ("evidence", "verify", "--history", str(original), "--against", "http://127.0.0.1:9")
    ran = ntpaudit(*words, state=original.parent)
    assert ran.status == 3
    assert "http://127.0.0.1:9" in ran.err
    assert "The history fits its chain." in ran.out


@pytest.mark.parametrize(("words", "status", "text"), [
    (["--history", "missing"], 3, "missing"),
    (["--since", "1d"], 64, "--against"),
    (["--against", "ftp://x"], 64, "http"),
])  # fmt: skip
def test_what_cannot_be_verified_is_explained(words: list[str], status: int, text: str, tmp_path: Path) -> None:
    """In one line, with the status of its kind."""
    ran = ntpaudit("evidence", "verify", *words, state=tmp_path)
    assert ran.status == status
    assert text in ran.err


def test_a_history_of_an_older_version_has_no_chain(copy: Path) -> None:
    """It gets one when an agent opens it."""
    change_all = "DROP TABLE accounts; DROP TABLE notes; DROP TABLE chain; DROP TABLE segments; PRAGMA user_version=4"
    with closing(sqlite3.connect(copy)) as connection:
        connection.executescript(change_all)
    ran = ntpaudit("evidence", "verify", "--history", str(copy), state=copy.parent)
    assert ran.status == 3
    assert "has no chain" in ran.err
    open_database(str(copy)).close()
    ran = ntpaudit("evidence", "verify", "--history", str(copy), state=copy.parent)
    assert (ran.status, ran.err) == (0, "")


CELLS = st.none() | st.integers(-9, 9) | st.just(1 << 62) | st.floats(allow_nan=False) | st.text() | st.binary()


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_strange_cells_give_no_traceback(data: st.DataObject, original: Path, tmp_path: Path) -> None:
    """Whatever stands in a table, it is read, and what an entry covers is found."""
    copy = copied(original, tmp_path / "strange")
    with closing(sqlite3.connect(copy)) as connection, connection:
        table = data.draw(st.sampled_from(["audits", "events", "notes", "chain", "segments"]))
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        column = data.draw(st.sampled_from(columns))
        value = data.draw(CELLS)
        row = data.draw(st.integers(1, 3))
        with suppress(sqlite3.IntegrityError):
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
    verify(str(copy))
    copy.unlink()


def test_an_account_that_begins_at_no_time_is_named(copy: Path) -> None:
    """A text in place of its begin, as no agent writes it."""
    change(copy, "INSERT INTO accounts VALUES (3600, 'x', '{}')")
    ran = ntpaudit("evidence", "verify", "--history", str(copy), state=copy.parent)
    assert (ran.status, ran.err) == (2, "")
    assert "'x'" in ran.out


@pytest.mark.parametrize("ahead_s", [0, 3600])
def test_a_clock_that_was_ahead_fits_after_retention(ahead_s: int, copy: Path) -> None:
    """Its rows are kept longer than later ones, and that is no alteration."""
    change(copy, f"UPDATE audits SET host_ns = host_ns + {ahead_s} * 1000000000 WHERE id <= 60")
    rewrite(copy)
    with closing(open_database(str(copy))) as connection:
        (utc_ns,) = connection.execute("SELECT utc_ns FROM audits WHERE id = 90").fetchone()
        with transaction(connection):
            retention.prune_by_age(connection, utc_ns + 86_400 * S, 86_400.0, 3e7, 3e7)
        kept = {row for (row,) in connection.execute("SELECT id FROM audits WHERE id < 90")}
    assert bool(kept) is (ahead_s > 0)
    assert [check.text for check in verify(str(copy)) if not check.fits] == []

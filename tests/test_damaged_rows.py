"""Rows that no ntpaudit wrote: kept apart, reported, survived, wherever they are (F.43)."""

import json
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ntpaudit.cli import cli
from ntpaudit.core.accounting import Spans
from ntpaudit.core.accounts import DAY, Account
from ntpaudit.core.excursions import Excursion
from ntpaudit.core.observation import Observation
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.store.compression import pack_text, unpack_text
from ntpaudit.store.database import open_database, open_memory
from ntpaudit.store.outbox import OutboxEntry, enqueue
from ntpaudit.store.paths import FILE_NAME
from ntpaudit.store.saved_state import save_state
from ntpaudit.store.serialization import plain, to_json
from tests.command import ntpaudit
from tests.histories import clocks, later, observe, write
from tests.test_status import recent
from tests.world.played import PlayedAgent, PlayedHost

MINUTES = 33
DELIVERS = '[influxdb]\nurl = "http://127.0.0.1:9"\n'
COMMANDS = ("status", "status --format json", "history", "history --format csv", "history --format json",
            "history --hourly", "history --daily", "history --daily --format csv", "history --excursions",
            "history --events", "history --plot --since 2h")  # fmt: skip
STRANGE = (None, "x", "", b"\x00\xff", -1, 9, 10**18, 1.5, "{}", "[]", "null", '{"severity": null}', "[" * 2000)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history of this boot with rows in every table."""
    file = tmp_path_factory.mktemp("sound") / "state" / FILE_NAME
    write(file, recent(200.0, answers=lambda minute: minute < 5 or minute > 20), range(MINUTES))
    audit(file)
    connection = open_database(str(file))
    enqueue(connection, OutboxEntry(0, "ntpaudit_clock,host=a x=1i", None, "another", 1, 1), None)
    connection.execute("INSERT INTO servers VALUES ('192.0.2.1 123', '{}')")
    save_state(connection, "agent", {"pid": 1})
    hour_s = time.time_ns() // NS_PER_S // HOUR_S * HOUR_S - HOUR_S
    excursion = Excursion("beyond", hour_s, hour_s + 60, False)
    for length_s, begin_s in ((HOUR_S, hour_s), (DAY, hour_s // DAY * DAY - DAY)):
        account = Account(begin_s, length_s, Spans(absent=length_s), excursions=(excursion,), rows=(1, 2))
        account = account if length_s == HOUR_S else account._replace(excursions=())
        packed = pack_text(to_json(plain(account)))
        connection.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", (length_s, begin_s, packed))
    connection.close()
    return file


def audit(file: Path) -> None:
    """Let an agent begin on that history, and poll once."""
    runtime = PlayedHost()
    runtime.turn(NOW.taken, NOW)
    agent = PlayedAgent(file.parent.parent, runtime, DELIVERS)
    agent.begin()
    agent.network(NOW)
    agent.close()


def _now(minute: int = MINUTES) -> Observation:
    world = recent(200.0)
    return observe(world, minute, later(clocks(world, minute), NS_PER_S), asks=True)


NOW = _now()


def columns() -> list[tuple[str, str]]:
    """Return every column of every table."""
    connection = open_memory()
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    found = [
        (table, row[1])
        for table in tables
        if not table.startswith("sqlite_")
        for row in connection.execute(f"PRAGMA table_info({table})")
        if row[1] not in ("id", "hour_s")
    ]
    connection.close()
    return found


@pytest.fixture
def own(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder that commands read, for a copy of the history."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / FILE_NAME


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(columns()), st.sampled_from(STRANGE), st.booleans())
@example(("audits", "record"), '{"severity": null}', True)
@example(("audits", "utc_ns"), "x", True)
@example(("audits", "earliest_ns"), 10**18, True)
@example(("events", "severity"), 9, True)
@example(("rollups", "severity"), 9, True)
@example(("segments", "day_s"), "x", True)
@example(("accounts", "begin_s"), 10**18, True)
@example(("accounts", "account"), "{}", True)
def test_no_row_ends_a_command_or_the_agent(
    sound: Path, own: Path, column: tuple[str, str], value: object, everywhere: bool
) -> None:
    """Whatever stands in whichever column, in the last row or in all: no command ends in a traceback, and no agent."""
    for part in own.parent.iterdir():
        part.unlink()
    shutil.copy(sound, own)
    table, name = column
    with closing(sqlite3.connect(own)) as connection, connection:
        last = (
            ""
            if everywhere or table in ("accounts", "servers", "state")
            else f" WHERE rowid = (SELECT MAX(rowid) FROM {table})"
        )
        try:
            connection.execute(f"UPDATE {table} SET {name} = ?{last}", (value,))
        except sqlite3.IntegrityError:
            return  # SQLite itself keeps such a value out
    for words in COMMANDS:
        ran = CliRunner().invoke(cli, words.split(), catch_exceptions=False)
        assert ran.exit_code in range(4), (words, ran.output)
    runtime = PlayedHost()
    runtime.turn(NOW.taken, NOW)
    agent = PlayedAgent(own.parent.parent, runtime, DELIVERS)
    agent.begin()
    assert agent.network(NOW).verdict == "within"
    runtime.turn(_now(MINUTES + 1).taken, NOW)
    agent.local()
    assert agent.state.pruned_ns is not None
    agent.close()


def test_a_damaged_row_is_set_aside_and_reported(tmp_path: Path) -> None:
    """The agent names it when it begins; `history` counts it beside what it shows; the others are all there."""
    file = tmp_path / "state" / FILE_NAME
    write(file, recent(200.0), range(MINUTES))
    audit(file)
    with closing(sqlite3.connect(file)) as connection, connection:
        audit_id, text = connection.execute(
            "SELECT id, record FROM audits WHERE kind = 'network' ORDER BY id DESC LIMIT 1"
        ).fetchone()
        altered = json.dumps(json.loads(unpack_text(text)) | {"severity": None})
        connection.execute("UPDATE audits SET record = ? WHERE id = ?", (altered, audit_id))
    config = tmp_path / "ntpaudit.toml"
    config.write_text('[sources]\nservers = ["127.0.0.1:9"]\n')
    once = ntpaudit("agent", "--once", "--config", str(config), state=tmp_path)
    assert "Traceback" not in once.err
    assert f"the history has 1 damaged audit, kept but not used: {audit_id}" in once.err
    shown = ntpaudit("history", "--format", "csv", "--limit", "100", state=tmp_path)
    assert f"not shown, because they are damaged: 1 audit of {file}" in shown.err
    assert len(shown.out.splitlines()) == 1 + MINUTES + 1  # the header, all but one, and that of the agent

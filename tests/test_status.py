"""`ntpaudit status` as a user runs it, on histories as an agent keeps them."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ntpaudit.cli.state import this_moment
from ntpaudit.core.drift import Breach, Drift
from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.core.policy import Severity
from ntpaudit.core.politeness import Moment
from ntpaudit.core.record import Health, Record
from ntpaudit.core.standing import AgentState, judge_standing
from ntpaudit.sinks.standing import FORMATS, REMEDY, render, render_absence, sentence
from ntpaudit.store.database import open_database
from ntpaudit.store.history import save_state
from ntpaudit.store.location import FILE_NAME
from ntpaudit.store.packing import unpack_text
from tests.command import Ran, ntpaudit
from tests.histories import MINUTE_NS, World, write
from tests.records import CASES
from tests.world.island import island
from tests.world.packages import REPOSITORY

MINUTES = 33


def recent(ago_s: float = 20.0, **changes: Any) -> World:
    """Return a world of this very boot, or another, whose last look was so long ago."""
    now = this_moment()
    since_ns = (MINUTES - 1) * MINUTE_NS + NS_PER_S + round(ago_s * NS_PER_S)
    begin = {
        "begin_ns": now.realtime_ns - since_ns,
        "uptime_ns": now.boottime_ns - since_ns,
        "boot_id": now.boot_id,
    }
    return World(**(begin | changes))


def keep(folder: Path, world: World, **state: Any) -> list[Record]:
    """Keep a history in the state folder that a test's command reads."""
    file = folder / "state" / FILE_NAME
    records = write(file, world, range(MINUTES))
    if state:
        connection = open_database(str(file), print)
        save_state(connection, "agent", state)
        connection.close()
    return records


def status(*words: str, state: Path, **environment: str) -> Ran:
    """Run `ntpaudit status`."""
    return ntpaudit("status", *words, state=state, environment=environment)


def said(ran: Ran | str) -> str:
    """Return an output without its line breaks."""
    return " ".join((ran if isinstance(ran, str) else ran.out).split())


def test_what_an_agent_concluded_last(tmp_path: Path) -> None:
    """The text begins with severity and headline, then ages, servers, and how the agent fares; status as check."""
    now = this_moment()
    keep(
        tmp_path,
        recent(),
        pid=812, boot_id=now.boot_id, started_boottime_ns=now.boottime_ns - 7200 * NS_PER_S, local_s=60.0,
    )  # fmt: skip
    ran = status(state=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    blocks = ran.out.split("\n\n")
    assert re.match(
        r"OK  clock is [0-9.]+ ms behind, never more than [0-9.]+ ms wrong "
        r"\(measured 2 min ago, 4 of 4 servers agreed\)",
        " ".join(blocks[0].split(" ", 1)[0:1]) + "  " + " ".join(blocks[0].split()[1:]),
    )
    assert re.match(
        r"audited   2[0-9] s ago, at [0-9-]{10} [0-9:]{8} UTC\nasked     the servers 2.[0-9]+ min ago", blocks[1]
    )
    assert blocks[2].splitlines()[1].startswith("ntp1.example.net  192.0.1.1  agreeing")
    assert re.search(r"^drift +as corrected now it (gets|falls) .* a day, give or take", blocks[3], re.MULTILINE)
    assert "if synchronisation stopped now" in blocks[3]
    assert re.search(r"^agent +ntpaudit 0.1.0, pid 812, for 2 h; looks every 60 s", blocks[3], re.MULTILINE)
    assert "nothing waited to be delivered when it was recorded" in blocks[3]
    assert max(map(len, ran.out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("world", "status_word"),
    [
        ({"stepped_s": lambda minute: 7.0}, (2, "CRITICAL")),
        ({"offset_s": lambda minute: 0.2}, (1, "WARNING")),
        ({"answers": lambda minute: False}, (3, "UNKNOWN")),
    ],
)
def test_the_exit_status_is_the_last_records_severity(
    world: dict[str, Any], status_word: tuple[int, str], tmp_path: Path
) -> None:
    """As `check`: 0 ok, 1 warning, 2 critical, 3 unknown, once the agent is sure of it."""
    records = keep(tmp_path, recent(**world))
    for format_name in ("text", "nagios", "json"):
        ran = status("--format", format_name, state=tmp_path)
        assert ran.status == status_word[0] == records[-1].severity.exit_status
        assert (
            (json.loads(ran.out)["record"]["severity"] if format_name == "json" else ran.out)
            .upper()
            .count(status_word[1])
        )


def test_findings_come_with_their_remedies(tmp_path: Path) -> None:
    """What is wrong is told with how to mend it."""
    keep(tmp_path, recent(answers=lambda minute: minute < 5))
    ran = status(state=tmp_path)
    assert ran.status == 1
    assert "evidence-gap" in ran.out
    assert "fix: restore the way to the servers" in said(ran)
    assert "ntp1.example.net" in ran.out
    assert "timeout" in ran.out


def test_an_old_record_is_unknown_and_says_why(tmp_path: Path) -> None:
    """More than three local intervals and 10 s: 3, whatever it said, with its last word and what to do."""
    keep(tmp_path, recent(250.0, stepped_s=lambda minute: 7.0), local_s=60.0)
    ran = status(state=tmp_path)
    assert ran.status == 3
    assert said(ran).startswith("UNKNOWN the agent has kept no record for 4.1") or "for 250 s" in said(ran)
    assert "its last word was CRITICAL: clock is at least 6.9" in said(ran)
    assert f"fix: {REMEDY}" in said(ran)
    nagios = status("--format", "nagios", state=tmp_path)
    assert nagios.status == 3
    assert re.fullmatch(r"NTPAUDIT UNKNOWN - the agent has kept no record for [^|]* \| age=25[0-9]s;;;0;\n", nagios.out)
    assert status("--stale", "1h", state=tmp_path).status == 2


@pytest.mark.parametrize(("local_s", "expected"), [(300.0, 0), (20.0, 3), (None, 0)])
def test_stale_follows_the_agents_interval(local_s: float | None, expected: int, tmp_path: Path) -> None:
    """An agent that looks seldom is believed for longer; one that never said how often looks every minute."""
    state = {} if local_s is None else {"local_s": local_s}
    keep(tmp_path, recent(150.0), **state)
    assert status(state=tmp_path).status == expected


def test_a_stepped_clock_makes_no_record_older_or_younger(tmp_path: Path) -> None:
    """Within a boot the age is told by uptime: here the host's clock was a day ahead when the record was made."""
    keep(tmp_path, recent(20.0, stepped_s=lambda minute: -86_400.0))
    data = json.loads(status("--format", "json", state=tmp_path).out)
    assert data["stale"] is False
    assert 20 <= data["age_s"] < 80


def test_a_record_of_another_boot_is_at_least_as_old_as_this_one_has_lasted(tmp_path: Path) -> None:
    """A record that the clock says is of the future is not young: the host has been up since."""
    now = this_moment()
    keep(tmp_path, recent(boot_id="another", begin_ns=now.realtime_ns + 86_400 * NS_PER_S))
    data = json.loads(status("--format", "json", "--stale", "100y", state=tmp_path).out)
    assert abs(data["age_s"] - this_moment().boottime_ns / NS_PER_S) < 60


def test_json_has_the_record_as_stored(tmp_path: Path) -> None:
    """The record is the very one of the history, beside it how old and how stale it is, and who wrote it."""
    keep(tmp_path, recent(), pid=812, local_s=30.0, version="0.2.0")
    with sqlite3.connect(tmp_path / "state" / FILE_NAME) as connection:
        [(text,)] = connection.execute("SELECT record FROM audits ORDER BY id DESC LIMIT 1")
    connection.close()
    data = json.loads(status("--format", "json", state=tmp_path).out)
    assert data["record"] == json.loads(unpack_text(text))
    assert data["record"]["kind"] == "local"
    assert (data["stale"], data["stale_after_s"]) == (False, 100.0)
    assert data["asked_age_s"] == pytest.approx(data["age_s"] + 120)
    assert {key: data["agent"][key] for key in ("pid", "local_s", "version")} == {
        "pid": 812, "local_s": 30.0, "version": "0.2.0",
    }  # fmt: skip


def test_nagios_has_the_numbers_and_the_age(tmp_path: Path) -> None:
    """One line: the headline, the performance data of check, and how old they are."""
    keep(tmp_path, recent())
    out = status("--format", "nagios", state=tmp_path).out
    assert re.fullmatch(r"NTPAUDIT OK - [^|\n]* \| offset=-?[0-9.]+s;-0\.1:0\.1;-1:1;;[^|\n]* age=2[0-9]s;;;0;\n", out)


@pytest.mark.parametrize("format_name", FORMATS)
def test_no_agent_is_unknown_and_says_what_to_do(format_name: str, tmp_path: Path) -> None:
    """Where no agent ever kept a record the status is 3 in every format, and its start is named."""
    ran = status("--format", format_name, state=tmp_path)
    assert ran.status == 3
    assert f"no agent has kept a record in {tmp_path}/state/{FILE_NAME}" in said(ran)
    assert "systemctl enable --now ntpaudit" in ran.out
    if format_name == "json":
        assert json.loads(ran.out) | {"reason": ""} == {
            "record": None, "age_s": None, "stale": True, "agent": None, "reason": "",
        }  # fmt: skip


def test_a_one_shot_audit_is_no_agents_word(tmp_path: Path) -> None:
    """What `check --record` kept in the same place is passed over."""
    keep(tmp_path, recent())
    connection = open_database(str(tmp_path / "state" / FILE_NAME), print)
    connection.execute("UPDATE audits SET kind = NULL")
    connection.close()
    assert "no agent has kept a record" in status(state=tmp_path).out


def test_a_record_that_makes_no_sense_is_no_record(tmp_path: Path) -> None:
    """A row that no ntpaudit wrote is no traceback."""
    keep(tmp_path, recent())
    connection = open_database(str(tmp_path / "state" / FILE_NAME), print)
    connection.execute("UPDATE audits SET record = '{}'")
    connection.close()
    assert status(state=tmp_path).status == 3


def test_the_configuration_names_the_history(tmp_path: Path) -> None:
    """`[history] path` is where an agent that has it keeps its records; a broken file ends with 78."""
    keep(tmp_path, recent())
    moved = tmp_path / "elsewhere.sqlite3"
    (tmp_path / "state" / FILE_NAME).rename(moved)
    file = tmp_path / "x.toml"
    file.write_text(f"[history]\npath = '{moved}'\n")
    assert status("--config", str(file), state=tmp_path).status == 0
    file.write_text("[history]\npaht = ''\n")
    broken = status("--config", str(file), state=tmp_path)
    assert broken.status == 78
    assert f"{file}:2: history.paht: unknown, did you mean 'path'?" in broken.err


def test_nothing_is_asked_and_nothing_unneeded_imported(tmp_path: Path) -> None:
    """It works where there is no network at all, and loads neither psutil nor anything that opens a connection."""
    keep(tmp_path, recent())
    with island({}) as land:
        ran = ntpaudit(
            "status", state=tmp_path, inside=land.command,
            environment={"PYTHONPROFILEIMPORTTIME": "1", "COVERAGE_PROCESS_CONFIG": ""},
        )  # fmt: skip
    assert ran.status == 0
    imported = {line.rsplit("|", 1)[1].strip() for line in ran.err.splitlines() if line.startswith("import time:")}
    assert "ntpaudit.store.past" in imported
    assert imported & {"psutil", "urllib3", "influxdb_client", "ntpaudit.survey", "ntpaudit.agent", "asyncio"} == set()


def test_a_reader_that_leaves_and_a_full_output(tmp_path: Path) -> None:
    """`ntpaudit status | true` is quiet; what cannot be written is unknown."""
    keep(tmp_path, recent())
    shell = ["bash", "-c", '"$@" | true', "bash", sys.executable, "-m", "ntpaudit", "status"]
    surroundings = {"STATE_DIRECTORY": str(tmp_path / "state"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(shell, cwd=REPOSITORY, env=surroundings, capture_output=True, text=True, check=False)
    assert done.stderr == ""

    def into_nothing(words: Sequence[str]) -> list[str]:
        return ["sh", "-c", 'exec "$@" >/dev/full', "sh", *words]

    assert ntpaudit("status", state=tmp_path, inside=into_nothing).status == 3


def standing(record: Record, asked: Record | None = None, age_s: float = 5.0) -> str:
    """Tell a record of so long ago as text, on one line."""
    now = Moment(record.host.boot_id, record.boottime_ns + round(age_s * NS_PER_S), record.host_ns)
    return said(render(judge_standing(record, asked, AgentState(), now), "text", {}))


OK = CASES["ok, behind"]
LOCAL = OK._replace(kind="local", sources=(), age_s=120.0)
BREACH = Breach(3600.0, 7200.0, None, 600.0, free_running=False, calibrated=True)
DRIFT = Drift(1.5, 1.5, 0.02, 64, BREACH)


@pytest.mark.parametrize(
    ("drift", "words"),
    [
        (DRIFT, "drift as corrected now it falls 130 ms behind a day, give or take 1.73 ms (+1.500 ppm, 64 samples)"),
        (DRIFT._replace(frequency_ppm=-1.5), "it gets 130 ms ahead a day"),
        (DRIFT._replace(frequency_ppm=None, samples=1), "drift not known yet (1 sample)"),
        (DRIFT, "forecast 1 s wrong in 2 h, in 60 min at the earliest, and for certain not within 10 min"),
        (
            DRIFT._replace(breach=Breach(None, None, None, 19_000.0, free_running=True, calibrated=False)),
            "forecast if synchronisation stopped now, not 1 s wrong within 30 days, and for certain not within 5.27 h; "
            "not yet back-tested",
        ),
        (
            DRIFT._replace(breach=BREACH._replace(central_s=None)),
            "not 1 s wrong within 30 days, but maybe in 60 min,",
        ),
    ],
)
def test_drift_and_forecast_are_told_in_words(drift: Drift, words: str) -> None:
    """F3, F7, F8: which way the clock goes, how sure that is, and when its tolerance is broken."""
    assert words in standing(LOCAL._replace(drift=drift))


def test_no_forecast_of_a_breach_that_has_happened() -> None:
    """A clock that is beyond its tolerance has no time left to tell."""
    assert "forecast" not in standing(CASES["beyond, behind"]._replace(drift=DRIFT))


@pytest.mark.parametrize(
    ("health", "words"),
    [
        (Health(), "delivery nothing waited to be delivered when it was recorded"),
        (Health(backlog=3, oldest_s=720.0), "delivery 3 records waiting, the oldest for 12 min"),
        (
            Health(backlog=1, oldest_s=60.0, failures=2, failure="401 unauthorized"),
            "1 record waiting, the oldest for 60 s; 2 attempts failed since the last good one: 401 unauthorized",
        ),
        (Health(set_aside=1), "1 record refused by the database and set aside"),
        (Health(missed=4), "missed 4 audits of servers came not when due"),
        (Health(store="disk full"), "store disk full"),
    ],
)
def test_how_the_agent_fares_is_told_in_words(health: Health, words: str) -> None:
    """Backlog, failures, what was set aside, what was missed, what is wrong with the state."""
    assert words in standing(LOCAL._replace(health=health))


def test_a_local_record_without_an_offset_says_what_the_servers_said() -> None:
    """A local audit asked nobody: why there is no offset is what the last audit that asked knows."""
    silent = CASES["unmeasured, nobody answered"]
    local = silent._replace(kind="local", sources=(), age_s=None)
    assert standing(local, silent).startswith("UNKNOWN clock was not measured: none of 4 servers answered (timeout)")
    assert "what servers said 5 s ago does not hold any more" in standing(local, OK)
    assert standing(local).startswith("UNKNOWN clock was not measured")
    assert "asked no server yet" in standing(local)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("format_name", FORMATS)
def test_any_record_can_be_told(case: str, format_name: str) -> None:
    """Each outcome is told in each format, fresh and stale, in ASCII and in lines that fit."""
    record = CASES[case]
    for age_s in (1, 10_000):
        now = Moment(record.host.boot_id, record.boottime_ns + age_s * NS_PER_S, record.host_ns)
        told = judge_standing(record, record, AgentState(), now)
        text = render(told, format_name, record.to_dict())
        assert text.isascii()
        assert text.endswith("\n")
        assert (told.severity == Severity.UNKNOWN) or age_s == 1
        if format_name == "text":
            assert max(map(len, text.splitlines())) <= 100
            assert said(text).startswith(f"{told.severity.name} {sentence(told)}"[:40])
        else:
            assert len(text.splitlines()) == 1


def test_colours_move_nothing() -> None:
    """Coloured or not, the text is the same."""
    told = judge_standing(OK, OK, AgentState(), Moment(OK.host.boot_id, OK.boottime_ns, OK.host_ns))
    coloured = render(told, "text", {}, colour=True)
    assert "\x1b[32mOK\x1b[0m" in coloured
    assert re.sub("\x1b\\[[0-9]+m", "", coloured) == render(told, "text", {})
    assert re.sub("\x1b\\[[0-9]+m", "", render_absence("a; b", "text", colour=True)) == render_absence("a; b", "text")


def test_help(tmp_path: Path) -> None:
    """Help has examples and exit statuses; an unknown format is a usage error."""
    ran = status("--help", state=tmp_path)
    assert "Examples:" in ran.out
    assert "Exit status:" in ran.out
    assert status("--format", "influx", state=tmp_path).status == 64
    assert status("--stale", "soon", state=tmp_path).status == 64

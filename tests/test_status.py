"""`ntpaudit status` as a user runs it, on histories as an agent keeps them."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ntpaudit.cli.state import this_host
from ntpaudit.core.clock.drift import Breach, Drift
from ntpaudit.core.ntp.rate_limit import Instant, ServerState
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Health, Record
from ntpaudit.core.staleness import HostNow, RunningAgent, agent_status
from ntpaudit.core.units import NS_PER_S
from ntpaudit.probes import service
from ntpaudit.reports.status import FORMATS, render, render_absence, sentence
from ntpaudit.store.compression import unpack_text
from ntpaudit.store.database import open_database
from ntpaudit.store.lock import AgentLock, agent_vouches
from ntpaudit.store.outbox import OutboxEntry, enqueue
from ntpaudit.store.paths import FILE_NAME
from ntpaudit.store.queries import open_history
from ntpaudit.store.saved_state import save_server_states, save_state
from tests.command import Ran, ntpaudit
from tests.histories import MINUTE_NS, World, write
from tests.records import CASES
from tests.world.island import island
from tests.world.packages import REPOSITORY

MINUTES = 33


def recent(ago_s: float = 20.0, **changes: Any) -> World:
    """Return a world of this very boot, or another, whose last reading is this old."""
    here = this_host()
    now = here.moment
    since_ns = (MINUTES - 1) * MINUTE_NS + NS_PER_S + round(ago_s * NS_PER_S)
    begin = {
        "begin_ns": now.realtime_ns - since_ns,
        "uptime_ns": now.boottime_ns - since_ns,
        "boot_id": now.boot_id,
        "machine_id": here.machine_id,
    }
    return World(**(begin | changes))


def keep(folder: Path, world: World, **state: Any) -> list[Record]:
    """Keep a history in the state folder that a test's command reads."""
    file = folder / "state" / FILE_NAME
    records = write(file, world, range(MINUTES))
    if state:
        connection = open_database(str(file))
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
    """The text begins with severity and summary, then ages, servers, and the state of the agent; status as check."""
    now = this_host().moment
    keep(
        tmp_path,
        recent(),
        pid=812, boot_id=now.boot_id, started_boottime_ns=now.boottime_ns - 7200 * NS_PER_S, local_s=60.0,
        delivers=True,
    )  # fmt: skip
    ran = status(state=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    blocks = ran.out.split("\n\n")
    assert re.match(
        r"OK  clock is [0-9.]+ ms behind, at most [0-9.]+ ms wrong if at most 1 of 4 servers is wrong "
        r"\(measured 2 min before this record, 4 of 4 servers agreed\)",
        " ".join(blocks[0].split(" ", 1)[0:1]) + "  " + " ".join(blocks[0].split()[1:]),
    )
    assert re.match(
        r"recorded  [2-9][0-9] s ago, at [0-9-]{10} [0-9:]{8} UTC; all values below are from that time\n"
        r"polled    2 min earlier; last results:$",
        blocks[1],
    )
    assert blocks[2].splitlines()[1].startswith("ntp1.example.net  192.0.1.1  agreeing")
    assert re.search(
        r"drift with its present correction the clock (gains|loses).* per day \(.* ppm, fit", said(blocks[3])
    )
    assert "if synchronisation stopped now" in blocks[3]
    assert re.search(
        r"^agent +ntpaudit 0.1.0, not running now; local audits every 60 s",
        blocks[3],
        re.MULTILINE,
    )
    assert "delivery  up to date" in blocks[3]
    assert max(map(len, ran.out.splitlines())) <= 100


def test_a_running_agent_is_shown_with_its_process(tmp_path: Path) -> None:
    """Its pid, and how long it had run at its last record; an agent that has ended is not running."""
    now = this_host().moment
    started_ns = now.boottime_ns - 3600 * NS_PER_S
    keep(tmp_path, recent(), pid=812, boot_id=now.boot_id, started_boottime_ns=started_ns)
    lock = AgentLock(str(tmp_path / "state"))
    lock.mark_as_current()
    assert re.search(
        r"ntpaudit 0.1.0, pid 812, running for (59\.[0-9]|60) min; local audits", said(status(state=tmp_path))
    )
    lock.release()
    assert "ntpaudit 0.1.0, not running now; local audits" in said(status(state=tmp_path))


def test_what_an_ended_agent_has_not_delivered_is_shown(tmp_path: Path) -> None:
    """The record says what waited when it was made; what waits for ever since the agent ended is in the outbox."""
    keep(tmp_path, recent())
    now = this_host().moment
    entry = OutboxEntry(0, "ntpaudit_clock x=1i", now.realtime_ns - 120 * NS_PER_S, now.boot_id, now.boottime_ns, 1)
    with closing(open_database(str(tmp_path / "state" / FILE_NAME))) as connection:
        enqueue(connection, entry, None)
    assert re.search(r"delivery 1 record waiting, the oldest for 2(\.\d+)? min", said(status(state=tmp_path)))


def test_a_state_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """To start an agent helps only where one can store its records."""
    (tmp_path / "state").write_text("a file")
    ran = status(state=tmp_path)
    assert ran.status == 3
    assert f"{tmp_path}/state is not a folder" in said(ran).replace(" /", "/").replace("read:/", "read: /")
    assert "start one" not in ran.out


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
    """A finding is shown with its fix."""
    keep(tmp_path, recent(answers=lambda minute: minute < 5))
    ran = status(state=tmp_path)
    assert ran.status == 1
    assert "evidence-gap" in ran.out
    assert "fix: restore the path to the servers" in said(ran)
    assert "ntp1.example.net" in ran.out
    assert "timeout" in ran.out


def test_an_old_record_is_unknown_and_says_why(tmp_path: Path) -> None:
    """More than three local intervals and 10 s: 3, whatever it said, with its last word and what to do."""
    last = keep(tmp_path, recent(250.0, stepped_s=lambda minute: 7.0), local_s=60.0)[-1]
    ran = status(state=tmp_path)
    assert ran.status == 3
    assert re.match(r"UNKNOWN the agent has stored no record for (4\.\d+ min|2\d\d s)", said(ran))
    assert f"last status {last.severity.name}: " in said(ran)
    assert "clock is at least 6.9" in said(ran)
    assert f"fix: check the agent: {service.examine()}" in said(ran)
    nagios = status("--format", "nagios", state=tmp_path)
    assert nagios.status == 3
    assert re.fullmatch(r"NTPAUDIT UNKNOWN - the agent has stored no record for [^|]* \| age=2\d\ds;;;0;\n", nagios.out)
    assert status("--stale", "1h", state=tmp_path).status == last.severity.exit_status


@pytest.mark.parametrize(("local_s", "expected"), [(300.0, 0), (20.0, 3), (None, 0)])
def test_stale_follows_the_agents_interval(local_s: float | None, expected: int, tmp_path: Path) -> None:
    """An agent that looks seldom is believed for longer; one that never said how often looks every minute."""
    state = {} if local_s is None else {"local_s": local_s}
    keep(tmp_path, recent(150.0), **state)
    assert status(state=tmp_path).status == expected


def test_a_stepped_clock_makes_no_record_older_or_younger(tmp_path: Path) -> None:
    """Within a boot the age is measured by uptime: here the host's clock was a day ahead when the record was made."""
    keep(tmp_path, recent(20.0, stepped_s=lambda minute: -86_400.0))
    data = json.loads(status("--format", "json", state=tmp_path).out)
    assert data["stale"] is False
    assert 20 <= data["age_s"] < 80


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"boot_id": "another"}, "the last record is of another boot"),
        ({"boot_id": None}, "there is no boot id"),
        ({"machine_id": "5" * 32}, "the last record is of another machine (id 55555555..."),
    ],
)
def test_a_record_of_another_clock_is_unknown(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """After a reboot with a dead battery, and in a copied state folder, the last OK is young and says nothing."""
    keep(tmp_path, recent(**changes))
    for format_name in FORMATS:
        ran = status("--format", format_name, "--stale", "100y", state=tmp_path)
        assert ran.status == 3
        assert reason in said(ran)
    assert f"fix: start the agent, its next record replaces this one: {service.restart()}" in said(
        status(state=tmp_path)
    )
    data = json.loads(status("--format", "json", state=tmp_path).out)
    assert (data["stale"], data["record"]["severity"]) == (True, "ok")


def test_a_record_of_the_future_is_unknown(tmp_path: Path) -> None:
    """A negative age is no youth: such a record is of another time namespace, or was altered."""
    keep(tmp_path, recent(-3600.0))
    ran = status(state=tmp_path)
    assert ran.status == 3
    assert re.match(r"UNKNOWN the last record is (59\.\d|60) min ahead of this host's uptime", said(ran))


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
    reason = f"no agent has stored a record in {tmp_path}/state/{FILE_NAME}"
    assert "".join(reason.split()) in "".join(ran.out.split())  # a long path is broken at the width of the terminal
    assert f"start one: {service.start()}" in said(ran)
    if format_name == "json":
        assert json.loads(ran.out) | {"reason": ""} == {
            "record": None, "age_s": None, "stale": True, "agent": None, "reason": "",
        }  # fmt: skip


@contextmanager
def held(folder: Path, *, is_known: bool = True) -> Iterator[None]:
    """Hold the state folder as an agent that runs does; one that has just begun has not said yet who it is."""
    claim = AgentLock(str(folder / "state"))
    if is_known:
        claim.mark_as_current()
    yield
    claim.release()


def begun(folder: Path, *, up_s: float = 2.0, poll_s: float = 8.0) -> None:
    """Leave behind what an agent does that has just begun."""
    now = this_host().moment
    connection = open_database(str(folder / "state" / FILE_NAME))
    state = {
        "pid": 812,
        "boot_id": now.boot_id,
        "started_boottime_ns": now.boottime_ns - round(up_s * NS_PER_S),
        "next_poll_boottime_ns": now.boottime_ns + round(poll_s * NS_PER_S),
    }
    save_state(connection, "agent", state)
    connection.close()


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_agent_that_has_just_begun(format_name: str, tmp_path: Path) -> None:
    """It runs, and until when it waits for its first measurement; started once more it would not be sooner."""
    begun(tmp_path)
    with held(tmp_path):
        ran = status("--format", format_name, state=tmp_path)
    assert ran.status == 3
    waits = r"the agent started \d+ s ago and waits for its first measurement \(due within \d+ s\)"
    assert re.search(waits, said(ran))
    assert "start one" not in ran.out
    if format_name == "json":
        assert json.loads(ran.out)["agent"]["pid"] == 812
    assert f"start one: {service.start()}" in said(status("--format", format_name, state=tmp_path))


def test_an_agent_that_is_late_with_its_first_record(tmp_path: Path) -> None:
    """What was due long ago is no reason to wait on."""
    begun(tmp_path, up_s=3600.0, poll_s=-3590.0)
    with held(tmp_path):
        shown = said(status(state=tmp_path))
    assert re.search(r"the agent started 60 min ago and has stored no record \(due (59\.\d|60) min ago\)", shown)
    assert f"fix: check the agent: {service.examine()}" in shown


def test_an_agent_that_has_begun_since_another_boot(tmp_path: Path) -> None:
    """The record of the boot before says nothing; the agent that will replace it runs already."""
    keep(tmp_path, recent(boot_id="another"))
    begun(tmp_path)
    with held(tmp_path):
        shown = said(status(state=tmp_path))
    assert shown.startswith("UNKNOWN the last record is of another boot")
    assert re.search(r"fix: the agent started \d+ s ago and waits for its first measurement \(due within", shown)


@pytest.mark.parametrize("boot_id", ["another", None])
def test_an_agent_that_starts_does_not_vouch_for_the_boot_before(boot_id: str | None, tmp_path: Path) -> None:
    """It holds the folder, and the state is that of the agent of another boot: its last OK looks 20 s old."""
    now = this_host().moment
    keep(
        tmp_path, recent(boot_id=boot_id), pid=812, boot_id=boot_id,
        started_boottime_ns=now.boottime_ns - 7200 * NS_PER_S, next_poll_boottime_ns=now.boottime_ns + 30 * NS_PER_S,
    )  # fmt: skip
    with held(tmp_path, is_known=False):
        ran = status(state=tmp_path)
    assert (ran.status, ran.out[:7]) == (3, "UNKNOWN")
    assert "the agent started" not in said(ran)
    with held(tmp_path):  # an agent whose sandbox shows it that boot id, or that sees none, knows better
        assert status(state=tmp_path).status == 0


def test_status_is_right_at_every_moment_of_a_start(tmp_path: Path) -> None:
    """A real agent starts after a boot, and `status` is asked all the time: a record is believed if it is its own."""
    now, file = this_host().moment, str(tmp_path / "state" / FILE_NAME)
    keep(tmp_path, recent(boot_id="another"), boot_id="another", started_boottime_ns=now.boottime_ns - 7200 * NS_PER_S)
    config = tmp_path / "ntpaudit.toml"
    config.write_text('[sources]\nservers = ["127.0.0.1:9"]\n[schedule]\nnetwork = "15s"\nlocal = "1s"\n')
    command = [sys.executable, "-m", "ntpaudit", "agent", "--config", str(config)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "STATE_DIRECTORY": os.path.dirname(file)}
    boots: list[str | None] = []
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, env=environment, stderr=log) as agent:
        try:
            while boots[-1:] != [now.boot_id]:
                assert agent.poll() is None, (tmp_path / "log").read_text()
                runs = agent_vouches(file)
                with open_history(file) as history:
                    found = history.status(lambda runs=runs: this_host(runs))  # type: ignore[misc]
                assert found is not None
                standing, _ = found
                boots.append(standing.record.host.boot_id)
                assert (standing.doubt is None) == (boots[-1] == now.boot_id)
                assert standing.wait is None or 0 <= standing.wait.up_s < 600
        finally:
            agent.terminate()
    assert boots[0] == "another"


def test_an_agent_that_keeps_nothing(tmp_path: Path) -> None:
    """Where an agent runs and has no file, it needs no start."""
    (tmp_path / "state").mkdir()
    with held(tmp_path):
        shown = said(status(state=tmp_path))
    assert "an agent runs but has stored nothing in" in shown
    assert "start one" not in shown


def test_an_agent_that_may_not_poll_yet(tmp_path: Path) -> None:
    """A pool that was queried lately is left alone: until when, the screen says."""
    keep(tmp_path, recent(answers=lambda minute: False))
    begun(tmp_path, poll_s=240.0)
    with held(tmp_path):
        assert re.search(r"next poll within (4|3\.9\d*) min from now", said(status(state=tmp_path)))


def test_when_the_servers_are_queried_next(tmp_path: Path) -> None:
    """The next query if all servers wait longer than until the next poll, because they did not reply; else the poll."""
    records = keep(tmp_path, recent(answers=lambda minute: False))
    begun(tmp_path, poll_s=43.0)
    sources = next(one.sources for one in reversed(records) if one.sources)
    silent = ServerState(queried_at=this_host().moment, consecutive_timeouts=4)  # 15 s, doubled four times
    for queried, wanted in (
        (silent, r"^no server is queried for (4|3\.9\d*) min from now, because none"),
        (ServerState(), r"^within (3[3-9]|4\d) s from now$"),
    ):
        connection = open_database(str(tmp_path / "state" / FILE_NAME))
        save_server_states(connection, {f"{one.address} {one.port}": queried for one in sources})
        connection.close()
        with held(tmp_path):
            (line,) = re.findall(r"next poll (.*?) delivery", said(status(state=tmp_path)))
        assert re.search(wanted, line)


def test_a_finding_that_is_not_over_yet_contradicts_no_table(tmp_path: Path) -> None:
    """Servers that answer again stand beside a finding that holds until three samples say so: it says that too."""
    keep(tmp_path, recent(answers=lambda minute: minute >= 30))
    shown = said(status(state=tmp_path))
    assert "ntp1.example.net 192.0.1.1 agreeing" in shown
    assert re.search(r"unreachable-sources: 4 of 4 .*?\. Improving: cleared after 3 samples in a row", shown)


def test_a_one_shot_audit_is_no_agents_word(tmp_path: Path) -> None:
    """What `check --record` kept in the same place is passed over."""
    keep(tmp_path, recent())
    connection = open_database(str(tmp_path / "state" / FILE_NAME))
    connection.execute("UPDATE audits SET kind = NULL")
    connection.close()
    assert "no agent has stored a record" in status(state=tmp_path).out


@pytest.mark.parametrize(
    "text", ["{}", "null", "[1]", '{"severity": null}', "\\x00", '{"schema": "ntpaudit.record/1"}']
)
def test_a_damaged_record_is_unknown_and_named(text: str, tmp_path: Path) -> None:
    """A row that no ntpaudit wrote is no traceback, and no older record speaks in its place."""
    keep(tmp_path, recent())
    connection = open_database(str(tmp_path / "state" / FILE_NAME))
    connection.execute("UPDATE audits SET record = ? WHERE id = (SELECT MAX(id) FROM audits)", (text,))
    connection.close()
    for format_name in FORMATS:
        ran = status("--format", format_name, state=tmp_path)
        assert ran.status == 3
        assert f"the last record (audit {MINUTES}) is damaged, so nothing is known of the clock" in said(ran)


def test_a_damaged_poll_is_passed_over(tmp_path: Path) -> None:
    """Sources are shown as of the latest audit whose record can be read."""
    keep(tmp_path, recent())
    connection = open_database(str(tmp_path / "state" / FILE_NAME))
    last = "(SELECT MAX(id) FROM audits WHERE kind = 'network')"
    connection.execute(f"UPDATE audits SET record = '{{}}' WHERE id = {last}")
    connection.close()
    ran = status(state=tmp_path)
    assert ran.status == 0
    assert "polled 7 min earlier; last results:" in said(ran)


def test_sources_are_those_of_an_audit_that_polled_them(tmp_path: Path) -> None:
    """Where the latest audits found no source that may be queried, their list is no reply: an earlier one has those."""
    keep(tmp_path, recent())
    connection = open_database(str(tmp_path / "state" / FILE_NAME))
    audit_id, value = connection.execute(
        "SELECT id, record FROM audits WHERE kind = 'network' ORDER BY id DESC LIMIT 1"
    ).fetchone()
    resting = json.loads(unpack_text(value))
    resting["sources"] = [source | {"status": "skipped", "reason": "interval"} for source in resting["sources"]]
    connection.execute("UPDATE audits SET record = ? WHERE id = ?", (json.dumps(resting), audit_id))
    ran = status(state=tmp_path)
    assert "polled 7 min earlier; last results:" in said(ran)
    assert "skipped" not in ran.out
    connection.execute("UPDATE audits SET record = ? WHERE kind = 'network'", (json.dumps(resting),))
    connection.close()
    assert "polled no server: all were skipped" in said(status(state=tmp_path))


def test_all_of_it_refers_to_one_moment(tmp_path: Path) -> None:
    """The only age that grows is that of the record: read a little later, all other lines are the same."""
    now = this_host().moment
    keep(
        tmp_path,
        recent(20.0),
        pid=812, boot_id=now.boot_id, started_boottime_ns=now.boottime_ns - 7200 * NS_PER_S,
    )  # fmt: skip
    first, second = (
        [line for line in status("--stale", "1h", state=tmp_path).out.splitlines() if not line.startswith("recorded")]
        for _ in range(2)
    )
    assert first == second
    shown = agent_status(LOCAL, OK, RunningAgent(), after(LOCAL, 3000.0), 1e9)
    late = agent_status(LOCAL, OK, RunningAgent(), after(LOCAL, 9000.0), 1e9)
    lines = zip(*(render(one, "text", {}).splitlines() for one in (shown, late)), strict=True)
    assert [one.split()[0] for one, other in lines if one != other] == ["recorded"]


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
    """It works where there is no network at all, and loads nothing that opens a connection."""
    keep(tmp_path, recent())
    with island({}) as land:
        ran = ntpaudit(
            "status", state=tmp_path, inside=land.command,
            environment={"PYTHONPROFILEIMPORTTIME": "1", "COVERAGE_PROCESS_CONFIG": ""},
        )  # fmt: skip
    assert ran.status == 0
    imported = {line.rsplit("|", 1)[1].strip() for line in ran.err.splitlines() if line.startswith("import time:")}
    assert "ntpaudit.store.queries" in imported
    assert imported & {"psutil", "urllib3", "influxdb_client", "ntpaudit.polling", "ntpaudit.agent", "asyncio"} == set()


def test_a_reader_that_leaves_and_a_full_output(tmp_path: Path) -> None:
    """`ntpaudit status | true` is quiet; what cannot be written is unknown."""
    keep(tmp_path, recent())
    shell = ["bash", "-c", '"$@" | true', "bash", sys.executable, "-m", "ntpaudit", "status"]
    variables = {"STATE_DIRECTORY": str(tmp_path / "state"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(shell, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False)
    assert done.stderr == ""

    def into_nothing(words: Sequence[str]) -> list[str]:
        return ["sh", "-c", 'exec "$@" >/dev/full', "sh", *words]

    assert ntpaudit("status", state=tmp_path, inside=into_nothing).status == 3


def standing(record: Record, asked: Record | None = None, age_s: float = 5.0) -> str:
    """Show a record of this age as text, on one line."""
    return said(render(agent_status(record, asked, RunningAgent(delivers=True), after(record, age_s)), "text", {}))


def after(record: Record, age_s: float) -> HostNow:
    """Return the host of a record this much later."""
    return HostNow(Instant(record.host.boot_id, record.boottime_ns + round(age_s * NS_PER_S), record.host_ns))


OK = CASES["ok, behind"]
LOCAL = OK._replace(kind="local", sources=(), age_s=120.0)
BREACH = Breach(3600.0, 7200.0, None, 600.0, free_running=False, calibrated=True)
DRIFT = Drift(1.5, 1.5, 0.02, 64, BREACH, 18_900.0)
VAGUE = Drift(2.62, 2.62, 710.0, 3, BREACH._replace(calibrated=False, pessimistic_s=None), 35.0)
UNCALIBRATED = Breach(None, None, None, 19_000.0, free_running=True, calibrated=False)


@pytest.mark.parametrize(
    ("drift", "words"),
    [
        (
            DRIFT,
            "drift with its present correction the clock loses 130 ms per day (+1.500 ppm, "
            "fit error 0.02 ppm over 5.25 h, 64 samples)",
        ),
        (DRIFT._replace(frequency_ppm=-1.5), "the clock gains 130 ms per day"),
        (DRIFT._replace(frequency_ppm=None, samples=1), "drift not known yet (1 sample)"),
        (
            VAGUE,
            "drift not known yet (+2.620 ppm, fit error 710 ppm over 35 s, 3 samples) forecast from now: none yet, "
            "because the drift is not known (",
        ),
        (VAGUE._replace(frequency_ppm=-750.0, raw_frequency_ppm=-750.0), "the clock gains 64.8 s per day"),
        (VAGUE._replace(breach=UNCALIBRATED), "forecast from now: none yet, because the drift is not known"),
        (
            DRIFT._replace(frequency_ppm=0.001, skew_ppm=0.01, breach=BREACH._replace(central_s=None)),
            "the clock gains or loses at most 951 µs per day (+0.001 ppm, fit error 0.01 ppm over 5.25 h, 64 samples) "
            "forecast from now: expected to stay within 1 s for 30 days",
        ),
        (
            DRIFT._replace(frequency_ppm=None, breach=UNCALIBRATED),
            "forecast from now: none yet, because the drift is not known (guaranteed within 1 s for 5.27 h)",
        ),
        (
            DRIFT,
            "forecast from now: expected to exceed 1 s in 120 min "
            "(95 %: not within 59.9 min; guaranteed within 1 s for 9.91 min)",
        ),
        (
            DRIFT._replace(breach=UNCALIBRATED),
            "forecast from now: if synchronisation stopped now, expected to stay within 1 s for 30 days "
            "(guaranteed within 1 s for 5.27 h; forecast not yet verified",
        ),
        (
            DRIFT._replace(breach=UNCALIBRATED._replace(central_s=7200.0)),
            "stopped now, expected to exceed 1 s in 120 min (guaranteed within 1 s for",
        ),
        (
            DRIFT._replace(breach=BREACH._replace(central_s=None)),
            "expected to stay within 1 s for 30 days (95 %: not within 59.9 min;",
        ),
        (DRIFT._replace(breach=BREACH._replace(guaranteed_s=0.0)), "(95 %: not within 59.9 min; no guarantee)"),
    ],
)
def test_drift_and_forecast_are_shown_in_words(drift: Drift, words: str) -> None:
    """F3, F7, F8: which way the clock goes, how sure that is, and when its tolerance is broken."""
    assert words in standing(LOCAL._replace(drift=drift))


def test_a_forecast_is_counted_from_now() -> None:
    """R3: half an hour after the record every moment that it names is half an hour nearer, in JSON too."""
    record = LOCAL._replace(drift=DRIFT)
    assert "expected to exceed 1 s in 90 min (95 %: not within 30 min; no guarantee)" in standing(record, age_s=1800.0)
    now = after(record, 1800.0)
    shown = json.loads(render(agent_status(record, None, RunningAgent(), now), "json", {}))
    assert shown["breach"] == {
        "pessimistic_s": 1800.0,
        "central_s": 5400.0,
        "optimistic_s": None,
        "guaranteed_s": 0.0,
        "free_running": False,
        "calibrated": True,
    }
    assert json.loads(render(agent_status(OK, None, RunningAgent(), now), "json", {}))["breach"] is None
    other = HostNow(Instant("another boot", record.boottime_ns, record.host_ns))  # how old it is cannot be known
    unknown = agent_status(record, None, RunningAgent(), other)
    assert unknown.doubt is not None
    assert json.loads(render(unknown, "json", {}))["breach"] is None
    assert "forecast" not in said(render(unknown, "text", {}))


def test_no_forecast_of_a_breach_that_has_happened() -> None:
    """A clock that is beyond its tolerance has no forecast."""
    assert "forecast" not in standing(CASES["beyond, behind"]._replace(drift=DRIFT))


@pytest.mark.parametrize(
    ("health", "words"),
    [
        (Health(), "delivery up to date"),
        (Health(backlog=3, oldest_s=720.0), "delivery 3 records waiting, the oldest for 12 min"),
        (
            Health(backlog=1, oldest_s=60.0, failures=2, failure="401 unauthorized"),
            "1 record waiting, the oldest for 60 s; 2 attempts failed since the last success: 401 unauthorized",
        ),
        (Health(set_aside=1), "1 dead letter: ntpaudit history dead-letters list"),
        (Health(missed=4), "missed 4 scheduled audits (host busy or suspended)"),
        (Health(store="disk full"), "store disk full"),
    ],
)
def test_the_state_of_the_agent_is_shown_in_words(health: Health, words: str) -> None:
    """Backlog, failures, dead letters, missed audits, errors of the state."""
    assert words in standing(LOCAL._replace(health=health))


def test_waiting_for_the_true_time_is_the_reason_of_a_backlog() -> None:
    """Records without a true time are not delivered: the status has the reason."""
    text = standing(LOCAL._replace(utc_ns=None, health=Health(backlog=15, oldest_s=20.0)))
    assert (
        "15 records waiting, the oldest for 20 s: the true time is not known; sent when a server replies, or "
        "after 5 min with the host's own time unless that is certainly wrong"
    ) in text


@pytest.mark.parametrize(
    ("delivers", "backlog", "words"),
    [
        (False, 0, "delivery none: no database is configured (influxdb.url)"),
        (False, 2, "delivery none: no database is configured (influxdb.url); 2 records waiting"),
        (None, 0, "delivery no record is waiting"),
    ],
)
def test_delivery_is_up_to_date_only_with_a_database(delivers: bool | None, backlog: int, words: str) -> None:
    """Without a database nothing is delivered; where it is unknown whether one is configured, nothing is claimed."""
    record = LOCAL._replace(health=Health(backlog=backlog))
    text = said(render(agent_status(record, OK, RunningAgent(delivers=delivers), after(record, 20.0)), "text", {}))
    assert words in text
    assert "up to date" not in text


def test_a_local_record_without_an_offset_says_what_the_servers_said() -> None:
    """A local audit queried no server: the last network audit has the reason for the missing offset."""
    silent = CASES["unmeasured, no reply"]
    local = silent._replace(kind="local", sources=(), age_s=None)
    assert standing(local, silent).startswith("UNKNOWN clock was not measured: none of 4 servers replied (timeout)")
    before = OK._replace(boottime_ns=OK.boottime_ns - 60 * NS_PER_S)
    assert "the replies of 60 s earlier are no longer valid" in standing(local, before)
    assert standing(local).startswith("UNKNOWN clock was not measured")
    assert "polled no server yet" in standing(local)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("format_name", FORMATS)
def test_any_record_can_be_shown(case: str, format_name: str) -> None:
    """Each outcome is shown in each format, fresh and stale, in ASCII and in lines that fit."""
    record = CASES[case]
    for age_s in (1, 10_000):
        shown = agent_status(record, record, RunningAgent(), after(record, age_s))
        text = render(shown, format_name, record.to_dict())
        assert text.replace("µ", "u").isascii()
        assert text.endswith("\n")
        assert (shown.severity == Severity.UNKNOWN) or age_s == 1
        if format_name == "text":
            assert max(map(len, text.splitlines())) <= 100
            assert said(text).startswith(f"{shown.severity.name} {sentence(shown)}"[:40])
        else:
            assert len(text.splitlines()) == 1


def test_colours_move_nothing() -> None:
    """Coloured or not, the text is the same."""
    shown = agent_status(OK, OK, RunningAgent(), after(OK, 0.0))
    coloured = render(shown, "text", {}, colour=True)
    assert "\x1b[32mOK\x1b[0m" in coloured
    assert re.sub("\x1b\\[[0-9]+m", "", coloured) == render(shown, "text", {})
    assert re.sub("\x1b\\[[0-9]+m", "", render_absence("a; b", "text", colour=True)) == render_absence("a; b", "text")


def test_help(tmp_path: Path) -> None:
    """Help has examples and exit statuses; an unknown format is a usage error."""
    ran = status("--help", state=tmp_path)
    assert "Examples:" in ran.out
    assert "Exit status:" in ran.out
    assert status("--format", "influx", state=tmp_path).status == 64
    assert status("--stale", "soon", state=tmp_path).status == 64


def test_lines_are_as_wide_as_the_terminal(tmp_path: Path) -> None:
    """The text about a clock, a silent agent and a missing agent fits 72 columns."""
    narrow = {"COLUMNS": "72"}
    absent = status(state=tmp_path, **narrow)
    keep(tmp_path, recent())
    fresh, stale = status(state=tmp_path, **narrow), status("--stale", "1s", state=tmp_path, **narrow)
    for ran in (absent, fresh, stale):
        lines = [line for line in ran.out.splitlines() if not line.lstrip().startswith("fix: ")]  # to be copied whole
        assert max(map(len, lines)) <= 72, ran.out

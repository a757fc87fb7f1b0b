"""`ntpaudit history` as a user runs it, on histories as an agent keeps them."""

import csv
import io
import json
import math
import os
import pty
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ntpaudit.cli.state import this_host
from ntpaudit.core.record import Record
from ntpaudit.core.units import NS_PER_S, format_utc
from ntpaudit.probes import service
from ntpaudit.store.compression import unpack_text
from ntpaudit.store.database import open_database, transaction
from ntpaudit.store.paths import FILE_NAME
from tests.command import Ran, ntpaudit
from tests.histories import DAY_MINUTES, MINUTE_NS, World, write
from tests.tracing import untraced
from tests.world.packages import REPOSITORY

MINUTES = DAY_MINUTES


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    """The state of a host whose last day had a step, an outage of its servers and a pause of its agent."""
    folder = tmp_path_factory.mktemp("day")
    now = this_host().moment
    world = World(
        offset_s=lambda minute: 0.002 * math.sin(minute / 150),
        stepped_s=lambda minute: 2.5 if 1000 <= minute < 1010 else 0.0,
        answers=lambda minute: not 500 < minute < 560,
        runs=lambda minute: not 700 < minute < 800,
        begin_ns=now.realtime_ns - MINUTES * MINUTE_NS,
        uptime_ns=now.boottime_ns - MINUTES * MINUTE_NS,
        boot_id=now.boot_id,
    )
    with untraced():
        return folder, write(folder / "state" / FILE_NAME, world, range(MINUTES))


def history(*words: str, state: Path, **environment: str) -> Ran:
    """Run `ntpaudit history`."""
    return ntpaudit("history", *words, state=state, environment=environment)


def rows(ran: Ran) -> list[dict[str, str]]:
    """Read what it printed as CSV."""
    return list(csv.DictReader(io.StringIO(ran.out)))


def test_the_last_day_newest_last(day: tuple[Path, list[Record]]) -> None:
    """Without options: a line for every audit of 24 hours, in order, under a header, in 120 columns of ASCII."""
    folder, records = day
    ran = history(state=folder)
    assert (ran.status, ran.err) == (0, "")
    header, *lines = ran.out.splitlines()
    assert header.split() == ["time", "(UTC)", "kind", "severity", "verdict", "offset", "bound", "polled", "findings"]
    assert len(records) - 10 <= len(lines) <= len(records)
    assert records[-1].utc_ns
    assert lines[-1].startswith(format_utc(records[-1].utc_ns)[:19].replace("T", " "))
    assert [line[:19] for line in lines] == sorted(line[:19] for line in lines)
    assert max(map(len, ran.out.splitlines())) <= 120
    assert ran.out.replace("µ", "u").isascii()


def test_json_lines_are_the_records_as_stored(day: tuple[Path, list[Record]]) -> None:
    """`--format json` prints the history's own texts, byte for byte."""
    folder, _ = day
    ran = history("--format", "json", "--limit", "300", state=folder)
    connection = sqlite3.connect(folder / "state" / FILE_NAME)
    stored = [unpack_text(row[0]) for row in connection.execute("SELECT record FROM audits ORDER BY id DESC LIMIT 300")]
    connection.close()
    assert ran.out == "".join(f"{text}\n" for text in reversed(stored))


def test_since_and_until_choose_the_time(day: tuple[Path, list[Record]]) -> None:
    """A span counts back from now; times are UTC, with or without a zone, to the second or the day."""
    folder, records = day
    hour = rows(history("--since", "1h", "--format", "csv", state=folder))
    assert 55 <= len(hour) <= 61
    times = [format_utc(record.utc_ns) for record in records if record.utc_ns]
    between = rows(
        history("--since", times[100][:19], "--until", f"{times[110][:19]}Z", "--format", "csv", state=folder)
    )
    assert [row["time"] for row in between] == times[100:110]
    zoned = f"{times[100][:19]}+00:00"
    assert rows(history("--since", zoned, "--until", times[110][:19], "--format", "csv", state=folder)) == between
    early = rows(history("--since", "2d", "--until", "12h", "--format", "csv", state=folder))
    assert early[0]["time"] == times[0]


def test_a_limit_alone_reaches_back_as_far_as_it_takes(tmp_path: Path) -> None:
    """`--limit 20` shows the newest twenty, were they ever so old; a day with nothing in it says where there is."""
    records = write(tmp_path / "state" / FILE_NAME, World(), range(30))
    assert len(rows(history("--limit", "20", "--format", "csv", state=tmp_path))) == 20
    nothing = history(state=tmp_path)
    assert (nothing.status, nothing.out) == (3, "")
    assert records[-1].utc_ns
    assert f"the last audit was at {format_utc(records[-1].utc_ns)[:19]}Z: try --since, or --limit 20" in nothing.err
    assert history("--events", "--since", "1s", state=tmp_path).status == 3


def test_events_are_findings_and_steps(day: tuple[Path, list[Record]]) -> None:
    """`--events` lists what was raised and cleared, and each step of the clock, with its size."""
    folder, _ = day
    ran = history("--events", "--since", "2d", state=folder)
    assert ran.status == 0
    assert "step-back: the clock was set back by 2.5 s" in ran.out
    assert "step-forward" in ran.out
    assert re.search(r"medium    evidence-gap: .*\n(.*\n)*.*cleared   evidence-gap: ", ran.out)
    steps = [row for row in rows(history("--events", "--format", "csv", "--since", "2d", state=folder))
             if row["event"].startswith("step-")]  # fmt: skip
    assert [round(float(row["value_s"]), 3) for row in steps] == [-2.5, 2.5]
    last = history("--events", "--format", "json", "--limit", "1", state=folder).out
    assert json.loads(last)["schema"] == "ntpaudit.event/1"


def test_hours_stand_in_for_what_is_not_kept_any_more(tmp_path: Path) -> None:
    """Where retention has removed single audits their hours are shown, and every hour and audit once."""
    file = tmp_path / "state" / FILE_NAME
    write(file, World(), range(600))
    connection = open_database(str(file))
    with transaction(connection):
        connection.execute("DELETE FROM audits WHERE id <= 400")
    connection.close()
    found = rows(history("--since", "1000d", "--format", "csv", state=tmp_path))
    hours = [row for row in found if row["kind"] == "hour"]
    audits = [row for row in found if row["kind"] != "hour"]
    assert len(audits) == 200
    assert [row["time"] for row in found] == sorted(row["time"] for row in found)
    assert hours[-1]["time"] < audits[0]["time"][:13]
    assert sum(int(row["audits"]) for row in hours) + len(audits) >= 600 - 60
    table = history("--since", "1000d", state=tmp_path).out
    assert table.startswith("hour (UTC)")
    assert "\n\ntime (UTC)" in table
    lines = history("--since", "1000d", "--format", "json", state=tmp_path).out.splitlines()
    assert [json.loads(line)["schema"] for line in lines] == ["ntpaudit.hour/1"] * len(hours) + [
        "ntpaudit.record/1"
    ] * 200
    newest = rows(history("--limit", "203", "--format", "csv", state=tmp_path))
    assert [row["kind"] == "hour" for row in newest] == [True] * 3 + [False] * 200


def test_hourly_shows_hours_alone(day: tuple[Path, list[Record]]) -> None:
    """`--hourly` sums up also what is still kept singly."""
    folder, records = day
    found = rows(history("--hourly", "--since", "2d", "--format", "csv", state=folder))
    assert {row["kind"] for row in found} == {"hour"}
    assert sum(int(row["audits"]) for row in found) == len(records)


def test_the_plot_shows_the_day(day: tuple[Path, list[Record]]) -> None:
    """`--plot` draws a picture as wide as the terminal, with step, pause of the agent, and bound in words."""
    folder, _ = day
    ran = history("--plot", state=folder, COLUMNS="90", LINES="30", LC_ALL="C.UTF-8", TERM="xterm")
    assert ran.status == 0
    assert re.match(r"web1: offset of the clock from [0-9-]{10} [0-9:]{5} to [0-9-]{10} [0-9:]{5} UTC\n", ran.out)
    assert max(map(len, ran.out.splitlines())) <= 90
    assert re.search("[\u2801-\u28ff]", ran.out)
    assert "░" in ran.out
    assert "1 s behind" in ran.out
    assert re.search(r"▲ ▼ clock set forward, back: 2 times, largest 2\.5 s (back|forward)", ran.out)
    assert "x no record: 1 gap, longest 100 min" in ran.out
    assert re.search(r"\d+ points: (1\.9\d|2) ms ahead to 2\.5 s behind, maximum error 2\.5\d? s", ran.out)
    hourly = history("--plot", "--hourly", "--since", "2d", state=folder)
    assert re.search(r"2\d points: ", hourly.out)


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "", "LC_CTYPE": "", "LANG": "C"},
        {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C.UTF-8", "TERM": "linux"},
    ],
)
def test_where_there_is_no_unicode_the_plot_is_ascii(variables: dict[str, str], day: tuple[Path, list[Record]]) -> None:
    """A locale, an encoding or a console without Braille gets a picture of plain characters."""
    ran = history("--plot", state=day[0], **{"TERM": "xterm"} | variables)
    assert ran.out.replace("µ", "u").isascii()
    assert "*" in ran.out
    assert ran.status == 0


def test_each_day_accounts_for_its_seconds(day: tuple[Path, list[Record]]) -> None:
    """The six states of a day add up in every format, and nothing within the tolerance is rounded up."""
    folder, _ = day
    days = [
        json.loads(line)
        for line in history("--daily", "--since", "2d", "--format", "json", state=folder).out.splitlines()
    ]
    assert {one["schema"] for one in days} == {"ntpaudit.day/1"}
    assert all(sum(one["seconds"].values()) == one["length_s"] for one in days)
    written = rows(history("--daily", "--since", "2d", "--format", "csv", state=folder))
    states = ("within", "unproven", "beyond", "unmeasured", "absent", "off")
    assert [[int(row[f"{name}_s"]) for name in states] for row in written[:-1]] == [
        [one["seconds"][name] for name in states] for one in days[:-1]
    ]
    assert sum(one["seconds"]["beyond"] for one in days) in range(9 * 60, 12 * 60)
    assert {row["profile"] for row in written} == {"log-integrity"}
    table = history("--daily", "--since", "2d", state=folder).out
    assert "absent: no record shows that the agent ran, and the host may have run" in table
    hours = [
        json.loads(line)
        for line in history("--hourly", "--since", "2d", "--format", "json", state=folder).out.splitlines()
    ]
    assert all(hour["account"]["in_force"][0]["profile"]["name"] == "log-integrity" for hour in hours)
    assert sum(hour["seconds"]["beyond"] for hour in hours) == sum(one["seconds"]["beyond"] for one in days)


def test_another_tolerance(day: tuple[Path, list[Record]]) -> None:
    """Judged again by 1 ms nothing is proven but the step; by 10 s all is within; the output states the tolerance."""
    folder, _ = day
    strict = history("--daily", "--since", "2d", "--critical", "1ms", "--format", "json", state=folder)
    assert "judged again by a critical tolerance of 1 ms, not by the profile in force" in strict.err
    days = [json.loads(line) for line in strict.out.splitlines()]
    assert {one["judged_again_s"] for one in days} == {0.001}
    assert sum(one["seconds"]["within"] for one in days) == 0
    assert sum(one["seconds"]["beyond"] for one in days) >= 9 * 60
    assert all(sum(one["seconds"].values()) == one["length_s"] for one in days)
    loose = history("--hourly", "--since", "2d", "--critical", "10s", "--format", "json", state=folder)
    hours = [json.loads(line) for line in loose.out.splitlines()]
    assert {(one["judged_again_s"], one["seconds"]["beyond"], one["seconds"]["unproven"]) for one in hours} == {
        (10, 0, 0)
    }
    found = history("--excursions", "--since", "2d", "--critical", "1ms", "--format", "json", state=folder).out
    assert {json.loads(line)["judged_again_s"] for line in found.splitlines()} == {0.001}
    assert "--critical needs --hourly" in history("--critical", "1ms", state=folder).err


def test_excursions_with_their_cause(day: tuple[Path, list[Record]]) -> None:
    """The step of 2.5 s is one excursion, with its size, its direction, its findings and the step as its cause."""
    folder, _ = day
    found = [
        json.loads(line)
        for line in history("--excursions", "--format", "json", "--since", "2d", state=folder).out.splitlines()
    ]
    (beyond,) = (one for one in found if one["state"] == "beyond")
    assert beyond["schema"] == "ntpaudit.excursion/1"
    assert 9 * 60 <= beyond["duration_s"] <= 12 * 60
    assert beyond["possible_s"] > 2.5 > beyond["proved_s"] > 2.4
    assert beyond["logs"].startswith("behind: ")
    assert beyond["cause"].startswith("the clock was set back by 2.5 s")
    assert not beyond["open"]
    text = history("--excursions", "--since", "2d", state=folder).out
    assert re.search(r"critical +beyond for 1[01][.0-9]* min\n", text)
    assert "cause   the clock was set back by 2.5 s" in text
    assert len(rows(history("--excursions", "--since", "2d", "--format", "csv", state=folder))) == len(found)
    newest = history("--excursions", "--since", "2d", "--limit", "1", "--format", "json", state=folder).out
    assert json.loads(newest) == found[-1]
    none = history("--excursions", "--since", "3d", "--until", "2d", state=folder)
    assert (none.status, "no excursions in this period" in none.err) == (3, True)


USAGE = {
    ("--since", "yesterday"): "write how long ago, such as 7d, or a time in UTC",
    ("--since", "2026-13-01"): "write how long ago",
    ("--since", "1d", "--until", "2d"): " UTC) is later than --until (",
    ("--since", "2100-01-01"): "--since 2100-01-01 00:00 UTC is in the future (now: 20",
    ("--since", "2100-01-01", "--events"): "give an earlier time, or an age such as 24h",
    ("--limit", "0"): "1<=x",
    ("--plot", "--format", "csv"): "--plot cannot be combined with --format",
    ("--plot", "--events"): "--events cannot be combined with --plot or --hourly",
    ("--events", "--hourly"): "--events cannot be combined",
    ("--format", "influx"): "influx",
    ("--daily", "--hourly"): "--daily cannot be combined with --events, --steps, --plot, --hourly or --excursions",
    ("--excursions", "--daily"): "--daily cannot be combined",
    ("--excursions", "--plot"): "--excursions cannot be combined",
    ("--since", "2100-01-01", "--daily"): "is in the future",
}


def test_without_a_true_time_no_hour_is_shown(tmp_path: Path) -> None:
    """The hours of stored audits are not shown again, also where no audit has a true time."""
    now = this_host().moment
    lost = World(begin_ns=now.realtime_ns - 60 * MINUTE_NS, boot_id="another", answers=lambda minute: False)
    write(tmp_path / "state" / FILE_NAME, lost, range(60))
    ran = history(state=tmp_path)
    assert "time (UTC)" in ran.out
    assert "hour (UTC)" not in ran.out
    assert "deleted" not in ran.out
    assert "hour" not in {
        row["kind"] for row in csv.DictReader(history("--format", "csv", state=tmp_path).out.splitlines())
    }


@pytest.mark.parametrize("words", USAGE)
def test_usage_errors_name_the_fix_and_end_with_64(words: tuple[str, ...], day: tuple[Path, list[Record]]) -> None:
    """An impossible option is an error that shows a possible one."""
    ran = history(*words, state=day[0])
    assert ran.status == 64
    assert USAGE[words] in " ".join(ran.err.split())
    assert ran.out == ""


def test_no_history_says_what_to_do(tmp_path: Path) -> None:
    """Where nothing was ever kept, and where something else is in its place, there is a line, and status 3."""
    ran = history(state=tmp_path)
    assert (ran.status, ran.out) == (3, "")
    assert ran.err == (
        f"ntpaudit: no agent has stored a record in {tmp_path}/state/{FILE_NAME}; "
        f"if one runs already, read its log, else start one: {service.start()}\n"
    )
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / FILE_NAME).write_bytes(b"no database, but long enough to be one " * 100)
    damaged = history("--format", "csv", state=tmp_path)
    assert damaged.status == 3
    assert "is damaged" in damaged.err
    assert len(damaged.err.splitlines()) == 1


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a host with some ten thousand audits, the last just now."""
    folder = tmp_path_factory.mktemp("long")
    file = folder / "state" / FILE_NAME
    now = this_host().moment
    world = World(begin_ns=now.realtime_ns - 100 * MINUTE_NS, uptime_ns=now.boottime_ns, boot_id="another")
    write(file, world, range(100))
    connection = open_database(str(file))
    columns = [row[1] for row in connection.execute("PRAGMA table_info(audits)") if row[1] != "id"]
    names = ", ".join(columns)
    shifted = ", ".join(f"{name} - :shift" if name in ("host_ns", "utc_ns") else name for name in columns)
    with transaction(connection):
        connection.execute("CREATE TEMP TABLE seed AS SELECT * FROM audits")
        connection.execute("DELETE FROM audits")
        for block in range(119, -1, -1):
            connection.execute(
                f"INSERT INTO audits ({names}) SELECT {shifted} FROM seed ORDER BY id",
                {"shift": block * 100 * MINUTE_NS},
            )
    connection.close()
    return folder


def peak_kib(state: Path, *words: str) -> int:
    """Return the most memory that `ntpaudit history` took, in KiB."""
    environment = os.environ | {"STATE_DIRECTORY": str(state / "state"), "COVERAGE_PROCESS_CONFIG": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "ntpaudit", "history", *words],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss


@pytest.mark.parametrize("words", [("--format", "csv"), ("--format", "json"), ("--plot",), ()])
def test_a_long_history_is_not_loaded(words: tuple[str, ...], long: Path) -> None:
    """Twelve thousand audits take hardly more memory than a hundred: pages are read, written and dropped."""
    few = peak_kib(long, *words, "--limit", "100")
    many = peak_kib(long, *words, "--since", "30d")
    assert many - few < 4096


def test_progress_is_shown(long: Path) -> None:
    """A file that takes more than two seconds to be written shows progress on the terminal, and nothing else there."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"STATE_DIRECTORY": str(long / "state")}
    words = [sys.executable, "-m", "ntpaudit", "history", "--format", "csv", "--since", "30d"]
    with subprocess.Popen(words, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        assert process.stdout
        first = process.stdout.readline()  # from now on it writes; a pipe holds no more than some hundred lines
        time.sleep(2.5)
        lines = [first, *process.stdout.read().splitlines()]
    shown = b"".join(_shown(ours)).decode()
    os.close(ours)
    assert process.returncode == 0
    assert len(lines) == 12_001
    assert re.search(r"ntpaudit: read \d+ of about 12000 audits", shown)
    assert len(shown.splitlines()) <= 3


def _shown(terminal: int) -> Iterator[bytes]:
    """Yield what a pseudo-terminal was shown."""
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:
            return
        if not part:
            return
        yield part


@pytest.mark.parametrize("words", ["--format csv", "--format json", "", "--plot"])
def test_a_reader_that_leaves_is_no_traceback(words: str, long: Path) -> None:
    """`ntpaudit history | head -1` ends quietly, at once, with 0."""
    command = f'"{sys.executable}" -m ntpaudit history --since 30d {words} | head -1; exit ${{PIPESTATUS[0]}}'
    environment = os.environ | {"STATE_DIRECTORY": str(long / "state")}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert len(done.stdout.splitlines()) == 1


def test_a_full_output_is_unknown(day: tuple[Path, list[Record]]) -> None:
    """Half a file is never taken for a whole one."""
    ran = ntpaudit(
        "history", "--format", "csv", state=day[0],
        inside=lambda words: ["sh", "-c", 'exec "$@" >/dev/full', "sh", *words],
    )  # fmt: skip
    assert ran.status == 3
    assert "No space left" in ran.err


def test_a_host_that_believes_in_1970_has_a_plot_of_its_day(tmp_path: Path) -> None:
    """Audits without a known time do not stretch a plot over fifty years."""
    now = this_host().moment
    lost = World(begin_ns=now.realtime_ns - 60 * MINUTE_NS, stepped_s=lambda minute: 1.7e9, boot_id="another",
                 answers=lambda minute: minute >= 30)  # fmt: skip
    write(tmp_path / "state" / FILE_NAME, lost, range(60))
    ran = history("--plot", "--limit", "100", state=tmp_path)
    assert ran.status == 0
    assert "1970" not in ran.out
    table = history("--limit", "100", state=tmp_path).out
    assert len(table.partition("time (UTC)")[2].splitlines()) == 62
    assert table.endswith("?: by the host's own clock, because the true time is not known\n")
    assert "53.9 years behind" in table
    assert re.search(r"19\d\d-[0-9-]{5} [0-9:]{8}\?", table)


def test_help_and_laziness(tmp_path: Path) -> None:
    """Help has examples and exit statuses; listing the commands loads no database and no command."""
    ran = history("--help", state=tmp_path)
    assert "Examples:" in ran.out
    assert "Exit status:" in ran.out
    bare = ntpaudit(
        "--help", state=tmp_path, environment={"PYTHONPROFILEIMPORTTIME": "1", "COVERAGE_PROCESS_CONFIG": ""}
    )
    imported = {line.rsplit("|", 1)[1].strip() for line in bare.err.splitlines() if line.startswith("import time:")}
    assert "ntpaudit.cli" in imported
    assert imported & {"sqlite3", "psutil", "ntpaudit.cli.history", "ntpaudit.config.schema", "ntpaudit.store"} == set()
    for command in ("status", "history", "config"):
        assert f"  {command} " in bare.out


def test_the_newest_time_counts_by_uptime(tmp_path: Path) -> None:
    """`--since` counts back from the true time, not from the clock: here that was a day ahead all the while."""
    now = this_host().moment
    ahead = World(
        begin_ns=now.realtime_ns - 86_400 * NS_PER_S - 60 * MINUTE_NS, uptime_ns=now.boottime_ns - 60 * MINUTE_NS,
        boot_id=now.boot_id, stepped_s=lambda minute: -86_400.0,
    )  # fmt: skip
    write(tmp_path / "state" / FILE_NAME, ahead, range(60))
    assert 25 <= len(rows(history("--since", "30m", "--format", "csv", state=tmp_path))) <= 31


def test_each_hour_accounts_for_its_seconds(tmp_path: Path) -> None:
    """An hour with 12 minutes unmeasured and the agent absent for longer says both, in every format."""
    now = this_host().moment
    begin_ns = now.realtime_ns // (3600 * NS_PER_S) * 3600 * NS_PER_S - 2 * 3600 * NS_PER_S
    world = World(
        begin_ns=begin_ns, boot_id="another",
        answers=lambda minute: minute >= 12, runs=lambda minute: not 20 <= minute < 45 and not 60 <= minute < 125,
    )  # fmt: skip
    write(tmp_path / "state" / FILE_NAME, world, range(130))
    ran = history("--hourly", "--format", "json", "--limit", "9", state=tmp_path)
    hours = [json.loads(line) for line in ran.out.splitlines()]
    assert [hour["audits"] for hour in hours] == [35, 0, 5]
    first, second, _ = (hour["seconds"] for hour in hours)
    assert first["within"] == 3600 - 900 - first["absent"]
    assert sum(first.values()) == sum(second.values()) == second["absent"] == 3600
    assert (first["unmeasured"], first["absent"] > 25 * 60) == (900, True)
    table = history("--hourly", "--limit", "9", state=tmp_path).out
    assert re.search(r"15 min +2[67][.0-9]* min", table)

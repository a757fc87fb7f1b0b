"""`ntpaudit fleet` as an operator calls it: what it reads, how it ends, and what it says where it cannot read."""

import csv
import json
import os
import pty
import re
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from ntpaudit.core.fleet import Terms
from ntpaudit.core.fleet_rules import judge_fleet
from ntpaudit.reports import fleet_csv, fleet_json, fleet_nagios, fleet_text
from tests.command import Ran, ntpaudit
from tests.snapshots import SNAPSHOT, write_demonstration
from tests.world.packages import REPOSITORY, library
from tests.world.servers import victoria_metrics

FLEET = judge_fleet(SNAPSHOT, Terms())
NOWHERE = "http://127.0.0.1:9"
"""Where nobody listens: the port of a service that no machine has any more."""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a demonstration."""
    home = tmp_path_factory.mktemp("home")
    (home / "state").mkdir()
    write_demonstration(home / "state" / "demo.sqlite3")
    return home


def fleet(*words: str, state: Path, **environment: str) -> Ran:
    """Run `ntpaudit fleet` in a home."""
    return ntpaudit("fleet", *words, state=state, environment={"XDG_CONFIG_HOME": str(state / "etc")} | environment)


def test_every_format_tells_the_fleet_that_was_read(state: Path) -> None:
    """Text, JSON, CSV and a plugin's line are those of the fleet, and its severity is the exit status."""
    for name, text in (
        ("text", fleet_text.render(FLEET)),
        ("json", fleet_json.render(FLEET)),
        ("csv", fleet_csv.render(FLEET)),
        ("nagios", fleet_nagios.render(FLEET)),
    ):
        ran = fleet("--demo", "--format", name, state=state)
        assert (ran.status, ran.err) == (2, "")
        if name == "text":
            assert "fra-gw has been silent for 60.5 min" in ran.out  # the demonstration kept its earlier point too
            assert ran.out.splitlines()[0] == text.splitlines()[0]
        assert ran.out.count("\n") == text.replace("\r\n", "\n").count("\n")


def test_a_site_alone(state: Path) -> None:
    """Its hosts, its findings, its severity."""
    ran = fleet("--demo", "--site", "sto", "--format", "json", state=state)
    told = json.loads(ran.out)
    assert ran.status == 1
    assert {one["site"] for one in told["hosts"]} == {"sto"}
    assert [finding["id"] for finding in told["findings"]] == ["site-moved"]
    nowhere = fleet("--demo", "--site", "nowhere", state=state)
    assert nowhere.status == 3
    assert nowhere.out.startswith("UNKNOWN  ")
    assert "nowhere" in nowhere.out


def test_hosts_are_chosen_and_all_are_counted(state: Path) -> None:
    """--flagged and --limit are about what is listed, in every format that lists."""
    told = json.loads(fleet("--demo", "--flagged", "--format", "json", state=state).out)
    assert [one["severity"] for one in told["hosts"]] == ["critical", "unknown", "unknown", "unknown", "warning"]
    assert told["counts"]["hosts"] == 13
    out = fleet("--demo", "--limit", "3", "--format", "csv", state=state).out
    assert len(list(csv.reader(StringIO(out)))) == 4
    assert "... and 1 more unknown, 1 more warning, 8 more ok" in fleet("--demo", "--limit", "3", state=state).out


def test_an_inventory_of_a_file_an_option_or_standard_input(state: Path, tmp_path: Path) -> None:
    """Who should report is read from wherever it is said to be; a site may stand beside a name."""
    listed = tmp_path / "hosts"
    listed.write_text("# all that should report\nams-web-1\nams-new, ams  # ordered\n\nlon-old,lon\nfra-db-2\n")
    told = json.loads(fleet("--demo", "--inventory", str(listed), "--format", "json", state=state).out)
    assert told["coverage"]["hosts"] == 4
    hosts = {one["host"]: one["site"] for one in told["hosts"]}
    assert (hosts["ams-new"], hosts["lon-old"]) == ("ams", "lon")
    assert "fra-gw" not in hosts
    here = fleet("--demo", "--inventory", str(listed), "--site", "ams", "--format", "json", state=state)
    told = json.loads(here.out)
    assert (told["coverage"]["hosts"], told["counts"]["hosts"]) == (2, 4)
    nowhere = fleet("--demo", "--inventory", str(listed), "--site", "nowhere", state=state)
    assert nowhere.status == 3
    assert "knows no host of site 'nowhere'" in nowhere.out
    ran = subprocess.run(
        [sys.executable, "-m", "ntpaudit", "fleet", "--demo", "--inventory", "-", "--format", "json"],
        input="ams-web-1\n", capture_output=True, text=True, check=False, cwd=REPOSITORY,
        env=os.environ | {"STATE_DIRECTORY": str(state / "state")},
    )  # fmt: skip
    assert json.loads(ran.stdout)["coverage"]["hosts"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b,c\n", ":1: write a host's name"),
        (b"a\n,ams\n", ":2: write a host's name"),
        (b"# nobody\n", " names no host"),
        (b"\xff\n", " is no text in UTF-8"),
        (None, ": No such file or directory"),
    ],
)
def test_an_inventory_that_is_none_is_refused(content: bytes | None, said: str, state: Path, tmp_path: Path) -> None:
    """As a usage error where an option names it, as one of the configuration where that does."""
    listed = tmp_path / "hosts"
    if content is not None:
        listed.write_bytes(content)
    ran = fleet("--demo", "--inventory", str(listed), state=state)
    assert ran.status == 64
    assert f"--inventory: {listed}{said}" in ran.err
    config = tmp_path / "x.toml"
    config.write_text(f"[fleet]\nurl = '{NOWHERE}'\ninventory = '{listed}'\n")
    ran = fleet("--config", str(config), state=state)
    assert ran.status == 78
    assert f"{config}:3: fleet.inventory: {listed}{said}" in ran.err


def test_as_of_a_moment(state: Path) -> None:
    """An hour ago nobody had moved, and a time to come is refused."""
    told = json.loads(fleet("--demo", "--at", "1h ago", "--format", "json", state=state).out)
    assert told["time"]["utc"] == "2027-01-15T07:00:00.000000000Z"
    assert "site-moved" not in [finding["id"] for finding in told["findings"]]
    same = fleet("--demo", "--at", "2027-01-15T07:00:00Z", "--format", "json", state=state)
    assert json.loads(same.out) == told
    assert fleet("--demo", "--at", "2028-01-01", state=state).status == 64


def test_terms_are_those_of_the_options(state: Path) -> None:
    """What is silent, and what is ambiguous."""
    told = json.loads(fleet("--demo", "--silent-after", "3h", "--ambiguity", "1m", "--format", "json", state=state).out)
    assert told["counts"]["silent"] == 1
    assert "ordering-risk" not in [finding["id"] for finding in told["findings"]]


@pytest.mark.parametrize(
    "words",
    [
        ("--demo", "--url", NOWHERE),
        ("--demo", "--language", "promql"),
        ("--url", "ftp://x"),
        ("--url", "http://user:secret@x"),
        ("--language", "sql"),
        ("--demo", "--format", "nagios", "--flagged"),
        ("--demo", "--look-back", "1m"),
        ("--demo", "--silent-after", "0s"),
        ("--demo", "--at", "yesterday"),
        ("--demo", "order", "a", "a"),
        ("--demo", "order", "a"),
        ("ordre",),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(words: tuple[str, ...], state: Path) -> None:
    """64, with the reason and no secret."""
    ran = fleet(*words, state=state)
    assert (ran.status, ran.out) == (64, "")
    assert "Error: " in ran.err
    assert "secret@" not in ran.err


def test_without_a_database_it_says_what_to_do(state: Path) -> None:
    """78: the keys, the option, and the demonstration."""
    ran = fleet(state=state)
    assert (ran.status, ran.out) == (78, "")
    assert "[fleet] or [influxdb]" in ran.err
    assert "`ntpaudit demo`" in ran.err


def test_a_database_that_cannot_be_read_is_unknown_in_every_format(state: Path, tmp_path: Path) -> None:
    """3, and who waits for a plugin's line gets one; the URL may be that of the environment."""
    lines = fleet("--format", "nagios", state=state, INFLUXDB_V2_URL=NOWHERE)
    assert (lines.status, lines.err) == (3, "")
    assert re.match(r"NTPAUDIT UNKNOWN - .*127\.0\.0\.1:9.*\n$", lines.out)
    told = json.loads(fleet("--url", NOWHERE, "--format", "json", state=state).out)
    assert (told["severity"], told["hosts"]) == ("unknown", None)
    assert "127.0.0.1:9" in told["summary"]
    text = fleet("--url", NOWHERE, "--language", "promql", state=state)
    assert text.status == 3
    assert re.match(r"UNKNOWN  .*\n +fix: ", text.out, re.DOTALL)
    table = fleet("--url", NOWHERE, "--format", "csv", state=state)
    assert (table.status, table.out) == (3, "")
    assert "127.0.0.1:9" in table.err
    missing = fleet("--demo", state=tmp_path)
    assert missing.status == 3
    assert "ntpaudit demo" in missing.out


def test_a_result_in_a_file(state: Path, tmp_path: Path) -> None:
    """It is replaced at once; one that cannot be written is told of, and ends with 3."""
    target = tmp_path / "fleet.json"
    ran = fleet("--demo", "--format", "json", "--output", str(target), state=state)
    assert (ran.status, ran.out, ran.err) == (2, "", "")
    assert json.loads(target.read_text())["severity"] == "critical"
    ran = fleet("--demo", "--output", str(tmp_path / "no" / "x"), state=state)
    assert (ran.status, ran.out) == (3, "")
    assert "cannot write" in ran.err


def test_a_page_beside_the_result(state: Path, tmp_path: Path) -> None:
    """--html writes the page over the period, and the result is told as always."""
    page = tmp_path / "fleet.html"
    ran = fleet("--demo", "--html", str(page), "--period", "6h", "--format", "nagios", state=state)
    assert (ran.status, ran.err) == (2, "")
    assert ran.out.startswith("NTPAUDIT CRITICAL - 1 of 13 clocks")
    html = page.read_text()
    assert html.lower().startswith("<!doctype html>")
    assert "ams-web-1" in html
    assert "the demonstration" in html


def test_the_order_of_two_hosts(state: Path) -> None:
    """0 where events can be ordered within the ambiguity, 1 where not; options stand before or behind."""
    wide = fleet("--demo", "order", "ams-web-1", "fra-db-2", state=state)
    assert wide.status == 1
    assert wide.out.startswith(
        "WARNING  events on ams-web-1 and fra-db-2 are in the order of their stamps if these are"
    )
    close = fleet("order", "--demo", "ams-web-2", "fra-db-2", "--format", "json", state=state)
    assert close.status == 0
    assert json.loads(close.out)["hosts"] == ["ams-web-2", "fra-db-2"]
    assert fleet("--demo", "order", "ams-web-2", "fra-db-2", "--ambiguity", "1ms", state=state).status == 1


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("fra-gw", "fra-gw has been silent for 60.5 min"),
        ("fra-laptop", "the clock of fra-laptop was not measured"),
        ("ams-web-11", "did you mean ams-web-1?"),
        ("zzz", "see `ntpaudit fleet` for the hosts there are"),
    ],
)
def test_an_order_that_nobody_knows(other: str, said: str, state: Path) -> None:
    """Unknown, why, and what to do."""
    ran = fleet("--demo", "order", "ams-db-1", other, state=state)
    assert ran.status == 3
    assert said in " ".join(ran.out.split())


def test_on_a_terminal_it_is_coloured_and_fits(state: Path) -> None:
    """80 columns are enough for it; a reader that leaves is no error."""
    main, terminal = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "ntpaudit", "fleet", "--demo"], stdout=terminal, stderr=subprocess.PIPE, cwd=REPOSITORY,
        env={**os.environ, "STATE_DIRECTORY": str(state / "state"), "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": ""},
    )  # fmt: skip
    os.close(terminal)
    out = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # what Linux says at the end of a terminal
            break
        out += part
    os.close(main)
    assert done.communicate()[1] == b""
    assert done.returncode == 2
    text = out.decode().replace("\r\n", "\n")
    assert "\x1b[31mCRITICAL" in text
    plain = re.sub(r"\x1b\[\d+m", "", text)
    assert max(map(len, plain.split("\n"))) <= 80
    left = subprocess.run(
        f"{sys.executable} -m ntpaudit fleet --demo --format json | head -c 10; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=False, cwd=REPOSITORY,
        env={**os.environ, "STATE_DIRECTORY": str(state / "state")},
    )  # fmt: skip
    assert (left.stdout, left.stderr) == ('{"schema":', "")


def test_a_clock_that_would_make_hosts_look_silent_is_told(state: Path) -> None:
    """Whose own clock is 20 minutes wrong hears of it, for its silence is no host's; whose is right hears nothing."""
    with victoria_metrics() as url:
        line = (
            f"ntpaudit_clock,host=web1 severity=0i,verdict=3i,usable=0i,falsetickers=0i,findings=0i {time.time_ns()}\n"
        )
        urlopen(Request(f"{url}/write", line.encode()), timeout=10).close()
        urlopen(f"{url}/internal/force_flush", timeout=10).close()
        words = ("--url", url, "--language", "promql")
        right = fleet(*words, state=state)
        faked = {
            "LD_PRELOAD": str(library("libfaketime.so.1")),
            "FAKETIME": "-20m",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        wrong = fleet(*words, state=state, **faked)
    assert "differ" not in right.err
    assert "the clocks of this machine and of the database differ by 20 min" in wrong.err
    assert "ntpaudit check" in wrong.err


def test_ten_thousand_hosts_are_judged_and_told_at_once() -> None:
    """Many times the hosts take many times as long, and no more: generous limits for a machine that is busy."""
    some = [one for one in SNAPSHOT.hosts if one.name.startswith("sto")]
    hosts = tuple(
        one._replace(name=f"{one.name}-{number}", site=f"s{number % 50}") for number in range(2000) for one in some
    )
    before = {one.name: one.offset for one in hosts if one.offset is not None}
    begin_s = time.process_time()
    judged = judge_fleet(SNAPSHOT._replace(hosts=hosts, before=before), Terms())
    judged_s = time.process_time()
    text = fleet_text.render(judged, judged.members)
    told_s = time.process_time()
    assert text.count("\n") > 10_000
    assert judged_s - begin_s < 1.0
    assert told_s - judged_s < 1.0

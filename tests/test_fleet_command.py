"""`ntpaudit fleet` as an operator calls it: what it reads, how it ends, and what it says where it cannot read."""

import csv
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from email.utils import formatdate
from io import StringIO
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import FleetPolicy, Snapshot
from ntpaudit.core.units import format_utc
from ntpaudit.fleet.demo_store import DemoStore
from ntpaudit.formats.line_protocol import Point
from ntpaudit.reports import fleet_csv, fleet_json, fleet_nagios, fleet_text
from tests.command import Ran, ntpaudit
from tests.snapshots import SNAPSHOT, write_demonstration
from tests.work import LINEAR_GROWTH, growth
from tests.world.flaky import Answer, FlakyDatabase
from tests.world.flaky import Request as Flaky
from tests.world.packages import REPOSITORY, library
from tests.world.servers import influxd, victoria_metrics

FLEET = judge_fleet(SNAPSHOT, FleetPolicy())
NOWHERE = "http://127.0.0.1:9"
"""An address without a server: the port of a service that no machine has any more."""


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


def test_every_format_shows_the_fleet_that_was_read(state: Path) -> None:
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
    report = json.loads(ran.out)
    assert ran.status == 1
    assert {one["site"] for one in report["hosts"]} == {"sto"}
    assert [finding["id"] for finding in report["findings"]] == ["site-moved"]
    nowhere = fleet("--demo", "--site", "nowhere", state=state)
    assert nowhere.status == 3
    assert nowhere.out.startswith("UNKNOWN  ")
    assert "nowhere" in nowhere.out
    assert "did you mean sto?" in fleet("--demo", "--site", "Sto", state=state).out


def test_hosts_are_chosen_and_all_are_counted(state: Path) -> None:
    """--flagged and --limit are about what is listed, in every format that lists."""
    report = json.loads(fleet("--demo", "--flagged", "--format", "json", state=state).out)
    severities = ["critical", "unknown", "unknown", "unknown", "warning", *["ok"] * 6]
    assert [one["severity"] for one in report["hosts"]] == severities
    assert all(one["suspected"] for one in report["hosts"][5:])  # by the fleet: they moved, or walk
    assert report["counts"]["hosts"] == 13
    out = fleet("--demo", "--limit", "3", "--format", "csv", state=state).out
    assert len(list(csv.reader(StringIO(out)))) == 4
    assert any(one["findings"] != "0" for one in csv.DictReader(StringIO(out)))
    assert "... and 1 more unknown, 1 more warning, 8 more ok" in fleet("--demo", "--limit", "3", state=state).out
    flagged = fleet("--demo", "--flagged", "--limit", "13", state=state).out
    assert "... and 2 more ok; to list all 13: --limit 13 without --flagged" in flagged
    assert "... and" not in fleet("--demo", "--limit", "13", state=state).out


def test_an_inventory_of_a_file_an_option_or_standard_input(state: Path, tmp_path: Path) -> None:
    """Who should report is read from wherever it is said to be; a site may stand beside a name."""
    listed = tmp_path / "hosts"
    listed.write_text("# all that should report\nams-web-1\nams-new, ams  # ordered\n\nlon-old,lon\nfra-db-2\n")
    report = json.loads(fleet("--demo", "--inventory", str(listed), "--format", "json", state=state).out)
    assert report["coverage"]["hosts"] == 4
    hosts = {one["host"]: one["site"] for one in report["hosts"]}
    assert (hosts["ams-new"], hosts["lon-old"]) == ("ams", "lon")
    assert "fra-gw" not in hosts
    here = fleet("--demo", "--inventory", str(listed), "--site", "ams", "--format", "json", state=state)
    report = json.loads(here.out)
    assert (report["coverage"]["hosts"], report["counts"]["hosts"]) == (2, 4)
    nowhere = fleet("--demo", "--inventory", str(listed), "--site", "nowhere", state=state)
    assert nowhere.status == 3
    assert "has no host of site 'nowhere'" in nowhere.out
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
        (b"# no host\n", " names no host"),
        (b"# x\n[web]\nweb1\n", ":2: a line of an Ansible inventory, not a host's name: list its hosts with `ansible"),
        (b"web1\nweb2 ansible_host=192.0.2.1\n", ":2: a line of an Ansible inventory"),
        (b"\xef\xbb\xbf# x\nHost,site\nweb1,ams\n", ":2: 'Host' is a table's header: remove it"),
        (b"name\n", ":1: 'name' is a table's header"),
        (b"web1;ams\n", ":1: a semicolon instead of a comma between a host and its site"),
        (b"\xff\n", " is not UTF-8 text"),
        (
            b"db1\nweb1 ams\n",
            ":2: 'web1 ams' has white space: write one host per line, and a comma before its site",
        ),
        (b"a,ams\na\nb\na,fra\n", ":4: a has site fra here and ams in line 1: keep one of them"),
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


def test_an_inventory_may_have_a_byte_order_mark(state: Path, tmp_path: Path) -> None:
    """As Windows writes it, from a file and from a pipe; a host called `host` may stand below the first."""
    listed = tmp_path / "hosts"
    listed.write_bytes(b"\xef\xbb\xbfams-web-1\r\nhost\r\n")
    words = [sys.executable, "-m", "ntpaudit", "fleet", "--demo", "--format", "json", "--inventory"]
    for path in (str(listed), "-"):
        ran = subprocess.run(
            [*words, path], input=listed.read_bytes(), capture_output=True, check=False, cwd=REPOSITORY,
            env=os.environ | {"STATE_DIRECTORY": str(state / "state")},
        )  # fmt: skip
        report = json.loads(ran.stdout)
        assert report["coverage"]["hosts"] == 2
        assert {one["host"]: one["silent_s"] is None for one in report["hosts"]}["ams-web-1"]


def test_as_of_a_moment(state: Path) -> None:
    """An hour ago no clock had moved, and a future time is refused."""
    report = json.loads(fleet("--demo", "--at", "1h ago", "--format", "json", state=state).out)
    assert report["time"]["utc"] == "2027-01-15T07:00:00.000000000Z"
    assert "site-moved" not in [finding["id"] for finding in report["findings"]]
    for same in (
        "2027-01-15T07:00:00Z",
        "2027-01-15T07:00Z",
        "60 minutes ago",
        "60 min ago",
        " 1 hour ",
        "3600 secs ago",
    ):
        assert json.loads(fleet("--demo", "--at", same, "--format", "json", state=state).out) == report
    late = fleet("--demo", "--at", "2028-01-01", state=state)
    assert late.status == 64
    assert "the end of the demonstration, 2027-01-15T08:00:00Z" in late.err
    with FlakyDatabase(choose=lambda request: Answer(404)) as database:
        ran = fleet("--url", database.url, "--at", "2100-01-01", state=state)
    assert (ran.status, "--at is in the future" in ran.err) == (64, True)


def test_terms_are_those_of_the_options(state: Path) -> None:
    """What is silent, and what is ambiguous."""
    report = json.loads(
        fleet("--demo", "--silent-after", "3h", "--ambiguity", "1m", "--format", "json", state=state).out
    )
    assert report["counts"]["silent"] == 1
    assert "ordering-risk" not in [finding["id"] for finding in report["findings"]]


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
        ("--demo", "--database", "x"),
        ("--demo", "--env", "x"),
        ("order", "--store", "x", "--url", NOWHERE, "a", "b"),
        ("--url", NOWHERE, "--language", "promql", "--database", "x"),
        ("--demo", "--format", "csv", "order", "a", "b"),
        ("--demo", "--period", "6h"),
        ("--demo", "--html", "x", "--output", "./x"),
        ("--demo", "--html", "-", "--output", "-"),
        ("--demo", "--html", "-", "--format", "json"),
        ("--demo", "--site", ""),  # in InfluxDB these would be the hosts that name none
        ("--url", NOWHERE, "--env", ""),
        ("--store", ""),
        ("--config", ""),
        ("--demo", "--output", ""),
        ("--demo", "--html", ""),
        ("--demo", "order", "", "ams-db-1"),
        ("--demo", "--at", "0001-01-01"),
        ("--demo", "--at", "99y ago", "order", "a", "b"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(words: tuple[str, ...], state: Path) -> None:
    """64, with the reason and no secret."""
    ran = fleet(*words, state=state)
    assert (ran.status, ran.out) == (64, "")
    assert "Error: " in ran.err
    assert "secret@" not in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--silent-after", "48h"),
            "silent after 2 days (--silent-after), but points are read only for 24 h "
            "(the default of --look-back): give --look-back 48h or more",
        ),
        (("--look-back", "1m"), "after 10 min (fleet.silent_after, or its default), .* for 60 s (--look-back): .* 1h"),
    ],
)
def test_two_spans_that_do_not_fit_are_both_named(words: tuple[str, ...], said: str, state: Path) -> None:
    """With where each comes from, and what to give."""
    ran = fleet("--demo", *words, state=state)
    assert ran.status == 64
    pattern = re.escape(said).replace(r"\.\*", ".*")
    assert re.search(pattern, ran.err.replace("\n", " "))


@pytest.mark.parametrize(
    "words",
    [
        ("--site", "ams"), ("--inventory", "x"), ("--flagged",), ("--limit", "3"), ("--output", "x"), ("--html", "x"),
        ("--period", "1h"), ("--before", "1h"),
    ],
)  # fmt: skip
def test_options_that_mean_nothing_to_an_order_are_refused(words: tuple[str, ...], state: Path) -> None:
    """They are named, and not ignored."""
    ran = fleet("--demo", *words, "order", "ams-db-1", "ams-web-2", state=state)
    assert (ran.status, ran.out) == (64, "")
    assert f"{words[0]}: no effect on `order`" in ran.err


@pytest.mark.parametrize(
    ("words", "config", "said"),
    [
        ((), "", "no database is named"),
        ((), "[fleet]\nurl = 'http://127.0.0.1:9'\ntoken_file = '{token}'\n", ":3: fleet.token_file: .* chmod 600"),
        ((), "[fleet]\nurll = 'x'\n", ":2: fleet.urll: unknown"),
        (
            (),
            "[fleet]\nurl = 'http://127.0.0.1:9'\ninventory = '/no/where'\n",
            ":3: fleet.inventory: /no/where: No such",
        ),
        (("--inventory", "/no/where"), "", "--inventory: /no/where: No such file"),
        (("--demo", "--output", "/no/where/x"), "", "cannot write /no/where/x"),
        (("--url", NOWHERE, "--output", "/no/where/x"), "", "cannot write /no/where/x"),
        (("--inventory", "/no/where", "--output", "/no/where/x"), "", "--inventory: /no/where: No such file"),
        (("--demo", "--at", "2100-01-01"), "", "--at is after the end of the demonstration"),
        (("--demo", "--at", "9d"), "", "--at: the demonstration has no data in the 24 h before "),
    ],
)
def test_a_plugin_reports_any_fault_in_its_line(
    words: tuple[str, ...], config: str, said: str, state: Path, tmp_path: Path
) -> None:
    """Monitoring looks at standard output and at 3, and at nothing else."""
    token = tmp_path / "token"
    token.write_text("x")
    token.chmod(0o644)
    file = tmp_path / "x.toml"
    file.write_text(config.replace("{token}", str(token)))
    ran = fleet("--config", str(file), "--format", "nagios", *words, state=state)
    assert (ran.status, ran.err) == (3, "")
    assert re.match(rf"NTPAUDIT UNKNOWN - .*{said}.*\n\Z", ran.out)


def test_hints_name_what_was_given(state: Path, tmp_path: Path) -> None:
    """Options where those were given, keys where a file was read; and a command that reads the same place."""
    ran = fleet("--url", NOWHERE, "--language", "promql", state=state)
    assert "start the database, or check --url" in " ".join(ran.out.split())
    config = tmp_path / "a file.toml"
    config.write_text(f"[fleet]\nurl = '{NOWHERE}'\n")
    assert "or check fleet.url" in fleet("--config", str(config), state=state).out
    config.write_text(f"[influxdb]\nurl = '{NOWHERE}'\n")
    assert "or check influxdb.url" in fleet("--config", str(config), state=state).out
    assert "or check INFLUXDB_V2_URL" in fleet(state=state, INFLUXDB_V2_URL=NOWHERE).out
    store = str(state / "state" / "demo.sqlite3")
    said = " ".join(fleet("--store", store, "order", "zzz", "ams-db-1", state=state).out.split())
    assert f"list the hosts with `ntpaudit fleet --store {store}`" in said


def test_a_demonstration_elsewhere(state: Path, tmp_path: Path) -> None:
    """`--store` names the file, and nothing of this host's is read."""
    ran = fleet("--store", str(state / "state" / "demo.sqlite3"), "--config", "/no/where", state=tmp_path)
    assert ran.status == 2
    assert ran.out.startswith("CRITICAL  1 of 13 clocks")
    missing = fleet("--store", "/no where", state=tmp_path)
    assert missing.status == 3
    assert missing.out.endswith("fix: create one: ntpaudit demo --store '/no where'\n")
    for path, said in (
        ("/etc/passwd", "/etc/passwd is not a demo database"),
        (str(tmp_path), f"{tmp_path} is a folder"),
    ):
        ran = fleet("--store", path, state=tmp_path)
        assert ran.status == 3
        assert f"{said} fix: name another file with --store; `ntpaudit demo --store FILE`" in " ".join(ran.out.split())


def test_the_name_of_a_database_is_an_option(state: Path) -> None:
    """Where there is nothing, the error names the kind of database, and the fix."""
    with influxd() as url:
        ran = fleet("--url", url, "--database", "other", state=state)
        said = " ".join(ran.out.split())
        assert (ran.status, ran.err) == (3, "")
        assert "database not found: other" in said
        assert "check --database" in said
        wrong = " ".join(fleet("--url", url, "--language", "promql", state=state).out.split())
        assert "this is InfluxDB, not VictoriaMetrics fix: --language influxql" in wrong


def test_a_web_page_is_recognised_by_its_title(state: Path) -> None:
    """What any other server answers is not poured over the verdict."""
    page = "<!DOCTYPE HTML>\n<html lang=en>\n<head><title>Error\n  response</title></head><body>" + "<p>x" * 99
    with FlakyDatabase(choose=lambda request: Answer(404, page)) as database:
        ran = fleet("--url", database.url, "--format", "nagios", state=state)
    assert ran.status == 3
    assert f"{database.url}: queried in InfluxQL, replies 404: a web page, 'Error response'; check --url" in ran.out
    assert "<" not in ran.out


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
    report = json.loads(fleet("--url", NOWHERE, "--format", "json", state=state).out)
    assert (report["severity"], report["hosts"]) == ("unknown", None)
    assert "127.0.0.1:9" in report["summary"]
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
    """It is replaced at once; one that cannot be written is reported, and ends with 3."""
    target = tmp_path / "fleet.json"
    ran = fleet("--demo", "--format", "json", "--output", str(target), state=state)
    assert (ran.status, ran.out, ran.err) == (2, "", "")
    assert json.loads(target.read_text())["severity"] == "critical"
    ran = fleet("--demo", "--output", str(tmp_path / "no" / "x"), state=state)
    assert (ran.status, ran.out) == (3, "")
    assert "cannot write" in ran.err


def test_a_page_beside_the_result(state: Path, tmp_path: Path) -> None:
    """--html writes the page over the period, and the result is shown as always."""
    page = tmp_path / "fleet.html"
    ran = fleet("--demo", "--html", str(page), "--period", "6h", "--format", "nagios", state=state)
    assert (ran.status, ran.err) == (2, "")
    assert ran.out.startswith("NTPAUDIT CRITICAL - 1 of 13 clocks")
    html = page.read_text()
    assert html.lower().startswith("<!doctype html>")
    assert "ams-web-1" in html
    assert "the demonstration" in html


def test_only_a_page_imports_the_template_engine(state: Path, tmp_path: Path) -> None:
    """No other format pays for it, nor has to have it."""
    alone = {"PYTHONPROFILEIMPORTTIME": "1", "COVERAGE_PROCESS_CONFIG": ""}  # coverage would bring its own imports
    page = ("--html", str(tmp_path / "fleet.html"))
    for words, imported in ((page, True), *((("--format", name), False) for name in ("text", "json", "csv", "nagios"))):
        ran = fleet("--demo", *words, state=state, **alone)
        names = {line.rsplit("|", 1)[1].strip() for line in ran.err.splitlines() if line.startswith("import time:")}
        assert "ntpaudit.fleet.reader" in names, ran.err[-300:]
        assert ("jinja2" in names) is imported, words


def test_a_page_on_standard_output(state: Path, tmp_path: Path) -> None:
    """Then nothing else is there: the result goes to a file, or nowhere, and what is wrong to standard error."""
    ran = fleet("--demo", "--html", "-", state=state)
    assert (ran.status, ran.err) == (2, "")
    assert ran.out.lower().startswith("<!doctype html>")
    assert ran.out.rstrip().endswith("</html>")
    target = tmp_path / "line"
    both = fleet("--demo", "--html", "-", "--output", str(target), "--format", "nagios", state=state)
    assert both.out == ran.out
    assert target.read_text().startswith("NTPAUDIT CRITICAL")
    lost = fleet("--url", NOWHERE, "--html", "-", state=state)
    assert (lost.status, lost.out) == (3, "")
    assert "refused; start the database" in lost.err


@pytest.mark.parametrize("name", ["text", "json", "csv", "nagios"])
def test_a_page_that_cannot_be_written_leaves_the_exit_status(name: str, state: Path, tmp_path: Path) -> None:
    """A critical fleet stays critical, and is shown as always; why there is no page is on standard error."""
    for page in (tmp_path / "none" / "fleet.html", Path("/dev/full")):
        ran = fleet("--demo", "--format", name, "--html", str(page), state=state)
        assert ran.status == 2
        assert ran.out
        assert f"page not written: cannot write {page}" in ran.err
    (tmp_path / "unreadable.html").write_text("")
    (tmp_path / "unreadable.html").chmod(0o200)
    assert fleet("--demo", "--format", name, "--html", str(tmp_path / "unreadable.html"), state=state).status == 2


def test_a_page_stays_where_nothing_could_be_read(state: Path, tmp_path: Path) -> None:
    """It bears its own date; the exit status shows that it was not renewed."""
    page = tmp_path / "fleet.html"
    page.write_text("of yesterday")
    assert fleet("--url", NOWHERE, "--html", str(page), state=state).status == 3
    assert page.read_text() == "of yesterday"


def test_the_order_of_two_hosts(state: Path) -> None:
    """0 where events can be ordered within the ambiguity, 1 where not; options stand before or behind."""
    wide = fleet("--demo", "order", "ams-web-1", "fra-db-2", state=state)
    assert wide.status == 1
    assert wide.out.startswith("WARNING  timestamps on ams-web-1 and fra-db-2 can order events more than")
    close = fleet("order", "--demo", "ams-web-2", "fra-db-2", "--format", "json", state=state)
    assert close.status == 0
    assert json.loads(close.out)["hosts"] == ["ams-web-2", "fra-db-2"]
    assert fleet("--demo", "order", "ams-web-2", "fra-db-2", "--ambiguity", "1ms", state=state).status == 1
    before = fleet("--demo", "--format", "json", "--ambiguity", "1ms", "order", "ams-web-2", "fra-db-2", state=state)
    assert before.status == 1
    assert json.loads(before.out)["severity"] == "warning"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("fra-gw", "fra-gw has been silent for 60.5 min"),
        ("fra-laptop", "the clock of fra-laptop was not measured"),
        ("ams-web-11", "did you mean ams-web-1?"),
        ("FRA-DB-3.example.net", "did you mean fra-db-3?"),
        ("zzz", "list the hosts with `ntpaudit fleet --demo`"),
    ],
)
def test_an_unknown_order(other: str, said: str, state: Path) -> None:
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


def clock_lines(host: str, stamps_ns: Iterable[int], *, severity: int = 0, tags: str = "") -> str:
    """Write points of a host whose clock was right within 10 ms, whatever its agent found besides."""
    measured = "verdict=0i,offset_s=0.0,earliest_s=-0.01,latest_s=0.01,age_s=5.0,usable=4i,falsetickers=0i,findings=0i"
    return "".join(f"ntpaudit_clock,host={host}{tags} severity={severity}i,{measured} {ns}\n" for ns in stamps_ns)


@pytest.mark.parametrize(("shift", "said"), [("-20m", "behind"), ("+20m", "ahead of")])
def test_a_reading_clock_that_is_wrong_judges_nothing(state: Path, shift: str, said: str) -> None:
    """Behind or ahead, it reads the database's present: hosts that went wrong since, and no silent host."""
    now_ns = time.time_ns()
    ages_s = range(3600, 0, -60)
    lines = clock_lines("well", (now_ns - age_s * 10**9 for age_s in ages_s)) + "".join(
        clock_lines("wrong", [now_ns - age_s * 10**9], severity=3 if age_s < 600 else 0) for age_s in ages_s
    )
    with victoria_metrics() as url:
        urlopen(Request(f"{url}/write", lines.encode()), timeout=60).close()
        urlopen(f"{url}/internal/force_flush", timeout=60).close()
        words = ("--url", url, "--language", "promql", "--format", "json")
        right = fleet(*words, state=state)
        faked = {
            "LD_PRELOAD": str(library("libfaketime.so.1")),
            "FAKETIME": shift,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        wrong = fleet(*words, state=state, **faked)
        plugin = fleet(*words[:-1], "nagios", state=state, **faked)
        then = fleet(*words, "--at", format_utc(now_ns - 1200 * 10**9), state=state, **faked)
    assert right.err == ""
    assert json.loads(right.out)["notes"] == []
    for ran in (right, wrong):
        hosts = {one["host"]: (one["severity"], one["silent"]) for one in json.loads(ran.out)["hosts"]}
        assert hosts == {"well": ("ok", False), "wrong": ("critical", False)}
    note = f"the clock of this machine is 20 min {said} that of the database, which decides which hosts are silent"
    assert note in " ".join(wrong.err.split())
    assert note in json.loads(wrong.out)["notes"][0]
    assert f"; {note}" in plugin.out.partition("|")[0]
    assert plugin.status == 2
    assert {one["host"]: one["severity"] for one in json.loads(then.out)["hosts"]} == {"well": "ok", "wrong": "ok"}
    assert then.err == ""


def test_one_environment_alone(state: Path) -> None:
    """What of other environments lies in the database does not count, by the option or the configuration."""
    now_ns = time.time_ns()
    with influxd() as url:
        lines = clock_lines("web1", [now_ns], tags=",env=prod") + clock_lines("fake1", [now_ns], tags=",env=demo")
        urlopen(Request(f"{url}/write?db=ntpaudit", lines.encode()), timeout=60).close()
        config = state / "env.toml"
        config.write_text(f"[fleet]\nurl = '{url}'\nenv = 'demo'\n")
        for words, names in (
            (("--url", url), ["fake1", "web1"]),
            (("--url", url, "--env", "prod"), ["web1"]),
            (("--config", str(config)), ["fake1"]),
            (("--config", str(config), "--env", "prod"), ["web1"]),
        ):
            report = json.loads(fleet(*words, "--format", "json", state=state).out)
            assert [one["host"] for one in report["hosts"]] == names
        lost = fleet("--url", url, "--env", "test", "--site", "ams", state=state)
        said = " ".join(lost.out.split())
        assert "no agent of site 'ams' and environment 'test' has delivered anything" in said
        assert "check the names of the site and the environment" in said


@pytest.mark.parametrize(
    ("configured", "environment", "sent"),
    [
        ("[fleet]\nurl = '{url}'\ntoken_file = '{file}'\n", {}, "Token of-the-file"),
        ("[fleet]\nurl = 'http://other'\ntoken_file = '{file}'\n", {}, None),
        ("[fleet]\ntoken_file = '{file}'\n", {}, None),
        ("[influxdb]\nurl = '{url}'\ntoken_file = '{file}'\n", {}, "Token of-the-file"),
        ("[influxdb]\nurl = 'http://other'\ntoken_file = '{file}'\n", {}, None),
        ("[influxdb]\nurl = 'http://other'\n", {"INFLUXDB_V2_TOKEN": "of-the-environment"}, None),
        ("[fleet]\nurl = 'http://other'\n", {"INFLUXDB_V2_TOKEN": "of-the-environment"}, None),
        ("", {"INFLUXDB_V2_TOKEN": "of-the-environment", "INFLUXDB_V2_URL": "http://other"}, None),
        ("", {"INFLUXDB_V2_TOKEN": "of-the-environment"}, "Token of-the-environment"),
    ],
)
def test_a_token_is_sent_only_where_it_belongs(
    configured: str, environment: dict[str, str], sent: str | None, state: Path, tmp_path: Path
) -> None:
    """Another server that `--url` names gets no token of the configuration's, nor of the environment's."""
    file = tmp_path / "token"
    file.write_text("of-the-file")
    file.chmod(0o600)
    with FlakyDatabase(choose=lambda request: Answer(401)) as database:
        config = tmp_path / "x.toml"
        config.write_text(configured.format(url=database.url, file=file))
        ran = fleet("--config", str(config), "--url", database.url, state=state, **environment)
    assert database.requests
    assert {request.headers.get("authorization") for request in database.requests} == {sent}
    assert ran.status == 3
    assert ("beside its URL in fleet.url" in " ".join(ran.out.split())) == (sent is None)


def test_a_page_that_fails_loses_no_verdict(state: Path, tmp_path: Path) -> None:
    """The result is shown first, the failure on standard error; critical stays critical, and ok becomes unknown."""
    ran = fleet("--demo", "--html", "/no/where/x", "--format", "nagios", state=state)
    assert ran.status == 2
    assert ran.out.startswith("NTPAUDIT CRITICAL - 1 of 13 clocks")
    assert "page not written: cannot write /no/where/x" in ran.err
    target = tmp_path / "fleet.json"
    words = ("--demo", "--html", "/no/where/x", "--site", "sto", "--format", "json", "--output", str(target))
    assert fleet(*words, state=state).status == 3
    assert json.loads(target.read_text())["severity"] == "warning"


def test_a_table_stays_where_nothing_could_be_read(state: Path, tmp_path: Path) -> None:
    """An empty file would look like a fleet without a host."""
    target = tmp_path / "fleet.csv"
    target.write_text("of yesterday")
    ran = fleet("--url", NOWHERE, "--format", "csv", "--output", str(target), state=state)
    assert ran.status == 3
    assert "refused; start the database" in ran.err
    assert target.read_text() == "of yesterday"


def test_machines_of_one_name_are_reported_and_not_ordered(state: Path, tmp_path: Path) -> None:
    """The worst of them is reported, at each of their sites; nothing is stated about their order."""
    store = tmp_path / "demo.sqlite3"
    now_ns = 1_800_000_000 * 10**9
    with DemoStore(str(store)) as demo:
        for site, host, severity in (("ams", "two", 0), ("fra", "two", 3), ("ams", "one", 0)):
            fields = {"severity": severity, "verdict": 0, "offset_s": 0.0, "earliest_s": -0.01, "latest_s": 0.01}
            tags = {"host": host, "site": site, "env": None}
            late_s = 200 if site == "fra" else 0
            stamps = (now_ns - (age_s + late_s) * 10**9 for age_s in range(0, 400, 60))
            demo.write([Point("ntpaudit_clock", tags, fields, stamp_ns) for stamp_ns in stamps], now_ns)
        demo.finish(now_ns)
    for words, site in (((), "fra"), (("--site", "fra"), "fra")):
        ran = fleet("--store", str(store), *words, "--format", "json", state=state)
        report = {one["host"]: (one["site"], one["severity"]) for one in json.loads(ran.out)["hosts"]}
        assert (ran.status, report["two"]) == (2, (site, "critical"))
        assert "duplicate-host" in [finding["id"] for finding in json.loads(ran.out)["findings"]]
    for pair in (("two", "one"), ("one", "two")):
        ran = fleet("--store", str(store), "order", *pair, "--format", "json", state=state)
        said = json.loads(ran.out)
        assert (ran.status, said["hosts"]) == (3, None)
        assert said["reason"] == "several machines report under the name two, so its points are not of one clock"
        assert "host.name" in said["remedy"]


@pytest.mark.parametrize(("ahead_s", "is_shown"), [(20, False), (-20, False), (1200, True), (-1200, True)])
def test_every_format_shows_whose_clock_it_was_judged_by(*, ahead_s: int, is_shown: bool, state: Path) -> None:
    """Also where only the first answer had a date; a difference within the tolerance is not reported."""
    names = {"name": "ntpaudit_clock", "columns": ["key", "value"], "values": [["host", "web1"]]}
    known = json.dumps({"results": [{"statement_id": 0, "series": [names]}]})

    def choose(request: Flaky) -> Answer:
        if "/ping" in request.target:
            return Answer(204, "", (("Date", formatdate(time.time() + ahead_s, usegmt=True)),))
        return Answer(200, known if "SHOW+TAG+VALUES" in request.target else '{"results":[{"statement_id":0}]}')

    with FlakyDatabase(choose=choose) as database:
        for name in ("text", "json", "csv", "nagios"):
            ran = fleet("--url", database.url, "--format", name, state=state)
            assert ran.status == 3
            assert ("that of the database" in " ".join(ran.err.split())) is is_shown
            if name in ("json", "nagios"):
                assert ("that of the database" in ran.out) is is_shown
        absolute = fleet("--url", database.url, "--at", "2026-01-01", state=state)
        assert absolute.err == ""
        assert "as of     2026-01-01 00:00:00 UTC" in absolute.out


def test_an_undecidable_order_is_a_result(state: Path) -> None:
    """A program that waits for one schema gets that one, whatever came of it."""
    ran = fleet("--url", NOWHERE, "order", "a", "b", "--format", "json", state=state)
    report = json.loads(ran.out)
    assert (ran.status, report["schema"], report["severity"]) == (3, "ntpaudit.fleet-order/1", "unknown")
    assert report["hosts"] is None


@pytest.mark.untraced
def test_the_cost_of_ten_thousand_hosts_grows_no_faster_than_their_number() -> None:
    """Sixteen times the hosts take about sixteen times as long to judge and to show, and not 256 times."""
    some = [one for one in SNAPSHOT.hosts if one.name.startswith("sto")]

    def many(times: int) -> Snapshot:
        hosts = tuple(
            one._replace(name=f"{one.name}-{number}", site=f"s{number % 50}") for number in range(times) for one in some
        )
        before = {one.name: one.offset for one in hosts if one.offset is not None}
        return SNAPSHOT._replace(hosts=hosts, baseline=before)

    small, large = many(125), many(2000)
    assert growth(lambda: judge_fleet(small, FleetPolicy()), lambda: judge_fleet(large, FleetPolicy())) < LINEAR_GROWTH
    few, all_hosts = judge_fleet(small, FleetPolicy()), judge_fleet(large, FleetPolicy())
    assert fleet_text.render(all_hosts, all_hosts.members).count("\n") > 10_000
    assert (
        growth(lambda: fleet_text.render(few, few.members), lambda: fleet_text.render(all_hosts, all_hosts.members))
        < LINEAR_GROWTH
    )


def test_columns_are_obeyed_in_a_pipe(state: Path) -> None:
    """$COLUMNS says how wide lines may be also where no terminal is; nonsense in it counts for nothing."""
    wide = ntpaudit("fleet", "--demo", state=state).out
    narrow = ntpaudit("fleet", "--demo", state=state, environment={"COLUMNS": "70"}).out
    assert max(map(len, narrow.splitlines())) <= 70 < max(map(len, wide.splitlines()))
    assert ntpaudit("fleet", "--demo", state=state, environment={"COLUMNS": "wide"}).out == wide

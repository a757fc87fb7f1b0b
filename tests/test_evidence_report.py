"""`ntpaudit evidence report` as an auditor calls it: from a history and from databases, with bad input."""

import csv
import json
import shutil
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ntpaudit.cli.evidence_report import parse_period
from ntpaudit.core.accounting import InForce, Spans
from ntpaudit.core.accounts import DAY, Account
from ntpaudit.core.evidence.report import exact
from ntpaudit.core.excursions import Excursion
from ntpaudit.core.policy import PROFILES
from ntpaudit.core.record import HostIdentity
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.demo.scenario import build_scenario
from ntpaudit.fleet import open_reader
from ntpaudit.formats.line_protocol import render_account
from tests.command import Ran, ntpaudit
from tests.demo.expected import expected_findings
from tests.histories import World, write
from tests.records import NOW_NS
from tests.reports.test_evidence import SCHEMA
from tests.reports.test_markup import Parsed
from tests.world.servers import influxd, victoria_metrics

BEGIN = 1_782_864_000  # 2026-07-01
QUARTER = 92
HISTORY_BEGIN_NS = NOW_NS // (DAY * NS_PER_S) * DAY * NS_PER_S


def report(*words: str, state: Path, **environment: str) -> Ran:
    """Run `ntpaudit evidence report` in a home, with the time at which a report is made."""
    variables = {"XDG_CONFIG_HOME": str(state / "etc"), "SOURCE_DATE_EPOCH": "1790000000"} | environment
    return ntpaudit("evidence", "report", *words, state=state, environment=variables)


def content(ran: Ran) -> dict[str, Any]:
    """Return the content of a report as JSON, which is as its schema has it."""
    data = json.loads(ran.out)
    jsonschema.validate(data, SCHEMA)
    found: dict[str, Any] = data["content"]
    return found


def day(when: int) -> str:
    """Write a day for an option."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of a host: 45 minutes without an agent, an hour in which the clock is 3 s behind."""
    path = tmp_path_factory.mktemp("history") / "history.sqlite3"
    world = World(
        begin_ns=HISTORY_BEGIN_NS,
        runs=lambda minute: not 100 <= minute < 145,
        stepped_s=lambda minute: 3.0 if 600 <= minute < 660 else 0.0,
    )
    write(path, world, range(2 * 1440 + 2))
    return path


def test_one_host_from_its_history(history: Path, tmp_path: Path) -> None:
    """Each second of two days is accounted for, and the excursion has its cause."""
    since_s = HISTORY_BEGIN_NS // NS_PER_S
    span = ("--from", day(since_s), "--to", day(since_s + 2 * DAY))
    ran = report(*span, "--history", str(history), "--format", "json", state=tmp_path)
    assert (ran.status, ran.err) == (2, "")
    (host,) = content(ran)["hosts"]
    assert host["name"] == "web1"
    spans = host["balance"]["spans_s"]
    assert sum(spans.values()) == 2 * DAY
    assert spans["beyond"] == 61 * 60  # the minute before the step has the worse verdict
    assert spans["unaccounted"] == spans["off"] == 0
    assert spans["absent"] == 1 + 46 * 60
    (excursion,) = host["excursions"]
    assert excursion["proved_s"] > 2.9
    assert [step["size_s"] for step in host["steps"]] == [-3.0, 3.0]
    assert len(host["sources"]) >= 1
    again = report(*span, "--history", str(history), "--format", "json", state=tmp_path)
    assert again.out == ran.out


def test_every_format_of_a_history(history: Path, tmp_path: Path) -> None:
    """A page, tables and JSON are written, and have the same seconds."""
    span = ("--period", parse_month(HISTORY_BEGIN_NS), "--history", str(history))
    page = report(*span, "--output", str(tmp_path / "report.html"), state=tmp_path)
    assert page.status == 2
    assert "1:01:00" in (tmp_path / "report.html").read_text()
    tables = report(*span, "--format", "csv", "--output", str(tmp_path / "tables"), state=tmp_path)
    assert tables.status == 2
    (row,) = csv.DictReader((tmp_path / "tables" / "hosts.csv").read_text().splitlines())
    assert row["beyond_s"] == "3660"
    manifest = json.loads((tmp_path / "tables" / "manifest.json").read_text())["manifest"]
    assert set(manifest) >= {path.name for path in (tmp_path / "tables").glob("*.csv")}


def parse_month(when_ns: int) -> str:
    """Write the month of a time."""
    return datetime.fromtimestamp(when_ns / NS_PER_S, UTC).strftime("%Y-%m")


@pytest.mark.needs("pango")
def test_a_pdf_and_what_cannot_be_written(history: Path, tmp_path: Path) -> None:
    """A PDF goes to a file or a pipe; a folder that is missing is no traceback, and no report is half written."""
    span = ("--period", parse_month(HISTORY_BEGIN_NS), "--history", str(history))
    path = tmp_path / "report.pdf"
    assert report(*span, "--format", "pdf", "--output", str(path), state=tmp_path).status == 2
    assert path.read_bytes().startswith(b"%PDF-")
    for name in ("html", "pdf", "json"):
        ran = report(*span, "--format", name, "--output", str(tmp_path / "none" / "x"), state=tmp_path)
        assert (ran.status, ran.out) == (3, "")
        assert "create its folder" in ran.err
    ran = report(*span, "--format", "csv", "--output", str(path), state=tmp_path)
    assert ran.status == 3
    assert str(path) in ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give the period"),
        (("--from", "2026-07-01"), "give the period"),
        (("--period", "2026Q3", "--to", "2026-07-01"), "cannot be combined"),
        (("--period", "2026Q5"), "no period"),
        (("--from", "2026-07-01", "--to", "2026-07-01"), "no length"),
        (("--from", "2026-07-02", "--to", "2026-07-01"), "no length"),
        (("--from", "2026-07-01T10:30", "--to", "2026-07-02"), "not a full hour"),
        (("--from", "2090-01-01", "--to", "2091-01-01"), "in the future"),
        (("--period", "2026", "--site", "ams", "--all"), "exclude each other"),
        (("--period", "2026", "--host", ""), "--host is empty"),
        (("--period", "2026", "--format", "csv"), "name a folder"),
        (("--period", "2026", "--previous", "/nowhere"), "--previous /nowhere"),
        (("--period", "2026", "--history", "x", "--all"), "--history is for"),
    ],
)
def test_usage_errors_name_the_fix(words: tuple[str, ...], message: str, history: Path, tmp_path: Path) -> None:
    """Exit status 64, and no report that looks like one."""
    more = () if "--history" in words else ("--history", str(history))
    ran = report(*words, *more[: 0 if "--all" in words or "--host" in words else 2], state=tmp_path)
    assert ran.status == 64
    assert message in ran.err
    assert ran.out == ""


def test_periods_have_names() -> None:
    """A year, a quarter and a month; nothing else."""
    assert parse_period("2026") == (1_767_225_600, 1_798_761_600)
    assert parse_period("2026Q3") == (BEGIN, BEGIN + QUARTER * DAY)
    assert parse_period("2026-12") == (1_796_083_200, 1_798_761_600)
    for text in (
        "",
        "26",
        "2026Q",
        "2026Q0",
        "2026-13",
        "2026-1",
        "2026-09-01",
        "Q3",
        "\u0662\u0660\u0662\u0666",
        "1969",
        "9999",
    ):
        with pytest.raises(ValueError, match="such as 2026, 2026Q3 or 2026-09"):
            parse_period(text)


def test_a_damaged_history_is_stated(history: Path, tmp_path: Path) -> None:
    """Rows that cannot be read are no traceback, and their time is not within."""
    path = tmp_path / "history.sqlite3"
    shutil.copy(history, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE audits SET record = x'00ff' WHERE id BETWEEN 500 AND 900")
        connection.execute("UPDATE audits SET verdict = 'x' WHERE id BETWEEN 1200 AND 1300")
        connection.commit()
    since_s = HISTORY_BEGIN_NS // NS_PER_S
    span = ("--from", day(since_s), "--to", day(since_s + 2 * DAY), "--format", "json")
    ran = report(*span, "--history", str(path), state=tmp_path)
    assert ran.status == 2
    assert "Traceback" not in ran.err
    whole = report(*span, "--history", str(history), state=tmp_path)
    assert _within(ran) < _within(whole)


def test_the_chain_of_a_history_is_verified(history: Path, tmp_path: Path) -> None:
    """An untouched history passes; one that was edited fails, whatever it shows of the clock."""
    since_s = HISTORY_BEGIN_NS // NS_PER_S
    span = ("--from", day(since_s + DAY), "--to", day(since_s + DAY + 6 * HOUR_S), "--format", "json")
    state = tmp_path / "copy"
    state.mkdir()
    path = state / "history.sqlite3"
    shutil.copy(history, path)
    checks = {
        one["name"]: one["result"]
        for one in content(report(*span, "--history", str(path), state=tmp_path))["verification"]
    }
    assert [checks.pop(name) for name in ("delivered", "anchored")] == ["not-done"] * 2
    assert set(checks.values()) == {"passed"}
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE audits SET verdict = 0, offset_ns = 1 WHERE id = 620")
        connection.commit()
    ran = report(*span, "--history", str(path), state=tmp_path)
    assert ran.status == 2
    assert [one["name"] for one in content(ran)["verification"] if one["result"] == "failed"] == ["rows"]
    assert content(ran)["answer"][2] == "The records failed 1 check and cannot be relied on: rows."
    assert content(ran)["hosts"][0]["result"] == "within"


def test_exceptions_of_a_file(history: Path, tmp_path: Path) -> None:
    """What a file accepts is listed with its owner; it covers the excursion, and its hash is in the manifest."""
    since_s = HISTORY_BEGIN_NS // NS_PER_S
    span = ("--from", day(since_s + 9 * HOUR_S), "--to", day(since_s + 12 * HOUR_S), "--history", str(history))
    path = tmp_path / "exceptions.toml"
    path.write_text(
        f'[[accept]]\nfinding = "offset-out"\nreason = "move of the rack"\nby = "J. Doe"\nhost = "web*"\n'
        f'until = "{day(since_s + 11 * HOUR_S)}"\n'
    )
    ran = report(*span, "--exceptions", str(path), "--format", "json", state=tmp_path)
    (one,) = content(ran)["exceptions"]
    assert (one["by"], one["hosts"], one["covered_s"]) == ("J. Doe", 1, 59 + HOUR_S)
    assert content(ran)["all_hosts"]["excepted_s"]["beyond"] == 59 + HOUR_S
    assert json.loads(ran.out)["manifest"]["exceptions"] == sha256(path.read_bytes()).hexdigest()
    path.write_text("[[accept]]\nfinding = 5\n")
    ran = report(*span, "--exceptions", str(path), state=tmp_path)
    assert ran.status == 64
    assert "--exceptions" in ran.err


def _within(ran: Ran) -> int:
    seconds: int = content(ran)["all_hosts"]["spans_s"]["within"]
    return seconds


def test_nothing_to_read_is_unknown(tmp_path: Path) -> None:
    """Without a history or a database: exit status 3, and the reason."""
    ran = report("--period", "2026Q3", "--history", str(tmp_path / "none"), state=tmp_path)
    assert ran.status == 3
    assert str(tmp_path / "none") in ran.err
    ran = report("--period", "2026Q3", "--url", "http://127.0.0.1:9", state=tmp_path)
    assert ran.status == 3


def account(name: str, number: int, site: str = "ams", length_s: int = DAY, **spans: int) -> str:
    """Return the points of an account as an agent delivers it: a day of the quarter, or an hour of its first day."""
    begin_s = BEGIN + number * length_s
    settings = (InForce(begin_s, name, site, "prod", "machine", "1.1", "ab" * 32, PROFILES["log-integrity"]),)
    excursions: tuple[Excursion, ...] = ()
    if beyond := spans.get("beyond", 0):
        excursions = (
            Excursion(
                "beyond", begin_s + 60, begin_s + 60 + beyond, False, 1.1, 1.35, 1.1, 1.35, ("offset-out",), "a step"
            ),
        )
    one = Account(
        begin_s,
        length_s,
        Spans(within=length_s - sum(spans.values()), **spans),
        1440,
        -0.01,
        0.02,
        0.02,
        two_sources_s=length_s,
        in_force=settings,
        excursions=excursions,
    )
    identity = HostIdentity(name, site, "prod", "machine", None)
    lines = render_account(one, identity)
    if excursions and length_s != HOUR_S:  # an agent delivers excursions with its hours
        hour = one._replace(begin_s=begin_s, length_s=HOUR_S, spans=Spans(within=HOUR_S))
        lines += "".join(f"{line}\n" for line in render_account(hour, identity).splitlines() if "ntpaudit_exc" in line)
    return lines


def clock(name: str, site: str = "ams") -> str:
    """Return a point of a host, by which the database knows it."""
    return (
        f"ntpaudit_clock,env=prod,host={name},site={site} severity=0i,verdict=0i,offset_s=0.001,earliest_s=-0.01,"
        f"latest_s=0.01,usable=4i {(BEGIN + DAY) * NS_PER_S}\n"
    )


def fleet() -> Iterator[str]:
    """Yield the points of a fleet in which each host has a fault of its own, or none."""
    for number in range(QUARTER):
        yield account("good", number)
        yield account("wrong", number, beyond=90 if number == 4 else 0)
        yield account("dark", number, unmeasured=600 * (number == 5), absent=60 * (number == 6), off=7200)
        if number >= 10:
            yield account("late", number, "fra")
        yield account("moved", number, "ams" if number < 40 else "fra")
        yield account("twin", number)
        yield account("twin", number, "fra", unproven=300 * (number == 7))
    for number in range(24):
        yield account("hourly", number, length_s=HOUR_S, beyond=30 if number == 3 else 0)
    for number in range(10):
        yield account("died", number)
    for number in range(240, 246):  # of its last day, which no record has closed
        yield account("died", number, length_s=HOUR_S, beyond=40 if number == 244 else 0)
    for name in ("good", "wrong", "dark", "late", "moved", "twin", "hourly", "died", "old-agent"):
        yield clock(name)
    stamp_ns = (BEGIN + 4 * DAY + 60) * NS_PER_S
    event = "ntpaudit_event,env=prod,host=wrong,site=ams"
    yield f'{event},kind=offset-out severity=3i,raised=1i,title="x",text="x" {stamp_ns}\n'
    yield f"{event},kind=step-forward severity=1i,raised=1i,value_s=1.2 {stamp_ns}\n"


@pytest.fixture(scope="module")
def databases() -> Iterator[dict[str, str]]:
    """Both databases with the same fleet."""
    with influxd() as influx, victoria_metrics() as victoria:
        for url in (f"{influx}/write?db=ntpaudit", f"{victoria}/write"):
            urllib.request.urlopen(urllib.request.Request(url, "".join(fleet()).encode()), timeout=60).close()
        urllib.request.urlopen(f"{victoria}/internal/force_flush", timeout=30).close()
        yield {"influxql": influx, "promql": victoria}


@pytest.mark.needs("influxd", "victoria-metrics")
def test_both_databases_give_the_same_seconds(databases: dict[str, str], tmp_path: Path) -> None:
    """Shares, excursions, gaps and statements of a fleet; texts are in InfluxDB alone."""
    inventory = tmp_path / "hosts.txt"
    inventory.write_text("good\nwrong\ndark\nlate, fra\nmoved\ntwin\ndied\nold-agent\nnever\n")
    found = {}
    for language, url in databases.items():
        ran = report(
            *("--url", url, "--language", language, "--period", "2026Q3", "--inventory", str(inventory)),
            *("--format", "json"),
            state=tmp_path,
        )
        assert (ran.status, ran.err) == (2, "")
        found[language] = {one["name"]: one for one in content(ran)["hosts"]}
        assert [one["name"] for one in content(ran)["not_in_inventory"]] == ["hourly"]
    for hosts in found.values():
        whole = QUARTER * DAY
        spans = {
            name: {key: value for key, value in one["balance"]["spans_s"].items() if value}
            for name, one in hosts.items()
        }
        assert spans == {
            "good": {"within": whole},
            "wrong": {"within": whole - 90, "beyond": 90},
            "dark": {"within": whole - 660 - 7200 * QUARTER, "unmeasured": 600, "absent": 60, "off": 7200 * QUARTER},
            "late": {"within": whole - 10 * DAY, "unaccounted": 10 * DAY},
            "moved": {"within": whole},
            "twin": {"within": whole - 300, "unproven": 300},
            "died": {
                "within": 10 * DAY + 6 * HOUR_S - 40,
                "beyond": 40,
                "unaccounted": whole - 10 * DAY - 6 * HOUR_S,
            },
            "old-agent": {"unaccounted": whole},
            "never": {"unaccounted": whole},
        }
        (excursion,) = hosts["wrong"]["excursions"]
        assert (excursion["begin"], excursion["end"]) == ("2026-07-05T00:01:00Z", "2026-07-05T00:02:30Z")
        assert excursion["proved_s"] == 1.1
        assert [step["size_s"] for step in hosts["wrong"]["steps"]] == [1.2]
        assert [event["kind"] for event in hosts["wrong"]["events"]] == ["offset-out"]
        assert "two machines may use this name" in hosts["twin"]["statements"][0]
        assert "no accounts of time" in hosts["old-agent"]["statements"][0]
        assert hosts["never"]["statements"] == ["nothing is stored about this host in the period"]
        assert "no account exists before 2026-07-11" in hosts["late"]["statements"][0]
        assert hosts["good"]["result"] == "within"
    assert found["influxql"]["wrong"]["excursions"][0]["findings"] == ["offset-out"]
    assert found["influxql"]["wrong"]["profiles"] == ["log-integrity"]


@pytest.mark.needs("influxd", "victoria-metrics")
def test_hosts_a_site_and_a_part_of_a_day(databases: dict[str, str], tmp_path: Path) -> None:
    """Hours are read where the period is no whole day; only the hosts that were asked for are in the report."""
    for language, url in databases.items():
        place = ("--url", url, "--language", language, "--format", "json")
        part = ("--from", "2026-07-01T02:00", "--to", "2026-07-01T05:00")
        ran = report(*place, *part, "--host", "hourly", "--host", "nowhere", state=tmp_path)
        hosts = {one["name"]: one for one in content(ran)["hosts"]}
        assert hosts["hourly"]["balance"]["spans_s"]["beyond"] == 30
        assert hosts["hourly"]["balance"]["length_s"] == 3 * HOUR_S
        assert hosts["nowhere"]["result"] == "nothing-known"
        assert ran.status == 2
        ran = report(*place, "--period", "2026-07", "--host", "good", state=tmp_path)
        assert (ran.status, [one["name"] for one in content(ran)["hosts"]]) == (0, ["good"])
        ran = report(*place, "--period", "2026-07", "--site", "nowhere", state=tmp_path)
        assert ran.status == 3
        assert "nowhere" in ran.err


@pytest.mark.needs("influxd", "victoria-metrics")
def test_reading_again_gives_the_same_bytes(databases: dict[str, str], tmp_path: Path) -> None:
    """The order of rows in a reply, and where a point was written first, make no difference (EV4)."""
    for language, url in databases.items():
        words = ("--url", url, "--language", language, "--all", "--period", "2026Q3", "--format", "json")
        first = report(*words, state=tmp_path)
        assert first.out == report(*words, state=tmp_path).out
        with closing(open_reader(url=url, language=language)) as reader:
            assert reader.names(None) == {one["name"] for one in content(first)["hosts"]}


def test_the_parts_of_a_period_add_up(history: Path, tmp_path: Path) -> None:
    """A period that is cut at any hour has the same seconds as both parts."""
    since_s = HISTORY_BEGIN_NS // NS_PER_S
    ends = (since_s, since_s + 9 * HOUR_S, since_s + 33 * HOUR_S, since_s + 2 * DAY)
    parts = [
        content(
            report(
                *("--from", day(begin_s), "--to", day(end_s), "--history", str(history), "--format", "json"),
                state=tmp_path,
            )
        )["all_hosts"]["spans_s"]
        for begin_s, end_s in ((ends[0], ends[-1]), *pairwise(ends))
    ]
    whole, *pieces = parts
    assert whole == {state: sum(piece[state] for piece in pieces) for state in whole}


def test_another_tolerance_judges_the_stored_intervals(history: Path, tmp_path: Path) -> None:
    """By 5 s the hour that was 3 s wrong is within; by 1 ms nothing is proven; the report says so (EV5)."""
    since_s = HISTORY_BEGIN_NS // NS_PER_S
    span = (
        "--from",
        day(since_s + 4 * HOUR_S),
        "--to",
        day(since_s + DAY),
        "--history",
        str(history),
        "--format",
        "json",
    )
    wide = content(report(*span, "--critical", "5s", state=tmp_path))
    assert wide["all_hosts"]["spans_s"]["within"] == 20 * HOUR_S
    assert "within 5 s of UTC" in wide["answer"][0]
    narrow = content(report(*span, "--critical", "1ms", state=tmp_path))
    assert narrow["all_hosts"]["spans_s"]["within"] == 0
    assert any("judges again by 1 ms" in line for line in narrow["tolerance"])


def test_the_demonstration_is_reported_as_its_scenario_has_it(tmp_path: Path) -> None:
    """Seconds and excursions are those that its agents delivered, in each format; the hosts are as they were made."""
    store, end = tmp_path / "demo.sqlite3", BEGIN + 2 * DAY
    made = ntpaudit(
        *("demo", "--no-udp", "--hosts", "4", "--hours", "26", "--until", day(end), "--store", str(store)),
        state=tmp_path,
    )
    assert "Traceback" not in made.err
    since_s, until_s = end - 25 * HOUR_S, end - HOUR_S
    span = ("--store", str(store), "--from", day(since_s), "--to", day(until_s))
    hosts = {one["name"]: one for one in content(report(*span, "--format", "json", state=tmp_path))["hosts"]}
    report(*span, "--format", "csv", "--output", str(tmp_path / "tables"), state=tmp_path)
    report(*span, "--output", str(tmp_path / "report.html"), state=tmp_path)
    rows = {row["host"]: row for row in csv.DictReader((tmp_path / "tables" / "hosts.csv").read_text().splitlines())}
    page = Parsed((tmp_path / "report.html").read_text()).text
    with closing(sqlite3.connect(store)) as connection:
        sums = ", ".join(f"SUM({name}_s)" for name in Spans._fields)
        stored = connection.execute(
            f"SELECT host, {sums} FROM hour WHERE stamp_ns >= ? AND stamp_ns < ? GROUP BY host",
            (since_s * NS_PER_S, until_s * NS_PER_S),
        ).fetchall()
        excursions = connection.execute("SELECT host, state, stamp_ns, duration_s FROM excursion").fetchall()
    assert {name for name, *_ in stored} == set(hosts)
    for name, *seconds in stored:
        spans = dict(zip(Spans._fields, seconds, strict=True))
        assert hosts[name]["balance"]["spans_s"] == spans | {"unaccounted": 0}
        assert {state: int(rows[name][f"{state}_s"]) for state in spans} == spans
        assert all(exact(spans[state]) in page for state in ("beyond", "unproven") if spans[state])
        known = {(state, stamp_ns // NS_PER_S) for host, state, stamp_ns, duration_s in excursions if host == name
                 and stamp_ns // NS_PER_S < until_s and stamp_ns // NS_PER_S + duration_s > since_s}  # fmt: skip
        assert {(one["state"], begin_of(one)) for one in hosts[name]["excursions"]} == known
    scenario = build_scenario(4, 26, 1, end * NS_PER_S)
    expected = expected_findings(scenario)
    wrong = {name for name, one in hosts.items() if one["result"] == "beyond"}
    assert expected.critical <= wrong
    assert wrong <= expected.critical | {step.host for step in expected.stepped}


def begin_of(excursion: dict[str, Any]) -> int:
    """Return when an excursion of a report as JSON began."""
    return int(datetime.fromisoformat(excursion["begin"].replace("Z", "+00:00")).timestamp())

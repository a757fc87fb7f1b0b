"""A database that a demonstration fills: its kind, what is there already, and that it shows what was written."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ntpaudit.cli.demo import _findings
from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo import destination
from ntpaudit.demo.destination import DatabaseDestination, await_fleet, detect_language, last_points
from ntpaudit.demo.fleet import SimulatedFleet
from ntpaudit.demo.network import query_without_udp
from ntpaudit.demo.scenario import Scenario, build_scenario
from ntpaudit.demo.writers import StoreWriter
from ntpaudit.errors import ReadError
from ntpaudit.fleet import open_reader
from ntpaudit.fleet.demo_store import DemoStore
from ntpaudit.fleet.reader import Reader
from tests.command import ntpaudit
from tests.world.packages import REPOSITORY
from tests.world.servers import influxd, victoria_metrics

END_NS = 1_795_000_000 * NS_PER_S
UNREACHABLE = InfluxConfig("http://127.0.0.1:9")
FILL = ("demo", "--hours", "6", "--no-udp", "--influx-url")


@pytest.fixture(scope="module")
def metrics() -> Iterator[str]:
    """A VictoriaMetrics with nothing in it yet."""
    with victoria_metrics() as url:
        yield url


@pytest.fixture(scope="module")
def influx() -> Iterator[str]:
    """An InfluxDB with an empty database, too old for the API that points are written by."""
    with influxd() as url:
        yield url


@pytest.fixture(scope="module")
def story() -> Scenario:
    """Four hosts."""
    return build_scenario(4, 6.0, 1, END_NS)


@pytest.fixture(scope="module")
def reader(story: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A database in which the four are."""
    path = str(tmp_path_factory.mktemp("four") / "demo")
    with DemoStore(path) as store:
        SimulatedFleet(story, query_without_udp, StoreWriter(store)).run(END_NS)
        store.finish(END_NS)
    with closing(open_reader(path=path)) as opened:
        yield opened


def test_each_database_is_recognised(metrics: str, influx: str) -> None:
    """By its replies; a writer reports one that does not run."""
    assert detect_language(InfluxConfig(metrics), "secret") == "promql"
    assert detect_language(InfluxConfig(influx), "secret") == "influxql"
    assert detect_language(UNREACHABLE, None) == "influxql"
    assert detect_language(UNREACHABLE, "no \n token") == "influxql"


def test_what_is_there_is_known(reader: Reader, story: Scenario, metrics: str, influx: str) -> None:
    """Each host of a demonstration until its last point; nothing of an empty database; one that is away says so."""
    known = last_points(reader, story)
    assert known.keys() == {part.name for part in story.hosts}
    assert all(END_NS - 130 * NS_PER_S < last_ns <= END_NS for last_ns in known.values())
    for url in (metrics, influx):
        with closing(open_reader(url=url, language=detect_language(InfluxConfig(url), None))) as empty:
            assert last_points(empty, story) == {}
    with closing(open_reader(url=UNREACHABLE.url)) as away, pytest.raises(ReadError, match="no connection"):
        last_points(away, story)


def test_no_wait_is_without_end(
    reader: Reader, story: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet of which hosts are still missing is shown as it is after a while; without any host there is an error."""
    assert len(await_fleet(reader, story, END_NS, None).hosts) == 4
    monkeypatch.setattr(destination, "VISIBLE_WITHIN_S", 0.1)
    larger = build_scenario(24, 6.0, 1, END_NS)
    assert len(await_fleet(reader, larger, END_NS, END_NS).hosts) == 4
    path = str(tmp_path / "empty")
    with DemoStore(path) as store:
        store.finish(END_NS)
    with closing(open_reader(path=path)) as empty, pytest.raises(ReadError, match="has no host"):
        await_fleet(empty, story, END_NS, None)


def test_a_filled_database_is_shown_and_not_filled_twice(metrics: str, tmp_path: Path) -> None:
    """What is printed can be run as it is; a second filling is reported, and no past overwrites another."""
    ran = ntpaudit(*FILL, metrics, "--hosts", "6", "--until", "1h ago", state=tmp_path)
    assert (ran.status, ran.err.count("\n")) == (0, 1)
    assert "of 6 clocks" in ran.out
    command = next(line.split()[1:] for line in ran.out.splitlines() if line.startswith("  ntpaudit fleet"))
    assert {"--language", "--at"} <= set(command)
    assert ntpaudit(*command, state=tmp_path).out.splitlines()[:3] == ran.out.splitlines()[:3]
    count = _samples(metrics)
    again = ntpaudit(*FILL, metrics, "--hosts", "4", state=tmp_path)
    assert again.status == 0
    assert "another demonstration too: 2 hosts that are not in this one" in again.err
    assert "knows 4 of these hosts already" in again.err
    assert "each continues from there" in again.err
    assert 4 * 50 < _samples(metrics) - count < 4 * 150  # of an hour, and not of six


def test_a_past_that_is_named_is_written_whole(story: Scenario) -> None:
    """With --until a message states that the history mixes with what is there."""
    notes: list[str] = []
    database = DatabaseDestination(UNREACHABLE, None, story, until_ns=END_NS, note=notes.append)
    last_ns = {story.hosts[0].name: END_NS}
    assert database._to_continue(last_ns, notes.append) == {}
    assert "knows 1 of these hosts already: their histories will mix" in notes[-1]
    database.until_ns = None
    assert database._to_continue(last_ns, notes.append) == last_ns


def test_what_is_not_shown_in_time_is_reported(
    story: Scenario, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A database that was read before and cannot be now ends nothing: the fleet was written."""
    monkeypatch.setattr(destination, "VISIBLE_WITHIN_S", 0.0)
    database = DatabaseDestination(UNREACHABLE, None, story, note=print)
    assert _findings(database, END_NS) == ""
    assert "not shown, for what was written cannot be read: " in capfd.readouterr().err
    database.unreadable = None
    assert _findings(database, END_NS) == ""
    assert "cannot be read yet: http://127.0.0.1:9: no connection" in capfd.readouterr().err


def _samples(url: str) -> int:
    """Return how many points of clocks a database has, those too that it does not show yet."""
    urllib.request.urlopen(f"{url}/internal/force_flush", timeout=30).close()
    with urllib.request.urlopen(f"{url}/api/v1/export?match[]=ntpaudit_clock_severity&reduce_mem_usage=1") as answer:
        return sum(len(json.loads(line)["values"]) for line in answer)


def test_an_old_influxdb_is_named_as_such(influx: str, tmp_path: Path) -> None:
    """A refusal is reported once, with its probable cause."""
    ran = ntpaudit(*FILL, influx, "--hosts", "4", state=tmp_path)
    assert (ran.status, ran.out) == (3, "")
    assert "404: 404 page not found" in ran.err
    assert "upgrade it to InfluxDB 1.8 or later" in ran.err
    assert "'InfluxDB before 1.8'" in ran.err
    assert "## InfluxDB before 1.8\n" in (REPOSITORY / "docs" / "delivery.md").read_text()
    assert "influxdb." not in ran.err
    assert ran.err.count("cannot write to") == 1

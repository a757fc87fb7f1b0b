"""A database that a demonstration fills: what it is, what is there already, and that it is shown when it is told."""

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
NOBODY = InfluxConfig("http://127.0.0.1:9")
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
    with DemoStore.create(path) as store:
        SimulatedFleet(story, query_without_udp, StoreWriter(store)).run(END_NS)
        store.finish(END_NS)
    with closing(open_reader(path=path)) as opened:
        yield opened


def test_each_database_is_recognised(metrics: str, influx: str) -> None:
    """By what it says of itself; one that does not run is left to whoever writes to it."""
    assert detect_language(InfluxConfig(metrics), "secret") == "promql"
    assert detect_language(InfluxConfig(influx), "secret") == "influxql"
    assert detect_language(NOBODY, None) == "influxql"
    assert detect_language(NOBODY, "no \n token") == "influxql"


def test_what_is_there_is_known(reader: Reader, story: Scenario, metrics: str, influx: str) -> None:
    """Each host of a demonstration until its last point; nothing of an empty database; one that is away says so."""
    known = last_points(reader, story)
    assert known.keys() == {part.name for part in story.hosts}
    assert all(END_NS - 130 * NS_PER_S < last_ns <= END_NS for last_ns in known.values())
    for url in (metrics, influx):
        with closing(open_reader(url=url, language=detect_language(InfluxConfig(url), None))) as empty:
            assert last_points(empty, story) == {}
    with closing(open_reader(url=NOBODY.url)) as away, pytest.raises(ReadError, match="no connection"):
        last_points(away, story)


def test_nobody_waits_for_ever(
    reader: Reader, story: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet of which hosts are still missing is shown as it is after a while; where there is none, that is told."""
    assert len(await_fleet(reader, story, END_NS, None).hosts) == 4
    monkeypatch.setattr(destination, "VISIBLE_WITHIN_S", 0.1)
    larger = build_scenario(24, 6.0, 1, END_NS)
    assert len(await_fleet(reader, larger, END_NS, END_NS).hosts) == 4
    path = str(tmp_path / "empty")
    with DemoStore.create(path) as store:
        store.finish(END_NS)
    with closing(open_reader(path=path)) as empty, pytest.raises(ReadError, match="knows no host"):
        await_fleet(empty, story, END_NS, None)


def test_a_filled_database_is_shown_and_not_filled_twice(metrics: str, tmp_path: Path) -> None:
    """What is printed can be run as it is; who fills it again is told, and no past is written over another."""
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
    """Where --until says when the history ends it is told that it mixes with what is there."""
    notes: list[str] = []
    database = DatabaseDestination(NOBODY, None, story, until_ns=END_NS, note=notes.append)
    last_ns = {story.hosts[0].name: END_NS}
    assert database._to_continue(last_ns, notes.append) == {}
    assert "knows 1 of these hosts already: their histories will mix" in notes[-1]
    database.until_ns = None
    assert database._to_continue(last_ns, notes.append) == last_ns


def test_what_is_not_shown_in_time_is_told(
    story: Scenario, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A database that was read before and cannot be now ends nothing: the fleet was told."""
    monkeypatch.setattr(destination, "VISIBLE_WITHIN_S", 0.0)
    database = DatabaseDestination(NOBODY, None, story, note=print)
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
    """It refuses all processes at the same time; the reason is told once, with what it may be."""
    ran = ntpaudit(*FILL, influx, "--hosts", "4", state=tmp_path)
    assert (ran.status, ran.out) == (3, "")
    assert "404: 404 page not found" in ran.err
    assert "upgrade it to InfluxDB 1.8 or later" in ran.err
    assert "'InfluxDB before 1.8'" in ran.err
    assert "## InfluxDB before 1.8\n" in (REPOSITORY / "docs" / "delivery.md").read_text()
    assert "influxdb." not in ran.err
    assert ran.err.count("cannot write to") == 1

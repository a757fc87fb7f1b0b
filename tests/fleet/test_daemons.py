"""Time daemons of a fleet: read from each database, what many of them follow, and how it is shown."""

import json
import time
import urllib.request
from contextlib import closing
from csv import DictReader
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.checks.approval import UNAPPROVED_SOURCE
from ntpaudit.core.checks.rule import Level, Raised, make_finding
from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import DaemonClaim, Fleet, FleetPolicy, Snapshot
from ntpaudit.core.observation import Claim, Daemon
from ntpaudit.core.units import NS_PER_S
from ntpaudit.fleet import open_reader
from ntpaudit.fleet.decode import JUDGED_FIELDS, ClockRow, hosts_of
from ntpaudit.fleet.demo_store import DemoStore
from ntpaudit.fleet.reader import SnapshotOptions
from ntpaudit.formats.line_protocol import Point, Value, _line, points
from ntpaudit.reports import fleet_csv, fleet_json, fleet_text
from ntpaudit.reports.fleet_hosts import daemon_words
from tests.core.fleets import found, host, only, snapshot
from tests.records import record, servers
from tests.world.servers import influxd, victoria_metrics

CHRONYD = DaemonClaim("chronyd", "time.example.org", True, 0.25, 0.01, is_unapproved=True, excess_s=0.235)
FIELDS: dict[str, Value] = {
    "daemon": "chronyd",
    "daemon_follows": "time.example.org",
    "daemon_synchronised": 1,
    "daemon_offset_s": 0.25,
    "daemon_bound_s": 0.01,
    "daemon_unapproved": 1,
    "daemon_excess_s": 0.235,
}


def fleet_of(*daemons: DaemonClaim | None, ago_s: float = 30.0) -> Fleet:
    """Judge hosts with these time daemons."""
    hosts = [host(f"h{number}", ago_s=ago_s)._replace(daemon=one) for number, one in enumerate(daemons)]
    return judge_fleet(snapshot(*hosts), FleetPolicy())


def unapproved(follows: str | None) -> DaemonClaim:
    """Return a daemon that follows a source that is not approved."""
    return DaemonClaim("chronyd", follows, is_unapproved=True)


def test_hosts_that_follow_one_source_are_one_finding() -> None:
    """From three hosts on, by source; others of which each follows another one count together."""
    three = only(fleet_of(*[CHRONYD] * 3, None, DaemonClaim("ntpd", "ntp1.example.net")), "shared-unapproved")
    assert (three.level, three.source, three.hosts) == ("high", "time.example.org", ("h0", "h1", "h2"))
    assert three.message == "the time daemons of 3 hosts at ams follow time.example.org, which is not approved"
    pool = only(fleet_of(*map(unapproved, ("198.51.100.1", "198.51.100.2", "198.51.100.3"))), "shared-unapproved")
    assert (pool.source, len(pool.hosts)) == (None, 3)
    both = found(fleet_of(*[CHRONYD] * 3, *[unapproved(None)] * 4), "shared-unapproved")
    assert [(one.source, len(one.hosts)) for one in both] == [("time.example.org", 3), (None, 4)]


@pytest.mark.parametrize(
    "fleet",
    [
        fleet_of(*[CHRONYD] * 2),
        fleet_of(*[CHRONYD._replace(is_unapproved=False)] * 5),
        fleet_of(*[CHRONYD] * 5, ago_s=900.0),
    ],
)
def test_few_approved_or_silent_hosts_are_none(fleet: Fleet) -> None:
    """Two hosts, hosts whose agents approve it, and hosts of which nothing is known now."""
    assert found(fleet, "shared-unapproved") == []


def test_the_formats_show_the_daemon() -> None:
    """Text names it, CSV and JSON have all of it, the page says it in words."""
    fleet = fleet_of(CHRONYD, None)
    assert "chronyd: time.example.org" in fleet_text.render(fleet)
    assert "daemon" not in fleet_text.render(fleet_of(None))
    (first, second) = json.loads(fleet_json.render(fleet))["hosts"]
    assert first["daemon"] == CHRONYD._asdict()
    assert second["daemon"] is None
    rows = list(DictReader(StringIO(fleet_csv.render(fleet))))
    assert [rows[0][name] for name in FIELDS] == ["chronyd", "time.example.org", "1", "0.25", "0.01", "1", "0.235"]
    assert {rows[1][name] for name in FIELDS} == {""}
    words = (
        "chronyd follows time.example.org, which is not approved; claims 250 ms behind; 235 ms from what is measured"
    )
    assert daemon_words(host("h")._replace(daemon=CHRONYD)) == words
    nameless = host("h")._replace(daemon=DaemonClaim(is_synchronised=False, is_unapproved=True))
    assert daemon_words(nameless) == "time daemon; its source is not approved; not synchronised"


def test_the_fields_are_those_of_a_record() -> None:
    """What an agent writes of the claim of its time daemon is what the readers read."""
    claim = Claim(2 * 10**12 + 10**9, True, "time.example.org", offset_s=0.25, bound_s=0.01)
    one = record(*servers(0.0), daemons=(Daemon("chronyd", 811, claim=claim),))
    fields = next(points(one)).fields
    assert {name: fields.get(name) for name in FIELDS} == FIELDS | {"daemon_unapproved": None, "daemon_excess_s": 0.0}


def test_a_point_says_whether_what_is_followed_is_approved() -> None:
    """Only a finding that is raised for what is followed counts: a pending one is low, one about the others medium."""
    one = record(*servers(0.0))
    levels: dict[Level, int | None] = {"high": 1, "medium": None, "low": None}
    for level, expected in levels.items():
        finding = make_finding(UNAPPROVED_SOURCE, Raised(level, "x"))
        clock = next(points(one._replace(findings=(finding,))))
        assert clock.fields.get("daemon_unapproved") == expected


@given(st.tuples(*[st.none() | st.text(max_size=5) | st.floats() | st.integers(-3, 3) | st.booleans()] * 7))
def test_any_values_of_a_reply_are_a_daemon_or_none(cells: tuple[object, ...]) -> None:
    """A value of another type, a NaN or an infinity is not known."""
    row = ClockRow("h", None, None, 10**18, 0, 0, 0.0, 0.0, 0.0)
    (one,) = hosts_of([ClockRow(*row[:-7], *cells)]).values()
    assert (one.daemon is None) == (set(cells) == {None})


def test_the_rare_field_is_read_for_every_format() -> None:
    """The finding, and so the exit status, must not depend on the format."""
    assert "daemon_unapproved" in JUDGED_FIELDS


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Snapshot]:
    """Two hosts as each reader reads them: one with all fields of a time daemon, one without."""
    now_ns = time.time_ns() // NS_PER_S * NS_PER_S
    path = str(tmp_path_factory.mktemp("daemons") / "demo.sqlite3")
    written = []
    nothing: dict[str, Value] = {}
    for name, more in (("with", FIELDS), ("without", nothing)):
        plain = next(points(record(*servers(0.0), host_ns=now_ns, daemons=())))
        tags = {**plain.tags, "host": name, "site": "ams"}
        written.append(Point("ntpaudit_clock", tags, {**plain.fields, **more}, now_ns - 30 * NS_PER_S))
    with DemoStore(path) as store:
        store.write(written, now_ns)
        store.finish(now_ns)
    read = {}
    with closing(open_reader(path=path)) as reader:
        read["embedded"] = reader.snapshot(reader.now_ns(), SnapshotOptions())
    body = "".join(map(_line, written)).encode()
    with influxd() as influx, victoria_metrics() as victoria:
        for url in (f"{influx}/write?db=ntpaudit", f"{victoria}/write"):
            urllib.request.urlopen(urllib.request.Request(url, body), timeout=60).close()
        urllib.request.urlopen(f"{victoria}/internal/force_flush", timeout=30).close()
        for kind, url in (("influxql", influx), ("promql", victoria)):
            with closing(open_reader(url=url, language=kind)) as reader:
                read[kind] = reader.snapshot(reader.now_ns(), SnapshotOptions())
    return read


@pytest.mark.parametrize("kind", ["embedded", "influxql", "promql"])
def test_every_reader_reads_the_daemon(snapshots: dict[str, Snapshot], kind: str) -> None:
    """VictoriaMetrics stores no texts."""
    daemons = {one.name: one.daemon for one in snapshots[kind].hosts}
    expected = CHRONYD._replace(name=None, follows=None) if kind == "promql" else CHRONYD
    assert daemons == {"with": expected, "without": None}

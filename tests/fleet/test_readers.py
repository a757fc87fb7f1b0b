"""Every reader says the same of the same fleet: of a demonstration, of InfluxDB and of VictoriaMetrics."""

import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import Bounds, DuplicateHost, FleetPolicy, Host, Offset, Snapshot, TimeBucket
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Labels
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import ReadError
from ntpaudit.fleet import open_reader
from ntpaudit.fleet import reader as fleet_reader
from ntpaudit.fleet.decode import CLOCK, JUDGED_FIELDS, TEXT_FIELDS
from ntpaudit.fleet.influxql import InfluxqlReader
from ntpaudit.fleet.promql import PromqlReader
from ntpaudit.fleet.reader import Reader, SnapshotOptions
from ntpaudit.formats.line_protocol import points, render
from ntpaudit.render.text_safety import tag_value
from tests.fleet.fleets import END_NS, HOSTILE, HOSTILE_KEPT, HOSTILE_SITE, HOUR_S, audits, keep, lines, without_texts
from tests.records import record, servers
from tests.world.flaky import FORWARD, Answer, Fault, FlakyDatabase, Request
from tests.world.servers import influxd, victoria_metrics

MS = 1_000_000
READERS = ("embedded", "influxql", "promql")
ASKED = ("influxql", "promql")
NEW = ("twin", "renamed", "relabelled", "tied")


@pytest.fixture(scope="module")
def databases() -> Iterator[dict[str, str]]:
    """Both databases with the same fleet; VictoriaMetrics behind a prefix, as a cluster is."""
    with influxd() as influx, victoria_metrics() as victoria:
        for url in (f"{influx}/write?db=ntpaudit", f"{victoria}/write"):
            urllib.request.urlopen(urllib.request.Request(url, lines().encode()), timeout=30).close()
        urllib.request.urlopen(f"{victoria}/internal/force_flush", timeout=30).close()
        yield {"influxql": influx, "promql": f"{victoria}/prometheus"}


@pytest.fixture(scope="module")
def readers(databases: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reader]]:
    """A reader of each kind, all of the same fleet."""
    path = str(tmp_path_factory.mktemp("fleet") / "demo.sqlite3")
    keep(path)
    opened = {
        "embedded": open_reader(path=path),
        **{kind: open_reader(url=url, language=kind) for kind, url in databases.items()},
    }
    yield opened
    for reader in opened.values():
        reader.close()


@pytest.fixture(scope="module")
def snapshots(readers: dict[str, Reader]) -> dict[str, Snapshot]:
    """What each reads of the whole fleet."""
    return {kind: comparable(reader.snapshot(END_NS, SnapshotOptions())) for kind, reader in readers.items()}


def comparable(snapshot: Snapshot) -> Snapshot:
    """Put a snapshot in order, and cut its times and numbers to what VictoriaMetrics keeps of them.

    The end of a demonstration is its present, that of the others is past.
    """
    return snapshot._replace(
        hosts=tuple(
            sorted(
                without_texts(host)._replace(
                    last_ns=host.last_ns // MS * MS, offset=host.offset and rounded(host.offset)
                )
                for host in snapshot.hosts
            )
        ),
        alarms=tuple(sorted(alarm._replace(since_ns=alarm.since_ns // MS * MS) for alarm in snapshot.alarms)),
        falseticker_reports=tuple(
            sorted(lie._replace(offset_s=round(lie.offset_s or 0, 9)) for lie in snapshot.falseticker_reports)
        ),
        baseline={
            name: Bounds(round(known.earliest_s, 9), round(known.latest_s, 9))
            for name, known in sorted(snapshot.baseline.items())
        },
        baseline_ns={name: stamp_ns // MS * MS for name, stamp_ns in sorted(snapshot.baseline_ns.items())},
        looked_ahead=False,
    )


def rounded(offset: Offset) -> Offset:
    """Cut an offset to the nanosecond."""
    return Offset(*(round(number, 9) for number in offset))


def hosts_of(snapshot: Snapshot) -> dict[str, Host]:
    """Return hosts by their names."""
    return {host.name: host for host in snapshot.hosts}


@pytest.mark.parametrize("kind", READERS)
def test_every_host_is_read_as_it_last_was(snapshots: dict[str, Snapshot], kind: str) -> None:
    """Each host has its latest point, and nothing of the points before: where it is now, and what was measured now."""
    hosts = hosts_of(snapshots[kind])
    assert sorted(hosts) == sorted(
        ["web1", "web2", "db1", "db2", "placeless", "roamer", "repaired", "seldom", "asleep", HOSTILE_KEPT, *NEW]
    )
    web1 = hosts["web1"]
    assert (web1.site, web1.env, web1.severity, web1.verdict) == ("ams", "prod", Severity.OK, "within")
    assert web1.offset is not None
    assert web1.offset.estimate_s == pytest.approx(0.0019, abs=2e-4)
    assert web1.offset.earliest_s < web1.offset.estimate_s < web1.offset.latest_s
    assert (web1.age_s, web1.frequency_ppm, web1.usable, web1.falsetickers) == (30.0, 12.25, 4, 0)
    assert hosts["db2"]._replace(last_ns=0, findings=0) == Host(
        "db2",
        "fra",
        "prod",
        0,
        Severity.UNKNOWN,
        "unmeasured",
        None,
        None,
        None,
        0,
        0,
        0,
        critical_s=1.0,
        warning_s=0.1,
    )
    assert hosts["db2"].last_ns == END_NS - 10 * NS_PER_S
    assert (hosts["placeless"].site, hosts["placeless"].env) == (None, None)
    assert (hosts["roamer"].site, hosts[HOSTILE_KEPT].site) == ("fra", HOSTILE_SITE)
    assert (hosts["seldom"].severity, hosts["seldom"].verdict) == (Severity.CRITICAL, "beyond")
    assert (END_NS - hosts["asleep"].last_ns) / NS_PER_S == pytest.approx(3 * HOUR_S, abs=2)


def written(measurement: str) -> list[tuple[int, Mapping[str, str | None], Mapping[str, Any]]]:
    """Return the time, tags and fields of all points that were written, sorted by time."""
    return sorted(
        (
            (audit.arrived_ns if stamp_ns is None else stamp_ns, tags, fields)
            for audit in audits()
            for name, tags, fields, stamp_ns in points(audit.record, audit.events)
            if name == measurement
        ),
        key=itemgetter(0),
    )


@pytest.mark.parametrize("kind", READERS)
def test_a_snapshot_holds_what_was_written(snapshots: dict[str, Snapshot], kind: str) -> None:
    """Of every host its last point, its offset of an hour before and its raised findings; duplicates aside."""
    last: dict[str, tuple[Any, ...]] = {}
    baseline: dict[str, tuple[int, Bounds]] = {}
    for stamp_ns, tags, fields in written("ntpaudit_clock"):
        name = tag_value(tags["host"] or "")
        known: list[Any] = [fields.get(field) for field in ("offset_s", "earliest_s", "latest_s")]
        offset = None if known[0] is None else rounded(Offset(*known))
        counts = [fields.get(field) or 0 for field in ("usable", "falsetickers", "findings")]
        last[name] = (stamp_ns // MS, tags["site"], tags["env"], fields["severity"], offset, *counts)
        if offset is not None and 3600 <= (END_NS - stamp_ns) / NS_PER_S < 4500:
            baseline[name] = (stamp_ns // MS, Bounds(*offset[1:]))
    found = snapshots[kind]
    single = {
        host.name: (
            host.last_ns // MS, host.site, host.env, host.severity, host.offset,
            host.usable, host.falsetickers, host.findings,
        )
        for host in found.hosts
        if host.name not in ("twin", "tied")
    }  # fmt: skip
    assert single == {name: point for name, point in last.items() if name not in ("twin", "tied", "gone")}
    earlier = {name: (found.baseline_ns[name] // MS, bounds) for name, bounds in found.baseline.items()}
    assert earlier == {name: point for name, point in baseline.items() if name != "twin"}
    events = {
        (tag_value(tags["host"] or ""), tags["kind"]): fields["raised"] for _, tags, fields in written("ntpaudit_event")
    }
    raised = {event for event, is_raised in events.items() if is_raised}
    assert {(alarm.host, alarm.kind) for alarm in found.alarms} == raised - {("web1", "step-forward")}  # 7000 s ago


@pytest.mark.parametrize("kind", READERS)
def test_what_is_in_force_is_reported(snapshots: dict[str, Snapshot], kind: str) -> None:
    """A finding is in force until it is cleared, a step for an hour; a size reported before is not its own.

    Whether it is accepted is what the last event says.
    """
    assert [
        (alarm.host, alarm.kind, alarm.severity, (END_NS - alarm.since_ns) // NS_PER_S, alarm.value_s)
        for alarm in snapshots[kind].alarms
    ] == [
        (HOSTILE_KEPT, "breach-forecast", Severity.WARNING, 3000, None),
        ("renamed", "in-force", Severity.WARNING, 5000, 0.25),
        ("web1", "step-back", Severity.WARNING, 1800, -0.5),
        ("web2", "daemon-count", Severity.OK, 1200, None),
        ("web2", "kiss-of-death", Severity.WARNING, 600, None),
        ("web2", "offset-out", Severity.WARNING, 1800, 0.06),
    ]
    assert [alarm.kind for alarm in snapshots[kind].alarms if alarm.is_accepted] == ["daemon-count"]


@pytest.mark.parametrize("kind", READERS)
def test_falsetickers_are_those_of_the_latest_audit(snapshots: dict[str, Snapshot], kind: str) -> None:
    """A former falseticker that is no longer configured is not named."""
    assert [(lie.host, lie.source, round(lie.offset_s or 0)) for lie in snapshots[kind].falseticker_reports] == [
        (HOSTILE_KEPT, HOSTILE_KEPT, -37),
        ("db1", "ntp9.example.net", -37),
        ("repaired", "ntp9.example.net", -37),
    ]


@pytest.mark.parametrize("kind", READERS)
def test_the_offset_of_an_hour_ago_is_read(snapshots: dict[str, Snapshot], kind: str) -> None:
    """The last offset in the quarter of an hour before then counts; a host that was asleep has none."""
    before = snapshots[kind].baseline
    for name, behind_s in (("web2", 0.002), ("seldom", 1.7)):
        assert before[name].earliest_s < behind_s < before[name].latest_s < behind_s + 0.02
    assert "db2" in before
    assert "asleep" not in before


@pytest.mark.parametrize("kind", READERS)
def test_every_step_of_a_period_is_read(readers: dict[str, Reader], kind: str) -> None:
    """All of them in the order of time, and not the last of a kind alone; of a period, and of a site."""

    def steps(
        begin_s: int, end_s: int = 0, site: str | None = None
    ) -> list[tuple[str, str, Severity, int, float | None]]:
        found = readers[kind].steps(END_NS - begin_s * NS_PER_S, END_NS - end_s * NS_PER_S, site)
        return [
            (one.host, one.kind, one.severity, round((END_NS - one.since_ns) / NS_PER_S), one.value_s) for one in found
        ]

    forward = ("web1", "step-forward", Severity.WARNING, 7000, 2.0)
    back = ("web1", "step-back", Severity.WARNING, 1800, -0.5)
    assert steps(3 * HOUR_S) == steps(3 * HOUR_S, site="ams") == [forward, back]
    assert steps(HOUR_S) == [back]
    assert steps(3 * HOUR_S, HOUR_S) == [forward]
    assert steps(3 * HOUR_S, site="fra") == []


@pytest.mark.parametrize("kind", READERS)
def test_machines_of_one_name_are_distinguished_from_one_that_moved(readers: dict[str, Reader], kind: str) -> None:
    """Two that report at once clash, and the worst counts; a host that has another site or environment now does not."""
    snapshot = readers[kind].snapshot(END_NS, SnapshotOptions())
    assert snapshot.duplicate_hosts == (DuplicateHost("twin", ("ams", "fra")),)
    twin = hosts_of(snapshot)["twin"]
    assert (twin.site, twin.severity) == ("fra", Severity.CRITICAL)
    assert twin.offset is not None
    assert twin.offset.estimate_s == pytest.approx(2.5, abs=2e-4)
    assert "twin" not in snapshot.baseline
    there = readers[kind].snapshot(END_NS, SnapshotOptions("ams"))
    assert there.duplicate_hosts == snapshot.duplicate_hosts
    assert (hosts_of(there)["twin"].site, hosts_of(there)["twin"].severity) == ("ams", Severity.OK)
    there = readers[kind].snapshot(END_NS, SnapshotOptions("fra"))  # where its last point is not from, nor a fresh one
    assert there.duplicate_hosts == snapshot.duplicate_hosts
    assert hosts_of(there)["twin"] == twin
    assert "twin" not in there.expired
    assert readers[kind].snapshot(END_NS, SnapshotOptions(silent_after_s=100.0)).duplicate_hosts == ()


@pytest.mark.parametrize("kind", READERS)
def test_of_two_points_at_one_moment_it_is_always_the_same(snapshots: dict[str, Snapshot], kind: str) -> None:
    """Two that a host sent once from two places prove no clash; every database returns the same one."""
    tied = hosts_of(snapshots[kind])["tied"]
    assert (tied.env, tied.falsetickers) == ("test", 0)


@pytest.mark.parametrize("kind", READERS)
def test_all_the_time_there_ever_was_can_be_looked_back_on(readers: dict[str, Reader], kind: str) -> None:
    """Also from before 1970 on, whence VictoriaMetrics answers nothing at all if it is asked."""
    ever_s = 100 * 366 * 86_400.0
    snapshot = readers[kind].snapshot(END_NS, SnapshotOptions(look_back_s=ever_s))
    assert snapshot.expired == ()
    assert {"seldom", "asleep", "gone"} <= hosts_of(snapshot).keys()
    begin_ns = END_NS - round(ever_s) * NS_PER_S
    for count in (7, 96):
        (one_series,) = readers[kind].host_series(["web1"], begin_ns, END_NS, count).values()
        tallies = readers[kind].tallies(begin_ns, END_NS, count)
        (embedded,) = readers["embedded"].host_series(["web1"], begin_ns, END_NS, count).values()
        assert [cut(one) for one in one_series] == [cut(one) for one in embedded]
        assert tallies == readers["embedded"].tallies(begin_ns, END_NS, count)
        assert len(one_series) == len(tallies) == 1


def test_what_a_relay_adds_to_a_host_makes_no_other_of_it() -> None:
    """Two relays that label what they pass on make two series of one host: it is as its latest point says."""
    with victoria_metrics() as url:
        for relay, age_s, severity in (("a", 200, 3), ("b", 800, 0)):
            line = (
                f"ntpaudit_clock,host=web1,site=ams severity={severity}i,usable={severity}i {END_NS - age_s * NS_PER_S}"
            )
            to = f"{url}/write?extra_label=relay={relay}"
            urllib.request.urlopen(urllib.request.Request(to, line.encode()), timeout=30).close()
        urllib.request.urlopen(f"{url}/internal/force_flush", timeout=30).close()
        with closing(open_reader(url=url, language="promql")) as reader:
            snapshot = reader.snapshot(END_NS, SnapshotOptions())
    (web1,) = snapshot.hosts
    assert (web1.last_ns, web1.severity, web1.usable) == (END_NS - 200 * NS_PER_S, Severity.CRITICAL, 3)
    assert snapshot.duplicate_hosts == ()


@pytest.mark.parametrize("refuses", [False, True])
def test_machines_of_one_name_are_found_without_an_index(databases: dict[str, str], *, refuses: bool) -> None:
    """A server that cannot list its series, as InfluxDB 3, is asked for points instead: what is found is the same."""

    def choose(request: Request) -> Fault:
        return Answer(400, '{"error": "not implemented"}') if refuses and "SHOW+SERIES" in request.target else FORWARD

    with (
        FlakyDatabase(databases["influxql"], choose) as server,
        closing(open_reader(url=server.url)) as reader,
    ):
        assert reader.snapshot(END_NS, SnapshotOptions()).duplicate_hosts == (DuplicateHost("twin", ("ams", "fra")),)
        asked = [unquote_plus(request.target) for request in server.requests]
    lately = f'last("severity") AS "severity" FROM "ntpaudit_clock" WHERE time > {END_NS - 600 * NS_PER_S} '
    assert any("SHOW SERIES" in target for target in asked)
    (last,) = (target for target in asked if lately in target)
    assert ('("host" = ' in last) is not refuses


def test_more_series_than_victoriametrics_lists_are_found_by_their_points(databases: dict[str, str]) -> None:
    """Its index lists -search.maxSeries at most: beyond that the points are read, and the same is found."""
    refusal = Answer(422, '{"status":"error","errorType":"422","error":"the number of matching timeseries exceeds 3"}')

    def choose(request: Request) -> Fault:
        return refusal if "/api/v1/series" in request.target and "gone" not in request.target else FORWARD

    with (
        FlakyDatabase(databases["promql"], choose) as server,
        closing(open_reader(url=server.url, language="promql")) as reader,
    ):
        assert reader.snapshot(END_NS, SnapshotOptions()).duplicate_hosts == (DuplicateHost("twin", ("ams", "fra")),)
        asked = [unquote_plus(request.target) for request in server.requests]
    points = f'ntpaudit_clock_(?:severity)"}}&start={END_NS // NS_PER_S - 600}'
    assert sum("/federate" in one and points in one for one in asked) == 1


def test_hosts_that_are_gone_for_days_are_not_looked_for(databases: dict[str, str]) -> None:
    """A database may keep the names of machines that no longer exist; a snapshot queries only other names."""
    with (
        FlakyDatabase(databases["promql"]) as server,
        closing(open_reader(url=server.url, language="promql")) as reader,
    ):
        assert reader.snapshot(END_NS, SnapshotOptions()).expired == ("gone",)
        asked = [unquote_plus(request.target) for request in server.requests if "/federate" in request.target]
    assert any("asleep" in one for one in asked)
    assert not any("gone" in one for one in asked)


def _point(age_s: int, offset_s: float, site: str = "ams", host: str = "web1", now_ns: int = END_NS) -> str:
    """Write a point of a clock as an agent does."""
    ends = f"earliest_s={offset_s - 0.001},latest_s={offset_s + 0.001}"
    return (
        f"ntpaudit_clock,host={host},site={site} severity=0i,verdict=0i,offset_s={offset_s},{ends},usable=4i,"
        f"falsetickers=0i,frequency_ppm=-5,findings=1i {now_ns - age_s * NS_PER_S}\n"
    )


def _put(url: str, lines: str) -> None:
    """Write lines, and wait until they can be read."""
    urllib.request.urlopen(urllib.request.Request(f"{url}/write", lines.encode()), timeout=30).close()
    urllib.request.urlopen(f"{url}/internal/force_flush", timeout=30).close()


def test_what_has_just_come_is_left_for_the_next_time() -> None:
    """VictoriaMetrics may show a part of it before the rest: until that is settled the point before counts."""
    now_ns = time.time_ns()
    with victoria_metrics() as url:
        _put(url, _point(70, 0.001, now_ns=now_ns))
        _put(url, f"ntpaudit_clock,host=web1,site=ams severity=0i,verdict=0i {now_ns - NS_PER_S}\n")
        with closing(open_reader(url=url, language="promql")) as reader:
            (host,) = reader.snapshot(reader.now_ns(), SnapshotOptions()).hosts
    assert host.last_ns // MS == now_ns // MS - 70_000
    assert host.verdict == "within"


def test_a_point_that_arrives_during_a_snapshot_is_read_whole() -> None:
    """VictoriaMetrics stores fields apart; one query reads them all, so that none is of another point than the rest."""
    with victoria_metrics() as url:
        _put(url, "".join(_point(70, 0.001, host=name) for name in ("web1", "web2", r"web\3")))
        fresh: list[str] = []

        def choose(request: Request) -> Fault:
            target = unquote_plus(request.target)
            if "/federate" in target and f"start={END_NS // NS_PER_S - 150}" in target and "severity" in target:
                fresh.append(target)
                _put(url, _point(10, 0.002) + _point(10, 0.002, host=r"web\3"))
            return FORWARD

        with FlakyDatabase(url, choose) as server, closing(open_reader(url=server.url, language="promql")) as reader:
            hosts = hosts_of(reader.snapshot(END_NS, SnapshotOptions()))
    (asked,) = fresh
    assert all(field in asked for field in set(CLOCK.fields) - TEXT_FIELDS)
    for name, age_s, offset_s in (("web1", 10, 0.002), ("web2", 70, 0.001), (r"web\3", 10, 0.002)):
        host = hosts[name]
        assert host.last_ns == END_NS - age_s * NS_PER_S
        assert host.offset is not None
        assert host.offset.estimate_s == pytest.approx(offset_s)
        assert (host.verdict, host.usable, host.frequency_ppm, host.findings) == ("within", 4, -5.0, 1)


def test_an_event_that_arrives_during_a_snapshot_is_read_whole() -> None:
    """It has the severity that it was raised with."""
    with victoria_metrics() as url:
        _put(url, _point(10, 0.001) + _raised(70, 1))
        asked: list[str] = []

        def choose(request: Request) -> Fault:
            if "ntpaudit_event" in request.target and "severity" in request.target:
                asked.append(request.target)
                _put(url, _raised(20, 3))
            return FORWARD

        with FlakyDatabase(url, choose) as server, closing(open_reader(url=server.url, language="promql")) as reader:
            (alarm,) = reader.snapshot(END_NS, SnapshotOptions()).alarms
    assert len(asked) == 1
    assert (alarm.severity, alarm.since_ns) == (Severity.CRITICAL, END_NS - 20 * NS_PER_S)


def _raised(age_s: int, severity: int) -> str:
    """Write an event as an agent does."""
    tags = "host=web1,site=ams,kind=offset-out"
    return f"ntpaudit_event,{tags} raised=1i,severity={severity}i,value_s=0.5 {END_NS - age_s * NS_PER_S}\n"


@pytest.mark.parametrize("is_late", [False, True])
def test_a_rate_that_is_read_later_is_that_of_the_host_all_the_same(*, is_late: bool) -> None:
    """With a point that came meanwhile, and with one at another site, it is known that the clock comes back."""
    with victoria_metrics() as url:
        _put(url, _point(3630, 0.0) + _point(130, 0.03) + ("" if is_late else _point(10, 0.03, "fra")))

        def choose(request: Request) -> Fault:
            if is_late and "frequency_ppm" in request.target + request.lines:
                _put(url, _point(1, 0.03))
            return FORWARD

        with FlakyDatabase(url, choose) as server, closing(open_reader(url=server.url, language="promql")) as reader:
            snapshot = reader.snapshot(END_NS, SnapshotOptions(site="ams", fields=JUDGED_FIELDS))
    assert hosts_of(snapshot)["web1"].frequency_ppm == -5.0
    assert [finding.id for finding in judge_fleet(snapshot, FleetPolicy()).findings if finding.id == "slow-walk"] == []


def test_labels_of_any_name_and_series_without_any_hide_no_host() -> None:
    """A relay may add what no metric of Prometheus may have, and others write points without a host."""
    with victoria_metrics() as url:
        added = "".join(
            _point(10, 0.001, host=f"web{number}").replace("site=", f"{name}=x,site=")
            for number, name in enumerate(["data-center", "k8s.io/node", "ünï", "a\\ b"])
        )
        _put(url, added + f"ntpaudit_clock severity=3i {END_NS - 10 * NS_PER_S}\n")
        with closing(open_reader(url=url, language="promql")) as reader:
            hosts = hosts_of(reader.snapshot(END_NS, SnapshotOptions()))
    assert sorted(hosts) == ["web0", "web1", "web2", "web3"]
    assert {(host.site, host.verdict) for host in hosts.values()} == {("ams", "within")}


def test_no_question_spoils_the_answer_to_another(databases: dict[str, str], snapshots: dict[str, Snapshot]) -> None:
    """VictoriaMetrics 1.79.5 mixes hosts up where samples are asked for in both of its ways: one is left out."""
    with (
        FlakyDatabase(databases["promql"]) as server,
        closing(open_reader(url=server.url, language="promql")) as reader,
    ):
        for hours in range(1, 13):
            assert len(reader.steps(END_NS - hours * HOUR_S * NS_PER_S, END_NS)) == min(hours, 2)
            assert comparable(reader.snapshot(END_NS, SnapshotOptions())) == snapshots["promql"]
        asked = [unquote_plus(request.target + request.lines) for request in server.requests]
    assert any("/api/v1/export" in one for one in asked)  # of twin, whose points are all looked at
    assert not any("reduce_mem_usage" in one for one in asked)


def test_machines_of_a_strange_name_are_distinguished() -> None:
    """The index writes names as line protocol does; whatever is in them, they are read as they are in points."""
    with influxd() as url:
        for site in ("ams", "fra"):
            lines = "".join(
                render(record(*servers(0.0, host_ns=stamp_ns), name=HOSTILE, labels=Labels("0.1.0", None, site, None)))
                for stamp_ns in range(END_NS - 240 * NS_PER_S, END_NS, 60 * NS_PER_S)
            )
            urllib.request.urlopen(f"{url}/write?db=ntpaudit", lines.encode(), timeout=30).close()
        with closing(open_reader(url=url)) as reader:
            assert reader.snapshot(END_NS, SnapshotOptions()).duplicate_hosts == (
                DuplicateHost(HOSTILE_KEPT, ("ams", "fra")),
            )


@pytest.mark.parametrize("kind", READERS)
def test_a_finding_of_a_host_at_its_former_site_is_in_force(readers: dict[str, Reader], kind: str) -> None:
    """Of one site too, and what was cleared at the new one stays cleared."""
    for site in (None, "fra"):
        alarms = [
            alarm.kind
            for alarm in readers[kind].snapshot(END_NS, SnapshotOptions(site)).alarms
            if alarm.host == "renamed"
        ]
        assert alarms == ["in-force"]


@pytest.mark.parametrize("kind", ASKED)
def test_one_environment_alone(databases: dict[str, str], kind: str) -> None:
    """The hosts, the series, the counts and the steps are those of the environment that is named."""
    begin_ns = END_NS - HOUR_S * NS_PER_S
    with closing(open_reader(url=databases[kind], language=kind, env="x")) as reader:
        assert [host.name for host in reader.snapshot(END_NS, SnapshotOptions()).hosts] == ["relabelled"]
        assert reader.snapshot(END_NS, SnapshotOptions("fra")).hosts[0].env == "x"
        assert [tally.hosts for tally in reader.tallies(begin_ns, END_NS, 1)] == [(1, 0, 0, 0)]
        series = reader.host_series(["web1", "relabelled"], begin_ns, END_NS, 1)
        assert {name: len(buckets) for name, buckets in series.items()} == {"web1": 0, "relabelled": 1}
        assert reader.steps(begin_ns, END_NS) == ()
    with closing(open_reader(url=databases[kind], language=kind, env="prod")) as reader:
        assert [step.host for step in reader.steps(begin_ns, END_NS)] == ["web1"]
    with (
        closing(open_reader(url=databases[kind], language=kind, env="z")) as reader,
        pytest.raises(ReadError, match="no agent of environment 'z'"),
    ):
        reader.snapshot(END_NS, SnapshotOptions())


def test_names_that_the_database_leaves_out_are_missed() -> None:
    """VictoriaMetrics cuts a list of names silently: that is an error, or hosts would be missing unnoticed."""
    lines = "".join(f"ntpaudit_clock,host=web{number} severity=0i {END_NS}\n" for number in range(10))
    for limit, is_enough in ((9, False), (10, True)):
        with victoria_metrics(f"-search.maxTagValues={limit}") as url:
            urllib.request.urlopen(urllib.request.Request(f"{url}/write", lines.encode()), timeout=30).close()
            urllib.request.urlopen(f"{url}/internal/force_flush", timeout=30).close()
            with closing(open_reader(url=url, language="promql")) as reader:
                if is_enough:
                    assert len(reader.snapshot(END_NS, SnapshotOptions()).hosts) == 10
                else:
                    with pytest.raises(ReadError, match=r"more hosts than the 9 .* raise its -search\.maxTagValues"):
                        reader.snapshot(END_NS, SnapshotOptions())


def test_one_site_of_more_hosts_than_the_database_names_is_read() -> None:
    """As that error advises: also those of its hosts that are late, though they would not be among the first names."""
    late = "".join(_point(600, 0.001, host=f"z{number}") for number in range(3))
    with victoria_metrics("-search.maxTagValues=9") as url:
        _put(url, late + "".join(_point(10, 0.001, "fra", f"a{number}") for number in range(20)))
        with closing(open_reader(url=url, language="promql")) as reader:
            snapshot = reader.snapshot(END_NS, SnapshotOptions("ams"))
    assert sorted(hosts_of(snapshot)) == ["z0", "z1", "z2"]
    assert snapshot.expired == ()


@pytest.mark.parametrize("kind", READERS)
def test_who_is_known_and_not_seen_is_forgotten(snapshots: dict[str, Snapshot], kind: str) -> None:
    """A host without a point in all the time that is looked back on is named; none that has one is."""
    assert snapshots[kind].expired == ("gone",)
    assert snapshots[kind].sites == {"gone": "ams"}
    assert snapshots[kind].look_back_s == 86_400.0


@pytest.mark.parametrize("kind", READERS)
def test_what_only_lists_show_may_be_missing(
    readers: dict[str, Reader], snapshots: dict[str, Snapshot], kind: str
) -> None:
    """A snapshot without these fields is the same in all that a fleet is judged by."""
    found = comparable(readers[kind].snapshot(END_NS, SnapshotOptions(fields=JUDGED_FIELDS)))

    def cut(snapshot: Snapshot) -> Snapshot:
        hosts = (host._replace(findings=0, frequency_ppm=None) for host in snapshot.hosts)
        return snapshot._replace(hosts=tuple(hosts))

    assert cut(found) == cut(snapshots[kind])
    assert judge_fleet(found, FleetPolicy()).findings == judge_fleet(snapshots[kind], FleetPolicy()).findings


@pytest.mark.parametrize("kind", ASKED)
def test_all_readers_say_the_same(snapshots: dict[str, Snapshot], kind: str) -> None:
    """A snapshot is the same from every database, times to the millisecond."""
    if kind == "promql":  # of a host that is only unmeasured now, the last offset of before is the same everywhere
        assert snapshots[kind].baseline.keys() == snapshots["embedded"].baseline.keys()
    assert snapshots[kind] == snapshots["embedded"]


@pytest.mark.parametrize("kind", READERS)
def test_a_site_of_another_case_is_suggested(readers: dict[str, Reader], kind: str) -> None:
    """Sites are compared exactly; the error says which one was probably meant."""
    with pytest.raises(ReadError, match="has no host of site 'Fra'") as error:
        readers[kind].snapshot(END_NS, SnapshotOptions("Fra"))
    assert error.value.remedy == "did you mean fra?"


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("site", ["ams", "fra", HOSTILE_SITE])
def test_one_site_alone(readers: dict[str, Reader], kind: str, site: str) -> None:
    """One site has the hosts that are there now; one that left is neither there nor forgotten."""
    reach = SnapshotOptions(site)
    snapshot = comparable(readers[kind].snapshot(END_NS, reach))
    assert snapshot == comparable(readers["embedded"].snapshot(END_NS, reach))
    whole = comparable(readers[kind].snapshot(END_NS, SnapshotOptions()))
    others = tuple(host for host in snapshot.hosts if host.name != "twin")
    assert others == tuple(host for host in whole.hosts if host.site == site and host.name != "twin")
    assert snapshot.expired == (("gone",) if site == "ams" else ())


@pytest.mark.parametrize("kind", ASKED)
def test_many_hosts_are_asked_for_all_at_once(
    readers: dict[str, Reader], snapshots: dict[str, Snapshot], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more hosts are late than can be named, the answer is the same, but for the sites of expired hosts."""
    ams = comparable(readers[kind].snapshot(END_NS, SnapshotOptions("ams")))
    monkeypatch.setattr(fleet_reader, "MAX_NAMES", 0)
    monkeypatch.setattr(fleet_reader, "FRESH_S", 5.0)
    assert comparable(readers[kind].snapshot(END_NS, SnapshotOptions())) == snapshots[kind]._replace(sites={})
    assert comparable(readers[kind].snapshot(END_NS, SnapshotOptions("ams"))) == ams._replace(sites={})


@pytest.mark.parametrize("kind", READERS)
def test_another_moment_is_read_as_it_was(readers: dict[str, Reader], kind: str) -> None:
    """What came later is not seen: at that moment a host was measured, and an alarm not raised yet."""
    then_ns = END_NS - HOUR_S * NS_PER_S
    snapshot = comparable(readers[kind].snapshot(then_ns, SnapshotOptions(baseline_s=1800.0)))
    assert snapshot == comparable(readers["embedded"].snapshot(then_ns, SnapshotOptions(baseline_s=1800.0)))
    assert hosts_of(snapshot)["db2"].offset is not None
    assert {alarm.kind for alarm in snapshot.alarms if alarm.host != "renamed"} == {"step-forward"}
    assert snapshot.baseline_s == 1800.0


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("count", [1, 7, 48])
def test_time_series_are_the_same(readers: dict[str, Reader], kind: str, count: int) -> None:
    """Each span has the hull of the intervals in it, the mean and the worst; a span without a point is left out."""
    hosts, begin_ns = ("web1", "web2", "db2", "seldom", "missing", HOSTILE_KEPT), END_NS - 3 * HOUR_S * NS_PER_S + 1
    series = readers[kind].host_series(hosts, begin_ns, END_NS, count)
    assert {host: [cut(bucket) for bucket in buckets] for host, buckets in series.items()} == {
        host: [cut(bucket) for bucket in buckets]
        for host, buckets in readers["embedded"].host_series(hosts, begin_ns, END_NS, count).items()
    }
    assert list(series) == list(hosts)
    assert series["missing"] == ()
    if count == 48:
        assert len(series["seldom"]) == 8
        assert series["db2"][-1].offset is None
        assert series["db2"][-1].severity == Severity.UNKNOWN
        assert series["db2"][0].offset is not None
    if count == 1:
        (whole,) = series["web2"]
        assert whole.offset is not None
        assert whole.offset.earliest_s < 0.002 < whole.offset.estimate_s < 0.062 < whole.offset.latest_s


def cut(bucket: TimeBucket) -> TimeBucket:
    """Cut a bucket's numbers to the nanosecond."""
    return bucket._replace(offset=bucket.offset and rounded(bucket.offset))


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("site", [None, "fra"])
def test_tallies_are_the_same(readers: dict[str, Reader], kind: str, site: str | None) -> None:
    """Each span counts every host that has a point in it once, by the worst that it was."""
    begin_ns = END_NS - 2 * HOUR_S * NS_PER_S
    tallies = readers[kind].tallies(begin_ns, END_NS, 8, site)
    assert tallies == readers["embedded"].tallies(begin_ns, END_NS, 8, site)
    assert [tally.begin_ns for tally in tallies] == [begin_ns + number * 900 * NS_PER_S for number in range(8)]
    assert tallies[-1].hosts[Severity.UNKNOWN] == 1
    assert sum(tallies[0].hosts) == (6 if site else 12)


@pytest.mark.parametrize("kind", READERS)
def test_a_site_without_hosts_is_reported(readers: dict[str, Reader], kind: str) -> None:
    """A site whose name is mistyped is no empty fleet."""
    with pytest.raises(ReadError, match="amz"):
        readers[kind].snapshot(END_NS, SnapshotOptions("amz"))


@given(
    st.text(min_size=1, max_size=30)
    | st.sampled_from([HOSTILE, HOSTILE_SITE, "\\", "'", '"', "\n", "\0", "\ud800", "$", "%"])
)
@settings(max_examples=60)
@pytest.mark.parametrize("kind", ASKED)
def test_any_text_is_but_a_text(readers: dict[str, Reader], kind: str, text: str) -> None:
    """Whatever is asked for is a name in a question, never a part of its grammar: a real server finds nothing by it."""
    reader = readers[kind]
    assert isinstance(reader, InfluxqlReader | PromqlReader)
    assert reader.names(text) == ({HOSTILE_KEPT} if text == HOSTILE_SITE else set())
    assert reader.host_series([text], END_NS - NS_PER_S, END_NS, 1) == {text: ()}


@pytest.mark.parametrize("kind", ASKED)
def test_a_database_without_a_point_is_reported(kind: str) -> None:
    """Where no agent has delivered anything yet, that is said, and not that all is well."""
    with influxd() if kind == "influxql" else victoria_metrics() as url:
        with closing(open_reader(url=url, language=kind)) as reader:
            with pytest.raises(ReadError, match="no agent has delivered anything") as error:
                reader.snapshot(reader.now_ns(), SnapshotOptions())
            assert "if this is" not in error.value.remedy  # it said itself what it is
            assert reader.tallies(END_NS - NS_PER_S, END_NS, 3) == ()
        if kind == "influxql":
            with (
                closing(open_reader(url=url, database="other")) as reader,
                pytest.raises(ReadError, match=r"database not found: other; check fleet\.database"),
            ):
                reader.tallies(END_NS - NS_PER_S, END_NS, 3)
        other, found = ("promql", "InfluxDB") if kind == "influxql" else ("influxql", "VictoriaMetrics")
        with (
            closing(open_reader(url=url, language=other)) as reader,
            pytest.raises(ReadError, match=f"this is {found}, not .* --language {kind}$"),
        ):
            reader.snapshot(reader.now_ns(), SnapshotOptions())
        with (
            closing(open_reader(url=url.replace("http", "https"))) as reader,
            pytest.raises(ReadError, match=r"the server does not speak TLS: try http:// in fleet\.url$"),
        ):
            reader.snapshot(reader.now_ns(), SnapshotOptions())


def test_a_demonstration_is_read_by_many(tmp_path: Path) -> None:
    """The demonstration ends at the moment it was finished at, and is read any number of times."""
    (tmp_path / "a folder").mkdir()
    path = str(tmp_path / "a folder" / "demo ?#%.sqlite3")
    keep(path)
    with closing(open_reader(path=path)) as first, closing(open_reader(path=path)) as second:
        assert first.now_ns() == second.now_ns() == END_NS
        assert first.snapshot(END_NS, SnapshotOptions()) == second.snapshot(END_NS, SnapshotOptions())


@pytest.mark.parametrize("kind", READERS)
def test_a_host_among_many_names(kind: str, readers: dict[str, Reader]) -> None:
    """A name with every special character is found among many, and no name is taken for a pattern."""
    window = fleet_reader.Window(END_NS - 3 * HOUR_S * NS_PER_S, END_NS)
    others = [f"h{number}" for number in range(40)] + ["web.", ".*", "web1|web2", "(web2)", "we/b1", "db[12]"]
    found = readers[kind].every(CLOCK, window, [HOSTILE_KEPT, "web1", *others], ("severity",))
    assert {row.name for row in found} == {HOSTILE_KEPT, "web1"}

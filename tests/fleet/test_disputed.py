"""Hosts whose servers are hours ahead or behind, in every database: none is ok by mistake, none that delivers silent.

Each agent delivers every minute what it believes; only its time stamps are wrong, and what the database answered.
"""

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import pytest

from ntpaudit.core.events import Event
from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import Fleet, FleetPolicy, Host, HostStatus, Snapshot
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import DatabaseOffset, Labels, Record
from ntpaudit.core.units import NS_PER_S
from ntpaudit.fleet import open_reader
from ntpaudit.fleet.decode import ClockRow, Table
from ntpaudit.fleet.demo_store import DemoStore
from ntpaudit.fleet.reader import DatabaseReader, SnapshotOptions, Window
from ntpaudit.formats.line_protocol import points, render
from tests.fleet.fleets import without_texts
from tests.records import failed, record, seen, servers
from tests.tracing import untraced
from tests.world.servers import influxd, victoria_metrics

HOUR_S = 3600
READERS = ("embedded", "influxql", "promql")
Delivered = tuple[Record, tuple[Event, ...]]

WRONG_S = 3 * HOUR_S + 17
"""By how much servers are ahead or behind: no earlier stamp is about now."""

OK, WARNING, UNKNOWN, CRITICAL = Severity.OK, Severity.WARNING, Severity.UNKNOWN, Severity.CRITICAL


BACK_MIN = (10, 180)
"""The number of minutes for which the servers of hosts have been right again."""

LATE_S = (0, 200)
"""How long after the last delivery a fleet is read: at once, and later than most agents' next point."""


class Asked(NamedTuple):
    """What each reader reads of the fleet, and when the fleet's history ends."""

    snapshots: dict[str, Snapshot]
    end_ns: int

    def late_s(self, kind: str) -> float:
        """Return how long after that end a reader read; filling the databases takes long on a busy machine."""
        return (self.snapshots[kind].now_ns - self.end_ns) / NS_PER_S


def audit(
    end_ns: int,
    name: str,
    ago_s: float,
    *,
    ahead_s: float = 0.0,
    behind_s: float = 0.001,
    knows: bool = True,
    **more: object,
) -> Delivered:
    """Return what an agent delivered this long before an end: its servers were ahead, and its clock behind these.

    Unless it `knows` what the database answered, its points are those of an agent that has just started, or of an
    older one.
    """
    came_ns = end_ns - round(ago_s * NS_PER_S)
    host_ns = came_ns + round((ahead_s - behind_s) * NS_PER_S)
    falseticker = (
        [seen("ntp9.example.net", 40.0, reference_id=b"\xc6\x33\x64\x01", host_ns=host_ns)]
        if "falseticker" in more
        else []
    )
    sources = [*servers(behind_s, host_ns=host_ns), *falseticker]
    made = record(*sources, name=name, labels=Labels("0.1.0", None, "ams", "prod"), host_ns=host_ns)
    assert made.offset is not None
    if knows:
        wrong_s = ahead_s if abs(ahead_s) > 2 else 0.0
        date = DatabaseOffset(made.offset.estimate_s - ahead_s - 1, made.offset.estimate_s - ahead_s + 1, 30.0, wrong_s)
        made = made._replace(database_clock=date)
    events = tuple(
        Event(kind, raised, Severity.WARNING, "high", "so it is", made.utc_ns, host_ns, 10**12)
        for kind, raised in more.items()
        if kind in ("unsynced", "daemon-stale") and isinstance(raised, bool)
    )
    return made, events


FINDINGS: dict[str, tuple[tuple[float, float, bool], ...]] = {
    "cleared-after": ((6 * HOUR_S, WRONG_S, True), (5 * HOUR_S, 0, False)),
    "cleared-long-ago": ((20 * 24 * HOUR_S, WRONG_S, True), (20 * 24 * HOUR_S - HOUR_S, 0, False)),
    "cleared-soon": ((0.5 * HOUR_S, WRONG_S, True), (600, 0, False)),
    "cleared-while-ahead": ((2 * HOUR_S, 0, True), (HOUR_S, WRONG_S, False)),
    "cleared-while-behind": ((3 * HOUR_S, 0, True), (2 * HOUR_S, -WRONG_S, False)),
    "raised-while-ahead": ((0.5 * HOUR_S, WRONG_S, True),),
    "raised-again": ((5 * HOUR_S, 0, True), (4 * HOUR_S, WRONG_S, False), (2 * HOUR_S, 0, True)),
    "raised-again-behind": ((3 * HOUR_S, 0, False), (2 * HOUR_S, -WRONG_S, True)),
}
"""Hosts that are right again, and the events of a finding of each: how long ago, by how much ahead, whether raised."""


def audits(end_ns: int) -> Iterator[Delivered]:
    """Yield every audit of the fleet; the last ones were delivered a few seconds before the end."""
    audit_at = partial(audit, end_ns)
    for minute in range(6 * 60, 0, -1):
        ago_s = 60.0 * minute - 45
        yield audit_at("right", ago_s)
        yield audit_at("ahead", ago_s, ahead_s=WRONG_S)  # for longer than it is ahead: its stamps lie around now
        yield audit_at("ahead-old", ago_s, ahead_s=WRONG_S, knows=False)
        yield audit_at("behind", ago_s, ahead_s=-WRONG_S if minute < 60 else 0)
        yield audit_at("back", ago_s, ahead_s=WRONG_S if 120 <= minute < 200 else 0)  # its earlier stamps are about now
        yield audit_at("back-soon", ago_s, ahead_s=WRONG_S if 30 <= minute < 90 else 0)  # and these yet to come
        if minute > 60:
            yield audit_at("stopped", ago_s, ahead_s=WRONG_S)
        if minute <= 60:
            yield audit_at("started", ago_s, ahead_s=WRONG_S, knows=minute < 60)
            yield audit_at("leap", ago_s, ahead_s=400 * 86_400)
            yield audit_at("wrong", ago_s, ahead_s=WRONG_S, behind_s=5.0 if minute < 30 else 0.001)
    yield audit_at("with-findings", 20, ahead_s=WRONG_S, unsynced=True, falseticker=True)
    yield audit_at("with-findings", 80, ahead_s=WRONG_S, **{"daemon-stale": False})
    yield audit_at("with-findings", 5 * HOUR_S, **{"daemon-stale": True})
    yield audit_at("only-ahead", 20, ahead_s=8 * HOUR_S, knows=False)
    for name, changes in FINDINGS.items():
        for ago_s, ahead_s, is_raised in changes:
            yield audit_at(name, ago_s, ahead_s=ahead_s, unsynced=is_raised)
        yield audit_at(name, 20)
    yield from twins(audit_at)
    for back_min in BACK_MIN:
        yield from returned(audit_at, back_min)
    yield from changed(audit_at)
    for minute in range(230, 30, -1):  # right again for hours, and then it ended; stamps of before are around now
        yield audit_at("back-stopped", 60.0 * minute - 45, ahead_s=WRONG_S if minute > 180 else 0)


TWINS = ("twins-first", "twins-last", "twins-long-first", "twins-long-last")
"""Names of two machines each, one right and one whose servers are ahead and whose clock is wrong: which came first."""


def twins(audit_at: Callable[..., Delivered]) -> Iterator[Delivered]:
    """Yield the audits of both machines of each name; where they are long, stamps of the one are those of the other."""
    for name in TWINS:
        for minute in range(240 if "long" in name else 60, 0, -1):
            yield audit_at(name, 60.0 * minute - 45)
            later_s = 10 if name.endswith("first") else -10
            made, events = audit_at(name, 60.0 * minute - 45 + later_s, ahead_s=WRONG_S, behind_s=5.0)
            yield made._replace(host=made.host._replace(site="fra")), events


def returned(audit_at: Callable[..., Delivered], back_min: int) -> Iterator[Delivered]:
    """Yield the audits of hosts whose clocks are right again since their servers are, and were wrong by seconds before.

    Each ends by how far its servers were ahead, and how often its agent reports. Stamps of that time are still around.
    """
    for ahead_min, every_min in ((197, 1), (197, 5), (back_min + 4, 1), (back_min + 4, 5)):
        wrong_min = 260 if every_min == 5 else 40
        for minute in range((back_min + wrong_min) // 5 * 5 + 10, 0, -every_min):
            is_wrong = back_min < minute <= back_min + wrong_min
            ahead_s = ahead_min * 60 + 17 if is_wrong else 0
            name = f"back-{back_min}-{ahead_min}-{every_min}"
            yield audit_at(name, 60.0 * minute - 45, ahead_s=ahead_s, behind_s=5.0 if is_wrong else 0.001)


def changed(audit_at: Callable[..., Delivered]) -> Iterator[Delivered]:
    """Yield the audits of hosts whose servers are wrong by another amount, or the other way, than an hour ago."""
    for minute in range(5 * 60, 0, -5):
        then = minute > 60
        ago_s = 60.0 * minute - 45
        yield audit_at("less-ahead", ago_s, ahead_s=10 * HOUR_S if then else WRONG_S, behind_s=5.0 if then else 0.001)
        yield audit_at("turned", ago_s, ahead_s=WRONG_S if then else -WRONG_S, behind_s=5.0 if then else 0.001)


CHANGED = {"less-ahead": WRONG_S, "turned": -WRONG_S}
"""By how much the servers of such hosts are ahead now."""

RETURNED = {
    f"back-{back_min}-{ahead_min}-{every_min}"
    for back_min in BACK_MIN
    for ahead_min in (197, back_min + 4)
    for every_min in (1, 5)
}


def lines(delivered: Sequence[Delivered], end_ns: int) -> str:
    """Return all as a database gets it, and points whose severity contradicts their fields."""
    stamp_ns = end_ns - 20 * NS_PER_S
    claims = {
        "claims-ok": "severity=0i,offset_s=7200.0,earliest_s=7199.0,latest_s=7201.0,usable=4i,falsetickers=0i,age_s=5.",
        "claims-all": "severity=0i,usable=4i,falsetickers=0i",
        "claims-age": "severity=0i,offset_s=0.0,earliest_s=-0.01,latest_s=0.01,usable=4i,falsetickers=0i,age_s=2592e3",
        "doubts": (
            "severity=0i,offset_s=5.0,earliest_s=4.99,latest_s=5.01,usable=4i,falsetickers=0i,age_s=5.0,"
            "critical_s=1.0,warning_s=0.1,confirmed=0i"
        ),
        "warns": (
            "severity=0i,offset_s=0.5,earliest_s=0.49,latest_s=0.51,usable=4i,falsetickers=0i,age_s=5.0,"
            "critical_s=1.0,warning_s=0.1"
        ),
        "warns-on-bound": (
            "severity=0i,offset_s=0.05,earliest_s=-0.05,latest_s=0.15,usable=4i,falsetickers=0i,age_s=5.0,"
            "critical_s=1.0,warning_s=0.1,judged_on_bound=1i"
        ),
        "warns-on-offset": (
            "severity=0i,offset_s=0.05,earliest_s=-0.05,latest_s=0.15,usable=4i,falsetickers=0i,age_s=5.0,"
            "critical_s=1.0,warning_s=0.1,max_drift_ppm=30.0"
        ),
        "drifts": (
            "severity=0i,offset_s=0.0,earliest_s=-0.01,latest_s=0.01,usable=4i,falsetickers=0i,age_s=5.0,"
            "critical_s=1.0,warning_s=0.1,max_drift_ppm=500.0"
        ),
        "wide": (
            "severity=0i,offset_s=5.0,earliest_s=4.99,latest_s=5.01,usable=4i,falsetickers=0i,age_s=5.0,"
            "critical_s=240.0,warning_s=60.0"
        ),
    }
    claimed = (f"ntpaudit_clock,env=prod,host={name},site=fra {fields} {stamp_ns}\n" for name, fields in claims.items())
    return "".join([*(render(*one) for one in delivered), *claimed])


@pytest.fixture(scope="module", params=LATE_S, ids=lambda late_s: f"{late_s}-s-later")
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """What each reader reads of it at the present, at once or later."""
    late_s: int = request.param
    now_ns = time.time_ns() // NS_PER_S * NS_PER_S
    end_ns = now_ns - late_s * NS_PER_S
    path = str(tmp_path_factory.mktemp("disputed") / "demo.sqlite3")
    with untraced():
        delivered = list(audits(end_ns))
        keep(path, delivered, end_ns, now_ns)
        body = lines(delivered, end_ns).encode()
    found = {}
    with closing(open_reader(path=path)) as reader:
        found["embedded"] = reader.snapshot(reader.now_ns(), SnapshotOptions())
    with influxd() as influx, victoria_metrics() as victoria:
        for url in (f"{influx}/write?db=ntpaudit", f"{victoria}/write"):
            urllib.request.urlopen(urllib.request.Request(url, body), timeout=60).close()
        urllib.request.urlopen(f"{victoria}/internal/force_flush", timeout=30).close()
        for kind, url in (("influxql", influx), ("promql", victoria)):
            with closing(open_reader(url=url, language=kind)) as reader:
                found[kind] = reader.snapshot(reader.now_ns(), SnapshotOptions())
    return Asked(found, end_ns)


@pytest.fixture(scope="module")
def snapshots(asked: Asked) -> dict[str, Snapshot]:
    """The snapshots alone."""
    return asked.snapshots


def keep(path: str, delivered: Sequence[Delivered], end_ns: int, now_ns: int) -> None:
    """Write all as a demonstration."""
    with DemoStore(path) as store:
        for made, events in delivered:
            store.write(points(made, events), end_ns)
        store.finish(now_ns)


def judged(snapshot: Snapshot) -> tuple[Fleet, dict[str, HostStatus]]:
    """Return the fleet, and each host by its name."""
    fleet = judge_fleet(snapshot, FleetPolicy())
    return fleet, {one.name: one for one in fleet.members}


def about(fleet: Fleet, kind: str) -> set[str]:
    """Return the hosts that findings of a kind name."""
    return {name for finding in fleet.findings if finding.id == kind for name in finding.hosts}


def point_of(member: HostStatus) -> Host:
    """Return a host's latest point."""
    assert member.host is not None
    return member.host


@pytest.mark.parametrize("kind", READERS)
def test_who_delivers_is_never_silent(asked: Asked, kind: str) -> None:
    """Wherever its stamps lie; and who stopped is silent since then, though its stamps are of hours to come."""
    fleet, hosts = judged(asked.snapshots[kind])
    assert {name for name, one in hosts.items() if one.silent_s is not None} == {"stopped", "back-stopped"}
    assert hosts["back-stopped"].silent_s == pytest.approx(1815 + asked.late_s(kind), abs=30)
    assert hosts["stopped"].silent_s == pytest.approx(HOUR_S + asked.late_s(kind), abs=150)
    assert about(fleet, "evidence-gap") == {"stopped", "back-stopped"}
    for name in (
        "right",
        "ahead",
        "behind",
        "back",
        "back-soon",
        "started",
        "leap",
        "wrong",
        "with-findings",
        *RETURNED,
    ):
        seen_s = hosts[name].seen_s
        assert seen_s is not None
        assert seen_s < asked.late_s(kind) + (330 if name.endswith("-5") else 150), name


@pytest.mark.parametrize("kind", READERS)
def test_who_is_disputed_is_never_ok(asked: Asked, kind: str) -> None:
    """Those and no others are named, with how far they are off; those that came back are in order."""
    fleet, hosts = judged(asked.snapshots[kind])
    disputed = {
        "ahead",
        "ahead-old",
        "behind",
        "started",
        "leap",
        "wrong",
        "with-findings",
        "only-ahead",
        "less-ahead",
        "turned",
        *TWINS,
    }
    assert about(fleet, "time-disputed") == disputed
    assert all(hosts[name].severity >= WARNING for name in disputed)
    assert {hosts[name].severity for name in ("right", "back", "back-soon")} == {OK}
    for name, wrong_s in (("ahead", WRONG_S), ("behind", -WRONG_S)):
        assert hosts[name].disputed_s == pytest.approx(wrong_s, abs=30), name
    for name, wrong_s in (("ahead-old", WRONG_S), ("only-ahead", 8 * HOUR_S)):
        assert hosts[name].disputed_s == pytest.approx(wrong_s - asked.late_s(kind), abs=120), name
    assert hosts["leap"].disputed_s == 400 * 86_400
    assert point_of(hosts["leap"]).last_ns == pytest.approx(asked.end_ns, abs=150 * NS_PER_S)


@pytest.mark.parametrize("kind", READERS)
def test_who_is_right_again_is_judged_by_what_came_last(asked: Asked, kind: str) -> None:
    """Minutes and hours later too, while points of the time before carry stamps that are later than its own."""
    fleet, hosts = judged(asked.snapshots[kind])
    for name in sorted(RETURNED):
        one = hosts[name]
        assert (one.severity, one.silent_s, one.contradicted, one.disputed_s) == (OK, None, None, 0.0), name
        offset = point_of(one).offset
        assert offset is not None
        assert offset.estimate_s == pytest.approx(0.001, abs=0.001), name
        assert point_of(one).warning_s is None or point_of(one).is_confirmed
    assert not RETURNED & {name for finding in fleet.findings for name in finding.hosts}


@pytest.mark.parametrize("kind", READERS)
def test_of_two_machines_of_a_name_the_worse_counts(asked: Asked, kind: str) -> None:
    """Also where the worse one is stamped hours ahead, and the other one reported last."""
    _, hosts = judged(asked.snapshots[kind])
    assert {(name, hosts[name].severity, hosts[name].silent_s) for name in TWINS} == {
        (name, CRITICAL, None) for name in TWINS
    }


@pytest.mark.parametrize("kind", READERS)
def test_a_dispute_may_change(asked: Asked, kind: str) -> None:
    """The one that came last counts, however much later the others are stamped."""
    _, hosts = judged(asked.snapshots[kind])
    for name, wrong_s in CHANGED.items():
        one = hosts[name]
        assert (one.severity, one.silent_s) == (WARNING, None), name
        assert one.disputed_s == pytest.approx(wrong_s, abs=30), name
        assert one.seen_s == pytest.approx(asked.late_s(kind) + 150, abs=180), name


@pytest.mark.parametrize("kind", READERS)
def test_a_finding_is_in_force_by_what_came_last(asked: Asked, kind: str) -> None:
    """What was raised while the servers were ahead and cleared after is over, though cleared with an earlier stamp."""
    _, hosts = judged(asked.snapshots[kind])
    in_force = {name for name in FINDINGS if any(alarm.kind == "unsynced" for alarm in hosts[name].alarms)}
    assert in_force == {name for name in FINDINGS if name.startswith("raised")}


@pytest.mark.parametrize("kind", READERS)
def test_a_disputed_host_is_judged_by_its_points(snapshots: dict[str, Snapshot], kind: str) -> None:
    """By the latest that came: what it measured, what its agent found, and which server is a falseticker."""
    _, hosts = judged(snapshots[kind])
    assert hosts["wrong"].severity is CRITICAL
    offset = point_of(hosts["wrong"]).offset
    assert offset is not None
    assert offset.estimate_s == pytest.approx(5.0, abs=0.001)
    assert [alarm.kind for alarm in hosts["with-findings"].alarms] == ["unsynced"]
    assert {report.host for report in snapshots[kind].falseticker_reports} == {"with-findings"}
    for name in ("back", "back-soon"):
        assert point_of(hosts[name]).disputed_s == 0


@pytest.mark.parametrize("kind", READERS[1:])
def test_a_severity_is_not_believed(snapshots: dict[str, Snapshot], kind: str) -> None:
    """Tolerances and confirmation are read where they decide."""
    fleet, hosts = judged(snapshots[kind])
    severities = {
        "claims-ok": CRITICAL,
        "claims-all": UNKNOWN,
        "claims-age": UNKNOWN,
        "warns": WARNING,
        "warns-on-bound": WARNING,
    }
    assert {name: hosts[name].severity for name in severities} == severities
    assert {hosts[name].severity for name in ("doubts", "wide", "warns-on-offset", "drifts")} == {OK}
    assert about(fleet, "severity-disputed") == severities.keys()


@pytest.mark.parametrize("kind", READERS[1:])
def test_a_host_that_may_drift_by_more_says_so(snapshots: dict[str, Snapshot], kind: str) -> None:
    """R4: the larger of what is assumed of any oscillator, and of what its agent reports."""
    ppm = {host.name: host.max_drift_ppm for host in snapshots[kind].hosts}
    assert (ppm["drifts"], ppm["warns-on-offset"], ppm["right"]) == (500.0, 50.0, 50.0)


def test_all_readers_say_the_same(snapshots: dict[str, Snapshot]) -> None:
    """But for what a demonstration cannot hold, and to the millisecond."""

    def cut(snapshot: Snapshot) -> Sequence[Host]:
        return sorted(
            without_texts(host)._replace(
                last_ns=host.last_ns // 10**6, offset=None, warning_s=None, disputed_s=round(host.disputed_s)
            )
            for host in snapshot.hosts
            if host.site == "ams"
        )

    assert cut(snapshots["influxql"]) == cut(snapshots["embedded"])
    assert cut(snapshots["promql"]) == cut(snapshots["embedded"])


@pytest.mark.parametrize("language", ["influxql", "promql"])
def test_a_point_that_appears_between_two_queries(language: str) -> None:
    """A disputed point that only the later query finds is known to be disputed: the host is judged by another one."""
    end_ns = time.time_ns() // NS_PER_S * NS_PER_S
    right = "".join(render(*audit(end_ns, name, 255)) for name in ("again", "first"))
    before = render(*audit(end_ns, "again", 1155, ahead_s=857, behind_s=5.0))
    appearing = "".join(render(*audit(end_ns, name, 855, ahead_s=840, behind_s=5.0)) for name in ("again", "first"))
    with influxd() if language == "influxql" else victoria_metrics() as url:

        def write(text: str) -> None:
            path = "/write?db=ntpaudit" if language == "influxql" else "/write"
            urllib.request.urlopen(urllib.request.Request(url + path, text.encode()), timeout=60).close()
            if language == "promql":
                urllib.request.urlopen(f"{url}/internal/force_flush", timeout=30).close()

        write(right + before)
        with closing(open_reader(url=url, language=language)) as reader:
            assert isinstance(reader, DatabaseReader)
            disputed, last, is_read = reader.disputed, reader.last, threading.Event()

            def disputed_first(window: Window) -> list[ClockRow]:
                rows = disputed(window)
                is_read.set()
                return rows

            def last_later(
                table: Table, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]
            ) -> list[Any]:
                if hosts is not None:  # None: `disputed` itself asks
                    is_read.wait()
                    write(appearing)  # the same points each time
                return list(last(table, window, hosts, fields))

            reader.disputed, reader.last = disputed_first, last_later  # type: ignore[method-assign]
            _, hosts = judged(reader.snapshot(reader.now_ns(), SnapshotOptions()))
    for name in ("again", "first"):
        assert (hosts[name].severity, hosts[name].disputed_s) == (OK, 0.0), name


def test_a_past_moment_is_not_judged_by_what_came_later(tmp_path: object) -> None:
    """Of an hour ago only points stamped until then are read, and of these the one that came last counts."""
    path = f"{tmp_path}/demo.sqlite3"
    now_ns = time.time_ns() // NS_PER_S * NS_PER_S
    with untraced():
        keep(path, list(audits(now_ns)), now_ns, now_ns)
    with closing(open_reader(path=path)) as reader:
        snapshot = reader.snapshot(now_ns - HOUR_S * NS_PER_S, SnapshotOptions())
    assert not snapshot.looked_ahead
    assert max(host.last_ns for host in snapshot.hosts) <= now_ns - HOUR_S * NS_PER_S
    fleet, hosts = judged(snapshot)
    assert {"ahead", "behind", "right"} & about(fleet, "time-disputed") == {"ahead", "behind"}
    assert hosts["ahead"].silent_s is None
    assert (hosts["back-180-184-5"].severity, hosts["back-180-184-5"].silent_s) == (OK, None)


def test_silence_is_not_hidden_by_an_unmeasured_host() -> None:
    """A host that cannot measure has no dispute: its points are stamped when they come."""
    silent = record(*[failed(f"ntp{n}.example.net", "unreachable", "timeout") for n in (1, 2, 3, 4)], name="a")
    assert silent.utc_ns is None
    assert "disputed_s" not in render(silent)

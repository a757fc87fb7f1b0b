"""Hosts whose servers are hours ahead or behind, in every database: none is ok by mistake, none that delivers silent.

Each agent delivers every minute what it believes; only its time stamps are wrong, and what the database answered.
"""

import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cache

import pytest

from ntpaudit.core.events import Event
from ntpaudit.core.fleet import Fleet, Host, Member, Snapshot, Terms
from ntpaudit.core.fleet_rules import judge_fleet
from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import DatabaseOffset, Labels, Record
from ntpaudit.fleet import open_reader
from ntpaudit.fleet.embedded import EmbeddedStore
from ntpaudit.fleet.reader import Reach
from ntpaudit.sinks.line_protocol import points, render
from tests.records import failed, record, seen, servers
from tests.world.servers import influxd, victoria_metrics

HOUR_S = 3600
READERS = ("embedded", "influxql", "promql")
TOLD = tuple[Record, tuple[Event, ...]]

WRONG_S = 3 * HOUR_S + 17
"""By how much servers are ahead or behind: no stamp of then is one of now."""

OK, WARNING, UNKNOWN, CRITICAL = Severity.OK, Severity.WARNING, Severity.UNKNOWN, Severity.CRITICAL


@cache
def now_ns() -> int:
    """Return the present as the first test has it: points come until a few seconds ago, as VictoriaMetrics is late."""
    return time.time_ns() // NS_PER_S * NS_PER_S


def audit(
    name: str, ago_s: float, *, ahead_s: float = 0.0, behind_s: float = 0.001, knows: bool = True, **more: object
) -> TOLD:
    """Return what an agent delivered so long ago: its servers were ahead, and its clock behind these.

    Unless it `knows` what the database answered, its points are those of an agent that has just started, or of an
    older one.
    """
    came_ns = now_ns() - round(ago_s * NS_PER_S)
    host_ns = came_ns + round((ahead_s - behind_s) * NS_PER_S)
    liar = [seen("ntp9.example.net", 40.0, reference_id=b"\xc6\x33\x64\x01", host_ns=host_ns)] if "liar" in more else []
    sources = [*servers(behind_s, host_ns=host_ns), *liar]
    made = record(*sources, name=name, labels=Labels("0.1.0", None, "ams", "prod"), host_ns=host_ns)
    assert made.offset is not None
    if knows:
        wrong_s = ahead_s if abs(ahead_s) > 2 else 0.0
        date = DatabaseOffset(made.offset.estimate_s - ahead_s - 1, made.offset.estimate_s - ahead_s + 1, 30.0, wrong_s)
        made = made._replace(database_clock=date)
    events = tuple(
        Event(kind, raised, Severity.WARNING, "high", "so it is", made.utc_ns, host_ns, 10**12)
        for kind, raised in more.items()
        if kind in ("unsynced", "stale-compare") and isinstance(raised, bool)
    )
    return made, events


def audits() -> Iterator[TOLD]:
    """Yield every audit of the fleet."""
    for minute in range(6 * 60, 0, -1):
        ago_s = 60.0 * minute - 45
        yield audit("right", ago_s)
        yield audit("ahead", ago_s, ahead_s=WRONG_S)  # for longer than it is ahead: its stamps lie around now
        yield audit("ahead-old", ago_s, ahead_s=WRONG_S, knows=False)
        yield audit("behind", ago_s, ahead_s=-WRONG_S if minute < 60 else 0)
        yield audit("back", ago_s, ahead_s=WRONG_S if 120 <= minute < 200 else 0)  # its stamps of then are now
        yield audit("back-soon", ago_s, ahead_s=WRONG_S if 30 <= minute < 90 else 0)  # and these yet to come
        if minute > 60:
            yield audit("stopped", ago_s, ahead_s=WRONG_S)
        if minute <= 60:
            yield audit("started", ago_s, ahead_s=WRONG_S, knows=minute < 60)
            yield audit("leap", ago_s, ahead_s=400 * 86_400)
            yield audit("wrong", ago_s, ahead_s=WRONG_S, behind_s=5.0 if minute < 30 else 0.001)
    yield audit("told", 20, ahead_s=WRONG_S, unsynced=True, liar=True)
    yield audit("told", 80, ahead_s=WRONG_S, **{"stale-compare": False})
    yield audit("told", 5 * HOUR_S, **{"stale-compare": True})
    yield audit("only-ahead", 20, ahead_s=8 * HOUR_S, knows=False)


def lines() -> str:
    """Return all as a database gets it, and points that say of themselves what is not so."""
    stamp_ns = now_ns() - 20 * NS_PER_S
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
        "wide": (
            "severity=0i,offset_s=5.0,earliest_s=4.99,latest_s=5.01,usable=4i,falsetickers=0i,age_s=5.0,"
            "critical_s=240.0,warning_s=60.0"
        ),
    }
    told = (f"ntpaudit_clock,env=prod,host={name},site=fra {fields} {stamp_ns}\n" for name, fields in claims.items())
    return "".join([*(render(*one) for one in audits()), *told])


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Snapshot]:
    """What each reader reads of it at the present."""
    path = str(tmp_path_factory.mktemp("disputed") / "demo.sqlite3")
    with EmbeddedStore.create(path) as store:
        for made, events in audits():
            store.write(points(made, events), now_ns())
        store.finish(now_ns())
    found = {}
    with closing(open_reader(path=path)) as reader:
        found["embedded"] = reader.snapshot(reader.now_ns(), Reach())
    with influxd() as influx, victoria_metrics() as victoria:
        for url in (f"{influx}/write?db=ntpaudit", f"{victoria}/write"):
            urllib.request.urlopen(urllib.request.Request(url, lines().encode()), timeout=60).close()
        urllib.request.urlopen(f"{victoria}/internal/force_flush", timeout=30).close()
        for kind, url in (("influxql", influx), ("promql", victoria)):
            with closing(open_reader(url=url, language=kind)) as reader:
                found[kind] = reader.snapshot(reader.now_ns(), Reach())
    return found


def judged(snapshot: Snapshot) -> tuple[Fleet, dict[str, Member]]:
    """Return the fleet, and each host by its name."""
    fleet = judge_fleet(snapshot, Terms())
    return fleet, {one.name: one for one in fleet.members}


def about(fleet: Fleet, kind: str) -> set[str]:
    """Return the hosts that findings of a kind name."""
    return {name for finding in fleet.findings if finding.id == kind for name in finding.hosts}


def point_of(member: Member) -> Host:
    """Return a host's latest point."""
    assert member.host is not None
    return member.host


@pytest.mark.parametrize("kind", READERS)
def test_who_delivers_is_never_silent(snapshots: dict[str, Snapshot], kind: str) -> None:
    """Wherever its stamps lie; and who stopped is silent since then, though its stamps are of hours to come."""
    fleet, hosts = judged(snapshots[kind])
    assert {name for name, one in hosts.items() if one.silent_s is not None} == {"stopped"}
    assert hosts["stopped"].silent_s == pytest.approx(HOUR_S, abs=150)
    assert about(fleet, "evidence-gap") == {"stopped"}
    for name in ("right", "ahead", "behind", "back", "back-soon", "started", "leap", "wrong", "told"):
        seen_s = hosts[name].seen_s
        assert seen_s is not None
        assert seen_s < 150, name


@pytest.mark.parametrize("kind", READERS)
def test_who_is_disputed_is_never_ok(snapshots: dict[str, Snapshot], kind: str) -> None:
    """Those and no others are named, with how far they are off; those that came back are in order."""
    fleet, hosts = judged(snapshots[kind])
    disputed = {"ahead", "ahead-old", "behind", "started", "leap", "wrong", "told", "only-ahead"}
    assert about(fleet, "time-disputed") == disputed
    assert all(hosts[name].severity >= WARNING for name in disputed)
    assert {hosts[name].severity for name in ("right", "back", "back-soon")} == {OK}
    for name, wrong_s in (("ahead", WRONG_S), ("ahead-old", WRONG_S), ("behind", -WRONG_S), ("only-ahead", 8 * HOUR_S)):
        assert hosts[name].disputed_s == pytest.approx(wrong_s, abs=120), name
    assert hosts["leap"].disputed_s == 400 * 86_400
    assert point_of(hosts["leap"]).last_ns == pytest.approx(now_ns(), abs=150 * NS_PER_S)


@pytest.mark.parametrize("kind", READERS)
def test_a_disputed_host_is_judged_by_its_points(snapshots: dict[str, Snapshot], kind: str) -> None:
    """By the latest that came: what it measured, what its agent found, and who lies to it."""
    _, hosts = judged(snapshots[kind])
    assert hosts["wrong"].severity is CRITICAL
    offset = point_of(hosts["wrong"]).offset
    assert offset is not None
    assert offset.estimate_s == pytest.approx(5.0, abs=0.001)
    assert [alarm.kind for alarm in hosts["told"].alarms] == ["unsynced"]
    assert {lie.host for lie in snapshots[kind].lies} == {"told"}
    for name in ("back", "back-soon"):
        assert point_of(hosts[name]).disputed_s == 0


@pytest.mark.parametrize("kind", READERS[1:])
def test_a_severity_is_not_believed(snapshots: dict[str, Snapshot], kind: str) -> None:
    """Tolerances and confirmation are read where they decide."""
    fleet, hosts = judged(snapshots[kind])
    severities = {name: hosts[name].severity for name in ("claims-ok", "claims-all", "claims-age", "warns")}
    assert severities == {"claims-ok": CRITICAL, "claims-all": UNKNOWN, "claims-age": UNKNOWN, "warns": WARNING}
    assert {hosts[name].severity for name in ("doubts", "wide")} == {OK}
    assert about(fleet, "severity-disputed") == severities.keys()


def test_all_readers_say_the_same(snapshots: dict[str, Snapshot]) -> None:
    """But for what a demonstration cannot hold, and to the millisecond."""

    def cut(snapshot: Snapshot) -> Sequence[Host]:
        return sorted(
            host._replace(last_ns=host.last_ns // 10**6, offset=None, warning_s=None, disputed_s=round(host.disputed_s))
            for host in snapshot.hosts
            if host.site == "ams"
        )

    assert cut(snapshots["influxql"]) == cut(snapshots["embedded"])
    assert cut(snapshots["promql"]) == cut(snapshots["embedded"])


def test_a_past_moment_is_not_judged_by_what_came_later(tmp_path: object) -> None:
    """Of an hour ago only points stamped until then are read."""
    path = f"{tmp_path}/demo.sqlite3"
    with EmbeddedStore.create(path) as store:
        for made, events in audits():
            store.write(points(made, events), now_ns())
        store.finish(now_ns())
    with closing(open_reader(path=path)) as reader:
        snapshot = reader.snapshot(now_ns() - HOUR_S * NS_PER_S, Reach())
    assert not snapshot.looked_ahead
    assert max(host.last_ns for host in snapshot.hosts) <= now_ns() - HOUR_S * NS_PER_S
    fleet, hosts = judged(snapshot)
    assert {"ahead", "behind", "right"} & about(fleet, "time-disputed") == {"ahead", "behind"}
    assert hosts["ahead"].silent_s is None


def test_silence_is_not_hidden_by_an_unmeasured_host() -> None:
    """A host that cannot measure has no dispute: its points are stamped when they come."""
    silent = record(*[failed(f"ntp{n}.example.net", "unreachable", "timeout") for n in (1, 2, 3, 4)], name="a")
    assert silent.utc_ns is None
    assert "disputed_s" not in render(silent)

"""A simulated month of one host: the real agent, the real store, a real database behind a network that breaks."""

import json
import signal
import sqlite3
from collections.abc import Callable
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from ntpaudit import polling
from ntpaudit.agent import Agent, read_setup
from ntpaudit.agent_store import MAX_ATTEMPTS
from ntpaudit.audit import Plan, plan_of
from ntpaudit.core.ntp.rate_limit import SERVER_INTERVAL_S
from ntpaudit.core.units import parse_utc
from ntpaudit.demo.scenario import BlockNtp, Reboot, SetClock, StartDaemon, StopDaemon, Suspend
from ntpaudit.store import audits, saved_state
from ntpaudit.store.compression import unpack_text
from ntpaudit.store.state import StateStore
from tests.world.flaky import FORWARD, Answer, Fault, FlakyDatabase, Request, Reset
from tests.world.host import Change, S, SimulatedRuntime, happens
from tests.world.servers import influxd

pytestmark = pytest.mark.untraced

DAY_S = 86_400.0
HOUR_S = 3_600.0
START_NS = 1_795_000_000 * S
INTERVAL_S = 300.0
SERVERS = [f"ntp{number}.example.net" for number in range(1, 5)]


class Kept(NamedTuple):
    """An audit, as the history holds it, and the true time at which it was made."""

    kind: str
    utc_ns: int
    truth_ns: int
    boottime_ns: int
    record: dict[str, Any]


class WatchedRuntime(SimulatedRuntime):
    """A runtime that notes when servers begin to be asked: its boot, and its uptime in it."""

    def __init__(self, utc_ns: int, *, seed: int) -> None:
        super().__init__(utc_ns, seed=seed)
        self.asked: list[tuple[int, int]] = []

    def poll(self, plan: Plan, update: polling.StateUpdater) -> None:
        """Note it, and ask."""
        self.asked.append((self.host.boots, self.host.boottime_ns))
        super().poll(plan, update)


class AgentLife:
    """A host with an agent that is started and stopped, its database, and all that both keep."""

    def __init__(self, folder: Path, runtime: SimulatedRuntime, url: str | None) -> None:
        self.folder, self.runtime = folder, runtime
        config = folder / "ntpaudit.toml"
        database = f'[influxdb]\nurl = "{url}"\ntimeout = "2s"\n' if url else ""
        config.write_text(f'[sources]\nservers = {json.dumps(SERVERS)}\n[schedule]\nlocal = "10m"\n{database}')
        self.config = config

    def run(self, until_s: float) -> None:
        """Run an agent until that moment of true time, then end it."""
        environment = {"STATE_DIRECTORY": str(self.folder / "state")}
        self.runtime.changes = sorted([*self.runtime.changes, Change(until_s, _end)], key=lambda change: change.at_s)
        self.runtime.ends.clear()
        self.runtime.pass_time(1_000_000)
        Agent(read_setup(str(self.config), environment), self.runtime).run()

    @property
    def database(self) -> sqlite3.Connection:
        """The history."""
        return sqlite3.connect(self.folder / "state" / "history.sqlite3")

    def audits(self) -> list[Kept]:
        """Return every audit of the history."""
        with self.database as connection:
            rows = connection.execute("SELECT kind, utc_ns, boot_id, boottime_ns, record FROM audits ORDER BY id")
            return [
                Kept(
                    kind, utc_ns, self.runtime.truth[boot_id, boottime_ns], boottime_ns, json.loads(unpack_text(record))
                )
                for kind, utc_ns, boot_id, boottime_ns, record in rows
            ]

    def events(self, *kinds: str) -> list[tuple[str, int]]:
        """Return what was raised (1) and cleared (0), in its order."""
        with self.database as connection:
            rows = connection.execute("SELECT kind, raised FROM events ORDER BY id").fetchall()
        return [(kind, raised) for kind, raised in rows if not kinds or kind in kinds]


def _end(runtime: SimulatedRuntime) -> None:
    runtime.ends.append(signal.SIGTERM)


def sets(seconds: float) -> Callable[[SimulatedRuntime], None]:
    """Set the clock."""
    return happens(SetClock(seconds))


def allows_ntp(runtime: SimulatedRuntime) -> None:
    """End a `BlockNtp`."""
    runtime.host.is_cut_off = False


def lies(seconds: float, *servers: str) -> Callable[[SimulatedRuntime], None]:
    """Let servers lie; none stops all of them."""
    return lambda runtime: runtime.server_error_s.update(dict.fromkeys(servers or SERVERS, seconds))


def lies_once(runtime: SimulatedRuntime) -> None:
    """Let all servers lie in one sample."""
    runtime.all_wrong_s = 5.0


def goes_adrift(runtime: SimulatedRuntime) -> None:
    """End the time daemon, which leaves a wrong frequency behind."""
    runtime.host.apply_event(StopDaemon())
    runtime.host.frequency_ppm = -30.0


class Hiccups:
    """A database that fails now and then by its own fault, every way in turn, and is away while `is_away`."""

    FAULTS: tuple[Fault, ...] = (
        Answer(500, '{"error":"engine: cannot write: no space left on device"}'),
        Reset("after"),
        Answer(429, "", (("Retry-After", "0"),)),
        Reset("before"),
        Answer(503),
    )

    def __init__(self) -> None:
        self.is_away = False
        self.count = 0

    def __call__(self, request: Request) -> Fault:
        """Choose what happens to a request."""
        self.count += 1
        if self.is_away:
            return Answer(503)
        return self.FAULTS[self.count // 7 % len(self.FAULTS)] if self.count % 7 == 0 else FORWARD


def points(url: str, measurement: str, field: str) -> list[int]:
    """Return the time of every point that has a field, in InfluxDB."""
    query = f"{url}/query?db=ntpaudit&epoch=ns&q={quote(f'SELECT {field} FROM {measurement}')}"
    with urlopen(query, timeout=60) as got:
        result = json.load(got)["results"][0]
    return [row[0] for row in result["series"][0]["values"]] if "series" in result else []


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Live through thirty days once; the tests look at what is left of them."""
    runtime = WatchedRuntime(START_NS, seed=7)
    hiccups = Hiccups()
    day = [index * DAY_S for index in range(31)]
    runtime.changes = [
        Change(day[2], happens(BlockNtp())),
        Change(day[2] + 2 * HOUR_S, allows_ntp),
        Change(day[4], sets(-3600.0)),
        Change(day[4] + 3 * HOUR_S, sets(+3600.0)),
        Change(day[6], sets(+86_400.0)),
        Change(day[6] + HOUR_S, sets(-86_400.0)),
        Change(day[8], happens(Suspend(8 * HOUR_S))),
        Change(day[10], lies_once),
        Change(day[12], goes_adrift),
        Change(day[13], happens(StartDaemon(0.0))),
        Change(day[15], lies(37.0, SERVERS[2])),
        Change(day[16], lies(0.0, SERVERS[2])),
        Change(day[22], lambda _: setattr(hiccups, "is_away", True)),
        Change(day[25], lambda _: setattr(hiccups, "is_away", False)),
    ]
    with influxd() as real, FlakyDatabase(real, hiccups) as flaky:
        flaky.dates = False
        life = AgentLife(tmp_path_factory.mktemp("month"), runtime, flaky.url)
        life.run(day[18])
        runtime.pass_time(int(5 * HOUR_S * S))
        runtime.host.set_clock(round(-2.5 * S))  # while no agent watches
        life.run(day[20])
        # in 1970, and without a network for 25 minutes
        happens(Reboot(clock_ns=12 * S), BlockNtp(), StopDaemon())(runtime)
        booted_s = (runtime.host.utc_ns - START_NS) / S
        runtime.changes += [Change(booted_s + 1500, allows_ntp), Change(booted_s + 3000, happens(StartDaemon(0.0)))]
        life.run(day[30])
        drained = Agent(read_setup(str(life.config), {"STATE_DIRECTORY": str(life.folder / "state")}), runtime)
        drained.drain(120.0)
        clock = points(real, "ntpaudit_clock", "severity")
        events = points(real, "ntpaudit_event", "raised")
        life.audits = cache(life.audits)  # type: ignore[method-assign]
        yield life, clock, events


def test_every_record_arrives_once(month: Any) -> None:
    """The points in the database are the records of the history: none lost, none twice, whatever failed on the way."""
    life, clock, events = month
    kept = [audit.utc_ns for audit in life.audits()]
    assert len(kept) > 12_000
    assert sorted(clock) == sorted(set(kept))
    assert len(kept) == len(set(kept))
    with life.database as connection:
        reported = [row[0] for row in connection.execute("SELECT utc_ns FROM events WHERE utc_ns IS NOT NULL")]
        assert connection.execute("SELECT COUNT(*) FROM outbox").fetchone() == (0,)
        assert connection.execute("SELECT COUNT(*) FROM set_aside").fetchone() == (0,)
    assert set(reported) <= set(events)


def test_every_point_stands_at_the_true_time(month: Any) -> None:
    """However wrong the host's clock was, a record's time is wrong by its bound at most."""
    life, _, _ = month
    for audit in life.audits():
        offset = audit.record["offset"]
        if _all_were_wrong(audit):
            continue
        if offset is not None:
            width_ns = max(offset["latest_s"] - offset["estimate_s"], offset["estimate_s"] - offset["earliest_s"]) * S
            assert abs(audit.utc_ns - audit.truth_ns) <= width_ns + 1_000, audit.record["time"]
        else:
            assert abs(audit.utc_ns - audit.truth_ns) < S, audit.record["time"]  # dated when it was known


def test_the_truth_is_always_inside_the_interval(month: Any) -> None:
    """The true offset lies in the interval, except for the sample in which all servers were wrong."""
    life, _, _ = month
    for audit in life.audits():
        if (offset := audit.record["offset"]) is not None and not _all_were_wrong(audit):
            true_s = (audit.truth_ns - parse_utc(audit.record["time"]["host"])) / S
            assert offset["earliest_s"] - 1e-6 <= true_s <= offset["latest_s"] + 1e-6, audit.record["time"]


def _all_were_wrong(audit: Kept) -> bool:
    """Whether the audit is based on the one sample in which every server was wrong: nothing helps against that."""
    return 0 <= (audit.truth_ns - START_NS) / S - 10 * DAY_S < 1.5 * INTERVAL_S


def test_the_schedule_knows_no_wall_clock(month: Any) -> None:
    """Servers are asked every five minutes of uptime, give or take the jitter, whatever was done to the clock."""
    life, _, _ = month
    asked = [audit.truth_ns for audit in life.audits() if audit.kind == "network"]
    gaps = sorted((after - before) / S for before, after in pairwise(asked))
    assert gaps[len(gaps) // 2] == pytest.approx(INTERVAL_S, rel=0.03)
    assert sum(gap > INTERVAL_S * 1.06 + 60 for gap in gaps) == 2  # asleep, and stopped; a boot takes 40 s
    rests_ns = [after - before for (boot, before), (same, after) in pairwise(life.runtime.asked) if boot == same]
    assert min(rests_ns) >= SERVER_INTERVAL_S * S  # by the uptime: true time passes as much faster as the clock is slow


def test_steps_are_events_of_the_right_size(month: Any) -> None:
    """Each step is reported once, with size and direction; also the one while no agent ran; a suspend is none."""
    life, _, _ = month
    with life.database as connection:
        rows = connection.execute("SELECT value_s, detail FROM events WHERE kind LIKE 'step-%' ORDER BY id").fetchall()
    reported = [(round(size_s, 3), json.loads(detail)["while_down"]) for size_s, detail in rows]
    assert reported[:4] == [(-3600.0, False), (3600.0, False), (86_400.0, False), (-86_400.0, False)]
    assert (-2.5, True) in reported
    assert len(reported) == 7  # and the daemon's, of two seconds, and of 56 years


def test_alarms_are_raised_and_cleared_and_nothing_else_is(month: Any) -> None:
    """A lasting fault is raised once and cleared once; one bad sample raises nothing of the offset."""
    life, _, _ = month
    kinds = {kind for kind, _ in life.events() if not kind.startswith("step-")}
    changes = {kind: [raised for raised, _ in groupby(raised for _, raised in life.events(kind))] for kind in kinds}
    pairs = {kind: len(reported) // 2 for kind, reported in changes.items()}  # another level is no other alarm
    assert {kind: reported for kind, reported in changes.items() if reported != [1, 0] * pairs[kind]} == {}
    assert pairs == {
        "unreachable-sources": 2,  # of two hours, and while booting
        "evidence-gap": 3,  # of those two hours, while stopped, and while booting; asleep there is no log to prove
        "daemon-stale": 1,  # chronyd could not reach its servers either
        "offset-out": 5,  # back by an hour, forward by a day, adrift, set while no agent watched, and in 1970
        "offset-high": 4,  # adrift, before it is out; and on the way back from an hour, a day and 2.5 s
        "unmeasured": 1,  # while booting; after the sleep the poll comes first
        "tz-or-rtc-fault": 1,
        "breach-forecast": 1,
        "unsynced": 2,
        "daemon-dead": 1,  # for a day; that the kernel was not updated, and says so in the end, is listed under it
        "source-quorum": 1,  # the falseticker
        "contradicts-earlier": 1,  # all servers at once, and back again in the next sample
    }


def test_a_day_across_the_era_is_a_day_like_any_other(tmp_path: Path) -> None:
    """On 2036-02-07 NTP's seconds start again from 0: nothing is reported, and no interval loses the truth."""
    era_ns = 2_085_978_496 * S
    runtime = SimulatedRuntime(era_ns - int(HOUR_S * S), seed=36)
    runtime.changes = [Change(HOUR_S + 900, sets(-(2.0**31))), Change(HOUR_S + 1800, sets(2.0**31))]
    life = AgentLife(tmp_path, runtime, None)
    life.run(4 * HOUR_S)
    audits = life.audits()
    assert audits[0].truth_ns < era_ns < audits[-1].truth_ns
    for audit in audits:
        if (offset := audit.record["offset"]) is not None:
            true_s = (audit.truth_ns - parse_utc(audit.record["time"]["host"])) / S
            assert offset["earliest_s"] - 1e-6 <= true_s <= offset["latest_s"] + 1e-6
            assert abs(audit.utc_ns - audit.truth_ns) < 0.05 * S
    assert [kind for kind, _ in life.events() if kind.startswith("step")] == ["step-back", "step-forward"]


def hurries(runtime: SimulatedRuntime) -> None:
    """Send SIGUSR1: audit now."""
    runtime.signals.append(signal.SIGUSR1)


def suspends(runtime: SimulatedRuntime) -> None:
    """Sleep for an hour."""
    runtime.host.apply_event(Suspend(HOUR_S))


@pytest.mark.parametrize("has_network", [True, False])
def test_the_first_poll_comes_before_a_local_audit_says_unmeasured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_network: bool
) -> None:
    """At a start, after a boot and after a suspend the offset is unknown until the poll that is due within seconds."""
    monkeypatch.setattr("ntpaudit.agent._random", lambda: 0.9)  # the first poll is due after 9 s
    runtime = SimulatedRuntime(START_NS, seed=5)
    runtime.host.is_cut_off = not has_network
    life = AgentLife(tmp_path, runtime, None)
    life.config.write_text(life.config.read_text().replace('local = "10m"', 'local = "1s"'))
    runtime.changes = [Change(4.0, hurries), Change(150.0, suspends)]
    life.run(HOUR_S + 250.0)
    runtime.host.apply_event(Reboot())
    life.run((runtime.host.utc_ns - START_NS) / S + 100.0)
    audits = life.audits()
    assert audits[0].kind == "network"
    assert len(audits) > 280
    unmeasured = [audit.kind for audit in audits if audit.record["verdict"] == "unmeasured"]
    assert life.events("unmeasured")[:1] == ([] if has_network else [("unmeasured", 1)])
    assert (unmeasured[:2] == ["network", "local"]) is not has_network
    assert has_network or len(unmeasured) == len(audits)
    assert not has_network or unmeasured == []


def test_replies_are_kept_when_the_agent_ends(tmp_path: Path) -> None:
    """An answer and SIGTERM at the same moment: the audit is in the history before the agent ends."""
    runtime = SimulatedRuntime(START_NS, seed=1)
    life = AgentLife(tmp_path, runtime, None)
    asked = []

    def end_at_once(plan: Any, update: Any) -> None:
        SimulatedRuntime.poll(runtime, plan, update)
        asked.append(runtime.host.utc_ns)
        runtime.ends.append(signal.SIGTERM)

    runtime.poll = end_at_once  # type: ignore[method-assign]
    life.run(HOUR_S)
    assert [audit.kind for audit in life.audits()].count("network") == len(asked) == 1


def test_a_boot_without_network_is_delivered_by_the_next(tmp_path: Path) -> None:
    """Records of an unmeasured boot are stamped by its clock, which was credible; none becomes a dead letter."""
    runtime = SimulatedRuntime(START_NS, seed=2)
    runtime.host.is_cut_off = True
    life = AgentLife(tmp_path, runtime, "http://127.0.0.1:9")  # no database is there: all waits in the outbox
    life.run(200.0)
    runtime.host.apply_event(Reboot())
    runtime.host.is_cut_off = False
    life.run(1200.0)
    with life.database as connection:
        assert connection.execute("SELECT COUNT(*) FROM set_aside").fetchone() == (0,)
        stamps = [row[0] for row in connection.execute("SELECT stamp_ns FROM outbox ORDER BY id")]
    assert len(stamps) == len(life.audits())
    assert None not in stamps
    assert stamps == sorted(stamps)


def test_a_host_of_an_unknown_boot_trusts_no_uptime_of_before(tmp_path: Path) -> None:
    """Where the boot has no id, nothing of an earlier run is carried on."""
    runtime = SimulatedRuntime(START_NS, seed=3)
    runtime.has_boot_id = False
    life = AgentLife(tmp_path, runtime, None)
    life.run(900.0)
    runtime.host.apply_event(Reboot(clock_ns=runtime.host.utc_ns - 7 * S))
    life.run(1800.0)
    for audit in life.audits():
        if (offset := audit.record["offset"]) is not None:
            true_s = (audit.truth_ns - parse_utc(audit.record["time"]["host"])) / S
            assert offset["earliest_s"] - 1e-6 <= true_s <= offset["latest_s"] + 1e-6


@pytest.mark.parametrize("tripped", [False, True], ids=["once", "tripped over before"])
def test_what_was_seen_and_not_judged_is_judged_at_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tripped: bool
) -> None:
    """Of this boot and of another, each once; one that ended the agent before is left alone, and its words kept."""
    runtime = SimulatedRuntime(START_NS, seed=4)
    life = AgentLife(tmp_path, runtime, "http://127.0.0.1:9")
    life.run(900.0)
    count = len(life.audits())
    store = StateStore(str(tmp_path / "state" / "history.sqlite3"))
    plan = plan_of(read_setup(str(life.config), {}).config)
    kept = []
    for _ in range(2):  # the last moments of one boot, and the first of the next
        runtime.poll(plan, lambda change: None)
        observation = runtime.wait(0.0).observation
        assert observation is not None
        kept.append(store.write(audits.keep_observation, observation, "network"))
        runtime.host.apply_event(Reboot())
    runtime.host.boots -= 1  # the second is of the boot that goes on
    runtime.pass_time(60 * S)
    if tripped:
        store.write(saved_state.save_state, "recovering", [kept[0], MAX_ATTEMPTS])
    store.close()
    life.run(960.0 + 200.0)
    with life.database as connection:
        assert connection.execute("SELECT COUNT(*) FROM audits WHERE record IS NULL").fetchone() == (int(tripped),)
        judged = connection.execute("SELECT COUNT(*) FROM audits WHERE kind = 'network' AND id > ?", (count,))
        assert judged.fetchone()[0] >= 2 - tripped
    assert any("is skipped: the agent ended each time it judged" in text for text in caplog.messages) == tripped

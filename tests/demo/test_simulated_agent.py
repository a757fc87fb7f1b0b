"""A simulated host's agent finds what its story says, no more and no less, and every interval holds the truth."""

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

import ntpaudit.demo.simulated_agent
from ntpaudit.core.accounts import Account
from ntpaudit.core.actions import Action
from ntpaudit.core.agent import handle
from ntpaudit.core.agent_events import AgentEvent, ClockSet, Observed, Started
from ntpaudit.core.agent_state import AgentState
from ntpaudit.core.clock.readings import KERNEL_MARGIN_PPM, MAX_DRIFT_PPM, MAX_KERNEL_PPM
from ntpaudit.core.excursions import merged
from ntpaudit.core.observation import SourceFailure
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES, Severity
from ntpaudit.core.record import Record
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.demo.host import build_host
from ntpaudit.demo.network import loopback, query_without_udp
from ntpaudit.demo.scenario import ENV, FALSETICKER_ERROR_S, HEALTHY, MOVED_SITE, HostSpec, Scenario, build_scenario
from ntpaudit.demo.server import NtpServer
from ntpaudit.demo.simulated_agent import Query, SimulatedAgent, SimulatedAudit
from ntpaudit.store.paths import FILE_NAME
from ntpaudit.store.rows import read_json
from tests.demo.expected import expected_findings
from tests.world.played import PlayedAgent, PlayedHost

pytestmark = pytest.mark.untraced

END_NS = 1_795_000_000 * NS_PER_S
HOUR_NS = 3600 * NS_PER_S
READ_S = 1e-6
"""More than two readings of the clocks take, and the rounding."""


class Lived(NamedTuple):
    """A story, and all that came of it, by host."""

    story: Scenario
    audits: dict[str, list[SimulatedAudit]]
    is_real: bool = False
    """Asked over UDP, in real time."""


def live(scenario: Scenario, ask: Query) -> Lived:
    """Let every host live to the end of the story."""
    return Lived(
        scenario,
        {part.name: list(SimulatedAgent(part, scenario, ask).advance(scenario.end_ns)) for part in scenario.hosts},
    )


@pytest.fixture(scope="module", params=[1, 2, 3], ids=["a fleet", "hosts that differ", "over UDP"])
def lived(request: pytest.FixtureRequest) -> Iterator[Lived]:
    """A fleet, and the hosts of two others that differ; those of one are queried over UDP on loopback."""
    seed: int = request.param
    scenario = build_scenario(24, 6.0, seed, END_NS)
    if seed > 1:
        faults: dict[tuple[str, bool], HostSpec] = {}
        for part in scenario.hosts:
            faults.setdefault((part.fault.name, part.site == MOVED_SITE), part)
        scenario = scenario._replace(hosts=tuple(faults.values()))
    if seed == 3:
        with loopback(scenario.sources) as ask:
            yield live(scenario, ask)._replace(is_real=True)
    else:
        yield live(scenario, query_without_udp)


def test_every_interval_holds_the_truth(lived: Lived) -> None:
    """Measured or carried forward, whatever was done to the clock and whichever server was wrong."""
    for audit in (one for all_audits in lived.audits.values() for one in all_audits):
        if (offset := audit.record.offset) is not None:
            behind_s = audit.behind_ns / NS_PER_S
            assert offset.earliest_s - 1e-9 <= behind_s <= offset.latest_s + 1e-9, (audit.record.host.name, behind_s)


def test_no_interval_is_wider_than_its_proof_needs(lived: Lived) -> None:
    """Below 0.1 s, and carried on it grows by the oscillator's worst rate alone (docs/architecture.md).

    Over UDP a measurement is as wide as the real exchange took: a busy machine's delay is no width of the method.
    """
    for all_audits in lived.audits.values():
        measured_s = waited_s = 0.0
        for record in (audit.record for audit in all_audits):
            if (offset := record.offset) is None:
                continue
            width_s, age_s = offset.latest_s - offset.earliest_s, record.age_s or 0.0
            if age_s == 0:
                measured_s = width_s
                waited_s = max(source.delay_s or 0.0 for source in record.sources) if lived.is_real else 0.0
            assert offset.max_drift_ppm is not None
            assert MAX_DRIFT_PPM <= offset.max_drift_ppm <= MAX_KERNEL_PPM + KERNEL_MARGIN_PPM
            grown_s = 2 * (offset.max_drift_ppm * 1e-6 * age_s + READ_S)
            assert width_s <= measured_s + grown_s, record.host.name
            assert width_s < 0.1 + waited_s, record.host.name


def test_every_host_is_found_to_be_as_it_is(lived: Lived) -> None:
    """By its last record: severity, the findings that count, and whether its clock was measured."""
    found = expected_findings(lived.story)
    severities = {
        **dict.fromkeys(found.critical, Severity.CRITICAL),
        **dict.fromkeys(found.warning, Severity.WARNING),
        **dict.fromkeys(found.unmeasured, Severity.UNKNOWN),
        **dict.fromkeys(found.ok, Severity.OK),
    }
    for name, all_audits in lived.audits.items():
        last = all_audits[-1].record
        if name in found.silent:
            assert last.utc_ns == pytest.approx(END_NS - 2 * HOUR_NS, abs=120 * NS_PER_S)
            continue
        assert last.severity is severities[name], name
        assert {one.id for one in last.findings if one.severity > Severity.OK} == found.findings[name], name
        assert (last.offset is None) == (name in found.unmeasured)
        assert 0 <= END_NS - all_audits[-1].utc_ns < 2 * lived.story.intervals.local_s * NS_PER_S, name


def test_healthy_hosts_are_never_warned_of(lived: Lived) -> None:
    """From the first audit to the last nothing is raised, and no record is worse than ok."""
    for part in lived.story.hosts:
        if part.fault is HEALTHY:
            assert all(audit.record.severity is Severity.OK for audit in lived.audits[part.name]), part.name
            raised = [
                event for audit in lived.audits[part.name] for event in audit.events if event.severity > Severity.OK
            ]
            assert raised == [], part.name


def test_steps_are_reported_once_with_time_and_size(lived: Lived) -> None:
    """Every step of the story is an event, and nothing else is a step: no suspend, no boot, no slew."""
    seen = sorted(
        (audit.record.host.name, event.utc_ns, event.value_s)
        for audit in (one for all_audits in lived.audits.values() for one in all_audits)
        for event in audit.events
        if event.kind in ("step-back", "step-forward")
    )
    expected = sorted(expected_findings(lived.story).stepped)
    assert [name for name, _, _ in seen] == [step.host for step in expected]
    for (_, utc_ns, size_s), step in zip(seen, expected, strict=True):
        assert utc_ns == pytest.approx(step.utc_ns, abs=NS_PER_S)
        assert size_s == pytest.approx(step.size_s, abs=0.1)


def test_accounts_are_as_the_clocks_were(lived: Lived) -> None:
    """Every second counts once; beyond is what was wrong by more than the tolerance, within two local intervals."""
    local_s = lived.story.intervals.local_s
    for name, all_audits in lived.audits.items():
        hours = [one for audit in all_audits for one in audit.accounts if one.length_s == HOUR_S]
        assert all(sum(hour.spans) == HOUR_S for hour in hours)
        assert [hour.begin_s for hour in hours[1:]] == [hour.end_s for hour in hours[:-1]], name
        end_ns = hours[-1].end_s * NS_PER_S
        wrong = [abs(one.behind_ns) > NS_PER_S for one in all_audits if one.utc_ns < end_ns]
        changes = sum(one != other for one, other in pairwise(wrong))
        beyond_s = sum(hour.spans.beyond for hour in hours)
        wrong_s = sum(
            (after.utc_ns - before.utc_ns) / NS_PER_S
            for before, after in pairwise(one for one in all_audits if one.utc_ns < end_ns)
            if abs(before.behind_ns) > NS_PER_S and before.record.verdict == "beyond"
        )
        assert abs(beyond_s - wrong_s) <= 2 * local_s * (changes + 1), name
        excursions = merged(one for hour in hours for one in hour.excursions if one.state == "beyond")
        assert sum(one.duration_s for one in excursions) == beyond_s
        assert all(one.proved_s > PROFILES[DEFAULT_PROFILE].critical_s for one in excursions), name


def test_the_falseticker_is_found_by_every_host_that_queries_it(lived: Lived) -> None:
    """The last audit that asked it calls it a falseticker, and by how much."""
    for source, names in expected_findings(lived.story).shared_falsetickers.items():
        assert names
        for name in names:
            asked = [audit.record for audit in lived.audits[name] if audit.record.kind == "network"][-1]
            falseticker = next(one for one in asked.sources if one.name == source)
            assert falseticker.status == "falseticker"
            assert asked.offset is not None
            assert falseticker.offset_s == pytest.approx(FALSETICKER_ERROR_S + asked.offset.estimate_s, abs=0.1)


def test_moves_are_proved_by_disjoint_intervals(lived: Lived) -> None:
    """A slow walk and a site that moves are certain within an hour, and stay below the warning tolerance."""
    found = expected_findings(lived.story)
    moved = [part.name for part in lived.story.hosts if part.site in found.sites_moved and part.name in found.ok]
    assert moved
    assert found.slow_walkers
    for name in (*moved, *found.slow_walkers):
        records = [audit.record for audit in lived.audits[name] if audit.record.utc_ns is not None]
        now = records[-1].offset
        before = [one for one in records if one.utc_ns is not None and one.utc_ns <= END_NS - HOUR_NS][-1].offset
        assert now is not None
        assert before is not None
        assert now.latest_s < before.earliest_s, name
        assert -0.1 < now.estimate_s < -0.05, name


def test_over_udp_the_servers_are_real() -> None:
    """Sources have addresses of loopback, and the answers' round trips are those of this machine."""
    scenario = build_scenario(24, 6.0, 1, END_NS)
    part = next(part for part in scenario.hosts if part.fault is HEALTHY)
    with loopback(scenario.sources) as ask:
        record = next(SimulatedAgent(part, scenario, ask).advance(scenario.end_ns)).record
    assert {source.address for source in record.sources} == {"127.0.0.1"}
    assert all(source.delay_s is not None and 0 < source.delay_s < 1.0 for source in record.sources)


def test_a_reply_that_is_lost_changes_nothing_that_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is too busy to reply in time does not cut its hosts off: what is lost is computed."""
    monkeypatch.setattr(NtpServer, "reply", lambda *_: [])
    scenario = build_scenario(24, 6.0, 1, END_NS)
    host = build_host(scenario.hosts[0], scenario.begin_ns, random.Random(1))
    with loopback(scenario.sources[:2]) as ask:
        replies = ask(host, scenario.sources[:2])
    for reply in replies:
        assert not isinstance(reply.outcome, SourceFailure), reply
        assert reply.outcome[0].timestamps.before.boottime_ns <= host.boottime_ns
        assert reply.outcome[0].interval.covers(host.behind_ns)


def test_nothing_depends_on_the_portions_of_time() -> None:
    """The same seed gives the same audits to the last bit, however often a life is paused; another seed others."""
    scenario = build_scenario(24, 6.0, 1, END_NS)
    other = build_scenario(24, 6.0, 2, END_NS)
    begin_ns = scenario.end_ns - 3 * HOUR_NS
    for part in scenario.hosts[:2]:
        whole = list(SimulatedAgent(part, scenario, query_without_udp).advance(END_NS))
        life = SimulatedAgent(part, scenario, query_without_udp)
        pieces = [audit for step in range(181) for audit in life.advance(begin_ns + step * 60 * NS_PER_S)]
        assert pieces == whole
        assert list(SimulatedAgent(other.hosts[0], other, query_without_udp).advance(END_NS)) != whole


@pytest.mark.parametrize("fault", ["healthy", "repaired-step", "suspended", "cut-off"])
def test_the_agent_over_a_history_concludes_the_same(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same events the agent with a real store makes the same records and events, through a boot too.

    The simulation carries the state over in memory; the agent stores it and restores it at its next start.
    """
    scenario = build_scenario(24, 6.0, 1, END_NS)
    part = next(part for part in scenario.hosts if part.fault.name == fault)
    met: list[AgentEvent] = []

    def noted(state: AgentState, event: AgentEvent) -> tuple[AgentState, tuple[Action, ...]]:
        met.append(event)
        return handle(state, event)

    monkeypatch.setattr(ntpaudit.demo.simulated_agent, "handle", noted)
    all_audits = list(SimulatedAgent(part, scenario, query_without_udp).advance(END_NS))
    records: list[Record] = []
    runtime, agent = PlayedHost(), None
    for position, event in enumerate(met):
        match event:
            case Started(reading):
                if agent is not None:
                    agent.close()
                seen = next(one.observation for one in met[position:] if isinstance(one, Observed))
                runtime.turn(reading, seen)
                rest = f'[host]\nsite = "{part.site}"\nenv = "{ENV}"\n[schedule]\nlocal = "10m"\n'
                agent = PlayedAgent(tmp_path, runtime, rest)
                agent.begin()
            case ClockSet():
                assert agent is not None
                agent.handle(event)
            case Observed():
                assert agent is not None
                agent.handle(event)
                assert agent.state.record is not None
                records.append(agent.state.record)
    assert agent is not None
    agent.close()
    audit = [_without_agent(one.record) for one in all_audits]
    assert [_without_agent(record) for record in records] == audit
    with closing(sqlite3.connect(tmp_path / "state" / FILE_NAME)) as connection:
        stored = connection.execute("SELECT kind, raised, text, utc_ns FROM events ORDER BY id").fetchall()
        packed = connection.execute("SELECT account FROM accounts").fetchall()
    accounts = {account[:2]: _without_store(account) for audit in all_audits for account in audit.accounts}
    assert {
        account[:2]: _without_store(account) for account in (read_json(Account, one) for (one,) in packed)
    } == accounts
    assert len(accounts) in ((3,) if fault == "cut-off" else (6, 7))  # not measured since it was cut off and booted
    events = [event for audit in all_audits for event in audit.events]
    assert [(event.kind, event.raised, event.text, event.utc_ns) for event in events] == stored
    assert len({record.host.boot_id for record in records}) == 1 + (fault == "cut-off")


def _without_agent(record: Record) -> Record:
    """Return a record without what only a real agent has, nor the numbers of findings, whose last digit may differ."""
    findings = tuple(finding._replace(numbers={}) for finding in record.findings)
    return record._replace(health=None, config_sha256=None, findings=findings)


def _without_store(account: Account) -> Account:
    """Return an account without what only a store has, nor the configuration, which only a real agent has."""
    in_force = tuple(one._replace(config_sha256=None) for one in account.in_force)
    return account._replace(in_force=in_force, chain_first=None, chain_last=None, chain_head=None, rows=None)


@pytest.mark.parametrize("ahead_s", [0.0, 0.5, -1.5])
def test_the_kernel_never_stamps_for_a_simulated_clock(ahead_s: float) -> None:
    """Even of a host whose clock shows the real time, or nearly so, every interval holds the truth."""
    scenario = build_scenario(24, 6.0, 1, END_NS)
    host = build_host(scenario.hosts[0], time.time_ns(), random.Random(1))
    host.set_clock(round(ahead_s * NS_PER_S))
    with loopback(scenario.sources) as ask:
        for source in ask(host, scenario.sources[:4]):
            assert not isinstance(source.outcome, SourceFailure), source
            (sample,) = source.outcome
            assert sample.timestamps.timestamping == "user"
            assert sample.interval.covers(host.behind_ns)

"""What a crash leaves behind is judged by the schedule that was in force when it was seen."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from ntpaudit.agent import Agent, read_agent_config
from ntpaudit.audit_cycle import AuditCycle, CycleConfig
from ntpaudit.config.schema import HistoryConfig
from ntpaudit.core.record import Record
from ntpaudit.core.units import NS_PER_S
from ntpaudit.store.state import StateStore
from tests.demo.test_simulated_agent import Played
from tests.histories import TERMS, World, clocks, later, observe
from tests.world.host import SimulatedRuntime

pytestmark = pytest.mark.usefixtures("no_warnings")

HOURLY = CycleConfig(TERMS._replace(interval_s=3600.0), {}, delivers=False, limits=HistoryConfig())
OFTEN = HOURLY._replace(settings=TERMS._replace(interval_s=300.0))


def test_an_orphan_is_judged_by_the_interval_of_its_time(tmp_path: Path) -> None:
    """An hour without an answer is no gap at one poll an hour, though the next run polls every 5 minutes."""
    world, runtime = World(answers=lambda minute: minute == 0), Played()
    first, pending, now = (
        observe(world, minute, later(clocks(world, minute), NS_PER_S), asks=True) for minute in (0, 60, 61)
    )
    with closing(StateStore(str(tmp_path / "history"), pytest.fail)) as store:
        runtime.turn(first.taken, first)
        rounds = AuditCycle(store, runtime, HOURLY)
        rounds.begin(HOURLY)
        rounds.network(first)
        store.keep_observation(pending, "network")  # and there it was killed
        runtime.turn(now.taken, now)
        rounds = AuditCycle(store, runtime, OFTEN)
        rounds.begin(OFTEN)
        assert rounds.last is not None
        assert rounds.last.verdict == "within"
        assert not has_gap(rounds.last)
        assert not has_gap(rounds.local().record)


def has_gap(record: Record) -> bool:
    """Whether a record says that evidence is missing."""
    return any(finding.id == "evidence-gap" for finding in record.findings)


def test_a_host_with_pools_alone_begins_by_its_own_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is judged at the start is judged by the pool's interval, not by that of servers it does not have."""
    config = tmp_path / "ntpaudit.toml"
    config.write_text('[sources]\npool = "pool.ntp.org"\n')
    environment = {"STATE_DIRECTORY": str(tmp_path / "state"), "PATH": os.environ["PATH"]}
    agent = Agent(read_agent_config(str(config), environment), SimulatedRuntime(10**18 * 2, seed=1))
    begun: list[float] = []
    begin = agent.cycle.begin

    def spied(ways: CycleConfig) -> None:
        begun.append(ways.settings.interval_s)
        begin(ways)

    monkeypatch.setattr(agent.cycle, "begin", spied)
    agent.begin()
    assert begun == [3600.0]
    assert agent.cycle.config.settings.interval_s == 3600.0
    agent.drain(0.0)

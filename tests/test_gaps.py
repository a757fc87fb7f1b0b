"""What a crash leaves behind is judged by the schedule that was in force when it was seen."""

import os
from pathlib import Path

import pytest

from ntpaudit.agent import Agent, read_setup
from ntpaudit.core.record import Record
from ntpaudit.core.units import NS_PER_S
from ntpaudit.store import audits
from tests.histories import World, clocks, later, observe
from tests.world.host import SimulatedRuntime
from tests.world.played import PlayedAgent, PlayedHost

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_an_orphan_is_judged_by_the_interval_of_its_time(tmp_path: Path) -> None:
    """An hour without an answer is no gap at one poll an hour, though the next run polls every 5 minutes."""
    world, runtime = World(answers=lambda minute: minute == 0), PlayedHost()
    first, pending, now = (
        observe(world, minute, later(clocks(world, minute), NS_PER_S), asks=True) for minute in (0, 60, 61)
    )
    runtime.turn(first.taken, first)
    agent = PlayedAgent(tmp_path, runtime, '[schedule]\nnetwork = "1h"\n')
    agent.begin()
    agent.network(first)
    agent.store.write(audits.keep_observation, pending, "network")  # and there it was killed
    agent.close()
    runtime.turn(now.taken, now)
    agent = PlayedAgent(tmp_path, runtime, '[schedule]\nnetwork = "5m"\n')
    agent.begin()
    assert agent.state.record is not None
    assert agent.state.record.boottime_ns == pending.taken.boottime_ns
    assert agent.state.record.verdict == "within"
    assert not has_gap(agent.state.record)
    assert not has_gap(agent.local())
    agent.close()


def has_gap(record: Record) -> bool:
    """Whether a record says that evidence is missing."""
    return any(finding.id == "evidence-gap" for finding in record.findings)


def test_a_host_with_pools_alone_begins_by_its_own_interval(tmp_path: Path) -> None:
    """Whatever is judged at the start is judged by the pool's interval, not by that of servers it does not have."""
    config = tmp_path / "ntpaudit.toml"
    config.write_text('[sources]\npool = "pool.ntp.org"\n')
    environment = {"STATE_DIRECTORY": str(tmp_path / "state"), "PATH": os.environ["PATH"]}
    agent = Agent(read_setup(str(config), environment), SimulatedRuntime(10**18 * 2, seed=1))
    agent.begin()
    assert agent.state.settings.judging.interval_s == 3600.0
    assert agent.state.clock.poll_interval is not None
    assert agent.state.clock.poll_interval.interval_s == 3600.0
    agent.close()

"""How old the agent's last record is, and when it is too old."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.ntp.rate_limit import Instant
from ntpaudit.core.policy import Severity
from ntpaudit.core.staleness import HostNow, RunningAgent, Wait, agent_status, wait_of
from ntpaudit.core.units import NS_PER_S
from ntpaudit.store.queries import read_agent_state
from tests.records import CASES

RECORD = CASES["beyond, behind"]
BOOT = RECORD.host.boot_id
HOUR_NS = 3600 * NS_PER_S


MACHINE = RECORD.host.machine_id
AGENT = RunningAgent(boot_id=BOOT, started_boottime_ns=RECORD.boottime_ns - HOUR_NS)


def later(up_s: float, clock_s: float = 0.0, *, boot_id: str | None = BOOT, **changes: object) -> HostNow:
    """Return this host later by uptime and by its clock."""
    up_ns, clock_ns = RECORD.boottime_ns + round(up_s * NS_PER_S), RECORD.host_ns + round(clock_s * NS_PER_S)
    return HostNow(Instant(boot_id, up_ns, clock_ns), MACHINE)._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("clock_s", [-86_400.0, 0.0, 108_000.0])
def test_within_a_boot_a_stepped_clock_does_not_matter(clock_s: float) -> None:
    """The age is measured by uptime, wherever the clock was set meanwhile."""
    status = agent_status(RECORD, RECORD, AGENT, later(90.0, clock_s))
    assert (status.age_s, status.last_network_age_s, status.doubt) == (90.0, 90.0, None)


@pytest.mark.parametrize(
    ("here", "reason"),
    [
        (later(20.0, 20.0, boot_id="another"), "of another boot"),
        (later(20.0, 20.0, boot_id=None), "no boot id"),
        (later(20.0, 20.0, machine_id="5" * 32), "of another machine (id 44444444..., this one is 55555555...)"),
        (later(20.0, 20.0, machine_id="5" * 32, agent_runs=True), "of another machine"),
        (later(-20.0, 20.0), "20 s ahead of this host's uptime"),
        (later(-1e-9), "1 ns ahead of this host's uptime"),
    ],
)
def test_another_clock_is_unknown_and_says_why(here: HostNow, reason: str) -> None:
    """A record of another boot or machine, or of the future, says nothing of this clock, however young it looks."""
    status = agent_status(RECORD._replace(severity=Severity.OK), None, AGENT, here, stale_after_s=1e12)
    assert (status.is_stale, status.severity) == (True, Severity.UNKNOWN)
    assert status.doubt is not None
    assert reason in status.doubt


def test_an_unknown_machine_id_is_no_other_machine() -> None:
    """An image that is booted for the first time gets its id only then: the boot is the same."""
    for here in (later(20.0, machine_id=None), later(20.0)):
        for machine_id in (None, here.machine_id):
            record = RECORD._replace(host=RECORD.host._replace(machine_id=machine_id))
            assert agent_status(record, None, AGENT, here).doubt is None


def test_an_agent_that_runs_knows_its_boot_itself() -> None:
    """A sandbox may show it another boot id than others see; without any, what it recorded itself is of this boot."""
    here = later(20.0, boot_id="another", agent_runs=True)
    status = agent_status(RECORD, RECORD, AGENT, here)
    assert (status.doubt, status.age_s, status.last_network_age_s) == (None, 20.0, 20.0)
    assert agent_status(RECORD, None, AGENT._replace(boot_id="a third"), here).doubt is not None
    nameless, bare = RECORD._replace(host=RECORD.host._replace(boot_id=None)), AGENT._replace(boot_id=None)
    here = later(20.0, -7200.0, boot_id=None, agent_runs=True)
    status = agent_status(nameless, None, bare, here)
    assert (status.doubt, status.age_s) == (None, 20.0)
    before = nameless._replace(boottime_ns=RECORD.boottime_ns - 2 * HOUR_NS)
    assert agent_status(before, None, bare, here).doubt is not None
    assert agent_status(nameless, None, bare, here._replace(agent_runs=False)).doubt is not None


def test_across_boots_a_record_is_at_least_as_old_as_this_boot() -> None:
    """A clock that was set back does not make an old record young: this boot has lasted since."""
    up = later(0.0, boot_id="another")
    up = up._replace(moment=up.moment._replace(boottime_ns=3 * HOUR_NS, realtime_ns=RECORD.host_ns + 5 * HOUR_NS))
    assert agent_status(RECORD, None, AGENT, up).age_s == 5 * 3600
    up = up._replace(moment=up.moment._replace(realtime_ns=RECORD.host_ns - HOUR_NS))
    assert agent_status(RECORD, None, AGENT, up).age_s == 3 * 3600


def test_stale_is_unknown_whatever_it_was() -> None:
    """A record older than three local intervals and 10 s says nothing of the clock, be it ever so critical."""
    agent = RunningAgent(local_s=20.0)
    fresh = agent_status(RECORD, None, agent, later(70.0))
    assert (fresh.is_stale, fresh.severity) == (False, Severity.CRITICAL)
    stale = agent_status(RECORD, None, agent, later(70.000000001))
    assert (stale.is_stale, stale.severity) == (True, Severity.UNKNOWN)
    assert not agent_status(RECORD, None, agent, later(70.000000001), 71.0).is_stale


def test_uptime_of_the_agent_is_that_at_the_record() -> None:
    """It refers to the time of the record; a record of another agent shows nothing about this one."""
    assert agent_status(RECORD, RECORD, AGENT, later(90.0)).agent_up_s == 3600
    assert agent_status(RECORD, RECORD, AGENT._replace(boot_id="another"), later(90.0)).agent_up_s is None
    late = AGENT._replace(started_boottime_ns=RECORD.boottime_ns + 1)
    assert agent_status(RECORD, RECORD, late, later(90.0)).agent_up_s is None


def test_what_an_agent_waits_for() -> None:
    """For how long it has run, and when it polls: by uptime, and only where it runs now."""
    agent = AGENT._replace(next_poll_boottime_ns=RECORD.boottime_ns + 8 * NS_PER_S)
    assert wait_of(agent, later(2.0, agent_runs=True)) == Wait(3602.0, 6.0)
    assert wait_of(agent, later(2.0, agent_runs=False)) is wait_of(AGENT, later(2.0, agent_runs=True)) is None


def test_the_agents_state_is_read_as_it_is_written() -> None:
    """Every entry is found; the limit follows the interval."""
    data = {
        "local_s": 30, "network_s": 120.0, "pool_s": 7200, "pid": 812, "version": "0.2.0",
        "started_boottime_ns": 5, "boot_id": "b", "next_poll_boottime_ns": 7, "delivers": True,
    }  # fmt: skip
    state = read_agent_state(data)
    assert state == RunningAgent(30.0, 120.0, 7200.0, 812, "0.2.0", "b", 5, 7, True)
    assert state.stale_after_s == 100


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(RunningAgent._fields), inner, max_size=8)
    ),
    max_leaves=10,
)


@given(_JSON)
def test_a_state_that_makes_no_sense_takes_defaults(data: object) -> None:
    """Nothing that stands there makes the limit anything but a positive number."""
    assert 0 < read_agent_state(data).stale_after_s < 1e10

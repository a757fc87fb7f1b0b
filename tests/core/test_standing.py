"""How old the agent's last record is, and when it is too old."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.core.policy import Severity
from ntpaudit.core.politeness import Moment
from ntpaudit.core.standing import AgentState, age_s, judge_standing, read_agent_state
from tests.records import CASES

RECORD = CASES["beyond, behind"]
BOOT = RECORD.host.boot_id
HOUR_NS = 3600 * NS_PER_S


def moment(up_ns: int, clock_ns: int = 0, boot_id: str | None = BOOT) -> Moment:
    """Return a moment that is so much later by uptime, and by the host's clock."""
    return Moment(boot_id, RECORD.boottime_ns + up_ns, RECORD.host_ns + clock_ns)


@pytest.mark.parametrize("clock_ns", [-24 * HOUR_NS, 0, 30 * HOUR_NS])
def test_within_a_boot_a_stepped_clock_does_not_matter(clock_ns: int) -> None:
    """The age is told by uptime, wherever the clock was set meanwhile."""
    assert age_s(RECORD, moment(90 * NS_PER_S, clock_ns)) == 90


def test_across_boots_the_clock_tells_and_never_less_than_the_uptime() -> None:
    """A clock that was set back does not make an old record young: this boot has lasted since."""
    up = Moment("another", 3 * HOUR_NS, RECORD.host_ns + 5 * HOUR_NS)
    assert age_s(RECORD, up) == 5 * 3600
    assert age_s(RECORD, up._replace(realtime_ns=RECORD.host_ns - HOUR_NS)) == 3 * 3600


def test_stale_is_unknown_whatever_it_was() -> None:
    """A record older than three local intervals and 10 s says nothing of the clock, be it ever so critical."""
    agent = AgentState(local_s=20.0)
    fresh = judge_standing(RECORD, None, agent, moment(70 * NS_PER_S))
    assert (fresh.is_stale, fresh.severity) == (False, Severity.CRITICAL)
    stale = judge_standing(RECORD, None, agent, moment(70 * NS_PER_S + 1))
    assert (stale.is_stale, stale.severity) == (True, Severity.UNKNOWN)
    assert not judge_standing(RECORD, None, agent, moment(70 * NS_PER_S + 1), 71.0).is_stale


def test_uptime_of_the_agent_is_of_this_boot_only() -> None:
    """What an agent of another boot said of its start tells nothing of how long this one has run."""
    agent = AgentState(boot_id=BOOT, started_boottime_ns=RECORD.boottime_ns - HOUR_NS)
    assert judge_standing(RECORD, RECORD, agent, moment(0)).agent_up_s == 3600
    assert judge_standing(RECORD, RECORD, agent, moment(0, boot_id="another")).agent_up_s is None


def test_the_agents_state_is_read_as_it_is_written() -> None:
    """Every entry is found; the limit follows the interval."""
    data = {
        "local_s": 30, "network_s": 120.0, "pool_s": 7200, "pid": 812, "version": "0.2.0",
        "started_boottime_ns": 5, "boot_id": "b",
    }  # fmt: skip
    state = read_agent_state(data)
    assert state == AgentState(30.0, 120.0, 7200.0, 812, "0.2.0", "b", 5)
    assert state.stale_after_s == 100


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(AgentState._fields), inner, max_size=7),
    max_leaves=10,
)


@given(_JSON)
def test_a_state_that_makes_no_sense_takes_defaults(data: object) -> None:
    """Nothing that stands there makes the limit anything but a positive number."""
    assert 0 < read_agent_state(data).stale_after_s < 1e10

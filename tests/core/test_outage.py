"""An outage of all servers as an agent sees it: with its schedule, its rate limits, and the servers' return."""

import random

import pytest

from ntpaudit.core import actions
from ntpaudit.core.agent import handle
from ntpaudit.core.agent_events import Observed, Started, TimePassed
from ntpaudit.core.agent_state import AgentSettings, AgentState, first_state
from ntpaudit.core.evaluation import AuditSettings
from ntpaudit.core.ntp.rate_limit import SERVER_INTERVAL_S, Instant, ServerState, back_off, on_reply, on_timeout
from ntpaudit.core.observation import SourceObservation
from ntpaudit.core.policy import PROFILES, Severity
from ntpaudit.core.schedule import Intervals
from tests.core.hosts import LivingHost
from tests.core.random_agents import LABELS
from tests.core.worlds import S, failed

IDS = {"unreachable-sources", "no-usable-source", "evidence-gap", "unmeasured"}
FOUR = (1, 2, 3, 4)


class Outage:
    """An agent whose servers do not reply from one uptime to another, and all have the same state."""

    def __init__(self, interval_s: float, seed: int) -> None:
        self.host, self.random, self.server = LivingHost(), random.Random(seed), ServerState()
        judging = AuditSettings(PROFILES["log-integrity"], LABELS, interval_s)
        settings, seen = AgentSettings(judging, Intervals(interval_s, 3600.0, 10.0)), self.host.observe()
        state = first_state(settings, seen.context, seen.taken, None)
        self.state, _ = handle(state, Started(self.host.read(), self.host.read_kernel(), self.random.random()))
        self.begin_ns = self.host.boottime_ns + round((600 + self.random.random() * interval_s) * S)
        self.end_ns = self.begin_ns + 1800 * S
        self.timeouts = self.replies = 0

    def poll(self) -> tuple[SourceObservation, ...]:
        """Query the servers, if the rate limit allows it."""
        now = Instant("boot", self.host.boottime_ns, self.host.boottime_ns)
        if hold := back_off(self.server, now, SERVER_INTERVAL_S):
            return tuple(failed(number, "skipped", hold.reason) for number in FOUR)
        if self.begin_ns <= now.boottime_ns < self.end_ns:
            self.timeouts, self.server = self.timeouts + 1, on_timeout(self.server._replace(queried_at=now), now)
            return tuple(map(failed, FOUR))
        self.replies += now.boottime_ns >= self.end_ns
        self.server = on_reply(self.server, now, 1)
        return self.host.sources()

    def turn(self) -> AgentState:
        """Let the agent do what is due next."""
        self.host.run(max(0, self.state.due_ns - self.host.boottime_ns) / S)
        self.state, done = handle(self.state, TimePassed(self.host.boottime_ns, self.random.random()))
        for action in done:
            match action:
                case actions.StartPoll():
                    self.state, _ = handle(self.state, Observed(self.host.observe(*self.poll()), "network"))
                case actions.ObserveHost():
                    self.state, _ = handle(self.state, Observed(self.host.observe(), "local"))
        return self.state


@pytest.mark.parametrize("interval_s", [15.0, 60.0, 300.0])
@pytest.mark.parametrize("seed", range(3))
def test_an_outage_counts_once_from_the_third_query_to_the_third_reply(interval_s: float, seed: int) -> None:
    """One finding counts, none improves before a reply, and back-off delays neither its start nor its end."""
    outage = Outage(interval_s, seed)
    while outage.replies < 3:
        record = outage.turn().record
        assert record is not None
        about = [one for one in record.findings if one.id in IDS]
        counted = [one.id for one in about if one.severity > Severity.OK]
        if not outage.replies:
            assert len(counted) <= 1
            assert not any("Improving" in one.message for one in about)
        if outage.timeouts >= 3 and not outage.replies:
            assert counted == ["unreachable-sources"]
    assert counted == []

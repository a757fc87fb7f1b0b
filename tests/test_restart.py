"""A restarted agent knows as much of the last agreement as the agent before it, and no more."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ntpaudit.agent_store import AgentStore
from ntpaudit.core.observation import Observation, SourceObservation
from ntpaudit.core.record import Record
from ntpaudit.core.units import NS_PER_S
from ntpaudit.store import saved_state
from tests.core.hosts import LivingHost
from tests.core.worlds import failed
from tests.world.played import PlayedAgent, PlayedHost

pytestmark = pytest.mark.usefixtures("no_warnings")


class Watched:
    """An agent over a history, on a host whose clock is known exactly."""

    def __init__(self, folder: Path) -> None:
        self.host, self.around, self._folder = LivingHost(), PlayedHost(), folder
        self._begin()

    def restart(self) -> None:
        """End the agent, and start it again."""
        self.agent.close()
        self._begin()

    def _begin(self) -> None:
        self._see()
        self.agent = PlayedAgent(self._folder, self.around)
        self.agent.begin()

    def local(self, after_s: float = 60) -> Record:
        """Let time pass and observe the host."""
        self.host.run(after_s)
        self._see()
        return self.agent.local()

    def network(self, *sources: int, after_s: float = 300) -> Record:
        """Let time pass and poll four servers, of which these reply."""
        self.host.run(after_s)
        replies = self.host.sources()
        return self.agent.network(self._see(*(replies[one] if one in sources else failed(one + 1) for one in range(4))))

    def first_alone(self, after_s: float = 300) -> Record:
        """Let time pass and poll the first server alone, as where the others are of a pool."""
        self.host.run(after_s)
        return self.agent.network(self._see(self.host.sources()[0]))

    def _see(self, *sources: SourceObservation) -> Observation:
        seen = self.host.observe(*sources)
        self.around.turn(seen.taken, seen)
        return seen

    def has_the_truth(self, record: Record) -> bool:
        """Whether the interval of a record holds the true offset."""
        assert record.offset is not None
        return record.offset.earliest_s <= float(self.host.offset) / NS_PER_S <= record.offset.latest_s


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """An agent that has measured its clock once."""
    watched = Watched(tmp_path)
    assert watched.network(0, 1, 2, 3).verdict == "within"
    yield watched
    watched.agent.close()


def test_an_agreement_that_was_disproved_stays_dropped(watched: Watched) -> None:
    """Two servers of four, one after the other, show that the machine was paused; what four said before is void (R5).

    One reply of four proves nothing (R1), so it is no fix to begin with; the one before it is none either.
    """
    watched.host.pause(30)
    assert watched.network(0).verdict == "within"  # one may lie
    assert watched.network(1).verdict == "unproven"
    assert watched.local().verdict == "unproven"
    watched.restart()
    assert watched.local().verdict == "unproven"


def test_how_far_the_oscillator_may_be_off_is_not_forgotten(watched: Watched) -> None:
    """A correction of 200 ppm that was seen since the measurement widens its interval after a start too (R4)."""
    watched.host.oscillator_ppm += 200
    watched.host.run(3600, slew_ppm=200)
    before = watched.local()
    watched.host.frequency_ppm = 0  # a daemon that starts again without its drift file
    watched.local()
    watched.restart()
    after = watched.local()
    assert before.offset is not None
    assert after.offset is not None
    assert before.offset.max_drift_ppm == after.offset.max_drift_ppm == 215
    assert watched.has_the_truth(after)


def test_a_start_does_not_help_a_falseticker(watched: Watched) -> None:
    """What four servers proved stands against one that agreed with them first and is polled alone (R5)."""
    assert watched.first_alone().age_s == 0
    watched.restart()
    watched.host.pause(30)
    assert watched.first_alone().age_s == pytest.approx(600)
    watched.restart()
    assert watched.first_alone().verdict == "within"
    assert watched.network(0, 1).verdict == "beyond"


def test_a_state_of_another_version_is_restored(watched: Watched) -> None:
    """A part of the state that this version does not have is ignored; all others are restored."""
    watched.network(0, 1, 2, 3)
    store = watched.agent.store
    stored = store.read(saved_state.load_state, "clock")
    store.write(saved_state.save_state, "clock", stored | {"samples_since_ns": 7})
    assert AgentStore(store).load() == watched.agent.state.clock


def test_what_is_stored_is_the_state(watched: Watched) -> None:
    """After each audit and at each start, also of another boot, the file has the whole state, in all its parts."""

    def is_stored() -> bool:
        return AgentStore(watched.agent.store).load() == watched.agent.state.clock

    for turn in range(12):
        watched.network(0, 1, 2, 3)
        watched.local()
        assert is_stored()
        if turn % 4 == 3:
            assert watched.agent.state.clock.line is not None
            watched.host.set_clock(NS_PER_S) if turn == 3 else watched.host.reboot()
            watched.restart()
            watched.local()
            assert is_stored()

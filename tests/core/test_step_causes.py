"""An agent learns the cause of a step from a later audit, and raises what the logs leave open."""

import pytest

from ntpaudit.core.actions import StoreAudit
from ntpaudit.core.agent import handle
from ntpaudit.core.agent_events import Observed, ShellReport
from ntpaudit.core.agent_state import AgentSettings, AgentState, first_state
from ntpaudit.core.clock.steps import StepCause
from ntpaudit.core.clock_state import CAUSE_AFTER_NS, unexplained_steps
from ntpaudit.core.record import Health, Record
from tests.histories import INTERVALS, MINUTE_NS, TERMS, World, clocks, later, observe

S_NS = 10**9
WORLD = World(stepped_s=lambda minute: 2.5 if minute >= 3 else 0.0)


def audited(state: AgentState | None, minute: int, *causes: StepCause) -> tuple[AgentState, Record]:
    """Let an agent audit a minute of the world, with these causes found in logs."""
    now = later(clocks(WORLD, minute), S_NS)
    observation = observe(WORLD, minute, now, asks=minute == 0)._replace(step_causes=causes)
    state = state or first_state(AgentSettings(TERMS, INTERVALS), observation.context, now, None)
    observed = Observed(observation, "network" if minute == 0 else "local", ShellReport(Health()))
    state, done = handle(state, observed)
    (stored,) = (one for one in done if isinstance(one, StoreAudit))
    return state, stored.record


@pytest.fixture
def stepped() -> AgentState:
    """An agent that has just detected a step."""
    state = None
    for minute in range(4):
        state, _ = audited(state, minute)
    assert state is not None
    return state


def test_when_logs_are_searched(stepped: AgentState) -> None:
    """6 s after the step, until a cause or the lack of one is known."""
    (step,) = stepped.clock.steps
    assert unexplained_steps(stepped.clock, step.boottime_ns + CAUSE_AFTER_NS - 1) == []
    assert unexplained_steps(stepped.clock, step.boottime_ns + CAUSE_AFTER_NS) == [step]
    state, _ = audited(stepped, 4, StepCause(step.boottime_ns, None, unread="no journal"))
    assert unexplained_steps(state.clock, step.boottime_ns + MINUTE_NS) == []


def test_a_small_or_early_step_needs_no_cause(stepped: AgentState) -> None:
    """As it raises nothing, nothing is searched; nor for a step that an earlier version stored."""
    clock = stepped.clock
    for change in ({"size_ns": 9_000_000}, {"boottime_ns": 300 * S_NS}, {"monotonic_ns": None}):
        steps = tuple(step._replace(**change) for step in clock.steps)
        assert unexplained_steps(clock._replace(steps=steps), 10**18) == []


@pytest.mark.parametrize(
    ("name", "by_person", "unread", "is_raised"),
    [
        (None, False, None, True),
        ("a command", True, None, True),
        ("chronyd", False, None, False),
        (None, False, "no journal", False),
    ],
)
def test_a_cause_decides(
    stepped: AgentState, name: str | None, by_person: bool, unread: str | None, is_raised: bool
) -> None:
    """The finding is in the record of the audit that found the cause, and in later ones; an event reports it once."""
    (step,) = stepped.clock.steps
    state, record = audited(stepped, 4, StepCause(step.boottime_ns, name, by_person, unread))
    assert ("unattributed-change" in {finding.id for finding in record.findings}) == is_raised
    _, after = audited(state, 5)
    assert ("unattributed-change" in {finding.id for finding in after.findings}) == is_raised


def test_a_cause_of_another_step(stepped: AgentState) -> None:
    """It changes nothing."""
    (step,) = stepped.clock.steps
    state, _ = audited(stepped, 4, StepCause(step.boottime_ns + 1, None))
    assert state.clock.steps == (step,)

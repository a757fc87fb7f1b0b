"""The agent as a pure function: the same events give the same states and actions, also after a restart."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core import actions
from ntpaudit.core.agent import handle
from ntpaudit.core.agent_events import (
    AgentEvent,
    AuditRequested,
    ClockSet,
    Observed,
    Reconfigured,
    Recovered,
    ShellReport,
    Started,
    TimePassed,
)
from ntpaudit.core.agent_state import AgentSettings, AgentState, first_state
from ntpaudit.core.clock_state import ClockState, restored
from ntpaudit.core.evaluation import AuditSettings
from ntpaudit.core.observation import SourceFailure, SourceObservation
from ntpaudit.core.policy import PROFILES
from ntpaudit.core.schedule import FIRST_WITHIN_S, Intervals
from ntpaudit.store.serialization import plain, revive, to_json
from tests.core.hosts import LivingHost
from tests.core.random_agents import LABELS
from tests.core.worlds import MS, S, failed

SETTINGS = AgentSettings(AuditSettings(PROFILES["log-integrity"], LABELS, 300.0), Intervals(300.0, 3600.0, 60.0))
RANDOM = st.floats(0, 1, exclude_max=True)
DEEDS = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 4000), st.integers(-100, 100), RANDOM),
    st.tuples(st.just("step"), st.sampled_from([-3600 * S, -30 * MS, 20_000, S, 86_400 * S])),
    st.tuples(st.just("suspend"), st.integers(1, 40_000)),
    st.tuples(st.just("ask"), st.lists(st.integers(-20 * S, 20 * S) | st.just(0), max_size=4)),
    st.tuples(st.just("observe"), st.integers(0, 3)),
    st.just(("request",)),
    st.tuples(st.just("reconfigure"), st.sampled_from([60.0, 300.0, 3600.0]), RANDOM),
    st.tuples(st.just("recover"), st.just(0)),
)
LIVES = st.lists(DEEDS, min_size=3, max_size=25)


def begin(host: LivingHost) -> AgentState:
    """Return the state of a new agent on a host."""
    seen = host.observe()
    return first_state(SETTINGS, seen.context, seen.taken, None)


def live(life: list[Any], host: LivingHost) -> list[AgentEvent]:
    """Do what is said to a host, and return the events of its agent."""
    events: list[AgentEvent] = [Started(host.read(), host.read_kernel(), 0.5)]
    for deed in life:
        match deed:
            case "run", seconds, slew_ppm, rand:
                host.run(seconds, slew_ppm=slew_ppm)
                events.append(TimePassed(host.boottime_ns, rand))
            case "step", size_ns:
                host.set_clock(size_ns)
                events.append(ClockSet(host.read(), host.read_kernel()))
            case "suspend", seconds:
                host.suspend(seconds)
                events.append(ClockSet(host.read(), host.read_kernel()))
            case "ask", errors_ns:
                replies = host.sources(error_ns=errors_ns) if errors_ns else tuple(map(failed, (1, 2, 3, 4)))
                events.append(Observed(host.observe(*replies), "network"))
            case "observe", dropped:
                events.append(Observed(host.observe(), "local", ShellReport(dropped=dropped)))
            case ("request",):
                events.append(AuditRequested(host.boottime_ns))
            case "reconfigure", interval_s, rand:
                audit = SETTINGS.judging._replace(interval_s=interval_s)
                events.append(Reconfigured(SETTINGS._replace(judging=audit), host.boottime_ns, rand))
            case "recover", _:
                events.append(Recovered(host.observe(*host.sources()), "network"))
    return events


def replay(state: AgentState, events: list[AgentEvent]) -> list[tuple[AgentState, tuple[actions.Action, ...]]]:
    """Return the state and the actions after each event."""
    decided = []
    for event in events:
        state, done = handle(state, event)
        decided.append((state, done))
    return decided


@given(LIVES)
@settings(max_examples=60, deadline=None)
def test_the_same_events_give_the_same_states_and_actions(life: list[Any]) -> None:
    """Nothing but the state and the event decides."""
    host = LivingHost()
    first, events = begin(host), live(life, host)
    assert replay(first, events) == replay(first, events)


@given(LIVES, st.integers(0, 30))
@settings(max_examples=120, deadline=None)
def test_a_stored_state_goes_on_as_if_it_never_was_stored(life: list[Any], place: int) -> None:
    """In the same boot, at whatever moment: written as JSON and read back, it is the same value."""
    host = LivingHost()
    first, events = begin(host), live(life, host)
    decided = replay(first, events)
    state, _ = decided[place % len(decided)]
    text = to_json(plain(state.clock))
    clock = restored(revive(ClockState, json.loads(text)), state.clock.boot_id, host.read())
    assert clock == state.clock
    rest = events[place % len(decided) + 1 :]
    assert replay(state._replace(clock=clock), rest) == decided[place % len(decided) + 1 :]


@given(LIVES)
@settings(max_examples=60, deadline=None)
def test_actions_keep_their_order(life: list[Any]) -> None:
    """What is measured is stored before it is sent, and only one poll runs at a time."""
    host = LivingHost()
    is_polling = False
    events = live(life, host)
    for event, (state, done) in zip(events, replay(begin(host), events), strict=True):
        kinds = [type(action) for action in done]
        if actions.Emit in kinds:
            before = kinds[: kinds.index(actions.Emit)]
            assert actions.StoreAudit in before or actions.StoreEvents in before
        assert kinds.count(actions.StoreAudit) == isinstance(event, Observed | Recovered)
        assert actions.ObserveHost not in kinds[:-1]  # its observation is handled before anything else happens
        assert not (is_polling and actions.StartPoll in kinds)
        is_polling = (is_polling or actions.StartPoll in kinds) and not (
            isinstance(event, Observed) and event.kind == "network"
        )
        assert state.polls.is_running == is_polling
        assert state.due_ns >= 0


def test_an_agent_starts_by_polling_and_polls_on() -> None:
    """From one event of time to the next that is due: the first poll within 10 s, then local audits and polls."""
    host = LivingHost()
    state, done = handle(begin(host), Started(host.read(), host.read_kernel(), 0.5))
    assert done == (actions.SaveStatus(state.schedule.network_ns),)
    assert state.due_ns - host.boottime_ns == FIRST_WITHIN_S / 2 * S
    kinds = []
    for _ in range(20):
        host.run(max(0, state.due_ns - host.boottime_ns) / S)
        state, done = handle(state, TimePassed(host.boottime_ns, 0.5))
        for action in done:
            match action:
                case actions.StartPoll():
                    kinds.append("network")
                    state, _ = handle(state, Observed(host.observe(*host.sources()), "network"))
                case actions.ObserveHost():
                    kinds.append("local")
                    state, _ = handle(state, Observed(host.observe(), "local"))
    assert kinds[:8] == ["network", *["local"] * 5, "network", "local"]


def test_hours_are_closed_by_the_first_audit_after_them() -> None:
    """Only with a true time, and not while the last hour that ended is closed already."""
    host = LivingHost()
    state = begin(host)
    for closed_h, sources, expected in (
        (None, (), 0),
        (None, host.sources(), 1),
        (0, host.sources(), 0),
        (-1, host.sources(), 1),
        (-1, tuple(map(failed, (1, 2, 3, 4))), 1),  # carried forward
    ):
        seen = host.observe(*sources)
        utc_s = host.utc_ns // S
        closed_s = None if closed_h is None else utc_s // 3600 * 3600 + 3600 * closed_h
        event = Observed(seen, "network" if sources else "local", ShellReport(closed_s=closed_s))
        state, done = handle(state, event)
        closes = [action for action in done if isinstance(action, actions.CloseAccounts)]
        assert len(closes) == expected, (closed_h, sources)
        assert all(abs(action.utc_ns // S - utc_s) <= 1 and action.host.name == seen.host.name for action in closes)
        kinds = [type(action) for action in done]
        if closes:
            assert kinds.index(actions.StampHistory) < kinds.index(actions.CloseAccounts)


def test_a_requested_audit_says_when_it_polls() -> None:
    """A rate limit holds for a request too: the log says until when, and so does the stored status, after each poll."""
    host = LivingHost()
    state, _ = handle(begin(host), Started(host.read(), host.read_kernel(), 0.0))
    texts = []
    for wait_s in (0, 0, 5, 60):
        host.run(wait_s)
        state, (said, saved) = handle(state, AuditRequested(host.boottime_ns))
        assert isinstance(said, actions.Log)
        assert saved == actions.SaveStatus(state.schedule.next_poll_ns)
        texts.append(said.message.removeprefix("audit requested: the host is read now"))
        if wait_s == 0 and not state.polls.is_running:
            state, _ = handle(state, TimePassed(host.boottime_ns, 0.5))
        elif wait_s == 0:
            state, done = handle(state, Observed(host.observe(*host.sources()), "network"))
            assert actions.SaveStatus(state.schedule.next_poll_ns) in done
    polled = [f", and servers are polled {when}; one that gave no usable reply waits" for when in
              ("now", "in 10.2 s (rate limit)", "now")]  # fmt: skip
    assert texts == [polled[0], "; a poll is under way", *polled[1:]]


def test_the_sources_of_a_late_time_daemon_are_polled() -> None:
    """The agent starts before its time daemon: the pool is polled at once when the daemon names it, then hourly (P2).

    Servers that the daemon names later still are polled by their own interval, and the pool still hourly.
    """
    host = LivingHost()
    state, _ = handle(begin(host), Started(host.read(), host.read_kernel(), 0.5))
    started_ns, polls = host.boottime_ns, list[tuple[int, bool]]()
    while (elapsed_s := (host.boottime_ns - started_ns) / S) < 12 * 3600:
        host.run(max(1.0, (state.due_ns - host.boottime_ns) / S))
        state, done = handle(state, TimePassed(host.boottime_ns, 0.0))
        for action in done:
            match action:
                case actions.StartPoll(with_pools):
                    polls.append((round(elapsed_s), with_pools))
                    pool = [source._replace(name=f"2.debian.pool.ntp.org/{source.name}") for source in host.sources()]
                    if not with_pools:
                        not_due = SourceFailure("skipped", "interval", "")
                        pool = [SourceObservation("2.debian.pool.ntp.org", None, 123, not_due)]
                    sources = (*(pool if elapsed_s > 1000 else ()), *(host.sources() if elapsed_s > 8 * 3600 else ()))
                    state, _ = handle(state, Observed(host.observe(*sources), "network"))
                case actions.ObserveHost():
                    state, _ = handle(state, Observed(host.observe(), "local"))
    of_pool = [elapsed_s for elapsed_s, with_pools in polls if with_pools and elapsed_s > 1000]
    assert of_pool[0] < 1000 + 300 * 1.1
    apart_s = [later - earlier for earlier, later in pairwise(of_pool)]
    assert len(of_pool) >= 11
    assert all(3600 * 0.94 < one < 3600 * 1.1 for one in apart_s)
    assert all(with_pools for elapsed_s, with_pools in polls if 1000 < elapsed_s < 8 * 3600)
    assert len([elapsed_s for elapsed_s, _ in polls if elapsed_s > 9 * 3600 + 600]) > 20
    assert state.settings.judging.interval_s == state.settings.intervals.network_s

"""The agent: `handle` decides what follows from an event. It is pure; `ntpaudit/agent.py` performs the actions."""

from ntpaudit.core import actions, agent_events
from ntpaudit.core.actions import Action
from ntpaudit.core.agent_state import AgentState
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.clock_state import ClockState, detect_clock_change
from ntpaudit.core.evaluation import AuditSettings, evaluate, step_event
from ntpaudit.core.events import Event
from ntpaudit.core.ntp.sources import is_loopback
from ntpaudit.core.observation import KernelState, Observation, SourceFailure, Unavailable
from ntpaudit.core.record import Health, Record
from ntpaudit.core.schedule import CONFIRM_S, POOL_RETRY_S, PUT_OFF_S, earliest_allowed
from ntpaudit.core.units import HOUR_S, NS_PER_S, format_duration

HOST_CONTEXT_EVERY_NS = 300 * NS_PER_S  # local audits search for time daemons this often, and if one has ended
PRUNE_EVERY_NS = 3600 * NS_PER_S

TRUSTED_DIFFERENCE_NS = 86_400 * NS_PER_S
"""Age-based pruning stops while host and servers differ by more: one of them may be wrong by years."""

Decided = tuple[AgentState, tuple[Action, ...]]


def handle(state: AgentState, event: agent_events.AgentEvent) -> Decided:
    """Return the state after an event, and what the shell has to do."""
    match event:
        case agent_events.Started(reading, kernel, rand):
            return _start(state, reading, kernel, rand)
        case agent_events.Recovered():
            return _recover(state, event)
        case agent_events.ClockSet(reading, kernel):
            return _on_clock_set(state, reading, kernel)
        case agent_events.Observed():
            return _audit(state, event)
        case agent_events.TimePassed(now_ns, rand):
            state, polling = _poll_if_due(state, now_ns, rand)
            state, observing = _observe_if_due(state, now_ns, rand)
            return state, polling + observing
        case agent_events.AuditRequested(now_ns):
            state = state.polling_sooner(now_ns)
            state = state._replace(schedule=state.schedule._replace(local_ns=now_ns))
            state, saved = _save_status(state)
            return state, (actions.Log(_answer_to_request(state, now_ns)), *saved)
        case agent_events.Reconfigured(settings, now_ns, rand):
            state = state.with_settings(settings, now_ns).scheduled(now_ns, rand)
            return _save_status(state.polling_sooner(now_ns))


def _answer_to_request(state: AgentState, now_ns: int) -> str:
    """Say when the servers are polled after a request (SIGUSR1): rate limits hold for it too (P2, P9)."""
    poll_ns = state.schedule.next_poll_ns
    if state.polls.is_running or poll_ns is None:
        return "audit requested: the host is read now" + ("; a poll is under way" if state.polls.is_running else "")
    when = "now" if poll_ns <= now_ns else f"in {format_duration((poll_ns - now_ns) / NS_PER_S)} (rate limit)"
    return f"audit requested: the host is read now, and servers are polled {when}; one that gave no usable reply waits"


def _start(state: AgentState, now: ClockReading, kernel: KernelState | Unavailable, rand: float) -> Decided:
    """Detect a step since the last run (J3). If an offset is known, a local audit is due at once."""
    state = state.with_settings(state.settings, now.boottime_ns)
    state, stored = _on_clock_set(state, now, kernel, is_gap=True)
    state, saved = _save_status(state.scheduled(now.boottime_ns, rand))
    return state, stored + saved


def _recover(state: AgentState, event: agent_events.Recovered) -> Decided:
    """Judge an observation of this boot in sequence, another by itself. Both use the poll interval of that time."""
    observation, kind, _ = event
    settings, polls = state.settings.judging, state.clock.poll_interval
    if polls is not None:
        settings = settings._replace(interval_s=polls.interval_s)
    boot_id = observation.host.boot_id
    if boot_id is not None and boot_id == state.clock.boot_id:
        return _judge(state, agent_events.Observed(*event), settings)
    other_boot = ClockState(boot_id, observation.taken, observation.taken.boottime_ns)
    record = evaluate(other_boot, observation, kind, settings, Health()).record
    return state, (actions.StoreAudit(observation, record, (), state.clock),)


def _audit(state: AgentState, event: agent_events.Observed) -> Decided:
    """Judge an observation, and schedule what it shows to be due."""
    observation, now_ns = event.observation, event.observation.taken.boottime_ns
    saved: tuple[Action, ...] = ()
    if event.kind == "network":  # first: the interval by which `_judge` judges follows from the sources found
        state = _schedule_sources(state, observation)
    state, to_do = _judge(state, event, state.settings.judging)
    state = state._replace(context=observation.context)
    if event.kind == "network":
        state = state._replace(context_ns=now_ns, polls=state.polls._replace(is_running=False, has_polled=True))
        state, saved = _save_status(state)
    state, pruned = _prune_if_due(state, observation.taken)
    return state, (*to_do, *_close_if_due(state, event.report), actions.WakeDelivery(), *saved, *pruned)


def _judge(state: AgentState, event: agent_events.Observed, settings: AuditSettings) -> Decided:
    """Judge an observation, store and send the result; poll again soon if that would decide about a finding."""
    observation, kind, report = event
    now = observation.taken
    state, steps, noticed = _apply_clock_change(state, now, observation.kernel)
    dropped = state.clock.dropped.counted(report.dropped, now.boottime_ns)
    result = evaluate(
        state.clock._replace(dropped=dropped),
        observation,
        kind,
        settings,
        _health(state, report, now),
        database=report.database,
        can_confirm=report.is_stored or not state.settings.is_single,
    )
    record = result.record
    steps = tuple(step if step.utc_ns is not None else step._replace(utc_ns=record.utc_ns) for step in steps)
    state = state._replace(clock=result.state, record=record)
    state, stamped = _stamp(state, record, now)
    state, emitted = _emit(state, steps + result.events)
    stored = actions.StoreAudit(observation, record, steps + result.events, result.state)
    if result.wants_poll:
        state = state.polling_sooner(now.boottime_ns, CONFIRM_S)
    return state, (*noticed, stored, *stamped, *emitted)


def _health(state: AgentState, report: agent_events.ShellReport, now: ClockReading) -> Health:
    """Return the agent's health; ages by the true time, as far as it is known."""
    true_ns, oldest_s = state.utc_ns(now), None
    if report.oldest_ns is not None:
        oldest_s = max(0.0, ((now.realtime_ns if true_ns is None else true_ns) - report.oldest_ns) / NS_PER_S)
    local_s = state.settings.intervals.local_s
    return report.health._replace(missed=state.polls.missed, oldest_s=oldest_s, local_s=local_s)


def _stamp(state: AgentState, record: Record, now: ClockReading) -> Decided:
    true_ns, has_unstamped = state.utc_ns(now), state.has_unstamped or record.utc_ns is None
    boot_ns = true_ns - now.boottime_ns if has_unstamped and true_ns is not None else None
    stamp = actions.StampHistory(
        state.clock.boot_id, now.boottime_ns, true_ns, state.past_ns, state.earlier_ns, boot_ns
    )
    return state._replace(has_unstamped=has_unstamped and true_ns is None), (stamp,)


def _apply_clock_change(
    state: AgentState, now: ClockReading, kernel: KernelState | Unavailable, *, is_gap: bool = False
) -> tuple[AgentState, tuple[Event, ...], tuple[Action, ...]]:
    """Detect a step or a suspend; after either, poll as soon as the rate limits allow. Return the event of a step."""
    if now.boottime_ns < state.clock.reading.boottime_ns:
        return state, (), ()  # an observation from before the reading that steps are measured against
    clock, step, slept_ns = detect_clock_change(state.clock, now, is_gap=is_gap, kernel=kernel)
    to_do: list[Action] = []
    if clock.leapt != state.clock.leapt:
        message = "the host's clock applied the leap second at the end of this month; this is not a step"
        to_do.append(actions.Log(message))
    state = state._replace(clock=clock)
    if slept_ns is not None:
        slept = format_duration(slept_ns / NS_PER_S)
        to_do.append(actions.Log(f"the host was suspended for {slept}; measuring again"))
        schedule = state.schedule.after_suspend(now.boottime_ns)
        state = state._replace(schedule=schedule, polls=state.polls._replace(has_polled=False))
    if step is not None or slept_ns is not None:
        to_do.append(actions.WakeDelivery())
        state = state.polling_sooner(now.boottime_ns)
    accepted = state.settings.judging.site_policy.accepted
    return state, () if step is None else (step_event(clock, step, now, accepted),), tuple(to_do)


def _on_clock_set(
    state: AgentState, now: ClockReading, kernel: KernelState | Unavailable, *, is_gap: bool = False
) -> Decided:
    """Detect a step or a suspend between two audits; store and send the event of a step."""
    state, events, to_do = _apply_clock_change(state, now, kernel, is_gap=is_gap)
    if not events:
        return state, to_do
    stored = actions.StoreEvents(state.identity, events, state.record, state.clock)
    has_unstamped = state.has_unstamped or any(event.utc_ns is None for event in events)
    state, emitted = _emit(state._replace(has_unstamped=has_unstamped), events)
    return state, (stored, *emitted, *to_do)


def _emit(state: AgentState, events: tuple[Event, ...]) -> Decided:
    """Send the last record and events; events before the first record are sent with it."""
    events = state.unsent + events
    if state.record is None:
        return state._replace(unsent=events), ()
    return state._replace(unsent=()), (actions.Emit(state.record, events),)


def _poll_if_due(state: AgentState, now_ns: int, rand: float) -> Decided:
    schedule, polls, intervals = state.schedule, state.polls, state.settings.intervals
    due_ns = schedule.next_poll_ns
    if polls.is_running or due_ns is None or due_ns > now_ns:
        return state, ()
    with_pools = schedule.pool_ns is None or schedule.pool_ns <= now_ns  # None: the time daemon may name one now
    polls = polls._replace(
        servers_ns=now_ns,
        pools_ns=now_ns if with_pools else polls.pools_ns,
        is_running=True,
        missed=polls.missed + schedule.missed(now_ns, intervals),
    )
    schedule = schedule.after_network(now_ns, intervals, rand)
    return state._replace(schedule=schedule, polls=polls), (actions.StartPoll(with_pools),)


def _observe_if_due(state: AgentState, now_ns: int, rand: float) -> Decided:
    """Observe the host if a local audit is due, unless it could only report `unmeasured` before the first poll."""
    schedule = state.schedule
    if schedule.local_ns > now_ns:
        return state, ()
    if state.clock.agreement is None and schedule.awaits_first_poll(state.polls, now_ns):
        return state._replace(schedule=schedule._replace(local_ns=now_ns + round(PUT_OFF_S * NS_PER_S))), ()
    state = state._replace(schedule=schedule.after_local(now_ns, state.settings.intervals, rand))
    # after the time daemon has ended, each audit checks whether one runs again (R12)
    has_daemon_ended = state.clock.daemon is not None and not state.context.is_disciplined
    if has_daemon_ended or now_ns - state.context_ns >= HOST_CONTEXT_EVERY_NS:
        return state._replace(context_ns=now_ns), (actions.ObserveHost(None),)
    return state, (actions.ObserveHost(state.context),)


def _schedule_sources(state: AgentState, observation: Observation) -> AgentState:
    """Schedule the kinds of sources that a poll found; those of a time daemon are unknown until it runs.

    Poll the pools again soon if there are no servers and all pools are still inside their minimum interval.
    """
    schedule, polls, intervals = state.schedule, state.polls, state.settings.intervals
    now_ns = observation.taken.boottime_ns
    found = [source for source in observation.sources if not source.needs_nts]
    servers = [source for source in found if not source.is_public_pool]
    pools = [source.outcome for source in found if source.is_public_pool]
    network_ns = pool_ns = None
    if servers or not pools:
        network_ns = schedule.network_ns or earliest_allowed(polls.servers_ns, intervals.network_s, now_ns)
    if pools:
        pool_ns = schedule.pool_ns or earliest_allowed(polls.pools_ns, intervals.pool_s, now_ns)
    are_skipped = all(isinstance(outcome, SourceFailure) and outcome.status == "skipped" for outcome in pools)
    if network_ns is None and are_skipped:
        pool_ns = now_ns + round(POOL_RETRY_S * NS_PER_S)
    state = state._replace(schedule=schedule._replace(network_ns=network_ns, pool_ns=pool_ns))
    are_local = bool(servers) and all(is_loopback(source.address or source.name) for source in servers)
    settings = state.settings.polling(
        has_servers=network_ns is not None, has_pools=pool_ns is not None, is_loopback=are_local
    )
    return state.with_settings(settings, now_ns)


def _close_if_due(state: AgentState, report: agent_events.ShellReport) -> tuple[Action, ...]:
    """Close the hours that ended before this audit, if its true time is known: no record of them follows (AC4, AC5).

    While nothing is measured, the uptime since the last measurement shows it well enough; late stamps correct it.
    """
    clock, utc_ns = state.clock, None if state.record is None else state.record.utc_ns
    if utc_ns is None and clock.measured_utc_ns is not None and clock.measured_ns is not None:
        utc_ns = clock.measured_utc_ns + state.record.boottime_ns - clock.measured_ns if state.record else None
    if utc_ns is None or (report.closed_s is not None and utc_ns < (report.closed_s + HOUR_S) * NS_PER_S):
        return ()
    return (actions.CloseAccounts(state.identity, utc_ns),)


def _prune_if_due(state: AgentState, now: ClockReading) -> Decided:
    if state.pruned_ns is not None and now.boottime_ns - state.pruned_ns < PRUNE_EVERY_NS:
        return state, ()
    true_ns = state.utc_ns(now)
    is_trusted = true_ns is not None and abs(true_ns - now.realtime_ns) <= TRUSTED_DIFFERENCE_NS
    return state._replace(pruned_ns=now.boottime_ns), (actions.Prune(true_ns if is_trusted else None),)


def _save_status(state: AgentState) -> Decided:
    return state, (actions.SaveStatus(state.schedule.next_poll_ns),)

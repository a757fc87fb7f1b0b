"""The agent: `handle` decides what follows from an event. It is pure; `ntpaudit/agent.py` performs the actions."""

from typing import NamedTuple

from ntpaudit.core.actions import (
    Action,
    Emit,
    Log,
    ObserveHost,
    Prune,
    SaveStatus,
    StampHistory,
    StartPoll,
    StoreAudit,
    StoreEvents,
    WakeDelivery,
)
from ntpaudit.core.clock.database_clock import DatabaseClock
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.clock_state import ClockState, detect_clock_change, restored, with_poll_interval
from ntpaudit.core.evaluation import AuditSettings, evaluate, step_event
from ntpaudit.core.events import Event
from ntpaudit.core.holdover import utc_ns
from ntpaudit.core.ntp.sources import is_pool_name
from ntpaudit.core.ntp.time import PIVOT_UNIX_S
from ntpaudit.core.observation import Failure, HostContext, KernelState, Observation, Unavailable
from ntpaudit.core.record import Health, HostIdentity, Kind, Record
from ntpaudit.core.schedule import (
    CONFIRM_S,
    POOL_RETRY_S,
    PUT_OFF_S,
    Intervals,
    Polls,
    Schedule,
    after_local,
    after_network,
    after_suspend,
    awaits_first_poll,
    first_schedule,
    missed,
    next_poll_ns,
    poll_sooner,
)
from ntpaudit.core.units import NS_PER_S, format_duration

HOST_CONTEXT_EVERY_NS = 300 * NS_PER_S
"""How often local audits look for time daemons; at once if a known one has ended."""

PRUNE_EVERY_NS = 3600 * NS_PER_S

TRUSTED_DIFFERENCE_NS = 86_400 * NS_PER_S
"""Age-based pruning stops while host and servers differ by more: one of them may be wrong by years."""


class AgentSettings(NamedTuple):
    """The settings of an agent.

    - `local_s`: how often it makes a record.
    - `has_servers`, `has_pools`: what it polls. `is_loopback`: all servers are on this host.
    - `is_single`: the process ends after one audit, so only a stored state reaches the next one.
    """

    audit: AuditSettings
    intervals: Intervals
    local_s: float | None = None
    has_servers: bool = True
    has_pools: bool = False
    is_loopback: bool = False
    is_single: bool = False


class AgentState(NamedTuple):
    """The whole state of an agent. Only `clock` survives the process: it is stored with each audit.

    - `context`: the host's identity and time daemons, as read at the uptime `context_ns`.
    - `past_ns`: a time that was certainly past when this run started.
    - `record`: the last record of this run; `unsent` are events that wait for the first one.
    - `has_unstamped`: something may be stored without its true time.
    - `pruned_ns`: the uptime of the last pruning.
    """

    clock: ClockState
    settings: AgentSettings
    context: HostContext
    context_ns: int
    past_ns: int
    schedule: Schedule = Schedule(None, None, 0)
    polls: Polls = Polls()
    record: Record | None = None
    unsent: tuple[Event, ...] = ()
    has_unstamped: bool = True
    pruned_ns: int | None = None

    @property
    def due_ns(self) -> int:
        """The uptime at which something is due next. Only one poll runs at a time."""
        return self.schedule.local_ns if self.polls.is_running else self.schedule.next_ns


class ShellReport(NamedTuple):
    """What store and delivery report when an audit is judged.

    - `health`: without `missed`, `oldest_s` and `local_s`, which follow from the state.
    - `oldest_ns`: the stamp of the oldest record that waits for delivery.
    - `dropped`: how many records were ever dropped.
    - `database`: the database's clock by its last reply.
    - `is_stored`: the state is stored in a file.
    """

    health: Health = Health()
    oldest_ns: int | None = None
    dropped: int = 0
    database: DatabaseClock | None = None
    is_stored: bool = True


class Started(NamedTuple):
    """The agent starts, after `Recovered`. `rand` is here and below a random number from 0 to 1."""

    reading: ClockReading
    kernel: KernelState | Unavailable
    rand: float


class Recovered(NamedTuple):
    """The last run stored an observation and ended before it was judged."""

    observation: Observation
    kind: Kind
    report: ShellReport = ShellReport()


class ClockSet(NamedTuple):
    """The clock may have been set, or the host suspended."""

    reading: ClockReading
    kernel: KernelState | Unavailable


class Observed(NamedTuple):
    """A poll has ended, or the host was read for a local audit."""

    observation: Observation
    kind: Kind
    report: ShellReport = ShellReport()


class TimePassed(NamedTuple):
    """Something may be due at this uptime."""

    now_ns: int
    rand: float


class AuditRequested(NamedTuple):
    """The operator requests an audit now."""

    now_ns: int


class Reconfigured(NamedTuple):
    """Other settings apply from this uptime on."""

    settings: AgentSettings
    now_ns: int
    rand: float


AgentEvent = Started | Recovered | ClockSet | Observed | TimePassed | AuditRequested | Reconfigured
Decided = tuple[AgentState, tuple[Action, ...]]


def first_state(
    settings: AgentSettings, context: HostContext, now: ClockReading, stored: ClockState | None
) -> AgentState:
    """Return the state of an agent before its first event; `stored` is that of the last run."""
    clock = restored(stored, context.host.boot_id, now)
    return AgentState(clock, settings, context, now.boottime_ns, _past_ns(clock))


def handle(state: AgentState, event: AgentEvent) -> Decided:
    """Return the state after an event, and what the shell has to do."""
    match event:
        case Started():
            return _start(state, event)
        case Recovered():
            return _recover(state, event)
        case ClockSet(reading, kernel):
            return _store_step(*_detect_clock_change(state, reading, kernel))
        case Observed():
            return _audit(state, event)
        case TimePassed(now_ns, rand):
            state, started = _poll_if_due(state, now_ns, rand)
            state, observing = _observe_if_due(state, now_ns, rand)
            return state, started + observing
        case AuditRequested(now_ns):
            state = _poll_sooner(state, now_ns)
            return state._replace(schedule=state.schedule._replace(local_ns=now_ns)), ()
        case Reconfigured(settings, now_ns, rand):
            state = _scheduled(_with_settings(state, settings, now_ns), now_ns, rand)
            return _save_status(_poll_sooner(state, now_ns))


def _start(state: AgentState, event: Started) -> Decided:
    """Detect a step since the last run (J3). If an offset is known, a local audit is due at once."""
    now_ns = event.reading.boottime_ns
    state = _with_settings(state, state.settings, now_ns)
    changed = _detect_clock_change(state, event.reading, event.kernel, is_gap=True)
    state, stored = _store_step(*changed)
    state, saved = _save_status(_scheduled(state, now_ns, event.rand))
    return state, stored + saved


def _recover(state: AgentState, event: Recovered) -> Decided:
    """Judge an observation of this boot in sequence, one of another boot by itself, by the poll interval then."""
    observation, kind, report = event
    settings, polls = state.settings.audit, state.clock.poll_interval
    if polls is not None:
        settings = settings._replace(interval_s=polls.interval_s)
    boot_id = observation.host.boot_id
    if boot_id is not None and boot_id == state.clock.boot_id:
        state, actions, _ = _conclude(state, observation, kind, report, settings)
        return state, actions
    other_boot = ClockState(boot_id, observation.taken, observation.taken.boottime_ns)
    record = evaluate(other_boot, observation, kind, settings, Health()).record
    return state, (StoreAudit(observation, record),)


def _audit(state: AgentState, event: Observed) -> Decided:
    """Judge an observation; poll again soon if a finding is pending."""
    observation, kind, report = event
    now_ns = observation.taken.boottime_ns
    state, actions, is_pending = _conclude(state, observation, kind, report, state.settings.audit)
    state = state._replace(context=HostContext(observation.host, observation.daemons))
    if kind == "network":
        state = state._replace(context_ns=now_ns, polls=state.polls._replace(is_running=False, has_ended=True))
    if is_pending:
        state = _poll_sooner(state, now_ns, CONFIRM_S)
    state, retried = _retry_pools(state, observation)
    state, pruned = _prune_if_due(state, observation.taken)
    return state, (*actions, WakeDelivery(), *retried, *pruned)


def _conclude(
    state: AgentState, observation: Observation, kind: Kind, report: ShellReport, settings: AuditSettings
) -> tuple[AgentState, tuple[Action, ...], bool]:
    """Judge an observation, store and send the result; return also whether a finding is pending."""
    now = observation.taken
    state, steps, noticed = _detect_clock_change(state, now, observation.kernel)
    dropped = state.clock.dropped.counted(report.dropped, now.boottime_ns)
    result = evaluate(
        state.clock._replace(dropped=dropped),
        observation,
        kind,
        settings,
        _health(state, report, now),
        dropped=dropped.total - dropped.reported,
        database=report.database,
        can_confirm=report.is_stored or not state.settings.is_single,
    )
    record = result.record
    events = (*(_stamped(step, record) for step in steps), *result.events)
    true_ns = utc_ns(result.state, now)
    has_unstamped = state.has_unstamped or record.utc_ns is None
    stamp = StampHistory(
        result.state.boot_id,
        now.boottime_ns,
        true_ns,
        _past_ns(result.state),
        state.past_ns,
        true_ns - now.boottime_ns if has_unstamped and true_ns is not None else None,
    )
    state = state._replace(clock=result.state, record=record, has_unstamped=has_unstamped and true_ns is None)
    state, emitted = _emit(state, events)
    return state, (*noticed, StoreAudit(observation, record, events), stamp, *emitted), result.is_pending


def _stamped(event: Event, record: Record) -> Event:
    """Return an event at the moment of a record, with the record's true time if its own is unknown."""
    return event._replace(utc_ns=record.utc_ns) if event.utc_ns is None else event


def _health(state: AgentState, report: ShellReport, now: ClockReading) -> Health:
    """Return the agent's health; ages by the true time, as far as it is known."""
    true_ns, oldest_s = utc_ns(state.clock, now), None
    if report.oldest_ns is not None:
        oldest_s = max(0.0, ((now.realtime_ns if true_ns is None else true_ns) - report.oldest_ns) / NS_PER_S)
    return report.health._replace(missed=state.polls.missed, oldest_s=oldest_s, local_s=state.settings.local_s)


def _past_ns(clock: ClockState) -> int:
    """Return the later of the last measured time and this release's time: both are certainly past."""
    return max(clock.measured_utc_ns or 0, PIVOT_UNIX_S * NS_PER_S)


def _detect_clock_change(
    state: AgentState, now: ClockReading, kernel: KernelState | Unavailable, *, is_gap: bool = False
) -> tuple[AgentState, tuple[Event, ...], tuple[Action, ...]]:
    """Detect a step or a suspend; after either, poll as soon as the rate limits allow. Return the event of a step."""
    if now.boottime_ns < state.clock.reading.boottime_ns:
        return state, (), ()  # an observation older than the last reading
    clock, step, suspend = detect_clock_change(state.clock, now, is_gap=is_gap, kernel=kernel)
    actions: list[Action] = []
    if clock.leapt != state.clock.leapt:
        actions.append(Log("the host's clock applied the leap second at the end of this month; this is not a step"))
    state = state._replace(clock=clock)
    if suspend is not None:
        slept = format_duration(suspend.duration_ns / NS_PER_S)
        actions.append(Log(f"the host was suspended for {slept}; measuring again"))
        schedule = after_suspend(state.schedule, now.boottime_ns)
        state = state._replace(schedule=schedule, polls=state.polls._replace(has_ended=False))
    if step is None and suspend is None:
        return state, (), tuple(actions)
    events = () if step is None else (step_event(clock, step, now),)
    return _poll_sooner(state, now.boottime_ns), events, (*actions, WakeDelivery())


def _store_step(state: AgentState, events: tuple[Event, ...], actions: tuple[Action, ...]) -> Decided:
    """Store and send the event of a step between two audits."""
    if not events:
        return state, actions
    host, labels = state.context.host, state.settings.audit.labels
    identity = HostIdentity(host.name, labels.site, labels.env, host.machine_id, host.boot_id)
    has_unstamped = state.has_unstamped or any(event.utc_ns is None for event in events)
    state, emitted = _emit(state._replace(has_unstamped=has_unstamped), events)
    return state, (StoreEvents(identity, events, state.record), *emitted, *actions)


def _emit(state: AgentState, events: tuple[Event, ...]) -> Decided:
    """Send the last record and events; events before the first record are sent with it."""
    events = state.unsent + events
    if state.record is None:
        return state._replace(unsent=events), ()
    return state._replace(unsent=()), (Emit(state.record, events),)


def _poll_if_due(state: AgentState, now_ns: int, rand: float) -> Decided:
    """Start a poll if one is due and none is running."""
    schedule, polls, intervals = state.schedule, state.polls, state.settings.intervals
    due_ns = next_poll_ns(schedule)
    if polls.is_running or due_ns is None or due_ns > now_ns:
        return state, ()
    with_pools = schedule.pool_ns is not None and schedule.pool_ns <= now_ns
    polls = polls._replace(
        servers_ns=now_ns,
        pools_ns=now_ns if with_pools else polls.pools_ns,
        is_running=True,
        missed=polls.missed + missed(schedule, now_ns, intervals),
    )
    schedule = after_network(schedule, now_ns, intervals, rand)
    return state._replace(schedule=schedule, polls=polls), (StartPoll(with_pools),)


def _observe_if_due(state: AgentState, now_ns: int, rand: float) -> Decided:
    """Observe the host if a local audit is due, unless it could only report `unmeasured` before the first poll."""
    schedule = state.schedule
    if schedule.local_ns > now_ns:
        return state, ()
    if state.clock.agreement is None and awaits_first_poll(schedule, state.polls, now_ns):
        return state._replace(schedule=schedule._replace(local_ns=now_ns + round(PUT_OFF_S * NS_PER_S))), ()
    state = state._replace(schedule=after_local(schedule, now_ns, state.settings.intervals, rand))
    is_recent = now_ns - state.context_ns < HOST_CONTEXT_EVERY_NS
    if is_recent and not (state.clock.daemon is not None and not state.context.is_disciplined):
        return state, (ObserveHost(state.context),)
    return state._replace(context_ns=now_ns), (ObserveHost(None),)  # after a daemon has ended: whether one runs (R12)


def _retry_pools(state: AgentState, observation: Observation) -> Decided:
    """Poll the pools again soon if there are no servers and all pools are still inside their minimum interval."""
    pools = [source.outcome for source in observation.sources if is_pool_name(source.name.partition("/")[0])]
    is_held_back = all(isinstance(outcome, Failure) and outcome.status == "skipped" for outcome in pools)
    if not (pools and is_held_back and state.schedule.network_ns is None):
        return state, ()
    retry_ns = observation.taken.boottime_ns + round(POOL_RETRY_S * NS_PER_S)
    return _save_status(state._replace(schedule=state.schedule._replace(pool_ns=retry_ns)))


def _prune_if_due(state: AgentState, now: ClockReading) -> Decided:
    """Delete what retention no longer keeps, once an hour."""
    if state.pruned_ns is not None and now.boottime_ns - state.pruned_ns < PRUNE_EVERY_NS:
        return state, ()
    true_ns = utc_ns(state.clock, now)
    is_trusted = true_ns is not None and abs(true_ns - now.realtime_ns) <= TRUSTED_DIFFERENCE_NS
    return state._replace(pruned_ns=now.boottime_ns), (Prune(true_ns if is_trusted else None),)


def _poll_sooner(state: AgentState, now_ns: int, wait_s: float = 0.0) -> AgentState:
    """Poll after `wait_s`, or as soon as the rate limits allow."""
    is_loopback = state.settings.is_loopback
    return state._replace(schedule=poll_sooner(state.schedule, state.polls, now_ns, wait_s, is_loopback=is_loopback))


def _with_settings(state: AgentState, settings: AgentSettings, now_ns: int) -> AgentState:
    """Return the state with settings that apply from now on."""
    clock = with_poll_interval(state.clock, now_ns, settings.audit.interval_s)
    return state._replace(settings=settings, clock=clock)


def _scheduled(state: AgentState, now_ns: int, rand: float) -> AgentState:
    """Return the state with a first schedule for its settings."""
    settings = state.settings
    schedule = first_schedule(
        now_ns,
        settings.intervals,
        has_servers=settings.has_servers,
        has_pools=settings.has_pools,
        has_estimate=state.clock.agreement is not None,
        rand=rand,
    )
    return state._replace(schedule=schedule)


def _save_status(state: AgentState) -> Decided:
    """Save the state for `status`."""
    return state, (SaveStatus(next_poll_ns(state.schedule)),)

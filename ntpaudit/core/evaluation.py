"""Judge one observation with the state before it: measure or carry forward, detect gaps, raise and clear findings."""

from collections.abc import Iterable
from typing import NamedTuple

from ntpaudit.core.acceptance import Acceptance, accepted_at
from ntpaudit.core.agreements import compare, store_agreement
from ntpaudit.core.checks.context import (
    AuditContext,
    Contradiction,
    DatabaseDate,
    DroppedAgreement,
    EarlierState,
    Gap,
    shared_servers,
)
from ntpaudit.core.checks.daemons import STALE_POLLS
from ntpaudit.core.checks.debounce import judge
from ntpaudit.core.checks.host import BY_ID
from ntpaudit.core.checks.records import GAP_INTERVALS
from ntpaudit.core.checks.rule import LEVEL_SEVERITY, Finding
from ntpaudit.core.checks.steps import describe_step, level_of_step, rule_of
from ntpaudit.core.checks.tampering import TIME_CONFIG_CHANGED, describe_changes, fix_of_changes
from ntpaudit.core.clock.database_clock import DatabaseClock, carry_date
from ntpaudit.core.clock.drift import Drift, estimate_drift, predict_ns
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, ClockReading, correction_ns, growth_ns
from ntpaudit.core.clock.steps import Step
from ntpaudit.core.clock_state import (
    STEP_LISTED_NS,
    ClockState,
    LastAgreement,
    Poll,
    stale_s,
    watch_host,
    with_poll_interval,
)
from ntpaudit.core.events import Event
from ntpaudit.core.holdover import drift_bound_ppm, utc_ns
from ntpaudit.core.observation import Observation, Unavailable
from ntpaudit.core.policy import Profile, max_error_s
from ntpaudit.core.record import AuditKind, Health, Labels, LastPoll, Record, write_record
from ntpaudit.core.selection import Agreement, Selection, count_sources, select
from ntpaudit.core.site_policy import SitePolicy
from ntpaudit.core.time_config import ConfigChange, watch_settings
from ntpaudit.core.units import NS_PER_S, format_utc

UNSEEN_DAEMON_S = STALE_POLLS * 2048.0  # systemd-timesyncd polls most rarely (F8)
_NEARER = 0.5  # a correction must bring the clock nearer to the true time by this share of its size (I2)


class AuditSettings(NamedTuple):
    """The settings that judge an audit. `interval_s` is the polling interval.

    `max_drift_ppm` is the assumed largest drift of the oscillator, unless the host shows a larger one (R4).
    """

    profile: Profile
    labels: Labels
    interval_s: float
    max_drift_ppm: float = MAX_DRIFT_PPM
    site_policy: SitePolicy = SitePolicy()


class AuditResult(NamedTuple):
    """The result of one audit by the agent. `wants_poll`: another poll would decide about a finding."""

    record: Record
    events: tuple[Event, ...]
    state: ClockState
    wants_poll: bool


def evaluate(
    state: ClockState,
    observation: Observation,
    kind: AuditKind,
    settings: AuditSettings,
    health: Health,
    *,
    database: DatabaseClock | None = None,
    can_confirm: bool = True,
) -> AuditResult:
    """Judge one observation with the state before it.

    `database` is the database's clock by its last reply, None without one. `can_confirm` is False if no later audit
    will have the returned state.
    """
    now = observation.taken
    state = watch_host(state, observation, settings.max_drift_ppm)
    state = with_poll_interval(state, now.boottime_ns, settings.interval_s)
    measured = _measure(state, observation, kind, settings)
    state, agreement = measured.state, measured.replies.agreement or measured.before
    true_ns = now.realtime_ns + agreement.estimate_ns if agreement else None
    listed = state.time_config.changes if state.time_config else ()
    config, config_changes = watch_settings(state.time_config, observation, true_ns)
    recorded = observation.time_config if kind == "network" and config and config.is_due(now) else None
    if config is not None and recorded is not None:
        config = config._replace(recorded_ns=now.boottime_ns)
    state = state._replace(time_config=config)
    last = state.agreement
    polled_counts = last.counts if kind == "local" and last else count_sources(measured.replies)
    if any(classified.status != "skipped" for classified in measured.replies.sources):
        shared = shared_servers(observation, measured.replies)
        state = state._replace(poll=Poll(now.boottime_ns, polled_counts, settings.interval_s, shared))
    counts = polled_counts
    if agreement is not None:  # f is that of the reported interval, which may be carried forward
        counts = counts._replace(max_falsetickers=agreement.max_falsetickers, guaranteed=agreement.is_guaranteed)
    earlier = EarlierState(
        gap=measured.gap,
        steps=state.steps,
        stale_s=stale_s(state, now),
        drift=state.drift,
        dropped_records=state.dropped.total - state.dropped.reported,
        contradiction=measured.contradiction,
        dropped_agreement=_listed_contradiction(state, now),
        database=_date_of(state, database, now, measured.drift_ppm),
        refusals=health.refusals,
        failure=health.failure,
        vanished=state.daemon.name if state.daemon and state.daemon.gone_ns is not None else None,
        shared_servers=state.poll.shared if state.poll else (),
        config_changes=config.changes if config else (),
        usable_servers=state.poll.counts.usable if state.poll else 0,
    )
    selection = measured.replies._replace(agreement=agreement)
    context = AuditContext(
        observation,
        selection,
        settings.profile,
        earlier,
        counts,
        measured.drift_ppm,
        site_policy=settings.site_policy,
    )
    decision = judge(
        context,
        state.debounce,
        kind,
        is_sample=measured.replies.agreement is not None,
        is_correcting=measured.is_correcting,
        is_continued=measured.before is not None,
        can_confirm=can_confirm,
    )
    record = write_record(
        context,
        settings.labels,
        decision.findings,
        decision.severity,
        kind=kind,
        age_s=(now.raw_ns - last.reading.raw_ns) / NS_PER_S if last else None,
        drift=state.drift if agreement else None,
        health=health,
        confirmed=decision.confirmed,
        last_poll=_last_poll(state.poll, now),
        time_config=recorded,
    )
    events = tuple(_event(change, record, context) for change in decision.changes)
    accepted = context.accepted.get(TIME_CONFIG_CHANGED.id)
    if config_changes:
        changed = {one.path for one in config_changes}
        known = tuple(one for one in listed if one.path in changed)  # show what a change restores
        events += (_config_event(config_changes, record, known).accept(accepted),)
    elif listed and config is not None and not config.changes:
        events += (_config_event(listed, record, raised=False).accept(accepted),)
    state = state._replace(debounce=decision.state, dated_ns=database.reading.raw_ns if database else state.dated_ns)
    return AuditResult(record, events, state, decision.wants_poll)


class _Measured(NamedTuple):
    """The clock by one observation. `replies` has an agreement only if it counts; `before` is the earlier one, carried.

    `contradiction` is the larger earlier agreement that these replies contradict. `drift_ppm` is the largest possible
    drift (R4).
    """

    state: ClockState
    replies: Selection
    before: Agreement | None
    gap: Gap | None
    contradiction: Contradiction | None
    drift_ppm: float
    is_correcting: bool


def _measure(state: ClockState, observation: Observation, kind: AuditKind, settings: AuditSettings) -> _Measured:
    """Measure the clock by the replies, or carry the earlier agreement forward."""
    now = observation.taken
    drift_ppm = drift_bound_ppm(state.line, state.drift_ppm or settings.max_drift_ppm)
    replies = select(observation.sources, now, drift_ppm) if kind == "network" else Selection((), None)
    gap = _gap(state, now, replies.agreement)  # before `compare`, which stores this measurement's time
    state, replies, before, contradiction = compare(state, now, replies)
    is_correcting = _is_correcting(state.agreement, now, replies.agreement)  # by the last agreement, not yet replaced
    if replies.agreement is not None:
        state = store_agreement(state, now, replies, replies.agreement, drift_ppm)
    elif state.agreement is not None:
        drift_ppm = drift_bound_ppm(state.line, state.agreement.drift_ppm)
    agreement = replies.agreement or before
    if agreement is not None:  # R3: each record has a new forecast, whether or not servers replied
        state = state._replace(drift=_drift(state, observation, agreement, settings.profile, drift_ppm))
    return _Measured(state, replies, before, gap, contradiction, drift_ppm, is_correcting)


def _gap(state: ClockState, now: ClockReading, measured: Agreement | None) -> Gap | None:
    """Return the gap that lasts until now, or that this measurement ends; None if nothing was measured before it.

    It begins with the last measurement, else with this agent's start. After a measurement in an earlier boot its length
    follows from the true time; while that is unknown it is at least this boot's uptime.
    """
    polls, watched_s = state.poll_interval, (now.boottime_ns - state.started_ns) / NS_PER_S
    assert polls is not None, "see with_poll_interval"
    intervals = polls.passed_at(now.boottime_ns)
    if state.measured_ns is not None:
        span_s = (now.boottime_ns - state.measured_ns) / NS_PER_S
    elif state.measured_utc_ns is not None:
        span_s = now.boottime_ns / NS_PER_S
        if measured is not None:
            span_s = max(0.0, (now.realtime_ns + measured.estimate_ns - state.measured_utc_ns) / NS_PER_S)
        intervals += polls.before_boot(max(0.0, span_s - watched_s))
    elif measured is None:
        span_s = watched_s
    else:
        return None
    return Gap(span_s, intervals, measured is not None)


def _is_correcting(last: LastAgreement | None, now: ClockReading, agreement: Agreement | None) -> bool:
    """Whether the clock was moved towards the true time, and came nearer to it, since the last measurement (I2)."""
    if last is None or agreement is None:
        return False
    wrong_ns, moved_ns = last.agreement.estimate_ns, correction_ns(last.reading, now)
    is_right_way = moved_ns * wrong_ns > 0 and abs(moved_ns) > growth_ns(now.raw_ns - last.reading.raw_ns)
    return is_right_way and abs(wrong_ns) - abs(agreement.estimate_ns) >= _NEARER * abs(moved_ns)


def _drift(
    state: ClockState, observation: Observation, agreement: Agreement, profile: Profile, drift_ppm: float
) -> Drift:
    now, kernel, estimate_ns = observation.taken, observation.kernel, agreement.estimate_ns
    if state.line is not None:  # F6: the line is less noisy than the last replies
        estimate_ns = agreement.interval.clamp(predict_ns(state.line, now.raw_ns) - (now.realtime_ns - now.raw_ns))
    return estimate_drift(
        state.samples,
        now_raw_ns=now.raw_ns,
        estimate_ns=estimate_ns,
        bound_s=max_error_s(agreement.interval),
        kernel_ppm=observation.kernel_ppm,
        tolerance_s=profile.critical_s,
        is_disciplined=_is_disciplined(state, observation),
        back_test=state.back_test,
        line=state.line,
        drift_ppm=drift_ppm,
        pending_s=0.0 if isinstance(kernel, Unavailable) else kernel.offset_s,
    )


def _is_disciplined(state: ClockState, observation: Observation) -> bool:
    """Whether a time daemon disciplines the clock: one is visible, or the kernel was updated recently (F8)."""
    if observation.context.is_disciplined:
        return True
    if state.daemon is not None:  # it has stopped, whatever the kernel still reports (R12)
        return False
    kernel, idle_s = observation.kernel, stale_s(state, observation.taken)
    # the kernel reports a synchronised clock for hours after the daemon died (A4)
    is_fresh = idle_s is None or idle_s <= UNSEEN_DAEMON_S
    return not isinstance(kernel, Unavailable) and kernel.is_synchronised and is_fresh


def _listed_contradiction(state: ClockState, now: ClockReading) -> DroppedAgreement | None:
    """Return the contradiction of the last hour; it stays listed as long as a step."""
    latest = state.dropped_agreement
    return latest if latest is not None and 0 <= now.boottime_ns - latest.boottime_ns <= STEP_LISTED_NS else None


def _last_poll(poll: Poll | None, now: ClockReading) -> LastPoll | None:
    """Return the latest poll; its replies count only until it is older than its interval and grace."""
    if poll is None:
        return None
    age_s, counts = (now.boottime_ns - poll.polled_ns) / NS_PER_S, poll.counts
    is_recent = age_s <= GAP_INTERVALS * poll.interval_s
    usable, agreeing = (counts.usable, counts.agreeing) if is_recent else (0, 0)
    return LastPoll(age_s, counts.sources, usable, agreeing)


def _date_of(
    state: ClockState, database: DatabaseClock | None, now: ClockReading, drift_ppm: float
) -> DatabaseDate | None:
    if database is None or (interval := carry_date(database, now, drift_ppm)) is None:
        return None
    raw_ns = database.reading.raw_ns
    return DatabaseDate(interval, (now.raw_ns - raw_ns) / NS_PER_S, is_new=raw_ns != state.dated_ns)


def step_event(state: ClockState, step: Step, now: ClockReading, acceptances: Iterable[Acceptance] = ()) -> Event:
    """Make the event of a step, with the true time if it is known."""
    level, rule = level_of_step(step), rule_of(step)
    true_ns = utc_ns(state, now)
    accepted = accepted_at(acceptances, now.realtime_ns if true_ns is None else true_ns)
    event = Event(
        rule.id,
        True,
        LEVEL_SEVERITY[level],
        level,
        describe_step(step),
        true_ns,
        now.realtime_ns,
        now.boottime_ns,
        step.size_ns / NS_PER_S,
        rule.remedy,
        {"before": format_utc(step.before_ns), "after": format_utc(step.after_ns), "while_down": step.is_gap},
    )
    return event.accept(accepted.get(rule.id))


def _event(change: tuple[Finding, bool], record: Record, context: AuditContext) -> Event:
    finding, raised = change
    rule = BY_ID[finding.id]
    return Event(
        finding.id,
        raised,
        finding.severity,
        finding.level,
        finding.message,
        record.utc_ns,
        record.host_ns,
        record.boottime_ns,
        rule.value_s(context),
        finding.remedy,
        rule.detail(context),
    ).accept(finding.accepted)


def _config_event(
    changes: tuple[ConfigChange, ...], record: Record, known: tuple[ConfigChange, ...] = (), *, raised: bool = True
) -> Event:
    """Make the event of the changes that one audit saw first, with every value before and after; or of the end of all.

    `known` are earlier ones of the same files and services.

    A second change while the finding is listed is an event too, unlike that of a finding which is raised already.
    """
    text = describe_changes((*known, *changes))
    return Event(
        TIME_CONFIG_CHANGED.id,
        raised,
        LEVEL_SEVERITY["medium"],
        "medium",
        text if raised else f"no longer listed: {text}",
        record.utc_ns,
        record.host_ns,
        record.boottime_ns,
        remedy=fix_of_changes((*known, *changes)) or TIME_CONFIG_CHANGED.remedy,
        detail={"changes": [dict(zip(("path", "what", "before", "after"), one, strict=False)) for one in changes]},
    )

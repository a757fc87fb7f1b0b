"""The agent's state from one audit to the next: holdover, samples of the drift, gaps, raised findings."""

from collections.abc import Sequence
from typing import NamedTuple

from ntpaudit.core.checks.context import AuditContext, Contradiction, DatabaseDate, DroppedAgreement, History
from ntpaudit.core.checks.daemons import STALE_TIMESYNCD_S
from ntpaudit.core.checks.debounce import DebounceState, judge
from ntpaudit.core.checks.finding import LEVEL_SEVERITY, Finding
from ntpaudit.core.checks.host import BY_ID
from ntpaudit.core.checks.records import GAP_INTERVALS
from ntpaudit.core.checks.steps import MIN_STEP_S, describe_step, level_of_step, rule_of, step_severity_key
from ntpaudit.core.clock.database_clock import DatabaseClock, carry_date
from ntpaudit.core.clock.drift import (
    BackTest,
    Drift,
    Fit,
    Sample,
    drop_forecasts,
    estimate_drift,
    fit,
    note_forecasts,
    settle_forecasts,
)
from ntpaudit.core.clock.interval import MAX_STEP_NS, carry
from ntpaudit.core.clock.readings import (
    MAX_DRIFT_PPM,
    MAX_KERNEL_PPM,
    ClockReading,
    correction_ns,
    growth_ns,
    max_drift_ppm,
    suspended_ns,
)
from ntpaudit.core.clock.steps import Step, Suspend, find_step, find_suspend, without_leap
from ntpaudit.core.events import Event
from ntpaudit.core.leap import across_leap, announced_leap, leap_of_step, month_end_ns
from ntpaudit.core.observation import KernelState, Observation, Unavailable
from ntpaudit.core.policy import Profile, max_error_s
from ntpaudit.core.poll_interval import PollInterval
from ntpaudit.core.record import Health, Kind, Labels, LastPoll, Record, write_record
from ntpaudit.core.selection import (
    NO_SOURCES,
    Agreement,
    ClassifiedSource,
    Selection,
    SourceCounts,
    count_sources,
    median_ns,
    select,
)
from ntpaudit.core.units import NS_PER_S, format_utc

MAX_CARRY_S = 86_400.0
"""The longest holdover; after it the clock is unmeasured."""

KEPT_SAMPLES = 128
"""As many as the runs test of the drift uses (F3)."""

STEP_LISTED_NS = 3600 * NS_PER_S
"""How long a step stays listed."""

_RAW_TOLERANCE = 0.15
"""chrony slews MONOTONIC by at most a tenth against RAW; a larger difference means that RAW jumped (B6)."""

_NEARER = 0.5
"""A correction must bring the clock nearer to the true time by this share of it, else it corrects something else."""

_MAXERROR_RATE = 500e-6
"""The kernel adds this to its maximum error each second, until a time daemon updates it (A4)."""

_MAXERROR_TOLERANCE_S = 2 * _MAXERROR_RATE
"""Two readings may differ by one second more or less than the time between them; doubled as a margin."""

_MAX_STEPS = 64


class LastAgreement(NamedTuple):
    """The last agreement of servers, at the moment of `reading`, and its numbers of sources.

    `contradicted_by` names the sources whose later replies contradict it and were rejected (R5). `drift_ppm` is the
    largest possible drift of the oscillator by all kernel corrections since then (R4). `leap` is the leap second that
    the servers announced for the end of the month, 0 for none (R11).
    """

    reading: ClockReading
    agreement: Agreement
    counts: SourceCounts
    contradicted_by: tuple[str, ...] = ()
    drift_ppm: float = MAX_DRIFT_PPM
    leap: int = 0


class KernelUpdate(NamedTuple):
    """The uptime of the latest reading that may follow an update by a time daemon, and its maximum error (A4)."""

    looked_ns: int
    maxerror_s: float


class SeenDaemon(NamedTuple):
    """The last known time daemon of this boot, and the uptime since which it is gone; None while it runs."""

    name: str
    gone_ns: int | None = None


class Poll(NamedTuple):
    """The latest network audit: its uptime, its numbers of sources, and the polling interval at that time."""

    polled_ns: int
    counts: SourceCounts
    interval_s: float


class ClockState(NamedTuple):
    """The state between two audits. Uptimes belong to the boot of `reading`, with which later readings are compared.

    - `started_ns`: the uptime at which this agent started. It and `measured_ns` are moved by each later suspend, which
      does not count.
    - `measured_ns`, `measured_utc_ns`: when servers last gave a measurement, by uptime and by the true time.
    - `kernel_ppm`: the kernel's correction at the last reading.
    - `drift_ppm`: the largest possible drift by the last correction that was not a slew (R4); None before the first.
    - `dropped_agreement`: the latest contradiction that discarded an agreement.
    - `samples_since_ns`: samples from before this uptime do not belong to the present line.
    - `dated_ns`: the RAW time of the database's reply whose Date was judged last.
    - `tai_s`: the kernel's TAI - UTC at the last reading.
    - `leapt`: the leap second that the host's clock has made since the last agreement (R11).
    - `stronger_agreement`: an earlier agreement that allows for more falsetickers than the present one. It becomes the
      present one again if replies contradict it (R5).
    """

    boot_id: str | None
    reading: ClockReading
    started_ns: int
    agreement: LastAgreement | None = None
    samples: tuple[Sample, ...] = ()
    line: Fit | None = None
    drift: Drift | None = None
    back_test: BackTest = BackTest()
    steps: tuple[Step, ...] = ()
    kernel_update: KernelUpdate | None = None
    kernel_ppm: float | None = None
    drift_ppm: float | None = None
    debounce: DebounceState = DebounceState()
    measured_ns: int | None = None
    measured_utc_ns: int | None = None
    dropped_agreement: DroppedAgreement | None = None
    samples_since_ns: int = 0
    daemon: SeenDaemon | None = None
    tai_s: int | None = None
    leapt: int = 0
    dated_ns: int | None = None
    poll: Poll | None = None
    poll_interval: PollInterval | None = None
    stronger_agreement: LastAgreement | None = None


class AuditSettings(NamedTuple):
    """The settings that judge an audit. `interval_s` is the polling interval.

    `max_drift_ppm` is the assumed largest drift of the oscillator, unless the host shows a larger one (R4).
    """

    profile: Profile
    labels: Labels
    interval_s: float
    max_drift_ppm: float = MAX_DRIFT_PPM


class AuditResult(NamedTuple):
    """The result of one audit by the agent. `distance_s` is that of its sample (F2), None without one."""

    record: Record
    events: tuple[Event, ...]
    state: ClockState
    is_pending: bool
    distance_s: float | None


def detect_clock_change(
    state: ClockState, now: ClockReading, *, is_gap: bool = False, kernel: KernelState | Unavailable | None = None
) -> tuple[ClockState, Step | None, Suspend | None]:
    """Detect a step of the clock or a suspend since the last reading (J1, J3).

    Compared with the quickest reading since the last step or suspend, because a slow reading could hide a step for
    good. A leap second is not a step (R11): give the `kernel` if the step has the size of one (`is_leap_sized`).
    """
    step, suspend = find_step(state.reading, now, is_gap=is_gap), find_suspend(state.reading, now)
    leap = leap_of_step(step, state.reading, kernel, state.tai_s, state.agreement.leap if state.agreement else 0)
    if step or suspend or now.width_ns < state.reading.width_ns:
        state = state._replace(reading=now)
    if step is not None and leap:
        state = reset_samples(state, now)._replace(leapt=leap)
        step = without_leap(step, leap, now)
    state = state._replace(steps=_listed_steps(state.steps, step, now))
    return (state if suspend is None else _after_suspend(state, suspend)), step, suspend


def reset_samples(state: ClockState, now: ClockReading) -> ClockState:
    """Discard the samples of the drift: no line goes through them and later samples."""
    back_test = drop_forecasts(state.back_test)
    return state._replace(samples=(), line=None, drift=None, back_test=back_test, samples_since_ns=now.boottime_ns)


def reset_holdover(state: ClockState) -> ClockState:
    """Discard what was measured with a RAW clock that has stopped or restarted since (B6, F1)."""
    back_test = drop_forecasts(state.back_test)
    return state._replace(
        agreement=None, stronger_agreement=None, samples=(), line=None, drift=None, back_test=back_test, leapt=0
    )


def _after_suspend(state: ClockState, suspend: Suspend) -> ClockState:
    """Discard what was measured before a suspend. The suspend itself is not a gap: the host wrote no log."""
    measured_ns = None if state.measured_ns is None else state.measured_ns + suspend.duration_ns
    polls = state.poll_interval
    return reset_holdover(state)._replace(
        measured_ns=measured_ns,
        started_ns=state.started_ns + suspend.duration_ns,
        poll_interval=polls and polls._replace(since_ns=polls.since_ns + suspend.duration_ns),
    )


def with_poll_interval(state: ClockState, now_ns: int, interval_s: float) -> ClockState:
    """Store the polling interval valid from now on; earlier time stays judged by the earlier interval."""
    polls = state.poll_interval
    if polls is None:
        since_ns = state.started_ns if state.measured_ns is None else state.measured_ns
        return state._replace(poll_interval=PollInterval(interval_s, since_ns))
    return state._replace(poll_interval=polls.changed(now_ns, interval_s))


def holdover(state: ClockState, now: ClockReading) -> Agreement | None:
    """Carry the last agreement forward to `now` (B5, B6); None without one, or if RAW cannot be trusted.

    The interval grows by the largest possible drift of the oscillator (R4), or by the measured one if that is larger.
    The estimate moves with the measured frequency. Before that is known it moves with the kernel's correction, which a
    time daemon has determined.
    """
    fix = state.agreement
    if fix is None:
        return None
    elapsed_ns = now.raw_ns - fix.reading.raw_ns
    elapsed_mono_ns = now.monotonic_ns - fix.reading.monotonic_ns
    is_sound = abs(elapsed_mono_ns - elapsed_ns) <= _RAW_TOLERANCE * abs(elapsed_ns) + MAX_STEP_NS
    if not (is_sound and 0 <= elapsed_ns <= MAX_CARRY_S * NS_PER_S):
        return None
    if abs(suspended_ns(fix.reading, now)) > MAX_STEP_NS:
        return None
    interval = carry(fix.agreement.interval, fix.reading, now, _drift_bound_ppm(state.line, fix.drift_ppm))
    drifted_ns = round(_rate_ppm(state) * elapsed_ns / 1e6)
    estimate_ns = fix.agreement.estimate_ns - correction_ns(fix.reading, now) + drifted_ns
    across = across_leap(interval, _least_utc_ns(fix), now, announced=fix.leap, made=state.leapt)
    if across != interval:
        estimate_ns -= (state.leapt or fix.leap) * NS_PER_S
    return fix.agreement._replace(interval=across, estimate_ns=across.clamp(estimate_ns))


def _least_utc_ns(fix: LastAgreement) -> int:
    """Return the earliest possible true time of an agreement."""
    return fix.reading.realtime_ns + fix.agreement.interval.earliest_ns


def utc_ns(state: ClockState, now: ClockReading) -> int | None:
    """Return the true time at a moment of this boot; None if unknown."""
    agreement = holdover(state, now)
    return None if agreement is None else now.realtime_ns + agreement.estimate_ns


def step_event(state: ClockState, step: Step, now: ClockReading) -> Event:
    """Make the event of a step, with the true time if it is known."""
    level, rule = level_of_step(step), rule_of(step)
    return Event(
        rule.id,
        True,
        LEVEL_SEVERITY[level],
        level,
        describe_step(step),
        utc_ns(state, now),
        now.realtime_ns,
        now.boottime_ns,
        value_s=step.size_ns / NS_PER_S,
        remedy=rule.remedy,
        detail={
            "before": format_utc(step.before_ns),
            "after": format_utc(step.after_ns),
            "while_down": step.is_gap,
        },
    )


def evaluate(
    state: ClockState,
    observation: Observation,
    kind: Kind,
    settings: AuditSettings,
    health: Health,
    *,
    dropped: int = 0,
    database: DatabaseClock | None = None,
    can_confirm: bool = True,
) -> AuditResult:
    """Judge one observation with the state before it: measure or carry forward, detect gaps, raise and clear findings.

    `database` is the database's clock by its last reply, None without one. `can_confirm` is False if no later audit
    will have the returned state.
    """
    now = observation.taken
    state = _watch_daemon(_watch_kernel(state, observation, settings.max_drift_ppm), observation)
    state = with_poll_interval(state, now.boottime_ns, settings.interval_s)
    drift_ppm = _drift_bound_ppm(state.line, state.drift_ppm or settings.max_drift_ppm)
    selection = select(observation.sources, now, drift_ppm) if kind == "network" else Selection((), None)
    intervals = _intervals(state, now, selection.agreement)
    measured = selection.agreement
    state = _restore_stronger_agreement(state, now, selection)
    before = holdover(state, now)
    gap_s = None if measured is None else _gap_s(state, now, measured)
    contradiction = None
    if state.agreement is not None and before is not None and (contradicting := _contradicting(before, selection)):
        contradiction = _contradiction(state.agreement, now, contradicting)
        if contradiction is not None:
            selection = _reject(selection, contradicting)
            state = _note_answer(state, now, before, contradicting)
        elif measured is not None:
            state, before = (
                _drop_contradicted(state, now, before, measured, contradicting)._replace(
                    stronger_agreement=state.stronger_agreement
                ),
                None,
            )
    if (
        before is not None
        and contradiction is None
        and measured is not None
        and before.is_guaranteed > measured.is_guaranteed
    ):
        selection = selection._replace(
            agreement=None
        )  # R1: an agreement that proves nothing does not replace a proven one
        state = _note_answer(state, now, before, frozenset())
    is_sample = selection.agreement is not None
    distance_s = _distance_s(selection)
    is_correcting = _is_correcting(state.agreement, now, selection.agreement)
    if selection.agreement is not None:
        state = _store_agreement(state, now, selection, distance_s, drift_ppm)
    elif state.agreement is not None:
        drift_ppm = _drift_bound_ppm(state.line, state.agreement.drift_ppm)
    agreement = selection.agreement or before
    if agreement is not None:  # R3: each record has a new forecast, whether or not servers replied
        state = state._replace(drift=_drift(state, observation, agreement, settings.profile, drift_ppm))
    history = History(
        settings.interval_s,
        None if measured is not None else _since_s(state, now),
        gap_s,
        state.steps,
        _stale_s(state, observation),
        state.drift,
        dropped,
        contradiction,
        _listed_contradiction(state, now),
        _date_of(state, database, now, drift_ppm),
        health.refusals,
        health.failure,
        vanished=state.daemon.name if state.daemon and state.daemon.gone_ns is not None else None,
        intervals=intervals,
        raised=frozenset(name for name, entry in state.debounce.conditions.items() if entry.raised),
    )
    counts = (
        count_sources(selection) if kind == "network" else state.agreement.counts if state.agreement else NO_SOURCES
    )
    if any(classified.status != "skipped" for classified in selection.sources):
        state = state._replace(poll=Poll(now.boottime_ns, counts, settings.interval_s))
    if agreement is not None:  # the counts of the reported interval, which may be carried forward
        counts = counts._replace(max_falsetickers=agreement.max_falsetickers, guaranteed=agreement.is_guaranteed)
    context = AuditContext(
        observation, selection._replace(agreement=agreement), settings.profile, history, counts, drift_ppm
    )
    decision = judge(
        context,
        state.debounce,
        kind,
        is_sample=is_sample,
        is_correcting=is_correcting,
        is_continued=before is not None,
        can_confirm=can_confirm,
    )
    record = write_record(
        context,
        settings.labels,
        decision.findings,
        decision.severity,
        kind=kind,
        age_s=_age_s(state, now),
        drift=state.drift if agreement else None,
        health=health,
        confirmed=decision.confirmed,
        last_poll=_last_poll(state.poll, now),
    )
    events = tuple(_event(change, record, context) for change in decision.changes)
    state = state._replace(debounce=decision.state, dated_ns=database.reading.raw_ns if database else state.dated_ns)
    is_fitted = selection.agreement is not None and selection.agreement.is_guaranteed
    return AuditResult(record, events, state, decision.is_pending, distance_s if is_fitted else None)


def make_sample(reading: ClockReading, estimate_ns: int, distance_s: float) -> Sample:
    """Return an estimate as a sample of the regression: UTC - RAW at an instant of RAW (F1)."""
    return Sample(reading.raw_ns, reading.realtime_minus_raw_ns + estimate_ns, distance_s)


def _restore_stronger_agreement(state: ClockState, now: ClockReading, selection: Selection) -> ClockState:
    """Use the agreement that allows for more falsetickers again if replies contradict it (R5).

    A source that was queried alone and agreed with it has replaced it. That source must not be trusted for this reason
    when its next reply differs.
    """
    stronger = (
        None if state.stronger_agreement is None else holdover(state._replace(agreement=state.stronger_agreement), now)
    )
    if stronger is None:
        return state._replace(stronger_agreement=None)
    return (
        state._replace(agreement=state.stronger_agreement, stronger_agreement=None)
        if _contradicting(stronger, selection)
        else state
    )


def _contradicting(before: Agreement, selection: Selection) -> frozenset[str]:
    """Return the sources whose replies contradict an earlier agreement, if their own agreement contradicts it."""
    agreement = selection.agreement
    if agreement is None or agreement.interval.intersect(before.interval) is not None:
        return frozenset()
    return frozenset(
        _source_key(classified)
        for classified in selection.usable
        if classified.candidate and classified.candidate.interval.intersect(before.interval) is None
    )


def _source_key(classified: ClassifiedSource) -> str:
    """Return a key of a source by which each server, and each member of a pool, counts once."""
    return f"{classified.source.name} {classified.source.address}"


def _contradiction(fix: LastAgreement, now: ClockReading, contradicting: frozenset[str]) -> Contradiction | None:
    """Return the earlier agreement if it holds against these replies: all of them may be falsetickers (R5).

    Servers of a pool are polled rarely. Without this rule a server that they outvote would be trusted whenever it is
    queried alone. So its replies do not count while the agreement is carried forward. The agreement allows for
    `max_falsetickers` of its sources; one more disproves it, even if they reply one after the other.
    """
    if len(contradicting.union(fix.contradicted_by)) > fix.counts.max_falsetickers:
        return None
    return Contradiction(fix.counts.agreeing, (now.raw_ns - fix.reading.raw_ns) / NS_PER_S)


def _drop_contradicted(
    state: ClockState, now: ClockReading, before: Agreement, measured: Agreement, contradicting: frozenset[str]
) -> ClockState:
    """Discard an agreement that was proved wrong, and store the contradiction (R6).

    RAW was disturbed or the servers changed, so no line goes through samples from before and after. The samples are
    kept only if a bad oscillator explains the difference: without them its frequency would never become known.
    """
    fix = state.agreement
    assert fix is not None
    elapsed_ns = now.raw_ns - fix.reading.raw_ns
    contradiction = DroppedAgreement(
        before.interval, measured.interval, len(contradicting), elapsed_ns / NS_PER_S, now.boottime_ns
    )
    is_proof = before.is_guaranteed and measured.is_guaranteed
    state = state._replace(agreement=None, dropped_agreement=contradiction if is_proof else state.dropped_agreement)
    if abs(contradiction.gap_ns) <= MAX_KERNEL_PPM * 1e-6 * elapsed_ns:
        return state
    return reset_holdover(state)._replace(samples_since_ns=now.boottime_ns)


def _listed_contradiction(state: ClockState, now: ClockReading) -> DroppedAgreement | None:
    """Return the contradiction of the last hour; it stays listed as long as a step."""
    latest = state.dropped_agreement
    if latest is None or not 0 <= now.boottime_ns - latest.boottime_ns <= STEP_LISTED_NS:
        return None
    return latest


def _reject(selection: Selection, contradicting: frozenset[str]) -> Selection:
    """Mark the sources that contradict the earlier agreement as falsetickers."""
    classified = [
        one._replace(status="falseticker", reason="disagrees")
        if one.status == "agreeing" and _source_key(one) in contradicting
        else one
        for one in selection.sources
    ]
    return Selection(tuple(classified), None)


def _note_answer(state: ClockState, now: ClockReading, before: Agreement, contradicting: frozenset[str]) -> ClockState:
    """Store that servers gave a measurement, although a rejected one: that is a finding of its own, not a gap."""
    assert state.agreement is not None
    sources = tuple(sorted(contradicting.union(state.agreement.contradicted_by)))
    return state._replace(
        agreement=state.agreement._replace(contradicted_by=sources),
        measured_ns=now.boottime_ns,
        measured_utc_ns=now.realtime_ns + before.estimate_ns,
        poll_interval=state.poll_interval and state.poll_interval.measured(now.boottime_ns),
    )


def _store_agreement(
    state: ClockState, now: ClockReading, selection: Selection, distance_s: float, drift_ppm: float
) -> ClockState:
    agreement = selection.agreement
    assert agreement is not None
    stronger = state.stronger_agreement or state.agreement
    if state.agreement is not None and _has_leapt(state.agreement, now.realtime_ns + agreement.estimate_ns):
        state, stronger = reset_samples(state, now), None
    if stronger is not None and (state.leapt or stronger.counts.max_falsetickers <= agreement.max_falsetickers):
        stronger = None
    leap = announced_leap(one.best.reply.leap for one in selection.sources if one.status == "agreeing" and one.best)
    state = state._replace(
        agreement=LastAgreement(now, agreement, count_sources(selection), drift_ppm=drift_ppm, leap=leap),
        stronger_agreement=stronger,
        leapt=0,
        measured_ns=now.boottime_ns,
        measured_utc_ns=now.realtime_ns + agreement.estimate_ns,
        poll_interval=state.poll_interval and state.poll_interval.measured(now.boottime_ns),
    )
    if not agreement.is_guaranteed:
        return state  # R2: the frequency uses only estimates that no falseticker can move
    sample = make_sample(now, agreement.estimate_ns, distance_s)
    samples = (*state.samples, sample)[-KEPT_SAMPLES:]
    line = fit(samples)
    back_test = settle_forecasts(state.back_test, sample)
    return state._replace(
        samples=samples,
        line=line,
        back_test=back_test if line is None else note_forecasts(back_test, line, now.raw_ns),
    )


def _has_leapt(fix: LastAgreement, utc_ns: int) -> bool:
    """Whether an announced leap second may have happened, so that UTC - RAW has changed."""
    end_ns = month_end_ns(_least_utc_ns(fix))
    return fix.leap != 0 and end_ns is not None and utc_ns + NS_PER_S >= end_ns


def _distance_s(selection: Selection) -> float:
    """Return the median root distance of the agreeing sources (F2).

    A median, so a falseticker that claims to be very near cannot change the weight of a sample (R2).
    """
    bests = [classified.best for classified in selection.sources if classified.status == "agreeing" and classified.best]
    return median_ns([best.interval.half_width_ns for best in bests]) / NS_PER_S if bests else 0.0


def _drift(
    state: ClockState, observation: Observation, agreement: Agreement, profile: Profile, drift_ppm: float
) -> Drift:
    """Estimate the drift, and when the clock will exceed its tolerance."""
    kernel = observation.kernel
    return estimate_drift(
        state.samples,
        now_raw_ns=observation.taken.raw_ns,
        estimate_ns=agreement.estimate_ns,
        bound_s=max_error_s(agreement.interval),
        kernel_ppm=observation.kernel_ppm,
        tolerance_s=profile.critical_s,
        steered=_is_steered(state, observation),
        back_test=state.back_test,
        line=state.line,
        drift_ppm=drift_ppm,
        pending_s=0.0 if isinstance(kernel, Unavailable) else kernel.offset_s,
    )


def _is_steered(state: ClockState, observation: Observation) -> bool:
    """Whether a time daemon disciplines the clock: one is visible, or the kernel was updated recently (F8)."""
    if any(daemon.disciplines for daemon in observation.known_daemons):
        return True
    if state.daemon is not None:  # it has stopped, whatever the kernel still reports (R12)
        return False
    kernel, stale_s = observation.kernel, _stale_s(state, observation)
    is_fresh = (
        stale_s is None or stale_s <= STALE_TIMESYNCD_S
    )  # the kernel reports a synchronised clock for hours after the daemon died (A4)
    return not isinstance(kernel, Unavailable) and kernel.is_synchronised and is_fresh


def _rate_ppm(state: ClockState) -> float:
    """Return the frequency that moves the estimate in holdover: the measured one, else the kernel's correction."""
    if state.line is not None and state.line.skew_ppm <= MAX_DRIFT_PPM:
        return state.line.frequency_ppm
    is_likely = state.kernel_ppm is not None and abs(state.kernel_ppm) <= MAX_DRIFT_PPM  # else it is a slew
    return state.kernel_ppm if state.kernel_ppm is not None and is_likely else 0.0


def _drift_bound_ppm(line: Fit | None, drift_ppm: float) -> float:
    """Return the largest possible drift of the oscillator, which is larger if it is certainly measured so (B5, R4).

    A measured drift beyond what a kernel can correct is not that of an oscillator.
    """
    if line is None or not abs(line.frequency_ppm) - line.skew_ppm > drift_ppm:
        return drift_ppm
    return max(drift_ppm, min(abs(line.frequency_ppm) + line.skew_ppm, MAX_KERNEL_PPM))


def _listed_steps(steps: Sequence[Step], step: Step | None, now: ClockReading) -> tuple[Step, ...]:
    """Return the steps of the last hour that a finding may report.

    A step that is not worse than a later one in its direction is never reported. So only a few are kept.
    """
    recent = [known for known in steps if now.boottime_ns - known.boottime_ns <= STEP_LISTED_NS]
    if step is None or abs(step.size_ns) < MIN_STEP_S * NS_PER_S:
        return tuple(recent)
    worse = [one for one in recent if one.is_back != step.is_back or step_severity_key(one) > step_severity_key(step)]
    return (*worse, step)[:_MAX_STEPS]


def _watch_kernel(state: ClockState, observation: Observation, assumed_ppm: float) -> ClockState:
    """Update the largest possible drift by the kernel's correction (R4), and when that was last updated (A4)."""
    kernel_ppm = observation.kernel_ppm
    if kernel_ppm is not None and abs(kernel_ppm) <= MAX_KERNEL_PPM:  # else a slew, which does not show the drift
        drift_ppm = max_drift_ppm(kernel_ppm, assumed_ppm)
        fix, stronger = (
            one and one._replace(drift_ppm=max(one.drift_ppm, drift_ppm))
            for one in (state.agreement, state.stronger_agreement)
        )
        state = state._replace(drift_ppm=drift_ppm, agreement=fix, stronger_agreement=stronger)
    if not isinstance(observation.kernel, Unavailable):
        state = state._replace(tai_s=observation.kernel.tai_s)
    return _watch_updates(state, observation)


def _watch_daemon(state: ClockState, observation: Observation) -> ClockState:
    """Detect that the time daemon has stopped (R12). If the kernel is updated after that, another one runs."""
    if disciplining := [daemon.name for daemon in observation.known_daemons if daemon.disciplines]:
        return state._replace(daemon=SeenDaemon(disciplining[0]))
    if state.daemon is None or any(daemon.disciplines is None for daemon in observation.known_daemons):
        return state
    gone_ns = observation.taken.boottime_ns if state.daemon.gone_ns is None else state.daemon.gone_ns
    is_replaced = state.kernel_update is not None and state.kernel_update.looked_ns > gone_ns
    return state._replace(daemon=None if is_replaced else state.daemon._replace(gone_ns=gone_ns))


def _watch_updates(state: ClockState, observation: Observation) -> ClockState:
    """Detect whether a time daemon may have updated the kernel since the last reading: else its error only grew (A4).

    Compared with the reading that last showed an update, not with the previous one, so that no update is too small.
    """
    kernel, now_ns, last = observation.kernel, observation.taken.boottime_ns, state.kernel_update
    if isinstance(kernel, Unavailable):
        return state._replace(kernel_update=None, kernel_ppm=None)
    state = state._replace(kernel_ppm=kernel.frequency_ppm)
    if not kernel.is_synchronised:
        return state._replace(kernel_update=None)
    if last is not None and last.looked_ns <= now_ns:
        untouched_s = last.maxerror_s + (now_ns - last.looked_ns) / NS_PER_S * _MAXERROR_RATE
        if abs(kernel.maxerror_s - untouched_s) <= _MAXERROR_TOLERANCE_S:
            return state
    return state._replace(kernel_update=KernelUpdate(now_ns, kernel.maxerror_s))


def _stale_s(state: ClockState, observation: Observation) -> float | None:
    """Return for how long certainly no time daemon has updated the kernel."""
    return (
        None
        if state.kernel_update is None
        else (observation.taken.boottime_ns - state.kernel_update.looked_ns) / NS_PER_S
    )


def _since_s(state: ClockState, now: ClockReading) -> float:
    """Return the time since servers last gave a measurement, else since this agent's start.

    If the last one was in an earlier boot, the result is this boot's uptime, which is less than the true time.
    """
    if state.measured_ns is not None:
        return (now.boottime_ns - state.measured_ns) / NS_PER_S
    return (now.boottime_ns - (state.started_ns if state.measured_utc_ns is None else 0)) / NS_PER_S


def _gap_s(state: ClockState, now: ClockReading, agreement: Agreement | None) -> float | None:
    """Return the time without a measurement before this one: by uptime within a boot, else by the true time."""
    if state.measured_ns is not None:
        return (now.boottime_ns - state.measured_ns) / NS_PER_S
    if state.measured_utc_ns is None or agreement is None:
        return None
    return max(0.0, (now.realtime_ns + agreement.estimate_ns - state.measured_utc_ns) / NS_PER_S)


def _intervals(state: ClockState, now: ClockReading, measured: Agreement | None) -> float | None:
    """Return how many poll intervals have passed since servers last gave a measurement, else since the agent's start.

    If the last one was in an earlier boot, the time before this agent's start counts too: all of it if the true time is
    known (`measured`), else this boot's uptime.
    """
    polls = state.poll_interval
    if polls is None:
        return None
    passed = polls.passed_at(now.boottime_ns)
    if state.measured_ns is not None or state.measured_utc_ns is None:
        return passed
    watched_s, gap_s = (now.boottime_ns - state.started_ns) / NS_PER_S, _gap_s(state, now, measured)
    before_s = (state.started_ns / NS_PER_S) if gap_s is None else gap_s - watched_s
    return passed + polls.before_boot(max(0.0, before_s))


def _last_poll(poll: Poll | None, now: ClockReading) -> LastPoll | None:
    """Return the latest poll; its replies count only until it is older than its interval and grace."""
    if poll is None:
        return None
    age_s = (now.boottime_ns - poll.polled_ns) / NS_PER_S
    if not age_s <= GAP_INTERVALS * poll.interval_s:
        return LastPoll(age_s, poll.counts.sources, 0, 0)
    return LastPoll(age_s, poll.counts.sources, poll.counts.usable, poll.counts.agreeing)


def _date_of(
    state: ClockState, database: DatabaseClock | None, now: ClockReading, drift_ppm: float
) -> DatabaseDate | None:
    interval = None if database is None else carry_date(database, now, drift_ppm)
    if database is None or interval is None:
        return None
    raw_ns = database.reading.raw_ns
    return DatabaseDate(interval, (now.raw_ns - raw_ns) / NS_PER_S, is_new=raw_ns != state.dated_ns)


def _age_s(state: ClockState, now: ClockReading) -> float | None:
    """Return the age of the measurement from which the offset comes."""
    return None if state.agreement is None else (now.raw_ns - state.agreement.reading.raw_ns) / NS_PER_S


def _is_correcting(fix: LastAgreement | None, now: ClockReading, agreement: Agreement | None) -> bool:
    """Whether the clock was moved towards the true time, and came nearer to it, since the last measurement (§1.5)."""
    if fix is None or agreement is None:
        return False
    wrong_ns, moved_ns = fix.agreement.estimate_ns, correction_ns(fix.reading, now)
    is_right_way = moved_ns * wrong_ns > 0 and abs(moved_ns) > growth_ns(now.raw_ns - fix.reading.raw_ns)
    return is_right_way and abs(wrong_ns) - abs(agreement.estimate_ns) >= _NEARER * abs(moved_ns)


def _event(change: tuple[Finding, bool], record: Record, context: AuditContext) -> Event:
    finding, raised = change
    rule = BY_ID[finding.id]
    return Event(
        finding.id,
        raised,
        finding.severity,
        finding.level,
        finding.message if raised else f"no longer true: {finding.message}",
        record.utc_ns,
        record.host_ns,
        record.boottime_ns,
        value_s=rule.value_s(context),
        remedy=finding.remedy,
        detail=rule.detail(context),
    )

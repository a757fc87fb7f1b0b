"""What an agent knows of its host's clock from one audit to the next: the offset carried on, samples, gaps, alarms."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ntpaudit.core.checks.debounce import Alarms, judge
from ntpaudit.core.checks.finding import LEVEL_SEVERITY, Finding
from ntpaudit.core.checks.host import (
    GAP_INTERVALS,
    LEAST_STEP_S,
    RULES,
    STALE_TIMESYNCD_S,
    Case,
    Contradiction,
    Course,
    DatabaseDate,
    Outvoted,
    describe_step,
    gravity_of_step,
    level_of_step,
)
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
from ntpaudit.core.policy import Profile, bound_s
from ntpaudit.core.poll_interval import PollInterval
from ntpaudit.core.record import Health, Kind, Labels, LastPoll, Record, write_record
from ntpaudit.core.selection import NO_VOTES, Agreement, Judged, Selection, Votes, count_votes, median_ns, select
from ntpaudit.core.units import NS_PER_S, format_utc

MAX_CARRY_S = 86_400.0
"""An offset is carried on for no longer: then the clock is unmeasured."""

KEPT_SAMPLES = 128
"""As many as the drift's runs test looks at (F3)."""

STEP_LISTED_NS = 3600 * NS_PER_S
"""So long after a step it stays listed."""

_RAW_TOLERANCE = 0.15
"""MONOTONIC may be slewed by a tenth against RAW, chrony's most; a larger difference is a RAW that jumped (B6)."""

_NEARER = 0.5
"""A correction brings the clock nearer to the truth by this share of it at least, or it corrects something else."""

_MAXERROR_RATE = 500e-6
"""The kernel adds so much to its maximum error at each second, until a daemon updates it (A4)."""

_MAXERROR_TOLERANCE_S = 2 * _MAXERROR_RATE
"""Between two looks there may be a second more or less than the time between them, and as much for good measure."""

_MAX_STEPS = 64


class Fix(NamedTuple):
    """The last agreement of servers, at the moment of `reading`, and the votes it rests on.

    `contradicted_by` names the sources whose later answers contradict it and were rejected (R5). `drift_ppm` is the
    worst that the oscillator may be by all that was seen of the kernel's correction since then (R4). `leap` is the leap
    second that the servers announced for the end of the month, 0 for none (R11).
    """

    reading: ClockReading
    agreement: Agreement
    votes: Votes
    contradicted_by: tuple[str, ...] = ()
    drift_ppm: float = MAX_DRIFT_PPM
    leap: int = 0


class Update(NamedTuple):
    """The latest look (uptime) before which a time daemon may have updated the kernel, and what it showed (A4)."""

    looked_ns: int
    maxerror_s: float


class SeenDaemon(NamedTuple):
    """The time daemon that was seen last in this boot, and since which uptime it is missed; None while it runs."""

    name: str
    gone_ns: int | None = None


class Poll(NamedTuple):
    """The latest audit that polled sources: its uptime, its votes, and how often sources were to be polled then."""

    polled_ns: int
    votes: Votes
    interval_s: float


class Mind(NamedTuple):
    """All that is known from before. Uptimes belong to the boot of `reading`, which later ones are held against.

    `measured_ns` and `measured_utc_ns` tell when servers last gave a measurement, by uptime and by the true time;
    `started_ns` when this agent began to watch. Both uptimes are later by what the host slept since, which does not
    count. `kernel_ppm` is the correction that the kernel applied when last seen, and `drift_ppm` how far the oscillator
    may be off by the last one that was no slew (R4), None where none was seen. `contradiction` is the latest one, and
    `samples_since_ns` the uptime before which no sample belongs to the present line. `dated_ns` is when, by
    the RAW clock, the database's answer came whose Date was judged last. `tai_s` is the kernel's TAI - UTC when last
    seen, and `leapt` the leap second that the host's clock made since the fix (R11). `firm` is an earlier fix that
    allows for more liars than the present one, and is in force again once answers contradict it (R5).
    """

    boot_id: str | None
    reading: ClockReading
    started_ns: int
    fix: Fix | None = None
    samples: tuple[Sample, ...] = ()
    line: Fit | None = None
    drift: Drift | None = None
    back_test: BackTest = BackTest()
    steps: tuple[Step, ...] = ()
    update: Update | None = None
    kernel_ppm: float | None = None
    drift_ppm: float | None = None
    alarms: Alarms = Alarms()
    measured_ns: int | None = None
    measured_utc_ns: int | None = None
    contradiction: Contradiction | None = None
    samples_since_ns: int = 0
    daemon: SeenDaemon | None = None
    tai_s: int | None = None
    leapt: int = 0
    dated_ns: int | None = None
    poll: Poll | None = None
    poll_interval: PollInterval | None = None
    firm: Fix | None = None


class Terms(NamedTuple):
    """What a round is judged by. `interval_s` is how often servers are to be asked.

    `max_drift_ppm` is how far the oscillator is assumed to be off, unless the host shows that it is worse (R4).
    """

    profile: Profile
    labels: Labels
    interval_s: float
    max_drift_ppm: float = MAX_DRIFT_PPM


class Round(NamedTuple):
    """What one audit of the agent came to. `distance_s` is the sample's (F2), None where there is none."""

    record: Record
    events: tuple[Event, ...]
    mind: Mind
    is_pending: bool
    distance_s: float | None


def look(
    mind: Mind, now: ClockReading, *, is_gap: bool = False, kernel: KernelState | Unavailable | None = None
) -> tuple[Mind, Step | None, Suspend | None]:
    """Notice whether the clock was set or the host slept since the last look (J1, J3).

    Held against the quickest reading since the last of either: one that took long could hide a step for ever. A leap
    second is no step (R11): give the `kernel` where the step has the size of one (`is_leap_sized`).
    """
    step, suspend = find_step(mind.reading, now, is_gap=is_gap), find_suspend(mind.reading, now)
    leap = leap_of_step(step, mind.reading, kernel, mind.tai_s, mind.fix.leap if mind.fix else 0)
    if step or suspend or now.width_ns < mind.reading.width_ns:
        mind = mind._replace(reading=now)
    if step is not None and leap:
        mind = forget_samples(mind, now)._replace(leapt=leap)
        step = without_leap(step, leap, now)
    mind = mind._replace(steps=_listed_steps(mind.steps, step, now))
    return (mind if suspend is None else _wake(mind, suspend)), step, suspend


def forget_samples(mind: Mind, now: ClockReading) -> Mind:
    """Forget the samples of the drift, of which no line goes through any that follow."""
    back_test = drop_forecasts(mind.back_test)
    return mind._replace(samples=(), line=None, drift=None, back_test=back_test, samples_since_ns=now.boottime_ns)


def forget_raw(mind: Mind) -> Mind:
    """Forget what was measured against a RAW clock that stood still or began anew (B6, F1)."""
    back_test = drop_forecasts(mind.back_test)
    return mind._replace(fix=None, firm=None, samples=(), line=None, drift=None, back_test=back_test, leapt=0)


def _wake(mind: Mind, suspend: Suspend) -> Mind:
    """Forget what was measured before a suspend. While it slept the host wrote no log: that time is no gap."""
    measured_ns = None if mind.measured_ns is None else mind.measured_ns + suspend.duration_ns
    polls = mind.poll_interval
    return forget_raw(mind)._replace(
        measured_ns=measured_ns,
        started_ns=mind.started_ns + suspend.duration_ns,
        poll_interval=polls and polls._replace(since_ns=polls.since_ns + suspend.duration_ns),
    )


def in_force(mind: Mind, now_ns: int, interval_s: float) -> Mind:
    """Note how often sources are to be polled from now on; what was before stays judged by what was in force then."""
    polls = mind.poll_interval
    if polls is None:
        since_ns = mind.started_ns if mind.measured_ns is None else mind.measured_ns
        return mind._replace(poll_interval=PollInterval(interval_s, since_ns))
    return mind._replace(poll_interval=polls.changed(now_ns, interval_s))


def carried(mind: Mind, now: ClockReading) -> Agreement | None:
    """Carry the last agreement to another moment (B5, B6); None where there is none, or RAW cannot be trusted.

    The interval grows by the most that this oscillator may be off (R4), or as far as it is measured to be off if that
    is more. The estimate moves with the measured frequency; before that is known, with the correction that the kernel
    applies, for a daemon has found it to be right.
    """
    fix = mind.fix
    if fix is None:
        return None
    elapsed_ns = now.raw_ns - fix.reading.raw_ns
    elapsed_mono_ns = now.monotonic_ns - fix.reading.monotonic_ns
    is_sound = abs(elapsed_mono_ns - elapsed_ns) <= _RAW_TOLERANCE * abs(elapsed_ns) + MAX_STEP_NS
    if not (is_sound and 0 <= elapsed_ns <= MAX_CARRY_S * NS_PER_S):
        return None
    if abs(suspended_ns(fix.reading, now)) > MAX_STEP_NS:
        return None
    interval = carry(fix.agreement.interval, fix.reading, now, _drift_bound_ppm(mind.line, fix.drift_ppm))
    drifted_ns = round(_rate_ppm(mind) * elapsed_ns / 1e6)
    estimate_ns = fix.agreement.estimate_ns - correction_ns(fix.reading, now) + drifted_ns
    across = across_leap(interval, _least_utc_ns(fix), now, announced=fix.leap, made=mind.leapt)
    if across != interval:
        estimate_ns -= (mind.leapt or fix.leap) * NS_PER_S
    return fix.agreement._replace(interval=across, estimate_ns=across.clamp(estimate_ns))


def _least_utc_ns(fix: Fix) -> int:
    """Return the earliest that the true time can have been when a fix was made."""
    return fix.reading.realtime_ns + fix.agreement.interval.earliest_ns


def utc_ns(mind: Mind, now: ClockReading) -> int | None:
    """Return the true time at a moment of this boot, None where nobody knows it."""
    agreement = carried(mind, now)
    return None if agreement is None else now.realtime_ns + agreement.estimate_ns


def step_event(mind: Mind, step: Step, now: ClockReading) -> Event:
    """Tell of a step, at the true time where that is known."""
    level = level_of_step(step)
    return Event(
        step.kind,
        True,
        LEVEL_SEVERITY[level],
        level,
        describe_step(step),
        utc_ns(mind, now),
        now.realtime_ns,
        now.boottime_ns,
        value_s=step.size_ns / NS_PER_S,
        remedy=next(rule.remedy for rule in RULES if rule.id == step.kind),
        detail={
            "before": format_utc(step.before_ns),
            "after": format_utc(step.after_ns),
            "while_down": step.is_gap,
        },
    )


def conclude_round(
    mind: Mind,
    observation: Observation,
    kind: Kind,
    terms: Terms,
    health: Health,
    *,
    dropped: int = 0,
    database: DatabaseClock | None = None,
    can_confirm: bool = True,
) -> Round:
    """Judge one observation in the light of all before: measure or carry on, watch for gaps, raise and clear.

    `database` is what the database's last answer said of its clock, None where it has not answered. `can_confirm` is
    False where no later audit will know the mind that is returned.
    """
    now = observation.taken
    mind = _watch_daemon(_watch_kernel(mind, observation, terms.max_drift_ppm), observation)
    mind = in_force(mind, now.boottime_ns, terms.interval_s)
    drift_ppm = _drift_bound_ppm(mind.line, mind.drift_ppm or terms.max_drift_ppm)
    selection = select(observation.sources, now, drift_ppm) if kind == "network" else Selection((), None)
    intervals = _intervals(mind, now, selection.agreement)
    heard = selection.agreement
    mind = _with_firm(mind, now, selection)
    before = carried(mind, now)
    gap_s = None if heard is None else _gap_s(mind, now, heard)
    outvoted = None
    if mind.fix is not None and before is not None and (contradicting := _contradicting(before, selection)):
        outvoted = _outvoted(mind.fix, now, contradicting)
        if outvoted is not None:
            selection = _reject(selection, contradicting)
            mind = _note_answer(mind, now, before, contradicting)
        elif heard is not None:
            mind, before = _drop_contradicted(mind, now, before, heard, contradicting)._replace(firm=mind.firm), None
    if before is not None and outvoted is None and heard is not None and before.is_guaranteed > heard.is_guaranteed:
        selection = selection._replace(agreement=None)  # R1: what proves nothing does not replace what was proven
        mind = _note_answer(mind, now, before, frozenset())
    is_sample = selection.agreement is not None
    distance_s = _distance_s(selection)
    is_correcting = _is_correcting(mind.fix, now, selection.agreement)
    if selection.agreement is not None:
        mind = _learn(mind, now, selection, distance_s, drift_ppm)
    elif mind.fix is not None:
        drift_ppm = _drift_bound_ppm(mind.line, mind.fix.drift_ppm)
    agreement = selection.agreement or before
    if agreement is not None:  # R3: a forecast is made anew with each record, whether servers answered or not
        mind = mind._replace(drift=_drift(mind, observation, agreement, terms.profile, drift_ppm))
    course = Course(
        terms.interval_s,
        None if heard is not None else _since_s(mind, now),
        gap_s,
        mind.steps,
        _stale_s(mind, observation),
        mind.drift,
        dropped,
        outvoted,
        _listed_contradiction(mind, now),
        _date_of(mind, database, now, drift_ppm),
        health.refusals,
        health.failure,
        vanished=mind.daemon.name if mind.daemon and mind.daemon.gone_ns is not None else None,
        intervals=intervals,
        raised=frozenset(name for name, entry in mind.alarms.watched.items() if entry.raised),
    )
    votes = count_votes(selection) if kind == "network" else mind.fix.votes if mind.fix else NO_VOTES
    if any(judged.status != "backed-off" for judged in selection.sources):
        mind = mind._replace(poll=Poll(now.boottime_ns, votes, terms.interval_s))
    if agreement is not None:  # the terms of the interval that is reported, where that is an earlier one carried on
        votes = votes._replace(tolerated_liars=agreement.tolerated_liars, guaranteed=agreement.is_guaranteed)
    case = Case(observation, selection._replace(agreement=agreement), terms.profile, course, votes, drift_ppm)
    judgement = judge(
        case,
        mind.alarms,
        kind,
        is_sample=is_sample,
        is_correcting=is_correcting,
        is_continued=before is not None,
        can_confirm=can_confirm,
    )
    record = write_record(
        case,
        terms.labels,
        judgement.findings,
        judgement.severity,
        kind=kind,
        age_s=_age_s(mind, now),
        drift=mind.drift if agreement else None,
        health=health,
        confirmed=judgement.confirmed,
        last_poll=_last_poll(mind.poll, now),
    )
    events = tuple(_event(change, record, course) for change in judgement.changes)
    mind = mind._replace(alarms=judgement.alarms, dated_ns=database.reading.raw_ns if database else mind.dated_ns)
    is_fitted = selection.agreement is not None and selection.agreement.is_guaranteed
    return Round(record, events, mind, judgement.is_pending, distance_s if is_fitted else None)


def make_sample(reading: ClockReading, estimate_ns: int, distance_s: float) -> Sample:
    """Return an estimate as the regression wants it: UTC - RAW at an instant of RAW (F1)."""
    return Sample(reading.raw_ns, reading.realtime_minus_raw_ns + estimate_ns, distance_s)


def _with_firm(mind: Mind, now: ClockReading, selection: Selection) -> Mind:
    """Let the fix that allows for most liars be in force again where answers contradict it (R5).

    A source that was asked alone and agreed with it has taken its place; that source must not thereby be believed when
    it says something else the next time.
    """
    firm = None if mind.firm is None else carried(mind._replace(fix=mind.firm), now)
    if firm is None:
        return mind._replace(firm=None)
    return mind._replace(fix=mind.firm, firm=None) if _contradicting(firm, selection) else mind


def _contradicting(before: Agreement, selection: Selection) -> frozenset[str]:
    """Return the sources whose answers contradict an earlier agreement, where their own agreement does."""
    heard = selection.agreement
    if heard is None or heard.interval.intersect(before.interval) is not None:
        return frozenset()
    return frozenset(
        _source_key(judged)
        for judged in selection.usable
        if judged.candidate and judged.candidate.interval.intersect(before.interval) is None
    )


def _source_key(judged: Judged) -> str:
    """Name a source so that one server counts once, and each member of a pool by itself."""
    return f"{judged.source.name} {judged.source.address}"


def _outvoted(fix: Fix, now: ClockReading, contradicting: frozenset[str]) -> Outvoted | None:
    """Return the earlier agreement if it stands against these answers: as long as all of them can be lying (R5).

    Servers of a pool are asked seldom. A server that they outvote would be believed whenever it is asked alone; so its
    answers count for nothing while the agreement can be carried forward. It allowed for `tolerated_liars` of its
    sources and no more, so one source beyond them disproves it, also if they answer one after the other.
    """
    if len(contradicting.union(fix.contradicted_by)) > fix.votes.tolerated_liars:
        return None
    return Outvoted(fix.votes.agreeing, (now.raw_ns - fix.reading.raw_ns) / NS_PER_S)


def _drop_contradicted(
    mind: Mind, now: ClockReading, before: Agreement, heard: Agreement, contradicting: frozenset[str]
) -> Mind:
    """Drop an agreement that was proved wrong, and note the contradiction (R6).

    RAW was disturbed or the servers moved, so no line goes through samples from before and after. Only where a bad
    oscillator explains the gap are they kept: without them its frequency would never become known.
    """
    fix = mind.fix
    assert fix is not None
    elapsed_ns = now.raw_ns - fix.reading.raw_ns
    contradiction = Contradiction(
        before.interval, heard.interval, len(contradicting), elapsed_ns / NS_PER_S, now.boottime_ns
    )
    is_proof = before.is_guaranteed and heard.is_guaranteed
    mind = mind._replace(fix=None, contradiction=contradiction if is_proof else mind.contradiction)
    if abs(contradiction.gap_ns) <= MAX_KERNEL_PPM * 1e-6 * elapsed_ns:
        return mind
    return forget_raw(mind)._replace(samples_since_ns=now.boottime_ns)


def _listed_contradiction(mind: Mind, now: ClockReading) -> Contradiction | None:
    """Return a contradiction of the last hour: it stays listed as long as a step does."""
    latest = mind.contradiction
    if latest is None or not 0 <= now.boottime_ns - latest.boottime_ns <= STEP_LISTED_NS:
        return None
    return latest


def _reject(selection: Selection, contradicting: frozenset[str]) -> Selection:
    """Mark the sources that contradict an agreement that stands as falsetickers."""
    judged = [
        one._replace(status="falseticker", reason="disagrees")
        if one.status == "agreeing" and _source_key(one) in contradicting
        else one
        for one in selection.sources
    ]
    return Selection(tuple(judged), None)


def _note_answer(mind: Mind, now: ClockReading, before: Agreement, contradicting: frozenset[str]) -> Mind:
    """Note that servers gave a measurement, though not one to believe: that is a finding of its own, and no gap."""
    assert mind.fix is not None
    doubted = tuple(sorted(contradicting.union(mind.fix.contradicted_by)))
    return mind._replace(
        fix=mind.fix._replace(contradicted_by=doubted),
        measured_ns=now.boottime_ns,
        measured_utc_ns=now.realtime_ns + before.estimate_ns,
        poll_interval=mind.poll_interval and mind.poll_interval.measured(now.boottime_ns),
    )


def _learn(mind: Mind, now: ClockReading, selection: Selection, distance_s: float, drift_ppm: float) -> Mind:
    """Take in a measurement."""
    agreement = selection.agreement
    assert agreement is not None
    firm = mind.firm or mind.fix
    if mind.fix is not None and _has_leapt(mind.fix, now.realtime_ns + agreement.estimate_ns):
        mind, firm = forget_samples(mind, now), None
    if firm is not None and (mind.leapt or firm.votes.tolerated_liars <= agreement.tolerated_liars):
        firm = None
    leap = announced_leap(one.best.reply.leap for one in selection.sources if one.status == "agreeing" and one.best)
    mind = mind._replace(
        fix=Fix(now, agreement, count_votes(selection), drift_ppm=drift_ppm, leap=leap),
        firm=firm,
        leapt=0,
        measured_ns=now.boottime_ns,
        measured_utc_ns=now.realtime_ns + agreement.estimate_ns,
        poll_interval=mind.poll_interval and mind.poll_interval.measured(now.boottime_ns),
    )
    if not agreement.is_guaranteed:
        return mind  # R2: the frequency rests on estimates that no liar can move
    sample = make_sample(now, agreement.estimate_ns, distance_s)
    samples = (*mind.samples, sample)[-KEPT_SAMPLES:]
    line = fit(samples)
    back_test = settle_forecasts(mind.back_test, sample)
    return mind._replace(
        samples=samples,
        line=line,
        back_test=back_test if line is None else note_forecasts(back_test, line, now.raw_ns),
    )


def _has_leapt(fix: Fix, utc_ns: int) -> bool:
    """Whether a leap second that the servers announced may have come, so that UTC - RAW is another than before."""
    end_ns = month_end_ns(_least_utc_ns(fix))
    return fix.leap != 0 and end_ns is not None and utc_ns + NS_PER_S >= end_ns


def _distance_s(selection: Selection) -> float:
    """Return the median root distance of the agreeing sources (F2).

    Like the estimate it has a breakdown point: a liar that claims to be very near gives a sample no weight (R2).
    """
    bests = [judged.best for judged in selection.sources if judged.status == "agreeing" and judged.best]
    return median_ns([best.interval.half_width_ns for best in bests]) / NS_PER_S if bests else 0.0


def _drift(mind: Mind, observation: Observation, agreement: Agreement, profile: Profile, drift_ppm: float) -> Drift:
    """Say how the clock moves, and when it will have left its tolerance."""
    kernel = observation.kernel
    return estimate_drift(
        mind.samples,
        now_raw_ns=observation.taken.raw_ns,
        estimate_ns=agreement.estimate_ns,
        bound_s=bound_s(agreement.interval),
        kernel_ppm=observation.kernel_ppm,
        tolerance_s=profile.critical_s,
        steered=_is_steered(mind, observation),
        back_test=mind.back_test,
        line=mind.line,
        drift_ppm=drift_ppm,
        pending_s=0.0 if isinstance(kernel, Unavailable) else kernel.offset_s,
    )


def _is_steered(mind: Mind, observation: Observation) -> bool:
    """A time daemon is at work: one is in sight, or the kernel has been told of one lately (F8)."""
    if any(daemon.disciplines for daemon in observation.known_daemons):
        return True
    if mind.daemon is not None:  # it has ended, whatever the kernel still believes (R12)
        return False
    kernel, stale_s = observation.kernel, _stale_s(mind, observation)
    is_fresh = stale_s is None or stale_s <= STALE_TIMESYNCD_S  # the kernel believes a dead daemon for hours (A4)
    return not isinstance(kernel, Unavailable) and kernel.is_synchronised and is_fresh


def _rate_ppm(mind: Mind) -> float:
    """Return the frequency by which the estimate is carried on: the oscillator's own as measured, or as corrected."""
    if mind.line is not None and mind.line.skew_ppm <= MAX_DRIFT_PPM:
        return mind.line.frequency_ppm
    is_likely = mind.kernel_ppm is not None and abs(mind.kernel_ppm) <= MAX_DRIFT_PPM  # else it is a slew
    return mind.kernel_ppm if mind.kernel_ppm is not None and is_likely else 0.0


def _drift_bound_ppm(line: Fit | None, drift_ppm: float) -> float:
    """Return how far the oscillator may be off, also where it is measured to be worse for certain (B5, R4).

    What is measured to be further off than any kernel could correct is no oscillator.
    """
    if line is None or not abs(line.frequency_ppm) - line.skew_ppm > drift_ppm:
        return drift_ppm
    return max(drift_ppm, min(abs(line.frequency_ppm) + line.skew_ppm, MAX_KERNEL_PPM))


def _listed_steps(steps: Sequence[Step], step: Step | None, now: ClockReading) -> tuple[Step, ...]:
    """Return the steps of the last hour that a finding may have to tell of.

    One that is no worse than a later one of its direction never will be: so of however many steps only few are kept.
    """
    recent = [known for known in steps if now.boottime_ns - known.boottime_ns <= STEP_LISTED_NS]
    if step is None or abs(step.size_ns) < LEAST_STEP_S * NS_PER_S:
        return tuple(recent)
    worse = [one for one in recent if one.kind != step.kind or gravity_of_step(one) > gravity_of_step(step)]
    return (*worse, step)[:_MAX_STEPS]


def _watch_kernel(mind: Mind, observation: Observation, assumed_ppm: float) -> Mind:
    """Notice how far the oscillator may be off by the kernel's correction (R4), and when that was last updated (A4)."""
    kernel_ppm = observation.kernel_ppm
    if kernel_ppm is not None and abs(kernel_ppm) <= MAX_KERNEL_PPM:  # else a slew, which says nothing of it
        drift_ppm = max_drift_ppm(kernel_ppm, assumed_ppm)
        fix, firm = (one and one._replace(drift_ppm=max(one.drift_ppm, drift_ppm)) for one in (mind.fix, mind.firm))
        mind = mind._replace(drift_ppm=drift_ppm, fix=fix, firm=firm)
    if not isinstance(observation.kernel, Unavailable):
        mind = mind._replace(tai_s=observation.kernel.tai_s)
    return _watch_updates(mind, observation)


def _watch_daemon(mind: Mind, observation: Observation) -> Mind:
    """Notice that the time daemon has ended (R12). If something updates the kernel after that, another one runs."""
    if disciplining := [daemon.name for daemon in observation.known_daemons if daemon.disciplines]:
        return mind._replace(daemon=SeenDaemon(disciplining[0]))
    if mind.daemon is None or any(daemon.disciplines is None for daemon in observation.known_daemons):
        return mind
    gone_ns = observation.taken.boottime_ns if mind.daemon.gone_ns is None else mind.daemon.gone_ns
    is_replaced = mind.update is not None and mind.update.looked_ns > gone_ns
    return mind._replace(daemon=None if is_replaced else mind.daemon._replace(gone_ns=gone_ns))


def _watch_updates(mind: Mind, observation: Observation) -> Mind:
    """Notice whether a daemon may have updated the kernel since the last look: else its error only grew (A4).

    Held against the look that last showed an update, and not the one before this, so that no update is too small.
    """
    kernel, now_ns, last = observation.kernel, observation.taken.boottime_ns, mind.update
    if isinstance(kernel, Unavailable):
        return mind._replace(update=None, kernel_ppm=None)
    mind = mind._replace(kernel_ppm=kernel.frequency_ppm)
    if not kernel.is_synchronised:
        return mind._replace(update=None)
    if last is not None and last.looked_ns <= now_ns:
        untouched_s = last.maxerror_s + (now_ns - last.looked_ns) / NS_PER_S * _MAXERROR_RATE
        if abs(kernel.maxerror_s - untouched_s) <= _MAXERROR_TOLERANCE_S:
            return mind
    return mind._replace(update=Update(now_ns, kernel.maxerror_s))


def _stale_s(mind: Mind, observation: Observation) -> float | None:
    """Return for how long no daemon has certainly updated the kernel."""
    return None if mind.update is None else (observation.taken.boottime_ns - mind.update.looked_ns) / NS_PER_S


def _since_s(mind: Mind, now: ClockReading) -> float:
    """Return how long ago servers last gave a measurement, else how long this agent has waited for the first.

    Where the last was in an earlier boot, it is longer ago than this one lasts.
    """
    if mind.measured_ns is not None:
        return (now.boottime_ns - mind.measured_ns) / NS_PER_S
    return (now.boottime_ns - (mind.started_ns if mind.measured_utc_ns is None else 0)) / NS_PER_S


def _gap_s(mind: Mind, now: ClockReading, agreement: Agreement | None) -> float | None:
    """Return how long nothing had been measured before this: by uptime within a boot, else by the true time."""
    if mind.measured_ns is not None:
        return (now.boottime_ns - mind.measured_ns) / NS_PER_S
    if mind.measured_utc_ns is None or agreement is None:
        return None
    return max(0.0, (now.realtime_ns + agreement.estimate_ns - mind.measured_utc_ns) / NS_PER_S)


def _intervals(mind: Mind, now: ClockReading, heard: Agreement | None) -> float | None:
    """Return how many poll intervals have passed since servers last gave a measurement, else since the agent's start.

    Where the last was in an earlier boot, the time before this agent's start counts too: all of it where the true time
    tells how long that was (`heard`), else what this boot has lasted.
    """
    polls = mind.poll_interval
    if polls is None:
        return None
    passed = polls.passed_at(now.boottime_ns)
    if mind.measured_ns is not None or mind.measured_utc_ns is None:
        return passed
    watched_s, gap_s = (now.boottime_ns - mind.started_ns) / NS_PER_S, _gap_s(mind, now, heard)
    before_s = (mind.started_ns / NS_PER_S) if gap_s is None else gap_s - watched_s
    return passed + polls.before_boot(max(0.0, before_s))


def _last_poll(poll: Poll | None, now: ClockReading) -> LastPoll | None:
    """Return what is known of the sources now: nothing, once the latest poll is older than its interval and grace."""
    if poll is None:
        return None
    age_s = (now.boottime_ns - poll.polled_ns) / NS_PER_S
    if not age_s <= GAP_INTERVALS * poll.interval_s:
        return LastPoll(age_s, poll.votes.sources, 0, 0)
    return LastPoll(age_s, poll.votes.sources, poll.votes.usable, poll.votes.agreeing)


def _date_of(mind: Mind, database: DatabaseClock | None, now: ClockReading, drift_ppm: float) -> DatabaseDate | None:
    """Return what the database's clock says now."""
    interval = None if database is None else carry_date(database, now, drift_ppm)
    if database is None or interval is None:
        return None
    raw_ns = database.reading.raw_ns
    return DatabaseDate(interval, (now.raw_ns - raw_ns) / NS_PER_S, is_new=raw_ns != mind.dated_ns)


def _age_s(mind: Mind, now: ClockReading) -> float | None:
    """Return how old the measurement is that the offset rests on."""
    return None if mind.fix is None else (now.raw_ns - mind.fix.reading.raw_ns) / NS_PER_S


def _is_correcting(fix: Fix | None, now: ClockReading, agreement: Agreement | None) -> bool:
    """Whether the clock was moved towards the truth, and came nearer to it, since the last measurement (§1.5)."""
    if fix is None or agreement is None:
        return False
    wrong_ns, moved_ns = fix.agreement.estimate_ns, correction_ns(fix.reading, now)
    is_right_way = moved_ns * wrong_ns > 0 and abs(moved_ns) > growth_ns(now.raw_ns - fix.reading.raw_ns)
    return is_right_way and abs(wrong_ns) - abs(agreement.estimate_ns) >= _NEARER * abs(moved_ns)


def _event(change: tuple[Finding, bool], record: Record, course: Course) -> Event:
    """Tell of a finding that was raised or cleared."""
    finding, raised = change
    contradiction = course.contradiction if finding.id == "contradicts-earlier" else None
    return Event(
        finding.id,
        raised,
        finding.severity,
        finding.level,
        finding.message if raised else f"no longer true: {finding.message}",
        record.utc_ns,
        record.host_ns,
        record.boottime_ns,
        value_s=_value_s(finding.id, record, course),
        remedy=finding.remedy,
        detail=_contradiction_detail(contradiction) if contradiction else {},
    )


def _contradiction_detail(contradiction: Contradiction) -> dict[str, Any]:
    """Return both intervals in seconds."""
    expected, heard = contradiction.expected, contradiction.heard
    return {
        "expected_s": [end_ns / NS_PER_S for end_ns in expected],
        "heard_s": [end_ns / NS_PER_S for end_ns in heard],
    }


def _value_s(kind: str, record: Record, course: Course) -> float | None:
    """Return the size of what a finding is about, where it has one."""
    match kind:
        case "offset-out" | "not-demonstrable" | "tz-or-rtc-fault":
            return record.offset.estimate_s if record.offset else None
        case "time-disputed":
            return record.database_clock.disputed_s if record.database_clock else None
        case "evidence-gap" if not course.dropped:
            return course.ended_gap_s if course.unmeasured_s is None else course.unmeasured_s
        case "stale-compare":
            return course.stale_s
        case "contradicts-earlier":
            return course.contradiction.gap_ns / NS_PER_S if course.contradiction else None
        case "breach-forecast":
            return record.drift.breach.central_s if record.drift else None
    return None

"""Compare the replies of servers with the earlier agreement: keep it, drop it, or store a new one (R1, R2, R5, R6)."""

from collections.abc import Sequence
from typing import NamedTuple

from ntpaudit.core.checks.context import Contradiction, DroppedAgreement
from ntpaudit.core.clock.drift import MAX_SAMPLES, Sample, fit, note_forecasts, settle_forecasts
from ntpaudit.core.clock.readings import MAX_KERNEL_PPM, ClockReading
from ntpaudit.core.clock_state import ClockState, LastAgreement, reset_holdover, reset_samples
from ntpaudit.core.holdover import holdover, least_utc_ns
from ntpaudit.core.leap import announced_leap, month_end_ns
from ntpaudit.core.selection import Agreement, ClassifiedSource, Selection, count_sources
from ntpaudit.core.units import NS_PER_S

KEPT_SAMPLES = 2 * MAX_SAMPLES  # as many as the runs test of the drift uses (F3)


class Compared(NamedTuple):
    """The replies after they were compared with the earlier agreement, and that one carried to their moment (`before`).

    `before` is None if the replies disproved it. `contradiction`: they contradict it and do not count.
    """

    state: ClockState
    selection: Selection
    before: Agreement | None
    contradiction: Contradiction | None = None


def compare(state: ClockState, now: ClockReading, selection: Selection) -> Compared:
    """Decide whether new replies or the earlier agreement count, where they contradict each other (R5).

    Servers of a pool are polled rarely. A server that they outvote must not be trusted whenever it is queried alone. So
    an earlier agreement holds, while it is carried forward, against as many contradicting servers as it allows for
    falsetickers. It is disproved by one more, even if they reply one after the other.
    """
    state = _restore_stronger_agreement(state, now, selection)
    last, before, measured = state.agreement, holdover(state, now), selection.agreement
    if last is None or before is None or measured is None:
        return Compared(state, selection, before)
    if contradicting := _contradicting(before, selection):
        if len(contradicting.union(last.contradicted_by)) > last.counts.max_falsetickers:
            return Compared(_drop_contradicted(state, now, before, measured, contradicting), selection, None)
        contradiction = Contradiction(last.counts.agreeing, (now.raw_ns - last.reading.raw_ns) / NS_PER_S)
        state = _note_reply(state, now, before, contradicting)
        return Compared(state, _reject(selection, contradicting), before, contradiction)
    if before.is_guaranteed > measured.is_guaranteed:  # R1: what proves nothing does not replace what is proven
        return Compared(_note_reply(state, now, before), selection._replace(agreement=None), before)
    return Compared(state, selection, before)


def _restore_stronger_agreement(state: ClockState, now: ClockReading, selection: Selection) -> ClockState:
    """Use the agreement that allows for more falsetickers again if replies contradict it (R5).

    A source that was queried alone and agreed with it has replaced it, but is not trusted when its next reply differs.
    """
    stronger = holdover(state._replace(agreement=state.stronger_agreement), now)
    if stronger is None:
        return state._replace(stronger_agreement=None)
    if _contradicting(stronger, selection):
        return state._replace(agreement=state.stronger_agreement, stronger_agreement=None)
    return state


def _contradicting(before: Agreement, selection: Selection) -> frozenset[str]:
    agreement = selection.agreement
    if agreement is None or agreement.interval.intersect(before.interval) is not None:
        return frozenset()
    return frozenset(
        _source_key(classified)
        for classified in selection.usable
        if classified.candidate and classified.candidate.interval.intersect(before.interval) is None
    )


def _source_key(classified: ClassifiedSource) -> str:
    return f"{classified.source.name} {classified.source.address}"  # each member of a pool counts once


def _drop_contradicted(
    state: ClockState, now: ClockReading, before: Agreement, measured: Agreement, contradicting: frozenset[str]
) -> ClockState:
    """Discard an agreement that was proved wrong, and store the contradiction (R6).

    RAW was disturbed or the servers changed, so no line goes through earlier samples. They are kept only if a bad
    oscillator explains the difference: without them its frequency would never become known.
    """
    last = state.agreement
    assert last is not None
    elapsed_ns = now.raw_ns - last.reading.raw_ns
    contradiction = DroppedAgreement(
        before.interval, measured.interval, len(contradicting), elapsed_ns / NS_PER_S, now.boottime_ns
    )
    is_proof = before.is_guaranteed and measured.is_guaranteed
    state = state._replace(agreement=None, dropped_agreement=contradiction if is_proof else state.dropped_agreement)
    if abs(contradiction.gap_ns) <= MAX_KERNEL_PPM * 1e-6 * elapsed_ns:
        return state
    return reset_holdover(state)._replace(stronger_agreement=state.stronger_agreement)


def _reject(selection: Selection, contradicting: frozenset[str]) -> Selection:
    classified = [
        one._replace(status="falseticker", reason="disagrees")
        if one.status == "agreeing" and _source_key(one) in contradicting
        else one
        for one in selection.sources
    ]
    return Selection(tuple(classified), None)


def _note_reply(
    state: ClockState, now: ClockReading, before: Agreement, contradicting: frozenset[str] = frozenset()
) -> ClockState:
    """Store that servers gave a measurement, although a rejected one: that is a finding of its own, not a gap."""
    assert state.agreement is not None
    sources = tuple(sorted(contradicting.union(state.agreement.contradicted_by)))
    return state._replace(
        agreement=state.agreement._replace(contradicted_by=sources),
        measured_ns=now.boottime_ns,
        measured_utc_ns=now.realtime_ns + before.estimate_ns,
        poll_interval=state.poll_interval and state.poll_interval.measured(now.boottime_ns),
    )


def store_agreement(
    state: ClockState, now: ClockReading, selection: Selection, agreement: Agreement, drift_ppm: float
) -> ClockState:
    """Return the state with the agreement of a selection, and with its sample of the drift if it is guaranteed."""
    last, stronger = state.agreement, state.stronger_agreement or state.agreement
    true_ns = now.realtime_ns + agreement.estimate_ns
    if last is not None and last.leap:
        end_ns = month_end_ns(least_utc_ns(last))
        if end_ns is not None and true_ns + NS_PER_S >= end_ns:  # it may have happened, which changes UTC - RAW
            state, stronger = reset_samples(state), None
    if stronger is not None and (state.leapt or stronger.counts.max_falsetickers <= agreement.max_falsetickers):
        stronger = None
    bests = [classified.best for classified in selection.sources if classified.status == "agreeing" and classified.best]
    leap = announced_leap(best.reply.leap for best in bests)
    state = state._replace(
        agreement=LastAgreement(now, agreement, count_sources(selection), drift_ppm=drift_ppm, leap=leap),
        stronger_agreement=stronger,
        leapt=0,
        measured_ns=now.boottime_ns,
        measured_utc_ns=true_ns,
        poll_interval=state.poll_interval and state.poll_interval.measured(now.boottime_ns),
    )
    if not agreement.is_guaranteed:
        return state  # R2: the frequency uses only estimates that no falseticker can move
    # F2: the root distance; a median, so a falseticker that claims to be very near cannot change the sample's weight
    distance_s = _median_ns([best.interval.half_width_ns for best in bests]) / NS_PER_S
    sample = Sample(now.raw_ns, true_ns - now.raw_ns, distance_s)
    samples = (*state.samples, sample)[-KEPT_SAMPLES:]
    line = fit(samples)
    back_test = settle_forecasts(state.back_test, sample)
    return state._replace(
        samples=samples, line=line, back_test=back_test if line is None else note_forecasts(back_test, line, now.raw_ns)
    )


def _median_ns(values_ns: Sequence[int]) -> int:
    """Return the median; for an even number of values the mean of the middle two, rounded down."""
    ordered = sorted(values_ns)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2

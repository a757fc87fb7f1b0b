"""Raise and clear findings over time: one bad sample raises nothing, repeated ones do (I2)."""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from types import MappingProxyType
from typing import NamedTuple

from ntpaudit.core.checks.context import AuditContext, HostRule
from ntpaudit.core.checks.host import BY_ID, RULES, cause_of, listed, primaries_of
from ntpaudit.core.checks.offset import OFFSET_HIGH, OFFSET_OUT
from ntpaudit.core.checks.rule import Finding, Level, Raised, make_finding
from ntpaudit.core.checks.sources import SOURCE_QUORUM, UNREACHABLE_SOURCES
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import AuditKind
from ntpaudit.core.units import NS_PER_S, format_duration, format_utc

SAMPLES = 5
MAJORITY = 3  # this many of the last `SAMPLES` raise a finding, and this many good ones in a row clear it
DWELL_S = 600.0  # two samples in a row suffice if they are this far apart: long polling intervals delay nothing
HYSTERESIS = 0.7  # a finding is cleared below this share of its tolerance
OFFSET_GRACE_NS = 600 * NS_PER_S  # this soon after a boot, no finding about the offset is raised
PATIENCE_NS = 1800 * NS_PER_S  # no finding about the offset is raised for this long while the clock is being corrected
LEVELS: tuple[Level, ...] = ("low", "medium", "high", "critical")  # by rank, from 1 on; rank 0: nothing is wrong
_TWO_APART = f"2 in a row {format_duration(DWELL_S)} apart"
_IF_CONFIRMED = f"after {MAJORITY} such samples of the last {SAMPLES}, or {_TWO_APART}"
_COUNTED = 2  # findings from this rank on count; a low one is only listed


class ConditionState(NamedTuple):
    """One condition over time, in ranks. All times are uptimes.

    - `samples`: the ranks of the last samples, newest last.
    - `since_ns`: for each rank from 1 on, the first sample of that rank or worse after `MAJORITY` better ones in a row.
    - `raised`: the raised rank.
    - `better_ns`: the first of the samples in a row that are below the raised rank.
    - `message`, `remedy`, `numbers`: of what is raised; without a remedy it is the rule's.
    - `pending_message`, `pending_remedy`, `pending_numbers`: of the last sample, if it is worse than what is raised.
    - `sampled_ns`: the last sample of an offset or of silent servers that is raised; None if before this boot.
    - `is_overdue`: servers were polled since then, and that gave no sample.
    - `has_own_cause`: it is listed by itself, whatever else is raised; only of a finding of the moment.
    """

    samples: tuple[int, ...] = ()
    since_ns: tuple[int | None, ...] = (None,) * len(LEVELS)
    raised: int = 0
    better_ns: int | None = None
    message: str = ""
    remedy: str | None = None
    pending_message: str = ""
    pending_remedy: str | None = None
    sampled_ns: int | None = None
    is_overdue: bool = False
    numbers: Mapping[str, float] = MappingProxyType({})
    pending_numbers: Mapping[str, float] = MappingProxyType({})
    has_own_cause: bool = False

    @property
    def pending(self) -> int:
        """The rank of the last sample if it counts and more samples are needed to raise it, else 0."""
        last = self.samples[-1] if self.samples else 0
        return last if last > self.raised and last >= _COUNTED else 0

    @property
    def agreeing(self) -> int:
        """How many of the last samples are at least as bad as what is pending."""
        return sum(rank >= self.pending for rank in self.samples)

    @property
    def needs_samples(self) -> bool:
        """Whether more samples could raise what is pending."""
        return self.pending > 0 and self.agreeing < MAJORITY


_NEW = ConditionState()


class DebounceState(NamedTuple):
    """Every condition by its finding's id. `correcting_ns` is the uptime since which the clock is being corrected.

    `unconfirmed` has an entry for each of the last samples in a row whose offset was worse than what is raised. The
    entry is True if the sample was in a grace period, and so was not counted. `accepted` has the ids of the findings
    that were accepted at the last audit.
    """

    conditions: Mapping[str, ConditionState] = MappingProxyType({})
    correcting_ns: int | None = None
    unconfirmed: tuple[bool, ...] = ()
    accepted: tuple[str, ...] = ()

    def of(self, finding_id: str) -> ConditionState:
        """Return the state of one condition."""
        return self.conditions.get(finding_id, _NEW)

    @property
    def raised(self) -> Set[str]:
        """The ids of the findings that are raised."""
        return {name for name, condition in self.conditions.items() if condition.raised}

    @property
    def counted(self) -> Set[str]:
        """The ids of those that are raised at a level that counts."""
        return {name for name, condition in self.conditions.items() if condition.raised >= _COUNTED}

    @property
    def expected(self) -> Set[str]:
        """The ids of these, and of the findings that are pending."""
        return {name for name, one in self.conditions.items() if max(one.raised, one.pending) >= _COUNTED}


class Decision(NamedTuple):
    """The listed findings, the severity, and the changes: each finding just raised (True) or cleared (False).

    `confirmed` is False while the severity of the offset alone is worse than that of the raised findings about it: more
    samples must confirm one. `wants_poll`: another poll would decide.
    """

    findings: tuple[Finding, ...]
    severity: Severity
    confirmed: bool
    wants_poll: bool
    changes: tuple[tuple[Finding, bool], ...]
    state: DebounceState


def judge(
    context: AuditContext,
    before: DebounceState,
    kind: AuditKind,
    *,
    is_sample: bool,
    is_correcting: bool = False,
    is_continued: bool = True,
    can_confirm: bool = True,
) -> Decision:
    """Process one audit. A local audit carries the last sample forward, so it is no new sample of servers or offset.

    `is_sample`: servers gave a measurement. `is_correcting`: the clock is moving towards the true time.
    `is_continued`: its offset was known until now. `can_confirm` is False if the returned state cannot be stored: no
    later audit can confirm this sample, so its result counts as unknown at once.
    """
    now_ns = context.observation.taken.boottime_ns
    correcting_ns = before.correcting_ns
    if is_sample:
        correcting_ns = (correcting_ns or now_ns) if is_correcting else None
    in_grace = now_ns < OFFSET_GRACE_NS or (correcting_ns is not None and now_ns - correcting_ns < PATIENCE_NS)
    profile = context.profile
    clearing = profile._replace(warning_s=HYSTERESIS * profile.warning_s, critical_s=HYSTERESIS * profile.critical_s)
    strict = context._replace(profile=clearing)
    conditions = {rule.id: before.of(rule.id) for rule in RULES}
    # good samples from before the offset became unknown prove nothing: see `_is_trusted`
    if is_sample and not is_continued:
        high = conditions[OFFSET_HIGH.id]
        conditions[OFFSET_HIGH.id] = high._replace(samples=tuple(filter(None, high.samples)))
    for rule in RULES:
        condition, result = conditions[rule.id], rule.check(context)
        if rule.basis == "moment":
            condition = ConditionState(raised=_rank(result))
            if result is not None:
                condition = _with_message(condition, result)._replace(has_own_cause=rule.has_own_cause(context))
            conditions[rule.id] = condition
        elif _has_sample(rule, result, context, kind, is_sample):
            held = _rank(rule.check(strict)) if condition.raised and rule.has_hysteresis else 0
            rank = max(_rank(result), held)
            if not (in_grace and rank > condition.raised and rule.is_of_offset):
                after = _update(condition, rank, now_ns, rule.least_s, result)
                is_dated = after.raised and _may_be_overdue(rule)
                conditions[rule.id] = after._replace(sampled_ns=now_ns) if is_dated else after
        elif kind == "network" and condition.raised and _may_be_overdue(rule):
            conditions[rule.id] = condition._replace(is_overdue=True)
    state = DebounceState(conditions, correcting_ns, before.unconfirmed, tuple(sorted(context.accepted)))
    if is_sample:
        is_worse = context.offset_severity > _raised_severity(state, context)
        state = state._replace(unconfirmed=(*before.unconfirmed, in_grace)[-SAMPLES:] if is_worse else ())
    return _decide(context, before, state, kind, can_confirm=can_confirm)


def of_new_boot(state: DebounceState) -> DebounceState:
    """Return the state for a new boot: raised findings stay raised, and uptimes of the old boot do not count."""
    conditions = {
        name: condition._replace(since_ns=_NEW.since_ns, better_ns=None, sampled_ns=None)
        for name, condition in state.conditions.items()
    }
    return state._replace(conditions=conditions, correcting_ns=None)


def _has_sample(rule: HostRule, result: Raised | None, context: AuditContext, kind: AuditKind, is_sample: bool) -> bool:
    if rule.basis == "network" and kind == "local":
        return False
    if rule.is_of_offset and (not is_sample or context.is_unguaranteed):
        return False
    return rule.has_sample(context, result)


def _may_be_overdue(rule: HostRule) -> bool:
    """Whether a poll without a sample leaves a message that its table of servers does not show."""
    return rule.is_of_offset or rule.id == UNREACHABLE_SOURCES.id


def _rank(result: Raised | None) -> int:
    return 0 if result is None else LEVELS.index(result.level) + 1


def _update(before: ConditionState, rank: int, now_ns: int, least_s: float, sample: Raised | None) -> ConditionState:
    samples = (*before.samples, rank)[-SAMPLES:]
    if not (before.raised or any(samples)):
        return ConditionState(samples)
    raised, since_ns = before.raised, list(before.since_ns)
    for possible, then_ns in enumerate(before.since_ns, 1):
        holds = [one >= possible for one in samples]
        # `min` here and below: a poll's observation may be older than that of the local audit judged before it
        begun_ns = now_ns if then_ns is None else min(then_ns, now_ns)
        since_ns[possible - 1] = begun_ns if any(holds[-MAJORITY:]) else None
        lasted_s = (now_ns - begun_ns) / NS_PER_S
        is_enough = sum(holds) >= MAJORITY or (all(holds[-2:]) and lasted_s >= DWELL_S)
        if raised < possible <= rank and is_enough and lasted_s >= least_s:
            raised = possible
    better_ns = None if rank >= before.raised else min(before.better_ns or now_ns, now_ns)
    better = [one < before.raised for one in samples]
    if better_ns is not None:
        is_dwelling = all(better[-2:]) and now_ns - better_ns >= DWELL_S * NS_PER_S
        if is_dwelling or all(better[-MAJORITY:]):
            raised, better_ns = rank, None
    after = ConditionState(
        samples, tuple(since_ns), raised, better_ns, before.message, before.remedy, numbers=before.numbers
    )
    if rank > raised and sample is not None:
        after = after._replace(
            pending_message=sample.message, pending_remedy=sample.remedy, pending_numbers=sample.numbers
        )
    return _with_message(after, sample) if rank == raised or raised > before.raised else after


def _with_message(condition: ConditionState, sample: Raised | None) -> ConditionState:
    if sample is None:
        return condition
    return condition._replace(message=sample.message, remedy=sample.remedy, numbers=sample.numbers)


def _decide(
    context: AuditContext, before: DebounceState, after: DebounceState, kind: AuditKind, *, can_confirm: bool
) -> Decision:
    accepted = context.accepted
    findings = [
        _listed(
            rule, after.of(rule.id), context, is_replaced=_is_replaced(rule, context, after), can_confirm=can_confirm
        )
        .under(_cause(rule, after))
        .accept(accepted.get(rule.id))
        for rule in RULES
        if _is_raised(rule, after) or _is_pending(rule, after)
    ]
    severity = max((finding.severity for finding in findings), default=Severity.OK)
    confirmed = True
    if context.selection.agreement is None:
        severity = max(severity, Severity.UNKNOWN)
    else:
        raised = _raised_severity(after, context)
        confirmed = context.offset_severity <= raised
        if confirmed or (can_confirm and _is_trusted(after, raised)):
            severity = max(severity, raised)
        else:
            severity = max(severity, Severity.UNKNOWN)
            findings = _counted_as_unknown(findings, context, can_confirm=can_confirm)
    needs_samples = kind == "network" and any(
        rule.basis == "network" and after.of(rule.id).needs_samples for rule in RULES
    )
    is_undecided = not confirmed and (kind == "network" or context.offset_severity is Severity.CRITICAL)
    return Decision(
        listed(findings),
        severity,
        confirmed,
        is_undecided or needs_samples,
        tuple(_changes(context, before, after)),
        after,
    )


def _is_trusted(state: DebounceState, raised: Severity) -> bool:
    """Whether the raised severity holds against worse samples: OK while one of the last was good, others always."""
    # neither after two worse samples in a row of which one was in a grace period: such a sample never confirms anything
    if len(state.unconfirmed) > 1 and any(state.unconfirmed):
        return False
    return raised > Severity.OK or 0 in state.of(OFFSET_HIGH.id).samples


def _raised_severity(state: DebounceState, context: AuditContext) -> Severity:
    if state.of(OFFSET_OUT.id).raised:
        return Severity.CRITICAL
    is_insufficient = context.is_unguaranteed and state.of(SOURCE_QUORUM.id).raised >= _COUNTED
    return Severity.WARNING if is_insufficient or state.of(OFFSET_HIGH.id).raised else Severity.OK


def _is_raised(rule: HostRule, state: DebounceState) -> bool:
    """Whether a rule's finding is raised and no other finding covers it."""
    return state.of(rule.id).raised > 0 and not _is_covered(rule, state, state.counted)


def _is_covered(rule: HostRule, state: DebounceState, covering: Set[str]) -> bool:
    """Whether one of these findings covers a rule's: not while it is accepted or listed under one that is."""
    by = covering & set(rule.covered_by)
    return any({name, _cause(BY_ID[name], state)}.isdisjoint(state.accepted) for name in by)


def _rank_of_events(rule: HostRule, state: DebounceState) -> int:
    """Return the rank that events report: 0 while another finding covers this one, or it is listed under another."""
    return state.of(rule.id).raised if _is_raised(rule, state) and _cause(rule, state) is None else 0


def _is_pending(rule: HostRule, state: DebounceState) -> bool:
    """Whether a rule's finding is pending and no other finding covers it."""
    return state.of(rule.id).pending > 0 and not _is_covered(rule, state, state.expected)


def _cause(rule: HostRule, state: DebounceState) -> str | None:
    """Return the primary finding of this one; what is low, or only pending, needs none that counts."""
    if state.of(rule.id).has_own_cause:
        return None
    rank = state.of(rule.id).raised
    primaries = state.counted if rank >= _COUNTED else state.raised if rank else state.expected
    return cause_of(rule, primaries_of(rule, primaries, set(state.accepted)))


def _is_replaced(rule: HostRule, context: AuditContext, state: DebounceState) -> bool:
    """Whether a finding is better only because another one reports the same fact now."""
    return not state.expected.isdisjoint(rule.replaced_by(context))


def _counted_as_unknown(findings: Sequence[Finding], context: AuditContext, *, can_confirm: bool) -> list[Finding]:
    """Give the finding about an unconfirmed offset the severity unknown, so that every severity has a finding."""
    cause: HostRule = SOURCE_QUORUM
    if not context.is_unguaranteed:  # these rules compare the offset with a tolerance
        # there is one: OFFSET_HIGH is raised by every offset that is not ok
        cause = next(rule for rule in RULES if rule.has_hysteresis and rule.check(context) is not None)
    if all(finding.id != cause.id for finding in findings):  # samples in a grace period make nothing pending
        found = cause.check(context) or Raised("medium", "too few servers gave a usable reply")
        message = found.message + _unconfirmed(found.level, can_confirm=can_confirm)
        findings = [*findings, make_finding(cause, found._replace(level="low", message=message))]
    return [
        one._replace(severity=max(one.severity, Severity.UNKNOWN)) if one.id == cause.id else one for one in findings
    ]


def _listed(
    rule: HostRule, condition: ConditionState, context: AuditContext, *, is_replaced: bool, can_confirm: bool
) -> Finding:
    """Make the finding of what is raised or pending; its severity is unknown if it can never be confirmed."""
    level = LEVELS[condition.raised - 1] if condition.raised else "low"
    overdue = _overdue(rule, condition, context)
    if not condition.pending:
        improving = "" if is_replaced else _improving(rule, condition)
        message = (_in_the_past(condition.message) if improving else condition.message) + improving + overdue
        return make_finding(rule, Raised(level, message, remedy=condition.remedy, numbers=condition.numbers))
    total = len(condition.samples)
    samples = " (1 sample)" if total == 1 else f" ({condition.agreeing} of {total} samples)"
    when = _when(rule, condition, context.observation.taken.boottime_ns)
    pending = _unconfirmed(LEVELS[condition.pending - 1], samples, when, can_confirm=can_confirm)
    message, remedy = condition.pending_message + pending + overdue, condition.pending_remedy
    numbers = condition.pending_numbers
    if condition.raised:
        both = message if condition.message == condition.pending_message else f"{condition.message}; {message}"
        message, remedy, numbers = both, condition.remedy, condition.numbers
    listed = make_finding(rule, Raised(level, message, remedy=remedy, numbers=numbers))
    return listed if can_confirm else listed._replace(severity=max(listed.severity, Severity.UNKNOWN))


def _when(rule: HostRule, condition: ConditionState, now_ns: int) -> str:
    since_ns = condition.since_ns[condition.pending - 1]
    left_s = rule.least_s - (0.0 if since_ns is None else (now_ns - since_ns) / NS_PER_S)
    if left_s <= 0:
        return _IF_CONFIRMED
    left = format_duration(left_s, rounding="up")
    return f"{_IF_CONFIRMED}, and in {left} at the earliest" if condition.needs_samples else f"in {left} if it persists"


def _unconfirmed(level: Level, samples: str = "", when: str = _IF_CONFIRMED, *, can_confirm: bool) -> str:
    """Say why a finding is not raised, and its level if it were."""
    if can_confirm:
        return f". Pending{samples}: raised as {level} {when}"
    return f". Cannot be confirmed, because this run keeps no state; would be {level}{samples}"


def _improving(rule: HostRule, condition: ConditionState) -> str:
    """Count the last samples that are better than what is raised, because the reader may see them beside it."""
    better = next((count for count, rank in enumerate(reversed(condition.samples)) if rank >= condition.raised), 0)
    if not better:
        return ""
    wanted = f"below {100 * HYSTERESIS:g} % of the tolerance" if rule.has_hysteresis else "that are better"
    return f". Improving: cleared after {MAJORITY} samples in a row {wanted}, or {_TWO_APART} ({better} so far)"


def _in_the_past(message: str) -> str:
    """Write a message about the clock as of the samples that raised it: a later one shows another offset."""
    return re.sub(r"\b(the (?:clock|verdict|oscillator)) is\b", r"\1 was", message).replace(
        " may be ", " may have been "
    )


def _overdue(rule: HostRule, condition: ConditionState, context: AuditContext) -> str:
    """Say when the offset was last measured, if nothing was proven since (R1, R5): only servers clear a finding.

    And when servers were silent, if not all were queried since.
    """
    if not (condition.raised and condition.is_overdue):
        return ""
    last_ns = condition.sampled_ns
    ago_ns = None if last_ns is None else context.observation.taken.boottime_ns - last_ns
    if not rule.is_of_offset:
        when = "before this boot" if ago_ns is None else f"at {format_utc(context.utc_ns - ago_ns)[11:19]}Z"
        return f". That was {when}: not all servers were queried since"
    ago = "before this boot" if ago_ns is None else f"{format_duration(ago_ns / NS_PER_S)} ago"
    return f". Last measured {ago}: the replies since then prove no offset, so this stays raised"


def _changes(context: AuditContext, before: DebounceState, after: DebounceState) -> Iterator[tuple[Finding, bool]]:
    """Yield what was raised or cleared, and what is raised as before and was accepted, or is so no longer."""
    for rule in RULES:
        old, new = before.of(rule.id), after.of(rule.id)
        if not (old.raised or new.raised):
            continue
        old_rank, new_rank = _rank_of_events(rule, before), _rank_of_events(rule, after)
        was_accepted, is_accepted = rule.id in before.accepted, rule.id in after.accepted
        is_decided = bool(old_rank and new_rank) and was_accepted is not is_accepted
        if not is_decided and (rule.has_own_events or old_rank == new_rank):
            continue
        last = new if new_rank else old
        message = last.message if new_rank else _cleared(rule, context, after, last)
        if is_decided and was_accepted:
            message = f"no longer accepted: {message}"
        raised = Raised(LEVELS[(new_rank or old_rank) - 1], message, remedy=last.remedy, numbers=last.numbers)
        yield make_finding(rule, raised).accept(context.accepted.get(rule.id)), new_rank > 0


def _cleared(rule: HostRule, context: AuditContext, after: DebounceState, last: ConditionState) -> str:
    """Say why a finding has ended, and what it reported."""
    is_raised = after.of(rule.id).raised > 0
    covering = rule.covered_by if is_raised else rule.replaced_by(context)
    by = next((other for other in covering if other in after.counted), None)
    if by is not None:
        return f"replaced by {by}: {last.message}"
    if is_raised and not last.has_own_cause and (cause := _cause(rule, after)) is not None:
        return f"now listed under {cause}: {last.message}"
    return f"no longer true: {_in_the_past(last.message)}"

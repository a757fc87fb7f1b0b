"""No alarm from one bad sample, and no silence either: findings raised and cleared over time (INTEGRITY §1.5)."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ntpaudit.core.checks.finding import Finding, Level
from ntpaudit.core.checks.host import RULES, AuditContext, Raised, Rule, make_finding, worst_first
from ntpaudit.core.policy import Profile, Severity
from ntpaudit.core.record import Kind
from ntpaudit.core.units import NS_PER_S, format_duration

SAMPLES = 5
MAJORITY = 3
"""So many of the last `SAMPLES` have to say it (k of n); so many in a row, that it is over."""

DWELL_S = 600.0
"""Two in a row suffice if they lie so far apart: where servers are asked seldom, nobody should wait for three."""

HYSTERESIS = 0.7
"""An alarm is cleared below this share of its tolerance."""

BOOT_GRACE_NS = 600 * NS_PER_S
"""So long after the boot nothing is raised about the offset: the time daemon may be on its way."""

PATIENCE_NS = 1800 * NS_PER_S
"""For so long nothing is raised about the offset because the clock is being corrected just then."""

OFFSET = "offset-high"
"""The rule that the offset is worse than ok: by it, and by `offset-out`, the severity of the offset is judged."""

LEVELS: tuple[Level, ...] = ("low", "medium", "high", "critical")
"""By their ranks, which begin with 1; rank 0 is a condition in order."""

_COUNTED = 2  # the rank from which a finding counts: a low one is listed only
_JUDGED_BY_TOLERANCE = frozenset({"offset-out", "not-demonstrable", OFFSET})
_ABOUT_OFFSET = _JUDGED_BY_TOLERANCE | {"tz-or-rtc-fault", "breach-forecast"}
_TOLD_BY_ITSELF = frozenset({"step-back", "step-forward"})  # each step is an event, at its own moment


class ConditionState(NamedTuple):
    """One condition over time, in ranks.

    `seen` is what its last samples said, newest last. `since_ns` tells for each rank from 1 on at which uptime the
    first sample came that was so bad, since `MAJORITY` in a row were not. `raised` is the rank that holds, and
    `better_ns` the uptime of the first of the samples that have been below it since. `message` is what was said of
    what is raised, `suspicion` what the last sample said where that was worse. `heard_ns` is the uptime of the last
    sample of an offset that is raised, None where that was before this boot; `is_overdue` says that servers have been
    queried since, and what they replied was no sample.
    """

    samples: tuple[int, ...] = ()
    since_ns: tuple[int | None, ...] = (None,) * len(LEVELS)
    raised: int = 0
    better_ns: int | None = None
    message: str = ""
    pending_message: str = ""
    heard_ns: int | None = None
    is_overdue: bool = False

    @property
    def pending(self) -> int:
        """The rank that the last sample said and that it takes more to raise; 0 if there is none that would count."""
        last = self.samples[-1] if self.samples else 0
        return last if last > self.raised and last >= _COUNTED else 0


class DebounceState(NamedTuple):
    """Every watched condition by its id. `correcting_ns` is the uptime since when the clock is being corrected.

    `doubted` has an entry for each of the last samples in a row that said worse of the offset than is raised: whether
    it was spared, and so not heard.
    """

    conditions: Mapping[str, ConditionState] = MappingProxyType({})
    correcting_ns: int | None = None
    unconfirmed: tuple[bool, ...] = ()


class Decision(NamedTuple):
    """What holds by now: the findings to list, how bad it is, and what was raised (True) or cleared just now.

    `confirmed` is False while the offset is worse than `severity` says; `is_pending` while asking servers would decide.
    """

    findings: tuple[Finding, ...]
    severity: Severity
    confirmed: bool
    is_pending: bool
    changes: tuple[tuple[Finding, bool], ...]
    state: DebounceState


_NEW = ConditionState()


def judge(
    context: AuditContext,
    alarms: DebounceState,
    kind: Kind,
    *,
    is_sample: bool,
    is_correcting: bool = False,
    is_continued: bool = True,
    can_confirm: bool = True,
) -> Decision:
    """Hear one more case. A local audit carries the last sample on, which says nothing new of servers or offset.

    `is_sample` says that servers gave a measurement; `is_correcting` that the clock moves towards the truth just now;
    `is_continued` that its offset was known until then. `can_confirm` is False where the alarms that are returned
    cannot be kept: no later audit will know of this sample, so what it says counts as unknown at once.
    """
    now_ns = context.observation.taken.boottime_ns
    correcting_ns = _correcting_ns(alarms.correcting_ns, now_ns, is_correcting) if is_sample else alarms.correcting_ns
    is_spared = now_ns < BOOT_GRACE_NS or (correcting_ns is not None and now_ns - correcting_ns < PATIENCE_NS)
    strict = context._replace(profile=_scaled(context.profile, HYSTERESIS))
    watched = {rule.id: alarms.conditions.get(rule.id, _NEW) for rule in RULES}
    if is_sample and not is_continued:  # that it was in order was said of a clock that was lost sight of
        watched[OFFSET] = watched[OFFSET]._replace(samples=tuple(filter(None, watched[OFFSET].samples)))
    for rule in RULES:
        before, said = watched[rule.id], rule.check(context)
        if rule.basis == "moment":
            watched[rule.id] = _NEW if said is None else ConditionState(raised=_rank(said), message=said[1])
        elif _is_judged(rule, said, context, kind, is_sample):
            held = before.raised and rule.id in _JUDGED_BY_TOLERANCE and _rank(rule.check(strict))
            rank = max(_rank(said), held)
            if not (is_spared and rank > before.raised and rule.id in _ABOUT_OFFSET):
                heard = _update(before, rank, now_ns, rule.least_s, said[1] if said else "")
                is_dated = heard.raised and rule.id in _ABOUT_OFFSET  # the others never become overdue
                watched[rule.id] = heard._replace(heard_ns=now_ns) if is_dated else heard
        elif kind == "network" and before.raised and rule.id in _ABOUT_OFFSET:
            watched[rule.id] = before._replace(is_overdue=True)
    after = DebounceState(watched, correcting_ns, alarms.unconfirmed)
    if is_sample:
        is_doubted = context.offset_severity > _severity_told(after, context)
        after = after._replace(unconfirmed=(*after.unconfirmed, is_spared)[-SAMPLES:] if is_doubted else ())
    return _judgement(context, alarms, after, kind, can_confirm=can_confirm)


def of_new_boot(alarms: DebounceState) -> DebounceState:
    """Take alarms over into another boot: what is raised stays so, and no uptime of the old one counts as dwelt."""
    watched = {
        name: entry._replace(since_ns=(None,) * len(LEVELS), better_ns=None, heard_ns=None)
        for name, entry in alarms.conditions.items()
    }
    return alarms._replace(conditions=watched, correcting_ns=None)


def _correcting_ns(since_ns: int | None, now_ns: int, is_correcting: bool) -> int | None:
    """Return since when the clock is being corrected, None if it is not. Uptime starts anew with each boot."""
    if not is_correcting:
        return None
    return now_ns if since_ns is None else min(since_ns, now_ns)


def _is_judged(rule: Rule, said: Raised, context: AuditContext, kind: Kind, is_sample: bool) -> bool:
    """Whether this audit can tell of a rule's condition at all: it says nothing of servers that were not asked."""
    if rule.id == "time-disputed":  # of which each answer of the database is one sample
        date = context.history.database if context.history else None
        if date is None:  # for a day, since a suspend, or since the start: nothing disputes the servers' time any more
            return True
        return context.disputed_ns is not None and date.is_new
    if rule.basis == "host" or kind == "local":
        return rule.basis == "host"
    if rule.id in _ABOUT_OFFSET:
        return is_sample and not context.is_unguaranteed
    resting = {classified.reason for classified in context.selection.sources if classified.status == "skipped"}
    match rule.id:
        case "source-quorum":
            is_outvoted = context.history is not None and context.history.contradiction is not None
            is_insufficient = not context.selection.is_sufficient
            is_complete = "interval" not in resting
            return is_outvoted or (bool(context.selection.usable) and (is_complete or is_insufficient))
        case "no-usable-source":
            return bool(context.selection.asked)
        case "unreachable-sources":
            return said is not None or resting.isdisjoint(("interval", "unanswered"))
    return True


def _rank(said: Raised) -> int:
    """Return the rank of what a check said."""
    return 0 if said is None else LEVELS.index(said[0]) + 1


def _update(watched: ConditionState, rank: int, now_ns: int, least_s: float, said: str) -> ConditionState:
    """Add a sample to a condition, and raise, lower or clear it."""
    seen = (*watched.samples, rank)[-SAMPLES:]
    if not (watched.raised or any(seen)):
        return ConditionState(seen)
    since_ns = tuple(
        _since_ns(then_ns, [one >= level for one in seen], now_ns) for level, then_ns in enumerate(watched.since_ns, 1)
    )
    confirmed = [
        level
        for level in range(watched.raised + 1, rank + 1)
        if _is_confirmed([one >= level for one in seen], since_ns[level - 1], now_ns, least_s)
    ]
    raised = max(confirmed, default=watched.raised)
    better_ns = None if rank >= watched.raised else min(watched.better_ns or now_ns, now_ns)
    if better_ns is not None and _is_over([one < watched.raised for one in seen], better_ns, now_ns):
        raised, better_ns = rank, None
    is_said = said and (rank == raised or raised > watched.raised)
    message = said if is_said else watched.message
    return ConditionState(seen, since_ns, raised, better_ns, message, said * (rank > raised))


def _since_ns(then_ns: int | None, holds: Sequence[bool], now_ns: int) -> int | None:
    """Return since when a condition holds, but for one or two samples in a row. Uptime starts anew with each boot."""
    if not any(holds[-MAJORITY:]):
        return None
    return now_ns if then_ns is None else min(then_ns, now_ns)


def _is_confirmed(holds: Sequence[bool], since_ns: int | None, now_ns: int, least_s: float) -> bool:
    """Enough samples say so, the last among them, and for long enough."""
    lasted_s = 0.0 if since_ns is None else (now_ns - since_ns) / NS_PER_S
    is_twice = holds[-2:] == [True, True] and lasted_s >= DWELL_S
    return (is_twice or sum(holds) >= MAJORITY) and lasted_s >= least_s


def _is_over(better: Sequence[bool], better_ns: int, now_ns: int) -> bool:
    """Enough samples in a row say that it is better: three, or two that lie far apart."""
    return all(better[-MAJORITY:]) or (all(better[-2:]) and now_ns - better_ns >= DWELL_S * NS_PER_S)


def _judgement(
    context: AuditContext, before: DebounceState, after: DebounceState, kind: Kind, *, can_confirm: bool
) -> Decision:
    """Draw the sum of all that is watched."""
    entries = [(rule, after.conditions.get(rule.id, _NEW)) for rule in RULES]
    listed = [(rule, entry) for rule, entry in entries if _level(rule, after) or _is_suspected(rule, after)]
    now_ns = context.observation.taken.boottime_ns
    findings = [_listed(rule, entry, now_ns, can_confirm=can_confirm) for rule, entry in listed]
    severity = max((finding.severity for finding in findings), default=Severity.OK)
    confirmed = True
    if context.selection.agreement is None:
        severity = max(severity, Severity.UNKNOWN)
    else:
        told = _severity_told(after, context)
        confirmed = context.offset_severity <= told
        if confirmed or (can_confirm and _is_trusted(after, told)):
            severity = max(severity, told)
        else:
            severity = max(severity, Severity.UNKNOWN)
            findings = _counted_as_unknown(findings, context, can_confirm=can_confirm)
    is_wanting = any(rule.basis == "network" and _is_wanting(entry) for rule, entry in entries)
    is_doubtful = not confirmed and (kind == "network" or context.offset_severity is Severity.CRITICAL)
    return Decision(
        worst_first(findings),
        severity,
        confirmed,
        is_doubtful or (kind == "network" and is_wanting),
        tuple(_changes(before, after)),
        after,
    )


def _is_trusted(alarms: DebounceState, told: Severity) -> bool:
    """Whether what was told of the offset stands against a sample that says worse, until more of them are heard.

    It does against one. Samples that are spared are never heard: then a second in a row leaves the clock unknown.
    """
    if len(alarms.unconfirmed) > 1 and any(alarms.unconfirmed):
        return False
    return told > Severity.OK or 0 in alarms.conditions.get(OFFSET, _NEW).samples


def _severity_told(alarms: DebounceState, context: AuditContext) -> Severity:
    """Return how bad the offset is by what has been raised of it."""
    if alarms.conditions.get("offset-out", _NEW).raised:
        return Severity.CRITICAL
    is_insufficient = context.is_unguaranteed and alarms.conditions.get("source-quorum", _NEW).raised >= _COUNTED
    return Severity.WARNING if is_insufficient or alarms.conditions.get(OFFSET, _NEW).raised else Severity.OK


def _level(rule: Rule, alarms: DebounceState) -> int:
    """Return the rank at which a rule's finding is raised and listed, 0 while another one covers it."""
    is_covered = any(alarms.conditions.get(other, _NEW).raised >= _COUNTED for other in rule.covered_by)
    return 0 if is_covered else alarms.conditions.get(rule.id, _NEW).raised


def _is_suspected(rule: Rule, alarms: DebounceState) -> bool:
    """Whether a rule's finding awaits confirmation, and no other one says as much."""
    covering = [alarms.conditions.get(other, _NEW) for other in rule.covered_by]
    is_covered = any(max(entry.raised, entry.pending) >= _COUNTED for entry in covering)
    return alarms.conditions.get(rule.id, _NEW).pending > 0 and not is_covered


def _counted_as_unknown(findings: Sequence[Finding], context: AuditContext, *, can_confirm: bool) -> list[Finding]:
    """Let the finding about an offset that is not confirmed count as unknown, so that no severity is without one.

    Samples that are spared, after a start or while the clock is corrected, raise no suspicion: theirs is added here.
    """
    cause = next(
        rule for rule in RULES if rule.id in _JUDGED_BY_TOLERANCE | {"source-quorum"} and _is_cause(rule, context)
    )
    if all(finding.id != cause.id for finding in findings):
        level, message = cause.check(context) or ("medium", "too few servers gave a usable reply")
        findings = [
            *findings,
            make_finding(cause, ("low", f"{message} {_unconfirmed(level, can_confirm=can_confirm)}")),
        ]
    return [
        one._replace(severity=max(one.severity, Severity.UNKNOWN)) if one.id == cause.id else one for one in findings
    ]


def _is_cause(rule: Rule, context: AuditContext) -> bool:
    """Whether it is this rule by which the offset is worse than ok."""
    return context.is_unguaranteed if rule.id == "source-quorum" else rule.check(context) is not None


def _is_wanting(watched: ConditionState) -> bool:
    """More samples would decide, and not only time."""
    return watched.pending > 0 and sum(rank >= watched.pending for rank in watched.samples) < MAJORITY


def _listed(rule: Rule, watched: ConditionState, now_ns: int, *, can_confirm: bool) -> Finding:
    """List what is raised, and what is suspected without counting it; as unknown where it can never be confirmed."""
    raised = LEVELS[watched.raised - 1] if watched.raised else "low"
    if not watched.pending:
        return make_finding(rule, (raised, watched.message + _improving(watched) + _overdue(watched, now_ns)))
    count = sum(rank >= watched.pending for rank in watched.samples)
    seen = (
        "; seen once" if len(watched.samples) == 1 else f"; seen in {count} of the last {len(watched.samples)} samples"
    )
    suspected = f"{watched.pending_message} {_unconfirmed(LEVELS[watched.pending - 1], seen, can_confirm=can_confirm)}"
    suspected += _overdue(watched, now_ns)
    listed = make_finding(rule, (raised, f"{watched.message}; {suspected}" if watched.raised else suspected))
    return listed if can_confirm else listed._replace(severity=max(listed.severity, Severity.UNKNOWN))


def _unconfirmed(level: Level, seen: str = "", *, can_confirm: bool) -> str:
    """Say why a finding is not raised, and how bad it would be."""
    why = "waiting for confirmation by later audits" if can_confirm else "cannot be confirmed: this run keeps no state"
    return f"({why}; would be {level}{seen})"


def _improving(watched: ConditionState) -> str:
    """Say how many of the last samples contradict what is still raised: they may stand beside it on a screen."""
    better = next((count for count, rank in enumerate(reversed(watched.samples)) if rank >= watched.raised), 0)
    if not better:
        return ""
    said = "sample is" if better == 1 else f"{better} samples are"
    return f" (the last {said} better; cleared after {MAJORITY} in a row)"


def _overdue(watched: ConditionState, now_ns: int) -> str:
    """Say of what is raised when the offset was measured last, where nothing could be proven since (R1, R5).

    That the clock is right again by what is carried forward ends nothing: only servers prove it. The last sample need
    not have proven what is raised: it may have been better already.
    """
    if not (watched.raised and watched.is_overdue):
        return ""
    ago = (
        "before this boot"
        if watched.heard_ns is None
        else f"{format_duration((now_ns - watched.heard_ns) / NS_PER_S)} ago"
    )
    return f" (last measured {ago}; no reply since then proves anything new, so this stays raised)"


def _changes(before: DebounceState, after: DebounceState) -> Iterator[tuple[Finding, bool]]:
    """Yield what was raised, given another level or cleared between two states."""
    for rule in RULES:
        old, new = before.conditions.get(rule.id, _NEW), after.conditions.get(rule.id, _NEW)
        old_level, new_level = _level(rule, before), _level(rule, after)
        if rule.id in _TOLD_BY_ITSELF or old_level == new_level:
            continue
        last = new if new_level else old
        yield make_finding(rule, (LEVELS[(new_level or old_level) - 1], last.message)), new_level > 0


def _scaled(profile: Profile, share: float) -> Profile:
    """Return the profile with its tolerances scaled."""
    return profile._replace(warning_s=profile.warning_s * share, critical_s=profile.critical_s * share)

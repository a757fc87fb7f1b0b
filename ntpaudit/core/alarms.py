"""No alarm from one bad sample, and no silence either: findings raised and cleared over time (INTEGRITY §1.5)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ntpaudit.core.checks import RULES, Case, Rule, make_finding, worst_first
from ntpaudit.core.findings import Finding, Level
from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.core.policy import Profile, Severity
from ntpaudit.core.record import Kind

SAMPLES = 5
MAJORITY = 3
"""So many of the last `SAMPLES` have to say it (k of n)."""

DWELL_S = 600.0
"""Two in a row suffice if they lie so far apart: where servers are asked seldom, nobody should wait for three."""

HYSTERESIS = 0.7
"""An alarm is cleared below this share of its tolerance."""

BOOT_GRACE_NS = 600 * NS_PER_S
"""So long after the boot nothing is raised about the offset: the time daemon may be on its way."""

MAX_PATIENCE = 10
"""How many samples in a row may be passed over because the clock is being corrected just now."""

OFFSET = "offset"
"""The watched condition that the offset is beyond the warning tolerance; it has no finding of its own."""

_ABOUT_OFFSET = frozenset({OFFSET, "offset-out", "not-demonstrable", "tz-or-rtc-fault", "breach-forecast"})
_TOLD_BY_ITSELF = frozenset({"step-back", "step-forward"})  # each step is an event, at its own moment


class Watched(NamedTuple):
    """One condition over time: what its last samples said, newest last, and whether it is raised.

    `since_ns` is the uptime at which the first of those samples that said so was taken. `level` and `message` are what
    was said of it last.
    """

    seen: tuple[bool, ...] = ()
    since_ns: int | None = None
    raised: bool = False
    level: Level = "low"
    message: str = ""


class Alarms(NamedTuple):
    """Every watched condition by its id. `passed_over` counts the samples in a row that `MAX_PATIENCE` is about."""

    watched: Mapping[str, Watched] = MappingProxyType({})
    passed_over: int = 0


class Judgement(NamedTuple):
    """What holds by now: the findings to list, how bad it is, and what was raised (True) or cleared just now.

    `confirmed` is False while the offset is worse than `severity` says; `is_pending` while more samples would decide.
    """

    findings: tuple[Finding, ...]
    severity: Severity
    confirmed: bool
    is_pending: bool
    changes: tuple[tuple[Finding, bool], ...]
    alarms: Alarms


def judge(case: Case, alarms: Alarms, kind: Kind, *, is_sample: bool, is_correcting: bool) -> Judgement:
    """Hear one more case. A local audit carries the last sample on, which says nothing new of servers or offset.

    `is_sample` says that servers gave a measurement; `is_correcting` that the clock moves towards the truth just now.
    """
    now_ns = case.observation.taken.boottime_ns
    patient = is_correcting and alarms.passed_over < MAX_PATIENCE
    watched = dict(alarms.watched)
    strict = case._replace(profile=_scaled(case, HYSTERESIS))

    def hear(name: str, holds: bool, rule: Rule | None, said: tuple[Level, str] | None) -> None:
        before = watched.get(name, Watched())
        if name in _ABOUT_OFFSET and not before.raised and holds and (patient or now_ns < BOOT_GRACE_NS):
            return
        after = _hear(before, holds, now_ns, rule.least_s if rule else 0.0)
        watched[name] = after if said is None else after._replace(level=said[0], message=said[1])

    for rule in RULES:
        before = watched.get(rule.id, Watched())
        said = rule.check(case) or (rule.check(strict) if before.raised else None)
        if rule.basis == "moment":
            watched[rule.id] = Watched((), None, said is not None, *(said or ("low", "")))
        elif rule.basis == "host" or (kind == "network" and (is_sample or rule.id not in _ABOUT_OFFSET)):
            hear(rule.id, said is not None, rule, said)
    if is_sample:
        raised = watched.get(OFFSET, Watched()).raised
        hear(OFFSET, (strict if raised else case).offset_severity > Severity.OK, None, None)
    passed_over = (alarms.passed_over + 1 if patient else 0) if is_sample else alarms.passed_over
    return _judgement(case, alarms, Alarms(watched, passed_over))


def _judgement(case: Case, before: Alarms, after: Alarms) -> Judgement:
    """Draw the sum of all that is watched."""
    pending = {rule.id: entry for rule in RULES if _is_pending(entry := after.watched.get(rule.id, Watched()))}
    raised = {rule.id: entry for rule in RULES if (entry := after.watched.get(rule.id, Watched())).raised}
    findings = [
        make_finding(rule, (raised[rule.id].level, raised[rule.id].message)) for rule in RULES if rule.id in raised
    ]
    listed = [_unconfirmed(rule, pending[rule.id]) for rule in RULES if rule.id in pending]
    offset = after.watched.get(OFFSET, Watched())
    severity = max([Severity.OK, *(finding.severity for finding in findings)])
    confirmed = True
    if case.selection.agreement is None:
        severity = max(severity, Severity.UNKNOWN)
    elif offset.raised:
        severity = max(severity, Severity.WARNING)
    elif case.offset_severity > Severity.OK:
        confirmed = False
        if not any(not said for said in offset.seen):  # never seen in order: not ok, and not proven either
            severity = max(severity, Severity.UNKNOWN)
    return Judgement(
        worst_first([*findings, *(finding for finding in listed if finding.level != "low")]),
        severity,
        confirmed,
        not confirmed or any(_is_counted(finding) for finding in listed),
        tuple(_changes(before, after)),
        after,
    )


def _hear(watched: Watched, holds: bool, now_ns: int, least_s: float) -> Watched:
    """Add a sample to a condition, and raise or clear it."""
    seen = (*watched.seen, holds)[-SAMPLES:]
    if not holds and not any(seen):
        since_ns = None
    else:  # uptime starts anew with each boot
        since_ns = now_ns if watched.since_ns is None or watched.since_ns > now_ns else watched.since_ns
    lasted_s = 0.0 if since_ns is None else (now_ns - since_ns) / NS_PER_S
    twice = seen[-2:] == (True, True) and lasted_s >= max(least_s, DWELL_S)
    often = sum(seen) >= MAJORITY and lasted_s >= least_s
    cleared = len(seen) - sum(seen) >= MAJORITY or (seen[-2:] == (False, False) and len(seen) < MAJORITY)
    raised = not cleared if watched.raised else holds and (twice or often)
    return watched._replace(seen=seen, since_ns=since_ns, raised=raised)


def _is_pending(watched: Watched) -> bool:
    """The last sample said so, and it takes more to raise it."""
    return not watched.raised and watched.seen[-1:] == (True,)


def _is_counted(finding: Finding) -> bool:
    """Once raised, this finding would count."""
    return finding.level != "low"


def _unconfirmed(rule: Rule, watched: Watched) -> Finding:
    """List what is not raised yet, without counting it."""
    finding = make_finding(rule, (watched.level, watched.message))
    count = f"seen in {sum(watched.seen)} of the last {len(watched.seen)} samples, not confirmed yet"
    return finding._replace(severity=Severity.OK, message=f"{finding.message} ({count})")


def _changes(before: Alarms, after: Alarms) -> list[tuple[Finding, bool]]:
    """Return what was raised, made worse or cleared between two states."""
    changes = []
    for rule in RULES:
        old, new = before.watched.get(rule.id, Watched()), after.watched.get(rule.id, Watched())
        if rule.id in _TOLD_BY_ITSELF:
            continue
        finding = make_finding(rule, (new.level, new.message) if new.raised else (old.level, old.message))
        worse = new.raised and old.raised and finding.severity > make_finding(rule, (old.level, "")).severity
        if (new.raised and not old.raised) or worse:
            changes.append((finding, True))
        elif old.raised and not new.raised:
            changes.append((finding, False))
    return changes


def _scaled(case: Case, share: float) -> Profile:
    """Return the profile with its tolerances scaled."""
    profile = case.profile
    return profile._replace(warning_s=profile.warning_s * share, critical_s=profile.critical_s * share)

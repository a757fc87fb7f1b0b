"""Findings about the evidence: missing, undelivered, or contradicted by an earlier measurement or another clock."""

from collections.abc import Mapping
from typing import Any

from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.controls import ATTACK_IMPAIR, AU8, ISO, NIS2, PCI, PCI_FAILURES, SC45, SOC2
from ntpaudit.core.checks.rule import Level, Raised, Rule
from ntpaudit.core.checks.sources import FIX_SPLIT, NO_USABLE_SOURCE, REASONS_PAGE, SOURCE_QUORUM, UNREACHABLE_SOURCES
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import DAY_S, NS_PER_S, format_duration, format_offset, plural

GAP_INTERVALS = 3.3  # a gap is longer than this many polling intervals: three, and their jitter (NTPA-07)
MANY_REFUSALS = 3  # after this many refusals in a row, the database is assumed to refuse every write

_FIX_LOST = (
    "free disk space or raise history.max_size; check that the database accepts records (`sudo ntpaudit status`, line "
    "delivery)"
)
_FIX_NO_SERVER = "configure at least 4 servers"
_FIX_NO_ESTIMATE = (
    "wait for the next network audit (`sudo ntpaudit status` shows when it is due); `sudo ntpaudit check SERVER...` "
    "with servers of your own measures now"
)
_FIX_UNPROVEN = (
    f"the servers reply, and their replies prove no offset: repair what `{SOURCE_QUORUM.id}` names; the gap stays in "
    "the record"
)
_FIX_GAP_ENDED = (
    "no repair is needed, and the gap stays in the record; find out why there was no measurement (`sudo ntpaudit "
    "history --events`, `sudo journalctl -u ntpaudit`)"
)


def check_evidence_gap(context: AuditContext) -> Raised | None:
    """NTPA-07: no measurement for more than three intervals, or records were lost before delivery."""
    earlier = context.earlier
    if earlier.dropped_records:
        was = "was" if earlier.dropped_records == 1 else "were"
        return Raised(
            "high",
            f"{plural(earlier.dropped_records, 'record')} {was} lost before delivery: the history was full or "
            "could not be written",
            remedy=_FIX_LOST,
            numbers={"lost_records": earlier.dropped_records},
        )
    gap = earlier.gap
    if gap is None or gap.intervals <= GAP_INTERVALS:
        return None
    when = "before this one" if gap.has_ended else f"({round(gap.intervals, 1):g} polling intervals)"
    message = f"no measurement for {format_duration(gap.span_s)} {when}"
    level: Level = "high" if gap.span_s > DAY_S else "medium"
    numbers = {"gap_s": gap.span_s, "gap_in_polling_intervals": gap.intervals}
    remedy = _FIX_GAP_ENDED if gap.has_ended else _FIX_UNPROVEN if earlier.usable_servers else None
    return Raised(level, message, remedy=remedy, numbers=numbers)


def _has_own_cause(context: AuditContext) -> bool:
    """Whether something else than the silence of the servers made this gap, or may have: it has ended."""
    gap = context.earlier.gap
    return bool(context.earlier.dropped_records) or (gap is not None and gap.has_ended)


EVIDENCE_GAP = Rule(
    "evidence-gap",
    check_evidence_gap,
    "restore the path to the servers (UDP 123 outbound) or the agent; the gap stays in the record",
    (NIS2, PCI_FAILURES, SOC2),
    raised_when={
        "high": ("no measurement for more than a day", "records were lost before delivery"),
        "medium": ("no measurement for more than three polling intervals", "such a gap has just ended"),
    },
    meaning="Nothing proves how wrong the clock was in that time.",
    formula={
        "high": ("gap_s > 24 h and gap_in_polling_intervals > 3.3", "lost_records > 0"),
        "medium": ("gap_s <= 24 h and gap_in_polling_intervals > 3.3",) * 2,
    },
    techniques=(ATTACK_IMPAIR,),
    case_remedies={
        "records were lost before delivery": _FIX_LOST,
        "the gap has ended": _FIX_GAP_ENDED,
        "servers gave usable replies at the last poll": _FIX_UNPROVEN,
    },
    notes=(
        "A gap that was listed under another finding counts by itself when it has ended, until the next audit: that "
        "event has the duration of the whole gap."
    ),
    caused_by=(UNREACHABLE_SOURCES.id, NO_USABLE_SOURCE.id, SOURCE_QUORUM.id),
    has_own_cause=_has_own_cause,
    message_id="5bbeb38870d342bf84ace8ac21775a0d",
    basis="moment",
    needs_agent=True,
    value_s=lambda context: (
        context.earlier.gap.span_s if context.earlier.gap and not context.earlier.dropped_records else None
    ),
    acceptable="reports",
)


def check_unmeasured(context: AuditContext) -> Raised | None:
    """The offset is unknown: no usable measurement, no majority, and nothing to carry forward."""
    if context.selection.agreement is not None:
        return None
    if context.selection.usable:
        reason, remedy = "no majority of the servers agrees", FIX_SPLIT
    elif context.selection.sources:
        reason, remedy = "no server gave a usable measurement", None
    elif context.earlier.gap is None:  # a one-shot check
        reason, remedy = "there is no server to query", _FIX_NO_SERVER
    else:
        reason, remedy = "no earlier measurement can be carried forward", _FIX_NO_ESTIMATE
    numbers = {"agreeing_servers": 0}
    return Raised("medium", f"the offset is unknown: {reason}", remedy=remedy, numbers=numbers)


UNMEASURED = Rule(
    "unmeasured",
    check_unmeasured,
    f"check the status and reason of each server: {REASONS_PAGE} says what to do for each reason",
    (ISO, NIS2, SOC2),
    raised_when={"medium": "the verdict is `unmeasured`: the offset is unknown"},
    meaning="It is unknown whether the clock is right.",
    formula={"medium": "agreeing_servers < 1"},
    case_remedies={
        "no majority of the servers agrees": FIX_SPLIT,
        "no server was queried yet, and no earlier measurement can be carried forward": _FIX_NO_ESTIMATE,
        "no server is configured": _FIX_NO_SERVER,
    },
    notes="The severity is unknown.",
    message_id="8e909819441947b8a1da3ea58033ba57",
    basis="moment",
    covered_by=(SOURCE_QUORUM.id, NO_USABLE_SOURCE.id, UNREACHABLE_SOURCES.id, EVIDENCE_GAP.id),
    counts_as=Severity.UNKNOWN,
    acceptable="reports",
)


def check_delivery_refused(context: AuditContext) -> Raised | None:
    """The database refuses every write, so the fleet sees no new data of this host. The records are not the cause."""
    earlier = context.earlier
    if earlier.refusals < MANY_REFUSALS:
        return None
    last = f"; last error: {earlier.failure}" if earlier.failure else ""
    message = f"the database has refused {earlier.refusals} writes and accepted none{last}"
    return Raised("medium", message, numbers={"refused_writes": earlier.refusals})


DELIVERY_REFUSED = Rule(
    "delivery-refused",
    check_delivery_refused,
    "check influxdb.url, the token (restart the agent after you change it) and every proxy on the path to the "
    "database; records are stored until the database accepts them, at most up to history.max_size",
    (NIS2, PCI_FAILURES),
    raised_when={"medium": "the database has refused at least three writes and accepted none, for 10 minutes"},
    meaning="The fleet sees no new data of this host; the records wait here.",
    formula={"medium": "refused_writes >= 3"},
    message_id="0dac82f0e905477c981ca667e607b40f",
    basis="host",
    least_s=600.0,
    needs_agent=True,
)


def check_contradicts_earlier(context: AuditContext) -> Raised | None:
    """R6: more servers than may be wrong contradict the earlier measurement, carried forward."""
    contradiction = context.earlier.dropped_agreement
    if contradiction is None:
        return None
    verb = "contradicts" if contradiction.sources == 1 else "contradict"
    return Raised(
        "high",
        f"{plural(contradiction.sources, 'server')} {verb} the measurement made "
        f"{format_duration(contradiction.age_s)} before: the difference is at least "
        f"{format_duration(contradiction.gap_ns / NS_PER_S, rounding='down')}. Expected offset: "
        f"{_range(contradiction.expected)}; reported: {_range(contradiction.reported)}. "
        "The earlier measurement is discarded",
        numbers={
            "contradicting_servers": contradiction.sources,
            "distance_s": contradiction.gap_ns / NS_PER_S,
        },
    )


def _range(interval: Interval) -> str:
    earliest, latest = (format_offset(end_ns / NS_PER_S) for end_ns in interval)
    return f"about {earliest}" if earliest == latest else f"{earliest} to {latest}"


def _both_intervals(context: AuditContext) -> Mapping[str, Any]:
    contradiction = context.earlier.dropped_agreement
    if contradiction is None:
        return {}
    return {
        "expected_s": [end_ns / NS_PER_S for end_ns in contradiction.expected],
        "heard_s": [end_ns / NS_PER_S for end_ns in contradiction.reported],
    }


CONTRADICTS_EARLIER = Rule(
    "contradicts-earlier",
    check_contradicts_earlier,
    "run `ntpaudit check` with servers that do not depend on these; if they agree with the expected offset, these "
    "servers are wrong: replace them, first in the time daemon, which may follow them; if they agree with the reported "
    "offset, the clock or the machine jumped, or the oscillator drifts more than host.max_drift_ppm: find out what "
    "paused or set it (`journalctl`, the hypervisor), and check that the time daemon corrects the clock",
    (AU8, SC45),
    raised_when={"high": "more servers contradict the carried-forward measurement than may be wrong"},
    meaning="Servers or the host changed in a way that no drift explains: an earlier or the present offset is wrong.",
    formula={"high": "contradicting_servers > 0 and abs(distance_s) > 0 s"},
    notes=(
        "Possible causes: all servers changed together, CLOCK_MONOTONIC_RAW was disturbed (a paused virtual machine),"
        " or the oscillator drifts more than assumed. The message has both intervals and their distance, which is the"
        " event's value. The earlier measurement is discarded at once. The finding is listed for an hour."
    ),
    cleared="an hour later",
    message_id="a0849a205f2d4597ab6d588afb98bbea",
    basis="moment",
    needs_agent=True,
    value_s=lambda context: (
        context.earlier.dropped_agreement.gap_ns / NS_PER_S if context.earlier.dropped_agreement else None
    ),
    detail=_both_intervals,
)


def check_time_disputed(context: AuditContext) -> Raised | None:
    """The database's clock, which is independent of the servers, contradicts their time."""
    disputed_s = context.disputed_s
    if not disputed_s:
        return None
    way = "ahead of" if disputed_s > 0 else "behind"
    level: Level = "high" if abs(disputed_s) > context.profile.critical_s else "medium"
    return Raised(
        level,
        f"the time of the NTP servers is at least {format_duration(disputed_s, rounding='down')} {way} "
        "the database's clock: one of the two is wrong",
        numbers={"servers_minus_database_s": disputed_s, "critical_tolerance_s": context.profile.critical_s},
    )


TIME_DISPUTED = Rule(
    "time-disputed",
    check_time_disputed,
    "compare these servers with independent ones, and audit the clock of the database host",
    (ISO, PCI, SC45),
    raised_when={
        "high": "the database's clock contradicts the interval on which the servers agree by more than the critical "
        "tolerance",
        "medium": "the same, by less",
    },
    meaning="All servers may be wrong together: an independent clock contradicts them.",
    formula={
        "high": "abs(servers_minus_database_s) > critical_tolerance_s",
        "medium": "0 s < abs(servers_minus_database_s) <= critical_tolerance_s",
    },
    notes=(
        "The database's clock is the Date header of its reply to a write, within 2 s and the duration of the request."
    ),
    message_id="2d47e4ee908b42278a9305e63c656091",
    basis="database",
    # each reply of the database is one sample; without one, nothing disputes the servers' time
    has_sample=lambda context, _: (
        context.earlier.database is None or (context.disputed_s is not None and context.earlier.database.is_new)
    ),
    needs_agent=True,
    value_s=lambda context: context.disputed_s,
)

RULES = (EVIDENCE_GAP, UNMEASURED, DELIVERY_REFUSED, CONTRADICTS_EARLIER, TIME_DISPUTED)

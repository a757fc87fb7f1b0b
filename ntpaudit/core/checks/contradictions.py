"""Findings about statements that contradict the servers: an earlier measurement, the database's clock."""

from collections.abc import Mapping
from typing import Any

from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.finding import Level
from ntpaudit.core.checks.rule import AU8, ISO, PCI, SC45, Raised, Rule
from ntpaudit.core.units import NS_PER_S, format_duration, format_offset, plural


def check_contradicts_earlier(context: AuditContext) -> Raised | None:
    """R6: more servers than may be wrong contradict the earlier measurement, carried forward."""
    contradiction = context.past.dropped_agreement
    if contradiction is None:
        return None
    expected, reported, age_s = contradiction.expected, contradiction.reported, contradiction.age_s
    verb = "contradicts" if contradiction.sources == 1 else "contradict"
    return Raised(
        "high",
        f"{plural(contradiction.sources, 'server')} {verb} the measurement made {format_duration(age_s)} earlier by "
        f"at least {format_duration(contradiction.gap_ns / NS_PER_S, rounding='down')}. Expected offset: "
        f"{format_offset(expected.earliest_ns / NS_PER_S)} to {format_offset(expected.latest_ns / NS_PER_S)}; "
        f"reported: {format_offset(reported.earliest_ns / NS_PER_S)} to "
        f"{format_offset(reported.latest_ns / NS_PER_S)}. The earlier measurement is discarded",
    )


def _gap_s(context: AuditContext) -> float | None:
    contradiction = context.past.dropped_agreement
    return contradiction.gap_ns / NS_PER_S if contradiction else None


def _both_intervals(context: AuditContext) -> Mapping[str, Any]:
    contradiction = context.past.dropped_agreement
    if contradiction is None:
        return {}
    return {
        "expected_s": [end_ns / NS_PER_S for end_ns in contradiction.expected],
        "heard_s": [end_ns / NS_PER_S for end_ns in contradiction.reported],
    }


CONTRADICTS_EARLIER = Rule(
    "contradicts-earlier",
    check_contradicts_earlier,
    "check whether the virtual machine was paused, whether the servers share a wrong source, and whether the "
    "oscillator drifts more than host.max_drift_ppm",
    (AU8, SC45),
    raised_when={
        "high": (
            "servers contradict the earlier measurement, carried forward, and more of them than it allows to be wrong"
        ),
    },
    notes=(
        "Possible causes: all servers changed together, CLOCK_MONOTONIC_RAW was disturbed (a paused virtual machine),"
        " or the oscillator drifts more than assumed. The message has both intervals and their distance, which is the"
        " event's value. The earlier measurement is discarded at once. The finding is listed for an hour."
    ),
    message_id="a0849a205f2d4597ab6d588afb98bbea",
    basis="moment",
    needs_agent=True,
    value_s=_gap_s,
    detail=_both_intervals,
)


def check_time_disputed(context: AuditContext) -> Raised | None:
    """The database's clock, which is independent of the servers, contradicts their time."""
    disputed = context.disputed_ns
    if not disputed:
        return None
    way = "ahead of" if disputed > 0 else "behind"
    level: Level = "high" if abs(disputed) > context.profile.critical_s * NS_PER_S else "medium"
    return Raised(
        level,
        f"the time of the NTP servers is at least {format_duration(disputed / NS_PER_S, rounding='down')} {way} "
        "the database's clock: one of the two is wrong",
    )


def _has_new_date(context: AuditContext, _: Raised | None) -> bool:
    """Each reply of the database is one sample.

    Without a reply for a day, or since a suspend or the start, nothing disputes the servers' time.
    """
    date = context.past.database
    return date is None or (context.disputed_ns is not None and date.is_new)


def _disputed_s(context: AuditContext) -> float | None:
    return None if context.disputed_ns is None else context.disputed_ns / NS_PER_S


TIME_DISPUTED = Rule(
    "time-disputed",
    check_time_disputed,
    "compare these servers with independent ones, and audit the clock of the database host",
    (ISO, PCI, SC45),
    raised_when={
        "high": (
            "the database's clock contradicts the interval on which the servers agree by more than the critical "
            "tolerance"
        ),
        "medium": "the same, by less",
    },
    notes=(
        "The database's clock is the Date header of its reply to a write, within 2 s and the duration of the request."
    ),
    message_id="2d47e4ee908b42278a9305e63c656091",
    basis="database",
    has_sample=_has_new_date,
    needs_agent=True,
    value_s=_disputed_s,
)

RULES = (
    CONTRADICTS_EARLIER,
    TIME_DISPUTED,
)

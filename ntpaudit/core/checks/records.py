"""Findings about missing measurements and undelivered records."""

from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.finding import Level
from ntpaudit.core.checks.quorum import SOURCE_QUORUM
from ntpaudit.core.checks.rule import ISO, NIS2, Raised, Rule
from ntpaudit.core.checks.sources import NO_USABLE_SOURCE, UNREACHABLE_SOURCES
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import DAY_S, format_duration, plural

GAP_INTERVALS = 3.3
"""A gap is longer than this many polling intervals: three, and their jitter (NTPA-07)."""

MANY_REFUSALS = 3
"""A database that refused this many writes and accepted none is assumed to refuse every write."""


def check_evidence_gap(context: AuditContext) -> Raised | None:
    """NTPA-07: no measurement for more than three intervals, or records were lost before delivery."""
    history = context.past
    if history.dropped_records:
        was = "was" if history.dropped_records == 1 else "were"
        return Raised(
            "high",
            f"{plural(history.dropped_records, 'record')} {was} lost before delivery: the history was full, or "
            "could not be written when the agent was killed",
        )
    if history.ended_gap_s is not None and not history.lasted(history.ended_gap_s) <= GAP_INTERVALS:
        level: Level = "high" if history.ended_gap_s > DAY_S else "medium"
        return Raised(level, f"no measurement for {format_duration(history.ended_gap_s)} before this one")
    if history.unmeasured_s is None or history.lasted(history.unmeasured_s) <= GAP_INTERVALS:
        return None
    intervals = f"{history.lasted(history.unmeasured_s):.3g} polling intervals"  # each part by the interval valid then
    return Raised(
        "high" if history.unmeasured_s > DAY_S else "medium",
        f"no measurement for {format_duration(history.unmeasured_s)} ({intervals})",
    )


def _gap_s(context: AuditContext) -> float | None:
    history = context.past
    if history.dropped_records:
        return None
    return history.ended_gap_s if history.unmeasured_s is None else history.unmeasured_s


EVIDENCE_GAP = Rule(
    "evidence-gap",
    check_evidence_gap,
    "restore the path to the servers (UDP 123 outbound) or the agent; the gap stays in the record",
    (NIS2, "PCI DSS 10.7.3", "SOC 2 CC7"),
    raised_when={
        "high": ("no measurement for more than a day", "records were lost before delivery"),
        "medium": ("no measurement for more than three polling intervals", "such a gap has just ended"),
    },
    message_id="5bbeb38870d342bf84ace8ac21775a0d",
    basis="moment",
    needs_agent=True,
    value_s=_gap_s,
)


def check_unmeasured(context: AuditContext) -> Raised | None:
    """The offset is unknown: no usable measurement, no majority, and nothing to carry forward."""
    if context.selection.agreement is not None:
        return None
    if context.selection.usable:
        reason = "no majority of the sources agrees"
    elif context.selection.sources:
        reason = "no source gave a usable measurement"
    elif context.history is None:
        reason = "there is no server to query"
    else:
        reason = "no earlier measurement can be carried forward"
    return Raised("medium", f"the offset is unknown: {reason}")


UNMEASURED = Rule(
    "unmeasured",
    check_unmeasured,
    "if no source is listed, configure at least 4 servers; otherwise check the status and reason of each source",
    (ISO, NIS2, "SOC 2 CC7"),
    raised_when={
        "medium": "the verdict is `unmeasured`: the offset is unknown",
    },
    notes=(
        "The severity is unknown. Not listed while source-quorum, no-usable-source, unreachable-sources or "
        "evidence-gap is raised and counts."
    ),
    message_id="8e909819441947b8a1da3ea58033ba57",
    basis="moment",
    covered_by=(SOURCE_QUORUM.id, NO_USABLE_SOURCE.id, UNREACHABLE_SOURCES.id, EVIDENCE_GAP.id),
    counts_as=Severity.UNKNOWN,
)


def check_delivery_refused(context: AuditContext) -> Raised | None:
    """The database refuses every write, so the fleet sees no new data of this host. The records are not the cause."""
    history = context.past
    if history.refusals < MANY_REFUSALS:
        return None
    last = f"; last error: {history.failure}" if history.failure else ""
    return Raised("medium", f"the database has refused {history.refusals} writes and accepted none{last}")


DELIVERY_REFUSED = Rule(
    "delivery-refused",
    check_delivery_refused,
    "check influxdb.url, the token and every proxy on the path to the database; all records are kept until then",
    (NIS2, "PCI DSS 10.7.3"),
    raised_when={
        "medium": "the database has refused at least three writes and accepted none, for 10 minutes",
    },
    message_id="0dac82f0e905477c981ca667e607b40f",
    basis="host",
    least_s=600.0,
    needs_agent=True,
)

RULES = (
    EVIDENCE_GAP,
    UNMEASURED,
    DELIVERY_REFUSED,
)

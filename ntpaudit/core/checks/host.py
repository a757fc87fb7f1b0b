"""The rules about one host, and the findings of one audit."""

from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.contradictions import CONTRADICTS_EARLIER, TIME_DISPUTED
from ntpaudit.core.checks.daemons import DAEMON_COUNT, DAEMON_STALE, UNSYNCED
from ntpaudit.core.checks.finding import Finding
from ntpaudit.core.checks.offset import BREACH_FORECAST, NOT_DEMONSTRABLE, OFFSET_HIGH, OFFSET_OUT, TZ_OR_RTC_FAULT
from ntpaudit.core.checks.quorum import SOURCE_QUORUM
from ntpaudit.core.checks.records import DELIVERY_REFUSED, EVIDENCE_GAP, UNMEASURED
from ntpaudit.core.checks.rule import make_finding, worst_first
from ntpaudit.core.checks.sources import KISS_OF_DEATH, NO_USABLE_SOURCE, SUSPECTED_SPOOFING, UNREACHABLE_SOURCES
from ntpaudit.core.checks.steps import STEP_BACK, STEP_FORWARD
from ntpaudit.core.policy import Severity

RULES = (
    OFFSET_OUT,
    STEP_BACK,
    STEP_FORWARD,
    EVIDENCE_GAP,
    CONTRADICTS_EARLIER,
    DELIVERY_REFUSED,
    DAEMON_STALE,
    BREACH_FORECAST,
    NOT_DEMONSTRABLE,
    OFFSET_HIGH,
    UNMEASURED,
    NO_USABLE_SOURCE,
    SOURCE_QUORUM,
    TIME_DISPUTED,
    UNSYNCED,
    DAEMON_COUNT,
    TZ_OR_RTC_FAULT,
    UNREACHABLE_SOURCES,
    KISS_OF_DEATH,
    SUSPECTED_SPOOFING,
)
"""Findings of one level are listed in this order."""

BY_ID = {rule.id: rule for rule in RULES}


def findings_of(context: AuditContext) -> tuple[Finding, ...]:
    """Run every rule; return the findings, worst first, and those of one level in the order of `RULES`."""
    found = [(rule, make_finding(rule, raised)) for rule in RULES if (raised := rule.check(context)) is not None]
    counted = {finding.id for _, finding in found if finding.severity > Severity.OK}
    return worst_first(finding for rule, finding in found if counted.isdisjoint(rule.covered_by))

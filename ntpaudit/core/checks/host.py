"""The rules about one host, and the findings of one audit."""

from ntpaudit.core.checks import daemons, offset, records, sources, steps
from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.rule import Finding, make_finding, worst_first
from ntpaudit.core.policy import Severity

# Findings of one level are listed in this order.
RULES = (*offset.RULES, *steps.RULES, *records.RULES, *daemons.RULES, *sources.RULES)
BY_ID = {rule.id: rule for rule in RULES}


def findings_of(context: AuditContext) -> tuple[Finding, ...]:
    """Run every rule; return the findings, worst first, and those of one level in the order of `RULES`."""
    found = [(rule, make_finding(rule, raised)) for rule in RULES if (raised := rule.check(context)) is not None]
    counted = {finding.id for _, finding in found if finding.severity > Severity.OK}
    return worst_first(finding for rule, finding in found if counted.isdisjoint(rule.covered_by))

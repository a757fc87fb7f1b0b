"""The rules about one host, and the findings of one audit."""

from collections.abc import Iterable, Set

from ntpaudit.core.checks import (
    acceptances,
    approval,
    claims,
    daemons,
    ingest,
    offset,
    records,
    smear,
    sources,
    steps,
    tampering,
)
from ntpaudit.core.checks.context import AuditContext, HostRule
from ntpaudit.core.checks.rule import Finding, make_finding, worst_first
from ntpaudit.core.policy import Severity

# Findings of one level are listed in this order.
RULES = (
    *(*offset.RULES, *ingest.RULES, *steps.RULES, *tampering.RULES, *records.RULES, *daemons.RULES, *claims.RULES),
    *(*approval.RULES, *sources.RULES, *smear.RULES, *acceptances.RULES),
)
BY_ID = {rule.id: rule for rule in RULES}


def findings_of(context: AuditContext) -> tuple[Finding, ...]:
    """Run every rule; return the findings in the order of `listed`."""
    found = [(rule, make_finding(rule, raised)) for rule in RULES if (raised := rule.check(context)) is not None]
    counted = {finding.id for _, finding in found if finding.severity > Severity.OK}
    raised_ids, accepted = {finding.id for _, finding in found}, context.accepted
    placed = []
    for rule, one in found:
        primaries = primaries_of(rule, counted if one.severity else raised_ids, accepted.keys())
        placed.append((rule, one.under(None if rule.has_own_cause(context) else cause_of(rule, primaries))))
    # what does not count covers nothing: `unmeasured` is listed if the finding that would cover it is accepted
    covering = counted.difference(one.id for _, one in placed if one.id in accepted or one.cause in accepted)
    return listed(one.accept(accepted.get(one.id)) for rule, one in placed if covering.isdisjoint(rule.covered_by))


def primaries_of(rule: HostRule, primaries: Set[str], accepted: Set[str]) -> Set[str]:
    """Return what a rule's finding may be listed under: one that no host can accept, under no accepted one (X3)."""
    return primaries - accepted if rule.acceptable == "reports" else primaries


def cause_of(rule: HostRule, primaries: Set[str]) -> str | None:
    """Return the finding of `primaries` that this rule's is listed under: if it counts, they must be those that do."""
    for primary in rule.caused_by:
        if primary in primaries:
            return cause_of(BY_ID[primary], primaries) or primary
    return None


def listed(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings by level, those of one level in the order of `RULES`; each is followed by those listed under it."""
    ordered = worst_first(findings)
    return tuple(one for primary in ordered if not primary.cause for one in (primary, *_related(primary, ordered)))


def _related(primary: Finding, findings: Iterable[Finding]) -> Iterable[Finding]:
    return (finding for finding in findings if finding.cause == primary.id)

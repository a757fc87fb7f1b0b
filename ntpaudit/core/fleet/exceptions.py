"""What is accepted for the hosts of a report (`--exceptions`), and how severe they are without it (X1, X3)."""

from collections.abc import Iterable, Mapping

from ntpaudit.core.acceptance import Accepted, accepted_at
from ntpaudit.core.checks.host import RULES
from ntpaudit.core.checks.records import EVIDENCE_GAP, TIME_DISPUTED, UNMEASURED
from ntpaudit.core.fleet.model import Alarm, FleetFinding, FleetPolicy, HostStatus
from ntpaudit.core.fleet.severity import offset_verdict
from ntpaudit.core.policy import Severity

_OF_OFFSET = frozenset(rule.id for rule in RULES if rule.acceptable == "reports")
"""Findings that state that the clock is wrong, or that nothing proves it right."""

_UNKNOWN = _OF_OFFSET.intersection((UNMEASURED.id, *UNMEASURED.covered_by))
"""Those of them that state that the offset is unknown."""


def accepted_for(policy: FleetPolicy, host: str, site: str | None, now_ns: int) -> dict[str, Accepted]:
    """Return what is accepted for a host at a time, by the ids of findings."""
    return accepted_at((one.acceptance for one in policy.exceptions if one.is_of(host, site)), now_ns)


def with_exceptions(one: HostStatus, policy: FleetPolicy, now_ns: int) -> HostStatus:
    """Return a host with what is accepted for it, and the severity that it has without that."""
    exceptions = accepted_for(policy, one.name, one.site, now_ns)
    if not exceptions:
        return one
    alarms = tuple(_accept(alarm, exceptions.get(alarm.kind)) for alarm in one.alarms)
    severity = _severity(one, alarms, exceptions, policy)
    return one._replace(severity=min(severity, one.severity), alarms=alarms, exceptions=exceptions)


def _accept(alarm: Alarm, exception: Accepted | None) -> Alarm:
    if exception is None:
        return alarm
    return alarm._replace(severity=Severity.OK, is_accepted=True, exception=exception)


def _severity(
    one: HostStatus, alarms: Iterable[Alarm], exceptions: Mapping[str, Accepted], policy: FleetPolicy
) -> Severity:
    """Return the severity of a host without what is accepted; what no finding explains counts as before."""
    left = max((alarm.severity for alarm in alarms), default=Severity.OK)
    if one.host is None or one.silent_s is not None:
        return left if EVIDENCE_GAP.id in exceptions else Severity.UNKNOWN
    if one.disputed_s and TIME_DISPUTED.id not in exceptions:
        left = max(left, Severity.WARNING)
    verdict, proved = offset_verdict(one.host, policy)
    if not one.host.is_confirmed and verdict != "unmeasured":
        proved = one.host.severity  # while an agent waits for confirmation, its severity counts
    accepted = {alarm.kind: alarm.severity for alarm in one.alarms if alarm.kind in exceptions}
    reported = max([proved, *(alarm.severity for alarm in one.alarms)])
    if one.host.severity > reported:
        return one.host.severity
    is_unknown = verdict == "unmeasured" and (UNMEASURED.id in exceptions or not _UNKNOWN.isdisjoint(accepted))
    is_accepted = any(kind in _OF_OFFSET and severity >= proved for kind, severity in accepted.items())
    return left if is_unknown or is_accepted else max(left, proved)


def accept(
    findings: Iterable[FleetFinding], members: Mapping[str, HostStatus], policy: FleetPolicy, now_ns: int
) -> tuple[FleetFinding, ...]:
    """Return the findings of a fleet, accepted where that holds for all hosts of one, or for its site if it has none.

    Of several acceptances the one that ends first counts.
    """
    return tuple(_accepted(finding, members, policy, now_ns) for finding in findings)


def _accepted(
    finding: FleetFinding, members: Mapping[str, HostStatus], policy: FleetPolicy, now_ns: int
) -> FleetFinding:
    held = [members[name].exceptions for name in finding.hosts if name in members]
    if not finding.hosts:
        held = [accepted_for(policy, "", finding.site, now_ns)]
    found = [exceptions.get(finding.id) for exceptions in held]
    if not found or None in found or len(found) < len(finding.hosts):
        return finding
    first = min((one for one in found if one is not None), key=lambda one: one.until)
    return finding._replace(severity=Severity.OK, accepted=first)

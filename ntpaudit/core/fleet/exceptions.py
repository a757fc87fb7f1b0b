"""What is accepted for the hosts of a report (`--exceptions`), and how severe they are without it (X1, X3)."""

from collections.abc import Iterable, Mapping

from ntpaudit.core.acceptance import Accepted, accepted_at
from ntpaudit.core.checks.offset import NOT_DEMONSTRABLE, OFFSET_HIGH, OFFSET_OUT
from ntpaudit.core.checks.records import EVIDENCE_GAP, TIME_DISPUTED, UNMEASURED
from ntpaudit.core.checks.sources import NO_USABLE_SOURCE, SOURCE_QUORUM
from ntpaudit.core.fleet.model import Alarm, FleetFinding, FleetPolicy, HostStatus
from ntpaudit.core.fleet.severity import offset_verdict
from ntpaudit.core.policy import Severity, Verdict

_FINDINGS: Mapping[Verdict, frozenset[str]] = {
    "within": frozenset({OFFSET_HIGH.id}),
    "unproven": frozenset({OFFSET_HIGH.id, NOT_DEMONSTRABLE.id, SOURCE_QUORUM.id}),
    "beyond": frozenset({OFFSET_OUT.id}),
    "unmeasured": frozenset({UNMEASURED.id, SOURCE_QUORUM.id, NO_USABLE_SOURCE.id, EVIDENCE_GAP.id}),
}
"""The findings by which an agent states each verdict, where it counts."""


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
    if one.host.severity > max([proved, *(alarm.severity for alarm in one.alarms)]):
        return one.host.severity
    accepted = {alarm.kind for alarm in one.alarms if alarm.kind in exceptions}
    if verdict == "unmeasured":  # its agent does not raise `unmeasured` beside a finding that covers it
        accepted |= exceptions.keys() & {UNMEASURED.id}
    return max(left, proved) if accepted.isdisjoint(_FINDINGS[verdict]) else left


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

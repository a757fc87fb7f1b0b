"""The hosts of a fleet (reporting, silent, expired, or only in the inventory), their sites, and the coverage."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Any, TypeVar

from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.fleet.exceptions import with_exceptions
from ntpaudit.core.fleet.model import (
    STEP_S,
    Alarm,
    Coverage,
    FleetPolicy,
    Host,
    HostStatus,
    Offset,
    Snapshot,
    max_error_s,
)
from ntpaudit.core.fleet.severity import disputed_s, latest_arrival_ns, offset_verdict
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S

_Placed = TypeVar("_Placed", bound=Any)  # has a `site`, None if unknown


def build_members(snapshot: Snapshot, policy: FleetPolicy) -> tuple[tuple[HostStatus, ...], tuple[str, ...]]:
    """Return the hosts that count, worst first, and the names of those that report but are not in the inventory."""
    alarms = _alarms(snapshot)
    listed = None if policy.inventory is None else frozenset(policy.inventory)
    members: list[HostStatus] = []
    unlisted: list[str] = []
    for host in snapshot.hosts:
        silent_s = (snapshot.now_ns - latest_arrival_ns(host, snapshot)) / NS_PER_S
        reports = silent_s <= policy.silent_after_s
        if listed is not None and host.name not in listed:
            if not reports:
                continue  # it is retired
            unlisted.append(host.name)
        site, raised = _site_of(host, policy), alarms.get(host.name, ())
        if reports:
            known, severity, contradicted, wrong_s = _evaluate(host, snapshot, policy)
            member = HostStatus(host.name, site, severity, known, None, raised, (), silent_s, contradicted, wrong_s)
        else:
            member = HostStatus(host.name, site, Severity.UNKNOWN, host, silent_s, raised, (), silent_s)
        members.append(member)
    members += _silent_members(snapshot, policy, alarms)
    if policy.exceptions:
        members = [with_exceptions(one, policy, snapshot.now_ns) for one in members]
    members.sort(key=lambda one: (*rank(one), -max_error_s(one.offset) if one.offset else 0.0, one.name))
    return tuple(members), tuple(sorted(unlisted))


def _evaluate(host: Host, snapshot: Snapshot, policy: FleetPolicy) -> tuple[Host, Severity, Severity | None, float]:
    """Return a host that reports, the worse of its severity and what its interval proves, what that contradicts."""
    verdict, proved = offset_verdict(host, policy)
    # the agent's severity also counts while it waits for confirmation
    is_believed = proved <= host.severity or (not host.is_confirmed and verdict != "unmeasured")
    contradicted, severity = (None, host.severity) if is_believed else (host.severity, proved)
    wrong_s = disputed_s(host, snapshot.now_ns)
    if wrong_s:
        severity = max(severity, Severity.WARNING)
    claims_less = host.verdict == "unproven" and host.severity > Severity.OK  # too few servers replied (R1)
    is_unproven = claims_less and (verdict == "within" or (verdict == "beyond" and not host.is_confirmed))
    if verdict != host.verdict and not is_unproven:
        host = host._replace(verdict=verdict, offset=None if verdict == "unmeasured" else host.offset)
    return host, severity, contradicted, wrong_s


def filter_site(snapshot: Snapshot, policy: FleetPolicy, site: str) -> tuple[Snapshot, FleetPolicy]:
    """Return the part of the snapshot and policy for one site, with hosts that only the inventory places there."""
    # a name that several machines share, one of them at the site
    shared = {duplicate.name for duplicate in snapshot.duplicate_hosts if site in duplicate.sites}
    hosts = tuple(
        host._replace(site=site) if host.name in shared else host
        for host in snapshot.hosts
        if host.name in shared or _site_of(host, policy) == site
    )
    names = {host.name for host in hosts}
    elsewhere = {host.name for host in snapshot.hosts} - names
    here = names | {name for name, its_site in _sites(snapshot, policy).items() if its_site == site} - elsewhere
    return snapshot._replace(
        hosts=hosts,
        alarms=tuple(alarm for alarm in snapshot.alarms if alarm.host in names),
        falseticker_reports=tuple(one for one in snapshot.falseticker_reports if one.host in names),
        expired=tuple(name for name in snapshot.expired if name in here),
        duplicate_hosts=tuple(duplicate for duplicate in snapshot.duplicate_hosts if duplicate.name in names),
    ), policy._replace(
        inventory=None if policy.inventory is None else tuple(name for name in policy.inventory if name in here)
    )


def measured(members: Iterable[HostStatus]) -> Iterator[tuple[HostStatus, Host, Offset]]:
    """Yield the hosts that report and have an offset."""
    for one in members:
        host = one.host
        if host is not None and host.offset is not None and one.silent_s is None:
            yield one, host, host.offset


def cover(members: Iterable[HostStatus]) -> Coverage:
    """Count hosts by the number of agreeing sources."""
    every = tuple(members)
    agreeing = [host.agreeing for _, host, _ in measured(every)]
    by_two, by_three = (sum(count >= least for count in agreeing) for least in (2, 3))
    return Coverage(len(every), len(agreeing), by_two, by_three)


def count(members: Iterable[HostStatus]) -> tuple[int, int, int, int]:
    """Count members by severity."""
    counts = Counter(one.severity for one in members)
    return counts[Severity.OK], counts[Severity.WARNING], counts[Severity.UNKNOWN], counts[Severity.CRITICAL]


def by_site(placed: Iterable[_Placed]) -> list[tuple[str | None, list[_Placed]]]:
    """Group by site, in the order of the site names; those without a site come last."""
    groups: defaultdict[str | None, list[_Placed]] = defaultdict(list)
    for one in placed:
        groups[one.site].append(one)
    return sorted(groups.items(), key=lambda group: (group[0] is None, group[0] or ""))


def namesake(name: str, others: Iterable[str]) -> str | None:
    """Return the one other name that differs only in case or domain; None if there is none, or several."""
    short = _short(name)
    found = [other for other in others if _short(other) == short]
    return found[0] if len(found) == 1 else None


def _short(name: str) -> str:
    """Return a host name in lower case without its domain; an address stays whole."""
    small = name.casefold().rstrip(".")
    first, _, _ = small.partition(".")
    return small if not first or first.isdecimal() or ":" in small else first


def _silent_members(
    snapshot: Snapshot, policy: FleetPolicy, alarms: Mapping[str, tuple[Alarm, ...]]
) -> Iterator[HostStatus]:
    """Yield the hosts without a point: expired, or listed but never reported."""
    expired, sites = frozenset(snapshot.expired), _sites(snapshot, policy)
    expected = expired if policy.inventory is None else frozenset(policy.inventory)
    for name in expected.difference(host.name for host in snapshot.hosts):
        silent_s = snapshot.look_back_s if name in expired else inf
        yield HostStatus(name, sites.get(name), Severity.UNKNOWN, None, silent_s, alarms.get(name, ()))


def _sites(snapshot: Snapshot, policy: FleetPolicy) -> dict[str, str]:
    """Return the sites of hosts without a point, by the database, else by the inventory."""
    return {**policy.sites, **snapshot.sites}


def _site_of(host: Host, policy: FleetPolicy) -> str | None:
    """Return the site in a host's point, else in the inventory."""
    return host.site if host.site is not None else policy.sites.get(host.name)


def rank(one: HostStatus) -> tuple[int, float, bool]:
    """Return the first sort key of members: severity, silence, suspected."""
    return -one.severity, -(one.silent_s or 0.0), not one.suspected


def _alarms(snapshot: Snapshot) -> dict[str, tuple[Alarm, ...]]:
    """Group the raised alarms by host, worst first; a step counts for `STEP_S`."""
    found: defaultdict[str, list[Alarm]] = defaultdict(list)
    for alarm in snapshot.alarms:
        if alarm.kind not in STEP_KINDS or snapshot.now_ns - alarm.since_ns <= STEP_S * NS_PER_S:
            found[alarm.host].append(alarm)

    def urgency(alarm: Alarm) -> tuple[int, str, int, float]:
        return -alarm.severity, alarm.kind, alarm.since_ns, -inf if alarm.value_s is None else alarm.value_s

    return {host: tuple(sorted(own, key=urgency)) for host, own in found.items()}

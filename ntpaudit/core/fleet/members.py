"""Who belongs to a fleet: hosts that report, are silent, forgotten or listed; where they stand; their coverage."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Protocol, TypeVar

from ntpaudit.core.fleet.model import (
    STEP_KINDS,
    STEP_S,
    Alarm,
    Coverage,
    FleetPolicy,
    Host,
    HostStatus,
    Offset,
    Snapshot,
)
from ntpaudit.core.fleet.severity import disputed_s, offset_verdict, seen_ns
from ntpaudit.core.policy import Severity, Verdict
from ntpaudit.core.units import NS_PER_S


class Placed(Protocol):
    """What stands at a site, or nobody knows where."""

    @property
    def site(self) -> str | None:
        """The name of the site."""


_Placed = TypeVar("_Placed", bound=Placed)


def build_members(snapshot: Snapshot, policy: FleetPolicy) -> tuple[tuple[HostStatus, ...], tuple[str, ...]]:
    """Return the hosts that count, worst first, and the names of those that report and that no inventory lists.

    A silent host that the inventory does not list is retired; nobody waits for it.
    """
    alarms = _alarms(snapshot)
    listed = None if policy.inventory is None else frozenset(policy.inventory)
    members: list[HostStatus] = []
    strangers: list[str] = []
    for host in snapshot.hosts:
        silent_s = (snapshot.now_ns - seen_ns(host, snapshot)) / NS_PER_S
        reports = silent_s <= policy.silent_after_s
        if listed is not None and host.name not in listed:
            if not reports:
                continue
            strangers.append(host.name)
        raised = alarms.get(host.name, ())
        if reports:
            members.append(_reporting(host, snapshot, policy, raised)._replace(seen_s=silent_s))
        else:
            members.append(
                HostStatus(host.name, _place(host, policy), Severity.UNKNOWN, host, silent_s, raised, seen_s=silent_s)
            )
    members += _silent_members(snapshot, policy, alarms)
    return tuple(sorted(members, key=_severity_key)), tuple(sorted(strangers))


def _is_unproven(host: Host, verdict: Verdict) -> bool:
    """Whether a host says that its interval proves nothing, for want of replies (R1), and warns by itself."""
    claims_less = host.verdict == "unproven" and host.severity > Severity.OK
    return claims_less and (verdict == "within" or (verdict == "beyond" and not host.is_confirmed))


def _reporting(host: Host, snapshot: Snapshot, terms: FleetPolicy, raised: tuple[Alarm, ...]) -> HostStatus:
    """Return a host that reports, judged anew: by the worse of what it says and of what its interval proves.

    What is not confirmed yet is left to its agent. A clock that the database's contradicts is never ok.
    """
    verdict, proved = offset_verdict(host, terms)
    is_believed = proved <= host.severity or (not host.is_confirmed and verdict != "unmeasured")
    contradicted, severity = (None, host.severity) if is_believed else (host.severity, proved)
    wrong_s = disputed_s(host, snapshot.now_ns)
    if wrong_s:
        severity = max(severity, Severity.WARNING)
    if verdict != host.verdict and not _is_unproven(host, verdict):
        host = host._replace(verdict=verdict, offset=None if verdict == "unmeasured" else host.offset)
    return HostStatus(
        host.name,
        _place(host, terms),
        severity,
        host,
        alarms=raised,
        contradicted=contradicted,
        disputed_s=wrong_s,
    )


def filter_site(snapshot: Snapshot, policy: FleetPolicy, site: str) -> tuple[Snapshot, FleetPolicy]:
    """Return what is about one site alone. A host that never reported is there if the inventory says so.

    So is the worst of several machines of one name of which one is there, wherever it is.
    """
    shared = {duplicate.name for duplicate in snapshot.duplicate_hosts if site in duplicate.sites}
    hosts = tuple(
        host._replace(site=site) if host.name in shared else host
        for host in snapshot.hosts
        if host.name in shared or _place(host, policy) == site
    )
    names = {host.name for host in hosts}
    elsewhere = {host.name for host in snapshot.hosts} - names
    here = names | {name for name, place in _sites(snapshot, policy).items() if place == site} - elsewhere
    return snapshot._replace(
        hosts=hosts,
        alarms=tuple(alarm for alarm in snapshot.alarms if alarm.host in names),
        falseticker_reports=tuple(lie for lie in snapshot.falseticker_reports if lie.host in names),
        expired=tuple(name for name in snapshot.expired if name in here),
        duplicate_hosts=tuple(duplicate for duplicate in snapshot.duplicate_hosts if duplicate.name in names),
    ), policy._replace(
        inventory=None if policy.inventory is None else tuple(name for name in policy.inventory if name in here)
    )


def measured(members: Iterable[HostStatus]) -> Iterator[tuple[HostStatus, Host, Offset]]:
    """Yield the hosts that report and have an offset."""
    for one in members:
        if one.silent_s is None and (host := one.host) is not None and host.offset is not None:
            yield one, host, host.offset


def cover(members: Iterable[HostStatus]) -> Coverage:
    """Count hosts, and how well they are measured."""
    every = tuple(members)
    agreeing = [_agreeing(host) for _, host, _ in measured(every)]
    return Coverage(
        len(every), len(agreeing), sum(count >= 2 for count in agreeing), sum(count >= 3 for count in agreeing)
    )


def is_covered(one: HostStatus) -> bool:
    """Whether a host is measured now, by two sources or more."""
    return one.silent_s is None and one.host is not None and one.host.offset is not None and _agreeing(one.host) >= 2


def count(members: Iterable[HostStatus]) -> tuple[int, int, int, int]:
    """Count members by severity."""
    counts = [0, 0, 0, 0]
    for one in members:
        counts[one.severity] += 1
    ok, warning, unknown, critical = counts
    return ok, warning, unknown, critical


def by_site(placed: Iterable[_Placed]) -> list[tuple[str | None, list[_Placed]]]:
    """Group things by site in the order of its name; those without one come last."""
    groups: defaultdict[str | None, list[_Placed]] = defaultdict(list)
    for one in placed:
        groups[one.site].append(one)
    return sorted(groups.items(), key=lambda group: (group[0] is None, group[0] or ""))


def namesake(name: str, others: Iterable[str]) -> str | None:
    """Return the only one of others that is the same name but for its case and its domain; None of none or several."""
    short = _short(name)
    found = [other for other in others if _short(other) == short]
    return found[0] if len(found) == 1 else None


def _short(name: str) -> str:
    """Return a host's name without its domain, in small letters; an address stays whole."""
    small = name.casefold().rstrip(".")
    first, _, _ = small.partition(".")
    return small if not first or first.isdecimal() or ":" in small else first


def _silent_members(
    snapshot: Snapshot, terms: FleetPolicy, alarms: Mapping[str, tuple[Alarm, ...]]
) -> Iterator[HostStatus]:
    """Yield the hosts without a point: forgotten, and listed in vain."""
    forgotten, places = frozenset(snapshot.expired), _sites(snapshot, terms)
    due = forgotten if terms.inventory is None else frozenset(terms.inventory)
    for name in due.difference(host.name for host in snapshot.hosts):
        silent_s = snapshot.look_back_s if name in forgotten else inf
        yield HostStatus(name, places.get(name), Severity.UNKNOWN, None, silent_s, alarms.get(name, ()))


def _sites(snapshot: Snapshot, terms: FleetPolicy) -> dict[str, str]:
    """Return where hosts stand of which there is no point, by the database's word, else by the inventory's."""
    return {**terms.sites, **snapshot.sites}


def _place(host: Host, terms: FleetPolicy) -> str | None:
    """Return where a host stands, by its own word, else by the inventory's."""
    return host.site if host.site is not None else terms.sites.get(host.name)


def rank(one: HostStatus) -> tuple[int, float, bool]:
    """Return by what members are sorted first: how bad, how long silent, and if suspected."""
    return -one.severity, -(one.silent_s or 0.0), not one.suspected


def _severity_key(one: HostStatus) -> tuple[tuple[int, float, bool], float, str]:
    """Return by what members are sorted: that, then how wrong at most, and by name."""
    offset = one.host.offset if one.host is not None else None
    worst_s = 0.0 if offset is None else max(-offset.earliest_s, offset.latest_s)
    return rank(one), -worst_s, one.name


def _alarms(snapshot: Snapshot) -> dict[str, tuple[Alarm, ...]]:
    """Group the alarms that are in force by their host, the worst first."""
    found: defaultdict[str, list[Alarm]] = defaultdict(list)
    for alarm in snapshot.alarms:
        if alarm.kind not in STEP_KINDS or snapshot.now_ns - alarm.since_ns <= STEP_S * NS_PER_S:
            found[alarm.host].append(alarm)
    return {host: tuple(sorted(own, key=_urgency)) for host, own in found.items()}


def _urgency(alarm: Alarm) -> tuple[int, str, int, float]:
    """Return by what the alarms of a host are sorted: how bad, which, since when, how much."""
    return -alarm.severity, alarm.kind, alarm.since_ns, -inf if alarm.value_s is None else alarm.value_s


def _agreeing(host: Host) -> int:
    """Count the usable sources that the others do not contradict."""
    return host.usable - host.falsetickers

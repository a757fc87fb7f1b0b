"""Judge a fleet by its rules. They compare intervals; no rule claims more than these prove."""

from collections import defaultdict
from collections.abc import Iterable

from ntpaudit.core.checks.rule import make_finding, worst_first
from ntpaudit.core.fleet import acceptances, approval, disputes, missing, ordering_risk, shifts
from ntpaudit.core.fleet.clock_shift import compare, moved_sites
from ntpaudit.core.fleet.context import FleetContext
from ntpaudit.core.fleet.exceptions import accept
from ntpaudit.core.fleet.members import build_members, by_site, count, cover, rank
from ntpaudit.core.fleet.model import Fleet, FleetFinding, FleetPolicy, HostStatus, Site, Snapshot
from ntpaudit.core.fleet.ordering import as_of, group_of
from ntpaudit.core.fleet.shifts import SITE_MOVED_SHARE
from ntpaudit.core.policy import Severity

RULES = (*disputes.RULES, *ordering_risk.RULES, *shifts.RULES, *approval.RULES, *missing.RULES, *acceptances.RULES)
"""Findings of one level are listed in this order."""


def judge_fleet(snapshot: Snapshot, policy: FleetPolicy) -> Fleet:
    """Judge a fleet: hosts and findings come worst first. The order of the input does not matter."""
    members, unlisted = build_members(snapshot, policy)
    groups = {site: group_of(hosts) for site, hosts in by_site(as_of(members, snapshot.now_ns))}
    compared = compare(snapshot, members)
    site_shifts = dict(moved_sites(compared, SITE_MOVED_SHARE * policy.warning_s))
    others = frozenset(unlisted)
    expected = [one for one in members if one.name not in others]
    coverage = cover(expected)
    context = FleetContext(snapshot, policy, members, unlisted, expected, coverage, groups, compared, site_shifts)
    sites = tuple(
        Site(site, count(hosts), groups[site].ambiguity if site in groups else None) for site, hosts in by_site(members)
    )
    extremes = [one for group in groups.values() for one in group.extremes]
    whole = Site(None, count(members), group_of(extremes).ambiguity)
    unlisted_count = None if policy.inventory is None else len(unlisted)
    findings = worst_first(
        FleetFinding(*make_finding(rule, raised)[:6], raised.site, raised.source, raised.hosts, raised.value_s)
        for rule in RULES
        for raised in rule.check(context)
    )
    if policy.exceptions:
        findings = accept(findings, {one.name: one for one in members}, policy, snapshot.now_ns)
    return Fleet(snapshot.now_ns, _suspect(members, findings), findings, coverage, sites, whole, unlisted_count)


def _suspect(members: tuple[HostStatus, ...], findings: Iterable[FleetFinding]) -> tuple[HostStatus, ...]:
    """Mark the hosts whose clocks the findings make doubtful, and put them before others of the same severity."""
    doubting = frozenset(rule.id for rule in RULES if rule.is_of_each)
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for finding in findings:
        if finding.id in doubting and finding.severity > Severity.OK:
            for name in finding.hosts:
                found[name][finding.id] = None
    marked = (one._replace(suspected=tuple(found[one.name])) if one.name in found else one for one in members)
    return tuple(sorted(marked, key=rank))  # a stable sort

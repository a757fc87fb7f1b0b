"""Findings that a report accepts for some hosts: what no longer counts, what still does, and when that ends."""

from itertools import product
from typing import Any

import pytest

from ntpaudit.core.acceptance import Acceptance, HostAcceptance
from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import Alarm, Fleet, FleetPolicy, Host, HostStatus
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S, format_utc
from tests.core.fleets import NOW_NS, found, host, snapshot

OK, WARNING, UNKNOWN, CRITICAL = Severity.OK, Severity.WARNING, Severity.UNKNOWN, Severity.CRITICAL
LATER_NS = NOW_NS + 86_400 * NS_PER_S


def accepting(
    *findings: str, host: str | None = "web1", site: str | None = None, until_ns: int | None = LATER_NS
) -> FleetPolicy:
    """Return limits by which these findings are accepted for some hosts."""
    accepted = (Acceptance(one, "clock is replaced", "ops, ticket 1234", until_ns) for one in findings)
    return FleetPolicy(exceptions=tuple(HostAcceptance(one, host, site) for one in accepted))


def alarm(kind: str, severity: Severity, name: str = "web1", *, is_accepted: bool = False) -> Alarm:
    """Return a finding that a host raised ten minutes ago."""
    return Alarm(name, kind, severity, NOW_NS - 600 * NS_PER_S, None, is_accepted)


def judged(one: Host, *alarms: Alarm, policy: FleetPolicy) -> HostStatus:
    """Judge a fleet of one host."""
    (member,) = judge_fleet(snapshot(one, alarms=alarms), policy).members
    return member


WRONG = host("web1", 5.0, severity=CRITICAL)._replace(verdict="beyond")
NEAR = host("web1", 0.2, severity=WARNING)
LOOSE = host("web1", 0.0, 3.0, severity=WARNING)._replace(verdict="unproven")
UNMEASURED = host("web1", None, severity=UNKNOWN)
DRIFTING = host("web1", severity=WARNING)
OUT, HIGH, UNSYNCED = alarm("offset-out", CRITICAL), alarm("offset-high", WARNING), alarm("unsynced", WARNING)
LOST, SILENCE = alarm("unmeasured", UNKNOWN), alarm("unreachable-sources", WARNING)
VAGUE, GAP = alarm("not-demonstrable", WARNING), alarm("evidence-gap", WARNING)


@pytest.mark.parametrize(
    ("one", "alarms", "accepted", "severity"),
    [
        (DRIFTING, (UNSYNCED,), ("unsynced",), OK),
        (DRIFTING, (UNSYNCED,), ("daemon-count",), WARNING),
        (DRIFTING, (UNSYNCED, GAP), ("unsynced",), WARNING),
        (DRIFTING, (UNSYNCED, GAP), ("unsynced", "evidence-gap"), OK),
        (WRONG, (OUT,), ("offset-out",), OK),
        (WRONG, (OUT, UNSYNCED), ("offset-out",), WARNING),
        (WRONG, (OUT, UNSYNCED), ("unsynced",), CRITICAL),
        (WRONG, (HIGH,), ("offset-high", "offset-out"), CRITICAL),  # its agent has not raised offset-out
        (WRONG._replace(severity=WARNING), (HIGH,), ("offset-high",), CRITICAL),  # the interval proves it
        (WRONG, (), ("offset-out",), CRITICAL),
        (NEAR, (HIGH,), ("offset-high",), OK),
        (NEAR, (HIGH,), ("offset-out",), WARNING),
        (LOOSE, (VAGUE,), ("not-demonstrable",), OK),
        (LOOSE, (VAGUE,), ("unsynced",), WARNING),
        # what is accepted about a gap says nothing about the offset
        (NEAR, (GAP,), ("evidence-gap", "offset-high"), WARNING),
        (LOOSE, (GAP,), ("evidence-gap", "not-demonstrable"), WARNING),
        (WRONG, (LOST,), ("unmeasured", "offset-out"), CRITICAL),
        (UNMEASURED, (LOST,), ("unmeasured",), OK),
        (UNMEASURED, (SILENCE,), ("unreachable-sources",), UNKNOWN),  # as on the host: it does not hide the offset
        (UNMEASURED, (SILENCE,), ("unmeasured",), WARNING),
        (UNMEASURED, (SILENCE,), ("unreachable-sources", "unmeasured"), OK),
        (UNMEASURED, (GAP,), ("evidence-gap",), OK),
        # what its agent reports, and no raised finding explains
        (DRIFTING._replace(severity=CRITICAL), (UNSYNCED,), ("unsynced",), CRITICAL),
        (DRIFTING._replace(severity=UNKNOWN), (UNSYNCED,), ("unsynced",), UNKNOWN),
        # an offset that waits for confirmation is not an unknown one
        (WRONG._replace(severity=UNKNOWN, is_confirmed=False), (), ("unmeasured",), UNKNOWN),
        (DRIFTING._replace(disputed_s=5.0), (UNSYNCED,), ("unsynced",), WARNING),
        (DRIFTING._replace(disputed_s=5.0), (UNSYNCED,), ("unsynced", "time-disputed"), OK),
        (host("web1"), (alarm("unsynced", OK, is_accepted=True),), ("unsynced",), OK),
    ],
)
def test_what_is_accepted_does_not_count_and_all_else_does(
    one: Host, alarms: tuple[Alarm, ...], accepted: tuple[str, ...], severity: Severity
) -> None:
    """The severity is that of the other findings, of the interval, and of what nothing explains."""
    member = judged(one, *alarms, policy=accepting(*accepted))
    assert member.severity is severity
    for raised in member.alarms:
        assert (raised.exception is not None) is (raised.kind in accepted)
        assert raised.is_accepted is (raised.kind in accepted)
        assert raised.severity is OK or not raised.is_accepted


@pytest.mark.parametrize(
    ("one", "accepted"),
    [
        *product(
            (WRONG, NEAR, LOOSE, UNMEASURED, DRIFTING, host("web1"), host("web1", severity=WARNING, ago_s=5000)),
            ((), ("offset-out",), ("unmeasured",), ("unsynced", "evidence-gap")),
        )
    ],
)
def test_an_exception_never_makes_a_host_worse(one: Host, accepted: tuple[str, ...]) -> None:
    """Whatever is raised."""
    alarms = (OUT, HIGH, UNSYNCED, LOST)
    assert (
        judged(one, *alarms, policy=accepting(*accepted)).severity
        <= judged(one, *alarms, policy=FleetPolicy()).severity
    )


@pytest.mark.parametrize(
    ("named", "is_of"),
    [
        ({"host": "web1"}, True),
        ({"host": "WEB1."}, True),
        ({"host": "web*"}, True),
        ({"host": "*"}, True),
        ({"host": "web"}, False),
        ({"host": "web1.example.net"}, False),
        ({"host": None, "site": "ams"}, True),
        ({"host": None, "site": "a*"}, True),
        ({"host": None, "site": "fra"}, False),
        ({"host": "web1", "site": "fra"}, False),
        ({"host": "web*", "site": "ams"}, True),
        ({"host": "web1", "until_ns": NOW_NS + 1}, True),
        ({"host": "web1", "until_ns": NOW_NS}, False),
        ({"host": "web1", "until_ns": None}, False),
    ],
)
def test_hosts_are_named_by_patterns_of_names_and_sites_until_a_time(named: dict[str, Any], is_of: bool) -> None:
    """Both must match where both are given; at its end an acceptance no longer counts."""
    assert judged(DRIFTING, UNSYNCED, policy=accepting("unsynced", **named)).severity is (OK if is_of else WARNING)


def test_only_a_star_is_for_hosts_without_a_site() -> None:
    """A host that reports no site is of no named one."""
    homeless = DRIFTING._replace(site=None)
    for site, severity in (("*", OK), ("ams", WARNING), ("a*", WARNING)):
        assert judged(homeless, UNSYNCED, policy=accepting("unsynced", host=None, site=site)).severity is severity


def silent(policy: FleetPolicy) -> Fleet:
    """Judge a fleet of which two hosts are silent, and one is expired."""
    return judge_fleet(
        snapshot(*(host(f"ok{number}") for number in range(80)), host("web1", ago_s=5000), host("web2", ago_s=6000),
                 forgotten=["web3"]),
        policy,
    )  # fmt: skip


def test_silence_is_accepted_for_the_host_alone() -> None:
    """The accepted host is a finding of its own, that does not count; the others still do."""
    before, after = silent(FleetPolicy()), silent(accepting("evidence-gap"))
    assert [one.hosts for one in found(before, "evidence-gap")] == [("web3",), ("web1", "web2")]
    gaps = found(after, "evidence-gap")
    assert [(one.hosts, one.severity, one.accepted is not None) for one in gaps] == [
        (("web3",), WARNING, False),
        (("web2",), WARNING, False),
        (("web1",), OK, True),
    ]
    assert {one.name: one.severity for one in after.members if one.silent_s is not None} == {
        "web1": OK,
        "web2": UNKNOWN,
        "web3": UNKNOWN,
    }
    assert silent(accepting("evidence-gap", host="web*")).severity is OK


def test_a_finding_of_a_fleet_is_accepted_for_all_of_its_hosts_or_not_at_all() -> None:
    """`ordering-risk` names two hosts: it is accepted by both, by their site, and by neither alone."""
    hosts = (host("web1", 0.9), host("web2", -0.9, site="fra"))
    both = (*accepting("ordering-risk").exceptions, *accepting("ordering-risk", host="web2").exceptions)
    for policy, is_accepted in (
        (accepting("ordering-risk", host="web1"), False),
        (accepting("ordering-risk", host=None, site="ams"), False),
        (accepting("ordering-risk", host="web*"), True),
        (FleetPolicy(exceptions=both), True),
    ):
        (risk,) = found(judge_fleet(snapshot(*hosts), policy), "ordering-risk")
        assert (risk.severity is OK) is (risk.accepted is not None)
        assert (risk.accepted is not None) is (is_accepted or risk.hosts == ("web1",))


def test_of_several_acceptances_the_one_that_ends_first_is_shown() -> None:
    """A finding of two hosts counts again when the first of their acceptances ends."""
    ends = {"web1": NOW_NS + 20 * NS_PER_S, "web2": NOW_NS + 10 * NS_PER_S}
    policy = FleetPolicy(
        exceptions=tuple(one for name, end_ns in ends.items()
                         for one in accepting("evidence-gap", host=name, until_ns=end_ns).exceptions)
    )  # fmt: skip
    (gap,) = [one for one in found(silent(policy), "evidence-gap") if one.accepted]
    assert gap.accepted is not None
    assert gap.accepted.until == format_utc(ends["web2"])


def test_an_acceptance_that_does_not_hold_is_a_finding_of_the_fleet() -> None:
    """It names the finding, the person, the end and the hosts; one for hosts that do not exist is quiet until then."""
    one = host("web1")
    late = judge_fleet(snapshot(one), accepting("unsynced", site="ams", until_ns=NOW_NS))
    (ended,) = found(late, "acceptance-expired")
    assert late.severity is WARNING
    assert ended.message == (
        f"the acceptance of unsynced by ops, ticket 1234 ended at {format_utc(NOW_NS)[:16].replace('T', ' ')} UTC "
        "(reason: clock is replaced); it is for host web1 and site ams"
    )
    (endless,) = found(judge_fleet(snapshot(one), accepting("unsynced", until_ns=None)), "acceptance-expired")
    assert "has no end, so it counts for nothing" in endless.message
    assert judge_fleet(snapshot(one, host("web2"), host("web3")), accepting("unsynced", host="nowhere")).severity is OK


def test_what_hosts_accept_and_what_the_report_accepts_is_counted() -> None:
    """The number of findings that do not count: both kinds, and those of the fleet."""
    one = host("web1", severity=WARNING)
    alarms = (UNSYNCED, alarm("step-back", OK, is_accepted=True))
    assert judge_fleet(snapshot(one, alarms=alarms), FleetPolicy()).accepted == 1
    assert judge_fleet(snapshot(one, alarms=alarms), accepting("unsynced")).accepted == 2
    assert silent(accepting("evidence-gap", host="web*")).accepted == 2

"""Who belongs to a fleet, and where."""

from math import inf

import pytest

from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.members import build_members, cover, filter_site
from ntpaudit.core.fleet.missing import COVERAGE
from ntpaudit.core.fleet.model import Alarm, Coverage, DuplicateHost, FalsetickerReport, FleetPolicy, HostStatus
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S
from tests.core.fleets import DAY_S, NOW_NS, host, snapshot


def test_members_are_sorted_by_how_bad_then_how_silent_then_how_wrong_then_by_name() -> None:
    """Critical, unknown, warning, ok; in each the longest silence, then the largest worst case."""
    hosts = (
        host("ok-b"),
        host("ok-a"),
        host("ok-wide", -0.001, 0.05),
        host("warns", 0.2, severity=Severity.WARNING),
        host("unmeasured", None, severity=Severity.UNKNOWN),
        host("silent", ago_s=700),
        host("long-silent", 50.0, severity=Severity.CRITICAL, ago_s=7000),
        host("wrong", 3.0, severity=Severity.CRITICAL),
        host("more-wrong", -5.0, severity=Severity.CRITICAL),
    )
    fleet = judge_fleet(snapshot(*hosts, forgotten=["gone"]), FleetPolicy())
    assert [one.name for one in fleet.members] == [
        "more-wrong", "wrong", "gone", "long-silent", "silent", "unmeasured", "warns", "ok-wide", "ok-a", "ok-b",
    ]  # fmt: skip
    assert fleet.members[2] == HostStatus("gone", None, Severity.UNKNOWN, None, DAY_S)


def test_alarms_are_those_of_their_host_worst_first() -> None:
    """Each host has its own, whatever the order that they are read in."""
    alarms = [
        Alarm("a", "source-quorum", Severity.WARNING, NOW_NS),
        Alarm("b", "step-back", Severity.WARNING, NOW_NS),
        Alarm("a", "offset-out", Severity.CRITICAL, NOW_NS, 3.0),
    ]
    fleet = judge_fleet(snapshot(host("a"), host("b"), alarms=alarms), FleetPolicy())
    kinds = {one.name: [alarm.kind for alarm in one.alarms] for one in fleet.members}
    assert kinds == {"a": ["offset-out", "source-quorum"], "b": ["step-back"]}


def test_a_step_is_in_force_for_an_hour() -> None:
    """An older one may be read, because it can explain why a clock moved; it is no current finding."""
    alarms = [
        Alarm("a", kind, Severity.WARNING, NOW_NS - age_s * NS_PER_S)
        for kind, age_s in (("step-back", 3600), ("step-forward", 3601), ("unsynced", 7200))
    ]
    members, _ = build_members(snapshot(host("a"), alarms=alarms), FleetPolicy())
    assert [alarm.kind for alarm in members[0].alarms] == ["step-back", "unsynced"]


def test_machines_of_one_name_are_reported_at_each_of_their_sites() -> None:
    """The worst of them counts wherever one is, and is not left out of a site because it is at another."""
    worst = host("two", 5.0, site="fra", severity=Severity.CRITICAL)
    read = snapshot(host("a"), worst, duplicates=[DuplicateHost("two", ("ams", "fra"))])
    for site, names in (("ams", ["two", "a"]), ("fra", ["two"]), ("sgp", [])):
        judged = judge_fleet(*filter_site(read, FleetPolicy(inventory=("a", "two")), site))
        assert [one.name for one in judged.members] == names
        assert all((one.site, one.severity) == (site, Severity.CRITICAL) for one in judged.members if one.name == "two")
        assert [finding.hosts for finding in judged.findings if finding.id == "duplicate-host"] == [("two",)] * bool(
            names
        )


def test_one_site_alone() -> None:
    """Narrowed, nothing is left of other sites; the inventory gives the site of a host that does not report it."""
    read = snapshot(
        host("a"), host("b", site="fra"), host("c", site=None), host("d", site=None),
        alarms=[Alarm("a", "x", Severity.OK, 0), Alarm("b", "x", Severity.OK, 0)],
        lies=[FalsetickerReport("s", "a"), FalsetickerReport("s", "b")],
        forgotten=["old", "unplaced"],
        duplicates=[DuplicateHost("a", ("ams", "fra")), DuplicateHost("b", ("fra", "sgp"))],
    )  # fmt: skip
    sites = {"c": "ams", "never": "ams", "b": "ams", "old": "ams", "elsewhere": "fra"}
    terms = FleetPolicy(inventory=("a", "b", "c", "never", "unplaced", "elsewhere"), sites=sites)
    here, judged_by = filter_site(read, terms, "ams")
    assert [one.name for one in here.hosts] == ["a", "c"]
    assert judged_by.inventory == ("a", "c", "never")
    assert here.expired == ("old",)
    assert [duplicate.name for duplicate in here.duplicate_hosts] == ["a"]
    assert [alarm.host for alarm in here.alarms] == ["a"]
    assert [lie.host for lie in here.falseticker_reports] == ["a"]
    assert {one.site for one in judge_fleet(here, judged_by).members} == {"ams"}
    assert filter_site(read, FleetPolicy(), "fra")[1].inventory is None


def test_a_forgotten_host_is_not_one_that_never_reported() -> None:
    """It is known for how long it has been silent at least, and where it stood as far as the database says."""
    read = snapshot(host("a"), forgotten=["old", "lost"])._replace(look_back_s=7200.0, sites={"old": "fra"})
    members, _ = build_members(
        read, FleetPolicy(inventory=("a", "old", "lost", "never"), sites={"old": "ams", "never": "ams"})
    )
    by_name = {one.name: (one.site, one.silent_s, one.is_expired) for one in members}
    assert by_name == {
        "a": ("ams", None, False),
        "old": ("fra", 7200.0, True),
        "lost": (None, 7200.0, True),
        "never": ("ams", inf, False),
    }


@pytest.mark.parametrize(
    ("falsetickers", "covered"), [(0, Coverage(1, 1, 1, 1)), (1, Coverage(1, 1, 1, 0)), (2, Coverage(1, 1, 0, 0))]
)
def test_a_source_that_lies_covers_nothing(falsetickers: int, covered: Coverage) -> None:
    """Of three usable sources those count that the others do not contradict."""
    read = snapshot(host("a", usable=3, falsetickers=falsetickers))
    members, _ = build_members(read, FleetPolicy())
    assert cover(members) == covered
    found = {one.id for one in judge_fleet(read, FleetPolicy()).findings}
    assert (COVERAGE.id in found) is (covered.by_two == 0)

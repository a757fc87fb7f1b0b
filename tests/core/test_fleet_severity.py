"""A host is judged by its points, by interval, tolerance and age, and by when they came; not by its severity."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import FleetPolicy, Host, HostStatus, Offset, Snapshot
from ntpaudit.core.fleet.ordering import order
from ntpaudit.core.fleet.severity import AHEAD_S, MAX_AGE_S, offset_verdict
from ntpaudit.core.policy import PROFILES, Severity
from ntpaudit.core.units import NS_PER_S
from tests.core.fleets import NOW_NS, found, host, only, snapshot

HOUR_S = 3600.0
OK, WARNING, UNKNOWN, CRITICAL = Severity.OK, Severity.WARNING, Severity.UNKNOWN, Severity.CRITICAL


def present(*hosts: Host) -> Snapshot:
    """A fleet as it is now, whose points ahead of now were read too."""
    return snapshot(*hosts)._replace(looked_ahead=True)


def judged(*hosts: Host, terms: FleetPolicy | None = None) -> dict[str, HostStatus]:
    """Return each host as the fleet sees it, by its name."""
    return {one.name: one for one in judge_fleet(present(*hosts), terms or FleetPolicy()).members}


@given(
    st.sampled_from(sorted(PROFILES)),
    st.integers(-5 * NS_PER_S, 5 * NS_PER_S),
    st.integers(0, 2 * NS_PER_S),
    st.floats(0, 1),
)
def test_a_second_evaluation_gives_the_severity_of_the_agent(
    name: str, earliest_ns: int, width_ns: int, at: float
) -> None:
    """The same verdict and the same severity by the same tolerances, whatever the warning is judged on."""
    profile = PROFILES[name]
    interval = Interval(earliest_ns, earliest_ns + width_ns)
    estimate_ns = interval.clamp(earliest_ns + round(at * width_ns))
    offset = Offset(estimate_ns / NS_PER_S, interval.earliest_ns / NS_PER_S, interval.latest_ns / NS_PER_S)
    one = host("a")._replace(
        offset=offset,
        critical_s=profile.critical_s,
        warning_s=profile.warning_s,
        judged_on_bound=profile.judged_on == "bound",
    )
    verdict, severity = offset_verdict(one, FleetPolicy())
    assert verdict == profile.verdict(interval)
    reported = profile.severity(interval, estimate_ns)
    assert severity == reported
    assert found(judge_fleet(snapshot(one._replace(severity=reported)), FleetPolicy()), "severity-disputed") == []


@pytest.mark.parametrize(
    ("claims", "severity", "level", "words"),
    [
        (host("a", 7200.5), CRITICAL, "high", "a reports ok, but its clock is at least 2 h behind"),
        (host("a", -7200.0), CRITICAL, "high", "ahead"),
        (host("a", 0.0, 5.0), WARNING, "medium", "its clock may be up to 5 s wrong (critical tolerance 1 s)"),
        (host("a", 0.5, 0.01), WARNING, "medium", "its clock is 500 ms behind (warning tolerance 100 ms)"),
        (host("a", None), UNKNOWN, "medium", "no offset"),
        (host("a")._replace(age_s=30 * 86_400.0), UNKNOWN, "medium", "more than a day"),
        (host("a")._replace(age_s=-5.0), UNKNOWN, "medium", "its clock is unknown"),
        (host("a", 0.2, 0.01)._replace(critical_s=0.05), CRITICAL, "high", "at least 190 ms behind"),
    ],
)
def test_a_severity_that_the_point_itself_refutes_is_not_believed(
    claims: Host, severity: Severity, level: str, words: str
) -> None:
    """Whatever a point of `severity=0` says, the host counts as what its interval, tolerance and age prove."""
    fleet = judge_fleet(present(claims), FleetPolicy())
    (one,) = fleet.members
    assert (one.severity, one.contradicted, one.suspected) == (severity, OK, ("severity-disputed",))
    finding = only(fleet, "severity-disputed")
    assert (finding.level, finding.hosts) == (level, ("a",))
    assert words in finding.message
    assert fleet.severity >= severity


def test_the_hosts_own_tolerance_counts() -> None:
    """A host with a wide tolerance is not accused by the fleet's; of one that names none, the fleet's counts."""
    wide = host("wide", 5.0)._replace(critical_s=240.0, warning_s=60.0)
    members = judged(wide, host("none", 5.0), terms=FleetPolicy(critical_s=10.0))
    assert (members["wide"].severity, members["wide"].contradicted) == (OK, None)
    assert members["none"].severity is WARNING  # 5 s are more than the warning's 100 ms, and within 10 s
    strange = host("a", 5.0)._replace(critical_s=-inf)
    assert judged(strange)["a"].severity is CRITICAL


def test_a_host_that_may_drift_by_more_is_harder_to_order() -> None:
    """R4: its interval grows by what its agent says, ten minutes after its point by 0.3 s at 500 ppm."""
    steady, fast = (host("a", ago_s=600)._replace(max_drift_ppm=ppm) for ppm in (50.0, 500.0))
    other = host("b", ago_s=0)
    limits = [order(one, other, NOW_NS) for one in (steady, fast)]
    assert limits[0] is not None
    assert limits[1] is not None
    assert limits[1].within_s - limits[0].within_s == pytest.approx(600 * 450e-6)
    wide, narrow = judge_fleet(present(fast, other), FleetPolicy()), judge_fleet(present(steady, other), FleetPolicy())
    assert wide.whole.ambiguity is not None
    assert narrow.whole.ambiguity is not None
    assert wide.whole.ambiguity.within_s - narrow.whole.ambiguity.within_s == pytest.approx(600 * 450e-6)


def test_a_worse_word_of_the_agent_stays() -> None:
    """Findings add to what the offset proves: an agent may say worse, and that is no disagreement."""
    fleet = judge_fleet(present(host("a", severity=CRITICAL), host("b", severity=WARNING)), FleetPolicy())
    assert [one.severity for one in fleet.members] == [CRITICAL, WARNING]
    assert found(fleet, "severity-disputed") == []


def test_what_waits_for_confirmation_is_left_to_the_agent() -> None:
    """One bad sample raises no alarm: neither on the host nor here. That nothing is known is no sample."""
    doubtful = host("a", 7200.0)._replace(is_confirmed=False)
    fleet = judge_fleet(present(doubtful), FleetPolicy())
    assert fleet.members[0].severity is OK
    assert found(fleet, "severity-disputed") == []
    assert judged(host("a", None)._replace(is_confirmed=False))["a"].severity is UNKNOWN


@pytest.mark.parametrize("offset_s", [0.0, 7200.0])
def test_an_interval_that_proves_nothing_is_left_to_the_agent(offset_s: float) -> None:
    """Too few servers replied: the host warns that nothing is proven, and here too it is neither within nor beyond."""
    unproven = host("a", offset_s, severity=WARNING)._replace(verdict="unproven", is_confirmed=False)
    fleet = judge_fleet(present(unproven), FleetPolicy())
    (member,) = fleet.members
    assert member.host is not None
    assert (member.severity, member.host.verdict) == (WARNING, "unproven")
    assert found(fleet, "severity-disputed") == []


def test_hosts_of_a_site_are_one_finding() -> None:
    """The worst is named, all are listed."""
    fleet = judge_fleet(present(host("a", 2.0), host("b", 7200.0), host("c", site="fra")), FleetPolicy())
    finding = only(fleet, "severity-disputed")
    assert finding.message.startswith("2 hosts at ams report a better severity than their points prove; b reports ok")
    assert (finding.site, finding.hosts) == ("ams", ("a", "b"))


def test_an_age_of_more_than_a_day_is_no_measurement() -> None:
    """Such a host is not measured: neither counted as covered, nor compared, nor ordered."""
    fleet = judge_fleet(present(host("a")._replace(age_s=MAX_AGE_S + 1), host("b"), host("c")), FleetPolicy())
    assert (fleet.coverage.measured, fleet.coverage.hosts) == (2, 3)
    assert fleet.whole.ambiguity is not None
    assert "a" not in fleet.whole.ambiguity.hosts


# --- time that the database's clock disputes ----------------------------------------------------------------------


@pytest.mark.parametrize("disputed_s", [0.0, 3 * HOUR_S - 1])
def test_a_host_whose_points_are_ahead_is_neither_ok_nor_silent(disputed_s: float) -> None:
    """With the agent's own word or without: the stamp itself says so."""
    fleet = judge_fleet(present(host("a", ago_s=-3 * HOUR_S)._replace(disputed_s=disputed_s), host("b")), FleetPolicy())
    one = next(one for one in fleet.members if one.name == "a")
    assert (one.severity, one.silent_s, one.suspected) == (WARNING, None, ("time-disputed",))
    assert one.seen_s == pytest.approx(0, abs=2)
    finding = only(fleet, "time-disputed")
    assert (finding.level, finding.hosts) == ("high", ("a",))
    assert finding.value_s == pytest.approx(3 * HOUR_S, abs=2)
    assert finding.message.startswith("the timestamps of a are ")
    assert finding.message.endswith("ahead of the database's clock")
    assert "NTP servers" in finding.remedy


def test_a_host_whose_points_are_behind_is_neither_ok_nor_silent() -> None:
    """Its stamps are three hours old, and its points come every minute."""
    behind = host("a", ago_s=3 * HOUR_S)._replace(disputed_s=-3 * HOUR_S)
    fleet = judge_fleet(present(behind, host("b")), FleetPolicy())
    one = next(one for one in fleet.members if one.name == "a")
    assert (one.severity, one.silent_s, one.seen_s) == (WARNING, None, 0.0)
    assert only(fleet, "time-disputed").value_s == -3 * HOUR_S
    assert "behind the database's clock" in only(fleet, "time-disputed").message
    assert found(fleet, "evidence-gap") == []


@given(st.floats(-80_000, 80_000).filter(lambda s: abs(s) > 1), st.floats(0, 50_000))
def test_who_delivers_is_seen_and_who_stopped_is_silent(disputed_s: float, stopped_s: float) -> None:
    """Whatever the stamps say: silence is counted from when the last point came."""
    one = host("a", ago_s=stopped_s - disputed_s)._replace(disputed_s=disputed_s)
    (member,) = judge_fleet(present(one), FleetPolicy()).members
    assert member.seen_s == pytest.approx(stopped_s, abs=1e-3)
    assert (member.silent_s is None) == (stopped_s <= 600)
    assert member.severity is (WARNING if stopped_s <= 600 else UNKNOWN)


@pytest.mark.parametrize("years", [-19.6, 3.0])
def test_servers_that_are_years_off(years: float) -> None:
    """Their points carry the database's time (see `line_protocol.stamp_of`), and say by how much they are disputed."""
    wrong_s = years * 365.25 * 86_400
    (member,) = judge_fleet(present(host("a", ago_s=20)._replace(disputed_s=wrong_s)), FleetPolicy()).members
    assert (member.seen_s, member.severity) == (20, WARNING)
    assert member.disputed_s == wrong_s


def test_a_minute_ahead_is_no_dispute() -> None:
    """The reader's own clock may be half a minute off, and points come while others are read."""
    fleet = judge_fleet(present(host("a", ago_s=-AHEAD_S), host("b")), FleetPolicy())
    assert found(fleet, "time-disputed") == []
    assert found(judge_fleet(present(host("a", ago_s=-AHEAD_S - 1)), FleetPolicy()), "time-disputed")


def test_most_hosts_against_one_database() -> None:
    """Where most contradict it, it is the database's clock that is looked at first."""
    hosts = [host(f"h{n}", ago_s=3 * HOUR_S)._replace(disputed_s=-3 * HOUR_S) for n in range(5)]
    fleet = judge_fleet(present(*hosts, host("b")), FleetPolicy())
    finding = only(fleet, "time-disputed")
    apart = "up to 3 h behind the database's clock (most: h4)"
    assert finding.message == f"the timestamps of 5 hosts at ams are {apart}"
    assert finding.remedy.startswith("check the clock of the database's host first")


def test_two_directions_are_two_findings() -> None:
    """Ahead and behind have no cause in common."""
    ahead, behind = (host(name)._replace(disputed_s=by_s) for name, by_s in (("a", 20.0), ("b", -0.5)))
    fleet = judge_fleet(present(ahead, behind), FleetPolicy())
    assert [(one.level, one.hosts) for one in found(fleet, "time-disputed")] == [("high", ("a",)), ("medium", ("b",))]


def test_events_of_a_disputed_host_cannot_be_ordered() -> None:
    """Either clock may be right, so its stamps may be off by as much as the two differ."""
    disputed, right = host("a", ago_s=-HOUR_S)._replace(disputed_s=HOUR_S), host("b", ago_s=0)
    fleet = judge_fleet(present(disputed, right), FleetPolicy())
    assert only(fleet, "ordering-risk").value_s == pytest.approx(HOUR_S + 0.01, abs=0.2)
    limits = order(disputed, right, NOW_NS)
    assert limits is not None
    assert limits.within_s == pytest.approx(HOUR_S + 0.01, abs=0.2)
    assert limits.first_s < limits.second_s  # a's stamps may be an hour ahead, and not behind


def test_the_past_is_not_silent_about_hosts_that_were_ahead() -> None:
    """Of a moment in the past no later points are read, so a host that is ahead is as old as its stamp."""
    ahead = host("a")._replace(disputed_s=3 * HOUR_S)
    (member,) = judge_fleet(snapshot(ahead), FleetPolicy()).members
    assert (member.silent_s, member.seen_s, member.severity) == (None, 30, WARNING)

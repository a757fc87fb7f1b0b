"""What a fleet is judged by: every rule on hosts made by hand, and its arithmetic in drawn worlds."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.fleet.checks import RULES, judge_fleet
from ntpaudit.core.fleet.missing import share
from ntpaudit.core.fleet.model import (
    Alarm,
    Coverage,
    DuplicateHost,
    FalsetickerReport,
    FleetFinding,
    FleetPolicy,
    Host,
    Offset,
    Snapshot,
)
from ntpaudit.core.fleet.ordering import order
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S
from tests.core.fleets import DAY_S, NOW_NS, found, host, offset, only, snapshot, worlds

_Item = TypeVar("_Item")


def raised(*hosts: Host, terms: FleetPolicy | None = None) -> list[str]:
    """The ids of what is found in a fleet."""
    return [finding.id for finding in judge_fleet(snapshot(*hosts), terms or FleetPolicy()).findings]


# --- the fleet as a whole -------------------------------------------------------------------------------------------


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Snapshot, FleetPolicy]:
    """Draw fleets of every kind of host, with what else may be read of them."""
    names = [f"h{number}" for number in range(draw(st.integers(0, 9)))]
    severities = st.sampled_from(Severity)
    spans = st.sampled_from([0.0, 0.0, 0.001, -0.05, 0.09, 37.0])
    hosts = [
        host(
            name,
            draw(st.none() | spans),
            site=draw(st.sampled_from(["ams", "fra", None])),
            severity=draw(severities),
            ago_s=draw(st.sampled_from([-1.0, 30.0, 600.0, 601.0, 2 * DAY_S])),
            usable=draw(st.integers(0, 4)),
            frequency_ppm=draw(st.sampled_from([None, -1.0, 1.0])),
        )
        for name in names
    ]
    some = st.sampled_from([*names, "ghost"])
    kinds = st.sampled_from(["step-back", "offset-out"])
    read = snapshot(
        *hosts,
        alarms=draw(
            st.lists(
                st.builds(Alarm, some, kinds, severities, st.sampled_from([NOW_NS - 1, 0]), st.none() | spans),
                max_size=4,
            )
        ),
        lies=draw(
            st.lists(st.builds(FalsetickerReport, st.sampled_from(["x", "y"]), some, st.none() | spans), max_size=9)
        ),
        before={name: offset(draw(spans), 0.001) for name in names if draw(st.booleans())},
        forgotten=["ghost"] if draw(st.booleans()) else [],
        duplicates=[DuplicateHost(name, ("ams", None)) for name in names if draw(st.integers(0, 9)) == 0],
    )
    listed = draw(st.none() | st.lists(some, unique=True).map(tuple))
    return read, FleetPolicy(inventory=listed, sites={"ghost": "ams"} if draw(st.booleans()) else {})


@given(fleets(), st.randoms(use_true_random=False))
def test_the_order_of_what_is_read_never_matters(context: tuple[Snapshot, FleetPolicy], rand: Random) -> None:
    """Any permutation of hosts, alarms, lies, names and of the inventory gives the very same fleet."""
    read, terms = context

    def shuffled(items: Sequence[_Item]) -> tuple[_Item, ...]:
        return tuple(rand.sample(items, len(items)))

    other = read._replace(
        hosts=shuffled(read.hosts),
        alarms=shuffled(read.alarms),
        falseticker_reports=shuffled(read.falseticker_reports),
        expired=shuffled(read.expired),
        duplicate_hosts=shuffled(read.duplicate_hosts),
        baseline=dict(reversed(list(read.baseline.items()))),
    )
    listed = None if terms.inventory is None else shuffled(terms.inventory)
    assert judge_fleet(other, terms._replace(inventory=listed)) == judge_fleet(read, terms)


@given(fleets())
def test_every_host_that_counts_is_counted_once(context: tuple[Snapshot, FleetPolicy]) -> None:
    """Members are sorted worst first; sites, the whole and the coverage add up to them; findings name known hosts."""
    read, terms = context
    fleet = judge_fleet(read, terms)
    names = [one.name for one in fleet.members]
    assert len(set(names)) == len(names)
    assert [one.severity for one in fleet.members] == sorted((one.severity for one in fleet.members), reverse=True)
    assert sum(fleet.whole.hosts) == len(names) == sum(sum(site.hosts) for site in fleet.sites)
    assert fleet.whole.hosts == tuple(sum(one.severity is word for one in fleet.members) for word in Severity)
    assert fleet.coverage.hosts >= fleet.coverage.measured >= fleet.coverage.by_two >= fleet.coverage.by_three >= 0
    expected = set(names) if terms.inventory is None else set(terms.inventory)
    assert fleet.coverage.hosts == len(expected)
    assert expected <= set(names)
    for finding in fleet.findings:
        assert set(finding.hosts) <= set(names)
        assert list(finding.hosts) == sorted(finding.hosts)
        assert finding.message.isprintable()
        assert finding.remedy
    for one in fleet.members:
        if one.silent_s is not None:
            assert one.severity is Severity.UNKNOWN
            assert one.silent_s > terms.silent_after_s
            assert one.name not in {name for worst in fleet.sites if worst.ambiguity for name in worst.ambiguity.hosts}


def test_a_sound_fleet_has_no_findings() -> None:
    """Hosts that are right, reporting, and measured by enough sources raise nothing."""
    hosts = [host(f"h{number}", 0.001 * number) for number in range(4)]
    fleet = judge_fleet(snapshot(*hosts), FleetPolicy())
    assert fleet.findings == ()
    assert fleet.severity is Severity.OK
    assert fleet.coverage == Coverage(4, 4, 4, 4)
    assert fleet.whole.ambiguity is not None
    assert fleet.whole.ambiguity.within_s == pytest.approx(0.013 + 2 * 30 * 50e-6)
    assert fleet.whole.ambiguity.hosts == ("h3", "h0")


def test_no_host_at_all_is_no_sound_fleet() -> None:
    """A host that does not report is unknown."""
    fleet = judge_fleet(snapshot(), FleetPolicy())
    assert (fleet.members, fleet.findings, fleet.sites) == ((), (), ())
    assert fleet.severity is Severity.UNKNOWN


# --- rules ----------------------------------------------------------------------------------------------------------


def test_a_host_is_silent_from_the_limit_on() -> None:
    """To the second; one that reports from the future reports."""
    assert raised(host("a", ago_s=600), host("b", ago_s=-5)) == []
    fleet = judge_fleet(snapshot(host("a", 37.0, severity=Severity.CRITICAL, ago_s=601), host("b")), FleetPolicy())
    finding = only(fleet, "evidence-gap")
    assert (finding.level, finding.site, finding.hosts, finding.value_s) == ("medium", "ams", ("a",), 601.0)
    assert finding.message == "a has been silent for 10 min; its clock is unknown since then"
    assert fleet.members[0].severity is Severity.UNKNOWN


def test_silence_is_reported_by_site_and_worse_after_a_day() -> None:
    """Ten hosts of a site that fall silent together are one finding; those silent for a day are another."""
    hosts = [host(f"h{number}", ago_s=700 + number) for number in range(3)]
    old = [host(f"old{number}", ago_s=DAY_S + number) for number in range(2)]
    other = host("x", site="fra", ago_s=900)
    gaps = found(judge_fleet(snapshot(*hosts, *old, other), FleetPolicy()), "evidence-gap")
    assert [(gap.level, gap.site, gap.hosts) for gap in gaps] == [
        ("high", "ams", ("old0", "old1")),
        ("medium", "ams", ("h0", "h1", "h2")),
        ("medium", "fra", ("x",)),
    ]
    assert gaps[1].message == "3 hosts at ams are silent, h2 for 11.7 min; their clocks are unknown since then"


def test_a_forgotten_host_is_a_gap() -> None:
    """The database knows it, and has nothing of it."""
    finding = only(judge_fleet(snapshot(host("a"), forgotten=["b", "a"]), FleetPolicy()), "evidence-gap")
    assert (finding.level, finding.hosts) == ("high", ("b",))
    assert finding.message.startswith("b is in the database but has no point in the last 24 h")


def test_an_inventory_says_who_should_report() -> None:
    """A host that never reported is a gap, a silent unlisted one is retired, a reporting unlisted one is named."""
    read = snapshot(host("a"), host("new"), host("retired", ago_s=DAY_S), forgotten=["old", "listed-and-old"])
    terms = FleetPolicy(inventory=("a", "never", "listed-and-old"), sites={"never": "fra"})
    fleet = judge_fleet(read, terms)
    assert {one.name for one in fleet.members} == {"a", "new", "never", "listed-and-old"}
    assert [(gap.level, gap.message.partition(" but has no")[0], gap.site) for gap in found(fleet, "evidence-gap")] == [
        ("high", "never is in the inventory, but the database has no point of it", "fra"),
        ("high", "listed-and-old is in the database", None),
        ("low", "new reports but is not in the inventory", None),
    ]
    assert fleet.coverage == Coverage(3, 1, 1, 1)
    short = only(fleet, "coverage")
    assert (short.level, short.hosts) == ("medium", ("listed-and-old", "never"))


def test_every_gap_has_a_remedy_of_its_own() -> None:
    """The fix differs: an agent that is silent, one that is missing, a list that is wrong."""
    read = snapshot(host("a"), host("new"), host("quiet", ago_s=900), forgotten=["old"])
    listed = judge_fleet(read, FleetPolicy(inventory=("a", "never", "old", "quiet")))
    remedies = {gap.hosts: gap.remedy for gap in found(listed, "evidence-gap")}
    assert "systemctl status ntpaudit" in remedies["quiet",]
    assert "if the host is retired, remove it from the inventory" in remedies["quiet",]
    assert "whether the host still exists" in remedies["old",]
    assert "check the agent there, or install it" in remedies["never",]
    assert "add your own hosts" in remedies["new",]
    assert len(set(remedies.values())) == 4
    [gap] = found(judge_fleet(snapshot(host("a"), host("quiet", ago_s=900)), FleetPolicy()), "evidence-gap")
    assert gap.remedy.endswith("if the host is retired, use an inventory that does not list it (--inventory)")


@pytest.mark.parametrize(
    ("listed", "reporting", "said"),
    [
        (("AMS-Web1.example.net",), ("ams-web1",), "no point of it; did you mean ams-web1?"),
        (("ams-web1",), ("ams-web1.example.net",), "no point of it; did you mean ams-web1.example.net?"),
        (("WEB1", "db.x", "z"), ("web1", "db.y"), "WEB1, db.x and z are in the inventory, but the database has no "
         "point of them; did "
         "you mean web1 for WEB1 and db.y for db.x?"),
        (("web1",), ("web1.a", "web1.b"), "web1 is in the inventory, but the database has no point of it"),
        (("web1",), ("web2",), "web1 is in the inventory, but the database has no point of it"),
        (("10.0.0.1",), ("10.0.0.2",), "10.0.0.1 is in the inventory, but the database has no point of it"),
        (("fe80::1.2",), ("fe80::1.3",), "fe80::1.2 is in the inventory, but the database has no point of it"),
    ],
)  # fmt: skip
def test_a_name_that_is_written_otherwise_is_guessed(
    listed: tuple[str, ...], reporting: tuple[str, ...], said: str
) -> None:
    """One unlisted host with the same name but for case and domain is named; among several it is unknown which."""
    fleet = judge_fleet(snapshot(*map(host, reporting)), FleetPolicy(inventory=listed))
    [never] = [gap for gap in found(fleet, "evidence-gap") if gap.level == "high"]
    assert never.message.endswith(said)
    assert never.hosts == listed


def test_a_host_at_another_site_than_listed_is_reported() -> None:
    """As far as both say where it stands."""
    hosts = [host(f"h{number}", site="fra") for number in range(4)]
    read = snapshot(*hosts, host("placeless", site=None), host("right"), host("quiet", site="fra", ago_s=900))
    sites = {**{f"h{number}": "ams" for number in range(4)}, "placeless": "ams", "right": "ams", "quiet": "ams"}
    inventory = ("h0", "h1", "h2", "h3", "placeless", "right", "quiet")
    fleet = judge_fleet(read, FleetPolicy(inventory=inventory, sites=sites))
    [gap] = [gap for gap in found(fleet, "evidence-gap") if gap.level == "low"]
    assert gap.message == (
        "h0 reports from fra, but the inventory lists it at ams; h1 reports from fra, but the inventory lists it at "
        "ams; h2 reports from fra, but the inventory lists it at ams; and 1 more"
    )
    assert gap.hosts == ("h0", "h1", "h2", "h3")
    assert "host.site" in gap.remedy


def test_who_is_in_no_inventory_is_counted() -> None:
    """No host if there is none."""
    read = snapshot(host("a"), host("b"), host("c"))
    assert judge_fleet(read, FleetPolicy()).unlisted is None
    fleet = judge_fleet(read, FleetPolicy(inventory=("a", "x")))
    assert fleet.unlisted == 2
    assert only(fleet, "coverage").message.startswith(
        "only 1 of 2 hosts in the inventory (50 %, 95 % expected) is measured by two or more servers"
    )


def test_an_unlisted_host_alone_changes_no_severity() -> None:
    """It is listed, and not counted."""
    fleet = judge_fleet(snapshot(host("a"), host("b"), host("c")), FleetPolicy(inventory=("a",)))
    assert only(fleet, "evidence-gap").message == "b and c report but are not in the inventory"
    assert fleet.severity is Severity.OK


def test_ordering_risk_names_the_fewest_hosts_at_fault() -> None:
    """Each host is within its own tolerance, and two of them cannot be ordered: the one that is apart is named."""
    hosts = [host("a", 0.9), host("b", -0.9), host("c", -0.89), host("x", 0.0, site="fra"), host("y", 0.0, site="fra")]
    finding = only(judge_fleet(snapshot(*hosts), FleetPolicy()), "ordering-risk")
    assert (finding.level, finding.site, finding.hosts) == ("high", "ams", ("a",))
    assert finding.value_s == pytest.approx(1.813)
    assert finding.message == (
        "Timestamps at ams cannot order events less than 1.82 s apart (ordering limit 1 s). Cause: a; without it 23 ms"
    )


def test_wrong_clocks_are_fixed_before_sources_are_checked() -> None:
    """The remedy names the clocks that are wrong, and why; sources where only the intervals are too wide."""
    lone = [Alarm("a", "offset-out", Severity.CRITICAL, NOW_NS), Alarm("a", "x-low", Severity.OK, NOW_NS)]
    hosts = (host("a", 37.0, severity=Severity.CRITICAL), host("b"), host("c"))
    finding = only(judge_fleet(snapshot(*hosts, alarms=lone), FleetPolicy()), "ordering-risk")
    assert finding.remedy.startswith("fix the clock of a first (offset-out); correct logs by")
    apart = (host("a", 37.0), host("b", -37.0), host("c"), host("d"))
    finding = only(judge_fleet(snapshot(*apart), FleetPolicy()), "ordering-risk")
    assert finding.remedy.startswith("fix the clocks of a and b first; correct logs by")
    wide = (host("a", 0, 0.8), host("b", 0, 0.7))
    finding = only(judge_fleet(snapshot(*wide), FleetPolicy()), "ordering-risk")
    assert finding.remedy.startswith("give these hosts the same nearby servers")


@given(
    worlds(most=4), st.lists(st.integers(0, 82_800), min_size=4, max_size=4), st.lists(st.floats(-50, 50), min_size=4)
)
def test_a_clock_may_have_drifted_since_its_last_point(
    world: list[tuple[Host, float]], ages_s: list[int], drifts_ppm: list[float]
) -> None:
    """Wherever a clock was, and however an oscillator takes it from there: two stamps now are not ordered wrongly."""
    old = [one._replace(last_ns=NOW_NS - age_s * NS_PER_S) for (one, _), age_s in zip(world, ages_s, strict=False)]
    now_s = [truth + ppm * 1e-6 * age_s for (_, truth), age_s, ppm in zip(world, ages_s, drifts_ppm, strict=False)]
    fleet = judge_fleet(snapshot(*old), FleetPolicy(silent_after_s=82_800.0))
    assert fleet.whole.ambiguity is not None
    assert max(now_s) - min(now_s) <= fleet.whole.ambiguity.within_s + 1e-9
    said = order(old[0], old[1], NOW_NS)
    assert said is not None
    assert -said.second_s - 1e-9 <= now_s[0] - now_s[1] <= said.first_s + 1e-9
    assert said.within_s <= fleet.whole.ambiguity.within_s + 1e-9


def test_a_point_of_the_future_is_as_old_as_it_is_far() -> None:
    """Whose last point lies ahead of now reports, and its clock may have drifted from there as well."""
    fleet = judge_fleet(snapshot(host("a", ago_s=-50), host("b", ago_s=0)), FleetPolicy())
    assert fleet.whole.ambiguity is not None
    assert fleet.whole.ambiguity.within_s == pytest.approx(0.01 + 50 * 50e-6)
    assert [one.silent_s for one in fleet.members] == [None, None]


def test_ordering_risk_where_no_host_can_be_kept() -> None:
    """Intervals that are wider than the limit cannot be ordered with any other."""
    finding = only(judge_fleet(snapshot(host("a", 0, 0.8), host("b", 0, 0.7)), FleetPolicy()), "ordering-risk")
    assert finding.hosts == ("a", "b")
    assert finding.message.endswith("Cause: a (maximum error 802 ms) and b (maximum error 702 ms)")


def test_ordering_risk_between_sites_is_reported_where_no_site_explains_it() -> None:
    """Two sites that are each in order and apart from each other are one finding, without a site."""
    hosts = [host("a", 2.0), host("b", 2.0), host("x", 0.0, site="fra"), host("y", 0.0, site="fra")]
    finding = only(judge_fleet(snapshot(*hosts), FleetPolicy()), "ordering-risk")
    assert (finding.site, finding.hosts) == (None, ("a", "b"))
    assert "Timestamps of hosts at different sites" in finding.message
    with_one_wrong = [*hosts[:1], host("b", 0.0), *hosts[2:]]
    assert only(judge_fleet(snapshot(*with_one_wrong), FleetPolicy()), "ordering-risk").site == "ams"


def test_silent_and_unmeasured_hosts_bear_on_no_order() -> None:
    """What is not known now makes no claim."""
    assert "ordering-risk" not in raised(host("a", 50.0, ago_s=900), host("b"), host("c", None), host("d"))


@pytest.mark.parametrize(("limit_s", "risky"), [(0.011, False), (0.0109, True)])
def test_ordering_risk_is_written_as_acceptance(limit_s: float, risky: bool) -> None:
    """At the limit it is in order, and nowhere beyond."""
    ids = raised(host("a", 0.001, ago_s=0), host("b", 0.0, ago_s=0), terms=FleetPolicy(ambiguity_s=limit_s))
    assert ("ordering-risk" in ids) is risky


def test_a_source_that_three_hosts_contradict_is_named() -> None:
    """Once for each host; silent hosts contradict no source now; the claim is stated in words."""
    hosts = [host("a"), host("b"), host("c"), host("d", ago_s=900)]
    lies = [FalsetickerReport("ntp9", name, claim) for name, claim in (("a", -37.0), ("b", -36.9375), ("d", 5.0))]
    lies += [FalsetickerReport("fine", "a"), FalsetickerReport("fine", "a", 1.0), FalsetickerReport("fine", "b")]
    assert "shared-falseticker" not in raised(*hosts)
    assert found(judge_fleet(snapshot(*hosts, lies=lies), FleetPolicy()), "shared-falseticker") == []
    finding = only(
        judge_fleet(snapshot(*hosts, lies=[*lies, FalsetickerReport("ntp9", "c")]), FleetPolicy()), "shared-falseticker"
    )
    assert (finding.level, finding.source, finding.hosts, finding.value_s) == (
        "high",
        "ntp9",
        ("a", "b", "c"),
        -36.96875,
    )
    assert finding.message == (
        "ntp9 is probably wrong: on 3 hosts (a, b and c) it is 37 s behind the servers that agree (median)"
    )
    quiet = [FalsetickerReport("ntp9", name) for name in "abc"]
    finding = only(judge_fleet(snapshot(*hosts, lies=quiet), FleetPolicy()), "shared-falseticker")
    message = "ntp9 is probably wrong: 3 hosts (a, b and c) reject it as a falseticker"
    assert (finding.message, finding.value_s) == (message, None)


@pytest.mark.parametrize("name", ["europe.pool.ntp.org/2", "0.pool.ntp.org", "ntp.example.net/1"])
def test_a_place_in_a_pool_is_no_one_server(name: str) -> None:
    """It is another server on every host, so that several call it a falseticker says nothing of any."""
    hosts = [host(name) for name in "abc"]
    lies = [FalsetickerReport(name, one.name, 37.0) for one in hosts]
    assert found(judge_fleet(snapshot(*hosts, lies=lies), FleetPolicy()), "shared-falseticker") == []


@given(st.lists(st.sampled_from([37.0, 37.05, 1.0, -5.0]), min_size=3, max_size=7), st.integers(-9, 9))
def test_a_source_has_one_error_whatever_host_reports_it(errors_s: list[float], wrong_s: int) -> None:
    """Named where more than half of the hosts see much the same error, however wrong the clock of a host itself is."""
    hosts = [host(f"h{number}", float(wrong_s * number)) for number in range(len(errors_s))]
    lies = [
        FalsetickerReport("ntp9", f"h{number}", error_s + wrong_s * number) for number, error_s in enumerate(errors_s)
    ]
    most = max(sum(value in alike for value in errors_s) for alike in ((37.0, 37.05), (1.0,), (-5.0,)))
    named = found(judge_fleet(snapshot(*hosts, lies=lies), FleetPolicy()), "shared-falseticker")
    assert bool(named) is (2 * most > len(errors_s))


def test_two_machines_of_one_name_are_reported() -> None:
    """With the sites, as far as they are known; a name that does not count is not reported."""
    duplicates = [
        DuplicateHost("b", (None, "fra")),
        DuplicateHost("a", ("fra", "ams")),
        DuplicateHost("retired", ("ams", "ams")),
    ]
    fleet = judge_fleet(snapshot(host("a"), host("b"), duplicates=duplicates), FleetPolicy())
    reported = [(one.level, one.hosts, one.message) for one in found(fleet, "duplicate-host")]
    assert reported == [
        (
            "high",
            ("a",),
            "several machines report under the name a from ams and fra: its points come from different clocks",
        ),
        ("high", ("b",), "several machines report under the name b from fra: its points come from different clocks"),
    ]


def site_of(*now_s: float, then_s: float = 0.0, half_s: float = 0.002) -> Snapshot:
    """A site whose hosts were all right an hour ago."""
    hosts = [host(f"h{number}", at_s, half_s) for number, at_s in enumerate(now_s)]
    return snapshot(*hosts, before={one.name: offset(then_s, half_s) for one in hosts})


def test_a_site_that_moved_together_is_one_finding() -> None:
    """More than half by a common amount: what is proved of it is said, with its direction, and no host walks."""
    fleet = judge_fleet(site_of(0.050, 0.051, 0.049, 0.0), FleetPolicy())
    finding = only(fleet, "site-moved")
    assert (finding.level, finding.site, finding.hosts) == ("high", "ams", ("h0", "h1", "h2"))
    assert finding.value_s == pytest.approx(0.047)
    assert finding.message == (
        "3 of 4 hosts at ams fell behind within 60 min, each by at least 45 ms; a common shift of at least 47 ms fits "
        "all of them"
    )
    assert found(fleet, "slow-walk") == []
    ahead = only(judge_fleet(site_of(-0.050, -0.051, -0.049), FleetPolicy()), "site-moved")
    assert ahead.value_s == pytest.approx(-0.047)
    assert "ran ahead within" in ahead.message


def test_hosts_that_the_fleet_suspects_are_marked_and_come_first() -> None:
    """Of hosts that are ok by their own word those come first that moved together; one that came back is not marked."""
    moved = judge_fleet(site_of(0.050, 0.0, 0.051, 0.049), FleetPolicy())
    marks = {one.name: one.suspected for one in moved.members}
    assert marks == {"h0": ("site-moved",), "h1": (), "h2": ("site-moved",), "h3": ("site-moved",)}
    assert moved.members[-1].name == "h1"
    assert {one.severity for one in moved.members} == {Severity.OK}
    back = judge_fleet(site_of(0.0, 0.001, -0.001, then_s=0.06), FleetPolicy())
    assert [one.suspected for one in back.members] == [(), (), ()]


def test_what_several_hosts_moved_by_is_not_said_of_each() -> None:
    """Each by what is proved of it; hosts of which next to nothing is proved are not called moved."""
    known = {"a": (0.011, 0.51), "b": (0.012, 0.51), "c": (0.4, 0.5)}
    hosts = [host(name)._replace(offset=Offset(ends[0], *ends)) for name, ends in known.items()]
    read = snapshot(*hosts, before=dict.fromkeys(known, Offset(0.0, 0.0, 0.0)))
    finding = only(judge_fleet(read, FleetPolicy()), "site-moved")
    assert finding.value_s == 0.4
    assert "each by at least 11 ms; a common shift of at least 400 ms fits all of them" in finding.message
    barely = [hosts[0]._replace(offset=Offset(0.009, 0.009, 0.51)), *hosts[1:]]
    assert only(judge_fleet(read._replace(hosts=tuple(barely)), FleetPolicy()), "site-moved").hosts == ("b", "c")


def test_a_site_that_came_back_is_reported_and_does_not_count() -> None:
    """All of it that moved is nearer to the true time for certain; one that went past it as far is not back."""
    finding = only(judge_fleet(site_of(0.0, 0.001, -0.001, then_s=0.06), FleetPolicy()), "site-moved")
    assert (finding.level, finding.severity) == ("low", Severity.OK)
    assert finding.message == (
        "3 of 3 hosts at ams moved back towards the true time within 60 min, each by at least 55 ms; a common shift "
        "of at least 57 ms fits all of them"
    )
    assert finding.remedy.startswith("it is over")
    assert only(judge_fleet(site_of(-0.06, -0.06, -0.06, then_s=0.06), FleetPolicy()), "site-moved").level == "high"


def test_hosts_without_a_site_are_no_site_that_moves() -> None:
    """They have nothing in common except that their site is unknown; each may still shift."""
    read = site_of(0.05, 0.05, 0.05)
    placeless = read._replace(hosts=tuple(one._replace(site=None) for one in read.hosts))
    fleet = judge_fleet(placeless, FleetPolicy())
    assert found(fleet, "site-moved") == []
    assert len(found(fleet, "slow-walk")) == 3


def test_oscillators_that_run_free_are_no_site_that_moves() -> None:
    """Three that nothing steers, and whose agents say so, drift by chance by much the same."""
    read = site_of(0.0612, 0.072, 0.0828, half_s=0.01)
    assert found(judge_fleet(read, FleetPolicy()), "site-moved")
    alarms = tuple(Alarm(one.name, "daemon-count", Severity.WARNING, NOW_NS) for one in read.hosts)
    assert [one.id for one in judge_fleet(read._replace(alarms=alarms), FleetPolicy()).findings] == []


@pytest.mark.parametrize(
    "now_s",
    [
        (0.05, 0.05),  # too few to be a site's
        (0.05, 0.05, 0.0, 0.0),  # no more than half
        (0.05, 0.2, 0.4),  # each by an amount of its own
        (0.05, -0.05, 0.05, -0.05),  # not the same way
        (0.0135, 0.0135, 0.0135),  # 9.5 ms for certain, of 10
        (0.003, 0.003, 0.003),  # nothing is proved
    ],
)
def test_what_is_no_common_movement_of_a_site(now_s: tuple[float, ...]) -> None:
    """Only what is proved, shared by most and large enough counts."""
    assert found(judge_fleet(site_of(*now_s), FleetPolicy()), "site-moved") == []


def walk(
    *,
    now_s: float = 0.04,
    then_s: float = 0.0,
    frequency_ppm: float | None = 10.0,
    severity: Severity = Severity.OK,
    alarms: Sequence[Alarm] = (),
) -> list[FleetFinding]:
    """What is found about a host that stands there now, and stood there an hour ago."""
    one = host("a", now_s, 0.002, frequency_ppm=frequency_ppm, severity=severity)
    read = snapshot(one, host("b"), host("c"), host("d"), before={"a": offset(then_s, 0.002)}, alarms=alarms)
    return found(judge_fleet(read, FleetPolicy()), "slow-walk")


def test_a_slow_shift_is_reported_with_its_proven_size() -> None:
    """A ramp of 40 ms an hour under a tolerance of 100 ms."""
    [finding] = walk()
    assert (finding.level, finding.site, finding.hosts) == ("medium", "ams", ("a",))
    assert finding.value_s == pytest.approx(0.036)
    assert finding.message == (
        "a fell behind by at least 36 ms within 60 min, away from the true time and without a step; it is now 40 ms "
        "behind, and its own agent reports ok"
    )
    [ahead] = walk(now_s=-0.04, frequency_ppm=None)
    assert ahead.message.startswith("a ran ahead by at least 36 ms")
    assert walk(alarms=[Alarm("a", "step-back", Severity.WARNING, NOW_NS - 3631 * NS_PER_S)])


@pytest.mark.parametrize(
    "case",
    [
        {"now_s": 0.101},  # the tolerance covers it
        {"now_s": 0.0039},  # the intervals overlap
        {"now_s": 0.0059},  # 1.9 ms for certain, of 2
        {"severity": Severity.CRITICAL},  # its own agent reports it
        {"severity": Severity.UNKNOWN},  # or does not know
        {"now_s": 0.02, "then_s": -0.0171},  # it may be nearer than it was
        {"frequency_ppm": -10.0},  # it is on its way back
        {"now_s": 0.002, "then_s": -0.09},  # it was corrected
        {"now_s": 0.0, "then_s": 0.09, "frequency_ppm": -10.0},  # and so was this one
        {"alarms": [Alarm("a", "step-forward", Severity.WARNING, NOW_NS - 3630 * NS_PER_S)]},  # it stepped
        {
            "alarms": [  # it stepped since, whatever else it did before
                Alarm("a", "step-forward", Severity.WARNING, NOW_NS - 3620 * NS_PER_S),
                Alarm("a", "step-back", Severity.WARNING, NOW_NS - 4000 * NS_PER_S),
            ]
        },
    ],
)
def test_what_is_no_slow_walk(case: dict[str, float]) -> None:
    """A shift that is not proven, too small, towards the truth, a step, or reported elsewhere is none."""
    assert walk(**case) == []  # type: ignore[arg-type]


def test_many_slow_walks_at_a_site_are_one_finding() -> None:
    """Five hosts are reported one by one, six together."""

    def walks(count: int) -> list[FleetFinding]:
        hosts = [host(f"h{number}", 0.02 + 0.01 * number, 0.001) for number in range(count)]
        read = snapshot(*hosts, *(host(f"still{number}") for number in range(count)))
        return found(
            judge_fleet(read._replace(baseline={one.name: offset(0.0, 0.001) for one in read.hosts}), FleetPolicy()),
            "slow-walk",
        )

    assert [finding.hosts for finding in walks(5)] == [("h4",), ("h3",), ("h2",), ("h1",), ("h0",)]
    [finding] = walks(6)
    assert finding.hosts == ("h0", "h1", "h2", "h3", "h4", "h5")
    assert finding.message.startswith(
        "6 hosts at ams slowly move away from the true time; h5 fell behind by at least 68 ms"
    )


@pytest.mark.parametrize(("short", "level"), [(0, None), (1, "low"), (5, "low"), (6, "medium"), (100, "medium")])
def test_coverage_by_its_share(short: int, level: str | None) -> None:
    """Nothing where all hosts are measured by two sources; low while any is not; medium below 95 %."""
    hosts = [host(f"h{number:02}", usable=1 if number < short else 2) for number in range(100)]
    findings = found(judge_fleet(snapshot(*hosts), FleetPolicy()), "coverage")
    assert [finding.level for finding in findings] == ([] if level is None else [level])
    for finding in findings:
        share = f"{100 - short} %" if short <= 5 else f"{100 - short} %, 95 % expected"
        assert finding.message.removeprefix("only ").startswith(
            f"{100 - short} of 100 hosts ({share}) are measured by two or more servers, 0 by three or more (0 %); "
            "not covered: h00 (1 server)"
        )
        assert finding.message.startswith("only ") == (short > 5)
        assert len(finding.hosts) == short


@pytest.mark.parametrize(
    ("usable", "words"),
    [
        (2, "fix silent and unmeasured hosts"),
        (1, "first fix silent and unmeasured hosts by their own findings; then configure at least two"),
    ],
)
def test_hosts_that_are_only_silent_need_no_more_sources(usable: int, words: str) -> None:
    """The fix of coverage is that of the silence if every host that reports has two sources."""
    read = snapshot(host("a"), host("b", usable=usable), host("quiet", ago_s=900))
    assert only(judge_fleet(read, FleetPolicy()), "coverage").remedy.startswith(words)


def test_a_share_is_rounded_down() -> None:
    """Only all of them are 100 %."""
    assert share(9999, 10_000) == "99.9 %"
    assert share(10_000, 10_000) == "100 %"
    assert share(0, 10) == "0 %"
    assert share(0, 0) == "0 %"


def test_many_names_are_counted() -> None:
    """A message names a few hosts; the finding has them all."""
    names = tuple(f"h{number}" for number in range(6))
    finding = only(judge_fleet(snapshot(host("a")), FleetPolicy(inventory=("a", *names))), "evidence-gap")
    assert finding.message == "h0, h1, h2 and 3 more are in the inventory, but the database has no point of them"
    assert finding.hosts == names
    four = only(judge_fleet(snapshot(host("a")), FleetPolicy(inventory=("a", *names[:4]))), "evidence-gap")
    assert four.message == "h0, h1, h2 and h3 are in the inventory, but the database has no point of them"


def test_every_finding_bears_on_rules() -> None:
    """Each names the controls that it bears on."""
    assert all(rule.controls for rule in RULES)


def test_findings_come_worst_first() -> None:
    """By level, and equals in the order of the rules."""
    wrong = host("a", 5.0, severity=Severity.CRITICAL)
    hosts = [wrong, host("b"), host("c", usable=1), host("d", ago_s=900), host("e", ago_s=2 * DAY_S)]
    fleet = judge_fleet(snapshot(*hosts), FleetPolicy())
    assert [(finding.level, finding.id) for finding in fleet.findings] == [
        ("high", "ordering-risk"),
        ("high", "evidence-gap"),
        ("medium", "evidence-gap"),
        ("medium", "coverage"),
    ]
    assert all(finding.severity is Severity.WARNING for finding in fleet.findings)

"""The cast of the simulated fleet, at every size."""

from collections import Counter

import pytest

from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.scenario import (
    CORRECT_SOURCES,
    FALSETICKER_SITE,
    FAULTS,
    MOVED_SITE,
    SHARE,
    WALKED_SITE,
    build_scenario,
)
from tests.demo.expected import expected_findings

END_NS = 1_795_000_000 * NS_PER_S
STANDINGS = ("critical", "warning", "silent", "unmeasured", "ok")


@pytest.mark.parametrize("hosts", [3, 10, 24, 25, 300, 10_000])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_host_has_a_name_a_site_and_one_standing(hosts: int, seed: int) -> None:
    """Names are unique, sites are nearly equal in size, and the truth puts each host into exactly one place."""
    scenario = build_scenario(hosts, 6.0, seed, END_NS)
    names = [part.name for part in scenario.hosts]
    assert len(set(names)) == len(names) == hosts
    assert all(part.name.startswith(f"{part.site}-") for part in scenario.hosts)
    sizes = Counter(part.site for part in scenario.hosts).values()
    assert max(sizes) - min(sizes) <= 1
    found = expected_findings(scenario)
    assert sorted(name for status in STANDINGS for name in getattr(found, status)) == sorted(names)
    assert {step.host for step in found.stepped} | found.slow_walkers <= set(names)


@pytest.mark.parametrize("hosts", [24, 300, 10_000])
def test_faults_are_spread_in_their_share(hosts: int) -> None:
    """A fleet of 24 has every fault once, a larger one 0.5 % of each; a slow walk is an attack on a few."""
    scenario = build_scenario(hosts, 6.0, 3, END_NS)
    counts = Counter(part.fault.name for part in scenario.hosts)
    for fault in FAULTS:
        assert counts[fault.name] == max(1, hosts // 2000 if fault.name == "slow-walk" else round(SHARE * hosts))
    assert {part.site for part in scenario.hosts if part.fault.name == "slow-walk"} == {WALKED_SITE}
    found = expected_findings(scenario)
    assert set(found.sites_moved) == {MOVED_SITE}
    assert all(
        name.startswith(f"{FALSETICKER_SITE}-") for (names,) in [found.shared_falsetickers.values()] for name in names
    )
    if hosts == 24:
        assert found.risky_sites == {"ams", "fra"}
    else:
        assert len(scenario.hosts) // len({part.site for part in scenario.hosts}) in range(100, 201)
        assert len(found.critical) == 2 * round(SHARE * hosts)


def test_a_small_fleet_has_the_first_of_the_faults() -> None:
    """Ten hosts have three of the nine faults, so that most of them are in order."""
    scenario = build_scenario(10, 6.0, 1, END_NS)
    assert {part.fault.name for part in scenario.hosts} == {"healthy", *(fault.name for fault in FAULTS[:3])}


def test_only_the_seed_decides_the_hosts() -> None:
    """The same seed casts the same fleet at any time; another seed another one."""
    one, later, other = (build_scenario(24, 6.0, *rest) for rest in ((1, END_NS), (1, END_NS + 1), (2, END_NS)))
    assert one.hosts[::3] == later.hosts[::3]  # but for the moment from which a server lies, at the second site
    assert [part.fault for part in one.hosts] == [part.fault for part in later.hosts]
    assert [part.fault for part in one.hosts] != [part.fault for part in other.hosts]


def test_honest_servers_are_as_right_as_they_say() -> None:
    """Every honest server is wrong by less than its own root distance, and no two share an upstream server."""
    for source in CORRECT_SOURCES:
        assert abs(source.error_s) < source.root_delay_s / 2 + source.root_dispersion_s
        assert source.error_ns(END_NS) == round(source.error_s * NS_PER_S)
    assert len({source.reference_id for source in CORRECT_SOURCES}) == len(CORRECT_SOURCES)


def test_the_falseticker_is_wrong_from_its_time_on() -> None:
    """Before that it is right, after it 37 s ahead: TAI for UTC."""
    falseticker = build_scenario(24, 6.0, 1, END_NS).sources[-1]
    assert falseticker.error_ns(falseticker.fault_ns - 1) == 0
    assert falseticker.error_ns(falseticker.fault_ns) == 37 * NS_PER_S


def test_an_impossible_scenario_is_refused() -> None:
    """Too few hosts or hours are a ValueError that says how many it takes."""
    for hosts, hours in ((2, 24.0), (24, 5.9), (24, float("nan"))):
        with pytest.raises(ValueError, match="3 hosts and 6 h"):
            build_scenario(hosts, hours, 1, END_NS)


def test_only_faults_count() -> None:
    """A host whose fault is over, or that only its fleet can see, is in order by itself."""
    assert {fault.name for fault in FAULTS if fault.severity is Severity.OK} == {
        "repaired-step",
        "slow-walk",
        "suspended",
    }

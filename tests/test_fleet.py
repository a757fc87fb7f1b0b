"""What a fleet is found to be is what it is: simulated fleets whose truth is known, in every database."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ntpaudit.core.units import NS_PER_S, format_utc, parse_utc
from ntpaudit.demo.scenario import HostSpec, Scenario, build_scenario
from tests.command import Ran, ntpaudit
from tests.demo.expected import ExpectedFindings, expected_findings
from tests.world.flaky import FORWARD, FlakyDatabase
from tests.world.servers import influxd, victoria_metrics

pytestmark = pytest.mark.untraced  # each simulates a fleet in another process

SEED = 3
HOURS = 6.0

VISIBLE_S = 12.0
"""VictoriaMetrics remembers for some ten seconds which series match a query: new ones are missing for that time."""


class Found(NamedTuple):
    """A fleet whose truth is known, and the report of `ntpaudit fleet`: an object, and a page.

    `made` is what the demonstration printed; `state` is the folder of both commands.
    """

    made: Ran
    state: Path
    story: Scenario
    truth: ExpectedFindings
    said: dict[str, Any]
    page: str

    def states(self, severity: str, *, silent: bool = False) -> set[str]:
        """Return the hosts of a severity, silent ones or others."""
        return {host["host"] for host in self.said["hosts"] if (host["severity"], host["silent"]) == (severity, silent)}

    def findings(self, kind: str) -> list[dict[str, Any]]:
        """Return the fleet's findings of a kind."""
        return [finding for finding in self.said["findings"] if finding["id"] == kind]


def look(state: Path, fill: tuple[str, ...], read: tuple[str, ...], *, hosts: int = 24) -> Found:
    """Simulate a fleet that ended a minute ago, and ask what it was then."""
    end_ns = (time.time_ns() // NS_PER_S - 60) * NS_PER_S
    until = format_utc(end_ns)
    size = ("--hosts", str(hosts), "--hours", str(HOURS), "--seed", str(SEED), "--until", until)
    made = ntpaudit("demo", *size, *fill, state=state, timeout_s=600.0)
    assert made.status == 0, made.err
    if "promql" in read:
        time.sleep(VISIBLE_S)
    page = state / "fleet.html"
    asked = ntpaudit("fleet", *read, "--at", until, "--format", "json", "--html", str(page), state=state)
    assert asked.status == 2, asked.err
    scenario = build_scenario(hosts, HOURS, SEED, end_ns)
    return Found(made, state, scenario, expected_findings(scenario), json.loads(asked.out), page.read_text())


@pytest.fixture(scope="module")
def over_udp(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A fleet made as a newcomer would, only of a shorter time."""
    return look(tmp_path_factory.mktemp("fleet"), (), ("--demo",))


@pytest.fixture(scope="module", params=["embedded, over UDP", "embedded, 104 hosts", "InfluxDB", "VictoriaMetrics"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """A fleet, in each database."""
    state = tmp_path_factory.mktemp("fleet")
    with ExitStack() as stack:
        match request.param:
            case "embedded, over UDP":
                yield request.getfixturevalue("over_udp")
            case "embedded, 104 hosts":
                yield look(state, (), ("--demo",), hosts=104)  # above 100 hosts nothing is sent
            case "InfluxDB":
                real = stack.enter_context(influxd())
                proxy = stack.enter_context(FlakyDatabase(real, lambda _: FORWARD))  # it speaks version 2 to write
                fill = ("--no-udp", "--influx-url", proxy.url)
                yield look(state, fill, ("--url", real))
            case "VictoriaMetrics":
                url = stack.enter_context(victoria_metrics())
                fill = ("--no-udp", "--influx-url", url)
                yield look(state, fill, ("--url", url, "--language", "promql"))


def test_it_says_what_is_found_and_where_to_look_next(over_udp: Found) -> None:
    """The result is that of `ntpaudit fleet --demo`, on standard output; that all is simulated is said beside it."""
    ran, state = over_udp.made, over_udp.state
    assert (
        ran.err == "ntpaudit: demonstration: hosts, clocks and servers are simulated, some of them wrong on purpose\n"
    )
    again = ntpaudit("fleet", "--demo", state=state)
    assert ran.out.startswith(again.out)
    assert "24 hosts in 3 sites, 6 h until" in ran.out
    for words in ("fleet --demo --flagged", "fleet --demo --html demo.html", "fleet order --demo"):
        assert f"\n  ntpaudit {words}" in ran.out
    command = next(line for line in ran.out.splitlines() if "fleet order" in line).split()[1:]
    assert ntpaudit(*command, state=state).out.startswith("WARNING  timestamps on")


def test_every_host_is_what_it_is(found: Found) -> None:
    """Hosts that are wrong, suspicious, silent, unmeasured and in order are found, and no other in their place."""
    assert found.states("critical") == found.truth.critical
    assert found.states("warning") == found.truth.warning
    assert found.states("unknown", silent=True) == found.truth.silent
    assert found.states("unknown") == found.truth.unmeasured
    assert found.states("ok") == found.truth.ok


def test_every_host_has_its_findings(found: Found) -> None:
    """The findings in force that count are those of each host's fault."""
    counted = {
        host["host"]: {alarm["id"] for alarm in host["alarms"] if alarm["severity"] != "ok"}
        for host in found.said["hosts"]
        if not host["silent"]
    }
    assert counted == found.truth.findings


def test_every_offset_holds_the_truth(found: Found) -> None:
    """Every interval reaches to where the story has put that clock, give or take what its time daemon leaves."""
    offsets = {host["host"]: host["offset"] for host in found.said["hosts"] if host["offset"] and not host["silent"]}
    assert offsets.keys() == {part.name for part in found.story.hosts} - found.truth.silent - found.truth.unmeasured
    for part in found.story.hosts:
        if part.name in offsets and part.fault.name != "recent-step":  # that is still being slewed away
            earliest_s, latest_s = behind_s(found, part)
            assert offsets[part.name]["earliest_s"] <= latest_s, part
            assert offsets[part.name]["latest_s"] >= earliest_s, part
            assert offsets[part.name]["direction"] == ("behind" if offsets[part.name]["estimate_s"] > 0 else "ahead")


def behind_s(found: Found, part: HostSpec) -> tuple[float, float]:
    """Return how far the story has put a clock behind: at least, and at most."""
    match part.fault.name:
        case "time-zone":
            return -3600.05, -3599.95
        case "undisciplined":
            hours = (found.story.end_ns - found.story.begin_ns) / NS_PER_S / 3600
            drifted_s = part.behind_s + part.oscillator_ppm * 1e-6 * hours * 3600
            return drifted_s * 0.99, drifted_s * 1.01
        case "slow-walk":
            return -0.085, -0.065
    forward_s = found.truth.sites_moved.get(part.site, 0.0)
    return -forward_s - 0.004, -forward_s + 0.004


def test_recent_steps_are_found(found: Found) -> None:
    """A host that was set back within the last hour is reported with size and time; no other is."""
    end_ns = found.story.end_ns
    reported = {
        (host["host"], alarm["id"]): alarm
        for host in found.said["hosts"]
        for alarm in host["alarms"]
        if alarm["id"].startswith("step-")
    }
    true = {
        (step.host, "step-back" if step.size_s < 0 else "step-forward"): step
        for step in found.truth.stepped
        if end_ns - step.utc_ns < 3600 * NS_PER_S
    }
    assert true
    assert reported.keys() == true.keys()
    for key, step in true.items():
        assert reported[key]["value_s"] == pytest.approx(step.size_s, abs=0.02)
        assert abs(parse_utc(reported[key]["since"]) - step.utc_ns) < NS_PER_S


def test_every_step_is_on_the_page(found: Found) -> None:
    """Each that the story has, of the whole history, with its host, its way and its moment; and no other."""
    listed = re.findall(r'<li><time datetime="([^"]+)">.*?>([-\w]+)</a>: set (back|forward) by', found.page)
    reported = sorted((host, way, parse_utc(when.replace("Z", "000000Z"))) for when, host, way in listed)
    true = sorted(
        (step.host, "back" if step.size_s < 0 else "forward", step.utc_ns)
        for step in found.truth.stepped
        if step.utc_ns > found.story.end_ns - 86_400 * NS_PER_S
    )
    assert true
    assert [step[:2] for step in reported] == [step[:2] for step in true]
    assert all(abs(one[2] - other[2]) < NS_PER_S for one, other in zip(reported, true, strict=True))


def test_hosts_that_moved_unseen_are_suspected(found: Found) -> None:
    """Those of the site that moved and that walk, whatever their own agents say; and no other."""
    suspected = {host["host"]: host["suspected"] for host in found.said["hosts"] if host["suspected"]}
    expected = {
        name: [finding["id"]]
        for finding in found.said["findings"]
        for name in finding["hosts"]
        if finding["id"] in ("site-moved", "slow-walk")
    }
    assert suspected == expected
    assert len(suspected) > 2


def test_what_happened_to_several_is_one_finding(found: Found) -> None:
    """A falseticker, a site that shifts and a slow shift are found with their hosts, once each, and no other."""
    sources = {finding["source"]: set(finding["hosts"]) for finding in found.findings("shared-falseticker")}
    assert sources == found.truth.shared_falsetickers
    moved = found.findings("site-moved")
    assert {finding["site"] for finding in moved} == set(found.truth.sites_moved)
    assert len(moved) == len(found.truth.sites_moved)
    for finding in moved:
        forward_s = found.truth.sites_moved[finding["site"]]
        assert 0.5 * forward_s < -finding["value_s"] <= 1.01 * forward_s  # positive is behind; proved, so no more
        there = {part.name for part in found.story.hosts if part.site == finding["site"]}
        assert set(finding["hosts"]) == there - found.truth.silent - found.truth.unmeasured
    walks = found.findings("slow-walk")
    assert {name for finding in walks for name in finding["hosts"]} == found.truth.slow_walkers


def test_order_and_silence_are_at_risk_where_they_are(found: Found) -> None:
    """Sites whose events cannot be ordered are named, with those hosts that are why; and the silent."""
    risks = {finding["site"]: set(finding["hosts"]) for finding in found.findings("ordering-risk")}
    sites = {part.name: part.site for part in found.story.hosts}
    assert set(risks) == found.truth.risky_sites
    assert all(hosts == {name for name in found.truth.critical if sites[name] == site} for site, hosts in risks.items())
    gaps = found.findings("evidence-gap")
    assert {name for finding in gaps for name in finding["hosts"]} == found.truth.silent


def test_coverage_counts_hosts_that_are_not_measured(found: Found) -> None:
    """Coverage is of all hosts that should report, less the silent and the unmeasured."""
    missing = len(found.truth.silent | found.truth.unmeasured)
    single = sum(len(part.sources) == 1 for part in found.story.hosts)
    hosts = len(found.story.hosts)
    assert found.said["coverage"] == {
        "hosts": hosts,
        "measured": hosts - missing,
        "by_two": hosts - missing - single,
        "by_three": hosts - missing - single,
    }


def test_the_page_says_the_same(found: Found) -> None:
    """Every host that is not ok is on the page, and its counts are those of the truth."""
    flagged = found.truth.critical | found.truth.warning | found.truth.silent | found.truth.unmeasured
    assert all(f">{name}<" in found.page for name in flagged)
    assert f"{len(found.truth.critical)} of {len(found.story.hosts)} clocks" in found.page.replace("&nbsp;", " ")

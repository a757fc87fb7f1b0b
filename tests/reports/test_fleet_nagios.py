"""A fleet as a plugin's line."""

import re
from collections.abc import Mapping

from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import FleetPolicy, Host, Offset
from ntpaudit.core.policy import Severity
from ntpaudit.formats.nagios import plugin_line
from ntpaudit.reports.fleet_nagios import render
from tests.snapshots import BEFORE, HOSTS, SNAPSHOT, host


def test_one_line_with_counts() -> None:
    """State, sentence, and performance data whose counts add up."""
    assert render(judge_fleet(SNAPSHOT, FleetPolicy())) == (
        "NTPAUDIT CRITICAL - 1 of 13 clocks is wrong for certain (ams-web-1), 2 silent, 1 otherwise unknown, 1 "
        "with warnings, 8 ok; 7 fleet findings, worst ordering-risk | hosts=13;;;0; ok=8;;;0; warning=1;;;0; "
        "unknown=3;;;0; critical=1;;;0; silent=2;;;0; expected=13;;;0; measured=10;;;0; two_sources=10;;;0; "
        "three_sources=10;;;0; findings=7;;;0; accepted=0;;;0; ambiguity=37.0806s;;;0;\n"
    )


def line_of(*hosts: Host, forgotten: tuple[str, ...] = (), before: Mapping[str, Offset] = BEFORE) -> str:
    """Write the line of a fleet without its performance data."""
    return render(
        judge_fleet(
            SNAPSHOT._replace(hosts=hosts, expired=forgotten, baseline=before, falseticker_reports=(), alarms=()),
            FleetPolicy(),
        )
    ).partition(" | ")[0]


def test_the_worst_hosts_are_named() -> None:
    """Those that the line begins with, three at most; and where none is worse than ok, those of the worst finding."""
    bad = [host(f"ams-{number}", 5.0 + number, severity=Severity.CRITICAL, verdict="beyond") for number in range(5)]
    unproven = host("ams-x", 0.9, 0.2, severity=Severity.CRITICAL, verdict="unproven")
    assert "3 of 4 clocks are wrong for certain (ams-2, ams-1, ams-0), 1 critical;" in line_of(*bad[:3], unproven)
    assert "all 5 clocks are wrong for certain (ams-4, ams-3, ams-2 and 2 more);" in line_of(*bad)
    assert "- the only clock is critical (ams-x)" in line_of(unproven)
    unknown = host("ams-y", None, severity=Severity.UNKNOWN, verdict="unmeasured")
    assert "1 of 2 clocks is silent (lon-old), 1 otherwise unknown;" in line_of(unknown, forgotten=("lon-old",))
    assert "- the only clock is unknown (ams-y)" in line_of(unknown)
    moved = [one for one in HOSTS if one.name.startswith("sto")]
    assert line_of(*moved) == (
        "NTPAUDIT WARNING - all 5 clocks are ok; 1 fleet finding, worst site-moved "
        "(sto-node-0, sto-node-1, sto-node-2 and 2 more)"
    )
    assert line_of(*moved, before={}) == "NTPAUDIT OK - all 5 clocks are ok"


def test_whatever_hosts_are_called_it_stays_a_short_line() -> None:
    """A name is cut in its middle, and neither breaks the line nor begins performance data."""
    evil = [
        host("ams-", 5.0, severity=Severity.CRITICAL, verdict="beyond")._replace(name=f"a|b\n{'x' * 9999}{number}")
        for number in range(9)
    ]
    line = line_of(*evil)
    assert len(line) < 500
    assert "clocks are wrong for certain (a/b xx" in line
    assert re.search(r"~x+[0-9] and 6 more\)$", line)


def test_what_is_not_known_is_u() -> None:
    """A single host has no events of others to order."""
    alone = judge_fleet(SNAPSHOT._replace(hosts=SNAPSHOT.hosts[:1], expired=()), FleetPolicy())
    assert re.search(r" ambiguity=U;;;0;\n$", render(alone))


def test_that_nothing_could_be_read_is_one_line() -> None:
    """The line has the fix; a bar would begin performance data."""
    assert plugin_line(Severity.UNKNOWN, "no | way; find\none", ()) == "NTPAUDIT UNKNOWN - no / way; find one\n"
    assert plugin_line(Severity.UNKNOWN, "no way", ()) == "NTPAUDIT UNKNOWN - no way\n"

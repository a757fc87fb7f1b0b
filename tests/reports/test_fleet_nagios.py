"""A fleet as a plugin's line."""

import re

from ntpaudit.core.fleet import Terms
from ntpaudit.core.fleet_rules import judge_fleet
from ntpaudit.reports.fleet_nagios import render, render_absence
from tests.snapshots import SNAPSHOT


def test_one_line_with_counts() -> None:
    """State, sentence, and performance data whose counts add up."""
    assert render(judge_fleet(SNAPSHOT, Terms())) == (
        "NTPAUDIT CRITICAL - 1 of 13 clocks is wrong for certain, 2 silent, 1 not known, 1 with warnings, 8 ok; "
        "7 findings about the fleet, worst ordering-risk | hosts=13;;;0; ok=8;;;0; warning=1;;;0; unknown=3;;;0; "
        "critical=1;;;0; silent=2;;;0; expected=13;;;0; measured=10;;;0; two_sources=10;;;0; three_sources=10;;;0; "
        "findings=7;;;0; ambiguity=37.0806s;;;0;\n"
    )


def test_what_is_not_known_is_u() -> None:
    """One host has nobody to be ordered with."""
    alone = judge_fleet(SNAPSHOT._replace(hosts=SNAPSHOT.hosts[:1], forgotten=()), Terms())
    assert re.search(r" ambiguity=U;;;0;\n$", render(alone))


def test_that_nothing_could_be_read_is_one_line() -> None:
    """With what would mend it; a bar would begin performance data."""
    assert render_absence("no | way", "find\none") == "NTPAUDIT UNKNOWN - no / way; find one\n"
    assert render_absence("no way") == "NTPAUDIT UNKNOWN - no way\n"

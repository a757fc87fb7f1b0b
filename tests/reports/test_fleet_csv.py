"""A fleet as CSV: what a spreadsheet or a program reads back."""

import csv
from io import StringIO
from math import inf

import pytest

from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import FleetPolicy
from ntpaudit.core.policy import Severity
from ntpaudit.reports.fleet_csv import render
from tests.snapshots import ALARMS, HOSTS, SNAPSHOT

FLEET = judge_fleet(SNAPSHOT, FleetPolicy())


def rows(text: str) -> list[dict[str, str]]:
    """Read CSV back."""
    return list(csv.DictReader(StringIO(text, newline="")))


def test_every_host_is_a_line_of_as_many_values_as_the_header() -> None:
    """Worst first; what is not known is empty."""
    text = render(FLEET)
    assert {len(line) for line in csv.reader(StringIO(text, newline=""))} == {30}
    assert text.count("\r\n") == len(FLEET.members) + 1
    read = {row["host"]: row for row in rows(text)}
    assert list(read) == [one.name for one in FLEET.members]
    assert read["ams-web-1"] == {
        "host": "ams-web-1", "site": "ams", "env": "prod", "severity": "critical", "verdict": "beyond",
        "silent": "0", "silent_s": "", "last_seen": "2027-01-15T07:59:30.000000000Z",
        "offset_s": "37.0012", "earliest_s": "36.9892", "latest_s": "37.0132", "bound_s": "37.0132", "age_s": "12",
        "frequency_ppm": "", "usable": "4", "falsetickers": "1", "findings": "1", "alarms": "offset-out source-quorum",
        "low_alarms": "", "suspected": "", "reported": "critical", "disputed_s": "0",
        "daemon": "", "daemon_follows": "", "daemon_synchronised": "", "daemon_offset_s": "", "daemon_bound_s": "",
        "daemon_unapproved": "", "daemon_excess_s": "", "accepted": "",
    }  # fmt: skip
    assert (read["fra-gw"]["silent"], read["fra-gw"]["silent_s"]) == ("1", "7800")
    assert {key: value for key, value in read["lon-old"].items() if value} == {
        "host": "lon-old", "severity": "unknown", "silent": "1", "silent_s": "86400",
    }  # fmt: skip
    assert {name: row["suspected"] for name, row in read.items() if row["suspected"]} == {
        "fra-db-3": "slow-walk", **{f"sto-node-{number}": "site-moved" for number in range(5)},
    }  # fmt: skip
    assert list(read["fra-db-3"])[-9] == "disputed_s"
    low = FLEET.members[0]._replace(alarms=tuple(one._replace(severity=Severity.OK) for one in ALARMS[1:2]))
    [row] = rows(render(FLEET, [low]))
    assert (row["alarms"], row["low_alarms"]) == ("source-quorum", "source-quorum")
    assert (read["fra-laptop"]["offset_s"], read["fra-laptop"]["verdict"]) == ("", "unmeasured")


def test_only_the_hosts_asked_for_are_listed() -> None:
    """The first two."""
    assert [row["host"] for row in rows(render(FLEET, FLEET.members[:2]))] == ["ams-web-1", "lon-old"]


@pytest.mark.parametrize(
    "name", ['=HYPERLINK("x")', " =1+1", "\u00a0 =1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "\uff1d1", "\uff201"]
)
def test_no_name_is_a_formula(name: str) -> None:
    """A name that a spreadsheet would run is marked as text; any other is left as it is."""
    odd = HOSTS[0]._replace(name=name, frequency_ppm=inf)
    [row] = rows(render(judge_fleet(SNAPSHOT._replace(hosts=(odd,), expired=()), FleetPolicy())))
    assert row["host"] == f"'{name}"
    assert row["frequency_ppm"] == ""

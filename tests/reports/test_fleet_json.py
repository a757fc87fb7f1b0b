"""A fleet as JSON: everything that is known of it, and no number that JSON does not have."""

import json
import re
from math import inf, nan

from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import FleetPolicy, Offset
from ntpaudit.core.fleet.ordering import order
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import format_utc
from ntpaudit.reports.fleet_json import ORDER_SCHEMA, SCHEMA, render, render_absence, render_order
from tests.records import NOW_NS
from tests.snapshots import ALARMS, HOSTS, SNAPSHOT
from tests.world.packages import REPOSITORY

FLEET = judge_fleet(SNAPSHOT, FleetPolicy())
DOCUMENTED = (REPOSITORY / "docs" / "fleet.md").read_text()


def test_all_of_it_is_there() -> None:
    """Counts, coverage, findings, sites and hosts are those of the fleet."""
    report = json.loads(render(FLEET))
    assert report["schema"] == SCHEMA
    assert report["time"] == {"utc": "2027-01-15T08:00:00.000000000Z"}
    assert report["severity"] == "critical"
    assert report["counts"] == {"hosts": 13, "ok": 8, "warning": 1, "unknown": 3, "critical": 1, "silent": 2}
    assert report["coverage"] == {"hosts": 13, "measured": 10, "by_two": 10, "by_three": 10}
    assert report["ambiguity"]["hosts"] == ["ams-web-1", "sto-node-4"]
    assert [finding["id"] for finding in report["findings"]] == [finding.id for finding in FLEET.findings]
    assert report["findings"][1] | {"message": "", "remedy": "", "controls": []} == {
        "id": "shared-falseticker", "severity": "warning", "level": "high", "message": "", "remedy": "", "controls": [],
        "site": None, "source": "ntp9.example.net", "hosts": ["ams-db-1", "ams-web-1", "ams-web-2"], "value_s": 37.0,
        "accepted": None,
    }  # fmt: skip
    assert [site["site"] for site in report["sites"]] == ["ams", "fra", "sto", None]
    first = report["hosts"][0]
    assert first["offset"] == {
        "estimate_s": 37.0012, "earliest_s": 36.9892, "latest_s": 37.0132, "bound_s": 37.0132, "direction": "behind",
    }  # fmt: skip
    assert [alarm["id"] for alarm in first["alarms"]] == ["offset-out", "source-quorum"]
    assert (first["silent"], first["silent_s"], first["verdict"]) == (False, None, "beyond")
    hosts = {one["host"]: one for one in report["hosts"]}
    assert (hosts["fra-gw"]["silent"], hosts["fra-gw"]["silent_s"]) == (True, 7800.0)
    assert hosts["lon-old"] == {
        "host": "lon-old", "site": None, "severity": "unknown", "silent": True, "silent_s": 86400.0, "forgotten": True,
        "alarms": [], "suspected": [],
    }  # fmt: skip
    assert hosts["fra-laptop"]["offset"] is None
    assert (hosts["sto-node-0"]["suspected"], hosts["fra-db-3"]["suspected"]) == (["site-moved"], ["slow-walk"])


def test_only_the_hosts_asked_for_are_listed_and_all_are_counted() -> None:
    """A selection changes no count."""
    report = json.loads(render(FLEET, FLEET.members[:2]))
    assert [one["host"] for one in report["hosts"]] == ["ams-web-1", "lon-old"]
    assert report["counts"]["hosts"] == 13


def test_what_is_not_a_number_is_null() -> None:
    """NaN and infinity are no JSON."""
    odd = HOSTS[0]._replace(age_s=nan, frequency_ppm=inf)
    [host, *_] = json.loads(render(judge_fleet(SNAPSHOT._replace(hosts=(odd,)), FleetPolicy())))["hosts"]
    assert (host["age_s"], host["frequency_ppm"]) == (None, None)


def test_a_failed_reading_is_reported_too() -> None:
    """The same schema, unknown, and why."""
    report = json.loads(render_absence("no way"))
    common = {"schema": SCHEMA, "severity": "unknown", "hosts": None}
    assert report == common | {"summary": "no way", "reason": "no way", "remedy": None}
    report = json.loads(render_absence("no; way", "find one"))
    assert report == common | {"summary": "no; way; find one", "reason": "no; way", "remedy": "find one"}


def test_the_order_of_two_hosts() -> None:
    """The limits of both kinds of stamps, and the larger ones of them."""
    said = order(HOSTS[0], HOSTS[2], HOSTS[0].last_ns)
    assert said is not None
    report = json.loads(render_order(said, [37.0012, -0.0004], NOW_NS, Severity.WARNING))
    assert (report["schema"], report["severity"], report["hosts"]) == (
        ORDER_SCHEMA,
        "warning",
        ["ams-web-1", "ams-db-1"],
    )
    assert (report["time"], report["estimates_s"]) == ({"utc": format_utc(NOW_NS)}, [37.0012, -0.0004])
    assert report["within_s"] == report["first_s"] == round(said.first_s, 9)
    assert report["corrected_within_s"] == 0.021 == round(max(said.corrected_first_s, said.corrected_second_s), 9)


def test_seconds_end_at_the_nanosecond() -> None:
    """What stands behind that is the noise of sums, wherever a number is."""
    odd = HOSTS[0]._replace(
        offset=Offset(0.1 + 0.2, 0.1 + 0.2 - 0.01, 0.1 + 0.2 + 1 / 3), age_s=1 / 3, frequency_ppm=1 / 3
    )
    alarms = (ALARMS[0]._replace(value_s=1 / 3),)
    report = render(judge_fleet(SNAPSHOT._replace(hosts=(odd, *HOSTS[1:]), alarms=alarms), FleetPolicy()))
    order_of = order(odd, HOSTS[2], odd.last_ns)
    assert order_of is not None
    for text in (report, render_order(order_of, [1 / 3, 0.1 + 0.2], NOW_NS, Severity.OK)):
        assert re.findall(r"[0-9]\.[0-9]{10,}", text) == []


def test_every_key_is_documented() -> None:
    """docs/fleet.md names all of them."""
    report = json.loads(render(FLEET))
    said = order(HOSTS[0], HOSTS[2], HOSTS[0].last_ns)
    assert said is not None
    keys = {*report, *report["findings"][0], *report["hosts"][0], *report["hosts"][0]["offset"], *report["sites"][0]}
    keys |= {*json.loads(render_absence("no way"))}
    keys |= {*report["hosts"][0]["alarms"][0], *report["counts"], *report["coverage"], *report["ambiguity"]}
    for key in keys | {*json.loads(render_order(said, [0.0, 0.0], NOW_NS, Severity.OK))}:
        assert f"`{key}`" in DOCUMENTED, key

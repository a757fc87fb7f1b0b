"""A fleet as text: what is said, in which order, and in how much room."""

import re
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import (
    Alarm,
    DuplicateHost,
    FalsetickerReport,
    Fleet,
    FleetPolicy,
    Host,
    HostStatus,
    Offset,
)
from ntpaudit.core.fleet.ordering import order
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import format_utc
from ntpaudit.reports import fleet_nagios
from ntpaudit.reports.fleet_summary import sentence
from ntpaudit.reports.fleet_text import FINDINGS, ROWS, first_rows, render, render_absence, render_order
from tests.records import NOW_NS
from tests.snapshots import HOSTS, SNAPSHOT, host
from tests.world.packages import REPOSITORY

FLEET = judge_fleet(SNAPSHOT, FleetPolicy())
EMPTY = SNAPSHOT._replace(hosts=(), alarms=(), falseticker_reports=(), baseline={}, expired=())


def fleet_of(*severities: Severity, silent: int = 0) -> Fleet:
    """Judge hosts of these severities, and silent ones."""
    hosts = [host(f"ams-{number}", 0.0, 0.001, severity) for number, severity in enumerate(severities)]
    hosts += [host(f"ams-silent-{number}", 0.0, ago_s=700) for number in range(silent)]
    return judge_fleet(EMPTY._replace(hosts=tuple(hosts)), FleetPolicy())


def test_the_documented_output_is_what_is_printed() -> None:
    """docs/fleet.md shows a fleet as a terminal of 100 columns does."""
    shown = re.search(r"```text\n(.*?)```", (REPOSITORY / "docs" / "fleet.md").read_text(), re.DOTALL)
    assert shown
    assert shown[1] == render(FLEET, width=100)


OK, WARNING, UNKNOWN, CRITICAL = Severity


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        (fleet_of(), "no host has reported within the look-back time"),
        (fleet_of(OK), "the only clock is ok"),
        (fleet_of(OK, OK), "all 2 clocks are ok"),
        (fleet_of(OK, OK, WARNING), "1 of 3 clocks has warnings, 2 ok"),
        (fleet_of(CRITICAL, WARNING, WARNING, UNKNOWN), "1 of 4 clocks is critical, 1 unknown, 2 with warnings"),
        (fleet_of(CRITICAL, CRITICAL), "all 2 clocks are critical"),
        (
            fleet_of(OK, silent=2),
            "2 of 3 clocks are silent, 1 ok; 2 fleet findings, worst evidence-gap",
        ),
        (
            FLEET,
            "1 of 13 clocks is wrong for certain, 2 silent, 1 otherwise unknown, 1 with warnings, 8 ok; "
            "7 fleet findings, worst ordering-risk",
        ),
    ],
)
def test_what_a_fleet_comes_down_to(fleet: Fleet, said: str) -> None:
    """The worst comes first with its number; the numbers add up to all of them."""
    assert sentence(fleet) == said
    assert render(fleet).splitlines()[0].startswith(f"{fleet.severity.name}  {said[:60]}")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200, None])
def test_no_line_is_wider_than_the_terminal(width: int | None) -> None:
    """Where there is a terminal lines fit, and no name that fits is cut."""
    lines = render(FLEET, width=width).splitlines()
    if width is not None:
        assert max(map(len, lines)) <= width
    table = [line for line in lines if re.match(r"(ams|fra|sto|lon)-", line)]
    assert len(table) == len(FLEET.members)
    for line, one in zip(table, FLEET.members, strict=True):
        assert one.name == line.split()[0]


def test_columns_are_given_up_in_their_order() -> None:
    """First the sources, then when it was seen, the worst case, the site, what was found; never the offset."""

    def titles(width: int) -> str:
        return next(line for line in render(FLEET, width=width).splitlines() if line.startswith("host "))

    assert titles(100).split() == [
        "host",
        "site",
        "state",
        "offset",
        "at",
        "most",
        "sources",
        "last",
        "seen",
        "findings",
    ]
    assert titles(80).split()[-5:] == ["at", "most", "last", "seen", "findings"]
    assert titles(66).split()[-3:] == ["at", "most", "findings"]
    assert titles(60).split()[-3:] == ["state", "offset", "findings"]
    assert titles(56).split()[-3:] == ["state", "offset", "findings"]
    assert titles(46).split() == ["host", "state", "offset"]
    assert titles(40).split() == ["host", "state", "offset"]


LONG = [f"amsterdam-{role}-{number}.servers.example.net" for role in ("web", "database") for number in (1, 2, 11)]


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_long_names_stay_apart(width: int) -> None:
    """What is cut is cut in its middle, or loses a domain without information, and no two rows begin alike."""
    fleet = judge_fleet(EMPTY._replace(hosts=tuple(host(name, 0.0) for name in LONG)), FleetPolicy())
    lines = render(fleet, width=width).splitlines()
    assert max(map(len, lines)) <= width
    names = [line.split()[0] for line in lines if line.startswith("amst")]
    assert len(set(names)) == len(LONG)
    for name in names:
        head, _, tail = name.removesuffix("~").partition("~")
        assert any(one.startswith(head) and tail in one for one in LONG)


def test_a_row_says_where_the_clock_stands() -> None:
    """Behind and ahead in words, the worst case, sources that lie, when it was seen, what its agent found."""
    rows = {line.split()[0]: " ".join(line.split()) for line in render(FLEET).splitlines() if line}
    assert rows["ams-web-1"] == "ams-web-1 ams critical 37 s behind 37.1 s 4, 1 false 30 s offset-out +1"
    assert rows["sto-node-4"] == "sto-node-4 sto ok 60.4 ms ahead 64.4 ms 4 30 s site-moved"
    assert rows["fra-db-3"].endswith(" 30 s slow-walk")
    assert rows["fra-gw"] == "fra-gw fra silent 2.17 h"
    assert rows["lon-old"] == "lon-old silent > 24 h"
    assert rows["fra-laptop"] == "fra-laptop fra unknown 0 30 s"


def test_an_offset_of_exactly_zero_has_no_direction() -> None:
    """It is neither behind nor ahead."""
    assert re.search(r"^ams-0 +ams +ok +0 ns off ", render(fleet_of(OK)), re.MULTILINE)


def test_a_host_that_never_reported_was_never_seen() -> None:
    """That is another thing than to be forgotten."""
    fleet = judge_fleet(SNAPSHOT, FleetPolicy(inventory=("lon-old", "new")))
    rows = {line.split()[0]: line.split() for line in render(fleet).splitlines() if line}
    assert (rows["new"][-1], rows["lon-old"][-3:]) == ("never", [">", "24", "h"])


def test_names_reach_no_terminal_as_they_are() -> None:
    """Line breaks and control characters in all that was read are spaces, wherever it is shown."""
    evil = "a\n\x1b[2J\u202eb"
    one = host(evil, 2.0, severity=Severity.CRITICAL)._replace(site=evil, env=evil)
    read = EMPTY._replace(
        hosts=(one, one._replace(name="b"), one._replace(name="c"), one._replace(name="d", offset=None)),
        alarms=(Alarm(evil, evil, Severity.WARNING, 0),),
        falseticker_reports=tuple(FalsetickerReport(evil, name, 1.0) for name in (evil, "b", "c")),
        expired=(evil * 2,),
        duplicate_hosts=(DuplicateHost(evil, (evil, None)),),
    )
    fleet = judge_fleet(read, FleetPolicy(ambiguity_s=1e-6))
    said = order(one, read.hosts[1], one.last_ns)
    assert said is not None
    texts = [render(fleet, width=width) for width in (40, 100, None)] + [render_order(said, [2.0, 2.0], NOW_NS, OK)]
    for line in "".join(texts).splitlines():
        assert line.isprintable()


def test_sites_are_summed_up_where_there_are_several() -> None:
    """With how far apart events must be there; one site alone needs no table of sites."""
    rows = {line.split()[0]: " ".join(line.split()) for line in render(FLEET).splitlines() if line}
    assert rows["ams"] == "ams 3 1 2 37.1 s ams-web-1 and ams-web-2"
    assert rows["(none)"] == "(none) 1 1"
    assert "hardest to order" not in render(fleet_of(OK, OK))


def test_every_host_that_is_not_ok_is_shown_and_as_many_others_as_fit() -> None:
    """The rest is counted, with how to see it."""
    many = fleet_of(*[OK] * 50, *[WARNING] * 3)
    shown = render(many)
    assert len(first_rows(many.members)) == ROWS
    assert "... and 13 more ok; to list all 53: --limit 53\n" in shown
    bad = fleet_of(*[OK] * 5, *[WARNING] * (ROWS + 1))
    assert len(first_rows(bad.members)) == ROWS + 1
    assert render(bad).endswith("... and 5 more ok; to list all 46: --limit 46\n")
    few = render(bad, bad.members[:2])
    assert f"... and {ROWS - 1} more warning, 5 more ok" in few
    assert "\n... and" not in render(many, many.members)


def test_a_low_finding_of_a_host_is_shown_as_such() -> None:
    """It is no reason for a warning."""
    low = FLEET.members[0]._replace(name="x", alarms=(Alarm("x", "source-quorum", OK, 0), Alarm("x", "y", OK, 0)))
    assert re.search(r"^x .*  \(low\) source-quorum \+1$", render(FLEET, [low]), re.MULTILINE)
    suspected = low._replace(suspected=("slow-walk", "site-moved"))
    assert re.search(r"^x .*  slow-walk \+3$", render(FLEET, [suspected]), re.MULTILINE)
    warned = suspected._replace(alarms=(Alarm("x", "source-quorum", OK, 0), Alarm("x", "step-back", WARNING, 0)))
    assert re.search(r"^x .*  step-back \+3$", render(FLEET, [warned]), re.MULTILINE)


def test_a_remedy_that_neighbours_share_is_shown_once() -> None:
    """Below the last of them; one that others share further down is shown again."""
    gap, other = FLEET.findings[5], FLEET.findings[6]
    lines = render(FLEET._replace(findings=(gap, gap, other, gap)), width=100).splitlines()
    begun = [line.split()[0] if line[0] != " " else "fix" for line in lines if re.match(r"medium|  +fix:", line)]
    assert begun == ["medium", "medium", "fix", "medium", "fix", "medium", "fix"]


def test_hosts_that_are_hard_to_order_are_named_in_full_or_not_at_all() -> None:
    """Half a name identifies no host: first ok hosts are dropped for it, and then the column."""
    for width in range(60, 110):
        table = render(FLEET, width=width).partition("\nsite ")[2]
        assert ("ams-web-1 and ams-web-2\n" in table) == ("hardest to order" in table)
    assert "hardest to order" in render(FLEET, width=85)
    assert "~" not in render(FLEET, width=80)


def test_coverage_says_of_which_hosts() -> None:
    """Of those in the inventory, where there is one; and how many others report."""
    assert "coverage  1 of 1 host is measured (100 %)" in render(fleet_of(OK))
    hosts = EMPTY._replace(hosts=HOSTS[:3])
    some = " ".join(render(judge_fleet(hosts, FleetPolicy(inventory=("ams-web-1", "x")))).split())
    assert "coverage 1 of 2 hosts in the inventory is measured (50 %)" in some
    assert "by three or more (50 %); 2 others report" in some
    one = " ".join(render(judge_fleet(hosts, FleetPolicy(inventory=("ams-web-1", "ams-db-1")))).split())
    assert "(100 %); 1 other report" in one
    all_of_them = render(judge_fleet(EMPTY._replace(hosts=HOSTS[:1]), FleetPolicy(inventory=("ams-web-1",))))
    assert "1 of 1 host in the inventory is measured" in all_of_them
    assert "other" not in all_of_them


@pytest.mark.parametrize("blank", ["", " "])
def test_one_long_name_does_not_widen_every_line(blank: str) -> None:
    """A name of 10 kB, from a database that anybody may write to, stands with its two ends; all other lines stay."""
    name = f"web{blank}" * 3000
    bad = host("ams-x", 3.2, 0.02, Severity.CRITICAL)._replace(name=name, site=name)
    fleet = judge_fleet(SNAPSHOT._replace(hosts=(bad, *HOSTS)), FleetPolicy())
    lines = render(fleet).splitlines()
    assert max(map(len, lines)) < 500
    assert len(lines) < len(render(FLEET).splitlines()) + 50
    assert any(line.startswith("web") and "[...]" in line for line in lines)
    assert len(fleet_nagios.render(fleet)) < 2500


def test_every_alphabet_is_shown_unchanged() -> None:
    """In the table as in the messages."""
    text = render(judge_fleet(EMPTY._replace(hosts=(host("köln-1", 0.0),), expired=("zürich-ü",)), FleetPolicy()))
    assert "köln-1 köln ok" in " ".join(text.split())
    assert "evidence-gap: zürich-ü is in the database" in text


def test_a_failed_reading_is_reported_with_its_remedy() -> None:
    """Apart, and in as much room as there is."""
    text = render_absence("a; b " * 20, "do this; or that", width=40)
    assert text.startswith("UNKNOWN  a; b a; b")
    assert text.endswith("\n         fix: do this; or that\n")
    assert max(map(len, text.splitlines())) <= 40
    assert render_absence("a; b", "") == "UNKNOWN  a; b\n"


def test_findings_beyond_a_screen_are_counted() -> None:
    """The worst are named."""
    many = FLEET._replace(findings=FLEET.findings[-1:] * (FINDINGS + 2))
    assert render(many).count("coverage: only 10 of 13 hosts") == FINDINGS
    assert "... and 2 more findings (--format json has all)" in render(many)


def test_colours_move_nothing() -> None:
    """Without its colours a text is the plain one."""
    painted = render(FLEET, width=100, colour=True)
    assert "\x1b[31mcritical" in painted
    assert re.sub(r"\x1b\[\d+m", "", painted) == render(FLEET, width=100)


@given(st.text(max_size=30), st.sampled_from([None, 80]))
def test_a_hostile_name_breaks_no_line(name: str, width: int | None) -> None:
    """Nothing that a database holds reaches a terminal but printable characters."""
    bad = host("ams-x", 0.0)._replace(name=name, site=name)
    members = (HostStatus(name, name, WARNING, bad), HostStatus(f"{name}2", None, UNKNOWN, None, inf))
    text = render(
        judge_fleet(SNAPSHOT._replace(hosts=(bad, *HOSTS)), FleetPolicy())._replace(members=members), width=width
    )
    assert all(line.isprintable() for line in text.split("\n"))


def test_a_correction_that_widens_is_not_called_enough() -> None:
    """Where the intervals are wide beside the offsets, corrected stamps need more distance than those as they are."""
    one, other = (
        Host(name, "ams", None, NOW_NS, Severity.OK, "within", Offset(estimate_s, -0.008, 0.0076))
        for name, estimate_s in (("a", 0.0), ("b", 0.0))
    )
    shifted = other._replace(offset=Offset(-0.0002, -0.0078, 0.0076))
    for pair in ((one, other), (one, shifted)):
        said = order(*pair, NOW_NS)
        assert said is not None
        assert said.corrected_within_s >= said.within_s
        text = " ".join(render_order(said, [0.0, 0.0], NOW_NS, WARNING).split())
        assert "is enough" not in text
        assert "corrected more than 15." in text


def test_the_order_of_two_hosts_is_said_for_stamps_as_they_are_and_corrected() -> None:
    """Also where an event came first although its stamp is later."""
    web, db = HOSTS[0], HOSTS[2]
    said = order(web, db, web.last_ns)
    assert said is not None
    text = " ".join(render_order(said, [37.0012, -0.0004], NOW_NS, WARNING, width=80).split())
    assert text.startswith(
        "WARNING timestamps on ams-web-1 and ams-db-1 can order events more than 37.1 s apart "
        "clocks ams-web-1 is 37 s behind, ams-db-1 is 400 µs ahead "
    )
    assert "the event on ams-web-1 came first if the timestamp on ams-db-1 is more than 37.1 s later" in text
    assert "the event on ams-db-1 came first, even if the timestamp on ams-web-1 is up to 36.9 s earlier" in text
    assert (
        "corrected if you add to the timestamps of a clock what it is behind, or subtract what it is ahead, 21 ms"
        in text
    )
    assert text.endswith(f"as of {format_utc(NOW_NS)[:19].replace('T', ' ')} UTC")

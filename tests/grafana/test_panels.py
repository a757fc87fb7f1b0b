"""What every panel displays, text and colour, by Grafana's own library, against what is true of the databases."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from grafana.__main__ import BOARDS, boards
from grafana.alerts import FINDING_RULES
from grafana.links import FINDINGS, LOGS_URL
from grafana.panels import NO_HOST, NOT_KNOWN, SILENT
from grafana.queries import LANGUAGES, SOURCES, Language
from ntpaudit.core.observation import Claim
from tests.grafana.library import Cell, Library, Shown
from tests.grafana.replay import Choices, Span, ask_influxql, ask_promql
from tests.grafana.worlds import CLAIMS, DAY_S, DISPUTED, HOUR_S, JUDGED, KEPT, OFFSETS_S, WRONG_S, Filled, Odd
from tests.records import SYNCHRONISED

EVERY = [(language, name) for language in LANGUAGES for name in BOARDS]
GREEN, YELLOW, RED = "#73BF69", "#FADE2A", "#F2495C"
GREY = {NOT_KNOWN, SILENT}
CLEAR = "#00000000"
"""No ground at all."""

PLAIN = "#ccccdc"
"""The colour of text."""

SERVERS = ("servers: earliest", "servers", "servers: latest")
CLAIMED = {name: claim for name, claim in CLAIMS.items() if isinstance(claim, Claim) and claim.is_synchronised}

WORST = "Worst hosts"
ORDER = "Order now"
AMBIGUITY = "Order ambiguity of the selected hosts"
WIDTH = 1600


def choices(**chosen: tuple[str, ...]) -> Choices:
    """Return what is chosen at the top: all sites, and whatever is named."""
    some: dict[str, tuple[str, ...]] = {"site": (), "env": (), "host": (KEPT[0],), "hosts": KEPT[:2], "every": ("50",)}
    return some | {"docs": (FINDINGS,), "logs": (LOGS_URL,)} | chosen


class Screen:
    """Both worlds, shown by Grafana's library; what was shown once is kept."""

    def __init__(self, grafana: Library, urls: Mapping[Language, str], end_ms: int) -> None:
        self._grafana, self._urls, self._end_ms = grafana, urls, end_ms
        self._kept: dict[object, dict[str, Shown]] = {}

    def show(
        self,
        language: Language,
        board: str,
        *,
        later_s: float = 0.0,
        hours: float = 6.0,
        only: tuple[str, ...] | None = None,
        **chosen: tuple[str, ...],
    ) -> dict[str, Shown]:
        """Return the panels of a dashboard, or some, whose range ends `later_s` after the last point."""
        key = (language, board, later_s, hours, only, tuple(sorted(chosen.items())))
        if key not in self._kept:
            end_ms = self._end_ms + round(later_s * 1000)
            span = Span(end_ms - round(hours * HOUR_S * 1000), end_ms)
            made = boards(language)[board]
            url = self._urls[language]
            self._kept[key] = self._grafana.show(made, language, url, span, choices(**chosen), panels=only)
        return self._kept[key]


@pytest.fixture(scope="module")
def demo(grafana: Library, filled: Filled) -> Screen:
    """The demonstration's fleet."""
    return Screen(grafana, filled.urls, filled.span.end_ms)


@pytest.fixture(scope="module")
def strange(grafana: Library, odd: Odd) -> Screen:
    """The odd hosts."""
    return Screen(grafana, odd.urls, odd.end_ms)


@pytest.fixture(scope="module")
def doubted(grafana: Library, disputed: Odd) -> Screen:
    """Hosts whose stamps or severities are wrong."""
    return Screen(grafana, disputed.urls, disputed.end_ms)


@pytest.fixture(scope="module")
def nothing(grafana: Library, empty: Mapping[Language, str], odd: Odd) -> Screen:
    """Databases without a point."""
    return Screen(grafana, empty, odd.end_ms)


def cells(shown: Shown) -> Iterator[Cell]:
    """Yield every cell that is on the screen."""
    yield from shown.values.values()
    for row in shown.rows:
        yield from row.values()


def texts(shown: Shown) -> dict[str, str]:
    """Return the texts of a stat or of bars, by title."""
    return {title: cell.text for title, cell in shown.values.items()}


# ---- every panel


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_every_panel_shows_something(
    language: Language, name: str, demo: Screen, strange: Screen, doubted: Screen
) -> None:
    """None is refused, has an option that Grafana does not know, or is empty in every world: none is exempt.

    And every column that has settings is somewhere on the screen.
    """
    host = ("ams-log1",)
    first = demo.show(language, name, hours=24 if name == "host" else 6, host=host, hosts=(*host, "fra-mail1"))
    second = strange.show(language, name, host=("hour-ahead",), hosts=("web.1", "seldom"))
    third = doubted.show(language, name)
    every = [one for panel in boards(language)[name]["panels"] for one in (panel, *panel.get("panels", ()))]
    fields = {panel["title"]: panel.get("fieldConfig", {}).get("overrides", ()) for panel in every}
    for title, shown in first.items():
        other = second[title]
        assert shown.errors == other.errors == (), title
        if shown.kind == "text":
            assert shown.text
            continue
        assert shown.frames <= 1, f"{title}: a table shows one of {shown.frames} answers"
        assert shown.empty is None or other.empty is None, title
        if shown.kind == "table":
            set_up = {one["matcher"]["options"] for one in fields[title] if one["matcher"]["id"] == "byName"}
            assert set_up <= {*shown.columns, *other.columns, *third[title].columns}, title
        wanted = {one for shows in (shown, other) for one, line in shows.series.items() if any_value(line.values)}
        assert wanted == set(shown.series) | set(other.series), f"{title}: a line without a value in both worlds"


def any_value(values: tuple[object, ...]) -> bool:
    """Whether a line has a value at all."""
    return any(value is not None for value in values)


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_an_empty_database_is_no_good_news(language: Language, name: str, nothing: Screen) -> None:
    """Nothing is green, no text says that clocks are well, and no panel is an error."""
    for title, shown in nothing.show(language, name).items():
        assert shown.errors == (), title
        if shown.kind == "text":
            continue
        assert shown.empty, title
        assert not re.search(r"\bok\b|every clock|all clocks|nothing", shown.empty.replace("other than ok", "")), title
        assert {cell.color for cell in shown.values.values()} <= GREY, title
        assert not shown.rows


@pytest.mark.parametrize("language", LANGUAGES)
def test_silence_is_no_good_news(language: Language, strange: Screen) -> None:
    """20 minutes after the last point every host is silent; after two days none is known: nothing is green."""
    names = {"hour-ahead", "siteless", "unmeasured", "silent", "seldom", *KEPT}
    later = strange.show(language, "fleet", later_s=20 * 60)
    assert texts(later["Clocks now"]) in (
        {"": NO_HOST},
        dict.fromkeys(("ok", "warning", "unknown", "critical"), NO_HOST),
    )
    assert texts(later["Silent"]) == {"silent": str(len(names))}
    assert set(later["Silent hosts"].column("host")) == names
    assert later[WORST].rows == ()
    assert later["Coverage"].values["measured"].text == "0.0%"
    gone = strange.show(language, "fleet", later_s=2 * DAY_S)
    for shows in (later, gone):
        assert GREEN not in {
            cell.color for title in ("Clocks now", "Silent", "Coverage") for cell in cells(shows[title])
        }
    assert set(texts(gone["Silent"]).values()) == {"no known host"}
    for name in (KEPT[0], "unmeasured"):
        for later_s in (20 * 60, 2 * DAY_S):
            now = strange.show(language, "host", later_s=later_s, host=(name,))
            judging = [now[title] for title in ("Reports", "State", "Offset", "Sources")]
            assert {cell.color for shown in judging for cell in cells(shown)} <= GREY, name


# ---- the fleet


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_fleet_is_counted_as_it_is(language: Language, demo: Screen, filled: Filled) -> None:
    """How many hosts are at each severity, and in which colours."""
    found, shows = filled.truth, demo.show(language, "fleet")
    clocks = shows["Clocks now"].values
    counts = {"ok": found.ok, "warning": found.warning, "unknown": found.unmeasured, "critical": found.critical}
    assert {title: cell.text for title, cell in clocks.items()} == {key: str(len(one)) for key, one in counts.items()}
    assert [cell.color for cell in clocks.values()] == [GREEN, YELLOW, NOT_KNOWN, RED]
    assert (texts(shows["Silent"]), shows["Silent"].values["silent"].color) == ({"silent": "1"}, SILENT)
    assert set(shows[WORST].column("host")) == found.critical | found.warning | found.unmeasured
    assert shows[WORST].column("state") == ["critical", "critical", "unknown", "warning", "warning"]
    (unmeasured,) = (row for row in shows[WORST].rows if row["state"].text == "unknown")
    assert {unmeasured[name].text for name in ("offset", "direction", "at most")} == {"-"}
    assert {unmeasured[name].color for name in ("offset", "at most")} == {CLEAR}


@pytest.mark.parametrize("language", LANGUAGES)
def test_findings_are_named(language: Language, demo: Screen, filled: Filled) -> None:
    """Each bar has the name of its finding, and each row leads to what the finding means."""
    shows = demo.show(language, "fleet")
    rows = [(row["host"].text, row["finding"].text) for row in shows["Raised findings"].rows]
    wanted = {(host, kind) for host, kinds in filled.truth.findings.items() for kind in kinds}
    assert wanted <= set(rows)
    bars = {title: int(cell.text) for title, cell in shows["Raised findings by kind"].values.items()}
    assert bars == Counter(kind for _, kind in rows)
    for (_, kind), (href,) in zip(rows, shows["Raised findings"].links["finding"], strict=True):
        assert href == f"{FINDINGS}#{kind}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_accepted_findings_are_shown_apart(language: Language, strange: Screen) -> None:
    """By the last event of each: one is accepted, the other is no longer; what agents accept counts nowhere else."""
    shows = strange.show(language, "fleet")
    accepted = [(row["host"].text, row["finding"].text, row["state"].text) for row in shows["Accepted findings"].rows]
    assert accepted == [("seldom", "daemon-count", "ok")]
    assert shows["Raised findings"].column("finding") == ["kiss-of-death"]
    assert texts(shows["Raised findings by kind"]) == {"kiss-of-death": "1"}
    if language == "influxql":
        (message,) = shows["Accepted findings"].column("message and fix")
        assert message == "so it is; accepted until 2199-01-01 00:00 UTC by ops: container"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_host_that_is_gone_has_no_finding_in_force(language: Language, strange: Screen, odd: Odd) -> None:
    """Its finding was never cleared; ten days later it is nothing to act on. No rule fires for it either."""
    shows = strange.show(language, "fleet")
    assert "vanished" not in shows["Raised findings"].column("host")
    assert "unsynced" not in shows["Raised findings by kind"].values
    earlier = strange.show(language, "fleet", later_s=-10 * DAY_S + HOUR_S)
    assert earlier["Raised findings"].column("host") == ["vanished"]
    assert texts(earlier["Raised findings by kind"]) == {"unsynced": "1"}
    (rule,) = (one for one in FINDING_RULES if one.name == "unsynced")
    if language == "influxql":
        assert ask_influxql(odd.urls[language], rule.influxql.query).rows == ()
    else:
        assert ask_promql(odd.urls[language], rule.promql.query, {}, odd.span(), 60).rows == ()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_site_has_its_silent_hosts_and_a_name(language: Language, strange: Screen) -> None:
    """A silent host is counted at its site; hosts without a site have a row and lines of their own."""
    shows = strange.show(language, "fleet")
    rows = {row["site"].text: row for row in shows["Sites"].rows}
    assert set(rows) == {"s.1", "s-1", "s-2", "no site"}
    assert {site: row["silent"].text for site, row in rows.items()} == {
        "s.1": "0",
        "s-1": "1",
        "s-2": "0",
        "no site": "0",
    }
    assert rows["s-1"]["silent"].color == SILENT
    lines = shows["Sites, ahead and behind (long range)"].series
    ends = ("farthest ahead", "farthest behind")
    assert set(lines) == {f"{site}: {end}" for site in rows for end in ends}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_last_span_of_time_is_whole(language: Language, demo: Screen, filled: Filled) -> None:
    """At the right edge of the graph there are as many hosts as report, and none vanishes for an edge."""
    lines = demo.show(language, "fleet")["Hosts by state (long range)"].series
    found = filled.truth
    assert {name: line.values[-1] for name, line in lines.items()} == {
        "ok": len(found.ok),
        "warning": len(found.warning),
        "unknown": len(found.unmeasured),
        "critical": len(found.critical),
    }


# ---- names


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", KEPT)
def test_a_host_is_not_mistaken_for_another(name: str, language: Language, strange: Screen) -> None:
    """Whatever a name is made of: its own offset is shown, and no other host's."""
    shows = strange.show(language, "host", host=(name,))
    assert all(not shown.errors for shown in shows.values())
    assert shows["Offset"].values["offset"].value == pytest.approx(OFFSETS_S[name], abs=5e-4)
    assert shows["Reports"].values["reports"].text == "reports"
    band = shows["Offset and bound"].series
    assert {round(value, 3) for value in band["offset"].values if value is not None} == {OFFSETS_S[name]}
    assert sum(value is not None for value in shows["Audits received"].series["audits"].values) >= 12
    assert max(value or 0 for value in shows["Audits received"].series["audits"].values) in (10, 11)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_link_leads_to_its_host(language: Language, strange: Screen) -> None:
    """With the data source, the sites and the environment that are chosen, and the range; and to its logs."""
    shows = strange.show(language, "integrity", hosts=KEPT, site=("s.1",))
    intervals = shows["Intervals of the selected hosts"]
    assert set(intervals.column("host")) == set(KEPT)
    for row, (href, logs) in zip(intervals.rows, intervals.links["host"], strict=True):
        asked = parse_qs(urlsplit(href).query)
        assert asked["var-host"] == [row["host"].text]
        assert asked["var-datasource"] == [SOURCES[language]]
        assert (asked["var-site"], asked["var-env"]) == (["s.1"], ["$__all"])
        assert set(asked) >= {"from", "to"}
        assert unquote(logs.removeprefix(LOGS_URL)) == row["host"].text


# ---- one host


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_silent_host_is_grey(language: Language, strange: Screen) -> None:
    """It is called silent, and no panel judges its clock; the time of its last point is shown."""
    shows = strange.show(language, "host", host=("silent",))
    assert (shows["Reports"].values["reports"].text, shows["Reports"].values["reports"].color) == ("silent", SILENT)
    for title in ("State", "Offset", "Sources"):
        assert {cell.color for cell in cells(shows[title])} <= GREY
    assert "silent" in {cell.text for cell in cells(shows["State"])}
    (seen,) = cells(shows["Last seen"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", seen.text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_unmeasured_host_is_not_green(language: Language, strange: Screen) -> None:
    """It reports, and that is all that is green; null is grey."""
    shows = strange.show(language, "host", host=("unmeasured",))
    assert shows["Reports"].values["reports"].color == GREEN
    assert texts(shows["State"]) == {"state": "unknown", "verdict": "unmeasured"}
    assert {cell.text for cell in cells(shows["Offset"])} == {"not known"}
    for title in ("State", "Offset", "Sources"):
        assert GREEN not in {cell.color for cell in cells(shows[title])}
    assert shows["Sources"].values["usable"].color == RED


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_gap_in_the_evidence_is_a_gap_in_the_line(language: Language, strange: Screen) -> None:
    """A host that reports every five minutes has one line, which ends where its points end."""
    band = strange.show(language, "host", host=("silent",), hours=8)["Offset and bound"].series["offset"]
    ((begin, end),) = band.segments
    span_s = (end - begin) / 1000
    assert span_s == pytest.approx(6 * HOUR_S - 20 * 60 - 300, abs=300)


@pytest.mark.parametrize("language", LANGUAGES)
def test_drift_has_an_axis_that_can_be_read(language: Language, strange: Screen) -> None:
    """An agent that has just begun knows its drift within 2000 ppm: that is no line beside 12 ppm."""
    lines = strange.show(language, "host", host=(KEPT[0],))["Drift"].series
    drawn = [value for line in lines.values() for value in line.values if value is not None]
    assert min(drawn) > 11
    assert max(drawn) < 13


# ---- what the time daemon and the kernel state


def drawn(shown: Shown) -> dict[str, set[float]]:
    """Return the values of each line that has any, to a tenth of a millisecond."""
    lines = {name: {round(one, 4) for one in line.values if one is not None} for name, line in shown.series.items()}
    return {name: values for name, values in lines.items() if values}


@pytest.mark.parametrize("language", LANGUAGES)
def test_three_statements_are_on_one_axis(language: Language, strange: Screen) -> None:
    """The servers', the daemon's and the kernel's, each with its sign: a clock an hour ahead is below zero."""
    kernel = {"kernel": {SYNCHRONISED.maxerror_s}, "kernel: earliest": {-SYNCHRONISED.maxerror_s}}
    for name in CLAIMED:
        shows = strange.show(language, "host", host=(name,))
        statements, claim = drawn(shows["Three statements"]), CLAIMED[name]
        assert claim.offset_s is not None
        assert claim.bound_s is not None
        assert {line: values for line, values in statements.items() if line not in kernel | dict.fromkeys(SERVERS)} == {
            "daemon": {round(claim.offset_s, 4)},
            "daemon: latest": {round(claim.offset_s + claim.bound_s, 4)},
            "daemon: earliest": {round(claim.offset_s - claim.bound_s, 4)},
        }
        assert {line: statements[line] for line in kernel} == kernel
        band = drawn(shows["Offset and bound"])
        assert [statements[line] for line in SERVERS] == [band[line] for line in ("earliest", "offset", "latest")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_daemon_is_shown_with_what_contradicts_it(language: Language, strange: Screen) -> None:
    """What it follows and states, and how far that is from what the servers prove: 0 if both can be right."""
    for name, claim in CLAIMED.items():
        (row,) = strange.show(language, "host", host=(name,))["Time daemon"].rows
        assert (row["synchronised"].text, row["update age"].text) == ("yes", "12 s")
        assert (row["states"].value, row["its bound"].value) == (claim.offset_s, claim.bound_s)
        assert row["direction"].text == ("behind" if (claim.offset_s or 0) > 0 else "ahead")
        if language == "influxql":
            assert (row["daemon"].text, row["follows"].text) == ("chronyd", claim.follows)
    right, wrong = (strange.show(language, "host", host=(name,))["Time daemon"].rows[0] for name in CLAIMED)
    assert (right["contradicted by"].value, right["contradicted by"].color) == (0, CLEAR)
    assert wrong["contradicted by"].value == pytest.approx(3600 - 0.25 - 0.05, abs=0.01)
    assert wrong["contradicted by"].color == YELLOW
    assert wrong["measured"].value == pytest.approx(-3600, abs=0.01)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["siteless", "unmeasured", "seldom"])
def test_what_is_not_stated_is_no_zero(name: str, language: Language, strange: Screen) -> None:
    """Where no daemon runs, its claim cannot be read, or it states no number: no line and no number."""
    shows = strange.show(language, "host", host=(name,))
    assert not [line for line in drawn(shows["Three statements"]) if line.startswith("daemon")]
    claim = shows["Time daemon"]
    assert claim.errors == ()
    numbers = ("states", "direction", "its bound", "contradicted by", "update age")
    assert {row[number].text for row in claim.rows for number in numbers if number in row} <= {"-"}
    synchronised = {row["synchronised"].text for row in claim.rows}
    assert synchronised == ({"no"} if name == "seldom" else set(synchronised) & {"-"})
    assert claim.rows or (claim.empty or "").startswith("The last point has no claim")


@pytest.mark.parametrize("language", LANGUAGES)
def test_doubtful_daemons_are_listed(language: Language, strange: Screen) -> None:
    """First what the servers contradict, then what follows none; nothing that is right or cannot be read."""
    listed = strange.show(language, "fleet")["Doubtful time daemons"]
    assert listed.column("host") == ["hour-ahead", "seldom"]
    assert listed.column("synchronised") == ["yes", "no"]
    assert [row["states"].text for row in listed.rows] == ["-250.000 ms", "-"]
    assert [row["measured"].value for row in listed.rows] == pytest.approx([-3600, 0.0015], abs=0.001)
    if language == "influxql":
        assert listed.column("follows") == ["192.0.2.66", "-"]


# ---- what is not to be believed


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_host_that_delivers_is_never_ok_by_mistake_and_never_silent(language: Language, doubted: Screen) -> None:
    """Whatever its stamps and its severity: it is judged by its points, and is a warning where its time is disputed."""
    shows = doubted.show(language, "fleet")
    assert all(not shown.errors for shown in shows.values())
    counts = {title: str(len(names)) for title, names in JUDGED.items()}
    assert texts(shows["Clocks now"]) | texts(shows["Silent"]) == counts
    assert texts(shows["Time disputed"]) == {"time disputed": str(len(DISPUTED))}
    assert shows["Time disputed"].values["time disputed"].color == YELLOW
    assert set(shows["Silent hosts"].column("host")) == JUDGED["silent"]
    worst = {(row["host"].text, row["state"].text) for row in shows[WORST].rows}
    assert worst == {(name, state) for state in ("warning", "unknown", "critical") for name in JUDGED[state]}
    by = {row["host"].text: row["time disputed by"].value for row in shows[WORST].rows}
    assert {name for name, wrong_s in by.items() if wrong_s is not None} >= DISPUTED - {"ahead-unaware"}
    assert by["ahead-both"] == pytest.approx(WRONG_S - 2, abs=1)
    assert by["behind-servers"] == pytest.approx(2 - WRONG_S, abs=1)
    (site,) = shows["Sites"].rows
    assert {title: site[title].text for title in counts} == counts


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("name", "state"), [(name, state) for state, names in JUDGED.items() for name in sorted(names)]
)
def test_a_host_is_judged_alike_on_its_own_board(name: str, state: str, language: Language, doubted: Screen) -> None:
    """Reports, silent or disputed; and the state that the fleet's board counts it in."""
    shows = doubted.show(language, "host", only=("Reports", "State"), host=(name,))
    reports = "silent" if state == "silent" else "time disputed" if name in DISPUTED else "reports"
    assert texts(shows["Reports"]) == {"reports": reports}
    if state != "silent":
        assert shows["State"].values["state"].text == state
    assert (shows["State"].values.get("state") or next(cells(shows["State"]))).color != GREEN or state == "ok"


# ---- the order of events


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_order_needs_every_chosen_host(language: Language, strange: Screen) -> None:
    """With a host that is silent, unmeasured or gone the order is unknown, and not that of the others."""
    for other in ("silent", "unmeasured", "vanished"):
        shows = strange.show(language, "integrity", hosts=("web.1", other))
        assert {(cell.text, cell.color) for cell in cells(shows[ORDER])} == {("unknown", NOT_KNOWN)}, other
        drawn = shows[AMBIGUITY].series
        values = [value for line in drawn.values() for value in line.values if value is not None]
        if other == "silent":  # until it fell silent both were measured, for 95 minutes
            earlier = strange.show(language, "integrity", hosts=("web.1", other), later_s=-HOUR_S)
            assert 9 <= len(values) <= 11
            assert values == pytest.approx([earlier[ORDER].values["ordered beyond"].value] * len(values))
        else:
            assert not values
            assert (shows[AMBIGUITY].empty or "").startswith("unknown")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", [*sorted(DISPUTED), "dead-behind"])
def test_an_order_needs_hosts_whose_time_is_not_disputed(name: str, language: Language, doubted: Screen) -> None:
    """Also in the minutes in which the last point with a right stamp is still recent."""
    (cell,) = cells(doubted.show(language, "integrity", only=(ORDER,), hosts=("plain", name))[ORDER])
    assert cell.text == "unknown"
    (cell,) = cells(doubted.show(language, "integrity", only=(ORDER,), hosts=("plain", "recovered"))[ORDER])
    assert cell.text.endswith("ms")


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_order_of_measured_hosts_is_their_hull(language: Language, strange: Screen) -> None:
    """Also where one of them reports every five minutes: each interval contains it."""
    shows = strange.show(language, "integrity", hosts=("web.1", "seldom"))
    rows = shows["Intervals of the selected hosts"].rows
    hull_s = max(row["latest"].value for row in rows) - min(row["earliest"].value for row in rows)
    assert shows[ORDER].values["ordered beyond"].value == pytest.approx(hull_s)
    (line,) = shows[AMBIGUITY].series.values()
    ((begin, end),) = line.segments
    assert (end - begin) / 1000 >= 1.5 * HOUR_S
    assert all(value is None or value == pytest.approx(hull_s, rel=0.2) for value in line.values)
    hour = strange.show(language, "integrity", hosts=("web.1", "hour-ahead"))
    assert hour[ORDER].values["ordered beyond"].text == "1.000 hours"
    assert all(value is None or value > 3600 for line in hour[AMBIGUITY].series.values() for value in line.values)


@pytest.mark.parametrize("language", LANGUAGES)
def test_chosen_hosts_are_listed_though_they_are_silent(language: Language, strange: Screen) -> None:
    """With what is known of each: of a silent one, the time of its last point."""
    rows = strange.show(language, "integrity", hosts=("web.1", "silent"))["Intervals of the selected hosts"].rows
    listed = {
        row["host"].text: (row["reports"].text, row["offset"].text != "-", row["last seen"].text != "-") for row in rows
    }
    assert listed == {"web.1": ("reports", True, True), "silent": ("silent", False, True)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_gaps_are_found(language: Language, strange: Screen) -> None:
    """Hosts that sent less than nine tenths of their points, and which share; those that sent all are not listed."""
    shown = strange.show(language, "integrity", every=("59",))["Hosts with gaps"]
    assert {row["host"].text for row in shown.rows} == {"seldom", "silent"}
    shares = {row["host"].text: row["received"].value for row in shown.rows}
    assert shares["seldom"] == pytest.approx(12 * 59 / 3600, rel=0.1)
    assert 0 < shares["silent"] < shares["seldom"]


# ---- that it can be read


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_tables_fit_their_panels(language: Language, name: str, demo: Screen) -> None:
    """The columns' widths leave a text 300 pixels or more, and no table needs to be scrolled sideways."""
    shows = demo.show(language, name, hosts=("ams-log1", "fra-mail1"), host=("ams-log1",))
    places = {panel["title"]: panel["gridPos"]["w"] for panel in boards(language)[name]["panels"]}
    for title, shown in shows.items():
        if shown.kind == "table" and shown.columns:
            widths = [
                width or (300 if "what" in column else 100)
                for column, width in zip(shown.columns, shown.raw["widths"], strict=True)
            ]
            assert sum(widths) <= WIDTH * places[title] / 24 - 20, title


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_colour_is_never_ink(language: Language, name: str) -> None:
    """A coloured ground has ink that can be read on it, in both themes; a coloured text may not."""
    assert '"color-text"' not in str(boards(language)[name]).replace("'", '"')

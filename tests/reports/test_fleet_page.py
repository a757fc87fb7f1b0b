import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from math import isclose
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.fleet.model import (
    Alarm,
    Fleet,
    FleetFinding,
    FleetPolicy,
    HostStatus,
    Offset,
    SeverityCounts,
    TimeBucket,
)
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import direction, format_duration
from ntpaudit.render.axis import Axis
from ntpaudit.render.svg import (
    Frame,
    HostSeries,
    Jump,
    band,
    common_axis,
    draw_series,
    jumps,
    over_time,
)
from ntpaudit.reports.fleet_page import MANY, MOST_SERIES, headline, render
from tests.reports import fleets
from tests.reports.fleets import NOW_NS, PERIOD_S, SPAN_NS, S, fleet_of, member
from tests.work import LINEAR_GROWTH, growth, instructions
from tests.world.browser import Browser, Page, Screen, chromium

HOSTILE = (
    "<script>document.title='taken'</script>",
    '"><img src=x onerror=alert(1)>',
    "'onmouseover='alert(1)",
    "abc\u202egpj.exe\u2066x",
    "line\nbreak\r\x00\x1b[31m",
    "</style></title><svg/onload=alert(1)>",
    "&lt;&#x3c;",
    "\ud800 lone",
    "x" * 300,
)

ROWS = """[...document.querySelectorAll("table.hosts tbody tr")].map(
  (row) => [...row.cells].map((cell) => cell.textContent.replace(/\\s+/g, " ").trim()))"""
SETTLED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
RIGHT = """Math.max(...[...document.querySelectorAll(".hosts tr")].slice(0, 20).flatMap(
  (row) => [...row.cells].map((cell) => cell.getBoundingClientRect().right)))"""
SITES_RIGHT = """Math.max(...[...document.querySelectorAll(".sites :is(th, td)")].map(
  (cell) => cell.getBoundingClientRect().right))"""
NAMED = """[...document.querySelectorAll("svg")].every(
  (one) => one.ariaHidden === "true" || one.querySelector("title"))"""
IN_SIGHT = """(async (one) => {
  for (let tries = 0; tries < 100; tries++) {
    const {top, bottom} = one.getBoundingClientRect();
    if (bottom > top && top >= 0 && bottom <= innerHeight) return true;
    await new Promise((done) => setTimeout(done, 50));
  }
  return one.getBoundingClientRect().top;
})"""
SHOWN = (
    """[...document.querySelectorAll(".hosts tbody:not([hidden]) tr:not([hidden]) th")].map((one) => one.textContent)"""
)
CONTRAST = """(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const ratios = [...document.querySelectorAll("body *")]
    .filter((one) => one.tagName !== "SCRIPT" && [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((one) => {
      const ink = light(getComputedStyle(one).color);
      return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    });
  return [ratios.length, Math.min(...ratios)];
})()"""


def write(
    fleet: Fleet,
    host_series: Mapping[str, tuple[TimeBucket, ...]] | None = None,
    tallies: tuple[SeverityCounts, ...] | None = None,
    terms: FleetPolicy = FleetPolicy(),  # noqa: B008
    source: str = "InfluxDB at influx.example.net, database ntpaudit",
) -> str:
    """The page of a fleet, with a day of its history where nothing else is said, and the steps that are in force."""
    steps = (alarm for one in fleet.members for alarm in one.alarms if alarm.kind in STEP_KINDS)
    return render(
        fleet,
        fleets.host_series(fleet) if host_series is None else host_series,
        fleets.tallies(fleet) if tallies is None else tallies,
        tuple(sorted(steps, key=lambda alarm: alarm.since_ns)),
        period_s=PERIOD_S,
        spans=fleets.SPANS,
        terms=terms,
        source=source,
        version="1.2.3",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pages lie, of a small fleet, of a large one, of the least large, and of one with hostile names."""
    place = tmp_path_factory.mktemp("pages")
    (place / "small.html").write_text(write(fleets.small()))
    (place / "large.html").write_text(write(fleets.large()))
    (place / "many.html").write_text(write(fleets.large(MANY)))
    (place / "hostile.html").write_text(write(hostile()))
    return place


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    """The page of the small fleet, on a desk."""
    with browser.page() as tab:
        tab.show(Screen(1280))
        yield tab.open(folder / "small.html")


def hostile() -> Fleet:
    """A fleet in which every text tries to do more than to be read."""
    members = tuple(
        member(f"{number}{name}", Severity.WARNING, 0.2, site=name, kinds=(name,))
        for number, name in enumerate(HOSTILE)
    )
    findings = tuple(
        FleetFinding(name, Severity.WARNING, "high", name, name, (name,), name, name, (name, members[0].name))
        for name in HOSTILE
    )
    return fleet_of(members, findings)


def words_of(one: HostStatus) -> tuple[str, str, str, str]:
    """What a row must show of a host: its name, its state, its offset and how wrong it is at most."""
    offset = one.host.offset if one.host else None
    if offset is None:
        return one.name, one.severity.word, "–" if one.silent_s else "not measured", "–"  # noqa: RUF001
    was = "was " if one.silent_s else ""
    bound = format_duration(max(abs(offset.earliest_s), abs(offset.latest_s)), rounding="up")
    return (
        one.name,
        one.severity.word,
        f"{was}{format_duration(offset.estimate_s)} {direction(offset.estimate_s)}",
        f"{was}{bound}",
    )


def test_every_host_is_there_with_its_words(page: Page) -> None:
    """Every host of the fleet has one row, worst first, and it says state, offset, bound and findings of that host."""
    rows = page.evaluate(ROWS)
    fleet = fleets.small()
    assert [(row[1], row[0].split()[0], row[3], row[5]) for row in map(_without_notes, rows)] == [
        (name, f"{word}", offset, bound) for name, word, offset, bound in map(words_of, fleet.members)
    ]
    for row, one in zip(rows, fleet.members, strict=True):
        assert all(alarm.kind in row[8] for alarm in one.alarms)
        assert row[2].startswith(one.site or "–")  # noqa: RUF001


def _without_notes(row: list[str]) -> list[str]:
    """A row whose state is followed by a space, whatever note stands right behind it."""
    return [re.sub(r"^(critical|unknown|warning|ok)", r"\1 ", row[0]), *row[1:]]


def test_counts_agree_with_the_fleet(page: Page) -> None:
    """The numbers at the top, of coverage and of each site are those of the fleet."""
    fleet = fleets.small()
    ok, warning, unknown, critical = fleet.whole.hosts
    numbers = page.evaluate("[...document.querySelectorAll('.tiles b')].map((one) => one.textContent)")
    assert numbers == [str(count) for count in (critical, unknown, warning, ok)]
    assert page.evaluate("document.querySelector('h1').textContent") == "2 of 24 clocks are wrong for certain."
    known = fleet.coverage
    measured = page.evaluate("[...document.querySelectorAll('.meters dd')].map((one) => one.textContent)")
    assert [text.split("%")[1].strip() for text in measured] == [
        f"{count} of {known.hosts}" for count in (known.measured, known.by_two, known.by_three)
    ]
    sites = page.evaluate(
        "[...document.querySelectorAll('.sites tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    for cells, site in zip(sites, (*fleet.sites, fleet.whole), strict=True):
        assert cells[1] == str(sum(site.hosts))
        assert [int(cell or 0) for cell in cells[2:6]] == [site.hosts[index] for index in (3, 2, 1, 0)]
        if site.ambiguity:
            assert cells[6].startswith(format_duration(site.ambiguity.within_s, rounding="up"))
            assert cells[7] == " and ".join(site.ambiguity.hosts)


def test_the_worst_are_named_at_once(page: Page) -> None:
    """Below the headline, before anything else, stand the critical hosts, each leading to its row, and the unknown."""
    rows = page.evaluate(
        """[...document.querySelectorAll("h1 ~ .worst li, h1 ~ .dark")].map((one) => [
          one.textContent.replace(/\\s+/g, " ").trim(),
          ...[...one.querySelectorAll("a")].map((link) => document.querySelector(link.hash).cells[1].textContent)])"""
    )
    assert rows == [
        ["db-03 amsterdam 3.2 s behind offset-out for 2 h and 1 more finding", "db-03"],
        ["app-11 frankfurt 60 min ahead offset-out for 2 h and 1 more finding", "app-11"],
        [
            "No current data for laptop-7 (not measured), edge-02 (silent for 3.06 h), web-99 (no point).",
            "laptop-7",
            "edge-02",
            "web-99",
        ],
    ]
    bottom = page.evaluate("document.querySelector('.dark').getBoundingClientRect().bottom + scrollY")
    assert bottom <= 900


def test_of_many_five_are_named() -> None:
    """Of more than five critical or unknown hosts the others are counted; without such a host, none is named."""
    many = tuple(
        member(f"{severity.word}{n}", severity, 3.0, verdict="beyond")
        for severity in (Severity.CRITICAL, Severity.UNKNOWN)
        for n in range(7)
    )
    written = write(fleet_of(many), {}, ())
    top = written[written.index("<h1>") : written.index('<ul class="tiles">')]
    assert top.count("<li") == 6
    assert "and 2 more critical hosts</a>" in top
    assert top.count("unknown") == 5
    assert ", and 2 more.</p>" in top
    assert 'class="worst"' not in write(fleet_of((member("a"),)), {}, ())


def test_a_size_of_the_past_is_shown_as_such() -> None:
    """A step keeps its size; the offset of now stands in the row; other sizes are those of when it was raised."""
    one = member("a", Severity.WARNING, 3.54)
    since_ns = NOW_NS - 2 * fleets.HOUR_NS
    alarms = (
        Alarm("a", "offset-out", Severity.CRITICAL, since_ns, 1.01),
        Alarm("a", "step-back", Severity.WARNING, since_ns, -0.12),
        Alarm("a", "daemon-stale", Severity.WARNING, since_ns, 4214.2),
        Alarm("a", "source-quorum", Severity.OK, since_ns, None),
    )
    written = write(fleet_of((one._replace(alarms=alarms),)), {}, ())
    assert "<code>offset-out</code> <small>for 2 h</small>" in written
    assert "<code>step-back</code> <small>120 ms, 2 h ago</small>" in written
    assert "<code>daemon-stale</code> <small>70.2 min when raised, 2 h ago</small>" in written
    assert "<code class=low>source-quorum</code> <small>low, for 2 h</small>" in written


def test_order_is_shown_by_numbers_that_add_up(page: Page) -> None:
    """The method gives the worst pair's own ends, whose difference is how far apart events must be, rounded up."""
    said = page.evaluate("document.querySelector('#method').textContent")
    found = re.search(r"A = (\S+) and B = (\S+), whose .* of (\S+) s less .* of (\S+) s is (\S+) s\.", said)
    assert found is not None
    latest, earliest, within = (
        round(float(text.replace(",", "").replace("−", "-")) * 1e6)  # noqa: RUF001
        for text in found.groups()[2:]
    )
    ambiguity = fleets.small().whole.ambiguity
    assert ambiguity is not None
    assert found.groups()[:2] == ambiguity.hosts
    assert latest - earliest == within
    assert 0 <= within - ambiguity.within_s * 1e6 <= 2
    assert "too far" in page.evaluate("document.querySelector('.sites tbody tr:last-child').textContent")


def test_findings_are_shown_in_full(page: Page) -> None:
    """Every finding is there in its order with level, message, remedy, controls, and every host that it names."""
    texts = page.evaluate("[...document.querySelectorAll('.finding')].map((one) => one.textContent)")
    for text, finding in zip(texts, fleets.findings(), strict=True):
        assert "level" not in text
        for part in (f"{finding.level} {finding.id}", finding.message, finding.remedy, *finding.controls):
            assert part in text
        assert all(host in text for host in finding.hosts)
        assert (finding.site or "") in text
        assert (finding.source or "") in text


def test_loads_nothing_and_has_no_console_error(browser: Browser, folder: Path) -> None:
    """The browser requests the file itself and nothing else, and its console stays empty, for every page."""
    for name in ("small", "large", "hostile"):
        with browser.page() as tab:
            tab.show(Screen(1280))
            tab.open(folder / f"{name}.html")
            tab.evaluate(SETTLED)
            assert tab.requests == [(folder / f"{name}.html").as_uri()]
            assert tab.complaints == []


def test_its_own_policy_refuses_the_outside(browser: Browser, folder: Path) -> None:
    """Whatever got into the page all the same could load no image, run no script, connect nowhere and send no form."""
    refused = """(async () => {
      const seen = [];
      document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
      const image = new Image(); image.src = "https://example.net/a.png";
      const script = document.createElement("script"); script.textContent = "window.taken = true";
      document.body.append(script);
      await fetch("https://example.net/").catch(() => 0);
      const link = document.createElement("link"); link.rel = "stylesheet"; link.href = "https://example.net/a.css";
      document.head.append(link);
      await new Promise((done) => setTimeout(done, 50));
      return [seen.sort(), window.taken === undefined];
    })()"""
    with browser.page() as tab:
        tab.open(folder / "small.html")
        assert tab.evaluate(refused) == [["connect-src", "img-src", "script-src-elem", "style-src-elem"], True]
        assert set(tab.refusals) == {"csp"}


def test_hostile_texts_stay_texts(browser: Browser, folder: Path) -> None:
    """Markup, quotes, line breaks and bidi controls in any text of the fleet are shown, or blanked, and never act."""
    with browser.page() as tab:
        tab.open(folder / "hostile.html")
        assert tab.evaluate("document.title") == headline(hostile())
        assert tab.evaluate("document.querySelectorAll('script, img, object, iframe, link').length") == 1
        handlers = (
            "[...document.querySelectorAll('*')].some((one) => [...one.attributes].some((a) => /^on/.test(a.name)))"
        )
        assert tab.evaluate(handlers) is False
        names = tab.evaluate("[...document.querySelectorAll('.hosts tbody th')].map((one) => one.textContent)")
        expected = ("".join(c if c.isprintable() else " " for c in f"{n}{name}") for n, name in enumerate(HOSTILE))
        assert sorted(names) == sorted(expected)
        assert re.search("[\u202a-\u202e\u2066-\u2069\x00]", tab.evaluate("document.body.textContent")) is None


@pytest.mark.parametrize("name", ["small", "large", "hostile"])
def test_is_as_wide_as_its_screen(browser: Browser, folder: Path, name: str) -> None:
    """No screen from a phone to a desk has to scroll sideways, and every row can be seen in full."""
    with browser.page() as tab:
        tab.open(folder / f"{name}.html")
        for width in (320, 390, 768, 1090, 1100, 1280):
            tab.show(Screen(width))
            tab.evaluate("document.querySelector('#hosts table').scrollIntoView()")
            tab.evaluate(SETTLED)
            assert tab.evaluate("document.querySelector('#hosts tbody th').clientWidth") >= 100, width
            assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), width
            assert tab.evaluate(RIGHT) <= width
            assert tab.evaluate(SITES_RIGHT) <= width


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read(browser: Browser, folder: Path, dark: bool) -> None:
    """In light and in dark mode every text has the contrast of 4.5 to the paper that WCAG AA asks for."""
    with browser.page() as tab:
        tab.show(Screen(1280, dark=dark))
        tab.open(folder / "small.html")
        texts, least = tab.evaluate(CONTRAST)
        assert texts > 300
        assert least >= 4.5
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper))) < 200) is dark


def test_prints(browser: Browser, folder: Path) -> None:
    """On paper it is A4, light whatever the screen was, the headings of tables are repeated and no row is split."""
    with browser.page() as tab:
        tab.show(Screen(1280, dark=True))
        tab.open(folder / "small.html")
        printed = tab.pdf()
        assert printed.startswith(b"%PDF-")
        assert re.search(rb"/MediaBox \[0 0 59[45][\d.]* 84[12]", printed)
        assert 5 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 10
        tab.call("Emulation.setEmulatedMedia", media="print", features=[])
        styles = tab.evaluate("""["body", ".hosts thead", ".hosts tr", "nav", ".controls", "a"].map((which) => {
          const style = getComputedStyle(document.querySelector(which));
          return [style.backgroundColor, style.display, style.breakInside, style.textDecorationLine]; })""")
        assert styles[0][0] == "rgb(255, 255, 255)"
        assert styles[1][1] == "table-header-group"
        assert styles[2][1:3] == ["table-row", "avoid"]
        assert [styles[3][1], styles[4][1], styles[5][3]] == ["none", "none", "none"]


def test_is_whole_without_its_script(browser: Browser, folder: Path) -> None:
    """Where JavaScript is off, all rows are there, nothing waits for it, and only the filter is missing."""
    with browser.page() as tab:
        tab.open(folder / "small.html", scripts=False)
        tree = json.dumps(tab.call("DOM.getDocument", depth=-1))
        assert all(one.name in tree for one in fleets.small().members)
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        shown = {node["role"]["value"] for node in nodes if not node.get("ignored")}
        assert "searchbox" not in shown
        assert {"banner", "navigation", "main", "contentinfo", "heading", "table"} <= shown


def test_is_accessible(page: Page) -> None:
    """Language, headings in order, heads with scope, figures with titles; rows stay rows though drawn as grids."""
    assert page.evaluate("document.documentElement.lang") == "en"
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= before + 1 for before, later in pairwise(levels))
    assert page.evaluate("[...document.querySelectorAll('th')].every((one) => one.scope)")
    assert page.evaluate("[...document.querySelectorAll('table')].every((one) => one.caption)")
    assert page.evaluate("[...document.querySelectorAll('a[href]')].every((one) => document.querySelector(one.hash))")
    assert page.evaluate(NAMED)
    page.evaluate("document.querySelector('#hosts').scrollIntoView()")
    page.evaluate(SETTLED)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = Counter(node["role"]["value"] for node in nodes if not node.get("ignored"))
    fleet = fleets.small()
    assert roles["table"] == 3
    assert roles["rowheader"] == len(fleet.members) + len(fleet.sites) + 1
    assert roles["row"] == roles["rowheader"] + 3


def cpu_s(tab: Page, act: Callable[[], object]) -> float:
    """Return the CPU time that the page takes for scripts, styles and layout while something is done to it."""

    def spent_s() -> float:
        metrics = {one["name"]: one["value"] for one in tab.call("Performance.getMetrics")["metrics"]}
        return float(sum(metrics[f"{work}Duration"] for work in ("Script", "RecalcStyle", "Layout")))

    before_s = spent_s()
    act()
    return spent_s() - before_s


def sort_by(tab: Page, column: int) -> None:
    """Click on a heading, and let the page be laid out again."""
    tab.evaluate(f"""(() => {{
      const tables = document.querySelectorAll("table.hosts");
      tables[tables.length - 1].tHead.rows[0].cells[{column}].querySelector("button").click();
      document.body.offsetHeight;
    }})()""")


def names_by(tab: Page, column: int) -> list[str]:
    """Click on a heading; return the names of the hosts in their order."""
    sort_by(tab, column)
    return [row[1] for row in tab.evaluate(ROWS)]


def show_only(tab: Page, words: str) -> tuple[list[str], str]:
    """Type words; return the names of the hosts that are shown, and the count beside."""
    tab.evaluate(f"""(() => {{
      const field = document.querySelector(".controls input");
      field.value = {json.dumps(words)};
      field.dispatchEvent(new Event("input"));
      document.body.offsetHeight;
    }})()""")
    return tab.evaluate(SHOWN), tab.evaluate("document.querySelector('output').value")


def test_sorts_by_what_is_meant(browser: Browser, folder: Path) -> None:
    """A heading sorts by its numbers, ahead before behind, the other way round at the next click, the unknown last."""
    with browser.page() as tab:
        tab.show(Screen(1280))
        tab.open(folder / "small.html")
        flagged = sum(one.severity is not Severity.OK for one in fleets.small().members)
        measured = ["app-11", "web-05", "edge-02", "web-04", "db-03"]
        unknown = {"laptop-7", "web-99"}
        names = names_by(tab, 3)
        assert names[:5] == measured
        assert set(names[5:flagged]) == unknown
        assert tab.evaluate("document.querySelector('.hosts [aria-sort]').ariaSort") == "ascending"
        names = names_by(tab, 3)
        assert names[:5] == measured[::-1]
        assert set(names[5:flagged]) == unknown
        assert names_by(tab, 1) == sorted(names[:flagged]) + sorted(names[flagged:])
        assert names_by(tab, 0) == [one.name for one in fleets.small().members]


def test_can_be_sorted_on_every_screen(browser: Browser, folder: Path) -> None:
    """From 1024 pixels on a heading says by what it sorts, and shows that it can; below that a list does the same."""
    heads = """[...document.querySelectorAll("#hosts > table thead th:has(button)")].map((one) => [
      one.textContent, one.querySelector("button").ariaLabel, getComputedStyle(one, "::after").content])"""
    is_seen = "document.querySelector({}).checkVisibility()"
    with browser.page() as tab:
        tab.show(Screen(1024))
        tab.open(folder / "small.html")
        shown = tab.evaluate(heads)
        assert len(shown) == 8
        assert all(label == f"sort by {title}" and "↕" in arrow for title, label, arrow in shown)
        assert tab.evaluate(is_seen.format("'.hosts thead'"))
        assert not tab.evaluate(is_seen.format("'select'"))
        sort_by(tab, 3)
        assert "↑" in tab.evaluate(heads)[3][2]
        tab.show(Screen(800))
        assert not tab.evaluate(is_seen.format("'.hosts thead'"))
        assert tab.evaluate(is_seen.format("'select'"))
        assert tab.evaluate("document.querySelector('select').value") == "3"
        tab.evaluate("""(() => {
          const choice = document.querySelector("select");
          choice.value = "3d";
          choice.dispatchEvent(new Event("change"));
        })()""")
        flagged = sum(one.severity is not Severity.OK for one in fleets.small().members)
        names = [row[1] for row in tab.evaluate(ROWS)][:flagged]
        assert names[:5] == ["db-03", "web-04", "edge-02", "web-05", "app-11"]


def test_every_row_can_be_found_and_led_to(browser: Browser, folder: Path) -> None:
    """A link opens what is folded and shows what is filtered out; search finds a row that was never laid out."""
    with browser.page() as tab:
        tab.show(Screen(1280))
        tab.open(folder / "many.html")
        names = [one.name for one in fleets.large(MANY).members]
        number = names.index("host-00150.example.net")
        show_only(tab, "critical")
        tab.evaluate(f"""(() => {{
          const link = document.createElement("a");
          link.href = "#h{number}";
          document.querySelector("main").prepend(link);
          link.click();
        }})()""")
        assert tab.evaluate("document.querySelector('details.rest').open") is True
        assert tab.evaluate(f"{IN_SIGHT}(document.getElementById('h{number}'))") is True
        tab.evaluate("scrollTo(0, 0); getSelection().empty()")
        assert tab.evaluate("window.find('host-00190.example.net')") is True
        assert tab.evaluate(f"{IN_SIGHT}(getSelection().anchorNode.parentElement)") is True


def test_only_many_are_laid_out_by_sight(browser: Browser, folder: Path) -> None:
    """A small fleet's page is laid out whole, so that a picture of all of it has all of it; a large one's is not."""
    for name, expected in (("small", "visible"), ("many", "auto")):
        with browser.page() as tab:
            tab.open(folder / f"{name}.html")
            bodies = "document.querySelectorAll('.hosts tbody')"
            config = tab.evaluate(f"[...{bodies}].map((one) => getComputedStyle(one).contentVisibility)")
            assert set(config) == {expected}
            card = "document.querySelector('.cards article')"
            assert tab.evaluate(f"getComputedStyle({card}).contentVisibility") == "visible"


def test_shows_only_what_is_asked_for(browser: Browser, folder: Path) -> None:
    """All words must fit, in a host's name, site, state or findings; a folded list opens for as long as it has hits."""
    with browser.page() as tab:
        tab.show(Screen(1280))
        tab.open(folder / "large.html")
        assert tab.evaluate("document.querySelector('details.rest').open") is False
        names, summary = show_only(tab, "SITE-03 unsynced")
        expected = [
            one.name
            for one in fleets.large().members
            if one.site == "site-03" and any(alarm.kind == "unsynced" for alarm in one.alarms)
        ]
        assert names == expected
        assert summary == f"{len(expected)} of 10000 hosts"
        assert show_only(tab, "host-04242")[0] == ["host-04242.example.net"]
        assert tab.evaluate("document.querySelector('details.rest').open") is True
        assert len(show_only(tab, "")[0]) == 10_000
        assert tab.evaluate("document.querySelector('details.rest').open") is False


@pytest.mark.untraced
def test_the_cost_of_ten_thousand_hosts_grows_no_faster_than_their_number(browser: Browser, folder: Path) -> None:
    """The page grows no faster than the hosts, at most to 6 MB; nor does the time to write, sort and filter it."""
    some, every = (
        (fleet, fleets.host_series(fleet), fleets.tallies(fleet)) for fleet in (fleets.large(625), fleets.large())
    )
    assert growth(lambda: write(*some), lambda: write(*every), times=2) < LINEAR_GROWTH
    assert len(write(*every).encode()) <= 6_000_000
    (folder / "some.html").write_text(write(*some))
    for width in (1280, 390):
        costs = []
        for page in ("some.html", "large.html"):
            with browser.page() as tab:
                tab.show(Screen(width))
                tab.open(folder / page)
                tab.evaluate("document.querySelector('details.rest').open = true")
                tab.call("Performance.enable", timeDomain="threadTicks")  # CPU time, which no other process adds to
                shown_s = min(cpu_s(tab, lambda: show_only(tab, words)) for words in ("site-03", "critical", ""))  # noqa: B023
                costs.append((shown_s, min(cpu_s(tab, lambda: sort_by(tab, column)) for column in (3, 1, 5))))  # noqa: B023
        (show_few_s, sort_few_s), (show_all_s, sort_all_s) = costs
        assert show_all_s < LINEAR_GROWTH * show_few_s
        assert sort_all_s < LINEAR_GROWTH * sort_few_s


def test_series_show_gaps_and_jumps(page: Page) -> None:
    """The worst hosts have a figure each that says in words what it shows: reach, bound, jumps, and what is missing."""
    cards = page.evaluate("[...document.querySelectorAll('.cards article')].map((one) => one.textContent)")
    expected = [one for one in fleets.small().members if one.host]
    assert len(cards) == len(expected)
    for text, one in zip(cards, expected, strict=True):
        assert one.name in text
        assert ("not measured for" if one.name == "laptop-7" else "no point for") in text
    assert (
        "Between 34 ms ahead and 3.24 s behind; 15 min means from 6 ms ahead to 3.21 s behind; set back at "
        "about 10-08 23:53, by 3.15 s or more; set forward by 3.2 s at 10-09 06:53:20; no point for 90 min."
    ) in cards[0]
    gaps = page.evaluate("document.querySelector('.cards .g').getAttribute('d')")
    assert gaps.count("M") == 1
    assert page.evaluate("document.querySelector('#c0 .j').getAttribute('d')").count("M") == 2


def test_steps_of_the_period_are_listed_and_drawn() -> None:
    """A step there and back within two spans, of which the bands say nothing, has its lines, its time and its size."""
    begin_ns = NOW_NS - 8 * SPAN_NS
    hull = Offset(0.8, -0.01, 2.51)
    buckets = tuple(TimeBucket(begin_ns + n * SPAN_NS, Severity.OK, hull) for n in range(8))
    steps = (
        Alarm("a", "step-back", Severity.WARNING, begin_ns + S, -2.5),
        Alarm("a", "step-forward", Severity.WARNING, begin_ns + SPAN_NS, 2.5),
        *(Alarm("gone & away", "step-forward", Severity.WARNING, NOW_NS - S, None) for _ in range(50)),
    )
    words = {"period_s": 8 * SPAN_NS / S, "spans": 8, "terms": FleetPolicy(), "source": "", "version": ""}
    written = render(fleet_of((member("a"),)), {"a": buckets}, (), steps, **words)  # type: ignore[arg-type]
    assert "set back by 2.5 s at 06:53:21; set forward by 2.5 s at 07:08:20." in written
    assert len(re.findall("M[.0-9]+ 0v100", re.findall('class="j" d="([^"]*)"', written)[0])) == 2
    listed = re.findall(r"<li>.*UTC</time> (.*)</li>", written)
    assert listed == ["gone &amp; away: set forward"] * 50
    assert "52 steps on 2 hosts, the latest first" in written
    assert "And 2 earlier steps." in written
    few = render(fleet_of((member("a"),)), {"a": buckets}, (), steps[:1], **words)  # type: ignore[arg-type]
    assert '<a href="#h0">a</a>: set back by 2.5 s</li>' in few
    assert "none reported by an agent" in render(fleet_of((member("a"),)), {}, (), **words)  # type: ignore[arg-type]


def test_a_time_is_shown_with_its_date_where_that_differs() -> None:
    """A period that midnight lies in has dates, one of the same day has none; it is said whether all are drawn."""
    written = write(fleet_of((member("a"), member("b"))))
    assert '<div class="xs"><span>10-08 08:53</span><span>10-08 20:53</span><span>10-09 08:53 UTC</span>' in written
    assert re.search("The last 24 h</h2>\n<p>[^<]* until <time [^>]*>[0-9]{4}-10-09 08:53:20 UTC</time>", written)
    assert "Offset over time: all 2 hosts" in written
    assert Frame(NOW_NS - SPAN_NS, NOW_NS, SPAN_NS).labels() == ("08:38", "08:45", "08:53")
    assert "Offset over time: the worst 50 hosts" in write(fleets.large(200))


def test_suspected_hosts_are_among_the_worst(browser: Browser, tmp_path: Path) -> None:
    """They stand in the first table with what is suspected, and every host is found by the findings that name it."""
    suspected = member("walker")._replace(suspected=("slow-walk",))
    others = tuple(member(f"h{number}") for number in range(3))
    findings = (
        FleetFinding("shared-falseticker", Severity.WARNING, "high", "a", "b", source="gps.x", hosts=("h0", "h2")),
        FleetFinding("slow-walk", Severity.WARNING, "medium", "of another", "b", hosts=("h1",)),
        FleetFinding("slow-walk", Severity.WARNING, "medium", "of walker", "b", hosts=("walker",)),
    )
    (tmp_path / "page.html").write_text(write(fleet_of((suspected, *others), findings)))
    with browser.page() as tab:
        tab.open(tmp_path / "page.html")
        first = tab.evaluate("document.querySelector('table.hosts').textContent")
        assert "walker" in first
        assert "slow-walk fleet finding" in first
        assert "h0" not in first
        assert "3 other hosts are ok" in tab.evaluate("document.querySelector('.rest summary').textContent")
        led_to = "document.querySelector(document.querySelector('.hosts td:last-child a').hash).textContent"
        assert "of walker" in tab.evaluate(led_to)
        assert "of another" not in tab.evaluate(led_to)
        assert show_only(tab, "slow-walk")[0] == ["walker", "h1"]
        assert show_only(tab, "shared-falseticker")[0] == show_only(tab, "GPS.x")[0] == ["h0", "h2"]


def test_names_of_sites_stay_whole_on_a_phone(browser: Browser, folder: Path) -> None:
    """Where rows are cards, their headings have the whole line."""
    with browser.page() as tab:
        tab.show(Screen(390))
        tab.open(folder / "small.html")
        heads = "[...document.querySelectorAll('.sites tbody th')].map((one) => one.getClientRects()[0])"
        assert min(tab.evaluate(f"{heads}.map((box) => box.width)")) > 300
        assert max(tab.evaluate(f"{heads}.map((box) => box.height)")) < 40


def test_a_series_without_a_measurement_is_a_figure_too() -> None:
    """A host that reported for the whole period and never knew its offset has a strip of its state and no band."""
    unknown = member("a", Severity.UNKNOWN, None, verdict="unmeasured")
    buckets = tuple(TimeBucket(NOW_NS - (4 - n) * SPAN_NS, Severity.UNKNOWN, None) for n in range(4))
    written = write(fleet_of((unknown,)), {"a": buckets}, ())
    assert "Nothing was measured." in written
    assert '<path class="i" style="fill:url(#w0)" d=""/>' in written
    assert '<path class="u" d="M' in written


def test_no_more_than_the_worst_are_drawn() -> None:
    """Of a large fleet only the worst hosts have their series drawn, in the fleet's order."""
    fleet = fleets.large(200)
    written = write(fleet, fleets.host_series(fleet, 120))
    assert re.findall(r'<article id="c\d+" class="\w"><h3|<article id="c(\d+)"', written)[-1] == str(MOST_SERIES - 1)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ((), "No host has reported."),
        ((member("a"),), "1 clock is ok."),
        ((member("a"), member("b")), "All 2 clocks are ok."),
        ((member("a", Severity.CRITICAL, 3.0, 0.1, "beyond"),), "1 of 1 clock is wrong for certain."),
        (
            (member("a", Severity.UNKNOWN, None, verdict="unmeasured"), member("b")),
            "No clock is known to be wrong, but 1 of 2 clocks cannot be verified.",
        ),
        (
            (member("a", Severity.WARNING, 0.2), member("b")),
            "No clock is wrong for certain, but there are warnings or findings.",
        ),
        (
            (member("a", Severity.UNKNOWN, 3.0, 0.1, "beyond", silent_s=4000.0), member("b")),
            "No clock is known to be wrong, but 1 of 2 clocks cannot be verified.",
        ),
    ],
)
def test_headline(members: tuple[HostStatus, ...], said: str) -> None:
    """One sentence says the worst that is certain; a silent host is not called wrong, whatever it last was."""
    assert headline(fleet_of(members)) == said


def test_a_finding_about_the_fleet_is_no_good_order() -> None:
    """Clocks that are all ok are not called in order while something is wrong with the fleet."""
    assert "there are warnings or findings" in headline(fleet_of((member("a"), member("b")), fleets.findings()[:1]))


def test_an_empty_fleet_has_a_page() -> None:
    """Without hosts, history, sites and findings the page still says so, and how it was made."""
    written = write(fleet_of(()), {}, ())
    assert "No host has reported." in written
    assert "No past data was read." in written
    assert "No finding about the fleet as a whole" in written
    assert "ntpaudit 1.2.3" in written


def test_says_how_it_was_made() -> None:
    """The footer names version, database, period, thresholds and inventory; the method those that it depends on."""
    terms = FleetPolicy(900.0, 0.25, 0.05, ("a", "b", "c"))
    written = write(fleets.small(), terms=terms, source="VictoriaMetrics <at> home")
    footer = written[written.index("<footer>") :]
    for fact in ("ntpaudit 1.2.3", "VictoriaMetrics &lt;at&gt; home", "24 h", "15 min", "50 ms", "250 ms", "3 hosts"):
        assert fact in footer
    method = written[written.index('id="method"') : written.index("<footer>")]
    assert "point for 15 min" in method
    assert "tolerance, 50 ms" in method


def test_the_same_fleet_gives_the_same_page() -> None:
    """Nothing of the moment or the machine is in the page."""
    assert write(fleets.small()) == write(fleets.small())


def test_many_hosts_of_a_finding_are_folded() -> None:
    """A finding about thousands names twelve at once, five hundred on request, and counts the rest."""
    names = tuple(f"h{number:04}" for number in range(2000))
    finding = FleetFinding("evidence-gap", Severity.UNKNOWN, "high", "many", "fix it", hosts=names)
    written = write(fleet_of((member("h0001"),), (finding,)), {}, ())
    assert "<summary>and 1,988 more</summary>" in written
    assert "h0499, and 1,500 more</details>" in written
    assert '<a href="#h0">h0001</a>' in written
    assert "h0500" not in written


SPANS_S = st.floats(-1e9, 1e9)


@given(st.lists(SPANS_S, min_size=2, max_size=8), st.floats(1e-6, 1.0))
def test_the_common_axis_keeps_order(values: list[float], tolerance_s: float) -> None:
    """Zero lies in the middle, larger offsets never further left, opposite ones opposite, and all of them inside."""
    axis = common_axis([Offset(value, value, value) for value in values], tolerance_s)
    shares = [axis.share(value) for value in sorted(values)]
    assert shares == sorted(shares)
    assert shares[0] > 0.0
    assert shares[-1] < 1.0
    assert isclose(axis.share(0.0), 0.5)
    assert all(isclose(axis.share(value) + axis.share(-value), 1.0) for value in values)


@given(st.floats(-1e9, -1e-9), st.floats(1e-9, 1e9), st.sampled_from([None, 1e-6, 1e-3, 1.0]))
def test_ticks_are_round_and_apart(low: float, high: float, linear_s: float | None) -> None:
    """An axis has zero and at most a handful of labels, none of which touches another."""
    ticks = sorted(Axis(low, high, linear_s).ticks(0.1))
    assert "0" in [label for _, label in ticks]
    assert len(ticks) <= 11
    assert all(later - earlier >= 0.0999 for (earlier, _), (later, _) in pairwise(ticks))


@given(SPANS_S, st.floats(0.0, 1e3))
def test_the_narrowest_interval_can_be_seen(estimate_s: float, bound_s: float) -> None:
    """A band is never narrower than a line, and holds the estimate."""
    offset = Offset(estimate_s, estimate_s - bound_s, estimate_s + bound_s)
    found = re.fullmatch(
        r"M([-.\d]+) 4H([-.\d]+)v6H[-.\d]+z M([-.\d]+) 1v12", " ".join(band(offset, common_axis([offset], 0.1)))
    )
    assert found is not None
    left, right, at = map(float, found.groups())
    assert right - left >= 1.4
    assert left - 0.11 <= at <= right + 0.11


@pytest.mark.parametrize("reach_s", [1e9, 1e12, 1e15])
def test_an_axis_of_any_length_is_drawn_at_once(reach_s: float) -> None:
    """A host whose clock is wrong by millions of years holds up no page, and the axis has its ticks."""
    axis = Axis(-reach_s, 1.5 * reach_s, None)
    assert instructions(lambda: axis.ticks(0.1)) < 100_000
    assert 2 <= len(axis.ticks(0.1)) <= 5


def test_a_jump_is_what_no_steering_explains() -> None:
    """Disjoint intervals are a jump, the fastest slewing is none, and a step that the agent reported counts once."""
    begin_ns = NOW_NS - 4 * SPAN_NS

    def buckets(*estimates: float | None) -> list[TimeBucket]:
        return [
            TimeBucket(begin_ns + n * SPAN_NS, Severity.OK, None if s is None else Offset(s, s - 0.01, s + 0.01))
            for n, s in enumerate(estimates)
        ]

    def seen(known: list[TimeBucket]) -> list[tuple[int, float]]:
        found = jumps(HostSeries(known, [], 0.1), SPAN_NS)
        assert not any(jump.is_reported for jump in found)
        return [(jump.time_ns, round(jump.moved_s or 0.0, 6)) for jump in found]

    assert seen(buckets(0.0, 0.0, 3.0, 3.0)) == [(begin_ns + 2 * SPAN_NS, 2.98)]
    assert seen(buckets(3.0, 3.0, 0.0, 0.0)) == [(begin_ns + 2 * SPAN_NS, -2.98)]
    assert seen(buckets(0.0, 0.4, 0.8, 1.2)) == []
    assert seen(buckets(0.0, None, None, 5.0)) == [(begin_ns + 3 * SPAN_NS, 4.98)]
    within = [
        bucket._replace(offset=Offset(1.5, -0.01, 3.01)) if n == 1 else bucket
        for n, bucket in enumerate(buckets(0.0, 0.0, 3.0, 3.0))
    ]
    assert seen(within) == [(begin_ns + SPAN_NS + SPAN_NS // 2, 2.98)]
    step = Jump(begin_ns + 2 * SPAN_NS - S, 3.0, True)
    assert jumps(HostSeries(buckets(0.0, 0.0, 3.0, 3.0), [step], 0.1), SPAN_NS) == [step]


@pytest.mark.parametrize(
    ("reported", "unexplained"),
    [
        ([(S, 8.0)], []),  # in the gap, long before the first point that shows it
        ([(S, None)], []),  # of an unknown size
        ([(-SPAN_NS + S, 8.0)], []),  # perhaps after the last point of the span before
        ([(S, 5.0), (2 * SPAN_NS, 3.0)], []),
        ([(S, 0.05)], [7.93]),  # a small one hides no large one
        ([(S, -8.0)], [7.98]),  # nor one the other way
        ([(-SPAN_NS - S, 8.0), (4 * SPAN_NS + S, 8.0)], [7.98]),  # before it, and after it
    ],
)
def test_a_step_explains_no_more_than_its_size(
    reported: list[tuple[int, float | None]], unexplained: list[float]
) -> None:
    """A reported step is subtracted from how far the bands show that the clock moved; the rest is a jump of its own."""
    gap_ns = NOW_NS - 4 * SPAN_NS
    buckets = [
        TimeBucket(gap_ns - SPAN_NS, Severity.OK, Offset(0.0, -0.01, 0.01)),
        TimeBucket(gap_ns + 3 * SPAN_NS, Severity.OK, Offset(8.0, 7.99, 8.01)),
    ]
    steps = [Jump(gap_ns + after_ns, moved_s, True) for after_ns, moved_s in reported]
    found = jumps(HostSeries(buckets, steps, 0.1), SPAN_NS)
    assert [round(jump.moved_s or 0.0, 6) for jump in found if not jump.is_reported] == unexplained
    assert [jump for jump in found if jump.is_reported] == steps
    mirrored = [
        bucket._replace(offset=Offset(-bucket.offset.estimate_s, -bucket.offset.latest_s, -bucket.offset.earliest_s))
        for bucket in buckets
        if bucket.offset is not None
    ]
    opposite = [step._replace(moved_s=step.moved_s and -step.moved_s) for step in steps]
    found = jumps(HostSeries(mirrored, opposite, 0.1), SPAN_NS)
    assert [round(-(jump.moved_s or 0.0), 6) for jump in found if not jump.is_reported] == unexplained


def test_a_jump_is_shown_with_its_size() -> None:
    """A step has the size that its agent reported, if any; three jumps are named and the others counted."""
    calm = tuple(TimeBucket(NOW_NS - (8 - n) * SPAN_NS, Severity.OK, Offset(0.0, -0.01, 0.01)) for n in range(8))
    wild = tuple(
        bucket._replace(offset=Offset(9.0 * (n % 2), 9.0 * (n % 2) - 0.1, 9.0 * (n % 2) + 0.1))
        for n, bucket in enumerate(calm)
    )
    since_ns = NOW_NS - 2 * SPAN_NS
    for value_s, kind, said in (
        (-0.12, "step-back", "; set back by 120 ms at 10-09 08:23:20;"),
        (0.5, "step-forward", "; set forward by 500 ms at 10-09 08:23:20;"),
        (None, "step-back", "; set at 10-09 08:23:20;"),
    ):
        one = member("a")._replace(alarms=(Alarm("a", kind, Severity.WARNING, since_ns, value_s),))
        assert f"Between 10 ms ahead and 10 ms behind; 15 min means from 0 ns ahead to 0 ns ahead{said}" in (
            write(fleet_of((one,)), {"a": calm}, ())
        )
    assert "by 8.8 s or more; 4 more jumps;" in write(fleet_of((member("a"),)), {"a": wild}, ())


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        (Offset(2.0, 1.0051, 3.0049), "Between 1 s and 3.01 s behind"),
        (Offset(-2.0, -3.0049, -1.0051), "Between 1 s and 3.01 s ahead"),
    ],
)
def test_extremes_are_rounded_outwards(offset: Offset, said: str) -> None:
    """What a clock was at worst is never said to be less than the band holds."""
    buckets = tuple(TimeBucket(NOW_NS - (4 - n) * SPAN_NS, Severity.OK, offset) for n in range(4))
    assert said in write(fleet_of((member("a"),)), {"a": buckets}, ())


def test_unlisted_hosts_are_reported() -> None:
    """Beside the coverage stands how many hosts report that the inventory does not know."""
    fleet = fleet_of((member("a"), member("b")))
    assert "In addition, 1 host reports and is not in the inventory." in write(fleet._replace(unlisted=1), {}, ())
    assert "In addition, 2 hosts report and are not in the inventory." in write(fleet._replace(unlisted=2), {}, ())
    assert "In addition" not in write(fleet._replace(unlisted=0), {}, ())


def test_hosts_without_a_point_are_in_the_picture_of_the_period() -> None:
    """Hosts that fell silent do not vanish from the stack: they stand on top of it as such."""
    frame = Frame(0, 3 * SPAN_NS, SPAN_NS)
    assert frame == Frame(0, 3 * SPAN_NS, SPAN_NS)
    tallies = [
        SeverityCounts(0, (4, 0, 0, 0)),
        SeverityCounts(SPAN_NS, (1, 0, 0, 1)),
        SeverityCounts(2 * SPAN_NS, (2, 1, 0, 0)),
    ]
    layers: dict[str, str] = dict(over_time(tallies, 4, frame).layers)
    assert set(layers) == {"c", "w", "n"}
    assert layers["c"] == "M333.3 100.0H666.7V66.7H333.3z"
    assert layers["n"] == "M333.3 66.7H666.7V0.0H333.3zM666.7 66.7H1000.0V33.3H666.7z"


@pytest.mark.parametrize(
    ("hosts", "ticks"),
    [
        (1, "0 1"),
        (3, "0 1 2 3"),
        (6, "0 2 4 6"),
        (19, "0 5 10 15"),
        (9144, "0 2,000 4,000 6,000 8,000"),
    ],
)
def test_hosts_are_counted_in_round_whole_numbers(hosts: int, ticks: str) -> None:
    """Beside the picture of the period stand few numbers, each at its height."""
    fleet = fleet_of(tuple(member(str(number)) for number in range(hosts)))
    drawn = write(fleet, {}, (SeverityCounts(0, (0, 0, 0, hosts)),))
    labels = re.findall(r'<span style="top:([0-9.]+)%">([0-9,]+)</span>', drawn)
    assert [label for _, label in labels] == ticks.split()
    for height, label in labels:
        assert float(height) == pytest.approx(100 - 100 * int(label.replace(",", "")) / hosts, abs=0.06)


def test_moments_stand_where_they_are(browser: Browser, folder: Path) -> None:
    """The middle of the period is named below the middle of its picture, on a desk and on a phone."""
    ends = """[...document.querySelectorAll("#history .fig, .cards .fig")].slice(0, 3).map((one) => {
      const range = document.createRange();
      range.selectNodeContents(one.querySelector(".xs span:nth-child(2)"));
      const label = range.getBoundingClientRect(), plot = one.querySelector(".plot").getBoundingClientRect();
      return (label.left + label.right - plot.left - plot.right) / 2; })"""
    with browser.page() as tab:
        for width in (1280, 390):
            tab.show(Screen(width))
            tab.open(folder / "small.html")
            assert max(map(abs, tab.evaluate(ends))) < 2


def test_runs_are_the_same_wherever_the_spans_begin() -> None:
    """A series without a gap is one run, though its intervals begin in the middle of a quarter of an hour."""
    begin_ns = NOW_NS - 8 * SPAN_NS + SPAN_NS // 2
    buckets = tuple(TimeBucket(begin_ns + n * SPAN_NS, Severity.OK, Offset(0.0, -0.01, 0.01)) for n in range(8))
    drawn = draw_series(HostSeries(buckets, [], 0.1), Frame(begin_ns, begin_ns + 8 * SPAN_NS, SPAN_NS))
    assert drawn.gaps == ""
    assert drawn.hull.count("M") == 1

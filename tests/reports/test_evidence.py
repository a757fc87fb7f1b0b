"""An evidence report as JSON, CSV, HTML and PDF: the same numbers, the same bytes, on paper without a cut."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ntpaudit.core.evidence.clauses import CLAUSES
from ntpaudit.core.evidence.report import share
from ntpaudit.reports import evidence_csv, evidence_json, evidence_page, evidence_pdf
from tests.reports import evidence
from tests.reports.evidence import DAY, DAYS, MADE
from tests.reports.test_fleet_page import HOSTILE
from tests.reports.test_markup import Parsed
from tests.world.browser import Browser, Screen, chromium
from tests.world.packages import REPOSITORY

A4_PX = 672  # the width of a sheet of A4 without its margins, at 96 dpi
SCHEMA = json.loads((REPOSITORY / "docs" / "evidence.schema.json").read_text())


def test_json_is_as_its_schema_has_it() -> None:
    """The schema allows no other field, so that it names each."""
    data = json.loads(evidence_json.render(evidence.quarter(), MADE))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(data, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data | {"more": 1}, SCHEMA)


def test_seconds_are_the_same_everywhere() -> None:
    """JSON, CSV and HTML have the numbers of the accounts."""
    report = evidence.quarter()
    data = json.loads(evidence_json.render(report, MADE))["content"]
    (row,) = [one for one in _rows(evidence_csv.render(report)["hosts.csv"]) if one["host"] == "web1"]
    (host,) = [one for one in data["hosts"] if one["name"] == "web1"]
    spans = {"within": DAYS * DAY - 10_960, "beyond": 7265, "unmeasured": 60, "off": 3600, "absent": 30, "unproven": 5}
    assert host["balance"]["spans_s"] == spans | {"unaccounted": 0}
    assert {name: int(row[f"{name}_s"]) for name in spans} == spans
    assert host["balance"]["excepted_s"]["beyond"] == int(row["excepted_beyond_s"]) == 7265
    assert int(row["counted_s"]) == DAYS * DAY - 3600 - 7265
    text = Parsed(evidence_page.render(report, MADE)).text
    assert share(spans["within"], DAYS * DAY - 3600 - 7265).partition(" of")[0] in text
    assert "2:01:05" in text  # the excursion


def test_each_table_has_its_rows() -> None:
    """A table for each kind of appendix; a formula stays text, and unknown is empty."""
    tables = {name: _rows(text) for name, text in evidence_csv.render(evidence.quarter()).items()}
    counts = {name: len(rows) for name, rows in tables.items()}
    assert counts == {
        "hosts.csv": 4,
        "excursions.csv": 4,
        "gaps.csv": 5,
        "steps.csv": 4,
        "sources.csv": 4,
        "changes.csv": 0,
        "events.csv": 2,
    }
    assert tables["excursions.csv"][0]["begin"] == "2026-07-04T00:10:00Z"
    assert tables["steps.csv"][1] == {"host": "web1", "time": "2026-07-04T00:11:00Z", "size_s": "", "cause": ""}


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


def test_the_manifest_has_the_hashes() -> None:
    """Two lines of Python compute the hash of the content from the JSON; each table has its own."""
    report = evidence.quarter()
    data = json.loads(evidence_json.render(report, MADE))
    content = json.dumps(data["content"], sort_keys=True, separators=(",", ":"))
    assert data["manifest"]["content"] == sha256(content.encode()).hexdigest()
    for name, text in evidence_csv.render(report).items():
        assert data["manifest"][name] == sha256(text.encode()).hexdigest()
    assert data["manifest"]["inventory"] == "12" * 32
    assert data["manifest"]["previous report"] == "34" * 32
    page = evidence_page.render(report, MADE)
    assert all(digest in page for digest in data["manifest"].values())


def test_only_the_time_of_making_differs() -> None:
    """The same data give the same bytes; another time and version are in one place (EV4)."""
    other = MADE._replace(utc="2027-01-01 00:00:00 UTC", version="0.9rc7")
    for render in (evidence_json.render, evidence_page.render):
        first, second = render(evidence.quarter(), MADE), render(evidence.quarter(), MADE)
        assert first == second
        later = render(evidence.quarter(), other)
        assert later.replace(other.utc, MADE.utc).replace(other.version, MADE.version) == first
        assert later.count(other.utc) == 1


def test_hostile_texts_stay_text() -> None:
    """Names from outside cannot write markup, nor fetch anything."""
    plain = Parsed(evidence_page.render(evidence.quarter(evidence.host("plain")), MADE))
    for name in HOSTILE:
        report = evidence.quarter(evidence.host(name))
        parsed = Parsed(evidence_page.render(report, MADE))
        tags = [tag for tag, _ in parsed.elements if tag != "wbr"]
        assert tags == [tag for tag, _ in plain.elements if tag != "wbr"]
        json.loads(evidence_json.render(report, MADE))
        evidence_csv.render(report)["hosts.csv"].encode()


def test_the_parts_are_in_their_order() -> None:
    """The order is that in which an auditor asks (EV2)."""
    page = evidence_page.render(evidence.quarter(), MADE)
    assert re.findall(r"<h2>\d+\. ([^<,]+)", page) == [
        *("Scope and coverage", "Method", "Tolerance", "Hosts", "Excursions", "Gaps", "Exceptions"),
        *("Clause by clause", "Verification", "What this does not prove", "Sign-off", "Manifest"),
    ]
    text = Parsed(page).text
    assert all(one.name in text for one in CLAUSES)
    assert "3 rows are damaged" in text
    assert "not in the inventory" in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser."""
    with chromium() as running:
        yield running


@pytest.mark.needs("chromium-headless-shell")
def test_a_browser_loads_nothing_and_cuts_nothing(browser: Browser, tmp_path: Path) -> None:
    """The page is complete by itself, and no table is wider than a sheet of A4."""
    path = tmp_path / "report.html"
    path.write_text(evidence_page.render(evidence.quarter(evidence.host("a" * 64 + ".example.net")), MADE))
    with browser.page() as tab:
        tab.show(Screen(A4_PX))
        tab.open(path)
        assert len(tab.requests) == 1
        assert tab.complaints == tab.refusals == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= A4_PX
        tab.call("Emulation.setEmulatedMedia", media="print")
        assert tab.evaluate("document.documentElement.scrollWidth") <= A4_PX
        assert tab.pdf().startswith(b"%PDF-")


@pytest.mark.needs("pango")
def test_pdf_is_the_same_in_each_process(tmp_path: Path) -> None:
    """No time, random number or order of a set is in the bytes (EV4)."""
    program = (
        "import sys; from tests.reports import evidence; from ntpaudit.reports import evidence_pdf;"
        "open(sys.argv[1], 'wb').write(evidence_pdf.render(evidence.quarter(), evidence.MADE))"
    )
    written = []
    for number in range(2):
        path = tmp_path / f"{number}.pdf"
        subprocess.run([sys.executable, "-c", program, str(path)], cwd=REPOSITORY, check=True, timeout=300)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert written[0].startswith(b"%PDF-")


def test_pdf_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra there is a fix instead of a traceback."""
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(Exception, match=re.escape("pip install 'ntpaudit[pdf]'")):
        evidence_pdf.render(evidence.quarter(), MADE)


def test_nothing_is_loaded_for_a_pdf() -> None:
    """A page that named a file or a server would not get it."""
    fetch: Any = evidence_pdf._refuse
    with pytest.raises(ValueError, match="nothing is loaded"):
        fetch("file:///etc/passwd")

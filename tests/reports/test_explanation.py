"""The text and the JSON of `ntpaudit explain`, on records in which findings are raised, pending and absent."""

import json
import re
from math import isfinite
from typing import Any

import pytest

from docs.__main__ import FOLDER
from ntpaudit.core.checks import host
from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.explanation import conditions, in_words, is_of_fleet, page_of
from ntpaudit.core.checks.rule import AnyRule, make_finding
from ntpaudit.core.fleet import checks
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Labels, Record, write_record
from ntpaudit.formats import text as text_format
from ntpaudit.reports.explanation import IDS, Here, render, render_json, render_list, rules_of
from tests.core.worlds import CHRONYD, FOUR, case
from tests.message_examples import HOSTS

NO_RECORD = Here(None, "none: no agent has stored a record")


def recorded(context: AuditContext) -> Record:
    """Return the record of a host."""
    found = host.findings_of(context)
    severity = max((one.severity for one in found), default=Severity.OK)
    return write_record(context, Labels("1.0"), found, severity)


def here(context: AuditContext) -> Here:
    """Return a record to explain findings with."""
    return Here(recorded(context), "record of a test")


def raising(finding_id: str) -> Here:
    """Return a record in which a finding is raised; any record for one of a fleet."""
    raised = (one for one in HOSTS if any(found.id == finding_id for found in host.findings_of(one)))
    return here(next(raised, HOSTS[0]))


def plain(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


@pytest.mark.parametrize("finding_id", IDS)
def test_no_line_is_too_long(finding_id: str) -> None:
    """Raised or not, at each width from 40 to 120 columns; nothing is wider than 100."""
    for shown in (raising(finding_id), NO_RECORD):
        for width in range(40, 121):
            lines = render(finding_id, shown, width=width).splitlines()
            assert max(map(len, lines)) <= min(width, 100)


def test_no_line_of_the_list_is_too_long() -> None:
    """Nor in the list of all findings, which has those of the record first."""
    shown = here(HOSTS[0])
    for width in range(40, 121):
        assert max(map(len, render_list(shown, width=width).splitlines())) <= min(width, 100)
    text = render_list(shown)
    assert text.index("critical  offset-out: ") < text.index("findings of a host:") < text.index("  not-demonstrable ")
    assert text.index("findings of a fleet") < text.index("  ordering-risk ")
    assert all(f"  {one} " in render_list(NO_RECORD) for one in IDS)


@pytest.mark.parametrize("finding_id", IDS)
def test_all_that_the_rule_states_is_there(finding_id: str) -> None:
    """Meaning, conditions, formulas, fixes, notes, controls and the page, whether it is raised or not."""
    text = plain(render(finding_id, NO_RECORD))
    for rule in rules_of(finding_id):
        words = [rule.meaning, rule.remedy, page_of(rule), *rule.case_remedies.values(), *rule.controls, rule.notes]
        words += [part for _, condition, formula in conditions(rule) for part in (condition, in_words(formula))]
        for part in words:
            assert plain(part) in text, part
        if not is_of_fleet(rule):
            assert NO_RECORD.source in text


@pytest.mark.parametrize("rule", [*host.RULES, *checks.RULES], ids=lambda rule: rule.id)
def test_the_page_has_the_place(rule: AnyRule) -> None:
    """The page is the one that `make docs` writes, and has a heading for the place."""
    match = re.match(r"docs/(findings\.md)#(\S+) ", page_of(rule))
    assert match
    headings = re.findall(r"^### (.*)$", (FOLDER / match[1]).read_text(), re.MULTILINE)
    assert match[2] in [re.sub(r"[()]", "", heading).replace(" ", "-") for heading in headings]


def test_a_raised_finding_has_its_message_its_fix_and_its_numbers() -> None:
    """The fix is that of this host; the formula has the numbers of the message."""
    text = render("offset-out", here(HOSTS[0]))
    assert text.startswith("critical  offset-out: the clock is at least 1.99 s behind (critical tolerance 1 s)\n")
    assert "here      minimum error (1.99 s) > critical tolerance (1 s)\n" in text
    assert "fix: if an agent runs here" in text
    assert "record    record of a test\n" in text


def test_a_finding_that_is_not_raised_has_the_present_numbers() -> None:
    """They stand beside the limit; without a record, or without the values, no number is shown."""
    text = render("offset-out", here(case(*FOUR)))
    assert text.startswith("offset-out: not raised on web1, because no condition is met or was confirmed\n")
    assert re.search(r"^now       minimum error \(0 s\) > critical tolerance \(1 s\)$", text, re.MULTILINE)
    ok = here(case(*FOUR))
    for text in (render("offset-out", NO_RECORD), render("step-back", ok), render("coverage", ok)):
        assert not re.search(r"^(now|here) ", text, re.MULTILINE)


SERVING = CHRONYD._replace(disciplines=False, reason="started with -x")


@pytest.mark.parametrize(
    ("finding_id", "context", "reasons"),
    [
        ("unapproved-source", case(daemons=(SERVING,)), ["chronyd was not judged: started with -x"]),
        ("daemon-disagrees", case(daemons=()), ["no time daemon was judged: none was found"]),
        ("unapproved-source", case(), []),
        ("offset-high", HOSTS[0], ["not listed while offset-out is raised"]),
        ("daemon-dead", case(), ["only an agent detects it, and this record is not of an agent"]),
        ("offset-out", case(), []),
    ],
)
def test_a_finding_that_is_not_raised_says_why(finding_id: str, context: AuditContext, reasons: list[str]) -> None:
    """What was not judged, what another finding covers, what only an agent detects; else the numbers say it."""
    shown = here(context)
    text = plain(render(finding_id, shown))
    assert all(f"{reason}" in text for reason in reasons)
    assert (", because no condition is met" in text) == (not reasons)
    (found,) = [one for one in json.loads(render_json([finding_id], shown))["findings"] if one["of"] == "host"]
    assert found["why_not_raised"] == reasons


def test_a_record_of_an_older_version_is_explained_without_numbers() -> None:
    """It has no numbers in its findings; one of a newer version may have findings that this one does not know."""
    record = recorded(HOSTS[0])
    old = Record.from_dict(json.loads(json.dumps(_without_numbers(record.to_dict()))))
    text = render("offset-out", Here(old, "old"))
    assert "the clock is at least 1.99 s behind" in text
    assert "here  " not in text
    newer = make_finding(host.RULES[0]._replace(id="of-the-future"), host.RULES[0].check(HOSTS[0]))  # type: ignore[arg-type]
    assert "of-the-future: the clock" in render_list(Here(record._replace(findings=(newer,)), "new"))


def _without_numbers(data: dict[str, Any]) -> dict[str, Any]:
    for finding in data["findings"]:
        del finding["numbers"]
    return data


def test_a_finding_names_those_that_it_is_listed_under() -> None:
    """Where its record has one, and what its rule states."""
    record = next(one for one in map(recorded, HOSTS) if any(finding.cause for finding in one.findings))
    finding = next(finding for finding in record.findings if finding.cause)
    text = plain(render(finding.id, Here(record, "record of a test")))
    assert f"listed under {finding.cause}, which has the same cause" in text
    assert f"Listed under {finding.cause} while that is raised and counts." in text
    assert "Not listed while offset-out or not-demonstrable is raised and counts." in plain(
        render("offset-high", NO_RECORD)
    )


def test_a_finding_of_a_host_and_of_a_fleet_are_both_explained() -> None:
    """`evidence-gap` is the id of both."""
    text = render("evidence-gap", NO_RECORD)
    assert text.count("evidence-gap: a finding of a ") == 2
    assert "records were lost before delivery" in text
    assert "hosts have been silent for a day" in text


def test_colour_only_colours() -> None:
    """Without its colours the text is the same."""
    coloured = render("offset-out", here(HOSTS[0]), colour=True)
    assert "\x1b[31mcritical\x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == render("offset-out", here(HOSTS[0]))


def test_the_json_has_the_same() -> None:
    """Every finding of every kind is in it; numbers are finite, and null is what is unknown."""
    for context in (HOSTS[0], case(*FOUR)):
        data = json.loads(render_json(IDS, here(context)))
        assert data["schema"] == "ntpaudit.explanation/1"
        assert [one["id"] for one in data["findings"]] == [rule.id for one in IDS for rule in rules_of(one)]
        raised = {finding.id for finding in host.findings_of(context)}
        for one in data["findings"]:
            assert one["raised"] == (one["id"] in raised if one["of"] == "host" else None)
            assert (one["finding"] is not None) == bool(one["raised"])
            numbers = [*one["present"].values(), *(one["finding"] or {"numbers": {}})["numbers"].values()]
            assert all(isfinite(value) for value in numbers)
            assert {control["certainty"] for control in one["controls"]} <= {"verified", "secondary", "unverified"}
            assert all(technique["version"] for technique in one["techniques"])
    (one,) = json.loads(render_json(["offset-out"], here(HOSTS[0])))["findings"]
    assert one["finding"]["numbers"] == {"minimum_error_s": 1.99, "critical_tolerance_s": 1.0}
    assert one["finding"]["formulas"] == ["minimum_error_s > critical_tolerance_s"]
    (one,) = json.loads(render_json(["offset-out"], NO_RECORD))["findings"]
    assert (one["raised"], one["finding"], one["present"]) == (None, None, {})


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_check_explains_each_of_its_findings(width: int) -> None:
    """Below its fix, and only where it is asked for."""
    for context in HOSTS:
        record = recorded(context)
        text = text_format.render(record, width=width, explain=True)
        assert max(len(line) for line in text.splitlines() if line.startswith(" ")) <= width
        assert text.count(" meaning: ") == text.count(" page:") == len(record.findings)
        assert text.count(" here: ") >= len(record.findings)
        assert " meaning: " not in text_format.render(record, width=width)

"""What the documentation says of findings is what the rules say."""

import re
from pathlib import Path

import pytest

from docs.__main__ import BLOCKS, FOLDER, fill, marks, pages
from ntpaudit.core.checks import host
from ntpaudit.core.checks.finding import LEVEL_SEVERITY
from ntpaudit.core.fleet import checks
from ntpaudit.outputs.journal import MESSAGE_IDS

REPOSITORY = Path(__file__).parent.parent
FINDINGS = (FOLDER / "findings.md").read_text()

ANY_RULE = (*host.RULES, *checks.RULES)

UNRAISED = {
    "unattributed-change", "daemon-disagrees", "unapproved-source", "ingest-risk", "time-config-changed", "audit-blind",
    "leap-smear-mix", "unauthenticated",
} - {rule.id for rule in ANY_RULE}  # fmt: skip
"""Findings of INTEGRITY §6 that no rule raises yet: none is promised to a reader."""


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_pages_are_as_the_rules_write_them(path: Path) -> None:
    """A page that differs from its rules is written again by `make docs`."""
    assert path.read_text() == pages()[path]


@pytest.mark.parametrize("name", BLOCKS)
def test_each_block_has_one_place(name: str) -> None:
    """A block whose marks were lost would never be written again."""
    text = "".join(path.read_text() for path in pages())
    assert [text.count(mark) for mark in marks(name)] == [1, 1]


def test_a_block_is_written_anew_and_the_rest_stays() -> None:
    """Whatever stood between the marks is replaced; an end that is missing is an error and destroys nothing."""
    begin, end = marks("message ids")
    filled = fill(f"before\n{begin}\nold\n{end}\nafter\n")
    assert filled.startswith(f"before\n{begin}\n| kind |")
    assert filled.endswith(f"|\n{end}\nafter\n")
    assert "old" not in filled
    with pytest.raises(ValueError, match="not found"):
        fill(f"{begin}\nall that follows")


def test_each_finding_has_a_heading_to_link_to() -> None:
    """The headings are the rules, in their order; no two have one anchor."""
    headings = re.findall(r"^### (.+)$", FINDINGS, re.MULTILINE)
    of_a_host = [rule.id for needed in (False, True) for rule in host.RULES if rule.needs_agent is needed]
    assert headings == of_a_host + [f"{rule.id} (fleet)" for rule in checks.RULES]
    assert len(set(headings)) == len(headings)


@pytest.mark.parametrize("rule", ANY_RULE, ids=lambda rule: rule.id)
def test_a_rule_documents_its_finding(rule: host.Rule | checks.Rule) -> None:
    """It names levels that there are, the worst first, and its words stay in the cell of a table."""
    levels = [level for key in rule.raised_when for level in key.split(", ")]
    assert levels
    assert levels == [level for level in LEVEL_SEVERITY if level in levels]
    for text in (*rule.raised_when.values(), rule.remedy, *rule.controls):
        assert text
        assert not set("|\n<>") & set(text)
        assert text[-1] not in ". "


def test_no_finding_is_promised_that_nothing_raises() -> None:
    """Neither a message id nor a page names a finding that no rule raises."""
    assert not UNRAISED & set(MESSAGE_IDS)
    pages_of_users = [*FOLDER.glob("*.md"), REPOSITORY / "README.md", REPOSITORY / "grafana" / "README.md"]
    for path in pages_of_users:
        text = path.read_text()
        words = set(re.findall(r"[a-z]+(?:-[a-z]+)+", text)) | set(re.findall("`([a-z]+)`", text))
        assert not UNRAISED & words, path.name

"""The page of all messages: complete, in step with the rules, and in plain words."""

import re
from collections.abc import Mapping

import pytest

from ntpaudit.core.checks import host
from ntpaudit.core.checks.explanation import conditions
from ntpaudit.core.checks.rule import AnyRule
from ntpaudit.core.fleet import checks
from tests.message_examples import FLEETS, HOSTS, Example, debounce_messages, fleet_messages, host_messages
from tests.test_words import found

ALL = [*host_messages(), *debounce_messages(), *fleet_messages()]

BANNED = re.compile(r"\b(?:lies|meanwhile|by now|hence|is asked|in sight|look(?:s|ed)? (?:for|at))\b", re.IGNORECASE)
"""Words that no message needs, besides those that tests/test_words.py keeps out of all texts."""


def _is_plain(text: str) -> bool:
    return found(text) is None and not BANNED.search(text)


def _levels(raised_when: Mapping[str, object]) -> set[str]:
    return {level for key in raised_when for level in key.split(", ")}


@pytest.mark.parametrize(
    ("rules", "examples"), [(host.RULES, host_messages), (checks.RULES, fleet_messages)], ids=["host", "fleet"]
)
def test_every_level_of_every_rule_has_an_example(rules: tuple[AnyRule, ...], examples: type) -> None:
    """The page shows each documented level of each rule, and no other."""
    shown: dict[str, set[str]] = {}
    for kind, level, _ in examples():
        shown.setdefault(kind, set()).add(level)
    assert shown == {rule.id: _levels(rule.raised_when) for rule in rules}


@pytest.mark.parametrize("example", ALL, ids=lambda example: f"{example[0]}-{example[1]}")
def test_a_message_is_plain_text(example: Example) -> None:
    """No banned word, no line break, no cell border, and no final full stop."""
    _, _, message = example
    assert _is_plain(message)
    assert message.isprintable()
    assert "|" not in message
    assert message[-1] != "."


@pytest.mark.parametrize("rule", [*host.RULES, *checks.RULES], ids=lambda rule: rule.id)
def test_the_fix_and_the_documentation_of_a_rule_are_plain_text(rule: AnyRule) -> None:
    """They follow the same rules."""
    cases = [text for case in rule.case_remedies.items() for text in case]
    for text in (rule.remedy, rule.notes, *cases, *(text for _, text, _ in conditions(rule))):
        assert _is_plain(text), text


def test_every_fix_is_documented_and_every_documented_fix_is_given() -> None:
    """The fix of a finding is the general one of its rule or that of a case; names and reasons are added to it."""
    given: dict[str, set[str]] = {}
    for context in HOSTS:
        for rule in host.RULES:
            if (raised := rule.check(context)) is not None:
                given.setdefault(rule.id, set()).add(raised.remedy or rule.remedy)
    for read, policy in FLEETS:
        for finding in checks.judge_fleet(read, policy).findings:
            given.setdefault(f"{finding.id} of a fleet", set()).add(finding.remedy)
    rules: dict[str, AnyRule] = {rule.id: rule for rule in host.RULES}
    rules |= {f"{rule.id} of a fleet": rule for rule in checks.RULES}
    for name, rule in rules.items():
        assert name in given, f"add a host or a fleet that raises {name} to tests/message_examples.py"
        documented = {_main(fix) for fix in (rule.remedy, *rule.case_remedies.values())}
        assert [fix for fix in given[name] if not any(main in fix for main in documented)] == [], name
        cases = {_main(fix) for case, fix in rule.case_remedies.items() if not case.startswith("the reason is")}
        assert [main for main in cases if not any(main in fix for fix in given[name])] == [], name


def _main(fix: str) -> str:
    """Return the part of a documented fix that names no hosts: the last one."""
    return fix.rpartition("; ")[2]


def test_an_agent_shows_what_is_pending() -> None:
    """The page has a pending, an improving, an outdated and an unconfirmable finding."""
    text = "\n".join(message for _, _, message in debounce_messages())
    for words in ("Pending (1 sample)", "Improving: ", "Last measured ", "Cannot be confirmed"):
        assert words in text

"""Every rule has a formula that is true of the numbers of its findings, and words for all that it states."""

import ast
import re
from collections.abc import Mapping
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.checks import host
from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.controls import CONTROLS, TECHNIQUES
from ntpaudit.core.checks.explanation import (
    Condition,
    bears_on,
    clearing,
    compared_here,
    conditions,
    confirmation,
    control_text,
    formulas_here,
    in_words,
    name_of,
    present_numbers,
    quantities,
    symbols,
    technique_text,
)
from ntpaudit.core.checks.rule import AnyRule, Finding
from ntpaudit.core.checks.steps import STEP_BACK
from ntpaudit.core.fleet import checks
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Labels, write_record
from tests.core.worlds import FOUR, case
from tests.message_examples import HOSTS
from tests.test_words import found as banned

RULES: tuple[AnyRule, ...] = (*host.RULES, *checks.RULES)
UNITS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "ppm": 1.0}
NODES = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
    *(ast.BinOp, ast.Mult, ast.Sub, ast.Call, ast.Load, ast.Name, ast.Constant),
)


def expression(formula: str) -> ast.Expression:
    """Return a formula as an expression of numbers in SI units; only comparisons and the least arithmetic."""
    plain = re.sub(r"([0-9.]+) (ms|s|min|h|ppm)\b", lambda term: repr(float(term[1]) * UNITS[term[2]]), formula)
    tree = ast.parse(plain, mode="eval")
    assert all(isinstance(node, NODES) for node in ast.walk(tree)), formula
    assert isinstance(tree.body, ast.Compare | ast.BoolOp), formula
    assert {call.func.id for call in ast.walk(tree) if isinstance(call, ast.Call)} <= {"abs"}  # type: ignore[attr-defined]
    return tree


def holds(formula: str, numbers: Mapping[str, float]) -> bool:
    """Whether a formula is true of numbers."""
    return bool(eval(compile(expression(formula), "formula", "eval"), {"abs": abs, **numbers}))


def findings() -> list[Finding]:
    """Return every finding of the hosts of the page of messages."""
    return [finding for context in HOSTS for finding in host.findings_of(context)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_has_a_formula_for_each_condition(rule: AnyRule) -> None:
    """The formula of each condition can be evaluated, and all that is stated can be written in words."""
    assert rule.formula.keys() == rule.raised_when.keys()
    for _, text, formula in conditions(rule):
        assert text
        assert expression(formula)
        names = {node.id for node in ast.walk(expression(formula)) if isinstance(node, ast.Name)}
        assert names - {"abs"} == set(symbols(formula))
        assert banned(in_words(formula)) is None
    assert re.fullmatch(r"[A-Z][^.]*[.]", rule.meaning)
    assert banned(rule.meaning) is None


@pytest.mark.parametrize("rule", host.RULES, ids=lambda rule: rule.id)
def test_the_formula_is_true_where_the_finding_is_raised(rule: AnyRule) -> None:
    """The numbers of each example are those of a formula of its level, which is true of them."""
    raised = [one for context in HOSTS if (one := rule.check(context)) is not None]
    assert raised, f"add a host that raises {rule.id} to tests/message_examples.py"
    for one in raised:
        formulas = [
            condition.formula
            for condition in conditions(rule)
            if condition.level == one.level and set(symbols(condition.formula)) == set(one.numbers)
        ]
        assert formulas, (one.level, dict(one.numbers))
        assert any(holds(formula, one.numbers) for formula in formulas), (formulas, dict(one.numbers))
        assert all(isfinite(value) for value in one.numbers.values())


def test_each_condition_of_a_host_has_an_example() -> None:
    """No formula is written that no example tests."""
    untested = []
    for rule in host.RULES:
        raised = [one for context in HOSTS if (one := rule.check(context)) is not None]
        untested += [
            (rule.id, level, formula)
            for level, _, formula in conditions(rule)
            if not any(one.level == level and set(one.numbers) == set(symbols(formula)) for one in raised)
        ]
    assert untested == []


@pytest.mark.parametrize("finding", findings(), ids=lambda finding: f"{finding.id}-{finding.level}")
def test_a_finding_is_explained_with_its_numbers(finding: Finding) -> None:
    """Each number stands in the formula, after its name."""
    rule = host.BY_ID[finding.id]
    (formula,) = formulas_here(rule, finding.level, finding.numbers)
    text = in_words(formula, finding.numbers)
    for symbol, value in quantities(finding.numbers).items():
        assert f"{name_of(symbol)} ({value})" in text


def test_a_formula_in_words() -> None:
    """Symbols lose their units and get their values; equal looks of different values are written in full."""
    formula = "10 ms <= abs(offset_s) < 1 s and drift_ppm > 3"
    assert in_words(formula) == "10 ms <= |offset| < 1 s and drift > 3"
    assert in_words(formula, {"offset_s": -0.25, "drift_ppm": 12.3456}) == (
        "10 ms <= |offset (-250 ms)| < 1 s and drift (12.35 ppm) > 3"
    )
    assert in_words("a_s > b_s", {"a_s": 1.0000004, "b_s": 1.0}) == "a (1.0000004 s) > b (1 s)"
    assert in_words("a_s > count", {"a_s": 172800.0, "count": 172800}) == "a (2 days) > count (172800)"
    assert in_words("a_s > b_s", {"a_s": 0.0, "b_s": -1.0}) == "a (0 s) > b (-1 s)"


@given(st.dictionaries(st.sampled_from(["a_s", "b_ppm", "count"]), st.floats(-1e12, 1e12)))
def test_any_number_can_be_written(numbers: dict[str, float]) -> None:
    """No value is too large or too small."""
    assert quantities(numbers).keys() == numbers.keys()


def test_the_formula_of_a_pending_finding_is_that_of_another_level() -> None:
    """It is listed as low until it is confirmed; a number of another version has no formula."""
    numbers = {"set_back_s": 2.0, "uptime_at_step_s": 1e6}
    assert formulas_here(STEP_BACK, "high", numbers) == ("set_back_s >= 1 s and uptime_at_step_s > 5 min",)
    assert formulas_here(host.BY_ID["offset-out"], "low", {"minimum_error_s": 2.0, "critical_tolerance_s": 1.0}) == (
        "minimum_error_s > critical_tolerance_s",
    )
    assert formulas_here(STEP_BACK, "high", {"other_s": 1.0}) == ()
    assert formulas_here(STEP_BACK, "high", {}) == ()


def test_every_control_is_in_the_table() -> None:
    """Each control and each technique that a rule names has its certainty or its version; no other is listed."""
    assert {name for rule in RULES for name in bears_on(rule)[0]} == CONTROLS.keys()
    assert {name for rule in RULES for name in bears_on(rule)[1]} == TECHNIQUES.keys()
    for name in CONTROLS:
        assert control_text(name).startswith(f"{name}: ")
        assert "verified" in control_text(name) or "secondary" in control_text(name)
    for name, technique in TECHNIQUES.items():
        assert technique.version in technique_text(name)
    for text in (*map(control_text, CONTROLS), *map(technique_text, TECHNIQUES)):
        assert banned(text) is None


@pytest.mark.parametrize("rule", host.RULES, ids=lambda rule: rule.id)
def test_what_raises_and_clears_a_finding_is_described(rule: AnyRule) -> None:
    """Whatever the basis of the rule is."""
    assert confirmation(rule)
    assert clearing(rule)


@pytest.mark.parametrize("context", [*HOSTS, case(*FOUR)], ids=range(len(HOSTS) + 1))
def test_a_record_has_the_present_numbers(context: AuditContext) -> None:
    """Those of a finding that is raised now are the same as those of the record, where the record has them."""
    found = host.findings_of(context)
    record = write_record(context, Labels("1.0"), found, max((one.severity for one in found), default=Severity.OK))
    present = present_numbers(record)
    assert all(isfinite(value) for value in present.values())
    for finding in found:
        same = present.keys() & finding.numbers.keys()
        assert {name: present[name] for name in same} == pytest.approx({name: finding.numbers[name] for name in same})


def test_only_conditions_that_are_wholly_known_are_compared() -> None:
    """A limit without the value that it limits says nothing."""
    rule = host.BY_ID["offset-high"]
    assert compared_here(rule, {"warning_tolerance_s": 1.0}) == {}
    assert list(compared_here(rule, {"warning_tolerance_s": 1.0, "offset_s": 0.5})) == [
        "offset_s",
        "warning_tolerance_s",
    ]


def test_a_condition_of_several_levels_is_one_of_each() -> None:
    """A rule may give two levels at once."""
    rule = STEP_BACK._replace(raised_when={"high, medium": "it is"}, formula={"high, medium": "set_back_s > 1 s"})
    assert list(conditions(rule)) == [Condition(level, "it is", "set_back_s > 1 s") for level in ("high", "medium")]

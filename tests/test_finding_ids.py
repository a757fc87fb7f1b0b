"""A finding's id is written once: as the first argument of its rule."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ntpaudit.core.checks import host
from ntpaudit.core.fleet import checks

REPOSITORY = Path(__file__).parent.parent

IDS = {rule.id for rule in (*host.RULES, *checks.RULES)}

ALSO_ANOTHER_WORD = {"unmeasured", "coverage"}
"""`unmeasured` is a verdict too, and `coverage` a field of the fleet's JSON."""

FILES = [path for folder in ("ntpaudit", "grafana", "docs") for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def ids_outside_rules(tree: ast.AST) -> Iterator[str]:
    """Yield the ids among a module's literals that are not the first argument of `Rule`."""
    own = {id(call.args[0]) for call in ast.walk(tree) if isinstance(call, ast.Call) and _is_rule(call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in IDS - ALSO_ANOTHER_WORD and id(node) not in own:
            yield f"{node.value} in line {node.lineno}"


def _is_rule(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "Rule" and bool(call.args)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_module_writes_the_id_of_a_finding(path: Path) -> None:
    """Other code uses the rule itself, for example `OFFSET_OUT.id`, or an attribute of all rules."""
    assert list(ids_outside_rules(ast.parse(path.read_text()))) == []


def test_an_id_elsewhere_is_found() -> None:
    """The test above sees an id in an expression, and not in its rule."""
    source = 'RULE = Rule("offset-out", check)\nif kind == "offset-out" or kind in ("step-back", "step"):\n    pass\n'
    assert list(ids_outside_rules(ast.parse(source))) == ["offset-out in line 2", "step-back in line 2"]


def test_every_rule_is_listed_once() -> None:
    """Each rule that a module defines is in the list of its kind, so that it is checked and documented."""
    for rules, folder in ((host.RULES, "checks"), (checks.RULES, "fleet")):
        sources = (path.read_text() for path in (REPOSITORY / "ntpaudit" / "core" / folder).glob("*.py"))
        calls = [call for text in sources for call in ast.walk(ast.parse(text)) if isinstance(call, ast.Call)]
        written = [ast.literal_eval(call.args[0]) for call in calls if _is_rule(call)]
        assert sorted(written) == sorted(rule.id for rule in rules)

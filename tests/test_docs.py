"""The documentation of findings and reason codes is what the code does, and its links resolve."""

import ast
import re
import tokenize
from collections.abc import Iterator
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest

from docs.__main__ import BLOCKS, FOLDER, fill, marks, pages
from docs.reasons import KOD, REASONS
from ntpaudit.config.schema import OutputsConfig
from ntpaudit.core.checks import host
from ntpaudit.core.checks.explanation import conditions
from ntpaudit.core.checks.rule import LEVEL_SEVERITY, AnyRule
from ntpaudit.core.fleet import checks
from ntpaudit.core.observation import STATUSES
from ntpaudit.core.selection import BEFORE_RELEASE
from ntpaudit.outputs.journal import MESSAGE_IDS
from ntpaudit.probes.daemons import KINDS
from tests.test_architecture import ORDER

REPOSITORY = Path(__file__).parent.parent
FINDINGS = (FOLDER / "findings.md").read_text()

ANY_RULE = (*host.RULES, *checks.RULES)

UNRAISED = {
    "unattributed-change", "daemon-disagrees", "unapproved-source", "ingest-risk", "time-config-changed", "audit-blind",
    "leap-smear-mix", "unauthenticated",
} - {rule.id for rule in ANY_RULE}  # fmt: skip
"""Findings of the NTPA numbers (docs/requirements.md) that no rule raises yet: none is promised to a reader."""


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_pages_are_as_the_rules_write_them(path: Path) -> None:
    """A page that differs from its rules is written again by `make docs`."""
    assert path.read_text() == pages()[path]


@pytest.mark.parametrize("name", BLOCKS)
def test_each_block_has_one_place(name: str) -> None:
    """A block whose marks were lost would never be written again."""
    text = "".join(path.read_text() for path in pages())
    assert [text.count(mark) for mark in marks(name)] == [1, 1]


def test_a_block_is_rewritten_and_the_rest_stays() -> None:
    """Whatever stood between the marks is replaced; an end that is missing is an error and destroys nothing."""
    begin, end = marks("message ids")
    filled = fill(f"before\n{begin}\nold\n{end}\nafter\n")
    assert filled.startswith(f"before\n{begin}\n| kind |")
    assert filled.endswith(f"|\n{end}\nafter\n")
    assert "old" not in filled
    with pytest.raises(ValueError, match="not found"):
        fill(f"{begin}\nall that follows")


def test_each_time_daemon_and_each_output_has_a_row() -> None:
    """A reader finds each process that counts as a time daemon, and each output, in the page about them."""
    for page, names in (
        ("daemons.md", [name for kind in KINDS for name in kind.process_names]),
        ("outputs.md", OutputsConfig._fields),
    ):
        rows = "".join(line for line in (FOLDER / page).read_text().splitlines() if line.startswith("| "))
        assert [name for name in names if f"`{name}`" not in rows] == [], f"add a row to the table of docs/{page}"


def test_each_finding_has_a_heading_to_link_to() -> None:
    """The headings are the rules, in their order; no two have one anchor."""
    headings = re.findall(r"^### (.+)$", FINDINGS, re.MULTILINE)
    of_a_host = [rule.id for needed in (False, True) for rule in host.RULES if rule.needs_agent is needed]
    assert headings == of_a_host + [f"{rule.id} (fleet)" for rule in checks.RULES]
    assert len(set(headings)) == len(headings)


@pytest.mark.parametrize("rule", ANY_RULE, ids=lambda rule: rule.id)
def test_a_rule_documents_its_finding(rule: AnyRule) -> None:
    """It names levels that there are, the worst first, and its words stay in the cell of a table."""
    levels = [level for key in rule.raised_when for level in key.split(", ")]
    assert levels
    assert levels == [level for level in LEVEL_SEVERITY if level in levels]
    cells = [text for _, text, _ in conditions(rule)]
    for text in (*cells, rule.remedy, *rule.case_remedies.keys(), *rule.case_remedies.values(), *rule.controls):
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


SET_REASON = {"SourceFailure": 1, "UnusableReply": 0, "ClassifiedSource": 2, "BackOff": 0}
"""The values that carry a reason code, and the position of the code among the arguments."""

PASSED_ON = {"reason", "said.reason", "hold.reason", "reply.reason", "warning", "source.outcome.reason"}
"""Codes that an expression takes from elsewhere: `reason_codes` finds them where they are written."""


CONSTANTS = {"BEFORE_RELEASE": BEFORE_RELEASE}
"""Codes that have a name in the code."""


def reason_codes() -> Iterator[tuple[str, str]]:
    """Yield each reason code that the source code writes, and where."""
    for path in sorted((REPOSITORY / "ntpaudit").rglob("*.py")):
        text = path.read_text()
        if "core/delivery" in str(path) or "from ntpaudit.core.delivery" in text:
            continue  # `Refused` is there what a database refused
        for node in ast.walk(ast.parse(text)):
            where = f"{path.relative_to(REPOSITORY)}:{getattr(node, 'lineno', 0)}"
            match node:
                case ast.Call(func=ast.Name(id=name), args=arguments) if name in SET_REASON:
                    written = arguments[SET_REASON[name] :][:1]
                case ast.Call(func=ast.Attribute(value=ast.Name(id="warnings"), attr="append"), args=arguments):
                    written = arguments
                case ast.Assign(targets=[ast.Name(id="reason")], value=value) if (
                    "core/ntp/" in where or "core/selection" in where
                ):
                    written = [value]
                case ast.FunctionDef(name="tail_fault"):
                    written = [part.value for part in ast.walk(node) if isinstance(part, ast.Return) and part.value]
                case ast.Assign(targets=[ast.Name(id="_FAILURES")], value=ast.Dict(values=values)):
                    written = [value.elts[0] for value in values if isinstance(value, ast.Tuple)]
                case ast.Call(func=ast.Attribute(value=ast.Name(id="_FAILURES")), args=[_, ast.Tuple(elts=[code, *_])]):
                    written = [code]
                case _:
                    continue
            for expression in written:
                yield from ((code, where) for code in codes_in(expression, where))


def codes_in(expression: ast.expr, where: str) -> Iterator[str]:
    """Yield the codes that an expression can have as its value; AssertionError for a form that is not understood."""
    match expression:
        case ast.Constant(value=None | ""):
            pass
        case ast.Constant(value=str(code)):
            yield code
        case ast.Name(id=name) if name in CONSTANTS:
            yield CONSTANTS[name]
        case ast.BoolOp(op=ast.Or(), values=values):
            for value in values:
                yield from codes_in(value, where)
        case ast.BoolOp(op=ast.And(), values=[*_, last]):
            yield from codes_in(last, where)
        case ast.IfExp(body=body, orelse=otherwise):
            yield from codes_in(body, where)
            yield from codes_in(otherwise, where)
        case ast.JoinedStr(values=[ast.Constant(value="kod:"), _]):
            yield KOD
        case ast.Call(func=ast.Name(id="tail_fault")):
            pass
        case ast.Subscript() if "discarded.most_common" in ast.unparse(expression):
            pass
        case _:
            assert ast.unparse(expression) in PASSED_ON, f"{where}: which reason is {ast.unparse(expression)}?"


def test_each_reason_code_is_explained() -> None:
    """A code without an entry in REASONS would be unknown to its reader; an entry that no code uses is a promise."""
    found = {code for code, _ in reason_codes()} | {"kod:DENY", "kod:RSTR"}
    unexplained = [f"{where}: {code}" for code, where in reason_codes() if code not in REASONS]
    assert unexplained == []
    assert set(REASONS) == found


@pytest.mark.parametrize("code", REASONS)
def test_an_explanation_fits_its_table(code: str) -> None:
    """It names statuses that exist, and its texts stay in one cell."""
    reason = REASONS[code]
    assert reason.statuses
    assert set(reason.statuses) <= set(STATUSES)
    assert reason.meaning.endswith(".")
    assert not reason.advice.endswith(".")
    assert not set("|\n<>") & set(reason.meaning + reason.advice)


LINK = re.compile(r"\]\(([^)\s]+)\)")
PAGES = [*FOLDER.glob("*.md"), *(REPOSITORY / name for name in ("README.md", "grafana/README.md", "systemd/README.md"))]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{anchor}-1" if anchor in found else anchor)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_between_pages_resolve(page: Path) -> None:
    """Each link to a file of the repository leads to a file that exists, and to a heading that it has."""
    broken = []
    for target in LINK.findall(page.read_text()):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = page.parent / name if name else page
        if not linked.exists() or (anchor and anchor not in anchors(linked.read_text())):
            broken.append(target)
    assert broken == []


def test_files_named_in_the_documentation_exist() -> None:
    """A page that names a file of the checkout follows when the file is moved."""
    files = r"(?:ntpaudit|tests|grafana|packaging|systemd)/[\w/-]+\.(?:py|sh|md|toml|service|timer)"
    named = re.compile(rf"(?<![\w/.-]){files}\b")
    texts = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    found = [(page.name, file) for page in texts for file in named.findall(page.read_text())]
    assert found
    assert [(page, file) for page, file in found if not (REPOSITORY / file).exists()] == []


def test_the_index_names_every_page() -> None:
    """docs/README.md sends each reader to a page; a page that it does not name is not found."""
    linked = {name.partition("#")[0] for name in LINK.findall((FOLDER / "README.md").read_text())}
    assert {page.name for page in FOLDER.glob("*.md")} - {"README.md"} <= linked


def test_the_architecture_page_follows_the_tree() -> None:
    """The page names each module at the top and in the core, and the order of imports that the tests hold."""
    page = (FOLDER / "architecture.md").read_text()
    tree = page[: page.index("Some names exist")]
    package = REPOSITORY / "ntpaudit"
    paths = [*package.iterdir(), *(package / "core").iterdir()]
    named = [
        path for path in paths if not path.name.startswith("_") and (path.suffix == ".py" or any(path.glob("*.py")))
    ]
    expected = {path.name if path.is_file() else f"{path.name}/" for path in named}
    assert expected - set(re.findall(r"^ +(\S+)", tree, re.MULTILINE)) == set()
    order = dict.fromkeys(entry.partition(".")[0] for entry in ORDER)
    assert ", ".join(order) in " ".join(page.split())


def test_the_path_of_a_reply_names_what_exists() -> None:
    """Each `file: name` of the architecture page is a function, a class or a value of that file."""
    page = (FOLDER / "architecture.md").read_text()
    named = re.findall(r"`([\w/]+)\.py: ([\w.]+)", page)
    assert len(named) > 15
    for path, name in named:
        package = "" if path.startswith("grafana/") else "ntpaudit."
        assert attrgetter(name)(import_module(package + path.replace("/", "."))), f"{path}.py: {name}"


CITED = re.compile(r"\b(AC|CH|EV|NTPA-|[A-Z])(\d{1,2}b?)\b(?:(?: to |-)\1(\d{1,2})\b)?")


def cited(text: str) -> set[str]:
    """Return the ids that comments cite. T1 to T4 alone are the timestamps of an exchange."""
    text = " ".join(re.sub(r"^\s*#", "", text, flags=re.MULTILINE).split())
    phrases = re.findall(r"requirements? ((?:T\d(?:, | and | to )?)+)", text)
    found: set[str] = set()
    for group, first, last in CITED.findall("; ".join([re.sub(r"\bT[0-4]\b", "", text), *phrases])):
        numbers = range(int(first), int(last) + 1) if last else [first]
        found |= {f"{group}{number}" for number in numbers}
    return found


def comments(folder: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the comments and docstrings of each program in a folder."""
    for path in sorted((REPOSITORY / folder).rglob("*")):
        if path.suffix == ".py":
            with tokenize.open(path) as lines:
                tokens = list(tokenize.generate_tokens(lines.readline))
            texts = [t.string for t in tokens if t.type == tokenize.COMMENT or t.string.lstrip("rf").startswith('"""')]
            yield f"{path.relative_to(REPOSITORY)}", "\n".join(texts)
        elif path.suffix in {".sh", ".service", ".timer"}:
            text = path.read_text()
            yield f"{path.relative_to(REPOSITORY)}", "\n".join(re.findall("^#.*", text, re.MULTILINE))


def test_each_requirement_that_is_cited_has_a_row() -> None:
    """A reader finds every id of a comment in docs/requirements.md, and the page has no row that nothing cites."""
    rows = re.findall(r"^\| ([A-Z]\S*) \|", (FOLDER / "requirements.md").read_text(), re.MULTILINE)
    folders = ("ntpaudit", "grafana", "systemd", "packaging", "tests")
    found = [(where, cited(text)) for folder in folders for where, text in comments(folder)]
    assert [(where, sorted(ids - set(rows))) for where, ids in found if ids - set(rows)] == []
    assert [row for row in rows if not any(row in ids for _, ids in found)] == []
    assert len(set(rows)) == len(rows)

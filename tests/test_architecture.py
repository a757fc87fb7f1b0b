"""Imports go one way, and the core is pure."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ntpaudit"

ORDER = (
    "errors",
    "log",
    "files",
    "core.units",
    "core.merkle",
    "core.roughtime",
    "core.chain",
    "core.anchor",
    "core.clock.readings",
    "core.clock.interval",
    "core.clock.steps",
    "core.clock.drift",
    "core.clock.database_clock",
    "core.ntp.time",
    "core.ntp.packet",
    "core.ntp.measurement",
    "core.ntp.sources",
    "core.ntp.patterns",
    "core.ntp.rate_limit",
    "core.audit_rules",
    "core.observation",
    "core.time_config",
    "core.leap",
    "core.smear",
    "core.selection",
    "core.cross_check",
    "core.policy",
    "core.ingest",
    "core.acceptance",
    "core.site_policy",
    "core.checks.controls",
    "core.checks.rule",
    "core.events",
    "core.checks.context",
    "core.checks.offset",
    "core.checks.steps",
    "core.checks.tampering",
    "core.attribution",
    "core.journal_steps",
    "core.clock_changes",
    "core.checks.ingest",
    "core.checks.approval",
    "core.checks.smear",
    "core.checks.sources",
    "core.checks.daemons",
    "core.checks.claims",
    "core.checks.records",
    "core.checks.acceptances",
    "core.checks.host",
    "core.record",
    "core.accounting",
    "core.excursions",
    "core.accounts",
    "core.evidence.model",
    "core.evidence.hosts",
    "core.evidence.method",
    "core.evidence.clauses",
    "core.evidence.report",
    "core.staleness",
    "core.checks.debounce",
    "core.checks.explanation",
    "core.delivery",
    "core.schedule",
    "core.clock_state",
    "core.holdover",
    "core.agreements",
    "core.evaluation",
    "core.actions",
    "core.agent_state",
    "core.agent_events",
    "core.agent",
    "core.fleet.policy",
    "core.fleet.model",
    "core.fleet.severity",
    "core.fleet.exceptions",
    "core.fleet.members",
    "core.fleet.ordering",
    "core.fleet.clock_shift",
    "core.fleet.context",
    "core.fleet.acceptances",
    "core.fleet.approval",
    "core.fleet.disputes",
    "core.fleet.missing",
    "core.fleet.ordering_risk",
    "core.fleet.shifts",
    "core.fleet.checks",
    "probes",
    "store",
    "render",
    "config",
    "net",
    "formats",
    "outputs",
    "delivery",
    "fleet",
    "polling",
    "audit",
    "reports",
    "runtime",
    "agent_store",
    "agent",
    "demo",
    "cli",
)
"""From left to right: a module may import only what stands to its left. A new module gets its place here on purpose."""

FREE = {
    "",
    "__main__",
    "core",
    "core.clock",
    "core.ntp",
    "core.checks",
    "core.fleet",
    "core.evidence",
}  # the package itself holds the version alone, and __main__ only starts the command line

PURE_ROOTS = {
    "array",
    "base64",
    "bisect",
    "collections",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "hashlib",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "re",
    "statistics",
    "struct",
    "types",
    "typing",
}
"""All that the core may import of the standard library: nothing here reads a clock, a file or a socket by itself."""

CLOCK_READERS = {"now", "today", "utcnow", "open", "print", "input", "exec", "eval", "__import__"}


def modules() -> Iterator[tuple[str, Path]]:
    """Yield each module's name below the package, and its file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."), path


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = (ROOT / (name.replace(".", "/") + ".py")).exists() or (
                    ROOT / name.replace(".", "/")
                ).is_dir()
                yield name if is_module else node.module


def place(module: str) -> int:
    """Return a module's place in the order: its own, or its package's."""
    for index, entry in enumerate(ORDER):
        if module == entry or module.startswith(entry + "."):
            return index
    raise AssertionError(f"give ntpaudit.{module} its place in ORDER")


@pytest.mark.parametrize(("module", "path"), [entry for entry in modules() if entry[0] not in FREE])
def test_imports_go_one_way(module: str, path: Path) -> None:
    """A module imports only modules to its left, or of its own package where that has one place."""
    for name in imports(path):
        if name.startswith("ntpaudit."):
            other = name.removeprefix("ntpaudit.")
            if other not in FREE:
                assert place(other) <= place(module), f"ntpaudit.{module} imports ntpaudit.{other}, to its right"


@pytest.mark.parametrize(("module", "path"), [entry for entry in modules() if entry[0].startswith("core")])
def test_core_is_pure(module: str, path: Path) -> None:
    """The core imports nothing that could read a clock, a file, a socket, the environment or a random number."""
    for name in imports(path):
        root = name.partition(".")[0]
        assert root in PURE_ROOTS or name.startswith("ntpaudit.core"), f"ntpaudit.{module} imports {name}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called not in CLOCK_READERS, f"ntpaudit.{module} calls {called}"


def test_every_place_is_taken() -> None:
    """The order names no module that is gone."""
    names = {module for module, _ in modules()}
    assert [entry for entry in ORDER if entry not in names] == []


def test_influxdb_client_is_imported_in_one_place_at_most() -> None:
    """Each dependency is imported in one module at most."""
    users: dict[str, set[str]] = {}
    for module, path in modules():
        for name in imports(path):
            root = name.partition(".")[0]
            if root in ("influxdb_client", "jinja2", "markupsafe", "psutil", "ntplib"):
                users.setdefault(root, set()).add(module)
    assert all(len(where) == 1 for where in users.values()), users


def test_the_template_engine_is_imported_for_a_page_alone() -> None:
    """No module but those of the pages imports jinja2, itself or by another; only commands that write one import it."""
    page = {"reports.fleet_page", "reports.evidence_page", "reports.evidence_pdf", "render.html"}
    others = [f"ntpaudit.{module}" for module, _ in modules() if module and module not in page]
    code = "import sys\nfrom importlib import import_module\nfor name in sys.argv[1:]: import_module(name)\n"
    code += "print('jinja2' in sys.modules, 'markupsafe' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code, *others], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["False", "False"]
    pages = {"ntpaudit.reports.fleet_page", "ntpaudit.reports.evidence_page"}
    users = {module for module, path in modules() if pages & {*imports(path)}}
    assert users == {"cli.fleet_writing", "reports.evidence_pdf", "cli.evidence_report"}


def test_no_connection_leaves_the_store() -> None:
    """Only the store has SQLite. Others only hand functions that take a connection to the store (principle 4).

    `store.read(outbox.backlog)` does that. The demonstration's fleet has a database of its own, which is no history.
    """
    found = []
    for module, path in modules():
        if module.startswith("store.") or module == "fleet.demo_store":
            continue
        found += [f"{module} imports sqlite3" for name in imports(path) if name.partition(".")[0] == "sqlite3"]
        tree = ast.parse(path.read_text())
        taken = {
            f"{alias.name}.{name}" if node.module == "ntpaudit.store" else name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ntpaudit.store")
            for alias in node.names
            for name in takers_of_a_connection(node.module or "", alias.name)
        }
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        handed = [call.args[0] for call in calls if ast.unparse(call.func).endswith(("store.read", "store.write"))]
        used = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)]
        found += [f"{module}:{node.lineno}" for node in used if ast.unparse(node) in taken and node not in handed]
    assert found == []


def takers_of_a_connection(module: str, name: str) -> set[str]:
    """Return the functions that take or yield a connection, of a whole module of the store or only the named one."""
    is_whole = module == "ntpaudit.store"
    path = ROOT / f"{module.replace('.', '/')}{f'/{name}' if is_whole else ''}.py"
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    takers = {function.name for function in functions if "sqlite3.Connection" in ast.unparse(function)}
    return takers if is_whole else takers & {name}


def test_no_class_is_made_in_a_function_and_no_import_is_hooked() -> None:
    """A class is made once, where a reader finds it; modules are those that their authors wrote (principle 7)."""
    found = []
    for module, path in modules():
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        found += [
            f"{module}: class {inner.name} in {function.name}"
            for function in functions
            for inner in ast.walk(function)
            if isinstance(inner, ast.ClassDef)
        ]
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        hooks = names & {"meta_path", "path_hooks", "ModuleType", "ModuleSpec", "MetaPathFinder", "Loader", "new_class"}
        found += [f"{module}: {name}" for name in hooks]
    assert found == []

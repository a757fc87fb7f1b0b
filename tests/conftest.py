"""Rules for every test: properties have no deadline, files live in memory, and a test needs only what it states."""

import functools
import gc
import itertools
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings

from tests import abilities

settings.register_profile("ntpaudit", deadline=None)  # a loaded machine is slow, not wrong
settings.register_profile("quick", deadline=None, max_examples=10)  # for --hypothesis-profile=quick
settings.load_profile("ntpaudit")

MEMORY = Path("/dev/shm")
ROOM = 2 << 30
"""This many octets must be free there, for the files of all tests."""


def _live_in_memory() -> None:
    """Let temporary files live in memory where there is room: thousands of commits then wait for no disk."""
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    there = os.statvfs(MEMORY)
    if there.f_bavail * there.f_frsize >= ROOM and not there.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


_live_in_memory()


def _handle_interrupts() -> None:
    """Let SIGINT end the programs that tests start: a shell makes those that it starts in the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_handle_interrupts()

sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # set, each of a thousand processes would compile every module again

gc.disable()  # nothing that is collected becomes garbage, and to look for it takes a quarter of the time of collecting

SHARING_FOLDERS = ("tests/grafana/",)
"""Folders with fixtures of the scope `session`: their tests go to one worker, which makes those once."""

LONGEST = (
    "tests/test_boot.py",
    "tests/test_fleet.py",
    "tests/truth/test_truth.py",
    "tests/core/test_agent.py",
    "tests/test_chaos.py",
    "tests/grafana/",
    "tests/test_month.py",
    "tests/fleet/test_faults.py",
    "tests/test_agent.py",
    "tests/demo/test_destination.py",
    "tests/test_fleet_command.py",
    "tests/core/test_debounce.py",
    "tests/test_check.py",
    "tests/demo/test_demo.py",
    "tests/systemd/test_install.py",
    "tests/test_delivery.py",
    "tests/store/test_state.py",
    "tests/fleet/test_relay.py",
    "tests/fleet/test_mutated.py",
    "tests/store/test_history.py",
    "tests/reports/test_fleet_page.py",
    "tests/test_dist.py",
    "tests/store/test_serialization.py",
    "tests/demo/test_simulated_agent.py",
    "tests/test_docs.py",
    "tests/demo/test_simulated_fleet.py",
    "tests/core/test_drift.py",
    "tests/fleet/",
    "tests/test_rate_limits.py",
    "tests/core/test_selection.py",
)
"""The files that take longest, first: begun last, each would keep one worker busy when the others have ended."""

TRACED_EXAMPLES = 10
"""Coverage is measured of this many examples of a property."""

LACKED = pytest.StashKey[dict[str, str]]()
"""The abilities that a test lacked, with the reasons."""

FOUND = "ntpaudit_abilities"
"""What pytest-xdist hands to a worker under this name is the folder of the abilities that the run has tried."""


class Untested:
    """What a run did not test: filled from the reports of the tests, which also come from the workers."""

    def __init__(self) -> None:
        self.cost: dict[str, set[str]] = {}
        self.reasons: dict[str, str | None] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the abilities that a skipped test lacked."""
        for name, reason in getattr(report, "lacked", {}).items():
            self.cost.setdefault(name, set()).add(report.nodeid)
            self.reasons[name] = reason

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List the abilities that were lacking, why, and how many tests each cost."""
        if self.cost:
            terminalreporter.section("not tested here")
        for line in abilities.summary(self.cost, self.reasons):
            terminalreporter.line(line)
        if path := os.environ.get(abilities.UNTESTED):
            with open(path, "a") as file:
                for name, tests in self.cost.items():
                    file.write(f"{json.dumps([name, self.reasons[name], sorted(tests)])}\n")


class Sharing:
    """Gives all workers of a run one folder for the abilities that any of them has tried."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ntpaudit-abilities-")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Called by pytest-xdist before it starts a worker."""
        node.workerinput[FOUND] = self._folder.name

    def pytest_unconfigure(self) -> None:
        """Remove the folder: the workers have ended."""
        self._folder.cleanup()


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and what collects the abilities of all processes of the run."""
    config.addinivalue_line("markers", f"needs(*abilities): skip where one is lacking: {', '.join(abilities.names())}")
    config.addinivalue_line("markers", "untraced: coverage is not measured: it is long, and others run the same lines")
    config.addinivalue_line("markers", "alone: run while no other test does: it steps a clock")
    if hasattr(config, "workerinput"):
        abilities.share(Path(config.workerinput[FOUND]))
        return
    config.pluginmanager.register(Untested())
    if config.getoption("numprocesses", None):
        config.pluginmanager.register(Sharing())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """The number of workers for `-n auto`: most tests wait more than they compute, so two for each core."""
    return min(2 * len(os.sched_getaffinity(0)), 8)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the tests of a file to one worker, and those of a folder that share what takes long to make."""
    from xdist.scheduler import LoadFileScheduling

    scheduler: Any = LoadFileScheduling(config, log)
    by_file = scheduler._split_scope
    scheduler._split_scope = lambda name: next(filter(name.startswith, SHARING_FOLDERS), by_file(name))
    return scheduler


@pytest.hookimpl(tryfirst=True)  # before the options that choose by marker
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the workers begin with the longest files, and mark the tests that can have no other beside them.

    A test that needs something unknown is refused: it would be skipped, or run, for no reason.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)
    for item in items:
        if "step-clock" in _stated(item):
            item.add_marker("alone")
        if unknown := sorted(set(_stated(item)) - set(abilities.names())):
            known = ", ".join(abilities.names())
            raise pytest.UsageError(f"{item.nodeid} needs {', '.join(unknown)}, which is no ability; there are {known}")


def pytest_collection_finish() -> None:
    """Collect garbage again, but not among the tests themselves."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Leave a test and what it starts untraced where it asks for that, and the later examples of a property."""
    coverage = sys.modules.get("coverage")
    tracing = coverage.Coverage.current() if coverage else None
    if tracing is None:
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("untraced"):
            tracing.stop()
            patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        elif handle := getattr(getattr(item, "obj", None), "hypothesis", None):
            patch.setattr(handle, "inner_test", _traced_at_first(handle.inner_test, tracing.stop))
        try:
            return (yield)
        finally:
            if type(tracing).current() is None:
                tracing.start()


def _traced_at_first(test: Callable[..., None], stop: Callable[[], None]) -> Callable[..., None]:
    """Make a property end the tracing after its first examples: later ones run the same lines, at twice the cost."""
    examples = itertools.count()

    @functools.wraps(test)
    def traced_at_first(*args: Any, **kwargs: Any) -> None:
        if next(examples) == TRACED_EXAMPLES:
            stop()
        test(*args, **kwargs)

    return traced_at_first


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test that states an ability, or has a fixture that needs one, where the machine lacks it."""
    missing = [name for name in _stated(item) if abilities.lacking(name) is not None]
    if missing:
        _skip(item, missing)
    with _skipping(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test whose helpers need an ability that the machine lacks."""
    with _skipping(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Let a skipped test fail where everything that a test may need is required, and report what it lacked."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.skipped:
        report.lacked = item.stash.get(LACKED, {})  # type: ignore[attr-defined]
    if report.skipped and abilities.is_required("all") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which {abilities.REQUIRED} does not allow: {report.longrepr}"
    return report  # type: ignore[return-value]


def _turn(item: pytest.Item) -> int:
    return next((turn for turn, name in enumerate(LONGEST) if item.nodeid.startswith(name)), len(LONGEST))


def _stated(item: pytest.Item) -> list[str]:
    return [name for mark in item.iter_markers("needs") for name in mark.args]


@contextmanager
def _skipping(item: pytest.Item) -> Iterator[None]:
    try:
        yield
    except abilities.LackingError as error:
        _skip(item, [error.ability])


def _skip(item: pytest.Item, missing: Iterable[str]) -> NoReturn:
    reason = "; ".join(f"lacks {name}: {abilities.lacking(name)}" for name in missing)
    if any(map(abilities.is_required, missing)):
        pytest.fail(f"{reason}; {abilities.REQUIRED} does not allow that", pytrace=False)
    item.stash[LACKED] = {name: str(abilities.lacking(name)) for name in missing}
    raise pytest.skip.Exception(reason, _use_item_location=True)


@pytest.fixture
def no_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which the program logs a warning."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call")] == []

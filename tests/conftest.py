"""Rules for every test: properties have no deadline, files live in memory, and a test needs only what it states."""

import json
import os
import signal
import tempfile
from collections.abc import Generator, Iterable, Iterator
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
"""So many octets are to be free there, for the files of all tests."""


def _live_in_memory() -> None:
    """Let temporary files live in memory where there is room: thousands of commits then wait for no disk."""
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    there = os.statvfs(MEMORY)
    if there.f_bavail * there.f_frsize >= ROOM and not there.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


_live_in_memory()


def _hear_interrupts() -> None:
    """Let SIGINT end the programs that tests start: a shell makes those that it starts in the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_hear_interrupts()

SKIPPED = pytest.StashKey[dict[str, set[str]]]()
"""The tests that each lacking ability cost."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker by which a test states what it needs of the machine."""
    config.addinivalue_line("markers", f"needs(*abilities): skip where one is lacking: {', '.join(abilities.names())}")
    config.stash[SKIPPED] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that needs something unknown: it would be skipped, or run, for no reason."""
    for item in items:
        if unknown := sorted(set(_stated(item)) - set(abilities.names())):
            known = ", ".join(abilities.names())
            raise pytest.UsageError(f"{item.nodeid} needs {', '.join(unknown)}, which is no ability; there are {known}")


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
def pytest_runtest_makereport() -> Iterator[None]:
    """Let a skipped test fail where everything that a test may need is required."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.skipped and abilities.is_required("all") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which {abilities.REQUIRED} does not allow: {report.longrepr}"
    return report  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List the abilities that were lacking, why, and how many tests each cost."""
    skipped = config.stash[SKIPPED]
    reasons = {name: abilities.lacking(name) for name in skipped}
    if skipped:
        terminalreporter.section("not tested here")
    for line in abilities.summary(skipped, reasons):
        terminalreporter.line(line)
    if path := os.environ.get(abilities.UNTESTED):
        with open(path, "a") as file:
            file.writelines(f"{json.dumps([name, reasons[name], sorted(tests)])}\n" for name, tests in skipped.items())


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
    for name in missing:
        item.config.stash[SKIPPED].setdefault(name, set()).add(item.nodeid)
    raise pytest.skip.Exception(reason, _use_item_location=True)

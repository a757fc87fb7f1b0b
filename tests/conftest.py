"""Rules for every test: properties have no deadline, files live in memory, and nothing is skipped in CI."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ntpaudit", deadline=None)  # a loaded machine is slow, not wrong
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Let a skipped test fail where CI promises everything that a test may need."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.skipped and "CI" in os.environ and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report  # type: ignore[return-value]

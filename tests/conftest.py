"""Rules for every test: properties have no deadline, and nothing is skipped in CI."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("ntpaudit", deadline=None)  # a loaded machine is slow, not wrong
settings.load_profile("ntpaudit")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Let a skipped test fail where CI promises everything that a test may need."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.skipped and "CI" in os.environ and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report  # type: ignore[return-value]

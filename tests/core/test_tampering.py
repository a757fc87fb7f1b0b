"""Findings about changes of what decides the host's time, and about their traces."""

import pytest

from ntpaudit.core.audit_rules import missing_rules
from ntpaudit.core.checks.rule import Raised
from ntpaudit.core.checks.tampering import START_AUDITD, check_audit_blind, check_time_config_changed
from ntpaudit.core.observation import Auditing
from tests.core.worlds import HOST, case

EVERYTHING = missing_rules((), "x86_64")


def audited(auditing: Auditing | None, container: str | None = None) -> Raised | None:
    """Judge a host with this audit system."""
    seen = case(host=HOST._replace(container=container))
    return check_audit_blind(seen._replace(observation=seen.observation._replace(auditing=auditing)))


@pytest.mark.parametrize(
    ("auditing", "message"),
    [
        (
            Auditing("on", EVERYTHING),
            "no audit rule records adjtimex and settimeofday of 64-bit programs; clock_settime of 64-bit programs; "
            "adjtimex and settimeofday of 32-bit programs; clock_settime of 32-bit programs; changes of /etc/localtime",
        ),
        (Auditing("on", EVERYTHING[-1:]), "no audit rule records changes of /etc/localtime"),
        (Auditing("unknown", EVERYTHING[1:2]), "no audit rule records clock_settime of 64-bit programs"),
        (
            Auditing("off", None, "auditd is enabled and does not run"),
            "auditing is off: auditd is enabled and does not run",
        ),
        (Auditing("off", EVERYTHING, "the kernel does not audit"), "auditing is off: the kernel does not audit"),
    ],
)
def test_a_host_whose_audit_system_is_blind(auditing: Auditing, message: str) -> None:
    """What is not recorded is named; where nothing is, the fix is to start it."""
    found = audited(auditing)
    assert found is not None
    assert (found.level, found.message) == ("medium", message)
    assert found.remedy == (START_AUDITD if auditing.state == "off" else None)
    assert audited(auditing, "lxc") is None


@pytest.mark.parametrize(
    "auditing",
    [None, Auditing("on", ()), Auditing("unknown", None, "only root can read the audit rules"), Auditing("on")],
)
def test_a_host_without_that_finding(auditing: Auditing | None) -> None:
    """The near misses: no auditd, all rules, rules that cannot be read."""
    assert audited(auditing) is None


def test_a_host_without_a_change() -> None:
    """The near miss of `time-config-changed`: a host on which nothing has changed, or that no agent watches."""
    assert check_time_config_changed(case()) is None

"""A real step in a booted machine: the sandboxed agent finds what set the clock, where it may read the journal."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_boot import audit_now, configured, measured, package, records, write
from tests.waiting import until
from tests.world.machine import TIMEDATED_WITHOUT_CLOCK, Machine

pytestmark = [pytest.mark.needs("boot", "step-clock"), pytest.mark.untraced]

__all__ = ["package"]  # the fixture

SIZE_US = 20_000
GROUPS = "[Service]\nSupplementaryGroups=systemd-journal adm\n"
DROP_IN = "/etc/systemd/system/ntpaudit.service.d/journal.conf"
SET_TIME = "org.freedesktop.timedate1 /org/freedesktop/timedate1 org.freedesktop.timedate1 SetTime xbb"
"""What `timedatectl set-time` calls, which itself cannot set milliseconds."""


@pytest.fixture
def host(package: Path) -> Iterator[Machine]:
    """A machine whose systemd-timedated can set the clock."""
    with configured(package) as host:
        host.say("rm", TIMEDATED_WITHOUT_CLOCK)
        host.say("systemctl", "daemon-reload")
        yield host


def findings(host: Machine) -> dict[str, dict[str, Any]]:
    """Return the findings of the last record."""
    return {finding["id"]: finding for finding in records(host)[-1]["findings"]}


def step(host: Machine, size_us: int) -> None:
    """Let systemd-timedated set the clock, relative to now."""
    host.say("busctl", "--", "call", *SET_TIME.split(), str(size_us), "true", "false")


def test_a_real_step_is_attributed(host: Machine) -> None:
    """By systemd-timedated: a person's; without the right to read the journal the cause is not known."""
    host.say("systemctl", "start", "ntpaudit")
    until(lambda: audit_now(host) and measured(host))
    step(host, SIZE_US)
    until(lambda: "the cause is not known" in findings(host).get("step-forward", {"message": ""})["message"])
    assert "SupplementaryGroups=systemd-journal" in findings(host)["step-forward"]["message"]
    assert "unattributed-change" not in findings(host)
    write(host, DROP_IN, GROUPS)
    host.say("systemctl", "daemon-reload")
    host.say("systemctl", "restart", "ntpaudit")
    until(lambda: audit_now(host) and measured(host))
    step(host, -SIZE_US)
    until(lambda: "unattributed-change" in findings(host))
    found = findings(host)["unattributed-change"]
    assert found["level"] == "critical"
    assert "by systemd-timedated, which is no time daemon" in found["message"]
    for command in (["history", "--steps"], ["journal", "--boot", "0"]):
        lines = host.run(["ntpaudit", *command, "--format", "json"], check=False).stdout.splitlines()
        steps = [json.loads(line) for line in lines]
        assert [one["cause"]["name"] for one in steps] == ["systemd-timedated"] * 2
        assert [round(one["size_s"], 2) for one in steps] == [0.02, -0.02]

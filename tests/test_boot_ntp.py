"""NTPsec and ntpd-rs under Debian's own units, on machines that boot, asked from the sandbox of the agent."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.test_boot import confined, serve, shown, write
from tests.waiting import until
from tests.world.machine import NTP_DAEMONS, RELEASES, Machine, archives, machine
from tests.world.packages import REPOSITORY

pytestmark = [pytest.mark.needs("boot", "ntpd", "ntpd-rs"), pytest.mark.untraced]

PRETEND = "~adjtimex:0 clock_adjtime:0 settimeofday:0 clock_settime:0"
"""A filter with which the calls that set the clock succeed and do nothing: it is the clock of the machine outside."""

SET_WRONG_CLOCK = """
import ctypes, json
print(json.dumps(ctypes.CDLL(None).clock_settime(99, (ctypes.c_long * 2)(0, 0))))
"""
"""Set a clock that does not exist: only a filter makes that succeed."""

READ_CLAIMS = """
import json, sys
sys.path.insert(0, "/opt/ntpaudit/lib")
from ntpaudit.probes.daemons import running_daemons, with_claims
found = with_claims(running_daemons(), with_sources=True)
print(json.dumps({one.unit: one.summary() for one in getattr(found, "seen", found)}))
"""


@contextmanager
def with_probes(release: str) -> Iterator[Machine]:
    """A machine with the program's modules and the sandbox, and nothing that starts a service that is installed."""
    with machine(release) as host:
        shutil.copytree(REPOSITORY / "ntpaudit", host.path("/opt/ntpaudit/lib/ntpaudit"))
        sandbox = (REPOSITORY / "systemd/ntpaudit.service.d/10-sandbox.conf").read_text()
        write(host, "/etc/systemd/system/ntpaudit-.service.d/10-sandbox.conf", sandbox)
        write(host, "/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
        host.path("/usr/sbin/policy-rc.d").chmod(0o755)
        yield host


def install(host: Machine, release: str, unit: str, *packages: str) -> None:
    """Install a time daemon beside the other ones, and keep it from the clock."""
    write(host, f"/etc/systemd/system/{unit}.d/pretend.conf", f"[Service]\nSystemCallFilter={PRETEND}\n")
    files = archives(release, *packages)
    for path in files:
        shutil.copy(path, host.path("/root"))
    force = ["--force-depends", "--force-conflicts"]
    host.say("dpkg", "--install", *force, *(f"/root/{path.name}" for path in files))
    host.say("systemctl", "daemon-reload")
    pretending = ["--property=SystemCallFilter=" + PRETEND, "python3", "-c", SET_WRONG_CLOCK]
    assert host.say("systemd-run", "--quiet", "--pipe", "--wait", "--collect", *pretending) == "0"
    assert "clock_settime" in shown(host, unit, "SystemCallFilter")


def claim(host: Machine, unit: str, *, once: str = "available", value: object = True) -> dict[str, Any]:
    """What the daemon of a unit claims, as the agent sees it, once one of its fields has a value."""

    def look() -> dict[str, Any]:
        time.sleep(0.5)  # each query starts an interpreter
        daemon = confined(host, READ_CLAIMS)[unit]
        assert daemon["disciplines"], daemon
        found: dict[str, Any] = daemon["claim"]
        return found if found.get(once) == value else {}

    return until(look, f"{once} {value} of {unit}")


@pytest.fixture(scope="module", params=RELEASES)
def host(request: pytest.FixtureRequest) -> Iterator[tuple[Machine, str]]:
    """A machine of each release."""
    with with_probes(request.param) as booted:
        yield booted, request.param


def test_ntpsec_under_its_unit(host: tuple[Machine, str]) -> None:
    """Without permission for the host itself there is no reply; with the line of the remedy, what ntpq prints."""
    booted, release = host
    install(booted, release, "ntpsec.service", "ntpsec", "python3-ntp", "libbsd0")
    write(booted, "/etc/services", "ntp 123/udp\n")  # ntpq needs it
    config = booted.path("/etc/ntpsec/ntp.conf")
    text = re.sub(r"^(pool|server|tos|restrict (127.0.0.1|::1)).*$", "", config.read_text(), flags=re.MULTILINE)
    config.write_text(f"{text}\nrefclock local stratum 5 minpoll 3 maxpoll 3\ntos orphanwait 1\n")
    booted.say("systemctl", "start", "ntpsec")
    remedy = claim(booted, "ntpsec.service", value=False)["remedy"]
    line, path = re.fullmatch(r"add the line `(.*)` to (\S+), and restart it", remedy).groups()  # type: ignore[union-attr]
    with booted.path(path).open("a") as file:
        file.write(f"{line}\n")
    booted.say("systemctl", "restart", "ntpsec")
    found = claim(booted, "ntpsec.service", once="is_synchronised")
    printed = dict(re.findall(r"(\w+)=([^,\s]+)", booted.say("ntpq", "-c", "rv", "127.0.0.1")))
    assert (found["stratum"], found["leap"]) == (int(printed["stratum"]), int(printed["leap"])) == (6, 0)
    assert found["offset_s"] == float(printed["offset"]) == 0.0
    assert found["poll_s"] == 8.0
    assert found["follows"] in ("LOCL", "LOCAL(0)")  # the first in 1.2.2
    booted.say("systemctl", "stop", "ntpsec")
    assert "ntpsec.service" not in confined(booted, READ_CLAIMS)


def test_ntpd_rs_under_its_unit(host: tuple[Machine, str]) -> None:
    """Debian's configuration has the observation socket, and the sandbox can read it; Debian 12 has no ntpd-rs."""
    booted, release = host
    if "ntpd-rs" not in NTP_DAEMONS[release]:
        return
    serve(booted, "127.0.0.1:11121", 1)
    install(booted, release, "ntpd-rs.service", "ntpd-rs")
    config = booted.path("/etc/ntpd-rs/ntp.toml")
    text = config.read_text().replace("count = 4\n", "")
    text = re.sub(r'mode = "pool"\naddress = .*', 'mode = "server"\naddress = "127.0.0.1:11121"', text, count=1)
    config.write_text(text + "minimum-agreeing-sources = 1\n")
    booted.say("systemctl", "start", "ntpd-rs")
    found = claim(booted, "ntpd-rs.service", once="is_synchronised")
    assert f"Stratum: {found['stratum']}" in booted.say("ntp-ctl", "status")
    assert (found["follows"], found["stratum"], found["poll_s"]) == ("127.0.0.1", 2, 16.0)
    booted.say("systemctl", "stop", "ntpd-rs")
    assert "ntpd-rs.service" not in confined(booted, READ_CLAIMS)

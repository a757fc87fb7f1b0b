"""Debian's chronyd in its own service on a machine that really boots, asked from the sandbox of the agent."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.test_boot import audit_now, confined, installed, package, records, shown, write
from tests.waiting import until
from tests.world.machine import Machine
from tests.world.packages import REPOSITORY
from tests.world.servers import running

__all__ = ["package"]

pytestmark = [pytest.mark.needs("boot"), pytest.mark.untraced]  # the machine has a Python of its own

BEHIND_S = 10.0
"""Far more than any delay of a packet on a busy machine, which then hides neither sign nor unit."""

SERVER = "127.0.0.9"
SERVE = f"""
import time
from ntpaudit.demo.server import Behaviour, NtpServer
with NtpServer(Behaviour({BEHIND_S}, 2, 0, 0.01, 0.003), "{SERVER}") as server:
    print(server.port, flush=True)
    time.sleep(3600)
"""
CLAIM = """
import json, sys
sys.path.insert(0, "/opt/ntpaudit/lib")
from ntpaudit.probes.daemons import running_daemons, with_claims
daemons = with_claims(running_daemons(), with_sources=True)
print(json.dumps([daemon.summary() for daemon in getattr(daemons, "seen", daemons)]))
"""
WITHOUT_CLOCK = "[Service]\nCapabilityBoundingSet=~CAP_SYS_TIME\n"
CLOSED = "cmdport 0\n"
REMEDY = "systemctl enable --now ntpaudit-chrony.socket"


class Site(NamedTuple):
    """A machine with the package, and the port of a server on it that is ahead."""

    host: Machine
    port: str

    def start_chronyd(self, settings: str = "") -> None:
        """Start chronyd with some settings, and wait until it follows the server. From then on it polls rarely."""
        server = f"server ntp.example.net port {self.port} iburst minpoll -2 maxpoll -2\n"
        write(self.host, "/etc/chrony/chrony.conf", server + settings)
        self.host.say("systemctl", "reset-failed", "chrony")  # it counts how often the tests start it
        self.host.say("systemctl", "restart", "chrony")
        self.host.say("chronyc", "waitsync", "600", "0", "0", "0.1")
        self.host.say("chronyc", "minpoll", SERVER, "6")
        until(lambda: self.host.say("chronyc", "-c", "sources").split(",")[4] == "6")

    def claim(self) -> dict[str, Any]:
        """The claim of chronyd, read in the sandbox of the agent by a user of its own."""
        (daemon,) = confined(self.host, CLAIM)
        assert (daemon["name"], daemon["unit"]) == ("chronyd", "chrony.service")
        claim: dict[str, Any] = daemon["claim"]
        return claim

    def available_claim(self) -> tuple[dict[str, Any], list[float]]:
        """A claim, and the offsets that chronyc shows before and after it; no update of the clock is between them."""

        def look() -> list[tuple[dict[str, Any], list[float]]]:
            before, claim, after = self.tracking(), self.claim(), self.tracking()
            is_same = claim["available"] and before[3] == after[3]  # a busy machine may reply too late
            return [(claim, [float(before[4]), float(after[4])])] if is_same else []

        return until(look, lambda: f"a claim: {self.claim()}")[0]

    def tracking(self) -> list[str]:
        """What chronyc shows."""
        return self.host.say("chronyc", "-c", "tracking").split(",")


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def site(request: pytest.FixtureRequest, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A machine whose chronyd leaves the clock alone: it is this machine's clock."""
    log = tmp_path_factory.mktemp("server") / "log"
    with installed(package, request.param) as host:
        command = host.on_its_network(["env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-c", SERVE])
        with running(command, log, lambda _: log.read_text().endswith("\n")):
            write(host, "/etc/default/chrony", 'DAEMON_OPTS="-x -F 1"\n')
            write(host, "/etc/hosts", f"127.0.0.1 localhost\n{SERVER} ntp.example.net\n")
            write(host, "/etc/systemd/system/chrony.service.d/clock.conf", WITHOUT_CLOCK)
            host.path("/etc/systemd/system/chrony.service").unlink()  # a link that masks it
            host.say("systemctl", "daemon-reload")
            yield Site(host, log.read_text().strip())


def check(site: Site, authentication: str | None) -> None:
    """The claim is that of a chronyd that is behind its server, and is what chronyc shows."""
    claim, shown_s = site.available_claim()
    check_values(claim, authentication)
    assert min(shown_s) - 1e-6 <= claim["offset_s"] <= max(shown_s) + 1e-6
    assert [(one["name"], one["address"]) for one in claim["sources"]] == [("ntp.example.net", SERVER)]


def check_values(claim: dict[str, Any], authentication: str | None) -> None:
    """All but the sources, which a record does not hold."""
    assert (claim["is_synchronised"], claim["follows"]) == (True, "ntp.example.net")
    assert claim["offset_s"] == pytest.approx(BEHIND_S, abs=BEHIND_S / 2)
    assert claim["bound_s"] >= 0.008
    assert claim["authentication"] == authentication


def test_by_udp_from_the_sandbox(site: Site) -> None:
    """With Debian's settings: all but the authentication, which chronyd reports only through its Unix socket."""
    site.start_chronyd()
    check(site, None)


def test_closed_port_names_the_helper_which_then_answers(site: Site) -> None:
    """With `cmdport 0`, as hardening guides demand: the remedy is one command, and it is enough."""
    site.start_chronyd(CLOSED)
    claim = site.claim()
    assert (claim["available"], claim["remedy"]) == (False, REMEDY)
    site.host.say(*REMEDY.split())
    check(site, "none")
    assert site.host.path("/run/chrony").stat().st_uid != 0
    site.start_chronyd(CLOSED)
    check(site, "none")
    site.host.say("systemctl", "stop", "chrony")  # removes the folder of its socket
    site.start_chronyd(CLOSED)
    check(site, "none")
    assert shown(site.host, "ntpaudit-chrony.service", "ActiveState") == "active"
    assert [path.name for path in site.host.path("/run/chrony").glob("*.sock")] == ["chronyd.sock"]


def test_agent_starts_the_helper(site: Site) -> None:
    """Nothing needs to be enabled for the services of ntpaudit."""
    site.host.say("systemctl", "disable", "--now", "ntpaudit-chrony.socket")
    site.start_chronyd(CLOSED)
    site.host.say("ntpaudit", "config", "init", f"{SERVER}:{site.port}", "--output", "/etc/ntpaudit/ntpaudit.toml")
    site.host.say("systemctl", "start", "ntpaudit")
    [claim] = until(lambda: newest_claim(site.host), "a record with a claim")
    check_values(claim, "none")
    site.host.say("systemctl", "stop", "ntpaudit")
    until(lambda: shown(site.host, "ntpaudit-chrony.service", "ActiveState") == "inactive")
    until(lambda: not site.host.path("/run/ntpaudit-chrony").exists())


def newest_claim(host: Machine) -> list[dict[str, Any]]:
    """Let the agent audit, and return the claim of the last record, if it has one."""
    audit_now(host)
    daemons = [daemon for record in records(host)[-1:] for daemon in record["daemons"]]
    return [daemon["claim"] for daemon in daemons if daemon["claim"]["available"]]


def test_by_udp_from_a_slice_of_its_own(site: Site) -> None:
    """It is a service of the system in any slice."""
    drop_in = "/etc/systemd/system/chrony.service.d/slice.conf"
    write(site.host, drop_in, "[Service]\nSlice=time-ntp.slice\n")
    site.host.say("systemctl", "daemon-reload")
    try:
        site.start_chronyd()
        check(site, None)
    finally:
        site.host.path(drop_in).unlink()
        site.host.say("systemctl", "daemon-reload")


def test_killed_chronyd_makes_no_claim(site: Site) -> None:
    """What is left of it, its socket's file, is not taken for its word."""
    site.start_chronyd(CLOSED)
    site.host.say("systemctl", "kill", "--signal=KILL", "chrony")
    until(lambda: shown(site.host, "chrony", "ActiveState") == "failed")
    assert confined(site.host, CLAIM) == []


def test_helper_is_not_there_without_chrony(site: Site) -> None:
    """Its socket has a condition, so the agent starts without an error."""
    for program in ("/usr/sbin/chronyd", "/usr/bin/chronyd"):
        site.host.path(program).unlink(missing_ok=True)
    site.host.say("systemctl", "start", "ntpaudit")
    assert shown(site.host, "ntpaudit-chrony.socket", "ConditionResult") == "no"
    assert shown(site.host, "ntpaudit-chrony.socket", "ActiveState") == "inactive"
    assert shown(site.host, "ntpaudit", "ActiveState") == "active"

"""systemd-timesyncd, OpenNTPD and ptp4l under Debian's own units, in booted machines: a claim is what they report.

Nothing there can set the clock: the daemons run without the capability, and a filter answers those that insist.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.test_boot import MAX_EXPOSURE, audit_now, build_package, records, serve, shown, write
from tests.waiting import until
from tests.world.machine import RELEASES, TIME_DAEMONS, Machine, archives, machine
from tests.world.packages import REPOSITORY, program

pytestmark = [pytest.mark.needs("boot", "ip"), pytest.mark.untraced]  # the machine has a Python of its own

RIGHT, AHEAD, SILENT = "127.0.0.11", "127.0.0.12", "127.0.0.99"
AHEAD_S = 10.0
"""Far more than any delay of a packet on a busy machine, which then hides neither sign nor unit."""

NEAR_S = AHEAD_S / 2
ANYWHERE = "[Unit]\nConditionVirtualization=\nConditionCapability=\nStartLimitIntervalSec=0\n"
WITHOUT_CLOCK = f"{ANYWHERE}[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=~CAP_SYS_TIME\n"
CLOCK_CALLS = "adjtimex:0 clock_adjtime:0 clock_adjtime64:0 settimeofday:0 clock_settime:0 clock_settime64:0"
UNITS = {
    "systemd-timesyncd": f"{WITHOUT_CLOCK}SystemCallFilter=\nSystemCallFilter=~{CLOCK_CALLS}\n",
    "openntpd": WITHOUT_CLOCK,
}

LOOK = """
import json, sys
sys.path.insert(0, "/opt/ntpaudit/lib")
from ntpaudit.probes.daemons import running_daemons, with_claims, with_units
found, units = with_units(running_daemons())
found = with_claims(found, with_sources=True)
seen = {daemon.name: daemon.summary() for daemon in getattr(found, "seen", found)}
print(json.dumps({"daemons": seen, "units": {unit.name: unit for unit in units}}))
"""
"""What an audit finds, as JSON; a unit is a list of its name, `enabled` and `running`."""

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package, built from these sources."""
    return build_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module", params=RELEASES)
def host(request: pytest.FixtureRequest, built: Path) -> Iterator[Machine]:
    """A machine with these daemons, all stopped, with our package, and with servers: a right one, one that is ahead."""
    release = request.param
    with machine(release) as host:
        for name, text in UNITS.items():
            write(host, f"/etc/systemd/system/{name}.service.d/test.conf", text)
        write(host, "/etc/services", "ntp 123/udp\n")
        for path in (built, *archives(release, *TIME_DAEMONS)):
            shutil.copy(path, host.path("/root"))
        host.say("sh", "-c", "dpkg --install --force-depends --force-conflicts /root/*.deb")
        for name in UNITS:
            host.say("systemctl", "stop", name)
        write(host, "/opt/look.py", LOOK)
        serve(host, f"{RIGHT}:123", 3)
        shutil.copy(REPOSITORY / "tests/world/offset_server.py", host.path("/opt/offset_server.py"))
        host.say(
            *("systemd-run", "--quiet", "--unit=ahead"),
            *("--", "python3", "/opt/offset_server.py", AHEAD, str(AHEAD_S)),
        )
        yield host


@pytest.fixture(autouse=True)
def _stopped(host: Machine) -> Iterator[None]:
    """Each test begins and ends without a daemon."""
    yield
    host.say("systemctl", "stop", *UNITS)


def looked(host: Machine, *before: str) -> dict[str, Any]:
    """Return what an audit finds, by root."""
    found: dict[str, Any] = json.loads(host.say(*before, "python3", "-B", "/opt/look.py"))
    return found


def looked_by_another(host: Machine) -> dict[str, Any]:
    """Return what an audit finds, by an ordinary user."""
    return looked(host, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def looked_confined(host: Machine, *options: str) -> dict[str, Any]:
    """Return what an audit finds in the sandbox of the services."""
    run = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--unit=ntpaudit-probe")
    return looked(host, *run, "--property=DynamicUser=yes", *options, "--")


def claim_of(look: Callable[[], dict[str, Any]], name: str = "systemd-timesyncd") -> dict[str, Any]:
    """Return a claim, once an audit finds one: a busy machine may reply too late."""
    return until(
        lambda: found if (found := look()["daemons"][name]["claim"])["available"] else {}, f"a claim of {name}"
    )


WITH_HELPER = ("--property=Wants=ntpaudit-timesync.socket", "--property=After=ntpaudit-timesync.socket")


def start_timesyncd(host: Machine, server: str) -> None:
    """Let it follow a server."""
    write(host, "/etc/systemd/timesyncd.conf.d/test.conf", f"[Time]\nNTP={server}\n")
    host.say("systemctl", "start", "systemd-timesyncd")


def timesync_status(host: Machine) -> dict[str, str]:
    """Return what timedatectl shows."""
    lines = host.say("timedatectl", "timesync-status").splitlines()
    return dict(line.strip().split(": ", 1) for line in lines if ": " in line)


def duration_s(text: str) -> float:
    """Read a span of systemd's, such as `+1.5ms` or `34min 8s`."""
    parts = re.findall(r"([\d.]+)(min|ms|us|h|s)", text)
    return (-1 if text.startswith("-") else 1) * sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def synchronised_claim(host: Machine) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the claim by root and what timedatectl shows, of the same exchange."""

    def both() -> list[tuple[dict[str, Any], dict[str, str]]]:
        before, claim = timesync_status(host), claim_of(partial(looked, host))
        return [(claim, before)] if claim["is_synchronised"] and timesync_status(host) == before else []

    return until(both)[0]


@pytest.mark.parametrize(("server", "ahead_s"), [(RIGHT, 0.0), (AHEAD, AHEAD_S)])
def test_timesyncd_claims_what_timedatectl_shows(host: Machine, server: str, ahead_s: float) -> None:
    """Field by field: root, another user, and the sandbox with the helper see the same, in our units and sign."""
    begun_s = time.monotonic()
    start_timesyncd(host, server)
    claim, status = synchronised_claim(host)
    assert 0 <= claim["updated_s"] <= time.monotonic() - begun_s
    assert f"{claim['follows']} ({claim['sources'][0]['address']})" == status["Server"]
    assert claim["offset_s"] == pytest.approx(duration_s(status["Offset"]), abs=1.5e-6)
    assert claim["offset_s"] == pytest.approx(ahead_s, abs=NEAR_S)
    delay_s, distance_s = duration_s(status["Delay"]), duration_s(status["Root distance"].partition(" (")[0])
    assert claim["bound_s"] == pytest.approx(distance_s + delay_s / 2 + abs(claim["offset_s"]), abs=1e-5)
    assert claim["poll_s"] == duration_s(status["Poll interval"].partition(" (")[0])
    assert (claim["stratum"], claim["leap"], status["Leap"]) == (int(status["Stratum"]), 0, "normal")
    assert claim["authentication"] == "none"
    for look in (partial(looked_by_another, host), partial(looked_confined, host, *WITH_HELPER)):
        assert lasting(claim_of(look)) == lasting(claim) or timesync_status(host) != status  # another exchange since


def lasting(claim: dict[str, Any]) -> dict[str, Any]:
    """A claim without what changes all the time."""
    return {key: value for key, value in claim.items() if key not in ("boottime_ns", "updated_s")}


def test_the_agent_records_the_claim(host: Machine) -> None:
    """Its service starts the socket of the helper, which ends with it."""
    start_timesyncd(host, RIGHT)
    synchronised_claim(host)
    host.say("ntpaudit", "config", "init", RIGHT, "--output", "/etc/ntpaudit/ntpaudit.toml")
    host.say("systemctl", "start", "ntpaudit")
    try:
        until(lambda: host.path("/var/lib/private/ntpaudit/history.sqlite3").exists())
        found = until(lambda: recorded(host), "a claim in a record")
        assert shown(host, "ntpaudit-timesync.service", "ActiveState") == "active"
    finally:
        host.say("systemctl", "stop", "ntpaudit")
    assert (found["unit"], found["enabled"]) == ("systemd-timesyncd.service", "enabled")
    assert (found["claim"]["follows"], found["claim"]["offset_s"]) == (RIGHT, pytest.approx(0.0, abs=NEAR_S))
    until(lambda: shown(host, "ntpaudit-timesync.service", "ActiveState") == "inactive")


def recorded(host: Machine) -> dict[str, Any]:
    """Let the agent audit, and return what the last record holds about systemd-timesyncd, if it has a claim."""
    audit_now(host)
    found = {daemon["name"]: daemon for record in records(host)[-1:] for daemon in record["daemons"]}
    return found["systemd-timesyncd"] if found and found["systemd-timesyncd"]["claim"].get("follows") else {}


@pytest.mark.parametrize("release", RELEASES)
def test_timesyncd_that_is_installed_later_gets_its_helper(built: Path, release: str) -> None:
    """Its installation starts the socket for an agent that runs, and for no other."""
    with machine(release) as host:
        shutil.copy(built, host.path("/root/ntpaudit.deb"))
        host.say("dpkg", "--install", "/root/ntpaudit.deb")
        (package,) = (path for path in archives(release, *TIME_DAEMONS) if path.name.startswith("systemd-timesyncd"))
        shutil.copy(package, host.path("/root/timesyncd.deb"))
        write(host, "/etc/systemd/system/systemd-timesyncd.service.d/test.conf", UNITS["systemd-timesyncd"])
        install = ("dpkg", "--install", "--force-depends", "--force-conflicts", "/root/timesyncd.deb")
        states = []
        host.say("ntpaudit", "config", "init", RIGHT, "--output", "/etc/ntpaudit/ntpaudit.toml")
        for state in ("start", "stop"):
            host.say("systemctl", state, "ntpaudit")
            states.append(shown(host, "ntpaudit-timesync.socket", "ActiveState"))
            host.say(*install)
            states.append(shown(host, "ntpaudit-timesync.socket", "ActiveState"))
        assert states == ["inactive", "active", "inactive", "inactive"]


def test_sandbox_without_the_helper_sees_when_timesyncd_corrected_the_clock(host: Machine) -> None:
    """The bus refuses its user. Two facts remain, and the others are not known."""
    start_timesyncd(host, RIGHT)
    synchronised_claim(host)
    claim = claim_of(partial(looked_confined, host))
    known = {key: value for key, value in claim.items() if value not in (None, [])}
    assert known.keys() == {"available", "boottime_ns", "is_synchronised", "updated_s"}
    assert claim["is_synchronised"] is True


def test_timesyncd_without_a_reply_is_not_synchronised(host: Machine) -> None:
    """It has a server, no reply, and so nothing to report, wherever that is read."""
    start_timesyncd(host, SILENT)
    by_root = partial(looked, host)
    for look in (by_root, partial(looked_confined, host, *WITH_HELPER), partial(looked_confined, host)):
        claim = claim_of(look)
        assert (claim["is_synchronised"], claim["follows"]) == (False, None)
        assert claim["offset_s"] is claim["bound_s"] is claim["updated_s"] is None
    assert [source["name"] for source in claim_of(by_root)["sources"]] == [SILENT]


def test_units_are_listed_whether_they_run_or_not(host: Machine) -> None:
    """Each has the state that systemctl reports; a daemon that runs has that of its unit."""
    start_timesyncd(host, RIGHT)
    host.say("systemctl", "mask", "--runtime", "chrony")
    found = looked_confined(host)
    assert found["daemons"]["systemd-timesyncd"]["enabled"] == "enabled"
    expected = {f"{name}.service" for name in (*UNITS, "chrony", "timemaster")}
    assert expected <= found["units"].keys()
    for name, enabled, running in found["units"].values():
        reported = host.run(["systemctl", "is-enabled", name], check=False).stdout.strip()
        assert enabled == reported.removesuffix("-runtime"), name
        assert running in ((True,) if name == "systemd-timesyncd.service" else (False, None)), name
    host.say("systemctl", "stop", "systemd-timesyncd")
    stopped = looked(host)
    assert "systemd-timesyncd" not in stopped["daemons"]
    assert stopped["units"]["systemd-timesyncd.service"][2] in (False, None)  # hidden: it is a PID namespace


def test_helper_is_confined_and_quiet(host: Machine) -> None:
    """Its exposure is low, it can be asked again and again, and it writes nothing to the journal."""
    start_timesyncd(host, RIGHT)
    synchronised_claim(host)
    for _ in range(2):
        looked_confined(host, *WITH_HELPER)
    table = host.say("systemd-analyze", "security", "--no-pager", "ntpaudit-timesync.service")
    assert float(table.rpartition("exposure level for")[2].split()[1]) <= MAX_EXPOSURE, table
    assert shown(host, "ntpaudit-timesync.service", "Result") == "success"
    own = host.say("journalctl", "--output=json", "_SYSTEMD_UNIT=ntpaudit-timesync.service")
    assert own in ("", "-- No entries --")


def test_openntpd_claims_what_ntpctl_shows(host: Machine) -> None:
    """Offsets have our sign: a server that is ahead finds the host behind. Only root can ask."""
    write(host, "/etc/openntpd/ntpd.conf", f"server {AHEAD}\nserver {RIGHT}\n")
    host.say("systemctl", "start", "openntpd")

    def both() -> list[tuple[dict[str, float], bool, dict[str, Any]]]:
        """Return both reports, once there is no reply of a server between them."""
        before, found = openntpd_report(host), looked(host)["daemons"]["openntpd"]
        is_read = found["claim"]["available"] and len(before[0]) == 2
        return [(*before, found)] if is_read and before == openntpd_report(host) else []

    ((offsets_s, is_synchronised, found),) = until(both, lambda: host.run(["ntpctl", "-s", "all"]).stdout, within_s=120)
    assert offsets_s[AHEAD] == pytest.approx(AHEAD_S, abs=NEAR_S)
    assert found["unit"] == "openntpd.service"
    claim = found["claim"]
    assert claim["is_synchronised"] is is_synchronised
    for source in claim["sources"]:
        assert source["offset_s"] == pytest.approx(offsets_s[source["address"]], abs=1e-6)
        assert source["authentication"] == "none"
    assert {source["address"]: source["stratum"] for source in claim["sources"]} == {AHEAD: 2, RIGHT: 3}
    for other in (looked_by_another(host), looked_confined(host)):
        claim = other["daemons"]["openntpd"]["claim"]
        assert (claim["available"], claim["remedy"]) == (False, "run `ntpaudit check` as root")


def openntpd_report(host: Machine) -> tuple[dict[str, float], bool]:
    """Return the offset of each server that ntpctl shows as valid, and whether the clock is synchronised."""
    report = host.run(["ntpctl", "-s", "all"], check=False).stdout
    rows = re.findall(r"^(\S+) .*\n.*?(-?[\d.]+)ms ", report, re.MULTILINE)
    return {address: float(offset_ms) / 1e3 for address, offset_ms in rows}, "clock synced" in report


def test_ptp4l_claims_what_pmc_shows(host: Machine) -> None:
    """Two of them on a pair of devices, with timestamps by software. The sign of the offset is the other one."""
    for words in (
        ("link", "add", "ptp0", "type", "veth", "peer", "name", "ptp1"),
        ("link", "set", "ptp0", "up"),
        ("link", "set", "ptp1", "up"),
    ):
        subprocess.run(host.on_its_network([str(program("ip")), *words]), check=True)
    start = ("systemd-run", "--quiet", "--property=CapabilityBoundingSet=~CAP_SYS_TIME")
    common = ("ptp4l", "-S", "-2", "--free_running=1", "--logSyncInterval=2")  # slower than a busy machine reads
    host.say(*start, "--unit=ptp-master", "--", *common, "-i", "ptp0", "--uds_address=/run/ptp-master")
    host.say(*start, "--unit=ptp-slave", "--", *common, "-s", "-i", "ptp1", "--uds_address=/run/ptp-slave")
    write(host, "/opt/look_by_pid.py", LOOK.replace("{daemon.name:", "{daemon.pid:"))
    pid = shown(host, "ptp-slave", "MainPID")

    def both() -> list[tuple[str, dict[str, Any]]]:
        """Return both reports, once they are of the same message of the master."""
        before, look = host.say(*ask), json.loads(host.say("python3", "-B", "/opt/look_by_pid.py"))
        is_read = "true" in before and look["daemons"][pid]["claim"]["available"]
        return [(before, look["daemons"][pid])] if is_read and before == host.say(*ask) else []

    try:
        ask = ("pmc", "-u", "-b", "0", "-s", "/run/ptp-slave", "GET TIME_STATUS_NP")
        ((report, found),) = until(both, within_s=120.0)
    finally:
        host.say("systemctl", "stop", "ptp-master", "ptp-slave")
    (master,) = re.findall(r"gmIdentity\s+(\S+)", report)
    claim = found["claim"]
    assert claim["follows"] == master
    (ahead_ns,) = re.findall(r"master_offset\s+(\S+)", report)
    assert claim["offset_s"] == pytest.approx(-int(ahead_ns) / 1e9, abs=1e-9)
    assert found["disciplines"] is False

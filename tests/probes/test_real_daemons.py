"""What NTPsec and ntpd-rs claim, compared with what ntpq and ntp-ctl print of them at that moment."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ntpaudit.core.observation import Claim, Daemon, HiddenDaemons, Unavailable
from ntpaudit.demo.server import Behaviour, NtpServer
from ntpaudit.probes.daemons import running_daemons, with_claims
from tests.waiting import until
from tests.world.followers import Follower, authenticated_ntpsec, ntpd_rs, ntpsec
from tests.world.packages import program

pytestmark = [pytest.mark.needs("root", "netns", "mount", "seccomp", "ntpd", "ntpd-rs", "chronyd", "openssl")]

AHEAD_S = 10.0
"""No delay of a packet on a busy machine hides the sign or the unit of such an offset."""

NEAR_S = AHEAD_S / 2


@pytest.fixture(scope="module")
def followers() -> Iterator[dict[str, Follower]]:
    """Daemons of NTPsec that begin at once: their servers are right, ahead, silent; and one that no query reaches."""
    with ExitStack() as stack:
        yield {
            "right": stack.enter_context(ntpsec({"10.9.1.1": 0.0, "10.9.1.2": 0.0})),
            "ahead": stack.enter_context(ntpsec({"10.9.1.1": AHEAD_S, "10.9.1.2": AHEAD_S})),
            "silent": stack.enter_context(ntpsec({}, extra="server 10.9.1.77 iburst\npool pool.invalid")),
            "authenticated": stack.enter_context(authenticated_ntpsec()),
            "noquery": stack.enter_context(ntpsec({}, restrict="")),
        }


def variables(printed: str) -> dict[str, str]:
    """What `ntpq -c rv` prints."""
    return dict(re.findall(r"(\w+)=([^,\s]+)", printed))


def seen(daemon: Follower) -> tuple[Daemon, ...]:
    """The daemon as it is found among the processes of this machine."""
    found = running_daemons()
    return tuple(one for one in (found.seen if isinstance(found, HiddenDaemons) else found) if one.pid == daemon.pid)


def claim_of(daemons: tuple[Daemon, ...]) -> Claim | Unavailable | None:
    """What one daemon claims, asked from here."""
    found = with_claims(daemons, with_sources=False)
    assert not isinstance(found, HiddenDaemons)
    (daemon,) = found
    return daemon.claim


def printed(daemon: Follower) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What ntpq prints of the system, and the columns of each peer with its mark before them, without `when`."""
    system, _, peers = daemon.ntpq("-n", "-c", "rv", "-c", "peers", "127.0.0.1").partition("     remote ")
    rows = ([line[0], *line[1:].split()] for line in peers.splitlines()[2:])
    return variables(system), {row[1]: row[:5] + row[6:] for row in rows}


def available(daemon: Follower) -> dict[str, Any]:
    """What the daemon claims, once it replies: a busy machine may reply too late."""
    return until(lambda: found if (found := daemon.claim())["available"] else {}, "a claim")


Unchanged = tuple[dict[str, Any], dict[str, str], dict[str, str], dict[str, list[str]]]


def unchanged(daemon: Follower) -> Unchanged:
    """A claim, and what ntpq prints before and after it, between which neither the system nor a peer was updated."""

    def look() -> list[Unchanged]:
        before, claim, after = printed(daemon), available(daemon), printed(daemon)
        is_same = before[0].get("reftime") == after[0].get("reftime") and before[1] == after[1]
        return [(claim, before[0], after[0], before[1])] if is_same and before[0]["peer"] != "0" else []

    return until(look, "a synchronised NTPsec")[0]


@pytest.mark.parametrize(("which", "ahead_s"), [("right", 0.0), ("ahead", AHEAD_S)])
def test_ntpsec_claims_what_ntpq_prints(which: str, ahead_s: float, followers: dict[str, Follower]) -> None:
    """Each value is that of ntpq in seconds; the host is behind where its servers are ahead."""
    claim, before, after, peers = unchanged(followers[which])
    assert claim["is_synchronised"] is True
    assert (claim["stratum"], claim["leap"]) == (int(before["stratum"]), int(before["leap"]))
    assert claim["offset_s"] * 1e3 == pytest.approx(float(before["offset"]), abs=1e-5)
    assert claim["offset_s"] == pytest.approx(ahead_s, abs=NEAR_S)
    bounds = [float(one["rootdelay"]) / 2e3 + float(one["rootdisp"]) / 1e3 for one in (before, after)]
    assert bounds[0] - 1e-5 <= claim["bound_s"] <= bounds[1] + 1e-5
    assert claim["updated_s"] >= 0
    assert claim["authentication"] == "none"
    (followed,) = [address for address, row in peers.items() if row[0] == "*"]
    assert claim["follows"] == followed
    assert {source["name"] for source in claim["sources"]} == set(peers)
    for source in claim["sources"]:
        mark, _, _, stratum, _, poll, _, _, offset, _ = peers[source["name"]]
        assert source["is_followed"] == (mark in "*+o"), peers
        assert source["stratum"] == int(stratum)
        assert source["poll_s"] == float(poll)
        assert source["offset_s"] * 1e3 == pytest.approx(float(offset), abs=1.0)


def test_ntpsec_reports_how_servers_are_authenticated(followers: dict[str, Follower]) -> None:
    """By NTS, by a symmetric key, or not at all; also before a reply."""
    daemon = followers["authenticated"]
    claim = until(lambda: found if (found := available(daemon))["follows"] else {}, "a synchronised NTPsec")
    found = {source["name"]: source["authentication"] for source in claim["sources"]}
    assert found == {"10.9.1.1": "nts", "10.9.1.2": "key", "10.9.1.3": "none"}
    assert claim["authentication"] == found[claim["follows"]]


def test_ntpsec_without_a_reply_is_not_synchronised(followers: dict[str, Follower]) -> None:
    """A server that never replied is listed without an offset, and a pool that gave no server is not."""
    claim = available(followers["silent"])
    assert (claim["is_synchronised"], claim["leap"], claim["stratum"]) == (False, 3, 16)
    assert [claim[name] for name in ("follows", "offset_s", "bound_s", "updated_s", "poll_s")] == [None] * 5
    assert [(source["name"], source["is_followed"], source["offset_s"]) for source in claim["sources"]] == [
        ("10.9.1.77", False, None)
    ]


def test_a_daemon_that_refuses_queries_is_not_available(followers: dict[str, Follower]) -> None:
    """With `noquery` for the host itself there is no reply, and the line to add is named with its file."""
    claim = followers["noquery"].claim()
    assert claim["available"] is False
    assert claim["reason"] == "it does not reply to control messages from 127.0.0.1"
    assert re.fullmatch(
        r"add the line `restrict 127.0.0.1` to /\S+/ntpsec-\S+/ntp.conf, and restart it", claim["remedy"]
    )


def test_a_daemon_of_another_network_is_not_asked(followers: dict[str, Follower]) -> None:
    """From outside of its network namespace, its port of loopback is another one."""
    assert claim_of(seen(followers["right"])) == Unavailable(
        "it runs in another network namespace", "run ntpaudit in that network namespace"
    )


IMPOSTOR = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listening.bind(("127.0.0.1", 123))
print("listening", flush=True)
sys.stdin.read()
"""
ASK = """
import os, socket, sys
from ntpaudit.probes.daemons.kind import Process
from ntpaudit.probes.daemons.sockets import UdpPort
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.connect(("127.0.0.1", 123))
for user in (0, 65534):
    found = UdpPort(Process(os.getpid(), ("ntpd",), uid=user), 123).why_not_believed(asking)
    print(found and found.reason)
"""


def test_a_port_of_another_user_is_not_believed() -> None:
    """Where any user may open port 123, one who opens it is not a daemon of root; the daemon's own user is."""
    inside = ["unshare", "--net", "sh", "-ec", 'ip=$1; shift; "$ip" link set lo up; exec "$@"', "sh"]
    script = f"""
import subprocess, sys
open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w").write("0")
impostor = subprocess.Popen([sys.executable, "-c", {IMPOSTOR!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
impostor.stdout.readline()
subprocess.run([sys.executable, "-c", {ASK!r}], check=True)
impostor.communicate()
"""
    done = subprocess.run(
        [*inside, str(program("ip")), sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["another user's program has UDP port 123", "None"], done.stderr


def test_a_daemon_that_ended_is_not_available() -> None:
    """One that was seen and has ended since claims nothing."""
    with NtpServer(Behaviour()) as server, ntpd_rs([f"{server.address}:{server.port}"]) as daemon:
        before = seen(daemon)
    assert claim_of(before) == Unavailable("it has ended")


@pytest.mark.parametrize("ahead_s", [0.0, 0.2])
def test_ntpd_rs_claims_what_ntp_ctl_prints(ahead_s: float) -> None:
    """Each value is that of ntp-ctl. It believes its steps, which are not carried out: they count as its correction."""
    with ExitStack() as stack:
        servers = [stack.enter_context(NtpServer(Behaviour(offset_s=ahead_s), f"127.0.0.{one}")) for one in (11, 12)]
        daemon = stack.enter_context(ntpd_rs([f"{server.address}:{server.port}" for server in servers]))

        def look() -> list[tuple[str, dict[str, Any]]]:
            try:
                before, claim, after = daemon.ntp_ctl(), daemon.claim(), daemon.ntp_ctl()
            except AssertionError:  # its socket is not there yet
                return []
            return [(before, claim)] if before == after and claim.get("follows") else []

        ((status, claim),) = until(look, lambda: f"a synchronised ntpd-rs: {daemon.ntp_ctl()} {daemon.claim()}")
    dispersion, delay, stratum = re.findall(r"Dispersion: (\S+)s, Delay: (\S+)s\nStratum: (\d+)", status)[0]
    assert (claim["is_synchronised"], claim["leap"], claim["stratum"]) == (True, 0, int(stratum))
    assert claim["bound_s"] == pytest.approx(float(delay) / 2 + float(dispersion), abs=2e-6)
    rows = re.findall(r"^(\S+):\d+/\S+ \(\d+\): (\S+)±\S+\(\S+s\n    poll interval: (\d+)s", status, re.MULTILINE)
    offsets = {name: float(offset) for name, offset, _ in rows}
    polls = {name: float(poll) for name, _, poll in rows}
    assert {source["name"] for source in claim["sources"]} == set(offsets) == {"127.0.0.11", "127.0.0.12"}
    for source in claim["sources"]:
        assert source["offset_s"] == pytest.approx(offsets[source["name"]], abs=1e-6)
        assert source["poll_s"] == polls[source["name"]]
        assert source["authentication"] == "none"
    assert claim["follows"] in offsets
    assert claim["offset_s"] == pytest.approx(offsets[claim["follows"]], abs=1e-6)


def test_a_source_of_ntpd_rs_has_our_sign() -> None:
    """A host is behind a server that is ahead. Two servers are not enough for this daemon, so it corrects nothing."""
    with ExitStack() as stack:
        behaviour = Behaviour(offset_s=AHEAD_S)
        servers = [stack.enter_context(NtpServer(behaviour, f"127.0.0.{one}")) for one in (11, 12)]
        names = [f"{server.address}:{server.port}" for server in servers]
        daemon = stack.enter_context(ntpd_rs(names, agreeing=3))

        def offsets() -> list[float]:
            found = [source["offset_s"] for source in daemon.claim().get("sources", ())]
            return [] if None in found else found

        assert until(offsets, "its measurements") == pytest.approx([AHEAD_S, AHEAD_S], abs=NEAR_S)
        assert available(daemon)["is_synchronised"] is False


def test_ntpd_rs_without_a_server_is_not_synchronised() -> None:
    """Nothing replies at that port: a source without a measurement has no offset."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with ntpd_rs([f"127.0.0.1:{silent.getsockname()[1]}"]) as daemon:
            claim = available(daemon)
    assert (claim["is_synchronised"], claim["leap"], claim["stratum"]) == (False, 3, 16)
    assert [(source["name"], source["offset_s"]) for source in claim["sources"]] == [("127.0.0.1", None)]
    assert [claim[name] for name in ("follows", "offset_s", "bound_s", "updated_s", "poll_s")] == [None] * 5


def test_ntpd_rs_without_a_socket_is_not_available() -> None:
    """The reason comes with the setting to add."""
    with ntpd_rs([], observability="log-level = 'warn'") as daemon:
        claim = daemon.claim()
    assert (claim["available"], claim["reason"]) == (False, "it has no observation socket")
    assert "observation-path" in claim["remedy"]

"""The claim of chronyd: a real one asked in each way, beside chronyc; and replies that lie."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.observation import Claim, Daemon, Unavailable
from ntpaudit.demo.server import Behaviour, NtpServer
from ntpaudit.probes.daemons import chrony_client, with_claims
from ntpaudit.probes.daemons.chrony_client import CommandSettings, read_service
from ntpaudit.probes.daemons.chrony_protocol import (
    AUTH_DATA,
    N_SOURCES,
    SOURCE_DATA,
    SOURCE_NAME,
    TRACKING,
    Fields,
    MalformedReplyError,
    Question,
    read_claim,
    read_float,
    read_reply,
    request,
)
from ntpaudit.probes.daemons.chronyd import command_settings
from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import CLAIM_WITHIN_S, Process
from ntpaudit.probes.daemons.process import find_process
from tests.waiting import until
from tests.world.another_user import let_others_in
from tests.world.flood import flooded
from tests.world.packages import REPOSITORY, environment, program
from tests.world.servers import Chronyd, ServerFailedError, chronyd

BEHIND_S = 10.0
"""No delay of a packet on a busy machine hides the sign or the unit of such an offset."""

NEAR_S = BEHIND_S / 2
QUESTIONS = (TRACKING, N_SOURCES, SOURCE_DATA, SOURCE_NAME, AUTH_DATA)
SERVERS = {"localhost": Behaviour(BEHIND_S, 2, 0, 0.01, 0.003), "127.0.0.1": Behaviour(BEHIND_S, 3, 0, 0.02, 0.004)}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a reply may take longer than an audit waits for it."""
    monkeypatch.setattr(chrony_client, "CLAIM_WITHIN_S", 20 * CLAIM_WITHIN_S)


class Host(NamedTuple):
    """A chronyd that follows the first of two servers, and is asked in one way."""

    daemon: Chronyd
    ask: Callable[[bool], Claim | Unavailable]
    knows_authentication: bool

    def chronyc(self, *words: str) -> list[list[str]]:
        """The lines of a report of chronyc, with all digits, by the daemon's Unix socket."""
        return chronyc(self.daemon, *words)


def chronyc(daemon: Chronyd, *words: str) -> list[list[str]]:
    """The lines of a report of chronyc."""
    command = [str(program("chronyc")), "-h", str(daemon.command_socket), "-c", "-N", *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return [line.split(",") for line in done.stdout.splitlines()]


def claim_of(daemon: Chronyd, *, with_sources: bool = True) -> Claim | Unavailable:
    """What the probe of the program says."""
    (found,) = with_claims((Daemon("chronyd", daemon.pid),), with_sources=with_sources)  # type: ignore[misc]
    assert isinstance(found.claim, Claim | Unavailable)
    return found.claim


def reserved_port() -> int:
    """A UDP port that only root can open, and that no process uses."""
    for port in range(1023, 500, -1):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerFailedError("no port is free")


@contextmanager
def helper(chronyd_socket: Path, place: Path) -> Iterator[None]:
    """The program of ntpaudit-chrony.service, as systemd starts it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()
        command = [sys.executable, "-IS", str(REPOSITORY / "systemd/helpers/chrony.py"), str(chronyd_socket)]

        def hand_over() -> None:
            os.dup2(listening.fileno(), 3)

        with subprocess.Popen(command, preexec_fn=hand_over, pass_fds=[3]) as process:
            try:
                yield
            finally:
                process.terminate()


def by_helper(pid: int, place: Path) -> Callable[[bool], Claim | Unavailable]:
    """Ask as an agent does that has no other way."""
    found = find_process(pid, {"chronyd"})
    assert found
    return lambda with_sources: chrony_client.claim(found[1], CommandSettings(port=0), with_sources, str(place))


@contextmanager
def following(way: str, folder: Path) -> Iterator[Host]:
    """Run a chronyd with two servers that are ahead of this host's clock, until it is synchronised.

    From then on it polls so rarely that its state is the same for as long as a slow machine needs to read it twice.
    """
    with NtpServer(SERVERS["localhost"]) as one, NtpServer(SERVERS["127.0.0.1"], "127.0.0.2") as other:
        extra = f"server localhost port {one.port} iburst minpoll -2 maxpoll -2 prefer\n"
        extra += f"server 127.0.0.2 port {other.port} iburst minpoll -2 maxpoll -1\n"
        if way == "udp":
            extra += f"cmdport {reserved_port()}\n"
        with chronyd(synchronised=False, extra=extra) as daemon:
            chronyc(daemon, "waitsync", "600", "0", "0", "0.1")
            until(lambda: {line[1] for line in chronyc(daemon, "sources")} == {"*", "-"})
            for address, poll in (("127.0.0.1", 5), ("127.0.0.2", 6)):
                chronyc(daemon, "minpoll", address, str(poll))
            until(lambda: {(line[1], line[4]) for line in chronyc(daemon, "sources")} == {("*", "5"), ("-", "6")})
            if way == "helper":
                with helper(daemon.command_socket, folder / "helper"):
                    yield Host(daemon, by_helper(daemon.pid, folder / "helper"), True)
            elif way == "udp":
                settings = command_settings(_process(daemon), Files())._replace(path="/")
                yield Host(daemon, lambda ws: chrony_client.claim(_process(daemon), settings, ws), False)
            else:
                yield Host(daemon, lambda ws: claim_of(daemon, with_sources=ws), True)


def _process(daemon: Chronyd) -> Process:
    found = find_process(daemon.pid, {"chronyd"})
    assert found
    return found[1]


@pytest.fixture(
    scope="module",
    params=["unix", "helper", pytest.param("udp", marks=pytest.mark.needs("root"))],
)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A chronyd that follows two servers, asked in each way."""
    with following(request.param, tmp_path_factory.mktemp("host")) as host:
        yield host


def asked(
    host: Host, *, with_sources: bool = True
) -> tuple[Claim, list[list[str]], list[list[str]], tuple[float, float]]:
    """A claim, and what chronyc says right before and after it; no update of the clock is between them."""

    def look() -> list[tuple[Claim, list[list[str]], list[list[str]], tuple[float, float]]]:
        before, sources = host.chronyc("tracking")[0], host.chronyc("sources")
        earliest_s = time.time()
        claim = host.ask(with_sources)
        latest_s = time.time()
        after, later = host.chronyc("tracking")[0], host.chronyc("sources")
        assert isinstance(claim, Claim), claim
        is_same = before[3] == after[3] and [without_age(one) for one in sources] == [without_age(one) for one in later]
        return [(claim, [before, after], sources, (earliest_s, latest_s))] if is_same else []

    return until(look, "a claim between two updates")[0]


def without_age(source: list[str]) -> list[str]:
    """A line of `chronyc sources` without the time since the last sample."""
    return source[:6] + source[7:]


def test_claim_is_what_chronyc_shows(host: Host) -> None:
    """Each field, with its unit and sign: chronyc calls a host that is behind slow."""
    claim, (before, after), sources, (earliest_s, latest_s) = asked(host)
    assert claim.is_synchronised is True
    assert claim.follows == "localhost"
    assert claim.offset_s is not None
    assert claim.offset_s == pytest.approx(BEHIND_S, abs=NEAR_S)
    offsets = sorted(float(line[4]) for line in (before, after))  # the correction changes all the time
    assert offsets[0] - 1e-6 <= claim.offset_s <= offsets[1] + 1e-6
    bounds = [float(line[10]) / 2 + float(line[11]) for line in (before, after)]
    assert claim.bound_s is not None
    assert claim.updated_s is not None
    assert bounds[0] - 1e-9 <= claim.bound_s <= bounds[1] + 1e-9
    updated_s = float(before[3]) - claim.offset_s
    assert earliest_s - updated_s - 1e-3 <= claim.updated_s <= latest_s - updated_s + 1e-3
    assert (claim.stratum, claim.leap) == (int(before[2]), 0) == (3, 0)
    (selected,) = (line for line in sources if line[1] == "*")
    assert claim.poll_s == 2.0 ** int(selected[4])
    assert claim.authentication == ("none" if host.knows_authentication else None)


def test_sources_are_what_chronyc_shows(host: Host) -> None:
    """The offset that chronyc shows of a source is positive if the host is ahead, and refers to the corrected clock."""
    claim, _, sources, _ = asked(host)
    assert claim.offset_s is not None
    assert [(one.name, one.stratum, one.poll_s, one.is_followed) for one in claim.sources] == [
        (line[2], int(line[3]), 2.0 ** int(line[4]), line[1] in "*+") for line in sources
    ]
    assert [one.address for one in claim.sources] == ["127.0.0.1", "127.0.0.2"]
    for one, line in zip(claim.sources, sources, strict=True):
        assert one.offset_s == pytest.approx(claim.offset_s - float(line[7]), abs=1e-6)
        assert one.offset_s == pytest.approx(BEHIND_S, abs=NEAR_S)
        assert one.authentication == ("none" if host.knows_authentication else None)


def test_claim_without_sources_is_the_same(host: Host) -> None:
    """All but the list of its sources."""
    without, (before, _), _, _ = asked(host, with_sources=False)
    assert without.sources == ()
    claim, (later, _), _, _ = asked(host)
    assert (without.follows, without.poll_s, without.authentication) == (
        claim.follows,
        claim.poll_s,
        claim.authentication,
    )
    assert before[0] == later[0]


def test_nothing_is_left_beside_the_socket_of_chronyd(host: Host) -> None:
    """The socket that chronyd replies to is removed."""
    host.ask(True)
    assert [path.name for path in host.daemon.command_socket.parent.glob("*.sock")] == ["chronyd.sock"]


def test_unsynchronised_chronyd_claims_no_offset() -> None:
    """Its zeros are not offsets, and a server that never replied has none."""
    with chronyd(synchronised=False, extra="server 192.0.2.1 offline key 1\n") as daemon:
        found = claim_of(daemon)
    assert isinstance(found, Claim)
    (source,) = found.sources
    assert found._replace(sources=()) == Claim(found.boottime_ns, False, leap=3)
    assert (source.name, source.is_followed, source.stratum, source.offset_s) == ("192.0.2.1", False, None, None)
    assert source.authentication == "key"


def test_polls_may_be_less_than_a_second_apart() -> None:
    """Their interval is 2 to a negative power."""
    with NtpServer() as server:
        extra = f"server 127.0.0.1 port {server.port} iburst minpoll -2 maxpoll -2\n"
        with chronyd(synchronised=False, extra=extra) as daemon:
            claim = until(lambda: found if isinstance(found := claim_of(daemon), Claim) and found.follows else None)
    assert claim
    assert [claim.poll_s, *(one.poll_s for one in claim.sources)] == [0.25, 0.25]


def test_chronyd_that_serves_its_own_clock_is_not_synchronised() -> None:
    """`local` makes it a reference for others; it follows no server."""
    with chronyd(stratum=8) as daemon:
        found = claim_of(daemon)
    assert isinstance(found, Claim)
    assert found == Claim(found.boottime_ns, False, "its own clock", stratum=8, leap=found.leap)


def test_reference_clock_is_named_by_its_id() -> None:
    """It has no address, and its id is no address either."""
    with chronyd(synchronised=False, extra="refclock SHM 0 refid GPS\n") as daemon:
        found = claim_of(daemon)
    assert isinstance(found, Claim)
    assert [(one.name, one.address, one.authentication) for one in found.sources] == [("GPS", None, None)]


def test_closed_chronyd_is_unavailable() -> None:
    """With neither a UDP port nor a Unix socket its configuration must change: hardening guides demand `cmdport 0`."""
    with chronyd(extra="bindcmdaddress /\n") as daemon:
        found = claim_of(daemon)
    assert isinstance(found, Unavailable)
    assert "`cmdport 0`" in found.reason
    assert "`bindcmdaddress /`" in found.reason
    assert found.remedy == "remove `bindcmdaddress /` from its configuration"


@pytest.mark.needs("another-user")
def test_remedy_is_the_helper_where_the_unix_socket_is_closed() -> None:
    """As an agent with `cmdport 0`: the one thing to do is to start the helper's socket, if there is one."""
    with chronyd() as daemon:
        settings = CommandSettings(0)
        process = _process(daemon)
        os.seteuid(65534)
        try:
            found = chrony_client.claim(process, settings, True, "/run/ntpaudit-none")
        finally:
            os.seteuid(0)
    assert isinstance(found, Unavailable)
    assert found.remedy == "run ntpaudit as root"  # test_boot_chrony.py: where the helper is installed


def test_helper_without_chronyd_says_nothing(tmp_path: Path) -> None:
    """The client gets no answer, and the helper lives on for the time when chronyd runs again."""
    with helper(tmp_path / "chronyd.sock", tmp_path / "helper"):
        found = by_helper_of_this_process(tmp_path / "helper")
        assert isinstance(found, Unavailable)
        assert "chronyd did not reply" in found.reason
        assert found == by_helper_of_this_process(tmp_path / "helper")


def test_clients_in_a_loop_do_not_hide_the_claim(tmp_path: Path) -> None:
    """Another user fills the queue of the helper again and again, and reads no answer."""
    place = tmp_path / "helper"
    with chronyd() as daemon, helper(daemon.command_socket, place):
        ask = by_helper(daemon.pid, place)
        with flooded(place):
            found = [ask(True) for _ in range(10)]
        assert all(isinstance(one, Claim) for one in found), found


def test_many_clients_share_an_answer(tmp_path: Path) -> None:
    """The helper does not ask chronyd for each of them."""
    place, asked = tmp_path / "helper", 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as serving:
        serving.bind(str(tmp_path / "chronyd.sock"))
        serving.settimeout(0.05)
        with helper(tmp_path / "chronyd.sock", place):
            clients = [socket.socket(socket.AF_UNIX) for _ in range(100)]
            for client in clients:
                client.settimeout(30)
                client.connect(str(place))
            with suppress(TimeoutError):
                while True:
                    _, asking = serving.recvfrom(2048)
                    asked += 1
                    serving.sendto(bytes(104), asking)  # to N_SOURCES: 0
            answers = {client.recv(1 << 16) for client in clients}
            for client in clients:
                client.close()
    assert 2 <= asked < 2 * len(clients)
    assert {len(answer) for answer in answers} == {4 + 2 * (4 + 104)}


def test_silent_helper_is_not_blamed_on_chronyd(tmp_path: Path) -> None:
    """No program accepts at its socket; whether chronyd replies is not known then."""
    place = tmp_path / "helper"
    process = Process(os.getpid(), (), unit="chrony.service", uid=os.geteuid())
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen(0)
        found = chrony_client.claim(process, CommandSettings(0), True, str(place))
        assert found == chrony_client.claim(process, CommandSettings(0), True, str(place))  # its queue is full now
    assert isinstance(found, Unavailable)
    assert "ntpaudit-chrony.socket: no reply" in found.reason
    assert found.remedy == "systemctl status ntpaudit-chrony.service"


@pytest.mark.needs("root")
def test_silent_port_is_blamed_on_chronyd(tmp_path: Path) -> None:
    """Neither the helper nor chronyd itself replies."""
    port, place = reserved_port(), tmp_path / "helper"
    process = Process(os.getpid(), (), unit="chrony.service", uid=0)
    with socket.socket(socket.AF_UNIX) as listening, impostor(port) as asked_by_udp:
        listening.bind(str(place))
        listening.listen()
        found = chrony_client.claim(process, CommandSettings(port), True, str(place))
    assert isinstance(found, Unavailable)
    assert asked_by_udp
    assert found.remedy == "systemctl restart chrony.service"


def by_helper_of_this_process(place: Path) -> Claim | Unavailable:
    """Ask the helper, for a process that has no other way."""
    return chrony_client.claim(Process(os.getpid(), (), uid=os.geteuid()), CommandSettings(0), True, str(place))


def test_ended_chronyd_is_unavailable() -> None:
    """Killed between the list of processes and the question."""
    with chronyd() as daemon:
        os.kill(daemon.pid, signal.SIGKILL)
        until(lambda: Path(f"/proc/{daemon.pid}/stat").read_text().split()[2] == "Z")
        assert claim_of(daemon) == Unavailable("it has ended")


def test_stopped_chronyd_does_not_hold_up_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its sockets, and does not reply."""
    monkeypatch.setattr(chrony_client, "CLAIM_WITHIN_S", CLAIM_WITHIN_S)
    with chronyd() as daemon:
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            found = claim_of(daemon)
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
    assert isinstance(found, Unavailable)
    assert "no reply" in found.reason


@pytest.mark.needs("another-user")
def test_port_that_any_user_can_open_is_not_believed() -> None:
    """An impostor shares the port of a real chronyd, which sets SO_REUSEADDR: the kernel prefers the later socket."""
    with chronyd(extra="cmdport 20323\n") as daemon, impostor(20323, as_user=65534) as asked_of_it:
        process = _process(daemon)
        found = chrony_client.claim(process, CommandSettings(20323, "/"), True)
        assert isinstance(found, Unavailable)
        assert "any user can open it" in found.reason
        assert not asked_of_it


@pytest.mark.needs("another-user")
def test_socket_of_another_user_is_not_believed() -> None:
    """On a port that only root can open, because its socket was handed on to another user; the daemon has none."""
    port = reserved_port()
    with impostor(port, as_user=65534) as asked_of_it:
        found = chrony_client.claim(Process(os.getpid(), (), uid=0), CommandSettings(port, "/"), True)
        assert isinstance(found, Unavailable)
        assert "another user's program" in found.reason
        assert not asked_of_it


@pytest.mark.parametrize("way", ["helper", "unix"])
def test_claim_of_another_chronyd_is_not_believed(way: str, tmp_path: Path) -> None:
    """The helper and a configuration that cannot be read name the socket of the first chronyd; the second one has none.

    The first gives its own claim in the same way (near miss).
    """
    place = tmp_path / "helper"
    with chronyd() as first, chronyd(extra="bindcmdaddress /\n") as second, helper(first.command_socket, place):
        if way == "helper":
            found, own = by_helper(second.pid, place)(True), by_helper(first.pid, place)(True)
        else:
            settings = CommandSettings(0, str(first.command_socket))
            found, own = (chrony_client.claim(_process(one), settings, True, str(place)) for one in (second, first))
    assert isinstance(own, Claim)
    assert isinstance(found, Unavailable)
    assert f"another process replied (pid {first.pid})" in found.reason
    assert found.remedy == {
        "helper": "run ntpaudit as root",
        "unix": "give each chronyd a `bindcmdaddress` of its own",
    }.get(way)


@pytest.mark.needs("root")
def test_port_of_another_chronyd_is_not_believed() -> None:
    """Both are of root: only the sockets that each has open show whose port it is."""
    port = reserved_port()
    with chronyd(extra=f"cmdport {port}\n") as first, chronyd() as second:
        settings = CommandSettings(port, "/")
        pids = {first.pid, second.pid}
        found, own = (
            chrony_client.claim(_process(one)._replace(twins=tuple(pids - {one.pid})), settings, True)
            for one in (second, first)
        )
        daemons = with_claims(tuple(Daemon("chronyd", pid) for pid in sorted(pids)), with_sources=True)
    assert isinstance(own, Claim)
    assert isinstance(found, Unavailable)
    assert f"another process has UDP port {port}" in found.reason
    assert all(isinstance(one.claim, Claim) for one in daemons)  # type: ignore[union-attr]


@pytest.mark.needs("another-user")
def test_port_is_not_believed_where_it_may_be_that_of_another_chronyd() -> None:
    """Another user cannot see which sockets a process has open; that is no fault while only one chronyd runs."""
    port = reserved_port()
    with chronyd(extra=f"cmdport {port}\n") as daemon:
        process, settings = _process(daemon), CommandSettings(port, "/")
        os.seteuid(65534)
        try:
            alone = chrony_client.claim(process, settings, True)
            found = chrony_client.claim(process._replace(twins=(1,)), settings, True)
        finally:
            os.seteuid(0)
    assert isinstance(alone, Claim)
    assert isinstance(found, Unavailable)
    assert f"whether UDP port {port} belongs to it or to pid 1 cannot be seen" in found.reason


def test_missing_unix_socket_is_no_impostor(tmp_path: Path) -> None:
    """A chronyd that never made it: there is nothing to remove."""
    place = tmp_path / "chronyd.sock"
    process = Process(os.getpid(), (), uid=os.geteuid())
    found = chrony_client.claim(process, CommandSettings(0, str(place)), True, str(tmp_path / "helper"))
    assert isinstance(found, Unavailable)
    assert f"there is no socket {place}" in found.reason
    assert not (found.remedy or "").startswith("rm ")


def test_link_is_no_unix_socket(tmp_path: Path) -> None:
    """The user of chronyd could send the requests of root to another program's socket."""
    place = tmp_path / "chronyd.sock"
    place.symlink_to(tmp_path / "other.sock")
    process = Process(os.getpid(), (), uid=os.geteuid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.setblocking(False)
        found = chrony_client.claim(process, CommandSettings(0, str(place)), True, str(tmp_path / "helper"))
        with pytest.raises(BlockingIOError):
            other.recv(1)
    assert isinstance(found, Unavailable)
    assert f"there is no socket {place}" in found.reason


@pytest.mark.needs("another-user")
def test_unix_socket_of_another_user_is_not_believed(tmp_path: Path) -> None:
    """Where chronyd's socket should be there is one that another user made."""
    let_others_in(tmp_path)
    tmp_path.chmod(0o777)
    place = tmp_path / "chronyd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        os.seteuid(65534)
        try:
            listening.bind(str(place))
        finally:
            os.seteuid(0)
        found = chrony_client.claim(Process(os.getpid(), (), uid=0), CommandSettings(0, str(place)), True)
        assert isinstance(found, Unavailable)
        assert "another user made it" in found.reason


Reply = Callable[[bytes], list[bytes]]


@contextmanager
def impostor(port: int, reply: Reply = lambda _: [], *, as_user: int = 0) -> Iterator[list[bytes]]:
    """Answer chronyd's clients on a port, and yield the list of requests."""
    requests: list[bytes] = []
    os.seteuid(as_user) if port >= 1024 else None
    try:
        serving = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    finally:
        os.seteuid(0) if port >= 1024 else None
    with serving:
        serving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        serving.bind(("127.0.0.1", port))
        if as_user:
            os.fchown(serving.fileno(), as_user, as_user)
        serving.settimeout(0.05)
        is_over = threading.Event()

        def serve() -> None:
            while not is_over.is_set():
                try:
                    received, client = serving.recvfrom(2048)
                except TimeoutError:
                    continue
                requests.append(received)
                for one in reply(received):
                    serving.sendto(one, client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield requests
        finally:
            is_over.set()
            thread.join()


def tracking(received: bytes, **changed: int) -> bytes:
    """An answer to the question of tracking, with some parts of it changed."""
    head = {"version": 6, "kind": 2, "command": 33, "reply": 5, "status": 0, "sequence": 0} | changed
    version, kind, command, number, status, sequence = head.values()
    (asked,) = struct.unpack_from("!I", received, 8)
    head_octets = struct.pack("!4B6H3I", version, kind, 0, 0, command, number, status, 0, 0, 0, sequence ^ asked, 0, 0)
    return head_octets + bytes(TRACKING.layout.size)


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (lambda _: [], "no reply"),
        (lambda _: [b""], "0 octets"),
        (lambda received: [tracking(received)[:40]], "reply 5 with 40 octets"),
        (lambda received: [tracking(received, version=5)], "version 5"),
        (lambda received: [tracking(received, kind=1)], "type 1"),
        (lambda received: [tracking(received, command=34)], "command 34"),
        (lambda received: [tracking(received, reply=6)], "reply 6"),
        (lambda received: [tracking(received, status=2)], "no tracking data"),
        (lambda received: [tracking(received, sequence=1)] * 50, "no reply"),
        (lambda received: [received], "type 1"),
    ],
)
def test_malformed_reply_is_a_value(reply: Reply, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncated, of another version, to another question or to another request: no claim, and the way is named."""
    if reason == "no reply":
        monkeypatch.setattr(chrony_client, "CLAIM_WITHIN_S", CLAIM_WITHIN_S)
    port = reserved_port()
    with impostor(port, reply):
        found = chrony_client.claim(Process(os.getpid(), (), uid=0), CommandSettings(port, "/"), True)
    assert isinstance(found, Unavailable)
    assert f"UDP port {port}: " in found.reason
    assert reason in found.reason


numbers = st.integers(0, 2**32 - 1)
bodies = {
    TRACKING: st.tuples(
        st.sampled_from([b"\x7f\0\0\1", b"\x7f\x7f\1\1", b"GPS\0", b"MANU", b"\xff\xff\xff\xff", bytes(4)]),
        st.sampled_from([bytes(20), b"\x7f\0\0\1" + bytes(12) + b"\0\1\0\0", bytes(16) + b"\0\2\0\0", b"\xff" * 20]),
        *[st.integers(0, 2**16 - 1)] * 2,
        *[numbers] * 12,
    ),
    N_SOURCES: st.tuples(st.sampled_from([0, 1, 2, 2**32 - 1])),
    SOURCE_DATA: st.tuples(
        st.sampled_from([bytes(20), b"\x7f\0\0\1" + bytes(12) + b"\0\1\0\0", b"GPS\0" + bytes(16)]),
        st.integers(-(2**15), 2**15 - 1),
        *[st.integers(0, 2**16 - 1)] * 5,
        *[numbers] * 4,
    ),
    SOURCE_NAME: st.tuples(st.binary(max_size=256)),
    AUTH_DATA: st.tuples(st.integers(0, 2**16 - 1)),
}


@given(st.data())
def test_every_content_of_replies_is_a_claim(data: st.DataObject) -> None:
    """Whatever the numbers are, the claim has finite ones, and none that is not possible."""

    def ask(question: Question, _: bytes) -> Fields | None:
        if question is TRACKING or data.draw(st.booleans()):
            fields = question.layout.pack(*data.draw(bodies[question]))
            return question.layout.unpack(fields)
        return None

    found = read_claim(ask, True, 5, 10**18)
    for value in (found.offset_s, found.bound_s, found.updated_s, found.poll_s):
        assert value is None or abs(value) < 1e20
    assert found.bound_s is None or found.bound_s >= 0
    assert found.updated_s is None or found.updated_s >= 0
    assert found.leap in (None, 0, 1, 2, 3)
    assert found.is_synchronised or (found.offset_s, found.bound_s, found.updated_s) == (None, None, None)


@given(st.binary(max_size=400), st.sampled_from(QUESTIONS), st.booleans())
def test_random_octets_are_a_reply_or_malformed(octets: bytes, question: Question, has_head: bool) -> None:
    """Nothing but the one error of the module."""
    if has_head:
        octets = struct.pack("!4B3H", 6, 2, 0, 0, question.command, question.reply, 0) + octets
    try:
        fields = read_reply(octets, question)
    except MalformedReplyError:
        return
    assert fields is None or len(question.layout.pack(*fields)) == question.layout.size


@given(st.binary(max_size=400))
def test_random_octets_are_an_answer_of_the_helper_or_malformed(octets: bytes) -> None:
    """Nothing but the one error of the module."""
    with suppress(MalformedReplyError):
        read_service(octets)


def test_request_is_as_long_as_its_reply() -> None:
    """A shorter request gets no reply."""
    for question in QUESTIONS:
        assert len(request(question, 1, b"")) == 28 + question.layout.size


@pytest.mark.parametrize(
    ("bits", "value"),
    [
        (0, 0.0),
        (0xDF4E433D, -2.6484929094294785e-06),
        (0xE286DAF2, 8.037999577936716e-06),
        (0x0C8157A4, 16.16779327392578),
        (0x7EFFFFFF, (2**24 - 1) * 2.0**38),
        (0x7F000000, -(2.0**62)),
        (0x81000000, -(2.0**-65)),
        (0x7E000000, 0.0),
    ],
)
def test_number_of_chrony(bits: int, value: float) -> None:
    """The ones with digits are from a recorded reply, beside the output of chronyc."""
    assert read_float(bits) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", CommandSettings()),
        ("cmdport 0\n", CommandSettings(0)),
        ("CmdPort 11323\nbindcmdaddress 0.0.0.0\n", CommandSettings(11323, ipv4="0.0.0.0")),
        (
            "bindcmdaddress /run/site/chronyd.sock\nbindcmdaddress ::\n",
            CommandSettings(323, "/run/site/chronyd.sock", ipv6="::"),
        ),
        ("! cmdport 0\n# cmdport 0\ncmdport x\ncmdport\n", CommandSettings()),
    ],
)
def test_where_commands_are_taken(text: str, settings: CommandSettings, tmp_path: Path) -> None:
    """By the configuration, as chronyd reads it."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/chrony.conf").write_text(text)
    assert command_settings(Process(1, ("chronyd",)), Files(str(tmp_path))) == settings


def test_directives_of_the_command_line_replace_the_file(tmp_path: Path) -> None:
    """They are taken apart where they stand in memory."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/chrony.conf").write_text("cmdport 11323\n")
    words = ("chronyd", "-x", "server", "192.0.2.1", "cmdport", "0", "bindcmdaddress", "/")
    assert command_settings(Process(1, words), Files(str(tmp_path))) == CommandSettings(0, "/")

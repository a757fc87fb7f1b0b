"""The world the other tests stand on is itself as it claims to be."""

import http.client
import os
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import ntplib
import psutil
import pytest

from ntpaudit.demo.server import Behaviour, Header, NtpServer
from tests.waiting import WITHIN_S, until
from tests.world import packages, servers
from tests.world.rogue import BOGUS_FLOOD, FORGED_AHEAD_S, MISBEHAVIOURS, Datagram, RogueServer, late

S = 1 << 32
NONCE = 0x0123_4567_89AB_CDEF
REQUEST = b"\x23" + bytes(39) + NONCE.to_bytes(8)
CLOCK_S = 0.001
"""What two readings of one clock may differ by; beyond that an offset is wrong by half of the delay at most."""


def ask(server: NtpServer, replies: int, *requests: bytes) -> list[tuple[bytes, int]]:
    """Send requests at once, and collect `count` replies, each with the port it came from."""
    with socket.socket(socket.AF_INET6 if ":" in server.address else socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(WITHIN_S)
        for request in requests or (REQUEST,):
            asking.sendto(request, (server.address, server.port))
        received = [asking.recvfrom(4096) for _ in range(replies)]
        asking.settimeout(0.02)
        with pytest.raises(TimeoutError):
            asking.recvfrom(4096)
    return [(reply, source[1]) for reply, source in received]


def numbered_requests(count: int) -> list[bytes]:
    """Requests that are distinguished by their nonce."""
    return [REQUEST[:-8] + number.to_bytes(8) for number in range(1, count + 1)]


def exchange(address: str, port: int, within_s: float = 0.1) -> ntplib.NTPStats:
    """Ask the independent client until a reply took no longer than `within_s`: this machine may be busy."""
    client = ntplib.NTPClient()

    def look() -> ntplib.NTPStats | None:
        stats = client.request(address, version=4, port=port)
        return stats if stats.delay < within_s else None

    stats = until(look, "a quick reply")
    assert stats
    return stats


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", pytest.param("::1", marks=pytest.mark.needs("ipv6"))])
@pytest.mark.parametrize("offset_s", [0.0, 37.0, -0.25])
def test_served_clock_is_as_far_ahead_as_configured(address: str, offset_s: float) -> None:
    """An independent client finds the demo server's offset, on either family."""
    with NtpServer(Behaviour(offset_s=offset_s), address) as server:
        stats = exchange(server.address, server.port)
    assert stats.offset == pytest.approx(offset_s, abs=stats.delay / 2 + CLOCK_S)


def test_server_reports_the_configured_values() -> None:
    """Every dial of the header arrives, with spans rounded up."""
    dials = Behaviour(stratum=3, leap=1, root_delay_s=0.5, root_dispersion_s=1e-6, reference_id=b"GPS\0", precision=-18)
    with NtpServer(dials) as server:
        header = Header.decode(ask(server, 1)[0][0])
    assert (header.stratum, header.leap, header.reference_id, header.precision) == (3, 1, b"GPS\0", -18)
    assert (header.root_delay, header.root_dispersion) == (0x8000, 1)
    assert (header.version, header.mode, header.origin) == (4, 4, NONCE)
    assert header.reference <= header.receive <= header.transmit


def test_delay_of_either_way_is_seen_as_delay_and_asymmetry() -> None:
    """A client sees both delays as round trip, and half their difference as offset."""
    with NtpServer(Behaviour(request_delay_s=0.02, reply_delay_s=0.08)) as server:
        stats = exchange(server.address, server.port, within_s=0.13)
    assert stats.delay >= 0.1 - CLOCK_S
    assert stats.offset == pytest.approx(-0.03, abs=(stats.delay - 0.1) / 2 + CLOCK_S)


def test_delayed_requests_are_served_at_once() -> None:
    """A hundred clients that each wait 0.2 s wait together, not in a queue, and in the order they asked."""
    requests = numbered_requests(100)
    started_ns = time.monotonic_ns()
    with NtpServer(Behaviour(request_delay_s=0.1, reply_delay_s=0.1)) as server:
        replies = ask(server, 100, *requests)
    assert time.monotonic_ns() - started_ns < 100 * 0.2e9 / 2
    assert [Header.decode(reply).origin for reply, _ in replies] == list(range(1, 101))


@pytest.mark.parametrize("request_", [REQUEST[:47], b"\x24" + REQUEST[1:], b""], ids=["short", "mode 4", "empty"])
def test_what_is_no_request_is_not_answered(request_: bytes) -> None:
    """The server answers only whole packets of client mode, so that no two servers can talk for ever."""
    with NtpServer() as server:
        assert ask(server, 0, request_) == []


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "localhost"])
def test_only_loopback_is_served(address: str) -> None:
    """A simulated clock must never reach another host."""
    with pytest.raises(ValueError, match=address):
        NtpServer(address=address)


def test_subclass_may_answer_anything() -> None:
    """A reply of a subclass goes out as it is, with its delay, from the port it names."""
    with RogueServer(lambda _: [Datagram(b"later", 0.02), Datagram(b"other", from_another_port=True)]) as server:
        (first, first_port), (second, second_port) = ask(server, 2)
    assert (first, second) == (b"other", b"later")
    assert first_port != server.port == second_port


def header_is(claim: Callable[[Header], bool]) -> tuple[int, Callable[[list[bytes]], bool]]:
    """One reply of 48 octets whose header is as claimed."""
    return 1, lambda replies: len(replies[0]) == 48 and claim(Header.decode(replies[0]))


def kiss_is(code: bytes) -> tuple[int, Callable[[list[bytes]], bool]]:
    """One kiss-o'-death with the right origin."""
    return header_is(lambda h: (h.leap, h.stratum, h.reference_id, h.origin) == (3, 0, code, NONCE))


def octets_are(count: int) -> tuple[int, Callable[[list[bytes]], bool]]:
    """One reply of this many octets."""
    return 1, lambda replies: len(replies[0]) == count


def extension_is(length: int, present: int) -> tuple[int, Callable[[list[bytes]], bool]]:
    """One reply with an extension field that claims one length and has another."""
    return 1, lambda replies: len(replies[0]) == 48 + present and replies[0][50:52] == length.to_bytes(2)


def is_ahead(reply: bytes) -> bool:
    """Return whether a reply has the time of a forger."""
    return abs(Header.decode(reply).transmit / S - 2_208_988_800 - time.time() - FORGED_AHEAD_S) < 10


def is_true(reply: bytes) -> bool:
    """Whether a reply is the honest one."""
    header = Header.decode(reply)
    return len(reply) == 48 and (header.origin, header.stratum) == (NONCE, 1) and not is_ahead(reply)


def is_bogus(reply: bytes) -> bool:
    """Whether a reply has another origin, and the time of a forger."""
    return Header.decode(reply).origin not in (NONCE, 0) and is_ahead(reply)


CLAIMS: dict[str, tuple[int, Callable[[list[bytes]], bool]]] = {
    "silent": (0, lambda _: True),
    "empty": octets_are(0),
    "short": octets_are(20),
    "unaligned": octets_are(50),
    "too_long": extension_is(2048, 2048),
    "version_3": header_is(lambda h: h.version == 3),
    "version_7": header_is(lambda h: h.version == 7),
    "mode_3": header_is(lambda h: h.mode == 3),
    "mode_5": header_is(lambda h: h.mode == 5),
    "forged_port": (2, lambda replies: is_ahead(replies[0]) and is_true(replies[1])),
    "wrong_origin": (1, lambda replies: is_bogus(replies[0])),
    "zero_origin": header_is(lambda h: h.origin == 0),
    "bogus_flood": (BOGUS_FLOOD + 1, lambda replies: all(map(is_bogus, replies[:-1])) and is_true(replies[-1])),
    "bogus_only": (BOGUS_FLOOD, lambda replies: all(map(is_bogus, replies))),
    "duplicate": (2, lambda replies: replies[0] == replies[1] and is_true(replies[0])),
    "late": (0, lambda _: True),
    "zero_receive": header_is(lambda h: h.receive == 0 < h.transmit),
    "zero_transmit": header_is(lambda h: h.transmit == 0 < h.receive),
    "leap_unsync": header_is(lambda h: (h.leap, h.stratum) == (3, 1)),
    "stratum_16": header_is(lambda h: h.stratum == 16),
    "stratum_17_plus": header_is(lambda h: h.stratum >= 17),
    "root_distance_17s": header_is(lambda h: h.root_delay / 2 + h.root_dispersion == 17 << 16),
    "transmit_before_receive": header_is(lambda h: h.transmit < h.receive),
    "slow_server": header_is(lambda h: 5 <= (h.transmit - h.receive) / S < 6),
    "negative_delay": header_is(lambda h: 1 <= (h.transmit - h.receive) / S < 2),
    "reftime_future": header_is(lambda h: h.reference > h.transmit),
    "sync_loop": header_is(lambda h: (h.stratum, h.reference_id) == (2, b"\x7f\x00\x00\x01")),
    "root_distance_2s": header_is(lambda h: h.root_delay / 2 + h.root_dispersion == 2 << 16),
    "leap_61": header_is(lambda h: h.leap == 1),
    "leap_59": header_is(lambda h: h.leap == 2),
    "kod_rate": kiss_is(b"RATE"),
    "kod_rate_high_poll": header_is(lambda h: (h.stratum, h.reference_id, h.poll) == (0, b"RATE", 17)),
    "kod_deny": kiss_is(b"DENY"),
    "kod_rstr": kiss_is(b"RSTR"),
    "kod_unknown": kiss_is(b"XABC"),
    "kod_nonprintable": kiss_is(b"\x00\x01\x02\xff"),
    "kod_zero_times": header_is(lambda h: (h.stratum, h.receive, h.transmit, h.origin) == (0, 0, 0, NONCE)),
    "kod_bogus": (2, lambda r: Header.decode(r[0]).stratum == 0 and is_bogus(r[0]) and is_true(r[1])),
    "crypto_nak": (1, lambda replies: len(replies[0]) == 52 and replies[0].endswith(bytes(4))),
    "mac_tail": octets_are(48 + 20),
    "leftover": octets_are(48 + 8),
    "unknown_extension": extension_is(28, 28),
    "extension_truncated": extension_is(64, 28),
    "extension_unaligned": extension_is(30, 32),
    "extension_short": extension_is(16, 16),
    "extension_empty": extension_is(0, 28),
}


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_misbehaviour_is_what_its_name_says(name: str) -> None:
    """What arrives from a rogue server is what its name claims."""
    count, is_as_claimed = CLAIMS[name]
    with RogueServer(name) as server:
        replies = ask(server, count)
        assert server.requests == 1
    assert is_as_claimed([reply for reply, _ in replies])
    ports = [port == server.port for _, port in replies]
    assert ports == ([False, True] if name == "forged_port" else [True] * count)


def test_late_reply_does_arrive() -> None:
    """A late reply is an honest one after the chosen time."""
    started_ns = time.monotonic_ns()
    with RogueServer(late(0.1)) as server:
        assert is_true(ask(server, 1)[0][0])
    assert time.monotonic_ns() - started_ns >= 10**8


@pytest.mark.parametrize(
    ("address", "stratum"),
    [("127.0.0.1", 1), ("127.0.0.9", 7), pytest.param("::1", 2, marks=pytest.mark.needs("ipv6"))],
)
def test_chronyd_serves_the_clock_of_this_host(address: str, stratum: int) -> None:
    """A real chronyd answers on loopback, agrees with this host, and is gone afterwards."""
    with servers.chronyd(address=address, stratum=stratum) as server:
        stats = exchange(server.address, server.port)
    assert stats.offset == pytest.approx(0, abs=stats.delay / 2 + CLOCK_S)
    assert stats.stratum == stratum
    assert not psutil.pid_exists(server.pid)


def test_ntpd_serves_the_clock_of_this_host_and_cannot_set_it() -> None:
    """A real ntpd answers in its own network namespace, agrees with this host, and may not touch its clock."""
    asking = "from tests.test_world import exchange as ask; one = ask('127.0.0.1', 123); print(one.offset, one.delay)"
    with servers.ntpd() as server:
        answer = subprocess.check_output(
            server.command([sys.executable, "-c", asking]), cwd=packages.REPOSITORY, text=True
        )
        status = Path(f"/proc/{server.pid}/status").read_text()
        assert Path(f"/proc/{server.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    offset_s, delay_s = map(float, answer.split())
    assert offset_s == pytest.approx(0, abs=delay_s / 2 + CLOCK_S)
    capabilities = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("Cap")]
    assert len(capabilities) == 5
    assert not any(held >> 25 & 1 for held in capabilities), "CAP_SYS_TIME"


def test_influxd_keeps_what_is_written() -> None:
    """A real InfluxDB takes a point and gives it back."""
    with servers.influxd(database="world") as url:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=WITHIN_S)
        connection.request("POST", "/write?db=world", b"clock behind=0.25 1700000000000000000")
        written = connection.getresponse()
        written.read()
        connection.request("GET", "/query?db=world&q=SELECT+behind+FROM+clock")
        found = connection.getresponse().read()
        connection.close()
    assert written.status == http.HTTPStatus.NO_CONTENT
    assert b"0.25" in found


def test_saturated_cores_are_free_again_afterwards() -> None:
    """Two busy processes per core run inside the block, none after it."""
    before = len(psutil.Process().children())
    with servers.saturated_cores():
        assert len(psutil.Process().children()) == before + 2 * len(os.sched_getaffinity(0))
    assert len(psutil.Process().children()) == before


def test_server_that_does_not_start_is_an_error_with_its_log() -> None:
    """A real server that ends at once raises, with what it said."""
    with pytest.raises(servers.ServerFailedError, match="Invalid directive"), servers.chronyd(extra="nonsense"):
        pass


def test_package_that_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without apt-get the error is one line that names what is missing."""
    monkeypatch.setenv("NTPAUDIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(packages.PackageUnavailableError, match=r"^apt-get not found: [^\n]*$"):
        packages.fetch("chrony")

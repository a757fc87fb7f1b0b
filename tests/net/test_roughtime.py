"""Exchanges with Roughtime servers on loopback: a real one, and one that is wrong in any way."""

import secrets
import socket
import time
from collections.abc import Callable

import pytest

from ntpaudit.core import roughtime as rt
from ntpaudit.errors import AnchorError
from ntpaudit.net.roughtime import Exchange, exchange, is_signed
from tests.world.roughenough import roughenough
from tests.world.roughtime_server import changed, honest, new_signer, serving
from tests.world.servers import free_port

SIGNER = new_signer()
NONCE = rt.chained_nonce(b"blind")


def ask(address: str, timeout_s: float = 5.0, key: bytes = SIGNER.key) -> Exchange:
    """Query a server of the tests."""
    host, _, port = address.rpartition(":")
    return exchange(host, int(port), key, NONCE, timeout_s)


def refusal(address: str, timeout_s: float = 0.3, key: bytes = SIGNER.key) -> AnchorError:
    """Return why there is no valid reply."""
    with pytest.raises(AnchorError) as caught:
        ask(address, timeout_s, key)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.needs("roughenough")
def test_a_real_server() -> None:
    """It signs the time of this machine for our nonces, each of which is chained to the reply before it."""
    before, previous = int(time.time()), b""
    with roughenough() as server:
        times = []
        for _ in range(3):
            blind = secrets.token_bytes(32)
            got = exchange("127.0.0.1", server.port, server.key, rt.chained_nonce(blind, previous))
            assert rt.nonce_in(got.request) == rt.chained_nonce(blind, previous)
            assert rt.read_reply(got.reply, got.request, server.key, is_signed) == got.time
            previous = got.reply
            times.append(got.time)
        with pytest.raises(AnchorError, match=r"no reply in 0\.3 s; check address and key"):
            exchange("127.0.0.1", server.port, SIGNER.key, NONCE, 0.3)
    assert {one.version for one in times} == {1}
    assert all(one.earliest_s <= time.time() and before <= one.latest_s for one in times)
    assert rt.contradiction(times) is None


@pytest.mark.needs("roughenough")
def test_two_real_servers_of_which_one_is_wrong() -> None:
    """Their chained replies prove that one of them is."""
    with roughenough(ahead_s=3600) as wrong, roughenough() as other:
        first = exchange("127.0.0.1", wrong.port, wrong.key, NONCE)
        second = exchange("127.0.0.1", other.port, other.key, rt.chained_nonce(b"other", first.reply))
    assert rt.contradiction([first.time, second.time]) == (0, 1)


def test_an_honest_server() -> None:
    """One datagram is enough; the reply and the request can be checked later."""
    with serving(honest(SIGNER)) as (address, requests):
        got = ask(address)
        assert requests == [got.request]
    assert abs(got.time.midpoint_s - time.time()) <= 60


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        (lambda request: [b"garbage"], "it is cut, or no Roughtime packet"),
        (lambda request: [new_signer(2).reply(request)], "the server's long-term key did not sign its delegation"),
        (lambda request: [SIGNER.reply(rt.build_request(bytes(32), SIGNER.key))], "it replies to another request"),
        (lambda request: [changed(SIGNER.fields(request), SREP=None)], "it has no SREP"),
        (lambda request: [SIGNER.reply(request)[:-8]], "it is cut, or no Roughtime packet"),
    ],
)
def test_invalid_replies_are_not_believed(replies: Callable[[bytes], list[bytes]], reason: str) -> None:
    """The error has the reason of the last one, and the fix."""
    with serving(replies) as (address, _):
        error = refusal(address)
    assert error.reason == f"{address}: no valid reply: {reason} in 0.3 s"
    assert error.remedy.startswith("check address and key of the server in evidence.roughtime")


def test_a_valid_reply_after_invalid_ones() -> None:
    """As servers that test their clients send it (RFC 10049 §7)."""
    with serving(lambda request: [b"", b"?", new_signer(2).reply(request), SIGNER.reply(request)]) as (address, _):
        assert ask(address).time == rt.SignedTime(1_796_000_000, 3, 1)


def test_a_lost_reply_is_asked_for_again() -> None:
    """With the same request, so that either reply counts."""
    arrived: list[bytes] = []

    def replies(request: bytes) -> list[bytes]:
        arrived.append(request)
        return [SIGNER.reply(request)] if len(arrived) == 2 else []

    with serving(replies) as (address, _):
        assert ask(address).request == arrived[0] == arrived[1]


def test_no_server_is_there() -> None:
    """A closed port is not an answer: the server may be about to start."""
    error = refusal(f"127.0.0.1:{free_port('127.0.0.1', socket.SOCK_DGRAM)}")
    assert error.reason.endswith(": no reply in 0.3 s")


def test_a_name_that_is_none() -> None:
    """The fix names the key."""
    error = refusal("no-such-host.invalid:5319")
    assert error.reason.startswith("no-such-host.invalid: the name cannot be resolved")
    assert error.remedy == "check evidence.roughtime, and the resolver"


@pytest.mark.parametrize("key", [b"", b"\xff" * 32, bytes(33)])
def test_octets_that_are_no_key(key: bytes) -> None:
    """They signed nothing."""
    assert not is_signed(key, bytes(64), b"text")
    assert not is_signed(SIGNER.key, b"", b"text")

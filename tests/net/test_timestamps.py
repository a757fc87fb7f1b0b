"""Time stamps of `openssl ts` over HTTP: what is believed is what OpenSSL believes too; every failure has its fix."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given
from hypothesis import strategies as st

from ntpaudit.errors import AnchorError
from ntpaudit.net import timestamps
from tests.world.flaky import Answer, Fault, FlakyDatabase, Hang, Octets, Request, certificate
from tests.world.servers import free_port
from tests.world.time_stamps import POLICY, Authority, authority, openssl_verifies

pytestmark = pytest.mark.needs("openssl")

DATA = bytes(range(32))
REQUEST = timestamps.request_for(DATA)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority as it should be."""
    return authority(tmp_path_factory.mktemp("authority") / "good")


@pytest.fixture(scope="module")
def reply(good: Authority) -> bytes:
    """Its reply to our request."""
    return good.reply(REQUEST.as_bytes())


@pytest.fixture(scope="module")
def server() -> Iterator[FlakyDatabase]:
    """An HTTP server whose answers a test chooses."""
    with FlakyDatabase() as flaky:
        yield flaky


def verify(reply: bytes, roots: Path, data: bytes = DATA, nonce: int | None = None) -> timestamps.TimeStamp:
    """Verify with the certificates of a file."""
    return timestamps.verify(reply, data, timestamps.read_roots(roots.read_bytes(), str(roots)), nonce)


def refusal(reply: bytes, roots: Path, data: bytes = DATA, nonce: int | None = None) -> str:
    """Return why a reply is not believed, and the fix."""
    with pytest.raises(AnchorError) as caught:
        verify(reply, roots, data, nonce)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def answer(reply: bytes) -> Octets:
    """Return the HTTP answer with a reply."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/timestamp-reply\r\nContent-Length: {len(reply)}\r\n\r\n"
    return Octets(head.encode() + reply)


def test_a_time_stamp(good: Authority, server: FlakyDatabase) -> None:
    """Over HTTP: it is what was requested, it is of now, and anybody can verify it later, with OpenSSL too."""

    def choose(request: Request) -> Fault:
        return answer(good.reply(request.lines.encode(errors="surrogateescape")))

    server.requests.clear()
    server.choose = choose
    roots = timestamps.read_roots(good.roots.read_bytes(), str(good.roots))
    reply = timestamps.stamp(f"{server.url}/tsr?fast", DATA, roots)
    assert (server.requests[0].method, server.requests[0].target) == ("POST", "/tsr?fast")
    assert server.requests[0].headers["content-type"] == "application/timestamp-query"
    found = verify(reply, good.roots)
    assert (found.authority, found.policy) == ("CN=Test time stamps", POLICY)
    assert found.serial > 0x1000
    assert found.accuracy_s == pytest.approx(1.5001)
    assert found.latest_s == found.time_s + 1.5001
    assert abs(found.time_s - time.time()) < 60
    assert openssl_verifies(reply, DATA, good.roots)


def test_an_authority_below_another(tmp_path: Path) -> None:
    """The certificate between is in the reply, in an order that is not DER's."""
    below = authority(tmp_path / "below", has_intermediate=True)
    reply = below.reply(REQUEST.as_bytes())
    assert timestamps.in_der_order(reply) != reply
    assert timestamps.in_der_order(timestamps.in_der_order(reply)) == timestamps.in_der_order(reply)
    assert verify(reply, below.roots).authority == "CN=Test time stamps"
    assert openssl_verifies(reply, DATA, below.roots)


def test_an_accuracy_that_is_not_stated(tmp_path: Path) -> None:
    """Then the time is as exact as it is written."""
    vague = authority(tmp_path / "vague", accuracy="")
    found = verify(vague.reply(REQUEST.as_bytes()), vague.roots)
    assert found.accuracy_s is None
    assert found.latest_s == found.time_s + 1


def test_an_accuracy_that_says_nothing(tmp_path: Path) -> None:
    """More than a day is no time stamp for a day's rows."""
    useless = authority(tmp_path / "useless", accuracy="accuracy = secs:86401")
    said = refusal(useless.reply(REQUEST.as_bytes()), useless.roots)
    assert said == "the time stamp is of any time within 86401 s; choose another authority in evidence.tsa"


@pytest.mark.needs("libfaketime")
def test_a_certificate_that_has_expired_since(tmp_path: Path) -> None:
    """It was valid when it signed."""
    old = authority(tmp_path / "old", days=(-3, -2))
    found = verify(old.reply(REQUEST.as_bytes(), "-60h"), old.roots)
    assert time.time() - 61 * 3600 < found.time_s < time.time() - 59 * 3600


@pytest.mark.parametrize(
    ("days", "reason"), [((-3, -2), "certificate has expired"), ((2, 3), "certificate is not yet valid")]
)
def test_a_certificate_that_is_not_valid(days: tuple[int, int], reason: str, tmp_path: Path) -> None:
    """At the time of its time stamp."""
    invalid = authority(tmp_path / "invalid", days=days)
    reply = invalid.reply(REQUEST.as_bytes())
    said = refusal(reply, invalid.roots)
    assert said.startswith(f"the signer's certificate is not valid at the time of the time stamp: {reason}")
    assert said.endswith("; ask the authority to renew it")
    assert not openssl_verifies(reply, DATA, invalid.roots)


def test_a_certificate_that_is_for_something_else(good: Authority, reply: bytes, tmp_path: Path) -> None:
    """A web server's does not sign time stamps; one that may does, with the same statement."""
    web = authority(tmp_path / "web", usage=[ExtendedKeyUsageOID.SERVER_AUTH])
    assert "unsuitable certificate purpose" in refusal(web.signed(reply), web.roots)
    other = authority(tmp_path / "other")
    assert verify(other.signed(reply), other.roots) == verify(reply, good.roots)


def test_a_root_that_is_not_named(good: Authority, reply: bytes, tmp_path: Path) -> None:
    """The fix names the setting; a file may name several."""
    foreign = authority(tmp_path / "foreign")
    assert refusal(reply, foreign.roots).endswith("; name the authority's root certificate in evidence.tsa_roots")
    both = tmp_path / "both.pem"
    both.write_bytes(foreign.roots.read_bytes() + good.roots.read_bytes())
    assert verify(reply, both) == verify(reply, good.roots)


def test_a_reply_to_another_request(good: Authority, reply: bytes) -> None:
    """Its nonce is another; later, without the request, it is as good as any."""
    assert verify(reply, good.roots, nonce=REQUEST.nonce) == verify(reply, good.roots)
    assert REQUEST.nonce is not None
    assert refusal(reply, good.roots, nonce=REQUEST.nonce + 1).startswith("the reply is to another request; retry")


def test_a_time_stamp_of_other_data(good: Authority, reply: bytes) -> None:
    """It proves nothing about these."""
    assert refusal(reply, good.roots, b"other").startswith("the time stamp is of other data; check")


def test_an_authority_that_refuses(tmp_path: Path) -> None:
    """Its reason is in the error."""
    strict = authority(tmp_path / "strict", digests="sha512")
    assert refusal(strict.reply(REQUEST.as_bytes()), strict.roots) == (
        "the authority did not grant a time stamp: rejected, Message digest algorithm is not supported.; "
        "ask the authority whether it accepts SHA-256 and your address"
    )


def test_a_file_without_certificates() -> None:
    """The fix names the setting."""
    with pytest.raises(AnchorError, match=r"x\.pem: no certificate can be read; name a PEM file"):
        timestamps.read_roots(b"garbage", "x.pem")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (answer(b"garbage"), "this is no time-stamp reply of RFC 3161; check evidence.tsa"),
        (answer(b""), "this is no time-stamp reply of RFC 3161; check evidence.tsa"),
        (answer(b"\0" * 99_000), "this is no time-stamp reply of RFC 3161; check evidence.tsa"),
        (Answer(404, "<html><title>Nothing here</title>"), "replies 404: a web page, 'Nothing here'; check the URL in"),
        (Answer(500), "replies 500: Said; check the URL in evidence.tsa"),
        (Answer(302, headers=(("Location", "http://elsewhere/"),)), "replies 302 to http://elsewhere/; check the URL"),
        (Octets(b"HTTP/1.1 200 OK\r\nContent-Le"), "no reply in HTTP: IncompleteRead"),
        (Octets(b"not HTTP\r\n\r\n"), "no reply in HTTP: BadStatusLine not HTTP; check evidence.tsa"),
        (Octets(b""), "no connection: "),
        (Hang(), "no reply in 0.3 s; check evidence.tsa, and the network path to it"),
        (Octets(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 99, pause_s=0.02), "no reply in 0.3 s; check evidence.tsa"),
        (Octets(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 999, pause_s=0.002), "no reply in 0.3 s; check evidence.tsa"),
    ],
)
def test_what_servers_do(fault: Fault, said: str, server: FlakyDatabase, good: Authority) -> None:
    """Each failure is one line with the URL and the fix, in time."""
    server.choose = lambda request: fault
    roots = timestamps.read_roots(good.roots.read_bytes(), "")
    with pytest.raises(AnchorError) as caught:
        timestamps.stamp(server.url, DATA, roots, timeout_s=0.3)
    assert str(caught.value).startswith(f"{server.url}: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:{port}/", "no connection: Connection refused; check evidence.tsa"),
        ("http://no-such-host.invalid/", "the server's name is not known; check evidence.tsa"),
        ("http://127.0.0.1:99999/", "no reply in HTTP: "),
    ],
)
def test_no_server_is_there(url: str, said: str, good: Authority) -> None:
    """Each says what to check."""
    roots = timestamps.read_roots(good.roots.read_bytes(), "")
    with pytest.raises(AnchorError) as caught:
        timestamps.stamp(url.format(port=free_port("127.0.0.1", socket.SOCK_STREAM)), DATA, roots, timeout_s=1.0)
    assert said in str(caught.value)


def test_tls_that_is_not_trusted(good: Authority) -> None:
    """The fix is to do without: a time stamp is signed."""
    with certificate() as (tls, _), FlakyDatabase(tls=tls) as server, pytest.raises(AnchorError) as caught:
        timestamps.stamp(server.url, DATA, timestamps.read_roots(good.roots.read_bytes(), ""), timeout_s=1.0)
    assert caught.value.reason.startswith(f"{server.url}: TLS failed: ")
    assert caught.value.remedy == "check evidence.tsa; http:// is enough, because the time stamp is signed"


@example(at=0, by=1, new=b"")
@given(at=st.integers(0, 1200), by=st.integers(0, 40), new=st.binary(max_size=40))
def test_a_changed_reply_is_refused_or_says_the_same(
    at: int, by: int, new: bytes, reply: bytes, good: Authority
) -> None:
    """Some octets are not signed, and mean nothing; all others make it invalid, never an error of another kind."""
    changed = reply[:at] + new + reply[at + by :]
    with suppress(AnchorError):
        assert verify(changed, good.roots) == verify(reply, good.roots)


@given(octets=st.binary(max_size=60))
def test_any_octets_are_refused(octets: bytes, good: Authority) -> None:
    """And sorting certificates that are not there changes nothing."""
    assert timestamps.in_der_order(octets) == octets or octets[:1] == b"\x30"
    refusal(octets, good.roots)

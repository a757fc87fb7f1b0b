"""Roughtime: the draft's examples, what a reply must have, and that nothing else is believed or makes an error."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ntpaudit.core import roughtime as rt
from ntpaudit.net.roughtime import is_signed
from tests.core.roughtime_vectors import REPORT
from tests.world.roughtime_server import changed, new_signer

SIGNER = new_signer()
REQUEST = rt.build_request(rt.chained_nonce(b"blind"), SIGNER.key)
REPLY = SIGNER.reply(REQUEST)
OTHERS = [rt.build_request(bytes([number]) * 32, SIGNER.key) for number in range(12)]
BATCHED = SIGNER.reply(REQUEST, OTHERS, 5)


def read(reply: bytes, request: bytes = REQUEST, key: bytes = SIGNER.key) -> rt.SignedTime | rt.InvalidReply:
    """Read a reply of this module's server."""
    return rt.read_reply(reply, request, key, is_signed)


def why(reply: bytes) -> str:
    """Return why a reply is invalid."""
    found = read(reply)
    assert isinstance(found, rt.InvalidReply), found
    return found.reason


def test_the_report_of_the_draft() -> None:
    """Each reply is valid, each nonce is chained to the reply before it, and the first contradicts the others."""
    times, previous = [], b""
    for exchange in REPORT:
        found = rt.read_reply(exchange.reply, exchange.request, exchange.key, is_signed)
        assert isinstance(found, rt.SignedTime)
        if exchange.rand is not None:
            assert rt.nonce_in(exchange.request) == rt.chained_nonce(exchange.rand, previous)
        times.append(found)
        previous = exchange.reply
    assert [(time.midpoint_s, time.radius_s) for time in times] == [(1773685571, 3), (1773599171, 3), (1773599171, 3)]
    assert rt.contradiction(times) == (0, 1)
    assert rt.contradiction(times[1:]) is None


def test_a_request_is_that_of_the_draft() -> None:
    """But for the number of the drafts, which is offered too."""
    key, request = REPORT[0].key, REPORT[0].request
    ours = rt.build_request(rt.nonce_in(request) or b"", key)
    assert len(ours) == len(request) == 12 + 1024
    fields = rt.decode(ours[12:])
    assert fields[rt.VER] == struct.pack("<II", 1, 0x8000000C)
    assert {tag: fields[tag] for tag in (rt.SRV, rt.NONC, rt.TYPE)} == {
        tag: rt.decode(request[12:])[tag] for tag in (rt.SRV, rt.NONC, rt.TYPE)
    }


def test_a_nonce_is_that_of_the_rfc() -> None:
    """SHA-512 cut to 32 octets, of the whole reply and then the blind; the blind binds to the data."""
    assert rt.digest(b"abc").hex().startswith("ddaf35a193617aba")
    assert rt.chained_nonce(b"rand", b"reply") == rt.digest(b"replyrand")
    assert rt.blind_for(b"data", b"salt") == rt.digest(b"datasalt")


@pytest.mark.parametrize("reply", [REPLY, BATCHED])
def test_a_valid_reply(reply: bytes) -> None:
    """Alone and signed together with others."""
    assert read(reply) == rt.SignedTime(1_796_000_000, 3, 1)


@pytest.mark.parametrize("version", rt.VERSIONS)
@pytest.mark.parametrize("spelling", [0, 1])
def test_both_versions_and_both_spellings(version: int, spelling: int) -> None:
    """Servers of the drafts and of the RFC."""
    assert isinstance(read(SIGNER._replace(version=version, spelling=spelling).reply(REQUEST)), rt.SignedTime)


def test_fields_that_are_unknown_are_ignored() -> None:
    """As the RFC asks for (§7)."""
    assert isinstance(read(changed(SIGNER.fields(REQUEST), NEWS=b"1234", ZZZZ=bytes(8))), rt.SignedTime)


@pytest.mark.parametrize("tag", ["SIG", "NONC", "TYPE", "PATH", "SREP", "CERT", "INDX"])
def test_a_field_that_is_missing(tag: str) -> None:
    """It is named."""
    assert why(changed(SIGNER.fields(REQUEST), **{tag: None})) == f"it has no {tag}"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"", "it is cut, or no Roughtime packet"),
        (REPLY[:-4], "it is cut, or no Roughtime packet"),
        (rt.pack(b""), "it is cut, or no Roughtime message"),
        (SIGNER.reply(OTHERS[0]), "it replies to another request"),
        (changed(SIGNER.fields(REQUEST), TYPE=bytes(4)), "its type is not that of a reply"),
        (changed(SIGNER.fields(REQUEST), SIG=bytes(60)), "its SIG does not have 64 octets"),
        (changed(SIGNER.fields(REQUEST), SIG=bytes(64)), "the delegated key did not sign it"),
        (new_signer(2).reply(REQUEST), "the server's long-term key did not sign its delegation"),
        (SIGNER._replace(valid_until_s=1_795_999_999).reply(REQUEST), "its time is outside the time of its delegation"),
        (SIGNER._replace(valid_from_s=1_796_000_001).reply(REQUEST), "its time is outside the time of its delegation"),
        (SIGNER._replace(radius_s=0).reply(REQUEST), "its time is out of range"),
        (SIGNER._replace(midpoint_s=2**64 - 1, valid_until_s=2**64 - 1).reply(REQUEST), "its time is out of range"),
        (SIGNER._replace(version=2).reply(REQUEST), "it is of version 0x2, which was not requested"),
        (SIGNER._replace(versions=(2,)).reply(REQUEST), "it is of version 0x1, which was not requested"),
        (changed(SIGNER.fields(REQUEST, OTHERS, 5), PATH=b""), "its index is beyond its path"),
        (changed(SIGNER.fields(REQUEST), PATH=bytes(16)), "its path has no valid length"),
        (changed(SIGNER.fields(REQUEST), PATH=bytes(33 * 32)), "its path has no valid length"),
        (changed(SIGNER.fields(REQUEST), PATH=bytes(32)), "its path does not lead from the request to the signed root"),
    ],
)
def test_an_invalid_reply(reply: bytes, reason: str) -> None:
    """Each has its reason."""
    assert why(reply) == reason


def test_the_first_and_the_last_second_of_a_delegation_count() -> None:
    """MINT and MAXT are part of it (§5.2.6)."""
    exact = SIGNER._replace(valid_from_s=1_796_000_000, valid_until_s=1_796_000_000)
    assert isinstance(read(exact.reply(REQUEST)), rt.SignedTime)


def test_a_reply_is_of_one_request() -> None:
    """The same nonce in another packet is not what was signed."""
    fields = {**rt.decode(REQUEST[12:]), rt.ZZZZ: bytes(904)}
    found = read(REPLY, rt.pack(rt.encode(fields)))
    assert found == rt.InvalidReply("its path does not lead from the request to the signed root")


def test_times_that_meet_do_not_contradict() -> None:
    """Only an earlier reply that is certainly later than a later one does."""
    first = rt.SignedTime(1000, 3, 1)
    assert rt.contradiction([first, rt.SignedTime(994, 3, 1)]) is None
    assert rt.contradiction([first, first, rt.SignedTime(993, 3, 1)]) == (0, 2)


@given(at=st.integers(0, len(BATCHED) - 1), by=st.integers(1, 255))
def test_no_octet_can_be_changed(at: int, by: int) -> None:
    """A reply is signed as a whole, or compared with the request."""
    changed = bytearray(BATCHED)
    changed[at] ^= by
    assert isinstance(read(bytes(changed)), rt.InvalidReply)


@given(data=st.data())
def test_parts_lost_or_replaced_make_it_invalid(data: st.DataObject) -> None:
    """Never an error."""
    begin = data.draw(st.integers(0, len(BATCHED)))
    end = data.draw(st.integers(begin, min(len(BATCHED), begin + 80)))
    new = data.draw(st.binary(max_size=80))
    reply = BATCHED[:begin] + new + BATCHED[end:]
    length = struct.pack("<I", len(reply) - 12)
    for one in (reply, reply[:8] + length + reply[12:]):
        assert one == BATCHED or isinstance(read(one), rt.InvalidReply)


@example(message=struct.pack("<I", 2**32 - 1))
@example(message=struct.pack("<III", 2, 4, 0) + bytes(8))
@given(message=st.binary(max_size=120))
def test_any_octets_are_invalid(message: bytes) -> None:
    """As a packet and as a message."""
    assert isinstance(read(message), rt.InvalidReply)
    assert isinstance(read(rt.pack(message)), rt.InvalidReply)
    assert rt.nonce_in(message) is None


@given(
    fields=st.dictionaries(
        st.binary(min_size=4, max_size=4), st.integers(0, 9).map(lambda count: bytes(4 * count)), min_size=1, max_size=9
    )
)
def test_messages_are_read_as_they_were_written(fields: dict[bytes, bytes]) -> None:
    """Whatever their tags."""
    assert rt.decode(rt.encode(fields)) == fields

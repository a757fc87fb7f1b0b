"""Requests that give nothing away, and replies that are read or refused."""

import struct
from itertools import combinations
from typing import Any

import ntplib
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ntpaudit.core.ntp.packet import Reply, UnusableReply, build_request, kiss_code, read_reply, tail_fault
from tests.core.worlds import ERA_1, NONCE, NOON, US, S, extension, packet, wire

U64 = st.integers(0, 2**64 - 1)
REASONS = {
    "malformed",
    "crypto-nak",
    "version",
    "mode",
    "wrong-source",
    "zero-origin",
    "bogus",
    "zero-ts",
    "unsync",
    "root-distance-invalid",
}
CRYPTO_NAK = bytes(4)
MD5_TAIL, SHA1_TAIL = b"\0\0\0\1" + b"\xaa" * 16, b"\0\0\0\1" + b"\xbb" * 20

# --- requests -----------------------------------------------------------------------------------------------------


def test_request_is_exactly_this() -> None:
    """A request says version 4, mode 3, precision 32, and else nothing but the nonce, as chronyd's does (Q1, Q4)."""
    nonce = 0xDEAD_BEEF_0BAD_F00D
    assert build_request(nonce) == b"\x23\0\0\x20" + bytes(36) + bytes.fromhex("deadbeef0badf00d")


@given(U64)
@settings(max_examples=100, deadline=None)
def test_request_carries_the_nonce_and_nothing_else(nonce: int) -> None:
    """Of any two requests only the last eight octets differ, and they are the nonce (Q1, Q2)."""
    request = build_request(nonce)
    assert len(request) == 48
    assert request[:40] == b"\x23\0\0\x20" + bytes(36)
    assert int.from_bytes(request[40:], "big") == nonce


# --- good replies -------------------------------------------------------------------------------------------------


def test_a_good_reply_is_read() -> None:
    """Every field of a good reply comes out as it went in (W1)."""
    assert read_reply(packet(), NONCE) == Reply(
        leap=0,
        stratum=2,
        poll=6,
        precision=-20,
        root_delay=0x0200,
        root_dispersion=0x0100,
        reference_id=b"\xc0\x00\x02\x01",
        reference=wire(NOON - 60 * S),
        received=wire(NOON),
        transmitted=wire(NOON + 20 * US),
        warnings=(),
    )


def test_a_captured_reply_is_read() -> None:
    """A packet captured from a real server reads as ntpd-rs says it does (its test_captured_server)."""
    captured = bytes.fromhex(
        "240206e90000023600 0003b7c035676c e5f661fd6f165f03 e5f663a87619ef40 e5f663a8798c6581 e5f663a8798eae2b"
    )
    assert read_reply(captured, 0xE5F6_63A8_7619_EF40) == Reply(
        leap=0,
        stratum=2,
        poll=6,
        precision=-23,
        root_delay=566,
        root_dispersion=951,
        reference_id=bytes((192, 53, 103, 108)),
        reference=0xE5F6_61FD_6F16_5F03,
        received=0xE5F6_63A8_798C_6581,
        transmitted=0xE5F6_63A8_798E_AE2B,
    )


@given(
    leap=st.integers(0, 2),
    stratum=st.integers(1, 15),
    poll=st.integers(0, 127),
    precision=st.integers(-128, 127),
    root_delay=st.integers(0, 15 << 16),
    root_dispersion=st.integers(0, 8 << 16),
    reference_id=st.binary(min_size=4, max_size=4),
    times=st.tuples(U64, U64.filter(bool), U64.filter(bool), U64.filter(bool)),
)
@settings(max_examples=300, deadline=None)
def test_fields_agree_with_ntplib(times: tuple[int, int, int, int], reference_id: bytes, **fields: Any) -> None:
    """Whatever a sound reply says, each field is what ntplib reads in the same octets (W1)."""
    reference, origin, received, transmitted = times
    octets = packet(
        reference_id=reference_id, reference=reference, origin=origin, received=received, transmitted=transmitted,
        **fields,
    )  # fmt: skip
    ours = read_reply(octets, origin)
    theirs = ntplib.NTPPacket()
    theirs.from_data(octets)
    assert isinstance(ours, Reply)
    assert (ours.leap, ours.stratum, ours.poll, ours.precision) == (
        theirs.leap,
        theirs.stratum,
        theirs.poll,
        theirs.precision,
    )
    assert (ours.root_delay / 65536, ours.root_dispersion / 65536) == (theirs.root_delay, theirs.root_dispersion)
    assert int.from_bytes(ours.reference_id, "big") == theirs.ref_id
    for exact, rounded in (
        (ours.reference, theirs.ref_timestamp),
        (ours.received, theirs.recv_timestamp),
        (ours.transmitted, theirs.tx_timestamp),
    ):
        assert exact / 2**32 == pytest.approx(rounded, rel=0, abs=1e-6)
    assert (ours.reference, ours.received, ours.transmitted) == (reference, received, transmitted)


# --- V: every check has its own code ------------------------------------------------------------------------------

VALIDATION: list[tuple[str, dict[str, Any], str]] = [
    ("V1 extension field cut short", {"tail": extension(28, claimed=32)}, "malformed"),
    ("V1 length not a multiple of 4", {"tail": b"\0"}, "malformed"),
    ("V2 version 1", {"version": 1}, "version"),
    ("V2 version 3", {"version": 3}, "version"),
    ("V2 version 5", {"version": 5}, "version"),
    ("V3 reserved", {"mode": 0}, "mode"),
    ("V3 symmetric active", {"mode": 1}, "mode"),
    ("V3 symmetric passive", {"mode": 2}, "mode"),
    ("V3 client, our own packet come back", {"mode": 3}, "mode"),
    ("V3 broadcast", {"mode": 5}, "mode"),
    ("V3 control", {"mode": 6}, "mode"),
    ("V3 private", {"mode": 7}, "mode"),
    ("V5 origin of zero, CVE-2015-8138", {"origin": 0}, "zero-origin"),
    ("V5 lowest bit of the origin", {"origin": NONCE ^ 1}, "bogus"),
    ("V5 highest bit of the origin", {"origin": NONCE ^ 1 << 63}, "bogus"),
    ("V9 no receive time", {"received": 0}, "zero-ts"),
    ("V9 no transmit time", {"transmitted": 0}, "zero-ts"),
    ("V10 leap 3", {"leap": 3}, "unsync"),
    ("V10 stratum 16", {"stratum": 16}, "unsync"),
    ("V10 stratum 17", {"stratum": 17}, "unsync"),
    ("V10 stratum 255", {"stratum": 255}, "unsync"),
    ("V10 stratum 0 without a kiss code", {"stratum": 0, "reference_id": bytes(4)}, "unsync"),
    ("V10 chronyd without a source", {"leap": 3, "stratum": 0, "reference_id": bytes(4)}, "unsync"),
    ("V11 root dispersion 16 s", {"root_delay": 0, "root_dispersion": 16 << 16}, "root-distance-invalid"),
    ("V11 root delay 32 s", {"root_delay": 32 << 16, "root_dispersion": 0}, "root-distance-invalid"),
    ("V11 both", {"root_delay": 16 << 16, "root_dispersion": 8 << 16}, "root-distance-invalid"),
    ("V11 all ones", {"root_delay": 2**32 - 1, "root_dispersion": 2**32 - 1}, "root-distance-invalid"),
]


@pytest.mark.parametrize(("changes", "reason"), [row[1:] for row in VALIDATION], ids=[row[0] for row in VALIDATION])
def test_each_fault_has_its_code(changes: dict[str, Any], reason: str) -> None:
    """One fault in a good reply gives that fault's code; it is ours while it carries our nonce (V1 to V11)."""
    assert read_reply(packet(**changes), NONCE) == UnusableReply(reason, ours="origin" not in changes)


@pytest.mark.parametrize("length", range(48))
def test_a_packet_shorter_than_a_header_is_malformed(length: int) -> None:
    """Less than 48 octets is malformed and has no nonce (V1, W5)."""
    assert read_reply(packet()[:length], NONCE) == UnusableReply("malformed", ours=False)


def test_another_sender_is_not_our_server() -> None:
    """A perfect reply from another address or port is refused and is not ours, nor is a kiss (V4)."""
    assert read_reply(packet(), NONCE, from_peer=False) == UnusableReply("wrong-source", ours=False)
    assert read_reply(packet(stratum=0), NONCE, from_peer=False) == UnusableReply("wrong-source", ours=False)


def test_a_nonce_of_zero_matches_nothing() -> None:
    """Even where we had asked with a nonce of zero, an origin of zero would not be ours (V5)."""
    assert read_reply(packet(origin=0), 0) == UnusableReply("zero-origin", ours=False)


ORDER: list[tuple[str, dict[str, Any]]] = [
    ("malformed", {"tail": b"\0\0\0\1"}),
    ("version", {"version": 3}),
    ("mode", {"mode": 5}),
    ("wrong-source", {"from_peer": False}),
    ("bogus", {"origin": NONCE + 1}),
    ("kod:RATE", {"stratum": 0, "reference_id": b"RATE"}),
    ("zero-ts", {"transmitted": 0}),
    ("unsync", {"leap": 3}),
    ("root-distance-invalid", {"root_dispersion": 16 << 16}),
]


@pytest.mark.parametrize(("first", "second"), list(combinations(ORDER, 2)), ids=lambda row: row[0])
def test_the_first_fault_names_the_reason(
    first: tuple[str, dict[str, Any]], second: tuple[str, dict[str, Any]]
) -> None:
    """Of two faults the one that stands first in docs/requirements.md gives the code (V1 to V11, K1)."""
    changes = second[1] | first[1]
    from_peer = changes.pop("from_peer", True)
    said = read_reply(packet(**changes), NONCE, from_peer=from_peer)
    assert isinstance(said, UnusableReply)
    assert said.reason == first[0]


@pytest.mark.parametrize(
    ("root_delay", "root_dispersion"),
    [(0, (16 << 16) - 1), ((32 << 16) - 1, 0), ((16 << 16) + 1, (8 << 16) - 1), (3, (16 << 16) - 2)],
)
def test_a_root_distance_just_below_16_s_is_read(root_delay: int, root_dispersion: int) -> None:
    """Half the root delay and the root dispersion may come to anything below 16 s (V11)."""
    said = read_reply(packet(root_delay=root_delay, root_dispersion=root_dispersion), NONCE)
    assert isinstance(said, Reply)


@pytest.mark.parametrize("stratum", range(1, 16))
@pytest.mark.parametrize("leap", [0, 1, 2])
def test_leap_0_is_the_normal_value(leap: int, stratum: int) -> None:
    """Leap 0, 1 and 2 are fine at every stratum from 1 to 15; RFC 4330's check 4 read literally is a trap (V18)."""
    said = read_reply(packet(leap=leap, stratum=stratum), NONCE)
    assert isinstance(said, Reply)
    assert (said.leap, said.stratum) == (leap, stratum)


@pytest.mark.parametrize(
    ("reference", "transmitted", "warns"),
    [
        (wire(NOON), wire(NOON), False),
        (wire(NOON) + 1, wire(NOON), True),
        (wire(NOON) - 1, wire(NOON), False),
        (wire(NOON + 3600 * S), wire(NOON), True),
        ((wire(NOON) + 2**63 - 1) % 2**64, wire(NOON), True),  # 68 years: any later is earlier
        ((wire(NOON) + 2**63) % 2**64, wire(NOON), False),
        (0, wire(NOON), False),  # never set: it says nothing
        (wire(ERA_1 - S), wire(ERA_1 + S), False),  # the new era is not before the old one
        (wire(ERA_1 + S), wire(ERA_1 - S), True),
    ],
)
def test_a_reference_time_in_the_future_gives_a_warning(reference: int, transmitted: int, warns: bool) -> None:
    """A server set after its reply gives a warning and is not rejected, in any era (V15)."""
    said = read_reply(packet(reference=reference, transmitted=transmitted), NONCE)
    assert isinstance(said, Reply)
    assert said.warnings == (("reftime-future",) if warns else ())


def test_a_server_that_follows_this_host_gives_a_warning() -> None:
    """A reference id that is one of ours is a loop from stratum 2 on; at stratum 1 it names a kind of clock (V16)."""
    ours = frozenset((b"\xc0\x00\x02\x09", b"\xd4\x1d\x8c\xd9"))
    for reference_id in ours:
        looped = read_reply(packet(reference_id=reference_id), NONCE, own_ids=ours)
        assert isinstance(looped, Reply)
        assert looped.warnings == ("sync-loop",)
        at_stratum_1 = read_reply(packet(reference_id=reference_id, stratum=1), NONCE, own_ids=ours)
        assert isinstance(at_stratum_1, Reply)
        assert at_stratum_1.warnings == ()
    other = read_reply(packet(), NONCE, own_ids=ours)
    assert isinstance(other, Reply)
    assert other.warnings == ()


def test_both_warnings_are_given() -> None:
    """A reply can deserve two warnings, in their order (V15, V16)."""
    octets = packet(reference=wire(NOON + S))
    said = read_reply(octets, NONCE, own_ids=frozenset((b"\xc0\x00\x02\x01",)))
    assert isinstance(said, Reply)
    assert said.warnings == ("reftime-future", "sync-loop")


# --- K: kiss-o'-death ---------------------------------------------------------------------------------------------

CODES = [
    "ACST",
    "AUTH",
    "AUTO",
    "BCST",
    "CRYP",
    "DENY",
    "DROP",
    "RSTR",
    "INIT",
    "MCST",
    "NKEY",
    "RATE",
    "RMOT",
    "STEP",
    "NTSN",
]


@pytest.mark.parametrize("code", CODES)
def test_each_kiss_has_its_code(code: str) -> None:
    """A reply of stratum 0 to our request is a kiss-o'-death with the code that it carries (K1, K5, V8)."""
    said = read_reply(packet(stratum=0, reference_id=code.encode()), NONCE)
    assert said == UnusableReply(f"kod:{code}", ours=True)


UNSYNCHRONISED = {
    "chronyd 4.3": "e40000e6 00010000 00010000 00000000 0000000000000000 {} eeb72b5fca06777f eeb72b5fcd2d3546",
    "openntpd 6.2p3": "e40000e3 00000000 00000000 00000000 0000000000000000 {} eeb72b844bc0f7ff eeb72b844bc147ff",
}
"""What servers without a source reply, as it was received, but for the nonce."""


@pytest.mark.parametrize("server", UNSYNCHRONISED)
def test_a_server_without_a_source_is_unsynchronised(server: str) -> None:
    """Stratum 0 is a kiss only with a code: without one the server has no time to give (V10)."""
    datagram = bytes.fromhex(UNSYNCHRONISED[server].format(f"{NONCE:016x}"))
    assert read_reply(datagram, NONCE) == UnusableReply("unsync", ours=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"leap": 3},
        {"received": 0, "transmitted": 0, "reference": 0},
        {"root_delay": 2**32 - 1, "root_dispersion": 2**32 - 1},
        {"poll": 17},
        {"tail": MD5_TAIL},
    ],
)
def test_what_else_a_kiss_says_is_not_looked_at(changes: dict[str, Any]) -> None:
    """The times and the rest of a kiss-o'-death are not to be believed, nor to be a reason to refuse it (V8)."""
    assert read_reply(packet(stratum=0, reference_id=b"RATE", **changes), NONCE) == UnusableReply("kod:RATE", ours=True)


@pytest.mark.parametrize(("origin", "reason"), [(0, "zero-origin"), (NONCE ^ 1, "bogus")])
def test_a_forged_kiss_is_ignored(origin: int, reason: str) -> None:
    """A kiss-o'-death without our nonce would let anyone silence us, and is refused (K1, RFC 8633 §5.4)."""
    assert read_reply(packet(stratum=0, reference_id=b"DENY", origin=origin), NONCE) == UnusableReply(
        reason, ours=False
    )


@pytest.mark.parametrize(
    ("reference_id", "code"),
    [
        (b"RATE", "RATE"),
        (b"XYZ\0", "XYZ"),
        (b"!~\0\0", "!~"),
        (b"\0\0\0\0", "0x00000000"),
        (b"RA\0E", "0x52410045"),
        (b"RAT ", "0x52415420"),
        (b"\x1b[2J", "0x1b5b324a"),
        (b"\x7fABC", "0x7f414243"),
        (b"R\xc3\xa9T", "0x52c3a954"),
    ],
)
def test_kiss_codes_are_printable(reference_id: bytes, code: str) -> None:
    """A kiss code is shown as it is where that is printable ASCII, and in hexadecimal otherwise (K5)."""
    assert kiss_code(reference_id) == code


# --- E: extension fields and MACs ---------------------------------------------------------------------------------

TAILS = [
    ("nothing", b"", ""),
    ("crypto-NAK", CRYPTO_NAK, "crypto-nak"),
    ("crypto-NAK after a field", extension(28) + CRYPTO_NAK, "crypto-nak"),
    ("four octets that are no crypto-NAK", b"\0\0\0\1", "malformed"),
    ("four octets after a field", extension(28) + b"\1\0\0\0", "malformed"),
    ("MD5 MAC", MD5_TAIL, ""),
    ("SHA-1 MAC", SHA1_TAIL, ""),
    ("MD5 MAC after a field", extension(16) + MD5_TAIL, ""),
    ("SHA-1 MAC after two fields", extension(16) + extension(20) + SHA1_TAIL, ""),
    ("MAC of 28 octets", b"\0\0\0\1" + b"\xcc" * 24, "malformed"),
    ("shortest single field", extension(28), ""),
    ("unknown fields", extension(32, kind=0x0104) + extension(28, kind=0xFFFF), ""),
    ("long field", extension(1024), ""),
    ("shortest first field", extension(16) + extension(28), ""),
    ("8 octets", extension(8), "malformed"),
    ("12 octets", extension(12), "malformed"),
    ("16 octets alone", extension(16), "malformed"),
    ("last field of 16", extension(28) + extension(16), "malformed"),
    ("first field of 12", extension(12) + extension(28), "malformed"),
    ("claims more than there is", extension(28, claimed=32), "malformed"),
    ("claims the most", extension(28, claimed=0xFFFC), "malformed"),
    ("claims nothing", extension(28, claimed=0), "malformed"),
    ("claims a header only", extension(28, claimed=4), "malformed"),
    ("claims an odd length", extension(32, claimed=30), "malformed"),
    ("claims one octet less", extension(32, claimed=31), "malformed"),
    ("two that would fit if odd lengths were allowed", 2 * extension(30), "malformed"),
    ("second field cut short", extension(28) + extension(28, claimed=32), "malformed"),
    ("second field claims nothing", extension(28) + extension(28, claimed=0), "malformed"),
    ("one octet", b"\0", "malformed"),
    ("three octets after a field", extension(28) + b"\0\0\0", "malformed"),
    ("21 octets", MD5_TAIL + b"\0", "malformed"),
]


@pytest.mark.parametrize(("tail", "fault"), [row[1:] for row in TAILS], ids=[row[0] for row in TAILS])
def test_what_follows_the_header(tail: bytes, fault: str) -> None:
    """Fields are skipped, MACs and crypto-NAKs recognised by their length, the unreadable is rejected (E1-E3)."""
    assert tail_fault(tail) == fault
    said = read_reply(packet(tail=tail), NONCE)
    if fault:
        assert said == UnusableReply(fault, ours=True)
    else:
        assert said == read_reply(packet(), NONCE)


def chains(last: int) -> st.SearchStrategy[list[bytes]]:
    """Make extension fields of random lengths, the last of at least `last` octets."""
    kinds = st.integers(0, 0xFFFF)
    field = st.builds(lambda words, kind: extension(4 * words, kind=kind), st.integers(4, 40), kinds)
    end = st.builds(lambda words, kind: extension(4 * words, kind=kind), st.integers(last // 4, 40), kinds)
    return st.builds(lambda fields, final: [*fields, final], st.lists(field, max_size=4), end)


@given(chains(28))
@settings(max_examples=150, deadline=None)
def test_any_chain_of_sound_fields_is_passed_over(fields: list[bytes]) -> None:
    """Fields of 16 octets or more, the last of 28 or more, never keep a reply from being read (E1, E3)."""
    assert isinstance(read_reply(packet(tail=b"".join(fields)), NONCE), Reply)


@given(chains(16), st.sampled_from((MD5_TAIL, SHA1_TAIL)))
@settings(max_examples=100, deadline=None)
def test_any_chain_of_sound_fields_before_a_mac_is_passed_over(fields: list[bytes], mac: bytes) -> None:
    """Before a MAC the last field may be as short as any other (E1, E2)."""
    assert isinstance(read_reply(packet(tail=b"".join(fields) + mac), NONCE), Reply)


@given(chains(28), st.data())
@settings(max_examples=200, deadline=None)
def test_a_chain_cut_anywhere_is_refused(fields: list[bytes], data: st.DataObject) -> None:
    """A last field that was cut short is refused whole, never read so far (E3, NTS conformance finding F7)."""
    left = data.draw(st.integers(1, len(fields[-1]) - 1))
    tail = b"".join(fields[:-1]) + fields[-1][:left]
    to_the_end = [len(tail) - sum(map(len, fields[:count])) for count in range(len(fields))]
    assume(not {20, 24} & set(to_the_end))  # what is left would be a MAC
    assert read_reply(packet(tail=tail), NONCE) == UnusableReply("malformed", ours=True)


# --- any bytes ----------------------------------------------------------------------------------------------------


def check_read_or_refused(octets: bytes, from_peer: bool = True) -> None:
    """Hold what `read_reply` makes of any octets against what the octets say."""
    said = read_reply(octets, NONCE, from_peer=from_peer)
    carries_nonce = len(octets) >= 48 and octets[24:32] == struct.pack("!Q", NONCE)
    match said:
        case UnusableReply(reason, ours) if reason.startswith("kod:"):
            assert ours
            assert from_peer
            assert carries_nonce
            assert (octets[0] & 0x3F, octets[1]) == (0x24, 0)
            assert reason.isprintable()
        case UnusableReply(reason, ours):
            assert reason in REASONS
            assert ours == (from_peer and carries_nonce)
        case Reply():
            assert from_peer
            assert carries_nonce
            assert len(octets) % 4 == 0
            assert octets[0] in (0x24, 0x64, 0xA4)
            assert 1 <= octets[1] <= 15
            assert 0 not in struct.unpack_from("!QQ", octets, 32)
            root_delay, root_dispersion = struct.unpack_from("!II", octets, 4)
            assert root_delay + 2 * root_dispersion < 2 * 16 * 65_536


@given(st.binary(max_size=120), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused_with_a_reason(octets: bytes, from_peer: bool) -> None:
    """No bytes make the reader fail: they are a reply, a kiss, or refused with a known code (V1)."""
    check_read_or_refused(octets, from_peer)


@given(st.lists(st.tuples(st.integers(0, 107), st.integers(0, 255)), max_size=4), st.integers(0, 60), st.booleans())
@settings(max_examples=500, deadline=None)
def test_any_damage_to_a_good_reply_is_read_or_refused(
    damage: list[tuple[int, int]], cut: int, from_peer: bool
) -> None:
    """A good reply with octets overwritten and cut off is read or refused, and only for what it says (V1 to V11)."""
    octets = bytearray(packet(tail=extension(16) + extension(44)))
    for at, value in damage:
        octets[at] = value
    check_read_or_refused(bytes(octets[: len(octets) - cut]), from_peer)


@given(
    st.integers(0, 255), st.integers(0, 255), st.binary(min_size=22, max_size=22), st.binary(min_size=16, max_size=64)
)
@settings(max_examples=500, deadline=None)
def test_any_bytes_around_our_nonce_are_read_or_refused(first: int, stratum: int, head: bytes, rest: bytes) -> None:
    """Nor do bytes that carry our nonce: each octet of the header may be anything (V1 to V11)."""
    check_read_or_refused(bytes((first, stratum)) + head + struct.pack("!Q", NONCE) + rest)


@pytest.mark.parametrize("first", range(256))
def test_every_first_octet(first: int) -> None:
    """Of the 256 first octets only leap 0 to 2, version 4, mode 4 begin a good reply (V2, V3, V10)."""
    octets = bytes((first,)) + packet()[1:]
    expected = {0x24: None, 0x64: None, 0xA4: None, 0xE4: "unsync"}.get(
        first, "version" if first >> 3 & 7 != 4 else "mode"
    )
    said = read_reply(octets, NONCE)
    assert (said.reason if isinstance(said, UnusableReply) else None) == expected

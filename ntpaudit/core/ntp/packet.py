"""The NTP packet: build a request; parse a reply or return why it is refused (docs/requirements.md, W, Q, V, K, E)."""

import struct
from typing import NamedTuple

HEADER = struct.Struct("!BBbbIIIQQQQ")
VERSION = 4
MODE_CLIENT = 3
MODE_SERVER = 4
LEAP_UNSYNCHRONISED = 3
MAX_DISPERSION_S = 16.0  # RFC 5905 MAXDISP: a server whose root distance reaches this is not synchronised (V11)

_PRECISION_UNKNOWN = 0x20
_CRYPTO_NAK = bytes(4)
_MAC_LENGTHS = (20, 24)
_MIN_EXTENSION = 16
_MIN_LAST_EXTENSION = 28


class Reply(NamedTuple):
    """A server's reply that passed every check; `warnings` are V15 and V16. T2 and T3 are 64-bit NTP timestamps."""

    leap: int
    stratum: int
    poll: int
    precision: int
    root_delay: int
    root_dispersion: int
    reference_id: bytes
    reference: int
    received: int
    transmitted: int
    warnings: tuple[str, ...] = ()


class UnusableReply(NamedTuple):
    """A datagram that is not a usable reply, with its reason code; that of a kiss-o'-death is `kod:` and its code.

    `ours`: it has our nonce, so it is the server's own reply and ends the wait. Any other datagram is stray or forged;
    it is counted, and the wait continues.
    """

    reason: str
    ours: bool


def build_request(nonce: int) -> bytes:
    """Build a minimal client request without data of this host; T3 is a random 64-bit nonce (Q1, Q2, Q4)."""
    first = VERSION << 3 | MODE_CLIENT
    return HEADER.pack(first, 0, 0, _PRECISION_UNKNOWN, 0, 0, 0, 0, 0, 0, nonce)


def read_reply(
    datagram: bytes, nonce: int, *, own_ids: frozenset[bytes] = frozenset(), from_peer: bool = True
) -> Reply | UnusableReply:
    """Parse one datagram as the reply to the request with `nonce`; the first failed check (V1 to V16) is the reason.

    `own_ids` are the reference ids of this host (V16); `from_peer`: it came from the address that was queried (V4).
    """
    if len(datagram) < HEADER.size:
        return UnusableReply("malformed", ours=False)  # V1: not even a header, so nothing shows whose it is
    first, stratum, poll, precision, root_delay, root_dispersion, refid, reference, origin, received, transmitted = (
        HEADER.unpack_from(datagram)
    )
    leap, version, mode = first >> 6, first >> 3 & 7, first & 7
    ours = from_peer and origin == nonce != 0
    reason = (
        tail_fault(datagram[HEADER.size :])  # V1, E2, E3
        or (version != VERSION and "version")  # V2
        or (mode != MODE_SERVER and "mode")  # V3
        or (not from_peer and "wrong-source")  # V4
        or (origin == 0 and "zero-origin")  # V5, CVE-2015-8138
        or (origin != nonce and "bogus")  # V5
    )
    if reason:
        return UnusableReply(reason, ours)
    reference_id = refid.to_bytes(4, "big")
    if stratum == 0 and refid != 0:  # without a code it is no kiss: chronyd and openntpd reply so while unsynchronised
        return UnusableReply(f"kod:{kiss_code(reference_id)}", ours)  # V8, K1: the origin is proven ours
    reason = (
        ((received == 0 or transmitted == 0) and "zero-ts")  # V9
        # V10, V18: LI 0 is the normal value; only 3 means unsynchronised
        or (not (leap != LEAP_UNSYNCHRONISED and 1 <= stratum <= 15) and "unsync")
        or (not root_delay / 2 + root_dispersion < MAX_DISPERSION_S * 65536 and "root-distance-invalid")  # V11
    )
    if reason:
        return UnusableReply(reason, ours)
    warnings = []
    if reference != 0 and (reference - transmitted) & (1 << 64) - 1 < 1 << 63 and reference != transmitted:
        warnings.append("reftime-future")  # V15
    if stratum > 1 and reference_id in own_ids:
        warnings.append("sync-loop")  # V16
    times = (reference, received, transmitted)
    return Reply(leap, stratum, poll, precision, root_delay, root_dispersion, reference_id, *times, tuple(warnings))


def tail_fault(tail: bytes) -> str:
    """Return what is wrong after the header, in extension fields or a MAC (E1, E2, E3); "" if nothing is.

    Unknown extension fields are ignored. A crypto-NAK is a failed authentication, never a normal reply
    (CVE-2016-1547), and a packet that cannot be parsed to its end is refused as a whole.
    """
    if len(tail) % 4:
        return "malformed"
    at = 0
    while at < len(tail):
        left = len(tail) - at
        if left == len(_CRYPTO_NAK):
            return "crypto-nak" if tail[at:] == _CRYPTO_NAK else "malformed"
        if left in _MAC_LENGTHS:
            return ""  # a key id and an MD5 or SHA-1 digest: we share no key, so it is neither checked nor trusted
        length = int.from_bytes(tail[at + 2 : at + 4], "big")
        shortest = _MIN_LAST_EXTENSION if length == left else _MIN_EXTENSION
        if length % 4 or not shortest <= length <= left:
            return "malformed"
        at += length
    return ""


def kiss_code(reference_id: bytes) -> str:
    """Format a kiss code: printable ASCII as it is, else hexadecimal (K5)."""
    text = reference_id.rstrip(b"\0")
    if text and all(0x21 <= byte <= 0x7E for byte in text):
        return text.decode("ascii")
    return "0x" + reference_id.hex()

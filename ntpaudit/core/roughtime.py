"""Roughtime (RFC 10049): requests and signed replies, and nonces that bind a reply to what existed before it.

Drafts 14 to 19 have the same format under another version number, so that both numbers are offered. They also spell
the contexts of signatures in another way, and so do the examples in Appendix B of draft 19, under version 1. Both
spellings are accepted in any version: they mean the same, and no other protocol signs either.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha512
from itertools import pairwise
from typing import NamedTuple

VERSIONS = (1, 0x8000_000C)
NONCE_OCTETS = KEY_OCTETS = HASH_OCTETS = 32
SIGNATURE_OCTETS = 64
REQUEST_OCTETS = 1024  # of the message: a server need not reply to less, and must not reply with more (§5.1)
MAX_PATH = 32  # hashes
MAX_TIME_S = 253_402_300_799  # the end of the year 9999: the calendars of most programs end there

MAGIC = b"ROUGHTIM"
DELEGATION = (b"Roughtime v1 delegation signature\0", b"RoughTime v1 delegation signature\0")
RESPONSE = (b"Roughtime v1 response signature\0", b"RoughTime v1 response signature\0")
VER, SRV, NONC, TYPE, ZZZZ = b"VER\0", b"SRV\0", b"NONC", b"TYPE", b"ZZZZ"
SIG, PATH, SREP, CERT, INDX = b"SIG\0", b"PATH", b"SREP", b"CERT", b"INDX"
RADI, MIDP, VERS, ROOT = b"RADI", b"MIDP", b"VERS", b"ROOT"
DELE, PUBK, MINT, MAXT = b"DELE", b"PUBK", b"MINT", b"MAXT"

Fields = Mapping[bytes, bytes]
CheckSignature = Callable[[bytes, bytes, bytes], bool]
"""Whether an Ed25519 key (32 octets) made a signature (64 octets) over a text; false for any other octets."""


class SignedTime(NamedTuple):
    """The time that a server signed for one request, in seconds since 1970 (UTC); `version` is that of its reply.

    The server vouches that it received the request, and with it the nonce, between midpoint - radius and midpoint +
    radius.
    """

    midpoint_s: int
    radius_s: int
    version: int

    @property
    def earliest_s(self) -> int:
        """The earliest moment of the signature."""
        return self.midpoint_s - self.radius_s

    @property
    def latest_s(self) -> int:
        """The latest moment of the signature: what decides the nonce existed before it."""
        return self.midpoint_s + self.radius_s


class InvalidReply(NamedTuple):
    """Octets that are not a valid reply to the request, and why; servers send some on purpose (§7)."""

    reason: str


class _MalformedError(Exception):
    """Octets break a rule of the format; the text is the reason of the InvalidReply."""


def digest(data: bytes) -> bytes:
    """H(x) of the RFC: the first 32 octets of SHA-512 (which are not those of SHA-512/256)."""
    return sha512(data).digest()[:HASH_OCTETS]


def blind_for(data: bytes, salt: bytes) -> bytes:
    """Return the `rand` of the RFC that binds to `data`. With a secret random salt it shows nothing of the data."""
    return digest(data + salt)


def chained_nonce(blind: bytes, previous: bytes = b"") -> bytes:
    """Return the nonce of the next request after the packet of a reply, or of the first request (§8.2)."""
    return digest(previous + blind)


def build_request(nonce: bytes, key: bytes) -> bytes:
    """Return the packet that asks the server with this long-term public key to sign the time."""
    fields = {
        VER: struct.pack(f"<{len(VERSIONS)}I", *VERSIONS),
        SRV: digest(b"\xff" + key),
        NONC: nonce,
        TYPE: bytes(4),
    }
    padding = REQUEST_OCTETS - len(encode({**fields, ZZZZ: b""}))
    return pack(encode({**fields, ZZZZ: bytes(padding)}))


def nonce_in(request: bytes) -> bytes | None:
    """Return the nonce of a request's packet; None if it is not a request."""
    try:
        fields = decode(_unpack(request))
        return _fixed(fields, NONC, NONCE_OCTETS) if _fixed(fields, TYPE, 4) == bytes(4) else None
    except _MalformedError:
        return None


def read_reply(reply: bytes, request: bytes, key: bytes, is_signed: CheckSignature) -> SignedTime | InvalidReply:
    """Return the time that a reply proves to be signed for this request, by the server with this long-term key (§5.4).

    Both are whole packets. Anybody can check this again later; it needs no clock.
    """
    try:
        return _signed_time(decode(_unpack(reply)), request, key, is_signed)
    except _MalformedError as error:
        return InvalidReply(str(error))


def contradiction(times: Sequence[SignedTime]) -> tuple[int, int] | None:
    """Return the first two of these times, by their places, that cannot both be true (§8.2).

    Each is of a request that was made after the reply before it, so none may end before an earlier one begins.
    """
    for later, time in enumerate(times):
        for earlier in range(later):
            if times[earlier].earliest_s > time.latest_s:
                return earlier, later
    return None


def pack(message: bytes) -> bytes:
    """Return the packet with a message."""
    return MAGIC + struct.pack("<I", len(message)) + message


def encode(fields: Fields) -> bytes:
    """Return a message with these fields, whose values are multiples of four octets (§4.2)."""
    tags = sorted(fields, key=lambda tag: int.from_bytes(tag, "little"))
    offsets, end = [], 0
    for tag in tags[:-1]:
        end += len(fields[tag])
        offsets.append(end)
    return struct.pack(f"<{len(tags)}I", len(tags), *offsets) + b"".join(tags) + b"".join(map(fields.__getitem__, tags))


def decode(message: bytes) -> dict[bytes, bytes]:
    """Return the fields of a message. Unknown ones are among them; §7 has clients ignore these."""
    count = int.from_bytes(message[:4], "little")
    start = 8 * count
    if not 1 <= count <= len(message) // 8 or len(message) % 4:
        raise _MalformedError("it is cut, or no Roughtime message")
    offsets = (0, *struct.unpack_from(f"<{count - 1}I", message, 4), len(message) - start)
    tags = [message[at : at + 4] for at in range(4 * count, start, 4)]
    numbers = [int.from_bytes(tag, "little") for tag in tags]
    if any(offset % 4 for offset in offsets) or any(begin > end for begin, end in pairwise(offsets)):
        raise _MalformedError("its offsets are not in order")
    if any(number >= following for number, following in pairwise(numbers)):
        raise _MalformedError("its tags are not in order")
    values = message[start:]
    return {tag: values[begin:end] for tag, (begin, end) in zip(tags, pairwise(offsets), strict=True)}


def _unpack(packet: bytes) -> bytes:
    if packet[:8] != MAGIC or int.from_bytes(packet[8:12], "little") != len(packet) - 12:
        raise _MalformedError("it is cut, or no Roughtime packet")
    return packet[12:]


def _signed_time(fields: Fields, request: bytes, key: bytes, is_signed: CheckSignature) -> SignedTime:
    if _number(fields, TYPE) != 1:
        raise _MalformedError("its type is not that of a reply")
    if _fixed(fields, NONC, NONCE_OCTETS) != nonce_in(request):
        raise _MalformedError("it replies to another request")
    certificate = decode(_value(fields, CERT))
    delegation, signed = _value(certificate, DELE), _value(fields, SREP)
    signature = _fixed(certificate, SIG, SIGNATURE_OCTETS)
    if not any(is_signed(key, signature, context + delegation) for context in DELEGATION):
        raise _MalformedError("the server's long-term key did not sign its delegation")
    delegated, response = decode(delegation), decode(signed)
    online_key, signature = _fixed(delegated, PUBK, KEY_OCTETS), _fixed(fields, SIG, SIGNATURE_OCTETS)
    if not any(is_signed(online_key, signature, context + signed) for context in RESPONSE):
        raise _MalformedError("the delegated key did not sign it")
    found = SignedTime(_number(response, MIDP, 8), _number(response, RADI), _number(response, VER))
    if found.version not in VERSIONS or found.version not in _versions(response):
        raise _MalformedError(f"it is of version {found.version:#x}, which was not requested")
    if not (found.radius_s and found.latest_s <= MAX_TIME_S):
        raise _MalformedError("its time is out of range")
    if not _number(delegated, MINT, 8) <= found.midpoint_s <= _number(delegated, MAXT, 8):
        raise _MalformedError("its time is outside the time of its delegation")
    if _root(fields, request) != _fixed(response, ROOT, HASH_OCTETS):
        raise _MalformedError("its path does not lead from the request to the signed root")
    return found


def _root(fields: Fields, request: bytes) -> bytes:
    """Return the root to which PATH and INDX lead from the request (§5.3.1)."""
    path, index = _value(fields, PATH), _number(fields, INDX)
    if len(path) % HASH_OCTETS or len(path) > MAX_PATH * HASH_OCTETS:
        raise _MalformedError("its path has no valid length")
    found = digest(b"\0" + request)
    for at in range(0, len(path), HASH_OCTETS):
        node = path[at : at + HASH_OCTETS]
        found = digest(b"\1" + (node + found if index & 1 else found + node))
        index >>= 1
    if index:
        raise _MalformedError("its index is beyond its path")
    return found


def _versions(response: Fields) -> tuple[int, ...]:
    value = _value(response, VERS)
    return struct.unpack(f"<{len(value) // 4}I", value)


def _value(fields: Fields, tag: bytes) -> bytes:
    value = fields.get(tag)
    if value is None:
        raise _MalformedError(f"it has no {tag.decode().rstrip(chr(0))}")
    return value


def _fixed(fields: Fields, tag: bytes, length: int) -> bytes:
    value = _value(fields, tag)
    if len(value) != length:
        raise _MalformedError(f"its {tag.decode().rstrip(chr(0))} does not have {length} octets")
    return value


def _number(fields: Fields, tag: bytes, length: int = 4) -> int:
    return int.from_bytes(_fixed(fields, tag, length), "little")

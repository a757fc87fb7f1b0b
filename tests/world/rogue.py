"""A server with named misbehaviours, each really sent on the wire (V, K, E of docs/requirements.md)."""

import hashlib
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ntpaudit.demo.server import Behaviour, Header, NtpServer


class Datagram(NamedTuple):
    """A reply, sent that much later than the network's delay."""

    payload: bytes
    delay_s: float = 0.0
    from_another_port: bool = False


Misbehaviour = Callable[[Header], list[Datagram]]
"""What to send, given the honest answer."""

LATE_S = 3.0
"""How late the misbehaviour `late` is; `late(delay_s)` makes another."""

FORGED_AHEAD_S = 1000
"""How far every forged or bogus datagram is ahead, so that a client that believes one is seen to do so."""

BOGUS_FLOOD = 50
"""How many bogus datagrams make a flood."""

_S = 1 << 32  # one second, in units of a timestamp
_SHORT_S = 1 << 16  # one second, in units of root delay and root dispersion
_TRUE_REPLY_AFTER_S = 0.05


class RogueServer(NtpServer):
    """A server that misbehaves in one way: the name of one of `MISBEHAVIOURS`, or a function that makes it.

    `misbehaviour` may be replaced at any time.
    """

    def __init__(
        self, misbehaviour: str | Misbehaviour, behaviour: Behaviour | None = None, address: str = "127.0.0.1"
    ) -> None:
        super().__init__(behaviour, address)
        self.misbehaviour = misbehaviour

    def reply(self, header: Header, client: tuple[Any, ...]) -> None:
        """Send the misbehaviour's answer instead of the honest one."""
        misbehave = MISBEHAVIOURS[self.misbehaviour] if isinstance(self.misbehaviour, str) else self.misbehaviour
        for datagram in misbehave(header):
            if datagram.from_another_port:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    other.bind((self.address, 0))
                    other.sendto(datagram.payload, client)
            else:
                self.send(datagram.payload, client, datagram.delay_s)


def changed(**fields: Any) -> Misbehaviour:
    """An honest answer but for these fields of its header."""
    return lambda honest: [_whole(honest._replace(**fields))]


def altered(alter: Callable[[Header], Header]) -> Misbehaviour:
    """An honest answer with its header altered."""
    return lambda honest: [_whole(alter(honest))]


def cut(length: int) -> Misbehaviour:
    """The first octets of an honest reply."""
    return lambda honest: [Datagram(honest.encode()[:length])]


def tail(octets: bytes) -> Misbehaviour:
    """An honest answer with octets after its header."""
    return lambda honest: [Datagram(honest.encode() + octets)]


def late(delay_s: float) -> Misbehaviour:
    """An honest answer, this much later."""
    return lambda honest: [Datagram(honest.encode(), delay_s=delay_s)]


def kiss(code: bytes, **fields: Any) -> Misbehaviour:
    """A kiss-o'-death of four octets (RFC 5905 §7.4)."""
    return changed(leap=3, stratum=0, reference_id=code, **fields)


def extension(kind: int, length: int, present: int) -> bytes:
    """An extension field that claims one length in octets, and has another (RFC 7822)."""
    return struct.pack("!HH", kind, length) + bytes(present - 4)


def _whole(header: Header, **how: Any) -> Datagram:
    return Datagram(header.encode(), **how)


def _shifted(honest: Header, receive: float, transmit: float) -> Header:
    """The same reply with T2 later by `receive` seconds and T3 by `transmit`."""
    return honest._replace(
        receive=(honest.receive + int(receive * _S)) % (1 << 64),
        transmit=(honest.transmit + int(transmit * _S)) % (1 << 64),
    )


def _forged(honest: Header) -> Header:
    return _shifted(honest, FORGED_AHEAD_S, FORGED_AHEAD_S)


def _bogus(honest: Header, number: int = 0) -> Header:
    """A forgery by someone who cannot see the request: another origin, the first off by its lowest bit alone."""
    return _forged(honest)._replace(origin=honest.origin ^ (number + 1))


def _bogus_flood(honest: Header) -> list[Datagram]:
    return [_whole(_bogus(honest, number)) for number in range(BOGUS_FLOOD)]


def _true_reply_afterwards(honest: Header) -> Datagram:
    return _whole(honest, delay_s=_TRUE_REPLY_AFTER_S)


_UNKNOWN = 0xF000  # of the extension field types reserved for experiments
_MAC = struct.pack("!I", 1) + hashlib.md5(b"not our key", usedforsecurity=False).digest()

MISBEHAVIOURS: Mapping[str, Misbehaviour] = {
    # V1: what is not even a packet
    "silent": lambda _: [],
    "empty": cut(0),
    "short": cut(20),
    "unaligned": tail(bytes(2)),
    "too_long": tail(extension(_UNKNOWN, 2048, 2048)),
    # V2, V3
    "version_3": changed(version=3),
    "version_7": changed(version=7),
    "mode_3": changed(mode=3),
    "mode_5": changed(mode=5),
    # V4, V5: not from the server that was asked
    "forged_port": lambda honest: [_whole(_forged(honest), from_another_port=True), _true_reply_afterwards(honest)],
    "wrong_origin": altered(_bogus),
    "zero_origin": changed(origin=0),
    "bogus_flood": lambda honest: [*_bogus_flood(honest), _whole(honest)],
    "bogus_only": _bogus_flood,
    # V6, V7: too often, too late
    "duplicate": lambda honest: [_whole(honest), _whole(honest)],
    "late": late(LATE_S),
    # V9 to V11: no time to give
    "zero_receive": changed(receive=0),
    "zero_transmit": changed(transmit=0),
    "leap_unsync": changed(leap=3),
    "stratum_16": changed(stratum=16),
    "stratum_17_plus": changed(stratum=17),
    "root_distance_17s": changed(root_dispersion=17 * _SHORT_S),
    # V12, V13: times that cannot be; the offset stays 0
    "transmit_before_receive": altered(lambda honest: _shifted(honest, 0.001, -0.001)),
    "slow_server": altered(lambda honest: _shifted(honest, -2.5, 2.5)),
    "negative_delay": altered(lambda honest: _shifted(honest, -0.5, 0.5)),
    # V15 to V17, V20: worth a warning
    "reftime_future": altered(lambda honest: honest._replace(reference=honest.transmit + 10 * _S)),
    "sync_loop": changed(stratum=2, reference_id=socket.inet_aton("127.0.0.1")),
    "root_distance_2s": changed(root_delay=2 * _SHORT_S, root_dispersion=_SHORT_S),
    "leap_61": changed(leap=1),
    "leap_59": changed(leap=2),
    # K: kiss-o'-death
    "kod_rate": kiss(b"RATE"),
    "kod_rate_high_poll": kiss(b"RATE", poll=17),
    "kod_deny": kiss(b"DENY"),
    "kod_rstr": kiss(b"RSTR"),
    "kod_unknown": kiss(b"XABC"),
    "kod_nonprintable": kiss(b"\x00\x01\x02\xff"),
    "kod_zero_times": kiss(b"RATE", reference=0, receive=0, transmit=0),
    "kod_bogus": lambda honest: [*kiss(b"DENY")(_bogus(honest)), _true_reply_afterwards(honest)],
    # E: what comes after the header
    "crypto_nak": tail(bytes(4)),
    "mac_tail": tail(_MAC),
    "leftover": tail(b"\xff" * 8),
    "unknown_extension": tail(extension(_UNKNOWN, 28, 28)),
    "extension_truncated": tail(extension(_UNKNOWN, 64, 28)),
    "extension_unaligned": tail(extension(_UNKNOWN, 30, 32)),
    "extension_short": tail(extension(_UNKNOWN, 16, 16)),
    "extension_empty": tail(extension(_UNKNOWN, 0, 28)),
}
"""Every misbehaviour by name."""

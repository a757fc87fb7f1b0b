"""The readers of what others send, each as a function of octets that returns a value or refuses them."""

import json
import socket
from collections.abc import Callable, Iterator
from math import inf
from typing import NamedTuple, cast

from ntpaudit.core import roughtime
from ntpaudit.core.observation import Claim, Unavailable
from ntpaudit.probes import dbus
from ntpaudit.probes.daemons import chrony_client, chrony_protocol, mode6, ntpd, ntpd_rs, openntpd, timesyncd

BOOTTIME_NS = 7
NOW_NS = 1_796_000_000_000_000_000
ROUGHTIME_REQUEST = roughtime.build_request(bytes(32), bytes(32))


Found = Claim | Unavailable | roughtime.SignedTime | roughtime.InvalidReply


class Target(NamedTuple):
    """A reader, and the errors that its callers expect."""

    read: Callable[[bytes], Found]
    refusals: tuple[type[Exception], ...] = ()

    def check(self, data: bytes) -> Found | None:
        """Read octets; None if they are refused. Any other error is a fault, and so is a claim that cannot be one."""
        try:
            found = self.read(data)
        except self.refusals:
            return None
        json.dumps(found, allow_nan=False).encode()
        if isinstance(found, Claim):
            assert min(found.bound_s or 0.0, found.updated_s or 0.0, found.poll_s or 0.0) >= 0, found
        return found


def split(data: bytes) -> Iterator[bytes]:
    """Divide octets into parts, each with its length in two octets before it."""
    while data:
        length = int.from_bytes(data[:2])
        yield data[2 : 2 + length]
        data = data[2 + length :]


def joined(*parts: bytes) -> bytes:
    """Join parts as `split` divides them."""
    return b"".join(len(part).to_bytes(2) + part for part in parts)


class Datagrams:
    """A socket that receives parts of the octets as replies to the last query, and then nothing."""

    def __init__(self, data: bytes) -> None:
        self._parts = split(data)
        self._query = bytes(12)

    def settimeout(self, timeout: float) -> None:
        """Wait for nothing."""

    def send(self, query: bytes) -> int:
        """Remember the query."""
        self._query = query
        return len(query)

    def recv(self, size: int) -> bytes:
        """Return the next part, as a fragment of the reply: otherwise hardly any would be one."""
        part = next(self._parts, None)
        if part is None:
            raise TimeoutError
        operation = bytes([(part[1:2] or b"\0")[0] & 0x60 | 0x80 | self._query[1]])
        head = part[:1] + operation + self._query[2:4] + part[4:6] + self._query[6:8]
        return (head + part[8:])[:size]


def read_mode6(data: bytes) -> Claim | Unavailable:
    """Ntpd and NTPsec: replies to control messages."""
    conversation = mode6.Conversation(cast("socket.socket", Datagrams(data)), inf)
    return ntpd.read_claim(conversation, with_sources=True)


def read_chronyd(data: bytes) -> Claim | Unavailable:
    """chronyd: replies to its command protocol, one after the other."""
    parts = split(data)

    def ask(question: chrony_protocol.Question, _: bytes) -> chrony_protocol.Fields | None:
        part = next(parts, b"")
        kind = question.command.to_bytes(2) + question.reply.to_bytes(2)
        return chrony_protocol.read_reply(part[:4] + kind + part[8:], question)

    return chrony_protocol.read_claim(ask, True, BOOTTIME_NS, NOW_NS)


def read_chrony_service(data: bytes) -> Claim | Unavailable:
    """ntpaudit-chrony.service: all replies at once."""
    replies = chrony_client.read_service(data)

    def ask(question: chrony_protocol.Question, asked: bytes) -> chrony_protocol.Fields | None:
        reply = replies.get((question.command, asked))
        return None if reply is None else chrony_protocol.read_reply(reply, question)

    return chrony_protocol.read_claim(ask, True, BOOTTIME_NS, NOW_NS)


def read_ntpd_rs(data: bytes) -> Claim | Unavailable:
    """ntpd-rs: its JSON."""
    return ntpd_rs.read_report(data, BOOTTIME_NS, NOW_NS, with_sources=True)


def read_timesyncd(data: bytes) -> Claim | Unavailable:
    """systemd-timesyncd: a message of the bus."""
    return timesyncd.read_claim(dbus.read_properties(data), BOOTTIME_NS, 30.0, with_sources=True)


def read_openntpd(data: bytes) -> Claim | Unavailable:
    """OpenNTPD: what its ntpctl prints."""
    return openntpd.read_claim(data.decode(errors="replace"), BOOTTIME_NS, with_sources=True)


def read_roughtime(data: bytes) -> roughtime.SignedTime | roughtime.InvalidReply:
    """A Roughtime server: its reply, all of whose signatures count as valid, so that more of it is read."""
    return roughtime.read_reply(data, ROUGHTIME_REQUEST, bytes(32), lambda key, signature, text: True)


_MALFORMED = (chrony_protocol.MalformedReplyError,)
TARGETS = {
    "chronyd": Target(read_chronyd, _MALFORMED),
    "chrony-service": Target(read_chrony_service, _MALFORMED),
    "mode6": Target(read_mode6, (OSError,)),
    "ntpd-rs": Target(read_ntpd_rs),
    "openntpd": Target(read_openntpd),
    "roughtime": Target(read_roughtime),
    "timesyncd": Target(read_timesyncd, (dbus.BusError, ValueError)),
}

"""The questions of chronyd's command protocol, version 6 (candm.h of chrony), and how its replies are read."""

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ntpaudit.core.observation import Authentication, Claim, ClaimedSource


class Question(NamedTuple):
    """A command that only reads: its number, the number of its reply, and the layout of the reply's data."""

    command: int
    reply: int
    layout: struct.Struct


TRACKING = Question(33, 5, struct.Struct("!4s20s2H3I9I"))
N_SOURCES = Question(14, 2, struct.Struct("!I"))
SOURCE_DATA = Question(15, 3, struct.Struct("!20sh5HI3I"))
SOURCE_NAME = Question(65, 19, struct.Struct("!256s"))
AUTH_DATA = Question(67, 20, struct.Struct("!H22x"))

LONGEST = 28 + SOURCE_NAME.layout.size
MAX_SOURCES = 256
"""Of more sources the first ones are read: chronyd itself has no limit."""

Fields = tuple[Any, ...]
Ask = Callable[[Question, bytes], Fields | None]
"""Ask a question with its data; return the fields of the reply, None if chronyd refuses to answer it."""

_REQUEST = struct.Struct("!4B2H3I")
_REPLY = struct.Struct("!4B6H3I")
_VERSION, _IS_REQUEST, _IS_REPLY = 6, 1, 2
_SUCCESS, _UNAUTHORISED, _INVALID = 0, 2, 3  # of the status
_INDEX = struct.Struct("!I")
_IPV4, _IPV6 = 1, 2  # the family of an address
_NO_HIGH_SECONDS = 0x7FFFFFFF
_NEVER = 0xFFFFFFFF
_REFERENCE_CLOCK = 2  # the mode of a source
_SELECTED, _COMBINED = 0, 4  # the states of a source that chronyc shows as * and +
_UNSYNCHRONISED = 3  # the leap status
_OWN_REFERENCES = {b"\x7f\x7f\x01\x01": "its own clock", b"MANU": "times typed in by hand"}
_AUTHENTICATION: Mapping[int, Authentication] = {0: "none", 1: "key", 2: "nts"}
_POLLS = range(-7, 25)  # minpoll and maxpoll of chrony.conf(5)


class MalformedReplyError(Exception):
    """A reply that chronyd does not send."""


def request(question: Question, sequence: int, data: bytes = b"") -> bytes:
    """Return a request. It is as long as its reply, because chronyd sends no reply that is longer than the request."""
    head = _REQUEST.pack(_VERSION, _IS_REQUEST, 0, 0, question.command, 0, sequence, 0, 0)
    return (head + data).ljust(_REPLY.size + question.layout.size, b"\0")


class Head(NamedTuple):
    """What a reply repeats of its request, and whether chronyd answers it."""

    command: int
    sequence: int
    status: int

    @property
    def is_never_answered(self) -> bool:
        """Whether chronyd never answers this command here: it does not know it, or only through its Unix socket."""
        return self.status in (_UNAUTHORISED, _INVALID)


def read_head(reply: bytes) -> Head:
    """Return the head of a reply. Raises MalformedReplyError."""
    if len(reply) < _REPLY.size:
        raise MalformedReplyError(f"{len(reply)} octets")
    version, kind, _, _, command, _, status, _, _, _, sequence, _, _ = _REPLY.unpack_from(reply)
    if (version, kind) != (_VERSION, _IS_REPLY):
        raise MalformedReplyError(f"version {version}, type {kind}")
    return Head(command, sequence, status)


def read_reply(reply: bytes, question: Question) -> Fields | None:
    """Return the fields of a reply; None if it is a refusal. Raises MalformedReplyError."""
    head = read_head(reply)
    if head.command != question.command:
        raise MalformedReplyError(f"command {head.command}")
    if head.status != _SUCCESS:
        return None
    (number,) = struct.unpack_from("!H", reply, 6)
    if number != question.reply or len(reply) < _REPLY.size + question.layout.size:
        raise MalformedReplyError(f"reply {number} with {len(reply)} octets")
    return question.layout.unpack_from(reply, _REPLY.size)


def read_float(bits: int) -> float:
    """Read chrony's 32-bit number: 7 bits of exponent and 25 of coefficient, both signed. It is always finite."""
    exponent, coefficient = bits >> 25, bits & 0x1FFFFFF
    exponent -= (exponent & 0x40) << 1
    coefficient -= (coefficient & 0x1000000) << 1
    return float(coefficient * 2.0 ** (exponent - 25))


def read_claim(ask: Ask, with_sources: bool, boottime_ns: int, realtime_ns: int) -> Claim:
    """Ask for everything that a claim has, at a reading of the host's clocks. Raises MalformedReplyError.

    What chronyc shows as "System time" is what chronyd would add to the host's clock: positive if the host is behind.
    A source's offset has the other sign, and refers to the clock with that correction.
    """
    tracking = ask(TRACKING, b"")
    if tracking is None:
        raise MalformedReplyError("no tracking data")
    reference, place, stratum, leap, high, low, nanoseconds, correction, *_, delay, dispersion, _ = tracking
    own, followed = _OWN_REFERENCES.get(reference), _address(place) or _text(reference)
    is_synchronised = leap != _UNSYNCHRONISED and own is None and followed is not None
    offset_s = read_float(correction)
    wanted = _sources(ask, None if with_sources else followed) if with_sources or is_synchronised else ()
    sources = [one if one.offset_s is None else one._replace(offset_s=offset_s - one.offset_s) for one in wanted]
    claim = Claim(
        boottime_ns,
        is_synchronised,
        own,
        stratum=stratum or None,
        leap=leap if leap <= _UNSYNCHRONISED else None,
        sources=tuple(sources) if with_sources else (),
    )
    if not is_synchronised:  # its numbers are zeros, or those of its own clock
        return claim
    source = next((one for one in sources if followed in (one.address, one.name)), None)
    bound_s = read_float(delay) / 2 + read_float(dispersion)
    updated_ns = (low + (0 if high == _NO_HIGH_SECONDS else high << 32)) * 10**9 + nanoseconds
    age_s = (realtime_ns - updated_ns) / 1e9 + offset_s  # chronyd's times are those of the corrected clock
    return claim._replace(
        follows=source.name if source else followed,
        offset_s=offset_s,
        bound_s=bound_s if bound_s >= 0 else None,
        updated_s=age_s if age_s >= 0 else None,
        poll_s=source.poll_s if source else None,
        authentication=source.authentication if source else None,
    )


def _sources(ask: Ask, only: str | None) -> Iterator[ClaimedSource]:
    """Yield the servers and reference clocks that chronyd has, or the one with that address or reference id.

    Their offsets are chronyd's: host minus source, by the clock as chronyd corrects it.
    """
    (count,) = ask(N_SOURCES, b"") or (0,)
    for index in range(min(count, MAX_SOURCES)):
        data = ask(SOURCE_DATA, _INDEX.pack(index))
        if data is None:  # it was removed
            continue
        place, poll, stratum, state, mode, _, _, since, _, latest, _ = data
        is_clock = mode == _REFERENCE_CLOCK
        address = None if is_clock else _address(place)
        name = _text(place[:4]) if is_clock else address
        if only is None or only in (address, name):
            named, authenticated = (None, None) if is_clock else (ask(SOURCE_NAME, place), ask(AUTH_DATA, place))
            yield ClaimedSource(
                (_text(named[0]) if named else None) or name or f"source {index + 1}",
                address,
                state in (_SELECTED, _COMBINED),
                _AUTHENTICATION.get(authenticated[0]) if authenticated else None,
                stratum or None,
                None if since == _NEVER else read_float(latest),
                2.0**poll if poll in _POLLS else None,
            )


def _address(place: bytes) -> str | None:
    """Read the address of a server; None where there is none (a reference clock, a name that is not resolved yet)."""
    (family,) = struct.unpack_from("!H", place, 16)
    if family == _IPV4:
        return socket.inet_ntop(socket.AF_INET, place[:4])
    return socket.inet_ntop(socket.AF_INET6, place[:16]) if family == _IPV6 else None


def _text(octets: bytes) -> str | None:
    """Read a name or the id of a reference clock up to the first NUL; None where it is no text."""
    text = octets.partition(b"\0")[0].decode("utf-8", "replace")
    return text if text and text.isprintable() else None

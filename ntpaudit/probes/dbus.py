"""One question to the system's message bus: all properties of an interface (D-Bus specification, version 0.43).

The helper program in systemd/helpers uses it too. `socket` and `typing` would double the time of its start.
"""

from __future__ import annotations

import _socket
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

SYSTEM_BUS = "/run/dbus/system_bus_socket"
MAX_OCTETS = 1 << 16
"""No reply to this question is as long as this."""

_CALL, _REPLY, _ERROR = 1, 2, 3
_NO_AUTO_START = 2  # a question must not start the service
_START = struct.Struct("<BBBBII")
_REPLY_SERIAL = 5
_QUESTION_SERIAL = 2
_FIXED = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I"}
_ALIGNMENTS = {"v": 1, "g": 1, "s": 4, "o": 4, "a": 4, "(": 8, "{": 8}
_MAX_DEPTH = 16


Service = tuple[str, str, str]
"""The name of a service of the bus, an object of it, an interface of that."""

TIMESYNCD: Service = (
    "org.freedesktop.timesync1",
    "/org/freedesktop/timesync1",
    "org.freedesktop.timesync1.Manager",
)
"""What systemd-timesyncd reports about itself."""


class BusError(Exception):
    """There was no reply, or an error; the message says why in a few words."""


def ask(service: Service, within_s: float, bus: str = SYSTEM_BUS, owner: int = 0) -> bytes:
    """Return the message with all properties of a service that runs. BusError where there is none.

    The bus must be root's: systemd opens its socket.
    """
    deadline = time.monotonic() + within_s
    connected = _socket.socket(_socket.AF_UNIX)
    try:
        _limit(connected, deadline)
        connected.connect(bus)
        _, user, _ = struct.unpack("3i", connected.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
        if user != owner:
            raise BusError(f"user {user} answers on {bus}")
        connected.sendall(_question(service))
        messages = _messages(connected, deadline)
        return next(message for message in messages if _replies_to(message) == _QUESTION_SERIAL)
    except TimeoutError:
        raise BusError(f"no reply within {within_s} s") from None
    except OSError as error:
        raise BusError(error.strerror or "no connection") from error
    finally:
        connected.close()


def read_properties(message: bytes) -> Mapping[str, Any]:
    """Return the properties in such a message: numbers, texts, octets, lists, tuples.

    BusError where it is an error message, ValueError where it is malformed.
    """
    kind, fields, body = _read_message(message)
    signature = fields.get(8, "")
    if kind == _ERROR:
        raise BusError(str(fields.get(4, "an error without a name")))
    if (kind, signature) != (_REPLY, "a{sv}"):
        raise ValueError(f"not the properties: type {kind}, signature {signature!r}")
    return dict(body.value(signature))


def _limit(connected: _socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connected.settimeout(left)


def _question(service: Service) -> bytes:
    """Authenticate by the socket's own credentials, as sd-bus does; say hello, and ask."""
    hello = _call(1, ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"), "Hello")
    name, path, interface = service
    properties = (name, path, "org.freedesktop.DBus.Properties")
    return b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n" + hello + _call(_QUESTION_SERIAL, properties, "GetAll", interface)


def _call(serial: int, service: Service, method: str, *arguments: str) -> bytes:
    body = b"".join(map(_text, arguments))
    name, path, interface = service
    texts = {1: ("o", path), 2: ("s", interface), 3: ("s", method), 6: ("s", name)}
    fields = [bytes([code, 1, ord(kind), 0]) + _text(text) for code, (kind, text) in texts.items()]
    if arguments:
        kinds = "s" * len(arguments)
        fields.append(bytes([8, 1, ord("g"), 0, len(kinds)]) + kinds.encode() + b"\0")
    header = b"".join(field + bytes(-len(field) % 8) for field in fields[:-1]) + fields[-1]
    start = _START.pack(ord("l"), _CALL, _NO_AUTO_START, 1, len(body), serial)
    return start + struct.pack("<I", len(header)) + header + bytes(-len(header) % 8) + body


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode() + b"\0"


def _messages(connected: _socket.socket, deadline: float) -> Iterator[bytes]:
    """Yield the messages from the bus, after its lines of the authentication."""
    received = b""

    def receive() -> bytes:
        _limit(connected, deadline)
        more = connected.recv(4096)
        if not more:
            raise BusError("it closed the connection" if received else "it refuses this user")
        if len(received) + len(more) > MAX_OCTETS:
            raise BusError("the reply is too long")
        return received + more

    for expected in (b"DATA", b"OK "):
        while b"\r\n" not in received:
            received = receive()
        line, _, received = received.partition(b"\r\n")
        if not line.startswith(expected):
            raise BusError("it refuses this user")
    while True:
        while len(received) < 16 or len(received) < _length(received):
            received = receive()
        yield received[: _length(received)]
        received = received[_length(received) :]


def _length(message: bytes) -> int:
    """Return the length of a message, by its first 16 octets."""
    _, body, _, fields = struct.unpack_from(f"{_order(message)}IIII", message)
    return int(16 + fields + -fields % 8 + body)


def _order(message: bytes) -> str:
    return ">" if message[:1] == b"B" else "<"


def _replies_to(message: bytes) -> int | None:
    try:
        _, fields, _ = _read_message(message)
    except ValueError as error:
        raise BusError("the reply is malformed") from error
    serial = fields.get(_REPLY_SERIAL)
    return serial if isinstance(serial, int) else None


def _read_message(message: bytes) -> tuple[int, dict[int, Any], _Reader]:
    """Return the type of a message, the fields of its header, and a reader of its body. ValueError if malformed."""
    if len(message) < 16:
        raise ValueError("too short")
    reader = _Reader(message, _order(message))
    reader.at = 12
    fields = dict(reader.value("a(yv)"))
    reader.align(8)
    return message[1], fields, reader


class _Reader:
    """Reads values of known types from octets, from `at` on. Each method raises ValueError where they are malformed."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data = data
        self.at = 0
        self._order = order

    def value(self, signature: str, depth: int = 0) -> Any:
        """Return the next value, of this one complete type."""
        code = signature[:1]
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        if code in _FIXED:
            number = self._number(_FIXED[code])
            return bool(number) if code == "b" else number
        if code in ("s", "o", "g"):
            return self._octets(self._number("B" if code == "g" else "I"), ends=True).decode()
        if code == "v":
            kind = self.value("g")
            if _end(kind, 0) != len(kind):
                raise ValueError(f"not one type: {kind!r}")
            return self.value(kind, depth + 1)
        if code == "a":
            return self._array(signature[1:], depth)
        if code in ("(", "{"):
            self.align(8)
            return tuple(self.value(kind, depth + 1) for kind in _types(signature[1:-1]))
        raise ValueError(f"no type: {signature!r}")

    def align(self, size: int) -> None:
        """Skip to a multiple of this size."""
        self.at += -self.at % size

    def _array(self, kind: str, depth: int) -> list[Any] | bytes:
        length = self._number("I")
        self.align(_ALIGNMENTS.get(kind[:1]) or struct.calcsize(_FIXED[kind]))
        if kind == "y":
            return self._octets(length)
        end = self.at + length
        if end > len(self.data):
            raise ValueError("an array is longer than the message")
        values = []
        while self.at < end:
            values.append(self.value(kind, depth + 1))
        if self.at != end:
            raise ValueError("an array ends within a value")
        return values

    def _number(self, form: str) -> Any:
        size = struct.calcsize(form)
        self.align(size)
        (number,) = struct.unpack(self._order + form, self._octets(size))
        return number

    def _octets(self, length: int, *, ends: bool = False) -> bytes:
        octets = self.data[self.at : self.at + length]
        self.at += length + ends
        if self.at > len(self.data):
            raise ValueError("a value is longer than the message")
        return octets


def _types(signature: str) -> Iterator[str]:
    at = 0
    while at < len(signature):
        end = _end(signature, at)
        yield signature[at:end]
        at = end


def _end(signature: str, at: int) -> int:
    """Return where the complete type ends that begins there. ValueError where it is none."""
    code = signature[at : at + 1]
    if code == "a":
        return _end(signature, at + 1)
    if code in ("(", "{"):
        closing, start = (")" if code == "(" else "}"), at + 1
        at = start
        while signature[at : at + 1] != closing:
            at = _end(signature, at)
        if at == start:
            raise ValueError("an empty structure")
        return at + 1
    if code and (code in _FIXED or code in "sogv"):
        return at + 1
    raise ValueError(f"not a type: {signature!r}")

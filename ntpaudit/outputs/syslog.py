"""Messages for syslog (RFC 5424) that say how far the clock behind their time stamp can be off, as it was measured."""

import errno
import os
import socket
from collections.abc import Sequence

from ntpaudit.config.schema import SyslogConfig
from ntpaudit.core.ntp.sources import is_port
from ntpaudit.core.observation import Failure
from ntpaudit.core.units import format_utc
from ntpaudit.errors import OutputError
from ntpaudit.formats.log_entries import LogEntry, LogOutput, clip, to_microseconds
from ntpaudit.probes.resolve import Endpoint, Resolution, is_routable
from ntpaudit.render.text_safety import one_line

PORT = 514

SD_ID = "ntpaudit@32473"
"""The name of our own structured data. 32473 is the number that RFC 5612 sets apart for documentation."""

_DAEMON = 3 << 3
"""The facility of system daemons, in the place that it has in PRI (RFC 5424 §6.2.1)."""

_LONGEST, _LONGEST_BEFORE_TEXT = 2_048, 1_536
"""Octets of a message, which every receiver should take (RFC 5424 §6.1); so many before the text leave it some."""

_LONGEST_HOST, _LONGEST_ID, _LONGEST_VALUE = 255, 32, 256

_NIL = "-"
_BOM = b"\xef\xbb\xbf"
_RESOLVE_TIMEOUT_S = 1.0
_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\", "]": r"\]"})


def open_output(settings: SyslogConfig) -> LogOutput:
    """Return an output to the syslog at a path such as /dev/log, or by UDP at HOST[:PORT] or [IPV6][:PORT].

    Raises OutputError where the address can be neither.
    """
    return LogOutput(_Syslog(settings.address))


class _Syslog:
    """A syslog server, connected to when there is something to say; a name is resolved only then.

    A name may have several addresses, of which the server may use one: one that refuses is followed by the next.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._target = address if address.startswith("/") else _split_port(address)
        self._socket: socket.socket | None = None
        self._turn = 0
        self._addresses = 1

    def encode(self, message: LogEntry, host: str) -> bytes:
        """Write header, structured data and text (RFC 5424 §6)."""
        stamp_ns = message.host_ns if message.utc_ns is None else message.utc_ns
        stamp = f"{format_utc(stamp_ns)[:26]}Z"  # six decimals are the most that there may be
        sender = f"{_graphic(host, _LONGEST_HOST)} ntpaudit {os.getpid()} {_graphic(message.kind, _LONGEST_ID)}"
        data = f"<{_DAEMON + message.priority}>1 {stamp} {sender} {_time_quality(message)}[{SD_ID}".encode()
        for name, value in message.facts.items():
            parameter = f' {name}="{_escaped(value)}"'.encode()
            if len(data) + len(parameter) < _LONGEST_BEFORE_TEXT:
                data += parameter
        data += b"] " + _BOM
        return data + clip(one_line(message.text), _LONGEST - len(data))

    def send(self, entry: bytes) -> None:
        """Send a message, over a new connection where the old one is gone, or not now. Raises OutputError."""
        failures = -1 if self._socket else 0  # the server may have been restarted since the last message
        while True:
            try:
                self._socket = self._socket or self._connect()
                _send(self._socket, entry)
                return
            except OSError as error:
                is_busy = isinstance(error, BlockingIOError)
                if not is_busy:
                    self.close()
                    self._turn += 1
                    failures += 1
                if is_busy or failures >= self._addresses:
                    raise OutputError(
                        f"{self._address} takes no message: {error.strerror}; check that a syslog server "
                        "listens there, or correct syslog.address (a running agent sends the message later)"
                    ) from error

    def _connect(self) -> socket.socket:
        """Connect to a socket's path, or by UDP to the address of a name whose turn it is. Raises OSError."""
        if isinstance(self._target, str):
            return _connect_to_path(self._target)
        endpoints = _resolve(*self._target)
        self._addresses = len(endpoints)
        endpoint = endpoints[self._turn % len(endpoints)]
        return _connected(endpoint.family, socket.SOCK_DGRAM, endpoint.sockaddr)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _send(sock: socket.socket, entry: bytes) -> None:
    """Send an entry whole. Raises OSError. A stream's entries end with a NUL, as libc's do."""
    data = entry + b"\0" if sock.type == socket.SOCK_STREAM else entry
    if sock.send(data, socket.MSG_NOSIGNAL) < len(data):
        raise OSError(errno.EMSGSIZE, "it took half a message")  # the rest would follow too late: begin anew
    # A refusal by this host itself is there at once, one from the network only when the next message is sent.
    if refusal := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(refusal, os.strerror(refusal))


def _resolve(host: str, port: int) -> Sequence[Endpoint]:
    """Return the addresses of a name, those with a route where there are any. Raises OSError."""
    names = Resolution([(host, port)])
    names.wait(_RESOLVE_TIMEOUT_S)
    answer = names.answer(host, port)
    if isinstance(answer, Failure):
        raise OSError(errno.EHOSTUNREACH, f"{host}: {answer.detail or answer.reason}")
    return [*filter(is_routable, answer)] or answer


def _connect_to_path(path: str) -> socket.socket:
    """Connect to a socket's path, of datagrams or of a stream. Raises OSError."""
    try:
        return _connected(socket.AF_UNIX, socket.SOCK_DGRAM, path)
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:
            raise
    return _connected(socket.AF_UNIX, socket.SOCK_STREAM, path)


def _connected(family: int, kind: int, address: str | tuple[str, int] | tuple[str, int, int, int]) -> socket.socket:
    """Return a socket that is connected and never waits. Raises OSError."""
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _split_port(address: str) -> tuple[str, int]:
    """Read HOST[:PORT], [IPV6][:PORT] or a bare IPv6 address. Raises OutputError."""
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        host = host if bracket else ""
    elif address.count(":") > 1:
        host, rest = address, ""
    else:
        host, colon, port = address.partition(":")
        rest = colon + port
    digits = rest.removeprefix(":")
    if not host or not (rest == "" or (rest[0] == ":" and is_port(digits))):
        raise OutputError(f"{address!r} is no syslog address: write a path, HOST, HOST:PORT or [IPV6]:PORT")
    return host, int(digits or PORT)


def _time_quality(message: LogEntry) -> str:
    """Say how far the clock can be off, rounded up, or that nobody knows (RFC 5424 §7.1, INTEGRITY §5.4).

    The zone is known, since all is told in UTC; syncAccuracy must not stand beside isSynced="0".
    """
    if message.clock_error_s is None:
        return '[timeQuality tzKnown="1" isSynced="0"]'
    accuracy = to_microseconds(message.clock_error_s, "up")
    return f'[timeQuality tzKnown="1" isSynced="1" syncAccuracy="{accuracy}"]'


def _graphic(text: str, most: int) -> str:
    """Return a header field: visible ASCII without blanks, at most so many, `-` where there is none."""
    return "".join(character if "!" <= character <= "~" else "_" for character in text[:most]) or _NIL


def _escaped(value: str) -> str:
    """Return a parameter's value, cut to its length and escaped (RFC 5424 §6.3.3)."""
    return clip(one_line(value), _LONGEST_VALUE).decode().translate(_ESCAPES)

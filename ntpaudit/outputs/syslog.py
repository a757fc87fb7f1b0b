"""Messages for syslog (RFC 5424), with the measured maximum error of the clock beside the timestamp."""

import errno
import os
import socket
from collections.abc import Sequence

from ntpaudit.config.schema import SyslogConfig
from ntpaudit.core.ntp.sources import split_port
from ntpaudit.core.observation import SourceFailure
from ntpaudit.core.units import format_utc
from ntpaudit.errors import OutputError
from ntpaudit.formats.log_entries import LogEntry, LogOutput, clip, to_microseconds
from ntpaudit.probes.resolve import Endpoint, Resolution, is_routable
from ntpaudit.render.text_safety import one_line

PORT = 514
SD_ID = "ntpaudit@32473"  # the name of our structured data. RFC 5612 reserves 32473 for documentation.
_DAEMON = 3 << 3  # the facility of system daemons, shifted to its place in PRI (RFC 5424 §6.2.1)

_LONGEST = 2_048  # octets of a message, which every receiver should accept (RFC 5424 §6.1)
_LONGEST_BEFORE_TEXT = 1_536
_LONGEST_HOST, _LONGEST_ID, _LONGEST_VALUE = 255, 32, 256
_NIL = "-"
_BOM = b"\xef\xbb\xbf"
_RESOLVE_TIMEOUT_S = 1.0
_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\", "]": r"\]"})


def open_output(config: SyslogConfig) -> LogOutput:
    """Open an output to a path such as /dev/log, or by UDP to HOST[:PORT] or [IPV6][:PORT]."""
    return LogOutput(_Syslog(config.address))


class _Syslog:
    """A syslog server. The connection is made, and its name resolved, when there is a message to send.

    A name may have several addresses, and the server may use only one: after a refusal the next address is tried.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._target = address if address.startswith("/") else split_port(address, PORT)
        self._socket: socket.socket | None = None
        self._attempts = 0
        self._addresses = 1

    def encode(self, message: LogEntry, host: str) -> bytes:
        stamp_ns = message.host_ns if message.utc_ns is None else message.utc_ns
        stamp = f"{format_utc(stamp_ns)[:26]}Z"  # six decimals at most
        sender = f"{_graphic(host, _LONGEST_HOST)} ntpaudit {os.getpid()} {_graphic(message.kind, _LONGEST_ID)}"
        data = f"<{_DAEMON + message.priority}>1 {stamp} {sender} {_time_quality(message)}[{SD_ID}".encode()
        for name, value in message.facts.items():
            escaped = clip(one_line(value), _LONGEST_VALUE).decode().translate(_ESCAPES)  # RFC 5424 §6.3.3
            parameter = f' {name}="{escaped}"'.encode()
            if len(data) + len(parameter) < _LONGEST_BEFORE_TEXT:
                data += parameter
        data += b"] " + _BOM
        return data + clip(one_line(message.text), _LONGEST - len(data))

    def send(self, entry: bytes) -> None:
        """Send a message, over a new connection if the old one is gone. Never waits. Raises OutputError."""
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
                    self._attempts += 1
                    failures += 1
                if is_busy or failures >= self._addresses:
                    raise OutputError(
                        f"{self._address} takes no message: {error.strerror}; check that a syslog server "
                        "listens there, or correct syslog.address (a running agent sends the message later)"
                    ) from error

    def _connect(self) -> socket.socket:
        """Connect to a socket's path, or by UDP to the next address of a name. Raises OSError."""
        if isinstance(self._target, str):
            try:
                return _connected(socket.AF_UNIX, socket.SOCK_DGRAM, self._target)
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:
                    raise
            return _connected(socket.AF_UNIX, socket.SOCK_STREAM, self._target)
        endpoints = _resolve(*self._target)
        self._addresses = len(endpoints)
        endpoint = endpoints[self._attempts % len(endpoints)]
        return _connected(endpoint.family, socket.SOCK_DGRAM, endpoint.sockaddr)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _send(sock: socket.socket, entry: bytes) -> None:
    """Send an entry whole. Raises OSError. A stream's entries end with a NUL, as libc's do."""
    data = entry + b"\0" if sock.type == socket.SOCK_STREAM else entry
    if sock.send(data, socket.MSG_NOSIGNAL) < len(data):
        raise OSError(errno.EMSGSIZE, "the server took part of a message")  # the rest would come too late
    # This host's own refusal is known at once, one from the network only when the next message is sent.
    if refusal := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(refusal, os.strerror(refusal))


def _resolve(host: str, port: int) -> Sequence[Endpoint]:
    names = Resolution([(host, port)])
    names.wait(_RESOLVE_TIMEOUT_S)
    answer = names.answer(host, port)
    if isinstance(answer, SourceFailure):
        raise OSError(errno.EHOSTUNREACH, f"{host}: {answer.detail or answer.reason}")
    return [*filter(is_routable, answer)] or answer


def _connected(family: int, kind: int, address: str | tuple[str, int] | tuple[str, int, int, int]) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _time_quality(message: LogEntry) -> str:
    """Return the maximum error of the clock, rounded up, or that it is unknown (RFC 5424 §7.1, I3).

    The zone is known: all timestamps are UTC. RFC 5424 forbids syncAccuracy beside isSynced="0".
    """
    if message.clock_error_s is None:
        return '[timeQuality tzKnown="1" isSynced="0"]'
    accuracy = to_microseconds(message.clock_error_s, "up")
    return f'[timeQuality tzKnown="1" isSynced="1" syncAccuracy="{accuracy}"]'


def _graphic(text: str, limit: int) -> str:
    """Return a header field: visible ASCII without spaces, cut to a length, `-` if empty."""
    return "".join(character if "!" <= character <= "~" else "_" for character in text[:limit]) or _NIL

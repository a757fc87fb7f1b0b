"""The control messages of NTP, mode 6 (RFC 9327): ask an ntpd on loopback for its variables."""

import re
import socket
import struct
import time
from collections.abc import Mapping
from typing import NamedTuple

READ_STATUS = 1
READ_VARIABLES = 2

_HEADER = struct.Struct("!BBHHHHH")
_VERSION_AND_MODE = 2 << 3 | 6  # version 2, as ntpq sends it: every ntpd replies to it
_MODE, _RESPONSE, _ERROR, _MORE, _OPERATION = 0x07, 0x80, 0x40, 0x20, 0x1F
_MAX_OCTETS = 16_384  # no reply is as long: ntpq takes 32 fragments at most (MAXFRAGS)
_MAX_DATAGRAMS = 128
_MAX_NUMBER = 1e15  # a stored record with much larger ones could not be read

# compiled only where an ntpd is asked
_VARIABLE = r'[\s,]*+([^\s=,"]++)\s*+(?:=\s*+(?:"([^"]*+)"\s*+(?=,|\Z)|([^,]*+)))?+(?:,|\Z)'
_DECIMAL = r"[-+]?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][-+]?[0-9]{1,3})?"
_TIMESTAMP = r"0x([0-9a-fA-F]{8})\.([0-9a-fA-F]{8})"


class Reply(NamedTuple):
    """A whole reply: its status word and its data."""

    status: int
    data: bytes


class Failure(NamedTuple):
    """Why a reply has no data."""

    reason: str


MALFORMED = Failure("its reply is malformed")
"""Fragments that do not fit together."""


class Fragments:
    """The fragments of one reply, in any order; datagrams that belong to no reply to this query are ignored."""

    def __init__(self, operation: int, sequence: int, association: int) -> None:
        self._query = (operation, sequence, association)
        self._parts: dict[int, bytes] = {}
        self._status = 0
        self._end: int | None = None

    def add(self, datagram: bytes) -> Reply | Failure | None:
        """Take one datagram, and return the reply once it is complete; None while fragments are missing."""
        if len(datagram) < _HEADER.size:
            return None
        first, second, sequence, status, association, offset, count = _HEADER.unpack_from(datagram)
        query = (second & _OPERATION, sequence, association)
        if first & _MODE != 6 or not second & _RESPONSE or query != self._query:
            return None
        if second & _ERROR:
            return Failure(f"it refuses control messages: error {status >> 8}")  # a code of RFC 9327, section 3.2
        data = datagram[_HEADER.size :][:count]
        end = offset + count
        if len(data) < count or end > _MAX_OCTETS or (second & _MORE and not count):
            return MALFORMED
        if self._parts.setdefault(offset, data) != data:
            return MALFORMED
        if not second & _MORE:
            if self._end not in (None, end):
                return MALFORMED
            self._end, self._status = end, status
        return self._joined()

    def _joined(self) -> Reply | Failure | None:
        joined = b""
        for offset in sorted(self._parts):
            if offset < len(joined):
                return MALFORMED  # fragments overlap
            if offset > len(joined):
                return None
            joined += self._parts[offset]
        if self._end is None or len(joined) < self._end:
            return None
        return Reply(self._status, joined) if len(joined) == self._end else MALFORMED


class Conversation:
    """Queries to the ntpd at one loopback address, one after the other, all before a deadline of CLOCK_MONOTONIC.

    An OSError of `ask` says why there is no reply: TimeoutError, or ConnectionRefusedError where no program listens.
    """

    def __init__(self, asking: socket.socket, deadline: float) -> None:
        self._asking = asking
        self._deadline = deadline
        self._sequence = 0

    def ask(self, operation: int, association: int = 0) -> Reply | Failure:
        """Send one query and wait for its whole reply."""
        self._sequence += 1
        fragments = Fragments(operation, self._sequence, association)
        self._asking.send(_HEADER.pack(_VERSION_AND_MODE, operation, self._sequence, 0, association, 0, 0))
        for _ in range(_MAX_DATAGRAMS):
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            self._asking.settimeout(remaining)
            reply = fragments.add(self._asking.recv(2048))
            if reply is not None:
                return reply
        return MALFORMED


def read_associations(data: bytes) -> dict[int, int]:
    """Return the status word of each association from the data of READ_STATUS; a number that is cut off is ignored."""
    return dict(struct.iter_unpack("!HH", data[: len(data) // 4 * 4]))


def read_variables(data: bytes) -> dict[str, str]:
    """Return the variables of a reply's text, `name=value, name="value"`; of a name given twice the first counts.

    Reading ends at the first text that is no variable: what follows it cannot be divided with certainty.
    """
    text, at, pattern = data.decode("ascii", "replace").rstrip("\0"), 0, re.compile(_VARIABLE)
    variables: dict[str, str] = {}
    while at < len(text) and (found := pattern.match(text, at)):
        name, quoted, bare = found.groups()
        variables.setdefault(name, (bare or "").strip() if quoted is None else quoted)
        at = found.end()
    return variables


def read_float(variables: Mapping[str, str], name: str) -> float | None:
    """Return a decimal number; None if it is missing, or is none."""
    text = variables.get(name) or ""
    value = float(text) if re.fullmatch(_DECIMAL, text) else None
    return value if value is not None and abs(value) <= _MAX_NUMBER else None


def read_int(variables: Mapping[str, str], name: str, limit: int) -> int | None:
    """Return a whole number from 0 to a limit; None if it is missing, or is none."""
    value = read_float(variables, name)
    return int(value) if value is not None and value.is_integer() and 0 <= value <= limit else None


def read_timestamp(variables: Mapping[str, str], name: str) -> int | None:
    """Return a 64-bit NTP timestamp; None if it is missing, zero, or none."""
    found = re.fullmatch(_TIMESTAMP, variables.get(name) or "")
    return (int(found[1] + found[2], 16) or None) if found else None

"""Turn names into addresses, all at once and within a deadline.

`getaddrinfo` can neither be polled nor stopped, so each name gets a thread of its own, left behind when it is late; a
literal address needs none. The threads share nothing but their answers.
"""

import socket
import threading
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ntpaudit.core.ntp.sources import is_loopback
from ntpaudit.core.observation import SourceFailure


class Endpoint(NamedTuple):
    """One address and port to query. `scope` is the interface of a link-local IPv6 address."""

    family: socket.AddressFamily
    address: str
    port: int
    scope: int = 0

    @property
    def sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """The address as the socket calls take it."""
        if self.family == socket.AF_INET6:
            return self.address, self.port, 0, self.scope
        return self.address, self.port

    @property
    def is_loopback(self) -> bool:
        """The address is this machine's own."""
        return is_loopback(self.address)


Resolved = tuple[Endpoint, ...] | SourceFailure


class Resolution:
    """Names being resolved in the background, while the caller does other work."""

    def __init__(self, names: Iterable[tuple[str, int]]) -> None:
        self._answers: dict[tuple[str, int], Resolved] = {}
        self._threads: list[threading.Thread] = []
        self.start(names)

    def start(self, names: Iterable[tuple[str, int]]) -> None:
        """Start to resolve further names."""
        for host, port in dict.fromkeys(names):
            literal = _lookup(host, port, socket.AI_NUMERICHOST)
            if not isinstance(literal, SourceFailure):
                self._answers[host, port] = literal
                continue
            thread = threading.Thread(target=self._resolve, args=(host, port), name=f"resolve {host}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no thread available
                self._answers[host, port] = SourceFailure("unreachable", "name-failed", str(error))
            else:
                self._threads.append(thread)

    def _resolve(self, host: str, port: int) -> None:
        self._answers[host, port] = _lookup(host, port)

    def wait(self, timeout_s: float) -> None:
        """Wait until every name is resolved, at most this long."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def answer(self, host: str, port: int) -> Resolved:
        """Return the addresses of a name in the system's order of preference, or why there are none."""
        return self._answers.get((host, port)) or SourceFailure(
            "unreachable", "name-timeout", "no reply from DNS in time"
        )


def is_routable(endpoint: Endpoint) -> bool:
    """Return whether the system has a route to this address; nothing is sent. False for IPv6 on an IPv4 host."""
    return _own_address(endpoint) is not None


def own_reference_ids(endpoints: Sequence[Endpoint]) -> frozenset[bytes]:
    """Return the reference ids that would mean this host, as the addresses it uses towards these servers (V16).

    An IPv4 address is its own reference id; of an IPv6 address it is the first four octets of the MD5 (RFC 5905 §7.3).
    """
    ids = set()
    for endpoint in endpoints:
        if (address := _own_address(endpoint)) is not None:
            packed = socket.inet_pton(endpoint.family, address.partition("%")[0])
            if endpoint.family == socket.AF_INET6:
                from hashlib import md5  # imported late: only IPv6 needs it

                packed = md5(packed, usedforsecurity=False).digest()[:4]
            ids.add(packed)
    return frozenset(ids)


def _own_address(endpoint: Endpoint) -> str | None:
    try:
        with socket.socket(endpoint.family, socket.SOCK_DGRAM) as sock:
            sock.connect(endpoint.sockaddr)
            return str(sock.getsockname()[0])
    except OSError:
        return None


def _lookup(host: str, port: int, flags: int = 0) -> Resolved:
    try:
        # as octets, an ASCII name is spared Python's IDNA codec, which costs 2 ms to load
        name = host.encode() if host.isascii() else host
        found = socket.getaddrinfo(name, port, type=socket.SOCK_DGRAM, flags=flags)
    except socket.gaierror as error:
        unknown = error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
        return SourceFailure("unreachable", "name-unknown" if unknown else "name-failed", error.strerror or str(error))
    except (OSError, UnicodeError) as error:
        return SourceFailure("unreachable", "name-failed", str(error))
    endpoints = tuple(
        Endpoint(family, str(sockaddr[0]), port, int(sockaddr[3]) if len(sockaddr) == 4 else 0)
        for family, _, _, _, sockaddr in found
        if family in (socket.AF_INET, socket.AF_INET6)
    )
    return endpoints or SourceFailure("unreachable", "name-unknown", "the name has no address")

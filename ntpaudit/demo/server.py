"""A small NTP server on loopback that serves a simulated clock over a simulated network."""

import ipaddress
import math
import sched
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from ntpaudit.core.ntp.packet import MODE_CLIENT, MODE_SERVER
from ntpaudit.core.ntp.time import encode
from ntpaudit.core.units import NS_PER_S

_LAYOUT = struct.Struct("!BBbbII4sQQQQ")


class Behaviour(NamedTuple):
    """The fields of a server's replies, and the network between it and its clients.

    The defaults are a correct server without any error. `offset_s` is how far the served clock is ahead of the host's.
    `request_delay_s` passes before T2 is taken, `reply_delay_s` after T3. `precision` is a power of two, in seconds.
    """

    offset_s: float = 0.0
    stratum: int = 1
    leap: int = 0
    root_delay_s: float = 0.0
    root_dispersion_s: float = 0.0
    reference_id: bytes = b"LOCL"
    precision: int = -20
    request_delay_s: float = 0.0
    reply_delay_s: float = 0.0


class Header(NamedTuple):
    """The 48 octets of an NTP packet (RFC 5905 §7.3) as on the wire: spans in 2**-16 s, timestamps in 2**-32 s."""

    leap: int
    version: int
    mode: int
    stratum: int
    poll: int
    precision: int
    root_delay: int
    root_dispersion: int
    reference_id: bytes
    reference: int
    origin: int
    receive: int
    transmit: int

    @classmethod
    def decode(cls, packet: bytes) -> Self:
        """Read the header at the start of a packet; `struct.error` if the packet is shorter."""
        first, *rest = _LAYOUT.unpack_from(packet)
        return cls(first >> 6, first >> 3 & 7, first & 7, *rest)

    def encode(self) -> bytes:
        """Return the header as octets."""
        return _LAYOUT.pack(self.leap << 6 | self.version << 3 | self.mode, *self[3:])


class NtpServer:
    """An NTP server on a loopback address that replies from a thread during its `with` block.

    `behaviour` may be replaced at any time; `requests` counts the requests. A subclass that misbehaves overrides
    `reply`. ValueError for an address other than loopback. `now` reads the served clock.
    """

    port: int

    def __init__(
        self, behaviour: Behaviour | None = None, address: str = "127.0.0.1", now: Callable[[], int] = time.time_ns
    ) -> None:
        loopback = ipaddress.ip_address(address)
        if not loopback.is_loopback:
            raise ValueError(f"{address} is not a loopback address")
        self.behaviour = behaviour or Behaviour()
        self.address = address
        self._now = now
        self.requests = 0
        self._family = socket.AF_INET if loopback.version == 4 else socket.AF_INET6
        self._actions = sched.scheduler(time.monotonic, lambda _: None)  # no pause between a timestamp and its sending

    def __enter__(self) -> Self:
        self._socket = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            self._socket.bind((self.address, 0))
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name=f"ntp-server-{self.port}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.close()  # which makes the other end readable
        self._thread.join()
        self._stopped.close()
        self._socket.close()

    def reply(self, header: Header, client: tuple[Any, ...]) -> None:
        """Send a correct reply."""
        self.send(header.encode(), client)

    def send(self, payload: bytes, client: tuple[Any, ...], delay_s: float = 0.0) -> None:
        """Send a datagram to a client, that much later than the network's delay."""
        self._actions.enter(self.behaviour.reply_delay_s + delay_s, 0, self._socket.sendto, (payload, client))

    def _serve(self) -> None:
        # select, because epoll rounds its timeouts up to the millisecond, which would blur the simulated delays.
        with selectors.SelectSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while True:
                due_s = self._actions.run(blocking=False)
                ready = [key.fileobj for key, _ in selector.select(due_s)]
                if self._stopped in ready:
                    return
                if self._socket in ready:
                    self._receive()

    def _receive(self) -> None:
        try:
            request, client = self._socket.recvfrom(2048)
        except BlockingIOError:  # a datagram with a bad checksum wakes us and is gone
            return
        self.requests += 1
        self._actions.enter(self.behaviour.request_delay_s, 0, self._answer, (request, client))

    def _answer(self, request: bytes, client: tuple[Any, ...]) -> None:
        if len(request) < _LAYOUT.size or request[0] & 7 != MODE_CLIENT:
            return
        asked, behaviour, received = Header.decode(request), self.behaviour, encode(self._served_ns())
        header = Header(
            leap=behaviour.leap,
            version=asked.version,
            mode=MODE_SERVER,
            stratum=behaviour.stratum,
            poll=asked.poll,
            precision=behaviour.precision,
            root_delay=to_short(behaviour.root_delay_s),
            root_dispersion=to_short(behaviour.root_dispersion_s),
            reference_id=behaviour.reference_id,
            reference=received,  # as if the clock were corrected without pause
            origin=asked.transmit,
            receive=received,
            transmit=encode(self._served_ns()),
        )
        self.reply(header, client)

    def _served_ns(self) -> int:
        return self._now() + round(self.behaviour.offset_s * NS_PER_S)


def to_short(span_s: float) -> int:
    """Return a span in units of 2**-16 s, rounded up: a bound must not shrink."""
    return math.ceil(span_s * 65536)

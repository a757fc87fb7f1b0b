"""Query NTP servers, all at once, with the best timestamps that the system offers."""

import errno
import os
import selectors
import socket
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.ntp.measurement import ExchangeTimestamps, Measurement, measure
from ntpaudit.core.ntp.packet import UnusableReply, build_request, read_reply
from ntpaudit.core.observation import SourceFailure
from ntpaudit.probes.clock import Clock
from ntpaudit.probes.resolve import Endpoint
from ntpaudit.probes.timestamping import receive, request_stamps, sent_stamp

_BUFFER_SIZE = 4096  # W5: more than any reply we could want, so that a longer one is seen to be cut
_BATCH = 256
_MAX_STAMP_DELAY_NS = 1_000_000_000  # T6, chrony's MAX_TS_DELAY

_FAILURES = {
    errno.ECONNREFUSED: ("refused", "no service on that port"),
    errno.ENETUNREACH: ("net-unreachable", "no route to that network"),
    errno.EADDRNOTAVAIL: ("net-unreachable", "no address of that family here"),
    errno.EAFNOSUPPORT: ("net-unreachable", "that address family is not supported here"),
    errno.EHOSTUNREACH: ("host-unreachable", "no route to that host"),
    errno.EPERM: ("forbidden", "a firewall or sandbox forbids it here"),
    errno.EACCES: ("forbidden", "a firewall or sandbox forbids it here"),
}


class ExchangeResult(NamedTuple):
    """The result of one exchange. `is_own`: the queried address is this host's. `is_sent`: a query left the host."""

    endpoint: Endpoint
    outcome: Measurement | SourceFailure
    discarded: Counter[str]
    is_own: bool
    is_sent: bool


def exchange_all(
    targets: Sequence[tuple[Endpoint, ...]], clock: Clock, timeout_s: float, own_ids: frozenset[bytes] = frozenset()
) -> tuple[ExchangeResult, ...]:
    """Query every target once, all at the same time; return the answers in the order of the targets.

    A target is the addresses of one server in order of preference: the next is tried only if the system or the host
    refuses one at once. The deadline is hard: no stray or forged datagram moves it (V7).
    """
    deadline_ns = clock.read().monotonic_ns + int(timeout_s * 1e9)
    conversations = [_Conversation(endpoints, clock, deadline_ns, own_ids) for endpoints in targets]
    with selectors.DefaultSelector() as selector:
        try:
            for conversation in conversations:
                conversation.outcome = conversation.try_next(selector)
            while any(conversation.outcome is None for conversation in conversations):
                left_ns = deadline_ns - clock.read().monotonic_ns
                if left_ns <= 0:
                    break
                for key, _ in selector.select(left_ns / 1e9):
                    key.data.advance(selector)
            return tuple(conversation.finish() for conversation in conversations)
        finally:
            for conversation in conversations:
                conversation.close()


class _Conversation:
    """One exchange with one server: a new connected socket, one request, and its replies (Q3)."""

    def __init__(
        self, endpoints: tuple[Endpoint, ...], clock: Clock, deadline_ns: int, own_ids: frozenset[bytes]
    ) -> None:
        self._untried = list(endpoints)
        self._clock = clock
        self._deadline_ns = deadline_ns
        self._own_ids = own_ids
        self._socket: socket.socket | None = None
        self._nonce = 0
        self._sent_ns: int | None = None  # the kernel's T1
        self._peer: tuple[str, int] | None = None
        self.endpoint = endpoints[0]
        self.is_own = self.is_sent = False
        self.outcome: Measurement | SourceFailure | None = None
        self.discarded: Counter[str] = Counter()

    def try_next(self, selector: selectors.BaseSelector) -> SourceFailure | None:
        """Query the next address; return the failure if none is left."""
        failure = SourceFailure("unreachable", "net-unreachable", "no address is left to try")
        while self._untried:
            self.endpoint = self._untried.pop(0)
            try:
                sock = self._send()
            except OSError as error:
                failure = _failure(error)
                self.close()
            else:
                selector.register(sock, selectors.EVENT_READ, self)
                return None
        return failure

    def _send(self) -> socket.socket:
        """Open a socket of a random port to one address and send the request, stamped (requirements T1, T2, T3)."""
        self._socket = sock = socket.socket(self.endpoint.family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        request_stamps(sock)
        sock.connect(self.endpoint.sockaddr)  # V4: the kernel passes on what this address and port sent, nothing else
        self._peer = sock.getpeername()[:2]
        self.is_own = sock.getsockname()[0] == self._peer[0]
        self._nonce = int.from_bytes(os.urandom(8), "big") or 1  # what `secrets` reads, without its imports
        request = build_request(self._nonce)
        self._before = self._clock.read()
        sock.send(request)
        self.is_sent = True
        self._after_send_ns = self._clock.read().realtime_ns
        self._sent_ns = sent_stamp(sock)
        return sock

    def advance(self, selector: selectors.BaseSelector) -> None:
        sock = self._socket
        try:
            self._read()
        except OSError as error:
            if self.outcome is not None or sock is None:
                return
            selector.unregister(sock)
            self.close()
            refusing = self.endpoint
            if self.try_next(selector) is not None:  # the error of an address explains more than "none is left"
                self.endpoint, self.outcome = refusing, _failure(error)

    def _read(self) -> None:
        """Read what waits, a flood only in part so that the deadline is looked at; the server's own answer decides."""
        for _ in range(_BATCH):
            if (sock := self._socket) is None:
                return
            self._sent_ns = self._sent_ns or sent_stamp(sock)
            try:
                data, stamp_ns, cut, sender = receive(sock, _BUFFER_SIZE)
            except BlockingIOError:
                return
            after = self._clock.read()
            self._take(data, stamp_ns, cut, sender == self._peer, after)

    def _take(self, data: bytes, stamp_ns: int | None, cut: bool, from_peer: bool, after: ClockReading) -> None:
        reply = read_reply(data, self._nonce, own_ids=self._own_ids, from_peer=from_peer)
        if cut:
            reply = UnusableReply("malformed", ours=not isinstance(reply, UnusableReply) or reply.ours)
        if stamp_ns is not None and not 0 <= after.realtime_ns - stamp_ns <= _MAX_STAMP_DELAY_NS:
            stamp_ns = None  # not credible (T6)
        waited_ns = 0 if stamp_ns is None else after.realtime_ns - stamp_ns
        if isinstance(reply, UnusableReply) and not reply.ours:
            self.discarded[reply.reason] += 1
        elif self.outcome is not None:
            self.discarded["duplicate"] += 1  # V6
        elif after.monotonic_ns - waited_ns > self._deadline_ns:
            self.outcome = SourceFailure("rejected", "late", "the reply came after the deadline")  # V7
        else:
            said = reply if isinstance(reply, UnusableReply) else measure(reply, self._stamps(stamp_ns, after))
            self.outcome = said if isinstance(said, Measurement) else SourceFailure("rejected", said.reason)

    def _stamps(self, arrived_ns: int | None, after: ClockReading) -> ExchangeTimestamps:
        """Choose the kernel's stamps where they are credible, our own otherwise (T6)."""
        sent_ns = self._sent_ns
        if sent_ns is not None and not self._before.realtime_ns <= sent_ns <= self._after_send_ns:
            sent_ns = None
        return ExchangeTimestamps(
            sent_ns=self._before.realtime_ns if sent_ns is None else sent_ns,
            arrived_ns=after.realtime_ns if arrived_ns is None else arrived_ns,
            before=self._before,
            after=after,
            timestamping="user" if sent_ns is None or arrived_ns is None else "kernel",
        )

    def finish(self) -> ExchangeResult:
        try:
            self._read()
        except OSError as error:
            self.outcome = self.outcome or _failure(error)
        outcome = self.outcome
        if outcome is None and self.discarded:
            outcome = SourceFailure(
                "rejected", self.discarded.most_common(1)[0][0], "only replies that do not answer the query"
            )
        elif outcome is None:
            outcome = SourceFailure("unreachable", "timeout", "no reply in time")
        return ExchangeResult(self.endpoint, outcome, self.discarded, self.is_own, self.is_sent)

    def close(self) -> None:
        """Close the socket; the nonce is forgotten with it (V6)."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _failure(error: OSError) -> SourceFailure:
    reason, detail = _FAILURES.get(error.errno or 0, ("network-error", error.strerror or str(error)))
    return SourceFailure("unreachable", reason, detail)

"""Section 7: real packets through a relay whose delays are known, and what each client makes of them."""

import heapq
import random
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import ntplib

from ntpaudit.core.ntp.measurement import Measurement
from ntpaudit.probes.clock import SystemClock
from ntpaudit.probes.ntp import exchange_all
from ntpaudit.probes.resolve import Endpoint
from ntpaudit.probes.timestamping import stamping_enabled
from tests.bench.__main__ import chronyd_query
from tests.truth.statistics import Results
from tests.world.packages import environment, program
from tests.world.servers import chronyd

RUNS = 30


class Line(NamedTuple):
    """The delay in each direction, in seconds, and the mean of what is added to each at random."""

    there_s: float
    back_s: float
    jitter_s: float


LINES: Mapping[str, Line] = {
    "5 ms each way": Line(0.005, 0.005, 0.0),
    "10 ms each way, 3 ms of jitter": Line(0.010, 0.010, 0.003),
    "5 ms there, 45 ms back, 1 ms of jitter": Line(0.005, 0.045, 0.001),
}

CLIENTS = ("ntpaudit", "ntplib", "chronyd -Q", "check_ntp_time")

_OFFSET = re.compile(r"offset=(-?[0-9.]+(?:e-?[0-9]+)?)s?", re.IGNORECASE)


class Relay:
    """Passes datagrams between clients and a server on loopback, each after its delay."""

    def __init__(self, line: Line, server: tuple[str, int], seed: int) -> None:
        self._line = line
        self._server = server
        self._rand = random.Random(seed)
        self._clients = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._clients.bind(("127.0.0.1", 0))
        self.port: int = self._clients.getsockname()[1]
        self._towards: dict[tuple[str, int], socket.socket] = {}
        self._waiting: list[tuple[float, int, socket.socket, bytes, tuple[str, int] | None]] = []
        self._count = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._clients, selectors.EVENT_READ)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Relay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        for sock in (self._clients, *self._towards.values()):
            sock.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._ends.is_set():
            next_s = self._waiting[0][0] - time.monotonic() if self._waiting else 0.05
            for key, _ in self._selector.select(max(0.0, min(0.05, next_s))):
                self._receive(key.fileobj)  # type: ignore[arg-type]
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, _, sock, datagram, client = heapq.heappop(self._waiting)
                if client is None:
                    sock.send(datagram)
                else:
                    sock.sendto(datagram, client)

    def _receive(self, sock: socket.socket) -> None:
        datagram, sender = sock.recvfrom(2048)
        if sock is self._clients:
            if sender not in self._towards:
                towards = self._towards[sender] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                towards.connect(self._server)
                self._selector.register(towards, selectors.EVENT_READ, sender)
            self._send_later(self._line.there_s, self._towards[sender], datagram, None)
        else:
            self._send_later(self._line.back_s, self._clients, datagram, self._selector.get_key(sock).data)

    def _send_later(self, delay_s: float, sock: socket.socket, datagram: bytes, client: tuple[str, int] | None) -> None:
        jitter_s = self._rand.expovariate(1 / self._line.jitter_s) if self._line.jitter_s else 0.0
        self._count += 1
        heapq.heappush(self._waiting, (time.monotonic() + delay_s + jitter_s, self._count, sock, datagram, client))


@contextmanager
def _relayed(line: Line, seed: int) -> Iterator[int]:
    """Run a chronyd that serves this machine's clock, so that the true offset is 0, behind a relay."""
    with chronyd() as server, Relay(line, (server.address, server.port), seed) as relay:
        yield relay.port


def _check_ntp_time(port: int) -> float:
    """Return the offset that the monitoring plugin prints, in seconds."""
    words = [str(program("check_ntp_time")), "-H", "127.0.0.1", "-p", str(port), "-w", "60", "-c", "120"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=30)
    if (found := _OFFSET.search(done.stdout)) is None:
        raise RuntimeError(done.stdout + done.stderr)
    return float(found[1])


def run(seed: int, runs: int = RUNS) -> Results:
    """Ask through each line with each client. Errors: `packets` by line and client. Shares: `packets held` by line."""
    found = Results()
    for name, line in LINES.items():
        with _relayed(line, seed) as port, stamping_enabled():
            endpoint, client = Endpoint(socket.AF_INET, "127.0.0.1", port), ntplib.NTPClient()
            for done in range(runs):
                outcome = exchange_all([(endpoint,)], SystemClock(), 2.0)[0].outcome
                assert isinstance(outcome, Measurement), outcome
                found.error("packets", name, "ntpaudit").add(outcome.offset_ns / 1e9)
                found.share("packets held", name).count(outcome.interval.covers(0))
                found.sum("packets width", name).add(outcome.interval.half_width_ns / 1e9)
                found.error("packets", name, "ntplib").add(client.request("127.0.0.1", port=port, version=4).offset)
                found.error("packets", name, "chronyd -Q").add(chronyd_query("127.0.0.1", port))
                found.error("packets", name, "check_ntp_time").add(_check_ntp_time(port))
                if sys.stderr.isatty():
                    print(f"\r{name}: {done + 1} of {runs} ", end="", file=sys.stderr)
    return found

"""A database of the InfluxDB 2 family that misbehaves on command, before a real one: each fault is really on the wire.

What it forwards, it turns into InfluxDB 1.x's `/write`, so that a real server of that line can stand behind it.
"""

import contextlib
import http.client
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import run
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.world.packages import environment, program
from tests.world.servers import free_port

HANG_S = 30.0
"""A server that hangs answers after this, unless it is closed."""


class Request(NamedTuple):
    """A request that came in; `lines` is its body, unpacked. What is no text stands in it as surrogates."""

    target: str
    headers: Mapping[str, str]
    lines: str
    method: str = "POST"


class Answer(NamedTuple):
    """An answer of our own, without asking the database."""

    status: int
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def octets(self) -> bytes:
        """The answer as it is sent."""
        body = self.body.encode()
        headers = [f"{name}: {value}" for name, value in (*self.headers, ("Content-Length", str(len(body))))]
        return "\r\n".join([f"HTTP/1.1 {self.status} Said", *headers, "", ""]).encode() + body


class Octets(NamedTuple):
    """Anything at all, sent instead of an answer, every `pause_s` one octet; then the connection is closed."""

    octets: bytes
    pause_s: float = 0.0


class Reset(NamedTuple):
    """The connection is reset: before the database gets the lines, or after, or in the middle of its answer."""

    when: str


class Hang(NamedTuple):
    """Nothing is answered for long; the database gets the lines first if `stored`."""

    stored: bool = False


class Forward(NamedTuple):
    """The database answers."""


Fault = Answer | Octets | Reset | Hang | Forward
FORWARD = Forward()


class FlakyDatabase:
    """The server. `choose` returns the action for each request, and may be replaced at any time."""

    def __init__(
        self,
        upstream: str | None = None,
        choose: Callable[[Request], Fault] = lambda request: FORWARD,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.upstream = upstream
        self.choose = choose
        self.dates = True
        """Whether its answers have the Date of the real database; where time is simulated, that is another time."""
        self.strips_encoding = False
        """Whether it passes bodies on without saying that they are compressed, as some proxies do."""
        self.requests: list[Request] = []
        self.connections = 0
        self._tls = tls
        self._port = free_port("127.0.0.1", socket.SOCK_STREAM)
        self._listener: socket.socket | None = None
        self._ended = threading.Event()
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def __enter__(self) -> "FlakyDatabase":
        self.listen()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self.refuse()

    def listen(self) -> None:
        """Take connections."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port), backlog=64)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Refuse connections, and end those there are."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in list(self._open):
            _reset(connection)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Answer the requests of one connection."""
        with contextlib.suppress(OSError, http.client.HTTPException):  # the client, or a fault, ended it
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.add(connection)
            with connection, connection.makefile("rb") as reader:
                while self._answer(connection, reader):
                    pass
        self._open.discard(connection)

    def _answer(self, connection: socket.socket, reader) -> bool:  # type: ignore[no-untyped-def]
        """Answer one request; False where the connection is over."""
        words = reader.readline().split()
        if len(words) < 2:
            return False
        headers = {name.lower(): value for name, value in http.client.parse_headers(reader).items()}
        body = reader.read(int(headers.get("content-length", 0)))
        packed = headers.get("content-encoding") == "gzip"
        request = Request(
            words[1].decode(errors="replace"),
            headers,
            (zlib.decompress(body, 31) if packed else body).decode(errors="surrogateescape"),
            words[0].decode(errors="replace"),
        )
        self.requests.append(request)
        match self.choose(request):
            case Forward():
                connection.sendall(self._forward(request, body))
            case Answer() as answer:
                connection.sendall(answer.octets)
            case Octets(octets, pause_s):
                self._drip(connection, octets, pause_s)
                return False
            case Hang(stored):
                if stored:
                    self._forward(request, body)
                self._ended.wait(HANG_S)
                return False
            case Reset("before"):
                _reset(connection)
                return False
            case Reset(when):
                answered = self._forward(request, body)
                connection.sendall(answered[: len(answered) // 2] if when == "middle" else b"")
                _reset(connection)
                return False
        return True

    def _drip(self, connection: socket.socket, octets: bytes, pause_s: float) -> None:
        """Send octets, all at once or one by one."""
        for octet in [octets] if not pause_s else [octets[place : place + 1] for place in range(len(octets))]:
            connection.sendall(octet)
            if self._ended.wait(pause_s):
                return

    def _forward(self, request: Request, body: bytes) -> bytes:
        """Let the real database answer, and return its answer as it is to be sent."""
        assert self.upstream is not None
        path, _, asked = request.target.partition("?")
        target = request.target
        if path.endswith("/api/v2/write"):  # which version 1 does not know
            write = parse_qs(asked)
            target = f"/write?{urlencode({'db': write['bucket'][0], 'precision': write['precision'][0][0]})}"
        upstream = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=10)
        try:
            kept = (
                ("content-type", "accept") if self.strips_encoding else ("content-encoding", "content-type", "accept")
            )
            headers = {name: value for name, value in request.headers.items() if name in kept}
            upstream.request(request.method, target, body, headers)
            got = upstream.getresponse()
            passed_on = (
                "Content-Type",
                "X-Influxdb-Build",
                "X-Influxdb-Error",
                "X-Influxdb-Version",
                "X-Server-Hostname",
                "Server",
                *(["Date"] if self.dates else []),
            )
            said = tuple((name, got.headers[name]) for name in passed_on if name in got.headers)
            return Answer(got.status, got.read().decode(), said).octets
        finally:
            upstream.close()


def _reset(connection: socket.socket) -> None:
    """End a connection without a farewell."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)  # wakes our own reader, and lets the close below it reset
    with contextlib.suppress(OSError):
        connection.close()


@contextmanager
def certificate(name: str = "IP:127.0.0.1", days: int = 2) -> Iterator[tuple[ssl.SSLContext, Path]]:
    """Make a certificate that signs itself, for the server and, as a file, for the client's trust."""
    with TemporaryDirectory(prefix="certificate-") as folder:
        key, certificate_file = Path(folder, "key.pem"), Path(folder, "certificate.pem")
        made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days)]
        subject = ["-subj", "/CN=flaky", "-addext", f"subjectAltName={name}"]
        out = ["-keyout", str(key), "-out", str(certificate_file)]
        run([str(program("openssl")), *made, *subject, *out], check=True, capture_output=True, env=environment())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate_file, key)
        yield context, certificate_file

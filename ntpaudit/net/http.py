"""Questions to a database over HTTP, several at once: every failure is told with what would mend it."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeVar

from ntpaudit.errors import ReadError, UnexpectedReplyError
from ntpaudit.render.text_safety import one_line

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

MAX_ANSWER = 256 << 20
"""No answer may be longer than this, neither as it is sent nor unpacked, in bytes."""

MAX_AT_ONCE = 384 << 20
"""All answers that are being read at one time may have no more than this, unpacked, in bytes."""

MAX_MEMBERS = 1000
"""An answer may be compressed in this many pieces (RFC 1952 §2.2): each costs time, also an empty one."""

MAX_CONTAINERS = 1 << 20
BYTES_PER_CONTAINER = 16
"""JSON may have MAX_CONTAINERS lists and objects, and one more per BYTES_PER_CONTAINER: each takes 100 bytes of memory.

The shortest that a database sends is a sample, such as [1795015000,"1"], of 17 bytes.
"""

MAX_WEIGHT = 20_000_000
WEIGHT_OF_CONTAINER = 4
OCTETS_PER_WEIGHT = 32
WIDE_OCTETS_PER_WEIGHT = 4
KEYS_PER_OBJECT = 6
WEIGHT_OF_KEY = 2
"""What all answers from one snapshot to the next may weigh. One is at most about 60 bytes of memory: a value or a line,
which end in a comma or in a line's end; a quarter of a list or an object; or so many octets, fewer where they are not
ASCII, for then Python may take four bytes for each. Keys weigh more where an object has many: these are not the few
that repeat, and Python holds each of them as a text.

A snapshot of 10,000 hosts weighs up to 1.7 million.
"""

_WIDE_ESCAPE = re.compile(rb"\\u(?!00)")  # JSON writes a character so that takes Python more than a byte

MAX_REASON = 300
"""How much is told of what a server says of itself, in characters."""

_MAX_GET = 2000  # a longer question is posted: proxies refuse long addresses
_AT_ONCE = 1 << 20
_PATIENCE = 6  # so many timeouts a whole answer may take, however steadily it trickles
_GZIP_BITS = 31  # zlib's number for gzip's container

Kind = Literal["InfluxDB", "VictoriaMetrics"]
"""A family of databases."""

KEYS: Mapping[str, str] = MappingProxyType({key: f"fleet.{key}" for key in ("url", "language", "database")})
"""What the operator calls the words that say where to read, unless told otherwise."""

BUILD = "/api/v1/status/buildinfo"
"""Where VictoriaMetrics tells what it is."""

_WRITTEN = {"influxql": "InfluxQL", "promql": "PromQL"}
_TELLTALE = "X-Influxdb-Version"

Got = TypeVar("Got")


class Server:
    """A database's HTTP server: verified where it speaks TLS, asked through no proxy, followed nowhere else.

    `where` names it in messages. It may be asked from several threads at once. Not by urllib3, whose import takes
    longer than reading a thousand hosts.
    """

    def __init__(
        self,
        url: str,
        *,
        scheme: str,
        token: str | None = None,
        ca_file: str | None = None,
        timeout_s: float = 10.0,
        language: str = "influxql",
        keys: Mapping[str, str] = KEYS,
    ) -> None:
        """Make ready; nothing is sent yet. ReadError for a URL or a token that no request can have.

        `scheme` is the word before the token, which goes into a header, and into nothing else. Messages name the
        `language`, and what to mend by its name in `keys`.
        """
        self.keys = keys
        self._scheme, self._host, self._port, self._path = _parts_of(url, keys["url"])
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ReadError("the token holds characters that no request can carry", "check fleet.token_file")
        self.where = url.rstrip("/")
        self._language = _WRITTEN[language]
        self._says_influxdb = False
        self._has_answered = False
        self._token = token
        self._headers = {"User-Agent": "ntpaudit", "Accept-Encoding": "gzip", "Cache-Control": "no-cache"}
        if _is_here(self._host):
            del self._headers["Accept-Encoding"]  # packing takes longer than such a line does
        if token:
            self._headers["Authorization"] = f"{scheme} {token}"
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._idle: list[HTTPConnection] = []
        self._budget = threading.Lock()
        self._being_read = 0
        self._weight = 0
        self.skew_s: float | None = None
        """How far its clock is ahead of this machine's, by its last answer and within a second."""
        self._is_closed = False

    def ask(self, path: str, parameters: Mapping[str, str], accept: str = "application/json") -> bytes:
        """Return the body of the answer to a question. ReadError where it is not a good one."""
        from urllib.parse import urlencode

        with self._telling():
            words = urlencode(parameters)
            if len(words) <= _MAX_GET:
                return self._exchange("GET", f"{self._path}{path}?{words}", None, {"Accept": accept})
            form = {"Accept": accept, "Content-Type": "application/x-www-form-urlencoded"}
            return self._exchange("POST", self._path + path, words, form)

    def reset_weight(self) -> None:
        """Count anew what answers weigh: what earlier ones held is not needed any more."""
        with self._budget:
            self._weight = 0

    def look(self, path: str) -> None:
        """Ask only for what the database's clock shows, whatever else it answers. ReadError where it does not."""
        try:
            self.ask(path, {})
        except ReadError:
            if not self._has_answered:
                raise

    def close(self) -> None:
        """Close every connection; what still waits for an answer closes its own when it has it."""
        self._is_closed = True
        while (connection := self._kept()) is not None:
            connection.close()

    def failure(self, why: object, fix: str) -> ReadError:
        """Return what is wrong with an answer, by a text from anywhere, and what would mend it."""
        return ReadError(f"{self.where}: {self._tidy(why)}", fix)

    def strange(self, why: object) -> UnexpectedReplyError:
        """Return that what answers may be no such database, by a text from anywhere."""
        fix = f"check {self.keys['url']} and {self.keys['language']}"
        return UnexpectedReplyError(f"{self.where}: asked in {self._language}, {self._tidy(why)}", fix)

    def kind(self) -> Kind | None:
        """Return what answers, where it tells for certain. VictoriaMetrics calls itself InfluxDB here and there.

        ReadError where it is Prometheus, or of its kin: those tell more of how they were built.
        """
        import json

        try:
            answer = json.loads(self.ask(BUILD, {}))
        except (ReadError, ValueError, RecursionError):
            answer = None
        match answer:
            case {"status": "success", "data": {"revision": _} as build}:
                raise self.failure(
                    f"this is {build.get('application') or 'Prometheus, Thanos or Mimir'}, which cannot be read: "
                    "it lacks VictoriaMetrics' /api/v1/export",
                    f"name an InfluxDB or VictoriaMetrics in {self.keys['url']}",
                )
            case {"status": "success"}:
                return "VictoriaMetrics"
        return "InfluxDB" if self._says_influxdb else None

    def _tidy(self, text: object) -> str:
        """Make a foreign text fit for one line of a message; a server that echoes the token is not believed on that."""
        said = str(text)
        if self._token:
            said = said.replace(self._token, "***")
        return one_line(said).strip()[:MAX_REASON]

    def _exchange(self, method: str, target: str, body: str | None, headers: Mapping[str, str]) -> bytes:
        """Ask on a connection that was kept, else on a new one: the server may have given up the old one meanwhile."""
        from http.client import RemoteDisconnected

        if (connection := self._kept()) is not None:
            with suppress(RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                return self._use(connection, method, target, body, headers)
        return self._use(self._connect(), method, target, body, headers)

    def _kept(self) -> "HTTPConnection | None":
        """Take a connection that was kept, if there is one: another thread may have been quicker."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _use(
        self, connection: "HTTPConnection", method: str, target: str, body: str | None, headers: Mapping[str, str]
    ) -> bytes:
        """Ask on a connection, which is kept unless something went wrong."""
        is_sound = False
        try:
            with self._limited(connection):
                connection.request(method, target, body, {**self._headers, **headers})
                with connection.getresponse() as answer:
                    self._has_answered = True
                    self.skew_s = _skew_s(answer.headers.get("Date"), time.time())
                    self._says_influxdb = self._says_influxdb or _TELLTALE in answer.headers
                    read = self._read(answer)
            is_sound = not answer.will_close
        finally:
            if is_sound and not self._is_closed:
                self._idle.append(connection)
            else:
                connection.close()
        return read

    def _connect(self) -> "HTTPConnection":
        """Open a connection."""
        from http.client import HTTPConnection, HTTPSConnection

        from ntpaudit.net.whole_response import WholeResponse

        if self._scheme == "http":
            connection = HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        else:
            import ssl

            try:
                context = ssl.create_default_context(cafile=self._ca_file)
            except OSError as error:
                raise self.failure(f"{self._ca_file}: {error.strerror or error}", "check fleet.ca_file") from error
            connection = HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)
        connection.response_class = WholeResponse
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _limited(self, connection: "HTTPConnection") -> Iterator[None]:
        """Cut a connection unless a block ends in time: a server that answers octet by octet exceeds no timeout."""
        import socket

        line = connection.sock
        was_cut = threading.Event()

        def cut() -> None:
            was_cut.set()
            with suppress(OSError):  # it may just have ended by itself
                socket.socket.shutdown(line, socket.SHUT_RDWR)  # of TLS too: its own would confuse the reader

        timer = threading.Timer(_PATIENCE * self._timeout_s, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if was_cut.is_set():
                raise TimeoutError

    def _read(self, answer: "HTTPResponse") -> bytes:
        """Return the body of a good answer."""
        from http.client import IncompleteRead

        if answer.status != 200:
            raise self._refusal(answer)
        parts, length = [], 0
        try:
            for part in self._unpacked(answer):
                parts.append(part)
                length += len(part)
                self._take(len(part), _weight(part))
                if length > MAX_ANSWER:
                    raise self._too_long(MAX_ANSWER)
        finally:
            self._take(-length)
        if answer.length:
            raise IncompleteRead(b"", answer.length)
        read = b"".join(parts)
        if not read.isascii() or _WIDE_ESCAPE.search(read):
            self._take(0, len(read) // WIDE_OCTETS_PER_WEIGHT)
        if read.count(b"[") + read.count(b"{") > MAX_CONTAINERS + len(read) // BYTES_PER_CONTAINER:
            raise self.strange("the answer is mostly brackets")
        return read

    def _take(self, count: int, weight: int = 0) -> None:
        """Count bytes that are in memory while they are read, and what they weigh from then on.

        ReadError where all answers together are too much.
        """
        with self._budget:
            self._being_read += count
            self._weight += weight
            is_too_much, is_too_heavy = self._being_read > MAX_AT_ONCE, self._weight > MAX_WEIGHT
        if count > 0 and is_too_much:
            raise self._too_long(MAX_AT_ONCE)
        if weight and is_too_heavy:
            raise self.failure("the answers hold more values than fit into memory", "ask for one site: --site")

    def _too_long(self, limit: int) -> ReadError:
        """Return that there is more to read than fits."""
        return self.failure(f"an answer is longer than {limit >> 20} MiB", "ask for one site: --site")

    def _unpacked(self, answer: "HTTPResponse") -> Iterator[bytes]:
        """Yield a body in parts, as it was before it was packed."""
        packing = (answer.headers.get("Content-Encoding") or "identity").strip().lower()
        if packing not in ("identity", "gzip"):
            raise self.strange(f"the answer is packed as {packing}, which nobody asked for")
        sent = self._sent(answer)
        if packing == "identity":
            yield from sent
            return
        import zlib

        unpacker, members = zlib.decompressobj(wbits=_GZIP_BITS), 1
        while part := unpacker.unconsumed_tail or unpacker.unused_data or next(sent, b""):
            if unpacker.eof:  # it may be packed in several pieces (RFC 1952, 2.2)
                unpacker, members = zlib.decompressobj(wbits=_GZIP_BITS), members + 1
                if members > MAX_MEMBERS:
                    raise self.strange(f"the answer is compressed in more than {MAX_MEMBERS} pieces")
            try:
                yield unpacker.decompress(part, _AT_ONCE)
            except zlib.error as error:
                raise self.strange(f"the answer cannot be unpacked: {error}") from error
        if not unpacker.eof:
            raise self.failure("the answer ends too early", AGAIN)

    def _sent(self, answer: "HTTPResponse") -> Iterator[bytes]:
        """Yield a body in parts as it is sent. ReadError where it has no end."""
        length = 0
        while part := answer.read(_AT_ONCE):
            length += len(part)
            if length > MAX_ANSWER:
                raise self._too_long(MAX_ANSWER)
            yield part

    def _refusal(self, answer: "HTTPResponse") -> ReadError:
        """Say what an answer of another status means."""
        from ntpaudit.net.answers import reason_of

        if 300 <= answer.status <= 399:
            return self.failure(
                f"redirects to {answer.headers.get('Location', 'nowhere')}",
                f"name the right place in {self.keys['url']}",
            )
        body = next(self._unpacked(answer), b"").decode(errors="replace")
        said = f"answers {answer.status}: {reason_of(body) or answer.reason}"
        fix = self._fix(answer.status)
        return self.strange(said) if fix is None else self.failure(said, fix)

    def _fix(self, status: int) -> str | None:
        """Say what would mend an answer of that status; None for one that another kind of database may give."""
        match status:
            case 401 | 403 if not self._token:
                return (
                    "give a token that may read this database: in INFLUXDB_V2_TOKEN, or in fleet.token_file beside its "
                    "URL in fleet.url"
                )
            case 401 | 403:
                return "give a token that may read this database, in fleet.token_file or INFLUXDB_V2_TOKEN"
            case 408 | 413 | 422 | 429 | 503 | 504:
                return "ask for one site (--site), or raise the database's limits"
            case 500 | 502:
                return "look into the log of the database, and of a proxy before it"
        return None

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raise ReadError for what goes wrong between here and the server."""
        import ssl
        from http.client import HTTPException
        from socket import gaierror

        url = self.keys["url"]
        try:
            yield
        except ssl.SSLError as error:
            raise self.failure(f"TLS failed: {error}", self._tls_fix(str(error))) from error
        except gaierror as error:
            raise self.failure("the server's name is not known", f"check {url}, and the host's resolver") from error
        except TimeoutError as error:
            raise self.failure(
                f"no answer in {self._timeout_s:g} s, asked in {self._language}",
                f"check {url} and how busy the database is, allow it more by fleet.timeout, or ask for one site: "
                "--site",
            ) from error
        except ConnectionRefusedError as error:
            raise self.failure("no connection: refused", f"start the database, or check {url}") from error
        except OSError as error:
            raise self.failure(
                f"no connection: {error.strerror or error}", f"check {url}, and the way there"
            ) from error
        except (HTTPException, ValueError) as error:  # ValueError: what the parser of HTTP stumbles over
            way = ", try https://" if self._scheme == "http" else ""
            raise self.failure(
                f"no answer in HTTP: {type(error).__name__} {error}", f"check {url}{way}; {AGAIN}"
            ) from error

    def _tls_fix(self, reason: str) -> str:
        """Say what would mend a failure of TLS."""
        from ntpaudit.net.answers import tls_fix

        if "WRONG_VERSION_NUMBER" in reason:  # what OpenSSL takes any other protocol for
            return f"what answers there speaks no TLS: try http:// in {self.keys['url']}"
        return tls_fix(reason, "fleet").replace("fleet.url", self.keys["url"])


AGAIN = "ask again, and look what stands between here and the database"
"""What mends an answer that breaks off."""


def start(task: Callable[[], Got]) -> Callable[[], Got]:
    """Do something in a thread from now on; what is returned waits for it, and returns or raises what it did.

    Several threads may wait for it: with an event, for two that join one thread trip over each other (CPython 3.11).
    """
    results: list[Got] = []
    failures: list[BaseException] = []
    is_done = threading.Event()

    def do() -> None:
        try:
            results.append(task())
        except BaseException as error:  # whoever waits gets it, whatever it is
            failures.append(error)
        finally:
            is_done.set()

    def wait() -> Got:
        is_done.wait()
        if failures:
            raise failures[0]
        return results[0]

    threading.Thread(target=do, daemon=True).start()
    return wait


def _parts_of(url: str, key: str) -> tuple[str, str, int | None, str]:
    """Return a URL's scheme, host, port and path. ReadError where it is none of a server, told by its key."""
    from urllib.parse import quote, urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ReadError(f"no URL: {error}", f"check {key}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or "@" in parts.netloc:
        raise ReadError("no URL of a database", f"write such as http://127.0.0.1:8086 in {key}")
    return parts.scheme, parts.hostname, port, quote(parts.path.rstrip("/"), safe="/%:@")


def _skew_s(date: str | None, now_s: float) -> float | None:
    """Return how far the clock that wrote a date is ahead; the date is cut to whole seconds (RFC 9110, 5.6.7)."""
    from email.utils import parsedate_to_datetime

    if date is None:
        return None
    try:
        return parsedate_to_datetime(date).timestamp() + 0.5 - now_s
    except (ValueError, OverflowError, TypeError):
        return None


def _weight(part: bytes) -> int:
    """Return what a part of an answer weighs once it is parsed."""
    values, containers = part.count(b",") + part.count(b"\n"), part.count(b"[") + part.count(b"{")
    keys = max(0, part.count(b":") - KEYS_PER_OBJECT * part.count(b"{"))
    return values + WEIGHT_OF_CONTAINER * containers + WEIGHT_OF_KEY * keys + len(part) // OCTETS_PER_WEIGHT


def _is_here(host: str) -> bool:
    """Whether a server is on this machine."""
    return host in ("localhost", "::1") or host.startswith("127.")

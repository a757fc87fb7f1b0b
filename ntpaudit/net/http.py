"""Queries to a database over HTTP, several at once. Every failure is a ReadError with its fix."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from ntpaudit.errors import ReadError, UnexpectedReplyError
from ntpaudit.net import deadline
from ntpaudit.net.answers import clean, date_in_s, reason_of, tls_fix

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

MAX_BYTES = 256 << 20  # of all answers that are read at one time, decompressed; 10,000 hosts need up to 11 MB
MAX_WEIGHT = 17_000_000
WEIGHT_OF_CONTAINER = 4
WEIGHT_OF_KEY = 2
OCTETS_PER_WEIGHT = 32
WIDE_OCTETS_PER_WEIGHT = 4
"""The most that all answers of one snapshot may weigh. A unit is at most about 60 bytes of memory: a value or a line
(each ends in a comma or a newline), a quarter of a list or an object, half of a key, or OCTETS_PER_WEIGHT octets. A
unit of text that is not ASCII is WIDE_OCTETS_PER_WEIGHT octets, because Python may store four bytes per character.

A snapshot of 10,000 hosts weighs up to 1.5 million.
"""

_WIDE_ESCAPE = re.compile(rb"\\(?:u(?!00)|\Z)")  # of a character that takes Python more than a byte; or cut
_MAX_GET = 2000  # a longer query is sent by POST, because proxies refuse long URLs
_AT_ONCE = 1 << 20
_TIMEOUTS_PER_ANSWER = 6  # the time limit of a whole answer

DatabaseKind = Literal["InfluxDB", "VictoriaMetrics"]

# the default names, in messages, of the settings that say where to read
KEYS: Mapping[str, str] = MappingProxyType({key: f"fleet.{key}" for key in ("url", "language", "database")})
BUILD = "/api/v1/status/buildinfo"  # where VictoriaMetrics reports its version
_WRITTEN = {"influxql": "InfluxQL", "promql": "PromQL"}
_SCHEMES = {"influxql": "Token", "promql": "Bearer"}  # the word before the token
_INFLUXDB_HEADER = "X-Influxdb-Version"
AGAIN = "retry, and check proxies on the path to the database"  # the fix for an answer that is cut

Got = TypeVar("Got")
Take = Callable[[Iterator[bytes]], Got]


class DatabaseServer:
    """A database's HTTP server. TLS is verified, no proxy is used, and no redirect is followed.

    `where` names it in messages. Several threads may query it at once. It does not use urllib3, whose import takes
    longer than reading a thousand hosts.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca_file: str | None = None,
        timeout_s: float = 10.0,
        language: str = "influxql",
        keys: Mapping[str, str] = KEYS,
    ) -> None:
        """Prepare the client; nothing is sent yet. ReadError for a URL or a token that no request can have.

        The token goes only into the Authorization header. Messages name the `language`, and the settings to correct by
        their names in `keys`.
        """
        self.keys = keys
        self._scheme, self._host, self._port, self._path = _split_url(url, keys["url"])
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ReadError("the token holds characters that no request can carry", "check fleet.token_file")
        self.where = url.rstrip("/")
        self._language = _WRITTEN[language]
        self._says_influxdb = False
        self._has_answered = False
        self._token = token
        self._headers = {"User-Agent": "ntpaudit", "Accept": "application/json", "Cache-Control": "no-cache"}
        if self._host not in ("localhost", "::1") and not self._host.startswith("127."):
            self._headers["Accept-Encoding"] = "gzip"  # over loopback, it takes longer than the transfer
        if token:
            self._headers["Authorization"] = f"{_SCHEMES[language]} {token}"
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._idle: list[HTTPConnection] = []
        self._budget = threading.Lock()
        self._being_read = 0
        self._weight = 0
        self.skew_s: float | None = None
        """How far its clock is ahead of this machine's, by its last answer, within a second."""
        self._is_closed = False

    def ask(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """Return the body of the answer to a query. ReadError unless the status is 200."""
        return self.ask_in_parts(path, parameters, b"".join)

    def ask_in_parts(self, path: str, parameters: Mapping[str, str], take: Take[Got]) -> Got:
        """Let `take` read the body while it arrives, which saves 50 ms (10,000 hosts); it may have to begin again."""
        with self._read_errors():
            words = urlencode(parameters)
            if len(words) <= _MAX_GET:
                return self._exchange(f"{self._path}{path}?{words}", None, take)
            return self._exchange(self._path + path, words, take)

    def reset_weight(self) -> None:
        """Forget the weight of earlier answers, whose values are no longer in memory."""
        with self._budget:
            self._weight = 0

    def look(self, path: str) -> None:
        """Read the database's clock, with any status of the answer. ReadError if there is no answer."""
        try:
            self.ask(path, {})
        except ReadError:
            if not self._has_answered:
                raise

    def close(self) -> None:
        """Close every idle connection; one in use is closed when its answer has arrived."""
        self._is_closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def failure(self, why: object, fix: str) -> ReadError:
        """Return the error for an answer, from a text of any origin, with its fix."""
        return ReadError(f"{self.where}: {clean(str(why), self._token)}", fix)

    def strange(self, why: object) -> UnexpectedReplyError:
        """Return the error that the server may be another kind of database, from a text of any origin."""
        fix = f"check {self.keys['url']} and {self.keys['language']}"
        return UnexpectedReplyError(f"{self.where}: queried in {self._language}, {clean(str(why), self._token)}", fix)

    def kind(self) -> DatabaseKind | None:
        """Return the kind of database if it is certain. VictoriaMetrics sometimes calls itself InfluxDB.

        ReadError if it is Prometheus, Thanos or Mimir, which report a build revision.
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

    def _exchange(self, target: str, body: str | None, take: Take[Got]) -> Got:
        """Use an idle connection, else a new one. The server may have closed an idle one, which is then replaced."""
        from http.client import RemoteDisconnected

        with suppress(IndexError, RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            return self._use(self._idle.pop(), target, body, take)
        return self._use(self._connect(), target, body, take)

    def _use(self, connection: "HTTPConnection", target: str, body: str | None, take: Take[Got]) -> Got:
        """Exchange a request and its answer. The connection is kept unless something failed."""
        is_sound, sock = False, connection.sock  # the connection forgets it when the server will close
        try:
            with deadline.cut_after(_TIMEOUTS_PER_ANSWER * self._timeout_s, lambda: sock):
                form = {} if body is None else {"Content-Type": "application/x-www-form-urlencoded"}
                connection.request("GET" if body is None else "POST", target, body, {**self._headers, **form})
                with connection.getresponse() as answer:
                    self._has_answered = True
                    self.skew_s = _skew_s(answer.headers.get("Date"), time.time())
                    self._says_influxdb = self._says_influxdb or _INFLUXDB_HEADER in answer.headers
                    read = take(self._body(answer))
            is_sound = not answer.will_close
        finally:
            if is_sound and not self._is_closed:
                self._idle.append(connection)
            else:
                connection.close()
        return read

    def _connect(self) -> "HTTPConnection":
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

    def _body(self, answer: "HTTPResponse") -> Iterator[bytes]:
        """Yield the body of an answer in parts, within the limits. ReadError unless the status is 200."""
        from http.client import IncompleteRead

        if answer.status != 200:
            raise self._refusal(answer)
        length, narrow, is_wide = 0, 0, False
        try:
            for part in self._parts(answer):
                length, narrow = length + len(part), narrow + len(part)
                self._account(len(part), _weight(part))
                if is_wide := is_wide or not part.isascii() or _WIDE_ESCAPE.search(part) is not None:
                    self._account(0, narrow // WIDE_OCTETS_PER_WEIGHT)
                    narrow = 0
                yield part
        finally:
            self._account(-length)
        if answer.length:
            raise IncompleteRead(b"", answer.length)

    def _account(self, count: int, weight: int = 0) -> None:
        """Add bytes that are in memory while an answer is read, and its weight, which lasts.

        ReadError if all answers together exceed a limit.
        """
        with self._budget:
            self._being_read += count
            self._weight += weight
            is_too_much, is_too_heavy = self._being_read > MAX_BYTES, self._weight > MAX_WEIGHT
        if count > 0 and is_too_much:
            raise self.failure(f"the replies are longer than {MAX_BYTES >> 20} MiB", "ask for one site: --site")
        if weight and is_too_heavy:
            raise self.failure("the replies hold more values than fit into memory", "ask for one site: --site")

    def _parts(self, answer: "HTTPResponse") -> Iterator[bytes]:
        """Yield a body in parts, decompressed. One that decompresses to nothing is ended by the time limit."""
        encoding = (answer.headers.get("Content-Encoding") or "identity").strip().lower()
        if encoding == "identity":
            yield from iter(lambda: answer.read(_AT_ONCE), b"")
            return
        if encoding != "gzip":
            raise self.strange(f"the reply is encoded as {encoding}, which was not requested")
        import gzip
        import zlib

        body = gzip.GzipFile(fileobj=answer)
        try:
            yield from iter(lambda: body.read(_AT_ONCE), b"")
        except EOFError as error:
            raise self.failure("the reply ends too early", AGAIN) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise self.strange(f"the reply cannot be decompressed: {error}") from error

    def _refusal(self, answer: "HTTPResponse") -> ReadError:
        if 300 <= answer.status <= 399:
            return self.failure(
                f"redirects to {answer.headers.get('Location', 'nowhere')}",
                f"name the right place in {self.keys['url']}",
            )
        body = next(self._parts(answer), b"").decode(errors="replace")
        why = f"replies {answer.status}: {reason_of(body) or answer.reason}"
        fix = self._fix(answer.status)
        return self.strange(why) if fix is None else self.failure(why, fix)

    def _fix(self, status: int) -> str | None:
        """Return the fix for a status; None for one that another kind of database may send."""
        match status:
            case 401 | 403 if not self._token:
                places = ": in INFLUXDB_V2_TOKEN, or in fleet.token_file beside its URL in fleet.url"
                return f"give a token that may read this database{places}"
            case 401 | 403:
                return "give a token that may read this database, in fleet.token_file or INFLUXDB_V2_TOKEN"
            case 408 | 413 | 422 | 429 | 503 | 504:
                return "ask for one site (--site), or raise the database's limits"
            case 500 | 502:
                return "check the log of the database, and of a proxy in front of it"
        return None

    @contextmanager
    def _read_errors(self) -> Iterator[None]:
        import ssl
        from http.client import HTTPException
        from socket import gaierror

        url = self.keys["url"]
        try:
            yield
        except (OSError, HTTPException, ValueError) as error:  # ValueError: from the parser of HTTP
            match error:
                case ssl.SSLError() if "WRONG_VERSION_NUMBER" in str(error):  # OpenSSL's name for any other protocol
                    why, fix = f"TLS failed: {error}", f"the server does not speak TLS: try http:// in {url}"
                case ssl.SSLError():
                    why, fix = f"TLS failed: {error}", tls_fix(str(error), "fleet").replace("fleet.url", url)
                case gaierror():
                    why, fix = "the server's name is not known", f"check {url}, and the host's resolver"
                case TimeoutError():
                    why = f"no reply in {self._timeout_s:g} s, queried in {self._language}"
                    fix = f"check {url} and the load of the database, raise fleet.timeout, or ask for one site: --site"
                case ConnectionRefusedError():
                    why, fix = "no connection: Connection refused", f"start the database, or check {url}"
                case OSError():
                    why, fix = f"no connection: {error.strerror or error}", f"check {url}, and the network path to it"
                case _:
                    way = ", try https://" if self._scheme == "http" else ""
                    why, fix = f"no reply in HTTP: {type(error).__name__} {error}", f"check {url}{way}; {AGAIN}"
            raise self.failure(why, fix) from error


def start(task: Callable[[], Got]) -> Callable[[], Got]:
    """Run a task in a thread. The function returned waits for it, and returns or raises what the task did.

    Several threads may wait. The interpreter does not wait at its end, as it would for a ThreadPoolExecutor.
    """
    from concurrent.futures import Future

    future: Future[Got] = Future()

    def do() -> None:
        try:
            future.set_result(task())
        except BaseException as error:  # raised where the result is awaited
            future.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    return future.result


def _split_url(url: str, key: str) -> tuple[str, str, int | None, str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ReadError(f"no URL: {error}", f"check {key}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or "@" in parts.netloc:
        raise ReadError("no URL of a database", f"write such as http://127.0.0.1:8086 in {key}")
    return parts.scheme, parts.hostname, port, quote(parts.path.rstrip("/"), safe="/%:@")


def _skew_s(date: str | None, now_s: float) -> float | None:
    date_s = date_in_s(date)
    return None if date_s is None else date_s + 0.5 - now_s  # a date has whole seconds


def _weight(part: bytes) -> int:
    values, containers = part.count(b",") + part.count(b"\n"), part.count(b"[") + part.count(b"{")
    text = len(part) // OCTETS_PER_WEIGHT
    return values + WEIGHT_OF_CONTAINER * containers + WEIGHT_OF_KEY * part.count(b":") + text

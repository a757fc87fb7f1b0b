"""Lines of line protocol, written to a database of the InfluxDB family through influxdb-client, one batch at a time."""

import io
import logging
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ntpaudit.core.delivery import NO_SUCH_PATH, Answer, Delivered, Refused, Unreachable
from ntpaudit.errors import ConfigError
from ntpaudit.net.answers import reason_of, tls_fix
from ntpaudit.net.whole_response import WholeResponse
from ntpaudit.render.text_safety import one_line

if TYPE_CHECKING:
    import socket

MAX_ANSWER = 65_536
"""No more than this is read of an answer, in bytes: it tells why, and any page of a proxy may come instead."""

MAX_REASON = 300
"""How much of an answer is kept, in characters."""

_GZIP_LEVEL = 1
"""The client's own choice of 9 costs five times as much and saves a quarter of what is left."""

_GZIP_BITS = 31  # zlib's number for gzip's container


class InfluxTransport:
    """A connection that is kept open from one batch to the next. Not to be used from several threads at once.

    Lines are compressed only for a server that refuses what it cannot read, which InfluxDB does. VictoriaMetrics
    answers 204 to anything, so where something on the way strips Content-Encoding, its answer would not show that
    nothing was stored.
    """

    def __init__(
        self, url: str, *, org: str, bucket: str, token: str | None, ca_file: str | None = None, timeout_s: float = 10.0
    ) -> None:
        """Make ready; nothing is sent yet. ConfigError for a token that no request can carry."""
        make_client = _import_client()
        from influxdb_client.client.write_api import SYNCHRONOUS
        from urllib3.exceptions import SystemTimeWarning

        warnings.simplefilter("ignore", SystemTimeWarning)  # that the clock is wrong is ours to say
        logging.getLogger("urllib3").propagate = False  # it would show a server's headers, whatever they hold
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ConfigError("the token for InfluxDB holds characters that no request can carry")
        self._bucket = bucket
        self._token = token
        self._timeout_s = timeout_s
        self._line = _Line()
        self.date_s: int | None = None
        self._client = make_client(
            url,
            token=token,
            org=org,
            timeout=round(timeout_s * 1000),
            ssl_ca_cert=ca_file,
            connection_pool_maxsize=1,
        )
        self._compresses = self._is_proven = self._is_misread = False
        self._writer = self._client.write_api(write_options=SYNCHRONOUS)
        _watch(self._client.api_client.rest_client.pool_manager.connection_from_url(url), self._line)

    def write(self, lines: str) -> Answer:
        """Write lines stamped in nanoseconds, and say what the database answered.

        Ends in twice the timeout, once the server's name is resolved; in four times where compressed lines were not
        understood, and are sent once more as they are. `date_s` is then the Date of the last answer.
        """
        self._line.date = None
        try:
            return self._write(lines)
        finally:
            self.date_s = date_in_s(self._line.date)

    def _write(self, lines: str) -> Answer:
        """Write lines, compressed where the server understands that."""
        body = lines.encode()
        if not self._compresses:
            return self._send(body)
        answer = self._send(zlib.compress(body, _GZIP_LEVEL, wbits=_GZIP_BITS), "gzip")
        is_refused = isinstance(answer, Refused) and answer.status in _MISREAD
        is_doubtful = is_refused and not self._is_proven
        self._is_proven = isinstance(answer, Delivered)
        if self._compresses and not is_doubtful:
            return answer
        plain = self._send(body)
        if is_doubtful and isinstance(plain, Delivered):
            self._compresses, self._is_misread = False, True
        return plain

    def _send(self, body: bytes, encoding: str | None = None) -> Answer:
        """Send a body once. From the answer follows whether the next one may be compressed."""
        from influxdb_client.rest import ApiException
        from urllib3.exceptions import HTTPError

        headers = self._client.api_client.default_headers
        headers.pop("Content-Encoding", None)
        if encoding is not None:
            headers["Content-Encoding"] = encoding
        with self._line.limited_to(2 * self._timeout_s):
            try:
                self._writer.write(self._bucket, record=body)
            except ApiException as error:
                return self._refusal(error)
            except HTTPError as error:
                return self._failure(error)
        answer = self._client.api_client.last_response
        if answer.status != 204:  # of any other good status it is some other server's
            return Refused(answer.status, self._tidy(answer.data))
        self._compresses = _checks_lines(answer.getheaders()) and not self._is_misread
        return Delivered()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _refusal(self, error: Any) -> Answer:
        """Say what an answer of another status means; the client gives TLS's own failures the status 0."""
        if not error.status:
            reason = self._tidy((error.reason or "").removeprefix("SSLError"))
            return Unreachable(f"TLS failed: {reason}; {tls_fix(reason)}", sent=False)
        headers: Mapping[str, str] = error.headers or {}
        said = reason_of(error.body or "") or headers.get("X-Influxdb-Error") or error.reason or ""
        if 300 <= error.status <= 399:
            said = f"redirected to {headers.get(_REDIRECTED, 'nowhere')}"
        if said.strip() == NO_SUCH_PATH and (version := headers.get("X-Influxdb-Version")):
            said = f"{NO_SUCH_PATH} by InfluxDB {version}"
        return Refused(error.status, self._tidy(said), retry_after_s(headers))

    def _failure(self, error: Exception) -> Unreachable:
        """Say why there was no answer."""
        from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ReadTimeoutError

        match error:
            case NameResolutionError():
                return Unreachable("the server's name is not known", sent=False)
            case NewConnectionError():
                return Unreachable(f"no connection: {self._tidy(_cause(error))}", sent=False)
            case ConnectTimeoutError():
                return Unreachable(f"no connection in {self._timeout_s:g} s", sent=False)
            case _ if isinstance(error, ReadTimeoutError) or self._line.was_cut:
                return Unreachable(f"no answer in {self._timeout_s:g} s", sent=True)
            case _:
                return Unreachable(f"no answer: {self._tidy(_cause(error))}", sent=True)

    def _tidy(self, text: str) -> str:
        """Make a foreign text fit for one line of a log; a server that echoes the token is not believed on that."""
        if self._token:
            text = text.replace(self._token, "***")
        return one_line(text).strip()[:MAX_REASON]


_MISREAD = (400, 415, 422)
"""What a server may answer that was sent compressed lines and does not know that they are."""


def _checks_lines(headers: Mapping[str, str]) -> bool:
    """Whether an answer comes from InfluxDB, which refuses what it cannot read; VictoriaMetrics calls itself so too."""
    return "X-Influxdb-Build" in headers and "X-Server-Hostname" not in headers


def _import_client() -> Any:
    """Import the client without its models of all that InfluxDB can manage: half of its time, and 6 MiB.

    What is needed of them is little, and a version that needs more gets it.
    """
    finder = _Hollow()
    sys.meta_path.insert(0, finder)
    try:
        return import_module(_CLIENT).InfluxDBClient
    except (AttributeError, ImportError, TypeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "influxdb_client"]:
            del sys.modules[name]
    finally:
        sys.meta_path.remove(finder)
    return import_module(_CLIENT).InfluxDBClient


_CLIENT = "influxdb_client.client.influxdb_client"
_MODELS = "influxdb_client.domain."
_NEEDED = ("write_precision",)


class _Hollow(MetaPathFinder, Loader):
    """Makes modules that hold nothing, but give a class for any name."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        """Answer for a model."""
        is_hollow = name.startswith(_MODELS) and name.removeprefix(_MODELS) not in _NEEDED
        return ModuleSpec(name, self) if is_hollow else None

    def exec_module(self, module: ModuleType) -> None:
        """Fill it, with nothing."""
        module.__dict__["__getattr__"] = _model


class _Model:
    """What stands for any model."""

    def __init__(self, *values: object, **named: object) -> None:
        """Be of no use."""


def _model(name: str) -> type[_Model]:
    """Return the class of a hollow module; it has no other attribute."""
    if name.startswith("_"):
        raise AttributeError(name)
    return _Model


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a server asks to be left alone (RFC 9110 §10.2.3), None where it does not say.

    A date is compared with the answer's own Date: this host's clock is what is in doubt.
    """
    from email.utils import parsedate_to_datetime

    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        until, now = (parsedate_to_datetime(text) for text in (value, headers.get("Date", "")))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, OverflowError):  # TypeError: only one of them names its zone
        return None


def date_in_s(date: str | None) -> int | None:
    """Return the Date of an answer (RFC 9110, 5.6.7) in seconds since 1970; None for none, and for what is no date."""
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    if date is None:
        return None
    try:
        moment = parsedate_to_datetime(date)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


def _cause(error: Exception) -> str:
    """Return the system's or the parser's own words, without those that were put around them."""
    inner: BaseException = error
    for _ in range(4):
        arguments = [argument for argument in inner.args if isinstance(argument, BaseException)]
        if following := inner.__cause__ or (arguments[0] if arguments else None):
            inner = following
    return (isinstance(inner, OSError) and inner.strerror) or str(inner) or type(inner).__name__


class _Line:
    """The connection in use, which can be cut: a server that answers one octet at a time never exceeds a timeout."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.was_cut = False
        self.date: str | None = None  # the Date of the last answer

    @contextmanager
    def limited_to(self, limit_s: float) -> Iterator[None]:
        """Cut the connection unless a block ends in time."""
        self.was_cut = False
        timer = threading.Timer(limit_s, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        """End whatever waits for the connection."""
        import socket

        self.was_cut = True
        if self.socket is not None:
            with suppress(OSError):  # it may just have ended by itself
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)  # of TLS too: its own would confuse the reader


def _watch(pool: Any, line: _Line) -> None:
    """Let a pool make connections that tell `line` of their socket, and that read no more of an answer than is used."""
    from urllib3.response import HTTPResponse

    made: Callable[..., Any] = pool.ConnectionCls

    class Watched(made):  # type: ignore[valid-type, misc]
        """A connection of urllib3, plain or TLS."""

        response_class = WholeResponse

        def connect(self) -> None:
            super().connect()
            line.socket = self.sock

        def request(self, *words: Any, **options: Any) -> None:
            super().request(*words, **options | {"preload_content": False, "decode_content": False})

        def getresponse(self) -> HTTPResponse:
            answer = super().getresponse()
            line.date = answer.headers.get("Date")
            text = answer.read(MAX_ANSWER, decode_content=False)
            if len(text) == MAX_ANSWER:
                self.close()
            return HTTPResponse(
                io.BytesIO(text.decode(errors="replace").encode()),
                headers={
                    kept: value
                    for name, kept in _READ_HEADERS.items()
                    if (value := answer.headers.get(name)) is not None
                },
                status=answer.status,
                reason=answer.reason,
                preload_content=True,
                decode_content=False,
            )

    pool.ConnectionCls = Watched


_REDIRECTED = "X-Redirected-To"
_READ_HEADERS = {
    "Retry-After": "Retry-After",
    "Date": "Date",
    "X-Influxdb-Error": "X-Influxdb-Error",
    "X-Influxdb-Version": "X-Influxdb-Version",
    "X-Influxdb-Build": "X-Influxdb-Build",
    "X-Server-Hostname": "X-Server-Hostname",
    "Location": _REDIRECTED,  # by another name, so that nobody follows it, or stumbles over it
}
"""What is read of an answer's headers, and what it is called from there on."""

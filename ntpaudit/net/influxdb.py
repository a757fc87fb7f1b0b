"""Line protocol, written to InfluxDB or VictoriaMetrics through influxdb-client, one batch at a time."""

import logging
import warnings
import zlib
from collections.abc import Mapping
from typing import Any

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.delivery import NO_SUCH_PATH, Delivered, DeliveryResult, Refused, Unreachable
from ntpaudit.errors import ConfigError
from ntpaudit.net import deadline
from ntpaudit.net.answers import REDIRECTED, clean, date_in_s, reason_of, tls_fix

_GZIP_LEVEL = 1  # the client's own level, 9, takes five times as long; its result is a quarter smaller
_GZIP_BITS = 31  # zlib's number for gzip's container


class InfluxTransport:
    """A connection that stays open between batches. Not for use by several threads at once.

    Lines are compressed only for a server that refuses what it cannot read, which InfluxDB does. VictoriaMetrics
    answers 204 to anything. If a proxy removes Content-Encoding, its answer would not show that nothing was stored.
    """

    def __init__(self, influxdb: InfluxConfig, token: str | None) -> None:
        from influxdb_client.client.influxdb_client import InfluxDBClient
        from influxdb_client.client.write_api import SYNCHRONOUS
        from urllib3.exceptions import SystemTimeWarning

        from ntpaudit.net.bounded_connection import ConnectionMonitor, bound_connections

        warnings.simplefilter("ignore", SystemTimeWarning)  # our findings report a wrong clock
        logging.getLogger("urllib3").propagate = False  # it logs a server's headers, which may hold anything
        if not logging.getLogger().handlers:  # else the client's `logging.debug` adds one, which repeats our messages
            logging.getLogger().addHandler(logging.NullHandler())
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ConfigError("the token for InfluxDB holds characters that no request can carry")
        self._bucket = influxdb.bucket
        self._token = token
        self._timeout_s = influxdb.timeout_s
        self._monitor = ConnectionMonitor()
        self.date_s: int | None = None
        self._client: Any = InfluxDBClient(
            influxdb.url,
            token or "",
            org=influxdb.org,
            timeout=round(influxdb.timeout_s * 1000),
            ssl_ca_cert=influxdb.ca_file,
            connection_pool_maxsize=1,
        )
        self._compresses = self._is_proven = self._is_misread = False
        self._writer = self._client.write_api(write_options=SYNCHRONOUS)
        pools = self._client.api_client.rest_client.pool_manager
        bound_connections(pools.connection_from_url(influxdb.url), self._monitor)

    def write(self, lines: str) -> DeliveryResult:
        """Write lines with timestamps in nanoseconds, and return the database's answer.

        Ends within twice the timeout, once the server's name is resolved; within four times if the server does not
        understand compressed lines, which are then sent again uncompressed. Sets `date_s`.
        """
        self._monitor.date = None
        try:
            return self._write(lines)
        finally:
            date_s = date_in_s(self._monitor.date)
            self.date_s = None if date_s is None else int(date_s)

    def _write(self, lines: str) -> DeliveryResult:
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

    def _send(self, body: bytes, encoding: str | None = None) -> DeliveryResult:
        from influxdb_client.rest import ApiException
        from urllib3.exceptions import HTTPError

        headers = self._client.api_client.default_headers
        headers.pop("Content-Encoding", None)
        if encoding is not None:
            headers["Content-Encoding"] = encoding
        try:
            with deadline.cut_after(2 * self._timeout_s, lambda: self._monitor.sock):
                self._writer.write(self._bucket, record=body)
        except ApiException as error:
            return self._refusal(error)
        except (HTTPError, TimeoutError) as error:
            return self._failure(error)
        answer = self._client.api_client.last_response
        if answer.status != 204:  # another 2xx is from some other server
            return Refused(answer.status, self._clean(answer.data))
        headers = answer.getheaders()  # InfluxDB refuses what it cannot read; VictoriaMetrics claims to be one
        is_influxdb = "X-Influxdb-Build" in headers and "X-Server-Hostname" not in headers
        self._compresses = is_influxdb and not self._is_misread
        return Delivered()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _refusal(self, error: Any) -> DeliveryResult:
        """Return what an answer of another status means. The client gives failures of TLS the status 0."""
        if not error.status:
            failure = self._clean((error.reason or "").removeprefix("SSLError"))
            return Unreachable(f"TLS failed: {failure}; {tls_fix(failure)}", sent=False)
        headers: Mapping[str, str] = error.headers or {}
        reason = reason_of(error.body or "") or headers.get("X-Influxdb-Error") or error.reason or ""
        if 300 <= error.status <= 399:
            reason = f"redirected to {headers.get(REDIRECTED, 'nowhere')}"
        if reason.strip() == NO_SUCH_PATH and (version := headers.get("X-Influxdb-Version")):
            reason = f"{NO_SUCH_PATH} by InfluxDB {version}"
        return Refused(error.status, self._clean(reason), retry_after_s(headers))

    def _failure(self, error: Exception) -> Unreachable:
        from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ReadTimeoutError

        match error:
            case NameResolutionError():
                return Unreachable("the server's name is not known; check influxdb.url and DNS", sent=False)
            case NewConnectionError():
                return Unreachable(f"no connection: {self._clean(_cause(error))}; {_FIX}", sent=False)
            case ConnectTimeoutError():
                return Unreachable(f"no connection in {self._timeout_s:g} s; {_FIX}", sent=False)
            case ReadTimeoutError() | TimeoutError():
                return Unreachable(f"no reply in {self._timeout_s:g} s; {_FIX_SLOW}", sent=True)
            case _:
                return Unreachable(f"no reply: {self._clean(_cause(error))}", sent=True)

    def _clean(self, text: str) -> str:
        return clean(text, self._token)


_FIX = "start the database, or check influxdb.url and firewalls"
_FIX_SLOW = "check the load of the database, or raise influxdb.timeout"
_MISREAD = (400, 415, 422)  # how a server may answer that takes compressed lines for plain ones


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a server accepts the next request (RFC 9110 §10.2.3), None if it does not say.

    A date is compared with the answer's own Date, because this host's clock may be wrong.
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


def _cause(error: Exception) -> str:
    inner: BaseException = error
    for _ in range(4):
        arguments = [argument for argument in inner.args if isinstance(argument, BaseException)]
        if following := inner.__cause__ or (arguments[0] if arguments else None):
            inner = following
    return (isinstance(inner, OSError) and inner.strerror) or str(inner) or type(inner).__name__

"""Connections of urllib3 with a limit on the size of an answer."""

import io
import socket
from functools import partial
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse

from ntpaudit.net.answers import REDIRECTED
from ntpaudit.net.whole_response import WholeResponse

MAX_ANSWER = 65_536  # in bytes: an answer only gives a reason, and a proxy may send any page instead
_READ_HEADERS = (
    *("Retry-After", "Date", "Location", "X-Server-Hostname"),
    *("X-Influxdb-Error", "X-Influxdb-Version", "X-Influxdb-Build"),
)


class ConnectionMonitor:
    """The connection in use, and the Date of the last answer."""

    sock: socket.socket | None = None
    date: str | None = None


def bound_connections(pool: Any, monitor: ConnectionMonitor) -> None:
    """Let a connection pool of urllib3 make bounded connections, which `monitor` knows."""
    connection = _BoundedTlsConnection if pool.scheme == "https" else _BoundedConnection
    pool.ConnectionCls = partial(connection, monitor)


class _BoundedConnection(HTTPConnection):
    response_class = WholeResponse

    def __init__(self, monitor: ConnectionMonitor, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._monitor = monitor

    def connect(self) -> None:
        super().connect()
        self._monitor.sock = self.sock

    def request(self, *arguments: Any, **options: Any) -> None:
        super().request(*arguments, **options | {"preload_content": False, "decode_content": False})

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3's own
        answer = super().getresponse()
        self._monitor.date = answer.headers.get("Date")
        text = answer.read(MAX_ANSWER, decode_content=False)
        if len(text) == MAX_ANSWER:
            self.close()
        headers = {name: answer.headers[name] for name in _READ_HEADERS if name in answer.headers}
        if "Location" in headers:
            headers[REDIRECTED] = headers.pop("Location")
        body = io.BytesIO(text.decode(errors="replace").encode())
        return HTTPResponse(body, headers, answer.status, reason=answer.reason, decode_content=False)


class _BoundedTlsConnection(_BoundedConnection, HTTPSConnection):
    pass

"""Where the points of a simulated fleet go: a demonstration's file, a database, or to another process."""

import random
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.delivery import Delivered, Failure, Refused, back_off_s, classify, describe
from ntpaudit.demo.simulated_agent import SimulatedAudit
from ntpaudit.errors import OutputError
from ntpaudit.fleet.demo_store import DemoStore
from ntpaudit.formats.line_protocol import Point, points, render, stamp_lines
from ntpaudit.net.answers import WEB_PAGE
from ntpaudit.outputs.influxdb import InfluxTransport

BATCH_LINES = 5000
"""How many lines one write to a database has."""

PARCEL_POINTS = 2000
"""How many points one message to another process has."""

ATTEMPTS = 8
"""How often a failed write is retried, a few minutes in all."""

MOST_WAIT_S = 10.0
"""Longest delay between two retries without a limit: somebody is watching."""


class PointBatch(NamedTuple):
    """The points of one audit, and its true time: the timestamp of points whose true time the host does not know."""

    points: tuple[Point, ...]
    utc_ns: int


class Waiting(NamedTuple):
    """Why the demo waits for a database; None when the database has accepted something again."""

    reason: str | None


class PointWriter(Protocol):
    """A destination of audits."""

    def write(self, audits: Iterable[SimulatedAudit]) -> None:
        """Write audits."""

    def flush(self) -> None:
        """Write everything that is buffered."""


class StoreWriter:
    """Writes audits to a demo file."""

    def __init__(self, store: DemoStore) -> None:
        self._store = store

    def write(self, audits: Iterable[SimulatedAudit]) -> None:
        """Store audits."""
        for one in audits:
            self._store.write(points(one.record, one.events), one.utc_ns)

    def take(self, parcels: Iterable[PointBatch]) -> None:
        """Store the points of another process."""
        for parcel in parcels:
            self._store.write(parcel.points, parcel.utc_ns)

    def flush(self) -> None:
        """Nothing is buffered."""


class PipeWriter:
    """Sends audits to the process that stores them."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send = send
        self._parcels: list[PointBatch] = []
        self._points = 0

    def write(self, audits: Iterable[SimulatedAudit]) -> None:
        """Send audits in batches."""
        for one in audits:
            parcel = PointBatch(tuple(points(one.record, one.events)), one.utc_ns)
            self._parcels.append(parcel)
            self._points += len(parcel.points)
            if self._points >= PARCEL_POINTS:
                self.flush()

    def flush(self) -> None:
        """Send the buffered points."""
        if self._parcels:
            self._send(self._parcels)
        self._parcels, self._points = [], 0


class InfluxWriter:
    """Audits written to a database of the InfluxDB family, without a history to fall back on. Raises OutputError.

    One that has taken some before is waited for: `attempts` times, or without end where that is None. Nothing but what
    it has failed to take is kept meanwhile. `say` hears when that begins and ends, `pause` lets the time pass.
    """

    def __init__(
        self,
        influx: InfluxConfig,
        token: str | None,
        attempts: int | None = ATTEMPTS,
        say: Callable[[Waiting], None] = lambda waiting: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = influx.url
        self._transport = InfluxTransport(
            influx.url,
            org=influx.org,
            bucket=influx.bucket,
            token=token,
            ca_file=influx.ca_file,
            timeout_s=influx.timeout_s,
        )
        self._attempts = attempts
        self._say = say
        self._pause = pause
        self._lines: list[str] = []
        self._count = 0
        self._has_delivered = self._is_waiting = False

    def write(self, audits: Iterable[SimulatedAudit]) -> None:
        """Render audits, and write them in batches."""
        for one in audits:
            lines = render(one.record, one.events)
            self._lines.append(lines if one.record.utc_ns is not None else stamp_lines(lines, one.utc_ns))
            self._count += 1 + len(one.record.sources) + len(one.events)
            if self._count >= BATCH_LINES:
                self.flush()

    def flush(self) -> None:
        """Write the buffered lines."""
        text, self._lines, self._count = "".join(self._lines), [], 0
        if text:
            self._deliver(text)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _deliver(self, text: str) -> None:
        """Write lines: retry if the database has accepted lines before, and halve a batch that is too large."""
        failures = 0
        while not isinstance(answer := self._transport.write(text), Delivered):
            lines = text.splitlines(keepends=True)
            match classify(answer):
                case "size" if len(lines) > 1:
                    self._deliver("".join(lines[: len(lines) // 2]))
                    self._deliver("".join(lines[len(lines) // 2 :]))
                    return
                case "busy" | "broken" | "away" if self._is_waited_for(failures + 1):
                    self._wait(answer, failures)
                    failures += 1
                case _:
                    raise self._refusal(answer)
        self._has_delivered = True
        if self._is_waiting:
            self._is_waiting = False
            self._say(Waiting(None))

    def _is_waited_for(self, failures: int) -> bool:
        """Whether to retry after this number of consecutive failures."""
        return self._has_delivered and (self._attempts is None or failures < self._attempts)

    def _wait(self, failure: Failure, failures: int) -> None:
        """Wait before the next attempt."""
        if not self._is_waiting:
            self._is_waiting = True
            self._say(Waiting(f"cannot write to {self._url}: {describe(failure)}"))
        wait_s = back_off_s(failures, random.random())
        self._pause(wait_s if self._attempts is not None else min(wait_s, MOST_WAIT_S))

    def _refusal(self, failure: Failure) -> OutputError:
        """Return the error of a failed write."""
        return OutputError(f"cannot write to {self._url}: {_told(failure)}")


def _told(failure: Failure) -> str:
    """Describe a failure and its fix in terms of the command line."""
    if not isinstance(failure, Refused):
        fix = "; start it, or name another with --influx-url" if classify(failure) == "away" else ""
        return _as_typed(describe(failure)) + fix
    if failure.reason.startswith(WEB_PAGE):
        said = f"{failure.status}: {failure.reason}"
        return f"{said}; this is not a database, or a proxy replied: check --influx-url"
    return _as_typed(describe(failure))


def _as_typed(said: str) -> str:
    """Replace configuration keys by the options of the command line: a demo has no configuration."""
    for key, word in _TYPED.items():
        said = said.replace(key, word)
    return said


_TYPED = {
    "influxdb.url, org and bucket": "--influx-url, --org and --bucket",
    "influxdb.url and influxdb.ca_file": "--influx-url and SSL_CERT_FILE",
    "influxdb.token_file, or INFLUXDB_V2_TOKEN": "INFLUXDB_V2_TOKEN",
    "influxdb.ca_file": "the file that SSL_CERT_FILE names",
    "influxdb.url": "--influx-url",
}

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
"""So many lines are written to a database at once."""

PARCEL_POINTS = 2000
"""So many points go to another process at once."""

ATTEMPTS = 8
"""So often a database that works is asked to take what it failed to take, a few minutes in all."""

MOST_WAIT_S = 10.0
"""A database that is waited for without end is asked again after this at the latest: somebody watches."""


class PointBatch(NamedTuple):
    """The points of one audit, and when it was made: the stamp of those whose true time the host does not know."""

    points: tuple[Point, ...]
    utc_ns: int


class Waiting(NamedTuple):
    """A database takes nothing at the moment, and is waited for: why. None when it has taken something again."""

    reason: str | None


class PointWriter(Protocol):
    """Somewhere that audits are told."""

    def write(self, told: Iterable[SimulatedAudit]) -> None:
        """Take audits, as they are made."""

    def flush(self) -> None:
        """Let nothing wait any longer."""


class StoreWriter:
    """Audits kept in a demonstration's file."""

    def __init__(self, store: DemoStore) -> None:
        self._store = store

    def write(self, told: Iterable[SimulatedAudit]) -> None:
        """Keep audits."""
        for one in told:
            self._store.write(points(one.record, one.events), one.utc_ns)

    def take(self, parcels: Iterable[PointBatch]) -> None:
        """Keep what another process has sent."""
        for parcel in parcels:
            self._store.write(parcel.points, parcel.utc_ns)

    def flush(self) -> None:
        """Nothing waits for long."""


class PipeWriter:
    """Audits sent to the process that keeps them."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send = send
        self._parcels: list[PointBatch] = []
        self._points = 0

    def write(self, told: Iterable[SimulatedAudit]) -> None:
        """Send audits, many at once."""
        for one in told:
            parcel = PointBatch(tuple(points(one.record, one.events)), one.utc_ns)
            self._parcels.append(parcel)
            self._points += len(parcel.points)
            if self._points >= PARCEL_POINTS:
                self.flush()

    def flush(self) -> None:
        """Send what waits."""
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

    def write(self, told: Iterable[SimulatedAudit]) -> None:
        """Render audits, and write them when they are many."""
        for one in told:
            lines = render(one.record, one.events)
            self._lines.append(lines if one.record.utc_ns is not None else stamp_lines(lines, one.utc_ns))
            self._count += 1 + len(one.record.sources) + len(one.events)
            if self._count >= BATCH_LINES:
                self.flush()

    def flush(self) -> None:
        """Write what waits."""
        text, self._lines, self._count = "".join(self._lines), [], 0
        if text:
            self._deliver(text)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _deliver(self, text: str) -> None:
        """Write lines. One that has taken some before is given time; what is too much at once is halved."""
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
        """Whether to try again after so many failures in a row."""
        return self._has_delivered and (self._attempts is None or failures < self._attempts)

    def _wait(self, failure: Failure, failures: int) -> None:
        """Let time pass before another attempt."""
        if not self._is_waiting:
            self._is_waiting = True
            self._say(Waiting(f"cannot write to {self._url}: {describe(failure)}"))
        wait_s = back_off_s(failures, random.random())
        self._pause(wait_s if self._attempts is not None else min(wait_s, MOST_WAIT_S))

    def _refusal(self, failure: Failure) -> OutputError:
        """Say what went wrong."""
        return OutputError(f"cannot write to {self._url}: {_told(failure)}")


def _told(failure: Failure) -> str:
    """Say what went wrong and what mends it, to somebody who named the database on the command line."""
    if not isinstance(failure, Refused):
        fix = "; start it, or name another with --influx-url" if classify(failure) == "away" else ""
        return _as_typed(describe(failure)) + fix
    if failure.reason.startswith(WEB_PAGE):
        said = f"{failure.status}: {failure.reason}"
        return f"{said}; what answers there is no database, or stands before it: check --influx-url"
    return _as_typed(describe(failure))


def _as_typed(said: str) -> str:
    """Put for the keys of a configuration, which there is none of, what stands for them on the command line."""
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

"""Where the points of a simulated fleet are written: a file or a database."""

import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.delivery import FIX_401, Delivered, DeliveryFailure, Refused, back_off_s, classify, describe
from ntpaudit.demo.simulated_agent import SimulatedAudit
from ntpaudit.errors import OutputError
from ntpaudit.fleet.demo_store import DemoStore
from ntpaudit.formats.line_protocol import account_points, points, render, render_account, stamp_lines
from ntpaudit.net.answers import WEB_PAGE
from ntpaudit.net.influxdb import InfluxTransport

BATCH_LINES = 5000  # the number of lines of one write to a database
ATTEMPTS = 8  # the number of attempts of a write that fails, a few minutes in all
MOST_WAIT_S = 10.0  # longest delay between two retries without a limit: somebody is watching


class PointWriter(Protocol):
    """A destination of audits."""

    def write(self, audit: SimulatedAudit) -> None:
        """Write an audit."""

    def flush(self) -> None:
        """Write everything that is buffered."""


class StoreWriter:
    """Writes audits to a demo file."""

    def __init__(self, store: DemoStore) -> None:
        self._store = store

    def write(self, audit: SimulatedAudit) -> None:
        """Store an audit."""
        self._store.write(points(audit.record, audit.events), audit.utc_ns)
        for account in audit.accounts:
            self._store.write(account_points(account, audit.record.host), audit.utc_ns)

    def flush(self) -> None:
        """Nothing is buffered."""


class InfluxWriter:
    """Writes audits to a database of the InfluxDB family. Raises OutputError.

    A write that fails after one has succeeded is retried `attempts` times, None: without limit. `note` gets a message
    when the database fails and when it accepts points again.
    """

    def __init__(
        self,
        influx: InfluxConfig,
        token: str | None,
        attempts: int | None = ATTEMPTS,
        note: Callable[[str], None] = lambda text: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = influx.url
        self._transport = InfluxTransport(influx, token)
        self._attempts = attempts
        self._note = note
        self._pause = pause
        self._lines: list[str] = []
        self._has_delivered = False

    def write(self, audit: SimulatedAudit) -> None:
        """Render an audit; write when a batch is full."""
        text = render(audit.record, audit.events)
        text = text if audit.record.utc_ns is not None else stamp_lines(text, audit.utc_ns)
        text += "".join(render_account(account, audit.record.host) for account in audit.accounts)
        self._lines += text.splitlines(keepends=True)
        if len(self._lines) >= BATCH_LINES:
            self.flush()

    def flush(self) -> None:
        """Write the buffered lines."""
        lines, self._lines = self._lines, []
        if lines:
            self._deliver(lines)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _deliver(self, lines: Sequence[str]) -> None:
        """Write lines: retry if the database has accepted lines before, and halve a batch that is too large."""
        failures = 0
        while not isinstance(answer := self._transport.write("".join(lines)), Delivered):
            match classify(answer):
                case "size" if len(lines) > 1:
                    self._deliver(lines[: len(lines) // 2])
                    self._deliver(lines[len(lines) // 2 :])
                    return
                case "busy" | "broken" | "away" if self._has_delivered and failures + 1 != self._attempts:
                    if not failures:
                        self._note(f"cannot write to {self._url}: {describe(answer)}; waiting for it")
                    wait_s = back_off_s(failures, random.random())
                    self._pause(wait_s if self._attempts is not None else min(wait_s, MOST_WAIT_S))
                    failures += 1
                case _:
                    raise OutputError(f"cannot write to {self._url}: {_for_command_line(answer)}")
        self._has_delivered = True
        if failures:
            self._note("the database accepts points again; continuing")


_OPTIONS = {
    "influxdb.url, org and bucket": "--influx-url, --org and --bucket",
    "influxdb.url and influxdb.ca_file": "--influx-url and SSL_CERT_FILE",
    FIX_401: "check the token: INFLUXDB_V2_TOKEN",
    "influxdb.ca_file": "the file that SSL_CERT_FILE names",
    "influxdb.url": "--influx-url",
}


def _for_command_line(failure: DeliveryFailure) -> str:
    """Describe a failure and its fix. A demo has no configuration: its keys are replaced by options."""
    if isinstance(failure, Refused) and failure.reason.startswith(WEB_PAGE):
        return f"{failure.status}: {failure.reason}; this is not a database, or a proxy replied: check --influx-url"
    text = describe(failure)
    for key, option in _OPTIONS.items():
        text = text.replace(key, option)
    return text

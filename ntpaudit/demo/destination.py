"""Where the points of a demonstration are written, and how they are read back: a file or a database."""

import os
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.config.values import Language
from ntpaudit.core.fleet.model import Snapshot
from ntpaudit.core.units import NS_PER_S, format_utc
from ntpaudit.demo.scenario import ENV, Scenario
from ntpaudit.demo.writers import ATTEMPTS, InfluxWriter, StoreWriter
from ntpaudit.errors import ReadError
from ntpaudit.fleet import open_reader
from ntpaudit.fleet.demo_store import DemoStore, unwritten
from ntpaudit.fleet.reader import Reader, SnapshotOptions
from ntpaudit.net.http import DatabaseServer

BUCKET = "ntpaudit"  # the default bucket
IDENTIFY_WITHIN_S = 5.0  # a database that does not identify itself within this time is taken for an InfluxDB
VISIBLE_WITHIN_S = 15.0  # how long to wait for points that a database accepted: VictoriaMetrics takes a few seconds
_POLL_S = 0.5
_OPTION_OF_KEY = {"url": "--influx-url", "language": "the database's reply", "database": "--bucket"}


class FileDestination:
    """A demo file. It appears when it is closed. Raises StoreError."""

    unreadable: str | None = None
    until_ns: int | None = None

    def __init__(self, path: str, *, is_default: bool) -> None:
        """Create the file; the default one's folder too."""
        if is_default:
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
            except OSError as error:
                raise unwritten(path, error) from error
        self.name = path
        self.resource = DemoStore(path)
        self.writer = StoreWriter(self.resource)
        self.written_ns: Mapping[str, int] = {}
        self._is_default = is_default

    def finish(self, end_ns: int) -> None:
        """Complete the history."""
        self.resource.finish(end_ns)

    def snapshot(self, end_ns: int) -> Snapshot:
        """Read the fleet back. Raises ReadError."""
        with closing(open_reader(path=self.name)) as reader:
            return reader.snapshot(reader.now_ns(), SnapshotOptions())

    def fleet_options(self) -> str:
        """Return the options with which `ntpaudit fleet` reads it."""
        return "--demo" if self._is_default else f"--store {shlex.quote(self.name)}"


class DatabaseDestination:
    """A database, read at `read_url` if that differs. `note` gets messages for the operator."""

    unreadable: str | None = None

    def __init__(
        self,
        influx: InfluxConfig,
        token: str | None,
        scenario: Scenario,
        *,
        read_url: str | None = None,
        until_ns: int | None = None,
        follow: bool = False,
        note: Callable[[str], None],
    ) -> None:
        """Detect what the database is, and what it holds of a demonstration."""
        self.name = f"{influx.url}, bucket {influx.bucket}"
        self.writer = InfluxWriter(influx, token, None if follow else ATTEMPTS, note)
        self.resource = closing(self.writer)
        self.written_ns: Mapping[str, int] = {}
        self.until_ns = until_ns
        self._read = influx if read_url is None else influx._replace(url=read_url)
        self._scenario = scenario
        self.language = detect_language(self._read, token)
        self._open_reader = partial(
            open_reader,
            url=self._read.url,
            language=self.language,
            database=influx.bucket,
            token=token,
            ca_file=influx.ca_file,
            timeout_s=influx.timeout_s,
            keys=_OPTION_OF_KEY,
        )
        try:
            with closing(self._open_reader()) as reader:
                self.written_ns = self._to_continue(last_points(reader, scenario), note)
        except ReadError as error:
            self.unreadable = error.reason

    def finish(self, end_ns: int) -> None:
        """Do nothing: a database has no end of a history."""

    def _to_continue(self, last_ns: Mapping[str, int], note: Callable[[str], None]) -> Mapping[str, int]:
        """Report what the database holds; return the last points of the hosts that continue from there."""
        ours = {spec.name for spec in self._scenario.hosts} & last_ns.keys()
        if others := sorted(last_ns.keys() - ours):
            note(
                f"the database holds another demonstration too: {len(others)} hosts that are not in this one, such as "
                f"{others[0]}, will look silent; an empty bucket has none"
            )
        if not ours:
            return {}
        if self.until_ns is not None:
            note(
                f"the database knows {len(ours)} of these hosts already: their histories will mix; for this one alone "
                "name an empty bucket"
            )
            return {}
        last = format_utc(max(last_ns[name] for name in ours))[:19]
        note(
            f"the database knows {len(ours)} of these hosts already, until {last}Z: each continues from there, and its "
            "history stays as it was; for the whole scenario name an empty bucket"
        )
        return {name: last_ns[name] for name in ours}

    def snapshot(self, end_ns: int) -> Snapshot:
        """Read the fleet once the database shows all of it, or after a while as it is. Raises ReadError."""
        with closing(self._open_reader()) as reader:
            return await_fleet(reader, self._scenario, end_ns, self.until_ns)

    def fleet_options(self) -> str:
        """Return the options with which `ntpaudit fleet` reads it."""
        options = [f"--url {shlex.quote(self._read.url)}"]
        if self.language == "promql":
            options.append("--language promql")
        elif self._read.bucket != BUCKET:
            options.append(f"--database {shlex.quote(self._read.bucket)}")
        if self.until_ns is not None:
            options.append(f"--at {format_utc(self.until_ns)[:19]}")
        return " ".join(options)


Destination = FileDestination | DatabaseDestination
"""Where a demonstration is written: `name`, and the `writer` of its points, open while `resource` is.

`written_ns` is the time of the last point of each host that continues an earlier demonstration. `unreadable` says why
it cannot be read, None if it can. `until_ns` is the time at which the fleet is shown, None for now.
"""


def detect_language(influx: InfluxConfig, token: str | None) -> Language:
    """Return the query language of a database: that of InfluxDB if it does not identify itself."""
    try:
        server = DatabaseServer(
            influx.url, token=token, ca_file=influx.ca_file, timeout_s=IDENTIFY_WITHIN_S, language="promql"
        )
    except ReadError:
        return "influxql"
    with closing(server):
        return "promql" if server.kind() == "VictoriaMetrics" else "influxql"


def last_points(reader: Reader, scenario: Scenario) -> Mapping[str, int]:
    """Return the time of the last point of each host of any demonstration. Raises ReadError."""
    now_ns = reader.now_ns()
    reader.tallies(now_ns - 60 * NS_PER_S, now_ns, 1)  # an empty database replies to this one
    try:
        snapshot = reader.snapshot(
            now_ns, SnapshotOptions(look_back_s=max(86_400.0, (now_ns - scenario.begin_ns) / NS_PER_S))
        )
    except ReadError:
        return {}
    return {host.name: host.last_ns for host in snapshot.hosts if host.env == ENV}


def await_fleet(reader: Reader, scenario: Scenario, end_ns: int, at_ns: int | None) -> Snapshot:
    """Read a fleet that was written until `end_ns`, as of `at_ns` or now, once the database shows all of it.

    That is when every host is there and a second reading finds nothing new: not all points appear at the same time.
    After a while it is read as it is. Raises ReadError.
    """
    deadline_s = time.monotonic() + VISIBLE_WITHIN_S
    late_ns = end_ns - round(2 * scenario.intervals.local_s * NS_PER_S)
    names = {spec.name for spec in scenario.hosts}
    before: Snapshot | None = None
    while True:
        is_last = time.monotonic() >= deadline_s
        try:
            snapshot = reader.snapshot(reader.now_ns() if at_ns is None else at_ns, SnapshotOptions())
        except ReadError:
            if is_last:
                raise
        else:
            is_recent = any(host.last_ns >= late_ns for host in snapshot.hosts if host.env == ENV)
            is_complete = is_recent and names <= {host.name for host in snapshot.hosts}
            if is_last or (is_complete and before == snapshot._replace(now_ns=0)):
                return snapshot
            before = snapshot._replace(now_ns=0)
        time.sleep(_POLL_S)

"""The database that a demonstration fills, as its readers see it: in which language, what it knew before, and after."""

import time
from collections.abc import Iterable, Mapping
from contextlib import closing

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.config.values import Language
from ntpaudit.core.fleet.model import Snapshot
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.scenario import ENV, Scenario
from ntpaudit.errors import ReadError
from ntpaudit.fleet import open_reader
from ntpaudit.fleet.reader import Reader, SnapshotOptions
from ntpaudit.net.http import Server

RECOGNISED_S = 5.0
"""A database that is asked what it is answers within this time, or is taken for an InfluxDB."""

SEEN_S = 15.0
"""So long a database may take until it shows what it has taken: VictoriaMetrics collects points for a few seconds."""

_PAUSE_S = 0.5


def recognise(influx: InfluxConfig, token: str | None) -> Language:
    """Return the language that a database is asked in; what does not say what it is is taken for an InfluxDB."""
    try:
        server = Server(influx.url, scheme="Bearer", token=token, ca_file=influx.ca_file, timeout_s=RECOGNISED_S)
    except ReadError:
        return "influxql"
    with closing(server):
        return "promql" if server.kind() == "VictoriaMetrics" else "influxql"


def read_database(influx: InfluxConfig, token: str | None, language: Language) -> Reader:
    """Open a database that is filled, to read it. Raises ReadError."""
    return open_reader(
        url=influx.url,
        language=language,
        database=influx.bucket,
        token=token,
        ca_file=influx.ca_file,
        timeout_s=influx.timeout_s,
        keys=_TYPED,
    )


_TYPED = {"url": "--influx-url", "language": "what answers there", "database": "--bucket"}
"""What whoever fills a database calls the words that say where it is."""


def told_before(reader: Reader, scenario: Scenario) -> Mapping[str, int]:
    """Return until when a database knows each host of any demonstration. ReadError where it cannot be read."""
    now_ns = reader.now_ns()
    reader.tallies(now_ns - 60 * NS_PER_S, now_ns, 1)  # an empty database answers this one
    try:
        snapshot = reader.snapshot(
            now_ns, SnapshotOptions(look_back_s=max(86_400.0, (now_ns - scenario.begin_ns) / NS_PER_S))
        )
    except ReadError:
        return {}
    return {host.name: host.last_ns for host in snapshot.hosts if host.env == ENV}


def await_fleet(reader: Reader, scenario: Scenario, end_ns: int, at_ns: int | None) -> Snapshot:
    """Read a fleet that was just told until `end_ns`, as of `at_ns` or now, once the database shows all of it.

    What it shows after a while is read as it is. Raises ReadError.
    """
    give_up_s = time.monotonic() + SEEN_S
    late_ns = end_ns - round(2 * scenario.intervals.local_s * NS_PER_S)
    while True:
        is_last = time.monotonic() >= give_up_s
        try:
            snapshot = reader.snapshot(reader.now_ns() if at_ns is None else at_ns, SnapshotOptions())
        except ReadError:
            if is_last:
                raise
        else:
            if is_last or _is_whole(snapshot, (part.name for part in scenario.hosts), late_ns):
                return snapshot
        time.sleep(_PAUSE_S)


def _is_whole(snapshot: Snapshot, names: Iterable[str], late_ns: int) -> bool:
    """Whether every host is there, and the latest point is no earlier than a moment."""
    return {host.name for host in snapshot.hosts}.issuperset(names) and any(
        host.last_ns >= late_ns for host in snapshot.hosts if host.env == ENV
    )

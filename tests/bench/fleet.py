"""What a fleet costs: filling its database, reading it, showing it in dashboards; and how that grows with its size.

`python -m tests.bench.fleet HOSTS SIZE...` measures a smaller one.
"""

import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil

from grafana.__main__ import boards
from grafana.queries import Language
from ntpaudit.core.clock.drift import Breach, Drift
from ntpaudit.core.record import Health, Labels
from ntpaudit.core.units import NS_PER_S, format_utc
from ntpaudit.fleet.decode import JUDGED_FIELDS
from ntpaudit.fleet.influxql import InfluxqlReader
from ntpaudit.fleet.promql import PromqlReader
from ntpaudit.fleet.reader import SnapshotOptions
from ntpaudit.formats.line_protocol import render
from ntpaudit.net.http import DatabaseServer
from tests.bench import lines
from tests.bench.delivery import _shim
from tests.bench.page import WIDTH, Shown, look
from tests.grafana.replay import Asked, Span, ask, targets
from tests.records import record, servers
from tests.world.servers import influxd, victoria_metrics

HOSTS = 10_000
SIZES = (1_000, 10_000, 100_000)
HOURS = 6
RUNS = 5
TIMEOUT_S = 60.0
PROCESS_WITHIN_S = 1500.0
POST_WITHIN_S = 360.0
"""A synthetic fleet that is not there by then is given up."""

SETTLED_WITHIN_S = 180.0
IDLE_S, IDLE_SHARE = 5, 0.05
"""A server is idle if it uses less than this share of a core for this many seconds."""

FILL_GOAL_S = 15 * 60
FLEET_GOALS_S = {"promql": 1.0, "influxql": 1.5}
SLOW_S = 1.0
MANY_SERIES = 1000

SITE_HOSTS = 200
SOURCES = 4
LOCAL_S, NETWORK_S = 60, 300
FRESH_POINTS = 14
BASELINE_S = 3600
LATE_S = 200
LINES_A_DAY = 86_400 // LOCAL_S + 86_400 // NETWORK_S * (1 + SOURCES)
BATCH_LINES = 10_000

MIB = 1 << 20
MEMORY_BYTES = 120_000
"""What a server, with the system's cache, was seen to want for each host while it is filled, rounded up."""

DISK_BYTES = 100_000
"""The same of the disk, before anything is merged."""

_HERE = Path(__file__).parent
_NTPAUDIT = str(Path(sys.executable).with_name("ntpaudit"))
_FORMS: Mapping[str, tuple[str, ...]] = {
    "text": (),
    "JSON": ("--format", "json"),
    "nagios": ("--format", "nagios"),
    "one site": ("--site",),
    f"text, {LATE_S} s later, when every host is late": ("--at",),
    f"with the page, {HOURS} h": ("--period", f"{HOURS}h", "--html"),
}
_LATEST: Mapping[Language, tuple[str, Mapping[str, str]]] = {
    "influxql": (
        "/query",
        {
            "db": "ntpaudit",
            "epoch": "ns",
            "q": 'SELECT "o","host","site" FROM (SELECT last("offset_s") AS "o" FROM "ntpaudit_clock" '
            'WHERE time > {begin_ns} AND time <= {end_ns} GROUP BY "host","site")',
        },
    ),
    "promql": ("/api/v1/query", {"query": "last_over_time(ntpaudit_clock_offset_s[15m])", "time": "{end_s}"}),
}
"""The latest offset of every host in a quarter of an hour, as anybody would ask for it."""


class Database(NamedTuple):
    """A server: how it is asked, where it is read, where the agents write, its process, and where its data lie."""

    language: Language
    name: str
    url: str
    write_url: str
    process: psutil.Process
    folder: Path


class Taken(NamedTuple):
    """What a command took, all its processes together, but for the memory, which is the largest one's."""

    status: int
    wall_s: float
    cpu_s: float
    rss_bytes: int


class Fill(NamedTuple):
    """What it took to post a fleet's points to a database, and what came of it."""

    taken: Taken
    server_cpu_s: float
    server_rss_bytes: int
    lines: int


class Timed(NamedTuple):
    """How long a query of a dashboard took at most; `series` is 0 where it failed, with the reason."""

    asked: Asked
    seconds: float
    series: int
    failure: str | None


class Measured(NamedTuple):
    """All that was measured of one database; `disk_bytes` after all of it."""

    database: Database
    fill: Fill
    reads: Mapping[str, Sequence[Taken]]
    shown: Shown
    peers: Mapping[str, Sequence[Taken]]
    octets: int
    panels: Sequence[Timed]
    disk_bytes: int


class Posted(NamedTuple):
    """How many lines a database took, and in how long."""

    lines: int = 0
    seconds: float = 0.0

    def and_another(self, lines: int, seconds: float) -> "Posted":
        """Return both together."""
        return Posted(self.lines + lines, self.seconds + seconds)

    @property
    def rate(self) -> str:
        """Lines a second."""
        return f"{self.lines / self.seconds:,.0f}" if self.lines else ""


class Growth(NamedTuple):
    """What a synthetic fleet of some size took in one database; it was not read where it took too long to write."""

    new: Posted
    known: Posted
    disk_bytes: int
    filled_rss_bytes: int
    read_rss_bytes: int
    reads: Sequence[Taken]


def run(hosts: int = HOSTS) -> Iterator[str]:
    """(g) A fleet in a database: filled, read, shown."""
    _say(f"the points of {hosts} hosts, simulated unless they are kept")
    points, measured = lines.kept(hosts, HOURS), []
    for opened in _OPENERS.values():
        with opened() as database:
            measured.append(_measure(database, hosts, points))
    yield from _fill_section(measured, hosts, points)
    yield from _read_section(measured, hosts)
    yield from _panel_section(measured, hosts)


@contextmanager
def _victoria() -> Iterator[Database]:
    """Run VictoriaMetrics as docs/delivery.md has it."""
    with victoria_metrics("-dedup.minScrapeInterval=1ms") as url:
        process = _process_of(url)
        (data,) = (word.partition("=")[2] for word in process.cmdline() if word.startswith("-storageDataPath="))
        yield Database("promql", "VictoriaMetrics 1.79.5", url, url, process, Path(data))


@contextmanager
def _influx() -> Iterator[Database]:
    """Run InfluxDB, and nginx for the write API of 2.x."""
    with influxd() as url, _shim(url) as address:
        process = _process_of(url)
        configuration = Path(process.cmdline()[-1])
        yield Database("influxql", "InfluxDB 1.6.7", url, f"http://{address}", process, configuration.parent)


_OPENERS: Mapping[Language, Callable[[], AbstractContextManager[Database]]] = {"promql": _victoria, "influxql": _influx}


def _process_of(url: str) -> psutil.Process:
    """Return the process that we started and that listens there."""
    port = urlsplit(url).port
    for child in psutil.Process().children():
        if any(one.laddr.port == port and one.status == psutil.CONN_LISTEN for one in child.net_connections("tcp")):
            return child
    raise LookupError(f"no server listens at {url}")


def _measure(database: Database, hosts: int, points: lines.Lines) -> Measured:
    """Fill a database with a fleet, and ask it everything."""
    _say(f"{hosts} hosts for {HOURS} h into {database.name}")
    end_ns = lines.END_NS
    fill = _fill(database, points, end_ns)
    with _folder() as folder:
        _say(f"`ntpaudit fleet` from {database.name}")
        names, site = _known(database, folder, end_ns, hosts)
        words = {form: _words(form, folder, site, end_ns) for form in _FORMS}
        reads = {form: _read(database, folder, end_ns, options) for form, options in words.items()}
        _say("the page, in a browser")
        shown = look(folder / "page.html")
        _say("a bare reader")
        octets, peers = _peers(database, folder, end_ns)
    _say(f"dashboards from {database.name}")
    panels = _panels(database, Span(end_ns // 10**6 - HOURS * 3600 * 1000, end_ns // 10**6), names)
    return Measured(database, fill, reads, shown, peers, octets, panels, _disk_bytes(database))


def _fill(database: Database, points: lines.Lines, end_ns: int) -> Fill:
    """Post a fleet's points to a database, and watch what that takes."""
    before_s = _cpu_s(database)
    with _folder() as folder:
        command = [sys.executable, "-m", "tests.bench.lines", database.write_url, str(points.folder)]
        taken = _watched(folder, command)
    if taken.status != 0:
        raise RuntimeError(f"the points were not posted: {taken.status}")
    server_cpu_s, server_rss_bytes = _cpu_s(database) - before_s, _peak_bytes(database)
    _settle(database)
    return Fill(taken, server_cpu_s, server_rss_bytes, _count(database, end_ns))


def _known(database: Database, folder: Path, end_ns: int, hosts: int) -> tuple[list[str], str]:
    """Return the names of hosts, the worst first, and the site of that; all hosts must be there."""
    command = _fleet(database, folder, end_ns, ("--format", "json"))
    said = json.loads(subprocess.run(command, capture_output=True, timeout=PROCESS_WITHIN_S).stdout)
    if len(said["hosts"] or ()) != hosts:
        raise RuntimeError(f"not all of {hosts} hosts were read: {said['summary']}")
    return [one["host"] for one in said["hosts"] if not one["silent"]], said["hosts"][0]["site"]


def _words(form: str, folder: Path, site: str, end_ns: int) -> list[str]:
    """Return the options of a form, with what they need."""
    late = format_utc(end_ns + LATE_S * NS_PER_S)
    last = {"--site": [site], "--html": [str(folder / "page.html")], "--at": [late]}
    options = _FORMS[form]
    return [*options, *last.get(options[-1] if options else "", ())]


def _fleet(database: Database, folder: Path, end_ns: int, words: Sequence[str]) -> list[str]:
    """Return the command that shows the end of a history, whatever this host's own configuration."""
    config = folder / "ntpaudit.toml"
    config.write_text(
        f'[fleet]\nurl = "{database.url}"\nlanguage = "{database.language}"\ntimeout = "{TIMEOUT_S:g}s"\n'
    )
    return [_NTPAUDIT, "fleet", "--config", str(config), "--at", format_utc(end_ns), *words]


def _read(database: Database, folder: Path, end_ns: int, words: Sequence[str], runs: int = RUNS) -> Sequence[Taken]:
    """Run the command several times, fewer if it is slow."""
    return _repeated(folder, _fleet(database, folder, end_ns, words), runs)


def _repeated(folder: Path, command: Sequence[str], runs: int = RUNS) -> Sequence[Taken]:
    """Run a command until it has run often enough, or for a minute. It may find what it likes, but not fail."""
    taken: list[Taken] = []
    while len(taken) < runs and sum(one.wall_s for one in taken) < TIMEOUT_S:
        taken.append(_watched(folder, command))
        if taken[-1].status not in (0, 1, 2):
            break
    return taken


def _watched(folder: Path, command: Sequence[str]) -> Taken:
    """Run a command."""
    result = folder / "taken.json"
    result.unlink(missing_ok=True)
    with subprocess.Popen([sys.executable, "-S", str(_HERE / "watch.py"), str(result), *command], stdout=-3) as process:
        try:
            process.wait(PROCESS_WITHIN_S)
        finally:
            _end(process)
    return Taken(**json.loads(result.read_text()))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it started, if it has not ended."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()


def _peers(database: Database, folder: Path, end_ns: int) -> tuple[int, Mapping[str, Sequence[Taken]]]:
    """Let a bare reader ask the same questions, and one question alone; return how many octets the former are."""
    values = {"begin_ns": end_ns - 900 * NS_PER_S, "end_ns": end_ns, "end_s": end_ns // NS_PER_S}
    path, parameters = _LATEST[database.language]
    one = [(path, {name: text.format(**values) for name, text in parameters.items()})]
    commands, octets = {}, 0
    for number, (name, questions) in enumerate(
        (("the same questions, parsed", _questions(database, end_ns)), ("only the latest offset of each", one))
    ):
        file = folder / f"questions{number}.json"
        file.write_text(json.dumps(questions))
        commands[name] = [sys.executable, str(_HERE / "bare.py"), database.url, str(file)]
        if not number:
            octets = int(subprocess.run(commands[name], capture_output=True, check=True).stdout)
    return octets, {name: _repeated(folder, command) for name, command in commands.items()}


class _NotingServer(DatabaseServer):
    """A database that is asked, and what it is asked."""

    def __init__(self, url: str) -> None:
        super().__init__(url, timeout_s=TIMEOUT_S)
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    def ask_in_parts(self, path: str, parameters: Mapping[str, str], take: Callable[[Iterator[bytes]], Any]) -> Any:
        self.asked.append((path, parameters))
        return super().ask_in_parts(path, parameters, take)


def _questions(database: Database, end_ns: int) -> list[tuple[str, Mapping[str, str]]]:
    """Return what the fleet command reads for its text output."""
    server = _NotingServer(database.url)
    reader = PromqlReader(server) if database.language == "promql" else InfluxqlReader(server, "ntpaudit")
    with closing(reader):
        reader.snapshot(end_ns, SnapshotOptions(fields=JUDGED_FIELDS))
    return server.asked


def _panels(database: Database, span: Span, names: Sequence[str]) -> list[Timed]:
    """Ask what every panel asks, its folded rows unfolded; what is quick three times.

    The slowest counts: VictoriaMetrics answers the same range again from its cache.
    """
    middle = len(names) // 2
    choices = {"site": (), "env": (), "host": (names[0],), "hosts": (names[0], names[middle]), "every": ("60",)}
    timed = []
    for name, board in boards(database.language).items():
        for asked in targets(board, name):
            took: list[float] = []
            series, failure = 0, None
            while len(took) < 3 and sum(took) < 3 * SLOW_S:
                began = time.monotonic()
                try:
                    answer = ask(database.url, database.language, asked.target, span, asked.interval_s, choices)
                except (OSError, ValueError) as error:
                    failure = f"{type(error).__name__}: {error}"[:80]
                    took = [time.monotonic() - began]
                    break
                series = answer.series
                took.append(time.monotonic() - began)
            timed.append(Timed(asked, max(took), series, failure))
    return timed


def _count(database: Database, end_ns: int) -> int:
    """Return how many lines the database holds."""
    total = 0
    for measurement, field in (("clock", "severity"), ("source", "status"), ("event", "raised")):
        if database.language == "promql":
            query = f"sum(count_over_time(ntpaudit_{measurement}_{field}[{HOURS * 2}h]))"
            found = _got(f"{database.url}/api/v1/query", query=query, time=str(end_ns // NS_PER_S + 1))
            total += sum(int(one["value"][1]) for one in found["data"]["result"])
        else:
            query = f'SELECT count("{field}") FROM "ntpaudit_{measurement}"'
            (found,) = _got(f"{database.url}/query", db="ntpaudit", q=query)["results"]
            total += sum(one["values"][0][1] for one in found.get("series", ()))
    return total


def _got(url: str, **form: str) -> dict[str, Any]:
    """Post a question and return the answer."""
    with urllib.request.urlopen(url, urllib.parse.urlencode(form).encode(), timeout=300) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def _settle(database: Database) -> None:
    """Make all that was written readable, and let the server tidy up until it is idle, for a while at most."""
    if database.language == "promql":
        urllib.request.urlopen(f"{database.url}/internal/force_flush", timeout=300).close()
    idle, until_s = 0, time.monotonic() + SETTLED_WITHIN_S
    while idle < IDLE_S and time.monotonic() < until_s:
        before_s = _cpu_s(database)
        time.sleep(1.0)
        idle = idle + 1 if _cpu_s(database) - before_s < IDLE_SHARE else 0


def _cpu_s(database: Database) -> float:
    """Return the CPU that a server has taken."""
    times = database.process.cpu_times()
    return float(times.user + times.system)


def _peak_bytes(database: Database) -> int:
    """Return the most memory that a server ever had."""
    status = Path(f"/proc/{database.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _disk_bytes(database: Database) -> int:
    """Return what a server keeps on disk, its log left out; blocks, not lengths."""
    total = 0
    for path in database.folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512 if path.is_file() and path.name != "log" else 0
        except FileNotFoundError:  # merged away meanwhile
            continue
    return total


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder that goes with the block."""
    with TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)


def _ended_ns() -> int:
    """Return when a history ended that is late by now, cut to the second."""
    return (time.time_ns() // NS_PER_S - LATE_S) * NS_PER_S


def _say(what: str) -> None:
    """Notify the waiting thread."""
    print(f"  {time.strftime('%H:%M:%S')}  {what} …", file=sys.stderr, flush=True)


def _fill_section(measured: Sequence[Measured], hosts: int, points: lines.Lines) -> Iterator[str]:
    """Say what the fills took."""
    yield "## A simulated fleet into a database\n"
    yield (
        f"{hosts:,} hosts are simulated for {HOURS} h: the agents' own code, points as they write them. These are "
        f"kept and posted to each database: compressed, {lines.BATCH_LINES // 2:,} lines or so at once, over "
        f"{lines.CONNECTIONS} connections, on the same cores as the database. Memory is the server's peak.\n"
    )
    yield "| database | wall | lines a second | CPU, server's | memory, server's | lines | on disk |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for one in measured:
        taken, fill = one.fill.taken, one.fill
        yield (
            f"| {one.database.name} | {taken.wall_s:.0f} s | {fill.lines / taken.wall_s:,.0f} | "
            f"{fill.server_cpu_s:.0f} s | {fill.server_rss_bytes / MIB:.0f} MiB | {fill.lines:,} | "
            f"{one.disk_bytes / MIB:.0f} MiB |"
        )
    each = "; ".join(
        f"{one.database.name} {one.disk_bytes / one.fill.lines:.0f} octets a line, "
        f"{one.disk_bytes / one.fill.lines * LINES_A_DAY / 1024:.0f} KiB a host and day"
        for one in measured
    )
    yield (
        f"\nOn disk after all that follows was read. {each}: extrapolated to {LINES_A_DAY} lines a day, a look at the "
        f"host every {LOCAL_S} s and an audit of {SOURCES} servers every {NETWORK_S // 60} min; the index of series "
        "is in it.\n"
    )
    cores = len(os.sched_getaffinity(0))
    yield (
        f"To simulate takes {points.audit_cpu_s * 1e3:.2f} ms of CPU an audit (measured in this run with a sample of "
        f"hosts): `python -m tests.bench.load URL --hosts {hosts} --hours {HOURS}`, which simulates every host, would "
        f"take {points.host_cpu_s * hosts / cores / 60:.0f} min on {cores} cores. Goal: {FILL_GOAL_S // 60} min.\n"
    )


def _read_section(measured: Sequence[Measured], hosts: int) -> Iterator[str]:
    """Say what the fleet command took."""
    yield f"## `ntpaudit fleet` over {hosts:,} hosts\n"
    yield (
        "That fleet as it stood at the end of its history, read once the database is idle again. The whole process, "
        f"interpreter included; {RUNS} runs, warm. The bare reader is a process too: `http.client`, one question after "
        "another over one connection, every answer parsed; it judges nothing.\n"
    )
    yield "| database | process | wall, median | worst | CPU | memory | as a multiple | goal |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for one in measured:
        bare_s = _median_s(next(iter(one.peers.values())))
        for form, reads in one.reads.items():
            goal = f"{FLEET_GOALS_S[one.database.language]} s" if form == "text" else ""
            yield _read_row(one.database, f"`ntpaudit fleet`, {form}", reads, bare_s, goal)
        for peer, reads in one.peers.items():
            yield _read_row(one.database, f"bare reader: {peer}", reads, bare_s, "")
    octets = "; ".join(f"{one.database.name} {one.octets / MIB:.1f} MiB" for one in measured)
    yield f"\nWhat is answered: {octets}. A multiple is that of the bare reader of the same questions.\n"
    for one in measured:
        shown = one.shown
        yield (
            f"The page, from {one.database.name}: {shown.octets / MIB:.1f} MiB; Chromium, {WIDTH} pixels wide, "
            f"opens it in {shown.opened_s:.2f} s, sorts all its hosts in {shown.sorted_s * 1e3:.0f} ms and shows only "
            f"some of them in {shown.filtered_s * 1e3:.0f} ms.\n"
        )


def _read_row(database: Database, what: str, reads: Sequence[Taken], bare_s: float, goal: str) -> str:
    """Write what some runs took."""
    if reads[-1].status not in (0, 1, 2):
        return f"| {database.name} | {what} | failed after {reads[-1].wall_s:.1f} s | | | | | {goal} |"
    cpu_s, rss = statistics.median(one.cpu_s for one in reads), max(one.rss_bytes for one in reads)
    few = f" ({len(reads)} runs)" if len(reads) < RUNS else ""
    return (
        f"| {database.name} | {what}{few} | {_median_s(reads):.2f} s | {max(one.wall_s for one in reads):.2f} s | "
        f"{cpu_s:.2f} s | {rss / MIB:.0f} MiB | {_median_s(reads) / bare_s:.2f} | {goal} |"
    )


def _median_s(reads: Sequence[Taken]) -> float:
    """Return how long it usually took."""
    return statistics.median(one.wall_s for one in reads)


def _panel_section(measured: Sequence[Measured], hosts: int) -> Iterator[str]:
    """Say what the dashboards took."""
    yield f"## Dashboards over {hosts:,} hosts\n"
    yield (
        f"Every query of every panel, the range the last {HOURS} h, all sites; the slowest of three, where these "
        f"take less than {3 * SLOW_S:.0f} s. *Long range* rows are folded, and ask nothing until they are opened. "
        f"Goals: none of the others over {SLOW_S:.0f} s, none over {MANY_SERIES} series.\n"
    )
    yield "| database | dashboard | queries | median | slowest | which | slowest of long range | series at most |"
    yield "|---|---|---:|---:|---:|---|---:|---:|"
    for one in measured:
        for board in dict.fromkeys(timed.asked.board for timed in one.panels):
            mine = [timed for timed in one.panels if timed.asked.board == board]
            yield _board_row(one.database, board, mine)
    slow = [(one.database, timed) for one in measured for timed in one.panels if _stands_out(timed)]
    yield f"\nOver {SLOW_S:.0f} s, over {MANY_SERIES} series, or failed: {'none.' if not slow else ''}\n"
    for database, timed in slow:
        marked = "long range" if timed.asked.folded else "**not marked**"
        how = timed.failure or f"{timed.series} series"
        yield f"- {database.name}, {_panel(timed)}: {timed.seconds:.2f} s, {how}, {marked}"
    yield ""


def _board_row(database: Database, board: str, timed: Sequence[Timed]) -> str:
    """Write what one dashboard took."""
    shown = [one for one in timed if not one.asked.folded]
    slowest = max(shown, key=lambda one: one.seconds)
    folded = max((one.seconds for one in timed if one.asked.folded), default=None)
    median_s = statistics.median(one.seconds for one in shown)
    return (
        f"| {database.name} | {board} | {len(timed)} | {median_s * 1e3:.0f} ms | "
        f"{slowest.seconds * 1e3:.0f} ms | {slowest.asked.panel} | {'' if folded is None else f'{folded:.1f} s'} | "
        f"{max(one.series for one in timed)} |"
    )


def _stands_out(timed: Timed) -> bool:
    """Whether a query misses a goal, or may be thought to."""
    return timed.failure is not None or not timed.seconds <= SLOW_S or timed.series > MANY_SERIES


def _panel(timed: Timed) -> str:
    """Return where a query stands."""
    return f"{timed.asked.board}, “{timed.asked.panel}” {timed.asked.ref}"


def grow(sizes: Sequence[int] = SIZES) -> Iterator[str]:
    """(h) Fleets of several sizes in a database."""
    yield "## Growth\n"
    yield (
        f"Synthetic fleets, their lines shaped as the agents': of every host {FRESH_POINTS} points of the clock in as "
        f"many minutes and one of over an hour before, and {SOURCES} sources at every fifth minute, each with numbers "
        "of their own. Posted straight to `/write` over one connection, "
        f"{BATCH_LINES:,} lines at once; only the posting is timed, apart for what begins new series. Such a "
        "short history is mostly new series, so its size on disk is mostly their index. The size of a day is in the "
        "table above.\n"
    )
    yield (
        "| hosts | database | lines a second, new series | known series | on disk a host | server's memory, filled "
        "| read | `ntpaudit fleet`, wall | CPU | memory |"
    )
    yield "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for size in sizes:
        for opened in _OPENERS.values():
            with opened() as database:
                yield f"| {size:,} | {database.name} | {_growth_cells(database, size)} |"
    yield ""


def _growth_cells(database: Database, hosts: int) -> str:
    """Measure a size, if the machine is large enough for it, and write the cells."""
    if (reason := _obstacle(hosts)) is not None:
        _say(f"{hosts} hosts in {database.name} are left out: {reason}")
        return f"not measured: {reason} | | | | | | "
    _say(f"{hosts} synthetic hosts into {database.name}")
    found = _grow(database, hosts, _ended_ns())
    if not found.reads:
        _say(f"{hosts} hosts in {database.name} are given up")
        reason = f"given up after {POST_WITHIN_S / 60:.0f} min and {found.new.lines + found.known.lines:,} lines"
        return f"{found.new.rate} | {found.known.rate} | | {found.filled_rss_bytes / MIB:,.0f} MiB | {reason} | | "
    cells = [
        found.new.rate,
        found.known.rate,
        f"{found.disk_bytes / hosts / 1024:.1f} KiB",
        f"{found.filled_rss_bytes / MIB:,.0f} MiB",
        f"{found.read_rss_bytes / MIB:,.0f} MiB",
    ]
    if (last := found.reads[-1]).status not in (0, 1, 2):
        return " | ".join([*cells, f"failed after {last.wall_s:.1f} s", "", ""])
    cpu_s, rss = statistics.median(one.cpu_s for one in found.reads), max(one.rss_bytes for one in found.reads)
    return " | ".join([*cells, f"{_median_s(found.reads):.2f} s", f"{cpu_s:.2f} s", f"{rss / MIB:.0f} MiB"])


def _obstacle(hosts: int) -> str | None:
    """Say why a size cannot be measured here, if it cannot."""
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(tempfile.gettempdir()).free
    if memory < hosts * MEMORY_BYTES:
        return f"{hosts * MEMORY_BYTES / MIB:,.0f} MiB of memory are wanted, {memory / MIB:,.0f} are free"
    if disk < hosts * DISK_BYTES:
        return f"{hosts * DISK_BYTES / MIB:,.0f} MiB of disk are wanted, {disk / MIB:,.0f} are free"
    return None


def _grow(database: Database, hosts: int, end_ns: int) -> Growth:
    """Fill a database with a synthetic fleet, and read it."""
    posted, began_s = {True: Posted(), False: Posted()}, time.monotonic()
    parts = urlsplit(database.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    with closing(connection):
        for is_new, body in _bodies(hosts, end_ns):
            began = time.perf_counter()
            connection.request("POST", "/write?db=ntpaudit&precision=ns", body)
            answer = connection.getresponse()
            said = answer.read()
            posted[is_new] = posted[is_new].and_another(body.count(b"\n"), time.perf_counter() - began)
            if answer.status != 204:
                raise RuntimeError(f"{database.name}: {answer.status} {said[:200]!r}")
            if time.monotonic() - began_s > POST_WITHIN_S:
                rss = database.process.memory_info().rss
                return Growth(posted[True], posted[False], _disk_bytes(database), rss, 0, ())
    _settle(database)
    filled, disk = database.process.memory_info().rss, _disk_bytes(database)
    with _folder() as folder:
        _known_grown(database, folder, end_ns, hosts)
        reads = _read(database, folder, end_ns, (), runs=3)
    return Growth(posted[True], posted[False], disk, filled, database.process.memory_info().rss, reads)


def _known_grown(database: Database, folder: Path, end_ns: int, hosts: int) -> None:
    """Check that every host is read; the reads that follow report a failure to read at all."""
    command = _fleet(database, folder, end_ns, ("--format", "json", "--limit", "1"))
    said = json.loads(subprocess.run(command, capture_output=True, timeout=PROCESS_WITHIN_S).stdout)
    if (counts := said["counts"]) is not None and (counts["hosts"], counts["silent"]) != (hosts, 0):
        raise RuntimeError(f"{database.name}: {counts} of {hosts} hosts")


def _bodies(hosts: int, end_ns: int) -> Iterator[tuple[bool, bytes]]:
    """Yield the lines of a synthetic fleet, many at once, in the order of time; and whether they begin new series."""
    rng = random.Random(1)
    clock, source = _templates()
    offsets = [rng.gauss(0.0, 0.002) for _ in range(hosts)]
    phases = [rng.randrange(LOCAL_S * NS_PER_S) for _ in range(hosts)]
    batch: list[str] = []
    ages_s = [LOCAL_S * minute for minute in reversed(range(FRESH_POINTS))]
    first_s = next(ago_s for ago_s in ages_s if ago_s % NETWORK_S == 0)
    for ago_s in (BASELINE_S, *ages_s):
        is_new = ago_s in (BASELINE_S, first_s)  # of the clocks, and then of the sources
        for number in range(hosts):
            stamp_ns = end_ns - ago_s * NS_PER_S - phases[number]
            offset_s = offsets[number] + rng.gauss(0.0, 1e-4)
            whose = {"host": f"srv{number:06}.example.net", "site": f"site-{number // SITE_HOSTS:03}"}
            batch.append(clock % {**whose, **_numbers(offset_s, stamp_ns, -ago_s % NETWORK_S)})
            if ago_s % NETWORK_S == 0 and ago_s != BASELINE_S:
                for place in range(SOURCES):
                    said = _numbers(offset_s + rng.gauss(0.0, 1e-4), stamp_ns, 0)
                    batch.append(source % {**whose, **said, "source": f"ntp{place + 1}.example.net"})
            if len(batch) >= BATCH_LINES:
                yield is_new, "".join(batch).encode()
                batch = []
        if batch:
            yield is_new, "".join(batch).encode()
            batch = []


def _numbers(offset_s: float, stamp_ns: int, age_s: int) -> dict[str, float]:
    """Return what differs from line to line."""
    half_s = 0.004 + abs(offset_s) * 1e-3
    return {
        "offset_s": offset_s,
        "abs_offset_s": abs(offset_s),
        "earliest_s": offset_s - half_s,
        "latest_s": offset_s + half_s,
        "bound_s": abs(offset_s) + half_s,
        "delay_s": half_s / 2,
        "root_distance_s": half_s * 1.01,
        "age_s": float(age_s),
        "frequency_ppm": 12.0 + offset_s,
        "stamp": stamp_ns,
    }


def _templates() -> tuple[str, str]:
    """Return a line of a clock and one of a source, as an agent writes them, with places for what differs."""
    breach = Breach(None, None, None, 20_000.0, free_running=False, calibrated=True)
    labels = Labels("0.1.0", "0123456789abcdef" * 4, "SITE", "prod")
    made = record(*servers(0.0019, count=SOURCES), name="HOST", labels=labels)
    made = made._replace(drift=Drift(12.25, -3.5, 0.75, 20, breach), health=Health(), age_s=0.0)
    clock, source, *_ = render(made, ()).splitlines(keepends=True)
    return _template(clock), _template(source)


def _template(line: str) -> str:
    """Put places into a line."""
    line = line.replace("%", "%%").replace("host=HOST", "host=%(host)s").replace("site=SITE", "site=%(site)s")
    line = re.sub(r"source=[^ ,]+ ", "source=%(source)s ", line)
    line = re.sub(r"host_time_ns=\d+i", "host_time_ns=%(stamp)di", line)
    for name in _numbers(0.0, 0, 0):
        line = re.sub(rf"([ ,]){name}=[^ ,]+", rf"\g<1>{name}=%({name})r", line)
    return re.sub(r" \d+\n$", " %(stamp)d\n", line)


if __name__ == "__main__":
    for section in (run(int(sys.argv[1])), grow([int(size) for size in sys.argv[2:]])):
        for line in section:
            print(line, flush=True)

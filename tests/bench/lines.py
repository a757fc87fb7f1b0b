"""The points of a large simulated fleet: simulated once, kept in the cache, and posted to each database.

`python -m tests.bench.lines URL FOLDER` posts what a folder holds.
"""

import gzip
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.fleet import SimulatedFleet
from ntpaudit.demo.network import query_without_udp
from ntpaudit.demo.scenario import Scenario, build_scenario
from ntpaudit.demo.simulated_agent import SimulatedAudit
from ntpaudit.formats.line_protocol import render, stamp_lines
from tests.world.packages import cache_folder

END_NS = 1_767_268_800 * NS_PER_S
"""When each history ends, so that its points can be kept: 2026-01-01T12:00Z."""

SEED = 1
LOCAL_S = 120.0
"""Half as many local audits as by default: as the load generator does for many hosts."""

SAMPLE_HOSTS = 40
"""This number of hosts is simulated each time. If their points are the same as before, no others are simulated."""

BATCH_LINES = 10_000
CONNECTIONS = 2
POST_WITHIN_S = 120.0


class Lines(NamedTuple):
    """The points of a fleet: where they are, how many lines, and the CPU of simulating a host and an audit, now."""

    folder: Path
    lines: int
    host_cpu_s: float
    audit_cpu_s: float


class LineFiles:
    """Writes audits to files that a database takes as they are: line protocol, gzip."""

    def __init__(self, folder: Path, share: int) -> None:
        self._folder, self._share = folder, share
        self._files = 0
        self._lines: list[str] = []
        self.lines = self.audits = 0

    def write(self, audit: SimulatedAudit) -> None:
        """Render an audit; write files when there are enough lines."""
        text = render(audit.record, audit.events)
        self._lines.append(text if audit.record.utc_ns is not None else stamp_lines(text, audit.utc_ns))
        self.audits += 1
        if len(self._lines) >= BATCH_LINES // 4:
            self.flush()

    def flush(self) -> None:
        """Write the lines that are left."""
        text, self._lines = "".join(self._lines), []
        body = gzip.compress(text.encode(), compresslevel=1, mtime=0)
        (self._folder / f"{self._files:05}-{self._share}.gz").write_bytes(body)
        self._files, self.lines = self._files + 1, self.lines + text.count("\n")


def kept(hosts: int, hours: float) -> Lines:
    """Return the points of a fleet; they are simulated again if those of a sample have changed since."""
    scenario = build_scenario(hosts, hours, SEED, END_NS)
    scenario = scenario._replace(intervals=scenario.intervals._replace(local_s=LOCAL_S))
    step = max(1, len(scenario.hosts) // SAMPLE_HOSTS)
    with TemporaryDirectory(prefix="bench-") as name:
        _, audits, cpu_s = _simulate(scenario, Path(name), 0, step)
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(Path(name).iterdir()))).hexdigest()
    folder = cache_folder() / f"bench/{hosts}-{hours:g}-{digest[:16]}"
    if not folder.exists():
        _make(scenario, folder)
    taken: dict[str, Any] = json.loads((folder / "taken.json").read_text())
    return Lines(folder, taken["lines"], cpu_s / len(scenario.hosts[::step]), cpu_s / audits)


def _simulate(scenario: Scenario, folder: Path, share: int, shares: int) -> tuple[int, int, float]:
    """Simulate every n-th host of a fleet, from one on, into files; return the lines, the audits, and the CPU."""
    files = LineFiles(folder, share)
    began_s = time.process_time()
    SimulatedFleet(scenario._replace(hosts=scenario.hosts[share::shares]), query_without_udp, files).run(END_NS)
    return files.lines, files.audits, time.process_time() - began_s


def _make(scenario: Scenario, folder: Path) -> None:
    """Simulate all hosts by one process per core; the folder appears when it is whole. Older ones of its kind go."""
    for old in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"):
        shutil.rmtree(old)
    part = folder.with_suffix(".part")
    part.mkdir(parents=True)
    shares = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(shares, get_context("spawn")) as pool:
        waiting = [pool.submit(_simulate, scenario, part, share, shares) for share in range(shares)]
        lines = sum(one.result()[0] for one in waiting)
    (part / "taken.json").write_text(json.dumps({"lines": lines}))
    part.rename(folder)


def post(url: str, folder: Path) -> None:
    """Post what a folder holds to `/api/v2/write`, over several connections."""
    files = sorted(folder.glob("*.gz"))
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for one in [pool.submit(_post, url, files[first::CONNECTIONS]) for first in range(CONNECTIONS)]:
            one.result()


def _post(url: str, files: Sequence[Path]) -> None:
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=POST_WITHIN_S)) as connection:
        for file in files:
            headers = {"Content-Encoding": "gzip"}
            connection.request("POST", "/api/v2/write?bucket=ntpaudit&precision=ns", file.read_bytes(), headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 204:
                raise SystemExit(f"{url}: {answer.status} {said[:200]!r}")


if __name__ == "__main__":
    post(sys.argv[1], Path(sys.argv[2]))

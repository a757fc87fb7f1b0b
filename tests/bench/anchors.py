"""What it costs to anchor the heads of a large fleet, and to verify the anchor."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from tests.bench.process import process_cost
from tests.test_anchor import configured, replies
from tests.world.flaky import FlakyDatabase
from tests.world.roughtime_server import honest, new_signer, serving
from tests.world.servers import influxd, victoria_metrics
from tests.world.time_stamps import authority

HOSTS = 10_000
RUNS = 3
PEER = "import click, ntplib"


def run() -> Iterator[str]:
    """(j) CPU of the commands that make and verify an anchor."""
    yield f"## Anchors of {HOSTS:,} hosts\n"
    yield (
        f"One point of each host with its head; a time-stamp authority of `openssl ts` and a Roughtime server on "
        f"loopback. The whole process, median of {RUNS} runs.\n"
    )
    yield "| process | CPU | wall | CPU as a multiple |"
    yield "|---|---:|---:|---:|"
    peer, wall = process_cost([sys.executable, "-c", PEER], RUNS)
    yield f'| `python -c "{PEER}"` | {peer:.0f} ms | {wall:.0f} ms | 1.00 |'
    with TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder, signer = Path(name), new_signer()
        issuer = authority(folder / "authority")
        tsa = stack.enter_context(FlakyDatabase(choose=replies(issuer)))
        address, _ = stack.enter_context(serving(honest(signer)))
        config = configured(folder / "ntpaudit.toml", tsa.url, issuer.roots, address, signer.key)
        command = [str(Path(sys.executable).with_name("ntpaudit")), "evidence"]
        for database, server, language in (
            ("InfluxDB", influxd, "influxql"),
            ("VictoriaMetrics", victoria_metrics, "promql"),
        ):
            url = stack.enter_context(server())
            _fill(url)
            words = ["--config", str(config), "--url", url, "--language", language, "--folder", str(folder)]
            yield _row(f"`evidence anchor`, heads from {database}", [*command, "anchor", *words], peer)
        made = str(max(folder.glob("*.json")))
        yield _row("`evidence verify-anchor`", [*command, "verify-anchor", "--config", str(config), made], peer)
        yield _row("`evidence excerpt` of one host", [*command, "excerpt", made, "host77"], peer)
        yield f"\nThe file of all hosts has {Path(made).stat().st_size / 1024:,.0f} KiB.\n"


def _row(what: str, words: list[str], peer: float) -> str:
    cpu, wall = process_cost(words, RUNS)
    return f"| {what} | {cpu:.0f} ms | {wall:.0f} ms | {cpu / peer:.2f} |"


def _fill(url: str) -> None:
    """Write one point of each host, as its agent does."""
    lines = []
    for number in range(HOSTS):
        head = sha256(str(number).encode()).digest()
        fields = f'chain={number + 1}i,chain_head="{head.hex()}",chain_head_int={int.from_bytes(head[:8]) >> 11}i'
        lines.append(f"ntpaudit_clock,host=host{number},site=ams {fields} {time.time_ns() - 60 * 10**9}\n")
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("POST", "/write?db=ntpaudit&precision=ns", "".join(lines))
    answer = connection.getresponse()
    assert answer.status < 300, answer.read()
    connection.close()
    with suppress(HTTPError):  # InfluxDB has no such path
        urlopen(f"{url}/internal/force_flush", timeout=60).close()

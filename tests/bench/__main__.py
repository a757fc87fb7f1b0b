"""`make bench`: measure everything once, beside a peer in the same run, and write docs/benchmarks.md.

`python -m tests.bench SECTION...` measures some sections alone and prints them. With `--page`, it also replaces their
chapters of the page.
"""

import compileall
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ntplib

import ntpaudit
from ntpaudit import __version__
from ntpaudit.core.ntp.measurement import Measurement
from ntpaudit.demo.server import Behaviour, NtpServer
from ntpaudit.probes.clock import SystemClock
from ntpaudit.probes.ntp import exchange_all
from ntpaudit.probes.resolve import Endpoint
from ntpaudit.probes.timestamping import stamping_enabled
from tests.bench import agent, anchors, delivery, fleet, history
from tests.bench.process import PROCESS_RUNS, process_cost
from tests.world.packages import environment, program
from tests.world.rogue import RogueServer
from tests.world.servers import chronyd, saturated_cores

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
EXCHANGES = 500
CHRONYD_RUNS = 30

_WRONG_BY = re.compile(r"System clock wrong by (-?[0-9.]+) seconds")


@dataclass(frozen=True)
class Errors:
    """The absolute errors of one client, in microseconds."""

    name: str
    errors_us: Sequence[float]

    @property
    def median_us(self) -> float:
        """Half of the errors are below this."""
        return statistics.median(self.errors_us)

    @property
    def p99_us(self) -> float:
        """99 of 100 errors are below this; of fewer than 100, the largest."""
        return sorted(self.errors_us)[min(len(self.errors_us) - 1, int(len(self.errors_us) * 0.99))]


def accuracy(address: str, port: int) -> list[Errors]:
    """Ask a chronyd that serves this very clock, so that whatever offset is found is error; turn by turn."""
    endpoint = Endpoint(socket.AF_INET, address, port)
    ours, theirs = [], []
    client = ntplib.NTPClient()
    with stamping_enabled():
        for _ in range(EXCHANGES):
            outcome = exchange_all([(endpoint,)], SystemClock(), 2.0)[0].outcome
            assert isinstance(outcome, Measurement), outcome
            ours.append(abs(outcome.offset_ns) / 1e3)
            theirs.append(abs(client.request(address, port=port, version=4).offset) * 1e6)
    chrony = [abs(chronyd_query(address, port)) * 1e6 for _ in range(CHRONYD_RUNS)]
    return [Errors("ntpaudit", ours), Errors("ntplib", theirs), Errors("chronyd -Q, one sample", chrony)]


def chronyd_query(address: str, port: int) -> float:
    """Let chronyd ask once and say how wrong it finds the clock, in seconds; positive is slow (C1)."""
    words = [str(program("chronyd")), "-Q", "-t", "10", "-U", *(["-u", "root"] if os.getuid() == 0 else [])]
    done = subprocess.run(
        [*words, f"server {address} port {port} iburst maxsamples 1", "cmdport 0"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=20,
    )
    if (found := _WRONG_BY.search(done.stdout + done.stderr)) is None:
        raise RuntimeError(done.stdout + done.stderr)
    return float(found[1])


@contextmanager
def servers(behaviours: Sequence[Behaviour]) -> Iterator[list[NtpServer]]:
    """Run simulated servers on loopback."""
    with ExitStack() as stack:
        yield [stack.enter_context(NtpServer(behaviour)) for behaviour in behaviours]


def check(*words: str) -> list[str]:
    """Return the command line of one check, as a shell would run it."""
    return [str(Path(sys.executable).with_name("ntpaudit")), "check", *words]


def names(asked: Sequence[NtpServer]) -> list[str]:
    """Return the servers as arguments."""
    return [f"{server.address}:{server.port}" for server in asked]


def accuracy_section() -> Iterator[str]:
    """(a) Errors against a real chronyd, idle and with every core saturated."""
    yield "## Accuracy on loopback\n"
    yield (
        f"One real chronyd on loopback serves this machine's own clock, so any offset found is error. {EXCHANGES} "
        f"exchanges each of ntpaudit and ntplib, turn by turn in one process, and {CHRONYD_RUNS} runs of `chronyd -Q` "
        "(which prints whole microseconds). Saturated: two busy processes on every core.\n"
    )
    yield "| load | client | median error | p99 error | p99 as a multiple of ntpaudit's |"
    yield "|---|---|---:|---:|---:|"
    for load, burden in (("idle", nullcontext), ("saturated", saturated_cores)):
        with chronyd() as server, burden():
            results = accuracy(server.address, server.port)
        for result in results:
            ratio = result.p99_us / results[0].p99_us
            yield f"| {load} | {result.name} | {result.median_us:.1f} us | {result.p99_us:.1f} us | {ratio:.1f} |"
    yield f"\nOf chronyd's {CHRONYD_RUNS} runs the p99 is the largest.\n"


def cost_section() -> Iterator[str]:
    """(b) CPU of a whole process."""
    yield "## Cost of one check\n"
    base_cpu, base_wall = process_cost([sys.executable, "-c", "import click, ntplib"])
    yield f"The whole process, interpreter included; median of {PROCESS_RUNS} runs.\n"
    yield "| process | CPU | wall | CPU as a multiple |"
    yield "|---|---:|---:|---:|"
    yield f'| `python -c "import click, ntplib"` | {base_cpu:.0f} ms | {base_wall:.0f} ms | 1.00 |'
    with servers([Behaviour()] * 4) as asked:
        for where, neighbour in (
            ("no time daemon runs", nullcontext),
            ("a chronyd runs", chronyd),
        ):
            with neighbour():
                cpu, wall = process_cost(check(*names(asked)))
            yield f"| `ntpaudit check`, 4 servers, {where} | {cpu:.0f} ms | {wall:.0f} ms | {cpu / base_cpu:.2f} |"
    yield ""


def deadline_section() -> Iterator[str]:
    """(c) Wall time where some servers are slow or silent."""
    yield "## Wall time with slow and silent servers\n"
    yield "| servers | timeout | wall |"
    yield "|---|---:|---:|"
    slow = Behaviour(request_delay_s=0.15, reply_delay_s=0.15)
    with servers([Behaviour()] * 7 + [slow]) as asked:
        yield f"| 7 quick, one of 300 ms | 1 s | {wall_of(check('--timeout', '1s', *names(asked))):.2f} s |"
    with servers([Behaviour()] * 6 + [slow]) as asked, RogueServer("silent") as silent:
        wall = wall_of(check("--timeout", "1s", *names([*asked, silent])))
    yield f"| 6 quick, one of 300 ms, one silent | 1 s | {wall:.2f} s |\n"


def traffic_section() -> Iterator[str]:
    """(d) What goes out."""
    yield "## Traffic of one check\n"
    seen: list[int] = []

    class Counting(NtpServer):
        def _answer(self, request: bytes, client: tuple[Any, ...]) -> None:
            seen.append(len(request))
            super()._answer(request, client)

    with ExitStack() as stack:
        asked = [stack.enter_context(Counting()) for _ in range(4)]
        subprocess.run(check(*names(asked)), capture_output=True, timeout=30)
    yield (
        f"4 servers: {len(seen)} packets sent, {sum(seen)} octets of NTP, as counted by the servers; "
        f"{sum(size + 28 for size in seen)} octets with IPv4 and UDP headers. As much comes back.\n"
    )


def wall_of(words: Sequence[str]) -> float:
    """Return the median wall time of three runs, in seconds."""
    took = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run(words, capture_output=True, timeout=30)
        took.append(time.monotonic() - began)
    return statistics.median(took)


SECTIONS: Mapping[str, Callable[[], Iterator[str]]] = {
    "accuracy": accuracy_section,
    "cost": cost_section,
    "deadline": deadline_section,
    "traffic": traffic_section,
    "agent": agent.run,
    "delivery": delivery.run,
    "fleet": fleet.run,
    "growth": fleet.grow,
    "history": history.run,
    "anchors": anchors.run,
}


def main(words: Sequence[str]) -> None:
    """Measure and write the page, or measure some sections, print them, and write their chapters if asked to."""
    chosen = [word for word in words if word != "--page"]
    if unknown := set(chosen) - set(SECTIONS):
        raise SystemExit(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    head = (
        "# Benchmarks\n\n"
        "Written by `make bench`; do not edit. Figures are ratios to a peer measured in the same run.\n\n"
        f"ntpaudit {__version__}, Python {platform.python_version()}, ntplib {version('ntplib')}, "
        f"Linux {platform.release().split('-')[0]} on {platform.machine()}, {os.cpu_count()} cores.\n\n"
    )
    compileall.compile_dir(Path(ntpaudit.__file__).parent, quiet=1)  # as an installation does
    lines: list[str] = []
    for name in chosen or SECTIONS:
        print(f"{SECTIONS[name].__doc__} …", file=sys.stderr, flush=True)
        lines += SECTIONS[name]()
    measured = "\n".join(lines)
    print(measured)
    if "--page" in words or not chosen:
        kept = chapters(PAGE.read_text()) if chosen else {}
        written = head + "".join((kept | chapters(f"{measured}\n")).values())
        PAGE.write_text(f"{written.rstrip()}\n")


def chapters(text: str) -> dict[str, str]:
    """Divide a page into its chapters, by their titles; what comes before the first is left out."""
    return {one.partition("\n")[0]: f"{one.rstrip()}\n\n" for one in re.split(r"^(?=## )", text, flags=re.M)[1:]}


if __name__ == "__main__":
    main(sys.argv[1:])

"""What an agent costs: memory, CPU of its audits, bytes on disk; each as its own process, as systemd runs it."""

import os
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ntpaudit import audit
from ntpaudit.agent import Agent, read_setup
from ntpaudit.core.agent_events import Observed
from ntpaudit.runtime import SystemRuntime, Wakeup
from ntpaudit.store import outbox
from tests.world.flaky import FlakyDatabase
from tests.world.host import Change, S, SimulatedRuntime
from tests.world.servers import chronyd, influxd

WARM_UP_S = 15.0
IDLE_S = 30.0
NETWORK_AUDITS = 50
LOCAL_AUDITS = 500
PAGE_BYTES = 1024
BARE_COMMITS = 200
RECORD_BYTES = 600
WRITING_H = 6
DRAIN_S = 5.0


def run() -> Iterator[str]:
    """(e) Memory, CPU and disk of the agent."""
    yield "## Cost of the agent\n"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        servers = [stack.enter_context(chronyd()) for _ in range(4)]
        names = [f"{server.address}:{server.port}" for server in servers]
        proxy = stack.enter_context(FlakyDatabase(stack.enter_context(influxd())))
        plain = _configuration(folder, "plain", names, "")
        delivering = _configuration(folder, "delivering", names, f'[influxdb]\nurl = "{proxy.url}"\n')
        yield from _memory(folder, {"delivering nowhere": plain, "delivering to InfluxDB": delivering})
        yield from _processor(folder, plain)
        yield from _disk(folder, delivering)
        yield from _written(proxy.url)


def _configuration(folder: Path, name: str, servers: list[str], rest: str) -> Path:
    file = folder / f"{name}.toml"
    file.write_text(f'[sources]\nservers = {servers!r}\n[schedule]\nnetwork = "5s"\nlocal = "1s"\n{rest}')
    return file


@contextmanager
def _agent(folder: Path, config: Path) -> Iterator[int]:
    """Run an agent as a process, and yield its process id."""
    # influxdb-client imports numpy where it is, which takes 12 MiB: a host has none, the tests have
    start = "import sys; sys.modules['numpy'] = None; from ntpaudit.cli import main; main()"
    command = [sys.executable, "-c", start, "agent", "--config", str(config)]
    state = {"STATE_DIRECTORY": str(folder / f"{config.stem}-state")}
    with subprocess.Popen(command, env=os.environ | state, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def _memory(folder: Path, configs: dict[str, Path]) -> Iterator[str]:
    """Measure resident memory after a while of auditing much more often than in life."""
    bare = subprocess.run(
        [sys.executable, "-c", "print(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1])"],
        capture_output=True,
        text=True,
        check=True,
    )
    yield f"Resident memory after {WARM_UP_S + IDLE_S:.0f} s: 4 servers every 5 s, a look at the host each second.\n"
    yield "| process | RSS | goal |"
    yield "|---|---:|---:|"
    yield f"| `python -c pass` | {int(bare.stdout) / PAGE_BYTES:.1f} MiB | |"
    for goal, (name, config) in zip((26, 50), configs.items(), strict=True):
        with _agent(folder, config) as pid:
            time.sleep(WARM_UP_S)
            before_ns = _cpu_ns(pid)
            time.sleep(IDLE_S)
            spent_ms = (_cpu_ns(pid) - before_ns) / 1e6 / IDLE_S
            status = Path(f"/proc/{pid}/status").read_text()
        rss = int(status.partition("VmRSS:")[2].split()[0]) / PAGE_BYTES
        yield f"| `ntpaudit agent`, {name} | {rss:.1f} MiB | {goal} MiB |"
        if goal == 26:
            idle = (
                f"\nThat agent took {spent_ms:.1f} ms of CPU a second: for a local audit, a fifth of a network audit, "
                "and for waking up with cold caches. By default it looks at the host once a minute.\n"
            )
    yield idle


def _cpu_ns(pid: int) -> int:
    """Return what all threads of a process have run, by the scheduler's account."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def _processor(folder: Path, config: Path) -> Iterator[str]:
    """Measure the CPU of many audits in a row, storing each durably."""
    environment = {"STATE_DIRECTORY": str(folder / "row-state")}
    with SystemRuntime() as system:
        setting = read_setup(str(config), environment)
        agent = Agent(setting, system)
        agent.begin()
        local, network = [], []
        for _ in range(NETWORK_AUDITS):
            began = time.process_time()
            agent.take_observation(audit.observe(audit.plan_of(setting.config), system.clock, agent.store.update))
            network.append((time.process_time() - began) * 1e3)
        for _ in range(LOCAL_AUDITS):
            began = time.process_time()
            agent.handle(Observed(agent.observe_host(agent.state.context), "local"))
            local.append((time.process_time() - began) * 1e3)
        agent.drain(0.0)
    bare = _bare_commits(folder)
    yield "CPU of one audit, in a row in one process, its storing (synchronous=FULL) included; median.\n"
    yield "| what | CPU | goal |"
    yield "|---|---:|---:|"
    yield f"| a network audit of 4 servers | {statistics.median(network):.1f} ms | 15 ms |"
    yield f"| a local audit | {statistics.median(local):.2f} ms | 1 ms |"
    yield f"| for comparison: one bare SQLite commit of 3 kB | {bare:.2f} ms | |\n"


def _bare_commits(folder: Path, size: int = 3000) -> float:
    """Measure what SQLite alone takes; return the median CPU in milliseconds."""
    connection = sqlite3.connect(folder / "bare.sqlite3", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE bare (text TEXT)")
    took = []
    for _ in range(BARE_COMMITS):
        began = time.process_time()
        connection.execute("INSERT INTO bare VALUES (?)", ("x" * size,))
        took.append((time.process_time() - began) * 1e3)
    connection.close()
    return statistics.median(took)


def _disk(folder: Path, config: Path) -> Iterator[str]:
    """Measure what a record takes on disk, delivered."""
    file = folder / f"{config.stem}-state" / "history.sqlite3"
    connection = sqlite3.connect(file)
    sizes = {}
    for kind in ("local", "network"):
        (size, count) = connection.execute(
            "SELECT SUM(LENGTH(observation) + LENGTH(record) + 120), COUNT(*) FROM audits WHERE kind = ?", (kind,)
        ).fetchone()
        sizes[kind] = size / max(1, count)
    connection.close()
    quarter = (sizes["local"] * 1440 + sizes["network"] * 288) * 90 / 2**20
    yield "Bytes of one record in the history, columns and overhead included, once it is delivered.\n"
    yield "| record | on disk |"
    yield "|---|---:|"
    yield f"| of a network audit of 4 servers, with its observation | {sizes['network']:.0f} B |"
    yield f"| of a local audit | {sizes['local']:.0f} B |"
    yield f"| 90 days at the default intervals | {quarter:.0f} MiB |\n"


class _Prompt(SimulatedRuntime):
    """A runtime whose records are delivered before the next is made, as in life, although its time passes at once."""

    agent: Agent | None = None

    def wait(self, seconds: float) -> Wakeup:
        """Deliver what waits; pass time."""
        assert self.agent is not None
        until_s = time.monotonic() + DRAIN_S
        while self.agent.store.read(outbox.backlog)[0] and time.monotonic() < until_s:
            time.sleep(0.001)
        return super().wait(seconds)


def _written(url: str) -> Iterator[str]:
    """Measure what an agent that delivers writes to the disk in some hours, beside bare commits of the same rows."""
    written: list[int] = []
    with TemporaryDirectory(prefix="bench-", dir="/var/tmp") as name:  # where a disk is, not memory
        folder = Path(name)
        config = folder / "simulated.toml"
        servers = [f"ntp{number}.example.net" for number in range(1, 5)]
        config.write_text(f'[sources]\nservers = {servers!r}\n[influxdb]\nurl = "{url}"\n')
        runtime = _Prompt(1_795_000_000 * S, seed=3)
        runtime.changes = [
            Change(3600.0, lambda _: written.append(_written_bytes())),
            Change((1 + WRITING_H) * 3600.0, lambda _: written.append(_written_bytes())),
            Change((1 + WRITING_H) * 3600.0 + 1, lambda runtime: runtime.ends.append(signal.SIGTERM)),
        ]
        runtime.agent = Agent(read_setup(str(config), {"STATE_DIRECTORY": name}), runtime)
        runtime.agent.run()
        before, after = written
        begin = _written_bytes()
        _bare_commits(folder, RECORD_BYTES)
        bare = (_written_bytes() - begin) / BARE_COMMITS
    audits = WRITING_H * (60 + 12)
    each = (after - before) / audits
    yield f"Written to the disk (`write_bytes` of `/proc/PID/io`) in {WRITING_H} simulated hours, all delivered.\n"
    yield "| what | bytes | as a multiple |"
    yield "|---|---:|---:|"
    yield f"| one bare SQLite commit of {RECORD_BYTES} B | {bare / 1024:.1f} KiB | 1.0 |"
    yield f"| one audit with all that belongs to it | {each / 1024:.1f} KiB | {each / bare:.1f} |"
    yield f"| a day at the default intervals, goal 40 MiB | {(after - before) / 2**20 * 24 / WRITING_H:.1f} MiB | |\n"


def _written_bytes() -> int:
    """Return what this process had written to disks."""
    return int(re.findall(r"^write_bytes: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE)[0])

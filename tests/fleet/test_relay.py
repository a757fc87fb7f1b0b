"""A real vmagent as a site's relay before a real VictoriaMetrics: what it took while that was away arrives."""

import socket
import sqlite3
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import FleetPolicy
from ntpaudit.core.units import NS_PER_S
from ntpaudit.delivery import start_worker
from ntpaudit.errors import ReadError
from ntpaudit.fleet import open_reader
from ntpaudit.fleet.reader import SnapshotOptions
from ntpaudit.formats.line_protocol import render
from ntpaudit.store import outbox
from ntpaudit.store.outbox import OutboxEntry
from ntpaudit.store.state import StateStore
from tests.command import ntpaudit
from tests.records import record, servers
from tests.store.audits import in_store
from tests.waiting import until
from tests.world.packages import program
from tests.world.servers import free_port, running

WITHIN_S = 30.0
"""What takes longer than this, on any machine, does not come at all."""

HOSTS = 20


@contextmanager
def vm(name: str, folder: Path, port: int, *flags: str) -> Iterator[str]:
    """Run one of VictoriaMetrics' programs there, and yield its URL."""
    url = f"http://127.0.0.1:{port}"
    command = [str(program("victoria-metrics").with_name(name)), f"-httpListenAddr=127.0.0.1:{port}", *flags]
    with running(command, folder / f"{name}.log", lambda _: is_well(url)):
        yield url


def is_well(url: str) -> bool:
    """Whether a program says that it runs."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def entries(now_ns: int, numbers: Sequence[int]) -> Iterator[OutboxEntry]:
    """Yield a record of each host, as its agent keeps it until it is delivered."""
    for number in numbers:
        host_ns = now_ns - (30 + number) * NS_PER_S
        lines = render(record(*servers(0.0019 * number, host_ns=host_ns), name=f"web{number}", host_ns=host_ns))
        yield OutboxEntry(0, lines, host_ns, "boot", number, host_ns)


def deliver(store: StateStore, url: str, sent: Sequence[OutboxEntry]) -> None:
    """Let the agent's delivery worker deliver until every entry is acknowledged."""

    def post(connection: sqlite3.Connection) -> None:
        for entry in sent:
            outbox.enqueue(connection, entry, None)

    in_store(store, post)
    worker = start_worker(store, InfluxConfig(url), None)
    worker.start()
    until(lambda: worker.delivered == len(sent))
    worker.stop(5.0)
    assert store.read(outbox.backlog) == (0, None, 0)


def test_records_that_a_relay_took_while_the_database_was_away_arrive(tmp_path: Path) -> None:
    """Agents deliver to vmagent without a database; once there is one, each host is there as its agent reported it."""
    now_ns = time.time_ns() // NS_PER_S * NS_PER_S
    relay_port, port = (free_port("127.0.0.1", socket.SOCK_STREAM) for _ in range(2))
    to = f"-remoteWrite.url=http://127.0.0.1:{port}/api/v1/write"
    store = StateStore(str(tmp_path / "history.sqlite3"))
    with closing(store), vm("vmagent", tmp_path, relay_port, to, f"-remoteWrite.tmpDataPath={tmp_path}/kept") as relay:
        deliver(store, relay, list(entries(now_ns, range(HOSTS))))
        kept = (f"-storageDataPath={tmp_path}/data", "-retentionPeriod=100y", "-search.latencyOffset=0s")
        with (
            vm("victoria-metrics", tmp_path, port, *kept) as database,
            closing(open_reader(url=database, language="promql")) as reader,
        ):

            def arrived() -> bool:
                urllib.request.urlopen(f"{database}/internal/force_flush", timeout=30).close()
                with suppress(ReadError):  # nothing is there yet
                    return len(reader.snapshot(now_ns, SnapshotOptions()).hosts) == HOSTS
                return False

            until(arrived)
            fleet = judge_fleet(reader.snapshot(now_ns, SnapshotOptions()), FleetPolicy())
    for member in fleet.members:
        assert member.host is not None
        assert member.host.offset is not None
        assert abs(member.host.offset.estimate_s - 0.0019 * int(member.name.removeprefix("web"))) < 1e-3


def test_a_demonstration_is_read_elsewhere_than_it_is_written(tmp_path: Path) -> None:
    """A relay, as a cluster's vminsert, takes points and shows none: without the URL to read it at, that is said."""
    relay_port, port = (free_port("127.0.0.1", socket.SOCK_STREAM) for _ in range(2))
    to = f"-remoteWrite.url=http://127.0.0.1:{port}/api/v1/write"
    kept = (f"-storageDataPath={tmp_path}/data", "-retentionPeriod=100y", "-search.latencyOffset=0s")
    fill = ("demo", "--hosts", "3", "--hours", "6", "--no-udp", "--influx-url")
    with (
        vm("victoria-metrics", tmp_path, port, *kept) as database,
        vm("vmagent", tmp_path, relay_port, to, f"-remoteWrite.tmpDataPath={tmp_path}/kept") as relay,
    ):
        seen = ntpaudit(*fill, relay, "--read-url", database, state=tmp_path)
        assert seen.status == 0
        assert "cannot be read yet" not in seen.err
        assert "of 3 clocks" in seen.out
        assert f"ntpaudit fleet --url {database} --language promql --flagged" in seen.out
        blind = ntpaudit(*fill, relay, state=tmp_path)
        assert blind.status == 0
        assert "name it with --read-url" in blind.err
    assert ntpaudit("demo", "--read-url", database, state=tmp_path).status == 64

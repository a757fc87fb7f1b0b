"""How fast a backlog is delivered, beside a bare HTTP POST of the same lines to the same database."""

import http.client
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.delivery import MAX_ENTRIES
from ntpaudit.core.units import NS_PER_S
from ntpaudit.delivery import start_worker
from ntpaudit.formats.line_protocol import render
from ntpaudit.store import outbox
from ntpaudit.store.outbox import OutboxEntry
from ntpaudit.store.state import StateStore
from tests.records import NOW_NS, record, servers
from tests.store.audits import in_store
from tests.world.packages import program
from tests.world.servers import free_port, influxd, running

ENTRIES = 1_000_000
LOCAL_PER_NETWORK = 4


def run() -> Iterator[str]:
    """(f) Delivery of a backlog into InfluxDB."""
    yield "## Delivery of a backlog\n"
    with TemporaryDirectory(prefix="bench-") as name:
        lines, bare_s = _bare()
        file = Path(name) / "history.sqlite3"
        fill_s = _fill(file)
        size = file.stat().st_size
        worker_s = _worker(file)
    yield (
        f"{ENTRIES:,} records in the outbox ({lines:,} lines, one network audit of 4 servers to "
        f"{LOCAL_PER_NETWORK} local ones), {MAX_ENTRIES} in a request, into InfluxDB 1.6.7 through the same nginx, "
        "on loopback.\n"
    )
    yield "| who | records a second | lines a second | as a share |"
    yield "|---|---:|---:|---:|"
    for who, took_s in (
        ("bare `http.client` POST, lines ready in memory", bare_s),
        ("the agent's delivery worker: read from SQLite, gzip, send, confirm", worker_s),
    ):
        yield f"| {who} | {ENTRIES / took_s:,.0f} | {lines / took_s:,.0f} | {bare_s / took_s:.2f} |"
    yield f"\nThe outbox took {size / ENTRIES:.0f} octets a record on disk, and {fill_s:.0f} s to fill. Goal: 0.5.\n"


def _entries() -> Iterator[OutboxEntry]:
    """Yield entries as an agent writes them, each with its own time."""
    whole = render(record(*servers(0.0019)))
    local = whole[: whole.index("\n") + 1]
    (old,) = {line.rsplit(" ", 1)[1] for line in whole.splitlines()}
    for number in range(ENTRIES):
        stamp_ns = NOW_NS - (ENTRIES - number) * NS_PER_S
        text = whole if number % (LOCAL_PER_NETWORK + 1) == 0 else local
        yield OutboxEntry(0, text.replace(old, str(stamp_ns)), stamp_ns, "boot", number, stamp_ns)


def _batches(size: int) -> Iterator[Sequence[OutboxEntry]]:
    """Yield entries in batches."""
    batch = []
    for entry in _entries():
        batch.append(entry)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _bare() -> tuple[int, float]:
    """Post all lines, and return how many they were and how long the posting took: only that."""
    took_s, lines = 0.0, 0
    with influxd() as url, _shim(url) as address:
        connection = http.client.HTTPConnection(address)
        for batch in _batches(MAX_ENTRIES):
            body = "".join(entry.lines for entry in batch).encode()
            lines += body.count(b"\n")
            began = time.perf_counter()
            connection.request("POST", "/api/v2/write?bucket=ntpaudit&precision=ns", body)
            answer = connection.getresponse()
            answer.read()
            took_s += time.perf_counter() - began
            assert answer.status == http.HTTPStatus.NO_CONTENT
        connection.close()
    return lines, took_s


def _fill(file: Path) -> float:
    """Put all entries into an outbox, and return the duration."""
    began = time.perf_counter()
    store = StateStore(str(file))
    for batch in _batches(20_000):
        _post(store, batch)
    store.close()
    return time.perf_counter() - began


def _post(store: StateStore, batch: Sequence[OutboxEntry]) -> None:
    """Put entries into the outbox, in one transaction."""

    def work(connection: sqlite3.Connection) -> None:
        for entry in batch:
            outbox.enqueue(connection, entry, None)

    in_store(store, work)


def _worker(file: Path) -> float:
    """Deliver all entries as the agent does, and return the duration."""
    store = StateStore(str(file))
    with influxd() as url, _shim(url) as address:
        worker = start_worker(store, InfluxConfig(f"http://{address}"), None)
        began = time.perf_counter()
        worker.start()
        while worker.delivered < ENTRIES:
            assert worker.crash is None
            time.sleep(0.05)
        took_s = time.perf_counter() - began
        worker.stop(5.0)
    assert store.read(outbox.backlog) == (0, None, 0)
    store.close()
    return took_s


@contextmanager
def _shim(url: str) -> Iterator[str]:
    """Run nginx as a way to InfluxDB 1.x that also takes the write API of 2.x, and yield its address."""
    upstream, port = urlsplit(url).netloc, free_port("127.0.0.1", socket.SOCK_STREAM)
    with TemporaryDirectory(prefix="nginx-") as name:
        folders = "".join(
            f"{kind}_temp_path {name}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        configuration = Path(name) / "nginx.conf"
        configuration.write_text(
            f"""
daemon off; pid {name}/pid; error_log {name}/errors; events {{ }}
http {{
    access_log off; {folders}
    client_max_body_size 32m; client_body_buffer_size 4m;
    upstream influxdb {{ server {upstream}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location = /api/v2/write {{
            set $args "db=ntpaudit&precision=n"; rewrite ^ /write break;
            proxy_pass http://influxdb; proxy_http_version 1.1; proxy_set_header Connection "";
        }}
        location = /query {{ proxy_pass http://influxdb; }}
    }}
}}
"""
        )
        command = [str(program("nginx")), "-p", name, "-c", str(configuration)]
        with running(command, Path(name) / "log", lambda _: _answers(port)):
            yield f"127.0.0.1:{port}"


def _answers(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    print("\n".join(run()))

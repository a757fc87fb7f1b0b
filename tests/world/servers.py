"""Real servers on loopback: context managers that run one until the block ends, and begin it once it answers."""

import http.client
import itertools
import json
import os
import pwd
import random
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.world.namespaces import entered, unshared
from tests.world.packages import REPOSITORY, environment, program

READY_WITHIN_S = 180.0
"""A server that has not answered by then is given up."""

_PAUSE_S = 0.02  # between two looks at a server that is starting


class ServerFailedError(Exception):
    """A server ended, or did not answer in time; the message holds its log."""


@dataclass(frozen=True, slots=True)
class Chronyd:
    """A running chronyd that serves the host's own clock: its true offset is 0."""

    address: str
    port: int
    pid: int
    command_socket: Path
    """Where chronyc finds it: `chronyc -h COMMAND_SOCKET`."""


@dataclass(frozen=True, slots=True)
class Ntpd:
    """A running ntpd that serves the host's own clock inside a network namespace: its true offset is 0."""

    address: str
    port: int
    pid: int

    def command(self, words: Sequence[str]) -> list[str]:
        """The same command, run in the network namespace of this server."""
        return [*entered(self.pid, "net"), *words]


@contextmanager
def chronyd(
    *,
    address: str = "127.0.0.1",
    port: int | None = None,
    stratum: int = 1,
    synchronised: bool = True,
    extra: str = "",
) -> Iterator[Chronyd]:
    """Run chronyd without control of the clock; `extra` is appended to its configuration.

    It serves the host's clock as its own reference, or, if not `synchronised`, replies that it has none.
    """
    port = port or free_port(address, socket.SOCK_DGRAM)
    with TemporaryDirectory(prefix="chronyd-") as name:
        folder = Path(name)
        command_socket = folder / "chronyd.sock"
        configuration = folder / "chrony.conf"
        configuration.write_text(
            f"port {port}\nbindaddress {address}\nallow\n{f'local stratum {stratum}' if synchronised else ''}\n"
            f"cmdport 0\nbindcmdaddress {command_socket}\npidfile {folder}/pid\n{extra}\n"
        )
        user = pwd.getpwuid(os.geteuid()).pw_name  # its own user exists only where the package is installed
        command = [str(program("chronyd")), "-x", "-d", "-U", "-u", user, "-f", str(configuration)]
        is_ready = is_serving if synchronised else is_answering
        with running(command, folder / "log", lambda _: is_ready(address, port)) as pid:
            yield Chronyd(address, port, pid, command_socket)


@contextmanager
def ntpd(*, extra: str = "") -> Iterator[Ntpd]:
    """Run ntpd (NTPsec) in a network namespace of its own, because it knows no port but 123; ready in about 1 s.

    It is started without the capability to set the clock, and set not to try. Orphan mode makes it trust the host's
    clock at once; so its reference id is 127.0.0.1. Its default rate limit is lifted.
    """
    address, port = "127.0.0.1", 123
    with TemporaryDirectory(prefix="ntpd-") as name:
        configuration = Path(name) / "ntp.conf"
        configuration.write_text(f"disable ntp\ntos orphan 5 orphanwait 0\nunrestrict default limited\n{extra}\n")
        powerless = ["setpriv", "--bounding-set=-sys_time", "--inh-caps=-sys_time"]
        server = [str(program("ntpd")), "-n", "-c", str(configuration)]
        command = [
            *unshared("net"),
            "sh",
            "-c",
            '"$0" link set lo up && exec "$@"',
            str(program("ip")),
            *powerless,
            *server,
        ]
        question = [sys.executable, "-m", "tests.world.servers", address, str(port)]

        def is_ready(pid: int) -> bool:
            if Path(f"/proc/{pid}/comm").read_text() != "ntpd\n":
                return False  # not yet in its namespace: we would be asking a server of this machine
            inside = Ntpd(address, port, pid).command(question)
            return subprocess.run(inside, cwd=REPOSITORY, check=False).returncode == 0

        with running(command, Path(name) / "log", is_ready) as pid:
            yield Ntpd(address, port, pid)


@contextmanager
def influxd(*, database: str = "ntpaudit") -> Iterator[str]:
    """Run InfluxDB 1.x with an empty database of that name, and yield its base URL."""
    address = "127.0.0.1"
    port, rpc_port = (free_port(address, socket.SOCK_STREAM) for _ in range(2))
    url = f"http://{address}:{port}"

    def is_ready(_: int) -> bool:
        connection = http.client.HTTPConnection(address, port, timeout=READY_WITHIN_S)  # never through a proxy
        try:
            connection.request("POST", "/query?" + urllib.parse.urlencode({"q": f'CREATE DATABASE "{database}"'}))
            answer = connection.getresponse()
            # the status comes before the work, and closing the connection aborts it: only the end proves it done
            return answer.status == http.HTTPStatus.OK and json.load(answer) == {"results": [{"statement_id": 0}]}
        except (ConnectionError, http.client.HTTPException, TimeoutError):
            return False
        finally:
            connection.close()

    with TemporaryDirectory(prefix="influxd-") as name:
        folder = Path(name)
        configuration = folder / "influxdb.conf"
        configuration.write_text(
            f"""
reporting-disabled = true
bind-address = "{address}:{rpc_port}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  index-version = "tsi1"
  max-series-per-database = 0
  max-values-per-tag = 0
[monitor]
  store-enabled = false
[http]
  bind-address = "{address}:{port}"
"""
        )
        with running([str(program("influxd")), "run", "-config", str(configuration)], folder / "log", is_ready):
            yield url


@contextmanager
def victoria_metrics(*flags: str) -> Iterator[str]:
    """Run an empty VictoriaMetrics whose samples can be read back at once, and yield its base URL."""
    port = free_port("127.0.0.1", socket.SOCK_STREAM)
    with TemporaryDirectory(prefix="victoria-metrics-") as name:
        command = [
            str(program("victoria-metrics")),
            f"-httpListenAddr=127.0.0.1:{port}",
            f"-storageDataPath={name}/data",
            "-retentionPeriod=100y",
            "-influxMeasurementFieldSeparator=_",
            "-search.latencyOffset=0s",
            *flags,
        ]
        with running(command, Path(name) / "log", lambda _: _is_well(port, "/health")):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def prometheus() -> Iterator[str]:
    """Run an empty Prometheus, which watches nothing, and yield its base URL."""
    port = free_port("127.0.0.1", socket.SOCK_STREAM)
    with TemporaryDirectory(prefix="prometheus-") as name:
        configuration = Path(name) / "prometheus.yml"
        configuration.write_text("global: {}\n")
        command = [
            str(program("prometheus")),
            f"--web.listen-address=127.0.0.1:{port}",
            f"--config.file={configuration}",
            f"--storage.tsdb.path={name}/data",
        ]
        with running(command, Path(name) / "log", lambda _: _is_well(port, "/-/ready")):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def saturated_cores(processes_per_core: int = 2) -> Iterator[None]:
    """Keep every core busy with more than one process, as on a host that is short of CPU."""
    # A process that outlives a killed test run would burn a core for ever, so each watches its parent.
    busy = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))"
    with ExitStack() as running:
        for _ in range(processes_per_core * len(os.sched_getaffinity(0))):
            process = running.enter_context(subprocess.Popen([sys.executable, "-c", busy]))
            running.callback(process.kill)  # runs before the process's own exit, which waits for its end
        yield


def _is_well(port: int, path: str) -> bool:
    """Whether an HTTP server on this machine says there that it is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_WITHIN_S)  # never through a proxy
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except ConnectionError:
        return False
    finally:
        connection.close()


def is_serving(address: str, port: int) -> bool:
    """Whether an NTP server answers there, at once, that it is synchronised."""
    reply = _reply(address, port)
    return reply is not None and reply[0] >> 6 != 3 and 1 <= reply[1] <= 15


def is_answering(address: str, port: int) -> bool:
    """Whether an NTP server answers there, at once, whatever it says."""
    return _reply(address, port) is not None


def _reply(address: str, port: int) -> bytes | None:
    with socket.socket(_family(address), socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        try:
            asking.connect((address, port))
            asking.send(b"\x23" + bytes(47))
            return asking.recv(2048)
        except OSError:
            return None


def free_port(address: str, kind: socket.SocketKind) -> int:
    """A port of that address that no process uses, and that no other takes before it is used.

    It is none of those that the kernel gives to who names none, and each worker of pytest-xdist has ports of its own.
    """
    for port in _PORTS:
        with socket.socket(_family(address), kind) as tried, suppress(OSError):
            tried.bind((address, port))
            return port
    raise ServerFailedError("no port is free")


def _ports() -> Iterator[int]:
    """Ports again and again, from a random one on: other runs of the tests may be at work on this machine."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 10_000 + worker % _SHARES * (_KERNEL_PORTS - 10_000) // _SHARES
    ports = range(first, first + (_KERNEL_PORTS - 10_000) // _SHARES)
    begin = random.randrange(len(ports))
    return itertools.cycle([*ports[begin:], *ports[:begin]])


_KERNEL_PORTS = 32_768
"""From here on the kernel gives ports by default (net.ipv4.ip_local_port_range)."""

_SHARES = 16
_PORTS = _ports()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextmanager
def running(command: Sequence[str], log: Path, is_ready: Callable[[int], bool]) -> Iterator[int]:
    """Run a command, write its output to `log`, and yield its process id once it is ready."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment())
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while not is_ready(process.pid):
            if process.poll() is not None:
                raise ServerFailedError(f"{command[0]} ended with status {process.returncode}:\n{log.read_text()}")
            if time.monotonic() > deadline:
                raise ServerFailedError(f"{command[0]} did not answer in {READY_WITHIN_S} s:\n{log.read_text()}")
            time.sleep(_PAUSE_S)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(not is_serving(sys.argv[1], int(sys.argv[2])))

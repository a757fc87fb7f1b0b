"""Real time daemons that follow servers of ours, in namespaces of their own. They cannot set the clock.

`python -m tests.world.followers ADDRESS=SECONDS...` serves the host's clock, that far ahead, on port 123 of addresses.
"""

import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from ntpaudit.core.ntp.packet import MODE_CLIENT, MODE_SERVER
from ntpaudit.core.ntp.time import encode
from ntpaudit.demo.server import Header
from tests.abilities import need
from tests.world.flaky import certificate
from tests.world.machine import archives, prepare
from tests.world.namespaces import entered, unshared
from tests.world.packages import REPOSITORY, environment, program
from tests.world.servers import running

POWERLESS = ("setpriv", "--bounding-set=-sys_time", "--inh-caps=-sys_time")
PRETENDING = (sys.executable, "-m", "tests.world.sandbox", "--pretend")
"""Words before a command for which setting the clock succeeds and does nothing."""

_CLAIM = """
import json, sys
from ntpaudit.probes.daemons import running_daemons, with_claims
found = running_daemons()
(daemon,) = [one for one in getattr(found, "seen", found) if one.pid == int(sys.argv[1])]
(daemon,) = with_claims((daemon,), with_sources=True)
print(json.dumps(daemon.summary()["claim"]))
"""
_NTPQ = """
import ctypes.util, runpy, sys
_, library, folder, path, *words = sys.argv
ctypes.util.find_library = lambda _: library
sys.path.insert(0, folder)
sys.argv = [path, *words]
runpy.run_path(path, run_name="__main__")
"""


class Follower(NamedTuple):
    """A running daemon, and how to run a command on its network."""

    pid: int

    def run(self, *words: str) -> str:
        """Run a command on the daemon's network, and return its output."""
        command = [*entered(self.pid, "net"), *words]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def claim(self) -> dict[str, Any]:
        """What the daemon claims, as it is in a record."""
        claim: dict[str, Any] = json.loads(self.run(sys.executable, "-c", _CLAIM, str(self.pid)))
        return claim

    def ntpq(self, *words: str) -> str:
        """What ntpq prints, which is NTPsec's."""
        root = program("ntpd").parents[2]
        (library,) = root.glob("usr/lib/*/ntp/libntpc.so")
        return self.run(
            sys.executable,
            "-c",
            _NTPQ,
            str(library),
            str(root / "usr/lib/python3/dist-packages"),
            str(root / "usr/bin/ntpq"),
            *words,
        )

    def ntp_ctl(self) -> str:
        """What ntp-ctl prints of the daemon's state."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--root", "--wd=/"]
        return self.run(*inside, "/srv/usr/bin/ntp-ctl", "--config", "/mnt/ntp.toml", "status")


@contextmanager
def ntpsec(
    offsets: Mapping[str, float], *, extra: str = "", restrict: str = "restrict 127.0.0.1"
) -> Iterator[Follower]:
    """Run NTPsec on a network of its own, with a server for each address of 10.9.1.0/24 that is ahead by its offset.

    It never steps the clock. Its configuration is Debian's as to who may query it.
    """
    serving = [sys.executable, "-m", "tests.world.followers", *(f"{one}={s}" for one, s in offsets.items())]
    servers = "".join(f"server {address} iburst minpoll 5 maxpoll 5\n" for address in offsets)
    with (
        TemporaryDirectory(prefix="ntpsec-") as name,
        _two_networks(Path(name), offsets, serving) as holder,
        _ntpsec(Path(name), holder, f"{servers}{restrict}\n{extra}") as follower,
    ):
        yield follower


@contextmanager
def authenticated_ntpsec() -> Iterator[Follower]:
    """Run NTPsec with three servers: 10.9.1.1 by NTS, 10.9.1.2 with a symmetric key, 10.9.1.3 without either."""
    key, addresses = "0f1e2d3c4b5a69788796a5b4c3d2e1f001234567", ("10.9.1.1", "10.9.1.2", "10.9.1.3")
    with TemporaryDirectory(prefix="ntpsec-") as name, certificate(f"IP:{addresses[0]}") as (_, trusted):
        folder = Path(name)
        (folder / "chrony.keys").write_text(f"1 SHA1 HEX:{key}\n")
        (folder / "ntp.keys").write_text(f"1 SHA1 {key}\n")
        (folder / "chrony.conf").write_text(
            f"port 123\nlocal stratum 1\nallow\ncmdport 0\nbindcmdaddress /\npidfile {name}/pid\nntsdumpdir {name}\n"
            f"keyfile {name}/chrony.keys\nntsservercert {trusted}\nntsserverkey {trusted.parent}/key.pem\n"
        )
        serving = [str(program("chronyd")), "-x", "-d", "-U", "-u", "root", "-f", f"{name}/chrony.conf"]
        settings = zip(addresses, (f"nts ca {trusted} noval", "key 1", ""), strict=True)
        servers = "".join(f"server {one} iburst minpoll 3 maxpoll 3 {setting}\n" for one, setting in settings)
        keys = f"keys {name}/ntp.keys\ntrustedkey 1\nrestrict 127.0.0.1\n"
        with _two_networks(folder, addresses, serving) as holder, _ntpsec(folder, holder, servers + keys) as follower:
            yield follower


@contextmanager
def _ntpsec(folder: Path, holder: int, settings: str) -> Iterator[Follower]:
    need("ntpd", "seccomp")
    common = "tinker step 0\ntos minsane 1 minclock 1\nrestrict default kod nomodify noquery limited\n"
    (folder / "ntp.conf").write_text(f"{common}{settings}\n")
    daemon = [str(program("ntpd")), "-n", "-g", "-c", str(folder / "ntp.conf")]
    command = [*entered(holder, "net"), *POWERLESS, *PRETENDING, *daemon]
    with running(command, folder / "log", lambda pid: _is_open(pid, 123)) as pid:
        yield Follower(pid)


@contextmanager
def ntpd_rs(
    sources: Sequence[str], *, observability: str = 'observation-path = "/mnt/observe"', agreeing: int = 1
) -> Iterator[Follower]:
    """Run ntpd-rs of Debian 13 with these servers, `ADDRESS:PORT`; `agreeing` of them must agree."""
    need("root", "mount", "seccomp", "ntpd-rs")
    with TemporaryDirectory(prefix="ntpd-rs-") as name:
        servers = "".join(f'[[source]]\nmode = "server"\naddress = "{source}"\n' for source in sources)
        (Path(name) / "ntp.toml").write_text(
            f"[observability]\n{observability}\n{servers}[synchronization]\nminimum-agreeing-sources = {agreeing}\n"
        )
        command = in_debian_13(Path(name), [*POWERLESS, *PRETENDING], ["ntp-daemon", "--config", "/mnt/ntp.toml"])
        with running(command, Path(name) / "log", lambda pid: _is_named(pid, "ntp-daemon")) as pid:
            yield Follower(pid)


def in_debian_13(folder: Path, before: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return words that run a program of ntpd-rs with the files of Debian 13, to which `folder` is added as /mnt."""
    root, unpacked = prepare("trixie"), folder / "unpacked"
    (archive,) = archives("trixie", "ntpd-rs")
    subprocess.run(["dpkg", "-x", archive, unpacked], check=True)
    mounts = 'mount --bind "$1" "$3/mnt"; mount --bind "$2" "$3/srv"; shift 3; exec "$@"'
    places = [str(folder), str(unpacked), str(root)]
    program = ["chroot", str(root), f"/srv/usr/bin/{words[0]}", *words[1:]]
    return [*unshared("mount"), "sh", "-ec", mounts, "sh", *places, *before, *program]


def _is_named(pid: int, name: str) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == f"{name}\n"


def _is_open(pid: int, port: int) -> bool:
    return _is_named(pid, "ntpd") and f" 0100007F:{port:04X} " in Path(f"/proc/{pid}/net/udp").read_text()


@contextmanager
def _two_networks(folder: Path, served: Collection[str], serving: Sequence[str]) -> Iterator[int]:
    """Join two networks: one of servers, with these addresses, which a command serves, and 10.9.1.99.

    Yield the process that holds the latter.
    """
    need("root", "netns")
    ip = str(program("ip"))
    with running(
        [*unshared("net"), "sleep", "inf"], folder / "client.log", lambda pid: _is_named(pid, "sleep")
    ) as holder:
        addresses = "".join(f"{ip} address add {address}/24 dev up0; " for address in served)
        link = f"{ip} link set lo up; {ip} link add up0 type veth peer name up1 netns {holder}; {ip} link set up0 up; "
        log = folder / "servers.log"
        with running(
            [*unshared("net"), "sh", "-ec", f'{link}{addresses}exec "$@"', "sh", *serving],
            log,
            lambda _: bool(log.read_text()),
        ):
            client = f"{ip} link set lo up; {ip} link set up1 up; {ip} address add 10.9.1.99/24 dev up1"
            Follower(holder).run("sh", "-ec", client)
            yield holder


def _serve(offsets: Sequence[str]) -> None:
    with selectors.DefaultSelector() as waiting:
        for address, _, ahead_s in (one.partition("=") for one in offsets):
            serving = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            serving.bind((address, 123))
            waiting.register(serving, selectors.EVENT_READ, round(float(ahead_s) * 1e9))
        print("serving", flush=True)
        while True:
            for key, _ in waiting.select():
                request, client = key.fileobj.recvfrom(512)  # type: ignore[union-attr]
                received = time.time_ns() + key.data
                if len(request) >= 48 and request[0] & 7 == MODE_CLIENT:
                    asked = Header.decode(request)
                    times = (encode(received - 10**9), asked.transmit, encode(received))
                    reply = Header(0, asked.version, MODE_SERVER, 1, asked.poll, -20, 0, 0, b"GPS\0", *times, 0)
                    sent = reply._replace(transmit=encode(time.time_ns() + key.data)).encode()
                    key.fileobj.sendto(sent, client)  # type: ignore[union-attr]


if __name__ == "__main__":
    _serve(sys.argv[1:])

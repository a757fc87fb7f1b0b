"""A real Roughtime server: roughenough, built from its crate into the project's cache.

`python -m tests.world.roughenough` builds ahead of time what `roughenough` otherwise builds on demand (two minutes).
"""

import fcntl
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

from tests.abilities import REQUIRED, LackingError, need
from tests.world.packages import PackageUnavailableError, cache_folder
from tests.world.servers import READY_WITHIN_S, ServerFailedError, free_port

VERSION = "2.2.0"
_KEY = re.compile(r"Long term public key: PUBK\(([0-9a-f]{64})\)")


class Roughenough(NamedTuple):
    """A running server: its port on 127.0.0.1, and its long-term public key."""

    port: int
    key: bytes


@contextmanager
def roughenough(ahead_s: int = 0) -> Iterator[Roughenough]:
    """Run a server with a new long-term key, whose clock is wrong by whole seconds."""
    need("roughenough")
    port = free_port("127.0.0.1", socket.SOCK_DGRAM)
    with NamedTemporaryFile("w", prefix="seed-") as seed:
        seed.write(secrets.token_hex(32))
        seed.flush()
        command = [str(binary()), "--seed-file", seed.name, "-i", "127.0.0.1", "-p", str(port), "-j", "1", "-v"]
        command += ["--fixed-offset", str(ahead_s)] if ahead_s else []
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
            try:
                yield Roughenough(port, _wait(server))
            finally:
                server.terminate()


def binary() -> Path:
    """The server's program, built first if it is not there yet."""
    root = cache_folder() / f"roughenough-{VERSION}"
    root.mkdir(parents=True, exist_ok=True)
    found = root / "bin" / "roughenough_server"
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            _build(root)
    return found


def _build(root: Path) -> None:
    cargo = shutil.which("cargo") or shutil.which("cargo", path=Path.home() / ".cargo" / "bin")  # as rustup installs it
    if cargo is None:
        raise PackageUnavailableError("cargo not found: roughenough is built with Rust's cargo")
    # --debug: it is built in less time, and answers a few requests only
    command = [cargo, "install", "roughenough-server", "--version", VERSION, "--locked", "--debug", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PackageUnavailableError(f"cargo failed, is there a network? {' '.join(done.stderr.split())[-300:]}")


def _wait(server: "subprocess.Popen[str]") -> bytes:
    """Read the server's log until its worker listens, and return its key."""
    assert server.stdout is not None
    key, log, until = None, [], time.monotonic() + READY_WITHIN_S
    for line in server.stdout:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
        log.append(plain)
        key = key or _KEY.search(plain)
        if key and "online key" in plain:
            return bytes.fromhex(key[1])
        if time.monotonic() > until:
            break
    raise ServerFailedError("".join(log))


if __name__ == "__main__":
    try:
        need("roughenough")
    except LackingError as error:
        print(error, file=sys.stderr)
        sys.exit(REQUIRED in os.environ)  # tests that need it are skipped

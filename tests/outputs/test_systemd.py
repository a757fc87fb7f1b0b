"""The service manager gets notifications that it understands; without a manager nothing happens."""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ntpaudit.formats.log_entries import status_line
from ntpaudit.outputs.systemd import Notifier
from tests.outputs.agent import SAME
from tests.records import CASES


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Listen at a path, as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def received(manager: socket.socket) -> list[str]:
    """Return all that the manager received."""
    found = []
    while True:
        try:
            found.append(manager.recv(4096).decode())
        except BlockingIOError:
            return found


def test_states(manager: socket.socket) -> None:
    """Each state is one datagram in systemd's words; a status is one line, whatever it holds."""
    notifier = Notifier(manager.getsockname())
    notifier.ready()
    notifier.watchdog()
    notifier.status("one\nREADY=1")
    notifier.stopping()
    notifier.close()
    assert received(manager) == ["READY=1", "WATCHDOG=1", "STATUS=one READY=1", "STOPPING=1"]


def test_reloading_says_when(manager: socket.socket) -> None:
    """A reload carries the monotonic time in microseconds, without which systemd does not believe it."""
    before_us = time.monotonic_ns() // 1000
    notifier = Notifier(manager.getsockname())
    notifier.reloading()
    notifier.close()
    (state,) = received(manager)
    found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", state)
    assert found
    assert before_us <= int(found[1]) <= time.monotonic_ns() // 1000


def test_a_refused_reload_stays_in_the_status(manager: socket.socket) -> None:
    """Each status says that a reload was refused, and why, until one succeeds."""
    notifier = Notifier(manager.getsockname())
    notifier.status("one")
    notifier.refused("x.toml:2: sources.server: unknown")
    notifier.status("two")
    notifier.refused(None)
    notifier.close()
    note = "; reload refused, the earlier configuration stays in force: x.toml:2: sources.server: unknown"
    assert received(manager) == ["STATUS=one", f"STATUS=one{note}", f"STATUS=two{note}", "STATUS=two"]


def test_the_status_is_the_verdict(manager: socket.socket) -> None:
    """What `systemctl status` shows is the severity and the summary, cut if it is endless."""
    notifier = Notifier(manager.getsockname())
    notifier.status(status_line(SAME))
    notifier.status(status_line(CASES["unmeasured, no reply"]))
    notifier.status("x" * 5000)
    notifier.close()
    fine, unmeasured, long = received(manager)
    assert fine == (
        "STATUS=OK: clock is 1.92 ms behind, at most 5.86 ms wrong if at most 1 of 4 servers is wrong "
        "(4 of 4 servers agree)"
    )
    assert unmeasured.startswith("STATUS=UNKNOWN: clock was not measured: ")
    assert len(long) == len("STATUS=") + 1024


def test_an_abstract_socket() -> None:
    """An address that begins with @ is a name without a file, as systemd uses in containers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel chooses an abstract name
        listening.setblocking(False)
        notifier = Notifier("@" + listening.getsockname()[1:].decode())
        notifier.ready()
        notifier.close()
        assert received(listening) == ["READY=1"]


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify", "@ntpaudit-missing", "vsock:2:1234", "/" + "x" * 200])
def test_a_manager_that_is_not_there(address: str | None) -> None:
    """Without a manager, or with one that cannot be reached, nothing happens."""
    notifier = Notifier(address)
    notifier.ready()
    notifier.watchdog()
    notifier.reloading()
    notifier.stopping()
    notifier.close()


def test_a_manager_that_does_not_read_blocks_nothing(manager: socket.socket) -> None:
    """A manager that is stuck is not waited for: it will never read."""
    notifier = Notifier(manager.getsockname())
    for _ in range(2_000):
        notifier.watchdog()
    notifier.close()
    assert 0 < len(received(manager)) < 2_000

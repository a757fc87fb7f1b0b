"""The process that reports the state of adjtimex to a sandboxed agent."""

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ntpaudit.core.observation import KernelState
from ntpaudit.probes.helper import ask_helper
from ntpaudit.probes.kernel import TIMEX, decode_timex, read_kernel
from tests.world.flood import flooded
from tests.world.packages import REPOSITORY

PROGRAM = REPOSITORY / "systemd/helpers/kernel.py"
ANSWER = struct.Struct(f"ii{TIMEX.size}s")


@contextmanager
def answering(place: Path, prefix: Sequence[str] = (), program: Path = PROGRAM) -> Iterator[None]:
    """Run it, or another helper, as systemd does: with the socket that listens there as file descriptor 3."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()

        def hand_over() -> None:
            os.dup2(listening.fileno(), 3)

        command = [*prefix, sys.executable, "-IS", str(program)]
        with subprocess.Popen(command, preexec_fn=hand_over, pass_fds=[3], cwd=REPOSITORY) as process:
            try:
                yield
            finally:
                process.terminate()


def asked(place: Path) -> tuple[int, int, bytes]:
    """Return what a caller receives."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(str(place))
        state, error, timex = ANSWER.unpack(asking.recv(ANSWER.size, socket.MSG_WAITALL))
        assert asking.recv(1) == b""
    return state, error, timex


@pytest.mark.needs("adjtimex")
def test_it_says_what_the_kernel_says(tmp_path: Path) -> None:
    """Each caller receives the kernel's state as a direct call of adjtimex returns it."""
    with answering(tmp_path / "socket"):
        for _ in range(3):
            state, error, timex = asked(tmp_path / "socket")
            assert error == 0
            reported, direct = decode_timex(state, timex), read_kernel()
            assert isinstance(direct, KernelState)
            assert (reported.state, reported.status, reported.tai_s) == (direct.state, direct.status, direct.tai_s)
            assert abs(reported.maxerror_s - direct.maxerror_s) < 0.1


@pytest.mark.needs("adjtimex")
def test_it_survives_a_caller_that_leaves(tmp_path: Path) -> None:
    """A client that disconnects at once or never reads does not block the others."""
    family = socket.AF_UNIX
    with answering(tmp_path / "socket"), socket.socket(family) as hasty, socket.socket(family) as idle:
        hasty.connect(str(tmp_path / "socket"))
        hasty.close()
        idle.connect(str(tmp_path / "socket"))
        assert asked(tmp_path / "socket")[1] == 0


@pytest.mark.needs("adjtimex")
def test_clients_in_a_loop_do_not_hide_it(tmp_path: Path) -> None:
    """Another user fills its queue again and again: an agent waits for its turn."""
    place = tmp_path / "socket"
    with answering(place), flooded(place):
        for _ in range(10):
            assert len(ask_helper(str(place), 10.0, ANSWER.size)) == ANSWER.size


@pytest.mark.needs("seccomp")
def test_it_says_that_it_is_forbidden_too(tmp_path: Path) -> None:
    """Where adjtimex is forbidden to it as well, it says so with the errno."""
    with answering(tmp_path / "socket", [sys.executable, "-m", "tests.world.sandbox"]):
        state, error, _ = asked(tmp_path / "socket")
    assert (state, error) == (-1, errno.EPERM)


@pytest.mark.needs("adjtimex", "seccomp")
def test_an_agent_that_may_not_ask_the_kernel_asks_it(tmp_path: Path) -> None:
    """Where adjtimex is forbidden to the agent, what it learns from the service is what the kernel says."""
    place = str(tmp_path / "socket")
    code = f"from ntpaudit.probes.kernel import read_kernel; print(read_kernel({place!r}).status)"
    with answering(Path(place)):
        command = [sys.executable, "-m", "tests.world.sandbox", sys.executable, "-c", code]
        reported = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    direct = read_kernel()
    assert isinstance(direct, KernelState)
    assert int(reported) == direct.status

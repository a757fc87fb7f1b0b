"""A command that the fork server runs is as a new interpreter runs it: most tests of commands rely on that."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

import pytest

from ntpaudit.cli import COMMANDS
from tests.command import new_interpreter, ntpaudit
from tests.fork_server import Forked
from tests.waiting import WITHIN_S, until
from tests.world.packages import REPOSITORY

WORDS = (
    *([name, "--help"] for name in COMMANDS),
    *([name, "--nonsense"] for name in COMMANDS),
    ["check", "--timeout", "100ms", "--format", "nagios", "127.0.0.1:9"],
    ["agent", "--once", "--config", "missing"],
    ["status"],
    ["history", "--format", "csv"],
    ["fleet", "--demo"],
    ["evidence", "report", "--period", "2026Q3", "--history", "missing"],
    ["journal", "--directory", "missing"],
    ["config", "show"],
)


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_fork_ends_as_a_new_interpreter_does(words: list[str], tmp_path: Path) -> None:
    """Every command prints the same and ends with the same status."""
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "TZ": "Asia/Tokyo"}
    forked = ntpaudit(*words, state=tmp_path, environment=environment)
    assert forked == ntpaudit(*words, state=tmp_path, environment=environment, inside=new_interpreter)


def test_a_fork_inherits_only_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent has the folder, signal handlers and sockets that it has in a new interpreter, and none of the server."""
    monkeypatch.chdir(tmp_path)
    Path("ntpaudit.toml").write_text('[sources]\nservers = ["127.0.0.1:9"]\n')
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "STATE_DIRECTORY": str(tmp_path / "state")}
    words = ["agent", "--config", "ntpaudit.toml"]

    def fork(log: IO[bytes]) -> Forked:
        return Forked(words, env=environment, stdout=log, stderr=log)

    def start(log: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ntpaudit", *words]
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    found = []
    begins: tuple[Callable[[IO[bytes]], Forked | subprocess.Popen[bytes]], ...] = (fork, start)
    for begin in begins:
        with open("log", "w+b") as log:
            process = begin(log)
            try:
                until(lambda: os.path.getsize("log"), "the log of the start")
                until(lambda pid=process.pid: int(status_of(pid)["SigBlk"], 16) == 0, "signals")  # type: ignore[misc]
                status = status_of(process.pid)
                found.append([status[key] for key in ("SigIgn", "SigCgt", "Umask")])
                assert os.readlink(f"/proc/{process.pid}/cwd") == str(tmp_path)
                assert not sockets(process.pid) & sockets(int(status["PPid"]))
            finally:
                process.terminate()
                assert process.wait(WITHIN_S) == 0
    assert found[0] == found[1]


def test_a_fork_that_is_killed(tmp_path: Path) -> None:
    """Its status is that of the signal, and other forks of the same server go on."""
    (tmp_path / "ntpaudit.toml").write_text('[sources]\nservers = ["127.0.0.1:9"]\n')
    words = ["agent", "--config", str(tmp_path / "ntpaudit.toml")]
    with open(os.devnull, "w") as nowhere, ExitStack() as ends:
        agents = []
        for name in ("one", "other"):
            environment = {**os.environ, "STATE_DIRECTORY": str(tmp_path / name)}
            agents.append(Forked(words, env=environment, stdout=nowhere, stderr=nowhere))
            ends.callback(agents[-1].kill)
        agents[0].kill()
        assert agents[0].wait(WITHIN_S) == -signal.SIGKILL
        assert agents[1].poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            agents[1].wait(0.01)
        agents[1].terminate()
        assert agents[1].wait(WITHIN_S) == 0


def status_of(pid: int) -> dict[str, str]:
    """Return what the kernel reports of a process."""
    return dict(re.findall(r"(\w+):\t(.*)", Path(f"/proc/{pid}/status").read_text()))


def sockets(pid: int) -> set[str]:
    """Return the sockets that a process has open."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            found.add(os.readlink(path))
    return {name for name in found if name.startswith("socket:")}

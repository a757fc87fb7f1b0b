"""The command line as a new process, in a state folder of the test's own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fork_server import READ_AT_START, Forked
from tests.world.packages import REPOSITORY


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The record that it printed as JSON."""
        record: dict[str, Any] = json.loads(self.out)
        return record

    @property
    def sources(self) -> dict[str, tuple[str, str | None]]:
        """Status and reason of each source, by name."""
        return {source["name"]: (source["status"], source["reason"]) for source in self.record["sources"]}

    @property
    def longest_exchange_s(self) -> float:
        """The longest that a server took to answer: on a busy machine an interval is wider by as much."""
        return max(source.get("delay_s") or 0.0 for source in self.record["sources"])


def new_interpreter(words: Sequence[str]) -> list[str]:
    """Run a command in an interpreter of its own: `inside=new_interpreter`. Forks share the order of their sets."""
    return list(words)


def ntpaudit(
    *words: str,
    state: Path,
    environment: Mapping[str, str] | None = None,
    inside: Callable[[Sequence[str]], list[str]] = list,
    timeout_s: float = 300.0,
) -> Ran:
    """Run ntpaudit as a user would, with no configuration but the test's; `inside` prefixes the command.

    The interpreter is new where `inside` or `environment` changes how it starts; else it is a fork of one.
    """
    variables = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("XDG_", "NTPAUDIT_", "PYTHONUNBUFFERED", "COLUMNS"))
    }
    variables |= {"HOME": str(state), "STATE_DIRECTORY": str(state / "state"), "PYTHONPATH": str(REPOSITORY)}
    variables |= environment or {}
    if inside is list and not any(key.startswith(READ_AT_START) for key in environment or ()):
        ran = _run_forked(words, variables, timeout_s)
    else:
        command = inside([sys.executable, "-m", "ntpaudit", *words])
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout_s, check=False)
        ran = Ran(done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in ran.err, ran.err
    return ran


def _run_forked(words: Sequence[str], variables: Mapping[str, str], timeout_s: float) -> Ran:
    (out, its_out), (err, its_err) = (map(open, os.pipe(), "rw") for _ in range(2))
    with ThreadPoolExecutor(2) as readers, out, err:
        with its_out, its_err:
            process = Forked(words, env=variables, stdout=its_out, stderr=its_err)
        texts = [readers.submit(file.read) for file in (out, err)]
        try:
            process.wait(timeout_s)
        finally:
            process.kill()
        return Ran(process.wait(), *(text.result() for text in texts))

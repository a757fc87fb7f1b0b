"""What CI runs ends as a whole."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.waiting import is_running, until
from tests.world.packages import REPOSITORY

MAKE = """#!/bin/sh
case "$1" in
test-trixie) sleep 600 & echo $! >pid; wait ;;
lint) while [ ! -s pid ]; do sleep 0.01; done; exit 1 ;;
esac
"""
"""A `make` whose lint fails once the tests with the other Python are at work, in a process of their own."""


def test_nothing_is_left_behind_where_lint_fails(tmp_path: Path) -> None:
    """The tests that run beside lint and types end with it."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(REPOSITORY / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "make").write_text(MAKE)
    (tmp_path / "make").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(["bash", tmp_path / ".ci" / "run"], env=os.environ | {"PATH": path}, check=False)
    assert done.returncode != 0
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not is_running(pid), "the end of what it has started")

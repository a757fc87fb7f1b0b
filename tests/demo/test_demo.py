"""`ntpaudit demo` as a newcomer runs it."""

import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ntpaudit.core.units import NS_PER_S
from ntpaudit.fleet.demo_store import DemoStore
from tests.command import new_interpreter, ntpaudit
from tests.world.flaky import Answer, FlakyDatabase
from tests.world.packages import REPOSITORY

DEADLINE_S = 60.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hosts", "2"), "2 is not in the range"),
        (("--hours", "5"), "write 6 to 8784 hours"),
        (("--hours", "2y"), "write 6 to 8784 hours"),
        (("--hours", "long"), "'long': write a number of hours or a duration, such as 36 or 7d"),
        (("--hours", "nan"), "write a number of hours or a duration"),
        (("--until", "2999-01-01"), "--until lies ahead"),
        (("--until", "soon"), "write how long ago"),
        (("--follow",), "--follow goes with --influx-url"),
        (("--follow", "--until", "1h", "--influx-url", "http://127.0.0.1:1"), "--follow goes without --until"),
        (("--influx-url", "ftp://x"), "'--influx-url': write a URL"),
        (("--influx-url", "http://x", "--store", "y"), "--store goes without --influx-url"),
        (("--store", ""), "--store is empty"),
        (("--influx-url", ""), "'--influx-url': write a URL"),
        (("--bucket", "soc"), "--bucket and --org are about the database of --influx-url"),
        (("--org", "us", "--store", "y"), "--bucket and --org are about"),
        (("--format", "json"), "--format goes with --once"),
        (
            ("--once", "--hosts", "7", "--no-udp"),
            "--hosts, --udp cannot be used with --once, which takes only --format",
        ),
        (("--once", "--store", "y", "--format", "json"), "--store cannot be used with --once"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """It says what to write instead, and makes nothing."""
    ran = ntpaudit("demo", *words, state=tmp_path)
    assert ran.status == 64
    assert said in ran.err
    assert not (tmp_path / "state").exists()


def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """A database that does not run, or a file in no folder: the status is unknown, and the reason said in a line."""
    ran = ntpaudit("demo", "--hosts", "3", "--hours", "6h", "--influx-url", "http://127.0.0.1:9", state=tmp_path)
    assert (ran.status, ran.out) == (3, "")
    assert "cannot write to http://127.0.0.1:9: no connection" in ran.err
    ran = ntpaudit("demo", "--hosts", "3", "--store", "/dev/null/demo", state=tmp_path)
    assert (ran.status, ran.out) == (3, "")
    assert "cannot write /dev/null/demo: Not a directory; name a file in a folder" in ran.err
    ran = ntpaudit("demo", "--hosts", "3", "--store", str(tmp_path / "no" / "demo"), state=tmp_path)
    assert (ran.status, ran.out) == (3, "")
    assert f"cannot write {tmp_path}/no/demo: No such file or directory; create its folder" in ran.err
    assert not (tmp_path / "no").exists()
    (tmp_path / "mine").write_text("mine")
    ran = ntpaudit("demo", "--hosts", "3", "--store", str(tmp_path / "mine"), state=tmp_path)
    assert (ran.status, ran.out) == (3, "")
    assert f"{tmp_path}/mine is not a demo database, and stays; remove it, or name another file with --store" in ran.err
    assert (tmp_path / "mine").read_text() == "mine"
    ran = ntpaudit("demo", "--hosts", "3", state=tmp_path, environment={"STATE_DIRECTORY": "/proc/state"})
    assert (ran.status, ran.out) == (3, "")
    assert "cannot write /proc/state/demo.sqlite3: No such file or directory; create its folder" in ran.err


@pytest.mark.untraced
def test_the_same_seed_and_end_make_the_same_file(tmp_path: Path) -> None:
    """Without UDP it holds the same points, to the last bit; a file elsewhere is not what the fleet's command reads."""
    words = ("demo", "--hosts", "4", "--hours", "6", "--no-udp", "--until", "2026-11-18T11:00", "--store")
    outs = [
        ntpaudit(*words, str(tmp_path / name), state=tmp_path, inside=new_interpreter).out for name in ("one", "other")
    ]
    assert outs[0].replace("/one", "/other") == outs[1]
    one, other = (_rows(tmp_path / name) for name in ("one", "other"))
    assert len(one) > 4 * 6 * 60
    assert one == other
    assert "6 h until 2026-11-18T11:00:00Z" in outs[0]
    assert f"ntpaudit fleet --store {tmp_path}/one --flagged" in outs[0]
    assert not (tmp_path / "state").exists()


def _rows(path: Path) -> list[str]:
    """Return every row of a demonstration, in an order of their own."""
    with closing(sqlite3.connect(path)) as connection:
        return sorted(
            str((table, *row))
            for table in ("clock", "source", "event")
            for row in connection.execute(f"SELECT * FROM {table}").fetchall()
        )


@contextmanager
def _running(folder: Path, *words: str, terminal: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start a demonstration as from a shell, and let none outlive the block."""
    environment = os.environ | {"STATE_DIRECTORY": str(folder / "state"), "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        # a shell that runs tests in the background ignores SIGINT, and so would its processes
        ["env", "--default-signal=INT,TERM,HUP", sys.executable, "-m", "ntpaudit", "demo", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if terminal is None else terminal,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demonstration_leaves_the_old_one(tmp_path: Path, number: signal.Signals) -> None:
    """What ends it reaches all processes at once; the status is 130, nothing half made is left, no traceback shown."""
    (tmp_path / "state").mkdir()
    old = tmp_path / "state" / "demo.sqlite3"
    with DemoStore(str(old)) as store:
        store.finish(1_795_000_000 * NS_PER_S)
    before = old.read_bytes()
    with _running(tmp_path, "--hosts", "200", "--hours", "500") as running:
        assert running.stderr is not None
        assert "simulated" in running.stderr.readline()
        time.sleep(1.0)  # it has begun to simulate
        os.killpg(running.pid, number)
        _, err = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 130
    assert err.endswith("interrupted\n")
    assert "Traceback" not in err
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["demo.sqlite3"]
    assert old.read_bytes() == before


def test_it_follows_the_present_until_a_signal(tmp_path: Path) -> None:
    """A database gets the history and then new points, a terminal shows the number; SIGTERM ends it."""
    ours, theirs = pty.openpty()
    with FlakyDatabase(choose=lambda request: Answer(204)) as database:
        words = (
            "--hosts",
            "3",
            "--hours",
            "6",
            "--no-udp",
            "--follow",
            "--bucket",
            "soc",
            "--influx-url",
            database.url,
        )
        with _running(tmp_path, *words, terminal=theirs) as running:
            os.close(theirs)
            assert running.stdout is not None
            said = [running.stdout.readline() for _ in range(6)]
            count = len(database.requests)
            err = ""
            while " points until " not in err or len(database.requests) == count:
                err += os.read(ours, 65_536).decode()
            running.send_signal(signal.SIGTERM)
            running.communicate(timeout=DEADLINE_S)
    os.close(ours)
    assert running.returncode == 130
    assert f"are in {database.url}, bucket soc" in said[0]
    assert f"ntpaudit fleet --url {database.url} --database soc --flagged" in said[3]
    assert "not shown, for what was written cannot be read" in err
    points = re.findall(r"([0-9,]+) points until 2[0-9T:-]+Z\r", err)
    assert int(points[0].replace(",", "")) >= sum(len(one.lines.splitlines()) for one in database.requests[:count])
    assert len(database.requests) > count
    assert any("org=&bucket=soc" in request.target for request in database.requests)


def test_progress_is_shown(tmp_path: Path) -> None:
    """On a terminal a bar counts the hosts."""
    ours, theirs = pty.openpty()
    with _running(tmp_path, "--hosts", "3", "--hours", "6", "--no-udp", terminal=theirs) as running:
        running.communicate(timeout=DEADLINE_S)
        os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "simulating hosts" in shown
    assert "3/3" in shown

"""A demonstration's file: whole or not at all, and told apart from every other."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.errors import ReadError, StoreError
from ntpaudit.fleet import open_reader
from ntpaudit.fleet.embedded import EmbeddedReader, EmbeddedStore
from ntpaudit.fleet.reader import Reach
from ntpaudit.sinks.line_protocol import Point, points
from tests.fleet.fleets import END_NS, HOUR_S, keep
from tests.records import NOW_NS, record, servers
from tests.world.packages import REPOSITORY


def write(path: Path, name: str, *, end_ns: int | None = NOW_NS) -> None:
    """Write a demonstration of one host, finished or not."""
    with EmbeddedStore.create(str(path)) as store:
        store.write(points(record(*servers(0.001), name=name)), NOW_NS)
        if end_ns is not None:
            store.finish(end_ns)


def fail(path: Path) -> None:
    """Write a demonstration that is finished, and then written to in vain."""
    with EmbeddedStore.create(str(path)) as store:
        store.finish(NOW_NS)
        store.write([Point("of-tomorrow", {}, {}, NOW_NS)], NOW_NS)


def names(path: Path) -> list[str]:
    """Return the hosts in a demonstration."""
    with closing(EmbeddedReader(str(path))) as reader:
        return [host.name for host in reader.snapshot(NOW_NS + NS_PER_S * HOUR_S, Reach()).hosts]


def test_the_old_one_stays_until_the_new_one_is_finished(tmp_path: Path) -> None:
    """One that is not finished, or fails, leaves the old one as it was, and nothing else."""
    path = tmp_path / "made" / "demo.sqlite3"
    path.parent.mkdir()
    write(path, "old")
    write(path, "unfinished", end_ns=None)
    with pytest.raises(KeyError):
        fail(path)
    assert names(path) == ["old"]
    with closing(EmbeddedReader(str(path))) as reader:  # who reads the old one is not disturbed
        write(path, "new")
        assert [host.name for host in reader.snapshot(NOW_NS + NS_PER_S * HOUR_S, Reach()).hosts] == ["old"]
    assert names(path) == ["new"]
    assert list(path.parent.iterdir()) == [path]


def test_the_same_point_twice_is_one(tmp_path: Path) -> None:
    """A point at the same time takes the place of the one before, as in a database."""
    path = tmp_path / "demo.sqlite3"
    with EmbeddedStore.create(str(path)) as store:
        for _ in range(2):
            store.write(points(record(*servers(0.001))), NOW_NS)
        store.finish(NOW_NS)
        store.finish(NOW_NS + 1)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM clock").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM source").fetchone() == (4,)
        assert connection.execute("SELECT end_ns FROM ending").fetchall() == [(NOW_NS + 1,)]


def _empty(path: Path) -> None:
    path.touch()


def _text(path: Path) -> None:
    path.write_text("this is no database, but it is longer than a header of one" * 9)


def _other(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE audits (id INTEGER)")


def _newer(path: Path) -> None:
    write(path, "new")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")


def _endless(path: Path) -> None:
    write(path, "new")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM ending")


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no demonstration"),
        (_empty, "is no demonstration"),
        (_other, "is no demonstration"),
        (_text, "cannot read"),
        (_folder, "cannot read"),
        (_newer, "another version"),
        (_endless, "is damaged"),
    ],
)
def test_what_is_no_demonstration_is_told(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """Whatever lies there is named, with what makes a demonstration."""
    path = tmp_path / "demo.sqlite3"
    make(path)
    with pytest.raises(ReadError, match="ntpaudit demo") as error:
        open_reader(path=str(path))
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_damage_is_told_when_it_is_met(tmp_path: Path) -> None:
    """A file that is damaged further in says so when it is read, and not by a traceback."""
    path = tmp_path / "demo.sqlite3"
    keep(str(path))
    octets = bytearray(path.read_bytes())
    octets[4096 * 3 :] = b"\xff" * (len(octets) - 4096 * 3)
    path.write_bytes(octets)
    with pytest.raises(ReadError, match="make it anew: ntpaudit demo"), closing(EmbeddedReader(str(path))) as reader:
        reader.snapshot(END_NS, Reach())


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("/dev/null/demo.sqlite3", "Not a directory; name a file in a folder"),
        ("/proc", "name a file, not a folder"),
        ("no/demo.sqlite3", "create its folder"),
        ("no/", "name a file, not a folder"),
        (".", "name a file, not a folder"),
        ("", "name a file, not a folder"),
        ("a\0b", "name another file with --store"),
    ],
)
def test_where_nothing_can_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, words: str
) -> None:
    """A place that takes no file is named, before anything is simulated, and nothing is left in it or near."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=words):
        EmbeddedStore.create(place)
    assert list(tmp_path.iterdir()) == []


FILL = """
import os, subprocess, sys
from ntpaudit.errors import StoreError
from ntpaudit.fleet.embedded import EmbeddedStore
from ntpaudit.sinks.line_protocol import points
from tests.records import record, servers

for size in ("16k", "200k"):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs", sys.argv[1]], check=True)
    try:
        with EmbeddedStore.create(sys.argv[1] + "/demo") as store:
            made = [*points(record(*servers(0.001)))]
            for number in range(10_000):
                store.write([one._replace(stamp_ns=number) for one in made], 0)
    except StoreError as error:
        print(error)
    print(os.listdir(sys.argv[1]))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """Full at once or in the middle: it says to make room, and leaves nothing behind."""
    own_user = ["--user", "--map-root-user"] if os.geteuid() else []
    command = ["unshare", "--mount", *own_user, sys.executable, "-c", FILL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    told = f"cannot write {tmp_path}/demo: No space left on device; make room on its file system"
    assert done.stdout.splitlines() == [told, "[]"] * 2


def test_a_demonstration_of_nobody_is_told(tmp_path: Path) -> None:
    """No host is no fleet."""
    path = tmp_path / "demo.sqlite3"
    with EmbeddedStore.create(str(path)) as store:
        store.finish(NOW_NS)
    with closing(EmbeddedReader(str(path))) as reader, pytest.raises(ReadError, match="knows no host"):
        reader.snapshot(NOW_NS, Reach())

"""A demonstration's file: whole or not at all, and distinguished from every other file."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest

from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import ReadError, StoreError
from ntpaudit.fleet import open_reader
from ntpaudit.fleet.decode import CLOCK
from ntpaudit.fleet.demo_store import DemoReader, DemoStore
from ntpaudit.fleet.reader import SnapshotOptions
from ntpaudit.formats.line_protocol import Point, points
from tests.abilities import ANOTHER_USER
from tests.fleet.fleets import END_NS, HOUR_S, keep
from tests.records import NOW_NS, record, servers
from tests.world.another_user import let_others_in
from tests.world.namespaces import unshared
from tests.world.packages import REPOSITORY


def write(path: Path, name: str, *, end_ns: int | None = NOW_NS) -> None:
    """Write a demonstration of one host, finished or not."""
    with DemoStore(str(path)) as store:
        store.write(points(record(*servers(0.001), name=name)), NOW_NS)
        if end_ns is not None:
            store.finish(end_ns)


def fail(path: Path) -> None:
    """Write a demonstration that is finished, and then written to in vain."""
    with DemoStore(str(path)) as store:
        store.finish(NOW_NS)
        store.write([Point("of-tomorrow", {}, {}, NOW_NS)], NOW_NS)


def names(path: Path) -> list[str]:
    """Return the hosts in a demonstration."""
    with closing(DemoReader(str(path))) as reader:
        return [host.name for host in reader.snapshot(NOW_NS + NS_PER_S * HOUR_S, SnapshotOptions()).hosts]


def test_the_old_one_stays_until_the_new_one_is_finished(tmp_path: Path) -> None:
    """One that is not finished, or fails, leaves the old one as it was, and nothing else."""
    path = tmp_path / "made" / "demo.sqlite3"
    path.parent.mkdir()
    write(path, "old")
    write(path, "unfinished", end_ns=None)
    with pytest.raises(KeyError):
        fail(path)
    assert names(path) == ["old"]
    with closing(DemoReader(str(path))) as reader:  # who reads the old one is not disturbed
        write(path, "new")
        assert [host.name for host in reader.snapshot(NOW_NS + NS_PER_S * HOUR_S, SnapshotOptions()).hosts] == ["old"]
    assert names(path) == ["new"]
    assert list(path.parent.iterdir()) == [path]


def test_the_columns_are_what_they_are_called(tmp_path: Path) -> None:
    """With SQLite, each value of a point is found under the name that it has in a database."""
    path = tmp_path / "demo.sqlite3"
    fields = {name: float(number) for number, name in enumerate(CLOCK.fields)}
    with DemoStore(str(path)) as store:
        store.write([Point("ntpaudit_clock", {"host": "a", "site": None, "env": None}, fields, NOW_NS)], NOW_NS)
        store.finish(NOW_NS)
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        row = connection.execute("SELECT * FROM clock").fetchone()
    assert {name: row[name] for name in fields} == fields


def test_the_same_point_twice_is_one(tmp_path: Path) -> None:
    """A point at the same time takes the place of the one before, as in a database."""
    path = tmp_path / "demo.sqlite3"
    with DemoStore(str(path)) as store:
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
        (lambda path: None, "there is no demo at"),
        (_empty, "is not a demo database"),
        (_other, "is not a demo database"),
        (_text, "is not a demo database; name another file with --store"),
        (_folder, "is a folder; name another file with --store"),
        (lambda path: os.mkfifo(path), "is not a demo database"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (_newer, "another version"),
        (_endless, "is damaged"),
    ],
)
def test_what_is_no_demonstration_is_reported(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """Whatever lies there is named, with what makes a demonstration."""
    path = tmp_path / "demo.sqlite3"
    make(path)
    with pytest.raises(ReadError, match="ntpaudit demo") as error:
        open_reader(path=str(path))
    assert words in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.needs("another-user")
def test_a_demonstration_of_somebody_else_is_not_to_be_replaced(tmp_path: Path) -> None:
    """The error says that it may not be read; the fix is for its owner."""
    path = tmp_path / "demo.sqlite3"
    keep(str(path))
    path.chmod(0o600)
    let_others_in(tmp_path)
    os.seteuid(ANOTHER_USER)
    try:
        with pytest.raises(ReadError, match=r"demo\.sqlite3: Permission denied; let the user .* read it, or name ano"):
            DemoReader(str(path))
    finally:
        os.seteuid(0)


def test_damage_is_reported_when_it_is_met(tmp_path: Path) -> None:
    """A file that is damaged further in says so when it is read, and not by a traceback."""
    path = tmp_path / "demo.sqlite3"
    keep(str(path))
    octets = bytearray(path.read_bytes())
    octets[4096 * 3 :] = b"\xff" * (len(octets) - 4096 * 3)
    path.write_bytes(octets)
    with pytest.raises(ReadError, match="create it again: ntpaudit demo"), closing(DemoReader(str(path))) as reader:
        reader.snapshot(END_NS, SnapshotOptions())


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
def test_where_nothing_can_be_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, words: str
) -> None:
    """A place that takes no file is named, before anything is simulated, and nothing is left in it or near."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=words):
        DemoStore(place)
    assert list(tmp_path.iterdir()) == []


def _link_to_text(path: Path) -> None:
    _text(path.with_name("text"))
    path.symlink_to("text")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_empty, "is not a demo database, and stays; remove it"),
        (_other, "is not a demo database, and stays"),
        (_text, "is not a demo database, and stays"),
        (_link_to_text, "is not a demo database, and stays"),
        (lambda path: os.mkfifo(path), "is no file that could be replaced"),
        pytest.param(
            lambda path: os.mknod(path, 0o644 | 0o020000, os.makedev(1, 3)),
            "is no file that could be replaced",
            marks=pytest.mark.needs("devices"),
        ),
        (_socket, "is no file that could be replaced"),
    ],
)
def test_only_a_demonstration_is_replaced(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """A file, database, link, pipe, device or socket of somebody else is refused, and stays as it was."""
    path = tmp_path / "demo.sqlite3"
    make(path)
    before = path.lstat(), path.stat(), path.is_file() and path.read_bytes()
    with pytest.raises(StoreError, match=f"demo.sqlite3 {words}"):
        DemoStore(str(path))
    after = path.lstat(), path.stat(), path.is_file() and path.read_bytes()
    assert [one.st_ino for one in after[:2]] == [one.st_ino for one in before[:2]]
    assert after[2] == before[2]
    assert list(tmp_path.glob(".*")) == []


def test_what_came_meanwhile_is_spared(tmp_path: Path) -> None:
    """A file that somebody put there while the demonstration was written is not replaced."""
    path = tmp_path / "demo.sqlite3"
    store = DemoStore(str(path))
    store.finish(NOW_NS)
    path.write_text("mine")
    with pytest.raises(StoreError, match="is not a demo database, and stays"):
        store.close()
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_place_of_the_new_file_harms_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who may write to the folder cannot make root change a database elsewhere."""
    precious, folder, copy = tmp_path / "precious", tmp_path / "folder", shutil.copyfileobj
    folder.mkdir()
    with closing(sqlite3.connect(precious)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = precious.read_bytes()
    swapped: list[Path] = []

    def swap(source: IO[bytes], target: IO[bytes]) -> None:
        (new,) = folder.iterdir()
        new.unlink()
        new.symlink_to(precious)
        swapped.append(new)
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfileobj", swap)
    write(folder / "file", "new")
    assert swapped
    assert precious.read_bytes() == before


def test_a_link_is_followed(tmp_path: Path) -> None:
    """What it points to is made, and replaced, where it is; the link stays."""
    link = tmp_path / "demo.sqlite3"
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to("elsewhere/real")
    for name in ("old", "new"):
        write(link, name)
        assert names(tmp_path / "elsewhere" / "real") == [name]
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["demo.sqlite3", "elsewhere", "real"]


def test_one_of_another_version_is_replaced(tmp_path: Path) -> None:
    """A demonstration is one whatever its version: the fix that its reader names is to make it again."""
    path = tmp_path / "demo.sqlite3"
    _newer(path)
    write(path, "new")
    assert names(path) == ["new"]


BEGIN = """
import sys, time
from ntpaudit.fleet.demo_store import DemoStore
from ntpaudit.formats.line_protocol import points
from tests.records import record, servers
store = DemoStore(sys.argv[1])
made = [*points(record(*servers(0.001)))]
for number in range(20_000):
    store.write([one._replace(stamp_ns=number) for one in made], 0)
print("begun", flush=True)
time.sleep(60)
"""


def test_a_killed_run_leaves_nothing(tmp_path: Path) -> None:
    """Neither beside the demonstration nor among the temporary files; files of similar names stay."""
    path, temporary = tmp_path / "demo.sqlite3", tmp_path / "temporary"
    others = {tmp_path / ".demo.sqlite3.swp", tmp_path / ".ntpaudit-abc", temporary}
    temporary.mkdir()
    for other in others - {temporary}:
        other.write_text("mine")
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(temporary), "SQLITE_TMPDIR": str(temporary)},
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        assert list(temporary.iterdir()) == []  # while it is written too: the file has no name
        running.send_signal(signal.SIGKILL)
    assert {*tmp_path.iterdir()} == others
    write(path, "newer")
    assert {*tmp_path.iterdir()} == {path} | others
    assert list(temporary.iterdir()) == []


FILL = """
import os, subprocess, sys
from ntpaudit.errors import StoreError
from ntpaudit.fleet.demo_store import DemoStore
from ntpaudit.formats.line_protocol import points
from tests.records import record, servers

for size in ("16k", "200k"):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs", sys.argv[1]], check=True)
    try:
        with DemoStore(sys.argv[1] + "/demo") as store:
            made = [*points(record(*servers(0.001)))]
            for number in range(10_000):
                store.write([one._replace(stamp_ns=number) for one in made], 0)
            store.finish(0)
    except StoreError as error:
        print(error)
    print(os.listdir(sys.argv[1]))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """Full at once or in the middle: it says to make room, and leaves nothing behind."""
    command = [*unshared("mount"), sys.executable, "-c", FILL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    message = f"cannot write {tmp_path}/demo: No space left on device; make room on its file system"
    assert done.stdout.splitlines() == [message, "[]"] * 2


def test_a_demonstration_without_hosts_is_reported(tmp_path: Path) -> None:
    """No host is no fleet."""
    path = tmp_path / "demo.sqlite3"
    with DemoStore(str(path)) as store:
        store.finish(NOW_NS)
    with closing(DemoReader(str(path))) as reader, pytest.raises(ReadError, match="has no host"):
        reader.snapshot(NOW_NS, SnapshotOptions())

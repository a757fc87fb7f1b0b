"""Every record is one whole line of the file that has the path now, or none."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ntpaudit.config.schema import JsonlConfig
from ntpaudit.core.chain import ChainHead
from ntpaudit.core.record import Record
from ntpaudit.errors import OutputError
from ntpaudit.formats.json_record import render
from ntpaudit.outputs.jsonl import open_output
from tests.outputs.agent import SAME, event
from tests.records import CASES
from tests.world.namespaces import unshared
from tests.world.packages import REPOSITORY

OTHER = CASES["beyond, ahead"]


def read(path: Path) -> list[Record]:
    """Return the records of a file, whose last line must be whole."""
    text = path.read_text()
    assert text.endswith("\n")
    return [Record.from_dict(json.loads(line)) for line in text.splitlines()]


def test_each_record_is_a_line(tmp_path: Path) -> None:
    """Records come back unchanged and in order; one emitted twice, because of an event, is written once."""
    path = tmp_path / "audits.jsonl"
    output = open_output(JsonlConfig(str(path)))
    for record in (SAME, OTHER, OTHER, SAME):
        output.emit(record, [event()])
    output.close()
    assert path.read_text() == render(SAME) + render(OTHER) + render(SAME)
    assert read(path) == [SAME, OTHER, SAME]


def test_a_line_has_the_head_of_the_chain(tmp_path: Path) -> None:
    """A record that is emitted again because of an event, which moved the head on, is still written once."""
    path = tmp_path / "audits.jsonl"
    output = open_output(JsonlConfig(str(path)))
    chained = [SAME._replace(chain=ChainHead(sequence, bytes([sequence] * 32))) for sequence in (7, 9)]
    for record in (*chained, OTHER):
        output.emit(record, [event()])
    output.close()
    assert read(path) == [chained[0], OTHER]
    assert json.loads(path.read_text().splitlines()[0])["chain"] == {"sequence": 7, "head": "07" * 32}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_new_file_is_for_owner_and_group(tmp_path: Path, umask: int) -> None:
    """Owner and group alone can read a new file, with any umask; an old one keeps its mode."""
    path = tmp_path / "audits.jsonl"
    before = os.umask(umask)
    try:
        output = open_output(JsonlConfig(str(path)))
        output.emit(SAME, [])
        assert path.stat().st_mode & 0o777 == 0o640
        output.close()
        path.chmod(0o604)
        output = open_output(JsonlConfig(str(path)))
        output.emit(SAME, [])
        assert path.stat().st_mode & 0o777 == 0o604
        output.close()
    finally:
        os.umask(before)
    assert len(read(path)) == 2


def test_rotation(tmp_path: Path) -> None:
    """A file that is moved, removed or emptied is followed by a new or empty one; no record is lost."""
    path, old = tmp_path / "audits.jsonl", tmp_path / "audits.jsonl.1"
    output = open_output(JsonlConfig(str(path)))
    output.emit(SAME, [])
    path.rename(old)
    output.emit(OTHER, [])
    assert (read(old), read(path)) == ([SAME], [OTHER])
    path.unlink()
    output.emit(SAME, [])
    assert read(path) == [SAME]
    os.truncate(path, 0)
    output.emit(OTHER, [])
    assert read(path) == [OTHER]
    output.close()


def test_an_open_file_is_let_go_on_rotation(tmp_path: Path) -> None:
    """A rotated file is closed, or its space would never be freed."""
    path = tmp_path / "audits.jsonl"
    output = open_output(JsonlConfig(str(path)))
    for number in range(5):
        output.emit((SAME, OTHER)[number % 2], [])
        path.rename(tmp_path / f"old.{number}")
    links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name)]
    assert [link for link in links if link.startswith(str(tmp_path))] == [str(tmp_path / "old.4")]
    output.close()


def _is_open(name: str) -> bool:
    """Whether the descriptor still exists: that of the listing itself does not."""
    return os.path.lexists(f"/proc/self/fd/{name}")


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    """Where the power failed in the midst of a line, the next record begins on a line of its own."""
    path = tmp_path / "audits.jsonl"
    path.write_text(render(SAME) + '{"schema":"ntpaudit.rec')
    output = open_output(JsonlConfig(str(path)))
    output.emit(OTHER, [])
    output.close()
    first, torn, last = path.read_text().splitlines()
    assert torn == '{"schema":"ntpaudit.rec'
    assert [Record.from_dict(json.loads(line)) for line in (first, last)] == [SAME, OTHER]


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Let the kernel refuse to write beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 500])
def test_no_half_line_is_left(tmp_path: Path, room: int) -> None:
    """If only part of the line can be written, the file is unchanged; with space again the record is written."""
    path = tmp_path / "audits.jsonl"
    output = open_output(JsonlConfig(str(path)))
    output.emit(SAME, [])
    whole = path.read_bytes()
    with no_file_larger_than(len(whole) + room):
        for _ in range(2):
            with pytest.raises(OutputError, match=str(path)):
                output.emit(OTHER, [])
            assert path.read_bytes() == whole
    output.emit(OTHER, [])
    output.close()
    assert read(path) == [SAME, OTHER]


FILL = """
import os, subprocess, sys
from ntpaudit.config.schema import JsonlConfig
from ntpaudit.errors import OutputError
from ntpaudit.outputs.jsonl import open_output
from tests.records import CASES

subprocess.run(["mount", "-t", "tmpfs", "-o", "size=65536", "tmpfs", sys.argv[1]], check=True)
path = sys.argv[1] + "/audits.jsonl"
output = open_output(JsonlConfig(path))
records = list(CASES.values())
count = 0
try:
    while True:
        output.emit(records[count % 2], [])
        count += 1
except OutputError as error:
    print(error)
lines = open(path).read().split("\\n")
assert lines.pop() == "" and len(lines) == count > 10, (len(lines), count)
os.unlink(path)
output.emit(records[count % 2], [])
print(len(open(path).readlines()))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """On a disk that fills up every line stays whole, the reason is reported, and with space again it continues."""
    command = [*unshared("mount"), sys.executable, "-c", FILL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    reason, lines = done.stdout.splitlines()
    assert reason.startswith(f"cannot write {tmp_path}/audits.jsonl: ")
    assert reason.endswith("make room on its file system")
    assert lines == "1"


def test_a_link_to_a_file_that_is_not_there_yet_is_followed(tmp_path: Path) -> None:
    """A link may lead to where the file shall be."""
    (tmp_path / "link").symlink_to(tmp_path / "file")
    output = open_output(JsonlConfig(str(tmp_path / "link")))
    output.emit(SAME, [])
    output.close()
    assert read(tmp_path / "file") == [SAME]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere/file", "create its folder"),
        ("folder", "not a folder"),
        ("pipe", "not a regular file"),
        ("/dev/full", "not a regular file"),
    ],
)
def test_what_cannot_be_written_is_reported(tmp_path: Path, name: str, reason: str) -> None:
    """A path that can be no file is reported with its reason, and blocks no one."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    output = open_output(JsonlConfig(str(tmp_path / name)))
    with pytest.raises(OutputError, match=reason):
        output.emit(SAME, [])
    output.close()

"""A file is replaced whole, or stays as it was."""

import errno
import os
from pathlib import Path

import pytest

from ntpaudit.sinks.files import unwritable, write_atomically


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """Where the new text cannot be written, the old one stays, and nothing else lies beside it."""
    path = tmp_path / "file"
    write_atomically(str(path), "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(str(path), "new \ud800")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_reader_keeps_the_file_that_it_has_open(tmp_path: Path) -> None:
    """Whoever reads the old file reads it to its end."""
    path = tmp_path / "file"
    write_atomically(str(path), "old")
    with path.open() as reader:
        write_atomically(str(path), "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_the_reason_is_told(number: int) -> None:
    """The path and the system's reason are told, and what would mend it where that is known."""
    said = unwritable("/var/file", OSError(number, os.strerror(number)))
    assert said.startswith(f"cannot write /var/file: {os.strerror(number)}")
    assert ("; " in said) == (number != errno.EIO)

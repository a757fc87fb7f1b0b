"""What tests of the store share."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abilities import need


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the history of a test lies."""
    return tmp_path / "history.sqlite3"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    need("disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)

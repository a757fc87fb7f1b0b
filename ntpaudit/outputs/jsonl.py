"""Records appended to a file, one per line (JSON Lines), for a log shipper. Any tool may rotate the file."""

import errno
import os
from collections.abc import Sequence

from ntpaudit.config.schema import JsonlConfig
from ntpaudit.core.events import Event
from ntpaudit.core.record import Record
from ntpaudit.errors import OutputError
from ntpaudit.files import open_regular, unwritable
from ntpaudit.formats.json_record import render

_MODE = 0o640  # the mode of a new file: its owner writes, its group reads, others do neither


def open_output(config: JsonlConfig) -> "_Lines":
    """Return an output that appends to the file."""
    return _Lines(config.path)


class _Lines:
    """The file, which is opened again when another one has its path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None
        self._last: Record | None = None

    def emit(self, record: Record, events: Sequence[Event]) -> None:
        """Append the record, unless it is the last one again. Raises OutputError, and then leaves no partial line."""
        if self._last is not None and record == self._last._replace(chain=record.chain):
            return
        try:
            self._file = _current(self._path, self._file)
            _append(self._file, render(record).encode())
        except OSError as error:
            raise OutputError(unwritable(self._path, error)) from error
        self._last = record

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _current(path: str, file: int | None) -> int:
    """Return the file that has the path now: the open one, or a new one if that was moved. Raises OSError."""
    if file is not None:
        try:
            if os.path.samestat(os.stat(path), os.fstat(file)):
                return file
        except FileNotFoundError:
            pass
    opened = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, _MODE)
    if file is not None:
        os.close(file)
    return opened


def _append(file: int, line: bytes) -> None:
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        line = b"\n" + line  # a power failure cut the last line: keep this one apart
    written = os.write(file, line)
    if written < len(line):
        end = os.lseek(file, 0, os.SEEK_CUR)
        if os.fstat(file).st_size == end:  # else another process has appended since
            os.ftruncate(file, end - written)
        raise OSError(errno.ENOSPC, "there is no room for a whole line")

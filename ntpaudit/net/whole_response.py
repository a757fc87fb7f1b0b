"""HTTP answers that must come to their end: the standard library takes a status line that breaks off for a good one."""

from http.client import HTTPResponse, IncompleteRead
from typing import Any


class WholeResponse(HTTPResponse):
    """An answer whose status line and headers are followed by their empty line (RFC 9112 §2.1)."""

    def begin(self) -> None:
        """Read status line and headers. IncompleteRead where the connection ended before they did."""
        file: Any = self.fp
        lines: Any = _Lines(file)
        self.fp = lines
        try:
            super().begin()
        finally:
            if self.fp is lines:
                self.fp = file
        if not lines.has_ended:
            raise IncompleteRead(b"")


class _Lines:
    """A file that remembers whether the last line read from it was an empty one, with its end."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.has_ended = False

    def readline(self, limit: int = -1) -> bytes:
        """Read a line."""
        line: bytes = self._file.readline(limit)
        self.has_ended = line in (b"\r\n", b"\n")
        return line

    def __getattr__(self, name: str) -> Any:
        """Do all else as the file does."""
        return getattr(self._file, name)

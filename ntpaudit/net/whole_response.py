"""HTTP answers with complete headers: the standard library accepts a status line that is cut."""

from http.client import HTTPResponse, IncompleteRead
from typing import Any


class WholeResponse(HTTPResponse):
    """An answer whose status line and headers are followed by their empty line (RFC 9112 §2.1)."""

    def begin(self) -> None:
        """Read status line and headers. IncompleteRead if the connection ends before they do."""
        file: Any = self.fp
        lines: Any = _Lines(file)
        self.fp = lines
        super().begin()
        self.fp = file
        if not lines.at_end:
            raise IncompleteRead(b"")


class _Lines:
    """A file that records whether the last line read from it was empty and complete."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.at_end = False

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(limit)
        self.at_end = line in (b"\r\n", b"\n")
        return line

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to the file."""
        return getattr(self._file, name)

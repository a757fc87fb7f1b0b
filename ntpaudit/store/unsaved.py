"""How many records are in memory only, kept in a small file of fixed size that a full disk does not stop."""

import os
import re
from contextlib import suppress
from typing import NamedTuple

_SIZE = 64
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Unsaved(NamedTuple):
    """Records that are in no file, and those of them that were not delivered either."""

    records: int = 0
    undelivered: int = 0


class UnsavedFile:
    """The file: made while there is room, overwritten in place later. It reports a loss, and never causes one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._handle: int | None = None
        self._last: Unsaved | None = None

    def open(self) -> Unsaved:
        """Open the file, or make it; return what a run that was killed left in it."""
        self.close()
        with suppress(OSError):
            try:
                self._handle = os.open(self._path, _FLAGS, 0o600)
            except PermissionError:  # another user's, after an agent was run by hand as root: it cannot be read anyway
                os.unlink(self._path)
                self._handle = os.open(self._path, _FLAGS, 0o600)
            if os.fstat(self._handle).st_nlink > 1:  # the other name may be that of a file of somebody else
                self.close()
                return Unsaved()
            counts = re.fullmatch(rb"([0-9]{1,9}) ([0-9]{1,9})\s*", os.pread(self._handle, _SIZE, 0))
            found = Unsaved(*map(int, counts.groups())) if counts else Unsaved()
            self.write(found)
            return found
        return Unsaved()

    def write(self, unsaved: Unsaved) -> None:
        """Replace what the file says."""
        if self._handle is not None and unsaved != self._last:
            with suppress(OSError):
                os.pwrite(self._handle, f"{unsaved.records} {unsaved.undelivered}".ljust(_SIZE).encode(), 0)
                os.fdatasync(self._handle)
                self._last = unsaved

    def close(self) -> None:
        """Close the file; what it says stays."""
        if self._handle is not None:
            os.close(self._handle)
        self._handle = self._last = None

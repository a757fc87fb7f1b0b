"""Records as the history holds them, read back: whole, or not at all."""

import json
from typing import Any

from ntpaudit.core.observation import Daemon, KernelState
from ntpaudit.core.record import Record
from ntpaudit.store.compression import unpack_text
from ntpaudit.store.serialization import plain, revive


def read_record(value: Any) -> tuple[dict[str, Any], Record]:
    """Return a record of a row, as it is stored and read. ValueError where any part of it is not what was written.

    Every field has its type: code that uses the record later meets no text where a number should be.
    """
    try:
        stored = json.loads(unpack_text(value))
        record = Record.from_dict(stored)
        revive(Record, plain(record))
        _check_kernel(record.kernel)
        for daemon in record.daemons:
            _check(Daemon, daemon)
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no record: {type(error).__name__}: {error}") from error
    return stored, record


def _check_kernel(kernel: Any) -> None:
    """Check what the kernel said. TypeError, ValueError or KeyError where that makes no sense."""
    if kernel["available"] is True:
        _check(KernelState, kernel)
        revive(bool, kernel["synchronised"])
    else:
        revive(str, kernel["reason"])


def _check(kind: Any, data: Any) -> None:
    """Check that data have what a value needs, and more only of what later versions may have added."""
    revive(kind, {name: part for name, part in dict(data).items() if name in kind._fields})

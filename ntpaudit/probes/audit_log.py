"""Changes of the clock in the log of auditd: who made which system call."""

import glob
import math
import os
import re
import time
from collections.abc import Iterable, Iterator

from ntpaudit.core.attribution import AUDIT, LogLine
from ntpaudit.core.observation import Unavailable

AUDIT_LOG = "/var/log/audit/audit.log"
_ABOUT_TIME = re.compile(r"type=(?:TIME_INJOFFSET|UNKNOWN\[1332\])|syscall=(?:227|164|159|305|112|170|171|266)\b")
_CHANGED = re.compile(r"TIME_INJOFFSET|syscall=(?:227|164|112|170)\b")  # not adjtimex that only slews or reads
_RECORD = re.compile(
    r"(?:node=\S+ )?type=(SYSCALL|TIME_INJOFFSET|UNKNOWN\[1332\]) msg=audit\((\d{1,11})\.(\d{3}):(\d+)\): ?(.*)"
)
_MAX_LINE = 1 << 16


def read_audit_log(
    path: str = AUDIT_LOG, since_s: int = 0, within_s: float | None = None
) -> list[LogLine] | Unavailable:
    """Return what the log and its older files (`audit.log.1`) record about set clocks, or why they cannot be read.

    Older files that were last written before `since_s` (host time, Unix seconds) are skipped: a site may keep them all.
    `within_s` is how long it may take; TimeoutError where that is not enough.
    """
    found: list[LogLine] = []
    deadline = math.inf if within_s is None else time.monotonic() + within_s
    try:
        for name in (path, *sorted(glob.glob(f"{glob.escape(path)}.*"))):
            if name != path and os.stat(name).st_mtime < since_s:
                continue
            with open(name, encoding="utf-8", errors="replace") as file:
                found += parse_audit(_until(file, deadline))
    except TimeoutError:
        raise
    except FileNotFoundError:
        return Unavailable(f"there is no {path}", "auditd can record each change of the clock: see docs/journal.md")
    except OSError as error:
        return Unavailable(f"{path} cannot be read: {os.strerror(error.errno or 0)}", "run it with sudo")
    return found


def _until(lines: Iterable[str], deadline: float) -> Iterator[str]:
    for line in lines:
        if time.monotonic() > deadline:
            raise TimeoutError
        yield line


def parse_audit(lines: Iterable[str]) -> Iterator[LogLine]:
    """Yield the events that changed the clock; the records of one event are joined. `realtime_us` is the only time."""
    events: dict[tuple[str, str, str], list[str]] = {}
    for line in lines:
        if _ABOUT_TIME.search(line[:_MAX_LINE]) and (match := _RECORD.match(line[:_MAX_LINE])):
            kind, seconds, millis, serial, rest = match.groups()
            name = "SYSCALL" if kind == "SYSCALL" else "TIME_INJOFFSET"
            events.setdefault((seconds, millis, serial), []).append(f"{name} {rest.partition(chr(0x1D))[0].strip()}")
    for (seconds, millis, _), records in events.items():
        text = " ".join(sorted(records))
        if _CHANGED.search(text):
            yield LogLine("", 0, int(seconds) * 1_000_000 + int(millis) * 1000, AUDIT, text, uid=0)

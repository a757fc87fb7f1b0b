"""Journal files of any content: the real systemd-journal-remote writes them from entries in export format."""

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.abilities import need
from tests.world.packages import environment, program

MACHINE_ID = "0123456789abcdef0123456789abcdef"
BEGIN_US = 1_790_000_000_000_000
S = 1_000_000
WEB_BOOT = "a" * 32


class Entry(NamedTuple):
    """An entry: `d_us` is its realtime minus its monotonic time, in µs."""

    monotonic_us: int
    d_us: int = BEGIN_US
    source: str = "cron"
    text: str = "a message"
    boot_id: str = WEB_BOOT
    fields: Mapping[str, str] = {}

    def export(self, number: int) -> bytes:
        """Write it in export format; a value with a line break in the binary form."""
        realtime_us = self.monotonic_us + self.d_us
        transport = self.source if self.source in ("kernel", "audit") else "syslog"
        fields = {
            "_TRANSPORT": transport,
            "_MACHINE_ID": MACHINE_ID,
            "_UID": "0",
            "SYSLOG_IDENTIFIER": self.source,
            "MESSAGE": self.text,
            **self.fields,
        }
        head = (
            f"__CURSOR=s={'f' * 32};i={number:x};b={self.boot_id};m={self.monotonic_us:x};t={realtime_us:x};"
            f"x={number:x}\n__REALTIME_TIMESTAMP={realtime_us}\n__MONOTONIC_TIMESTAMP={self.monotonic_us}\n"
            f"_BOOT_ID={self.boot_id}\n"
        )
        return head.encode() + b"".join(_field(name, value.encode()) for name, value in fields.items()) + b"\n"


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def write_journal(folder: Path, entries: Iterable[Entry], name: str = "system") -> Path:
    """Write entries into a journal file of a folder, in their order."""
    need("systemd-journal-remote")
    folder.mkdir(parents=True, exist_ok=True)
    export = folder / f"{name}.export"
    with export.open("wb") as file:
        file.writelines(entry.export(number) for number, entry in enumerate(entries, 1))
    path = folder / f"{name}.journal"
    command = [str(program("systemd-journal-remote")), f"--output={path}", str(export)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    export.unlink()
    return path

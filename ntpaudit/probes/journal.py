"""systemd's journal, read by journalctl: the receive times of all entries, and the lines that can name a cause.

Export format for the times, with one field: journalctl needs half the time that JSON takes, and no value of these
fields can have a line break. JSON for the lines, because their texts can.
"""

import glob
import json
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple

from ntpaudit.core.attribution import KERNEL, MESSAGE_IDS, SOURCES, LogLine
from ntpaudit.core.journal_steps import Row
from ntpaudit.errors import JournalError

PERSISTENT, VOLATILE = "/var/log/journal", "/run/log/journal"
_CHUNK = 1 << 20
_MAX_BOOTS = 50  # that are named in a query; with more, lines of all boots are read
_ENTRY = re.compile(
    rb"__REALTIME_TIMESTAMP=(\d{1,17})\n__MONOTONIC_TIMESTAMP=(\d{1,17})\n(?:__SEQNUM(?:_ID)?=\w+\n)*"
    rb"_BOOT_ID=(\w{32})\n(?:_MACHINE_ID=(\w{32})\n)?"
)
_MAX_ERRORS = 1 << 16
_LINE_FIELDS = "MESSAGE,MESSAGE_ID,SYSLOG_IDENTIFIER,_COMM,_EXE,_TRANSPORT,_UID,_AUDIT_TYPE_NAME"
_OWN_ONLY = "not seeing messages from other users"
_FATAL = (
    "No journal files were found",
    "No journal boot entry found",
    "Data from the specified boot",
    "Failed to open",
    "Failed to look up boot",
    "Failed to parse",
)
_NO_NOTE = ("Users in", "Pass -q", "-- ")  # the rest of a hint
_REMEDY_PROGRAM = "install systemd, or copy the journal to a host that has it, and use --directory"
OWN_ONLY_REMEDY = "run it with sudo, or as a member of the group systemd-journal"


class JournalSource(NamedTuple):
    """Which journal: this host's, that of a folder or files; from a host time (Unix seconds) on; of one boot."""

    directory: str | None = None
    files: tuple[str, ...] = ()
    since_s: int | None = None
    boot: str | None = None

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of its files; none where the files are named."""
        folder = self.directory
        if folder is None:
            return () if self.files else (PERSISTENT, VOLATILE)
        image = os.path.join(folder, PERSISTENT.lstrip("/"))
        return (image if os.path.isdir(image) else folder,)  # the first is in the root of a host's files

    @property
    def is_hidden(self) -> bool:
        """Whether this user may not read one of its files. journalctl skips it, at times silently."""
        paths = (
            path
            for folder in self.folders
            for pattern in ("*.journal*", "*/*.journal*")  # journalctl reads one level of folders
            for path in glob.iglob(os.path.join(glob.escape(folder), pattern))
        )
        return any(not os.access(path, os.R_OK, effective_ids=True) and os.path.exists(path) for path in paths)

    @property
    def options(self) -> list[str]:
        """The options of journalctl."""
        since = self.since_s
        return [
            *([] if self.directory is None else [f"--directory={self.folders[0]}"]),
            *(f"--file={path}" for path in self.files),
            *([] if since is None else [f"--since=@{since}"]),
            *([] if self.boot is None else [f"--boot={self.boot}"]),
        ]

    @property
    def is_persistent(self) -> bool:
        """False for this host's journal where it is only in memory, so that it ends with the boot."""
        return self.directory is not None or bool(self.files) or os.path.isdir(PERSISTENT)


class Journal:
    """A journal as this user can read it.

    - `notes`: what journalctl reports about files that it could not read.
    - `is_own_only`: some files cannot be read, as a rule all but this user's own messages.
    - `kernel_boots`: the boots of kernel messages, known after `lines`.
    - `begins_us`: the uptime of the first of these lines in each boot; the kernel's own first ones are among them.

    `within_s` is how long it may take to read it once; then journalctl is ended, and JournalError raised.
    """

    def __init__(self, source: JournalSource, within_s: float | None = None) -> None:
        self.source = source
        self._within_s = within_s
        self.notes: list[str] = []
        self.is_own_only = False
        self.kernel_boots: set[str] = set()
        self.begins_us: dict[str, int] = {}

    def times(self) -> Iterator[list[Row]]:
        """Yield the receive times of all entries, in the journal's order. Raises JournalError if none can be read."""
        rest = b""
        with self._run("--output=export", "--output-fields=_MACHINE_ID") as output:
            while chunk := output.read(_CHUNK):
                rest += chunk
                end = rest.rfind(b"\n\n") + 2
                if end >= 2:
                    yield _ENTRY.findall(rest, 0, end)
                    rest = rest[end:]

    def lines(self, boot_ids: Sequence[str]) -> Iterator[LogLine]:
        """Yield the lines of these boots that can name the cause of a step, or report a suspend."""
        boots = [f"_BOOT_ID={boot_id}" for boot_id in boot_ids] if len(boot_ids) <= _MAX_BOOTS else []
        terms = (
            [f"SYSLOG_IDENTIFIER={name}" for name in SOURCES],
            [f"MESSAGE_ID={one}" for one in MESSAGE_IDS],
            ["_TRANSPORT=kernel", "_TRANSPORT=audit"],
        )
        matches = "\0+\0".join("\0".join([*boots, *term]) for term in terms).split("\0")
        with self._run("--output=json", f"--output-fields={_LINE_FIELDS}", *matches) as output:
            for text in output:
                line = parse_line(text)
                if line is not None:
                    self.begins_us.setdefault(line.boot_id, line.monotonic_us)
                    if line.source == KERNEL:
                        self.kernel_boots.add(line.boot_id)
                    yield line

    @contextmanager
    def _run(self, *words: str) -> Iterator[IO[bytes]]:
        command = ["journalctl", "--no-pager", *self.source.options, *words]
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
                )
            except OSError as error:
                raise JournalError(f"cannot run journalctl: {error.strerror}", _REMEDY_PROGRAM) from error
            with process, _limited(process, self._within_s) as late:
                assert process.stdout is not None
                try:
                    yield process.stdout
                    process.stdout.close()
                    process.wait()
                finally:
                    process.kill()
            if late:
                raise JournalError(f"reading the journal took more than {self._within_s:.0f} s")
            errors.seek(0)
            messages = errors.read(_MAX_ERRORS).decode(errors="replace").splitlines()
            self._report(messages)
            if process.returncode and not messages:
                self.notes.append(f"journalctl ended with status {process.returncode}")

    def _report(self, messages: Iterable[str]) -> None:
        """Keep what journalctl wrote on standard error. Raises JournalError where it could read no journal."""
        self.is_own_only = self.is_own_only or self.source.is_hidden
        for message in (text.strip().rstrip(".") for text in messages):
            if "No journal files were opened" in message or "ermission denied" in message:
                raise JournalError(f"the journal cannot be read: {message}", OWN_ONLY_REMEDY)
            if message.startswith(_FATAL):
                raise JournalError(f"the journal cannot be read: {message}")
            if _OWN_ONLY in message:
                self.is_own_only = True
            elif not message.startswith(_NO_NOTE) and message not in self.notes:
                self.notes.append(message)


@contextmanager
def _limited(process: subprocess.Popen[bytes], within_s: float | None) -> Iterator[list[bool]]:
    """End a process at a deadline, also one that writes nothing; the list is then no longer empty."""
    late: list[bool] = []

    def end() -> None:
        late.append(True)
        process.kill()

    timer = threading.Timer(within_s or 0.0, end)
    if within_s is not None:
        timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def parse_line(text: bytes) -> LogLine | None:
    """Read an entry that journalctl wrote as JSON; None for one without times, or that is not an entry."""
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):  # no JSON, or of another shape
        entry = json.loads(text)
        uid = _text(entry.get("_UID"))
        audit_type = _text(entry.get("_AUDIT_TYPE_NAME"))
        transport = _text(entry.get("_TRANSPORT"))
        is_named = transport in ("kernel", "audit")  # their identifiers can be those of a program that wrote to them
        return LogLine(
            boot_id=_text(entry["_BOOT_ID"]),
            monotonic_us=int(entry["__MONOTONIC_TIMESTAMP"]),
            realtime_us=int(entry["__REALTIME_TIMESTAMP"]),
            source=transport if is_named else _text(entry.get("SYSLOG_IDENTIFIER")) or _text(entry.get("_COMM")),
            text=" ".join(filter(None, (audit_type, _text(entry.get("MESSAGE"))))),
            message_id=_text(entry.get("MESSAGE_ID")),
            uid=int(uid) if uid.isdecimal() else None,
            exe=_text(entry.get("_EXE")),
        )
    return None


def _text(value: Any) -> str:
    """Return a field's value: journalctl writes text, or a list of bytes, or a list of several values."""
    if isinstance(value, list):
        if all(isinstance(one, int) and 0 <= one < 256 for one in value):
            return bytes(value).decode(errors="replace")
        return _text(value[0])
    return value if isinstance(value, str) else ""

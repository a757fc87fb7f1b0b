"""Entries for systemd's journal with searchable fields (systemd's docs/JOURNAL_NATIVE_PROTOCOL.md)."""

import os
import socket
from collections.abc import Mapping

from ntpaudit.config.schema import JournalConfig
from ntpaudit.core.checks.host import RULES
from ntpaudit.errors import OutputError
from ntpaudit.formats.log_entries import VERDICT_CHANGED, LogEntry, LogOutput, clip
from ntpaudit.render.text_safety import one_line

MESSAGE_IDS: Mapping[str, str] = {rule.id: rule.message_id for rule in RULES} | {
    VERDICT_CHANGED: "5326393773d54750becb56d171e32cf2"
}
"""The message id of each kind of entry. It never changes, because users match on it. `systemd-id128 new` makes one."""

_LONGEST_TEXT, _LONGEST_VALUE, _LONGEST_ENTRY = 8_192, 4_096, 65_536  # octets; a third of net.core.wmem_default


def journal_takes_our_output(environment: Mapping[str, str]) -> bool:
    """Whether systemd connected our standard error to its journal: JOURNAL_STREAM names that stream."""
    try:
        stream = os.fstat(2)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"


def open_output(config: JournalConfig) -> LogOutput:
    """Return an output to the journal that listens on a socket."""
    return LogOutput(_Journal(config.socket))


class _Journal:
    """The journal's socket. Each entry is sent to its path, so that a restarted journald gets the next one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def encode(self, message: LogEntry, host: str) -> bytes:
        """Return the fields of an entry. The journal adds the host, and the time of the host's clock."""
        message_id = MESSAGE_IDS.get(message.kind)
        entry = _field("MESSAGE", clip(one_line(message.text), _LONGEST_TEXT))
        entry += _field("PRIORITY", b"%d" % message.priority) + _field("SYSLOG_IDENTIFIER", b"ntpaudit")
        if message_id is not None:
            entry += _field("MESSAGE_ID", message_id.encode())
        for name, value in message.facts.items():
            field = _field(f"NTPAUDIT_{name.upper()}", clip(value, _LONGEST_VALUE))
            if len(entry) + len(field) <= _LONGEST_ENTRY:
                entry += field
        return entry

    def send(self, entry: bytes) -> None:
        """Send a datagram. Raises OutputError if no journal listens, or it is too busy."""
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            raise OutputError(
                f"the journal takes no entry at {self._path}: {error.strerror}; check that systemd-journald runs, "
                "or set journal.enabled = false (a running agent sends the entry later)"
            ) from error

    def close(self) -> None:
        self._socket.close()


def _field(name: str, value: bytes) -> bytes:
    """Return a field as bytes; a value of several lines is preceded by its length."""
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%s=%s\n" % (name.encode(), value)

"""Entries for systemd's journal, with fields to search by, in its native protocol.

The protocol is systemd's docs/JOURNAL_NATIVE_PROTOCOL.md: a datagram for each entry, of lines `NAME=value`.
"""

import os
import socket
from collections.abc import Mapping

from ntpaudit.errors import TellError
from ntpaudit.sinks.messages import VERDICT_CHANGED, LogTeller, Message, clip
from ntpaudit.sinks.plain import one_line

SOCKET = "/run/systemd/journal/socket"

MESSAGE_IDS: Mapping[str, str] = {
    "offset-out": "1643120d7614412ea6edd9a41b2c652f",
    "step-back": "67034e6221f14875bb57585b1894c249",
    "step-forward": "94061a08892d408ba9c672acc87c2156",
    "unattributed-change": "10955b70298d45fb878e9e2e4b7a84ca",
    "daemon-disagrees": "4a2a809d0bad493696d6d1460c7077ac",
    "unsynced": "9a524159e9264fc9b92579cb3a737428",
    "stale-compare": "69d61b2c5c394937a03aab962f6ff9b9",
    "evidence-gap": "5bbeb38870d342bf84ace8ac21775a0d",
    "unapproved-source": "49cd91ebb8d545529c5073410538f27f",
    "not-demonstrable": "ee4a9f8bbb184e6da093ada6f7a41fac",
    "ordering-risk": "a5f93026db9d46bfa51c6cf67ac2f782",
    "ingest-risk": "a6d5e2ef181b4ebf8126ed0e8d80223c",
    "time-config-changed": "283c8fa1a0494370a125be5ee98a3a9d",
    "audit-blind": "cecade9a1ec74ab5ac0460ddfd31f69d",
    "source-quorum": "39a766605369401dac99b798314707f1",
    "tz-or-rtc-fault": "770eeae8b2ef45858a1d595acdbcbab6",
    "breach-forecast": "e1eed9751290471d80861efa38911f68",
    "daemon-count": "18c86cc2393243b3aa73dd48222fddc4",
    "leap-smear-mix": "8a08122886ff441cb722af6116447b3c",
    "unauthenticated": "87251c4429b449a19cc532781eb35786",
    "unreachable-sources": "987b67e99ad8431b98eeb6edf87b3081",
    "kiss-of-death": "575fb3bd91da48048b91668c746e8d6b",
    "suspected-spoofing": "c48e46b097b14e5eaaf5fcabc470f3f0",
    VERDICT_CHANGED: "5326393773d54750becb56d171e32cf2",
}
"""One id for each kind of entry, for ever: rules match on them. New ones come from `journalctl --new-id128`."""

_LONGEST_TEXT, _LONGEST_VALUE, _LONGEST_ENTRY = 8_192, 4_096, 65_536
"""Octets. An entry of this size is a third of what a socket's buffer holds (net.core.wmem_default)."""


def journal_takes_our_output(environment: Mapping[str, str]) -> bool:
    """Whether systemd connected our standard error to its journal: JOURNAL_STREAM names that very stream."""
    try:
        stream = os.fstat(2)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"


def open_teller(setting: str = SOCKET) -> LogTeller:
    """Return a teller of the journal that listens on a socket of this path."""
    return LogTeller(_Journal(setting))


class _Journal:
    """The journal's socket. Each entry finds it anew, so that a restarted journald gets the next one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def encode(self, message: Message, host: str) -> bytes:
        """Write the fields; the journal itself adds the host, and the time by the host's clock."""
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
        """Send a datagram. Raises TellError where no journal listens, or it is too busy."""
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            raise TellError(
                f"the journal takes no entry at {self._path}: {error.strerror}; it is kept and tried again. "
                "See whether systemd-journald runs, or write enabled = false under [journal]"
            ) from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _field(name: str, value: bytes) -> bytes:
    """Write a field; a value of several lines is preceded by its length."""
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%s=%s\n" % (name.encode(), value)

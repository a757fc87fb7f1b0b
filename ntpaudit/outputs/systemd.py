"""Notifications for the service manager: ready, alive, status (sd_notify(3))."""

import contextlib
import socket
import time

from ntpaudit.formats.log_entries import clip
from ntpaudit.render.text_safety import one_line

_LONGEST_STATUS = 1_024


class Notifier:
    """Notify the manager at `$NOTIFY_SOCKET`, if there is one. No method fails or waits: the manager has timeouts."""

    def __init__(self, address: str | None) -> None:
        """Take the value of `$NOTIFY_SOCKET`: a path, or an abstract name that begins with `@`; None if unset."""
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self._socket: socket.socket | None = None
        self._text = ""
        self._refusal = ""

    def ready(self) -> None:
        """Report that the service has started, or has reloaded its configuration."""
        self._send(b"READY=1")

    def watchdog(self) -> None:
        """Report that the service is alive; due twice in WatchdogSec."""
        self._send(b"WATCHDOG=1")

    def status(self, text: str) -> None:
        """Set the status line that `systemctl status` shows."""
        self._text = text
        shown = f"{text}; {self._refusal}" if self._refusal else text
        self._send(b"STATUS=" + clip(one_line(shown), _LONGEST_STATUS))

    def refused(self, reason: str | None) -> None:
        """Add the reason of a refused reload to every status, until a reload succeeds (None)."""
        self._refusal = f"reload refused, the earlier configuration stays in force: {reason}" if reason else ""
        self.status(self._text)

    def reloading(self) -> None:
        """Report that the configuration is being reloaded; `ready` ends it."""
        self._send(b"RELOADING=1\nMONOTONIC_USEC=%d" % (time.monotonic_ns() // 1000))

    def stopping(self) -> None:
        """Report that the service is about to stop."""
        self._send(b"STOPPING=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, state: bytes) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError):
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto(state, self._address)

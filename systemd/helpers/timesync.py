"""Send what systemd-timesyncd reports about itself to each client: the properties of its object on the message bus.

The bus knows no user that exists only while a service runs, as the audit's does. This process runs as the user of
systemd-timesyncd, asks the bus one question that never changes, and reads no input. systemd passes the listening socket
as file descriptor 3. Each client gets the reply as it is, or nothing if there is none; then the connection is closed.
"""

import _socket  # `accept` of `socket` would make an object for each client
import os
import sys
import time

sys.path.insert(0, "/opt/ntpaudit/lib")

from ntpaudit.probes.dbus import TIMESYNCD, BusError, ask

IDLE_S = 300.0
"""The process ends after this time without a client; systemd starts it again for the next one."""

WITHIN_S = 0.4
"""The client waits for half a second."""

VALID = 10
"""An answer is sent for this many times the CPU time that it took: many clients must not keep the bus busy."""


def main() -> None:
    """Answer clients until none connects for IDLE_S."""
    listening = _socket.socket(fileno=3)
    listening.settimeout(IDLE_S)
    ready, valid_until = b"", 0.0
    while True:
        try:
            client, _ = listening._accept()  # type: ignore[attr-defined]
        except TimeoutError:
            return
        try:
            if time.monotonic() >= valid_until:
                began = time.process_time()
                ready = answer()
                valid_until = time.monotonic() + VALID * (time.process_time() - began)
            os.set_blocking(client, False)  # the buffer of a socket has space for all of it
            os.write(client, ready)
        except OSError:  # the client did not wait
            pass
        finally:
            os.close(client)


def answer() -> bytes:
    """Return the reply of the bus; nothing if there is none."""
    try:
        return ask(TIMESYNCD, WITHIN_S)
    except BusError:
        return b""


if __name__ == "__main__":
    main()

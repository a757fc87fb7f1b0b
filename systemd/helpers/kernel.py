"""Send the kernel's clock state to each client: adjtimex, called so that it only reads.

The audit's sandbox forbids every call that could set a clock, and adjtimex is one. This process may make that call and
has nothing else: no network, no capability, no input. systemd passes the listening socket as file descriptor 3.
Each client gets the returned state and errno as two C ints, then struct timex; then the connection is closed.
"""

import _socket  # importing `socket` would double the start-up time
import ctypes
import os
import struct

IDLE_S = 300.0
"""The process ends after this time without a client; systemd starts it again for the next one."""

TIMEX_SIZE = 208
"""sizeof(struct __kernel_timex), on every architecture; the audit's own read_kernel knows its fields (A1)."""

_CLOCK_ADJTIME64 = 405
_CLOCK_REALTIME = 0


def main() -> None:
    """Answer clients until none connects for IDLE_S."""
    libc = ctypes.CDLL(None, use_errno=True)
    listening = _socket.socket(fileno=3)
    listening.settimeout(IDLE_S)
    while True:
        try:
            caller, _ = listening._accept()  # type: ignore[attr-defined]
        except TimeoutError:
            return
        try:
            os.write(caller, answer(libc))
        except OSError:  # the client did not wait
            pass
        finally:
            os.close(caller)


def answer(libc: ctypes.CDLL) -> bytes:
    """Return the state that adjtimex returns, its errno, and the structure; all modes are 0, so nothing is set."""
    timex = ctypes.create_string_buffer(TIMEX_SIZE)
    if ctypes.sizeof(ctypes.c_long) == 8:
        state = libc.adjtimex(timex)
    else:  # A7: the 32-bit libc has a structure of its own
        state = libc.syscall(_CLOCK_ADJTIME64, _CLOCK_REALTIME, timex)
    return struct.pack("ii", state, ctypes.get_errno() if state == -1 else 0) + timex.raw


if __name__ == "__main__":
    main()

"""Tell whoever connects what the kernel believes about its clock: adjtimex, which is called so that it can only read.

The audit's sandbox forbids it every call that could set a clock, and adjtimex is one. This process may make it, and
has nothing else: no network, no capability, no input. systemd hands it the listening socket, as file descriptor 3.
Each caller is sent the returned state and errno as two C ints, then struct timex, and the connection is closed.
"""

import _socket  # `socket` would double what starting costs
import ctypes
import os
import struct

IDLE_S = 300.0
"""Without a caller for so long it ends; systemd starts it again for the next one."""

TIMEX_SIZE = 208
"""sizeof(struct __kernel_timex), on every architecture; the audit's own read_kernel knows its fields (A1)."""

_CLOCK_ADJTIME64 = 405
_CLOCK_REALTIME = 0


def main() -> None:
    """Answer callers until none comes for a while."""
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
        except OSError:  # the caller did not wait
            pass
        finally:
            os.close(caller)


def answer(libc: ctypes.CDLL) -> bytes:
    """What adjtimex returns, its errno, and the structure it fills in; all modes are 0, so that nothing is set."""
    timex = ctypes.create_string_buffer(TIMEX_SIZE)
    if ctypes.sizeof(ctypes.c_long) == 8:
        state = libc.adjtimex(timex)
    else:  # A7: the 32-bit libc has a structure of its own
        state = libc.syscall(_CLOCK_ADJTIME64, _CLOCK_REALTIME, timex)
    return struct.pack("ii", state, ctypes.get_errno() if state == -1 else 0) + timex.raw


if __name__ == "__main__":
    main()

"""Ask a helper program (systemd/helpers): it sends what it knows to each client, and closes the connection."""

import socket
import struct
import time

_TIMEVAL = struct.Struct("@ll")


def ask_helper(path: str, within_s: float, most: int) -> bytes:
    """Return what the helper at a socket sends, at least `most` octets if it sends more. Raises OSError.

    A connection waits in the kernel, in turn, while the queue of the socket is full: other users may fill it.
    """
    deadline = time.monotonic() + within_s
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(within_s), int(within_s % 1 * 1e6)))
        try:
            asking.connect(path)
        except BlockingIOError:
            raise TimeoutError from None
        answer = b""
        while len(answer) < most:
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError
            asking.settimeout(left)
            if not (more := asking.recv(1 << 16)):
                break
            answer += more
        return answer

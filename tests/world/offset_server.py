"""An NTP server whose clock is wrong by a fixed time: `python3 offset_server.py ADDRESS SECONDS_AHEAD`, on port 123.

A reply takes a few ms each way. It needs the standard library alone, so that it runs inside a machine of the tests.
"""

import socket
import struct
import sys
import time

_HEADER = struct.Struct("!BBbbII4sQ8sQQ")
_DELAY_S = 0.003
_SINCE_1900_NS = 2_208_988_800 * 10**9


def main(address: str, ahead_s: float) -> None:
    """Answer every request."""

    def now() -> int:
        return (time.time_ns() + _SINCE_1900_NS + round(ahead_s * 1e9)) * 2**32 // 10**9 % 2**64

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as serving:
        serving.bind((address, 123))
        while True:
            request, client = serving.recvfrom(1024)
            time.sleep(_DELAY_S)
            received, version = now(), request[0] >> 3 & 7
            head = (version << 3 | 4, 2, request[2], -20, 0x0100, 0x0080, b"\x0a\x09\x01\x01")  # 3.9 ms, 1.95 ms
            reply = _HEADER.pack(*head, received, request[40:48], received, now())
            time.sleep(_DELAY_S)
            serving.sendto(reply, client)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))

"""Send what chronyd reports about itself to each client: its state, its sources and how they are authenticated.

chronyd reports the last, and with `cmdport 0` everything, only through its Unix socket, to root and its own user. This
process runs as that user. It could command chronyd, so it reads nothing from its clients, and asks
only questions that change nothing.

systemd passes the listening socket as file descriptor 3. For every question a client gets the length of its data and
that of the reply (16 bits each, network byte order), the data, and the reply. Before all that is the PID of the process
that replied (32 bits): several chronyds may run. If chronyd does not reply, it gets nothing. Then the connection is
closed.
"""

import _socket  # importing `socket` would double the start-up time
import os
import struct
import sys
import time

CHRONYD = "/run/chrony/chronyd.sock"
IDLE_S = 300.0
"""The process ends after this time without a client; systemd starts it again for the next one."""

WITHIN_S = 0.2
VALID = 10
"""An answer is sent for this many times the CPU time that it took: many clients must not keep chronyd busy."""

MAX_SOURCES = 256

# Commands of candm.h (chrony), and the lengths of their replies: a shorter request is not answered.
TRACKING, N_SOURCES, SOURCE_DATA, SOURCE_NAME, AUTH_DATA = (33, 104), (14, 32), (15, 76), (65, 284), (67, 52)
_REQUEST = struct.Struct("!4B2H3I")
_REFERENCE_CLOCK = 2
_CREDENTIALS = struct.Struct("3i")  # SCM_CREDENTIALS: the PID, the user and the group of the sender (unix(7))


def main() -> None:
    """Answer clients until none connects for IDLE_S."""
    path = sys.argv[1] if len(sys.argv) > 1 else CHRONYD
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
                ready = answer(path)
                valid_until = time.monotonic() + VALID * (time.process_time() - began)
            os.set_blocking(client, False)  # the buffer of a socket has space for all of it
            os.write(client, ready)
        except OSError:  # the client did not wait
            pass
        finally:
            os.close(client)


def answer(path: str) -> bytes:
    """Ask chronyd everything, and return all requests and replies; nothing if it does not reply."""
    # chronyd replies to a socket that its user can write to: one beside its own.
    ours = f"{os.path.dirname(path)}/ntpaudit-helper.sock"
    asking = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        remove(ours)
        asking.settimeout(WITHIN_S)
        asking.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        asking.bind(ours)
        asking.connect(path)
        return ask_all(asking)
    except (OSError, ValueError, struct.error):
        return b""
    finally:
        asking.close()
        remove(ours)


def ask_all(asking: _socket.socket) -> bytes:
    """Ask chronyd everything. Raises OSError if not one process replies, and struct.error if a reply is too short."""
    answers, pids = [], set()

    def ask(question: tuple[int, int], data: bytes = b"") -> bytes:
        command, length = question
        head = _REQUEST.pack(6, 1, 0, 0, command, 0, len(answers), 0, 0)
        asking.send((head + data).ljust(length, b"\0"))
        reply: bytes
        reply, ((_, _, credentials),), _, _ = asking.recvmsg(1024, _socket.CMSG_SPACE(_CREDENTIALS.size))
        pids.add(_CREDENTIALS.unpack(credentials)[0])
        answers.append(struct.pack("!2H", len(data), len(reply)) + data + reply)
        return reply[28:]

    ask(TRACKING)
    (count,) = struct.unpack_from("!I", ask(N_SOURCES))
    for index in range(min(count, MAX_SOURCES)):
        source = ask(SOURCE_DATA, struct.pack("!I", index))
        if len(source) >= 48 and struct.unpack_from("!H", source, 26) != (_REFERENCE_CLOCK,):
            ask(SOURCE_NAME, source[:20])
            ask(AUTH_DATA, source[:20])
    if len(pids) > 1:
        raise OSError
    return struct.pack("!I", *pids) + b"".join(answers)


def remove(path: str) -> None:
    """Remove a file that may not be there."""
    try:  # noqa: SIM105  # importing contextlib takes time
        os.unlink(path)
    except OSError:
        pass


if __name__ == "__main__":
    main()

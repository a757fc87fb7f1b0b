"""Who answers on this host: the users of UDP ports and of Unix sockets, so that no other user is believed."""

import os
import socket
import struct
from contextlib import suppress

_TABLES = ("udp", "udp6")


def udp_users(port: int) -> frozenset[int]:
    """Return the effective users whose sockets have this UDP port, by the tables of our network namespace.

    Sockets that are connected to a client count too. Empty where the tables cannot be read.
    """
    users = set[int]()
    for table in _TABLES:
        with suppress(OSError, ValueError, IndexError), open(f"/proc/self/net/{table}", encoding="ascii") as lines:
            for line in list(lines)[1:]:
                words = line.split()  # sl local_address rem_address st queues tr:when retrnsmt uid … (proc_net_udp)
                if int(words[1].rpartition(":")[2], 16) == port:
                    users.add(int(words[7]))
    return frozenset(users)


def peer_user(connected: socket.socket) -> int:
    """Return the user that listens at the other end of a Unix stream socket (SO_PEERCRED, unix(7))."""
    _, user, _ = struct.unpack("iii", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)


def owner_of(path: str) -> int | None:
    """Return the user who owns a file or socket; None where it cannot be seen."""
    try:
        return os.stat(path).st_uid
    except OSError:
        return None

"""Which program replies on this host, by UDP and Unix sockets, so that no other user's is believed."""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress

from ntpaudit.core.observation import Unavailable
from ntpaudit.probes.daemons.kind import Process

_TABLES = ("udp", "udp6")
_ANY_ADDRESS = ("0" * 8, "0" * 32)


def why_not_believed(process: Process, asking: socket.socket) -> Unavailable | None:
    """Return why another program than `process` may reply to our UDP socket, connected to a loopback address.

    All sockets that can receive our query must belong to the user of the process, or to root, as a daemon's do that
    opens them before it becomes that user. They must be in our network namespace. Where PrivateUsers=yes maps all
    other users to one, only root and holders of CAP_NET_BIND_SERVICE can open a port below
    net.ipv4.ip_unprivileged_port_start, and only they can start a process in a service of systemd.
    """
    address, port = asking.getpeername()[:2]
    places = {f"{one}:{port:04X}" for one in (_table_address(asking.family, address), *_ANY_ADDRESS)}
    users, is_its_network = set[int](), False
    for words in _udp_sockets(process.pid):
        is_its_network = is_its_network or int(words[9]) == os.fstat(asking.fileno()).st_ino
        if words[1] in places:
            users.add(int(words[7]))
    if not is_its_network:
        return Unavailable("it runs in another network namespace", "run ntpaudit in that network namespace")
    if not users:
        return Unavailable(f"no program has UDP port {port} of {address}")
    if process.uid is None or users - {0, process.uid}:
        other = f"stop the program that `ss -lunp sport = :{port}` shows, or move it to another port"
        return Unavailable(f"another user's program has UDP port {port}", other)
    if not _is_mapped(process.uid) and (process.unit is None or port >= first_unprivileged_port()):
        reason = f"whether UDP port {port} belongs to it cannot be seen from a service with PrivateUsers=yes"
        return Unavailable(reason, f"start it as a service, and set net.ipv4.ip_unprivileged_port_start above {port}")
    return None


def _udp_sockets(pid: int) -> Iterator[list[str]]:
    """Yield the UDP sockets of a process's network namespace, as words: address 1, user 7, inode 9 (proc_net_udp)."""
    for table in _TABLES:
        with suppress(OSError, ValueError), open(f"/proc/{pid}/net/{table}", encoding="ascii") as lines:
            yield from (words for line in list(lines)[1:] if len(words := line.split()) > 9)


def _table_address(family: int, address: str) -> str:
    """Return an address as the tables write it: in words of 32 bits, each in the byte order of this machine."""
    octets = socket.inet_pton(family, address)
    return "".join(f"{int.from_bytes(octets[at : at + 4], sys.byteorder):08X}" for at in range(0, len(octets), 4))


def _is_mapped(user: int) -> bool:
    """Whether our user namespace maps this user; all that it does not map have the same number (user_namespaces(7))."""
    with suppress(OSError, ValueError), open("/proc/self/uid_map", encoding="ascii") as ranges:
        return any(int(first) <= user < int(first) + int(count) for first, _, count in map(str.split, ranges))
    return True  # a kernel without user namespaces


def first_unprivileged_port() -> int:
    """Return the first port that any user can open (ip(7))."""
    with suppress(OSError, ValueError), open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        return int(file.read())
    return 1024


def is_listening(process: Process, connected: socket.socket) -> bool:
    """Whether a process, or root, listens at the other end of a Unix stream socket (SO_PEERCRED, unix(7))."""
    pid, user, _ = struct.unpack("iii", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(pid == process.pid or user == 0)


def owner_of(path: str) -> int | None:
    """Return the user who owns a file or socket; None where it cannot be seen."""
    try:
        return os.stat(path).st_uid
    except OSError:
        return None

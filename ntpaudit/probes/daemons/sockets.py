"""Which program replies on this host, by UDP and Unix sockets, so that no other user's is believed."""

import os
import socket
import stat
import struct
import sys
from contextlib import suppress

from ntpaudit.core.observation import Unavailable
from ntpaudit.probes.daemons.kind import Process

_TABLES = ("udp", "udp6")
_ANY_ADDRESS = ("0" * 8, "0" * 32)


class UdpPort:
    """A UDP port of loopback where a process should reply. The kernel's tables are read once: they can be long."""

    def __init__(self, process: Process, port: int) -> None:
        self._process = process
        self._port = port
        self._sockets: list[list[str]] = []
        self._is_our_network = False

    def why_not_believed(self, asking: socket.socket) -> Unavailable | None:
        """Return why another program than the process may reply to our socket, connected to an address of this port.

        All sockets that can receive our query must belong to the user of the process, or to root, as a daemon's do that
        opens them before it becomes that user. They must be in our network namespace. Where PrivateUsers=yes maps all
        other users to one, only root and holders of CAP_NET_BIND_SERVICE can open a port below
        net.ipv4.ip_unprivileged_port_start, and only they can start a process in a service of systemd.
        """
        process, port, address = self._process, self._port, asking.getpeername()[0]
        if not self._is_our_network:
            self._read_tables(os.fstat(asking.fileno()).st_ino)
        if not self._is_our_network:
            return Unavailable("it runs in another network namespace", "run ntpaudit in that network namespace")
        places = [f"{one}:{port:04X}" for one in (_table_address(asking.family, address), *_ANY_ADDRESS)]
        users = {int(words[7]) for words in self._sockets if words[1] in places}
        if not users:
            return Unavailable(f"no program has UDP port {port} of {address}")
        if process.uid is None or users - {0, process.uid}:
            other = f"stop the program that `ss -lunp sport = :{port}` shows, or move it to another port"
            return Unavailable(f"another user's program has UDP port {port}", other)
        if not _is_mapped(process.uid) and (process.unit is None or port >= first_unprivileged_port()):
            reason = f"whether UDP port {port} belongs to it cannot be seen from a service with PrivateUsers=yes"
            setting = f"start it as a service, and set net.ipv4.ip_unprivileged_port_start above {port}"
            return Unavailable(reason, setting)
        return self._why_not_its_own({words[9] for words in self._sockets if words[1] in places})

    def _why_not_its_own(self, inodes: set[str]) -> Unavailable | None:
        """Return why another time daemon of the same name may reply: its sockets can be of the same user."""
        if not self._process.twins:
            return None
        descriptors = f"/proc/{self._process.pid}/fd"
        try:
            own = {os.readlink(f"{descriptors}/{one}") for one in os.listdir(descriptors)}
        except OSError:  # only root and its own user see them
            twins = ", ".join(map(str, self._process.twins))
            reason = f"whether UDP port {self._port} belongs to it or to pid {twins} cannot be seen"
            return Unavailable(reason, "run ntpaudit as root")
        if {f"socket:[{inode}]" for inode in inodes} <= own:
            return None
        return Unavailable(f"another process has UDP port {self._port}")

    def _read_tables(self, ours: int) -> None:
        """Read the UDP sockets of the process's network namespace, as words: address 1, user 7, inode 9 (proc_net_udp).

        Our own socket is among them, by its inode, if that is our namespace.
        """
        at_port, inode = f":{self._port:04X} ", f" {ours} "
        for table in _TABLES:
            with (
                suppress(OSError, ValueError),
                open(f"/proc/{self._process.pid}/net/{table}", encoding="ascii") as lines,
            ):
                near = [line.split() for line in lines if at_port in line or inode in line]
                self._sockets += [words for words in near if len(words) > 9]
        self._is_our_network = any(words[9] == str(ours) for words in self._sockets)


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


def socket_owner(path: str) -> int | None:
    """Return the user who owns a Unix socket; None if there is none, or only a link to one."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_uid if stat.S_ISSOCK(found.st_mode) else None

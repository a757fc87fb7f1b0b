"""Kernel timestamps of UDP datagrams on Linux, sent and received (requirements T3 to T6).

Python has no names for these constants before 3.14, so the kernel's own numbers (asm-generic/socket.h,
linux/net_tstamp.h, linux/errqueue.h) are written out here. Where the kernel refuses them, callers go on with
timestamps of their own.
"""

import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from ntpaudit.core.units import NS_PER_S

SO_TIMESTAMPING_OLD = 37
SO_TIMESTAMPING_NEW = 65  # the same with 64-bit seconds on every architecture: right past 2038 (requirement T3)
_FLAGS = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 11  # TX_SOFTWARE, RX_SOFTWARE, SOFTWARE, OPT_TSONLY
_NEW_TIMESPECS = struct.Struct("=6q")
_OLD_TIMESPECS = struct.Struct("@6l")
_ANCILLARY_SIZE = 512


def request_stamps(sock: socket.socket) -> bool:
    """Ask the kernel to stamp what this socket sends and receives; False where it will not."""
    for option in (SO_TIMESTAMPING_NEW, SO_TIMESTAMPING_OLD):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, _FLAGS)
        except OSError as error:
            if error.errno not in (errno.ENOPROTOOPT, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):
                raise
        else:
            return True
    return False


def stamp_of(ancillary: Iterable[tuple[int, int, bytes]]) -> int | None:
    """Return the kernel's software timestamp among a datagram's control messages, ns since 1970; None without one."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind in (SO_TIMESTAMPING_NEW, SO_TIMESTAMPING_OLD):
            layout = _NEW_TIMESPECS if kind == SO_TIMESTAMPING_NEW else _OLD_TIMESPECS
            if len(data) >= layout.size:
                seconds, ns = layout.unpack_from(data)[:2]
                if seconds:
                    return int(seconds) * NS_PER_S + int(ns)
    return None


def receive(sock: socket.socket, size: int) -> tuple[bytes, int | None, bool, tuple[str, int]]:
    """Receive a datagram: octets, kernel timestamp, whether it was cut, sender. Raises as `recvmsg` does (T8)."""
    data, ancillary, flags, sender = sock.recvmsg(size, _ANCILLARY_SIZE)
    return data, stamp_of(ancillary), bool(flags & socket.MSG_TRUNC), sender[:2]


def sent_stamp(sock: socket.socket) -> int | None:
    """Take the kernel's timestamp of the sent datagram from the error queue, ns since 1970 or None (requirement T4)."""
    try:
        _, ancillary, _, _ = sock.recvmsg(0, _ANCILLARY_SIZE, socket.MSG_ERRQUEUE)
    except OSError:
        return None  # nothing queued yet, or an ICMP error that the next `recvmsg` reports
    return stamp_of(ancillary)


@contextmanager
def stamping_enabled() -> Iterator[None]:
    """Hold receive timestamps enabled in the kernel, which turns them on a little after the first socket asks (T5)."""
    with ExitStack() as held:
        for family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):  # a sandbox may forbid one of the families, and this is a help, no need
                request_stamps(held.enter_context(socket.socket(family, socket.SOCK_DGRAM)))
                break
        yield

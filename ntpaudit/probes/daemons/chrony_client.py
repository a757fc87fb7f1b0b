"""Ask a running chronyd: through its Unix socket, through ntpaudit-chrony.socket, or by UDP.

Only the Unix socket reports how servers are authenticated. So it always comes first: if each audit used another way,
findings about that would be raised and cleared. The socket is open to root and to chronyd's own user, as whom
ntpaudit-chrony.service runs.
"""

import ctypes
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

from ntpaudit.core.observation import Claim, Unavailable
from ntpaudit.probes.daemons.chrony_protocol import (
    LONGEST,
    MAX_SOURCES,
    Ask,
    Fields,
    MalformedReplyError,
    Question,
    read_claim,
    read_head,
    read_reply,
    request,
)
from ntpaudit.probes.daemons.kind import CLAIM_WITHIN_S, Process
from ntpaudit.probes.daemons.sockets import UdpPort, first_unprivileged_port, socket_owner
from ntpaudit.probes.helper import ask_helper

SERVICE = "/run/ntpaudit-chrony"
"""The socket of ntpaudit-chrony.service."""

UNIX_SOCKETS = ("/run/chrony/chronyd.sock", "/var/run/chrony/chronyd.sock")
"""chronyd's default, and that of old versions; ntpaudit-chrony.service asks no other."""

_UNIT = "/usr/lib/systemd/system/ntpaudit-chrony.socket"
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_PAIR = struct.Struct("!2H")  # before each answer of the service: how long the data of the request is, and the reply
_PID = struct.Struct("!I")  # before all answers of the service: of the process that replied to it
_LONGEST_ANSWER = _PID.size + (3 * MAX_SOURCES + 2) * (_PAIR.size + 20 + LONGEST)
_CREDENTIALS = struct.Struct("3i")  # SCM_CREDENTIALS: the PID, the user and the group of the sender (unix(7))


class CommandSettings(NamedTuple):
    """Where a chronyd takes commands: a UDP port, 0 for none, on two addresses, and a Unix socket, "/" for none."""

    port: int = 323
    path: str = UNIX_SOCKETS[0]
    ipv4: str = "127.0.0.1"
    ipv6: str = "::1"


class _ClosedError(Exception):
    """One of the ways to ask is closed."""

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.remedy = remedy


def claim(
    process: Process, settings: CommandSettings, with_sources: bool, service: str = SERVICE
) -> Claim | Unavailable:
    """Return the claim of a chronyd, or why it cannot be asked."""
    deadline = time.monotonic() + CLAIM_WITHIN_S
    reasons, remedies = [], []
    ways = {
        "its Unix socket": partial(_unix_socket, process, settings.path),
        "ntpaudit-chrony.socket": partial(_service, process, settings.path, service),
        f"UDP port {settings.port}": partial(_udp, process, settings),
    }
    for number, (name, way) in enumerate(ways.items(), 1):
        now = time.monotonic()
        # A way without a reply leaves time for the next one.
        until = deadline if number == len(ways) else now + (deadline - now) / 2
        try:
            with way(until) as ask:
                return read_claim(ask, with_sources, time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns())
        except _ClosedError as error:
            reasons.append(f"{name}: {error}")
            remedies += [error.remedy] if error.remedy else []
        except TimeoutError:  # chronyd itself is silent
            reasons.append(f"{name}: no reply")
            remedies[:0] = [f"systemctl restart {process.unit}"] if process.unit else []
        except (OSError, MalformedReplyError) as error:
            reasons.append(f"{name}: {getattr(error, 'strerror', None) or error}")
    return Unavailable(f"it cannot be asked; {'; '.join(reasons)}", remedies[0] if remedies else None)


@contextmanager
def _unix_socket(process: Process, path: str, until: float) -> Iterator[Ask]:
    """Ask as chronyc does, from a socket beside chronyd's own.

    chronyd must be able to write to it, so it is made as chronyd's user. Root must not use chmod for that: this user
    could put a link to another file in its place.
    """
    folder = os.path.dirname(path)
    if path == "/":
        raise _ClosedError("closed (`bindcmdaddress /`)", "remove `bindcmdaddress /` from its configuration")
    if not os.access(folder, os.W_OK | os.X_OK) or process.uid is None:
        raise _ClosedError("open to root and its own user only")
    if process.root and not os.path.samefile(process.root + path, path):
        raise _ClosedError("in another mount namespace")
    if (owner := socket_owner(path)) is None:
        raise _ClosedError(f"there is no socket {path}")
    if owner not in (0, process.uid):
        raise _ClosedError("another user made it", f"rm {path}, and restart chronyd")
    ours = f"{folder}/ntpaudit.{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # from here on each datagram has them
        try:
            with _files_made_by(process.uid):
                with suppress(FileNotFoundError):
                    os.unlink(ours)
                asking.bind(ours)
            asking.connect(path)
            yield _asker(asking, until, process.pid)
        finally:
            with suppress(OSError):
                os.unlink(ours)


@contextmanager
def _files_made_by(user: int) -> Iterator[None]:
    """Let this thread use files as another user, if we are root; else it changes nothing (setfsuid(2))."""
    libc = ctypes.CDLL(None)
    libc.setfsuid(user)
    try:
        yield
    finally:
        libc.setfsuid(os.geteuid())


@contextmanager
def _udp(process: Process, settings: CommandSettings, until: float) -> Iterator[Ask]:
    """Ask from this host itself.

    Only root can open the port of chronyd, below net.ipv4.ip_unprivileged_port_start. Any user can share another one:
    chronyd sets SO_REUSEADDR, and the socket that was opened last receives the requests.
    """
    if not settings.port:
        raise _ClosedError("closed (`cmdport 0`)", "remove `cmdport 0` from its configuration")
    if settings.port >= first_unprivileged_port():
        raise _ClosedError("any user can open it", "remove `cmdport` from its configuration")
    reasons, port = [], UdpPort(process, settings.port)
    for address in (settings.ipv4, settings.ipv6):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as asking:
            try:
                asking.connect((_LOOPBACK.get(address, address), settings.port))
            except OSError as error:  # a host without IPv6
                reasons.append(Unavailable(f"{address}: {error.strerror}"))
                continue
            if (reason := port.why_not_believed(asking)) is None:
                yield _asker(asking, until)
                return
            reasons.append(reason)
    raise _ClosedError(*reasons[0])


def _left(until: float) -> float:
    """Return the time to wait. Raises TimeoutError where none is left: a timeout of 0 would be another error."""
    if (left := until - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _asker(asking: socket.socket, until: float, pid: int | None = None) -> Ask:
    """Return how to ask; with a PID only the replies of that process count, which has a Unix socket."""
    refused = set[int]()

    def ask(question: Question, data: bytes) -> Fields | None:
        if question.command in refused:
            return None
        sequence = int.from_bytes(os.urandom(4))
        asking.send(request(question, sequence, data))
        while True:
            asking.settimeout(_left(until))
            reply, credentials, _, _ = asking.recvmsg(LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
            if pid is not None and (sender := _CREDENTIALS.unpack(credentials[0][2])[0]) != pid:
                raise _ClosedError(_replied(sender), "give each chronyd a `bindcmdaddress` of its own")
            head = read_head(reply)
            if head.sequence == sequence:
                break
        if head.is_never_answered:
            refused.add(question.command)
        return read_reply(reply, question)

    return ask


@contextmanager
def _service(process: Process, path: str, service: str, until: float) -> Iterator[Ask]:
    """Ask ntpaudit-chrony.service, which sends all answers at once: each with the data of its request before it."""
    if path not in UNIX_SOCKETS:
        raise _ClosedError(f"it asks only {UNIX_SOCKETS[0]}")
    try:
        answer = ask_helper(service, _left(until), _LONGEST_ANSWER)
    except FileNotFoundError:
        start = "systemctl enable --now ntpaudit-chrony.socket" if os.path.exists(_UNIT) else "run ntpaudit as root"
        raise _ClosedError("not started", start) from None
    except TimeoutError:
        raise _ClosedError("no reply", "systemctl status ntpaudit-chrony.service") from None
    if not answer:
        raise _ClosedError("chronyd did not reply to it", process.unit and f"systemctl restart {process.unit}")
    (sender,) = _PID.unpack_from(answer.ljust(_PID.size, b"\0"))
    if sender != process.pid:  # its Unix socket may be another one, by a configuration that we could not read
        raise _ClosedError(_replied(sender), "run ntpaudit as root")
    replies = read_service(answer)

    def ask(question: Question, data: bytes) -> Fields | None:
        reply = replies.get((question.command, data))
        return None if reply is None else read_reply(reply, question)

    yield ask


def _replied(pid: int) -> str:
    return f"another process replied (pid {pid})"


def read_service(answer: bytes) -> dict[tuple[int, bytes], bytes]:
    """Return the replies in an answer of ntpaudit-chrony.service, by command and data of the request."""
    replies: dict[tuple[int, bytes], bytes] = {}
    at = _PID.size
    while at + _PAIR.size <= len(answer):
        asked, replied = _PAIR.unpack_from(answer, at)
        data, at = answer[at + _PAIR.size :][:asked], at + _PAIR.size + asked + replied
        reply = answer[at - replied : at]
        replies[read_head(reply).command, data] = reply
    return replies

"""One exchange with a Roughtime server over UDP (RFC 10049 §5), and the signatures of its replies."""

import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

from ntpaudit.core import roughtime
from ntpaudit.core.observation import SourceFailure
from ntpaudit.errors import AnchorError
from ntpaudit.probes.resolve import Endpoint, Resolution

TIMEOUT_S = 5.0
RETRY_S, RETRY_BASE = 1.0, 1.5  # §5: a request may be sent again after 1 s, then after 1.5 times as long
_LONGEST = 65_535  # octets of a datagram
_KEY = "evidence.roughtime"


class Exchange(NamedTuple):
    """A request, its valid reply, both as whole packets, and the time that the reply proves."""

    request: bytes
    reply: bytes
    time: roughtime.SignedTime


def is_signed(key: bytes, signature: bytes, text: bytes) -> bool:
    """Whether an Ed25519 key made this signature of a text; false for octets that are no key or no signature."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def exchange(host: str, port: int, key: bytes, nonce: bytes, timeout_s: float = TIMEOUT_S) -> Exchange:
    """Let the server with this long-term key sign the time for a nonce. AnchorError without a valid reply in time.

    Invalid replies are ignored: servers send some on purpose, and others can forge them.
    """
    where = f"{host}:{port}"
    until = time.monotonic() + timeout_s
    endpoints = _resolve(host, port, timeout_s)
    request = roughtime.build_request(nonce, key)
    problem = "no reply"
    for reply in _replies(endpoints, request, until):
        found = roughtime.read_reply(reply, request, key, is_signed)
        if isinstance(found, roughtime.SignedTime):
            return Exchange(request, reply, found)
        problem = f"no valid reply: {found.reason}"
    raise AnchorError(
        f"{where}: {problem} in {timeout_s:g} s",
        f"check address and key of the server in {_KEY}, and that UDP to port {port} can pass",
    )


def _resolve(host: str, port: int, timeout_s: float) -> tuple[Endpoint, ...]:
    resolution = Resolution([(host, port)])
    resolution.wait(timeout_s)
    found = resolution.answer(host, port)
    if isinstance(found, SourceFailure):
        raise AnchorError(f"{host}: the name cannot be resolved: {found.detail}", f"check {_KEY}, and the resolver")
    return found


def _replies(endpoints: Sequence[Endpoint], request: bytes, until: float) -> Iterator[bytes]:
    """Send the request, to the next address at each retry, and yield what arrives from any of them in time."""
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        pause, next_s = RETRY_S, time.monotonic()
        while (now := time.monotonic()) < until:
            if now >= next_s:
                endpoint = endpoints[len(sockets) % len(endpoints)]
                sockets.append(stack.enter_context(socket.socket(endpoint.family, socket.SOCK_DGRAM)))
                sockets[-1].setblocking(False)
                with suppress(OSError):  # no route: the next address may have one
                    sockets[-1].connect(endpoint.sockaddr)
                    sockets[-1].send(request)
                next_s, pause = now + pause, pause * RETRY_BASE
            for ready in select.select(sockets, [], [], max(0.0, min(next_s, until) - now))[0]:
                with suppress(OSError):  # the port is closed now
                    yield ready.recv(_LONGEST)

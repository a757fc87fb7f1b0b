"""A Roughtime server (RFC 10049) whose replies can be wrong in any way; it shares the message format with the program.

The format itself is compared with the examples of the draft and with another implementation (`roughenough`).
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ntpaudit.core import roughtime as rt


class Signer(NamedTuple):
    """A server's keys, the time it claims, and how it signs. The defaults are those of an honest server."""

    long_term: Ed25519PrivateKey
    online: Ed25519PrivateKey
    midpoint_s: int = 1_796_000_000
    radius_s: int = 3
    version: int = 1
    versions: tuple[int, ...] = rt.VERSIONS
    spelling: int = 0
    valid_from_s: int = 1_795_000_000
    valid_until_s: int = 1_797_000_000

    @property
    def key(self) -> bytes:
        """The long-term public key."""
        return self.long_term.public_key().public_bytes_raw()

    def reply(self, request: bytes, others: Sequence[bytes] = (), index: int = 0) -> bytes:
        """Return the reply to a request that was signed together with others, at its place among these."""
        return rt.pack(rt.encode(self.fields(request, others, index)))

    def fields(self, request: bytes, others: Sequence[bytes] = (), index: int = 0) -> dict[bytes, bytes]:
        """Return the fields of such a reply, to be changed before they are encoded."""
        batch = [*others[:index], request, *others[index:]]
        root, path = _tree(batch, index)
        signed = rt.encode(
            {
                rt.VER: _u32(self.version),
                rt.RADI: _u32(self.radius_s),
                rt.MIDP: _u64(self.midpoint_s),
                rt.VERS: b"".join(map(_u32, self.versions)),
                rt.ROOT: root,
            }
        )
        delegation = rt.encode(
            {
                rt.PUBK: self.online.public_key().public_bytes_raw(),
                rt.MINT: _u64(self.valid_from_s),
                rt.MAXT: _u64(self.valid_until_s),
            }
        )
        certificate = {rt.SIG: self.long_term.sign(rt.DELEGATION[self.spelling] + delegation), rt.DELE: delegation}
        return {
            rt.SIG: self.online.sign(rt.RESPONSE[self.spelling] + signed),
            rt.NONC: rt.nonce_in(request) or b"",
            rt.TYPE: _u32(1),
            rt.PATH: path,
            rt.SREP: signed,
            rt.CERT: rt.encode(certificate),
            rt.INDX: _u32(index),
        }


def new_signer(seed: int = 1) -> Signer:
    """Return a server's keys; the same ones for the same seed below 128."""
    return Signer(
        Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32),
        Ed25519PrivateKey.from_private_bytes(bytes([seed + 128]) * 32),
    )


def honest(signer: Signer) -> Callable[[bytes], list[bytes]]:
    """Reply to each request with the machine's time."""

    def replies(request: bytes) -> list[bytes]:
        now = round(time.time())
        return [signer._replace(midpoint_s=now, valid_from_s=now - 3600, valid_until_s=now + 3600).reply(request)]

    return replies


@contextmanager
def serving(replies: Callable[[bytes], list[bytes]]) -> Iterator[tuple[str, list[bytes]]]:
    """Send these datagrams for each request; yield the address, HOST:PORT, and the requests that have arrived."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        requests: list[bytes] = []
        thread = threading.Thread(target=_serve, args=(bound, replies, requests))
        thread.start()
        try:
            yield f"127.0.0.1:{bound.getsockname()[1]}", requests
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"", bound.getsockname())
            thread.join()


def _serve(bound: socket.socket, replies: Callable[[bytes], list[bytes]], requests: list[bytes]) -> None:
    while True:
        request, client = bound.recvfrom(4096)
        if not request:
            return
        requests.append(request)
        for reply in replies(request):
            bound.sendto(reply, client)


def changed(fields: Mapping[bytes, bytes], **new: bytes | None) -> bytes:
    """Return a packet with some fields replaced, or left out where None; a keyword is the tag."""
    names = {tag.decode().rstrip("\0"): tag for tag in fields}
    found = {**fields, **{names.get(name, name.encode()): value for name, value in new.items()}}
    return rt.pack(rt.encode({tag: value for tag, value in found.items() if value is not None}))


def _tree(batch: Sequence[bytes], index: int) -> tuple[bytes, bytes]:
    """Return the root of a batch, and the path from one of its requests; a last node is paired with itself."""
    level, path = [rt.digest(b"\0" + request) for request in batch], b""
    while len(level) > 1:
        level += level[-1:] * (len(level) % 2)
        path += level[index ^ 1]
        level = [rt.digest(b"\1" + level[at] + level[at + 1]) for at in range(0, len(level), 2)]
        index >>= 1
    return level[0], path


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")

"""Let others sign the root of an anchor, over the network; and verify what they signed, which needs no network."""

import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ntpaudit.config.values import RoughtimeAddress
from ntpaudit.core import anchor as anchors
from ntpaudit.core.anchor import Anchor, Attested, Check, RoughtimeReply, StampReply
from ntpaudit.errors import AnchorError
from ntpaudit.net import roughtime, timestamps

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_SALT_OCTETS = 32


def sign(
    anchor: Anchor, urls: Sequence[str], roots: "Sequence[Certificate]", servers: Sequence[RoughtimeAddress]
) -> tuple[Anchor, tuple[AnchorError, ...]]:
    """Return the anchor with all signatures that could be had, and why others could not.

    The authorities at `urls` are asked first, then the servers, each after the reply of the one before it.
    """
    timestamps.require_library()
    errors = []
    for url in urls:
        try:
            reply = timestamps.stamp(url, anchor.root, roots)
        except AnchorError as error:
            errors.append(error)
        else:
            anchor = anchor._replace(stamps=(*anchor.stamps, StampReply(url, reply)))
    for host, port, key in servers:
        salt = secrets.token_bytes(_SALT_OCTETS)
        try:
            got = roughtime.exchange(host, port, key, anchors.next_nonce(anchor, salt))
        except AnchorError as error:
            errors.append(error)
        else:
            signed = RoughtimeReply(f"{host}:{port}", key, salt, got.request, got.reply)
            anchor = anchor._replace(roughtime=(*anchor.roughtime, signed))
    return anchor, tuple(errors)


def verify(anchor: Anchor, roots: "Sequence[Certificate]", servers: Sequence[RoughtimeAddress]) -> Iterator[Check]:
    """Yield all checks of an anchor, with these certificates and servers trusted."""
    timestamps.require_library()

    def check_stamp(reply: bytes, data: bytes) -> Attested | str:
        try:
            found = timestamps.verify(reply, data, roots)
        except AnchorError as error:
            return str(error)
        return Attested(found.authority, found.latest_s)

    names = {key: f"{host}:{port}" for host, port, key in servers}
    yield from anchors.verify(anchor, names, roughtime.is_signed, check_stamp)

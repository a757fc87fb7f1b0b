"""Anchors: the heads of many chains in one Merkle tree, whose root others have signed at a known time (CH4).

A file with the schema ntpaudit.anchor/1 has all heads; an excerpt has some of them, each with its proof. Either can be
verified alone. It proves that the rows which lead to a head existed before the signature, and nothing about what is
not in it.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from json import JSONEncoder
from typing import Any, NamedTuple

from ntpaudit.core import merkle, roughtime
from ntpaudit.core.chain import HEAD_BITS, Delivered
from ntpaudit.core.units import plural

SCHEMA = "ntpaudit.anchor/1"
HEAD_DIGITS, SHORT_HEAD_DIGITS = 64, 14
"""How many hexadecimal digits a head has; and one of which a database of numbers alone has the first 53 bits."""

DIGITS = frozenset("0123456789abcdef")
MAX_SEQUENCE = 2**53  # beyond it, JSON's numbers are not the same in all languages

_SPARE_BITS = 4 * SHORT_HEAD_DIGITS - HEAD_BITS

_entry = JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class Head(NamedTuple):
    """The newest entry of a host's chain; `machine_id` is None where it is not known.

    `head` is the hash in hexadecimal digits; or 14 digits, which are its first 53 bits and three zero bits.
    """

    host: str
    machine_id: str | None
    sequence: int
    head: str

    @property
    def delivered(self) -> Delivered:
        """The head as one that another system has, to be compared with a chain."""
        if len(self.head) == HEAD_DIGITS:
            return Delivered(self.sequence, 0, bytes.fromhex(self.head), 0)
        return Delivered(self.sequence, 0, None, int(self.head, 16) >> _SPARE_BITS)

    @property
    def entry(self) -> bytes:
        """The octets in the tree: these four keys in this order, as JSON without spaces, non-ASCII escaped."""
        return _entry(self._asdict()).encode()


class Proof(NamedTuple):
    """The place of a head in the tree, and the hashes that lead from it to the root."""

    place: int
    path: tuple[bytes, ...]


class StampReply(NamedTuple):
    """A reply of RFC 3161 in DER for the root as data, and the URL that it came from."""

    url: str
    reply: bytes


class RoughtimeReply(NamedTuple):
    """An exchange of RFC 10049 in whole packets. Its random value is that of `roughtime.blind_for(root, salt)`."""

    server: str
    key: bytes
    salt: bytes
    request: bytes
    reply: bytes


class Anchor(NamedTuple):
    """A tree of `size` heads, and who has signed its root. `made` is the time of the machine that made it.

    `heads` are all, in the order of the tree, and `proofs` is None; or there is a proof for each of some.
    """

    made: str
    size: int
    root: bytes
    heads: tuple[Head, ...]
    proofs: tuple[Proof, ...] | None = None
    stamps: tuple[StampReply, ...] = ()
    roughtime: tuple[RoughtimeReply, ...] = ()


class InvalidAnchor(NamedTuple):
    """A document that is no anchor, and why."""

    reason: str


class Attested(NamedTuple):
    """Who signed the root, and before which moment it then existed, in seconds since 1970 (UTC)."""

    authority: str
    before_s: float


class Check(NamedTuple):
    """One thing that was verified: `problem` is None if it holds; then a signature has what it attests."""

    subject: str
    problem: str | None = None
    attested: Attested | None = None


CheckStamp = Callable[[bytes, bytes], Attested | str]
"""What a reply of RFC 3161 attests for some data, or the reason why it is not valid."""


class _MalformedError(Exception):
    """A document breaks a rule of the schema; the text is the reason of the InvalidAnchor."""


def new_anchor(heads: Iterable[Head], made: str) -> Anchor:
    """Return the anchor of these heads, whose root has no signature yet. Their order does not matter."""
    ordered = tuple(sorted(set(heads), key=lambda head: head.entry))
    tree = _tree(ordered)
    return Anchor(made, tree.size, tree.root, ordered)


def excerpt(anchor: Anchor, hosts: Collection[str]) -> Anchor:
    """Return the anchor with the heads of these hosts alone, and with their proofs."""
    if anchor.proofs is None:
        tree = _tree(anchor.heads)
        members = [(head, Proof(index, tree.proof(index))) for index, head in enumerate(anchor.heads)]
    else:
        members = list(zip(anchor.heads, anchor.proofs, strict=True))
    chosen = [member for member in members if member[0].host in hosts]
    return anchor._replace(heads=tuple(head for head, _ in chosen), proofs=tuple(proof for _, proof in chosen))


def head_digits(head: bytes | None, number: int) -> str:
    """Return the digits of a head; where only its first 53 bits are known, as a number, of these."""
    return f"{number << _SPARE_BITS:0{SHORT_HEAD_DIGITS}x}" if head is None else head.hex()


def next_nonce(anchor: Anchor, salt: bytes) -> bytes:
    """Return the nonce for the next Roughtime server: bound to the root, and chained to the last reply."""
    previous = anchor.roughtime[-1].reply if anchor.roughtime else b""
    return roughtime.chained_nonce(roughtime.blind_for(anchor.root, salt), previous)


def verify(
    anchor: Anchor, names: Mapping[bytes, str], is_signed: roughtime.CheckSignature, check_stamp: CheckStamp
) -> Iterator[Check]:
    """Yield all that can be checked: the tree, each signature, and whether the signed times contradict each other.

    `names` are those of the Roughtime servers that are trusted, by their long-term keys: what a file calls a server is
    not signed.
    """
    yield _check_tree(anchor)
    if not anchor.stamps and not anchor.roughtime:
        yield Check("signatures", "the root has no signature, so it may be of any time")
    for stamp in anchor.stamps:
        found = check_stamp(stamp.reply, anchor.root)
        subject = f"time stamp of {stamp.url}"
        yield Check(subject, found) if isinstance(found, str) else Check(subject, attested=found)
    yield from _check_roughtime(anchor, names, is_signed)


def write(anchor: Anchor) -> dict[str, Any]:
    """Return the document of an anchor, for JSON."""
    heads: list[dict[str, Any]] = [head._asdict() for head in anchor.heads]
    for head, proof in zip(heads, anchor.proofs or (), strict=anchor.proofs is not None):
        head.update(index=proof.place, proof=[one.hex() for one in proof.path])
    return {
        "schema": SCHEMA,
        "made": anchor.made,
        "size": anchor.size,
        "root": anchor.root.hex(),
        "heads": heads,
        "time_stamps": [{"url": stamp.url, "reply": _text(stamp.reply)} for stamp in anchor.stamps],
        "roughtime": [
            {
                "server": one.server,
                "salt": _text(one.salt),
                "publicKey": _text(one.key),
                "request": _text(one.request),
                "response": _text(one.reply),
            }
            for one in anchor.roughtime
        ],
    }


def read(document: object) -> Anchor | InvalidAnchor:
    """Return the anchor that a document describes. What it claims is not verified."""
    try:
        return _anchor(document)
    except _MalformedError as error:
        return InvalidAnchor(str(error))


def _tree(heads: Iterable[Head]) -> merkle.Tree:
    return merkle.build([head.entry for head in heads])


def _check_tree(anchor: Anchor) -> Check:
    subject = f"tree of {plural(anchor.size, 'head')}"
    if anchor.proofs is None:
        tree = _tree(anchor.heads)
        is_right = (tree.size, tree.root) == (anchor.size, anchor.root)
        return Check(subject, None if is_right else "its heads do not lead to its root")
    for head, proof in zip(anchor.heads, anchor.proofs, strict=True):
        leaf = merkle.leaf_hash(head.entry)
        if merkle.root_of_proof(leaf, proof.place, anchor.size, proof.path) != anchor.root:
            return Check(subject, f"the proof of {head.host} does not lead to its root")
    return Check(subject)


def _check_roughtime(
    anchor: Anchor, names: Mapping[bytes, str], is_signed: roughtime.CheckSignature
) -> Iterator[Check]:
    valid: list[tuple[str, roughtime.SignedTime]] = []
    previous = b""
    for one in anchor.roughtime:
        subject = f"Roughtime of {one.server}"
        blind = roughtime.blind_for(anchor.root, one.salt)
        found = roughtime.read_reply(one.reply, one.request, one.key, is_signed)
        if one.key not in names:
            yield Check(
                subject, f"its key is not one that you trust: compare it with the server's own, {_text(one.key)}"
            )
        elif roughtime.nonce_in(one.request) != roughtime.chained_nonce(blind, previous):
            yield Check(subject, "its request is not for this root and the reply before it")
        elif isinstance(found, roughtime.InvalidReply):
            yield Check(subject, f"its reply is not valid: {found.reason}")
        else:
            valid.append((names[one.key], found))
            yield Check(subject, attested=Attested(names[one.key], found.latest_s))
        previous = one.reply
    if pair := roughtime.contradiction([time for _, time in valid]):
        earlier, later = (valid[place][0] for place in pair)
        yield Check("order of the Roughtime replies", f"{earlier} or {later} signed a wrong time")


def _text(octets: bytes) -> str:
    return b64encode(octets).decode()


def _anchor(document: object) -> Anchor:
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise _MalformedError(f"its schema is not {SCHEMA}")
    heads = _list(document, "heads")
    has_proofs = any("proof" in head for head in heads)
    return Anchor(
        _field(document, "made", str),
        _number(document, "size"),
        _hash(_field(document, "root", str)),
        tuple(map(_head, heads)),
        tuple(map(_proof, heads)) if has_proofs else None,
        tuple(StampReply(_field(one, "url", str), _octets(one, "reply")) for one in _list(document, "time_stamps")),
        tuple(map(_roughtime, _list(document, "roughtime"))),
    )


def _head(found: Mapping[str, Any]) -> Head:
    machine_id = found.get("machine_id")
    head = _field(found, "head", str)
    if not (machine_id is None or isinstance(machine_id, str)):
        raise _MalformedError("machine_id is not a text")
    if len(head) not in (HEAD_DIGITS, SHORT_HEAD_DIGITS) or not set(head) <= DIGITS:
        raise _MalformedError("head is not a hash in hexadecimal digits")
    return Head(_field(found, "host", str), machine_id, _number(found, "sequence"), head)


def _proof(found: Mapping[str, Any]) -> Proof:
    path = _field(found, "proof", list)
    if len(path) > 64 or not all(isinstance(one, str) for one in path):
        raise _MalformedError("proof is not a list of hashes")
    return Proof(_number(found, "index"), tuple(map(_hash, path)))


def _roughtime(found: Mapping[str, Any]) -> RoughtimeReply:
    octets = (_octets(found, name) for name in ("publicKey", "salt", "request", "response"))
    return RoughtimeReply(_field(found, "server", str), *octets)


def _field(found: Mapping[str, Any], name: str, kind: type) -> Any:
    value = found.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _MalformedError(f"{name} is missing, or not a {kind.__name__}")
    return value


def _number(found: Mapping[str, Any], name: str) -> int:
    value: int = _field(found, name, int)
    if not 0 <= value < MAX_SEQUENCE:
        raise _MalformedError(f"{name} is out of range")
    return value


def _list(found: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = _field(found, name, list)
    if not all(isinstance(one, dict) for one in value):
        raise _MalformedError(f"{name} is not a list of objects")
    return list(value)


def _hash(digits: str) -> bytes:
    if not (len(digits) == HEAD_DIGITS and set(digits) <= DIGITS):
        raise _MalformedError(f"{digits[:80]!r} is not a hash of {HEAD_DIGITS} hexadecimal digits")
    return bytes.fromhex(digits)


def _octets(found: Mapping[str, Any], name: str) -> bytes:
    try:
        return b64decode(_field(found, name, str), validate=True)
    except ValueError:
        raise _MalformedError(f"{name} is not base64") from None

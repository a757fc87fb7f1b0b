"""Merkle trees of RFC 9162 §2.1 over SHA-256: a root stands for all entries, and a short proof for one of them."""

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

LEAF, NODE = b"\x00", b"\x01"  # different prefixes, so that no node is taken for an entry
EMPTY_ROOT = sha256().digest()


class Tree(NamedTuple):
    """A tree, as its levels of hashes: first those of the entries, last the root alone. The tree of nothing has none.

    A node without a sibling is in the next level too. The result is that of the RFC's recursive definition.
    """

    levels: tuple[tuple[bytes, ...], ...]

    @property
    def size(self) -> int:
        """The number of entries."""
        return len(self.levels[0]) if self.levels else 0

    @property
    def root(self) -> bytes:
        """The Merkle tree hash, 32 octets (§2.1.1)."""
        return self.levels[-1][0] if self.levels else EMPTY_ROOT

    def proof(self, index: int) -> tuple[bytes, ...]:
        """Return the hashes that lead from an entry to the root (§2.1.3.1), at most log2(size) rounded up."""
        found = []
        for level in self.levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                found.append(level[sibling])
            index >>= 1
        return tuple(found)


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of one entry."""
    return sha256(LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node above two others."""
    return sha256(NODE + left + right).digest()


def build(entries: Sequence[bytes]) -> Tree:
    """Build the tree of these entries, in their order."""
    if not entries:
        return Tree(())
    levels = [tuple(leaf_hash(entry) for entry in entries)]
    while len(level := levels[-1]) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        levels.append((*(node_hash(*pair) for pair in pairs), *level[len(level) & ~1 :]))
    return Tree(tuple(levels))


def root_of_proof(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """Return the root to which a proof leads from the hash of an entry (§2.1.3.2); None if it fits no such tree."""
    if not 0 <= index < size:
        return None
    place, last, root = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return None
        if place & 1 or place == last:
            root = node_hash(sibling, root)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        place, last = place >> 1, last >> 1
    return root if last == 0 else None

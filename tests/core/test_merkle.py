"""Merkle trees: the vectors of Certificate Transparency, the RFC's recursive definition, and what proofs refuse."""

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core import merkle

# the eight entries and the roots of their first 1 to 8, from the tests of Google's certificate-transparency
ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    bytes.fromhex(text)
    for text in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]

many = st.lists(st.binary(max_size=8), min_size=1, max_size=70)


def defined(entries: Sequence[bytes]) -> bytes:
    """The Merkle tree hash as RFC 9162 §2.1.1 defines it."""
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    half = 1 << (len(entries) - 1).bit_length() - 1
    return sha256(b"\x01" + defined(entries[:half]) + defined(entries[half:])).digest()


def test_nothing_has_a_root() -> None:
    """That of RFC 9162 §2.1.1, the hash of nothing."""
    tree = merkle.build([])
    assert tree.root.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert tree.size == 0


@pytest.mark.parametrize("count", range(1, 9))
def test_roots_of_certificate_transparency(count: int) -> None:
    """The roots are those that all implementations of RFC 6962 and RFC 9162 compute."""
    assert merkle.build(ENTRIES[:count]).root == ROOTS[count - 1]


def test_a_proof_of_certificate_transparency() -> None:
    """The path of the sixth of seven entries."""
    tree = merkle.build(ENTRIES[:7])
    assert [one.hex() for one in tree.proof(5)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        merkle.leaf_hash(ENTRIES[6]).hex(),
        ROOTS[3].hex(),
    ]


@given(entries=many)
def test_the_tree_is_that_of_the_definition(entries: list[bytes]) -> None:
    """For any number of entries; and each entry has a proof that leads to the root."""
    tree = merkle.build(entries)
    assert tree.root == defined(entries)
    for index, entry in enumerate(entries):
        proof = tree.proof(index)
        assert len(proof) <= (len(entries) - 1).bit_length()
        assert merkle.root_of_proof(merkle.leaf_hash(entry), index, tree.size, proof) == tree.root


@given(entries=many, data=st.data())
def test_a_proof_is_of_one_entry_at_one_place(entries: list[bytes], data: st.DataObject) -> None:
    """Another entry, place, size or path does not lead to the root."""
    tree = merkle.build(entries)
    index = data.draw(st.integers(0, len(entries) - 1))
    leaf, proof = merkle.leaf_hash(entries[index]), tree.proof(index)
    other = data.draw(st.integers(0, len(entries) - 1).filter(lambda one: entries[one] != entries[index]) | st.none())
    if other is not None:
        assert merkle.root_of_proof(merkle.leaf_hash(entries[other]), index, tree.size, proof) != tree.root
    assert merkle.root_of_proof(leaf, index, tree.size, [*proof, tree.root]) is None
    assert merkle.root_of_proof(leaf, index, index, proof) is None
    assert merkle.root_of_proof(leaf, -1, tree.size, proof) is None
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        changed = [*proof]
        changed[place] = bytes([proof[place][0] ^ 1, *proof[place][1:]])
        assert merkle.root_of_proof(leaf, index, tree.size, changed) != tree.root
        assert merkle.root_of_proof(leaf, index, tree.size, proof[:-1]) != tree.root


@given(
    leaf=st.binary(max_size=40),
    index=st.integers(-2, 80),
    size=st.integers(-2, 80),
    proof=st.lists(st.binary(max_size=40), max_size=9),
)
def test_any_proof_is_a_root_or_none(leaf: bytes, index: int, size: int, proof: list[bytes]) -> None:
    """What others wrote makes no error."""
    root = merkle.root_of_proof(leaf, index, size, proof)
    assert root is None or 0 <= index < size


def test_ten_thousand_entries() -> None:
    """Each has a proof of 14 hashes at most, though the tree is not full."""
    entries = [str(number).encode() for number in range(10_000)]
    tree = merkle.build(entries)
    for index in range(0, 10_000, 97):
        proof = tree.proof(index)
        assert len(proof) <= 14
        assert merkle.root_of_proof(merkle.leaf_hash(entries[index]), index, 10_000, proof) == tree.root
    assert sum(len(tree.proof(index)) for index in range(10_000)) > 130_000

"""Anchors: one head's proof alone is enough; what was changed is named; any document gives a value."""

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ntpaudit.core import anchor as anchors
from ntpaudit.core import merkle, roughtime
from ntpaudit.core.anchor import Anchor, Attested, Check, Head, InvalidAnchor, RoughtimeReply, StampReply
from ntpaudit.net.roughtime import is_signed
from tests.world.roughtime_server import Signer, new_signer

MADE = "2026-11-30T20:00:00Z"
SERVERS = (new_signer(1), new_signer(2)._replace(midpoint_s=1_796_000_001))
NAMES = {server.key: f"rt{number}:5319" for number, server in enumerate(SERVERS)}

heads = st.builds(
    Head,
    st.text(max_size=9) | st.sampled_from(["web1", "db1", "\udcff"]),
    st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
    st.integers(1, 2**53 - 1),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
)


def head(number: int) -> Head:
    """Return the head of one host."""
    return Head(f"web{number}", f"{number:032x}", number, sha256(str(number).encode()).hexdigest())


HEADS = [head(number) for number in range(1, 8)]


def check_stamp(reply: bytes, data: bytes) -> Attested | str:
    """An authority whose replies are the data and a time; real ones are in tests/net."""
    return Attested("CN=Test", 1_796_000_005.0) if reply == b"stamp of " + data else "it is of other data"


def signed(anchor: Anchor, *servers: Signer) -> Anchor:
    """Let an authority and servers sign an anchor."""
    anchor = anchor._replace(stamps=(StampReply("http://tsa/", b"stamp of " + anchor.root),))
    for number, server in enumerate(servers):
        salt = bytes([number]) * 32
        request = roughtime.build_request(anchors.next_nonce(anchor, salt), server.key)
        reply = RoughtimeReply(f"rt{number}:5319", server.key, salt, request, server.reply(request))
        anchor = anchor._replace(roughtime=(*anchor.roughtime, reply))
    return anchor


ANCHOR = signed(anchors.new_anchor(HEADS, MADE), *SERVERS)


def checks(anchor: Anchor, names: dict[bytes, str] = NAMES) -> list[Check]:
    """Verify with the keys of the servers."""
    return list(anchors.verify(anchor, names, is_signed, check_stamp))


def problems(anchor: Anchor, names: dict[bytes, str] = NAMES) -> dict[str, str]:
    """Return what does not hold."""
    return {check.subject: check.problem for check in checks(anchor, names) if check.problem}


def test_the_octets_of_a_head() -> None:
    """As the documentation has them, for verifiers in other languages."""
    named = Head("wéb1", None, 7, "ab" * 32)
    assert named.entry == (b'{"head":"' + b"ab" * 32 + b'","host":"w\\u00e9b1","machine_id":null,"sequence":7}')
    assert anchors.new_anchor([named], MADE).root == sha256(b"\0" + named.entry).digest()


def test_a_signed_anchor() -> None:
    """Each signature states before when the root existed."""
    assert checks(ANCHOR) == [
        Check("tree of 7 heads"),
        Check("time stamp of http://tsa/", attested=Attested("CN=Test", 1_796_000_005.0)),
        Check("Roughtime of rt0:5319", attested=Attested("rt0:5319", 1_796_000_003)),
        Check("Roughtime of rt1:5319", attested=Attested("rt1:5319", 1_796_000_004)),
    ]


def test_the_order_and_number_of_heads_do_not_matter() -> None:
    """The same heads give the same root."""
    assert anchors.new_anchor([*reversed(HEADS), HEADS[0]], MADE) == anchors.new_anchor(HEADS, MADE)


@pytest.mark.parametrize("hosts", [["web3"], ["web1", "web7"]])
def test_an_excerpt_is_verified_alone(hosts: list[str]) -> None:
    """With the heads of these hosts and nothing else of the tree; an excerpt of it too."""
    document = json.loads(json.dumps(anchors.write(anchors.excerpt(ANCHOR, hosts))))
    found = anchors.read(document)
    assert isinstance(found, Anchor)
    assert {one.host for one in found.heads} == set(hosts)
    assert problems(found) == {}
    again = anchors.excerpt(found, hosts[:1])
    assert len(again.heads) == len(hosts[:1])
    assert problems(again) == {}


def test_the_random_values_are_those_of_a_malfeasance_report() -> None:
    """Who knows RFC 10049 alone can check that the nonces are chained."""
    entries = anchors.write(ANCHOR)["roughtime"]
    nonces = [roughtime.nonce_in(one.request) for one in ANCHOR.roughtime]
    rands = [roughtime.blind_for(ANCHOR.root, one.salt) for one in ANCHOR.roughtime]
    assert [set(one) for one in entries] == [{"server", "salt", "publicKey", "request", "response"}] * 2
    assert nonces[1] == roughtime.digest(ANCHOR.roughtime[0].reply + rands[1])
    assert len(set(rands)) == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (HEADS[2]._replace(sequence=4), "its heads do not lead to its root"),
        (HEADS[2]._replace(head="0" * 64), "its heads do not lead to its root"),
        (HEADS[2]._replace(host="web9"), "its heads do not lead to its root"),
        (HEADS[2]._replace(machine_id=None), "its heads do not lead to its root"),
    ],
)
def test_a_changed_head(changed: Head, said: str) -> None:
    """In the whole anchor, and in an excerpt."""
    whole = ANCHOR._replace(heads=tuple(changed if one == HEADS[2] else one for one in ANCHOR.heads))
    assert problems(whole) == {"tree of 7 heads": said}
    part = anchors.excerpt(ANCHOR, ["web3"])._replace(heads=(changed,))
    assert problems(part) == {"tree of 7 heads": f"the proof of {changed.host} does not lead to its root"}


def test_a_head_less_or_more() -> None:
    """The root is of exactly these."""
    for heads in (ANCHOR.heads[:-1], (*ANCHOR.heads, head(8))):
        assert "tree of 7 heads" in problems(ANCHOR._replace(heads=heads))
    assert "tree of 8 heads" in problems(ANCHOR._replace(size=8))


def test_another_tree_has_other_signatures() -> None:
    """Those of one root say nothing about another: the whole history rewritten, with new heads and a new tree."""
    other = anchors.new_anchor([*HEADS[1:], head(8)], MADE)
    forged = other._replace(stamps=ANCHOR.stamps, roughtime=ANCHOR.roughtime)
    not_this = "its request is not for this root and the reply before it"
    assert problems(forged) == {
        "time stamp of http://tsa/": "it is of other data",
        "Roughtime of rt0:5319": not_this,
        "Roughtime of rt1:5319": not_this,
    }


def test_without_signatures() -> None:
    """Then it proves nothing about a time."""
    assert problems(anchors.new_anchor(HEADS, MADE)) == {
        "signatures": "the root has no signature, so it may be of any time"
    }


def test_a_server_that_is_not_trusted() -> None:
    """Its key is named; the replies after it are still checked."""
    assert [*problems(ANCHOR, {SERVERS[1].key: "rt1:5319"})] == ["Roughtime of rt0:5319"]
    assert "is not one that you trust" in problems(ANCHOR, {SERVERS[1].key: "rt1:5319"})["Roughtime of rt0:5319"]


def test_replies_in_another_order() -> None:
    """Each request was made after the reply before it."""
    turned = ANCHOR._replace(roughtime=ANCHOR.roughtime[::-1])
    assert [*problems(turned)] == ["Roughtime of rt1:5319", "Roughtime of rt0:5319"]


def test_servers_that_contradict_each_other() -> None:
    """Both replies are valid, and one of them is wrong."""
    anchor = signed(anchors.new_anchor(HEADS, MADE), SERVERS[0], SERVERS[1]._replace(midpoint_s=1_795_999_993))
    assert problems(anchor) == {"order of the Roughtime replies": "rt0:5319 or rt1:5319 signed a wrong time"}


def test_a_reply_that_is_not_valid() -> None:
    """Its reason is named."""
    cut = ANCHOR.roughtime[1]._replace(reply=ANCHOR.roughtime[1].reply[:-4])
    said = problems(ANCHOR._replace(roughtime=(ANCHOR.roughtime[0], cut)))
    assert said == {"Roughtime of rt1:5319": "its reply is not valid: it is cut, or no Roughtime packet"}


@given(found=st.lists(heads, max_size=20), data=st.data())
def test_any_heads(found: list[Head], data: st.DataObject) -> None:
    """Each is proved by its excerpt, and documents are read as they were written."""
    anchor = signed(anchors.new_anchor(found, MADE), *SERVERS[:1])
    document = json.loads(json.dumps(anchors.write(anchor)))
    assert anchors.read(document) == anchor
    if found:
        host = data.draw(st.sampled_from(found)).host
        part = anchors.excerpt(anchor, [host])
        assert anchors.read(json.loads(json.dumps(anchors.write(part)))) == part
        assert problems(part) == {}
        assert len(part.heads) == len({one for one in found if one.host == host})


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each value in a document."""
    found = [path]
    if isinstance(document, dict | list):
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            found += places(value, (*path, key))
    return found


DOCUMENTS = [anchors.write(ANCHOR), anchors.write(anchors.excerpt(ANCHOR, ["web1", "web2"]))]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=70)
    | st.text("0123456789abcdef=", max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@example(which=0, new=True, data=None)
@given(which=st.integers(0, 1), new=json_values, data=st.data())
def test_any_document_is_an_anchor_or_a_reason(which: int, new: Any, data: st.DataObject | None) -> None:
    """Whatever stands at any place of it; and what can be read can be verified and written."""
    document = json.loads(json.dumps(DOCUMENTS[which]))
    path = data.draw(st.sampled_from(places(document)[1:])) if data else ("size",)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    if data and data.draw(st.booleans()):
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    found = anchors.read(document)
    if isinstance(found, InvalidAnchor):
        assert found.reason
    else:
        checks(found)
        assert anchors.read(anchors.write(found)) == found


@given(document=json_values)
def test_what_is_no_document(document: Any) -> None:
    """It lacks the schema."""
    assert anchors.read(document) == InvalidAnchor("its schema is not ntpaudit.anchor/1")


def test_ten_thousand_heads() -> None:
    """Each can be proved, by 14 hashes at most."""
    anchor = anchors.new_anchor([head(number) for number in range(10_000)], MADE)
    part = anchors.excerpt(anchor, {"web7", "web9999"})
    assert part.proofs is not None
    assert max(len(proof.path) for proof in part.proofs) <= 14
    assert problems(part)["signatures"]
    assert (
        merkle.root_of_proof(merkle.leaf_hash(part.heads[0].entry), part.proofs[0].place, 10_000, part.proofs[0].path)
        == anchor.root
    )

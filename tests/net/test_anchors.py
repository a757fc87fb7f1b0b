"""An anchor that a time-stamp authority of OpenSSL and a real Roughtime server sign, and what each of them proves."""

import json
import sys
import time
from pathlib import Path

import pytest

from ntpaudit.core import anchor as anchors
from ntpaudit.core.anchor import Anchor, Head
from ntpaudit.errors import AnchorError
from ntpaudit.net import timestamps
from ntpaudit.net.anchors import sign, verify
from tests.world.flaky import Fault, FlakyDatabase, Octets, Request
from tests.world.roughenough import roughenough
from tests.world.time_stamps import Authority, authority, openssl_verifies

HEADS = [Head(f"web{number}", None, number, f"{number:064x}") for number in range(1, 6)]


def serving(issuer: Authority) -> FlakyDatabase:
    """Serve an authority over HTTP."""

    def choose(request: Request) -> Fault:
        reply = issuer.reply(request.lines.encode(errors="surrogateescape"))
        return Octets(f"HTTP/1.1 200 OK\r\nContent-Length: {len(reply)}\r\n\r\n".encode() + reply)

    return FlakyDatabase(choose=choose)


@pytest.mark.needs("openssl", "roughenough")
def test_one_request_each_for_all_heads(tmp_path: Path) -> None:
    """An excerpt of one host is verified with trusted keys alone; a service that fails costs its signature only."""
    issuer = authority(tmp_path / "authority")
    roots = timestamps.read_roots(issuer.roots.read_bytes(), "")
    before = time.time()
    with serving(issuer) as tsa, roughenough() as first, roughenough() as second:
        servers = [("127.0.0.1", one.port, one.key) for one in (first, second)]
        urls = [tsa.url, f"{tsa.url}0/none"]
        anchor, errors = sign(anchors.new_anchor(HEADS, "now"), urls, roots, servers)
        assert len(tsa.requests) == 1
    assert [str(error).partition("; check evidence.tsa")[1] for error in errors] == ["; check evidence.tsa"]
    part = anchors.read(json.loads(json.dumps(anchors.write(anchors.excerpt(anchor, ["web4"])))))
    assert isinstance(part, Anchor)
    assert part.heads == (HEADS[3],)
    checks = list(verify(part, roots, servers))
    assert [check.problem for check in checks] == [None] * 4
    attested = [check.attested for check in checks if check.attested]
    assert [one.authority for one in attested] == [
        "CN=Test time stamps",
        *(f"127.0.0.1:{port}" for _, port, _ in servers),
    ]
    assert all(before < one.before_s < time.time() + 60 for one in attested)
    assert openssl_verifies(part.stamps[0].reply, part.root, issuer.roots)


@pytest.mark.needs("openssl", "roughenough")
def test_who_trusts_others_believes_none(tmp_path: Path) -> None:
    """Neither a foreign root nor a foreign key."""
    issuer, foreign = authority(tmp_path / "authority"), authority(tmp_path / "foreign")
    with serving(issuer) as tsa, roughenough() as server:
        roots = timestamps.read_roots(issuer.roots.read_bytes(), "")
        servers = [("127.0.0.1", server.port, server.key)]
        anchor, errors = sign(anchors.new_anchor(HEADS, "now"), [tsa.url], roots, servers)
    assert errors == ()
    others = timestamps.read_roots(foreign.roots.read_bytes(), "")
    problems = [check.problem for check in verify(anchor, others, [])]
    assert problems[0] is None
    assert "unable to get local issuer certificate" in (problems[1] or "")
    assert "is not one that you trust" in (problems[2] or "")


@pytest.mark.parametrize("name", ["cryptography", "rfc3161_client"])
def test_a_library_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fix is the page that says how."""
    monkeypatch.setitem(sys.modules, name, None)
    anchor = anchors.new_anchor(HEADS, "now")
    for attempt in (lambda: sign(anchor, [], [], []), lambda: list(verify(anchor, [], []))):
        with pytest.raises(AnchorError, match=rf"^{name} is not installed; install ntpaudit with its extra evidence"):
            attempt()

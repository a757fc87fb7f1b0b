"""Verify an anchor without ntpaudit: `python3 verify_anchor.py ANCHOR.json FOLDER`, with Python alone.

It checks that the heads lead to the root, and that each Roughtime request has a nonce for that root and the reply
before it. It writes the root and each time stamp to files in FOLDER, which must exist. Then let OpenSSL verify each:

    openssl ts -verify -in FOLDER/stamp-1.tsr -data FOLDER/root.bin -CAfile ROOTS.pem

The signatures in the Roughtime replies (RFC 10049) are not checked here.
"""

import json
import sys
from base64 import b64decode
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any


def leaf_of(head: dict[str, Any]) -> bytes:
    """Return the hash of a head: its four keys in this order, without spaces, non-ASCII escaped."""
    entry = {key: head[key] for key in ("head", "host", "machine_id", "sequence")}
    return sha256(b"\0" + json.dumps(entry, separators=(",", ":")).encode()).digest()


def root_of(level: list[bytes]) -> bytes:
    """Return the root above some hashes (RFC 9162 §2.1.1)."""
    while len(level) > 1:
        pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
        level = [sha256(b"\1" + b"".join(pair)).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0] if level else sha256().digest()


def root_by_proof(node: bytes, place: int, size: int, proof: list[bytes]) -> bytes:
    """Return the root to which a proof leads (RFC 9162 §2.1.3.2)."""
    last = size - 1
    for sibling in proof:
        if place % 2 or place == last:
            node = sha256(b"\1" + sibling + node).digest()
            while place and not place % 2:
                place, last = place // 2, last // 2
        else:
            node = sha256(b"\1" + node + sibling).digest()
        place, last = place // 2, last // 2
    return node if last == 0 else b""


def main(path: str, folder: str) -> int:
    """Print each check; return the number of those that fail."""
    anchor = json.loads(Path(path).read_text())
    root, failed, reply = bytes.fromhex(anchor["root"]), 0, b""

    def report(text: str, does_fit: bool) -> None:
        nonlocal failed
        failed += not does_fit
        print("ok  " if does_fit else "FAIL", text)

    if any("proof" in head for head in anchor["heads"]):
        for head in anchor["heads"]:
            proof = [bytes.fromhex(one) for one in head["proof"]]
            report(head["host"], root_by_proof(leaf_of(head), head["index"], anchor["size"], proof) == root)
    else:
        leaves = [leaf_of(head) for head in anchor["heads"]]
        report(f"{len(leaves)} heads", (root_of(leaves), len(leaves)) == (root, anchor["size"]))
    for number, one in enumerate(anchor["roughtime"], 1):
        rand = sha512(root + b64decode(one["salt"])).digest()[:32]
        nonce = sha512(reply + rand).digest()[:32]
        report(f"nonce of request {number}, to {one['server']}", nonce in b64decode(one["request"]))
        reply = b64decode(one["response"])
    Path(folder, "root.bin").write_bytes(root)
    for number, one in enumerate(anchor["time_stamps"], 1):
        Path(folder, f"stamp-{number}.tsr").write_bytes(b64decode(one["reply"]))
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]) > 0)

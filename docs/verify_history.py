"""Verify a history by the rule of evidence.md, with the standard library alone: python3 verify_history.py HISTORY.

It needs history_dictionaries.json beside it: what the compressed texts of a history are in terms of.
"""

import json
import sqlite3
import sys
import zlib
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

TAKEN = "host_ns, kind, boot_id, boottime_ns, suspended_ns, raw_ns"
JUDGED = f"{TAKEN}, utc_ns, severity, verdict, offset_ns, earliest_ns, latest_ns, local_s"
EVENT = "kind, raised, severity, level, text, utc_ns, host_ns, boot_id, boottime_ns, value_s, detail"
KINDS = {  # kind of entry: table in retention notes, id, columns, text, rest of the query
    "observation": ("audits", "id", TAKEN, "observation", "audits WHERE observation <> ''"),
    "record": ("audits", "id", JUDGED, "record", "audits WHERE record IS NOT NULL"),
    "event": ("events", "id", EVENT, "''", "events WHERE 1"),
    "dead-letter": ("set_aside", "id", "stamp_ns, reason", "lines", "set_aside WHERE 1"),
    "note": ("notes", "id", "kind, utc_ns, host_ns", "note", "notes WHERE 1"),
    "hour": ("hours", "begin_s", "length_s, begin_s", "account", "accounts WHERE length_s = 3600"),
    "day": ("days", "begin_s", "length_s, begin_s", "account", "accounts WHERE length_s = 86400"),
}
TEXTS = json.loads(Path(__file__).with_name("history_dictionaries.json").read_text())
DICTIONARIES = {zlib.adler32(text.encode()).to_bytes(4, "big"): text.encode() for text in TEXTS}


def unpack(value: Any) -> str:
    """Return a text as it was before it was compressed: zlib with a dictionary, which octets 3 to 6 name."""
    if isinstance(value, str):
        return value
    with suppress(zlib.error, ValueError, KeyError, TypeError):
        return zlib.decompressobj(zdict=DICTIONARIES[value[2:6]]).decompress(value).decode()
    return ""


def digest(columns: dict[str, Any], text: str) -> bytes:
    """Return the digest of a row."""
    array = json.dumps([*columns.values()], separators=(",", ":"), default=lambda blob: {"blob": blob.hex()})
    return sha256(array.encode() + b"\n" + text.encode()).digest()


def problems(history: sqlite3.Connection) -> list[str]:
    """Return what does not fit, in words."""
    found: list[str] = []
    removed, stamps, chained = set(), set(), set()
    entries = {}
    for kind, packed in history.execute("SELECT kind, note FROM notes"):
        note = json.loads(unpack(packed) or "{}")
        if kind == "retention":
            removed |= {(table, *part) for table, parts in note.get("removed", {}).items() for part in parts}
        if kind == "stamps":
            stamps.add((note.get("boot_id"), note.get("boot_ns")))
    first = history.execute("SELECT MIN(sequence) FROM chain").fetchone()
    count, head = history.execute("SELECT first - 1, before FROM segments WHERE first = ?", first).fetchone() or (
        0,
        b"",
    )
    for sequence, kind, row, noted, claimed in history.execute("SELECT * FROM chain ORDER BY sequence"):
        if type(noted) is not bytes or kind not in KINDS:
            return [*found, f"entry {sequence} is none"]
        count, head = count + 1, sha256(head + sequence.to_bytes(8, "big") + kind.encode() + noted).digest()
        if (count, head) != (sequence, claimed):
            return [*found, f"entry {sequence} does not continue the entry before"]
        entries[kind, row, 0 if kind in ("hour", "day") else sequence] = sequence, noted  # accounts: the newest counts
    for (kind, row, _), (sequence, noted) in entries.items():
        table, key, columns, text, rows = KINDS[kind]
        cells = history.execute(f"SELECT {columns}, {text} FROM {rows} AND {key} = ?", (row,)).fetchone()  # noqa: S608
        chained.add((kind, row))
        if cells is None:
            if not any(table == one and begin <= row <= end for one, begin, end in removed):
                found.append(f"{kind} {row} is missing (entry {sequence})")
            continue
        values = dict(zip(columns.split(", "), cells, strict=False))
        forms = [values]
        if (
            "boot_id" in values
            and values.get("utc_ns")
            and ((values["boot_id"], values["utc_ns"] - values["boottime_ns"]) in stamps)
        ):
            forms.append({**values, "utc_ns": None})  # the true time became known later
        if noted not in [digest(form, unpack(cells[-1])) for form in forms]:
            found.append(f"{kind} {row} is not what was stored (entry {sequence})")
    for kind, (_, key, _, _, rows) in KINDS.items():
        for (row,) in history.execute(f"SELECT {key} FROM {rows}"):  # noqa: S608
            if (kind, row) not in chained:
                found.append(f"{kind} {row} is in no entry")
    return found if count else ["there is no chain"]


if __name__ == "__main__":
    wrong = problems(sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True))
    print("\n".join(wrong) or "every row fits the chain")
    sys.exit(2 if wrong else 0)

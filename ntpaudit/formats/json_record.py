"""A record as JSON: one object on one line, so that a file of many audits is JSON Lines; ASCII, to survive any pipe."""

import json
from typing import Any

from ntpaudit.core.record import Record


def render(record: Record) -> str:
    """Write the record as its schema has it; for a human to read, pipe it through `jq` or `python3 -m json.tool`."""
    return json_line(record.to_dict())


def json_line(data: Any) -> str:
    """Write a JSON value as one line. ValueError for a NaN or an infinity."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n"

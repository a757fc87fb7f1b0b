"""Values as JSON has them."""

from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Turn a value of the core into dicts, lists, texts and numbers: named tuples by their names, octets in hex."""
    match value:
        case bytes():
            return value.hex()
        case tuple() if hasattr(value, "_asdict"):
            return {key: plain(part) for key, part in value._asdict().items()}
        case tuple():
            return [plain(part) for part in value]
        case Mapping():
            return {key: plain(part) for key, part in value.items()}
    return value

"""Format times, durations and directions for messages, and parse them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import ceil, floor, log10
from typing import Literal

NS_PER_S = 1_000_000_000
HOUR_S = 3600
DAY_S = 86_400.0
DOCS = "/opt/ntpaudit/share/doc/ntpaudit/docs"  # where the packages install the documentation
_UNIX_EPOCH = datetime(1970, 1, 1)  # naive on purpose: only ever used as arithmetic on UTC


def format_utc(unix_ns: int) -> str:
    """Format a point in time as RFC 3339 with nine decimals and `Z`, for the years 1 to 9999."""
    seconds, ns = divmod(unix_ns, NS_PER_S)
    return f"{(_UNIX_EPOCH + timedelta(seconds=seconds)).isoformat()}.{ns:09d}Z"


def parse_utc(text: str) -> int:
    """Parse the output of `format_utc`; ValueError for anything else."""
    since = datetime.fromisoformat(text[:19]) - _UNIX_EPOCH
    unix_ns = (since.days * 86_400 + since.seconds) * NS_PER_S + int(text[20:29])
    if format_utc(unix_ns) != text:
        raise ValueError(f"not a UTC time with nine decimals: {text!r}")
    return unix_ns


Rounding = Literal["near", "up", "down"]

UNITS = (
    (365.25 * 86400, "years"),
    (86400.0, "days"),
    (3600.0, "h"),
    (60.0, "min"),
    (1.0, "s"),
    (1e-3, "ms"),
    (1e-6, "µs"),
    (1e-9, "ns"),
)
"""Units of durations, in seconds. One that is longer than a second is used from twice its length on."""


def format_duration(seconds: float, *, rounding: Rounding = "near") -> str:
    """Format a duration with at most three digits; `rounding` is `up` for a maximum error, `down` for a least error."""
    size = abs(seconds)
    scale, unit = next((one for one in UNITS if size >= one[0] * (2 if one[0] > 1 else 1)), UNITS[-1])
    value = size / scale
    exponent = floor(log10(value)) - 2 if value >= 1e-9 else 0
    step = 10.0**exponent
    quotient = value / step
    rounded = {"up": ceil(quotient - 1e-9), "down": floor(quotient + 1e-9), "near": round(quotient)}
    digits = rounded[rounding] * step
    if exponent >= 0:
        return f"{digits:.0f} {unit}"
    return f"{f'{digits:.{-exponent}f}'.rstrip('0').rstrip('.')} {unit}"


_SUFFIXES = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86_400, "y": 31_557_600}
MAX_DIGITS = 30  # a longer number is refused: thousands of digits are infinite as a float, and an error as an integer
_BRIEF = 60


def brief(text: str) -> str:
    """Quote a text from outside, shortened to fit into a message."""
    return repr(text) if len(text) <= _BRIEF else f"{text[:_BRIEF]!r}... ({len(text)} characters)"


def parse_duration(text: str) -> float:
    """Parse a duration such as `100ms`, `64s`, `30m`, `12h`, `90d` or `7y`; in seconds. ValueError has an example."""
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzµ")
    unit = text.strip()[len(number) :]
    digits = number.strip()
    is_number = digits.replace(".", "", 1).isdecimal() and digits.isascii() and len(digits) <= MAX_DIGITS
    if unit in _SUFFIXES and is_number:
        return float(digits) * _SUFFIXES[unit]
    if not unit and is_number:
        example = digits if float(digits) else "1"  # few durations may be 0
        raise ValueError(f"{text!r} needs a unit, for example {example}s, {example}m or {example}h")
    raise ValueError(
        f"{brief(text)} is not a duration: write a number and its unit, for example 100ms, 64s, 30m, 12h, 90d or 7y"
    )


_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_size(text: str) -> int:
    """Parse a size such as `512MiB` or `1GiB`; return bytes. ValueError has an example."""
    number = text.strip().rstrip("BKMGik")
    unit = text.strip()[len(number) :]
    digits = number.strip()
    is_number = digits.isdecimal() and digits.isascii() and len(digits) <= MAX_DIGITS
    if unit in _SIZES and is_number and int(digits) * _SIZES[unit] >= 1 << 20:
        return int(digits) * _SIZES[unit]
    raise ValueError(
        f"{brief(text)} is not a size: write a number and its unit, for example 512MiB or 1GiB; at least 1MiB"
    )


def direction(offset: float) -> str:
    """Return the direction of the host's clock: `behind` for a positive offset, else `ahead`."""
    return "behind" if offset > 0 else "ahead"


def format_offset(offset: float) -> str:
    """Format an offset with its direction, for example `40 ms behind`."""
    return f"{format_duration(offset)} {direction(offset) if offset else 'off'}"


def plural(count: int, noun: str) -> str:
    """Format a count with its noun, for example `1 server` or `4 servers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def joined(names: Sequence[str], last: str = "and") -> str:
    """Join names for a sentence: a; a and b; a, b and c. `last` is the word before the last one."""
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))

"""Text, counts and points in time put into HTML, so that nothing in them can act or turn the line around."""

from html import escape

from ntpaudit.core.ntptime import format_utc
from ntpaudit.sinks.plain import one_line


def text(value: str) -> str:
    """Write text from anywhere for between tags or in a quoted attribute; controls, bidi ones too, become spaces."""
    return escape(one_line(value))


def breakable(value: str) -> str:
    """Write a name for between tags, that can be broken after its dots where there is no room for it."""
    return text(value).replace(".", ".<wbr>")


def moment(unix_ns: int) -> str:
    """Write a point in time to the second, in UTC, with its exact value beside it for programs."""
    exact = format_utc(unix_ns)
    return f'<time datetime="{exact[:23]}Z">{exact[:10]} {exact[11:19]} UTC</time>'


def many(count: int, noun: str) -> str:
    """Write a count with its noun, such as `1 host` or `10,000 hosts`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

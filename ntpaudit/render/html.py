"""The templates of the HTML page. Every text is escaped, and cannot turn the line around."""

from functools import cache, partial
from html import escape
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ntpaudit.core.fleet.missing import share
from ntpaudit.core.units import direction, format_duration, format_utc, plural
from ntpaudit.render.text_safety import one_line


class _Environment(Environment):
    # No items in place of attributes: a wrong name is an error at once, and a row takes a fifth less time.
    getattr = staticmethod(getattr)  # type: ignore[assignment]


@cache  # it keeps the compiled templates
def environment() -> Environment:
    """Return the environment of the templates: what they write is escaped, and an unknown name is an error."""
    made = _Environment(
        loader=PackageLoader("ntpaudit.reports"),
        autoescape=True,
        # spaces for control characters of any text, bidi ones too; what is markup already stays
        finalize=lambda value: one_line(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "breakable": breakable,
        "direction": direction,
        "exact": lambda microseconds: f"{microseconds / 1e6:,.6f} s".replace("-", "\N{MINUS SIGN}"),
        "grouped": "{:,}".format,
        "many": many,
        "one_decimal": "{:.1f}".format,
        "plural": plural,
        "share": share,
        "short": "{:.4g}".format,
        "span": format_duration,
        "span_up": partial(format_duration, rounding="up"),
        "utc": format_utc,
    }
    return made


def verbatim(name: str) -> Markup:
    """Return a file of this package that goes into the page as it is: its style or its script."""
    return Markup((files("ntpaudit.reports") / name).read_text(encoding="utf-8"))  # noqa: S704


def breakable(name: str) -> Markup:
    """Return a name that can be broken after its dots where there is no room for it."""
    return Markup(escape(one_line(name)).replace(".", ".<wbr>"))  # noqa: S704


def many(count: int, noun: str) -> str:
    """Write a count with its noun, such as `1 host` or `10,000 hosts`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

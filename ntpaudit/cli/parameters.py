"""Command-line parameters parsed by functions of the core; their ValueError becomes a usage error."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

import click
from click.core import ParameterSource

from ntpaudit.core.units import NS_PER_S, parse_duration

_Value = TypeVar("_Value")


class Parsed(click.ParamType[_Value]):
    """A parameter parsed by a function, which raises ValueError with what to write instead."""

    def __init__(self, name: str, read: Callable[[str], _Value]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: str | _Value, param: click.Parameter | None, ctx: click.Context | None) -> _Value:
        """Read the text."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(readable=False),
    metavar="FILE",
    help="The configuration file.  [default: the user's own, else /etc/ntpaudit/ntpaudit.toml]",
)


def given_options(context: click.Context) -> dict[str, str]:
    """Return the options given on the command line: their parameter names and spellings."""
    return {
        str(one.name): one.opts[0]
        for one in context.command.params
        if context.get_parameter_source(str(one.name)) is ParameterSource.COMMANDLINE
    }


def refuse_empty(**given: object) -> None:
    """Raise click.UsageError for an option with an empty value, such as an empty shell variable."""
    for name, value in given.items():
        if value == "":
            raise click.UsageError(f"--{name.replace('_', '-')} is empty: omit it, or give it a value")


LEAST_HOURS, MOST_HOURS = 6.0, 8784.0


def parse_hours(text: str) -> float:
    """Read a number of hours such as 36, or a duration such as 7d. Raises ValueError with what to write."""
    try:
        hours = float(text) if text.isascii() and text.replace(".", "", 1).isdecimal() else parse_duration(text) / 3600
    except ValueError:
        raise ValueError(f"{text!r}: write a number of hours or a duration, such as 36 or 7d") from None
    if LEAST_HOURS <= hours <= MOST_HOURS:
        return hours
    raise ValueError(f"{text!r}: write {LEAST_HOURS:g} to {MOST_HOURS:g} hours")


class RelativeTime(NamedTuple):
    """A time, `seconds` before now."""

    seconds: float


_LAST_NS = 2**63 - 1

_UNITS = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d", "year": "y"}


def parse_time(text: str) -> RelativeTime | int:
    """Read a time relative to now, as `7d` or `2 hours ago`, or a time in UTC. Raises ValueError with what to write."""
    relative = text.strip().removesuffix("ago").strip()
    number, _, unit = relative.partition(" ")
    suffix = _UNITS.get(unit.strip().removesuffix("s"))
    try:
        return RelativeTime(parse_duration(relative if suffix is None else number + suffix))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r}: write how long ago, such as 7d, or a time in UTC, such as 2026-11-18T11:00"
        ) from None
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def resolve(when: RelativeTime | int, now_ns: int) -> int:
    """Return a point in time in ns, limited to 64 bits."""
    point_ns = now_ns - round(when.seconds * NS_PER_S) if isinstance(when, RelativeTime) else when
    return max(-_LAST_NS, min(_LAST_NS, point_ns))

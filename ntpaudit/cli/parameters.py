"""What several commands share: options, and times. A ValueError of a `parse` function becomes a usage error."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

import click
from click.core import ParameterSource
from click.types import FuncParamType

from ntpaudit.core.units import NS_PER_S, parse_duration

_Command = TypeVar("_Command", bound=Callable[..., None])
_Value = TypeVar("_Value")


def parsed(name: str, parse: Callable[[str], _Value]) -> "FuncParamType[str, _Value]":
    """Return the type of a parameter that a function parses; help and usage show `name`."""
    kind = FuncParamType(parse)  # quoted above: it has one type parameter in click 8.4, two in 8.5
    kind.name = name
    return kind


DURATION = parsed("DURATION", parse_duration)

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(readable=False),
    metavar="FILE",
    help="The configuration file.  [default: the user's own, else /etc/ntpaudit/ntpaudit.toml]",
)


def verbosity_options(command: _Command) -> _Command:
    """Give a command the options `-v` and `-q`, as the arguments `verbose` and `quiet`."""
    quiet = click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
    verbose = click.option("-v", "--verbose", is_flag=True, help="Log the result of each query too.")
    return verbose(quiet(command))


def given_options(context: click.Context) -> dict[str, str]:
    """Return the options given on the command line: their parameter names and spellings."""
    return {
        str(one.name): one.opts[0]
        for one in context.command.params
        if context.get_parameter_source(str(one.name)) is ParameterSource.COMMANDLINE
    }


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
    with suppress(ValueError):
        return RelativeTime(parse_duration(relative if suffix is None else number + suffix))
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


TIME = parsed("TIME", parse_time)

"""Parameters as functions of the core read them: what these refuse is a usage error that says what to write."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

import click

from ntpaudit.core.units import NS_PER_S, parse_duration

_Value = TypeVar("_Value")


class Parsed(click.ParamType[_Value]):
    """A parameter read by a function that raises ValueError with what to write instead."""

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


def refuse_empty(**given: object) -> None:
    """Refuse an option that is named by nothing, such as an empty variable of a shell. Raises click.UsageError."""
    for name, value in given.items():
        if value == "":
            raise click.UsageError(f"--{name.replace('_', '-')} is empty: leave it out, or name something")


LEAST_HOURS, MOST_HOURS = 6.0, 8784.0


def parse_hours(text: str) -> float:
    """Read a number of hours, or a duration with its unit, such as 36 or 7d; ValueError says how to write one."""
    try:
        hours = float(text) if text.isascii() and text.replace(".", "", 1).isdecimal() else parse_duration(text) / 3600
    except ValueError:
        raise ValueError(f"{text!r}: write a number of hours or a duration, such as 36 or 7d") from None
    if LEAST_HOURS <= hours <= MOST_HOURS:
        return hours
    raise ValueError(f"{text!r}: write {LEAST_HOURS:g} to {MOST_HOURS:g} hours")


class RelativeTime(NamedTuple):
    """A time so long before now."""

    seconds: float


_LAST_NS = 2**63 - 1

_UNITS = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d", "year": "y"}


def parse_time(text: str) -> RelativeTime | int:
    """Read a span that ends now, as `7d` or `2 hours ago`, or a time in UTC; ValueError says how to write one."""
    said = text.strip().removesuffix("ago").strip()
    number, _, unit = said.partition(" ")
    suffix = _UNITS.get(unit.strip().removesuffix("s"))
    try:
        return RelativeTime(parse_duration(said if suffix is None else number + suffix))
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
    """Return a point in time, the nearest that 64 bits can hold."""
    point_ns = now_ns - round(when.seconds * NS_PER_S) if isinstance(when, RelativeTime) else when
    return max(-_LAST_NS, min(_LAST_NS, point_ns))

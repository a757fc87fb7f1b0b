"""Parameters as functions of the core read them: what these refuse is a usage error that says what to write."""

from collections.abc import Callable
from typing import TypeVar

import click

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

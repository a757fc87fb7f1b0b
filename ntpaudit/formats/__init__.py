"""A record as bytes: one module for each format, imported only when used."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ntpaudit.core.record import Record

FORMATS = {
    "text": "text",
    "json": "json_record",
    "nagios": "nagios",
    "influx": "line_protocol",
    "openmetrics": "openmetrics",
}
"""Every format with the module that writes it. A new one is a file with a `render`, and an entry here."""


def load(name: str) -> "Callable[[Record], str]":
    """Import the module of a format and return its `render`; KeyError for a format there is none of."""
    render: Callable[[Record], str] = import_module(f"{__name__}.{FORMATS[name]}").render
    return render

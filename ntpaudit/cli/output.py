"""Put a finished record where it was asked for, and turn its severity into the exit status."""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from ntpaudit.core.policy import Severity
from ntpaudit.files import unwritable, write_output
from ntpaudit.formats import FORMATS, load

if TYPE_CHECKING:
    from ntpaudit.core.record import Record

format_option = click.option(
    "--format",
    "format_name",
    type=click.Choice(list(FORMATS)),
    default="text",
    show_default=True,
    help="How to say it.",
)


class StandardError:
    """Speak beside the result, a line at a time; of progress only where somebody watches."""

    def note(self, text: str) -> None:
        """Tell the operator something to know or to mend."""
        click.echo(f"ntpaudit: {text}", err=True)

    def progress(self, text: str) -> None:
        """Tell whoever watches what is being waited for."""
        if sys.stderr.isatty():
            self.note(text)


def emit_and_exit(
    record: "Record", format_name: str, output: str | None = None, *, least: Severity = Severity.OK
) -> None:
    """Write the record and end with its exit status; what cannot be written is unknown to whoever waits for it.

    The exit status is that of `least` where the record's severity is better.
    """
    try:
        if output in (None, "-"):
            if not isinstance(sys.stdout, io.TextIOWrapper):
                raise OSError(errno.EBADF, "standard output is closed")
            sys.stdout.reconfigure(errors="backslashreplace")  # a name outside the terminal's alphabet is no error
            sys.stdout.write(_renderer(format_name, page_width(), colour=wants_colour())(record))
            sys.stdout.flush()
        else:
            write_output(str(output), _renderer(format_name)(record))
    except BrokenPipeError:
        drop_output()  # the reader has left; so do we, quietly
    except OSError as error:
        drop_output()
        StandardError().note(unwritable(output or "the result", error))
        raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error
    raise click.exceptions.Exit(max(record.severity, least).exit_status)


def drop_output() -> None:
    """Let what could not be written go nowhere, or Python would try again at its end, and end with a status of 120."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _renderer(format_name: str, width: int | None = None, *, colour: bool = False) -> "Callable[[Record], str]":
    """Load a sink; only text knows a width and colours."""
    if format_name == "text":
        from ntpaudit.formats.text import render

        return lambda record: render(record, width=width, colour=colour)
    return load(format_name)


def terminal_size() -> tuple[int, int]:
    """Return columns and rows of the terminal; where there is none, those of a page."""
    import shutil

    size = shutil.get_terminal_size((100, 30))
    return size.columns, size.lines


def page_width() -> int | None:
    """Return how wide lines may be: $COLUMNS, else the terminal's width; None where the output goes to no terminal."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdecimal() and int(columns[:6]) > 0:
        return int(columns[:6])
    return terminal_size()[0] if is_terminal() else None


def is_terminal() -> bool:
    """Whether somebody watches; standard output may be closed."""
    return sys.stdout is not None and sys.stdout.isatty()


def wants_colour() -> bool:
    """Colours are for terminals that have not declined them (no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

"""Write a record to its destination, and exit with the status of its severity."""

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
    help="Output format.",
)


class StandardError:
    """Messages on standard error, one line each; progress only on a terminal."""

    def note(self, text: str) -> None:
        """Write a message for the operator."""
        click.echo(f"ntpaudit: {text}", err=True)

    def progress(self, text: str) -> None:
        """Write what the program waits for."""
        if sys.stderr.isatty():
            self.note(text)


def emit_and_exit(
    record: "Record", format_name: str, output: str | None = None, *, least: Severity = Severity.OK, last: str = ""
) -> None:
    """Write the record and exit with the status of its severity, or of `least` if that is worse. `last` ends the text.

    The exit status is 3 if the record cannot be written.
    """
    try:
        if output in (None, "-"):
            if not isinstance(sys.stdout, io.TextIOWrapper):
                raise OSError(errno.EBADF, "standard output is closed")
            sys.stdout.write(_renderer(format_name, page_width(), colour=wants_colour())(record) + last)
            sys.stdout.flush()
        else:
            write_output(str(output), _renderer(format_name)(record))
    except BrokenPipeError:
        drop_output()  # the reader has closed the pipe, which is no error
    except OSError as error:
        drop_output()
        StandardError().note(unwritable(output or "the result", error))
        raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error
    raise click.exceptions.Exit(max(record.severity, least).exit_status)


def drop_output() -> None:
    """Discard unwritten output: Python would write it again at exit, and fail with status 120."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _renderer(format_name: str, width: int | None = None, *, colour: bool = False) -> "Callable[[Record], str]":
    if format_name == "text":
        from ntpaudit.formats.text import render

        return lambda record: render(record, width=width, colour=colour)
    return load(format_name)


def terminal_size() -> tuple[int, int]:
    """Return columns and rows of the terminal, (100, 30) without one."""
    import shutil

    size = shutil.get_terminal_size((100, 30))
    return size.columns, size.lines


def page_width() -> int | None:
    """Return the line width: $COLUMNS, else the width of the terminal, None if the output is no terminal."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdecimal() and int(columns[:6]) > 0:
        return int(columns[:6])
    return terminal_size()[0] if is_terminal() else None


def is_terminal() -> bool:
    """Return whether standard output is a terminal; it may be closed."""
    return sys.stdout is not None and sys.stdout.isatty()


def wants_colour() -> bool:
    """Return whether to use colours: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

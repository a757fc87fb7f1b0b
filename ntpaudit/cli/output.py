"""Write a result to its destination, and messages to standard error; exit with the status of a severity."""

import errno
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ntpaudit.core.policy import Severity
from ntpaudit.errors import ConfigError, OutputError
from ntpaudit.files import unwritable, write_output
from ntpaudit.formats import FORMATS, load
from ntpaudit.log import configure_at_first_message

if TYPE_CHECKING:
    from ntpaudit.core.record import Record

_Command = TypeVar("_Command", bound=Callable[..., None])


def format_option(choices: Sequence[str] = tuple(FORMATS)) -> Callable[[_Command], _Command]:
    """Return the option --format of a command; its default is the first choice."""
    return click.option(
        "--format", "format_name", type=click.Choice(choices), default=choices[0], help="Output format."
    )


def plugin_line_on_config_error(command: _Command) -> _Command:
    """Make a command with --format nagios report a ConfigError in the plugin's line, with exit status 3."""

    @wraps(command)
    def run(**given: Any) -> None:
        try:
            command(**given)
        except ConfigError as error:
            if given["format_name"] != "nagios":
                raise
            from ntpaudit.formats.nagios import plugin_line

            with exit_on(OutputError):
                put(plugin_line(Severity.UNKNOWN, str(error), ()), given.get("output"))
            raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error

    return cast("_Command", run)


def note(text: str) -> None:
    """Write a message for the operator on standard error."""
    click.echo(f"ntpaudit: {text}", err=True)


def log_to_stderr(*, verbose: bool = False, quiet: bool = False, drop_repetitions: bool = False) -> None:
    """Send log messages to standard error, from the first one on. UsageError for `-v` with `-q`."""
    if verbose and quiet:
        raise click.UsageError("-v and -q exclude each other")
    level = "DEBUG" if verbose else "WARNING" if quiet else "INFO"
    if verbose:
        import logging  # noqa: F401  # so that `LazyLogger.debug` finds it

    def configure() -> None:
        from ntpaudit.cli import log_handler

        log_handler.configure(level, drop_repetitions=drop_repetitions)

    configure_at_first_message(configure)


def show_progress(text: str) -> None:
    """Write what the program waits for, on a terminal only."""
    if sys.stderr.isatty():
        note(text)


@contextmanager
def exit_on(*errors: type[Exception]) -> Iterator[None]:
    """Print an error of a kind in `errors`, and exit with 3."""
    try:
        yield
    except errors as error:
        note(str(error))
        raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error


def emit_and_exit(
    record: "Record",
    format_name: str,
    output: str | None = None,
    *,
    least: Severity = Severity.OK,
    last: str = "",
    explain: bool = False,
) -> None:
    """Write the record, then `last`; exit with the status of its severity or `least`, 3 if it cannot be written.

    `explain` adds to each finding what its rule states; only as text.
    """
    if format_name == "text":
        from ntpaudit.formats.text import render

        text = render(record, **layout(output), explain=explain)
    else:
        text = load(format_name)(record)
    with exit_on(OutputError):
        put(text + last, output)
    raise click.exceptions.Exit(max(record.severity, least).exit_status)


def put(text: str, path: str | None) -> None:
    """Write to standard output if the path is None or `-`, else replace the file. Raises OutputError."""
    if path in (None, "-"):
        write_parts([text])
        return
    try:
        write_output(str(path), text)
    except OSError as error:
        raise OutputError(unwritable(str(path), error)) from error


def write_parts(parts: Iterable[str]) -> None:
    """Write the parts in order. Exit with 3 if one cannot be written, so that half a result is not taken for all."""
    try:
        if not isinstance(sys.stdout, io.TextIOWrapper):
            raise OSError(errno.EBADF, "standard output is closed")
        for part in parts:
            sys.stdout.write(part)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()  # the reader has closed the pipe, which is no error
    except OSError as error:
        drop_output()
        note(unwritable("the result", error))
        raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error


def drop_output() -> None:
    """Discard unwritten output: Python would write it again at exit, and fail with status 120."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def layout(path: str | None = None) -> dict[str, Any]:
    """Return `width` and `colour` of a text that `put` writes: a file has neither."""
    is_file = path not in (None, "-")
    return {"width": None if is_file else page_width(), "colour": not is_file and wants_colour()}


def terminal_size() -> os.terminal_size:
    """Return columns and rows of the terminal, (100, 30) without one."""
    import shutil

    return shutil.get_terminal_size((100, 30))


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

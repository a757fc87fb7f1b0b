"""Write a result to standard output as it comes; a reader that leaves ends it quietly."""

import errno
import io
import sys
from collections.abc import Iterable

import click

from ntpaudit.cli.output import StandardError, drop_output
from ntpaudit.core.policy import Severity


def write_parts(parts: Iterable[str]) -> None:
    """Write one part after the other. What cannot be written ends the process with 3: nobody takes half for all."""
    try:
        if not isinstance(sys.stdout, io.TextIOWrapper):
            raise OSError(errno.EBADF, "standard output is closed")
        sys.stdout.reconfigure(errors="backslashreplace")  # a name outside the terminal's alphabet is no error
        for part in parts:
            sys.stdout.write(part)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
    except OSError as error:
        drop_output()
        StandardError().note(f"cannot write the result: {error.strerror}")
        raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error

"""Write a result to standard output piece by piece; a closed pipe is no error."""

import errno
import io
import sys
from collections.abc import Iterable

import click

from ntpaudit.cli.output import StandardError, drop_output
from ntpaudit.core.policy import Severity


def write_parts(parts: Iterable[str]) -> None:
    """Write the parts in order. Exit with 3 if one cannot be written, so that half a result is not taken for all."""
    try:
        if not isinstance(sys.stdout, io.TextIOWrapper):
            raise OSError(errno.EBADF, "standard output is closed")
        for part in parts:
            sys.stdout.write(part)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
    except OSError as error:
        drop_output()
        StandardError().note(f"cannot write the result: {error.strerror}")
        raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error

"""The options `-v` and `-q`, and where log messages go."""

from collections.abc import Callable
from typing import TypeVar

import click

from ntpaudit import log

_Command = TypeVar("_Command", bound=Callable[..., None])


def verbosity_options(command: _Command) -> _Command:
    """Give a command the options `-v` and `-q`, as the arguments `verbose` and `quiet`."""
    quiet = click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
    verbose = click.option("-v", "--verbose", is_flag=True, help="Log the result of each query too.")
    return verbose(quiet(command))


def log_to_stderr(*, verbose: bool = False, quiet: bool = False, drop_repetitions: bool = False) -> None:
    """Send the program's messages to standard error, from the first message on.

    `drop_repetitions` is for a long-running agent. UsageError for `-v` with `-q`.
    """
    if verbose and quiet:
        raise click.UsageError("-v and -q exclude each other")
    level = "DEBUG" if verbose else "WARNING" if quiet else "INFO"
    if verbose:
        import logging  # noqa: F401  # so that `LazyLogger.debug` finds it

    def configure() -> None:
        from ntpaudit.cli.log_handler import configure

        configure(level, drop_repetitions=drop_repetitions)

    log.configure_at_first_message(configure)

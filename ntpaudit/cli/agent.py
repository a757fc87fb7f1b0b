"""`ntpaudit agent`: audit on a schedule, store every record, deliver it, report findings."""

import os

import click

from ntpaudit.agent import Agent, log_warnings, read_setup
from ntpaudit.cli.output import emit_and_exit, log_to_stderr
from ntpaudit.cli.parameters import DURATION, config_option, verbosity_options
from ntpaudit.config.location import find_config
from ntpaudit.core.policy import Severity
from ntpaudit.log import LazyLogger
from ntpaudit.runtime import SystemRuntime

logger = LazyLogger(__name__)

NOT_STORED = "state     not stored: no finding can be confirmed, so the result is UNKNOWN\n"

EPILOG = """\b
Examples:
  ntpaudit config init ntp1.example.net ntp2.example.net ntp3.example.net ntp4.example.net
  ntpaudit agent                                    run until SIGTERM, as under systemd
  ntpaudit agent --once --every 35m                 one cycle, started by a timer every 35 min

\b
SIGHUP reloads the configuration (an invalid one is rejected, the old one stays), SIGUSR1 audits now, SIGTERM stops.

\b
Exit status: 0 stopped by a signal, 64 usage, 75 another agent uses the same state, 78 configuration. With --once:
0 to 3 as `ntpaudit status`; also 3 if the first offset is bad and so not confirmed yet, or if the state could not be
stored and the clock is not critical.
"""


@click.command(epilog=EPILOG)
@config_option
@click.option("--once", is_flag=True, help="Audit, store, send and deliver once, then exit.")
@click.option(
    "--every",
    "every_s",
    type=DURATION,
    help="With --once: the interval between runs, such as 35m.  [default: from the configuration]",
)
@verbosity_options
def agent(config_path: str | None, once: bool, every_s: float | None, verbose: bool, quiet: bool) -> None:
    """Audit this host's clock on a schedule, store every record, and deliver it to the database.

    The servers come from the configuration file; there is no default. The agent opens no port and sets no clock.
    """
    if every_s is not None and not (once and every_s > 0):
        raise click.UsageError("--every needs --once and a positive duration: it is the time between two runs")
    log_to_stderr(verbose=verbose, quiet=quiet, drop_repetitions=True)
    setup = read_setup(find_config(os.environ, config_path), os.environ)
    log_warnings(setup)
    with SystemRuntime(handle_signals=not once) as system:
        one = Agent(setup, system, every_s)
        if not once:
            one.run()
            return
        record = one.once()
    if one.not_stored is not None:
        logger.warning(one.not_stored)
        emit_and_exit(record, "text", least=Severity.UNKNOWN, last=NOT_STORED)
    emit_and_exit(record, "text")

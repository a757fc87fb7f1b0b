"""`ntpaudit agent`: audit on a schedule, remember, deliver, flag."""

import os

import click

from ntpaudit.agent import Agent, read_agent_config
from ntpaudit.cli.logs import log_to_stderr, verbosity_options
from ntpaudit.cli.output import emit_and_exit
from ntpaudit.cli.parameters import Parsed
from ntpaudit.config.schema import find_config
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import parse_duration
from ntpaudit.log import LazyLogger
from ntpaudit.runtime import SystemRuntime

logger = LazyLogger(__name__)

EPILOG = """\b
Examples:
  ntpaudit config init ntp1.example.net ntp2.example.net ntp3.example.net ntp4.example.net
  ntpaudit agent                                    run until SIGTERM, as systemd does it
  ntpaudit agent --once --every 35m                 one cycle, from a timer that runs so often

\b
SIGHUP reloads the configuration (a broken one is refused and the old one stays), SIGUSR1 audits now, SIGTERM ends.

\b
Exit status: 0 when told to end; with --once as `ntpaudit check`, but 3 in place of 0 and 1 where no state could be
kept, since then no finding can be confirmed; 64 usage, 75 another agent uses the same state, 78 configuration.
"""


@click.command(epilog=EPILOG)
@click.option("--config", "config_path", type=click.Path(readable=False), help="Read this configuration file.")
@click.option("--once", is_flag=True, help="Ask, judge, keep, tell and deliver once, and end.")
@click.option(
    "--every",
    "every_s",
    type=Parsed("DURATION", parse_duration),
    help="With --once: how often this is run, such as 35m; by default as the configuration says.",
)
@verbosity_options
def agent(config_path: str | None, once: bool, every_s: float | None, verbose: bool, quiet: bool) -> None:
    """Audit this host's clock on a schedule, keep every record, and deliver it to the database.

    The servers come from the configuration file; there is no default. It listens on no port and sets no clock.
    """
    if every_s is not None and not (once and every_s > 0):
        raise click.UsageError("--every goes with --once, and is the time between two runs")
    log_to_stderr(verbose=verbose, quiet=quiet, drop_repetitions=True)
    setting = read_agent_config(find_config(os.environ) if config_path is None else config_path, os.environ)
    with SystemRuntime(handle_signals=not once) as system:
        one = Agent(setting, system, every_s)
        if not once:
            one.run()
            return
        record = one.once()
    if one.unkept is not None:
        logger.warning(one.unkept)
        emit_and_exit(record, "text", least=Severity.UNKNOWN)
    emit_and_exit(record, "text")

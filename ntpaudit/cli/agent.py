"""`ntpaudit agent`: audit on a schedule, remember, deliver, flag."""

import os

import click

from ntpaudit.agent import Agent, read_setting
from ntpaudit.cli.output import StandardError, finish
from ntpaudit.config import find_config
from ntpaudit.surroundings import System

EPILOG = """\b
Examples:
  ntpaudit config init ntp1.example.net ntp2.example.net ntp3.example.net ntp4.example.net
  ntpaudit agent                                    run until SIGTERM, as systemd does it
  ntpaudit agent --once                             one cycle, from a timer

\b
SIGHUP reloads the configuration (a broken one is refused and the old one stays), SIGUSR1 audits now, SIGTERM ends.

\b
Exit status: 0 when told to end; with --once as `ntpaudit check`; 64 usage, 75 another agent uses the same state,
78 configuration.
"""


@click.command(epilog=EPILOG)
@click.option("--config", "config_path", type=click.Path(), help="Read this configuration file.")
@click.option("--once", is_flag=True, help="Ask, judge, keep, tell and deliver once, and end.")
def agent(config_path: str | None, once: bool) -> None:
    """Audit this host's clock on a schedule, keep every record, and deliver it to the database.

    The servers come from the configuration file; there is no default. It listens on no port and sets no clock.
    """
    setting = read_setting(find_config(os.environ) if config_path is None else config_path, os.environ)
    note = StandardError().note
    with System(note) as system:
        one = Agent(setting, system, note)
        if not once:
            one.run()
            return
        record = one.once()
    finish(record, "text")

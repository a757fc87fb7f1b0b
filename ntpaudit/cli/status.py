"""`ntpaudit status`: what the agent concluded last."""

import click

from ntpaudit.cli.output import wants_colour
from ntpaudit.cli.parameters import Parsed
from ntpaudit.cli.state import history_path, read_config, this_moment
from ntpaudit.cli.stream import tell
from ntpaudit.core.policy import Severity
from ntpaudit.core.wording import parse_span
from ntpaudit.errors import StoreError
from ntpaudit.sinks.standing import FORMATS, render, render_absence

EPILOG = """\b
Examples:
  ntpaudit status
  ntpaudit status --format json | jq .record.offset
  ntpaudit status --format nagios           a plugin's line, from what the agent knows: it asks no server
  ntpaudit status --stale 15m               believe a record for so long

\b
A record older than three of the agent's local intervals and 10 s is stale: nothing is known of the clock since.
Where the agent runs as a service, only root may read what it keeps: sudo ntpaudit status.

\b
Exit status: 0 ok, 1 warning, 2 critical, 3 unknown (stale, or no agent), 64 usage, 78 configuration.
"""


@click.command(epilog=EPILOG)
@click.option("--config", "config_path", type=click.Path(readable=False), help="Read this configuration file.")
@click.option(
    "--format", "format_name", type=click.Choice(FORMATS), default="text", show_default=True, help="How to say it."
)
@click.option("--stale", type=Parsed("DURATION", parse_span), help="An older record is stale, such as 15m.")
def status(config_path: str | None, format_name: str, stale: float | None) -> None:
    """Say what the agent concluded last, and how old that is. Nothing is asked of the network."""
    from ntpaudit.store.past import find_standing
    from ntpaudit.store.reading import START, open_history

    path = history_path(read_config(config_path), by_agent=True)
    try:
        with open_history(path) as history:
            found = find_standing(history, this_moment(), stale)
        if found is None:
            raise StoreError(f"no agent has kept a record in {path}; {START}")
    except StoreError as error:
        tell([render_absence(str(error), format_name, colour=wants_colour())])
        raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error
    standing, stored = found
    tell([render(standing, format_name, stored, colour=wants_colour())])
    raise click.exceptions.Exit(standing.severity.exit_status)

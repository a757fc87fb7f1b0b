"""`ntpaudit status`: the agent's last result."""

import click

from ntpaudit.cli.output import format_option, layout, plugin_line_on_config_error, write_parts
from ntpaudit.cli.parameters import DURATION, config_option
from ntpaudit.cli.state import history_path, this_host
from ntpaudit.core.policy import Severity
from ntpaudit.core.staleness import wait_of
from ntpaudit.errors import StoreError
from ntpaudit.reports.status import FORMATS, render, render_absence, waiting

EPILOG = """\b
Examples:
  ntpaudit status
  ntpaudit status --format json | jq .record.offset
  ntpaudit status --format nagios           a plugin's line from the agent's last record; no query
  ntpaudit status --stale 15m               accept a record for 15 min

\b
A record older than three local intervals of the agent plus 10 s is stale: the current offset is unknown then.
Only root can read the records of an agent that runs as a service: sudo ntpaudit status.

\b
Exit status: 0 ok, 1 warning, 2 critical, 3 unknown (stale, or no agent), 64 usage, 78 configuration (3 with
--format nagios).
"""


@click.command(epilog=EPILOG)
@config_option
@format_option(FORMATS)
@click.option("--stale", type=DURATION, help="Maximum age of a record, such as 15m.")
@plugin_line_on_config_error
def status(config_path: str | None, format_name: str, stale: float | None) -> None:
    """Show the agent's last result and its age. No server is queried."""
    from ntpaudit.store.lock import agent_vouches
    from ntpaudit.store.queries import open_history
    from ntpaudit.store.readonly import no_record

    path, agent = history_path(config_path, by_agent=True), None
    runs = agent_vouches(path)  # checked before anything is read
    try:
        with open_history(path) as history:
            found, head = history.status(lambda: this_host(runs), stale), history.chain_head()
            if found is None:
                wait = wait_of(history.agent_state(), this_host(runs))
                agent = None if wait is None else history.agent_state()
                raise StoreError(no_record(path) if wait is None else waiting(wait))
    except StoreError as error:
        write_parts([render_absence(str(error), format_name, agent, **layout())])
        raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error
    status, stored = found
    write_parts([render(status, format_name, stored, head, **layout())])
    raise click.exceptions.Exit(status.severity.exit_status)

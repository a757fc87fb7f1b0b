"""`ntpaudit explain`: what a finding means, and the numbers of this host behind it."""

import json
import os

import click
from click.shell_completion import CompletionItem

from ntpaudit.cli.output import format_option, layout, write_parts
from ntpaudit.cli.parameters import config_option
from ntpaudit.cli.state import history_path, this_host
from ntpaudit.core.record import Record
from ntpaudit.core.units import format_duration
from ntpaudit.errors import StoreError, nearest
from ntpaudit.reports.explanation import FORMATS, IDS, Here, of_file, render, render_json, render_list, rules_of
from ntpaudit.store.rows import ROW_ERRORS, checked_record

MAX_BYTES = 1 << 24  # a record has about 10 kB

EPILOG = """\b
Examples:
  ntpaudit explain                                  list all findings, those of this host first
  sudo ntpaudit explain offset-out                  with the numbers of the agent's last record
  ntpaudit check --format json ntp1 ntp2 ntp3 ntp4 | ntpaudit explain source-quorum --record -
  ntpaudit explain ordering-risk --format json | jq .findings[0].controls

\b
Only root can read the records of an agent that runs as a service. Without a record, the finding is explained
without numbers. Of several records in FILE (JSON Lines, as `ntpaudit history --format json` writes them), the
last one counts.

\b
Exit status: 0, 64 usage (also: no such finding, or FILE has no record), 78 configuration.
"""


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(one, help=rules_of(one)[0].meaning) for one in IDS if one.startswith(incomplete)]


@click.command(epilog=EPILOG)
@click.argument("finding", required=False, metavar="[FINDING]", shell_complete=_complete)
@click.option(
    "--record",
    "record_path",
    type=click.Path(readable=False),
    metavar="FILE",
    help="Show the numbers of this record, as `ntpaudit check --format json` writes it; - is standard input.",
)
@config_option
@format_option(FORMATS)
def explain(finding: str | None, record_path: str | None, config_path: str | None, format_name: str) -> None:
    """Explain a finding: its meaning and formula, this host's numbers, the fix, and the controls it bears on.

    FINDING is the id of a finding, such as offset-out; without it, all findings are listed. No server is queried.
    """
    if finding is not None and finding not in IDS:
        guess = nearest(finding, IDS) or "; `ntpaudit explain` lists all findings"
        raise click.UsageError(f"there is no finding {finding!r}{guess}")
    here = _of_agent(config_path) if record_path is None else _of_file(record_path)
    if format_name == "json":
        text = render_json(IDS if finding is None else [finding], here)
    else:
        text = render_list(here, **layout()) if finding is None else render(finding, here, **layout())
    write_parts([text])


def _of_agent(config_path: str | None) -> Here:
    """Return the agent's last record, or why there is none."""
    from ntpaudit.store.lock import agent_vouches
    from ntpaudit.store.queries import open_history
    from ntpaudit.store.readonly import no_record

    path = history_path(config_path, by_agent=True)
    runs = agent_vouches(path)  # checked before anything is read
    try:
        with open_history(path) as history:
            found = history.status(lambda: this_host(runs))
    except StoreError as error:
        return Here(None, f"none: {error}")
    if found is None:
        return Here(None, f"none: {no_record(path)}")
    status, _ = found
    name, age = status.record.host.name, format_duration(max(1.0, round(status.age_s)))
    doubt = status.doubt or f"it is {age} old"
    present = f"; {doubt}, so the present state is unknown" if status.is_stale else ""
    source = f"the agent's last record on {name}, {age} ago{present}"
    return Here(status.record, source, status.age_s, status.is_stale)


def _of_file(path: str) -> Here:
    """Return the record in a file. UsageError if there is none."""
    try:
        with open(0 if path == "-" else os.fspath(path), "rb") as file:
            content = file.read(MAX_BYTES)
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"--record: {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    try:
        record = read_record(content)
    except ROW_ERRORS as error:
        raise click.UsageError(
            f"--record: {path} has no record of ntpaudit; `ntpaudit check --format json` writes one"
        ) from error
    return of_file(record, "standard input" if path == "-" else path)


def read_record(content: bytes) -> Record:
    """Read a record in JSON, the last one of several lines, or that of `ntpaudit status --format json`.

    One of `ROW_ERRORS` if it is none.
    """
    text = content.decode()
    try:
        data = json.loads(text)
    except ValueError:
        data = json.loads(text.strip().rpartition("\n")[2])
    return checked_record(data.get("record", data))

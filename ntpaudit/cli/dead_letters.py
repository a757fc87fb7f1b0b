"""`ntpaudit history dead-letters`: records that the database refused for good."""

import json
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from ntpaudit.cli.output import exit_on, format_option, note, page_width, write_parts
from ntpaudit.cli.parameters import config_option
from ntpaudit.cli.state import history_path
from ntpaudit.core.units import format_utc, plural
from ntpaudit.errors import StoreError
from ntpaudit.render.text_safety import one_line

if TYPE_CHECKING:
    from ntpaudit.store.dead_letters import DeadLetter

SCHEMA = "ntpaudit.dead-letter/1"

EPILOG = """\b
Examples:
  ntpaudit history dead-letters list
  ntpaudit history dead-letters list --format json | jq -r .lines
  ntpaudit history dead-letters resend --all
  ntpaudit history dead-letters resend 17 18
  ntpaudit history dead-letters drop --all

\b
A record becomes a dead letter when the database has refused it eight times and has accepted another record after each
refusal. The reason is the database's reply. Fix its cause first (most often a field type conflict, or a retention
policy shorter than the outage), then resend. Use sudo if the agent runs as a service.

\b
Exit status: 0 done, 3 not readable or no such dead letter, 64 usage, 78 configuration.
"""


@click.group("dead-letters", epilog=EPILOG, short_help="List, resend or drop what the database refused.")
def dead_letters() -> None:
    """List, resend or drop records that the database refused for good."""


_ids = click.argument("ids", nargs=-1, type=click.IntRange(1, 2**63 - 1), metavar="[ID]...")


@dead_letters.command("list", epilog=EPILOG, short_help="Show each dead letter, and why it was refused.")
@format_option(["table", "json"])
@config_option
def list_(format_name: str, config_path: str | None) -> None:
    """Show each dead letter: its ID, its time, and why the database refused it."""
    from ntpaudit.store.queries import open_history

    with exit_on(StoreError), open_history(history_path(config_path, by_agent=True)) as history:
        write_parts((_json if format_name == "json" else _table)(history.dead_letters()))


@dead_letters.command(epilog=EPILOG, short_help="Put dead letters back into the outbox.")
@_ids
@click.option("--all", "is_all", is_flag=True, help="Resend every dead letter.")
@config_option
def resend(ids: Sequence[int], is_all: bool, config_path: str | None) -> None:
    """Put dead letters back into the outbox; the agent sends them within a minute, after the records in it."""
    from ntpaudit.store import dead_letters as stored

    with exit_on(StoreError):
        done = stored.resend(*_chosen(config_path, ids, is_all))
    click.echo(f"{plural(done.sent, 'record')} put back into the outbox")
    if done.unstamped:
        its = "its" if done.unstamped == 1 else "their"
        note(f"{plural(done.unstamped, 'dead letter')} cannot be sent: {its} time is not known")
    if done.damaged:
        those = plural(done.damaged, "dead letter")
        note(f"{those} cannot be sent: damaged in the history; drop those that `list` shows as damaged")


@dead_letters.command(epilog=EPILOG)
@_ids
@click.option("--all", "is_all", is_flag=True, help="Drop every dead letter.")
@config_option
def drop(ids: Sequence[int], is_all: bool, config_path: str | None) -> None:
    """Delete dead letters. The audits themselves stay in the history."""
    from ntpaudit.store import dead_letters as stored

    with exit_on(StoreError):
        done = stored.drop(*_chosen(config_path, ids, is_all))
    click.echo(f"{plural(done, 'dead letter')} deleted")


def _chosen(config_path: str | None, ids: Sequence[int], is_all: bool) -> tuple[str, Sequence[int] | None]:
    """Return the history and the chosen IDs, None for all."""
    if is_all == bool(ids):
        raise click.UsageError("name dead letters by ID, or use --all")
    return history_path(config_path, by_agent=True), None if is_all else ids


def _table(entries: "Iterator[DeadLetter]") -> Iterator[str]:
    title, width = f"{'id':>8}  {'time':20}  reason\n", page_width()
    for entry in entries:
        time = "unknown" if entry.stamp_ns is None else f"{format_utc(entry.stamp_ns)[:19]}Z"
        start, lines = f"{entry.id:>8}  {time:20}  ", [one_line(entry.reason)]
        if width is not None:
            lines = wrap(lines[0], max(width - len(start), 20), break_on_hyphens=False) or [""]
        yield title + start + f"\n{' ' * len(start)}".join(lines) + "\n"
        title = ""
    if title:
        yield "no dead letters\n"


def _json(entries: "Iterator[DeadLetter]") -> Iterator[str]:
    for entry in entries:
        utc = None if entry.stamp_ns is None else format_utc(entry.stamp_ns)
        data = {"schema": SCHEMA, "id": entry.id, "utc": utc, "reason": entry.reason, "lines": entry.lines}
        yield json.dumps(data, ensure_ascii=False) + "\n"

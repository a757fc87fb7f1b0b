"""`ntpaudit journal`: steps of the clock in systemd's journal."""

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ntpaudit.cli import output
from ntpaudit.cli.parameters import TIME, RelativeTime, parsed, resolve
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import JournalError

if TYPE_CHECKING:
    from ntpaudit.core.journal_steps import Row
    from ntpaudit.probes.journal import Journal, JournalSource
    from ntpaudit.reports.journal_steps import JournalReport

PROGRESS_S = 2.0  # interval of progress messages
_BOOT = re.compile(r"[+-]?\d{1,6}|[0-9a-f]{32}(?:[+-]\d{1,6})?|all")

EPILOG = """\b
Examples:
  sudo ntpaudit journal                           all that this host's journal has
  sudo ntpaudit journal --since 90d --format csv > steps.csv
  sudo ntpaudit journal --boot -1                 the boot before this one
  ntpaudit journal --directory /mnt/image         another host's files, or its journal folder
  ntpaudit journal --format json | jq 'select(.size_s < 0)'

\b
Each entry of the journal has the time of two clocks. Their difference changes when the clock is set, and when the host
is suspended; a slew does not change it. Changes of less than 1 ms are noise. Times are those of the host's own clock,
in UTC, the oldest first. A step within 5 minutes after the boot, and one of less than 10 ms, is low and does not count.
Only root and members of the group systemd-journal can read the whole journal.

\b
Exit status: 0 no step that counts, 1 a step of 10 ms or more, 2 a step of 1 s or more whose cause the journal does not
name, 3 not all could be read, or nothing, 64 usage. The worst counts; 2 is worse than 3, and 3 is worse than 1.
"""


def _parse_boot(text: str) -> str:
    if not _BOOT.fullmatch(text):
        raise ValueError(
            f"{text!r}: write the boot's id (32 hex digits), or a number: 0 is this boot, -1 the one before"
        )
    return text


@click.command(epilog=EPILOG)
@click.option(
    "--directory", metavar="DIR", help="Read the journal files of this folder, or of a host whose root it is."
)
@click.option("--file", "files", metavar="FILE", multiple=True, help="Read this journal file. Repeatable.")
@click.option("--since", type=TIME, help="Start: an age such as 90d, or a time in UTC.  [default: all]")
@click.option("--until", type=TIME, help="End: an age, or a time in UTC.  [default: now]")
@click.option("--boot", type=parsed("BOOT", _parse_boot), help="Only this boot: its id, 0 for this one, -1 before it.")
@output.format_option(("text", "json", "csv"))
def journal(
    directory: str | None,
    files: tuple[str, ...],
    since: RelativeTime | int | None,
    until: RelativeTime | int | None,
    boot: str | None,
    format_name: str,
) -> None:
    """Find steps of the clock in systemd's journal, of all boots that it has: size, effect on logs, cause."""
    from ntpaudit.probes.journal import JournalSource
    from ntpaudit.reports.journal_steps import render

    if directory is not None and files:
        raise click.UsageError("--directory cannot be combined with --file")
    now_ns = time.time_ns()
    since_ns, until_ns = (None if when is None else resolve(when, now_ns) for when in (since, until))
    if since_ns is not None and until_ns is not None and since_ns > until_ns:
        raise click.UsageError("--since is later than --until")
    source = JournalSource(directory, files, None if since_ns is None else max(0, since_ns // NS_PER_S), boot)
    with output.exit_on(JournalError):
        report = _read(source, until_ns)
    output.write_parts(render(report, format_name, width=output.page_width(), colour=output.wants_colour()))
    raise click.exceptions.Exit(report.severity.exit_status)


def _read(source: "JournalSource", until_ns: int | None) -> "JournalReport":
    from ntpaudit.core.journal_steps import JournalTimes, NearLines, changes
    from ntpaudit.probes.journal import OWN_ONLY_REMEDY, Journal
    from ntpaudit.reports.journal_steps import JournalReport

    reader, times = Journal(source), JournalTimes()
    for rows in _with_progress(reader):
        times.add(rows)
    if times.range_us is None:
        where = " of this period" if source.since_s else " of this boot" if source.boot else ""
        raise JournalError(f"the journal has no entries{where}")
    jumps = [jump for jump in times.jumps() if until_ns is None or jump.before_us * 1000 <= until_ns]
    near = NearLines(jumps)
    lines = [line for line in reader.lines(near.boot_ids) if near.has(line.boot_id, line.monotonic_us)] if jumps else []
    found = changes(times, jumps, lines, reader.kernel_boots)
    for text in reader.notes:
        output.note(f"journalctl: {text}")
    if reader.is_own_only:
        output.note(f"only your own messages can be read, so causes and steps can be missing; {OWN_ONLY_REMEDY}")
    if not source.is_persistent:
        output.note(
            "there is no persistent journal: only this boot is recorded; `mkdir /var/log/journal` and "
            "`systemctl restart systemd-journald` change that"
        )
    return JournalReport(found, times.entries, times.boots, times.range_us, reader.is_own_only, bool(reader.notes))


def _with_progress(reader: "Journal") -> "Iterator[list[Row]]":
    due_s, count = time.monotonic() + PROGRESS_S, 0
    for rows in reader.times():
        count += len(rows)
        if time.monotonic() >= due_s:
            output.show_progress(f"read {count} entries")
            due_s = time.monotonic() + PROGRESS_S
        yield rows

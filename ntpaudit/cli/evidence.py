"""`ntpaudit evidence`: reports about a period, and whether a history is what its agent wrote."""

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import click

from ntpaudit.cli.anchor import anchor, excerpt, verify_anchor
from ntpaudit.cli.evidence_report import report
from ntpaudit.cli.output import exit_on, note, write_parts
from ntpaudit.cli.parameters import TIME, RelativeTime, config_option, parsed, resolve
from ntpaudit.config.values import LANGUAGES, Language, parse_url
from ntpaudit.core.observation import host_label
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import ReadError, StoreError
from ntpaudit.render.text_safety import one_line

if TYPE_CHECKING:
    from ntpaudit.store.verification import Check

SINCE = RelativeTime(400 * 86_400.0)  # as long as entries of the chain are kept by default
AHEAD_NS = 86_400 * NS_PER_S  # points that are stamped ahead of now are compared too

EPILOG = """\b
Examples:
  sudo ntpaudit evidence verify
  sudo ntpaudit evidence verify --against http://influxdb:8086
  ntpaudit evidence verify --history copy/history.sqlite3 --against http://vm:8428 --language promql --host web1

\b
Every stored row has an entry in a chain of SHA-256 hashes, and each entry covers all entries before it. The checks:
  links      each entry continues the one before
  days       the headers of days, which retention never removes, fit
  rows       each row is as it was when its entry was made
  missing    each row that is gone was removed by retention
  unchained  no row was inserted without an entry
  end        the newest rows are there
  time       uptimes never go back within a boot
  delivered  (--against) each head that the agent delivered is on this chain

\b
What this proves: rows were not changed, inserted or removed after their heads had been delivered, or copied elsewhere.
What it does not prove: that the agent recorded the truth. Root of the host can stop or replace the agent and write
false records from then on, and can rewrite the whole chain; the rewritten chain does not fit heads delivered before.
Without --against, only changes by somebody who did not rewrite the chain are found. The database must not let this
host change its old points: give agents write-only tokens. The hashing rule and the details: docs/evidence.md.

\b
Exit status: 0 everything fits, 2 something does not fit, 3 nothing to check (no history, no chain, no delivered head,
database not readable), 64 usage, 78 configuration.
"""


@click.group()
def evidence() -> None:
    """Report the time within tolerance, and show that a history is what its agent wrote."""


for command in (report, anchor, verify_anchor, excerpt):
    evidence.add_command(command)


@evidence.command(epilog=EPILOG, short_help="Compare a history with its chain and with delivered heads.")
@click.option("--history", "path", type=click.Path(readable=False), help="The history.  [default: this host's]")
@click.option("--against", type=parsed("URL", parse_url), help="Compare with the heads that this database has.")
@click.option("--language", type=click.Choice(LANGUAGES), help="Query language of the database.  [default: influxql]")
@click.option("--database", metavar="NAME", help="Database or bucket.  [default: ntpaudit]")
@click.option("--host", metavar="NAME", help="The host on the points.  [default: that of the newest record]")
@click.option("--since", type=TIME, help="Compare heads delivered since then.  [default: 400d]")
@config_option
def verify(
    path: str | None,
    against: str | None,
    language: Language | None,
    database: str | None,
    host: str | None,
    since: RelativeTime | int | None,
    config_path: str | None,
) -> None:
    """Check every row of a history against its chain, and name the first that does not fit."""
    from ntpaudit.cli.fleet_reading import progress
    from ntpaudit.cli.state import history_path
    from ntpaudit.store import verification

    if against is None and (unused := [one for one in (language, database, host, since) if one is not None]):
        raise click.UsageError(f"{unused[0]}: --language, --database, --host and --since belong to --against")
    with exit_on(StoreError):
        found = path or history_path(config_path, by_agent=True)
        with progress(f"verifying {found}"):
            checks = verification.verify(found)
        is_whole = True
        if against is not None:
            name = host or _host_of(verification.newest_host(found))
            if name is None:
                raise StoreError(f"{found} names no host: name it with --host")
            try:
                delivered = _delivered(found, name, against, language, database, since, config_path)
                checks += [] if delivered is None else [delivered]
            except ReadError as error:
                delivered = None
                note(str(error))
            is_whole = delivered is not None
    write_parts(_lines(checks, "" if is_whole else f"{against}: no head of this host to compare with"))
    does_fit = all(check.fits for check in checks)
    severity = Severity.CRITICAL if not does_fit else Severity.OK if is_whole else Severity.UNKNOWN
    raise click.exceptions.Exit(severity.exit_status)


def _host_of(newest: tuple[str, str | None] | None) -> str | None:
    """Return the host name that points have."""
    return None if newest is None else host_label(one_line(newest[0]), newest[1])


def _delivered(
    path: str,
    host: str,
    url: str,
    language: Language | None,
    database: str | None,
    since: RelativeTime | int | None,
    config_path: str | None,
) -> "Check | None":
    from ntpaudit.cli import fleet_reading
    from ntpaudit.fleet.heads import read_heads
    from ntpaudit.store.verification import compare

    reader, _ = fleet_reading.open_named(config_path, url, language, database)
    with closing(reader), fleet_reading.progress(f"reading the heads of {host}"):
        now_ns = reader.now_ns()
        return compare(path, read_heads(reader, host, max(0, resolve(since or SINCE, now_ns)), now_ns + AHEAD_NS))


def _lines(checks: "list[Check]", missing: str) -> Iterator[str]:
    for check in checks:
        yield f"{'ok' if check.fits else 'FAIL':<5} {check.name:<10} {check.text}\n"
    if missing:
        yield f"{'-':<5} {'delivered':<10} {missing}\n"
    wrong = [check for check in checks if not check.fits]
    if not wrong:
        yield "The history fits its chain.\n"
        return
    first = min(wrong, key=lambda check: float("inf") if check.sequence is None else check.sequence)
    yield f"The history does not fit its chain. First: {first.text}\n"

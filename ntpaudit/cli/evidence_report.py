"""`ntpaudit evidence report`: were the clocks within tolerance in a period, and for which share of the time?"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ntpaudit import __version__
from ntpaudit.cli import fleet_reading
from ntpaudit.cli.fleet_reading import FleetOptions, progress
from ntpaudit.cli.output import exit_on, note, put
from ntpaudit.cli.parameters import TIME, RelativeTime, parsed, resolve
from ntpaudit.cli.state import history_path, this_host
from ntpaudit.config.values import parse_positive_duration
from ntpaudit.core.evidence.hosts import utc
from ntpaudit.core.evidence.model import Check, Period
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.errors import AnchorError, OutputError, ReadError, StoreError
from ntpaudit.files import replacing, sha256_hex, unwritable

if TYPE_CHECKING:
    from ntpaudit.core.evidence.report import EvidenceReport, Inputs

_Function = TypeVar("_Function", bound=Callable[..., None])

FORMATS = ("html", "pdf", "json", "csv")

EPILOG = """\b
Examples:
  ntpaudit evidence report --period 2026Q3 --output report.html          this host, from its history
  ntpaudit evidence report --period 2026Q3 --all --inventory hosts.txt --format pdf --output report.pdf
  ntpaudit evidence report --from 2026-07-01 --to 2026-10-01 --site ams --format csv --output tables/
  ntpaudit evidence report --period 2026-09 --host web1 --host db1 --critical 50ms --format json
  ntpaudit evidence report --period 2026-09 --all --exceptions exceptions.toml --previous august.pdf

\b
Without --host, --site, --all, --inventory and a database, the report is about this host, from its history. Else
the database is that of [fleet] in the configuration, else that of [influxdb]. Times are UTC and full hours.
Time that nothing proves counts as not within, unless an exception covers it. Time in which a host was off does not
count. --format csv writes one file for each table into the folder of --output.
The same period and data give the same bytes, but for the time at which the report was made; $SOURCE_DATE_EPOCH sets it.

\b
Exit status: 0 all time that counts is within, 1 some was not shown to be, 2 some was beyond the tolerance for certain,
or the records failed a check, 3 nothing is known or readable, or no time counts, 64 usage, 78 configuration.
"""


class ReportOptions(NamedTuple):
    """Which hosts, the period, and what to write."""

    period: Period | None
    since: RelativeTime | int | None
    until: RelativeTime | int | None
    hosts: tuple[str, ...]
    site: str | None
    all_hosts: bool
    critical: float | None
    exceptions: str | None
    previous: str | None
    history: str | None
    anchors: str | None
    format_name: str
    output: str | None


def parse_period(text: str) -> Period:
    """Read a year, a quarter or a month: 2026, 2026Q3 or 2026-09. ValueError with an example for anything else."""
    year, months, first = text[:4], 12, 1
    rest = text[4:]
    if rest[:1] in ("Q", "q") and rest[1:] in ("1", "2", "3", "4"):
        months, first = 3, 3 * int(rest[1:]) - 2
    elif rest[:1] == "-" and len(rest) == 3 and rest[1:].isdecimal() and 1 <= int(rest[1:]) <= 12:
        months, first = 1, int(rest[1:])
    elif rest:
        year = ""
    if not (year.isascii() and year.isdecimal() and len(year) == 4 and 1970 <= int(year) < 9999):
        raise ValueError(f"{text!r} is no period: write a year, a quarter or a month, such as 2026, 2026Q3 or 2026-09")
    begin = datetime(int(year), first, 1, tzinfo=UTC)
    after = first + months
    end = datetime(int(year) + after // 13, (after - 1) % 12 + 1, 1, tzinfo=UTC)
    return Period(int(begin.timestamp()), int(end.timestamp()))


def _database_options(command: _Function) -> _Function:
    for option in reversed(fleet_reading.DATABASE_OPTIONS):
        command = option(command)
    return command


@click.command(epilog=EPILOG, short_help="Report the time within tolerance, with all that an auditor asks.")
@click.option("--period", type=parsed("PERIOD", parse_period), help="A year, quarter or month: 2026, 2026Q3, 2026-09.")
@click.option("--from", "since", type=TIME, help="Begin: 2026-07-01, 2026-07-01T06:00, or an age such as 90d.")
@click.option("--to", "until", type=TIME, help="End, which is not part of the period.")
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="Only this host of the database; repeat it.")
@click.option("--site", metavar="NAME", help="Only hosts of this site of the database.")
@click.option("--all", "all_hosts", is_flag=True, help="All hosts of the database.")
@click.option("--inventory", metavar="FILE", help="Hosts that must be in the report: one per line, or `host, site`.")
@click.option("--exceptions", metavar="FILE", help="Accepted findings, with an owner and an end.")
@click.option(
    "--critical",
    type=parsed("DURATION", parse_positive_duration),
    help="Judge again by this tolerance, instead of that in force.",
)
@click.option("--previous", metavar="FILE", help="The previous report: its SHA-256 goes into this one.")
@click.option("--history", metavar="FILE", help="This history instead of the configured one.")
@click.option(
    "--anchors",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False),
    help="Verify the anchors of this folder (docs/anchors.md).",
)
@click.option("--format", "format_name", type=click.Choice(FORMATS), default="html", help="Output format.")
@click.option("--output", metavar="PATH", help="Write to this file, or for csv into this folder.")
@_database_options
def report(
    period: Period | None,
    since: RelativeTime | int | None,
    until: RelativeTime | int | None,
    hosts: tuple[str, ...],
    site: str | None,
    all_hosts: bool,
    inventory: str | None,
    exceptions: str | None,
    critical: float | None,
    previous: str | None,
    history: str | None,
    anchors: str | None,
    format_name: str,
    output: str | None,
    **database: Any,
) -> None:
    """Report for which share of a period clocks were within tolerance, when not, and what that rests on.

    The report has the answer, coverage, method, tolerance, each host, excursions, gaps, exceptions, clauses of rules
    and what bears on them, and the result of each check of the records.
    """
    options = ReportOptions(
        *(period, since, until, hosts, site, all_hosts, critical, exceptions, previous, history, anchors),
        *(format_name, output),
    )
    fleet = FleetOptions(site=site, inventory=inventory, output=output, **database)
    _check(options, fleet)
    with exit_on(ReadError, StoreError, OutputError):
        found = _of_database(options, fleet) if _reads_database(options, fleet) else _of_history(options, fleet)
        with progress("writing the report"):
            _write(found, options)
    raise click.exceptions.Exit(found.exit_status)


def _reads_database(options: ReportOptions, fleet: FleetOptions) -> bool:
    chosen = (fleet.url, fleet.language, fleet.database, fleet.env, fleet.is_shown, fleet.inventory)
    return any(chosen) or bool(options.hosts) or options.site is not None or options.all_hosts


def _check(options: ReportOptions, fleet: FleetOptions) -> None:
    fleet_reading.check_read(fleet)
    for name in ("exceptions", "previous", "history"):
        if getattr(options, name) == "":
            raise click.UsageError(f"--{name} is empty: omit it, or give it a value")
    if "" in options.hosts:
        raise click.UsageError("--host is empty: give it the name of a host")
    if options.period is not None and (options.since is not None or options.until is not None):
        raise click.UsageError("--period cannot be combined with --from or --to")
    if options.period is None and (options.since is None or options.until is None):
        raise click.UsageError("give the period: --period 2026Q3, or --from and --to")
    if sum((bool(options.hosts), options.site is not None, options.all_hosts)) > 1:
        raise click.UsageError("--host, --site and --all exclude each other")
    if options.history is not None and _reads_database(options, fleet):
        raise click.UsageError("--history is for a report about one host, which reads no database")
    if options.format_name == "csv" and options.output in (None, "-"):
        raise click.UsageError("--format csv writes several files: name a folder with --output")


def _period(options: ReportOptions, now_ns: int) -> Period:
    """Return the period, by what is now. UsageError if it has no length or begins in the future, or at no full hour."""
    period = options.period or Period(_hour(options.since, "--from", now_ns), _hour(options.until, "--to", now_ns))
    if period.length_s <= 0:
        raise click.UsageError(
            f"the period has no length: it begins at {utc(period.begin_s)}, ends at {utc(period.end_s)}"
        )
    if period.begin_s < 0:
        raise click.UsageError("the period begins before 1970")
    now_s = now_ns // NS_PER_S
    if period.begin_s >= now_s:
        raise click.UsageError(f"the period begins in the future ({utc(period.begin_s)}; now: {utc(now_s)})")
    if period.end_s > now_s:
        note(f"the period ends in the future ({utc(period.end_s)}): its time from now on counts as unaccounted")
    return period


def _hour(when: RelativeTime | int | None, option: str, now_ns: int) -> int:
    assert when is not None
    seconds, rest = divmod(resolve(when, now_ns) // NS_PER_S, HOUR_S)
    if rest and not isinstance(when, RelativeTime):
        raise click.UsageError(f"{option} is not a full hour: accounts of time are kept for hours and days")
    return seconds * HOUR_S


def _inputs(options: ReportOptions, period: Period, source: str) -> "Inputs":
    from ntpaudit.core.evidence.report import Inputs

    previous = None if options.previous is None else _hash(options.previous, "--previous")
    accepted, hashes = options.exceptions, dict[str, str]()
    if accepted not in (None, "-"):
        hashes["exceptions"] = _hash(str(accepted), "--exceptions")
    exceptions = () if accepted is None else fleet_reading.exceptions_of(accepted)
    return Inputs(period, source, exceptions=exceptions, critical_s=options.critical, hashes=hashes, previous=previous)


def _hash(path: str, option: str) -> str:
    try:
        with open(path, "rb") as file:
            return sha256_hex(file.read())
    except OSError as error:
        raise click.UsageError(f"{option} {path}: {error.strerror}") from error


def _of_database(options: ReportOptions, fleet: FleetOptions) -> "EvidenceReport":
    from ntpaudit.core.evidence.report import assemble
    from ntpaudit.fleet.evidence import read_hosts

    config, _ = fleet_reading.settle(fleet)
    listed = fleet_reading.inventory_of(fleet, config) if not options.hosts else None
    reader, source = fleet_reading.open_database(fleet, config)
    with closing(reader), progress("reading the accounts of all hosts"):
        period = _period(options, reader.now_ns())
        known = reader.names(options.site)
        inputs = _inputs(options, period, source)
        chains = Check(
            "chains", "not-done", "they are on the hosts, where `ntpaudit evidence verify --against URL` verifies them"
        )
        inputs = inputs._replace(checks=(chains, _anchored(options.anchors, None, fleet)))
        if options.hosts:
            inputs = inputs._replace(listed=dict.fromkeys(options.hosts, ""))
            known &= set(options.hosts)
        elif listed is not None:
            chosen = {
                name: listed.sites.get(name, "")
                for name in listed.names
                if options.site is None or listed.sites.get(name, options.site) == options.site
            }
            path = fleet.inventory or config.fleet.inventory
            hashes = {} if path in (None, "-") else {"inventory": _hash(str(path), "--inventory")}
            inputs = inputs._replace(listed=chosen, hashes={**hashes, **inputs.hashes})
        elif not known:
            raise reader.no_hosts(options.site)
        return assemble(read_hosts(reader, known, period, options.site), inputs)


def _of_history(options: ReportOptions, fleet: FleetOptions) -> "EvidenceReport":
    from ntpaudit.core.evidence.report import assemble
    from ntpaudit.store.queries import open_history

    path, damaged = options.history or history_path(fleet.config_path, by_agent=True), list[str]()
    with progress(f"reading {path}"), open_history(path, damaged.append) as stored:
        now_ns = stored.corrected_now(this_host().moment)
        period = _period(options, now_ns)
        inputs = _inputs(options, period, "")
        records = stored.evidence(period, now_ns, options.critical, damaged)
    with progress(f"verifying {path}"):
        checks = (*_verified(path), _anchored(options.anchors, path, fleet))
    inputs = inputs._replace(source=f"the history of {records.name}", is_judged=True, checks=checks)
    return assemble([records], inputs)


def _verified(path: str) -> "tuple[Check, ...]":
    """Return the result of each check of the history by its own chain; what its head says elsewhere is not checked."""
    from ntpaudit.store import verification

    try:
        found = verification.verify(path)
    except StoreError as error:
        return (Check("chain", "not-done", str(error)),)
    checks = [Check(one.name, "passed" if one.fits else "failed", one.text) for one in found]
    return (
        *checks,
        Check("delivered", "not-done", "compare with the database: ntpaudit evidence verify --against URL"),
    )


def _anchored(folder: str | None, history: str | None, fleet: FleetOptions) -> Check:
    """Return the result of verifying anchors, and of the chain of a history against them."""
    from ntpaudit.cli.anchor import verify_folder

    if folder is None:
        return Check("anchored", "not-done", "no folder of anchors was given: --anchors FOLDER")
    try:
        return Check("anchored", *verify_folder(folder, history, fleet.config_path))
    except (StoreError, AnchorError) as error:
        return Check("anchored", "not-done", str(error))


def _write(found: "EvidenceReport", options: ReportOptions) -> None:
    from ntpaudit.reports import evidence_csv, evidence_json, evidence_page, evidence_pdf

    made = _made()
    match options.format_name:
        case "html":
            put(evidence_page.render(found, made), options.output)
        case "json":
            put(evidence_json.render(found, made), options.output)
        case "pdf":
            _put_octets(evidence_pdf.render(found, made), options.output)
        case "csv":
            folder = str(options.output)
            with _write_errors(folder):
                os.makedirs(folder, exist_ok=True)
            for name, text in (
                *evidence_csv.render(found).items(),
                ("manifest.json", evidence_json.render_manifest(found, made)),
            ):
                put(text, os.path.join(folder, name))


def _made() -> "Any":
    from ntpaudit.reports.evidence_json import Made

    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")  # https://reproducible-builds.org/specs/source-date-epoch/
    seconds = int(epoch) if epoch.isascii() and epoch.isdecimal() and len(epoch) < 12 else int(time.time())
    return Made(utc(seconds), __version__)


def _put_octets(data: bytes, path: str | None) -> None:
    """Write to standard output if the path is None or `-`, else replace the file. Raises OutputError."""
    import sys

    if path in (None, "-"):
        if sys.stdout.isatty():
            raise OutputError("a PDF is not written to a terminal", "name a file with --output")
        with _write_errors("the result"):
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        return
    with _write_errors(str(path)), replacing(str(path)) as file:
        file.write(data)


@contextmanager
def _write_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(unwritable(path, error)) from error

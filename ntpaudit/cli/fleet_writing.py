"""What `ntpaudit fleet` writes: a format, the page, and errors in the requested format."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from ntpaudit import __version__
from ntpaudit.cli.fleet_reading import progress
from ntpaudit.cli.output import note, page_width, replace_file, wants_colour, write_parts
from ntpaudit.cli.parameters import refuse_empty
from ntpaudit.core.fleet.model import Fleet, FleetPolicy, Host, HostStatus
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S, format_duration
from ntpaudit.errors import OutputError, ReadError
from ntpaudit.fleet.reader import Reader

if TYPE_CHECKING:
    from ntpaudit.core.fleet.model import Order

SPANS = 96
"""The number of parts of the page's period: a day is divided into quarters of an hour."""


class OutputOptions(NamedTuple):
    """Which hosts to show, in which format, and where to write them."""

    format_name: str = "text"
    flagged: bool = False
    limit: int | None = None
    output: str | None = None
    html: str | None = None
    period: float = 86_400.0


def check_output(options: OutputOptions, named: Mapping[str, str]) -> None:
    """Reject output options that contradict each other."""
    refuse_empty(output=options.output, html=options.html)
    if options.format_name == "nagios" and (options.flagged or options.limit):
        raise click.UsageError("--format nagios counts all hosts: it cannot be combined with --flagged or --limit")
    if options.html is None:
        if "period" in named:
            raise click.UsageError("--period is the period of the page: it needs --html")
        return
    if options.html == "-" and options.output is None and "format_name" in named:
        raise click.UsageError("--html - prints only the page: --format also needs --output FILE")
    if options.output is not None and os.path.realpath(options.html) == os.path.realpath(options.output):
        raise click.UsageError("--html and --output name the same file")


def render_page(
    reader: Reader, judged: Fleet, terms: FleetPolicy, site: str | None, period_s: float, source: str
) -> str:
    """Read the period for the fleet and its worst hosts, and return the page."""
    from ntpaudit.reports.fleet_page import MOST_SERIES, render

    begin_ns = judged.now_ns - round(period_s * NS_PER_S)
    worst = [one.name for one in judged.members if one.host is not None][:MOST_SERIES]
    with progress(f"reading {len(worst)} hosts over {format_duration(period_s)}"):
        host_series = reader.host_series(worst, begin_ns, judged.now_ns, SPANS)
    with progress(f"reading the fleet over {format_duration(period_s)}"):
        tallies = reader.tallies(begin_ns, judged.now_ns, SPANS, site)
    steps = reader.steps(begin_ns, judged.now_ns, site)
    return render(
        judged,
        host_series,
        tallies,
        steps,
        period_s=period_s,
        spans=SPANS,
        terms=terms,
        source=source,
        version=__version__,
    )


def render(judged: Fleet, options: OutputOptions, notes: Sequence[str]) -> str:
    """Return the fleet in the requested format; JSON and Nagios also contain the notes."""
    from ntpaudit.reports import fleet_csv, fleet_json, fleet_nagios, fleet_text

    shown = _chosen(judged.members, options)
    match options.format_name:
        case "json":
            return fleet_json.render(judged, shown, notes)
        case "csv":
            return fleet_csv.render(judged, shown)
        case "nagios":
            return fleet_nagios.render(judged, notes)
    width, colour = _layout(options.output)
    return fleet_text.render(judged, shown, is_flagged=options.flagged, width=width, colour=colour)


def _chosen(members: Sequence[HostStatus], options: OutputOptions) -> Sequence[HostStatus] | None:
    from ntpaudit.reports.fleet_summary import flagged

    if not options.flagged and options.limit is None:
        return None
    return (flagged(members) if options.flagged else members)[: options.limit]


def render_order(found: "Order", hosts: Sequence[Host], now_ns: int, severity: Severity, format_name: str) -> str:
    """Return the order of two hosts in the requested format."""
    from ntpaudit.reports import fleet_json, fleet_text

    estimates = [host.offset.estimate_s for host in hosts if host.offset is not None]
    if format_name == "json":
        return fleet_json.render_order(found, estimates, now_ns, severity)
    return fleet_text.render_order(found, estimates, now_ns, severity, width=page_width(), colour=wants_colour())


def report_absence(error: ReadError, options: OutputOptions, *, is_order: bool = False) -> Severity:
    """Report a read error in the requested format; on standard error for CSV and a page on standard output."""
    from ntpaudit.reports import fleet_json, fleet_nagios, fleet_text

    match options.format_name:
        case "json":
            schema = fleet_json.ORDER_SCHEMA if is_order else fleet_json.SCHEMA
            text = fleet_json.render_absence(error.reason, error.remedy, schema)
        case "nagios":
            text = fleet_nagios.render_absence(error.reason, error.remedy)
        case "text" if options.html != "-" or options.output is not None:
            width, colour = _layout(options.output)
            text = fleet_text.render_absence(error.reason, error.remedy, width=width, colour=colour)
        case _:
            note(str(error))
            return Severity.UNKNOWN  # an older table is kept
    try:
        put(text, options.output)
    except OutputError as unwritten:
        return report_failure(unwritten, options)
    return Severity.UNKNOWN


def report_failure(error: Exception, options: OutputOptions) -> Severity:
    """Report an error of usage, configuration or output; Nagios reads only the plugin's line."""
    if options.format_name == "nagios":
        from ntpaudit.reports import fleet_nagios

        text = fleet_nagios.render_absence(error.message if isinstance(error, click.UsageError) else str(error))
        try:
            put(text, None if isinstance(error, OutputError) else options.output)
        except OutputError:
            put(text, None)
    elif isinstance(error, OutputError):
        note(str(error))
    else:
        raise error
    return Severity.UNKNOWN


def put(text: str, output: str | None) -> None:
    """Write to standard output, or replace a file. Raises OutputError."""
    if output in (None, "-"):
        write_parts([text])
    else:
        replace_file(str(output), text)


def _layout(output: str | None) -> tuple[int | None, bool]:
    return (page_width(), wants_colour()) if output in (None, "-") else (None, False)

"""What `ntpaudit fleet` writes: a format, the page, and errors in the requested format."""

import os
from collections.abc import Mapping, Sequence

import click

from ntpaudit import __version__
from ntpaudit.cli.fleet_reading import FleetOptions, progress
from ntpaudit.cli.output import layout, note, put
from ntpaudit.core.fleet.model import Fleet, FleetPolicy
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S, format_duration
from ntpaudit.errors import OutputError, ReadError
from ntpaudit.fleet.reader import Reader

SPANS = 96  # the number of parts of the page's period: a day is divided into quarters of an hour


def check_output(options: FleetOptions, named: Mapping[str, str]) -> None:
    """Reject output options that contradict each other."""
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


def render_page(reader: Reader, judged: Fleet, terms: FleetPolicy, options: FleetOptions, source: str) -> str:
    """Read the period for the fleet and its worst hosts, and return the page."""
    from ntpaudit.reports.fleet_page import MOST_SERIES, render

    period_s, end_ns = options.period, judged.now_ns
    begin_ns = end_ns - round(period_s * NS_PER_S)
    worst = [one.name for one in judged.members if one.host is not None][:MOST_SERIES]
    with progress(f"reading {len(worst)} hosts over {format_duration(period_s)}"):
        series = reader.host_series(worst, begin_ns, end_ns, SPANS)
    with progress(f"reading the fleet over {format_duration(period_s)}"):
        tallies = reader.tallies(begin_ns, end_ns, SPANS, options.site)
    steps = reader.steps(begin_ns, end_ns, options.site)
    return render(
        judged, series, tallies, steps, period_s=period_s, spans=SPANS, terms=terms, source=source, version=__version__
    )


def render(judged: Fleet, options: FleetOptions, notes: Sequence[str]) -> str:
    """Return the fleet in the requested format; JSON and Nagios also contain the notes."""
    from ntpaudit.reports import fleet_csv, fleet_json, fleet_nagios, fleet_text
    from ntpaudit.reports.fleet_summary import flagged

    shown = None
    if options.flagged or options.limit is not None:
        shown = (flagged(judged.members) if options.flagged else judged.members)[: options.limit]
    match options.format_name:
        case "json":
            return fleet_json.render(judged, shown, notes)
        case "csv":
            return fleet_csv.render(judged, shown)
        case "nagios":
            return fleet_nagios.render(judged, notes)
    return fleet_text.render(judged, shown, is_flagged=options.flagged, **layout(options.output))


def report_error(error: Exception, options: FleetOptions, *, is_order: bool = False) -> Severity:
    """Report an error in the requested format, or raise it. Nagios reads only the plugin's line.

    What cannot be read is a result, except for CSV and for a page on standard output: then an older table is kept.
    """
    from ntpaudit.formats.nagios import plugin_line
    from ntpaudit.reports import fleet_json, fleet_text

    match options.format_name:
        case "nagios":
            text = plugin_line(Severity.UNKNOWN, str(error), ())
        case "json" if isinstance(error, ReadError):
            schema = fleet_json.ORDER_SCHEMA if is_order else fleet_json.SCHEMA
            text = fleet_json.render_absence(error.reason, error.remedy, schema)
        case "text" if isinstance(error, ReadError) and (options.html != "-" or options.output is not None):
            text = fleet_text.render_absence(error.reason, error.remedy, **layout(options.output))
        case _ if isinstance(error, ReadError | OutputError):
            note(str(error))
            return Severity.UNKNOWN
        case _:
            raise error
    try:
        put(text, None if isinstance(error, OutputError) else options.output)
    except OutputError as unwritten:
        if isinstance(error, ReadError):
            return report_error(unwritten, options)
        put(text, None)
    return Severity.UNKNOWN

"""What `ntpaudit fleet` writes: a format, the page, and errors in the requested format."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from ntpaudit import __version__
from ntpaudit.cli.fleet_reading import FleetOptions, progress
from ntpaudit.cli.output import layout, note, put
from ntpaudit.cli.parameters import refuse_empty
from ntpaudit.core.fleet.model import Fleet, FleetPolicy, Host
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S, format_duration
from ntpaudit.errors import OutputError, ReadError
from ntpaudit.fleet.reader import Reader

if TYPE_CHECKING:
    from ntpaudit.core.fleet.model import Order

SPANS = 96
"""The number of parts of the page's period: a day is divided into quarters of an hour."""


def check_output(options: FleetOptions, named: Mapping[str, str]) -> None:
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


def render_page(reader: Reader, judged: Fleet, terms: FleetPolicy, options: FleetOptions, source: str) -> str:
    """Read the period for the fleet and its worst hosts, and return the page."""
    from ntpaudit.reports.fleet_page import MOST_SERIES, render

    begin_ns = judged.now_ns - round(options.period * NS_PER_S)
    worst = [one.name for one in judged.members if one.host is not None][:MOST_SERIES]
    with progress(f"reading {len(worst)} hosts over {format_duration(options.period)}"):
        host_series = reader.host_series(worst, begin_ns, judged.now_ns, SPANS)
    with progress(f"reading the fleet over {format_duration(options.period)}"):
        tallies = reader.tallies(begin_ns, judged.now_ns, SPANS, options.site)
    steps = reader.steps(begin_ns, judged.now_ns, options.site)
    return render(
        judged,
        host_series,
        tallies,
        steps,
        period_s=options.period,
        spans=SPANS,
        terms=terms,
        source=source,
        version=__version__,
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


def render_order(found: "Order", hosts: Sequence[Host], now_ns: int, severity: Severity, format_name: str) -> str:
    """Return the order of two hosts in the requested format."""
    from ntpaudit.reports import fleet_json, fleet_text

    estimates = [host.offset.estimate_s for host in hosts if host.offset is not None]
    if format_name == "json":
        return fleet_json.render_order(found, estimates, now_ns, severity)
    return fleet_text.render_order(found, estimates, now_ns, severity, **layout())


def report_absence(error: ReadError, options: FleetOptions, *, is_order: bool = False) -> Severity:
    """Report a read error in the requested format; on standard error for CSV and a page on standard output."""
    from ntpaudit.reports import fleet_json, fleet_nagios, fleet_text

    match options.format_name:
        case "json":
            schema = fleet_json.ORDER_SCHEMA if is_order else fleet_json.SCHEMA
            text = fleet_json.render_absence(error.reason, error.remedy, schema)
        case "nagios":
            text = fleet_nagios.render_absence(error.reason, error.remedy)
        case "text" if options.html != "-" or options.output is not None:
            text = fleet_text.render_absence(error.reason, error.remedy, **layout(options.output))
        case _:
            note(str(error))
            return Severity.UNKNOWN  # an older table is kept
    try:
        put(text, options.output)
    except OutputError as unwritten:
        return report_failure(unwritten, options)
    return Severity.UNKNOWN


def report_failure(error: Exception, options: FleetOptions) -> Severity:
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

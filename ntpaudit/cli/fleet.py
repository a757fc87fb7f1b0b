"""`ntpaudit fleet`: the clocks of all hosts, read from the database that their agents deliver to."""

import gc
import os
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, NoReturn, TypeVar

import click

from ntpaudit.cli import fleet_reading, fleet_writing
from ntpaudit.cli.fleet_reading import FleetOptions
from ntpaudit.cli.output import format_option, layout, note, put
from ntpaudit.cli.parameters import TIME, given_options, parsed
from ntpaudit.config.load import locate
from ntpaudit.config.location import find_config
from ntpaudit.config.values import parse_positive_duration
from ntpaudit.core.policy import Severity
from ntpaudit.errors import ConfigError, OutputError, ReadError

_Function = TypeVar("_Function", bound=Callable[..., None])

FORMATS = ("text", "json", "csv", "nagios")
ORDER_FORMATS = ("text", "json")

EPILOG = """\b
Examples:
  ntpaudit demo && ntpaudit fleet --demo          a simulated fleet; no network needed
  ntpaudit fleet                                  every host, the worst first
  ntpaudit fleet --site ams --flagged             hosts of one site that are not ok, or suspected
  ntpaudit fleet --inventory hosts.txt            also hosts that never reported
  ntpaudit fleet --at '2h ago' --format json | jq .findings
  ntpaudit fleet --url http://127.0.0.1:8428 --language promql --format nagios
  ntpaudit fleet --html fleet.html --period 7d    a page to send or keep; --html - prints it
  ntpaudit fleet order web1 db2                   how far apart must timestamps be to order events?

\b
The database is that of [fleet] in the configuration, else that of [influxdb]. "behind" means that a clock is slow.
FILE of --inventory has one host per line, or a host, a comma and its site; - is standard input. FILE of --exceptions
has [[accept]] tables with host or site (patterns such as ams-*), finding, reason, by and until.

\b
Exit status: 0 ok, 1 warning, 2 critical, 3 unknown or not readable, 64 usage, 78 configuration, 130 interrupted.
With --format nagios an error in the configuration or in a file also exits with 3, and the line describes it.
"""

ORDER_EPILOG = """\b
Examples:
  ntpaudit fleet order web1 db2
  ntpaudit fleet order web1 db2 --at 2026-11-18T11:00 --format json

\b
Exit status: 0 within --ambiguity, 1 above, 3 unknown (silent, not measured, not readable), 64 usage, 78 configuration.
"""

_DURATION = parsed("DURATION", parse_positive_duration)

_READ_OPTIONS = (
    *fleet_reading.DATABASE_OPTIONS,
    click.option("--at", type=TIME, help="Show the fleet at this time: 2h, '2h ago', or 2026-11-25T06:00Z."),
    click.option("--look-back", type=_DURATION, help="Maximum age of a host's latest point.  [default: 24h]"),
    click.option(
        "--silent-after", type=_DURATION, help="A host is silent after this time without a point.  [default: 10m]"
    ),
    click.option(
        "--ambiguity",
        type=_DURATION,
        help="Ordering limit: the order of events further apart must be certain.  [default: 1s]",
    ),
)


def _read_options(command: _Function) -> _Function:
    for option in reversed(_READ_OPTIONS):
        command = option(command)
    return command


@click.group(epilog=EPILOG, invoke_without_command=True)
@_read_options
@click.option("--before", type=_DURATION, help="Compare with the fleet this long ago, to detect shifts.  [default: 1h]")
@click.option("--site", metavar="NAME", help="Only hosts of this site.")
@click.option("--inventory", metavar="FILE", help="Hosts that must report; other silent hosts count as retired.")
@click.option("--exceptions", metavar="FILE", help="Findings that are accepted for some hosts, until a time.")
@click.option(
    "--flagged", is_flag=True, help="Show only hosts that are not ok, or whose clock a fleet finding suspects."
)
@click.option("--limit", type=click.IntRange(1, 10**9), metavar="N", help="Show only the worst N hosts.")
@format_option(FORMATS)
@click.option(
    "--output", type=click.Path(dir_okay=False, readable=False), help="Write to this file, replaced atomically."
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, readable=False),
    help="Also write an HTML page with figures to this file; - prints it.",
)
@click.option("--period", type=_DURATION, default="24h", help="Period of the page.")
@click.pass_context
def fleet(ctx: click.Context, /, **given: Any) -> None:
    """Show the clocks of all hosts: which are wrong, unproven or silent, and what threatens the order of logs."""
    options, named = FleetOptions(**given), given_options(ctx)
    gc.disable()  # what is read has no cycles, and the search for them would take 10 % of the run time
    fleet_reading.check_read(options)
    if ctx.invoked_subcommand is None:
        fleet_writing.check_output(options, named)
        _exit_with(_show, options)
    if unused := [word for name, word in named.items() if name not in {one.name for one in order.params}]:
        raise click.UsageError(f"{', '.join(unused)}: no effect on `order`, which compares two hosts")
    if options.format_name not in ORDER_FORMATS:
        raise click.UsageError(f"--format: `order` can be shown as {' or '.join(ORDER_FORMATS)}")
    ctx.obj = options


@fleet.command(epilog=ORDER_EPILOG, short_help="Show how far apart timestamps on two hosts must be to order events.")
@click.argument("host_a")
@click.argument("host_b")
@_read_options
@click.option("--format", "format_name", type=click.Choice(ORDER_FORMATS), help="Output format.  [default: text]")
@click.pass_obj
def order(outer: FleetOptions, /, host_a: str, host_b: str, **given: Any) -> None:
    """Show how far apart timestamps on two hosts must be to order events for certain."""
    options = outer._replace(**{name: value for name, value in given.items() if value})
    fleet_reading.check_read(options)
    if not (host_a and host_b):
        raise click.UsageError("the name of a host is empty: give the names of two hosts")
    if host_a == host_b:
        raise click.UsageError(
            "both names are the same: events on one host are in the order of its timestamps, except across steps"
        )
    _exit_with(partial(_order, host_a, host_b), options, is_order=True)


def _exit_with(show: Callable[[FleetOptions], Severity], options: FleetOptions, *, is_order: bool = False) -> NoReturn:
    """Exit with the status of what `show` returns, or report its error in the requested format."""
    try:
        severity = show(options)
    except ConfigError as error:
        path = find_config(os.environ, options.config_path)
        severity = fleet_writing.report_error(error if path is None else locate(error, path), options)
    except (ReadError, OutputError, click.UsageError) as error:
        severity = fleet_writing.report_error(error, options, is_order=is_order)
    raise click.exceptions.Exit(severity.exit_status)


def _show(options: FleetOptions) -> Severity:
    from ntpaudit.core.fleet.checks import judge_fleet
    from ntpaudit.core.fleet.members import filter_site

    config, terms = fleet_reading.settle(options)
    reach = fleet_reading.reach_of(options, terms)
    if (listed := fleet_reading.inventory_of(options, config)) is not None:
        terms = terms._replace(inventory=listed.names, sites=listed.sites)
        reach = reach._replace(site=None)  # a host that is listed for one site may have reported from another
    reader, source = fleet_reading.open_database(options, config)
    with closing(reader):
        snapshot, notes = fleet_reading.read_snapshot(reader, options, reach)
        sites = {*snapshot.sites.values(), *terms.sites.values(), *(host.site for host in snapshot.hosts)}
        if options.site is not None and listed is not None:
            snapshot, terms = filter_site(snapshot, terms, options.site)
        judged = judge_fleet(snapshot, terms)
        if not judged.members:
            guess = fleet_reading.suggest(options.site or "", filter(None, sites), "sites", options)
            raise ReadError(f"{source} has no host of site {options.site!r}", guess)
        if options.html != "-" or options.output is not None:
            put(fleet_writing.render(judged, options, notes), options.output)
        if options.html is None:
            return judged.severity
        try:
            put(fleet_writing.render_page(reader, judged, terms, options, source), options.html)
        except (ReadError, OutputError) as error:  # the severity is known without the page
            note(f"page not written: {error}")
            return max(judged.severity, Severity.UNKNOWN)
    return judged.severity


def _order(host_a: str, host_b: str, options: FleetOptions) -> Severity:
    from ntpaudit.core.fleet.ordering import order as order_of
    from ntpaudit.reports import fleet_json, fleet_text

    config, terms = fleet_reading.settle(options)
    reader, source = fleet_reading.open_database(options, config)
    with closing(reader):
        snapshot, _ = fleet_reading.read_snapshot(reader, options, fleet_reading.reach_of(options, terms))
    one, other = (fleet_reading.find_host(snapshot, name, terms, source, options) for name in (host_a, host_b))
    found = order_of(one, other, snapshot.now_ns)
    if found is None or one.offset is None or other.offset is None:
        unmeasured = one.name if one.offset is None else other.name
        fix = f"run `sudo ntpaudit status` on {unmeasured}, or give a time when it was measured, such as --at '4h ago'"
        raise ReadError(f"the clock of {unmeasured} was not measured", fix)
    estimates = one.offset.estimate_s, other.offset.estimate_s
    severity = Severity.OK if found.within_s <= terms.ambiguity_s else Severity.WARNING
    if options.format_name == "json":
        put(fleet_json.render_order(found, estimates, snapshot.now_ns, severity), None)
    else:
        put(fleet_text.render_order(found, estimates, snapshot.now_ns, severity, **layout()), None)
    return severity

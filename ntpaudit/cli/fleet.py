"""`ntpaudit fleet`: the clocks of all hosts, read from the database that their agents deliver to."""

import gc
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, TypeVar

import click

from ntpaudit.cli import fleet_reading, fleet_writing
from ntpaudit.cli.fleet_reading import ReadOptions
from ntpaudit.cli.fleet_writing import OutputOptions
from ntpaudit.cli.output import format_option, note
from ntpaudit.cli.parameters import Parsed, config_option, given_options, parse_time
from ntpaudit.config.values import LANGUAGES, parse_positive_duration, parse_url
from ntpaudit.core.policy import Severity
from ntpaudit.errors import ConfigError, OutputError, ReadError

_Function = TypeVar("_Function", bound=Callable[..., None])

FORMATS = ("text", "json", "csv", "nagios")

ORDER_FORMATS = ("text", "json")

EPILOG = """\b
Examples:
  ntpaudit demo && ntpaudit fleet --demo          a simulated fleet; no network needed
  ntpaudit fleet                                  every host, the worst first
  ntpaudit fleet --site ams --flagged             hosts of one site that are not ok
  ntpaudit fleet --inventory hosts.txt            also hosts that never reported
  ntpaudit fleet --at '2h ago' --format json | jq .findings
  ntpaudit fleet --url http://127.0.0.1:8428 --language promql --format nagios
  ntpaudit fleet --html fleet.html --period 7d    a page to send or keep; --html - prints it
  ntpaudit fleet order web1 db2                   from what distance can events be ordered?

\b
The database is that of [fleet] in the configuration, else that of [influxdb]. "behind" means that a clock is slow.
FILE of --inventory has one host per line, or a host, a comma and its site; - is standard input.

\b
Exit status: 0 ok, 1 warning, 2 critical, 3 unknown or not readable, 64 usage, 78 configuration. With --format
nagios an error in the configuration or a file also exits with 3, and the line describes it.
"""

ORDER_EPILOG = """\b
Examples:
  ntpaudit fleet order web1 db2
  ntpaudit fleet order web1 db2 --at 2026-11-18T11:00 --format json

\b
Exit status: 0 within --ambiguity, 1 above, 3 unknown (silent, not measured, not readable), 64 usage, 78 configuration.
"""

_DURATION = Parsed("DURATION", parse_positive_duration)

_READ_OPTIONS = (
    config_option,
    click.option("--url", type=Parsed("URL", parse_url), help="Read this database, such as http://127.0.0.1:8086."),
    click.option("--language", type=click.Choice(LANGUAGES), help="Query language.  [default: influxql]"),
    click.option("--database", metavar="NAME", help="Database or bucket.  [default: ntpaudit]"),
    click.option("--env", metavar="NAME", help="Only hosts of this environment."),
    click.option("--demo", is_flag=True, help="Read the fleet that `ntpaudit demo` simulated."),
    click.option("--store", type=click.Path(readable=False), help="Read the file of `ntpaudit demo --store`."),
    click.option(
        "--at", type=Parsed("TIME", parse_time), help="Show the fleet at this time: 2h, '2h ago', or 2026-11-25T06:00Z."
    ),
    click.option("--look-back", type=_DURATION, help="Maximum age of a host's latest point.  [default: 24h]"),
    click.option(
        "--silent-after", type=_DURATION, help="A host is silent after this time without a point.  [default: 10m]"
    ),
    click.option(
        "--ambiguity", type=_DURATION, help="Limit: events further apart than this must be orderable.  [default: 1s]"
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
@click.option("--flagged", is_flag=True, help="Show only hosts that are not ok, or that a fleet finding names.")
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
@click.option("--period", type=_DURATION, default="24h", show_default=True, help="Period of the page.")
@click.pass_context
def fleet(ctx: click.Context, /, **given: Any) -> None:
    """Show the clocks of all hosts: which are wrong, unproven or silent, and what threatens the order of logs."""
    read_options = ReadOptions(**{name: given[name] for name in ReadOptions._fields})
    output_options = OutputOptions(**{name: given[name] for name in OutputOptions._fields})
    named = given_options(ctx)
    gc.disable()  # what is read has no cycles, and the search for them would take 10 % of the run time
    fleet_reading.check_read(read_options)
    if ctx.invoked_subcommand is not None:
        _check_order(output_options, named)
        ctx.obj = read_options, output_options
        return
    fleet_writing.check_output(output_options, named)
    try:
        severity = _show(read_options, output_options)
    except ReadError as error:
        severity = fleet_writing.report_absence(error, output_options)
    except (ConfigError, OutputError, click.UsageError) as error:
        severity = fleet_writing.report_failure(error, output_options)
    raise click.exceptions.Exit(severity.exit_status)


@fleet.command(epilog=ORDER_EPILOG, short_help="Show from what distance events on two hosts can be ordered.")
@click.argument("host_a")
@click.argument("host_b")
@_read_options
@click.option("--format", "format_name", type=click.Choice(ORDER_FORMATS), help="Output format.  [default: text]")
@click.pass_obj
def order(
    outer: tuple[ReadOptions, OutputOptions], /, host_a: str, host_b: str, format_name: str | None, **given: Any
) -> None:
    """Show how far apart timestamps on two hosts must be to order events for certain."""
    read_options, output_options = outer
    read_options = read_options._replace(**{name: value for name, value in given.items() if value})
    output_options = output_options._replace(format_name=format_name or output_options.format_name)
    fleet_reading.check_read(read_options)
    if not (host_a and host_b):
        raise click.UsageError("the name of a host is empty: give the names of two hosts")
    if host_a == host_b:
        raise click.UsageError(
            "both names are the same: events on one host are in the order of its timestamps, except across steps"
        )
    try:
        severity = _order(read_options, host_a, host_b, output_options.format_name)
    except ReadError as error:
        severity = fleet_writing.report_absence(error, output_options, is_order=True)
    raise click.exceptions.Exit(severity.exit_status)


def _check_order(output_options: OutputOptions, named: Mapping[str, str]) -> None:
    """Reject options before `order` that would have no effect."""
    known = {one.name for one in order.params}
    unused = [word for name, word in named.items() if name not in known]
    if unused:
        raise click.UsageError(f"{', '.join(unused)}: no effect on `order`, which compares two hosts")
    if output_options.format_name not in ORDER_FORMATS:
        raise click.UsageError(f"--format: `order` can be shown as {' or '.join(ORDER_FORMATS)}")


def _show(read_options: ReadOptions, output_options: OutputOptions) -> Severity:
    from ntpaudit.core.fleet.checks import judge_fleet
    from ntpaudit.core.fleet.members import filter_site

    config, terms = fleet_reading.settle(read_options)
    listed = fleet_reading.inventory_of(read_options, config)
    terms = terms if listed is None else terms._replace(inventory=listed.names, sites=listed.sites)
    reader, source = fleet_reading.open_database(read_options, config)
    with closing(reader):
        # a host that is listed for one site may have reported from another, so an inventory needs all sites
        everywhere = read_options._replace(site=None) if terms.inventory is not None else read_options
        in_full = output_options.format_name in ("json", "csv") or output_options.html is not None
        snapshot, notes = fleet_reading.read_snapshot(
            reader, everywhere, fleet_reading.reach_of(everywhere, terms)._replace(in_full=in_full)
        )
        sites = {*snapshot.sites.values(), *terms.sites.values(), *(host.site for host in snapshot.hosts)}
        if read_options.site is not None and terms.inventory is not None:
            snapshot, terms = filter_site(snapshot, terms, read_options.site)
        judged = judge_fleet(snapshot, terms)
        if not judged.members:
            from ntpaudit.fleet.suggestion import nearest

            near = nearest(read_options.site or "", filter(None, sites))
            guess = (
                f"did you mean {near}?" if near else f"list the sites with `{fleet_reading.command_line(read_options)}`"
            )
            raise ReadError(f"{source} has no host of site {read_options.site!r}", guess)
        if output_options.html != "-" or output_options.output is not None:
            fleet_writing.put(fleet_writing.render(judged, output_options, notes), output_options.output)
        if output_options.html is None:
            return judged.severity
        try:
            page = fleet_writing.render_page(reader, judged, terms, read_options.site, output_options.period, source)
            fleet_writing.put(page, output_options.html)
        except (ReadError, OutputError) as error:  # the severity is known without the page
            note(f"page not written: {error}")
            return max(judged.severity, Severity.UNKNOWN)
    return judged.severity


def _order(read_options: ReadOptions, host_a: str, host_b: str, format_name: str) -> Severity:
    from ntpaudit.core.fleet.ordering import order as order_of

    config, terms = fleet_reading.settle(read_options)
    reader, source = fleet_reading.open_database(read_options, config)
    with closing(reader):
        snapshot, _ = fleet_reading.read_snapshot(
            reader, read_options, fleet_reading.reach_of(read_options, terms)._replace(site=None, in_full=False)
        )
    command = fleet_reading.command_line(read_options)
    one, other = (fleet_reading.find_host(snapshot, name, terms, source, command) for name in (host_a, host_b))
    found = order_of(one, other, snapshot.now_ns)
    if found is None:
        unmeasured = one.name if one.offset is None else other.name
        raise ReadError(f"the clock of {unmeasured} was not measured", f"find the cause with `{command}`")
    severity = Severity.OK if found.within_s <= terms.ambiguity_s else Severity.WARNING
    fleet_writing.put(fleet_writing.render_order(found, (one, other), snapshot.now_ns, severity, format_name), None)
    return severity

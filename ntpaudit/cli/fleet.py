"""`ntpaudit fleet`: the clocks of all hosts, read from the database that their agents deliver to."""

import gc
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from math import ceil
from threading import Timer
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from ntpaudit import __version__
from ntpaudit.cli.output import StandardError, page_width, wants_colour
from ntpaudit.cli.parameters import Parsed, RelativeTime, config_option, parse_time, refuse_empty, resolve
from ntpaudit.cli.state import read_config
from ntpaudit.cli.stream import write_parts
from ntpaudit.config.fleet_database import fleet_database
from ntpaudit.config.inventory import Inventory, read_inventory
from ntpaudit.config.load import find_config, locate, with_environment
from ntpaudit.config.schema import Config
from ntpaudit.config.values import LANGUAGES, Language, parse_positive_duration, parse_url
from ntpaudit.core.fleet.model import Fleet, FleetPolicy, Host, HostStatus, Snapshot
from ntpaudit.core.fleet.severity import seen_ns
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S, format_duration, format_utc
from ntpaudit.errors import ConfigError, OutputError, ReadError
from ntpaudit.fleet.reader import SKEW_S, Reader, SnapshotOptions
from ntpaudit.store.paths import state_folder

if TYPE_CHECKING:
    from ntpaudit.core.fleet.model import Order

_Function = TypeVar("_Function", bound=Callable[..., None])

FORMATS = ("text", "json", "csv", "nagios")
ORDER_FORMATS = ("text", "json")

DEMONSTRATION = "demo.sqlite3"

PROGRESS_AFTER_S = 2.0
"""The delay of a progress message."""

SPANS = 96
"""The number of parts of the page's period: a day is divided into quarters of an hour."""

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
Exit status: 0 ok, 1 warning, 2 critical, 3 unknown (also: not readable), 64 usage, 78 configuration. With --format
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


class ReadOptions(NamedTuple):
    """What to read, at which time, and the limits; None means the configured value, else the default."""

    config_path: str | None = None
    url: str | None = None
    language: Language | None = None
    database: str | None = None
    env: str | None = None
    demo: bool = False
    store: str | None = None
    at: RelativeTime | int | None = None
    look_back: float | None = None
    silent_after: float | None = None
    ambiguity: float | None = None
    site: str | None = None
    inventory: str | None = None
    before: float | None = None

    @property
    def is_shown(self) -> bool:
        """Whether a demonstration is read."""
        return self.demo or self.store is not None


class OutputOptions(NamedTuple):
    """Which hosts to show, in which format, and where to write them."""

    format_name: str = "text"
    flagged: bool = False
    limit: int | None = None
    output: str | None = None
    html: str | None = None
    period: float = 86_400.0


def _read_options(command: _Function) -> _Function:
    """Add the options of ReadOptions to a command."""
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
@click.option(
    "--format", "format_name", type=click.Choice(FORMATS), default="text", show_default=True, help="Output format."
)
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
    named = _named(ctx)
    gc.disable()  # what is read has no cycles, and the search for them would take 10 % of the run time
    _check_read(read_options)
    if ctx.invoked_subcommand is not None:
        ctx.obj = _outer(read_options, output_options, named)
        return
    _check_output(output_options, named)
    try:
        severity = _show(read_options, output_options)
    except ReadError as error:
        severity = _report_absence(error, output_options)
    except (ConfigError, OutputError, click.UsageError) as error:
        severity = _report_failure(error, output_options)
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
    _check_read(read_options)
    if not (host_a and host_b):
        raise click.UsageError("the name of a host is empty: give the names of two hosts")
    if host_a == host_b:
        raise click.UsageError(
            "both names are the same: events on one host are in the order of its timestamps, except across steps"
        )
    try:
        severity = _order(read_options, host_a, host_b, output_options.format_name)
    except ReadError as error:
        severity = _report_absence(error, output_options, is_order=True)
    raise click.exceptions.Exit(severity.exit_status)


def _named(ctx: click.Context) -> dict[str, str]:
    """Return the options given on the command line: their parameter names and spellings."""
    return {
        str(one.name): one.opts[0]
        for one in ctx.command.params
        if ctx.get_parameter_source(str(one.name)) is ParameterSource.COMMANDLINE
    }


def _check_read(read_options: ReadOptions) -> None:
    """Reject contradicting databases, and empty values such as an empty shell variable."""
    words = {name: getattr(read_options, name) for name in ("site", "env", "database", "store", "inventory")}
    refuse_empty(config=read_options.config_path, **words)
    if read_options.is_shown and (
        read_options.url or read_options.language or read_options.database or read_options.env
    ):
        raise click.UsageError("--demo and --store cannot be combined with --url, --language, --database or --env")


def _check_output(output_options: OutputOptions, named: Mapping[str, str]) -> None:
    """Reject output options that contradict each other."""
    refuse_empty(output=output_options.output, html=output_options.html)
    if output_options.format_name == "nagios" and (output_options.flagged or output_options.limit):
        raise click.UsageError("--format nagios counts all hosts: it cannot be combined with --flagged or --limit")
    if output_options.html is None:
        if "period" in named:
            raise click.UsageError("--period is the period of the page: it needs --html")
        return
    if output_options.html == "-" and output_options.output is None and "format_name" in named:
        raise click.UsageError("--html - prints only the page: --format also needs --output FILE")
    if output_options.output is not None and os.path.realpath(output_options.html) == os.path.realpath(
        output_options.output
    ):
        raise click.UsageError("--html and --output name the same file")


def _outer(
    read_options: ReadOptions, output_options: OutputOptions, named: Mapping[str, str]
) -> tuple[ReadOptions, OutputOptions]:
    """Return the options before `order` that apply to it; reject the others, which would have no effect."""
    unused = [word for name, word in named.items() if name not in _OF_ORDER]
    if unused:
        raise click.UsageError(f"{', '.join(unused)}: no effect on `order`, which compares two hosts")
    if output_options.format_name not in ORDER_FORMATS:
        raise click.UsageError(f"--format: `order` can be shown as {' or '.join(ORDER_FORMATS)}")
    return read_options, output_options


_OF_ORDER = {"config_path", "url", "language", "database", "env", "demo", "store", "at", "look_back"} | {
    "silent_after", "ambiguity", "format_name",
}  # fmt: skip


def _show(read_options: ReadOptions, output_options: OutputOptions) -> Severity:
    """Read, judge and show a fleet; return its severity."""
    from ntpaudit.core.fleet.checks import judge_fleet
    from ntpaudit.core.fleet.members import filter_site

    config, terms = _settle(read_options)
    listed = _inventory(read_options, config)
    terms = terms if listed is None else terms._replace(inventory=listed.names, sites=listed.sites)
    reader, source = _open(read_options, config)
    with closing(reader):
        # a host that is listed for one site may have reported from another, so an inventory needs all sites
        everywhere = read_options._replace(site=None) if terms.inventory is not None else read_options
        in_full = output_options.format_name in ("json", "csv") or output_options.html is not None
        snapshot, notes = _read(reader, everywhere, _reach(everywhere, terms)._replace(in_full=in_full))
        sites = {*snapshot.sites.values(), *terms.sites.values(), *(host.site for host in snapshot.hosts)}
        if read_options.site is not None and terms.inventory is not None:
            snapshot, terms = filter_site(snapshot, terms, read_options.site)
        judged = judge_fleet(snapshot, terms)
        if not judged.members:
            from ntpaudit.fleet.suggestion import nearest

            near = nearest(read_options.site or "", filter(None, sites))
            guess = f"did you mean {near}?" if near else f"list the sites with `{_command(read_options)}`"
            raise ReadError(f"{source} has no host of site {read_options.site!r}", guess)
        if output_options.html != "-" or output_options.output is not None:
            _put(_render(judged, output_options, notes), output_options.output)
        if output_options.html is None:
            return judged.severity
        try:
            _put(_page(reader, judged, terms, read_options.site, output_options.period, source), output_options.html)
        except (ReadError, OutputError) as error:  # the severity is known without the page
            StandardError().note(f"page not written: {error}")
            return max(judged.severity, Severity.UNKNOWN)
    return judged.severity


def _order(read_options: ReadOptions, host_a: str, host_b: str, format_name: str) -> Severity:
    """Read two hosts, and show how events on them can be ordered."""
    from ntpaudit.core.fleet.ordering import order as order_of

    config, terms = _settle(read_options)
    reader, source = _open(read_options, config)
    with closing(reader):
        snapshot, _ = _read(reader, read_options, _reach(read_options, terms)._replace(site=None, in_full=False))
    command = _command(read_options)
    one, other = (_find(snapshot, name, terms, source, command) for name in (host_a, host_b))
    found = order_of(one, other, snapshot.now_ns)
    if found is None:
        unmeasured = one.name if one.offset is None else other.name
        raise ReadError(f"the clock of {unmeasured} was not measured", f"find the cause with `{command}`")
    severity = Severity.OK if found.within_s <= terms.ambiguity_s else Severity.WARNING
    _put(_render_order(found, (one, other), snapshot.now_ns, severity, format_name), None)
    return severity


def _settle(read_options: ReadOptions) -> tuple[Config, FleetPolicy]:
    """Return the configuration and the limits of a fleet; a demonstration ignores this host's configuration."""
    config = Config() if read_options.is_shown else with_environment(read_config(read_options.config_path), os.environ)
    terms = FleetPolicy(
        silent_after_s=read_options.silent_after or config.fleet.silent_after_s,
        ambiguity_s=read_options.ambiguity or config.fleet.ambiguity_s,
        warning_s=config.profile.warning_s,
        critical_s=config.profile.critical_s,
    )
    look_back_s = _reach(read_options, terms).look_back_s
    if not terms.silent_after_s <= look_back_s:
        raise click.UsageError(_too_short(look_back_s, terms.silent_after_s, read_options))
    return config, terms


def _too_short(look_back_s: float, silent_after_s: float, read_options: ReadOptions) -> str:
    """Say that no host could be detected as silent, why, and which option to give."""
    limit = "--look-back" if read_options.look_back is not None else "the default of --look-back"
    silence = "--silent-after" if read_options.silent_after is not None else "fleet.silent_after, or its default"
    return (
        f"no host could be detected as silent: silent after {format_duration(silent_after_s)} ({silence}), but points "
        f"are read only for {format_duration(look_back_s)} ({limit}): give --look-back "
        f"{ceil(silent_after_s / 3600)}h or more"
    )


def _inventory(read_options: ReadOptions, config: Config) -> Inventory | None:
    """Return the hosts that must report, None without an inventory."""
    if read_options.inventory is None:
        with _locating(read_options):
            return None if config.fleet.inventory is None else read_inventory(config.fleet.inventory)
    try:
        return read_inventory(read_options.inventory)
    except ConfigError as error:  # the option is at fault, not the file
        raise click.UsageError(str(error).replace("fleet.inventory", "--inventory")) from error


def _open(read_options: ReadOptions, config: Config) -> tuple[Reader, str]:
    """Open the database, and describe it."""
    from ntpaudit.fleet import open_reader

    if read_options.is_shown:
        path = read_options.store or os.path.join(state_folder(os.environ), DEMONSTRATION)
        store = "" if read_options.store is None else f" --store {shlex.quote(read_options.store)}"
        return open_reader(path=path, keys={"demo": f"ntpaudit demo{store}"}), "the demonstration"
    with _locating(read_options):
        place = fleet_database(
            config, os.environ, read_options.url, read_options.language, read_options.database, read_options.env
        )
    if read_options.database is not None and place.language == "promql":
        raise click.UsageError("--database is for InfluxDB: a PromQL database has no name")
    what = [place.language, *([place.database] if place.language == "influxql" else [])]
    source = f"{place.url} ({', '.join([*what, *([] if place.env is None else [f'env {place.env}'])])})"
    return open_reader(**place._asdict(), keys=_keys(read_options, config)), source


def _keys(read_options: ReadOptions, config: Config) -> dict[str, str]:
    """Return the options or keys that set the database, for messages."""
    if read_options.url is not None:
        return {"url": "--url", "language": "--language", "database": "--database"}
    url = "fleet.url"
    if config.fleet.url is None and config.influxdb is not None:
        of_environment = os.environ.get("INFLUXDB_V2_URL", "").rstrip("/") == config.influxdb.url
        url = "INFLUXDB_V2_URL" if of_environment else "influxdb.url"
    return {
        "url": url,
        "language": "fleet.language" if read_options.language is None else "--language",
        "database": "fleet.database" if read_options.database is None else "--database",
    }


def _command(read_options: ReadOptions) -> str:
    """Return the command that shows the whole fleet."""
    words = ["ntpaudit", "fleet", *(["--demo"] if read_options.demo else [])]
    for name in ("store", "url", "language", "database", "env"):
        value = getattr(read_options, name)
        words += [] if value is None else [f"--{name}", value]
    return shlex.join([*words, *([] if read_options.config_path is None else ["--config", read_options.config_path])])


@contextmanager
def _locating(read_options: ReadOptions) -> Iterator[None]:
    """Add the file and the line to an error about a key."""
    try:
        yield
    except ConfigError as error:
        path = read_options.config_path or find_config(os.environ)
        raise (error if path is None else locate(error, path)) from error


def _reach(read_options: ReadOptions, terms: FleetPolicy) -> SnapshotOptions:
    usual = SnapshotOptions()
    return usual._replace(
        site=read_options.site,
        look_back_s=read_options.look_back or usual.look_back_s,
        baseline_s=read_options.before or usual.baseline_s,
        silent_after_s=terms.silent_after_s,
    )


def _read(reader: Reader, read_options: ReadOptions, reach: SnapshotOptions) -> tuple[Snapshot, list[str]]:
    """Read every host at the requested time; return notes about the read_options, which are also printed."""
    with _progress("reading every host"):
        now_ns = reader.now_ns()
        at_ns = now_ns if read_options.at is None else resolve(read_options.at, now_ns)
        if at_ns > now_ns:
            raise click.UsageError(_too_late(now_ns) if read_options.is_shown else "--at is in the future")
        if at_ns < 0:
            raise click.UsageError("--at is before 1970: no host reported then")
        notes = _notes(reader, read_options)
        for note in notes:
            StandardError().note(note)
        return reader.snapshot(at_ns, reach), notes


def _notes(reader: Reader, read_options: ReadOptions) -> list[str]:
    """Return a note if this machine's clock and the database's differ; which one is wrong is not known here."""
    skew_s = reader.skew_s() or 0.0
    if isinstance(read_options.at, int) or abs(skew_s) <= SKEW_S:
        return []
    way = "behind" if skew_s > 0 else "ahead of"
    return [
        f"the clock of this machine is {format_duration(abs(skew_s))} {way} that of the database, which decides which "
        "hosts are silent; either may be wrong: audit both with `ntpaudit check`"
    ]


def _too_late(end_ns: int) -> str:
    return f"--at is after the end of the demonstration, {format_utc(end_ns)[:19]}Z; '2h ago' counts from that time"


def _find(snapshot: Snapshot, name: str, terms: FleetPolicy, source: str, command: str) -> Host:
    """Return a host that reports. Raises ReadError for any other."""
    known = {host.name: host for host in snapshot.hosts}
    host = known.get(name)
    if host is None:
        from ntpaudit.fleet.suggestion import nearest

        near = nearest(name, known)
        guess = f"did you mean {near}?" if near else f"list the hosts with `{command}`"
        raise ReadError(f"{source} has no point of a host {name} within --look-back", guess)
    if name in (duplicate.name for duplicate in snapshot.duplicate_hosts):
        raise ReadError(
            f"several machines report as {name}, so its points are not of one clock",
            "give each machine its own name: host.name in its configuration",
        )
    silent_s = (snapshot.now_ns - seen_ns(host, snapshot)) / NS_PER_S
    if not silent_s <= terms.silent_after_s:
        raise ReadError(
            f"{name} has been silent for {format_duration(silent_s)}, so its current offset is unknown",
            f"give a time at which it reported, such as --at '{silent_s / 60 + 1:.0f}m ago'",
        )
    return host


def _page(reader: Reader, judged: Fleet, terms: FleetPolicy, site: str | None, period_s: float, source: str) -> str:
    """Read the period for the fleet and its worst hosts, and return the page."""
    from ntpaudit.reports.fleet_page import MOST_COURSES, render

    begin_ns = judged.now_ns - round(period_s * NS_PER_S)
    worst = [one.name for one in judged.members if one.host is not None][:MOST_COURSES]
    with _progress(f"reading {len(worst)} hosts over {format_duration(period_s)}"):
        courses = reader.host_series(worst, begin_ns, judged.now_ns, SPANS)
    with _progress(f"reading the fleet over {format_duration(period_s)}"):
        tallies = reader.tallies(begin_ns, judged.now_ns, SPANS, site)
    steps = reader.steps(begin_ns, judged.now_ns, site)
    return render(
        judged, courses, tallies, steps, period_s=period_s, spans=SPANS, terms=terms, source=source, version=__version__
    )


def _render(judged: Fleet, output_options: OutputOptions, notes: Sequence[str]) -> str:
    """Return the fleet in the requested format; JSON and Nagios also contain the notes."""
    from ntpaudit.reports import fleet_csv, fleet_json, fleet_nagios, fleet_text

    shown = _chosen(judged.members, output_options)
    match output_options.format_name:
        case "json":
            return fleet_json.render(judged, shown, notes)
        case "csv":
            return fleet_csv.render(judged, shown)
        case "nagios":
            return fleet_nagios.render(judged, notes)
    width = None if output_options.output is not None else page_width()
    return fleet_text.render(
        judged, shown, is_flagged=output_options.flagged, width=width, colour=_colours(output_options.output)
    )


def _chosen(members: Sequence[HostStatus], output_options: OutputOptions) -> Sequence[HostStatus] | None:
    """Return the hosts to show, None for the default of the format."""
    from ntpaudit.reports.fleet_summary import flagged

    if not output_options.flagged and output_options.limit is None:
        return None
    return (flagged(members) if output_options.flagged else members)[: output_options.limit]


def _render_order(found: "Order", hosts: Sequence[Host], now_ns: int, severity: Severity, format_name: str) -> str:
    from ntpaudit.reports import fleet_json, fleet_text

    estimates = [host.offset.estimate_s for host in hosts if host.offset is not None]
    if format_name == "json":
        return fleet_json.render_order(found, estimates, now_ns, severity)
    return fleet_text.render_order(found, estimates, now_ns, severity, width=page_width(), colour=wants_colour())


def _report_absence(error: ReadError, output_options: OutputOptions, *, is_order: bool = False) -> Severity:
    """Report a read error in the requested format; on standard error for CSV and a page on standard output."""
    from ntpaudit.reports import fleet_json, fleet_nagios, fleet_text

    match output_options.format_name:
        case "json":
            schema = fleet_json.ORDER_SCHEMA if is_order else fleet_json.SCHEMA
            text = fleet_json.render_absence(error.reason, error.remedy, schema)
        case "nagios":
            text = fleet_nagios.render_absence(error.reason, error.remedy)
        case "text" if output_options.html != "-" or output_options.output is not None:
            width, colour = (
                (None, False) if output_options.output not in (None, "-") else (page_width(), wants_colour())
            )
            text = fleet_text.render_absence(error.reason, error.remedy, width=width, colour=colour)
        case _:
            StandardError().note(str(error))
            return Severity.UNKNOWN  # an older table is kept
    try:
        _put(text, output_options.output)
    except OutputError as unwritten:
        return _report_failure(unwritten, output_options)
    return Severity.UNKNOWN


def _report_failure(error: Exception, output_options: OutputOptions) -> Severity:
    """Report an error of usage, configuration or output; Nagios reads only the plugin's line."""
    if output_options.format_name == "nagios":
        from ntpaudit.reports import fleet_nagios

        text = fleet_nagios.render_absence(error.message if isinstance(error, click.UsageError) else str(error))
        try:
            _put(text, None if isinstance(error, OutputError) else output_options.output)
        except OutputError:
            _put(text, None)
    elif isinstance(error, OutputError):
        StandardError().note(str(error))
    else:
        raise error
    return Severity.UNKNOWN


def _put(text: str, output: str | None) -> None:
    """Write to standard output, or replace a file. Raises OutputError."""
    from ntpaudit.files import unwritable, write_output

    if output in (None, "-"):
        write_parts([text])
        return
    try:
        write_output(str(output), text)
    except OSError as error:
        raise OutputError(unwritable(str(output), error)) from error


def _colours(output: str | None) -> bool:
    return output in (None, "-") and wants_colour()


@contextmanager
def _progress(what: str) -> Iterator[None]:
    """Print a progress message if it takes long."""
    timer = Timer(PROGRESS_AFTER_S, StandardError().progress, [f"{what} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

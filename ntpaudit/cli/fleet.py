"""`ntpaudit fleet`: how the clocks of all hosts stand, read from the database that their agents deliver to."""

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
from ntpaudit.cli.parameters import Parsed, RelativeTime, parse_time, refuse_empty, resolve
from ntpaudit.cli.state import read_config
from ntpaudit.cli.stream import write_parts
from ntpaudit.config.schema import (
    LANGUAGES,
    Config,
    Inventory,
    Language,
    find_config,
    fleet_database,
    locate,
    parse_positive_span,
    parse_url,
    read_inventory,
    with_environment,
)
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
"""Who has waited for so long is told for what."""

SPANS = 96
"""Into so many the period of the page is divided: a day into quarters of an hour."""

EPILOG = """\b
Examples:
  ntpaudit demo && ntpaudit fleet --demo          a simulated fleet; no network needed
  ntpaudit fleet                                  every host, the worst first
  ntpaudit fleet --site ams --flagged             what is not in order at one site
  ntpaudit fleet --inventory hosts.txt            and who should report, and does not
  ntpaudit fleet --at '2h ago' --format json | jq .findings
  ntpaudit fleet --url http://127.0.0.1:8428 --language promql --format nagios
  ntpaudit fleet --html fleet.html --period 7d    a page to send or to keep; --html - prints it
  ntpaudit fleet order web1 db2                   how close may two events be, and still be ordered?

\b
The database is that of [fleet] in the configuration, else that of [influxdb]. "behind" means that a clock is slow.
FILE of --inventory names a host a line, or a host, a comma and its site; - is standard input.

\b
Exit status: 0 ok, 1 warning, 2 critical, 3 unknown (also: not readable), 64 usage, 78 configuration. With --format
nagios also a configuration or a file that is off ends with 3, and is told in the line.
"""

ORDER_EPILOG = """\b
Examples:
  ntpaudit fleet order web1 db2
  ntpaudit fleet order web1 db2 --at 2026-11-18T11:00 --format json

\b
Exit status: 0 within --ambiguity, 1 not, 3 unknown (silent, not measured, not readable), 64 usage, 78 configuration.
"""

_SPAN = Parsed("DURATION", parse_positive_span)

_READING = (
    click.option("--config", "config_path", type=click.Path(readable=False), help="Read this configuration file."),
    click.option("--url", type=Parsed("URL", parse_url), help="Read this database, such as http://127.0.0.1:8086."),
    click.option("--language", type=click.Choice(LANGUAGES), help="In which to ask it.  [default: influxql]"),
    click.option("--database", metavar="NAME", help="The database there, or the bucket.  [default: ntpaudit]"),
    click.option("--env", metavar="NAME", help="This environment alone, of those in the database."),
    click.option("--demo", is_flag=True, help="Read the demonstration that `ntpaudit demo` left."),
    click.option(
        "--store", type=click.Path(readable=False), help="Read the one of `ntpaudit demo --store` in this file."
    ),
    click.option("--at", type=Parsed("TIME", parse_time), help="As of then: 2h, '2h ago', or 2026-11-25T06:00Z."),
    click.option("--look-back", type=_SPAN, help="Look for each host's latest point so far back.  [default: 24h]"),
    click.option("--silent-after", type=_SPAN, help="A host without a point for so long is silent.  [default: 10m]"),
    click.option("--ambiguity", type=_SPAN, help="Events further apart must be orderable at a site.  [default: 1s]"),
)


class ReadOptions(NamedTuple):
    """What is read, of which moment, and by what it is judged; None is the configuration's, else the default."""

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
        """Whether it is a demonstration."""
        return self.demo or self.store is not None


class OutputOptions(NamedTuple):
    """How it is told: which hosts, in which format, and where to."""

    format_name: str = "text"
    flagged: bool = False
    limit: int | None = None
    output: str | None = None
    html: str | None = None
    period: float = 86_400.0


def _reading_options(command: _Function) -> _Function:
    """Give a command the options that say what is read."""
    for option in reversed(_READING):
        command = option(command)
    return command


@click.group(epilog=EPILOG, invoke_without_command=True)
@_reading_options
@click.option("--before", type=_SPAN, help="Compare with so long ago, to see who moved.  [default: 1h]")
@click.option("--site", metavar="NAME", help="This site alone.")
@click.option("--inventory", metavar="FILE", help="These hosts should report; others that are silent are retired.")
@click.option("--flagged", is_flag=True, help="Show only hosts that are not ok, or suspected.")
@click.option("--limit", type=click.IntRange(1, 10**9), metavar="N", help="Show the worst N hosts.")
@click.option(
    "--format", "format_name", type=click.Choice(FORMATS), default="text", show_default=True, help="How to say it."
)
@click.option("--output", type=click.Path(dir_okay=False, readable=False), help="Replace this file, atomically.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, readable=False),
    help="Write a page with figures to this file too, - prints it.",
)
@click.option("--period", type=_SPAN, default="24h", show_default=True, help="What the page looks back on.")
@click.pass_context
def fleet(ctx: click.Context, /, **given: Any) -> None:
    """Say how the clocks of all hosts stand: who is wrong, unproven or silent, and what threatens the logs' order."""
    reading = ReadOptions(**{name: given[name] for name in ReadOptions._fields})
    telling = OutputOptions(**{name: given[name] for name in OutputOptions._fields})
    named = _named(ctx)
    gc.disable()  # what is read has no cycles, and looking for some would take a tenth of the time until the end
    _check_reading(reading)
    if ctx.invoked_subcommand is not None:
        ctx.obj = _outer(reading, telling, named)
        return
    _check_telling(telling, named)
    try:
        severity = _show(reading, telling)
    except ReadError as error:
        severity = _tell_absence(error, telling)
    except (ConfigError, OutputError, click.UsageError) as error:
        severity = _tell_failure(error, telling)
    raise click.exceptions.Exit(severity.exit_status)


@fleet.command(epilog=ORDER_EPILOG, short_help="Say how close two events may be, and still be in order.")
@click.argument("host_a")
@click.argument("host_b")
@_reading_options
@click.option("--format", "format_name", type=click.Choice(ORDER_FORMATS), help="How to say it.  [default: text]")
@click.pass_obj
def order(
    outer: tuple[ReadOptions, OutputOptions], /, host_a: str, host_b: str, format_name: str | None, **given: Any
) -> None:
    """Say how close events on two hosts may be stamped, and still be ordered for certain."""
    reading, telling = outer
    reading = reading._replace(**{name: value for name, value in given.items() if value})
    telling = telling._replace(format_name=format_name or telling.format_name)
    _check_reading(reading)
    if not (host_a and host_b):
        raise click.UsageError("a host is named by nothing: write the names of two")
    if host_a == host_b:
        raise click.UsageError("events on one and the same host are in the order of its stamps, but for its steps")
    try:
        severity = _order(reading, host_a, host_b, telling.format_name)
    except ReadError as error:
        severity = _tell_absence(error, telling, is_order=True)
    raise click.exceptions.Exit(severity.exit_status)


def _named(ctx: click.Context) -> dict[str, str]:
    """Return the options that were given, each by its name and as it is written."""
    return {
        str(one.name): one.opts[0]
        for one in ctx.command.params
        if ctx.get_parameter_source(str(one.name)) is ParameterSource.COMMANDLINE
    }


def _check_reading(reading: ReadOptions) -> None:
    """Refuse to read from two places, or what is named by nothing, such as an empty variable of a shell."""
    words = {name: getattr(reading, name) for name in ("site", "env", "database", "store", "inventory")}
    refuse_empty(config=reading.config_path, **words)
    if reading.is_shown and (reading.url or reading.language or reading.database or reading.env):
        raise click.UsageError("a demonstration is no database: it goes without --url, --language, --database, --env")


def _check_telling(telling: OutputOptions, named: Mapping[str, str]) -> None:
    """Refuse what cannot be told together."""
    refuse_empty(output=telling.output, html=telling.html)
    if telling.format_name == "nagios" and (telling.flagged or telling.limit):
        raise click.UsageError("--format nagios counts all hosts: it goes without --flagged and --limit")
    if telling.html is None:
        if "period" in named:
            raise click.UsageError("--period is what a page looks back on: it goes with --html")
        return
    if telling.html == "-" and telling.output is None and "format_name" in named:
        raise click.UsageError("--html - prints the page and nothing else: --format goes with a file for it, --output")
    if telling.output is not None and os.path.realpath(telling.html) == os.path.realpath(telling.output):
        raise click.UsageError("--html and --output are one and the same: the one would replace the other")


def _outer(reading: ReadOptions, telling: OutputOptions, named: Mapping[str, str]) -> tuple[ReadOptions, OutputOptions]:
    """Return what of the options before `order` is about it; the others are refused, for they would do nothing."""
    vain = [word for name, word in named.items() if name not in _OF_ORDER]
    if vain:
        raise click.UsageError(f"{', '.join(vain)}: of no meaning to `order`, which is about two hosts")
    if telling.format_name not in ORDER_FORMATS:
        raise click.UsageError(f"--format: `order` is told as {' or '.join(ORDER_FORMATS)}")
    return reading, telling


_OF_ORDER = {"config_path", "url", "language", "database", "env", "demo", "store", "at", "look_back"} | {
    "silent_after", "ambiguity", "format_name",
}  # fmt: skip


def _show(reading: ReadOptions, telling: OutputOptions) -> Severity:
    """Read, judge and tell a fleet."""
    from ntpaudit.core.fleet.checks import judge_fleet
    from ntpaudit.core.fleet.members import filter_site

    config, terms = _settle(reading)
    listed = _inventory(reading, config)
    terms = terms if listed is None else terms._replace(inventory=listed.names, sites=listed.sites)
    reader, source = _open(reading, config)
    with closing(reader):
        # who is listed for a site can have reported from another one, so an inventory needs all of them
        everywhere = reading._replace(site=None) if terms.inventory is not None else reading
        in_full = telling.format_name in ("json", "csv") or telling.html is not None
        snapshot, notes = _read(reader, everywhere, _reach(everywhere, terms)._replace(in_full=in_full))
        sites = {*snapshot.sites.values(), *terms.sites.values(), *(host.site for host in snapshot.hosts)}
        if reading.site is not None and terms.inventory is not None:
            snapshot, terms = filter_site(snapshot, terms, reading.site)
        judged = judge_fleet(snapshot, terms)
        if not judged.members:
            from ntpaudit.fleet.suggestion import nearest

            near = nearest(reading.site or "", filter(None, sites))
            guess = f"did you mean {near}?" if near else f"see `{_command(reading)}` for the sites there are"
            raise ReadError(f"{source} knows no host of site {reading.site!r}", guess)
        if telling.html != "-" or telling.output is not None:
            _put(_render(judged, telling, notes), telling.output)
        if telling.html is None:
            return judged.severity
        try:
            _put(_page(reader, judged, terms, reading.site, telling.period, source), telling.html)
        except (ReadError, OutputError) as error:  # the verdict was told, and stays what it is
            StandardError().note(f"no page: {error}")
            return max(judged.severity, Severity.UNKNOWN)
    return judged.severity


def _order(reading: ReadOptions, host_a: str, host_b: str, format_name: str) -> Severity:
    """Read two hosts and tell how events on them can be ordered."""
    from ntpaudit.core.fleet.ordering import order as order_of

    config, terms = _settle(reading)
    reader, source = _open(reading, config)
    with closing(reader):
        snapshot, _ = _read(reader, reading, _reach(reading, terms)._replace(site=None, in_full=False))
    command = _command(reading)
    one, other = (_find(snapshot, name, terms, source, command) for name in (host_a, host_b))
    found = order_of(one, other, snapshot.now_ns)
    if found is None:
        unmeasured = one.name if one.offset is None else other.name
        raise ReadError(f"the clock of {unmeasured} was not measured", f"see `{command}` for why")
    severity = Severity.OK if found.within_s <= terms.ambiguity_s else Severity.WARNING
    _put(_render_order(found, (one, other), snapshot.now_ns, severity, format_name), None)
    return severity


def _settle(reading: ReadOptions) -> tuple[Config, FleetPolicy]:
    """Return the configuration, and by what a fleet is judged; a demonstration knows nothing of this host's."""
    config = Config() if reading.is_shown else with_environment(read_config(reading.config_path), os.environ)
    terms = FleetPolicy(
        silent_after_s=reading.silent_after or config.fleet.silent_after_s,
        ambiguity_s=reading.ambiguity or config.fleet.ambiguity_s,
        warning_s=config.profile.warning_s,
        critical_s=config.profile.critical_s,
    )
    look_back_s = _reach(reading, terms).look_back_s
    if not terms.silent_after_s <= look_back_s:
        raise click.UsageError(_too_short(look_back_s, terms.silent_after_s, reading))
    return config, terms


def _too_short(look_back_s: float, silent_after_s: float, reading: ReadOptions) -> str:
    """Say that nobody could be found silent, by which of the two spans, and what to give."""
    sought = "--look-back" if reading.look_back is not None else "the default of --look-back"
    silence = "--silent-after" if reading.silent_after is not None else "fleet.silent_after, or its default"
    return (
        f"a host is silent after {format_duration(silent_after_s)} ({silence}), and its latest point is looked for "
        "only "
        f"{format_duration(look_back_s)} back ({sought}): give --look-back {ceil(silent_after_s / 3600)}h or more"
    )


def _inventory(reading: ReadOptions, config: Config) -> Inventory | None:
    """Return the hosts that should report, if somebody says so."""
    if reading.inventory is None:
        with _locating(reading):
            return None if config.fleet.inventory is None else read_inventory(config.fleet.inventory)
    try:
        return read_inventory(reading.inventory)
    except ConfigError as error:  # here it is the option that does not fit
        raise click.UsageError(str(error).replace("fleet.inventory", "--inventory")) from error


def _open(reading: ReadOptions, config: Config) -> tuple[Reader, str]:
    """Open what is to be read, and say what it is."""
    from ntpaudit.fleet import open_reader

    if reading.is_shown:
        path = reading.store or os.path.join(state_folder(os.environ), DEMONSTRATION)
        store = "" if reading.store is None else f" --store {shlex.quote(reading.store)}"
        return open_reader(path=path, keys={"demo": f"ntpaudit demo{store}"}), "the demonstration"
    with _locating(reading):
        place = fleet_database(config, os.environ, reading.url, reading.language, reading.database, reading.env)
    if reading.database is not None and place.language == "promql":
        raise click.UsageError("--database is about InfluxDB: what is asked in promql has one database")
    what = [place.language, *([place.database] if place.language == "influxql" else [])]
    source = f"{place.url} ({', '.join([*what, *([] if place.env is None else [f'env {place.env}'])])})"
    return open_reader(**place._asdict(), keys=_keys(reading, config)), source


def _keys(reading: ReadOptions, config: Config) -> dict[str, str]:
    """Return what whoever called the command calls the words that say where it reads."""
    if reading.url is not None:
        return {"url": "--url", "language": "--language", "database": "--database"}
    url = "fleet.url"
    if config.fleet.url is None and config.influxdb is not None:
        of_environment = os.environ.get("INFLUXDB_V2_URL", "").rstrip("/") == config.influxdb.url
        url = "INFLUXDB_V2_URL" if of_environment else "influxdb.url"
    return {
        "url": url,
        "language": "fleet.language" if reading.language is None else "--language",
        "database": "fleet.database" if reading.database is None else "--database",
    }


def _command(reading: ReadOptions) -> str:
    """Return the command that shows all of what was read."""
    words = ["ntpaudit", "fleet", *(["--demo"] if reading.demo else [])]
    for name in ("store", "url", "language", "database", "env"):
        value = getattr(reading, name)
        words += [] if value is None else [f"--{name}", value]
    return shlex.join([*words, *([] if reading.config_path is None else ["--config", reading.config_path])])


@contextmanager
def _locating(reading: ReadOptions) -> Iterator[None]:
    """Say of an error about a key in which file it stands, and in which line."""
    try:
        yield
    except ConfigError as error:
        path = reading.config_path or find_config(os.environ)
        raise (error if path is None else locate(error, path)) from error


def _reach(reading: ReadOptions, terms: FleetPolicy) -> SnapshotOptions:
    """Return how far to look."""
    usual = SnapshotOptions()
    return usual._replace(
        site=reading.site,
        look_back_s=reading.look_back or usual.look_back_s,
        baseline_s=reading.before or usual.baseline_s,
        silent_after_s=terms.silent_after_s,
    )


def _read(reader: Reader, reading: ReadOptions, reach: SnapshotOptions) -> tuple[Snapshot, list[str]]:
    """Read every host as of the moment asked for, and say what of the reading itself bears on that, also at once."""
    with _patience("reading every host"):
        now_ns = reader.now_ns()
        at_ns = now_ns if reading.at is None else resolve(reading.at, now_ns)
        if at_ns > now_ns:
            raise click.UsageError(_too_late(now_ns) if reading.is_shown else "--at is a time that has yet to come")
        if at_ns < 0:
            raise click.UsageError("--at is a time before 1970: no host has reported from then")
        notes = _notes(reader, reading)
        for note in notes:
            StandardError().note(note)
        return reader.snapshot(at_ns, reach), notes


def _notes(reader: Reader, reading: ReadOptions) -> list[str]:
    """Say by which of two clocks that differ the present was told; which of them is wrong, nobody knows here."""
    skew_s = reader.skew_s() or 0.0
    if isinstance(reading.at, int) or abs(skew_s) <= SKEW_S:
        return []
    way = "behind" if skew_s > 0 else "ahead of"
    return [
        f"the clock of this machine is {format_duration(abs(skew_s))} {way} that of the database, by which is judged "
        "who is "
        "silent, and which may be the wrong one: audit both, with `ntpaudit check`"
    ]


def _too_late(end_ns: int) -> str:
    """Say until when there is a demonstration."""
    return f"--at is later than the demonstration, which ends at {format_utc(end_ns)[:19]}Z; '2h ago' counts from there"


def _find(snapshot: Snapshot, name: str, terms: FleetPolicy, source: str, command: str) -> Host:
    """Return a host that reports. ReadError where it does not."""
    known = {host.name: host for host in snapshot.hosts}
    host = known.get(name)
    if host is None:
        from ntpaudit.fleet.suggestion import nearest

        near = nearest(name, known)
        guess = f"did you mean {near}?" if near else f"see `{command}` for the hosts there are"
        raise ReadError(f"{source} has no point of a host {name} in the time that was looked back on", guess)
    if name in (duplicate.name for duplicate in snapshot.duplicate_hosts):
        raise ReadError(
            f"several machines report as {name}: nothing said of it is of one clock",
            "give each of them a name of its own: host.name in its configuration",
        )
    silent_s = (snapshot.now_ns - seen_ns(host, snapshot)) / NS_PER_S
    if not silent_s <= terms.silent_after_s:
        raise ReadError(
            f"{name} has been silent for {format_duration(silent_s)}: nothing is known of its clock now",
            f"ask for a time at which it reported, such as --at '{silent_s / 60 + 1:.0f}m ago'",
        )
    return host


def _page(reader: Reader, judged: Fleet, terms: FleetPolicy, site: str | None, period_s: float, source: str) -> str:
    """Read how the fleet and its worst hosts fared, and write the page."""
    from ntpaudit.reports.fleet_page import MOST_COURSES, render

    begin_ns = judged.now_ns - round(period_s * NS_PER_S)
    worst = [one.name for one in judged.members if one.host is not None][:MOST_COURSES]
    with _patience(f"reading how {len(worst)} hosts fared over {format_duration(period_s)}"):
        courses = reader.host_series(worst, begin_ns, judged.now_ns, SPANS)
    with _patience(f"reading how the fleet fared over {format_duration(period_s)}"):
        tallies = reader.tallies(begin_ns, judged.now_ns, SPANS, site)
    steps = reader.steps(begin_ns, judged.now_ns, site)
    return render(
        judged, courses, tallies, steps, period_s=period_s, spans=SPANS, terms=terms, source=source, version=__version__
    )


def _render(judged: Fleet, telling: OutputOptions, notes: Sequence[str]) -> str:
    """Write the fleet in the format asked for; whoever sees no standard error finds the notes in it."""
    from ntpaudit.reports import fleet_csv, fleet_json, fleet_nagios, fleet_text

    shown = _chosen(judged.members, telling)
    match telling.format_name:
        case "json":
            return fleet_json.render(judged, shown, notes)
        case "csv":
            return fleet_csv.render(judged, shown)
        case "nagios":
            return fleet_nagios.render(judged, notes)
    width = None if telling.output is not None else page_width()
    return fleet_text.render(judged, shown, is_flagged=telling.flagged, width=width, colour=_colours(telling.output))


def _chosen(members: Sequence[HostStatus], telling: OutputOptions) -> Sequence[HostStatus] | None:
    """Return the hosts to show; None leaves it to the format."""
    from ntpaudit.reports.fleet_summary import flagged

    if not telling.flagged and telling.limit is None:
        return None
    return (flagged(members) if telling.flagged else members)[: telling.limit]


def _render_order(found: "Order", hosts: Sequence[Host], now_ns: int, severity: Severity, format_name: str) -> str:
    """Write how two hosts can be ordered."""
    from ntpaudit.reports import fleet_json, fleet_text

    estimates = [host.offset.estimate_s for host in hosts if host.offset is not None]
    if format_name == "json":
        return fleet_json.render_order(found, estimates, now_ns, severity)
    return fleet_text.render_order(found, estimates, now_ns, severity, width=page_width(), colour=wants_colour())


def _tell_absence(error: ReadError, telling: OutputOptions, *, is_order: bool = False) -> Severity:
    """Say that nothing could be read, in the format asked for; beside a table or a page, which have no place for it."""
    from ntpaudit.reports import fleet_json, fleet_nagios, fleet_text

    match telling.format_name:
        case "json":
            schema = fleet_json.ORDER_SCHEMA if is_order else fleet_json.SCHEMA
            text = fleet_json.render_absence(error.reason, error.remedy, schema)
        case "nagios":
            text = fleet_nagios.render_absence(error.reason, error.remedy)
        case "text" if telling.html != "-" or telling.output is not None:
            width, colour = (None, False) if telling.output not in (None, "-") else (page_width(), wants_colour())
            text = fleet_text.render_absence(error.reason, error.remedy, width=width, colour=colour)
        case _:
            StandardError().note(str(error))
            return Severity.UNKNOWN  # a table that was written before stays
    try:
        _put(text, telling.output)
    except OutputError as unwritten:
        return _tell_failure(unwritten, telling)
    return Severity.UNKNOWN


def _tell_failure(error: Exception, telling: OutputOptions) -> Severity:
    """Say what is wrong with the call, or with a file; whoever waits for a plugin's line looks at nothing else."""
    if telling.format_name == "nagios":
        from ntpaudit.reports import fleet_nagios

        text = fleet_nagios.render_absence(error.message if isinstance(error, click.UsageError) else str(error))
        try:
            _put(text, None if isinstance(error, OutputError) else telling.output)
        except OutputError:
            _put(text, None)
    elif isinstance(error, OutputError):
        StandardError().note(str(error))
    else:
        raise error
    return Severity.UNKNOWN


def _put(text: str, output: str | None) -> None:
    """Write something to standard output, or replace a file. OutputError where that cannot be written."""
    from ntpaudit.files import unwritable, write_output

    if output in (None, "-"):
        write_parts([text])
        return
    try:
        write_output(str(output), text)
    except OSError as error:
        raise OutputError(unwritable(str(output), error)) from error


def _colours(output: str | None) -> bool:
    """Colours are for terminals."""
    return output in (None, "-") and wants_colour()


@contextmanager
def _patience(what: str) -> Iterator[None]:
    """Tell whoever waits for what."""
    timer = Timer(PROGRESS_AFTER_S, StandardError().progress, [f"{what} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

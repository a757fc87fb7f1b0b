"""`ntpaudit fleet`: how the clocks of all hosts stand, read from the database that their agents deliver to."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ntpaudit import __version__
from ntpaudit.cli.output import StandardError, is_terminal, terminal_size, wants_colour
from ntpaudit.cli.parameters import Ago, Parsed, parse_time, resolve
from ntpaudit.cli.state import read_config
from ntpaudit.cli.stream import tell
from ntpaudit.config import (
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
from ntpaudit.core.fleet import Fleet, Host, Member, Snapshot, Terms
from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.core.policy import Severity
from ntpaudit.core.wording import span
from ntpaudit.errors import ConfigError, ReadError
from ntpaudit.fleet.reader import Reach, Reader
from ntpaudit.store.location import state_folder

if TYPE_CHECKING:
    from ntpaudit.core.fleet import Order

_Function = TypeVar("_Function", bound=Callable[..., None])

FORMATS = ("text", "json", "csv", "nagios")

DEMONSTRATION = "demo.sqlite3"

PATIENCE_S = 2.0
"""Who has waited for so long is told for what."""

SKEW_S = 30.0
"""A clock that is so far from the database's makes hosts look silent that are not."""

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
  ntpaudit fleet --html fleet.html --period 7d    a page to send or to keep
  ntpaudit fleet order web1 db2                   how close may two events be, and still be ordered?

\b
The database is that of [fleet] in the configuration, else that of [influxdb]. "behind" means that a clock is slow.
FILE of --inventory names a host a line, or a host, a comma and its site; - is standard input.

\b
Exit status: 0 ok, 1 warning, 2 critical, 3 unknown (also: not readable), 64 usage, 78 configuration.
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
    click.option("--demo", is_flag=True, help="Read the demonstration that `ntpaudit demo` left."),
    click.option("--at", type=Parsed("TIME", parse_time), help="As of then: '2h ago', or a time in UTC."),
    click.option("--look-back", type=_SPAN, help="Look for each host's latest point so far back.  [default: 24h]"),
    click.option("--silent-after", type=_SPAN, help="A host without a point for so long is silent.  [default: 10m]"),
    click.option("--ambiguity", type=_SPAN, help="Events further apart must be orderable at a site.  [default: 1s]"),
)


class Reading(NamedTuple):
    """What is read, of which moment, and by what it is judged; None is the configuration's, else the default."""

    config_path: str | None = None
    url: str | None = None
    language: Language | None = None
    demo: bool = False
    at: Ago | int | None = None
    look_back: float | None = None
    silent_after: float | None = None
    ambiguity: float | None = None
    site: str | None = None
    inventory: str | None = None
    before: float | None = None


class Telling(NamedTuple):
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
@click.option("--flagged", is_flag=True, help="Show only hosts that are not ok.")
@click.option("--limit", type=click.IntRange(1, 10**9), metavar="N", help="Show the worst N hosts.")
@click.option(
    "--format", "format_name", type=click.Choice(FORMATS), default="text", show_default=True, help="How to say it."
)
@click.option("--output", type=click.Path(dir_okay=False), help="Replace this file, atomically.")
@click.option("--html", type=click.Path(dir_okay=False), help="Write a page with figures to this file too.")
@click.option("--period", type=_SPAN, default="24h", show_default=True, help="What the page looks back on.")
@click.pass_context
def fleet(ctx: click.Context, /, **given: Any) -> None:
    """Say how the clocks of all hosts stand: who is wrong, unproven or silent, and what threatens the logs' order."""
    reading = Reading(**{name: given[name] for name in Reading._fields})
    telling = Telling(**{name: given[name] for name in Telling._fields})
    ctx.obj = reading
    if ctx.invoked_subcommand is not None:
        return
    if telling.format_name == "nagios" and (telling.flagged or telling.limit):
        raise click.UsageError("--format nagios counts all hosts: it goes without --flagged and --limit")
    try:
        severity = _show(reading, telling)
    except ReadError as error:
        _put(_render_absence(str(error), telling.format_name, colour=_colours(telling.output)), telling.output)
        severity = Severity.UNKNOWN
    raise click.exceptions.Exit(severity.exit_status)


@fleet.command(epilog=ORDER_EPILOG, short_help="Say how close two events may be, and still be in order.")
@click.argument("host_a")
@click.argument("host_b")
@_reading_options
@click.option(
    "--format", "format_name", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="How to say it.",
)  # fmt: skip
@click.pass_obj
def order(outer: Reading, /, host_a: str, host_b: str, format_name: str, **given: Any) -> None:
    """Say how close events on two hosts may be stamped, and still be ordered for certain."""
    reading = outer._replace(**{name: value for name, value in given.items() if value})
    if host_a == host_b:
        raise click.UsageError("events on one and the same host are in the order of its stamps, but for its steps")
    try:
        severity = _order(reading, host_a, host_b, format_name)
    except ReadError as error:
        _put(_render_absence(str(error), format_name, colour=wants_colour()), None)
        severity = Severity.UNKNOWN
    raise click.exceptions.Exit(severity.exit_status)


def _show(reading: Reading, telling: Telling) -> Severity:
    """Read, judge and tell a fleet."""
    from ntpaudit.core.fleet_rules import judge_fleet, narrow

    config, terms = _settle(reading)
    reader, source = _open(reading, config)
    with closing(reader):
        # who is listed for a site can have reported from another one, so an inventory needs all of them
        everywhere = reading._replace(site=None) if terms.inventory is not None else reading
        snapshot = _read(reader, everywhere)
        if reading.site is not None and terms.inventory is not None:
            snapshot, terms = narrow(snapshot, terms, reading.site)
        judged = judge_fleet(snapshot, terms)
        if not judged.members:
            raise ReadError(
                f"{source} knows no host of site {reading.site!r}; see `ntpaudit fleet` for the sites there are"
            )
        if telling.html is not None:
            _write(telling.html, _page(reader, judged, terms, reading.site, telling.period, source))
    _put(_render(judged, telling), telling.output)
    return judged.severity


def _order(reading: Reading, host_a: str, host_b: str, format_name: str) -> Severity:
    """Read two hosts and tell how events on them can be ordered."""
    from ntpaudit.core.fleet_rules import order as order_of

    config, terms = _settle(reading)
    reader, source = _open(reading, config)
    with closing(reader):
        snapshot = _read(reader, reading._replace(site=None))
    one, other = (_find(snapshot, name, terms, source) for name in (host_a, host_b))
    found = order_of(one, other)
    if found is None:
        unmeasured = one.name if one.offset is None else other.name
        raise ReadError(f"the clock of {unmeasured} was not measured; see `ntpaudit fleet` for why")
    severity = Severity.OK if found.within_s <= terms.ambiguity_s else Severity.WARNING
    _put(_render_order(found, (one, other), severity, format_name), None)
    return severity


def _settle(reading: Reading) -> tuple[Config, Terms]:
    """Return the configuration, and by what a fleet is judged; a demonstration knows nothing of this host's."""
    config = Config() if reading.demo else with_environment(read_config(reading.config_path), os.environ)
    terms = Terms(
        silent_after_s=reading.silent_after or config.fleet.silent_after_s,
        ambiguity_s=reading.ambiguity or config.fleet.ambiguity_s,
        warning_s=config.profile.warning_s,
    )
    if not terms.silent_after_s <= _reach(reading).look_back_s:
        raise click.UsageError("--look-back is shorter than --silent-after: no host could be told to be silent")
    listed = _inventory(reading, config)
    return config, terms if listed is None else terms._replace(inventory=listed.names, sites=listed.sites)


def _inventory(reading: Reading, config: Config) -> Inventory | None:
    """Return the hosts that should report, if somebody says so."""
    if reading.inventory is None:
        with _locating(reading):
            return None if config.fleet.inventory is None else read_inventory(config.fleet.inventory)
    try:
        return read_inventory(reading.inventory)
    except ConfigError as error:  # here it is the option that does not fit
        raise click.UsageError(str(error).replace("fleet.inventory", "--inventory")) from error


def _open(reading: Reading, config: Config) -> tuple[Reader, str]:
    """Open what is to be read, and say what it is."""
    from ntpaudit.fleet import open_reader

    if reading.demo:
        if reading.url or reading.language:
            raise click.UsageError("--demo reads no database: it goes without --url and --language")
        return open_reader(path=os.path.join(state_folder(os.environ), DEMONSTRATION)), "the demonstration"
    with _locating(reading):
        place = fleet_database(config, os.environ, reading.url, reading.language)
    source = f"{place.url} ({place.language}{f', {place.database}' if place.language == 'influxql' else ''})"
    return open_reader(**place._asdict()), source


@contextmanager
def _locating(reading: Reading) -> Iterator[None]:
    """Say of an error about a key in which file it stands, and in which line."""
    try:
        yield
    except ConfigError as error:
        path = reading.config_path or find_config(os.environ)
        raise (error if path is None else locate(error, path)) from error


def _reach(reading: Reading) -> Reach:
    """Return how far to look."""
    usual = Reach()
    return Reach(reading.site, reading.look_back or usual.look_back_s, reading.before or usual.before_s)


def _read(reader: Reader, reading: Reading) -> Snapshot:
    """Read every host as of the moment asked for."""
    with _patience("reading every host"):
        now_ns = reader.now_ns()
        at_ns = now_ns if reading.at is None else resolve(reading.at, now_ns)
        if at_ns > now_ns:
            raise click.UsageError("--at is a time that has yet to come")
        snapshot = reader.snapshot(at_ns, _reach(reading))
    skew_s = reader.skew_s() or 0.0
    if reading.at is None and not abs(skew_s) <= SKEW_S:
        StandardError().note(
            f"the clocks of this machine and of the database differ by {span(skew_s)}, and who is silent is judged by "
            "this machine's: audit both, with `ntpaudit check`"
        )
    return snapshot


def _find(snapshot: Snapshot, name: str, terms: Terms, source: str) -> Host:
    """Return a host that reports. ReadError where it does not."""
    known = {host.name: host for host in snapshot.hosts}
    host = known.get(name)
    if host is None:
        import difflib

        near = difflib.get_close_matches(name, known, 1)
        guess = f"did you mean {near[0]}?" if near else "see `ntpaudit fleet` for the hosts there are"
        raise ReadError(f"{source} has no point of a host {name} in the time that was looked back on; {guess}")
    silent_s = (snapshot.now_ns - host.last_ns) / NS_PER_S
    if not silent_s <= terms.silent_after_s:
        raise ReadError(
            f"{name} has been silent for {span(silent_s)}: nothing is known of its clock now; ask for a time at which "
            f"it reported, such as --at '{silent_s / 60 + 1:.0f}m ago'"
        )
    return host


def _page(reader: Reader, judged: Fleet, terms: Terms, site: str | None, period_s: float, source: str) -> str:
    """Read how the fleet and its worst hosts fared, and write the page."""
    from ntpaudit.reports.fleet_page import MOST_COURSES, render

    begin_ns = judged.now_ns - round(period_s * NS_PER_S)
    worst = [one.name for one in judged.members if one.host is not None][:MOST_COURSES]
    with _patience(f"reading how {len(worst)} hosts fared over {span(period_s)}"):
        courses = reader.courses(worst, begin_ns, judged.now_ns, SPANS)
    with _patience(f"reading how the fleet fared over {span(period_s)}"):
        tallies = reader.tallies(begin_ns, judged.now_ns, SPANS, site)
    return render(judged, courses, tallies, period_s=period_s, terms=terms, source=source, version=__version__)


def _render(judged: Fleet, telling: Telling) -> str:
    """Write the fleet in the format asked for."""
    from ntpaudit.reports import fleet_csv, fleet_json, fleet_nagios, fleet_text

    shown = _chosen(judged.members, telling)
    match telling.format_name:
        case "json":
            return fleet_json.render(judged, shown)
        case "csv":
            return fleet_csv.render(judged, shown)
        case "nagios":
            return fleet_nagios.render(judged)
    width = None if telling.output is not None else _width()
    return fleet_text.render(judged, shown, width=width, colour=_colours(telling.output))


def _chosen(members: Sequence[Member], telling: Telling) -> Sequence[Member] | None:
    """Return the hosts to show; None leaves it to the format."""
    from ntpaudit.reports.fleet_summary import flagged

    if not telling.flagged and telling.limit is None:
        return None
    return (flagged(members) if telling.flagged else members)[: telling.limit]


def _render_order(found: "Order", hosts: Sequence[Host], severity: Severity, format_name: str) -> str:
    """Write how two hosts can be ordered."""
    from ntpaudit.reports import fleet_json, fleet_text

    if format_name == "json":
        return fleet_json.render_order(found, severity)
    estimates = [host.offset.estimate_s for host in hosts if host.offset is not None]
    return fleet_text.render_order(found, estimates, severity, width=_width(), colour=wants_colour())


def _render_absence(reason: str, format_name: str, *, colour: bool) -> str:
    """Write that nothing could be read; a table of hosts has no place for it, so there it is said beside."""
    from ntpaudit.reports import fleet_json
    from ntpaudit.sinks.standing import render_absence

    match format_name:
        case "json":
            return fleet_json.render_absence(reason)
        case "csv":
            StandardError().note(reason)
            return ""
    return render_absence(reason, format_name, colour=colour)


def _put(text: str, output: str | None) -> None:
    """Write the result to standard output, or to a file."""
    if output in (None, "-"):
        tell([text])
    else:
        _write(str(output), text)


def _write(path: str, text: str) -> None:
    """Replace a file. What cannot be written is unknown to whoever waits for it."""
    from ntpaudit.sinks.files import unwritable, write_atomically

    try:
        write_atomically(path, text)
    except OSError as error:
        StandardError().note(unwritable(path, error))
        raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error


def _width() -> int | None:
    """Return how wide a line may be; None where there is no terminal."""
    return terminal_size()[0] if is_terminal() else None


def _colours(output: str | None) -> bool:
    """Colours are for terminals."""
    return output in (None, "-") and wants_colour()


@contextmanager
def _patience(what: str) -> Iterator[None]:
    """Tell whoever waits for what."""
    timer = Timer(PATIENCE_S, StandardError().progress, [f"{what} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

"""What `ntpaudit fleet` reads: the database, the limits, the snapshot of a time."""

import os
import shlex
from collections.abc import Iterable
from contextlib import AbstractContextManager
from math import ceil
from typing import NamedTuple

import click

from ntpaudit.cli.output import note, show_progress
from ntpaudit.cli.parameters import RelativeTime, config_option, parsed, resolve
from ntpaudit.cli.state import read_config
from ntpaudit.config.exceptions import read_exceptions
from ntpaudit.config.fleet_database import fleet_database
from ntpaudit.config.inventory import Inventory, read_inventory
from ntpaudit.config.load import with_environment
from ntpaudit.config.schema import Config
from ntpaudit.config.values import LANGUAGES, Language, parse_url
from ntpaudit.core.acceptance import HostAcceptance
from ntpaudit.core.fleet.model import FleetPolicy, Host, Snapshot
from ntpaudit.core.fleet.severity import latest_arrival_ns
from ntpaudit.core.units import NS_PER_S, format_duration, format_utc
from ntpaudit.errors import ConfigError, ReadError
from ntpaudit.fleet.decode import CLOCK, JUDGED_FIELDS
from ntpaudit.fleet.reader import SKEW_S, Reader, SnapshotOptions
from ntpaudit.net import deadline
from ntpaudit.store.paths import state_folder

DEMONSTRATION = "demo.sqlite3"
PROGRESS_AFTER_S = 2.0  # the delay of a progress message


DATABASE_OPTIONS = (
    config_option,
    click.option("--url", type=parsed("URL", parse_url), help="Read this database, such as http://127.0.0.1:8086."),
    click.option("--language", type=click.Choice(LANGUAGES), help="Query language.  [default: influxql]"),
    click.option("--database", metavar="NAME", help="Database or bucket.  [default: ntpaudit]"),
    click.option("--env", metavar="NAME", help="Only hosts of this environment."),
    click.option("--demo", is_flag=True, help="Read the fleet that `ntpaudit demo` simulated."),
    click.option("--store", type=click.Path(readable=False), help="Read the file of `ntpaudit demo --store`."),
)
"""The options that choose the database of a fleet."""


class FleetOptions(NamedTuple):
    """What to read, at which time, the limits, and what to write; None means the configured value, else the default."""

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
    exceptions: str | None = None
    before: float | None = None
    flagged: bool = False
    limit: int | None = None
    format_name: str = "text"
    output: str | None = None
    html: str | None = None
    period: float = 86_400.0

    @property
    def is_shown(self) -> bool:
        """Whether a demonstration is read."""
        return self.demo or self.store is not None


def check_read(options: FleetOptions) -> None:
    """Reject contradicting databases, and empty values such as an empty shell variable."""
    for name in ("config_path", "site", "env", "database", "store", "inventory", "exceptions", "output", "html"):
        if getattr(options, name) == "":
            raise click.UsageError(f"--{name.removesuffix('_path')} is empty: omit it, or give it a value")
    if options.is_shown and (options.url or options.language or options.database or options.env):
        raise click.UsageError("--demo and --store cannot be combined with --url, --language, --database or --env")


def settle(options: FleetOptions) -> tuple[Config, FleetPolicy]:
    """Return the configuration and the limits of a fleet; a demonstration ignores this host's configuration."""
    config = Config() if options.is_shown else with_environment(read_config(options.config_path), os.environ)
    terms = FleetPolicy(
        silent_after_s=options.silent_after or config.fleet.silent_after_s,
        ambiguity_s=options.ambiguity or config.fleet.ambiguity_s,
        warning_s=config.profile.warning_s,
        critical_s=config.profile.critical_s,
        exceptions=() if options.exceptions is None else exceptions_of(options.exceptions),
    )
    silent_after_s, look_back_s = terms.silent_after_s, reach_of(options, terms).look_back_s
    if not silent_after_s <= look_back_s:
        limit = "--look-back" if options.look_back is not None else "the default of --look-back"
        silence = "--silent-after" if options.silent_after is not None else "fleet.silent_after, or its default"
        raise click.UsageError(
            f"no host could be detected as silent: silent after {format_duration(silent_after_s)} ({silence}), but "
            f"points are read only for {format_duration(look_back_s)} ({limit}): give --look-back "
            f"{ceil(silent_after_s / 3600)}h or more"
        )
    return config, terms


def exceptions_of(path: str) -> tuple[HostAcceptance, ...]:
    """Return what a file accepts for which hosts."""
    try:
        return read_exceptions(path)
    except ConfigError as error:  # the option is at fault, not the configuration
        raise click.UsageError(f"--exceptions: {error}") from error


def inventory_of(options: FleetOptions, config: Config) -> Inventory | None:
    """Return the hosts that must report, None without an inventory."""
    if options.inventory is None:
        return None if config.fleet.inventory is None else read_inventory(config.fleet.inventory)
    try:
        return read_inventory(options.inventory)
    except ConfigError as error:  # the option is at fault, not the file
        raise click.UsageError(str(error).replace("fleet.inventory", "--inventory")) from error


def open_database(options: FleetOptions, config: Config) -> tuple[Reader, str]:
    """Open the database, and describe it."""
    from ntpaudit.fleet import open_reader

    if options.is_shown:
        path = options.store or os.path.join(state_folder(os.environ), DEMONSTRATION)
        store = "" if options.store is None else f" --store {shlex.quote(options.store)}"
        return open_reader(path=path, keys={"demo": f"ntpaudit demo{store}"}), "the demonstration"
    place = fleet_database(config, os.environ, options.url, options.language, options.database, options.env)
    if options.database is not None and place.language == "promql":
        raise click.UsageError("--database is for InfluxDB: a PromQL database has no name")
    what: list[str] = [place.language]
    what += [place.database] if place.language == "influxql" else []
    what += [] if place.env is None else [f"env {place.env}"]
    return open_reader(**place._asdict(), keys=_keys(options, config)), f"{place.url} ({', '.join(what)})"


def open_named(
    config_path: str | None, url: str | None, language: Language | None, database: str | None
) -> tuple[Reader, str]:
    """Open the database of the options of a command that reads nothing else of a fleet, and describe it."""
    options = FleetOptions(config_path=config_path, url=url, language=language, database=database)
    config, _ = settle(options)
    return open_database(options, config)


def _keys(options: FleetOptions, config: Config) -> dict[str, str]:
    if options.url is not None:
        return {"url": "--url", "language": "--language", "database": "--database"}
    url = "fleet.url"
    if config.fleet.url is None and config.influxdb is not None:
        of_environment = os.environ.get("INFLUXDB_V2_URL", "").rstrip("/") == config.influxdb.url
        url = "INFLUXDB_V2_URL" if of_environment else "influxdb.url"
    return {
        "url": url,
        "language": "fleet.language" if options.language is None else "--language",
        "database": "fleet.database" if options.database is None else "--database",
    }


def command_line(options: FleetOptions) -> str:
    """Return the command that shows the whole fleet."""
    words = ["ntpaudit", "fleet", *(["--demo"] if options.demo else [])]
    given = {name: getattr(options, name) for name in ("store", "url", "language", "database", "env")}
    for name, value in {**given, "config": options.config_path}.items():
        words += [] if value is None else [f"--{name}", value]
    return shlex.join(words)


def reach_of(options: FleetOptions, terms: FleetPolicy) -> SnapshotOptions:
    """Return how far back, of which site and in how much detail the hosts are read."""
    usual = SnapshotOptions()
    lists_all = options.format_name in ("json", "csv") or options.html is not None
    return SnapshotOptions(
        options.site,
        options.look_back or usual.look_back_s,
        options.before or usual.baseline_s,
        terms.silent_after_s,
        CLOCK.fields if lists_all else JUDGED_FIELDS,
    )


def read_snapshot(reader: Reader, options: FleetOptions, reach: SnapshotOptions) -> tuple[Snapshot, list[str]]:
    """Read every host at the requested time; return notes about the options, which are also printed."""
    with progress("reading every host"):
        now_ns = reader.now_ns()
        at_ns = now_ns if options.at is None else resolve(options.at, now_ns)
        if at_ns > now_ns:
            end = f"{format_utc(now_ns)[:19]}Z; '2h ago' counts from that time"
            late = f"after the end of the demonstration, {end}" if options.is_shown else "in the future"
            raise click.UsageError(f"--at is {late}")
        if at_ns < 0:
            raise click.UsageError("--at is before 1970: no host reported then")
        notes = [] if isinstance(options.at, int) else _notes(reader.skew_s() or 0.0)
        for text in notes:
            note(text)
        snapshot = reader.snapshot(at_ns, reach)
    if options.is_shown and options.at is not None and snapshot.expired and not snapshot.hosts:
        reached = format_duration(reach.look_back_s)
        raise click.UsageError(
            f"--at: the demonstration has no data in the {reached} before {format_utc(at_ns)[:19]}Z; "
            f"it ends at {format_utc(now_ns)[:19]}Z: choose a later time"
        )
    return snapshot, notes


def _notes(skew_s: float) -> list[str]:
    """Return a note if this machine's clock and the database's differ; which one is wrong is not known here."""
    if abs(skew_s) <= SKEW_S:
        return []
    way = "behind" if skew_s > 0 else "ahead of"
    return [
        f"the clock of this machine is {format_duration(abs(skew_s))} {way} that of the database, which decides which "
        "hosts are silent; either may be wrong: audit both with `ntpaudit check`"
    ]


def suggest(name: str, known: Iterable[str], what: str, options: FleetOptions) -> str:
    """Return the fix for a name of a host or site that is not known."""
    from ntpaudit.fleet.suggestion import nearest

    near = nearest(name, known)
    return f"did you mean {near}?" if near else f"list the {what} with `{command_line(options)}`"


def find_host(snapshot: Snapshot, name: str, terms: FleetPolicy, source: str, options: FleetOptions) -> Host:
    """Return a host that reports. Raises ReadError for any other."""
    known = {host.name: host for host in snapshot.hosts}
    host = known.get(name)
    if host is None:
        fix = suggest(name, known, "hosts", options)
        raise ReadError(f"{source} has no point of a host {name!r} within --look-back", fix)
    if name in (duplicate.name for duplicate in snapshot.duplicate_hosts):
        raise ReadError(
            f"several machines report under the name {name}, so its points are not of one clock",
            "give each machine its own name: host.name in its configuration",
        )
    silent_s = (snapshot.now_ns - latest_arrival_ns(host, snapshot)) / NS_PER_S
    if not silent_s <= terms.silent_after_s:
        raise ReadError(
            f"{name} has been silent for {format_duration(silent_s)}, so its current offset is unknown",
            f"give a time at which it reported, such as --at '{silent_s / 60 + 1:.0f}m ago'",
        )
    return host


def progress(what: str) -> AbstractContextManager[None]:
    """Print a progress message if a block takes long."""
    return deadline.after(PROGRESS_AFTER_S, lambda: show_progress(f"{what} ..."))

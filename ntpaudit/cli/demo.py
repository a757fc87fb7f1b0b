"""`ntpaudit demo`: a simulated fleet, or one audit, without a network."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click
from click.core import ParameterSource

from ntpaudit import __version__, audit
from ntpaudit.cli.logs import log_to_stderr
from ntpaudit.cli.output import (
    StandardError,
    emit_and_exit,
    format_option,
    page_width,
    terminal_size,
    wants_colour,
)
from ntpaudit.cli.parameters import (
    LEAST_HOURS,
    MOST_HOURS,
    Parsed,
    RelativeTime,
    parse_hours,
    parse_time,
    refuse_empty,
    resolve,
)
from ntpaudit.cli.stream import write_parts
from ntpaudit.core.ntp.rate_limit import ServerStates
from ntpaudit.core.ntp.sources import Server
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES, Severity
from ntpaudit.core.record import Labels, conclude
from ntpaudit.core.units import NS_PER_S, format_utc
from ntpaudit.errors import OutputError, ReadError, StoreError

if TYPE_CHECKING:
    from ntpaudit.config.schema import InfluxConfig
    from ntpaudit.config.values import Language
    from ntpaudit.core.fleet.model import Snapshot
    from ntpaudit.demo.scenario import Scenario

EPILOG = """\b
Examples:
  ntpaudit demo                             24 hosts at 3 sites, the last 24 hours, in a file
  ntpaudit fleet --demo                     show that fleet again
  ntpaudit demo --once                      one audit, in the format of `ntpaudit check`
  ntpaudit demo --influx-url http://127.0.0.1:8428 --follow        a database for Grafana, kept up to date
  ntpaudit demo --hosts 10000 --hours 6 --influx-url http://127.0.0.1:8428

\b
The same seed gives the same faults at the same times. Audits run the real code, over UDP on loopback for up to 100
hosts, else without UDP; hosts, servers, clocks and time daemons are simulated. Points are those of `ntpaudit agent`,
with the environment `demo`. The token for InfluxDB comes from INFLUXDB_V2_TOKEN.

\b
Exit status: 0 ok, 3 failed, 64 usage, 78 configuration, 130 interrupted (also by SIGTERM and SIGHUP), where an earlier
demonstration is kept; with --once as `ntpaudit check`.
"""

LABEL = "demonstration: servers simulated on loopback, wrong on purpose; the offset says nothing about this clock"
FLEET_LABEL = "demonstration: hosts, clocks and servers are simulated, some of them wrong on purpose"

BUCKET = "ntpaudit"
"""Where points go, and are looked for, unless told otherwise."""

UDP_HOSTS = 100
"""So many hosts are audited over UDP, unless told otherwise."""

BAR_COLUMNS = 50
"""What stands beside the bar that shows how far it is, with a million hosts and days to go."""

TIMEOUT_S = 30.0
"""A database under full load may take so long for a batch."""


class DemoOptions(NamedTuple):
    """What was asked for. `until_ns` None is the present; `read_url` None is the URL that is written to."""

    story: "Scenario"
    udp: bool
    until_ns: int | None
    follow: bool
    influx: "InfluxConfig | None"
    store_path: str
    read_url: str | None = None

    @property
    def reading(self) -> "InfluxConfig | None":
        """The database where it is read, which may be elsewhere than where it is written to."""
        return self.influx if self.influx is None or self.read_url is None else self.influx._replace(url=self.read_url)


class TargetDatabase(NamedTuple):
    """A database as it was found: in which language it is read, and until when it knows hosts of a demonstration.

    `unreadable` says why it cannot be read, if that is so.
    """

    language: "Language"
    told_ns: Mapping[str, int]
    unreadable: str | None = None


def forget(change: Callable[[ServerStates], ServerStates]) -> None:
    """Remember nothing."""
    change({})


@click.command(epilog=EPILOG)
@click.option("--once", is_flag=True, help="Show one audit, not a fleet.")
@click.option("--hosts", type=click.IntRange(3, 1_000_000), default=24, show_default=True, help="Number of hosts.")
@click.option(
    "--hours",
    type=Parsed("HOURS", parse_hours),
    default=24.0,
    show_default=True,
    help=f"Length of the history: {LEAST_HOURS:g} to {MOST_HOURS:g} hours, or a duration such as 7d.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed: the same seed gives the same fleet.")
@click.option(
    "--until",
    type=Parsed("TIME", parse_time),
    help="End of the history: an age such as 7d, or a time in UTC.  [default: now]",
)
@click.option("--follow", is_flag=True, help="Continue in real time until interrupted.")
@click.option("--influx-url", metavar="URL", help="Write to this InfluxDB or VictoriaMetrics, not to a file.")
@click.option(
    "--read-url",
    metavar="URL",
    help="URL to read from, if different: a cluster's vmselect, the database behind a relay.",
)
@click.option("--bucket", default=BUCKET, show_default=True, help="The database's bucket.")
@click.option("--org", default="", help="The database's organisation, if it has organisations.")
@click.option(
    "--store", "store_path", type=click.Path(dir_okay=False), help="Write to this file, not to the default one."
)
@click.option("--udp/--no-udp", default=None, help=f"Audit over UDP on loopback.  [default: up to {UDP_HOSTS} hosts]")
@format_option
def demo(
    once: bool,
    hosts: int,
    hours: float,
    seed: int,
    until: RelativeTime | int | None,
    follow: bool,
    influx_url: str | None,
    read_url: str | None,
    bucket: str,
    org: str,
    store_path: str | None,
    udp: bool | None,
    format_name: str,
) -> None:
    """Simulate a fleet, or one audit, against NTP servers on loopback; no network needed.

    The code is that of the agent. By default 24 hosts, some of them faulty, are simulated for the last 24 hours, and
    the result of `ntpaudit fleet` is shown. --format is for --once.
    """
    if once:
        _check_once(click.get_current_context())
        show_one_audit(format_name)
        return
    if format_name != "text":
        raise click.UsageError("--format goes with --once; of a fleet, ask `ntpaudit fleet --demo`")
    refuse_empty(influx_url=influx_url, read_url=read_url, store=store_path)
    if read_url is not None and influx_url is None:
        raise click.UsageError("--read-url goes with --influx-url: it says where that database is read")
    if influx_url is None and (bucket != BUCKET or org):
        raise click.UsageError(
            "--bucket and --org are about the database of --influx-url: name that, or leave them out"
        )
    if follow and influx_url is None:
        raise click.UsageError("--follow goes with --influx-url: a file is read once it is finished")
    if follow and until is not None:
        raise click.UsageError("--follow goes without --until: it goes on from now")
    if influx_url is not None and store_path is not None:
        raise click.UsageError("--store goes without --influx-url: points go to one place")
    from ntpaudit.demo.scenario import build_scenario

    now_ns = time.time_ns()
    until_ns = None if until is None else resolve(until, now_ns)
    if until_ns is not None and until_ns > now_ns:
        raise click.UsageError("--until lies ahead: a history ends now, or earlier")
    options = DemoOptions(
        story=build_scenario(hosts, hours, seed, now_ns if until_ns is None else until_ns),
        udp=hosts <= UDP_HOSTS if udp is None else udp,
        until_ns=until_ns,
        follow=follow,
        influx=None if influx_url is None else _database(influx_url, bucket, org),
        store_path=store_path or _usual_path(),
        read_url=None if read_url is None else _url("--read-url", read_url),
    )
    try:
        show_fleet(options)
    except (StoreError, OutputError) as error:
        StandardError().note(str(error))
        raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error


def _check_once(ctx: click.Context) -> None:
    """Refuse what is about a fleet, for it would do nothing."""
    vain = [
        one.opts[0]
        for one in ctx.command.params
        if one.name not in ("once", "format_name")
        and ctx.get_parameter_source(str(one.name)) is ParameterSource.COMMANDLINE
    ]
    if vain:
        raise click.UsageError(f"{', '.join(vain)}: about a fleet; --once shows one audit, and takes only --format")


def show_one_audit(format_name: str) -> None:
    """Audit once. Four servers say that this host is 1.9 ms behind, over networks of different length; a fifth lies."""
    from ntpaudit.demo.once import SCENE
    from ntpaudit.demo.server import NtpServer
    from ntpaudit.probes.clock import SystemClock

    voice = StandardError()
    voice.note(LABEL)
    log_to_stderr()
    with ExitStack() as stack:
        servers = [(name, stack.enter_context(NtpServer(behaviour))) for name, behaviour in SCENE.items()]
        plan = audit.Plan(
            sources=tuple(Server(name, server.address, server.port) for name, server in servers),
            profile=PROFILES[DEFAULT_PROFILE],
            labels=Labels(__version__),
        )
        # loopback needs no manners, so nothing is remembered of these servers
        result = conclude(audit.observe(plan, SystemClock(), forget, voice.progress), plan.profile, plan.labels)
    emit_and_exit(result, format_name)


def show_fleet(options: DemoOptions) -> None:
    """Simulate a fleet, store its points, and show what is found in it. Raises StoreError and OutputError."""
    from ntpaudit.config.secrets import read_token
    from ntpaudit.demo.workers import Work, catch_up, follow, gather, live, portions
    from ntpaudit.demo.writers import StoreWriter
    from ntpaudit.fleet.demo_store import DemoStore

    voice = StandardError()
    voice.note(FLEET_LABEL)
    _end_as_by_ctrl_c()
    token = None if options.influx is None else read_token(options.influx, os.environ)
    hosts = len(options.story.hosts)
    with ExitStack() as stack:
        store = None if options.influx is not None else stack.enter_context(DemoStore.create(_placed(options)))
        outlet = None if store is None else StoreWriter(store)
        place = None if options.reading is None else _look_at(options.reading, token, options.story)
        work = Work(
            options.story,
            options.udp,
            options.influx,
            token,
            {} if place is None else _kept(options, place),
            options.follow,
        )
        crew = stack.enter_context(gather(work, len(os.sched_getaffinity(0)), outlet, voice.note))
        moments = portions(options.story)
        with _progress("simulating hosts" if len(moments) == 1 else "days of hosts", hosts * len(moments)) as arrived:
            for moment_ns in moments:
                live(crew, moment_ns, arrived)
        end_ns = options.until_ns
        if end_ns is None:
            end_ns, is_present = catch_up(crew, options.story, time.time_ns, lambda: _progress("up to now", hosts))
            options = options if is_present else _late(options, end_ns)
        if store is not None:
            store.finish(end_ns)
        if options.follow:
            write_parts([_seen(options, place, token, end_ns), _made(options, place, end_ns)])
            voice.note("goes on in real time, until it is interrupted")
            with _pulse() as reached:
                follow(crew, time.time_ns, time.sleep, reached)
    write_parts([_seen(options, place, token, end_ns), _made(options, place, end_ns)])


def _end_as_by_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP end this process in order, as SIGINT does. What nohup has it ignore stays ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _late(options: DemoOptions, end_ns: int) -> DemoOptions:
    """Tell that hosts do not come to the present, and return what is to be shown then: how they stood at their end."""
    StandardError().note(
        f"to simulate {len(options.story.hosts)} hosts takes longer here than the time they live: they stay behind the "
        f"present, at {format_utc(end_ns)[:19]}Z; try fewer hosts"
    )
    return options if options.follow else options._replace(until_ns=end_ns)


def _database(url: str, bucket: str, org: str) -> "InfluxConfig":
    """Return the database that was named."""
    from ntpaudit.config.schema import InfluxConfig

    return InfluxConfig(_url("--influx-url", url), org=org, bucket=bucket, timeout_s=TIMEOUT_S)


def _url(option: str, url: str) -> str:
    """Return a URL as it is used."""
    from ntpaudit.config.values import parse_url

    try:
        return parse_url(url)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error


def _usual_path() -> str:
    """Return the file that `ntpaudit fleet --demo` reads."""
    from ntpaudit.cli.fleet_reading import DEMONSTRATION
    from ntpaudit.store.paths import state_folder

    return os.path.join(state_folder(os.environ), DEMONSTRATION)


def _placed(options: DemoOptions) -> str:
    """Return the file to write. The state folder is ours, and made where missing; any other must be there."""
    from ntpaudit.fleet.demo_store import unwritten

    if options.store_path == _usual_path():
        try:
            os.makedirs(os.path.dirname(options.store_path), exist_ok=True)
        except OSError as error:
            raise unwritten(options.store_path, error) from error
    return options.store_path


def _look_at(influx: "InfluxConfig", token: str | None, scenario: "Scenario") -> TargetDatabase:
    """Find out what a database is, and what it knows of a demonstration."""
    from ntpaudit.demo.database import read_database, recognise, told_before

    language = recognise(influx, token)
    try:
        with closing(read_database(influx, token, language)) as reader:
            return TargetDatabase(language, told_before(reader, scenario))
    except ReadError as error:
        return TargetDatabase(language, {}, error.reason)


def _kept(options: DemoOptions, place: TargetDatabase) -> Mapping[str, int]:
    """Return until when hosts are to be left as the database has them, and tell whoever fills it of what is there."""
    ours = {part.name for part in options.story.hosts} & place.told_ns.keys()
    others = sorted(place.told_ns.keys() - ours)
    if others:
        StandardError().note(
            f"the database holds another demonstration too: {len(others)} hosts that are not in this one, such as "
            f"{others[0]}, will look silent; an empty bucket has none"
        )
    if ours and options.until_ns is None:
        last = format_utc(max(place.told_ns[name] for name in ours))[:19]
        StandardError().note(
            f"the database knows {len(ours)} of these hosts already, until {last}Z: each goes on from there, and its "
            "past stays as it was; for the whole story name an empty bucket"
        )
        return {name: place.told_ns[name] for name in ours}
    if ours:
        StandardError().note(
            f"the database knows {len(ours)} of these hosts already: their pasts will mix; for this one alone name an "
            "empty bucket"
        )
    return {}


@contextmanager
def _progress(label: str, length: int) -> Iterator[Callable[[], None]]:
    """Show whoever watches how many hosts have come to a moment."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    width = max(4, min(36, terminal_size()[0] - BAR_COLUMNS))
    with click.progressbar(length=length, label=label, show_pos=True, file=sys.stderr, width=width) as bar:
        yield lambda: bar.update(1)


@contextmanager
def _pulse() -> Iterator[Callable[[int, int], None]]:
    """Show whoever watches a fleet in real time that it lives: one line, which is written over."""
    if not sys.stderr.isatty():
        yield lambda points, until_ns: None
        return

    def show(points: int, until_ns: int) -> None:
        line = f"{points:,} points until {format_utc(until_ns)[:19]}Z"
        click.echo(f"{line[: terminal_size()[0] - 1]}\r", err=True, nl=False)  # what is told next is longer

    try:
        yield show
    finally:
        click.echo("", err=True)


def _seen(options: DemoOptions, place: TargetDatabase | None, token: str | None, end_ns: int) -> str:
    """Return what `ntpaudit fleet` says of the fleet; of a database that cannot be read only that is said."""
    from ntpaudit.core.fleet.checks import judge_fleet
    from ntpaudit.core.fleet.model import FleetPolicy
    from ntpaudit.reports import fleet_text

    if place is not None and place.unreadable is not None:
        StandardError().note(f"not shown, for what was written cannot be read: {place.unreadable}")
        return ""
    try:
        snapshot = _snapshot(options, place, token, end_ns)
    except ReadError as error:
        if place is None:
            raise
        StandardError().note(_unseen(options, error))
        return ""
    fleet = judge_fleet(snapshot, FleetPolicy())
    return fleet_text.render(fleet, width=page_width(), colour=wants_colour()) + "\n"


def _unseen(options: DemoOptions, error: ReadError) -> str:
    """Say of a database that has confirmed all writes that it shows none of them, and why that may be."""
    said = f"everything was delivered, and the database does not show it yet: {error}"
    if options.read_url is not None:
        return said
    return f"{said}; if it cannot be read at this URL, as a relay or a cluster's vminsert, name where with --read-url"


def _snapshot(options: DemoOptions, place: TargetDatabase | None, token: str | None, end_ns: int) -> "Snapshot":
    """Read the fleet where it was written. Raises ReadError."""
    from ntpaudit.fleet import open_reader
    from ntpaudit.fleet.reader import SnapshotOptions

    if options.reading is None or place is None:
        with closing(open_reader(path=options.store_path)) as reader:
            return reader.snapshot(reader.now_ns(), SnapshotOptions())
    from ntpaudit.demo.database import await_fleet, read_database

    with closing(read_database(options.reading, token, place.language)) as reader:
        return await_fleet(reader, options.story, end_ns, options.until_ns)


def _made(options: DemoOptions, place: TargetDatabase | None, end_ns: int) -> str:
    """Say what was made, and where to look next."""
    scenario = options.story
    sites = len({part.site for part in scenario.hosts})
    hours = (scenario.end_ns - scenario.begin_ns) / NS_PER_S / 3600
    where = options.store_path if options.influx is None else f"{options.influx.url}, bucket {options.influx.bucket}"
    lines = [
        f"{len(scenario.hosts)} hosts in {sites} sites, {hours:g} h until {format_utc(end_ns)[:19]}Z, are in {where}",
        "",
        "Where to look next:",
        *_commands(scenario, _options(options, place)),
    ]
    return "\n".join(lines) + "\n"


def _options(wish: DemoOptions, place: TargetDatabase | None) -> str:
    """Return by which options `ntpaudit fleet` reads what was made."""
    if wish.influx is None or place is None:
        return "--demo" if wish.store_path == _usual_path() else f"--store {shlex.quote(wish.store_path)}"
    options = [f"--url {shlex.quote(wish.read_url or wish.influx.url)}"]
    if place.language == "promql":
        options.append("--language promql")
    elif wish.influx.bucket != BUCKET:
        options.append(f"--database {shlex.quote(wish.influx.bucket)}")
    if wish.until_ns is not None:
        options.append(f"--at {format_utc(wish.until_ns)[:19]}")
    return " ".join(options)


def _commands(scenario: "Scenario", options: str) -> list[str]:
    """Return commands that show the fleet, and two of its hosts whose events are hard to order."""
    wrong = next((part for part in scenario.hosts if part.fault.severity is Severity.CRITICAL), scenario.hosts[0])
    other = next(part for part in scenario.hosts if part.fault.name == "healthy" and part is not wrong)
    return [
        f"  ntpaudit fleet {options} --flagged",
        f"  ntpaudit fleet {options} --html demo.html",
        f"  ntpaudit fleet order {options} {wrong.name} {other.name}",
        "  Grafana: grafana/README.md",
    ]

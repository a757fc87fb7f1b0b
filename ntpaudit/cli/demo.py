"""`ntpaudit demo`: a simulated fleet to look at, or one audit, where no network is needed."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

from ntpaudit import __version__, audit
from ntpaudit.cli.output import StandardError, finish, format_option, is_terminal, terminal_size, wants_colour
from ntpaudit.cli.parameters import Ago, Parsed, parse_time, resolve
from ntpaudit.cli.stream import tell
from ntpaudit.core.ntptime import NS_PER_S, format_utc
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES, Severity
from ntpaudit.core.politeness import Memories
from ntpaudit.core.record import Labels, conclude
from ntpaudit.core.sources import Server
from ntpaudit.errors import StoreError, TellError

if TYPE_CHECKING:
    from ntpaudit.config import InfluxConfig
    from ntpaudit.demo.story import Story

EPILOG = """\b
Examples:
  ntpaudit demo                             24 hosts in 3 sites, the last 24 hours, in a file of its own
  ntpaudit fleet --demo                     what that fleet looks like, again
  ntpaudit demo --once                      one audit, as `ntpaudit check` shows it
  ntpaudit demo --influx-url http://127.0.0.1:8428 --follow        a database for Grafana, kept up to date
  ntpaudit demo --hosts 10000 --hours 6 --influx-url http://127.0.0.1:8428

\b
The same seed tells the same story: who is wrong, since when, and why. Audits are the real code over UDP on loopback up
to 100 hosts, beyond that without the UDP; hosts, servers, clocks and time daemons are simulated. Points are those of
`ntpaudit agent`, of hosts in the environment `demo`. The token for InfluxDB comes from INFLUXDB_V2_TOKEN.

\b
Exit status: 0 shown, 3 not made, 64 usage, 78 configuration, 130 interrupted, and the demonstration before stays;
with --once as `ntpaudit check`.
"""

LABEL = "demonstration: servers simulated on loopback, wrong on purpose; the offset says nothing about this clock"
FLEET_LABEL = "demonstration: hosts, clocks and servers are simulated, some of them wrong on purpose"

UDP_HOSTS = 100
"""So many hosts are audited over UDP, unless told otherwise."""

TIMEOUT_S = 30.0
"""A database under full load may take so long for a batch."""


class Wish(NamedTuple):
    """What was asked for. `until_ns` None is the present."""

    story: "Story"
    udp: bool
    until_ns: int | None
    follow: bool
    influx: "InfluxConfig | None"
    store_path: str


def forget(change: Callable[[Memories], Memories]) -> None:
    """Remember nothing."""
    change({})


@click.command(epilog=EPILOG)
@click.option("--once", is_flag=True, help="Show one audit instead of a fleet.")
@click.option("--hosts", type=click.IntRange(3, 1_000_000), default=24, show_default=True, help="How many hosts.")
@click.option("--hours", type=click.FloatRange(6, 8784), default=24.0, show_default=True, help="How long a history.")
@click.option("--seed", type=int, default=1, show_default=True, help="Which of all such fleets.")
@click.option(
    "--until", type=Parsed("TIME", parse_time), help="Where the history ends: 7d ago, or in UTC.  [default: now]"
)
@click.option("--follow", is_flag=True, help="Go on in real time until interrupted.")
@click.option("--influx-url", metavar="URL", help="Fill this database, InfluxDB or VictoriaMetrics, instead of a file.")
@click.option("--bucket", default="ntpaudit", show_default=True, help="The database's bucket.")
@click.option("--org", default="", help="The database's organisation, where it has any.")
@click.option("--store", "store_path", type=click.Path(dir_okay=False), help="Fill this file instead of the usual one.")
@click.option("--udp/--no-udp", default=None, help=f"Audit over UDP on loopback.  [default: up to {UDP_HOSTS} hosts]")
@format_option
def demo(
    once: bool,
    hosts: int,
    hours: float,
    seed: int,
    until: Ago | int | None,
    follow: bool,
    influx_url: str | None,
    bucket: str,
    org: str,
    store_path: str | None,
    udp: bool | None,
    format_name: str,
) -> None:
    """Simulate a fleet, or one audit, against NTP servers on loopback; no network needed.

    The code is that of the agent. By default 24 hosts live through the last 24 hours, some of them badly, and what
    `ntpaudit fleet` finds is shown; --format is for --once.
    """
    if once:
        show_one_audit(format_name)
        return
    if format_name != "text":
        raise click.UsageError("--format goes with --once; of a fleet, ask `ntpaudit fleet --demo`")
    if follow and influx_url is None:
        raise click.UsageError("--follow goes with --influx-url: a file is read once it is finished")
    if follow and until is not None:
        raise click.UsageError("--follow goes without --until: it goes on from now")
    if influx_url is not None and store_path is not None:
        raise click.UsageError("--store goes without --influx-url: points go to one place")
    from ntpaudit.demo.story import write_story

    now_ns = time.time_ns()
    until_ns = None if until is None else resolve(until, now_ns)
    if until_ns is not None and until_ns > now_ns:
        raise click.UsageError("--until lies ahead: a history ends now, or earlier")
    wish = Wish(
        story=write_story(hosts, hours, seed, now_ns if until_ns is None else until_ns),
        udp=hosts <= UDP_HOSTS if udp is None else udp,
        until_ns=until_ns,
        follow=follow,
        influx=None if influx_url is None else _database(influx_url, bucket, org),
        store_path=store_path or _usual_path(),
    )
    try:
        show_fleet(wish)
    except (StoreError, TellError) as error:
        StandardError().note(str(error))
        raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error


def show_one_audit(format_name: str) -> None:
    """Audit once. Four servers say that this host is 1.9 ms behind, over networks of different length; a fifth lies."""
    from ntpaudit.demo.scene import SCENE
    from ntpaudit.demo.server import NtpServer
    from ntpaudit.probes.clock import SystemClock

    voice = StandardError()
    voice.note(LABEL)
    with ExitStack() as stack:
        servers = [(name, stack.enter_context(NtpServer(behaviour))) for name, behaviour in SCENE.items()]
        plan = audit.Plan(
            sources=tuple(Server(name, server.address, server.port) for name, server in servers),
            profile=PROFILES[DEFAULT_PROFILE],
            labels=Labels(__version__),
        )
        # loopback needs no manners, so nothing is remembered of these servers
        result = conclude(audit.observe(plan, SystemClock(), forget, voice), plan.profile, plan.labels)
    finish(result, format_name)


def show_fleet(wish: Wish) -> None:
    """Simulate a fleet, keep what its agents told, and show what is found in it. Raises StoreError and TellError."""
    from ntpaudit.config import read_token
    from ntpaudit.demo.crew import Work, catch_up, follow, gather, live
    from ntpaudit.demo.outlets import StoreOutlet
    from ntpaudit.fleet.embedded import EmbeddedStore

    StandardError().note(FLEET_LABEL)
    token = None if wish.influx is None else read_token(wish.influx, os.environ)
    with ExitStack() as stack:
        store = None if wish.influx is not None else stack.enter_context(EmbeddedStore.create(wish.store_path))
        outlet = None if store is None else StoreOutlet(store)
        work = Work(wish.story, wish.udp, wish.influx, token)
        crew = stack.enter_context(gather(work, len(os.sched_getaffinity(0)), outlet))
        with _progress(len(wish.story.parts)) as arrived:
            live(crew, wish.story.end_ns, arrived)
        end_ns = catch_up(crew, wish.story, time.time_ns) if wish.until_ns is None else wish.until_ns
        if store is not None:
            store.finish(end_ns)
        if wish.follow:
            tell([_made(wish, end_ns)])
            StandardError().note("goes on in real time, until it is interrupted")
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container's first process would not heed it
            follow(crew, time.time_ns, time.sleep)
    tell([_seen(wish), _made(wish, end_ns)])


def _database(url: str, bucket: str, org: str) -> "InfluxConfig":
    """Return the database that was named."""
    from ntpaudit.config import InfluxConfig, parse_url

    try:
        return InfluxConfig(parse_url(url), org=org, bucket=bucket, timeout_s=TIMEOUT_S)
    except ValueError as error:
        raise click.UsageError(f"--influx-url: {error}") from error


def _usual_path() -> str:
    """Return the file that `ntpaudit fleet --demo` reads."""
    from ntpaudit.cli.fleet import DEMONSTRATION
    from ntpaudit.store.location import state_folder

    return os.path.join(state_folder(os.environ), DEMONSTRATION)


@contextmanager
def _progress(hosts: int) -> Iterator[Callable[[], None]]:
    """Show whoever watches how many hosts have come to the end."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=hosts, label="simulating hosts", show_pos=True, file=sys.stderr) as bar:
        yield lambda: bar.update(1)


def _seen(wish: Wish) -> str:
    """Return what `ntpaudit fleet` says of the fleet; a database may show its points only after a while."""
    if wish.influx is not None:
        return ""
    from ntpaudit.core.fleet import Terms
    from ntpaudit.core.fleet_rules import judge_fleet
    from ntpaudit.fleet import open_reader
    from ntpaudit.fleet.reader import Reach
    from ntpaudit.reports import fleet_text

    with closing(open_reader(path=wish.store_path)) as reader:
        fleet = judge_fleet(reader.snapshot(reader.now_ns(), Reach()), Terms())
    return fleet_text.render(fleet, width=terminal_size()[0] if is_terminal() else None, colour=wants_colour()) + "\n"


def _made(wish: Wish, end_ns: int) -> str:
    """Say what was made, and where to look next."""
    story = wish.story
    sites = len({part.site for part in story.parts})
    hours = (story.end_ns - story.begin_ns) / NS_PER_S / 3600
    where = wish.store_path if wish.influx is None else f"{wish.influx.url}, bucket {wish.influx.bucket}"
    lines = [f"{len(story.parts)} hosts in {sites} sites, {hours:g} h until {format_utc(end_ns)[:19]}Z, are in {where}"]
    if wish.influx is not None:
        lines += ["", "Where to look next:", *_commands(story, f"--url {wish.influx.url}", " [--language promql]")]
    elif wish.store_path == _usual_path():
        lines += ["", "Where to look next:", *_commands(story, "--demo", "")]
    else:
        lines += [f"`ntpaudit fleet --demo` would read {_usual_path()}"]
    return "\n".join(lines) + "\n"


def _commands(story: "Story", which: str, note: str) -> list[str]:
    """Return commands that show the fleet, and two of its hosts whose events are hard to order."""
    wrong = next((part for part in story.parts if part.fault.severity is Severity.CRITICAL), story.parts[0])
    other = next(part for part in story.parts if part.fault.name == "healthy" and part is not wrong)
    return [
        f"  ntpaudit fleet {which} --flagged{note}",
        f"  ntpaudit fleet {which} --html demo.html{note}",
        f"  ntpaudit fleet order {which} {wrong.name} {other.name}{note}",
        "  Grafana: grafana/README.md",
    ]

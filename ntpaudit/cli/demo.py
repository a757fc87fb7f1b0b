"""`ntpaudit demo`: a simulated fleet, or one audit, without a network."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from ntpaudit.cli import output
from ntpaudit.cli.parameters import TIME, RelativeTime, given_options, parsed, resolve
from ntpaudit.config.values import parse_url
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S, format_utc, parse_duration
from ntpaudit.errors import OutputError, ReadError, StoreError

if TYPE_CHECKING:
    from ntpaudit.demo.destination import Destination
    from ntpaudit.demo.scenario import Scenario

EPILOG = """\b
Examples:
  ntpaudit demo                             24 hosts at 3 sites, the last 24 hours, in a file
  ntpaudit fleet --demo                     show that fleet again
  ntpaudit demo --once                      one audit, in the format of `ntpaudit check`
  ntpaudit demo --influx-url http://127.0.0.1:8428 --follow        a database for Grafana, kept up to date
  ntpaudit demo --hosts 200 --hours 7d --store large.sqlite3

\b
The same seed gives the same faults at the same times. Audits run the real code, over UDP on loopback for up to 100
hosts, else without UDP; hosts, servers, clocks and time daemons are simulated. Points are those of `ntpaudit agent`,
with the environment `demo`. The token for InfluxDB comes from INFLUXDB_V2_TOKEN.

\b
Exit status: 0 ok, 3 failed, 64 usage, 78 configuration, 130 interrupted (also by SIGTERM and SIGHUP; an
earlier demonstration is kept). With --once as for `ntpaudit check`.
"""

LABEL = "demonstration: servers simulated on loopback, wrong on purpose; the offset says nothing about this clock"
FLEET_LABEL = "demonstration: hosts, clocks and servers are simulated, some of them wrong on purpose"

UDP_HOSTS = 100  # up to this number of hosts, audits go over UDP by default
TIMEOUT_S = 30.0  # the timeout of a write: a busy database may take this long for a batch
_URL = parsed("URL", parse_url)
LEAST_HOURS, MOST_HOURS = 6.0, 8784.0


def _parse_hours(text: str) -> float:
    """Read a number of hours such as 36, or a duration such as 7d. Raises ValueError with what to write."""
    try:
        hours = float(text) if text.isascii() and text.replace(".", "", 1).isdecimal() else parse_duration(text) / 3600
    except ValueError:
        raise ValueError(f"{text!r}: write a number of hours or a duration, such as 36 or 7d") from None
    if LEAST_HOURS <= hours <= MOST_HOURS:
        return hours
    raise ValueError(f"{text!r}: write {LEAST_HOURS:g} to {MOST_HOURS:g} hours")


@click.command(epilog=EPILOG)
@click.option("--once", is_flag=True, help="Show one audit, not a fleet.")
@click.option("--hosts", type=click.IntRange(3, 1000), default=24, help="Number of hosts.")
@click.option(
    "--hours",
    type=parsed("HOURS", _parse_hours),
    default="24.0",
    help=f"Length of the history: {LEAST_HOURS:g} to {MOST_HOURS:g} hours, or a duration such as 7d.",
)
@click.option("--seed", type=int, default=1, help="Seed: the same seed gives the same fleet.")
@click.option("--until", type=TIME, help="End of the history: an age such as 7d, or a time in UTC.  [default: now]")
@click.option("--follow", is_flag=True, help="Continue in real time until interrupted.")
@click.option("--influx-url", type=_URL, help="Write to this InfluxDB or VictoriaMetrics, not to a file.")
@click.option("--read-url", type=_URL, help="URL to read from, if it differs, for example vmselect of a cluster.")
@click.option("--bucket", default="ntpaudit", help="The database's bucket.")
@click.option("--org", default="", show_default=False, help="The database's organisation, if it has organisations.")
@click.option(
    "--store", "store_path", type=click.Path(dir_okay=False), help="Write to this file, not to the default one."
)
@click.option("--udp/--no-udp", default=None, help=f"Audit over UDP on loopback.  [default: up to {UDP_HOSTS} hosts]")
@output.format_option()
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

    The simulated hosts run the code of the agent. By default 24 hosts, some of them faulty, are simulated for the
    last 24 hours, and the result of `ntpaudit fleet` is shown. --format needs --once.
    """
    if once:
        from ntpaudit.demo.once import audit_once

        given = given_options(click.get_current_context())
        if refused := [word for name, word in given.items() if name not in ("once", "format_name")]:
            raise click.UsageError(f"{', '.join(refused)} cannot be used with --once, which takes only --format")
        output.note(LABEL)
        output.log_to_stderr()
        output.emit_and_exit(audit_once(output.show_progress), format_name)
    now_ns = time.time_ns()
    until_ns = None if until is None else resolve(until, now_ns)
    is_file = influx_url is None
    for is_wrong, message in (
        (store_path == "", "--store is empty: omit it, or give it a value"),
        (format_name != "text", "--format goes with --once; for a fleet, use `ntpaudit fleet --demo`"),
        (is_file and read_url is not None, "--read-url goes with --influx-url: it says where that database is read"),
        (
            is_file and (bucket != "ntpaudit" or org),
            "--bucket and --org are about the database of --influx-url: name that, or leave them out",
        ),
        (is_file and follow, "--follow goes with --influx-url: a file is read once it is finished"),
        (follow and until is not None, "--follow goes without --until: it continues from now"),
        (not is_file and store_path is not None, "--store goes without --influx-url: points go to one place"),
        (until_ns is not None and until_ns > now_ns, "--until lies ahead: a history ends now, or earlier"),
    ):
        if is_wrong:
            raise click.UsageError(message)
    from ntpaudit.cli.fleet_reading import DEMONSTRATION
    from ntpaudit.config.schema import InfluxConfig
    from ntpaudit.config.secrets import find_token
    from ntpaudit.demo.destination import DatabaseDestination, Destination, FileDestination
    from ntpaudit.demo.scenario import build_scenario
    from ntpaudit.store.paths import state_folder

    scenario = build_scenario(hosts, hours, seed, now_ns if until_ns is None else until_ns)
    output.note(FLEET_LABEL)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as with nohup
            signal.signal(number, signal.default_int_handler)
    with output.exit_on(StoreError, OutputError):
        if influx_url is None:
            default = os.path.join(state_folder(os.environ), DEMONSTRATION)
            path = store_path or default
            destination: Destination = FileDestination(path, is_default=path == default)
        else:
            influx = InfluxConfig(influx_url, org=org, bucket=bucket, timeout_s=TIMEOUT_S)
            token, note = find_token(influx, os.environ).text, output.note
            destination = DatabaseDestination(
                influx, token, scenario, read_url=read_url, until_ns=until_ns, follow=follow, note=note
            )
        show_fleet(scenario, destination, until_ns, udp=hosts <= UDP_HOSTS if udp is None else udp, follow=follow)


def show_fleet(
    scenario: "Scenario", destination: "Destination", until_ns: int | None, *, udp: bool, follow: bool
) -> None:
    """Simulate a fleet, write its points, and show what is found in it. Raises StoreError and OutputError."""
    from ntpaudit.demo.fleet import SimulatedFleet, days
    from ntpaudit.demo.network import loopback, query_without_udp

    hosts = len(scenario.hosts)
    with ExitStack() as stack:
        stack.enter_context(destination.resource)
        query = stack.enter_context(loopback(scenario.sources)) if udp else query_without_udp
        fleet = SimulatedFleet(scenario, query, destination.writer, destination.written_ns)
        ends_ns = days(scenario)
        with _progress("simulating hosts" if len(ends_ns) == 1 else "days of hosts", hosts * len(ends_ns)) as on_host:
            for day_ns in ends_ns:
                fleet.run(day_ns, on_host)
        end_ns = until_ns
        if end_ns is None:
            end_ns, is_present = fleet.catch_up(time.time_ns, lambda: _progress("up to now", hosts))
            if not is_present:
                output.note(
                    f"simulating {hosts} hosts is slower here than real time; they stay behind the present, at "
                    f"{format_utc(end_ns)[:19]}Z; try fewer hosts"
                )
                destination.until_ns = None if follow else end_ns
        destination.finish(end_ns)
        if follow:
            output.write_parts([_findings(destination, end_ns), _next_steps(scenario, destination, end_ns)])
            output.note("continuing in real time, until it is interrupted")
            try:
                fleet.follow(time.time_ns, time.sleep, _show_points)
            finally:
                if sys.stderr.isatty():
                    click.echo(err=True)
    output.write_parts([_findings(destination, end_ns), _next_steps(scenario, destination, end_ns)])


@contextmanager
def _progress(label: str, length: int) -> Iterator[Callable[[], None]]:
    """Show on a terminal how many hosts have reached the requested time."""
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=length, label=label, show_pos=True, file=sys.stderr, width=0, hidden=hidden) as bar:
        yield lambda: bar.update(1)


def _show_points(points: int, until_ns: int) -> None:
    """Show on a terminal the number of points and their time, in one line that is overwritten."""
    if sys.stderr.isatty():
        line = f"{points:,} points until {format_utc(until_ns)[:19]}Z"
        click.echo(f"{line[: output.terminal_size().columns - 1]}\r", err=True, nl=False)


def _findings(destination: "Destination", end_ns: int) -> str:
    from ntpaudit.core.fleet.checks import judge_fleet
    from ntpaudit.core.fleet.model import FleetPolicy
    from ntpaudit.reports import fleet_text

    if destination.unreadable is not None:
        output.note(f"not shown, for what was written cannot be read: {destination.unreadable}")
        return ""
    try:
        snapshot = destination.snapshot(end_ns)
    except ReadError as error:
        output.note(
            f"everything was written, and cannot be read yet: {error}; if the database is read at another URL, for "
            "example behind a relay or a cluster's vminsert, name it with --read-url"
        )
        return ""
    return fleet_text.render(judge_fleet(snapshot, FleetPolicy()), **output.layout()) + "\n"


def _next_steps(scenario: "Scenario", destination: "Destination", end_ns: int) -> str:
    """Describe what was written, and list commands that read it: two of its hosts are hard to order."""
    sites = len({spec.site for spec in scenario.hosts})
    hours = (scenario.end_ns - scenario.begin_ns) / NS_PER_S / 3600
    wrong = next((spec for spec in scenario.hosts if spec.fault.severity is Severity.CRITICAL), scenario.hosts[0])
    other = next(spec for spec in scenario.hosts if spec.fault.name == "healthy" and spec is not wrong)
    options, end = destination.fleet_options(), format_utc(end_ns)[:19]
    return (
        f"{len(scenario.hosts)} hosts in {sites} sites, {hours:g} h until {end}Z, are in {destination.name}\n"
        "\n"
        "Where to look next:\n"
        f"  ntpaudit fleet {options} --flagged\n"
        f"  ntpaudit fleet {options} --html demo.html\n"
        f"  ntpaudit fleet order {options} {wrong.name} {other.name}\n"
        "  Grafana: grafana/README.md\n"
    )

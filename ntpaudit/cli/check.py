"""`ntpaudit check`: audit this host's clock once."""

import os
from contextlib import closing

import click

from ntpaudit import __version__, audit
from ntpaudit.cli.output import emit_and_exit, format_option, log_to_stderr, plugin_line_on_config_error, show_progress
from ntpaudit.cli.parameters import DURATION, config_option, parsed, verbosity_options
from ntpaudit.config.location import find_config
from ntpaudit.config.profile import choose_profile
from ntpaudit.core.ntp.sources import DEFAULT_ZONE, Source, doubtful_port, parse_source, pool, region
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES
from ntpaudit.core.record import Labels
from ntpaudit.core.units import parse_duration
from ntpaudit.errors import ConfigError
from ntpaudit.log import LazyLogger
from ntpaudit.polling import QueryOptions
from ntpaudit.probes.clock import SystemClock
from ntpaudit.store.one_shot import OneShotStore
from ntpaudit.store.paths import FILE_NAME, state_folder

logger = LazyLogger(__name__)

DEFAULT_PLAN = audit.Plan((), PROFILES[DEFAULT_PROFILE], Labels(__version__))  # where no configuration file is found

EPILOG = """\b
Examples:
  ntpaudit check                                    query pool.ntp.org: at most 4 servers, once in 30 minutes
  ntpaudit check ntp1.example.net ntp2.example.net:1123 '[2001:db8::1]:123'
  ntpaudit check --region nl --warning 50ms --critical 250ms
  ntpaudit check --explain ntp1 ntp2 ntp3 ntp4       why each finding is raised, with its numbers
  ntpaudit check --from-host --profile finra-cat --samples 4
  ntpaudit check --format nagios ntp1 ntp2 ntp3 ntp4
  ntpaudit check --format openmetrics --output /var/lib/prometheus/node-exporter/ntpaudit.prom ntp1 ntp2 ntp3 ntp4

\b
Without SERVER, the servers of the configuration file are queried: --config, or ntpaudit/ntpaudit.toml in
$XDG_CONFIG_HOME (~/.config), or /etc/ntpaudit/ntpaudit.toml; without one, pool.ntp.org.

Exit status: 0 ok, 1 warning, 2 critical, 3 unknown (not measured, or FILE cannot be
written), 64 usage, 78 configuration (3 with --format nagios), 130 interrupted.
"""


def _timeout(text: str) -> float:
    seconds = parse_duration(text)
    if not 0.001 <= seconds <= 60:
        raise ValueError(f"{text!r}: the timeout must be 1ms to 60s")
    return seconds


@click.command(epilog=EPILOG)
@click.argument("servers", nargs=-1, metavar="[SERVER]...", type=parsed("SERVER", parse_source))
@click.option(
    "--pool", "pools", multiple=True, type=parsed("ZONE", pool), help="Query this pool, such as nl.pool.ntp.org."
)
@click.option(
    "--region", "regions", multiple=True, type=parsed("NAME", region), help="Query this pool, such as nl or europe."
)
@click.option("--from-host", is_flag=True, help="Query the servers that the running time daemon was started with.")
@config_option
@click.option("--profile", type=click.Choice(list(PROFILES)), metavar="NAME", help=f"One of: {', '.join(PROFILES)}.")
@click.option("--warning", type=DURATION, help="Warning tolerance, such as 100ms.")
@click.option("--critical", type=DURATION, help="Critical tolerance, which the verdict refers to, such as 1s.")
@click.option(
    "--samples", type=click.IntRange(1, 16), default=1, help="Queries per server, 2 s apart; always 1 for pools."
)
@click.option(
    "--timeout", type=parsed("DURATION", _timeout), default="2s", help="Maximum wait for DNS, and the same for replies."
)
@format_option()
@click.option("--output", type=click.Path(dir_okay=False), help="Write to this file, replaced atomically.")
@click.option("--explain", is_flag=True, help="Below each finding: its formula with the numbers, and its controls.")
@click.option("--record", is_flag=True, help="Also store the audit in the history (state folder).")
@click.option("--force", is_flag=True, help="Query again within 15 s (a pool: 30 min). Never use this in a timer.")
@verbosity_options
@plugin_line_on_config_error
def check(
    servers: tuple[Source, ...],
    pools: tuple[Source, ...],
    regions: tuple[Source, ...],
    from_host: bool,
    config_path: str | None,
    profile: str | None,
    warning: float | None,
    critical: float | None,
    samples: int,
    timeout: float,
    format_name: str,
    output: str | None,
    explain: bool,
    record: bool,
    force: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Audit this host's clock once, and report how wrong it can be.

    SERVER is HOST[:PORT] or [IPV6]:PORT. Name at least four, so that the others outvote one that is wrong.
    """
    if explain and format_name != "text":
        raise click.UsageError(
            f"--explain adds text for people, which --format {format_name} has no place for; give the record to "
            "`ntpaudit explain FINDING --record FILE --format json`"
        )
    log_to_stderr(verbose=verbose, quiet=quiet)
    found = find_config(os.environ, config_path)
    plan, sources = DEFAULT_PLAN, servers + pools + regions
    if found is not None:  # most checks have no file, and do not import what reads it
        from ntpaudit.config.load import load_config
        from ntpaudit.config.schema import SourcesConfig
        from ntpaudit.config.warnings import config_warnings, source_warnings

        config = load_config(found)
        plan = audit.plan_of(config)
        if sources or from_host:  # the file's servers are not queried
            config = config._replace(sources=SourcesConfig())
        for text in config_warnings(config):
            logger.info(f"{found}: {text}")  # -q silences it, for timers
        for text in source_warnings(SourcesConfig(sources, from_host=from_host)):
            logger.info(text)
    if not sources and not from_host:
        sources, from_host = plan.sources, plan.from_host
        if not sources and not from_host:
            sources = (pool(DEFAULT_ZONE),)
            if found is not None:
                logger.info(f"{found} names no servers: querying {DEFAULT_ZONE}")
    try:
        judged_by = choose_profile(profile, warning, critical, plan.profile)
    except ConfigError as error:  # the options are at fault, not the file
        raise click.UsageError(str(error).removeprefix("policy: ")) from error
    plan = plan._replace(
        sources=sources,
        profile=judged_by,
        options=QueryOptions(samples, timeout, force, "--force queries now"),
        from_host=from_host,
        persist=record,
    )
    store = OneShotStore(os.path.join(state_folder(os.environ), FILE_NAME))
    with closing(store):
        result = audit.run(plan, SystemClock(), store, show_progress)
    for source in result.sources:
        if source.status == "unreachable" and (hint := doubtful_port(source.name)) is not None:
            logger.warning(hint)
    emit_and_exit(result, format_name, output, explain=explain)

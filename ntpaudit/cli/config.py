"""`ntpaudit config`: write, check or show the configuration."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from ntpaudit.cli.output import note, write_parts
from ntpaudit.cli.parameters import Parsed, config_option
from ntpaudit.config.load import load_config, load_tables, locate, with_environment
from ntpaudit.config.location import SYSTEM_FILE, find_config, user_file
from ntpaudit.config.schema import Config
from ntpaudit.core.ntp.sources import DEFAULT_ZONE, Pool, Server, Source, doubtful_port, parse_source, pool, region
from ntpaudit.core.policy import PROFILES, Severity
from ntpaudit.core.units import format_duration, plural
from ntpaudit.errors import ConfigError

ENOUGH = 4
"""The number of servers that outvote one that is wrong."""

SERVICE_FOLDERS = ("/run/ntpaudit", "/var/lib/ntpaudit")

EPILOG = """\b
Examples:
  ntpaudit config init ntp1.example.net ntp2.example.net ntp3.example.net ntp4.example.net
  ntpaudit config check
  ntpaudit config show

\b
Exit status: 0 ok, 64 usage, 78 configuration.
"""

INIT_EPILOG = """\b
Examples:
  ntpaudit config init ntp1.example.net ntp2.example.net ntp3.example.net ntp4.example.net
  ntpaudit config init --region nl --site ams --env prod
  ntpaudit config init --from-host --profile finra-cat --output -
  ntpaudit config init --influx-url https://influx.example.net:8086 --org soc ntp1 ntp2 ntp3 ntp4

\b
The file lists every key. Keys that you did not set are comments with their defaults. It goes to
/etc/ntpaudit/ntpaudit.toml for root, else to ntpaudit/ntpaudit.toml in $XDG_CONFIG_HOME (~/.config). A token is never
written into it: put it into a file of mode 0600 and name that with --token-file, or let systemd pass it on
(/etc/ntpaudit/token).

\b
Exit status: 0 written, 3 not writable, 64 usage, 78 configuration.
"""

CHECK_EPILOG = """\b
Examples:
  ntpaudit config check
  ntpaudit config check ./ntpaudit.toml && systemctl reload ntpaudit

\b
Exit status: 0 valid, 78 invalid: the message names file, line and key.
"""

SHOW_EPILOG = """\b
Examples:
  ntpaudit config show
  ntpaudit config show --format json ./ntpaudit.toml | jq .policy

\b
Exit status: 0 ok, 78 configuration.
"""

POOL_NOTE = f"""\
No servers were named: this configuration queries 4 servers of the NTP pool, at most every 30 min.
The pool is run by volunteers and guarantees nothing; its terms forbid uses where wrong time would harm a business.
Using it is your decision. For evidence, and for more than a few hosts, name {ENOUGH} or more servers of your own.
"""


@click.group(epilog=EPILOG)
def config() -> None:
    """Write, check or show the configuration.

    ntpaudit looks for the file in $XDG_CONFIG_HOME (~/.config), then in /etc. docs/configuration.md explains every key.
    """


def _checked(name: str, read: Callable[[str], Any]) -> Parsed[str]:
    """Return a parameter that keeps its text once `read` accepts it."""

    def check(text: str) -> str:
        read(text)
        return text

    return Parsed(name, check)


@config.command(epilog=INIT_EPILOG)
@click.argument("servers", nargs=-1, metavar="[SERVER]...", type=_checked("SERVER", parse_source))
@click.option("--pool", "zone", type=_checked("ZONE", pool), help="Query this pool, such as nl.pool.ntp.org.")
@click.option("--region", "place", type=_checked("NAME", region), help="Query the pool of a continent or country.")
@click.option("--from-host", is_flag=True, help="Query the servers that the running time daemon was started with.")
@click.option("--influx-url", metavar="URL", help="Deliver to this InfluxDB, such as http://127.0.0.1:8086.")
@click.option("--bucket", metavar="NAME", help="The bucket, or the database.  [default: ntpaudit]")
@click.option("--org", metavar="NAME", help="The organisation, if the server has organisations.")
@click.option("--token-file", type=click.Path(readable=False), help="The file with the database's token.")
@click.option("--site", metavar="NAME", help="The place of this host, such as a data centre.")
@click.option("--env", metavar="NAME", help="The environment of this host, such as prod.")
@click.option("--profile", type=click.Choice(list(PROFILES)), metavar="NAME", help=f"One of: {', '.join(PROFILES)}.")
@config_option
@click.option("--output", type=click.Path(dir_okay=False), help="The same as --config; - is standard output.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(
    servers: tuple[str, ...],
    zone: str | None,
    place: str | None,
    from_host: bool,
    influx_url: str | None,
    bucket: str | None,
    org: str | None,
    token_file: str | None,
    site: str | None,
    env: str | None,
    profile: str | None,
    config_path: str | None,
    output: str | None,
    force: bool,
) -> None:
    """Write a commented configuration for these servers.

    Without servers it proposes pool.ntp.org, and explains what that means.
    """
    from ntpaudit.config.text import write_file

    output = _named(output, config_path, "--output")
    if influx_url is None and (bucket or org or token_file):
        raise click.UsageError("--bucket, --org and --token-file need a database: name it with --influx-url")
    is_proposal = not (servers or zone or place or from_host)
    given: dict[str, dict[str, Any]] = {
        "host": {"site": site, "env": env},
        "sources": {
            "servers": list(servers) or None,
            "pool": DEFAULT_ZONE if is_proposal else zone,
            "region": place,
            "from_host": from_host or None,
        },
        "policy": {"profile": profile},
        "influxdb": {"url": influx_url, "org": org, "bucket": bucket, "token_file": token_file},
    }
    try:
        text = write_file(_chosen(given), POOL_NOTE if is_proposal else "")
    except ConfigError as error:  # the options are at fault, not the file
        raise click.UsageError(str(error)) from error
    _warn_of_ports(servers)
    if output == "-":
        write_parts([text])
    else:
        _write(output or (SYSTEM_FILE if os.geteuid() == 0 else user_file(os.environ)), text, force=force)
    if is_proposal:
        for line in POOL_NOTE.splitlines():
            note(line)
    elif (
        warning := _too_few([*map(parse_source, servers)], pools=bool(zone or place), from_host=from_host)
    ) is not None:
        note(warning)


def _chosen(given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    chosen = {table: {key: value for key, value in keys.items() if value is not None} for table, keys in given.items()}
    return {table: keys for table, keys in chosen.items() if keys}


def _write(path: str, text: str, *, force: bool) -> None:
    from ntpaudit.files import unwritable, write_atomically
    from ntpaudit.probes import service

    if os.path.lexists(path) and not force:
        raise click.UsageError(f"{path} exists: --force replaces it, --output - prints the new file instead")
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        note(unwritable(path, error))
        raise click.exceptions.Exit(Severity.UNKNOWN.exit_status) from error
    option = "" if path == find_config(os.environ) else f" --config {path}"
    start = service.start() if path == SYSTEM_FILE else f"ntpaudit agent{option}"
    write_parts([f"wrote {path}\nreview it, then: ntpaudit check{option}; {start}\n"])


def _too_few(servers: Sequence[Source], *, pools: bool, from_host: bool) -> str | None:
    """Return a warning if one wrong server cannot be outvoted. Any pool has enough servers."""
    if len(servers) >= ENOUGH or pools or from_host or any(isinstance(source, Pool) for source in servers):
        return None
    count = plural(len(servers), "server")
    return f"only {count}: name at least {ENOUGH}, so that the others outvote one that is wrong"


def _warn_of_ports(names: Sequence[str]) -> None:
    for warning in filter(None, map(doubtful_port, names)):
        note(warning)


def _named(file: str | None, config_path: str | None, word: str = "FILE") -> str | None:
    """Return the file given by `--config` or by `word`, which means the same."""
    if file is not None and config_path is not None:
        raise click.UsageError(f"{word} and --config mean the same: give only one of them")
    return config_path if file is None else file


@config.command(epilog=CHECK_EPILOG)
@click.argument("file", required=False, type=click.Path(readable=False))
@config_option
def check(file: str | None, config_path: str | None) -> None:
    """Check whether an agent can run with a configuration.

    Without FILE the file in use is checked. Its token and certificates must be readable too. No server and no output is
    contacted: `ntpaudit agent --once` does that.
    """
    from ntpaudit.agent import read_setup
    from ntpaudit.config.text import describe_token

    path = _find(_named(file, config_path))
    try:
        found = read_setup(path, os.environ).config
        if found.influxdb is not None and found.influxdb.ca_file is not None:
            _check_authority(found.influxdb.ca_file)
    except ConfigError as error:
        raise locate(error, path) from error
    sources = found.sources
    if (warning := _too_few(sources.servers, pools=bool(sources.pools), from_host=sources.from_host)) is not None:
        note(warning)
    _warn_of_ports([source.name for source in sources.servers if isinstance(source, Server)])
    for warning in (*_unusual(found), *_missing(found)):
        note(warning)
    token = "" if found.influxdb is None else f", token {describe_token(found.influxdb, os.environ)}"
    outputs = _outputs(found)
    also = f", {', '.join(outputs)}" if outputs else ""
    uncontacted = "servers" if found.influxdb is None and not outputs else "servers and outputs"
    write_parts([f"ok: {path}: {_summary(found)}{token}{also}; {uncontacted} were not contacted\n"])


@config.command(epilog=SHOW_EPILOG)
@click.argument("file", required=False, type=click.Path(readable=False))
@config_option
@click.option("--format", "format_name", type=click.Choice(["toml", "json"]), default="toml", show_default=True)
def show(file: str | None, config_path: str | None, format_name: str) -> None:
    """Show the effective configuration, and the origin of each value: the file, the environment, a default.

    Without FILE the file in use is shown. Secrets are hidden. JSON has only the values, null if not set.
    """
    from ntpaudit.config.text import show_json, show_toml

    file = _named(file, config_path)
    path = find_config(os.environ) if file is None else file
    found = with_environment(Config() if path is None else load_config(path), os.environ)
    if format_name == "json":
        write_parts([show_json(found, os.environ)])
    else:
        written = {} if path is None else load_tables(path)
        title = f"# effective configuration: {path or 'defaults (no file found)'}\n\n"
        write_parts([title, show_toml(found, os.environ, written)])


def _check_authority(path: str) -> None:
    import ssl

    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError as error:
        message = f"influxdb.ca_file: {path} has no certificates: use the PEM format"
        raise ConfigError(message, "influxdb.ca_file") from error
    except OSError as error:
        raise ConfigError(f"influxdb.ca_file: {path}: {error.strerror}", "influxdb.ca_file") from error


def _find(file: str | None) -> str:
    path = find_config(os.environ) if file is None else file
    if path is None:
        searched = f"{user_file(os.environ)} or {SYSTEM_FILE}"
        raise ConfigError(f"no configuration file found ({searched}): write one with `ntpaudit config init`")
    return path


def _unusual(found: Config) -> Iterator[str]:
    """Describe values that are valid together, but hardly intended."""
    names = Counter(source.name for source in found.sources.servers if isinstance(source, Server))
    if repeated := [name for name, count in names.items() if count > 1]:
        yield f"sources.servers: named twice: {', '.join(repeated)}"
    if found.history.rollups_s < found.history.raw_s:
        yield "history.rollups is shorter than history.raw: hours are deleted before their records"
    if found.sources.named and found.schedule.local_s > found.schedule.network_s:
        yield "schedule.local is longer than schedule.network: servers are polled more often than the clock is audited"


def _missing(found: Config) -> Iterator[str]:
    """Describe files and folders that do not exist; systemd creates those of `SERVICE_FOLDERS` for the agent."""
    outputs = {"jsonl": found.outputs.jsonl, "openmetrics": found.outputs.openmetrics, "history": found.history}
    for name, settings in outputs.items():
        folder = "" if settings is None or settings.path is None else os.path.dirname(settings.path)
        if folder and folder not in SERVICE_FOLDERS and not os.path.isdir(folder):
            yield f"{name}.path: the folder {folder} does not exist: create it"
    inventory = found.fleet.inventory
    if inventory is not None and not os.path.exists(inventory):
        yield f"fleet.inventory: {inventory} does not exist: `ntpaudit fleet` cannot run without it"


def _summary(found: Config) -> str:
    named = found.sources.named
    pools = [source.zone for source in named if isinstance(source, Pool) and source.is_public]
    polled = [plural(len(named) - len(pools), "server")] if len(named) > len(pools) else []
    polled += ["the time daemon's servers"] if found.sources.from_host else []
    polled = [f"{' and '.join(polled)} every {format_duration(found.schedule.network_s)}"] if polled else []
    polled += [f"{' and '.join(pools)} every {format_duration(found.schedule.pool_s)}"] if pools else []
    profile = found.profile
    tolerances = f"{format_duration(profile.warning_s)}, {format_duration(profile.critical_s)}"
    parts = [
        f"polls {', '.join(polled)}",
        f"profile {profile.name} ({tolerances})",
        "no database"
        if found.influxdb is None
        else f"delivers to {found.influxdb.url}, bucket {found.influxdb.bucket}",
    ]
    return ", ".join(parts)


def _outputs(found: Config) -> list[str]:
    outputs = found.outputs._asdict()
    journal = outputs.pop("journal")
    named = [f"{name} {settings[0]}" for name, settings in outputs.items() if settings is not None]
    if journal is None:
        return [*named, "journal if systemd runs the agent"]
    return [*named, "journal"] if journal.enabled else named

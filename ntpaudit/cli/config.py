"""`ntpaudit config`: write, check or show the configuration."""

import os
from typing import Any

import click

from ntpaudit.cli.output import note, write_parts
from ntpaudit.cli.parameters import config_option, parsed
from ntpaudit.config.load import load_config, locate, read_config, with_environment
from ntpaudit.config.location import SYSTEM_FILE, find_config, user_file
from ntpaudit.config.schema import KEYS, Config
from ntpaudit.config.warnings import ENOUGH, config_warnings, source_warnings
from ntpaudit.core.ntp.sources import DEFAULT_ZONE, Pool, parse_source, pool, region
from ntpaudit.core.policy import PROFILES, Severity
from ntpaudit.core.units import format_duration, plural
from ntpaudit.errors import ConfigError

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
The file lists every key. Keys that you did not set are comments, with the default or an example. It goes to
/etc/ntpaudit/ntpaudit.toml for root, else to ntpaudit/ntpaudit.toml in $XDG_CONFIG_HOME (~/.config). A token is never
written into it: put it into a file of mode 0600 and name that with --token-file, or let systemd pass it on
(/etc/ntpaudit/token; restart the service after you change it).

\b
Exit status: 0 written, 3 not writable, 64 usage, 78 configuration.
"""

CHECK_EPILOG = """\b
Examples:
  ntpaudit config check
  ntpaudit config check ./ntpaudit.toml && systemctl reload ntpaudit

\b
Exit status: 0 valid, 64 usage, 78 invalid: the message names file, line and key.
"""

SHOW_EPILOG = """\b
Examples:
  ntpaudit config show
  ntpaudit config show --format json ./ntpaudit.toml | jq .policy

\b
Exit status: 0 ok, 64 usage, 78 configuration.
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


INIT_KEYS = {
    "host": ("site", "env"),
    "sources": ("servers", "pool", "region", "from_host"),
    "policy": ("profile",),
    "influxdb": ("url", "org", "bucket", "token_file"),
}
"""The keys that `init` has options for, by table."""


@config.command(epilog=INIT_EPILOG)
@click.argument("servers", nargs=-1, metavar="[SERVER]...", type=parsed("SERVER", parse_source))
@click.option("--pool", type=parsed("ZONE", pool), help="Query this pool, such as nl.pool.ntp.org.")
@click.option("--region", type=parsed("NAME", region), help="Query this pool, such as nl or europe.")
@click.option("--from-host", is_flag=True, help="Query the servers that the running time daemon was started with.")
@click.option("--influx-url", "url", metavar="URL", help="Deliver to this InfluxDB, such as http://127.0.0.1:8086.")
@click.option("--bucket", metavar="NAME", help="The bucket, or the database.  [default: ntpaudit]")
@click.option("--org", metavar="NAME", help="The organisation, if the server has organisations.")
@click.option("--token-file", type=click.Path(readable=False), help="The file with the database's token.")
@click.option("--site", metavar="NAME", help="The place of this host, such as a data centre.")
@click.option("--env", metavar="NAME", help="The environment of this host, such as prod.")
@click.option("--profile", type=click.Choice(list(PROFILES)), metavar="NAME", help=f"One of: {', '.join(PROFILES)}.")
@click.option("--config", "config_path", metavar="FILE", help="Write this file.  [default: see below]")
@click.option("--output", type=click.Path(dir_okay=False), help="The same as --config; - is standard output.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(config_path: str | None, output: str | None, force: bool, **given: Any) -> None:
    """Write a commented configuration for these servers.

    Without servers it proposes pool.ntp.org, and explains what that means.
    """
    from ntpaudit.config.text import write_file

    output = _named(output, config_path, "--output")
    tables: dict[str, dict[str, Any]] = {
        table: {key: KEYS[table][key].write(given[key]) for key in keys if given[key] not in (None, False, ())}
        for table, keys in INIT_KEYS.items()
    }
    if tables["influxdb"] and "url" not in tables["influxdb"]:
        raise click.UsageError("--bucket, --org and --token-file need a database: name it with --influx-url")
    is_proposal = not tables["sources"]
    if is_proposal:
        tables["sources"]["pool"] = DEFAULT_ZONE
    try:
        text = write_file(tables, POOL_NOTE if is_proposal else "")
    except ConfigError as error:  # the options are at fault, not the file
        raise click.UsageError(str(error)) from error
    if output == "-":
        write_parts([text])
    else:
        _write(output or (SYSTEM_FILE if os.geteuid() == 0 else user_file(os.environ)), text, force=force)
    for line in POOL_NOTE.splitlines() if is_proposal else source_warnings(read_config(tables).sources):
        note(line)


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
    contacted. To contact them: `systemctl restart ntpaudit`, then `ntpaudit status`; without a service
    `ntpaudit agent --once`.
    """
    from ntpaudit.agent import read_setup

    path = find_config(os.environ, _named(file, config_path))
    if path is None:
        searched = f"{user_file(os.environ)} or {SYSTEM_FILE}"
        raise ConfigError(f"no configuration file found ({searched}): write one with `ntpaudit config init`")
    try:
        found = read_setup(path, os.environ).config
        if found.influxdb is not None and found.influxdb.ca_file is not None:
            _check_authority(found.influxdb.ca_file)
    except ConfigError as error:
        raise locate(error, path) from error
    for warning in config_warnings(found):
        note(warning)
    write_parts([f"ok: {path}: {_summary(found)} were not contacted\n"])


@config.command(epilog=SHOW_EPILOG, short_help="Show the effective configuration, with the origin of each value.")
@click.argument("file", required=False, type=click.Path(readable=False))
@config_option
@click.option("--format", "format_name", type=click.Choice(["toml", "json"]), default="toml")
def show(file: str | None, config_path: str | None, format_name: str) -> None:
    """Show the effective configuration, and the origin of each value: the file, the environment, a default.

    Without FILE the file in use is shown. Secrets are hidden. JSON has only the values, null if not set.
    """
    import tomllib

    from ntpaudit.config.text import show_json, show_toml

    path = find_config(os.environ, _named(file, config_path))
    found = with_environment(Config() if path is None else load_config(path), os.environ)
    if format_name == "json":
        write_parts([show_json(found, os.environ)])
        return
    written: dict[str, Any] = {}
    if path is not None:
        with open(path, encoding="utf-8-sig") as text:
            written = tomllib.loads(text.read())
    title = f"# effective configuration: {path or 'defaults (no file found)'}\n\n"
    write_parts([title, show_toml(found, os.environ, written)])


def _check_authority(path: str) -> None:
    import ssl

    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:
        is_format = isinstance(error, ssl.SSLError)
        fault = " has no certificates: use the PEM format" if is_format else f": {error.strerror}"
        raise ConfigError(f"influxdb.ca_file: {path}{fault}", "influxdb.ca_file") from error


def _summary(found: Config) -> str:
    """Describe what an agent polls and where it sends records; ends with what was not contacted."""
    from ntpaudit.config.text import describe_token

    named, profile, influxdb = found.sources.named, found.profile, found.influxdb
    pools = [source.zone for source in named if isinstance(source, Pool) and source.is_public]
    others = [plural(len(named) - len(pools), "server")] if len(named) > len(pools) else []
    others += ["the time daemon's servers"] if found.sources.from_host else []
    groups = ((others, found.schedule.network_s), (pools, found.schedule.pool_s))
    polled = [f"{' and '.join(names)} every {format_duration(every_s)}" for names, every_s in groups if names]
    tolerances = f"warning {format_duration(profile.warning_s)}, critical {format_duration(profile.critical_s)}"
    database = "no database"
    if influxdb is not None:
        token = describe_token(influxdb, os.environ)
        database = f"delivers to {influxdb.url}, bucket {influxdb.bucket}, token {token}"
    tables = found.outputs._asdict()
    journal = tables.pop("journal")
    outputs = [f"{name} {settings[0]}" for name, settings in tables.items() if settings is not None]
    if journal is None or journal.enabled:
        outputs.append("journal if systemd runs the agent" if journal is None else "journal")
    parts = [f"polls {', '.join(polled)}", f"profile {profile.name} ({tolerances})", database, *outputs]
    return f"{', '.join(parts)}; {'servers and outputs' if influxdb or outputs else 'servers'}"

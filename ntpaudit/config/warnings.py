"""What is probably wrong in a configuration that can be used."""

import os
from collections import Counter
from collections.abc import Iterator

from ntpaudit.config.schema import Config, IngestConfig, SourcesConfig
from ntpaudit.core.ingest import PIPELINES
from ntpaudit.core.ntp.sources import Server, doubtful_port
from ntpaudit.core.units import plural

ENOUGH = 4  # the number of servers that outvote one that is wrong
SERVICE_FOLDERS = ("/run/ntpaudit", "/var/lib/ntpaudit")  # systemd creates these for the agent


def config_warnings(config: Config) -> Iterator[str]:
    """Describe values that are hardly intended, and files and folders that do not exist.

    To add a warning, yield it here: `config check`, `check`, and the agent at its start and reload show it.
    """
    yield from source_warnings(config.sources)
    if config.history.rollups_s < config.history.raw_s:
        yield "history.rollups is shorter than history.raw: hours are deleted before their records"
    if config.sources.named and config.schedule.local_s > config.schedule.network_s:
        yield "schedule.local is longer than schedule.network: servers are polled more often than the clock is audited"
    for name, table in {**config.outputs._asdict(), "history": config.history}.items():
        folder = os.path.dirname(getattr(table, "path", None) or "")  # an output's `path` is a file that it writes
        if folder and folder not in SERVICE_FOLDERS and not os.path.isdir(folder):
            yield f"{name}.path: the folder {folder} does not exist: create it"
    yield from ingest_warnings(config.ingest)
    for one in config.accept:
        if one.until is None:
            yield f"accept: the acceptance of {one.finding} has no end, so it counts for nothing: set `until`"
    inventory = config.fleet.inventory
    if inventory is not None and not os.path.exists(inventory):
        yield f"fleet.inventory: {inventory} does not exist: `ntpaudit fleet` cannot run without it"
    roots = config.evidence.tsa_roots
    if config.evidence.tsa and roots is None:
        yield "evidence.tsa needs evidence.tsa_roots: without root certificates no time stamp is valid"
    if roots is not None and not os.path.exists(roots):
        yield f"evidence.tsa_roots: {roots} does not exist: `ntpaudit evidence anchor` cannot run without it"


def source_warnings(sources: SourcesConfig) -> Iterator[str]:
    """Describe servers that one wrong server can outvote, and names that were hardly intended. Any pool is enough."""
    servers = [source.name for source in sources.servers if isinstance(source, Server)]
    if 0 < len(servers) == len(sources.named) < ENOUGH and not sources.from_host:
        count = plural(len(servers), "server")
        yield f"only {count}: name at least {ENOUGH}, so that the others outvote one that is wrong"
    yield from filter(None, map(doubtful_port, servers))
    if repeated := [name for name, count in Counter(servers).items() if count > 1]:
        yield f"servers named twice: {', '.join(repeated)}"


def ingest_warnings(ingest: IngestConfig) -> Iterator[str]:
    """Describe pipelines without a limit, and windows of detection rules that cannot be as intended."""
    interval_s, lookback_s = ingest.rule_interval_s, ingest.rule_lookback_s
    without = [name for name in ingest.pipelines if PIPELINES[name].ahead is PIPELINES[name].behind is None]
    if without and (interval_s is None or lookback_s is None):
        yield f"ingest.pipelines: {without[0]} is not judged without ingest.rule_interval and ingest.rule_lookback"
    if (interval_s is None) is not (lookback_s is None):
        yield "ingest.rule_interval and ingest.rule_lookback are used together only: set both"
    if interval_s is not None and lookback_s is not None and lookback_s < interval_s:
        yield "ingest.rule_lookback is shorter than ingest.rule_interval: the rules never search some events"

"""The history that a command reads, and the time at which it reads."""

import os

from ntpaudit.config.load import load_config
from ntpaudit.config.location import find_config
from ntpaudit.config.schema import Config
from ntpaudit.core.ntp.rate_limit import Instant
from ntpaudit.core.staleness import HostNow


def read_config(path: str | None) -> Config:
    """Return the configuration of `path`, else of the default file, else the defaults. Raises ConfigError."""
    found = find_config(os.environ, path)
    return Config() if found is None else load_config(found)


def history_path(config_path: str | None, *, by_agent: bool) -> str:
    """Return the configured history, else the default one; `by_agent`: that of an agent. Raises ConfigError."""
    from ntpaudit.store.readonly import find_history

    return read_config(config_path).history.path or find_history(os.environ, by_agent=by_agent)


def this_host(agent_runs: bool | None = None) -> HostNow:
    """Return this host now; `agent_runs` says whether the agent of the history runs on it."""
    from ntpaudit.probes.clock import SystemClock
    from ntpaudit.probes.host import host_facts

    facts, reading = host_facts(), SystemClock().read()
    moment = Instant(facts.boot_id, reading.boottime_ns, reading.realtime_ns)
    return HostNow(moment, facts.machine_id, agent_runs)

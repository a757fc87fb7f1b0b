"""ntpd-rs."""

from collections.abc import Iterator

from ntpaudit.probes.daemons.files import Files, split_port
from ntpaudit.probes.daemons.kind import ConfiguredServer, DaemonKind, Process, always, config_path, read_options

_OPTIONS = "c:l:hv"
_LONG_OPTIONS = ("config=", "log-level=", "help", "version")
_DEFAULTS = ("/etc/ntpd-rs/ntp.toml", "/etc/ntp.toml")


def _servers(process: Process, files: Files) -> Iterator[ConfiguredServer]:
    given = read_options(process, _OPTIONS, _LONG_OPTIONS)
    path = config_path(process, files, given, "-c --config", _DEFAULTS)
    text = files.text(path, is_needed=True) if path is not None else ""
    if path is None or not text:
        return
    import tomllib  # only where there is something to read with it

    try:
        sources = tomllib.loads(text).get("source")
    except (ValueError, RecursionError):  # not TOML, or nested too deep for it
        files.problems.append(f"{path} is not valid TOML")
        return
    for source in sources if isinstance(sources, list) else ():
        match source:
            case {"mode": "server" | "pool" as mode, "address": str(address)}:
                host, port = split_port(address)
                if host and port:
                    yield ConfiguredServer(host, port, pool=mode == "pool")
            case {"mode": "nts" | "nts-pool" as mode, "address": str(address)}:
                host, _ = split_port(address)  # the port is that of the key exchange
                if host:
                    yield ConfiguredServer(host, pool=mode == "nts-pool", nts=True)


KIND = DaemonKind("ntpd-rs", ("ntp-daemon", "ntpd-rs"), ("ntpd-rs",), always, _servers)

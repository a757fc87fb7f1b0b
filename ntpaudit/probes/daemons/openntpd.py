"""OpenNTPD, whose program is called ntpd as well."""

from collections.abc import Iterator

from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import ConfiguredServer, DaemonKind, Process, always, config_path, read_options

_OPTIONS = "df:np:P:sSv"
_DEFAULTS = ("/etc/openntpd/ntpd.conf", "/etc/ntpd.conf")
_ENGINE = "ntpd: ntp engine"  # the title of the process that asks the servers; its parent sets the clock


def is_openntpd(process: Process) -> bool:
    """Whether a process called ntpd is OpenNTPD: by its unit, by its program, or by its helper's title."""
    program = process.words[0].rpartition("/")[2] if process.words else ""
    titles = {" ".join(words).strip() for words in process.helpers}
    return KIND.owns_unit(process.unit) or program == "openntpd" or _ENGINE in titles


def _servers(process: Process, files: Files) -> Iterator[ConfiguredServer]:
    """`server` is one address of a name, `servers` all of them (ntpd.conf(5))."""
    path = config_path(process, files, read_options(process, _OPTIONS), "-f", _DEFAULTS)
    if path is None:
        return
    for line in files.text(path, is_needed=True).replace("\\\n", " ").split("\n"):
        match [word.strip('"') for word in line.partition("#")[0].split()]:
            case ["server" | "servers" as kind, host, *_] if host:
                yield ConfiguredServer(host, pool=kind == "servers")


KIND = DaemonKind("openntpd", ("openntpd",), ("openntpd",), always, _servers)

"""ntpd: the reference implementation's, NTPsec's and BusyBox's."""

import glob
import os.path
from collections.abc import Collection, Iterator

from ntpaudit.probes.daemons.files import Files, split_port
from ntpaudit.probes.daemons.kind import ConfiguredServer, DaemonKind, Process, Role, config_path, read_options

_OPTIONS = "46aAbc:dD:f:gGhi:I:k:l:LmMnNp:P:qQr:Rs:t:u:U:vVw:xzZ"
_LONG_OPTIONS = (
    "ipv4", "ipv6", "assert", "configfile=", "debug-level", "set-debug-level=", "driftfile=", "panicgate",
    "force-step-once", "help", "jaildir=", "interface=", "keyfile=", "logfile=", "novirtualips", "mdns", "nofork",
    "nice", "pidfile=", "priority=", "quit", "propagationdelay=", "statsdir=", "trustedkey=", "user=", "uinterval=",
    "updateinterval=", "var=", "dvar=", "wait-sync=", "slew", "version", "saveconfigquit=", "usepcc", "pccfreq=",
)  # fmt: skip
_BUSYBOX_OPTIONS = "dnqNwk:S:p:lI:"
_DEFAULTS = ("/etc/ntpsec/ntp.conf", "/etc/ntp.conf")


def _role(process: Process, _files: Files) -> Role:
    """BusyBox's -w only queries the servers. The -w of the others is a number of seconds."""
    given = read_options(process, _BUSYBOX_OPTIONS)
    is_busybox = bool(_busybox_peers(process)) or not read_options(process, _OPTIONS, _LONG_OPTIONS).is_understood
    return Role(False, "started with -w") if is_busybox and given.has("-w") else Role(True)


def _servers(process: Process, files: Files) -> Iterator[ConfiguredServer]:
    """NTPsec takes servers as arguments, before those of the file (ntpd(8)); BusyBox's -p stand instead of the file."""
    if peers := _busybox_peers(process):
        for peer in peers:
            yield ConfiguredServer(peer.split(":", 2)[-1] if peer.startswith("keyno:") else peer)
        return
    given = read_options(process, _OPTIONS, _LONG_OPTIONS)
    yield from map(ConfiguredServer, given.words)
    main = config_path(process, files, given, "-c --configfile", _DEFAULTS)
    if main is None:
        return
    is_needed = not given.words or given.has("-c", "--configfile")
    fragments = files.matching(f"{glob.escape(os.path.dirname(main))}/ntp.d/*.conf")
    start = (line for path in (main, *fragments) for line in files.lines_once(path, is_needed=is_needed))
    for _, line in files.with_included(start, _included):
        match _words(line):
            case ["server" | "pool" | "peer" as kind, host, *details]:
                host = split_port(host)[0] if "nts" in details else host  # the port is that of the key exchange
                if host and not host.startswith("127.127."):  # a reference clock in the guise of an address
                    yield ConfiguredServer(host, pool=kind == "pool", nts="nts" in details)


def _included(files: Files, path: str, line: str) -> Collection[str]:
    match _words(line):
        case ["includefile", name]:
            target = os.path.normpath(os.path.join(os.path.dirname(path), name))
            return [target, *files.matching(f"{glob.escape(target)}/*.conf")]
    return ()


def _words(line: str) -> list[str]:
    words = [word.strip('"') for word in line.partition("#")[0].split()]
    return [word for word in words if word not in ("-4", "-6")]


def _busybox_peers(process: Process) -> list[str]:
    """Return the servers of BusyBox's ntpd, where the process can be no other: for these, -p names a file."""
    peers = [value for name, value in read_options(process, _BUSYBOX_OPTIONS).found if name == "-p"]
    return peers if not any("/" in peer for peer in peers) else []


KIND = DaemonKind("ntpd", ("ntpd",), ("ntp", "ntpd", "ntpsec", "timemaster"), _role, _servers)

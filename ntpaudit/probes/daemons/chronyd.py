"""chronyd, of chrony."""

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from ntpaudit.core.ntp.sources import NTP_PORT
from ntpaudit.core.observation import Claim, Unavailable
from ntpaudit.probes.daemons import chrony_client
from ntpaudit.probes.daemons.chrony_client import CommandSettings
from ntpaudit.probes.daemons.files import Files, read_port
from ntpaudit.probes.daemons.kind import ConfiguredServer, DaemonKind, Options, Process, Role, config_path, read_options

_OPTIONS = "46df:F:hl:L:mnpP:qQrRst:u:Uvx"
_DEFAULTS = ("/etc/chrony/chrony.conf", "/etc/chrony.conf")
_NEGATIVE = re.compile(r"-\.?[0-9]")
_SOURCES = ("server", "pool", "peer")
_PATHS = ("include", "confdir", "sourcedir")


def _role(process: Process, _files: Files) -> Role:
    given = _options(process)
    found = [name for name in ("-x", "-Q") if given.has(name)]  # to serve only; to print an offset and end
    return Role(False, f"started with {found[0]}") if found else Role(True)


def _options(process: Process) -> Options:
    """Read its command line. A negative number, as in `makestep 1 -1`, is no option, but -4 and -6 are."""
    words = tuple("0" if _NEGATIVE.match(word) and set(word) - set("-46") else word for word in process.words)
    return read_options(process._replace(words=words), _OPTIONS)


def _servers(process: Process, files: Files) -> Iterator[ConfiguredServer]:
    for line in _lines(process, files):
        match line.split():
            case [word, host, *words] if (kind := word.lower()) in _SOURCES:
                words = [one.lower() for one in words]
                port = read_port(words[words.index("port") + 1 :][:1]) if "port" in words else NTP_PORT
                if port:
                    yield ConfiguredServer(host, port, kind == "pool", "nts" in words, "key" in words)


def _lines(process: Process, files: Files) -> Iterator[str]:
    """Yield the lines of its configuration. Directives on the command line stand instead of a file."""
    given = _options(process)
    if given.words:
        are_whole = any(" " in word or "\t" in word for word in given.words)
        start = [("", line) for line in (given.words if are_whole else _directives(given.words, files))]
    elif path := config_path(process, files, given, "-f", _DEFAULTS):
        start = files.lines_once(path, is_needed=True)
    else:
        return
    for _, line in files.with_included(start, _included):
        yield line


def _included(files: Files, _path: str, line: str) -> Collection[str]:
    match line.split():
        case [word, pattern] if word.lower() == "include":
            return files.matching(pattern)
        case [word, *folders] if word.lower() == "confdir":
            return files.fragments(folders, ".conf")
        case [word, *folders] if word.lower() == "sourcedir":
            return files.fragments(folders, ".sources")
    return ()


def _directives(words: Sequence[str], files: Files) -> list[str]:
    """Put the directives about servers together again: chronyd takes its arguments apart where they stand in memory.

    A source's options end where the next such directive begins. `port` may then be an option or a directive of its own.
    """
    directives: list[list[str]] = []
    for word in words:
        if word.lower() in (*_SOURCES, *_PATHS):
            directives.append([])
        if directives:
            directives[-1].append(word)
    for directive in directives:
        kind, rest = directive[0].lower(), directive[2:]
        if kind in _PATHS:
            del directive[2:]  # only one of several folders can be distinguished from what follows
        elif "port" in (lower := [word.lower() for word in rest]):
            port = (rest[lower.index("port") + 1 :] or [""])[0]
            del directive[2 + lower.index("port") :]
            directive += ["nts"] if "nts" in lower else []
            if port not in ("0", str(NTP_PORT)):  # no source's port is 0
                files.problems.append(f"its command line does not show whether `port {port}` belongs to {directive[1]}")
                directive[0] = "#"
    return [" ".join(directive) for directive in directives]


def _claim(process: Process, files: Files, with_sources: bool) -> Claim | Unavailable:
    return chrony_client.claim(process, command_settings(process, files), with_sources)


def _log_file(process: Process, _files: Files) -> str | None:
    return _options(process).last("-l")


def command_settings(process: Process, files: Files) -> CommandSettings:
    """Return where it takes commands by its configuration: `cmdport` and `bindcmdaddress`."""
    settings = CommandSettings()
    words = " ".join(_options(process).words).split()
    for line in (*map(" ".join, pairwise(words)), *_lines(process, files)):
        match line.split():
            case [word, port] if word.lower() == "cmdport" and port.isdecimal():
                settings = settings._replace(port=int(port))
            case [word, path] if word.lower() == "bindcmdaddress" and path.startswith("/"):
                settings = settings._replace(path=path)
            case [word, address] if word.lower() == "bindcmdaddress" and ":" in address:
                settings = settings._replace(ipv6=address)
            case [word, address] if word.lower() == "bindcmdaddress":
                settings = settings._replace(ipv4=address)
    return settings


# it clears STA_UNSYNC only with `rtcsync` (A5)
KIND = DaemonKind(
    "chronyd",
    ("chronyd",),
    ("chrony", "chronyd", "timemaster"),
    _role,
    _servers,
    clears_unsync=False,
    claim=_claim,
    log_file=_log_file,
)

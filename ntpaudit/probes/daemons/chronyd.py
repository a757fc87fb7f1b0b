"""chronyd, of chrony."""

from collections.abc import Iterator, Sequence

from ntpaudit.core.sources import NTP_PORT
from ntpaudit.probes.daemons.files import Files, read_port
from ntpaudit.probes.daemons.kind import (
    COMMAND_LINE,
    DISCIPLINES,
    ConfiguredServer,
    Kind,
    Process,
    Role,
    configuration,
    read_options,
)

_OPTIONS = "46df:F:hl:L:mnpP:qQrRst:u:Uvx"
_DEFAULTS = ("/etc/chrony/chrony.conf", "/etc/chrony.conf")
_MAX_DEPTH = 10  # chrony's own limit


def _role(process: Process, _files: Files) -> Role:
    """By its arguments: -x is to serve only, -Q to print an offset and end."""
    given = read_options(process, _OPTIONS)
    letters = [name for name in ("-x", "-Q") if given.has(name)]
    return Role(False, f"started with {letters[0]}") if letters else DISCIPLINES


def _servers(process: Process, files: Files) -> Iterator[ConfiguredServer]:
    """Directives on the command line stand instead of a configuration file."""
    given = read_options(process, _OPTIONS)
    if given.words:
        yield from _read(files, given.words, COMMAND_LINE, set())
    elif path := configuration(process, files, given, "-f", _DEFAULTS):
        yield from _read_file(files, path, set(), is_needed=True)


def _read_file(
    files: Files, path: str, seen: set[str], depth: int = 0, *, is_needed: bool = False
) -> Iterator[ConfiguredServer]:
    if path in seen or depth > _MAX_DEPTH:
        return
    seen.add(path)  # a second reading would name the same servers, and a loop would name them for ever
    yield from _read(files, files.lines(path, is_needed=is_needed), path, seen, depth)


def _read(files: Files, lines: Sequence[str], path: str, seen: set[str], depth: int = 0) -> Iterator[ConfiguredServer]:
    for line in lines:
        included: list[str] = []
        match line.split():
            case [word, *_] if word[0] in "!;#%":
                continue
            case [word, host, *words] if (kind := word.lower()) in ("server", "pool", "peer"):
                words = [one.lower() for one in words]
                port = read_port(words[words.index("port") + 1 :][:1]) if "port" in words else NTP_PORT
                if port:
                    yield ConfiguredServer(host, port, kind == "pool", "chronyd", path, "nts" in words)
            case [word, pattern] if word.lower() == "include":
                included = files.matching(pattern)
            case [word, *folders] if word.lower() == "confdir":
                included = files.fragments(folders, ".conf")
            case [word, *folders] if word.lower() == "sourcedir":
                included = files.fragments(folders, ".sources")
        for inner in included:
            yield from _read_file(files, inner, seen, depth + 1)


KIND = Kind("chronyd", ("chronyd",), ("chrony", "chronyd", "timemaster"), _role, _servers)

"""systemd-timesyncd, whose files are read as systemd's config_parse() and timesyncd-manager.c read them."""

import re
from collections.abc import Iterator

from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import ConfiguredServer, DaemonKind, Process, always

_FOLDERS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd")
_PROGRAMS = ("/usr/lib/systemd/systemd-timesyncd", "/lib/systemd/systemd-timesyncd")
_NETWORK = "/run/systemd/netif/state"  # systemd-networkd writes the servers of all links here, those of DHCP too
_SPACE = " \t\n\r"
_KEYS = {"NTP": "NTP", "Servers": "NTP", "FallbackNTP": "FallbackNTP"}  # `Servers` is an alias (timesyncd-gperf.gperf)
_LINE_END = re.compile(rb"\r\n|\n\r|[\n\r\0]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WORD = re.compile(r"(?:\\.|[^\s\\])+")

_HOST = rb"(?:[a-z0-9][a-z0-9-]*\.)+[a-z0-9]+"
_HOSTS = re.compile(rb"(?<=\0)%s(?: %s)*(?=\0)" % (_HOST, _HOST))


class _InvalidFileError(Exception):
    """A line at which systemd gives up: this file from here on, and every file after it."""


def _servers(_process: Process, files: Files) -> Iterator[ConfiguredServer]:
    """It asks the servers of its files and of the links; only where both are empty, the fallback."""
    lists = _configured(files)
    chosen = [*lists.get("NTP", ()), *_of_links(files)]
    if not chosen:
        chosen = lists["FallbackNTP"] if "FallbackNTP" in lists else _compiled_in(files)
    yield from map(ConfiguredServer, chosen)


def _configured(files: Files) -> dict[str, list[str]]:
    """Merge the main file and its fragments: lists grow from file to file, and an empty assignment clears them.

    The fallback is there from its first server on, also if it is cleared after that.
    """
    main = files.first([f"{folder}/timesyncd.conf" for folder in _FOLDERS])
    fragments = files.fragments([f"{folder}/timesyncd.conf.d" for folder in _FOLDERS], ".conf")
    lists: dict[str, list[str]] = {}
    try:
        for path in [main, *fragments] if main else fragments:
            for key, value in _assignments(files.octets(path)):
                if value:
                    lists.setdefault(key, []).extend(_hosts(value))
                elif key in lists:
                    lists[key].clear()
    except _InvalidFileError:
        pass
    return lists


def _assignments(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield what a file assigns in [Time]. Raises _InvalidFileError."""
    section = ""
    for octets in _logical_lines(data):
        try:
            line = octets.decode().strip(_SPACE)
        except UnicodeDecodeError as error:
            raise _InvalidFileError from error
        if line.startswith("["):
            if not line.endswith("]"):
                raise _InvalidFileError
            section = line
        elif section == "[Time]" and "=" in line:
            name, _, value = line.partition("=")
            if key := _KEYS.get(name.strip(_SPACE)):
                yield key, value.strip(_SPACE)


def _logical_lines(data: bytes) -> Iterator[bytes]:
    begun, may_be_marked = b"", True
    for line in _LINE_END.split(data):
        if line.lstrip()[:1] in (b"#", b";"):
            continue
        if may_be_marked and line.startswith(_BYTE_ORDER_MARK):
            line, may_be_marked = line.removeprefix(_BYTE_ORDER_MARK), False
        begun += line
        if (len(begun) - len(begun.rstrip(b"\\"))) % 2:  # an even number of them is escaped, pair by pair
            begun = begun[:-1] + b" "
        else:
            yield begun
            begun = b""
    if begun:
        yield begun


def _hosts(value: str) -> Iterator[str]:
    """Yield the names in a list that can be names: systemd leaves the others out (dns_name_is_valid_or_address)."""
    for word in _WORD.findall(value):
        name = re.sub(r"\\(.)", r"\1", word)
        labels = name.removesuffix(".").split(".")
        length = sum(len(label) + 1 for label in labels)
        if length <= 254 and all(0 < len(label) <= 63 for label in labels) and name.split() == [name]:
            yield name


def _of_links(files: Files) -> list[str]:
    values = [line.removeprefix("NTP=") for line in files.lines(_NETWORK) if line.startswith("NTP=")]
    return values[0].strip("\"'").split() if values else []


def _compiled_in(files: Files) -> list[str]:
    """Return the fallback that was compiled in, as the program itself holds it.

    It is the only text there that is a list of host names; a single name is recognised by the comment that shows
    it in the file as shipped.
    """
    program = files.first(_PROGRAMS)
    texts: set[bytes] = set(_HOSTS.findall(files.octets(program))) if program else set()
    lists = {text for text in texts if b" " in text}
    if len(lists) != 1:
        shipped = [line for folder in _FOLDERS for line in files.lines(f"{folder}/timesyncd.conf")]
        comments = [line.partition("=")[2] for line in shipped if line.startswith("#FallbackNTP=")]
        lists = texts & {value.strip().encode() for value in comments}
    if len(lists) != 1:
        files.problems.append("the servers that are compiled into systemd-timesyncd cannot be seen")
        return []
    return lists.pop().decode().split()


# the kernel keeps 15 characters of a process's name
KIND = DaemonKind(
    "systemd-timesyncd", ("systemd-timesyn",), ("systemd-timesyncd",), always, _servers, max_poll_s=2048.0
)

"""systemd-timesyncd, whose files are read as systemd's config_parse() and timesyncd-manager.c read them.

It reports about itself on the message bus. The audit's sandbox has a user that the bus refuses: there a helper program
asks (systemd/helpers/timesync.py), and without it only the times of two files show when the clock was synchronised.
"""

import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ntpaudit.core.observation import Claim, ClaimedSource, Unavailable
from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import CLAIM_WITHIN_S, ConfiguredServer, DaemonKind, Process, always
from ntpaudit.probes.helper import ask_helper

_FOLDERS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd")
_PROGRAMS = ("/usr/lib/systemd/systemd-timesyncd", "/lib/systemd/systemd-timesyncd")
_NETWORK = "/run/systemd/netif/state"  # systemd-networkd writes the servers of all links here, those of DHCP too
_HELPER = "/run/ntpaudit-timesync"  # the socket of ntpaudit-timesync.service
_SYNCHRONISED = "/run/systemd/timesync/synchronized"  # touched whenever it corrects the clock (timesyncd-manager.c)
_SPACE = " \t\n\r"
_KEYS = {"NTP": "NTP", "Servers": "NTP", "FallbackNTP": "FallbackNTP"}  # `Servers` is an alias (timesyncd-gperf.gperf)
_LINE_END = re.compile(rb"\r\n|\n\r|[\n\r\0]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WORD = re.compile(r"(?:\\.|[^\s\\])+")

_HOST = rb"(?:[a-z0-9][a-z0-9-]*\.)+[a-z0-9]+"
_HOSTS = re.compile(rb"%s(?: %s)*" % (_HOST, _HOST))
_TEXTS = re.compile(rb"\0([a-z0-9][a-z0-9-]*\.[a-z0-9. -]+)(?=\0)")  # found several times faster than _HOSTS would be


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
    texts = set(filter(_HOSTS.fullmatch, _TEXTS.findall(files.octets(program)))) if program else set[bytes]()
    lists = {text for text in texts if b" " in text}
    if len(lists) != 1:
        shipped = [line for folder in _FOLDERS for line in files.lines(f"{folder}/timesyncd.conf")]
        comments = [line.partition("=")[2] for line in shipped if line.startswith("#FallbackNTP=")]
        lists = texts & {value.strip().encode() for value in comments}
    if len(lists) != 1:
        files.problems.append("the servers that are compiled into systemd-timesyncd cannot be seen")
        return []
    return lists.pop().decode().split()


def _claim(_process: Process, files: Files, with_sources: bool) -> Claim | Unavailable:
    from ntpaudit.probes.dbus import BusError, read_properties  # only hosts with this daemon pay for it

    boottime_ns, updated_s = time.clock_gettime_ns(time.CLOCK_BOOTTIME), _updated_s(files)
    try:
        return read_claim(read_properties(_properties()), boottime_ns, updated_s, with_sources=with_sources)
    except (BusError, ValueError) as error:
        if updated_s is None and not os.path.isdir(files.root + os.path.dirname(_SYNCHRONISED)):
            reason = f"the message bus does not give its state: {error}"
            return Unavailable(reason, "run ntpaudit as root, or as a service of its package")
        return Claim(boottime_ns, updated_s is not None, updated_s=updated_s)


def _properties() -> bytes:
    """Return the reply of the helper, where it runs, else that of the bus. BusError where there is none."""
    from ntpaudit.probes.dbus import MAX_OCTETS, TIMESYNCD, BusError, ask

    try:
        return ask_helper(_HELPER, CLAIM_WITHIN_S, MAX_OCTETS)
    except TimeoutError:
        raise BusError("ntpaudit-timesync.service does not reply") from None
    except OSError:
        return ask(TIMESYNCD, CLAIM_WITHIN_S)


def _updated_s(files: Files) -> float | None:
    """Return the age of its last correction of the clock, by that clock; None if there was none since it started."""
    try:
        return max(0.0, time.time() - os.stat(files.root + _SYNCHRONISED).st_mtime)
    except OSError:
        return None


def read_claim(
    properties: Mapping[str, Any], boottime_ns: int, updated_s: float | None, *, with_sources: bool
) -> Claim:
    """Read what it reports (org.freedesktop.timesync1(5)). ValueError where that is not understood.

    The offset is that of the last exchange, as `timedatectl timesync-status` shows it. Since then the clock has been
    slewed or set by as much, and how much of it is done is not reported: so it counts in the bound, as in B7.
    """
    match properties:
        case {
            "NTPMessage": (
                int(leap), int(), int(), int(stratum), int(), int(root_delay_us), int(root_dispersion_us), bytes(),
                int(t1), int(t2), int(t3), int(t4), bool(is_ignored), int(), int(),
            ),
            "ServerName": str(name),
            "PollIntervalUSec": int(poll_us),
        }:  # fmt: skip
            pass
        case _:
            raise ValueError("its properties are not those of systemd 252 to 257")
    offset_s, delay_s = ((t2 - t1) + (t3 - t4)) / 2e6, max(0, (t4 - t1) - (t3 - t2)) / 1e6
    bound_s = root_delay_us / 2e6 + root_dispersion_us / 1e6 + delay_s / 2 + abs(offset_s)
    is_synchronised = bool(name) and t4 > 0  # before the first reply all of it is zero
    claim = Claim(boottime_ns, is_synchronised, updated_s=updated_s, authentication="none")
    if is_synchronised:
        claim = claim._replace(follows=name, poll_s=poll_us / 1e6, stratum=stratum, leap=leap)
        if not is_ignored:  # else an outlier, which changed nothing
            claim = claim._replace(offset_s=offset_s, bound_s=bound_s)
    return claim._replace(sources=tuple(_sources(properties, claim))) if with_sources else claim


def _sources(properties: Mapping[str, Any], claim: Claim) -> Iterator[ClaimedSource]:
    """Yield the servers in the order of its lists; the fallback counts only where the others are empty."""
    lists = [properties.get(f"{kind}NTPServers") for kind in ("Runtime", "System", "Link", "Fallback")]
    names = [[name for name in one if isinstance(name, str)] if isinstance(one, list) else [] for one in lists]
    for name in dict.fromkeys([*names[0], *names[1], *names[2]] or names[3]):
        if name != claim.follows:
            yield ClaimedSource(name, is_followed=False, authentication="none")
            continue
        address = _address(properties.get("ServerAddress"))
        yield ClaimedSource(name, address, True, "none", claim.stratum, claim.offset_s, claim.poll_s)


def _address(value: Any) -> str | None:
    match value:
        case (socket.AF_INET | socket.AF_INET6, bytes(octets)) if len(octets) in (4, 16):
            return socket.inet_ntop(socket.AF_INET if len(octets) == 4 else socket.AF_INET6, octets)
    return None


# the kernel keeps 15 characters of a process's name
KIND = DaemonKind(
    "systemd-timesyncd",
    ("systemd-timesyn",),
    ("systemd-timesyncd",),
    always,
    _servers,
    max_poll_s=2048.0,
    claim=_claim,
)

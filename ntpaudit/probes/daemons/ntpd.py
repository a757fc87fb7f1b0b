"""ntpd: the reference implementation's, NTPsec's and BusyBox's."""

import glob
import os.path
import re
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from ntpaudit.core.ntp.packet import LEAP_UNSYNCHRONISED
from ntpaudit.core.ntp.sources import NTP_PORT
from ntpaudit.core.ntp.time import difference_ns
from ntpaudit.core.observation import Authentication, Claim, ClaimedSource, Unavailable
from ntpaudit.core.units import NS_PER_S
from ntpaudit.probes.daemons import mode6
from ntpaudit.probes.daemons.files import Files, split_port
from ntpaudit.probes.daemons.kind import (
    CLAIM_WITHIN_S,
    ConfiguredServer,
    DaemonKind,
    Options,
    Process,
    Role,
    config_path,
    read_options,
)
from ntpaudit.probes.daemons.sockets import UdpPort

_OPTIONS = "46aAbc:dD:f:gGhi:I:k:l:LmMnNp:P:qQr:Rs:t:u:U:vVw:xzZ"
_LONG_OPTIONS = (
    "ipv4", "ipv6", "assert", "configfile=", "debug-level", "set-debug-level=", "driftfile=", "panicgate",
    "force-step-once", "help", "jaildir=", "interface=", "keyfile=", "logfile=", "novirtualips", "mdns", "nofork",
    "nice", "pidfile=", "priority=", "quit", "propagationdelay=", "statsdir=", "trustedkey=", "user=", "uinterval=",
    "updateinterval=", "var=", "dvar=", "wait-sync=", "slew", "version", "saveconfigquit=", "usepcc", "pccfreq=",
)  # fmt: skip
_BUSYBOX_OPTIONS = "dnqNwk:S:p:lI:"
_DEFAULTS = ("/etc/ntpsec/ntp.conf", "/etc/ntp.conf")

_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_MAX_ASSOCIATIONS = 64
_NO_ADDRESS = ("0.0.0.0", "::")  # noqa: S104
_CLOCK_ADDRESS = "127.127."  # a reference clock in the guise of an address
_MAX_POLL = 17  # NTP_MAXPOLL; NTPsec reports 99 for a server whose interval it does not know
_AUTHENTICATION_ENABLED = 0x4000  # of an association's status word (RFC 9327 §3.2)
_FOLLOWED = (4, 6, 7)  # its selection: a survivor that is combined with the system peer, that peer, a PPS signal
SILENT = "it does not reply to control messages"
"""How the reason begins of an ntpd that lets us wait in vain."""

_PRINTABLE = r"[!-~]{1,255}"


def _role(process: Process, _files: Files) -> Role:
    """BusyBox's -w only queries the servers. The -w of the others is a number of seconds."""
    is_query = _is_busybox(process) and read_options(process, _BUSYBOX_OPTIONS).has("-w")
    return Role(False, "started with -w") if is_query else Role(True)


def _is_busybox(process: Process) -> bool:
    return bool(_busybox_peers(process)) or not read_options(process, _OPTIONS, _LONG_OPTIONS).is_understood


def _servers(process: Process, files: Files) -> Iterator[ConfiguredServer]:
    """NTPsec takes servers as arguments, before those of the file (ntpd(8)); BusyBox's -p stand instead of the file."""
    if peers := _busybox_peers(process):
        for peer in peers:
            has_key = peer.startswith("keyno:")
            yield ConfiguredServer(peer.split(":", 2)[-1] if has_key else peer, key=has_key)
        return
    given = read_options(process, _OPTIONS, _LONG_OPTIONS)
    yield from map(ConfiguredServer, given.words)
    for words in _directives(process, files, given):
        match words:
            case ["server" | "pool" | "peer" as kind, host, *details]:
                host = split_port(host)[0] if "nts" in details else host  # the port is that of the key exchange
                if host and not host.startswith(_CLOCK_ADDRESS):
                    yield ConfiguredServer(host, pool=kind == "pool", nts="nts" in details, key="key" in details)


def _directives(process: Process, files: Files, given: Options) -> Iterator[list[str]]:
    main = config_path(process, files, given, "-c --configfile", _DEFAULTS)
    if main is None:
        return
    is_needed = not given.words or given.has("-c", "--configfile")
    fragments = files.matching(f"{glob.escape(os.path.dirname(main))}/ntp.d/*.conf")
    start = (line for path in (main, *fragments) for line in files.lines_once(path, is_needed=is_needed))
    for _, line in files.with_included(start, _included):
        yield _words(line)


def _log_file(process: Process, files: Files) -> str | None:
    if _is_busybox(process):
        return None
    given = read_options(process, _OPTIONS, _LONG_OPTIONS)
    named = [words[1] for words in _directives(process, files, given) if words[:1] == ["logfile"] and len(words) > 1]
    return given.last("-l", "--logfile") or next(reversed(named), None)


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


def _claim(process: Process, files: Files, with_sources: bool) -> Claim | Unavailable:
    """Ask ntpd on the loopback addresses; half of the time is for each, because it may permit queries from one only."""
    if _is_busybox(process):
        return Unavailable("BusyBox's ntpd has no interface that reports its state", "run chronyd or NTPsec instead")
    failures, port = [], UdpPort(process, NTP_PORT)
    for family, address in _LOOPBACK:
        deadline = time.monotonic() + CLAIM_WITHIN_S / len(_LOOPBACK)
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as asking:
                asking.connect((address, NTP_PORT))
                failure = port.why_not_believed(asking)
                claim = failure or read_claim(mode6.Conversation(asking, deadline), with_sources=with_sources)
        except TimeoutError:
            claim = Unavailable(f"{SILENT} from {address}", _remedy(process, files))
        except OSError as error:
            claim = Unavailable(f"it cannot be queried at UDP port {NTP_PORT} of {address}: {error.strerror}")
        if isinstance(claim, Claim):
            return claim
        failures.append(claim)
    return failures[0]


def _remedy(process: Process, files: Files) -> str:
    given = read_options(process, _OPTIONS, _LONG_OPTIONS)
    path = config_path(process, files, given, "-c --configfile", _DEFAULTS) or _DEFAULTS[0]
    return f"add the line `restrict 127.0.0.1` to {path}, and restart it"


def read_claim(conversation: mode6.Conversation, *, with_sources: bool) -> Claim | Unavailable:
    """Ask for the system variables and those of the system peer, or of all associations. Raises OSError.

    All durations are in milliseconds. `offset` is server minus client, as ours is. Before the first update ntpd reports
    zeros.
    """
    reply = conversation.ask(mode6.READ_VARIABLES)
    boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    if isinstance(reply, mode6.Failure):
        return Unavailable(reply.reason)
    system = mode6.read_variables(reply.data)
    leap, peer = mode6.read_int(system, "leap", LEAP_UNSYNCHRONISED), mode6.read_int(system, "peer", 0xFFFF)
    updated, clock = mode6.read_timestamp(system, "reftime"), mode6.read_timestamp(system, "clock")
    age_ns = difference_ns(clock, updated) if clock and updated else -1
    is_set = updated is not None and leap is not None and leap != LEAP_UNSYNCHRONISED
    root_s = [_seconds(system, name) for name in ("rootdelay", "rootdisp")]
    bound_s = None if root_s[0] is None or root_s[1] is None else root_s[0] / 2 + root_s[1]
    sources = _sources(conversation, peer, with_sources)
    followed = sources.get(peer or 0)
    return Claim(
        boottime_ns,
        is_synchronised=None if leap is None or peer is None else leap != LEAP_UNSYNCHRONISED and peer != 0,
        follows=followed.name if followed else None,
        offset_s=_seconds(system, "offset") if is_set else None,
        bound_s=bound_s if is_set and bound_s is not None and bound_s >= 0 else None,
        updated_s=age_ns / NS_PER_S if age_ns >= 0 else None,
        poll_s=followed.poll_s if followed else None,
        stratum=mode6.read_int(system, "stratum", 255),
        leap=leap,
        authentication=followed.authentication if followed else None,
        sources=tuple(sources.values()) if with_sources else (),
    )


def _sources(conversation: mode6.Conversation, peer: int | None, with_all: bool) -> dict[int, ClaimedSource]:
    """Return the system peer, and all other associations if asked for: as many as are read in time."""
    sources: dict[int, ClaimedSource] = {}
    wanted = [peer] if peer else []
    with suppress(OSError):
        if with_all and isinstance(listed := conversation.ask(mode6.READ_STATUS), mode6.Reply):
            wanted += mode6.read_associations(listed.data)
        for association in list(dict.fromkeys(wanted))[:_MAX_ASSOCIATIONS]:
            reply = conversation.ask(mode6.READ_VARIABLES, association)
            if isinstance(reply, mode6.Reply) and (source := _source(reply)):
                sources[association] = source
    return sources


def _source(reply: mode6.Reply) -> ClaimedSource | None:
    """Read an association; None if it is not one server: the template of a pool, or a name without an address."""
    variables = mode6.read_variables(reply.data)
    address, name, reference = (_name(variables, one) for one in ("srcadr", "srchost", "refid"))
    if address in (None, *_NO_ADDRESS):
        return None
    clock = reference if address.startswith(_CLOCK_ADDRESS) else None
    polls = [mode6.read_int(variables, one, _MAX_POLL) for one in ("hpoll", "ppoll")]
    known = [one for one in polls if one is not None]
    has_replied = mode6.read_timestamp(variables, "rec") is not None  # until then its offset is reported as 0
    return ClaimedSource(
        name or clock or address,
        None if address.startswith(_CLOCK_ADDRESS) else address,
        is_followed=reply.status >> 8 & 7 in _FOLLOWED,
        authentication=_authentication(reply.status, variables),
        stratum=mode6.read_int(variables, "stratum", 255),
        offset_s=_seconds(variables, "offset") if has_replied else None,
        poll_s=float(1 << min(known)) if known else None,
    )


def _authentication(status: int, variables: Mapping[str, str]) -> Authentication:
    """NTPsec reports how many cookies of NTS it holds for a server, and -1 where it does not use NTS."""
    if mode6.read_int(variables, "ntscookies", 255) is not None:
        return "nts"
    return "key" if status & _AUTHENTICATION_ENABLED else "none"


def _name(variables: Mapping[str, str], name: str) -> str | None:
    text = variables.get(name) or ""
    return text if re.fullmatch(_PRINTABLE, text) else None


def _seconds(variables: Mapping[str, str], name: str) -> float | None:
    value_ms = mode6.read_float(variables, name)
    return None if value_ms is None else value_ms / 1e3


KIND = DaemonKind(
    "ntpd", ("ntpd",), ("ntp", "ntpd", "ntpsec", "timemaster"), _role, _servers, claim=_claim, log_file=_log_file
)

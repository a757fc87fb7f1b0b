"""OpenNTPD, whose program is called ntpd as well.

Its control socket is for root alone, and carries C structures that have no version: so its own ntpctl reads it.
"""

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from ntpaudit.core.observation import Claim, ClaimedSource, Unavailable
from ntpaudit.probes.daemons.control import report_of
from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import ConfiguredServer, DaemonKind, Process, always, config_path, read_options

_OPTIONS = "df:np:P:sSv"
_DEFAULTS = ("/etc/openntpd/ntpd.conf", "/etc/ntpd.conf")
# compiled where they are used: no other host has to
_STATUS = r"(?m)clock (?:(unsynced)|synced, stratum (\d{1,3}))(?:, clock offset is (-?\d{1,12}\.\d{3})ms)?$"
_PEER = (  # weight, trust level, stratum, next, poll, and three numbers (ntpctl.c: show_peer_msg)
    r" {1,4}(\*)? {1,9}\d+ +\d+ +(\d{1,3}) +(-?\d{1,12})s +(\d{1,12})s"
    r" +(?:---- peer not valid ----|(-?\d{1,12}\.\d{3})ms .*)$"
)
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


def _claim(_process: Process, _files: Files, with_sources: bool) -> Claim | Unavailable:
    boottime_ns, report = time.clock_gettime_ns(time.CLOCK_BOOTTIME), report_of("ntpctl", "-s", "all")
    return report if isinstance(report, Unavailable) else read_claim(report, boottime_ns, with_sources=with_sources)


class _Peer(NamedTuple):
    source: ClaimedSource
    updated_s: float


def read_claim(report: str, boottime_ns: int, *, with_sources: bool) -> Claim | Unavailable:
    """Read what `ntpctl -s all` prints. It reports no root delay or dispersion, so there is no bound.

    Its offsets are server minus host, in ms. The one of the status line is what adjtime(2) has yet to correct, shown
    only while it is not synchronised.
    """
    status = re.search(_STATUS, report.partition("\n\n")[0])
    if status is None:
        return Unavailable("the report of its ntpctl is not understood")
    peers = list(_peers(report.split("\n")))
    followed = next((peer for peer in peers if peer.source.is_followed), None)
    claim = Claim(
        boottime_ns,
        status[1] is None,
        offset_s=float(status[3]) / 1e3 if status[3] else None,
        stratum=int(status[2]) if status[2] else None,
        authentication="none",
        sources=tuple(peer.source for peer in peers) if with_sources else (),
    )
    if followed is None:
        return claim
    source, updated_s = followed
    offset_s = source.offset_s if claim.offset_s is None else claim.offset_s
    return claim._replace(follows=source.name, offset_s=offset_s, updated_s=updated_s, poll_s=source.poll_s)


def _peers(lines: list[str]) -> Iterator[_Peer]:
    """Yield the peers: a line `ADDRESS [[from pool ]NAME]`, and one with the numbers (control.c: build_show_peer)."""
    for description, line in pairwise(lines):
        if (numbers := re.match(_PEER, line)) is None:
            continue
        words = description.replace(" (non-dnssec lookup)", "").split()
        address = None if words[:2] == ["not", "resolved"] or not words else words[0]
        name = words[-1] if words else "?"
        mark, stratum, due_s, poll_s, offset_ms = numbers.groups()
        offset_s = float(offset_ms) / 1e3 if offset_ms else None
        source = ClaimedSource(name, address, bool(mark), "none", int(stratum), offset_s, float(poll_s))
        yield _Peer(source, max(0.0, float(poll_s) - float(due_s)))


KIND = DaemonKind("openntpd", ("openntpd",), ("openntpd",), always, _servers, claim=_claim)

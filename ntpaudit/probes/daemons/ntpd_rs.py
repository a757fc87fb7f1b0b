"""ntpd-rs."""

import socket
import time
from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Any

from ntpaudit.core.ntp.packet import LEAP_UNSYNCHRONISED
from ntpaudit.core.ntp.time import difference_ns, encode
from ntpaudit.core.observation import Claim, ClaimedSource, Unavailable
from ntpaudit.core.units import NS_PER_S
from ntpaudit.probes.daemons.files import Files, split_port
from ntpaudit.probes.daemons.kind import (
    CLAIM_WITHIN_S,
    ConfiguredServer,
    DaemonKind,
    Process,
    always,
    config_path,
    read_options,
)
from ntpaudit.probes.daemons.sockets import is_listening

_OPTIONS = "c:l:hv"
_LONG_OPTIONS = ("config=", "log-level=", "help", "version")
_DEFAULTS = ("/etc/ntpd-rs/ntp.toml", "/etc/ntp.toml")
_OBSERVATION_PATH = "observation-path"
_MAX_OCTETS = 1 << 18  # of a report: some hundred sources
_MAX_SOURCES = 64
_LEAP = {"NoWarning": 0, "Leap61": 1, "Leap59": 2, "Unknown": LEAP_UNSYNCHRONISED}
_MAX_POLL = 17
_MAX_NUMBER = 1e15  # a stored record with much larger ones could not be read


def _servers(process: Process, files: Files) -> Iterator[ConfiguredServer]:
    sources = _config(process, files).get("source")
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


def _config(process: Process, files: Files) -> Mapping[str, Any]:
    """Read its configuration file; empty, and a problem, if that cannot be done."""
    given = read_options(process, _OPTIONS, _LONG_OPTIONS)
    path = config_path(process, files, given, "-c --config", _DEFAULTS)
    text = files.text(path, is_needed=True) if path is not None else ""
    if not text:
        return {}
    import tomllib  # only where there is something to read with it

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):  # not TOML, or nested too deep for it
        files.problems.append(f"{path} is not valid TOML")
        return {}


def _claim(process: Process, files: Files, with_sources: bool) -> Claim | Unavailable:
    """Read its report: 8 octets of length, big endian, then JSON. It writes one to each client, and closes."""
    observability = _config(process, files).get("observability")
    path = observability.get(_OBSERVATION_PATH) if isinstance(observability, dict) else None
    if files.problems:
        return Unavailable(f"the path of its observation socket is not known: {files.problems[0]}")
    if not isinstance(path, str) or not path.isprintable() or not path:
        setting = f'add `{_OBSERVATION_PATH} = "/run/ntpd-rs/observe"` to [observability] of its configuration'
        return Unavailable("it has no observation socket", f"{setting}, and restart it")
    place = process.absolute(path, files)
    if place is None:
        return Unavailable(files.problems[-1])
    deadline = time.monotonic() + CLAIM_WITHIN_S
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as reading:
            reading.settimeout(CLAIM_WITHIN_S)
            reading.connect(files.root + place)
            if not is_listening(process, reading):
                return Unavailable(f"another program listens at {path}")
            length = int.from_bytes(_receive(reading, 8, deadline))
            report = _receive(reading, length, deadline) if length <= _MAX_OCTETS else b""
    except TimeoutError:
        return Unavailable(f"it does not report its state at {path} in time")
    except PermissionError:
        setting = "set `observation-permissions = 0o666` in [observability] of its configuration"
        return Unavailable(f"its observation socket {path} cannot be opened: permission denied", setting)
    except OSError as error:  # a path that is too long has no strerror
        why = getattr(error, "strerror", None) or error
        return Unavailable(f"its observation socket {path} cannot be read: {why}", "restart it")
    boottime_ns, now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns()
    return read_report(report, boottime_ns, now_ns, with_sources=with_sources)


def _receive(reading: socket.socket, count: int, deadline: float) -> bytes:
    """Return as many octets, fewer if the stream ends before. Raises OSError, TimeoutError at the deadline."""
    received = bytearray()
    while len(received) < count:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        reading.settimeout(remaining)
        part = reading.recv(count - len(received))
        if not part:
            break
        received += part
    return bytes(received)


def read_report(report: bytes, boottime_ns: int, now_ns: int, *, with_sources: bool) -> Claim | Unavailable:
    """Read a report, in which durations are in seconds. `now_ns` is the host's clock, by which its timestamps are.

    It has no offset of its own: that of the source whose address the reference id stands for is taken, remote minus
    local as ours is. Its root dispersion is a standard deviation, though it sends it to its clients as the dispersion
    of NTP: a bound from it is exceeded more often than one of another daemon.
    """
    import json  # a check that finds no ntpd-rs does without

    try:
        document = json.loads(report)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, an integer with too many digits, or nested too deep
        document = None
    system, program = _table(document, "system"), _table(document, "program")
    if not system:
        return Unavailable("its report is malformed")
    now = _timestamp(program, "now") or encode(now_ns)
    leap = _LEAP.get(str(system.get("leap_indicator")))
    listed = document.get("sources")
    sources = [one for one in listed[:_MAX_SOURCES] if isinstance(one, dict)] if isinstance(listed, list) else []
    followed = next((one for one in sources if _is_reference(system, one)), None)
    claimed = _source(followed, is_followed=True) if followed else None
    updated = _timestamp(followed, "last_update") if followed else None
    age_ns = difference_ns(now, updated) if updated else -1
    return Claim(
        boottime_ns,
        is_synchronised=None if leap is None else leap != LEAP_UNSYNCHRONISED and bool(sources),
        follows=claimed.name if claimed else None,
        offset_s=claimed.offset_s if claimed else None,
        bound_s=_bound_s(system, now) if leap is not None and leap != LEAP_UNSYNCHRONISED else None,
        updated_s=age_ns / NS_PER_S if age_ns >= 0 else None,
        poll_s=claimed.poll_s if claimed else None,
        stratum=_whole(system, "stratum", 255),
        leap=leap,
        authentication=claimed.authentication if claimed else None,
        sources=tuple(_source(one, is_followed=one is followed or None) for one in sources) if with_sources else (),
    )


def _bound_s(system: Mapping[str, Any], now: int) -> float | None:
    """Return half the root delay plus the root dispersion (B7): from version 1.5 on the root of a growing variance."""
    delay_s, dispersion_s = _number(system, "root_delay"), _number(system, "root_dispersion")
    since = _timestamp(system, "root_variance_base_time")
    if dispersion_s is None and since is not None:
        age_s = difference_ns(now, since) / NS_PER_S
        terms = [_number(system, f"root_variance_{name}") for name in ("base", "linear", "quadratic", "cubic")]
        variance = sum(age_s**power * term for power, term in enumerate(terms) if term is not None)
        dispersion_s = sqrt(variance) if None not in terms and 0 <= variance <= _MAX_NUMBER else None
    if delay_s is None or dispersion_s is None or delay_s < 0 or dispersion_s < 0:
        return None
    return delay_s / 2 + dispersion_s


def _source(source: Mapping[str, Any], *, is_followed: bool | None) -> ClaimedSource:
    host = _host(source, "address")
    poll = _whole(source, "poll_interval", _MAX_POLL)
    return ClaimedSource(
        _host(source, "name") or host or "unnamed",
        host,
        is_followed=is_followed,
        authentication="none" if source.get("nts_cookies") is None else "nts",
        offset_s=_number(source, "offset") if _timestamp(source, "last_update") else None,  # until then it is 0
        poll_s=float(1 << poll) if poll is not None else None,
    )


def _is_reference(system: Mapping[str, Any], source: Mapping[str, Any]) -> bool:
    """Whether a reference id stands for a source: it is its IPv4 address, or begins the MD5 of its IPv6 address."""
    address = _host(source, "address") or ""
    try:
        octets = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError:
        return False
    if len(octets) > 4:
        from hashlib import md5

        octets = md5(octets, usedforsecurity=False).digest()[:4]
    return _whole(system, "reference_id", 0xFFFF_FFFF) == int.from_bytes(octets)


def _host(source: Mapping[str, Any], name: str) -> str | None:
    text = source.get(name)
    host = split_port(text)[0] if isinstance(text, str) else ""
    return host if host.isascii() and host.isprintable() and 0 < len(host) < 256 else None


def _table(parent: object, name: str) -> Mapping[str, Any]:
    value = parent.get(name) if isinstance(parent, dict) else None
    return value if isinstance(value, dict) else {}


def _timestamp(parent: Mapping[str, Any], name: str) -> int | None:
    return _whole(_table(parent, name), "timestamp", (1 << 64) - 1) or None


def _whole(table: Mapping[str, Any], name: str, limit: int) -> int | None:
    value = table.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit else None


def _number(table: Mapping[str, Any], name: str) -> float | None:
    value = table.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) <= _MAX_NUMBER else None


KIND = DaemonKind("ntpd-rs", ("ntp-daemon", "ntpd-rs"), ("ntpd-rs",), always, _servers, claim=_claim)

"""What the tests of the core are made of: packets, clocks, hosts, and everything seen at one moment.

No expected value is made by the code under test: bytes and timestamps are written by the RFC's formulas.
"""

import struct
from typing import Any

from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.ntp.measurement import ExchangeTimestamps, Measurement
from ntpaudit.core.ntp.packet import Reply
from ntpaudit.core.observation import (
    Daemon,
    HiddenDaemons,
    HostFacts,
    KernelState,
    Observation,
    SourceFailure,
    SourceObservation,
    Unavailable,
)
from ntpaudit.core.policy import PROFILES, Profile
from ntpaudit.core.selection import select
from ntpaudit.probes.daemons import chronyd

S = 1_000_000_000
MS = 1_000_000
US = 1_000
HOUR = 3600 * S
DAY = 24 * HOUR
YEAR = 31_557_600 * S
"""Spans in nanoseconds."""

UNIX_TO_NTP_S = 2_208_988_800
NONCE = 0x0123_4567_89AB_CDEF
NOON = 1_792_584_000 * S
"""2026-10-21T12:00:00Z, an ordinary moment."""

ERA_1 = 2_085_978_496 * S
"""2036-02-07T06:28:16Z, when NTP's seconds start again from 0."""


def wire(unix_ns: int) -> int:
    """Write a point in time as a 64-bit NTP timestamp, by RFC 5905 §6."""
    return (unix_ns * 2**32 // 10**9 + UNIX_TO_NTP_S * 2**32) % 2**64


def packet(
    *,
    leap: int = 0,
    version: int = 4,
    mode: int = 4,
    stratum: int = 2,
    poll: int = 6,
    precision: int = -20,
    root_delay: int = 0x0200,
    root_dispersion: int = 0x0100,
    reference_id: bytes = b"\xc0\x00\x02\x01",
    reference: int = wire(NOON - 60 * S),
    origin: int = NONCE,
    received: int = wire(NOON),
    transmitted: int = wire(NOON + 20 * US),
    tail: bytes = b"",
) -> bytes:
    """Write a good reply to the request that carried `NONCE`, but for what is named."""
    first = leap << 6 | version << 3 | mode
    head = struct.pack("!BBbbII4s", first, stratum, poll, precision, root_delay, root_dispersion, reference_id)
    return head + struct.pack("!4Q", reference, origin, received, transmitted) + tail


def extension(length: int, *, kind: int = 0x7777, claimed: int | None = None) -> bytes:
    """Write an extension field of `length` octets in all; `claimed` is the length that it states instead."""
    return struct.pack("!HH", kind, length if claimed is None else claimed) + b"\x55" * (length - 4)


def reply(
    *,
    leap: int = 0,
    stratum: int = 2,
    precision: int = -20,
    root_delay: int = 0,
    root_dispersion: int = 0,
    reference_id: bytes = b"\xc0\x00\x02\x01",
    received: int = wire(NOON),
    transmitted: int = wire(NOON + 20 * US),
    warnings: tuple[str, ...] = (),
) -> Reply:
    """Make a reply that was read and found sound."""
    return Reply(
        leap=leap,
        stratum=stratum,
        poll=6,
        precision=precision,
        root_delay=root_delay,
        root_dispersion=root_dispersion,
        reference_id=reference_id,
        reference=wire(NOON - 60 * S),
        received=received,
        transmitted=transmitted,
        warnings=warnings,
    )


def reading(realtime_ns: int = NOON, *, uptime_ns: int = DAY, width_ns: int = 0, corrected_ns: int = 0) -> ClockReading:
    """Read clocks that have run for `uptime_ns`; `corrected_ns` of it the host's clock was slewed forward."""
    return ClockReading(
        realtime_ns=realtime_ns,
        monotonic_ns=uptime_ns + corrected_ns,
        raw_ns=uptime_ns,
        boottime_ns=uptime_ns + corrected_ns,
        width_ns=width_ns,
    )


def stamps(
    sent_ns: int, arrived_ns: int, *, stepped_ns: int = 0, slewed_ns: int = 0, widths_ns: tuple[int, int] = (1, 1)
) -> ExchangeTimestamps:
    """Stamp an exchange, with the clocks read at just those moments.

    Of the time that the host's clock says has passed, it was stepped by `stepped_ns` and slewed by `slewed_ns`.
    """
    elapsed = arrived_ns - sent_ns
    return ExchangeTimestamps(
        sent_ns=sent_ns,
        arrived_ns=arrived_ns,
        before=ClockReading(sent_ns, DAY, DAY, DAY, widths_ns[0]),
        after=ClockReading(
            realtime_ns=arrived_ns,
            monotonic_ns=DAY + elapsed - stepped_ns,
            raw_ns=DAY + elapsed - stepped_ns - slewed_ns,
            boottime_ns=DAY + elapsed - stepped_ns,
            width_ns=widths_ns[1],
        ),
        timestamping="kernel",
    )


TAKEN = reading()
"""The common instant of the audits below."""


def measurement(
    offset_ns: int = 0,
    half_width_ns: int = 10 * MS,
    *,
    earliest_ns: int | None = None,
    latest_ns: int | None = None,
    delay_ns: int = 20 * MS,
    after: ClockReading = TAKEN,
    said: Reply | None = None,
) -> Measurement:
    """Make a measurement that says the offset lies within `half_width_ns` of `offset_ns`, or between two ends."""
    return Measurement(
        reply=said or reply(),
        timestamps=ExchangeTimestamps(after.realtime_ns - delay_ns, after.realtime_ns, after, after, "kernel"),
        received_ns=after.realtime_ns + offset_ns,
        transmitted_ns=after.realtime_ns + offset_ns,
        offset_ns=offset_ns,
        delay_ns=delay_ns,
        interval=Interval(
            offset_ns - half_width_ns if earliest_ns is None else earliest_ns,
            offset_ns + half_width_ns if latest_ns is None else latest_ns,
        ),
    )


def answered(
    number: int,
    *outcome: Measurement,
    name: str | None = None,
    address: str | None = None,
    port: int = 123,
    discarded: dict[str, int] | None = None,
) -> SourceObservation:
    """Make a source of its own network that answered; without measurements, with one that is right within 10 ms.

    Its upstream is one of its own as well, unless a reply names another.
    """
    upstream = bytes((10, 0, 0, number))
    return SourceObservation(
        name or f"ntp{number}.example.net",
        address or f"192.0.{number}.1",
        port,
        tuple(
            sample
            if sample.reply.reference_id != b"\xc0\x00\x02\x01"
            else sample._replace(reply=sample.reply._replace(reference_id=upstream))
            for sample in outcome
        )
        or (measurement(said=reply(reference_id=upstream)),),
        discarded or {},
    )


def failed(number: int, status: Any = "unreachable", reason: str = "timeout", **named: Any) -> SourceObservation:
    """Make a source that gave no measurement."""
    return SourceObservation(
        named.get("name", f"ntp{number}.example.net"),
        f"192.0.{number}.1",
        123,
        SourceFailure(status, reason),
        named.get("discarded", {}),
    )


HOST = HostFacts(
    name="web1",
    machine_id="4d8a1a0e0c2f4ab2a1bd4c8d53a3f1f0",
    boot_id="0f4b7a5e-7a52-4b53-9a50-6a2f5c6a3b0e",
    timezone="Europe/Amsterdam",
    zone_offset_s=7200,
    rtc_local=False,
    clocksource="tsc",
    container=None,
)

SYNCHRONISED = KernelState(
    state=0, status=0x2001, offset_s=1e-6, frequency_ppm=-3.5, maxerror_s=0.01, esterror_s=0.0001, tai_s=37
)
UNSYNCHRONISED = KernelState(
    state=5, status=0x40, offset_s=0.0, frequency_ppm=0.0, maxerror_s=16.0, esterror_s=16.0, tai_s=0
)
CHRONYD = chronyd.KIND.daemon(811)
NTPD = Daemon("ntpd", 812)
FOUR = tuple(answered(number) for number in (1, 2, 3, 4))
"""Four independent sources that agree: nothing to find fault with."""


def observation(
    *sources: SourceObservation,
    host: HostFacts = HOST,
    taken: ClockReading = TAKEN,
    kernel: KernelState | Unavailable = SYNCHRONISED,
    daemons: tuple[Daemon, ...] | HiddenDaemons = (CHRONYD,),
) -> Observation:
    """See a host that is in order, but for what is named."""
    return Observation(host, taken, sources, kernel, daemons)


def case(*sources: SourceObservation, profile: Profile = PROFILES["log-integrity"], **seen: Any) -> AuditContext:
    """Make a finished case of a host that is in order, but for what is named."""
    seen_all = observation(*(sources or FOUR), **seen)
    return AuditContext(seen_all, select(seen_all.sources, seen_all.taken), profile)

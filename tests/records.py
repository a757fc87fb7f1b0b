"""Observations and records for the tests: sources as they would be seen, concluded by the real core.

`CASES` has one record for every outcome that an output must put into words.
"""

from collections.abc import Sequence
from typing import Literal

from hypothesis import strategies as st

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.ntp.measurement import ExchangeTimestamps, Measurement, measure
from ntpaudit.core.ntp.packet import Reply
from ntpaudit.core.ntp.time import encode
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
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES, Profile
from ntpaudit.core.record import Labels, Record, conclude
from ntpaudit.core.units import NS_PER_S
from ntpaudit.probes.daemons import chronyd, timesyncd

NOW_NS = 1_795_000_000 * NS_PER_S
"""2026-11-18T11:06:40Z, the host's own time in every case but that of the host which believes in 1970."""

DAY_S = 86_400.0

_RAW_NS = 10**12
_READ_WIDTH_NS = 80
_SERVED_NS = 20_000

SYNCHRONISED = KernelState(0, 0x2001, 0.000_012, 12.345, 0.031, 0.000_4, 37)
UNSYNCHRONISED = KernelState(5, 0x40, 0.0, 0.0, 16.0, 16.0, 0)
LABELS = Labels("0.1.0")
CHRONYD = chronyd.KIND.daemon(812)
TIMESYNCD = timesyncd.KIND.daemon(655)


def reading(realtime_ns: int, since_ns: int = 0) -> ClockReading:
    """Read all clocks of a host that has been up for long, this long after the beginning."""
    monotonic_ns = _RAW_NS + since_ns
    return ClockReading(realtime_ns + since_ns, monotonic_ns, monotonic_ns, 2 * _RAW_NS + since_ns, _READ_WIDTH_NS)


def seen(
    name: str,
    offset_s: float,
    *,
    address: str | None = None,
    port: int = 123,
    delay_s: float = 0.002,
    root_dispersion_s: float = 0.0015,
    stratum: int = 2,
    leap: int = 0,
    reference_id: bytes = b"\xc0\x00\x02\x01",
    warnings: tuple[str, ...] = (),
    host_ns: int = NOW_NS,
) -> SourceObservation:
    """Return a server that answered once, its clock so far ahead of the host's."""
    delay_ns = round(delay_s * NS_PER_S)
    served_ns = host_ns + round(offset_s * NS_PER_S) + delay_ns // 2
    reply = Reply(
        leap=leap,
        stratum=stratum,
        poll=6,
        precision=-24,
        root_delay=50,
        root_dispersion=round(root_dispersion_s * 65_536),
        reference_id=reference_id,
        reference=0,
        received=encode(served_ns),
        transmitted=encode(served_ns + _SERVED_NS),
        warnings=warnings,
    )
    arrived_ns = delay_ns + _SERVED_NS
    stamps = ExchangeTimestamps(host_ns, host_ns + arrived_ns, reading(host_ns), reading(host_ns, arrived_ns), "kernel")
    measured = measure(reply, stamps)
    assert isinstance(measured, Measurement), measured
    return SourceObservation(name, address or name, port, (measured,))


def failed(
    name: str,
    status: Literal["rejected", "unreachable", "skipped"],
    reason: str,
    address: str | None = "192.0.2.99",
) -> SourceObservation:
    """Return a server that gave no measurement."""
    return SourceObservation(name, address, 123, SourceFailure(status, reason))


def observation(
    *sources: SourceObservation,
    name: str = "web1",
    host_ns: int = NOW_NS,
    kernel: KernelState | Unavailable = SYNCHRONISED,
    daemons: tuple[Daemon, ...] | HiddenDaemons = (CHRONYD,),
) -> Observation:
    """Return what an audit of a well-kept host saw a second after its query, except the values that are given."""
    host = HostFacts(name, "4" * 32, "b" * 32, "UTC", 0, False, "tsc", None)
    return Observation(host, reading(host_ns, NS_PER_S), sources, kernel, daemons)


def record(
    *sources: SourceObservation,
    profile: Profile = PROFILES[DEFAULT_PROFILE],
    labels: Labels = LABELS,
    name: str = "web1",
    host_ns: int = NOW_NS,
    kernel: KernelState | Unavailable = SYNCHRONISED,
    daemons: tuple[Daemon, ...] | HiddenDaemons = (CHRONYD,),
) -> Record:
    """Conclude such an observation."""
    return conclude(observation(*sources, name=name, host_ns=host_ns, kernel=kernel, daemons=daemons), profile, labels)


def servers(
    offset_s: float,
    *,
    count: int = 4,
    root_dispersion_s: float = 0.0015,
    leap: int = 0,
    host_ns: int = NOW_NS,
) -> Sequence[SourceObservation]:
    """Return servers of different networks that agree but for some tenths of a millisecond."""
    return [
        seen(
            f"ntp{number}.example.net",
            offset_s + 0.0001 * (number - 2),
            address=f"192.0.{number}.1",
            delay_s=0.002 * number,
            root_dispersion_s=root_dispersion_s,
            leap=leap,
            reference_id=bytes([203, 0, 113, number]),
            host_ns=host_ns,
        )
        for number in range(1, count + 1)
    ]


def falseticker(offset_s: float = -37.0) -> SourceObservation:
    """Return a server that lies."""
    return seen("ntp9.example.net", offset_s, address="198.51.100.9", reference_id=b"\xc6\x33\x64\x01")


_EPOCH_NS = 42 * NS_PER_S
_LONG = "a-name-that-goes-on-and-on.with-every-label.longer-than-the-last-one.example.net"

CASES = {
    "ok, behind": record(*servers(0.0019)),
    "ok, ahead": record(*servers(-0.0123)),
    "ok, in nanoseconds": record(*servers(-0.000_000_1)),
    "ok, one silent": record(*servers(0.0019), failed("ntp5.example.net", "unreachable", "timeout")),
    "ok, leap second": record(*servers(0.0019, leap=1)),
    "ok, falseticker": record(*servers(0.0019), falseticker()),
    "ok, reference clocks": record(
        *(
            seen(f"192.0.{number}.1", 0.000_07, stratum=1, reference_id=clock, delay_s=0.0002, root_dispersion_s=2e-5)
            for number, clock in enumerate((b"GPS\0", b"PPS\0", b"DCF\0", b"GNSS"))
        )
    ),
    "ok, IPv6": record(
        *(
            seen(f"[2001:db8:{number}::1]:1123", 0.0019, address=f"2001:db8:{number}::1", port=1123)
            for number in range(4)
        )
    ),
    "ok, pool": record(
        *(source._replace(name=f"europe.pool.ntp.org/{slot}") for slot, source in enumerate(servers(0.0019)))
    ),
    "ok, warned": record(
        *servers(0.0019), seen("ntp5.example.net", 0.002, address="198.51.100.5", warnings=("sync-loop",))
    ),
    "ok, kernel not asked": record(
        *servers(0.0019), kernel=Unavailable("Function not implemented"), daemons=HiddenDaemons("no /proc")
    ),
    "over the warning tolerance": record(*servers(0.15)),
    "over the warning tolerance by its bound": record(
        *servers(0.0019, root_dispersion_s=0.06), profile=PROFILES["ops-strict"]
    ),
    "finding": record(*servers(0.0019), kernel=UNSYNCHRONISED, daemons=(TIMESYNCD,)),
    "findings": record(
        *servers(0.0019),
        failed("ntp5.example.net", "rejected", "kod:RATE"),
        kernel=UNSYNCHRONISED,
        daemons=(Daemon("ntpd", 901), Daemon("ntpd", 902)),  # `daemon-count` is listed under `unsynced`
    ),
    "one server": record(*servers(0.0019, count=1)),
    "one usable": record(
        *servers(0.0019, count=1),
        failed("ntp2.example.net", "unreachable", "timeout"),
        failed("ntp3.example.net", "rejected", "unsync"),
    ),
    "three servers, two agree": record(*servers(0.0019, count=2), falseticker()),
    "unproven, estimate within": record(*servers(0.4, root_dispersion_s=0.9)),
    "unproven, estimate beyond": record(*servers(-1.2, root_dispersion_s=0.5)),
    "beyond, ahead": record(*servers(-37.0, count=3), falseticker(0.0)),
    "beyond, behind": record(*servers(2700.0), kernel=UNSYNCHRONISED),
    "beyond, hours": record(*servers(7200.004), daemons=(CHRONYD, Daemon("ntpd", 901, disciplines=False))),
    "beyond, days": record(*servers(-12.5 * DAY_S)),
    "1970": record(*servers(1_794_999_958.0, host_ns=_EPOCH_NS), host_ns=_EPOCH_NS, kernel=UNSYNCHRONISED),
    "finra-cat, within": record(*servers(-0.004), profile=PROFILES["finra-cat"]),
    "mifid, unproven": record(*servers(-0.000_01), profile=PROFILES["mifid-100us"]),
    "no server": record(),
    "unmeasured, no reply": record(
        *(failed(f"ntp{number}.example.net", "unreachable", "timeout") for number in range(1, 5))
    ),
    "unmeasured, the only one silent": record(failed("ntp1.example.net", "unreachable", "refused")),
    "unmeasured, the only one unusable": record(failed("ntp1.example.net", "rejected", "unsync")),
    "unmeasured, the only name unknown": record(
        failed("ntp1.example.net", "unreachable", "name-unknown", address=None),
    ),
    "unmeasured, no name resolved": record(
        failed("ntp1.example.net", "unreachable", "name-timeout", address=None),
        failed("ntp2.example.net", "unreachable", "name-timeout", address=None),
    ),
    "unmeasured, mixed": record(
        failed("ntp1.example.net", "unreachable", "timeout"),
        failed("ntp2.example.net", "unreachable", "name-unknown", address=None),
        failed("ntp3.example.net", "unreachable", "timeout"),
    ),
    "unmeasured, unusable": record(
        failed("ntp1.example.net", "rejected", "kod:RATE"),
        failed("ntp2.example.net", "rejected", "unsync"),
        failed("ntp3.example.net", "unreachable", "timeout"),
        seen("ntp4.example.net", 0.1, address="192.0.2.4", root_dispersion_s=2.0),
    ),
    "unmeasured, no majority": record(*servers(0.0019, count=1), falseticker()),
    "unmeasured, no majority of the usable": record(
        *servers(0.0019, count=1), falseticker(), failed("ntp3.example.net", "unreachable", "timeout")
    ),
    "unmeasured, asked lately": record(
        *(failed(f"pool.ntp.org/{slot}", "skipped", "interval", f"192.0.2.{slot}") for slot in range(4))
    ),
    "unmeasured, backed off": record(
        failed("ntp1.example.net", "skipped", "kod:DENY"), failed("ntp2.example.net", "skipped", "unanswered")
    ),
    "unmeasured, two daemons": record(kernel=UNSYNCHRONISED, daemons=(CHRONYD, Daemon("ntpd", 901))),
    "every status": record(
        *servers(0.0019),
        seen("ntp5.example.net", 0.1, address="198.51.100.5", root_dispersion_s=2.0),
        falseticker(),
        failed("ntp6.example.net", "rejected", "root-distance-invalid"),
        failed("ntp7.example.net", "unreachable", "name-unknown", address=None),
        failed("ntp8.example.net", "skipped", "kod:RATE"),
    ),
    "long names": record(
        *(source._replace(name=f"{number}.{_LONG}") for number, source in enumerate(servers(0.0019))),
        falseticker()._replace(
            name=f"2001:db8:{'ffff:' * 5}ffff:{_LONG}", address="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
        ),
        failed(_LONG, "rejected", "root-distance-invalid"),
    ),
    "strange names": record(
        *(
            source._replace(name=name)
            for source, name in zip(
                servers(0.0019), ('a "b" c', "back\\slash\\", "new\nline|bar, a=b", "ü.example\x1b[2J"), strict=True
            )
        ),
        name="host name,x=1\udcff\\",
        labels=Labels("0.1.0", "c" * 64, "ams 1", "prod=blue"),
    ),
}


@st.composite
def _sources(draw: st.DrawFn, host_ns: int) -> SourceObservation:
    """Draw a source of any kind."""
    name = draw(st.text(min_size=1, max_size=60) | st.sampled_from(["ntp1", "2001:db8::1", "a b,c=d\\"]))
    if draw(st.booleans()):
        offset_s = draw(st.sampled_from([0.0, 1e-6, 0.002, 0.1, 1.0, 37.0, 3600.0, 1e9]))
        return seen(
            name,
            offset_s * draw(st.floats(-2, 2)),
            address=draw(st.none() | st.from_regex(r"192\.0\.[0-9]\.[1-9]", fullmatch=True)),
            delay_s=draw(st.floats(0, 2)),
            root_dispersion_s=draw(st.floats(0, 2)),
            stratum=draw(st.integers(1, 15)),
            leap=draw(st.integers(0, 2)),
            reference_id=draw(st.sampled_from([b"GPS\0", b"XYZ|", b"\0\0\0\0"]) | st.binary(min_size=4, max_size=4)),
            warnings=draw(st.sampled_from([(), ("sync-loop",)])),
            host_ns=host_ns,
        )
    reason = draw(st.sampled_from(["timeout", "kod:RATE", "kod:A|B", "unsync", "interval", "bogus"]))
    return failed(name, draw(st.sampled_from(["rejected", "unreachable", "skipped"])), reason, None)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Draw a record of any audit, by the real core."""
    host_ns = draw(st.sampled_from([NOW_NS, _EPOCH_NS, 300 * 366 * 86_400 * NS_PER_S + 1]))
    tolerance_s = draw(st.floats(1e-4, 100))
    profiles = st.sampled_from([*PROFILES.values(), Profile("own", tolerance_s / 3, tolerance_s, "bound")])
    kernels: st.SearchStrategy[KernelState | Unavailable] = st.sampled_from(
        [SYNCHRONISED, UNSYNCHRONISED, Unavailable("not permitted")]
    )
    daemons: st.SearchStrategy[tuple[Daemon, ...] | HiddenDaemons] = st.sampled_from(
        [
            (),
            (CHRONYD,),
            (CHRONYD, Daemon("ntpd", 901)),
            HiddenDaemons("no /proc"),
            HiddenDaemons("hidden", (Daemon("chronyd", 7, False, "lacks"),)),
        ]
    )
    return record(
        *draw(st.lists(_sources(host_ns), max_size=6)),
        profile=draw(profiles),
        labels=Labels("0.1.0", None, draw(st.none() | st.text(max_size=20)), draw(st.none() | st.just("prod"))),
        name=draw(st.text(max_size=30)),
        host_ns=host_ns,
        kernel=draw(kernels),
        daemons=draw(daemons),
    )

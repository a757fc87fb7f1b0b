"""A small fleet with one host for everything that a reader must get right, as points and as lines."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ntpaudit.core.acceptance import Accepted
from ntpaudit.core.clock.drift import Breach, Drift
from ntpaudit.core.events import Event
from ntpaudit.core.fleet.model import DaemonClaim, Host
from ntpaudit.core.observation import SourceObservation
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Labels, Record
from ntpaudit.core.units import NS_PER_S
from ntpaudit.fleet.demo_store import DemoStore
from ntpaudit.formats.line_protocol import points, render, stamp_lines
from tests.records import failed, record, seen, servers

END_NS = (time.time_ns() // NS_PER_S - 60) * NS_PER_S
"""Where every history ends; every database must hold it for the past."""

HOUR_S = 3600
HOSTILE = 'it\'s "x", y=z {a|b}.*\\ $(c) ü☃\u2028'
"""A name that no host should have."""

HOSTILE_KEPT = 'it\'s "x", y=z {a|b}.*/ $(c) ü☃ '
"""What is kept of it: a backslash cannot be escaped, and no line may be broken."""

HOSTILE_SITE = '\'; DROP "a"=~b'


class Audit(NamedTuple):
    """A record, what happened on its host, and when it arrived."""

    record: Record
    events: tuple[Event, ...]
    arrived_ns: int


def audits() -> Iterator[Audit]:
    """Yield every audit of the fleet; those of a host in the order of time."""
    for age_s in range(2 * HOUR_S + 10, 0, -120):
        yield _audit("web1", "ams", age_s, servers(0.0019, host_ns=_host_ns(age_s)), _WEB1, drift=_DRIFT, age=30.0)
        behind_s = 0.002 if age_s > 1800 else 0.062
        yield _audit("web2", "ams", age_s, servers(behind_s, host_ns=_host_ns(age_s)), _WEB2, drift=_DRIFT)
        yield _audit("db1", "fra", age_s, [*servers(-0.004, host_ns=_host_ns(age_s)), _falseticker(age_s)])
        yield _audit("db2", "fra", age_s, servers(0.003, host_ns=_host_ns(age_s)) if age_s > 600 else _SILENCE)
        yield _audit("placeless", None, age_s, servers(0.0005, host_ns=_host_ns(age_s)), env=None)
        strange = [*servers(-0.001, host_ns=_host_ns(age_s)), _falseticker(age_s, HOSTILE)]
        yield _audit(HOSTILE, HOSTILE_SITE, age_s, strange, _STRANGE)
        yield _audit("roamer", "ams" if age_s > HOUR_S else "fra", age_s, servers(0.001, host_ns=_host_ns(age_s)))
        earlier = [] if age_s <= 600 else [_falseticker(age_s, "ntp8.example.net")]
        yield _audit(
            "repaired", "fra", age_s, [*servers(0.001, host_ns=_host_ns(age_s)), *earlier, _falseticker(age_s)]
        )
        yield _audit("twin", "ams", age_s, servers(0.001, host_ns=_host_ns(age_s)))
        yield _audit("renamed", "ams" if age_s > 600 else "fra", age_s, servers(0.001, host_ns=_host_ns(age_s)))
        yield _audit(
            "relabelled", "fra", age_s, servers(0.001, host_ns=_host_ns(age_s)), env="x" if age_s > 60 else "y"
        )
    for age_s in range(2 * HOUR_S, 0, -290):
        yield _audit("twin", "fra", age_s, servers(2.5, host_ns=_host_ns(age_s)))
    for age_s in (4600, 30):
        for env, falsetickers in (("prod", [_falseticker(age_s)]), ("test", [])):
            yield _audit("tied", "fra", age_s, [*servers(0.001, host_ns=_host_ns(age_s)), *falsetickers], env=env)
    yield _audit("renamed", "ams", 5000, servers(0.001, host_ns=_host_ns(5000)), _BEFORE, always=True)
    yield _audit("renamed", "fra", 500, servers(0.001, host_ns=_host_ns(500)), _AFTER, always=True)
    for age_s in range(2 * HOUR_S, 0, -1000):
        yield _audit("seldom", "fra", age_s, servers(1.7, host_ns=_host_ns(age_s)))
    yield _audit("asleep", "ams", 3 * HOUR_S, servers(0.001, host_ns=_host_ns(3 * HOUR_S)))
    yield _audit("gone", "ams", 48 * HOUR_S, servers(0.001, host_ns=_host_ns(48 * HOUR_S)))


def lines() -> str:
    """Return all as a database gets it."""
    return "".join(stamp_lines(render(audit.record, audit.events), audit.arrived_ns) for audit in audits())


def keep(path: str) -> None:
    """Write all as a demonstration."""
    with DemoStore(path) as store:
        for audit in audits():
            store.write(points(audit.record, audit.events), audit.arrived_ns)
        store.finish(END_NS)


def _audit(
    name: str,
    site: str | None,
    age_s: int,
    sources: Sequence[SourceObservation],
    events: tuple[Event, ...] = (),
    *,
    env: str | None = "prod",
    drift: Drift | None = None,
    age: float = 0.0,
    always: bool = False,
) -> Audit:
    """Return an audit at this age before the end; its events are delivered with the last, unless `always`."""
    concluded = record(*sources, name=name, labels=Labels("0.1.0", None, site, env), host_ns=_host_ns(age_s))
    audited = concluded._replace(drift=drift, age_s=age if concluded.offset else None)
    return Audit(audited, events if always or age_s < 120 else (), _host_ns(age_s))


def _event(kind: str, age_s: int, *, raised: bool = True, value_s: float | None = None) -> Event:
    """Return what began or ended at this age before the end."""
    stamp_ns = _host_ns(age_s)
    return Event(kind, raised, Severity.WARNING, "high", "so it is", stamp_ns, stamp_ns, stamp_ns, value_s)


def _host_ns(age_s: int) -> int:
    """Return what a good clock showed at this age before the end; no audit is at a whole millisecond."""
    return END_NS - age_s * NS_PER_S + 123_456


def _falseticker(age_s: int, name: str = "ntp9.example.net") -> SourceObservation:
    """Return a falseticker."""
    return seen(name, -37.0, address="198.51.100.9", reference_id=b"\xc6\x33\x64\x01", host_ns=_host_ns(age_s))


_SILENCE = [failed(f"ntp{number}.example.net", "unreachable", "timeout") for number in range(1, 5)]
_DRIFT = Drift(12.25, -3.5, 0.75, 20, Breach(None, None, None, 20_000.0, free_running=False, calibrated=True))
_WEB1 = (
    _event("step-forward", 7000, value_s=2.0),
    _event("unsynced", 5000),
    _event("unsynced", 4000, raised=False),
    _event("step-back", 1800, value_s=-0.5),
)
_ACCEPTED = Accepted("container", "ops", "2199-01-01T00:00:00.000000000Z")
_WEB2 = (
    _event("offset-out", 1800, value_s=0.06),
    _event("daemon-count", 1500),
    _event("daemon-count", 1200).accept(_ACCEPTED),
    _event("kiss-of-death", 900).accept(_ACCEPTED),
    _event("kiss-of-death", 600),
)
_STRANGE = (
    _event("breach-forecast", 6000, value_s=300.0),
    _event("breach-forecast", 5500, raised=False),
    _event("breach-forecast", 3000),
)
_BEFORE = (_event("unsynced", 5000), _event("common-name", 5000), _event("in-force", 5000, value_s=0.25))
"""Raised before the host was given another site."""

_AFTER = (_event("unsynced", 500, raised=False), _event("common-name", 500, raised=False))


def without_texts(host: Host) -> Host:
    """Take from a host what VictoriaMetrics has no field for: the texts of its time daemon."""
    known = host.daemon and host.daemon._replace(name=None, follows=None)
    return host._replace(daemon=None if known == DaemonClaim() else known)

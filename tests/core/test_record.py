"""What one audit saw and concluded, and to and from JSON."""

import json
from math import isfinite
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.clock.drift import Breach, Drift
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.observation import (
    Claim,
    ClaimedSource,
    Daemon,
    HiddenDaemons,
    HostFacts,
    KernelState,
    Observation,
    SourceFailure,
    SourceObservation,
    TimeUnit,
    Unavailable,
)
from ntpaudit.core.policy import PROFILES, Profile, Severity
from ntpaudit.core.record import AuditKind, Health, Labels, Record, conclude, reference_id_text, write_record
from ntpaudit.core.selection import SourceCounts, select
from tests.core.worlds import (
    CHRONYD,
    DAY,
    ERA_1,
    FOUR,
    MS,
    NOON,
    NTPD,
    SYNCHRONISED,
    UNSYNCHRONISED,
    YEAR,
    S,
    answered,
    case,
    failed,
    measurement,
    observation,
    reading,
    reply,
)

LABELS = Labels("1.0", "ab" * 32, "ams", "prod")
DEFAULT = PROFILES["log-integrity"]

SHAPE: dict[str, Any] = {
    "schema": None,
    "software": {"version", "config_sha256"},
    "host": {"name", "site", "env", "machine_id", "boot_id"},
    "time": {"utc", "host", "boottime_ns"},
    "kind": None,
    "age_s": None,
    "severity": None,
    "confirmed": None,
    "verdict": None,
    "profile": {"name", "warning_s", "critical_s", "judged_on"},
    "offset": {"estimate_s", "earliest_s", "latest_s", "bound_s", "direction", "max_drift_ppm"},
    "agreement": {"sources", "usable", "agreeing", "max_falsetickers", "asked", "guaranteed"},
    "drift": None,
    "sources": None,
    "kernel": None,
    "daemons": None,
    "daemons_hidden": None,
    "time_units": None,
    "time_config": None,
    "audit": None,
    "cross_check": {
        "daemon",
        "daemon_offset_s",
        "daemon_bound_s",
        "daemon_excess_s",
        "kernel_bound_s",
        "kernel_excess_s",
    },
    "host_clock": None,
    "findings": None,
    "agent": {"missed", "backlog", "oldest_s", "failures", "failure", "set_aside", "store", "refusals", "local_s"},
    "database_clock": {"earliest_s", "latest_s", "age_s", "disputed_s"},
    "chain": {"sequence", "head"},
    "last_poll": {"age_s", "sources", "usable", "agreeing"},
}
SOURCE_SHAPE = {
    "name", "address", "port", "status", "reason", "offset_s", "earliest_s", "latest_s", "delay_s", "root_delay_s",
    "root_dispersion_s", "root_distance_s", "stratum", "leap", "reference_id", "precision_s", "timestamping",
    "authenticated",
}  # fmt: skip
DRIFT_SHAPE = {"frequency_ppm", "raw_frequency_ppm", "skew_ppm", "samples", "span_s", "breach"}
BREACH_SHAPE = {"pessimistic_s", "central_s", "optimistic_s", "guaranteed_s", "free_running", "calibrated"}
FINDING_SHAPE = {"id", "severity", "level", "message", "remedy", "controls", "numbers", "cause", "accepted"}
STATUSES = {"agreeing", "falseticker", "distant", "rejected", "unreachable", "skipped"}


def strictly(value: Any) -> str:
    """Write JSON, and fail where it would be none."""
    return json.dumps(value, allow_nan=False)


# --- the contract -------------------------------------------------------------------------------------------------


def test_the_record_is_what_the_contract_says() -> None:
    """Every value of an ordinary record, as ARCHITECTURE has its keys."""
    said = reply(root_delay=0x8000, root_dispersion=0x4000, precision=-10, reference_id=b"GPS\0", stratum=1)
    one = measurement(25 * MS, 10 * MS, delay_ns=18 * MS, said=said)
    other = measurement(25 * MS, 10 * MS, said=said)
    sources = [SourceObservation(f"ntp{n}", f"198.51.{n}.7", 123, (one if n == 1 else other,)) for n in (1, 2, 3, 4)]
    chronyd = CHRONYD._replace(unit="chrony.service", enabled="enabled")
    seen = observation(*sources, failed(5), daemons=(chronyd,))
    kernel = SYNCHRONISED._replace(maxerror_s=0.02)
    seen = seen._replace(kernel=kernel, units=(TimeUnit("chrony.service", "enabled", running=True),))
    assert conclude(seen, DEFAULT, LABELS).to_dict() == {
        "schema": "ntpaudit.record/1",
        "software": {"version": "1.0", "config_sha256": "ab" * 32},
        "host": {
            "name": "web1",
            "site": "ams",
            "env": "prod",
            "machine_id": "4d8a1a0e0c2f4ab2a1bd4c8d53a3f1f0",
            "boot_id": "0f4b7a5e-7a52-4b53-9a50-6a2f5c6a3b0e",
        },
        "time": {
            "utc": "2026-10-21T12:00:00.025000000Z",
            "host": "2026-10-21T12:00:00.000000000Z",
            "boottime_ns": DAY,
        },
        "kind": "network",
        "age_s": 0.0,
        "severity": "ok",
        "confirmed": True,
        "verdict": "within",
        "profile": {"name": "log-integrity", "warning_s": 0.1, "critical_s": 1.0, "judged_on": "offset"},
        "offset": {
            "estimate_s": 0.025,
            "earliest_s": 0.015,
            "latest_s": 0.035,
            "bound_s": 0.035,
            "direction": "behind",
            "max_drift_ppm": 50.0,
        },
        "agreement": {
            "sources": 5,
            "usable": 4,
            "agreeing": 4,
            "max_falsetickers": 1,
            "asked": 5,
            "guaranteed": True,
        },
        "drift": None,
        "sources": [
            {
                "name": f"ntp{n}",
                "address": f"198.51.{n}.7",
                "port": 123,
                "status": "agreeing",
                "reason": None,
                "offset_s": 0.025,
                "earliest_s": 0.015,
                "latest_s": 0.035,
                "delay_s": 0.018 if n == 1 else 0.02,
                "root_delay_s": 0.5,
                "root_dispersion_s": 0.25,
                "root_distance_s": 0.01,
                "stratum": 1,
                "leap": 0,
                "reference_id": "GPS",
                "precision_s": 2**-10,
                "timestamping": "kernel",
                "authenticated": False,
            }
            for n in (1, 2, 3, 4)
        ]
        + [
            {
                "name": "ntp5.example.net",
                "address": "192.0.5.1",
                "port": 123,
                "status": "unreachable",
                "reason": "timeout",
                "authenticated": False,
            }
            | dict.fromkeys(SOURCE_SHAPE - {"name", "address", "port", "status", "reason", "authenticated"})
        ],
        "kernel": {
            "available": True,
            "synchronised": True,
            "state": 0,
            "status": 0x2001,
            "offset_s": 1e-6,
            "frequency_ppm": -3.5,
            "maxerror_s": 0.02,
            "esterror_s": 0.0001,
            "tai_s": 37,
        },
        "daemons": [
            {
                "name": "chronyd",
                "pid": 811,
                "disciplines": True,
                "reason": None,
                "unit": "chrony.service",
                "claim": None,
                "enabled": "enabled",
                "configuration": None,
            }
        ],
        "daemons_hidden": None,
        "time_units": [{"name": "chrony.service", "enabled": "enabled", "running": True}],
        "time_config": None,
        "audit": None,
        "cross_check": {
            "daemon": "chronyd",
            "daemon_offset_s": None,
            "daemon_bound_s": None,
            "daemon_excess_s": None,
            "kernel_bound_s": 0.02,
            "kernel_excess_s": 0.0,
        },
        "host_clock": {
            "timezone": "Europe/Amsterdam",
            "zone_offset_s": 7200,
            "rtc_local": False,
            "clocksource": "tsc",
            "container": None,
        },
        "findings": [
            {
                "id": "unreachable-sources",
                "severity": "ok",
                "level": "low",
                "message": "1 of 5 servers did not reply: ntp5.example.net (timeout)",
                "remedy": (
                    "check that these servers run, and routes and firewalls (UDP 123 in both directions); remove "
                    "servers that no longer exist"
                ),
                "controls": ["PCI DSS 10.6.2", "CIS Controls 8.4"],
                "numbers": {"unreachable_servers": 1, "servers": 5},
                "cause": None,
                "accepted": None,
            }
        ],
        "agent": None,
        "database_clock": None,
        "chain": None,
        "last_poll": {"age_s": 0.0, "sources": 5, "usable": 4, "agreeing": 4},
    }


@pytest.mark.parametrize(("kernel_ppm", "assumed_ppm", "worst_ppm"), [(-3.5, 50, 50), (-80.0, 50, 95), (0.0, 200, 200)])
def test_the_assumption_stands_where_the_bound_stands(kernel_ppm: float, assumed_ppm: float, worst_ppm: float) -> None:
    """The record names the oscillator's largest error that its interval allows for (R4)."""
    seen = observation(*FOUR, taken=reading(NOON, uptime_ns=DAY + 100 * S))
    seen = seen._replace(kernel=SYNCHRONISED._replace(frequency_ppm=kernel_ppm))
    offset = conclude(seen, DEFAULT, LABELS, assumed_ppm).offset
    assert offset is not None
    assert offset.max_drift_ppm == worst_ppm
    assert offset.latest_s - offset.earliest_s == pytest.approx(0.02 + 2 * 100 * worst_ppm * 1e-6)


def test_what_an_agent_adds() -> None:
    """A local audit has no sources and the counts of the audit it carries on; drift and health are recorded."""
    breach = Breach(1000.0, 2000.0, None, 500.0, True, False)
    drift = Drift(-0.5, 3.0, 0.25, 17, breach, 4800.0)
    health = Health(2, 30, 12.5, 4, "Connection refused", 1, "the disk is full")
    seen = case()._replace(counts=SourceCounts(5, 4, 3, 1, asked=4))
    record = write_record(
        seen, LABELS, (), Severity.OK, kind="local", age_s=60.5, drift=drift, health=health, confirmed=False
    )
    data = json.loads(strictly(record.to_dict()))
    assert (data["kind"], data["age_s"], data["confirmed"], data["sources"]) == ("local", 60.5, False, [])
    assert data["agreement"] == {
        "sources": 5,
        "usable": 4,
        "agreeing": 3,
        "max_falsetickers": 1,
        "asked": 4,
        "guaranteed": True,
    }
    assert data["drift"] == {
        "frequency_ppm": -0.5,
        "raw_frequency_ppm": 3.0,
        "skew_ppm": 0.25,
        "samples": 17,
        "span_s": 4800.0,
        "breach": {
            "pessimistic_s": 1000.0,
            "central_s": 2000.0,
            "optimistic_s": None,
            "guaranteed_s": 500.0,
            "free_running": True,
            "calibrated": False,
        },
    }
    assert data["agent"] == {
        "missed": 2,
        "backlog": 30,
        "oldest_s": 12.5,
        "failures": 4,
        "failure": "Connection refused",
        "set_aside": 1,
        "store": "the disk is full",
        "refusals": 0,
        "local_s": None,
    }
    assert Record.from_dict(data) == record


def test_what_is_unmeasured_has_no_age() -> None:
    """There is no measurement whose age could be given, in a check as in an agent's record."""
    assert conclude(observation(failed(1)), DEFAULT, LABELS).age_s is None
    assert write_record(case(failed(1)), LABELS, (), Severity.UNKNOWN, age_s=60.0).age_s is None


def test_a_host_without_readable_facts() -> None:
    """What could not be asked is said so: no kernel but its reason, no daemons, no place."""
    seen = observation(kernel=Unavailable("not permitted"), daemons=HiddenDaemons("hidden"))
    data = conclude(seen, DEFAULT, Labels("1.0")).to_dict()
    assert data["kernel"] == {"available": False, "reason": "not permitted"}
    assert (data["daemons"], data["daemons_hidden"]) == ([], "hidden")
    assert (data["host"]["site"], data["host"]["env"], data["software"]["config_sha256"]) == (None, None, None)


def test_visible_daemons_are_recorded_though_others_may_be_hidden() -> None:
    """That some cannot be seen takes nothing from those that can."""
    serves = Daemon("chronyd", 7, disciplines=False, reason="started with -x")
    hidden = conclude(observation(daemons=HiddenDaemons("hidden here", (serves,))), DEFAULT, LABELS)
    data = hidden.to_dict()
    said = {
        "name": "chronyd",
        "pid": 7,
        "disciplines": False,
        "reason": "started with -x",
        "unit": None,
        "enabled": None,
        "claim": None,
        "configuration": None,
    }
    assert (data["daemons"], data["daemons_hidden"]) == ([said], "hidden here")
    assert Record.from_dict(data) == hidden
    assert conclude(observation(daemons=(serves,)), DEFAULT, LABELS).to_dict()["daemons_hidden"] is None


def test_a_kernel_that_is_not_synchronised() -> None:
    """The kernel's own estimate is recorded beside its bits."""
    assert conclude(observation(kernel=UNSYNCHRONISED), DEFAULT, LABELS).to_dict()["kernel"]["synchronised"] is False


UNMEASURED = [
    pytest.param((), id="no server queried"),
    pytest.param((failed(1),), id="no reply"),
    pytest.param((failed(1, "skipped", "interval"),), id="no server due"),
    pytest.param((failed(1, "rejected", "kod:DENY"),), id="denied"),
    pytest.param((answered(1, measurement(0, 2 * S)),), id="only distant"),
    pytest.param((answered(1), answered(2, measurement(S))), id="no majority"),
    pytest.param((answered(1, measurement(0), measurement(S)),), id="inconsistent"),
]


@pytest.mark.parametrize("sources", UNMEASURED)
@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_not_having_measured_is_never_ok(sources: tuple[SourceObservation, ...], profile: Profile) -> None:
    """Without a majority the record is unmeasured and unknown at least, and has neither a true time nor an offset."""
    record = conclude(observation(*sources), profile, LABELS)
    data = record.to_dict()
    assert (data["verdict"], data["severity"]) == ("unmeasured", "unknown")
    assert (data["time"]["utc"], data["offset"]) == (None, None)
    assert data["time"]["host"] == "2026-10-21T12:00:00.000000000Z"
    assert data["agreement"]["agreeing"] == data["agreement"]["max_falsetickers"] == 0


@pytest.mark.parametrize(
    ("offset", "half_width", "verdict", "severity", "direction"),
    [
        (50 * MS, 10 * MS, "within", "ok", "behind"),
        (-50 * MS, 10 * MS, "within", "ok", "ahead"),
        (150 * MS, 10 * MS, "within", "warning", "behind"),
        (-S, 10 * MS, "unproven", "warning", "ahead"),
        (2 * S, 10 * MS, "beyond", "critical", "behind"),
        (-70 * YEAR, 10 * MS, "beyond", "critical", "ahead"),
    ],
)
def test_conclusions(offset: int, half_width: int, verdict: str, severity: str, direction: str) -> None:
    """Verdict, severity, corrected time and direction follow from the offset (ARCHITECTURE, Judging)."""
    taken = reading(NOON - offset)
    sources = [answered(n, measurement(offset, half_width, after=taken)) for n in (1, 2, 3, 4)]
    record = conclude(observation(*sources, taken=taken), DEFAULT, LABELS)
    assert (record.verdict, record.severity.word) == (verdict, severity)
    assert (record.utc_ns, record.host_ns) == (NOON, NOON - offset)
    assert record.offset is not None
    assert record.offset.direction == direction
    assert record.offset.estimate_s == offset / S


@pytest.mark.parametrize(
    ("daemons", "sources", "severity"),
    [
        ((CHRONYD,), FOUR, Severity.OK),
        ((CHRONYD,), FOUR[:3], Severity.OK),  # a low finding is listed and not counted
        ((CHRONYD,), FOUR[:1], Severity.WARNING),
        ((CHRONYD, NTPD), FOUR, Severity.WARNING),
        ((CHRONYD, NTPD), (*FOUR, failed(5)), Severity.WARNING),  # one that counts beside one that does not
        ((CHRONYD, NTPD), (failed(1),), Severity.UNKNOWN),
        ((CHRONYD, NTPD), tuple(answered(n, measurement(9 * S)) for n in (1, 2, 3, 4)), Severity.CRITICAL),
    ],
)
def test_the_worst_counts(
    daemons: tuple[Daemon, ...], sources: tuple[SourceObservation, ...], severity: Severity
) -> None:
    """The severity is the worst of the offset's own and the findings'."""
    assert conclude(observation(*sources, daemons=daemons), DEFAULT, LABELS).severity is severity


@pytest.mark.parametrize(
    ("sources", "votes"),
    [
        ((*FOUR, failed(5), failed(6, "skipped", "interval")), (6, 4, 4, 1)),
        ((*FOUR[:3], answered(4, measurement(S))), (4, 4, 3, 1)),
        ((*FOUR, answered(5, measurement(0, 3 * S))), (5, 4, 4, 1)),
        ((answered(1), answered(2, measurement(S))), (2, 2, 0, 0)),
        ((answered(1),), (1, 1, 1, 0)),
        ((answered(1), failed(2), failed(3), failed(4)), (4, 1, 1, 0)),
        ((*FOUR[:3], failed(4)), (4, 3, 3, 1)),
    ],
)
def test_votes_are_counted(sources: tuple[SourceObservation, ...], votes: tuple[int, int, int, int]) -> None:
    """Configured, able to vote, agreeing, and how many may lie."""
    agreement = conclude(observation(*sources), DEFAULT, LABELS).agreement
    assert (agreement.sources, agreement.usable, agreement.agreeing, agreement.max_falsetickers) == votes


@pytest.mark.parametrize("offset", [0, 200 * MS, 2 * S, 3600 * S])
@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_too_few_replies_are_unproven(offset: int, profile: Profile) -> None:
    """As few usable replies as may be lies prove neither within nor beyond, and `source-quorum` says so (R1)."""
    record = conclude(observation(answered(1, measurement(offset)), *map(failed, (2, 3, 4))), profile, LABELS)
    assert (record.verdict, record.severity) == ("unproven", Severity.WARNING)
    assert not record.agreement.guaranteed
    counted = {finding.id for finding in record.findings if finding.severity > Severity.OK}
    assert counted == {"source-quorum", "unreachable-sources"}


def test_a_source_is_recorded_at_the_common_instant() -> None:
    """A source's offset and interval are those when the record was taken; its root distance is that of the exchange."""
    now = reading(NOON + 10 * S + S, uptime_ns=DAY + 10 * S)  # meanwhile the clock was set forward by 1 s
    record = conclude(observation(answered(1, measurement(S, 5 * MS)), taken=now), DEFAULT, LABELS)
    (source,) = record.sources
    assert (source.offset_s, source.earliest_s, source.latest_s) == (0.0, -0.0055, 0.0055)
    assert source.root_distance_s == 0.005
    assert record.utc_ns == now.realtime_ns


def test_an_inconsistent_source_says_no_offset() -> None:
    """A source whose samples contradict each other has its status and its reason, and no numbers that mean anything."""
    (source,) = conclude(observation(answered(1, measurement(0), measurement(S))), DEFAULT, LABELS).sources
    assert (source.status, source.reason) == ("rejected", "inconsistent")
    assert (source.offset_s, source.earliest_s, source.latest_s) == (None, None, None)


@pytest.mark.parametrize(
    ("reference_id", "stratum", "text"),
    [
        (b"GPS\0", 1, "GPS"),
        (b"PPS\0", 1, "PPS"),
        (b"GOES", 1, "GOES"),
        (b"\xc0\0\x02\x01", 2, "192.0.2.1"),
        (b"!~\0\0", 1, "!~"),
        (b"\x7fGPS", 1, "127.71.80.83"),
        (b"GOES", 2, "71.79.69.83"),
        (b"\x7f\x7f\x01\x00", 3, "127.127.1.0"),
        (bytes(4), 1, "0.0.0.0"),
        (b"\x1b[2J", 1, "27.91.50.74"),
        (b"A\0B\0", 1, "65.0.66.0"),
        (b"A B\0", 1, "65.32.66.0"),
    ],
)
def test_reference_ids_are_safe_to_print(reference_id: bytes, stratum: int, text: str) -> None:
    """Characters that name a clock at stratum 1, else a dotted address: no terminal control (RFC 5905 §7.3)."""
    assert reference_id_text(reference_id, stratum) == text


# --- there and back -----------------------------------------------------------------------------------------------


def test_another_schema_is_refused() -> None:
    """A record of another schema, or of none, is not read."""
    data = conclude(observation(*FOUR), DEFAULT, LABELS).to_dict()
    for schema in ("ntpaudit.record/2", "", None):
        with pytest.raises(ValueError, match="not a record of schema"):
            Record.from_dict(data | {"schema": schema})
    with pytest.raises(ValueError, match="not a record of schema"):
        Record.from_dict({})


LATER_KEYS = {"time_units", "time_config", "audit", "cross_check", "chain"}


@pytest.mark.parametrize("key", sorted(SHAPE.keys() - {"schema", *LATER_KEYS}))
def test_a_missing_key_is_an_error(key: str) -> None:
    """A record without one of its keys is refused by the key's name."""
    data = conclude(observation(*FOUR), DEFAULT, LABELS).to_dict()
    del data[key]
    with pytest.raises(KeyError, match=key):
        Record.from_dict(data)


def test_keys_of_later_versions_are_passed_over() -> None:
    """What a later version adds, in any table, does not keep us from reading a record."""
    record = conclude(observation(*FOUR, failed(5)), DEFAULT, LABELS)
    drift = Drift(None, None, 2000.0, 1, Breach(None, None, None, 0.0, False, False))
    record = record._replace(drift=drift, health=Health())
    data = json.loads(strictly(record.to_dict()))
    tables = ("software", "host", "time", "profile", "offset", "agreement", "drift", "agent")
    for table in (data, data["drift"]["breach"], *(data[name] for name in tables)):
        table["added"] = 1
    for entry in (*data["sources"], *data["findings"]):
        entry["added"] = {"more": []}
    assert Record.from_dict(data) == record


TEXTS = st.text(max_size=8)
LABEL_TEXTS = st.none() | TEXTS
SPANS = st.integers(0, 2 * S)
REPLIES = st.builds(
    reply,
    leap=st.integers(0, 2),
    stratum=st.integers(1, 15),
    precision=st.integers(-128, 127),
    root_delay=st.integers(0, 2**32 - 1),
    root_dispersion=st.integers(0, 2**32 - 1),
    reference_id=st.binary(min_size=4, max_size=4),
    warnings=st.sampled_from([(), ("reftime-future",), ("reftime-future", "sync-loop")]),
)
OFFSETS = st.sampled_from([0, 0, 0, 3 * MS, -S, 70 * YEAR])


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    """Make any observation: some sources that replied and some that did not, a host with many or few facts."""
    taken = ClockReading(
        draw(st.integers(0, ERA_1 + 100 * YEAR)), draw(SPANS), draw(SPANS), draw(st.integers(0, YEAR)), draw(SPANS)
    )
    sources = []
    for number in range(draw(st.integers(0, 5))):
        outcome: Any
        if draw(st.booleans()):
            offset = draw(OFFSETS) + NOON - taken.realtime_ns
            samples = draw(st.lists(st.tuples(st.integers(-MS, MS), SPANS, SPANS, REPLIES), min_size=1, max_size=3))
            outcome = tuple(
                measurement(offset + jitter, half, delay_ns=delay, after=taken, said=said)
                for jitter, half, delay, said in samples
            )
        else:
            reason = draw(st.sampled_from(["kod:DENY", "timeout", "bogus", "interval"]))
            outcome = draw(
                st.sampled_from(
                    [
                        SourceFailure("rejected", reason),
                        SourceFailure("unreachable", reason),
                        SourceFailure("skipped", reason),
                    ]
                )
            )
        discarded = draw(st.dictionaries(st.sampled_from(["bogus", "duplicate"]), st.integers(1, 99)))
        address = draw(st.sampled_from([None, f"192.0.{number}.1", "192.0.2.9", "2001:db8::1", "127.0.0.1"]))
        if address is None and isinstance(outcome, tuple) and not isinstance(outcome, SourceFailure):
            address = "198.51.100.1"
        sources.append(SourceObservation(draw(TEXTS), address, draw(st.integers(1, 65_535)), outcome, discarded))
    floats = st.floats(allow_nan=False, allow_infinity=False)
    kernel = st.builds(
        KernelState, st.integers(0, 5), st.integers(0, 0xFFFF), floats, floats, floats, floats, st.integers(0, 40)
    )
    host = st.builds(
        HostFacts, TEXTS, LABEL_TEXTS, LABEL_TEXTS, LABEL_TEXTS, st.integers(-50_400, 50_400),
        st.none() | st.booleans(), LABEL_TEXTS, LABEL_TEXTS,
    )  # fmt: skip
    reasons = st.none() | TEXTS
    maybe = st.none() | floats
    users = st.sampled_from([None, "nts", "key", "none"])
    served = st.builds(ClaimedSource, TEXTS, reasons, st.none() | st.booleans(), users, st.none(), maybe, maybe)
    claim = st.builds(
        Claim, st.integers(0, 2**62), st.none() | st.booleans(), reasons, maybe, maybe, maybe, maybe, st.none(),
        st.none(), users, st.lists(served, max_size=2).map(tuple),
    )  # fmt: skip
    unread = st.builds(Unavailable, TEXTS, reasons)
    states = st.sampled_from([None, "enabled", "disabled", "masked", "static"])
    daemon = st.builds(
        Daemon, TEXTS, st.integers(0, 2**22), st.none() | st.booleans(), reasons, st.just(True), st.just(1024.0),
        reasons, st.none() | unread | claim, states,
    )  # fmt: skip
    seen = st.lists(daemon, max_size=3).map(tuple)
    return Observation(
        draw(host),
        taken,
        tuple(sources),
        draw(kernel | st.builds(Unavailable, TEXTS)),
        draw(seen | st.builds(HiddenDaemons, TEXTS, seen)),
        draw(st.lists(st.builds(TimeUnit, TEXTS, states, st.none() | st.booleans()), max_size=2).map(tuple)),
    )


LABELLED = st.builds(Labels, TEXTS, LABEL_TEXTS, LABEL_TEXTS, LABEL_TEXTS)
NUMBERS = st.floats(-1e9, 1e9)
MAYBE = st.none() | NUMBERS
DRIFTS = st.builds(
    Drift,
    MAYBE,
    MAYBE,
    NUMBERS,
    st.integers(0, 64),
    st.builds(Breach, MAYBE, MAYBE, MAYBE, NUMBERS, st.booleans(), st.booleans()),
    NUMBERS,
)
COUNTS = st.integers(0, 2**40)
HEALTHS = st.builds(Health, COUNTS, COUNTS, MAYBE, COUNTS, LABEL_TEXTS, COUNTS, LABEL_TEXTS, COUNTS, MAYBE)


@given(
    observations(),
    st.sampled_from(sorted(PROFILES)),
    st.sampled_from(["network", "local"]),
    MAYBE,
    st.none() | DRIFTS,
    st.none() | HEALTHS,
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_every_agent_s_record_comes_back_from_json(
    seen: Observation,
    profile: str,
    kind: AuditKind,
    age_s: float | None,
    drift: Drift | None,
    health: Health | None,
    confirmed: bool,
) -> None:
    """What an agent adds to a record is JSON and comes back as it was, with the keys of the contract and no others."""
    of = AuditContext(seen, select(seen.sources, seen.taken), PROFILES[profile])
    record = write_record(
        of, LABELS, (), Severity.OK, kind=kind, age_s=age_s, drift=drift, health=health, confirmed=confirmed
    )
    data = json.loads(strictly(record.to_dict()))
    assert Record.from_dict(data) == record
    assert data["agent"] is None or data["agent"].keys() == SHAPE["agent"]
    assert data["drift"] is None or (data["drift"].keys(), data["drift"]["breach"].keys()) == (
        DRIFT_SHAPE,
        BREACH_SHAPE,
    )
    assert len(data["sources"]) == (len(seen.sources) if kind == "network" else 0)


@given(observations(), st.sampled_from(sorted(PROFILES)), LABELLED)
@settings(max_examples=200, deadline=None)
def test_every_record_comes_back_from_json(seen: Observation, profile: str, labels: Labels) -> None:
    """Whatever was seen, the record written as JSON and read again is the same record."""
    record = conclude(seen, PROFILES[profile], labels)
    back = Record.from_dict(json.loads(strictly(record.to_dict())))
    assert back == record
    assert strictly(back.to_dict()) == strictly(record.to_dict())
    assert back.severity is record.severity
    for one in (back.host, back.profile, back.agreement, *back.sources, *back.findings):
        assert hasattr(one, "_fields")


@given(observations(), st.sampled_from(sorted(PROFILES)), LABELLED)
@settings(max_examples=200, deadline=None)
def test_every_record_keeps_the_contract(seen: Observation, profile: str, labels: Labels) -> None:
    """Whatever was seen: these keys and no others, one status of six for each source in order, and nothing but JSON."""
    data = json.loads(strictly(conclude(seen, PROFILES[profile], labels).to_dict()))
    assert data.keys() == SHAPE.keys()
    assert (data["kind"], data["confirmed"]) == ("network", True)
    assert data["age_s"] == (None if data["offset"] is None else 0.0)
    for table, keys in SHAPE.items():
        if keys is not None and data[table] is not None:
            assert data[table].keys() == keys, table
    assert [source["name"] for source in data["sources"]] == [source.name for source in seen.sources]
    for source in data["sources"]:
        assert source.keys() == SOURCE_SHAPE
        assert source["status"] in STATUSES
        if source["offset_s"] is not None:
            assert source["earliest_s"] <= source["offset_s"] <= source["latest_s"]
            assert source["status"] in ("agreeing", "falseticker", "distant")
    for finding in data["findings"]:
        assert finding.keys() == FINDING_SHAPE
    counts = any(finding["severity"] != "ok" for finding in data["findings"])
    assert counts == (data["severity"] != "ok")  # no severity without a finding that counts
    assert (data["verdict"] == "unmeasured") == (data["offset"] is None) == (data["time"]["utc"] is None)
    assert data["verdict"] in ("within", "unproven", "beyond", "unmeasured")
    assert data["severity"] in ("ok", "warning", "unknown", "critical")
    assert not (data["severity"] == "ok" and data["verdict"] != "within")
    agreement = data["agreement"]
    assert 0 <= agreement["agreeing"] <= agreement["usable"] <= agreement["sources"] == len(seen.sources)
    if (offset := data["offset"]) is not None:
        assert offset["earliest_s"] <= offset["estimate_s"] <= offset["latest_s"]
        assert offset["bound_s"] == max(abs(offset["earliest_s"]), abs(offset["latest_s"]))
        assert offset["direction"] == ("behind" if offset["estimate_s"] > 0 else "ahead")
        assert all(isfinite(offset[key]) for key in ("estimate_s", "earliest_s", "latest_s", "bound_s"))
        assert 2 * agreement["agreeing"] > agreement["usable"]
        assert agreement["max_falsetickers"] < agreement["usable"]
        assert 2 * agreement["max_falsetickers"] < agreement["asked"] <= agreement["sources"]
        assert agreement["guaranteed"] or data["verdict"] == "unproven"

"""The report of ntpd-rs: as two versions write it, damaged, and from a socket that is not its own."""

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.ntp.time import decode
from ntpaudit.core.observation import Claim, ClaimedSource, Unavailable
from ntpaudit.probes.daemons import ntpd_rs
from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import Process
from ntpaudit.probes.daemons.ntpd_rs import KIND, read_report
from tests.waiting import WITHIN_S

UPDATED = 17201237144787805604
NOW_NS = decode(UPDATED) + 5_000_000_000


def source(number: int, address: str, **values: Any) -> dict[str, Any]:
    """A source of a report."""
    return {
        "offset": -3.5120174296926748e-6,
        "uncertainty": 0.0037988254343622424,
        "delay": 0.00001443107612767049,
        "remote_delay": 0.0,
        "remote_uncertainty": 0.0,
        "last_update": {"timestamp": UPDATED},
        "unanswered_polls": 0,
        "poll_interval": 4,
        "nts_cookies": None,
        "name": address,
        "address": address,
        "id": number,
    } | values


REPORT_1_4: dict[str, Any] = {
    "program": {"version": "1.4.0", "build_commit": "-", "build_commit_date": "-", "uptime_seconds": 112.501036329},
    "system": {
        "stratum": 4,
        "reference_id": 168362253,
        "accumulated_steps_threshold": None,
        "precision": 3.814697266513178e-6,
        "root_delay": 3.814697266513178e-6,
        "root_dispersion": 0.001268380321857608,
        "leap_indicator": "NoWarning",
        "accumulated_steps": 0.0,
    },
    "sources": [
        source(1, "10.9.1.1:123"),
        source(2, "10.9.1.13:123", name="ntp.example.net:4460", nts_cookies=8, offset=-4e-6, poll_interval=6),
    ],
    "servers": [],
}
REPORT_1_9: dict[str, Any] = {
    "program": {"version": "1.9.0", "uptime_seconds": 233.510013578, "now": {"timestamp": 17201237208977593251}},
    "system": {
        "stratum": 4,
        "reference_id": 2130706945,
        "accumulated_steps_threshold": None,
        "precision": 3.814697266513178e-6,
        "root_delay": 9.565846996746456e-6,
        "root_variance_base_time": {"timestamp": 17201237198513555922},
        "root_variance_base": 2.1474870402180897e-12,
        "root_variance_linear": 5.430645918119981e-14,
        "root_variance_quadratic": 3.0188571951577813e-15,
        "root_variance_cubic": 1.0000000000000001e-16,
        "leap_indicator": "NoWarning",
        "accumulated_steps": 0.0,
    },
    "sources": [source(1, "127.0.2.1:123", last_update={"timestamp": 17201237198513555922})],
    "servers": [],
}


def claim(report: object, *, with_sources: bool = True) -> Claim | Unavailable:
    """What a report says."""
    return read_report(json.dumps(report).encode(), 7, NOW_NS, with_sources=with_sources)


def test_claim_of_version_1_4() -> None:
    """The reference id is the address of a source, whose offset, age and interval count."""
    found = claim(REPORT_1_4)
    assert isinstance(found, Claim)
    assert found._replace(sources=()) == Claim(
        7,
        is_synchronised=True,
        follows="ntp.example.net",
        offset_s=-4e-6,
        bound_s=3.814697266513178e-6 / 2 + 0.001268380321857608,
        updated_s=5.0,
        poll_s=64.0,
        stratum=4,
        leap=0,
        authentication="nts",
    )
    assert found.sources == (
        ClaimedSource("10.9.1.1", "10.9.1.1", None, "none", None, -3.5120174296926748e-6, 16.0),
        ClaimedSource("ntp.example.net", "10.9.1.13", True, "nts", None, -4e-6, 64.0),
    )
    assert claim(REPORT_1_4, with_sources=False) == found._replace(sources=())


def test_claim_of_version_1_9() -> None:
    """The dispersion is the root of a variance that grows from its base time to the report's own time."""
    found = claim(REPORT_1_9)
    assert isinstance(found, Claim)
    age_s = (17201237208977593251 - 17201237198513555922) / 2**32
    variance = 2.1474870402180897e-12 + 5.430645918119981e-14 * age_s + 3.0188571951577813e-15 * age_s**2
    assert found.bound_s == pytest.approx(9.565846996746456e-6 / 2 + (variance + 1e-16 * age_s**3) ** 0.5)
    assert found.updated_s == pytest.approx(age_s)
    assert (found.follows, found.is_synchronised) == ("127.0.2.1", True)


def test_ipv6_reference_is_the_beginning_of_a_digest() -> None:
    """The reference id of a source with an IPv6 address is the MD5 of the address (RFC 5905 §7.3)."""
    digest = int.from_bytes(hashlib.md5(socket.inet_pton(socket.AF_INET6, "2001:db8::1")).digest()[:4])
    report = REPORT_1_4 | {
        "system": REPORT_1_4["system"] | {"reference_id": digest},
        "sources": [source(1, "[2001:db8::2]:123"), source(2, "[2001:db8::1]:123")],
    }
    found = claim(report)
    assert isinstance(found, Claim)
    assert found.follows == "2001:db8::1"


def test_an_unsynchronised_daemon_claims_nothing() -> None:
    """Without a leap indicator there is no bound, and without a source nothing that it follows."""
    system = {"stratum": 16, "reference_id": 0, "root_delay": 0.0, "root_dispersion": 0.0, "leap_indicator": "Unknown"}
    found = claim({"program": {}, "system": system, "sources": []})
    assert found == Claim(7, is_synchronised=False, stratum=16, leap=3)
    found = claim({"program": {}, "system": system | {"leap_indicator": "NoWarning"}, "sources": []})
    assert found == Claim(7, is_synchronised=False, bound_s=0.0, stratum=16, leap=0)


_SCALARS = st.none() | st.booleans() | st.floats() | st.integers(-(1 << 70), 1 << 70) | st.text(max_size=5)
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))


@given(st.data())
def test_any_values_give_a_claim(data: st.DataObject) -> None:
    """Values of any kind in any place give a claim without NaN and infinity."""
    version = data.draw(st.sampled_from([REPORT_1_4, REPORT_1_9]))
    report = json.loads(json.dumps(version))
    places = [report, report["program"], report["system"], report["sources"][0]]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from(places))
        place[data.draw(st.sampled_from(sorted(place) or ["x"]))] = data.draw(_VALUES)
    found = claim(report)
    json.dumps(found, allow_nan=False)
    assert isinstance(found, Claim | Unavailable)


@given(st.binary(max_size=200))
def test_any_octets_are_malformed(octets: bytes) -> None:
    """What is no report is not believed."""
    assert read_report(octets, 7, NOW_NS, with_sources=True) == Unavailable("its report is malformed")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"system":' * 50_000,
        '{"system": {"stratum": ' + "9" * 100_000 + "}}",
        '{"system": [], "sources": 1}',
        '{"system": {}}',
        "null",
        "",
        "\udc00",
    ],
)
def test_a_report_that_is_none_is_malformed(text: str) -> None:
    """Nested too deep, too many digits, or other tables than expected."""
    found = read_report(text.encode(errors="surrogatepass"), 7, NOW_NS, with_sources=True)
    assert found == Unavailable("its report is malformed")


def test_numbers_out_of_range_are_none() -> None:
    """1e999 is an infinity to Python, and NaN is no JSON but read as one."""
    text = json.dumps(REPORT_1_4).replace("0.001268380321857608", "1e999").replace("-4e-06", "NaN")
    found = read_report(text.encode(), 7, NOW_NS, with_sources=True)
    assert isinstance(found, Claim)
    assert (found.bound_s, found.offset_s) == (None, None)


# --- the socket ---------------------------------------------------------------------------------------------------


@contextmanager
def observed(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A socket at which a thread of this process serves one client."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()

        def run() -> None:
            client, _ = listening.accept()
            with client:
                serve(client)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield
        thread.join(5)


def configured(tmp_path: Path, text: str) -> Process:
    """Our process, as if it were an ntpd-rs that was started with this configuration."""
    (tmp_path / "ntp.toml").write_text(text)
    words = ("ntp-daemon", "--config", str(tmp_path / "ntp.toml"))
    return Process(os.getpid(), words, uid=os.geteuid())


def asked(process: Process) -> Claim | Unavailable:
    """What the probe makes of it."""
    assert KIND.claim
    return KIND.claim(process, Files(), True)


def send_report(client: socket.socket) -> None:
    """Send a report in two parts, as a stream may."""
    text = json.dumps(REPORT_1_4).encode()
    client.sendall(len(text).to_bytes(8) + text[:100])
    time.sleep(0.01)
    client.sendall(text[100:])


def test_report_is_read_from_the_configured_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that comes in parts."""
    monkeypatch.setattr(ntpd_rs, "CLAIM_WITHIN_S", WITHIN_S)
    process = configured(tmp_path, f'[observability]\nobservation-path = "{tmp_path}/observe"')
    with observed(tmp_path / "observe", send_report):
        found = asked(process)
    assert isinstance(found, Claim)
    assert found.follows == "ntp.example.net"


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (lambda client: client.sendall((1 << 62).to_bytes(8) + b"{}"), "its report is malformed"),
        (lambda client: client.sendall((9).to_bytes(8) + b"{}"), "its report is malformed"),
        (lambda client: client.sendall(b"\0"), "its report is malformed"),
        (lambda client: client.recv(1), "it does not report its state at {path} in time"),
    ],
)
def test_a_socket_that_does_not_report_is_a_reason(
    serve: Callable[[socket.socket], None], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too long, too short, nothing, and silent."""
    monkeypatch.setattr(ntpd_rs, "CLAIM_WITHIN_S", 0.5 if "in time" in reason else WITHIN_S)
    process = configured(tmp_path, f'[observability]\nobservation-path = "{tmp_path}/observe"')
    with observed(tmp_path / "observe", serve):
        found = asked(process)
    assert found == Unavailable(reason.format(path=tmp_path / "observe"))


def test_a_socket_of_another_program_is_not_believed(tmp_path: Path) -> None:
    """Another process that listens at the path is not the daemon, unless it is root."""
    process = configured(tmp_path, f'[observability]\nobservation-path = "{tmp_path}/observe"')
    with observed(tmp_path / "observe", lambda client: None):
        found = asked(process._replace(pid=os.getppid()))
    expected = Unavailable(f"another program listens at {tmp_path}/observe")
    assert found == (expected if os.geteuid() else Unavailable("its report is malformed"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has no observation socket"),
        ("[observability]\nlog-level = 'info'", "it has no observation socket"),
        ("observability = 1", "it has no observation socket"),
        ("[observability]\nobservation-path = 1", "it has no observation socket"),
        ("[observability", "the path of its observation socket is not known: {path}/ntp.toml is not valid TOML"),
        (
            '[observability]\nobservation-path = "/nowhere/o"',
            "its observation socket /nowhere/o cannot be read: No such",
        ),
        ('[observability]\nobservation-path = "\\u0000"', "it has no observation socket"),
        (f"[observability]\nobservation-path = '/{'x' * 200}'", "its observation socket /xx"),
    ],
)
def test_what_the_configuration_does_not_give_is_a_reason(text: str, reason: str, tmp_path: Path) -> None:
    """Without a path, with one that leads nowhere, or with a file that cannot be read."""
    found = asked(configured(tmp_path, text or "\n"))
    assert isinstance(found, Unavailable)
    assert found.reason.startswith(reason.format(path=tmp_path))
    if "no observation socket" in reason:
        assert found.remedy == (
            'add `observation-path = "/run/ntpd-rs/observe"` to [observability] of its configuration, and restart it'
        )

"""What systemd-timesyncd reports about itself; tests/test_timesyncd.py compares it with the real one."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.observation import Claim, ClaimedSource, Unavailable
from ntpaudit.probes.daemons import timesyncd
from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import Process
from ntpaudit.probes.dbus import BusError

S = 1_000_000
NOON = 1_796_000_000 * S
MESSAGE = (
    *(0, 4, 4, 3, -25, 20_000, 5_000, b"\x0a\x09\x01\x01"),
    *(NOON, NOON + 210_000, NOON + 210_100, NOON + 20_100, False, 4, 5),
)
"""A server 200 ms ahead, so the host is behind, at a distance of 10 ms each way."""

PROPERTIES: Mapping[str, Any] = {
    "LinkNTPServers": ["192.0.2.5"],
    "SystemNTPServers": ["ntp1.example.net", "ntp2.example.net"],
    "RuntimeNTPServers": [],
    "FallbackNTPServers": ["0.debian.pool.ntp.org"],
    "ServerName": "ntp1.example.net",
    "ServerAddress": (socket.AF_INET, b"\xc0\x00\x02\x01"),
    "PollIntervalUSec": 64 * S,
    "NTPMessage": MESSAGE,
}


def claim(**changes: Any) -> Claim:
    """Return the claim of changed properties."""
    return timesyncd.read_claim({**PROPERTIES, **changes}, 7, 30.0, with_sources=True)


def changed(**at: Any) -> tuple[Any, ...]:
    """Return the message with changed parts, by `i` and their places."""
    return tuple(at.get(f"i{place}", part) for place, part in enumerate(MESSAGE))


def test_all_that_it_reports() -> None:
    """The offset is positive where the host is behind; the bound has both root terms, the delay, and the correction."""
    assert claim() == Claim(
        boottime_ns=7,
        is_synchronised=True,
        follows="ntp1.example.net",
        offset_s=0.2,
        bound_s=0.010 + 0.005 + 0.010 + 0.2,
        updated_s=30.0,
        poll_s=64.0,
        stratum=3,
        leap=0,
        authentication="none",
        sources=(
            ClaimedSource("ntp1.example.net", "192.0.2.1", True, "none", 3, 0.2, 64.0),
            ClaimedSource("ntp2.example.net", None, False, "none"),
            ClaimedSource("192.0.2.5", None, False, "none"),
        ),
    )


def test_before_the_first_reply_it_follows_nothing() -> None:
    """The message is all zeros then; that is no server of stratum 0 with an offset of 0."""
    zeros = (*(0,) * 7, b"\0\0\0\0", *(0,) * 4, False, 0, 0)
    found = claim(NTPMessage=zeros, ServerName="", ServerAddress=(0, b""))
    nothing = Claim(7, is_synchronised=False, updated_s=30.0, authentication="none")
    assert found._replace(sources=()) == nothing
    assert {source.is_followed for source in found.sources} == {False}


def test_an_outlier_gives_no_offset() -> None:
    """A reply that it ignored corrected nothing."""
    found = claim(NTPMessage=changed(i12=True))
    assert (found.is_synchronised, found.offset_s, found.bound_s) == (True, None, None)


def test_fallback_servers_count_where_there_are_no_others() -> None:
    """They are never used beside configured ones."""
    found = claim(SystemNTPServers=[], LinkNTPServers=[], ServerName="0.debian.pool.ntp.org")
    assert [source.name for source in found.sources] == ["0.debian.pool.ntp.org"]


def test_ipv6() -> None:
    """The address is written as elsewhere."""
    found = claim(ServerAddress=(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, "2001:db8::7")))
    assert found.sources[0].address == "2001:db8::7"


ANYTHING = st.recursive(
    st.integers(0, 2**64 - 1) | st.booleans() | st.binary(max_size=17) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=16).map(tuple),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(sorted(PROPERTIES)), ANYTHING), st.integers(0, 2**64 - 1))
def test_any_properties_give_a_claim_or_an_error(lies: dict[str, Any], number: int) -> None:
    """Properties of other types are not understood, and numbers of any size are numbers."""
    for properties in ({**PROPERTIES, **lies}, {**PROPERTIES, "NTPMessage": changed(i8=number, i5=number)}, lies):
        try:
            found = timesyncd.read_claim(properties, 7, None, with_sources=True)
        except ValueError:
            continue
        assert found.bound_s is None or found.bound_s >= 0.0


@pytest.fixture
def _no_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> bytes:
        raise BusError("it refuses this user")

    monkeypatch.setattr(timesyncd, "_properties", refuses)


@pytest.mark.usefixtures("_no_bus")
def test_without_the_bus_a_file_shows_when_it_corrected_the_clock(tmp_path: Path) -> None:
    """Offset, server and bound are not known then. Without the file it corrected nothing since it started."""
    ask = timesyncd.KIND.claim
    assert ask
    unread = ask(Process(7, ()), Files(str(tmp_path)), True)
    assert isinstance(unread, Unavailable)
    assert "refuses this user" in unread.reason
    assert unread.remedy
    folder = tmp_path / "run/systemd/timesync"
    folder.mkdir(parents=True)
    unsynchronised = ask(Process(7, ()), Files(str(tmp_path)), True)
    assert isinstance(unsynchronised, Claim)
    assert unsynchronised._replace(boottime_ns=0) == Claim(0, is_synchronised=False)
    (folder / "synchronized").touch()
    os.utime(folder / "synchronized", (time.time() - 3600,) * 2)
    found = ask(Process(7, ()), Files(str(tmp_path)), True)
    assert isinstance(found, Claim)
    assert found.updated_s is not None
    assert found.updated_s >= 3600
    assert found._replace(boottime_ns=0, updated_s=None) == Claim(0, is_synchronised=True)


def test_a_reply_that_is_not_understood_is_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a later systemd might send."""
    monkeypatch.setattr(timesyncd, "_properties", lambda: b"l\2\1\1" + bytes(200))
    ask = timesyncd.KIND.claim
    assert ask
    assert isinstance(ask(Process(7, ()), Files(str(tmp_path)), False), Unavailable)

"""What OpenNTPD's ntpctl prints; tests/test_booted_daemons.py compares it with the real one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.observation import Claim, ClaimedSource, Unavailable
from ntpaudit.probes.daemons import openntpd

REPORT = """\
4/4 peers valid, 1/1 constraints valid, clock synced, stratum 3

peer
   wt tl st  next  poll          offset       delay      jitter
192.0.2.1 ntp1.example.net
 *  1 10  2   22s   30s       -12.500ms    31.026ms     0.206ms
192.0.2.2 from pool pool.example.net (non-dnssec lookup)
    1  9  3    0s   33s       200.034ms     6.320ms     0.097ms
not resolved ntp3.example.net
    1  2  0    3s    9s             ---- peer not valid ----
192.0.2.4
    1 10  1    3s   30s         0.004ms     0.024ms     0.024ms
""".replace("192.0.2.4", "192.0.2.4 ")
UNSYNCHRONISED = REPORT.replace("clock synced, stratum 3", "clock unsynced, clock offset is -35.217ms").replace(
    "*", " "
)


def claim(report: str) -> Claim | Unavailable:
    """Return the claim of a report, with its servers."""
    return openntpd.read_claim(report, 7, with_sources=True)


def test_all_that_it_reports() -> None:
    """Offsets are server minus host: negative is ahead, as ours. It reports nothing that makes a bound."""
    assert claim(REPORT) == Claim(
        boottime_ns=7,
        is_synchronised=True,
        follows="ntp1.example.net",
        offset_s=-0.0125,
        updated_s=8.0,
        poll_s=30.0,
        stratum=3,
        authentication="none",
        sources=(
            ClaimedSource("ntp1.example.net", "192.0.2.1", True, "none", 2, -0.0125, 30.0),
            ClaimedSource("pool.example.net", "192.0.2.2", False, "none", 3, 0.200034, 33.0),
            ClaimedSource("ntp3.example.net", None, False, "none", 0, None, 9.0),
            ClaimedSource("192.0.2.4", "192.0.2.4", False, "none", 1, 4e-6, 30.0),
        ),
    )


def test_what_it_has_yet_to_correct() -> None:
    """While it is not synchronised, the status shows the rest of its correction; it follows no one peer."""
    found = claim(UNSYNCHRONISED)
    assert isinstance(found, Claim)
    assert found._replace(sources=()) == Claim(7, is_synchronised=False, offset_s=-0.035217, authentication="none")
    assert claim(UNSYNCHRONISED.replace(", clock offset is -35.217ms", "")) == found._replace(offset_s=None)


def test_without_servers() -> None:
    """The status is then the second line."""
    found = claim("no peers and no sensors configured\nclock unsynced\n\n")
    assert found == Claim(7, is_synchronised=False, authentication="none")


@given(st.data())
def test_any_report_gives_a_value(data: st.DataObject) -> None:
    """A report that is cut, changed or not one gives a claim or the reason why there is none."""
    start, end = sorted((data.draw(st.integers(0, len(REPORT))), data.draw(st.integers(0, len(REPORT)))))
    for report in (REPORT[:start], REPORT[start:], REPORT[:start] + data.draw(st.text(max_size=60)) + REPORT[end:]):
        assert isinstance(claim(report), Claim | Unavailable)


def test_a_negative_poll_interval_is_no_peer() -> None:
    """It never prints one: such a line is not understood, and the others are."""
    found = claim(REPORT.replace("22s   30s", "22s  -30s"))
    assert isinstance(found, Claim)
    assert [source.name for source in found.sources] == ["pool.example.net", "ntp3.example.net", "192.0.2.4"]


@pytest.mark.parametrize("report", ["", "\n\n\n", "clock", "clock synced, stratum \n", " " * 20_000, REPORT[60:]])
def test_another_report_is_not_understood(report: str) -> None:
    """What a later version might print."""
    assert isinstance(claim(report), Unavailable)

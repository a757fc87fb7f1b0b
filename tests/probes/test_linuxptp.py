"""What pmc prints of ptp4l; tests/test_booted_daemons.py compares it with a real one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.observation import Claim, Unavailable
from ntpaudit.probes.daemons import linuxptp
from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import Process

REPORT = """\
sending: GET TIME_STATUS_NP
sending: GET CURRENT_DATA_SET
    daf45e.fffe.5a4072-0 seq 0 RESPONSE MANAGEMENT TIME_STATUS_NP
        master_offset              -315
        ingress_time               1796058895708623060
        cumulativeScaledRateOffset +0.000000000
        scaledLastGmPhaseChange    0
        gmTimeBaseIndicator        0
        lastGmPhaseChange          0x0000'0000000000000000.0000
        gmPresent                  true
        gmIdentity                 3a4214.fffe.366867
sending: GET PORT_DATA_SET
    daf45e.fffe.5a4072-0 seq 1 RESPONSE MANAGEMENT CURRENT_DATA_SET
        stepsRemoved     1
        offsetFromMaster -315.0
        meanPathDelay    2178.0
sending: GET PARENT_DATA_SET
    daf45e.fffe.5a4072-1 seq 2 RESPONSE MANAGEMENT PORT_DATA_SET
        portIdentity            daf45e.fffe.5a4072-1
        portState               UNCALIBRATED
        logMinDelayReqInterval  0
        peerMeanPathDelay       0
        logAnnounceInterval     1
        announceReceiptTimeout  3
        logSyncInterval         0
        delayMechanism          1
        logMinPdelayReqInterval 0
        versionNumber           2
    daf45e.fffe.5a4072-0 seq 3 RESPONSE MANAGEMENT PARENT_DATA_SET
        parentPortIdentity                    3a4214.fffe.366867-1
"""
"""Of linuxptp 3.1.1, before its servo is locked."""

SLAVE = REPORT.replace("UNCALIBRATED", "SLAVE")


def claim(report: str, *, is_system_clock: bool = True) -> Claim | Unavailable:
    """Return the claim of a report."""
    return linuxptp.read_claim(report, 7, is_system_clock=is_system_clock)


def test_all_that_it_reports() -> None:
    """Its offset is the clock minus its master's: negative is behind, where ours is positive."""
    assert claim(SLAVE) == Claim(7, True, "3a4214.fffe.366867", 315e-9, authentication="none")
    uncalibrated = claim(REPORT)
    assert isinstance(uncalibrated, Claim)
    assert uncalibrated.is_synchronised is False


def test_the_clock_of_a_network_card_is_not_the_host_s() -> None:
    """Its offset says nothing about the system clock."""
    assert claim(SLAVE, is_system_clock=False) == Claim(7, True, "3a4214.fffe.366867", authentication="none")


def test_without_a_grandmaster_it_follows_nothing() -> None:
    """A ptp4l that is the master itself reports an offset of 0."""
    alone = REPORT.replace("UNCALIBRATED", "MASTER").replace("true", "false").replace("-315.0", "0.0")
    assert claim(alone) == Claim(7, is_synchronised=False, authentication="none")


def test_no_reply() -> None:
    """Pmc prints its questions, and ends without an error."""
    found = claim("sending: GET TIME_STATUS_NP\nsending: GET CURRENT_DATA_SET\nsending: GET PORT_DATA_SET\n")
    assert isinstance(found, Unavailable)
    assert found.remedy


@given(st.data())
def test_any_report_gives_a_value(data: st.DataObject) -> None:
    """A report that is cut or changed gives a claim, or the reason why there is none."""
    start, end = sorted((data.draw(st.integers(0, len(SLAVE))), data.draw(st.integers(0, len(SLAVE)))))
    for report in (SLAVE[:start], SLAVE[start:], SLAVE[:start] + data.draw(st.text(max_size=60)) + SLAVE[end:]):
        assert isinstance(claim(report), Claim | Unavailable)


@pytest.mark.parametrize("number", ["nan", "inf", "-", "1e999", "9" * 30, "?"])
def test_a_number_that_is_none_gives_no_offset(number: str) -> None:
    """JSON has no such number."""
    found = claim(SLAVE.replace("-315.0", number))
    assert isinstance(found, Claim)
    assert found.offset_s is None


def test_phc2sys_reports_to_its_log_alone() -> None:
    """The reason comes with where its offsets are."""
    ask = linuxptp.PHC2SYS.claim
    assert ask
    found = ask(Process(7, (), unit="phc2sys@eth0.service"), Files(), True)
    assert isinstance(found, Unavailable)
    assert "journalctl -u phc2sys@eth0.service" in (found.remedy or "")

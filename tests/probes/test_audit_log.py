"""The log of auditd, as it writes it and as it does not."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.observation import Unavailable
from ntpaudit.probes.audit_log import parse_audit, read_audit_log
from tests.abilities import ANOTHER_USER
from tests.world.another_user import let_others_in

ENRICHED = '\x1dARCH=x86_64 SYSCALL=clock_settime AUID="ann" UID="root"'
LOG = f"""\
type=DAEMON_START msg=audit(1790000000.001:7801): op=start ver=3.0.9 format=enriched kernel=6.1.0 auid=4294967295
type=SYSCALL msg=audit(1790000100.123:417): arch=c000003e syscall=227 success=yes exit=0 a0=0 a1=7ffc a2=0 a3=0 \
items=0 ppid=811 pid=812 auid=1000 uid=0 gid=0 tty=pts0 ses=3 comm="date" exe="/usr/bin/date" subj=unconfined \
key="time-change"{ENRICHED}
type=TIME_INJOFFSET msg=audit(1790000100.123:417): sec=-3 nsec=500000000
type=PROCTITLE msg=audit(1790000100.123:417): proctitle=64617465002D73
type=SYSCALL msg=audit(1790000101.500:418): arch=c000003e syscall=159 success=yes exit=5 auid=4294967295 uid=101 \
comm="chronyd" exe="/usr/sbin/chronyd" key="time-change"
type=TIME_ADJNTPVAL msg=audit(1790000101.500:418): op=freq old=1 new=2
node=web1 type=UNKNOWN[1332] msg=audit(1790000102.000:419): sec=0 nsec=20000000
type=SYSCALL msg=audit(1790000103.000:420): arch=c000003e syscall=59 success=yes exe="/usr/bin/date" key="exec"
"""


def test_events_that_set_the_clock() -> None:
    """The records of one event are one line; an adjtimex that only slews, and other calls, are none."""
    both, injected = parse_audit(LOG.split("\n"))
    assert both.realtime_us == 1_790_000_100_123_000
    assert both.source == "audit"
    assert 'exe="/usr/bin/date"' in both.text
    assert both.text.endswith("TIME_INJOFFSET sec=-3 nsec=500000000")
    assert "AUID=" not in both.text
    assert injected.text == "TIME_INJOFFSET sec=0 nsec=20000000"


def test_older_files(tmp_path: Path) -> None:
    """Rotated logs are read too."""
    newer = LOG.index("node=web1")
    (tmp_path / "audit.log").write_text(LOG[newer:])
    (tmp_path / "audit.log.1").write_text(LOG[:newer])
    found = read_audit_log(str(tmp_path / "audit.log"))
    assert not isinstance(found, Unavailable)
    assert [line.realtime_us // 10**6 for line in found] == [1_790_000_102, 1_790_000_100]
    os.utime(tmp_path / "audit.log.1", (1_790_000_101, 1_790_000_101))
    for since_s, count in ((1_790_000_101, 2), (1_790_000_102, 1)):
        newest = read_audit_log(str(tmp_path / "audit.log"), since_s)
        assert not isinstance(newest, Unavailable)
        assert len(newest) == count


def test_a_log_that_takes_too_long(tmp_path: Path) -> None:
    """What was read by then is not all: it is no result."""
    (tmp_path / "audit.log").write_text(LOG)
    with pytest.raises(TimeoutError):
        read_audit_log(str(tmp_path / "audit.log"), within_s=0.0)
    assert read_audit_log(str(tmp_path / "audit.log"), within_s=60.0) == read_audit_log(str(tmp_path / "audit.log"))


def test_no_log(tmp_path: Path) -> None:
    """The reason, and what would change it."""
    found = read_audit_log(str(tmp_path / "audit.log"))
    assert isinstance(found, Unavailable)
    assert "there is no" in found.reason


@pytest.mark.needs("another-user")
def test_without_rights(tmp_path: Path) -> None:
    """An ordinary user is shown how root can read it."""
    (tmp_path / "audit.log").write_text(LOG)
    (tmp_path / "audit.log").chmod(0o600)
    let_others_in(tmp_path)
    os.seteuid(ANOTHER_USER)
    try:
        found = read_audit_log(str(tmp_path / "audit.log"))
    finally:
        os.seteuid(0)
    assert isinstance(found, Unavailable)
    assert ("Permission denied" in found.reason, found.remedy) == (True, "run it with sudo")


@given(st.lists(st.text() | st.builds(lambda at, junk: LOG[:at] + junk, st.integers(0, len(LOG)), st.text())))
def test_any_lines(lines: list[str]) -> None:
    """Malformed and truncated records are skipped."""
    assert all(line.source == "audit" for line in parse_audit(lines))

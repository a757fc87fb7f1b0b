"""The cause of a step, by lines that real programs write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.attribution import NEAR_US, SOURCES, LogLine, Moment, at_step, cause_of

S = 1_000_000
BOOT = "b" * 32
STEP = Moment(BOOT, 1000 * S, 1001 * S, -2_500_000)


DATE = "/usr/bin/date (login uid 1000)"
SET = 'SYSCALL arch=c000003e syscall=227 success=yes exit=0 auid=1000 uid=0 comm="date" exe="/usr/bin/date"'
INJECTED = "TIME_INJOFFSET sec=-3 nsec=500000000"


def line(source: str, text: str, at_us: int = 1002 * S, uid: int | None = 0, exe: str = "") -> LogLine:
    """Return a line of a log."""
    return LogLine(BOOT, at_us, at_us, source, text, uid=uid, exe=exe)


def name(*lines: LogLine, moment: Moment = STEP) -> str | None:
    """Return the name of the cause."""
    cause = cause_of(moment, lines)
    return cause and cause.name


@pytest.mark.parametrize(
    ("source", "text", "cause"),
    [
        ("chronyd", "System clock was stepped by -2.500000 seconds", "chronyd"),
        ("chronyd", "System clock wrong by -2.500012 seconds", "chronyd"),
        ("ntpd", "time reset -2.500000 s", "ntpd"),
        ("ntpd", "CLOCK: time stepped by -2.500000", "ntpd"),
        ("ntpd", "0.0.0.0 c61c 0c clock_step -2.500000 s", "ntpd"),
        ("ntpd", "set local clock to Mon Nov 30 10:00:00 UTC 2026 (offset -2.500000s)", "openntpd"),
        ("ntp-daemon", "INFO ntp_proto: Jumped offset by -2500.0ms", "ntpd-rs"),
        ("ntpdate", "step time server 192.0.2.1 offset -2.500000 sec", "ntpdate"),
        ("systemd-timedated", "Changed local time to Mon 2026-11-30 10:00:00 UTC", "systemd-timedated"),
        ("systemd-timesyncd", "Initial clock synchronization to Mon 2026-11-30 10:00:00 UTC.", "systemd-timesyncd"),
        ("systemd-timesyncd", "Initial synchronization to time server 192.0.2.1:123 (ntp1).", "systemd-timesyncd"),
        ("kernel", "10:00:01 timesync vgsvcTimeSyncWorker: Radical guest time change: -2 500 000 000ns", "VirtualBox"),
        ("qemu-ga", "info: guest-set-time called, time: 1796032800000000000", "QEMU guest agent"),
        ("google-clock-skew", "INFO Synced system time with hardware clock.", "Google's guest agent"),
        ("phc2sys", "[61.5] CLOCK_REALTIME phc offset 2500000000 s1 freq +0 delay 500", "phc2sys"),
        ("kernel", "Clock: inserting leap second 23:59:60 UTC", "a leap second"),
        (
            "kernel",
            "clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable",
            "the clocksource",
        ),
        ("audit", "TIME_INJOFFSET sec=-3 nsec=500000000", "audit"),
        ("audit", 'SYSCALL arch=c000003e syscall=227 success=yes auid=1000 uid=0 exe="/usr/bin/date"', DATE),
        ("sudo", "ann : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/bin/date -s 10:00", "a command"),
        ("sudo", "ann : TTY=pts/0 ; USER=root ; COMMAND=/usr/bin/date --set=10:00", "a command"),
        ("sudo", "ann : TTY=pts/0 ; USER=root ; COMMAND=/usr/sbin/hwclock --hctosys", "a command"),
        ("sudo", "ann : TTY=pts/0 ; USER=root ; COMMAND=/usr/bin/chronyc makestep", "a command"),
    ],
)
def test_lines_that_name_a_cause(source: str, text: str, cause: str) -> None:
    """The messages of each program, and the journal is queried for them."""
    assert name(line(source, text)) == cause
    assert source in (*SOURCES, "kernel", "audit")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("chronyd", "Selected source 192.0.2.1 (ntp1.example.net)"),
        ("chronyd", "System clock was stepped by 0.120000 seconds"),  # another step
        ("cron", "System clock was stepped by -2.500000 seconds"),
        ("systemd", "Time has been changed"),  # that it changed, but not why
        ("systemd-timesyncd", "Contacted time server 192.0.2.1:123 (ntp1)."),
        ("phc2sys", "[61.5] CLOCK_REALTIME phc offset 12 s2 freq +0 delay 500"),
        ("sudo", "ann : TTY=pts/0 ; USER=root ; COMMAND=/usr/bin/date"),
        ("sudo", "ann : TTY=pts/0 ; USER=root ; COMMAND=/usr/bin/timedatectl status"),
        ("kernel", "audit: type=1400 apparmor=DENIED"),
        ("audit", 'SYSCALL arch=c000003e syscall=59 success=yes exe="/usr/bin/date"'),
    ],
)
def test_lines_that_name_none(source: str, text: str) -> None:
    """Similar lines of the same programs, and the same line of another."""
    assert name(line(source, text)) is None


def test_only_near_the_step() -> None:
    """5 s before or after by the boot's own clock, in the same boot."""
    text = "System clock was stepped by -2.500000 seconds"
    for at_us, expected in (
        (STEP.from_us - NEAR_US, "chronyd"),
        (STEP.from_us - NEAR_US - 1, None),
        (STEP.to_us + NEAR_US, "chronyd"),
        (STEP.to_us + NEAR_US + 1, None),
    ):
        assert name(line("chronyd", text, at_us)) == expected
    assert name(line("chronyd", text)._replace(boot_id="d" * 32)) is None


def test_who_may_name_a_cause() -> None:
    """An ordinary user can write under any name: it is not believed; sudo runs as that user, and is."""
    text = "System clock was stepped by -2.500000 seconds"
    assert name(line("chronyd", text, uid=1000, exe="/usr/bin/logger")) is None
    for uid in (101, 61_184):
        assert name(line("chronyd", text, uid=uid, exe="/usr/sbin/chronyd")) == "chronyd"
        for exe in ("", "/usr/bin/logger", "/tmp/chronyd"):
            assert name(line("chronyd", text, uid=uid, exe=exe)) is None
    assert name(line("audit", SET, uid=1000, exe="/usr/bin/date")) == DATE
    assert name(line("chronyd", text, uid=None)) == "chronyd"
    command = "ann : TTY=pts/0 ; USER=root ; COMMAND=/usr/bin/date -s 10:00"
    assert name(line("sudo", command, uid=1000, exe="/usr/bin/sudo")) == "a command"
    for exe in ("/usr/bin/logger", "/home/ann/sudo", "sudo"):
        assert name(line("sudo", command, uid=1000, exe=exe)) is None
    for uid in (60_000, 65_534, 165_536, 1_811_401_105):  # of rootless containers and directories, too
        assert name(line("chronyd", text, uid=uid, exe="/usr/bin/logger")) is None


def test_the_most_reliable_line_counts() -> None:
    """A daemon's report of its step, before a command, before a sign of a problem; then the nearest."""
    stepped = line("chronyd", "System clock was stepped by -2.500000 seconds")
    command = line("sudo", "ann : USER=root ; COMMAND=/usr/bin/chronyc makestep", 999 * S)
    unstable = line("kernel", "clocksource: wd-tsc-wd excessive read-back delay", 1000 * S)
    assert name(unstable, command, stepped) == "chronyd"
    assert name(unstable, command) == "a command"
    cause = cause_of(STEP, [stepped._replace(monotonic_us=1004 * S), stepped])
    assert cause is not None
    assert cause.line == stepped


@pytest.mark.parametrize(
    ("text", "cause", "by_person"),
    [
        (f"{SET} {INJECTED}", DATE, True),
        (SET.replace("auid=1000", "auid=4294967295"), "/usr/bin/date (no login)", False),
        (SET.replace("auid=1000", "auid=unset"), "/usr/bin/date (no login)", False),
        (SET.replace("/usr/bin/date", "/usr/sbin/chronyd"), "/usr/sbin/chronyd (login uid 1000)", False),
        (f"{SET.replace('syscall=227', 'syscall=159')} {INJECTED}", DATE, True),
        (INJECTED, "audit", False),
        (SET.replace("syscall=227", "syscall=159"), None, False),  # adjtimex that did not set the clock
        (SET.replace("success=yes", "success=no"), None, False),
        (f"SYSCALL {SET}", DATE, True),  # as journald writes it
        (SET.replace("c000003e syscall=227", "c00000b7 syscall=112"), DATE, True),
        (SET.replace("syscall=227", "syscall=170"), None, False),  # sethostname of x86-64
        (SET.replace("syscall=227", "syscall=59").replace('comm="date"', 'comm="syscall=227"'), None, False),
        ('USER_LOGIN pid=9 uid=0 acct="syscall=227" exe="/usr/sbin/sshd" res=failed', None, False),
        ('USER_CMD pid=9 uid=0 acct="TIME_INJOFFSET" exe="/usr/bin/su" res=success', None, False),
        (f"{SET} {INJECTED.replace('-3', '2')}", None, False),  # another step
    ],
)
def test_audit_records(text: str, cause: str | None, by_person: bool) -> None:
    """The program and the login that auditd recorded, if the size that it recorded is that of the step."""
    found = cause_of(STEP, [line("audit", text)])
    assert (found and found.name, found is not None and found.by_person) == (cause, by_person)


@pytest.mark.parametrize("host_us", [5_000_000_000, 4_997_500_000])
def test_lines_with_the_time_of_the_host(host_us: int) -> None:
    """A line has the time before the step or that after it; both are near it."""
    placed = at_step(line("audit", SET)._replace(realtime_us=host_us, boot_id=""), STEP, 5_000_000_000, 4_997_500_000)
    assert placed.monotonic_us == STEP.to_us
    assert name(placed) == DATE
    far = at_step(placed._replace(realtime_us=4_991_000_000), STEP, 5_000_000_000, 4_997_500_000)
    assert name(far) is None


@given(st.lists(st.builds(line, st.sampled_from([*SOURCES, "kernel", "audit"]), st.text(), st.integers(0, 2 * 10**9))))
def test_any_text(lines: list[LogLine]) -> None:
    """Whatever the lines are, the result is one of them, or none."""
    cause = cause_of(STEP, lines)
    assert cause is None or cause.line in lines


@pytest.mark.parametrize("number", ["9" * 5000 + ".5", "0.0", "1.5e999"])
def test_absurd_numbers(number: str) -> None:
    """A size that is no number of seconds is another step."""
    assert name(line("chronyd", f"System clock was stepped by {number} seconds")) is None

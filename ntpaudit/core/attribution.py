"""What set the clock or stopped the host, by log lines near that moment: a pure function from lines to a cause."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

NEAR_US = 5_000_000  # a line this long before or after a step can name its cause (NTPA-03)
SLEEP_NEAR_US = 30_000_000  # inhibitors and the freezing of tasks can take this long before a suspend
_LIKE_STEP = 0.01  # a line that states the size of a step is about it if both agree within 1 % ...
_LIKE_STEP_US = 10_000  # ... or 10 ms
_FIRST_USER = 1000  # from here on users of people and of a directory: what they log as a daemon is not believed
_SERVICE_USERS = range(61_184, 65_520)  # DynamicUser= of systemd.exec(5)
_PROGRAMS = ("/usr/", "/opt/", "/bin/", "/sbin/", "/lib/", "/nix/store/", "/gnu/store/")
_ELEVATING = frozenset(
    f"{folder}/{name}" for folder in ("/bin", "/usr/bin", "/usr/local/bin") for name in ("sudo", "doas", "pkexec", "su")
)  # they run as the user who calls them; anybody can call a program of his own sudo

TIME_CHANGE_ID = "c7a787079b354eaaa9e77b371893cd27"
SLEEP_START_ID = "6bbd95ee977941e497c48be27c254128"
SLEEP_STOP_ID = "8811e6df2a8e40f58a94cea26f8ebf14"
TIME_SYNC_ID = "7c8a41f37b764941a0e1780b1be2f037"  # systemd-timesyncd's first synchronisation
MESSAGE_IDS = (TIME_CHANGE_ID, SLEEP_START_ID, SLEEP_STOP_ID, TIME_SYNC_ID)
KERNEL = "kernel"
CLOCKSOURCE = "the clocksource"  # a sign only: it makes a clock wrong, but something else then sets it


class LogLine(NamedTuple):
    """A line of a log, at the time at which journald received it.

    `source` is the program by its syslog identifier; `uid` and `exe` are those that journald took from the kernel, None
    and empty if it could not. `kernel` has no uid.
    """

    boot_id: str
    monotonic_us: int
    realtime_us: int
    source: str
    text: str
    message_id: str = ""
    uid: int | None = None
    exe: str = ""

    @property
    def is_credible(self) -> bool:
        """Whether the line cannot come from another program under this name.

        A daemon that has given up root logs by its own program; a web server that is broken into has another one.
        """
        if self.source in (KERNEL, AUDIT) or self.uid in (None, 0) or self.exe in _ELEVATING:
            return True
        is_person = self.uid >= _FIRST_USER and self.uid not in _SERVICE_USERS
        return not is_person and self.exe.startswith(_PROGRAMS) and self.exe.rpartition("/")[2] == self.source


class Cause(NamedTuple):
    """What set the clock, and the line that states it. `by_person`: a command or a login session, not a daemon."""

    name: str
    line: LogLine
    by_person: bool = False


class _Kind(NamedTuple):
    """Lines that name a cause: their sources, and a pattern; a group is the size of the step in seconds."""

    name: str
    sources: tuple[str, ...]
    pattern: re.Pattern[str]


def _kind(name: str, sources: str, pattern: str) -> _Kind:
    return _Kind(name, tuple(sources.split()), re.compile(pattern))


AUDIT = "audit"
_NO_LOGIN = "4294967295"
_INJECTED = "TIME_INJOFFSET|AUDIT1332"  # the size by which the kernel set the clock
_SYSCALL = r"(?:SYSCALL )+arch="  # at the start: further on, programs and logins choose the words of a record
# clock_settime and settimeofday; the same numbers are other calls elsewhere, such as sethostname
_SET_CALL = rf"{_SYSCALL}(?:c000003e syscall=(?:227|164)|c00000(?:b7|f3) syscall=(?:112|170)) "
_AUDIT_SIZE = re.compile(rf"(?:{_INJECTED}) sec=(-?\d{{1,12}}) nsec=(\d{{1,9}})\b")
_AUDIT_LOGIN = re.compile(r"\bauid=(\d+|unset)\b")
_AUDIT_EXE = re.compile(r'\bexe="([^"]+)"')
_DAEMON_EXES = (
    "chronyd",
    "ntpd",
    "systemd-timesyncd",
    "ntp-daemon",
    "phc2sys",
    "ptp4l",
    "vmtoolsd",
    "VBoxService",
    "qemu-ga",
)
_SIZE = r"([-+]?\d+\.\d+)"
_SET_COMMAND = (
    r"COMMAND=\S*(?:\bdate\b.*(?: -\w*s| --set| \d{8})|\bhwclock\b.*(?:-s|--hctosys|--systz)"
    r"|\btimedatectl\b.*set-time|\bchronyc\b.*(?:makestep|settime)|\bntpdate\b|\bsntp\b|\brdate\b|\badjtimex\b)"
)
_KINDS = (
    # adjtimex only where the record has a TIME_INJOFFSET
    _kind("audit", AUDIT, rf"^(?!.*success=no)(?=.*\bexe=)(?:{_SET_CALL}|{_SYSCALL}.* (?:{_INJECTED}) sec=)"),
    _kind("chronyd", "chronyd", rf"System clock was stepped by {_SIZE}"),
    _kind("ntpd", "ntpd", rf"(?:time reset|time stepped by|clock_step|time set) {_SIZE}"),
    _kind("openntpd", "ntpd", rf"set local clock to .*offset {_SIZE}"),
    _kind("ntpd-rs", "ntp-daemon ntpd-rs", r"Jumped offset by|Stepped (?:the )?(?:system )?clock"),
    _kind(
        "ntpdate", "ntpdate sntp ntpdig", rf"step(?:ped)? (?:time server \S+ offset|by) {_SIZE}|time stepped by {_SIZE}"
    ),
    _kind("systemd-timedated", "systemd-timedated", "Changed local time to"),
    _kind("VirtualBox", "VBoxService vboxadd-service kernel", "timesync .*Radical guest time change"),
    _kind("VMware Tools", "vmtoolsd vmsvc", r"(?i)\b(?:time ?sync|clock (?:set|stepped)|synchronized .*time)"),
    _kind("QEMU guest agent", "qemu-ga qemu-guest-agent", "guest-set-time"),
    _kind(  # after a live migration it runs hwclock --hctosys
        "Google's guest agent",
        "google_guest_agent GCEGuestAgent google-clock-skew",
        "Synced system time with hardware clock",
    ),
    _kind("phc2sys", "phc2sys ptp4l timemaster", r"CLOCK_REALTIME .*\bs1\b|stepp(?:ed|ing) clock"),
    _kind("a leap second", KERNEL, "Clock: (?:inserting|deleting) leap second"),
    _kind("audit", AUDIT, rf"^(?!.*success=no)(?:{_SYSCALL}.* )?(?:(?:{_INJECTED}) )+sec="),
    _kind("systemd-timesyncd", "systemd-timesyncd", r"Initial (?:clock )?synchronization to|System clock time unset"),
    _kind("systemd-timesyncd", "systemd-timesyncd", "^synchronized$"),  # its file, see probes/step_causes.py
    _kind("a command", "sudo doas su pkexec", _SET_COMMAND),
    _kind("chronyd", "chronyd", rf"System clock wrong by {_SIZE}"),
    _kind("ntpdate", "ntpdate sntp ntpdig", r"adjust time server"),
    _kind(CLOCKSOURCE, KERNEL, r"clocksource: .*(?:unstable|wd[-_ ]|skewed)"),
)
"""What names a cause, the most reliable first: a program that reports its own step, then signs of one."""

_FALLS_ASLEEP = re.compile(
    r"PM: (?:hibernation: )?(?:suspend|hibernation) entry|PM: Suspending system|Preparing to enter system sleep"
    r"|Entering sleep state|Performing sleep operation|Suspending system\.\.\."
    r"|The system will (?:suspend|hibernate|sleep)"
)
_WAKES_UP = re.compile(
    r"PM: (?:hibernation: )?(?:suspend|hibernation) exit|Waking up from system sleep|Timekeeping suspended for"
    r"|System returned from sleep|System resumed|Operation '[\w-]+' finished"
)
_SLEEP_SOURCES = (KERNEL, "systemd-sleep", "systemd-logind")

SOURCES = tuple(
    sorted({source for kind in _KINDS for source in kind.sources if source != KERNEL} | {*_SLEEP_SOURCES[1:]})
)
"""Every program, besides the kernel, whose lines can name a cause."""


class Moment(NamedTuple):
    """When the clock changed: between two uptimes of one boot, by `size_us` (positive is forward)."""

    boot_id: str
    from_us: int
    to_us: int
    size_us: int

    def distance_us(self, line: LogLine) -> int:
        """Return how far a line is from the moment; 0 inside."""
        return max(self.from_us - line.monotonic_us, line.monotonic_us - self.to_us, 0)


def cause_of(moment: Moment, lines: Iterable[LogLine]) -> Cause | None:
    """Return the best of the causes that lines near the moment name; None if they name none."""
    found = (
        (rank, moment.distance_us(line), kind, line)
        for line in lines
        if line.boot_id == moment.boot_id and moment.distance_us(line) <= NEAR_US and line.is_credible
        for rank, kind in enumerate(_KINDS)
        if line.source in kind.sources and _names(kind, line, moment.size_us)
    )
    best = min(found, key=lambda one: one[:2], default=None)
    return None if best is None else _cause(*best[2:])


def _cause(kind: _Kind, line: LogLine) -> Cause:
    exe, login = _AUDIT_EXE.search(line.text), _AUDIT_LOGIN.search(line.text)
    if kind.name != AUDIT or exe is None:
        return Cause(kind.name, line, by_person=kind.name in ("a command", "systemd-timedated"))
    has_login = login is not None and login[1] not in (_NO_LOGIN, "unset")
    name = f"{exe[1]} (login uid {login[1]})" if login is not None and has_login else f"{exe[1]} (no login)"
    return Cause(name, line, by_person=has_login and exe[1].rpartition("/")[2] not in _DAEMON_EXES)


def _names(kind: _Kind, line: LogLine, size_us: int) -> bool:
    """Return whether a line names a cause of this step: a size that it states must be that of the step."""
    match = kind.pattern.search(line.text)
    if match is None:
        return False
    tolerance_us = max(_LIKE_STEP_US, _LIKE_STEP * abs(size_us))
    if kind.name == AUDIT and (injected := _AUDIT_SIZE.search(line.text)):
        return abs(int(injected[1]) * 1_000_000 + int(injected[2]) // 1000 - size_us) <= tolerance_us
    stated = next(filter(None, match.groups()), None)  # its sign differs between daemons
    return stated is None or abs(abs(float(stated)) * 1e6 - abs(size_us)) <= tolerance_us


def reports_step(cause: Cause | None) -> bool:
    """Return whether the line of a cause reports that its program stepped the clock, so that it was no suspend."""
    return cause is not None and cause.name not in (CLOCKSOURCE, "systemd-timesyncd", "a command")


def was_suspended(moment: Moment, lines: Sequence[LogLine]) -> bool:
    """Return whether the kernel or systemd reports that the host was suspended at the moment; `lines` by their uptime.

    The host falls asleep before it and wakes up after it. journald may itself be asleep before it has read the kernel's
    message that a suspend begins, and receives it after the suspend.
    """
    if moment.size_us <= 0:
        return False
    of_sleep = [
        (line, falls) for line in lines if line.boot_id == moment.boot_id and (falls := _sleep(line)) is not None
    ]
    before = [falls for line, falls in of_sleep if 0 <= moment.from_us - line.monotonic_us <= SLEEP_NEAR_US]
    after = [one for one in of_sleep if 0 <= one[0].monotonic_us - moment.to_us <= NEAR_US]
    if before:
        return before[-1]
    return bool(after) and (after[0][0].source == KERNEL or not after[0][1])


def _sleep(line: LogLine) -> bool | None:
    """Return True for a line that the host falls asleep, False that it wakes up, None for others."""
    if line.source not in _SLEEP_SOURCES or not line.is_credible:
        return None
    if line.message_id == SLEEP_START_ID or _FALLS_ASLEEP.search(line.text):
        return True
    return False if line.message_id == SLEEP_STOP_ID or _WAKES_UP.search(line.text) else None


def suspend_line(moment: Moment, lines: Iterable[LogLine]) -> Cause | None:
    """Return the line that reports the suspend of this moment, systemd's if there is one; None without any."""
    near = [
        line
        for line in lines
        if line.boot_id == moment.boot_id and moment.distance_us(line) <= SLEEP_NEAR_US and _sleep(line) is not None
    ]
    best = min(near, key=lambda line: (line.source == KERNEL, moment.distance_us(line)), default=None)
    return None if best is None else Cause("suspend", best)


def at_step(line: LogLine, moment: Moment, before_us: int, after_us: int) -> LogLine:
    """Place a line that has only the host's time in the boot of a step, which set it from `before_us` to `after_us`."""
    distances = (line.realtime_us - before_us, line.realtime_us - after_us)
    return line._replace(boot_id=moment.boot_id, monotonic_us=moment.to_us + min(distances, key=abs))

"""linuxptp: phc2sys, ptp4l and timemaster, which starts them together with chronyd or ntpd.

ptp4l has a management socket, which its own pmc reads. phc2sys reports to its log alone, timemaster reports nothing.
"""

import re
import time

from ntpaudit.core.observation import Claim, Unavailable
from ntpaudit.probes.daemons.control import report_of
from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import DaemonKind, Options, Process, Role

_SOCKET = "/var/run/ptp4l"  # unless `uds_address` names another one
_QUESTIONS = ("GET TIME_STATUS_NP", "GET CURRENT_DATA_SET", "GET PORT_DATA_SET")
_ANSWER = r"(?m)^\s+(portState|offsetFromMaster|gmPresent|gmIdentity)\s+(\S+)\s*$"
_NUMBER = r"-?\d{1,18}(\.\d{1,9})?"
_PHC2SYS_TAKES = frozenset("cdfsEPISFRNOLMiunzltD")  # options that take a value
_SOFTWARE = ("software", "legacy")  # the time stamps of the system clock
_PTP4L_TAKES = frozenset("fipl")
_SHARED_MEMORY = Role(False, "hands its time to another daemon by shared memory (ntpshm)")
_NETWORK_CARD = Role(False, "disciplines the clock of a network card")


def _phc2sys(process: Process, files: Files) -> Role:
    """Return which clock phc2sys disciplines: the system clock by default, with -a only if -r is given."""
    given = _options(process, _PHC2SYS_TAKES)
    settings, servo = _settings(process, files, given), given.last("--clock_servo", "-E")
    if (settings.get("clock_servo") if servo is None else servo) == "ntpshm":
        return _SHARED_MEMORY
    clocks = [value for name, value in given.found if name == "-c"]
    if not given.has("-r") if given.has("-a") else (clocks and "CLOCK_REALTIME" not in clocks):
        return _NETWORK_CARD
    return _unless_unseen(files)


def _ptp4l(process: Process, files: Files) -> Role:
    """With time stamps by software it disciplines the system clock, else that of the network card (ptp4l(8))."""
    given = _options(process, _PTP4L_TAKES)
    settings = _settings(process, files, given)
    stamping = _stamping(settings, given)
    if stamping is None and files.problems:
        return _unless_unseen(files)
    if stamping not in _SOFTWARE:
        return _NETWORK_CARD
    if settings.get("clock_servo") == "ntpshm":
        return _SHARED_MEMORY
    for name in ("free_running", "serverOnly", "masterOnly"):
        if settings.get(name) == "1":
            return Role(False, f"configured with {name} 1")
    return _unless_unseen(files)


def _stamping(settings: dict[str, str], given: Options) -> str | None:
    stamping = settings.get("time_stamping")
    for name, value in given.found:
        stamping = {"-H": "hardware", "-S": "software", "-L": "legacy", "--time_stamping": value}.get(name, stamping)
    return stamping


def _unless_unseen(files: Files) -> Role:
    return Role(None, files.problems[0]) if files.problems else Role(True)


def _options(process: Process, takes: frozenset[str]) -> Options:
    """Read a command line. Every setting of the file is a long option, so getopt cannot know them all."""
    found = []
    words = iter(process.arguments)
    for word in words:
        if word.startswith("--"):
            name, is_whole, value = word.partition("=")
            found.append((name, value if is_whole else next(words, "")))
        elif word.startswith("-"):
            for end, entry in enumerate(word[1:], 2):
                value = (word[end:] or next(words, "")) if entry in takes else ""
                found.append((f"-{entry}", value))
                if entry in takes:
                    break
    return Options(tuple(found))


def _settings(process: Process, files: Files, given: Options) -> dict[str, str]:
    """Return the settings of [global] in its file, and those of its command line instead."""
    named = given.last("-f")
    path = process.absolute(named, files) if named is not None else None
    settings: dict[str, str] = {}
    section = ""
    for line in files.lines(path, is_needed=True) if path is not None else ():
        match line.split():
            case [word] if word.startswith("["):
                section = word
            case [name, value, *_] if section == "[global]":
                settings[name] = value
    return settings | {name.removeprefix("--"): value for name, value in given.found if name.startswith("--")}


def _claim_of_ptp4l(process: Process, files: Files, _with_sources: bool) -> Claim | Unavailable:
    boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    given = _options(process, _PTP4L_TAKES)
    settings = _settings(process, files, given)
    where = ("-d", settings.get("domainNumber", "0"), "-s", settings.get("uds_address", _SOCKET))
    report = report_of("pmc", "-u", "-b", "0", *where, *_QUESTIONS)
    if isinstance(report, Unavailable):
        return report
    return read_claim(report, boottime_ns, is_system_clock=_stamping(settings, given) in _SOFTWARE)


def read_claim(report: str, boottime_ns: int, *, is_system_clock: bool) -> Claim | Unavailable:
    """Read what pmc prints of ptp4l. PTP has no root dispersion, so there is no bound.

    Its offset is the clock minus the grandmaster's, in ns: positive is ahead. With hardware timestamps this is the
    clock of the network card: the offset of the system clock is then known to phc2sys alone.
    """
    answers: dict[str, set[str]] = {}
    for name, value in re.findall(_ANSWER, report):
        answers.setdefault(name, set()).add(value)
    if "portState" not in answers:
        return Unavailable("ptp4l does not reply at its management socket", "check `uds_address` of its configuration")
    is_synchronised = "SLAVE" in answers["portState"]
    claim = Claim(boottime_ns, is_synchronised, authentication="none")
    if "true" in answers.get("gmPresent", ()):
        claim = claim._replace(follows=min(answers.get("gmIdentity", {"?"})))
        offset_ns = min(answers.get("offsetFromMaster", {"?"}))
        if is_system_clock and re.fullmatch(_NUMBER, offset_ns):
            claim = claim._replace(offset_s=-float(offset_ns) / 1e9)
    return claim


def _claim_of_phc2sys(process: Process, _files: Files, _with_sources: bool) -> Unavailable:
    remedy = None if process.unit is None else f"`journalctl -u {process.unit}` shows its offsets"
    return Unavailable("it reports its offset to its log alone", remedy)


_STARTER = Role(False, "leaves the clock to the daemons that it starts")  # chronyd or ntpd, which are seen as such

PHC2SYS = DaemonKind("phc2sys", ("phc2sys",), ("phc2sys",), _phc2sys, claim=_claim_of_phc2sys)
PTP4L = DaemonKind("ptp4l", ("ptp4l",), ("ptp4l",), _ptp4l, claim=_claim_of_ptp4l)
TIMEMASTER = DaemonKind("timemaster", ("timemaster",), ("timemaster",), lambda *_: _STARTER)

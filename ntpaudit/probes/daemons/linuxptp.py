"""linuxptp: phc2sys, ptp4l and timemaster, which starts them together with chronyd or ntpd."""

from collections.abc import Iterator

from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import DISCIPLINES, DaemonKind, Options, Process, Role

_PHC2SYS_TAKES = frozenset("cdfsEPISFRNOLMiunzltD")
_PTP4L_TAKES = frozenset("fipl")
"""Options that take a value."""

_SYSTEM_CLOCK = "CLOCK_REALTIME"
_SHARED_MEMORY = Role(False, "hands its time to another daemon by shared memory (ntpshm)")
_NETWORK_CARD = Role(False, "disciplines the clock of a network card")


def _phc2sys(process: Process, files: Files) -> Role:
    """Return which clock phc2sys disciplines: the system clock by default, with -a only if -r is given."""
    given = _options(process, _PHC2SYS_TAKES)
    settings = _global(process, files, given)
    if _setting(given, settings, "clock_servo", "-E") == "ntpshm":
        return _SHARED_MEMORY
    clocks = [value for name, value in given.found if name == "-c"]
    if not given.has("-r") if given.has("-a") else (clocks and _SYSTEM_CLOCK not in clocks):
        return _NETWORK_CARD
    return _unless_unseen(files)


def _ptp4l(process: Process, files: Files) -> Role:
    """With time stamps by software it disciplines the system clock, else that of the network card (ptp4l(8))."""
    given = _options(process, _PTP4L_TAKES)
    settings = _global(process, files, given)
    stamping = settings.get("time_stamping")
    for name, value in given.found:
        stamping = {"-H": "hardware", "-S": "software", "-L": "legacy", "--time_stamping": value}.get(name, stamping)
    if stamping is None and files.problems:
        return _unless_unseen(files)
    if stamping not in ("software", "legacy"):
        return _NETWORK_CARD
    if _setting(given, settings, "clock_servo") == "ntpshm":
        return _SHARED_MEMORY
    for name in ("free_running", "serverOnly", "masterOnly"):
        if _setting(given, settings, name) == "1":
            return Role(False, f"configured with {name} 1")
    return _unless_unseen(files)


def _unless_unseen(files: Files) -> Role:
    return Role(None, files.problems[0]) if files.problems else DISCIPLINES


def _options(process: Process, takes: frozenset[str]) -> Options:
    return Options(tuple(_found(iter(process.arguments), takes)))


def _found(words: Iterator[str], takes: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield options with their values. Every setting of the file is a long option, so getopt cannot know them all."""
    for word in words:
        if word.startswith("--"):
            name, is_whole, value = word.partition("=")
            yield name, value if is_whole else next(words, "")
        elif word.startswith("-"):
            for end, entry in enumerate(word[1:], 2):
                if entry in takes:
                    yield f"-{entry}", word[end:] or next(words, "")
                    break
                yield f"-{entry}", ""


def _setting(given: Options, settings: dict[str, str], name: str, entry: str = "") -> str | None:
    value = given.last(f"--{name}", entry)
    return settings.get(name) if value is None else value


def _global(process: Process, files: Files, given: Options) -> dict[str, str]:
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
    return settings


# It sets no clock itself: chronyd or ntpd, which it starts, is seen as such, with the file it was given.
_STARTER = Role(False, "leaves the clock to the daemons that it starts")

PHC2SYS = DaemonKind("phc2sys", ("phc2sys",), ("phc2sys",), _phc2sys)
PTP4L = DaemonKind("ptp4l", ("ptp4l",), ("ptp4l",), _ptp4l)
TIMEMASTER = DaemonKind("timemaster", ("timemaster",), ("timemaster",), lambda *_: _STARTER)

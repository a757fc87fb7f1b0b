"""linuxptp: phc2sys, ptp4l and timemaster, which starts them together with chronyd or ntpd."""

from collections.abc import Iterator

from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import DISCIPLINES, DaemonKind, Process, Role

_PHC2SYS_TAKES = frozenset("cdfsEPISFRNOLMiunzltD")
_PTP4L_TAKES = frozenset("fipl")
"""Options that take a value."""

_SYSTEM_CLOCK = "CLOCK_REALTIME"
_SHARED_MEMORY = Role(False, "hands its time to another daemon by shared memory (ntpshm)")
_NETWORK_CARD = Role(False, "disciplines the clock of a network card")

_Given = list[tuple[str, str]]


def _phc2sys(process: Process, files: Files) -> Role:
    """Return which clock phc2sys disciplines: the system clock by default, with -a only if -r is given."""
    given = list(_given(process.arguments, _PHC2SYS_TAKES))
    settings = _global(process, files, given)
    if _setting(given, settings, "clock_servo", "E") == "ntpshm":
        return _SHARED_MEMORY
    entries = {name for name, _ in given}
    clocks = [value for name, value in given if name == "c"]
    if ("r" not in entries) if "a" in entries else (clocks and _SYSTEM_CLOCK not in clocks):
        return _NETWORK_CARD
    return _unless_unseen(files)


def _ptp4l(process: Process, files: Files) -> Role:
    """With time stamps by software it disciplines the system clock, else that of the network card (ptp4l(8))."""
    given = list(_given(process.arguments, _PTP4L_TAKES))
    settings = _global(process, files, given)
    stamping = settings.get("time_stamping")
    for name, value in given:
        stamping = {"H": "hardware", "S": "software", "L": "legacy", "time_stamping": value}.get(name, stamping)
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


def _timemaster(_process: Process, _files: Files) -> Role:
    """It sets no clock itself: chronyd or ntpd, which it starts, is seen as such, with the file it was given."""
    return Role(False, "leaves the clock to the daemons that it starts")


def _given(words: tuple[str, ...], takes: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield options with their values. Every setting of the file is a long option, so getopt cannot know them all."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name, is_whole, value = word[2:].partition("=")
            yield name, value if is_whole else rest.pop(0) if rest else ""
        elif word.startswith("-"):
            entries = word[1:]
            while entries:
                entry, entries = entries[0], entries[1:]
                if entry in takes:
                    yield entry, entries or (rest.pop(0) if rest else "")
                    break
                yield entry, ""


def _setting(given: _Given, settings: dict[str, str], name: str, entry: str = "") -> str | None:
    return next((value for key, value in reversed(given) if key in (name, entry or name)), settings.get(name))


def _global(process: Process, files: Files, given: _Given) -> dict[str, str]:
    named = next((value for name, value in reversed(given) if name == "f"), None)
    path = process.absolute(named, files) if named is not None else None
    settings: dict[str, str] = {}
    section = ""
    for line in files.lines(path, is_needed=True) if path is not None else ():
        match line.split():
            case [word, *_] if word.startswith("#"):
                continue
            case [word] if word.startswith("["):
                section = word
            case [name, value, *_] if section == "[global]":
                settings[name] = value
    return settings


PHC2SYS = DaemonKind("phc2sys", ("phc2sys",), ("phc2sys",), _phc2sys)
PTP4L = DaemonKind("ptp4l", ("ptp4l",), ("ptp4l",), _ptp4l)
TIMEMASTER = DaemonKind("timemaster", ("timemaster",), ("timemaster",), _timemaster)

"""What a fleet comes down to in a sentence, and which of its hosts are shown."""

from collections.abc import Collection, Sequence

from ntpaudit.core.fleet.model import Fleet, HostStatus
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import plural

LONGEST_NAME = 64
"""A name that is longer is cut in its middle where it stands in a sentence, in characters."""

_CUT = "~"


def sentence(fleet: Fleet, named: int = 0) -> str:
    """Say in a sentence how a fleet stands, without the severity; the worst comes first.

    So many of the worst hosts are `named`; where no host is worse than ok, those of the worst finding.
    """
    total = len(fleet.members)
    if not total:
        return "no host is known: none has reported in the time that was looked back on"
    told = [(count, words) for count, words in _counts(fleet) if count]
    (first, (one, many, _)), *others = told
    if first == total:
        said = f"all of {plural(total, 'clock')} {many}" if total > 1 else f"the only clock {one}"
    else:
        said = f"{first} of {plural(total, 'clock')} {one if first == 1 else many}"
    is_bad = fleet.members[0].severity > Severity.OK
    if is_bad:
        said += _names([member.name for member in _alike(fleet.members)], named)
    said = ", ".join([said, *(f"{count} {short}" for count, (_, _, short) in others)])
    counted = [finding for finding in fleet.findings if finding.severity > Severity.OK]
    if not counted:
        return said
    hosts = "" if is_bad else _names(counted[0].hosts, named)
    return f"{said}; {plural(len(counted), 'finding')} about the fleet, worst {counted[0].id}{hosts}"


def _alike(members: Sequence[HostStatus]) -> Sequence[HostStatus]:
    """Return the hosts that the sentence begins with: those that are wrong for certain, else as bad as the worst."""
    worst = [one for one in members if one.severity is members[0].severity]
    return [one for one in worst if is_wrong(one)] or [one for one in worst if one.silent_s is not None] or worst


def _names(names: Collection[str], most: int) -> str:
    """Name the first of some hosts in brackets, and count the others."""
    if not most or not names:
        return ""
    told = ", ".join(map(_shortened, list(names)[:most]))
    return f" ({told} and {len(names) - most} more)" if len(names) > most else f" ({told})"


def _shortened(name: str) -> str:
    """Leave the begin and the end of a name that is too long for a sentence."""
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else name[: half - len(_CUT)] + _CUT + name[-half:]


def _counts(fleet: Fleet) -> list[tuple[int, tuple[str, str, str]]]:
    """Count the hosts by how they stand, each with its words: of one, of several, and in passing."""
    ok, warning, unknown, critical = fleet.whole.hosts
    wrong = sum(is_wrong(one) for one in fleet.members)
    silent = sum(one.silent_s is not None for one in fleet.members)
    return [
        (wrong, ("is wrong for certain", "are wrong for certain", "wrong for certain")),
        (critical - wrong, ("is critical", "are critical", "critical")),
        (silent, ("is silent", "are silent", "silent")),
        (unknown - silent, ("is not known", "are not known", "not known")),
        (warning, ("has warnings", "have warnings", "with warnings")),
        (ok, ("is ok", "are ok", "ok")),
    ]


def is_wrong(one: HostStatus) -> bool:
    """Whether a host's clock is wrong for certain."""
    return one.severity is Severity.CRITICAL and one.host is not None and one.host.verdict == "beyond"


def flagged(members: Sequence[HostStatus]) -> Sequence[HostStatus]:
    """Return the hosts that are not ok, or that the fleet suspects, in the order that they come in."""
    return [one for one in members if one.severity > Severity.OK or one.suspected]

"""A fleet in one sentence, and which of its hosts are flagged."""

from collections.abc import Collection, Sequence

from ntpaudit.core.fleet.model import Fleet, HostStatus
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import plural

LONGEST_NAME = 64  # the longest name in a sentence, in characters; a longer one is cut in its middle
_CUT = "~"


def sentence(fleet: Fleet, named: int = 0) -> str:
    """Describe a fleet in a sentence, worst first; it names `named` hosts, those of the worst finding if all are ok."""
    total = len(fleet.members)
    if not total:
        return "no host has reported within the look-back time"
    counts = [(count, words) for count, words in _counts(fleet) if count]
    (first, (one, many, _)), *others = counts
    if first == total:
        text = f"all {plural(total, 'clock')} {many}" if total > 1 else f"the only clock {one}"
    else:
        text = f"{first} of {plural(total, 'clock')} {one if first == 1 else many}"
    is_bad = fleet.members[0].severity > Severity.OK
    if is_bad:
        text += _names([member.name for member in _alike(fleet.members)], named)
    text = ", ".join([text, *(f"{count} {short}" for count, (_, _, short) in others)])
    counted = [finding for finding in fleet.findings if finding.severity > Severity.OK]
    if counted:
        hosts = "" if is_bad else _names(counted[0].hosts, named)
        text += f"; {plural(len(counted), 'fleet finding')}, worst {counted[0].id}{hosts}"
    return f"{text}; {plural(fleet.accepted, 'accepted finding')}" if fleet.accepted else text


def _alike(members: Sequence[HostStatus]) -> Sequence[HostStatus]:
    """Return the hosts that the sentence begins with: wrong for certain, else silent, else of the worst severity."""
    worst = [one for one in members if one.severity is members[0].severity]
    return [one for one in worst if is_wrong(one)] or [one for one in worst if one.silent_s is not None] or worst


def _names(names: Collection[str], most: int) -> str:
    if not most or not names:
        return ""
    first = ", ".join(map(_shortened, list(names)[:most]))
    return f" ({first} and {len(names) - most} more)" if len(names) > most else f" ({first})"


def _shortened(name: str) -> str:
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else name[: half - len(_CUT)] + _CUT + name[-half:]


def _counts(fleet: Fleet) -> list[tuple[int, tuple[str, str, str]]]:
    ok, warning, unknown, critical = fleet.whole.hosts
    wrong = sum(is_wrong(one) for one in fleet.members)
    silent = sum(one.silent_s is not None and one.severity is Severity.UNKNOWN for one in fleet.members)
    return [
        (wrong, ("is wrong for certain", "are wrong for certain", "wrong for certain")),
        (critical - wrong, ("is critical", "are critical", "critical")),
        (silent, ("is silent", "are silent", "silent")),
        (unknown - silent, ("is unknown", "are unknown", "otherwise unknown" if silent else "unknown")),
        (warning, ("has warnings", "have warnings", "with warnings")),
        (ok, ("is ok", "are ok", "ok")),
    ]


def is_wrong(one: HostStatus) -> bool:
    """Return whether a host's clock is wrong for certain."""
    return one.severity is Severity.CRITICAL and one.host is not None and one.host.verdict == "beyond"


def flagged(members: Sequence[HostStatus]) -> Sequence[HostStatus]:
    """Return the hosts that are not ok, or suspected by a fleet finding, in the same order."""
    return [one for one in members if one.severity > Severity.OK or one.suspected]

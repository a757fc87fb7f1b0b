"""A fleet as the line of a monitoring plugin: state, summary with the worst hosts, counts."""

from collections.abc import Sequence

from ntpaudit.core.fleet.model import Fleet
from ntpaudit.core.policy import Severity
from ntpaudit.formats.nagios import plugin_line
from ntpaudit.render.text_safety import decimal
from ntpaudit.reports.fleet_summary import sentence

NAMED = 3  # the number of hosts named: the line is part of notifications, and may be cut


def render(fleet: Fleet, notes: Sequence[str] = ()) -> str:
    """Write the line, with notes about the reading after the sentence; an unknown value is `U`."""
    counts = {
        "hosts": len(fleet.members),
        **{severity.word: fleet.whole.hosts[severity] for severity in Severity},
        "silent": sum(one.silent_s is not None for one in fleet.members),
        **dict(zip(("expected", "measured", "two_sources", "three_sources"), fleet.coverage, strict=True)),
        "findings": sum(finding.severity > Severity.OK for finding in fleet.findings),
        "accepted": fleet.accepted,
    }
    worst = fleet.whole.ambiguity
    ambiguity = "U" if worst is None else f"{decimal(worst.within_s)}s"
    values = [*(f"{name}={count};;;0;" for name, count in counts.items()), f"ambiguity={ambiguity};;;0;"]
    return plugin_line(fleet.severity, "; ".join([sentence(fleet, NAMED), *notes]), values)

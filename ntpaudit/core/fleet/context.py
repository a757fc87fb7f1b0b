"""The input of the rules about a fleet, and the words that their messages share."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ntpaudit.core.fleet.clock_shift import ClockShift, SiteShift
from ntpaudit.core.fleet.model import Coverage, FleetPolicy, HostStatus, Snapshot
from ntpaudit.core.fleet.ordering import Group
from ntpaudit.core.units import joined

MAX_NAMES_SHOWN = 3  # how many hosts a message names; the finding's `hosts` has all of them


class FleetContext(NamedTuple):
    """The input of every rule.

    `members` are the hosts that count, worst first. `groups` has the measured ones by site. `unlisted` hosts report
    but are not in the inventory; all others are `expected`, which `coverage` counts. `shifts` are the clocks compared
    with an earlier time, `site_shifts` the sites that moved.
    """

    snapshot: Snapshot
    policy: FleetPolicy
    members: tuple[HostStatus, ...]
    unlisted: tuple[str, ...]
    expected: Sequence[HostStatus]
    coverage: Coverage
    groups: Mapping[str | None, Group]
    shifts: Sequence[ClockShift]
    site_shifts: Mapping[str, SiteShift]


def at(site: str | None) -> str:
    """Describe where hosts are."""
    return "without a site" if site is None else f"at {site}"


def listed(names: Sequence[str]) -> str:
    """Name a few hosts, and count the others."""
    if len(names) > MAX_NAMES_SHOWN + 1:
        return f"{', '.join(names[:MAX_NAMES_SHOWN])} and {len(names) - MAX_NAMES_SHOWN} more"
    return joined(names)

"""The limits for a fleet: a module of its own, because every configuration has them, also that of an agent."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ntpaudit.core.acceptance import HostAcceptance


class FleetPolicy(NamedTuple):
    """The limits for a fleet.

    A host without a point for `silent_after_s` is silent. Events that are `ambiguity_s` apart must be orderable.
    `warning_s` is the tolerance for shifts and slow walks. `warning_s` and `critical_s` also apply to hosts that do not
    report their own tolerances. `inventory` names the hosts that should report, None if there is none; `sites` has
    their sites, if known. `exceptions` are the findings that are accepted for some hosts.
    """

    silent_after_s: float = 600.0
    ambiguity_s: float = 1.0
    warning_s: float = 0.1
    inventory: tuple[str, ...] | None = None
    sites: Mapping[str, str] = MappingProxyType({})
    critical_s: float = 1.0
    exceptions: tuple[HostAcceptance, ...] = ()

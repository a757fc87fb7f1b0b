"""The finding about time daemons of many hosts that follow sources which their site does not allow."""

from collections import defaultdict
from collections.abc import Iterator

from ntpaudit.core.checks.controls import ISO, PCI
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.fleet.context import FleetContext, at
from ntpaudit.core.fleet.model import MIN_HOSTS, HostStatus


def check_shared_unapproved(context: FleetContext) -> Iterator[Raised]:
    """Several hosts follow one source that is not approved, or each another one: probably by one configuration."""
    groups: defaultdict[str | None, list[HostStatus]] = defaultdict(list)
    for one in context.members:
        if one.silent_s is None and one.host and one.host.daemon and one.host.daemon.is_unapproved:
            groups[one.host.daemon.follows].append(one)
    shared = {source: hosts for source, hosts in groups.items() if source is not None and len(hosts) >= MIN_HOSTS}
    others = [one for source, hosts in groups.items() if source not in shared for one in hosts]
    for source, hosts in (*sorted(shared.items()), (None, others)):
        if len(hosts) >= MIN_HOSTS:
            sites = {one.site for one in hosts}
            site = next(iter(sites)) if len(sites) == 1 else None
            what = "sources that are not approved" if source is None else f"{source}, which is not approved"
            where = f"{len(hosts)} hosts{f' {at(site)}' if site else ''}"
            names = tuple(sorted(one.name for one in hosts))
            yield Raised("high", f"the time daemons of {where} follow {what}", site, source, names)


SHARED_UNAPPROVED = Rule(
    "shared-unapproved",
    check_shared_unapproved,
    "correct what gives these hosts their servers: a template, an image or DHCP; if the source is allowed, add it to "
    "sources.approved of these hosts",
    (PCI, ISO),
    raised_when={"high": "the time daemons of 3 hosts or more follow a source that their own agents do not approve"},
    meaning="Many hosts take time from a source that your site did not choose, probably by one configuration.",
    formula={"high": "hosts_that_follow_it >= 3"},
    notes="Each host's own agent judges by its `sources.approved` and `sources.role`, and raises `unapproved-source`. "
    "Hosts that follow different sources count together. VictoriaMetrics stores no texts, so there all hosts count "
    "together, and the source is not named.",
)

RULES = (SHARED_UNAPPROVED,)

"""Findings about sources that the site's policy does not allow: not approved, public, or not authenticated."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.controls import CERT_IN, CIS_SOURCES, DORA, ISO, PCI, SRG_NTS
from ntpaudit.core.checks.rule import Finding, Raised, Rule
from ntpaudit.core.ntp.patterns import Pattern, is_outside, plain_name, read_address
from ntpaudit.core.ntp.sources import is_loopback, is_pool_name, split_port
from ntpaudit.core.observation import Claim, Daemon, Observation, SourceObservation
from ntpaudit.core.units import joined

SHOWN = 4  # servers that a message names of each daemon

_FIX_DAEMON = (
    "remove these servers from the configuration of the time daemon (`server` and `pool` in chrony.conf or ntp.conf, "
    "`NTP=` and `FallbackNTP=` in timesyncd.conf, `[[source]]` in ntp.toml; DHCP may add servers), name approved "
    "ones, and restart it; if a server is allowed, add it to sources.approved of ntpaudit"
)
_FIX_OWN = (
    "change sources.servers, pool and region of ntpaudit's configuration to approved servers; if a server is allowed, "
    "add it to sources.approved"
)
_FIX_UNVERIFIED = (
    "add the addresses or networks of these servers to sources.approved, or allow ntpaudit to read the configuration "
    "of the time daemon"
)


class _Use(NamedTuple):
    """A source that a daemon, or ntpaudit itself, uses: how, and all names and addresses that are known of it."""

    verb: str
    hosts: tuple[str, ...]
    daemon: Daemon | None = None
    is_followed: bool = False

    @property
    def label(self) -> str:
        """The source in a message."""
        name, *others = self.hosts
        return f"{name} ({others[0]})" if len(others) == 1 else name


_Addresses = Mapping[str, frozenset[str]]
"""The addresses of names, as far as an audit knows them."""


def check_unapproved_source(context: AuditContext) -> Raised | None:
    """NTPA-08: the time daemon or ntpaudit itself uses a source that the site does not allow."""
    policy, observation = context.site_policy, context.observation
    if not policy.approved and policy.role is None:
        return None
    refused: list[_Use] = []
    public: list[_Use] = []
    unverified: list[_Use] = []
    for use in _uses(observation):
        is_approved = _is_approved(policy.approved, use)
        is_public = policy.role == "internal" and any(map(is_outside, use.hosts))
        if policy.approved and is_approved is False:
            refused.append(use)
        elif is_public and (is_approved is False or any(map(is_pool_name, use.hosts))):
            public.append(use)
        elif is_approved is None and use.daemon is not None and (use.is_followed or not _reports_sources(use.daemon)):
            unverified.append(use)
    if found := (*refused, *public):
        parts = (("sources that are not approved", refused), ("public sources, on an internal host", public))
        message = "; ".join(f"{what}: {_listed(uses)}" for what, uses in parts if uses)
        remedy = None if any(use.daemon for use in found) else _FIX_OWN
        if followed_uses := sum(use.is_followed for use in found):
            numbers = {"followed_sources_against_policy": followed_uses}
            return Raised("high", message, remedy=remedy, numbers=numbers)
        return Raised("medium", message, remedy=remedy, numbers={"sources_against_policy": len(found)})
    if unverified:
        message = f"whether these sources are approved cannot be verified: {_listed(unverified)}"
        return Raised("low", message, remedy=_FIX_UNVERIFIED, numbers={"unverified_sources": len(unverified)})
    return None


def _uses(observation: Observation) -> Iterator[_Use]:
    """Yield every source once for each program that uses it."""
    addresses = _known_addresses(observation)
    for daemon in observation.disciplining:
        yield from _uses_of(daemon, observation.name_of(daemon), addresses)
    own = [source for source in observation.sources if not source.needs_nts]
    yield from dict.fromkeys(_Use("ntpaudit itself queries", _identified(hosts_of(one), addresses)) for one in own)


def _uses_of(daemon: Daemon, name: str, addresses: _Addresses) -> Iterator[_Use]:
    """Yield every source of a daemon once, what it follows first."""
    seen: set[str] = set()
    uses = [(hosts, True) for hosts in followed(daemon)] + [(hosts, False) for hosts in configured_hosts(daemon)]
    for hosts, is_followed in uses:
        known = _identified(hosts, addresses)
        if seen.isdisjoint(map(plain_name, known)):
            verb = "follows" if is_followed else "is configured with"
            yield _Use(f"{name} {verb}", known, daemon, is_followed)
        seen |= set(map(plain_name, known))


def _reports_sources(daemon: Daemon) -> bool:
    """Whether a daemon reports its sources with their addresses, so that a name of its configuration adds nothing."""
    return isinstance(daemon.claim, Claim) and any(source.address for source in daemon.claim.sources)


def followed(daemon: Daemon) -> Iterator[tuple[str, ...]]:
    """Yield the name and address of each source that a daemon reports to follow; its own clock is none."""
    if not isinstance(daemon.claim, Claim) or daemon.claim.is_synchronised is False:
        return
    sources = [_both(one.name, one.address) for one in daemon.claim.sources if one.is_followed]
    yield from sources
    if daemon.claim.follows and not any(daemon.claim.follows in hosts for hosts in sources):
        yield (daemon.claim.follows,)


def configured_hosts(daemon: Daemon) -> Iterator[tuple[str, ...]]:
    """Yield the name and address of each source that a daemon reports, or is configured with."""
    if isinstance(daemon.claim, Claim):
        yield from (_both(source.name, source.address) for source in daemon.claim.sources)
    if daemon.configuration is not None:
        yield from ((server.host,) for server in daemon.configuration.servers)


def _both(name: str, address: str | None) -> tuple[str, ...]:
    return (name,) if address is None or address == name else (name, address)


def hosts_of(source: SourceObservation) -> tuple[str, ...]:
    """Return the name of an own source, without its port or its number in a pool, and its address if it is no pool."""
    zone, slash, _ = source.name.partition("/")
    if slash:
        return (zone,)
    try:
        host = split_port(source.name)[0]
    except ValueError:
        host = source.name
    return _both(host, source.address)


def _known_addresses(observation: Observation) -> _Addresses:
    found = [(hosts_of(source)[0], source.address) for source in observation.sources]
    for daemon in observation.disciplining:
        if isinstance(daemon.claim, Claim):
            found += [(source.name, source.address) for source in daemon.claim.sources]
    addresses: dict[str, frozenset[str]] = {}
    for name, address in found:
        if address is not None and read_address(name) is None:
            addresses[plain_name(name)] = addresses.get(plain_name(name), frozenset()) | {address}
    return addresses


def _identified(hosts: tuple[str, ...], addresses: _Addresses) -> tuple[str, ...]:
    """Return the names and addresses of a source, completed by what this audit knows of them."""
    if len(hosts) > 1:
        return hosts
    if read_address(hosts[0]) is not None:
        return (*(name for name, known in addresses.items() if hosts[0] in known), *hosts)
    return (*hosts, *sorted(addresses.get(plain_name(hosts[0]), ())))


def _is_approved(patterns: Sequence[Pattern], use: _Use) -> bool | None:
    """Whether a source is approved; None if that cannot be verified.

    An address is approved as well if a name may have it that is approved, and that the daemon is configured with: names
    of pools have other addresses each time.
    """
    if any(map(_is_local, use.hosts)) or _match(patterns, use.hosts):
        return True
    are_names = {read_address(host) is None for host in use.hosts}
    if are_names == {True}:  # a network may contain the address that it has
        return None if any(pattern.network is not None for pattern in patterns) else False
    if are_names == {True, False} or use.daemon is None:
        return False
    configured = use.daemon.configuration
    if configured and _match(patterns, [one.host for one in configured.servers if read_address(one.host) is None]):
        return True
    is_complete = configured is not None and not configured.problems
    return False if is_complete or all(pattern.network is not None for pattern in patterns) else None


def _match(patterns: Sequence[Pattern], hosts: Iterable[str]) -> bool:
    return any(pattern.matches(host) for host in hosts for pattern in patterns)


def _is_local(host: str) -> bool:
    return is_loopback(host) or plain_name(host) == "localhost"


def _listed(uses: Sequence[_Use]) -> str:
    grouped: dict[str, list[str]] = {}
    for use in uses:
        grouped.setdefault(use.verb, []).append(use.label)
    return "; ".join(f"{verb} {_few(labels)}" for verb, labels in grouped.items())


def _few(labels: Sequence[str]) -> str:
    return joined([*labels[:SHOWN], f"{len(labels) - SHOWN} more"] if len(labels) > SHOWN else labels)


UNAPPROVED_SOURCE = Rule(
    "unapproved-source",
    check_unapproved_source,
    _FIX_DAEMON,
    (PCI, ISO, CIS_SOURCES, DORA, CERT_IN),
    raised_when={
        "high": "the time daemon follows a source that `sources.approved` does not name, or, if `sources.role` is "
        "`internal`, a public one",
        "medium": "the time daemon is configured with such a source, or ntpaudit itself queries one",
        "low": "the time daemon reports an address only, or a name where `sources.approved` has networks, so that it "
        "cannot be verified whether it is approved",
    },
    meaning="This host takes time, or compares its clock, with sources that your site did not choose.",
    formula={
        "high": "followed_sources_against_policy > 0",
        "medium": "sources_against_policy > 0",
        "low": "unverified_sources > 0",
    },
    case_remedies={"only ntpaudit uses such a source": _FIX_OWN, "the level is low": _FIX_UNVERIFIED},
    notes="Only raised if `sources.approved` or `sources.role` is set. A program that does not discipline the clock "
    "(`chronyd -x`, or one without CAP_SYS_TIME) is not judged. Addresses of this host are approved. So is an address "
    "that a daemon follows if it is configured with an approved name: a name may have any address. With "
    "`sources.role`, a source that `sources.approved` names is not public, except a zone of pool.ntp.org.",
    of_daemon=True,
    message_id="08cf6454ac6e4640a3b5fec7834dd4c0",
)


def is_followed_against_policy(finding: Finding) -> bool:
    """Whether a raised finding is that the time daemon follows a source that the site does not allow."""
    return finding.id == UNAPPROVED_SOURCE.id and finding.level == "high"


_FIX_UNAUTHENTICATED = (
    "configure servers with NTS (`nts` after a server in chrony.conf and NTPsec's ntp.conf, mode `nts` in ntp.toml) or "
    "with a symmetric key (`key`), and restart the time daemon; systemd-timesyncd and OpenNTPD have neither: use "
    "another time daemon"
)
_FIX_UNKNOWN = "allow ntpaudit to read the configuration of the time daemon, or configure NTS or a key for each server"


def check_unauthenticated(context: AuditContext) -> Raised | None:
    """The time daemon follows a server without NTS or a key, although the site requires one."""
    if not context.site_policy.require_authentication:
        return None
    unsafe: list[str] = []
    unknown: list[str] = []
    for daemon in context.observation.disciplining:
        for label, is_authenticated in _authentications(daemon):
            if is_authenticated is not True:
                (unknown if is_authenticated is None else unsafe).append(
                    f"{context.observation.name_of(daemon)} {label}"
                )
    if unsafe:
        message = f"servers without authentication: {'; '.join(unsafe[:SHOWN])}"
        return Raised("medium", message, numbers={"unauthenticated_servers": len(unsafe)})
    if unknown:
        message = f"whether these servers are authenticated cannot be verified: {'; '.join(unknown[:SHOWN])}"
        return Raised("low", message, remedy=_FIX_UNKNOWN, numbers={"unverified_servers": len(unknown)})
    return None


def _authentications(daemon: Daemon) -> Iterator[tuple[str, bool | None]]:
    """Yield the servers that a daemon follows, else its configuration, and whether each is authenticated.

    A daemon without a configuration of servers is none of NTP: it follows another clock.
    """
    servers = daemon.configuration.servers if daemon.configuration else ()
    is_complete = daemon.configuration is not None and not daemon.configuration.problems
    safe = {server.nts or server.key for server in servers}
    of_all = safe.pop() if len(safe) == 1 and is_complete else None
    if not isinstance(daemon.claim, Claim):
        if daemon.configuration is not None:
            yield "is configured with " + _few([server.host for server in servers] or ["unknown servers"]), of_all
        return
    reported = {source.name: source.authentication for source in daemon.claim.sources}
    configured = {plain_name(server.host): server.nts or server.key for server in servers}
    for hosts in followed(daemon):
        of_claim = daemon.claim.authentication if daemon.claim.follows in hosts else None
        authentication = reported.get(hosts[0]) or of_claim
        found = [configured[name] for name in map(plain_name, hosts) if name in configured]
        is_clock = not found and all(_is_local(host) or ("." not in host and ":" not in host) for host in hosts)
        if authentication is not None:
            yield f"follows {hosts[0]}", authentication != "none"
        elif not is_clock and daemon.configuration is not None:
            yield f"follows {hosts[0]}", found[0] if found else of_all


UNAUTHENTICATED = Rule(
    "unauthenticated",
    check_unauthenticated,
    _FIX_UNAUTHENTICATED,
    (SRG_NTS,),
    raised_when={
        "medium": "`sources.require_authentication` is set, and the time daemon follows a server without NTS or a "
        "symmetric key; where it does not report what it follows, all of its servers are without",
        "low": "the same, and neither the time daemon nor its configuration shows whether the server is authenticated",
    },
    meaning="An attacker on the network path can change the time of this host.",
    formula={"medium": "unauthenticated_servers > 0", "low": "unverified_servers > 0"},
    case_remedies={"the level is low": _FIX_UNKNOWN},
    notes="Reference clocks are not judged, nor programs that do not discipline the clock (`chronyd -x`), nor the "
    "queries of ntpaudit itself, which never set a clock.",
    of_daemon=True,
    message_id="98fc29eb4dcc41b78a6aec83c5195bb5",
)

RULES = (UNAPPROVED_SOURCE, UNAUTHENTICATED)

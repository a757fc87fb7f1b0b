"""Hosts and sites whose policy judges sources, authentication, smears and log pipelines, and accepts findings."""

from typing import Any

from ntpaudit.core.acceptance import Acceptance
from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.ntp.patterns import parse_pattern
from ntpaudit.core.observation import (
    Authentication,
    Claim,
    ClaimedSource,
    Configuration,
    ConfiguredServer,
    Daemon,
    KernelState,
    Unavailable,
)
from ntpaudit.core.site_policy import SitePolicy
from tests.core.worlds import (
    CHRONYD,
    DAY,
    FOUR,
    MS,
    NOON,
    SYNCHRONISED,
    S,
    answered,
    case,
    measurement,
    reading,
    reply,
)

NEW_YEAR = 1_798_761_600 * S
"""2027-01-01T00:00:00Z, where a leap second may end."""


def site(*approved: str, **more: Any) -> SitePolicy:
    """Return the policy of a site that approves these patterns."""
    return SitePolicy(tuple(map(parse_pattern, approved)), **more)


def following(
    follows: str | None,
    *sources: ClaimedSource,
    servers: tuple[str | ConfiguredServer, ...] | None = (),
    problem: str | None = None,
    authentication: Authentication | None = None,
) -> Daemon:
    """Return chronyd as it follows a source, with its other sources and the servers of its configuration."""
    claim = Claim(DAY, True, follows, authentication=authentication, sources=sources)
    return CHRONYD._replace(claim=claim, configuration=configured(servers, problem))


def silent(*servers: str | ConfiguredServer, problem: str | None = None) -> Daemon:
    """Return chronyd whose claim cannot be read."""
    claim = Unavailable("its command port is closed", "remove `cmdport 0`")
    return CHRONYD._replace(claim=claim, configuration=configured(servers, problem))


def configured(servers: tuple[str | ConfiguredServer, ...] | None, problem: str | None) -> Configuration | None:
    """Return a configuration with these servers; None where there is none."""
    if servers is None:
        return None
    named = tuple(ConfiguredServer(one) if isinstance(one, str) else one for one in servers)
    return Configuration(named, () if problem is None else (problem,))


def judged(policy: SitePolicy, *daemons: Daemon, sources: Any = FOUR, **seen: Any) -> AuditContext:
    """Return a host of a site; ntpaudit's own servers are ntp1 to ntp4.example.net."""
    return case(*sources, daemons=daemons, **seen)._replace(site_policy=policy)


def offset_by(offset_ns: int, policy: SitePolicy, half_width_ns: int = 10 * MS) -> AuditContext:
    """Return a host of a site, whose clock is wrong."""
    sources = (answered(number, measurement(offset_ns, half_width_ns)) for number in (1, 2, 3, 4))
    return case(*sources)._replace(site_policy=policy)


def near_leap(
    since_ns: int,
    *offsets_ns: int,
    leaps: tuple[int, ...] = (),
    kernel: KernelState = SYNCHRONISED,
    daemons: tuple[Daemon, ...] = (CHRONYD,),
) -> AuditContext:
    """Return a host at a time after (negative: before) the end of a year, and servers with offsets and indicators."""
    taken = reading(NEW_YEAR + since_ns)
    sources = [
        answered(
            number, measurement(offset_ns, after=taken, said=reply(leap=leap, reference_id=bytes((10, 0, 0, number))))
        )
        for number, (offset_ns, leap) in enumerate(zip(offsets_ns, leaps or (0,) * len(offsets_ns), strict=True), 1)
    ]
    return case(*sources, taken=taken, kernel=kernel, daemons=daemons)


SITE = site("*.example.net")
INTERNAL = SitePolicy(role="internal")
AUTHENTICATED = SitePolicy(require_authentication=True)
POOL = answered(7, name="0.pool.ntp.org/1", address="203.0.113.9")
INSIDE = tuple(answered(number, address=f"10.0.{number}.1") for number in (1, 2, 3, 4))

APPROVAL_HOSTS = (
    judged(SITE, following("time.example.org", servers=("time.example.org",))),
    judged(
        SITE,
        following(
            "time.example.org",
            ClaimedSource("time.example.org", "198.51.100.7", is_followed=True),
            ClaimedSource("ntp9.example.org", "198.51.100.9"),
        ),
    ),
    judged(SITE, silent("ntp1.example.net", *(f"ntp{number}.example.org" for number in range(1, 7)))),
    judged(SITE, sources=(*FOUR, POOL)),
    judged(SITE, following("198.51.100.7", servers=(), problem="/etc/chrony/chrony.conf cannot be read")),
    judged(INTERNAL, following("8.8.4.4", servers=("8.8.4.4",)), sources=INSIDE),
    judged(INTERNAL, sources=(*INSIDE, POOL)),
    judged(AUTHENTICATED, following("ntp1.example.net", authentication="none")),
    judged(AUTHENTICATED, silent("ntp1.example.net", "ntp2.example.net")),
    judged(AUTHENTICATED, following("192.0.2.1", servers=("ntp1.example.net",), problem="/etc/chrony/chrony.conf")),
)
"""Hosts on which the rules about approved and authenticated sources raise each of their messages."""

_GOOGLE = "time.google.com"
_LEAPS = (1, 1, 1, 0)
SMEAR_HOSTS = (
    near_leap(-21_600 * S, 0, 0, 0, -250 * MS, leaps=_LEAPS),
    near_leap(-50_000 * S, 0, 0, 0, 0, leaps=_LEAPS),
    near_leap(-50_000 * S, 0, 0, 0, 0, leaps=(1, 1, 1, 1), daemons=(silent(_GOOGLE, "ntp1.example.net"),)),
    judged(SitePolicy(), silent(_GOOGLE, "ntp1.example.net", "ntp2.example.net")),
    judged(SitePolicy(), silent(_GOOGLE, "time.facebook.com")),
    case(*FOUR[:3], answered(4, measurement(said=reply(reference_id=b"\x7f\x7f\x01\xff")))),
    case(*FOUR[:3], answered(4, measurement(said=reply(leap=1)))),
)
"""Hosts on which the rule about smears raises each of its messages."""

_LATE = SitePolicy(pipelines=("loki", "splunk", "elastic", "influxdb"), lag_s=30.0)
INGEST_HOSTS = (
    offset_by(-900 * S, _LATE),
    offset_by(-2 * DAY, _LATE),
    offset_by(300 * S, _LATE),
    offset_by(9 * DAY, SitePolicy(pipelines=("loki", "cloudwatch", "kafka"))),
    offset_by(600 * S, SitePolicy(pipelines=("sentinel",), rule_interval_s=300.0, rule_lookback_s=300.0)),
)
"""Hosts on which the rule about log pipelines raises each of its messages."""


def accepting(*findings: str, until_ns: int | None = NOON + DAY) -> SitePolicy:
    """Return the policy of a site where these findings are accepted until a time, by default for a day from NOON on."""
    return SitePolicy(accepted=tuple(Acceptance(one, "container", "ops, ticket 1234", until_ns) for one in findings))


ACCEPTING_HOSTS = tuple(judged(accepting("unsynced", until_ns=end_ns), CHRONYD) for end_ns in (NOON, None))
"""Hosts on which the rule about acceptances raises each of its messages."""

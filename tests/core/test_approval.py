"""The findings about sources that a site does not approve, and about servers without authentication."""

import pytest

from ntpaudit.core.checks.approval import UNAPPROVED_SOURCE, UNAUTHENTICATED
from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.observation import (
    Claim,
    ClaimedSource,
    ConfiguredServer,
    HiddenDaemons,
    SourceFailure,
    SourceObservation,
)
from ntpaudit.core.site_policy import SitePolicy
from tests.core.policies import AUTHENTICATED, INSIDE, INTERNAL, POOL, SITE, following, judged, silent, site
from tests.core.worlds import CHRONYD, DAY, FOUR, answered, case

OUTSIDER = "time.example.org"
ADDRESS = "198.51.100.7"
UNREADABLE = "/etc/chrony/chrony.conf cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("context", "level", "words"),
    [
        (judged(SITE, following(OUTSIDER)), "high", f"chronyd follows {OUTSIDER}"),
        (judged(SITE, following(f"{OUTSIDER}.")), "high", "chronyd follows"),
        (judged(SITE, following(ADDRESS, servers=(OUTSIDER,))), "high", f"chronyd follows {ADDRESS}"),
        (judged(site("192.0.0.0/16"), following("198.51.100.7", servers=None)), "high", "chronyd follows"),
        (
            judged(SITE, following("ntp1.example.net", ClaimedSource(ADDRESS, is_followed=True), servers=(ADDRESS,))),
            "high",
            f"chronyd follows {ADDRESS}",
        ),
        (judged(SITE, following("ntp1.example.net", ClaimedSource(OUTSIDER, ADDRESS))), "medium", "is configured with"),
        (judged(SITE, following("ntp1.example.net", servers=("ntp1.example.net", OUTSIDER))), "medium", OUTSIDER),
        (judged(SITE, silent(OUTSIDER)), "medium", f"chronyd is configured with {OUTSIDER}"),
        (judged(SITE, silent(ADDRESS)), "medium", ADDRESS),
        (judged(SITE, sources=(*FOUR, POOL)), "medium", "ntpaudit itself queries 0.pool.ntp.org"),
        (judged(SITE, sources=(answered(9, name="192.0.2.9:1123", address="192.0.2.9"),)), "medium", "192.0.2.9"),
        (judged(SITE, following("GPS")), "high", "follows GPS"),
        (judged(SITE, following(ADDRESS, problem=UNREADABLE)), "low", "cannot be verified"),
        (judged(SITE, following(ADDRESS, servers=None)), "low", "cannot be verified"),
        (judged(site("192.0.0.0/16"), silent("ntp9.example.net")), "low", "ntp9.example.net"),
        (judged(INTERNAL, following("8.8.8.8"), sources=INSIDE), "high", "public sources, on an internal host"),
        (judged(INTERNAL, silent("2.debian.pool.ntp.org"), sources=INSIDE), "medium", "debian.pool.ntp.org"),
        (judged(INTERNAL, sources=(*INSIDE, POOL)), "medium", "ntpaudit itself queries 0.pool.ntp.org"),
        (
            judged(site("*.ntp.org", role="internal"), silent("2.debian.pool.ntp.org"), sources=()),
            "medium",
            "public sources",
        ),
    ],
)
def test_what_is_not_allowed(context: AuditContext, level: str, words: str) -> None:
    """What is followed is worse than what is only configured or queried; what is not proven does not count."""
    found = UNAPPROVED_SOURCE.check(context)
    assert found is not None
    assert (found.level, words in found.message) == (level, True), found.message


@pytest.mark.parametrize(
    "context",
    [
        case(*FOUR, POOL, daemons=(following("8.8.8.8"),)),
        judged(SITE, following("NTP1.Example.Net.", servers=("ntp1.example.net",))),
        judged(SITE, following("192.0.1.1")),
        judged(SITE, following(ADDRESS, servers=("ntp.example.net",))),
        judged(SITE, following(ADDRESS, ClaimedSource("ntp9.example.net", ADDRESS, is_followed=True))),
        judged(SITE, following(ADDRESS, ClaimedSource("ntp9.example.net", ADDRESS))),
        judged(site("198.51.100.0/24", "192.0.0.0/16"), following(OUTSIDER, ClaimedSource(OUTSIDER, ADDRESS))),
        judged(site("*.example.net", "GPS"), following("GPS")),
        judged(site("*.example.net", "2001:db8::/32"), following("[2001:db8::1]")),
        judged(site("bücher.example", "192.0.0.0/16"), silent("xn--bcher-kva.example")),
        judged(site("*.example.net", "*.pool.ntp.org"), silent("2.debian.pool.ntp.org"), sources=(POOL,)),
        judged(SITE, following("127.0.0.1"), sources=(*FOUR, answered(8, name="localhost", address="127.0.0.1"))),
        judged(
            site("192.0.0.0/16"), following("192.0.1.1", ClaimedSource("192.0.1.1", "192.0.1.1"), servers=("ntp.x",))
        ),
        judged(SITE, CHRONYD._replace(claim=Claim(DAY, False, "LOCAL"))),
        judged(SITE, CHRONYD._replace(disciplines=False, configuration=silent(OUTSIDER).configuration)),
        judged(SITE, sources=(SourceObservation(OUTSIDER, None, 123, SourceFailure("skipped", "nts")),)),
        judged(INTERNAL, following("10.0.0.1"), sources=INSIDE),
        judged(INTERNAL, following("169.254.169.123"), sources=INSIDE),
        judged(INTERNAL, following("fd00::1", servers=("ntp.corp",)), sources=INSIDE),
        judged(INTERNAL, silent("ntp1.example.net"), sources=INSIDE),
        judged(site("8.8.8.8", "10.0.0.0/8", role="internal"), following("8.8.8.8"), sources=INSIDE),
        judged(SitePolicy(role="designated"), following("8.8.8.8"), sources=(*INSIDE, POOL)),
    ],
)
def test_what_is_allowed(context: AuditContext) -> None:
    """Names that differ in form, addresses that an approved name may have, pools by their zone, this host itself."""
    assert UNAPPROVED_SOURCE.check(context) is None, UNAPPROVED_SOURCE.check(context)


def test_a_source_is_named_once_and_with_its_fix() -> None:
    """A source that is followed is not listed again as configured; what only ntpaudit uses has its own fix."""
    both = following(OUTSIDER, ClaimedSource(OUTSIDER, ADDRESS, is_followed=True), servers=(OUTSIDER, OUTSIDER.upper()))
    found = UNAPPROVED_SOURCE.check(judged(SITE, both))
    assert found
    assert found.message.lower().count(OUTSIDER) == 1
    assert found.remedy is None
    own = UNAPPROVED_SOURCE.check(judged(SITE, sources=(*FOUR, POOL)))
    assert own
    assert own.remedy
    assert "sources.servers" in own.remedy


def test_visible_daemons_are_judged_although_others_may_be_hidden() -> None:
    """In a sandbox that hides processes, what is seen still counts."""
    context = case(daemons=HiddenDaemons("hidden", (following(OUTSIDER),)))._replace(site_policy=SITE)
    assert UNAPPROVED_SOURCE.check(context)


NTS = ConfiguredServer("ntp1.example.net", nts=True)
KEY = ConfiguredServer("ntp2.example.net", key=True)


@pytest.mark.parametrize(
    ("context", "level"),
    [
        (judged(AUTHENTICATED, following("ntp1.example.net", authentication="none")), "medium"),
        (
            judged(
                AUTHENTICATED,
                following(
                    "ntp1.example.net",
                    ClaimedSource("ntp1.example.net", is_followed=True, authentication="nts"),
                    ClaimedSource("ntp2.example.net", is_followed=True, authentication="none"),
                    authentication="nts",
                ),
            ),
            "medium",
        ),
        (judged(AUTHENTICATED, following("ntp3.example.net", servers=(NTS, "ntp3.example.net"))), "medium"),
        (judged(AUTHENTICATED, following("192.0.3.1", servers=("ntp3.example.net",))), "medium"),
        (judged(AUTHENTICATED, silent("ntp3.example.net", "ntp4.example.net")), "medium"),
        (judged(AUTHENTICATED, following("ntp1", servers=("ntp1",))), "medium"),
        (judged(AUTHENTICATED, following("192.0.3.1", servers=(NTS, "ntp3.example.net"))), "low"),
        (judged(AUTHENTICATED, following("192.0.3.1", servers=(NTS,), problem=UNREADABLE)), "low"),
        (judged(AUTHENTICATED, silent(NTS, "ntp3.example.net")), "low"),
        (judged(AUTHENTICATED, silent(problem=UNREADABLE)), "low"),
    ],
)
def test_unauthenticated(context: AuditContext, level: str) -> None:
    """A server without NTS or key; what cannot be verified does not count."""
    found = UNAUTHENTICATED.check(context)
    assert found is not None
    assert found.level == level, found.message


@pytest.mark.parametrize(
    "context",
    [
        judged(SitePolicy(), following("ntp1.example.net", authentication="none")),
        judged(AUTHENTICATED, following("ntp1.example.net", authentication="nts")),
        judged(AUTHENTICATED, following("ntp1.example.net", authentication="key")),
        judged(AUTHENTICATED, following("192.0.3.1", servers=(NTS, KEY))),
        judged(AUTHENTICATED, following("NTP2.example.net.", servers=(NTS, KEY, "ntp3.example.net"))),
        judged(AUTHENTICATED, silent(NTS, KEY)),
        judged(AUTHENTICATED, following("GPS", servers=("ntp3.example.net",))),
        judged(AUTHENTICATED, following(None, servers=("ntp3.example.net",))),
        judged(AUTHENTICATED, following("001122.fffe.334455", servers=None)),
        judged(AUTHENTICATED, CHRONYD),
        judged(AUTHENTICATED),
    ],
)
def test_authenticated(context: AuditContext) -> None:
    """With NTS or a key, by the daemon or by its configuration; a reference clock; nothing followed."""
    assert UNAUTHENTICATED.check(context) is None, UNAUTHENTICATED.check(context)

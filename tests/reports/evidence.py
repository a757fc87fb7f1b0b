"""Evidence reports made by hand, for the tests of what writes them."""

from ntpaudit.core.acceptance import Acceptance, HostAcceptance
from ntpaudit.core.accounting import InForce, Spans
from ntpaudit.core.accounts import Account
from ntpaudit.core.evidence.model import (
    Check,
    HostEvent,
    HostRecords,
    Period,
    SourceUse,
    StepOfClock,
)
from ntpaudit.core.evidence.report import EvidenceReport, Inputs, assemble
from ntpaudit.core.excursions import Excursion
from ntpaudit.core.policy import PROFILES
from ntpaudit.core.units import NS_PER_S
from ntpaudit.reports.evidence_json import Made

DAY = 86_400
BEGIN = 1_782_864_000  # 2026-07-01
DAYS = 92
PERIOD = Period(BEGIN, BEGIN + DAYS * DAY)
MADE = Made("2026-10-02 08:00:00 UTC", "1.2.3")


def day(number: int, name: str = "web1", **spans: int) -> Account:
    """Return the account of a day of the period, whose time is within but for `spans`."""
    begin_s = BEGIN + number * DAY
    settings = (InForce(begin_s, name, "ams", None, "machine", "1.1", "ab" * 32, PROFILES["log-integrity"]),)
    within = DAY - sum(spans.values())
    return Account(
        begin_s, DAY, Spans(within=within, **spans), 1440, -0.01, 0.02, 0.02, two_sources_s=DAY, in_force=settings
    )


def host(name: str = "web1", site: str | None = "ams", count: int = DAYS) -> HostRecords:
    """Return a host with one of everything."""
    accounts = [day(number, name) for number in range(count)]
    accounts[3] = day(3, name, beyond=7265, unmeasured=60)
    accounts[4] = day(4, name, off=3600, absent=30, unproven=5)
    begin_s = BEGIN + 3 * DAY + 600
    return HostRecords(
        name,
        site,
        tuple(accounts),
        (
            Excursion("beyond", begin_s, begin_s + 7265, False, 1.1, 1.35, 1.1, 1.35, ("offset-out",), "step of 1.2 s"),
            Excursion("unproven", begin_s + DAY, begin_s + DAY + 5, True, -0.9, 1.1, 0.0, 1.1, ("not-demonstrable",)),
        ),
        (StepOfClock(begin_s, 1.2, "chronyd"), StepOfClock(begin_s + 60, None)),
        (
            SourceUse("ntp1.example.net", BEGIN, PERIOD.end_s - 1, True),
            SourceUse("ntp9.example.net", BEGIN, BEGIN + 60, False),
        ),
        (HostEvent(begin_s, "offset-out", "critical", True, "2 s behind"),),
        ("3 rows are damaged and not used",),
    )


def quarter(*more: HostRecords) -> EvidenceReport:
    """Return a report with everything that a report can have."""
    good = HostRecords("db1", "fra", tuple(day(number, "db1") for number in range(DAYS)))
    exceptions = (
        HostAcceptance(Acceptance("offset-out", "change 4711", "J. Doe", (BEGIN + 4 * DAY) * NS_PER_S), "web*"),
        HostAcceptance(Acceptance("evidence-gap", "=HYPERLINK()", "J. Doe"), None, "fra"),
    )
    checks = (Check("chain", "passed", "123 rows"), Check("heads", "not-done", "no database"))
    inputs = Inputs(
        PERIOD,
        "a database",
        {"web1": "ams", "db1": "fra", "never": ""} | {one.name: "" for one in more},
        exceptions,
        checks=checks,
        hashes={"inventory": "12" * 32},
        previous="34" * 32,
    )
    return assemble([host(), good, host("unlisted", None), *more], inputs)

"""The parts that are the same in every report: how time is measured and accounted for, and what is not proven."""

from typing import NamedTuple

from ntpaudit.core.accounting import GRACE


class Published(NamedTuple):
    """The figures of docs/truth.md (a test compares them): statements about simulated clocks, and how many were wrong.

    `limit` is the upper limit of the share of wrong statements, with 95 % confidence.
    """

    host_hours: int
    worlds: int
    statements: int
    missed: int
    limit: str


PUBLISHED = Published(1_000_000, 5_000, 3_210_207, 0, "0.00011 %")

METHOD = (
    "On each host an agent queries several NTP servers, independently of the program that sets the clock. Each reply "
    "gives an interval that contains the difference between the host's clock and UTC as the server has it. All replies "
    "together give one interval. Between two measurements it is carried forward and becomes wider.",
    "The verdict compares the whole interval with the critical tolerance. Within: the whole interval is inside. "
    "Beyond: the whole interval is outside, so the clock was wrong for certain. Unproven: neither can be shown.",
    "Time is accounted for by the second. The time between two records has the worse verdict of the two if it is at "
    f"most {GRACE} intervals long. Longer time is unmeasured (the agent ran and had no valid interval), absent "
    "(the host ran, the agent did not) or off (the host was off or suspended). Time of which no account is stored is "
    "unaccounted. For each host the seven states add up to the period.",
    "Time without a proof counts as not within: unproven, beyond, unmeasured, absent and unaccounted. Only "
    "two kinds of time do not count: off, because a host that is off writes no logs, and time that an exception "
    "covers. That off is left out rests on the host's own boot ids and uptime; its seconds are listed for each "
    "host. Each share of time within is rounded down, each share of other time is rounded up, and the denominator is "
    "stated.",
    "Times are UTC by the measured intervals, not by the host's own clock.",
)
"""How a report comes about, paragraph by paragraph."""

ASSUMPTIONS = (
    "At most f of the queried servers are wrong: 1 of 4, 2 of 7. Where replies disprove this, a finding says so.",
    "The host's oscillator is off by at most 50 ppm, or the kernel's correction plus 15 ppm if that is more, or the "
    "configured host.max_drift_ppm.",
    "The kernel's raw clock counts all time that passes. It does not count while a hypervisor pauses a virtual "
    "machine. The first replies after the pause show it; until then it cannot be detected.",
    "The servers' UTC is right. The report does not trace their time to a national laboratory.",
    "The kernel and the agent are what they claim to be. See the last part: root on the host can lie.",
)
"""What a guarantee rests on."""

LIMITS = (
    "That a program recorded its events at the time when they happened, or that a log is complete.",
    "That root on the host was honest. From the moment of a compromise on, root can make the agent record anything. "
    "What had been delivered to another system or anchored before that moment cannot be changed unseen.",
    "That hosts which are not in the inventory do not exist. Without an inventory the coverage cannot be stated.",
    "That a record was not changed, where no check under Verification has passed.",
    "Compliance with any rule. The report states facts that bear on clauses; whether they suffice is your auditor's "
    "decision. It is not legal advice.",
)
"""What no report proves."""


def uncertainty() -> str:
    """Return how often intervals were wrong in the published simulation."""
    one = PUBLISHED
    return (
        f"In the published simulation ({one.host_hours:,} host-hours in {one.worlds:,} simulated worlds, "
        f"docs/truth.md) the interval missed the true time in {one.missed:,} of {one.statements:,} statements, which "
        f"is below {one.limit} with 95 % confidence, under the first assumption. The largest possible error of each "
        "host is stated below; it includes the errors of the servers as they state them, the network delay and the "
        "drift."
    )

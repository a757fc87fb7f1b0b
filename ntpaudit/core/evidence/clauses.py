"""Clauses of rules, what a report shows that bears on each, and what it does not show.

All of them were verified in the rule's text or a quotation of it; the words are ours. Nothing here is legal advice.
"""

from typing import NamedTuple

from ntpaudit.core.checks import controls


class Clause(NamedTuple):
    """A clause: what it asks in short, what a report shows, and what it does not."""

    name: str
    asks: str
    shows: str
    lacks: str


_SHARES = "the share of time within the tolerance, excursions, gaps"
_NO_NUMBER = "The rule states no number: your organisation sets the tolerance."

CLAUSES = (
    Clause(
        controls.ISO,
        "Clocks are synchronised to approved time sources.",
        f"{_SHARES}, the servers that hosts used",
        f"who approved the sources and the tolerance. {_NO_NUMBER}",
    ),
    Clause(
        controls.ISO_GUIDE,
        "In cloud and hybrid use, each service's clock is monitored and the difference is recorded.",
        "that the difference was measured and recorded, and when not",
        f"services that run no agent. {_NO_NUMBER}",
    ),
    Clause(
        "PCI DSS 10.6.1",
        "Time synchronisation technology is in use and kept current.",
        "that clocks were measured against time servers, and changes of ntpaudit's own version",
        "the patch level of the time daemon.",
    ),
    Clause(
        controls.PCI,
        "Systems have the correct and consistent time, and internal systems get it only from designated servers.",
        f"{_SHARES}; findings about sources that are not approved",
        f"where designated servers get their time, unless they run an agent. {_NO_NUMBER}",
    ),
    Clause(
        controls.PCI_CHANGES,
        "Access to time data is restricted, and changes of time settings on critical systems are logged, monitored and "
        "reviewed.",
        "steps of the clock, changes of time settings and of ntpaudit's configuration",
        "who has access, and that somebody reviewed the changes: the sign-off below is for that.",
    ),
    Clause(
        "PCI DSS 10.5.1",
        "Audit log history is kept for 12 months, the last 3 months at hand.",
        "from when to when accounts exist",
        "the retention of other logs.",
    ),
    Clause(
        controls.PCI_FAILURES,
        "Failures of critical security controls are recorded with cause, duration and remediation.",
        "begin, end and duration of excursions and gaps, and the cause where logs name it",
        "remediation. The rule does not name time synchronisation among the critical controls.",
    ),
    Clause(
        controls.AU8,
        "Timestamps have an organisation-defined granularity and use UTC or state their offset from it.",
        "how far the clock behind the timestamps can have been from UTC",
        f"the format and granularity of the logs. {_NO_NUMBER}",
    ),
    Clause(
        controls.SC45,
        "System clocks are synchronised within and between systems.",
        "each host's largest possible error from UTC, and so between hosts",
        f"systems without an agent. {_NO_NUMBER}",
    ),
    Clause(
        "NIST SP 800-53 SC-45(1)",
        "Clocks are compared at a defined frequency with an authoritative source, and synchronised where "
        "they differ by more than a defined period.",
        "the time in which clocks were compared, gaps in it, and excursions",
        "the frequency that your organisation has defined, and that the source is the authoritative one.",
    ),
    Clause(
        controls.FEDRAMP_COMPARE,
        "Clocks are compared at least every hour, and any difference is corrected.",
        "gaps longer than an hour",
        "that each difference was corrected, and that NIST's servers in two regions were used.",
    ),
    Clause(
        "NIST SP 800-171 r2 3.3.7",
        "Internal clocks are compared and synchronised with an authoritative source.",
        f"{_SHARES}, the servers that hosts used",
        f"that these are the specified source. {_NO_NUMBER}",
    ),
    Clause(
        controls.STIG_COMPARE,
        "The clock is compared at least every 24 h with an authoritative source.",
        "gaps longer than 24 h",
        "the time daemon's own configuration (maxpoll), and that the source is the authoritative one.",
    ),
    Clause(
        controls.CIS_TWO,
        "At least two synchronised time sources are configured.",
        "the share of time with two or more usable servers",
        "the configuration of the time daemon.",
    ),
    Clause(
        controls.ASVS,
        "Clocks of all logging components are synchronised.",
        _SHARES,
        f"that logs use UTC or state their offset. {_NO_NUMBER}",
    ),
    Clause(
        "CSA CCM v4 LOG-06",
        "All relevant systems use a reliable time source.",
        f"{_SHARES}, the servers that hosts used",
        f"that the sources are reliable, beyond their agreement. {_NO_NUMBER}",
    ),
    Clause(
        controls.NIS2,
        "To the extent feasible, systems have synchronised time sources, so that logs can be correlated.",
        f"{_SHARES}, each host's largest possible error",
        f"systems without an agent. {_NO_NUMBER}",
    ),
    Clause(
        controls.DORA,
        "Clocks are synchronised to a documented reliable reference time source.",
        f"{_SHARES}, the servers that hosts used",
        f"your documentation of the reference. {_NO_NUMBER}",
    ),
    Clause(
        controls.FINRA,
        "Computer clocks that record orders stay within 50 ms of NIST's time, others within 1 s. This includes the "
        "errors of the source, the transmission and the drift. Clocks are checked every business day, and logs are "
        "kept.",
        "the largest possible error, which includes these three errors; excursions beyond the tolerance in force",
        "that the tolerance in force is 50 ms (see Tolerance), and that the servers have NIST's time.",
    ),
    Clause(
        controls.ETSI,
        "The clock of a time-stamping authority is accurate to 1 s or better, and no time-stamps are issued outside.",
        "excursions beyond the tolerance in force",
        "traceability to a UTC(k) laboratory, and that no time-stamps were issued then.",
    ),
)
"""The clauses, in the order of a report."""

"""The finding about exceptions of a report that do not hold."""

from collections.abc import Iterator

from ntpaudit.core.acceptance import HostAcceptance
from ntpaudit.core.checks.acceptances import describe_end
from ntpaudit.core.checks.controls import PCI_FAILURES, SOC2
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.fleet.context import FleetContext


def check_acceptance_expired(context: FleetContext) -> Iterator[Raised]:
    """X2: an acceptance of the exceptions has ended, or has no end."""
    for one in context.policy.exceptions:
        if not one.acceptance.holds_at(context.snapshot.now_ns):
            yield Raised("medium", f"{describe_end(one.acceptance)}; it is for {_hosts(one)}")


def _hosts(one: HostAcceptance) -> str:
    named = {"host": one.host, "site": one.site}
    return " and ".join(f"{word} {pattern}" for word, pattern in named.items() if pattern is not None)


ACCEPTANCE_EXPIRED = Rule(
    "acceptance-expired",
    check_acceptance_expired,
    "repair what was accepted, and remove its [[accept]] table from the file of --exceptions; or let the person who "
    "decides this set a new end (`until`)",
    (PCI_FAILURES, SOC2),
    raised_when={"medium": "an acceptance in the file of `--exceptions` has ended, or has no end"},
    meaning="A fault that was accepted for a time is still listed as accepted, and counts again.",
    formula={"medium": "acceptances_that_do_not_hold > 0"},
    notes="One finding for each acceptance. The end is compared with the time that the report is about (`--at`).",
    acceptable="never",
)

RULES = (ACCEPTANCE_EXPIRED,)

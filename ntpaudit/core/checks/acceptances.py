"""The finding about acceptances that do not hold: one without an end would hide a fault for good."""

from ntpaudit.core.acceptance import Acceptance, short_utc
from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.controls import PCI_FAILURES, SOC2
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.units import format_utc


def check_acceptance_expired(context: AuditContext) -> Raised | None:
    """X2: an acceptance of the configuration has ended, or has no end."""
    ended = [one for one in context.site_policy.accepted if not one.holds_at(context.utc_ns)]
    if not ended:
        return None
    return Raised("medium", "; ".join(map(describe_end, ended)), numbers={"acceptances_that_do_not_hold": len(ended)})


def describe_end(one: Acceptance) -> str:
    """Describe an acceptance that does not hold: whose it is, and when it ended."""
    end = "has no end, so it counts for nothing"
    if one.until_ns is not None:
        end = f"ended at {short_utc(format_utc(one.until_ns))}"
    return f"the acceptance of {one.finding} by {one.by} {end} (reason: {one.reason})"


ACCEPTANCE_EXPIRED = Rule(
    "acceptance-expired",
    check_acceptance_expired,
    "repair what was accepted, and remove its [[accept]] table from the configuration; or let the person who decides "
    "this set a new end (`until`); then run `ntpaudit config check` and `sudo systemctl reload ntpaudit`",
    (PCI_FAILURES, SOC2),
    raised_when={"medium": "an acceptance of the configuration (`[[accept]]`) has ended, or has no end"},
    meaning="A fault that was accepted for a time is still configured as accepted, and counts again.",
    formula={"medium": "acceptances_that_do_not_hold > 0"},
    notes=(
        "The end is compared with the measured time, or with the host's own while that is unknown. The finding is "
        "raised whether or not the accepted one is. It cannot be accepted itself."
    ),
    message_id="d9ad1c28cf844ca5ae579d6dc346f28b",
    basis="moment",
    acceptable="never",
)

RULES = (ACCEPTANCE_EXPIRED,)

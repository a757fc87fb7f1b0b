"""Accounts and excursions as JSON has them: with the times of UTC, and names that never change."""

from typing import Any

from ntpaudit.core.accounts import Account, least, median
from ntpaudit.core.excursions import Excursion, describe_logs
from ntpaudit.core.units import NS_PER_S, format_utc


def account_data(account: Account) -> dict[str, Any]:
    """Return an account as JSON has it, without the time and the length of its period."""
    numbers = account._asdict()
    names = ("audits", "earliest_s", "latest_s", "bound_s", "steps", "step_s", "two_sources_s", "three_sources_s")
    chain = ("raised", "cleared", "chain_first", "chain_last", "chain_head")
    return {
        **{name: numbers[name] for name in names},
        "queried": {"min": least(account.queried), "median": median(account.queried)},
        "usable": {"min": least(account.usable), "median": median(account.usable)},
        **{name: numbers[name] for name in chain},
        "in_force": [
            {"since": utc(one.since_s)} | one._asdict() | {"profile": one.profile._asdict()} for one in account.in_force
        ],
        "excursions": [excursion_data(one) for one in account.excursions],
    }


def excursion_data(one: Excursion) -> dict[str, Any]:
    """Return an excursion as JSON has it."""
    return {
        "state": one.state,
        "begin": utc(one.begin_s),
        "end": utc(one.end_s),
        "open": one.is_open,
        "duration_s": one.duration_s,
        "proved_s": one.proved_s,
        "possible_s": one.possible_s,
        "earliest_s": one.earliest_s,
        "latest_s": one.latest_s,
        "logs": describe_logs(one.earliest_s, one.latest_s),
        "findings": list(one.findings),
        "cause": one.cause,
        "accepted": one.is_accepted,
    }


def again(critical_s: float | None) -> dict[str, Any]:
    """Return the member that states by which critical tolerance the time was judged again, if it was."""
    return {} if critical_s is None else {"judged_again_s": critical_s}


def utc(time_s: int) -> str:
    """Format a time in whole seconds, as `format_utc`."""
    return format_utc(time_s * NS_PER_S)

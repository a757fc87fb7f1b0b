"""Accepted findings: faults that somebody accepts until a time; they are listed and do not count (X1)."""

from collections.abc import Iterable
from typing import NamedTuple

from ntpaudit.core.ntp.patterns import matches_name
from ntpaudit.core.units import format_utc


class Accepted(NamedTuple):
    """Why a finding does not count: the reason, who accepted it, and until when in UTC (RFC 3339)."""

    reason: str
    by: str
    until: str

    @property
    def text(self) -> str:
        """The acceptance as one clause."""
        return f"accepted until {short_utc(self.until)} by {self.by}: {self.reason}"


class Acceptance(NamedTuple):
    """The acceptance of a finding, by its id. It ends at `until_ns` in UTC; without an end it counts for nothing."""

    finding: str
    reason: str
    by: str
    until_ns: int | None = None

    def holds_at(self, utc_ns: int) -> bool:
        """Whether the finding is accepted at a time; at the very end it is not."""
        return self.until_ns is not None and utc_ns < self.until_ns


class HostAcceptance(NamedTuple):
    """An acceptance for the hosts of a report: by patterns of their names and sites; None is every name, or site."""

    acceptance: Acceptance
    host: str | None = None
    site: str | None = None

    def is_of(self, host: str, site: str | None) -> bool:
        """Whether it is for a host. Only `*` matches a host without a site."""
        is_named = self.host is None or matches_name(self.host, host)
        return is_named and (self.site is None or matches_name(self.site, site or ""))


def accepted_at(acceptances: Iterable[Acceptance], utc_ns: int) -> dict[str, Accepted]:
    """Return what is accepted at a time, by the ids of findings; of two acceptances of one finding the first."""
    found: dict[str, Accepted] = {}
    for one in acceptances:
        if one.until_ns is not None and one.holds_at(utc_ns):
            found.setdefault(one.finding, Accepted(one.reason, one.by, format_utc(one.until_ns)))
    return found


def short_utc(utc: str) -> str:
    """Write a time of `format_utc` for people, to the minute, for example `2027-01-31 00:00 UTC`."""
    return f"{utc[:16].replace('T', ' ')} UTC"

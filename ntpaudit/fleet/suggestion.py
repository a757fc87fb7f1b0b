"""Suggests the name that was probably meant."""

import difflib
from collections.abc import Iterable

from ntpaudit.core.fleet.members import namesake


def nearest(name: str, others: Iterable[str]) -> str | None:
    """Return the name that differs only in case and domain, otherwise the most similar one; None if none is similar."""
    known = {other.casefold(): other for other in sorted(others, reverse=True)}
    if (same := namesake(name, known.values())) is not None:
        return same
    return next((known[found] for found in difflib.get_close_matches(name.casefold(), known, 1)), None)

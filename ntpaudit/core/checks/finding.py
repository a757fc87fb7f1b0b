"""What is wrong, said so that a human can act on it and a SIEM can match it."""

from typing import Literal, NamedTuple

from ntpaudit.core.policy import Severity

Level = Literal["critical", "high", "medium", "low"]

LEVEL_SEVERITY: dict[Level, Severity] = {
    "critical": Severity.CRITICAL,
    "high": Severity.WARNING,
    "medium": Severity.WARNING,
    "low": Severity.OK,
}
"""What a finding's level counts for in the audit: a low one is listed and not counted."""


class Finding(NamedTuple):
    """One thing that is wrong. `id` is stable; `level` is what a SIEM scores; `controls` are the rules it bears on."""

    id: str
    severity: Severity
    level: Level
    message: str
    remedy: str
    controls: tuple[str, ...] = ()

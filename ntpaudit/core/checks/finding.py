"""A finding of an audit, and the levels of findings."""

from typing import Literal, NamedTuple

from ntpaudit.core.policy import Severity

Level = Literal["critical", "high", "medium", "low"]

LEVEL_SEVERITY: dict[Level, Severity] = {
    "critical": Severity.CRITICAL,
    "high": Severity.WARNING,
    "medium": Severity.WARNING,
    "low": Severity.OK,
}
"""The severity of each level: a low finding is listed and does not count."""


class Finding(NamedTuple):
    """One thing that is wrong. `id` is stable; `level` is what a SIEM scores; `controls` are the rules it bears on."""

    id: str
    severity: Severity
    level: Level
    message: str
    remedy: str
    controls: tuple[str, ...] = ()

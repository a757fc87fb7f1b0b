"""A finding of an audit, and its rule: everything that the program knows about it."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from ntpaudit.core.acceptance import Accepted
from ntpaudit.core.policy import Severity

Basis = Literal["network", "host", "database", "moment"]
Level = Literal["critical", "high", "medium", "low"]
Acceptable = Literal["anywhere", "reports", "never"]

LEVEL_SEVERITY: dict[Level, Severity] = {
    "critical": Severity.CRITICAL,
    "high": Severity.WARNING,
    "medium": Severity.WARNING,
    "low": Severity.OK,
}
"""The severity of each level: a low finding is listed and does not count."""

_NO_NUMBERS: Mapping[str, float] = MappingProxyType({})
_Context = TypeVar("_Context")
_Result = TypeVar("_Result")


class Finding(NamedTuple):
    """One thing that is wrong. `id` is stable; `level` is what a SIEM scores; `controls` are the rules it bears on.

    `numbers` are those that the message rests on, by their symbols in a formula of the rule; empty in older records.

    `cause` is the id of the primary finding that this one is listed under, None if it is listed by itself. A finding
    with a `cause` has the severity ok: its primary counts for both.

    `accepted` says who accepts the finding, why and until when; None if it is not accepted. An accepted finding has the
    severity ok, and so have those that are listed under it.
    """

    id: str
    severity: Severity
    level: Level
    message: str
    remedy: str
    controls: tuple[str, ...] = ()
    numbers: Mapping[str, float] = _NO_NUMBERS
    cause: str | None = None
    accepted: Accepted | None = None

    def under(self, cause: str | None) -> "Finding":
        """Return the finding as it is listed under its primary, if it has one."""
        return self if cause is None else self._replace(cause=cause, severity=Severity.OK)

    def accept(self, accepted: Accepted | None) -> "Finding":
        """Return the finding as it is listed while it is accepted, if it is."""
        return self if accepted is None else self._replace(accepted=accepted, severity=Severity.OK)


class Raised(NamedTuple):
    """A check's result: level, message, the fix if not the rule's, and `numbers` of one host as in `Finding`.

    The other fields are those of a fleet.
    """

    level: Level
    message: str
    site: str | None = None
    source: str | None = None
    hosts: tuple[str, ...] = ()
    value_s: float | None = None
    remedy: str | None = None
    numbers: Mapping[str, float] = _NO_NUMBERS


class Rule(NamedTuple, Generic[_Context, _Result]):
    """A check and all that is fixed about its finding; `make docs` generates docs/findings.md from it.

    - `meaning`: what the finding means for the host and its logs.
    - `controls`, `techniques`: what the finding bears on, by their names in core/checks/controls.py.
    - `raised_when`: for each level, or for several such as "high, medium", the condition, or several: one suffices.
    - `formula`: each of these conditions as an expression. Its symbols are those of the finding's `numbers`; the end of
      a symbol is its unit (`_s`, `_ppm`), and a number may have one too (`24 h`).
    - `notes`: what else a reader of the documentation must know.
    - `case_remedies`: the fixes of cases that have their own, by the case; in all others the fix is `remedy`.

    Of one host only:

    - `message_id`: MESSAGE_ID of its entries in systemd's journal; never changed, because others match on it.
    - `basis`: what gives an agent a new sample: a network audit, any audit of the host, a reply of the database, or
      ("moment") none is needed, because the finding is raised at once.
    - `has_sample`: further condition for a sample; its arguments are the input and the result of the check.
    - `least_s`: how long the condition must hold before an agent raises it (I2).
    - `is_of_offset`: only a guaranteed offset gives a sample, and nothing is raised shortly after a boot or while the
      clock is being corrected.
    - `has_hysteresis`: it compares the offset with a tolerance, and is cleared only below 70 % of it.
    - `needs_agent`: True if a one-shot check cannot detect it.
    - `of_daemon`: it judges only the time daemons that discipline the clock.
    - `covered_by`: more severe or more exact rules about the same fact; while one of them is raised and counts, this
      finding is not listed.
    - `caused_by`: rules about another fact with the same cause; while one of them is raised and counts (or neither
      counts), this finding is listed under it and does not count.
    - `has_own_cause`: these rules do not explain it now, so it is listed by itself (basis "moment" only).
    - `replaced_by`: the rules that raise this cause instead, because of which the check does not.
    - `cleared`: when it is cleared, if not when its condition is no longer true.
    - `counts_as`: the severity, if it is not that of the level.
    - `has_own_events`: its events are not those of raising and clearing.
    - `value_s`, `detail`: the number in seconds and the further values of its events.
    - `acceptable`: where it can be accepted: in the configuration too, in `--exceptions` of reports only, because it
      states that the clock is wrong or that nothing proves it right (X3), or nowhere.
    - `explains_shift`: it explains why the clock moves, so a fleet does not compare the clock with an earlier time.

    Of a fleet only:

    - `is_of_each`: the finding makes the clock of every host that it names doubtful.
    """

    id: str
    check: Callable[[_Context], _Result]
    remedy: str
    controls: tuple[str, ...]
    raised_when: Mapping[str, str | tuple[str, ...]]
    meaning: str = ""
    formula: Mapping[str, str | tuple[str, ...]] = MappingProxyType({})
    techniques: tuple[str, ...] = ()
    notes: str = ""
    case_remedies: Mapping[str, str] = MappingProxyType({})
    message_id: str = ""
    basis: Basis = "network"
    has_sample: Callable[[_Context, _Result], bool] = lambda *_: True
    least_s: float = 0.0
    is_of_offset: bool = False
    has_hysteresis: bool = False
    needs_agent: bool = False
    of_daemon: bool = False
    covered_by: tuple[str, ...] = ()
    caused_by: tuple[str, ...] = ()
    has_own_cause: Callable[[_Context], bool] = lambda _: False
    replaced_by: Callable[[_Context], tuple[str, ...]] = lambda _: ()
    cleared: str = ""
    counts_as: Severity | None = None
    has_own_events: bool = False
    value_s: Callable[[_Context], float | None] = lambda _: None
    detail: Callable[[_Context], Mapping[str, Any]] = lambda _: {}
    acceptable: Acceptable = "anywhere"
    explains_shift: bool = False
    is_of_each: bool = False


AnyRule = Rule[Any, Any]
_Finding = TypeVar("_Finding", bound=Any)  # of a host or a fleet


def make_finding(rule: AnyRule, raised: Raised) -> Finding:
    """Make a finding from the result of a rule's check."""
    severity = LEVEL_SEVERITY[raised.level] if rule.counts_as is None else rule.counts_as
    remedy = raised.remedy or rule.remedy
    return Finding(rule.id, severity, raised.level, raised.message, remedy, rule.controls, raised.numbers)


def worst_first(findings: Iterable[_Finding]) -> tuple[_Finding, ...]:
    """Sort findings by level; the sort is stable."""
    order = list(LEVEL_SEVERITY)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.level)))

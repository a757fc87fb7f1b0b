"""The finding about log pipelines that drop, change or never search the events of a host with a wrong clock."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ntpaudit.core.checks.context import AuditContext, estimate_s
from ntpaudit.core.checks.controls import PCI_REVIEW
from ntpaudit.core.checks.offset import OFFSET_OUT
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.ingest import PIPELINES, Limit, Pipeline, RuleWindow
from ntpaudit.core.policy import min_error_s
from ntpaudit.core.site_policy import SitePolicy
from ntpaudit.core.units import NS_PER_S, format_duration, format_offset

MARGIN = 0.5  # a host this far into a limit is at risk (NTPA-11): the next step or burst of lag exceeds it

MISSED = 0.01  # rules without any overlap miss events of each clock; this share of them is due to this one


def check_ingest_risk(context: AuditContext) -> Raised | None:
    """NTPA-11: the clock is so wrong that a pipeline drops, changes or never searches this host's events."""
    agreement = context.selection.agreement
    if agreement is None or context.is_unguaranteed:
        return None
    wrong_s, policy = min_error_s(agreement.interval), context.site_policy
    is_behind = agreement.interval.earliest_ns > 0
    pipelines = [PIPELINES[name] for name in policy.pipelines]
    if not wrong_s or not pipelines:
        return None
    harms = [*_harms_behind(pipelines, policy, wrong_s)] if is_behind else [*_harms_ahead(pipelines, wrong_s)]
    if not harms:
        return None
    late = f", and events arrive up to {format_duration(policy.lag_s)} late" if is_behind and policy.lag_s else ""
    wrong = f"the clock is {format_offset(agreement.estimate_ns / NS_PER_S)}{late}"
    message = "; ".join((wrong, *(harm.text for harm in harms)))
    return Raised("high", message, numbers={"minimum_error_s": wrong_s, **harms[0].numbers})


class _Harm(NamedTuple):
    """What happens to events of this host, and the limits that it follows from."""

    text: str
    numbers: Mapping[str, float]


def _harms_ahead(pipelines: list[Pipeline], ahead_s: float) -> Iterator[_Harm]:
    for pipeline in pipelines:
        if pipeline.ahead is not None and ahead_s > MARGIN * pipeline.ahead.limit_s:
            numbers = {"accepted_ahead_s": pipeline.ahead.limit_s}
            yield _Harm(_effect(pipeline, pipeline.ahead, "ahead"), numbers)


def _harms_behind(pipelines: list[Pipeline], policy: SitePolicy, behind_s: float) -> Iterator[_Harm]:
    late_s = behind_s + policy.lag_s
    for pipeline in pipelines:
        if pipeline.behind is not None and late_s > MARGIN * pipeline.behind.limit_s:
            numbers = {"accepted_behind_s": pipeline.behind.limit_s, "lag_s": policy.lag_s}
            yield _Harm(_effect(pipeline, pipeline.behind, "behind"), numbers)
    for title, window in _windows(pipelines, policy):
        if late_s > window.lookback_s - window.interval_s and behind_s > MISSED * window.interval_s:
            miss = "never evaluate its events" if late_s > window.lookback_s else "miss some of its events"
            every, back = format_duration(window.interval_s), format_duration(window.lookback_s)
            numbers = {
                "rule_interval_s": window.interval_s,
                "rule_lookback_s": window.lookback_s,
                "lag_s": policy.lag_s,
            }
            yield _Harm(f"{title} that run every {every} over the last {back} {miss}", numbers)


def _effect(pipeline: Pipeline, limit: Limit, where: str) -> str:
    return f"{pipeline.title} {limit.effect.format(f'{format_duration(limit.limit_s)} {where}')}"


def _windows(pipelines: list[Pipeline], policy: SitePolicy) -> Iterator[tuple[str, RuleWindow]]:
    """Yield the windows of detection rules: the site's own, else those of the pipelines that have a usual one."""
    if policy.rule_interval_s is not None and policy.rule_lookback_s is not None:
        yield "detection rules", RuleWindow(policy.rule_interval_s, policy.rule_lookback_s)
        return
    for pipeline in pipelines:
        if pipeline.rules is not None:
            yield f"rules of {pipeline.title}", pipeline.rules


INGEST_RISK = Rule(
    "ingest-risk",
    check_ingest_risk,
    "correct the clock, as the finding about the offset describes; until then let the pipeline and its rules use the "
    "time of arrival (for example `event.ingested`), and mark the events of this host",
    (PCI_REVIEW,),
    raised_when={
        "high": (
            "the clock is certainly ahead by more than half of what a pipeline of `ingest.pipelines` accepts",
            "the clock is certainly behind, and events are, with `ingest.lag`, more than half as late as a pipeline "
            "accepts",
            "the same, and later than detection rules allow (their lookback minus their interval), if the clock makes "
            "up more than 1 % of their interval",
        )
    },
    meaning="Logs of this host are lost, are stored with a wrong time, or are never searched by detection rules.",
    formula={
        "high": (
            "minimum_error_s > 0.5 * accepted_ahead_s",
            "minimum_error_s > 0.5 * accepted_behind_s - lag_s",
            "minimum_error_s > rule_lookback_s - rule_interval_s - lag_s and minimum_error_s > 0.01 * rule_interval_s",
        )
    },
    notes="The limits of each pipeline are in configuration.md. The check counts the near end of the interval.",
    message_id="436adeb8575e4e31874ac740e74bf2b7",
    is_of_offset=True,
    caused_by=(OFFSET_OUT.id,),
    value_s=estimate_s,
)

RULES = (INGEST_RISK,)

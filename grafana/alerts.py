r"""The alert rules, in Grafana's provisioning format: on counts by site, by finding or by server, never by host.

So a new case at another site, or of another kind, is a new alert, and the number of alerts stays bounded.

No `$` is in them anywhere: in provisioning files it would be taken for a variable of the environment. So queries name
their own time, expressions name queries without it, templates use `.Values` and `.Labels`, and patterns end in `\z`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from grafana.links import DOCS_URL
from grafana.panels import uid
from grafana.queries import (
    ALL_HOSTS,
    KNOWN,
    SILENT_AFTER_S,
    SOURCES,
    Influx,
    Language,
    Prom,
    Scope,
    by_host,
    count,
    disputed_lately,
    disputed_now,
    forced,
    is_severity,
    judged,
    judged_now,
    last,
    metric,
    of_kind,
    reporting,
    silence,
    since,
    sums,
)
from ntpaudit.core.checks.host import RULES as CHECKS
from ntpaudit.core.policy import Severity

Json = dict[str, Any]
NoData = Literal["OK", "Alerting", "KeepLast"]
Failure = Literal["Alerting", "KeepLast"]

FOLDER = "ntpaudit"
TEAM = "soc"
COMMON_SOURCE = 3
"""So many hosts that call one server a falseticker are not wrong themselves."""

BACKLOG_S = 900.0

MOST_SERVERS = 50
"""No more servers are named at once; a rule by site has an instance for each site."""

# A slot of the pool is another server for every host, so what many say of it says nothing.
_OWN_SERVERS = ALL_HOSTS.also(r'"source" !~ /\/[0-9]+\z/', 'source!~".*/[0-9]+"')
_STEP_BACK = ALL_HOSTS.also("\"kind\" = 'step-back'", 'kind="step-back"')
_KNOWN_KINDS = "|".join(rule.id for rule in CHECKS)


class Rule(NamedTuple):
    """One rule: fires when the number is above `limit`, or below it if `below`, for as long as `pending`.

    `panel` is the title of the panel that shows more, on the dashboard `board`. `no_data` is what becomes of the rule
    where nothing is answered, `failure` where the database cannot be asked.
    """

    name: str
    title: str
    influxql: Influx
    promql: Prom
    severity: Literal["critical", "warning"]
    summary: str
    meaning: str
    action: str
    command: str
    board: str
    panel: str
    limit: float = 0.0
    below: bool = False
    pending: str = "10m"
    no_data: NoData = "KeepLast"
    failure: Failure = "KeepLast"
    documented: str = "runbook.md"


def _backlog() -> tuple[Influx, Prom]:
    """Ask how many hosts of each site deliver old records."""
    inner = by_host(ALL_HOSTS, {"oldest": "oldest_undelivered_s"}, by=_HERE)
    return (
        Influx(f'SELECT count("oldest") AS "hosts" FROM {inner} WHERE "oldest" > {BACKLOG_S:g} GROUP BY "site"'),
        Prom(count(f"{last('oldest_undelivered_s', ALL_HOSTS, by=_HERE)} > bool {BACKLOG_S:g}", by=("site",))),
    )


_HERE = ("host", "site")
_AT_SITE = "{{ with .Labels.site }} at {{ . }}{{ end }}"
_FINDINGS_EVERY = "5m"


def _of_severity(severity: Severity) -> tuple[Influx, Prom]:
    """Ask how many hosts of each site are at a severity."""
    (influxql,) = sums({"hosts": is_severity(severity)}, judged(ALL_HOSTS, _HERE, with_disputed=False), ("site",))
    return influxql, Prom(count(f"({judged_now(ALL_HOSTS, by=_HERE)}) == bool {int(severity)}", by=("site",)))


_CRITICAL, _UNKNOWN = _of_severity(Severity.CRITICAL), _of_severity(Severity.UNKNOWN)

STATE_RULES = (
    Rule(
        "critical",
        "Clocks that are wrong for certain",
        *_CRITICAL,
        "critical",
        "{{ .Values.B }} hosts" + _AT_SITE + " have a clock that is wrong for certain",
        "The whole interval of their offset is outside the critical tolerance of their profile. Hosts that are "
        "behind: their events are missed. Hosts that are ahead: theirs are delayed, refused or hidden.",
        "Repair or restart the time daemon of each host; keep the records, to correct the logs of that time.",
        "ntpaudit fleet --flagged",
        "fleet",
        "Worst hosts",
    ),
    Rule(
        "unknown",
        "Clocks that cannot be judged",
        *_UNKNOWN,
        "warning",
        "{{ .Values.B }} hosts" + _AT_SITE + " report, and cannot say how wrong their clock is",
        "No source gave a usable answer, or no majority of them agrees. The order of their events cannot be proved.",
        "Check whether they reach their servers (UDP port 123), and whether one of these is wrong.",
        "ntpaudit fleet --flagged",
        "fleet",
        "Worst hosts",
    ),
    Rule(
        "silent",
        "Hosts that are silent",
        Influx(
            'SELECT sum("silent") AS "silent" FROM (SELECT 2-"reports" AS "silent" FROM '
            f'{reporting(ALL_HOSTS, _HERE)}) GROUP BY "site"'
        ),
        Prom(count(f"{silence(ALL_HOSTS, by=_HERE)} > bool {SILENT_AFTER_S}", by=("site",))),
        "warning",
        "{{ with .Values.B }}{{ . }}{{ else }}All{{ end }} hosts" + _AT_SITE + " have sent nothing for 10 minutes",
        "The host is down, its agent was stopped, or it cannot deliver. An attacker who wants to set a clock unseen "
        "stops the agent first. The rule forgets a host after a day: an inventory does not.",
        "Check each host; start its agent again; find out who stopped it.",
        "ntpaudit fleet --silent-after 10m --inventory FILE",
        "fleet",
        "Silent hosts",
        no_data="Alerting",
    ),
    Rule(
        "no-data",
        "No host reports",
        Influx(f'SELECT count("severity") AS "hosts" FROM {by_host(ALL_HOSTS, {})}'),
        Prom(f"count({last('severity', ALL_HOSTS)})"),
        "critical",
        "No host has sent anything for 10 minutes, or the database does not answer",
        "The database takes no points, or nothing reaches it. Every other rule is blind until it does. The agents keep "
        "their records and send them later.",
        "Check the database: is it up, is its disk full, has its token changed?",
        "ntpaudit status",
        "fleet",
        "Clocks now",
        limit=1.0,
        below=True,
        no_data="Alerting",
        failure="Alerting",  # a database that is down answers with an error, and no other rule would fire
    ),
    Rule(
        "step-back",
        "Clocks that were set back",
        Influx(
            'SELECT count("raised") AS "steps" FROM "ntpaudit_event" '
            f'WHERE {since(ALL_HOSTS, "1h")}{_STEP_BACK.where} AND "severity" > 0 GROUP BY "site"'
        ),
        Prom(f"sum by (site) (count_gt_over_time({metric('severity', _STEP_BACK, 'event')}[1h], 0))"),
        "warning",
        "{{ .Values.B }} steps back in the last hour" + _AT_SITE,
        "The logs of these hosts have a span of time twice, so their order by stamps is wrong there.",
        "Find out who set the clock: a time daemon, a hypervisor, or a person. Mark the span in the logs.",
        "ntpaudit history --events",
        "fleet",
        "Steps of clocks",
        pending="0s",  # it is an event: after ten minutes it is over
        no_data="OK",
    ),
    Rule(
        "shared-falseticker",
        "A server that many hosts call a falseticker",
        Influx(
            'SELECT count("status") AS "hosts" FROM '
            '(SELECT last("status") AS "status" '
            f'FROM "ntpaudit_source" WHERE {since(ALL_HOSTS, "1h")}{_OWN_SERVERS.where} GROUP BY "host", "source") '
            'WHERE "status" = 1 GROUP BY "source"'
        ),
        Prom(
            f"topk({MOST_SERVERS}, count by (source) ("
            f"{last('status', _OWN_SERVERS, by=('host', 'source'), span='1h', measurement='source')} == 1))"
        ),
        "warning",
        "{{ .Values.B }} hosts call {{ .Labels.source }} a falseticker",
        "It disagrees with the other servers of each of them: the server is probably wrong. Where it is one of "
        "few, it may win the vote one day.",
        "Check the server's own sources; remove it from the configuration until it is right.",
        "ntpaudit fleet --format json",
        "fleet",
        "Findings in force, by kind",
        limit=COMMON_SOURCE - 0.5,
        no_data="OK",
    ),
    Rule(
        "backlog",
        "Records that wait to be delivered",
        *_backlog(),
        "warning",
        "{{ .Values.B }} hosts" + _AT_SITE + " deliver records that are more than 15 minutes old",
        "Their records wait, or are being sent late: the hosts were cut off, or the database refused the records. What "
        "is shown of them may be late.",
        "If it lasts, check the delivery on the host, and the load of the database.",
        "ntpaudit status",
        "host",
        "Delivery and agent",
        no_data="OK",
    ),
)
"""Rules about the state of hosts and of the database: evaluated every minute."""


def _finding(name: str, title: str, influxql: str, promql: str, meaning: str, action: str) -> Rule:
    """Return the rule for one kind of finding, or for those that have no rule."""
    return Rule(
        name,
        title,
        Influx(influxql),
        Prom(promql),
        "warning",
        "{{ .Values.B }} hosts" + _AT_SITE + f" have the finding {name}",
        meaning,
        action,
        "ntpaudit fleet --flagged",
        "fleet",
        "Findings in force",
        no_data="OK",
        documented="findings.md",
    )


def _by_site(scope: Scope) -> str:
    """Return how many known hosts of each site have a finding, of medium level or more, in force, in PromQL."""
    return f"count by (site) (max by (host, site) ({forced(scope, by=('host', 'site', 'kind'), field='severity')}) > 0)"


def _asked_of(kind: str) -> tuple[str, str]:
    """Ask how many hosts of each site have a finding; disputed time is in the points, wherever their stamps are."""
    if kind == "time-disputed":
        return disputed_lately(("site",)), f"count by (site) ({disputed_now(ALL_HOSTS, by=_HERE)})"
    return of_kind(kind), _by_site(ALL_HOSTS.also("", f'kind="{kind}"'))


OWN_RULE = ("offset-out", "step-back", "step-forward")
"""Findings that `critical` and `step-back` are about, and one that changes no order of logs."""

_NEW = ALL_HOSTS.also(rf'"kind" !~ /^({_KNOWN_KINDS})\z/', f'kind!~"{_KNOWN_KINDS}"')

FINDING_RULES = (
    *(
        _finding(
            rule.id,
            f"Finding {rule.id}",
            *_asked_of(rule.id),
            "Agents raised it at medium level or higher and have not cleared it. When it is raised and what it means "
            "is in docs/findings.md, which runbook_url leads to.",
            "Do what docs/findings.md says; the panel has each host's own text, with the fix.",
        )
        for rule in CHECKS
        if rule.id not in OWN_RULE and set(rule.raised_when) != {"low"}
    ),
    _finding(
        "findings",
        "Other findings",
        f'SELECT count("raised") AS "hosts" FROM (SELECT last("raised") AS "raised", "severity" AS "state" FROM '
        f'"ntpaudit_event" WHERE {since(ALL_HOSTS, KNOWN)}{_NEW.where} GROUP BY "host", "site", "kind") '
        'WHERE "raised" = 1 AND "state" > 0 GROUP BY "site"',
        _by_site(_NEW),
        "In the last day agents raised findings for which there is no rule: the agents are newer than the rules.",
        "Install the rules and the dashboards of the agents' version; the texts of the findings say what to do.",
    )._replace(documented="runbook.md", summary="{{ .Values.B }} findings" + _AT_SITE + " of a kind without a rule"),
)
"""A rule for each finding of medium level or more, with a runbook of its own: evaluated every five minutes."""

RULES = (*STATE_RULES, *FINDING_RULES)


def rules(language: Language, panel_id: Callable[[str, str], int]) -> Json:
    """Return the file of the rules; `panel_id` knows the number of the panel of that title on a dashboard."""

    def group(name: str, interval: str, members: Sequence[Rule]) -> Json:
        return {
            "orgId": 1,
            "name": name,
            "folder": FOLDER,
            "interval": interval,
            "rules": [_rule(rule, language, panel_id(rule.board, rule.panel)) for rule in members],
        }

    return {
        "apiVersion": 1,
        "groups": [
            group("ntpaudit", "1m", STATE_RULES),
            group("ntpaudit findings", _FINDINGS_EVERY, FINDING_RULES),
        ],
    }


def runbook() -> str:
    """Return docs/runbook.md: what each rule means and what to do, under a heading that its alerts link to."""
    own = [rule for rule in RULES if rule.documented == "runbook.md"]
    return "\n".join([_RUNBOOK_HEAD, *(_chapter(rule) for rule in own)])


_RUNBOOK_HEAD = """\
<!-- Written by `make dashboards` from grafana/alerts.py: change that. -->

# Runbook

What to do when an alert of ntpaudit's rules for Grafana fires. Each alert links to its section here (`runbook_url`). An
alert of a finding links to [findings.md](findings.md), which has the meaning and the fix of each. How the rules are
grouped, and when they notify: [dashboards.md](dashboards.md#alerts).
"""


def _chapter(rule: Rule) -> str:
    """Return the section of one rule."""
    holds = "at once" if rule.pending == "0s" else f"after it has held for {rule.pending.removesuffix('m')} minutes"
    return (
        f"## {rule.name}\n\n**{rule.title}** ({rule.severity}, {holds}).\n\n{rule.meaning}\n\n"
        f"- Do: {rule.action}\n- Command: `{rule.command}`\n- Panel: *{rule.panel}*, dashboard *{rule.board}*\n"
    )


def _rule(rule: Rule, language: Language, panel_id: int) -> Json:
    """Return one rule."""
    return {
        "uid": f"ntpaudit-{rule.name}" if language == "influxql" else f"ntpaudit-{rule.name}-promql",
        "title": rule.title,
        "condition": "C",
        "data": [_asked(rule, language), _reduced(), _held(rule)],
        "dashboardUid": uid(rule.board, language),
        "panelId": panel_id,
        "noDataState": rule.no_data,
        "execErrState": rule.failure,
        "for": rule.pending,
        "annotations": {
            "__dashboardUid__": uid(rule.board, language),  # messages and the list of alerts link by these two
            "__panelId__": str(panel_id),
            "summary": rule.summary,
            "description": rule.meaning,
            "runbook": f"{rule.action} Command: {rule.command}",
            "runbook_url": f"{DOCS_URL}/{rule.documented}#{rule.name}",
        },
        "labels": {"severity": rule.severity, "team": TEAM},
        "isPaused": False,
    }


def _asked(rule: Rule, language: Language) -> Json:
    """Return the query; its own text says which time it is about."""
    model: Json = {"refId": "A", "intervalMs": 60_000, "maxDataPoints": 100}
    if language == "influxql":
        model |= {"query": rule.influxql.query, "rawQuery": True, "resultFormat": "time_series"}
        kind = "influxdb"
    else:
        model |= {"expr": rule.promql.query, "instant": True, "range": False, "editorMode": "code"}
        kind = "prometheus"
    source = SOURCES[language]
    return {
        "refId": "A",
        "relativeTimeRange": {"from": 3600, "to": 0},
        "datasourceUid": source,
        "model": {**model, "datasource": {"type": kind, "uid": source}},
    }


def _reduced() -> Json:
    """Return the step that takes the last number of each series."""
    return _expression({"refId": "B", "type": "reduce", "expression": "A", "reducer": "last"})


def _held(rule: Rule) -> Json:
    """Return the step that holds the number against its limit."""
    kind = "lt" if rule.below else "gt"
    return _expression(
        {
            "refId": "C",
            "type": "threshold",
            "expression": "B",
            "conditions": [{"evaluator": {"type": kind, "params": [rule.limit]}}],
        }
    )


def _expression(model: Json) -> Json:
    """Return a step that Grafana itself computes."""
    return {
        "refId": model["refId"],
        "relativeTimeRange": {"from": 0, "to": 0},
        "datasourceUid": "__expr__",
        "model": {**model, "datasource": {"type": "__expr__", "uid": "__expr__"}},
    }

r"""The alert rules, in Grafana's provisioning format: on counts, never an instance for each host.

No `$` is in them anywhere: in provisioning files it would be taken for a variable of the environment. So queries name
their own time, expressions name queries without it, templates use `.Values` and `.Labels`, and patterns end in `\z`.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from grafana.panels import uid
from grafana.queries import (
    EVERYBODY,
    SILENT_AFTER_S,
    Influx,
    Language,
    Prom,
    by_host,
    count,
    forced,
    in_force,
    is_severity,
    last,
    metric,
    reporting,
    seen,
    since,
    sums,
)
from ntpaudit.core.policy import Severity

Json = dict[str, Any]
NoData = Literal["OK", "Alerting", "KeepLast"]
Failure = Literal["Alerting", "KeepLast"]

SOURCES: dict[Language, str] = {"influxql": "ntpaudit-influxdb", "promql": "ntpaudit-victoriametrics"}
"""The uid of each data source, as it is provisioned."""

FOLDER = "ntpaudit"
TEAM = "soc"
COMMON_SOURCE = 3
"""So many hosts that call one server a falseticker are not wrong themselves."""

BACKLOG_S = 900.0

# A slot of the pool is another server for every host, so what many say of it says nothing.
_OWN_SERVERS = EVERYBODY.also(r'"source" !~ /\/[0-9]+\z/', 'source!~".*/[0-9]+"')
_STEP_BACK = EVERYBODY.also("\"kind\" = 'step-back'", 'kind="step-back"')
_KINDS = EVERYBODY.also('"kind" !~ /^(step-|offset-out)/', 'kind!~"step-.*|offset-out"')


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


def _of_severity(severity: Severity) -> tuple[Influx, Prom]:
    """Ask how many hosts are at a severity."""
    (influxql,) = sums({"hosts": is_severity(severity)}, by_host(EVERYBODY, {}))
    return influxql, Prom(count(f"{last('severity', EVERYBODY)} == bool {int(severity)}"))


_CRITICAL, _UNKNOWN = _of_severity(Severity.CRITICAL), _of_severity(Severity.UNKNOWN)

RULES = (
    Rule(
        "critical",
        "Clocks that are wrong for certain",
        *_CRITICAL,
        "critical",
        "{{ .Values.B }} hosts have a clock that is wrong for certain",
        "The whole interval of their offset lies outside the critical tolerance of their profile. Hosts that are "
        "behind: their events are missed. Hosts that are ahead: theirs are delayed, refused or hidden.",
        "Repair or restart the time daemon of each host; keep the records, to correct the logs of that time.",
        "ntpaudit fleet --flagged",
        "fleet",
        "Worst hosts",
    ),
    Rule(
        "unknown",
        "Clocks of which nothing is known",
        *_UNKNOWN,
        "warning",
        "{{ .Values.B }} hosts report, and cannot say how wrong their clock is",
        "No source gave a usable answer, or no majority of them agrees. The order of their events cannot be proved.",
        "Look whether they reach their servers (UDP port 123), and whether one of those is wrong.",
        "ntpaudit fleet --flagged",
        "fleet",
        "Worst hosts",
    ),
    Rule(
        "silent",
        "Hosts that fell silent",
        Influx(f'SELECT sum("silent") AS "silent" FROM (SELECT 2-"reports" AS "silent" FROM {reporting(EVERYBODY)})'),
        Prom(count(f"(time() - {seen(EVERYBODY)}) > bool {SILENT_AFTER_S}")),
        "warning",
        "{{ with .Values.B }}{{ . }}{{ else }}All{{ end }} hosts have sent nothing for 10 minutes",
        "The host is down, its agent was stopped, or it cannot deliver. Whoever means to set a clock unseen stops the"
        " agent first. The rule forgets a host after a day: an inventory does not.",
        "Look at each host; start its agent again; find out who stopped it.",
        "ntpaudit fleet --silent-after 10m --inventory FILE",
        "fleet",
        "Silent hosts",
        no_data="Alerting",
    ),
    Rule(
        "no-data",
        "No host reports",
        Influx(f'SELECT count("severity") AS "hosts" FROM {by_host(EVERYBODY, {})}'),
        Prom(f"count({last('severity', EVERYBODY)})"),
        "critical",
        "No host has sent anything for 10 minutes, or the database does not answer",
        "The database takes no points, or nothing reaches it. Every other rule is blind until it does. The agents keep "
        "their records and send them later.",
        "Look at the database: is it up, is its disk full, has its token changed?",
        "ntpaudit status",
        "fleet",
        "Clocks now",
        limit=1.0,
        below=True,
        no_data="Alerting",
        failure="Alerting",  # a database that is down answers with an error, and no other rule would tell
    ),
    Rule(
        "step-back",
        "Clocks that were set back",
        Influx(
            'SELECT count("raised") AS "steps" FROM "ntpaudit_event" '
            f'WHERE {since(EVERYBODY, "1h")}{_STEP_BACK.where} AND "severity" > 0'
        ),
        Prom(f"sum(count_gt_over_time({metric('severity', _STEP_BACK, 'event')}[1h], 0))"),
        "warning",
        "{{ .Values.B }} steps back in the last hour",
        "The logs of these hosts have a span of time twice, so their order by stamps is wrong there.",
        "Find out who set the clock: a time daemon, a hypervisor, or a person. Mark the span in the logs.",
        "ntpaudit history --events",
        "fleet",
        "Steps of clocks",
        pending="0s",  # it is an event: in ten minutes it has not gone on, only passed
        no_data="OK",
    ),
    Rule(
        "common-source",
        "A server that many hosts call false",
        Influx(
            'SELECT max("hosts") AS "hosts" FROM (SELECT count("status") AS "hosts" FROM '
            '(SELECT last("status") AS "status" '
            f'FROM "ntpaudit_source" WHERE {since(EVERYBODY, "1h")}{_OWN_SERVERS.where} GROUP BY "host", "source") '
            'WHERE "status" = 1 GROUP BY "source")'
        ),
        Prom(
            "max(count by (source) ("
            f"{last('status', _OWN_SERVERS, by=('host', 'source'), span='1h', measurement='source')} == 1))"
        ),
        "warning",
        "{{ .Values.B }} hosts call the same server a falseticker",
        "It disagrees with the other servers of each of them: the server is wrong, not the hosts. Where it is one of "
        "few, it may win the vote one day.",
        "Find it (kind common-source), look at its own sources, take it out until it is right.",
        "ntpaudit fleet --format json",
        "fleet",
        "Findings in force, by kind",
        limit=COMMON_SOURCE - 0.5,
        no_data="OK",
    ),
    Rule(
        "findings",
        "Findings in force",
        Influx(
            f'SELECT count("raised") AS "hosts" FROM {in_force(_KINDS)} '
            'WHERE "raised" = 1 AND "state" > 0 GROUP BY "kind"'
        ),
        Prom(f"count by (kind) (({forced(_KINDS, field='severity')}) > 0)"),
        "warning",
        "{{ .Values.B }} hosts have the finding {{ .Labels.kind }}",
        "Agents raised it and have not cleared it. There is one alert for each kind of finding, not for each host.",
        "docs/findings.md says what it means; the dashboard has each host's own text with the remedy.",
        "ntpaudit fleet --flagged",
        "fleet",
        "Findings in force",
        no_data="OK",
    ),
    Rule(
        "backlog",
        "Records that wait to be delivered",
        Influx(
            'SELECT count("oldest") AS "hosts" FROM '
            + by_host(EVERYBODY, {"oldest": "oldest_undelivered_s"})
            + f' WHERE "oldest" > {BACKLOG_S:g}'
        ),
        Prom(count(f"{last('oldest_undelivered_s', EVERYBODY)} > bool {BACKLOG_S:g}")),
        "warning",
        "{{ .Values.B }} hosts deliver records that are more than 15 minutes old",
        "They were cut off, or the database refused them, and catch up now. What is shown of them may be late.",
        "If it lasts: look at delivery on the host, and at the load of the database.",
        "ntpaudit status",
        "host",
        "Delivery and agent",
        no_data="OK",
    ),
)


def rules(language: Language, panel_id: Callable[[str, str], int]) -> Json:
    """Return the file of the rules; `panel_id` knows the number of the panel of that title on a dashboard."""
    return {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": "ntpaudit",
                "folder": FOLDER,
                "interval": "1m",
                "rules": [_rule(rule, language, panel_id(rule.board, rule.panel)) for rule in RULES],
            }
        ],
    }


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

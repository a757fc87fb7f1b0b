r"""The alert rules, in Grafana's provisioning format: on counts by site, by finding or by server, never by host.

A new case at another site, or of another kind, is a new alert; the number of alerts stays bounded.

They contain no `$`, because Grafana replaces environment variables in provisioning files. Queries contain their own
time range, expressions name queries without it, templates use `.Values` and `.Labels`, and patterns end in `\z`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from grafana.links import DOCS_URL
from grafana.panels import uid
from grafana.queries import (
    AHEAD_S,
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
from ntpaudit.core.checks.offset import OFFSET_OUT
from ntpaudit.core.checks.records import TIME_DISPUTED
from ntpaudit.core.checks.steps import STEP_BACK, STEP_KINDS
from ntpaudit.core.fleet.shifts import SHARED_FALSETICKER
from ntpaudit.core.policy import Severity

Json = dict[str, Any]
NoData = Literal["OK", "Alerting", "KeepLast"]
Failure = Literal["Alerting", "KeepLast"]

FOLDER = "ntpaudit"
TEAM = "soc"
COMMON_SOURCE = 3
"""If this many hosts call one server a falseticker, the server is wrong and not the hosts."""

BACKLOG_S = 900.0

MOST_SERVERS = 50
"""How many servers a rule names at most; a rule by site has an instance for each site."""

# A place in a pool is a different server on every host.
_OWN_SERVERS = ALL_HOSTS.also(r'"source" !~ /\/[0-9]+\z/', 'source!~".*/[0-9]+"')
_STEP_BACK = ALL_HOSTS.also(f"\"kind\" = '{STEP_BACK.id}'", f'kind="{STEP_BACK.id}"')
_KNOWN_KINDS = "|".join(rule.id for rule in CHECKS)


class Rule(NamedTuple):
    """One rule: fires when the number is above `limit`, or below it if `below`, for as long as `pending`.

    `panel` is the title of the panel with details, on the dashboard `board`. `no_data` is the state of the rule if the
    query returns nothing, `failure` its state if the query fails.
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
    """Count the hosts of each site that deliver old records."""
    inner = by_host(ALL_HOSTS, {"oldest": "oldest_undelivered_s"}, by=_HERE)
    return (
        Influx(f'SELECT count("oldest") AS "hosts" FROM {inner} WHERE "oldest" > {BACKLOG_S:g} GROUP BY "site"'),
        Prom(count(f"{last('oldest_undelivered_s', ALL_HOSTS, by=_HERE)} > bool {BACKLOG_S:g}", by=("site",))),
    )


_HERE = ("host", "site")
_AT_SITE = "{{ with .Labels.site }} at {{ . }}{{ end }}"
_FINDINGS_EVERY = "5m"


def _of_severity(severity: Severity) -> tuple[Influx, Prom]:
    """Count the hosts of each site with a severity."""
    (influxql,) = sums({"hosts": is_severity(severity)}, judged(ALL_HOSTS, _HERE, with_disputed=False), ("site",))
    return influxql, Prom(count(f"({judged_now(ALL_HOSTS, by=_HERE)}) == bool {int(severity)}", by=("site",)))


_CRITICAL, _UNKNOWN = _of_severity(Severity.CRITICAL), _of_severity(Severity.UNKNOWN)

STATE_RULES = (
    Rule(
        "critical",
        "Clocks certainly wrong",
        *_CRITICAL,
        "critical",
        "{{ .Values.B }} hosts" + _AT_SITE + " have a clock that is certainly wrong",
        "The whole interval of their offset is outside the critical tolerance of their profile. If a host is behind, "
        "rules miss its events. If it is ahead, its events are delayed, refused or hidden.",
        "First save the records of each host, which are needed to correct its logs: `sudo ntpaudit history --since "
        "90d --format json > FILE`. Then run `sudo ntpaudit status`: do the fix of a finding that names the cause "
        "(time zone or hardware clock, servers, time daemon). If none does: if the clock is ahead, first stop "
        "applications that cannot bear repeated timestamps (databases, schedulers), because the repair sets it back. "
        "Then check the servers of the time daemon and restart it.",
        "ntpaudit fleet --flagged",
        "fleet",
        "Worst hosts",
    ),
    Rule(
        "unknown",
        "Clocks without a confirmed measurement",
        *_UNKNOWN,
        "warning",
        "{{ .Values.B }} hosts" + _AT_SITE + " report, but their offset is unknown, or not confirmed yet",
        "No server sent a usable reply, no majority of the servers agrees, the last measurement is more than a day "
        "old, or the agent is older than the alert rules. Or the clock was measured and is probably wrong, but this is "
        "not confirmed yet: after a boot or a start, or while the time daemon corrects the clock. The order of events "
        "cannot be proved.",
        "Run `sudo ntpaudit status` on each host. Without a measurement, it shows the status of each server, and the "
        "reason: check whether the host reaches its servers (UDP port 123), and whether one of them is wrong. With a "
        "measurement, read the findings. `Pending`: the clock is probably wrong; if this lasts longer than 30 minutes, "
        "do the fix of the finding. `Cannot be confirmed`: give `ntpaudit agent --once` a state folder that it can "
        "write to and that is kept. If neither is shown, and the severity is not unknown, the host has recovered. If "
        "the alert then still fires after 10 minutes, the agent is too old for the alert rules: update it.",
        "ntpaudit fleet --flagged",
        "fleet",
        "Worst hosts",
    ),
    Rule(
        "silent",
        "Silent hosts",
        Influx(
            'SELECT sum("silent") AS "silent" FROM (SELECT 2-"reports" AS "silent" FROM '
            f'{reporting(ALL_HOSTS, _HERE)}) GROUP BY "site"'
        ),
        Prom(count(f"{silence(ALL_HOSTS, by=_HERE)} > bool {SILENT_AFTER_S}", by=("site",))),
        "warning",
        "{{ with .Values.B }}{{ . }}{{ else }}All{{ end }} hosts" + _AT_SITE + " have sent nothing for 10 minutes",
        "The host is down, its agent was stopped, or it cannot deliver. An attacker who wants to set a clock unnoticed "
        "stops the agent first. After a day this alert ends although the host is still silent; then only `sudo "
        "ntpaudit fleet` shows it, and with `--inventory FILE` also after the database has deleted its points.",
        "If the host is down, start it, or inform its owner. If the agent is stopped, find out who or what stopped it "
        "(`systemctl status ntpaudit`, `sudo journalctl -u ntpaudit -n 50`), then start it: `sudo systemctl start "
        "ntpaudit`. If the agent runs, repair what the line `delivery` of `sudo ntpaudit status` names; restart the "
        "agent only after you changed its token.",
        "ntpaudit fleet --silent-after 10m --flagged",
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
        "No host has sent anything for 10 minutes, or the database does not reply",
        "No points reach the database, it does not store them, or Grafana cannot read it. Until that is fixed, no "
        "other rule reports a new problem, except `silent` if the query succeeds. The agents store their records and "
        "send them later; when a history reaches `history.max_size`, its oldest records are deleted.",
        "See the line `delivery` of the command. If it is up to date, the agents deliver: check Grafana's data source "
        "and its read token. If records wait, check the database: whether it runs, whether its disk is full, whether "
        "the agents' token is valid. If no database is configured, set `influxdb.url` again and run `sudo systemctl "
        "reload ntpaudit`. After a change of the token, run `sudo systemctl restart ntpaudit`.",
        "ntpaudit status",
        "fleet",
        "Clocks now",
        limit=1.0,
        below=True,
        no_data="Alerting",
        failure="Alerting",  # a database that is down answers with an error, and no other rule would fire
    ),
    Rule(
        STEP_BACK.id,
        "Clocks set back",
        Influx(
            'SELECT count("raised") AS "steps" FROM "ntpaudit_event" '
            f'WHERE {since(ALL_HOSTS, "1h")}{_STEP_BACK.where} AND "severity" > 0 GROUP BY "site"'
        ),
        Prom(f"sum by (site) (count_gt_over_time({metric('severity', _STEP_BACK, 'event')}[1h], 0))"),
        "warning",
        "{{ .Values.B }} backward clock steps in the last hour" + _AT_SITE,
        "The logs of these hosts contain some timestamps twice, so timestamps do not show the order of events there.",
        "The command shows the time that occurs twice: record it in the incident ticket, and do not rely on the order "
        "of log entries in it. Run `sudo ntpaudit status` to see whether the clock is right now; if not, do the fix of "
        "its findings. Then find out what set the clock: `sudo journalctl` around that time shows whether it was a "
        "time daemon, a hypervisor, or a person. If it was a time daemon, allow it to step only during boot. If it was "
        "a hypervisor, turn off its time synchronisation for this host. If the cause is unknown, or a person had no "
        "permission, inform your security team.",
        "ntpaudit history --events",
        "fleet",
        "Clock steps",
        pending="0s",  # an event: after ten minutes it would be over
        no_data="OK",
    ),
    Rule(
        SHARED_FALSETICKER.id,
        "A server is a falseticker on several hosts",
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
        "On each of these hosts it disagrees with the servers that agree, so it is probably wrong. On hosts with few "
        "servers it may become part of a majority. But if no majority agrees on a host, all its servers are called "
        "falsetickers, also those that are right.",
        "First run `sudo ntpaudit status` on some of the hosts. If the reason of this server is `no-majority`, it may "
        "be right: remove nothing; do the fix of the finding `source-quorum` there, which finds the wrong ones. "
        "Otherwise check whether the server is broken or compromised. Until it is repaired, remove it from the time "
        "daemon of each host, and then from `sources.servers` of ntpaudit. If the command prints nothing for this "
        "server, its errors differ between the hosts, or it agrees again: `sudo ntpaudit fleet` shows hosts with a "
        "falseticker in the column `sources` (`1 false`), and `sudo ntpaudit status` there names the server. The "
        "command needs `jq`; without it, see this finding in the output of `sudo ntpaudit fleet`.",
        "ntpaudit fleet --format json | "
        f"jq '.findings[] | select(.id == \"{SHARED_FALSETICKER.id}\") | .source, .hosts'",
        "fleet",
        "Raised findings by kind",
        limit=COMMON_SOURCE - 0.5,
        no_data="OK",
    ),
    Rule(
        "backlog",
        "Delayed deliveries",
        *_backlog(),
        "warning",
        "{{ .Values.B }} hosts" + _AT_SITE + " deliver records that are more than 15 minutes old",
        "The records of these hosts wait or are sent late, because the hosts were disconnected or the database "
        "refused the records. The dashboards may show old data for these hosts.",
        "Name the hosts in Grafana's *Explore*, because the panel shows one host. VictoriaMetrics: "
        f"`last_over_time(ntpaudit_clock_oldest_undelivered_s[10m]) > {BACKLOG_S:g}`. InfluxDB: `SELECT "
        '"host", "oldest" FROM (SELECT last("oldest_undelivered_s") AS "oldest" FROM "ntpaudit_clock" WHERE time > '
        f'now() - 10m GROUP BY "host") WHERE "oldest" > {BACKLOG_S:g}`. If the alert persists, see the line `delivery` '
        "of the command: if writes fail, its error is the cause; if records only wait, check the network and the load "
        "of the database.",
        "ntpaudit status",
        "host",
        "Delivery and agent",
        no_data="OK",
    ),
)
"""Rules about the state of hosts and of the database, evaluated every minute."""


def _finding(name: str, title: str, influxql: str, promql: str, meaning: str, action: str) -> Rule:
    """Return the rule for one kind of finding, or for all kinds without a rule."""
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
        "Raised findings",
        no_data="OK",
        documented="findings.md",
    )


def _by_site(scope: Scope) -> str:
    """Count the known hosts of each site with a raised finding of medium level or higher, in PromQL."""
    return f"count by (site) (max by (host, site) ({forced(scope, by=('host', 'site', 'kind'), field='severity')}) > 0)"


def _query_of(kind: str) -> tuple[str, str]:
    """Count the hosts of each site with a finding; `time-disputed` is read from points of any timestamp."""
    if kind == TIME_DISPUTED.id:
        return disputed_lately(("site",)), f"count by (site) ({disputed_now(ALL_HOSTS, by=_HERE)})"
    return of_kind(kind), _by_site(ALL_HOSTS.also("", f'kind="{kind}"'))


_RAISED = (
    "Agents raised this finding at medium level or higher and have not cleared it. docs/findings.md (see runbook_url) "
    "explains it.",
    "Follow docs/findings.md. `sudo ntpaudit status` on each host shows its message and fix.",
)
_DISPUTED = (
    "The timestamps of these hosts and the database's clock contradict each other: by the `Date` header of its "
    f"replies, or because a point is stamped more than {AHEAD_S} s ahead of it. One of the two clocks is wrong.",
    "The command names the hosts, the difference and the fix. If most hosts are listed, check the clock of the "
    "database's host first. `sudo ntpaudit status` on a host shows the finding only if its agent raised it.",
)
"""The meaning of an alert about a finding, and what to do: in general, and for `time-disputed`."""

OWN_RULE = (OFFSET_OUT.id, *STEP_KINDS)
"""Findings that `critical` and `step-back` cover, and one that does not change the order of logs."""

_NEW = ALL_HOSTS.also(rf'"kind" !~ /^({_KNOWN_KINDS})\z/', f'kind!~"{_KNOWN_KINDS}"')

FINDING_RULES = (
    *(
        _finding(
            rule.id,
            f"Finding {rule.id}",
            *_query_of(rule.id),
            *(_DISPUTED if rule.id == TIME_DISPUTED.id else _RAISED),
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
        "In the last day agents raised findings that have no rule, because the agents are newer than the rules.",
        "Run `sudo ntpaudit status` on each host: it shows each finding with its fix; do that first. Later, install "
        "the rules and dashboards of the agents' version.",
    )._replace(documented="runbook.md", summary="{{ .Values.B }} findings" + _AT_SITE + " of a kind without a rule"),
)
"""A rule for each finding of medium level or higher, evaluated every five minutes."""

RULES = (*STATE_RULES, *FINDING_RULES)


def rules(language: Language, panel_id: Callable[[str, str], int]) -> Json:
    """Return the rules as one file; `panel_id` returns the number of the panel with a title on a dashboard."""

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
    """Return docs/runbook.md: for each rule its meaning and what to do, under a heading that its alerts link to."""
    own = [rule for rule in RULES if rule.documented == "runbook.md"]
    return "\n".join([_RUNBOOK_HEAD, *(_chapter(rule) for rule in own)])


_RUNBOOK_HEAD = """\
<!-- Written by `make dashboards` from grafana/alerts.py: change that. -->

# Runbook

What to do when one of ntpaudit's Grafana alerts fires. An alert's `runbook_url` links to its section. The alerts
below have theirs on this page. Each other alert has the id of a finding as its name, and its section is in
[findings.md](findings.md). How alerts are grouped and when they notify: [dashboards.md](dashboards.md#alerts).

Run the commands as root on one of two machines:

- *the host*: each host of the alert, which the panel or `sudo ntpaudit fleet --flagged` names; for `no-data` any host,
  and for `backlog` the hosts that the query of its section names.
- *the fleet machine*: the one whose configuration has the section `[fleet]` ([fleet.md](fleet.md#where-it-runs)).
  Note its name before you need it. If you do not know it, run the command on any host with an agent: it then reads
  the database of `[influxdb]` (with VictoriaMetrics add `--language promql`). This fails if the agent's token may only
  write.
"""


def _chapter(rule: Rule) -> str:
    holds = "fires at once" if rule.pending == "0s" else f"fires after {rule.pending.removesuffix('m')} minutes"
    return (
        f"## {rule.name}\n\n**{rule.title}** ({rule.severity}, {holds}).\n\n{rule.meaning}\n\n"
        f"- Fix: {rule.action}\n- {_command(rule)}\n- Panel: *{rule.panel}*, dashboard *{rule.board}*\n"
    )


def _command(rule: Rule) -> str:
    machine = "the fleet machine" if rule.command.startswith("ntpaudit fleet ") else "the host"
    return f"Command, on {machine}: `sudo {rule.command}`"


def _rule(rule: Rule, language: Language, panel_id: int) -> Json:
    last_value = _expression({"refId": "B", "type": "reduce", "expression": "A", "reducer": "last"})
    return {
        "uid": f"ntpaudit-{rule.name}" if language == "influxql" else f"ntpaudit-{rule.name}-promql",
        "title": rule.title,
        "condition": "C",
        "data": [_query(rule, language), last_value, _threshold(rule)],
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
            "runbook": f"{rule.action} {_command(rule)}",
            "runbook_url": f"{DOCS_URL}/{rule.documented}#{rule.name}",
        },
        "labels": {"severity": rule.severity, "team": TEAM},
        "isPaused": False,
    }


def _query(rule: Rule, language: Language) -> Json:
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


def _threshold(rule: Rule) -> Json:
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
    return {
        "refId": model["refId"],
        "relativeTimeRange": {"from": 0, "to": 0},
        "datasourceUid": "__expr__",
        "model": {**model, "datasource": {"type": "__expr__", "uid": "__expr__"}},
    }

"""What the dashboards ask, in InfluxQL and in PromQL (MetricsQL), with nothing in it that a 3.x server refuses.

Every question about all hosts is answered by one series, or by one for each site, kind or source: Grafana cuts what
an InfluxDB answers at 1000 series. `by_host` is the inner query, which has one row for each host; around it hosts are
counted or listed, with their tags as columns.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

Language = Literal["influxql", "promql"]
LANGUAGES: tuple[Language, ...] = ("influxql", "promql")
Form = Literal["table", "time_series"]
Json = dict[str, Any]

SOURCES: dict[Language, str] = {"influxql": "ntpaudit-influxdb", "promql": "ntpaudit-victoriametrics"}
"""The uid of each data source, as it is provisioned."""

SOURCE_NAMES: dict[Language, str] = {"influxql": "ntpaudit (InfluxDB)", "promql": "ntpaudit (VictoriaMetrics)"}
"""The name of each data source, as it is provisioned."""

SILENT_AFTER = "10m"
"""A host without a point for this time is silent, as for `ntpaudit fleet`."""

SILENT_AFTER_S = 600
KNOWN = "24h"
"""A host is known that had a point in this time; who is silent for longer only `ntpaudit fleet --inventory` knows."""

MAX_AGE_S = 86_400
"""No agent carries an offset forward for longer: an older measurement says nothing of the clock now."""

AHEAD_S = 60
"""A stamp that is further ahead of the database's clock is disputed by that alone."""

LOOK_BACK, LOOK_AHEAD = "2d", "2d"
"""How far stamps that are disputed can be off: by a day at most, and VictoriaMetrics drops what is two days ahead."""

_ROUNDING = "1.000000001"
"""What a database may lose of the digits."""

IN_FORCE = "90d"
"""How far back a finding may have been raised that is still in force."""

STEPS_COUNT = "1h"
"""Nothing clears a step: it counts as raised for this time."""


class Scope(NamedTuple):
    """Whom a question is about, in both languages, and the moment that is now, as InfluxQL has it."""

    where: str
    labels: str
    now: str = "${__to}ms"

    def also(self, where: str, labels: str) -> "Scope":
        """Return the same with further conditions."""
        return self._replace(
            where=f"{self.where} AND {where}" if where else self.where, labels=_labels(self.labels, labels)
        )


def chosen(tag: str, variable: str) -> tuple[str, str]:
    """Return the conditions that a tag has a chosen value, in both languages.

    The format `regex` escapes what a pattern would take for its own. In PromQL the pattern is between back quotes,
    where neither a backslash nor a double quote means anything.
    """
    return f'"{tag}" =~ /^${{{variable}:regex}}$/', f"{tag}=~`${{{variable}:regex}}`"


def _of(*tags: tuple[str, str]) -> Scope:
    found = [chosen(tag, variable) for tag, variable in tags]
    return Scope("".join(f" AND {where}" for where, _ in found), ",".join(labels for _, labels in found))


CHOSEN = _of(("site", "site"), ("env", "env"))
"""The sites and environments that are chosen at the top of a dashboard."""

HOSTS_THERE: dict[Language, str] = {
    "influxql": f'SHOW TAG VALUES FROM "ntpaudit_clock" WITH KEY = "host" WHERE {CHOSEN.where.removeprefix(" AND ")}',
    "promql": f"label_values(ntpaudit_clock_severity{{{CHOSEN.labels}}}, host)",
}
"""The names of the hosts of these."""

ONE_HOST = _of(("host", "host"))
SOME_HOSTS = _of(("host", "hosts"))
SHOWN = Scope("", "")
"""All that an inner query has, in the range that is shown."""

ALL_HOSTS = Scope("", "", "now()")
"""All hosts, as an alert rule asks, which knows neither choice nor range."""


class Influx(NamedTuple):
    """A query to an InfluxDB; a table is one frame, whatever columns it has."""

    query: str
    form: Form = "table"
    alias: str = ""


class Prom(NamedTuple):
    """A query to a VictoriaMetrics: `instant` is asked at the end of the range alone. `legend` names the answer."""

    query: str
    legend: str = ""
    form: Form = "time_series"
    instant: bool = True


class Question(NamedTuple):
    """One question in both languages, and what Grafana does to each answer before it shows it."""

    influxql: tuple[Influx, ...]
    promql: tuple[Prom, ...]
    influxql_changes: tuple[Json, ...] = ()
    promql_changes: tuple[Json, ...] = ()

    @property
    def changes(self) -> Mapping[Language, tuple[Json, ...]]:
        """The transformations, by language."""
        return {"influxql": self.influxql_changes, "promql": self.promql_changes}

    def targets(self, language: Language) -> list[Json]:
        """Return the queries as a panel has them."""
        asked: Sequence[Influx | Prom] = self.influxql if language == "influxql" else self.promql
        return [{"refId": chr(ord("A") + place), **_target(one)} for place, one in enumerate(asked)]


def _target(one: Influx | Prom) -> Json:
    match one:
        case Influx(query, form, alias):
            return {
                "datasource": datasource("influxql"),
                "query": query,
                "rawQuery": True,
                "resultFormat": form,
                "alias": alias or ("$col" if form == "time_series" else ""),
            }
        case Prom(query, legend, form, instant):
            return {
                "datasource": datasource("promql"),
                "expr": query,
                "legendFormat": legend,
                "format": form,
                "instant": instant,
                "range": not instant,
                "editorMode": "code",
            }


def datasource(language: Language) -> Json:
    """Return the data source that is chosen at the top of the dashboard."""
    return {"type": "influxdb" if language == "influxql" else "prometheus", "uid": "${datasource}"}


BUCKETS = "time($__interval, ${__to}ms)"
"""Intervals aligned to the end of the range; otherwise the last one is cut short and shows too few hosts."""

DRIFT = "0.00005"
"""By what a clock may have moved since its last point, in seconds a second: as `ntpaudit fleet` widens intervals."""


# InfluxQL


def in_range(scope: Scope) -> str:
    """Return the condition that a point is in the range that is shown, which ends before its last moment."""
    return f"$timeFilter AND time < {scope.now}{scope.where}"


def since(scope: Scope, span: str) -> str:
    """Return the condition that a point is of the last `span` before now."""
    return f"time > {scope.now} - {span} AND time <= {scope.now}"


def by_host(scope: Scope, fields: Mapping[str, str], *, by: Sequence[str] = ("host",), span: str = SILENT_AFTER) -> str:
    """Return the inner query: each host's last `severity`, and other fields of that very point, renamed."""
    wanted = ", ".join(
        ['last("severity") AS "severity"', *(f'"{field}" AS "{name}"' for name, field in fields.items())]
    )
    return f'(SELECT {wanted} FROM "ntpaudit_clock" WHERE {since(scope, span)}{scope.where} GROUP BY {_words(by)})'


def is_severity(number: int, field: str = "severity") -> str:
    """Return an expression that is 1 where a field from 0 to 3 is that number, and 0 elsewhere.

    InfluxQL has no CASE, and a count of no rows is no answer where zero is meant: so the polynomials of Lagrange.
    """
    name = f'"{field}"'
    factors = (
        f"(1-{name})*(2-{name})*(3-{name})/6",
        f"{name}*(2-{name})*(3-{name})/2",
        f"{name}*({name}-1)*(3-{name})/2",
        f"{name}*({name}-1)*({name}-2)/6",
    )
    return factors[number]


def is_above(field: str, limit: float) -> str:
    """Return an expression that is 1 where a field is above a limit, 0 where it is below, nothing where there is none.

    (x + |x|) / 2|x| is exactly that of the difference x. Where it is 0 a server of 1.x answers 0; and its `abs` returns
    a negative integer as it is, so the difference must be a float.
    """
    difference = f'("{field}"{"-" if limit >= 0 else "+"}{number(abs(limit))})'  # two hyphens begin a comment
    return f"({difference}+abs({difference}))/(2*abs({difference}))"


def is_below(field: str, limit: float) -> str:
    """Return an expression that is 1 where a field is below a limit, and 0 where it is above."""
    difference = f'({number(limit)}-"{field}")'
    return f"({difference}+abs({difference}))/(2*abs({difference}))"


_CLAIM_TEXTS = {"daemon": "daemon", "follows": "daemon_follows"}
_CLAIM_NUMBERS = {
    "synchronised": "daemon_synchronised",
    "states": "daemon_offset_s",
    "direction": "daemon_offset_s",
    "its bound": "daemon_bound_s",
    "update age": "daemon_updated_s",
    "measured": "offset_s",
    "contradicted by": "daemon_excess_s",
}
"""What the time daemon states. `contradicted by`: how far the measured interval is from what the daemon allows, as the
agent has computed it (`cross_check` of the record): 0 if both can be right, and missing if that is unknown."""


def sums(columns: Mapping[str, str], inner: str, by: Sequence[str] = ()) -> tuple[Influx, ...]:
    """Return for each column a query for the sum of its expression over the rows of an inner query: one number.

    One query for all of them would run the inner one as often, one after the other. With `by` it is one for each value
    of these tags.
    """
    groups = f" GROUP BY {_words(by)}" if by else ""
    return tuple(
        Influx(f'SELECT sum("{name}") AS "{name}" FROM (SELECT {expression} AS "{name}" FROM {inner}){groups}')
        for name, expression in columns.items()
    )


def shares(columns: Mapping[str, str], inner: str) -> tuple[Influx, ...]:
    """Return for each column a query for its sum as a share of all rows, those among them that have no such field."""
    return tuple(
        Influx(
            f'SELECT sum("{name}")/count("severity") AS "{name}" '
            f'FROM (SELECT "severity", {expression} AS "{name}" FROM {inner})'
        )
        for name, expression in columns.items()
    )


def share_of_known(name: str, expression: str, inner: str, scope: Scope) -> Influx:
    """Return the share of all known hosts for which an expression over an inner query is 1; it is 0 for the silent."""
    return Influx(
        f'SELECT mean("{name}") AS "{name}" FROM (SELECT max("{name}") AS "{name}" FROM '
        f'(SELECT "severity"*0 AS "{name}" FROM {by_host(scope, {}, span=KNOWN)}), '
        f'(SELECT {expression} AS "{name}" FROM {inner}) GROUP BY "host")'
    )


_AGO = '(${__to}000000-"host_time")/1000000000.0-"offset"+"disputed"'
_LATELY = f"{_AGO} < {SILENT_AFTER_S} AND {_AGO} > -{AHEAD_S}"
"""That a point with a disputed stamp came lately: its stamp is the host's time and its offset."""


def _is_positive(name: str) -> str:
    """Return an expression that is 1 where a column is positive, and 0 where it is negative."""
    return f'(("{name}"+abs("{name}"))/(2*abs("{name}")))'


def _union(queries: Sequence[str], by: Sequence[str], function: str) -> str:
    """Return an inner query for one number of each host, of those that several inner queries have of it."""
    return f'(SELECT {function}("severity") AS "severity" FROM {", ".join(queries)} GROUP BY {_words(by)})'


def _proved(scope: Scope, by: Sequence[str]) -> str:
    """Return an inner query for the severity that each reporting host's own interval, tolerances and age prove.

    It is 2, unknown, less 2 and plus what is proved where the last point has a measurement that is not too old. What
    the agent does not believe yet, for want of samples, is left to it. InfluxQL has neither a maximum of columns nor a
    test for a missing value: so the sums.
    """
    fields = {
        "earliest": "earliest_s",
        "latest": "latest_s",
        "offset": "offset_s",
        "bound": "bound_s",
        "age": "age_s",
        "critical": "critical_s",
        "warning": "warning_s",
    }
    margins = (
        '(SELECT "earliest"-"critical" AS "behind", 0-"latest"-"critical" AS "ahead", '
        f'"bound"-{_ROUNDING}*"critical" AS "open", abs("offset")-{_ROUNDING}*"warning" AS "off" '
        f'FROM {by_host(scope, fields, by=by)} WHERE "age" <= {MAX_AGE_S})'
    )
    beyond, near = f"{_is_positive('behind')}+{_is_positive('ahead')}", f"(1-{_is_positive('off')})"
    proved = f"3*({beyond})+(1-({beyond}))*(1-(1-{_is_positive('open')})*{near})-2"
    waiting = (
        '(SELECT last("confirmed") AS "confirmed", "offset_s" AS "offset" FROM "ntpaudit_clock" '
        f"WHERE {since(scope, SILENT_AFTER)}{scope.where} GROUP BY {_words(by)})"
    )
    return _union(
        [
            f'(SELECT "severity"*0+2.0 AS "severity" FROM {by_host(scope, {}, by=by)})',
            f'(SELECT {proved} AS "severity" FROM {margins})',
            f'(SELECT "confirmed"*0-3+"offset"*0 AS "severity" FROM {waiting})',
        ],
        by,
        "sum",
    )


def disputed(scope: Scope, by: Sequence[str] = ("host",)) -> tuple[str, ...]:
    """Return inner queries for the severity, 1 at least, of hosts whose stamps the database's clock contradicts.

    First those whose agents know it: their last point that says so came lately, by its stamp less the difference. An
    alert rule, which cannot compute with now, takes all of the last day. Then those that are stamped ahead of the
    database's clock and do not know it.
    """

    def last_of(field: str, begin: str, end: str, others: str = "") -> str:
        return (
            f'(SELECT last("{field}") AS "severity"{others} FROM "ntpaudit_clock" '
            f"WHERE {begin} AND time < {scope.now} + {end}{scope.where} GROUP BY {_words(by)})"
        )

    others = ', "disputed_s" AS "disputed", "host_time_ns" AS "host_time", "offset_s" AS "offset"'
    known = last_of("disputed_severity", f"time > {scope.now} - {LOOK_BACK}", LOOK_AHEAD, others)
    lately = "" if scope.now == "now()" else f" WHERE {_LATELY}"
    ahead = f"time > {scope.now} + {AHEAD_S}s AND time > now() + {AHEAD_S}s"
    only_ahead = _union(
        [
            f'(SELECT "severity"+10 AS "severity" FROM {last_of("severity", ahead, LOOK_AHEAD)})',
            f'(SELECT "severity"*0-100 AS "severity" FROM {last_of("disputed_severity", ahead, LOOK_AHEAD)})',
        ],
        by,
        "sum",
    )
    return (
        f'(SELECT ("severity"+1.0+abs("severity"-1.0))/2.0 AS "severity" FROM {known}{lately})',
        f'(SELECT ("severity"-9.0+abs("severity"-11.0))/2.0 AS "severity" FROM {only_ahead} WHERE "severity" >= 10)',
    )


def unaware(scope: Scope, by: Sequence[str]) -> str:
    """Return an inner query for the severity of hosts that are stamped ahead and do not know it."""
    return _union(disputed(scope, by)[1:], by, "max")


def judged(scope: Scope, by: Sequence[str] = ("host",), *, with_disputed: bool = True) -> str:
    """Return an inner query for the severity of each host that delivers, which is not trusted to say it itself.

    It is the worst of what its last point says, of what that point proves, and 1 where its time is disputed.
    """
    said = f'(SELECT "severity"*1.0 AS "severity" FROM {by_host(scope, {}, by=by)})'
    return _union([said, _proved(scope, by), *(disputed(scope, by) if with_disputed else ())], by, "max")


def disputed_lately(by: Sequence[str]) -> str:
    """Return a query for the number of hosts whose time is disputed, for an alert rule, by tags.

    Since it cannot compute with now, a dispute of the last day counts while no point that is not disputed came since:
    10 of the dispute, 1 of a last point within ten minutes, and 1 less if that is disputed itself.
    """
    known, stamped_ahead = disputed(ALL_HOSTS, ("host", *by))
    recent = (
        f'(SELECT last("disputed_severity") AS "severity" FROM "ntpaudit_clock" '
        f"WHERE {since(ALL_HOSTS, SILENT_AFTER)} GROUP BY {_words(('host', *by))})"
    )
    weights = [
        f'(SELECT "severity"*0+{weight} AS "severity" FROM {inner})'.replace("+-", "-")
        for weight, inner in (
            (10, known),
            (100, stamped_ahead),
            (1, by_host(ALL_HOSTS, {}, by=("host", *by))),
            (-1, recent),
        )
    ]
    return (
        f'SELECT count("severity") AS "hosts" FROM {_union(weights, ("host", *by), "sum")} '
        f'WHERE "severity" = 10 OR "severity" > 98 GROUP BY {_words(by)}'
    )


def contradicted(scope: Scope, by: Sequence[str]) -> str:
    """Return an inner query for what is proved of hosts that report `ok`: above 0 they are contradicted by it."""
    said = f'(SELECT "severity"*-10.0 AS "severity" FROM {by_host(scope, {}, by=by)})'  # others become negative
    return _union([said, _proved(scope, by)], by, "sum")


def disputed_hosts(scope: Scope, by: Sequence[str], fields: Mapping[str, str]) -> str:
    """Return an inner query for the last point that a disputed host knows to be, with fields of it, renamed."""
    wanted = {**fields, "disputed": "disputed_s", "host_time": "host_time_ns", "offset": "offset_s"}
    renamed = ", ".join(f'"{field}" AS "{name}"' for name, field in wanted.items())
    names = ", ".join(f'"{name}"' for name in wanted)
    known = (
        f'(SELECT last("disputed_severity") AS "severity", {renamed} FROM "ntpaudit_clock" WHERE time > {scope.now} - '
        f"{LOOK_BACK} AND time < {scope.now} + {LOOK_AHEAD}{scope.where} GROUP BY {_words(by)})"
    )
    return f"(SELECT {names}, {_words(by)} FROM {known} WHERE {_LATELY})"


def counted(scope: Scope, name: str) -> Influx:
    """Return the number of hosts whose time is disputed: 0 where none is, nothing where no host is known."""
    rows = [f'(SELECT "severity"*0 AS "severity" FROM {by_host(scope, {}, span=KNOWN)})']
    rows += [f'(SELECT "severity"*0+1 AS "severity" FROM {inner})' for inner in disputed(scope)]
    return Influx(f'SELECT sum("severity") AS "{name}" FROM {_union(rows, ("host",), "max")}')


def reporting(scope: Scope, by: Sequence[str] = ("host",), disputed_weighs: int = 2) -> str:
    """Return an inner query with `reports` for each known host: 2 where it reports, 1 where it is silent.

    A host that delivers with disputed stamps is not silent; it may have a weight of its own. Of several rows of one
    host `max` takes the greatest, and with it the time of its last point. To ask for the time itself would not do: the
    condition would move inwards, to where the last point is looked for.
    """

    def row(weight: int, inner: str) -> str:
        return f'(SELECT "severity"*0+{weight} AS "reports" FROM {inner})'

    rows = [
        row(1, by_host(scope, {}, by=by, span=KNOWN)),
        row(2, by_host(scope, {}, by=by, span=SILENT_AFTER)),
        *(row(disputed_weighs, inner) for inner in disputed(scope, by)),
    ]
    return f'(SELECT max("reports") AS "reports" FROM {", ".join(rows)} GROUP BY {_words(by)})'


def in_force(scope: Scope, by: Sequence[str] = ("host", "kind")) -> str:
    """Return an inner query with `raised` for each finding that was last raised and not cleared, and each late step.

    Also for hosts that are gone: `of_known` drops these, and `of_kind` counts without them.
    """

    def last(kinds: str, span: str) -> str:
        return (
            'SELECT last("raised") AS "raised", "severity" AS "state", "value_s" AS "size", "text" AS "text", '
            '"title" AS "title" '
            f'FROM "ntpaudit_event" WHERE {since(scope, span)} AND "kind" {kinds}{scope.where} GROUP BY {_words(by)}'
        )

    return f"({last('!~ /^step-/', IN_FORCE)}), ({last('=~ /^step-/', STEPS_COUNT)})"


COUNTED_INFLUX = '"raised" = 1 AND "title" !~ /^accepted:/'
ACCEPTED_INFLUX = '"raised" = 1 AND "title" =~ /^accepted:/'
"""Conditions on `in_force`, by the title: events of older agents have no field `accepted`."""


def of_kind(kind: str) -> str:
    """Return a query for the number of known hosts of each site that have a finding, of medium level or more, in force.

    By what the last point of each host says, not by its events: InfluxQL joins no two measurements, and the events of a
    host that is gone would count for months.
    """
    known = by_host(ALL_HOSTS, {"kinds": "finding_ids"}, by=("host", "site"), span=KNOWN)
    return f'SELECT count("severity") AS "hosts" FROM {known} WHERE "kinds" =~ /(^| ){kind}( |\\z)/ GROUP BY "site"'


def number(value: float) -> str:
    """Write a number as both languages read it, without an exponent."""
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _words(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


# PromQL


def last(
    name: str, scope: Scope, *, by: Sequence[str] = ("host",), span: str = SILENT_AFTER, measurement: str = "clock"
) -> str:
    """Return the last value of a field of each host."""
    return f"max by ({', '.join(by)}) (last_over_time({metric(name, scope, measurement)}[{span}]))"


def _at(name: str, scope: Scope, by: Sequence[str], span: str = SILENT_AFTER) -> str:
    """Return when a field of each host had its last value."""
    return f"max by ({', '.join(by)}) (tlast_over_time({metric(name, scope)}[{span}]))"


def _has(name: str, scope: Scope, by: Sequence[str]) -> str:
    """Return the hosts whose last point has a field."""
    return f"({_at(name, scope, by)} >= on ({', '.join(by)}) {_at('severity', scope, by)})"


def measured(name: str, scope: Scope, *, by: Sequence[str] = ("host",)) -> str:
    """Return the last value of a field that only a measured clock has, where the host's last point has it."""
    return f"({last(name, scope, by=by)} and on ({', '.join(by)}) {_has(name, scope, by)})"


def is_measured(scope: Scope, *, by: Sequence[str] = ("host",)) -> str:
    """Return the hosts whose last point has a measurement that is not too old."""
    on = f"on ({', '.join(by)})"
    return f"({_has('offset_s', scope, by)} and {on} ({last('age_s', scope, by=by)} <= {MAX_AGE_S}))"


def disputed_now(scope: Scope, *, by: Sequence[str] = ("host",)) -> str:
    """Return the severity, 1 at least, of hosts whose stamps the database's clock contradicts, as `disputed` does."""
    on, names = f"on ({', '.join(by)})", f"max by ({', '.join(by)})"

    def ranged(name: str, function: str, window: str) -> str:
        return f"{names} ({function}_over_time({metric(name, scope)}{window}))"

    near, ahead = f"[4d] offset -{LOOK_AHEAD}", f"[{LOOK_AHEAD}] offset -{LOOK_AHEAD}"
    wrong_s = ranged("disputed_s", "last", near)
    shifted = f"({wrong_s} * {on} (abs({wrong_s}) <= bool {MAX_AGE_S}))"  # a greater dispute is not in the stamps
    ago = f"(time() - ({ranged('disputed_s', 'tlast', near)} - {on} {shifted}))"
    known = f"clamp_min({ranged('disputed_severity', 'last', near)}, 1)"
    lately = f"{known} and {on} ({ago} < {SILENT_AFTER_S}) and {on} ({ago} > -{AHEAD_S})"
    stamp = ranged("severity", "tlast", ahead)
    only_ahead = (
        f"clamp_min({ranged('severity', 'last', ahead)}, 1) and {on} ({stamp} > time() + {AHEAD_S}) "
        f"and {on} ({stamp} > now() + {AHEAD_S}) unless {on} {ranged('disputed_s', 'last', ahead)}"
    )
    return f"(({lately}) or ({only_ahead}))"


def disputed_by(scope: Scope, *, by: Sequence[str]) -> str:
    """Return by how much the time of each disputed host is ahead of the database's clock, in seconds."""
    on, names = f"on ({', '.join(by)})", f"max by ({', '.join(by)})"
    known = f"{names} (last_over_time({metric('disputed_s', scope)}[4d] offset -{LOOK_AHEAD}))"
    stamp = f"{names} (tlast_over_time({metric('severity', scope)}[{LOOK_AHEAD}] offset -{LOOK_AHEAD}))"
    return f"({known} or ({stamp} - time())) and {on} {disputed_now(scope, by=by)}"


def judged_now(scope: Scope, *, by: Sequence[str] = ("host",)) -> str:
    """Return the severity of each host that delivers, as `judged` does.

    What is proved is the worst of 3 beyond the critical tolerance, 1 where the interval reaches across it, and 1 beyond
    that of the warning; 0 where the agent waits for more samples; and 2 where the last point has no measurement.
    """
    on, names = f"on ({', '.join(by)})", f"by ({', '.join(by)})"

    def field(name: str) -> str:
        return last(name, scope, by=by)

    proved = (
        f"max(3 * (max({field('earliest_s')}, -1 * {field('latest_s')}) {names} > bool {on} {field('critical_s')}), "
        f"{field('bound_s')} > bool {on} ({_ROUNDING} * {field('critical_s')}), "
        f"abs({field('offset_s')}) > bool {on} ({_ROUNDING} * {field('warning_s')})) {names}"
    )
    believed = f"min({proved}, 0 * {field('confirmed')}) {names}"
    least = f"(({believed}) and {on} {is_measured(scope, by=by)}) or (2 + 0 * {field('severity')})"
    return f"max({field('severity')}, {least}, {disputed_now(scope, by=by)}) {names}"


def silence(scope: Scope, *, by: Sequence[str] = ("host",)) -> str:
    """Return for how long each known host has sent nothing, in seconds; 0 of one that delivers with disputed stamps."""
    return f"((0 * {disputed_now(scope, by=by)}) or (time() - {seen(scope, by=by)}))"


def metric(name: str, scope: Scope, measurement: str = "clock") -> str:
    """Return the name of a field's series and whose they are."""
    return f"ntpaudit_{measurement}_{name}{{{scope.labels}}}"


def _labels(*parts: str) -> str:
    return ",".join(part for part in parts if part)


def seen(scope: Scope, *, by: Sequence[str] = ("host",)) -> str:
    """Return when each known host's last point was, in seconds since 1970."""
    return f"max by ({', '.join(by)}) (tlast_over_time({metric('severity', scope)}[{KNOWN}]))"


def count(condition: str, by: Sequence[str] = ()) -> str:
    """Return how many values a `bool` condition holds for: 0 where for none, nothing where there are no values."""
    return f"sum by ({', '.join(by)}) ({condition})" if by else f"sum({condition})"


def forced(
    scope: Scope, *, by: Sequence[str] = ("host", "kind"), field: str = "raised", accepted: bool | None = None
) -> str:
    """Return a field of each finding that is in force on a known host: 1 of `raised`.

    `accepted`: only of those that are accepted, or that are not; None: of all.
    """
    lasting, steps = (_labels(scope.labels, matcher) for matcher in ('kind!~"step-.*"', 'kind=~"step-.*"'))

    def last_of(name: str) -> str:
        return (
            f"max by ({', '.join(by)}) (last_over_time(ntpaudit_event_{name}{{{lasting}}}[{IN_FORCE}]) "
            f"or last_over_time(ntpaudit_event_{name}{{{steps}}}[{STEPS_COUNT}]))"
        )

    raised = f"({last_of('raised')} == 1 and on (host) {seen(ALL_HOSTS)})"
    if accepted is not None:
        raised = f"({raised} {'and' if accepted else 'unless'} on ({', '.join(by)}) ({last_of('accepted')} == 1))"
    return raised if field == "raised" else f"({last_of(field)} and on ({', '.join(by)}) {raised})"


# Grafana


def claims_question(scope: Scope, by: Sequence[str] = ("host",), *, only_doubtful: bool = False) -> Question:
    """Return the question for what the time daemon of each host states.

    `only_doubtful`: of hosts whose daemon reports that it is not synchronised, or is contradicted by the servers.
    """
    on, inner = f"and on ({', '.join(by)})", by_host(scope, {**_CLAIM_TEXTS, **_CLAIM_NUMBERS}, by=by)
    values = {name: measured(field, scope, by=by) for name, field in _CLAIM_NUMBERS.items()}
    synchronised, states, off = values["synchronised"], values["states"], values["contradicted by"]
    wanted = f"(({synchronised} == 0) or ({off} > 0))" if only_doubtful else f"({synchronised} or {states})"
    shown = (*by, *_CLAIM_TEXTS, *values) if only_doubtful else (*_CLAIM_TEXTS, *values)
    numbered = {f"Value #{chr(ord('A') + place)}": name for place, name in enumerate(values)}
    hidden = ("Time",) if only_doubtful else ("Time", *by)
    where = ' WHERE "synchronised" = 0 OR "contradicted by" > 0' if only_doubtful else ""
    return Question(
        (Influx(f"SELECT {_words((*by, *_CLAIM_TEXTS, *values))} FROM {inner}{where}"),),
        tuple(Prom(f"{value} {on} {wanted}", form="table") for value in values.values()),
        ordered({name: name for name in shown}, hidden),
        named({**({name: name for name in by} if only_doubtful else {}), **numbered}, hidden),
    )


def named(names: Mapping[str, str], drop: Sequence[str] = ()) -> tuple[Json, ...]:
    """Return the changes that make one table of many answers, and name and order its columns."""
    return (
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": dict.fromkeys(drop, True),
                "indexByName": {name: place for place, name in enumerate(names)},
                "renameByName": dict(names),
            },
        },
    )


def of_known(names: Mapping[str, str], drop: Sequence[str] = ()) -> tuple[Json, ...]:
    """Return the changes that leave the rows of hosts that the second answer names, and name and order their columns.

    An outer join and a filter: Grafana 10's inner join loses rows where a host has several.
    """
    both = [{"fieldName": name, "config": {"id": "isNotNull", "options": {}}} for name in ("kind", "seen")]
    return (
        {"id": "joinByField", "options": {"byField": "host", "mode": "outerTabular"}},
        {"id": "filterByValue", "options": {"type": "include", "match": "all", "filters": both}},
        *ordered(names, (*drop, "seen")),
    )


def without_time(changes: tuple[Json, ...]) -> tuple[Json, ...]:
    """Return changes before which the answers lose their times: `merge` would keep rows of other times apart."""
    return ({"id": "filterFieldsByName", "options": {"exclude": {"names": ["Time"]}}}, *changes)


def ordered(names: Mapping[str, str], drop: Sequence[str] = ()) -> tuple[Json, ...]:
    """Return the change that names and orders the columns of one table."""
    return named(names, drop)[1:]

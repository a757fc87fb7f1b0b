"""The dashboard *Fleet*: every host at a glance, from the verdict down to what led to it."""

from string import ascii_uppercase

from grafana.compliance import compliance
from grafana.panels import (
    AHEAD,
    BEHIND,
    CLAIMED,
    DOCS,
    FAR_AHEAD,
    FAR_BEHIND,
    FAR_S,
    LOGS,
    NEAR_AHEAD,
    NEAR_BEHIND,
    NO_HOST,
    NOT_KNOWN,
    SILENT,
    STATE_COLOURS,
    SYMLOG,
    TOLERANCE,
    Board,
    Cell,
    Json,
    PanelRow,
    Row,
    Variable,
    bars,
    bound_column,
    claim_columns,
    coloured,
    column,
    count_column,
    dashboard,
    direction_column,
    finding_column,
    from_grey,
    graph,
    host_column,
    offset_column,
    site_column,
    span_column,
    stamp_column,
    stat,
    state_column,
    step,
    table,
    text_column,
    verdict_column,
)
from grafana.queries import (
    ACCEPTED_INFLUX,
    AHEAD_S,
    BUCKETS,
    CHOSEN,
    COUNTED_INFLUX,
    DRIFT,
    KNOWN,
    MAX_AGE_S,
    SHOWN,
    SILENT_AFTER_S,
    STEPS_COUNT,
    Influx,
    Language,
    Prom,
    Question,
    Scope,
    by_host,
    claims_question,
    contradicted,
    count,
    counted,
    disputed_by,
    disputed_hosts,
    disputed_now,
    forced,
    in_force,
    in_range,
    is_above,
    is_below,
    is_measured,
    is_severity,
    judged,
    judged_now,
    last,
    measured,
    metric,
    named,
    number,
    of_known,
    ordered,
    reporting,
    seen,
    share_of_known,
    silence,
    sums,
    unaware,
    without_time,
)
from ntpaudit.core.policy import Severity

_HERE = ("host", "site")
_RANGE = in_range(CHOSEN)
_STEPS = CHOSEN.also('"kind" =~ /^step-/', 'kind=~"step-.*"')

SITE = Variable(
    "site",
    "Site",
    "Site of the hosts; All includes hosts without a site",
    {
        "influxql": 'SHOW TAG VALUES FROM "ntpaudit_clock" WITH KEY = "site"',
        "promql": "label_values(ntpaudit_clock_severity, site)",
    },
)
ENV = Variable(
    "env",
    "Environment",
    "Environment of the hosts, such as prod; All includes hosts without one",
    {
        "influxql": 'SHOW TAG VALUES FROM "ntpaudit_clock" WITH KEY = "env"',
        "promql": "label_values(ntpaudit_clock_severity, env)",
    },
)

VERDICTS_NOW = Question(
    sums({severity.word: is_severity(severity) for severity in Severity}, judged(CHOSEN)),
    tuple(Prom(count(f"({judged_now(CHOSEN)}) == bool {int(one)}"), one.word) for one in Severity),
)
"""How many hosts are at which severity, of those that deliver."""

DISPUTED_NOW = Question(
    (counted(CHOSEN, "time disputed"),),
    (Prom(f"count({disputed_now(CHOSEN)}) or 0 * count({seen(CHOSEN)})", "time disputed"),),
)
"""How many hosts deliver points whose time the database's clock contradicts."""

SILENCE_NOW = Question(
    (Influx(f'SELECT sum("silent") AS "silent" FROM (SELECT 2-"reports" AS "silent" FROM {reporting(CHOSEN)})'),),
    (Prom(count(f"{silence(CHOSEN)} > bool {SILENT_AFTER_S}"), "silent"),),
)
"""How many hosts had a point in a day, and none lately."""

_YOUNG = f'{by_host(CHOSEN, {"offset": "offset_s", "usable": "usable", "age": "age_s"})} WHERE "age" <= {MAX_AGE_S}'
_SOURCES = {"measured": 1, "by two sources": 2, "by three sources": 3}

COVERAGE_NOW = Question(
    tuple(
        share_of_known(title, f'"offset"*0+{is_above("usable", least - 0.5) if least > 1 else 1}', _YOUNG, CHOSEN)
        for title, least in _SOURCES.items()
    ),
    tuple(
        Prom(
            f"(count({is_measured(CHOSEN)} and on (host) ({last('usable', CHOSEN)} >= {least if least > 1 else 0})) "
            f"or 0 * count({seen(CHOSEN)})) / count({seen(CHOSEN)})",
            title,
        )
        for title, least in _SOURCES.items()
    ),
)
"""Which share of the known hosts is measured now, and by how many usable sources at least."""

_WORST = {
    "host": "host",
    "site": "site",
    "state": "state",
    "verdict": "verdict",
    "offset": "offset",
    "direction": "direction",
    "bound": "at most",
    "usable": "sources",
    "age": "age of the measurement",
    "disputed": "time disputed by",
    "Time": "last seen",
}
_DETAILS = {"verdict": "verdict", "offset": "offset_s", "bound": "bound_s", "usable": "usable", "age": "age_s"}
_BAD = (
    f"on (host, site) (({last('severity', CHOSEN, by=_HERE)} > 0) or "
    f"(({last('bound_s', CHOSEN, by=_HERE)} > on (host, site) {last('critical_s', CHOSEN, by=_HERE)}) "
    f"unless on (host, site) {last('confirmed', CHOSEN, by=_HERE)}))"
)
_SHOWN = '"verdict", "offset", "offset" AS "direction", "bound", "usable", "age"'

WORST = Question(
    (
        Influx(
            f'SELECT "host", "site", "severity" AS "state", {_SHOWN} FROM {by_host(CHOSEN, _DETAILS, by=_HERE)} '
            'WHERE "severity" > 0'
        ),
        Influx(f'SELECT "host", "site", "severity" AS "state" FROM {contradicted(CHOSEN, _HERE)} WHERE "severity" > 0'),
        Influx(
            f'SELECT "host", "site", ("state"+1.0+abs("state"-1.0))/2.0 AS "state", "disputed", {_SHOWN} FROM '
            + disputed_hosts(CHOSEN, _HERE, {**_DETAILS, "state": "severity"})
        ),
        Influx(f'SELECT "host", "site", "severity" AS "state" FROM {unaware(CHOSEN, _HERE)}'),
    ),
    (
        Prom(f"({judged_now(CHOSEN, by=_HERE)}) > 0", form="table"),
        Prom(f"{last('verdict', CHOSEN, by=_HERE)} and {_BAD}", form="table"),
        Prom(f"{measured('offset_s', CHOSEN, by=_HERE)} and {_BAD}", form="table"),
        Prom(f"{measured('offset_s', CHOSEN, by=_HERE)} and {_BAD}", form="table"),
        Prom(f"{measured('bound_s', CHOSEN, by=_HERE)} and {_BAD}", form="table"),
        Prom(f"{last('usable', CHOSEN, by=_HERE)} and {_BAD}", form="table"),
        Prom(f"{last('age_s', CHOSEN, by=_HERE)} and {_BAD}", form="table"),
        Prom(f"1000 * ({seen(CHOSEN, by=_HERE)} and {_BAD})", form="table"),
        Prom(disputed_by(CHOSEN, by=_HERE), form="table"),
    ),
    named(_WORST),
    named(
        {
            "host": "host",
            "site": "site",
            "Value #A": "state",
            "Value #B": "verdict",
            "Value #C": "offset",
            "Value #D": "direction",
            "Value #E": "at most",
            "Value #F": "sources",
            "Value #G": "age of the measurement",
            "Value #I": "time disputed by",
            "Value #H": "last seen",
        },
        ("Time",),
    ),
)
"""Every host that is not ok."""

DOUBTFUL_DAEMONS = claims_question(CHOSEN, _HERE, only_doubtful=True)
"""Every host whose time daemon is contradicted by the servers, or says that it follows none."""

_WARNING_S, _CRITICAL_S = TOLERANCE.warning_s, TOLERANCE.critical_s
_CLASSES = (
    (f"ahead by more than {FAR_S:g} s", FAR_AHEAD, None, -FAR_S),
    (f"ahead, {_CRITICAL_S:g} s to {FAR_S:g} s", AHEAD, -FAR_S, -_CRITICAL_S),
    (f"ahead, {_WARNING_S:g} s to {_CRITICAL_S:g} s", NEAR_AHEAD, -_CRITICAL_S, -_WARNING_S),
    (f"ahead or behind by less than {_WARNING_S:g} s", "green", -_WARNING_S, _WARNING_S),
    (f"behind, {_WARNING_S:g} s to {_CRITICAL_S:g} s", NEAR_BEHIND, _WARNING_S, _CRITICAL_S),
    (f"behind, {_CRITICAL_S:g} s to {FAR_S:g} s", BEHIND, _CRITICAL_S, FAR_S),
    (f"behind by more than {FAR_S:g} s", FAR_BEHIND, FAR_S, None),
)


def _class(low_s: float | None, high_s: float | None) -> str:
    """Return an expression that is 1 for an offset between two limits."""
    if low_s is None:
        assert high_s is not None
        return is_below("offset", high_s)
    if high_s is None:
        return is_above("offset", low_s)
    return f"{is_above('offset', low_s)}-{is_above('offset', high_s)}"


def _class_count(low_s: float | None, high_s: float | None) -> str:
    """Return how many hosts are between two limits, in PromQL."""
    offset = measured("offset_s", CHOSEN)
    below = None if high_s is None else count(f"({offset}) < bool {number(high_s)}")
    above = None if low_s is None else count(f"({offset}) < bool {number(low_s)}")
    if above is None:
        assert below is not None
        return below
    return f"count({offset}) - {above}" if below is None else f"{below} - {above}"


SPREAD = Question(
    sums(
        {title: _class(low_s, high_s) for title, _, low_s, high_s in _CLASSES},
        by_host(CHOSEN, {"offset": "offset_s"}),
    ),
    tuple(Prom(_class_count(low_s, high_s), title) for title, _, low_s, high_s in _CLASSES),
)
"""How many measured hosts are how far off, and which way."""

SILENT_HOSTS = Question(
    (Influx(f'SELECT "host", "site", "reports" FROM {reporting(CHOSEN, _HERE)} WHERE "reports" < 2'),),
    (
        Prom(
            f"1000 * ({seen(CHOSEN, by=_HERE)} and on (host, site) ({silence(CHOSEN, by=_HERE)} > {SILENT_AFTER_S}))",
            form="table",
        ),
    ),
    (
        {
            "id": "organize",
            "options": {
                "excludeByName": {"reports": True},
                "indexByName": {"host": 0, "site": 1, "Time": 2},
                "renameByName": {"Time": "last seen"},
            },
        },
    ),
    ordered({"host": "host", "site": "site", "Value": "last seen"}, ("Time",)),
)
"""The hosts that are silent, and when the last point of each arrived."""

_KNOWN = Influx(f'SELECT "host", "severity" AS "seen" FROM {by_host(CHOSEN, {}, span=KNOWN)}')
"""Which hosts are known: a finding of one that is gone for longer is nothing to act on."""


def _kinds(hosts: str) -> tuple[Json, ...]:
    """Return the changes before bars of kinds; with a name of its own the number would name every bar."""
    return (
        {"id": "filterFieldsByName", "options": {"include": {"names": ["kind", hosts]}}},
        {"id": "sortBy", "options": {"sort": [{"field": hosts, "desc": True}]}},
    )


FINDINGS_BY_KIND = Question(
    (Influx(f'SELECT "host", "kind", "raised" FROM {in_force(CHOSEN)} WHERE {COUNTED_INFLUX}'), _KNOWN),
    (Prom(f"count by (kind) ({forced(CHOSEN, accepted=False)})", form="table"),),
    (
        *of_known({}),
        {
            "id": "groupBy",
            "options": {
                "fields": {
                    "kind": {"aggregations": [], "operation": "groupby"},
                    "host": {"aggregations": ["count"], "operation": "aggregate"},
                }
            },
        },
        *_kinds("host (count)"),
    ),
    _kinds("Value"),
)
"""How many hosts have which finding in force."""

_ALARM = ("host", "site", "kind")


def _findings(condition: str, *, accepted: bool) -> Question:
    """Return the question for the findings in force that are accepted, or are not; `condition` is it in InfluxQL."""
    raised = forced(CHOSEN, by=_ALARM, accepted=accepted)
    return Question(
        (
            Influx(
                'SELECT "host", "site", "kind", "state", "size", "text" '
                f"FROM {in_force(CHOSEN, _ALARM)} WHERE {condition}"
            ),
            _KNOWN,
        ),
        (
            Prom(forced(CHOSEN, by=_ALARM, field="severity", accepted=accepted), form="table"),
            Prom(forced(CHOSEN, by=_ALARM, field="value_s", accepted=accepted), form="table"),
            Prom(
                f"1000 * (max by (host, site, kind) (tlast_over_time({metric('raised', CHOSEN, 'event')}[90d])) "
                f"and on (host, site, kind) {raised})",
                form="table",
            ),
        ),
        of_known(
            {
                "Time ntpaudit_event": "since",
                "host": "host",
                "site": "site",
                "kind": "finding",
                "state": "state",
                "size": "size",
                "text": "message and fix",
            },
            ("Time ntpaudit_clock",),
        ),
        named(
            {
                "Value #C": "since",
                "host": "host",
                "site": "site",
                "kind": "finding",
                "Value #A": "state",
                "Value #B": "size",
            },
            ("Time",),
        ),
    )


FINDINGS = _findings(COUNTED_INFLUX, accepted=False)
"""Every finding that the agent of a known host raised and has not cleared, but for those that are accepted."""

ACCEPTED = _findings(ACCEPTED_INFLUX, accepted=True)
"""Those that are accepted: they do not count."""

STEPS = Question(
    (
        Influx(
            'SELECT "host", "site", "kind", "value_s" AS "step", "text" FROM "ntpaudit_event" '
            f"WHERE {in_range(_STEPS)} ORDER BY time DESC LIMIT 500"
        ),
    ),
    (
        Prom(
            f"max by (host, site, kind) (last_over_time({metric('value_s', _STEPS, 'event')}[$__range]))", form="table"
        ),
        Prom(
            f"1000 * max by (host, site, kind) (tlast_over_time({metric('value_s', _STEPS, 'event')}[$__range]))",
            form="table",
        ),
    ),
    ordered(
        {"Time": "when", "host": "host", "site": "site", "kind": "kind", "step": "step", "text": "message and fix"}
    ),
    named(
        {"Value #B": "when", "host": "host", "site": "site", "kind": "kind", "Value #A": "step"},
        ("Time",),
    ),
)
"""The steps of clocks in the time range; from VictoriaMetrics only the last of each host and direction."""

EVENTS = Question(
    (
        Influx(
            f'SELECT count("raised") FROM "ntpaudit_event" WHERE {_RANGE} AND "raised" = 1 '
            f'GROUP BY {BUCKETS}, "kind" fill(none)',
            "time_series",
            "$tag_kind",
        ),
    ),
    (
        Prom(
            f"sum by (kind) (count_eq_over_time({metric('raised', CHOSEN, 'event')}[$__interval], 1)) > 0",
            "{{kind}}",
            instant=False,
        ),
    ),
)
"""How many findings were raised and steps seen, over time."""

_GROWN = f"{DRIFT} * (time() - {seen(CHOSEN, by=_HERE)})"
_GROWN_INFLUX = f'{DRIFT}*((${{__to}}000000-"host_time")/1000000000.0-"offset")'
"""How much wider an interval is at the end of the range than it was when its point was made."""

_BY_SITE: dict[str, tuple[str, str]] = {
    **{
        severity.word: (
            f'sum("{severity.word}")',
            f"sum by (site) (({judged_now(CHOSEN, by=_HERE)}) == bool {int(severity)})",
        )
        for severity in reversed(Severity)
    },
    "farthest ahead": ('min("offset")', f"min by (site) ({measured('offset_s', CHOSEN, by=_HERE)})"),
    "farthest behind": ('max("offset")', f"max by (site) ({measured('offset_s', CHOSEN, by=_HERE)})"),
    "middle": ('median("offset")', f"quantile by (site) (0.5, {measured('offset_s', CHOSEN, by=_HERE)})"),
    "ordered beyond": (
        'max("latest")-min("earliest")',
        f"max by (site) ({measured('latest_s', CHOSEN, by=_HERE)} + on (host, site) {_GROWN}) - "
        f"min by (site) ({measured('earliest_s', CHOSEN, by=_HERE)} - on (host, site) {_GROWN})",
    ),
}
"""What is asked of each site, in both languages."""

_OF_HOSTS = {
    **{severity.word: f'{is_severity(severity)} AS "{severity.word}"' for severity in Severity},
    "farthest ahead": '"offset"',
    "farthest behind": '"offset"',
    "middle": '"offset"',
    "ordered beyond": f'"earliest"-{_GROWN_INFLUX} AS "earliest", "latest"+{_GROWN_INFLUX} AS "latest"',
}
_FIELDS_OF_HOSTS = {
    "farthest ahead": {"offset": "offset_s"},
    "farthest behind": {"offset": "offset_s"},
    "middle": {"offset": "offset_s"},
    "ordered beyond": {
        "earliest": "earliest_s",
        "latest": "latest_s",
        "offset": "offset_s",
        "host_time": "host_time_ns",
    },
}


def _inner(name: str) -> str:
    """Return the inner query of a column: severities are evaluated again, offsets are those of the last points."""
    fields = _FIELDS_OF_HOSTS.get(name)
    return judged(CHOSEN, _HERE) if fields is None else by_host(CHOSEN, fields, by=_HERE)


_SITE_COLUMNS = (*list(_BY_SITE)[:4], "silent", *list(_BY_SITE)[4:])

_SILENT_BY_SITE = Influx(
    'SELECT "site", "silent" FROM (SELECT sum("silent") AS "silent" FROM '
    f'(SELECT 2-"reports" AS "silent" FROM {reporting(CHOSEN, _HERE)}) GROUP BY "site")'
)
_OF_SITES = tuple(
    Influx(
        f'SELECT "site", "{name}" FROM (SELECT {asked} AS "{name}" FROM (SELECT {_OF_HOSTS[name]} FROM '
        f'{_inner(name)}) GROUP BY "site")'
    )
    for name, (asked, _) in _BY_SITE.items()
)
_NUMBERED = dict(zip((*_BY_SITE, "silent"), ascii_uppercase, strict=False))

SITES = Question(
    (*_OF_SITES, _SILENT_BY_SITE),
    (
        *(Prom(promql, form="table") for _, promql in _BY_SITE.values()),
        Prom(f"sum by (site) ({silence(CHOSEN, by=_HERE)} > bool {SILENT_AFTER_S})", form="table"),
    ),
    without_time(named({"site": "site", **dict(zip(_SITE_COLUMNS, _SITE_COLUMNS, strict=True))})),
    named({"site": "site", **{f"Value #{_NUMBERED[name]}": name for name in _SITE_COLUMNS}}, ("Time",)),
)
"""Each site now: its hosts by severity, silent ones, its farthest offsets and the middle one, the ambiguity."""

STATES_OVER_TIME = Question(
    tuple(
        Influx(
            f'SELECT sum("{severity.word}") AS "{severity.word}" FROM (SELECT {is_severity(severity)} '
            f'AS "{severity.word}" FROM (SELECT last("severity") AS "severity" FROM "ntpaudit_clock" WHERE {_RANGE} '
            f'GROUP BY {BUCKETS}, "host" fill(none))) WHERE {in_range(SHOWN)} '
            f"GROUP BY {BUCKETS} fill(null)",
            "time_series",
        )
        for severity in Severity
    ),
    tuple(
        Prom(
            count(f"max by (host) (last_over_time({metric('severity', CHOSEN)}[$__interval])) == bool {int(severity)}"),
            severity.word,
            instant=False,
        )
        for severity in Severity
    ),
)
"""The number of hosts at each severity, by their last point in each interval of the graph."""

_SITELESS: Json = {"id": "renameByRegex", "options": {"regex": "^: (.*)$", "renamePattern": "no site: $1"}}

HULLS = Question(
    (
        Influx(
            'SELECT min("offset_s") AS "farthest ahead", max("offset_s") AS "farthest behind" FROM "ntpaudit_clock" '
            f'WHERE {_RANGE} GROUP BY {BUCKETS}, "site" fill(null)',
            "time_series",
            "$tag_site: $col",
        ),
    ),
    (
        Prom(
            f"min by (site) (min_over_time({metric('offset_s', CHOSEN)}[$__interval]))",
            "{{site}}: farthest ahead",
            instant=False,
        ),
        Prom(
            f"max by (site) (max_over_time({metric('offset_s', CHOSEN)}[$__interval]))",
            "{{site}}: farthest behind",
            instant=False,
        ),
    ),
    (_SITELESS,),
    (_SITELESS,),
)
"""How far each site's clocks were ahead and behind at most, over time."""


def fleet(language: Language) -> Json:
    """Return the dashboard."""
    return dashboard(
        Board(
            language,
            "fleet",
            "ntpaudit: Fleet",
            "All hosts: which clocks threaten the logs, which are unproven, which hosts are silent, which site "
            "moved together. Counts and tables show the state at the end of the selected range. Behind: timestamps "
            "are too early, so rules miss events. Ahead: timestamps are too late, so events are delayed or lost.",
            (SITE, ENV),
            (
                Row("Now", (_now(language),)),
                Row("Hosts", _who(language)),
                Row("By site", _where(language)),
                Row("Events", _happened(language)),
                Row("Compliance", compliance(language)),
                Row("Over time (long range: slow for thousands of hosts)", (_over_time(language),), folded=True),
            ),
            (DOCS, LOGS),
            annotations=(steps_annotation(language, _STEPS),),
        )
    )


def _now(language: Language) -> PanelRow:
    clocks = stat(
        "Clocks now",
        "How many hosts are ok, warning, unknown (not measured, or not confirmed yet) and critical (certainly "
        f"wrong), by the last point of each host in {SILENT_AFTER_S // 60} minutes and by its own profile. If the "
        "interval, tolerances and age of the point prove a worse state than it reports, that state counts. Silent "
        "hosts are not included.",
        VERDICTS_NOW,
        language,
        overrides=[
            column(severity.word, thresholds=from_grey([step(NOT_KNOWN, 0), step(STATE_COLOURS[severity], 1)]))
            for severity in Severity
        ],
        names=[severity.word for severity in Severity],
    )
    silent = stat(
        "Silent",
        f"Hosts with a point in the last day but none in the last {SILENT_AFTER_S // 60} minutes. Their clocks are "
        "unknown. After a day only `ntpaudit fleet` shows them, and with --inventory FILE also after the database has "
        "deleted their points.",
        SILENCE_NOW,
        language,
        steps=[step("green"), step(SILENT, 1)],
        names=["silent"],
        absent="no known host",
    )
    coverage = stat(
        "Coverage",
        "The share of all known hosts, silent ones included, that is measured now; with at least two usable sources "
        "(CIS Controls v8, 8.4); with at least three (v7, 6.1). Four are needed to outvote one falseticker.",
        COVERAGE_NOW,
        language,
        unit="percentunit",
        steps=[step("red"), step("yellow", 0.9), step("green", 0.99)],
        decimals=1,
        names=["measured", "by two sources", "by three sources"],
        absent="no known host",
    )
    time_disputed = stat(
        "Time disputed",
        "Hosts whose timestamps contradict the database's clock: by the Date header of its replies, or because a "
        f"point is stamped more than {AHEAD_S} s ahead of it. One of the two clocks is wrong. Such a host is at "
        "least a warning and is not silent; its points are elsewhere on the time axis. Check its servers. If most "
        "hosts are disputed, check the clock of the database.",
        DISPUTED_NOW,
        language,
        steps=[step("green", 0), step("yellow", 1)],
        names=["time disputed"],
        absent="no known host",
    )
    return PanelRow(5, (Cell(11, clocks), Cell(3, silent), Cell(3, time_disputed), Cell(7, coverage)))


def _who(language: Language) -> tuple[PanelRow, ...]:
    worst = table(
        "Worst hosts",
        "All hosts that report and are not ok, worst first. A positive offset is behind, a negative one ahead. The "
        "bound is the maximum error at the time of the last point. A host links to its dashboard and to its logs.",
        WORST,
        language,
        overrides=[
            host_column(language),
            site_column(),
            state_column(),
            verdict_column(),
            offset_column(),
            direction_column(),
            bound_column(),
            column("sources", custom_width=80),
            span_column("age of the measurement", 210),
            span_column("time disputed by"),
            stamp_column("last seen"),
        ],
        sort=[("state", True), ("at most", True)],
        absent="No host reports a state other than ok. Clocks now shows how many hosts report.",
    )
    daemons = table(
        "Doubtful time daemons",
        "Hosts whose time daemon reports that it is not synchronised, or states an offset that the servers contradict. "
        + CLAIMED,
        DOUBTFUL_DAEMONS,
        language,
        overrides=[host_column(language), site_column(), *claim_columns(language)],
        sort=[("contradicted by", True)],
        absent="No time daemon whose claim can be read is unsynchronised or contradicted.",
    )
    return (PanelRow(9, (Cell(24, worst),)), PanelRow(7, (Cell(24, daemons),)))


def _happened(language: Language) -> tuple[PanelRow, ...]:
    kinds = bars(
        "Raised findings by kind",
        "How many known hosts have a finding that was raised and not cleared, by finding id, without accepted ones. A "
        "step counts for an hour. docs/findings.md explains each finding.",
        FINDINGS_BY_KIND,
        language,
        steps=[step("orange")],
        absent="no finding is raised",
    )
    columns = [
        host_column(language),
        site_column(),
        finding_column(),
        state_column(),
        column("size", unit="s", custom_width=110),
        stamp_column("since"),
        *text_column(language),
    ]
    findings = table(
        "Raised findings",
        "Findings that the hosts' own agents raised and have not cleared, worst first, with the fix. A finding "
        "links to its documentation. Accepted ones are in the table below. Hosts without a point within a day are not "
        f"shown. A silent host clears nothing. A step counts for {STEPS_COUNT}. VictoriaMetrics stores no texts.",
        FINDINGS,
        language,
        overrides=columns,
        sort=[("state", True), ("since", True)],
        absent="No finding is raised on a known host.",
    )
    accepted = table(
        "Accepted findings",
        "Raised findings that the configuration of a host accepts until a time, so that they do not count. The message "
        "says who accepts it, until when and why. VictoriaMetrics stores no texts.",
        ACCEPTED,
        language,
        overrides=columns,
        sort=[("since", True)],
        absent="No finding is accepted on a known host.",
    )
    steps = table(
        "Clock steps",
        "Clocks that were set in the selected range. Negative is backward: the logs then contain some timestamps "
        "twice. Positive is forward: the logs have a gap. VictoriaMetrics shows the last step of each host and "
        "direction.",
        STEPS,
        language,
        overrides=[
            host_column(language),
            site_column(),
            step_column(),
            stamp_column("when"),
            finding_column("kind", 130),
            *text_column(language),
        ],
        sort=[("when", True)],
        absent="No step was reported in this range.",
    )
    raised = graph(
        "Raised over time",
        "How many findings were raised and steps detected, by kind.",
        EVENTS,
        language,
        unit="none",
        custom={"drawStyle": "bars", "fillOpacity": 80, "stacking": {"mode": "normal", "group": "A"}},
        interval="10m",
    )
    return (
        PanelRow(10, (Cell(24, findings),)),
        PanelRow(6, (Cell(24, accepted),)),
        PanelRow(12, (Cell(10, kinds), Cell(14, raised))),
        PanelRow(8, (Cell(24, steps),)),
    )


def _where(language: Language) -> tuple[PanelRow, ...]:
    sites = table(
        "Sites",
        "Each site now: reporting hosts by severity, and silent hosts; the clocks farthest ahead and farthest "
        "behind, and the median. If the median is far off, the site moved together. Last column: events of two "
        "measured hosts that are stamped further apart than this happened in that order. It grows by 50 ppm of the "
        "time since the last points.",
        SITES,
        language,
        overrides=[
            site_column(),
            *(count_column(severity.word, STATE_COLOURS[severity]) for severity in Severity),
            count_column("silent", SILENT),
            offset_column("farthest ahead", 125),
            offset_column("farthest behind", 125),
            offset_column("middle"),
            bound_column("ordered beyond", 210),
        ],
        sort=[("ordered beyond", True)],
        absent=f"{NO_HOST.capitalize()}.",
    )
    spread = bars(
        "Offsets, ahead and behind",
        "How many measured clocks are ahead or behind now, and how far. Behind is a blind spot: rules that look "
        "back a few minutes miss the events. Ahead means late or lost: events seem to come from the future, and are "
        "delayed or refused.",
        SPREAD,
        language,
        overrides=[coloured(title, colour) for title, colour, _, _ in _CLASSES],
        names=[title for title, _, _, _ in _CLASSES],
        absent="no clock is measured",
    )
    silent = table(
        "Silent hosts",
        "Silent hosts, and the time of their last point. A host whose agent was stopped looks like a host that is "
        "down.",
        SILENT_HOSTS,
        language,
        overrides=[host_column(language), site_column(), stamp_column("last seen")],
        sort=[("last seen", False)],
        absent="No host of the last day is silent.",
    )
    return PanelRow(7, (Cell(24, sites),)), PanelRow(10, (Cell(12, spread), Cell(12, silent)))


def _over_time(language: Language) -> PanelRow:
    states = graph(
        "Hosts by state (long range)",
        "How many hosts had which severity at the end of each interval. What is missing below the top was silent. "
        "Reads every point in the range: this takes seconds for thousands of hosts.",
        STATES_OVER_TIME,
        language,
        unit="none",
        overrides=[coloured(severity.word, STATE_COLOURS[severity]) for severity in Severity],
        custom={"fillOpacity": 70, "lineWidth": 0, "stacking": {"mode": "normal", "group": "A"}},
        interval="10m",
        least=0,
    )
    hulls = graph(
        "Sites, ahead and behind (long range)",
        "How far the clocks of each site were ahead (negative) and behind (positive) at most. The scale is "
        "logarithmic beyond 1 ms. If both lines of a site move together, its hosts follow one source. Reads every "
        "point in the range: this takes seconds for thousands of hosts.",
        HULLS,
        language,
        unit="s",
        axis="← ahead      behind →",
        overrides=[
            {
                "matcher": {"id": "byRegexp", "options": f"/{name}/"},
                "properties": [{"id": "color", "value": {"mode": "shades", "fixedColor": colour}}],
            }
            for name, colour in (("farthest ahead", AHEAD), ("farthest behind", BEHIND))
        ],
        custom={"scaleDistribution": SYMLOG},
        interval="10m",
    )
    return PanelRow(12, (Cell(12, states), Cell(12, hulls)))


def step_column(name: str = "step") -> Json:
    """Return a column of steps: back is red."""
    return column(
        name,
        unit="s",
        decimals=3,
        thresholds=from_grey([step("red"), step("transparent", 0)], "transparent"),
        custom_cellOptions={"type": "color-background", "mode": "basic"},
        custom_width=120,
    )


def steps_annotation(language: Language, scope: Scope) -> Json:
    """Return the marks at each step of a clock, on every graph of a dashboard; `scope` has only steps."""
    common = {"name": "Clock steps", "enable": True, "hide": False, "iconColor": "red"}
    if language == "influxql":
        query = f'SELECT "title", "text", "host", "kind" FROM "ntpaudit_event" WHERE $timeFilter{scope.where}'
        return {
            **common,
            "datasource": {"type": "influxdb", "uid": "${datasource}"},
            "target": {
                "refId": "Steps",
                "query": query,
                "rawQuery": True,
                "fromAnnotations": True,
                "textEditor": True,
                "titleColumn": "title",
                "textColumn": "text",
                "tagsColumn": "host,kind",
            },
        }
    return {
        **common,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "expr": f"max by (host, kind) (last_over_time(ntpaudit_event_raised{{{scope.labels}}}[$__interval]))",
        "step": "60s",
        "titleFormat": "{{kind}}",
        "textFormat": "{{host}}",
        "tagKeys": "host,kind",
    }

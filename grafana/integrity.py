"""The dashboard *Integrity*: what the clocks do to the logs, and whether it can be proved."""

from collections.abc import Sequence

from grafana.compliance import time_by_state
from grafana.fleet import ENV, SITE, steps_annotation
from grafana.panels import (
    AHEAD,
    BEHIND,
    BOUND_STEPS,
    FAR_AHEAD,
    FAR_BEHIND,
    LOGS,
    NO_HOST,
    SYMLOG,
    Board,
    Cell,
    Json,
    PanelRow,
    Row,
    Variable,
    bars,
    bound_column,
    coloured,
    column,
    dashboard,
    direction_column,
    graph,
    host_column,
    offset_column,
    reports_column,
    site_column,
    stamp_column,
    stat,
    state_column,
    step,
    table,
    text,
)
from grafana.queries import (
    BUCKETS,
    CHOSEN,
    HOSTS_THERE,
    IN_FORCE,
    SHOWN,
    SILENT_AFTER_S,
    SOME_HOSTS,
    Influx,
    Language,
    Prom,
    Question,
    by_host,
    count,
    counted,
    disputed_now,
    in_range,
    is_above,
    is_below,
    last,
    measured,
    metric,
    named,
    number,
    ordered,
    reporting,
    seen,
    shares,
    since,
    sums,
)
from ntpaudit.core.policy import PROFILES

_HERE = ("host", "site")
_RANGE = in_range(CHOSEN)
_STEPS = SOME_HOSTS.also('"kind" =~ /^step-/', 'kind=~"step-.*"')

HOSTS = Variable(
    "hosts",
    "Hosts to order",
    "Two or more hosts whose events are to be ordered",
    HOSTS_THERE,
)
EVERY = Variable(
    "every",
    "Agents audit",
    "How often agents run local and network audits: schedule.local and schedule.network, or schedule.pool, in their "
    "configuration. Each audit makes a point; the value is the mean time between two points, in seconds.",
    "every 1 min and 5 min : 50, every 1 min and 1 h : 59, every 2 min and 5 min : 85.7, every 5 min and 5 min : 150",
)

AHEAD_LIMITS = (
    ("Loki: refused beyond 10 min", 600.0),
    ("Kafka 4: refused beyond 1 h", 3600.0),
    ("CloudWatch Logs: refused beyond 2 h", 7200.0),
    ("Splunk: new timestamp beyond 2 days", 172_800.0),
)
"""How far in the future an event may be, by the default of each pipeline."""

BEHIND_LIMITS = (
    ("Sentinel 5 min rule: missed beyond 5 min", 300.0),
    ("Elastic prebuilt rules: missed beyond 9 min", 540.0),
    ("Loki: refused as out of order beyond 1 h", 3600.0),
    ("Loki: refused as too old beyond 168 h", 604_800.0),
    ("CloudWatch Logs: refused beyond 14 days", 1_209_600.0),
)
"""How old an event may be: what is older is refused, or no rule looks back so far."""

RISK_AHEAD = Question(
    sums(
        {title: is_below("offset", -limit_s) for title, limit_s in AHEAD_LIMITS},
        by_host(CHOSEN, {"offset": "offset_s"}),
    ),
    tuple(
        Prom(count(f"({measured('offset_s', CHOSEN)}) < bool -{number(limit_s)}"), title)
        for title, limit_s in AHEAD_LIMITS
    ),
)
RISK_BEHIND = Question(
    sums(
        {title: is_above("offset", limit_s) for title, limit_s in BEHIND_LIMITS},
        by_host(CHOSEN, {"offset": "offset_s"}),
    ),
    tuple(
        Prom(count(f"({measured('offset_s', CHOSEN)}) > bool {number(limit_s)}"), title)
        for title, limit_s in BEHIND_LIMITS
    ),
)
_LEAST_S = min(limit_s for _, limit_s in (*AHEAD_LIMITS, *BEHIND_LIMITS))
AT_RISK = Question(
    (
        Influx(
            'SELECT "host", "site", "offset", "offset" AS "direction", "bound" FROM '
            + by_host(CHOSEN, {"offset": "offset_s", "bound": "bound_s"}, by=_HERE)
            + f' WHERE "offset" > {number(_LEAST_S)} OR "offset" < -{number(_LEAST_S)}'
        ),
    ),
    tuple(
        Prom(
            f"{measured(field, CHOSEN, by=_HERE)} and on (host, site) "
            f"(abs({last('offset_s', CHOSEN, by=_HERE)}) > {number(_LEAST_S)})",
            form="table",
        )
        for field in ("offset_s", "offset_s", "bound_s")
    ),
    ordered(
        {
            "host": "host",
            "site": "site",
            "offset": "offset",
            "direction": "direction",
            "bound": "at most",
        },
        ("Time",),
    ),
    named(
        {
            "host": "host",
            "site": "site",
            "Value #A": "offset",
            "Value #B": "direction",
            "Value #C": "at most",
        },
        ("Time",),
    ),
)
_ORDER = "ordered beyond"


def _complete(chosen: str) -> tuple[Json, ...]:
    """Return the changes that leave what rests on all hosts that are chosen: else the order is not known."""
    return (
        {
            "id": "calculateField",
            "options": {
                "mode": "binary",
                "binary": {"left": chosen, "operator": "-", "right": "measured"},
                "alias": "missing",
            },
        },
        {
            "id": "filterByValue",
            "options": {
                "type": "include",
                "match": "all",
                "filters": [{"fieldName": "missing", "config": {"id": "equal", "options": {"value": 0}}}],
            },
        },
    )


_EVER = IN_FORCE
"""A host is chosen among those that had a point in this time."""

_CHOSEN_HOSTS = Influx(f'SELECT count("severity") AS "chosen" FROM {by_host(SOME_HOSTS, {}, span=_EVER)}')
"""How many hosts are chosen. It is one row before all others, and a running sum carries its number on to these."""

_HULL = f'SELECT max("latest")-min("earliest") AS "{_ORDER}", count("latest") AS "measured"'
AMBIGUITY = Question(
    (
        Influx(
            f'{_HULL} FROM (SELECT max("latest_s") AS "latest", min("earliest_s") AS "earliest" FROM "ntpaudit_clock" '
            f'WHERE {in_range(SOME_HOSTS)} GROUP BY {BUCKETS}, "host" fill(none)) '
            f"WHERE {in_range(SHOWN)} GROUP BY {BUCKETS} fill(none)"
        ),
        _CHOSEN_HOSTS,
    ),
    (
        Prom(
            f"(max(max_over_time({metric('latest_s', SOME_HOSTS)}[$__interval])) - "
            f"min(min_over_time({metric('earliest_s', SOME_HOSTS)}[$__interval]))) and "
            f"count(count_over_time({metric('latest_s', SOME_HOSTS)}[$__interval])) == "
            f"count(last_over_time({metric('severity', SOME_HOSTS)}[{_EVER}] @ end()))",
            _ORDER,
            instant=False,
        ),
    ),
    (
        {"id": "joinByField", "options": {"byField": "Time", "mode": "outer"}},
        {
            "id": "calculateField",
            "options": {
                "mode": "cumulativeFunctions",
                "cumulative": {"field": "chosen", "reducer": "sum"},
                "alias": "of",
            },
        },
        *_complete("of"),
        {"id": "filterFieldsByName", "options": {"include": {"names": ["Time", _ORDER]}}},
    ),
)
ORDER_NOW = Question(
    (
        Influx(f"{_HULL} FROM {by_host(SOME_HOSTS, {'latest': 'latest_s', 'earliest': 'earliest_s'})}"),
        _CHOSEN_HOSTS,
        counted(SOME_HOSTS, "disputed"),
    ),
    (
        Prom(
            f"(max({measured('latest_s', SOME_HOSTS)}) - min({measured('earliest_s', SOME_HOSTS)})) and "
            f"count({measured('latest_s', SOME_HOSTS)}) == count({last('severity', SOME_HOSTS, span=_EVER)}) "
            f"unless on () count({disputed_now(SOME_HOSTS)})",
            _ORDER,
        ),
    ),
    (
        {"id": "concatenate", "options": {"frameNameMode": "drop"}},
        {
            "id": "calculateField",
            "options": {
                "mode": "binary",
                "binary": {"left": "chosen", "operator": "+", "right": "disputed"},
                "alias": "due",
            },
        },
        *_complete("due"),
        {"id": "filterFieldsByName", "options": {"include": {"names": [_ORDER]}}},
    ),
)
"""How far apart two events of the chosen hosts must be stamped now, where every one of these is measured."""

INTERVALS = Question(
    (
        Influx(
            'SELECT "host", "severity" AS "state", "earliest", "offset", "latest", "bound" FROM '
            + by_host(
                SOME_HOSTS,
                {"earliest": "earliest_s", "offset": "offset_s", "latest": "latest_s", "bound": "bound_s"},
            )
        ),
        Influx(f'SELECT "host", "reports" FROM {reporting(SOME_HOSTS)}'),
    ),
    (
        Prom(last("severity", SOME_HOSTS), form="table"),
        *(
            Prom(measured(field, SOME_HOSTS), form="table")
            for field in ("earliest_s", "offset_s", "latest_s", "bound_s")
        ),
        Prom(f"1000 * {seen(SOME_HOSTS)}", form="table"),
        Prom(f"1 + (time() - {seen(SOME_HOSTS)} <= bool {SILENT_AFTER_S})", form="table"),
    ),
    (
        *named(
            {
                "host": "host",
                "reports": "reports",
                "state": "state",
                "earliest": "earliest",
                "offset": "offset",
                "latest": "latest",
                "bound": "at most",
                "Time": "last seen",
            },
        ),
    ),
    named(
        {
            "host": "host",
            "Value #G": "reports",
            "Value #A": "state",
            "Value #B": "earliest",
            "Value #C": "offset",
            "Value #D": "latest",
            "Value #E": "at most",
            "Value #F": "last seen",
        },
        ("Time",),
    ),
)
OFFSETS = Question(
    (
        Influx(
            f'SELECT mean("offset_s") FROM "ntpaudit_clock" WHERE {in_range(SOME_HOSTS)} '
            f'GROUP BY {BUCKETS}, "host" fill(null)',
            "time_series",
            "$tag_host",
        ),
    ),
    (
        Prom(
            f"avg by (host) (avg_over_time({metric('offset_s', SOME_HOSTS)}[$__interval]))",
            "{{host}}",
            instant=False,
        ),
    ),
)


def _tolerances() -> dict[float, list[str]]:
    """Return the critical tolerances of the profiles, and by which profiles each is set."""
    tolerances: dict[float, list[str]] = {}
    for profile in PROFILES.values():
        tolerances.setdefault(profile.critical_s, []).append(profile.name)
    return dict(sorted(tolerances.items(), reverse=True))


def _spoken(tolerance_s: float) -> str:
    """Say a tolerance as rules do."""
    for unit, size_s in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if tolerance_s >= size_s:
            return f"{tolerance_s / size_s:g} {unit}"
    raise ValueError(tolerance_s)


OWN = ("pci", "iso27001", "nis2", "dora")
"""The profiles of rules that state no number: the organisation sets it."""

TOLERANCES = {_spoken(tolerance_s): tolerance_s for tolerance_s in _tolerances()}
PROFILES_OF = "; ".join(
    f"{_spoken(tolerance_s)}: " + ", ".join(f"{name}*" if name in OWN else name for name in names)
    for tolerance_s, names in _tolerances().items()
)

COMPLIANCE_NOW = Question(
    shares(
        {title: f"1-{is_above('bound', limit_s)}" for title, limit_s in TOLERANCES.items()},
        by_host(CHOSEN, {"bound": "bound_s"}),
    ),
    tuple(
        Prom(
            f"sum(({measured('bound_s', CHOSEN)}) <= bool {number(limit_s)}) / count({last('severity', CHOSEN)})",
            title,
        )
        for title, limit_s in TOLERANCES.items()
    ),
)

RECEIVED_NOW = Question(
    (
        Influx(
            'SELECT mean("points")*${every:raw}/3600 AS "received" FROM '
            '(SELECT count("severity") AS "points" '
            f'FROM "ntpaudit_clock" WHERE {since(CHOSEN, "1h")}{CHOSEN.where} GROUP BY "host")'
        ),
    ),
    (
        Prom(
            f"avg(sum by (host) (count_over_time({metric('severity', CHOSEN)}[1h]))) * ${{every:raw}} / 3600",
            "received",
        ),
    ),
)
MOST_ROWS = 500
"""The limit of rows in a table of hosts: that many have one common cause, and to PromQL every row is a series."""

GAPS = Question(
    (
        Influx(
            'SELECT "host", "site", "share" FROM (SELECT count("severity")*${every:raw}/3600.0 AS "share" '
            f'FROM "ntpaudit_clock" WHERE {since(CHOSEN, "1h")}{CHOSEN.where} GROUP BY "host", "site") '
            'WHERE "share" < 0.9'
        ),
    ),
    (
        Prom(
            f"bottomk({MOST_ROWS}, sum by (host, site) (count_over_time({metric('severity', CHOSEN)}[1h])) "
            "* ${every:raw} / 3600 < 0.9)",
            form="table",
        ),
    ),
    ordered({"host": "host", "site": "site", "share": "received"}, ("Time",)),
    ordered({"host": "host", "site": "site", "Value": "received"}, ("Time",)),
)
RECEIVED = Question(
    (
        Influx(
            f'SELECT count("severity") AS "points received" FROM "ntpaudit_clock" WHERE {_RANGE} '
            f"GROUP BY {BUCKETS} fill(0)",
            "time_series",
        ),
        Influx(
            'SELECT count("points")*($__interval_ms/1000.0)/${every:raw} AS "points expected" FROM '
            f'(SELECT count("severity") AS "points" FROM "ntpaudit_clock" WHERE {_RANGE} '
            f'GROUP BY {BUCKETS}, "host" fill(none)) WHERE {in_range(SHOWN)} GROUP BY {BUCKETS} fill(0)',
            "time_series",
        ),
    ),
    (
        Prom(
            f"sum(count_over_time({metric('severity', CHOSEN)}[$__interval]))",
            "points received",
            instant=False,
        ),
        Prom(
            f"count(count by (host) (count_over_time({metric('severity', CHOSEN)}[$__interval]))) * "
            "($__interval_ms / 1000) / ${every:raw}",
            "points expected",
            instant=False,
        ),
    ),
)
VERSIONS = Question(
    (
        Influx(
            'SELECT "host", "version", "profile" FROM ' + by_host(CHOSEN, {"version": "version", "profile": "profile"})
        ),
    ),
    (),
    (
        {
            "id": "groupBy",
            "options": {
                "fields": {
                    "version": {"aggregations": [], "operation": "groupby"},
                    "profile": {"aggregations": [], "operation": "groupby"},
                    "host": {"aggregations": ["count"], "operation": "aggregate"},
                }
            },
        },
        *ordered({"version": "version", "profile": "profile", "host (count)": "hosts"}),
    ),
)


def integrity(language: Language) -> Json:
    """Return the dashboard."""
    return dashboard(
        Board(
            language,
            "integrity",
            "ntpaudit: Integrity",
            "The effect of the clocks on the logs: whether timestamps show the order of events, which pipelines "
            "refuse or miss events, and which tolerances the clocks are proved to meet. Behind is a blind spot; "
            "ahead means late or lost.",
            (SITE, ENV, HOSTS, EVERY),
            (
                Row("Can the order of events be trusted?", _order(language)),
                Row("Which pipeline refuses or misses events?", _ingestion(language)),
                Row("Which tolerances are the clocks proved to meet?", (_compliance(language),)),
                Row("Is the record complete?", (_evidence(language),)),
                Row(
                    "Over time (long range: slow for thousands of hosts)",
                    (_over_time(language),),
                    folded=True,
                ),
            ),
            (LOGS,),
            annotations=(steps_annotation(language, _STEPS),),
            refresh="5m",
        )
    )


def _order(language: Language) -> tuple[PanelRow, ...]:
    now = stat(
        "Order now",
        "Events of the selected hosts that are stamped further apart than this happened in the order of their "
        "timestamps. Unknown if a selected host is silent or not measured, or if its time is disputed.",
        ORDER_NOW,
        language,
        unit="s",
        steps=BOUND_STEPS,
        decimals=3,
        names=[_ORDER],
        absent="unknown",
    )
    ambiguity = graph(
        "Order ambiguity of the selected hosts",
        "Events of the selected hosts that are stamped further apart than this happened in the order of their "
        "timestamps; events closer together may not. It is the largest latest_s minus the smallest earliest_s of "
        "all selected hosts; no pair exceeds it. A gap means that one of them was not measured, so the order is "
        "unknown. ntpaudit fleet order HOST_A HOST_B compares two hosts, also with corrected timestamps.",
        AMBIGUITY,
        language,
        unit="s",
        least=0,
        interval="10m",
        custom={
            "insertNulls": 1_500_000
        },  # more than two buckets: what is between is unknown, and no line may cross it
        overrides=[coloured(_ORDER, "red", custom_lineWidth=2, custom_fillOpacity=10)],
        absent="unknown: the selected hosts were never all measured at the same time",
    )
    offsets = graph(
        "Offsets of the selected hosts",
        "The offsets of the selected hosts: above zero behind, below zero ahead. The order of two hosts is "
        "uncertain by the distance of their lines plus their bounds. The scale is logarithmic beyond 1 ms.",
        OFFSETS,
        language,
        unit="s",
        axis="← ahead      behind →",
        custom={"scaleDistribution": SYMLOG},
    )
    intervals = table(
        "Intervals of the selected hosts",
        "The true offset of each host lies between earliest and latest if at most f of its queried servers are "
        "wrong (1 of 4, 2 of 7). For hosts i and j: an event of i is certainly earlier if its timestamp is lower by "
        "more than latest of i minus earliest of j. The clock of a silent host is unknown.",
        INTERVALS,
        language,
        overrides=[
            host_column(language),
            reports_column(),
            state_column(),
            offset_column("earliest"),
            offset_column(),
            offset_column("latest"),
            bound_column(),
            stamp_column("last seen"),
        ],
        sort=[("latest", True)],
        absent="No selected host had a point within a day.",
    )
    return (
        PanelRow(9, (Cell(4, now), Cell(10, ambiguity), Cell(10, offsets))),
        PanelRow(7, (Cell(24, intervals),)),
    )


def _ingestion(language: Language) -> tuple[PanelRow, ...]:
    ahead = bars(
        "Hosts ahead: events late or lost",
        "How many clocks are further ahead than a pipeline accepts, by the defaults of each pipeline. InfluxDB "
        "hides points ahead of its own clock from queries that end now.",
        RISK_AHEAD,
        language,
        steps=[step("green", 0), step(AHEAD, 1), step(FAR_AHEAD, 10)],
        names=[title for title, _ in AHEAD_LIMITS],
    )
    behind = bars(
        "Hosts behind: events missed or refused",
        "How many clocks are further behind than a pipeline looks back or accepts, by the defaults of each. Delays "
        "in the pipeline add to this, so rules also miss some events of hosts that are less behind.",
        RISK_BEHIND,
        language,
        steps=[step("green", 0), step(BEHIND, 1), step(FAR_BEHIND, 10)],
        names=[title for title, _ in BEHIND_LIMITS],
    )
    hosts = table(
        "Hosts beyond these limits",
        f"Every clock that is further off than the smallest of these limits, {_LEAST_S / 60:g} minutes, ahead or "
        "behind.",
        AT_RISK,
        language,
        overrides=[host_column(language), site_column(), offset_column(), direction_column(), bound_column()],
        sort=[("at most", True)],
        absent="No measured clock is beyond these limits.",
    )
    return PanelRow(9, (Cell(12, ahead), Cell(12, behind))), PanelRow(6, (Cell(24, hosts),))


def _compliance(language: Language) -> PanelRow:
    now = bars(
        "Share of clocks proved within, now",
        "The share of reporting hosts that are proved to be within each critical tolerance: their bound, not their "
        f"offset, is below it. Profiles: {PROFILES_OF}. * The rule states no number: tolerance set by your "
        "organisation. Not legal advice.",
        COMPLIANCE_NOW,
        language,
        unit="percentunit",
        overrides=[column(title, max=1) for title in TOLERANCES],
        steps=[step("red"), step("yellow", 0.95), step("green", 0.99)],
        names=list(TOLERANCES),
    )
    profiles = text(
        "Critical tolerance of each profile",
        "The profiles of this version, by critical tolerance.",
        "| critical tolerance | profiles |\n|---:|---|\n"
        + "\n".join(
            f"| {_spoken(tolerance_s)} | {', '.join(f'{name}*' if name in OWN else name for name in names)} |"
            for tolerance_s, names in _tolerances().items()
        )
        + "\n\n\\* The rule states no number: tolerance set by your organisation.",
    )
    return PanelRow(9, (Cell(14, now), Cell(10, profiles)))


def _evidence(language: Language) -> PanelRow:
    received = stat(
        "Points received",
        "Points received in the last hour, as a share of those expected from the hosts that sent any, at the audit "
        "intervals selected above.",
        RECEIVED_NOW,
        language,
        unit="percentunit",
        steps=[step("red"), step("yellow", 0.9), step("green", 0.97)],
        decimals=1,
        names=["received"],
    )
    gaps = table(
        "Hosts with gaps",
        f"Up to {MOST_ROWS} hosts that sent some points in the last hour, but less than nine tenths of the expected "
        "number.",
        GAPS,
        language,
        overrides=[host_column(language), site_column(), column("received", unit="percentunit", custom_width=110)],
        sort=[("received", False)],
        absent="No host that sent points in the last hour has gaps.",
    )
    if language == "influxql":
        versions = table(
            "Agents",
            "Versions and profiles in use, by the last points of the reporting hosts.",
            VERSIONS,
            language,
            sort=[("hosts", True)],
            absent=f"{NO_HOST.capitalize()}.",
        )
    else:
        versions = text(
            "Agents",
            "Versions and profiles are texts, which this database does not store.",
            "VictoriaMetrics stores no texts: versions and profiles are in each host's own history, "
            "`ntpaudit status --format json`.",
        )
    return PanelRow(8, (Cell(4, received), Cell(10, gaps), Cell(10, versions)))


def _over_time(language: Language) -> PanelRow:
    received = graph(
        "Points received and expected (long range)",
        "How many points arrived, and how many were expected from the hosts that sent any. Reads every point in the "
        "range.",
        RECEIVED,
        language,
        unit="none",
        interval="10m",
        least=0,
        overrides=[
            coloured("points received", "green", custom_fillOpacity=20),
            coloured("points expected", "text"),
        ],
    )
    return PanelRow(10, (Cell(12, time_by_state(language)), Cell(12, received)))


def limits() -> Sequence[tuple[str, float]]:
    """Return every limit of a pipeline, signed as an offset is."""
    return (*((title, -limit_s) for title, limit_s in AHEAD_LIMITS), *BEHIND_LIMITS)

"""The share of time that clocks were within their tolerances, and excursions: seconds of accounts, never points.

An agent closes an hour with its first record after it, so hours count that ended 15 minutes or more before the end of
the range. An hour of which a host delivered no account is in no state, and counts as time that was not within.
"""

from collections.abc import Iterable

from grafana.panels import (
    SILENT,
    VERDICT_COLOURS,
    Cell,
    Json,
    PanelRow,
    bound_column,
    coloured,
    column,
    graph,
    host_column,
    site_column,
    span_column,
    stamp_column,
    step,
    table,
    thresholds,
)
from grafana.queries import CHOSEN, Influx, Language, Prom, Question, in_range, metric, named, ordered

STATES = dict[str, str]([*VERDICT_COLOURS.items(), ("absent", SILENT), ("off", "text")])
"""The six states of a second, as `ntpaudit_hour` has them, and their colours."""

_HOUR_MS = 3_600_000
CLOSED_MS = _HOUR_MS + 900_000
"""The last hour that counts begins this long before the end of the range: by then its account has arrived."""

_SHARE_DIGITS = 100_000
_ROUNDED_DOWN = "0.000004999999"
"""Grafana rounds to the nearest: half of the last digit less, and a share is not rounded up unless 1e-12 is missing."""

_NO_ACCOUNT = "No hour is accounted that ended in this range 15 minutes or more before its end."


def _whole_hours(ms: str) -> str:
    """Return the last whole hour that is not after a moment, in InfluxQL."""
    return f"(({ms})-({ms})%{_HOUR_MS})"


_NAMES = [f'"{state}"' for state in STATES]
_HOUR_FIELDS = ", ".join(f'sum("{state}_s") AS "{state}"' for state in STATES)
_HOURS = (
    f'(SELECT {_HOUR_FIELDS}, last("profile") AS "profile" FROM "ntpaudit_hour" '
    f"WHERE time >= ${{__from}}ms AND time <= ${{__to}}ms - {CLOSED_MS // 1000}s{CHOSEN.where} "
    'GROUP BY "host", "site")'
)
_OF = f'"within"*0+({_whole_hours(f"${{__to}}-{CLOSED_MS}")}-{_whole_hours("${__from}-1")})/1000'
_COUNTS = f"vector(time()) <= ${{__to}} / 1000 - {CLOSED_MS // 1000}"


def _hours(field: str, function: str = "sum") -> str:
    """Return a function of a field over the hours of each host that count, in MetricsQL.

    At each whole hour it reads the point with that stamp, once: a point that was sent again is two samples. The offset
    is there because a window does not contain its beginning.
    """
    value = f"last_over_time({metric(field, CHOSEN, 'hour')}[1h])"
    return f"{function}_over_time(({value} and on () ({_COUNTS}))[$__range:1h] offset 1ms)"


_COUNTED_HOSTS = f"count by (site) (count by (host, site) ({_hours('within_s', 'count')}))"
_OF_HOSTS = f"({_COUNTED_HOSTS} * 3600 * scalar(count_over_time(({_COUNTS})[$__range:1h] offset 1ms)))"
_IN_STATE = {state: f"sum by (site) ({_hours(f'{state}_s')})" for state in STATES}
_BY_SITE = {
    "hosts": _COUNTED_HOSTS,
    "loosest tolerance": f"max by (site) ({_hours('critical_s', 'max')})",
    "within": _IN_STATE["within"],
    "of": _OF_HOSTS,
    "share": f"floor({_SHARE_DIGITS} * {_IN_STATE['within']} / {_OF_HOSTS}) / {_SHARE_DIGITS}",
    **{state: seconds for state, seconds in _IN_STATE.items() if state != "within"},
    "no account": f"{_OF_HOSTS} - ({' + '.join(_IN_STATE.values())})",
}
_SUMMED = ("within", "of", *(state for state in STATES if state != "within"), "no account")


def _answers(columns: Iterable[str]) -> dict[str, str]:
    """Return the name of each answer's numbers in PromQL, and the column that they are."""
    return {f"Value #{chr(ord('A') + place)}": name for place, name in enumerate(columns)}


def _calculated(name: str, left: str, operator: str, right: str) -> Json:
    """Return the change that adds a column."""
    binary = {"left": left, "operator": operator, "right": right}
    return {
        "id": "calculateField",
        "options": {"mode": "binary", "binary": binary, "alias": name, "replaceFields": False},
    }


TIME_WITHIN = Question(
    (
        Influx(
            f'SELECT "host", "site", "profile", {", ".join(_NAMES)}, {_OF} AS "of", '
            f'{_OF}-{"-".join(_NAMES)} AS "no account" FROM {_HOURS}'
        ),
    ),
    tuple(Prom(query, form="table") for query in _BY_SITE.values()),
    (
        {
            "id": "groupBy",
            "options": {
                "fields": {
                    **{name: {"aggregations": [], "operation": "groupby"} for name in ("site", "profile")},
                    "host": {"aggregations": ["count"], "operation": "aggregate"},
                    **{name: {"aggregations": ["sum"], "operation": "aggregate"} for name in _SUMMED},
                }
            },
        },
        _calculated("ratio", "within (sum)", "/", "of (sum)"),
        _calculated("share", "ratio", "-", _ROUNDED_DOWN),
        *ordered(
            {
                "site": "site",
                "profile": "profile",
                "host (count)": "hosts",
                "within (sum)": "within",
                "of (sum)": "of",
                "share": "share",
                **{f"{name} (sum)": name for name in _SUMMED[2:]},
            },
            ("ratio",),
        ),
    ),
    named({"site": "site", **_answers(_BY_SITE)}, ("Time",)),
)
"""The seconds in each state of each site, and in InfluxDB of each profile: the last one of a host in the range."""

_EXCURSION = (
    '"host", "site", "state", "duration_s" AS "duration", "duration_s"*1000 AS "length", "open", '
    '"proved_s" AS "proved", "possible_s" AS "possible", "findings", "cause" FROM "ntpaudit_excursion"'
)
_BY_EXCURSION = ("host", "site", "state")


def _excursions(field: str, function: str) -> str:
    """Return a function of a field over all excursions of a host that began in the range, in PromQL."""
    return f"max by ({', '.join(_BY_EXCURSION)}) ({function}_over_time({metric(field, CHOSEN, 'excursion')}[$__range]))"


_STARTED = _excursions("duration_s", "tlast")
_IS_ONE = f"and on ({', '.join(_BY_EXCURSION)}) ({_STARTED} == {_excursions('duration_s', 'tfirst')})"
_EXCURSION_COLUMNS = {
    "start": f"1000 * {_STARTED}",
    "end": f"1000 * ({_STARTED} + {_excursions('duration_s', 'max')}) {_IS_ONE}",
    "duration": _excursions("duration_s", "max"),
    "proved": _excursions("proved_s", "max"),
    "possible": _excursions("possible_s", "max"),
}

EXCURSIONS = Question(
    (
        Influx(f"SELECT {_EXCURSION} WHERE {in_range(CHOSEN)} ORDER BY time DESC LIMIT 500"),
        Influx(
            f"SELECT {_EXCURSION} WHERE time >= ${{__from}}ms - 90d AND time < ${{__from}}ms "
            f'AND "open" = 1{CHOSEN.where} ORDER BY time DESC LIMIT 500'
        ),
    ),
    tuple(Prom(query, form="table") for query in _EXCURSION_COLUMNS.values()),
    (
        {"id": "merge", "options": {}},
        _calculated("end", "Time", "+", "length"),
        *ordered(
            {
                **{name: name for name in _BY_EXCURSION},
                "Time": "start",
                "end": "end",
                "duration": "duration",
                "open": "over",
                "proved": "proved",
                "possible": "possible",
                "findings": "findings",
                "cause": "cause",
            },
            ("length",),
        ),
    ),
    named({**{name: name for name in _BY_EXCURSION}, **_answers(_EXCURSION_COLUMNS)}, ("Time",)),
)
"""Each excursion; from VictoriaMetrics the last start of each host and state, and the largest of its numbers."""

TIME_BY_STATE = Question(
    (
        Influx(
            f'SELECT {_HOUR_FIELDS} FROM "ntpaudit_hour" WHERE {in_range(CHOSEN)} '
            "GROUP BY time($__interval) fill(none)",
            "time_series",
        ),
    ),
    tuple(
        Prom(
            f"sum(sum_over_time(last_over_time({metric(f'{state}_s', CHOSEN, 'hour')}[1h])[$__interval:1h]))",
            state,
            instant=False,
        )
        for state in STATES
    ),
)
"""The seconds of all hosts in each state, over time."""


_OVER: list[Json] = [{"type": "value", "options": {"0": {"text": "yes", "index": 0}, "1": {"text": "no", "index": 1}}}]


def compliance(language: Language) -> tuple[PanelRow, ...]:
    """Return the rows of the dashboard *Fleet* about the share of time, and about excursions."""
    seconds = {"unit": "locale", "decimals": 0}
    within = table(
        "Time within tolerance",
        "Seconds of the whole hours in the range, by the tolerances that each host had then: within, out of the "
        "seconds of all hosts. Time that is not proven to be within does not count as within: unmeasured, absent "
        "(the agent did not run), off, and hours without an account. The share is rounded down. The last hour counts "
        "15 minutes after its end. "
        + (
            "A host counts with its last profile in the range."
            if language == "influxql"
            else "VictoriaMetrics stores no texts, so the profile is missing; the loosest tolerance is shown."
        ),
        TIME_WITHIN,
        language,
        overrides=[
            site_column(),
            *((column("profile", custom_width=140),) if language == "influxql" else ()),
            column("hosts", custom_width=80),
            *((span_column("loosest tolerance", 140),) if language == "promql" else ()),
            *(column(name, custom_width=125, **seconds) for name in _SUMMED if name != "beyond"),
            column(
                "beyond",
                **seconds,
                thresholds=thresholds([step("transparent"), step("red", 1)]),
                custom_cellOptions={"type": "color-background", "mode": "basic"},
                custom_width=125,
            ),
            column("share", unit="percentunit", decimals=3, custom_width=100),
        ],
        sort=[("share", False)],
        absent=_NO_ACCOUNT,
    )
    excursions = table(
        "Excursions",
        "Longest spans in which a clock was beyond its tolerance, or not proven to be within it, newest first; with "
        "the largest error that is proved, and the largest possible. Excursions that began in the range"
        + (
            ", or began up to 90 days before it and are not over. If one is not over, its end and duration are those "
            "that the last hour shows."
            if language == "influxql"
            else ". VictoriaMetrics shows one line for each host and state: the start of the last, and the longest "
            "duration and largest errors of all. The end is missing if there were several. The end of one that goes "
            "on is the end of the last hour."
        ),
        EXCURSIONS,
        language,
        overrides=[
            host_column(language),
            site_column(),
            column("state", custom_width=90),
            stamp_column("start"),
            stamp_column("end"),
            span_column("duration", 110),
            *(
                (column("over", mappings=_OVER, custom_width=70), column("findings", custom_width=170))
                if language == "influxql"
                else ()
            ),
            bound_column("proved", 110),
            bound_column("possible", 110),
        ],
        sort=[("start", True)],
        absent="No excursion of an accounted hour began in this range. Time within tolerance shows what is accounted.",
    )
    return (PanelRow(7, (Cell(24, within),)), PanelRow(8, (Cell(24, excursions),)))


def time_by_state(language: Language) -> Json:
    """Return the graph of the seconds in each state, over time."""
    return graph(
        "Time by state (long range)",
        "The time of all hosts in each state, by the tolerances that each host had then. The height is the time that "
        "is accounted: each host has an hour in each hour, also if it was off. What is missing on the right has not "
        "been delivered yet.",
        TIME_BY_STATE,
        language,
        unit="s",
        overrides=[coloured(state, colour) for state, colour in STATES.items()],
        custom={"drawStyle": "bars", "fillOpacity": 70, "lineWidth": 0, "stacking": {"mode": "normal", "group": "A"}},
        interval="1h",
        least=0,
    )

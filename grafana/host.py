"""The dashboard *Host*: one clock, inside its bound, and what it rests on."""

from grafana.fleet import ENV, SITE, steps_annotation
from grafana.panels import (
    AHEAD,
    BEHIND,
    BOUND_STEPS,
    CLAIMED,
    DAEMON,
    DIRECTIONS,
    DOCS,
    JUDGEMENTS,
    LOGS,
    LOGS_OF_HOST,
    NOT_KNOWN,
    OFFSET_STEPS,
    REPORTING,
    SAYINGS,
    STATES,
    SYMLOG,
    Board,
    Cell,
    Json,
    PanelRow,
    Row,
    Variable,
    claim_columns,
    coloured,
    column,
    dashboard,
    direction_column,
    finding_column,
    from_grey,
    graph,
    offset_column,
    span_column,
    stamp_column,
    stat,
    state_column,
    status_column,
    step,
    table,
    text_column,
    timeline,
    word_column,
)
from grafana.queries import (
    BUCKETS,
    HOSTS_THERE,
    KNOWN,
    ONE_HOST,
    SILENT_AFTER_S,
    Influx,
    Language,
    Prom,
    Question,
    by_host,
    claims_question,
    disputed_now,
    in_range,
    judged,
    judged_now,
    last,
    measured,
    metric,
    named,
    ordered,
    reporting,
    seen,
    silence,
    since,
)
from ntpaudit.core.observation import STATUSES

_WHERE = in_range(ONE_HOST)
_STEPS = ONE_HOST.also('"kind" =~ /^step-/', 'kind=~"step-.*"')

HOST = Variable(
    "host",
    "Host",
    "The host to show",
    HOSTS_THERE,
    multi=False,
)


def _lines(
    fields: dict[str, str],
    measurement: str = "clock",
    *,
    least: frozenset[str] = frozenset(),
) -> Question:
    """Query fields of the host over time, renamed: the maximum of each interval, for some the minimum."""
    influxql = ", ".join(
        f'{"min" if name in least else "max"}("{field}") AS "{name}"' for name, field in fields.items()
    )
    return Question(
        (
            Influx(
                f'SELECT {influxql} FROM "ntpaudit_{measurement}" WHERE {_WHERE} GROUP BY {BUCKETS} fill(null)',
                "time_series",
            ),
        ),
        tuple(
            Prom(
                f"{'min' if name in least else 'max'}({'min' if name in least else 'max'}_over_time("
                f"{metric(field, ONE_HOST, measurement)}[$__interval]))",
                name,
                instant=False,
            )
            for name, field in fields.items()
        ),
    )


REPORTS = Question(
    (Influx(f'SELECT "reports" FROM {reporting(ONE_HOST, disputed_weighs=3)}'),),
    (
        Prom(
            f"max(1 + ({silence(ONE_HOST)} <= bool {SILENT_AFTER_S}), 3 + 0 * {disputed_now(ONE_HOST)}) by (host)",
            "reports",
        ),
    ),
)
OFFSET = Question(
    (
        Influx(
            'SELECT "offset", "offset" AS "direction", "bound" AS "at most" FROM '
            + by_host(ONE_HOST, {"offset": "offset_s", "bound": "bound_s"})
        ),
    ),
    tuple(
        Prom(measured(field, ONE_HOST), name)
        for name, field in (("offset", "offset_s"), ("direction", "offset_s"), ("at most", "bound_s"))
    ),
)
STATE = Question(
    (
        Influx(f'SELECT "severity" AS "state" FROM {judged(ONE_HOST)}'),
        Influx(f'SELECT "verdict" FROM {by_host(ONE_HOST, {"verdict": "verdict"})}'),
    ),
    (Prom(judged_now(ONE_HOST), "state"), Prom(last("verdict", ONE_HOST), "verdict")),
)
_COUNTS = ("usable", "agreeing", "falsetickers")
SOURCES_NOW = Question(
    (
        Influx(
            'SELECT "usable", "agreeing", "falsetickers" FROM ' + by_host(ONE_HOST, {name: name for name in _COUNTS})
        ),
    ),
    tuple(Prom(last(name, ONE_HOST), name) for name in _COUNTS),
)
SEEN = Question(
    (Influx(f'SELECT "severity" FROM {by_host(ONE_HOST, {}, span=KNOWN)}'),),
    (Prom(f"1000 * {seen(ONE_HOST)}", "Time"),),
)
BAND = _lines({"latest": "latest_s", "earliest": "earliest_s", "offset": "offset_s"}, least=frozenset({"earliest"}))


def _statements() -> Question:
    """Query what the servers, the time daemon and the kernel state about the offset: from where to where, over time.

    The kernel states no offset, only how far from its own time the true time can be.
    """

    def each(field: str, function: str) -> tuple[str, str]:
        of_series = "avg" if function == "mean" else function
        series = metric(field, ONE_HOST)
        return f'{function}("{field}")', f"{of_series}({of_series}_over_time({series}[$__interval]))"

    bound, maxerror = each("daemon_bound_s", "max"), each("kernel_maxerror_s", "max")
    lines = {
        "servers: latest": each("latest_s", "max"),
        "servers: earliest": each("earliest_s", "min"),
        "servers": each("offset_s", "mean"),
        "daemon: latest": tuple(map("{} + {}".format, each("daemon_offset_s", "max"), bound)),
        "daemon: earliest": tuple(map("{} - {}".format, each("daemon_offset_s", "min"), bound)),
        "daemon": each("daemon_offset_s", "mean"),
        "kernel": maxerror,
        "kernel: earliest": tuple(map("0 - {}".format, maxerror)),
    }
    influxql = ", ".join(f'{asked} AS "{name}"' for name, (asked, _) in lines.items())
    return Question(
        (
            Influx(
                f'SELECT {influxql} FROM "ntpaudit_clock" WHERE {_WHERE} GROUP BY {BUCKETS} fill(null)', "time_series"
            ),
        ),
        tuple(Prom(asked, name, instant=False) for name, (_, asked) in lines.items()),
    )


STATEMENTS = _statements()
CLAIM = claims_question(ONE_HOST)
STATES_OVER_TIME = Question(
    (
        Influx(
            'SELECT max("severity") AS "state", max("verdict") AS "verdict" FROM "ntpaudit_clock" '
            f"WHERE {_WHERE} GROUP BY {BUCKETS} fill(none)",
            "time_series",
        ),
    ),
    tuple(
        Prom(f"max(max_over_time({metric(field, ONE_HOST)}[$__interval]))", name, instant=False)
        for name, field in (("state", "severity"), ("verdict", "verdict"))
    ),
)
STATUSES_OVER_TIME = Question(
    (
        Influx(
            f'SELECT last("status") FROM "ntpaudit_source" WHERE {_WHERE} GROUP BY {BUCKETS}, "source" fill(none)',
            "time_series",
            "$tag_source",
        ),
    ),
    (
        Prom(
            f"max by (source) (last_over_time({metric('status', ONE_HOST, 'source')}[$__interval]))",
            "{{source}}",
            instant=False,
        ),
    ),
)
SOURCE_OFFSETS = Question(
    (
        Influx(
            f'SELECT mean("offset_s") FROM "ntpaudit_source" WHERE {_WHERE} GROUP BY {BUCKETS}, "source" fill(null)',
            "time_series",
            "$tag_source",
        ),
    ),
    (
        Prom(
            f"avg by (source) (avg_over_time({metric('offset_s', ONE_HOST, 'source')}[$__interval]))",
            "{{source}}",
            instant=False,
        ),
    ),
)


def _said(field: str) -> str:
    """Return the last value of a field of each source, in PromQL."""
    return last(field, ONE_HOST, by=("source",), span=KNOWN, measurement="source")


_IF_ANSWERED = f" and on (source) ({_said('status')} < {STATUSES.index('rejected')})"
SOURCES = Question(
    (
        Influx(
            'SELECT "source", "status", "offset", "direction", "delay", "root distance", "stratum", "address", '
            '"reference", "reason" FROM (SELECT last("status") AS "status", "offset_s" AS "offset", '
            '"offset_s" AS "direction", "delay_s" AS "delay", "root_distance_s" AS "root distance", '
            '"stratum" AS "stratum", "address" AS "address", "reference_id" AS "reference", "reason" AS "reason" '
            f'FROM "ntpaudit_source" WHERE {since(ONE_HOST, KNOWN)}{ONE_HOST.where} GROUP BY "source")'
        ),
    ),
    (
        *(
            Prom(f"{_said(field)}{_IF_ANSWERED if field != 'status' else ''}", form="table")
            for field in ("status", "offset_s", "offset_s", "delay_s", "root_distance_s", "stratum")
        ),
        Prom(
            f"1000 * max by (source) (tlast_over_time({metric('status', ONE_HOST, 'source')}[{KNOWN}]))", form="table"
        ),
    ),
    ordered(
        {
            "source": "source",
            "status": "status",
            "offset": "offset",
            "direction": "direction",
            "delay": "delay",
            "root distance": "root distance",
            "stratum": "stratum",
            "address": "address",
            "reference": "follows",
            "reason": "reason",
            "Time": "asked",
        }
    ),
    named(
        {
            "source": "source",
            "Value #A": "status",
            "Value #B": "offset",
            "Value #C": "direction",
            "Value #D": "delay",
            "Value #E": "root distance",
            "Value #F": "stratum",
            "Value #G": "asked",
        },
        ("Time",),
    ),
)
_KNOWN_PPM = 50
"""A frequency whose fit has a larger error is not drawn: 50 ppm are assumed of any clock; an agent begins with 2000."""

FREQUENCY = Question(
    (
        Influx(
            'SELECT mean("frequency_ppm") AS "frequency", mean("frequency_ppm")+max("skew_ppm") AS "plus fit error", '
            'mean("frequency_ppm")-max("skew_ppm") AS "minus fit error" FROM "ntpaudit_clock" '
            f'WHERE {_WHERE} AND "skew_ppm" < {_KNOWN_PPM} GROUP BY {BUCKETS} fill(null)',
            "time_series",
        ),
    ),
    tuple(
        Prom(
            f"{query} and max(max_over_time({metric('skew_ppm', ONE_HOST)}[$__interval])) < {_KNOWN_PPM}",
            legend,
            instant=False,
        )
        for legend, query in (
            ("frequency", f"avg(avg_over_time({metric('frequency_ppm', ONE_HOST)}[$__interval]))"),
            *(
                (
                    legend,
                    f"avg(avg_over_time({metric('frequency_ppm', ONE_HOST)}[$__interval])) {sign} "
                    f"max(max_over_time({metric('skew_ppm', ONE_HOST)}[$__interval]))",
                )
                for legend, sign in (("plus fit error", "+"), ("minus fit error", "-"))
            ),
        )
    ),
)
_FORECAST = ONE_HOST.also("\"kind\" = 'breach-forecast'", 'kind="breach-forecast"')
FORECASTS = Question(
    (
        Influx(
            'SELECT "raised", "value_s" AS "breach in", "text" FROM "ntpaudit_event" '
            f"WHERE {in_range(_FORECAST)} ORDER BY time DESC LIMIT 100"
        ),
    ),
    (
        Prom(f"max(last_over_time({metric('raised', _FORECAST, 'event')}[$__range]))", form="table"),
        Prom(f"max(last_over_time({metric('value_s', _FORECAST, 'event')}[$__range]))", form="table"),
        Prom(f"1000 * max(tlast_over_time({metric('raised', _FORECAST, 'event')}[$__range]))", form="table"),
    ),
    ordered({"Time": "when", "raised": "raised or cleared", "breach in": "breach in", "text": "message and fix"}),
    named({"Value #C": "when", "Value #A": "raised or cleared", "Value #B": "breach in"}, ("Time",)),
)
KERNEL = _lines({"the kernel's maximum error": "kernel_maxerror_s", "measured bound": "bound_s"})
EVENTS = Question(
    (
        Influx(
            'SELECT "kind", "raised", "severity" AS "state", "value_s" AS "size", "text" FROM "ntpaudit_event" '
            f"WHERE {_WHERE} ORDER BY time DESC LIMIT 500"
        ),
    ),
    (
        Prom(f"max by (kind) (last_over_time({metric('raised', ONE_HOST, 'event')}[$__range]))", form="table"),
        Prom(f"max by (kind) (last_over_time({metric('severity', ONE_HOST, 'event')}[$__range]))", form="table"),
        Prom(f"max by (kind) (last_over_time({metric('value_s', ONE_HOST, 'event')}[$__range]))", form="table"),
        Prom(f"1000 * max by (kind) (tlast_over_time({metric('raised', ONE_HOST, 'event')}[$__range]))", form="table"),
    ),
    ordered(
        {
            "Time": "when",
            "kind": "finding",
            "raised": "raised or cleared",
            "state": "state",
            "size": "size",
            "text": "message and fix",
        }
    ),
    named(
        {
            "Value #D": "when",
            "kind": "finding",
            "Value #A": "raised or cleared",
            "Value #B": "state",
            "Value #C": "size",
        },
        ("Time",),
    ),
)
DELIVERY = _lines(
    {"records that wait": "backlog", "failures since the last good": "failures", "audits missed": "missed"}
)
AGES = _lines({"of the measurement": "age_s", "of the oldest record that waits": "oldest_undelivered_s"})
AUDITS = Question(
    (
        Influx(
            f'SELECT count("severity") AS "audits" FROM "ntpaudit_clock" WHERE {_WHERE} GROUP BY {BUCKETS} fill(0)',
            "time_series",
        ),
    ),
    (Prom(f"sum(count_over_time({metric('severity', ONE_HOST)}[$__interval]))", "audits", instant=False),),
)

_BEGAN = [
    {
        "type": "value",
        "options": {
            "0": {"text": "cleared", "color": "green", "index": 0},
            "1": {"text": "raised", "color": "orange", "index": 1},
        },
    }
]
_OFFSET_AXIS = "← ahead      behind →"


def host(language: Language) -> Json:
    """Return the dashboard."""
    return dashboard(
        Board(
            language,
            "host",
            "ntpaudit: Host",
            "The clock of one host: its offset and bound, its drift, the replies of its sources, its findings and "
            "steps, and whether the record is complete. Positive is behind, negative is ahead.",
            (SITE, ENV, HOST),
            (
                Row("Now", (_now(language),)),
                Row("The clock", (_clock(language), _state(language))),
                Row("Three statements", _stated(language)),
                Row("Its sources", _sources(language)),
                Row("Events", (_events(language),)),
                Row("Drift and kernel", _drift(language)),
                Row("The evidence", (_evidence(language),)),
            ),
            (DOCS, LOGS),
            (LOGS_OF_HOST,),
            (steps_annotation(language, _STEPS),),
            since="now-24h",
        )
    )


def _now(language: Language) -> PanelRow:
    reports = stat(
        "Reports",
        f"Whether the host sent a point in the last {SILENT_AFTER_S // 60} minutes. The clock of a silent host is "
        "unknown: the other numbers on this dashboard are then empty. Time disputed: the host delivers, but its "
        "timestamps and the database's clock contradict each other; its points are elsewhere on the time axis.",
        REPORTS,
        language,
        mappings=REPORTING,
        names=["reports"],
        absent="no point for a day",
    )
    state = stat(
        "State",
        "The severity of the last point, or what its interval, tolerances and age prove if that is worse; and its "
        "verdict on the critical tolerance of the host's own profile: within, unproven (the interval reaches across "
        "it), beyond, or unmeasured.",
        STATE,
        language,
        overrides=[column("state", mappings=STATES), column("verdict", mappings=JUDGEMENTS)],
        names=["state", "verdict"],
        absent="silent",
    )
    offset = stat(
        "Offset",
        "The estimate with its sign, the direction as a word, and the maximum error at the time of the last point.",
        OFFSET,
        language,
        unit="s",
        decimals=3,
        overrides=[
            column("offset", thresholds=from_grey(OFFSET_STEPS)),
            column("direction", mappings=DIRECTIONS),
            column("at most", thresholds=from_grey(BOUND_STEPS)),
        ],
        absent="not known",
        names=["offset", "direction", "at most"],
    )
    sources = stat(
        "Sources",
        "How many sources sent a usable reply, how many of them agree, and how many are falsetickers.",
        SOURCES_NOW,
        language,
        overrides=[
            column("usable", thresholds=from_grey([step("red", 0), step("yellow", 1), step("green", 3)])),
            column("agreeing", thresholds=from_grey([step("yellow", 0), step("green", 1)])),
            column("falsetickers", thresholds=from_grey([step(NOT_KNOWN, 0), step("yellow", 1)])),
        ],
        names=list(_COUNTS),
        absent="silent",
    )
    seen_last = stat(
        "Last seen",
        f"The time of the last point within a day, UTC. A host is silent after {SILENT_AFTER_S // 60} minutes.",
        SEEN,
        language,
        unit="dateTimeAsIso",
        overrides=[column("Time", displayName="last point")],
        absent="no point for a day",
    )
    seen_last["options"]["colorMode"] = "none"
    if language == "influxql":  # the answer's own time is the moment, its number is not
        seen_last["options"]["reduceOptions"]["fields"] = "/^Time$|^last point$/"
    return PanelRow(5, (Cell(3, reports), Cell(4, state), Cell(8, offset), Cell(5, sources), Cell(4, seen_last)))


def _clock(language: Language) -> PanelRow:
    band = graph(
        "Offset and bound",
        "The true offset lies in the band if at most f of the queried servers are wrong (1 of 4, 2 of 7), wherever "
        "the estimate is within it. Above zero the clock is behind, below zero it is ahead. The band widens between "
        "queries to the servers. A gap is time without a measurement. The scale is logarithmic beyond 1 ms.",
        BAND,
        language,
        unit="s",
        axis=_OFFSET_AXIS,
        custom={"scaleDistribution": SYMLOG},
        overrides=[
            coloured("latest", BEHIND, custom_fillBelowTo="earliest", custom_lineWidth=1, custom_fillOpacity=20),
            coloured("earliest", AHEAD, custom_lineWidth=1),
            coloured("offset", "text", custom_lineWidth=2),
        ],
    )
    return PanelRow(11, (Cell(24, band),))


def _state(language: Language) -> PanelRow:
    states = timeline(
        "State and verdict",
        "The worst severity and verdict of each interval. Without a band the host was silent.",
        STATES_OVER_TIME,
        language,
        overrides=[column("state", mappings=STATES), column("verdict", mappings=JUDGEMENTS)],
    )
    return PanelRow(5, (Cell(24, states),))


_UNLISTED = {"legend": True, "tooltip": False, "viz": False}
"""An edge of a band has the colour of its middle, which the legend names."""


def _band(who: str, colour: str) -> tuple[Json, ...]:
    """Return how an offset and the edges around it are drawn."""
    filled = {"custom_fillBelowTo": f"{who}: earliest", "custom_fillOpacity": 15}
    return (
        coloured(f"{who}: latest", colour, custom_hideFrom=_UNLISTED, **filled),
        coloured(f"{who}: earliest", colour, custom_hideFrom=_UNLISTED),
        coloured(who, colour, custom_lineWidth=2),
    )


def _stated(language: Language) -> tuple[PanelRow, ...]:
    statements = graph(
        "Three statements",
        "What the servers prove (as in Offset and bound), what the time daemon states (its offset, plus and minus its "
        "own bound), and what the kernel states (plus and minus its maximum error, 16 s or more if it is not "
        "synchronised). Above zero the clock is behind, below zero it is ahead. The daemon corrects the offset that it "
        "states: if the band of the servers lies between that and zero, both can be right. Where the daemon has no "
        "lines, it states nothing, or cannot be read. The scale is logarithmic beyond 1 ms.",
        STATEMENTS,
        language,
        unit="s",
        axis=_OFFSET_AXIS,
        custom={"scaleDistribution": SYMLOG},
        overrides=[
            coloured("kernel", "orange", custom_fillBelowTo="kernel: earliest", custom_fillOpacity=15),
            coloured("kernel: earliest", "orange", custom_hideFrom=_UNLISTED),
            *_band("servers", "text"),
            *_band("daemon", DAEMON),
        ],
    )
    claim = table(
        "Time daemon",
        CLAIMED + " The command `ntpaudit check` shows why a claim cannot be read.",
        CLAIM,
        language,
        overrides=claim_columns(language),
        absent="The last point has no claim of a time daemon: none was seen, it cannot be read, or the host is silent.",
    )
    return (PanelRow(11, (Cell(24, statements),)), PanelRow(4, (Cell(24, claim),)))


def _sources(language: Language) -> tuple[PanelRow, ...]:
    statuses = timeline(
        "Status of each source",
        "agreeing: its interval contains the agreed offset; falseticker: it does not; distant: its maximum error is "
        "too large to help; rejected: its reply is not usable; unreachable: no reply; skipped: not queried. If no "
        "majority agrees, every source is called a falseticker, also those that are right (reason no-majority).",
        STATUSES_OVER_TIME,
        language,
        SAYINGS,
        gap_ms=7_200_000,
    )
    offsets = graph(
        "Offset by each source",
        "The offset of this clock by each source: positive is behind, negative is ahead. The scale is logarithmic "
        "beyond 1 ms.",
        SOURCE_OFFSETS,
        language,
        unit="s",
        axis=_OFFSET_AXIS,
        gap_ms=7_200_000,
        custom={"scaleDistribution": SYMLOG},
    )
    sources = table(
        "Last reply of each source",
        "The last reply of each source within a day. VictoriaMetrics stores no texts, so addresses, reference ids "
        "and reasons are only available with InfluxDB.",
        SOURCES,
        language,
        overrides=[
            column("source", custom_width=220),
            status_column(),
            offset_column(),
            direction_column(),
            span_column("delay"),
            span_column("root distance"),
            stamp_column("asked"),
        ],
        sort=[("status", True)],
        absent="No reply of a source within a day.",
    )
    return (PanelRow(9, (Cell(12, statuses), Cell(12, offsets))), PanelRow(8, (Cell(24, sources),)))


def _events(language: Language) -> PanelRow:
    events = table(
        "Findings and steps",
        "Findings raised and cleared, and steps, in the selected range, newest first, with the fix. VictoriaMetrics "
        "shows the last of each kind, without its text.",
        EVENTS,
        language,
        overrides=[
            stamp_column("when"),
            finding_column(width=190),
            word_column("raised or cleared", _BEGAN, 130),
            state_column(),
            column("size", unit="s", custom_width=110),
            *text_column(language),
        ],
        sort=[("when", True)],
        absent="No finding was raised or cleared, and no step was reported, in this range.",
    )
    return PanelRow(9, (Cell(24, events),))


def _drift(language: Language) -> tuple[PanelRow, ...]:
    frequency = graph(
        "Drift",
        "How fast the clock falls behind (positive) or gets ahead (negative) with the kernel's present correction "
        "alone, in parts per million, once the error of its fit is below 50 ppm. This is the error over the span of "
        "the fit; the present frequency may differ by more. 10 ppm is 0.9 s a day.",
        FREQUENCY,
        language,
        unit="suffix:ppm",
        overrides=[
            coloured("frequency", "text", custom_lineWidth=2),
            coloured("plus fit error", BEHIND, custom_fillBelowTo="minus fit error", custom_fillOpacity=15),
            coloured("minus fit error", AHEAD),
        ],
        gap_ms=7_200_000,
    )
    forecasts = table(
        "Findings breach-forecast",
        "When an agent raised or cleared the finding breach-forecast: in what time an undisciplined clock exceeds its "
        "critical tolerance at its present rate.",
        FORECASTS,
        language,
        overrides=[
            stamp_column("when"),
            word_column("raised or cleared", _BEGAN, 130),
            span_column("breach in"),
            *text_column(language),
        ],
        sort=[("when", True)],
        absent="No breach-forecast was raised or cleared in this range.",
    )
    kernel = graph(
        "Kernel maximum error",
        "The kernel's maximum error beside the measured bound. It grows until a daemon updates it: a line that only "
        "rises belongs to a clock that no daemon disciplines.",
        KERNEL,
        language,
        unit="s",
        least=0,
        custom={"scaleDistribution": SYMLOG},
        overrides=[coloured("the kernel's maximum error", "orange"), coloured("measured bound", "text")],
    )
    return (
        PanelRow(9, (Cell(12, frequency), Cell(12, kernel))),
        PanelRow(7, (Cell(24, forecasts),)),
    )


def _evidence(language: Language) -> PanelRow:
    audits = graph(
        "Audits received",
        "How many points arrived in each interval. Every audit makes one: a minute without a point is a minute "
        "without proof.",
        AUDITS,
        language,
        unit="none",
        custom={"drawStyle": "bars", "fillOpacity": 60},
        least=0,
        interval="10m",
    )
    delivery = graph(
        "Delivery and agent",
        "Records that wait for delivery, delivery attempts that failed since the last success, and network audits "
        "that were missed.",
        DELIVERY,
        language,
        unit="none",
        least=0,
    )
    ages = graph(
        "Ages",
        "The age of the replies that the offset is based on, and of the oldest undelivered record.",
        AGES,
        language,
        unit="s",
        least=0,
    )
    return PanelRow(8, (Cell(8, audits), Cell(8, delivery), Cell(8, ages)))

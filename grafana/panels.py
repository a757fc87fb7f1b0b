"""Panels, rows and dashboards in Grafana's classic JSON model; what a language asks is in `queries.py`.

Whatever shows an offset shows its sign: behind is blue, ahead is purple, in words too.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from grafana.links import FINDINGS, LOGS_URL
from grafana.queries import SOURCE_NAMES, SOURCES, Language, Question, datasource
from ntpaudit.core.observation import STATUSES, Status
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES, VERDICTS, Severity, Verdict

Json = dict[str, Any]

SCHEMA_VERSION = 39
"""What Grafana 10.4 writes; an older 10 takes it as it is, and 11 to 13 bring it up to date as they load it.

What versions 40 to 43 change is not used here: a `refresh` that is no text, the settings of the time picker, fields
that are hidden from a panel and not from its tooltip, and the transformation `formatTime`.
"""

COLUMNS = 24

BEHIND, FAR_BEHIND, NEAR_BEHIND = "blue", "dark-blue", "light-blue"
AHEAD, FAR_AHEAD, NEAR_AHEAD = "purple", "dark-purple", "light-purple"
NOT_KNOWN, SILENT = "#818b98", "#5c6570"
STATE_COLOURS = {
    Severity.OK: "green",
    Severity.WARNING: "yellow",
    Severity.UNKNOWN: NOT_KNOWN,
    Severity.CRITICAL: "red",
}
VERDICT_COLOURS: dict[Verdict, str] = {
    "within": "green",
    "unproven": "yellow",
    "beyond": "red",
    "unmeasured": NOT_KNOWN,
}
STATUS_COLOURS: dict[Status, str] = {
    "agreeing": "green",
    "falseticker": "red",
    "distant": "yellow",
    "rejected": "orange",
    "unreachable": NOT_KNOWN,
    "skipped": SILENT,
}
DAEMON = "#2fb8ac"
"""What a time daemon states: neither a direction nor a severity."""

NOTHING = "-"
"""What a table's cell says that has no value."""

NO_HOST = "no host reports"
"""What a panel says that has nothing to count: that is no good news."""

_LEAST = -1e12
"""Less than any value: the first step of a scale begins at minus infinity, and is what a missing value gets too."""

_ALL: Json = {"selected": True, "text": ["All"], "value": ["$__all"]}
"""The initial selection; without one, Grafana may start with only the first site."""

SYMLOG: Json = {"type": "symlog", "log": 10, "linearThreshold": 0.001}
"""A scale on which both a millisecond and an hour can be read, ahead and behind; linear below 1 ms."""

TOLERANCE = PROFILES[DEFAULT_PROFILE]
"""The colours of offsets and bounds change at the tolerances of this profile, whatever profile a host has."""


class Cell(NamedTuple):
    """A panel and its width in columns."""

    width: int
    panel: Json


class PanelRow(NamedTuple):
    """Panels of one height, side by side."""

    height: int
    cells: tuple[Cell, ...]


class Row(NamedTuple):
    """A heading and the lines below it; what is `folded` asks nothing until somebody opens it."""

    title: str
    lines: tuple[PanelRow, ...]
    folded: bool = False


class Variable(NamedTuple):
    """A choice at the top of a dashboard: the values of a tag, or those that are given."""

    name: str
    label: str
    description: str
    query: Mapping[Language, str] | str
    multi: bool = True


class Board(NamedTuple):
    """A dashboard, in one language."""

    language: Language
    name: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    addresses: tuple[Json, ...] = ()
    links: tuple[Json, ...] = ()
    annotations: tuple[Json, ...] = ()
    since: str = "now-6h"
    refresh: str = "1m"


def uid(name: str, language: Language) -> str:
    """Return the name that links go by, which never changes."""
    return f"ntpaudit-{name}" if language == "influxql" else f"ntpaudit-{name}-promql"


def dashboard(board: Board) -> Json:
    """Return a dashboard as a file has it."""
    language = board.language
    return {
        "uid": uid(board.name, language),
        "title": board.title if language == "influxql" else f"{board.title} (PromQL)",
        "description": board.description,
        "tags": ["ntpaudit", language],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": board.refresh,
        "timezone": "utc",
        "time": {"from": board.since, "to": "now"},
        "links": [_siblings(language), *board.links],
        "templating": {
            "list": [
                _source_variable(language),
                *(_variable(one, language) for one in board.variables),
                *board.addresses,
            ]
        },
        "annotations": {"list": list(board.annotations)},
        "panels": list(_placed(board.rows)),
    }


def _siblings(language: Language) -> Json:
    return {
        "type": "dashboards",
        "title": "ntpaudit",
        "tags": ["ntpaudit", language],
        "asDropdown": False,
        "includeVars": True,  # the data source, sites and environments that are chosen
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def _source_variable(language: Language) -> Json:
    """Return the choice of the data source, which every panel uses; at first the provisioned one."""
    provisioned = {"text": SOURCE_NAMES[language], "value": SOURCES[language]}
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "influxdb" if language == "influxql" else "prometheus",
        "regex": "",
        "multi": False,
        "includeAll": False,
        "current": {"selected": True, **provisioned},
        "hide": 0,
        "refresh": 1,
        "skipUrlSync": False,
    }


def _variable(one: Variable, language: Language) -> Json:
    """Return a choice; all of a tag's values are also those points that lack the tag."""
    common = {"name": one.name, "label": one.label, "description": one.description, "hide": 0, "skipUrlSync": False}
    if isinstance(one.query, str):
        return {**common, "type": "custom", "query": one.query, "multi": False, "includeAll": False, "current": {}}
    query: Json | str = one.query[language]
    if language == "promql":
        query = {"query": query, "refId": one.name}
    whole = one.multi and one.name != "hosts"
    return {
        **common,
        "type": "query",
        "datasource": datasource(language),
        "query": query,
        "refresh": 2,
        "sort": 1,
        "regex": "",
        "multi": one.multi,
        "includeAll": whole,
        **({"allValue": ".*"} if whole else {}),
        "current": dict(_ALL) if whole else {},
    }


def _address(name: str, label: str, description: str, url: str) -> Json:
    """Return a field at the top that holds an address."""
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "description": description,
        "query": url,
        "current": {"selected": True, "text": url, "value": url},
        "hide": 0,
        "skipUrlSync": False,
    }


DOCS = _address("docs", "Findings explained at", "Where docs/findings.md of this project can be read", FINDINGS)
LOGS = _address(
    "logs", "Logs at", "The address that opens the logs of a host when the name of the host is appended", LOGS_URL
)
LOGS_OF_HOST: Json = {
    "type": "link",
    "title": "Logs of this host",
    "tags": [],
    "asDropdown": False,
    "includeVars": False,
    "keepTime": False,
    "targetBlank": True,
    "icon": "doc",
    "tooltip": "",
    "url": "${logs:raw}${host:percentencode}",
}


def _placed(rows: Sequence[Row]) -> Iterator[Json]:
    """Give every panel its number and its place, line below line."""
    number, y = 0, 0
    for row in rows:
        number += 1
        inner = []
        heading = {"type": "row", "id": number, "title": row.title, "collapsed": row.folded}
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        y += 1
        for height, cells in row.lines:
            x = 0
            for width, panel in cells:
                number += 1
                inner.append({"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **panel})
                x += width
            y += height
        yield {**heading, "gridPos": place, "panels": inner if row.folded else []}
        if row.folded:
            y = place["y"] + 1
        else:
            yield from inner


def panel(
    kind: str,
    title: str,
    description: str,
    question: Question,
    language: Language,
    *,
    defaults: Json | None = None,
    overrides: Sequence[Json] = (),
    options: Json | None = None,
    interval: str | None = None,
) -> Json:
    """Return a panel that asks a question; `interval` is the shortest time that one of its values stands for."""
    changes = question.changes[language]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": datasource(language),
        "targets": question.targets(language),
        "fieldConfig": {"defaults": defaults or {}, "overrides": list(overrides)},
        "options": options or {},
        **({"transformations": list(changes)} if changes else {}),
        **({"interval": interval} if interval else {}),
    }


def stat(
    title: str,
    description: str,
    question: Question,
    language: Language,
    *,
    unit: str = "none",
    overrides: Sequence[Json] = (),
    steps: Sequence[Json] = (),
    mappings: Sequence[Json] = (),
    absent: str = NO_HOST,
    decimals: int | None = None,
    names: Sequence[str] = (),
) -> Json:
    """Return one number for each field of the answer, its ground in the colour of its step; `names` are its fields.

    What is not known is grey, also where the database answers nothing: `absent` is then its text.
    """
    return panel(
        "stat",
        title,
        description,
        question,
        language,
        defaults={
            "unit": unit,
            "noValue": absent,
            "mappings": list(mappings),
            "color": {"mode": "thresholds"},
            "thresholds": from_grey(steps),
            **({} if decimals is None else {"decimals": decimals}),
        },
        overrides=[*map(_plainly, names), *overrides],
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background_solid",
            "graphMode": "none",
            "justifyMode": "center",
            "orientation": "vertical",
            "textMode": "auto",
            "wideLayout": True,
            "showPercentChange": False,
        },
    )


def bars(
    title: str,
    description: str,
    question: Question,
    language: Language,
    *,
    unit: str = "none",
    overrides: Sequence[Json] = (),
    steps: Sequence[Json] = (),
    names: Sequence[str] = (),
    absent: str = NO_HOST,
    most: float | None = None,
) -> Json:
    """Return a bar for each field of the answer, of those `names`; without names for each of its rows."""
    return panel(
        "bargauge",
        title,
        description,
        question,
        language,
        defaults={
            "unit": unit,
            "min": 0,
            **({} if most is None else {"max": most}),
            "noValue": absent,
            "color": {"mode": "thresholds"},
            "thresholds": from_grey(steps),
        },
        overrides=[*map(_plainly, names), *overrides],
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": not names, "limit": 50},
            "orientation": "horizontal",
            "displayMode": "basic",
            "valueMode": "color",
            "namePlacement": "top",  # at the left Grafana cuts what is longer than a quarter of the panel
            "showUnfilled": True,
            "sizing": "auto",
            "minVizWidth": 8,
            "minVizHeight": 10,
            "maxVizHeight": 300,
        },
    )


def table(
    title: str,
    description: str,
    question: Question,
    language: Language,
    *,
    overrides: Sequence[Json] = (),
    sort: Sequence[tuple[str, bool]] = (),
    absent: str = "",
) -> Json:
    """Return a table; `sort` names columns and whether the greatest comes first. An empty one says `absent`.

    Grafana says the `noValue` of the defaults in an empty table, and in each cell without a value too, where no
    override has another.
    """
    return panel(
        "table",
        title,
        description,
        question,
        language,
        defaults={
            "noValue": absent,
            "custom": {"align": "auto", "filterable": True, "cellOptions": {"type": "auto"}, "inspect": False},
            "color": {"mode": "thresholds"},
            "thresholds": thresholds([step("text")]),
        },
        overrides=[
            {
                "matcher": {"id": "byRegexp", "options": "/.*/"},
                "properties": [{"id": "noValue", "value": NOTHING}],
            },
            *overrides,
        ],
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "sortBy": [{"displayName": name, "desc": down} for name, down in sort],
        },
    )


def graph(
    title: str,
    description: str,
    question: Question,
    language: Language,
    *,
    unit: str,
    axis: str = "",
    overrides: Sequence[Json] = (),
    custom: Json | None = None,
    steps: Sequence[Json] | None = None,
    interval: str = "1m",
    gap_ms: int = 900_000,
    least: float | None = None,
    absent: str = "",
) -> Json:
    """Return lines over time; where nothing came for longer than `gap_ms` there is a gap in them, too."""
    return panel(
        "timeseries",
        title,
        description,
        question,
        language,
        defaults={
            "unit": unit,
            "color": {"mode": "palette-classic"},
            "custom": {
                "drawStyle": "line",
                "lineInterpolation": "linear",
                "lineWidth": 1,
                "fillOpacity": 0,
                "showPoints": "auto",
                "pointSize": 4,
                "spanNulls": gap_ms,
                "axisLabel": axis,
                "axisPlacement": "auto",
                "axisCenteredZero": False,
                "thresholdsStyle": {"mode": "off"},
                "stacking": {"mode": "none", "group": "A"},
                **(custom or {}),
            },
            "thresholds": thresholds(steps or [step("green")]),
            **({} if least is None else {"min": least}),
            **({"noValue": absent} if absent else {}),
        },
        overrides=overrides,
        options={
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
        interval=interval,
    )


def timeline(
    title: str,
    description: str,
    question: Question,
    language: Language,
    mappings: Sequence[Json] = (),
    overrides: Sequence[Json] = (),
    gap_ms: int = 900_000,
) -> Json:
    """Return a band for each series whose colour is its state; it ends where nothing came for longer than `gap_ms`.

    Where equal values are merged and colours go by thresholds, Grafana shows the thresholds and no mapping.
    """
    return panel(
        "state-timeline",
        title,
        description,
        question,
        language,
        defaults={
            "mappings": list(mappings),
            "color": {"mode": "fixed", "fixedColor": SILENT},
            "custom": {"lineWidth": 0, "fillOpacity": 80, "spanNulls": False, "insertNulls": gap_ms},
        },
        overrides=overrides,
        options={
            "mergeValues": True,
            "showValue": "auto",
            "alignValue": "left",
            "rowHeight": 0.85,
            "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        },
        interval="1m",
    )


def text(title: str, description: str, content: str) -> Json:
    """Return a panel of words."""
    return {
        "type": "text",
        "title": title,
        "description": description,
        "options": {"mode": "markdown", "content": content},
    }


def step(colour: str, since: float | None = None) -> Json:
    """Return the colour of values from here on; the first has no beginning."""
    return {"color": colour, "value": since}


def thresholds(steps: Sequence[Json]) -> Json:
    """Return where colours change."""
    return {"mode": "absolute", "steps": list(steps)}


def from_grey(steps: Sequence[Json], missing: str = NOT_KNOWN) -> Json:
    """Return where colours change, where a missing value has a colour of its own: no scale begins with it."""
    first, *others = steps or [step(NOT_KNOWN)]
    return thresholds(
        [step(missing), step(first["color"], _LEAST if first["value"] is None else first["value"]), *others]
    )


def column(name: str, **properties: Any) -> Json:
    """Return what is special of the field of that name; `_` in a property's name stands for the point in it."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("custom_", "custom."), "value": value} for key, value in properties.items()],
    }


def _plainly(name: str) -> Json:
    """Return a field that is called by its own name alone, without that of the measurement before it."""
    return column(name, displayName=name)


def coloured(name: str, colour: str, **properties: Any) -> Json:
    """Return a field that always has one colour."""
    return column(name, color={"mode": "fixed", "fixedColor": colour}, **properties)


def _mapping(words: Sequence[tuple[str, str]]) -> list[Json]:
    options = {
        str(number): {"text": word, "color": colour, "index": number} for number, (word, colour) in enumerate(words)
    }
    return [{"type": "value", "options": options}]


STATES = _mapping([(severity.word, STATE_COLOURS[severity]) for severity in Severity])
JUDGEMENTS = _mapping([(verdict, VERDICT_COLOURS[verdict]) for verdict in VERDICTS])
SAYINGS = _mapping([(status, STATUS_COLOURS[status]) for status in STATUSES])
_EVER_S = 1e18
"""More than any offset; Grafana has taken a range's end that is null for 0."""

REPORTING: list[Json] = [
    {
        "type": "value",
        "options": {
            "1": {"text": "silent", "color": SILENT, "index": 0},
            "2": {"text": "reports", "color": "green", "index": 1},
            "3": {"text": "time disputed", "color": "yellow", "index": 2},
        },
    }
]
DIRECTIONS: list[Json] = [
    {
        "type": "range",
        "options": {"from": -_EVER_S, "to": -1e-12, "result": {"text": "ahead", "color": AHEAD, "index": 0}},
    },
    {
        "type": "range",
        "options": {"from": 1e-12, "to": _EVER_S, "result": {"text": "behind", "color": BEHIND, "index": 1}},
    },
    {"type": "value", "options": {"0": {"text": "exact", "color": "green", "index": 2}}},
]
_CLEAR = "transparent"
SYNCHRONISED: list[Json] = [
    {
        "type": "value",
        "options": {
            "0": {"text": "no", "color": "yellow", "index": 0},
            "1": {"text": "yes", "color": _CLEAR, "index": 1},
        },
    }
]
"""Whether a time daemon reports that it follows a server; that it does is no proof, so it is not green."""

OFFSET_STEPS = [
    step(FAR_AHEAD),
    step(AHEAD, -TOLERANCE.critical_s),
    step(NEAR_AHEAD, -TOLERANCE.warning_s),
    step(NEAR_BEHIND, 0.0),
    step(BEHIND, TOLERANCE.warning_s),
    step(FAR_BEHIND, TOLERANCE.critical_s),
]
FAR_S = 60.0
"""An offset beyond is far off."""

NO_SITE: Json = {"type": "special", "options": {"match": "empty", "result": {"text": "no site", "index": 0}}}
"""The text for a host without a site."""

BOUND_STEPS = [step("green"), step("yellow", TOLERANCE.warning_s), step("red", TOLERANCE.critical_s)]

OFFSET_GROUNDS = [
    step(FAR_AHEAD),
    step(AHEAD, -FAR_S),
    step(NEAR_AHEAD, -TOLERANCE.critical_s),
    step(_CLEAR, -TOLERANCE.warning_s),
    step(NEAR_BEHIND, TOLERANCE.warning_s),
    step(BEHIND, TOLERANCE.critical_s),
    step(FAR_BEHIND, FAR_S),
]
"""In a table only offsets beyond the warning tolerance have a ground."""

_GROUND = {"type": "color-background", "mode": "basic"}
"""Colour is the ground of a cell and never its ink: Grafana takes ink that can be read on it, in both themes."""


_NO_GROUND: Json = {"mode": "absolute", "steps": [{"color": _CLEAR, "value": None}]}
"""What a value that no mapping names has, and a missing one."""


def word_column(name: str, mappings: Sequence[Json], width: int) -> Json:
    """Return a column of numbers that stand for words, each on the ground of its colour."""
    return column(name, mappings=list(mappings), thresholds=_NO_GROUND, custom_cellOptions=_GROUND, custom_width=width)


def state_column(name: str = "state") -> Json:
    """Return a column of severities, in words."""
    return word_column(name, STATES, 100)


def verdict_column(name: str = "verdict") -> Json:
    """Return a column of verdicts, in words."""
    return word_column(name, JUDGEMENTS, 110)


def status_column(name: str = "status") -> Json:
    """Return a column of what became of a source, in words."""
    return word_column(name, SAYINGS, 120)


def offset_column(name: str = "offset", width: int = 110) -> Json:
    """Return a column of signed offsets."""
    return column(
        name,
        unit="s",
        decimals=3,
        thresholds=from_grey(OFFSET_GROUNDS, _CLEAR),
        custom_cellOptions=_GROUND,
        custom_width=width,
    )


def direction_column(name: str = "direction") -> Json:
    """Return a column with the direction of an offset in a word."""
    return column(name, mappings=DIRECTIONS, custom_width=90)


def bound_column(name: str = "at most", width: int = 140) -> Json:
    """Return a column of worst cases."""
    return column(
        name,
        unit="s",
        decimals=3,
        thresholds=from_grey([step(_CLEAR), *BOUND_STEPS[1:]], _CLEAR),
        custom_cellOptions=_GROUND,
        custom_width=width,
    )


def count_column(name: str, colour: str) -> Json:
    """Return a column of counts, coloured from one on."""
    return column(
        name,
        thresholds=from_grey([step(_CLEAR), step(colour, 1)], _CLEAR),
        custom_cellOptions=_GROUND,
        custom_width=85,
    )


def span_column(name: str, width: int = 130) -> Json:
    """Return a column of durations."""
    return column(name, unit="s", custom_width=width)


CLAIMED = (
    "What the time daemon stated at the last point: whether it follows a server, the offset (positive is behind, "
    "negative is ahead), its own bound of that, and the age of its last update. Contradicted by: the least distance "
    "between the measured interval and what the daemon allows; 0 if both can be right. VictoriaMetrics stores no "
    "texts, so the name of the daemon and what it follows are only available with InfluxDB."
)
"""What a table with `claim_columns` shows."""


def claim_columns(language: Language) -> tuple[Json, ...]:
    """Return the columns of what a time daemon states; its name and what it follows only where texts are stored."""
    texts = (column("daemon", custom_width=150), column("follows", custom_width=180)) if language == "influxql" else ()
    return (
        *texts,
        word_column("synchronised", SYNCHRONISED, 120),
        offset_column("states"),
        direction_column(),
        span_column("its bound", 110),
        offset_column("measured"),
        column(
            "contradicted by",
            unit="s",
            decimals=3,
            thresholds=from_grey([step(_CLEAR, 0), step("yellow", 1e-9)], _CLEAR),
            custom_cellOptions=_GROUND,
            custom_width=140,
        ),
        span_column("update age"),
    )


def stamp_column(name: str) -> Json:
    """Return a column of moments in UTC; how long ago they are Grafana would count from today, whatever is shown."""
    return column(name, unit="dateTimeAsIso", custom_width=170)


def text_column(language: Language, name: str = "message and fix") -> tuple[Json, ...]:
    """Return the column of texts, which takes the width that the others leave, where the database keeps texts."""
    wrapped = column(name, custom_cellOptions={"type": "auto", "wrapText": True}, custom_inspect=True)
    return (wrapped,) if language == "influxql" else ()


def reports_column(name: str = "reports") -> Json:
    """Return a column that says whether a host reports."""
    return word_column(name, REPORTING, 120)


def site_column(name: str = "site") -> Json:
    """Return a column of sites; a host without one says so."""
    return column(name, mappings=[NO_SITE], custom_width=120)


def host_column(language: Language, name: str = "host") -> Json:
    """Return a column of hosts, each with links to its own dashboard at the time that is shown, and to its logs."""
    link = {
        "title": "Open this host",
        "url": f"/d/{uid('host', language)}?${{datasource:queryparam}}&${{site:queryparam}}&${{env:queryparam}}"
        "&var-host=${__value.raw:percentencode}&${__url_time_range}",
        "targetBlank": False,
    }
    logs = {"title": "Logs of this host", "url": "${logs:raw}${__value.raw:percentencode}", "targetBlank": True}
    return column(name, links=[link, logs], custom_width=160)


def finding_column(name: str = "finding", width: int = 180) -> Json:
    """Return a column of findings, each a link to its documentation."""
    link = {
        "title": "What it means, and what to do",
        "url": "${docs:raw}#${__value.raw:percentencode}",
        "targetBlank": True,
    }
    return column(name, links=[link], custom_width=width)

"""Dashboards and alert rules asked of a real database, their variables and macros put in as Grafana does."""

import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from grafana.__main__ import boards
from grafana.queries import Language

Json = dict[str, Any]
Choices = Mapping[str, tuple[str, ...]]
"""What is chosen of each variable; nothing is All."""

DATABASE = "ntpaudit"
MOST_POINTS = 400
"""About what a panel of half the screen's width asks for."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Span(NamedTuple):
    """The range that a dashboard shows."""

    begin_ms: int
    end_ms: int


class Answer(NamedTuple):
    """What came of one query: `columns`, tags and labels among them, and rows. `series` is what Grafana counts."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    series: int
    seconds: float

    def column(self, name: str) -> list[Any]:
        """Return all that stands in one column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


class Asked(NamedTuple):
    """A target, and where it stands."""

    board: str
    panel: str
    ref: str
    target: Json
    interval_s: int
    folded: bool


def panels(board: Json) -> Iterator[tuple[Json, bool]]:
    """Yield every panel but the headings, and whether it is in a row that is folded."""
    for panel in board["panels"]:
        if panel["type"] != "row":
            yield panel, False
        for inner in panel.get("panels", ()):
            yield inner, True


def targets(board: Json, name: str) -> Iterator[Asked]:
    """Yield every query of a dashboard, those of its annotations too."""
    for panel, folded in panels(board):
        for target in panel.get("targets", ()):
            yield Asked(name, panel["title"], target["refId"], target, _seconds(panel.get("interval", "1s")), folded)
    for note in board["annotations"]["list"]:
        query = note["target"]["query"] if "target" in note else None
        target = {"query": query} if query else {"expr": note["expr"], "range": True}
        yield Asked(name, f"annotation: {note['name']}", "A", target, 60, False)


def fill_in(text: str, language: Language, span: Span, interval_s: int, choices: Choices) -> str:
    """Put in what Grafana puts in before it asks."""
    begin, end = span
    values = {
        "$timeFilter": f"time >= {begin}ms and time <= {end}ms",
        "${__to}": str(end),
        "${__from}": str(begin),
        "$__interval_ms": str(interval_s * 1000),
        "$__interval": f"{interval_s}s",
        "$__range": f"{(end - begin) // 1000}s",
    }
    for name, value in values.items():
        text = text.replace(name, value)
    for name, chosen in sorted(choices.items(), reverse=True):  # `hosts` before `host`
        regex = _regex(chosen)
        quoted = regex.replace("\\", "\\\\") if language == "promql" else regex
        text = text.replace(f"${{{name}:regex}}", regex).replace(f"${{{name}:raw}}", chosen[0] if chosen else "")
        text = text.replace(f"${name}", quoted)
    if "$" in text.replace("$/", "").replace('$"', ""):  # what is left are the ends of regular expressions
        raise ValueError(f"nothing is put in for a variable of: {text}")
    return text


def _regex(chosen: tuple[str, ...]) -> str:
    if not chosen:
        return ".*"
    escaped = [re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", value) for value in chosen]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def ask(url: str, language: Language, target: Json, span: Span, interval_s: int, choices: Choices) -> Answer:
    """Ask one target. An answer that is an error raises."""
    step_s = max(interval_s, (span.end_ms - span.begin_ms) // 1000 // MOST_POINTS, 1)
    text = fill_in(target["query" if language == "influxql" else "expr"], language, span, step_s, choices)
    return ask_influxql(url, text) if language == "influxql" else ask_promql(url, text, target, span, step_s)


def ask_influxql(url: str, query: str) -> Answer:
    """Ask an InfluxDB."""
    begin = time.monotonic()
    found = _got(f"{url}/query", {"db": DATABASE, "q": query, "epoch": "ms"})["results"][0]
    seconds = time.monotonic() - begin
    if "error" in found:
        raise ValueError(f"{found['error']}: {query}")
    series = found.get("series", [])
    if not series:
        return Answer((), (), 0, seconds)
    tags = tuple(series[0].get("tags", {}))
    rows = [(*one.get("tags", {}).values(), *row) for one in series for row in one["values"]]
    return Answer((*tags, *series[0]["columns"]), tuple(rows), len(series), seconds)


def ask_promql(url: str, query: str, target: Json, span: Span, step_s: int) -> Answer:
    """Ask a VictoriaMetrics, at the end of the range or all along it."""
    begin = time.monotonic()
    end_s = span.end_ms / 1000
    if target.get("range"):
        asked = {"query": query, "start": span.begin_ms / 1000, "end": end_s, "step": step_s}
        found = _got(f"{url}/api/v1/query_range", asked)["data"]["result"]
    else:
        found = _got(f"{url}/api/v1/query", {"query": query, "time": end_s})["data"]["result"]
    seconds = time.monotonic() - begin
    labels = tuple(sorted({label for one in found for label in one["metric"]} - {"__name__"}))
    rows = [
        (*(one["metric"].get(label) for label in labels), float(at), float(value))
        for one in found
        for at, value in one.get("values", [one.get("value")])
    ]
    return Answer((*labels, "time", "value"), tuple(rows), len(found), seconds)


def _got(url: str, asked: Mapping[str, object]) -> Json:
    body = urllib.parse.urlencode(asked).encode()
    try:
        with urllib.request.urlopen(url, body, timeout=60) as got:
            answer: Json = json.load(got)
    except urllib.error.HTTPError as error:
        raise ValueError(f"{error.read().decode()}: {asked['q' if 'q' in asked else 'query']}") from error
    return answer


def _seconds(interval: str) -> int:
    return int(interval[:-1]) * _UNITS_S[interval[-1]]


def timed_targets(
    url: str, language: Language, span: Span, host: str, hosts: tuple[str, ...], long_range: bool = True
) -> list[tuple[str, str, str, float, int]]:
    """Ask every target of every dashboard once: dashboard, panel, reference, seconds, and series that came.

    `host` is the one that the dashboard Host shows, `hosts` those whose order is asked for. Without `long_range` rows
    that are folded are left out, as they are until somebody opens them.
    """
    choices: Choices = {"site": (), "env": (), "host": (host,), "hosts": hosts, "every": ("60",)}
    timed = []
    for name, board in boards(language).items():
        for asked in targets(board, name):
            if asked.folded and not long_range:
                continue
            answer = ask(url, language, asked.target, span, asked.interval_s, choices)
            timed.append((asked.board, asked.panel, asked.ref, answer.seconds, answer.series))
    return timed

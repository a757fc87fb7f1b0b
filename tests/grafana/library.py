"""What panels show, computed by Grafana's own library (@grafana/data) in one Node process for all of them."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from grafana.queries import SOURCES, Language
from tests.grafana.replay import DATABASE, Choices, Json, Span
from tests.world.node import GRAFANA, NODE, modules


class LibraryFailedError(Exception):
    """The Node process failed; the message holds its own."""


class Cell(NamedTuple):
    """One value as it is shown: its text, its colour, and the value itself."""

    text: str
    color: str | None
    value: Any = None


class Series(NamedTuple):
    """One line or band: moments in ms since 1970, values, its fixed colour, and the cells of a band.

    `segments` are the intervals in which the line has no gap.
    """

    times: tuple[int, ...]
    values: tuple[Any, ...]
    fixed: str | None
    segments: tuple[tuple[int, int], ...]
    cells: tuple[Cell, ...]


class Shown(NamedTuple):
    """A panel as it is shown. `empty` is the text of a panel without data, None where there is data.

    `values` are those of a stat or a bar gauge by title, `rows` those of a table in their order, `links` the addresses
    of each row by column. `errors` has refused queries, options that Grafana does not know, and what it logged.
    """

    title: str
    kind: str
    errors: tuple[str, ...]
    empty: str | None
    values: Mapping[str, Cell]
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Cell], ...]
    series: Mapping[str, Series]
    links: Mapping[str, tuple[tuple[str, ...], ...]]
    frames: int
    text: str
    raw: Json

    def column(self, name: str) -> list[str]:
        """Return the texts of one column of a table."""
        return [row[name].text for row in self.rows]


class Library:
    """A running Node process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def show(
        self,
        board: Json,
        language: Language,
        url: str,
        span: Span,
        choices: Choices,
        *,
        panels: tuple[str, ...] | None = None,
        database: str = DATABASE,
        raw: bool = False,
    ) -> dict[str, Shown]:
        """Return each panel of a dashboard, or those of these titles, as it is shown for a range."""
        request = {
            "board": board,
            "language": language,
            "url": url,
            "database": database,
            "range": {"from": span.begin_ms, "to": span.end_ms},
            "choices": {"datasource": [SOURCES[language]], **{name: one or None for name, one in choices.items()}},
            "panels": panels,
            "raw": raw,
        }
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"failure": "Node ended"}')
        if "failure" in answer:
            raise LibraryFailedError(answer["failure"])
        found = {one["title"]: _shown(one) for one in answer["panels"]}
        assert panels is None or set(panels) == set(found)
        return found


@contextmanager
def library() -> Iterator[Library]:
    """Start the process, and end it with the block."""
    environment = {**os.environ, "NODE_PATH": str(modules(GRAFANA))}
    command = [str(NODE), str(GRAFANA / "panels.cjs")]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        yield Library(process)
        assert process.stdin
        process.stdin.close()  # it ends at the end of its input
        process.wait(timeout=30)


def _shown(one: Json) -> Shown:
    columns = tuple(one.get("columns", ()))
    cells = [tuple(Cell(**cell) for cell in row) for row in one.get("rows", ())]
    titles = [value["title"] for value in one.get("values", ())]
    assert len(set(titles)) == len(titles), f"{one['title']}: two values have one title: {titles}"
    names = [series["name"] for series in one.get("series", ())]
    assert len(set(names)) == len(names), f"{one['title']}: two series have one name: {names}"
    return Shown(
        one["title"],
        one["type"],
        (*one["errors"], *(f"cannot sort by {name}" for name in one.get("unsortable", ()))),
        one.get("empty"),
        {value.pop("title"): Cell(**value) for value in one.get("values", ())},
        columns,
        tuple(dict(zip(columns, row, strict=True)) for row in cells),
        {
            series["name"]: Series(
                tuple(series["times"]),
                tuple(series["values"]),
                series["fixed"],
                tuple((begin, end) for begin, end in series["segments"]),
                tuple(Cell(**cell) for cell in series["cells"]),
            )
            for series in one.get("series", ())
        },
        {name: tuple(map(tuple, rows)) for name, rows in one.get("links", {}).items()},
        one.get("frames", 0),
        one.get("text", ""),
        one,
    )

"""A fleet in VictoriaMetrics, single node or cluster, queried in MetricsQL at Prometheus' API.

It stores each field as a metric of its own, with timestamps in milliseconds.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from ntpaudit.core.fleet.model import Host, TimeSpans
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import ReadError
from ntpaudit.fleet.decode import (
    CLOCK,
    MAX_TAG,
    TEXT_FIELDS,
    ClockRow,
    RawValue,
    Sighting,
    Table,
    count_of,
    mapping,
    names_of,
    number,
    several_of,
)
from ntpaudit.fleet.reader import DatabaseReader, Window
from ntpaudit.net.http import BUILD, start
from ntpaudit.render.text_safety import one_line, tag_value

_MS = 1_000_000
_FIRST_NS = 86_400_000 * _MS  # a query that looks back further than 1970 finds nothing
_MAX_LINE = 16 << 20  # in characters; a sample of each second of a day has 2 MiB
_MAX_NAMES_LENGTH = 12_000  # in bytes: a whole query may have 16 KiB
_STRING_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\"})
_REGEX_ESCAPES = str.maketrans({character: f"\\{character}" for character in r"\.+*?()|[]{}^$"})

# Older versions escape a label's value as JSON does, newer ones less: they leave tabs in it.
_LABEL = re.compile(r'([^"=,{}]+)=("(?:[^"\\]|\\.)*")')
_DECODE = json.JSONDecoder(strict=False).decode  # `json.loads` makes a decoder each time: 20 ms for 10,000 hosts

Sample = tuple[str, str, RawValue]  # the metric; labels and timestamp in milliseconds, as they are written; the value
SETTLED_S = 3.0  # a point is shown completely this long after its arrival: its fields appear one by one, each second
_STRANGE = "this is not a response of VictoriaMetrics"


class PromqlReader(DatabaseReader):
    """A database of the VictoriaMetrics family."""

    kind = "VictoriaMetrics"
    date_path = BUILD

    @property
    def described(self) -> str:
        """What is read, for messages."""
        return self.server.where

    def buckets(self, spans: TimeSpans, hosts: Sequence[str]) -> Iterator[Any]:
        """Read the number of an interval, a host, and its worst severity, mean, earliest and latest offset in it."""
        width = f"{spans.width_ns // _MS}ms"
        for conditions in self._conditions(None, hosts):
            severity, *offset = (
                self._range(
                    f"{total}({each}_over_time(ntpaudit_clock_{name}{{{conditions}}}[{width}])) by (host)",
                    spans,
                    "host",
                )
                for total, each, name in (
                    ("max", "max", "severity"),
                    ("avg", "avg", "offset_s"),
                    ("min", "min", "earliest_s"),
                    ("max", "max", "latest_s"),
                )
            )
            cells = [one() for one in offset]
            for (host, index), worst in severity().items():
                yield index, host, worst, *(one.get((host, index)) for one in cells)

    def tally(self, spans: TimeSpans, site: str | None) -> Iterator[Any]:
        """Read the number of an interval, a severity, and of how many hosts it was the worst."""
        (conditions,) = self._conditions(site, None)
        worst = f"max(max_over_time(ntpaudit_clock_severity{{{conditions}}}[{spans.width_ns // _MS}ms])) by (host)"
        counted = self._range(f'count_values("severity", {worst})', spans, "severity")()
        return ((index, severity, count_of(hosts)) for (severity, index), hosts in counted.items())

    def last(self, table: Table, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> list[Any]:
        """Read some fields of the last point of each series that has the first field.

        `/federate` returns the last sample of each metric with its time, in half the time of a query.
        """
        return self._points("/federate", table, window, hosts, fields)

    def every(self, table: Table, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> list[Any]:
        """Read some fields of all points that have the first field.

        Never with `reduce_mem_usage=1`, which is faster: while others read without it, VictoriaMetrics 1.79.5 returns
        one host's values under another host's name.
        """
        return self._points("/api/v1/export", table, window, hosts, fields)

    def ahead(self, window: Window) -> list[ClockRow]:
        """Read the last points in a time ahead of now, whole."""
        return _whole(lambda: self.last(CLOCK, window, None, CLOCK.fields))

    def at(self, rows: Iterable[ClockRow | Host]) -> list[ClockRow]:
        """Read all fields of these points, whole."""
        wanted = list(rows)
        return _whole(lambda: super(PromqlReader, self).at(wanted))

    def _points(
        self, path: str, table: Table, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]
    ) -> list[Any]:
        """Read all fields at once, so that no point arrives between two of them. It stores 0 for each text."""

        def read(parts: Iterator[bytes]) -> list[Any]:
            with self._understanding():
                samples = (_federated if path == "/federate" else _exported)(_lines(parts))
                return list(_rows(table, fields, window, samples))

        rows: list[Any] = []
        name = "__name__=~" + _quoted(f"{table.name}_(?:{'|'.join(one for one in fields if one not in TEXT_FIELDS)})")
        kinds = [f"kind=~{_quoted('|'.join(table.kinds))}"] if table.kinds else []
        for conditions in self._conditions(window.site, hosts, name, *kinds):
            parameters = {
                "match[]": f"{{{conditions}}}",
                "start": _begin(window),
                "end": _seconds(window.end_ns),
                "deny_partial_response": "1",
            }
            rows += self.server.ask_in_parts(path, parameters, read)
        return rows

    def several(self, window: Window, hosts: Sequence[str] | None) -> set[str]:
        """Read the names that have points from more than one place on the days of a time, or from the points.

        The index finds them in a third of the time, but not if it has more series than -search.maxSeries (30,000).
        """
        try:
            return several_of(self._places(window, hosts))
        except ReadError:
            return super().several(window, hosts)

    def origins(self, hosts: Sequence[str], end_ns: int) -> list[Sighting]:
        """Read from which places hosts ever reported, from the index: their points may be of years."""
        return self._places(Window(0, end_ns), hosts)

    def _places(self, window: Window, hosts: Sequence[str] | None) -> list[Sighting]:
        """Read from which places hosts reported on the days of a time."""
        found = map(mapping, self._index("/api/v1/series", self._conditions(None, hosts), window))
        return [Sighting(one.get("host"), one.get("site"), one.get("env"), 0) for one in found]

    def names(self, site: str | None) -> set[str]:
        """Read the names of all known hosts. ReadError if there are more than the database lists.

        It cuts a longer list silently, but then it lists another name when one is excluded.
        """
        for _ in range(2):  # a new host may report between the two queries
            names = self._listed("host", self._conditions(site, None))
            if not names:
                return set()
            one = min(filter(str.isprintable, names), default=None)
            if one is None or self._listed("host", self._conditions(site, None, f"host!={_quoted(one)}")) <= names:
                return names_of(names)
        raise self.server.failure(
            f"it has more hosts than the {len(names)} that it lists",
            "raise its -search.maxTagValues above the number of hosts, or read one site: --site",
        )

    def sites(self) -> set[str]:
        """Read the names of all known sites."""
        return names_of(self._listed("site", self._conditions(None, None)))

    def active(self, window: Window, hosts: Sequence[str] | None) -> set[str]:
        """Read the names of hosts with points on the days of a time, from the index of each day."""
        return names_of(self._listed("host", self._conditions(window.site, hosts), window))

    def _listed(self, label: str, conditions: Iterable[str], window: Window | None = None) -> set[str]:
        """Read the values of a label in a time, or ever."""
        found = self._index(f"/api/v1/label/{label}/values", conditions, window)
        return {value for value in found if isinstance(value, str) and len(value) <= MAX_TAG}

    def _index(self, path: str, conditions: Iterable[str], window: Window | None) -> Iterator[Any]:
        """Read a part of the index by the severity, which every point has: on the days of a time, or ever."""
        past_ns = max(time.time_ns(), self._database_ns()) + NS_PER_S  # past every clock
        begin, end_ns = ("1", past_ns) if window is None else (_begin(window), window.end_ns)
        for one in conditions:
            match = f"ntpaudit_clock_severity{{{one}}}"
            found = self._data(path, {"match[]": match, "start": begin, "end": _seconds(end_ns)})
            if not isinstance(found, list):
                raise self.server.strange(_STRANGE)
            yield from found

    def settled_ns(self) -> int:
        """Return the time until which every point is shown completely."""
        return self._database_ns() - round(SETTLED_S * NS_PER_S)

    def _database_ns(self) -> int:
        """Return the time of the database's clock, within a second."""
        return time.time_ns() + round((self.server.skew_s or 0.0) * NS_PER_S)

    def _conditions(self, site: str | None, hosts: Sequence[str] | None, *more: str) -> Iterator[str]:
        """Write the conditions on the site, the environment and the hosts, in as many parts as queries need."""
        labels = (("site", site), ("env", self.env))
        fixed = [*more, *(f"{label}={_quoted(tag_value(value))}" for label, value in labels if value is not None)]
        if hosts is None:
            yield ",".join(fixed)
            return
        parts: list[str] = []
        for pattern in (one_line(host).translate(_REGEX_ESCAPES) for host in hosts):
            if parts and len(parts[-1].encode()) + len(pattern.encode()) < _MAX_NAMES_LENGTH:
                parts[-1] += f"|{pattern}"
            else:
                parts.append(pattern)
        for part in parts:
            yield ",".join([*fixed, "host=~" + _quoted(part)])

    def _range(self, query: str, spans: TimeSpans, name: str) -> Callable[[], dict[tuple[RawValue, int], RawValue]]:
        """Start to read a value for each interval: at its end, less the millisecond that belongs to the next one.

        Intervals before 1970 are left out: with them it finds nothing.
        """
        first = max(0, -((spans.begin_ns - _FIRST_NS) // spans.width_ns))
        parameters = {
            "query": query,
            "start": _seconds(spans.begin_ns + (first + 1) * spans.width_ns - _MS),
            "end": _seconds(spans.end_ns - _MS),
            "step": f"{spans.width_ns // _MS}ms",
        }

        def read() -> dict[tuple[RawValue, int], RawValue]:
            with self._understanding():
                return {
                    (one["metric"].get(name), (round(stamp_s * 1000) * _MS - spans.begin_ns) // spans.width_ns): value
                    for one in self._data("/api/v1/query_range", parameters)["result"]
                    for written_s, value in one["values"]
                    if (stamp_s := number(written_s)) is not None
                }

        return start(read)

    @contextmanager
    def _understanding(self) -> Iterator[None]:
        """Raise ReadError if a reply has another structure than expected."""
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise self.server.strange(_STRANGE) from error

    def _data(self, path: str, parameters: Mapping[str, str]) -> Any:
        """Return the data of a reply. ReadError if it is invalid or incomplete."""
        answer = self.server.ask(path, {**parameters, "nocache": "1"})  # the cache lacks the newest half minute
        try:
            reply = mapping(json.loads(answer))
        except (ValueError, RecursionError) as error:
            raise self.server.strange("the response is not JSON") from error
        if reply.get("status") != "success":
            raise self.server.strange(reply.get("error") or _STRANGE)
        if reply.get("isPartial"):
            raise self.server.failure(
                "the response lacks data of a part of the cluster", "check that every vmstorage runs"
            )
        return reply.get("data")


def _lines(parts: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a reply. ValueError if one is longer than that of any series: it is copied several times."""
    rest = b""
    for part in parts:
        lines, newline, rest = (rest + part).rpartition(b"\n")
        if newline:
            yield from lines.decode().split("\n")
        if len(rest) > _MAX_LINE:
            raise ValueError("a line is too long")
    if rest:
        yield rest.decode()


def _federated(lines: Iterable[str]) -> Iterator[Sample]:
    """Yield the samples of a reply in the text format of Prometheus. ValueError for a line of another form."""
    for line in lines:
        written, value, stamp = line.rsplit(" ", 2)
        metric, _, labels = written.partition("{")
        if labels:  # a series without labels is of no host
            yield metric, f"{labels} {stamp}", value


def _exported(lines: Iterable[str]) -> Iterator[Sample]:
    """Yield the samples of a reply in JSON lines."""
    for line in lines:
        one = json.loads(line)
        metric = one["metric"].pop("__name__")
        labels = json.dumps(one["metric"])
        for stamp, value in zip(one["timestamps"], one["values"], strict=True):
            yield metric, f"{labels} {stamp}", value


def _rows(table: Table, fields: Sequence[str], window: Window, samples: Iterable[Sample]) -> Iterator[Any]:
    """Yield a row for each sample of the first field, with the samples of the other fields at the same time."""
    columns: dict[str, dict[str, RawValue]] = {f"{table.name}_{field}": {} for field in table.fields}
    for metric, key, value in samples:
        column = columns[metric]
        if (other := column.setdefault(key, value)) is not value:
            column[key] = max(other, value, key=repr)  # whatever the order of the lines
    keys = columns[f"{table.name}_{fields[0]}"]
    for key, *cells in zip(keys, *(map(column.get, keys) for column in columns.values()), strict=True):
        written, _, stamp = key.rpartition(" ")
        stamp_ns = int(stamp) * _MS
        if window.holds(stamp_ns):
            yield table.row._make((*map(_labels(written).get, table.tags), stamp_ns, *cells))


@lru_cache(maxsize=1 << 17)
def _labels(written: str) -> Mapping[str, RawValue]:
    """Parse labels, from JSON or up to the brace that ends them in the text format. ValueError if they are none.

    The cache spares 50 ms: a host has the same labels in each reply (10,000 hosts).
    """
    if written.startswith("{"):
        return mapping(_DECODE(written))
    found = _LABEL.findall(written)
    if ",".join([f"{name}={quoted}" for name, quoted in found]) + "}" != written:
        raise ValueError("these are no labels")
    return {name: _DECODE(quoted) if "\\" in quoted else quoted[1:-1] for name, quoted in found}


def _whole(read: Callable[[], list[ClockRow]]) -> list[ClockRow]:
    """Read points; once more, later, if some that just arrived are not shown completely yet.

    These lack what every point has, or a part of their offset.
    """
    rows = read()
    if all(
        row.severity is not None
        and row.usable is not None
        and [row.offset_s, row.earliest_s, row.latest_s].count(None) in (0, 3)
        for row in rows
    ):
        return rows
    time.sleep(SETTLED_S)
    return read()


def _begin(window: Window) -> str:
    """Write the first millisecond of a window; never 0, which would mean none."""
    return _seconds(max(0, window.begin_ns) + _MS)


def _quoted(text: str) -> str:
    """Write a string of MetricsQL."""
    return f'"{text.translate(_STRING_ESCAPES)}"'


def _seconds(stamp_ns: int) -> str:
    """Write a timestamp in seconds, cut to the millisecond."""
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns // _MS % 1000:03}"

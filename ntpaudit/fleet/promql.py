"""A fleet in VictoriaMetrics, single node or cluster, asked in MetricsQL at Prometheus' API.

It keeps a field as a metric of its own, and stamps to the millisecond.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat
from operator import attrgetter
from typing import Any, NamedTuple

from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM
from ntpaudit.core.fleet.model import Alarm, SeverityCounts, TimeBucket, TimeSpans, split
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import ReadError
from ntpaudit.fleet.decode import (
    CLOCK_FIELDS,
    ClockRow,
    Counted,
    EventRow,
    RawValue,
    Sighting,
    SourceRow,
    bucket_of,
    count_of,
    count_severities,
    mapping,
    names_of,
    number,
    several_of,
    steps_of,
)
from ntpaudit.fleet.snapshot_query import MAX_NAMES, DatabaseReader, Points, Window
from ntpaudit.net.http import BUILD, Kind, start
from ntpaudit.render.text_safety import one_line, tag_value

_MS = 1_000_000
_FIRST_NS = 86_400_000 * _MS  # it looks back a little further than it is asked to, and before 1970 it finds nothing
_MAX_NAMES_LENGTH = 12_000  # in bytes: a whole question may have 16 KiB
_STRING_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\"})
_REGEX_ESCAPES = str.maketrans({character: f"\\{character}" for character in r"\.+*?()|[]{}^$"})

# A label's value is escaped as in JSON by older versions, as in the text format by newer ones: that leaves tabs in it.
_LABEL = re.compile(r'([^"=,{}]+)=("(?:[^"\\]|\\.)*")')
_AS_JSON = r'"\1":\2'

_SHAPE = re.compile(r'[^"=,{}]+=(?:,[^"=,{}]+=)*}')

Key = tuple[RawValue, ...]
"""The labels that tell one series of a metric from another, by their values."""

Sample = tuple[str, str]
"""What, and when in milliseconds, as they are written."""

Samples = Callable[[], Mapping[str, Sample]]
"""Samples that are being read, by their labels as they are written: called, it waits for them."""

SETTLED_S = 3.0
"""So long after it came every point is shown whole: a database shows a field after another one, about once a second."""

_BUNCH_MS = 120_000
_SLACK_MS = 10  # it leaves out what lies at the very begin of a time

_WHOSE = ("host", "site", "env")
_OF_EVENT = (*_WHOSE, "kind")
_BEGIN = attrgetter("begin_ns")


class Measurement(NamedTuple):
    """Points of one kind: the labels that are read of them, the host's first, and their fields."""

    name: str
    labels: Sequence[str]
    fields: Sequence[str]


class Asked(NamedTuple):
    """Samples of some fields that are being read of points in a time."""

    measurement: Measurement
    window: Window
    samples: Mapping[str, Samples]


_CLOCK = Measurement("ntpaudit_clock", _WHOSE, CLOCK_FIELDS)
_EVENT = Measurement("ntpaudit_event", ("host", "kind"), ("raised", "severity", "value_s", "disputed_s"))
_SOURCE = Measurement("ntpaudit_source", ("host", "source"), ("status", "offset_s"))


class PromqlReader(DatabaseReader):
    """A database of the VictoriaMetrics family."""

    @property
    def place(self) -> str:
        """What is read from, in words."""
        return self.server.where

    @property
    def kind(self) -> Kind:
        """What is read from, by its family."""
        return "VictoriaMetrics"

    @property
    def doorbell(self) -> str:
        """Where an answer costs least."""
        return BUILD

    def host_series(
        self, hosts: Sequence[str], begin_ns: int, end_ns: int, count: int
    ) -> Mapping[str, tuple[TimeBucket, ...]]:
        """Read how hosts fared over a period in so many spans of equal length; spans without a point are left out."""
        spans = split(begin_ns, end_ns, count)
        courses: dict[str, list[TimeBucket]] = {host: [] for host in hosts}
        for those in self._selectors(None, hosts):
            severity, *offset = (
                self._range(
                    f"{total}({each}_over_time(ntpaudit_clock_{name}{those}{_span(spans)})) by (host)", spans, "host"
                )
                for total, each, name in (
                    ("max", "max", "severity"),
                    ("avg", "avg", "offset_s"),
                    ("min", "min", "earliest_s"),
                    ("max", "max", "latest_s"),
                )
            )
            cells = [one() for one in offset]
            for (host, place), worst in severity().items():
                if isinstance(host, str) and host in courses and 0 <= place < spans.spans:
                    begin_ns = spans.begin_ns + place * spans.width_ns
                    courses[host].append(bucket_of(begin_ns, worst, *(one.get((host, place)) for one in cells)))
        return {host: tuple(sorted(buckets, key=_BEGIN)) for host, buckets in courses.items()}

    def tallies(self, begin_ns: int, end_ns: int, count: int, site: str | None = None) -> tuple[SeverityCounts, ...]:
        """Read how the fleet fared over a period in so many spans of equal length. Slow over many hosts."""
        spans = split(begin_ns, end_ns, count)
        worst = f"max(max_over_time(ntpaudit_clock_severity{self._selector(site)}{_span(spans)})) by (host)"
        counted = self._range(f'count_values("severity", {worst})', spans, "severity")()
        return count_severities(
            spans,
            ((place, severity, count_of(hosts)) for (severity, place), hosts in counted.items()),
        )

    def steps(self, begin_ns: int, end_ns: int, site: str | None = None) -> tuple[Alarm, ...]:
        """Read every step that hosts told of in a period."""
        window = Window(begin_ns, end_ns, site)
        those = self._selector(site, kinds=STEP_KINDS)
        told = self._all("ntpaudit_event_raised", those, window)()  # and then what each of them has for certain
        others = [self._all(f"ntpaudit_event_{name}", those, window) for name in ("severity", "value_s")]
        severities, values = (one() for one in others)
        return steps_of(
            EventRow(key[0], key[3], stamp * _MS, said, severities.get((key, stamp)), values.get((key, stamp)))
            for (key, stamp), said in told.items()
        )

    def points(self, window: Window, fields: Sequence[str]) -> Points:
        """Begin to read some fields of the last point of each host in a short time that has the first of them."""
        asked = self._ask(_CLOCK, window, self._selector(window.site), fields)
        first = asked.samples[fields[0]]
        return Points(
            lambda: (name for (name,) in self._labels(first(), ("host",))),
            lambda: map(ClockRow._make, self._rows(asked)),
        )

    def latest(self, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterator[ClockRow]:
        """Read the same of hosts in a long time."""
        for those in self._selectors(window.site, hosts):
            yield from map(ClockRow._make, self._rows(self._ask(_CLOCK, window, those, fields)))

    def disputed(self, window: Window, fields: Sequence[str]) -> Iterator[ClockRow]:
        """Read some fields of the last point of each host that is disputed; later ones of it may not be.

        Such a point may have come just now, however old its stamp is.
        """
        window = self._settled(window)
        samples = self._last("ntpaudit_clock_disputed_s", window, self._selector(window.site))()
        names = (name for (name,) in self._labels(samples, ("host",)))
        stamps = sorted((int(stamp), name) for name, (_, stamp) in zip(names, samples.values(), strict=True))
        for together in _bunches(stamps):
            (first, _), (last, _) = together[0], together[-1]
            hosts = sorted({name for _, name in together if isinstance(name, str)})
            span = Window((first - _SLACK_MS) * _MS, last * _MS, window.site)
            asked = hosts if len(hosts) <= MAX_NAMES else None
            rows = self.every(span, asked, fields)
            wanted = frozenset(together)
            yield from (row for row in rows if (row.last_ns // _MS, row.name) in wanted and row.disputed_s is not None)

    def ahead(self, window: Window, fields: Sequence[str]) -> Iterator[ClockRow]:
        """Read some fields of the last points in a time that is yet to come, some of which have come just now."""
        yield from self._whole(lambda: self.latest(window, None, fields))

    def _whole(self, ask: Callable[[], Iterable[ClockRow]]) -> list[ClockRow]:
        """Read points that may have come just now: once more, where some are not shown whole yet."""
        rows = list(ask())
        if not any(map(_is_inconsistent, rows)):
            return rows
        time.sleep(SETTLED_S)
        return list(ask())

    def every(self, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterator[ClockRow]:
        """Read some fields of every point of hosts in a short time, but for what has just come."""
        window = self._settled(window)
        yield from self._whole(lambda: self._every(window, hosts, fields))

    def _every(self, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterator[ClockRow]:
        """Read every point of hosts as far as it is shown."""
        for those in self._selectors(window.site, hosts):
            first, *others = (self._all(f"ntpaudit_clock_{name}", those, window, _WHOSE) for name in fields)
            points = first()
            columns = [points, *(one() for one in others)]
            for key, stamp in points:
                values = {name: column.get((key, stamp)) for name, column in zip(fields, columns, strict=True)}
                yield ClockRow._make((*key[:3], stamp * _MS, *(values.get(name) for name in CLOCK_FIELDS)))

    def counts(self, spans: TimeSpans, site: str | None, hosts: Sequence[str]) -> Iterator[Counted]:
        """Count the points of hosts by their stamps."""
        for those in self._selectors(site, hosts):
            points, disputed, least = (
                self._range(
                    f"{total}({each}_over_time(ntpaudit_clock_{name}{those}{_span(spans)})) by (host)", spans, "host"
                )
                for total, each, name in (
                    ("sum", "count", "severity"),
                    ("sum", "count", "disputed_s"),
                    ("min", "min", "disputed_s"),
                )
            )
            counted, least_s = disputed(), least()
            for (host, place), count in points().items():
                if 0 <= place < spans.spans:
                    yield Counted(host, place, count, counted.get((host, place)), least_s.get((host, place)))

    def drifting(self, window: Window) -> Iterator[tuple[RawValue, RawValue]]:
        """Read which hosts may drift by more than `MAX_DRIFT_PPM`."""
        those = f"ntpaudit_clock_max_drift_ppm{self._selector(window.site)}{_back(window)}"
        query = f"max(max_over_time({those})) by (host) > {MAX_DRIFT_PPM}"
        with self._understanding():
            for one in self._results("/api/v1/query", {"query": query, "time": _seconds(window.end_ns)}):
                yield _label(one["metric"], "host"), one["value"][1]

    def several(self, window: Window, hosts: Sequence[str] | None) -> set[str]:
        """Read the names that points came under from more than one place, on the days that a time lies in.

        That is known from the index, which costs a fraction of a look at all points. It does not tell of more than
        -search.maxSeries (30,000), and then these are looked at.
        """
        found: set[str] = set()
        for those in self._selectors(window.site, hosts):
            try:
                found |= several_of(self._series(those, _begin(window), window))
            except ReadError:
                places = f"count(last_over_time(ntpaudit_clock_severity{those}{_back(window)})) by (host) > 1"
                found.update(self._named(places, window))
        return found

    def trail(self, window: Window, hosts: Sequence[str] | None) -> Iterator[Sighting]:
        """Read whenever hosts reported, and from where."""
        for those in self._selectors(window.site, hosts):
            lines = self._exported("severity", window, those).removesuffix("\n")
            with self._understanding():
                signs = [
                    Sighting(labels.get("host"), labels.get("site"), labels.get("env"), stamp * _MS)
                    for one in map(json.loads, lines.split("\n") if lines else ())
                    for labels in [one["metric"]]
                    for stamp in one["timestamps"]
                    if type(stamp) is int
                ]
            yield from (sign for sign in signs if window.holds(sign.stamp_ns))

    def origins(self, window: Window, hosts: Sequence[str]) -> Iterator[Sighting]:
        """Read from where hosts ever reported until the end of a time."""
        for those in self._selectors(window.site, hosts):
            yield from self._series(those, "1", window)

    def _series(self, those: str, begin: str, window: Window) -> list[Sighting]:
        """Read who reported from where in a time, from the labels alone, which have no stamp."""
        asked = {"match[]": f"ntpaudit_clock_severity{those}", "start": begin, "end": _seconds(window.end_ns)}
        match self._data("/api/v1/series", asked):
            case [*found]:
                labels = [mapping(one) for one in found]
                return [Sighting(one.get("host"), one.get("site"), one.get("env"), 0) for one in labels]
        raise self.server.strange(_STRANGE)

    def events(self, window: Window, hosts: Sequence[str] | None) -> Iterator[EventRow]:
        """Read the last event of each host and kind, of each place that the host was at; ended ones too."""
        for those in self._selectors(window.site, hosts):
            yield from map(EventRow._make, self._rows(self._ask(_EVENT, window, those, _EVENT.fields[:3])))

    def disputed_events(self, window: Window, hosts: Sequence[str] | None) -> Iterator[EventRow]:
        """Read when the last disputed event of each host and kind is stamped."""
        for part in self._parts(window):
            for those in self._selectors(part.site, hosts):
                yield from map(EventRow._make, self._rows(self._ask(_EVENT, part, those, ("disputed_s",))))

    def every_event(self, window: Window, hosts: Sequence[str] | None) -> Iterator[EventRow]:
        """Read every event of hosts in a time, and whether it is disputed, but for what has just come."""
        for part in self._parts(window):
            for those in self._selectors(part.site, hosts):
                raised = self._all("ntpaudit_event_raised", those, part)()  # and then what each has for certain
                others = [self._all(f"ntpaudit_event_{name}", those, part) for name in _EVENT.fields[1:]]
                columns = [one() for one in others]
                for event, said in raised.items():
                    (host, _, _, kind, *_), stamp = event
                    yield EventRow(host, kind, stamp * _MS, said, *(column.get(event) for column in columns))

    def _parts(self, window: Window) -> Iterator[Window]:
        """Divide a time at now: of what is before, that is left out which has just come."""
        now_ns = self._database_ns()
        yield window._replace(end_ns=min(window.end_ns, now_ns - round(SETTLED_S * NS_PER_S)))
        if window.end_ns > now_ns:
            yield window._replace(begin_ns=max(window.begin_ns, now_ns))

    def sources(self, window: Window, hosts: Sequence[str] | None) -> Iterator[SourceRow]:
        """Read what every source of hosts said last."""
        for those in self._selectors(window.site, hosts):
            yield from map(SourceRow._make, self._rows(self._ask(_SOURCE, window, those, _SOURCE.fields)))

    def names(self, site: str | None) -> set[str]:
        """Read every name of a host that is known. ReadError where there are more than the database tells.

        It cuts a longer list without a word, but then there is still one too many if one of them is left out.
        """
        ever = "1", _seconds(max(time.time_ns(), self._database_ns()) + NS_PER_S)
        for _ in range(2):  # a new host may come between the two questions
            names = self._hosts(self._selector(site), *ever)
            if not names:
                return set()
            one = min(filter(str.isprintable, names), default=None)
            if one is None or self._hosts(self._selector(site, but=one), *ever) <= names:
                return names_of(names)
        raise self.server.failure(
            f"it has more hosts than the {len(names)} that it lists",
            "raise its -search.maxTagValues above the number of hosts, or read one site: --site",
        )

    def active(self, window: Window, hosts: Sequence[str] | None) -> set[str]:
        """Read the names of the days that a time lies in, from the index of each."""
        return names_of(
            cell
            for those in self._selectors(window.site, hosts)
            for cell in self._hosts(those, _begin(window), _seconds(window.end_ns))
        )

    def sites(self) -> set[str]:
        """Read the name of every site that is known."""
        end = _seconds(max(time.time_ns(), self._database_ns()) + NS_PER_S)
        return names_of(self._hosts(self._selector(None), "1", end, "site"))

    def _hosts(self, those: str, begin: str, end: str, label: str = "host") -> set[str]:
        """Read the names of all hosts in a time, or the values of another label."""
        asked = {"match[]": f"ntpaudit_clock_severity{those}", "start": begin, "end": end}
        match self._data(f"/api/v1/label/{label}/values", asked):
            case [*names]:
                return {name for name in names if isinstance(name, str)}
        raise self.server.strange(_STRANGE)

    def _database_ns(self) -> int:
        """Return the time of the database's clock, within a second."""
        return time.time_ns() + round((self.server.skew_s or 0.0) * NS_PER_S)

    def _ask(self, measurement: Measurement, window: Window, those: str, fields: Sequence[str]) -> Asked:
        """Begin to read the last sample of some fields of each series in a time, but for what has just come.

        The others are asked for once the first is there: what came late meanwhile they have, and it has not.
        """
        first, *others = fields
        window = self._settled(window)
        samples = {first: self._last(f"{measurement.name}_{first}", window, those)}
        for name in others:
            samples[name] = self._last(f"{measurement.name}_{name}", window, those, after=samples[first])
        return Asked(measurement, window, samples)

    def _settled(self, window: Window) -> Window:
        """Leave out what has just come, and may not be shown whole; of a time that is yet to come nothing is."""
        settled_ns = self._database_ns() - round(SETTLED_S * NS_PER_S)
        return window if window.begin_ns >= settled_ns else window._replace(end_ns=min(window.end_ns, settled_ns))

    def _last(self, metric: str, window: Window, those: str, after: Samples | None = None) -> Samples:
        """Begin to read the last sample of each series in a time, as scrapes of one server by another get it.

        That costs less than a query: nothing is computed, or put in order, and the answer is short. Where no series
        has the field `after` which it is asked for, none has this one at the same moment.
        """

        def read() -> Mapping[str, Sample]:
            if after is not None and not after():
                return {}
            with self._understanding():
                return _cut(self.server.ask("/federate", _those(metric, window, those)).decode(), metric, window)

        return start(read)

    def _rows(self, asked: Asked) -> list[tuple[Any, ...]]:
        """Wait for the samples, and return of each series of the first field its labels, its stamp and all fields.

        What is not asked for is None. A host of which a later point came meanwhile is read once more.
        """
        rows, torn = self._together(asked)
        if not torn:
            return rows
        measurement, window, samples = asked
        again = [
            row
            for those in self._selectors(window.site, sorted(torn) if len(torn) <= MAX_NAMES else None)
            for row in self._together(self._ask(measurement, window, those, [*samples]))[0]
            if row[0] in torn
        ]
        read = {row[0] for row in again}
        return [*(row for row in rows if row[0] not in read), *again]

    def _together(self, asked: Asked) -> tuple[list[tuple[Any, ...]], set[str]]:
        """Return the same, of each field the sample of the same stamp, and the hosts of which a field has a later one.

        Of those the point of that stamp is no longer to be had, and of the later one a part is missing.
        """
        measurement, _, samples = asked
        series = next(iter(samples.values()))()
        labels = self._labels(series, measurement.labels)
        stamps = [stamp for _, stamp in series.values()]
        columns: list[Iterable[str | None]] = []
        torn: set[str] = set()
        for name in measurement.fields:
            if name not in samples:
                columns.append(repeat(None))
                continue
            found = samples[name]()
            columns.append(_column(found, series, stamps))
            torn.update(host for place in _later(found, series, stamps) if isinstance(host := labels[place][0], str))
        rows = zip(*zip(*labels, strict=True), [int(stamp) * _MS for stamp in stamps], *columns, strict=False)
        return list(rows), torn

    def _labels(self, series: Iterable[str], names: Sequence[str]) -> list[list[RawValue]]:
        """Return the labels of those names of every series, which come as they are written."""
        with self._understanding():
            return _labels_in(series, names)

    def _exported(self, name: str, window: Window, those: str) -> str:
        """Read all samples of a field in a short time, as lines.

        Never with `reduce_mem_usage=1`, though it is quicker: where anybody asks for samples without it too, buffers
        are written to that are in use, and one host's values come under another one's name (VictoriaMetrics 1.79.5).
        """
        with self._understanding():
            return self.server.ask("/api/v1/export", _those(f"ntpaudit_clock_{name}", window, those)).decode()

    def _selectors(self, site: str | None, hosts: Sequence[str] | None) -> Iterator[str]:
        """Write selectors of hosts, in as many parts as questions may be long; of all at once where none are named."""
        if hosts is None:
            yield self._selector(site)
            return
        part: list[str] = []
        length = 0
        for host in hosts:
            added = len(_pattern(host).encode()) + 1
            if part and length + added > _MAX_NAMES_LENGTH:
                yield self._selector(site, part)
                part, length = [], 0
            part.append(host)
            length += added
        if part:
            yield self._selector(site, part)

    def _selector(
        self, site: str | None, hosts: Sequence[str] = (), but: str | None = None, kinds: Sequence[str] = ()
    ) -> str:
        """Write which series are meant: of a site and the environment, of some hosts or all but one, of some kinds."""
        conditions = [
            f"{label}={_quoted(tag_value(value))}"
            for label, value in (("site", site), ("env", self.env))
            if value is not None
        ]
        if hosts:
            conditions.append("host=~" + _quoted("|".join(map(_pattern, hosts))))
        if but is not None:
            conditions.append(f"host!={_quoted(but)}")
        if kinds:
            conditions.append("kind=~" + _quoted("|".join(map(_pattern, kinds))))
        return "{" + ",".join(conditions) + "}"

    def _named(self, query: str, window: Window) -> set[str]:
        """Read the names of the hosts that a query is true of at the end of a time."""
        with self._understanding():
            results = self._results("/api/v1/query", {"query": query, "time": _seconds(window.end_ns)})
            return names_of(one["metric"].get("host") for one in results)

    def _all(
        self, metric: str, those: str, window: Window, labels: Sequence[str] = _OF_EVENT
    ) -> Callable[[], dict[tuple[Key, int], RawValue]]:
        """Begin to read all samples of series in a time, by their labels and their stamp."""

        def read() -> dict[tuple[Key, int], RawValue]:
            asked = {"query": f"{metric}{those}{_back(window)}", "time": _seconds(window.end_ns)}
            with self._understanding():
                return {
                    (_key(one["metric"], labels), stamp): value
                    for one in self._results("/api/v1/query", asked)
                    for stamp_s, value in one["values"]
                    if (stamp := _ms(stamp_s)) is not None and window.holds(stamp * _MS)
                }

        return start(read)

    def _range(self, query: str, spans: TimeSpans, name: str) -> Callable[[], dict[tuple[RawValue, int], RawValue]]:
        """Begin to read a value for each span: at its end, less the millisecond that belongs to the next.

        Those that begin before the database can are left out: with them it answers nothing.
        """
        first = max(0, -((spans.begin_ns - _FIRST_NS) // spans.width_ns))
        asked = {
            "query": query,
            "start": _seconds(spans.begin_ns + (first + 1) * spans.width_ns - _MS),
            "end": _seconds(spans.end_ns - _MS),
            "step": f"{spans.width_ns // _MS}ms",
        }

        def read() -> dict[tuple[RawValue, int], RawValue]:
            with self._understanding():
                return {
                    (
                        _label(one["metric"], name),
                        (stamp * _MS - spans.begin_ns) // spans.width_ns,
                    ): value
                    for one in self._results("/api/v1/query_range", asked)
                    for stamp_s, value in one["values"]
                    if (stamp := _ms(stamp_s)) is not None
                }

        return start(read)

    def _read(self, answer: bytes) -> Any:
        """Return JSON as a value."""
        try:
            return json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise self.server.strange("the response is not JSON") from error

    def _results(self, path: str, parameters: Mapping[str, str]) -> list[Any]:
        """Return the series of an answer."""
        match self._data(path, parameters):
            case {"result": [*results]}:
                return results
        raise self.server.strange(_STRANGE)

    @contextmanager
    def _understanding(self) -> Iterator[None]:
        """Raise ReadError where an answer is not made as it should be."""
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise self.server.strange(_STRANGE) from error

    def _data(self, path: str, parameters: Mapping[str, str]) -> RawValue:
        """Return what an answer holds. ReadError where it is no answer, or not a whole one."""
        answer = self.server.ask(path, {**parameters, "nocache": "1"})  # or the newest half minute is held back
        said = mapping(self._read(answer))
        if said.get("status") != "success":
            raise self.server.strange(said.get("error") or _STRANGE)
        if said.get("isPartial"):
            raise self.server.failure(
                "the response lacks data of a part of the cluster", "check that every vmstorage runs"
            )
        return said.get("data")


_STRANGE = "this is not a response of VictoriaMetrics"


def _bunches(stamps: Sequence[tuple[int, RawValue]]) -> Iterator[Sequence[tuple[int, RawValue]]]:
    """Divide stamps in order, in milliseconds, where two are far apart, so that each part spans little time."""
    begin = 0
    for place in range(1, len(stamps) + 1):
        if place == len(stamps) or stamps[place][0] - stamps[begin][0] > _BUNCH_MS:
            yield stamps[begin:place]
            begin = place


def _is_inconsistent(row: ClockRow) -> bool:
    """Whether a point lacks what every point has, or a part of its offset."""
    offset = (row.offset_s, row.earliest_s, row.latest_s)
    return row.severity is None or row.usable is None or (None in offset and offset != (None, None, None))


def _those(metric: str, window: Window, those: str) -> dict[str, str]:
    """Write which samples are meant. What lacks a part of a cluster is no answer."""
    return {
        "match[]": f"{metric}{those}",
        "start": _begin(window),
        "end": _seconds(window.end_ns),
        "deny_partial_response": "1",
    }


def _begin(window: Window) -> str:
    """Write the first millisecond of a time. It is never 0, which is taken for none."""
    return _seconds(max(0, window.begin_ns) + _MS)


def _cut(lines: str, metric: str, window: Window) -> dict[str, Sample]:
    """Return the last sample in a time of each series in the text format of Prometheus, by its labels as written there.

    They are written alike in every metric: so they need to be understood only once, which would take most of the time.
    What has no labels is nobody's. ValueError where a line is made otherwise.
    """
    body = lines.removesuffix("\n")
    if f"\n{metric} " in f"\n{body}":
        body = "\n".join(line for line in body.split("\n") if not line.startswith(f"{metric} "))
    parts = f"\n{body}".split(f"\n{metric}{{")[1:]
    if body and len(parts) != body.count("\n") + 1:
        raise ValueError
    rows = [part.rsplit(" ", 2) for part in parts]
    begin_ms, end_ms = window.begin_ns // _MS, window.end_ns // _MS
    samples = {labels: (value, stamp) for labels, value, stamp in rows if begin_ms < int(stamp) <= end_ms}
    if len(samples) < len(rows):  # of a series that comes in several lines the latest counts, whatever their order
        samples.clear()
        for labels, value, stamp in rows:
            if begin_ms < int(stamp) <= end_ms:
                samples[labels] = max(samples.get(labels, (value, stamp)), (value, stamp), key=_recency)
    return samples


def _recency(sample: Sample) -> tuple[int, str]:
    """Return by what the last of several samples is chosen: of two at one moment always the same."""
    return int(sample[1]), sample[0]


def _labels_in(series: Iterable[str], names: Sequence[str]) -> list[list[RawValue]]:
    """Return the labels of those names of every series, None for one that it lacks; they come as they are written.

    ValueError where they are not written as labels are.
    """
    found: list[list[RawValue]] = []
    shapes: dict[tuple[str, ...], list[int]] = {}
    for one in series:
        if "\\" in one:
            labels = json.loads(f"{{{_LABEL.sub(_AS_JSON, one)}", strict=False)
            found.append([_label(labels, name) for name in names])
            continue
        words = one.split('"')
        shape = tuple(words[::2])
        if (places := shapes.get(shape)) is None:  # nearly all are of one shape
            places = shapes[shape] = _places(shape, names)
        found.append([words[place] if place else None for place in places])
    return found


def _places(shape: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return where among the words of a series the labels of those names stand, by what is around its labels.

    0 for one that it lacks. ValueError where that is not what it should be.
    """
    if _SHAPE.fullmatch("".join(shape)) is None:
        raise ValueError
    labels = [word.strip(",=") for word in shape]
    return [2 * labels.index(name) + 1 if name in labels else 0 for name in names]


def _column(samples: Mapping[str, Sample], series: Iterable[str], stamps: Iterable[str]) -> list[str | None]:
    """Return of every series the sample of a field that has its stamp, None where there is none."""
    return [
        sample[0] if (sample := samples.get(key)) is not None and sample[1] == stamp else None
        for key, stamp in zip(series, stamps, strict=True)
    ]


def _later(samples: Mapping[str, Sample], series: Iterable[str], stamps: Iterable[str]) -> list[int]:
    """Return the places of those series of which a field has a later sample."""
    return [
        place
        for place, (key, stamp) in enumerate(zip(series, stamps, strict=True))
        if (sample := samples.get(key)) is not None and sample[1] != stamp and int(sample[1]) > int(stamp)
    ]


def _key(labels: Mapping[str, RawValue], names: Sequence[str]) -> tuple[RawValue, ...]:
    """Return what tells a series from others: its labels of those names, and whatever a relay has added to them."""
    own = tuple([_label(labels, name) for name in names])
    if len(labels) == len(own) + ("__name__" in labels) and None not in own:
        return own
    return *own, *sorted((name, str(labels[name])) for name in labels.keys() - names - {"__name__"})


def _label(labels: Mapping[str, RawValue], name: str) -> RawValue:
    """Return a label of a series, None for one that is no text."""
    value = labels.get(name)
    return value if isinstance(value, str) else None


def _pattern(text: str) -> str:
    """Write the regular expression that matches a label's value alone."""
    return one_line(text).translate(_REGEX_ESCAPES)


def _quoted(text: str) -> str:
    """Write a text as a string of MetricsQL."""
    return f'"{text.translate(_STRING_ESCAPES)}"'


def _back(window: Window) -> str:
    """Write the length of a time, as far as the database looks back."""
    return f"[{window.end_ns // _MS - max(_FIRST_NS, window.begin_ns) // _MS}ms]"


def _span(spans: TimeSpans) -> str:
    """Write the length of each span."""
    return f"[{spans.width_ns // _MS}ms]"


def _seconds(stamp_ns: int) -> str:
    """Write a stamp as seconds, cut to the millisecond."""
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns // _MS % 1000:03}"


def _ms(stamp_s: RawValue) -> int | None:
    """Return a stamp that was told in seconds in milliseconds, None where it is none."""
    value = number(stamp_s)
    return round(value * 1000) if value is not None else None

"""A fleet in VictoriaMetrics, single node or cluster, asked in MetricsQL at Prometheus' API.

It keeps a field as a metric of its own, and stamps to the millisecond.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ntpaudit.core.fleet import Bucket, Snapshot, Tally
from ntpaudit.fleet.http import Server, start
from ntpaudit.fleet.questions import Window, take_snapshot
from ntpaudit.fleet.reader import Reach
from ntpaudit.fleet.rows import Cell, Clock, Happening, Said, Spans, bucket_of, count_of, mapping, number, split, tally

_MS = 1_000_000
_MAX_NAMES_LENGTH = 4000  # in bytes: a whole question may have 16 KiB, and names them up to three times
_STRING_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\", "\n": r"\n"})
_REGEX_ESCAPES = str.maketrans({character: f"\\{character}" for character in r"\.+*?()|[]{}^$"})

_OFFSET = ("offset_s", "earliest_s", "latest_s")

Key = tuple[Cell, ...]
"""The labels that tell one series of a metric from another."""

Sample = tuple[int, Cell]
"""When, and what."""

_WHOSE = ("host", "site", "env")


class PromqlReader:
    """A database of the VictoriaMetrics family."""

    def __init__(self, server: Server) -> None:
        """Make ready; nothing is asked yet."""
        self._server = server

    @property
    def place(self) -> str:
        """What is read from, in words."""
        return self._server.where

    def now_ns(self) -> int:
        """Return the time of this host's clock."""
        return time.time_ns()

    def snapshot(self, now_ns: int, reach: Reach) -> Snapshot:
        """Read every host as it stood at a moment."""
        return take_snapshot(self, now_ns, reach)

    def courses(self, hosts: Sequence[str], begin_ns: int, end_ns: int, count: int) -> Mapping[str, tuple[Bucket, ...]]:
        """Read how hosts fared over a period in so many spans of equal length; spans without a point are left out."""
        spans = split(begin_ns, end_ns, count)
        courses: dict[str, list[Bucket]] = {host: [] for host in hosts}
        for those in _selectors(None, hosts):
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
                if isinstance(host, str) and host in courses:
                    begin_ns = spans.begin_ns + place * spans.width_ns
                    courses[host].append(bucket_of(begin_ns, worst, *(one.get((host, place)) for one in cells)))
        return {host: tuple(sorted(buckets)) for host, buckets in courses.items()}

    def tallies(self, begin_ns: int, end_ns: int, count: int, site: str | None = None) -> tuple[Tally, ...]:
        """Read how the fleet fared over a period in so many spans of equal length. Slow over many hosts."""
        spans = split(begin_ns, end_ns, count)
        worst = f"max(max_over_time(ntpaudit_clock_severity{_selector(site)}{_span(spans)})) by (host)"
        counted = self._range(f'count_values("severity", {worst})', spans, "severity")()
        return tally(
            spans,
            ((place, severity) for (severity, place), hosts in counted.items() for _ in range(count_of(hosts))),
        )

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def points(self, window: Window) -> Iterator[Clock]:
        """Read the latest point of each host in a short time."""
        those = _selector(window.site)
        return self._clocks(start(lambda: self._samples("ntpaudit_clock_severity", those, window)), those, window)

    def latest(self, window: Window, hosts: Sequence[str] | None) -> Iterator[Clock]:
        """Read the latest point of hosts in a long time."""
        for those in _selectors(window.site, hosts):
            yield from self._clocks(self._stamped("ntpaudit_clock_severity", those, window), those, window)

    def offsets(self, window: Window) -> Iterator[Clock]:
        """Read the last point of each host that has an offset."""
        those = _selector(window.site)
        estimate, earliest, latest = (self._last(f"ntpaudit_clock_{name}", those, window) for name in _OFFSET)
        estimates, begins, ends = estimate(), earliest(), latest()
        for key, cell in estimates.items():
            yield Clock(key[0], key[1], key[2], 0, None, None, cell, begins.get(key), ends.get(key))

    def events(self, window: Window) -> Iterator[Happening]:
        """Read the last event of each host and kind where that is one of raising."""
        those, labels = _selector(window.site), (*_WHOSE, "kind")
        is_raised = f"and last_over_time(ntpaudit_event_raised{those}{_back(window)}) == 1"
        since = self._stamps("ntpaudit_event_raised", those, window, labels, is_raised)
        severity = self._last("ntpaudit_event_severity", those, window, labels, is_raised)
        value = self._last(
            "ntpaudit_event_value_s",
            those,
            window,
            labels,
            f"{_as_new_as('value_s', 'raised', 'event', those, window)} {is_raised}",
        )
        severities, values = severity(), value()
        for key, stamp_ns in since().items():
            yield Happening(key[0], key[3], stamp_ns, 1, severities.get(key), values.get(key))

    def sources(self, window: Window, hosts: Sequence[str] | None) -> Iterator[Said]:
        """Read what every source of hosts said last."""
        labels = (*_WHOSE, "source")
        for those in _selectors(window.site, hosts):
            offset = self._last("ntpaudit_source_offset_s", those, window, labels)
            statuses = self._stamped("ntpaudit_source_status", those, window, labels)()
            offsets = offset()
            for key, (stamp_ns, status) in statuses.items():
                yield Said(key[0], key[3], stamp_ns, status, offsets.get(key))

    def details(self, window: Window, hosts: Sequence[str] | None) -> Mapping[str, tuple[Cell, Cell]]:
        """Read `age_s` and `frequency_ppm` of hosts, where their latest points have them."""
        found: dict[str, tuple[Cell, Cell]] = {}
        for those in _selectors(None, hosts):
            age, frequency = (
                self._last(
                    f"ntpaudit_clock_{name}",
                    those,
                    window,
                    _WHOSE,
                    _as_new_as(name, "severity", "clock", those, window),
                )
                for name in ("age_s", "frequency_ppm")
            )
            ages, frequencies = age(), frequency()
            for key in ages.keys() | frequencies.keys():
                if isinstance(key[0], str):
                    found[key[0]] = (ages.get(key), frequencies.get(key))
        return found

    def names(self, site: str | None) -> set[str]:
        """Read every name of a host that is known."""
        labelled = {"match[]": f"ntpaudit_clock_severity{_selector(site)}"}
        ever = {"start": "1", "end": str(time.time_ns() // 1_000_000_000)}
        match self._data("/api/v1/label/host/values", labelled | ever):
            case [*names]:
                return {name for name in names if isinstance(name, str)}
        raise self._server.failure(_STRANGE)

    def _clocks(self, severity: Callable[[], Mapping[Key, Sample]], those: str, window: Window) -> Iterator[Clock]:
        """Yield points whose severity and stamp are being read; what is mostly 0 is asked for only where it is not."""
        offset = [self._last(f"ntpaudit_clock_{name}", those, window) for name in _OFFSET]
        usable = self._last("ntpaudit_clock_usable", those, window)
        scarce = [
            self._last(f"ntpaudit_clock_{name}", those, window, _WHOSE, "!= 0")
            for name in ("verdict", "falsetickers", "findings")
        ]
        estimates, begins, ends = (one() for one in offset)
        usables, (verdicts, falsetickers, findings) = usable(), (one() for one in scarce)
        for key, (stamp_ns, worst) in severity().items():
            yield Clock(
                key[0],
                key[1],
                key[2],
                stamp_ns,
                worst,
                verdicts.get(key, 0),
                estimates.get(key),
                begins.get(key),
                ends.get(key),
                None,
                None,
                usables.get(key),
                falsetickers.get(key),
                findings.get(key),
            )

    def _samples(self, metric: str, those: str, window: Window) -> dict[Key, Sample]:
        """Read the last sample of every series in a short time, of which all of them are told."""
        samples: dict[Key, Sample] = {}
        with self._understanding():
            for one in self._results("/api/v1/query", _at(f"{metric}{those}{_back(window)}", window)):
                stamp_s, value = one["values"][-1]
                if (stamp_ns := _ns(stamp_s)) is not None:
                    samples[tuple(map(one["metric"].get, _WHOSE))] = stamp_ns, value
        return samples

    def _stamped(
        self, metric: str, those: str, window: Window, names: Sequence[str] = _WHOSE
    ) -> Callable[[], dict[Key, Sample]]:
        """Begin to read the last sample of every series in a long time."""
        stamp, value = self._stamps(metric, those, window, names), self._last(metric, those, window, names)

        def wait() -> dict[Key, Sample]:
            values = value()
            return {key: (stamp_ns, values.get(key)) for key, stamp_ns in stamp().items()}

        return wait

    def _stamps(
        self, metric: str, those: str, window: Window, names: Sequence[str], condition: str = ""
    ) -> Callable[[], dict[Key, int]]:
        """Begin to read when the last sample of every series was."""
        asked = f"tlast_over_time({metric}{those}{_back(window)}) {condition}"

        def read() -> dict[Key, int]:
            stamps = ((key, _ns(stamp_s)) for key, stamp_s in self._vector(asked, window, names).items())
            return {key: stamp_ns for key, stamp_ns in stamps if stamp_ns is not None}

        return start(read)

    def _last(
        self, metric: str, those: str, window: Window, names: Sequence[str] = _WHOSE, condition: str = ""
    ) -> Callable[[], dict[Key, Cell]]:
        """Begin to read the last value of every series, where a condition holds."""
        asked = f"last_over_time({metric}{those}{_back(window)}) {condition}"
        return start(lambda: self._vector(asked, window, names))

    def _vector(self, query: str, window: Window, names: Sequence[str]) -> dict[Key, Cell]:
        """Read one value of every series at the end of a time, by the labels of those names."""
        with self._understanding():
            results = self._results("/api/v1/query", _at(query, window))
            return {tuple(map(one["metric"].get, names)): one["value"][1] for one in results}

    def _range(self, query: str, spans: Spans, name: str) -> Callable[[], dict[tuple[Cell, int], Cell]]:
        """Begin to read a value for each span: at its end, less the millisecond that belongs to the next."""
        asked = {
            "query": query,
            "start": _seconds(spans.begin_ns + spans.width_ns - _MS),
            "end": _seconds(spans.end_ns - _MS),
            "step": f"{spans.width_ns // _MS}ms",
        }

        def read() -> dict[tuple[Cell, int], Cell]:
            with self._understanding():
                return {
                    (one["metric"].get(name), ((_ns(stamp_s) or 0) + _MS - spans.begin_ns) // spans.width_ns - 1): value
                    for one in self._results("/api/v1/query_range", asked)
                    for stamp_s, value in one["values"]
                }

        return start(read)

    def _results(self, path: str, parameters: Mapping[str, str]) -> list[Any]:
        """Return the series of an answer."""
        match self._data(path, parameters):
            case {"result": [*results]}:
                return results
        raise self._server.failure(_STRANGE)

    @contextmanager
    def _understanding(self) -> Iterator[None]:
        """Raise ReadError where an answer is not made as it should be."""
        try:
            yield
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._server.failure(_STRANGE) from error

    def _data(self, path: str, parameters: Mapping[str, str]) -> Cell:
        """Return what an answer holds. ReadError where it is no answer, or not a whole one."""
        answer = self._server.ask(path, {**parameters, "nocache": "1"})  # or the newest half minute is held back
        try:
            said = mapping(json.loads(answer))
        except (ValueError, RecursionError) as error:
            raise self._server.failure("the answer is not JSON") from error
        if said.get("status") != "success":
            raise self._server.failure(said.get("error") or _STRANGE)
        if said.get("isPartial"):
            raise self._server.failure(
                "the answer lacks what a part of the cluster holds", "see that every vmstorage runs"
            )
        return said.get("data")


_STRANGE = "the answer is none of VictoriaMetrics'"


def _at(query: str, window: Window) -> dict[str, str]:
    """Return the parameters of a question about the end of a time."""
    return {"query": query, "time": _seconds(window.end_ns)}


def _selectors(site: str | None, hosts: Sequence[str] | None) -> Iterator[str]:
    """Write selectors of hosts, in as many parts as questions may be long; of all at once where none are named."""
    if hosts is None:
        yield _selector(site)
        return
    part: list[str] = []
    length = 0
    for host in hosts:
        added = len(_pattern(host).encode()) + 1
        if part and length + added > _MAX_NAMES_LENGTH:
            yield _selector(site, part)
            part, length = [], 0
        part.append(host)
        length += added
    if part:
        yield _selector(site, part)


def _selector(site: str | None, hosts: Sequence[str] = ()) -> str:
    """Write which series are meant: those of a site, and of some hosts where any are named."""
    conditions = [] if site is None else [f"site={_quoted(site)}"]
    if hosts:
        conditions.append("host=~" + _quoted("|".join(map(_pattern, hosts))))
    return "{" + ",".join(conditions) + "}"


def _pattern(text: str) -> str:
    """Write the regular expression that a text alone matches."""
    return text.translate(_REGEX_ESCAPES)


def _quoted(text: str) -> str:
    """Write a text as a string of MetricsQL."""
    return f'"{text.translate(_STRING_ESCAPES)}"'


def _back(window: Window) -> str:
    """Write the length of a time."""
    return f"[{window.end_ns // _MS - window.begin_ns // _MS}ms]"


def _span(spans: Spans) -> str:
    """Write the length of each span."""
    return f"[{spans.width_ns // _MS}ms]"


def _as_new_as(name: str, other: str, measurement: str, those: str, window: Window) -> str:
    """Write the condition that a field is of the same point as another that every point has."""
    one, two = (f"tlast_over_time(ntpaudit_{measurement}_{field}{those}{_back(window)})" for field in (name, other))
    return f"and {one} == {two}"


def _seconds(stamp_ns: int) -> str:
    """Write a stamp as seconds, cut to the millisecond."""
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns // _MS % 1000:03}"


def _ns(stamp_s: Cell) -> int | None:
    """Return a stamp that was told in seconds with milliseconds, None where it is none."""
    value = number(stamp_s)
    return round(value * 1000) * _MS if value is not None and abs(value) < _MAX_S else None


_MAX_S = 1e10

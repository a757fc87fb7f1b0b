"""A fleet in VictoriaMetrics, single node or cluster, asked in MetricsQL at Prometheus' API.

It keeps a field as a metric of its own, and stamps to the millisecond.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any

from ntpaudit.core.fleet import STEP_KINDS, Alarm, Bucket, Tally
from ntpaudit.fleet.http import BUILD, Kind, start
from ntpaudit.fleet.questions import Remote, Window
from ntpaudit.fleet.rows import (
    Cell,
    Clock,
    Happening,
    Said,
    Sign,
    Spans,
    bucket_of,
    count_of,
    mapping,
    number,
    split,
    steps_of,
    tally,
    text,
)
from ntpaudit.sinks.line_protocol import tag_value

_MS = 1_000_000
_FIRST_NS = 86_400_000 * _MS  # it looks back a little further than it is asked to, and before 1970 it finds nothing
_MAX_NAMES_LENGTH = 12_000  # in bytes: a whole question may have 16 KiB
_STRING_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\"})
_REGEX_ESCAPES = str.maketrans({character: f"\\{character}" for character in r"\.+*?()|[]{}^$"})

# A label's value is escaped as in JSON by older versions, as in the text format by newer ones: that leaves tabs in it.
_LABEL = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*")')
_AS_JSON = r'"\1":\2'

_ENDS = ("earliest_s", "latest_s")

Key = str | tuple[Cell, ...]
"""The labels that tell one series of a metric from another: some by their values, or all as they are written."""

Sample = tuple[int, Cell]
"""When, in milliseconds, and what."""

Samples = Callable[[], Mapping[Key, Sample]]
"""Samples that are being read: called, it waits for them."""

_WHOSE = ("host", "site", "env")
_OF_EVENT = (*_WHOSE, "kind")
_BEGIN = attrgetter("begin_ns")


class PromqlReader(Remote):
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

    def courses(self, hosts: Sequence[str], begin_ns: int, end_ns: int, count: int) -> Mapping[str, tuple[Bucket, ...]]:
        """Read how hosts fared over a period in so many spans of equal length; spans without a point are left out."""
        spans = split(begin_ns, end_ns, count)
        courses: dict[str, list[Bucket]] = {host: [] for host in hosts}
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

    def tallies(self, begin_ns: int, end_ns: int, count: int, site: str | None = None) -> tuple[Tally, ...]:
        """Read how the fleet fared over a period in so many spans of equal length. Slow over many hosts."""
        spans = split(begin_ns, end_ns, count)
        worst = f"max(max_over_time(ntpaudit_clock_severity{self._selector(site)}{_span(spans)})) by (host)"
        counted = self._range(f'count_values("severity", {worst})', spans, "severity")()
        return tally(
            spans,
            ((place, severity, count_of(hosts)) for (severity, place), hosts in counted.items()),
        )

    def steps(self, begin_ns: int, end_ns: int, site: str | None = None) -> tuple[Alarm, ...]:
        """Read every step that hosts told of in a period."""
        window = Window(begin_ns, end_ns, site)
        those = self._selector(site, kinds=STEP_KINDS)
        raised, *others = (
            self._all(f"ntpaudit_event_{name}", those, window) for name in ("raised", "severity", "value_s")
        )
        told, (severities, values) = raised(), (one() for one in others)
        return steps_of(
            Happening(key[0], key[3], stamp * _MS, said, severities.get((key, stamp)), values.get((key, stamp)))
            for (key, stamp), said in told.items()
        )

    def points(self, window: Window, fields: Sequence[str]) -> Iterator[Clock]:
        """Read the latest point of each host in a short time."""
        return self._clocks({name: self._federated(name, window) for name in fields})

    def latest(self, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterator[Clock]:
        """Read the latest point of hosts in a long time."""
        for those in self._selectors(window.site, hosts):
            yield from self._clocks(
                {name: self._stamped(f"ntpaudit_clock_{name}", those, window, _WHOSE) for name in fields}
            )

    def offsets(self, window: Window) -> Iterator[Clock]:
        """Read what holds the last offset of each host in a short time."""
        return self._offsets({name: self._federated(name, window) for name in _ENDS})

    def latest_offsets(self, window: Window, hosts: Sequence[str] | None) -> Iterator[Clock]:
        """Read what holds the last offset of hosts in a long time."""
        for those in self._selectors(window.site, hosts):
            yield from self._offsets(
                {name: self._stamped(f"ntpaudit_clock_{name}", those, window, _WHOSE) for name in _ENDS}
            )

    def several(self, window: Window, hosts: Sequence[str] | None) -> set[str]:
        """Read the names that points came under from more than one place."""
        found: set[str] = set()
        for those in self._selectors(window.site, hosts):
            places = f"count(last_over_time(ntpaudit_clock_severity{those}{_back(window)})) by (host) > 1"
            names = (text(key[0]) for key in self._vector(places, window, ("host",)))
            found.update(name for name in names if name is not None)
        return found

    def trail(self, window: Window, hosts: Sequence[str] | None) -> Iterator[Sign]:
        """Read whenever hosts reported, and from where."""
        for those in self._selectors(window.site, hosts):
            lines = self._exported("severity", window, those).removesuffix("\n")
            with self._understanding():
                signs = [
                    Sign(labels.get("host"), labels.get("site"), labels.get("env"), stamp * _MS)
                    for one in map(json.loads, lines.split("\n") if lines else ())
                    for labels in [one["metric"]]
                    for stamp in one["timestamps"]
                    if type(stamp) is int
                ]
            yield from (sign for sign in signs if window.holds(sign.stamp_ns))

    def origins(self, window: Window, hosts: Sequence[str]) -> Iterator[Sign]:
        """Read from where hosts ever reported until the end of a time, from the labels alone: they have no stamp."""
        ever = {"start": "1", "end": _seconds(window.end_ns)}
        for those in self._selectors(window.site, hosts):
            match self._data("/api/v1/series", {"match[]": f"ntpaudit_clock_severity{those}"} | ever):
                case [*found]:
                    labels = [mapping(one) for one in found]
                case _:
                    raise self.server.strange(_STRANGE)
            yield from (Sign(one.get("host"), one.get("site"), one.get("env"), 0) for one in labels)

    def events(self, window: Window, hosts: Sequence[str] | None) -> Iterator[Happening]:
        """Read the last event of each host and kind, of each place that the host was at; ended ones too."""
        labels = _OF_EVENT
        for those in self._selectors(window.site, hosts):
            raised = self._stamped("ntpaudit_event_raised", those, window, labels)
            of_raised = f"and last_over_time(ntpaudit_event_raised{those}{_back(window)}) == 1"
            severity, value = (
                self._stamped(f"ntpaudit_event_{name}", those, window, labels, of_raised)
                for name in ("severity", "value_s")
            )
            severities, values = severity(), value()
            for key, (stamp, was_raised) in raised().items():
                yield Happening(
                    key[0], key[3], stamp * _MS, was_raised, _of(severities, key, stamp), _of(values, key, stamp)
                )

    def sources(self, window: Window, hosts: Sequence[str] | None) -> Iterator[Said]:
        """Read what every source of hosts said last."""
        labels = (*_WHOSE, "source")
        for those in self._selectors(window.site, hosts):
            status, offset = (
                self._stamped(f"ntpaudit_source_{name}", those, window, labels) for name in ("status", "offset_s")
            )
            offsets = offset()
            for key, (stamp, said) in status().items():
                yield Said(key[0], key[3], stamp * _MS, said, _of(offsets, key, stamp))

    def names(self, site: str | None) -> set[str]:
        """Read every name of a host that is known. ReadError where there are more than the database tells.

        It cuts a longer list without a word, but then there is still one too many if one of them is left out.
        """
        for _ in range(2):  # a new host may come between the two questions
            names = self._labels(self._selector(site))
            if not names:
                return set()
            one = min(filter(str.isprintable, names), default=None)
            if one is None or self._labels(self._selector(site, but=one)) <= names:
                return {name for cell in names if (name := text(cell)) is not None}
        raise self.server.failure(
            f"it knows more hosts than the {len(names)} that it names",
            "raise its -search.maxTagValues above the number of hosts, or ask for one site: --site",
        )

    def _labels(self, those: str) -> set[str]:
        """Read the names of all hosts that ever were."""
        ever = {"start": "1", "end": str(self._database_s())}
        match self._data("/api/v1/label/host/values", {"match[]": f"ntpaudit_clock_severity{those}"} | ever):
            case [*names]:
                return {name for name in names if isinstance(name, str)}
        raise self.server.strange(_STRANGE)

    def _database_s(self) -> int:
        """Return the time in whole seconds, of the later of this machine's clock and the database's."""
        return int(time.time() + max(0.0, self.server.skew_s or 0.0)) + 1

    def _federated(self, name: str, window: Window) -> Samples:
        """Begin to read the last sample of a field in a short time, as scrapes of one server by another get it.

        That costs less than a query: nothing is computed, or put in order, and the answer is short.
        """

        def read() -> Mapping[Key, Sample]:
            with self._understanding():
                lines = self.server.ask("/federate", self._those(name, window, self._selector(window.site))).decode()
                return _cut(lines, f"ntpaudit_clock_{name}", window)

        return start(read)

    def _exported(self, name: str, window: Window, those: str) -> str:
        """Read all samples of a field in a short time, as lines.

        Never with `reduce_mem_usage=1`, though it is quicker: where anybody asks for samples without it too, buffers
        are written to that are in use, and one host's values come under another one's name (VictoriaMetrics 1.79.5).
        """
        with self._understanding():
            return self.server.ask("/api/v1/export", self._those(name, window, those)).decode()

    def _those(self, name: str, window: Window, those: str) -> dict[str, str]:
        """Write which samples are meant."""
        return {
            "match[]": f"ntpaudit_clock_{name}{those}",
            "start": _seconds(window.begin_ns + _MS),
            "end": _seconds(window.end_ns),
        }

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

    def _stamped(self, metric: str, those: str, window: Window, names: Sequence[str], condition: str = "") -> Samples:
        """Begin to read the last sample of every series in a long time, where a condition holds."""
        stamp, value = (
            start(partial(self._vector, f"{last}_over_time({metric}{those}{_back(window)}) {condition}", window, names))
            for last in ("tlast", "last")
        )

        def wait() -> dict[Key, Sample]:
            values = value()
            stamps = ((key, _ms(stamp_s)) for key, stamp_s in stamp().items())
            return {key: (stamp, values.get(key)) for key, stamp in stamps if stamp and window.holds(stamp * _MS)}

        return wait

    def _clocks(self, fields: Mapping[str, Samples]) -> Iterator[Clock]:
        """Yield the points whose fields are being read: each has a severity, and of the others what has its stamp."""
        severities, *others = (samples() for samples in fields.values())
        for whose, (key, (stamp, severity)) in zip(self._whose(severities), severities.items(), strict=True):
            cells = [
                sample[1] if (sample := samples.get(key)) is not None and sample[0] == stamp else None  # `_of`, at once
                for samples in others
            ]
            yield Clock(*whose, stamp * _MS, severity, *cells)

    def _offsets(self, fields: Mapping[str, Samples]) -> Iterator[Clock]:
        """Yield what holds the offsets, whose two ends are being read."""
        earliest, latest = (samples() for samples in fields.values())
        for whose, (key, (stamp, end)) in zip(self._whose(earliest), earliest.items(), strict=True):
            yield Clock(*whose, stamp * _MS, None, None, None, end, _of(latest, key, stamp))

    def _whose(self, keys: Iterable[Key]) -> list[tuple[Cell, Cell, Cell]]:
        """Return host, site and environment of series by their keys, which are all of one kind."""
        written = [key for key in keys if isinstance(key, str)]
        if not written:
            return [(key[0], key[1], key[2]) for key in keys]
        with self._understanding():
            whose = [
                (labels.get("host"), labels.get("site"), labels.get("env"))
                for labels in json.loads(f"[{{{_LABEL.sub(_AS_JSON, '},{'.join(written))}}}]", strict=False)
            ]
            if len(whose) != len(written):
                raise ValueError
        return whose

    def _vector(self, query: str, window: Window, names: Sequence[str]) -> dict[Key, Cell]:
        """Read one value of every series at the end of a time, by the labels of those names, and then all others."""
        with self._understanding():
            results = self._results("/api/v1/query", {"query": query, "time": _seconds(window.end_ns)})
            return {_key(one["metric"], names): one["value"][1] for one in results}

    def _all(self, metric: str, those: str, window: Window) -> Callable[[], dict[tuple[Key, int], Cell]]:
        """Begin to read all samples of the series of events in a time, by their labels and their stamp."""

        def read() -> dict[tuple[Key, int], Cell]:
            asked = {"query": f"{metric}{those}{_back(window)}", "time": _seconds(window.end_ns)}
            with self._understanding():
                return {
                    (_key(one["metric"], _OF_EVENT), stamp): value
                    for one in self._results("/api/v1/query", asked)
                    for stamp_s, value in one["values"]
                    if (stamp := _ms(stamp_s)) is not None and window.holds(stamp * _MS)
                }

        return start(read)

    def _range(self, query: str, spans: Spans, name: str) -> Callable[[], dict[tuple[Cell, int], Cell]]:
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

        def read() -> dict[tuple[Cell, int], Cell]:
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
            raise self.server.strange("the answer is not JSON") from error

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

    def _data(self, path: str, parameters: Mapping[str, str]) -> Cell:
        """Return what an answer holds. ReadError where it is no answer, or not a whole one."""
        answer = self.server.ask(path, {**parameters, "nocache": "1"})  # or the newest half minute is held back
        said = mapping(self._read(answer))
        if said.get("status") != "success":
            raise self.server.strange(said.get("error") or _STRANGE)
        if said.get("isPartial"):
            raise self.server.failure(
                "the answer lacks what a part of the cluster holds", "see that every vmstorage runs"
            )
        return said.get("data")


_STRANGE = "the answer is none of VictoriaMetrics'"


def _cut(lines: str, metric: str, window: Window) -> dict[Key, tuple[int, str]]:
    """Return the last sample of every series in the text format of Prometheus, by its labels as they are written there.

    They are written alike in every metric: so they need to be understood only once, which would take most of the time.
    ValueError where a line is made otherwise.
    """
    begin = f"{metric}{{"
    samples: dict[Key, tuple[int, str]] = {}
    begin_ms, end_ms = window.begin_ns // _MS, window.end_ns // _MS
    for line in lines.removesuffix("\n").split("\n") if lines else ():
        labels, value, stamp_ms = line.rsplit(" ", 2)
        if not (labels.startswith(begin) and labels.endswith("}")):
            raise ValueError
        stamp = int(stamp_ms)
        if begin_ms < stamp <= end_ms:
            key, sample = labels[len(begin) : -1], (stamp, value)
            if (other := samples.get(key)) is None or other < sample:  # whatever the order that lines come in
                samples[key] = sample
    return samples


def _of(samples: Mapping[Key, Sample], key: Key, stamp: int) -> Cell:
    """Return what a series has at that stamp, None where its last sample is another."""
    sample = samples.get(key)
    return sample[1] if sample is not None and sample[0] == stamp else None


def _key(labels: Mapping[str, Cell], names: Sequence[str]) -> tuple[Cell, ...]:
    """Return what tells a series from others: its labels of those names, and whatever a relay has added to them."""
    own = tuple([_label(labels, name) for name in names])
    if len(labels) == len(own) + ("__name__" in labels) and None not in own:
        return own
    return *own, *sorted((name, str(labels[name])) for name in labels.keys() - names - {"__name__"})


def _label(labels: Mapping[str, Cell], name: str) -> Cell:
    """Return a label of a series, None for one that is no text."""
    value = labels.get(name)
    return value if isinstance(value, str) else None


def _pattern(text: str) -> str:
    """Write the regular expression that a tag's value alone matches."""
    return tag_value(text).translate(_REGEX_ESCAPES)


def _quoted(text: str) -> str:
    """Write a text as a string of MetricsQL."""
    return f'"{text.translate(_STRING_ESCAPES)}"'


def _back(window: Window) -> str:
    """Write the length of a time, as far as the database looks back."""
    return f"[{window.end_ns // _MS - max(_FIRST_NS, window.begin_ns) // _MS}ms]"


def _span(spans: Spans) -> str:
    """Write the length of each span."""
    return f"[{spans.width_ns // _MS}ms]"


def _seconds(stamp_ns: int) -> str:
    """Write a stamp as seconds, cut to the millisecond."""
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns // _MS % 1000:03}"


def _ms(stamp_s: Cell) -> int | None:
    """Return a stamp that was told in seconds in milliseconds, None where it is none."""
    value = number(stamp_s)
    return round(value * 1000) if value is not None else None

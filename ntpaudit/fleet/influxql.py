"""A fleet in InfluxDB 1.x, 2.x or 3.x, asked in the InfluxQL that all three of them understand."""
# ruff: noqa: S608  # a foreign text goes into a statement by _quoted alone

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter

from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM
from ntpaudit.core.fleet.model import Alarm, SeverityCounts, TimeBucket, TimeSpans, split
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
    count_severities,
    mapping,
    names_of,
    several_of,
    steps_of,
    text,
)
from ntpaudit.fleet.snapshot_query import MAX_NAMES, DatabaseReader, Points, Window
from ntpaudit.net.http import AGAIN, Kind, Server, start
from ntpaudit.render.text_safety import tag_value

_MS = 1_000_000

_WHOSE = '"host", "site", "env"'

_HOST = re.compile(r"(?<!\\),host=((?:[^\\,]|\\.)*)")
_ESCAPED = re.compile(r"\\([, =])")

Row = tuple[RawValue, ...]


class InfluxqlReader(DatabaseReader):
    """A database, or a bucket, of the InfluxDB family."""

    def __init__(self, server: Server, database: str, env: str | None = None) -> None:
        """Make ready; nothing is asked yet."""
        super().__init__(server, env)
        self._database = database

    @property
    def place(self) -> str:
        """What is read from, in words."""
        return f"database {self._database!r} at {self.server.where}"

    @property
    def kind(self) -> Kind:
        """What is read from, by its family."""
        return "InfluxDB"

    @property
    def doorbell(self) -> str:
        """Where an answer costs least."""
        return "/ping"

    def host_series(
        self, hosts: Sequence[str], begin_ns: int, end_ns: int, count: int
    ) -> Mapping[str, tuple[TimeBucket, ...]]:
        """Read how hosts fared over a period in so many spans of equal length; spans without a point are left out."""
        spans = split(begin_ns, end_ns, count)
        courses: dict[str, list[TimeBucket]] = {host: [] for host in hosts}
        for part in range(0, len(hosts), MAX_NAMES):
            rows = self._rows(
                'SELECT max("severity") AS "severity", mean("offset_s") AS "mean_s", min("earliest_s") AS "earliest_s",'
                f' max("latest_s") AS "latest_s" FROM "ntpaudit_clock" WHERE {_within(spans)}{self._and()}'
                f'{_and_any_of(hosts[part : part + MAX_NAMES])} GROUP BY {_by(spans)}, "host" FILL(none)',
                ("host", "time", "severity", "mean_s", "earliest_s", "latest_s"),
            )
            for host, stamp_ns, *cells in rows:
                if isinstance(host, str) and host in courses and (place := _place(spans, stamp_ns)) is not None:
                    courses[host].append(bucket_of(spans.begin_ns + place * spans.width_ns, *cells))
        return {host: tuple(sorted(buckets, key=_BEGIN)) for host, buckets in courses.items()}

    def tallies(self, begin_ns: int, end_ns: int, count: int, site: str | None = None) -> tuple[SeverityCounts, ...]:
        """Read how the fleet fared over a period in so many spans of equal length. Slow over many hosts."""
        spans = split(begin_ns, end_ns, count)
        rows = self._rows(
            f'SELECT max("severity") AS "severity" FROM "ntpaudit_clock" WHERE {_within(spans)}{self._and(site)}'
            f' GROUP BY {_by(spans)}, "host" FILL(none)',
            ("time", "severity"),
        )
        places = ((_place(spans, stamp_ns), severity) for stamp_ns, severity in rows)
        return count_severities(spans, ((place, severity, 1) for place, severity in places if place is not None))

    def steps(self, begin_ns: int, end_ns: int, site: str | None = None) -> tuple[Alarm, ...]:
        """Read every step that hosts told of in a period."""
        window = Window(begin_ns, end_ns, site)
        kinds = " OR ".join(f'"kind" = {_quoted(kind)}' for kind in STEP_KINDS)
        return steps_of(
            self._happenings(
                f'SELECT "raised", "severity", "value_s", "host", "kind" FROM "ntpaudit_event" WHERE {self._in(window)}'
                f" AND ({kinds})",
                window,
            )
        )

    def points(self, window: Window, fields: Sequence[str]) -> Points:
        """Begin to read some fields of the points in a short time."""
        statement = f'SELECT {_columns(fields)}, {_WHOSE} FROM "ntpaudit_clock" WHERE {self._in(window)}'
        clocks = start(lambda: list(self._clocks(statement, window)))
        return Points(lambda: (one.name for one in clocks()), clocks)

    def latest(self, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterator[ClockRow]:
        """Read some fields of the last point in a long time, of each place that a host was at, that has the first."""
        columns, first = _columns(fields), _columns(fields[:1])
        last = columns.replace(first, f"last({first}) AS {first}", 1)
        return self._clocks(
            f'SELECT {columns}, {_WHOSE} FROM (SELECT {last} FROM "ntpaudit_clock"'
            f" WHERE {self._in(window)}{_and_any_of(hosts)} GROUP BY {_WHOSE})",
            window,
        )

    def _clocks(self, statement: str, window: Window) -> Iterator[ClockRow]:
        """Read points of the clock, of which what is not asked for stays unknown."""
        for row in self._rows(statement, ("host", "site", "env", "time", *CLOCK_FIELDS)):
            if window.holds(row[3]):
                yield ClockRow._make(row)

    def disputed(self, window: Window, fields: Sequence[str]) -> Iterator[ClockRow]:
        """Read some fields of the last point of each host that is disputed; few servers know the field that says so."""
        return self.latest(window, None, ("disputed_s", *(name for name in fields if name != "disputed_s")))

    def ahead(self, window: Window, fields: Sequence[str]) -> Iterator[ClockRow]:
        """Read some fields of the last points in a time that is yet to come: first whether there is any point."""
        one = f'SELECT "severity" FROM "ntpaudit_clock" WHERE {self._in(window)} LIMIT 1'
        return self.latest(window, None, fields) if any(self._rows(one, ("time",))) else iter(())

    def every(self, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterator[ClockRow]:
        """Read some fields of every point of hosts in a short time."""
        return self._clocks(
            f'SELECT {_columns(fields)}, {_WHOSE} FROM "ntpaudit_clock" WHERE {self._in(window)}{_and_any_of(hosts)}',
            window,
        )

    def counts(self, spans: TimeSpans, site: str | None, hosts: Sequence[str]) -> Iterator[Counted]:
        """Count the points of hosts by their stamps."""
        rows = self._rows(
            'SELECT count("severity") AS "points", count("disputed_s") AS "disputed", min("disputed_s") AS "least_s"'
            f' FROM "ntpaudit_clock" WHERE {_within(spans)}{self._and(site)}{_and_any_of(hosts)}'
            f' GROUP BY {_by(spans)}, "host" FILL(none)',
            ("host", "time", "points", "disputed", "least_s"),
        )
        for host, stamp_ns, *cells in rows:
            if (place := _place(spans, stamp_ns)) is not None:
                yield Counted(host, place, *cells)

    def drifting(self, window: Window) -> Iterator[tuple[RawValue, RawValue]]:
        """Read which hosts may drift by more than `MAX_DRIFT_PPM`."""
        rows = self._rows(
            f'SELECT "max_drift_ppm", "host" FROM "ntpaudit_clock" WHERE {self._in(window)}'
            f' AND "max_drift_ppm" > {MAX_DRIFT_PPM}',
            ("host", "max_drift_ppm"),
        )
        return ((host, ppm) for host, ppm in rows)

    def several(self, window: Window, hosts: Sequence[str] | None) -> set[str]:
        """Read the names that points came under from more than one place: of those that ever did, by the index.

        That takes a fraction of a look at all points. A server that has no such statement, as 3.x, gets that.
        """
        try:
            found = self._named_twice(hosts)
        except ReadError:
            return several_of(self._last(window, hosts))
        asked = sorted(found) if len(found) <= MAX_NAMES else hosts
        return several_of(self._last(window, asked)) if found else set()

    def _named_twice(self, hosts: Sequence[str] | None) -> set[str]:
        """Read the names that more than one series has. ReadError where they are not to be had so."""
        where = f"{self._and()}{_and_any_of(hosts)}".replace(" AND", " WHERE", 1)
        keys = self._rows(f'SHOW SERIES FROM "ntpaudit_clock"{where}', ("key",))
        counts = Counter(_name_in(key) for (key,) in keys if isinstance(key, str))
        return {name for name, count in counts.items() if count > 1 and name is not None}

    def _last(self, window: Window, hosts: Sequence[str] | None) -> Iterator[Sighting]:
        """Read when hosts last reported, from each place that they did from."""
        return self._signs(
            f'SELECT "severity", {_WHOSE} FROM (SELECT last("severity") AS "severity" FROM "ntpaudit_clock"'
            f" WHERE {self._in(window)}{_and_any_of(hosts)} GROUP BY {_WHOSE})",
            window,
        )

    def trail(self, window: Window, hosts: Sequence[str] | None) -> Iterator[Sighting]:
        """Read whenever hosts reported, and from where."""
        return self._signs(
            f'SELECT "severity", {_WHOSE} FROM "ntpaudit_clock" WHERE {self._in(window)}{_and_any_of(hosts)}', window
        )

    def origins(self, window: Window, hosts: Sequence[str]) -> Iterator[Sighting]:
        """Read from where hosts ever reported until the end of a time."""
        return self._last(window._replace(begin_ns=0), hosts)

    def _signs(self, statement: str, window: Window) -> Iterator[Sighting]:
        """Read who reported, from where and when."""
        for host, site, env, stamp_ns in self._rows(statement, ("host", "site", "env", "time")):
            if window.holds(stamp_ns):
                yield Sighting(host, site, env, stamp_ns)

    def events(self, window: Window, hosts: Sequence[str] | None) -> Iterator[EventRow]:
        """Read the last event of each host and kind, of each place that the host was at; ended ones too."""
        return self._happenings(
            f'SELECT "raised", "severity", "value_s", {_WHOSE}, "kind" FROM (SELECT last("raised") AS "raised",'
            f' "severity", "value_s" FROM "ntpaudit_event" WHERE {self._in(window)}{_and_any_of(hosts)}'
            f' GROUP BY {_WHOSE}, "kind")',
            window,
        )

    def disputed_events(self, window: Window, hosts: Sequence[str] | None) -> Iterator[EventRow]:
        """Read when the last disputed event of each host and kind is stamped; few servers know the field."""
        return self._happenings(
            f'SELECT "disputed_s", {_WHOSE}, "kind" FROM (SELECT last("disputed_s") AS "disputed_s" FROM'
            f' "ntpaudit_event" WHERE {self._in(window)}{_and_any_of(hosts)} GROUP BY {_WHOSE}, "kind")',
            window,
        )

    def every_event(self, window: Window, hosts: Sequence[str] | None) -> Iterator[EventRow]:
        """Read every event of hosts in a time, and whether it is disputed."""
        return self._happenings(
            f'SELECT "raised", "severity", "value_s", "disputed_s", {_WHOSE}, "kind" FROM "ntpaudit_event"'
            f" WHERE {self._in(window)}{_and_any_of(hosts)}",
            window,
        )

    def _happenings(self, statement: str, window: Window) -> Iterator[EventRow]:
        """Read what happened on which host, and when."""
        rows = self._rows(statement, ("host", "kind", "time", "raised", "severity", "value_s", "disputed_s"))
        for host, kind, stamp_ns, *cells in rows:
            if window.holds(stamp_ns):
                yield EventRow(host, kind, stamp_ns, *cells)

    def sources(self, window: Window, hosts: Sequence[str] | None) -> Iterator[SourceRow]:
        """Read what every source of hosts said last."""
        rows = self._rows(
            'SELECT "status", "offset_s", "host", "source" FROM (SELECT last("status") AS "status", "offset_s"'
            f' FROM "ntpaudit_source" WHERE {self._in(window)}{_and_any_of(hosts)} GROUP BY "host", "source")',
            ("host", "source", "time", "status", "offset_s"),
        )
        for host, source, stamp_ns, *cells in rows:
            if window.holds(stamp_ns):
                yield SourceRow(host, source, stamp_ns, *cells)

    def names(self, site: str | None) -> set[str]:
        """Read every name of a host that is known."""
        where = self._and(site).replace(" AND", " WHERE", 1)
        rows = self._rows(f'SHOW TAG VALUES FROM "ntpaudit_clock" WITH KEY = "host"{where}', ("value",))
        return names_of(cell for (cell,) in rows)

    def sites(self) -> set[str]:
        """Read the name of every site that is known."""
        where = self._and().replace(" AND", " WHERE", 1)
        rows = self._rows(f'SHOW TAG VALUES FROM "ntpaudit_clock" WITH KEY = "site"{where}', ("value",))
        return names_of(cell for (cell,) in rows)

    def active(self, window: Window, hosts: Sequence[str] | None) -> None:
        """Tell nothing: the index of names knows no time, or none that all servers look at."""

    def _in(self, window: Window) -> str:
        """Write a condition on the time, the site and the environment."""
        return f"time > {window.begin_ns} AND time <= {window.end_ns}{self._and(window.site)}"

    def _and(self, site: str | None = None) -> str:
        """Write further conditions on the site and the environment, where one is asked about."""
        return "".join(
            f' AND "{tag}" = {_quoted(value)}'
            for tag, value in (("site", site), ("env", self.env))
            if value is not None
        )

    def _rows(self, statement: str, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of an answer, with the columns or tags of those names in this order, None where one lacks.

        ReadError where it is no answer, or not a whole one: which only an answer in parts tells truly.
        """
        asked = {"db": self._database, "q": statement, "epoch": "ns", "chunked": "true"}
        last: Mapping[str, RawValue] = {}
        for part in self.server.ask("/query", asked).splitlines():
            last = self._result(part)
            match last.get("series"):
                case [*series]:
                    for one in series:
                        yield from _rows_of(mapping(one), columns)
        match last:
            case {"partial": True} | {"series": [*_, {"partial": True}]}:
                raise self.server.failure("the answer ends too early", AGAIN)
            case {"statement_id": _} | {"series": _}:
                return
        raise self.server.strange("this is not a response of InfluxDB")

    def _result(self, part: bytes) -> Mapping[str, RawValue]:
        """Return the result in a part of an answer. ReadError where it tells of an error, or of nothing."""
        try:
            said = mapping(json.loads(part))
        except (ValueError, RecursionError) as error:
            raise self.server.strange("the response is not JSON") from error
        match said.get("results"):
            case [dict(result), *_]:
                pass
            case _:
                result = {}
        complaint = said.get("error") or result.get("error")
        if complaint is not None:
            fix = f"check {self.server.keys['database']}, and what the token may read"
            raise self.server.failure(complaint, fix)
        return result


def _rows_of(series: Mapping[str, RawValue], names: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a series."""
    columns, values, tags = series.get("columns"), series.get("values"), mapping(series.get("tags"))
    if not (isinstance(columns, list) and isinstance(values, list)):
        return
    width = len(columns)
    constant = [None, *(tags.get(name) for name in names)]
    places = [columns.index(name) if name in columns else width + 1 + place for place, name in enumerate(names)]
    pick = itemgetter(*places, width)  # one more, so that it always returns a tuple
    for row in values:
        if isinstance(row, list) and len(row) == width:
            yield pick(row + constant)[:-1]


def _name_in(key: str) -> str | None:
    """Return the host in the key of a series, which is written as in line protocol; None where none is named."""
    found = _HOST.search(key)
    return None if found is None else text(_ESCAPED.sub(r"\1", found[1]))


_BEGIN = attrgetter("begin_ns")


def _place(spans: TimeSpans, stamp_ns: RawValue) -> int | None:
    """Return in which span a moment lies, None for one outside and for what is none."""
    if type(stamp_ns) is not int or not spans.begin_ns <= stamp_ns < spans.end_ns:
        return None
    return (stamp_ns - spans.begin_ns) // spans.width_ns


def _quoted(text: str) -> str:
    """Write a tag's value as a string of InfluxQL, which could not hold every text, but those that are kept."""
    return "'" + tag_value(text).replace("'", r"\'") + "'"


def _within(spans: TimeSpans) -> str:
    """Write the condition that the time lies in a period."""
    return f"time >= {spans.begin_ns} AND time < {spans.end_ns}"


def _by(spans: TimeSpans) -> str:
    """Write how points are grouped by their time."""
    return f"time({spans.width_ns // _MS}ms, {spans.begin_ns % spans.width_ns // _MS}ms)"


def _columns(fields: Sequence[str]) -> str:
    """Write the names of fields."""
    return ", ".join(f'"{name}"' for name in fields)


def _any_of(hosts: Sequence[str]) -> str:
    """Write the condition that it is one of some hosts."""
    return "(" + " OR ".join(f'"host" = {_quoted(host)}' for host in hosts) + ")"


def _and_any_of(hosts: Sequence[str] | None) -> str:
    """Write a further condition on the host, where some are asked about."""
    return "" if hosts is None else f" AND {_any_of(hosts)}"

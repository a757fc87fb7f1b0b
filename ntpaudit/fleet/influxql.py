"""A fleet in InfluxDB 1.x, 2.x or 3.x, queried in the InfluxQL that all three understand."""
# ruff: noqa: S608  # foreign text goes into a statement only by _quoted

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.fleet.model import Alarm, SeverityCounts, TimeBucket, TimeSpans, split
from ntpaudit.core.fleet.severity import AHEAD_S
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import ReadError
from ntpaudit.fleet.decode import (
    CLOCK,
    EVENT,
    ClockRow,
    RawValue,
    Sighting,
    Table,
    bucket_of,
    count_severities,
    mapping,
    names_of,
    steps_of,
    text,
)
from ntpaudit.fleet.snapshot_query import FRESH_S, MAX_NAMES, DatabaseReader, Window
from ntpaudit.net.http import AGAIN, DatabaseServer
from ntpaudit.render.text_safety import tag_value

_MS = 1_000_000
_SHORT_NS = round((FRESH_S + AHEAD_S) * NS_PER_S)

_HOST = re.compile(r"(?<!\\),host=((?:[^\\,]|\\.)*)")
_ESCAPED = re.compile(r"\\([, =])")

Row = tuple[RawValue, ...]


class InfluxqlReader(DatabaseReader):
    """A database, or a bucket, of the InfluxDB family."""

    kind = "InfluxDB"
    doorbell = "/ping"

    def __init__(self, server: DatabaseServer, database: str, env: str | None = None) -> None:
        """Prepare; nothing is read yet."""
        super().__init__(server, env)
        self._database = database

    @property
    def place(self) -> str:
        """What is read, for messages."""
        return f"database {self._database!r} at {self.server.where}"

    def host_series(
        self, hosts: Sequence[str], begin_ns: int, end_ns: int, count: int
    ) -> Mapping[str, tuple[TimeBucket, ...]]:
        """Read the time series of hosts in intervals of equal length; intervals without a point are left out."""
        spans = split(begin_ns, end_ns, count)
        series: dict[str, list[TimeBucket]] = {host: [] for host in hosts}
        for part in range(0, len(hosts), MAX_NAMES):
            where = self._where(_within(spans), hosts=hosts[part : part + MAX_NAMES])
            rows = self._rows(
                'SELECT max("severity") AS "severity", mean("offset_s") AS "mean_s", min("earliest_s") AS "earliest_s",'
                f' max("latest_s") AS "latest_s" FROM "ntpaudit_clock"{where} GROUP BY {_by(spans)}, "host" FILL(none)',
                ("host", "time", "severity", "mean_s", "earliest_s", "latest_s"),
            )
            for host, stamp_ns, *cells in rows:
                if isinstance(host, str) and host in series and (place := _place(spans, stamp_ns)) is not None:
                    series[host].append(bucket_of(spans.begin_ns + place * spans.width_ns, *cells))
        return {host: tuple(sorted(buckets, key=_BEGIN)) for host, buckets in series.items()}

    def tallies(self, begin_ns: int, end_ns: int, count: int, site: str | None = None) -> tuple[SeverityCounts, ...]:
        """Count the hosts of the fleet by severity in intervals of equal length. Slow for many hosts."""
        spans = split(begin_ns, end_ns, count)
        rows = self._rows(
            f'SELECT max("severity") AS "severity" FROM "ntpaudit_clock"{self._where(_within(spans), site)}'
            f' GROUP BY {_by(spans)}, "host" FILL(none)',
            ("time", "severity"),
        )
        places = ((_place(spans, stamp_ns), severity) for stamp_ns, severity in rows)
        return count_severities(spans, ((place, severity, 1) for place, severity in places if place is not None))

    def steps(self, begin_ns: int, end_ns: int, site: str | None = None) -> tuple[Alarm, ...]:
        """Read every step that was reported in a period."""
        return steps_of(self._points(EVENT, Window(begin_ns, end_ns, site), None, EVENT.fields, kinds=STEP_KINDS))

    def last(self, table: Table, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterator[Any]:
        """Read some fields of the last point of each series that has the first field; of a short time, of every point.

        That takes as long, and a tenth if there is no point, as where all of 10,000 hosts are late: 0.07 s, not 0.55 s.
        """
        if window.end_ns - window.begin_ns <= _SHORT_NS:
            return self.every(table, window, hosts, fields)
        tags, columns, first = _columns(_tags(table)), _columns(fields), _columns(fields[:1])
        last = columns.replace(first, f"last({first}) AS {first}", 1)
        source = f'(SELECT {last} FROM "{table.name}"{self._where(_in(window), window.site, hosts)} GROUP BY {tags})'
        return self._decoded(table, window, f"SELECT {columns}, {tags} FROM {source}")

    def every(self, table: Table, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterator[Any]:
        """Read some fields of all points that have the first field."""
        return self._points(table, window, hosts, fields)

    def _points(
        self,
        table: Table,
        window: Window,
        hosts: Sequence[str] | None,
        fields: Sequence[str],
        kinds: Sequence[str] = (),
    ) -> Iterator[Any]:
        where = self._where(_in(window), window.site, hosts, kinds)
        columns = _columns((*fields, *_tags(table)))
        return self._decoded(table, window, f'SELECT {columns} FROM "{table.name}"{where}')

    def _decoded(self, table: Table, window: Window, statement: str) -> Iterator[Any]:
        """Yield the rows of a table; fields that were not read are None."""
        place = len(table.tags)
        for row in self._rows(statement, (*table.tags, "time", *table.fields)):
            if window.holds(row[place]):
                yield table.row._make(row)

    def ahead(self, window: Window, fields: Sequence[str]) -> Iterable[ClockRow]:
        """Read the last points in a time ahead of now, if there is any: to look for one is 30 times as fast."""
        one = f'SELECT "severity" FROM "ntpaudit_clock"{self._where(_in(window), window.site)} LIMIT 1'
        return self.latest(window, None, fields) if any(self._rows(one, ("time",))) else ()

    def several(self, window: Window, hosts: Sequence[str] | None) -> set[str]:
        """Read the names that have points from more than one place.

        The index finds in a tenth of the time those that ever had. InfluxDB 3 has no such statement.
        """
        try:
            keys = list(self._rows(f'SHOW SERIES FROM "ntpaudit_clock"{self._where(hosts=hosts)}', ("key",)))
        except ReadError:
            return super().several(window, hosts)
        counts = Counter(_name_in(key) for (key,) in keys if isinstance(key, str))
        found = {name for name, count in counts.items() if count > 1 and name is not None}
        return super().several(window, sorted(found) if len(found) <= MAX_NAMES else hosts) if found else set()

    def origins(self, hosts: Sequence[str], end_ns: int) -> Iterator[Sighting]:
        """Read from which places hosts ever reported until a time."""
        return (Sighting(*row[:4]) for row in self.latest(Window(0, end_ns), hosts, ("severity",)))

    def names(self, site: str | None) -> set[str]:
        """Read the names of all known hosts."""
        return self._tag_values("host", site)

    def sites(self) -> set[str]:
        """Read the names of all known sites."""
        return self._tag_values("site")

    def _tag_values(self, tag: str, site: str | None = None) -> set[str]:
        statement = f'SHOW TAG VALUES FROM "ntpaudit_clock" WITH KEY = "{tag}"{self._where(site=site)}'
        return names_of(value for (value,) in self._rows(statement, ("value",)))

    def _where(
        self, time: str = "", site: str | None = None, hosts: Sequence[str] | None = None, kinds: Sequence[str] = ()
    ) -> str:
        """Write the conditions on the time, the site, the environment, the hosts and the kinds of events."""
        conditions = [
            time,
            "" if site is None else f'"site" = {_quoted(site)}',
            "" if self.env is None else f'"env" = {_quoted(self.env)}',
            " OR ".join(f'"host" = {_quoted(host)}' for host in hosts or ()),
            " OR ".join(f'"kind" = {_quoted(kind)}' for kind in kinds),
        ]
        written = " AND ".join(f"({one})" if " OR " in one else one for one in conditions if one)
        return f" WHERE {written}" if written else ""

    def _rows(self, statement: str, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of a reply: the columns or tags with these names, in this order; None if one is missing.

        ReadError if the reply is invalid or incomplete; only a chunked reply shows reliably whether it is complete.
        """
        parameters = {"db": self._database, "q": statement, "epoch": "ns", "chunked": "true"}
        last: Mapping[str, RawValue] = {}
        for part in self.server.ask("/query", parameters).splitlines():
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
        """Return the result in a part of a reply. ReadError if that is an error or no JSON."""
        try:
            reply = mapping(json.loads(part))
        except (ValueError, RecursionError) as error:
            raise self.server.strange("the response is not JSON") from error
        match reply.get("results"):
            case [dict(result), *_]:
                pass
            case _:
                result = {}
        failure = reply.get("error") or result.get("error")
        if failure is not None:
            fix = f"check {self.server.keys['database']}, and what the token may read"
            raise self.server.failure(failure, fix)
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
    """Return the host in the key of a series, which is written as in line protocol; None without a host."""
    found = _HOST.search(key)
    return None if found is None else text(_ESCAPED.sub(r"\1", found[1]))


_BEGIN = attrgetter("begin_ns")


def _place(spans: TimeSpans, stamp_ns: RawValue) -> int | None:
    """Return the number of the interval that contains a timestamp; None if none does."""
    if type(stamp_ns) is not int or not spans.begin_ns <= stamp_ns < spans.end_ns:
        return None
    return (stamp_ns - spans.begin_ns) // spans.width_ns


def _quoted(text: str) -> str:
    """Write a tag's value as a string of InfluxQL; `tag_value` leaves nothing that a string cannot hold."""
    return "'" + tag_value(text).replace("'", r"\'") + "'"


def _in(window: Window) -> str:
    """Write the condition that the time is in a window."""
    return f"time > {window.begin_ns} AND time <= {window.end_ns}"


def _tags(table: Table) -> Sequence[str]:
    """Return the tags of a table, and those of every host."""
    return tuple(dict.fromkeys((*CLOCK.tags, *table.tags)))


def _within(spans: TimeSpans) -> str:
    """Write the condition that the time is in a period."""
    return f"time >= {spans.begin_ns} AND time < {spans.end_ns}"


def _by(spans: TimeSpans) -> str:
    """Write the grouping of points by time."""
    return f"time({spans.width_ns // _MS}ms, {spans.begin_ns % spans.width_ns // _MS}ms)"


def _columns(fields: Sequence[str]) -> str:
    """Write the names of fields."""
    return ", ".join(f'"{name}"' for name in fields)

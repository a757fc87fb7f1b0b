"""A fleet in InfluxDB 1.x, 2.x or 3.x, queried in the InfluxQL that all three understand."""
# ruff: noqa: S608  # foreign text goes into a statement only by _quoted

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from ntpaudit.core.fleet.model import TimeSpans
from ntpaudit.core.fleet.severity import AHEAD_S
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import ReadError
from ntpaudit.fleet.decode import CLOCK, ClockRow, RawValue, Sighting, Table, mapping, names_of, text
from ntpaudit.fleet.reader import FRESH_S, MAX_NAMES, DatabaseReader, Window
from ntpaudit.net.http import AGAIN, DatabaseServer
from ntpaudit.render.text_safety import tag_value

_MS = 1_000_000
_SHORT_NS = round((FRESH_S + AHEAD_S) * NS_PER_S)

_FEW_NAMES = 20
_REGEX_ESCAPES = str.maketrans({character: f"\\{character}" for character in r"/\.+*?()|[]{}^$"})

_HOST = re.compile(r"(?<!\\),host=((?:[^\\,]|\\.)*)")
_ESCAPED = re.compile(r"\\([, =])")

Row = tuple[RawValue, ...]


class InfluxqlReader(DatabaseReader):
    """A database, or a bucket, of the InfluxDB family."""

    kind = "InfluxDB"
    date_path = "/ping"

    def __init__(self, server: DatabaseServer, database: str, env: str | None = None) -> None:
        """Prepare; nothing is read yet."""
        super().__init__(server, env)
        self._database = database

    @property
    def described(self) -> str:
        """What is read, for messages."""
        return f"database {self._database!r} at {self.server.where}"

    def buckets(self, spans: TimeSpans, hosts: Sequence[str]) -> Iterator[Any]:
        """Read the number of an interval, a host, and its worst severity, mean, earliest and latest offset in it."""
        fields = (
            'max("severity") AS "severity", mean("offset_s") AS "mean_s", '
            'min("earliest_s") AS "earliest_s", max("latest_s") AS "latest_s"'
        )
        columns = ("host", "severity", "mean_s", "earliest_s", "latest_s")
        for part in range(0, len(hosts), MAX_NAMES):
            yield from self._grouped(spans, fields, columns, hosts=hosts[part : part + MAX_NAMES])

    def tally(self, spans: TimeSpans, site: str | None) -> Iterator[Any]:
        """Read the number of an interval, a severity, and of how many hosts it was the worst: of one at a time."""
        for index, severity in self._grouped(spans, 'max("severity") AS "severity"', ("severity",), site):
            yield index, severity, 1

    def _grouped(
        self,
        spans: TimeSpans,
        fields: str,
        columns: Sequence[str],
        site: str | None = None,
        hosts: Sequence[str] | None = None,
    ) -> Iterator[Any]:
        """Yield the number of an interval, and some columns, for each host and each interval with a point."""
        where = self._where(f"time >= {spans.begin_ns} AND time < {spans.end_ns}", site, hosts)
        time = f"time({spans.width_ns // _MS}ms, {spans.begin_ns % spans.width_ns // _MS}ms)"
        statement = f'SELECT {fields} FROM "ntpaudit_clock"{where} GROUP BY {time}, "host" FILL(none)'
        for stamp_ns, *cells in self._rows(statement, ("time", *columns)):
            if type(stamp_ns) is int:
                yield (stamp_ns - spans.begin_ns) // spans.width_ns, *cells

    def last(self, table: Table, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterator[Any]:
        """Read some fields of the last point of each series that has the first field; of a short time, of every point.

        That takes as long, and a tenth if there is no point, as where all of 10,000 hosts are late: 0.07 s, not 0.55 s.
        """
        if window.end_ns - window.begin_ns <= _SHORT_NS:
            return self.every(table, window, hosts, fields)
        tags, columns, first = _columns(table.key), _columns(fields), _columns(fields[:1])
        last = columns.replace(first, f"last({first}) AS {first}", 1)
        source = f'(SELECT {last} FROM "{table.name}"{self._where(_in(window), window.site, hosts)} GROUP BY {tags})'
        return self._decoded(table, window, f"SELECT {columns}, {tags} FROM {source}")

    def every(self, table: Table, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterator[Any]:
        """Read some fields of all points that have the first field."""
        where = self._where(_in(window), window.site, hosts, table.kinds)
        columns = _columns((*fields, *table.key))
        return self._decoded(table, window, f'SELECT {columns} FROM "{table.name}"{where}')

    def _decoded(self, table: Table, window: Window, statement: str) -> Iterator[Any]:
        """Yield the rows of a table; fields that were not read are None."""
        index = len(table.tags)
        for row in self._rows(statement, (*table.tags, "time", *table.fields)):
            if window.holds(row[index]):
                yield table.row._make(row)

    def ahead(self, window: Window) -> Iterable[ClockRow]:
        """Read the last points in a time ahead of now, if there is any: to look for one is 30 times as fast."""
        one = f'SELECT "severity" FROM "ntpaudit_clock"{self._where(_in(window), window.site)} LIMIT 1'
        return super().ahead(window) if any(self._rows(one, ("time",))) else ()

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
        return (Sighting(*row[:4]) for row in self.last(CLOCK, Window(0, end_ns), hosts, ("severity",)))

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
            _of_hosts(hosts or ()),
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
                raise self.server.failure("the reply ends too early", AGAIN)
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
    places = [columns.index(name) if name in columns else width + 1 + index for index, name in enumerate(names)]
    pick = itemgetter(*places, width)  # one more, so that it always returns a tuple
    for row in values:
        if isinstance(row, list) and len(row) == width:
            yield pick(row + constant)[:-1]


def _name_in(key: str) -> str | None:
    """Return the host in the key of a series, which is written as in line protocol; None without a host."""
    found = _HOST.search(key)
    return None if found is None else text(_ESCAPED.sub(r"\1", found[1]))


def _quoted(text: str) -> str:
    """Write a tag's value as a string of InfluxQL; `tag_value` leaves nothing that a string cannot hold."""
    return "'" + tag_value(text).replace("'", r"\'") + "'"


def _of_hosts(hosts: Sequence[str]) -> str:
    """Write the condition that a host is one of these: of many, an expression is evaluated in half the time."""
    if len(hosts) <= _FEW_NAMES:
        return " OR ".join(f'"host" = {_quoted(host)}' for host in hosts)
    names = "|".join(tag_value(host).translate(_REGEX_ESCAPES) for host in hosts)
    return f'"host" =~ /^({names})$/'


def _in(window: Window) -> str:
    """Write the condition that the time is in a window."""
    return f"time > {window.begin_ns} AND time <= {window.end_ns}"


def _columns(fields: Sequence[str]) -> str:
    """Write the names of fields."""
    return ", ".join(f'"{name}"' for name in fields)

"""Reads a fleet, whatever the database and its language: a snapshot is a few queries, most of them at the same time."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, TypeGuard, TypeVar

from ntpaudit.core.clock.database_clock import MAX_STAMP_DISPUTE_S
from ntpaudit.core.fleet.model import Alarm, Host, SeverityCounts, Snapshot, TimeBucket, TimeSpans, split
from ntpaudit.core.fleet.severity import AHEAD_S
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import ReadError, UnexpectedReplyError
from ntpaudit.fleet.decode import (
    BASELINE_S,
    BOUND_FIELDS,
    CLOCK,
    EVENT,
    EVENTS_S,
    REORDERED_NS,
    SOURCE,
    STEPS,
    BaselineRow,
    ClockRow,
    EventRow,
    RawValue,
    Sighting,
    Table,
    alarms_of,
    bucket_of,
    count_severities,
    current,
    duplicate_hosts_of,
    falseticker_reports_of,
    hosts_of,
    later,
    offsets_of,
    several_of,
    sites_of,
    steps_of,
    text,
    undecided,
    unsettled,
    worst_of,
)
from ntpaudit.net.http import DatabaseKind, DatabaseServer, start

# nearly every host has a point that is not older; to read 600 s instead takes InfluxDB 40 % longer (10,000 hosts)
FRESH_S = 150.0
MAX_NAMES = 500  # more hosts than this are read faster by reading all hosts
_AHEAD_NS = round(AHEAD_S * NS_PER_S)
_DISPUTE_NS = round(MAX_STAMP_DISPUTE_S * NS_PER_S)
_BUNCH_NS = 120 * NS_PER_S
_AT_ONCE = 50  # hosts of which all timestamps fit into memory
_SLACK_NS = 20_000_000  # VictoriaMetrics leaves out what is stamped at the very begin of a window
LAST_NS = 1 << 62  # the clock of no database is past this (in 2116)
SKEW_S = 30.0  # if this machine's clock and the database's differ by more, hosts seem silent, or silent hosts seem well

Rows = TypeVar("Rows")
Hosts = Set[str] | None
"""Which hosts to read: every host if None, none if empty."""


class Window(NamedTuple):
    """A time that includes its end and excludes its begin, and a site: None is every site."""

    begin_ns: int
    end_ns: int
    site: str | None = None

    def holds(self, stamp_ns: RawValue) -> TypeGuard[int]:
        """Whether a value is a timestamp in this time."""
        return type(stamp_ns) is int and self.begin_ns < stamp_ns <= self.end_ns


class SnapshotOptions(NamedTuple):
    """What to read: one site or all, how far back to look for the latest point, and how long ago the baseline is.

    Machines of one name are detected by their points of the last `silent_after_s`. `fields` are read of every host:
    JUDGED_FIELDS or all.
    """

    site: str | None = None
    look_back_s: float = 86_400.0
    baseline_s: float = 3600.0
    silent_after_s: float = 600.0
    fields: tuple[str, ...] = CLOCK.fields


class Reader(ABC):
    """A database of the points that agents deliver. Every method raises ReadError, with its fix."""

    @abstractmethod
    def now_ns(self) -> int:
        """Return the time that is now for this database: the true time, or the end of a demonstration.

        The true time is that of this machine's clock, unless the database's differs from it by more than `SKEW_S`.
        """

    @abstractmethod
    def skew_s(self) -> float | None:
        """Return how far the database's clock is ahead of this machine's, within a second; None if unknown."""

    @abstractmethod
    def last(self, table: Table, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterable[Any]:
        """Read some fields of the last point of each series that has the first field; `hosts` None: of all hosts."""

    @abstractmethod
    def every(self, table: Table, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterable[Any]:
        """Read some fields of all points that have the first field."""

    @abstractmethod
    def names(self, site: str | None) -> set[str]:
        """Read the names of all known hosts."""

    @abstractmethod
    def sites(self) -> set[str]:
        """Read the names of all known sites."""

    @abstractmethod
    def origins(self, hosts: Sequence[str], end_ns: int) -> Iterable[Sighting]:
        """Read from which places hosts ever reported until a time; their timestamps may be left out."""

    @abstractmethod
    def is_present(self, moment_ns: int) -> bool:
        """Whether a moment is about now: later timestamps are ahead of now. After a past moment they are only later."""

    @abstractmethod
    def no_hosts(self, site: str | None) -> ReadError:
        """Return the error that no host is known."""

    @abstractmethod
    def buckets(self, spans: TimeSpans, hosts: Sequence[str]) -> Iterable[Any]:
        """Read the number of an interval, a host, and its worst severity, mean, earliest and latest offset in it."""

    @abstractmethod
    def tally(self, spans: TimeSpans, site: str | None) -> Iterable[Any]:
        """Read the number of an interval, a severity, and of how many hosts it was the worst."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    def host_series(
        self, hosts: Sequence[str], begin_ns: int, end_ns: int, count: int
    ) -> Mapping[str, tuple[TimeBucket, ...]]:
        """Read the time series of hosts in `count` intervals of equal length; those without a point are left out."""
        spans = split(begin_ns, end_ns, count)
        series: dict[str, list[TimeBucket]] = {host: [] for host in hosts}
        for index, host, *cells in self.buckets(spans, hosts):
            if isinstance(host, str) and host in series and 0 <= index < spans.spans:
                series[host].append(bucket_of(spans.begin_ns + index * spans.width_ns, *cells))
        return {host: tuple(sorted(buckets, key=attrgetter("begin_ns"))) for host, buckets in series.items()}

    def tallies(self, begin_ns: int, end_ns: int, count: int, site: str | None = None) -> tuple[SeverityCounts, ...]:
        """Count the hosts by severity in `count` intervals of equal length. Slow for many hosts."""
        spans = split(begin_ns, end_ns, count)
        return count_severities(spans, self.tally(spans, site))

    def steps(self, begin_ns: int, end_ns: int, site: str | None = None) -> tuple[Alarm, ...]:
        """Read every step that was reported in a period, wherever the hosts are now, sorted by time."""
        return steps_of(self.every(STEPS, Window(begin_ns, end_ns, site), None, STEPS.fields))

    def ahead(self, window: Window) -> Iterable[ClockRow]:
        """Read the last points in a time ahead of now. There are usually none, and then this must be fast."""
        return self.last(CLOCK, window, None, CLOCK.fields)

    def disputed(self, window: Window) -> list[ClockRow]:
        """Read the last disputed point of each host. Usually there are none, and then this is fast."""
        return self.at(self.last(CLOCK, window, None, ("disputed_s",)))

    def at(self, rows: Iterable[ClockRow | Host]) -> list[ClockRow]:
        """Read all fields of these points."""
        wanted = {(row.last_ns, name) for row in rows if (name := text(row.name)) is not None}
        found: list[ClockRow] = []
        for bunch in _bunches(wanted):
            window = Window(bunch[0][0] - _SLACK_NS, bunch[-1][0])
            read = _of(self.every, CLOCK, window, {name for _, name in bunch}, CLOCK.fields)
            found += (row for row in read if (row.last_ns, text(row.name)) in wanted)
        return found

    def several(self, window: Window, hosts: Sequence[str] | None) -> set[str]:
        """Read the names that have points from more than one place."""
        return several_of(self.last(CLOCK, window, hosts, ("severity",)))

    def active(self, window: Window, hosts: Sequence[str] | None) -> set[str] | None:
        """Read the names of hosts that may have points in a time; others have none. None if only points can show it."""
        return None

    def start(self, read: Callable[[], Rows]) -> Callable[[], Rows]:
        """Read, at the same time as others if that is faster; the function returned waits for the rows."""
        rows = read()
        return lambda: rows

    def settled_ns(self) -> int:
        """Return the time until which all that arrived is shown completely."""
        return LAST_NS

    def snapshot(self, now_ns: int, options: SnapshotOptions) -> Snapshot:
        """Read the state of every host at a moment."""
        return _Query(self, now_ns, options).run()


class DatabaseReader(Reader):
    """A reader of a database server, whose language its subclasses know; of one environment, or of all.

    `kind` is the family of the database, `date_path` the path of the cheapest reply, which is read for its date.
    """

    kind: ClassVar[DatabaseKind]
    date_path: ClassVar[str]

    def __init__(self, server: DatabaseServer, env: str | None = None) -> None:
        """Prepare; nothing is read yet."""
        self.server = server
        self.env = env

    @property
    @abstractmethod
    def described(self) -> str:
        """What is read, for messages."""

    def now_ns(self) -> int:
        """Return the time of this machine's clock, or of the database's if they differ; the database is queried."""
        self.server.look(self.date_path)
        return self._now_ns()

    def _now_ns(self) -> int:
        """Return that time by the database's last reply."""
        own_ns = time.time_ns()
        skew_s = self.server.skew_s
        if skew_s is None or abs(skew_s) <= SKEW_S or not 0 < own_ns + skew_s * NS_PER_S < LAST_NS:
            return own_ns
        return own_ns + _ns(skew_s)

    def is_present(self, moment_ns: int) -> bool:
        """Whether a moment is about now, by the database's clock."""
        return moment_ns >= self._now_ns() - _AHEAD_NS

    def skew_s(self) -> float | None:
        """Return how far the database's clock is ahead of this machine's, within a second; None before a reply."""
        return self.server.skew_s

    def snapshot(self, now_ns: int, options: SnapshotOptions) -> Snapshot:
        """Read the state of every host at a moment. ReadError if no host is known."""
        self.server.reset_weight()
        try:
            return super().snapshot(now_ns, options)
        except UnexpectedReplyError as error:
            raise self._explained(error) from error

    def start(self, read: Callable[[], Rows]) -> Callable[[], Rows]:
        """Start to read in a thread: one query after another would take twice as long."""
        return start(read)

    def _explained(self, error: ReadError) -> ReadError:
        """Name the kind of database that replied, if it is certain that it is another one than was queried."""
        found, key = self.server.kind(), self.server.keys["language"]
        if found == self.kind:
            return error
        if found is None:
            other: DatabaseKind = "VictoriaMetrics" if self.kind == "InfluxDB" else "InfluxDB"
            return ReadError(error.reason, f"{error.remedy}; if this is {other}: {_language_fix(other, key)}")
        return ReadError(f"{self.server.where}: this is {found}, not {self.kind}", _language_fix(found, key))

    def no_hosts(self, site: str | None) -> ReadError:
        """Return the error that no agent has delivered. It may be another kind of database: that is checked."""
        from ntpaudit.fleet.suggestion import nearest

        if site is not None and (near := nearest(site, self.sites())) is not None:
            return ReadError(f"{self.described} has no host of site {site!r}", f"did you mean {near}?")
        named = {word: name for word, name in (("site", site), ("environment", self.env)) if name is not None}
        whose = " and ".join(f"{word} {name!r}" for word, name in named.items())
        names = f"check the name{'s' * (len(named) > 1)} of the {' and the '.join(named)}, " if named else ""
        database = f", set another database with {self.server.keys['database']}" if self.kind == "InfluxDB" else ""
        return UnexpectedReplyError(
            f"no agent{' of ' + whose if whose else ''} has delivered anything to {self.described} yet",
            f"{names}check whether agents deliver there (run `ntpaudit status` on a host){database}",
        )

    def close(self) -> None:
        """Close the connections."""
        self.server.close()


def _language_fix(kind: DatabaseKind, key: str) -> str:
    """Return how to choose the language of a kind of database, by the option or the key that is in use."""
    language = "influxql" if kind == "InfluxDB" else "promql"
    return f"{key} {language}" if key.startswith("-") else f'{key} = "{language}", or --language {language}'


class _Query:
    """One snapshot that is being read.

    A window without a site is read for hosts by name: they may have been at another site then. Until `settled_ns` the
    database shows all that arrived.
    """

    def __init__(self, reader: Reader, now_ns: int, options: SnapshotOptions) -> None:
        self.reader, self.now_ns, self.options, self.site = reader, now_ns, options, options.site
        self.is_present = reader.is_present(now_ns)
        self.until_ns = now_ns + _AHEAD_NS if self.is_present else now_ns
        self.settled_ns = min(self.until_ns, reader.settled_ns())
        look_back_ns = _ns(options.look_back_s)
        # the last point of a host without a recent one
        self.whole = Window(now_ns - look_back_ns, self.settled_ns)
        # the last point of nearly every host
        self.recent = Window(now_ns - min(_ns(FRESH_S), look_back_ns), self.settled_ns, self.site)
        # all points of hosts of one name, which may be at several sites; not those stamped ahead, which would overlap
        # with the points of the place to which a host has moved
        begin_ns, end_ns = now_ns - min(_ns(options.silent_after_s), look_back_ns), min(now_ns, self.settled_ns)
        self.reporting = Window(begin_ns, end_ns)
        # disputed points, whose timestamps may be that much too early
        self.doubtful = Window(self.whole.begin_ns - _DISPUTE_NS, self.settled_ns, self.site)
        # points and events with a timestamp after now
        self.stamped_ahead = Window(self.until_ns, LAST_NS, self.site)
        before_ns = now_ns - _ns(options.baseline_s)
        # the baselines, wherever the hosts were then
        self.at_baseline = Window(before_ns - _ns(BASELINE_S), min(before_ns, self.settled_ns))

    def run(self) -> Snapshot:
        """Read what can be read at once, and then what depends on that."""
        reader, site, now_ns = self.reader, self.site, self.now_ns
        read_names = reader.start(lambda: reader.names(site))
        read_fresh = reader.start(lambda: _of(reader.last, CLOCK, self.recent, None, self.options.fields))
        read_disputed = reader.start(self._disputed)
        read_ahead = reader.start(lambda: hosts_of(reader.ahead(self.stamped_ahead)) if self.is_present else {})
        wanted = None if site is None else read_names()
        read_events = reader.start(lambda: self._events(wanted))
        read_several = reader.start(lambda: reader.several(self.reporting, _few(wanted)))
        read_baseline = reader.start(
            lambda: offsets_of(_of(reader.last, CLOCK, self.at_baseline, wanted, BOUND_FIELDS))
        )

        names, fresh = read_names(), hosts_of(read_fresh())
        older = hosts_of(self._late(names - fresh.keys()))
        if older:  # a disputed point of these may have arrived since the first query
            read_disputed = reader.start(self._disputed)
        stamped = fresh | {name: host for name, host in older.items() if site in (None, host.site)}
        disputed, ahead = read_disputed(), read_ahead()
        hosts = current(stamped, disputed, ahead)
        if not names and not hosts:
            raise reader.no_hosts(site)
        doubted = disputed.keys() | ahead.keys()
        hosts |= self._arrived(hosts, doubted)
        expired = names - hosts.keys() - older.keys()

        points = _of(reader.every, CLOCK, self.reporting, read_several() & (names | hosts.keys()), ("severity",))
        found = duplicate_hosts_of(Sighting(*row[:4]) for row in points)
        duplicates = tuple(duplicate for duplicate in found if site is None or site in duplicate.sites)
        clashing = {duplicate.name for duplicate in duplicates}
        machines = _of(reader.last, CLOCK, self.reporting._replace(site=site), clashing, CLOCK.fields)
        hosts |= worst_of(machines, clashing, hosts, self.reporting.begin_ns)

        baseline = self._undisputed(read_baseline(), doubted)
        earlier = {name: one for name, one in baseline.items() if name in hosts and name not in clashing}
        hosts |= self._moved(hosts, earlier)
        future = {name for name, host in hosts.items() if host.last_ns > self.until_ns}
        events = [*read_events(), *_of(reader.last, EVENT, self.stamped_ahead, future, EVENT.fields)]
        return Snapshot(
            now_ns,
            tuple(hosts.values()),
            alarms_of(events, now_ns, self.options.baseline_s),
            falseticker_reports_of(self._sources(hosts, future)),
            {name: one.bounds for name, one in earlier.items()},
            self.options.baseline_s,
            tuple(sorted(expired)),
            {name: one.stamp_ns for name, one in earlier.items()},
            duplicates,
            self.options.look_back_s,
            sites_of(reader.origins(sorted(expired), now_ns)) if 0 < len(expired) <= MAX_NAMES else {},
            self.is_present,
        )

    def _disputed(self) -> dict[str, Host]:
        return hosts_of(self.reader.disputed(self.doubtful))

    def _late(self, unseen: Set[str]) -> list[ClockRow]:
        """Read hosts without a fresh point, wherever they are: one may have moved to another site."""
        # with a site by name: VictoriaMetrics may not list all names of all sites. Without one `names` has shown that
        # it does, and then it is faster to list all active hosts than to name many
        is_by_name = self.site is not None or len(unseen) <= MAX_NAMES
        if not unseen:
            return []
        active = self.reader.active(self.whole, sorted(unseen) if is_by_name else None)
        late = unseen if active is None else unseen & active
        return _of(self.reader.last, CLOCK, self.whole, late, self.options.fields)

    def _arrived(self, hosts: Mapping[str, Host], doubted: Set[str]) -> dict[str, Host]:
        """Read the point that arrived last of hosts with disputed points of which none arrived recently.

        Points that arrived earlier may be stamped later. The recent timestamps are enough for nearly all hosts whose
        servers are right again; of the others all timestamps are read, of a few hosts at a time.
        """
        found: dict[str, Host] = {}
        longer = self.doubtful._replace(end_ns=self.until_ns + _DISPUTE_NS if self.is_present else self.until_ns)
        for window, at_once in ((self.recent, sys.maxsize), (longer, _AT_ONCE)):
            left = unsettled({**hosts, **found}, doubted, self.recent.begin_ns)
            for index in range(0, len(left), at_once):
                names = set(sorted(left)[index : index + at_once])
                rows = _of(self.reader.every, CLOCK, window, names, ("severity", "disputed_s"))
                # it is unknown when an undisputed point arrived that is stamped ahead of now
                rows = [row for row in rows if row.disputed_s is not None or row.last_ns <= self.until_ns]
                found |= later(left, self.reader.at(hosts_of(rows).values()))
        return found

    def _undisputed(self, earlier: dict[str, BaselineRow], doubted: Set[str]) -> dict[str, BaselineRow]:
        """Replace the baselines of hosts with disputed points by undisputed ones.

        Otherwise a host whose servers were wrong then, and are right now, would seem to have moved.
        """
        names = earlier.keys() & doubted
        rows = _of(self.reader.every, CLOCK, self.at_baseline, names, (*BOUND_FIELDS, "disputed_s"))
        known = offsets_of(row for row in rows if row.disputed_s is None)
        return {name: one for name, one in earlier.items() if name not in names} | known

    def _moved(self, hosts: Mapping[str, Host], earlier: Mapping[str, BaselineRow]) -> dict[str, Host]:
        """Return the hosts that certainly moved, with their frequency: it shows whether they still move."""
        if "frequency_ppm" in self.options.fields:
            return {}
        compared = ((hosts[name], hosts[name].offset, one.bounds) for name, one in earlier.items())
        moved = [
            host
            for host, now, then in compared
            if host.frequency_ppm is None
            and now is not None
            and not (then.earliest_s <= now.latest_s and now.earliest_s <= then.latest_s)
        ]
        found = hosts_of(self.reader.at(moved))
        return {name: hosts[name]._replace(frequency_ppm=host.frequency_ppm) for name, host in found.items()}

    def _events(self, names: Hosts) -> list[EventRow]:
        """Read the last event of each host and kind by timestamp, and all that may have arrived later.

        Only disputed events can have arrived later; these may be stamped ahead of now.
        """
        window = Window(self.now_ns - _ns(EVENTS_S), min(self.now_ns, self.settled_ns))
        end_ns = self.now_ns + _DISPUTE_NS if self.is_present else window.end_ns
        read_disputed = self.reader.start(
            lambda: _of(self.reader.last, EVENT, window._replace(end_ns=end_ns), names, ("disputed_s",))
        )
        rows = _of(self.reader.last, EVENT, window, names, EVENT.fields)
        left = undecided(rows, read_disputed())
        if left:
            span = Window(min(left.values()) - REORDERED_NS, max(left.values()))
            hosts = {host for host, _ in left}
            found = _of(self.reader.every, EVENT, span, hosts, EVENT.fields)
            rows += (row for row in found if (text(row.host), text(row.kind)) in left)
        return rows

    def _sources(self, hosts: Mapping[str, Host], future: Set[str]) -> list[Any]:
        """Read the sources of hosts that see a falseticker; those of all hosts would be most of the work."""
        names = {name for name, host in hosts.items() if host.falsetickers}
        rows = _of(self.reader.last, SOURCE, self.whole, names, SOURCE.fields)
        return rows + _of(self.reader.last, SOURCE, self.stamped_ahead, names & future, SOURCE.fields)


Read = Callable[[Table, Window, Sequence[str] | None, Sequence[str]], Iterable[Any]]


def _of(read: Read, table: Table, window: Window, names: Hosts, fields: Sequence[str]) -> list[Any]:
    """Return the rows of these hosts alone."""
    if names is None:
        return list(read(table, window, None, fields))
    return [row for row in read(table, window, _few(names), fields) if text(row[0]) in names] if names else []


def _few(names: Hosts) -> Sequence[str] | None:
    """Return the names to read; None if it is faster to read all hosts, and to use the rows of these."""
    return None if names is None or len(names) > MAX_NAMES else sorted(names)


def _bunches(points: Iterable[tuple[int, str]]) -> list[list[tuple[int, str]]]:
    """Divide points so that the timestamps of each part are close together."""
    bunches: list[list[tuple[int, str]]] = []
    for point in sorted(points):
        if not bunches or point[0] - bunches[-1][0][0] > _BUNCH_NS:
            bunches.append([])
        bunches[-1].append(point)
    return bunches


def _ns(span_s: float) -> int:
    return round(span_s * NS_PER_S)

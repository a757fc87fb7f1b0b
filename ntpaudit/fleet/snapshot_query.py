"""A snapshot put together from what a database answers from afar: few questions, and most of them at the same time."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import NamedTuple, Protocol, TypeGuard

from ntpaudit.core.clock.database_clock import MAX_STAMP_DISPUTE_S
from ntpaudit.core.fleet.clock_shift import has_moved
from ntpaudit.core.fleet.model import DuplicateHost, FalsetickerReport, Host, Snapshot, TimeSpans, split
from ntpaudit.core.fleet.severity import AHEAD_S, came_ns, needs_tolerances
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import ReadError, UnexpectedReplyError
from ntpaudit.fleet.decode import (
    BASELINE_S,
    BOUND_FIELDS,
    DISPUTED_FIELDS,
    EVENTS_S,
    FULL_FIELDS,
    JUDGED_FIELDS,
    RATE_FIELDS,
    REORDERED_NS,
    TOLERANCE_FIELDS,
    BaselineRow,
    ClockRow,
    Counted,
    EventRow,
    RawValue,
    Sighting,
    SourceRow,
    alarms_of,
    current,
    duplicate_hosts_of,
    falseticker_reports_of,
    hosts_of,
    later,
    names_of,
    offsets_of,
    rated,
    sites_of,
    spans_of_arrival,
    text,
    undecided,
    unsettled,
    with_drift,
    with_tolerances,
    worst_of,
)
from ntpaudit.fleet.reader import SKEW_S, SnapshotOptions
from ntpaudit.net.http import Kind, Server, start

FRESH_S = 150.0
"""Nearly every host has a point that is no older, and that is read at a fraction of what the whole look-back costs."""

SPAN_S = 600.0
"""Where stamps do not tell which point came last, points are counted in spans of this length."""

MAX_NAMES = 500
"""More hosts than these are read faster by asking for all."""


_AHEAD_NS = round(AHEAD_S * NS_PER_S)
_SLACK_NS = 20_000_000  # what lies at the very begin of a time may be left out

_LAST_NS = 1 << 62
"""No clock of a database is believed to be past this, in 2116."""


class Window(NamedTuple):
    """A time that holds its end, and not its begin, and the site that is asked about: None is all."""

    begin_ns: int
    end_ns: int
    site: str | None = None

    def holds(self, stamp_ns: RawValue) -> TypeGuard[int]:
        """Whether that is a moment in this time; whatever else a database answers is none of it."""
        return type(stamp_ns) is int and self.begin_ns < stamp_ns <= self.end_ns


class Points(NamedTuple):
    """Points that are being read: called, each waits. Who has the first field may be known before the rest is."""

    names: Callable[[], Iterable[RawValue]]
    clocks: Callable[[], Iterable[ClockRow]]


class FleetBackend(Protocol):
    """What a database can be asked. Where `hosts` is None that is all. Every method raises ReadError."""

    @property
    def place(self) -> str:
        """What is read from, in words."""

    def points(self, window: Window, fields: Sequence[str]) -> Points:
        """Begin to read some fields in a short time, of each host of the last point that has the first, or of more."""

    def latest(self, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterable[ClockRow]:
        """Read the same of hosts in a long time: of each place that one was at."""

    def disputed(self, window: Window, fields: Sequence[str]) -> Iterable[ClockRow]:
        """Read some fields of the last point of each host that is disputed. Where none is, that costs little."""

    def ahead(self, window: Window, fields: Sequence[str]) -> Iterable[ClockRow]:
        """Read some fields of the last points in a time that is yet to come. Where none are, that costs little."""

    def every(self, window: Window, hosts: Sequence[str] | None, fields: Sequence[str]) -> Iterable[ClockRow]:
        """Read some fields of every point of hosts in a short time; each point has the first."""

    def counts(self, spans: TimeSpans, site: str | None, hosts: Sequence[str]) -> Iterable[Counted]:
        """Count the points of hosts by their stamps; a span without a point may be left out."""

    def drifting(self, window: Window) -> Iterable[tuple[RawValue, RawValue]]:
        """Read which hosts may drift by more than `MAX_DRIFT_PPM`, and by how much. Most may not."""

    def several(self, window: Window, hosts: Sequence[str] | None) -> set[str]:
        """Read the names that points came under from more than one place, and perhaps others that did once."""

    def trail(self, window: Window, hosts: Sequence[str] | None) -> Iterable[Sighting]:
        """Read whenever hosts reported, and from where."""

    def origins(self, window: Window, hosts: Sequence[str]) -> Iterable[Sighting]:
        """Read from where hosts ever reported until the end of a time; when, may be left out."""

    def events(self, window: Window, hosts: Sequence[str] | None) -> Iterable[EventRow]:
        """Read the last event of each host and kind, of each place that the host was at; ended ones too."""

    def disputed_events(self, window: Window, hosts: Sequence[str] | None) -> Iterable[EventRow]:
        """Read when the last disputed event of each host and kind is stamped. Where none is, that costs little."""

    def every_event(self, window: Window, hosts: Sequence[str] | None) -> Iterable[EventRow]:
        """Read every event of hosts in a time, and whether it is disputed."""

    def sources(self, window: Window, hosts: Sequence[str] | None) -> Iterable[SourceRow]:
        """Read what every source of hosts said last."""

    def names(self, site: str | None) -> set[str]:
        """Read every name of a host that is known."""

    def sites(self) -> set[str]:
        """Read the name of every site that is known."""

    def active(self, window: Window, hosts: Sequence[str] | None) -> set[str] | None:
        """Read the names of hosts that may have points in a time: others have none. None where only points can tell."""


class DatabaseReader(ABC, FleetBackend):
    """A reader of a database on a server, whose language its subclasses know; of one environment, or of all."""

    def __init__(self, server: Server, env: str | None = None) -> None:
        """Make ready; nothing is asked yet."""
        self.server = server
        self.env = env

    def now_ns(self) -> int:
        """Return the time of this machine's clock, or of the database's where they differ; it is asked for that."""
        self.server.look(self.doorbell)
        return self._now_ns()

    def _now_ns(self) -> int:
        """Return that time by the database's last answer."""
        own_ns = time.time_ns()
        skew_s = self.server.skew_s
        if skew_s is None or abs(skew_s) <= SKEW_S or not 0 < own_ns + skew_s * NS_PER_S < _LAST_NS:
            return own_ns
        return own_ns + _ns(skew_s)

    def is_present(self, moment_ns: int) -> bool:
        """Whether a moment is about now: what is stamped after it has come already, and is not yet to come."""
        return moment_ns >= self._now_ns() - _AHEAD_NS

    def skew_s(self) -> float | None:
        """Return how far the database's clock is ahead of this machine's, within a second; None before it is asked."""
        return self.server.skew_s

    def snapshot(self, now_ns: int, reach: SnapshotOptions) -> Snapshot:
        """Read every host as it stood at a moment. ReadError where nothing is known of any."""
        self.server.reset_weight()
        try:
            return _take(self, now_ns, reach)
        except UnexpectedReplyError as error:
            raise self._explained(error) from error

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What is read from, by its family."""

    @property
    @abstractmethod
    def doorbell(self) -> str:
        """Where an answer costs least."""

    def _explained(self, error: ReadError) -> ReadError:
        """Say for certain that it is another kind of database than was asked, where that is so."""
        found, key = self.server.kind(), self.server.keys["language"]
        if found == self.kind:
            return error
        if found is None:
            other: Kind = "VictoriaMetrics" if self.kind == "InfluxDB" else "InfluxDB"
            return ReadError(error.reason, f"{error.remedy}; if this is {other}: {_speak(other, key)}")
        return ReadError(f"{self.server.where}: this is {found}, not {self.kind}", _speak(found, key))

    def close(self) -> None:
        """Close the connections."""
        self.server.close()


def _nobody(remote: DatabaseReader, site: str | None) -> ReadError:
    """Say that no agent has delivered, and what to look at: a database of another kind may say so of itself."""
    from ntpaudit.fleet.suggestion import nearest

    named = {"site": site, "environment": remote.env}
    whose = " and ".join(f"{word} {name!r}" for word, name in named.items() if name is not None)
    words = [word for word, name in named.items() if name is not None]
    names = f"check the name{'s' if words[1:] else ''} of the {' and the '.join(words)}, " if words else ""
    if site is not None and (near := nearest(site, remote.sites())) is not None:
        return ReadError(f"{remote.place} knows no host of site {site!r}", f"did you mean {near}?")
    database = f", set another database with {remote.server.keys['database']}" if remote.kind == "InfluxDB" else ""
    return UnexpectedReplyError(
        f"no agent{' of ' + whose if whose else ''} has delivered anything to {remote.place} yet",
        f"{names}check whether agents deliver there (run `ntpaudit status` on a host){database}",
    )


def _speak(kind: Kind, key: str) -> str:
    """Say how to choose the language of a kind of database, by the option or the key that is in use."""
    language = "influxql" if kind == "InfluxDB" else "promql"
    return f"{key} {language}" if key.startswith("-") else f'{key} = "{language}", or --language {language}'


def _take(questions: DatabaseReader, now_ns: int, reach: SnapshotOptions) -> Snapshot:
    """Ask what can be asked at once, and then what depends on the answers."""
    site = reach.site
    before_ns = now_ns - _ns(reach.baseline_s)
    fields = FULL_FIELDS if reach.in_full else JUDGED_FIELDS
    is_present = questions.is_present(now_ns)
    until_ns = now_ns + _AHEAD_NS if is_present else now_ns
    look_back = Window(now_ns - _ns(reach.look_back_s), until_ns)
    recent = Window(now_ns - _ns(min(FRESH_S, reach.look_back_s)), until_ns, site)
    named = start(lambda: questions.names(site))
    fresh = questions.points(recent, fields)
    coming, every = Window(until_ns, _LAST_NS, site), (*fields, *DISPUTED_FIELDS)
    stamped = Window(look_back.begin_ns - _ns(MAX_STAMP_DISPUTE_S), until_ns, site)  # that of one that came since
    disputed = start(lambda: hosts_of(questions.disputed(stamped, every)))
    ahead = start(lambda: hosts_of(questions.ahead(coming, every)) if is_present else {})
    reporting = Window(now_ns - _ns(min(reach.silent_after_s, reach.look_back_s)), until_ns, site)
    drifting = start(lambda: list(questions.drifting(reporting)))
    everywhere = None if site is not None else _start_everywhere(questions, now_ns, reach)
    before = questions.points(_window(before_ns, FRESH_S, site), BOUND_FIELDS)
    names = named()
    seen = names_of(fresh.names())
    unseen = sorted(names - seen)
    # Read after `disputed`, these may have a later point than it found: so each says itself whether it is disputed.
    late = start(lambda: _older(questions, look_back, unseen, every, site))  # while the others are read and decoded
    stood = start(lambda: _baseline(questions, _window(before_ns, BASELINE_S), seen | late().keys(), before))
    by_stamp = hosts_of(fresh.clocks())
    older = late()
    by_stamp |= {name: host for name, host in older.items() if site in (None, host.site)}
    doubted = disputed().keys() | ahead().keys() | {name for name, host in older.items() if host.disputed_s}
    hosts = current(by_stamp, disputed(), ahead())
    if not names and not hosts:
        raise _nobody(questions, site)
    hosts |= _arrived(questions, stamped, recent, hosts, doubted, every)
    forgotten = sorted(names - hosts.keys() - older.keys())
    known = names | hosts.keys()  # of a site also those whose last point is from elsewhere: they may be several
    events, several = everywhere or _start_here(questions, now_ns, reach, sorted(known))
    lately = _window(now_ns, min(reach.silent_after_s, reach.look_back_s))
    found = _duplicate_hosts(questions, lately, sorted(several() & known))
    duplicates = tuple(duplicate for duplicate in found if site is None or site in duplicate.sites)
    hosts |= _clashing(questions, lately._replace(site=site), duplicates, every, hosts)
    hosts |= _doubtful(questions, look_back, hosts)
    hosts |= with_drift(hosts, drifting())
    future = sorted(name for name, host in hosts.items() if host.last_ns > until_ns)
    lies = start(lambda: _falseticker_reports(questions, look_back, coming, hosts))
    earlier = {name: one for name, one in stood().items() if name in hosts}
    earlier = _undisputed(questions, _window(before_ns, BASELINE_S), earlier, doubted)
    for duplicate in duplicates:  # it is unknown which of them it was
        earlier.pop(duplicate.name, None)
    if not reach.in_full:
        hosts = hosts | _rated(questions, now_ns, site, hosts, earlier)  # another one: who lies is being sought in this
    return Snapshot(
        now_ns,
        tuple(hosts.values()),
        alarms_of([*events(), *_coming(questions, coming, future)], now_ns, reach.baseline_s),
        lies(),
        {name: one.bounds for name, one in earlier.items()},
        reach.baseline_s,
        tuple(forgotten),
        {name: one.stamp_ns for name, one in earlier.items()},
        duplicates,
        reach.look_back_s,
        _sites(questions, look_back, forgotten),
        is_present,
    )


def _arrived(
    questions: FleetBackend,
    stamped: Window,
    recent: Window,
    hosts: Mapping[str, Host],
    doubted: Set[str],
    fields: Sequence[str],
) -> dict[str, Host]:
    """Read the point that came last of hosts with disputed points of which none that came recently is known (B8).

    Points that came earlier may be stamped later. First every recent stamp is read, which is enough for nearly all
    hosts whose servers are right again; the whole time of which stamps may be is searched for the others.
    """
    left = unsettled(hosts, doubted, recent.begin_ns)
    if not left:
        return {}
    found = later(left, questions.every(recent, sorted(left) if len(left) <= MAX_NAMES else None, fields))
    left = unsettled(left | found, left, recent.begin_ns)
    names = sorted(left)
    for begin in range(0, len(names), MAX_NAMES):
        found |= _searched(questions, stamped, {name: left[name] for name in names[begin : begin + MAX_NAMES]}, fields)
    return found


def _searched(
    questions: FleetBackend, stamped: Window, hosts: Mapping[str, Host], fields: Sequence[str]
) -> dict[str, Host]:
    """Read the points of those spans that may hold the one that came last, the likeliest first."""
    end_ns = stamped.end_ns + _ns(MAX_STAMP_DISPUTE_S)
    spans = split(stamped.begin_ns, end_ns, round((end_ns - stamped.begin_ns) / _ns(SPAN_S)))
    left = spans_of_arrival(spans, questions.counts(spans, stamped.site, [*hosts]), hosts, stamped.end_ns)
    latest = dict(hosts)
    while left:
        names: dict[int, list[str]] = {}
        for name, places in left.items():
            names.setdefault(places.pop()[1], []).append(name)
        for place, those in names.items():
            begin_ns = spans.begin_ns + place * spans.width_ns
            span = Window(begin_ns - _SLACK_NS, begin_ns + spans.width_ns, stamped.site)
            latest |= later({name: latest[name] for name in those}, questions.every(span, those, fields))
        left = {name: rest for name, places in left.items() if (rest := _after(places, latest[name]))}
    return {name: host for name, host in latest.items() if host is not hosts[name]}


def _after(places: Sequence[tuple[int, int]], host: Host) -> list[tuple[int, int]]:
    """Return those spans whose points may have come later than a host's."""
    return [(until_ns, place) for until_ns, place in places if until_ns > came_ns(host.last_ns, host.disputed_s)]


def _undisputed(
    questions: FleetBackend, window: Window, earlier: Mapping[str, BaselineRow], doubted: Set[str]
) -> dict[str, BaselineRow]:
    """Replace what hosts with disputed points reported before by what no clock contradicted then.

    Else a host whose servers were wrong then, and are right now, would seem to have moved.
    """
    names = sorted(earlier.keys() & doubted)
    if not names:
        return dict(earlier)
    fields = ("severity", *BOUND_FIELDS, "disputed_s")
    rows = questions.every(window, names if len(names) <= MAX_NAMES else None, fields)
    known = offsets_of(row for row in rows if row.disputed_s is None and row.name in doubted)
    return {name: one for name, one in earlier.items() if name not in doubted} | {
        name: one for name, one in known.items() if name in earlier
    }


def _doubtful(questions: DatabaseReader, look_back: Window, hosts: Mapping[str, Host]) -> dict[str, Host]:
    """Read more of the hosts whose interval may prove worse than they report; of some it is known already."""
    doubtful = {
        name: host
        for name, host in hosts.items()
        if host.warning_s is None and host.last_ns <= look_back.end_ns and needs_tolerances(host)
    }
    if not doubtful:
        return {}
    stamps = [host.last_ns for host in doubtful.values()]
    window = Window(min(stamps) - 1, max(stamps))
    return with_tolerances(
        doubtful, questions.latest(window, [*doubtful] if len(doubtful) <= MAX_NAMES else None, TOLERANCE_FIELDS)
    )


def _coming(questions: DatabaseReader, coming: Window, names: Sequence[str]) -> list[EventRow]:
    """Read what happened on hosts at times that are ahead of now; what began before and ended then is over."""
    if not names:
        return []
    wanted = frozenset(names)
    rows = questions.events(coming, names if len(names) <= MAX_NAMES else None)
    return [row for row in rows if isinstance(row.host, str) and row.host in wanted]


def _events(questions: DatabaseReader, now_ns: int, names: Sequence[str] | None) -> list[EventRow]:
    """Read the last event of each host and kind by its stamp, and all that may have come later than that (B8).

    Only what is disputed can have; it may be stamped ahead of now. Where nothing is, one question finds nothing.
    """
    window = _window(now_ns, EVENTS_S)
    end_ns = now_ns + _ns(MAX_STAMP_DISPUTE_S) if questions.is_present(now_ns) else now_ns
    disputed = start(lambda: list(questions.disputed_events(window._replace(end_ns=end_ns), names)))
    rows = list(questions.events(window, names))
    left = sorted((stamp_ns, event) for event, stamp_ns in undecided(rows, disputed()).items())
    while left:
        together = [one for one in left if one[0] <= left[0][0] + REORDERED_NS]
        left = left[len(together) :]
        span = Window(together[0][0] - REORDERED_NS, together[-1][0])
        wanted = {event for _, event in together}
        hosts = sorted({host for host, _ in wanted})
        found = questions.every_event(span, hosts if len(hosts) <= MAX_NAMES else None)
        rows += (row for row in found if (text(row.host), text(row.kind)) in wanted)
    return rows


Awaited = tuple[Callable[[], list[EventRow]], Callable[[], set[str]]]
"""What happened last, and which hosts reported from several places: called, they wait for the answers."""


def _start_everywhere(
    questions: DatabaseReader, now_ns: int, reach: SnapshotOptions, names: Sequence[str] | None = None
) -> Awaited:
    """Begin to ask about all hosts, or about some, wherever they stand and stood."""
    lately = _window(now_ns, min(reach.silent_after_s, reach.look_back_s))
    return (
        start(lambda: _events(questions, now_ns, names)),
        start(lambda: questions.several(lately, names)),
    )


def _start_here(questions: DatabaseReader, now_ns: int, reach: SnapshotOptions, names: Sequence[str]) -> Awaited:
    """Begin to ask about the hosts of a site by their names: their findings may have begun at another one."""
    events, several = _start_everywhere(questions, now_ns, reach, names if len(names) <= MAX_NAMES else None)
    wanted = frozenset(names)
    return lambda: [row for row in events() if text(row.host) in wanted], several


def _sites(questions: FleetBackend, window: Window, names: Sequence[str]) -> dict[str, str]:
    """Read where hosts were that are forgotten, unless these are so many that it would take its time."""
    return sites_of(questions.origins(window, names)) if 0 < len(names) <= MAX_NAMES else {}


def _duplicate_hosts(questions: FleetBackend, lately: Window, names: Sequence[str]) -> tuple[DuplicateHost, ...]:
    """Find out which of the hosts that reported from several places are several."""
    if not names:
        return ()
    wanted = frozenset(names)
    found = duplicate_hosts_of(questions.trail(lately, names if len(names) <= MAX_NAMES else None))
    return tuple(duplicate for duplicate in found if duplicate.name in wanted)


def _clashing(
    questions: FleetBackend,
    lately: Window,
    duplicates: Sequence[DuplicateHost],
    fields: Sequence[str],
    hosts: Mapping[str, Host],
) -> dict[str, Host]:
    """Read the worst of the machines of each such name; of a site, of those that are there."""
    if not duplicates:
        return {}
    names = [duplicate.name for duplicate in duplicates]
    points = questions.latest(lately, names if len(names) <= MAX_NAMES else None, fields)
    return worst_of(points, frozenset(names), hosts, lately.begin_ns)


def _falseticker_reports(
    questions: FleetBackend, look_back: Window, coming: Window, hosts: Mapping[str, Host]
) -> tuple[FalsetickerReport, ...]:
    """Read the falsetickers of those hosts that see any, ahead of now too where a host is there."""
    asked = [host.name for host in hosts.values() if host.falsetickers]
    said = list(questions.sources(look_back, asked if len(asked) <= MAX_NAMES else None)) if asked else []
    if future := [name for name in asked if hosts[name].last_ns > coming.begin_ns]:
        said += questions.sources(coming, future if len(future) <= MAX_NAMES else None)
    wanted = frozenset(asked)
    return tuple(lie for lie in falseticker_reports_of(said) if lie.host in wanted)


def _baseline(questions: FleetBackend, window: Window, names: Set[str], before: Points) -> dict[str, BaselineRow]:
    """Add to the offsets in a short time those of hosts that are audited less often, or stood elsewhere."""
    missing = sorted(names - names_of(before.names()))
    late = questions.latest(window, missing if len(missing) <= MAX_NAMES else None, BOUND_FIELDS) if missing else ()
    return offsets_of(late) | offsets_of(before.clocks())


def _rated(
    questions: FleetBackend,
    now_ns: int,
    site: str | None,
    hosts: Mapping[str, Host],
    earlier: Mapping[str, BaselineRow],
) -> dict[str, Host]:
    """Read how the clocks run that moved for certain, which says whether they go on; of others nobody wants to know."""
    moved = {
        name: host
        for name, one in earlier.items()
        if (host := hosts[name]).offset is not None
        and host.frequency_ppm is None
        and has_moved(one.bounds, host.offset)
    }
    if not moved:
        return {}
    since = Window(min(host.last_ns for host in moved.values()) - 1, now_ns, site)
    return rated(moved, questions.latest(since, [*moved] if len(moved) <= MAX_NAMES else None, RATE_FIELDS))


def _older(
    questions: FleetBackend, look_back: Window, unseen: Sequence[str], fields: Sequence[str], site: str | None
) -> dict[str, Host]:
    """Read hosts that have no fresh point, wherever they stand: one may have moved to another site."""
    if not unseen:
        return {}
    # a list of all names was seen to be whole only of the site that is asked about
    active = questions.active(look_back, unseen if site is not None or len(unseen) <= MAX_NAMES else None)
    names = unseen if active is None else [name for name in unseen if name in active]
    if not names:
        return {}
    hosts = hosts_of(questions.latest(look_back, names if len(names) <= MAX_NAMES else None, fields))
    wanted = frozenset(names)
    return {name: host for name, host in hosts.items() if name in wanted}


def _window(end_ns: int, length_s: float, site: str | None = None) -> Window:
    """Return the time of a length that ends then."""
    return Window(end_ns - _ns(length_s), end_ns, site)


def _ns(span_s: float) -> int:
    """Return a span in nanoseconds."""
    return round(span_s * NS_PER_S)

"""A snapshot put together from what a database answers from afar: few questions, and most of them at the same time."""

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from ntpaudit.core.fleet import Host, Lie, Offset, Snapshot
from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.errors import ReadError, StrangeAnswerError
from ntpaudit.fleet.http import Kind, Server, start
from ntpaudit.fleet.reader import Reach
from ntpaudit.fleet.rows import (
    BEFORE_S,
    EVENTS_S,
    Clock,
    Happening,
    Said,
    alarms_of,
    hosts_of,
    lies_of,
    offsets_of,
)

FRESH_S = 150.0
"""Nearly every host has a point that is no older, and that is read at a fraction of what the whole look-back costs."""

MAX_NAMES = 500
"""More hosts than these are read faster by asking for all."""


class Window(NamedTuple):
    """A time that holds its end, and not its begin, and the site that is asked about: None is all."""

    begin_ns: int
    end_ns: int
    site: str | None = None


class Questions(Protocol):
    """What a database can be asked. Where `hosts` is None that is all. Every method raises ReadError."""

    @property
    def place(self) -> str:
        """What is read from, in words."""

    def points(self, window: Window) -> Iterable[Clock]:
        """Read the points in a short time: of each host the latest, and perhaps more."""

    def latest(self, window: Window, hosts: Sequence[str] | None) -> Iterable[Clock]:
        """Read the latest point of hosts in a long time."""

    def offsets(self, window: Window) -> Iterable[Clock]:
        """Read the offsets in a short time, and nothing else of the points: of each host the last, and perhaps more."""

    def latest_offsets(self, window: Window, hosts: Sequence[str] | None) -> Iterable[Clock]:
        """Read the last offset of hosts in a long time."""

    def events(self, window: Window) -> Iterable[Happening]:
        """Read the last event of each host and kind; what is over may be left out."""

    def sources(self, window: Window, hosts: Sequence[str] | None) -> Iterable[Said]:
        """Read what every source of hosts said last."""

    def names(self, site: str | None) -> set[str]:
        """Read every name of a host that is known."""


class Remote(ABC, Questions):
    """A reader of a database on a server, whose language its subclasses know."""

    def __init__(self, server: Server) -> None:
        """Make ready; nothing is asked yet."""
        self.server = server

    def now_ns(self) -> int:
        """Return the time of this host's clock."""
        return time.time_ns()

    def skew_s(self) -> float | None:
        """Return how far the database's clock is ahead of this machine's, within a second; None before it is asked."""
        return self.server.skew_s

    def snapshot(self, now_ns: int, reach: Reach) -> Snapshot:
        """Read every host as it stood at a moment. ReadError where nothing is known of any."""
        with _uncollected():
            try:
                return _take(self, now_ns, reach)
            except StrangeAnswerError as error:
                raise self._explained(error) from error

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What is read from, by its family."""

    def _explained(self, error: ReadError) -> ReadError:
        """Say for certain that it is another kind of database than was asked, where that is so."""
        found, key = self.server.kind(), self.server.keys["language"]
        if found == self.kind:
            return error
        if found is None:
            other: Kind = "VictoriaMetrics" if self.kind == "InfluxDB" else "InfluxDB"
            return ReadError(error.reason, f"{error.remedy}; if this is {other}: {_speak(other, key)}")
        return ReadError(f"{self.server.where}: this is {found}, and was asked as {self.kind} is", _speak(found, key))

    def close(self) -> None:
        """Close the connections."""
        self.server.close()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no cycles among the objects of a block: a third of its time, for answers that have none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _nobody(remote: Remote, site: str | None) -> ReadError:
    """Say that no agent has delivered, and what to look at: a database of another kind may say so of itself."""
    whose, sites = "no agent", ""
    if site is not None:
        whose, sites = f"no agent of site {site!r}", "check the name of the site, "
    database = f", name another database in {remote.server.keys['database']}" if remote.kind == "InfluxDB" else ""
    return StrangeAnswerError(
        f"{whose} has delivered anything to {remote.place} yet",
        f"{sites}see whether agents deliver there (`ntpaudit status` on a host){database}",
    )


def _speak(kind: Kind, key: str) -> str:
    """Say how to choose the language of a kind of database, by the option or the key that is in use."""
    language = "influxql" if kind == "InfluxDB" else "promql"
    return f"{key} {language}" if key.startswith("-") else f'{key} = "{language}", or --language {language}'


def _take(questions: Remote, now_ns: int, reach: Reach) -> Snapshot:
    """Ask what can be asked at once, and then what depends on the answers."""
    site = reach.site
    before_ns = now_ns - _ns(reach.before_s)
    fresh = start(lambda: hosts_of(questions.points(_window(now_ns, min(FRESH_S, reach.look_back_s), site))))
    before = start(lambda: offsets_of(questions.offsets(_window(before_ns, FRESH_S, site))))
    alarms = start(lambda: alarms_of(questions.events(_window(now_ns, EVENTS_S, site)), now_ns, reach.before_s))
    names = questions.names(site)
    hosts = fresh()
    if not names and not hosts:
        raise _nobody(questions, site)
    look_back = _window(now_ns, reach.look_back_s)
    older = _older(questions, look_back, sorted(names - hosts.keys()))
    hosts |= {name: host for name, host in older.items() if site in (None, host.site)}
    return Snapshot(
        now_ns,
        tuple(hosts.values()),
        alarms(),
        _lies(questions, look_back, hosts),
        _before(questions, _window(before_ns, BEFORE_S, site), hosts, before()),
        reach.before_s,
        tuple(sorted(names - hosts.keys() - older.keys())),
    )


def _lies(questions: Questions, look_back: Window, hosts: Mapping[str, Host]) -> tuple[Lie, ...]:
    """Read the falsetickers of those hosts that see any."""
    asked = [host.name for host in hosts.values() if host.falsetickers]
    said = questions.sources(look_back, asked if len(asked) <= MAX_NAMES else None) if asked else ()
    wanted = frozenset(asked)
    return tuple(lie for lie in lies_of(said) if lie.host in wanted)


def _before(
    questions: Questions, window: Window, hosts: Mapping[str, Host], offsets: dict[str, Offset]
) -> dict[str, Offset]:
    """Add the offsets of hosts that are audited less often than most."""
    missing = [name for name, host in hosts.items() if host.offset is not None and name not in offsets]
    if not missing:
        return offsets
    added = offsets_of(questions.latest_offsets(window, missing if len(missing) <= MAX_NAMES else None))
    return added | offsets


def _older(questions: Questions, look_back: Window, names: Sequence[str]) -> dict[str, Host]:
    """Read hosts that have no fresh point, wherever they stand: one may have moved to another site."""
    if not names:
        return {}
    hosts = hosts_of(questions.latest(look_back, names if len(names) <= MAX_NAMES else None))
    wanted = frozenset(names)
    return {name: host for name, host in hosts.items() if name in wanted}


def _window(end_ns: int, length_s: float, site: str | None = None) -> Window:
    """Return the time of a length that ends then."""
    return Window(end_ns - _ns(length_s), end_ns, site)


def _ns(span_s: float) -> int:
    """Return a span in nanoseconds."""
    return round(span_s * NS_PER_S)

"""A snapshot put together from what a database answers from afar: few questions, and most of them at the same time."""

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from ntpaudit.core.fleet import Host, Offset, Snapshot
from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.errors import ReadError
from ntpaudit.fleet.http import start
from ntpaudit.fleet.reader import Reach
from ntpaudit.fleet.rows import (
    BEFORE_S,
    EVENTS_S,
    Cell,
    Clock,
    Happening,
    Said,
    alarms_of,
    hosts_of,
    lies_of,
    number,
    offsets_of,
)

FRESH_S = 180.0
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
        """Read the last point of each host that has an offset, and nothing but that of it."""

    def events(self, window: Window) -> Iterable[Happening]:
        """Read the last event of each host and kind; what is over may be left out."""

    def sources(self, window: Window, hosts: Sequence[str] | None) -> Iterable[Said]:
        """Read what every source of hosts said last."""

    def details(self, window: Window, hosts: Sequence[str] | None) -> Mapping[str, tuple[Cell, Cell]]:
        """Read `age_s` and `frequency_ppm` of hosts where the points that were read have not brought them."""

    def names(self, site: str | None) -> set[str]:
        """Read every name of a host that is known."""


def take_snapshot(questions: Questions, now_ns: int, reach: Reach) -> Snapshot:
    """Read every host as it stood at a moment. ReadError where nothing is known of any."""
    with _uncollected():
        return _take(questions, now_ns, reach)


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


def _take(questions: Questions, now_ns: int, reach: Reach) -> Snapshot:
    """Ask what can be asked at once, and then what depends on the answers."""
    site = reach.site
    before_ns = now_ns - _ns(reach.before_s)
    fresh = start(lambda: hosts_of(questions.points(_window(now_ns, min(FRESH_S, reach.look_back_s), site))))
    before = start(lambda: offsets_of(questions.offsets(_window(before_ns, BEFORE_S, site))))
    alarms = start(lambda: alarms_of(questions.events(_window(now_ns, EVENTS_S, site)), now_ns))
    names = questions.names(site)
    hosts = fresh()
    if not names and not hosts:
        whose = "no agent" if site is None else f"no agent of site {site!r}"
        raise ReadError(f"{whose} has delivered anything to {questions.place} yet")
    look_back = _window(now_ns, reach.look_back_s)
    older = _older(questions, look_back, sorted(names - hosts.keys()), site)
    hosts |= {name: host for name, host in older.items() if site in (None, host.site)}
    earlier = before()
    hosts = _detailed(questions, look_back, hosts, earlier)
    lying = [host.name for host in hosts.values() if host.falsetickers]
    lies = lies_of(questions.sources(look_back, lying if len(lying) <= MAX_NAMES else None)) if lying else ()
    return Snapshot(
        now_ns,
        tuple(hosts.values()),
        alarms(),
        tuple(lie for lie in lies if lie.host in hosts),
        earlier,
        reach.before_s,
        tuple(sorted(names - hosts.keys() - older.keys())),
    )


def _older(questions: Questions, look_back: Window, names: Sequence[str], site: str | None) -> dict[str, Host]:
    """Read hosts that have no fresh point, wherever they stand: one may have moved to another site."""
    if not names:
        return {}
    if len(names) <= MAX_NAMES:
        return hosts_of(questions.latest(look_back, names))
    wanted = frozenset(names)
    hosts = hosts_of(questions.latest(look_back._replace(site=site), None))
    return {name: host for name, host in hosts.items() if name in wanted}


def _detailed(
    questions: Questions, look_back: Window, hosts: dict[str, Host], before: Mapping[str, Offset]
) -> dict[str, Host]:
    """Add the details of all hosts, or where these are many, of those that are not ok or that moved for certain."""
    notable = [name for name, host in hosts.items() if host.severity or _has_moved(host.offset, before.get(name))]
    asked = list(hosts) if len(hosts) <= MAX_NAMES else notable
    details = questions.details(look_back, asked if len(asked) <= MAX_NAMES else None) if asked else {}
    return hosts | {
        name: hosts[name]._replace(age_s=number(age_s), frequency_ppm=number(frequency_ppm))
        for name, (age_s, frequency_ppm) in details.items()
        if name in hosts
    }


def _has_moved(now: Offset | None, then: Offset | None) -> bool:
    """Whether an offset cannot be what it was."""
    return (
        now is not None
        and then is not None
        and not (now.earliest_s <= then.latest_s and then.earliest_s <= now.latest_s)
    )


def _window(end_ns: int, length_s: float, site: str | None = None) -> Window:
    """Return the time of a length that ends then."""
    return Window(end_ns - _ns(length_s), end_ns, site)


def _ns(span_s: float) -> int:
    """Return a span in nanoseconds."""
    return round(span_s * NS_PER_S)

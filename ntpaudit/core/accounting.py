"""The state of each second of a host: within, unproven, beyond, unmeasured, absent or off (AC1, AC2).

Time is partitioned, not sampled: over any period the six states add up to its length, to the second. Times are measured
UTC in whole seconds.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

from ntpaudit.core.checks.offset import NOT_DEMONSTRABLE, OFFSET_OUT
from ntpaudit.core.checks.sources import SOURCE_QUORUM
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.policy import Profile, Verdict
from ntpaudit.core.record import Record
from ntpaudit.core.units import HOUR_S, NS_PER_S

State = Literal["within", "unproven", "beyond", "unmeasured", "absent", "off"]
"""A verdict while the agent ran, `absent` while only the host ran, `off` while the host did not run."""

GRACE = 3.3  # the time between two records has their verdicts if it is at most this many local intervals (AC2)

JUMP_NS = HOUR_S * NS_PER_S
_SETTLED_NS = 24 * JUMP_NS

_WORST: tuple[Verdict, ...] = ("within", "unproven", "unmeasured", "beyond")  # from best to worst, by severity


class InForce(NamedTuple):
    """What was in force from a moment on: the names of the host, the program, its configuration and the tolerances."""

    since_s: int
    host: str
    site: str | None
    env: str | None
    machine_id: str | None
    version: str
    config_sha256: str | None
    profile: Profile


class Facts(NamedTuple):
    """What a record shows besides its verdict. Offsets in seconds, positive is behind; None when unmeasured.

    - `is_guaranteed`: the interval proves something (R1).
    - `queried`: how many sources a network audit queried, None for a local one; `usable`: how many the last poll found.
    - `findings`: the id and the message of those that count, of a record that is not `within`; `is_accepted`: a finding
      that states its verdict is accepted.
    """

    earliest_s: float | None = None
    latest_s: float | None = None
    is_guaranteed: bool = True
    queried: int | None = None
    usable: int = 0
    findings: tuple[tuple[str, str], ...] = ()
    in_force: InForce | None = None
    is_accepted: bool = False

    @property
    def interval(self) -> Interval | None:
        """The interval of the offset."""
        if self.earliest_s is None or self.latest_s is None:
            return None
        return Interval(round(self.earliest_s * NS_PER_S), round(self.latest_s * NS_PER_S))


class Moment(NamedTuple):
    """One record: its true time, uptime, suspended time in that uptime, verdict, and the local interval from then."""

    utc_s: int
    boot_id: str | None
    up_s: float
    slept_s: float
    verdict: Verdict
    local_s: float
    facts: Facts = Facts()


class Unplaced(NamedTuple):
    """A record as it is stored: `utc_ns` is None if its true time was not known; `moment.utc_s` is not set yet."""

    utc_ns: int | None
    host_ns: int
    boottime_ns: int
    moment: Moment


class Stretch(NamedTuple):
    """A period [begin_s, end_s) in one state; `usable` sources were usable at both of its ends."""

    begin_s: int
    end_s: int
    state: State
    usable: int = 0


class Spans(NamedTuple):
    """The seconds in each state."""

    within: int = 0
    unproven: int = 0
    beyond: int = 0
    unmeasured: int = 0
    absent: int = 0
    off: int = 0


def facts_of(record: Record) -> Facts:
    """Return what a record shows besides its verdict."""
    offset, host, agreement = record.offset, record.host, record.agreement
    names = (host.name, host.site, host.env, host.machine_id, record.version, record.config_sha256)
    return Facts(
        None if offset is None else offset.earliest_s,
        None if offset is None else offset.latest_s,
        agreement.guaranteed,
        agreement.asked if record.kind == "network" else None,
        record.coverage.usable,
        () if record.verdict == "within" else tuple((one.id, one.message) for one in record.findings if one.severity),
        InForce(0, *names, record.profile),
        any(states_verdict(one.id) and one.accepted is not None for one in record.findings),
    )


def states_verdict(finding: str) -> bool:
    """Whether a finding states that the clock is beyond its tolerance, or not proven to be within it."""
    return finding in (OFFSET_OUT.id, NOT_DEMONSTRABLE.id, SOURCE_QUORUM.id)


def settled(rows: Iterable[Unplaced], began_ns: int | None = None) -> list[Unplaced]:
    """Return the records up to the first that states a jump of the true time which is not settled yet.

    It is a jump if the true time advances by `JUMP_NS` more or less than the uptime. It counts after it has lasted a
    day. If the true time returns before, the records between prove nothing, and have no true time of their own:
    otherwise servers that are wrong for a minute could account for years to come. `began_ns` is that of `dated`.
    """
    found, doubtful, boot_id, is_first = list[Unplaced](), list[Unplaced](), None, True
    for row in rows:
        if row.moment.boot_id != boot_id or row.moment.boot_id is None:
            found, doubtful = found + doubtful, []
            boot_id, began_ns = row.moment.boot_id, began_ns if is_first else None
        is_first = False
        here_ns = began_ns if row.utc_ns is None else row.utc_ns - row.boottime_ns
        if here_ns is not None and began_ns is not None and abs(here_ns - began_ns) > JUMP_NS:
            doubtful.append(row)
            if row.boottime_ns - doubtful[0].boottime_ns < _SETTLED_NS:
                continue
            row = doubtful.pop()
        elif row.utc_ns is None and doubtful:
            doubtful.append(row)
            continue
        else:
            doubtful = [_unproven(one) for one in doubtful]
        found += [*doubtful, row]
        doubtful, began_ns = [], here_ns
    return found


def _unproven(row: Unplaced) -> Unplaced:
    facts = row.moment.facts._replace(earliest_s=None, latest_s=None)
    moment = row.moment._replace(verdict=_worse(row.moment.verdict, "unmeasured"), facts=facts)
    return row._replace(utc_ns=None, moment=moment)


def dated(rows: Iterable[Unplaced], began_ns: int | None = None) -> Iterator[Unplaced]:
    """Give a true time, by the uptime, to each record that follows one with a true time in its boot.

    `began_ns` is the true time at which the boot of the first record began, if an earlier record shows it.
    """
    boot_id: str | None = None
    is_first = True
    for row in rows:
        if row.moment.boot_id != boot_id or row.moment.boot_id is None:
            boot_id, began_ns = row.moment.boot_id, began_ns if is_first else None
        is_first = False
        if row.utc_ns is not None:
            began_ns = row.utc_ns - row.boottime_ns
        yield row if row.utc_ns is not None or began_ns is None else row._replace(utc_ns=began_ns + row.boottime_ns)


def first_s(rows: Sequence[Unplaced]) -> int | None:
    """Return the true time of the first record of the first boot that was measured; None if none was.

    A host without a battery begins each boot in the past; what an unmeasured one shows is no beginning of a history.
    """
    for row in rows:
        if row.utc_ns is not None:
            boot_id = row.moment.boot_id
            first = row if boot_id is None else next(one for one in rows if one.moment.boot_id == boot_id)
            return (row.utc_ns - row.boottime_ns + first.boottime_ns) // NS_PER_S
    return None


def placed(rows: Iterable[Unplaced]) -> Iterator[Moment]:
    """Yield every record at its true time, in order.

    A record without one is placed by its uptime, where any record of its boot has a true time; of a boot that was never
    measured it is placed by the host's clock, if that lies between the records before and after.
    """
    last_s, never_measured = 0, list[Unplaced]()
    for _, group in groupby(rows, key=lambda row: row.moment.boot_id):
        boot = list(group)
        known = next((row.utc_ns for row in boot if row.utc_ns is not None), None)
        if known is None:
            never_measured += boot
            continue
        for moment in [*_by_host(never_measured, last_s, known), *_by_uptime(boot)]:
            last_s = moment.utc_s
            yield moment
        never_measured = []
    yield from _by_host(never_measured, last_s, None)


def _by_host(rows: Sequence[Unplaced], last_s: int, end_ns: int | None) -> Iterator[Moment]:
    for row in rows:
        at_s = row.host_ns // NS_PER_S
        if last_s < at_s and (end_ns is None or row.host_ns < end_ns):
            last_s = at_s
            yield row.moment._replace(utc_s=at_s)


def _by_uptime(boot: Sequence[Unplaced]) -> Iterator[Moment]:
    began_ns = next(row.utc_ns - row.boottime_ns for row in boot if row.utc_ns is not None)
    for row in boot:
        if row.utc_ns is not None:
            began_ns = row.utc_ns - row.boottime_ns
        yield row.moment._replace(utc_s=(began_ns + row.boottime_ns) // NS_PER_S)


def in_order(moments: Iterable[Moment]) -> Iterator[Moment]:
    """Yield the moments, none earlier than the one before: the true time is known only within its bound."""
    last_s: int | None = None
    for moment in moments:
        last_s = moment.utc_s if last_s is None else max(last_s, moment.utc_s)
        yield moment._replace(utc_s=last_s)


def judged_again(moment: Moment, critical_s: float) -> Moment:
    """Judge a record again, by another critical tolerance and its own interval (AC3)."""
    profile, facts = Profile("", critical_s, critical_s, "bound"), moment.facts
    return moment._replace(verdict=profile.verdict(facts.interval, guaranteed=facts.is_guaranteed))


def stretches(moments: Iterable[Moment], steps: Sequence[int] = (), until_s: int | None = None) -> Iterator[Stretch]:
    """Yield the time from the first moment to the last, and on to `until_s`, without a gap or an overlap.

    `steps` are the times at which the clock was set, in order. The time after the last moment has its verdict until a
    record is overdue; then it is `absent`.
    """
    before: Moment | None = None
    for moment in in_order(moments):
        if before is not None:
            yield from _between(before, moment, steps)
        before = moment
    if before is not None and until_s is not None and until_s > before.utc_s:
        if until_s - before.utc_s > GRACE * before.local_s:
            yield Stretch(before.utc_s, until_s, "absent")
        else:
            yield from _parted(before.utc_s, until_s, steps, before, None)


def by_hour(parts: Iterable[Stretch], until_s: int) -> dict[int, Spans]:
    """Return the spans of every hour by its beginning, up to `until_s`; what precedes the first stretch is absent."""
    hours: dict[int, list[int]] = {}
    for part in parts:
        if not hours:
            _add(hours, Stretch(part.begin_s // HOUR_S * HOUR_S, part.begin_s, "absent"), until_s)
        _add(hours, part, until_s)
    return {hour_s: Spans(*seconds) for hour_s, seconds in hours.items()}


def _add(hours: dict[int, list[int]], part: Stretch, until_s: int) -> None:
    begin_s, end_s = part.begin_s, min(part.end_s, until_s)
    state = Spans._fields.index(part.state)
    while begin_s < end_s:
        hour_s = begin_s // HOUR_S * HOUR_S
        cut_s = min(end_s, hour_s + HOUR_S)
        hours.setdefault(hour_s, [0] * len(Spans._fields))[state] += cut_s - begin_s
        begin_s = cut_s


def _between(before: Moment, after: Moment, steps: Sequence[int]) -> Iterator[Stretch]:
    if after.utc_s == before.utc_s:
        return
    has_booted = before.boot_id != after.boot_id
    if before.boot_id is None or after.boot_id is None:  # a smaller uptime shows it
        has_booted = after.up_s < before.up_s
    if has_booted:
        booted_s = max(before.utc_s, after.utc_s - round(after.up_s))
        yield from _some(before.utc_s, booted_s, "off")
        yield from _some(booted_s, after.utc_s, "absent")
        return
    slept_s = round(after.slept_s - before.slept_s) if before.boot_id == after.boot_id else 0
    asleep_s = max(before.utc_s, after.utc_s - max(0, slept_s))  # a record is made at once after a suspend
    if asleep_s - before.utc_s > GRACE * before.local_s:  # the agent may have been stopped
        yield from _long(before, after, asleep_s)
    else:
        yield from _parted(before.utc_s, asleep_s, steps, before, after)
    yield from _some(asleep_s, after.utc_s, "off")


def _long(before: Moment, after: Moment, end_s: int) -> Iterator[Stretch]:
    """Yield a stretch that is too long for the agent to have run throughout.

    The uptime shows how long the agent was stopped. If the true time has advanced by more, the servers have changed
    their time, and the difference is unmeasured.
    """
    grace_s, stopped_s = GRACE * before.local_s, end_s - before.utc_s
    up_s = after.up_s - before.up_s - max(0.0, after.slept_s - before.slept_s)
    if stopped_s - up_s > grace_s:
        stopped_s = round(up_s) if up_s > grace_s else 0
    yield from _some(before.utc_s, before.utc_s + stopped_s, "absent")
    yield from _some(before.utc_s + stopped_s, end_s, "unmeasured")


def _parted(begin_s: int, end_s: int, steps: Sequence[int], first: Moment, last: Moment | None) -> Iterator[Stretch]:
    """Yield the time between two records: the worse verdict of both, unless steps of the clock separate them.

    Nothing is proven between two steps, nor after a step without a later record (`last` is None).
    """
    inside = steps[bisect_right(steps, begin_s) : bisect_left(steps, end_s)]
    before, after = first.verdict, None if last is None else last.verdict
    usable = min(one.facts.usable for one in (first, last or first))
    worst = before if after is None else _worse(before, after)
    if not inside:
        yield from _some(begin_s, end_s, worst, usable)
        return
    unproven = _worse(worst, "unproven")
    yield from _some(begin_s, inside[0], before, usable)
    yield from _some(inside[0], inside[-1], unproven, usable)
    yield from _some(inside[-1], end_s, unproven if after is None else after, usable)


def _worse(one: Verdict, other: Verdict) -> Verdict:
    return one if one == other else max(one, other, key=_WORST.index)


def _some(begin_s: int, end_s: int, state: State, usable: int = 0) -> Sequence[Stretch]:
    return (Stretch(begin_s, end_s, state, usable),) if begin_s < end_s else ()

"""Who agrees, who lies, and what follows: the guaranteed interval and the estimate (MEASUREMENT §10)."""

from collections.abc import Iterable, Sequence
from math import fsum
from typing import NamedTuple

from ntpaudit.core.clocks import MAX_DRIFT_PPM, ClockReading, correction_ns, suspended_ns
from ntpaudit.core.measurement import MAX_DISTANCE_NS, MAX_STEP_NS, Interval, Measurement, carry_measurement
from ntpaudit.core.observation import Failure, SourceObservation, Status
from ntpaudit.core.sources import is_loopback

_EMBEDDING = (bytes(10) + b"\xff\xff", b"\x00\x64\xff\x9b" + bytes(8))
"""Prefixes of IPv6 addresses that hold an IPv4 address: mapped ones, and those of NAT64 (RFC 6052)."""


class Candidate(NamedTuple):
    """One source's statement, carried to the common instant.

    Sources that share a fate, a subnet or an upstream server, may fail together (S8).
    """

    offset_ns: int
    interval: Interval
    fates: frozenset[str]


class Agreement(NamedTuple):
    """What a majority of candidates says.

    `interval` holds the truth whenever at most `tolerated_liars` candidates lie (S2). `contradicted` means that more
    lied than were expected: the fewest liars that explain what was seen had to be assumed.
    """

    interval: Interval
    estimate_ns: int
    statuses: tuple[Status, ...]
    tolerated_liars: int
    contradicted: bool


class Judged(NamedTuple):
    """A source with its one status and reason, and its candidate where it gave a measurement."""

    source: SourceObservation
    status: Status
    reason: str | None
    candidate: Candidate | None = None
    best: Measurement | None = None


class Selection(NamedTuple):
    """All sources judged, in the order they were configured, and what they agree on; None without a majority."""

    sources: tuple[Judged, ...]
    agreement: Agreement | None

    @property
    def usable(self) -> tuple[Judged, ...]:
        """The sources whose statement took part in the vote."""
        return tuple(judged for judged in self.sources if judged.status in ("agreeing", "falseticker"))


class Votes(NamedTuple):
    """How many sources were asked, could vote, and agree, and how many may lie before the interval does."""

    sources: int
    usable: int
    agreeing: int
    tolerated_liars: int


def count_votes(selection: Selection) -> Votes:
    """Count what the vote rests on."""
    return Votes(
        sources=len(selection.sources),
        usable=len(selection.usable),
        agreeing=sum(judged.status == "agreeing" for judged in selection.sources),
        tolerated_liars=selection.agreement.tolerated_liars if selection.agreement else 0,
    )


def select(sources: Sequence[SourceObservation], now: ClockReading, drift_ppm: float = MAX_DRIFT_PPM) -> Selection:
    """Judge every source against the others at the instant `now`; the oscillator is off by `drift_ppm` at most (R4)."""
    judged = [_state(source, now, drift_ppm) for source in sources]
    voters = [index for index, entry in enumerate(judged) if entry.status == "agreeing"]
    candidates = [candidate for index in voters if (candidate := judged[index].candidate)]
    agreement = agree(candidates)
    statuses: Iterable[Status] = agreement.statuses if agreement else ["falseticker"] * len(voters)
    for index, status in zip(voters, statuses, strict=True):
        if status == "falseticker":
            entry = judged[index]
            reason = "disagrees" if agreement else "no-majority"
            judged[index] = Judged(entry.source, status, reason, entry.candidate, entry.best)
    return Selection(tuple(judged), agreement)


def agree(candidates: Sequence[Candidate]) -> Agreement | None:
    """Find the guaranteed interval, the liars and the estimate; None without a majority. Order never matters.

    S2: with at most f liars among m, the truth is covered by at least m - f intervals, so it lies in the hull of the
    points so covered. Where no point is, more than f lied: f grows to the fewest liars that explain what was seen, as
    in RFC 5905 §11.2.1, and never to half of m. Marzullo's deepest overlap is no guarantee (S3): it only names liars.
    """
    expected = expected_liars([candidate.fates for candidate in candidates])
    intervals = [candidate.interval for candidate in candidates]
    for liars in range(expected, (len(candidates) + 1) // 2):
        if (hull := _hull(intervals, len(candidates) - liars)) is not None:
            break
    else:
        return None
    statuses = _label(intervals)
    agreeing = [voter for voter, status in zip(candidates, statuses, strict=True) if status == "agreeing"]
    return Agreement(
        interval=hull,
        estimate_ns=hull.clamp(_weighted_mean(agreeing)),
        statuses=statuses,
        tolerated_liars=liars,
        contradicted=liars > expected,
    )


def expected_liars(fates: Sequence[frozenset[str]]) -> int:
    """Return how many of m sources may lie: floor((m - 1) / 3), or more where sources share a fate (S2, S8).

    Of g independent groups any floor((g - 1) / 3) may lie, each whole, as far as that is less than half of the sources,
    for beyond that nothing would be bounded. Sharing a fate never makes it fewer: a lower f narrows the interval, and
    the upstream that a source claims could then be copied by a liar to have the others believed less.
    """
    sizes = [len(group) for group in independent_groups(fates)]
    reachable = [{0}, *(set[int]() for _ in range((len(sizes) - 1) // 3))]  # by how many groups lie: how many sources
    for size in sizes:
        for count in range(len(reachable) - 1, 0, -1):
            reachable[count] |= {liars + size for liars in reachable[count - 1]}
    whole_groups = (liars for choices in reachable for liars in choices if 2 * liars < len(fates))
    return max((len(fates) - 1) // 3, *whole_groups) if fates else 0


def independent_groups(fates: Sequence[frozenset[str]]) -> list[list[int]]:
    """Group the positions of sources that share a fate, directly or through a third (S8)."""
    groups: list[tuple[frozenset[str], list[int]]] = []
    for index, own in enumerate(fates):
        joined, members, apart = own, [index], []
        for names, others in groups:
            if names & own:
                joined, members = joined | names, others + members
            else:
                apart.append((names, others))
        groups = [*apart, (joined, members)]
    return [members for _, members in groups]


def shared_fates(source: SourceObservation, best: Measurement) -> frozenset[str]:
    """Name what may take this source down together with others: its /24 or /48, and its upstream server (S8).

    Loopback is one machine whatever its addresses are called; there every port counts as a server of its own, and a
    reference id of 127.* names a local clock, not an upstream. A stratum 1 reference id names a kind of clock.
    """
    fates = {_subnet(source.address or source.name, source.port)}
    upstream = best.reply.reference_id
    if best.reply.stratum > 1 and upstream[0] not in (0, 127):
        fates.add(f"upstream {upstream.hex()}")
    return frozenset(fates)


def _subnet(address: str, port: int) -> str:
    """Return the network that an address shares with its neighbours, as a name to compare."""
    if is_loopback(address):
        return f"{address} port {port}"
    if ":" not in address:
        return ".".join(address.split(".")[:3])
    from ipaddress import IPv6Address  # imported late: only IPv6 needs it

    try:
        octets = IPv6Address(address.partition("%")[0]).packed
    except ValueError:
        return address  # of a record that no probe made
    if octets[:12] in _EMBEDDING:
        return ".".join(map(str, octets[12:15]))
    return octets[:6].hex()


def _state(source: SourceObservation, now: ClockReading, drift_ppm: float) -> Judged:
    """Give one source the status it has before the others are heard."""
    if isinstance(source.outcome, Failure):
        return Judged(source, source.outcome.status, source.outcome.reason)
    # B6: nothing can be carried over a suspend, in which the RAW clock stood still and only the hardware clock ran
    samples = [sample for sample in source.outcome if abs(suspended_ns(sample.stamps.after, now)) <= MAX_STEP_NS]
    if not samples:
        return Judged(source, "rejected", "local-step")
    best = min(samples, key=lambda sample: (sample.delay_ns, sample.stamps.arrived_ns))
    interval: Interval | None = carry_measurement(best, now, drift_ppm)
    for sample in samples:  # S9: every sample of one server bounds the same offset
        interval = interval and interval.intersect(carry_measurement(sample, now, drift_ppm))
    if interval is None:
        return Judged(source, "rejected", "inconsistent", best=best)
    offset_ns = interval.clamp(best.offset_ns - correction_ns(best.stamps.after, now))
    candidate = Candidate(offset_ns, interval, shared_fates(source, best))
    if not interval.half_width_ns <= MAX_DISTANCE_NS:
        return Judged(source, "distant", "distant", candidate, best)  # V17
    warning = best.reply.warnings[0] if best.reply.warnings else None
    return Judged(source, "agreeing", warning, candidate, best)


def _depth(intervals: Sequence[Interval], point_ns: int) -> int:
    """Count the intervals that cover a point, ends included."""
    return sum(interval.covers(point_ns) for interval in intervals)


def _hull(intervals: Sequence[Interval], depth: int) -> Interval | None:
    """Return the hull of the points that at least `depth` intervals cover; its ends are ends of theirs."""
    earliest = [i.earliest_ns for i in intervals if _depth(intervals, i.earliest_ns) >= depth]
    latest = [i.latest_ns for i in intervals if _depth(intervals, i.latest_ns) >= depth]
    return Interval(min(earliest), max(latest)) if earliest else None


def _label(intervals: Sequence[Interval]) -> tuple[Status, ...]:
    """Call a source agreeing that covers a point of the deepest overlap, and any other a falseticker (S5).

    An interval wholly inside the deepest overlap would make it deeper, so covering it is the whole rule. Where several
    overlaps are equally deep nobody can say which holds the liar, so none of their members is called one.
    """
    starts = [interval.earliest_ns for interval in intervals]
    depths = [_depth(intervals, start) for start in starts]
    deepest = [start for start, depth in zip(starts, depths, strict=True) if depth == max(depths)]
    return tuple(
        "agreeing" if any(interval.covers(point) for point in deepest) else "falseticker" for interval in intervals
    )


def _weighted_mean(candidates: Sequence[Candidate]) -> int:
    """Return the mean offset, weighted by 1 / root distance (S5, S7).

    Summed exactly (`fsum`) and relative to the least offset, so neither order nor a clock of 1970 costs a digit.
    """
    base_ns = min(candidate.offset_ns for candidate in candidates)
    weights = [1 / max(1, candidate.interval.half_width_ns) for candidate in candidates]
    moments = [weight * (candidate.offset_ns - base_ns) for weight, candidate in zip(weights, candidates, strict=True)]
    return base_ns + round(fsum(moments) / fsum(weights))

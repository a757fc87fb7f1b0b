"""Source selection: agreeing sources and falsetickers, the guaranteed interval, the estimate (S1 to S5, S7 to S9)."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import fsum
from typing import NamedTuple

from ntpaudit.core.clock.interval import MAX_DISTANCE_NS, MAX_STEP_NS, Interval
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, ClockReading, correction_ns, suspended_ns
from ntpaudit.core.ntp.measurement import Measurement, carry_measurement
from ntpaudit.core.ntp.sources import is_loopback
from ntpaudit.core.ntp.time import is_before_pivot
from ntpaudit.core.observation import SourceFailure, SourceObservation, Status

_EMBEDDING = (bytes(10) + b"\xff\xff", b"\x00\x64\xff\x9b" + bytes(8))
"""Prefixes of IPv6 addresses that contain an IPv4 address: mapped ones, and those of NAT64 (RFC 6052)."""

_OWN_CHOICE = frozenset({"interval", "pool-limit", "same-server", "nts"})
"""Reasons for which we choose not to query a source. Any other missing reply may be caused by an attacker."""

BEFORE_RELEASE = "before-release"  # the reason of a source whose time is before the pivot, a year before this release

_TWIN_NOISE_NS = 200_000  # two paths to one server may differ by this in delay and offset (R10),
_TWIN_NOISE_SHARE = 10  # or by a tenth of the delay


class Candidate(NamedTuple):
    """The offset by one source, carried to the common instant.

    Sources that share a failure domain, such as a subnet or an upstream server, may fail together (S8).
    """

    offset_ns: int
    interval: Interval
    failure_domains: frozenset[str]


class Agreement(NamedTuple):
    """The agreement of a majority of candidates.

    `interval` contains the true offset if at most `max_falsetickers` of the asked servers are falsetickers (S2, R1).
    `exceeded_assumption`: there are more falsetickers than expected; the fewest that explain the replies are assumed.
    If too few servers gave a usable reply, `is_guaranteed` is False and the interval proves nothing.
    """

    interval: Interval
    estimate_ns: int
    statuses: tuple[Status, ...]
    max_falsetickers: int
    exceeded_assumption: bool
    is_guaranteed: bool = True


class ClassifiedSource(NamedTuple):
    """A source with its status and reason, and its candidate if it gave a measurement."""

    source: SourceObservation
    status: Status
    reason: str | None
    candidate: Candidate | None = None
    best: Measurement | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it takes part in the vote. Before the vote each voter has the status `agreeing`."""
        return self.status in ("agreeing", "falseticker")

    @property
    def is_asked(self) -> bool:
        """Whether it counts as asked (R1): it does unless it is skipped by our own choice.

        If silent servers did not count, an attacker who drops an honest server's replies, or the DNS replies for its
        name, could lower the number of falsetickers that the interval survives.
        """
        return self.status != "skipped" or self.reason not in _OWN_CHOICE


class Selection(NamedTuple):
    """All sources with their status, as configured, and their agreement; None without a majority."""

    sources: tuple[ClassifiedSource, ...]
    agreement: Agreement | None

    @property
    def usable(self) -> tuple[ClassifiedSource, ...]:
        """The sources that took part in the vote."""
        return tuple(classified for classified in self.sources if classified.is_usable)

    @property
    def asked(self) -> tuple[ClassifiedSource, ...]:
        """The sources that count for the number of possible falsetickers (R1)."""
        return tuple(classified for classified in self.sources if classified.is_asked)

    @property
    def skip_reasons(self) -> frozenset[str | None]:
        """Why sources were not queried this time."""
        return frozenset(classified.reason for classified in self.sources if classified.status == "skipped")

    @property
    def possible_falsetickers(self) -> int:
        """How many of the servers asked may be falsetickers (R1)."""
        silent = [classified for classified in self.asked if not classified.is_usable]
        return expected_falsetickers(_failure_domains(self.usable), _failure_domains(silent))

    @property
    def is_sufficient(self) -> bool:
        """Whether more servers gave a usable reply than may be falsetickers, so that they can prove something (R1)."""
        return len(self.usable) > self.possible_falsetickers


class SourceCounts(NamedTuple):
    """The numbers of sources behind an agreement.

    `sources` are configured, `asked` of them count for R1, `usable` voted, `agreeing` agree. If `guaranteed`, the
    interval holds as long as at most `max_falsetickers` of the asked servers are falsetickers.
    """

    sources: int
    usable: int
    agreeing: int
    max_falsetickers: int
    asked: int = 0
    guaranteed: bool = True


def count_sources(selection: Selection) -> SourceCounts:
    """Count the sources of a selection by their part in the vote."""
    agreement = selection.agreement
    return SourceCounts(
        sources=len(selection.sources),
        usable=len(selection.usable),
        agreeing=sum(classified.status == "agreeing" for classified in selection.sources),
        max_falsetickers=agreement.max_falsetickers if agreement else 0,
        asked=len(selection.asked),
        guaranteed=agreement is not None and agreement.is_guaranteed,
    )


def select(sources: Sequence[SourceObservation], now: ClockReading, drift_ppm: float = MAX_DRIFT_PPM) -> Selection:
    """Classify every source against the others at the instant `now`, for a drift of at most `drift_ppm` (R4)."""
    classified = _with_twins([_classify(source, now, drift_ppm) for source in sources])
    voters = [index for index, entry in enumerate(classified) if entry.is_usable]
    candidates = [candidate for index in voters if (candidate := classified[index].candidate)]
    others = [entry for entry in classified if entry.is_asked and not entry.is_usable]
    agreement = agree(candidates, _failure_domains(others))
    statuses: Iterable[Status] = agreement.statuses if agreement else ["falseticker"] * len(voters)
    for index, status in zip(voters, statuses, strict=True):
        if status == "falseticker":
            reason = "disagrees" if agreement else "no-majority"
            classified[index] = classified[index]._replace(status=status, reason=reason)
    return Selection(tuple(classified), agreement)


def agree(candidates: Sequence[Candidate], silent: Sequence[frozenset[str]] = ()) -> Agreement | None:
    """Find the guaranteed interval, the falsetickers and the estimate; None without a majority. Order is irrelevant.

    `silent` has the failure domains of the other asked servers, which gave no usable reply. S2, R1: if at most f of
    the asked servers are falsetickers, at least usable - f intervals cover the true offset, so it is in the hull of
    the points that are covered as often. Without such a point f grows to the fewest that explain the replies (RFC 5905
    §11.2.1), never to half of the usable ones. If all usable servers may be falsetickers, nothing is guaranteed, and
    the interval is the hull of all. Marzullo's deepest overlap only identifies falsetickers (S3).
    """
    count, intervals = len(candidates), [candidate.interval for candidate in candidates]
    expected = expected_falsetickers([candidate.failure_domains for candidate in candidates], silent)
    if not 2 * max((_depth(intervals, interval.earliest_ns) for interval in intervals), default=0) > count:
        return None
    assumed = min(expected, count - 1)  # at least one must be right
    for falsetickers in (assumed, *range(assumed + 1, (count + 1) // 2)):
        if (hull := _hull(intervals, count - falsetickers)) is not None:
            break
    else:
        return None
    statuses = _label(intervals)
    is_guaranteed = expected < count
    return Agreement(
        interval=hull,
        estimate_ns=hull.clamp(_estimate(candidates, statuses, falsetickers)),
        statuses=statuses,
        max_falsetickers=falsetickers if is_guaranteed else 0,
        exceeded_assumption=falsetickers > assumed,
        is_guaranteed=is_guaranteed,
    )


def expected_falsetickers(usable: Sequence[frozenset[str]], silent: Sequence[frozenset[str]] = ()) -> int:
    """Return how many of the usable sources may be falsetickers, by the failure domains of all m asked (S2, S8, R1).

    That is floor((m - 1) / 3), or more if sources share failure domains: of g independent groups any floor((g - 1) / 3)
    may be false as a whole. It stays below half of m, because beyond that nothing is bounded. A source without a usable
    reply makes m and g larger and is not a falseticker itself. A shared failure domain never lowers the number: a
    falseticker could copy the upstream that another source claims.
    """
    asked = [*usable, *silent]
    sizes = [sum(member < len(usable) for member in group) for group in independent_groups(asked)]
    # index: number of false groups; values: numbers of sources
    reachable = [{0}, *(set[int]() for _ in range((len(sizes) - 1) // 3))]
    for size in sizes:
        for count in range(len(reachable) - 1, 0, -1):
            reachable[count] |= {falsetickers + size for falsetickers in reachable[count - 1]}
    whole_groups = (falsetickers for choices in reachable for falsetickers in choices if 2 * falsetickers < len(asked))
    return max((len(asked) - 1) // 3, *whole_groups) if asked else 0


def independent_groups(failure_domains: Sequence[frozenset[str]]) -> list[list[int]]:
    """Group the indexes of sources that share a failure domain, directly or through another source (S8)."""
    groups: list[tuple[frozenset[str], list[int]]] = []
    for index, own in enumerate(failure_domains):
        joined, members, apart = own, [index], []
        for names, others in groups:
            if names & own:
                joined, members = joined | names, others + members
            else:
                apart.append((names, others))
        groups = [*apart, (joined, members)]
    return [members for _, members in groups]


def shared_failure_domains(source: SourceObservation, best: Measurement) -> frozenset[str]:
    """Return the failure domains of a source: its /24 or /48, and its upstream server (S8).

    On loopback every port counts as its own server. A reference id of 127.* is a local clock, not an upstream, and a
    stratum 1 reference id is a kind of clock.
    """
    upstream = best.reply.reference_id
    has_upstream = best.reply.stratum > 1 and upstream[0] not in (0, 127)
    return _own_failure_domains(source) | ({f"upstream {upstream.hex()}"} if has_upstream else set())


def _own_failure_domains(source: SourceObservation) -> frozenset[str]:
    """Return the failure domains by a source's address and by its configured host name (R10)."""
    address = source.address or source.name
    domains = {_subnet(address, source.port)}
    host, _, port = source.name.rpartition(":")
    name = host if port.isdecimal() and ":" not in host else source.name
    if "/" not in name and not is_loopback(address):  # a pool's ZONE/0 and ZONE/1 are two servers
        domains.add(f"name {name.lower()}")
    return frozenset(domains)


def _failure_domains(sources: Iterable[ClassifiedSource]) -> list[frozenset[str]]:
    """Return the failure domains of sources; for those without a usable reply only the known ones."""
    return [
        classified.candidate.failure_domains if classified.candidate else _own_failure_domains(classified.source)
        for classified in sources
    ]


def _with_twins(classified: Sequence[ClassifiedSource]) -> list[ClassifiedSource]:
    """Give the IPv4 and the IPv6 address of one stratum 1 server a common failure domain (R10).

    A stratum 1 reference id is only a kind of clock, so delay and offset must be equal as well. If two different
    servers look alike, no harm is done: f never gets smaller.
    """
    found = list(classified)
    for (one, first), (other, second) in combinations(enumerate(classified), 2):
        if _are_twins(first, second):
            shared = frozenset({f"twins {one} {other}"})
            for index in (one, other):
                candidate = found[index].candidate
                assert candidate is not None
                found[index] = found[index]._replace(
                    candidate=candidate._replace(failure_domains=candidate.failure_domains | shared)
                )
    return found


def _are_twins(one: ClassifiedSource, other: ClassifiedSource) -> bool:
    if not (one.candidate and one.best and other.candidate and other.best):
        return False
    if one.best.reply.stratum != 1 or other.best.reply.stratum != 1:
        return False
    is_ipv6, is_other_ipv6 = (":" in (classified.source.address or "") for classified in (one, other))
    if is_ipv6 == is_other_ipv6 or one.best.reply.reference_id != other.best.reply.reference_id:
        return False
    noise_ns = max(_TWIN_NOISE_NS, max(one.best.delay_ns, other.best.delay_ns) // _TWIN_NOISE_SHARE)
    apart_ns = abs(one.best.delay_ns - other.best.delay_ns), abs(one.candidate.offset_ns - other.candidate.offset_ns)
    return max(apart_ns) <= noise_ns


def _subnet(address: str, port: int) -> str:
    if is_loopback(address):
        return f"{address} port {port}"
    if ":" not in address:
        return ".".join(address.split(".")[:3])
    from ipaddress import IPv6Address  # imported late: only IPv6 needs it

    try:
        octets = IPv6Address(address.partition("%")[0]).packed
    except ValueError:
        return address  # not an address: no probe made it
    if octets[:12] in _EMBEDDING:
        return ".".join(map(str, octets[12:15]))
    return octets[:6].hex()


def _classify(source: SourceObservation, now: ClockReading, drift_ppm: float) -> ClassifiedSource:
    if isinstance(source.outcome, SourceFailure):
        return ClassifiedSource(source, source.outcome.status, source.outcome.reason)
    # B6: nothing is carried over a suspend, because the RAW clock stops
    samples = [sample for sample in source.outcome if abs(suspended_ns(sample.timestamps.after, now)) <= MAX_STEP_NS]
    if not samples:
        return ClassifiedSource(source, "rejected", "local-step")
    best = min(samples, key=lambda sample: (sample.delay_ns, sample.timestamps.arrived_ns))
    interval: Interval | None = carry_measurement(best, now, drift_ppm)
    for sample in samples:  # S9: every sample of one server bounds the same offset
        interval = interval and interval.intersect(carry_measurement(sample, now, drift_ppm))
    if interval is None:
        return ClassifiedSource(source, "rejected", "inconsistent", best=best)
    if is_before_pivot(best.received_ns):
        return ClassifiedSource(source, "rejected", BEFORE_RELEASE, best=best)
    offset_ns = interval.clamp(best.offset_ns - correction_ns(best.timestamps.after, now))
    candidate = Candidate(offset_ns, interval, shared_failure_domains(source, best))
    if not interval.half_width_ns <= MAX_DISTANCE_NS:
        return ClassifiedSource(source, "distant", "distant", candidate, best)  # V17
    warning = best.reply.warnings[0] if best.reply.warnings else None
    return ClassifiedSource(source, "agreeing", warning, candidate, best)


def _depth(intervals: Sequence[Interval], point_ns: int) -> int:
    return sum(interval.covers(point_ns) for interval in intervals)


def _hull(intervals: Sequence[Interval], depth: int) -> Interval | None:
    earliest = [i.earliest_ns for i in intervals if _depth(intervals, i.earliest_ns) >= depth]
    latest = [i.latest_ns for i in intervals if _depth(intervals, i.latest_ns) >= depth]
    return Interval(min(earliest), max(latest)) if earliest else None


def _label(intervals: Sequence[Interval]) -> tuple[Status, ...]:
    """Return the statuses: agreeing if a source covers a point of the deepest overlap, else falseticker (S5).

    If several overlaps are equally deep, the falsetickers cannot be identified: all of their members count as agreeing.
    """
    starts = [interval.earliest_ns for interval in intervals]
    depths = [_depth(intervals, start) for start in starts]
    deepest = [start for start, depth in zip(starts, depths, strict=True) if depth == max(depths)]
    return tuple(
        "agreeing" if any(interval.covers(point) for point in deepest) else "falseticker" for interval in intervals
    )


def _estimate(candidates: Sequence[Candidate], statuses: Sequence[Status], falsetickers: int) -> int:
    """Return the mean of the agreeing offsets, each with the weight 1 / half-width squared, with two limits (R2).

    A tiny false interval must not decide alone: only f intervals can be smaller than the one of rank f + 1, so no
    source weighs more than that. Falsetickers can make honest sources look false: the mean is limited to the usable
    offsets of rank f + 1 from below and from above, each of which is in the range of the honest ones.
    """
    usable = sorted(candidate.offset_ns for candidate in candidates)
    agreeing = [one for one, status in zip(candidates, statuses, strict=True) if status == "agreeing"]
    limit = min(falsetickers, (len(usable) - 1) // 2)
    least_ns = max(1, sorted(one.interval.half_width_ns for one in agreeing)[limit])
    weights = [(least_ns / max(least_ns, one.interval.half_width_ns)) ** 2 for one in agreeing]
    from_ns = usable[0]  # a float holds the differences exactly, but no offset of many years
    sums = fsum(weight * (one.offset_ns - from_ns) for weight, one in zip(weights, agreeing, strict=True))
    return Interval(usable[limit], usable[-1 - limit]).clamp(from_ns + round(sums / fsum(weights)))

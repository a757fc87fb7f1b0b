"""Which sources agree, which are falsetickers, and the interval that holds whichever they are."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.observation import SourceObservation
from ntpaudit.core.selection import (
    Agreement,
    Candidate,
    agree,
    count_sources,
    expected_falsetickers,
    independent_groups,
    select,
    shared_failure_domains,
)
from tests.core.worlds import (
    DAY,
    FOUR,
    HOUR,
    MS,
    NOON,
    TAKEN,
    US,
    YEAR,
    S,
    answered,
    failed,
    measurement,
    reading,
    reply,
)

WORLDS = 4000


def candidate(earliest: int, latest: int, number: int | str = 0, offset: int | None = None) -> Candidate:
    """Make a candidate that shares the failure domain of all with the same number."""
    middle = (earliest + latest) // 2
    return Candidate(middle if offset is None else offset, Interval(earliest, latest), frozenset({f"net {number}"}))


def independent(*ends: tuple[int, int]) -> list[Candidate]:
    """Make candidates that share nothing."""
    return [candidate(*pair, number) for number, pair in enumerate(ends)]


def agreed(candidates: Sequence[Candidate]) -> Agreement:
    """Agree where there is a majority."""
    agreement = agree(candidates)
    assert agreement is not None
    return agreement


def deepest_overlap(intervals: Sequence[Interval]) -> Interval:
    """Return Marzullo's interval: the first of the points that most intervals cover."""
    depth = {point: sum(i[0] <= point <= i[1] for i in intervals) for i in intervals for point in i}
    starts = [i[0] for i in intervals if depth[i[0]] == max(depth.values())]
    start = min(starts)
    return Interval(start, min(i[1] for i in intervals if i[0] <= start <= i[1]))


# --- the guaranteed interval, against every point of a small world ------------------------------------------------

SMALL = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)).map(lambda p: (p[0], p[0] + p[1])), max_size=8)


def by_hand(ends: Sequence[tuple[int, int]], tolerated: int) -> tuple[int, int, int] | None:
    """Return earliest, latest and falsetickers by S2, checking every point; None without a majority."""
    for falsetickers in range(tolerated, len(ends)):
        if 2 * falsetickers >= len(ends):
            break
        covered = [x for x in range(20) if sum(low <= x <= high for low, high in ends) >= len(ends) - falsetickers]
        if covered:
            return min(covered), max(covered), falsetickers
    return None


@given(SMALL)
@settings(max_examples=600, deadline=None)
def test_interval_agrees_with_every_point(ends: list[tuple[int, int]]) -> None:
    """The ends are the least and the greatest point that m - f intervals cover, f as small as can be (S2)."""
    tolerated = max(0, (len(ends) - 1) // 3)
    agreement = agree(independent(*ends))
    found = agreement and (*agreement.interval, agreement.max_falsetickers)
    assert found == by_hand(ends, tolerated)
    if agreement is not None:
        assert agreement.exceeded_assumption == (agreement.max_falsetickers > tolerated)


@given(SMALL.filter(bool))
@settings(max_examples=400, deadline=None)
def test_labels_agree_with_every_point(ends: list[tuple[int, int]]) -> None:
    """A source agrees if it covers one of the points that most sources cover, and is a falseticker if not (S5)."""
    agreement = agree(independent(*ends))
    depth = [sum(low <= x <= high for low, high in ends) for x in range(20)]
    deepest = [x for x in range(20) if depth[x] == max(depth)]
    expected = tuple("agreeing" if any(low <= x <= high for x in deepest) else "falseticker" for low, high in ends)
    assert agreement is None or agreement.statuses == expected


def test_without_sources_there_is_no_agreement() -> None:
    """Without candidates there is no majority and nothing to tolerate."""
    assert agree([]) is None
    assert expected_falsetickers([]) == 0


def test_one_source_is_taken_at_its_word() -> None:
    """A single source cannot be contradicted: its interval is the answer, and no falseticker is tolerated (S2)."""
    assert agreed(independent((3, 9))) == Agreement(Interval(3, 9), 6, ("agreeing",), 0, False)


def test_two_that_agree_narrow_each_other() -> None:
    """With two sources no falseticker is tolerated and the answer is what both say (S2)."""
    agreement = agreed(independent((0, 10), (8, 20)))
    assert (agreement.interval, agreement.max_falsetickers, agreement.exceeded_assumption) == (
        Interval(8, 10),
        0,
        False,
    )


def test_two_that_disagree_are_no_majority() -> None:
    """If two sources contradict each other, it is unknown which is wrong (S5: more than half)."""
    assert agree(independent((0, 10), (11, 20))) is None


def test_two_against_two_are_no_majority() -> None:
    """Half of the sources are no majority."""
    assert agree(independent((0, 10), (1, 10), (20, 30), (21, 30))) is None


@pytest.mark.parametrize("falseticker", [(-100, -50), (11, 12), (10**15, 10**15)])
def test_one_falseticker_of_three_is_outvoted(falseticker: tuple[int, int]) -> None:
    """Two of three are a majority: the falseticker is named, and exceeds the assumption (S5, RFC 5905 §11.2.1)."""
    agreement = agreed(independent((0, 10), falseticker, (4, 9)))
    assert agreement.interval == Interval(4, 9)
    assert agreement.statuses == ("agreeing", "falseticker", "agreeing")
    assert (agreement.max_falsetickers, agreement.exceeded_assumption) == (1, True)


def test_three_that_agree_tolerate_no_falseticker() -> None:
    """Three sources are too few to tolerate a hidden falseticker: the answer is what all say (S2)."""
    agreement = agreed(independent((0, 10), (4, 12), (-5, 9)))
    assert (agreement.interval, agreement.max_falsetickers, agreement.exceeded_assumption) == (Interval(4, 9), 0, False)


def test_four_tolerate_one() -> None:
    """With four, any three may be right, so the answer is the hull of what three say (S2, RFC 8633 §3.2)."""
    agreement = agreed(independent((0, 10), (1, 11), (2, 12), (3, 9)))
    assert (agreement.interval, agreement.max_falsetickers, agreement.exceeded_assumption) == (
        Interval(2, 10),
        1,
        False,
    )


def test_the_hull_spans_a_gap() -> None:
    """Where two separate spans are covered by enough, the truth may be in either, and the answer holds both (S2)."""
    agreement = agreed(independent((0, 100), (0, 100), (0, 10), (90, 100)))
    assert agreement.interval == Interval(0, 100)
    assert agreement.statuses == ("agreeing",) * 4  # equally deep: it is unknown which of the two is wrong


def test_touching_ends_agree() -> None:
    """Intervals that have one point in common agree on it (S5: low before high on ties)."""
    assert agreed(independent((0, 10), (10, 20))).interval == Interval(10, 10)


# --- how many were asked (R1) -------------------------------------------------------------------------------------


def lost(count: int) -> list[frozenset[str]]:
    """Return the fates of servers that were asked and gave nothing usable."""
    return [frozenset({f"lost {number}"}) for number in range(count)]


def possible_truths(ends: Sequence[tuple[int, int]], falsetickers: int) -> list[int]:
    """Return every point that may be the truth if at most f are wrong: some choice of the others all cover it."""
    honest = [others for size in range(len(ends) - falsetickers, len(ends) + 1) for others in combinations(ends, size)]
    return [x for x in range(20) if any(all(low <= x <= high for low, high in others) for others in honest)]


def test_a_lost_reply_does_not_disarm_the_vote() -> None:
    """R1's smallest case: of four asked one reply is lost and one server lies; f is still 1, and the truth inside."""
    honest, falseticker = [(-5 * MS, 15 * MS), (-12 * MS, 6 * MS)], (4 * MS, 5 * MS)
    agreement = agree(independent(*honest, falseticker), lost(1))
    assert agreement is not None
    assert agreement.interval == Interval(-5 * MS, 6 * MS)
    assert (agreement.max_falsetickers, agreement.exceeded_assumption, agreement.is_guaranteed) == (1, False, True)
    assert not agreed(independent(*honest, falseticker)).interval.covers(
        0
    )  # three asked: no falseticker among them is tolerated


def test_two_of_four_are_the_hull_of_both() -> None:
    """Where two of four asked gave a usable reply either may lie, so the interval is what either says (R1)."""
    agreement = agree(independent((-9, 9), (8, 12)), lost(2))
    assert agreement is not None
    assert (agreement.interval, agreement.max_falsetickers, agreement.is_guaranteed) == (Interval(-9, 12), 1, True)


@pytest.mark.parametrize(("usable", "asked"), [(1, 4), (1, 6), (1, 7), (2, 7), (3, 10)])
def test_where_all_may_lie_nothing_is_guaranteed(usable: int, asked: int) -> None:
    """As many usable replies as may be lies, or fewer, prove nothing: the interval is all that any says (R1)."""
    ends = [(-5 - number, 5 + 2 * number) for number in range(usable)]
    agreement = agree(independent(*ends), lost(asked - usable))
    assert agreement is not None
    assert agreement.interval == Interval(min(low for low, _ in ends), max(high for _, high in ends))
    assert (agreement.max_falsetickers, agreement.is_guaranteed, agreement.exceeded_assumption) == (0, False, False)


@given(SMALL, st.integers(0, 6))
@settings(max_examples=500, deadline=None)
def test_the_interval_is_every_point_that_may_be_the_truth(ends: list[tuple[int, int]], missing: int) -> None:
    """For any number asked, lost and wrong the ends are those of all points that may be the truth (S2, R1)."""
    agreement = agree(independent(*ends), lost(missing))
    usable, expected = len(ends), max(0, (len(ends) + missing - 1) // 3)
    depth = max((sum(low <= x <= high for low, high in ends) for x in range(20)), default=0)
    if 2 * depth <= usable:
        assert agreement is None
        return
    if agreement is None:  # more are wrong than can be tolerated
        assert not possible_truths(ends, max(expected, (usable - 1) // 2))
        return
    assert agreement.is_guaranteed == (expected < usable)
    truths = possible_truths(ends, agreement.max_falsetickers if agreement.is_guaranteed else usable - 1)
    assert agreement.interval == Interval(min(truths), max(truths))
    if agreement.exceeded_assumption:
        assert agreement.max_falsetickers > expected
        assert not possible_truths(ends, agreement.max_falsetickers - 1)
    elif agreement.is_guaranteed:
        assert agreement.max_falsetickers == expected


@st.composite
def attacked(draw: st.DrawFn) -> tuple[list[Interval], list[Interval], int]:
    """Draw intervals of honest servers around a truth of 0, those of falsetickers, and the number of lost replies."""
    asked = draw(st.integers(1, 10))
    falsetickers = draw(st.integers(0, (asked - 1) // 3))
    missing = draw(st.integers(0, asked - falsetickers))
    reach = st.integers(0, 40 * MS)
    honest = [Interval(-draw(reach), draw(reach)) for _ in range(asked - falsetickers - missing)]
    ends = [end for interval in honest for end in interval] or [0]
    lowest_high, highest_low = min(ends, key=abs), max(ends, key=abs)
    where = st.sampled_from([*ends, lowest_high, highest_low, S, -S, *(end + step for end in ends for step in (-1, 1))])
    false = []
    for _ in range(falsetickers):
        at, width = draw(where), draw(st.sampled_from([0, 1, 2, MS, 50 * MS]))
        false.append(draw(st.sampled_from([Interval(at, at + width), Interval(at - width, at)])))
    return honest, false, missing


@given(attacked(), st.randoms())
@settings(max_examples=600, deadline=None)
def test_the_truth_is_inside_whatever_is_lost(
    world: tuple[list[Interval], list[Interval], int], random: Random
) -> None:
    """If at most f of the servers asked lie, whatever they say and whichever replies are lost, the truth is inside."""
    honest, false, missing = world
    mixed = [(interval, number) for number, interval in enumerate([*honest, *false])]
    random.shuffle(mixed)
    agreement = agree([candidate(*interval, number) for interval, number in mixed], lost(missing))
    if agreement is not None and agreement.is_guaranteed:
        assert agreement.interval.covers(0)
        assert agreement.interval.covers(agreement.estimate_ns)


def test_an_attacker_who_drops_one_honest_server_gains_nothing() -> None:
    """Four asked, one honest reply dropped, and one falseticker in the worst place, nearly zero wide (R1)."""
    caught_without = 0
    for seed in range(WORLDS // 4):
        random = Random(seed)
        honest = [Interval(-random.randrange(1, 30 * MS), random.randrange(1, 30 * MS)) for _ in range(3)]
        dropped = random.randrange(3)
        replied = [interval for number, interval in enumerate(honest) if number != dropped]
        high = min(interval.latest_ns for interval in replied)
        falseticker = Interval(high - random.randrange(2), high)
        voters = [candidate(*interval, number) for number, interval in enumerate([*replied, falseticker])]
        agreement = agree(voters, lost(1))
        assert agreement is not None, f"world {seed}"
        assert agreement.is_guaranteed, f"world {seed}"
        assert agreement.interval.covers(0), f"world {seed}"
        caught_without += not agreed(voters).interval.covers(0)
    assert caught_without > WORLDS // 5, "these falsetickers would not have fooled the vote of three either"


def test_a_server_that_shares_a_fate_with_a_lost_one_counts() -> None:
    """Whole groups may lie also where some of their members, or of the others, gave nothing usable (S8, R1)."""
    replied = [candidate(-10, 10, 1), candidate(-10, 10, 2), candidate(9, 9, 3), candidate(9, 9, 3)]
    assert not agreed(replied).interval.covers(0)  # of three groups none may lie, and of four servers one
    agreement = agree(replied, lost(1))  # of four groups one may, and the largest has two members
    assert agreement is not None
    assert agreement.max_falsetickers == 2
    assert agreement.interval.covers(0)


UNUSABLE: list[SourceObservation] = [
    failed(4),
    failed(4, reason="late"),
    failed(4, reason="name-unknown"),
    failed(4, "rejected", "unsync"),
    failed(4, "rejected", "kod:RATE"),
    failed(4, "skipped", "unanswered"),
    failed(4, "skipped", "kod:DENY"),
    answered(4, measurement(0, 2 * S)),
    answered(4, measurement(0), measurement(S)),
]


@pytest.mark.parametrize("fourth", UNUSABLE)
def test_a_server_that_gave_nothing_usable_counts_as_asked(fourth: SourceObservation) -> None:
    """Distant, rejected, late, unreachable, unresolved, or skipped because it is silent: the server counts (R1)."""
    selection = select((*FOUR[:3], fourth), TAKEN)
    counts = count_sources(selection)
    assert (counts.sources, counts.asked, counts.usable, counts.max_falsetickers) == (4, 4, 3, 1)
    assert counts.guaranteed
    alone = count_sources(select((FOUR[0], failed(2), failed(3), fourth), TAKEN))
    assert (alone.asked, alone.usable, alone.max_falsetickers, alone.guaranteed) == (4, 1, 0, False)


@pytest.mark.parametrize("reason", ["interval", "pool-limit", "same-server", "nts"])
def test_a_server_that_we_skip_does_not_count_as_asked(reason: str) -> None:
    """A source that we leave out by our own choice takes no part in the count (R1)."""
    counts = count_sources(select((*FOUR[:3], failed(4, "skipped", reason)), TAKEN))
    assert (counts.sources, counts.asked, counts.usable, counts.max_falsetickers) == (4, 3, 3, 0)
    assert counts.guaranteed


# --- how many may lie ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sources", "most"), list(enumerate((0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4))))
def test_less_than_a_third_may_be_wrong(sources: int, most: int) -> None:
    """Of m independent sources floor((m - 1) / 3) may lie (S2)."""
    assert expected_falsetickers([frozenset({str(number)}) for number in range(sources)]) == most


def test_a_silent_neighbour_is_no_falseticker() -> None:
    """A server without a usable reply counts as asked, and adds no falseticker to its group (R1, S8)."""
    fates = [frozenset({f"net {number}"}) for number in range(4)]
    assert expected_falsetickers(fates, [frozenset({"net 3"})]) == 1
    assert expected_falsetickers([*fates, frozenset({"net 3"})]) == 2
    assert expected_falsetickers(fates, lost(3)) == 2


@pytest.mark.parametrize(
    ("groups", "most"),
    [
        ((3,), 0),
        ((4,), 1),
        ((2, 2), 1),
        ((2, 1, 1), 1),
        ((2, 1, 1, 1), 2),
        ((1, 1, 1, 2), 2),
        ((3, 2, 1, 1), 3),
        ((5, 1, 1, 1, 1, 1, 1), 5),
        ((2, 2, 1, 1, 1, 1, 1), 4),
    ],
)
def test_whole_groups_may_be_wrong(groups: tuple[int, ...], most: int) -> None:
    """Of g groups the floor((g - 1) / 3) largest may lie, each whole, and never fewer than of m sources (S2, S8)."""
    fates = [frozenset({f"net {number}"}) for number, size in enumerate(groups) for _ in range(size)]
    assert expected_falsetickers(fates) == most
    assert expected_falsetickers(fates[::-1]) == most


@pytest.mark.parametrize(
    "groups", [(3, 1, 1, 1), (9, 1, 1, 1), (6, 1, 1, 1, 1, 1, 1), (3, 2, 1, 1, 1, 1, 1), (4, 4, 1, 1, 1, 1, 1)]
)
def test_a_large_network_leaves_room_for_other_falsetickers(groups: tuple[int, ...]) -> None:
    """Where the largest groups make half or more, any other (g - 1) / 3 that make less are tolerated (S2, S8)."""
    fates = [frozenset({f"net {number}"}) for number, size in enumerate(groups) for _ in range(size)]
    wrong_counts = [sum(sizes) for sizes in combinations(groups, (len(groups) - 1) // 3)]
    needed = max(falsetickers for falsetickers in wrong_counts if 2 * falsetickers < len(fates))
    assert 1 <= needed <= expected_falsetickers(fates) < len(fates) / 2


def test_a_single_falseticker_is_outvoted_beside_a_large_network() -> None:
    """One falseticker of six, three of the others neighbours: the truth is inside as if they were not (S2, S8)."""
    falseticker, others = (9, 9), [(-10, 10)] * 5
    apart = [candidate(*ends, net) for net, ends in enumerate((falseticker, *others))]
    neighbours = [candidate(*ends, net) for net, ends in zip((1, 2, 3, 4, 4, 4), (falseticker, *others), strict=True)]
    assert agreed(apart).interval.covers(0)
    assert agreed(neighbours).interval.covers(0)


def test_fates_chain() -> None:
    """A shares a network with B and B an upstream with C: the three are one group (S8)."""
    a, b, c, d = (frozenset(fates) for fates in ({"net 1"}, {"net 1", "up 9"}, {"net 2", "up 9"}, {"net 3", "up 8"}))
    for order in permutations((a, b, c, d)):
        groups = independent_groups(order)
        assert sorted(map(len, groups)) == [1, 3]
        assert [order[position] for position in min(groups, key=len)] == [d]


@given(st.lists(st.frozensets(st.integers(0, 9).map(str), min_size=1, max_size=3), max_size=8))
@settings(max_examples=200, deadline=None)
def test_groups_are_the_connected_parts(fates: list[frozenset[str]]) -> None:
    """Two sources are in one group exactly if a chain of shared fates joins them, and each is in one group (S8)."""
    label = list(range(len(fates)))
    for _ in fates:
        for one, own in enumerate(fates):
            for other, others in enumerate(fates):
                if own & others:
                    label[one] = label[other] = min(label[one], label[other])
    expected = {frozenset(i for i, mark in enumerate(label) if mark == wanted) for wanted in set(label)}
    groups = independent_groups(fates)
    assert {frozenset(group) for group in groups} == expected
    assert sorted(position for group in groups for position in group) == list(range(len(fates)))


# --- any servers wrong --------------------------------------------------------------------------------------------


def honest_intervals(random: Random, count: int, truth: int) -> list[Interval]:
    """Make intervals that hold the truth, often only just."""

    def reach() -> int:
        return random.choice((0, 1, random.randrange(100), random.randrange(10 * MS), random.randrange(S)))

    return [Interval(truth - reach(), truth + reach()) for _ in range(count)]


def lies(random: Random, honest: Sequence[Interval], count: int, truth: int) -> list[Interval]:
    """Make intervals of falsetickers that know the honest ones, and agree where they do most harm."""
    low, high = max(i.earliest_ns for i in honest), min(i.latest_ns for i in honest)
    harm = high if high - truth > truth - low else low  # the point of the honest overlap farthest from the truth
    outside = random.choice([end for interval in honest for end in interval])
    far = truth + random.choice((1, -1)) * random.randrange(YEAR)
    match random.randrange(8):
        case 0 | 5 | 6 | 7:  # tiny, on the far end of what all the honest allow: the deepest overlap is now theirs
            return [Interval(harm, harm)] * count
        case 1:  # tiny, where only some of the honest are
            return [Interval(outside, outside)] * count
        case 2:  # each on its own, wide, to drag one end
            wide = [Interval(min(harm, truth + 1), harm + random.randrange(S)) for _ in range(count)]
            return wide if harm > truth else [Interval(harm - random.randrange(S), max(harm, truth - 1))] * count
        case 3:  # far away
            return [Interval(far, far + 1)] * count
        case _:  # each somewhere
            return [Interval(at, at + random.randrange(MS)) for at in (far, outside, harm, *[far] * count)][:count]


def test_the_truth_is_inside_whatever_servers_are_wrong() -> None:
    """While at most floor((m - 1) / 3) of m lie, whatever they say, the interval holds the truth (S2, S3)."""
    excluded_by_marzullo = contradicted = tightened = 0
    for seed in range(WORLDS):
        random = Random(seed)
        count = random.randint(1, 10)
        falsetickers = random.randint(0, (count - 1) // 3) if random.random() < 0.3 else (count - 1) // 3
        truth = random.randrange(-70 * YEAR, 70 * YEAR)
        honest = honest_intervals(random, count - falsetickers, truth)
        intervals = honest + lies(random, honest, falsetickers, truth)
        random.shuffle(intervals)
        agreement = agree([candidate(*interval, number) for number, interval in enumerate(intervals)])
        assert agreement is not None, f"world {seed}"
        assert agreement.interval.covers(truth), f"world {seed}"
        assert agreement.interval.covers(agreement.estimate_ns), f"world {seed}"
        assert agreement.max_falsetickers == (count - 1) // 3, f"world {seed}"
        contradicted += agreement.exceeded_assumption
        excluded_by_marzullo += not deepest_overlap(intervals).covers(truth)
        tightened += agreement.interval.half_width_ns < max(interval.half_width_ns for interval in intervals)
    assert contradicted == 0
    assert excluded_by_marzullo > WORLDS // 6, "these falsetickers would not even have fooled Marzullo's algorithm"
    assert tightened > WORLDS // 2, "the answer is hardly better than the worst of the sources"


def test_the_deepest_overlap_is_no_guarantee() -> None:
    """Two falsetickers of seven agree on a corner of what all allow: only the deepest overlap loses the truth (S3)."""
    honest = [(-10, 10), (-9, 10), (-10, 11), (-8, 10), (-10, 12)]
    candidates = independent(*honest, (10, 10), (10, 10))
    assert not deepest_overlap([c.interval for c in candidates]).covers(0)
    assert agreed(candidates).interval.covers(0)


def test_whole_networks_may_lie() -> None:
    """Where whole groups lie, floor((g - 1) / 3) of g and less than half of all, the truth is inside (S2, S8)."""
    checked = 0
    for seed in range(WORLDS):
        random = Random(seed)
        sizes = [random.choice((1, 1, 1, 2, 3)) for _ in range(random.randint(4, 9))]
        wrong_groups = set(random.sample(range(len(sizes)), (len(sizes) - 1) // 3))
        falsetickers = sum(sizes[group] for group in wrong_groups)
        if 2 * falsetickers >= sum(sizes):
            continue
        checked += 1
        truth = random.randrange(-S, S)
        honest = honest_intervals(random, sum(sizes) - falsetickers, truth)
        false = lies(random, honest, falsetickers, truth)
        candidates = [
            candidate(*(false if group in wrong_groups else honest).pop(), group)
            for group, size in enumerate(sizes)
            for _ in range(size)
        ]
        random.shuffle(candidates)
        assert agreed(candidates).interval.covers(truth), f"world {seed}"
    assert checked > WORLDS // 4


def test_a_falseticker_gains_nothing_by_claiming_an_upstream() -> None:
    """The upstream a source claims is its own word: to copy another's never narrows the interval (S8)."""
    honest = [candidate(-30, 30, 1), candidate(-25, 40, 2), candidate(-40, 25, 3)]
    for claimed in (9, 1):
        falseticker = Candidate(
            offset_ns=29, interval=Interval(28, 29), failure_domains=frozenset({"net 9", f"upstream {claimed}"})
        )
        claiming = [
            voter._replace(failure_domains=voter.failure_domains | {f"upstream {number}"})
            for number, voter in enumerate(honest, 1)
        ]
        assert agreed([*claiming, falseticker]).interval.covers(0)


def test_servers_behind_nat64_are_distinguished() -> None:
    """An IPv6 address that holds an IPv4 address shares the fate of that one's /24, not of the whole prefix (S8)."""
    addresses = ("64:ff9b::c000:201", "64:ff9b::c633:6401", "::ffff:203.0.113.1", "192.0.2.9")
    fates = [
        shared_failure_domains(answered(1, name=address, address=address), measurement(said=reply(stratum=1)))
        for address in addresses
    ]
    groups = {tuple(sorted(group)) for group in independent_groups(fates)}
    assert groups == {(0, 3), (1,), (2,)}
    mapped = shared_failure_domains(answered(1, address="203.0.113.7"), measurement(said=reply(stratum=1)))
    assert mapped & fates[2]


def test_nothing_is_carried_over_a_suspend() -> None:
    """B6: a suspend between an answer and the common instant makes the answer worthless, and no false alarm."""
    source = answered(1)
    taken = TAKEN
    slept = taken._replace(
        realtime_ns=taken.realtime_ns + 600 * S,
        boottime_ns=taken.boottime_ns + 600 * S,
    )
    [judged] = select([source], slept).sources
    assert (judged.status, judged.reason) == ("rejected", "local-step")
    [judged] = select([source], taken).sources
    assert judged.status == "agreeing"


@pytest.mark.parametrize(
    ("slept", "status"), [(MS, "agreeing"), (-MS, "agreeing"), (MS + 1, "rejected"), (-MS - 1, "rejected")]
)
def test_what_is_a_suspend(slept: int, status: str) -> None:
    """BOOTTIME against MONOTONIC by more than 1 ms is a suspend, less is the jitter of their reading (B6)."""
    woken = TAKEN._replace(boottime_ns=TAKEN.boottime_ns + slept)
    assert only(answered(1), woken) == (status, None if status == "agreeing" else "local-step")


def test_a_sample_from_after_the_suspend_still_counts() -> None:
    """Of a server's samples those from before a suspend are dropped, and what was measured since stands (B6, S9)."""
    woken = TAKEN._replace(boottime_ns=TAKEN.boottime_ns + HOUR, realtime_ns=TAKEN.realtime_ns + HOUR)
    old, new = measurement(S, 5 * MS, delay_ns=1), measurement(MS, 5 * MS, after=woken)
    (judged,) = select((answered(1, old, new),), woken).sources
    assert judged.status == "agreeing"
    assert judged.candidate is not None
    assert judged.candidate.interval == Interval(-4 * MS, 6 * MS)


# --- the estimate -------------------------------------------------------------------------------------------------


def test_a_falseticker_with_a_narrow_interval_does_not_decide() -> None:
    """R2: three servers say 0 within 30 ms, a falseticker 29 ms within 1 ns; the estimate stays with the three."""
    honest = [candidate(-30 * MS, 30 * MS, number) for number in range(3)]
    assert agreed([*honest, candidate(29 * MS - 1, 29 * MS + 1, 3)]).estimate_ns == 0


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([(7, 100)], 7),
        ([(2, 100), (8, 100)], 5),
        ([(2, 100), (8, 200)], 3),  # weights 1 and 1/4: 3.2
        ([(0, 100), (0, 100), (60, 1)], 60),  # of three none may be wrong: the nearest counts
        ([(0, 100), (0, 100), (9, 100), (60, 1)], 9),  # of four one may: it weighs as much as the next, and is limited
        ([(1, 50), (3, 50), (5, 100), (7, 100)], 3),  # weights 1, 1, 1/4 and 1/4: 2.8
    ],
)
def test_the_estimate_is_a_mean_with_limited_weights(sources: list[tuple[int, int]], expected: int) -> None:
    """Sources have offset and half-width; weights are 1 / half-width squared, and at most that of rank f + 1 (R2)."""
    candidates = [
        candidate(offset - half, offset + half, number, offset=offset) for number, (offset, half) in enumerate(sources)
    ]
    assert agreed(candidates).estimate_ns == expected


@given(attacked(), st.data())
@settings(max_examples=600, deadline=None)
def test_falsetickers_cannot_move_the_estimate_beyond_the_honest(
    world: tuple[list[Interval], list[Interval], int], data: st.DataObject
) -> None:
    """With at most f falsetickers of more than 2 f usable sources the estimate is in the range of the honest ones (R2).

    Where the interval leaves that range out, it is at the interval's end, to which the honest sources alone bring it.
    """
    honest, false, missing = world
    if len(honest) <= len(false):
        return
    voters = [
        candidate(*interval, number, offset=data.draw(st.integers(*interval)))
        for number, interval in enumerate([*honest, *false])
    ]
    agreement = agree(voters, lost(missing))
    asked = len(voters) + missing
    if agreement is None or not 2 * ((asked - 1) // 3) < len(voters):
        return
    offsets = [voter.offset_ns for voter in voters[: len(honest)]]
    common_low, common_high = max(i.earliest_ns for i in honest), min(i.latest_ns for i in honest)
    assert min(*offsets, common_high) <= agreement.estimate_ns <= max(*offsets, common_low)
    if agreement.interval.earliest_ns <= min(offsets) and max(offsets) <= agreement.interval.latest_ns:
        assert min(offsets) <= agreement.estimate_ns <= max(offsets)


def test_honest_sources_that_falsetickers_exclude_still_hold_the_estimate() -> None:
    """Seven asked, two lost, two lie: they agree with two of three honest ones and disown the third (R2)."""
    honest = [candidate(-10, 10, 1, offset=0), candidate(-1, 10, 2, offset=1), candidate(-10, 2, 3, offset=-5)]
    falsetickers = [candidate(10, 10, number) for number in (4, 5)]
    agreement = agree([*honest, *falsetickers], lost(2))
    assert agreement is not None
    assert agreement.statuses[2] == "falseticker"
    assert -5 <= agreement.estimate_ns <= 1


def test_falsetickers_have_no_say_in_the_estimate() -> None:
    """The estimate is that of the agreeing sources alone (S7)."""
    with_falseticker = [candidate(-10, 10, 1), candidate(-12, 12, 2), candidate(S, S, 3), candidate(-14, 14, 4)]
    assert agreed(with_falseticker).estimate_ns == 0


@pytest.mark.parametrize("side", [1, -1])
def test_the_estimate_stays_inside_the_interval(side: int) -> None:
    """What the mean makes of lopsided offsets is drawn to the interval that is guaranteed (S7)."""
    near, far = sorted((0, 10 * side)), sorted((0, 100 * side))
    candidates = [
        Candidate(100 * side, Interval(*far), frozenset({"net 1"})),
        Candidate(10 * side, Interval(*near), frozenset({"net 2"})),
    ]
    assert agreed(candidates).estimate_ns == 10 * side


@given(
    st.lists(
        st.tuples(st.integers(-S, S), st.integers(0, S), st.integers(0, S), st.floats(0, 1)), min_size=1, max_size=6
    ),
    st.integers(-70 * YEAR, 70 * YEAR),
)
@settings(max_examples=200, deadline=None)
def test_the_estimate_agrees_with_fractions(rows: list[tuple[int, int, int, float]], far: int) -> None:
    """The estimate is the mean of exact arithmetic, to 1 ns even for a clock that is 70 years wrong (R2)."""
    candidates = [
        Candidate(
            far + min(at, 0) - left + int((left + right) * part),
            Interval(far + min(at, 0) - left, far + max(at, 0) + right),
            frozenset({str(number)}),
        )
        for number, (at, left, right, part) in enumerate(rows)
    ]  # every interval holds `far`
    agreement = agreed(candidates)
    assert agreement.statuses == ("agreeing",) * len(rows)
    offsets, limit = sorted(voter.offset_ns for voter in candidates), (len(rows) - 1) // 3
    least = max(1, sorted(voter.interval.half_width_ns for voter in candidates)[limit])
    weights = [Fraction(least, max(least, voter.interval.half_width_ns)) ** 2 for voter in candidates]
    total = sum(weight * voter.offset_ns for weight, voter in zip(weights, candidates, strict=True))
    exact = min(max(total / sum(weights), Fraction(offsets[limit])), Fraction(offsets[-1 - limit]))
    inside = min(max(exact, Fraction(agreement.interval.earliest_ns)), Fraction(agreement.interval.latest_ns))
    assert abs(agreement.estimate_ns - inside) <= Fraction(1, 2)


# --- order --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 40), st.integers(0, 3)), max_size=7), st.randoms())
@settings(max_examples=300, deadline=None)
def test_order_never_matters(rows: list[tuple[int, int, int]], random: Random) -> None:
    """However the sources are ordered the answer is the same, and each status follows its source."""
    candidates = [candidate(at, at + size, net) for at, size, net in rows]
    order = list(range(len(candidates)))
    random.shuffle(order)
    first, second = agree(candidates), agree([candidates[position] for position in order])
    if first is None or second is None:
        assert first == second
    else:
        assert second.statuses == tuple(first.statuses[position] for position in order)
        assert second._replace(statuses=()) == first._replace(statuses=())


def test_statuses_follow_their_sources() -> None:
    """Whatever the order of six different sources, each is judged the same, and listed in the order queried."""
    sources = (
        answered(1),
        answered(2),
        answered(3),
        answered(4, measurement(5 * S)),
        failed(5),
        answered(6, measurement(0, 2 * S)),
    )
    statuses = ("agreeing", "agreeing", "agreeing", "falseticker", "unreachable", "distant")
    expected = {source.name: status for source, status in zip(sources, statuses, strict=True)}
    agreement = select(sources, TAKEN).agreement
    assert agreement is not None
    for order in permutations(sources):
        selection = select(order, TAKEN)
        assert [judged.source for judged in selection.sources] == list(order)
        assert {judged.source.name: judged.status for judged in selection.sources} == expected
        assert selection.agreement is not None
        assert selection.agreement._replace(statuses=()) == agreement._replace(statuses=())


# --- from observations --------------------------------------------------------------------------------------------


def only(source: SourceObservation, now: ClockReading = TAKEN) -> tuple[str, str | None]:
    """Return the status and the reason of a source that is asked alone."""
    (judged,) = select((source,), now).sources
    return judged.status, judged.reason


def test_an_ordinary_survey() -> None:
    """Four independent sources that agree all take part, tolerate one falseticker, and have no reason."""
    selection = select(FOUR, TAKEN)
    assert [(judged.status, judged.reason) for judged in selection.sources] == [("agreeing", None)] * 4
    assert selection.usable == selection.sources
    assert selection.agreement == Agreement(Interval(-10 * MS, 10 * MS), 0, ("agreeing",) * 4, 1, False)
    for judged, source in zip(selection.sources, FOUR, strict=True):
        assert judged.source is source
        assert (judged.best,) == source.outcome
        assert judged.candidate is not None
        assert judged.candidate.interval == Interval(-10 * MS, 10 * MS)


@pytest.mark.parametrize(
    ("status", "reason"), [("rejected", "bogus"), ("unreachable", "timeout"), ("skipped", "kod:DENY")]
)
def test_a_failure_keeps_its_status(status: str, reason: str) -> None:
    """What gave no measurement takes no part, and keeps the status and the reason that it came with."""
    assert only(failed(1, status, reason)) == (status, reason)
    selection = select((failed(1, status, reason),), TAKEN)
    assert (selection.usable, selection.agreement) == ((), None)


def test_no_majority_makes_everybody_a_falseticker() -> None:
    """Where two contradict each other both are falsetickers for want of a majority; who failed stays as he was."""
    selection = select((answered(1), failed(2), answered(3, measurement(S))), TAKEN)
    assert [(judged.status, judged.reason) for judged in selection.sources] == [
        ("falseticker", "no-majority"),
        ("unreachable", "timeout"),
        ("falseticker", "no-majority"),
    ]
    assert selection.agreement is None
    assert len(selection.usable) == 2


def test_a_falseticker_disagrees() -> None:
    """A falseticker has the reason `disagrees`, and keeps its values."""
    selection = select((*FOUR[:3], answered(4, measurement(S))), TAKEN)
    falseticker = selection.sources[3]
    assert (falseticker.status, falseticker.reason) == ("falseticker", "disagrees")
    assert falseticker.candidate is not None
    assert falseticker.candidate.offset_ns == S
    assert falseticker.best is not None


@pytest.mark.parametrize(("half_width", "status"), [(S - 1, "agreeing"), (S, "agreeing"), (S + 1, "distant")])
def test_a_distant_source_does_not_vote(half_width: int, status: str) -> None:
    """A half-width above RFC 5905's one second says too little to vote, and is kept as a datum (V17)."""
    source = answered(1, measurement(0, half_width))
    selection = select((source,), TAKEN)
    (judged,) = selection.sources
    assert judged.status == status
    assert judged.reason == (None if status == "agreeing" else "distant")
    assert judged.candidate is not None
    assert judged.candidate.interval.half_width_ns == half_width
    assert (selection.agreement is not None) == (status == "agreeing")
    assert len(selection.usable) == (status == "agreeing")


def test_a_source_with_a_warning_takes_part() -> None:
    """A server with a warning votes, and the warning is its reason (V15, V16)."""
    warned = measurement(said=reply(reference_id=b"\x0a\0\0\1", warnings=("reftime-future", "sync-loop")))
    assert only(answered(1, warned)) == ("agreeing", "reftime-future")


def test_the_samples_of_one_source_intersect() -> None:
    """All samples of one server bound the same offset, so its interval is what all of them say (S9)."""
    samples = (
        measurement(earliest_ns=-50, latest_ns=90),
        measurement(earliest_ns=-70, latest_ns=20),
        measurement(0, 60),
    )
    (judged,) = select((answered(1, *samples),), TAKEN).sources
    assert judged.candidate is not None
    assert judged.candidate.interval == Interval(-50, 20)


def test_the_quickest_sample_is_the_best() -> None:
    """The offset is that of the least delay, the earlier of equals, within what all samples say (S9)."""
    later = reading(NOON + S, uptime_ns=DAY + S)
    slow = measurement(5 * MS, 40 * MS, delay_ns=80 * MS)
    quick = measurement(7 * MS, 20 * MS, delay_ns=40 * MS)
    again = measurement(8 * MS, 20 * MS, delay_ns=40 * MS, after=later)
    for samples in permutations((slow, quick, again)):
        (judged,) = select((answered(1, *samples),), later).sources
        assert judged.best is not None
        assert judged.candidate is not None
        assert (judged.best.offset_ns, judged.candidate.offset_ns) == (7 * MS, 7 * MS)
    outside = measurement(0, 40 * MS, delay_ns=1, earliest_ns=30 * MS)
    (judged,) = select((answered(1, outside),), TAKEN).sources
    assert judged.candidate is not None
    assert judged.candidate.offset_ns == 30 * MS


@pytest.mark.parametrize(("apart", "status"), [(20 * MS, "agreeing"), (20 * MS + 1, "rejected")])
def test_samples_that_contradict_each_other_are_rejected(apart: int, status: str) -> None:
    """If no offset satisfies all samples, the server or the host was stepped: the source is not usable (S9)."""
    source = answered(1, measurement(0), measurement(apart))
    assert only(source) == (status, None if status == "agreeing" else "inconsistent")
    (judged,) = select((source,), TAKEN).sources
    assert (judged.candidate is None) == (status == "rejected")


def test_a_contradiction_counts_whatever_the_order_of_the_samples() -> None:
    """Three samples of which two contradict each other are inconsistent in any order (S9)."""
    for samples in permutations((measurement(0), measurement(15 * MS), measurement(30 * MS))):
        assert only(answered(1, *samples)) == ("rejected", "inconsistent")


@pytest.mark.parametrize("step", [-HOUR, -1, 0, 3 * S])
def test_statements_are_carried_to_the_common_instant(step: int) -> None:
    """If a clock was stepped after the exchange, its offset changes by the step and its bound grows (S1, B6)."""
    now = reading(NOON + 10 * S + step, uptime_ns=DAY + 10 * S)
    selection = select((answered(1, measurement(MS, 5 * MS)),), now)
    (judged,) = selection.sources
    assert judged.candidate is not None
    assert judged.candidate.offset_ns == MS - step
    grown = 500 * US  # 50 ppm of 10 s
    assert judged.candidate.interval == Interval(-4 * MS - step - grown, 6 * MS - step + grown)
    assert selection.agreement is not None
    assert selection.agreement.interval == judged.candidate.interval


def test_samples_before_and_after_a_step_agree() -> None:
    """Samples from before and after a step of the host's clock are compared where both hold, after it (S1, S9)."""
    now = reading(NOON + 2 * S + HOUR, uptime_ns=DAY + 2 * S)
    before, after = measurement(HOUR, 5 * MS), measurement(0, 5 * MS, after=now)
    assert only(answered(1, before, after), now) == ("agreeing", None)
    wrong = measurement(-HOUR, 5 * MS)
    assert only(answered(1, wrong, after), now) == ("rejected", "inconsistent")


# --- fates --------------------------------------------------------------------------------------------------------


def fates(address: str, port: int = 123, reference_id: bytes = b"GPS\0", stratum: int = 1) -> frozenset[str]:
    """Return the fates of a source, by default one whose upstream is no server."""
    best = measurement(said=reply(reference_id=reference_id, stratum=stratum))
    return shared_failure_domains(SourceObservation(f"name of {address}", address, port, (best,)), best)


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("192.0.2.1", "192.1.2.1", False),
        ("19.2.0.21", "192.0.2.1", False),
        ("2001:db8:1::1", "2001:db8:1:ffff::2", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("2001:db8::1", "2001:db8:0:1:2:3:4:5", True),
        ("2001:db8::", "2001:db8:0:9::1", True),
        ("2001::1", "2001:0:0:8::1", True),
        ("2001:db8::1:1", "2001:db8:1::1", False),
        ("2001:0db8:0001::1", "2001:db8:1::2", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("2001:db8:1::1", "192.0.2.1", False),
        ("127.0.0.1", "192.0.2.1", False),
    ],
)
def test_neighbours_share_a_fate(one: str, other: str, shared: bool) -> None:
    """Addresses of one /24 or one /48 may fail together, whatever their ports (S8)."""
    assert bool(fates(one) & fates(other, port=1123)) == shared
    assert fates(one) & fates(one, port=1123) == (frozenset() if one.startswith("127.") else fates(one))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1"])
def test_on_loopback_each_port_is_a_server_of_its_own(address: str) -> None:
    """Servers on different ports of loopback share nothing, on the same port everything."""
    assert not fates(address, 1123) & fates(address, 1124)
    assert fates(address, 1123) == fates(address, 1123)
    assert not fates("127.0.0.1", 1123) & fates("127.0.0.2", 1123)


def test_the_same_upstream_is_a_shared_fate() -> None:
    """Two servers that follow the same third one count as one, from stratum 2 on (S8)."""
    up, other = bytes((192, 0, 9, 1)), bytes((192, 0, 9, 2))
    assert fates("192.0.2.1", 123, up, 2) & fates("198.51.100.1", 123, up, 3)
    assert not fates("192.0.2.1", 123, up, 2) & fates("198.51.100.1", 123, other, 2)
    assert not fates("192.0.2.1", 123, b"GPS\0", 1) & fates("198.51.100.1", 123, b"GPS\0", 1)


@pytest.mark.parametrize("reference_id", [b"\x7f\x7f\x01\x01", b"\x7f\0\0\1", bytes(4)])
def test_a_local_clock_is_no_upstream(reference_id: bytes) -> None:
    """A reference id of 127.* or of zero names no server that two could share."""
    assert not fates("192.0.2.1", 123, reference_id, 2) & fates("198.51.100.1", 123, reference_id, 2)


def stratum_1(
    name: str, address: str, offset_ns: int = 0, delay_ns: int = 20 * MS, reference_id: bytes = b"GPS\0"
) -> SourceObservation:
    """Make a stratum 1 source."""
    said = reply(reference_id=reference_id, stratum=1)
    return answered(1, measurement(offset_ns, delay_ns=delay_ns, said=said), name=name, address=address)


V4, V6 = "203.0.113.1", "2001:db8::1"


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        (stratum_1("b", V6), True),
        (stratum_1("b", V6, offset_ns=MS, delay_ns=21 * MS), True),
        (stratum_1("b", V6, delay_ns=23 * MS), False),
        (stratum_1("b", V6, offset_ns=3 * MS), False),
        (stratum_1("b", V6, offset_ns=-3 * MS), False),
        (stratum_1("b", V6, reference_id=b"PPS\0"), False),
        (stratum_1("b", "198.51.100.1"), False),
        (answered(1, measurement(said=reply(reference_id=b"GPS\0")), name="b", address=V6), False),
        (stratum_1("a:1123", "198.51.100.1", offset_ns=MS, delay_ns=MS, reference_id=b"PPS\0"), True),
        (failed(9, name="b"), False),
    ],
)
def test_both_addresses_of_one_stratum_1_server_share_a_fate(other: SourceObservation, shared: bool) -> None:
    """IPv4 and IPv6 with the same reference id, delay and offset, or one name: one server (R10)."""
    rest = (answered(3), answered(4), answered(5), answered(6))
    for order in permutations((stratum_1("a", V4), other)):
        selection = select((*order, *rest), TAKEN)
        fates = [judged.candidate.failure_domains for judged in selection.sources if judged.candidate]
        assert (len(independent_groups(fates)) < len(fates)) == shared
        usable = len(selection.usable)
        assert selection.agreement is not None
        assert selection.agreement.max_falsetickers == (2 if shared and usable == 6 else 1)


def test_a_wrong_server_with_two_addresses_is_one_falseticker() -> None:
    """A stratum 1 server that lies is outvoted by four, also where it is configured by both of its addresses (R10)."""
    said = reply(reference_id=b"GPS\0", stratum=1)
    exact = measurement(10 * MS, 0, said=said)
    falseticker = [answered(9, exact, name=name, address=address) for name, address in (("a", V4), ("b", V6))]
    agreement = select((*FOUR, *falseticker), TAKEN).agreement
    assert agreement is not None
    assert agreement.max_falsetickers == 2
    assert agreement.interval.covers(0)


def test_the_places_of_a_pool_are_servers_of_their_own() -> None:
    """ZONE/0 and ZONE/1 share a name, and no fate (R10)."""
    pool = tuple(answered(number, name=f"pool.example/{number}") for number in (0, 1, 2, 3))
    fates = [judged.candidate.failure_domains for judged in select(pool, TAKEN).sources if judged.candidate]
    assert len(independent_groups(fates)) == 4


def test_a_source_without_an_address_is_known_by_its_name() -> None:
    """If no address is known, the name distinguishes sources."""
    best = measurement(said=reply(stratum=1))
    named = [SourceObservation(name, None, 123, (best,)) for name in ("a.example", "b.example")]
    assert not shared_failure_domains(named[0], best) & shared_failure_domains(named[1], best)


def test_neighbours_that_are_wrong_together_are_one_falseticker() -> None:
    """Two neighbours of five sources lie: as they share a fate they were to be expected (S8)."""
    falsetickers = (
        answered(4, measurement(S), address="192.0.9.1"),
        answered(5, measurement(S), address="192.0.9.2"),
    )
    grouped = select((*FOUR[:3], *falsetickers), TAKEN).agreement
    apart = select((*FOUR[:3], falsetickers[0], answered(5, measurement(S))), TAKEN).agreement
    assert grouped is not None
    assert apart is not None
    assert (grouped.max_falsetickers, grouped.exceeded_assumption) == (2, False)
    assert (apart.max_falsetickers, apart.exceeded_assumption) == (2, True)
    assert grouped.interval == Interval(-10 * MS, 10 * MS)

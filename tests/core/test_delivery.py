"""What an answer means, and what is done: nothing is lost, nothing waits for what is poisoned, and it always ends."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.delivery import (
    CONFIRMATIONS_NEEDED,
    MAX_ENTRIES,
    MAX_RETRY_AFTER_S,
    MAX_SOLO_FAILURES,
    MAX_WAIT_S,
    Ack,
    Attempt,
    Delivered,
    DeliveryFailure,
    DeliveryResult,
    FailureKind,
    MoveToDeadLetters,
    Refused,
    RetryAfter,
    RetryNow,
    RetryState,
    Unreachable,
    back_off_s,
    classify,
    decide,
    describe,
    is_refusal,
)

REFUSED = Unreachable("no connection: Connection refused", sent=False)
RESET = Unreachable("no answer: Connection reset by peer", sent=True)
CONFLICT = Refused(400, 'partial write: field type conflict: input field "offset_s" is type integer dropped=1')
ONE = Attempt(1, 5)
FULL = Attempt(MAX_ENTRIES, 5 * MAX_ENTRIES)


# --- what an answer is about --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "sort"),
    [
        (CONFLICT, "content"),
        (Refused(400, "unable to parse 'bad': missing fields"), "content"),
        (Refused(400, "partial write: unable to parse 'bad': missing fields dropped=0"), "content"),
        (Refused(400, "partial write: points beyond retention policy dropped=3"), "content"),
        (Refused(422, "failure writing points to database: partial write: field type conflict"), "content"),
        (Refused(400, "partial write of line protocol occurred: invalid column type"), "content"),
        (Refused(400, "partial write: max-values-per-tag limit exceeded (100000/100000) dropped=2"), "broken"),
        (Refused(400, "database is required"), "broken"),
        (Refused(422, ""), "broken"),
        (Refused(413, "Request Entity Too Large"), "size"),
        (Refused(408, ""), "busy"),
        (Refused(429, ""), "busy"),
        (Refused(503, "", 5.0), "busy"),
        (Refused(503, ""), "broken"),
        (Refused(500, "engine: error writing WAL entry: no space left on device"), "broken"),
        (Refused(507, "disk full"), "broken"),
        (RESET, "broken"),
        (REFUSED, "away"),
        (Refused(401, "unauthorized"), "operator"),
        (Refused(403, "forbidden"), "operator"),
        (Refused(404, 'database not found: "ntpaudit"'), "operator"),
        (Refused(302, "redirected to https://db.example.net"), "operator"),
        (Refused(200, "<html>"), "operator"),
        (Refused(405, ""), "operator"),
        (Refused(100, ""), "operator"),
    ],
)
def test_every_answer_is_sorted(failure: DeliveryFailure, sort: FailureKind) -> None:
    """Only what is refused for its content is called so; whatever else is refused is kept."""
    assert classify(failure) == sort


@pytest.mark.parametrize("status", [200, 301, 307, 401, 403, 404])
def test_an_error_for_the_operator_names_the_fix(status: int) -> None:
    """The error text for what only an operator can fix states what to do."""
    assert "influxdb.url" in describe(Refused(status, "so it is")) or "token" in describe(Refused(status, "so it is"))


# --- waits --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_back_off_is_within_a_limit_that_doubles(failures: int, rand: float) -> None:
    """Waits are spread over all of a limit that doubles up to five minutes."""
    limit_s = min(MAX_WAIT_S, 2.0 ** min(failures, 20))
    assert back_off_s(failures, rand) == pytest.approx(rand * limit_s)


def test_back_off_grows_with_every_failure() -> None:
    """An outage is asked about ever more seldom, up to once in five minutes."""
    pace, waits = RetryState(), []
    for _ in range(12):
        pace, action = decide(pace, ONE, REFUSED, 0.999)
        assert isinstance(action, RetryAfter)
        waits.append(action.wait_s)
    assert waits == sorted(waits)
    assert waits[0] < 1
    assert waits[-1] == pytest.approx(MAX_WAIT_S, rel=0.01)


@given(st.floats(0, 10**9), st.floats(0, 1, exclude_max=True), st.sampled_from([429, 503]))
def test_retry_after_is_obeyed_up_to_an_hour(requested_s: float, rand: float, status: int) -> None:
    """The server is left alone for as long as it asks, but not for days."""
    _, action = decide(RetryState(), ONE, Refused(status, "", requested_s), rand)
    assert isinstance(action, RetryAfter)
    assert min(requested_s, MAX_RETRY_AFTER_S) <= action.wait_s <= MAX_RETRY_AFTER_S


def test_a_retry_after_of_nothing_still_backs_off() -> None:
    """A server that keeps saying that it may be asked at once is not asked in a tight loop."""
    pace = RetryState()
    for _ in range(20):
        pace, action = decide(pace, ONE, Refused(429, "", 0.0), 0.5)
    assert isinstance(action, RetryAfter)
    assert action.wait_s == MAX_WAIT_S / 2


@given(st.sampled_from([301, 401, 403, 404, 405]), st.floats(0, 1, exclude_max=True), st.integers(0, 10**6))
def test_an_operator_is_waited_for(status: int, rand: float, failures: int) -> None:
    """A wrong token, bucket or URL is tried again no more often than every five minutes, and loses nothing."""
    pace, action = decide(RetryState(failures=failures), FULL, Refused(status, ""), rand)
    assert isinstance(action, RetryAfter)
    assert action.wait_s >= MAX_WAIT_S
    assert pace.size == MAX_ENTRIES


# --- a database that refuses some entries -------------------------------------------------------------------------


class Refusal(NamedTuple):
    """Why an entry is never accepted."""

    status: int = 400
    reason: str = "partial write: field type conflict dropped={dropped}"


class Database:
    """A simulated database that keeps what it accepts, and refuses some entries for ever."""

    def __init__(self, bad: dict[int, Refusal], capacity: int = 10**9) -> None:
        self.bad = bad
        self.capacity = capacity
        self.stored: set[int] = set()
        self.requests = 0

    def write(self, entries: Sequence[int]) -> DeliveryResult:
        """Store the good ones, as InfluxDB 1.x does even where it says 400."""
        self.requests += 1
        if len(entries) > self.capacity:
            return Refused(413, "too large")
        worst = next((self.bad[entry] for entry in entries if entry in self.bad), None)
        if worst is None or worst.status == 400:
            self.stored |= {entry for entry in entries if entry not in self.bad}
        if worst is None:
            return Delivered()
        return Refused(worst.status, worst.reason.format(dropped=sum(entry in self.bad for entry in entries)))


class Outcome(NamedTuple):
    """The result for each entry, and the time and requests it took."""

    confirmed: list[int]
    aside: list[int]
    waited_s: float


def deliver(
    count: int, write: Callable[[Sequence[int]], DeliveryResult], chances: random.Random, limit: int
) -> Outcome:
    """Deliver entries 0 to `count`, each of one line, as the delivery worker does, within a limit of requests."""
    waiting, pace = list(range(count)), RetryState()
    done = Outcome([], [], 0.0)
    for _ in range(limit):
        if not waiting:
            return done
        seen = waiting[: pace.lookahead]
        if pace.compares and len(seen) < len(waiting):
            seen.append(waiting[-1])
        place = pace.next_position(len(seen), chances.random())
        sent = seen[place : place + 1] if place else seen[: pace.size]
        pace, action = decide(pace, Attempt(len(sent), len(sent), place), write(sent), chances.random())
        match action:
            case Ack():
                assert place == 0
                done.confirmed.extend(sent)
                del waiting[: len(sent)]
            case MoveToDeadLetters(entries):
                done.aside.extend(waiting[:entries])
                del waiting[:entries]
            case RetryAfter(wait_s):
                done = done._replace(waited_s=done.waited_s + wait_s)
    raise AssertionError(f"{len(waiting)} entries still wait after {limit} requests")


REFUSALS = st.sampled_from(
    [
        Refusal(),
        Refusal(reason="unable to parse"),
        Refusal(422, "partial write: field type conflict"),
    ]
)
SEEDS = st.integers(0, 2**32).map(random.Random)


@given(st.integers(0, 3000), st.dictionaries(st.integers(0, 2999), REFUSALS, max_size=60), st.data())
def test_exactly_the_bad_entries_become_dead_letters(count: int, bad: dict[int, Refusal], data: st.DataObject) -> None:
    """Whichever entries a database refuses, exactly they become dead letters, and this takes few requests.

    The newest entry is a good one: if no entry is accepted, none becomes a dead letter.
    """
    capacity = data.draw(st.sampled_from([1, 7, 300, 10**9]))
    wrong = {entry for entry in bad if entry < count}
    database = Database({entry: bad[entry] for entry in wrong}, capacity)
    requests = 30 + (30 + 2 * CONFIRMATIONS_NEEDED) * len(wrong) + 4 * count // min(capacity, MAX_ENTRIES)
    outcome = deliver(count + 1, database.write, data.draw(SEEDS), requests)
    assert set(outcome.aside) == wrong
    assert set(outcome.confirmed) == set(range(count + 1)) - wrong == database.stored
    assert outcome.confirmed == sorted(outcome.confirmed)
    assert outcome.aside == sorted(outcome.aside)
    assert outcome.waited_s == 0


TOO_OLD = Refusal(reason="partial write: beyond retention policy dropped={dropped}")


def test_a_batch_that_is_dropped_as_a_whole_goes_at_once() -> None:
    """Entries that are all too old for the database's retention cost requests for each batch, not for each entry."""
    database = Database(dict.fromkeys(range(5000), TOO_OLD))
    outcome = deliver(5001, database.write, random.Random(1), 5 * (2 * CONFIRMATIONS_NEEDED + 1) + 2)
    assert outcome.aside == list(range(5000))
    assert outcome.confirmed == [5000]


@given(st.integers(1, 40), st.sampled_from([Refusal(), Refusal(413, "too large"), TOO_OLD, Refusal(422, "x")]), SEEDS)
def test_a_database_that_refuses_every_entry_makes_no_dead_letter(
    count: int, refusal: Refusal, chances: random.Random
) -> None:
    """If the path damages every request, the entries are not at fault: they arrive once it is repaired."""
    broken, well, asked = Database(dict.fromkeys(range(count), refusal)), Database({}), 0

    def write(entries: Sequence[int]) -> DeliveryResult:
        nonlocal asked
        asked += 1
        return (broken if asked <= 300 else well).write(entries)

    outcome = deliver(count, write, chances, 2000)
    assert outcome.aside == []
    assert outcome.confirmed == list(range(count))
    assert outcome.waited_s > 1000  # the database is not asked in a tight loop


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("refusal", [CONFLICT, Refused(413, "too large"), Refused(422, "unable to parse")])
def test_a_path_that_damages_half_of_the_requests_loses_no_entry(seed: int, refusal: Refused) -> None:
    """One of two proxies damages what passes, in turn or at random: each entry is accepted in time."""
    chances, database = random.Random(seed), Database({})

    def write(entries: Sequence[int]) -> DeliveryResult:
        is_spoilt = chances.random() < 0.5 if seed % 2 else database.requests % 2
        return database.write(entries) if not is_spoilt else database.write([]) and refusal

    outcome = deliver(1000, write, random.Random(seed), 10_000)
    assert outcome.aside == []
    assert outcome.confirmed == list(range(1000))


@pytest.mark.parametrize("status", [400, 413])
def test_a_refused_entry_waits_for_another_to_compare_it_with(status: int) -> None:
    """The only waiting entry is retried again and again; once another is accepted eight times, it is a dead letter."""
    pace, refusal = RetryState(), Refused(status, "partial write: field type conflict")
    for _ in range(50):
        assert pace.next_position(1, 0.99) == 0
        pace, action = decide(pace, ONE, refusal, 0.5)
        assert not isinstance(action, MoveToDeadLetters)
    assert isinstance(action, RetryAfter)
    for _ in range(CONFIRMATIONS_NEEDED):
        assert pace.next_position(2, 0.0) == 1
        pace, action = decide(pace, Attempt(1, 5, 1), Delivered(), 0.5)
        assert action == RetryNow()
        assert pace.next_position(2, 0.99) == 0
        pace, action = decide(pace, ONE, refusal, 0.5)
    assert action == MoveToDeadLetters(1, describe(refusal))


def test_what_is_healed_between_two_refusals_is_delivered() -> None:
    """A refused entry is sent once more before it is given up, and one that is accepted then is confirmed."""
    pace, _ = decide(RetryState(), ONE, CONFLICT, 0.5)
    for _ in range(CONFIRMATIONS_NEEDED - 1):
        pace, _ = decide(pace, Attempt(1, 5, 1), Delivered(), 0.5)
        pace, _ = decide(pace, ONE, CONFLICT, 0.5)
    pace, _ = decide(pace, Attempt(1, 5, 1), Delivered(), 0.5)
    pace, action = decide(pace, ONE, Delivered(), 0.5)
    assert (action, pace.suspects, pace.confirmations) == (Ack(), 0, 0)


@pytest.mark.parametrize(
    ("failure", "is_one"),
    [(CONFLICT, True), (Refused(401, ""), True), (Refused(413, ""), True), (Refused(301, ""), True),
     (Refused(429, ""), False), (Refused(500, ""), False), (RESET, False), (REFUSED, False)],
)  # fmt: skip
def test_what_is_counted_as_a_refusal(failure: DeliveryFailure, is_one: bool) -> None:
    """A reply that refuses the data, not one that asks for time or reports a failing server."""
    assert is_refusal(failure) == is_one


@given(st.sets(st.integers(0, 40), min_size=1, max_size=4), SEEDS)
def test_an_entry_that_makes_the_server_fail_becomes_a_dead_letter(bad: set[int], chances: random.Random) -> None:
    """An entry that alone gets 500 while others are accepted becomes a dead letter and does not block the rest."""
    database = Database({entry: Refusal(500, "panic") for entry in bad})
    outcome = deliver(50, database.write, chances, 4000)
    assert set(outcome.aside) == bad
    assert outcome.waited_s < len(bad) * 3600


@given(st.integers(1, 30), SEEDS)
def test_a_server_that_always_fails_makes_no_dead_letter(count: int, chances: random.Random) -> None:
    """If nothing is accepted, the server is at fault, not the entries: all wait, and then arrive in order."""
    database, refusals = Database({}), iter([Refused(400, "database is required")] * 200)
    outcome = deliver(count, lambda entries: next(refusals, None) or database.write(entries), chances, 1000)
    assert outcome.confirmed == list(range(count))


@pytest.mark.untraced
@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("failure", [Refused(500, ""), RESET, Refused(400, "?")])
def test_a_database_that_flaps_loses_no_entry(seed: int, failure: DeliveryFailure) -> None:
    """Answers that are as often wrong as right, at random or in turn, set nothing aside."""
    chances, database = random.Random(seed), Database({})

    def write(entries: Sequence[int]) -> DeliveryResult:
        is_up = database.write(entries)
        return is_up if (chances.random() < 0.5 if seed % 2 else database.requests % 2) else failure

    outcome = deliver(2500, write, random.Random(seed), 10_000)
    assert outcome.aside == []
    assert outcome.confirmed == list(range(2500))


@given(st.integers(1, 1200), SEEDS)
def test_a_database_slower_than_the_timeout_gets_smaller_batches(in_time: int, chances: random.Random) -> None:
    """Where it stores everything, but answers in time only to batches of a size, all arrives, with short delays."""
    late = Unreachable("no reply in 0.5 s", sent=True)
    outcome = deliver(1200, lambda entries: Delivered() if len(entries) <= in_time else late, chances, 2410)
    assert outcome.confirmed == list(range(1200))
    assert outcome.aside == []
    assert outcome.waited_s < 1200


def test_an_outage_does_not_make_the_oldest_entry_suspect() -> None:
    """After any number of refused connections the first entry is sent again, together with all others."""
    pace = RetryState()
    for _ in range(1000):
        pace, action = decide(pace, FULL, REFUSED, 0.5)
        assert isinstance(action, RetryAfter)
    assert pace.next_position(1000, 0.99) == 0
    assert pace.size == MAX_ENTRIES
    assert decide(pace, FULL, Delivered(), 0.5) == (RetryState(), Ack())


def test_an_entry_is_suspected_only_against_others() -> None:
    """An entry is compared with others once it has failed alone, and is a dead letter after the eighth proof."""
    pace = RetryState()
    for _ in range(MAX_SOLO_FAILURES):
        assert pace.next_position(10, 0.99) == 0
        pace, _ = decide(pace, ONE, RESET, 0.5)
    for proof in range(1, CONFIRMATIONS_NEEDED + 1):
        place = pace.next_position(10, 0.99)
        assert 1 <= place <= 9
        pace, action = decide(pace, Attempt(1, 5, place), Delivered(), 0.5)
        if proof < CONFIRMATIONS_NEEDED:
            assert isinstance(action, RetryAfter)
            assert pace.next_position(10, 0.99) == 0
            pace, _ = decide(pace, ONE, RESET, 0.5)
    assert action == MoveToDeadLetters(1, RESET.reason)


def test_size_recovers() -> None:
    """After a failure the batches grow again with every success; after 413 only to what the server took."""
    pace, _ = decide(RetryState(), FULL, RESET, 0.5)
    assert pace.size == MAX_ENTRIES // 8
    for _ in range(4):
        pace, _ = decide(pace, Attempt(pace.size, 1), Delivered(), 0.5)
    assert pace.size == MAX_ENTRIES
    pace, _ = decide(pace, FULL, Refused(413, ""), 0.5)
    for _ in range(4):
        pace, _ = decide(pace, Attempt(pace.size, 1), Delivered(), 0.5)
    assert pace.size == MAX_ENTRIES // 2

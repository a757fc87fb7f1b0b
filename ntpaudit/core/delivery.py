"""What a database's answer means for the letters it was given, and what to do next.

A letter is let go of only when the database has confirmed it, or has refused it again and again while it accepted
others. Everything else is waited out, however long it takes. To send a letter twice changes no point.
"""

from typing import Literal, NamedTuple

MAX_ENTRIES = 1000
"""The most letters in one request."""

FIRST_WAIT_S = 1.0
"""The longest first back-off; every further failure doubles it."""

MAX_WAIT_S = 300.0
"""The longest back-off, and the time between two attempts while an operator is waited for."""

MAX_RETRY_AFTER_S = 3600.0
"""A Retry-After is obeyed up to this: a proxy's slip must not silence a host for days."""

SHRINK = 8
"""By how much a batch gets smaller when the database fails on it: it may fail because of it."""

DOUBTS = 3
"""A letter that failed alone so many times in a row is compared with others."""

PROOFS = 8
"""A letter that failed so many times, each time with another one accepted after it, is itself what is wrong.

That holds for one refused for its content or size too: a proxy may spoil every request, or some of them.
"""

PROBES = 10
"""After this many letters in a row were refused like the oldest, the database is given time before the next."""


class Delivered(NamedTuple):
    """The database says that it has stored every line."""


class Refused(NamedTuple):
    """The server answered with another status. `reason` is its text in one line, `retry_after_s` what it asks for."""

    status: int
    reason: str
    retry_after_s: float | None = None


class Unreachable(NamedTuple):
    """There was no answer. Unless `sent`, the lines never left this host."""

    reason: str
    sent: bool


Failure = Refused | Unreachable
Answer = Delivered | Failure


class Attempt(NamedTuple):
    """What was sent: so many letters, of so many lines, from `place` on; place 0 is the oldest that waits."""

    entries: int
    lines: int
    position: int = 0


class RetryState(NamedTuple):
    """How delivery goes on. `size` is how many letters to send at once, `most` how many the server takes (413).

    `failures` counts attempts in a row that failed. `alone` counts those of the oldest letter by itself, `proofs` how
    often another letter was accepted after it, and while it `owes` one, none was since it failed last, of `reason`.

    `suspects` is how many of the oldest letters the database refused for their content or size, as a whole, and
    `probes` how many others it has refused in a row since.
    """

    size: int = MAX_ENTRIES
    most: int = MAX_ENTRIES
    failures: int = 0
    solo_failures: int = 0
    confirmations: int = 0
    awaiting_confirmation: bool = False
    reason: str = ""
    suspects: int = 0
    probes: int = 0

    @property
    def lookahead(self) -> int:
        """How many letters to look at."""
        return self.suspects + MAX_ENTRIES if self.compares else self.size

    def next_position(self, waiting: int, rand: float) -> int:
        """Return which letter to send next: the oldest, or by `chance` another that waits, to compare it with.

        One that was refused for its content is compared with the newest first, which is the likeliest to be accepted.
        """
        first = max(1, self.suspects)
        others = waiting - first
        if not (self.compares and self.awaiting_confirmation and others > 0):
            return 0
        if self.suspects and self.probes < PROBES:
            return first + int(rand * others) if self.probes else waiting - 1
        return 0 if rand < 0.5 else first + int((2 * rand - 1) * others)

    def on_another(self) -> "RetryState":
        """Return how delivery goes on with another oldest letter: what was learnt of the one before is not its own."""
        return self._replace(
            solo_failures=0, confirmations=0, awaiting_confirmation=False, reason="", suspects=0, probes=0
        )

    @property
    def compares(self) -> bool:
        """Whether it may be the oldest letter that is wrong, and not the database."""
        return self.solo_failures >= DOUBTS or self.suspects > 0


class Ack(NamedTuple):
    """Forget the letters sent: they have arrived."""


class DeadLetter(NamedTuple):
    """Take so many of the oldest letters out of the way: they will never be accepted."""

    entries: int
    reason: str


class Split(NamedTuple):
    """Send less, or something else, now: the database is well enough to answer."""


class RetryAfter(NamedTuple):
    """Send again after a wait."""

    wait_s: float


Action = Ack | DeadLetter | Split | RetryAfter
FailureKind = Literal["content", "size", "busy", "broken", "away", "operator"]


def decide(state: RetryState, attempt: Attempt, answer: Answer, rand: float) -> tuple[RetryState, Action]:
    """Say what to do about an answer, and how to go on after that. `chance` in [0, 1) spreads the waits."""
    if isinstance(answer, Delivered):
        return _after_another(state, rand) if attempt.position else (_onward(state), Ack())
    wait_s = _wait_s(state, answer, rand)
    match classify(answer):
        case "content" | "size" | "broken" if attempt.position:
            return _after_probe(state, wait_s)
        case "content":
            return _after_content(state, attempt, describe(answer), wait_s)
        case "size":
            return _after_size(state, attempt, describe(answer), wait_s)
        case "broken":
            return _after_failure(state, attempt, describe(answer)), RetryAfter(wait_s)
        case _:
            return _failed(state), RetryAfter(wait_s)


_OF_CONTENT = (
    "partial write",
    "unable to parse",
    "failed to parse",
    "parsing failed",
    "type conflict",
    "retention policy",
)
_OF_A_LIMIT = "limit exceeded"  # which can be raised, and then the letter is accepted


def classify(failure: Failure) -> FailureKind:
    """Say what a failure is about.

    `content`: lines that cannot be accepted, so the answer says (InfluxDB 1.x, 2.x and 3.x in its words). `size`:
    too many of them. `busy`: the server asks for time. `broken`: it fails, perhaps of what is in the letters. `away`:
    it cannot be reached. `operator`: somebody must mend the configuration, here or there.
    """
    match failure:
        case Unreachable(sent=sent):
            return "broken" if sent else "away"
        case Refused(status=400 | 422, reason=reason):
            text = reason.lower()
            is_of_content = any(phrase in text for phrase in _OF_CONTENT) and _OF_A_LIMIT not in text
            return "content" if is_of_content else "broken"
        case Refused(status=413):
            return "size"
        case Refused(status=408 | 429):
            return "busy"
        case Refused(status=status, retry_after_s=retry_after_s) if 500 <= status <= 599:
            return "broken" if retry_after_s is None else "busy"
        case _:
            return "operator"


def is_refusal(failure: Failure) -> bool:
    """Whether the server refused what was sent, and neither failed of it nor asked for time."""
    return isinstance(failure, Refused) and failure.status < 500 and classify(failure) != "busy"


def describe(failure: Failure) -> str:
    """Put a failure into words, with the fix where there is one."""
    match failure:
        case Unreachable(reason=reason):
            return reason
        case Refused(status=status, reason=reason):
            said = f"{status}: {reason}" if reason else str(status)
            if status == 404 and reason.startswith(NO_SUCH_PATH):
                return f"{said}; {_fix_of_an_old_influxdb(reason)}"
            fix = _FIXES.get(status) or ("write the final URL in influxdb.url" if 300 <= status <= 399 else None)
            return f"{said}; {fix}" if fix else said


NO_SUCH_PATH = "404 page not found"
"""What any server written in Go answers of a path that it does not have, InfluxDB among them."""


def _fix_of_an_old_influxdb(reason: str) -> str:
    """Return what to do where the server has no /api/v2/write; the reason names its version if it is an InfluxDB."""
    if "InfluxDB" in reason:
        return (
            "it has no /api/v2/write: upgrade it to InfluxDB 1.8 or later, or put a proxy before it "
            "(docs/delivery.md, 'InfluxDB before 1.8')"
        )
    return (
        "check influxdb.url; an InfluxDB before 1.8 takes points only through a proxy "
        "(docs/delivery.md, 'InfluxDB before 1.8')"
    )


_FIXES = {
    200: "this is no answer of a database: check influxdb.url",
    401: "check the token: influxdb.token_file, or INFLUXDB_V2_TOKEN",
    403: "give the token permission to write to this bucket",
    404: "create the bucket (in InfluxDB 1.x the database), or check influxdb.url, org and bucket",
}


def back_off_s(failures: int, rand: float) -> float:
    """Return how long to wait after so many failures: anything up to a limit that doubles (full jitter)."""
    return rand * min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures, 32))


def _wait_s(pace: RetryState, failure: Failure, rand: float) -> float:
    """Return how long to wait after a failure. Who waits for an operator, or as told, spreads a little too."""
    if classify(failure) == "operator":
        return MAX_WAIT_S * (1 + rand / 5)
    told_s = failure.retry_after_s if isinstance(failure, Refused) else None
    least_s = 0.0 if told_s is None else min(told_s * (1 + rand / 10), MAX_RETRY_AFTER_S)
    return max(least_s, back_off_s(pace.failures, rand))


def _onward(pace: RetryState) -> RetryState:
    """Go on with the next letters, twice as many."""
    return RetryState(size=min(2 * pace.size, pace.most), most=pace.most)


def _failed(pace: RetryState) -> RetryState:
    """Count a failure that the letters have nothing to do with."""
    return pace._replace(failures=pace.failures + 1)


def _after_content(pace: RetryState, attempt: Attempt, reason: str, wait_s: float) -> tuple[RetryState, Action]:
    """Halve the batch until the letter is found that is refused; the others may have been stored already."""
    if attempt.entries == 1 or reason.rpartition(" dropped=")[2] == str(attempt.lines):
        return _suspect(pace, attempt, reason, wait_s)
    return pace._replace(size=attempt.entries // 2, suspects=0, confirmations=0), Split()


def _after_size(pace: RetryState, attempt: Attempt, reason: str, wait_s: float) -> tuple[RetryState, Action]:
    """Halve the batch, and remember that."""
    if attempt.entries == 1:
        return _suspect(pace._replace(most=MAX_ENTRIES), attempt, reason, wait_s)
    half = attempt.entries // 2
    return pace._replace(size=half, most=half, suspects=0, confirmations=0), Split()


def _suspect(pace: RetryState, attempt: Attempt, reason: str, wait_s: float) -> tuple[RetryState, Action]:
    """Compare letters that were refused with another one; while none is accepted, the database refuses everything."""
    count = attempt.entries
    proofs = pace.confirmations if count == pace.suspects else 0
    if proofs >= PROOFS:
        return _onward(pace), DeadLetter(count, reason)
    is_pointless = (
        pace.awaiting_confirmation and pace.suspects == count
    )  # nothing was accepted since it was refused last
    pace = pace._replace(size=count, suspects=count, confirmations=proofs, awaiting_confirmation=True, reason=reason)
    return (_failed(pace), RetryAfter(wait_s)) if is_pointless else (pace, Split())


def _after_probe(pace: RetryState, wait_s: float) -> tuple[RetryState, Action]:
    """Another letter fails as the oldest does, which proves nothing."""
    if pace.suspects and pace.probes < PROBES:
        return pace._replace(probes=pace.probes + 1), Split()
    return _failed(pace)._replace(probes=pace.probes + 1), RetryAfter(wait_s)


def _after_failure(pace: RetryState, attempt: Attempt, reason: str) -> RetryState:
    """Go on with fewer letters, in the end with the oldest alone."""
    failed = _failed(pace)._replace(suspects=0, probes=0)
    if attempt.entries > 1:
        return failed._replace(size=max(1, attempt.entries // SHRINK), solo_failures=0)
    return failed._replace(size=1, solo_failures=pace.solo_failures + 1, awaiting_confirmation=True, reason=reason)


def _after_another(pace: RetryState, rand: float) -> tuple[RetryState, Action]:
    """Another letter was accepted, so the database works: is it always the oldest that fails?"""
    proofs = pace.confirmations + pace.awaiting_confirmation
    if pace.suspects:
        return pace._replace(confirmations=proofs, awaiting_confirmation=False, failures=0, probes=0), Split()
    if proofs >= PROOFS:
        return _onward(pace), DeadLetter(1, pace.reason)
    return pace._replace(confirmations=proofs, awaiting_confirmation=False, failures=proofs), RetryAfter(
        back_off_s(proofs, rand)
    )

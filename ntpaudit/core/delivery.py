"""Decide, from the database's reply to a write, what happens to the outbox entries that were sent.

An entry leaves the outbox only after the database has stored it, or has refused it repeatedly while it accepted others.
In every other case the entry is retried without limit. Sending an entry twice changes no point.
"""

from typing import Literal, NamedTuple

from ntpaudit.core.units import DOCS

MAX_ENTRIES = 1000  # the most outbox entries in one request
FIRST_WAIT_S = 1.0  # the longest first delay; each further failure doubles it
MAX_WAIT_S = 300.0  # the longest delay; a fifth more at most while an operator must act
MAX_RETRY_AFTER_S = 3600.0  # a Retry-After is obeyed up to this, so that a faulty proxy cannot silence a host for days
SHRINK = 8  # a batch shrinks by this factor when the database fails, because the batch may be the cause
MAX_SOLO_FAILURES = 3  # an entry that failed alone this many times in a row is compared with others

CONFIRMATIONS_NEEDED = 8
"""An entry that failed this many times, each time followed by another that was accepted, is itself the cause.

Also if it was refused for its content or size: a proxy may damage all requests, or some of them.
"""

MAX_PROBES = 10  # after more other entries in a row that were refused too, the next attempt is delayed


class Delivered(NamedTuple):
    """The database has stored every line."""


class Refused(NamedTuple):
    """The server replied with another status; `reason` is its text in one line, `retry_after_s` its Retry-After."""

    status: int
    reason: str
    retry_after_s: float | None = None


class Unreachable(NamedTuple):
    """There was no reply. Unless `sent`, the lines never left this host."""

    reason: str
    sent: bool


DeliveryFailure = Refused | Unreachable
DeliveryResult = Delivered | DeliveryFailure


class Attempt(NamedTuple):
    """What was sent: the number of entries and of lines, and the position of the first; 0 is the oldest entry."""

    entries: int
    lines: int
    position: int = 0


class RetryState(NamedTuple):
    """The state of delivery between two attempts.

    - `size`: how many entries to send at once.
    - `most`: how many entries the server accepts (413).
    - `failures`: failed attempts in a row.
    - `solo_failures`: those of the oldest entry sent alone; `reason` is why it failed last.
    - `confirmations`: how often another entry was accepted after such a failure.
    - `awaiting_confirmation`: none was accepted since the last failure.
    - `suspects`: how many of the oldest entries the database refused, as a whole, for their content or size.
    - `probes`: how many other entries it has refused in a row since then.
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
        """How many entries to read from the outbox."""
        return self.suspects + MAX_ENTRIES if self.compares else self.size

    def next_position(self, waiting: int, rand: float) -> int:
        """Return the position to send next: the oldest entry, or one chosen by `rand` to compare it with.

        An entry that was refused for its content is first compared with the newest, which is most likely accepted.
        """
        first = max(1, self.suspects)
        others = waiting - first
        if not (self.compares and self.awaiting_confirmation and others > 0):
            return 0
        if self.suspects and self.probes < MAX_PROBES:
            return first + int(rand * others) if self.probes else waiting - 1
        return 0 if rand < 0.5 else first + int((2 * rand - 1) * others)

    def on_new_oldest(self) -> "RetryState":
        """Return the state for another oldest entry."""
        return self._replace(
            solo_failures=0, confirmations=0, awaiting_confirmation=False, reason="", suspects=0, probes=0
        )

    @property
    def compares(self) -> bool:
        """Whether the oldest entry may be the cause, and not the database."""
        return self.solo_failures >= MAX_SOLO_FAILURES or self.suspects > 0


class Ack(NamedTuple):
    """Delete the sent entries: they are stored."""


class MoveToDeadLetters(NamedTuple):
    """Move this many of the oldest entries to the dead letters: the database will never accept them."""

    entries: int
    reason: str


class RetryNow(NamedTuple):
    """Send fewer or other entries at once, with no other action: the database is able to reply."""


class RetryAfter(NamedTuple):
    """Send again after a delay."""

    wait_s: float


Action = Ack | MoveToDeadLetters | RetryNow | RetryAfter
FailureKind = Literal["content", "size", "busy", "broken", "away", "operator"]


def decide(state: RetryState, attempt: Attempt, reply: DeliveryResult, rand: float) -> tuple[RetryState, Action]:
    """Return the next state and what to do with the sent entries. `rand` in [0, 1) spreads the delays."""
    if isinstance(reply, Delivered):
        return _after_accepted_comparison(state, rand) if attempt.position else (_next_batch(state), Ack())
    kind, reason = classify(reply), describe(reply)
    wait_s = _wait_s(state, reply, kind, rand)
    match kind:
        case "content" | "size" | "broken" if attempt.position:
            return _after_probe(state, wait_s)
        case "content" | "size":
            return _after_refusal(state, attempt, kind, reason, wait_s)
        case "broken":
            return _after_failure(state, attempt, reason), RetryAfter(wait_s)
        case _:
            return state._replace(failures=state.failures + 1), RetryAfter(wait_s)


_OF_CONTENT = (
    "partial write",
    "unable to parse",
    "failed to parse",
    "parsing failed",
    "type conflict",
    "retention policy",
)
_OF_A_LIMIT = "limit exceeded"  # an operator can raise the limit, and then the entry is accepted


def classify(failure: DeliveryFailure) -> FailureKind:
    """Return the kind of a failure.

    - `content`: lines cannot be accepted (in the words of InfluxDB 1.x, 2.x and 3.x); `size`: the request is too large.
    - `busy`: the server asks for time; `broken`: it fails, perhaps because of the lines; `away`: it cannot be reached.
    - `operator`: the configuration must be fixed, here or on the server.
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


def is_refusal(failure: DeliveryFailure) -> bool:
    """Whether the server refused the request; it neither failed nor asked for time."""
    return isinstance(failure, Refused) and failure.status < 500 and classify(failure) != "busy"


def describe(failure: DeliveryFailure) -> str:
    """Describe a failure, with its fix if there is one."""
    match failure:
        case Unreachable(reason=reason):
            return reason
        case Refused(status=status, reason=reason):
            error = f"{status}: {reason}" if reason else str(status)
            fix = _FIXES.get(status) or ("write the final URL in influxdb.url" if 300 <= status <= 399 else None)
            if "type conflict" in reason:
                fix = "another program writes this field with another type: find it, or use another bucket"
            if status == 404 and reason.startswith(NO_SUCH_PATH):
                fix = _FIX_INFLUXDB if "InfluxDB" in reason else _FIX_PATH
            return f"{error}; {fix}" if fix else error


NO_SUCH_PATH = "404 page not found"  # the reply of a server written in Go, such as InfluxDB, for an unknown path

FIX_401 = (
    "check the token (/etc/ntpaudit/token, influxdb.token_file, or INFLUXDB_V2_TOKEN), then `systemctl restart "
    "ntpaudit`: a reload may keep the old token"
)
_SEE = f"(docs/delivery.md, 'InfluxDB before 1.8'; installed in {DOCS})"
_FIX_INFLUXDB = f"it has no /api/v2/write: upgrade it to InfluxDB 1.8 or later, or put a proxy before it {_SEE}"
_FIX_PATH = f"check influxdb.url; an InfluxDB before 1.8 takes points only through a proxy {_SEE}"
_FIXES = {
    200: "this is not the reply of a database: check influxdb.url",
    401: FIX_401,
    403: "give the token permission to write to this bucket",
    404: "create the bucket (in InfluxDB 1.x the database), or check influxdb.url, org and bucket",
}


def back_off_s(failures: int, rand: float) -> float:
    """Return a delay in seconds: random, up to a limit that doubles with each failure (full jitter)."""
    return rand * min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures, 32))


def _wait_s(state: RetryState, failure: DeliveryFailure, kind: FailureKind, rand: float) -> float:
    # also spread if the server gives the delay, or an operator must act: many hosts fail at the same time
    if kind == "operator":
        return MAX_WAIT_S * (1 + rand / 5)
    asked_s = failure.retry_after_s if isinstance(failure, Refused) else None
    least_s = 0.0 if asked_s is None else min(asked_s * (1 + rand / 10), MAX_RETRY_AFTER_S)
    return max(least_s, back_off_s(state.failures, rand))


def _next_batch(state: RetryState) -> RetryState:
    return RetryState(size=min(2 * state.size, state.most), most=state.most)


def _after_refusal(
    state: RetryState, attempt: Attempt, kind: FailureKind, reason: str, wait_s: float
) -> tuple[RetryState, Action]:
    """Halve the batch until one entry, or every line, is refused; then compare that with another entry.

    While no other entry is accepted, the database refuses everything. The others of a batch may already be stored.
    """
    count, is_size = attempt.entries, kind == "size"
    if count > 1 and (is_size or f" dropped={attempt.lines};" not in f"{reason};"):
        most = count // 2 if is_size else state.most
        return state._replace(size=count // 2, most=most, suspects=0, confirmations=0), RetryNow()
    if is_size:
        state = state._replace(most=MAX_ENTRIES)
    confirmations = state.confirmations if count == state.suspects else 0
    if confirmations >= CONFIRMATIONS_NEEDED:
        return _next_batch(state), MoveToDeadLetters(count, reason)
    # nothing was accepted since the last refusal, so sending another entry now proves nothing
    is_pointless = state.awaiting_confirmation and state.suspects == count
    state = state._replace(
        size=count,
        failures=state.failures + is_pointless,
        suspects=count,
        confirmations=confirmations,
        awaiting_confirmation=True,
        reason=reason,
    )
    return state, RetryAfter(wait_s) if is_pointless else RetryNow()


def _after_probe(state: RetryState, wait_s: float) -> tuple[RetryState, Action]:
    """Another entry failed too, which proves nothing about the oldest."""
    if state.suspects and state.probes < MAX_PROBES:
        return state._replace(probes=state.probes + 1), RetryNow()
    return state._replace(failures=state.failures + 1, probes=state.probes + 1), RetryAfter(wait_s)


def _after_failure(state: RetryState, attempt: Attempt, reason: str) -> RetryState:
    """Send fewer entries, in the end only the oldest."""
    failed = state._replace(failures=state.failures + 1, suspects=0, probes=0)
    if attempt.entries > 1:
        return failed._replace(size=max(1, attempt.entries // SHRINK), solo_failures=0)
    return failed._replace(size=1, solo_failures=state.solo_failures + 1, awaiting_confirmation=True, reason=reason)


def _after_accepted_comparison(state: RetryState, rand: float) -> tuple[RetryState, Action]:
    """Another entry was accepted, so the database works; count that against the oldest entry."""
    confirmations = state.confirmations + state.awaiting_confirmation
    if confirmations >= CONFIRMATIONS_NEEDED and not state.suspects:
        return _next_batch(state), MoveToDeadLetters(1, state.reason)
    counted = state._replace(confirmations=confirmations, awaiting_confirmation=False)
    if state.suspects:
        return counted._replace(failures=0, probes=0), RetryNow()
    return counted._replace(failures=confirmations), RetryAfter(back_off_s(confirmations, rand))

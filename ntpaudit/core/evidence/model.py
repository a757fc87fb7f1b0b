"""The values of an evidence report: what was read of each host, and what follows from it.

Times are UTC in whole seconds since 1970, by the measured intervals, never by a host's own clock.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from ntpaudit.core.accounts import Account
from ntpaudit.core.excursions import Excursion

State = Literal["within", "unproven", "beyond", "unmeasured", "absent", "off", "unaccounted"]
"""The state of a second: one of its account, or `unaccounted` if nothing is stored about it."""

BAD_STATES: tuple[State, ...] = ("beyond", "unproven", "unmeasured", "absent", "unaccounted")
"""The states that count as not within (EV3), the worst first."""

Result = Literal["within", "off", "not-shown", "beyond", "nothing-known"]
"""The result of a host: see `HostResult.result`."""

CheckResult = Literal["passed", "failed", "not-done"]


class Period(NamedTuple):
    """The period [begin_s, end_s) of a report."""

    begin_s: int
    end_s: int

    @property
    def length_s(self) -> int:
        """Its length."""
        return self.end_s - self.begin_s


class Times(NamedTuple):
    """Seconds in each state."""

    within: int = 0
    unproven: int = 0
    beyond: int = 0
    unmeasured: int = 0
    absent: int = 0
    off: int = 0
    unaccounted: int = 0


class Balance(NamedTuple):
    """A period's time: `spans` add up to its length; `excepted` are those of its seconds that exceptions cover."""

    spans: Times = Times()
    excepted: Times = Times()

    @property
    def length_s(self) -> int:
        """The length of the period."""
        return sum(self.spans)

    @property
    def counted_s(self) -> int:
        """The denominator of each share: the period without the time that the host was off or is excepted (EV3)."""
        return self.length_s - self.spans.off - sum(self.excepted)

    @property
    def bad_s(self) -> int:
        """The counted seconds that are not within."""
        return self.counted_s - self.spans.within

    def counted(self, state: State) -> int:
        """Return the seconds in a state without those that are excepted."""
        return int(getattr(self.spans, state)) - int(getattr(self.excepted, state))


def total(balances: Iterable[Balance]) -> Balance:
    """Return the sum of the balances of several hosts or periods."""
    spans, excepted = zip(Balance(), *balances, strict=True)
    return Balance(*(Times(*map(sum, zip(*times, strict=True))) for times in (spans, excepted)))


class Gap(NamedTuple):
    """`seconds` of a span without a proof, all of one state: the whole span if its ends are known to the second."""

    begin_s: int
    end_s: int
    state: Literal["unmeasured", "absent", "unaccounted"]
    seconds: int


class StepOfClock(NamedTuple):
    """A step; positive is forward. `cause` is what set the clock by logs, None if the source does not store causes."""

    utc_s: int
    size_s: float | None
    cause: str | None = None


class SourceUse(NamedTuple):
    """A time server that a host used. `is_approved` is None where no list of approved sources is known."""

    name: str
    first_s: int
    last_s: int
    is_approved: bool | None = None


class HostEvent(NamedTuple):
    """A finding that was raised or cleared."""

    utc_s: int
    kind: str
    severity: str
    is_raised: bool
    text: str = ""


class HostRecords(NamedTuple):
    """All that was read of one host.

    `accounts` are hours and days, which may overlap. `notes` are statements of the reader, such as damaged rows.
    `has_points`: its agent delivered measurements in the period, whether or not accounts of them exist.
    """

    name: str
    site: str | None = None
    accounts: tuple[Account, ...] = ()
    excursions: tuple[Excursion, ...] = ()
    steps: tuple[StepOfClock, ...] = ()
    sources: tuple[SourceUse, ...] | None = None
    events: tuple[HostEvent, ...] = ()
    notes: tuple[str, ...] = ()
    has_points: bool = False


class Check(NamedTuple):
    """One check of the records, with its result."""

    name: str
    result: CheckResult
    detail: str


class Change(NamedTuple):
    """A setting that changed."""

    utc_s: int
    what: str
    before: str
    after: str


class HostResult(NamedTuple):
    """What the records of one host show. `statements` say what a reader must know before using the numbers.

    `bound_s` is the largest error that was possible, in the account that begins at `bound_at_s`. `covered_s` has the
    seconds that each of the report's exceptions covers.
    """

    name: str
    site: str | None
    is_listed: bool
    balance: Balance
    bound_s: float | None
    bound_at_s: int | None
    tolerances: tuple[float, ...]
    profiles: tuple[str, ...]
    two_sources_s: int
    longest_excursion: Excursion | None
    longest_gap: Gap | None
    excursions: tuple[Excursion, ...]
    gaps: tuple[Gap, ...]
    steps: tuple[StepOfClock, ...]
    step_count: int
    sources: tuple[SourceUse, ...] | None
    changes: tuple[Change, ...]
    events: tuple[HostEvent, ...]
    raised: int
    statements: tuple[str, ...]
    covered_s: tuple[int, ...] = ()
    chain_last: int | None = None

    @property
    def result(self) -> Result:
        """The host's result: the worst that its counted time shows.

        `within`: each counted second is within. `off`: no second counts. `beyond`: some were beyond for certain.
        `not-shown`: some were not shown to be within. `nothing-known`: nothing is stored about any second.
        """
        balance = self.balance
        if not balance.counted_s:
            return "off"
        if not balance.bad_s:
            return "within"
        if balance.spans.unaccounted == balance.length_s:
            return "nothing-known"
        return "beyond" if balance.counted("beyond") else "not-shown"

"""The accounts of a simulated host: what its agent would store, as far as hours and days need it."""

from collections.abc import Sequence

from ntpaudit.core.accounting import Moment, Unplaced, dated, facts_of, first_s, settled
from ntpaudit.core.accounts import DAY, Account, day_of, ended_hours
from ntpaudit.core.agent_events import ShellReport
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.events import Event
from ntpaudit.core.record import Record
from ntpaudit.core.units import HOUR_S, NS_PER_S


class SimulatedAccounts:
    """The records and events since the last hour that is closed, and the hours of the day that is not."""

    def __init__(self) -> None:
        self._rows: list[Unplaced] = []
        self._events: list[Event] = []
        self._hours: list[Account] = []

    @property
    def report(self) -> ShellReport:
        """What the agent knows of them."""
        if self._hours:
            return ShellReport(closed_s=self._hours[-1].end_s)
        known = next((row.utc_ns for row in self._rows if row.utc_ns is not None), None)
        return ShellReport(closed_s=None if known is None else known // NS_PER_S // HOUR_S * HOUR_S)

    def store(self, taken: ClockReading, record: Record, events: Sequence[Event]) -> None:
        """Store what accounts need of an audit."""
        up_s, slept_s = taken.boottime_ns / NS_PER_S, (taken.boottime_ns - taken.monotonic_ns) / NS_PER_S
        local_s = (record.health and record.health.local_s) or 60.0
        moment = Moment(0, record.host.boot_id, up_s, slept_s, record.verdict, local_s, facts_of(record))
        self._rows.append(Unplaced(record.utc_ns, record.host_ns, record.boottime_ns, moment))
        self._events += [
            event if event.utc_ns is not None else event._replace(utc_ns=record.utc_ns)
            for event in events
            if record.utc_ns is not None or event.utc_ns is not None
        ]

    def close(self) -> tuple[Account, ...]:
        """Close the hours that are over, and the days that end with them."""
        before = self._hours[-1] if self._hours else None
        begin_s = (first_s(self._rows) or 0) // HOUR_S * HOUR_S if before is None else before.end_s
        closed: list[Account] = []
        rows = list(dated(settled(self._rows)))
        for hour in ended_hours(rows, range(len(rows)), self._events, begin_s, before):
            if self._hours and hour.begin_s % DAY == 0:
                self._hours.clear()
            self._hours.append(hour)
            closed.append(hour)
            if hour.end_s % DAY == 0:
                closed.append(day_of(hour.end_s - DAY, self._hours))
        if closed:
            self._forget(rows)
        return tuple(closed)

    def _forget(self, rows: Sequence[Unplaced]) -> None:
        """Keep the rows from the last one before the hour that is open, and the events of that time."""
        assert self._hours[-1].rows is not None
        start = self._hours[-1].rows[2]
        first_ns = rows[start].utc_ns or 0
        self._rows = list(rows[start:])
        self._events = [event for event in self._events if (event.utc_ns or 0) >= first_ns]

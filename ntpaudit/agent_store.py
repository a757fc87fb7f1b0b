"""The agent's store: its state from run to run, and the actions that store something."""

from collections.abc import Callable
from typing import Any

from ntpaudit.config.schema import HistoryConfig
from ntpaudit.core.accounts import Account
from ntpaudit.core.actions import CloseAccounts, Prune, StampHistory, StoreAudit, StoreEvents
from ntpaudit.core.chain import ChainHead
from ntpaudit.core.clock_state import ClockState
from ntpaudit.core.record import HostIdentity
from ntpaudit.core.units import plural
from ntpaudit.formats.line_protocol import (
    render,
    render_account,
    render_events,
    render_unstamped,
    stamp_lines,
    stamp_of,
)
from ntpaudit.log import LazyLogger
from ntpaudit.store import accounts, audits, outbox, retention, saved_state
from ntpaudit.store.audits import PendingObservation
from ntpaudit.store.outbox import OutboxEntry
from ntpaudit.store.serialization import plain, revive
from ntpaudit.store.state import StateStore, keep_events_and_state

logger = LazyLogger(__name__)

CHECKED_AUDITS = 128  # how many audits are checked for damage at a start
MAX_NAMED = 5  # how many damaged audits a message names

CLOSED_PIECES = 8  # each has the hours of a page of records; the agent's loop must feed the watchdog

_CLOCK = "clock"
_RARELY_CHANGED = ("samples", "line", "back_test", "debounce", "time_config")
"""The large parts of `ClockState` that local audits rarely change: each has a key of its own."""

_RECOVERING = "recovering"  # the key of the id of the audit that is being judged again, and how many starts tried it
MAX_ATTEMPTS = 8  # after this many starts that ended while they judged an audit, the audit itself is the cause


class AgentStore:
    """What an agent does with its store. `delivers`: the lines are enqueued for a database."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._stored: dict[str, object] = {}
        self.head: ChainHead | None = None  # of the chain, after what was last stored; None while in memory
        self._closed_s: int | None = None

    @property
    def closed_s(self) -> int | None:
        """The true time up to which hours are closed; see `accounts.closed_s`."""
        if self._closed_s is None:
            self._closed_s = self._store.read(accounts.closed_s)
        return self._closed_s

    def load(self) -> ClockState | None:
        """Return the state of the last run, None if there is none. A damaged part is left out."""
        whole, *parts = (self._store.read(saved_state.load_state, key) for key in (_CLOCK, *_RARELY_CHANGED))
        if not isinstance(whole, dict):
            return None
        whole = {key: part for key, part in whole.items() if key in ClockState._fields}  # others are of another version
        found = {key: part for key, part in zip(_RARELY_CHANGED, parts, strict=True) if part is not None}
        for data in (whole | found, whole):
            try:
                return revive(ClockState, data)
            except (TypeError, ValueError):
                continue
        return None

    def recover(self, judge: Callable[[PendingObservation], None]) -> None:
        """Judge the observations of the last run that were not judged; skip one that ends the agent each time.

        After an exception, it is skipped at the next start. Without one, the agent may have been killed by chance.
        """
        for pending in self._store.write(audits.pending_observations):
            match self._store.read(saved_state.load_state, _RECOVERING):
                case [pending.id, int(attempts)]:
                    pass
                case _:
                    attempts = 0
            if attempts >= MAX_ATTEMPTS:
                logger.warning(
                    f"audit {pending.id} is skipped: the agent ended each time it judged this audit; "
                    "its observation stays in the history"
                )
                self._store.write(audits.give_up, pending.id)
                continue
            self._store.write(saved_state.save_state, _RECOVERING, [pending.id, attempts + 1])
            try:
                judge(pending)
            except Exception:
                self._store.write(saved_state.save_state, _RECOVERING, [pending.id, MAX_ATTEMPTS])
                raise
            self._store.write(saved_state.save_state, _RECOVERING, None)

    def log_damaged(self, boot_id: str | None) -> None:
        """Check the latest network audits of this boot, and log which audits are damaged."""
        if damaged := self._store.write(audits.mark_damaged, boot_id, CHECKED_AUDITS):
            shown = ", ".join(map(str, damaged[:MAX_NAMED])) + (" ..." if len(damaged) > MAX_NAMED else "")
            logger.warning(f"the history has {plural(len(damaged), 'damaged audit')}, kept but not used: {shown}")

    def store_audit(self, action: StoreAudit, *, delivers: bool) -> None:
        """Store an audit and the state. A network audit stores every part, so that a new file has them all."""
        observation, record, events, clock = action
        if record.kind == "network":
            self._stored.clear()
        stamp_ns = stamp_of(record)
        entry = OutboxEntry(0, "", stamp_ns, record.host.boot_id, record.boottime_ns, record.host_ns)
        lines_of = render_unstamped if stamp_ns is None else render
        self.head = self._store.store_audit(
            observation,
            record,
            events,
            entry if delivers else None,
            self._changed(clock),
            lambda head: lines_of(record._replace(chain=head), events),
        )

    def store_events(self, action: StoreEvents, *, delivers: bool) -> None:
        """Store events between two audits, all of one moment, and the state."""
        host, events, last, clock = action
        first, lines = events[0], render_events(host, events, last) if delivers else ""
        entry = OutboxEntry(0, lines, first.utc_ns, host.boot_id, first.boottime_ns, first.host_ns)
        changed = self._changed(clock)
        self.head = self._store.write(keep_events_and_state, events, host.boot_id, entry if delivers else None, changed)

    def stamp(self, action: StampHistory, host: HostIdentity, *, delivers: bool) -> None:
        """Stamp audits and outbox entries; an entry that never gets a stamp becomes a dead letter."""
        if action.boot_ns is not None:
            entry_of = _entry_of(host, action.utc_ns or action.past_ns) if delivers else None
            self._store.write(accounts.stamp, action.boot_id, action.boot_ns, entry_of)
        stamped, refused = [], []
        for entry in self._store.read(outbox.unstamped):
            stamp_ns = action.stamp_ns(entry.boot_id, entry.boottime_ns, entry.host_ns)
            if stamp_ns is not None:
                stamped.append(entry._replace(lines=stamp_lines(entry.lines, stamp_ns), stamp_ns=stamp_ns))
            elif not action.is_own(entry.boot_id):
                refused.append(entry)
        if stamped or refused:
            self._store.write(
                outbox.stamp_entries, stamped, refused, "the host's clock was wrong and the true time is not known"
            )

    def close_accounts(self, action: CloseAccounts, *, delivers: bool, pieces: int = CLOSED_PIECES) -> None:
        """Close hours and days that are over, and enqueue their points; after a long absence the next audit goes on."""
        entry_of = _entry_of(action.host, action.utc_ns) if delivers else None
        for _ in range(pieces):
            if not self._store.write(accounts.close_hours, entry_of):
                break
        self._closed_s = None

    def prune(self, action: Prune, limits: HistoryConfig) -> None:
        """Delete what retention no longer keeps."""
        if action.utc_ns is not None:
            self._store.write(retention.prune_by_age, action.utc_ns, limits.raw_s, limits.rollups_s, limits.findings_s)
        self._store.write(retention.prune_by_size, limits.max_size)

    def _changed(self, state: ClockState) -> dict[str, Any]:
        parts, stored = state._asdict(), self._stored
        changed = {key: parts[key] for key in _RARELY_CHANGED if key not in stored or parts[key] != stored[key]}
        stored |= changed
        rest = {key: part for key, part in parts.items() if key not in _RARELY_CHANGED}
        plain_parts: dict[str, Any] = plain(changed | {_CLOCK: rest}, names=False)
        return plain_parts


def _entry_of(host: HostIdentity, utc_ns: int) -> Callable[[Account], OutboxEntry]:
    """Return what makes the outbox entry of an account. The entry is of now; its lines have stamps of their own."""
    return lambda account: OutboxEntry(0, render_account(account, host), utc_ns, host.boot_id, 0, utc_ns)

"""What decides how the host's time is set, compared with the last time it was read (NTPA-12)."""

from collections.abc import Iterator
from typing import NamedTuple

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.observation import Observation, TimeSetting
from ntpaudit.core.units import DAY_S, NS_PER_S

SCOPE = 1  # to be raised when a later version reads other files: what it reads first was not added by somebody
LISTED_NS = round(DAY_S) * NS_PER_S  # how long a change stays listed: until the next working day has seen it
MAX_LISTED = 64
ACTIVE = "the time daemon"
"""The path of the setting whose value is the service of the one time daemon that disciplines the clock."""

RECORDED_NS = round(DAY_S) * NS_PER_S  # how often a record has the settings while they do not change
OVERFLOW_ID = 65534  # the id of every user and group that a user namespace does not map (user_namespaces(7))

_VOLATILE = "/run/"
_RUNTIME_UNITS = "/run/systemd/system/"
_LEASES = ("/run/chrony-dhcp/", "/run/systemd/netif/")  # the servers of DHCP are gone while a link is down


class ConfigChange(NamedTuple):
    """One change of a setting. `path` is that of `TimeSetting`; `what` is one of the names below.

    - `added`, `removed`: `before` and `after` are the hash or the value, None where there is no such file.
    - `content`: the SHA-256 before and after; size and time of change of a file that cannot be read.
    - `value`: the target of a link, UTC or LOCAL, whether a boot starts a service, the service of `ACTIVE`.
    - `mode`: in octal digits. `owner`, `group`: ids.

    The last three are when it was first seen: by the uptime, by the host's clock, by the true time, None if unknown.
    """

    path: str
    what: str
    before: str | None
    after: str | None
    boottime_ns: int
    host_ns: int
    utc_ns: int | None = None


class TimeConfigState(NamedTuple):
    """The settings as last read, and the changes that are listed.

    `awaited`: files below /run of an earlier boot, which are not written again yet in this one. `recorded_ns`: the
    uptime of the last record that has the settings; None if no record of this boot has them as they are.
    """

    settings: tuple[TimeSetting, ...] = ()
    changes: tuple[ConfigChange, ...] = ()
    awaited: tuple[str, ...] = ()
    scope: int = SCOPE
    recorded_ns: int | None = None

    def of_new_boot(self, now: ClockReading) -> "TimeConfigState":
        """Return the state for a new boot: it begins with an empty /run, and without units made until the next boot."""
        kept = tuple(one for one in self.settings if not one.path.startswith(_RUNTIME_UNITS))
        awaited = tuple(one.path for one in kept if one.path.startswith(_VOLATILE))
        changes = tuple(one._replace(boottime_ns=now.boottime_ns) for one in self.changes)
        return self._replace(settings=kept, awaited=awaited, changes=changes, recorded_ns=None)

    def is_due(self, now: ClockReading) -> bool:
        """Whether the next record of a network audit is to have the settings: they are half as large as it is."""
        return self.recorded_ns is None or now.boottime_ns - self.recorded_ns >= RECORDED_NS


def watch_settings(
    state: TimeConfigState | None, observation: Observation, utc_ns: int | None
) -> tuple[TimeConfigState | None, tuple[ConfigChange, ...]]:
    """Return the new state and the new changes. The first settings of all are the reference. `utc_ns`: the true time.

    A setting that changes back is another change.
    """
    if observation.time_config is None:
        return state, ()
    units = (TimeSetting(unit.name, unit.enabled) for unit in observation.units)
    active = (TimeSetting(ACTIVE, one.unit) for one in observation.disciplining if one.unit is not None)
    one_active = active if len(observation.disciplining) == 1 else ()
    found = tuple(sorted((*units, *one_active, *observation.time_config), key=_path_of))
    if state is None:
        return TimeConfigState(found), ()
    listed = tuple(_dated(one, observation, utc_ns) for one in state.changes if _is_listed(one, observation, utc_ns))
    if found == state.settings and not state.awaited:
        return (state if listed == state.changes else state._replace(changes=listed)), ()
    before, after = ({one.path: one for one in settings} for settings in (state.settings, found))
    new = [
        _change(path, difference, observation, utc_ns)
        for path in sorted(before.keys() | after.keys())
        if not _is_expected(path, state, after.get(path), is_new=path not in before)
        for difference in _differences(before.get(path), after.get(path))
    ]
    absent = [one for path, one in before.items() if path not in after and _may_return(path, state)]
    awaited = tuple(path for path in state.awaited if path not in after)
    settings = tuple(sorted((*found, *absent), key=_path_of))
    recorded_ns = state.recorded_ns if settings == state.settings else None
    return TimeConfigState(settings, (*listed, *new)[-MAX_LISTED:], awaited, SCOPE, recorded_ns), tuple(new)


def _path_of(setting: TimeSetting) -> str:
    return setting.path


def _is_expected(path: str, state: TimeConfigState, after: TimeSetting | None, *, is_new: bool) -> bool:
    """Whether a setting may be missing, or there for the first time.

    A service has files, whose changes are listed. That no daemon is active is another finding. A lease that ends is no
    change; other servers in the next one are.
    """
    if after is None:
        return _may_return(path, state)
    return is_new and (state.scope != SCOPE or not path.startswith("/"))


def _may_return(path: str, state: TimeConfigState) -> bool:
    return path in state.awaited or not path.startswith("/") or path.startswith(_LEASES)


def _change(
    path: str, difference: tuple[str, str | None, str | None], observation: Observation, utc_ns: int | None
) -> ConfigChange:
    taken = observation.taken
    return ConfigChange(path, *difference, taken.boottime_ns, taken.realtime_ns, utc_ns)


def _is_listed(change: ConfigChange, observation: Observation, utc_ns: int | None) -> bool:
    """Whether a change stays listed: by the uptime or the true time, which no step of the host's clock moves."""
    if observation.taken.boottime_ns - change.boottime_ns > LISTED_NS:
        return False
    return utc_ns is None or change.utc_ns is None or utc_ns - change.utc_ns <= LISTED_NS


def _dated(change: ConfigChange, observation: Observation, utc_ns: int | None) -> ConfigChange:
    """Date a change whose true time was unknown; one of an earlier boot by this boot's first reading."""
    if change.utc_ns is not None or utc_ns is None:
        return change
    return change._replace(utc_ns=utc_ns - max(0, observation.taken.boottime_ns - change.boottime_ns))


def _differences(before: TimeSetting | None, after: TimeSetting | None) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield what differs, and its values; what is not known on one side is no difference."""
    if before is None or after is None:
        if after is not None:
            yield "added", None, _content(after)
        elif before is not None:
            yield "removed", _content(before), None
        return
    if before.value is not None and after.value is not None and before.value != after.value:
        yield "value", before.value, after.value
    is_hashed = before.sha256 is not None, after.sha256 is not None
    if is_hashed[0] == is_hashed[1] and _content(before, with_value=False) != _content(after, with_value=False):
        yield "content", _content(before, with_value=False), _content(after, with_value=False)
    if before.mode is not None and after.mode is not None and before.mode != after.mode:
        yield "mode", f"{before.mode:04o}", f"{after.mode:04o}"
    for what, old, new in (("owner", before.owner, after.owner), ("group", before.group, after.group)):
        if old is not None and new is not None and _is_other(old, new):
            yield what, str(old), str(new)


def _content(setting: TimeSetting, *, with_value: bool = True) -> str | None:
    if setting.sha256 is not None:
        return setting.sha256
    if with_value and setting.value is not None:
        return setting.value
    if setting.size is None or setting.mtime_ns is None:
        return None
    seconds, ns = divmod(setting.mtime_ns, NS_PER_S)  # as `stat --format=%.9Y` shows it
    return f"{setting.size} octets, changed at {seconds}.{ns:09d}"


def _is_other(old: int, new: int) -> bool:
    """Whether two ids are of different users: one read in a user namespace can be any but root."""
    return old != new and not (OVERFLOW_ID in (old, new) and 0 not in (old, new))

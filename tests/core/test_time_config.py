"""Changes of what decides the host's time: what is one, what is none, and how long it stays listed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.checks.tampering import TIME_CONFIG_CHANGED, describe_changes, fix_of_changes
from ntpaudit.core.clock_state import ClockState, restored
from ntpaudit.core.evaluation import AuditResult, AuditSettings, evaluate
from ntpaudit.core.observation import Enablement, TimeSetting, TimeUnit
from ntpaudit.core.policy import PROFILES, Severity
from ntpaudit.core.record import AuditKind, Health, Labels
from ntpaudit.core.time_config import LISTED_NS, MAX_LISTED, SCOPE, ConfigChange, TimeConfigState, watch_settings
from ntpaudit.store.serialization import plain, revive
from tests.core.worlds import CHRONYD, DAY, FOUR, HOUR, NOON, NTPD, S, observation, reading

CONF = TimeSetting("/etc/chrony/chrony.conf", sha256="a" * 64, mode=0o644, owner=0, group=0)
KEYS = TimeSetting(
    "/etc/chrony/chrony.keys", reason="cannot be read: Permission denied", mode=0o640, owner=0, group=65534, size=540,
    mtime_ns=NOON,
)  # fmt: skip
ZONE = TimeSetting("/etc/localtime", "Europe/Amsterdam")
DHCP = TimeSetting("/run/chrony-dhcp/eth0.sources", sha256="d" * 64, mode=0o644, owner=0, group=0)
SETTINGS = (CONF, KEYS, ZONE, DHCP)

_TEXTS = st.none() | st.sampled_from(["a", "b" * 64])
_IDS = st.none() | st.sampled_from([0, 1, 1000, 65534])
_SETTINGS = st.builds(
    TimeSetting, st.sampled_from(["/etc/a", "/etc/b", "/run/c", "/run/systemd/system/d.service", "e.service"]),
    _TEXTS, _TEXTS, _TEXTS, _IDS, _IDS, _IDS, _IDS, _IDS,
)  # fmt: skip
_HOSTS = st.lists(_SETTINGS, max_size=6).map(lambda found: tuple({one.path: one for one in found}.values()))


def seen(settings: tuple[TimeSetting, ...] | None, at_ns: int = 0, **known: Any) -> Any:
    """Return the observation of a host with these settings, some time after noon."""
    taken = reading(NOON + at_ns, uptime_ns=DAY + at_ns)
    return observation(*FOUR, taken=taken)._replace(time_config=settings, **known)


def units(enabled: Enablement | None) -> dict[str, Any]:
    """Return a host's only service, in that state."""
    return {"units": (TimeUnit("chrony.service", enabled, running=True),)}


def changes(before: tuple[TimeSetting, ...], after: tuple[TimeSetting, ...]) -> list[tuple[str, str]]:
    """Return the path and the kind of each change between two readings."""
    state, _ = watch_settings(None, seen(before), NOON)
    return [(one.path, one.what) for one in watch_settings(state, seen(after, S), NOON + S)[1]]


def test_the_first_reading_is_the_reference() -> None:
    """Nothing is a change at first, and nothing is read where no agent looks."""
    state, new = watch_settings(None, seen(SETTINGS, **units("enabled")), NOON)
    assert new == ()
    assert state is not None
    assert {one.path for one in state.settings} == {"chrony.service", *(one.path for one in SETTINGS)}
    assert watch_settings(None, seen(None), NOON) == (None, ())
    assert watch_settings(state, seen(None), NOON) == (state, ())


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (CONF, CONF._replace(sha256="b" * 64), "content"),
        (CONF, CONF._replace(mode=0o666), "mode"),
        (CONF, CONF._replace(owner=1000), "owner"),
        (CONF, CONF._replace(owner=65534), "owner"),
        (CONF, CONF._replace(group=4), "group"),
        (KEYS, KEYS._replace(mtime_ns=NOON + 1), "content"),
        (KEYS, KEYS._replace(size=541), "content"),
        (ZONE, ZONE._replace(value="Etc/UTC"), "value"),
    ],
)
def test_each_kind_of_change_is_named(before: TimeSetting, after: TimeSetting, what: str) -> None:
    """There and back: content, mode, owner, group, value."""
    assert changes((before,), (after,)) == [(before.path, what)]
    assert changes((after,), (before,)) == [(before.path, what)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (KEYS, KEYS._replace(group=107)),  # read without a user namespace now: 65534 was any group but root's
        (CONF, CONF._replace(sha256=None, reason="cannot be read: Permission denied", size=9, mtime_ns=9)),
        (CONF, CONF._replace(mode=None, owner=None, group=None)),
        (ZONE, ZONE._replace(value=None, reason="cannot be read: Input/output error")),
    ],
)
def test_what_is_not_known_is_no_change(before: TimeSetting, after: TimeSetting) -> None:
    """The near misses: a file that can no longer be read, an id that a user namespace hides."""
    assert changes((before,), (after,)) == changes((after,), (before,)) == []


def described(*states: tuple[TimeSetting, ...], **known: Any) -> str:
    """Return the message after these readings, a minute apart."""
    state, _ = watch_settings(None, seen(states[0], **known), NOON)
    for minute, settings in enumerate(states[1:], 1):
        state, _ = watch_settings(state, seen(settings, minute * 60 * S, **known), NOON + minute * 60 * S)
    assert state is not None
    return describe_changes(state.changes).removeprefix("the time configuration has changed: ")


def test_what_is_restored_says_when_it_changed_and_when_it_was_restored() -> None:
    """A file that is as it was first seen, whatever it was meanwhile; a near miss differs in its mode or content."""
    other, third, mode = CONF._replace(sha256="b" * 64), CONF._replace(sha256="c" * 64), CONF._replace(mode=0o666)
    restored = (
        f"{CONF.path} (restored to the earlier state; changed 2026-10-21T12:01:00Z, restored 2026-10-21T12:0%d:00Z)"
    )
    assert described((CONF,), (other,), (CONF,)) == restored % 2
    assert described((CONF,), (other,), (), (third,), (CONF,)) == restored % 4
    assert described((CONF,), (other._replace(mode=0o666),), (CONF,)) == restored % 2
    assert described((CONF,), (other,), (third,)) == (
        f"{CONF.path} (content; first seen 2026-10-21T12:01:00Z, last changed 2026-10-21T12:02:00Z)"
    )
    assert described((CONF,), (other,), (mode,)) == (
        f"{CONF.path} (mode was 0644, is 0666; first seen 2026-10-21T12:01:00Z, last changed 2026-10-21T12:02:00Z)"
    )


def test_another_active_time_daemon_is_a_change() -> None:
    """It is named, and its fix starts the earlier one; neither a daemon that is away nor a second one is a change."""
    chrony, ntpsec = CHRONYD._replace(unit="chrony.service"), NTPD._replace(unit="ntpsec.service")
    state, _ = watch_settings(None, seen((CONF,), daemons=(chrony,)), NOON)
    for second, daemons in enumerate(((), (chrony._replace(pid=999),), (chrony, ntpsec), (NTPD,)), 1):
        state, new = watch_settings(state, seen((CONF,), second * S, daemons=daemons), NOON)
        assert new == ()
    state, new = watch_settings(state, seen((CONF,), 60 * S, daemons=(ntpsec,)), NOON + 60 * S)
    said = "the time daemon (chrony.service was active, ntpsec.service is; first seen 2026-10-21T12:01:00Z)"
    assert describe_changes(new) == f"the time configuration has changed: {said}"
    fix = fix_of_changes(new)
    assert fix is not None
    assert "systemctl enable --now UNIT" in fix
    state, new = watch_settings(state, seen((CONF,), 120 * S, daemons=(chrony,)), NOON + 120 * S)
    assert new
    assert state is not None
    assert "nothing to restore" in (fix_of_changes(state.changes) or "")
    edited = ConfigChange(CONF.path, "content", "a", "b", 0, NOON)
    assert fix_of_changes((*state.changes, edited)) is None


def test_every_changed_path_is_named_or_where_all_are() -> None:
    """Four are described, twelve more are named, and the rest is counted with the command that lists all."""
    files = tuple(TimeSetting(f"/etc/chrony/conf.d/{number:02}.conf", sha256="a" * 64) for number in range(20))
    for count, end in ((4, "Z)"), (6, "; and 2 others: /etc/chrony/conf.d/01.conf, /etc/chrony/conf.d/00.conf")):
        assert described((CONF,), (CONF, *files[:count])).endswith(end)
    assert described((CONF,), (CONF, *files)).endswith(
        "04.conf and 4 more, all in `sudo ntpaudit history --events --format json`"
    )


def test_the_event_of_a_restored_file_says_so() -> None:
    """Its text is about the earlier changes of the same file too; its values are those of the new change."""
    utc = ZONE._replace(value="Etc/UTC")
    result = judged(None, (CONF, ZONE), 0)
    for at_ns, settings in ((60 * S, (CONF._replace(sha256="b" * 64), utc)), (120 * S, (CONF, utc))):
        result = judged(result.state, settings, at_ns)
    (event,) = [one for one in result.events if one.kind == TIME_CONFIG_CHANGED.id]
    assert "chrony.conf (restored to the earlier state; changed" in event.text
    assert "/etc/localtime" not in event.text
    assert [one["path"] for one in event.detail["changes"]] == [CONF.path]


def test_files_are_added_and_removed() -> None:
    """The event has the hash of what came or went."""
    state, _ = watch_settings(None, seen((CONF,)), NOON)
    _, new = watch_settings(state, seen((ZONE,), S), NOON + S)
    assert [one[:4] for one in new] == [
        (CONF.path, "removed", CONF.sha256, None),
        (ZONE.path, "added", None, "Europe/Amsterdam"),
    ]


@pytest.mark.parametrize("lease", [DHCP, TimeSetting("/run/systemd/netif/state", "192.0.2.9")])
def test_a_link_that_goes_down(lease: TimeSetting) -> None:
    """The servers of DHCP are gone until it is up again: only others are a change."""
    state, _ = watch_settings(None, seen((CONF, lease)), NOON)
    down, new = watch_settings(state, seen((CONF,), S), NOON + S)
    assert new == ()
    assert watch_settings(down, seen((CONF,), 2 * S), NOON + 2 * S) == (down, ())
    up, new = watch_settings(down, seen((CONF, lease), 3 * S), NOON + 3 * S)
    assert (up, new) == (state, ())
    other = lease._replace(value="192.0.2.66", sha256=None) if lease.value else lease._replace(sha256="e" * 64)
    _, new = watch_settings(down, seen((CONF, other), 3 * S), NOON + 3 * S)
    assert [one.path for one in new] == [lease.path]


def test_a_service_that_is_masked() -> None:
    """The state of a service is compared; one that is not seen, or in no known state, has not changed."""
    state, _ = watch_settings(None, seen((CONF,), **units("enabled")), NOON)
    unseen, new = watch_settings(state, seen((CONF,), S, units=()), NOON + S)
    assert new == ()
    _, new = watch_settings(unseen, seen((CONF,), 2 * S, **units("masked")), NOON + 2 * S)
    assert [one[:4] for one in new] == [("chrony.service", "value", "enabled", "masked")]
    assert watch_settings(state, seen((CONF,), S, **units(None)), NOON + S)[1] == ()


def judged(
    state: ClockState | None, settings: tuple[TimeSetting, ...], at_ns: int, kind: AuditKind = "network"
) -> AuditResult:
    """Judge an audit some time after noon."""
    observed = seen(settings, at_ns)
    before = state or ClockState("boot", observed.taken, observed.taken.boottime_ns)
    return evaluate(before, observed, kind, AuditSettings(PROFILES["pci"], Labels("1"), 300.0), Health())


def is_listed(result: AuditResult) -> bool:
    """Return whether the finding is listed."""
    return any(finding.id == TIME_CONFIG_CHANGED.id for finding in result.record.findings)


def test_a_change_is_an_event_and_stays_listed_for_a_day() -> None:
    """The event comes once, with both hashes and both times; the finding is a warning, for a day of true time."""
    state = judged(None, SETTINGS, 0).state
    changed = (CONF._replace(sha256="b" * 64), KEYS, ZONE, DHCP)
    result = judged(state, changed, 300 * S)
    (event,) = (one for one in result.events if one.kind == TIME_CONFIG_CHANGED.id)
    assert event.detail == {"changes": [{"path": CONF.path, "what": "content", "before": "a" * 64, "after": "b" * 64}]}
    assert (event.host_ns, event.raised, event.severity) == (NOON + 300 * S, True, Severity.WARNING)
    assert event.utc_ns == result.record.utc_ns
    assert is_listed(result)
    assert result.record.severity is Severity.WARNING
    later = judged(result.state, changed, 300 * S + LISTED_NS - S)
    assert is_listed(later)
    assert all(one.kind != TIME_CONFIG_CHANGED.id for one in later.events)
    cleared = judged(later.state, changed, 300 * S + LISTED_NS + S)
    assert not is_listed(cleared)
    (event,) = (one for one in cleared.events if one.kind == TIME_CONFIG_CHANGED.id)
    assert not event.raised
    assert event.text.startswith(
        "no longer listed: the time configuration has changed: /etc/chrony/chrony.conf (content"
    )
    after = judged(cleared.state, changed, 600 * S + LISTED_NS)
    assert all(one.kind != TIME_CONFIG_CHANGED.id for one in after.events)


def test_few_records_have_the_settings() -> None:
    """The first of a boot, the first after a change, also after one that a local audit saw, and one a day."""
    first = judged(None, SETTINGS, 0)
    assert first.record.time_config is not None
    assert [one["path"] for one in first.record.time_config] == [one.path for one in SETTINGS]
    assert first.record.time_config[0]["mode"] == "0644"
    later = judged(first.state, SETTINGS, 300 * S)
    assert later.record.time_config is None
    changed = judged(later.state, SETTINGS[1:], 600 * S, kind="local")
    assert changed.record.time_config is None
    network = judged(changed.state, SETTINGS[1:], 900 * S)
    assert network.record.time_config is not None
    assert len(network.record.time_config) == 3
    assert judged(network.state, SETTINGS[1:], 900 * S + DAY - S).record.time_config is None
    assert judged(network.state, SETTINGS[1:], 900 * S + DAY).record.time_config is not None
    booted = restored(network.state, "another", reading(NOON + HOUR, uptime_ns=DAY + HOUR))
    assert judged(booted, SETTINGS[1:], HOUR).record.time_config is not None


def test_a_change_back_is_a_change() -> None:
    """Who changes a file for an hour leaves two events."""
    state = judged(None, (CONF,), 0).state
    there = judged(state, (CONF._replace(mode=0o666),), 300 * S)
    back = judged(there.state, (CONF,), 600 * S)
    assert [one.kind for one in (*there.events, *back.events)] == [TIME_CONFIG_CHANGED.id] * 2
    assert len(back.state.time_config.changes if back.state.time_config else ()) == 2


def test_a_change_while_no_agent_ran_is_detected() -> None:
    """The state is stored; it is compared at the next start, also after a boot, when /run begins empty."""
    state = judged(None, SETTINGS, 0).state
    stored = revive(ClockState, plain(state, names=False))
    assert stored.time_config == state.time_config
    for boot_id in ("boot", "another"):
        after = restored(stored, boot_id, reading(NOON + HOUR, uptime_ns=DAY + HOUR))
        assert not is_listed(judged(after, SETTINGS[:3], HOUR)) or boot_id == "boot"
        assert is_listed(judged(after, (CONF._replace(sha256="b" * 64), KEYS, ZONE), HOUR))
    booted = restored(stored, "another", reading(NOON + HOUR, uptime_ns=DAY + HOUR))
    waiting = judged(booted, SETTINGS[:3], HOUR)
    assert not is_listed(judged(waiting.state, SETTINGS, HOUR + S))  # the lease is the same as before the boot
    assert is_listed(judged(waiting.state, (*SETTINGS[:3], DHCP._replace(sha256="e" * 64)), HOUR + S))
    fragment = CONF._replace(path="/run/systemd/timesyncd.conf.d/site.conf")
    added = judged(waiting.state, (*SETTINGS, fragment), HOUR + S)
    cleared = added.state._replace(time_config=added.state.time_config and added.state.time_config._replace(changes=()))
    assert not is_listed(judged(cleared, (*SETTINGS, fragment), HOUR + 2 * S))
    assert is_listed(judged(cleared, SETTINGS, HOUR + 2 * S))  # lost within the boot
    assert not is_listed(judged(cleared, (*SETTINGS[:3], fragment), HOUR + 2 * S))  # a lease can end


def test_a_change_before_the_first_measurement_is_dated_later() -> None:
    """Its true time follows from the uptime, once the true time is known; until then a day of uptime counts."""
    state, _ = watch_settings(None, seen((CONF,)), None)
    state, _ = watch_settings(state, seen((), S), None)
    state, _ = watch_settings(state, seen((), HOUR), None)
    assert state is not None
    assert [one.utc_ns for one in state.changes] == [None]
    state, _ = watch_settings(state, seen((), 2 * HOUR), NOON + DAY)
    assert state is not None
    assert [one.utc_ns for one in state.changes] == [NOON + DAY - 2 * HOUR + S]
    unmeasured, _ = watch_settings(state, seen((), DAY + 2 * S), None)
    assert unmeasured is not None
    assert unmeasured.changes == ()


def test_a_later_version_reads_more_files_silently() -> None:
    """A file that only the new version reads was not added by anybody; others are compared as ever."""
    state, _ = watch_settings(None, seen((CONF,)), NOON)
    assert state is not None
    older = state._replace(scope=SCOPE - 1)
    after, new = watch_settings(older, seen((CONF._replace(mode=0o600), ZONE), S), NOON)
    assert [(one.path, one.what) for one in new] == [(CONF.path, "mode")]
    assert after is not None
    assert after.scope == SCOPE


@given(st.lists(st.tuples(_HOSTS, st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_any_life_leaves_a_state_that_can_be_stored(life: list[tuple[tuple[TimeSetting, ...], bool, bool]]) -> None:
    """After each reading the same reading is no change, the list is bounded, and the state survives being stored."""
    state: TimeConfigState | None = None
    for number, (settings, is_known, boots) in enumerate(life):
        observed, utc_ns = seen(settings, number * 60 * S), NOON if is_known else None
        if boots and state is not None:
            state = state.of_new_boot(observed.taken)
        state, new = watch_settings(state, observed, utc_ns)
        assert state is not None
        assert all(isinstance(one, ConfigChange) for one in new)
        assert len(state.changes) <= MAX_LISTED
        assert watch_settings(state, observed, utc_ns) == (state, ())
        assert revive(TimeConfigState, plain(state, names=False)) == state

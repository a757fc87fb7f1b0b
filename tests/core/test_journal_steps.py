"""Steps and suspends of simulated boots are found from the receive times of entries, and nothing else is."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.attribution import LogLine
from ntpaudit.core.journal_steps import (
    MAX_DELAY_US,
    NOISE_US,
    JournalChange,
    JournalTimes,
    Jump,
    NearLines,
    Row,
    changes,
)
from ntpaudit.core.policy import Severity

S = 1_000_000
BOOT = "b" * 32
MACHINE = "c" * 32
REAL_US = 1_790_000_000 * S


def row(monotonic_us: int, d_us: int = REAL_US, boot: str = BOOT, machine: str = MACHINE) -> Row:
    """Return an entry whose realtime is `d_us` more than its monotonic time."""
    return (b"%d" % (monotonic_us + d_us), b"%d" % monotonic_us, boot.encode(), machine.encode())


def read(rows: Sequence[Row]) -> JournalTimes:
    """Return the times of entries."""
    times = JournalTimes()
    times.add(rows)
    return times


def steady(begin_s: int, d_us: int = REAL_US, count: int = 5) -> list[Row]:
    """Return entries, one each second."""
    return [row((begin_s + number) * S, d_us) for number in range(count)]


def line(at_us: int, source: str, text: str, boot: str = BOOT, uid: int | None = 0, exe: str = "") -> LogLine:
    """Return a line of a log."""
    return LogLine(boot, at_us, at_us + REAL_US, source, text, uid=uid, exe=exe)


def found(rows: Sequence[Row], *lines: LogLine, has_kernel: bool = True) -> list[JournalChange]:
    """Return the changes in a journal of one boot."""
    times = read(rows)
    return changes(times, times.jumps(), lines, {BOOT} if has_kernel else set())


class Change(NamedTuple):
    """A true change of the clock, and the entries before it."""

    entries: int
    size_us: int


@st.composite
def boots(draw: st.DrawFn) -> tuple[list[Row], list[tuple[int, int]]]:
    """Draw the entries of a boot, in batches, with jitter and delays, and its true changes: when, size."""
    boot = draw(st.uuids()).hex
    d_us, monotonic_us, rows, true = draw(st.integers(10**15, 2 * 10**15)), draw(st.integers(0, 10**9)), [], []
    for index in range(draw(st.integers(1, 5))):
        if index:
            size = draw(st.integers(2 * NOISE_US, 10**13)) * draw(st.sampled_from((1, 1, -1)))
            size = max(size, 10**14 - d_us)  # realtime stays positive
            d_us += size
            true.append((monotonic_us, size))
        count = draw(st.integers(7, 30))
        for number in range(count):
            monotonic_us += draw(st.integers(1, 10**8))
            is_delayed = 3 <= number < count - 3 and draw(st.integers(0, 9)) == 0
            noise = -draw(st.integers(NOISE_US, MAX_DELAY_US - 10)) if is_delayed else draw(st.integers(-2, 2))
            entry = row(monotonic_us, d_us + noise, boot)
            rows += [entry] * draw(st.integers(1, 3))  # journald gives the entries of one wake-up the same time
    return rows, true


@given(st.lists(boots(), min_size=1, max_size=3, unique_by=lambda one: one[0][0][2]), st.booleans())
@settings(deadline=None)
def test_every_change_is_found_and_nothing_else(
    drawn: list[tuple[list[Row], list[tuple[int, int]]]], interleaved: bool
) -> None:
    """Over several boots: each change with its size, between the entries around it, whatever jitter and delays."""
    rows = [entry for entries, _ in drawn for entry in entries]
    if interleaved:  # journalctl can mix boots of several files; each boot stays in order
        rows.sort(key=lambda entry: int(entry[1]))
    jumps = {boot_id: [jump for jump in read(rows).jumps() if jump.boot_id == boot_id] for boot_id in boots_of(drawn)}
    for (_, true), of_boot in zip(drawn, jumps.values(), strict=True):
        assert len(of_boot) == len(true)
        for jump, (when_us, size_us) in zip(of_boot, true, strict=True):
            assert abs(jump.size_us - size_us) <= 4
            assert jump.from_us <= when_us <= jump.to_us


def boots_of(drawn: list[tuple[list[Row], list[tuple[int, int]]]]) -> Iterator[str]:
    """Yield the boot ids."""
    return (entries[0][2].decode() for entries, _ in drawn)


def test_slews_are_no_steps() -> None:
    """A slew changes both clocks alike, so their difference stays, whatever the wrong rate of the host's time."""
    assert read([row(number * 1_083_333) for number in range(1000)]).jumps() == []


@pytest.mark.parametrize("size_us", [-NOISE_US, NOISE_US, -5, 5])
def test_noise_is_no_step(size_us: int) -> None:
    """A difference up to the noise is not reported, if it stays too."""
    assert read([*steady(0), *steady(10, REAL_US + size_us)]).jumps() == []


def test_the_smallest_steps() -> None:
    """2 ms back and forth, held for three readings each."""
    rows = [*steady(0, count=3), *steady(10, REAL_US - 2000, 3), *steady(20, count=3)]
    assert [jump.size_us for jump in read(rows).jumps()] == [-2000, 2000]


@pytest.mark.parametrize("count", [1, 2])
def test_a_delay_is_no_step(count: int) -> None:
    """One or two readings that are late by less than 1 s: the process was not running in between."""
    rows = [*steady(0), *steady(10, REAL_US - 900_000, count), *steady(20)]
    assert read(rows).jumps() == []
    assert read(rows[:-5]).jumps() == []  # at the end of the journal
    assert read(rows[5:]).jumps() == []  # at its begin


def test_what_no_delay_explains() -> None:
    """One reading that is 1 s less, or 20 ms more: the clock was set, and set again."""
    for size_us in (-MAX_DELAY_US, 20_000):
        jumps = read([*steady(0), *steady(10, REAL_US + size_us, 1), *steady(20)]).jumps()
        assert [jump.size_us for jump in jumps] == [size_us, -size_us]


def test_the_window_of_a_step_back() -> None:
    """It has every time that can occur twice, and counts the entries with such a time, before and after the step."""
    (change,) = found([*steady(0, count=10), *steady(10, REAL_US - 3_000_000, 10)])
    assert change.jump.window_us == (REAL_US + 6 * S, REAL_US + 10 * S)
    assert change.entries == len([6, 7, 8, 9]) + len([7, 8, 9, 10])
    assert change.jump.before_us == REAL_US + 9 * S
    assert change.jump.after_us == REAL_US + 7 * S


def test_the_window_of_a_step_forward() -> None:
    """It is missing; entries of another boot can have such a time, those of another machine do not count."""
    rows = [*steady(1000), *steady(1010, REAL_US + 100 * S)]
    (change,) = found(rows)
    assert change.jump.window_us == (REAL_US + 1004 * S, REAL_US + 1110 * S)
    assert change.entries == 0
    others = [row(S, REAL_US + 1050 * S, "d" * 32), row(S, REAL_US + 1050 * S, "e" * 32, "f" * 32)]
    (change,) = found([*rows, *others])
    assert change.entries == 1


@pytest.mark.parametrize(
    ("size_us", "uptime_s", "level", "severity"),
    [
        (-5_000, 1000, "low", Severity.OK),
        (-20_000, 1000, "medium", Severity.WARNING),
        (20_000, 1000, "medium", Severity.WARNING),
        (-2 * S, 1000, "critical", Severity.CRITICAL),  # without a cause
        (2 * S, 1000, "critical", Severity.CRITICAL),
        (844 * 86_400 * S, 20, "low", Severity.OK),  # the time daemon's first correction
    ],
)
def test_levels(size_us: int, uptime_s: int, level: str, severity: Severity) -> None:
    """As for steps that the agent sees; without a cause a step of 1 s or more is critical."""
    (change,) = found([*steady(uptime_s), *steady(uptime_s + 10, REAL_US + size_us)])
    assert (change.level, change.severity) == (level, severity)


def test_a_named_cause_lowers_the_level() -> None:
    """A step of 1 s or more that chronyd reports is high."""
    stepped = line(1010 * S, "chronyd", "System clock was stepped by 2.000000 seconds")
    (change,) = found([*steady(1000), *steady(1010, REAL_US + 2 * S)], stepped)
    assert (change.kind, change.level, change.cause and change.cause.name) == ("step", "high", "chronyd")


SUSPENDED = [*steady(1000), *steady(1010, REAL_US + 3600 * S)]


ASLEEP = (
    (1001, "systemd-logind", "The system will suspend now!"),
    (1002, "systemd-sleep", "Entering sleep state 'suspend'..."),
    (1003, "kernel", "PM: suspend entry (deep)"),
)
AWAKE = (
    (1010, "kernel", "PM: suspend exit"),
    (1010, "systemd-sleep", "System returned from sleep state."),
    (1011, "systemd-logind", "Operation 'sleep' finished."),
)


@pytest.mark.parametrize(
    "messages",
    [
        *([one] for one in (*ASLEEP, *AWAKE)),
        [*ASLEEP, *AWAKE],
        [(1010, "kernel", "PM: suspend entry (deep)"), AWAKE[0]],  # journald read both after the suspend
        [*ASLEEP[:2], (1010, "kernel", "PM: suspend entry (deep)"), *AWAKE],
        [(1010, "kernel", "PM: hibernation: hibernation exit")],
    ],
)
def test_a_suspend(messages: list[tuple[int, str, str]]) -> None:
    """Forward, with a message before that the host falls asleep, or after that it wakes up: no step."""
    (change,) = found(SUSPENDED, *(line(at_s * S, source, text, uid=None) for at_s, source, text in messages))
    assert (change.kind, change.level, change.severity, change.cause) == ("suspend", None, Severity.OK, None)


@pytest.mark.parametrize(
    "messages",
    [
        [(980, "kernel", "PM: suspend entry (deep)"), (981, "kernel", "PM: suspend exit")],
        [(980, *ASLEEP[0][1:]), (1000, *AWAKE[0][1:]), (1010, *AWAKE[2][1:])],
        [(1012, *ASLEEP[0][1:]), (1013, *AWAKE[0][1:])],
    ],
)
def test_a_step_near_a_suspend(messages: list[tuple[int, str, str]]) -> None:
    """After the host woke up, or before it falls asleep, the clock was set."""
    (change,) = found(SUSPENDED, *(line(at_s * S, source, text, uid=None) for at_s, source, text in messages))
    assert change.kind == "step"


def test_no_suspend() -> None:
    """A jump back never is one, nor one that a time daemon reports, nor one far from each message."""
    asleep = line(1010 * S, "kernel", "PM: suspend exit", uid=None)
    (back,) = found([*steady(1000), *steady(1010, REAL_US - 3600 * S)], asleep)
    assert back.kind == "step"
    stepped = line(1010 * S, "chronyd", "System clock was stepped by 3600.000000 seconds")
    (named,) = found(SUSPENDED, asleep, stepped)
    assert (named.kind, named.cause and named.cause.name) == ("step", "chronyd")
    (small,) = found(SUSPENDED, asleep, stepped._replace(text="System clock was stepped by 0.513000 seconds"))
    assert small.kind == "suspend"
    (far,) = found(SUSPENDED, asleep._replace(monotonic_us=1060 * S))
    assert far.kind == "step"
    (other,) = found(SUSPENDED, asleep._replace(boot_id="d" * 32))
    assert other.kind == "step"


def test_without_kernel_messages() -> None:
    """A jump forward can be a suspend that the journal does not show; one back cannot."""
    assert [change.kind for change in found(SUSPENDED, has_kernel=False)] == ["step or suspend"]
    rows = [*steady(1000), *steady(1010, REAL_US - S)]
    assert [change.kind for change in found(rows, has_kernel=False)] == ["step"]


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9))), st.integers(0, 2 * 10**9))
def test_lines_near_jumps(gaps: list[tuple[int, int]], when_us: int) -> None:
    """Exactly the lines within 30 s of a jump of their boot are kept."""
    jumps, end = [], 0
    for quiet, length in gaps:
        jumps.append(Jump(BOOT, "", end + quiet, end + quiet + length, 0, 1))
        end += quiet + length
    near = NearLines(jumps)
    margin = 30 * S
    assert near.has(BOOT, when_us) == any(jump.from_us - margin <= when_us <= jump.to_us + margin for jump in jumps)
    assert not near.has("d" * 32, when_us)

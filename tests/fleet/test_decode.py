"""What is made of rows is the same whatever the order that they come in, and steps are kept while they explain."""

import itertools
import json
from collections.abc import Sequence
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.fleet.model import Alarm, DuplicateHost
from ntpaudit.core.observation import STATUSES
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S
from ntpaudit.fleet.decode import (
    BASELINE_S,
    CLOCK,
    ClockRow,
    EventRow,
    Sighting,
    SourceRow,
    alarms_of,
    duplicate_hosts_of,
    falseticker_reports_of,
    hosts_of,
    offsets_of,
    several_of,
    sites_of,
    steps_of,
    worst_of,
)
from ntpaudit.fleet.promql import _federated, _labels, _lines, _rows
from ntpaudit.fleet.reader import Window
from ntpaudit.fleet.suggestion import nearest
from tests.records import NOW_NS

Row = TypeVar("Row")

names = st.sampled_from(["a", "b", "b\n", None])
places = st.sampled_from(["ams", "fra", "fra\n", None])
stamps = st.integers(NOW_NS - 3, NOW_NS)
values = st.sampled_from([0, 1, 2, 3, "1", None, "x"])
offsets = st.sampled_from([(0.0, -0.1, 0.1), (1.0, 0.9, 1.1), ("1", "0.5", "2"), (None, 0.0, 0.0)])
clocks = st.builds(
    lambda name, site, env, stamp_ns, severity, verdict, offset: ClockRow(
        name, site, env, stamp_ns, severity, verdict, *offset
    ),
    *(names, places, places, stamps, values, values, offsets),
)
happenings = st.builds(EventRow, names, st.sampled_from(["unsynced", "step-back"]), stamps, values, values, values)
said = st.builds(SourceRow, names, st.sampled_from(["s", "t"]), stamps, st.just(STATUSES.index("falseticker")), values)
signs = st.builds(Sighting, names, places, places, stamps)


def shuffled(rows: Sequence[Row], random: Random) -> list[Row]:
    """Return the same rows in another order."""
    return random.sample(rows, len(rows))


@given(
    *(st.lists(clocks, max_size=6), st.lists(happenings, max_size=6)),
    *(st.lists(said, max_size=6), st.lists(signs, max_size=6), st.randoms()),
)
def test_the_order_of_rows_never_matters(
    rows: list[ClockRow], events: list[EventRow], claims: list[SourceRow], seen: list[Sighting], random: Random
) -> None:
    """Also of several points of one host at one moment, from one place or several: always the same one is kept."""
    clashing = {"a", "b", "b "}
    assert hosts_of(rows) == hosts_of(shuffled(rows, random))
    assert offsets_of(rows) == offsets_of(shuffled(rows, random))
    assert worst_of(rows, clashing) == worst_of(shuffled(rows, random), clashing)
    assert steps_of(events) == steps_of(shuffled(events, random))
    assert set(alarms_of(events, NOW_NS, 3600.0)) == set(alarms_of(shuffled(events, random), NOW_NS, 3600.0))
    assert set(falseticker_reports_of(claims)) == set(falseticker_reports_of(shuffled(claims, random)))
    assert duplicate_hosts_of(seen) == duplicate_hosts_of(shuffled(seen, random))
    assert sites_of(seen) == sites_of(shuffled(seen, random))
    assert several_of(seen) == several_of(shuffled(seen, random))


@pytest.mark.parametrize(
    ("ams", "fra", "sites"),
    [
        ([0, 60, 120], [180, 240], ()),  # moved
        ([0, 60, 120], [120, 180], ()),  # in the very moment
        ([0, 60, 120], [60], ("ams", "fra")),  # one that has just begun, or ended
        ([0, 120], [60, 180], ("ams", "fra")),
        ([0, 60], [0, 60], ("ams", "fra")),  # in step
        ([60], [60], ()),  # one point each proves nothing
    ],
)
def test_machines_of_one_name_report_before_and_after_each_other(
    ams: list[int], fra: list[int], sites: tuple[str, ...]
) -> None:
    """A host that moved has no point at its old place after its first one at the new."""
    signs = [Sighting("a", site, "prod", stamp) for site, stamps in (("ams", ams), ("fra", fra)) for stamp in stamps]
    assert duplicate_hosts_of(signs) == ((DuplicateHost("a", sites),) if sites else ())


@pytest.mark.parametrize("before_s", [60.0, 3600.0, 7200.0])
def test_a_step_is_kept_while_a_clock_may_have_moved_by_it(before_s: float) -> None:
    """The offset before can be older by its whole window; other findings are kept until they are cleared."""
    kept_s = max(3600.0, before_s + BASELINE_S)
    for age_s, kinds in ((kept_s - 1, {"step-back", "unsynced"}), (kept_s + 1, {"unsynced"})):
        stamp_ns = NOW_NS - round(age_s * NS_PER_S)
        events = [EventRow("a", kind, stamp_ns, 1, int(Severity.WARNING), None) for kind in ("step-back", "unsynced")]
        assert {alarm.kind for alarm in alarms_of(events, NOW_NS, before_s)} == kinds


@pytest.mark.parametrize("wrong_s", [-10_800.0, 0.0, 10_800.0])
def test_a_disputed_event_is_in_force_since_it_came(wrong_s: float) -> None:
    """A step is neither forgotten at once where servers are hours behind, nor kept for hours where they are ahead."""
    for ago_s, kinds in ((60.0, {"step-back", "unsynced"}), (3700.0, {"unsynced"})):
        came_ns = NOW_NS - round(ago_s * NS_PER_S)
        stamp_ns = came_ns + round(wrong_s * NS_PER_S)
        events = [EventRow("a", kind, stamp_ns, 1, 1, None, wrong_s or None) for kind in ("step-back", "unsynced")]
        alarms = alarms_of(events, NOW_NS, 60.0)
        assert {(alarm.kind, alarm.since_ns) for alarm in alarms} == {(kind, came_ns) for kind in kinds}


def test_only_what_says_that_it_is_a_step_is_one() -> None:
    """Of foreign values none is a step's: no host, another kind, ended; a size or severity that is none is unknown."""
    warning = int(Severity.WARNING)
    reported = [
        EventRow("b", "step-forward", NOW_NS - 1, "1", str(warning), "2.5"),
        EventRow("a", "step-back", NOW_NS, 1, "x", "NaN"),
        EventRow("a\n", "step-back", NOW_NS, 1.0, None, []),
    ]
    foreign = [
        EventRow(None, "step-back", NOW_NS, 1, warning, -1.0),
        EventRow("c", "unsynced", NOW_NS, 1, warning, -1.0),
        EventRow("c", ["step-back"], NOW_NS, 1, warning, -1.0),
        *(EventRow("c", "step-back", NOW_NS, raised, warning, -1.0) for raised in (0, None, True, "x", 2)),
    ]
    assert steps_of([*reported, *foreign]) == (
        Alarm("b", "step-forward", Severity.WARNING, NOW_NS - 1, 2.5),
        Alarm("a", "step-back", Severity.UNKNOWN, NOW_NS, None),
        Alarm("a ", "step-back", Severity.UNKNOWN, NOW_NS, None),
    )
    twice = [reported[0], reported[0]._replace(severity=int(Severity.CRITICAL))]
    assert [step.severity for step in steps_of(twice)] == [Severity.CRITICAL]


METRIC = "ntpaudit_clock_severity"


def severities(lines: str) -> list[ClockRow]:
    """Return the rows of a reply, of the first 8 ms of 1970."""
    return list(_rows(CLOCK, ("severity",), Window(0, 8_000_000), _federated(_lines([lines.encode()]))))


@given(
    lines=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"))),
    cuts=st.sets(st.integers(0, 50)),
    is_ended=st.booleans(),
)
def test_a_reply_may_be_cut_anywhere(lines: list[str], cuts: set[int], *, is_ended: bool) -> None:
    """Its lines are the same, whatever the parts in which it arrives, also within a character."""
    reply = ("\n".join(lines) + "\n" * is_ended).encode()
    places = [0, *sorted(cuts), max(cuts, default=0) + len(reply)]
    parts = [reply[begin:end] for begin, end in itertools.pairwise(places)]
    assert list(_lines(parts)) == (reply.decode().removesuffix("\n").split("\n") if reply else [])


@given(st.permutations([(5, "1"), (7, "2"), (7, "3"), (6, "9"), (9, "4")]))
def test_the_order_of_lines_never_matters(samples: list[tuple[int, str]]) -> None:
    """A series may come in several lines, in any order: the latest sample in the time counts."""
    lines = "".join(f'{METRIC}{{host="a b"}} {value} {stamp}\n' for stamp, value in samples)
    (host,) = hosts_of(severities(lines)).values()
    assert (host.name, host.last_ns, host.severity) == ("a b", 7_000_000, Severity.CRITICAL)


pieces = st.sampled_from([METRIC + "{", "} 1 7", "} 1 x", '"', "\n", "a", 'a="b"', "}"])


@given(st.text() | st.lists(pieces).map("".join))
def test_any_text_is_samples_or_is_refused(lines: str) -> None:
    """Each line is one, or the reply is invalid."""
    try:
        rows = severities(lines)
    except (LookupError, ValueError):
        return
    assert len(rows) <= lines.removesuffix("\n").count("\n") + bool(lines)
    assert all(row.last_ns == 7_000_000 for row in rows)


@given(
    series=st.lists(st.dictionaries(st.sampled_from(["env", "host", "relay", "site"]), st.text(), min_size=1)),
    older=st.booleans(),
)
def test_labels_are_read_as_they_were_written(series: list[dict[str, str]], *, older: bool) -> None:
    """Older servers escape as JSON does, newer ones no more than the text format must; also labels that others add."""
    escapes = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

    def quoted(value: str) -> str:
        return json.dumps(value, ensure_ascii=False) if older else f'"{value.translate(escapes)}"'

    written = [",".join(f"{name}={quoted(value)}" for name, value in sorted(one.items())) + "}" for one in series]
    assert [_labels(one) for one in written] == series


@pytest.mark.parametrize("written", ['host="a"', 'host="a",}', "host=a}", 'host="a" site="b"}', 'host="\\x"}', '"a"}'])
def test_labels_that_are_written_otherwise_are_refused(written: str) -> None:
    """They are never read as something else."""
    with pytest.raises(ValueError):  # noqa: PT011  # whichever it is, the reader reports an invalid reply
        _labels(written)


def test_a_series_without_labels_is_of_no_host() -> None:
    """Neither in braces nor without: such a line is valid, and of no host."""
    assert hosts_of(severities(f"{METRIC}{{}} 1 7\n{METRIC} 1 7\n")) == {}


def test_of_two_points_of_a_clashing_name_it_is_always_the_same() -> None:
    """A host that came by two relays has two points of one place and moment."""
    rows = [ClockRow("a", "ams", "prod", NOW_NS, severity, 0, 0.0, -0.1, 0.1) for severity in (0, 3)]
    assert worst_of(rows, {"a"}) == worst_of(rows[::-1], {"a"})


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Fra", "fra"), ("fra ", "fra"), ("AMS-1", "ams-1"), ("amsterdam", None), ("WEB1", "web1.example.net")],
)
def test_the_name_that_was_meant(name: str, meant: str | None) -> None:
    """But for its case first, else the most similar; nothing where none is."""
    assert nearest(name, ["fra", "ams-1", "sgp", "web1.example.net"]) == meant
    assert nearest(name, []) is None

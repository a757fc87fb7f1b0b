"""The share of time within tolerance, and excursions, shown from the accounts of the demonstration's hosts."""

import math
from collections import defaultdict
from collections.abc import Mapping

import pytest

from grafana.compliance import CLOSED_MS, STATES
from grafana.queries import LANGUAGES, Language
from ntpaudit.core.accounts import Account
from ntpaudit.core.excursions import Excursion
from tests.grafana.library import Library, Shown
from tests.grafana.test_panels import Screen
from tests.grafana.worlds import DAY_S, HOUR_S, Filled

WITHIN, EXCURSIONS, BY_STATE = "Time within tolerance", "Excursions", "Time by state (long range)"

PARTLY_MS = 3_599_999
"""How long before the range an hour may begin that ends in it."""


@pytest.fixture(scope="module")
def demo(grafana: Library, filled: Filled) -> Screen:
    """The demonstration's fleet."""
    return Screen(grafana, filled.urls, filled.span.end_ms)


def hours(filled: Filled, earlier_ms: int = 0) -> Mapping[str, list[Account]]:
    """Return the hours that each host delivered and that begin in the range, or a little earlier."""
    found: dict[str, dict[int, Account]] = defaultdict(dict)
    for audit in filled.audits:
        for account in audit.accounts:
            if account.length_s == HOUR_S and account.begin_s * 1000 >= filled.span.begin_ms - earlier_ms:
                found[audit.record.host.name][account.begin_s] = account
    return {name: list(accounts.values()) for name, accounts in found.items()}


def excursions(filled: Filled) -> dict[tuple[str, str, int], Excursion]:
    """Return the excursions that began in the range, as the last hour shows each."""
    return {
        (name, one.state, one.begin_s): one
        for name, accounts in hours(filled, PARTLY_MS).items()
        for account in accounts
        for one in account.excursions
        if filled.span.begin_ms <= one.begin_s * 1000 < filled.span.end_ms
    }


def truth(filled: Filled) -> dict[str, dict[str, int]]:
    """Return what the table of each site shows."""
    sites = {part.name: part.site for part in filled.story.hosts}
    rows: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    last_ms = filled.span.end_ms - CLOSED_MS
    wanted_s = (last_ms // 3_600_000 - (filled.span.begin_ms - 1) // 3_600_000) * HOUR_S
    for name, accounts in hours(filled).items():
        counted = [one for one in accounts if one.begin_s * 1000 <= last_ms]
        row = rows[sites[name] or "no site"]
        row["hosts"] += 1
        row["of"] += wanted_s
        for state in STATES:
            row[state] += sum(getattr(one.spans, state) for one in counted)
        row["no account"] += wanted_s - HOUR_S * len(counted)
    return rows


def seconds(text: str) -> int:
    """Read a number of seconds as it is shown."""
    return int(text.replace(",", ""))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_time_of_each_site_is_that_of_its_accounts(language: Language, demo: Screen, filled: Filled) -> None:
    """To the second, with the number of all seconds; what is silent counts; and no share is rounded up."""
    shown = demo.show(language, "fleet", only=(WITHIN,))[WITHIN]
    assert shown.errors == ()
    names = ("hosts", "within", "of", *(state for state in STATES if state != "within"), "no account")
    found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(names, 0))
    for row in shown.rows:
        for name in names:
            found[row["site"].text][name] += seconds(row[name].text)
        within, of = seconds(row["within"].text), seconds(row["of"].text)
        assert row["share"].text == f"{math.floor(100_000 * within / of) / 1000:.3f}%"
    wanted = truth(filled)
    assert found == wanted
    assert all(row["of"] == sum(row[name] for name in names[1:] if name != "of") for row in wanted.values())
    assert sum(row["no account"] for row in wanted.values()) > 0, "a host is silent"
    if language == "influxql":
        profiles = {(audit.record.host.site or "no site", audit.record.profile.name) for audit in filled.audits}
        assert {(row["site"].text, row["profile"].text) for row in shown.rows} == profiles
    else:
        assert {row["loosest tolerance"].value for row in shown.rows} == {1.0}


@pytest.mark.parametrize("language", LANGUAGES)
def test_excursions_have_a_start_an_end_and_a_duration(language: Language, demo: Screen, filled: Filled) -> None:
    """Newest first, with the largest errors; VictoriaMetrics has one line for each host and state."""
    shown = demo.show(language, "fleet", only=(EXCURSIONS,))[EXCURSIONS]
    assert shown.errors == ()
    starts = [row["start"].value for row in shown.rows]
    assert starts == sorted(starts, reverse=True)
    known = excursions(filled)
    assert len(known) >= 3
    if language == "influxql":
        assert {(row["host"].text, row["state"].text, row["start"].value // 1000) for row in shown.rows} == set(known)
    for row in shown.rows:
        same = [one for key, one in known.items() if key[:2] == (row["host"].text, row["state"].text)]
        last = max(same, key=lambda one: one.begin_s)
        if language == "influxql":
            same = [one for one in same if one.begin_s == row["start"].value // 1000]
            last = same[0]
            assert row["over"].text == ("no" if last.is_open else "yes")
            assert row["findings"].text == (" ".join(last.findings) or "-")
        assert row["start"].value == last.begin_s * 1000
        if len(same) == 1:
            assert row["end"].value == last.end_s * 1000
        else:
            assert row["end"].text == "-"
        assert row["duration"].value == max(one.duration_s for one in same)
        assert row["proved"].value == pytest.approx(max(one.proved_s for one in same))
    assert {(row["host"].text, row["state"].text) for row in shown.rows} == {key[:2] for key in known}


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_excursion_that_goes_on_is_shown_later(language: Language, demo: Screen, filled: Filled) -> None:
    """InfluxDB shows one that is not over also in a range that begins after it; no hour is accounted there."""
    later = demo.show(language, "fleet", only=(WITHIN, EXCURSIONS), later_s=DAY_S)
    assert later[WITHIN].rows == ()
    assert (later[WITHIN].empty or "").startswith("No hour is accounted")
    going_on = {key[0] for key, one in excursions(filled).items() if one.is_open}
    assert going_on
    assert {row["host"].text for row in later[EXCURSIONS].rows} == (going_on if language == "influxql" else set())


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_graph_has_all_seconds(language: Language, demo: Screen, filled: Filled) -> None:
    """Each hour of each host is in it once, in six states; in PromQL also the hour in which the range begins."""
    earlier_ms = PARTLY_MS if language == "promql" else 0
    shown: Shown = demo.show(language, "integrity", only=(BY_STATE,))[BY_STATE]
    assert shown.errors == ()
    totals = {name: sum(value or 0 for value in line.values) for name, line in shown.series.items()}
    wanted = {
        state: sum(getattr(one.spans, state) for accounts in hours(filled, earlier_ms).values() for one in accounts)
        for state in STATES
    }
    assert {name: total for name, total in totals.items() if total} == {k: v for k, v in wanted.items() if v}

"""Every query of every dashboard and alert rule, asked of real databases which the demonstration has filled."""

import re
from collections import Counter
from collections.abc import Sequence
from statistics import median

import pytest

from grafana.__main__ import BOARDS, boards
from grafana.integrity import limits
from grafana.panels import TOLERANCE
from grafana.queries import LANGUAGES, Language
from ntpaudit.core.observation import STATUSES
from ntpaudit.core.record import Record
from ntpaudit.core.units import NS_PER_S
from tests.grafana.replay import Answer, Choices, Span, ask_influxql, ask_promql, fill_in, targets, timed_targets
from tests.grafana.worlds import Filled


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", BOARDS)
def test_every_target_is_answered(name: str, language: Language, filled: Filled) -> None:
    """No query is refused, and each answers a series for a site, a source or a kind: no panel has one for each host.

    That no panel is empty test_panels.py has.
    """
    kinds = {event.kind for one in filled.audits for event in one.events}
    few = max(len(kinds), len(filled.story.sources))
    assert few < len(filled.story.hosts)
    for one in targets(boards(language)[name], name):
        answers = [filled.asked(one, language, host=host) for host in sorted(filled.truth.critical)]
        if language == "influxql":  # whose series Grafana cuts
            assert all(answer.series <= few for answer in answers), (one.panel, one.ref)


@pytest.mark.parametrize("language", LANGUAGES)
def test_choices_are_offered(language: Language, filled: Filled) -> None:
    """The choices at the top of the dashboards are the fleet's sites, its environment, and the hosts of a site."""
    names = {part.site for part in filled.story.hosts}
    for variable in boards(language)["integrity"]["templating"]["list"]:
        if variable["type"] != "query":
            continue
        if language == "influxql":
            query = variable["query"].replace("${site:regex}", "ams").replace("${env:regex}", "demo")
            offered = set(ask_influxql(filled.urls[language], query).column("value"))
        else:
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            metric = metric.replace("${site:regex}", "ams").replace("${env:regex}", "demo")
            query = f"count by ({label}) (last_over_time({metric}[1d]))"
            offered = set(ask_promql(filled.urls[language], query, {}, filled.span, 60).column(label))
        ams = {part.name for part in filled.story.hosts if part.site == "ams"}
        assert offered == {"site": names, "env": {"demo"}, "hosts": ams}[variable["name"]]


def numbers(answers: Sequence[Answer]) -> list[float]:
    """Return the only number of each answer."""
    assert all(len(answer.rows) == 1 for answer in answers)
    return [answer.rows[0][-1] for answer in answers]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_counts_are_the_truth(language: Language, filled: Filled) -> None:
    """Ok, warning, unknown and critical clocks, the silent and the covered: exactly those of the story."""
    found = filled.truth
    counts = [len(found.ok), len(found.warning), len(found.unmeasured), len(found.critical)]
    assert numbers(filled.ask("fleet", "Clocks now", language)) == counts
    assert numbers(filled.ask("fleet", "Silent", language)) == [len(found.silent)]
    reporting = [record for name, record in filled.last.items() if name not in found.silent]
    shares = [
        sum(record.offset is not None for record in reporting) / 24,
        *(sum(record.agreement.usable >= least for record in reporting) / 24 for least in (2, 3)),
    ]
    assert numbers(filled.ask("fleet", "Coverage", language)) == pytest.approx(shares)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_counts_are_the_truth_of_a_site(language: Language, filled: Filled) -> None:
    """One site chosen, only its hosts are counted; and where nothing is wrong the number is 0, not none."""
    for site in ("ams", "fra", "sgp"):
        here = {part.name for part in filled.story.hosts if part.site == site}
        found = [here & names for names in (filled.truth.ok, filled.truth.warning, filled.truth.unmeasured)]
        counts = [*map(len, found), len(here & filled.truth.critical)]
        assert numbers(filled.ask("fleet", "Clocks now", language, site=site)) == counts
        assert numbers(filled.ask("fleet", "Silent", language, site=site)) == [len(here & filled.truth.silent)]
    assert filled.ask("fleet", "Clocks now", language, site="sgp")[3].rows[0][-1] == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_worst_hosts_are_those_that_are_not_ok(language: Language, filled: Filled) -> None:
    """Each with its own last offset, sign and all, and none of an offset where the last audit measured nothing."""
    found = filled.truth
    answers = filled.ask("fleet", "Worst hosts", language)
    assert set(answers[0].column("host")) == found.critical | found.warning | found.unmeasured
    if language == "influxql":
        offsets = dict(zip(answers[0].column("host"), answers[0].column("offset"), strict=True))
    else:
        offsets = dict(zip(answers[2].column("host"), answers[2].column("value"), strict=True))
    for name in answers[0].column("host"):
        offset = filled.last[name].offset
        assert offsets.get(name) == (None if offset is None else pytest.approx(offset.estimate_s))


@pytest.mark.parametrize("language", LANGUAGES)
def test_offsets_are_counted_by_size_and_direction(language: Language, filled: Filled) -> None:
    """Each measured clock is in one class; and ahead is not behind."""
    offsets = [
        record.offset.estimate_s
        for name, record in filled.last.items()
        if name not in filled.truth.silent and record.offset is not None
    ]
    edges = [-60.0, -TOLERANCE.critical_s, -TOLERANCE.warning_s, TOLERANCE.warning_s, TOLERANCE.critical_s, 60.0]
    classes = Counter(sum(offset > edge for edge in edges) for offset in offsets)
    assert len(classes) > 2
    assert numbers(filled.ask("fleet", "Offsets, ahead and behind", language)) == [classes[place] for place in range(7)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_who_fell_silent_is_named(language: Language, filled: Filled) -> None:
    """With the moment of its last point."""
    (answer,) = filled.ask("fleet", "Silent hosts", language)
    assert set(answer.column("host")) == filled.truth.silent
    (at,) = answer.column("time" if language == "influxql" else "value")
    (name,) = filled.truth.silent
    assert at == pytest.approx((filled.last[name].utc_ns or 0) / 1e6, abs=1)


@pytest.mark.parametrize("language", LANGUAGES)
def test_findings_in_force_are_the_truth(language: Language, filled: Filled) -> None:
    """Those that count for a host that reports: no more and no fewer; and each kind with its number of hosts."""
    answer = filled.ask("fleet", "Raised findings", language)[0]
    states = answer.column("state" if language == "influxql" else "value")
    rows = list(zip(answer.column("host"), answer.column("kind"), states, strict=True))
    counting = {(host, kind) for host, kind, state in rows if state > 0 and host not in filled.truth.silent}
    assert counting == {(host, kind) for host, kinds in filled.truth.findings.items() for kind in kinds}


@pytest.mark.parametrize("language", LANGUAGES)
def test_steps_are_the_truth(language: Language, filled: Filled) -> None:
    """Every clock that was set, which way and by how much; and a mark on the graphs for each."""
    answer = filled.ask("fleet", "Clock steps", language)[0]
    sizes = answer.column("step" if language == "influxql" else "value")
    found = sorted(zip(answer.column("host"), sizes, strict=True))
    wanted = sorted((step.host, step.size_s) for step in filled.truth.stepped)
    assert [host for host, _ in found] == [host for host, _ in wanted]
    assert [size for _, size in found] == pytest.approx([size for _, size in wanted], abs=0.01)
    (marks,) = filled.ask("fleet", "annotation: Clock steps", language)
    assert Counter(marks.column("host")) == Counter(host for host, _ in wanted)


@pytest.mark.parametrize("language", LANGUAGES)
def test_sites_sum_up_to_the_fleet(language: Language, filled: Filled) -> None:
    """Each site's hosts by severity, the extremes of its offsets, and the ambiguity of its order."""
    answers = filled.ask("fleet", "Sites", language)
    rows = [dict(zip(answer.column("site"), (row[-1] for row in answer.rows), strict=True)) for answer in answers]
    found = filled.truth
    counts = [sum(one.values()) for one in rows[:4]]
    assert counts == [len(names) for names in (found.critical, found.unmeasured, found.warning, found.ok)]
    here = {part.name: part.site for part in filled.story.hosts if part.name not in found.silent}
    for site in ("ams", "fra", "sgp"):
        offsets = [record.offset for name, record in filled.last.items() if here.get(name) == site and record.offset]
        assert rows[4][site] == pytest.approx(min(one.estimate_s for one in offsets))
        assert rows[5][site] == pytest.approx(max(one.estimate_s for one in offsets))
        assert rows[6][site] == pytest.approx(median(one.estimate_s for one in offsets))
        end_ns = filled.span.end_ms * 1_000_000
        grown = [
            (record.offset, 5e-5 * (end_ns - (record.utc_ns or 0)) / NS_PER_S)
            for name, record in filled.last.items()
            if here.get(name) == site and record.offset
        ]
        hull_s = max(one.latest_s + by_s for one, by_s in grown) - min(one.earliest_s - by_s for one, by_s in grown)
        assert rows[7][site] == pytest.approx(hull_s, abs=1e-6)  # a range ends at a whole millisecond
        assert rows[8][site] == sum(part.site == site and part.name in found.silent for part in filled.story.hosts)


@pytest.mark.parametrize("language", LANGUAGES)
def test_pipelines_at_risk_are_counted(language: Language, filled: Filled) -> None:
    """By the direction that hurts each: a clock that is an hour ahead is no risk to what misses the late."""
    offsets = [
        record.offset.estimate_s
        for name, record in filled.last.items()
        if name not in filled.truth.silent and record.offset is not None
    ]
    wanted = [
        sum(offset < limit_s if limit_s < 0 else offset > limit_s for offset in offsets) for _, limit_s in limits()
    ]
    found = numbers(filled.ask("integrity", "Hosts ahead: events late or lost", language))
    found += numbers(filled.ask("integrity", "Hosts behind: events missed or refused", language))
    assert found == wanted
    assert sum(wanted) > 0
    assert set(filled.ask("integrity", "Hosts beyond these limits", language)[0].column("host")) == {
        name for name in filled.truth.critical if abs(_offset_s(filled.last[name])) > 300
    }


def _offset_s(record: Record) -> float:
    assert record.offset is not None
    return record.offset.estimate_s


@pytest.mark.parametrize("language", LANGUAGES)
def test_shares_within_a_tolerance_are_those_of_the_records(language: Language, filled: Filled) -> None:
    """Now, of the hosts that report: those that measured nothing among them."""
    reporting = [record for name, record in filled.last.items() if name not in filled.truth.silent]
    for target, answer in zip(
        (one for one in targets(boards(language)["integrity"], "") if "proved within, now" in one.panel),
        filled.ask("integrity", "Share of clocks proved within, now", language),
        strict=True,
    ):
        title = target.target["legendFormat"] if language == "promql" else answer.columns[-1]
        size, unit = title.split()
        limit_s = float(size) * {"s": 1.0, "ms": 1e-3, "us": 1e-6}[unit]
        within = [record.offset is not None and record.offset.bound_s <= limit_s for record in reporting]
        assert answer.rows[0][-1] == pytest.approx(sum(within) / len(within))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_host_is_shown_inside_its_bound(language: Language, filled: Filled) -> None:
    """The estimate lies between earliest and latest at every moment; and its sources have the statuses there are."""
    answers = filled.ask("host", "Offset and bound", language)
    if language == "influxql":
        rows = [
            (low, middle, high)
            for low, middle, high in zip(
                *(answers[0].column(name) for name in ("earliest", "offset", "latest")), strict=True
            )
            if middle is not None
        ]
    else:
        latest, earliest, offset = (dict(zip(one.column("time"), one.column("value"), strict=True)) for one in answers)
        rows = [(earliest[at], offset[at], latest[at]) for at in offset]
    assert len(rows) > 100
    assert all(low <= middle <= high for low, middle, high in rows)
    (said,) = filled.ask("host", "Status of each source", language)
    assert {int(value) for value in said.column("last" if language == "influxql" else "value")} <= set(
        range(len(STATUSES))
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_bench_can_time_every_target(language: Language, filled: Filled) -> None:
    """Dashboard, panel, reference, seconds and series of each; what is folded only where it is wanted."""
    worst = tuple(sorted(filled.truth.critical))
    timed = timed_targets(filled.urls[language], language, filled.span, worst[0], worst, long_range=False)
    assert {board for board, *_ in timed} == set(BOARDS)
    assert not any("(long range)" in panel for _, panel, *_ in timed)
    assert [one for one in timed if one[-2] <= 0 or one[-1] > 36] == []  # one for each raised finding, low ones too


def test_choices_are_put_in_as_grafana_does() -> None:
    """Several values are an alternative, their special characters escaped twice where the language has texts."""
    chosen: Choices = {"site": ("a.b", "c/d")}
    span = Span(1, 2)
    assert fill_in("=~ /^${site:regex}$/", "influxql", span, 60, chosen) == r"=~ /^(a\.b|c\/d)$/"
    assert fill_in('=~"$site"', "promql", span, 60, chosen) == r'=~"(a\\.b|c\\/d)"'
    assert fill_in("$__interval $__interval_ms ${__to}ms", "influxql", span, 60, {}) == "60s 60000 2ms"
    with pytest.raises(ValueError, match="nothing is put in"):
        fill_in("$unknown", "promql", span, 60, chosen)

"""What the alert rules count, asked of real databases: first of all tests here, for a rule knows no time but now."""

import time
from collections.abc import Sequence

import pytest

from grafana.alerts import OWN_RULE, RULES, Rule
from grafana.queries import LANGUAGES, Language
from ntpaudit.core.units import NS_PER_S
from tests.grafana.replay import Span, ask_influxql, ask_promql
from tests.grafana.worlds import DISPUTED, JUDGED, Filled, Odd


def ask_rule(rule: Rule, language: Language, filled: Filled) -> dict[str, float]:
    """Return the number of each alert instance of a rule, by its only label."""
    url = filled.urls[language]
    if language == "influxql":
        answer = ask_influxql(url, rule.influxql.query)
    else:
        answer = ask_promql(url, rule.promql.query, {}, Span(0, time.time_ns() // 1_000_000), 60)
    labels = [name for name in answer.columns if name in ("site", "source")]
    assert answer.series == len(answer.rows), "an alert instance has one number"
    return {(row[answer.columns.index(labels[0])] if labels else ""): row[-1] for row in answer.rows}


@pytest.mark.parametrize("language", LANGUAGES)
def test_rules_fire_for_what_is_true(language: Language, filled: Filled) -> None:
    """Each rule's numbers are those of the story, by site, from a moment ago until now as the database knows it."""
    assert time.time_ns() - filled.span.end_ms * 1_000_000 < 400 * NS_PER_S, "the points are too old to say"
    found = filled.truth
    sites = {part.name: part.site for part in filled.story.hosts}

    def at_sites(names: frozenset[str], among: Sequence[str] = ("ams", "fra", "sgp")) -> dict[str, float]:
        return {site: sum(sites[name] == site for name in names) for site in among}

    kinds = {rule.name: at_sites(frozenset(), ()) for rule in RULES}
    for host, own in found.findings.items():
        for kind in own - set(OWN_RULE):
            kinds[kind][sites[host]] = kinds[kind].get(sites[host], 0) + 1
    wanted = kinds | {
        "critical": at_sites(found.critical),
        "unknown": at_sites(found.unmeasured),
        "silent": at_sites(found.silent),
        "no-data": {"": 24 - len(found.silent)},
        "step-back": {"fra": sum(step.host == "fra-app1" and step.size_s < 0 for step in found.stepped)},
        "shared-falseticker": {source: len(hosts) for source, hosts in found.shared_falsetickers.items()},
    }
    assert {rule.name: ask_rule(rule, language, filled) for rule in RULES} == wanted


@pytest.mark.parametrize("language", LANGUAGES)
def test_rules_fire_for_disputed_hosts(language: Language, disputed: Odd) -> None:
    """Disputed time is an alert; such hosts are not silent. InfluxQL's rule takes ten minutes to be sure."""
    rules = {rule.name: rule for rule in RULES}

    def number(name: str) -> float:
        rule, url = rules[name], disputed.urls[language]
        if language == "influxql":
            return float(ask_influxql(url, rule.influxql.query).rows[0][-1])
        return float(ask_promql(url, rule.promql.query, {}, disputed.span(), 60).rows[0][-1])

    late = {"ahead-just"} if language == "influxql" else set()
    dead = JUDGED["silent"] if language == "influxql" else set()  # for a day it is disputed, and not silent
    assert number("time-disputed") == len(DISPUTED - late | dead)
    assert number("silent") == len(JUDGED["silent"] - dead)
    known = JUDGED["critical"] - DISPUTED if language == "influxql" else JUDGED["critical"]
    assert number("critical") == len(known)
    assert number("unknown") == len(JUDGED["unknown"])

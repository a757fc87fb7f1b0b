"""The finding about log pipelines: which limits a wrong clock exceeds, and on which side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.checks.host import findings_of
from ntpaudit.core.checks.ingest import INGEST_RISK
from ntpaudit.core.ingest import PIPELINES
from ntpaudit.core.site_policy import SitePolicy
from tests.core.policies import offset_by
from tests.core.worlds import DAY, FOUR, HOUR, MS, S, case, failed

RULES = {"rule_interval_s": 300.0, "rule_lookback_s": 540.0}


def of(*pipelines: str, **more: float) -> SitePolicy:
    """Return the policy of a site whose logs go to these pipelines."""
    return SitePolicy(pipelines=pipelines, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offset_ns", "policy", "words"),
    [
        (-301 * S, of("loki"), "5.02 min ahead; Loki rejects events more than 10 min ahead"),
        (-61 * 60 * S, of("cloudwatch"), "CloudWatch Logs rejects events more than 2 h ahead"),
        (-31 * 60 * S, of("kafka"), "Kafka rejects"),
        (-25 * HOUR, of("splunk"), "Splunk gives events more than 2 days ahead the time of the last acceptable event"),
        (-61 * S, of("influxdb"), "InfluxDB hides points more than 2 min ahead"),
        (-61 * 60 * S, of("elastic"), "time series data streams"),
        (4 * DAY, of("loki"), "Loki rejects events more than 7 days behind"),
        (241 * S, of("elastic"), "rules of Elastic that run every 5 min over the last 9 min miss some"),
        (541 * S, of("elastic"), "never evaluate its events"),
        (211 * S, of("elastic", lag_s=30.0), "and events arrive up to 30 s late"),
        (241 * S, of("sentinel", **RULES), "detection rules that run every 5 min over the last 9 min miss"),
        (4 * S, of("sentinel", rule_interval_s=300.0, rule_lookback_s=300.0), "miss some of its events"),
    ],
)
def test_what_is_at_risk(offset_ns: int, policy: SitePolicy, words: str) -> None:
    """Half of a limit ahead; behind, with the lag, more than the rules overlap."""
    found = INGEST_RISK.check(offset_by(offset_ns, policy))
    assert found
    assert (found.level, words in found.message) == ("high", True), found.message


@pytest.mark.parametrize(
    ("offset_ns", "policy"),
    [
        (-299 * S, of("loki")),
        (299 * S, of("loki")),
        (-30 * DAY, of("sentinel")),
        (-(10**4) * S, SitePolicy()),
        (30 * DAY, of("kafka")),
        (239 * S, of("elastic")),
        (209 * S, of("elastic", lag_s=30.0)),
        (300 * S, of("elastic", rule_interval_s=300.0, rule_lookback_s=3600.0)),
        (300 * S, of("sentinel")),
        (2 * S, of("sentinel", rule_interval_s=300.0, rule_lookback_s=300.0)),
        (0, of(*PIPELINES, lag_s=600.0)),
        (-S, of(*PIPELINES)),
    ],
)
def test_what_is_not(offset_ns: int, policy: SitePolicy) -> None:
    """Below the limits, on the other side of them, and a lag that is not the clock's fault."""
    assert INGEST_RISK.check(offset_by(offset_ns, policy)) is None


def test_only_what_is_proven_counts() -> None:
    """The near end of the interval is compared; without a guaranteed offset nothing is."""
    policy = of("loki")
    assert INGEST_RISK.check(offset_by(-310 * S, policy, 900 * MS))
    assert INGEST_RISK.check(offset_by(-300 * S - 500 * MS, policy, 900 * MS)) is None
    assert INGEST_RISK.check(case(*map(failed, (1, 2, 3, 4)))._replace(site_policy=policy)) is None
    assert INGEST_RISK.check(case(FOUR[0], *map(failed, (2, 3, 4)))._replace(site_policy=policy)) is None


@given(st.sampled_from([*PIPELINES]), st.integers(-30 * DAY, 30 * DAY), st.integers(1, 10 * DAY))
def test_more_of_the_same_error_is_never_less_at_risk(name: str, offset_ns: int, more_ns: int) -> None:
    """A host that is further off in the same direction has no fewer harms."""
    policy = of(name, lag_s=10.0)
    further_ns = offset_ns + (more_ns if offset_ns > 0 else -more_ns)
    if INGEST_RISK.check(offset_by(offset_ns, policy)):
        assert INGEST_RISK.check(offset_by(further_ns, policy))


def test_it_is_listed_under_the_offset() -> None:
    """The wrong clock is the cause, and its finding counts."""
    found = {one.id: one.cause for one in findings_of(offset_by(-900 * S, of("loki")))}
    assert found["ingest-risk"] == "offset-out"

"""What log pipelines do to events whose time is wrong: their limits, as data."""

from typing import NamedTuple

from ntpaudit.core.units import DAY_S, HOUR_S


class Limit(NamedTuple):
    """How far an event's time may be from its arrival, and what the pipeline does beyond.

    `effect` has `{}` in place of the limit and its direction.
    """

    limit_s: float
    effect: str


class RuleWindow(NamedTuple):
    """How often detection rules run, and how far back they search."""

    interval_s: float
    lookback_s: float


class Pipeline(NamedTuple):
    """A pipeline that stores or searches logs, with its default limits.

    `ahead` and `behind` apply to events of a host that is ahead or behind; None: no limit is known. `rules` are its own
    detection rules. `source` is where the numbers are from. `is_documented`: its makers state them; else this project
    assumes them.
    """

    name: str
    title: str
    ahead: Limit | None
    behind: Limit | None
    source: str
    is_documented: bool = True
    rules: RuleWindow | None = None


_REJECTS = "rejects events more than {}"
_STAMPS = "gives events more than {} the time of the last acceptable event"
PIPELINES = {
    pipeline.name: pipeline
    for pipeline in (
        Pipeline(
            "loki",
            "Loki",
            Limit(600.0, _REJECTS),
            Limit(7 * DAY_S, _REJECTS),
            "limits_config: creation_grace_period, reject_old_samples_max_age",
        ),
        Pipeline(
            "cloudwatch", "CloudWatch Logs", Limit(2.0 * HOUR_S, _REJECTS), Limit(14 * DAY_S, _REJECTS), "PutLogEvents"
        ),
        Pipeline(
            "splunk",
            "Splunk",
            Limit(2 * DAY_S, _STAMPS),
            Limit(2000 * DAY_S, _STAMPS),
            "props.conf: MAX_DAYS_HENCE, MAX_DAYS_AGO",
        ),
        Pipeline(
            "elastic",
            "Elastic",
            Limit(2.0 * HOUR_S, "rejects events of time series data streams more than {}"),
            None,
            "index.look_ahead_time (30 min in some versions); the schedule of the prebuilt detection rules",
            is_documented=False,
            rules=RuleWindow(300.0, 540.0),
        ),
        Pipeline("sentinel", "Microsoft Sentinel", None, None, "scheduled rules have no default that fits all sites"),
        Pipeline("kafka", "Kafka", Limit(1.0 * HOUR_S, _REJECTS), None, "message.timestamp.after.max.ms of Kafka 4"),
        Pipeline(
            "influxdb",
            "InfluxDB",
            Limit(120.0, "hides points more than {} until that time comes"),
            None,
            "a query without an end ends now; the limit is where this project begins to count that as harm",
            is_documented=False,
        ),
    )
}
"""Every known pipeline, by its name in the configuration."""

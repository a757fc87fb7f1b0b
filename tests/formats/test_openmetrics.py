"""The metrics are valid as OpenMetrics and as the text format of node_exporter, and are the record's values."""

import re

import pytest
from hypothesis import given
from prometheus_client import parser as classic
from prometheus_client.openmetrics import parser as openmetrics

from ntpaudit.core.record import Record
from ntpaudit.formats.openmetrics import render
from tests.outputs.agent import SAME, agent_records, by_agent
from tests.records import CASES, records

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Samples:
    """Read by both parsers, which must agree, and return every sample."""
    readings = []
    for parse in (openmetrics.text_string_to_metric_families, classic.text_string_to_metric_families):
        samples: Samples = {}
        for family in parse(text):
            assert family.type == "gauge"
            assert family.documentation
            for sample in family.samples:
                assert sample.timestamp is None
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in samples
                samples[key] = sample.value
        readings.append(samples)
    assert readings[0] == readings[1]
    return readings[0]


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """Return one sample, or None where there is none."""
    return samples.get((f"ntpaudit_{name}", frozenset(labels.items())))


@given(records() | agent_records())
def test_both_parsers_read_any_record(record: Record) -> None:
    """Whatever was seen, both parsers read the same values, and they are the record's."""
    text = render(record)
    assert text.endswith("# EOF\n")
    samples = read(text)
    assert value(samples, "severity") == record.severity
    assert value(samples, "verdict", verdict=record.verdict) == 1
    assert value(samples, "offset_seconds") == (record.offset and record.offset.estimate_s)
    assert value(samples, "bound_seconds") == (record.offset and record.offset.bound_s)
    assert value(samples, "kernel_maxerror_seconds") == record.kernel.get("maxerror_s")
    assert value(samples, "sources") == len(record.sources)
    assert (value(samples, "time_seconds") is None) == (record.utc_ns is None)
    assert {dict(labels)["id"] for name, labels in samples if name == "ntpaudit_finding"} == {
        finding.id for finding in record.findings
    }


@pytest.mark.parametrize("case", CASES)
def test_metadata_come_before_samples(case: str) -> None:
    """Of each metric there is help, type and, if it has one, its unit, in this order and once, before any sample."""
    seen: list[str] = []
    for line in render(CASES[case]).splitlines()[:-1]:
        if line.startswith("# HELP "):
            assert line.split()[2] not in seen
            seen.append(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {seen[-1]} gauge"
        elif line.startswith("# UNIT "):
            assert line == f"# UNIT {seen[-1]} seconds"
        else:
            assert re.split("[{ ]", line)[0] == seen[-1]


def test_what_only_an_agent_knows() -> None:
    """An agent's file has its own state and the drift of the clock; a check's file has neither, nor unknown values."""
    agent = by_agent(SAME)
    ours = read(render(agent))
    by_agent_only = {
        name: sample for (name, labels), sample in ours.items() if (name, labels) not in read(render(SAME))
    }
    assert by_agent_only == {
        "ntpaudit_age_seconds": 61.5,
        "ntpaudit_missed_audits": 2,
        "ntpaudit_backlog_records": 7,
        "ntpaudit_backlog_age_seconds": 420.5,
        "ntpaudit_delivery_failures": 3,
        "ntpaudit_set_aside_records": 0,
        "ntpaudit_frequency_ppm": 12.25,
        "ntpaudit_skew_ppm": 0.75,
        "ntpaudit_breach_pessimistic_seconds": 3600,
        "ntpaudit_breach_guaranteed_seconds": 20_000,
    }
    assert agent.drift is not None
    breach = agent.drift.breach._replace(pessimistic_s=None)
    unknown = read(render(by_agent(SAME, drift=agent.drift._replace(frequency_ppm=None, breach=breach))))
    assert value(unknown, "frequency_ppm") is None
    assert value(unknown, "breach_pessimistic_seconds") is None


def test_sources() -> None:
    """Each source has its offset, its delay and, of all statuses, exactly its own."""
    samples = read(render(CASES["every status"]))
    assert value(samples, "source_offset_seconds", source="ntp9.example.net") == pytest.approx(-37)
    assert value(samples, "source_delay_seconds", source="ntp2.example.net") == pytest.approx(0.004)
    assert value(samples, "source_delay_seconds", source="ntp6.example.net") is None
    statuses = {
        dict(labels)["source"]: dict(labels)["status"]
        for (name, labels), sample in samples.items()
        if name == "ntpaudit_source_status" and sample == 1
    }
    assert statuses == {source.name: source.status for source in CASES["every status"].sources}


def test_unmeasured() -> None:
    """Of an audit without a measurement there is neither an offset nor a time, but its severity and its verdict."""
    samples = read(render(CASES["unmeasured, no reply"]))
    assert value(samples, "severity") == 2
    assert value(samples, "verdict", verdict="unmeasured") == 1
    assert value(samples, "verdict", verdict="within") == 0
    assert not [name for name, _ in samples if "offset" in name or "bound" in name or "time" in name]
    assert value(samples, "tolerance_seconds", level="critical") == 1
    assert value(samples, "finding", id="unreachable-sources", level="medium") == 1
    assert value(samples, "build_info", version="0.1.0") == 1


def test_labels_are_escaped() -> None:
    """Quotes and backslashes come back as they were, and a line break as a blank."""
    samples = read(render(CASES["strange names"]))
    names = {dict(labels)["source"] for name, labels in samples if name == "ntpaudit_source_offset_seconds"}
    assert names == {'a "b" c', "back\\slash\\", "new line|bar, a=b", "ü.example [2J"}

"""The headline says how wrong the clock is, in one true sentence."""

import re

import pytest
from hypothesis import given

from ntpaudit.core.policy import Severity
from ntpaudit.core.record import LastPoll, Record
from ntpaudit.core.selection import SourceCounts
from ntpaudit.formats.summary import summary
from tests.records import CASES, records

UNMEASURED = "clock was not measured: "
SENTENCES = {
    "ok, behind": "clock is 1.92 ms behind, at most 5.86 ms wrong if at most 1 of 4 servers is wrong "
    "(4 of 4 servers agree)",
    "ok, ahead": "clock is 12.3 ms ahead, at most 16.3 ms wrong if at most 1 of 4 servers is wrong "
    "(4 of 4 servers agree)",
    "ok, in nanoseconds": "clock is 16.7 µs behind, at most 3.96 ms wrong if at most 1 of 4 servers is wrong "
    "(4 of 4 servers agree)",
    "ok, one silent": "clock is 1.92 ms behind, at most 5.86 ms wrong if at most 1 of 5 servers is wrong "
    "(4 of 5 servers agree, 1 did not reply)",
    "ok, leap second": "clock is 1.92 ms behind, at most 5.86 ms wrong if at most 1 of 4 servers is wrong "
    "(4 of 4 servers agree)",
    "ok, falseticker": "clock is 1.92 ms behind, at most 4.76 ms wrong if at most 1 of 5 servers is wrong "
    "(4 of 5 servers agree, 1 disagrees)",
    "ok, reference clocks": "clock is 70 µs behind, at most 640 µs wrong if at most 1 of 4 servers is wrong "
    "(4 of 4 servers agree)",
    "ok, IPv6": "clock is 1.9 ms behind, at most 4.86 ms wrong if at most 1 of 4 servers is wrong "
    "(4 of 4 servers agree)",
    "ok, pool": "clock is 1.92 ms behind, at most 5.86 ms wrong if at most 1 of 4 servers is wrong "
    "(4 of 4 servers agree)",
    "ok, warned": "clock is 1.93 ms behind, at most 4.96 ms wrong if at most 1 of 5 servers is wrong "
    "(5 of 5 servers agree); finding: source-quorum",
    "ok, kernel not asked": "clock is 1.92 ms behind, at most 5.86 ms wrong if at most 1 of 4 servers is wrong "
    "(4 of 4 servers agree)",
    "over the warning tolerance": "clock is 151 ms behind, over the warning tolerance of 100 ms, "
    "at most 154 ms wrong if at most 1 of 4 servers is wrong "
    "(4 of 4 servers agree)",
    "over the warning tolerance by its bound": "clock is 1.95 ms behind, at most 64.4 ms wrong, "
    "over the warning tolerance of 50 ms "
    "(4 of 4 servers agree)",
    "finding": "clock is 1.92 ms behind, at most 5.86 ms wrong if at most 1 of 4 servers is wrong "
    "(4 of 4 servers agree); finding: unsynced",
    "findings": "clock is 1.92 ms behind, at most 5.86 ms wrong if at most 1 of 5 servers is wrong "
    "(4 of 5 servers agree, 1 was rejected); 2 findings, worst unsynced",
    "one server": "clock is 1.8 ms behind, at most 4.76 ms wrong if no server is wrong "
    "(one server only); finding: source-quorum",
    "one usable": "clock is 1.8 ms behind, at most 4.76 ms wrong if no server is wrong "
    "(only 1 of 3 servers was usable, 1 was rejected, 1 did not reply); finding: source-quorum",
    "three servers, two agree": "clock is 1.8 ms behind, at most 4.76 ms wrong if at most 1 of 3 servers is wrong "
    "(2 of 3 servers agree, 1 disagrees); finding: source-quorum",
    "unproven, estimate within": "clock is 400 ms behind (estimate), "
    "at most 1.31 s wrong: not proven to be within 1 s "
    "(4 of 4 servers agree)",
    "unproven, estimate beyond": "clock is 1.2 s ahead (estimate), "
    "at most 1.71 s wrong: neither within nor beyond 1 s is proven "
    "(4 of 4 servers agree)",
    "beyond, ahead": "clock is at least 36.9 s ahead if at most 1 of 4 servers is wrong "
    "(estimate 37 s; 3 of 4 servers agree, 1 disagrees)",
    "beyond, behind": "clock is at least 44.9 min behind if at most 1 of 4 servers is wrong "
    "(estimate 45 min; 4 of 4 servers agree)",
    "beyond, hours": "clock is at least 2 h behind if at most 1 of 4 servers is wrong "
    "(estimate 2 h; 4 of 4 servers agree)",
    "beyond, days": "clock is at least 12.4 days ahead if at most 1 of 4 servers is wrong "
    "(estimate 12.5 days; 4 of 4 servers agree)",
    "1970": "clock is at least 56.8 years behind if at most 1 of 4 servers is wrong "
    "(estimate 56.9 years; 4 of 4 servers agree)",
    "finra-cat, within": "clock is 3.98 ms ahead, at most 7.96 ms wrong if at most 1 of 4 servers is wrong "
    "(4 of 4 servers agree)",
    "mifid, unproven": "clock is 6.84 µs behind (estimate), "
    "at most 3.97 ms wrong: not proven to be within 100 µs "
    "(4 of 4 servers agree)",
    "no server": f"{UNMEASURED}there is no server to query",
    "unmeasured, no reply": f"{UNMEASURED}none of 4 servers replied (timeout)",
    "unmeasured, the only one silent": f"{UNMEASURED}the only server refused the query (refused)",
    "unmeasured, the only one unusable": f"{UNMEASURED}the only server was not usable (unsync)",
    "unmeasured, the only name unknown": f"{UNMEASURED}the only server has no known address (name not found)",
    "unmeasured, no name resolved": f"{UNMEASURED}none of 2 servers has a known address (DNS timeout)",
    "unmeasured, mixed": f"{UNMEASURED}none of 3 servers replied (2 timeout, 1 name not found)",
    "unmeasured, unusable": f"{UNMEASURED}none of 4 servers was usable (1 kod:RATE, 1 unsync, 1 timeout, 1 distant)",
    "unmeasured, no majority": f"{UNMEASURED}2 servers replied, but no majority of them agrees",
    "unmeasured, no majority of the usable": f"{UNMEASURED}2 of 3 servers were usable, but no majority of them agrees",
    "unmeasured, asked lately": f"{UNMEASURED}all servers were skipped (polled too recently)",
    "unmeasured, backed off": f"{UNMEASURED}all servers were skipped (1 kod:DENY, 1 no reply last time)",
    "unmeasured, two daemons": f"{UNMEASURED}there is no server to query",
    "every status": "clock is 1.9 ms behind, at most 5.86 ms wrong if at most 2 of 9 servers are wrong "
    "(4 of 9 servers agree, 1 disagrees, 1 is too distant, 1 was rejected, 1 has no known address, "
    "1 was skipped); finding: kiss-of-death",
    "long names": "clock is 1.92 ms behind, at most 4.76 ms wrong if at most 1 of 6 servers is wrong "
    "(4 of 6 servers agree, 1 disagrees, 1 was rejected)",
    "strange names": "clock is 1.92 ms behind, at most 5.86 ms wrong if at most 1 of 4 servers is wrong "
    "(4 of 4 servers agree)",
}

SCALES = {
    "ns": 1e-9,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "days": 86_400.0,
    "years": 365.25 * 86_400,
}


def spans(sentence: str, before: str) -> list[float]:
    """Read back, in seconds, every span that follows some words."""
    return [
        float(number) * SCALES[unit]
        for number, unit in re.findall(re.escape(before) + r"([0-9.]+) ([a-zµ]+)", sentence)
        if unit in SCALES  # and not "at most 1 of 4 servers"
    ]


def test_every_case_has_its_sentence() -> None:
    """No case of the factory is left without a sentence to hold it to."""
    assert list(SENTENCES) == list(CASES)


@pytest.mark.parametrize("case", SENTENCES)
def test_each_outcome_has_its_words(case: str) -> None:
    """Each outcome has exactly this text."""
    assert summary(CASES[case]) == SENTENCES[case]


def test_severity_of_a_later_version() -> None:
    """A record that is worse than anything in it explains never reads as if all were well."""
    assert summary(CASES["ok, behind"]._replace(severity=Severity.CRITICAL)) == (
        SENTENCES["ok, behind"] + "; critical for a reason that this version does not know"
    )


@given(records())
def test_no_sentence_claims_more_than_the_record(record: Record) -> None:
    """A shown maximum is not below the record's, a shown minimum not above it; directions are the estimate's."""
    sentence = summary(record)
    assert ("clock was not measured" in sentence) == (record.offset is None)
    if record.offset is not None:
        slack = 1e-9 * record.offset.bound_s
        bounds = spans(sentence, "at most ")
        assert len(bounds) == (record.verdict != "beyond" and record.agreement.guaranteed)
        assert all(bound >= record.offset.bound_s - slack for bound in bounds)
        least_s = max(record.offset.earliest_s, -record.offset.latest_s)
        assert all(least <= least_s + slack for least in spans(sentence, "at least "))
        assert [word for word in ("behind", "ahead") if word in sentence] == [record.offset.direction]


OUTAGE = CASES["ok, behind"]._replace(
    age_s=439.0, sources=CASES["unmeasured, no reply"].sources, agreement=SourceCounts(4, 0, 0, 1, asked=4)
)


@pytest.mark.parametrize(
    ("record", "measured"),
    [
        (OUTAGE, "measured 7.32 min ago; this poll gave no measurement: 0 of 4 servers agree, 4 did not reply"),
        (
            OUTAGE._replace(sources=CASES["unmeasured, asked lately"].sources, last_poll=LastPoll(125.0, 4, 0, 0)),
            "measured 7.32 min ago; the poll 2.08 min ago gave no measurement",
        ),
        (
            CASES["ok, behind"]._replace(age_s=439.0, kind="local", sources=(), last_poll=LastPoll(125.0, 4, 0, 0)),
            "measured 7.32 min ago; the poll 2.08 min ago gave no measurement",
        ),
        (
            CASES["ok, behind"]._replace(age_s=439.0, kind="local", sources=(), last_poll=LastPoll(439.0, 4, 4, 4)),
            "measured 7.32 min ago, 4 of 4 servers agreed",
        ),
    ],
)
def test_the_last_measurement_and_the_last_poll_are_distinct(record: Record, measured: str) -> None:
    """In one outage each record says when the clock was measured, and that the last poll measured nothing."""
    assert summary(record).endswith(f"({measured})")


def test_servers_that_did_not_reply_last_time_are_the_reason() -> None:
    """Where every server is skipped for that reason, the sentence does not blame the skipping."""
    record = CASES["unmeasured, asked lately"]
    unanswered = record._replace(sources=tuple(one._replace(reason="unanswered") for one in record.sources))
    assert summary(unanswered).endswith("no server replied last time, so none was queried now")

"""An evidence report as one JSON object, and the hashes that identify it. Its schema is docs/evidence.schema.json."""

import json
from hashlib import sha256
from typing import Any, NamedTuple

from ntpaudit.core.evidence.hosts import end_of
from ntpaudit.core.evidence.model import Balance, HostResult
from ntpaudit.core.evidence.report import EvidenceReport, ExceptionResult, share
from ntpaudit.reports import evidence_csv
from ntpaudit.reports.evidence_csv import utc

SCHEMA = "ntpaudit.evidence/1"


class Made(NamedTuple):
    """When and by which version a report was written: all that differs between two reports of the same data (EV4)."""

    utc: str
    version: str


def render(report: EvidenceReport, made: Made) -> str:
    """Write the report; times are UTC, durations and errors in seconds."""
    data = {"schema": SCHEMA, "made": made._asdict(), "manifest": manifest(report), "content": content(report)}
    return json.dumps(data, allow_nan=False, indent=1) + "\n"


def render_manifest(report: EvidenceReport, made: Made) -> str:
    """Write the manifest alone, which goes with the tables."""
    data = {"schema": SCHEMA, "made": made._asdict(), "manifest": manifest(report)}
    return json.dumps(data, allow_nan=False, indent=1) + "\n"


def manifest(report: EvidenceReport) -> dict[str, str | None]:
    """Return SHA-256 of the report's content, of each table of it, of the files it was made of, and the previous one.

    The content is hashed as `json.dumps(content, sort_keys=True, separators=(",", ":"))` of Python writes it.
    """
    tables = {name: _sha256(text) for name, text in evidence_csv.render(report).items()}
    return {
        "content": _sha256(canonical(content(report))),
        **tables,
        **report.hashes,
        "previous report": report.previous,
    }


def canonical(value: Any) -> str:
    """Write JSON in the only way that is hashed: sorted keys, no spaces, ASCII."""
    return json.dumps(value, allow_nan=False, sort_keys=True, separators=(",", ":"))


def content(report: EvidenceReport) -> dict[str, Any]:
    """Return all that the report says, part by part in its order."""
    return {
        "period": {**_plain(report.period), "length_s": report.period.length_s},
        "source": report.source,
        "answer": list(report.answer),
        "exit_status": report.exit_status,
        "scope": _plain(report.scope),
        "method": list(report.method),
        "assumptions": list(report.assumptions),
        "uncertainty": report.uncertainty,
        "tolerance": list(report.tolerance),
        "all_hosts": _balance(report.balance),
        "hosts": [_host(one) for one in report.hosts],
        "not_in_inventory": [_host(one) for one in report.unlisted],
        "exceptions": [_exception(one) for one in report.exceptions],
        "clauses": [_plain(one) for one in report.clauses],
        "verification": [_plain(one) for one in report.checks],
        "limits": list(report.limits),
    }


_TIMES = {name: name.removesuffix("_s") for name in ("begin_s", "end_s", "utc_s", "first_s", "last_s", "bound_at_s")}
"""The fields that are times, and their names as RFC 3339."""


def _host(one: HostResult) -> dict[str, Any]:
    data: dict[str, Any] = _plain(one)
    del data["covered_s"]
    return data | {"result": one.result, "balance": _balance(one.balance)}


def _exception(one: ExceptionResult) -> dict[str, Any]:
    acceptance, until_s = one.exception.acceptance, end_of(one.exception)
    return {
        "finding": acceptance.finding,
        "reason": acceptance.reason,
        "by": acceptance.by,
        "until": None if until_s is None else utc(until_s),
        "host": one.exception.host,
        "site": one.exception.site,
        "hosts": one.hosts,
        "covered_s": one.covered_s,
        "note": one.note,
    }


def _balance(balance: Balance) -> dict[str, Any]:
    return {
        "length_s": balance.length_s,
        "counted_s": balance.counted_s,
        "within_share": share(balance.spans.within, balance.counted_s),
        "spans_s": balance.spans._asdict(),
        "excepted_s": balance.excepted._asdict(),
    }


def _plain(value: Any) -> Any:
    """Turn a value into dicts, lists, texts and numbers; times become texts."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {
            _TIMES.get(name, name): utc(part) if name in _TIMES and part is not None else _plain(part)
            for name, part in value._asdict().items()
        }
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _sha256(text: str) -> str:
    return sha256(text.encode()).hexdigest()

"""An evidence report as PDF, by WeasyPrint from the page of `evidence_page`. Nothing is loaded."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from ntpaudit.core.evidence.report import EvidenceReport
from ntpaudit.errors import OutputError
from ntpaudit.reports import evidence_page
from ntpaudit.reports.evidence_json import Made

MOST_HOSTS = 500  # the worst; a page takes 20 ms, and all hosts are in the tables as CSV


def render(report: EvidenceReport, made: Made) -> bytes:
    """Return the PDF. The same values, fonts and version of WeasyPrint give the same bytes. OutputError without it."""
    weasyprint = _weasyprint()
    page = evidence_page.render(report, made, most_hosts=MOST_HOSTS)
    with _without_time():
        pdf = weasyprint.HTML(string=page, url_fetcher=_refuse).write_pdf(pdf_identifier=sha256(page.encode()).digest())
    return bytes(pdf)


@contextmanager
def _without_time() -> Iterator[None]:
    """Keep the time of day out of the fonts (fontTools reads this variable)."""
    name = "SOURCE_DATE_EPOCH"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _weasyprint() -> Any:
    try:
        import weasyprint
    except ImportError as error:
        raise OutputError("WeasyPrint is missing", "pip install 'ntpaudit[pdf]', or use --format html") from error
    except OSError as error:  # it finds no Pango
        fix = "install Pango (Debian: libpango-1.0-0 libpangoft2-1.0-0), or use --format html"
        raise OutputError(f"WeasyPrint cannot be loaded: {error}", fix) from error
    return weasyprint


def _refuse(url: str, *_: object, **__: object) -> Any:
    raise ValueError(f"nothing is loaded: {url}")

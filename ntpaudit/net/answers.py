"""HTTP answers for people: why a request was refused, and the fix for a failure of TLS."""

import json

from ntpaudit.render.text_safety import one_line

MAX_REASON = 300  # the longest text of a server in a message, in characters
REDIRECTED = "X-Redirected-To"  # an answer's Location by another name, so that no HTTP library follows it


def tls_fix(reason: str, table: str = "influxdb") -> str:
    """Return the fix for a failure of TLS, with the keys of a table of the configuration."""
    if "expired" in reason or "not yet valid" in reason:
        return "the certificate's dates are checked by this host's clock: correct the clock, or renew the certificate"
    if "mismatch" in reason or "not valid for" in reason:
        return f"the certificate is another server's: check {table}.url"
    if "certificate" in reason:
        return f"name the authority that signed the server's certificate in {table}.ca_file"
    return f"check {table}.url and {table}.ca_file"


def reason_of(body: str) -> str:
    """Return the reason in the body of a refusal, as InfluxDB writes it, or the title of a web page; else the body."""
    if body[:_BEGIN].lstrip().lower().startswith(_HTML):
        return _describe_page(body[:_BEGIN])
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(read, dict):
        return body
    reason = read.get("message") or read.get("error")
    match read.get("data"):
        case [{"error_message": str(first)}, *_]:
            reason = f"{reason}: {first}"
    return reason if isinstance(reason, str) else body


def clean(text: str, token: str | None) -> str:
    """Make a server's text safe for one line of a message, without the token if the server echoes it."""
    return one_line(text.replace(token, "***") if token else text).strip()[:MAX_REASON]


def date_in_s(date: str | None) -> float | None:
    """Return the Date of an answer (RFC 9110 §5.6.7) in seconds since 1970; None if there is none, or it is invalid."""
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    if date is None:
        return None
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


WEB_PAGE = "a web page"  # the description of an answer that is a web page begins so
_HTML = ("<!doctype html", "<html")
_BEGIN = 4096  # octets: a title is near the beginning of a page


def _describe_page(html: str) -> str:
    from html import unescape

    place = html.lower().find("<title")
    title = html[place:].partition(">")[2].partition("<")[0] if place >= 0 else ""
    title = " ".join(unescape(title).split())
    return f"{WEB_PAGE}, {title!r}" if title else WEB_PAGE

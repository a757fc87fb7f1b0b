"""What an HTTP answer means to a person: why a request was refused, and how to repair a failure of TLS."""

import json

REDIRECTED = "X-Redirected-To"
"""An answer's Location by another name, so that no HTTP library follows it or fails on it."""


def tls_fix(reason: str, table: str = "influxdb") -> str:
    """Say what would mend a failure of TLS, in the words of a table of the configuration."""
    if "expired" in reason or "not yet valid" in reason:
        return "the certificate's dates are judged by this host's clock: set that right, or renew the certificate"
    if "mismatch" in reason or "not valid for" in reason:
        return f"the certificate is another server's: check {table}.url"
    if "certificate" in reason:
        return f"name the authority that signed the server's certificate in {table}.ca_file"
    return f"check {table}.url and {table}.ca_file"


def reason_of(body: str) -> str:
    """Return why a write was refused, from the answer's body as InfluxDB 1.x, 2.x and 3.x write it, else the body.

    Of a web page, which other servers and proxies answer, only what it is called.
    """
    if body[:_BEGIN].lstrip().lower().startswith(_HTML):
        return _page_of(body[:_BEGIN])
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(read, dict):
        return body
    said = read.get("message") or read.get("error")
    match read.get("data"):
        case [{"error_message": str(first)}, *_]:
            said = f"{said}: {first}"
    return said if isinstance(said, str) else body


WEB_PAGE = "a web page"
"""So what is told of an answer begins where that is made for people."""

_HTML = ("<!doctype html", "<html")
_BEGIN = 4096  # a title stands near the begin of a page


def _page_of(html: str) -> str:
    """Say that something is a web page, and its title."""
    from html import unescape

    place = html.lower().find("<title")
    title = html[place:].partition(">")[2].partition("<")[0] if place >= 0 else ""
    said = " ".join(unescape(title).split())
    return f"{WEB_PAGE}, {said!r}" if said else WEB_PAGE

"""Time stamps of RFC 3161: an authority signs over HTTP when it received a hash; anybody can check that later."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from ntpaudit.errors import AnchorError
from ntpaudit.net import deadline
from ntpaudit.net.answers import clean, reason_of

if TYPE_CHECKING:
    from http.client import HTTPConnection

    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampRequest, TimeStampResponse

TIMEOUT_S = 10.0
MAX_REPLY = 65_536  # octets: a token with a chain of certificates has 10,000 at most
MAX_ACCURACY_S = 86_400.0
RESOLUTION_S = 1.0  # of genTime, where a token states no accuracy

_KEY, _ROOTS_KEY = "evidence.tsa", "evidence.tsa_roots"
_EXTRA = "install ntpaudit with its extra evidence, as docs/anchors.md says"
_STATUSES = ("granted", "granted with changes", "rejected", "waiting", "revocation warning", "revoked")  # §2.4.2
_REASONS = {
    "Nonce mismatch": ("the reply is to another request", "retry; a proxy may repeat earlier replies"),
    "Mismatch between messages": ("the time stamp is of other data", "check that root and time stamp belong together"),
}


class TimeStamp(NamedTuple):
    """What a valid token states: `authority` is the subject of the signer's certificate, `policy` a dotted OID.

    The authority had the data at `time_s` (seconds since 1970, UTC), give or take `accuracy_s`; None: not stated.
    """

    authority: str
    time_s: float
    accuracy_s: float | None
    policy: str
    serial: int

    @property
    def latest_s(self) -> float:
        """The data existed before this."""
        return self.time_s + (RESOLUTION_S if self.accuracy_s is None else self.accuracy_s)


def require_library() -> None:
    """Raise AnchorError, with the fix, if the libraries of the extra are not installed."""
    try:
        import cryptography  # noqa: F401
        import rfc3161_client  # noqa: F401
    except ImportError as error:
        raise AnchorError(f"{error.name} is not installed", _EXTRA) from error


def read_roots(pem: bytes, path: str) -> "tuple[Certificate, ...]":
    """Return the certificates of a PEM file, by whose owners all chains must end. AnchorError if there are none."""
    require_library()
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return tuple(load_pem_x509_certificates(pem))
    except ValueError as error:
        raise AnchorError(
            f"{path}: no certificate can be read", f"name a PEM file with the authority's root in {_ROOTS_KEY}"
        ) from error


def request_for(data: bytes) -> "TimeStampRequest":
    """Return a request for the SHA-256 of some data, with a new random nonce, that asks for all certificates."""
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    return (
        TimestampRequestBuilder()
        .data(data)
        .hash_algorithm(HashAlgorithm.SHA256)
        .cert_request(cert_request=True)
        .build()
    )


def stamp(url: str, data: bytes, roots: "Sequence[Certificate]", timeout_s: float = TIMEOUT_S) -> bytes:
    """Return the authority's reply, in DER, after it has been verified. AnchorError names the fix."""
    request = request_for(data)
    reply = _post(url, request.as_bytes(), timeout_s)
    try:
        verify(reply, data, roots, request.nonce)
    except AnchorError as error:
        raise AnchorError(f"{url}: {error.reason}", error.remedy) from error
    return reply


def verify(reply: bytes, data: bytes, roots: "Sequence[Certificate]", nonce: int | None = None) -> TimeStamp:
    """Return what a reply proves about the data; with a nonce, it must be the reply to that request.

    The signature must lead to one of the roots, by certificates that are in the reply and were valid at the token's
    time; the signer's must be for time stamps alone. Whether one was revoked is not checked. AnchorError otherwise.
    """
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    if not roots:
        raise AnchorError("no root certificate is trusted", f"name the authority's in {_ROOTS_KEY}")
    try:
        read = decode_timestamp_response(in_der_order(reply))
    except ValueError as error:
        raise AnchorError("this is no time-stamp reply of RFC 3161", f"check {_KEY}") from error
    if read.status != 0:
        raise _refused(read)
    try:
        verifier = VerifierBuilder(roots=[*roots], nonce=nonce).build()
        verifier.verify_message(read, data)
        return _time_stamp(read)
    except (VerificationError, ValueError) as error:
        raise _invalid(str(error)) from error


def in_der_order(reply: bytes) -> bytes:
    """Sort the certificates in a reply as DER asks for; rfc3161-client refuses another order, which OpenSSL writes.

    The order means nothing, and no signature covers it. Octets that are no such reply are returned as they are.
    """
    # TimeStampResp, ContentInfo after the status, [0], SignedData; in it the certificates are [0] after three others
    place: tuple[int, int] | None = (0, len(reply))
    for skipped, tag in ((0, 0x30), (1, 0x30), (1, 0xA0), (0, 0x30), (3, 0xA0)):
        place = place and _inner(reply, *place, skipped, tag)
    if place is None:
        return reply
    begin, end = place
    return reply[:begin] + b"".join(sorted(_elements(reply, begin, end))) + reply[end:]


def _inner(data: bytes, begin: int, end: int, skipped: int, tag: int) -> tuple[int, int] | None:
    """Return where the content of an element is, if it has this tag."""
    elements = list(_elements(data, begin, end))
    if len(elements) <= skipped or elements[skipped][0] != tag:
        return None
    begin += sum(map(len, elements[:skipped]))
    return begin + _head(data, begin)[0], begin + len(elements[skipped])


def _elements(data: bytes, begin: int, end: int) -> Iterator[bytes]:
    while begin < end:
        head, length = _head(data, begin)
        yield data[begin : begin + head + length]
        begin += head + length


def _head(data: bytes, at: int) -> tuple[int, int]:
    """Return the length of an element's head, and of its content."""
    length = data[at + 1] if at + 1 < len(data) else 0
    if length < 0x80:
        return 2, length
    more = length & 0x7F
    return 2 + more, int.from_bytes(data[at + 2 : at + 2 + more])


def _time_stamp(read: "TimeStampResponse") -> TimeStamp:
    from cryptography.x509 import load_der_x509_certificate

    info, (signer,) = read.tst_info, read.signed_data.signer_infos
    certificates = map(load_der_x509_certificate, read.signed_data.certificates)
    authority = next(
        one.subject for one in certificates if (one.issuer, one.serial_number) == (signer.issuer, signer.serial_number)
    )
    stated = info.accuracy
    accuracy_s = (stated.seconds or 0) + (stated.millis or 0) / 1e3 + (stated.micros or 0) / 1e6 if stated else None
    if accuracy_s and accuracy_s > MAX_ACCURACY_S:
        raise AnchorError(
            f"the time stamp is of any time within {accuracy_s:g} s", f"choose another authority in {_KEY}"
        )
    policy = info.policy.dotted_string
    return TimeStamp(authority.rfc4514_string(), info.gen_time.timestamp(), accuracy_s, policy, info.serial_number)


def _invalid(reason: str) -> AnchorError:
    """Return the error for a reason of rfc3161-client, which has that of OpenSSL in it."""
    if found := _REASONS.get(reason):
        return AnchorError(*found)
    verifying = re.search(r'Verify error: ([^"]*)"', reason)
    reason = clean(verifying[1] if verifying else reason, None)
    is_dated = "expired" in reason or "not yet valid" in reason
    fix = "ask the authority to renew it" if is_dated else f"name the authority's root certificate in {_ROOTS_KEY}"
    return AnchorError(f"the signer's certificate is not valid at the time of the time stamp: {reason}", fix)


def _refused(read: "TimeStampResponse") -> AnchorError:
    status = _STATUSES[read.status] if 0 <= read.status < len(_STATUSES) else str(read.status)
    said = clean("; ".join(read.status_string), None)
    return AnchorError(
        f"the authority did not grant a time stamp: {status}{said and f', {said}'}",
        "ask the authority whether it accepts SHA-256 and your address",
    )


def _post(url: str, body: bytes, timeout_s: float) -> bytes:
    """Send a query to a URL, and return the body of the answer. AnchorError unless its status is 200.

    No proxy is used, and no redirect is followed.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
    with _http_errors(url, timeout_s):
        connection = _connection(parts.scheme, parts.hostname or "", parts.port, timeout_s)
        try:
            connection.connect()
            sock = connection.sock  # which the connection forgets where the server will close
            with deadline.cut_after(timeout_s, lambda: sock):
                connection.request("POST", target, body, {"User-Agent": "ntpaudit", **headers})
                with connection.getresponse() as answer:
                    read = answer.read(MAX_REPLY)
        finally:
            connection.close()
    if answer.status == 200:
        return read
    where = f" to {clean(answer.headers['Location'], None)}" if "Location" in answer.headers else ""
    why = where or f": {clean(reason_of(read.decode(errors='replace')), None) or answer.reason}"
    raise AnchorError(f"{url}: replies {answer.status}{why}", f"check the URL in {_KEY}")


def _connection(scheme: str, host: str, port: int | None, timeout_s: float) -> "HTTPConnection":
    from http.client import HTTPConnection, HTTPSConnection

    from ntpaudit.net.whole_response import WholeResponse

    made = (HTTPSConnection if scheme == "https" else HTTPConnection)(host, port, timeout=timeout_s)
    made.response_class = WholeResponse
    return made


@contextmanager
def _http_errors(url: str, timeout_s: float) -> Iterator[None]:
    import ssl
    from http.client import HTTPException
    from socket import gaierror

    fix = f"check {_KEY}, and the network path to it"
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:  # ValueError: from the parser of HTTP
        match error:
            case ssl.SSLError():
                why, fix = f"TLS failed: {error}", f"check {_KEY}; http:// is enough, because the time stamp is signed"
            case gaierror():
                why, fix = "the server's name is not known", f"check {_KEY}, and the host's resolver"
            case TimeoutError():
                why = f"no reply in {timeout_s:g} s"
            case OSError():
                why = f"no connection: {error.strerror or error}"
            case _:
                why = f"no reply in HTTP: {type(error).__name__} {clean(str(error), None)}"
        raise AnchorError(f"{url}: {why}", fix) from error

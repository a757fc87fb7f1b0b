"""Every reason code of a source, explained: the table of docs/record.md.

A new code gets its entry here: tests/test_docs.py finds each code that the program uses.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ntpaudit.core.observation import Status


class Reason(NamedTuple):
    """A reason code: the `statuses` of a source that can have it, what it means, and what to do about it."""

    statuses: tuple[Status, ...]
    meaning: str
    advice: str


KOD = "kod:CODE"
"""Stands for `kod:` followed by any kiss code other than RATE, DENY and RSTR."""

_FORGED = "If it recurs, check for spoofing on the path (finding suspected-spoofing)"
_BROKEN = "Check this server; replace it if the fault persists"
_FIREWALL = "Check that the server runs and that firewalls allow UDP 123 in both directions"
_LISTEN = "Check that an NTP server runs there and serves clients (chrony: `allow`); then check firewalls"
_NAME = "Check the spelling and the resolver of this host"

REASONS: Mapping[str, Reason] = {
    # the server's reply was used
    "reftime-future": Reason(
        ("agreeing",),
        "The reply says that the server set its clock after it sent the reply. The reply is used.",
        _BROKEN,
    ),
    "sync-loop": Reason(
        ("agreeing",),
        "The server gets its time from this host (its reference id is an address of this host). The reply is used.",
        "Query servers that do not depend on this host",
    ),
    "disagrees": Reason(
        ("falseticker",),
        "The interval of this server contains no point at which the most intervals overlap.",
        "Find out which server is wrong; see the finding source-quorum",
    ),
    "no-majority": Reason(
        ("falseticker",),
        "No point is covered by the intervals of more than half of the usable servers, so no server is believed.",
        "Find out which server is wrong; see the finding source-quorum",
    ),
    "distant": Reason(
        ("distant",),
        "The interval of this server is wider than ±1 s, so the server has no vote.",
        "Query a server that is nearer or better synchronised",
    ),
    # the server replied, and the reply cannot be used
    "unsync": Reason(
        ("rejected",),
        "The server says that it is not synchronised (leap indicator 3, or a stratum outside 1 to 15).",
        "Synchronise the server; a server that has just started needs a few minutes",
    ),
    "root-distance-invalid": Reason(
        ("rejected",),
        "The server claims an error of 16 s or more (root delay / 2 + root dispersion).",
        "Synchronise the server",
    ),
    "zero-ts": Reason(("rejected",), "The receive or transmit timestamp of the server is zero.", _BROKEN),
    "version": Reason(("rejected",), "The reply is not NTP version 4.", _BROKEN),
    "mode": Reason(("rejected",), "The reply is not in server mode (mode 4).", _BROKEN),
    "malformed": Reason(
        ("rejected",), "The datagram is not a well-formed NTP packet: too short, too long, or a bad tail.", _BROKEN
    ),
    "crypto-nak": Reason(
        ("rejected",), "The server refused an authentication that this host did not ask for.", _BROKEN
    ),
    "bogus": Reason(
        ("rejected",),
        "Only replies to another request came (wrong origin timestamp). They may be forged.",
        _FORGED,
    ),
    "zero-origin": Reason(
        ("rejected",), "Only replies with origin timestamp zero came. They may be forged (CVE-2015-8138).", _FORGED
    ),
    "wrong-source": Reason(("rejected",), "Only replies from another address or port came.", _FORGED),
    "late": Reason(("rejected",), "The reply came after the timeout.", "Query a nearer server, or raise `--timeout`"),
    "local-step": Reason(
        ("rejected",),
        "The host's clock was set by more than 1 ms, or the host was suspended, between query and evaluation.",
        "None: the next audit queries the server again",
    ),
    "server-interval": Reason(
        ("rejected",), "The server claims to have held the query for a negative time or for more than 4 s.", _BROKEN
    ),
    "negative-delay": Reason(
        ("rejected",), "The server claims to have held the query for longer than the exchange took.", _BROKEN
    ),
    "inconsistent": Reason(
        ("rejected",), "The samples of this server contradict each other: its clock was probably stepped.",
        _BROKEN,
    ),
    "before-release": Reason(
        ("rejected",),
        "The server's time lies more than a year before this release, so its clock is wrong. It gives no "
        "offset, because NTP does not transmit the era.",
        "Set the clock of the server; check a GPS receiver for a week rollover",
    ),
    # a kiss-o'-death
    "kod:RATE": Reason(
        ("rejected", "skipped"),
        "The server asked for fewer queries. The interval doubles with each such reply, up to 8192 s.",
        "Check whether several programs or hosts behind one address query this server; use your own servers",
    ),
    "kod:DENY": Reason(
        ("rejected", "skipped"),
        "The server refuses this host. It is not queried for a day.",
        "Remove the server, or ask its operator for access",
    ),
    "kod:RSTR": Reason(
        ("rejected", "skipped"),
        "The server refuses this host by its access rules. It is not queried for a day.",
        "Remove the server, or ask its operator for access",
    ),
    KOD: Reason(
        ("rejected",),
        "The server sent another kiss-o'-death code. The reply counts as no reply.",
        _BROKEN,
    ),
    # no reply
    "timeout": Reason(("unreachable",), "No reply came before the timeout.", _FIREWALL),
    "refused": Reason(
        ("unreachable",),
        "The host is up, but no NTP server listens on the port, or a firewall rejects the query.",
        _LISTEN,
    ),
    "net-unreachable": Reason(
        ("unreachable",), "This host has no route to the address, or no address of that family.", "Check the routes"
    ),
    "host-unreachable": Reason(
        ("unreachable",), "A router or the local network reports that the host cannot be reached.", "Check the network"
    ),
    "forbidden": Reason(
        ("unreachable",),
        "A local firewall or sandbox forbids the query.",
        "Allow UDP 123; under systemd check `IPAddressAllow=`",
    ),
    "network-error": Reason(
        ("unreachable",), "The system reported another error when the query was sent or the reply was read.", _FIREWALL
    ),
    "name-unknown": Reason(("unreachable",), "DNS has no address for the name.", _NAME),
    "name-failed": Reason(
        ("unreachable",),
        "The name could not be looked up: the resolver reported an error.",
        _NAME,
    ),
    "name-timeout": Reason(("unreachable",), "The resolver did not reply before the timeout.", _NAME),
    # not queried this time
    "interval": Reason(
        ("skipped",),
        "The server was queried too recently (less than 15 s ago, or the NTP pool before its interval was over).",
        "None: it is queried when the interval is over",
    ),
    "unanswered": Reason(
        ("skipped",),
        "The server did not reply last time. The interval doubles with each query that gets no usable reply.",
        _FIREWALL,
    ),
    "pool-limit": Reason(
        ("skipped",), "The other zones already use the four servers of the NTP pool that a host may query.",
        "Configure one zone, or your own servers",
    ),
    "same-server": Reason(
        ("skipped",), "Another configured name leads to the same address and port. The server has one vote.",
        "Remove one of the names",
    ),
    "nts": Reason(
        ("skipped",),
        "The time daemon uses NTS with this server. This version does not support NTS and never queries it in clear.",
        "Configure the server without NTS if a query in clear is acceptable",
    ),
}  # fmt: skip
"""Each reason code and its explanation, grouped by what happened to the query."""

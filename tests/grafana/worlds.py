"""What the databases hold that the dashboards are asked about: the demonstration's fleet, and hosts that are odd."""

import http.client
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from grafana.__main__ import boards
from grafana.queries import Language
from ntpaudit.core.acceptance import Accepted
from ntpaudit.core.clock.drift import Breach, Drift
from ntpaudit.core.events import Event
from ntpaudit.core.observation import Claim, Daemon, SourceObservation, Unavailable
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import DatabaseOffset, Health, Labels, Record
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.network import query_without_udp
from ntpaudit.demo.scenario import Scenario, build_scenario
from ntpaudit.demo.simulated_agent import SimulatedAgent, SimulatedAudit
from ntpaudit.formats.line_protocol import render, render_account, stamp_lines
from tests.demo.expected import ExpectedFindings, expected_findings
from tests.grafana.replay import DATABASE, Answer, Asked, Span, ask, targets
from tests.records import CHRONYD, failed, observation, record, servers
from tests.tracing import untraced
from tests.world.servers import influxd, victoria_metrics

BATCH_LINES = 5000
HOUR_S = 3600
DAY_S = 24 * HOUR_S


class Filled(NamedTuple):
    """Two databases with the same points, what is true of them, and what each agent sent last."""

    urls: dict[Language, str]
    span: Span
    truth: ExpectedFindings
    story: Scenario
    last: dict[str, Record]
    audits: tuple[SimulatedAudit, ...]

    def ask(self, board: str, panel: str, language: Language, **chosen: str) -> list[Answer]:
        """Return the answers to all targets of one panel."""
        found = [one for one in targets(boards(language)[board], board) if one.panel == panel]
        assert found
        return [self.asked(one, language, **chosen) for one in found]

    def asked(self, one: Asked, language: Language, **chosen: str) -> Answer:
        """Return the answer to one target; `chosen` names sites, environments or a host."""
        choices: dict[str, tuple[str, ...]] = {
            "site": (),
            "env": (),
            "host": (sorted(self.truth.critical)[0],),
            "hosts": tuple(sorted(self.truth.critical)),
            "every": ("50",),
        }
        choices |= {name: (value,) for name, value in chosen.items()}
        return ask(self.urls[language], language, one.target, self.span, one.interval_s, choices)


@contextmanager
def databases(lines: Sequence[str]) -> Iterator[dict[Language, str]]:
    """Run an InfluxDB and a VictoriaMetrics that hold these lines, and yield their URLs."""
    with influxd() as influx, victoria_metrics() as victoria:
        for url in (influx, victoria):
            _write(url, lines)
        with urllib.request.urlopen(f"{victoria}/internal/force_flush"):
            pass
        yield {"influxql": influx, "promql": victoria}


@contextmanager
def demonstration() -> Iterator[Filled]:
    """Let the demonstration's fleet live for six hours that end now, and deliver to both databases what it sends."""
    end_ns = time.time_ns()
    scenario = build_scenario(24, 6.0, 1, end_ns)
    with untraced():
        audits = tuple(
            one for part in scenario.hosts for one in SimulatedAgent(part, scenario, query_without_udp).advance(end_ns)
        )
    lines = "".join(_lines(one) for one in audits).splitlines(keepends=True)
    with databases(lines) as urls:
        yield Filled(
            urls,
            Span(scenario.begin_ns // 1_000_000, end_ns // 1_000_000),
            expected_findings(scenario),
            scenario,
            {one.record.host.name: one.record for one in audits},
            audits,
        )


def _lines(one: SimulatedAudit) -> str:
    """Return the lines of an audit and of the periods it closes, as the agent's outbox has them."""
    lines = render(one.record, one.events)
    accounts = "".join(render_account(account, one.record.host) for account in one.accounts)
    return (lines if one.record.utc_ns is not None else stamp_lines(lines, one.utc_ns)) + accounts


def _write(url: str, lines: Sequence[str]) -> None:
    """Write lines as a client of InfluxDB 1.x does."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    for begin in range(0, len(lines), BATCH_LINES):
        body = "".join(lines[begin : begin + BATCH_LINES]).encode()
        connection.request("POST", f"/write?db={DATABASE}&precision=n", body)
        answer = connection.getresponse()
        assert answer.status == 204, answer.read()
        answer.read()
    connection.close()


# ---- hosts that are odd

NAMES = ("web.1", "web-1", "web+1", "p[1]", "d$1", 'q"q', "b\\c")
"""Host names that a query must neither confuse nor stumble over."""

KEPT = tuple(name.replace("\\", "/") for name in NAMES)
"""As the line protocol keeps them."""

OFFSETS_S = dict(zip(KEPT, (0.001, -0.002, 0.003, -0.004, 0.005, -0.006, 0.007), strict=True))
"""Each host has its own offset, so a mix-up shows."""

NO_BREACH = Breach(None, None, None, 20_000.0, free_running=False, calibrated=True)
SILENCE = [failed(f"ntp{number}.example.net", "unreachable", "timeout") for number in range(1, 5)]


CLAIM = Claim(observation().taken.boottime_ns, True, "192.0.2.1", 0.0009, 0.0005, 12.0)
CLAIMS: dict[str, Claim | Unavailable] = {
    KEPT[0]: CLAIM,
    "hour-ahead": CLAIM._replace(follows="192.0.2.66", offset_s=-0.25, bound_s=0.05),
    "seldom": Claim(CLAIM.boottime_ns, False),
    "d$1": Claim(CLAIM.boottime_ns, offset_s=0.0, bound_s=0.0001, updated_s=2040.0),
    "siteless": Unavailable("port 323 is closed", "cmdport 323"),
}
"""What chronyd of some odd hosts claims: what is true, wrong by an hour, without a number, or was true 34 min ago."""


ACCEPTED = Accepted("container", "ops", "2199-01-01T00:00:00.000000000Z")


def _claiming(name: str) -> tuple[Daemon, ...]:
    return (CHRONYD._replace(claim=CLAIMS.get(name)),)


class Odd(NamedTuple):
    """The databases of the odd hosts, and the moment at which their history ends."""

    urls: dict[Language, str]
    end_ms: int

    def span(self, later_s: float = 0.0, hours: float = 6.0) -> Span:
        """Return a range that ends `later_s` after the last point."""
        end_ms = self.end_ms + round(later_s * 1000)
        return Span(end_ms - round(hours * HOUR_S * 1000), end_ms)


@contextmanager
def odd_hosts() -> Iterator[Odd]:
    """Fill both databases with a host for each case that a panel must get right."""
    with _filled_by(_odd) as found:
        yield found


@contextmanager
def _filled_by(lines_until: Callable[[int], Iterator[str]]) -> Iterator[Odd]:
    """Fill both databases with a history that ends now."""
    end_s = time.time_ns() // NS_PER_S
    with databases("".join(lines_until(end_s)).splitlines(keepends=True)) as urls:
        yield Odd(urls, end_s * 1000)


def _odd(end_s: int) -> Iterator[str]:
    """Yield the lines of every odd host."""
    for age_s in range(2 * HOUR_S, -1, -60):
        for name, offset_s in zip(NAMES, OFFSETS_S.values(), strict=True):
            skew_ppm = 2000.0 if age_s > 2 * HOUR_S - 300 else 0.5  # nothing is known in the first five minutes
            drift = Drift(12.0, None, skew_ppm, 20, NO_BREACH)
            yield _audit(end_s - age_s, name, "s.1", offset_s, drift=drift, daemons=_claiming(name))
        late, wrong = Health(0, 3, 1200.0, 2), _claiming("hour-ahead")
        yield _audit(end_s - age_s, "hour-ahead", "s-1", -3600.0, delivery=late, daemons=wrong)
        yield _audit(end_s - age_s, "siteless", None, 0.002, daemons=_claiming("siteless"))
        yield _audit(end_s - age_s, "unmeasured", "s-1", None, daemons=())
    for age_s in range(6 * HOUR_S, 20 * 60, -300):  # every 5 minutes, as a reporting gap longer than a graph's buckets
        yield _audit(end_s - age_s, "silent", "s-1", 0.001)
    for age_s in range(2 * HOUR_S, -1, -300):
        accepted = ("daemon-count", "kiss-of-death") if age_s == 1200 else ()
        raised, claims = ("kiss-of-death",) if age_s == 600 else (), _claiming("seldom")  # no longer accepted
        yield _audit(end_s - age_s, "seldom", "s-2", 0.0015, daemons=claims, events=raised, accepted=accepted)
    for age_s in range(10 * DAY_S + HOUR_S, 10 * DAY_S, -300):
        yield _audit(end_s - age_s, "vanished", "s-2", 5.0, events=("unsynced",) if age_s == 10 * DAY_S + 300 else ())


@contextmanager
def disputed_hosts() -> Iterator[Odd]:
    """Fill both databases with hosts whose stamps, or whose severities, are not to be believed."""
    with _filled_by(_disputed) as found:
        yield found


WRONG_S = 3 * HOUR_S
DISPUTED = {"ahead-servers", "ahead-both", "ahead-unaware", "ahead-just", "behind-servers", "behind-both"}
"""Hosts that deliver with a time that is wrong by three hours: their servers are wrong, or their own clock is too; one
of them for a few minutes only; one does not know the database's clock."""

JUDGED = {
    "ok": {"plain", "recovered", "unconfirmed"},
    "warning": {"ahead-both", "ahead-unaware", "behind-both", "warm-ok", "wide-ok"},
    "unknown": {"no-offset-ok", "old-ok"},
    "critical": {"ahead-servers", "ahead-just", "behind-servers", "wrong-ok"},
    "silent": {"dead-behind"},
}
"""What is true of each host of this world."""


def _disputed(end_s: int) -> Iterator[str]:
    """Yield the lines of hosts that deliver every minute, for an hour, unless they died."""
    for age_s in range(HOUR_S, -1, -60):
        at_s = end_s - age_s
        yield _audit(at_s, "plain", "s-3", 0.001)
        for name, ahead_s, own, since_s, until_s in (
            ("ahead-servers", WRONG_S, False, 15 * 60, -1),
            ("ahead-both", WRONG_S, True, 15 * 60, -1),
            ("ahead-just", WRONG_S, False, 3 * 60, -1),
            ("behind-servers", -WRONG_S, False, 20 * 60, -1),
            ("behind-both", -WRONG_S, True, 20 * 60, -1),
            ("recovered", WRONG_S, True, 50 * 60, 30 * 60),
            ("dead-behind", -WRONG_S, True, 50 * 60, 40 * 60),
        ):
            if until_s < age_s <= since_s:
                yield _wrong(at_s, name, ahead_s, own=own)
            elif age_s > since_s or name == "recovered":
                yield _audit(at_s, name, "s-3", 0.001)
        yield _audit(at_s + WRONG_S, "ahead-unaware", "s-3", 0.001)
        for name, changes in _CONTRADICTED.items():
            behind_s = {
                "wrong-ok": 7200.0,
                "unconfirmed": 5.0,
                "warm-ok": 0.5,
                "wide-ok": 0.09,
                "no-offset-ok": None,
            }.get(name, 0.001)
            yield _audit(
                at_s, name, "s-3", behind_s, root_dispersion_s=0.95 if name == "wide-ok" else 0.0015, **changes
            )


_SAID_OK: dict[str, Any] = {"severity": Severity.OK, "verdict": "within", "findings": ()}
_CONTRADICTED: dict[str, dict[str, Any]] = {
    "wrong-ok": _SAID_OK,
    "warm-ok": _SAID_OK,
    "wide-ok": _SAID_OK,
    "no-offset-ok": _SAID_OK,
    "old-ok": {**_SAID_OK, "age_s": 30.0 * DAY_S},
    "unconfirmed": {**_SAID_OK, "confirmed": False},
}


def _wrong(at_s: int, name: str, ahead_s: int, *, own: bool) -> str:
    """Return the lines of an audit by servers that are ahead, on a host that follows them, if `own`, or not.

    The agent knows it by the Date of the database's last answer.
    """
    behind_s = 0.001 if own else ahead_s
    right_s = behind_s - ahead_s  # where the offset lies if the database is right
    disputed_s = ahead_s - 2.0 if ahead_s > 0 else ahead_s + 2.0
    clock = DatabaseOffset(right_s - 1.0, right_s + 1.0, 30.0, disputed_s)
    return _audit(at_s + ahead_s, name, "s-3", behind_s, database_clock=clock)


def _audit(
    at_s: int,
    name: str,
    site: str | None,
    behind_s: float | None,
    *,
    events: Sequence[str] = (),
    accepted: Sequence[str] = (),
    delivery: Health | None = None,
    root_dispersion_s: float = 0.0015,
    daemons: tuple[Daemon, ...] = (CHRONYD,),
    **changes: Any,
) -> str:
    """Return the lines of an audit at a moment of true time, on a host whose clock is so far behind.

    `changes` are made to the record that the core has concluded.
    """
    host_ns = at_s * NS_PER_S - round((behind_s or 0.0) * NS_PER_S)
    sources: Sequence[SourceObservation] = (
        SILENCE if behind_s is None else servers(behind_s, host_ns=host_ns, root_dispersion_s=root_dispersion_s)
    )
    labels = Labels("0.1.0", None, site, "prod")
    seen = record(*sources, name=name, labels=labels, host_ns=host_ns, daemons=daemons)
    known: dict[str, Any] = {"age_s": None if behind_s is None else 0.0, "health": delivery or Health()}
    seen = seen._replace(**(known | changes))
    at_ns = at_s * NS_PER_S
    raised = [
        Event(kind, True, Severity.WARNING, "high", "so it is", at_ns, host_ns, 0).accept(
            ACCEPTED if kind in accepted else None
        )
        for kind in (*events, *accepted)
    ]
    return stamp_lines(render(seen, raised), at_ns)

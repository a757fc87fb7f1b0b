"""A site's policy from its file to the findings: with real daemons, in a check, and in an agent that reloads."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command import ntpaudit
from tests.core.policies import following
from tests.core.worlds import DAY, FOUR, NOON, S, observation, reading
from tests.waiting import until
from tests.world.followers import Follower, ntpsec
from tests.world.played import PlayedAgent, PlayedHost

OWN = "[fe80::1%lo]:9"  # no address of a server, and none that is this host's own
JUDGED = """
import json, sys
from ntpaudit import audit
from ntpaudit.config.load import parse_config
from ntpaudit.core.checks.host import findings_of
from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.observation import Unavailable
from ntpaudit.core.selection import Selection
from ntpaudit.probes.clock import SystemClock
from ntpaudit.probes.kernel import read_kernel
plan = audit.plan_of(parse_config(sys.argv[2].encode(), "x"))
context = audit.host_context(None)
daemons = getattr(context.daemons, "seen", context.daemons)
context = context._replace(daemons=tuple(one for one in daemons if one.pid == int(sys.argv[1])))
for _ in range(100):  # a busy machine may reply too late
    claimed = audit.with_claims_of(context, with_sources=True)
    if not isinstance(claimed.daemons[0].claim, Unavailable):
        break
seen = claimed.observation(SystemClock().read(), read_kernel())
# what these tests judge needs no right to set the clock, which the daemon does not have
seen = seen._replace(daemons=tuple(one._replace(disciplines=True) for one in seen.daemons))
judged = AuditContext(seen, Selection((), None), plan.profile, site_policy=plan.site_policy)
print(json.dumps({one.id: [one.level, one.message] for one in findings_of(judged)}))
"""


def judge(daemon: Follower, sources: str) -> dict[str, Any]:
    """Return the findings about a daemon by a configuration of its sources, found on its own network."""
    found: dict[str, Any] = json.loads(
        daemon.run(sys.executable, "-c", JUDGED, str(daemon.pid), f"[sources]\n{sources}\n")
    )
    return found


@pytest.mark.needs("root", "netns", "seccomp", "ntpd")
def test_a_real_daemon_is_judged_by_what_it_follows() -> None:
    """NTPsec follows one of two servers without a key: approved by network, not approved, and not authenticated."""
    with ntpsec({"10.9.1.1": 0.0, "10.9.1.2": 0.0}) as daemon:
        patterns = 'approved = ["192.0.2.0/24", "*.example.net"]'
        [wrong] = until(lambda: followed(judge(daemon, patterns)), "a source")
        assert "ntpd follows 10.9.1." in wrong["unapproved-source"][1]
        assert "ntpd is configured with 10.9.1." in wrong["unapproved-source"][1]
        assert "unapproved-source" not in judge(daemon, 'approved = ["10.9.0.0/16"]\nrole = "internal"')
        assert "unapproved-source" not in judge(daemon, 'role = "internal"')
        unsafe = judge(daemon, "require_authentication = true")
        assert unsafe["unauthenticated"][0] == "medium"
        assert "ntpd follows 10.9.1." in unsafe["unauthenticated"][1]
        assert "unauthenticated" not in judge(daemon, "")


def followed(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the findings once the daemon follows something."""
    return [found] if found["unapproved-source"][0] == "high" else []


def test_a_check_judges_what_it_queries_itself(tmp_path: Path) -> None:
    """The servers of the configuration, and those of the command line by the policy of the file."""

    def found(approved: str, *words: str) -> list[tuple[str, str]]:
        file = tmp_path / "ntpaudit.toml"
        file.write_text(f'[sources]\nservers = ["{OWN}"]\napproved = ["{approved}"]\n')
        ran = ntpaudit("check", "--config", str(file), "--timeout", "10ms", "--format", "json", *words, state=tmp_path)
        findings = [
            (one["level"], one["message"]) for one in ran.record["findings"] if one["id"] == "unapproved-source"
        ]
        # other tests may run daemons, which the same finding names
        return [one for one in findings if "ntpaudit itself queries" in one[1]]

    [(level, message)] = found("*.example.net")
    assert (level, "ntpaudit itself queries fe80::1%lo" in message) == ("medium", True)
    assert found("fe80::/10") == []
    assert found("fe80::1", "[fe80::2%lo]:9")
    assert found("fe80::1", "127.0.0.1:9") == []


def test_an_agent_takes_the_policy_of_a_new_configuration(tmp_path: Path) -> None:
    """Three audits raise a finding; after a reload with another policy, three clear it."""
    played = PlayedHost()
    played.turn(reading(), OBSERVED)
    running = PlayedAgent(tmp_path, played, 'approved = ["192.0.2.0/24"]\n')
    running.begin()

    def levels(first: int) -> list[str | None]:
        """Return the level of the finding at three audits, 5 min apart."""
        found: list[str | None] = []
        for number in range(first, first + 3):
            now = reading(NOON + number * 300 * S, uptime_ns=DAY + number * 300 * S)
            played.turn(now, OBSERVED._replace(taken=now))
            findings = running.network(played.seen).findings
            found.append(next((one.level for one in findings if one.id == "unapproved-source"), None))
        return found

    assert levels(1) == ["low", "low", "high"]  # pending, pending, raised
    file = tmp_path / "played.toml"
    file.write_text(file.read_text().replace("192.0.2.0/24", "*.example.net"))
    running._reload()
    assert levels(4) == ["high", "high", None]
    running.close()


OBSERVED = observation(*FOUR, daemons=(following("ntp1.example.net"),))

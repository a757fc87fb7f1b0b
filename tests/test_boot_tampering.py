"""Changes of a real system: chrony's files, its service, the time zone, under the packaged agent in its sandbox."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_boot import audit_now, configured, entries, measured, package, points, records, shown, write
from tests.waiting import until
from tests.world.machine import RELEASES, Machine

__all__ = ["package"]

pytestmark = [pytest.mark.needs("boot", "victoria-metrics"), pytest.mark.untraced]

CHRONY, KEYS = "/etc/chrony/chrony.conf", "/etc/chrony/chrony.keys"
DROP_IN = "/etc/systemd/system/chrony.service.d/own.conf"


@pytest.fixture(scope="module", params=RELEASES)
def host(request: pytest.FixtureRequest, package: Path) -> Iterator[Machine]:
    """A machine whose agent runs, and has audited."""
    with configured(package, request.param) as booted:
        write(booted, "/etc/default/chrony", 'DAEMON_OPTS="-x -F 1"\n')  # whatever starts it: the clock is not its own
        booted.say("systemctl", "enable", "--now", "ntpaudit")
        until(lambda: audit_now(booted) and measured(booted))
        yield booted


def changes(host: Machine) -> list[tuple[str, str, str | None, str | None]]:
    """Return each change that the history holds as an event, oldest first."""
    words = ["ntpaudit", "history", "--events", "--since", "1h", "--format", "json"]
    found = host.run(words, check=False).stdout  # it fails while there is no event
    events: list[dict[str, Any]] = [json.loads(line) for line in found.splitlines()]
    listed = [one for one in events if one["event"] == "time-config-changed"]
    for event in listed:
        assert event["time"]["utc"]
        assert event["time"]["host"]
    return [
        (one["path"], one["what"], one["before"], one["after"])
        for event in sorted(listed, key=lambda event: event["time"]["boottime_ns"])
        for one in event["detail"]["changes"]
    ]


def seen(host: Machine, path: str, what: str, *, after: int) -> tuple[str | None, str | None]:
    """Return the values before and after of a change that is new since there were `after` changes."""

    def look() -> list[tuple[str, str, str | None, str | None]]:
        audit_now(host)
        return [one for one in changes(host)[after:] if one[:2] == (path, what)]

    ((_, _, before, now),) = until(look, lambda: f"{what} of {path}: {changes(host)}")
    return before, now


def test_changes_of_a_running_system(host: Machine) -> None:
    """Each change is an event with its values: files, keys that the sandbox cannot read, the service, the zone."""
    assert changes(host) == []
    (settings,) = (record["time_config"] for record in records(host) if record["time_config"])
    known = {one["path"]: one for one in settings}
    assert known[CHRONY]["sha256"] == host.say("sha256sum", CHRONY).split()[0]
    assert (known[KEYS]["sha256"], known[KEYS]["reason"]) == (None, "cannot be read: Permission denied")

    before = known[CHRONY]["sha256"]
    host.path(CHRONY).write_text(host.path(CHRONY).read_text() + "server evil.example iburst\n")
    assert seen(host, CHRONY, "content", after=0) == (before, host.say("sha256sum", CHRONY).split()[0])
    host.say("chmod", "666", CHRONY)
    assert seen(host, CHRONY, "mode", after=1) == ("0644", "0666")
    host.say("chown", "_chrony", CHRONY)
    assert seen(host, CHRONY, "owner", after=2) == ("0", "65534")
    host.path(KEYS).write_text("1 MD5 another\n")
    size, new_size = seen(host, KEYS, "content", after=3)
    assert (new_size or "").startswith("14 octets, changed at ")
    assert size != new_size
    write(host, DROP_IN, "[Service]\nNice=5\n")
    assert seen(host, DROP_IN, "added", after=4)[0] is None

    host.say("systemctl", "unmask", "chrony")
    masked, unmasked = seen(host, "chrony.service", "value", after=5)
    assert (masked, unmasked) == ("masked", host.run(["systemctl", "is-enabled", "chrony"], check=False).stdout.strip())
    host.say("systemctl", "mask", "chrony")
    assert seen(host, "chrony.service", "value", after=6) == (unmasked, "masked")
    zone = host.say("readlink", "/etc/localtime").partition("zoneinfo/")[2]
    assert shown(host, "systemd-timedated", "CapabilityBoundingSet") == ""  # or it could move the clock outside, too
    host.say("timedatectl", "set-timezone", "Asia/Tokyo")
    assert seen(host, "/etc/localtime", "value", after=7) == (zone, "Asia/Tokyo")

    host.say("systemctl", "stop", "ntpaudit")
    host.say("rm", DROP_IN)
    host.say("systemctl", "start", "ntpaudit")
    assert seen(host, DROP_IN, "removed", after=8)[1] is None
    assert len(changes(host)) == 9


def test_a_change_reaches_status_journal_and_database(host: Machine) -> None:
    """The finding is listed with the file, and each change is an entry of the journal and a point."""
    listed = [finding for finding in records(host)[-1]["findings"] if finding["id"] == "time-config-changed"]
    assert [one["level"] for one in listed] == ["medium"]
    assert f"{DROP_IN} (restored to the earlier state; changed 20" in listed[0]["message"]
    assert "time-config-changed" in host.run(["ntpaudit", "status"], check=False).stdout
    written = [one for one in entries(host, "NTPAUDIT_FINDING=time-config-changed") if "changed" in one["MESSAGE"]]
    assert len(written) == len(changes(host))
    until(lambda: points(host, "ntpaudit_event", "raised"))

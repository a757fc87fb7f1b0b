"""Read the host's identity and what affects its clock: time zone, hardware clock, clock source, container."""

import os
import re
import time

from ntpaudit.core.observation import HostFacts, host_label

BOOT_ID = "NTPAUDIT_BOOT_ID"  # the variable with which a unit names the boot
_CLOCKSOURCE = "sys/devices/system/clocksource/clocksource0/current_clocksource"
_CONTAINER_MARKS = {".dockerenv": "docker", "run/.containerenv": "podman"}
_ID = re.compile("(?!0{32})[0-9a-f]{32}")
_HARDWARE_CLOCK = {"UTC": False, "LOCAL": True}


def host_facts(name: str | None = None, root: str = "/") -> HostFacts:
    """Return the facts about the host with the files under `root`, None for what cannot be read; `name` renames it."""
    local = time.localtime()
    machine_id = (_text(root, "etc/machine-id") or "").replace("-", "").lower()
    known_id = machine_id if _ID.fullmatch(machine_id) else None  # an image has `uninitialized` there (machine-id(5))
    adjtime = (_text(root, "etc/adjtime") or "").splitlines()
    return HostFacts(
        name=name or host_label(os.uname().nodename, known_id),
        machine_id=known_id,
        boot_id=_boot_id(root),
        timezone=_timezone(root) or local.tm_zone,
        zone_offset_s=local.tm_gmtoff,
        rtc_local=_HARDWARE_CLOCK.get(adjtime[2].strip()) if len(adjtime) > 2 else None,
        clocksource=_text(root, _CLOCKSOURCE),
        container=_container(root),
    )


def _text(root: str, path: str) -> str | None:
    """Return what a file says, without space around it; None where it says nothing or cannot be read."""
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            return file.read().strip() or None
    except OSError:
        return None


def _boot_id(root: str) -> str | None:
    """Return the id of this boot, which separates its uptimes from those of any other.

    In a container systemd-nspawn mounts a boot id of its own, which a service's sandbox hides again with a /proc of its
    own: so its unit names the one that all other processes see (%b, without hyphens). In a time namespace uptimes count
    from elsewhere (time_namespaces(7)), which belongs to the name of the boot.
    """
    named = os.environ.get(BOOT_ID, "").replace("-", "").lower()
    boot_id = _text(root, "proc/sys/kernel/random/boot_id")
    if _ID.fullmatch(named):
        boot_id = "-".join((named[:8], named[8:12], named[12:16], named[16:20], named[20:]))
    lines = (_text(root, "proc/self/timens_offsets") or "").splitlines()
    offsets = [".".join(line.split()[1:]) for line in lines]
    is_moved = any(offset != "0.0" for offset in offsets)
    return ":".join([boot_id, *offsets]) if boot_id is not None and is_moved else boot_id


def _timezone(root: str) -> str | None:
    """Return the name of the time zone in force: libc obeys TZ and /etc/localtime, and never reads /etc/timezone."""
    zone = os.environ.get("TZ", "").removeprefix(":")
    if zone and not zone.startswith("/"):
        return zone
    try:
        target = zone or os.readlink(os.path.join(root, "etc/localtime"))
    except OSError:
        target = ""
    return target.partition("zoneinfo/")[2] or _text(root, "etc/timezone")


def _container(root: str) -> str | None:
    for mark, name in _CONTAINER_MARKS.items():
        if os.path.exists(os.path.join(root, mark)):
            return name
    orchestrator = "kubernetes" if "KUBERNETES_SERVICE_HOST" in os.environ else None
    return _text(root, "run/systemd/container") or os.environ.get("container") or orchestrator  # noqa: SIM112

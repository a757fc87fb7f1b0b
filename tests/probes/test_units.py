"""The services that are time daemons, compared with `systemctl is-enabled` on the same files."""

import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.observation import Daemon, HiddenDaemons, TimeUnit
from ntpaudit.probes import daemons
from ntpaudit.probes.daemons.units import unit_states

UNITS = {
    "chrony.service": "[Install]\nAlias=chronyd.service\nWantedBy=multi-user.target\n",
    "systemd-timesyncd.service": "[Install]\nWantedBy=sysinit.target\nAlias=dbus-org.freedesktop.timesync1.service\n",
    "ntpsec.service": "[Install]\n# WantedBy=multi-user.target\n",
    "openntpd.service": "[Install]\nAlias = ntpd.service\n",
    "ntpd-rs.service": "[Install]\nAlso=chrony.service\n",
    "phc2sys@.service": "[Install]\nWantedBy=multi-user.target\n",
}
KINDS = {"chrony", "chronyd", "systemd-timesyncd", "ntpsec", "openntpd", "ntpd", "ntpd-rs", "phc2sys"}
NAMES = ("chrony.service", "systemd-timesyncd.service", "ntpsec.service", "openntpd.service", "phc2sys@eth0.service")
SHORT = {"enabled-runtime": "enabled", "masked-runtime": "masked"}
VERBS = (("enable",), ("disable",), ("mask",), ("unmask",), ("enable", "--runtime"), ("mask", "--runtime"))


def written(root: Path, folder: str = "usr/lib/systemd/system") -> str:
    """Write the units, and the sign that systemd runs."""
    (root / "run/systemd/system").mkdir(parents=True)
    place = root / folder
    place.mkdir(parents=True)
    for name, text in UNITS.items():
        (place / name).write_text(f"[Service]\nExecStart=/bin/true\n{text}")
    return str(root)


def systemctl(root: str, *words: str) -> str:
    """Run the real one on these files."""
    return subprocess.run(["systemctl", f"--root={root}", *words], capture_output=True, text=True, check=False).stdout


@pytest.mark.needs("systemctl")
@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(VERBS), st.sampled_from(NAMES)), max_size=8),
    st.sampled_from(["usr/lib/systemd/system", "etc/systemd/system", "usr/local/lib/systemd/system"]),
)
def test_state_is_that_of_systemctl(steps: list[tuple[tuple[str, ...], str]], folder: str) -> None:
    """After any commands that enable, disable and mask services, each has the state that systemctl reports."""
    with tempfile.TemporaryDirectory() as place:
        root = written(Path(place), folder)
        for verb, name in steps:
            systemctl(root, *verb, name)
        found = unit_states(KINDS, ["phc2sys@eth0.service"], root)
        for name in (*NAMES, "ntpd-rs.service"):
            said = systemctl(root, "is-enabled", name).strip()
            assert found[name] == (None if said == "indirect" else SHORT.get(said, said)), (name, said, steps)


def test_an_alias_is_no_other_service(tmp_path: Path) -> None:
    """A service with two names is one service, under the name of its file."""
    root = written(tmp_path)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/chronyd.service").symlink_to("/usr/lib/systemd/system/chrony.service")
    found = unit_states(KINDS, [], root)
    assert found == {
        "chrony.service": "enabled",
        "ntpd-rs.service": None,
        "ntpsec.service": "static",
        "openntpd.service": "disabled",
        "systemd-timesyncd.service": "disabled",
    }


def test_an_enabled_instance_is_a_service_and_its_template_is_none(tmp_path: Path) -> None:
    """Only an instance runs."""
    root = written(tmp_path)
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "phc2sys@eth0.service").symlink_to("/usr/lib/systemd/system/phc2sys@.service")
    assert unit_states({"phc2sys"}, [], root) == {"phc2sys@eth0.service": "enabled"}


def test_transient_and_generated_units_have_no_state(tmp_path: Path) -> None:
    """A service of `systemd-run` is not installed; one that systemd generated from a script is, with no known state."""
    root = written(tmp_path)
    for folder in ("transient", "generator.late"):
        (tmp_path / "run/systemd" / folder).mkdir()
        (tmp_path / "run/systemd" / folder / f"{folder[:4]}.service").write_text("[Service]\n")
    assert unit_states((), ["tran.service", "gene.service"], root) == {"gene.service": None}


def test_without_systemd_there_are_no_services(tmp_path: Path) -> None:
    """The files of a container image start nothing."""
    root = written(tmp_path)
    (tmp_path / "run/systemd/system").rmdir()
    assert unit_states(KINDS, ["chrony.service"], root) == {}


@pytest.mark.parametrize("target", ["/dev/null", "/nowhere/chrony.service"])
def test_links_that_lead_to_no_file(tmp_path: Path, target: str) -> None:
    """A masked service is a link to /dev/null; the state of one whose file is gone is not known."""
    root = written(tmp_path)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/chrony.service").symlink_to(target)
    assert unit_states({"chrony"}, [], root) == {"chrony.service": "masked" if target == "/dev/null" else None}


def test_running_is_what_a_visible_daemon_belongs_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service without a visible daemon does not run, unless daemons may be hidden; the daemon gets its state."""
    monkeypatch.setattr(daemons, "unit_states", lambda *_: {"chrony.service": "enabled", "ntpsec.service": "masked"})
    chronyd = Daemon("chronyd", 7, unit="chrony.service")
    seen, units = daemons.with_units((chronyd, Daemon("ntpd", 8)))
    assert seen == (chronyd._replace(enabled="enabled"), Daemon("ntpd", 8))
    assert units == (TimeUnit("chrony.service", "enabled", True), TimeUnit("ntpsec.service", "masked", False))
    hidden, units = daemons.with_units(HiddenDaemons("hidden", (chronyd,)))
    assert hidden == HiddenDaemons("hidden", (chronyd._replace(enabled="enabled"),))
    assert units == (TimeUnit("chrony.service", "enabled", True), TimeUnit("ntpsec.service", "masked", None))

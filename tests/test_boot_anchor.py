"""The anchor service in a machine with Debian's systemd: its sandbox allows what it needs, and it is off by default."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.test_boot import DATABASE, configured, package, points, shown
from tests.waiting import until
from tests.world.machine import Machine
from tests.world.packages import REPOSITORY

__all__ = ["package"]  # a fixture

pytestmark = pytest.mark.needs("boot", "victoria-metrics", "openssl", "python-3.11")

LIBRARIES = ("cffi", "cryptography", "pycparser", "rfc3161-client")
LAUNCHER = """#!/usr/bin/python3 -IS
import glob, sys
sys.path[1:1] = ["/opt/ntpaudit-anchor/lib", *glob.glob("/opt/ntpaudit/lib*")]
from ntpaudit.__main__ import main
main()
"""
SERVICES = """
import sys
from pathlib import Path
from tests.test_anchor import configured, replies
from tests.world.flaky import FlakyDatabase
from tests.world.roughtime_server import honest, new_signer, serving
from tests.world.time_stamps import authority

folder = Path(sys.argv[1])
issuer, signer = authority(folder / "authority"), new_signer()
with FlakyDatabase(choose=replies(issuer)) as tsa, serving(honest(signer)) as (address, _):
    configured(folder / "evidence.toml", tsa.url, Path("/etc/ntpaudit/tsa-roots.pem"), address, signer.key)
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def services(host: Machine, folder: Path) -> Iterator[None]:
    """Run both services on the machine's network, and leave their configuration and certificate in a folder."""
    command = host.on_its_network([sys.executable, "-c", SERVICES, str(folder)])
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin
        assert running.stdout
        try:
            assert running.stdout.readline() == "ready\n"
            yield
        finally:
            running.stdin.close()


def install_libraries(host: Machine) -> None:
    """Make the environment of docs/anchors.md, from the libraries of the tests: the machine has no network."""
    target = host.path("/opt/ntpaudit-anchor")
    (target / "bin").mkdir(parents=True)
    (target / "bin/ntpaudit").write_text(LAUNCHER)
    (target / "bin/ntpaudit").chmod(0o755)
    for name in LIBRARIES:
        for file in distribution(name).files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                place = target / "lib" / file
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), place)


def test_the_service_makes_an_anchor_of_all_hosts(package: Path, tmp_path: Path) -> None:
    """In its sandbox, as a user of its own, with the read token as a credential; and the host's history fits it."""
    with configured(package) as host, services(host, tmp_path):
        assert shown(host, "ntpaudit-anchor.timer", "UnitFileState") == "disabled"
        install_libraries(host)
        shutil.copy(tmp_path / "authority/root.pem", host.path("/etc/ntpaudit/tsa-roots.pem"))
        token = host.path("/etc/ntpaudit/read-token")
        token.touch(0o600)
        token.write_text("a-read-token-of-no-consequence\n")
        credential = "/run/credentials/ntpaudit-anchor.service/read-token"
        configuration = host.path("/etc/ntpaudit/ntpaudit.toml")
        database = f'[fleet]\nurl = "http://{DATABASE}"\nlanguage = "promql"\ntoken_file = "{credential}"\n'
        text = configuration.read_text()
        for table in (database, (tmp_path / "evidence.toml").read_text()):
            header = table.partition("\n")[0]
            assert text.count(f"\n{header}\n") == 1
            text = text.replace(f"\n{header}\n", f"\n{table}")
        configuration.write_text(text)
        host.say("systemctl", "enable", "--now", "ntpaudit", "ntpaudit-anchor.timer")
        assert shown(host, "ntpaudit-anchor.timer", "ActiveState") == "active"
        until(lambda: points(host, "ntpaudit_clock", "chain_head_int"), "a head in the database")
        started = host.run(["systemctl", "start", "ntpaudit-anchor.service"], check=False)
        log = host.say("journalctl", "--unit=ntpaudit-anchor", "--output=cat")
        assert (started.returncode, shown(host, "ntpaudit-anchor", "Result")) == (0, "success"), log
        made = host.say("sh", "-c", "ls /var/lib/ntpaudit-anchor/*.json")
        assert [one["sequence"] > 0 for one in json.loads(host.say("cat", made))["heads"]] == [True]
        verify = ["/opt/ntpaudit-anchor/bin/ntpaudit", "evidence", "verify-anchor", made, "--history"]
        done = host.run(verify, check=False)
        assert (done.returncode, done.stdout.count("ok ")) == (0, 4), (done.stdout, done.stderr, log)

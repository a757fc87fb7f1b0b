"""What the real systemd-timesyncd makes of configuration files, by its log: it reaches no server and sets no clock."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.abilities import ANOTHER_USER, need
from tests.world.namespaces import unshared
from tests.world.packages import environment, program

_SCRIPT = """
mount -t tmpfs none /etc; mount -t tmpfs none /run
cp -r "$1/." /
chmod -R a+rX /etc /run
exec setpriv --bounding-set=-sys_time --inh-caps=-all --reuid={user} --regid={user} --clear-groups \
    env SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console LD_LIBRARY_PATH=/run/libraries timeout 20 /run/timesyncd
"""
_ADDED = re.compile(r"Added new (system|link|fallback) server (.+)\.")
_REMOVED = re.compile(r"Removed server (.+)\.")  # cleared by an empty assignment; it does not say from which list
_READY = "running as pid"


def servers_of_timesyncd(files: Mapping[str, str | bytes], folder: Path) -> dict[str, list[str]]:
    """Return the servers that it takes from these files in /etc and /run: `system`, `link` and `fallback`."""
    need("root", "mount", "netns", "another-user", "systemd-timesyncd")
    _copy_program(folder)
    for path, text in files.items():
        file = folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    command = [*unshared("mount", "net"), "sh", "-ec", _SCRIPT.format(user=ANOTHER_USER), "sh", str(folder)]
    found: dict[str, list[str]] = {"system": [], "link": [], "fallback": []}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if added := _ADDED.search(line):
                found[added[1]].append(added[2])
            elif removed := _REMOVED.search(line):
                next(servers for servers in found.values() if removed[1] in servers).remove(removed[1])
            if _READY in line:
                break
        process.terminate()
    assert said, "it said nothing"
    assert _READY in said[-1], "".join(said)
    return found


def _copy_program(folder: Path) -> None:
    """Put it, and what was unpacked of its libraries, where another user can read them."""
    timesyncd, libraries = program("systemd-timesyncd"), folder / "run/libraries"
    libraries.mkdir(parents=True)
    (folder / "run/timesyncd").write_bytes(timesyncd.read_bytes())
    (folder / "run/timesyncd").chmod(0o755)
    unpacked = environment()["LD_LIBRARY_PATH"].split(":")
    linked = subprocess.run(["ldd", timesyncd], env=environment(), capture_output=True, text=True, check=True).stdout
    for path in re.findall(r"=> (\S+)", linked):
        if any(path.startswith(place + os.sep) for place in unpacked):
            (libraries / Path(path).name).write_bytes(Path(path).read_bytes())

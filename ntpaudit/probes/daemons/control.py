"""Run a daemon's own control program, where its interface is for root alone and has no stable format."""

import os

from ntpaudit.core.observation import Unavailable
from ntpaudit.probes.daemons.kind import CLAIM_WITHIN_S

_FOLDERS = ("/usr/sbin", "/usr/local/sbin")  # only root can write there; a search path is not trusted


def report_of(name: str, *words: str) -> str | Unavailable:
    """Return what the program prints that reads a daemon's state, or why it prints nothing."""
    if os.geteuid() != 0:
        return Unavailable("only root can read its control socket", "run `ntpaudit check` as root")
    program = next((path for folder in _FOLDERS if os.path.exists(path := f"{folder}/{name}")), None)
    if program is None:
        return Unavailable(f"{_FOLDERS[0]}/{name} is missing", "install it: it belongs to the daemon")
    import subprocess  # only root's checks of hosts with such a daemon pay for it

    try:
        done = subprocess.run(
            [program, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CLAIM_WITHIN_S,
            env={"LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Unavailable(f"{program} prints nothing within {CLAIM_WITHIN_S} s")
    except OSError as error:
        return Unavailable(f"{program} cannot be run: {error.strerror}")
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        return Unavailable(f"{program} fails: {complaint[:200]}")
    return done.stdout.decode(errors="replace")

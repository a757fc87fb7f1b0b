"""Write requirements.txt: the newest dependencies, pinned with the hashes of their wheels, for the Debian package.

`python packaging/pin.py` asks the package index; whoever runs it reads the difference before committing it.
"""

import hashlib
import subprocess
import tempfile
from pathlib import Path

from deb import MACHINES, REQUIREMENTS, dependencies, pip

HEADER = "# What the Debian package carries, so that it carries the same tomorrow. Written by packaging/pin.py.\n"


def main() -> None:
    """Download the wheels of every architecture and write down their names and hashes."""
    hashes: dict[str, set[str]] = {}
    for machine in MACHINES.values():
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(pip("download", machine, "--dest", folder, *dependencies()), check=True)
            for wheel in Path(folder).iterdir():
                name, version, *_ = wheel.name.split("-")
                digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
                hashes.setdefault(f"{name.replace('_', '-').lower()}=={version}", set()).add(digest)
    lines = [
        f"{pin} " + " ".join(f"\\\n    --hash=sha256:{digest}" for digest in sorted(digests))
        for pin, digests in sorted(hashes.items())
    ]
    REQUIREMENTS.write_text(HEADER + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

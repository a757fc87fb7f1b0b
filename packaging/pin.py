"""Write requirements.txt: the newest dependencies, pinned with their hashes, for the Debian package and `make install`.

`python packaging/pin.py` queries the package index. Review the difference before you commit it.
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from deb import MACHINES, REQUIREMENTS, build_requirements, dependencies, pip

HEADER = """\
# The dependencies in the Debian package and of `make install`. Each file must have one of these hashes.
# Written by packaging/pin.py.
"""

COMPILED = ("markupsafe", "psutil")
"""Dependencies with machine code: on a machine or a Python without a wheel they are built from source."""


def main() -> None:
    """Download the files for every architecture and write down their names and hashes."""
    hashes: dict[str, set[str]] = {}
    for machine in MACHINES.values():
        _add(hashes, pip("download", machine, *dependencies(), *build_requirements()))
    for name in COMPILED:
        (pin,) = (pin for pin in hashes if pin.startswith(f"{name}=="))
        _add(hashes, [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", pin])
    lines = [
        f"{pin} " + " ".join(f"\\\n    --hash=sha256:{digest}" for digest in sorted(digests))
        for pin, digests in sorted(hashes.items())
    ]
    REQUIREMENTS.write_text(HEADER + "\n".join(lines) + "\n")


def _add(hashes: dict[str, set[str]], command: list[str]) -> None:
    """Download files by a pip command, and add their hashes to those of their names and versions."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*command, "--dest", folder], check=True)
        for file in Path(folder).iterdir():
            name, version, *_ = file.name.removesuffix(".tar.gz").split("-")
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            hashes.setdefault(f"{name.replace('_', '-').lower()}=={version}", set()).add(digest)


if __name__ == "__main__":
    main()

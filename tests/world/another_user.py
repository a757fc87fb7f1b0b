"""A process that becomes another user only once everything that it needs is imported.

The checkout and the interpreter may be closed to other users: below /root, for example, which only root may enter.
"""

import os
import tempfile
from pathlib import Path

from tests.abilities import ANOTHER_USER


def become_another_user() -> None:
    """Give up root for good in this process: become uid and gid 65534, without any privilege."""
    os.setgroups([])
    os.setresgid(ANOTHER_USER, ANOTHER_USER, ANOTHER_USER)
    os.setresuid(ANOTHER_USER, ANOTHER_USER, ANOTHER_USER)


def let_others_in(folder: Path) -> None:
    """Let every user into a folder of a test: pytest makes it, and those above it, for their owner alone.

    How many those are depends on the run: a worker of pytest-xdist has one more.
    """
    for path in (folder, *folder.parents):
        if path.is_relative_to(tempfile.gettempdir()) and path != Path(tempfile.gettempdir()):
            path.chmod(0o755)

"""A process that becomes another user only once everything that it needs is imported.

The checkout and the interpreter may be closed to other users: below /root, for example, which only root may enter.
"""

import os

from tests.abilities import ANOTHER_USER


def become_another_user() -> None:
    """Give up root for good, in this process: nobody's user and group, without any privilege."""
    os.setgroups([])
    os.setresgid(ANOTHER_USER, ANOTHER_USER, ANOTHER_USER)
    os.setresuid(ANOTHER_USER, ANOTHER_USER, ANOTHER_USER)

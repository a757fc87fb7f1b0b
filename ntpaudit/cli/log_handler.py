"""The handler of log messages on standard error; imported with the first message (`ntpaudit.log`)."""

import logging
import os
from collections import deque

from ntpaudit.outputs.journal import journal_takes_our_output

REPEATING = ("ntpaudit.audit", "ntpaudit.polling")  # loggers whose messages come again with every poll
REMEMBERED = 32  # how many different messages are remembered to recognise a repetition

PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""The priorities of syslog(3) for the levels of `logging`."""


class JournalFormatter(logging.Formatter):
    """Begins each line with its priority, which systemd's journal takes off again (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a message with a priority before each of its lines."""
        prefix = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class RepetitionFilter:
    """Drops what an agent logs with every poll: a message of `REPEATING` that differs in its figures only."""

    def __init__(self) -> None:
        self._recent: deque[str] = deque(maxlen=REMEMBERED)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is logged."""
        if record.name not in REPEATING:
            return True
        text = "".join(character for character in record.getMessage() if not character.isdecimal())
        if text in self._recent:
            return False
        self._recent.append(text)
        return True


def configure(level: str, *, drop_repetitions: bool) -> None:
    """Send the program's messages of this level and above to standard error, and nowhere else."""
    handler = logging.StreamHandler()
    formatter = JournalFormatter if journal_takes_our_output(os.environ) else logging.Formatter
    handler.setFormatter(formatter("ntpaudit: %(message)s"))
    if drop_repetitions:
        handler.addFilter(RepetitionFilter())
    logger = logging.getLogger("ntpaudit")
    logger.setLevel(level)
    logger.handlers[:] = [handler]  # replaced, so that a second call prints nothing twice

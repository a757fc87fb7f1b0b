"""The messages that a part of the program logs, for the tests that read them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import finalize, ref


class _Handler(logging.Handler):
    """A handler that hands each message to a function."""

    def __init__(self, receive: Callable[[str], None]) -> None:
        super().__init__()
        self._receive = receive

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on the message."""
        self._receive(record.getMessage())


class Messages(list[str]):
    """The messages of the loggers below a name, from now on until this list is gone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        this, logger = ref(self), logging.getLogger(name)

        def receive(message: str) -> None:
            if (messages := this()) is not None:
                messages.append(message)

        handler = _Handler(receive)
        logger.addHandler(handler)
        finalize(self, logger.removeHandler, handler)

    def count_of(self, words: str) -> int:
        """Return how many messages have these words."""
        return sum(words in message for message in self)


@contextmanager
def messages_to(name: str, receive: Callable[[str], None]) -> Iterator[None]:
    """Call `receive` with each message of the loggers below a name."""
    logger, handler = logging.getLogger(name), _Handler(receive)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)

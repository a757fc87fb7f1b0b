"""Loggers that import the standard library's `logging` with their first message: it costs 7 % of a check's start-up."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

_configure: list[Callable[[], None]] = []


class LazyLogger:
    """`logging.getLogger(name)`, made when it is first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, message: str) -> None:
        """Log what helps to find a fault; dropped if nothing has imported `logging`, because then nothing shows it."""
        if "logging" in sys.modules:
            self._logger().debug(message)

    def info(self, message: str) -> None:
        """Log what is normal and worth knowing."""
        self._logger().info(message)

    def warning(self, message: str) -> None:
        """Log what an operator should check or fix."""
        self._logger().warning(message)

    def _logger(self) -> "logging.Logger":
        import logging

        while _configure:
            _configure.pop()()
        return logging.getLogger(self._name)


def configure_at_first_message(configure: Callable[[], None]) -> None:
    """Call `configure` once, before the first message is logged; it replaces what waited to be called."""
    _configure[:] = [configure]

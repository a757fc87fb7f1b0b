"""The latest record as metrics in a file that node_exporter's textfile collector reads, replaced at every audit."""

from collections.abc import Sequence

from ntpaudit.config.schema import OpenMetricsConfig
from ntpaudit.core.events import Event
from ntpaudit.core.record import Record
from ntpaudit.errors import OutputError
from ntpaudit.files import unwritable, write_atomically
from ntpaudit.formats.openmetrics import render


def open_output(config: OpenMetricsConfig) -> "_Textfile":
    """Return an output that keeps the file up to date."""
    return _Textfile(config.path)


class _Textfile:
    """The file's path. Between two records nothing is open."""

    def __init__(self, path: str) -> None:
        self._path = path

    def emit(self, record: Record, events: Sequence[Event]) -> None:
        """Replace the file. Raises OutputError, and then leaves the file unchanged."""
        try:
            write_atomically(self._path, render(record))
        except OSError as error:
            raise OutputError(unwritable(self._path, error)) from error

    def close(self) -> None:
        """Keep the file: its timestamp shows the age of the last record."""

"""Where the agent sends records: one module for each output, imported only when used."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ntpaudit.core.events import Event
    from ntpaudit.core.record import Record

OutputConfig = tuple[Any, ...]  # what `open_output` takes: the NamedTuple of its table in `config.schema`


class Output(Protocol):
    """Where the agent sends its records, besides the database."""

    def emit(self, record: "Record", events: "Sequence[Event]") -> None:
        """Send the latest record, which may be the same one again, and the events since the last call.

        Raises OutputError, whose message names the fix. Never waits for a reader.
        """

    def close(self) -> None:
        """Close what is open; nothing is sent any more."""


def open_outputs(configs: Mapping[str, OutputConfig | None]) -> dict[str, Output]:
    """Open every output that is configured, by the name of its module here; None means that it is not wanted.

    Its destination need not exist yet: `emit` reports a failure, and tries again the next time. OutputError for an
    address that no output can have.
    """
    return {
        name: import_module(f"{__name__}.{name}").open_output(config)
        for name, config in configs.items()
        if config is not None
    }

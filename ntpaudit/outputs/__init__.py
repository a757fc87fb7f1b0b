"""Where the agent sends records: one module for each output, imported only when used."""

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
        """Send the latest record, perhaps again, and the events since then. Never waits. OutputError names the fix."""

    def close(self) -> None:
        """Close what is open; nothing is sent any more."""


def open_output(name: str, config: OutputConfig) -> Output:
    """Open the output of the module `name` here. Its destination may be missing: each `emit` tries again."""
    output: Output = import_module(f"{__name__}.{name}").open_output(config)
    return output

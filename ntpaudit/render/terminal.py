"""Pages for a terminal: wrapped lines, labels, tables, colours.

Plain ASCII, and never wider than 100 columns. Colour, where wanted, is put on last and moves nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from textwrap import wrap
from typing import Generic, NamedTuple, TypeVar

from ntpaudit.core.policy import Severity
from ntpaudit.render.text_safety import short_words

_Item = TypeVar("_Item")

WIDTH, LEAST_WIDTH = 100, 40
_GAP = "  "
LABEL_WIDTH = 10
_CUT = "~"
_ENOUGH = 24  # characters of a name that most servers have, with their port
_LEAST = 12  # characters of a reason that most have
RED, GREEN, YELLOW, MAGENTA = 31, 32, 33, 35

SEVERITY_COLOURS = {Severity.OK: GREEN, Severity.WARNING: YELLOW, Severity.UNKNOWN: MAGENTA, Severity.CRITICAL: RED}
Paint = Callable[[str, int | None], str]  # colour a text, or leave it as it is


def fitting(width: int | None) -> int:
    """Return how wide a page is where there is that much room, None for any: LEAST_WIDTH to WIDTH columns."""
    return WIDTH if width is None else max(LEAST_WIDTH, min(width, WIDTH))


def page(*blocks: Iterable[str]) -> str:
    """Put blocks of lines one below the other, an empty line between them; an empty block leaves no trace."""
    return "\n\n".join(filter(None, ("\n".join(block) for block in blocks))) + "\n"


def painter(colour: bool) -> Paint:
    """Return what colours a text, or leaves it as it is."""
    return lambda text, code: text if code is None or not colour else f"\x1b[{code}m{text}\x1b[0m"


def opening(
    severity: Severity, sentence: str, paint: Paint, width: int = WIDTH, write: Callable[[str], str] | None = None
) -> list[str]:
    """Write how bad it is, and beside it a sentence; `write` as for `labelled`."""
    word = severity.name
    first, *others = wrap_text(sentence, word + _GAP, " " * len(word + _GAP), width, write)
    return [paint(word, SEVERITY_COLOURS[severity]) + first[len(word) :], *others]


class Column(NamedTuple, Generic[_Item]):
    """A column of a table. Where lines are too long, `spare` ones are left out and then those cut that give way.

    One that `is_name` is cut last, in the middle, and never so far that two things look alike; before it is cut to less
    than `_ENOUGH`, the columns that are `spare_for_names` are left out.
    """

    title: str
    cell: Callable[[_Item], str]
    is_number: bool = False
    gives_way: bool = False
    spare: bool = False
    colour: Callable[[_Item], int | None] | None = None
    is_name: bool = False
    spare_for_names: bool = False


def table(columns: Sequence[Column[_Item]], items: Sequence[_Item], paint: Paint, width: int = WIDTH) -> Iterator[str]:
    """Lay things out in columns that each say something, none of it wider than the page, if that can be."""
    filled = [(column, [column.cell(item) for item in items]) for column in columns]
    filled = [(column, cells) for column, cells in filled if any(cells)]
    widths = [max(len(column.title), *map(len, cells)) for column, cells in filled]
    for index in reversed([index for index, (column, _) in enumerate(filled) if column.spare]):
        if line_width(widths) > width:
            del filled[index], widths[index]
    for index in reversed([index for index, (column, _) in enumerate(filled) if column.spare_for_names]):
        least = [
            min(_ENOUGH, size) if column.is_name else min(_LEAST, size) if column.gives_way else size
            for size, (column, _) in zip(widths, filled, strict=True)
        ]
        if line_width(least) > width:
            del filled[index], widths[index]
    floors = [_least_width(column, cells) for column, cells in filled]
    for names in (False, True):
        chosen = [index for index, (column, _) in enumerate(filled) if column.gives_way and column.is_name == names]
        while line_width(widths) > width and (open_ := [index for index in chosen if widths[index] > floors[index]]):
            widths[max(open_, key=lambda index: widths[index])] -= 1
    laid = [_lay(column, cells, items, paint, room) for (column, cells), room in zip(filled, widths, strict=True)]
    return (_GAP.join(row).rstrip() for row in zip(*laid, strict=True))


def _least_width(column: Column[_Item], cells: Sequence[str]) -> int:
    """Return how far a column that gives way can be cut: names only as long as they stay apart."""
    if not column.is_name:
        return 1
    size = max(len(column.title), *map(len, cells))
    while size > len(column.title) and len({_cut_middle(cell, size - 1) for cell in cells}) == len(set(cells)):
        size -= 1
    return size


def _cut_end(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - len(_CUT)] + _CUT


def _cut_middle(name: str, width: int) -> str:
    """Leave the begin and the end of a name, which may be its port."""
    tail = (width - len(_CUT)) // 2
    return name if len(name) <= width else name[: width - tail - len(_CUT)] + _CUT + name[len(name) - tail :]


def _lay(
    column: Column[_Item], cells: Sequence[str], items: Sequence[_Item], paint: Paint, width: int
) -> Sequence[str]:
    """Pad or cut a column's title and its cells to its width, and colour these; numbers stand to the right."""
    cut = _cut_middle if column.is_name else _cut_end
    texts = [cut(text, width) for text in (column.title, *cells)]
    title, *fitted = (
        [text.rjust(width) for text in texts] if column.is_number else [text.ljust(width) for text in texts]
    )
    if (colour := column.colour) is not None:
        fitted = [paint(text, colour(item)) for text, item in zip(fitted, items, strict=True)]
    return [title, *fitted]


def line_width(widths: Sequence[int]) -> int:
    """Return how wide a line of such columns is."""
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def labelled(label: str, text: str, width: int = WIDTH, write: Callable[[str], str] | None = None) -> list[str]:
    """Write a label, and beside it a text in as many lines as it takes; `write` makes it fit for a line: ASCII."""
    return wrap_text(text, label.ljust(LABEL_WIDTH), " " * LABEL_WIDTH, width, write)


def wrap_text(
    text: str, first: str, then: str, width: int = WIDTH, write: Callable[[str], str] | None = None
) -> list[str]:
    """Break a text into lines of the page's width, the first after `first`, the others after `then`."""
    written = (write or to_ascii)(text)
    return wrap(written, width, initial_indent=first, subsequent_indent=then, break_on_hyphens=False)


def to_ascii(text: str) -> str:
    """Write what is not ASCII as escapes, because a terminal may be set to anything; only `µs` stays as it is."""
    parts = short_words(text).split("µ")
    return "µ".join(part.encode("ascii", "backslashreplace").decode("ascii") for part in parts)

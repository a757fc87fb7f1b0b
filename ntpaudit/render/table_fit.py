"""A table made to fit a terminal: whole columns are given up first, and names are cut so that they stay apart."""

from collections import Counter
from collections.abc import Sequence
from textwrap import wrap
from typing import TypeVar

from ntpaudit.render.terminal import Column, line_width

ENOUGH = 0.5  # for what names take beyond this share of a line no further column is given up: they are cut
LEAST = 12  # a column that gives way is cut to this before it is given up, in characters
_CUT = "~"

_Item = TypeVar("_Item")


def fit(
    columns: Sequence[Column[_Item]], items: Sequence[_Item], width: int, given_up: Sequence[str]
) -> tuple[list[Column[_Item]], list[list[str]]]:
    """Choose the columns that fit, and cut the names in the first one, where they must be, so that no two are alike.

    Columns are left out by title in the order `given_up`, until the names fit, or have enough of the line. The second
    list has for each item the lines above its row: its name, where no cut one would do.
    """
    first, *others = columns
    names = [first.cell(item) for item in items]
    sizes = {column.title: _size(column, items) for column in others}
    whole = max(map(len, (first.title, *names)))
    enough = ENOUGH * width
    asked: float = whole
    if whole > enough:
        domain = _domain([name for name in names if len(name) > enough])
        bare = (len(name) if len(name) <= enough else len(name.removesuffix(domain) + _CUT) for name in names)
        asked = min(max(bare), enough)
    for title in ("", *given_up):
        sizes.pop(title, None)
        room = width - line_width([0, *filter(None, sizes.values())])
        if room >= max(asked, len(first.title)):
            break
    kept = [column for column in others if column.title in sizes]
    if room >= whole:
        return [first, *kept], [[]] * len(items)
    cut = shorten(names, room)
    shown = {id(item): short or "" for item, short in zip(items, cut, strict=True)}
    above = [wrap(name, max(1, width)) if short is None else [] for name, short in zip(names, cut, strict=True)]
    return [first._replace(cell=lambda item: shown[id(item)]), *kept], above


def _size(column: Column[_Item], items: Sequence[_Item]) -> int:
    """Return the room that a column takes; one that says nothing is not shown, and takes none."""
    longest = max(len(column.cell(item)) for item in items)
    if not longest:
        return 0
    return max(min(longest, LEAST) if column.gives_way else longest, len(column.title))


def shorten(names: Sequence[str], room: int) -> list[str | None]:
    """Cut names longer than the room, first a shared domain, then the middle; None for those that would be alike."""
    domain = _domain([name for name in names if len(name) > room])
    if not domain:
        return _cut_alike(names, room)
    cut = _cut_alike([name.removesuffix(domain) if len(name) > room else name for name in names], room - len(_CUT))
    shown = [
        short if short is None or len(name) <= room else short + _CUT for name, short in zip(names, cut, strict=True)
    ]
    whole = [name if len(name) <= room else short for name, short in zip(names, shown, strict=True)]
    found = Counter(short for short in whole if short is not None)
    return [None if short is not None and found[short] > 1 else short for short in whole]


def _domain(names: Sequence[str]) -> str:
    """Return the domain that all names are in, with the dot before it; empty where they share none."""
    domain = ""
    for labels in zip(*(reversed(name.split(".")[1:]) for name in names), strict=False):
        if len(set(labels)) > 1:
            break
        domain = f".{labels[0]}{domain}"
    return domain


def _cut_alike(names: Sequence[str], room: int) -> list[str | None]:
    """Cut names that are longer than the room in their middle, all in one place; None for those that stay alike."""
    best: list[str | None] = []
    middle = (room - len(_CUT)) // 2
    heads = sorted(range(room - len(_CUT) + 1), key=lambda head: abs(head - middle)) if room > 2 else []
    for head in heads:
        tail = room - head - len(_CUT)
        cut = [name if len(name) <= room else name[:head] + _CUT + name[len(name) - tail :] for name in names]
        texts: dict[str, str] = {}
        alike = {short for name, short in zip(names, cut, strict=True) if texts.setdefault(short, name) != name}
        shown = [None if short in alike and len(name) > room else short for name, short in zip(names, cut, strict=True)]
        if not best or shown.count(None) < best.count(None):
            best = shown
        if not alike:
            break
    return best or [None] * len(names)

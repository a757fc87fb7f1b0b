"""How long a browser takes over the page of a fleet: to open it, to sort it and to show only some of it."""

import time
from pathlib import Path
from typing import NamedTuple

from tests.world.browser import Screen, chromium

WIDTH = 1280

_OPEN = "document.querySelectorAll('details').forEach((one) => one.open = true), document.body.offsetHeight"
_TIMED = (
    "(() => {{ const start = performance.now(); {}; document.body.offsetHeight; return performance.now() - start; }})()"
)
_SORT = _TIMED.format("document.querySelectorAll('.hosts thead button')[1].click()")
_FILTER = _TIMED.format(
    "const field = document.querySelector('.controls input'); field.value = 'warning'; "
    "field.dispatchEvent(new Event('input'))"
)


class Shown(NamedTuple):
    """A page's length, and how long each took; hosts that are folded away are unfolded before sorting."""

    octets: int
    opened_s: float
    sorted_s: float
    filtered_s: float


def look(path: Path) -> Shown:
    """Open a page in headless Chromium, and use it."""
    with chromium() as browser, browser.page() as tab:
        tab.show(Screen(WIDTH))
        began = time.perf_counter()
        tab.open(path)
        opened_s = time.perf_counter() - began
        tab.evaluate(_OPEN)
        sorted_s, filtered_s = (tab.evaluate(script) / 1e3 for script in (_SORT, _FILTER))
        return Shown(path.stat().st_size, opened_s, sorted_s, filtered_s)

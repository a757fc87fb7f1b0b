"""`python -m docs.pictures`: make the README's pictures of the programs' own output.

- fleet.png: the page of `ntpaudit fleet --demo --html` in a browser.
- panel.png: a panel of the dashboard *Host* over a database with the demonstration's points, drawn with Grafana's own
  components.
- check.png: the terminal after `ntpaudit demo --once`, a check whose servers are simulated.
"""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text

from grafana.__main__ import boards
from tests.command import ntpaudit
from tests.grafana.library import library
from tests.grafana.test_panels import choices
from tests.grafana.worlds import demonstration
from tests.world.browser import Browser, Screen, chromium
from tests.world.node import NODE, modules

FOLDER = Path(__file__).parent
PANEL = "Offset and bound"
HOST = "ams-app1"
COLUMNS = 96

_PANEL_PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="panel.css">
<style>body {{ margin: 0; font: 14px sans-serif }} * {{ box-sizing: border-box }} button {{ color: #ccccdc }}
body, button {{ background: #111217; color: #ccccdc }}</style>
<div id="panel"></div>
<script>
window.grafanaBootData = {{ settings: {{ featureToggles: {{}} }}, user: {{}} }};
window.drawn = {drawn};
</script>
<script src="panel.js"></script>
"""
_TERMINAL_PAGE = """<!doctype html><meta charset="utf-8">
<style>body {{ margin: 0; background: {background}; color: {foreground} }}
pre {{ margin: 14px; font: 14px/1.3 monospace; width: max-content }}</style>
<pre>{code}</pre>
"""


def fleet(browser: Browser, folder: Path) -> None:
    """Show the first screen of the demonstration's page."""
    made = ntpaudit("demo", state=folder)
    assert made.status == 0, made.err
    page = folder / "fleet.html"
    ntpaudit("fleet", "--demo", "--html", str(page), state=folder)
    _take(browser, page, "fleet", Screen(1120, 610))


def panel(browser: Browser, folder: Path) -> None:
    """Draw a panel of a host whose clock was stepped back and forward."""
    screen = Screen(1120, 380)
    with demonstration() as filled, library() as grafana:
        shown = grafana.show(
            boards("promql")["host"],
            "promql",
            filled.urls["promql"],
            filled.span,
            choices(host=(HOST,)),
            panels=(PANEL,),
            raw=True,
        )[PANEL]
    begin_ms, end_ms = filled.span
    drawn = {"panel": shown.raw["panel"], "source": shown.raw["source"], "range": {"from": begin_ms, "to": end_ms}}
    drawn |= {"width": screen.width, "height": screen.height}
    bundler = modules(FOLDER) / "esbuild-wasm" / "bin" / "esbuild"
    subprocess.run(
        [
            str(NODE),
            str(bundler),
            str(FOLDER / "panel.jsx"),
            "--bundle",
            f"--outfile={folder / 'panel.js'}",
            "--log-level=warning",
            '--define:process.env.NODE_ENV="production"',
            *(f"--loader:.{kind}=dataurl" for kind in ("svg", "ttf", "woff2")),
        ],
        env={**os.environ, "NODE_PATH": str(modules(FOLDER))},
        check=True,
    )
    page = folder / "panel.html"
    page.write_text(_PANEL_PAGE.format(drawn=json.dumps(drawn).replace("</", "<\\/")))
    _take(browser, page, "panel", screen)


def check(browser: Browser, folder: Path) -> None:
    """Show the terminal's last frame of a check whose servers are simulated on loopback."""
    words = ["ntpaudit", "demo", "--once"]
    output = _in_terminal([sys.executable, "-m", *words], folder)
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text(f"$ {' '.join(words)}"), Text.from_ansi(output), sep="\n")
    page = folder / "check.html"
    page.write_text(console.export_html(code_format=_TERMINAL_PAGE, inline_styles=True))
    _take(browser, page, "check", Screen(860, 470))


def _in_terminal(command: Sequence[str], folder: Path) -> str:
    """Return what a command prints on a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    environment |= {"STATE_DIRECTORY": str(folder)}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        printed = b""
        try:
            while part := os.read(ours, 4096):
                printed += part
        except OSError:  # the terminal's other end is closed
            pass
    os.close(ours)
    return printed.decode().replace("\r\n", "\n")


def _take(browser: Browser, page: Path, name: str, screen: Screen) -> None:
    with browser.page() as tab:
        tab.show(screen)
        tab.open(page)
        tab.evaluate("document.documentElement.style.overflow = 'hidden'")
        tab.evaluate("new Promise((done) => setTimeout(done, 1000))")  # the panel is drawn after the page has loaded
        assert not tab.complaints, tab.complaints
        tab.picture(FOLDER / f"{name}.png")


if __name__ == "__main__":
    with chromium() as running, TemporaryDirectory() as temporary:
        for make in (fleet, panel, check):
            make(running, Path(temporary))

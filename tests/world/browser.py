"""A real browser for the tests: Debian's headless Chromium, driven by its DevTools protocol over a pair of pipes."""

import base64
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.abilities import need
from tests.world import packages

PROGRAM = "chromium-headless-shell"

_ANSWER_S = 60.0
_FLAGS = (
    "--no-sandbox",  # which root cannot have; the only pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
)
_TO_BROWSER, _FROM_BROWSER = 3, 4
"""The descriptors on which it listens and answers, each message closed by a NUL."""


class Screen(NamedTuple):
    """What a page is shown on: its size in CSS pixels, and whether its owner prefers dark pages."""

    width: int
    height: int = 900
    dark: bool = False


class Page:
    """A tab of the browser, and all that it was seen to ask for and to complain of.

    `requests` are the addresses that it wanted, `refusals` why it got none of those that it did not get, and
    `complaints` what stands in its console, exceptions included.
    """

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser = browser
        self._session = session
        self.requests: list[str] = []
        self.refusals: list[str] = []
        self.complaints: list[str] = []

    def open(self, path: Path, *, scripts: bool = True) -> Self:
        """Load a file and wait until it is complete; without `scripts`, as where JavaScript is switched off."""
        self._browser.listen(self._session, self._note)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Page.navigate", url=path.as_uri())
        self._browser.wait(self._session, "Page.loadEventFired")
        return self

    def show(self, screen: Screen) -> None:
        """Show it on a screen of that kind."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=screen.width,
            height=screen.height,
            deviceScaleFactor=1,
            mobile=screen.width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if screen.dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, script: str) -> Any:
        """Return what a JavaScript expression gives, a promise's result once it is there; its exception is raised."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise AssertionError(done["exceptionDetails"])
        return done["result"].get("value")

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Save what is seen as PNG, or the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        """Print it as it asks for."""
        printed = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        return base64.b64decode(printed["data"])

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the protocol."""
        return self._browser.call(method, session=self._session, **arguments)

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {**size, "scale": 1}}

    def _note(self, event: str, facts: Any) -> None:
        match event:
            case "Network.requestWillBeSent":
                self.requests.append(facts["request"]["url"])
            case "Network.loadingFailed":
                self.refusals.append(facts.get("blockedReason", facts["errorText"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(f"console: {facts['args']}")
            case "Runtime.exceptionThrown":
                self.complaints.append(f"exception: {facts['exceptionDetails']}")
            case "Log.entryAdded":
                self.complaints.append(f"{facts['entry']['level']}: {facts['entry']['text']}")


class Browser:
    """A running Chromium, with a profile of its own that is thrown away."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._rest = b""
        self._last = 0
        self._events: list[tuple[str, str]] = []
        self._listeners: dict[str, Any] = {}

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A new tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        try:
            yield Page(self, session)
        finally:
            self.call("Target.closeTarget", targetId=target)

    def call(self, method: str, session: str | None = None, **arguments: Any) -> Any:
        """Call a method of the protocol, and wait for its answer."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": arguments}
        os.write(self._out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def listen(self, session: str, listener: Any) -> None:
        """Call a function for each event of a tab."""
        self._listeners[session] = listener

    def wait(self, session: str, event: str) -> None:
        """Wait for the next event of this kind from a tab."""
        while (session, event) not in self._events:
            self._receive()
        self._events.remove((session, event))

    def _receive(self) -> Any:
        deadline = time.monotonic() + _ANSWER_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._in, 1 << 20) if ready else b""
            if not chunk:
                raise AssertionError(f"no answer from {PROGRAM} for {_ANSWER_S:g} s")
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        reported = json.loads(message)
        if "method" in reported:
            session = reported.get("sessionId", "")
            self._events.append((session, reported["method"]))
            self._listeners.get(session, lambda *_: None)(reported["method"], reported["params"])
        return reported


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium until the end of the block; it can resolve no name, so that nothing of it leaves the machine."""
    need("browser")
    program = packages.program(PROGRAM)
    listens, to_browser = os.pipe()
    from_browser, answers = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        profile = [f"--user-data-dir={folder}", "--host-resolver-rules=MAP * ~NOTFOUND"]
        # The shell gives it the descriptors under the numbers that it looks for, whatever ours are.
        connect = f'exec "$@" {_TO_BROWSER}<&{listens} {_FROM_BROWSER}>&{answers}'
        process = subprocess.Popen(
            ["bash", "-c", connect, "-", str(program), *_FLAGS, *profile, "about:blank"],
            pass_fds=(listens, answers),
            env=_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(listens)
        os.close(answers)
        try:
            yield Browser(to_browser, from_browser)
        finally:
            os.close(to_browser)  # which ends it
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(from_browser)


def _environment() -> dict[str, str]:
    """Its own libraries load others from folders beside them, which they expect in the machine's own place."""
    found = packages.environment()
    places = [str(path) for path in sorted((packages.cache_folder() / "packages/root").glob("usr/lib/*/pulseaudio"))]
    return {**found, "LD_LIBRARY_PATH": ":".join([found["LD_LIBRARY_PATH"], *places]), "LANG": "C.UTF-8"}

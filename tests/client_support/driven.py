"""A headless browser that is driven as a user would: keys, focus, what a screen reader is told.

Chromium's DevTools protocol over its own pipe (--remote-debugging-pipe): JSON, each ended by NUL.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browser import CHROMIUM, FLAGS

_ANSWER_S = 60.0


class Page:
    """An open page."""

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._answers, self._buffer, self._number = to, answers, b"", 0
        self._session = ""

    def open(self, url: str) -> None:
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.ask("Page.enable")
        self.ask("Page.navigate", url=url)

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self.ask("Browser.close")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; answer its result. What else comes is left out."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            told = json.loads(self._next())
            if told.get("id") == self._number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result

    def _next(self) -> bytes:
        end_s = time.monotonic() + _ANSWER_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0, end_s - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._answers, 1 << 16)
            assert part, "the browser has ended"
            self._buffer += part
        one, _, self._buffer = self._buffer.partition(b"\0")
        return one

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def eventually(self, expression: str, timeout_s: float = 60.0) -> Any:
        """The expression, once it is true."""
        end_s = time.monotonic() + timeout_s
        while not (value := self.value(expression)):
            assert time.monotonic() < end_s, f"{expression}\n{self.text()}"
            time.sleep(0.05)
        return value

    def text(self) -> str:
        return str(self.value("document.body.innerText"))

    def press(self, key: str, text: str = "") -> None:
        """A key goes down and up again."""
        code = {"Tab": 9, "Enter": 13, " ": 32}.get(key, 0)
        one = {"key": key, "windowsVirtualKeyCode": code, "text": text}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **one)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def told(self) -> list[tuple[str, str]]:
        """Role and name of all that a screen reader is told of."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]

    def screenshot(self, path: Path) -> None:
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def driven(url: str, profile: Path) -> Iterator[Page]:
    """A page in a browser of its own."""
    assert CHROMIUM is not None
    (their_in, to), (answers, their_out) = os.pipe(), os.pipe()
    # Chromium reads from descriptor 3 and writes to 4.
    wrapper = ["bash", "-c", 'exec "$@" 3<&"$IN" 4>&"$OUT"', "bash"]
    argv = [*wrapper, CHROMIUM, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    environment = {**os.environ, "IN": str(their_in), "OUT": str(their_out)}
    quiet = subprocess.DEVNULL
    browser = subprocess.Popen(
        argv, env=environment, pass_fds=(their_in, their_out), stdout=quiet, stderr=quiet
    )
    os.close(their_in)
    os.close(their_out)
    try:
        page = Page(to, answers)
        page.open(url)
        yield page
        # So it takes its temporary folders with it.
        page.close()
        browser.wait(30)
    finally:
        os.close(to)
        os.close(answers)
        browser.terminate()
        browser.wait(30)

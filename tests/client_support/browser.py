"""A page in a headless browser, and what is in it afterwards."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
HOSTILE = "\"><script>document.title='owned'</script><img src=x onerror=\"document.title='o'\">'&"


class Numbers(HTMLParser):
    """The numbers of a page by what they count, the tags it has, and its title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[tuple[str, str], int] = {}
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.handlers += [name for name in values if name.startswith("on")]
        self.sources += [v or "" for n, v in attrs if n in ("src", "href", "xlink:href", "style")]
        if "data-count" in values:
            key = (values["data-of"] or "", values.get("data-key") or "")
            self.found[key] = int(values["data-count"] or "")


def opened(html: Path, profile: Path) -> str:
    """The page as the browser has it, after scripts would have run."""
    assert CHROMIUM is not None
    argv = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", html.as_uri()]
    return subprocess.run(argv, capture_output=True, text=True, timeout=90, check=True).stdout

"""How the parsers come by files: somebody reads for them, and they never read more than so many."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Protocol

from hostlerd.ssl.model.site import Parsed

MOST_FILES, MOST_DEPTH, MOST_SITES = 2000, 16, 5000


class Source(Protocol):
    """Reads configuration files."""

    def read(self, path: str) -> str | None:
        """The text of a file, None if it cannot be read or is too large."""
        ...

    def glob(self, pattern: str) -> Sequence[str]:
        """The files that a pattern names, in order; the files of a folder that is named."""
        ...


class Files:
    """The files of one configuration: counted, and what is missing noted."""

    def __init__(self, source: Source, parsed: Parsed) -> None:
        self._source = source
        self._parsed = parsed
        self._left = MOST_FILES

    def read(self, path: str, depth: int = 0) -> str:
        """The text of a file, "" with a note where it cannot be read."""
        if depth > MOST_DEPTH or self._left <= 0:
            self._parsed.note("TOO_MANY_FILES", "includes too much to be followed", path)
            return ""
        self._left -= 1
        text = self._source.read(path)
        if text is None:
            self._parsed.note("CONFIGURATION_UNREADABLE", "cannot be read", path)
            return ""
        return text

    def glob(self, pattern: str) -> Sequence[str]:
        """The files that a pattern names."""
        return self._source.glob(pattern)[:MOST_FILES]


def joined(folder: str, path: str) -> str:
    """A path that may be relative to a folder."""
    return posixpath.normpath(posixpath.join(folder, path))


def folder_of(path: str) -> str:
    """The folder that a file is in."""
    return posixpath.dirname(path)


def listener(address: str, port: int | str) -> str:
    """ADDRESS:PORT as all of them are written; "" and "0.0.0.0" are all addresses."""
    bare = address.strip("[]")
    if bare in ("", "*", "0.0.0.0", "_default_"):  # noqa: S104 # compared, not bound
        return f"*:{port}"
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def split_listener(text: str, default_port: int) -> tuple[str, str]:
    """Address and port of "443", "*:443", "[::]:443", "host" or "host:443"."""
    if text.isdigit():
        return "*", text
    if text.startswith("["):
        address, _, rest = text.partition("]")
        return f"{address}]", rest.removeprefix(":") or str(default_port)
    address, colon, port = text.rpartition(":")
    return (address, port) if colon else (text, str(default_port))


def is_on(value: str) -> bool:
    """Whether a word of a configuration switches something on."""
    return value.strip("\"'").lower() in ("on", "yes", "true", "1", "enable", "required")

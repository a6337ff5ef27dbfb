"""Where in a TOML file each value begins, which tomllib does not tell.

A scanner of valid TOML 1.0: it knows where tokens end, and leaves their values to tomllib. Text
that tomllib does not take may be scanned in any way.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRINGS = (
    # A multi-line string may end with quotes of its own before the three that close it.
    re.compile(r'"""(?:\\.|[^\\])*?"""("{0,2})', re.DOTALL),
    re.compile(r"'''.*?'''('{0,2})", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\\n])*"'),
    re.compile(r"'[^'\n]*'"),
)
_OTHER = re.compile(r"[^,\]}#\n]+")
_INDEX = re.compile(r"\[(\d+)\]")
# tomllib itself recurses, and ends before this.
_DEEPEST = 500


@dataclass(frozen=True)
class Places:
    """The lines, from 1, where the values of a document begin, by key path."""

    lines: Mapping[str, int]

    def line(self, path: str) -> int:
        """The line of a value such as `rules[3].sources[0]`; of what would hold it if it is absent.

        1 for what nothing in the document would hold.
        """
        while path and path not in self.lines:
            path = _parent(path)
        return self.lines.get(path, 1)


def places(text: str) -> Places:
    """Find where every value of a TOML document begins."""
    scanner = _Scanner(text)
    scanner.document()
    return Places({worded(path): line for path, line in scanner.found.items()})


def worded(path: KeyPath) -> str:
    """A key path in words: keys joined by dots, indices in brackets."""
    words = ""
    for part in path:
        words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else part
    return words


def _parent(path: str) -> str:
    """What holds the value at a path; empty for the document itself."""
    return path[: max(path.rfind("."), path.rfind("["), 0)]


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0
        self._lengths: dict[KeyPath, int] = {}
        self.found: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        while self._skip():
            before = self._at
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table, 0)
            if self._at == before:
                # Not TOML; each turn has to get on.
                self._at += 1

    def _here(self) -> int:
        """The line of the place where the scanner is."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _skip(self) -> bool:
        """Pass over blanks, line ends and comments; answer whether anything is left."""
        blank = _BLANK.match(self._text, self._at)
        self._at = blank.end() if blank else self._at
        return self._at < len(self._text)

    def _take(self, word: str) -> bool:
        if not self._text.startswith(word, self._at):
            return False
        self._at += len(word)
        return True

    def _note(self, path: KeyPath, line: int, *, explicit: bool = True) -> None:
        """Keep where a value begins. A table's own header counts more than a mention of it."""
        if explicit:
            self.found[path] = line
        else:
            self.found.setdefault(path, line)

    def _header(self) -> KeyPath:
        line = self._here()
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        keys = self._keys()
        self._skip()
        self._take("]]" if is_array else "]")
        path: KeyPath = ()
        for key in keys[:-1]:
            path = self._last((*path, key), line)
        path = (*path, *keys[-1:])
        if not is_array:
            path = path if path not in self._lengths else (*path, self._lengths[path] - 1)
            self._note(path, line)
            return path
        index = self._lengths.get(path, 0)
        self._lengths[path] = index + 1
        self._note(path, line, explicit=False)
        self._note((*path, index), line)
        return (*path, index)

    def _last(self, path: KeyPath, line: int) -> KeyPath:
        """A table on the way to another one; of an array of tables, the last."""
        self._note(path, line, explicit=False)
        return path if path not in self._lengths else (*path, self._lengths[path] - 1)

    def _keys(self) -> list[str]:
        """The keys of a header or a dotted key."""
        keys = []
        while self._skip():
            found = _BARE_KEY.match(self._text, self._at) or self._string()
            if found is None:
                break
            self._at = found.end()
            keys.append(_unquoted(found[0]))
            self._skip()
            if not self._take("."):
                break
        return keys

    def _string(self) -> re.Match[str] | None:
        for kind in _STRINGS:
            if found := kind.match(self._text, self._at):
                return found
        return None

    def _pair(self, table: KeyPath, depth: int) -> None:
        line = self._here()
        keys = self._keys()
        if not keys:
            return
        path = table
        for key in keys[:-1]:
            path = (*path, key)
            self._note(path, line, explicit=False)
        self._skip()
        self._take("=")
        self._skip()
        self._value((*path, keys[-1]), depth)

    def _value(self, path: KeyPath, depth: int) -> None:
        self._note(path, self._here())
        if depth > _DEEPEST:
            return
        if self._take("["):
            self._array(path, depth)
        elif self._take("{"):
            self._inline_table(path, depth)
        elif found := self._string() or _OTHER.match(self._text, self._at):
            self._at = found.end()

    def _array(self, path: KeyPath, depth: int) -> None:
        index = 0
        while self._skip() and not self._take("]"):
            before = self._at
            self._value((*path, index), depth + 1)
            index += 1
            self._skip()
            if not self._take(",") and self._at == before:
                return

    def _inline_table(self, path: KeyPath, depth: int) -> None:
        while self._skip() and not self._take("}"):
            before = self._at
            self._pair(path, depth + 1)
            self._skip()
            if not self._take(",") and self._at == before:
                return


def _unquoted(token: str) -> str:
    if token[:1] not in ('"', "'"):
        return token
    try:
        return str(tomllib.loads(f"key = {token}")["key"])
    except tomllib.TOMLDecodeError:
        return token

"""Where values begin in TOML, against documents whose layout the test itself has made."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.toml_places import KeyPath, places, worded

PLAIN = """\
# a comment with [[rules]] in it
name = "a # no comment"   # one
hosts = ["x",
  # "y",
  'z[0]', # ]
  "w"]
text = '''
[rules]
a = 1
'''
more = \"\"\"\\
  "quoted" \\"\"\" [x]
\"\"\"
a.b.c = 1
a."d.e" = {x = [1,
  2], y = "}"}
date = 1979-05-27 07:32:00Z

[[rules]]
id = "one"
[rules.log]
rate = { burst = [1,
2], packets = 1 }
[[rules]]

sources = [ [ 1 ], [
   2 ] ]
[[rules.deep]]
[[rules.deep]]
z = 1
[ "quoted table" . sub ]
k=1
[x]
"""


def test_a_document_by_hand() -> None:
    tomllib.loads(PLAIN)
    found = places(PLAIN)
    assert {path: line for path, line in found.lines.items() if path.startswith("rules")} == {
        "rules": 19,
        "rules[0]": 19,
        "rules[0].id": 20,
        "rules[0].log": 21,
        "rules[0].log.rate": 22,
        "rules[0].log.rate.burst": 22,
        "rules[0].log.rate.burst[0]": 22,
        "rules[0].log.rate.burst[1]": 23,
        "rules[0].log.rate.packets": 23,
        "rules[1]": 24,
        "rules[1].sources": 26,
        "rules[1].sources[0]": 26,
        "rules[1].sources[0][0]": 26,
        "rules[1].sources[1]": 26,
        "rules[1].sources[1][0]": 27,
        "rules[1].deep": 28,
        "rules[1].deep[0]": 28,
        "rules[1].deep[1]": 29,
        "rules[1].deep[1].z": 30,
    }
    assert [found.line(f"hosts[{index}]") for index in range(3)] == [3, 5, 6]
    assert [found.line(key) for key in ("text", "more", "a.b.c", "date")] == [7, 11, 14, 17]
    assert found.line("a.d.e.x[1]") == 16
    assert found.line("a.d.e.y") == 16
    assert found.line("quoted table.sub.k") == 32
    assert found.line("x") == 33


def test_what_is_absent_is_where_it_would_be() -> None:
    found = places(PLAIN)
    assert found.line("rules[1].action") == 24
    assert found.line("rules[0].log.rate.unit") == 22
    assert found.line("rules[9].action") == 19
    assert found.line("nothing") == 1
    assert found.line("") == 1


@pytest.mark.parametrize(
    "text",
    ["[", "[[", "]", "a", "a =", "a = [", "a = {", "a = [,", "= 1", '"', "'''", "a..b=1", "\\"],
)
def test_what_is_not_toml_ends_all_the_same(text: str) -> None:
    places(text)


@settings(max_examples=200)
@given(st.text(alphabet="[]{}\"'=,.#\n\\ ab1", max_size=60))
def test_any_text_ends(text: str) -> None:
    places(text)


def paths_of(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from paths_of(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from paths_of(each, (*path, index))


class Writer:
    """Writes a document by hand, in a layout that is drawn, and keeps the line of every value."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw
        self.text = ""
        self.lines: dict[KeyPath, int] = {}

    def chance(self) -> bool:
        return bool(self._draw(st.booleans()))

    def note(self, path: KeyPath) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def gap(self) -> None:
        """Between lines: blank lines and comments, with what would be tokens elsewhere."""
        self.text += self._draw(
            st.sampled_from(["", "\n", "# [[x]] = 'a\n", "\n  # {\n\n", '\t# """\n'])
        )

    def key(self, key: str) -> str:
        if key.isascii() and key.isalnum() and self.chance():
            return key
        return tomlkit.string(key).as_string() if self.chance() or "'" in key else f"'{key}'"

    def string(self, text: str) -> str:
        kinds = [tomlkit.string(text).as_string(), tomlkit.string(text, multiline=True).as_string()]
        if "'" not in text and "\n" not in text:
            kinds.append(f"'{text}'")
        if "'''" not in text and not text.startswith("\n"):
            kinds.append(f"'''\n{text}'''")
        if '"""' not in text and "\\" not in text:
            # It may end with quotes of its own.
            kinds.append(f'"""\n{text}"""')
        return str(self._draw(st.sampled_from(kinds)))

    def between(self) -> str:
        """Inside an array line ends and comments may stand anywhere."""
        return str(self._draw(st.sampled_from(["", " ", "\n", " # ],\n ", "\n\n\t"])))

    def value(self, path: KeyPath, value: Any) -> None:
        self.note(path)
        if isinstance(value, str):
            self.text += self.string(value)
        elif isinstance(value, list):
            self.text += "["
            for index, each in enumerate(value):
                self.text += self.between()
                self.value((*path, index), each)
                self.text += self.between()
                self.text += "," if index + 1 < len(value) or self.chance() else ""
            self.text += self.between() + "]"
        elif isinstance(value, dict):
            self.text += "{ "
            for index, (key, each) in enumerate(value.items()):
                self.text += (", " if index else "") + self.key(key) + " = "
                self.value((*path, key), each)
            self.text += " }"
        else:
            self.text += tomlkit.item(value).as_string()

    def table(self, path: KeyPath, header: list[str], table: dict[str, Any]) -> None:
        """Pairs first, then the tables that get headers of their own."""
        later = []
        for key, value in table.items():
            rows = isinstance(value, list) and value and all(isinstance(v, dict) for v in value)
            if (isinstance(value, dict) or rows) and self.chance():
                later.append((key, value))
                continue
            self.gap()
            self.pair(path, key, value)
        for key, value in later:
            words = [*header, self.key(key)]
            for index, each in enumerate(value) if isinstance(value, list) else ((None, value),):
                self.gap()
                self.note((*path, key))
                below = (*path, key) if index is None else (*path, key, index)
                self.note(below)
                head = " . ".join(words) if self.chance() else ".".join(words)
                self.text += f"[{head}] # [x]\n" if index is None else f" [[{head}]]\n"
                self.table(below, words, each)

    def pair(self, path: KeyPath, key: str, value: Any) -> None:
        """One line, or for a table whose keys allow it one line with a dotted key for each."""
        self.note((*path, key))
        if isinstance(value, dict) and value and self.chance():
            for inner, each in value.items():
                self.text += f"{self.key(key)} . {self.key(inner)} = "
                self.value((*path, key, inner), each)
                self.text += "\n"
            return
        self.text += f"{self.key(key)}  = "
        self.value((*path, key), value)
        self.text += "  # = 'x'\n" if self.chance() else "\n"


WORDS = st.text(alphabet="ab1#[]{}\"'\\=,.\n é", max_size=8) | st.sampled_from(['a"', '#""', "'"])
KEYS = st.text(alphabet="abc_ #[]\"'=é", min_size=1, max_size=4).filter(lambda k: "\n" not in k)
VALUES = st.recursive(
    st.one_of(
        WORDS, st.booleans(), st.integers(-99, 99), st.just(datetime(2030, 1, 2, tzinfo=UTC))
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)


@settings(max_examples=300, deadline=None)
@given(st.data(), DOCUMENTS)
def test_every_value_is_found_where_it_begins(data: Any, document: dict[str, Any]) -> None:
    writer = Writer(data.draw)
    writer.table((), [], document)
    assert tomllib.loads(writer.text) == document
    found = places(writer.text).lines
    expected = {worded(path): writer.lines[path] for path in paths_of(document)}
    assert {path: found.get(path) for path in expected} == expected, writer.text


@settings(max_examples=200, deadline=None)
@given(DOCUMENTS)
def test_what_tomlkit_writes_is_found_whole(document: dict[str, Any]) -> None:
    """Which line it is shows in that line alone being enough to change the value."""
    text = tomlkit.dumps(document)
    found = places(text).lines
    lines = text.split("\n")
    for path in paths_of(tomllib.loads(text)):
        line = found[worded(path)]
        assert 1 <= line <= len(lines)
        keys = [part for part in path if isinstance(part, str)]
        if isinstance(path[-1], str) and '"' not in keys[-1] and "\\" not in keys[-1]:
            assert keys[-1] in lines[line - 1]

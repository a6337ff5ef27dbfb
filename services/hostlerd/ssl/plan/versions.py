"""The order of versions: Debian's, and that of the libraries themselves. Pure."""

from __future__ import annotations

import re
from itertools import zip_longest

_OWN = re.compile(r"(\d+(?:\.\d+)*)([a-z]*)")


def compare_debian(a: str, b: str) -> int:
    """Compare versions of Debian packages: below 0, 0 or above, as a is older, equal or newer.

    Source: deb-version(7), "Sorting algorithm".
    """
    for left, right in zip(_split(a), _split(b), strict=True):
        if order := _compare(left, right):
            return order
    return 0


def _split(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    return (epoch, upstream, revision) if dash else (epoch, rest, "0")


def _compare(a: str, b: str) -> int:
    """Compare one part: runs of other characters and runs of digits, in turns."""
    while a or b:
        left, a = _run(a, digits=False)
        right, b = _run(b, digits=False)
        for x, y in zip_longest(left, right, fillvalue=""):
            if _weight(x) != _weight(y):
                return -1 if _weight(x) < _weight(y) else 1
        left, a = _run(a, digits=True)
        right, b = _run(b, digits=True)
        if int(left or "0") != int(right or "0"):
            return -1 if int(left or "0") < int(right or "0") else 1
    return 0


def _run(text: str, *, digits: bool) -> tuple[str, str]:
    end = 0
    while end < len(text) and (text[end] in "0123456789") is digits:
        end += 1
    return text[:end], text[end:]


def _weight(character: str) -> int:
    """A tilde sorts before the end, the end before letters, letters before all else."""
    if character == "~":
        return -1
    if not character:
        return 0
    return ord(character) if character.isascii() and character.isalpha() else ord(character) + 256


def compare_own(a: str, b: str) -> int:
    """Compare versions as OpenSSL and its like count: 1.1.1k before 1.1.1w before 3.0.2.

    What is no such version sorts before all that are.
    """
    left, right = _own(a), _own(b)
    return (left > right) - (left < right)


def _own(version: str) -> tuple[tuple[int, ...], int, str]:
    found = _OWN.match(version)
    if found is None:
        return (), 0, ""
    numbers = [int(n) for n in found[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers), len(found[2]), found[2]


def is_debian(version: str) -> bool:
    """Whether a version is one of a Debian package, by its revision."""
    return "-" in version


def upstream_of(version: str) -> str:
    """The library's own version in that of its package."""
    return _split(version)[1].partition("+")[0].partition("~")[0]

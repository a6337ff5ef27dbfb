"""How wide a fan-out is, in which waves a change goes out, and how many hosts may fail in it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_WINDOW = 256
MAX_WINDOW = 500
_NUMBER_OR_SHARE = re.compile(r"(\d{1,9})|(\d{1,3}(?:\.\d{1,6})?)%", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many hosts may fail before no further one is started: a number, or a share in percent."""

    count: int = 0
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> Tolerance:
        """Read "3" or "10%". Raises ValueError."""
        count, percent = _number_or_share(text)
        return cls(count=count, percent=percent)

    def allowed(self, total: int) -> int:
        """How many of so many hosts may fail."""
        return self.count if self.percent is None else int(total * self.percent / 100)

    def __str__(self) -> str:
        return str(self.count) if self.percent is None else f"{self.percent:g}%"


@dataclass(frozen=True, slots=True)
class Batches:
    """The waves of a rollout, each by how many hosts have it once the wave is over.

    `texts` are counts or shares as they were written, so "1,10%,100%" is: one host, then the rest
    of a tenth, then all others. The last one is always 100%.
    """

    texts: tuple[str, ...] = ("1", "100%")

    @classmethod
    def parse(cls, text: str) -> Batches:
        """Read "1,10%,100%". Raises ValueError.

        It must end in 100%, and neither counts nor shares may become smaller: a rollout that left
        hosts out would not say so anywhere else.
        """
        texts = tuple(part.strip() for part in text.split(","))
        largest = {"count": 0.0, "percent": 0.0}
        for each in texts:
            count, percent = _number_or_share(each)
            kind, size = ("count", float(count)) if percent is None else ("percent", percent)
            if size <= largest[kind]:
                raise ValueError(f"{text!r}: {each} is not more than what comes before it")
            largest[kind] = size
        if texts[-1] != "100%":
            raise ValueError(f"{text!r} must end in 100%, or hosts would be left out")
        return cls(texts)

    def split(self, total: int) -> list[int]:
        """How many of so many hosts each wave has; waves without any are left out.

        A share is rounded up, so that the smallest one is still a host.
        """
        sizes: list[int] = []
        done = 0
        for text in self.texts:
            count, percent = _number_or_share(text)
            upto = count if percent is None else math.ceil(total * percent / 100)
            size = min(upto, total) - done
            if size > 0:
                sizes.append(size)
                done += size
        return sizes

    def __str__(self) -> str:
        return ",".join(self.texts)


def _number_or_share(text: str) -> tuple[int, float | None]:
    found = _NUMBER_OR_SHARE.fullmatch(text)
    if found is None or float(found[2] or 0) > 100:
        raise ValueError(f"{text!r} is neither a number nor a percentage up to 100%")
    return (int(found[1]), None) if found[1] is not None else (0, float(found[2]))


def shortened(names: Sequence[str], most: int = 8) -> str:
    """Names in as few words as say it: all of them, or ranges such as "web[001-400]".

    Ranges are of neighbours in the given order whose numbers follow each other. Of more than
    `most` words the first are given, and how many names they leave out.
    """
    if len(names) <= most:
        return ", ".join(names)
    words = _ranges(names)
    if len(words) <= most:
        return ", ".join(word for word, _ in words)
    kept = words[: most - 1]
    left_out = len(names) - sum(count for _, count in kept)
    return f"{', '.join(word for word, _ in kept)} and {left_out} more"


def _ranges(names: Sequence[str]) -> list[tuple[str, int]]:
    """Each word, and how many names it stands for."""
    words: list[tuple[str, int]] = []
    start = 0
    for end in range(1, len(names) + 1):
        if end < len(names) and _follows(names[end - 1], names[end]):
            continue
        count = end - start
        if count > 2:
            words.append((_range(names[start], names[end - 1]), count))
        else:
            words += [(name, 1) for name in names[start:end]]
        start = end
    return words


def _numbered(name: str) -> tuple[str, str, str] | None:
    """The text before a name's first number, the number, and the text after it."""
    found = re.match(r"(\D*)(\d{1,18})(.*)", name, re.ASCII)
    return (found[1], found[2], found[3]) if found else None


def _follows(first: str, second: str) -> bool:
    one, two = _numbered(first), _numbered(second)
    if one is None or two is None or (one[0], one[2]) != (two[0], two[2]):
        return False
    same_width = len(one[1]) == len(two[1]) or "0" not in (one[1][0], two[1][0])
    return same_width and int(two[1]) == int(one[1]) + 1


def _range(first: str, last: str) -> str:
    one, two = _numbered(first), _numbered(last)
    if one is None or two is None:
        raise ValueError(f"{first!r} or {last!r} has no number")
    return f"{one[0]}[{one[1]}-{two[1]}]{one[2]}"

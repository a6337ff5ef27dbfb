"""Our own nft text, line by line: cut into pieces, found back from errors, given counters."""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hostlerd.firewall.model.state import Counter, RuleKey

_CHAIN = re.compile(r"\tchain (\w+) \{")
_COUNTED = re.compile(r'\bcounter (?=[^"]+ comment "([^" ]+)[^"]*"$)')
_HOOK = "\t\ttype "
_LABEL = re.compile(r' comment "([^" ]+)[^"]*"$')
_PLACE = re.compile(r"^/dev/stdin:(\d+):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a table that nft can load by itself; line N of it is `lines[N-1]` of the table."""

    text: str
    lines: tuple[str, ...]


def cut(text: str, most_bytes: int) -> Iterator[Piece]:
    """Cut a table into pieces of about so many bytes, to be loaded one after the other.

    The table must not be there before the first. A rule is never cut.
    """
    piece = ["table inet hostler {"]
    size, chain, head = 0, "", ""
    for line in text.splitlines()[1:-1]:
        named = _CHAIN.match(line)
        if named:
            chain = head = line
        # A base chain must be declared with its hook at once.
        if size > most_bytes and chain and line.startswith("\t\t") and not line.startswith(_HOOK):
            yield _piece([*piece, "\t}", "}"])
            piece, size = ["table inet hostler {", head], 0
        piece.append(line)
        size += len(line.encode())
        if line == "\t}":
            chain = ""
    yield _piece([*piece, "}"])


def culprit(errors: str, lines: tuple[str, ...]) -> tuple[str, str]:
    """Answer the label and the text of the rule that an error of nft is about; empty if none is."""
    place = _PLACE.search(errors)
    number = int(place.group(1)) if place else 0
    if not 0 < number <= len(lines):
        return "", ""
    line = lines[number - 1]
    label = _LABEL.search(line)
    return (label.group(1) if label else ""), line.strip()


def with_counters(text: str, counters: Mapping[RuleKey, Counter]) -> str:
    """Answer the table with the counters of the rules that it has by the same keys."""
    if not counters:
        return text
    seen: Tally[tuple[str, str]] = Tally()
    chain, lines = "", []
    for line in text.splitlines():
        named = _CHAIN.match(line)
        counted = None if named else _COUNTED.search(line)
        if named:
            chain = named.group(1)
        elif counted:
            label = counted.group(1)
            had = counters.get(RuleKey(chain, label, seen[chain, label]))
            seen[chain, label] += 1
            if had:
                told = f"counter packets {had.packets} bytes {had.bytes} "
                line = line[: counted.start()] + told + line[counted.end() :]
        lines.append(line)
    return "\n".join([*lines, ""])


def _piece(lines: list[str]) -> Piece:
    return Piece("\n".join([*lines, ""]), tuple(lines))

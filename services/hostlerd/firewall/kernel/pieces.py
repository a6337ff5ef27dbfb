"""Our own nft text for a trial: cut into pieces, and found back from errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hostlerd.firewall.kernel.text import Block, label_of, read, render

_PLACE = re.compile(r"^/dev/stdin:(\d+):", re.MULTILINE)
_FLOW = "flow add @"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the tables that nft can load by itself."""

    text: str

    @property
    def lines(self) -> tuple[str, ...]:
        """Its lines, by which an error names its place."""
        return tuple(self.text.splitlines())


def cut(text: str, most_bytes: int) -> Iterator[Piece]:
    """Cut tables into pieces of about so many bytes, to be loaded one after the other.

    The tables must not be there before the first. A rule is never cut. Elements of sets are left
    out: they are numbers of ours, and need no trial. So are flowtables, whose links are not there.
    """
    for family, blocks in read(text).items():
        declared = [b for b in blocks.values() if b.kind in ("set", "ct helper")]
        chains = [b for b in blocks.values() if b.kind == "chain"]
        # All chains are there before a rule jumps to one.
        bare = [replace(b, lines=b.declared) for b in (*declared, *chains)]
        yield from (Piece(render(family, part)) for part in _parts(bare, most_bytes))
        for chain in chains:
            yield from (Piece(render(family, [part])) for part in _rules(chain, most_bytes))


def elements(text: str, most_bytes: int) -> Iterator[str]:
    """Answer commands that fill the sets of tables that `cut` has made, piece by piece."""
    for family, blocks in read(text).items():
        for block in blocks.values():
            listed = block.elements.split(", ") if block.elements else []
            # The longest element is a range of IPv6 addresses.
            step = max(1, most_bytes // 80)
            for at in range(0, len(listed), step):
                part = ", ".join(listed[at : at + step])
                yield f"add element {family} hostler {block.name} {{ {part} }}\n"


def without(text: str, applied: str) -> str:
    """Answer the tables without the rules that stand in these, applied and so found to be good."""
    before = read(applied)
    kept = []
    for family, blocks in read(text).items():
        had = before.get(family, {})
        kept.append(render(family, [_news(b, had.get((b.kind, b.name))) for b in blocks.values()]))
    return "".join(kept)


def _news(block: Block, before: Block | None) -> Block:
    if block.kind != "chain" or before is None:
        return block
    old = frozenset(before.rules)
    return replace(block, lines=(*block.declared, *(r for r in block.rules if r not in old)))


def culprit(errors: str, lines: Sequence[str]) -> tuple[str, str]:
    """Answer the label and the text of the rule that an error of nft is about; empty if none is."""
    place = _PLACE.search(errors)
    number = int(place.group(1)) if place else 0
    if not 0 < number <= len(lines):
        return "", ""
    line = lines[number - 1]
    return label_of(line), line.strip()


def _parts(blocks: Sequence[Block], most_bytes: int) -> Iterator[list[Block]]:
    part: list[Block] = []
    size = 0
    for block in blocks:
        if part and size > most_bytes:
            yield part
            part, size = [], 0
        part.append(block)
        size += sum(len(line) for line in block.lines)
    if part:
        yield part


def _rules(chain: Block, most_bytes: int) -> Iterator[Block]:
    part: list[str] = []
    size = 0
    for line in chain.rules:
        if _FLOW in line:
            continue
        if part and size > most_bytes:
            yield replace(chain, lines=tuple(part))
            part, size = [], 0
        part.append(line)
        size += len(line.encode())
    if part:
        yield replace(chain, lines=tuple(part))

"""Our own nft text, read back: tables, and the blocks in them, line by line."""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hostlerd.firewall.model.state import Counter, RuleKey

FAMILIES = ("inet", "bridge")
DYNAMIC = 'comment "dynamic"'
ELEMENTS = "elements = "
_TABLE = re.compile(r"table (\w+) hostler \{")
_BLOCK = re.compile(r"\t(set|ct helper|flowtable|chain) (\S+) \{")
_COUNTED = re.compile(r'\bcounter (?=[^"]* ?comment "([^" ]+)[^"]*"$)')
_LABEL = re.compile(r' comment "([^" ]+)[^"]*"$')


@dataclass(frozen=True, slots=True)
class Block:
    """A set, a helper, a flowtable or a chain, and the lines in it."""

    kind: str
    name: str
    lines: tuple[str, ...]

    @property
    def hook(self) -> str:
        """Of a base chain the line that says its hook and policy; empty for another one."""
        first = self.lines[0] if self.lines else ""
        return first if self.kind == "chain" and first.startswith("type ") else ""

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules of a chain."""
        return self.lines[1:] if self.hook else self.lines

    @property
    def declared(self) -> tuple[str, ...]:
        """What is declared of it, without what it holds."""
        if self.kind == "chain":
            return (self.hook,) if self.hook else ()
        return tuple(line for line in self.lines if not line.startswith(ELEMENTS))

    @property
    def elements(self) -> str:
        """Of a set its elements, as they stand between the braces; empty for none."""
        found = next((line for line in self.lines if line.startswith(ELEMENTS)), "")
        return found.removeprefix(ELEMENTS).strip("{} ")

    @property
    def is_dynamic(self) -> bool:
        """Whether it is a set whose elements are not the ruleset's."""
        return self.kind == "set" and DYNAMIC in self.lines


Blocks = Mapping[tuple[str, str], Block]


def read(text: str) -> dict[str, dict[tuple[str, str], Block]]:
    """Answer the blocks of each table by its family, in order, by kind and name."""
    tables: dict[str, dict[tuple[str, str], Block]] = {}
    blocks: dict[tuple[str, str], Block] = {}
    kind = name = ""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("\t\t"):
            lines.append(line[2:])
        elif line == "\t}":
            blocks[kind, name] = Block(kind, name, tuple(lines))
        elif head := _BLOCK.match(line):
            kind, name, lines = head[1], head[2], []
        elif head := _TABLE.match(line):
            blocks = tables.setdefault(head[1], {})
    return tables


def render(family: str, blocks: Sequence[Block]) -> str:
    """Write a table of blocks; empty for none."""
    if not blocks:
        return ""
    texts = [
        "".join([f"\t{b.kind} {b.name} {{\n", *(f"\t\t{line}\n" for line in b.lines), "\t}\n"])
        for b in blocks
    ]
    return f"table {family} hostler {{\n" + "".join(texts) + "}\n"


def has_flowtables(text: str) -> bool:
    """Whether any of the tables has a flowtable."""
    return any(kind == "flowtable" for blocks in read(text).values() for kind, _ in blocks)


def label_of(line: str) -> str:
    """Answer the label of a rule, RULESET/ID; empty if it has none."""
    found = _LABEL.search(line)
    return found.group(1) if found else ""


def with_counters(
    chain: str, rules: Sequence[str], counters: Mapping[RuleKey, Counter]
) -> Iterator[str]:
    """Answer the rules of a chain with the counters that rules of their keys had."""
    seen: Tally[str] = Tally()
    for line in rules:
        counted = _COUNTED.search(line)
        if counted is None:
            yield line
            continue
        label = counted.group(1)
        had = counters.get(RuleKey(chain, label, seen[label]))
        seen[label] += 1
        if had is None:
            yield line
        else:
            told = f"counter packets {had.packets} bytes {had.bytes} "
            yield line[: counted.start()] + told + line[counted.end() :]

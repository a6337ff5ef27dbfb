"""One transaction from the tables as they were applied to what they should be, in nft's words.

What stays as it is, is not touched: chains keep their counters and sets their elements. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher

from hostlerd.firewall.kernel.text import FAMILIES, Block, Blocks, read, render, with_counters
from hostlerd.firewall.model.state import Counter, RuleKey

# Beyond that share of a chain's rules it is written anew: each rule by handle costs more.
_MOST_BY_HANDLE = 0.2
# What difflib compares in time that nobody notices.
_COMPARED_MOST = 20_000

Chain = tuple[str, str]
"""A chain: family and name."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What the kernel has of chains and dynamic sets: handles in order, counters, elements."""

    handles: Mapping[Chain, Sequence[int]] = field(default_factory=dict)
    counters: Mapping[RuleKey, Counter] | None = field(default_factory=dict)
    elements: Mapping[Chain, str] = field(default_factory=dict)


class CountersNeeded(Exception):
    """A chain is to be written anew, and its counters have not been listed."""


class CannotStep(Exception):
    """The way from here to there is by whole tables."""


def whole(text: str, listed: Listed) -> str:
    """Answer what puts these tables in place of those there are, with counters and elements."""
    wanted = read(text)
    # Declaring one first lets its deletion pass where there was none.
    parts = [f"table {f} hostler\ndelete table {f} hostler\n" for f in FAMILIES]
    for family, blocks in wanted.items():
        parts.append(render(family, [_filled(family, b, listed) for b in blocks.values()]))
    return "".join(parts)


def chains_to_list(have: str, want: str) -> list[Chain]:
    """Answer the chains that are there and whose rules are to change."""
    before, after = read(have), read(want)
    return [
        (family, name)
        for family, blocks in after.items()
        for (kind, name), block in blocks.items()
        if kind == "chain"
        and (old := before.get(family, {}).get((kind, name))) is not None
        and old.rules != block.rules
    ]


def step(have: str, want: str, listed: Listed) -> str:
    """Answer what leads from the tables as applied to others.

    Raises CannotStep; CountersNeeded where `listed` has none.
    """
    before, after = read(have), read(want)
    parts: list[str] = []
    for family in FAMILIES:
        old, new = before.get(family, {}), after.get(family, {})
        if old and not new:
            parts.append(f"delete table {family} hostler\n")
        elif new and not old:
            parts.append(render(family, [with_elements(family, b, listed) for b in new.values()]))
        elif old != new:
            parts += _between(family, old, new, listed)
    return "".join(parts)


def _filled(family: str, block: Block, listed: Listed) -> Block:
    if block.kind == "chain":
        rules = with_counters(block.name, block.rules, listed.counters or {})
        return replace(block, lines=(*block.declared, *rules))
    return with_elements(family, block, listed)


def with_elements(family: str, block: Block, listed: Listed) -> Block:
    """Answer a dynamic set with its elements, and anything else as it is."""
    elements = listed.elements.get((family, block.name), "")
    if block.is_dynamic and elements:
        return replace(block, lines=(*block.lines, f"elements = {{ {elements} }}"))
    return block


def _between(family: str, old: Blocks, new: Blocks, listed: Listed) -> Iterator[str]:
    """First what is new, then what changes, then what goes: in an order that nft takes."""
    kept = [(old[key], block) for key, block in new.items() if key in old]
    for before, after in kept:
        if before.kind != "chain" and before.declared != after.declared:
            raise CannotStep
    added = [block for key, block in new.items() if key not in old]
    # Chains are there before any rule that jumps to one.
    yield render(family, [with_elements(family, _empty(block), listed) for block in added])
    gone = [block for key, block in old.items() if key not in new]
    chains = [block for block in gone if block.kind == "chain"]
    yield from (f"flush chain {family} hostler {block.name}\n" for block in chains)
    for before, after in kept:
        if before.kind == "set" and before.elements != after.elements:
            yield from _elements(family, before, after)
        elif before.kind == "chain":
            yield from _chain(family, before, after, listed)
    for block in added:
        if block.kind == "chain" and block.rules:
            yield render(family, [replace(block, lines=block.rules)])
    yield from (f"delete {b.kind} {family} hostler {b.name}\n" for b in _last_first(gone))


def _empty(block: Block) -> Block:
    return replace(block, lines=block.declared) if block.kind == "chain" else block


def _last_first(gone: Sequence[Block]) -> list[Block]:
    return sorted(gone, key=lambda block: block.kind != "chain")


def _elements(family: str, before: Block, after: Block) -> Iterator[str]:
    """What only grows is added to. What loses something is filled anew, at once with its flush.

    nft(8) 1.0.6 looks through a whole interval set for each element that it deletes: to delete a
    hundred of 10,000 takes it seconds, to fill the set anew a tenth of one.
    """
    had = before.elements.split(", ") if before.elements else []
    wanted = after.elements.split(", ") if after.elements else []
    kept = frozenset(had)
    if kept <= frozenset(wanted):
        comes = [element for element in wanted if element not in kept]
    else:
        comes = wanted
        yield f"flush set {family} hostler {after.name}\n"
    if comes:
        yield f"add element {family} hostler {after.name} {{ {', '.join(comes)} }}\n"


def _chain(family: str, before: Block, after: Block, listed: Listed) -> Iterator[str]:
    if before.hook != after.hook:
        # A policy can be said anew; nothing else of a hook of ours ever changes.
        yield render(family, [replace(after, lines=after.declared)])
    if before.rules == after.rules:
        return
    handles = listed.handles.get((family, before.name), ())
    few = None
    if len(handles) == len(before.rules):
        few = _by_handle(f"{family} hostler {after.name}", before.rules, after.rules, handles)
    if few is not None:
        yield from few
        return
    if listed.counters is None:
        raise CountersNeeded
    yield f"flush chain {family} hostler {after.name}\n"
    rules = tuple(with_counters(after.name, after.rules, listed.counters))
    if rules:
        yield render(family, [replace(after, lines=rules)])


def _by_handle(
    chain: str, before: Sequence[str], after: Sequence[str], handles: Sequence[int]
) -> list[str] | None:
    """Answer commands for the rules that differ; None if they are too many."""
    if len(before) + len(after) > _COMPARED_MOST * 2:
        return None
    # The line is what tells rules apart; a counter is kept by not touching its rule.
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    commands: list[str] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            continue
        for line in after[j1:j2]:
            if i2 < len(handles):
                commands.append(f"insert rule {chain} handle {handles[i2]} {line}\n")
            else:
                commands.append(f"add rule {chain} {line}\n")
        commands += [f"delete rule {chain} handle {handles[i]}\n" for i in range(i1, i2)]
        if len(commands) > max(2, _MOST_BY_HANDLE * len(before)):
            return None
    return commands

"""How tables differ from what they were after they were applied, in words. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter as Tally
from collections.abc import Iterator

from hostlerd.firewall.kernel.text import FAMILIES, Block, label_of, read

_LINES_MOST = 20
_RULE_CHARACTERS = 120
_POLICY = re.compile(r"policy (\w+);")


def details(before: str, now: str, fingerprint_before: str, fingerprint: str) -> tuple[str, ...]:
    """Answer what is gone, changed or somebody else's, at most 20 lines.

    Both tables are as nft lists them, elements and counters left out; of the elements of static
    sets the fingerprints tell.
    """
    found = [*_tables(before, now), *_elements(fingerprint_before, fingerprint)]
    if len(found) > _LINES_MOST:
        more = len(found) - _LINES_MOST + 1
        found = [*found[: _LINES_MOST - 1], f"{more} more"]
    return tuple(found)


def _tables(before: str, now: str) -> Iterator[str]:
    had, has = read(before), read(now)
    for family in FAMILIES:
        old, new = had.get(family, {}), has.get(family, {})
        if old and not new:
            yield f"table {family} hostler is gone"
            continue
        yield from (f"{kind} {name} is gone" for kind, name in old if (kind, name) not in new)
        yield from (f"{kind} {name} of somebody else" for kind, name in new.keys() - old.keys())
        for key, block in old.items():
            if key in new and block.lines != new[key].lines:
                yield from _block(block, new[key])


def _block(had: Block, has: Block) -> Iterator[str]:
    if had.kind != "chain":
        yield f"{had.kind} {had.name} is declared in another way"
        return
    if had.hook != has.hook:
        policy = _POLICY.search(has.hook)
        words = f"policy is {policy[1]}" if policy else "it has no hook any more"
        yield f"chain {had.name}: {words}"
    gone = Tally(had.rules) - Tally(has.rules)
    came = Tally(has.rules) - Tally(had.rules)
    changed = {label_of(line) for line in gone} & {label_of(line) for line in came} - {""}
    for line in gone.elements():
        label = label_of(line)
        what = f"rule {label} is {'changed' if label in changed else 'gone'}"
        yield f"chain {had.name}: {what if label else f'a rule is gone: {_short(line)}'}"
    for line in came.elements():
        if label_of(line) not in changed:
            yield f"chain {had.name}: a rule of somebody else: {_short(line)}"
    if not gone and not came and had.rules != has.rules:
        yield f"chain {had.name}: its rules are in another order"


def _elements(before: str, now: str) -> Iterator[str]:
    """A part of a fingerprint whose key has two words is about the elements of a set."""
    had, has = json.loads(before), json.loads(now)
    for key in had:
        if " " in key and key in has and has[key] != had[key]:
            yield f"set {key.partition(' ')[2]}: its elements are others"


def _short(line: str) -> str:
    return line if len(line) <= _RULE_CHARACTERS else f"{line[:_RULE_CHARACTERS]} ..."

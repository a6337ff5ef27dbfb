"""Flowtables, on a host where links come and go.

The kernel refuses a whole table for a flowtable whose link is not there, and takes a link that
goes away out of its flowtable without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from hostlerd.firewall.model.ruleset import Ruleset


def with_links(rulesets: Iterable[Ruleset], links: Collection[str]) -> Iterator[Ruleset]:
    """Answer the rulesets with what of their flowtables can be made now.

    At a boot rules stand before links do, and must not be missing for the want of one.
    """
    for ruleset in rulesets:
        if any(lacking([ruleset], links)):
            there = (
                replace(f, ifnames=tuple(name for name in f.ifnames if name in links))
                for f in ruleset.flowtables
            )
            yield replace(ruleset, flowtables=tuple(f for f in there if f.ifnames))
        else:
            yield ruleset


def lacking(rulesets: Iterable[Ruleset], links: Collection[str]) -> Iterator[str]:
    """Answer what flowtables go without, in words."""
    for ruleset in rulesets:
        for flowtable in ruleset.flowtables:
            for name in flowtable.ifnames:
                if name not in links:
                    yield f"flowtable {flowtable.name} goes without {name}, which is not there"

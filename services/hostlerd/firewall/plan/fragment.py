"""Fragments in the table: their lines, each named by a comment like a rule."""

from __future__ import annotations

from collections.abc import Sequence

from hostlerd.firewall.model.ruleset import FragmentPlace, Ruleset


def fragment_rules(rulesets: Sequence[Ruleset], place: FragmentPlace) -> list[str]:
    """Answer the lines of all fragments that stand at a place."""
    return [
        f'{line} comment "{r.name}/fragment-{f.id}"'
        for r in rulesets
        for f in r.fragments
        if f.place is place
        for line in f.nft_rules.splitlines()
    ]

"""Which deployments of a host go in one run: those that share a server, which is reloaded once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

T = TypeVar("T")


def together(deployments: Iterable[T], units: Callable[[T], Collection[str]]) -> list[list[T]]:
    """Group deployments by the servers that they share, directly or by others between them."""
    groups: list[tuple[set[str], list[T]]] = []
    for one in deployments:
        shared, joined = set(units(one)), [one]
        for group in [group for group in groups if group[0] & shared]:
            groups.remove(group)
            shared, joined = shared | group[0], [*group[1], *joined]
        groups.append((shared, joined))
    return [joined for _, joined in groups]

"""Draws what a host stores things on as SVG: what carries is left of what it carries. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from hostler.api.storage.v1 import graph_pb2 as pb
from hostler.skew import word

_WIDE, _HIGH, _GAP_X, _GAP_Y, _EDGE = 190, 44, 60, 14, 20
_CHARS = 28
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.small{font-size:10px;fill:#555}"
    ".host{font-weight:bold;font-size:14px}rect{fill:#eef2f7;stroke:#557}"
    ".bad rect{fill:#fde8e8;stroke:#a00;stroke-width:2}path{fill:none;stroke:#889}"
)
# States that mean trouble; said in words too, colour is never alone.
_BAD = frozenset({"degraded", "inactive", "failed", "offline", "faulty"})


def drawn(graphs: Iterable[tuple[str, Any]]) -> str:
    """Draw the graphs of hosts, one below the other; each is a GetGraphResponse."""
    parts: list[str] = []
    top, right = 0, 0
    for host, graph in graphs:
        parts.append(f'<text class="host" x="{_EDGE}" y="{top + 24}">{escape(host)}</text>')
        places = _places(graph, top + 40)
        parts += _edges(graph, places)
        parts += [_box(node, *places[node.id]) for node in graph.nodes]
        top = max((y + _HIGH for _, y in places.values()), default=top + 40) + _EDGE
        right = max([right, *(x + _WIDE for x, _ in places.values())])
    wide, high = max(right + _EDGE, 200), top + _EDGE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" '
        f'width="{wide}" height="{high}" role="img" aria-label="what hosts store things on">'
        f"<style>{_STYLE}</style>{''.join(parts)}</svg>\n"
    )


def _places(graph: Any, top: int) -> dict[str, tuple[int, int]]:
    """Where each node is: its column is one right of the last of those that carry it."""
    columns: dict[str, int] = {}
    lower: dict[str, list[str]] = {}
    for edge in graph.edges:
        lower.setdefault(edge.upper, []).append(edge.lower)
    for node in graph.nodes:  # Those that carry come first.
        below = [columns[each] for each in lower.get(node.id, ()) if each in columns]
        columns[node.id] = max(below, default=-1) + 1
    rows: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for node in graph.nodes:
        column = columns[node.id]
        row = rows.get(column, 0)
        below_rows = [places[each][1] for each in lower.get(node.id, ()) if each in places]
        # Not above the first of those that carry it, where there is room.
        y = max(top + row * (_HIGH + _GAP_Y), min(below_rows, default=top))
        rows[column] = (y - top) // (_HIGH + _GAP_Y) + 1
        places[node.id] = (_EDGE + column * (_WIDE + _GAP_X), y)
    return places


def _edges(graph: Any, places: dict[str, tuple[int, int]]) -> Sequence[str]:
    found = []
    for edge in graph.edges:
        if edge.lower not in places or edge.upper not in places:
            continue
        (x1, y1), (x2, y2) = places[edge.lower], places[edge.upper]
        x1, y1, y2 = x1 + _WIDE, y1 + _HIGH // 2, y2 + _HIGH // 2
        middle = (x1 + x2) // 2
        title = escape(f"{edge.lower} → {edge.upper}" + (f": {edge.role}" if edge.role else ""))
        curve = f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"
        found.append(f'<path d="{curve}"><title>{title}</title></path>')
    return found


def _box(node: Any, x: int, y: int) -> str:
    kind = word(pb.NodeKind, node.kind)
    state = f", {node.state}" if node.state else ""
    bad = ' class="bad"' if node.state in _BAD else ""
    return (
        f'<g{bad}><title>{escape(node.id)}</title><rect x="{x}" y="{y}" width="{_WIDE}" '
        f'height="{_HIGH}" rx="4"/><text x="{x + 8}" y="{y + 18}">{escape(_cut(node.name))}</text>'
        f'<text class="small" x="{x + 8}" y="{y + 34}">{escape(_cut(kind + state))}</text></g>'
    )


def _cut(text: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= _CHARS else shown[: _CHARS - 1] + "…"

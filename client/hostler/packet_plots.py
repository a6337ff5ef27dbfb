"""Plots as SVG text: bars for hours, bars for a table. Pure; every word is escaped.

Colours are classes that the page's style gives a light and a dark value, never alone: each plot has
a title, a description, and a table beside it with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

WIDTH = 720
HEIGHT = 220
SERIES = 6
"""How many classes of colour there are, s0 to s5; the last is for all the others."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 8, 10, 30
_BAR, _LABEL = 24, 250
_MOST_LABEL = 38
_MOST_LINES = 5


def hours_plot(
    name: str,
    title: str,
    described: str,
    hours: Sequence[tuple[str, Mapping[str, int]]],
    series: Sequence[str],
) -> str:
    """Stacked bars, one for each hour: its label, and the number of each of `series`."""
    most = max((sum(values.values()) for _, values in hours), default=0)
    step = _step(most)
    lines = max(1, -(-most // step))
    top = step * lines
    wide, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    parts = []
    for line in range(lines + 1):
        y = _TOP + high - high * line / lines
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:g}" y2="{y:g}"/>'
        )
        parts.append(f'<text class="end" x="{_LEFT - 6}" y="{y + 4:g}">{step * line:,}</text>')
    each = wide / max(1, len(hours))
    gap = min(2.0, each / 5)
    for place, (label, values) in enumerate(hours):
        x, y = _LEFT + place * each, float(_TOP + high)
        for number, action in enumerate(series):
            count = values.get(action, 0)
            if not count:
                continue
            tall = high * count / top
            y -= tall
            parts.append(
                f'<rect class="s{min(number, SERIES - 1)}" x="{x + gap / 2:.2f}" y="{y:.2f}" '
                f'width="{each - gap:.2f}" height="{tall:.2f}">'
                f"<title>{escape(label)}, {escape(action or '-')}: {count:,}</title></rect>"
            )
    every = max(1, -(-len(hours) // 8))
    for place in range(0, len(hours), every):
        x = _LEFT + place * each + each / 2
        parts.append(f'<text class="middle" x="{x:.1f}" y="{HEIGHT - 8}">'
                     f"{escape(hours[place][0][5:])}</text>")  # fmt: skip
    return _svg(name, title, described, WIDTH, HEIGHT, parts)


def bars_plot(
    name: str, title: str, described: str, rows: Sequence[tuple[str, int]],
    shade: Callable[[str], int] = lambda _label: 0,
) -> str:  # fmt: skip
    """Bars from left to right, one for each row."""
    most = max((count for _, count in rows), default=0) or 1
    wide = WIDTH - _LABEL - 90
    parts = []
    for place, (label, count) in enumerate(rows):
        y = place * _BAR
        shown = label if len(label) <= _MOST_LABEL else f"{label[: _MOST_LABEL - 1]}…"
        long = max(1.0, wide * count / most)
        parts.append(f'<text class="end" x="{_LABEL - 8}" y="{y + 16}">{escape(shown)}</text>')
        parts.append(
            f'<rect class="s{min(shade(label), SERIES - 1)}" x="{_LABEL}" y="{y + 3}" '
            f'width="{long:.2f}" height="{_BAR - 7}">'
            f"<title>{escape(label)}: {count:,}</title></rect>"
        )
        parts.append(f'<text x="{_LABEL + long + 6:.2f}" y="{y + 16}">{count:,}</text>')
    return _svg(name, title, described, WIDTH, max(_BAR, _BAR * len(rows)), parts)


def _svg(
    name: str, title: str, described: str, width: int, height: int, parts: Sequence[str]
) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {width} {height}" '
        f'aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(described)}</desc>{"".join(parts)}</svg>'
    )


def _step(most: int) -> int:
    """The distance of the grid's lines: 1, 2 or 5 with zeros, so that few hold the most."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor * _MOST_LINES >= most:
                return step * factor
        step *= 10

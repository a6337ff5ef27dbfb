"""What grows with the number of hosts, as SVG text: points, and the line they are to lie on. Pure.

Both axes are linear, so a cost that is the same for each host is a straight line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

WIDTH, HIGH = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 30, 34, 40
_STEPS = 5
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.title{font-weight:bold;font-size:14px}"
    ".end{text-anchor:end}.middle{text-anchor:middle}.grid{stroke:#ccd}"
    ".straight{stroke:#889;stroke-dasharray:5 4}.point{fill:#1b5e9c}"
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One value over the number of hosts; several rounds of each number are several points.

    With `straight` a line is drawn through the smallest and the largest number's medians.
    """

    label: str
    values: Mapping[int, Sequence[float]]
    straight: bool = False


def plot(title: str, across: str, panels: Sequence[Panel]) -> str:
    """Draw panels below each other; `across` says what the numbers along the lower edge are."""
    height = _TOP + HIGH * len(panels)
    parts = [f"<style>{_STYLE}</style>", '<rect width="100%" height="100%" fill="#fff"/>']
    parts.append(f'<text class="title" x="{_LEFT}" y="20">{escape(title)}</text>')
    for number, panel in enumerate(panels):
        parts += _drawn(panel, across, _TOP + HIGH * number)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}"><title>{escape(title)}</title>{"".join(parts)}</svg>\n'
    )


def step(most: float) -> float:
    """The distance of the grid's lines: 1, 2 or 5 with zeros, so that at most 5 hold the most."""
    unit = 1e-6
    while True:
        for factor in (1, 2, 5):
            if unit * factor * _STEPS >= most:
                return unit * factor
        unit *= 10


def _drawn(panel: Panel, across: str, top: float) -> list[str]:
    most_x, most_y = max(panel.values), max(max(each) for each in panel.values.values())
    step_x, step_y = step(most_x), step(most_y or 1)
    wide, high = WIDTH - _LEFT - _RIGHT, HIGH - _BOTTOM - 20
    bottom = top + 20 + high

    def x(value: float) -> float:
        return _LEFT + wide * value / (step_x * _STEPS)

    def y(value: float) -> float:
        return bottom - high * value / (step_y * _STEPS)

    parts = [f'<text x="{_LEFT}" y="{top + 12:g}">{escape(panel.label)}</text>']
    for line in range(_STEPS + 1):
        at_x, at_y = x(step_x * line), y(step_y * line)
        parts += [
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at_y:g}" y2="{at_y:g}"/>',
            f'<text class="end" x="{_LEFT - 6}" y="{at_y + 4:g}">{step_y * line:,g}</text>',
            f'<text class="middle" x="{at_x:g}" y="{bottom + 16:g}">{step_x * line:,g}</text>',
        ]
    parts.append(
        f'<text class="end" x="{WIDTH - _RIGHT}" y="{bottom + 32:g}">{escape(across)}</text>'
    )
    if panel.straight:
        ends = [(n, median(panel.values[n])) for n in (min(panel.values), most_x)]
        (x1, y1), (x2, y2) = ((x(n), y(value)) for n, value in ends)
        parts.append(
            f'<line class="straight" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
        )
    for count, values in sorted(panel.values.items()):
        for value in values:
            shown = f"{count:,} {across}: {value:.3g} {panel.label}"
            parts.append(
                f'<circle class="point" cx="{x(count):.1f}" cy="{y(value):.1f}" r="4">'
                f"<title>{escape(shown)}</title></circle>"
            )
    return parts

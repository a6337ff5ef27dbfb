"""Pictures of numbers: SVG documents, and blocks of text for terminals. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

SHADES = " ·░▒▓█"
_COLOURS = ("#0b5d1e", "#2f8f2f", "#8fbf26", "#e3c51c", "#ef8a17", "#d7301f")
_BARS = " ▏▎▍▌▋▊▉█"
_BAR_CHARACTERS = 50
_CELL, _LEFT, _TOP, _LINE = 8, 110, 24, 14
_ROW = 11


@dataclass(frozen=True, slots=True)
class Panel:
    """A grid of counts: a title, a label for each row, and rows of equal length."""

    title: str
    labels: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]


def level(count: int, most: int, levels: int) -> int:
    """How strong a count is to be shown: 0 for none, up to levels - 1, by its logarithm."""
    if count <= 0:
        return 0
    share = math.log1p(count) / math.log1p(most)
    return max(1, min(levels - 1, round(share * (levels - 1))))


def grid_text(panels: Sequence[Panel], ticks: Sequence[tuple[int, str]]) -> str:
    """Panels as shaded blocks, one line for each row, above a scale."""
    most = _most(panels)
    lines = []
    for panel in panels:
        width = max(map(len, panel.labels), default=0)
        lines.append(panel.title)
        for label, row in zip(panel.labels, panel.rows, strict=True):
            blocks = "".join(SHADES[level(count, most, len(SHADES))] for count in row)
            lines.append(f"{label:>{width}} {blocks}".rstrip())
        lines.append(" " * (width + 1) + _scale(ticks))
    return "\n".join(lines)


def grid_svg(title: str, panels: Sequence[Panel], ticks: Sequence[tuple[int, str]]) -> str:
    """Panels as coloured squares, above a scale."""
    most, parts, y = _most(panels), [], _TOP
    width = _LEFT + _CELL * max((len(row) for panel in panels for row in panel.rows), default=90)
    for panel in panels:
        parts.append(_label(4, y + _LINE, panel.title))
        y += _LINE + 4
        for label, row in zip(panel.labels, panel.rows, strict=True):
            parts.append(_label(4, y + _ROW - 2, label))
            parts.extend(_squares(row, y, most))
            y += _ROW
        parts.extend(_label(_LEFT + _CELL * at, y + _LINE, text) for at, text in ticks)
        y += 2 * _LINE
    return _document(title, width, y, parts)


def _squares(row: Sequence[int], y: int, most: int) -> Iterator[str]:
    """Squares of the same colour beside each other are one."""
    levels = [level(count, most, len(_COLOURS) + 1) for count in row]
    start = 0
    for end in range(1, len(levels) + 1):
        if end < len(levels) and levels[end] == levels[start]:
            continue
        if levels[start]:
            x, width = _LEFT + _CELL * start, _CELL * (end - start)
            colour = _COLOURS[levels[start] - 1]
            yield f'<rect x="{x}" y="{y}" width="{width}" height="{_ROW}" fill="{colour}"/>'
        start = end


def bars_text(panels: Sequence[Panel]) -> str:
    """The columns of the first row of each panel as bars, one line each, the longest in full."""
    most = _most(panels)
    lines = []
    for panel in panels:
        width = max(map(len, panel.labels), default=0)
        lines.append(panel.title)
        for label, count in zip(panel.labels, panel.rows[0], strict=True):
            bar = _bar(count, most)
            lines.append(f"{label:>{width}} {bar}{' ' if bar else ''}{count}")
    return "\n".join(lines)


def bars_svg(title: str, panels: Sequence[Panel]) -> str:
    """The same as an SVG document."""
    most, parts, y = _most(panels), [], _TOP
    for panel in panels:
        parts.append(_label(4, y + _LINE, panel.title))
        y += _LINE + 6
        for label, count in zip(panel.labels, panel.rows[0], strict=True):
            width = round(_CELL * _BAR_CHARACTERS * count / most)
            parts.append(_label(4, y + 10, label))
            parts.append(
                f'<rect x="{_LEFT}" y="{y}" width="{width}" height="11" fill="{_COLOURS[1]}"/>'
            )
            parts.append(_label(_LEFT + width + 4, y + 10, str(count)))
            y += _LINE
        y += _LINE
    return _document(title, _LEFT + _CELL * _BAR_CHARACTERS + 100, y, parts)


def _bar(count: int, most: int) -> str:
    eighths = round(8 * _BAR_CHARACTERS * count / most)
    # What is there at all is seen.
    eighths = max(eighths, 1 if count else 0)
    return (_BARS[8] * (eighths // 8) + _BARS[eighths % 8]).rstrip()


def _most(panels: Sequence[Panel]) -> int:
    return max((count for panel in panels for row in panel.rows for count in row), default=0) or 1


def _scale(ticks: Sequence[tuple[int, str]]) -> str:
    line = ""
    for at, text in ticks:
        line = line.ljust(at) + "|" + text
    return line


def _label(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}">{escape(_visible(text))}</text>'


def _visible(text: str) -> str:
    # XML has no place for control characters, not even escaped.
    return "".join(c if c.isprintable() else "?" for c in text)


def _document(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    name = escape(_visible(title))
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" font-family="monospace" font-size="10">',
            f"<title>{name}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            _label(4, 14, title),
            *parts,
            "</svg>",
        )
    )

"""What a benchmark has found: rows of ours beside a peer, as a table and as JSON. Pure.

`ratio` is always ours divided by the peer's. Where less is better (seconds, bytes) a ratio below 1
is ahead of the peer; where more is better (requests/s) one above 1 is. A target is the largest
ratio that meets it; with no peer it is the largest value of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

HEADINGS = ("benchmark", "metric", "ours", "peer", "peer is", "ratio", "target", "met")


@dataclass(frozen=True, slots=True)
class Row:
    """One metric over the rounds of one run; `ours` and `peer` hold one value per round.

    Both are in the unit that `metric` names. Without a peer `peer` is empty. Round N of ours ran
    right before or after round N of the peer's.
    """

    name: str
    metric: str
    ours: tuple[float, ...]
    peer: tuple[float, ...] = ()
    peer_name: str = ""
    target: float | None = None

    @property
    def ratio(self) -> float | None:
        """Median of ours by median of the peer's; None without a peer or with one that is 0."""
        if not self.peer or median(self.peer) == 0:
            return None
        return median(self.ours) / median(self.peer)

    @property
    def ratios(self) -> tuple[float, ...]:
        """The ratio of each round, to show how much the machine's other work disturbs."""
        pairs = zip(self.ours, self.peer, strict=False)
        return tuple(mine / theirs for mine, theirs in pairs if theirs)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        judged = median(self.ours) if self.ratio is None else self.ratio
        return judged <= self.target


def percentile(values: Sequence[float], percent: int) -> float:
    """Answer the value that `percent` (1 to 99) of the values do not exceed, interpolated."""
    if len(values) == 1:
        return values[0]
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def as_json(rows: Iterable[Row]) -> str:
    """Write the rows as a JSON list of objects; numbers keep four significant digits."""
    found = [
        {
            "name": row.name,
            "metric": row.metric,
            "ours": _significant(median(row.ours)),
            "peer": _significant(median(row.peer)) if row.peer else None,
            "peer_name": row.peer_name or None,
            "ratio": None if row.ratio is None else _significant(row.ratio),
            "target": row.target,
            "met": row.met,
        }
        for row in rows
    ]
    return json.dumps(found, indent=2) + "\n"


def as_table(rows: Iterable[Row]) -> str:
    """Write the rows as text, each number with the least and greatest of its rounds."""
    lines = [HEADINGS, *map(_cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    rule = tuple("-" * width for width in widths)
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (lines[0], rule, *lines[1:])
    )
    return "\n".join(padded) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        row.metric,
        _with_range(row.ours),
        _with_range(row.peer),
        row.peer_name or "-",
        "-" if row.ratio is None else _with_range(row.ratios, row.ratio),
        "-" if row.target is None else f"<= {row.target:g}",
        {None: "-", True: "yes", False: "NO"}[row.met],
    )


def _with_range(values: Sequence[float], middle: float | None = None) -> str:
    if not values:
        return "-"
    shown = _number(median(values) if middle is None else middle)
    if len(values) == 1:
        return shown
    return f"{shown} ({_number(min(values))}..{_number(max(values))})"


def _number(value: float) -> str:
    """Three significant digits, never in the form 1e+03."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _significant(value: float) -> float:
    return float(f"{value:.4g}")

"""The plot of what grows with a fleet: linear axes, and a line that a linear cost lies on."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from fleet_plot import Panel, plot, step
from hypothesis import given
from hypothesis import strategies as st

SVG = "{http://www.w3.org/2000/svg}"


def places(text: str) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """The points, and the ends of the straight line."""
    root = ElementTree.fromstring(text)  # noqa: S314 - of our own making
    points = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in root.iter(f"{SVG}circle")]
    (line,) = [each for each in root.iter(f"{SVG}line") if each.get("class") == "straight"]
    ends = [(float(line.get(f"x{n}", "")), float(line.get(f"y{n}", ""))) for n in (1, 2)]
    return points, ends


def off_the_line(values: dict[int, list[float]]) -> list[float]:
    """How many pixels each point is above the straight line."""
    points, ((x1, y1), (x2, y2)) = places(plot("t", "hosts", [Panel("s", values, True)]))
    return [y1 + (y2 - y1) * (x - x1) / (x2 - x1) - y for x, y in points]


def test_a_linear_cost_lies_on_the_line_and_another_one_does_not():
    sizes = (100, 300, 1_000, 3_000, 10_000)
    assert off_the_line({n: [0.0014 * n] for n in sizes}) == pytest.approx([0] * 5, abs=0.2)
    squared = off_the_line({n: [1e-6 * n * n] for n in sizes})
    assert squared[3] < -20


def test_words_are_escaped_and_panels_without_a_line_have_none():
    text = plot("a < b", "hosts & more", [Panel("MiB <most>", {1: [2.0], 2: [3.0, 4.0]})])
    root = ElementTree.fromstring(text)  # noqa: S314 - of our own making
    assert len(list(root.iter(f"{SVG}circle"))) == 3
    assert not [each for each in root.iter(f"{SVG}line") if each.get("class") == "straight"]
    assert root.findtext(f"{SVG}title") == "a < b"


@given(st.floats(min_value=1e-5, max_value=1e9))
def test_five_steps_hold_the_most_and_are_not_far_too_many(most: float):
    assert most <= 5 * step(most) <= 2.6 * most

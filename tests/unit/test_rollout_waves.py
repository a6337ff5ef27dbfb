"""Waves, tolerances and the names of many hosts, as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.limits import Batches, Tolerance, shortened
from hostler.plans import PlanGroup, Planned


@pytest.mark.parametrize(
    ("text", "total", "sizes"),
    [
        ("1,100%", 20, [1, 19]),
        ("1,10%,100%", 100, [1, 9, 90]),
        ("1,10%,100%", 20, [1, 1, 18]),
        ("1,10%,100%", 10, [1, 9]),
        ("1,10%,100%", 1, [1]),
        ("1,10%,100%", 0, []),
        ("5,50%,100%", 4, [4]),
        ("100%", 7, [7]),
        ("0.5%,100%", 1000, [5, 995]),
        ("10%,3,100%", 100, [10, 90]),
    ],
)
def test_waves_are_shares_of_those_that_have_it_after(
    text: str, total: int, sizes: list[int]
) -> None:
    assert Batches.parse(text).split(total) == sizes


@pytest.mark.parametrize(
    "text", ["", "1", "0,100%", "1,10%", "50%,10%,100%", "5,5,100%", "1,101%", "1,,100%", "a,100%"]
)
def test_waves_that_leave_hosts_out_or_go_back_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"100%|not more|neither"):
        Batches.parse(text)


@given(
    st.lists(st.integers(1, 10**6), unique=True, max_size=4),
    st.lists(st.integers(1, 99), unique=True, max_size=4),
    st.integers(0, 5000),
)
def test_every_host_is_in_exactly_one_wave(
    counts: list[int], shares: list[int], total: int
) -> None:
    words = [*map(str, sorted(counts)), *(f"{share}%" for share in sorted(shares)), "100%"]
    sizes = Batches.parse(",".join(words)).split(total)
    assert sum(sizes) == total
    assert all(size > 0 for size in sizes)


@pytest.mark.parametrize(("text", "total", "allowed"), [("3", 20, 3), ("10%", 25, 2), ("0", 9, 0)])
def test_tolerance(text: str, total: int, allowed: int) -> None:
    assert Tolerance.parse(text).allowed(total) == allowed
    assert str(Tolerance.parse(text)) == text


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["h1", "h3"], "h1, h3"),
        ([f"h{n}" for n in range(1, 9)], "h1, h2, h3, h4, h5, h6, h7, h8"),
        ([f"web{n:03}" for n in range(1, 401)], "web[001-400]"),
        ([f"h{n}" for n in range(8, 13)] + ["db"] + [f"h{n}.a" for n in range(5)],
         "h[8-12], db, h[0-4].a"),
        ([f"h{n}" for n in range(0, 40, 2)], "h0, h2, h4, h6, h8, h10, h12 and 13 more"),
        (["h9", "h10", "h011", "h012", "h013", "x", "y", "z", "w"],
         "h9, h10, h[011-013], x, y, z, w"),
    ],
)  # fmt: skip
def test_names_of_many_hosts(names: list[str], text: str) -> None:
    assert shortened(names) == text


def test_a_plan_of_a_thousand_hosts_is_told_in_a_line() -> None:
    names = tuple(f"web{number:04}.example" for number in range(1, 1001))
    assert str(PlanGroup(Planned("", ()), names)) == "1000 hosts: web[0001-1000].example"


@given(st.lists(st.from_regex(r"[a-z]{0,2}[0-9]{0,3}[a-z]?", fullmatch=True), unique=True))
def test_no_host_is_lost_from_the_words(names: list[str]) -> None:
    text = shortened(names, most=10**6)
    found: list[str] = []
    for word in text.split(", ") if names else []:
        if "[" not in word:
            found.append(word)
            continue
        prefix, _, rest = word.partition("[")
        span, _, suffix = rest.partition("]")
        first, last = span.split("-")
        width = len(first) if first.startswith("0") else 0
        found += [f"{prefix}{n:0{width}}{suffix}" for n in range(int(first), int(last) + 1)]
    assert found == names

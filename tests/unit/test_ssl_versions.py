"""The order of versions, beside dpkg's own."""

from __future__ import annotations

import itertools
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostlerd.ssl.plan.versions import compare_debian, compare_own, upstream_of

_PIECES = st.sampled_from(["0", "1", "9", "10", "007", "a", "b", "z", "~", "+", ".", "deb", "rc"])
_UPSTREAM = st.builds(lambda first, rest: first + "".join(rest), st.just("1"), st.lists(_PIECES))
_REVISION = st.lists(_PIECES, min_size=1, max_size=5).map("".join)
VERSIONS = st.builds(
    lambda epoch, upstream, revision: epoch + upstream + (f"-{revision}" if revision else ""),
    st.sampled_from(["", "0:", "1:", "2:"]),
    _UPSTREAM,
    st.one_of(st.just(""), _REVISION),
)


def dpkg_says(a: str, b: str) -> int:
    for word, order in (("lt", -1), ("eq", 0)):
        argv = ["/usr/bin/dpkg", "--compare-versions", a, word, b]
        if subprocess.run(argv, check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return order
    return 1


@given(VERSIONS, VERSIONS)
@settings(max_examples=300, deadline=None)
def test_any_two_are_in_the_order_of_dpkg(a: str, b: str) -> None:
    assert compare_debian(a, b) == dpkg_says(a, b)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_it_is_an_order(a: str, b: str, c: str) -> None:
    assert compare_debian(a, a) == 0
    assert compare_debian(a, b) == -compare_debian(b, a)
    if compare_debian(a, b) <= 0 and compare_debian(b, c) <= 0:
        assert compare_debian(a, c) <= 0


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("3.0.17-1~deb12u2", "3.0.17-1~deb12u3"),
        ("3.0.9-1", "3.0.17-1~deb12u2"),
        ("1.1.1n-0+deb11u5", "1:1.0"),
        ("3.0.17~rc1-1", "3.0.17-1"),
    ],
)
def test_versions_of_packages(older: str, newer: str) -> None:
    assert compare_debian(older, newer) == -1 == dpkg_says(older, newer)


def test_versions_of_libraries() -> None:
    ordered = [
        "",
        "0.9.8",
        "1.0.2",
        "1.0.2k",
        "1.0.2za",
        "1.1.1",
        "1.1.1w",
        "3.0.2",
        "3.0.17",
        "3.5",
    ]
    for older, newer in itertools.pairwise(ordered):
        assert (compare_own(older, newer), compare_own(newer, older)) == (-1, 1)
    assert compare_own("3.5", "3.5.0") == 0
    assert upstream_of("1:3.0.17-1~deb12u2") == "3.0.17"

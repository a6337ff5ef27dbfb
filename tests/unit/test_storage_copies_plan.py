"""Plans of copies: what is refused before anything is looked at, and what is said of leftovers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.runtime.errors import InvalidRequest
from hostlerd.storage.model.copies import Seen
from hostlerd.storage.model.copy_steps import BeginCopy, BeginVerify
from hostlerd.storage.plan import copies as plan

PARTS = st.lists(st.from_regex(r"[a-z .-]{1,6}", fullmatch=True), min_size=1, max_size=5)


def fields_of(source: str, target: str) -> list[str]:
    try:
        plan.check(source, target)
    except InvalidRequest as e:
        return sorted(one.field for one in e.violations)
    return []


@pytest.mark.parametrize(
    ("source", "target", "wrong"),
    [
        ("/srv/a", "/srv/b", []),
        ("srv/a", "/srv/b", ["source"]),
        ("/srv/../etc/a", "/srv//b", ["source", "target"]),
        ("/srv/a", "/srv/a", ["target"]),
        ("/srv/a", "/srv/a/b", ["target"]),
        ("/srv/a/b", "/srv/a", []),
        ("/srv/a", "/srv/ab", []),
        ("", "", ["source", "target"]),
        ("/srv/a\0", "/srv/b\n", ["source", "target"]),
    ],
)
def test_paths_that_cannot_be_meant_are_refused(source: str, target: str, wrong: list[str]) -> None:
    assert fields_of(source, target) == wrong


@given(PARTS, PARTS)
def test_a_target_inside_of_its_source_never_passes(source: list[str], below: list[str]) -> None:
    one = "/" + "/".join(source)
    assert fields_of(one, f"{one}/{'/'.join(below)}") != []


def test_what_was_left_is_said_in_the_plan() -> None:
    for left, codes in (("", []), ("same", ["COPY_RESUMED"]), ("other", ["COPY_BEGUN_ANEW"])):
        made = plan.copy("/a/b", "/a/c", True, Seen("file", left))
        assert made.steps == (BeginCopy("/a/b", "/a/c", True),)
        assert [one.code for one in made.notices] == codes
        assert "/a/c.manifest" in made.steps[0].describe()
        assert made.steps[0].inverse() is None
    etags = {plan.copy("/a/b", "/a/c", False, Seen("file", left)).etag for left in ("", "same")}
    assert len(etags) == 2


def test_a_look_at_a_copy_names_its_paths() -> None:
    plan.check_verify("/a/b.manifest", "")
    with pytest.raises(InvalidRequest) as caught:
        plan.check_verify("b.manifest", "../b")
    assert sorted(one.field for one in caught.value.violations) == ["manifest", "root"]
    (step,) = plan.verify("/a/b.manifest", "").steps
    assert step == BeginVerify("/a/b.manifest", "")
    assert "beside it" in step.describe() and step.inverse() is None
    assert "/a/x" in BeginVerify("/a/b.manifest", "/a/x").describe()


def test_a_stream_names_where_it_begins_and_what_it_is_of() -> None:
    plan.check_read("/a/b", 3, 4)
    plan.check_write("/a/b", "h1:/srv/a b")
    for source, entries, offset, field in (("a", 0, 0, "source"), ("/a", 0, -1, "have")):
        with pytest.raises(InvalidRequest) as caught:
            plan.check_read(source, entries, offset)
        assert [one.field for one in caught.value.violations] == [field]
    for origin in ("", "a\nb", "x" * 4097):
        with pytest.raises(InvalidRequest) as caught:
            plan.check_write("b", origin)
        assert len(caught.value.violations) == 2


def test_a_burn_in_is_bounded() -> None:
    plan.check_burn_in("/a", 1 << 20, 1)
    with pytest.raises(InvalidRequest) as caught:
        plan.check_burn_in("a", (1 << 20) - 1, 10_001)
    assert [one.field for one in caught.value.violations] == ["folder", "size_bytes", "rounds"]
    (step,) = plan.burn_in("/a", 1 << 20, 7).steps
    assert step.inverse() is None and "7 times" in step.describe()

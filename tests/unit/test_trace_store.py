"""Which captures make room for others, and what a store has on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.trace.blocks import encode
from hostler.core.trace.events import Events
from hostlerd.tracing.errors import CaptureExists, CaptureInUse, CaptureNotFound, StoreFull
from hostlerd.tracing.kernel.store import Store
from hostlerd.tracing.model.stored import Bounds, RemoveCapture, Stored
from hostlerd.tracing.model.trace import Budget, End, Keep, Payload, Spec, Standing
from hostlerd.tracing.plan.stored import making_room, remove

BOUNDS = Bounds(bytes=100, captures=8)
HAVE = st.lists(
    st.tuples(st.sampled_from(["user/a", "user/b", "user/c"]), st.integers(0, 60), st.booleans()),
    max_size=10,
)


def stored(name: str, owner: str, size_bytes: int, runs: bool = False) -> Stored:
    end = None if runs else End.STOPPED
    return Stored(name, Spec(), Payload(), owner, "boot", 0.0, end=end, size_bytes=size_bytes)


def within(have: list[Stored], owner: str, coming: int) -> bool:
    own = [s for s in have if s.owner == owner]
    return (
        sum(s.size_bytes for s in have) <= 100
        and len(have) + coming <= 8
        and sum(s.size_bytes for s in own) <= 50
        and len(own) + coming <= 4
    )


@given(HAVE, st.integers(0, 1))
def test_what_is_left_fits_and_what_is_written_stays(
    said: list[tuple[str, int, bool]], coming: int
) -> None:
    have = [stored(f"c{i}", *each) for i, each in enumerate(said)]
    gone, is_enough = making_room(have, "user/a", BOUNDS, coming)
    left = [s for s in have if s.name not in gone]
    assert all(s in left for s in have if s.end is None)
    assert is_enough == within(left, "user/a", coming)
    if within(have, "user/a", coming):
        assert gone == ()
    for other in ("user/b", "user/c"):
        taken = [s for s in have if s.owner == other]
        kept = [s for s in left if s.owner == other]
        # The oldest go, and of others only while all together are too many.
        ended = [s for s in taken if s.end is not None]
        assert [s for s in kept if s.end is not None] == ended[len(taken) - len(kept) :]
    if making_room(left, "user/a", BOUNDS, coming)[1]:
        assert making_room(left, "user/a", BOUNDS, coming) == ((), True)


def test_one_identity_takes_half_before_others_lose_anything() -> None:
    have = [stored("theirs", "user/b", 50)]
    have += [stored(f"own{i}", "user/a", 20) for i in range(4)]
    gone, is_enough = making_room(have, "user/a", BOUNDS)
    assert (gone, is_enough) == (("own0", "own1"), True)


def test_what_is_written_is_not_removed() -> None:
    have = (stored("a", "user/a", 1, runs=True), stored("b", "user/a", 1))
    with pytest.raises(CaptureInUse):
        remove("a", have)
    assert remove("b", have).steps == (RemoveCapture("b"),)
    assert remove("c", have).steps == ()


def made(store: Store, name: str, *, end: bool = True) -> None:
    keeping = store.begin(name, Spec(keep=Keep(name)), Payload(), "user/a")
    keeping.put(encode(Events.empty()))
    if end:
        keeping.close(Standing(end=End.STOPPED, ended_unix_s=5.0))


def test_a_store_keeps_what_it_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path / "captures", Bounds(captures=4), making_room)
    assert store.all() == ()
    spec = Spec("evt.failed=true", (1, 2), False, "/a", 5, Budget(1.5, 2, 3, 4, 0.5), Keep("x"))
    keeping = store.begin("x", spec, Payload(7, True, False), "user/a")
    assert store.get("x").end is None
    with pytest.raises(CaptureExists):
        made(store, "x")
    keeping.close(Standing(end=End.STORE_FULL, ended_unix_s=5.0, problem="no room"))
    again = Store(tmp_path / "captures", Bounds(captures=4), making_room).get("x")
    assert (again.spec, again.payload, again.owner) == (spec, Payload(7, True, False), "user/a")
    assert (again.end, again.problem) == (End.STORE_FULL, "no room")
    for name in ("y", "z"):
        made(store, name)
    assert [s.name for s in store.all()] == ["y", "z"]
    for name in ("", ".", "..", "y/about.json", "/etc", "../captures/y"):
        with pytest.raises(CaptureNotFound):
            store.get(name)


def test_a_full_store_of_what_is_written_takes_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path / "captures", Bounds(captures=4), making_room)
    for name in ("a", "b"):
        made(store, name, end=False)
    with pytest.raises(StoreFull):
        made(store, "c")
    assert [s.name for s in store.all()] == ["a", "b"]


def test_what_is_no_capture_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "captures", Bounds(), making_room)
    made(store, "good")
    bad = tmp_path / "captures/bad"
    bad.mkdir()
    for text in (b"", b"{}", b"[]", b'{"spec": 1}', b"\xff" * 100):
        (bad / "about.json").write_bytes(text)
        assert [s.name for s in store.all()] == ["good"]
    (tmp_path / "captures/.gone-old").mkdir()
    (tmp_path / "captures/.gone-old/about.json").touch()
    store.sweep()
    assert not (tmp_path / "captures/.gone-old").exists()


def test_a_step_is_done_once_and_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "captures", Bounds(), making_room)
    made(store, "a")
    made(store, "b")
    for _ in range(2):
        with store.applying() as apply:
            apply(RemoveCapture("a"))
        assert [s.name for s in store.all()] == ["b"]
    assert replace(store.get("b"), size_bytes=0).end is End.STOPPED

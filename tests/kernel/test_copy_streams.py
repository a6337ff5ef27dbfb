"""A tree as a stream: any chunking of any tree, cut anywhere, makes the same tree."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from copy_streams import names_in, parts_of, take
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_backups import described, odd_tree

from hostler.core.copying.manifest import Entry
from hostler.core.copying.parts import (
    BadPart,
    Begin,
    Data,
    End,
    Have,
    Part,
    Tail,
    decode,
    encode,
)
from hostler.core.copying.receive import CutOff
from hostler.core.copying.refused import CopyRefused
from hostler.core.copying.verify import load, verify
from hostlerd.storage.service.copy_parts import from_proto, to_proto

pytestmark = pytest.mark.kernel

NAMES = st.binary(min_size=1, max_size=6).filter(
    lambda name: name not in (b".", b"..") and not {0, 47} & set(name)
)
FILES = st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=40)), max_size=4)
TREES: Any = st.recursive(
    st.one_of(FILES, st.binary(min_size=1, max_size=20).filter(lambda link: b"\0" not in link)),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def make(path: bytes, tree: Any) -> None:
    """A folder of a dict, a symlink of bytes, a file of pieces, each after a hole of many KiB."""
    if isinstance(tree, dict):
        os.mkdir(path, 0o750)  # noqa: PTH102
        for name, one in tree.items():
            make(path + b"/" + name, one)
    elif isinstance(tree, bytes):
        os.symlink(tree, path)  # noqa: PTH211
    else:
        with open(path, "wb") as file:  # noqa: PTH123
            for hole, data in tree:
                file.seek(hole * 65_536, os.SEEK_CUR)
                file.write(data * 100)


def in_pieces(parts: Iterable[Part], sizes: Iterator[int]) -> Iterator[Part]:
    """The same data in other pieces, through both ways that parts are written in."""
    for part in parts:
        if not isinstance(part, Data):
            yield through(part)
            continue
        at = 0
        while at < len(part.data):
            size = next(sizes)
            yield through(Data(part.offset + at, part.data[at : at + size]))
            at += size


def through(part: Part) -> Part:
    return from_proto(to_proto(decode(b"".join(encode(part)))))


@settings(max_examples=40, deadline=None)
@given(tree=TREES, sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=5), data=st.data())
def test_any_chunking_cut_anywhere_makes_the_same_tree(
    tree: Any, sizes: list[int], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        make(os.fsencode(source), {b"top": tree})
        endless = iter(lambda: sizes[0], None) if len(sizes) == 1 else _cycle(sizes)
        cuts = data.draw(st.lists(st.integers(0, 60), max_size=3))
        for cut in cuts:
            try:
                take(target, lambda have, cut=cut: _until(source, have, endless, cut))
            except CutOff:
                assert not target.exists()
                continue
            break
        if not target.exists():
            take(target, lambda have: in_pieces(parts_of(source, have), endless))
        assert described(target) == described(source)
        assert names_in(Path(folder)) == ["source", "target"]


def _cycle(sizes: list[int]) -> Iterator[int]:
    while True:
        yield from sizes


def _until(source: Path, have: Have, sizes: Iterator[int], cut: int) -> Iterator[Part]:
    for at, part in enumerate(in_pieces(parts_of(source, have), sizes)):
        if at == cut:
            return
        yield part


@settings(max_examples=300)
@given(text=st.binary(max_size=60))
def test_bytes_that_are_no_part_are_refused(text: bytes) -> None:
    for letter in (b"", b"B", b"F", b"T", b"E"):
        try:
            part = decode(letter + text)
        except BadPart:
            continue
        assert isinstance(part, Begin | Entry | Tail | End | Data)


def test_an_odd_tree_arrives_as_it_is_with_a_manifest_that_says_so(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    odd_tree(source)
    before = described(source)
    made = take(target, lambda have: map(through, parts_of(source, have)), with_manifest=True)
    assert described(target) == before == described(source)
    assert made.entries == len(before) and made.digest
    assert (target / "sparse").stat().st_blocks * 512 < 1 << 20
    assert verify(load(tmp_path / "target.manifest"), target) == ()


def test_what_was_cut_is_not_sent_again_and_what_changed_meanwhile_is_never_kept(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make(
        os.fsencode(source),
        {b"a": [(0, b"a" * 90)], b"b": [(0, os.urandom(40)) for _ in "abcdefgh"]},
    )

    parts = parts_of(source)
    cut_at = next(i for i, one in enumerate(parts) if isinstance(one, Entry) and one.path == "b")

    def cut(have: Have) -> Iterator[Part]:
        yield from parts[: cut_at + 1]
        data = parts[cut_at + 1]
        assert isinstance(data, Data)
        yield replace(data, data=data.data[:5000])

    with pytest.raises(CutOff):
        take(target, cut)
    seen: list[Have] = []
    again: list[Part] = []

    def resumed(have: Have) -> list[Part]:
        seen.append(have)
        again.extend(parts_of(source, have))
        return again

    (left,) = tmp_path.glob(".hostler-copy-*")
    made = take(target, resumed)
    assert seen == [Have(2, 5000)]
    sent = sum(len(one.data) for one in again if isinstance(one, Data))
    assert sent == 32_000 - 5000 and made.resumed_bytes == 9000 + 5000
    assert described(target) == described(source) and not left.exists()
    (target / "a").unlink(), (target / "b").unlink(), target.rmdir()
    with pytest.raises(CutOff):
        take(target, cut)
    (source / "a").write_bytes(b"b" * 9000)
    with pytest.raises(CopyRefused) as caught:
        take(target, lambda have: parts_of(source, have))
    assert caught.value.reason == "NOT_EQUAL" and "begins anew" in str(caught.value)
    assert names_in(tmp_path) == ["source"]
    take(target, lambda have: parts_of(source, have))
    assert described(target) == described(source)

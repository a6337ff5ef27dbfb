"""A tree as a stream: any chunking of any tree makes the same tree, and no stream makes another."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_backups import described, odd_tree

from hostler.core.copying import contents
from hostler.core.copying.copy import copy
from hostler.core.copying.look import Attributes
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
    digest_of,
    encode,
)
from hostler.core.copying.place import place_beneath, place_of
from hostler.core.copying.receive import CutOff, receive
from hostler.core.copying.refused import CopyRefused
from hostler.core.copying.send import send
from hostler.core.copying.verify import load, verify
from hostlerd.storage.service.copy_parts import from_proto, to_proto

pytestmark = pytest.mark.kernel

MARK = b"one"
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


def parts_of(path: Path, have: Have = Have()) -> list[Part]:  # noqa: B008
    found: list[Part] = []

    def emit(part: Part) -> None:
        found.append(replace(part, data=bytes(part.data)) if isinstance(part, Data) else part)

    with place_of(path) as place:
        send(place, have, emit)
    return found


def names_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def take(target: Path, begun: Callable[[Have], Iterable[Part]], **more: Any) -> Any:
    with place_of(target) as place:
        return receive(place, MARK, begun, **more)


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


FOLDER = Attributes(stat.S_IFDIR | 0o755, 0, 0, 0, 1, 1, 0, "", ())
FILE = Attributes(stat.S_IFREG | 0o644, 0, 0, 4, 1, 1, 0, "", ())
LINK = Attributes(stat.S_IFLNK | 0o777, 0, 0, 0, 1, 1, 0, "/etc", ())
TOP = Entry("", FOLDER)


def tail(data: bytes) -> Tail:
    return Tail(contents.of_blocks([hashlib.sha256(data).digest()]))


def file(path: str, data: bytes = b"text") -> list[Part]:
    entry = Entry(path, replace(FILE, size_bytes=len(data)))
    return [entry, Data(0, data), tail(data)]


def ended(*parts: Part) -> list[Part]:
    """With an end that fits, as far as that can be."""
    entries: list[Entry] = []
    for one in parts:
        if isinstance(one, Entry):
            entries.append(one)
        elif isinstance(one, Tail) and entries:
            entries[-1] = replace(entries[-1], digest=one.digest)
    return [Begin(4), *parts, End(len(entries), digest_of(entries))]


HOSTILE = {
    "a path that leads up": (ended(TOP, *file("../out")), "MALFORMED"),
    "a name that leads up": (ended(TOP, *file("..")), "MALFORMED"),
    "an absolute path": (ended(TOP, *file("/tmp/hostler-out")), "MALFORMED"),
    "a file in a symlink": (ended(TOP, Entry("l", LINK), *file("l/out")), "MALFORMED"),
    "a file in a file": (ended(TOP, *file("f"), *file("f/out")), "MALFORMED"),
    "a file in no folder": (ended(TOP, *file("x/out")), "MALFORMED"),
    "a folder that was left": (
        ended(TOP, Entry("a", FOLDER), Entry("b", FOLDER), *file("a/late")),
        "MALFORMED",
    ),
    "no beginning": (ended(*file("f")), "MALFORMED"),
    "two beginnings": ([Begin(4), Begin(4), *ended(TOP)[1:]], "MALFORMED"),
    "two of one name": (ended(TOP, *file("f"), *file("f")), "MALFORMED"),
    "two of the top": (ended(*file(""), *file("")), "MALFORMED"),
    "an empty name": (ended(TOP, *file("a/")), "MALFORMED"),
    "a dot": (ended(TOP, *file(".")), "MALFORMED"),
    "a zero in a name": (ended(TOP, *file("a\0b")), "MALFORMED"),
    "a name too long": (ended(TOP, *file("a" * 256)), "MALFORMED"),
    "a hard link to outside": (
        ended(TOP, Entry("f", FILE, "../../etc/passwd")),
        "MALFORMED",
    ),
    "a hard link to a folder": (
        ended(TOP, Entry("d", FOLDER), Entry("e", FOLDER, "d")),
        "MALFORMED",
    ),
    "a hard link of another mode": (
        ended(TOP, *file("f"), Entry("g", replace(FILE, mode=stat.S_IFREG | 0o4755), "f")),
        "MALFORMED",
    ),
    "data past the size": (
        ended(TOP, Entry("f", FILE), Data(2, b"text"), tail(b"text")),
        "MALFORMED",
    ),
    "data that go back": (
        ended(TOP, Entry("f", FILE), Data(2, b"xt"), Data(0, b"te"), tail(b"text")),
        "MALFORMED",
    ),
    "empty data": (ended(TOP, Entry("f", FILE), Data(0, b""), tail(b"text")), "MALFORMED"),
    "data of no file": (ended(TOP, Data(0, b"text")), "MALFORMED"),
    "data of a symlink": (ended(TOP, Entry("l", LINK), Data(0, b"text")), "MALFORMED"),
    "a tail of no file": (ended(TOP, tail(b"")), "MALFORMED"),
    "no tail": (ended(TOP, Entry("f", FILE), Data(0, b"text"), *file("g")), "MALFORMED"),
    "a size that is more": (
        ended(TOP, Entry("f", replace(FILE, size_bytes=5)), Data(0, b"text"), tail(b"text")),
        "NOT_EQUAL",
    ),
    "a size that nobody has": (
        ended(TOP, Entry("f", replace(FILE, size_bytes=1 << 60))),
        "TOO_MUCH",
    ),
    "a size below nothing": (ended(TOP, Entry("f", replace(FILE, size_bytes=-1))), "TOO_MUCH"),
    "another digest": (ended(TOP, Entry("f", FILE), Data(0, b"text"), tail(b"test")), "NOT_EQUAL"),
    "a digest too soon": (ended(TOP, Entry("f", FILE, digest="0" * 64)), "MALFORMED"),
    "another digest over all": ([Begin(0), TOP, End(1, "0" * 64)], "NOT_EQUAL"),
    "another count": ([Begin(0), TOP, End(2, digest_of([TOP]))], "MALFORMED"),
    "nothing at all": ([Begin(0), End(0, digest_of([]))], "MALFORMED"),
    "more after the end": ([*ended(TOP), *file("f")], "MALFORMED"),
    "no kind of file": (ended(TOP, Entry("f", replace(FILE, mode=0o644))), "MALFORMED"),
    "an attribute of nothing": (
        ended(TOP, Entry("d", replace(FOLDER, xattrs=(("nowhere.x", b"y"),)))),
        "FAILED",
    ),
    "a size of a folder": (ended(TOP, Entry("d", replace(FOLDER, size_bytes=7))), "NOT_KEPT"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_stream_that_is_no_tree_is_refused_with_a_reason_and_leaves_nothing(
    tmp_path: Path, name: str
) -> None:
    parts, reason = HOSTILE[name]
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(CopyRefused) as caught:
        take(place / "target", lambda have: parts)
    assert caught.value.reason == reason, caught.value
    assert names_in(place) == []
    assert names_in(tmp_path) == ["place"]
    assert not Path("/tmp/hostler-out").exists()


def test_a_stream_of_tiny_pieces_is_refused(tmp_path: Path) -> None:
    def chatty(have: Have) -> Iterator[Part]:
        yield Begin(1 << 30)
        yield Entry("", replace(FILE, size_bytes=1 << 30))
        for at in range(1 << 20):
            yield Data(at, b"x")

    with pytest.raises(CopyRefused) as caught:
        take(tmp_path / "target", chatty)
    assert caught.value.reason == "TOO_MUCH"
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "path", ["", "..", "a/..", "../a", "a//b", "a/../b", ".", "a/.", "/a", "a/"]
)
def test_a_path_that_is_not_below_is_no_place(tmp_path: Path, path: str) -> None:
    (tmp_path / "root/a").mkdir(parents=True)
    root = os.open(tmp_path / "root", os.O_RDONLY)
    try:
        with pytest.raises(CopyRefused) as caught, place_beneath(root, "/root", path):
            pass
        assert caught.value.reason == "OUTSIDE"
        with place_beneath(root, "/root", "a/b") as place:
            assert (place.name, place.shown) == ("b", "/root/a/b")
            assert os.path.samestat(os.fstat(place.folder), (tmp_path / "root/a").stat())
    finally:
        os.close(root)


def test_whoever_may_rename_in_the_folder_makes_nobody_touch_another(tmp_path: Path) -> None:
    """The folder of the target is somebody's own: the private folder in it may become a symlink."""
    victim, place = tmp_path / "victim", tmp_path / "place"
    for one in (victim, place):
        one.mkdir()
    (victim / "kept").write_text("kept")
    victim.chmod(0o751)
    subprocess.run(["/usr/bin/setfacl", "-m", "u:4321:rx", victim], check=True)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("a file")
    before = described(tmp_path / "victim"), victim.stat().st_mode, os.listxattr(victim)
    name = f".hostler-copy-{hashlib.sha256(b'target').hexdigest()[:32]}"
    (place / "other").symlink_to(victim)
    swap = (
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\na, b = (w.encode() for w in sys.argv[1:])\n"
        "while True: libc.renameat2(-100, a, -100, b, 2)"
    )
    swapper = subprocess.Popen([sys.executable, "-c", swap, place / name, place / "other"])
    ends: dict[str, int] = {}
    try:
        end = time.monotonic() + 4
        while time.monotonic() < end:
            try:
                copy(tmp_path / "source", place / "target")
                ends["copied"] = ends.get("copied", 0) + 1
            except CopyRefused as refused:
                ends[refused.reason] = ends.get(refused.reason, 0) + 1
            # What is in the way is put aside, as its owner would to try again.
            for one in place.iterdir():
                if one.is_dir() and not one.is_symlink():
                    shutil.rmtree(one, ignore_errors=True)
            with suppress(FileExistsError):
                (place / "other").symlink_to(victim)
    finally:
        swapper.kill()
        swapper.wait()
    after = described(tmp_path / "victim"), victim.stat().st_mode, os.listxattr(victim)
    print(f"\n{ends}")
    assert after == before

"""Whoever sends, or owns a folder: nothing is written but what was asked for, where it was."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from copy_streams import names_in, take
from storage_backups import described

from hostler.core.copying import contents
from hostler.core.copying.copy import copy
from hostler.core.copying.look import Attributes
from hostler.core.copying.manifest import Entry
from hostler.core.copying.parts import (
    Begin,
    Data,
    End,
    Have,
    Part,
    Tail,
    digest_of,
)
from hostler.core.copying.place import place_beneath
from hostler.core.copying.refused import CopyRefused

pytestmark = pytest.mark.kernel

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

"""Writing all of a disk and reading it back: what silently changes in between is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostlerd.storage.worker import burn_in

MIB = 1 << 20
SIZE = 3 * MIB + 4096


def burnt(path: Path) -> burn_in._Burn:
    path.write_bytes(bytes(SIZE))
    one = burn_in._Burn(os.open(path, os.O_RDWR), SIZE)
    one.run()
    return one


def test_all_is_written_and_the_ends_are_empty(tmp_path: Path) -> None:
    one = burnt(tmp_path / "disk")
    assert one.work().state == "done" and one.done == 2 * SIZE
    content = (tmp_path / "disk").read_bytes()
    assert len(content) == SIZE and not any(content[:MIB]) and not any(content[-MIB:])
    assert content[MIB : MIB + 4096].strip(b"\0") and one.work().total == 2 * SIZE


def test_a_byte_that_changes_behind_its_back_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def damaging(fd: int) -> None:
        flush(fd)
        byte = os.pread(fd, 1, 2 * MIB + 77)
        os.pwrite(fd, bytes([byte[0] ^ 1]), 2 * MIB + 77)

    monkeypatch.setattr(os, "fsync", damaging)
    one = burnt(tmp_path / "disk")
    assert one.work().state == "failed"
    assert one.error == f"what was read is not what was written at byte {2 * MIB}"


def test_one_that_is_told_to_cease_does(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    one = burn_in._Burn(os.open(path, os.O_RDWR), SIZE, is_cancelled=True)
    one.run()
    assert one.ended.is_set() and one.done == 0 and not any(path.read_bytes())

"""Chisels from the user's folder: they work, and what is wrong with one is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chisel_runs import table
from trace_rows import Call, Process

from hostler.chisel_folder import ChiselInvalid, default_folder, load, names

MINE = """
from dataclasses import dataclass

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_groups import CALLS, top


@dataclass
class Unused:
    number: int


CHISEL = top("mine", Category.MISC, "calls by process", keys=(("p", "proc.name"),),
             value=CALLS, top=5)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "chisels"
    folder.mkdir(mode=0o700)
    return folder


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_chisel_of_the_folder_works(folder: Path) -> None:
    write(folder, "mine", MINE)
    (folder / "notes.txt").write_text("no chisel")
    assert names(folder) == ["mine"]
    chisel = load(folder, "mine")
    calls = [Call("read", process=Process(1, "a")), Call("read", process=Process(2, "b"))] * 2
    assert table(chisel, calls).rows == (("a", 2), ("b", 2))


def test_listing_runs_none_of_them(folder: Path) -> None:
    write(folder, "broken", "raise SystemExit(1)")
    assert names(folder) == ["broken"]


def test_no_folder_has_no_chisels(tmp_path: Path) -> None:
    assert names(tmp_path / "absent") == []
    assert default_folder().parts[-2:] == ("hostler", "chisels")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1 +", r"SyntaxError in line 1: invalid syntax"),
        ("import hostler.absent", "ModuleNotFoundError: No module named 'hostler.absent'"),
        ("CHISEL = 5", "it has no CHISEL"),
        (MINE.replace('"mine"', '"other"'), "its chisel is called 'other' and not 'mine'"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(folder: Path, text: str, answer: str) -> None:
    path = write(folder, "mine", text)
    with pytest.raises(ChiselInvalid) as caught:
        load(folder, "mine")
    assert str(path) in str(caught.value) and answer in str(caught.value)


def test_an_absent_file_is_told(folder: Path) -> None:
    with pytest.raises(ChiselInvalid, match=r"mine\.py: No such file"):
        load(folder, "mine")


def test_none_takes_the_name_of_ours(folder: Path) -> None:
    write(folder, "topscalls", MINE)
    with pytest.raises(ChiselInvalid, match="Hostler comes with a chisel topscalls"):
        load(folder, "topscalls")


def test_what_others_can_write_is_not_run(folder: Path) -> None:
    path = write(folder, "mine", MINE)
    path.chmod(0o620)
    with pytest.raises(ChiselInvalid, match=r"mine\.py can be written by others"):
        load(folder, "mine")
    path.chmod(0o600)
    folder.chmod(0o777)
    with pytest.raises(ChiselInvalid, match="chisels can be written by others"):
        load(folder, "mine")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_others_is_not_run(folder: Path) -> None:
    path = write(folder, "mine", MINE)
    os.chown(path, 12345, 0)
    with pytest.raises(ChiselInvalid, match="belongs to uid 12345"):
        load(folder, "mine")

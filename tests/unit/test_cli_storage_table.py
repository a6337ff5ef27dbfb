"""`hostler storage table`: what people and programs are told of a table, and its exit status."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from google.protobuf.json_format import MessageToDict

from hostler.api.storage.v1 import partition_pb2
from hostler.cli.main import cli
from hostler.cli.storage_table_change import _Edits, _resize, _set
from hostler.desired import load_message

LINUX = struct.pack("<B3sB3sII", 0x80, b"\1\1\0", 0x83, b"\xfe\xff\xff", 63, 40_949_622)
SECTOR = bytes(446) + LINUX.ljust(64, b"\0") + b"\x55\xaa"


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    path = tmp_path / "dump"
    path.write_bytes(SECTOR)
    return path


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def test_a_table_for_people(dump: Path) -> None:
    answer = run("storage", "table", "--dump", dump)
    assert answer.exit_code == 0, answer.output
    row = answer.stdout.splitlines()[-1].split()
    assert row[:7] == ["1", "63", "40949684", "40949622", "20966206464", "0x83", "Linux"]
    assert row[-1] == "active"


def test_the_same_for_programs(dump: Path) -> None:
    told = json.loads(run("-o", "json", "storage", "table", "--dump", dump).stdout)
    assert told["kind"] == "mbr"
    assert told["partitions"][0]["size_bytes"] == 20_966_206_464
    assert "size_bytes: 20966206464" in run("-o", "yaml", "storage", "table", "--dump", dump).stdout


def test_an_error_in_the_table_is_told_and_fails(dump: Path) -> None:
    answer = run("storage", "table", dump)
    assert answer.exit_code == 1
    assert "error: partition 1 reaches beyond the device [BEYOND_THE_END]" in answer.stdout


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    answer = run("storage", "table", tmp_path / "gone")
    assert answer.exit_code == 2
    assert answer.stderr.strip().endswith("gone: No such file or directory")


def test_a_backup_is_kept_once_and_compared(dump: Path, tmp_path: Path) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.write_bytes(SECTOR + bytes(1 << 20))
    answer = run("storage", "table", "backup", disk, kept)
    assert answer.exit_code == 0, answer.output
    assert answer.stdout == f"1 partitions of {disk} are in {kept}\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert (
        run("storage", "table", "verify", kept, disk).stdout == f"{disk} has the table of {kept}\n"
    )
    assert "File exists" in run("storage", "table", "backup", disk, kept).stderr
    disk.write_bytes(SECTOR.replace(b"\x83", b"\x82") + bytes(1 << 20))
    answer = run("storage", "table", "verify", kept, disk)
    assert answer.exit_code == 1
    assert answer.stdout.splitlines() == [
        "partition 1 is another one",
        "the bytes at 0 differ: master boot record",
    ]
    kept.write_bytes(kept.read_bytes()[:-1])
    answer = run("storage", "table", "verify", kept, disk)
    assert answer.exit_code == 2
    assert "checksum is wrong" in answer.stderr


def test_show_need_not_be_named(dump: Path) -> None:
    assert run("storage", "table", "show", "--dump", dump).stdout.startswith("MBR")
    listed = run("storage", "table", "--help").stdout
    for word in ("apply", "backup", "copy", "restore", "show", "verify"):
        assert f"\n  {word} " in listed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("apply", "ID"), "give either a file, or what to add"),
        (("apply", "ID", "--add", "size=8GB,kind=x"), "'kind=x' is none of number"),
        (("apply", "ID", "--resize", "2"), "'2' is not NUMBER=VALUE"),
        (("apply", "ID", "--resize", "two=max"), "'two' is no number of a partition"),
        (("apply", "ID", "--resize", "2=large"), "'large' is not a size"),
        (("copy", "ID"), "give either --from or --from-file"),
        (("restore", "gone", "ID"), "gone: No such file or directory"),
        (("show", "--dump", "ID"), "a host knows its sectors"),
    ],
)
def test_what_is_asked_for_wrongly_is_named(words: tuple[str, ...], told: str) -> None:
    answer = run("-H", "local", "storage", "table", *words)
    assert answer.exit_code == 2
    assert told in answer.stderr


def test_edits_by_options() -> None:
    edits = _Edits()
    edits.update(("2=max", "3=8GiB"), _resize)
    edits.update(("2=lvm",), _set("type"))
    edits.of(3).bootable = False
    asked = edits.all((5,), ("size=512M,type=efi,name=boot,bootable", "number=9,start=1GiB"))
    assert [MessageToDict(one, preserving_proto_field_name=True) for one in asked] == [
        {"delete": 5},
        {"update": {"number": 2, "size_bytes": "0", "type": "lvm"}},
        {"update": {"number": 3, "size_bytes": str(8 << 30), "bootable": False}},
        {"add": {"size_bytes": str(512 << 20), "type": "efi", "name": "boot", "bootable": True}},
        {"add": {"number": 9, "start_bytes": str(1 << 30)}},
    ]


def test_a_whole_table_as_toml(tmp_path: Path) -> None:
    path = tmp_path / "disk.toml"
    path.write_text(
        'kind = "gpt"\n[[partitions]]\nnumber = 1\nsize_bytes = 1_048_576\ntype = "efi"\n'
        '[[partitions]]\nnumber = 2\nname = "root"\nbootable = true\n'
    )
    table = load_message(path, partition_pb2.WantedTable())
    assert table.kind == partition_pb2.TABLE_KIND_GPT
    assert [one.HasField("size_bytes") for one in table.partitions] == [True, False]
    assert table.partitions[1].name == "root"

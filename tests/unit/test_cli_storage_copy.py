"""`hostler storage copy` and `verify`: what people and programs are told, and exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from hostler.cli.main import cli


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def test_a_copy_and_its_manifest(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(b"12345")
    made = run("-o", "json", "storage", "copy", "--manifest", source, target)
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert (told["entries"], told["files"], told["size_bytes"]) == (1, 1, 5)
    good = run("storage", "verify", tmp_path / "copy.manifest")
    assert (good.exit_code, good.stdout) == (0, "1 entries, 0 findings\n")
    target.write_bytes(b"12346")
    bad = run("-o", "json", "storage", "verify", tmp_path / "copy.manifest")
    assert bad.exit_code == 1
    codes = [one["code"] for one in json.loads(bad.stdout)["findings"]]
    assert codes == ["ATTRIBUTES", "CONTENTS"]
    assert run("storage", "verify", tmp_path / "copy.manifest", "--root", source).exit_code == 0


def test_a_refusal_says_why_and_for_programs(tmp_path: Path) -> None:
    (tmp_path / "source").touch()
    (tmp_path / "a\x1bb").touch()
    answer = run("storage", "copy", tmp_path / "source", tmp_path / "a\x1bb")
    assert answer.exit_code == 2
    assert "a\\x1bb: is there already; nothing was changed [TARGET_EXISTS]" in answer.stderr
    assert "No such file" in run("storage", "copy", tmp_path / "gone", tmp_path / "new").stderr


def test_a_manifest_that_was_cut_or_changed_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"1")
    run("storage", "copy", "--manifest", tmp_path / "source", tmp_path / "copy")
    path = tmp_path / "copy.manifest"
    whole = path.read_bytes()
    for text in (b"", whole[:-20], whole.replace(b'"uid"', b'"gid"'), whole.split(b"\n")[0]):
        path.write_bytes(text)
        answer = run("storage", "verify", path)
        assert answer.exit_code == 2
        assert "manifest" in answer.stderr

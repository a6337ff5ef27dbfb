"""Parquet: every event is a row, and its texts are in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_batches import Story, any_events

from hostler.core.trace.events import COLUMNS, Events, FileType
from hostler.core.trace.parquet import ParquetMissing, write_parquet

SHARED = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20
)


def test_a_notebook_sees_names(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    story = Story()
    cat = story.process(7, "cat", exe=b"/bin/\xff", uid=1000)
    web = story.file(FileType.IPV4, "a->b", local_ip=bytes([10, 0, 0, 0]), remote_port=80)
    story.tell("read", cat, 3, fd=3, file=web, result=-11, data=b"\xff\0")
    story.tell("openat", cat, path="/etc/hosts", result=3)
    assert write_parquet(tmp_path / "a.parquet", [Events.empty(), story.events()]) == 2
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["call"] for row in rows] == ["read", "openat"]
    assert [row["process_name"] for row in rows] == ["cat", "cat"]
    assert [row["process_exe"] for row in rows] == ["/bin/\N{REPLACEMENT CHARACTER}"] * 2
    assert [row["path"] for row in rows] == ["", "/etc/hosts"]
    assert [row["data"] for row in rows] == [b"\xff\0", b""]
    assert [row["result"] for row in rows] == [-11, 3]
    assert [row["file_type"] for row in rows] == ["ipv4", "none"]
    assert [row["file_local_ip"] for row in rows] == ["10.0.0.0", ""]
    assert [row["file_remote_port"] for row in rows] == [80, 0]
    assert rows[0]["time"].year == 2001


@SHARED
@given(batches=st.lists(any_events(), max_size=3))
def test_every_event_is_a_row(tmp_path: Path, batches: list[Events]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    path.unlink(missing_ok=True)
    assert write_parquet(path, batches) == sum(map(len, batches))
    table = parquet.read_table(path)
    for name in COLUMNS:
        if name in table.column_names and COLUMNS[name] in ("<u8", "<i8"):
            want = [value for batch in batches for value in batch[name].tolist()]
            assert table[name].to_pylist() == want


def test_an_older_file_stays(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_text("mine")
    with pytest.raises(FileExistsError):
        write_parquet(tmp_path / "a.parquet", [])


def test_without_the_extra_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ParquetMissing, match=r"hostler\[parquet\]"):
        write_parquet(tmp_path / "a.parquet", [])
    assert not (tmp_path / "a.parquet").exists()

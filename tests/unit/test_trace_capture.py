"""Capture files: written, rotated, torn, damaged, read in part, and merged."""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_batches import any_events, numbers, same, simple

from hostler.core.trace.blocks import encode, exit_ns
from hostler.core.trace.capture import (
    SYNC,
    CaptureHeader,
    FrameKind,
    end_bytes,
    frame_bytes,
    header_bytes,
)
from hostler.core.trace.capture_reader import CaptureReader
from hostler.core.trace.capture_writer import CaptureWriter, Rotation, Sync
from hostler.core.trace.events import COLUMNS, Events
from hostler.core.trace.schema import SCHEMA, CaptureInvalid

HEADER = CaptureHeader("web1", "b" * 36, 10**18, -5, "proc.name=sshd and fd.name contains ü")
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(path: Path, batches: list[Events], *, is_closed: bool = True) -> bytes:
    path.unlink(missing_ok=True)
    writer = CaptureWriter(path, HEADER, sync=Sync.NEVER)
    for batch in batches:
        writer.write(batch)
    data = path.read_bytes()
    writer.close()
    if not is_closed:
        path.write_bytes(data)
    return path.read_bytes()


def blocks_of(path: Path) -> list[Events]:
    with CaptureReader(path) as reader:
        return list(reader)


@SHARED
@given(batches=st.lists(any_events(), max_size=4))
def test_what_is_written_comes_back(tmp_path: Path, batches: list[Events]) -> None:
    path = tmp_path / "a.htrace"
    written(path, batches)
    with CaptureReader(path) as reader:
        assert reader.header == HEADER
        assert (reader.is_torn, reader.torn_bytes, reader.damaged) == (False, 0, [])
        assert reader.events == sum(map(len, batches))
        assert reader.lost == sum(b.lost for b in batches)
        read = list(reader)
    assert all(same(one, two) for one, two in zip(read, batches, strict=True))


@pytest.mark.parametrize("sync", list(Sync))
def test_each_way_to_bring_it_to_disk_writes_the_same(tmp_path: Path, sync: Sync) -> None:
    path = tmp_path / "a.htrace"
    with CaptureWriter(path, HEADER, sync=sync) as writer:
        writer.write(simple(1, 5))
    data = path.read_bytes()
    assert data == written(path, [simple(1, 5)])


def test_any_numbers_of_lost_events_are_written(tmp_path: Path) -> None:
    batches = [simple(1, 1), simple(2, 1)]
    for batch in batches:
        batch.lost = 2**64 - 1
    written(tmp_path / "a.htrace", batches)
    with CaptureReader(tmp_path / "a.htrace") as reader:
        assert [batch.lost for batch in reader] == [2**64 - 1] * 2


def test_a_file_is_private_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.htrace"
    written(path, [])
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        CaptureWriter(path, HEADER)
    target = tmp_path / "passwd"
    (tmp_path / "b.htrace").symlink_to(target)
    with pytest.raises(FileExistsError):
        CaptureWriter(tmp_path / "b.htrace", HEADER)
    assert not target.exists()


def test_a_file_cut_anywhere_is_read_up_to_there(tmp_path: Path) -> None:
    batches = [simple(1, 5), simple(6, 5), simple(11, 5)]
    path = tmp_path / "a.htrace"
    data = written(path, batches)
    with CaptureReader(path) as reader:
        ends = [block.end for block in reader.blocks]
        begin = reader.blocks[0].offset
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        if cut < begin:
            with pytest.raises(CaptureInvalid):
                CaptureReader(path)
            continue
        with CaptureReader(path) as reader:
            whole = sum(end <= cut for end in ends)
            assert reader.is_torn
            assert reader.torn_bytes == cut - ([begin, *ends][whole])
            assert numbers(list(reader)) == list(range(1, 5 * whole + 1))


def test_every_byte_flipped_once_is_noticed(tmp_path: Path) -> None:
    batches = [simple(1, 5), simple(6, 5), simple(11, 5)]
    path = tmp_path / "a.htrace"
    data = written(path, batches)
    with CaptureReader(path) as reader:
        in_blocks = list(reader.blocks)[-1].end - reader.blocks[0].offset
        good = list(reader)
    named = 0
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        try:
            with CaptureReader(path, skip_damaged=True) as reader:
                read = list(reader)
        except CaptureInvalid as error:
            assert error.place
            continue
        assert reader.damaged or reader.is_torn
        assert all(any(same(batch, one) for one in good) for batch in read)
        assert len(read) >= 2
        if reader.damaged:
            named += 1
            assert reader.damaged[0].offset <= at
            with CaptureReader(path) as strict, pytest.raises(CaptureInvalid):
                list(strict)
    assert named == in_blocks


def test_whatever_lies_in_the_middle_is_skipped_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.htrace"
    data = written(path, [simple(1, 5), simple(6, 5), simple(11, 5)])
    with CaptureReader(path) as reader:
        second, third = reader.blocks[1].offset, reader.blocks[2].offset
    path.write_bytes(data[:second] + SYNC * 1000 + bytes(3_000_000) + SYNC[:4] + data[third:])
    with CaptureReader(path, skip_damaged=True) as reader:
        assert numbers(list(reader)) == [*range(1, 6), *range(11, 16)]
        # The hole, and that the end speaks of one more block.
        assert reader.damaged[0].offset == second
        assert "not what its end says" in str(reader.damaged[1])
    with CaptureReader(path) as reader, pytest.raises(CaptureInvalid, match=str(second)):
        list(reader)
    path.write_bytes(data[:second] + data[third:])
    with CaptureReader(path) as reader, pytest.raises(CaptureInvalid, match="2 blocks with 10"):
        list(reader)
    path.write_bytes(data + data[second:])
    with CaptureReader(path) as reader, pytest.raises(CaptureInvalid, match="after its end"):
        list(reader)


def test_a_file_of_a_newer_release_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.htrace"
    columns = {name if name != "arg5" else "weather": kind for name, kind in COLUMNS.items()}
    newer = replace(HEADER, schema=replace(SCHEMA, events=columns))
    block = frame_bytes(FrameKind.BLOCK, encode(simple(1, 5)))
    path.write_bytes(header_bytes(newer) + block + frame_bytes(FrameKind.END, end_bytes(1, 5, 0)))
    with CaptureReader(path) as reader:
        assert reader.header == newer
        assert numbers(list(reader)) == [1, 2, 3, 4, 5]


def test_a_file_that_is_damaged_everywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.htrace"
    block = frame_bytes(FrameKind.BLOCK, encode(simple(1, 1)))
    path.write_bytes(header_bytes(HEADER) + 1100 * (block + b"no"))
    with pytest.raises(CaptureInvalid, match="more than 1000 places"):
        CaptureReader(path, skip_damaged=True)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"[" * 60_000, b'{"version":2}', b"\xff"])
def test_a_header_of_anything_else_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "a.htrace"
    prefix = header_bytes(HEADER)[:8]
    path.write_bytes(prefix + struct.pack("<II", len(body), zlib.crc32(body)) + body)
    with pytest.raises(CaptureInvalid, match="header"):
        CaptureReader(path)
    path.write_bytes(prefix + struct.pack("<II", 1 << 31, 0) + body)
    with pytest.raises(CaptureInvalid, match="too long"):
        CaptureReader(path)


def test_what_is_no_file_is_refused_and_nothing_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(CaptureInvalid, match="regular"):
            CaptureReader(path)
    with pytest.raises(CaptureInvalid, match="not a capture"):
        CaptureReader(Path("/etc/passwd"))


KILLED = """
import sys
from pathlib import Path
from hostler.core.trace.capture import CaptureHeader
from hostler.core.trace.capture_writer import CaptureWriter, Sync
sys.path.insert(0, sys.argv[2])
from trace_batches import simple
writer = CaptureWriter(Path(sys.argv[1]), CaptureHeader("a", "b", 1), sync=Sync.NEVER)
print("ready", flush=True)
number = 1
while True:
    writer.write(simple(number, 5000))
    number += 5000
"""


def test_a_killed_writer_leaves_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "a.htrace"
    support = Path(__file__).parents[1] / "trace_support"
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), str(support)], stdout=subprocess.PIPE
    )
    assert writer.stdout
    assert writer.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + 30
    while path.stat().st_size < 200_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    with CaptureReader(path) as reader:
        assert reader.is_torn
        read = numbers(list(reader))
    assert read == list(range(1, len(read) + 1))
    assert len(read) >= 5000


def test_a_full_disk_leaves_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "a.htrace"
    writer = CaptureWriter(path, HEADER)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writer.write(simple(1, 100))
    size = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 150, before[1]))
    try:
        with pytest.raises(OSError, match="large"):
            writer.write(simple(101, 60000))
        assert path.stat().st_size == size
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    with CaptureReader(path) as reader:
        assert not reader.is_torn
        assert numbers(list(reader)) == list(range(1, 101))


@pytest.mark.parametrize(
    ("rotation", "files"),
    [
        (Rotation(events=40), [40, 40, 20]),
        (Rotation(size_bytes=1), [10] * 10),
        (Rotation(seconds=0.1 / 3), [30, 30, 30, 10]),
        (Rotation(events=40, keep=2), [40, 20]),
        (Rotation(), [100]),
    ],
)
def test_files_are_rotated(tmp_path: Path, rotation: Rotation, files: list[int]) -> None:
    with CaptureWriter(tmp_path / "a.htrace", HEADER, rotation=rotation) as writer:
        for first in range(1, 101, 10):
            writer.write(simple(first, 10, step_ns=1_000_000))
    made = sorted(tmp_path.iterdir())
    assert made[-1].name == f"a-{len(files) if not rotation.keep else 3:06}.htrace"
    read = [blocks_of(path) for path in made]
    assert [sum(map(len, batches)) for batches in read] == files
    last = numbers([batch for batches in read for batch in batches])
    assert last == list(range(101 - sum(files), 101))


def test_rotation_removes_only_its_own_files(tmp_path: Path) -> None:
    path = tmp_path / "a.htrace"
    with CaptureWriter(path, HEADER, rotation=Rotation(events=1, keep=1)) as writer:
        (tmp_path / "a-000001.htrace").rename(tmp_path / "mine")
        (tmp_path / "a-000001.htrace").write_text("another's")
        writer.write(simple(1, 3))
    left = sorted(each.name for each in tmp_path.iterdir())
    assert left == ["a-000001.htrace", "a-000003.htrace", "mine"]
    for name in ("size_bytes", "seconds", "events", "keep"):
        with pytest.raises(ValueError, match=name):
            replace(Rotation(), **{name: 0})


def test_a_span_of_time_reads_no_more_than_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a.htrace"
    data = written(path, [simple(1, 5), simple(6, 5), simple(11, 5)])
    with CaptureReader(path) as reader:
        third = reader.blocks[2]
        assert numbers(list(reader.between(10**18 + 4000, 10**18 + 7000))) == [4, 5, 6, 7]
        # Still under way from its entry to its exit.
        assert numbers(list(reader.between(10**18 + 4500, 10**18 + 4500))) == [4]
        assert numbers(list(reader.between(10**18 + 4501, 10**18 + 4999))) == []
        assert numbers(list(reader.between(0, 2**64 - 1))) == list(range(1, 16))
        assert (exit_ns(simple(15, 1)) == third.last_ns).all()
    path.write_bytes(data[: third.offset + 90] + bytes(10) + data[third.offset + 100 :])
    with CaptureReader(path) as reader:
        assert numbers(list(reader.between(10**18, 10**18 + 7000))) == list(range(1, 8))

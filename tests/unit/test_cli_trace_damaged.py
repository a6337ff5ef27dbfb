"""`hostler trace read` of captures that are torn, damaged or none: told, never half in silence."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from scap_world import World, write_scap
from trace_batches import simple

from hostler.cli.main import cli
from hostler.core.trace.capture import CaptureHeader
from hostler.core.trace.capture_reader import CaptureReader
from hostler.core.trace.capture_writer import CaptureWriter, Sync

# With HOSTLER_SOAK=1 every byte; else some of each part of the file.
SOAK = os.environ.get("HOSTLER_SOAK") == "1"
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]
MOST = 10**9 if SOAK else 40
BLOCKS, EVENTS = 4, 5


def chosen(places: Iterable[int]) -> list[int]:
    every = list(places)
    return every[:: max(1, len(every) // MOST)]


def written(path: Path) -> bytes:
    """A capture of Hostler's own of some blocks."""
    with CaptureWriter(path, CaptureHeader("h1", "b" * 36, 10**18), sync=Sync.NEVER) as writer:
        for i in range(BLOCKS):
            writer.write(simple(1 + i * EVENTS, EVENTS))
    return path.read_bytes()


def read(path: Path, *words: str) -> Result:
    """It ends by an answer, whatever it was given."""
    done = CliRunner().invoke(cli, ["-o", "ndjson", "trace", "read", str(path), *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code in (0, 1), done.output
    return done


def numbers(done: Result) -> list[int]:
    return [json.loads(line)["number"] for line in done.stdout.splitlines()]


def test_each_byte_of_a_capture_is_flipped(tmp_path: Path) -> None:
    path = tmp_path / "a.htrace"
    data = written(path)
    whole = numbers(read(path))
    assert len(whole) == BLOCKS * EVENTS
    refused = 0
    for at in chosen(range(len(data))):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        done = read(path)
        # Whatever is shown is right; if it is not all, that is told, with the file's name.
        assert numbers(done) == whole[: len(numbers(done))]
        assert "a.htrace" in done.stderr, at
        refused += done.exit_code
        if done.exit_code == 0:
            assert "not completed" in done.stderr
    # What is no end of a file is no torn end.
    assert refused > len(chosen(range(len(data)))) * 0.9


def test_a_capture_is_cut_at_each_block(tmp_path: Path) -> None:
    path = tmp_path / "a.htrace"
    data = written(path)
    with CaptureReader(path) as reader:
        begin, ends = reader.blocks[0].offset, [block.end for block in reader.blocks]
    for cut in [0, 1, begin - 1, begin, *ends, *chosen(range(begin, len(data)))]:
        path.write_bytes(data[:cut])
        done = read(path)
        if cut < begin:
            assert (done.exit_code, done.stdout) == (1, "")
            assert "a.htrace" in done.stderr
            continue
        assert done.exit_code == 0
        assert "a.htrace: not completed" in done.stderr
        assert len(numbers(done)) == EVENTS * sum(end <= cut for end in ends)


def test_a_capture_of_sysdigs_is_cut_and_flipped(tmp_path: Path) -> None:
    path = write_scap(tmp_path / "a.scap", World(1).events(50))
    data = path.read_bytes()
    whole = read(path)
    assert whole.exit_code == 0 and len(whole.stdout.splitlines()) >= 50
    for cut in chosen(range(len(data) // 2, len(data) - 1)):
        path.write_bytes(data[:cut])
        done = read(path)
        rows = done.stdout.splitlines()
        assert rows != whole.stdout.splitlines()
        # A file of this format does not say where it ends: between blocks nobody can tell.
        if done.exit_code == 0 and "not completed" not in done.stderr:
            path.write_bytes(data[: cut + 1])
            assert "not completed" in read(path).stderr
    for at in chosen(range(len(data))):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        done = read(path)
        assert done.exit_code == 0 or str(path) in done.stderr


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A capture whose third block is not what it was."""
    path = tmp_path / "a.htrace"
    data = bytearray(written(path))
    with CaptureReader(path) as reader:
        data[reader.blocks[2].end - 10] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("option", ["--scap", "--parquet"])
def test_nothing_is_left_of_what_could_not_be_turned_into_another_format(
    damaged: Path, tmp_path: Path, option: str
) -> None:
    target = tmp_path / "out"
    done = read(damaged, option, str(target))
    assert done.exit_code == 1 and "a.htrace" in done.stderr
    assert not target.exists()
    target.write_text("mine")
    again = CliRunner().invoke(cli, ["trace", "read", str(damaged), option, str(target)])
    assert again.exit_code == 2 and "is there already" in again.stderr
    assert target.read_text() == "mine"


def test_a_chisel_says_nothing_of_the_half_of_a_capture(damaged: Path) -> None:
    done = read(damaged, "-c", "topscalls")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "a.htrace" in done.stderr


@pytest.mark.parametrize(
    "data",
    [b"", b"\x89PNG\r\n\x1a\n" + bytes(100), b"#!/bin/sh\n", b"\xd4\xc3\xb2\xa1" + bytes(99)],
    ids=["empty", "png", "script", "pcap"],
)
def test_what_is_no_capture_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.htrace"
    path.write_bytes(data)
    done = read(path)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "a.htrace" in done.stderr

"""The files of an audit log, and how they are read, whatever a writer does meanwhile.

The file that is written is `audit.jsonl`. One that was closed is `audit-SEQ.jsonl`, by the number
of its first record, and once it is compressed `audit-SEQ.jsonl.gz`.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from hostler.core.audit import Record, parse

_BLOCK_BYTES = 1 << 18
# Longer than any line that is written; a longer one is somebody else's work.
_MOST_LINE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file of the log. `first_seq` is 0 if its first line is no record."""

    path: Path
    first_seq: int
    compressed: bool = False
    current: bool = False

    def open(self) -> BinaryIO:
        """Open it for reading, unpacked. Raises FileNotFoundError if it has been dropped."""
        if not self.compressed:
            try:
                return self.path.open("rb")
            except FileNotFoundError:
                if self.current:
                    raise
                # It was compressed since it was listed.
                return cast(BinaryIO, gzip.open(packed(self.path), "rb"))
        return cast(BinaryIO, gzip.open(self.path, "rb"))


def closed_name(current: Path, first_seq: int) -> Path:
    """Where a file goes when it is closed."""
    return current.with_name(f"{current.stem}-{first_seq:016d}{current.suffix}")


def packed(path: Path) -> Path:
    """Where a closed file goes when it is compressed."""
    return path.with_name(path.name + ".gz")


def closed(current: Path) -> list[LogFile]:
    """List the closed files, oldest first."""
    pattern = re.compile(rf"{re.escape(current.stem)}-(\d{{16}}){re.escape(current.suffix)}(\.gz)?")
    found: dict[int, LogFile] = {}
    try:
        here = current.stat().st_ino
    except FileNotFoundError:
        here = 0
    try:
        entries = list(os.scandir(current.parent))
    except FileNotFoundError:
        return []
    for entry in entries:
        match = pattern.fullmatch(entry.name)
        # A crash between the two steps of a rotation leaves the current file with two names.
        if match is None or entry.inode() == here:
            continue
        seq, compressed = int(match[1]), match[2] is not None
        # While both are there, the compressed one is complete: it gets its name last.
        if seq not in found or compressed:
            found[seq] = LogFile(Path(entry.path), seq, compressed)
    return [found[seq] for seq in sorted(found)]


def all_files(current: Path) -> list[LogFile]:
    """List all files, oldest first, the one that is written last."""
    try:
        with current.open("rb") as stream:
            first = parse(stream.readline(_MOST_LINE_BYTES))
    except FileNotFoundError:
        return closed(current)
    here = LogFile(current, first["seq"] if first else 0, current=True)
    return [*closed(current), here]


def first_record(file: LogFile) -> Record | None:
    """Read the first record of a file; None if it has none."""
    try:
        with file.open() as stream:
            return parse(stream.readline(_MOST_LINE_BYTES))
    except (OSError, EOFError):
        return None


def last_record(path: Path) -> Record | None:
    """Read the last record of a log; None if it has none."""
    for line in backwards(path):
        record = parse(line)
        if record is not None:
            return record
    return None


def pieces(path: Path, after_seq: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield the lines of a log, one by one, each with the name of its file.

    Files that end before `after_seq` are left out. What is written after the call is left out too.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        yield from _closed_pieces(closed(path), after_seq, None)
        return
    with stream:
        # Opened before the others are listed: rotation may rename it, and it is read all the same.
        end = os.fstat(stream.fileno()).st_size
        first = parse(stream.readline(_MOST_LINE_BYTES))
        stream.seek(0)
        begins = first["seq"] if first else None
        yield from _closed_pieces(closed(path), after_seq, begins)
        while stream.tell() < end and (line := stream.readline(_MOST_LINE_BYTES)):
            yield path.name, line


def _closed_pieces(
    files: list[LogFile], after_seq: int, before_seq: int | None
) -> Iterator[tuple[str, bytes]]:
    """Yield the lines of closed files, up to the one that begins at `before_seq`."""
    for index, file in enumerate(files):
        following = files[index + 1].first_seq if index + 1 < len(files) else before_seq
        if before_seq is not None and file.first_seq >= before_seq:
            return
        if following is not None and following <= after_seq:
            continue
        try:
            with file.open() as stream:
                while line := stream.readline(_MOST_LINE_BYTES):
                    yield file.path.name, line
        except (FileNotFoundError, EOFError):
            # Dropped since it was listed, or a packed file that was cut: what is missing shows.
            continue


def lines(path: Path, after_seq: int = 0) -> Iterator[bytes]:
    """Yield the lines of a log, oldest first."""
    for _, line in pieces(path, after_seq):
        yield line


def records(path: Path, after_seq: int = 0) -> Iterator[Record]:
    """Yield the records of a log after one, oldest first; what is no record is left out."""
    for line in lines(path, after_seq):
        record = parse(line)
        if record is not None and record["seq"] > after_seq:
            yield record


def backwards(path: Path) -> Iterator[bytes]:
    """Yield the lines of a log, newest first."""
    for file in reversed(all_files(path)):
        if file.compressed:
            # Packed files can only be read from their beginning; they hold one file's lines.
            try:
                with file.open() as stream:
                    yield from reversed(stream.readlines())
            except (OSError, EOFError):
                continue
        else:
            try:
                with file.open() as stream:
                    yield from _reversed_lines(stream)
            except FileNotFoundError:
                continue


def _reversed_lines(stream: BinaryIO) -> Iterator[bytes]:
    place = stream.seek(0, os.SEEK_END)
    rest = b""
    while place > 0:
        size = min(_BLOCK_BYTES, place)
        place -= size
        stream.seek(place)
        block = stream.read(size) + rest
        first, *whole = block.split(b"\n")
        for line in reversed(whole):
            if line:
                yield line
        rest = first
        if len(rest) > _MOST_LINE_BYTES:
            return
    if rest:
        yield rest

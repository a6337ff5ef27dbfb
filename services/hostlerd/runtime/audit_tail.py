"""Reads an audit log as it grows, each line once, over rotations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from hostlerd.runtime.audit_files import LogFile, all_files


class Tail:
    """A place in a log, kept open: what was read is not read again. For one thread at a time."""

    def __init__(self, path: Path, after_seq: int) -> None:
        self._path = path
        self._after_seq = after_seq
        self._file: LogFile | None = None
        self._stream: BinaryIO | None = None

    def lines(self, most: int) -> list[bytes]:
        """Answer the next whole lines, none if there are no more yet.

        The first file begins before the wanted place: who reads leaves out what he has.
        """
        found: list[bytes] = []
        while len(found) < most:
            if self._stream is None and not self._open_next():
                break
            assert self._stream is not None  # noqa: S101 - for the type checker
            growing = self._grows()
            place = self._stream.tell()
            line = self._stream.readline()
            if line.endswith(b"\n"):
                found.append(line)
            elif growing:
                self._stream.seek(place)
                break
            else:
                # A torn line at the end of a closed file was counted by the file after it.
                self.close()
        return found

    def close(self) -> None:
        """Close the file; `lines` goes on with the next one."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _grows(self) -> bool:
        """Whether the open file is the one that is written. Asked before its end is looked for."""
        if self._stream is None or (self._file is not None and self._file.compressed):
            return False
        try:
            return os.fstat(self._stream.fileno()).st_ino == self._path.stat().st_ino
        except FileNotFoundError:
            return True

    def _open_next(self) -> bool:
        files = all_files(self._path)
        if self._file is None:
            before = [file for file in files if file.first_seq <= self._after_seq + 1]
            candidates = [*before[-1:], *files[len(before) :]]
        else:
            candidates = [file for file in files if file.first_seq > self._file.first_seq]
        for file in candidates:
            try:
                self._stream = file.open()
            except FileNotFoundError:
                continue
            self._file = file
            return True
        return False

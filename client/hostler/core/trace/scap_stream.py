"""The bytes of a `.scap` file, compressed or not."""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path

from hostler.core.trace.schema import CaptureInvalid

_CHUNK = 256 * 1024
_GZIP = b"\x1f\x8b"


class ScapStream:
    """The bytes of a file, decompressed if they are compressed, a chunk at a time.

    `offset` counts what was read, decompressed. `is_torn`: what is compressed ended early.
    """

    def __init__(self, path: Path) -> None:
        self.offset = 0
        self.is_torn = False
        self._waiting = memoryview(b"")
        # Opening a FIFO would wait for a writer.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise CaptureInvalid("not a regular file", "capture")
            is_gzip = os.pread(self._fd, len(_GZIP), 0) == _GZIP
        except BaseException:
            os.close(self._fd)
            raise
        self._zip = zlib.decompressobj(zlib.MAX_WBITS | 16) if is_gzip else None

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def read(self, length: int) -> bytes:
        """The next bytes, fewer only at the end."""
        parts = []
        missing = length
        while missing:
            if not self._waiting:
                self._waiting = memoryview(self._more())
                if not self._waiting:
                    break
            part = self._waiting[:missing]
            self._waiting = self._waiting[missing:]
            parts.append(part)
            missing -= len(part)
        self.offset += length - missing
        return b"".join(parts)

    def _more(self) -> bytes:
        if self._zip is None:
            return os.read(self._fd, _CHUNK)
        while not self._zip.eof:
            packed = self._zip.unconsumed_tail or os.read(self._fd, _CHUNK)
            if not packed:
                self.is_torn = True
                return b""
            try:
                data = self._zip.decompress(packed, _CHUNK)
            except zlib.error as error:
                place = f"byte {self.offset} decompressed"
                raise CaptureInvalid(f"cannot be decompressed: {error}", place) from error
            if data:
                return data
        return b""

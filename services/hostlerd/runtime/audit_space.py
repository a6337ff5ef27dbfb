"""Disk laid aside for the audit log: blocks that belong to its file already, beyond its end.

Nobody else can take them when the disk is full, and an append that uses them cannot fail for want
of space.
"""

from __future__ import annotations

import errno
import os
import time

from hostlerd.runtime.log import get_log

log = get_log("runtime.audit")

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
_BLOCK_BYTES = 512  # The unit of st_blocks, whatever the filesystem's own is; see stat(2).
_LOOK_S = 1.0
# Left to the rest of the host; below it a filesystem is as good as full.
_MARGIN_BYTES = 1 << 20


class Space:
    """Keeps at least `reserve_bytes` laid aside; `problem` says why that could not be done."""

    def __init__(self, reserve_bytes: int) -> None:
        self._reserve = reserve_bytes
        self._laid_bytes = 0
        self._next_look = 0.0
        self._supported = True
        self.problem = ""

    def opened(self, status: os.stat_result) -> None:
        """Take note of what a file has that was opened, or that another process has written."""
        self._laid_bytes = status.st_blocks * _BLOCK_BYTES

    def look(self, file: int, size_bytes: int) -> None:
        """Lay more aside if less than the reserve is left; on a full disk look once a second."""
        if not self._supported:
            return
        if self._laid_bytes - size_bytes >= self._reserve:
            self.problem = ""
            return
        now = time.monotonic()
        if self.problem and now < self._next_look:
            return
        self._next_look = now + _LOOK_S
        self.problem = self._lay(file, size_bytes)

    def _lay(self, file: int, size_bytes: int) -> str:
        """Lay aside twice the reserve, or at least once. Answers why it could not be done."""
        for wanted in (2 * self._reserve, self._reserve):
            missing = size_bytes + wanted - self._laid_bytes
            free = os.fstatvfs(file)
            if free.f_bavail * free.f_frsize < missing + min(_MARGIN_BYTES, self._reserve):
                continue
            try:
                _allocate(file, size_bytes, wanted)
            except OSError as e:
                if e.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
                    log.warning("this filesystem lays nothing aside for the audit log")
                    self._supported = False
                    return ""
                return f"the disk of the audit log: {e.strerror}; on its reserve"
            self._laid_bytes = os.fstat(file).st_blocks * _BLOCK_BYTES
            return ""
        return "the disk of the audit log is full; on its reserve"


def _allocate(file: int, offset: int, length: int) -> None:
    """Give a file blocks beyond its end. Raises OSError. Source: fallocate(2)."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    numbers = (ctypes.c_int(_KEEP_SIZE), ctypes.c_int64(offset), ctypes.c_int64(length))
    if libc.fallocate(ctypes.c_int(file), *numbers) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

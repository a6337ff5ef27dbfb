"""Why a copy was not made. Whoever reads it knows that the target is as it was before."""

from __future__ import annotations

import errno
import os

#: No room: the filesystem's, the quota's.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class CopyRefused(Exception):
    """No copy was made. `reason` is a word for programs, `path` what it is about."""

    def __init__(self, reason: str, message: str, path: str) -> None:
        super().__init__(f"{path}: {message}")
        self.reason = reason
        self.path = path


def source_changed(path: str) -> CopyRefused:
    """What was read is not what is there now."""
    return CopyRefused("SOURCE_CHANGED", "changed while it was copied", path)


def of_error(error: OSError, path: str) -> CopyRefused:
    """The refusal for what the system answered about a path."""
    number = error.errno or 0
    if number in _FULL:
        return CopyRefused("TARGET_FULL", os.strerror(number), path)
    return CopyRefused("FAILED", os.strerror(number) if number else str(error), path)

"""How long closed files of the audit log are kept, and how small."""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
import time
from pathlib import Path
from typing import Any

from hostlerd.runtime.audit_files import LogFile, all_files, closed, first_record, packed
from hostlerd.runtime.config import AuditBounds
from hostlerd.runtime.log import get_log

log = get_log("runtime.audit")

_DAY_S = 86400.0
_LEVEL = 6
_COPY_BYTES = 1 << 20


def surplus(path: Path, bounds: AuditBounds) -> list[LogFile]:
    """Answer the closed files that are too many, too large together, or too old; oldest first."""
    files = closed(path)
    status = {}
    for file in files:
        try:
            status[file] = file.path.stat()
        except FileNotFoundError:
            continue
    oldest = time.time() - bounds.keep_days * _DAY_S
    total, kept = 0, 0
    for at in range(len(files) - 1, -1, -1):
        # One that another process has just compressed goes by another name: it is looked at later.
        if (seen := status.get(files[at])) is None:
            continue
        total += seen.st_size
        full = total > bounds.keep_bytes or kept == bounds.keep_files
        if full or seen.st_mtime < oldest:
            return [file for file in files[: at + 1] if file in status]
        kept += 1
    return []


def dropped(path: Path, files: list[LogFile]) -> dict[str, Any] | None:
    """Answer the record of dropping the oldest files: where the chain will begin then.

    None if that cannot be told; then they must stay.
    """
    names = {file.path for file in files}
    for file in all_files(path):
        if file.path not in names:
            first = first_record(file)
            if first is None:
                return None
            return {
                "kind": "dropped",
                "files": [file.path.name for file in files],
                "to_seq": first["seq"] - 1,
                "head": first.get("previous", ""),
            }
    return None


def compress(path: Path) -> None:
    """Compress every closed file. Slow; not for the writer's thread. Raises OSError."""
    for file in closed(path):
        if not file.compressed:
            _compress(file.path)


def _compress(path: Path) -> None:
    with path.open("rb") as source:
        try:
            # Another process may be at it.
            fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        fresh = path.with_name(path.name + ".new")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        with os.fdopen(file, "wb") as target:
            # The unit's umask would hide it from those who send it on.
            os.fchmod(file, 0o640)
            with gzip.GzipFile(path.name, "wb", _LEVEL, target) as packer:
                shutil.copyfileobj(source, packer, _COPY_BYTES)
            target.flush()
            os.fsync(file)
            status = os.fstat(source.fileno())
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        fresh.rename(packed(path))
        path.unlink()
        log.info("closed audit file compressed", path=path)

"""Who touches what under a path."""

from __future__ import annotations

import numpy as np

from hostler.core.trace import arguments, calls
from hostler.core.trace.chisel import Argument, Category, Chisel, Given, Kind, Selecting
from hostler.core.trace.chisel_cells import Shown, shown
from hostler.core.trace.chisel_groups import Grouping, Measure, top_argument
from hostler.core.trace.chisel_results import Heading, Unit
from hostler.core.trace.events import Column, Events, FileType
from hostler.core.trace.field import Kind as FieldKind
from hostler.core.trace.field import single
from hostler.core.trace.values import Words

_ON_DISK = (FileType.FILE, FileType.DIRECTORY, FileType.DEVICE)
_CHANGES = frozenset(
    (
        *("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir"),
        *("link", "linkat", "symlink", "symlinkat", "mknod", "mknodat", "chmod", "fchmod"),
        *("fchmodat", "chown", "fchown", "lchown", "fchownat", "truncate", "ftruncate"),
        *("truncate64", "ftruncate64", "chown32", "fchown32", "lchown32", "fallocate", "utime"),
        *("utimes", "futimesat", "utimensat", "utimensat_time64", "setxattr", "lsetxattr"),
        *("fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    )
)


def _directories(events: Events, below: bytes, depth: int) -> Words:
    """The directory that a call is about, cut off so many steps below a path."""
    files, count = events.files, len(events.texts)
    on_disk = np.isin(files["type"], _ON_DISK)
    of_file = np.where(on_disk, files["name"], 0)[events["file"]]
    codes = np.where(events["path"] > 0, events["path"], of_file)
    return Words(codes, count, lambda row: _directory(events.texts[row], below, depth))


def _directory(path: bytes, below: bytes, depth: int) -> bytes | None:
    if not path.startswith(below + b"/") and (path != below or not path):
        return None
    steps = path.removeprefix(below).strip(b"/").split(b"/")[:-1][:depth]
    return b"/".join((below, *steps)) or b"/"


def _calls(events: Events) -> Column:
    return np.ones(len(events), np.int64)


def _bytes_of(names: frozenset[str]) -> Measure:
    return lambda events: np.where(calls.among(events, names), np.maximum(events["result"], 0), 0)


def _count_of(names: frozenset[str]) -> Measure:
    return lambda events: calls.among(events, names) & ~arguments.failed(events)


_MEASURES: tuple[tuple[Heading, Measure], ...] = (
    (Heading("calls", Unit.COUNT), _calls),
    (Heading("opened", Unit.COUNT), _count_of(calls.OPENS)),
    (Heading("changed", Unit.COUNT), _count_of(_CHANGES)),
    (Heading("read", Unit.BYTES), _bytes_of(calls.READS)),
    (Heading("written", Unit.BYTES), _bytes_of(calls.WRITES)),
    (Heading("failed", Unit.COUNT), arguments.failed),
)


def _make(given: Given) -> Selecting:
    below, depth = given.text("path").encode().rstrip(b"/"), given.number("depth")

    def read(events: Events) -> Words:
        return _directories(events, below, depth)

    field = single("directory", FieldKind.TEXT, "a directory below the path", read)
    keys = (Shown(Heading("directory"), field), shown("process", "proc.name"))
    return Selecting(lambda events: read(events).present(), Grouping(given, keys, _MEASURES))


CHISEL = Chisel(
    "dirs",
    Category.IO,
    "which processes touch what, directory by directory, below a path",
    _make,
    "A call counts for its first path, or else for the file of its fd. Paths that the trace does "
    "not know in full are left out.",
    arguments=(
        Argument("path", Kind.TEXT, "below which path", "/"),
        Argument("depth", Kind.NUMBER, "how many directories deep to tell apart", "1"),
        top_argument(30),
    ),
)

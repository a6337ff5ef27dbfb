"""Events as a Parquet file for notebooks: one row for each, with texts in place of indices.

Needs pyarrow, which is the optional extra `parquet`; it is imported only here and only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import numpy as np

from hostler.core.trace.events import (
    COLUMNS,
    FILE_COLUMNS,
    PROCESS_COLUMNS,
    PROCESS_TEXTS,
    TEXT_COLUMNS,
    Column,
    Events,
    FileType,
    Flag,
)
from hostler.core.trace.syscalls import name_of

_INDICES = frozenset(("process", "file"))
_ADDRESSES = frozenset(("local_ip", "remote_ip"))


class ParquetMissing(Exception):
    """The package that writes Parquet is not installed."""

    def __init__(self) -> None:
        super().__init__("Parquet needs pyarrow: pip install 'hostler[parquet]'")


def write_parquet(path: Path, batches: Iterable[Events]) -> int:
    """Write all events to a new file and answer how many there were.

    The columns are those of the events; `call`, its name; `time`, which is `time_ns` as a
    timestamp; and those of its process and its file, as `process_pid` and `file_name`. Text that
    is no UTF-8 has U+FFFD in it, except for `data`, which stays bytes. Raises ParquetMissing,
    FileExistsError, OSError.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ParquetMissing from error
    count = 0
    schema = pyarrow.table(_columns(Events.empty(), pyarrow)).schema
    with (
        path.open("xb") as out,
        pyarrow.parquet.ParquetWriter(out, schema, compression="zstd") as writer,
    ):
        for events in batches:
            if len(events):
                writer.write_table(pyarrow.table(_columns(events, pyarrow)))
                count += len(events)
    return count


def _columns(events: Events, pyarrow: Any) -> dict[str, Any]:
    """The columns of a batch as pyarrow's arrays."""

    def texts(indices: Column, table: list[Any]) -> Any:
        # A path that a million events have is written once.
        kind = pyarrow.binary() if table and isinstance(table[0], bytes) else pyarrow.string()
        made = pyarrow.array(table, kind)
        return pyarrow.DictionaryArray.from_arrays(indices.astype("<i4"), made)

    read = [text.decode(errors="replace") for text in events.texts]
    made = {"time": pyarrow.array(events["time_ns"].view("<i8"), pyarrow.timestamp("ns", "UTC"))}
    made["call"] = texts(*_calls(events))
    for name in COLUMNS:
        if name in TEXT_COLUMNS:
            made[name] = texts(events[name], events.texts if name == "data" else read)
        elif name not in _INDICES:
            made[name] = pyarrow.array(events[name])
    for name in PROCESS_COLUMNS:
        column = events.of_process(name)
        made[f"process_{name}"] = (
            texts(column, read) if name in PROCESS_TEXTS else pyarrow.array(column)
        )
    for name in FILE_COLUMNS:
        made[f"file_{name}"] = _file_column(events, name, read, texts, pyarrow)
    return made


def _file_column(
    events: Events,
    name: str,
    read: list[str],
    texts: Callable[[Column, list[Any]], Any],
    pyarrow: Any,
) -> Any:
    if name == "name":
        return texts(events.of_file(name), read)
    if name == "type":
        # A type that a newer release knows is some other one here.
        types = np.minimum(events.of_file(name), FileType.OTHER)
        return texts(types, [kind.name.lower() for kind in FileType])
    if name in _ADDRESSES:
        return texts(events["file"], [_address(file, name) for file in events.files])
    return pyarrow.array(events.of_file(name))


def _calls(events: Events) -> tuple[Column, list[str]]:
    """For each event which of the names is that of its call."""
    is_32 = (events["flags"] & np.uint16(Flag.IS_32_BIT)).astype("<u4")
    codes, indices = np.unique(
        events["syscall"].astype("<u4") | (is_32 << np.uint32(16)), return_inverse=True
    )
    return indices, [name_of(code & 0xFFFF, bool(code >> 16)) for code in codes.tolist()]


def _address(file: Any, side: str) -> str:
    # numpy drops the zeros at the end.
    ip = bytes(file[side])
    if file["type"] == FileType.IPV4:
        return str(IPv4Address(ip[:4].ljust(4, b"\0")))
    if file["type"] == FileType.IPV6:
        return str(IPv6Address(ip.ljust(16, b"\0")))
    return ""

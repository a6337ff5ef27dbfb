"""A batch of events as one block of bytes, for a stream or a capture, and back. Pure.

A block is complete, as a batch is. It is a head, which says how much is in it and from when, and
a zstd frame of the columns of events, processes and files in the order of the schema, then the
texts: their lengths, and all of them in a row.

`decode` is safe on bytes from anyone: it makes nothing larger than MAX_DECODED_BYTES, and no
index of what it answers points outside its table.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import zstandard

from hostler.core.trace.columns import Cursor, convert, decode_column, encode_column
from hostler.core.trace.events import (
    COLUMNS,
    FILE,
    PROCESS,
    PROCESS_TEXTS,
    TEXT_COLUMNS,
    Column,
    Events,
    table_type,
)
from hostler.core.trace.schema import SCHEMA, CaptureInvalid, Schema

MAX_EVENTS = 64 * 1024
"""Events of one block; `split` cuts a batch that has more."""
MAX_TEXT_BYTES = 16 * 1024 * 1024
"""Bytes of the texts of one block; `split` cuts a batch that has more."""
MAX_BLOCK_BYTES = 64 * 1024 * 1024
MAX_DECODED_BYTES = 128 * 1024 * 1024
# Once compact, what MAX_EVENTS events use is always within these.
_MAX_TABLE_ROWS = 128 * 1024
_MAX_TEXTS = 1024 * 1024

_HEAD = struct.Struct("<IIIIIQQQQ")
_LENGTH = np.dtype("<u4")
# Their values mostly grow from event to event.
_GROWING = frozenset(("number", "time_ns"))


@dataclass(frozen=True, slots=True)
class BlockHead:
    """What a block says of itself before it is decompressed.

    `first_ns` is the earliest entry, `last_ns` the latest exit; both are 0 without events.
    """

    raw_bytes: int
    events: int
    processes: int
    files: int
    texts: int
    lost: int
    first_ns: int
    last_ns: int
    start_ns: int


BLOCK_HEAD_BYTES = _HEAD.size


def exit_ns(events: Events) -> Column:
    """When each call ended, or when it began if it did not end."""
    ended: Column = events["time_ns"] + events["latency_ns"]
    return ended


def encode(events: Events) -> bytes:
    """A batch as a block. Raises ValueError if `split` should have cut it."""
    if not _fits(events, MAX_EVENTS):
        raise ValueError(f"{len(events)} events with their tables are too many for a block")
    parts = [encode_column(events[name], name in _GROWING) for name in COLUMNS]
    for table in (events.processes, events.files):
        parts += [
            encode_column(np.ascontiguousarray(table[name])) for name in table.dtype.names or ()
        ]
    lengths = np.fromiter(map(len, events.texts), "<u4", len(events.texts))
    raw = b"".join([*parts, encode_column(lengths), *events.texts])
    head = _HEAD.pack(
        len(raw),
        len(events),
        len(events.processes),
        len(events.files),
        len(events.texts),
        events.lost,
        int(events["time_ns"].min()) if len(events) else 0,
        int(exit_ns(events).max()) if len(events) else 0,
        events.start_ns,
    )
    return head + zstandard.ZstdCompressor(level=1).compress(raw)


def split(events: Events, max_events: int = MAX_EVENTS) -> Iterator[Events]:
    """The batch, or parts of it that can be encoded. The first part has all that was lost.

    Raises ValueError if one event alone is too large.
    """
    if _fits(events, max_events):
        yield events
        return
    small = events.compact()
    if len(small) <= 1 or _fits(small, max_events):
        if not _fits(small, max_events):
            raise ValueError("the texts of one event are too long for a block")
        yield small
        return
    step = max_events if len(small) > max_events else len(small) // 2
    for start in range(0, len(small), step):
        part = small.select(slice(start, start + step)).compact()
        part.lost = 0 if start else small.lost
        yield from split(part, max_events)


def _fits(events: Events, max_events: int) -> bool:
    return (
        len(events) <= max_events
        and max(len(events.processes), len(events.files)) <= _MAX_TABLE_ROWS
        and len(events.texts) <= _MAX_TEXTS
        and sum(map(len, events.texts)) <= MAX_TEXT_BYTES
    )


def read_head(block: bytes) -> BlockHead:
    """The head of a block. Raises CaptureInvalid, also if the block would become too large."""
    head = BlockHead(*Cursor(block, "block").unpack(_HEAD))
    rows = (head.processes, head.files, head.texts)
    limits = (_MAX_TABLE_ROWS, _MAX_TABLE_ROWS, _MAX_TEXTS)
    if head.events > MAX_EVENTS or any(
        not 0 < count <= limit for count, limit in zip(rows, limits, strict=True)
    ):
        raise CaptureInvalid(f"{head.events} events, tables of {rows} rows", "block head")
    if head.raw_bytes > MAX_DECODED_BYTES:
        raise CaptureInvalid(f"{head.raw_bytes} bytes are too many", "block head")
    return head


def decode(block: bytes, schema: Schema = SCHEMA) -> Events:
    """The batch of a block. Raises CaptureInvalid, and nothing else whatever the bytes are."""
    head = read_head(block)
    _check_size(head, schema)
    cursor = Cursor(_decompressed(block, head), "decompressed block")
    columns = _table(cursor, head.events, schema.events)
    processes = _rows(_table(cursor, head.processes, schema.processes), head.processes, PROCESS)
    files = _rows(_table(cursor, head.files, schema.files), head.files, FILE)
    texts = _texts(cursor, head.texts)
    cursor.finish()
    ours = {
        name: _as_wanted(columns, name, head.events, np.dtype(kind))
        for name, kind in COLUMNS.items()
    }
    events = Events(ours, processes, files, texts, head.lost, head.start_ns)
    _check_indices(events)
    _check_times(events, head)
    return events


def _check_size(head: BlockHead, schema: Schema) -> None:
    # A column of one value is short however long it becomes, so what was compressed is no bound.
    decoded = (
        head.raw_bytes
        + head.events * table_type(dict(schema.events)).itemsize
        + head.processes * table_type(dict(schema.processes)).itemsize
        + head.files * table_type(dict(schema.files)).itemsize
    )
    if decoded > MAX_DECODED_BYTES:
        raise CaptureInvalid(f"would become {decoded} bytes", "block head")


def _decompressed(block: bytes, head: BlockHead) -> bytes:
    frame = block[_HEAD.size :]
    try:
        # The frame's own size is what gets allocated, whatever limit is given.
        if zstandard.get_frame_parameters(frame).content_size != head.raw_bytes:
            raise CaptureInvalid("zstd frame of another size than the head says", "block")
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CaptureInvalid(f"zstd frame cannot be decompressed: {error}", "block") from error


def _table(cursor: Cursor, length: int, columns: Mapping[str, str]) -> dict[str, Column]:
    return {name: decode_column(cursor, length, np.dtype(kind)) for name, kind in columns.items()}


def _rows(read: dict[str, Column], length: int, kind: np.dtype[np.void]) -> Column:
    rows = np.zeros(length, kind)
    for name in kind.names or ():
        rows[name] = _as_wanted(read, name, length, kind[name])
    return rows


def _as_wanted(
    read: dict[str, Column], name: str, length: int, kind: np.dtype[np.generic]
) -> Column:
    if name not in read:
        return np.zeros(length, kind)
    return convert(read[name], kind, f"column {name}")


def _texts(cursor: Cursor, count: int) -> list[bytes]:
    place = cursor.place
    lengths = decode_column(cursor, count, _LENGTH)
    ends = np.cumsum(lengths, dtype="<u8")
    if lengths[0]:
        raise CaptureInvalid("the first text is not empty", place)
    joined = bytes(cursor.take(int(ends[-1])))
    starts = (ends - lengths).tolist()
    return [joined[start:end] for start, end in zip(starts, ends.tolist(), strict=True)]


def _check_indices(events: Events) -> None:
    indices = [(name, events[name], len(events.texts)) for name in TEXT_COLUMNS]
    indices += [(name, events.processes[name], len(events.texts)) for name in PROCESS_TEXTS]
    indices += [
        ("file name", events.files["name"], len(events.texts)),
        ("parent", events.processes["parent"], len(events.processes)),
        ("process", events["process"], len(events.processes)),
        ("file", events["file"], len(events.files)),
    ]
    for name, column, length in indices:
        if len(column) and int(column.max()) >= length:
            raise CaptureInvalid(f"{name} points outside its table of {length} rows", "block")


def _check_times(events: Events, head: BlockHead) -> None:
    # Readers skip blocks by these, so a wrong one would hide events.
    if len(events) and (
        int(events["time_ns"].min()) != head.first_ns or int(exit_ns(events).max()) != head.last_ns
    ):
        raise CaptureInvalid("its events are of other times than its head says", "block")

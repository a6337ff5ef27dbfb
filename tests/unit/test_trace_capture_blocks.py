"""Blocks: every batch comes back as it was, and no bytes whatever do harm."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from trace_batches import any_column, any_events, same, simple

from hostler.core.trace.blocks import (
    BLOCK_HEAD_BYTES,
    MAX_EVENTS,
    MAX_TEXT_BYTES,
    decode,
    encode,
    read_head,
    split,
)
from hostler.core.trace.columns import Cursor, decode_column, encode_column
from hostler.core.trace.events import (
    COLUMNS,
    PROCESS_TEXTS,
    TEXT_COLUMNS,
    Events,
    concatenate,
)
from hostler.core.trace.schema import SCHEMA, CaptureInvalid, Schema

KINDS = st.sampled_from(["<u1", "<u2", "<u4", "<u8", "<i1", "<i2", "<i4", "<i8", "S16"])


@given(st.data(), KINDS, st.integers(0, 20), st.booleans())
def test_every_column_comes_back(data: st.DataObject, kind: str, length: int, grows: bool) -> None:
    column = data.draw(any_column(kind, length))
    cursor = Cursor(encode_column(column, grows and kind != "S16"), "column")
    if grows and kind != "S16" and not length:
        cursor = Cursor(encode_column(column), "column")
    read = decode_column(cursor, length, np.dtype(kind))
    cursor.finish()
    assert read.dtype == column.dtype
    assert np.array_equal(read, column)


@given(any_events())
def test_every_batch_comes_back(events: Events) -> None:
    block = encode(events)
    head = read_head(block)
    assert (head.events, head.lost) == (len(events), events.lost)
    assert same(decode(block), events)


@given(any_events(), st.data())
def test_a_changed_block_is_refused_or_is_a_sound_batch(
    events: Events, data: st.DataObject
) -> None:
    block = bytearray(encode(events))
    raw = bytearray(zstandard.ZstdDecompressor().decompress(bytes(block[BLOCK_HEAD_BYTES:])))
    # Behind the compressor, where a checksum would not reach: the columns themselves.
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.sampled_from([0, 1, 255, raw[at] ^ 1, raw[at] ^ 128]))
    changed = bytes(block[:BLOCK_HEAD_BYTES]) + zstandard.ZstdCompressor(level=1).compress(raw)
    answer_is_sound(changed)


@given(any_events(), st.data())
def test_every_cut_and_every_flip_of_a_block_is_safe(events: Events, data: st.DataObject) -> None:
    block = encode(events)
    cut = data.draw(st.integers(0, len(block) - 1))
    with pytest.raises(CaptureInvalid):
        decode(block[:cut])
    with pytest.raises(CaptureInvalid):
        decode(block + b"\0")
    flipped = bytearray(block)
    flipped[cut] ^= 1 << data.draw(st.integers(0, 7))
    answer_is_sound(bytes(flipped))


@given(st.binary(max_size=300))
def test_any_bytes_are_safe(data: bytes) -> None:
    answer_is_sound(data)


def answer_is_sound(block: bytes) -> None:
    try:
        events = decode(block)
    except CaptureInvalid as error:
        assert error.place
        assert error.what
        return
    assert {len(events[name]) for name in COLUMNS} == {len(events)}
    # Compacting goes through every index of every table.
    same(events.compact(), events)


def test_a_bomb_is_refused_before_it_is_made() -> None:
    zeros = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 30))
    head = struct.pack("<IIIIIQQQQ", 1 << 30, 1, 1, 1, 1, 0, 0, 0, 0)
    lying = struct.pack("<IIIIIQQQQ", 100, 1, 1, 1, 1, 0, 0, 0, 0)
    streamed = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(1 << 24))
    many = struct.pack("<IIIIIQQQQ", 100, 65536, 131072, 131072, 1 << 20, 0, 0, 0, 0)
    wide = Schema({f"c{i}": "S64" for i in range(256)}, {}, {})
    tracemalloc.start()
    try:
        for block in (head + zeros, lying + zeros, lying + streamed):
            with pytest.raises(CaptureInvalid):
                decode(block)
        with pytest.raises(CaptureInvalid, match="would become"):
            decode(many + zeros, wide)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_large_batch_is_cut_and_nothing_is_lost() -> None:
    events = simple(1, 2 * MAX_EVENTS + 5)
    events.lost = 7
    with pytest.raises(ValueError, match="too many"):
        encode(events)
    parts = list(split(events))
    assert [len(part) for part in parts] == [MAX_EVENTS, MAX_EVENTS, 5]
    assert [part.lost for part in parts] == [7, 0, 0]
    whole = concatenate([decode(encode(part)) for part in parts])
    assert all(np.array_equal(whole[name], events[name]) for name in ("number", "time_ns", "tid"))
    assert [len(part) for part in split(simple(1, 10), 4)] == [4, 4, 2]


def test_a_batch_of_long_texts_is_cut() -> None:
    events = simple(1, 8)
    third = MAX_TEXT_BYTES // 3
    events.texts += [bytes([i]) * third for i in range(8)]
    events.columns["data"] = np.arange(4, 12, dtype="<u4")
    parts = [decode(encode(part)) for part in split(events)]
    assert [int(n) for part in parts for n in part["number"]] == list(range(1, 9))
    assert [p.texts[i][:1] for p in parts for i in p["data"]] == [bytes([i]) for i in range(8)]
    events.texts[4] = bytes(MAX_TEXT_BYTES + 1)
    with pytest.raises(ValueError, match="one event"):
        list(split(events))


@given(any_events())
def test_a_reader_of_another_release_copes(events: Events) -> None:
    block = encode(events)
    # One that wrote a column that this one does not know, one that lacked two, and narrower ones.
    newer = {name if name != "arg5" else "arg6": kind for name, kind in COLUMNS.items()}
    read = decode(block, replace(SCHEMA, events=newer))
    assert not read["arg5"].any()
    assert all(np.array_equal(read[n], events[n]) for n in COLUMNS if n != "arg5")
    files = {n if n != "inode" else "handle": k for n, k in SCHEMA.files.items()}
    read = decode(block, replace(SCHEMA, files=files))
    assert not read.files["inode"].any()
    assert np.array_equal(read.files["device"], events.files["device"])
    wider = decode(block, replace(SCHEMA, events={**COLUMNS, "cpu": "<u8", "tid": "<u8"}))
    assert same(wider, events)


@pytest.mark.parametrize("table", ["columns", "processes", "files"])
def test_an_index_outside_its_table_is_refused(table: str) -> None:
    indices = {
        "columns": ("process", "file", *TEXT_COLUMNS),
        "processes": ("parent", *PROCESS_TEXTS),
    }
    for name in indices.get(table, ("name",)):
        events = simple(1, 3)
        column = getattr(events, table)[name]
        limit = {"process": 2, "file": 2, "parent": 2}.get(name, 4)
        column[-1] = limit - 1
        decode(encode(events))
        column[-1] = limit
        with pytest.raises(CaptureInvalid, match=f"{name} points outside"):
            decode(encode(events))
    events = simple(1, 3)
    events.texts[0] = b"no"
    with pytest.raises(CaptureInvalid, match="first text"):
        decode(encode(events))


@pytest.mark.parametrize("at", [28, 36])
def test_a_block_that_lies_about_its_times_is_refused(at: int) -> None:
    block = bytearray(encode(simple(1, 3)))
    block[at] ^= 1
    # A reader that looks for a time would go past it.
    with pytest.raises(CaptureInvalid, match="other times"):
        decode(bytes(block))


def test_a_value_that_does_not_fit_is_refused() -> None:
    events = simple(1, 3)
    columns = {**events.columns, "cpu": np.full(3, 70000, "<u4")}
    block = encode(Events(columns, events.processes, events.files, events.texts))
    with pytest.raises(CaptureInvalid, match="does not fit"):
        decode(block, replace(SCHEMA, events={**COLUMNS, "cpu": "<u4"}))


def test_a_schema_comes_back_and_a_bad_one_is_refused() -> None:
    assert Schema.from_json(SCHEMA.to_json()) == SCHEMA
    good = SCHEMA.to_object()
    for table in (
        [["a", "<f8"]],
        [["a", "O"]],
        [["A", "<u8"]],
        [["a"]],
        [["a", 1]],
        {},
        [7],
        [["a", "<u8"], ["a", "<u8"]],
        [["a", "S65"]],
        [["a", "<u8"]] * 300,
    ):
        with pytest.raises(CaptureInvalid):
            Schema.from_object({**good, "events": table})
    for text in ("", "[]", "{}", "[" * 100_000, "9" * 5000, '{"events":1}'):
        with pytest.raises(CaptureInvalid):
            Schema.from_json(text)

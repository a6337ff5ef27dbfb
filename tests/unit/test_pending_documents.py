"""The files of a pending group: written and read back, and whatever else refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.pending import place as files
from hostlerd.pending.documents import (
    MAX_BYTES,
    MAX_ENTRIES,
    Answer,
    Armed,
    Ended,
    Entry,
    Failed,
    Group,
    History,
    Malformed,
    Marks,
    Part,
    Turn,
    decode,
    encode,
    printable,
)

GROUP = "5f0c1d2e-0000-4000-8000-000000000001"
BOOT = "5f0c1d2e-0000-4000-8000-0000000000b0"
TOKEN = "ab" * 16
ENTRY = Entry("0018a5c4", 12, "/hostler.api.netns.v1.X/Y", "0" * 64, ("add 10.0.0.1/30",), 3)
PART = Part(GROUP, "spiffe://t/user/a", BOOT, 1, 2, 3, TOKEN, (ENTRY,))
DOCUMENTS = (
    PART,
    Group(GROUP, "spiffe://t/user/a", BOOT, 1, 2, 3, ("netns", "firewall")),
    Group("", "", BOOT, 0, 0, 0),
    Armed(GROUP, {"netns": TOKEN}, ("netns",), "deadline", Turn("netns", 7, True)),
    Armed(GROUP),
    Marks(GROUP, {"0018a5c4": 9}),
    Answer(GROUP, "keep", 1, 2),
    History((Ended(GROUP, "spiffe://t/user/a", 1, "kept", "confirmed"),)),
    Failed(GROUP, "netns: busy"),
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: type(d).__name__)
def test_what_is_written_is_read_back(document: Any) -> None:
    assert decode(type(document), encode(document)) == document


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: type(d).__name__)
def test_each_field_is_needed_and_no_other(document: Any) -> None:
    plain = json.loads(encode(document))
    for name in plain:
        less = {k: v for k, v in plain.items() if k != name}
        with pytest.raises(Malformed):
            decode(type(document), json.dumps(less).encode())
    with pytest.raises(Malformed):
        decode(type(document), json.dumps({**plain, "more": 1}).encode())
    with pytest.raises(Malformed):
        decode(type(document), json.dumps({**plain, "format": 2}).encode())


HOSTILE: tuple[dict[str, Any], ...] = (
    {"group": "../../etc"},
    {"group": ""},
    {"group": GROUP.upper()},
    {"group": None},
    {"identity": "x" * 257},
    {"identity": "line\nbreak"},
    {"identity": "\x1b[2J"},
    {"identity": 1},
    {"boot_id": BOOT + "\n"},
    {"opened_s": True},
    {"opened_s": 1.5},
    {"deadline_ns": -1},
    {"deadline_ns": 1 << 63},
    {"deadline_s": "3"},
    {"token": TOKEN[:-1]},
    {"entries": {}},
    {"entries": [[]]},
    {"entries": [json.loads(encode(PART))["entries"][0]] * (MAX_ENTRIES + 1)},
)


@pytest.mark.parametrize("change", HOSTILE, ids=str)
def test_a_part_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        decode(Part, json.dumps({**json.loads(encode(PART)), **change}).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"change": "../x"},
        {"change": "x/y"},
        {"change": ""},
        {"order_ns": -5},
        {"order_ns": 10**30},
        {"plan_hash": "0" * 63},
        {"steps": ["\n"]},
        {"steps": ["x"] * 51},
        {"steps": ["x" * 301]},
        {"more": None},
    ],
    ids=str,
)
def test_an_entry_that_is_none_is_refused(change: dict[str, Any]) -> None:
    plain = json.loads(encode(PART))
    plain["entries"][0] |= change
    with pytest.raises(Malformed):
        decode(Part, json.dumps(plain).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format":1,"opened_s":' + b"9" * 5000 + b"}",
        b" " * (MAX_BYTES + 1),
    ],
    ids=lambda d: repr(d[:12]),
)
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode(Part, data)


def test_a_turn_names_a_domain_that_there_can_be() -> None:
    plain = json.loads(encode(Armed(GROUP, turn=Turn("netns", 1, False))))
    for domain in ("../netns", "netns.service", "", "x", ["netns"]):
        plain["turn"]["domain"] = domain
        with pytest.raises(Malformed):
            decode(Armed, json.dumps(plain).encode())
    plain = json.loads(encode(Armed(GROUP, {"netns": TOKEN})))
    plain["seen"] = {"x": TOKEN}
    with pytest.raises(Malformed):
        decode(Armed, json.dumps(plain).encode())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_refused_in_one_way(value: Any) -> None:
    for kind in (Part, Group, Armed, Marks, Answer, History, Failed):
        with pytest.raises(Malformed):
            decode(kind, json.dumps(value).encode())


@given(st.text(max_size=400))
def test_printable_words_fit_a_document(text: str) -> None:
    words = printable(text, 300)
    assert len(words) <= 300
    entry = Entry("a", 1, "m", "0" * 64, (words,))
    part = Part(GROUP, "", BOOT, 1, 2, 3, TOKEN, (entry,))
    assert decode(Part, encode(part)) == part


def test_reading_never_follows_waits_or_reads_on(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    assert files.read(Part, path) is None
    (tmp_path / "other").write_bytes(encode(PART))
    path.symlink_to(tmp_path / "other")
    with pytest.raises(Malformed):
        files.read(Part, path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Malformed):
        files.read(Part, path)
    path.unlink()
    path.mkdir()
    with pytest.raises(Malformed):
        files.read(Part, path)
    path.rmdir()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Malformed):
        files.read(Part, path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(Malformed):
        files.read(Part, path)


def test_what_is_written_is_the_groups_to_read(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    before = os.umask(0o077)
    try:
        files.write(path, PART, durable=True)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["part.json"]
    assert files.read(Part, path) == PART

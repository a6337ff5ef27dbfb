"""The journal's file: what is written when, what counts of it, and who may touch it."""

import errno
import json
import os
from dataclasses import asdict

import pytest

from hostlerd.runtime.journal import (
    APPLIED,
    UNDONE,
    WAITING,
    Header,
    Journal,
    JournalInvalid,
    Journals,
    JournalUnavailable,
    NothingBegun,
)

STEPS = [{"step": "A", "name": f"n{i}"} for i in range(3)]


@pytest.fixture
def journals(tmp_path):
    return Journals(tmp_path / "state", tmp_path / "run")


def header(change_id="c1", **more):
    return Header(change_id, "domain", "hash", STEPS, identity="i", method="/m", **more)


def lines(path):
    return path.read_bytes().split(b"\0", 1)[0].decode().splitlines()


def reopened(journals):
    (path,) = journals.cut_off()
    journal, found = Journal.reopen(path)
    journal.abandon()
    return found


def test_header_and_marks_are_lines_and_each_is_on_disk_before_it_counts(journals, monkeypatch):
    synced = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda fd, real=real: (synced.append(fd), real(fd)))
    journal = journals.create(header(request_id="r"), lasts=True)
    # The file and its folder.
    assert len(synced) == 2
    for at in range(3):
        journal.begun(at)
    journal.end(APPLIED)
    assert len(synced) == 2 + 4
    first, *marks = lines(journal.path)
    assert json.loads(first)["steps"] == STEPS and json.loads(first)["request_id"] == "r"
    assert [json.loads(m) for m in marks] == [
        {"begun": 0},
        {"done": 0, "begun": 1},
        {"done": 1, "begun": 2},
        {"end": APPLIED},
    ]
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700


def test_it_says_how_far_the_change_was(journals):
    journal = journals.create(header(), lasts=False)
    journal.begun(0)
    journal.begun(1)
    journal.abandon()
    found = reopened(journals)
    assert (found.begun, found.undo, found.ended) == (2, None, "")
    assert asdict(found.header) == {**asdict(header()), "resources": []}


def test_it_says_how_far_the_way_back_was(journals):
    journal = journals.create(header(), lasts=False)
    for at in range(2):
        journal.begun(at)
    journal.undoing(1)
    journal.undoing(0)
    journal.abandon()
    assert reopened(journals).undo == 0


@pytest.mark.parametrize("torn", [b'{"do', b'{"done":0,"begun":1}', b'{"done":0,"begun":1}\0'])
def test_a_torn_mark_does_not_count(journals, torn):
    journal = journals.create(header(), lasts=False)
    journal.begun(0)
    journal.abandon()
    with journal.path.open("r+b") as file:
        file.seek(journal._at)
        file.write(torn)
    assert reopened(journals).begun == 1


def test_a_torn_header_means_that_nothing_had_begun(journals):
    journal = journals.create(header(), lasts=False)
    journal.abandon()
    journal.path.write_bytes(journal.path.read_bytes()[:20])
    with pytest.raises(NothingBegun):
        Journal.reopen(journal.path)


@pytest.mark.parametrize(
    "bad",
    [b"[]\n", b"{}\n", b"\xff\n", b'{"change_id":"x"}\n', b"not json\n"],
)
def test_what_is_no_journal_is_told(journals, bad):
    journal = journals.create(header(), lasts=False)
    journal.abandon()
    journal.path.write_bytes(bad)
    with pytest.raises(JournalInvalid):
        Journal.reopen(journal.path)


def test_a_journal_of_another_version_or_of_too_many_steps_is_not_followed(journals):
    for change in ({"version": 99}, {"steps": []}):
        journal = journals.create(
            header(change_id=f"c{len(change)}{next(iter(change))}"), lasts=False
        )
        journal.begun(0)
        journal.abandon()
        first, rest = journal.path.read_bytes().split(b"\n", 1)
        altered = json.dumps({**json.loads(first), **change}).encode()
        journal.path.write_bytes(altered + b"\n" + rest)
        with pytest.raises(JournalInvalid):
            Journal.reopen(journal.path)


def test_who_writes_it_keeps_others_off(journals):
    journal = journals.create(header(), lasts=False)
    journal.begun(0)
    assert Journal.reopen(journal.path) is None
    journal.abandon()
    assert Journal.reopen(journal.path) is not None


def test_answered_it_goes_unless_it_waits(journals):
    for change_id, word, left in (("c1", APPLIED, []), ("c2", UNDONE, []), ("c3", WAITING, ["c3"])):
        journals.create(header(change_id=change_id), lasts=True).end(word)
        assert [p.stem for p in journals.cut_off()] == [change_id]
        journals.answered(change_id)
        assert journals.cut_off() == []
        assert [p.stem for p in journals.lasting.iterdir()] == left
    assert journals.fate("c3") == "finished"
    journals.release("c3")
    journals.release("c3")
    assert journals.fate("c3") == "unknown"


def test_its_fate_is_told(journals):
    journal = journals.create(header(), lasts=True)
    assert journals.fate("c1") == "unfinished"
    journal.fail()
    assert journals.fate("c1") == "failed"
    assert journals.fate("../../etc/passwd") == "unknown"


def test_a_full_disk_is_noticed_before_anything_is_begun(journals, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(JournalUnavailable, match="No space"):
        journals.create(header(), lasts=True)
    assert list(journals.lasting.iterdir()) == []


def test_marks_take_no_more_room_than_was_laid_aside(journals):
    journal = journals.create(header(), lasts=True)
    size = journal.path.stat().st_size
    for at in range(3):
        journal.begun(at)
    for at in (2, 1, 0):
        journal.undoing(at)
    journal.end(UNDONE)
    assert journal.path.stat().st_size == size

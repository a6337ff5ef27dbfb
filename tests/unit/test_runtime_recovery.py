"""Recovery: a process is killed at any point of a change, and what is there is old or new."""

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_backing import backed, backing_of
from journal_files import (
    BODY,
    IDENTITY,
    METHOD,
    Burn,
    Drop,
    Files,
    Put,
    Ring,
    carry_out,
    killed_at,
    outcome_of,
)

from hostler.api.common.v1 import change_pb2
from hostler.api.netns.v1 import namespace_pb2
from hostler.core.audit import Anchor
from hostlerd.runtime.answers import Key, answer_of
from hostlerd.runtime.errors import RollbackFailed
from hostlerd.runtime.journal import WAITING

NAMES = "abcd"
FAILS = Put("no/folder", "x")
assert METHOD.split("/")[1] in [
    s.full_name for s in namespace_pb2.DESCRIPTOR.services_by_name.values()
]


class Log:
    """An audit log that is a list."""

    def __init__(self):
        self.records = []

    def write(self, **fields):
        self.records.append(fields)
        return Anchor(len(self.records), "head")


class Next:
    """The process after the kill: it recovers before it does anything else."""

    def __init__(self, folder):
        self.backing, self.log = backing_of(folder), Log()
        self.kernel = Files(folder / "system")
        backed(self.kernel, folder, backing=self.backing)
        self.backing.recovery.record_in(self.log)

    def recover(self):
        return self.backing.recovery.at_start()

    def answer(self):
        """What a retry of the request is told; None if it would be carried out."""
        told = answer_of(METHOD)
        found = self.backing.recovery._answers.find(Key(IDENTITY, METHOD, "r1", BODY), told)
        return told.change if found else None

    def journals(self):
        folders = (self.backing.journals.lasting, self.backing.journals.passing)
        return sorted(p.suffix for f in folders if f.exists() for p in f.iterdir())


@pytest.fixture
def folder():
    made = Path(tempfile.mkdtemp())
    yield made
    shutil.rmtree(made)


def begin(folder, state):
    """A folder with a system of that state, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    system = Files(folder / "system")
    for name, text in state.items():
        (system.folder / name).write_text(text)
    return system


@st.composite
def plans(draw):
    """A state, and steps that fit it; perhaps a last one that fails."""
    state = draw(st.dictionaries(st.sampled_from(NAMES), st.text("xyz", max_size=3), max_size=4))
    there, steps = dict(state), []
    for _ in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(NAMES))
        kind = draw(st.sampled_from(["put", "put", "drop", "burn"]))
        if kind == "put":
            text, lasting = draw(st.text("xyz", max_size=3)), draw(st.booleans())
            steps.append(Put(name, text, there.get(name), lasting))
            there[name] = text
        elif name in there:
            before = there.pop(name)
            steps.append(Drop(name, before) if kind == "drop" else Burn(name))
    if draw(st.booleans()):
        steps.append(FAILS)
    return state, steps


@settings(max_examples=60, deadline=None)
@given(plan=plans(), share=st.floats(0, 1))
def test_killed_anywhere_it_is_old_or_new(plan, share):
    state, steps = plan
    fails = any(step == FAILS for step in steps)
    if not steps or (fails and any(isinstance(s, Burn) for s in steps)):
        # What cannot be undone stays undone-half when a later step fails: as without a kill.
        return
    folder = Path(tempfile.mkdtemp())
    try:
        point = 1 + int(share * (12 * len(steps) + 14))
        old = begin(folder, state).state()
        new = old if fails else outcome_of(old, steps)
        cut = killed_at(point, folder, lambda at: carry_out(folder, steps, at))
        after = Next(folder)
        after.recover()
        assert after.kernel.state() in (old, new)
        assert after.journals() == []
        answer = after.answer()
        if not cut or answer is None:
            return
        applied = answer.outcome == change_pb2.OUTCOME_APPLIED
        assert after.kernel.state() == (new if applied else old)
        assert applied or answer.outcome == change_pb2.OUTCOME_INTERRUPTED
    finally:
        shutil.rmtree(folder)


STATE = {"a": "1", "b": "2"}
BACK = (Put("a", "9", "1"), Drop("b", "2"), Put("c", "3", None, True))
FORTH = (Put("a", "9", "1"), Burn("b"), Put("c", "3"))


def every_point(folder, state, steps):
    """Kill at each point in turn; yields the number and the process that comes after."""
    for point in itertools.count(1):
        old = begin(folder, state).state()
        if not killed_at(point, folder, lambda at: carry_out(folder, steps, at)):
            return
        yield point, old, Next(folder)


@pytest.mark.parametrize(("steps", "points"), [(BACK, 28), (FORTH, 28)])
def test_at_every_point_it_is_undone_or_finished_and_told_once(folder, steps, points):
    seen = set()
    for point, old, after in every_point(folder, STATE, steps):
        recovered = after.recover()
        state, new = after.kernel.state(), outcome_of(STATE, steps)
        assert state in (old, new), point
        assert after.recover() == () and after.journals() == []
        assert [r["kind"] for r in after.log.records] == ["recovery"] * len(recovered)
        for record in after.log.records:
            assert (record["method"], record["identity"]) == (METHOD, IDENTITY)
            assert record["intent_seq"] == 7 and record["request_id"] == "r1"
            seen.add(record["outcome"])
            stands = record["outcome"] == "OUTCOME_APPLIED"
            assert state == (new if stands else old), (point, record)
            answer = after.answer()
            if answer is not None:
                assert change_pb2.Outcome.Name(answer.outcome) == record["outcome"]
                assert (answer.audit.seq, answer.changed) == (1, stands)
                assert answer.warnings[0].code == "CHANGE_INTERRUPTED"
        points -= 1
    assert points <= 0, "fewer points than there are writes, syncs and steps"
    assert seen == {"OUTCOME_INTERRUPTED", "OUTCOME_APPLIED"}


def test_recovery_that_is_killed_is_gone_on_with(folder):
    """Cut off after the second step, and then at every point of undoing that."""
    for second in itertools.count(1):
        old = begin(folder, STATE).state()
        cut = killed_at(22, folder, lambda at: carry_out(folder, BACK, at))
        assert cut

        def undo(at):
            after = Next(folder)
            after.kernel.at = at
            after.recover()

        again = killed_at(second, folder, undo)
        after = Next(folder)
        after.recover()
        assert after.kernel.state() == old and after.journals() == []
        if not again:
            break
    assert second > 10


def test_what_must_not_be_done_twice_is_left_and_told(folder):
    unknown = 0
    for _, old, after in every_point(folder, {}, (Ring("bell"),)):
        after.recover()
        state = after.kernel.state()
        assert state in (old, {"bell": "ring\n"})
        for record in after.log.records:
            if record["outcome"] == "OUTCOME_UNKNOWN":
                unknown += 1
                assert after.answer().outcome == change_pb2.OUTCOME_UNKNOWN
        assert after.journals() == []
    assert unknown >= 3


def cut_off(folder, steps=BACK, point=22):
    begin(folder, STATE)
    assert killed_at(point, folder, lambda at: carry_out(folder, steps, at))
    return Next(folder)


def test_after_a_boot_only_what_survives_it_is_taken_back(folder):
    after = cut_off(folder, (Put("d", "4", None, True), Put("e", "5"), Put("f", "6")), 22)
    after.backing.journals.boot_id = "another boot"
    (recovered,) = after.recover()
    assert recovered.steps == ("drop d",)
    assert after.kernel.state() == {**STATE, "e": "5"}


def test_what_can_be_neither_is_kept_for_people_and_stops_nobody(folder):
    after = cut_off(folder)
    (path,) = after.backing.journals.cut_off()
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"step":"Put"', b'"step":"Pat"'))
    after.recover()
    assert after.log.records[0]["outcome"] == "OUTCOME_UNKNOWN"
    assert after.answer().outcome == change_pb2.OUTCOME_UNKNOWN
    assert after.journals() == [".failed"]
    assert after.recover() == ()
    assert after.backing.recovery.failed == (path.stem,)
    with pytest.raises(RollbackFailed):
        after.backing.recovery.undo(path.stem)


def test_a_journal_nobody_can_read_is_put_aside(folder):
    after = cut_off(folder)
    (path,) = after.backing.journals.cut_off()
    path.write_bytes(b"nonsense\n")
    assert after.recover() == () and after.journals() == [".failed"]


def test_a_journal_of_an_edge_that_is_elsewhere_is_left(folder):
    after = cut_off(folder)
    (path,) = after.backing.journals.cut_off()
    path.write_bytes(path.read_bytes().replace(b'"edge":"domain"', b'"edge":"bundle"'))
    assert after.recover() == () and after.journals() == [".journal"]


def test_what_failed_because_of_somebody_else_leaves_that_alone(folder):
    """A step that failed has left nothing: what is in its way is somebody else's."""
    kept = 0
    steps = (Put("a", "9", "1"), Put("c", "ours"))
    for point, _, after in every_point(folder, {**STATE, "c": "theirs"}, steps):
        cut = after.backing.journals.cut_off()
        marked = any(b'"undo"' in path.read_bytes() for path in cut)
        after.recover()
        if marked or not cut:
            kept += 1
            assert after.kernel.state() == {**STATE, "c": "theirs"}, point
        assert after.kernel.state()["a"] == "1"
    assert kept > 10


def test_a_disk_that_fails_keeps_no_daemon_from_starting(folder, monkeypatch):
    after = cut_off(folder)

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    monkeypatch.setattr(Path, "rename", fail)
    assert after.recover() == () and after.journals() == [".journal"]
    monkeypatch.undo()
    assert len(after.recover()) == 1 and after.kernel.state() == STATE


def test_who_listens_is_told_before_the_journal_goes(folder):
    after, told = cut_off(folder), []
    after.backing.recovery.tell(lambda r: told.append((r.header.method, after.journals())))
    after.recover()
    assert told == [(METHOD, [".journal"])]


def test_while_another_process_changes_something_a_start_leaves_it_alone(folder):
    after = cut_off(folder)
    ran = []
    with backing_of(folder).lock.held_here():
        assert after.backing.recovery.at_start(lambda: ran.append(1)) == ()
    assert after.journals() == [".journal"] and not ran
    after.backing.recovery.at_start(lambda: ran.append(1))
    assert after.journals() == [] and ran


def waiting(folder, steps=BACK):
    """A change that waits to be confirmed, as it lies on disk; answers its id."""
    begin(folder, STATE)
    carry_out(folder, steps)
    backing = backing_of(folder)
    from hostlerd.runtime.codec import Registry
    from hostlerd.runtime.journal import Header

    registry = Registry(Files.kinds)
    journal = backing.journals.create(
        Header(
            change_id="c1",
            edge="domain",
            plan_hash="h",
            steps=[registry.encode(s) for s in steps],
            group="g",
            method=METHOD,
            boot_id=backing.journals.boot_id,
        ),
        lasts=True,
    )
    for at in range(len(steps)):
        journal.begun(at)
    journal.end(WAITING)
    return backing, journal


def test_what_waits_is_taken_back_even_if_that_is_killed_anywhere(folder):
    for point in itertools.count(1):
        backing, _ = waiting(folder)
        backing.journals.answered("c1")

        def undo(at):
            after = Next(folder)
            after.kernel.at = at
            after.backing.recovery.undo("c1")

        cut = killed_at(point, folder, undo)
        after = Next(folder)
        after.recover()
        after.backing.recovery.undo("c1")
        assert after.kernel.state() == STATE
        assert after.backing.journals.fate("c1") == "unknown"
        if not cut:
            break
    assert point > 10


def test_what_waits_and_was_not_answered_is_told_and_goes_on_waiting(folder):
    _, journal = waiting(folder)
    journal.abandon()
    after = Next(folder)
    (recovered,) = after.recover()
    assert recovered.outcome == change_pb2.OUTCOME_PENDING_CONFIRM and recovered.finished
    assert after.journals() == [".kept"] and after.recover() == ()


def test_what_cannot_be_taken_back_is_told_and_stays_told(folder):
    backing, _ = waiting(folder)
    backing.journals.answered("c1")
    after = Next(folder)

    def refuse():
        raise OSError(5, "Input/output error")

    after.kernel.at = refuse
    for _ in range(2):
        with pytest.raises(RollbackFailed):
            after.backing.recovery.undo("c1")
    assert after.backing.journals.fate("c1") == "failed"

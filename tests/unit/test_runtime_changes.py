"""Changes: plan by hash, etag, rollback, one at a time, with guard, group, progress and journal."""

import asyncio
import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
from journal_backing import backed, backing_of

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime import call as call_context
from hostlerd.runtime.access import Method
from hostlerd.runtime.call import PROGRESS, Call, Caller
from hostlerd.runtime.changes import NotReversible
from hostlerd.runtime.edge import Recoverable
from hostlerd.runtime.errors import (
    Code,
    DomainError,
    EtagMismatch,
    PlanChanged,
    RollbackFailed,
    StepFailed,
    Unsettled,
)
from hostlerd.runtime.journal import JournalUnavailable
from hostlerd.runtime.locks import ChangeInProgress, ChangeLock
from hostlerd.runtime.steps import Plan, fingerprint


@dataclass(frozen=True, slots=True)
class Add:
    item: str

    def describe(self):
        return f"add {self.item}"

    def inverse(self):
        return Remove(self.item)


@dataclass(frozen=True, slots=True)
class Remove:
    item: str

    def describe(self):
        return f"remove {self.item}"

    def inverse(self):
        return Add(self.item)


@dataclass(frozen=True, slots=True)
class Shred:
    item: str

    def describe(self):
        return f"shred {self.item}"

    def inverse(self):
        return None


@dataclass(frozen=True)
class Forget(Shred):
    """What is gone comes again by itself."""

    needs_no_way_back = True


TOKEN = str(7)


class Refused(DomainError):
    code, reason = Code.FAILED_PRECONDITION, "REFUSED"


class Lost(Unsettled):
    code, reason = Code.ABORTED, "LOST"


class Shelf(Recoverable):
    """A system small enough to hold in the hand: a set of items, some of which do not fit."""

    kinds = (Add, Remove, Shred, Forget)

    def __init__(self, bad=(), stuck=(), error=None, flaky=()):
        self.items, self.bad, self.stuck = [], set(bad), set(stuck)
        self.flaky, self.late = list(flaky), False
        self.error = error or OSError(28, "No space left on device")

    @contextmanager
    def applying(self):
        yield self.apply

    @contextmanager
    def recovering(self):
        yield self.put_right

    def put_right(self, step):
        if isinstance(step, Remove) and step.item not in self.items:
            return
        self.apply(step)

    def apply(self, step):
        if isinstance(step, Add):
            if step.item in self.bad:
                self.items += [step.item] * self.late
                raise self.error
            self.items.append(step.item)
        else:
            if step.item in self.stuck:
                raise OSError(16, "Device or resource busy")
            if step.item in self.flaky:
                self.flaky.remove(step.item)
                raise Lost("no answer")
            self.items.remove(step.item)


@pytest.fixture
def backing(tmp_path):
    return backing_of(tmp_path)


@pytest.fixture
def carry_out(tmp_path, backing):
    async def do(shelf, *items, steps=None, **options):
        changes = backed(shelf, tmp_path, backing=backing)
        make = (lambda: Plan(steps)) if steps else (lambda: plan_for(shelf, *items))
        return await changes.carry_out(change_pb2.ChangeOptions(**options), make)

    return do


def plan_for(shelf, *items):
    missing = tuple(Add(i) for i in items if i not in shelf.items)
    return Plan(missing, fingerprint(shelf.items), fingerprint([*shelf.items, *items]))


def journals(tmp_path):
    return sorted(p.suffix for p in tmp_path.glob("*/journal/*"))


def enter_call():
    made = Call(Method("/x.Y/Z", "CHANGE"), Caller("spiffe://t/user/a", "10.0.0.1:9", False))
    call_context.enter(made)
    return made


async def test_done_once_the_second_time_nothing_changes(carry_out, tmp_path):
    shelf = Shelf()
    first = await carry_out(shelf, "a", "b")
    second = await carry_out(shelf, "a", "b")
    assert shelf.items == ["a", "b"]
    assert first.change.outcome == change_pb2.OUTCOME_APPLIED and first.change.changed
    assert not second.change.changed and not second.change.plan.steps
    assert journals(tmp_path) == []


async def test_validate_only_does_nothing_and_its_hash_is_the_plan_that_is_done(carry_out):
    shelf = Shelf()
    seen = await carry_out(shelf, "a", validate_only=True)
    assert shelf.items == [] and seen.change.outcome == change_pb2.OUTCOME_PLANNED
    done = await carry_out(shelf, "a", plan_hash=seen.change.plan.hash, etag=seen.change.etag)
    assert done.change.plan.hash == seen.change.plan.hash and shelf.items == ["a"]


async def test_another_plan_than_the_one_seen_is_not_done(carry_out):
    shelf = Shelf()
    seen = await carry_out(shelf, "a", "b", validate_only=True)
    shelf.items.append("a")
    with pytest.raises(PlanChanged):
        await carry_out(shelf, "a", "b", plan_hash=seen.change.plan.hash)
    with pytest.raises(EtagMismatch):
        await carry_out(shelf, "a", "b", etag=seen.change.etag)
    assert shelf.items == ["a"]


async def test_a_failed_step_takes_everything_back(carry_out, tmp_path):
    shelf = Shelf(bad={"c"})
    with pytest.raises(StepFailed, match="add c: No space left on device") as caught:
        await carry_out(shelf, "a", "b", "c", "d")
    assert shelf.items == []
    assert caught.value.metadata["step"] == "add c"
    assert journals(tmp_path) == []


async def test_a_domain_error_of_a_step_stays_itself(carry_out):
    shelf = Shelf(bad={"b"}, error=Refused("no"))
    with pytest.raises(Refused) as caught:
        await carry_out(shelf, "a", "b")
    assert shelf.items == [] and caught.value.metadata["step"] == "add b"


async def test_a_failed_rollback_tells_both_and_every_change_after_it(carry_out, tmp_path):
    shelf = Shelf(bad={"c"}, stuck={"a"})
    with pytest.raises(RollbackFailed, match=r"add c: No space.*remove a: Device or resource busy"):
        await carry_out(shelf, "a", "b", "c")
    assert shelf.items == ["a"] and journals(tmp_path) == [".failed"]
    (told,) = (await carry_out(shelf, "d")).change.warnings
    assert told.code == "CHANGE_INTERRUPTED" and shelf.items == ["a", "d"]


async def test_a_step_of_which_nobody_knows_is_recovered_as_a_kill_would_be(carry_out, tmp_path):
    shelf = Shelf(bad={"c"}, error=Lost("no answer"))
    with pytest.raises(Lost) as lost:
        await carry_out(shelf, "a", "b", "c")
    assert lost.value.message == "no answer; it was cut off in step 3 of 3; all of it was undone"
    assert lost.value.metadata["outcome"] == "OUTCOME_INTERRUPTED"
    assert lost.value.metadata["step"] == "add c"
    assert shelf.items == [] and journals(tmp_path) == []
    # What was done without an answer is taken back, too.
    shelf.late = True
    with pytest.raises(Lost):
        await carry_out(shelf, "a", "c")
    assert shelf.items == [] and journals(tmp_path) == []
    # So it is where the way back is cut off.
    shelf = Shelf(bad={"c"}, flaky=["a"])
    with pytest.raises(Lost) as lost:
        await carry_out(shelf, "a", "b", "c")
    assert "it had failed" in lost.value.message
    assert shelf.items == [] and journals(tmp_path) == []


async def test_a_fault_of_ours_in_the_middle_is_recovered_at_once(carry_out, tmp_path):
    shelf = Shelf(bad={"c"}, error=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await carry_out(shelf, "a", "b", "c")
    assert shelf.items == [] and journals(tmp_path) == []


async def test_changes_wait_for_each_other(carry_out):
    shelf = Shelf()
    await asyncio.gather(*(carry_out(shelf, "a") for _ in range(20)))
    assert shelf.items == ["a"]


async def test_a_change_waits_for_another_process_and_a_plan_does_not(tmp_path, backing):
    shelf, backing.lock = Shelf(), ChangeLock(tmp_path / "state/lock", wait_s=0.1)
    changes = backed(shelf, tmp_path, backing=backing)
    fd = os.open(tmp_path / "state/lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    plan = change_pb2.ChangeOptions(validate_only=True)
    assert (await changes.carry_out(plan, lambda: plan_for(shelf, "a"))).change.changed
    with pytest.raises(ChangeInProgress):
        await changes.carry_out(change_pb2.ChangeOptions(), lambda: plan_for(shelf, "a"))
    assert shelf.items == []
    os.close(fd)
    await changes.carry_out(change_pb2.ChangeOptions(), lambda: plan_for(shelf, "a"))
    assert shelf.items == ["a"]


async def test_without_a_journal_nothing_is_begun(carry_out, tmp_path, backing):
    shelf = Shelf()
    backing.journals.passing = tmp_path / "missing" / "journal"
    with pytest.raises(JournalUnavailable):
        await carry_out(shelf, "a")
    assert shelf.items == []


class Counting:
    """Is told of progress, and stops it."""

    def __init__(self, stop_at=None):
        self.told, self.stop_at, self.change = [], stop_at, None

    def step(self, done, total, activity):
        if done == self.stop_at:
            raise Refused("stopped")
        self.told.append((done, total, activity))

    def stays(self, activity):
        self.told.append(activity)

    def applied(self, change):
        self.change = change


async def test_progress_is_told_and_may_stop_the_change(carry_out):
    shelf, progress = Shelf(), Counting()
    PROGRESS.set(progress)
    done = await carry_out(shelf, "a", "b")
    assert progress.told == [(0, 2, "add a"), (1, 2, "add b")]
    assert progress.change == done.change
    PROGRESS.set(Counting(stop_at=1))
    with pytest.raises(Refused):
        await carry_out(shelf, "c", "d")
    assert shelf.items == ["a", "b"]


class Watched:
    """Guard and pending group that note what they are asked, in order."""

    def __init__(self, refuse=""):
        self.asked, self.refuse = [], refuse

    def _ask(self, what, *more):
        self.asked.append((what, *more))
        if what == self.refuse:
            raise Refused(what)

    def offer(self, call, plan, change):
        self._ask("offer")
        change.destroy_token = TOKEN

    def admit(self, call, plan, options):
        self._ask("admit")

    def check(self, confirm):
        self._ask("check")
        return "g" if confirm is not None else ""

    def join(self, call, group, confirm, change_id, plan):
        self._ask("join", group)
        return change_pb2.PendingConfirm(group=group)

    def applied(self, change_id):
        self._ask("applied", change_id)

    def withdraw(self, change_id):
        self._ask("withdraw", change_id)

    @property
    def words(self):
        return [what for what, *_ in self.asked]


@pytest.fixture
def watched(backing):
    backing.guard = backing.pending = Watched()
    return backing.guard


async def test_what_a_plan_needs_is_offered_and_asked_for(carry_out, watched):
    enter_call()
    assert (await carry_out(Shelf(), "a", validate_only=True)).change.destroy_token == TOKEN
    assert watched.words == ["offer"]
    shelf, watched.asked, watched.refuse = Shelf(), [], "admit"
    with pytest.raises(Refused):
        await carry_out(shelf, "a")
    assert shelf.items == [] and watched.words == ["check", "admit"]


async def test_a_change_to_be_confirmed_is_armed_before_it_begins(
    carry_out, watched, backing, tmp_path
):
    call, shelf = enter_call(), Shelf()
    confirm = change_pb2.ConfirmOptions()
    done = await carry_out(shelf, "a", confirm=confirm)
    assert watched.words == ["check", "admit", "join", "applied"]
    assert done.change.outcome == change_pb2.OUTCOME_PENDING_CONFIRM
    assert done.change.pending.group == "g"
    assert backing.journals.fate(call.change_id) == "finished"
    backing.journals.answered(call.change_id)
    assert journals(tmp_path) == [".kept"] and (tmp_path / "state/journal").exists()
    assert backing.recovery.undo(call.change_id) == ("remove a",)
    assert shelf.items == [] and journals(tmp_path) == []
    assert backing.recovery.undo(call.change_id) == ()


async def test_a_change_that_was_confirmed_is_forgotten(carry_out, watched, backing, tmp_path):
    call, shelf = enter_call(), Shelf()
    await carry_out(shelf, "a", confirm=change_pb2.ConfirmOptions())
    backing.journals.release(call.change_id)
    backing.journals.answered(call.change_id)
    assert backing.journals.fate(call.change_id) == "unknown" and journals(tmp_path) == []
    assert shelf.items == ["a"]


@pytest.mark.parametrize("refuse", ["check", "join"])
async def test_what_cannot_be_armed_is_not_begun(carry_out, watched, backing, tmp_path, refuse):
    call, shelf, watched.refuse = enter_call(), Shelf(), refuse
    with pytest.raises(Refused):
        await carry_out(shelf, "a", confirm=change_pb2.ConfirmOptions())
    assert shelf.items == []
    backing.journals.answered(call.change_id)
    assert journals(tmp_path) == []


async def test_a_change_that_failed_leaves_its_group(carry_out, watched):
    enter_call()
    shelf = Shelf(bad={"b"})
    with pytest.raises(StepFailed):
        await carry_out(shelf, "a", "b", confirm=change_pb2.ConfirmOptions())
    assert watched.words[-1] == "withdraw" and shelf.items == []


async def test_what_cannot_be_taken_back_is_not_done_to_be_confirmed(carry_out, watched):
    enter_call()
    shelf = Shelf()
    shelf.items.append("a")
    with pytest.raises(NotReversible):
        await carry_out(shelf, steps=(Shred("a"),), confirm=change_pb2.ConfirmOptions())
    assert shelf.items == ["a"] and "join" not in watched.words


async def test_what_needs_no_way_back_waits_with_the_others_and_is_skipped(
    carry_out, watched, backing
):
    call, shelf = enter_call(), Shelf()
    shelf.items.append("x")
    steps = (Add("a"), Forget("x"), Add("b"))
    done = await carry_out(shelf, steps=steps, confirm=change_pb2.ConfirmOptions())
    assert done.change.outcome == change_pb2.OUTCOME_PENDING_CONFIRM
    assert shelf.items == ["a", "b"]
    backing.journals.answered(call.change_id)
    assert backing.recovery.undo(call.change_id) == ("remove b", "remove a")
    assert shelf.items == []


def test_the_hash_is_of_the_steps_alone_and_follows_them():
    one, same = Plan((Add("a"), Remove("b")), etag="x"), Plan((Add("a"), Remove("b")), etag="x")
    assert one.hash == one.hash == fingerprint([["Add", Add("a")], ["Remove", Remove("b")]])
    # That one of them has been asked for its hash makes no difference.
    assert one == same
    assert repr(one) == repr(same)
    other = replace(one, steps=(Add("a"),))
    assert other.hash == Plan((Add("a"),)).hash != one.hash

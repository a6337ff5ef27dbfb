"""Changes: plan by hash, etag, rollback, one at a time."""

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.errors import (
    Code,
    DomainError,
    EtagMismatch,
    PlanChanged,
    RollbackFailed,
    StepFailed,
)
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


class Refused(DomainError):
    code, reason = Code.FAILED_PRECONDITION, "REFUSED"


class Shelf:
    """A system small enough to hold in the hand: a set of items, some of which do not fit."""

    def __init__(self, bad=(), stuck=(), error=None):
        self.items, self.bad, self.stuck = [], set(bad), set(stuck)
        self.error = error or OSError(28, "No space left on device")

    @contextmanager
    def applying(self):
        yield self.apply

    def apply(self, step):
        if isinstance(step, Add):
            if step.item in self.bad:
                raise self.error
            self.items.append(step.item)
        else:
            if step.item in self.stuck:
                raise OSError(16, "Device or resource busy")
            self.items.remove(step.item)


def changes_of(shelf):
    async def blocking(work, *args):
        return await asyncio.get_running_loop().run_in_executor(None, work, *args)

    return Changes(shelf, blocking)


def plan_for(shelf, *items):
    missing = tuple(Add(i) for i in items if i not in shelf.items)
    return Plan(missing, fingerprint(shelf.items), fingerprint([*shelf.items, *items]))


async def carry_out(shelf, *items, **options):
    return await changes_of(shelf).carry_out(
        change_pb2.ChangeOptions(**options), lambda: plan_for(shelf, *items)
    )


async def test_done_once_the_second_time_nothing_changes():
    shelf = Shelf()
    first = await carry_out(shelf, "a", "b")
    second = await carry_out(shelf, "a", "b")
    assert shelf.items == ["a", "b"]
    assert first.change.outcome == change_pb2.OUTCOME_APPLIED and first.change.changed
    assert not second.change.changed and not second.change.plan.steps


async def test_validate_only_does_nothing_and_its_hash_is_the_plan_that_is_done():
    shelf = Shelf()
    seen = await carry_out(shelf, "a", validate_only=True)
    assert shelf.items == [] and seen.change.outcome == change_pb2.OUTCOME_PLANNED
    done = await carry_out(shelf, "a", plan_hash=seen.change.plan.hash, etag=seen.change.etag)
    assert done.change.plan.hash == seen.change.plan.hash and shelf.items == ["a"]


async def test_another_plan_than_the_one_seen_is_not_done():
    shelf = Shelf()
    seen = await carry_out(shelf, "a", "b", validate_only=True)
    shelf.items.append("a")
    with pytest.raises(PlanChanged):
        await carry_out(shelf, "a", "b", plan_hash=seen.change.plan.hash)
    with pytest.raises(EtagMismatch):
        await carry_out(shelf, "a", "b", etag=seen.change.etag)
    assert shelf.items == ["a"]


async def test_a_failed_step_takes_everything_back():
    shelf = Shelf(bad={"c"})
    with pytest.raises(StepFailed, match="add c: No space left on device") as caught:
        await carry_out(shelf, "a", "b", "c", "d")
    assert shelf.items == []
    assert caught.value.metadata["step"] == "add c"


async def test_a_domain_error_of_a_step_stays_itself():
    shelf = Shelf(bad={"b"}, error=Refused("no"))
    with pytest.raises(Refused) as caught:
        await carry_out(shelf, "a", "b")
    assert shelf.items == [] and caught.value.metadata["step"] == "add b"


async def test_a_failed_rollback_tells_both():
    shelf = Shelf(bad={"c"}, stuck={"a"})
    with pytest.raises(RollbackFailed, match=r"add c: No space.*remove a: Device or resource busy"):
        await carry_out(shelf, "a", "b", "c")
    assert shelf.items == ["a"]


async def test_changes_wait_for_each_other():
    shelf = Shelf()
    changes = changes_of(shelf)
    await asyncio.gather(
        *(
            changes.carry_out(change_pb2.ChangeOptions(), lambda: plan_for(shelf, "a"))
            for _ in range(20)
        )
    )
    assert shelf.items == ["a"]


def test_the_hash_is_of_the_steps_alone_and_follows_them():
    one, same = Plan((Add("a"), Remove("b")), etag="x"), Plan((Add("a"), Remove("b")), etag="x")
    assert one.hash == one.hash == fingerprint([["Add", Add("a")], ["Remove", Remove("b")]])
    # That one of them has been asked for its hash makes no difference.
    assert one == same
    assert hash(one) == hash(same)
    assert repr(one) == repr(same)
    other = replace(one, steps=(Add("a"),))
    assert other.hash == Plan((Add("a"),)).hash != one.hash

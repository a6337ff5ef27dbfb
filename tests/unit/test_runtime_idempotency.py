"""Retry keys: once, joined, answered again, never with another body."""

import asyncio

import pytest

from hostler.api.netns.v1 import namespace_pb2
from hostlerd.runtime.errors import Code, DomainError, InvalidRequest, RequestIdReused
from hostlerd.runtime.idempotency import RetryKeys


class Failed(DomainError):
    code, reason = Code.FAILED_PRECONDITION, "FAILED"


def request(name="web"):
    return namespace_pb2.DeleteNamespaceRequest(name=name)


class Doing:
    def __init__(self, error=None):
        self.times, self.error, self.go = 0, error, asyncio.Event()

    async def __call__(self):
        self.times += 1
        await self.go.wait()
        if self.error:
            raise self.error
        return namespace_pb2.DeleteNamespaceResponse()


async def test_a_retry_joins_the_call_in_flight_and_one_after_it_gets_its_answer():
    keys, do = RetryKeys(), Doing()
    calls = [asyncio.create_task(keys.once("i", "m", "id", request(), do)) for _ in range(5)]
    await asyncio.sleep(0)
    do.go.set()
    answers = await asyncio.gather(*calls)
    answers.append(await keys.once("i", "m", "id", request(), do))
    assert do.times == 1 and all(a is answers[0] for a in answers)


async def test_another_body_or_a_long_id_is_refused():
    keys, do = RetryKeys(), Doing()
    do.go.set()
    await keys.once("i", "m", "id", request(), do)
    with pytest.raises(RequestIdReused):
        await keys.once("i", "m", "id", request("db"), do)
    with pytest.raises(InvalidRequest):
        await keys.once("i", "m", "x" * 129, request(), do)


@pytest.mark.parametrize("other", [("j", "m", "id"), ("i", "n", "id"), ("i", "m", "other")])
async def test_keys_are_of_one_identity_and_method(other):
    keys, do = RetryKeys(), Doing()
    do.go.set()
    await keys.once("i", "m", "id", request(), do)
    await keys.once(*other, request("db"), do)
    assert do.times == 2


async def test_without_an_id_every_call_is_a_new_one():
    keys, do = RetryKeys(), Doing()
    do.go.set()
    for _ in range(3):
        await keys.once("i", "m", "", request(), do)
    assert do.times == 3


async def test_what_failed_may_be_tried_again_and_who_joined_sees_the_error():
    keys, do = RetryKeys(), Doing(Failed("no"))
    calls = [asyncio.create_task(keys.once("i", "m", "id", request(), do)) for _ in range(2)]
    await asyncio.sleep(0)
    do.go.set()
    for call in calls:
        with pytest.raises(Failed):
            await call
    do.error = None
    await keys.once("i", "m", "id", request(), do)
    assert do.times == 2

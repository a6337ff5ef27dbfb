from __future__ import annotations

import asyncio

from hostler.fanout import Brake, fan_out
from hostler.results import CallFailed, HostError, HostResult


async def test_order_is_kept_and_the_window_holds() -> None:
    running = most = 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02 if number % 7 == 0 else 0.001)
        running -= 1
        return number

    results = await fan_out(range(100), str, work, window=10)
    assert [result.result for result in results] == list(range(100))
    assert most == 10


async def test_a_slow_one_delays_nobody() -> None:
    done: list[str] = []

    async def work(name: str) -> None:
        await asyncio.sleep(0.3 if name == "slow" else 0)
        done.append(name)

    results = await fan_out(["slow", "a", "b"], str, work)
    assert done == ["a", "b", "slow"]
    assert [result.host for result in results] == ["slow", "a", "b"]


async def test_a_failure_is_an_error_of_its_host_alone() -> None:
    async def work(name: str) -> str:
        if name == "b":
            raise CallFailed(HostError("INTERNAL", "BUG", "broken"))
        return name

    results = await fan_out(["a", "b", "c"], str, work)
    assert [result.ok for result in results] == [True, False, True]
    assert results[1].error is not None
    assert results[1].error.reason == "BUG"


async def test_the_brake_spares_those_not_started() -> None:
    started: list[str] = []

    async def work(name: str) -> None:
        started.append(name)
        if name in "bd":
            raise CallFailed(HostError("INTERNAL", "BUG", "broken"))

    brake: Brake[None] = Brake(1)
    results = await fan_out("abcdefg", str, work, window=1, brake=brake)
    assert started == ["a", "b", "c", "d"]
    assert [r.error.reason if r.error else "" for r in results] == [
        "", "BUG", "", "BUG", "NOT_STARTED", "NOT_STARTED", "NOT_STARTED",
    ]  # fmt: skip


async def test_nothing_to_do() -> None:
    async def work(_name: str) -> None:
        raise AssertionError

    assert await fan_out([], str, work) == []


def test_a_brake_without_limit_is_never_pulled() -> None:
    brake: Brake[None] = Brake()
    for _ in range(3):
        brake.note(HostResult("a", error=HostError("X", "Y", "z")))
    assert not brake.pulled

"""The services that every daemon has, asked at several doors of a host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hostler.channel import Rpc
from hostler.fanout import fan_out
from hostler.fleet import PORTS, Host
from hostler.results import CallFailed, HostError, HostResult
from hostler.session import Session

if TYPE_CHECKING:
    from hostler.aio import Client

# Answers of a door that cannot be reached or does not serve, rather than of the method.
_NO_ANSWER = frozenset({"UNAVAILABLE", "CANCELLED", "UNIMPLEMENTED"})


@cache
def domains() -> tuple[str, ...]:
    """The domains this client has stubs for: the doors that a host can have."""
    return tuple(name for name in PORTS if find_spec(f"hostler.api.{name}") is not None)


def doors_of(host: Host, chosen: Sequence[str] = ()) -> tuple[str, ...]:
    """The doors at which a host is asked: those chosen, else those that the fleet says it has."""
    if chosen or not host.domains:
        return tuple(chosen) or domains()
    return tuple(domain for domain in domains() if domain in host.domains)


async def at_doors(
    client: Client,
    hosts: Sequence[Host],
    doors: Sequence[str],
    method: Rpc,
    request: Any,
    *,
    heard: Callable[[HostResult[Any]], None] | None = None,
) -> list[HostResult[Any]]:
    """Call a method at several doors of each host, or all that it has; one result per door.

    `heard` is given each result as soon as it is there. A List method is followed to its last page.
    """
    places = [(host, door) for host in hosts for door in doors_of(host, doors)]
    pages = "page_token" in method.request_type.DESCRIPTOR.fields_by_name

    async def one(place: tuple[Host, str]) -> Any:
        host, door = place
        async with client.session(host) as session:
            call = session.list_all if pages else session.call
            return await call(method.at(door), request)

    def named(place: tuple[Host, str], result: HostResult[Any]) -> HostResult[Any]:
        return HostResult(result.host, result.result, result.error, place[1])

    def hear(place: tuple[Host, str], result: HostResult[Any]) -> None:
        if heard is not None:
            heard(named(place, result))

    results = await fan_out(
        places, lambda place: place[0].name, one, window=client.window, heard=hear
    )
    return [named(place, result) for place, result in zip(places, results, strict=True)]


async def at_any_door(
    session: Session,
    doors: Sequence[str],
    method: Rpc,
    request: Any,
    *,
    timeout_s: float | None = None,
) -> Any:
    """Call a method at the first door that answers, for methods that do the same at every door.

    A refusal is an answer. The next door is tried where one cannot be reached or does not serve,
    but not where the call may have been carried out. Raises CallFailed with the last error.
    """
    failed = CallFailed(HostError("UNAVAILABLE", "UNREACHABLE", "the host has no door"))
    for door in doors:
        try:
            return await session.call(method.at(door), request, timeout_s=timeout_s)
        except CallFailed as error:
            failed = error
            if error.error.uncertain or error.error.code not in _NO_ANSWER:
                raise
    raise failed


async def door_of(session: Session, method: Rpc, request: Any) -> tuple[str, Any]:
    """Call a Get method at all doors at once; answers which domain has the thing, and its answer.

    Raises CallFailed: NOT_FOUND if all doors were asked and none has it, else the error of a door
    that could not be asked.
    """

    async def ask(door: str) -> Any:
        try:
            return await session.call(method.at(door), request)
        except CallFailed as failed:
            return failed

    doors = doors_of(session.host)
    answers = await asyncio.gather(*(ask(door) for door in doors))
    failures: list[CallFailed] = []
    for door, answer in zip(doors, answers, strict=True):
        if not isinstance(answer, CallFailed):
            return door, answer
        failures.append(answer)
    raise next((f for f in failures if f.error.code != "NOT_FOUND"), failures[0])

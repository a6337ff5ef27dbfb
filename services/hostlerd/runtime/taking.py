"""Taking a call on: whether there is room for its caller, and the message that it brings.

All calls reach the gate as soon as their headers are there, as streams of messages: one whose
message never comes would else be nobody's, counted by gRPC and bounded by nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from google.protobuf.message import Message

from hostlerd.runtime import streams
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.readable import Unreadable


class TooManyCalls(DomainError):
    """As many calls are in flight as this daemon takes, in all or of one identity."""

    code, reason = Code.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS"


class NoMessage(DomainError):
    """The call ended without the message that its method takes."""

    code, reason = Code.INVALID_ARGUMENT, "NO_MESSAGE"


# gRPC keeps what has come of a message in memory, and reads on only for whoever waits for one.
_RECEIVED_AT_ONCE = 8


@dataclass(slots=True)
class _Calls:
    """The calls of one identity; `turn` is had by those of them whose message is received."""

    count: int = 0
    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_RECEIVED_AT_ONCE))


class Room:
    """Counts calls in flight: `most` of them, of which one identity never has the last eighth."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_one = most - max(1, most // 8) if most > 1 else most
        self._count = 0
        self._by_identity: defaultdict[str, _Calls] = defaultdict(_Calls)

    @contextmanager
    def taken(self, identity: str) -> Iterator[asyncio.Semaphore]:
        """Count one more call of this identity while the block goes on. Raises TooManyCalls.

        Yields what the call is to have while its message is received; see only_message.
        """
        if self._count >= self._most:
            raise TooManyCalls(f"{self._most} calls are in flight", most=self._most)
        calls = self._by_identity[identity]
        if calls.count >= self._most_of_one:
            raise TooManyCalls(
                f"{self._most_of_one} calls of {identity} are in flight",
                most=self._most_of_one,
                identity=identity,
            )
        self._count += 1
        calls.count += 1
        try:
            yield calls.turn
        finally:
            self._count -= 1
            calls.count -= 1
            if not calls.count:
                del self._by_identity[identity]


async def only_message(
    messages: AsyncIterator[Message | Unreadable], turn: asyncio.Semaphore
) -> Message | Unreadable:
    """Answer the one message of a call that takes one. Raises NoFirstMessage, NoMessage.

    A few messages of one identity are received at a time: what is on its way of them is all that
    one may take of the host's memory. Nobody waits for another's.
    """
    try:
        async with asyncio.timeout(streams.FIRST_MESSAGE_S), turn:
            async for message in messages:
                return message
    except TimeoutError as e:
        raise streams.NoFirstMessage(
            f"no message came within {streams.FIRST_MESSAGE_S:.0f} s"
        ) from e
    raise NoMessage("the call has ended without a message")

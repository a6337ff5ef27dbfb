"""Taking a call on: whether there is room for its caller, and the message that it brings.

All calls reach the gate as soon as their headers are there, as streams of messages: one whose
message never comes would else be nobody's, counted by gRPC and bounded by nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

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


class Room:
    """Counts calls in flight: `most` of them, of which one identity never has the last eighth."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_one = most - max(1, most // 8) if most > 1 else most
        self._by_identity: Counter[str] = Counter()

    @contextmanager
    def taken(self, identity: str) -> Iterator[None]:
        """Count one more call of this identity while the block goes on. Raises TooManyCalls."""
        if self._by_identity.total() >= self._most:
            raise TooManyCalls(f"{self._most} calls are in flight", most=self._most)
        if self._by_identity[identity] >= self._most_of_one:
            raise TooManyCalls(
                f"{self._most_of_one} calls of {identity} are in flight",
                most=self._most_of_one,
                identity=identity,
            )
        self._by_identity[identity] += 1
        try:
            yield
        finally:
            self._by_identity[identity] -= 1
            if not self._by_identity[identity]:
                del self._by_identity[identity]


async def only_message(messages: AsyncIterator[Message | Unreadable]) -> Message | Unreadable:
    """Answer the one message of a call that takes one. Raises NoFirstMessage, NoMessage."""
    try:
        async with asyncio.timeout(streams.FIRST_MESSAGE_S):
            async for message in messages:
                return message
    except TimeoutError as e:
        raise streams.NoFirstMessage(
            f"no message came within {streams.FIRST_MESSAGE_S:.0f} s"
        ) from e
    raise NoMessage("the call has ended without a message")

"""Retries: the same request id never does a thing twice, in flight or across restarts."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from google.protobuf.message import Message

from hostlerd.runtime.answers import Answers, Key, Reused
from hostlerd.runtime.changes import Blocking
from hostlerd.runtime.errors import InvalidRequest, RequestIdReused, Violation
from hostlerd.runtime.log import get_log

log = get_log("runtime.idempotency")

_LONGEST_ID = 128


@dataclass(frozen=True, slots=True)
class _Entry:
    body: str
    answer: asyncio.Future[Message]


class RetryKeys:
    """Runs each request at most once per (identity, method, request id)."""

    def __init__(self, answers: Answers, blocking: Blocking) -> None:
        self._answers = answers
        self._blocking = blocking
        self._in_flight: dict[str, _Entry] = {}

    async def once(
        self,
        key: Key,
        answer: Message,
        do: Callable[[], Awaitable[Message]],
        lasts: Callable[[Message], bool],
    ) -> tuple[Message, bool]:
        """Answer what `do` answers, and whether it was run for this caller.

        A retry joins the call in flight or gets its answer, for which `answer` is an empty message
        of the right type; one with another body raises RequestIdReused. A call that failed has left
        nothing behind and may be tried again. `lasts` says whether the answer outlives a boot.
        """
        if not key.request_id:
            return await do(), True
        if len(key.request_id) > _LONGEST_ID:
            raise InvalidRequest.of(
                [Violation("change.request_id", f"longer than {_LONGEST_ID} characters")]
            )
        entry = self._in_flight.get(key.name)
        if entry is not None:
            if entry.body != key.body:
                raise _reused()
            return await asyncio.shield(entry.answer), False
        return await self._run(key, answer, do, lasts)

    async def _run(
        self,
        key: Key,
        answer: Message,
        do: Callable[[], Awaitable[Message]],
        lasts: Callable[[Message], bool],
    ) -> tuple[Message, bool]:
        joined: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        # Nobody may have joined; an error is then seen by the first caller alone.
        joined.add_done_callback(lambda f: f.cancelled() or f.exception())
        self._in_flight[key.name] = _Entry(key.body, joined)
        try:
            known = await self._blocking(self._find, key, answer)
            result = answer if known else await do()
            if not known:
                await self._store(key, result, lasts(result))
        except BaseException as e:
            if isinstance(e, Exception):
                joined.set_exception(e)
            else:
                joined.cancel()
            raise
        finally:
            del self._in_flight[key.name]
        joined.set_result(result)
        return result, not known

    def _find(self, key: Key, answer: Message) -> bool:
        try:
            return self._answers.find(key, answer)
        except Reused as e:
            raise _reused() from e

    async def _store(self, key: Key, result: Message, lasts: bool) -> None:
        def store() -> None:
            try:
                self._answers.store(key, result, lasts=lasts)
            except OSError as e:
                # What was done is done; a full disk must not make an error of it.
                log.error("answer not kept: a retry would be a new request", error=e.strerror)

        await self._blocking(store)


def key_of(identity: str, method: str, request_id: str, request: Message) -> Key:
    """Answer the retry key of a request."""
    body = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
    return Key(identity, method, request_id, body)


def _reused() -> RequestIdReused:
    return RequestIdReused("this request_id belongs to another request")

"""Retries: the same request id never does a thing twice while this daemon runs.

Kept in memory; what a restart must not forget has no place yet but this one.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from google.protobuf.message import Message

from hostlerd.runtime.errors import InvalidRequest, RequestIdReused, Violation

_KEPT_S = 24 * 3600.0
_MOST = 10_000
_LONGEST_ID = 128


@dataclass(frozen=True, slots=True)
class _Entry:
    body: str
    answer: asyncio.Future[Message]
    since: float


class RetryKeys:
    """Remembers the answers of changes by (identity, method, request id)."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str, str], _Entry] = OrderedDict()

    async def once(
        self,
        identity: str,
        method: str,
        request_id: str,
        request: Message,
        do: Callable[[], Awaitable[Message]],
    ) -> Message:
        """Answer what `do` answers, running it at most once per key.

        A retry joins the call in flight or gets its answer; one with another body raises
        RequestIdReused. A call that failed has left nothing behind and may be tried again.
        """
        if not request_id:
            return await do()
        if len(request_id) > _LONGEST_ID:
            raise InvalidRequest.of(
                [Violation("change.request_id", f"longer than {_LONGEST_ID} characters")]
            )
        key = (identity, method, request_id)
        body = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
        self._forget_old()
        entry = self._entries.get(key)
        if entry is not None:
            if entry.body != body:
                raise RequestIdReused("this request_id belongs to another request")
            return await asyncio.shield(entry.answer)
        return await self._run(key, body, do)

    async def _run(
        self, key: tuple[str, str, str], body: str, do: Callable[[], Awaitable[Message]]
    ) -> Message:
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        # Nobody may have joined; an error is then seen by the first caller alone.
        answer.add_done_callback(lambda f: f.cancelled() or f.exception())
        self._entries[key] = _Entry(body, answer, time.monotonic())
        try:
            result = await do()
        except BaseException as e:
            del self._entries[key]
            if isinstance(e, Exception):
                answer.set_exception(e)
            else:
                answer.cancel()
            raise
        answer.set_result(result)
        return result

    def _forget_old(self) -> None:
        oldest = time.monotonic() - _KEPT_S
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if len(self._entries) < _MOST and entry.since > oldest:
                break
            if not entry.answer.done():
                break
            del self._entries[key]

"""Open streams: the caller is looked at again as long as one lasts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from hostlerd.runtime.authz import Authorizer
from hostlerd.runtime.call import Call
from hostlerd.runtime.errors import Code, DomainError

# How often an open stream is looked at again: policies, revocations and dates may have changed.
_RECHECK_S = 5.0


class CertificateEnded(DomainError):
    """The caller's certificate has ended while its stream was open."""

    code, reason = Code.UNAUTHENTICATED, "CERTIFICATE_EXPIRED"


class Streams:
    """Passes on what goes in and out of streams, for as long as their callers may."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def inbound(
        self,
        call: Call,
        messages: AsyncIterator[Message],
        admit: Callable[[Call, Message], Awaitable[None]],
    ) -> AsyncIterator[Any]:
        """Pass on what comes in; the first message names the resource and is admitted."""
        first = True
        async for message in messages:
            if first:
                await admit(call, message)
                first = False
            else:
                self._recheck(call)
            yield message

    async def supervised(
        self, call: Call, messages: AsyncIterator[Message]
    ) -> AsyncIterator[Message]:
        """Pass on what goes out, looking at the caller again every few seconds."""
        upcoming: asyncio.Future[Message] | None = None
        try:
            while True:
                if upcoming is None:
                    upcoming = asyncio.ensure_future(anext(messages))
                done, _ = await asyncio.wait({upcoming}, timeout=_RECHECK_S)
                self._recheck(call)
                if not done:
                    continue
                try:
                    message = upcoming.result()
                except StopAsyncIteration:
                    return
                upcoming = None
                yield message
        finally:
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.wait({upcoming})
            await messages.aclose()  # type: ignore[attr-defined]

    def _recheck(self, call: Call) -> None:
        now = time.monotonic()
        if now - call.checked_at < _RECHECK_S:
            return
        call.checked_at = now
        ends = call.caller.not_after
        if ends is not None and datetime.now(UTC) > ends:
            raise CertificateEnded("the caller's certificate has ended", ended=ends.isoformat())
        self._authorizer.check_identity(call)
        self._authorizer.authorize(call)

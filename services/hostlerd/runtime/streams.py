"""Open streams: each is under the policies for as long as it lasts, not only when it begins.

A stream is looked at again when the bundle changes, at the end of its caller's certificate, and
every half a minute whatever happens. A look costs one decision of the policies; a message costs
nothing, since nobody looks because of it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from google.protobuf.message import Message

from hostlerd.runtime import events
from hostlerd.runtime.authz import PermissionDenied
from hostlerd.runtime.call import Call
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.log import get_log
from hostlerd.runtime.tls import CertificateExpired

log = get_log("runtime.streams")

# The design's bound is 30 s; a busy loop has the rest.
RECHECK_S = 25.0
# How long a caller may leave open what its stream is about.
FIRST_MESSAGE_S = 30.0
# Tells the client that its stream was let in, before there is anything to send.
OPENED = (("hostler-stream", "open"),)


class Stopping(DomainError):
    """The daemon is about to exit; whoever opens the stream again reaches the next one."""

    code, reason = Code.UNAVAILABLE, "DAEMON_STOPPING"


class NoFirstMessage(DomainError):
    """The caller opened a stream and did not say what it is about."""

    code, reason = Code.DEADLINE_EXCEEDED, "NO_FIRST_MESSAGE"


class Judge(Protocol):
    """Decides who may do what; `on_change` names whom to tell, on any thread, of a new bundle."""

    def check_identity(self, call: Call) -> None:
        """Raise what is wrong with the caller's identity."""
        ...

    def authorize(self, call: Call) -> None:
        """Raise if the policies do not allow the call."""
        ...

    def on_change(self, tell: Callable[[], None]) -> None:
        """Have `tell` called whenever another bundle is in force."""
        ...


Admit = Callable[[Call, Message], Awaitable[Message]]
Write = Callable[[Message], Awaitable[None]]


class Streams:
    """All open streams of a daemon."""

    def __init__(self, judge: Judge, recheck_s: float = RECHECK_S) -> None:
        self._judge = judge
        self._recheck_s = recheck_s
        self._open: set[Stream] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        judge.on_change(self._changed)

    @contextmanager
    def opened(self, call: Call) -> Iterator[Stream]:
        """Keep a call's stream under watch while the block goes on, in the task that runs it.

        What a look finds is raised in the block, wherever it waits. Raises Stopping.
        """
        if self._stopping:
            raise Stopping("the daemon is stopping")
        self._loop = asyncio.get_running_loop()
        stream = Stream(call, self._judge, self._recheck_s)
        self._open.add(stream)
        try:
            with stream.watched():
                yield stream
        finally:
            self._open.discard(stream)

    def stop(self) -> None:
        """End all streams that only read, and let none begin: their callers open them again.

        Those that change something are left until they end, or the server ends them.
        """
        self._stopping = True
        for stream in tuple(self._open):
            if not stream.call.method.changes:
                stream.end(Stopping("the daemon is stopping"))

    def _changed(self) -> None:
        # A bundle is put in force by whichever thread reads or pushes it.
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._look_at_all)

    def _look_at_all(self) -> None:
        for stream in tuple(self._open):
            stream.look()


class Stream:
    """One open stream.

    `admitted` says that what it is about is known and allowed; from then on that is looked at,
    too. `verdict` is why it must end, as soon as that is known.
    """

    def __init__(self, call: Call, judge: Judge, recheck_s: float) -> None:
        self.call = call
        self.verdict: DomainError | None = None
        self._judge = judge
        self._recheck_s = recheck_s
        self.admitted = False
        self._opened_s = time.monotonic()
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at the caller again and again; raises the verdict instead of its own cancel."""
        self._task = task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a stream is served by a task")
        cancels = task.cancelling()
        self._arm()
        try:
            yield
        except asyncio.CancelledError:
            # As in asyncio.timeout(): a cancel that somebody else asked for as well goes on.
            if self.verdict is None or task.uncancel() > cancels:
                raise
            raise self.verdict from None
        finally:
            self._task = None
            if self._timer is not None:
                self._timer.cancel()

    async def inbound(
        self, messages: AsyncIterator[Message], admit: Admit, admit_next: Callable[..., None]
    ) -> AsyncIterator[Any]:
        """Pass on what comes in; the first message says what the stream is about."""
        async for message in messages:
            if self.admitted:
                admit_next(self.call, message)
            else:
                await admit(self.call, message)
                self.admitted = True
            yield message

    async def outbound(self, messages: Any, write: Write) -> None:
        """Pass on what goes out, to its end. Raises the verdict."""
        async with aclosing(messages):
            async for message in messages:
                if self.verdict is not None:
                    # Whoever makes the messages has not let the cancel through.
                    raise self.verdict
                await write(message)

    def look(self) -> None:
        """Judge the caller now."""
        if self.verdict is not None or self._task is None:
            return
        try:
            self._judge_now()
        except DomainError as e:
            self.end(e)
        else:
            self._arm()

    def end(self, verdict: DomainError) -> None:
        """End the stream with an error, whatever it waits for."""
        if self.verdict is None and self._task is not None:
            self.verdict = verdict
            log.info(
                "stream ended",
                event=events.STREAM_ENDED,
                reason=verdict.reason,
                method=self.call.method.name,
                identity=self.call.caller.identity,
                peer=self.call.caller.peer,
                run=self.call.run,
            )
            self._task.cancel()

    def _judge_now(self) -> None:
        call = self.call
        log.debug("stream looked at", verbosity=2, method=call.method.name)
        call.checked_at = time.monotonic()
        ends = call.caller.not_after
        if ends is not None and datetime.now(UTC) > ends:
            raise CertificateExpired(
                "the caller's certificate has ended while its stream was open",
                serial=call.caller.certificate_serial,
                not_after=ends.isoformat(),
            )
        self._judge.check_identity(call)
        if self.admitted:
            self._judge_admitted(call)
        elif time.monotonic() - self._opened_s >= FIRST_MESSAGE_S:
            raise NoFirstMessage(f"no message came within {FIRST_MESSAGE_S:.0f} s")

    def _judge_admitted(self, call: Call) -> None:
        needed = call.approval_needed
        self._judge.authorize(call)
        if call.approval_needed and not needed:
            raise PermissionDenied("the policies now want somebody's approval for this stream")

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Streams that began together are looked at one by one, not all in one turn of the loop.
        delay_s = self._recheck_s * random.uniform(0.8, 1.0)  # noqa: S311 - spreads load
        if not self.admitted:
            waited_s = time.monotonic() - self._opened_s
            delay_s = min(delay_s, max(0.0, FIRST_MESSAGE_S - waited_s) + 0.005)
        ends = self.call.caller.not_after
        if ends is not None:
            # Certificates end after the second that they name; the margin is the timer's own.
            left_s = (ends - datetime.now(UTC)).total_seconds()
            delay_s = min(delay_s, max(0.0, left_s) + 0.005)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.look)
